//! A map from prefix to value with dense numbers: a slab in chunks, found through a hash index.
//!
//! Owner: each table that keeps prefixes. Pure. Iteration goes by slot number and so by first appearance (freed slots
//! are used again, the last freed first): it does not depend on the hash seed. Nothing is ever moved: growth costs one
//! chunk and a re-hash of numbers.

use std::hash::BuildHasher;

use causeway_bgp_wire::{Ipv4Prefix, Ipv6Prefix, Prefix, PrefixKey};
use foldhash::fast::RandomState;
use hashbrown::HashTable;

/// Slots of one chunk.
const CHUNK: usize = 4096;

/// So many neighbours of one length are looked for in one place of the index: tables are full of them, and they come in a
/// row.
const NEIGHBOURS_BITS: u32 = 4;

/// What a key is hashed by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// What neighbours have in common.
    near: (u64, u64),
    /// Which of them it is.
    which: u64,
}

impl Place {
    /// The `number`th prefix of a length.
    fn new(number: u128, len: u8) -> Self {
        let near = number >> NEIGHBOURS_BITS;
        // A length takes the place of bits that are shifted out, so it takes nothing from the number.
        let high = ((near >> 64) as u64) | u64::from(len) << (64 - 8);
        Place { near: (near as u64, high), which: number as u64 & ((1 << NEIGHBOURS_BITS) - 1) }
    }
}

/// What has a slot.
pub(crate) trait SlotKey: Copy + Eq {
    fn place(&self) -> Place;
}

impl SlotKey for Ipv4Prefix {
    fn place(&self) -> Place {
        let len = self.prefix_len();
        let number = u64::from(self.bits().checked_shr(32 - u32::from(len)).unwrap_or(0));
        let which = number & ((1 << NEIGHBOURS_BITS) - 1);
        Place { near: (number >> NEIGHBOURS_BITS | u64::from(len) << 40, 0), which }
    }
}

impl SlotKey for Ipv6Prefix {
    fn place(&self) -> Place {
        let len = self.prefix_len();
        Place::new(self.bits().checked_shr(128 - u32::from(len)).unwrap_or(0), len)
    }
}

impl SlotKey for Prefix {
    fn place(&self) -> Place {
        match self {
            Prefix::V4(prefix) => prefix.place(),
            Prefix::V6(prefix) => prefix.place(),
        }
    }
}

/// Hashes so that neighbours lie side by side. The hash table takes the place from the lower bits and tells keys in
/// one place apart by the highest ones.
fn hash(hasher: &RandomState, key: &impl SlotKey) -> u64 {
    const APART: u64 = 0xff << 56;
    let Place { near, which } = key.place();
    let near = if near.1 == 0 { hasher.hash_one(near.0) } else { hasher.hash_one(near) };
    let apart = (near ^ which.wrapping_mul(0x9e37_79b9_7f4a_7c15)) & APART;
    (near.wrapping_add(which) & !APART) | apart
}

/// Which key has which slot.
pub(crate) struct Keys<K> {
    index: HashTable<u32>,
    hasher: RandomState,
    chunks: Vec<Vec<K>>,
    free: Vec<u32>,
    /// One past the highest slot ever used.
    end: u32,
}

impl<K: Copy> Keys<K> {
    pub(crate) fn new() -> Self {
        Keys {
            index: HashTable::new(),
            hasher: RandomState::default(),
            chunks: Vec::new(),
            free: Vec::new(),
            end: 0,
        }
    }

    /// The key that has a slot, or that had it last.
    pub(crate) fn key(&self, slot: u32) -> K {
        self.chunks[slot as usize / CHUNK][slot as usize % CHUNK]
    }

    /// How many keys there are.
    pub(crate) fn len(&self) -> usize {
        self.index.len()
    }

    /// One past the highest slot number in use.
    pub(crate) fn end(&self) -> u32 {
        self.end
    }
}

