//! Nexthop objects: what routes lead to, as things of their own, so that one message moves all routes on one.
//!
//! Every way learned routes go has a *group* object, also where it has one member: the kernel replaces a group by no
//! single object and the other way round. Its members are single objects, one for each gateway and device, shared by all
//! groups. The kernel gives the numbers; we have our own ([`ObjectId`]), which outlive it when the kernel's object goes with
//! its link and has to be made again.
//!
//! Where a way has a backup on another link, the group has it as its last member with the least weight there is, which in a
//! resilient group comes to no bucket at all: it carries nothing. But a group that loses its last member goes with all
//! its routes; with the backup in it, it stays, and the kernel hands it the buckets at the moment the link is lost.
//!
//! An object whose last user went stays as an *orphan* while routes name it, because the kernel deletes an object's routes
//! with it; so do those found after a restart, until a way of the same next hops takes them over.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use causeway_kernel::{Error, Family, Kernel, NextHop, Nexthop, NexthopKind, Refusal};
use nix::errno::Errno;

use crate::delta::{FIRST_RETRY, LONGEST_RETRY};

/// Our number of an object.
pub type ObjectId = u32;

/// The number of what uses an object.
pub type User = u32;

#[derive(Debug, Default)]
struct Object {
    /// Where it should lead; empty for an orphan that leads where no way of ours goes.
    hops: Vec<NextHop>,
    users: Vec<User>,
    /// The kernel's number.
    kernel: Option<u32>,
    /// Where the kernel's leads, as far as known.
    written: Option<Vec<NextHop>>,
    failure: Option<Failure>,
}

#[derive(Debug)]
struct Failure {
    refusal: Refusal,
    again: Instant,
    wait: Duration,
}

/// The share of the members of a group with a standby, in all of them together at least: with [`STANDBY`] more, 128
/// buckets come to less than half a bucket for the standby, which is none when it is the last member.
const WHOLE: u16 = 255;
/// The share of a standby.
const STANDBY: u16 = 1;

/// What writing came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Written {
    /// Some object was made anew: what waited for one can be written.
    pub made: bool,
    /// The kernel has no resilient groups: every layout is to be worked out anew, and the rest written.
    pub relayout: bool,
}

/// Counts since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ObjectCounts {
    /// Objects made, replaced and deleted.
    pub writes: u64,
    /// Of these, those refused.
    pub refusals: u64,
}

/// All objects of ours.
#[derive(Debug)]
pub struct Objects {
    /// Whether they are used at all.
    wanted: bool,
    /// Whether the kernel has them, as far as known.
    supported: bool,
    /// Groups are made resilient.
    resilient: bool,
    /// The kernel took a group as we make them.
    proven: bool,
    list: Vec<Option<Object>>,
    free: Vec<ObjectId>,
    by_kernel: HashMap<u32, ObjectId>,
    orphans: HashMap<Vec<NextHop>, BTreeSet<ObjectId>>,
    /// The kernel's numbers of single objects.
    singles: BTreeMap<NextHop, u32>,
    /// To be made or replaced.
    dirty: BTreeSet<ObjectId>,
    /// May be orphans without a route.
    doomed: BTreeSet<ObjectId>,
    /// Some single object may be in no group any more.
    loose_singles: bool,
    /// Kernel numbers nobody needs: doubles, and groups of another type.
    surplus: Vec<u32>,
    counts: ObjectCounts,
}

impl Objects {
    /// None yet. `wanted`: false where they are not to be used.
    pub fn new(wanted: bool) -> Objects {
        Objects {
            wanted,
            supported: true,
            resilient: true,
            proven: false,
            list: Vec::new(),
            free: Vec::new(),
            by_kernel: HashMap::new(),
            orphans: HashMap::new(),
            singles: BTreeMap::new(),
            dirty: BTreeSet::new(),
            doomed: BTreeSet::new(),
            loose_singles: false,
            surplus: Vec::new(),
            counts: ObjectCounts::default(),
        }
    }

    /// Whether routes name objects.
    pub fn used(&self) -> bool {
        self.wanted && self.supported
    }

