//! The Adj-RIB-Out of one update group and family: prefix → attributes and the session they came from.
//!
//! Owner: the group. Pure. Entries stand at the slots that the RIB gave their prefixes, in chunks that are there only
//! where something is sent: no index of its own, and walks have a stable, deterministic order and can stop and go on at
//! any slot. RFC 4271 §3.2.

use foldhash::fast::RandomState;
use hashbrown::HashMap;

use crate::attrs::AttrSet;
use crate::event::PeerId;

/// From whom the path of an entry is; such a member is not sent it.
pub(super) type Origin = Option<PeerId>;

/// What a prefix looks like to the members: nothing, or attributes and their origin.
#[derive(Clone, Debug)]
pub(super) struct State {
    /// Attributes as the Loc-RIB has them or, finished, as sent; `None`: not advertised.
    pub attrs: Option<AttrSet>,
    /// Where they are from; with no attributes, where the last ones were from.
    pub origin: Origin,
}

impl State {
    /// Not advertised.
    pub const NOTHING: State = State { attrs: None, origin: None };

    /// Whether the member has been told of attributes in this state.
    pub fn reached(&self, member: PeerId) -> bool {
        self.attrs.is_some() && self.origin != Some(member)
    }
}

/// When an entry's present state went into the journal. Grows; see `Stream::mark`.
pub(super) type Epoch = u32;

/// Where an entry stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stand {
    /// Members have been told, or will be by what is in the journal, since this epoch.
    Told(Epoch),
    /// Members are still to be told: number of what they know in the pending queue.
    Pending(u32),
}

/// One prefix.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    attrs: Option<AttrSet>,
    origin: u32,
    stand: u32,
}

/// The origin of this speaker's own paths.
const LOCAL: u32 = u32::MAX;
/// Set in `stand` where the rest of it is a number of the pending queue.
const PENDING: u32 = 1 << 31;
/// `stand` of a slot that is free.
const FREE: u32 = u32::MAX;
/// The last epoch there is.
pub(super) const LAST_EPOCH: Epoch = PENDING - 1;

impl Entry {
    const FREE: Entry = Entry { attrs: None, origin: LOCAL, stand: FREE };

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
            Stand::Pending(number) => number | PENDING,
        };
    }
}

/// Slots of one chunk.
const CHUNK: usize = 512;

/// Some entries in a row.
struct Chunk {
    entries: Box<[Entry]>,
    used: usize,
}

/// All entries of a group and family.
pub(super) struct AdjRibOut {
    chunks: Vec<Option<Chunk>>,
    live: u64,
    by_origin: HashMap<u32, u64, RandomState>,
    /// Slots that were given back since somebody asked.
    pub released: Vec<u32>,
}

impl AdjRibOut {
    pub fn new() -> Self {
        AdjRibOut { chunks: Vec::new(), live: 0, by_origin: HashMap::default(), released: Vec::new() }
    }

    /// No entry is at this slot or a higher one.
    pub fn end(&self) -> u32 {
        (self.chunks.len() * CHUNK) as u32
    }

    /// The entry of a slot, if there is one.
    #[inline]
    pub fn get(&self, slot: u32) -> Option<&Entry> {
        let chunk = self.chunks.get(slot as usize / CHUNK)?.as_ref()?;
        Some(&chunk.entries[slot as usize % CHUNK]).filter(|entry| entry.stand != FREE)
    }

    /// The same to change where it stands.
    #[inline]
    pub fn get_mut(&mut self, slot: u32) -> Option<&mut Entry> {
        let chunk = self.chunks.get_mut(slot as usize / CHUNK)?.as_mut()?;
        Some(&mut chunk.entries[slot as usize % CHUNK]).filter(|entry| entry.stand != FREE)
    }

    /// A new entry at a slot that has none, not advertised so far.
    #[inline]
    pub fn insert(&mut self, slot: u32) -> &mut Entry {
        let index = slot as usize / CHUNK;
        if index >= self.chunks.len() {
            self.chunks.resize_with(index + 1, || None);
        }
        let chunk = self.chunks[index]
            .get_or_insert_with(|| Chunk { entries: vec![Entry::FREE; CHUNK].into_boxed_slice(), used: 0 });
        chunk.used += 1;
        let entry = &mut chunk.entries[slot as usize % CHUNK];
        *entry = Entry { stand: 0, ..Entry::FREE };
        entry
    }