impl<K: SlotKey> Keys<K> {
    /// The slot of a key.
    pub(crate) fn find(&self, key: &K) -> Option<u32> {
        let hash = hash(&self.hasher, key);
        self.index.find(hash, |slot| self.key(*slot) == *key).copied()
    }

    /// The slot of a key, and whether it is new.
    pub(crate) fn find_or_insert(&mut self, key: K) -> (u32, bool) {
        let hashed = hash(&self.hasher, &key);
        let (chunks, hasher) = (&self.chunks, &self.hasher);
        let at = |slot: &u32| chunks[*slot as usize / CHUNK][*slot as usize % CHUNK];
        let vacant = match self.index.entry(hashed, |slot| at(slot) == key, |slot| hash(hasher, &at(slot))) {
            hashbrown::hash_table::Entry::Occupied(found) => return (*found.get(), false),
            hashbrown::hash_table::Entry::Vacant(vacant) => vacant,
        };
        let slot = self.free.pop().unwrap_or(self.end);
        vacant.insert(slot);
        if slot == self.end {
            self.end += 1;
            push_chunked(&mut self.chunks, slot, key);
        } else {
            self.chunks[slot as usize / CHUNK][slot as usize % CHUNK] = key;
        }
        (slot, true)
    }

    /// Frees a slot.
    pub(crate) fn remove(&mut self, slot: u32) {
        let hash = hash(&self.hasher, &self.key(slot));
        if let Ok(entry) = self.index.find_entry(hash, |other| *other == slot) {
            entry.remove();
            self.free.push(slot);
        }
        if self.index.is_empty() {
            *self = Keys { hasher: self.hasher.clone(), ..Keys::new() };
        }
    }
}

/// Puts the value of the next slot at the end. The first chunk grows with its content, so that small tables stay small.
fn push_chunked<T>(chunks: &mut Vec<Vec<T>>, slot: u32, value: T) {
    let chunk = slot as usize / CHUNK;
    if chunk == chunks.len() {
        chunks.push(Vec::with_capacity(if chunk == 0 { 0 } else { CHUNK }));
    }
    chunks[chunk].push(value);
}

/// The map.
pub(crate) struct Slots<K, V> {
    keys: Keys<K>,
    /// `None` while the slot is free.
    values: Vec<Vec<Option<V>>>,
}

impl<K: SlotKey, V> Slots<K, V> {
    pub(crate) fn new() -> Self {
        Slots { keys: Keys::new(), values: Vec::new() }
    }

    /// Which key has which slot.
    pub(crate) fn keys(&self) -> &Keys<K> {
        &self.keys
    }

    /// How many keys there are.
    pub(crate) fn len(&self) -> usize {
        self.keys.len()
    }

    /// One past the highest slot number in use.
    pub(crate) fn end(&self) -> u32 {
        self.keys.end()
    }

    /// The slot of a key.
    pub(crate) fn find(&self, key: &K) -> Option<u32> {
        self.keys.find(key)
    }

    /// The slot of a key, made with `value` if there was none.
    pub(crate) fn find_or_insert_with(&mut self, key: K, value: impl FnOnce() -> V) -> u32 {
        let (slot, new) = self.keys.find_or_insert(key);
        if new {
            let value = Some(value());
            match self.values.get_mut(slot as usize / CHUNK).and_then(|c| c.get_mut(slot as usize % CHUNK)) {
                Some(place) => *place = value,
                None => push_chunked(&mut self.values, slot, value),
            }
        }
        slot
    }

    /// Frees a slot.
    pub(crate) fn remove(&mut self, slot: u32) {
        if let Some(value) =
            self.values.get_mut(slot as usize / CHUNK).and_then(|c| c.get_mut(slot as usize % CHUNK))
            && value.take().is_some()
        {
            self.keys.remove(slot);
            if self.keys.len() == 0 {
                self.values = Vec::new();
            }
        }
    }

    /// Key and value of a slot, unless it is free.
    pub(crate) fn get(&self, slot: u32) -> Option<(K, &V)> {
        let value = self.values.get(slot as usize / CHUNK)?.get(slot as usize % CHUNK)?.as_ref()?;
        Some((self.keys.key(slot), value))
    }