    /// Counts since the start.
    pub fn counts(&self) -> ObjectCounts {
        self.counts
    }

    /// The members of the group for a way, in order: what the other methods take as next hops.
    pub fn layout(&self, hops: &[NextHop], standby: Option<NextHop>) -> Vec<NextHop> {
        let most = hops.iter().map(|hop| hop.weight).max().unwrap_or(1).max(1);
        let scale = (WHOLE / most).max(1);
        let scaled: Vec<NextHop> =
            hops.iter().map(|hop| NextHop { weight: hop.weight * scale, ..*hop }).collect();
        match standby {
            // With less in all the standby's share would be a bucket.
            Some(standby) if self.resilient && scaled.iter().map(|hop| hop.weight).sum::<u16>() >= WHOLE => {
                scaled.into_iter().chain([NextHop { weight: STANDBY, ..standby }]).collect()
            }
            _ => hops.to_vec(),
        }
    }

    /// An object that leads to these next hops, for one user. `near` is the one the route has now: it is taken over
    /// when nobody uses it, or when `shared` says that all its users may share it.
    pub fn assign(
        &mut self,
        user: User,
        hops: &[NextHop],
        near: Option<ObjectId>,
        shared: impl Fn(User) -> bool,
    ) -> ObjectId {
        let near = near.filter(|id| {
            self.get(*id)
                .is_some_and(|object| object.hops == hops && object.users.iter().all(|user| shared(*user)))
        });
        let orphan = || self.orphans.get(hops).and_then(|ids| ids.first().copied());
        let id = near.or_else(orphan).unwrap_or_else(|| {
            let id = self.insert(Object { hops: hops.to_vec(), ..Object::default() });
            self.dirty.insert(id);
            id
        });
        self.adopt(id);
        if let Some(object) = self.get_mut(id) {
            object.users.push(user);
        }
        id
    }

    /// A user goes to other next hops. Whether the object moved along: all its users agree (`agrees`).
    pub fn moved(&mut self, id: ObjectId, hops: &[NextHop], agrees: impl Fn(User) -> bool) -> bool {
        let Some(object) = self.get_mut(id) else { return false };
        if object.hops == hops {
            return true;
        }
        if !object.users.iter().all(|user| agrees(*user)) {
            return false;
        }
        object.hops = hops.to_vec();
        object.failure = None;
        self.dirty.insert(id);
        true
    }

    /// A user goes.
    pub fn leave(&mut self, id: ObjectId, user: User) {
        let Some(object) = self.get_mut(id) else { return };
        object.users.retain(|other| *other != user);
        if object.users.is_empty() {
            // What the kernel has is what a later way may take over.
            object.hops = object.written.clone().unwrap_or_default();
            let hops = object.hops.clone();
            self.dirty.remove(&id);
            self.orphans.entry(hops).or_default().insert(id);
            self.doomed.insert(id);
        }
    }

    /// The kernel's number of an object that is there.
    pub fn kernel(&self, id: ObjectId) -> Option<u32> {
        self.get(id)?.kernel
    }

    /// Our number of a kernel's object.
    pub fn of_kernel(&self, kernel: u32) -> Option<ObjectId> {
        self.by_kernel.get(&kernel).copied()
    }

    /// Where an object leads.
    pub fn hops(&self, id: ObjectId) -> &[NextHop] {
        self.get(id).map(|object| object.hops.as_slice()).unwrap_or_default()
    }

    /// The kernel's "no" to an object.
    pub fn refusal(&self, id: ObjectId) -> Option<&Refusal> {
        self.get(id)?.failure.as_ref().map(|failure| &failure.refusal)
    }

    /// Whether the kernel's objects lead through a device.
    pub fn uses(&self, ifindex: u32) -> bool {
        let written = self.list.iter().flatten().filter_map(|object| object.written.as_ref());
        written.flatten().any(|hop| hop.ifindex == ifindex)
    }

