//! An update group of one family: members that are sent the same.
//!
//! Owner of the group's Adj-RIB-Out and of its members' places. Pure. RFC 4271 §9.2, RFC 2918, RFC 4724 §2, RFC 7313.
//! The first member that comes to the end of the journal while something is pending writes the next block; the
//! others find it there.

use bytes::Bytes;
use causeway_bgp_wire::encode::encode_end_of_rib;
use causeway_bgp_wire::{PrefixKey, RefreshKind, RouteRefresh, encode_route_refresh};
use foldhash::fast::RandomState;
use hashbrown::HashMap;

use super::adj_rib_out::{Epoch, State};
use super::block::Counts;
use super::outcome::Outcomes;
use super::params::GroupKey;
use super::reader::{Due, Former, Marker, Phase, Reader};
use super::sender::{Sender, Sources};
use super::stream::Stream;
use super::transfer::Side;
use super::walk::{Place, Since, Slices};
use super::{Limits, Shared};
use crate::event::{PeerId, PullState};
use crate::rib::slots::Keys;
use crate::rib::{BestPath, LocRib, Source};

/// What a step counts at least, in octets of the budget of a pull, so that steps with few or none come to an end.
const STEP_COST: usize = 256;
/// The same for a slice of a walk: members that walk together find the slices of one pull among those that are kept.
const SLICE_COST: usize = 32 * 1024;

/// An update group.
pub(super) struct Group<P> {
    pub key: GroupKey,
    /// Tells the group from others that had its place before.
    pub serial: u64,
    pub stream: Stream<P>,
    outcomes: Outcomes,
    pub readers: HashMap<PeerId, Reader, RandomState>,
    slices: Slices,
    /// Slots below this one were taken from the Loc-RIB: the rest is when a member comes to it.
    filled: u32,
    idle: Vec<PeerId>,
    limits: Limits,
}

/// What a pull reads beside the group.
#[derive(Clone, Copy)]
pub(super) struct Tables<'a, P> {
    /// The Loc-RIB.
    pub rib: &'a dyn LocRib,
    /// Its prefixes of this family.
    pub keys: &'a Keys<P>,
}

impl<P: PrefixKey> Group<P> {
    pub fn new(key: GroupKey, serial: u64, limits: Limits) -> Self {
        Group {
            stream: Stream::new(key.encode_context()),
            key,
            serial,
            outcomes: Outcomes::default(),
            readers: HashMap::default(),
            slices: Slices::new(limits.slice_slots),
            filled: 0,
            idle: Vec::new(),
            limits,
        }
    }

    fn state(&mut self, prefix: P, best: Option<&BestPath>, shared: &mut Shared) -> State {
        let Shared { interner, warnings, sources, .. } = shared;
        let Some(best) = best else { return State::NOTHING };
        sources.learn(&best.source);
        let warn = &mut |text| warnings.push(text);
        let attrs = self.outcomes.outcome(prefix, best, &self.key, interner, warn);
        let origin = match best.source {
            Source::Local { .. } => None,
            Source::Peer { id, .. } => Some(id),
        };
        State { attrs, origin }
    }

    /// Takes routes from the Loc-RIB up to a slot.
    fn fill(&mut self, end: u32, tables: Tables<'_, P>, shared: &mut Shared) {
        if self.filled == u32::MAX {
            return;
        }
        // A Loc-RIB that was empty meanwhile may be shorter than what was taken from it.
        tables.rib.best_between(P::FAMILY, self.filled..end.max(self.filled), &mut |slot, prefix, best| {
            if let Some(prefix) = P::from_prefix(prefix) {
                let state = self.state(prefix, Some(best), shared);
                if state.attrs.is_some() {
                    self.stream.fill(slot, state);
                }
            }
        });
        self.filled = if end >= tables.keys.end() { u32::MAX } else { end.max(self.filled) };
    }

    /// The best path of a prefix changed.
    pub fn route_changed(&mut self, slot: u32, prefix: P, best: Option<&BestPath>, shared: &mut Shared) {
        if slot >= self.filled {
            return;
        }
        let state = self.state(prefix, best, shared);
        self.stream.change(slot, state, Sender { key: &self.key, sources: &shared.sources });
        if !self.stream.pending.is_empty() {
            self.wake_idle(shared);
        }
    }

