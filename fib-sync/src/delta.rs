//! Desired against actual, keyed as the kernel keys. Pure.
//!
//! Two columns of form numbers, what is wanted and what the kernel has. Invariant: after every call exactly those slots are
//! queued for which something is to be done and can be done now, so that a change costs what it touches and a check that
//! finds nothing wrong writes nothing. A property test compares it with a naive diff.
//!
//! Not queued are slots that have what they want; those with a route of somebody else in the way (*blocked*, until a dump
//! no longer shows it); those the kernel refused a moment ago (*failed*, until their time comes); those whose nexthop
//! object is not there yet (*waiting*); and routes of ours nobody wants that are not yet condemned (*surplus*: kept
//! over a restart, or in their grace period).
//!
//! A dump is taken in while changes are written. A slot that was written since the dump began is not judged by it.

mod batch;
mod refusals;

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Instant;

use causeway_kernel::{Family, Refusal, RouteChange, RouteKey};

pub use self::batch::Batch;
use self::refusals::Refusals;
pub use self::refusals::{FIRST_RETRY, LONGEST_RETRY};
use crate::forms::{FormId, Forms, NONE};
use crate::objects::ObjectId;
use crate::slots::{Slot, Slots};

/// In one of the queues.
const QUEUED: u8 = 1;
/// A route of ours nobody wants may be deleted.
const CONDEMNED: u8 = 1 << 1;
/// A route of ours nobody wants is kept for now.
const SURPLUS: u8 = 1 << 2;
/// The kernel refused; `failed` says what.
const FAILED: u8 = 1 << 3;
/// A route of somebody else has the key; `foreign` says whose.
const FOREIGN: u8 = 1 << 4;
/// The present dump has shown it.
const SEEN: u8 = 1 << 5;
/// Written since the present dump began.
const TOUCHED: u8 = 1 << 6;
/// The nexthop object of its form is not in the kernel.
const WAITING: u8 = 1 << 7;

#[derive(Debug, Clone, Copy)]
struct Cell {
    want: FormId,
    have: FormId,
}

/// How a wanted slot stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// The kernel has it as wanted.
    Installed,
    /// To be written.
    Pending,
    /// A route of this protocol number is in the way.
    Foreign(u8),
    /// The kernel refused.
    Failed(Refusal),
}

/// What a dump brought to light.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// How many routes that were as wanted no longer are.
    pub lost: u64,
    /// One of them.
    pub first: Option<Slot>,
}

/// The tracker.
#[derive(Debug, Default)]
pub struct Tracker {
    slots: Slots,
    forms: Forms,
    cells: Vec<Cell>,
    flags: Vec<u8>,
    removals: VecDeque<Slot>,
    writes: VecDeque<Slot>,
    queued: usize,
    /// Slots that want something and have it.
    installed: usize,
    waiting: Vec<Slot>,
    surplus: usize,
    fresh_surplus: Vec<Slot>,
    refusals: Refusals,
    foreign: HashMap<Slot, u8>,
    /// Further routes of ours at one key: somebody appended to an IPv4 key with our number.
    crowded: HashMap<Slot, Vec<FormId>>,
    dump: Option<Dump>,
    changed: Vec<Slot>,
}

/// What the present dump has shown besides the columns.
#[derive(Debug, Default)]
struct Dump {
    foreign: HashMap<Slot, u8>,
    crowded: HashMap<Slot, Vec<FormId>>,
    lost: Observed,
}

impl Tracker {
    /// The keys.
    pub fn slots(&self) -> &Slots {
        &self.slots
    }

    /// The forms.
    pub fn forms(&self) -> &Forms {
        &self.forms
    }

    /// The forms, to hold and release some.
    pub fn forms_mut(&mut self) -> &mut Forms {
        &mut self.forms
    }

    /// The slot of a key, made if need be. `None`: the kernel has routes of ours with tens of thousands of metrics.
    pub fn slot(&mut self, key: &RouteKey) -> Option<Slot> {
        let slot = self.slots.find_or_insert(key)?;
        if self.cells.len() <= slot as usize {
            self.cells.push(Cell { want: NONE, have: NONE });
            self.flags.push(0);
        }
        Some(slot)
    }

