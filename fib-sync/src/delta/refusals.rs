//! What the kernel refused, and when it is tried again. Pure.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use causeway_kernel::Refusal;

use crate::slots::Slot;

/// The first wait after a refusal; doubled each time up to [`LONGEST_RETRY`].
pub const FIRST_RETRY: Duration = Duration::from_millis(100);
/// The longest wait after a refusal.
pub const LONGEST_RETRY: Duration = Duration::from_secs(10);

/// The last refusal of a slot that still wants something.
#[derive(Debug, Clone)]
struct Failure {
    refusal: Refusal,
    /// When to try again; `None`: now.
    again: Option<Instant>,
    wait: Duration,
}

/// The last refusal of each slot.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    failed: HashMap<Slot, Failure>,
    retries: BTreeSet<(Instant, Slot)>,
}

impl Refusals {
    /// The kernel refused a change of a slot: the next try waits twice as long as the last one did.
    pub(super) fn note(&mut self, slot: Slot, refusal: &Refusal, now: Instant) {
        let last = self.failed.get(&slot).map(|last| (last.wait * 2).min(LONGEST_RETRY));
        let wait = last.unwrap_or(FIRST_RETRY);
        self.forgive(slot);
        self.retries.insert((now + wait, slot));
        self.failed.insert(slot, Failure { refusal: refusal.clone(), again: Some(now + wait), wait });
    }

    /// Forgets the refusal of a slot.
    pub(super) fn forgive(&mut self, slot: Slot) {
        if let Some(Failure { again: Some(again), .. }) = self.failed.remove(&slot) {
            self.retries.remove(&(again, slot));
        }
    }

    /// The slots whose time has come, or all of them: they are to be tried now.
    pub(super) fn due(&mut self, now: Instant, all: bool) -> Vec<Slot> {
        let mut due = Vec::new();
        while let Some((again, slot)) = self.retries.first().copied()
            && (all || again <= now)
        {
            self.retries.remove(&(again, slot));
            if let Some(failure) = self.failed.get_mut(&slot) {
                failure.again = None;
            }
            due.push(slot);
        }
        due
    }

    /// When the next one is due.
    pub(super) fn next(&self) -> Option<Instant> {
        self.retries.first().map(|(again, _)| *again)
    }

    /// Whether a slot is not to be tried yet.
    pub(super) fn is_later(&self, slot: Slot) -> bool {
        self.failed.get(&slot).is_some_and(|failure| failure.again.is_some())
    }

    /// The last refusal of a slot.
    pub(super) fn get(&self, slot: Slot) -> Option<&Refusal> {
        self.failed.get(&slot).map(|failure| &failure.refusal)
    }

    /// All of them.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&Slot, &Refusal)> {
        self.failed.iter().map(|(slot, failure)| (slot, &failure.refusal))
    }
}
