//! The lock: `flock` on a file that is never replaced, so that everybody locks the same inode.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use super::StoreError;

/// The shortest and the longest pause between two tries.
const PAUSE: (Duration, Duration) = (Duration::from_micros(100), Duration::from_millis(5));

/// The store's lock, held. Dropping it, or dying, gives it up.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock, waiting for others up to `patience`.
    ///
    /// # Errors
    /// [`StoreError::Missing`] without a lock file, [`StoreError::Locked`] when patience runs out.
    pub fn take(path: &Path, patience: Duration) -> Result<Self, StoreError> {
        let io = |source| StoreError::Io { path: path.into(), source };
        let file = match File::options().read(true).write(true).open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(StoreError::Missing(path.parent().unwrap_or(path).into()));
            }
            Err(error) => return Err(io(error)),
        };
        let end = Instant::now() + patience;
        let mut pause = PAUSE.0;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Self { _file: file }),
                Err(TryLockError::WouldBlock) if Instant::now() >= end => {
                    return Err(StoreError::Locked { path: path.into() });
                }
                Err(TryLockError::WouldBlock) => {
                    std::thread::sleep(pause);
                    pause = (pause * 2).min(PAUSE.1);
                }
                Err(TryLockError::Error(error)) => return Err(io(error)),
            }
        }
    }
}

/// Makes the lock file where there is none. An existing one is left as it is.
pub(super) fn create(path: &Path) -> Result<(), StoreError> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map(|_| ())
        .map_err(|source| StoreError::Io { path: path.into(), source })
}
