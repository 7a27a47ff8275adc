//! The Adj-RIB-Out of one update group and family: prefix → attributes as sent and the session they came from.
//!
//! Owner: the group. Pure. A slab of entries with a hash index, so that walks have a stable, deterministic order and
//! can stop and go on at any slot. RFC 4271 §3.2.

use std::hash::BuildHasher;

use causeway_bgp_wire::PrefixKey;
use foldhash::fast::RandomState;
use hashbrown::{HashMap, HashTable};

use crate::attrs::AttrSet;
use crate::event::PeerId;

/// From whom the path of an entry is; such a member is not sent it.
pub(super) type Origin = Option<PeerId>;

/// What a prefix looks like to the members: nothing, or attributes and their origin.
#[derive(Clone, Debug)]
pub(super) struct State {
    /// Attributes as sent; `None`: not advertised.
    pub attrs: Option<AttrSet>,
    /// Where they are from; with no attributes, where the last ones were from.
    pub origin: Origin,
}

impl State {
    /// Whether the members see the same in both: two withdrawn ones are the same whatever they were.
    pub fn same(&self, other: &State) -> bool {
        match (&self.attrs, &other.attrs) {
            (None, None) => true,
            (Some(a), Some(b)) => self.origin == other.origin && same_attributes(a, b),
            _ => false,
        }
    }

    /// Whether the member has been told of attributes in this state.
    pub fn reached(&self, member: PeerId) -> bool {
        self.attrs.is_some() && self.origin != Some(member)
    }
}

/// Equal attributes, also where they are interned in two places.
pub(super) fn same_attributes(a: &AttrSet, b: &AttrSet) -> bool {
    a == b || **a == **b
}

/// When an entry's present state went into the journal. Grows; see `Group::mark`.
pub(super) type Epoch = u32;

/// Where an entry stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stand {
    /// Members have been told, or will be by what is in the journal, since this epoch.
    Told(Epoch),
    /// Members are still to be told: number of the record in the pending queue.
    Pending(u32),
}

/// One prefix.
#[derive(Debug)]
pub(super) struct Entry<P> {
    pub prefix: P,
    origin: u32,
    stand: u32,
    attrs: Option<AttrSet>,
}

/// The origin of this speaker's own paths.
const LOCAL: u32 = u32::MAX;
/// Set in `stand` where the rest of it is a record of the pending queue.
const PENDING: u32 = 1 << 31;
/// `stand` of a slot that is free.
const FREE: u32 = u32::MAX;
/// The last epoch there is.
pub(super) const LAST_EPOCH: Epoch = PENDING - 1;

impl<P> Entry<P> {
    /// What members are to see.
    pub fn state(&self) -> State {
        State { attrs: self.attrs.clone(), origin: self.origin() }
    }

    pub fn origin(&self) -> Origin {
        (self.origin != LOCAL).then_some(PeerId(self.origin))
    }

    pub fn attrs(&self) -> Option<&AttrSet> {
        self.attrs.as_ref()
    }

    pub fn stand(&self) -> Stand {
        if self.stand & PENDING == 0 {
            Stand::Told(self.stand)
        } else {
            Stand::Pending(self.stand & !PENDING)
        }
    }

    pub fn set_stand(&mut self, stand: Stand) {
        self.stand = match stand {
            Stand::Told(epoch) => epoch,
            Stand::Pending(record) => record | PENDING,
        };
    }
}

/// All entries of a group and family.
pub(super) struct AdjRibOut<P> {
    slots: Vec<Entry<P>>,
    free: Vec<u32>,
    index: HashTable<u32>,
    hasher: RandomState,
    live: u64,
    by_origin: HashMap<u32, u64, RandomState>,
}

impl<P: PrefixKey> AdjRibOut<P> {
    pub fn new() -> Self {
        AdjRibOut {
            slots: Vec::new(),
            free: Vec::new(),
            index: HashTable::new(),
            hasher: RandomState::default(),
            live: 0,
            by_origin: HashMap::default(),
        }
    }

    /// How many slots there are: walks end here.
    pub fn slots(&self) -> u32 {
        self.slots.len() as u32
    }

    /// The entry in a slot, unless it is free.
    pub fn get(&self, slot: u32) -> Option<&Entry<P>> {
        self.slots.get(slot as usize).filter(|entry| entry.stand != FREE)
    }

    /// The entry of a slot that is known to be in use.
    pub fn entry(&mut self, slot: u32) -> &mut Entry<P> {
        &mut self.slots[slot as usize]
    }

