//! What the members of a group have still to be told: prefixes in buckets of one attribute set and origin each.
//!
//! Owner: the group. Pure. Every prefix stands in one bucket at most, the newest state wins, withdrawals go before
//! announcements, and buckets go in the order they came into being. A bucket becomes as few messages as it can.

use std::hash::Hash;

use foldhash::fast::RandomState;
use hashbrown::HashMap;

use super::adj_rib_out::{Epoch, Origin, State};
use crate::attrs::AttrSet;

/// No record, no bucket.
const NONE: u32 = u32::MAX;

/// A prefix that is to be told of.
struct Record {
    /// Slot in the Adj-RIB-Out; the next free record where this one is free.
    slot: u32,
    bucket: u32,
    previous: u32,
    next: u32,
    told: Told,
}

/// What members have been told of a prefix so far.
#[derive(Clone, Debug)]
pub(super) struct Told {
    /// The last state that went into the journal.
    pub state: State,
    /// When.
    pub epoch: Epoch,
}

/// Prefixes that go in one message.
struct Bucket {
    /// What they are announced with; `None`: they are withdrawn.
    attrs: Option<AttrSet>,
    /// Who is not told, since it is from there (or was told of by it before).
    origin: Origin,
    first: u32,
    last: u32,
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
    fn of(state: &State) -> Self {
        Key { attrs: state.attrs.as_ref().map_or(0, AttrSet::address), origin: state.origin }
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
    records: Vec<Record>,
    free_record: u32,
    buckets: Vec<Bucket>,
    free_buckets: Vec<u32>,
    by_key: HashMap<Key, u32, RandomState>,
    /// Withdrawals, announcements.
    queues: [Ends; 2],
    len: usize,
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
            records: Vec::new(),
            free_record: NONE,
            buckets: Vec::new(),
            free_buckets: Vec::new(),
            by_key: HashMap::default(),
            queues: [Ends { first: NONE, last: NONE }; 2],
            len: 0,
            recent: None,
        }
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Puts a prefix into the bucket of its new state; `told` is what members know. Returns the record's number.
    pub fn insert(&mut self, slot: u32, state: &State, told: Told) -> u32 {
        let record = Record { slot, bucket: NONE, previous: NONE, next: NONE, told };
        let number = if self.free_record == NONE {
            self.records.push(record);
            (self.records.len() - 1) as u32
        } else {
            let number = self.free_record;
            self.free_record = self.records[number as usize].slot;
            self.records[number as usize] = record;
            number
        };
        self.len += 1;
        self.link(number, state);
        number
    }

    /// The prefix changed again: into the bucket of its newest state.
    pub fn reinsert(&mut self, record: u32, state: &State) {
        self.unlink(record);
        self.link(record, state);
    }

    /// The prefix is as members know it after all. Returns what that is.
    pub fn remove(&mut self, record: u32) -> Told {
        self.unlink(record);
        self.release(record)
    }

    /// What members have been told of a waiting prefix.
    pub fn told(&self, record: u32) -> &Told {
        &self.records[record as usize].told
    }

    /// The bucket that is next.
    pub fn front(&self) -> Option<Front> {
        let bucket = self.queues.iter().map(|ends| ends.first).find(|first| *first != NONE)?;
        let Bucket { attrs, origin, .. } = &self.buckets[bucket as usize];
        Some(Front { attrs: attrs.clone(), origin: *origin, bucket })
    }

    /// Takes the next prefix out of the front bucket: its slot and what members know of it. `None` where the bucket
    /// is used up.
    pub fn pop(&mut self, front: &Front) -> Option<(u32, Told)> {
        // A bucket that was used up may have been replaced by another under the same number; it is not the first.
        let first = self.buckets.get(front.bucket as usize)?.first;
        if first == NONE {
            return None;
        }
        let slot = self.records[first as usize].slot;
        Some((slot, self.remove(first)))
    }

    /// Gives memory back once nothing waits.
    pub fn shrink(&mut self) {
        const KEEP: usize = 4096;
        if self.len == 0 && self.records.len() > KEEP {
            *self = Pending::new();
        }
    }

