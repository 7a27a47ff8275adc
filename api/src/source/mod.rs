//! The file source: a file or folder of YAML or JSON documents becomes a [`DocumentSet`], or a list of errors each of
//! which names file, line, column, document and field.
//!
//! Reads files and nothing else; everything is bounded, since a folder may hold anything. No async runtime.

mod located;

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use located::{FieldError, Located, Position};
use serde_saphyr::DuplicateKeyPolicy;

use crate::document_set::{Document, DocumentError, DocumentSet, Errors, Place};
use crate::resource::{Kind, Resource};

/// Largest file read, in bytes.
pub const MAX_FILE: u64 = 16 << 20;
/// Most bytes read from one folder.
pub const MAX_TOTAL: u64 = 64 << 20;
/// Most files read from one folder.
pub const MAX_FILES: usize = 4096;
/// Most documents in one set.
pub const MAX_DOCUMENTS: usize = 100_000;
/// How deep values may be nested; ours need eight. The parser calls itself, and a thread of the daemons has 2 MiB.
const MAX_DEPTH: usize = 24;

/// Reads all documents at `path`: a file, or a folder whose `*.yaml`, `*.yml` and `*.json` files are read in the order
/// of their names. Folders inside it are not entered; symbolic links are followed, as a mounted ConfigMap needs.
/// The set is validated as a whole.
pub fn read(path: &Path) -> Result<DocumentSet, Errors> {
    let mut loader = Loader::default();
    match files_of(path) {
        Ok(files) => {
            for file in files {
                loader.file(&file);
            }
        }
        Err(error) => loader.errors.push(unreadable(path, &error)),
    }
    loader.finish()
}

/// Parses the text of one file; `name` stands for it in errors.
pub fn parse(name: &str, text: &str) -> Result<DocumentSet, Errors> {
    let mut loader = Loader::default();
    loader.text(&Arc::from(name), text);
    loader.finish()
}

/// Makes a set out of documents that did not come from files; each error names its document.
pub fn from_json<'a>(
    documents: impl IntoIterator<Item = &'a serde_json::Value>,
) -> Result<DocumentSet, Errors> {
    let mut loader = Loader::default();
    for value in documents {
        loader.document(None, Located::from(value));
    }
    loader.finish()
}

/// The files to read for `path`, sorted.
pub fn files_of(path: &Path) -> io::Result<Vec<PathBuf>> {
    if !fs::metadata(path)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(path)? {
        let file = entry?.path();
        let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let wanted =
            [".yaml", ".yml", ".json"].iter().any(|end| name.ends_with(end)) && !name.starts_with('.');
        if wanted && fs::metadata(&file).is_ok_and(|meta| meta.is_file()) {
            if files.len() == MAX_FILES {
                return Err(io::Error::other(format!("more than {MAX_FILES} files")));
            }
            files.push(file);
        }
    }
    files.sort();
    Ok(files)
}

fn unreadable(path: &Path, error: &io::Error) -> DocumentError {
    DocumentError {
        place: Place {
            file: Some(Arc::from(path.to_string_lossy().as_ref())),
            position: Position::default(),
        },
        document: String::new(),
        path: String::new(),
        message: format!("cannot be read: {error}"),
    }
}

#[derive(Default)]
struct Loader {
    bytes: u64,
    documents: Vec<Document>,
    errors: Vec<DocumentError>,
}

impl Loader {
    fn file(&mut self, path: &Path) {
        match self.read_bounded(path) {
            Ok(text) => self.text(&Arc::from(path.to_string_lossy().as_ref()), &text),
            Err(error) => self.errors.push(unreadable(path, &error)),
        }
    }