    /// How many objects there are.
    pub fn len(&self) -> usize {
        self.list.iter().flatten().count()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes in what the kernel has; `None`: it has no such thing. `ours` tells whose a protocol number is.
    /// Whether that changes what routes can be made of.
    pub fn observe(&mut self, found: Option<Vec<Nexthop>>, ours: impl Fn(u8) -> bool) -> bool {
        let Some(found) = found else {
            return std::mem::replace(&mut self.supported, false);
        };
        self.singles.clear();
        self.surplus.clear();
        self.loose_singles = true;
        let mut hops_of: HashMap<u32, NextHop> = HashMap::new();
        for nexthop in found.iter().filter(|nexthop| ours(nexthop.protocol)) {
            if let NexthopKind::Single { hop, .. } = &nexthop.kind {
                hops_of.insert(nexthop.id, *hop);
                if let Some(double) = self.singles.insert(*hop, nexthop.id) {
                    // The one a group uses may be either: neither is deleted while one does.
                    self.surplus.push(double);
                }
            }
        }
        let mut there = BTreeSet::new();
        let mut in_groups: BTreeSet<u32> = BTreeSet::new();
        for nexthop in found.iter().filter(|nexthop| ours(nexthop.protocol)) {
            let NexthopKind::Group { members, resilient } = &nexthop.kind else { continue };
            in_groups.extend(members.iter().map(|(id, _)| *id));
            let hops: Option<Vec<NextHop>> = members
                .iter()
                .map(|(id, weight)| hops_of.get(id).map(|hop| NextHop { weight: *weight, ..*hop }))
                .collect();
            let written = hops;
            there.insert(nexthop.id);
            match self.of_kernel(nexthop.id) {
                Some(id) => self.seen(id, written),
                None => {
                    // One of the other type cannot be replaced by ours: its routes move away from it.
                    let hops = written.clone().filter(|_| *resilient == self.resilient).unwrap_or_default();
                    let object =
                        Object { hops: hops.clone(), kernel: Some(nexthop.id), written, ..Object::default() };
                    let id = self.insert(object);
                    self.by_kernel.insert(nexthop.id, id);
                    self.orphans.entry(hops).or_default().insert(id);
                    self.doomed.insert(id);
                }
            }
        }
        self.surplus.retain(|id| !in_groups.contains(id));
        let gone: Vec<u32> = self.by_kernel.keys().filter(|id| !there.contains(id)).copied().collect();
        for kernel in gone {
            if let Some(id) = self.by_kernel.remove(&kernel) {
                self.lost(id);
            }
        }
        false
    }

    /// The kernel's object is there and leads there.
    fn seen(&mut self, id: ObjectId, written: Option<Vec<NextHop>>) {
        let Some(object) = self.get_mut(id) else { return };
        object.written = written;
        if object.users.is_empty() {
            let hops = object.written.clone().unwrap_or_default();
            let old = std::mem::replace(&mut object.hops, hops.clone());
            self.unlist(id, &old);
            self.orphans.entry(hops).or_default().insert(id);
            self.doomed.insert(id);
        } else if object.written.as_ref() != Some(&object.hops) {
            self.dirty.insert(id);
        }
    }

    /// The kernel's object is gone, and its routes with it.
    fn lost(&mut self, id: ObjectId) {
        let Some(object) = self.get_mut(id) else { return };
        (object.kernel, object.written) = (None, None);
        if object.users.is_empty() {
            self.doomed.insert(id);
        } else {
            self.dirty.insert(id);
        }
    }

    /// When [`Objects::write`] has something to try again.
    pub fn next_retry(&self) -> Option<Instant> {
        let failures = self.dirty.iter().filter_map(|id| self.get(*id)?.failure.as_ref());
        failures.map(|failure| failure.again).min()
    }

    /// Makes and replaces what is due. `all`: also what was refused a moment ago.
    ///
    /// # Errors
    /// What is there is unknown: the caller must dump.
    pub fn write(
        &mut self,
        kernel: &mut impl Kernel,
        protocol: u8,
        now: Instant,
        all: bool,
    ) -> Result<Written, Error> {
        let mut made = false;
        let unproven = self.resilient && !self.proven;
        let due = |object: &Object| object.failure.as_ref().is_none_or(|failure| all || failure.again <= now);
        let ids: Vec<ObjectId> =
            self.dirty.iter().copied().filter(|id| self.get(*id).is_some_and(due)).collect();
        for id in ids {
            let Some(object) = self.get(id) else { continue };
            if object.written.as_ref() == Some(&object.hops) && object.kernel.is_some() {
                self.dirty.remove(&id);
                continue;
            }
            let (hops, known) = (object.hops.clone(), object.kernel);
            self.counts.writes += 1;
            let result = self.write_group(kernel, &hops, known, protocol);
            let Some(object) = self.get_mut(id) else { continue };
            match result {
                Ok(number) => {
                    made |= object.kernel.is_none();
                    object.kernel = Some(number);
                    object.written = Some(hops);
                    object.failure = None;
                    self.by_kernel.insert(number, id);
                    self.dirty.remove(&id);
                    self.loose_singles = true;
                    self.proven = true;
                }
                Err(Error::Refused { refusal, .. })
                    if unproven
                        && known.is_none()
                        && matches!(refusal.errno, Errno::EINVAL | Errno::EOPNOTSUPP) =>
                {
                    tracing::info!(%refusal, "this kernel has no resilient groups (Linux 5.14 does)");
                    self.resilient = false;
                    return Ok(Written { made, relayout: true });
                }
                Err(Error::Refused { refusal, what }) => {
                    let wait = object.failure.as_ref().map(|last| (last.wait * 2).min(LONGEST_RETRY));
                    let wait = wait.unwrap_or(FIRST_RETRY);
                    object.failure = Some(Failure { refusal: refusal.clone(), again: now + wait, wait });
                    self.counts.refusals += 1;
                    tracing::debug!(%what, %refusal, "the kernel refused a nexthop object");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(Written { made, relayout: false })
    }

    fn write_group(
        &mut self,
        kernel: &mut impl Kernel,
        hops: &[NextHop],
        known: Option<u32>,
        protocol: u8,
    ) -> Result<u32, Error> {
        let mut members = Vec::with_capacity(hops.len());
        for hop in hops {
            let single = NextHop { weight: 1, ..*hop };
            let id = match self.singles.get(&single) {
                Some(id) => *id,
                None => {
                    // A hop without a gateway is for IPv4 alone; ours have one.
                    let id = kernel.add_nexthop(&NexthopKind::single(Family::Ipv4, single), protocol)?;
                    self.singles.insert(single, id);
                    id
                }
            };
            members.push((id, hop.weight));
        }
        let group = NexthopKind::group(members, self.resilient);
        let Some(known) = known else { return kernel.add_nexthop(&group, protocol) };
        kernel.replace_nexthop(known, &group, protocol).map(|()| known)
    }

    /// Deletes objects nobody uses and no route names (`routes`), then single ones in no group.
    ///
    /// # Errors
    /// What is there is unknown: the caller must dump.
    pub fn clean(&mut self, kernel: &mut impl Kernel, routes: impl Fn(ObjectId) -> u32) -> Result<(), Error> {
        for id in std::mem::take(&mut self.doomed) {
            let Some(object) = self.get(id) else { continue };
            if !object.users.is_empty() {
                continue;
            }
            if routes(id) > 0 {
                self.doomed.insert(id);
                continue;
            }
            if let Some(number) = object.kernel {
                self.delete(kernel, number)?;
                self.by_kernel.remove(&number);
            }
            let hops = self.get_mut(id).map(|object| std::mem::take(&mut object.hops)).unwrap_or_default();
            self.unlist(id, &hops);
            self.list[id as usize] = None;
            self.free.push(id);
            self.loose_singles = true;
        }
        if std::mem::take(&mut self.loose_singles) {
            let objects = self.list.iter().flatten();
            let hops = objects.flat_map(|object| object.hops.iter().chain(object.written.iter().flatten()));
            let used: BTreeSet<NextHop> = hops.map(|hop| NextHop { weight: 1, ..*hop }).collect();
            let loose: Vec<NextHop> =
                self.singles.keys().filter(|hop| !used.contains(hop)).copied().collect();
            for hop in loose {
                if let Some(number) = self.singles.remove(&hop) {
                    self.delete(kernel, number)?;
                }
            }
        }
        for number in std::mem::take(&mut self.surplus) {
            self.delete(kernel, number)?;
        }
        Ok(())
    }

    fn delete(&mut self, kernel: &mut impl Kernel, number: u32) -> Result<(), Error> {
        self.counts.writes += 1;
        match kernel.delete_nexthop(number) {
            Err(Error::Refused { refusal, .. }) if refusal.missing() => Ok(()),
            Err(Error::Refused { refusal, what }) => {
                self.counts.refusals += 1;
                tracing::debug!(%what, %refusal, "the kernel refused to delete a nexthop object");
                Ok(())
            }
            other => other,
        }
    }

    /// It has a user from now on.
    fn adopt(&mut self, id: ObjectId) {
        let Some(object) = self.get(id) else { return };
        if object.users.is_empty() {
            let hops = object.hops.clone();
            self.unlist(id, &hops);
            let object = self.get(id);
            if object.is_some_and(|object| object.kernel.is_none() || object.written.as_ref() != Some(&hops))
            {
                self.dirty.insert(id);
            }
        }
    }

    fn unlist(&mut self, id: ObjectId, hops: &[NextHop]) {
        if let Some(ids) = self.orphans.get_mut(hops) {
            ids.remove(&id);
            if ids.is_empty() {
                self.orphans.remove(hops);
            }
        }
    }

    fn insert(&mut self, object: Object) -> ObjectId {
        match self.free.pop() {
            Some(id) => {
                self.list[id as usize] = Some(object);
                id
            }
            None => {
                self.list.push(Some(object));
                (self.list.len() - 1) as ObjectId
            }
        }
    }

    fn get(&self, id: ObjectId) -> Option<&Object> {
        self.list.get(id as usize)?.as_ref()
    }

    fn get_mut(&mut self, id: ObjectId) -> Option<&mut Object> {
        self.list.get_mut(id as usize)?.as_mut()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// How many of 128 buckets Linux gives each member (`nh_res_group_rebalance`).
    fn buckets(weights: &[u16]) -> Vec<u64> {
        let total: u64 = weights.iter().map(|weight| u64::from(*weight)).sum();
        let bound = |sum: u64| (128 * sum + total / 2) / total;
        let sums = weights.iter().scan(0, |sum, weight| {
            let before = bound(*sum);
            *sum += u64::from(*weight);
            Some(bound(*sum) - before)
        });
        sums.collect()
    }

    fn hop(number: u8, weight: u16) -> NextHop {
        NextHop { weight, ..NextHop::gateway([192, 0, 2, number].into(), 1) }
    }

    proptest! {
        #[test]
        fn a_standby_has_no_bucket_and_changes_no_share(weights in prop::collection::vec(1u16..=255, 1..64)) {
            let hops: Vec<NextHop> = weights.iter().zip(0..).map(|(weight, n)| hop(n, *weight)).collect();
            let objects = Objects::new(true);
            let layout = objects.layout(&hops, Some(hop(99, 1)));
            let found = buckets(&layout.iter().map(|hop| hop.weight).collect::<Vec<_>>());
            if layout.len() > hops.len() {
                prop_assert_eq!(found.last(), Some(&0));
            }
            for (with, without) in found.iter().zip(buckets(&weights)) {
                prop_assert!(with.abs_diff(without) <= 1);
            }
        }
    }

    #[test]
    fn whoever_goes_alone_has_a_standby() {
        let layout = |weights: &[u16]| {
            let hops: Vec<NextHop> = weights.iter().zip(0..).map(|(weight, n)| hop(n, *weight)).collect();
            let layout = Objects::new(true).layout(&hops, Some(hop(99, 1)));
            layout.iter().map(|hop| hop.weight).collect::<Vec<_>>()
        };
        assert_eq!(layout(&[1]), [255, 1]);
        assert_eq!(layout(&[4, 1]), [252, 63, 1]);
        assert_eq!(layout(&[200, 1]), [200, 1], "the least share would be a bucket");
    }
}
