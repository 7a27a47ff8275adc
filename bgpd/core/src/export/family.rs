//! The update groups of one family. Owner of them. Pure.

use bytes::Bytes;
use causeway_bgp_wire::{PathAttributes, Prefix, PrefixKey};
use foldhash::fast::RandomState;
use hashbrown::HashMap;

use super::group::{Group, Tables};
use super::params::GroupKey;
use super::reader::{Phase, Reader, SentCounts};
use super::sender::{Sender, Sources};
use super::transfer::transfer;
use super::walk::Since;
use super::{Limits, Shared};
use crate::event::{PeerId, PullState};
use crate::rib::BestPath;
use crate::rib::slots::Keys;

/// All groups of a family.
pub(super) struct FamilyExport<P> {
    groups: Vec<Option<Group<P>>>,
    group_of: HashMap<PeerId, usize, RandomState>,
    next_serial: u64,
    limits: Limits,
    /// Slots that groups gave back.
    released: Vec<u32>,
    /// Nothing is sent (RFC 4724 §4.1).
    pub held: bool,
}

impl<P: PrefixKey> FamilyExport<P> {
    pub fn new(limits: Limits) -> Self {
        FamilyExport {
            groups: Vec::new(),
            group_of: HashMap::default(),
            next_serial: 0,
            limits,
            released: Vec::new(),
            held: false,
        }
    }

    fn group(&self, peer: PeerId) -> Option<&Group<P>> {
        self.groups.get(*self.group_of.get(&peer)?)?.as_ref()
    }

    fn group_mut(&mut self, peer: PeerId) -> Option<&mut Group<P>> {
        self.groups.get_mut(*self.group_of.get(&peer)?)?.as_mut()
    }

    /// The groups there are.
    #[cfg(test)]
    pub fn groups(&self) -> impl Iterator<Item = &Group<P>> {
        self.groups.iter().flatten()
    }

