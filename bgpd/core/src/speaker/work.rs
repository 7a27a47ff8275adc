//! Work that grows with a table: done in slices, so that inputs, timers and pulls come in between.
//!
//! Owner: the speaker. A piece is begun when it arises, and one slice of it done at once; what is left waits for
//! [`super::Speaker::handle_timeout`]. Whatever concerns a peer is finished before that peer's next input is looked at,
//! so that no piece ever sees a later session's paths.

use causeway_bgp_wire::Family;

use super::Speaker;
use crate::event::PeerId;
use crate::rib::path::NextHopId;
use crate::rib::tables::{Tabled, for_family};

/// Table entries handled in one slice.
const SLICE: usize = 4096;

/// What is to be done to each of some slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Task {
    /// Take out the path of a peer.
    Flush(PeerId),
    /// Take out the path of a peer if it is stale.
    FlushStale(PeerId),
    /// Judge the path of a peer anew, as received.
    Reimport(PeerId),
    /// Tell the FIB what could wait.
    Refine,
    /// Decide anew. `Some`: export is to hear of the best path if it is that peer's.
    Decide(Option<PeerId>),
}

impl Task {
    fn peer(self) -> Option<PeerId> {
        match self {
            Task::Flush(peer) | Task::FlushStale(peer) | Task::Reimport(peer) => Some(peer),
            Task::Decide(peer) => peer,
            Task::Refine => None,
        }
    }
}

/// Which slots.
enum Slots {
    /// These, possibly with repetitions and bygone ones.
    These(Vec<u32>),
    /// All, and then the family's deferred selection is over.
    Release,
    /// All.
    All,
}

/// A piece of work.
pub(super) struct Work {
    task: Task,
    family: Family,
    slots: Slots,
    at: usize,
    /// The next hop whose change made it.
    next_hop: Option<NextHopId>,
}

impl Speaker {
    /// Does something to these slots: one slice now, the rest later.
    pub(super) fn start(&mut self, task: Task, family: Family, slots: Vec<u32>) {
        self.begin([Work { task, family, slots: Slots::These(slots), at: 0, next_hop: None }]);
    }

    /// Takes out all paths of a peer.
    pub(super) fn start_flush(&mut self, peer: PeerId, slots: [Vec<u32>; Family::COUNT]) {
        let mut slots = slots.into_iter();
        self.begin(Family::all().map(|family| Work {
            task: Task::Flush(peer),
            family,
            slots: Slots::These(slots.next().unwrap_or_default()),
            at: 0,
            next_hop: None,
        }));
    }

    /// Decides these slots anew, all of them users of a next hop. A piece for it that is still to begin takes them over,
    /// so that there are at most two for a next hop, however fast it flaps.
    pub(super) fn start_next_hop(&mut self, id: NextHopId, family: Family, slots: Vec<u32>) {
        let slots = Slots::These(slots);
        let waits = |work: &&mut Work| work.next_hop == Some(id) && work.family == family && work.at == 0;
        match self.work.iter_mut().find(waits) {
            Some(work) => work.slots = slots,
            None => {
                self.begin([Work { task: Task::Decide(None), family, slots, at: 0, next_hop: Some(id) }]);
            }
        }
    }

    /// Decides a whole family anew.
    pub(super) fn start_decide_all(&mut self, family: Family) {
        self.begin([Work { task: Task::Decide(None), family, slots: Slots::All, at: 0, next_hop: None }]);
    }

    /// Runs the deferred selection of a family, then releases its advertisement.
    pub(super) fn start_release(&mut self, family: Family) {
        self.begin([Work { task: Task::Decide(None), family, slots: Slots::Release, at: 0, next_hop: None }]);
    }

    fn begin(&mut self, work: impl IntoIterator<Item = Work>) {
        let idle = self.work.is_empty();
        self.work.extend(work);
        if idle {
            self.run_work(SLICE);
        }
    }

    /// One slice of what is left.
    pub(super) fn work_slice(&mut self) {
        self.run_work(SLICE);
    }

    /// Finishes everything.
    pub(super) fn finish_work(&mut self) {
        while !self.work.is_empty() {
            self.run_work(usize::MAX);
        }
    }

    /// Finishes everything if some of it concerns the peer.
    pub(super) fn finish_work_of(&mut self, peer: PeerId) {
        if self.work.iter().any(|work| work.task.peer() == Some(peer)) {
            self.finish_work();
        }
    }

    fn run_work(&mut self, mut budget: usize) {
        while budget > 0 {
            let Some(mut work) = self.work.pop_front() else { return };
            // Where a next hop came back, what its prefixes have until then goes on to work.
            let entry = work.next_hop.and_then(|id| self.rib.next_hops.get(id));
            self.gently = entry.is_some_and(|entry| entry.cost().is_some());
            let end = for_family!(work.family, K => self.run_on::<K>(&mut work, &mut budget));
            let gently = std::mem::take(&mut self.gently);
            if !end {
                self.work.push_front(work);
                return;
            }
            match (work.task, work.slots) {
                (_, Slots::Release) => self.released(work.family),
                (Task::Flush(peer), _) => self.flushed(peer, work.at),
                (Task::Refine, _) => self.fib.release(),
                _ if gently => self.fib.release(),
                _ => {}
            }
        }
    }

    /// True when the piece is done.
    fn run_on<K: Tabled>(&mut self, work: &mut Work, budget: &mut usize) -> bool {
        while *budget > 0 {
            let slot = match &work.slots {
                Slots::These(slots) => slots.get(work.at).copied(),
                Slots::All | Slots::Release => {
                    u32::try_from(work.at).ok().filter(|slot| *slot < K::table(&self.rib.tables).end())
                }
            };
            let Some(slot) = slot else { return true };
            work.at += 1;
            *budget -= 1;
            match work.task {
                Task::Flush(peer) => self.take_out::<K>(slot, peer, |_, _| true),
                Task::FlushStale(peer) => {
                    self.take_out::<K>(slot, peer, |path, epoch| path.epoch != epoch);
                }
                Task::Reimport(peer) => self.reimport::<K>(slot, peer),
                Task::Refine => self.refine::<K>(slot),
                Task::Decide(touched) => self.decide_again::<K>(slot, touched),
            }
        }
        false
    }

    /// A peer's paths of one family are out. Forgets what the decision knew of a peer that is gone altogether.
    fn flushed(&mut self, peer: PeerId, slots: usize) {
        let busy = self.work.iter().any(|work| work.task.peer() == Some(peer));
        if !busy && !self.peers.contains_key(&peer) {
            self.rib.peers.remove(&peer);
        }
        // Worth it only where many attribute sets may have gone.
        if slots * 2 > self.rib.interner.len() {
            self.rib.maker.forget();
            self.rib.interner.sweep();
        }
    }
}
