//! Interned path attributes: equal sets are one allocation, and equality is pointer equality.
//!
//! Owner: whoever holds the [`Interner`] (the speaker's RIB has one, export another). Pure. Handles count without
//! atomics, which would make the processor finish every access to memory before the next: a speaker stays on the thread it
//! was made on. A set lives as long as its last handle: the interner drops what nobody holds when it has grown to
//! twice what was alive, so its memory follows what is in use. Sets are kept packed, see [`packed`]; a set that import
//! policy made holds on to the one that was received, so that a path needs one handle for both.

mod packed;

use std::borrow::Borrow;
use std::cell::OnceCell;
use std::fmt;
use std::hash::{BuildHasher, Hash, Hasher};
use std::ops::Deref;
use std::rc::Rc;

use causeway_bgp_wire::{NextHop, PathAttributes};
use foldhash::fast::RandomState;
use hashbrown::HashTable;
use smallvec::SmallVec;

pub use packed::Facts;
pub(crate) use packed::PackedAttributes;

/// Sets of so many octets, which are nearly all, are one allocation.
const INLINE: usize = 36;

/// A set.
struct Interned {
    hash: u32,
    facts: Facts,
    received: Option<AttrSet>,
    octets: SmallVec<[u8; INLINE]>,
}

/// A handle to interned attributes. Two handles of one interner are equal exactly when their attributes, and those
/// they were made of, are.
#[derive(Clone)]
pub struct AttrSet(Rc<Interned>);

impl AttrSet {
    /// A set of its own, that of no interner.
    pub fn single(attributes: &PathAttributes) -> Self {
        let mut octets = Vec::new();
        let facts = Facts::pack(attributes, &mut octets);
        AttrSet(Rc::new(Interned { hash: 0, facts, received: None, octets: octets.into() }))
    }

    /// Whether the two are the same allocation.
    pub fn same(&self, other: &AttrSet) -> bool {
        self.address() == other.address()
    }

    /// A number that stands for the allocation: unique among the sets alive at one time.
    pub fn address(&self) -> usize {
        Rc::as_ptr(&self.0).addr()
    }

    /// What the decision looks at.
    pub fn facts(&self) -> &Facts {
        &self.0.facts
    }

    /// The attributes as received, where import policy made these out of them.
    pub fn received(&self) -> &AttrSet {
        self.0.received.as_ref().unwrap_or(self)
    }

    /// As they are kept.
    pub(crate) fn packed(&self) -> PackedAttributes<'_> {
        PackedAttributes { facts: self.facts(), octets: &self.0.octets }
    }

    /// The next hop.
    pub fn next_hop(&self) -> NextHop {
        self.packed().next_hop()
    }

    /// The AS_PATH as [`causeway_bgp_wire::AsPath::as_octets`] has it.
    pub fn as_path_octets(&self) -> &[u8] {
        self.packed().as_path()
    }

    /// Whether these are attributes as sent, made by export policy: nothing is to be done to them any more.
    pub fn is_finished(&self) -> bool {
        self.facts().is_finished()
    }

    /// How many octets the packed form takes beside its head.
    pub fn octets(&self) -> usize {
        self.0.octets.len()
    }

    /// The attributes as a value.
    pub fn unpack(&self) -> PathAttributes {
        self.packed().unpack()
    }

    /// Whether the attributes are equal, also those of two interners and whatever they were made of.
    pub fn equals(&self, other: &AttrSet) -> bool {
        self.same(other) || (self.facts() == other.facts() && self.0.octets == other.0.octets)
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
        self.unpack().fmt(f)
    }
}

/// A set that is unpacked when somebody looks at it, and once.
pub struct Unpacked {
    set: AttrSet,
    value: OnceCell<PathAttributes>,
}

impl Unpacked {
    /// Not looked at so far.
    pub fn new(set: AttrSet) -> Self {
        Unpacked { set, value: OnceCell::new() }
    }

    /// The value is at hand; it may differ from the set in what whoever reads it is not to see.
    pub fn with_value(set: AttrSet, value: PathAttributes) -> Self {
        Unpacked { set, value: OnceCell::from(value) }
    }

    /// The set.
    pub fn set(&self) -> &AttrSet {
        &self.set
    }
}

impl Deref for Unpacked {
    type Target = PathAttributes;

    fn deref(&self) -> &PathAttributes {
        self.value.get_or_init(|| self.set.unpack())
    }
}

