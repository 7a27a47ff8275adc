//! Which route key has which slot: dense numbers for prefixes, so that everything known about one is a few columns. Pure.
//!
//! A key is packed into 20 bytes: the address, the length, and a *band* for what is the same for nearly all routes
//! (metric, type of service). Freed slots are used again. Only keys of the main table have slots.

use std::hash::BuildHasher;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use causeway_kernel::route::MAIN_TABLE;
use causeway_kernel::{Family, RouteKey};
use foldhash::fast::RandomState;
use hashbrown::HashTable;
use ipnetwork::IpNetwork;

/// The number of a key.
pub type Slot = u32;

/// Neighbouring prefixes that are looked for in one place of the index: a table is full of them.
const NEIGHBOURS_BITS: u32 = 4;

/// What keys share: type of service and metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Band {
    tos: u8,
    metric: u32,
}

/// A packed key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Packed {
    /// The address; an IPv4 one in the first word.
    words: [u32; 4],
    length: u8,
    ipv6: bool,
    band: u16,
}

/// The keys.
#[derive(Debug, Default)]
pub struct Slots {
    index: HashTable<Slot>,
    hasher: RandomState,
    keys: Vec<Packed>,
    free: Vec<Slot>,
    bands: Vec<Band>,
    /// How many keys there are of each length, by family.
    lengths: [Vec<u32>; 2],
}

impl Slots {
    /// The slot of a key.
    pub fn find(&self, key: &RouteKey) -> Option<Slot> {
        let band = self.band(key)?;
        let packed = pack(&key.destination, band);
        let hash = hash(&self.hasher, &packed);
        self.index.find(hash, |slot| self.keys[*slot as usize] == packed).copied()
    }

    /// The slot of a key, which it gets if it has none. `None`: there are too many bands.
    pub fn find_or_insert(&mut self, key: &RouteKey) -> Option<Slot> {
        let band = match self.band(key) {
            Some(band) => band,
            None => {
                let band = u16::try_from(self.bands.len()).ok()?;
                self.bands.push(Band { tos: key.tos, metric: key.metric });
                band
            }
        };
        let packed = pack(&key.destination, band);
        let hash = hash(&self.hasher, &packed);
        if let Some(slot) = self.index.find(hash, |slot| self.keys[*slot as usize] == packed) {
            return Some(*slot);
        }
        let slot = match self.free.pop() {
            Some(slot) => {
                self.keys[slot as usize] = packed;
                slot
            }
            None => {
                let slot = Slot::try_from(self.keys.len()).ok()?;
                self.keys.push(packed);
                slot
            }
        };
        let keys = &self.keys;
        let hasher = &self.hasher;
        self.index.insert_unique(hash, slot, |slot| self::hash(hasher, &keys[*slot as usize]));
        let lengths = &mut self.lengths[usize::from(packed.ipv6)];
        let length = usize::from(packed.length);
        if lengths.len() <= length {
            lengths.resize(length + 1, 0);
        }
        lengths[length] += 1;
        Some(slot)
    }

    /// Frees a slot that is in use.
    pub fn remove(&mut self, slot: Slot) {
        let packed = self.keys[slot as usize];
        let hash = hash(&self.hasher, &packed);
        if let Ok(entry) = self.index.find_entry(hash, |other| *other == slot) {
            entry.remove();
            self.free.push(slot);
            self.lengths[usize::from(packed.ipv6)][usize::from(packed.length)] -= 1;
        }
    }

    /// The key that has a slot, or had it last.
    pub fn key(&self, slot: Slot) -> RouteKey {
        let packed = &self.keys[slot as usize];
        let Band { tos, metric } = self.bands[usize::from(packed.band)];
        RouteKey { table: MAIN_TABLE, destination: packed.prefix(), tos, metric }
    }

    /// The prefix that has a slot, or had it last.
    pub fn prefix(&self, slot: Slot) -> IpNetwork {
        self.keys[slot as usize].prefix()
    }

