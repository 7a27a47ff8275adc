//! A map from prefix to value with dense numbers: a slab in chunks, found through a hash index.
//!
//! Owner: each table that keeps prefixes. Pure. Iteration goes by slot number and so by first appearance (freed slots
//! are used again, the last freed first): it does not depend on the hash seed. Nothing is ever moved: growth costs one
//! chunk and a re-hash of numbers.

use std::hash::{BuildHasher, Hash};

use foldhash::fast::RandomState;
use hashbrown::HashTable;

/// Slots of one chunk.
const CHUNK: usize = 4096;

struct Slot<K, V> {
    key: K,
    /// `None` while the slot is free.
    value: Option<V>,
}

/// The map.
pub(crate) struct Slots<K, V> {
    index: HashTable<u32>,
    hasher: RandomState,
    chunks: Vec<Vec<Slot<K, V>>>,
    free: Vec<u32>,
    /// One past the highest slot ever used.
    end: u32,
}

impl<K: Copy + Eq + Hash, V> Slots<K, V> {
    pub(crate) fn new() -> Self {
        Slots {
            index: HashTable::new(),
            hasher: RandomState::default(),
            chunks: Vec::new(),
            free: Vec::new(),
            end: 0,
        }
    }

    fn slot(&self, id: u32) -> &Slot<K, V> {
        &self.chunks[id as usize / CHUNK][id as usize % CHUNK]
    }

    fn slot_mut(&mut self, id: u32) -> &mut Slot<K, V> {
        &mut self.chunks[id as usize / CHUNK][id as usize % CHUNK]
    }

    /// How many keys there are.
    pub(crate) fn len(&self) -> usize {
        self.index.len()
    }

    /// One past the highest slot number in use.
    pub(crate) fn end(&self) -> u32 {
        self.end
    }

    /// The slot of a key.
    pub(crate) fn find(&self, key: &K) -> Option<u32> {
        let hash = self.hasher.hash_one(key);
        self.index.find(hash, |id| self.slot(*id).key == *key).copied()
    }

    /// The slot of a key, made with `value` if there was none.
    pub(crate) fn find_or_insert_with(&mut self, key: K, value: impl FnOnce() -> V) -> u32 {
        let hash = self.hasher.hash_one(key);
        let chunks = &self.chunks;
        let at = |id: &u32| &chunks[*id as usize / CHUNK][*id as usize % CHUNK];
        if let Some(found) = self.index.find(hash, |id| at(id).key == key) {
            return *found;
        }
        let id = self.free.pop().unwrap_or(self.end);
        let hasher = &self.hasher;
        self.index.insert_unique(hash, id, |id| hasher.hash_one(at(id).key));
        let slot = Slot { key, value: Some(value()) };
        if id == self.end {
            self.end += 1;
            if id as usize / CHUNK == self.chunks.len() {
                // The first chunk grows with its content, so that small tables stay small.
                let capacity = if self.chunks.is_empty() { 0 } else { CHUNK };
                self.chunks.push(Vec::with_capacity(capacity));
            }
            self.chunks[id as usize / CHUNK].push(slot);
        } else {
            *self.slot_mut(id) = slot;
        }
        id
    }

    /// Frees a slot.
    pub(crate) fn remove(&mut self, id: u32) {
        let hash = self.hasher.hash_one(self.slot(id).key);
        if let Ok(entry) = self.index.find_entry(hash, |other| *other == id) {
            entry.remove();
            self.slot_mut(id).value = None;
            self.free.push(id);
        }
        if self.index.is_empty() {
            *self = Slots { hasher: self.hasher.clone(), ..Slots::new() };
        }
    }

    /// Key and value of a slot, unless it is free.
    pub(crate) fn get(&self, id: u32) -> Option<(K, &V)> {
        if id >= self.end {
            return None;
        }
        let slot = self.slot(id);
        slot.value.as_ref().map(|value| (slot.key, value))
    }

    /// The same to change the value.
    pub(crate) fn get_mut(&mut self, id: u32) -> Option<(K, &mut V)> {
        if id >= self.end {
            return None;
        }
        let slot = self.slot_mut(id);
        slot.value.as_mut().map(|value| (slot.key, value))
    }

    /// Everything, in slot order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, K, &V)> {
        (0..self.end).filter_map(|id| self.get(id).map(|(key, value)| (id, key, value)))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

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
        fn agrees_with_a_plain_map(steps in proptest::collection::vec((any::<bool>(), 0u8..40, any::<u8>()), 0..200)) {
            let mut slots: Slots<u8, u8> = Slots::new();
            let mut plain = BTreeMap::new();
            for (insert, key, value) in steps {
                if insert {
                    let id = slots.find_or_insert_with(key, || value);
                    if let Some((_, slot)) = slots.get_mut(id) {
                        *slot = value;
                    }
                    plain.insert(key, value);
                } else if let Some(id) = slots.find(&key) {
                    slots.remove(id);
                    plain.remove(&key);
                }
                prop_assert_eq!(slots.len(), plain.len());
                let mut all: Vec<(u8, u8)> = slots.iter().map(|(_, key, value)| (key, *value)).collect();
                all.sort_unstable();
                prop_assert_eq!(all, plain.iter().map(|(k, v)| (*k, *v)).collect::<Vec<_>>());
            }
        }
    }
}