    /// Prefixes without a best path have one now, all of one attribute set.
    pub fn routes_added(&mut self, slots: &[u32], best: &BestPath, keys: &Keys<P>, shared: &mut Shared) {
        let mut rest: &[u32] = slots;
        let taken;
        if let (Some(first), true) = (slots.first(), self.key.policy.is_uniform(P::FAMILY))
            && self.filled == u32::MAX
        {
            let state = self.state(keys.key(*first), Some(best), shared);
            if state.attrs.is_some() {
                taken = self.stream.add(slots, &state);
                rest = &taken;
                self.wake_idle(shared);
            }
        }
        for slot in rest {
            self.route_changed(*slot, keys.key(*slot), Some(best), shared);
        }
    }

    fn wake_idle(&mut self, shared: &mut Shared) {
        for peer in self.idle.drain(..) {
            if let Some(reader) = self.readers.get_mut(&peer)
                && std::mem::take(&mut reader.idle)
            {
                shared.wake.push(peer);
            }
        }
    }

    /// A new member. `reader` must not have a place in the journal.
    pub fn join(&mut self, peer: PeerId, reader: Reader) {
        self.stream.members.insert(peer);
        self.readers.insert(peer, reader);
    }

    /// A member goes. Its reader keeps only what is not bound to the group.
    pub fn leave(&mut self, peer: PeerId) -> Option<Reader> {
        let reader = self.readers.remove(&peer)?;
        self.stream.members.remove(&peer);
        if let Some(at) = reader.position() {
            self.stream.journal.leave(at);
        }
        self.idle.retain(|idle| *idle != peer);
        self.stream.unblock();
        self.settle();
        Some(reader)
    }

    /// A member goes to another group, and a placeholder stays that needs what was told `since`. Unlike
    /// [`Group::leave`], this frees nothing.
    pub fn leave_behind(&mut self, peer: PeerId, since: Since) -> Option<Reader> {
        let reader = self.readers.insert(peer, Reader::placeholder(since))?;
        self.stream.members.remove(&peer);
        if let Some(at) = reader.position() {
            self.stream.journal.leave(at);
        }
        self.idle.retain(|idle| *idle != peer);
        Some(reader)
    }

    /// The same as [`Group::begin_walk`] for a member that comes from another group.
    pub fn begin_move(&mut self, from: Former) -> Phase {
        match self.begin_walk(Since::NOTHING_KNOWN) {
            Phase::Walk { mark, slot, at, .. } => Phase::Move { from, mark, slot, at },
            phase => phase,
        }
    }

    /// Takes a mark for a member that is to walk, and a place in the journal where it goes on afterwards.
    pub fn begin_walk(&mut self, since: Since) -> Phase {
        if self.stream.journal.is_unread() {
            self.stream.absorb();
        }
        let mark = self.stream.mark();
        Phase::Walk { since, mark, slot: 0, at: self.stream.journal.join() }
    }

    /// The member is to be sent the table again.
    pub fn refresh(&mut self, peer: PeerId, enhanced: bool, shared: &mut Shared) {
        let Some(reader) = self.readers.get_mut(&peer) else { return };
        let again = reader.refresh.unwrap_or(false);
        reader.refresh = Some(enhanced || again);
        if std::mem::take(&mut reader.idle) {
            shared.wake.push(peer);
        }
    }

    /// Appends messages for a member, about `budget` octets; none where it took that much work to find nothing to say.
    /// `old` is the group it moves from.
    pub fn pull(
        &mut self,
        peer: PeerId,
        mut budget: usize,
        out: &mut Vec<Bytes>,
        tables: Tables<'_, P>,
        old: Option<&Group<P>>,
        shared: &mut Shared,
    ) -> PullState {
        while budget > 0 {
            let before = out.len();
            let walks = self
                .readers
                .get(&peer)
                .is_some_and(|reader| reader.backlog.is_empty() && reader.is_walking());
            let Some(counts) = self.step(peer, out, tables, old, shared) else {
                return self.drained(peer, shared);
            };
            let bytes = out[before..].iter().map(Bytes::len).sum();
            let cost = if walks { SLICE_COST } else { STEP_COST };
            if let Some(reader) = self.readers.get_mut(&peer) {
                reader.count(counts, bytes);
            }
            budget = budget.saturating_sub(bytes.max(cost));
        }
        PullState::More
    }

    fn drained(&mut self, peer: PeerId, shared: &mut Shared) -> PullState {
        if let Some(reader) = self.readers.get_mut(&peer)
            && !std::mem::replace(&mut reader.idle, true)
        {
            self.idle.push(peer);
        }
        self.give_up_on_stuck(shared);
        PullState::Drained
    }

