//! Tests of the desired FIB: what a consumer that applies the feed ends up with.

use proptest::prelude::*;

use super::*;
use crate::event::{Member, Via};
use crate::forwarding::Members;

/// The far end: applies the feed and checks its rules.
#[derive(Default)]
struct Consumer {
    groups: BTreeMap<u32, Rc<Forwarding>>,
    routes: BTreeMap<Prefix, (u32, u64)>,
    ended: Vec<Family>,
    messages: usize,
}

impl Consumer {
    fn pull(&mut self, fib: &mut DesiredFib, max: usize) {
        loop {
            let mut out = Vec::new();
            let state = fib.pull(max, &mut out);
            for update in out {
                self.apply(update);
            }
            if state == PullState::Drained {
                return;
            }
        }
    }

    fn apply(&mut self, update: FibUpdate) {
        self.messages += 1;
        match update {
            FibUpdate::Begin => *self = Consumer { messages: self.messages, ..Consumer::default() },
            FibUpdate::Group { id, members, backups } => {
                assert!(!members.is_empty() && members.is_sorted_by_key(|member| member.next_hop));
                let forwarding = Forwarding { members: members.into(), backups: backups.into() };
                self.groups.insert(id, Rc::new(forwarding));
            }
            FibUpdate::GroupGone(id) => {
                assert!(self.groups.remove(&id).is_some(), "an unknown group went");
                assert!(self.routes.values().all(|(group, _)| *group != id), "a group in use went");
            }
            FibUpdate::Route { prefix, group, generation } => {
                assert!(self.groups.contains_key(&group), "a route before its group");
                self.routes.insert(prefix, (group, generation));
            }
            FibUpdate::Withdraw { prefix, .. } => {
                assert!(self.routes.remove(&prefix).is_some(), "an unknown route was withdrawn");
            }
            FibUpdate::End(family) => self.ended.push(family),
        }
    }

    fn forwarding(&self, prefix: &Prefix) -> Option<Rc<Forwarding>> {
        self.routes.get(prefix).map(|(group, _)| self.groups[group].clone())
    }
}

fn prefix(number: u8) -> Prefix {
    format!("10.0.{number}.0/24").parse().unwrap()
}

fn ip(number: u8) -> IpAddr {
    IpAddr::from([192, 0, 2, number])
}

fn of(members: &[u8], backups: &[u8]) -> Rc<Forwarding> {
    let list = |numbers: &[u8]| -> Members {
        numbers.iter().map(|number| Member { next_hop: ip(*number), weight: 1, tunnel: None }).collect()
    };
    Rc::new(Forwarding { members: list(members), backups: list(backups) })
}

fn connected() -> (DesiredFib, Consumer) {
    let mut fib = DesiredFib::new();
    fib.connected();
    assert!(fib.poll_wake());
    assert!(!fib.poll_wake());
    let mut consumer = Consumer::default();
    consumer.pull(&mut fib, 100);
    consumer.messages = 0;
    (fib, consumer)
}

#[test]
fn prefixes_of_the_same_next_hops_share_a_group_and_the_last_one_ends_it() {
    let (mut fib, mut consumer) = connected();
    for number in 0..10 {
        fib.want(prefix(number), &of(&[1, 2], &[]));
    }
    assert!(fib.poll_wake());
    consumer.pull(&mut fib, 3);
    assert_eq!((consumer.messages, consumer.groups.len(), consumer.routes.len()), (11, 1, 10));
    for number in 0..10 {
        fib.unwant(prefix(number));
    }
    consumer.pull(&mut fib, 100);
    assert_eq!((consumer.messages, consumer.groups.len(), consumer.routes.len()), (22, 0, 0));
    assert!(fib.groups.is_empty() && fib.by_forwarding.is_empty() && fib.by_next_hop.is_empty());
    assert_eq!(fib.routes.len(), 0);
}

#[test]
fn changes_before_a_pull_are_one_message() {
    let (mut fib, mut consumer) = connected();
    for number in 1..=5 {
        fib.want(prefix(1), &of(&[number], &[]));
    }
    fib.want(prefix(2), &of(&[1], &[]));
    fib.unwant(prefix(2));
    consumer.pull(&mut fib, 100);
    assert_eq!(consumer.messages, 2);
    assert_eq!(consumer.forwarding(&prefix(1)), Some(of(&[5], &[])));
}

