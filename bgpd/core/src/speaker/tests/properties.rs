//! Whatever happens, the tables say what a recomputation from scratch says.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Announce { peer: u8, prefix: u8, variant: u8 },
    Withdraw { peer: u8, prefix: u8 },
    Up { peer: u8, graceful: bool },
    Down { peer: u8, retain: bool },
    EndOfRib { peer: u8 },
    NextHop { number: u8, state: u8 },
    Refuse { peer: u8, refuse: bool },
    MaxPaths(usize),
    Fib(bool),
    Pull,
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let peer = 1u8..5;
    prop_oneof![
        12 => (peer.clone(), 0u8..5, 0u8..6).prop_map(|(peer, prefix, variant)| Step::Announce { peer, prefix, variant }),
        5 => (peer.clone(), 0u8..5).prop_map(|(peer, prefix)| Step::Withdraw { peer, prefix }),
        3 => (peer.clone(), any::<bool>()).prop_map(|(peer, graceful)| Step::Up { peer, graceful }),
        2 => (peer.clone(), any::<bool>()).prop_map(|(peer, retain)| Step::Down { peer, retain }),
        1 => peer.clone().prop_map(|peer| Step::EndOfRib { peer }),
        5 => (peer.clone(), 0u8..4).prop_map(|(number, state)| Step::NextHop { number, state }),
        1 => (peer, any::<bool>()).prop_map(|(peer, refuse)| Step::Refuse { peer, refuse }),
        1 => (1usize..4).prop_map(Step::MaxPaths),
        1 => any::<bool>().prop_map(Step::Fib),
        2 => Just(Step::Pull),
        1 => (1u64..80).prop_map(Step::Wait),
    ]
}

const PREFIXES: [&str; 5] = ["10.1.0.0/24", "10.1.0.0/16", "0.0.0.0/0", "2001:db8::/32", "2001:db8::/64"];

/// Attributes that differ in what the decision looks at; the next hop may be another peer's.
fn variant(peer: u8, variant: u8) -> PathAttributes {
    let path = match variant {
        0 => vec![peer_as(peer)],
        1 => vec![peer_as(peer), Asn(65000)],
        2 => vec![peer_as(peer), NODE_AS],
        _ => vec![Asn(65001)],
    };
    PathAttributes {
        as_path: AsPath::from_sequence(path),
        med: (variant > 3).then_some(u32::from(variant)),
        next_hop: address(if variant == 5 { 1 } else { peer }).into(),
        ..attributes(peer)
    }
}

/// Next hops and backups.
type Ways = (BTreeSet<IpAddr>, BTreeSet<IpAddr>);

/// The far end of the feed.
#[derive(Default)]
struct Fib {
    groups: BTreeMap<u32, Ways>,
    routes: BTreeMap<Prefix, u32>,
}

impl Fib {
    fn apply(&mut self, updates: Vec<FibUpdate>) {
        let set = |members: Vec<Member>| members.into_iter().map(|member| member.next_hop).collect();
        for update in updates {
            match update {
                FibUpdate::Begin => *self = Fib::default(),
                FibUpdate::Group { id, members, backups } => {
                    self.groups.insert(id, (set(members), set(backups)));
                }
                FibUpdate::GroupGone(id) => assert!(self.groups.remove(&id).is_some()),
                FibUpdate::Route { prefix, group, .. } => {
                    self.routes.insert(prefix, group);
                }
                FibUpdate::Withdraw { prefix, .. } => assert!(self.routes.remove(&prefix).is_some()),
                FibUpdate::End(_) => {}
            }
            assert!(self.routes.values().all(|group| self.groups.contains_key(group)));
        }
    }

    fn forwarding(&self, prefix: &Prefix) -> Option<Ways> {
        self.routes.get(prefix).map(|group| self.groups[group].clone())
    }
}

/// The model: what each peer has sent, and what the next hops are.
#[derive(Default)]
struct Model {
    paths: BTreeMap<(u8, usize), PathAttributes>,
    next_hops: BTreeMap<IpAddr, NextHopState>,
}

