//! The speaker's timers: at most one of each, the earliest found at once.
//!
//! Owner: the speaker. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use causeway_bgp_wire::Family;

use crate::event::PeerId;

/// What runs out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    /// This speaker's own restart time: what waited for peers waits no longer.
    Restart,
    /// No further members of ranges are expected back.
    Members,
    /// Stale paths of a peer were retained long enough (RFC 4724 §4.2).
    Stale(PeerId),
    /// A refresh that began was not ended (RFC 7313 §4).
    Refresh(PeerId, Family),
    /// The FIB may be told what could wait.
    Refine,
    /// A peer that will send no End-of-RIB had time to send its table.
    Settled(PeerId),
}

/// The timers that run.
#[derive(Default)]
pub(super) struct Timers {
    due: BTreeSet<(Instant, Timer)>,
    at: BTreeMap<Timer, Instant>,
}

impl Timers {
    /// Starts a timer, anew if it runs.
    pub(super) fn set(&mut self, timer: Timer, at: Instant) {
        self.cancel(timer);
        self.due.insert((at, timer));
        self.at.insert(timer, at);
    }

    /// Stops a timer if it runs.
    pub(super) fn cancel(&mut self, timer: Timer) {
        if let Some(at) = self.at.remove(&timer) {
            self.due.remove(&(at, timer));
        }
    }

    /// Stops all timers of a peer.
    pub(super) fn cancel_peer(&mut self, peer: PeerId) {
        self.cancel(Timer::Stale(peer));
        self.cancel(Timer::Settled(peer));
        for family in Family::all() {
            self.cancel(Timer::Refresh(peer, family));
        }
    }

    /// When the next one runs out.
    pub(super) fn next(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }

    /// Takes one that has run out.
    pub(super) fn pop(&mut self, now: Instant) -> Option<Timer> {
        let (at, timer) = *self.due.first()?;
        if at > now {
            return None;
        }
        self.cancel(timer);
        Some(timer)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn earliest_first_and_one_of_each() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut timers = Timers::default();
        timers.set(Timer::Stale(PeerId(1)), at(9));
        timers.set(Timer::Restart, at(5));
        timers.set(Timer::Stale(PeerId(1)), at(3));
        timers.set(Timer::Settled(PeerId(1)), at(4));
        assert_eq!(timers.next(), Some(at(3)));
        assert_eq!(timers.pop(at(2)), None);
        assert_eq!(timers.pop(at(3)), Some(Timer::Stale(PeerId(1))));
        timers.cancel_peer(PeerId(1));
        assert_eq!(timers.pop(at(10)), Some(Timer::Restart));
        assert_eq!((timers.pop(at(99)), timers.next()), (None, None));
    }
}
