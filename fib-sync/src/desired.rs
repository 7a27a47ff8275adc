//! What bgpd asked for: prefixes on groups of next hops, and the ways those come to. Pure.
//!
//! A prefix hangs on a *bundle*: its group, for its class (the pool it lies in). A bundle has one way and one form, so a
//! resolution or a decision that changes is worked out once, whatever hangs on it. A new connection of bgpd opens a new
//! *epoch*: entries of earlier ones stay as they are, groups and all, until the end-of-snapshot mark of their family (or
//! the restart time) takes those away that were not named again.

mod bar;
mod watched;

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;

use causeway_api::fib::{Family, GroupMember};
use causeway_kernel::Family as KernelFamily;

pub use self::bar::Bar;
use self::watched::Watched;
use crate::forms::{FormId, NONE};
use crate::objects::ObjectId;
use crate::slots::Slot;
use crate::way::{ClassId, Way};

/// The most groups bgpd may have; a route that names one beyond is `failed`.
pub const MAX_GROUPS: usize = 65_536;
/// The most learned prefixes; further ones are `failed`.
pub const MAX_ROUTES: usize = 4_000_000;

/// A group: the epoch it belongs to, and bgpd's name for it.
type GroupKey = (u64, u32);

/// The number of a bundle; 0 is none.
pub type BundleId = u32;

/// No slot.
const NO_SLOT: Slot = Slot::MAX;

#[derive(Debug, Default)]
struct Group {
    members: Vec<GroupMember>,
    backups: Vec<GroupMember>,
    bundles: Vec<BundleId>,
    /// bgpd has deleted it; it goes with its last route.
    deleted: bool,
}

/// The prefixes of one group and class.
#[derive(Debug)]
pub struct Bundle {
    group: GroupKey,
    /// For whose prefixes.
    pub class: ClassId,
    /// Where they go.
    pub way: Way,
    /// The nexthop object they go through, once one is needed.
    pub object: Option<ObjectId>,
    /// The form of their routes, held; [`NONE`] while there is no way.
    pub form: FormId,
    first: Slot,
    len: u32,
}

/// What is known of a slot besides what [`crate::delta`] knows.
#[derive(Debug, Clone, Copy)]
struct Row {
    bundle: BundleId,
    before: Slot,
    after: Slot,
    /// What bgpd was told last, condensed; 0: nothing of this generation.
    told: u32,
    generation: [u32; 2],
}

const EMPTY: Row = Row { bundle: 0, before: NO_SLOT, after: NO_SLOT, told: 0, generation: [0; 2] };

/// Why there may be no route: two bits of the flags.
const BAR: u8 = 3;
/// bgpd is to be told what became of it, or it may be free.
const DIRTY: u8 = 1 << 2;
/// bgpd withdrew it and has not heard that it is gone.
const WITHDRAWN: u8 = 1 << 3;
/// A route of the node's own has the key.
const LOCAL: u8 = 1 << 4;

/// The learned part of the desired set.
#[derive(Debug, Default)]
pub struct Desired {
    epoch: u64,
    groups: HashMap<GroupKey, Group>,
    bundles: Vec<Option<Bundle>>,
    free: Vec<BundleId>,
    rows: Vec<Row>,
    flags: Vec<u8>,
    learned: usize,
    barred: usize,
    dirty: VecDeque<Slot>,
    watched: Watched,
    /// Bundles that lost their last prefix or way and whose form and object are to be given back.
    emptied: Vec<Bundle>,
}