    /// Frees a slot nobody wants anything of, if the kernel has nothing there either. Whether it was freed.
    pub fn free(&mut self, slot: Slot) -> bool {
        let Cell { want, have } = self.cells[slot as usize];
        let idle = want == NONE && have == NONE && self.flags[slot as usize] & (FOREIGN | QUEUED) == 0;
        if idle {
            self.flags[slot as usize] = 0;
            self.slots.remove(slot);
        }
        idle
    }

    /// Wants this form at a slot, or nothing there (which condemns a route of ours that is there).
    pub fn want(&mut self, slot: Slot, form: FormId) {
        let old = self.cells[slot as usize].want;
        if form != NONE && old == form {
            return;
        }
        self.forms.retain(form);
        self.put_want(slot, form);
        self.forms.release(old);
        self.set(slot, CONDEMNED, form == NONE);
        self.forgive(slot);
        self.judge(slot);
        self.changed.push(slot);
    }

    /// Forgets what is wanted at a slot, without condemning what the kernel has there.
    pub fn disclaim(&mut self, slot: Slot) {
        let old = self.cells[slot as usize].want;
        self.put_want(slot, NONE);
        self.forms.release(old);
        self.forgive(slot);
        self.judge(slot);
        self.changed.push(slot);
    }

    /// What is wanted at a slot.
    pub fn wanted(&self, slot: Slot) -> FormId {
        self.cells[slot as usize].want
    }

    /// What the kernel has of ours at a slot, as far as known.
    pub fn has(&self, slot: Slot) -> FormId {
        self.cells[slot as usize].have
    }

    /// Routes of ours nobody wants and that are not condemned.
    pub fn surplus(&self) -> impl Iterator<Item = Slot> {
        let none = self.surplus == 0;
        let flagged = self.flags.iter().enumerate().take_while(move |_| !none);
        flagged.filter(|(_, flags)| **flags & SURPLUS != 0).map(|(slot, _)| slot as Slot)
    }

    /// How many routes of ours nobody wants and that are not condemned.
    pub fn surplus_len(&self) -> usize {
        self.surplus
    }

    /// Those that became surplus since the last call; some may no longer be.
    pub fn take_fresh_surplus(&mut self) -> Vec<Slot> {
        std::mem::take(&mut self.fresh_surplus)
    }

    /// Whether a slot has a route of ours that nobody wants and that is not condemned.
    pub fn is_surplus(&self, slot: Slot) -> bool {
        self.flags[slot as usize] & SURPLUS != 0
    }

    /// Lets a surplus route be deleted.
    pub fn condemn(&mut self, slot: Slot) {
        if self.is_surplus(slot) {
            self.set(slot, CONDEMNED, true);
            self.judge(slot);
        }
    }

    /// Slots whose standing may have changed since the last call.
    pub fn take_changed(&mut self) -> Vec<Slot> {
        std::mem::take(&mut self.changed)
    }

    /// How a wanted slot stands; `None` for one where nothing is wanted.
    pub fn standing(&self, slot: Slot) -> Option<Standing> {
        let Cell { want, have } = self.cells[slot as usize];
        if want == NONE {
            return None;
        }
        if want == have && !self.crowded.contains_key(&slot) {
            return Some(Standing::Installed);
        }
        if let Some(protocol) = self.foreign.get(&slot) {
            return Some(Standing::Foreign(*protocol));
        }
        match self.refusals.get(slot) {
            // Whose route is in the way, the next dump tells.
            Some(refusal) if refusal.exists() => Some(Standing::Pending),
            Some(refusal) => Some(Standing::Failed(refusal.clone())),
            None => Some(Standing::Pending),
        }
    }

    /// How many slots wait to be written.
    pub fn pending(&self) -> usize {
        self.queued
    }

    /// How many slots wait for their nexthop object.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Nexthop objects were made: what waited for one is looked at again.
    pub fn wake(&mut self) {
        for slot in std::mem::take(&mut self.waiting) {
            self.set(slot, WAITING, false);
            self.judge(slot);
        }
    }

