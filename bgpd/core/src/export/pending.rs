//! What the members of a group have still to be told: prefixes in buckets of one attribute set and origin each.
//!
//! Owner: the group. Pure. Every waiting prefix is in the bucket of its newest state; withdrawals go before
//! announcements, and buckets go in the order they came into being. A bucket becomes as few messages as it can.
//!
//! A prefix that changes again is put into another bucket and not looked for in the first: whoever takes it out there
//! sees by its entry in the table that it moved on. Buckets are cleared of such slots when they outnumber the others.
//! What members know of a prefix is kept here too, but only of one that they know something of: the usual case, a
//! table that is sent for the first time, costs four octets a prefix.

use std::hash::Hash;

use foldhash::fast::RandomState;
use hashbrown::{HashMap, HashSet};
use smallvec::SmallVec;

use super::adj_rib_out::{Epoch, LAST_EPOCH, Origin, State};
use crate::attrs::AttrSet;

/// No bucket.
const NONE: u32 = u32::MAX;

/// Number of what members know of a prefix they have never been told of: nothing. Fits into an entry's stand.
pub(super) const NEVER_TOLD: u32 = LAST_EPOCH - 1;

/// Bygone slots are let lie up to this many beside as many as wait.
const SLACK: usize = 4096;

/// What members have been told of a prefix so far.
#[derive(Clone, Debug)]
pub(super) struct Told {
    /// The last state that went into the journal.
    pub state: State,
    /// When.
    pub epoch: Epoch,
}

impl Told {
    /// Nothing, ever.
    pub const NEVER: Told = Told { state: State::NOTHING, epoch: 0 };
}

/// Prefixes that go in one message.
struct Bucket {
    /// What they are announced with; `None`: they are withdrawn.
    attrs: Option<AttrSet>,
    /// Who is not told, since it is from there (or was told of by it before).
    origin: Origin,
    /// Slots in the Adj-RIB-Out, some of them bygone.
    slots: SmallVec<[u32; 4]>,
    /// How many of them were taken out.
    taken: u32,
    previous: u32,
    next: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    /// Address of the attribute set, 0 for a withdrawal.
    attrs: usize,
    origin: Origin,
}

impl Key {
    fn of(attrs: Option<&AttrSet>, origin: Origin) -> Self {
        Key { attrs: attrs.map_or(0, AttrSet::address), origin }
    }
}

/// First and last bucket of a queue.
#[derive(Clone, Copy)]
struct Ends {
    first: u32,
    last: u32,
}

/// The queue.
pub(super) struct Pending {
    told: Vec<Told>,
    free_told: Vec<u32>,
    buckets: Vec<Bucket>,
    free_buckets: Vec<u32>,
    by_key: HashMap<Key, u32, RandomState>,
    /// Withdrawals, announcements.
    queues: [Ends; 2],
    /// How many prefixes wait.
    waiting: usize,
    /// How many slots are in buckets, bygone ones included.
    queued: usize,
    /// The bucket used last: routes of one attribute set come in a row.
    recent: Option<(Key, u32)>,
}

/// What the next messages are about.
pub(super) struct Front {
    /// Announced with these attributes; `None`: withdrawn.
    pub attrs: Option<AttrSet>,
    /// The member that is not told.
    pub origin: Origin,
    bucket: u32,
}

impl Pending {
    pub fn new() -> Self {
        Pending {
            told: Vec::new(),
            free_told: Vec::new(),
            buckets: Vec::new(),
            free_buckets: Vec::new(),
            by_key: HashMap::default(),
            queues: [Ends { first: NONE, last: NONE }; 2],
            waiting: 0,
            queued: 0,
            recent: None,
        }
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.waiting == 0
    }

    /// Puts a prefix into the bucket of its new state; `told` is what members know. Returns the number of that.
    pub fn insert(&mut self, slot: u32, state: &State, told: Told) -> u32 {
        self.waiting += 1;
        self.push(slot, state);
        if told.state.attrs.is_none() && told.epoch == 0 {
            return NEVER_TOLD;
        }
        match self.free_told.pop() {
            Some(number) => {
                self.told[number as usize] = told;
                number
            }
            None => {
                self.told.push(told);
                (self.told.len() - 1) as u32
            }
        }
    }

    /// Puts prefixes that members have never been told of into the bucket of their state.
    pub fn insert_new(&mut self, slots: &[u32], state: &State) {
        let bucket = self.bucket(state);
        self.buckets[bucket as usize].slots.extend_from_slice(slots);
        self.waiting += slots.len();
        self.queued += slots.len();
    }