impl Bundle {
    /// How many prefixes it has.
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl Desired {
    /// bgpd begins a snapshot.
    pub fn begin_snapshot(&mut self) {
        self.epoch += 1;
        // They have no route that could be kept, and no group to tell of which epoch they are.
        if self.barred > 0 {
            self.remove_where(|desired, slot| desired.bar(slot) == Bar::NoGroup);
        }
        let idle: Vec<GroupKey> =
            self.groups.iter().filter(|(_, group)| group.bundles.is_empty()).map(|(key, _)| *key).collect();
        for key in idle {
            self.remove_group(key);
        }
    }

    fn remove_group(&mut self, key: GroupKey) -> Option<Group> {
        let group = self.groups.remove(&key)?;
        self.watched.remove(&group.members, &group.backups);
        Some(group)
    }

    /// Creates or replaces a group. Returns its bundles, whose ways are to be worked out anew.
    pub fn set_group(
        &mut self,
        id: u32,
        members: Vec<GroupMember>,
        backups: Vec<GroupMember>,
    ) -> Vec<BundleId> {
        let key = (self.epoch, id);
        if self.groups.len() >= MAX_GROUPS && !self.groups.contains_key(&key) {
            return Vec::new();
        }
        self.watched.add(&members, &backups);
        let group = self.groups.entry(key).or_default();
        let members = std::mem::replace(&mut group.members, members);
        let backups = std::mem::replace(&mut group.backups, backups);
        group.deleted = false;
        let bundles = group.bundles.clone();
        self.watched.remove(&members, &backups);
        bundles
    }

    /// Deletes a group, or marks it for deletion with its last route.
    pub fn delete_group(&mut self, id: u32) {
        let key = (self.epoch, id);
        if let Some(group) = self.groups.get_mut(&key) {
            group.deleted = true;
        }
        self.drop_unused(key);
    }

    /// The members and backups of a group of the present connection.
    pub fn group(&self, id: u32) -> Option<(&[GroupMember], &[GroupMember])> {
        let group = self.groups.get(&(self.epoch, id))?;
        Some((&group.members, &group.backups))
    }

    /// Whether the next hop of some group lies between two addresses, both included.
    pub fn watches(&self, first: IpAddr, last: IpAddr) -> bool {
        self.watched.any(first, last)
    }

    /// The members and backups of a bundle's group.
    pub fn members_of(&self, id: BundleId) -> (&[GroupMember], &[GroupMember]) {
        let group = self.bundle(id).and_then(|bundle| self.groups.get(&bundle.group));
        group.map(|group| (group.members.as_slice(), group.backups.as_slice())).unwrap_or_default()
    }

    /// The bundle of a group of the present connection for a class, if it has one yet. `at` is asked first: the bundle
    /// of the prefix, which names the same group again more often than not.
    pub fn find_bundle(&self, at: Slot, group: u32, class: ClassId) -> Option<BundleId> {
        let key = (self.epoch, group);
        if let Some((id, bundle)) = self.bundle_at(at)
            && bundle.group == key
            && bundle.class == class
        {
            return Some(id);
        }
        let bundles = &self.groups.get(&key)?.bundles;
        bundles.iter().copied().find(|id| self.bundle(*id).is_some_and(|bundle| bundle.class == class))
    }

    /// Gives a group of the present connection a bundle for a class, whose way is this. `None`: there is no such group.
    pub fn add_bundle(&mut self, group: u32, class: ClassId, way: Way) -> Option<BundleId> {
        let key = (self.epoch, group);
        self.groups.get(&key)?;
        Some(self.insert_bundle(key, class, way))
    }

    fn insert_bundle(&mut self, key: GroupKey, class: ClassId, way: Way) -> BundleId {
        let bundle = Bundle { group: key, class, way, object: None, form: NONE, first: NO_SLOT, len: 0 };
        if self.bundles.is_empty() {
            self.bundles.push(None);
        }
        let id = match self.free.pop() {
            Some(id) => {
                self.bundles[id as usize] = Some(bundle);
                id
            }
            None => {
                self.bundles.push(Some(bundle));
                (self.bundles.len() - 1) as BundleId
            }
        };
        self.groups.entry(key).or_default().bundles.push(id);
        id
    }

    /// Puts a prefix on a bundle; `None`: its group is not there.
    pub fn set_route(&mut self, slot: Slot, bundle: Option<BundleId>, generation: u64) {
        self.grow(slot);
        let at = bundle.unwrap_or(0);
        if self.rows[slot as usize].bundle != at || at == 0 {
            self.take_off(slot);
            self.put_on(slot, at);
        }
        self.set_bar(slot, if at == 0 { Bar::NoGroup } else { Bar::Open });
        let row = &mut self.rows[slot as usize];
        row.generation = [(generation >> 32) as u32, generation as u32];
        row.told = 0;
        self.flags[slot as usize] &= !WITHDRAWN;
        self.mark_dirty(slot);
    }

    /// A learned prefix is of another class now: it moves to that bundle of its group. `None` where the group has none
    /// for the class yet: then [`Desired::split`] makes it.
    pub fn reclass(&mut self, slot: Slot, class: ClassId) -> Option<BundleId> {
        let (_, bundle) = self.bundle_at(slot)?;
        let bundles = &self.groups.get(&bundle.group)?.bundles;
        let id = bundles.iter().copied().find(|id| self.bundle(*id).is_some_and(|b| b.class == class))?;
        self.take_off_to(slot, id);
        Some(id)
    }

    /// Gives the group of a prefix a bundle for a class, and moves the prefix there.
    pub fn split(&mut self, slot: Slot, class: ClassId, way: Way) {
        let Some((_, bundle)) = self.bundle_at(slot) else { return };
        let id = self.insert_bundle(bundle.group, class, way);
        self.take_off_to(slot, id);
    }

    fn take_off_to(&mut self, slot: Slot, id: BundleId) {
        if self.rows[slot as usize].bundle != id {
            // Not by `take_off`: the group must not look unused in between.
            let old = self.rows[slot as usize];
            self.rows[slot as usize] = Row { bundle: 0, before: NO_SLOT, after: NO_SLOT, ..old };
            self.unlink(old);
            self.learned -= 1;
            self.put_on(slot, id);
        }
    }

    /// A learned prefix has another slot from now on, because its key is another.
    pub fn rekey(&mut self, old: Slot, new: Slot) {
        self.grow(new);
        let row = self.rows[old as usize];
        let bar = self.bar(old);
        self.rows[old as usize] = EMPTY;
        self.set_bar(old, Bar::Open);
        self.unlink(row);
        self.learned -= 1;
        self.put_on(new, row.bundle);
        self.rows[new as usize].generation = row.generation;
        self.set_bar(new, bar);
        self.mark_dirty(old);
        self.mark_dirty(new);
    }

    /// Removes a learned route; whether there was one. bgpd is told when the kernel has none any more.
    pub fn withdraw(&mut self, slot: Slot, generation: u64) -> bool {
        self.grow(slot);
        let there = self.remove(slot);
        let row = &mut self.rows[slot as usize];
        row.generation = [(generation >> 32) as u32, generation as u32];
        row.told = 0;
        self.flags[slot as usize] |= WITHDRAWN;
        self.mark_dirty(slot);
        there
    }

    /// Removes a learned route without a word.
    fn remove(&mut self, slot: Slot) -> bool {
        let there = self.take_off(slot);
        self.set_bar(slot, Bar::Open);
        self.mark_dirty(slot);
        there
    }

    /// Puts a prefix on a bundle; on none where its group is not there.
    fn put_on(&mut self, slot: Slot, id: BundleId) {
        self.learned += 1;
        let Some(bundle) = self.bundles.get_mut(id as usize).and_then(Option::as_mut) else {
            self.rows[slot as usize].bundle = 0;
            return;
        };
        let after = std::mem::replace(&mut bundle.first, slot);
        bundle.len += 1;
        if after != NO_SLOT {
            self.rows[after as usize].before = slot;
        }
        let row = &mut self.rows[slot as usize];
        (row.bundle, row.before, row.after) = (id, NO_SLOT, after);
    }

    /// Takes a prefix off its bundle. Whether it was learned at all.
    fn take_off(&mut self, slot: Slot) -> bool {
        if !self.is_learned(slot) {
            return false;
        }
        self.learned -= 1;
        let row = self.rows[slot as usize];
        self.rows[slot as usize] = Row { bundle: 0, before: NO_SLOT, after: NO_SLOT, ..row };
        if let Some(group) = self.unlink(row)
            && (group.0 != self.epoch || self.groups.get(&group).is_some_and(|group| group.deleted))
        {
            self.drop_unused(group);
        }
        true
    }

    /// Takes a row out of its bundle's list; the group if that was the bundle's last.
    fn unlink(&mut self, row: Row) -> Option<GroupKey> {
        let Row { bundle: id, before, after, .. } = row;
        let bundle = self.bundles.get_mut(id as usize)?.as_mut()?;
        bundle.len -= 1;
        if before == NO_SLOT {
            bundle.first = after;
        }
        let last = (bundle.len == 0).then_some(bundle.group);
        if before != NO_SLOT {
            self.rows[before as usize].after = after;
        }
        if after != NO_SLOT {
            self.rows[after as usize].before = before;
        }
        last
    }

    /// Drops a group nobody names any more and that bgpd deleted, or that is of the past.
    fn drop_unused(&mut self, key: GroupKey) {
        let Some(group) = self.groups.get(&key) else { return };
        let used = group.bundles.iter().any(|id| self.bundle(*id).is_some_and(|bundle| bundle.len > 0));
        if used || !(group.deleted || key.0 != self.epoch) {
            return;
        }
        let Some(group) = self.remove_group(key) else { return };
        for id in group.bundles {
            if let Some(bundle) = self.bundles[id as usize].take() {
                self.emptied.push(Bundle { first: id, ..bundle });
                self.free.push(id);
            }
        }
    }

    /// Bundles that are gone, with their numbers: what they held is to be given back.
    pub fn take_emptied(&mut self) -> Vec<(BundleId, Bundle)> {
        std::mem::take(&mut self.emptied).into_iter().map(|bundle| (bundle.first, bundle)).collect()
    }

    /// Removes the routes of a family that the present epoch did not name; returns them.
    pub fn end_snapshot(&mut self, family: Family, of: impl Fn(Slot) -> KernelFamily) -> Vec<Slot> {
        let epoch = self.epoch;
        let gone = |desired: &Desired, slot: Slot| {
            let bundle = desired.bundle(desired.rows[slot as usize].bundle);
            feed_family(of(slot)) == family && bundle.is_some_and(|bundle| bundle.group.0 != epoch)
        };
        self.remove_where(gone)
    }

    /// Removes every learned route and group; returns the routes.
    pub fn clear(&mut self) -> Vec<Slot> {
        self.epoch += 1;
        let gone = self.remove_where(|desired, slot| desired.is_learned(slot));
        let keys: Vec<GroupKey> = self.groups.keys().copied().collect();
        for key in keys {
            self.drop_unused(key);
        }
        gone
    }

    fn remove_where(&mut self, gone: impl Fn(&Desired, Slot) -> bool) -> Vec<Slot> {
        let slots: Vec<Slot> = (0..self.rows.len() as Slot).filter(|slot| gone(self, *slot)).collect();
        for slot in &slots {
            self.remove(*slot);
        }
        slots
    }

    /// The way of a bundle is this now; the one before, if it was another.
    pub fn set_way(&mut self, id: BundleId, way: Way) -> Option<Way> {
        let bundle = self.bundle_mut(id)?;
        (bundle.way != way).then(|| std::mem::replace(&mut bundle.way, way))
    }

    /// All bundles.
    pub fn bundle_ids(&self) -> Vec<BundleId> {
        let there = self.bundles.iter().enumerate().filter(|(_, bundle)| bundle.is_some());
        there.map(|(id, _)| id as BundleId).collect()
    }

    /// A bundle.
    pub fn bundle(&self, id: BundleId) -> Option<&Bundle> {
        self.bundles.get(id as usize)?.as_ref()
    }

    /// A bundle, to change its form or object.
    pub fn bundle_mut(&mut self, id: BundleId) -> Option<&mut Bundle> {
        self.bundles.get_mut(id as usize)?.as_mut()
    }

    /// Whether a bundle belongs to an earlier connection of bgpd.
    pub fn of_the_past(&self, id: BundleId) -> bool {
        self.bundle(id).is_none_or(|bundle| bundle.group.0 != self.epoch)
    }

    /// The prefixes of a bundle.
    pub fn slots_of(&self, id: BundleId) -> Vec<Slot> {
        let Some(bundle) = self.bundle(id) else { return Vec::new() };
        let mut slots = Vec::with_capacity(bundle.len as usize);
        let mut next = bundle.first;
        while next != NO_SLOT {
            slots.push(next);
            next = self.rows[next as usize].after;
        }
        slots
    }

    /// Whether a bundle has a prefix.
    pub fn in_use(&self, id: BundleId) -> bool {
        self.bundle(id).is_some_and(|bundle| bundle.len > 0)
    }

    /// The bundles that have prefixes.
    pub fn used(&self) -> impl Iterator<Item = &Bundle> {
        self.bundles.iter().flatten().filter(|bundle| bundle.len > 0)
    }

    /// The bundle of a slot; `None` where nothing is learned or its group is not there.
    pub fn bundle_at(&self, slot: Slot) -> Option<(BundleId, &Bundle)> {
        let id = self.rows.get(slot as usize)?.bundle;
        Some((id, self.bundle(id)?))
    }

    /// How many prefixes are barred.
    pub fn barred(&self) -> usize {
        self.barred
    }

    /// Says what bars a slot.
    pub fn set_bar(&mut self, slot: Slot, bar: Bar) {
        self.barred -= usize::from(self.bar(slot) != Bar::Open);
        self.barred += usize::from(bar != Bar::Open);
        let flags = &mut self.flags[slot as usize];
        *flags = *flags & !BAR | bar as u8;
    }

    /// What bars a slot.
    pub fn bar(&self, slot: Slot) -> Bar {
        match self.flags.get(slot as usize).map_or(0, |flags| flags & BAR) {
            0 => Bar::Open,
            1 => Bar::Guard,
            2 => Bar::NoGroup,
            _ => Bar::TooMany,
        }
    }

    /// Whether a slot is learned.
    pub fn is_learned(&self, slot: Slot) -> bool {
        let Some(row) = self.rows.get(slot as usize) else { return false };
        row.bundle != 0 || self.bar(slot) == Bar::NoGroup
    }

    /// All learned slots.
    pub fn learned(&self) -> impl Iterator<Item = Slot> {
        (0..self.rows.len() as Slot).filter(|slot| self.is_learned(*slot))
    }

    /// How many learned prefixes there are.
    pub fn len(&self) -> usize {
        self.learned
    }

    /// Whether there is no learned prefix.
    pub fn is_empty(&self) -> bool {
        self.learned == 0
    }

    /// A route of the node's own has the slot's key, or no longer.
    pub fn set_local(&mut self, slot: Slot, local: bool) {
        self.grow(slot);
        let flags = &mut self.flags[slot as usize];
        if local {
            *flags |= LOCAL
        } else {
            *flags &= !LOCAL
        }
        self.mark_dirty(slot);
    }

    /// Whether a route of the node's own has the slot's key.
    pub fn is_local(&self, slot: Slot) -> bool {
        self.flags.get(slot as usize).is_some_and(|flags| flags & LOCAL != 0)
    }

    /// The generation of a learned or withdrawn prefix, if it was named on the present connection.
    pub fn generation(&self, slot: Slot) -> Option<u64> {
        let row = self.rows.get(slot as usize)?;
        let withdrawn = self.flags[slot as usize] & WITHDRAWN != 0;
        let present = withdrawn
            || self.bar(slot) == Bar::NoGroup
            || self.bundle(row.bundle).is_some_and(|bundle| bundle.group.0 == self.epoch);
        let [high, low] = row.generation.map(u64::from);
        present.then_some(high << 32 | low)
    }

    /// Whether bgpd withdrew it and waits to hear that it is gone.
    pub fn is_withdrawn(&self, slot: Slot) -> bool {
        self.flags.get(slot as usize).is_some_and(|flags| flags & WITHDRAWN != 0)
    }

    /// bgpd heard that it is gone.
    pub fn heard_of_end(&mut self, slot: Slot) {
        self.flags[slot as usize] &= !WITHDRAWN;
    }

    /// Forgets who was told what: another connection.
    pub fn forget_told(&mut self) {
        for slot in 0..self.rows.len() {
            self.rows[slot].told = 0;
            if self.flags[slot] & WITHDRAWN != 0 {
                self.flags[slot] &= !WITHDRAWN;
                self.mark_dirty(slot as Slot);
            }
        }
    }

    /// Notes what bgpd is told of this generation; whether that is news.
    pub fn tell(&mut self, slot: Slot, what: u32) -> bool {
        let row = &mut self.rows[slot as usize];
        std::mem::replace(&mut row.told, what) != what
    }

    /// Something about a slot changed.
    pub fn mark_dirty(&mut self, slot: Slot) {
        self.grow(slot);
        if self.flags[slot as usize] & DIRTY == 0 {
            self.flags[slot as usize] |= DIRTY;
            self.dirty.push_back(slot);
        }
    }

    /// One slot about which something changed.
    pub fn pop_dirty(&mut self) -> Option<Slot> {
        let slot = self.dirty.pop_front()?;
        self.flags[slot as usize] &= !DIRTY;
        Some(slot)
    }

    /// Whether something changed that nobody has looked at.
    pub fn has_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// Whether nothing is known of a slot: it may be free.
    pub fn is_idle(&self, slot: Slot) -> bool {
        self.rows[slot as usize].bundle == 0 && self.flags[slot as usize] == 0
    }

    /// A slot is free: it may be another prefix's from now on.
    pub fn forget(&mut self, slot: Slot) {
        self.rows[slot as usize] = EMPTY;
    }

    fn grow(&mut self, slot: Slot) {
        while self.rows.len() <= slot as usize {
            self.rows.push(EMPTY);
            self.flags.push(0);
        }
    }
}

/// The feed's word for a family.
pub fn feed_family(family: KernelFamily) -> Family {
    match family {
        KernelFamily::Ipv4 => Family::Ipv4,
        KernelFamily::Ipv6 => Family::Ipv6,
    }
}
