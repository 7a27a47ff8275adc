//! One attachment on its way: what the steps of ADD work on, and the two namespaces they work in.

use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use causeway_api::pod_store::Netns;
use causeway_kernel::{Netlink, netns};
use nix::sched::{CloneFlags, setns};
use nix::sys::stat::fstat;
use nix::sys::statfs::fstatfs;

use crate::env::Environment;
use crate::error::{CniError, Code};
use crate::names::Names;

/// Magic number of the file system of namespaces (`linux/magic.h`).
const NSFS_MAGIC: i64 = 0x6e73_6673;

/// What there is to know of an attachment.
pub struct Attachment<'a> {
    /// `CNI_IFNAME`
    pub interface: &'a str,
    /// `CNI_NETNS`
    pub netns_path: &'a Path,
    /// Names and Ethernet addresses of the pair.
    pub names: &'a Names,
    /// The MTU of both ends.
    pub mtu: u32,
    /// Its addresses, at most one per family.
    pub addresses: Vec<IpAddr>,
    /// Metrics of default routes that had to stand behind another interface's.
    pub default_metrics: Vec<(IpAddr, u32)>,
}

impl Attachment<'_> {
    /// The metric of the default route that belongs to an address, where it is not the usual one.
    pub fn default_metric(&self, address: &IpAddr) -> Option<u32> {
        self.default_metrics.iter().find(|(of, _)| of == address).map(|(_, metric)| *metric)
    }
}

/// The pod's network namespace, open.
#[derive(Debug)]
pub struct PodNetns {
    file: OwnedFd,
    /// The plugin's own, to come back to.
    own: OwnedFd,
    /// Which one it is.
    pub identity: Netns,
}

impl PodNetns {
    /// Opens `CNI_NETNS` and makes sure that it is a network namespace and not the plugin's own.
    ///
    /// # Errors
    /// [`Code::InvalidEnvironment`], naming the variable.
    pub fn open(environment: &Environment) -> Result<Self, CniError> {
        let path = &environment.netns;
        let invalid = |reason: String| {
            CniError::new(Code::InvalidEnvironment, format!("CNI_NETNS {}: {reason}", path.display()))
        };
        // Opening a pipe would wait for somebody at its other end.
        let metadata = std::fs::metadata(path).map_err(|error| invalid(error.to_string()))?;
        if !metadata.is_file() {
            return Err(invalid("not a network namespace".to_owned()));
        }
        let file = netns::open(path).map_err(|error| invalid(error.to_string()))?;
        let found = fstatfs(&file).map_err(|errno| invalid(errno.to_string()))?;
        if found.filesystem_type().0 as i64 != NSFS_MAGIC {
            return Err(invalid("not a network namespace".to_owned()));
        }
        let own = netns::current()?;
        if netns::same(file.as_fd(), own.as_fd())? {
            return Err(invalid("the plugin's own network namespace cannot be a container's".to_owned()));
        }
        let identity = fstat(&file).map_err(|errno| invalid(errno.to_string()))?;
        let identity = Netns { path: path.clone(), dev: identity.st_dev, ino: identity.st_ino };
        Ok(Self { file, own, identity })
    }

    /// The descriptor.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// A netlink socket in it. It stays there wherever the plugin goes.
    ///
    /// # Errors
    /// As for [`PodNetns::run`].
    pub fn netlink(&self) -> Result<Netlink, CniError> {
        self.run(Netlink::open)
    }

    /// Does something inside. The plugin has one thread, which goes there and comes back: quicker than one more.
    ///
    /// # Errors
    /// [`Code::InvalidEnvironment`] when it is a namespace of another kind, [`Code::Internal`] when the plugin cannot
    /// come back; sockets opened before still lead where they did.
    pub fn run<T, E: Into<CniError>>(&self, work: impl FnOnce() -> Result<T, E>) -> Result<T, CniError> {
        setns(&self.file, CloneFlags::CLONE_NEWNET).map_err(|errno| {
            let path = self.identity.path.display();
            CniError::new(Code::InvalidEnvironment, format!("CNI_NETNS {path}: cannot be entered: {errno}"))
        })?;
        let outcome = work();
        setns(&self.own, CloneFlags::CLONE_NEWNET).map_err(|errno| {
            CniError::new(
                Code::Internal,
                format!("no way back to the plugin's own network namespace: {errno}"),
            )
        })?;
        outcome.map_err(Into::into)
    }
}