    /// Members, in no particular order.
    pub fn members(&self) -> impl Iterator<Item = PeerId> + '_ {
        self.groups.iter().flatten().flat_map(|group| group.readers.keys().copied())
    }

    /// A new member of the group with this key.
    pub fn join(&mut self, peer: PeerId, key: GroupKey) {
        let index = self.find_or_make(key);
        if let Some(group) = &mut self.groups[index] {
            group.join(peer, Reader::new());
            self.group_of.insert(peer, index);
        }
    }

    /// The member has these parameters now. True where it is owed something for it.
    pub fn change(
        &mut self,
        peer: PeerId,
        key: GroupKey,
        tables: Tables<'_, P>,
        shared: &mut Shared,
    ) -> bool {
        let Some(from) = self.group_of.get(&peer).copied() else {
            self.join(peer, key);
            return true;
        };
        if self.group(peer).is_some_and(|group| group.key == key) {
            return false;
        }
        if let Some(former) = self.former(peer) {
            // One that moves again before it has arrived: the first move, which is rare, is not done in slices.
            if let Ok([Some(new), Some(old)]) = self.groups.get_disjoint_mut([from, former]) {
                new.finish_move(peer, old, tables, shared);
            }
            self.forget_in(former, peer);
        }
        let to = self.find_or_make(key);
        if let Ok([Some(old), Some(new)]) = self.groups.get_disjoint_mut([from, to]) {
            transfer((from, old), new, peer);
            self.group_of.insert(peer, to);
        }
        if self.former(peer).is_none() {
            self.forget_in(from, peer);
        }
        self.collect_released();
        true
    }

    /// Place of the group that the member moves from.
    fn former(&self, peer: PeerId) -> Option<usize> {
        self.group(peer)?.readers.get(&peer)?.former().map(|former| former.group)
    }

    /// The member's place, or what stands for it, in a group is given up.
    fn forget_in(&mut self, index: usize, peer: PeerId) {
        if let Some(group) = &mut self.groups[index] {
            group.leave(peer);
        }
        self.drop_if_empty(index);
    }

    /// The member is gone.
    pub fn leave(&mut self, peer: PeerId) {
        let former = self.former(peer);
        if let Some(index) = self.group_of.remove(&peer) {
            self.forget_in(index, peer);
            if let Some(former) = former {
                self.forget_in(former, peer);
            }
            self.collect_released();
        }
    }

    fn drop_if_empty(&mut self, index: usize) {
        let group = &mut self.groups[index];
        if let Some(group) = group.take_if(|group| group.readers.is_empty()) {
            self.released.extend(group.stream.table.slots());
        }
    }

    /// Whether a group keeps something at a slot: then the slot must stay its prefix's.
    pub fn holds(&self, slot: u32) -> bool {
        self.groups.iter().flatten().any(|group| group.stream.table.get(slot).is_some())
    }

    /// A slot that may be held no more.
    pub fn poll_released(&mut self) -> Option<u32> {
        self.released.pop()
    }

    fn collect_released(&mut self) {
        for group in self.groups.iter_mut().flatten() {
            self.released.append(&mut group.stream.table.released);
        }
    }

    /// Whether a group may still have to rewrite a path of this peer.
    pub fn names(&self, peer: PeerId) -> bool {
        self.groups.iter().flatten().any(|group| group.names(peer))
    }

    fn find_or_make(&mut self, key: GroupKey) -> usize {
        let found = self.groups.iter().position(|group| group.as_ref().is_some_and(|g| g.key == key));
        if let Some(index) = found {
            return index;
        }
        self.next_serial += 1;
        let group = Group::new(key, self.next_serial, self.limits);
        match self.groups.iter().position(Option::is_none) {
            Some(index) => {
                self.groups[index] = Some(group);
                index
            }
            None => {
                self.groups.push(Some(group));
                self.groups.len() - 1
            }
        }
    }

    /// The best path of a prefix changed.
    pub fn route_changed(&mut self, slot: u32, prefix: P, best: Option<&BestPath>, shared: &mut Shared) {
        for group in self.groups.iter_mut().flatten() {
            group.route_changed(slot, prefix, best, shared);
        }
        self.collect_released();
    }

    /// Prefixes without a best path have one now, all of one attribute set.
    pub fn routes_added(&mut self, slots: &[u32], best: &BestPath, keys: &Keys<P>, shared: &mut Shared) {
        for group in self.groups.iter_mut().flatten() {
            group.routes_added(slots, best, keys, shared);
        }
        self.collect_released();
    }

    pub fn refresh(&mut self, peer: PeerId, enhanced: bool, shared: &mut Shared) {
        if let Some(group) = self.group_mut(peer) {
            group.refresh(peer, enhanced, shared);
        }
    }

    pub fn pull(
        &mut self,
        peer: PeerId,
        budget: usize,
        out: &mut Vec<Bytes>,
        tables: Tables<'_, P>,
        shared: &mut Shared,
    ) -> PullState {
        if self.held {
            return PullState::Drained;
        }
        let Some(index) = self.group_of.get(&peer).copied() else { return PullState::Drained };
        let Some(former) = self.former(peer) else {
            let group = self.groups[index].as_mut();
            let state = group.map(|group| group.pull(peer, budget, out, tables, None, shared));
            self.collect_released();
            return state.unwrap_or(PullState::Drained);
        };
        let state = match self.groups.get_disjoint_mut([index, former]) {
            Ok([Some(group), Some(old)]) => group.pull(peer, budget, out, tables, Some(old), shared),
            _ => PullState::Drained,
        };
        if self.former(peer).is_none() {
            self.forget_in(former, peer);
        }
        self.collect_released();
        state
    }

    /// Whether the member was told of anything yet.
    fn is_served(&self, group: &Group<P>, peer: PeerId) -> bool {
        let fresh = Phase::Start(Since::NOTHING_KNOWN);
        !self.held && group.readers.get(&peer).is_some_and(|reader| reader.phase != fresh)
    }

    pub fn advertised(
        &self,
        peer: PeerId,
        keys: &Keys<P>,
        sources: &Sources,
        position: usize,
        limit: usize,
        row: &mut dyn FnMut(Prefix, PathAttributes),
    ) -> Option<usize> {
        let group = self.group(peer).filter(|group| self.is_served(group, peer))?;
        let slots = group.stream.table.end() as usize;
        let end = slots.min(position.saturating_add(limit));
        for slot in (position..end).map(|slot| slot as u32) {
            if let Some(sent) = sent_to(group, peer, slot, sources) {
                row(keys.key(slot).into(), sent);
            }
        }
        (end < slots).then_some(end)
    }

    pub fn advertised_path(&self, peer: PeerId, slot: u32, sources: &Sources) -> Option<PathAttributes> {
        let group = self.group(peer).filter(|group| self.is_served(group, peer))?;
        sent_to(group, peer, slot, sources)
    }

    pub fn advertised_count(&self, peer: PeerId) -> u64 {
        let group = self.group(peer).filter(|group| self.is_served(group, peer));
        group.map_or(0, |group| group.stream.table.live() - group.stream.table.live_from(peer))
    }

    pub fn sent(&self, peer: PeerId) -> SentCounts {
        let reader = self.group(peer).and_then(|group| group.readers.get(&peer));
        reader.map(|reader| reader.sent).unwrap_or_default()
    }
}

/// What a member is sent at a slot.
fn sent_to<P: PrefixKey>(
    group: &Group<P>,
    peer: PeerId,
    slot: u32,
    sources: &Sources,
) -> Option<PathAttributes> {
    let entry = group.stream.table.get(slot)?;
    let attrs = entry.attrs().filter(|_| entry.origin() != Some(peer))?;
    Sender { key: &group.key, sources }.sent(attrs, entry.origin())
}