    fn read_bounded(&mut self, path: &Path) -> io::Result<String> {
        let file = fs::File::open(path)?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::other("not a regular file"));
        }
        let mut text = String::new();
        file.take(MAX_FILE + 1).read_to_string(&mut text)?;
        self.bytes += text.len() as u64;
        if text.len() as u64 > MAX_FILE {
            return Err(io::Error::other(format!("larger than {MAX_FILE} bytes")));
        }
        if self.bytes > MAX_TOTAL {
            return Err(io::Error::other(format!("the files together are larger than {MAX_TOTAL} bytes")));
        }
        Ok(text)
    }

    fn text(&mut self, file: &Arc<str>, text: &str) {
        let options = serde_saphyr::options! {
            duplicate_keys: DuplicateKeyPolicy::Error,
            strict_booleans: true,
            with_snippet: false,
            budget: serde_saphyr::budget! {
                max_documents: MAX_DOCUMENTS,
                max_depth: MAX_DEPTH,
                max_events: 8_000_000,
                max_nodes: 4_000_000,
            },
        };
        match serde_saphyr::from_multiple_with_options::<Located>(text, options) {
            Ok(documents) => {
                for document in documents {
                    self.document(Some(file), document);
                }
            }
            Err(error) => {
                let position = error
                    .location()
                    .map_or(Position::default(), |at| Position { line: at.line(), column: at.column() });
                self.errors.push(DocumentError {
                    place: Place { file: Some(file.clone()), position },
                    document: String::new(),
                    path: String::new(),
                    message: format!("not YAML: {}", plain_message(&error)),
                });
            }
        }
    }

    fn document(&mut self, file: Option<&Arc<str>>, tree: Located) {
        if matches!(tree.value, located::Value::Null) {
            return;
        }
        if tree.get("kind").and_then(Located::as_str) == Some("List") {
            if let Some(located::Value::Seq(items)) = tree.get("items").map(|items| &items.value) {
                for item in items.clone() {
                    self.document(file, item);
                }
            }
            return;
        }
        if self.documents.len() >= MAX_DOCUMENTS {
            if self.documents.len() == MAX_DOCUMENTS && self.errors.is_empty() {
                self.fail(file, &tree, "", tree.position, format!("more than {MAX_DOCUMENTS} documents"));
            }
            return;
        }
        match self.resource(&tree) {
            Ok(resource) => {
                let place = Place { file: file.cloned(), position: tree.position };
                self.documents.push(Document::new(resource, place, tree));
            }
            Err(error) => self.fail(file, &tree, &error.path, error.position, error.message),
        }
    }

    fn resource(&self, tree: &Located) -> Result<Resource, FieldError> {
        let wrong = |field: &str, message: String| -> FieldError {
            FieldError::new(field, tree.find(field), message)
        };
        if !matches!(tree.value, located::Value::Map(_)) {
            return Err(wrong(
                "",
                "a document must be a map with apiVersion, kind, metadata and spec".to_owned(),
            ));
        }
        let word = |field: &str| match tree.get(field) {
            Some(value) => value.as_str().ok_or_else(|| wrong(field, "must be a string".to_owned())),
            None => Err(wrong("", format!("`{field}` is missing"))),
        };
        let (api_version, kind) = (word("apiVersion")?, word("kind")?);
        let kind = Kind::from_name(kind).ok_or_else(|| {
            let known: Vec<&str> = Kind::ALL.iter().map(|kind| kind.name()).collect();
            wrong("kind", format!("unknown kind `{kind}`, known are {}", known.join(", ")))
        })?;
        if api_version != kind.api_version() {
            let expected = kind.api_version();
            return Err(wrong("apiVersion", format!("must be `{expected}` for {kind}, not `{api_version}`")));
        }
        Resource::parse(kind, tree)
    }

    fn fail(
        &mut self,
        file: Option<&Arc<str>>,
        tree: &Located,
        path: &str,
        position: Position,
        message: String,
    ) {
        let kind = tree.get("kind").and_then(Located::as_str).unwrap_or_default();
        let name = tree.get("metadata").and_then(|metadata| metadata.get("name")).and_then(Located::as_str);
        let document = match (kind, name) {
            ("", None) => String::new(),
            (kind, None) => kind.to_owned(),
            (kind, Some(name)) => format!("{kind}/{name}"),
        };
        self.errors.push(DocumentError {
            place: Place { file: file.cloned(), position },
            document,
            path: path.to_owned(),
            message,
        });
    }

    fn finish(self) -> Result<DocumentSet, Errors> {
        DocumentSet::new(self.documents, self.errors)
    }
}

/// The parser's message without the place, which is told apart from it.
fn plain_message(error: &serde_saphyr::Error) -> String {
    let text = error.to_string();
    let line = text.lines().next().unwrap_or_default();
    match line.rfind(" at line ") {
        Some(end) => line[..end].trim_end_matches([',', ':']).to_owned(),
        None => line.to_owned(),
    }
}
