//! `manifests/crds` says what the document types say: it is what `causeway crds` prints, a file each.
//!
//! `CAUSEWAY_BLESS=1 cargo test -p causeway --test crds` writes the files anew.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde::Deserialize;
use serde_yaml::Value;

fn folder() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests/crds")
}

/// The documents `causeway crds` prints, by the name of their file.
fn printed() -> Vec<(String, String)> {
    let output = Command::new(env!("CARGO_BIN_EXE_causeway")).arg("crds").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let documents = text.split("---\n").filter(|document| !document.trim().is_empty());
    documents
        .map(|document| {
            let value: Value = serde_yaml::from_str(document).unwrap();
            let name = value["metadata"]["name"].as_str().unwrap();
            (format!("{name}.yaml"), document.to_owned())
        })
        .collect()
}

#[test]
fn checked_in_files_are_what_the_types_say() {
    let folder = folder();
    let documents = printed();
    assert_eq!(documents.len(), 5);
    for (name, document) in &documents {
        let path = folder.join(name);
        if std::env::var_os("CAUSEWAY_BLESS").is_some() {
            fs::write(&path, document).unwrap();
        }
        let found = fs::read_to_string(&path).unwrap_or_default();
        assert!(found == *document, "{} is not what `causeway crds` prints", path.display());
    }
}

#[test]
fn the_kustomization_names_every_file() {
    let folder = folder();
    #[derive(Deserialize)]
    struct Kustomization {
        resources: BTreeSet<String>,
    }
    let text = fs::read_to_string(folder.join("kustomization.yaml")).unwrap();
    let kustomization: Kustomization = serde_yaml::from_str(&text).unwrap();
    let expected: BTreeSet<String> = printed().into_iter().map(|(name, _)| name).collect();
    assert_eq!(kustomization.resources, expected);
    let files: BTreeSet<String> = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name != "kustomization.yaml")
        .collect();
    assert_eq!(files, expected, "files of kinds that are no more");
}