    fn release(&mut self, record: u32) -> Told {
        let nothing = Told { state: State { attrs: None, origin: None }, epoch: 0 };
        let freed = &mut self.records[record as usize];
        freed.slot = self.free_record;
        self.free_record = record;
        self.len -= 1;
        std::mem::replace(&mut freed.told, nothing)
    }

    fn link(&mut self, record: u32, state: &State) {
        let bucket = self.bucket(state);
        let last = self.buckets[bucket as usize].last;
        let linked = &mut self.records[record as usize];
        (linked.bucket, linked.previous, linked.next) = (bucket, last, NONE);
        match last {
            NONE => self.buckets[bucket as usize].first = record,
            last => self.records[last as usize].next = record,
        }
        self.buckets[bucket as usize].last = record;
    }

    fn unlink(&mut self, record: u32) {
        let Record { bucket, previous, next, .. } = self.records[record as usize];
        match previous {
            NONE => self.buckets[bucket as usize].first = next,
            previous => self.records[previous as usize].next = next,
        }
        match next {
            NONE => self.buckets[bucket as usize].last = previous,
            next => self.records[next as usize].previous = previous,
        }
        if self.buckets[bucket as usize].first == NONE {
            self.drop_bucket(bucket);
        }
    }

    /// The bucket of this state, new at the end of its queue where there is none.
    fn bucket(&mut self, state: &State) -> u32 {
        let key = Key::of(state);
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
            first: NONE,
            last: NONE,
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
        let state = State { attrs, origin: bucket.origin };
        let queue = usize::from(state.attrs.is_some());
        match previous {
            NONE => self.queues[queue].first = next,
            previous => self.buckets[previous as usize].next = next,
        }
        match next {
            NONE => self.queues[queue].last = previous,
            next => self.buckets[next as usize].previous = previous,
        }
        let key = Key::of(&state);
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

    fn told() -> Told {
        Told { state: State { attrs: None, origin: None }, epoch: 0 }
    }

    /// Empties the queue: (attribute number or none, origin, slots).
    fn drain(pending: &mut Pending) -> Vec<(Option<u32>, Origin, Vec<u32>)> {
        let mut batches = Vec::new();
        while let Some(front) = pending.front() {
            let slots = std::iter::from_fn(|| pending.pop(&front)).map(|(slot, _)| slot).collect();
            let number = front.attrs.as_ref().map(|a| a.as_path.origin_as().unwrap().0);
            batches.push((number, front.origin, slots));
        }
        batches
    }

    #[test]
    fn withdrawals_first_buckets_in_order_and_the_newest_state_wins() {
        let mut interner = Interner::new();
        let mut state = |number: u32, origin| State {
            attrs: (number != 0).then(|| interner.intern(attributes(number))),
            origin: Some(PeerId(origin)),
        };
        let mut pending = Pending::new();
        let a = pending.insert(10, &state(1, 1), told());
        pending.insert(11, &state(2, 1), told());
        pending.insert(12, &state(1, 1), told());
        pending.insert(13, &state(1, 2), told());
        let b = pending.insert(14, &state(2, 1), told());
        pending.reinsert(a, &state(0, 1));
        pending.reinsert(b, &state(1, 2));
        assert_eq!(pending.len, 5);
        let peer = |number| Some(PeerId(number));
        assert_eq!(
            drain(&mut pending),
            [
                (None, peer(1), vec![10]),
                (Some(1), peer(1), vec![12]),
                (Some(2), peer(1), vec![11]),
                (Some(1), peer(2), vec![13, 14]),
            ]
        );
        assert!(pending.is_empty());
        assert!(pending.by_key.is_empty());
    }

    #[test]
    fn what_is_taken_back_is_gone_and_its_place_is_used_again() {
        let mut interner = Interner::new();
        let state = State { attrs: Some(interner.intern(attributes(1))), origin: None };
        let mut pending = Pending::new();
        for round in 0..10 {
            let record = pending.insert(round, &state, Told { epoch: round, ..told() });
            assert_eq!(pending.remove(record).epoch, round);
        }
        assert!(pending.front().is_none());
        assert_eq!((pending.records.len(), pending.buckets.len()), (1, 1));
    }
}
