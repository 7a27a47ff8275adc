//! Errors as the specification has them: a code, a short message, details. Pure.

use std::fmt;

use serde_json::{Value, json};

use crate::version::Version;

/// What went wrong, by the specification's numbers; those from 100 are ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// The configuration's version is not one of ours, or does not have the operation.
    IncompatibleVersion = 1,
    /// A field of the configuration asks for what the plugin does not do.
    UnsupportedField = 2,
    /// There is no such container; nothing is left to clean up.
    UnknownContainer = 3,
    /// An environment variable is missing or wrong.
    InvalidEnvironment = 4,
    /// Something cannot be read or written.
    Io = 5,
    /// The configuration is not what it should be already as JSON.
    Decode = 6,
    /// The configuration is JSON of the right shape, but wrong.
    InvalidConfig = 7,
    /// The same call may succeed later.
    TryAgainLater = 11,
    /// STATUS: no ADD can be served.
    Unavailable = 50,
    /// STATUS: no ADD can be served, and containers that are there may have lost connectivity.
    UnavailableLimited = 51,
    /// The kernel refused, or a fault of ours.
    Internal = 100,
    /// Every address is taken.
    NoFreeAddress = 101,
    /// The interface is in the container already, or its host end's name is taken.
    InterfaceExists = 102,
    /// CHECK found something missing or changed.
    CheckFailed = 103,
}

/// An error for the runtime.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CniError {
    /// The code.
    pub code: Code,
    /// One line.
    pub message: String,
    /// The rest.
    pub details: String,
}

impl CniError {
    /// An error without details.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), details: String::new() }
    }

    /// The same error with these details.
    pub fn with_details(self, details: impl Into<String>) -> Self {
        Self { details: details.into(), ..self }
    }

    /// The error that stands for several: the first one's code and message, the others as details.
    pub fn all(errors: Vec<CniError>) -> Option<CniError> {
        let mut errors = errors.into_iter();
        let first = errors.next()?;
        let rest: Vec<String> = std::iter::once(first.details.clone())
            .filter(|details| !details.is_empty())
            .chain(errors.map(|error| error.to_string()))
            .collect();
        Some(first.with_details(rest.join("; ")))
    }

    /// As the specification writes it.
    pub fn to_json(&self, version: Version) -> Value {
        json!({
            "cniVersion": version.as_str(),
            "code": self.code as u32,
            "msg": self.message,
            "details": self.details,
        })
    }
}

impl fmt::Display for CniError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.details.as_str() {
            "" => write!(formatter, "{}", self.message),
            details => write!(formatter, "{} ({details})", self.message),
        }
    }
}

impl From<causeway_kernel::Error> for CniError {
    fn from(error: causeway_kernel::Error) -> Self {
        let code = if error.exists() { Code::InterfaceExists } else { Code::Internal };
        Self::new(code, error.to_string())
    }
}

impl From<causeway_ipam::StoreError> for CniError {
    fn from(error: causeway_ipam::StoreError) -> Self {
        use causeway_ipam::{AllocateError, StoreError};
        let code = match &error {
            _ if error.is_transient() => Code::TryAgainLater,
            StoreError::Allocate(AllocateError::Full { .. } | AllocateError::TooMany) => Code::NoFreeAddress,
            StoreError::Allocate(AllocateError::VethTaken { .. }) => Code::InterfaceExists,
            _ => Code::Io,
        };
        Self::new(code, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_keeps_the_first_and_tells_the_rest() {
        assert_eq!(CniError::all(Vec::new()), None);
        let error = CniError::all(vec![
            CniError::new(Code::Io, "a").with_details("b"),
            CniError::new(Code::Internal, "c"),
        ])
        .unwrap();
        assert_eq!(error, CniError::new(Code::Io, "a").with_details("b; c"));
        assert_eq!(
            error.to_json(Version::V1_0_0),
            json!({"cniVersion": "1.0.0", "code": 5, "msg": "a", "details": "b; c"})
        );
    }
}