    /// A dump begins.
    pub fn dump_begin(&mut self) {
        self.dump = Some(Dump::default());
        for flags in &mut self.flags {
            *flags &= !(SEEN | TOUCHED);
        }
    }

    /// Whether a dump is being taken in.
    pub fn dumping(&self) -> bool {
        self.dump.is_some()
    }

    /// The dump will not be completed. What it showed so far holds.
    pub fn dump_abandon(&mut self) {
        self.dump = None;
    }

    /// The dump shows a route of ours.
    pub fn observe(&mut self, slot: Slot, form: FormId) {
        let flags = self.flags[slot as usize];
        let Some(dump) = &mut self.dump else { return };
        if flags & TOUCHED != 0 {
            return;
        }
        if flags & SEEN != 0 {
            if self.slots.family(slot) == Family::Ipv6 {
                // Read again: IPv6 has one route at a key.
                return;
            }
            self.forms.retain(form);
            dump.crowded.entry(slot).or_default().push(form);
            return;
        }
        self.flags[slot as usize] |= SEEN;
        if self.cells[slot as usize].have != form {
            self.note_lost(slot);
            self.put(slot, form);
            self.judge(slot);
            self.changed.push(slot);
        }
    }

    /// The dump shows a route of somebody else that could be in the way.
    pub fn observe_foreign(&mut self, slot: Slot, protocol: u8) {
        if let Some(dump) = &mut self.dump {
            dump.foreign.insert(slot, protocol);
        }
    }

    /// The dump is complete: what it did not show is not there.
    pub fn dump_end(&mut self) -> Observed {
        let Some(mut dump) = self.dump.take() else { return Observed::default() };
        std::mem::swap(&mut self.foreign, &mut dump.foreign);
        std::mem::swap(&mut self.crowded, &mut dump.crowded);
        for form in dump.crowded.values().flatten() {
            self.forms.release(*form);
        }
        let before: Vec<(Slot, u8)> = dump.foreign.into_iter().collect();
        let now: Vec<(Slot, u8)> = self.foreign.iter().map(|(slot, protocol)| (*slot, *protocol)).collect();
        let mut again: Vec<Slot> = self.crowded.keys().chain(dump.crowded.keys()).copied().collect();
        for (slot, protocol) in &before {
            if self.foreign.get(slot) != Some(protocol) {
                self.set(*slot, FOREIGN, self.foreign.contains_key(slot));
                again.push(*slot);
            }
        }
        for (slot, _) in now {
            if self.flags[slot as usize] & FOREIGN == 0 {
                self.set(slot, FOREIGN, true);
                again.push(slot);
            }
        }
        // `observe` and `note_lost` count into a dump.
        self.dump = Some(Dump { lost: dump.lost, ..Dump::default() });
        for slot in 0..self.cells.len() as Slot {
            let flags = self.flags[slot as usize];
            let Cell { want, have } = self.cells[slot as usize];
            if have != NONE && flags & (SEEN | TOUCHED) == 0 {
                self.note_lost(slot);
                self.put(slot, NONE);
                again.push(slot);
            } else if want != have && flags & (QUEUED | FAILED | WAITING | SURPLUS) == 0 {
                again.push(slot);
            }
        }
        for slot in again {
            self.judge(slot);
            self.changed.push(slot);
        }
        self.dump.take().map(|dump| dump.lost).unwrap_or_default()
    }

    fn note_lost(&mut self, slot: Slot) {
        let Cell { want, have } = self.cells[slot as usize];
        if want != NONE
            && want == have
            && let Some(dump) = &mut self.dump
        {
            dump.lost.lost += 1;
            dump.lost.first.get_or_insert(slot);
        }
    }

