use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use causeway_kernel::{NextHop, Route};
use ipnetwork::IpNetwork;
use nix::errno::Errno;
use proptest::prelude::*;

use super::*;
use crate::forms::Form;

fn route(n: u8, gateway: u8) -> Route {
    let destination = IpNetwork::new(IpAddr::from([10, n, 0, 0]), 16).unwrap();
    Route::unicast(destination, vec![NextHop::gateway(IpAddr::from([192, 0, 2, gateway]), 1)])
}

impl Tracker {
    fn slot_of(&mut self, n: u8) -> Slot {
        self.slot(&route(n, 1).key).unwrap()
    }

    fn hold(&mut self, n: u8, gateway: u8) -> FormId {
        self.forms_mut().hold(Form::of(&route(n, gateway), |_| None))
    }

    fn want_route(&mut self, n: u8, gateway: Option<u8>) {
        let slot = self.slot_of(n);
        match gateway {
            Some(gateway) => {
                let form = self.hold(n, gateway);
                self.want(slot, form);
                self.forms_mut().release(form);
            }
            None => self.want(slot, NONE),
        }
    }

    /// A whole dump at once.
    fn dump(&mut self, ours: &BTreeMap<u8, u8>, foreign: &[u8]) -> Observed {
        self.dump_begin();
        for (n, gateway) in ours {
            self.show(*n, *gateway);
        }
        for n in foreign {
            let slot = self.slot_of(*n);
            self.observe_foreign(slot, 12);
        }
        self.dump_end()
    }

    fn show(&mut self, n: u8, gateway: u8) {
        let slot = self.slot_of(n);
        let form = self.hold(n, gateway);
        self.observe(slot, form);
        self.forms_mut().release(form);
    }

    fn all(&mut self) -> Batch {
        self.changes(usize::MAX, false, |_| None)
    }

    /// The kernel answers all of a batch in the same way; whether something is unclear.
    fn answer(&mut self, batch: &Batch, result: &Result<(), Refusal>, now: Instant) -> bool {
        let mut unclear = false;
        for (change, about) in batch.changes.iter().zip(&batch.about) {
            unclear |= self.applied(*about, change, result, now);
        }
        unclear
    }
}

fn number(change: &RouteChange) -> u8 {
    match change.key().destination.ip() {
        IpAddr::V4(address) => address.octets()[1],
        IpAddr::V6(_) => panic!("an IPv6 key"),
    }
}

#[derive(Debug, Clone)]
enum Step {
    Want(u8, Option<u8>),
    Disclaim(u8),
    CondemnAll,
    /// What the kernel has: ours and others', by key.
    Dump(BTreeMap<u8, u8>, Vec<u8>),
    Write,
    WriteAllRefused,
    RetryAll,
}

fn step() -> impl Strategy<Value = Step> {
    let key = 0u8..6;
    prop_oneof![
        4 => (key.clone(), prop::option::of(1u8..4)).prop_map(|(key, gateway)| Step::Want(key, gateway)),
        1 => key.clone().prop_map(Step::Disclaim),
        1 => Just(Step::CondemnAll),
        2 => (prop::collection::btree_map(key.clone(), 1u8..4, 0..6), prop::collection::vec(key, 0..3))
            .prop_map(|(ours, foreign)| Step::Dump(ours, foreign)),
        3 => Just(Step::Write),
        1 => Just(Step::WriteAllRefused),
        1 => Just(Step::RetryAll),
    ]
}

/// The same rules, computed from scratch.
#[derive(Default)]
struct Naive {
    desired: BTreeMap<u8, u8>,
    condemned: BTreeSet<u8>,
    ours: BTreeMap<u8, u8>,
    foreign: BTreeSet<u8>,
    refused: BTreeSet<u8>,
}

impl Naive {
    fn changes(&self) -> Vec<RouteChange> {
        let mut deletions = Vec::new();
        let mut rest = Vec::new();
        for key in (0..6).filter(|key| !self.refused.contains(key)) {
            let delete = RouteChange::Delete { key: route(key, 1).key, protocol: 179 };
            match (self.desired.get(&key), self.ours.get(&key), self.foreign.contains(&key)) {
                (None, Some(_), _) if self.condemned.contains(&key) => deletions.push(delete),
                (Some(want), None, false) => rest.push(RouteChange::Add(route(key, *want))),
                (Some(want), Some(have), false) if want != have => {
                    rest.push(RouteChange::Replace(route(key, *want)));
                }
                (Some(want), Some(have), true) if want != have => rest.push(delete),
                _ => {}
            }
        }
        deletions.extend(rest);
        deletions
    }

