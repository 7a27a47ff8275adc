//! Documents that are watched and read again.
//!
//! A change is picked up by itself (inotify, which also sees the symlink swap of a mounted ConfigMap) or on SIGHUP. A
//! bad change is refused: its errors are logged and kept for `show node`, and the last good configuration stays.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use causeway_api::control::{Condition, ConfigurationInfo, RefusedConfiguration};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tokio::net::unix::pipe::Receiver;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::signals::Shutdown;

/// Editors and kubelet write in several steps: wait this long for quiet before reading.
const SETTLE: Duration = Duration::from_millis(100);
/// Somebody who never stops writing is not waited for longer than this.
const SETTLE_LIMIT: Duration = Duration::from_secs(1);
/// A watched folder that was replaced is looked for at this interval; so is a change that no event told of.
const RESCAN: Duration = Duration::from_secs(10);

/// The configuration in force, and the last refused change.
#[derive(Debug)]
pub struct Configuration<T> {
    /// In force.
    pub current: Arc<T>,
    /// Counts from 1.
    pub generation: u64,
    /// Since when `current` is in force.
    pub since: Instant,
    /// The last change, where it was refused.
    pub refused: Option<Refused>,
    path: PathBuf,
}

/// A refused change.
#[derive(Clone, Debug, PartialEq)]
pub struct Refused {
    /// When.
    pub at: Instant,
    /// Each names file, line, column, document and field.
    pub errors: Vec<String>,
}

// Not derived: `T` is behind an `Arc` and need not be `Clone`.
impl<T> Clone for Configuration<T> {
    fn clone(&self) -> Self {
        Configuration {
            current: Arc::clone(&self.current),
            generation: self.generation,
            since: self.since,
            refused: self.refused.clone(),
            path: self.path.clone(),
        }
    }
}

impl<T> Configuration<T> {
    /// What `show node` says of it.
    pub fn info(&self) -> ConfigurationInfo {
        ConfigurationInfo {
            source: self.path.display().to_string(),
            generation: self.generation,
            age: self.since.elapsed().as_secs_f64(),
            refused: self.refused.as_ref().map(|refused| RefusedConfiguration {
                age: refused.at.elapsed().as_secs_f64(),
                errors: refused.errors.clone(),
            }),
        }
    }

    /// The condition `ConfigurationAccepted`.
    pub fn condition(&self) -> Condition {
        match &self.refused {
            None => Condition::new(
                "ConfigurationAccepted",
                true,
                "Accepted",
                format!("generation {} from {}", self.generation, self.path.display()),
            ),
            Some(refused) => {
                Condition::new("ConfigurationAccepted", false, "Refused", refused.errors.join("; "))
            }
        }
    }
}

/// Reads documents from `path` into a `T` now, and again whenever they change, until `shutdown`.
///
/// `read` is the one pure way from files to what the daemon runs on; it returns one line an error. The receiver sees a
/// new generation only when `T` really differs.
///
/// # Errors
/// The errors of the first reading: there is no last good configuration to stay with.
pub fn watch<T, F>(
    path: PathBuf,
    shutdown: Shutdown,
    read: F,
) -> Result<watch::Receiver<Configuration<T>>, Vec<String>>
where
    T: PartialEq + Send + Sync + 'static,
    F: Fn(&Path) -> Result<T, Vec<String>> + Send + Sync + 'static,
{
    let read = Arc::new(read);
    // Armed before the first reading, so that no change falls between the two.
    let mut watcher = Watcher::new(&path);
    let current = Arc::new(read(&path)?);
    let (tx, rx) = watch::channel(Configuration {
        current,
        generation: 1,
        since: Instant::now(),
        refused: None,
        path: path.clone(),
    });
    tokio::spawn(async move {
        let Ok(mut hangup) = signal(SignalKind::hangup()) else {
            tracing::error!("SIGHUP cannot be handled; documents are watched only");
            return;
        };
        loop {
            tokio::select! {
                () = shutdown.ended() => return,
                () = watcher.changed(&path) => {}
                _ = hangup.recv() => tracing::info!(path = %path.display(), "SIGHUP: reading documents again"),
            }
            watcher.seen = fingerprint(&path);
            // Thousands of documents take a moment; nothing else of the daemon waits for it.
            let (read, from) = (Arc::clone(&read), path.clone());
            match tokio::task::spawn_blocking(move || read(&from)).await {
                Ok(outcome) => apply(&tx, outcome),
                Err(error) => tracing::error!(%error, "reading the documents failed"),
            }
        }
    });
    Ok(rx)
}

