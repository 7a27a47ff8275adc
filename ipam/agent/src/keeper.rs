//! The work: blocks into the store, dead records out of it.
//!
//! Everything is done again every [`INTERVAL`], which mends a store that somebody took away and lets go of blocks that
//! have drained. The store's own calls block (its lock is waited for), so they run beside the runtime's threads.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use causeway_api::control::Condition;
use causeway_api::pod_store::{Allocation, BlockState, Blocks, PodStoreError, Snapshot};
use causeway_daemon::documents::Configuration;
use causeway_daemon::log;
use causeway_daemon::signals::Shutdown;
use causeway_ipam::gc::{self, Evidence};
use causeway_ipam::report::{self, BlockUse};
use causeway_ipam::{Now, Store};
use tokio::sync::watch;

use crate::wanted::Wanted;

/// How often everything is looked at again.
const INTERVAL: Duration = Duration::from_secs(10);

/// The daemon's state.
pub struct Keeper {
    store: Store,
    node: String,
    configuration: watch::Receiver<Configuration<Wanted>>,
    outcome: Mutex<Outcome>,
}

/// What came of the work so far.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// The blocks in force, or why they could not be written; `None` before the first try.
    pub blocks: Option<Result<Blocks, String>>,
    /// Records given up since the start.
    pub collected: u64,
    /// Times the store could not be read or written since the start.
    pub failures: u64,
    /// Records that looked dead at the last pass: the second time in a row they are given up.
    suspects: HashSet<(String, String)>,
}

impl Keeper {
    /// A keeper that has done nothing yet.
    pub fn new(store: Store, node: String, configuration: watch::Receiver<Configuration<Wanted>>) -> Self {
        Self { store, node, configuration, outcome: Mutex::default() }
    }

    /// Works until the daemon is to end.
    pub async fn run(self: &Arc<Self>, shutdown: Shutdown) {
        let mut configuration = self.configuration.clone();
        loop {
            let wanted = Arc::clone(&configuration.borrow_and_update().current);
            log::set_level(wanted.log_severity.as_str());
            let keeper = Arc::clone(self);
            let pass = tokio::task::spawn_blocking(move || {
                keeper.write_blocks(&wanted);
                keeper.collect();
            });
            tokio::select! {
                // A pass that waits for the lock does not keep the daemon from ending.
                () = shutdown.ended() => return,
                done = pass => if let Err(error) = done {
                    tracing::error!(%error, "a pass over the store failed");
                },
            }
            tokio::select! {
                () = shutdown.ended() => return,
                changed = configuration.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(INTERVAL) => {}
            }
        }
    }

    fn write_blocks(&self, wanted: &Wanted) {
        let written = self.store.set_blocks(&self.node, &wanted.blocks).map_err(|error| error.to_string());
        let mut outcome = self.lock();
        if outcome.blocks.as_ref() != Some(&written) {
            match &written {
                Ok(blocks) => {
                    let blocks: Vec<String> = blocks
                        .blocks
                        .iter()
                        .map(|block| format!("{} {:?}", block.cidr, block.state).to_lowercase())
                        .collect();
                    tracing::info!(blocks = blocks.join(", "), "blocks written");
                }
                Err(error) => tracing::error!(%error, "blocks cannot be written; what was there stays"),
            }
        }
        outcome.failures += u64::from(written.is_err());
        outcome.blocks = Some(written);
    }

    /// Gives up records that looked dead at the last pass and still do.
    fn collect(&self) {
        let now = Now::read();
        let key = |record: &Allocation| (record.container.clone(), record.interface.clone());
        let is_dead = |record: &Allocation| gc::is_dead(record, Evidence::gather(record), now);
        let dead: HashSet<(String, String)> = match self.store.files().read_allocations() {
            Ok(all) => all.allocations.iter().filter(|record| is_dead(record)).map(key).collect(),
            Err(error) => {
                tracing::error!(%error, "the records cannot be read");
                self.lock().failures += 1;
                return;
            }
        };
        let before = std::mem::replace(&mut self.lock().suspects, dead.clone());
        let condemned: HashSet<_> = dead.intersection(&before).collect();
        if condemned.is_empty() {
            return;
        }
        // Looked at once more under the lock: an ADD may have taken the record over.
        let released = self.store.release_if(|record| condemned.contains(&key(record)) && is_dead(record));
        match released {
            Ok(released) => {
                for record in &released {
                    tracing::info!(
                        container = record.container,
                        interface = record.interface,
                        addresses = ?record.addresses,
                        "the pod is gone without a DEL; its addresses are free"
                    );
                }
                self.lock().collected += released.len() as u64;
            }
            Err(error) => {
                tracing::error!(%error, "dead records cannot be given up");
                self.lock().failures += 1;
            }
        }
    }