    /// The family of what has a slot, or had it last.
    pub fn family(&self, slot: Slot) -> Family {
        if self.keys[slot as usize].ipv6 { Family::Ipv6 } else { Family::Ipv4 }
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// One past the highest slot ever used: the length of every column.
    pub fn end(&self) -> Slot {
        self.keys.len() as Slot
    }

    /// The prefix lengths that occur in a family, longest first.
    pub fn lengths(&self, family: Family) -> impl Iterator<Item = u8> {
        let lengths = &self.lengths[usize::from(family == Family::Ipv6)];
        lengths.iter().enumerate().rev().filter(|(_, count)| **count > 0).map(|(length, _)| length as u8)
    }

    fn band(&self, key: &RouteKey) -> Option<u16> {
        let band = Band { tos: key.tos, metric: key.metric };
        self.bands.iter().position(|other| *other == band).map(|at| at as u16)
    }
}

impl Packed {
    fn prefix(&self) -> IpNetwork {
        let address = if self.ipv6 {
            let [a, b, c, d] = self.words.map(u128::from);
            IpAddr::V6(Ipv6Addr::from_bits(a << 96 | b << 64 | c << 32 | d))
        } else {
            IpAddr::V4(Ipv4Addr::from_bits(self.words[0]))
        };
        // The length came out of a network of that family.
        IpNetwork::new(address, self.length).unwrap_or_else(|_| IpNetwork::from(address))
    }
}

fn pack(destination: &IpNetwork, band: u16) -> Packed {
    match destination {
        IpNetwork::V4(network) => Packed {
            words: [network.network().to_bits(), 0, 0, 0],
            length: network.prefix(),
            ipv6: false,
            band,
        },
        IpNetwork::V6(network) => {
            let bits = network.network().to_bits();
            let words = [96, 64, 32, 0].map(|shift| (bits >> shift) as u32);
            Packed { words, length: network.prefix(), ipv6: true, band }
        }
    }
}

/// Hashes so that neighbours lie side by side: the table takes the place from the lower bits and tells keys in one
/// place apart by the highest ones.
fn hash(hasher: &RandomState, key: &Packed) -> u64 {
    const APART: u64 = 0xff << 56;
    const MIX: u64 = 0x9e37_79b9_7f4a_7c15;
    let rest = u64::from(key.length) | u64::from(key.ipv6) << 8 | u64::from(key.band) << 16;
    let number = if key.ipv6 {
        let [a, b, c, d] = key.words.map(u128::from);
        (a << 96 | b << 64 | c << 32 | d).checked_shr(128 - u32::from(key.length)).unwrap_or(0)
    } else {
        u128::from(key.words[0].checked_shr(32 - u32::from(key.length)).unwrap_or(0))
    };
    let (near, which) = (number >> NEIGHBOURS_BITS, number as u64 & ((1 << NEIGHBOURS_BITS) - 1));
    let near = match key.ipv6 {
        false => hasher.hash_one(near as u64 | rest << 32),
        true => hasher.hash_one((near as u64, (near >> 64) as u64, rest)),
    };
    let apart = (near ^ which.wrapping_mul(MIX)) & APART;
    (near.wrapping_add(which) & !APART) | apart
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn key(text: &str, metric: u32, tos: u8) -> RouteKey {
        RouteKey { table: MAIN_TABLE, destination: text.parse().unwrap(), tos, metric }
    }

    #[test]
    fn what_makes_a_key_another_gives_another_slot() {
        let mut slots = Slots::default();
        let keys = [
            key("10.0.0.0/8", 1790, 0),
            key("10.0.0.0/9", 1790, 0),
            key("10.0.0.0/8", 99, 0),
            key("10.0.0.0/8", 1790, 4),
            key("a00::/8", 1790, 0),
            key("0.0.0.0/0", 1790, 0),
            key("::/0", 1790, 0),
            key("::1/128", 1790, 0),
        ];
        for (n, key) in keys.iter().enumerate() {
            assert_eq!(slots.find(key), None);
            assert_eq!(slots.find_or_insert(key), Some(n as Slot));
        }
        for (n, key) in keys.iter().enumerate() {
            assert_eq!(slots.find_or_insert(key), Some(n as Slot));
            assert_eq!(slots.key(n as Slot), *key);
        }
        assert_eq!(slots.lengths(Family::Ipv4).collect::<Vec<_>>(), [9, 8, 0]);
        assert_eq!(slots.lengths(Family::Ipv6).collect::<Vec<_>>(), [128, 8, 0]);
        slots.remove(1);
        assert_eq!(slots.find(&keys[1]), None);
        assert_eq!(slots.lengths(Family::Ipv4).collect::<Vec<_>>(), [8, 0]);
        assert_eq!(slots.find_or_insert(&key("10.0.0.0/10", 1790, 0)), Some(1), "a freed slot is used again");
        assert_eq!((slots.len(), slots.end()), (8, 8));
    }

    proptest! {
        #[test]
        fn it_is_a_map(steps in prop::collection::vec((any::<bool>(), 0u32..200, 20u8..=32), 0..300)) {
            let mut slots = Slots::default();
            let mut naive: BTreeMap<RouteKey, Slot> = BTreeMap::new();
            for (insert, number, length) in steps {
                let address = IpAddr::V4(Ipv4Addr::from_bits(10 << 24 | number << 6));
                let network = IpNetwork::new(address, length).unwrap();
                let network = IpNetwork::new(network.network(), length).unwrap();
                let key = RouteKey::ours(network);
                prop_assert_eq!(slots.find(&key), naive.get(&key).copied());
                if insert {
                    let slot = slots.find_or_insert(&key).unwrap();
                    prop_assert!(naive.iter().all(|(other, taken)| *other == key || *taken != slot));
                    naive.insert(key, slot);
                } else if let Some(slot) = naive.remove(&key) {
                    slots.remove(slot);
                }
                prop_assert_eq!(slots.len(), naive.len());
            }
        }
    }
}