impl Borrow<PathAttributes> for Unpacked {
    fn borrow(&self) -> &PathAttributes {
        self
    }
}

/// Below this many sets nothing is looked for to drop.
const SWEEP_MIN: usize = 1024;

/// Makes equal attributes one allocation.
pub struct Interner {
    table: HashTable<AttrSet>,
    hasher: RandomState,
    sweep_at: usize,
    octets: Vec<u8>,
}

impl Default for Interner {
    fn default() -> Self {
        Interner::new()
    }
}

impl Interner {
    /// An empty one. Attributes are the peers' choice, so its hash is seeded at random.
    pub fn new() -> Self {
        Interner {
            table: HashTable::new(),
            hasher: RandomState::default(),
            sweep_at: SWEEP_MIN,
            octets: Vec::new(),
        }
    }

    /// The one handle for these attributes.
    pub fn intern(&mut self, attributes: &PathAttributes) -> AttrSet {
        self.pack_and_find(attributes, None, false)
    }

    /// The same for attributes that are packed already.
    pub(crate) fn intern_packed(&mut self, attributes: PackedAttributes<'_>) -> AttrSet {
        self.find_or_insert(attributes, None)
    }

    /// The one handle for these attributes as sent.
    pub fn intern_finished(&mut self, attributes: &PathAttributes) -> AttrSet {
        self.pack_and_find(attributes, None, true)
    }

    /// The one handle for these attributes, made out of received ones; that of the latter where they are equal.
    pub fn intern_changed(&mut self, attributes: &PathAttributes, received: &AttrSet) -> AttrSet {
        let set = self.pack_and_find(attributes, Some(received), false);
        if set.equals(received) { received.clone() } else { set }
    }

    fn pack_and_find(
        &mut self,
        attributes: &PathAttributes,
        received: Option<&AttrSet>,
        finished: bool,
    ) -> AttrSet {
        let mut octets = std::mem::take(&mut self.octets);
        octets.clear();
        let mut facts = Facts::pack(attributes, &mut octets);
        if finished {
            facts.set_finished();
        }
        let set = self.find_or_insert(PackedAttributes { facts: &facts, octets: &octets }, received);
        if octets.capacity() <= KEPT_OCTETS {
            self.octets = octets;
        }
        set
    }

    fn find_or_insert(&mut self, attributes: PackedAttributes<'_>, received: Option<&AttrSet>) -> AttrSet {
        let PackedAttributes { facts, octets } = attributes;
        let hash = self.hasher.hash_one((octets, facts, received.map(AttrSet::address)));
        let short = hash as u32;
        let same = |set: &AttrSet| {
            let Interned { hash, facts: known, received: of, octets: its } = &*set.0;
            *hash == short && known == facts && of.as_ref() == received && its.as_slice() == octets
        };
        if let Some(found) = self.table.find(hash_of(short), same) {
            return found.clone();
        }
        if self.table.len() >= self.sweep_at {
            self.sweep_if_worth_it();
        }
        let (facts, received, octets) = (*facts, received.cloned(), SmallVec::from_slice(octets));
        let set = AttrSet(Rc::new(Interned { hash: short, facts, received, octets }));
        self.table.insert_unique(hash_of(short), set.clone(), |set| hash_of(set.0.hash));
        set
    }

    /// Sweeps, unless a sample says that next to nobody would be dropped: while a table is filled, that is how it is.
    fn sweep_if_worth_it(&mut self) {
        const SAMPLE: usize = 128;
        let dead = self.table.iter().take(SAMPLE).filter(|set| Rc::strong_count(&set.0) == 1).count();
        if dead * 8 >= SAMPLE {
            self.sweep();
        } else {
            self.sweep_at = self.table.len() * 5 / 4;
        }
    }

    /// Drops every set that nobody holds a handle of.
    pub fn sweep(&mut self) {
        // What a dropped set was made of may be nobody's then: once more.
        for _ in 0..2 {
            self.table.retain(|set| Rc::strong_count(&set.0) > 1);
        }
        self.sweep_at = SWEEP_MIN.max(self.table.len() * 2);
        self.table.shrink_to(self.table.len(), |set| hash_of(set.0.hash));
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

/// The buffer for packing is given back beyond this size.
const KEPT_OCTETS: usize = 4096;

/// The table wants its bits from both ends of 64; a set keeps 32.
fn hash_of(short: u32) -> u64 {
    u64::from(short).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

#[cfg(test)]
mod tests;
