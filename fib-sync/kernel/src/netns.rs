//! Doing things in another network namespace, without the calling thread leaving its own.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::sched::{CloneFlags, setns, unshare};

use crate::error::Error;

/// Opens a network namespace by its path, for example `/run/netns/NAME` or `/proc/PID/ns/net`.
///
/// # Errors
/// [`Error::Namespace`] when the file cannot be opened; that it is a namespace shows on entering.
pub fn open(path: &Path) -> Result<OwnedFd, Error> {
    match File::open(path) {
        Ok(file) => Ok(file.into()),
        Err(source) => Err(Error::Namespace { what: format!("open {}", path.display()), source }),
    }
}

/// The namespace of the calling thread.
///
/// # Errors
/// [`Error::Namespace`].
pub fn current() -> Result<OwnedFd, Error> {
    open(Path::new("/proc/thread-self/ns/net"))
}

/// Makes a new, nameless network namespace. It lives as long as the descriptor, a socket or a process in it.
///
/// # Errors
/// [`Error::Namespace`].
pub fn create() -> Result<OwnedFd, Error> {
    on_own_thread(|| {
        unshare(CloneFlags::CLONE_NEWNET)
            .map_err(|errno| Error::Namespace { what: "unshare".to_owned(), source: errno.into() })?;
        current()
    })?
}

/// Runs `work` on a thread of its own that has entered `netns`. Sockets it opens and files below `/proc/sys/net` it
/// touches belong to that namespace.
///
/// # Errors
/// [`Error::Namespace`] when it cannot be entered.
pub fn run_in<T: Send>(netns: BorrowedFd<'_>, work: impl FnOnce() -> T + Send) -> Result<T, Error> {
    on_own_thread(|| {
        setns(netns.as_fd(), CloneFlags::CLONE_NEWNET)
            .map_err(|errno| Error::Namespace { what: "setns".to_owned(), source: errno.into() })?;
        Ok(work())
    })?
}

fn on_own_thread<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T, Error> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .name("netns".to_owned())
            .spawn_scoped(scope, work)
            .map_err(|source| Error::Namespace { what: "thread".to_owned(), source })?;
        match thread.join() {
            Ok(value) => Ok(value),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// Whether two descriptors are the same namespace.
///
/// # Errors
/// [`Error::Namespace`].
pub fn same(one: BorrowedFd<'_>, other: BorrowedFd<'_>) -> Result<bool, Error> {
    let identity = |fd: BorrowedFd<'_>| {
        nix::sys::stat::fstat(fd)
            .map(|stat| (stat.st_dev, stat.st_ino))
            .map_err(|errno| Error::Namespace { what: "fstat".to_owned(), source: io::Error::from(errno) })
    };
    Ok(identity(one)? == identity(other)?)
}
