//! The desired FIB: which prefix is wanted through which next hops, and what of it the feed has been told.
//!
//! Owner: the speaker. Pure. Prefixes with the same next hops share a group, so that "this next hop is dead" is one
//! message whatever hangs on it: the group shrinks, or becomes its backups, in place. Changes are coalesced: a prefix
//! stands in the queue at most once and what is sent is its newest state. Every change of a prefix has a generation,
//! which its install status comes back with.
//!
//! What adds to the ways a prefix already has, or changes shares and backups alone, can wait ([`DesiredFib::refine`]).
//! It is collected until [`DesiredFib::release`]: where all routes of a group are to become the same, the group becomes
//! it in place, and that again is one message.
//!
//! A connection begins with a snapshot. Its end mark is sent per family and only once [`DesiredFib::allow_end`] was
//! called: before that nothing that the kernel holds may be deleted (RFC 4724 §4.1). Own prefixes are not in here: the
//! route programmer has them from the documents.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::rc::Rc;

use causeway_bgp_wire::{Family, Prefix};
use hashbrown::HashMap;

use crate::event::{FibStatus, FibUpdate, PullState};
use crate::forwarding::Forwarding;
use crate::rib::slots::Slots;

mod refine;

use refine::Refinements;

/// [`Route::target`] of a route that nothing waits for.
const NO_TARGET: u32 = u32::MAX;

struct Route {
    /// `None`: no longer wanted, and the feed is to hear of it.
    group: Option<u32>,
    generation: u64,
    status: FibStatus,
    queued: bool,
    /// The feed was told of a route of this prefix.
    told: bool,
    /// It stands in the list of refinements.
    listed: bool,
    /// What it is to be refined to, by number, or [`NO_TARGET`].
    target: u32,
}

struct Group {
    forwarding: Rc<Forwarding>,
    /// Routes wanted through it.
    routes: usize,
    /// The feed knows it as it is.
    told: bool,
}

enum Item {
    Begin,
    Group(u32),
    GroupGone(u32),
    Route(u32),
    End(Family),
}

/// Counts of one family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct FibCounts {
    pub(crate) wanted: u64,
    pub(crate) installed: u64,
    pub(crate) failed: u64,
}

/// The desired FIB.
pub(crate) struct DesiredFib {
    routes: Slots<Prefix, Route>,
    groups: HashMap<u32, Group, foldhash::fast::RandomState>,
    /// Of several groups that are the same by now, one.
    by_forwarding: HashMap<Rc<Forwarding>, u32, foldhash::fast::RandomState>,
    by_next_hop: BTreeMap<IpAddr, BTreeSet<u32>>,
    next_group: u32,
    /// The group that was looked for last: mostly the next one too.
    last_group: u32,
    generation: u64,
    connected: bool,
    queue: VecDeque<Item>,
    refinements: Refinements,
    may_end: [bool; Family::COUNT],
    end_queued: [bool; Family::COUNT],
    /// The consumer was told that there is nothing: it waits for a wake.
    asleep: bool,
    counts: [FibCounts; Family::COUNT],
}

impl DesiredFib {
    pub(crate) fn new() -> Self {
        DesiredFib {
            routes: Slots::new(),
            groups: HashMap::default(),
            by_forwarding: HashMap::default(),
            by_next_hop: BTreeMap::new(),
            next_group: 1,
            last_group: 0,
            generation: 0,
            connected: false,
            queue: VecDeque::new(),
            refinements: Refinements::default(),
            may_end: [false; Family::COUNT],
            end_queued: [false; Family::COUNT],
            asleep: true,
            counts: Default::default(),
        }
    }

    /// The prefix is wanted so, with one next hop at least. True where what it has already does for now: the caller is
    /// to come back with [`DesiredFib::refine`].
    pub(crate) fn want(&mut self, prefix: Prefix, forwarding: &Rc<Forwarding>) -> bool {
        let id = self.routes.find_or_insert_with(prefix, || Route {
            group: None,
            generation: 0,
            status: FibStatus::Pending,
            queued: false,
            told: false,
            listed: false,
            target: NO_TARGET,
        });
        self.forget_target(id);
        let old = self.routes.get(id).and_then(|(_, route)| route.group);
        if let Some(group) = old.and_then(|group| self.groups.get_mut(&group)) {
            if group.forwarding == *forwarding {
                // The next prefix is likely to come with this one, and need not be compared.
                group.forwarding.clone_from(forwarding);
                return false;
            }
            if group.forwarding.is_part_of(forwarding) {
                return true;
            }
        }
        self.assign(prefix, id, forwarding);
        false
    }

    fn assign(&mut self, prefix: Prefix, id: u32, forwarding: &Rc<Forwarding>) {
        let group = self.group_of(forwarding);
        self.generation += 1;
        let generation = self.generation;
        let Some(route) = self.routes.get_mut(id) else { return };
        let counts = &mut self.counts[prefix.family().index()];
        let old = route.group.replace(group);
        if old.is_none() {
            counts.wanted += 1;
        } else {
            uncount_status(counts, &route.status);
        }
        route.generation = generation;
        route.status = FibStatus::Pending;
        self.enqueue(id);
        self.leave_group(old);
    }