#[test]
fn a_dead_next_hop_is_one_message() {
    let (mut fib, mut consumer) = connected();
    for number in 0..100 {
        fib.want(prefix(number), &of(&[1, 2], &[]));
    }
    consumer.pull(&mut fib, 100);
    consumer.messages = 0;
    fib.next_hops_lost(&[ip(1)]);
    for number in 0..100 {
        assert!(!fib.want(prefix(number), &of(&[2], &[])));
    }
    consumer.pull(&mut fib, 100);
    assert_eq!(consumer.messages, 1);
    assert_eq!(consumer.forwarding(&prefix(7)), Some(of(&[2], &[])));
    // And back: one message again, when all of them have been decided.
    for number in 0..100 {
        fib.refine(prefix(number), &of(&[1, 2], &[]));
    }
    assert!(!fib.poll_wake());
    fib.release();
    assert!(fib.poll_wake());
    consumer.pull(&mut fib, 100);
    assert_eq!((consumer.messages, consumer.groups.len()), (2, 1));
    assert_eq!(consumer.forwarding(&prefix(7)), Some(of(&[1, 2], &[])));
}

#[test]
fn backups_take_over_in_one_message_also_beside_a_group_that_is_the_same() {
    let (mut fib, mut consumer) = connected();
    for number in 0..100 {
        fib.want(prefix(number), &of(&[1], &[2, 3]));
    }
    fib.want(prefix(200), &of(&[2, 3], &[]));
    consumer.pull(&mut fib, 100);
    consumer.messages = 0;
    fib.next_hops_lost(&[ip(1)]);
    for number in 0..100 {
        assert!(!fib.want(prefix(number), &of(&[2, 3], &[])));
    }
    consumer.pull(&mut fib, 100);
    assert_eq!((consumer.messages, consumer.groups.len()), (1, 2));
    assert_eq!(consumer.forwarding(&prefix(99)), Some(of(&[2, 3], &[])));
    // A backup that is lost leaves the next hops as they are.
    for number in 0..100 {
        assert!(fib.want(prefix(number), &of(&[2, 3], &[4])));
        fib.refine(prefix(number), &of(&[2, 3], &[4]));
    }
    fib.release();
    consumer.pull(&mut fib, 100);
    fib.next_hops_lost(&[ip(4), ip(9)]);
    consumer.pull(&mut fib, 100);
    assert_eq!((consumer.messages, consumer.forwarding(&prefix(3))), (3, Some(of(&[2, 3], &[]))));
}

#[test]
fn refinements_of_some_routes_of_a_group_move_these() {
    let (mut fib, mut consumer) = connected();
    for number in 0..10 {
        fib.want(prefix(number), &of(&[1], &[]));
    }
    consumer.pull(&mut fib, 100);
    consumer.messages = 0;
    for number in 0..8 {
        assert!(fib.want(prefix(number), &of(&[1], &[2])));
        fib.refine(prefix(number), &of(&[1], &[2]));
    }
    // One of them becomes something else, another one goes, before it is told.
    fib.want(prefix(0), &of(&[3], &[]));
    fib.unwant(prefix(1));
    fib.release();
    assert!(fib.is_refining());
    consumer.pull(&mut fib, 3);
    assert!(!fib.is_refining());
    let held: Vec<_> = (0..10).map(|number| consumer.forwarding(&prefix(number))).collect();
    assert_eq!((&held[0], &held[1]), (&Some(of(&[3], &[])), &None));
    assert!(held[2..8].iter().all(|one| *one == Some(of(&[1], &[2]))));
    assert!(held[8..].iter().all(|one| *one == Some(of(&[1], &[]))));
    assert_eq!(consumer.messages, 2 + 1 + 1 + 6);
}

#[test]
fn a_refinement_that_names_a_lost_next_hop_is_not_made() {
    let (mut fib, mut consumer) = connected();
    fib.want(prefix(1), &of(&[1], &[]));
    consumer.pull(&mut fib, 100);
    fib.refine(prefix(1), &of(&[1, 2], &[]));
    fib.next_hops_lost(&[ip(2)]);
    fib.release();
    consumer.pull(&mut fib, 100);
    assert_eq!(consumer.forwarding(&prefix(1)), Some(of(&[1], &[])));
}

#[test]
fn the_end_mark_comes_after_the_routes_and_only_when_allowed() {
    let mut fib = DesiredFib::new();
    fib.want(prefix(1), &of(&[1], &[]));
    fib.connected();
    let mut consumer = Consumer::default();
    consumer.pull(&mut fib, 100);
    assert_eq!((consumer.routes.len(), consumer.ended.len()), (1, 0));
    fib.want(prefix(2), &of(&[1], &[]));
    fib.allow_end(Family::Ipv4Unicast);
    fib.allow_end(Family::Ipv4Unicast);
    let mut out = Vec::new();
    fib.pull(100, &mut out);
    assert!(matches!(out.as_slice(), [FibUpdate::Route { .. }, FibUpdate::End(Family::Ipv4Unicast)]));
    fib.lost();
    fib.want(prefix(3), &of(&[2], &[]));
    fib.unwant(prefix(1));
    fib.connected();
    assert!(fib.poll_wake());
    consumer.pull(&mut fib, 1);
    assert_eq!(consumer.routes.len(), 2);
    assert_eq!(consumer.ended, [Family::Ipv4Unicast]);
}