    fn tidy(&mut self) {
        let Naive { desired, condemned, ours, .. } = self;
        condemned.retain(|key| ours.contains_key(key) && !desired.contains_key(key));
        let refused = std::mem::take(&mut self.refused);
        let left: BTreeSet<u8> = self.changes().iter().map(number).collect();
        self.refused = refused.intersection(&left).copied().collect();
    }
}

proptest! {
    #[test]
    fn queued_is_what_a_naive_diff_finds(steps in prop::collection::vec(step(), 0..40)) {
        let now = Instant::now();
        let mut tracker = Tracker::default();
        let mut naive = Naive::default();
        for step in steps {
            match step {
                Step::Want(key, gateway) => {
                    let same = gateway.is_some() && naive.desired.get(&key) == gateway.as_ref();
                    tracker.want_route(key, gateway);
                    if !same {
                        naive.refused.remove(&key);
                    }
                    match gateway {
                        Some(gateway) => naive.desired.insert(key, gateway),
                        None => naive.desired.remove(&key),
                    };
                    if gateway.is_none() {
                        naive.condemned.insert(key);
                    }
                }
                Step::Disclaim(key) => {
                    let slot = tracker.slot_of(key);
                    tracker.disclaim(slot);
                    naive.desired.remove(&key);
                    naive.refused.remove(&key);
                }
                Step::CondemnAll => {
                    for slot in tracker.surplus().collect::<Vec<_>>() {
                        tracker.condemn(slot);
                    }
                    let Naive { desired, condemned, ours, .. } = &mut naive;
                    condemned.extend(ours.keys().filter(|key| !desired.contains_key(key)));
                }
                Step::Dump(ours, foreign) => {
                    tracker.dump(&ours, &foreign);
                    naive.ours = ours;
                    naive.foreign = foreign.into_iter().collect();
                }
                Step::Write => {
                    let batch = tracker.all();
                    prop_assert!(!tracker.answer(&batch, &Ok(()), now));
                    for change in naive.changes() {
                        let key = number(&change);
                        match change {
                            RouteChange::Delete { .. } => naive.ours.remove(&key),
                            RouteChange::Add(_) | RouteChange::Replace(_) => {
                                naive.ours.insert(key, naive.desired[&key])
                            }
                        };
                        naive.refused.remove(&key);
                    }
                }
                Step::WriteAllRefused => {
                    let batch = tracker.all();
                    tracker.answer(&batch, &Err(Refusal::new(Errno::EPERM)), now);
                    for change in naive.changes() {
                        naive.refused.insert(number(&change));
                    }
                }
                Step::RetryAll => {
                    tracker.retry(now, true);
                    naive.refused.clear();
                }
            }
            naive.tidy();
            let installed = naive.desired.iter().filter(|(key, want)| naive.ours.get(key) == Some(want)).count();
            prop_assert_eq!(tracker.installed(), installed);
            prop_assert_eq!(tracker.pending(), naive.changes().len());
            let changes = tracker.all();
            tracker.unknown(&changes);
            let mut found = changes.changes;
            let deletions = found.iter().take_while(|change| matches!(change, RouteChange::Delete { .. })).count();
            found.sort_by_key(|change| (!matches!(change, RouteChange::Delete { .. }), *change.key()));
            let mut expected = naive.changes();
            expected.sort_by_key(|change| (!matches!(change, RouteChange::Delete { .. }), *change.key()));
            prop_assert_eq!(&found, &expected);
            let unwanted = expected.iter().filter(|change| !naive.desired.contains_key(&number(change))).count();
            prop_assert!(deletions >= unwanted, "what nobody wants goes first");
            let surplus: BTreeSet<u8> = tracker
                .surplus()
                .map(|slot| match tracker.slots().prefix(slot).ip() {
                    IpAddr::V4(address) => address.octets()[1],
                    IpAddr::V6(_) => 255,
                })
                .collect();
            let expected: BTreeSet<u8> = naive
                .ours
                .keys()
                .filter(|key| !naive.desired.contains_key(key) && !naive.condemned.contains(key))
                .copied()
                .collect();
            prop_assert_eq!(tracker.surplus_len(), expected.len());
            prop_assert_eq!(surplus, expected);
        }
    }
}

fn filled(tracker: &mut Tracker, count: u8) {
    for n in 0..count {
        tracker.want_route(n, Some(1));
    }
    let batch = tracker.all();
    tracker.answer(&batch, &Ok(()), Instant::now());
}

