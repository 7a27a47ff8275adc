//! The pod address store on disk: what `causeway-cni` and `causeway-ipam` write and every other part may read.
//!
//! Purpose: the file formats of `RUN_DIR/ipam/` and a reader that takes no lock. Owner of the data: the `ipam` library,
//! which alone writes these files, under the lock. Not pure: it reads files. No RFC; the layout is ours.
//!
//! ```text
//! RUN_DIR/ipam/lock               never replaced, never written; writers flock it
//! RUN_DIR/ipam/blocks.json        this node's blocks, written by causeway-ipam          (Blocks)
//! RUN_DIR/ipam/allocations.json   every attachment and the release history, one object  (Allocations)
//! RUN_DIR/mtu                     the pod MTU in decimal, written by causeway-fib-sync   (read_mtu, write_mtu)
//! ```
//!
//! Data files are only ever replaced by rename, so one read of one file is one consistent state of the store, whoever
//! writes meanwhile, and a crash leaves either the old or the new state. Someone who watches the folder with inotify
//! sees `IN_MOVED_TO` with the file's name for each commit.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use ipnetwork::IpNetwork;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The folder of the store, inside the run folder.
pub const STORE_DIR: &str = "ipam";
/// The lock file inside [`STORE_DIR`].
pub const LOCK_FILE: &str = "lock";
/// The file that holds [`Blocks`] inside [`STORE_DIR`].
pub const BLOCKS_FILE: &str = "blocks.json";
/// The file that holds [`Allocations`] inside [`STORE_DIR`].
pub const ALLOCATIONS_FILE: &str = "allocations.json";
/// The file inside the run folder that holds the pod MTU.
pub const MTU_FILE: &str = "mtu";
/// Host ends of pods start with this; twelve hexadecimal digits follow.
pub const VETH_PREFIX: &str = "cw";

/// The version of the file formats this code reads and writes.
pub const FORMAT_VERSION: u32 = 1;
/// The largest data file a reader accepts, in bytes.
pub const MAX_FILE_BYTES: u64 = 32 << 20;
/// The most attachments a store holds.
pub const MAX_ALLOCATIONS: usize = 65_536;
/// The most blocks a store holds.
pub const MAX_BLOCKS: usize = 1_024;
/// The smallest pod MTU that is accepted: IPv6 needs it (RFC 8200 section 5).
pub const MIN_MTU: u32 = 1_280;
/// The largest pod MTU that is accepted.
pub const MAX_MTU: u32 = 65_535;

/// Why the store could not be read.
#[derive(Debug, thiserror::Error)]
pub enum PodStoreError {
    /// The operating system refused; the store may be fine.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is larger than [`MAX_FILE_BYTES`].
    #[error("{}: larger than {MAX_FILE_BYTES} bytes", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// The file is not what this module writes.
    #[error("{}: {reason}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The file was written by a newer Causeway.
    #[error("{}: format version {found}, this program knows {FORMAT_VERSION}", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// The version it bears.
        found: u32,
    },
}

/// This node's blocks: the content of [`BLOCKS_FILE`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blocks {
    /// [`FORMAT_VERSION`].
    pub version: u32,
    /// The node's name, for people.
    pub node: String,
    /// In order of preference; at most [`MAX_BLOCKS`].
    pub blocks: Vec<Block>,
}

/// One block of addresses that pods of this node get theirs from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Block {
    /// The prefix, without host bits.
    pub cidr: IpNetwork,
    /// Whether new pods may get addresses here.
    pub state: BlockState,
}

/// Whether new pods may get addresses from a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BlockState {
    /// New pods get addresses here.
    Active,
    /// The Node document no longer names it; pods that have addresses here keep them.
    Draining,
}

/// Every attachment of this node: the content of [`ALLOCATIONS_FILE`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Allocations {
    /// [`FORMAT_VERSION`].
    pub version: u32,
    /// Grows by one with every commit.
    pub generation: u64,
    /// At most [`MAX_ALLOCATIONS`], in no order; no address occurs twice.
    pub allocations: Vec<Allocation>,
    /// Addresses that were given back, the oldest first.
    pub released: Vec<Released>,
}