/// Puts what was read in force, or keeps why it was refused.
fn apply<T: PartialEq>(tx: &watch::Sender<Configuration<T>>, outcome: Result<T, Vec<String>>) {
    tx.send_if_modified(|configuration| match outcome {
        Ok(new) => {
            let was_refused = configuration.refused.take().is_some();
            if *configuration.current != new {
                configuration.current = Arc::new(new);
                configuration.generation += 1;
                configuration.since = Instant::now();
                tracing::info!(generation = configuration.generation, "new configuration in force");
                return true;
            }
            if was_refused {
                tracing::info!("documents are good again; the configuration in force did not change");
            }
            was_refused
        }
        Err(errors) => {
            if configuration.refused.as_ref().is_some_and(|refused| refused.errors == errors) {
                return false;
            }
            for error in &errors {
                tracing::error!(%error, "configuration refused; the last good one stays in force");
            }
            configuration.refused = Some(Refused { at: Instant::now(), errors });
            true
        }
    });
}

/// Tells when something at a path may have changed.
struct Watcher {
    /// The folder that is watched: the path itself, or its parent where it is a file.
    folder: PathBuf,
    /// The inotify descriptor; it reads like a pipe. `None` where the folder cannot be watched now.
    events: Option<Receiver>,
    /// [`fingerprint`] of what was read last.
    seen: u64,
}

impl Watcher {
    fn new(path: &Path) -> Watcher {
        let folder = if path.is_dir() {
            path.to_owned()
        } else {
            path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_owned()
        };
        let mut watcher = Watcher { folder, events: None, seen: fingerprint(path) };
        watcher.arm();
        watcher
    }

    /// Watches the folder from here on, if it is there.
    fn arm(&mut self) {
        let flags = AddWatchFlags::IN_CLOSE_WRITE
            | AddWatchFlags::IN_MOVE
            | AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_ATTRIB
            | GONE;
        self.events = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)
            .and_then(|inotify| inotify.add_watch(&self.folder, flags).map(|_| OwnedFd::from(inotify)))
            .ok()
            .and_then(|fd| Receiver::from_owned_fd_unchecked(fd).ok());
        if self.events.is_none() {
            tracing::debug!(folder = %self.folder.display(), "cannot be watched; read again every {RESCAN:?}");
        }
    }

    /// Returns when something changed and has been quiet for a moment.
    async fn changed(&mut self, path: &Path) {
        loop {
            let Some(events) = &self.events else {
                tokio::time::sleep(RESCAN).await;
                self.arm();
                return;
            };
            match tokio::time::timeout(RESCAN, drain(events)).await {
                Err(_elapsed) if fingerprint(path) == self.seen => {}
                Err(_elapsed) => return,
                Ok(mut gone) => {
                    let limit = Instant::now() + SETTLE_LIMIT;
                    while !gone && Instant::now() < limit {
                        let Ok(more) = tokio::time::timeout(SETTLE, drain(events)).await else { break };
                        gone = more;
                    }
                    if gone {
                        self.arm();
                    }
                    return;
                }
            }
        }
    }
}

/// A number that differs when a file at `path` was written, replaced, added or removed.
fn fingerprint(path: &Path) -> u64 {
    let mut hasher = DefaultHasher::new();
    let mut look_at = |file: &Path| {
        if let Ok(file_now) = std::fs::metadata(file) {
            (file, file_now.ino(), file_now.len(), file_now.mtime(), file_now.mtime_nsec()).hash(&mut hasher);
        }
    };
    look_at(path);
    let mut entries: Vec<PathBuf> =
        std::fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    entries.sort_unstable();
    entries.iter().for_each(|entry| look_at(entry));
    hasher.finish()
}