    /// The prefix is no longer wanted.
    pub(crate) fn unwant(&mut self, prefix: Prefix) {
        let Some(id) = self.routes.find(&prefix) else { return };
        self.forget_target(id);
        self.generation += 1;
        let generation = self.generation;
        let Some(route) = self.routes.get_mut(id) else { return };
        let Some(group) = route.group.take() else { return };
        let counts = &mut self.counts[prefix.family().index()];
        counts.wanted -= 1;
        uncount_status(counts, &route.status);
        route.generation = generation;
        route.status = FibStatus::Pending;
        let (told, queued) = (route.told, route.queued);
        if told {
            self.enqueue(id);
        } else if !queued {
            self.routes.remove(id);
        }
        self.leave_group(Some(group));
    }

    /// These next hops are lost. Groups that are left with others shrink, or become their backups, in one message each
    /// that goes first, before their routes are decided anew and found to be as they are.
    pub(crate) fn next_hops_lost(&mut self, lost: &[IpAddr]) {
        self.refinements.cancel(lost);
        let named = lost.iter().filter_map(|address| self.by_next_hop.get(address));
        let affected: BTreeSet<u32> = named.flatten().copied().collect();
        for id in affected {
            let Some(group) = self.groups.get(&id).filter(|group| group.routes > 0) else { continue };
            let rest = group.forwarding.without(|next_hop| lost.contains(&next_hop));
            if !rest.members.is_empty() {
                // A group that the feed does not know is told with its first route.
                if self.replace_group(id, Rc::new(rest)) {
                    self.queue.push_front(Item::Group(id));
                }
            }
        }
    }

    /// Makes something else of a group, for all its routes. True where the feed is to hear of it.
    fn replace_group(&mut self, id: u32, forwarding: Rc<Forwarding>) -> bool {
        self.unlink(id);
        let mut told = false;
        if let Some(group) = self.groups.get_mut(&id) {
            group.forwarding = forwarding;
            told = group.told;
        }
        self.link(id);
        told
    }

    fn group_of(&mut self, forwarding: &Rc<Forwarding>) -> u32 {
        if let Some(group) = self.groups.get_mut(&self.last_group)
            && group.forwarding == *forwarding
        {
            group.routes += 1;
            return self.last_group;
        }
        let id = self.find_group(forwarding);
        self.last_group = id;
        id
    }

    fn find_group(&mut self, forwarding: &Rc<Forwarding>) -> u32 {
        if let Some(id) = self.by_forwarding.get(forwarding) {
            if let Some(group) = self.groups.get_mut(id) {
                group.routes += 1;
            }
            return *id;
        }
        let id = self.next_group;
        self.next_group += 1;
        self.groups.insert(id, Group { forwarding: forwarding.clone(), routes: 1, told: false });
        self.link(id);
        id
    }

    /// Makes a group be found.
    fn link(&mut self, id: u32) {
        let Some(group) = self.groups.get(&id) else { return };
        for next_hop in group.forwarding.next_hops() {
            self.by_next_hop.entry(next_hop).or_default().insert(id);
        }
        if !self.by_forwarding.contains_key(&group.forwarding) {
            self.by_forwarding.insert(group.forwarding.clone(), id);
        }
    }

    fn unlink(&mut self, id: u32) {
        let Some(group) = self.groups.get(&id) else { return };
        if self.by_forwarding.get(&group.forwarding) == Some(&id) {
            self.by_forwarding.remove(&group.forwarding);
        }
        for next_hop in group.forwarding.next_hops() {
            if let Some(groups) = self.by_next_hop.get_mut(&next_hop) {
                groups.remove(&id);
                if groups.is_empty() {
                    self.by_next_hop.remove(&next_hop);
                }
            }
        }
    }

    fn leave_group(&mut self, id: Option<u32>) {
        let Some(id) = id else { return };
        let Some(group) = self.groups.get_mut(&id) else { return };
        group.routes -= 1;
        if group.routes > 0 {
            return;
        }
        if group.told {
            // Behind the routes that left it.
            self.queue.push_back(Item::GroupGone(id));
        } else {
            self.forget_group(id);
        }
    }

    fn forget_group(&mut self, id: u32) {
        self.unlink(id);
        self.groups.remove(&id);
    }

    fn enqueue(&mut self, id: u32) {
        if !self.connected {
            return;
        }
        if let Some(route) = self.routes.get_mut(id)
            && !route.queued
        {
            route.queued = true;
            self.queue.push_back(Item::Route(id));
        }
    }

    /// The feed connected: everything is due again.
    pub(crate) fn connected(&mut self) {
        self.lost();
        self.connected = true;
        self.asleep = true;
        self.end_queued = [false; Family::COUNT];
        self.queue.push_back(Item::Begin);
        for id in 0..self.routes.end() {
            self.enqueue(id);
        }
        self.queue_ends();
    }