fn state(number: u8) -> NextHopState {
    match number {
        0 => NextHopState::Unreachable,
        1 => NextHopState::Connected { device: "eth0".into() },
        metric => NextHopState::Gateway {
            gateway: ip("192.0.2.254"),
            device: "eth0".into(),
            metric: u32::from(metric),
        },
    }
}

impl Model {
    /// The best peer and the next hops of one prefix, from first principles, as if some next hops were not there.
    fn decide(
        &self,
        prefix: usize,
        refusing: &BTreeSet<u8>,
        max_paths: usize,
        without: &BTreeSet<IpAddr>,
    ) -> Option<(u8, BTreeSet<IpAddr>)> {
        let mut left: Vec<(u8, &PathAttributes, u32)> = self
            .paths
            .iter()
            .filter(|((peer, at), attrs)| {
                *at == prefix && !refusing.contains(peer) && !attrs.as_path.contains(NODE_AS)
            })
            .filter(|(_, attrs)| !without.contains(&attrs.next_hop.global))
            .filter_map(|((peer, _), attrs)| match self.next_hops.get(&attrs.next_hop.global)? {
                NextHopState::Unreachable => None,
                NextHopState::Connected { .. } => Some((*peer, attrs, 0)),
                NextHopState::Gateway { metric, .. } => Some((*peer, attrs, *metric)),
            })
            .collect();
        let shortest = left.iter().map(|(_, attrs, _)| attrs.as_path.length()).min()?;
        left.retain(|(_, attrs, _)| attrs.as_path.length() == shortest);
        let before = left.clone();
        left.retain(|(_, attrs, _)| {
            !before.iter().any(|(_, other, _)| {
                other.as_path.first_as() == attrs.as_path.first_as()
                    && other.med.unwrap_or(0) < attrs.med.unwrap_or(0)
            })
        });
        let nearest = left.iter().map(|(_, _, cost)| *cost).min()?;
        left.retain(|(_, _, cost)| *cost == nearest);
        // Identifiers and addresses are in the order of the numbers.
        left.sort_by_key(|(peer, _, _)| *peer);
        let mut next_hops = BTreeSet::new();
        for (_, attrs, _) in &left {
            if next_hops.len() < max_paths {
                next_hops.insert(attrs.next_hop.global);
            }
        }
        Some((left.first()?.0, next_hops))
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]
    #[test]
    fn loc_rib_and_fib_are_those_of_a_recomputation(steps in proptest::collection::vec(step(), 0..120)) {
        let mut config = config(1..5);
        let mut bench = Bench::with_mode(StartMode { restarting: false, fib: true }, config.clone());
        let mut model = Model::default();
        let mut up = BTreeSet::new();
        let mut refusing = BTreeSet::new();
        let refuse = ImportPolicy::new(Vec::new(), crate::policy::RuleChain::default(), Vec::new());
        let mut connected = false;
        let mut fib = Fib::default();
        for step in steps {
            match step {
                Step::Announce { peer, prefix, variant: number } => if up.contains(&peer) {
                    bench.announce_as(peer, &[PREFIXES[usize::from(prefix)]], variant(peer, number));
                },
                Step::Withdraw { peer, prefix } => if up.contains(&peer) {
                    bench.withdraw(peer, &[PREFIXES[usize::from(prefix)]]);
                },
                Step::Up { peer, graceful: restart } => if up.insert(peer) {
                    let restart = if restart { graceful(60, true, true) } else { None };
                    bench.up_as(peer, SessionInfo { graceful: restart, ..session(peer, peer_as(peer)) });
                },
                Step::Down { peer, retain } => if up.remove(&peer) {
                    bench.down(peer, retain);
                },
                Step::EndOfRib { peer } => if up.contains(&peer) { bench.end_of_rib(peer) },
                Step::NextHop { number, state: to } => {
                    // The resolver answers for what is watched only.
                    bench.input(Input::NextHop { address: address(number), state: state(to) });
                }
                Step::Refuse { peer, refuse: on } => {
                    if on { refusing.insert(peer); } else { refusing.remove(&peer); }
                    config.peers[usize::from(peer) - 1].settings.import =
                        Arc::new(if on { refuse.clone() } else { ImportPolicy::accept_all() });
                    bench.configure(config.clone());
                }
                Step::MaxPaths(max) => {
                    config.max_paths = max;
                    bench.configure(config.clone());
                }
                Step::Fib(true) => { bench.input(Input::FibConnected); connected = true; }
                Step::Fib(false) => { bench.input(Input::FibLost); connected = false; fib = Fib::default(); }
                Step::Pull => if connected { fib.apply(bench.pull_fib()) },
                Step::Wait(seconds) => bench.advance(seconds),
            }
        }
        // What could wait is done when nothing has come for a while, and is told piece by piece.
        for _ in 0..3 {
            bench.advance(1);
            if connected {
                fib.apply(bench.pull_fib());
            }
        }
        // What the peers have sent is what Adj-RIB-In shows; retention has its own tests.
        for number in 1..5 {
            let id = bench.id(number);
            for (at, text) in PREFIXES.iter().enumerate() {
                let Some(row) = bench.speaker.explain(&prefix(text)).into_iter().find(|row| row.peer == Some(id))
                else { continue };
                prop_assert!(up.contains(&number) || row.stale);
                model.paths.insert((number, at), row.attrs.clone());
            }
            let view = bench.peer(number);
            let rows = bench.walk(&Query { direction: Direction::Learned, peer: Some(id), family: None, prefix: None, longer: false }, 2);
            let count = |f: &dyn Fn(&RouteView) -> bool| rows.iter().filter(|row| f(row)).count() as u64;
            prop_assert_eq!(view.families.iter().map(|f| f.received).sum::<u64>(), rows.len() as u64);
            prop_assert_eq!(view.families.iter().map(|f| f.accepted).sum::<u64>(), count(&|row| row.accepted));
            prop_assert_eq!(view.families.iter().map(|f| f.stale).sum::<u64>(), count(&|row| row.stale));
        }
        for entry in 1..5 {
            if let Some(state) = bench.speaker.rib.next_hops.state_of(address(entry)) {
                model.next_hops.insert(address(entry), state.clone());
            }
        }
        // A snapshot for a consumer that knows nothing.
        bench.input(Input::FibConnected);
        let mut snapshot = Fib::default();
        snapshot.apply(bench.pull_fib());
        let mut routes = 0;
        for (at, text) in PREFIXES.iter().enumerate() {
            let expected = model.decide(at, &refusing, config.max_paths, &BTreeSet::new());
            prop_assert_eq!(bench.best(text), expected.as_ref().map(|(peer, _)| *peer), "{}", text);
            let expected = expected.map(|(_, next_hops)| {
                let rest = model.decide(at, &refusing, config.max_paths, &next_hops);
                (next_hops, rest.map(|(_, backups)| backups).unwrap_or_default())
            });
            routes += usize::from(expected.is_some());
            if connected {
                prop_assert_eq!(fib.forwarding(&prefix(text)), expected.clone(), "{}, as it was told", text);
            }
            prop_assert_eq!(snapshot.forwarding(&prefix(text)), expected, "{}", text);
        }
        prop_assert_eq!(snapshot.routes.len(), routes);
        prop_assert_eq!(bench.speaker.counters().families.iter().map(|f| f.best).sum::<u64>(), routes as u64);
        // With every peer gone nothing is left.
        for number in 1..5 {
            bench.up(number);
            bench.down(number, false);
        }
        let counters = bench.speaker.counters();
        prop_assert_eq!((counters.next_hops, bench.speaker.rib.next_hops.unanswered()), (0, 0));
        for family in counters.families {
            prop_assert_eq!((family.prefixes, family.paths, family.best), (0, 0, 0));
        }
    }
}