/// The watched folder itself went away.
const GONE: AddWatchFlags =
    AddWatchFlags::IN_DELETE_SELF.union(AddWatchFlags::IN_MOVE_SELF).union(AddWatchFlags::IN_IGNORED);

/// Waits for events and reads them; true where the watched folder itself went away.
async fn drain(events: &Receiver) -> bool {
    let mut buffer = [0; 4096];
    loop {
        if events.readable().await.is_err() {
            return true;
        }
        match events.try_read(&mut buffer) {
            Ok(length) => return any_gone(&buffer[..length]),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => return true,
        }
    }
}

/// Whether one of the `struct inotify_event`s (inotify(7): wd, mask, cookie, len, name) tells that the folder is gone.
fn any_gone(mut events: &[u8]) -> bool {
    let word = |events: &[u8], at: usize| {
        events.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_ne_bytes)
    };
    while events.len() >= 16 {
        if AddWatchFlags::from_bits_truncate(word(events, 4)).intersects(GONE) {
            return true;
        }
        let length = 16 + word(events, 12) as usize;
        events = events.get(length..).unwrap_or_default();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(path: &Path) -> Result<u32, Vec<String>> {
        let text = std::fs::read_to_string(path.join("n")).map_err(|e| vec![e.to_string()])?;
        text.trim().parse().map_err(|e| vec![format!("{}: {e}", path.display())])
    }

    async fn until(rx: &mut watch::Receiver<Configuration<u32>>, want: impl Fn(&Configuration<u32>) -> bool) {
        tokio::time::timeout(Duration::from_secs(5), rx.wait_for(|c| want(c))).await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_change_is_picked_up_and_a_bad_one_refused() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("n"), "1").unwrap();
        let (handle, shutdown) = Shutdown::manual();
        let mut rx = super::watch(dir.path().to_owned(), shutdown, parse).unwrap();
        assert_eq!(*rx.borrow().current, 1);
        std::fs::write(dir.path().join("n"), "2").unwrap();
        until(&mut rx, |c| *c.current == 2 && c.generation == 2).await;
        std::fs::write(dir.path().join("n"), "two").unwrap();
        until(&mut rx, |c| c.refused.is_some()).await;
        assert_eq!(*rx.borrow().current, 2, "the last good configuration stays");
        std::fs::write(dir.path().join("n"), "3").unwrap();
        until(&mut rx, |c| *c.current == 3 && c.refused.is_none()).await;
        handle.begin();
    }

    #[tokio::test]
    async fn the_symlink_swap_of_a_config_map_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for (version, number) in [("v1", "1"), ("v2", "2")] {
            std::fs::create_dir(at(version)).unwrap();
            std::fs::write(at(version).join("n"), number).unwrap();
        }
        std::os::unix::fs::symlink("v1", at("..data")).unwrap();
        std::os::unix::fs::symlink("..data/n", at("n")).unwrap();
        let (_handle, shutdown) = Shutdown::manual();
        let mut rx = super::watch(dir.path().to_owned(), shutdown, parse).unwrap();
        std::os::unix::fs::symlink("v2", at("..new")).unwrap();
        std::fs::rename(at("..new"), at("..data")).unwrap();
        until(&mut rx, |c| *c.current == 2).await;
    }

    #[test]
    fn a_fingerprint_tells_changes_apart() {
        let dir = tempfile::tempdir().unwrap();
        let empty = fingerprint(dir.path());
        std::fs::write(dir.path().join("n"), "1").unwrap();
        let one = fingerprint(dir.path());
        assert_ne!(empty, one);
        assert_eq!(one, fingerprint(dir.path()));
        std::fs::write(dir.path().join("n"), "22").unwrap();
        assert_ne!(one, fingerprint(dir.path()));
    }

    #[tokio::test]
    async fn the_first_reading_must_be_good() {
        let dir = tempfile::tempdir().unwrap();
        let (_handle, shutdown) = Shutdown::manual();
        assert!(super::watch(dir.path().to_owned(), shutdown, parse).is_err());
    }
}
