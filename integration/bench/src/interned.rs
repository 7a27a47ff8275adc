//! Path attributes as they arrive: each distinct encoding is stored once and has a number from 1 on. Pure.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use crate::wire;

/// Hashes words of eight octets at a time; no adversary sends to this tool.
#[derive(Default)]
pub struct WordHasher(u64);

impl Hasher for WordHasher {
    fn finish(&self) -> u64 {
        self.0 ^ (self.0 >> 29)
    }

    fn write(&mut self, octets: &[u8]) {
        let (words, rest) = octets.as_chunks::<8>();
        words.iter().for_each(|word| self.write_u64(u64::from_le_bytes(*word)));
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        self.write_u64(u64::from_le_bytes(last));
    }

    fn write_u64(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(5) ^ word).wrapping_mul(0x517c_c1b7_2722_0a95);
    }

    fn write_usize(&mut self, word: usize) {
        self.write_u64(word as u64);
    }
}

/// All encodings of path attributes that arrived.
#[derive(Default)]
pub struct Interned {
    numbers: HashMap<Box<[u8]>, u32, BuildHasherDefault<WordHasher>>,
    tags: Vec<u32>,
}

impl Interned {
    /// Number and tag of these attributes. Tag 0: there is no AS_PATH to take one from.
    #[inline]
    pub fn intern(&mut self, octets: &[u8]) -> (u32, u32) {
        if let Some(number) = self.numbers.get(octets) {
            return (*number, self.tags[*number as usize - 1]);
        }
        let tag = wire::last_asn(octets).unwrap_or(0);
        self.tags.push(tag);
        let number = self.tags.len() as u32;
        self.numbers.insert(octets.into(), number);
        (number, tag)
    }

    /// The tag of the attributes with this number; 0 for the number 0.
    #[must_use]
    pub fn tag(&self, number: u32) -> u32 {
        (number as usize).checked_sub(1).and_then(|at| self.tags.get(at)).copied().unwrap_or(0)
    }

    /// All encodings by number, the first being number 1.
    #[must_use]
    pub fn encodings(&self) -> Vec<&[u8]> {
        let mut all: Vec<&[u8]> = vec![&[]; self.tags.len()];
        for (octets, number) in &self.numbers {
            all[*number as usize - 1] = octets;
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_attributes_have_one_number() {
        let mut all = Interned::default();
        let one = [0x40, 2, 6, 2, 1, 0, 0, 0, 9];
        let two = [0x40, 2, 6, 2, 1, 0, 0, 0, 8];
        assert_eq!(all.intern(&one), (1, 9));
        assert_eq!(all.intern(&two), (2, 8));
        assert_eq!(all.intern(&one), (1, 9));
        assert_eq!(all.intern(&[]), (3, 0));
        assert_eq!((all.tag(0), all.tag(1), all.tag(2)), (0, 9, 8));
        assert_eq!(all.encodings(), [&one[..], &two[..], &[]]);
    }
}
