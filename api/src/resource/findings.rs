//! What a look at one document finds wrong with it: field paths and messages, without knowing of files. Pure.

/// One thing wrong with a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Path of the field from the document's root: `spec.importV4[1].cidr`.
    pub path: String,
    /// What is wrong, for people.
    pub message: String,
}

/// Collects [`Finding`]s while a document is validated.
#[derive(Debug, Default)]
pub struct Findings(Vec<Finding>);

impl Findings {
    /// Starts with none.
    pub fn new() -> Self {
        Self::default()
    }

    /// Notes that `message` holds of the field at `path`.
    pub fn add(&mut self, path: impl Into<String>, message: impl Into<String>) {
        self.0.push(Finding { path: path.into(), message: message.into() });
    }

    /// Notes a field that this version parses but refuses: `not supported yet: FIELD`.
    pub fn unsupported(&mut self, path: impl Into<String>) {
        let path = path.into();
        let field = path.rsplit('.').next().unwrap_or_default().to_owned();
        self.add(path, format!("not supported yet: {field}"));
    }

    /// Notes an AS number outside what a speaker may use (RFC 7607, RFC 6793).
    pub fn asn(&mut self, path: impl Into<String>, number: u32) {
        match number {
            0 => self.add(path, "AS number 0 is reserved (RFC 7607)"),
            23456 => self.add(path, "AS number 23456 is reserved (AS_TRANS, RFC 6793)"),
            _ => {}
        }
    }

    /// Everything found.
    pub fn into_vec(self) -> Vec<Finding> {
        self.0
    }
}
