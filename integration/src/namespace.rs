//! Entering a node's namespaces, by the process id of its init.
//!
//! Owner of the `setns` calls. Namespaces belong to threads, so each entry happens on a thread of its own that ends with the call;
//! the caller's namespaces never change.

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::process::{Child, Command};

use nix::sched::{CloneFlags, setns, unshare};

/// Handle on the namespaces of one node or pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Namespaces {
    /// Process id, seen from this machine, of the init that holds them.
    pub init: i32,
}

impl Namespaces {
    /// The file that names one of the namespaces: `net`, `mnt`, `pid`, `uts`.
    #[must_use]
    pub fn path(self, kind: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/ns/{kind}", self.init))
    }

    /// Starts a command inside: its files, its process ids, its network.
    ///
    /// # Errors
    /// Where the node is gone or the command cannot start.
    pub fn spawn(self, command: &mut Command) -> io::Result<Child> {
        on_own_thread(|| {
            self.enter(&[
                ("net", CloneFlags::CLONE_NEWNET),
                ("uts", CloneFlags::CLONE_NEWUTS),
                ("pid", CloneFlags::CLONE_NEWPID),
                ("mnt", CloneFlags::CLONE_NEWNS),
            ])?;
            command.spawn()
        })
    }

    /// Runs a closure in the node's network only. Sockets it opens stay in that network wherever they are used later.
    ///
    /// # Errors
    /// Where the node is gone, and what the closure returns.
    pub fn in_network<T: Send>(self, run: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
        on_own_thread(|| {
            self.enter(&[("net", CloneFlags::CLONE_NEWNET)])?;
            run()
        })
    }

    fn enter(self, kinds: &[(&str, CloneFlags)]) -> io::Result<()> {
        // All files are opened before the first switch: afterwards /proc may be another one.
        let files: Vec<(File, CloneFlags)> = kinds
            .iter()
            .map(|(kind, flag)| Ok((File::open(self.path(kind))?, *flag)))
            .collect::<io::Result<_>>()?;
        // A thread that shares its root with others may not change its mount namespace.
        unshare(CloneFlags::CLONE_FS)?;
        for (file, flag) in files {
            setns(file, flag)?;
        }
        Ok(())
    }
}

/// Starts a command that is process 1 of new network, mount, process and host name namespaces.
///
/// # Errors
/// Where this process may not make namespaces, or the command cannot start.
pub fn spawn_init(command: &mut Command) -> io::Result<Child> {
    on_own_thread(|| {
        unshare(
            CloneFlags::CLONE_FS
                | CloneFlags::CLONE_NEWNS
                | CloneFlags::CLONE_NEWNET
                | CloneFlags::CLONE_NEWUTS
                | CloneFlags::CLONE_NEWPID,
        )?;
        command.spawn()
    })
}

fn on_own_thread<T: Send>(run: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        scope.spawn(run).join().unwrap_or_else(|_| Err(io::Error::other("the namespace thread panicked")))
    })
}