    /// One thing a member does; `None` where there is nothing to do.
    fn step(
        &mut self,
        peer: PeerId,
        out: &mut Vec<Bytes>,
        tables: Tables<'_, P>,
        old: Option<&Group<P>>,
        shared: &mut Shared,
    ) -> Option<Counts> {
        let reader = self.readers.get_mut(&peer)?;
        if let Some((bytes, counts)) = reader.backlog.pop_front() {
            out.push(bytes);
            return Some(counts);
        }
        match reader.phase {
            Phase::Live { at } => self.live(peer, at, out, tables.keys, &shared.sources),
            _ => self.walk(peer, out, tables, old, shared),
        }
    }

    /// A step of a member's walk.
    fn walk(
        &mut self,
        peer: PeerId,
        out: &mut Vec<Bytes>,
        tables: Tables<'_, P>,
        old: Option<&Group<P>>,
        shared: &mut Shared,
    ) -> Option<Counts> {
        let place = match self.readers.get(&peer)?.phase {
            Phase::Start(since) => {
                let phase = self.begin_walk(since);
                self.readers.get_mut(&peer)?.phase = phase;
                return Some(Counts::default());
            }
            Phase::Moved(from) => {
                let phase = self.begin_move(from);
                self.readers.get_mut(&peer)?.phase = phase;
                return Some(Counts::default());
            }
            Phase::Walk { since, mark, slot, .. } => Place { since, from: None, told: None, mark, slot },
            Phase::Move { from, mark, slot, .. } => {
                let told = old.filter(|_| from.known == 0).map(|old| old.stream.revision);
                Place { since: Since::NOTHING_KNOWN, from: Some(from), told, mark, slot }
            }
            Phase::Live { .. } => return None,
        };
        self.fill(self.slices.end_of(place.slot).min(tables.keys.end()), tables, shared);
        let filled = self.filled == u32::MAX && place.from.is_none();
        let end = if filled { self.stream.table.end() } else { tables.keys.end() };
        let sender = |key| Sender { key, sources: &shared.sources };
        let old = old.map(|old| Side { stream: &old.stream, sender: sender(&old.key) });
        let (block, next) = self.slices.slice(&self.stream, place, end, tables.keys, sender(&self.key), old);
        let reader = self.readers.get_mut(&peer)?;
        let counts = block.map(|block| block.hand_out(peer, out)).unwrap_or_default();
        match (&mut reader.phase, next) {
            (Phase::Walk { slot, .. } | Phase::Move { slot, .. }, Some(next)) => *slot = next,
            (Phase::Walk { at, .. } | Phase::Move { at, .. }, None) => {
                reader.phase = Phase::Live { at: *at };
                self.walk_ended(peer);
            }
            _ => {}
        }
        Some(counts)
    }

    /// Brings a member that moves from another group to the end of its walk at once.
    pub fn finish_move(&mut self, peer: PeerId, old: &Group<P>, tables: Tables<'_, P>, shared: &mut Shared) {
        while self.readers.get(&peer).is_some_and(|reader| reader.former().is_some()) {
            let mut out = Vec::new();
            let Some(mut counts) = self.walk(peer, &mut out, tables, Some(old), shared) else { return };
            if let Some(reader) = self.readers.get_mut(&peer) {
                reader.backlog.extend(out.into_iter().map(|bytes| (bytes, std::mem::take(&mut counts))));
            }
        }
    }

    fn walk_ended(&mut self, peer: PeerId) {
        let due = self.due_now();
        if let Some(reader) = self.readers.get_mut(&peer)
            && let Some(marker) = &mut reader.marker
        {
            marker.1 = due;
        }
        if self.readers.len() == 1 {
            self.slices.clear();
        }
        self.stream.unblock();
        self.settle();
    }

    /// When a marker is due that stands for everything the group knows now.
    pub fn due_now(&self) -> Due {
        match self.stream.pending.is_empty() {
            true => Due::At(self.stream.journal.end()),
            false => Due::AfterPending(self.stream.emptied.0),
        }
    }

    fn live(
        &mut self,
        peer: PeerId,
        at: u64,
        out: &mut Vec<Bytes>,
        keys: &Keys<P>,
        sources: &Sources,
    ) -> Option<Counts> {
        let reader = self.readers.get_mut(&peer)?;
        if let Some((marker, due)) = &mut reader.marker {
            if let (Due::AfterPending(times), (emptied, end)) = (&due, self.stream.emptied)
                && emptied > *times
            {
                *due = Due::At(end);
            }
            if matches!(due, Due::At(end) if at >= *end) {
                let counts = mark::<P>(*marker, out);
                reader.marker = None;
                return Some(counts);
            }
        }
        if let Some(enhanced) = reader.refresh
            && reader.marker.is_none()
        {
            self.begin_refresh(peer, at, enhanced);
            return Some(Counts::default());
        }
        if self.stream.journal.get(at).is_none() {
            if self.stream.pending.is_empty() {
                return None;
            }
            let walking = self.readers.values().any(Reader::is_walking);
            self.stream.write(walking, keys, Sender { key: &self.key, sources });
            self.slices.clear();
            self.cut();
        }
        let counts = self.stream.journal.get(at).map(|block| block.hand_out(peer, out));
        if counts.is_some() {
            let at = self.stream.journal.advance(at);
            self.readers.get_mut(&peer)?.phase = Phase::Live { at };
            self.settle();
        }
        Some(counts.unwrap_or_default())
    }