    /// The feed is gone.
    pub(crate) fn lost(&mut self) {
        self.connected = false;
        self.refine_all();
        self.queue.clear();
        for id in 0..self.routes.end() {
            let Some(route) = self.routes.get_mut(id) else { continue };
            (route.queued, route.told) = (false, false);
            if route.group.is_none() {
                self.routes.remove(id);
            }
        }
        let mut unused = Vec::new();
        for (id, group) in &mut self.groups {
            group.told = false;
            if group.routes == 0 {
                unused.push(*id);
            }
        }
        for id in unused {
            self.forget_group(id);
        }
    }

    /// Everything of this family that is to be kept has been decided: its snapshot may end.
    pub(crate) fn allow_end(&mut self, family: Family) {
        self.may_end[family.index()] = true;
        self.queue_ends();
    }

    fn queue_ends(&mut self) {
        for family in Family::all() {
            let index = family.index();
            if self.connected && self.may_end[index] && !self.end_queued[index] {
                self.end_queued[index] = true;
                self.queue.push_back(Item::End(family));
            }
        }
    }

    /// Takes an install status in; one of an older generation is ignored.
    pub(crate) fn status(&mut self, prefix: Prefix, generation: u64, status: FibStatus) {
        let Some(id) = self.routes.find(&prefix) else { return };
        if let Some(route) = self.routes.get_mut(id)
            && route.generation == generation
            && route.group.is_some()
        {
            let counts = &mut self.counts[prefix.family().index()];
            uncount_status(counts, &route.status);
            match status {
                FibStatus::Installed(_) => counts.installed += 1,
                FibStatus::Failed(_) => counts.failed += 1,
                FibStatus::Pending => {}
            }
            route.status = status;
        }
    }

    /// What the kernel holds of a prefix that is wanted.
    pub(crate) fn status_of(&self, prefix: &Prefix) -> Option<FibStatus> {
        let (_, route) = self.routes.get(self.routes.find(prefix)?)?;
        route.group.map(|_| route.status.clone())
    }

    /// The next hops that are wanted for a prefix.
    pub(crate) fn forwarding_of(&self, prefix: &Prefix) -> Option<&Forwarding> {
        let (_, route) = self.routes.get(self.routes.find(prefix)?)?;
        Some(&self.groups.get(&route.group?)?.forwarding)
    }

    pub(crate) fn counts(&self, family: Family) -> FibCounts {
        self.counts[family.index()]
    }

    /// True once when there is something to pull and the consumer does not know.
    pub(crate) fn poll_wake(&mut self) -> bool {
        let wake = self.asleep && (!self.queue.is_empty() || self.refinements.is_due());
        if wake {
            self.asleep = false;
        }
        wake
    }

    /// Appends about `max_items` updates.
    pub(crate) fn pull(&mut self, max_items: usize, out: &mut Vec<FibUpdate>) -> PullState {
        let end = out.len() + max_items.max(1);
        while out.len() < end {
            let Some(item) = self.queue.pop_front() else {
                if self.refine_next() {
                    continue;
                }
                self.asleep = true;
                return PullState::Drained;
            };
            match item {
                Item::Begin => out.push(FibUpdate::Begin),
                Item::End(family) => out.push(FibUpdate::End(family)),
                Item::Group(id) => {
                    if self.groups.get(&id).is_some_and(|group| group.routes > 0) {
                        self.tell_group(id, out);
                    }
                }
                Item::GroupGone(id) => {
                    if self.groups.get(&id).is_some_and(|group| group.routes == 0) {
                        self.forget_group(id);
                        out.push(FibUpdate::GroupGone(id));
                    }
                }
                Item::Route(id) => self.tell_route(id, out),
            }
        }
        PullState::More
    }

    fn tell_group(&mut self, id: u32, out: &mut Vec<FibUpdate>) {
        if let Some(group) = self.groups.get_mut(&id) {
            group.told = true;
            let Forwarding { members, backups } = Forwarding::clone(&group.forwarding);
            out.push(FibUpdate::Group { id, members: members.into_vec(), backups: backups.into_vec() });
        }
    }

    fn tell_route(&mut self, id: u32, out: &mut Vec<FibUpdate>) {
        let Some((prefix, _)) = self.routes.get(id) else { return };
        let Some(route) = self.routes.get_mut(id) else { return };
        route.queued = false;
        let (generation, told) = (route.generation, route.told);
        match route.group {
            Some(group) => {
                route.told = true;
                if self.groups.get(&group).is_some_and(|group| !group.told) {
                    self.tell_group(group, out);
                }
                out.push(FibUpdate::Route { prefix, group, generation });
            }
            None => {
                self.routes.remove(id);
                if told {
                    out.push(FibUpdate::Withdraw { prefix, generation });
                }
            }
        }
    }
}

fn uncount_status(counts: &mut FibCounts, status: &FibStatus) {
    match status {
        FibStatus::Installed(_) => counts.installed -= 1,
        FibStatus::Failed(_) => counts.failed -= 1,
        FibStatus::Pending => {}
    }
}

#[cfg(test)]
#[path = "fib_tests.rs"]
mod tests;