    /// A new entry for each of these slots that has none, all of one state; `taken` is told of those that had one.
    pub fn insert_all(&mut self, slots: &[u32], state: &State, stand: Stand, mut taken: impl FnMut(u32)) {
        let Some(attrs) = &state.attrs else { return };
        let origin = state.origin.map_or(LOCAL, |peer| peer.0);
        let mut inserted = 0;
        for slot in slots.iter().copied() {
            if self.get(slot).is_some() {
                taken(slot);
                continue;
            }
            let entry = self.insert(slot);
            (entry.attrs, entry.origin) = (Some(attrs.clone()), origin);
            entry.set_stand(stand);
            inserted += 1;
        }
        if inserted > 0 {
            self.live += inserted;
            *self.by_origin.entry(origin).or_default() += inserted;
        }
    }

    /// Changes what members are to see, and where the entry stands.
    pub fn set(&mut self, slot: u32, state: State, stand: Stand) {
        let origin = state.origin.map_or(LOCAL, |peer| peer.0);
        let Some(entry) = self.get_mut(slot) else { return };
        let (was, is) =
            (entry.attrs.is_some().then_some(entry.origin), state.attrs.is_some().then_some(origin));
        entry.attrs = state.attrs;
        entry.origin = origin;
        entry.set_stand(stand);
        if was == is {
            return;
        }
        if let Some(was) = was {
            self.live -= 1;
            if let Some(count) = self.by_origin.get_mut(&was) {
                *count -= 1;
                if *count == 0 {
                    self.by_origin.remove(&was);
                }
            }
        }
        if let Some(is) = is {
            self.live += 1;
            *self.by_origin.entry(is).or_default() += 1;
        }
    }

    /// Gives back the slot of an entry that is not advertised.
    pub fn remove(&mut self, slot: u32) {
        let Some(place) = self.chunks.get_mut(slot as usize / CHUNK) else { return };
        let Some(chunk) = place else { return };
        chunk.entries[slot as usize % CHUNK] = Entry::FREE;
        chunk.used -= 1;
        self.released.push(slot);
        if chunk.used == 0 {
            *place = None;
            while let Some(None) = self.chunks.last() {
                self.chunks.pop();
            }
        }
    }

    /// Slots of all entries.
    pub fn slots(&self) -> impl Iterator<Item = u32> + '_ {
        (0..self.end()).filter(|slot| self.get(*slot).is_some())
    }

    /// How many prefixes are advertised.
    pub fn live(&self) -> u64 {
        self.live
    }

    /// How many of them are from this member.
    pub fn live_from(&self, member: PeerId) -> u64 {
        self.by_origin.get(&member.0).copied().unwrap_or(0)
    }

    /// Whether anything advertised is from this peer.
    pub fn names(&self, peer: PeerId) -> bool {
        self.by_origin.contains_key(&peer.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::testing::attributes;

    #[test]
    fn an_entry_is_small() {
        assert_eq!(size_of::<Entry>(), 16);
    }

    #[test]
    fn counts_follow_states_and_chunks_go_with_their_last_entry() {
        let attrs = Some(AttrSet::single(&attributes(1)));
        let mut table = AdjRibOut::new();
        let far = 10 * CHUNK as u32 + 3;
        for slot in [3, far] {
            table.insert(slot);
            let state = State { attrs: attrs.clone(), origin: Some(PeerId(7)) };
            table.set(slot, state, Stand::Told(1));
        }
        assert_eq!((table.live(), table.live_from(PeerId(7))), (2, 2));
        assert_eq!(table.chunks.iter().flatten().count(), 2);
        table.set(far, State { attrs: attrs.clone(), origin: None }, Stand::Told(2));
        assert_eq!((table.live(), table.live_from(PeerId(7)), table.names(PeerId(7))), (2, 1, true));
        assert_eq!(table.slots().collect::<Vec<_>>(), [3, far]);
        table.set(far, State::NOTHING, Stand::Told(3));
        assert_eq!(table.live(), 1);
        table.remove(far);
        assert!(table.get(far).is_none());
        assert_eq!((table.end(), &table.released), (CHUNK as u32, &vec![far]));
        assert_eq!(table.get(3).unwrap().stand(), Stand::Told(1));
    }
}
