//! Where paths go: into their slots and out of them, and the decision each of them leads to.
//!
//! RFC 4271 §9.1.2. What follows from a path is done for all prefixes of an announcement at once where it is plain, for
//! one after the other where it is not.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use causeway_bgp_wire::{Family, Prefix};
use smallvec::SmallVec;

use super::Speaker;
use super::timers::Timer;
use super::work::Task;
use crate::attrs::AttrSet;
use crate::event::{Output, PeerId};
use crate::rib::next_hop::Watch;
use crate::rib::path::{Announced, NOBODY, NextHopId, Path};
use crate::rib::tables::{Decision, Standing, Tabled};

/// Slots of the prefixes of one announcement; most have no more.
pub(super) type Run = SmallVec<[u32; 32]>;

/// Refinements wait until there was nothing new to refine for so long, that they find all of a table that comes in.
const REFINE_QUIET: Duration = Duration::from_millis(100);
/// But no longer than this.
const REFINE_LATEST: Duration = Duration::from_secs(3);

/// Prefixes whose next hops do for now, but whose backups, weights or further next hops are to be looked at.
#[derive(Default)]
pub(super) struct Unrefined {
    /// By [`Family::index`]; repetitions are taken out when there are more of them than slots.
    slots: [Vec<u32>; Family::COUNT],
    /// When the first came, and the last.
    came: Option<(Instant, Instant)>,
}

impl Speaker {
    /// Puts a path into each of these slots, in the place of what the peer sent before, and decides.
    pub(super) fn place_all<K: Tabled>(&mut self, slots: &[u32], path: &Path) {
        for slot in self.place_many::<K>(slots, path) {
            self.place::<K>(slot, path.clone());
        }
    }

    /// Puts a path into each of these slots where it is the first one, or what it does to the decision is plain, and
    /// does for all of them at once what follows from it: this is how tables are filled. Gives back the other slots.
    fn place_many<K: Tabled>(&mut self, slots: &[u32], path: &Path) -> Run {
        let (id, family) = (path.peer, K::FAMILY.index());
        let mut others: Run = SmallVec::new();
        if self.deferred[family] {
            others.extend_from_slice(slots);
            return others;
        }
        let eligible = self.rib.is_eligible(path);
        let (mut first, mut won, mut placed, mut beaten) = (Run::new(), Run::new(), Run::new(), Run::new());
        // Prefixes of one set have rivals of one set, mostly.
        let mut last: Option<(AttrSet, PeerId, Standing)> = None;
        for slot in slots.iter().copied() {
            let Some((_, paths)) = K::table(&self.rib.tables).get(slot) else { continue };
            if paths.is_empty() {
                first.push(slot);
            } else {
                let rival = paths.best();
                let standing = match (&last, rival) {
                    (Some((attrs, peer, standing)), Some(rival))
                        if rival.peer == *peer && rival.attrs == *attrs =>
                    {
                        *standing
                    }
                    _ => self.rib.standing(paths, path),
                };
                // Where the peer had a path before, that one may have kept others out.
                if standing == Standing::Unclear || paths.has(id) {
                    others.push(slot);
                    continue;
                }
                last = rival.map(|rival| (rival.attrs.clone(), rival.peer, standing));
                match standing {
                    Standing::Wins => won.push(slot),
                    _ => beaten.push(slot),
                }
            }
            placed.push(slot);
            if let Some(paths) = K::table_mut(&mut self.rib.tables).get_mut(slot) {
                let is_first = paths.is_empty();
                paths.push(path.clone());
                if is_first && eligible {
                    paths.set_best(id);
                }
            }
        }
        if !placed.is_empty() {
            self.count_placed::<K>(&placed, path);
            self.decisions += placed.len() as u64;
        }
        if eligible && !first.is_empty() {
            self.won_first::<K>(&first, path);
        }
        if eligible {
            self.refine_later::<K>(&beaten);
        }
        for slot in won {
            let Some((_, paths)) = K::table(&self.rib.tables).get(slot) else { continue };
            let forwarding = self.rib.alone(paths, path);
            let (old, decision) = (paths.best_peer(), Decision { best: id, forwarding });
            self.decided::<K>(slot, Some(id), old, &decision);
        }
        others
    }

    /// New paths stand at these slots: the lists and counts of their peer and next hop.
    fn count_placed<K: Tabled>(&mut self, slots: &[u32], path: &Path) {
        let (id, family, next_hop) = (path.peer, K::FAMILY.index(), path.next_hop);
        let table = K::table(&self.rib.tables);
        let count = slots.len() as u32;
        if let Some(peer) = self.peers.get_mut(&id) {
            let counts = &mut peer.families[family];
            counts.accepted += count * u32::from(path.import.is_accepted());
            counts.fresh += count * u32::from(path.epoch == counts.epoch);
            counts.slots.extend(slots, |slot| table.get(slot).is_some_and(|(_, paths)| paths.has(id)));
        }
        self.rib.next_hops.used(next_hop, K::FAMILY, id, slots, |slot| {
            table.get(slot).is_some_and(|(_, paths)| paths.iter().any(|path| path.next_hop == next_hop))
        });
    }

