//! Files below `/proc/sys`. Those below `net` are of the calling thread's network namespace; see
//! [`crate::netns::run_in`] for another one's.

use std::path::PathBuf;

use crate::error::Error;

/// The file of a key in path form, for example `net/ipv4/conf/eth0/rp_filter` (a device name may have dots).
fn file(key: &str) -> PathBuf {
    PathBuf::from("/proc/sys").join(key)
}

/// The value, without the newline.
///
/// # Errors
/// [`Error::Sysctl`]; `NotFound` where this kernel has no such key.
pub fn read(key: &str) -> Result<String, Error> {
    let path = file(key);
    match std::fs::read_to_string(&path) {
        Ok(value) => Ok(value.trim_end().to_owned()),
        Err(source) => Err(Error::Sysctl { path, source }),
    }
}

/// Writes the value. Some keys have effects even when the value stays the same, so this does write always; see
/// [`ensure`].
///
/// # Errors
/// [`Error::Sysctl`].
pub fn write(key: &str, value: &str) -> Result<(), Error> {
    let path = file(key);
    std::fs::write(&path, value).map_err(|source| Error::Sysctl { path, source })
}

/// Writes the value unless it is the present one; tells whether it had to.
///
/// # Errors
/// [`Error::Sysctl`].
pub fn ensure(key: &str, value: &str) -> Result<bool, Error> {
    if read(key)? == value {
        return Ok(false);
    }
    write(key, value)?;
    Ok(true)
}
