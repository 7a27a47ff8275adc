//! Interned path attributes: equal sets are one allocation, and equality is pointer equality.
//!
//! Owner: whoever holds the [`Interner`] (the speaker's RIB has one, export another); handles may leave for other
//! threads. Pure. A set lives as long as its last handle: the interner drops what nobody holds when it has grown to
//! twice what was alive, so its memory follows what is in use.

use std::fmt;
use std::hash::{BuildHasher, Hash, Hasher};
use std::ops::Deref;
use std::sync::Arc;

use causeway_bgp_wire::PathAttributes;
use foldhash::fast::RandomState;
use hashbrown::HashTable;

struct Interned {
    hash: u64,
    attributes: PathAttributes,
}

/// A handle to interned attributes. Two handles of one interner are equal exactly when their attributes are.
#[derive(Clone)]
pub struct AttrSet(Arc<Interned>);

impl AttrSet {
    /// Whether the two are the same allocation.
    pub fn same(&self, other: &AttrSet) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// A number that stands for the allocation: unique among the sets alive at one time.
    pub fn address(&self) -> usize {
        Arc::as_ptr(&self.0) as usize
    }
}

impl Deref for AttrSet {
    type Target = PathAttributes;

    fn deref(&self) -> &PathAttributes {
        &self.0.attributes
    }
}

impl PartialEq for AttrSet {
    fn eq(&self, other: &AttrSet) -> bool {
        self.same(other)
    }
}

impl Eq for AttrSet {}

impl Hash for AttrSet {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.address().hash(state);
    }
}

impl fmt::Debug for AttrSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.attributes.fmt(f)
    }
}

/// Below this many sets nothing is looked for to drop.
const SWEEP_MIN: usize = 1024;

/// Makes equal attributes one allocation.
pub struct Interner {
    table: HashTable<AttrSet>,
    hasher: RandomState,
    sweep_at: usize,
}

impl Default for Interner {
    fn default() -> Self {
        Interner::new()
    }
}

impl Interner {
    /// An empty one. Attributes are the peers' choice, so its hash is seeded at random.
    pub fn new() -> Self {
        Interner { table: HashTable::new(), hasher: RandomState::default(), sweep_at: SWEEP_MIN }
    }

    /// The one handle for these attributes.
    pub fn intern(&mut self, attributes: PathAttributes) -> AttrSet {
        let hash = self.hasher.hash_one(&attributes);
        if let Some(found) = self.table.find(hash, |set| set.0.hash == hash && set.0.attributes == attributes)
        {
            return found.clone();
        }
        if self.table.len() >= self.sweep_at {
            self.sweep();
        }
        let set = AttrSet(Arc::new(Interned { hash, attributes }));
        self.table.insert_unique(hash, set.clone(), |set| set.0.hash);
        set
    }

    /// Drops every set that nobody holds a handle of.
    pub fn sweep(&mut self) {
        self.table.retain(|set| Arc::strong_count(&set.0) > 1);
        self.sweep_at = SWEEP_MIN.max(self.table.len() * 2);
        self.table.shrink_to(self.sweep_at, |set| set.0.hash);
    }

    /// How many sets there are, those included that a sweep would drop.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use causeway_bgp_wire::Origin;

    use super::*;

    fn attributes(med: u32) -> PathAttributes {
        PathAttributes { med: Some(med), ..PathAttributes::new(Origin::Igp, Ipv4Addr::LOCALHOST.into()) }
    }

    #[test]
    fn equal_attributes_are_one_allocation() {
        let mut interner = Interner::new();
        let one = interner.intern(attributes(1));
        assert_eq!(one, interner.intern(attributes(1)));
        assert_ne!(one, interner.intern(attributes(2)));
        assert_eq!(one.med, Some(1));
        assert_eq!(interner.len(), 2);
    }

    #[test]
    fn sets_without_handles_are_dropped() {
        let mut interner = Interner::new();
        let kept = interner.intern(attributes(0));
        for med in 1..100_000 {
            interner.intern(attributes(med));
            assert!(interner.len() <= SWEEP_MIN);
        }
        interner.sweep();
        assert_eq!(interner.len(), 1);
        assert_eq!(kept, interner.intern(attributes(0)));
    }

    #[test]
    fn the_bound_follows_what_is_alive() {
        let mut interner = Interner::new();
        let held: Vec<AttrSet> = (0..5_000).map(|med| interner.intern(attributes(med))).collect();
        assert_eq!(interner.len(), held.len());
        drop(held);
        for med in 10_000..20_000 {
            interner.intern(attributes(med));
        }
        assert!(interner.len() <= 2 * SWEEP_MIN, "{}", interner.len());
    }
}
