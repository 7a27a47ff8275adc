//! The files: read, change, commit, one writer at a time.
//!
//! Owner of `RUN_DIR/ipam/`. Every change takes the lock, reads both data files, changes them in memory and replaces
//! the one that changed by rename. A process killed at any point leaves the state before or the state after, and the
//! kernel drops its lock.

mod lock;

use std::io;
use std::net::IpAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use causeway_api::pod_store::{
    self, Allocation, Allocations, Block, BlockState, Blocks, FORMAT_VERSION, MAX_BLOCKS, PodStore,
    PodStoreError,
};
use ipnetwork::IpNetwork;
use nix::time::{ClockId, clock_gettime};

use crate::allocator::{self, AllocateError, Allocated, Request};
use crate::quarantine;
pub use lock::Lock;

/// How long a writer waits for the lock.
pub const LOCK_WAIT: Duration = Duration::from_secs(10);

/// The time, by both clocks the store needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// Milliseconds since boot, suspended time included: for rests.
    pub boot_millis: u64,
    /// Seconds since 1970: for people.
    pub unix_seconds: u64,
}

impl Now {
    /// Asks the clocks.
    pub fn read() -> Self {
        let boot = clock_gettime(ClockId::CLOCK_BOOTTIME)
            .map(Duration::from)
            .map_or(0, |boot| u64::try_from(boot.as_millis()).unwrap_or(u64::MAX));
        let unix = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |unix| unix.as_secs());
        Self { boot_millis: boot, unix_seconds: unix }
    }
}

/// Why the store could not do it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// There is no store: `causeway-ipam` has not run yet. Later it may work.
    #[error("{}: no store of pod addresses there (causeway-ipam makes it)", .0.display())]
    Missing(PathBuf),
    /// Others held the lock for [`LOCK_WAIT`]. Later it may work.
    #[error("{}: locked by others for {} s", path.display(), LOCK_WAIT.as_secs())]
    Locked {
        /// The lock file.
        path: PathBuf,
    },
    /// The blocks or the records rule it out.
    #[error(transparent)]
    Allocate(#[from] AllocateError),
    /// A file cannot be read or understood. Nothing is changed until somebody repairs it.
    #[error(transparent)]
    Read(#[from] PodStoreError),
    /// The file system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// More blocks than a store holds.
    #[error("{0} blocks, at most {MAX_BLOCKS}")]
    TooManyBlocks(usize),
}

impl StoreError {
    /// Whether the same call may succeed later without anybody's help.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Missing(_) | Self::Locked { .. } | Self::Allocate(AllocateError::NoBlock))
    }
}

/// The store of one node, for writing. Opening it touches nothing.
#[derive(Debug, Clone)]
pub struct Store {
    files: PodStore,
    rest: Duration,
    lock_wait: Duration,
}

impl Store {
    /// The store in this run folder, with the usual rest and patience.
    pub fn new(run_dir: &Path) -> Self {
        Self { files: PodStore::new(run_dir), rest: quarantine::REST, lock_wait: LOCK_WAIT }
    }

    /// The same store with another rest after release.
    pub fn with_rest(self, rest: Duration) -> Self {
        Self { rest, ..self }
    }

    /// The same store with another patience for the lock.
    pub fn with_lock_wait(self, lock_wait: Duration) -> Self {
        Self { lock_wait, ..self }
    }

    /// How long addresses rest after release.
    pub fn rest(&self) -> Duration {
        self.rest
    }

    /// The files, for reading without the lock.
    pub fn files(&self) -> &PodStore {
        &self.files
    }

    /// Makes the folder and the lock file, where they are not there yet.
    ///
    /// # Errors
    /// What the file system answers.
    pub fn create(&self) -> Result<(), StoreError> {
        let dir = self.files.dir();
        let io = |source| StoreError::Io { path: dir.into(), source };
        std::fs::DirBuilder::new().recursive(true).mode(0o755).create(dir).map_err(io)?;
        lock::create(&self.files.lock_path())
    }

    /// Makes these the node's blocks, in this order of preference. A block that is no longer wanted stays, draining,
    /// while pods have addresses in it. Returns what is in force; writes nothing when that is so already.
    ///
    /// # Errors
    /// [`StoreError`]; the blocks are then as they were.
    pub fn set_blocks(&self, node: &str, wanted: &[IpNetwork]) -> Result<Blocks, StoreError> {
        self.create()?;
        let _lock = self.lock()?;
        let held = self.files.read_allocations()?;
        let before = self.files.read_blocks()?;
        let mut blocks: Vec<Block> = Vec::new();
        for cidr in wanted {
            let cidr = canonical(cidr);
            if blocks.iter().all(|block| block.cidr != cidr) {
                blocks.push(Block { cidr, state: BlockState::Active });
            }
        }
        for old in before.iter().flat_map(|before| &before.blocks) {
            let in_use = held.allocations.iter().flat_map(|held| &held.addresses).any(|address| {
                old.cidr.contains(*address) && !blocks.iter().any(|block| block.cidr.contains(*address))
            });
            if in_use {
                blocks.push(Block { cidr: old.cidr, state: BlockState::Draining });
            }
        }
        if blocks.len() > MAX_BLOCKS {
            return Err(StoreError::TooManyBlocks(blocks.len()));
        }
        let after = Blocks { version: FORMAT_VERSION, node: node.to_owned(), blocks };
        if before.as_ref() != Some(&after) {
            self.write(&self.files.blocks_path(), &after)?;
        }
        Ok(after)
    }