    /// A waiting prefix changed again: into the bucket of its newest state.
    pub fn push(&mut self, slot: u32, state: &State) {
        let bucket = self.bucket(state);
        self.buckets[bucket as usize].slots.push(slot);
        self.queued += 1;
    }

    /// So many prefixes that members had never been told of wait no more.
    pub fn remove_new(&mut self, count: usize) {
        self.waiting -= count;
    }

    /// A prefix waits no more, having been told of or being as members know it. Returns what they knew.
    pub fn remove(&mut self, number: u32) -> Told {
        self.waiting -= 1;
        if number == NEVER_TOLD {
            return Told::NEVER;
        }
        self.free_told.push(number);
        std::mem::replace(&mut self.told[number as usize], Told::NEVER)
    }

    /// What members have been told of a waiting prefix.
    pub fn told(&self, number: u32) -> &Told {
        if number == NEVER_TOLD { &Told::NEVER } else { &self.told[number as usize] }
    }

    /// The bucket that is next.
    pub fn front(&self) -> Option<Front> {
        let bucket = self.queues.iter().map(|ends| ends.first).find(|first| *first != NONE)?;
        let Bucket { attrs, origin, .. } = &self.buckets[bucket as usize];
        Some(Front { attrs: attrs.clone(), origin: *origin, bucket })
    }

    /// Takes the next slots, some of them perhaps bygone, out of the front bucket, at most so many. The bucket is gone
    /// when it is used up.
    pub fn take(&mut self, front: &Front, limit: usize, out: &mut Vec<u32>) {
        let bucket = &mut self.buckets[front.bucket as usize];
        let rest = &bucket.slots[bucket.taken as usize..];
        let taken = rest.len().min(limit);
        out.extend_from_slice(&rest[..taken]);
        bucket.taken += taken as u32;
        self.queued -= taken;
        if bucket.taken as usize == bucket.slots.len() {
            self.drop_bucket(front.bucket);
        }
    }

    /// Whether it is time for [`Pending::compact`].
    pub fn wants_compaction(&self) -> bool {
        self.queued > 2 * self.waiting + SLACK
    }

    /// Drops slots that are bygone: `waits` tells whether a slot waits in the bucket of these attributes and origin.
    pub fn compact(&mut self, waits: impl Fn(u32, Option<&AttrSet>, Origin) -> bool) {
        let mut seen = HashSet::<u32, RandomState>::default();
        self.queued = 0;
        for queue in [0, 1] {
            let mut number = self.queues[queue].first;
            while number != NONE {
                let Bucket { attrs, origin, slots, taken, next, .. } = &mut self.buckets[number as usize];
                seen.clear();
                slots.drain(..*taken as usize);
                *taken = 0;
                slots.retain(|slot| waits(*slot, attrs.as_ref(), *origin) && seen.insert(*slot));
                slots.shrink_to_fit();
                self.queued += slots.len();
                let (empty, next) = (slots.is_empty(), *next);
                if empty {
                    self.drop_bucket(number);
                }
                number = next;
            }
        }
    }

    /// Forgets bygone slots, and gives memory back, once nothing waits.
    pub fn reset(&mut self) {
        if self.waiting == 0 && (self.queued > 0 || self.buckets.len() + self.told.len() > SLACK) {
            *self = Pending::new();
        }
    }

    /// The bucket of this state, new at the end of its queue where there is none.
    fn bucket(&mut self, state: &State) -> u32 {
        let key = Key::of(state.attrs.as_ref(), state.origin);
        if let Some((recent, bucket)) = self.recent
            && recent == key
        {
            return bucket;
        }
        if let Some(bucket) = self.by_key.get(&key) {
            self.recent = Some((key, *bucket));
            return *bucket;
        }
        let queue = usize::from(state.attrs.is_some());
        let last = self.queues[queue].last;
        let bucket = Bucket {
            attrs: state.attrs.clone(),
            origin: state.origin,
            slots: SmallVec::new(),
            taken: 0,
            previous: last,
            next: NONE,
        };
        let number = match self.free_buckets.pop() {
            Some(number) => {
                self.buckets[number as usize] = bucket;
                number
            }
            None => {
                self.buckets.push(bucket);
                (self.buckets.len() - 1) as u32
            }
        };
        match last {
            NONE => self.queues[queue].first = number,
            last => self.buckets[last as usize].next = number,
        }
        self.queues[queue].last = number;
        self.by_key.insert(key, number);
        self.recent = Some((key, number));
        number
    }

