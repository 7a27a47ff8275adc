//! The local pods out of the ipam store, watched.
//!
//! inotify tells of each commit (a rename into the folder); every [`REREAD`] the store is read anyway. While it cannot
//! be read the last good state stays, and before the first good one no pod route is deleted.

use std::os::fd::AsFd;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use causeway_api::control::Condition;
use causeway_api::pod_store::{Allocations, PodStore};
use causeway_daemon::signals::Shutdown;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

use crate::local::Pod;
use crate::sync::{Handle, Input};

/// How often the store is read whatever inotify says.
pub const REREAD: Duration = Duration::from_secs(10);

/// How reading the store went, for `show node`.
#[derive(Debug, Clone, Default)]
pub struct StoreState(Arc<Mutex<Option<String>>>);

impl StoreState {
    /// The condition `PodStoreReadable`.
    pub fn condition(&self) -> Condition {
        match &*self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            None => {
                Condition::new("PodStoreReadable", true, "Readable", "pods are taken from the ipam store")
            }
            Some(error) => Condition::new("PodStoreReadable", false, "Unreadable", error.clone()),
        }
    }

    fn set(&self, error: Option<String>) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if *state != error {
            match &error {
                Some(error) => {
                    tracing::error!(%error, "the ipam store cannot be read: pods' routes stay as they are")
                }
                None => tracing::info!("the ipam store can be read again"),
            }
        }
        *state = error;
    }
}

/// The pods whose host routes are wanted.
pub fn pods(allocations: &Allocations) -> Vec<Pod> {
    let pods = allocations.active().flat_map(|allocation| {
        let device = &allocation.veth;
        allocation.addresses.iter().map(move |address| Pod { address: *address, device: device.clone() })
    });
    pods.collect()
}

/// Reads the store now and on each change, and hands the pods to the kernel thread, until the shutdown. Blocks, so it
/// has a thread of its own; that may sleep for up to [`REREAD`] after the shutdown began.
pub fn watch(store: &PodStore, run_dir: &Path, state: &StoreState, handle: &Handle, shutdown: &Shutdown) {
    let mut watch = None;
    while !shutdown.is_ending() {
        // Armed before the store is read, so that no commit falls in between.
        if watch.is_none() {
            watch = arm(store.dir(), run_dir);
        }
        match store.read_allocations() {
            Ok(allocations) => {
                state.set(None);
                if !handle.blocking_send(Input::Pods(pods(&allocations))) {
                    return;
                }
            }
            Err(error) => state.set(Some(error.to_string())),
        }
        match &watch {
            Some(inotify) => {
                if !wait(inotify) {
                    watch = None;
                }
            }
            None => std::thread::sleep(REREAD),
        }
    }
}

/// inotify on the store's folder; while that is not there, on the run folder it will appear in.
fn arm(folder: &Path, run_dir: &Path) -> Option<Inotify> {
    let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC).ok()?;
    let flags = AddWatchFlags::IN_MOVED_TO | AddWatchFlags::IN_DELETE_SELF | AddWatchFlags::IN_MOVE_SELF;
    if inotify.add_watch(folder, flags).is_err() {
        inotify.add_watch(run_dir, AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_TO).ok()?;
        if folder.exists() {
            inotify.add_watch(folder, flags).ok()?;
        }
    }
    Some(inotify)
}

/// Waits for a change or until it is time to read anyway; `false` when the folder has to be looked for again.
fn wait(inotify: &Inotify) -> bool {
    let mut fds = [PollFd::new(inotify.as_fd(), PollFlags::POLLIN)];
    let timeout = PollTimeout::try_from(REREAD.as_millis()).unwrap_or(PollTimeout::MAX);
    match poll(&mut fds, timeout) {
        Ok(0) | Err(Errno::EINTR) => return true,
        Ok(_) => {}
        Err(_) => return false,
    }
    let again = AddWatchFlags::IN_CREATE
        | AddWatchFlags::IN_DELETE_SELF
        | AddWatchFlags::IN_MOVE_SELF
        | AddWatchFlags::IN_IGNORED;
    match inotify.read_events() {
        Ok(events) => !events.iter().any(|event| event.mask.intersects(again)),
        Err(Errno::EAGAIN) => true,
        Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use causeway_api::pod_store::{Allocation, AllocationState, Netns};

    use super::*;

    #[test]
    fn pods_being_deleted_are_not_wanted() {
        let allocation = |n: u8, state| Allocation {
            container: format!("c{n}"),
            interface: "eth0".into(),
            addresses: vec![[10, 244, 1, n].into(), format!("fd00::{n}").parse().unwrap()],
            network: "causeway".into(),
            pod: None,
            veth: format!("cw00000000000{n}"),
            netns: Netns { path: "/run/netns/x".into(), dev: 4, ino: 1 },
            state,
            created: 1,
            changed: 1,
        };
        let allocations = Allocations {
            allocations: vec![
                allocation(1, AllocationState::Active),
                allocation(2, AllocationState::Deleting),
            ],
            ..Allocations::default()
        };
        let pod = |address: &str| Pod { address: address.parse().unwrap(), device: "cw000000000001".into() };
        assert_eq!(pods(&allocations), [pod("10.244.1.1"), pod("fd00::1")]);
    }
}