#[test]
fn a_dump_tells_what_was_lost() {
    let mut tracker = Tracker::default();
    filled(&mut tracker, 3);
    let observed = tracker.dump(&BTreeMap::from([(0, 1), (1, 2), (7, 1)]), &[2]);
    assert_eq!((observed.lost, observed.first), (2, Some(1)));
    assert_eq!(tracker.standing(1), Some(Standing::Pending));
    assert_eq!(tracker.standing(2), Some(Standing::Foreign(12)));
    let changes = tracker.all().changes;
    assert_eq!(changes, [RouteChange::Replace(route(1, 1))]);
}

#[test]
fn what_is_written_during_a_dump_is_not_judged_by_it() {
    let mut tracker = Tracker::default();
    let now = Instant::now();
    filled(&mut tracker, 3);
    tracker.dump_begin();
    tracker.show(0, 1);
    // Changed after it was shown, deleted after it was shown, added behind the dump's back.
    tracker.want_route(0, Some(2));
    tracker.want_route(1, None);
    tracker.want_route(9, Some(1));
    let batch = tracker.all();
    tracker.answer(&batch, &Ok(()), now);
    tracker.show(1, 1);
    let observed = tracker.dump_end();
    assert_eq!((observed.lost, observed.first), (1, Some(2)), "only the one nobody touched is missed");
    assert_eq!(tracker.all().changes.len(), 1);
    let observed = tracker.dump(&BTreeMap::from([(0, 2), (2, 1), (9, 1)]), &[]);
    assert_eq!(observed.lost, 0);
    assert_eq!(tracker.all(), Batch::default());
}

#[test]
fn a_refused_change_waits_longer_each_time() {
    let mut tracker = Tracker::default();
    let mut now = Instant::now();
    tracker.want_route(0, Some(1));
    let refused = Err(Refusal::new(Errno::ENETUNREACH));
    for wait in [100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000] {
        let batch = tracker.all();
        assert_eq!(batch.changes.len(), 1);
        assert!(!tracker.answer(&batch, &refused, now));
        assert_eq!(tracker.next_retry(), Some(now + Duration::from_millis(wait)));
        tracker.retry(now, false);
        assert_eq!(tracker.pending(), 0);
        now += Duration::from_millis(wait);
        tracker.retry(now, false);
    }
    let batch = tracker.all();
    assert!(tracker.answer(&batch, &Err(Refusal::new(Errno::EEXIST)), now));
}

#[test]
fn two_of_ours_at_one_key_become_one() {
    let mut tracker = Tracker::default();
    let now = Instant::now();
    tracker.want_route(0, Some(1));
    tracker.dump_begin();
    tracker.show(0, 1);
    tracker.show(0, 2);
    tracker.dump_end();
    let batch = tracker.all();
    let delete = RouteChange::Delete { key: route(0, 1).key, protocol: 179 };
    assert_eq!(batch.changes, [delete.clone(), delete]);
    tracker.answer(&batch, &Ok(()), now);
    let changes = tracker.all().changes;
    assert_eq!(changes, [RouteChange::Add(route(0, 1))]);
}

#[test]
fn what_waits_for_its_object_comes_when_it_is_there() {
    let mut tracker = Tracker::default();
    let key = route(0, 1).key;
    let slot = tracker.slot(&key).unwrap();
    let form = Form { target: crate::forms::Target::Object(5), ..Form::of(&route(0, 1), |_| None) };
    let form = tracker.forms_mut().hold(form);
    tracker.want(slot, form);
    assert_eq!(tracker.all(), Batch::default());
    assert_eq!((tracker.waiting(), tracker.pending()), (1, 0));
    tracker.wake();
    let changes = tracker.changes(9, false, |object| Some(object + 100));
    assert!(matches!(&changes.changes[0], RouteChange::Add(route) if route.nexthop_id == Some(105)));
}

#[test]
fn a_flapping_route_nobody_can_write_does_not_fill_the_queue() {
    let mut tracker = Tracker::default();
    filled(&mut tracker, 1);
    for n in 0..100_000u32 {
        tracker.want_route(0, Some(1 + (n % 2) as u8));
    }
    assert!(tracker.writes.len() < 10_000, "{}", tracker.writes.len());
}

#[test]
fn ipv6_deletions_are_held_back() {
    let mut tracker = Tracker::default();
    let key = RouteKey::ours("fd00::/48".parse().unwrap());
    let slot = tracker.slot(&key).unwrap();
    let form = tracker.hold(0, 1);
    tracker.dump_begin();
    tracker.observe(slot, form);
    tracker.dump_end();
    tracker.want(slot, NONE);
    tracker.want_route(0, Some(1));
    let about = tracker.changes(9, true, |_| None).about;
    assert_eq!((about[0].0, about.len(), tracker.pending()), (1, 1, 1));
    assert_eq!(tracker.all().changes.len(), 1);
}