/// One interface of one container and its addresses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Allocation {
    /// CNI_CONTAINERID. With `interface` it is the key of the record.
    pub container: String,
    /// CNI_IFNAME: the name inside the container.
    pub interface: String,
    /// At most one per family.
    pub addresses: Vec<IpAddr>,
    /// The name of the CNI network the attachment belongs to.
    pub network: String,
    /// The Kubernetes pod, where the runtime named it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<PodName>,
    /// The host end: [`VETH_PREFIX`] and twelve hexadecimal digits.
    pub veth: String,
    /// The network namespace the pod lives in.
    pub netns: Netns,
    /// Whether the addresses are wanted as routes.
    pub state: AllocationState,
    /// When the record was made, in seconds since 1970.
    pub created: u64,
    /// When it last changed, in seconds since 1970.
    pub changed: u64,
}

/// A pod by namespace and name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodName {
    /// The Kubernetes namespace.
    pub namespace: String,
    /// The pod's name in it.
    pub name: String,
}

/// Which network namespace: a path alone may later lead to another one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Netns {
    /// The path the runtime gave.
    pub path: PathBuf,
    /// Its device number on the nsfs.
    pub dev: u64,
    /// Its inode number on the nsfs.
    pub ino: u64,
}

/// What is being done with an attachment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AllocationState {
    /// Its host routes are wanted (as soon as the veth is there).
    Active,
    /// DEL has begun; its host routes are no longer wanted, its addresses are still taken.
    Deleting,
}

/// An address that was given back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Released {
    /// The address.
    pub address: IpAddr,
    /// When, in milliseconds of the boot-time clock (CLOCK_BOOTTIME), which no change of the date moves.
    pub at: u64,
}

/// One consistent state of each file. Without a store both are empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// The blocks; `None` until `causeway-ipam` wrote them.
    pub blocks: Option<Blocks>,
    /// The attachments; empty where no pod was ever added.
    pub allocations: Allocations,
}

impl Default for Allocations {
    fn default() -> Self {
        Self { version: FORMAT_VERSION, generation: 0, allocations: Vec::new(), released: Vec::new() }
    }
}

impl Allocations {
    /// The attachments whose host routes are wanted.
    pub fn active(&self) -> impl Iterator<Item = &Allocation> {
        self.allocations.iter().filter(|allocation| allocation.state == AllocationState::Active)
    }
}

/// Where the store of one node is, and how to read it without a lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodStore {
    dir: PathBuf,
}

impl PodStore {
    /// The store of the node whose run folder this is. Touches nothing.
    pub fn new(run_dir: &Path) -> Self {
        Self { dir: run_dir.join(STORE_DIR) }
    }

    /// The folder, to watch. It may not exist yet.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The lock file's path.
    pub fn lock_path(&self) -> PathBuf {
        self.dir.join(LOCK_FILE)
    }

    /// The blocks file's path.
    pub fn blocks_path(&self) -> PathBuf {
        self.dir.join(BLOCKS_FILE)
    }

    /// The allocations file's path.
    pub fn allocations_path(&self) -> PathBuf {
        self.dir.join(ALLOCATIONS_FILE)
    }

    /// Reads both files.
    ///
    /// # Errors
    /// When a file exists and cannot be read or understood. What exists on the node is then unknown: delete nothing.
    pub fn read(&self) -> Result<Snapshot, PodStoreError> {
        Ok(Snapshot { blocks: self.read_blocks()?, allocations: self.read_allocations()? })
    }