    /// The member first gets what is in the journal, then the whole table between the marks of RFC 7313.
    fn begin_refresh(&mut self, peer: PeerId, at: u64, enhanced: bool) {
        let mut backlog = self.rest_of_journal(peer, at);
        if enhanced {
            backlog.push((refresh_message::<P>(RefreshKind::BeginOfRefresh), Counts::default()));
        }
        self.stream.journal.leave(at);
        // The member has left the journal but not the group: what is pending must reach it as a change, since it has
        // been told something before.
        let mark = self.stream.mark();
        let at = self.stream.journal.join();
        if let Some(reader) = self.readers.get_mut(&peer) {
            reader.backlog.extend(backlog);
            reader.refresh = None;
            reader.marker = Some((Marker::EndOfRefresh { enhanced }, Due::Walking));
            reader.phase = Phase::Walk { since: Since::NOTHING_KNOWN, mark, slot: 0, at };
        }
    }

    /// What the member has not read of the journal.
    pub fn rest_of_journal(&self, peer: PeerId, at: u64) -> Vec<(Bytes, Counts)> {
        let mut rest = Vec::new();
        for block in (at..self.stream.journal.end()).filter_map(|at| self.stream.journal.get(at)) {
            let mut out = Vec::new();
            let mut counts = block.hand_out(peer, &mut out);
            rest.extend(out.into_iter().map(|bytes| (bytes, std::mem::take(&mut counts))));
        }
        rest
    }

    /// Cuts the journal where it has grown too long: who is too slow falls out and walks over what it missed.
    fn cut(&mut self) {
        let journal = &self.stream.journal;
        if journal.bytes() <= self.limits.journal_bytes {
            return;
        }
        let start = journal.start_for(self.limits.journal_bytes / 2);
        for reader in self.readers.values_mut() {
            if let Some(at) = reader.position().filter(|at| *at < start)
                && let Some(block) = journal.get(at)
            {
                reader.fall_out(block.epoch);
            }
        }
        self.stream.journal.cut(start);
    }

    /// Whether the group may still have to rewrite a path of this peer.
    pub fn names(&self, peer: PeerId) -> bool {
        !self.stream.pending.is_empty() || self.stream.table.names(peer)
    }

    fn needed(&self) -> Option<Epoch> {
        self.readers.values().filter_map(Reader::needs_withdrawals_since).min()
    }

    /// Frees what nobody needs any more.
    fn settle(&mut self) {
        if self.stream.wants_sweep() {
            let needed = self.needed();
            self.stream.sweep(needed);
        }
    }

    /// Where tombstones for members that do not read pile up, those are given up.
    fn give_up_on_stuck(&mut self, shared: &mut Shared) {
        let limit = self.limits.tombstones.max(self.stream.table.live() as usize);
        let worn_out = self.stream.is_worn_out();
        if !worn_out && self.stream.tombstones() <= limit {
            return;
        }
        let readers = self.readers.iter();
        let stuck = readers.filter(|(_, reader)| worn_out || reader.needs_withdrawals_since().is_some());
        let mut stuck: Vec<PeerId> = stuck.map(|(peer, _)| *peer).collect();
        stuck.sort_unstable();
        shared.stuck.append(&mut stuck);
    }
}

fn mark<P: PrefixKey>(marker: Marker, out: &mut Vec<Bytes>) -> Counts {
    match marker {
        Marker::EndOfRib => {
            let mut octets = Vec::new();
            encode_end_of_rib(P::FAMILY, &mut octets);
            out.push(octets.into());
            Counts { updates: 1, withdrawn: 0 }
        }
        Marker::EndOfRefresh { enhanced } => {
            out.extend(enhanced.then(|| refresh_message::<P>(RefreshKind::EndOfRefresh)));
            Counts::default()
        }
    }
}

fn refresh_message<P: PrefixKey>(kind: RefreshKind) -> Bytes {
    let mut octets = Vec::new();
    encode_route_refresh(&RouteRefresh { family: P::FAMILY.afi_safi(), kind }, &mut octets);
    octets.into()
}