    /// Up to `limit` slots' worth of changes, deletions first. Each is to be answered with [`Tracker::applied`], or
    /// all of them given up by [`Tracker::unknown`]. `object` gives the kernel's number of an object that is there.
    /// `hold`: keep back deletions of IPv6 routes.
    pub fn changes(&mut self, limit: usize, hold: bool, object: impl Fn(ObjectId) -> Option<u32>) -> Batch {
        let most = limit.min(self.queued);
        let mut batch = Batch { changes: Vec::with_capacity(most), about: Vec::with_capacity(most) };
        let mut held = Vec::new();
        while batch.about.len() < limit {
            let removal = self.removals.pop_front();
            let Some(slot) = removal.or_else(|| self.writes.pop_front()) else { break };
            if self.flags[slot as usize] & QUEUED == 0 {
                continue;
            }
            if removal.is_some() && self.cells[slot as usize].want != NONE {
                // It was to go and is wanted again.
                self.writes.push_back(slot);
                continue;
            }
            if hold && removal.is_some() && self.slots.family(slot) == Family::Ipv6 {
                held.push(slot);
                continue;
            }
            self.set(slot, QUEUED, false);
            self.queued -= 1;
            self.changes_of(slot, &object, &mut batch);
        }
        self.removals.extend(held);
        batch
    }

    fn changes_of(&mut self, slot: Slot, object: &impl Fn(ObjectId) -> Option<u32>, batch: &mut Batch) {
        let Cell { want, have } = self.cells[slot as usize];
        let key = self.slots.key(slot);
        let alone = self.flags[slot as usize] & FOREIGN == 0 && !self.crowded.contains_key(&slot);
        if want != NONE && (have == NONE || alone) {
            match self.forms.get(want).and_then(|form| form.route(key, object)) {
                None => {
                    self.set(slot, WAITING, true);
                    self.waiting.push(slot);
                }
                Some(route) => {
                    let change = match have {
                        NONE => RouteChange::Add(route),
                        _ => RouteChange::Replace(route),
                    };
                    batch.push(slot, want, change);
                }
            }
            return;
        }
        let more = self.crowded.get(&slot).map(Vec::as_slice).unwrap_or_default();
        for form in std::iter::once(&have).chain(more) {
            let Some(protocol) = self.forms.get(*form).map(|form| form.protocol) else { continue };
            batch.push(slot, NONE, RouteChange::Delete { key, protocol });
        }
    }

    /// Takes the kernel's answer to one change. Returns whether only a dump can tell what is there now.
    pub fn applied(
        &mut self,
        (slot, form): (Slot, FormId),
        change: &RouteChange,
        result: &Result<(), Refusal>,
        now: Instant,
    ) -> bool {
        let mut unclear = false;
        if self.dump.is_some() {
            self.flags[slot as usize] |= TOUCHED;
        }
        match (change, result) {
            (RouteChange::Add(_) | RouteChange::Replace(_), Ok(())) => {
                self.put(slot, form);
                self.forgive(slot);
            }
            (RouteChange::Delete { .. }, Ok(())) => self.drop_one(slot),
            (RouteChange::Delete { .. }, Err(refusal)) if refusal.missing() => self.drop_one(slot),
            (_, Err(refusal)) => {
                // Somebody was quicker: only a dump shows who.
                unclear = refusal.exists();
                self.refusals.note(slot, refusal, now);
                self.set(slot, FAILED, true);
            }
        }
        self.judge(slot);
        self.changed.push(slot);
        unclear
    }

    /// The outcome of these changes is unknown: what is there the next dump tells.
    pub fn unknown(&mut self, batch: &Batch) {
        for (slot, _) in &batch.about {
            self.judge(*slot);
        }
    }

    fn drop_one(&mut self, slot: Slot) {
        let more = self.crowded.get_mut(&slot).and_then(|more| Some((more.pop()?, more.is_empty())));
        match more {
            Some((form, last)) => {
                self.forms.release(form);
                if last {
                    self.crowded.remove(&slot);
                }
            }
            None => self.put(slot, NONE),
        }
        self.forgive(slot);
    }

    /// The kernel has this now.
    fn put(&mut self, slot: Slot, form: FormId) {
        let old = self.cells[slot as usize].have;
        if old != form {
            self.forms.count(form, true);
            self.installed -= usize::from(self.is_installed(slot));
            self.cells[slot as usize].have = form;
            self.installed += usize::from(self.is_installed(slot));
            self.forms.count(old, false);
        }
    }

    /// This is wanted now.
    fn put_want(&mut self, slot: Slot, form: FormId) {
        self.installed -= usize::from(self.is_installed(slot));
        self.cells[slot as usize].want = form;
        self.installed += usize::from(self.is_installed(slot));
    }