    /// Gives an attachment its addresses, or returns those it has.
    ///
    /// # Errors
    /// [`StoreError`]; nothing is then changed.
    pub fn allocate(&self, request: &Request) -> Result<Allocated, StoreError> {
        let _lock = self.lock()?;
        let blocks = self.files.read_blocks()?.ok_or(AllocateError::NoBlock)?;
        let mut state = self.files.read_allocations()?;
        let allocated = allocator::allocate(&blocks, &mut state, request, Now::read(), self.rest)?;
        self.commit(&mut state)?;
        Ok(allocated)
    }

    /// Marks an attachment as being deleted: its routes are no longer wanted, its addresses stay taken. `None` when
    /// there is no such record, or no store.
    ///
    /// # Errors
    /// [`StoreError`], except for a missing store.
    pub fn mark_deleting(&self, container: &str, interface: &str) -> Result<Option<Allocation>, StoreError> {
        self.change(|state, now, _| {
            let before = state.allocations.iter().find(|record| allocator::is(record, container, interface));
            let before = before.map(|record| record.state);
            let record = allocator::mark_deleting(state, container, interface, now);
            let changed = record.as_ref().map(|record| record.state) != before;
            (record, changed)
        })
        .map(Option::flatten)
    }

    /// Gives an attachment's addresses back. `None` when there is no such record, or no store.
    ///
    /// # Errors
    /// [`StoreError`], except for a missing store.
    pub fn release(&self, container: &str, interface: &str) -> Result<Option<Allocation>, StoreError> {
        self.release_if(|record| allocator::is(record, container, interface))
            .map(|mut released| released.pop())
    }

    /// Gives back the addresses of every attachment for which `dead` says so, and returns those. None without a store.
    ///
    /// # Errors
    /// [`StoreError`], except for a missing store.
    pub fn release_if(
        &self,
        mut dead: impl FnMut(&Allocation) -> bool,
    ) -> Result<Vec<Allocation>, StoreError> {
        let released = self.change(|state, now, rest| {
            let dead: Vec<Allocation> =
                state.allocations.iter().filter(|record| dead(record)).cloned().collect();
            for record in &dead {
                allocator::release(state, &record.container, &record.interface, now, rest);
            }
            let changed = !dead.is_empty();
            (dead, changed)
        })?;
        Ok(released.unwrap_or_default())
    }

    /// The record of an attachment, read without the lock.
    ///
    /// # Errors
    /// [`PodStoreError`].
    pub fn find(&self, container: &str, interface: &str) -> Result<Option<Allocation>, PodStoreError> {
        let records = self.files.read_allocations()?.allocations;
        Ok(records.into_iter().find(|record| allocator::is(record, container, interface)))
    }

    fn lock(&self) -> Result<Lock, StoreError> {
        Lock::take(&self.files.lock_path(), self.lock_wait)
    }

    /// Runs a change of the records under the lock and commits it when it says that it changed something; `None`
    /// without a store.
    fn change<T>(
        &self,
        change: impl FnOnce(&mut Allocations, Now, Duration) -> (T, bool),
    ) -> Result<Option<T>, StoreError> {
        let _lock = match self.lock() {
            Ok(lock) => lock,
            Err(StoreError::Missing(_)) => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut state = self.files.read_allocations()?;
        let (answer, changed) = change(&mut state, Now::read(), self.rest);
        if changed {
            self.commit(&mut state)?;
        }
        Ok(Some(answer))
    }

    fn commit(&self, state: &mut Allocations) -> Result<(), StoreError> {
        state.generation = state.generation.wrapping_add(1);
        self.write(&self.files.allocations_path(), state)
    }

    fn write<T: serde::Serialize>(&self, path: &Path, content: &T) -> Result<(), StoreError> {
        let io = |source| StoreError::Io { path: path.into(), source };
        let bytes = serde_json::to_vec(content).map_err(|error| io(error.into()))?;
        pod_store::replace_file(path, &bytes, 0o644).map_err(io)
    }
}

/// The prefix without host bits.
fn canonical(cidr: &IpNetwork) -> IpNetwork {
    match (cidr.network(), cidr.prefix()) {
        (IpAddr::V4(base), prefix) => ipnetwork::Ipv4Network::new(base, prefix).map(IpNetwork::V4),
        (IpAddr::V6(base), prefix) => ipnetwork::Ipv6Network::new(base, prefix).map(IpNetwork::V6),
    }
    .unwrap_or(*cidr)
}