    /// Reads the blocks; `None` when `causeway-ipam` has not written them yet.
    ///
    /// # Errors
    /// As for [`PodStore::read`].
    pub fn read_blocks(&self) -> Result<Option<Blocks>, PodStoreError> {
        let path = self.blocks_path();
        let Some(blocks) = read_json::<Blocks>(&path)? else { return Ok(None) };
        let malformed = |reason: String| PodStoreError::Malformed { path: path.clone(), reason };
        if blocks.blocks.len() > MAX_BLOCKS {
            return Err(malformed(format!("{} blocks, at most {MAX_BLOCKS}", blocks.blocks.len())));
        }
        if let Some(bad) = blocks.blocks.iter().find(|block| block.cidr.ip() != block.cidr.network()) {
            return Err(malformed(format!("block {}: has host bits", bad.cidr)));
        }
        Ok(Some(blocks))
    }

    /// Reads the attachments; none when no pod was ever added.
    ///
    /// # Errors
    /// As for [`PodStore::read`].
    pub fn read_allocations(&self) -> Result<Allocations, PodStoreError> {
        let path = self.allocations_path();
        let Some(allocations) = read_json::<Allocations>(&path)? else { return Ok(Allocations::default()) };
        if allocations.allocations.len() > MAX_ALLOCATIONS {
            let reason = format!("{} attachments, at most {MAX_ALLOCATIONS}", allocations.allocations.len());
            return Err(PodStoreError::Malformed { path, reason });
        }
        Ok(allocations)
    }
}

/// The pod MTU out of the run folder; `None` while `causeway-fib-sync` has not written it.
///
/// # Errors
/// When the file cannot be read, or holds no number between [`MIN_MTU`] and [`MAX_MTU`].
pub fn read_mtu(run_dir: &Path) -> Result<Option<u32>, PodStoreError> {
    let path = run_dir.join(MTU_FILE);
    let Some(bytes) = read_bounded(&path, 64)? else { return Ok(None) };
    let text = String::from_utf8_lossy(&bytes);
    match text.trim().parse::<u32>() {
        Ok(mtu) if (MIN_MTU..=MAX_MTU).contains(&mtu) => Ok(Some(mtu)),
        _ => {
            let reason = format!("{:?} is no MTU between {MIN_MTU} and {MAX_MTU}", text.trim());
            Err(PodStoreError::Malformed { path, reason })
        }
    }
}

/// Writes the pod MTU for the plugin to read, by rename.
///
/// # Errors
/// What the file system answers.
pub fn write_mtu(run_dir: &Path, mtu: u32) -> io::Result<()> {
    replace_file(&run_dir.join(MTU_FILE), format!("{mtu}\n").as_bytes(), 0o644)
}

/// Replaces a data file by rename: written to `PATH.new`, flushed to the disk, then renamed. Two writers of the same
/// path must exclude each other. The folder itself is not flushed: after a power cut the old content may be back, whole.
///
/// # Errors
/// What the file system answers; the old content is then still in place.
pub fn replace_file(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let mut fresh = path.as_os_str().to_owned();
    fresh.push(".new");
    let fresh = PathBuf::from(fresh);
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&fresh)?;
    file.write_all(content)?;
    file.sync_data()?;
    fs::rename(&fresh, path)
}

/// Only the version, to tell a newer format from a broken file.
#[derive(Deserialize)]
struct Versioned {
    version: u32,
}

fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, PodStoreError> {
    let Some(bytes) = read_bounded(path, MAX_FILE_BYTES)? else { return Ok(None) };
    let malformed =
        |error: serde_json::Error| PodStoreError::Malformed { path: path.into(), reason: error.to_string() };
    let parsed = serde_json::from_slice::<T>(&bytes);
    match serde_json::from_slice::<Versioned>(&bytes) {
        Ok(Versioned { version: FORMAT_VERSION }) => parsed.map(Some).map_err(malformed),
        Ok(Versioned { version: found }) => Err(PodStoreError::Version { path: path.into(), found }),
        Err(error) => Err(malformed(error)),
    }
}

