//! Keeps our nftables table equal to what the documents ask for: looked at after every change of the documents and once a
//! minute, rewritten in one transaction where it differs, deleted where nothing is asked for any more.
//!
//! nftables may list a rule in other words than it was given, and does so differently from version to version. So what it
//! lists right after our own write is taken as the look of what we want, besides the words we gave.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use causeway_api::control::Condition;
use causeway_daemon::documents::Configuration;
use causeway_daemon::signals::Shutdown;
use serde_json::Value;
use tokio::sync::{oneshot, watch};

use super::nft::{Nft, NftError};
use super::{Desired, Layout, normal_form, removal};
use crate::config::Config;

/// How often the table is looked at when nothing changes.
const INTERVAL: Duration = Duration::from_secs(60);
/// Name of the condition.
const CONDITION: &str = "NatProgrammed";

/// What a look at the table led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing was asked for and nothing is there.
    Nothing,
    /// It is as it should be.
    Right,
    /// It was written.
    Written,
    /// It was deleted.
    Removed,
}

/// Keeps the table.
#[derive(Debug)]
pub struct Keeper {
    nft: Nft,
    layout: Layout,
    /// What was written last, and how it was listed then.
    written: Option<(Desired, Vec<Value>)>,
    /// No table was there, and none was made since.
    clean: bool,
}

impl Keeper {
    /// A keeper that has not looked yet.
    pub fn new(nft: Nft) -> Keeper {
        Keeper { nft, layout: Layout::Inet, written: None, clean: false }
    }

    /// Makes the table what it should be. Blocks.
    ///
    /// # Errors
    /// Any [`NftError`]: the table is then what it was, or unknown.
    pub fn reconcile(&mut self, desired: &Desired) -> Result<Outcome, NftError> {
        if desired.is_nothing() {
            return self.remove();
        }
        self.clean = false;
        if self.is_right(desired)? {
            return Ok(Outcome::Right);
        }
        self.write(desired)?;
        self.written = Some((desired.clone(), self.listed(&self.nft.families()?)?));
        Ok(Outcome::Written)
    }

    fn remove(&mut self) -> Result<Outcome, NftError> {
        self.written = None;
        if self.clean {
            return Ok(Outcome::Nothing);
        }
        let families = self.nft.families()?;
        let removed = !families.is_empty();
        if removed {
            let families: Vec<&str> = families.iter().map(String::as_str).collect();
            self.nft.apply(&removal(&families))?;
        }
        self.clean = true;
        Ok(if removed { Outcome::Removed } else { Outcome::Nothing })
    }

    fn is_right(&self, desired: &Desired) -> Result<bool, NftError> {
        let families = self.nft.families()?;
        if families.is_empty() {
            return Ok(false);
        }
        let listed = self.listed(&families)?;
        let as_written = self.written.as_ref().is_some_and(|(what, look)| what == desired && *look == listed);
        Ok(as_written || listed == normal_form(desired.objects(self.layout)))
    }

    fn listed(&self, families: &[String]) -> Result<Vec<Value>, NftError> {
        let mut objects = Vec::new();
        for family in families {
            objects.extend(self.nft.table(family)?);
        }
        Ok(normal_form(objects))
    }

    /// Writes the table; where this kernel does not take one for both families, one for each.
    fn write(&mut self, desired: &Desired) -> Result<(), NftError> {
        let refused = match self.nft.apply(&desired.transaction(self.layout)) {
            Ok(()) => return self.sweep(),
            Err(refused @ NftError::Refused { .. }) => refused,
            Err(error) => return Err(error),
        };
        let other = match self.layout {
            Layout::Inet => Layout::Split,
            Layout::Split => Layout::Inet,
        };
        // The first refusal says more than that of the way out.
        self.nft.apply(&desired.transaction(other)).map_err(|_| refused)?;
        self.layout = other;
        self.sweep()
    }

    /// Deletes tables of ours that are of the other layout.
    fn sweep(&self) -> Result<(), NftError> {
        let families = self.nft.families()?;
        let other: Vec<&str> = families
            .iter()
            .map(String::as_str)
            .filter(|family| !self.layout.families().contains(family))
            .collect();
        if other.is_empty() { Ok(()) } else { self.nft.apply(&removal(&other)) }
    }
}

/// How it goes, for `show node`.
#[derive(Debug, Clone, Default)]
pub struct NatState(Arc<Mutex<Option<Condition>>>);

impl NatState {
    /// The condition `NatProgrammed`.
    pub fn condition(&self) -> Condition {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.clone().unwrap_or_else(|| {
            Condition::new(CONDITION, false, "NotYet", "nftables has not been looked at yet")
        })
    }

    /// Puts in what came of a look; logs what is new.
    fn set(&self, desired: &Desired, outcome: &Result<Outcome, NftError>) {
        let condition = condition(desired, outcome);
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match outcome {
            Ok(Outcome::Written | Outcome::Removed) => tracing::info!(message = %condition.message),
            Err(error) if state.as_ref() != Some(&condition) => tracing::warn!(%error, "nftables"),
            _ => {}
        }
        *state = Some(condition);
    }
}

fn condition(desired: &Desired, outcome: &Result<Outcome, NftError>) -> Condition {
    let (holds, reason, message) = match outcome {
        Err(NftError::Missing { .. }) if desired.is_nothing() => {
            (true, "NotNeeded", "no pool has natOutgoing, and there is no nft".to_owned())
        }
        Err(error @ NftError::Missing { .. }) => (
            false,
            "NftMissing",
            format!("{error}; until it is there, pods' packets leave the pools with the pods' addresses"),
        ),
        Err(error) => (false, "NftFailed", error.to_string()),
        Ok(_) if desired.is_nothing() => {
            (true, "NotNeeded", "no pool has natOutgoing and clampMSS is off: no nftables table".to_owned())
        }
        Ok(_) => {
            let clamp = if desired.clamps() { ", MSS clamped in tunnels" } else { "" };
            let pools = desired.translated();
            (true, "Programmed", format!("nftables table causeway: {pools} pools translated{clamp}"))
        }
    };
    Condition::new(CONDITION, holds, reason, message)
}

/// Keeps the table until the shutdown, after which it stays as routes do.
pub async fn keep(
    mut configuration: watch::Receiver<Configuration<Config>>,
    state: NatState,
    shutdown: Shutdown,
) {
    let mut keeper = Keeper::new(Nft::default());
    while !shutdown.is_ending() {
        let current = Arc::clone(&configuration.borrow_and_update().current);
        let desired = Desired::of(&current);
        let (done, looked) = oneshot::channel();
        // A thread of its own and none of the runtime's, which would be waited for at the end of the daemon, as long as
        // a child that hangs.
        let look = move || {
            let outcome = keeper.reconcile(&desired);
            // Nobody waits any more: the daemon ends.
            let _ = done.send((keeper, desired, outcome));
        };
        if let Err(error) = std::thread::Builder::new().name("nftables".to_owned()).spawn(look) {
            tracing::error!(%error, "nftables are not looked after any more: no thread");
            return;
        }
        let (kept, desired, outcome) = tokio::select! {
            () = shutdown.ended() => return,
            looked = looked => match looked {
                Ok(looked) => looked,
                Err(_ended) => return,
            },
        };
        keeper = kept;
        state.set(&desired, &outcome);
        tokio::select! {
            () = shutdown.ended() => return,
            () = tokio::time::sleep(INTERVAL) => {}
            changed = configuration.changed() => if changed.is_err() {
                return;
            },
        }
    }
}
