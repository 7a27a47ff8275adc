//! Export: what each peer is sent.
//!
//! Owner of the Adj-RIB-Outs, kept by update group: members with equal [`ExportParams`] are sent the same, so a path is
//! rewritten once, a message encoded once, and its octets shared. Pure. RFC 4271 §9.1.3 and §9.2, RFC 2918, RFC 4456,
//! RFC 4724, RFC 7313.
//!
//! The way of a change, per family and group: `outcome` (*whether*: `eligibility` and policy; *what*: `rewrite`) →
//! `adj_rib_out` and `pending` (each prefix once, newest state wins) → when a member at the end of the `journal` is
//! pulled, `stream` encodes a `block` → every member hands out the same octets. A new member begins with a `walk`;
//! `transfer` moves a member between groups. The interface is [`Export`], in any order of calls:
//! what a member was sent, once it is drained, equals what the Loc-RIB's best paths come to for it.

mod adj_rib_out;
mod block;
mod eligibility;
mod family;
mod group;
mod journal;
mod outcome;
mod params;
mod pending;
mod reader;
mod rewrite;
mod sender;
mod stream;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod transfer;
mod walk;

use std::collections::VecDeque;

use bytes::Bytes;
use causeway_bgp_wire::{Family, Ipv4Prefix, Ipv6Prefix, PathAttributes, Prefix};
use foldhash::fast::RandomState;
use hashbrown::{HashMap, HashSet};

use crate::attrs::Interner;
use crate::event::{PeerId, PullState};
use crate::rib::{BestPath, LocRib};
use family::FamilyExport;
use group::Tables;
use sender::Sources;

pub use params::ExportParams;
pub use reader::SentCounts;

/// Bounds on what is kept for members that are slow, and on what is done at a time.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Octets a group's journal may hold; a member further behind is sent what it missed by a walk over the table.
    pub journal_bytes: usize,
    /// How many withdrawn prefixes are remembered for such members, or as many as are advertised, if that is more.
    pub tombstones: usize,
    /// Table slots looked at for one slice of a walk.
    pub slice_slots: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { journal_bytes: 8 * 1024 * 1024, tombstones: 65_536, slice_slots: 2_048 }
    }
}

/// How many warnings are kept for [`Export::poll_warning`].
const WARNINGS: usize = 100;

/// What the groups of all families use.
#[derive(Default)]
struct Shared {
    /// Of attributes as sent, where a policy changed them.
    interner: Interner,
    /// Where paths come from.
    sources: Sources,
    /// More sources than this are looked through for such as are named no more.
    forget_at: usize,
    warnings: Vec<String>,
    /// Members that were drained and have something to be sent now.
    wake: Vec<PeerId>,
    /// Members to be given up.
    stuck: Vec<PeerId>,
}

/// A member of one group per family.
struct Member {
    /// It was woken, or its last pull left something: no wake is due.
    awake: bool,
    /// The family its next pull begins with, so that none waits for the other to be drained.
    first: Family,
}

/// The update groups of all families and their members.
pub struct Export {
    v4: FamilyExport<Ipv4Prefix>,
    v6: FamilyExport<Ipv6Prefix>,
    members: HashMap<PeerId, Member, RandomState>,
    shared: Shared,
    wakes: VecDeque<PeerId>,
    stuck: VecDeque<PeerId>,
    given_up: HashSet<PeerId, RandomState>,
}

impl Default for Export {
    fn default() -> Self {
        Export::new()
    }
}

/// So many sources are kept whether they are named or not.
const SOURCES_MIN: usize = 1024;

/// Calls a method on the groups of a family; with `tables`, handing it what it reads of the Loc-RIB.
macro_rules! of_family {
    ($export:expr, $family:expr, $rib:expr, |$tables:ident| $($call:tt)*) => {
        match $family {
            Family::Ipv4Unicast => {
                let $tables = Tables { rib: $rib, keys: $rib.v4() };
                $export.v4.$($call)*
            }
            Family::Ipv6Unicast => {
                let $tables = Tables { rib: $rib, keys: $rib.v6() };
                $export.v6.$($call)*
            }
        }
    };
    ($export:expr, $family:expr, $($call:tt)*) => {
        match $family {
            Family::Ipv4Unicast => $export.v4.$($call)*,
            Family::Ipv6Unicast => $export.v6.$($call)*,
        }
    };
}

impl Export {
    /// No members.
    pub fn new() -> Self {
        Export::with_limits(Limits::default())
    }