fn read_bounded(path: &Path, limit: u64) -> Result<Option<Vec<u8>>, PodStoreError> {
    let io = |source| PodStoreError::Io { path: path.into(), source };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io(error)),
    };
    let size = file.metadata().map_err(io)?.len().min(limit);
    let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or(0));
    file.take(limit + 1).read_to_end(&mut bytes).map_err(io)?;
    if bytes.len() as u64 > limit {
        return Err(PodStoreError::TooLarge { path: path.into() });
    }
    Ok(Some(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allocation() -> Allocation {
        Allocation {
            container: "c1".into(),
            interface: "eth0".into(),
            addresses: vec!["10.244.1.5".parse().unwrap(), "fd00::5".parse().unwrap()],
            network: "causeway".into(),
            pod: Some(PodName { namespace: "default".into(), name: "web".into() }),
            veth: "cw0123456789ab".into(),
            netns: Netns { path: "/run/netns/x".into(), dev: 4, ino: 4026532000 },
            state: AllocationState::Active,
            created: 1,
            changed: 2,
        }
    }

    fn store_with(allocations: &str) -> (tempfile::TempDir, PodStore) {
        let run_dir = tempfile::tempdir().unwrap();
        let store = PodStore::new(run_dir.path());
        fs::create_dir(store.dir()).unwrap();
        fs::write(store.allocations_path(), allocations).unwrap();
        (run_dir, store)
    }

    #[test]
    fn a_missing_store_is_an_empty_one() {
        let store = PodStore::new(Path::new("/nonexistent"));
        let snapshot = store.read().unwrap();
        assert_eq!(snapshot, Snapshot { blocks: None, allocations: Allocations::default() });
    }

    #[test]
    fn what_is_written_is_read_back() {
        let mut all = Allocations { allocations: vec![allocation()], ..Allocations::default() };
        all.released.push(Released { address: "10.244.1.6".parse().unwrap(), at: 77 });
        let (_keep, store) = store_with("");
        replace_file(&store.allocations_path(), &serde_json::to_vec(&all).unwrap(), 0o600).unwrap();
        assert_eq!(store.read_allocations().unwrap(), all);
        all.allocations[0].state = AllocationState::Deleting;
        assert_eq!(all.active().count(), 0);
    }

    #[test]
    fn broken_files_are_errors_that_name_the_file() {
        for content in ["", "{", "[]", "{\"version\":1}", "null"] {
            let (_keep, store) = store_with(content);
            let error = store.read().unwrap_err();
            assert!(matches!(error, PodStoreError::Malformed { .. }), "{content:?}: {error}");
            assert!(error.to_string().contains("allocations.json"), "{error}");
        }
    }

    #[test]
    fn a_newer_format_is_told_apart() {
        let (_keep, store) = store_with("{\"version\":2,\"whatever\":[]}");
        assert!(matches!(store.read(), Err(PodStoreError::Version { found: 2, .. })));
    }

    #[test]
    fn blocks_with_host_bits_are_refused() {
        let (_keep, store) =
            store_with("{\"version\":1,\"generation\":0,\"allocations\":[],\"released\":[]}");
        let blocks = r#"{"version":1,"node":"a","blocks":[{"cidr":"10.0.0.1/24","state":"active"}]}"#;
        fs::write(store.blocks_path(), blocks).unwrap();
        assert!(matches!(store.read(), Err(PodStoreError::Malformed { .. })));
        fs::write(store.blocks_path(), blocks.replace("0.1/", "0.0/")).unwrap();
        assert_eq!(store.read().unwrap().blocks.unwrap().blocks[0].state, BlockState::Active);
    }

    #[test]
    fn the_mtu_file() {
        let run_dir = tempfile::tempdir().unwrap();
        assert_eq!(read_mtu(run_dir.path()).unwrap(), None);
        write_mtu(run_dir.path(), 1450).unwrap();
        assert_eq!(read_mtu(run_dir.path()).unwrap(), Some(1450));
        for bad in ["", "abc", "-1", "1279", "65536", &"9".repeat(100)] {
            fs::write(run_dir.path().join(MTU_FILE), bad).unwrap();
            assert!(read_mtu(run_dir.path()).is_err(), "{bad:?}");
        }
    }
}