    pub fn find(&self, prefix: &P) -> Option<u32> {
        let hash = self.hasher.hash_one(prefix);
        self.index.find(hash, |slot| self.slots[*slot as usize].prefix == *prefix).copied()
    }

    /// A new entry, not advertised so far.
    pub fn insert(&mut self, prefix: P) -> u32 {
        let entry = Entry { prefix, origin: LOCAL, stand: 0, attrs: None };
        let slot = match self.free.pop() {
            Some(slot) => {
                self.slots[slot as usize] = entry;
                slot
            }
            None => {
                self.slots.push(entry);
                (self.slots.len() - 1) as u32
            }
        };
        let (slots, hasher) = (&self.slots, &self.hasher);
        self.index.insert_unique(hasher.hash_one(prefix), slot, |slot| {
            hasher.hash_one(slots[*slot as usize].prefix)
        });
        slot
    }

    /// Changes what members are to see. Withdrawing keeps the origin.
    pub fn set(&mut self, slot: u32, state: State) {
        let entry = &mut self.slots[slot as usize];
        let origin = state.origin.map_or(LOCAL, |peer| peer.0);
        let (was, is) = (entry.attrs.is_some(), state.attrs.is_some());
        if was && (!is || entry.origin != origin) {
            self.live -= 1;
            if let Some(count) = self.by_origin.get_mut(&entry.origin) {
                *count -= 1;
                if *count == 0 {
                    self.by_origin.remove(&entry.origin);
                }
            }
        }
        if is && (!was || entry.origin != origin) {
            self.live += 1;
            *self.by_origin.entry(origin).or_default() += 1;
        }
        entry.attrs = state.attrs;
        entry.origin = origin;
    }

    /// Frees the slot of an entry that is not advertised.
    pub fn remove(&mut self, slot: u32) {
        let prefix = self.slots[slot as usize].prefix;
        let hash = self.hasher.hash_one(prefix);
        if let Ok(found) = self.index.find_entry(hash, |s| *s == slot) {
            found.remove();
            let entry = &mut self.slots[slot as usize];
            entry.stand = FREE;
            entry.attrs = None;
            self.free.push(slot);
        }
    }

    /// How many prefixes are advertised.
    pub fn live(&self) -> u64 {
        self.live
    }

    /// How many of them are from this member.
    pub fn live_from(&self, member: PeerId) -> u64 {
        self.by_origin.get(&member.0).copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use causeway_bgp_wire::Ipv4Prefix;

    use super::*;
    use crate::attrs::Interner;
    use crate::export::testing::attributes;

    fn prefix(number: u32) -> Ipv4Prefix {
        Ipv4Prefix::from_bits(number << 8, 24).unwrap()
    }

    #[test]
    fn an_entry_is_small() {
        assert_eq!(size_of::<Entry<Ipv4Prefix>>(), 24);
        assert_eq!(size_of::<Entry<causeway_bgp_wire::Ipv6Prefix>>(), 40);
    }

    #[test]
    fn counts_follow_states_and_slots_are_used_again() {
        let mut interner = Interner::new();
        let attrs = Some(interner.intern(attributes(1)));
        let mut table = AdjRibOut::new();
        let slot = table.insert(prefix(1));
        table.set(slot, State { attrs: attrs.clone(), origin: Some(PeerId(7)) });
        assert_eq!((table.live(), table.live_from(PeerId(7))), (1, 1));
        table.set(slot, State { attrs: attrs.clone(), origin: None });
        assert_eq!((table.live(), table.live_from(PeerId(7))), (1, 0));
        table.set(slot, State { attrs: None, origin: None });
        assert_eq!(table.live(), 0);
        assert_eq!(table.find(&prefix(1)), Some(slot));
        table.remove(slot);
        assert_eq!((table.find(&prefix(1)), table.get(slot).is_none()), (None, true));
        assert_eq!(table.insert(prefix(2)), slot);
        assert_eq!(table.slots(), 1);
    }

    #[test]
    fn equal_attributes_of_two_interners_are_the_same_state() {
        let (one, two) = (Interner::new().intern(attributes(1)), Interner::new().intern(attributes(1)));
        let state = |attrs, origin| State { attrs: Some(attrs), origin };
        assert!(state(one.clone(), None).same(&state(two, None)));
        assert!(!state(one.clone(), None).same(&state(one, Some(PeerId(1)))));
        let gone = |origin| State { attrs: None, origin };
        assert!(gone(None).same(&gone(Some(PeerId(1)))));
    }
}
