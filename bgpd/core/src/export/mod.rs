//! Export: what each peer is sent.
//!
//! Owner of the Adj-RIB-Outs, kept by update group. Pure. RFC 4271 §9.1.3 and §9.2, RFC 2918, RFC 4456, RFC 4724,
//! RFC 7313.

mod eligibility;
mod params;
mod rewrite;
#[cfg(test)]
mod testing;

use bytes::Bytes;
use causeway_bgp_wire::{Family, Prefix};

use crate::attrs::AttrSet;
use crate::event::{PeerId, PullState};
use crate::rib::{BestPath, LocRib};

pub use params::ExportParams;

/// How much a member was sent since it came up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SentCounts {
    /// UPDATE messages, End-of-RIB included.
    pub updates: u64,
    /// Prefixes withdrawn.
    pub withdrawn: u64,
    /// Octets.
    pub bytes: u64,
}

/// The update groups of all families and their members.
#[derive(Default)]
pub struct Export {}

impl Export {
    /// No members.
    pub fn new() -> Self {
        Export {}
    }

    /// A session came up: the member is owed every eligible best path, then End-of-RIB.
    pub fn member_up(&mut self, _peer: PeerId, _params: ExportParams, _rib: &dyn LocRib) {}

    /// Parameters changed in a live session: the member is owed the difference only. Nothing where they are equal.
    pub fn member_changed(&mut self, _peer: PeerId, _params: ExportParams, _rib: &dyn LocRib) {}

    /// The session is gone.
    pub fn member_down(&mut self, _peer: PeerId) {}

    /// The best path of a prefix changed (`None`: there is none any more).
    pub fn route_changed(&mut self, _prefix: Prefix, _best: Option<&BestPath>) {}

    /// A restarting speaker defers advertisement (RFC 4724 §4.1): nothing is sent until [`Export::release`].
    pub fn hold(&mut self) {}

    /// Route selection of the family is done: its members are sent their tables and End-of-RIB.
    pub fn release(&mut self, _family: Family) {}

    /// The member is to be sent the whole family again (RFC 2918), framed by BoRR and EoRR where `enhanced`
    /// (RFC 7313).
    pub fn refresh(&mut self, _peer: PeerId, _family: Family, _enhanced: bool) {}

    /// Appends whole messages for a member, about `max_bytes` of them.
    pub fn pull(&mut self, _peer: PeerId, _max_bytes: usize, _out: &mut Vec<Bytes>) -> PullState {
        PullState::Drained
    }

    /// A member that was drained and now has something to be sent.
    pub fn poll_wake(&mut self) -> Option<PeerId> {
        None
    }

    /// A member so far behind that what it is owed can no longer be kept for it: its session is to be reset
    /// (Cease, Out of Resources).
    pub fn poll_stuck(&mut self) -> Option<PeerId> {
        None
    }

    /// Something worth a warning in the log: a path that cannot be advertised.
    pub fn poll_warning(&mut self) -> Option<String> {
        None
    }

    /// What the member is sent, attributes as sent, in table order: looks at no more than `limit` table slots from
    /// `position` on and returns where to go on, `None` at the end.
    pub fn advertised(
        &self,
        _peer: PeerId,
        _family: Family,
        _position: usize,
        _limit: usize,
        _row: &mut dyn FnMut(Prefix, &AttrSet),
    ) -> Option<usize> {
        None
    }

    /// What the member is sent of one prefix.
    pub fn advertised_path(&self, _peer: PeerId, _prefix: &Prefix) -> Option<AttrSet> {
        None
    }

    /// How many prefixes of the family the member is sent.
    pub fn advertised_count(&self, _peer: PeerId, _family: Family) -> u64 {
        0
    }

    /// What the member was sent since it came up.
    pub fn sent(&self, _peer: PeerId) -> SentCounts {
        SentCounts::default()
    }
}