    fn is_installed(&self, slot: Slot) -> bool {
        let Cell { want, have } = self.cells[slot as usize];
        want != NONE && want == have
    }

    /// How many slots have what they want.
    pub fn installed(&self) -> usize {
        self.installed
    }

    /// How many slots cannot have what they want: the kernel refused, or somebody else's route is in the way.
    pub fn refused(&self) -> usize {
        let wanted = |slot: &Slot| self.cells[*slot as usize].want != NONE && !self.is_installed(*slot);
        let foreign = self.foreign.keys().filter(|slot| wanted(slot)).count();
        let failed = self
            .refusals
            .iter()
            .filter(|(slot, refusal)| wanted(slot) && !refusal.exists() && !self.foreign.contains_key(slot));
        foreign + failed.count()
    }

    /// Makes those failed slots pending again whose time has come, or all of them.
    pub fn retry(&mut self, now: Instant, all: bool) {
        for slot in self.refusals.due(now, all) {
            self.judge(slot);
        }
    }

    /// When [`Tracker::retry`] has something to do next.
    pub fn next_retry(&self) -> Option<Instant> {
        self.refusals.next()
    }

    fn set(&mut self, slot: Slot, flag: u8, on: bool) {
        let flags = &mut self.flags[slot as usize];
        if on { *flags |= flag } else { *flags &= !flag }
    }

    /// Forgets the last refusal.
    fn forgive(&mut self, slot: Slot) {
        if self.flags[slot as usize] & FAILED == 0 {
            return;
        }
        self.set(slot, FAILED, false);
        self.refusals.forgive(slot);
    }

    /// Whether the slot has not what it should and something can be done about it.
    fn work_left(&self, slot: Slot) -> bool {
        let Cell { want, have } = self.cells[slot as usize];
        let flags = self.flags[slot as usize];
        let crowded = !self.crowded.is_empty() && self.crowded.contains_key(&slot);
        match want {
            NONE => have != NONE && flags & CONDEMNED != 0,
            _ if want == have && !crowded => false,
            // With somebody else's route there, ours can only be taken away.
            _ => flags & FOREIGN == 0 || have != NONE,
        }
    }

    /// Drops entries of slots that are no longer queued, or are twice: a route can flap faster than it is written.
    fn pack_queues(&mut self) {
        let mut there = HashSet::new();
        let flags = &self.flags;
        let mut keep = |slot: &Slot| flags[*slot as usize] & QUEUED != 0 && there.insert(*slot);
        self.removals.retain(&mut keep);
        self.writes.retain(keep);
    }

    /// Restores the invariant for one slot.
    fn judge(&mut self, slot: Slot) {
        let Cell { want, have } = self.cells[slot as usize];
        let unwanted = want == NONE;
        if unwanted && have == NONE {
            self.set(slot, CONDEMNED, false);
        }
        let work = self.work_left(slot);
        if !work {
            self.forgive(slot);
        }
        let later = self.flags[slot as usize] & FAILED != 0 && self.refusals.is_later(slot);
        let queue = work && !later && (unwanted || self.flags[slot as usize] & WAITING == 0);
        let queued = self.flags[slot as usize] & QUEUED != 0;
        // One that was to be written and is to go now has another queue.
        if queue && (!queued || unwanted) {
            self.queued += usize::from(!queued);
            self.set(slot, QUEUED, true);
            if unwanted {
                self.removals.push_back(slot)
            } else {
                self.writes.push_back(slot)
            }
            if self.removals.len() + self.writes.len() > 2 * self.queued + 4096 {
                self.pack_queues();
            }
        } else if !queue && queued {
            self.set(slot, QUEUED, false);
            self.queued -= 1;
        }
        let flags = self.flags[slot as usize];
        let surplus = unwanted && have != NONE && flags & CONDEMNED == 0;
        if surplus != (flags & SURPLUS != 0) {
            self.set(slot, SURPLUS, surplus);
            if surplus {
                self.surplus += 1;
                self.fresh_surplus.push(slot);
            } else {
                self.surplus -= 1;
            }
        }
    }
}

#[cfg(test)]
#[path = "delta_tests.rs"]
mod tests;