#[test]
fn a_status_of_an_older_generation_is_ignored() {
    let (mut fib, mut consumer) = connected();
    fib.want(prefix(1), &of(&[1], &[]));
    consumer.pull(&mut fib, 100);
    let old = consumer.routes[&prefix(1)].1;
    fib.want(prefix(1), &of(&[2], &[]));
    fib.status(prefix(1), old, FibStatus::Installed(Via::Direct));
    assert_eq!(fib.status_of(&prefix(1)), Some(FibStatus::Pending));
    consumer.pull(&mut fib, 100);
    let new = consumer.routes[&prefix(1)].1;
    assert!(new > old);
    fib.status(prefix(1), new, FibStatus::Failed("foreign route (proto bird)".into()));
    assert_eq!(fib.counts(Family::Ipv4Unicast), FibCounts { wanted: 1, installed: 0, failed: 1 });
    fib.status(prefix(1), new, FibStatus::Installed(Via::Direct));
    assert_eq!(fib.status_of(&prefix(1)), Some(FibStatus::Installed(Via::Direct)));
    fib.unwant(prefix(1));
    assert_eq!(fib.status_of(&prefix(1)), None);
    assert_eq!(fib.counts(Family::Ipv4Unicast), FibCounts::default());
}

#[derive(Clone, Debug)]
enum Step {
    Want(u8, BTreeSet<u8>, BTreeSet<u8>),
    Unwant(u8),
    Lost(u8),
    Release,
    Reconnect,
    Lose,
    Pull,
}

fn step() -> impl Strategy<Value = Step> {
    let some = |least| proptest::collection::btree_set(1u8..5, least..3);
    prop_oneof![
        6 => (0u8..6, some(1), some(0)).prop_map(|(p, n, b)| Step::Want(p, n, b)),
        3 => (0u8..6).prop_map(Step::Unwant),
        2 => (1u8..5).prop_map(Step::Lost),
        2 => Just(Step::Release),
        1 => Just(Step::Reconnect),
        1 => Just(Step::Lose),
        3 => Just(Step::Pull),
    ]
}

/// What the speaker does with what it decided.
fn decided(fib: &mut DesiredFib, prefix: Prefix, forwarding: &Rc<Forwarding>) {
    if fib.want(prefix, forwarding) {
        fib.refine(prefix, forwarding);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]
    /// Whatever happens in between, a consumer that has pulled everything holds exactly what is wanted, and no group is
    /// kept that no route needs.
    #[test]
    fn the_consumer_ends_up_with_what_is_wanted(steps in proptest::collection::vec(step(), 0..80)) {
        let mut fib = DesiredFib::new();
        let mut consumer = Consumer::default();
        let mut wanted: BTreeMap<Prefix, Rc<Forwarding>> = BTreeMap::new();
        let mut up = false;
        for step in steps {
            match step {
                Step::Want(number, members, backups) => {
                    let backups: Vec<u8> = backups.difference(&members).copied().collect();
                    let forwarding = of(&members.into_iter().collect::<Vec<_>>(), &backups);
                    decided(&mut fib, prefix(number), &forwarding);
                    wanted.insert(prefix(number), forwarding);
                }
                Step::Unwant(number) => {
                    fib.unwant(prefix(number));
                    wanted.remove(&prefix(number));
                }
                Step::Lost(number) => {
                    fib.next_hops_lost(&[ip(number)]);
                    for (prefix, forwarding) in &mut wanted {
                        *forwarding = Rc::new(forwarding.without(|next_hop| next_hop == ip(number)));
                        match forwarding.members.is_empty() {
                            true => fib.unwant(*prefix),
                            false => decided(&mut fib, *prefix, forwarding),
                        }
                    }
                    wanted.retain(|_, forwarding| !forwarding.members.is_empty());
                }
                Step::Release => fib.release(),
                Step::Reconnect => { fib.connected(); up = true; }
                Step::Lose => { fib.lost(); up = false; }
                Step::Pull => if up { consumer.pull(&mut fib, 2) },
            }
        }
        fib.release();
        for reconnect in [!up, true] {
            if reconnect {
                fib.connected();
                prop_assert!(fib.poll_wake());
            }
            consumer.pull(&mut fib, 1);
            let held: BTreeMap<Prefix, Rc<Forwarding>> =
                consumer.routes.keys().map(|p| (*p, consumer.forwarding(p).unwrap())).collect();
            prop_assert_eq!(&held, &wanted);
            prop_assert!(consumer.groups.keys().all(|id| consumer.routes.values().any(|(group, _)| group == id)));
            prop_assert_eq!(fib.groups.len(), consumer.groups.len());
            prop_assert!(!fib.is_refining());
        }
        prop_assert_eq!(fib.counts(Family::Ipv4Unicast).wanted, wanted.len() as u64);
    }
}
