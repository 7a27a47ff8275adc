//! Tests of the desired FIB: what a consumer that applies the feed ends up with.

use proptest::prelude::*;

use super::*;

/// The far end: applies the feed and checks its rules.
#[derive(Default)]
struct Consumer {
    groups: BTreeMap<u32, Vec<IpAddr>>,
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
            FibUpdate::Group { id, next_hops } => {
                assert!(!next_hops.is_empty() && next_hops.is_sorted());
                self.groups.insert(id, next_hops.into_iter().map(|(next_hop, _)| next_hop).collect());
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

    fn next_hops(&self, prefix: &Prefix) -> Option<&[IpAddr]> {
        self.routes.get(prefix).map(|(group, _)| self.groups[group].as_slice())
    }
}

fn prefix(number: u8) -> Prefix {
    format!("10.0.{number}.0/24").parse().unwrap()
}

fn ip(number: u8) -> IpAddr {
    IpAddr::from([192, 0, 2, number])
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
        fib.want(prefix(number), &[ip(1), ip(2)]);
    }
    assert!(fib.poll_wake());
    consumer.pull(&mut fib, 3);
    assert_eq!((consumer.messages, consumer.groups.len(), consumer.routes.len()), (11, 1, 10));
    for number in 0..10 {
        fib.unwant(prefix(number));
    }
    consumer.pull(&mut fib, 100);
    assert_eq!((consumer.messages, consumer.groups.len(), consumer.routes.len()), (22, 0, 0));
    assert!(fib.groups.is_empty() && fib.by_members.is_empty() && fib.by_next_hop.is_empty());
    assert_eq!(fib.routes.len(), 0);
}

#[test]
fn changes_before_a_pull_are_one_message() {
    let (mut fib, mut consumer) = connected();
    for number in 1..=5 {
        fib.want(prefix(1), &[ip(number)]);
    }
    fib.want(prefix(2), &[ip(1)]);
    fib.unwant(prefix(2));
    consumer.pull(&mut fib, 100);
    assert_eq!(consumer.messages, 2);
    assert_eq!(consumer.next_hops(&prefix(1)), Some([ip(5)].as_slice()));
}

#[test]
fn a_dead_next_hop_is_one_message() {
    let (mut fib, mut consumer) = connected();
    for number in 0..100 {
        fib.want(prefix(number), &[ip(1), ip(2)]);
    }
    consumer.pull(&mut fib, 100);
    consumer.messages = 0;
    fib.next_hop_dead(ip(1));
    for number in 0..100 {
        fib.want(prefix(number), &[ip(2)]);
    }
    consumer.pull(&mut fib, 100);
    assert_eq!(consumer.messages, 1);
    assert_eq!(consumer.next_hops(&prefix(7)), Some([ip(2)].as_slice()));
    // And back: the routes move to a group of both again.
    for number in 0..100 {
        fib.want(prefix(number), &[ip(1), ip(2)]);
    }
    consumer.pull(&mut fib, 100);
    assert_eq!(consumer.next_hops(&prefix(7)), Some([ip(1), ip(2)].as_slice()));
    assert_eq!(consumer.groups.len(), 1);
}

#[test]
fn the_end_mark_comes_after_the_routes_and_only_when_allowed() {
    let mut fib = DesiredFib::new();
    fib.want(prefix(1), &[ip(1)]);
    fib.connected();
    let mut consumer = Consumer::default();
    consumer.pull(&mut fib, 100);
    assert_eq!((consumer.routes.len(), consumer.ended.len()), (1, 0));
    fib.want(prefix(2), &[ip(1)]);
    fib.allow_end(Family::Ipv4Unicast);
    fib.allow_end(Family::Ipv4Unicast);
    let mut out = Vec::new();
    fib.pull(100, &mut out);
    assert!(matches!(out.as_slice(), [FibUpdate::Route { .. }, FibUpdate::End(Family::Ipv4Unicast)]));
    fib.lost();
    fib.want(prefix(3), &[ip(2)]);
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
    fib.want(prefix(1), &[ip(1)]);
    consumer.pull(&mut fib, 100);
    let old = consumer.routes[&prefix(1)].1;
    fib.want(prefix(1), &[ip(2)]);
    fib.status(prefix(1), old, FibStatus::Installed);
    assert_eq!(fib.status_of(&prefix(1)), Some(FibStatus::Pending));
    consumer.pull(&mut fib, 100);
    let new = consumer.routes[&prefix(1)].1;
    assert!(new > old);
    fib.status(prefix(1), new, FibStatus::Failed("foreign route (proto bird)".into()));
    assert_eq!(fib.counts(Family::Ipv4Unicast), FibCounts { wanted: 1, installed: 0, failed: 1 });
    fib.status(prefix(1), new, FibStatus::Installed);
    assert_eq!(fib.status_of(&prefix(1)), Some(FibStatus::Installed));
    fib.unwant(prefix(1));
    assert_eq!(fib.status_of(&prefix(1)), None);
    assert_eq!(fib.counts(Family::Ipv4Unicast), FibCounts::default());
}

#[derive(Clone, Debug)]
enum Step {
    Want(u8, BTreeSet<u8>),
    Unwant(u8),
    Dead(u8),
    Reconnect,
    Lose,
    Pull,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => (0u8..6, proptest::collection::btree_set(1u8..5, 1..4)).prop_map(|(p, n)| Step::Want(p, n)),
        3 => (0u8..6).prop_map(Step::Unwant),
        1 => (1u8..5).prop_map(Step::Dead),
        1 => Just(Step::Reconnect),
        1 => Just(Step::Lose),
        3 => Just(Step::Pull),
    ]
}

proptest! {
    /// Whatever happens in between, a consumer that has pulled everything holds exactly what is wanted.
    #[test]
    fn the_consumer_ends_up_with_what_is_wanted(steps in proptest::collection::vec(step(), 0..80)) {
        let mut fib = DesiredFib::new();
        let mut consumer = Consumer::default();
        let mut wanted: BTreeMap<Prefix, Vec<IpAddr>> = BTreeMap::new();
        let mut up = false;
        for step in steps {
            match step {
                Step::Want(number, next_hops) => {
                    let next_hops: Vec<IpAddr> = next_hops.into_iter().map(ip).collect();
                    fib.want(prefix(number), &next_hops);
                    wanted.insert(prefix(number), next_hops);
                }
                Step::Unwant(number) => {
                    fib.unwant(prefix(number));
                    wanted.remove(&prefix(number));
                }
                Step::Dead(number) => {
                    fib.next_hop_dead(ip(number));
                    for (prefix, next_hops) in &mut wanted {
                        next_hops.retain(|next_hop| *next_hop != ip(number));
                        match next_hops.is_empty() {
                            true => fib.unwant(*prefix),
                            false => fib.want(*prefix, next_hops),
                        }
                    }
                    wanted.retain(|_, next_hops| !next_hops.is_empty());
                }
                Step::Reconnect => { fib.connected(); up = true; }
                Step::Lose => { fib.lost(); up = false; }
                Step::Pull => if up { consumer.pull(&mut fib, 2) },
            }
        }
        for reconnect in [!up, true] {
            if reconnect {
                fib.connected();
                prop_assert!(fib.poll_wake());
            }
            consumer.pull(&mut fib, 1);
            let held: BTreeMap<Prefix, Vec<IpAddr>> =
                consumer.routes.keys().map(|p| (*p, consumer.next_hops(p).unwrap().to_vec())).collect();
            prop_assert_eq!(&held, &wanted);
        }
        prop_assert_eq!(fib.counts(Family::Ipv4Unicast).wanted, wanted.len() as u64);
    }
}