    fn drop_bucket(&mut self, number: u32) {
        let bucket = &mut self.buckets[number as usize];
        let (previous, next) = (bucket.previous, bucket.next);
        let attrs = bucket.attrs.take();
        bucket.slots = SmallVec::new();
        let queue = usize::from(attrs.is_some());
        let key = Key::of(attrs.as_ref(), bucket.origin);
        match previous {
            NONE => self.queues[queue].first = next,
            previous => self.buckets[previous as usize].next = next,
        }
        match next {
            NONE => self.queues[queue].last = previous,
            next => self.buckets[next as usize].previous = previous,
        }
        self.by_key.remove(&key);
        if self.recent.is_some_and(|(recent, _)| recent == key) {
            self.recent = None;
        }
        self.free_buckets.push(number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attrs::Interner;
    use crate::event::PeerId;
    use crate::export::testing::attributes;

    fn peer(number: u32) -> Origin {
        Some(PeerId(number))
    }

    /// Empties the queue: (attribute number or none, origin, slots).
    fn drain(pending: &mut Pending) -> Vec<(Option<u32>, Origin, Vec<u32>)> {
        let mut batches = Vec::new();
        while let Some(front) = pending.front() {
            let mut slots = Vec::new();
            pending.take(&front, usize::MAX, &mut slots);
            let number = front.attrs.as_ref().map(|a| a.unpack().as_path.origin_as().unwrap().0);
            batches.push((number, front.origin, slots));
        }
        batches
    }

    #[test]
    fn withdrawals_first_and_buckets_in_order() {
        let mut interner = Interner::new();
        let mut state = |number: u32, origin| State {
            attrs: (number != 0).then(|| interner.intern(&attributes(number))),
            origin: peer(origin),
        };
        let mut pending = Pending::new();
        pending.insert(10, &state(1, 1), Told::NEVER);
        pending.insert(11, &state(2, 1), Told::NEVER);
        pending.insert(12, &state(1, 1), Told::NEVER);
        pending.insert(13, &state(1, 2), Told::NEVER);
        pending.insert(14, &state(2, 1), Told::NEVER);
        pending.push(10, &state(0, 1));
        pending.push(14, &state(1, 2));
        assert_eq!((pending.waiting, pending.queued), (5, 7));
        assert_eq!(
            drain(&mut pending),
            [
                (None, peer(1), vec![10]),
                (Some(1), peer(1), vec![10, 12]),
                (Some(2), peer(1), vec![11, 14]),
                (Some(1), peer(2), vec![13, 14]),
            ]
        );
        assert!(pending.by_key.is_empty());
        assert_eq!(pending.queued, 0);
    }

    #[test]
    fn what_members_know_is_kept_where_they_know_something() {
        let attrs = AttrSet::single(&attributes(1));
        let state = State { attrs: Some(attrs), origin: None };
        let mut pending = Pending::new();
        assert_eq!(pending.insert(1, &state, Told::NEVER), NEVER_TOLD);
        assert_eq!(pending.told(NEVER_TOLD).epoch, 0);
        for round in 1..10 {
            let number = pending.insert(round, &state, Told { epoch: round, state: State::NOTHING });
            assert_eq!((number, pending.remove(number).epoch), (0, round));
        }
        pending.remove(NEVER_TOLD);
        assert!(pending.is_empty());
        pending.reset();
        assert!(pending.front().is_none());
    }

    #[test]
    fn a_prefix_that_flaps_takes_bounded_room() {
        let mut interner = Interner::new();
        let mut state = |number| State { attrs: Some(interner.intern(&attributes(number))), origin: None };
        let (one, two) = (state(1), state(2));
        let mut pending = Pending::new();
        pending.insert(7, &two, Told::NEVER);
        pending.insert(8, &two, Told::NEVER);
        for _ in 0..10_000 {
            pending.push(7, &one);
            pending.push(7, &two);
            if pending.wants_compaction() {
                pending.compact(|_, attrs, _| attrs == two.attrs.as_ref());
                assert_eq!((pending.queued, pending.buckets.len()), (2, 2));
            }
            assert!(pending.queued <= SLACK + 6);
        }
        pending.compact(|_, attrs, _| attrs == two.attrs.as_ref());
        assert_eq!(drain(&mut pending), [(Some(2), None, vec![7, 8])]);
    }
}
