//! What can go wrong with the kernel, by consequence.

use std::io;
use std::path::PathBuf;

use nix::errno::Errno;
use thiserror::Error;

/// The kernel's "no" to one request.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{}", self.text())]
pub struct Refusal {
    /// The error number.
    pub errno: Errno,
    /// The kernel's own words (extended acknowledgement), when it gave any.
    pub message: Option<String>,
}

impl Refusal {
    /// A refusal without words.
    pub fn new(errno: Errno) -> Refusal {
        Refusal { errno, message: None }
    }

    /// Something with that key, name or address is there already.
    pub fn exists(&self) -> bool {
        self.errno == Errno::EEXIST
    }

    /// The route, link, address or neighbour to be changed or deleted is not there.
    pub fn missing(&self) -> bool {
        matches!(
            self.errno,
            Errno::ESRCH | Errno::ENOENT | Errno::ENODEV | Errno::EADDRNOTAVAIL | Errno::ENXIO
        )
    }

    /// The kernel lacks what was asked for: that kind of device, that kind of object, that change in place.
    pub fn unsupported(&self) -> bool {
        self.errno == Errno::EOPNOTSUPP
    }

    fn text(&self) -> String {
        match &self.message {
            Some(message) => format!("{} ({:?})", message, self.errno),
            None => format!("{} ({:?})", self.errno.desc(), self.errno),
        }
    }
}

/// Why an operation on the kernel failed.
#[derive(Debug, Error)]
pub enum Error {
    /// The kernel refused; nothing was changed.
    #[error("{what}: {refusal}")]
    Refused {
        /// What was asked for, with its names and addresses.
        what: String,
        /// The answer.
        refusal: Refusal,
    },
    /// Answers were lost because the receive buffer was full: what was changed is unknown, a dump tells.
    #[error("netlink answers were lost (receive buffer full)")]
    Overrun,
    /// A dump was interrupted by changes (where it is repeated: every time).
    #[error("dump of {0} was interrupted by changes")]
    Interrupted(&'static str),
    /// The socket itself failed; what was changed is unknown.
    #[error("netlink socket: {what}: {source}")]
    Socket {
        /// The call.
        what: &'static str,
        /// Its error.
        source: io::Error,
    },
    /// An answer that does not decode.
    #[error("netlink answer does not decode: {0}")]
    Malformed(String),
    /// A name the kernel would not take, for example a device name of more than 15 bytes.
    #[error("{0}")]
    Invalid(String),
    /// A network namespace that cannot be opened or entered.
    #[error("network namespace: {what}: {source}")]
    Namespace {
        /// The call.
        what: String,
        /// Its error.
        source: io::Error,
    },
    /// A file below `/proc/sys` that cannot be read or written.
    #[error("{}: {source}", path.display())]
    Sysctl {
        /// The file.
        path: PathBuf,
        /// The error.
        source: io::Error,
    },
}

impl Error {
    /// The kernel's "no", if that is what it is.
    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            Error::Refused { refusal, .. } => Some(refusal),
            _ => None,
        }
    }

    /// See [`Refusal::exists`].
    pub fn exists(&self) -> bool {
        self.refusal().is_some_and(Refusal::exists)
    }

    /// See [`Refusal::unsupported`].
    pub fn unsupported(&self) -> bool {
        self.refusal().is_some_and(Refusal::unsupported)
    }

    /// See [`Refusal::missing`].
    pub fn missing(&self) -> bool {
        self.refusal().is_some_and(Refusal::missing)
    }
}