    /// Prefixes that had no best path have this one now.
    fn won_first<K: Tabled>(&mut self, slots: &[u32], path: &Path) {
        self.best[K::FAMILY.index()] += slots.len() as u64;
        let entry = slots.first().and_then(|slot| K::table(&self.rib.tables).get(*slot));
        if let (true, Some((_, paths))) = (self.mode.fib, entry) {
            // All of them have this path and no other.
            let forwarding = self.rib.alone(paths, path);
            let keys = K::table(&self.rib.tables).keys();
            for slot in slots {
                self.fib.want(keys.key(*slot).into(), &forwarding);
            }
        }
        if let Some(best) = entry.and_then(|(_, paths)| self.rib.best_of(paths)) {
            self.export.routes_added(K::FAMILY, slots, &best, &self.rib);
        }
    }

    /// Puts a path into its slot, in the place of what the peer sent before, and decides.
    pub(super) fn place<K: Tabled>(&mut self, slot: u32, path: Path) {
        let id = path.peer;
        let family = K::FAMILY.index();
        let (next_hop, epoch, accepted) = (path.next_hop, path.epoch, path.import.is_accepted());
        let Some(paths) = K::table_mut(&mut self.rib.tables).get_mut(slot) else { return };
        let best = paths.best_peer();
        let old = match paths.of_mut(id) {
            Some(old) => {
                let was = (old.next_hop, old.epoch, old.import.is_accepted());
                if old.attrs == path.attrs
                    && was.2 == accepted
                    && (old.rule, old.next_hop) == (path.rule, path.next_hop)
                {
                    if was.1 != epoch {
                        let since = old.since;
                        *old = self.rib.maker.path(Announced { since, ..Announced::clone(&path) });
                        if let Some(peer) = self.peers.get_mut(&id) {
                            peer.families[family].fresh += 1;
                        }
                    }
                    return;
                }
                *old = path;
                Some(was)
            }
            None => {
                paths.push(path);
                None
            }
        };
        if let Some(peer) = self.peers.get_mut(&id) {
            let counts = &mut peer.families[family];
            let current = counts.epoch;
            counts.accepted += u32::from(accepted);
            counts.fresh += u32::from(epoch == current);
            match old {
                None => {
                    let table = K::table(&self.rib.tables);
                    counts.slots.add(slot, |slot| table.get(slot).is_some_and(|(_, paths)| paths.has(id)));
                }
                Some((_, epoch, accepted)) => {
                    counts.accepted -= u32::from(accepted);
                    counts.fresh = counts.fresh.saturating_sub(u32::from(epoch == current));
                }
            }
        }
        let old_next_hop = old.map_or(NextHopId::NONE, |(next_hop, _, _)| next_hop);
        if old_next_hop != next_hop {
            let table = K::table(&self.rib.tables);
            self.rib.next_hops.used(next_hop, K::FAMILY, id, &[slot], |slot| {
                table.get(slot).is_some_and(|(_, paths)| paths.iter().any(|path| path.next_hop == next_hop))
            });
            self.leave_next_hop(old_next_hop, K::FAMILY, id);
        }
        self.decide::<K>(slot, Some(id), best);
    }

    /// The number of a next hop, which is asked for if it is new.
    pub(super) fn next_hop(&mut self, address: IpAddr) -> NextHopId {
        let own = &self.own_addresses;
        let (id, watch) = self.rib.acquire(address, |address| own.contains_key(&address));
        self.watch(watch);
        id
    }

    /// A path of a peer stopped using the next hop.
    fn leave_next_hop(&mut self, id: NextHopId, family: Family, peer: PeerId) {
        let watch = self.rib.next_hops.left(id, family, peer);
        self.watch(watch);
    }

    fn watch(&mut self, watch: Option<Watch>) {
        match watch {
            Some(Watch::Start(address)) => self.outputs.push_back(Output::WatchNextHop(address)),
            Some(Watch::Stop(address)) => self.outputs.push_back(Output::UnwatchNextHop(address)),
            None => {}
        }
    }

    /// Takes the path of a peer out of a slot if `condition` holds of it and of the peer's present epoch.
    pub(super) fn take_out<K: Tabled>(
        &mut self,
        slot: u32,
        id: PeerId,
        condition: impl Fn(&Path, u8) -> bool,
    ) {
        let family = K::FAMILY.index();
        let epoch = self.peers.get(&id).map_or(0, |peer| peer.families[family].epoch);
        let Some(paths) = K::table_mut(&mut self.rib.tables).get_mut(slot) else { return };
        if !paths.of(id).is_some_and(|path| condition(path, epoch)) {
            return;
        }
        let best = paths.best_peer();
        let Some(path) = paths.remove(id) else { return };
        if let Some(peer) = self.peers.get_mut(&id) {
            let counts = &mut peer.families[family];
            counts.slots.removed();
            counts.accepted -= u32::from(path.import.is_accepted());
            counts.fresh = counts.fresh.saturating_sub(u32::from(path.epoch == epoch));
        }
        let beaten = K::table(&self.rib.tables)
            .get(slot)
            .is_some_and(|(_, paths)| !self.deferred[family] && self.rib.is_beaten(paths, &path));
        self.leave_next_hop(path.next_hop, K::FAMILY, id);
        if beaten {
            self.decisions += 1;
            self.refine_later::<K>(&[slot]);
        } else {
            self.decide::<K>(slot, Some(id), best);
        }
    }