    /// The value of a slot, to be changed.
    pub(crate) fn get_mut(&mut self, slot: u32) -> Option<&mut V> {
        self.values.get_mut(slot as usize / CHUNK)?.get_mut(slot as usize % CHUNK)?.as_mut()
    }

    /// Everything, in slot order.
    #[cfg(test)]
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, K, &V)> {
        (0..self.end()).filter_map(|slot| self.get(slot).map(|(key, value)| (slot, key, value)))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    impl SlotKey for u32 {
        fn place(&self) -> Place {
            Place::new(u128::from(*self), 0)
        }
    }

    #[test]
    fn neighbours_are_told_apart_and_lie_together() {
        let hasher = RandomState::default();
        let hashes: Vec<u64> = (0..16u32).map(|low| hash(&hasher, &(4096 + low))).collect();
        let mut tags: Vec<u64> = hashes.iter().map(|hash| hash >> 57).collect();
        tags.sort_unstable();
        tags.dedup();
        assert_eq!(tags.len(), 16);
        let place = |hash: u64| hash & 0xffff;
        assert!(hashes.iter().all(|hash| place(hash.wrapping_sub(hashes[0])) < 16));
    }

    proptest! {
        #[test]
        fn unlike_prefixes_have_unlike_places(a: (u128, u8), b: (u128, u8)) {
            let v6 = |(bits, len): (u128, u8)| Ipv6Prefix::from_bits(bits, len % 129).unwrap();
            prop_assert_eq!(v6(a).place() == v6(b).place(), v6(a) == v6(b));
            let v4 = |(bits, len): (u128, u8)| Ipv4Prefix::from_bits(bits as u32, len % 33).unwrap();
            prop_assert_eq!(v4(a).place() == v4(b).place(), v4(a) == v4(b));
            // The other half of the prefix that contains both.
            let beside = Ipv4Prefix::from_bits(v4(a).bits() ^ 1u32.checked_shl(32 - u32::from(v4(a).prefix_len())).unwrap_or(0), v4(a).prefix_len()).unwrap();
            prop_assert_eq!(v4(a).place().near, beside.place().near);
        }
    }

    #[test]
    fn slots_are_used_again_and_order_is_that_of_slots() {
        let mut slots = Slots::new();
        for key in 0..10_000u32 {
            assert_eq!(slots.find_or_insert_with(key, || key * 2), key);
        }
        slots.remove(17);
        slots.remove(5);
        assert_eq!((slots.find(&17), slots.get(17)), (None, None));
        assert_eq!(slots.find_or_insert_with(70_000, || 1), 5);
        assert_eq!(slots.find_or_insert_with(70_000, || 2), 5);
        assert_eq!(slots.iter().nth(5), Some((5, 70_000, &1)));
        assert_eq!(slots.iter().nth(17), Some((18, 18, &36)));
        assert_eq!(slots.len(), 9_999);
    }

    proptest! {
        #[test]
        fn agrees_with_a_plain_map(steps in proptest::collection::vec((any::<bool>(), 0u32..40, any::<u8>()), 0..200)) {
            let mut slots: Slots<u32, u8> = Slots::new();
            let mut plain = BTreeMap::new();
            for (insert, key, value) in steps {
                if insert {
                    let id = slots.find_or_insert_with(key, || value);
                    if let Some(slot) = slots.get_mut(id) {
                        *slot = value;
                    }
                    plain.insert(key, value);
                } else if let Some(id) = slots.find(&key) {
                    slots.remove(id);
                    plain.remove(&key);
                }
                prop_assert_eq!(slots.len(), plain.len());
                let mut all: Vec<(u32, u8)> = slots.iter().map(|(_, key, value)| (key, *value)).collect();
                all.sort_unstable();
                prop_assert_eq!(all, plain.iter().map(|(k, v)| (*k, *v)).collect::<Vec<_>>());
            }
        }
    }
}