    /// What came of the work so far.
    pub fn outcome(&self) -> Outcome {
        self.lock().clone()
    }

    /// The store's state, read now.
    ///
    /// # Errors
    /// [`PodStoreError`].
    pub fn snapshot(&self) -> Result<Snapshot, PodStoreError> {
        self.store.files().read()
    }

    /// How full the blocks of a snapshot are now.
    pub fn block_use<'a>(&self, snapshot: &'a Snapshot) -> Vec<BlockUse<'a>> {
        report::block_use(snapshot, Now::read().boot_millis, self.store.rest())
    }

    /// The node's name.
    pub fn node(&self) -> &str {
        &self.node
    }

    /// The configuration in force.
    pub fn configuration(&self) -> Configuration<Wanted> {
        self.configuration.borrow().clone()
    }

    /// Whether the plugin finds what it needs.
    ///
    /// # Errors
    /// Why not.
    pub fn ready(&self) -> Result<(), String> {
        match self.outcome().blocks {
            None => Err("blocks are not written yet".to_owned()),
            Some(Err(error)) => Err(error),
            Some(Ok(_)) => self.snapshot().map(|_| ()).map_err(|error| error.to_string()),
        }
    }

    /// What holds of the node's addresses and what does not.
    pub fn conditions(&self) -> Vec<Condition> {
        let mut conditions = vec![self.configuration().condition()];
        match self.outcome().blocks {
            None => conditions.push(Condition::new("BlocksWritten", false, "Starting", "not written yet")),
            Some(Err(error)) => {
                conditions.push(Condition::new("BlocksWritten", false, "StoreUnusable", error));
            }
            Some(Ok(blocks)) => {
                let message =
                    format!("{} blocks in {}", blocks.blocks.len(), self.store.files().dir().display());
                conditions.push(Condition::new("BlocksWritten", true, "Written", message));
                let draining: Vec<String> = blocks
                    .blocks
                    .iter()
                    .filter(|block| block.state == BlockState::Draining)
                    .map(|block| block.cidr.to_string())
                    .collect();
                let (reason, message) = match draining.is_empty() {
                    true => ("InUse", "every block with pods in it is in the Node document".to_owned()),
                    false => (
                        "PodsInRemovedBlocks",
                        format!(
                            "{}: not in the Node document any more, but pods have addresses there",
                            draining.join(", ")
                        ),
                    ),
                };
                conditions.push(Condition::new("BlocksKept", draining.is_empty(), reason, message));
            }
        }
        conditions.extend(self.room());
        conditions
    }

    /// Whether another pod would get its addresses.
    fn room(&self) -> Option<Condition> {
        let snapshot = self.snapshot().ok()?;
        let room = report::room(&snapshot, Now::read().boot_millis, self.store.rest());
        let full = room.iter().find(|(_, has_room)| !has_room);
        Some(match full {
            Some((family, _)) => {
                Condition::new("AddressesAvailable", false, "BlocksFull", format!("no free {family} address"))
            }
            None if room.is_empty() => {
                Condition::new("AddressesAvailable", false, "NoBlock", "the Node document has no podCIDRs")
            }
            None => {
                Condition::new("AddressesAvailable", true, "Available", "every family has free addresses")
            }
        })
    }

    fn lock(&self) -> MutexGuard<'_, Outcome> {
        // What a panic in between could leave is still a whole outcome.
        self.outcome.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