    /// Decides a prefix anew, as [`Speaker::decide`] does, where the paths are what they were.
    pub(super) fn decide_again<K: Tabled>(&mut self, slot: u32, touched: Option<PeerId>) {
        if let Some((_, paths)) = K::table(&self.rib.tables).get(slot) {
            self.decide::<K>(slot, touched, paths.best_peer());
        }
    }

    /// Decides a prefix anew and tells export and the FIB. `touched` is whose path changed: where that one stays
    /// best, export hears of it all the same. `old` was the best one before.
    fn decide<K: Tabled>(&mut self, slot: u32, touched: Option<PeerId>, old: PeerId) {
        let Some((_, paths)) = K::table(&self.rib.tables).get(slot) else { return };
        if self.deferred[K::FAMILY.index()] {
            if paths.is_empty() && !self.export.holds(K::FAMILY, slot) {
                K::table_mut(&mut self.rib.tables).remove(slot);
            }
            return;
        }
        self.decisions += 1;
        let decision = self.rib.decide(paths);
        self.decided::<K>(slot, touched, old, &decision);
    }

    fn decided<K: Tabled>(&mut self, slot: u32, touched: Option<PeerId>, old: PeerId, decision: &Decision) {
        let Some((key, paths)) = K::table(&self.rib.tables).get(slot) else { return };
        let gone = paths.is_empty();
        let prefix: Prefix = key.into();
        if self.mode.fib && (old != NOBODY || decision.best != NOBODY) {
            if decision.forwarding.members.is_empty() {
                self.fib.unwant(prefix);
            } else if self.gently {
                self.fib.refine(prefix, &decision.forwarding);
            } else if self.fib.want(prefix, &decision.forwarding) {
                self.refine_later::<K>(&[slot]);
            }
        }
        let changed = decision.best != old || (decision.best != NOBODY && touched == Some(decision.best));
        if changed {
            let best = &mut self.best[K::FAMILY.index()];
            *best += u64::from(decision.best != NOBODY);
            *best -= u64::from(old != NOBODY);
            if let Some(paths) = K::table_mut(&mut self.rib.tables).get_mut(slot) {
                paths.set_best(decision.best);
            }
            let best = K::table(&self.rib.tables).get(slot).and_then(|(_, paths)| self.rib.best_of(paths));
            self.export.route_changed(slot, prefix, best.as_ref());
        }
        if gone && !self.export.holds(K::FAMILY, slot) {
            K::table_mut(&mut self.rib.tables).remove(slot);
        }
    }
    /// The FIB is to be told of more than it needs at once, when there is time.
    fn refine_later<K: Tabled>(&mut self, slots: &[u32]) {
        if !self.mode.fib || slots.is_empty() {
            return;
        }
        let waiting = &mut self.unrefined.slots[K::FAMILY.index()];
        if waiting.len() > 2 * K::table(&self.rib.tables).end() as usize {
            waiting.sort_unstable();
            waiting.dedup();
        }
        waiting.extend_from_slice(slots);
        match &mut self.unrefined.came {
            Some((_, last)) => *last = self.now,
            None => {
                self.unrefined.came = Some((self.now, self.now));
                self.timers.set(Timer::Refine, self.now + REFINE_QUIET);
            }
        }
    }

    /// Time to refine, unless there is still something coming in or the feed has not taken the last ones.
    pub(super) fn refine_due(&mut self, now: Instant) {
        let Some((first, last)) = self.unrefined.came else { return };
        let due = (last + REFINE_QUIET).min(first + REFINE_LATEST);
        if due > now || self.fib.is_refining() {
            self.timers.set(Timer::Refine, due.max(now + REFINE_QUIET));
            return;
        }
        self.unrefined.came = None;
        for family in Family::all() {
            let mut slots = std::mem::take(&mut self.unrefined.slots[family.index()]);
            slots.sort_unstable();
            slots.dedup();
            if !slots.is_empty() {
                self.start(Task::Refine, family, slots);
            }
        }
    }

    /// Tells the FIB all there is to tell of a prefix.
    pub(super) fn refine<K: Tabled>(&mut self, slot: u32) {
        let Some((key, paths)) = K::table(&self.rib.tables).get(slot) else { return };
        if self.deferred[K::FAMILY.index()] || paths.best().is_none() {
            return;
        }
        let decision = self.rib.decide(paths);
        if !decision.forwarding.members.is_empty() {
            self.fib.refine(key.into(), &decision.forwarding);
        }
    }

    /// The paths that a peer sent of these families are about to go: groups of what only they lead to change first.
    pub(super) fn lose_next_hops(&mut self, peer: PeerId, families: [bool; Family::COUNT]) {
        if self.mode.fib {
            let lost = self.rib.next_hops.only_from(peer, families);
            self.fib.next_hops_lost(&lost);
        }
    }
}
