//! A map from peers to whatever is kept of them, in the order of their numbers.
//!
//! Pure. Numbers only grow, so a new peer comes last, and a look-up is a binary search in one piece of memory.

use crate::event::PeerId;

/// The map.
#[derive(Debug)]
pub(crate) struct PeerMap<T> {
    /// In ascending order.
    ids: Vec<PeerId>,
    values: Vec<T>,
}

impl<T> PeerMap<T> {
    pub(crate) fn new() -> Self {
        PeerMap { ids: Vec::new(), values: Vec::new() }
    }

    fn find(&self, id: PeerId) -> Result<usize, usize> {
        self.ids.binary_search(&id)
    }

    pub(crate) fn contains_key(&self, id: &PeerId) -> bool {
        self.find(*id).is_ok()
    }

    pub(crate) fn get(&self, id: &PeerId) -> Option<&T> {
        self.values.get(self.find(*id).ok()?)
    }

    pub(crate) fn get_mut(&mut self, id: &PeerId) -> Option<&mut T> {
        let at = self.find(*id).ok()?;
        self.values.get_mut(at)
    }

    /// Puts a value in, and gives back the one that was there.
    pub(crate) fn insert(&mut self, id: PeerId, value: T) -> Option<T> {
        match self.find(id) {
            Ok(at) => Some(std::mem::replace(&mut self.values[at], value)),
            Err(at) => {
                self.ids.insert(at, id);
                self.values.insert(at, value);
                None
            }
        }
    }

    pub(crate) fn remove(&mut self, id: &PeerId) -> Option<T> {
        let at = self.find(*id).ok()?;
        self.ids.remove(at);
        Some(self.values.remove(at))
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = &PeerId> {
        self.ids.iter()
    }

    pub(crate) fn values(&self) -> impl Iterator<Item = &T> {
        self.values.iter()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&PeerId, &T)> {
        self.ids.iter().zip(&self.values)
    }

    /// The first peer of this number or a higher one that `wanted` takes.
    pub(crate) fn find_from(&self, first: PeerId, wanted: impl Fn(PeerId) -> bool) -> Option<PeerId> {
        let at = self.find(first).unwrap_or_else(|at| at);
        self.ids[at..].iter().copied().find(|id| wanted(*id))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn agrees_with_a_plain_map(steps in proptest::collection::vec((any::<bool>(), 0u32..20, any::<u8>()), 0..100)) {
            let (mut map, mut plain) = (PeerMap::new(), BTreeMap::new());
            for (insert, id, value) in steps {
                let id = PeerId(id);
                match insert {
                    true => prop_assert_eq!(map.insert(id, value), plain.insert(id, value)),
                    false => prop_assert_eq!(map.remove(&id), plain.remove(&id)),
                }
                prop_assert_eq!(map.get(&id), plain.get(&id));
                prop_assert!(map.iter().eq(plain.iter()));
                let from = map.find_from(id, |id| id.0 % 2 == 0);
                prop_assert_eq!(from, plain.range(id..).map(|(id, _)| *id).find(|id| id.0 % 2 == 0));
            }
        }
    }
}