    /// No members; other bounds than usual.
    pub fn with_limits(limits: Limits) -> Self {
        Export {
            v4: FamilyExport::new(limits),
            v6: FamilyExport::new(limits),
            members: HashMap::default(),
            shared: Shared::default(),
            wakes: VecDeque::new(),
            stuck: VecDeque::new(),
            given_up: HashSet::default(),
        }
    }

    /// A session came up: the member is owed every eligible best path, then End-of-RIB.
    pub fn member_up(&mut self, peer: PeerId, params: ExportParams) {
        self.member_down(peer);
        for family in params.families.iter() {
            if let Some(key) = params.group_key(family) {
                of_family!(self, family, join(peer, key));
            }
        }
        self.members.insert(peer, Member { awake: false, first: Family::Ipv4Unicast });
        self.wake(peer);
    }

    /// Parameters changed in a live session: the member is owed the difference only. Nothing where they are equal.
    /// Families are negotiated, so they do not change.
    pub(crate) fn member_changed(&mut self, peer: PeerId, params: ExportParams, rib: &dyn LocRib) {
        if !self.members.contains_key(&peer) {
            return;
        }
        let mut owed = false;
        for family in params.families.iter() {
            if let Some(key) = params.group_key(family) {
                owed |= of_family!(self, family, rib, |tables| change(peer, key, tables, &mut self.shared));
            }
        }
        if owed {
            self.wake(peer);
        }
    }

    /// The session is gone.
    pub fn member_down(&mut self, peer: PeerId) {
        if self.members.remove(&peer).is_some() {
            self.v4.leave(peer);
            self.v6.leave(peer);
            self.given_up.remove(&peer);
        }
    }

    /// The best path of the prefix at this slot changed (`None`: there is none any more).
    pub fn route_changed(&mut self, slot: u32, prefix: Prefix, best: Option<&BestPath>) {
        match prefix {
            Prefix::V4(prefix) => self.v4.route_changed(slot, prefix, best, &mut self.shared),
            Prefix::V6(prefix) => self.v6.route_changed(slot, prefix, best, &mut self.shared),
        }
        self.pass_on();
    }

    /// The prefixes at these slots had no best path and have this one now.
    pub(crate) fn routes_added(&mut self, family: Family, slots: &[u32], best: &BestPath, rib: &dyn LocRib) {
        let shared = &mut self.shared;
        of_family!(self, family, rib, |tables| routes_added(slots, best, tables.keys, shared));
        self.pass_on();
    }

    /// Whether something is kept at a slot for members that have still to be told: then the slot must stay its
    /// prefix's until [`Export::poll_released`] names it.
    pub fn holds(&self, family: Family, slot: u32) -> bool {
        of_family!(self, family, holds(slot))
    }

    /// A slot at which something was kept; [`Export::holds`] tells whether that is still so.
    pub fn poll_released(&mut self) -> Option<(Family, u32)> {
        let v4 = self.v4.poll_released().map(|slot| (Family::Ipv4Unicast, slot));
        v4.or_else(|| self.v6.poll_released().map(|slot| (Family::Ipv6Unicast, slot)))
    }

    /// A restarting speaker defers advertisement (RFC 4724 §4.1): nothing is sent until [`Export::release`].
    pub fn hold(&mut self) {
        (self.v4.held, self.v6.held) = (true, true);
    }

    /// Route selection of the family is done: its members are sent their tables and End-of-RIB.
    pub fn release(&mut self, family: Family) {
        of_family!(self, family, held = false);
        let mut members: Vec<PeerId> = of_family!(self, family, members().collect());
        members.sort_unstable();
        for peer in members {
            self.wake(peer);
        }
    }

    /// The member is to be sent the whole family again (RFC 2918), framed by BoRR and EoRR where `enhanced`
    /// (RFC 7313). It begins when what is being sent is complete, End-of-RIB included.
    pub fn refresh(&mut self, peer: PeerId, family: Family, enhanced: bool) {
        of_family!(self, family, refresh(peer, enhanced, &mut self.shared));
        self.pass_on();
    }

    /// Appends whole messages for a member, about `max_bytes` of them. [`PullState::More`] may come with none, where it took
    /// a slice's work to find nothing to say.
    pub(crate) fn pull(
        &mut self,
        peer: PeerId,
        max_bytes: usize,
        out: &mut Vec<Bytes>,
        rib: &dyn LocRib,
    ) -> PullState {
        let Some(member) = self.members.get_mut(&peer) else { return PullState::Drained };
        let families = match member.first {
            Family::Ipv4Unicast => [Family::Ipv4Unicast, Family::Ipv6Unicast],
            Family::Ipv6Unicast => [Family::Ipv6Unicast, Family::Ipv4Unicast],
        };
        let mut state = PullState::Drained;
        let mut budget = max_bytes;
        for family in families {
            let before = out.len();
            let pulled =
                of_family!(self, family, rib, |tables| pull(peer, budget, out, tables, &mut self.shared));
            if pulled == PullState::More {
                state = PullState::More;
                // The other one's turn.
                member.first = families[usize::from(family == families[0])];
                break;
            }
            budget = budget.saturating_sub(out[before..].iter().map(Bytes::len).sum()).max(1);
        }
        member.awake = state == PullState::More;
        self.pass_on();
        state
    }

    /// A member that was drained and now has something to be sent.
    pub fn poll_wake(&mut self) -> Option<PeerId> {
        // One that went meanwhile, and perhaps came back, is owed no wake of its former life.
        std::iter::from_fn(|| self.wakes.pop_front())
            .find(|peer| self.members.get(peer).is_some_and(|member| member.awake))
    }

    /// A member so far behind that what it is owed can no longer be kept for it: its session is to be reset
    /// (Cease, Out of Resources).
    pub fn poll_stuck(&mut self) -> Option<PeerId> {
        self.stuck.pop_front()
    }

    /// Something worth a warning in the log: a path that cannot be advertised, and why.
    pub fn poll_warning(&mut self) -> Option<String> {
        (!self.shared.warnings.is_empty()).then(|| self.shared.warnings.remove(0))
    }

    /// What the member is sent, attributes as sent, in table order: looks at no more than `limit` table slots from
    /// `position` on and returns where to go on, `None` at the end.
    pub(crate) fn advertised(
        &self,
        peer: PeerId,
        at: (Family, usize),
        limit: usize,
        rib: &dyn LocRib,
        row: &mut dyn FnMut(Prefix, PathAttributes),
    ) -> Option<usize> {
        let (sources, (family, position)) = (&self.shared.sources, at);
        of_family!(self, family, rib, |tables| advertised(peer, tables.keys, sources, position, limit, row))
    }

    /// What the member is sent of one prefix.
    pub(crate) fn advertised_path(
        &self,
        peer: PeerId,
        prefix: &Prefix,
        rib: &dyn LocRib,
    ) -> Option<PathAttributes> {
        let sources = &self.shared.sources;
        match prefix {
            Prefix::V4(prefix) => self.v4.advertised_path(peer, rib.v4().find(prefix)?, sources),
            Prefix::V6(prefix) => self.v6.advertised_path(peer, rib.v6().find(prefix)?, sources),
        }
    }

    /// How many prefixes of the family the member is sent.
    pub fn advertised_count(&self, peer: PeerId, family: Family) -> u64 {
        of_family!(self, family, advertised_count(peer))
    }

    /// What the member was sent since it came up.
    pub fn sent(&self, peer: PeerId) -> SentCounts {
        let (v4, v6) = (self.v4.sent(peer), self.v6.sent(peer));
        SentCounts {
            updates: v4.updates + v6.updates,
            withdrawn: v4.withdrawn + v6.withdrawn,
            bytes: v4.bytes + v6.bytes,
        }
    }

    /// Handles what the groups left to be handled.
    fn pass_on(&mut self) {
        let mut wake = std::mem::take(&mut self.shared.wake);
        for peer in wake.drain(..) {
            self.wake(peer);
        }
        self.shared.wake = wake;
        for peer in self.shared.stuck.drain(..) {
            if self.given_up.insert(peer) {
                self.stuck.push_back(peer);
            }
        }
        self.shared.warnings.truncate(WARNINGS);
        if self.shared.sources.len() > self.shared.forget_at.max(SOURCES_MIN) {
            let Export { v4, v6, shared, .. } = self;
            shared.sources.retain(|peer| v4.names(peer) || v6.names(peer));
            shared.forget_at = 2 * shared.sources.len();
        }
    }

    fn wake(&mut self, peer: PeerId) {
        if let Some(member) = self.members.get_mut(&peer)
            && !std::mem::replace(&mut member.awake, true)
        {
            self.wakes.push_back(peer);
        }
    }
}
