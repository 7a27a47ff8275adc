//! Configuration differences touch what they concern and nothing else.

use super::*;
use crate::config::{OwnPrefix, RangeConfig};
use crate::policy::{NamedRange, RuleChain};

/// Accepts what lies in this range.
fn only(range: &str) -> Arc<ImportPolicy> {
    let range = NamedRange { prefix: prefix(range), rule: "inside the pool".into() };
    Arc::new(ImportPolicy::new(Vec::new(), RuleChain::default(), vec![range]))
}

fn peers_of(outputs: &[Output]) -> Vec<(&'static str, PeerId)> {
    outputs
        .iter()
        .filter_map(|output| match output {
            Output::PeerAdded { peer, .. } => Some(("added", *peer)),
            Output::PeerRemoved(peer) => Some(("removed", *peer)),
            Output::SettingsChanged { peer, .. } => Some(("changed", *peer)),
            Output::ResetSession { peer, .. } => Some(("reset", *peer)),
            Output::RequestRefresh { peer, .. } => Some(("refresh", *peer)),
            Output::Wake(peer) => Some(("wake", *peer)),
            _ => None,
        })
        .collect()
}

/// Three sessions up, with a path each, and everything they are owed pulled.
fn three() -> (Bench, Config) {
    let config = config([1, 2, 3]);
    let mut bench = Bench::new(config.clone());
    for number in 1..=3 {
        bench.up(number);
        bench.announce(number, &[&format!("10.{number}.0.0/24")]);
    }
    drain(&mut bench);
    (bench, config)
}

fn drain(bench: &mut Bench) -> usize {
    let mut messages = Vec::new();
    for id in bench.ids.clone().into_values() {
        while bench.speaker.pull(id, 4096, &mut messages) == PullState::More {}
    }
    bench.settle();
    bench.outputs.clear();
    messages.len()
}

#[test]
fn the_same_configuration_changes_nothing() {
    let (mut bench, config) = three();
    let before = bench.speaker.counters();
    bench.configure(config);
    assert_eq!(peers_of(&bench.outputs), []);
    assert_eq!(bench.speaker.counters(), before);
    assert_eq!(drain(&mut bench), 0);
}

#[test]
fn peers_come_and_go_without_the_others_noticing() {
    let (mut bench, mut config) = three();
    let gone = bench.id(2);
    config.peers.remove(1);
    config.peers.push(peer_config(4));
    bench.configure(config.clone());
    let added = bench.id(4);
    assert_eq!(
        peers_of(&bench.outputs).into_iter().filter(|(what, _)| *what != "wake").collect::<Vec<_>>(),
        [("removed", gone), ("added", added)]
    );
    assert_eq!(bench.rows(Direction::Learned).len(), 2);
    assert!(bench.speaker.peer(gone).is_none());
    // What its task still sends is of nobody.
    bench.input(Input::SessionDown {
        peer: gone,
        down: Down { reason: "de-configured".to_owned(), label: "config", retain: false },
    });
    // The same peer again is a new one.
    config.peers.push(peer_config(2));
    bench.configure(config);
    assert!(bench.id(2) > added);
}

#[test]
fn settings_of_one_peer_are_told_to_that_peer_only() {
    let (mut bench, mut config) = three();
    config.peers[1].settings.session.hold_time = Duration::from_secs(9);
    bench.configure(config);
    assert_eq!(peers_of(&bench.outputs), [("changed", bench.id(2))]);
    let Some(Output::SettingsChanged { settings, .. }) = bench.outputs.first() else { panic!("no settings") };
    assert_eq!(settings.session.hold_time, Duration::from_secs(9));
    assert_eq!(drain(&mut bench), 0);
}

#[test]
fn new_import_rules_judge_what_is_there_without_the_network() {
    let (mut bench, mut config) = three();
    let decisions = bench.speaker.counters().decisions;
    config.peers[0].settings.import = only("10.99.0.0/16");
    bench.configure(config.clone());
    let path = bench.path(1, "10.1.0.0/24").unwrap();
    assert_eq!((path.accepted, &*path.rule), (false, "default: outside every IPPool"));
    assert_eq!(bench.best("10.1.0.0/24"), None);
    assert_eq!(bench.speaker.counters().decisions, decisions + 1);
    assert!(peers_of(&bench.outputs).iter().all(|(what, _)| *what != "refresh"));
    config.peers[0].settings.import = only("10.1.0.0/16");
    bench.configure(config);
    let path = bench.path(1, "10.1.0.0/24").unwrap();
    assert_eq!((path.accepted, &*path.rule, path.best), (true, "inside the pool", true));
}

#[test]
fn a_lowered_limit_is_looked_at_at_once() {
    let (mut bench, mut config) = three();
    bench.announce(1, &["10.1.1.0/24"]);
    config.peers[0].settings.max_prefixes.ipv4 = Some(1);
    bench.configure(config);
    assert!(peers_of(&bench.outputs).contains(&("reset", bench.id(1))));
}

#[test]
fn own_prefixes_come_change_and_go() {
    let (mut bench, mut config) = three();
    let own = |communities: Vec<u32>, export| OwnPrefix {
        prefix: prefix("10.244.1.0/24"),
        communities,
        large_communities: Vec::new(),
        export,
    };
    let row = |bench: &Bench| bench.rows(Direction::Best).into_iter().find(|row| row.peer.is_none());
    config.own = vec![own(vec![7], true)];
    bench.configure(config.clone());
    let first = row(&bench).unwrap();
    assert_eq!((first.attrs.communities.len(), &*first.rule, first.via), (1, "own prefix", Some(Via::Local)));
    assert_eq!(bench.speaker.counters().families[0].paths, 4);
    let decisions = bench.speaker.counters().decisions;
    bench.configure(config.clone());
    assert_eq!(bench.speaker.counters().decisions, decisions);
    config.own = vec![own(vec![], false)];
    bench.configure(config.clone());
    let second = row(&bench).unwrap();
    assert_eq!((second.attrs.communities.len(), &*second.rule), (0, "own prefix, not announced"));
    config.own.clear();
    bench.configure(config);
    assert!(row(&bench).is_none());
}

#[test]
fn another_cluster_id_looks_for_loops_anew() {
    let mut reflector = config([1]);
    reflector.cluster_id = Some(Ipv4Addr::new(1, 1, 1, 1));
    let mut bench = Bench::new(reflector.clone());
    bench.up_as(1, session(1, NODE_AS));
    let attrs = PathAttributes {
        cluster_list: vec![Ipv4Addr::new(2, 2, 2, 2)],
        ..PathAttributes::new(Origin::Igp, address(1).into())
    };
    bench.announce_as(1, &["10.1.0.0/24"], attrs);
    assert_eq!(bench.best("10.1.0.0/24"), Some(1));
    reflector.cluster_id = Some(Ipv4Addr::new(2, 2, 2, 2));
    bench.configure(reflector);
    assert_eq!(bench.best("10.1.0.0/24"), None);
}

#[test]
fn dynamic_peers_up_to_the_limit_of_the_longest_range() {
    let range = |text: &str, limit| RangeConfig {
        range: prefix(text),
        limit,
        settings: PeerSettings { name: text.to_owned(), ..settings(0) },
    };
    let mut ranges = config([1]);
    ranges.ranges = vec![range("192.0.2.0/24", 2), range("192.0.2.64/26", 1)];
    let mut bench = Bench::new(ranges.clone());
    bench.outputs.clear();
    let connect = |bench: &mut Bench, number: u8| {
        bench.input(Input::DynamicPeer { address: address(number) });
        let added = bench.outputs.iter().find_map(|output| match output {
            Output::PeerAdded { settings, dynamic: true, .. } => Some(settings.name.clone()),
            _ => None,
        });
        bench.outputs.clear();
        added
    };
    assert_eq!(connect(&mut bench, 1), None, "a configured peer");
    assert_eq!(connect(&mut bench, 10).as_deref(), Some("192.0.2.0/24"));
    assert_eq!(connect(&mut bench, 10), None, "known already");
    assert_eq!(connect(&mut bench, 70).as_deref(), Some("192.0.2.64/26"));
    assert_eq!(connect(&mut bench, 71), None, "its range is full");
    bench.input(Input::DynamicPeer { address: address(72) });
    assert!(bench.outputs.is_empty(), "a full range is logged once");
    assert_eq!(connect(&mut bench, 11).as_deref(), Some("192.0.2.0/24"));
    assert_eq!(connect(&mut bench, 12), None, "its range is full");
    bench.input(Input::DynamicPeerGone(bench.id(11)));
    assert_eq!(connect(&mut bench, 12).as_deref(), Some("192.0.2.0/24"));

    // A range that goes takes its members with it; they may fit another.
    ranges.ranges.remove(1);
    ranges.peers.push(peer_config(12));
    bench.configure(ranges);
    let moved = bench.peer(70);
    assert_eq!((moved.settings.name.as_str(), moved.dynamic), ("192.0.2.0/24", true));
    assert!(!bench.peer(12).dynamic);
    assert_eq!(bench.speaker.peers().len(), 4);
}

#[test]
fn fewer_installed_paths_are_decided_anew() {
    let mut both = config([1, 2]);
    let mut bench = Bench::with_mode(StartMode { restarting: false, fib: true }, both.clone());
    for number in [1, 2] {
        bench.up(number);
        bench.announce(number, &["10.1.0.0/24"]);
        bench.reachable(address(number));
    }
    let installed = |bench: &Bench| {
        bench.speaker.explain(&prefix("10.1.0.0/24")).iter().filter(|row| row.multipath).count()
    };
    assert_eq!(installed(&bench), 2);
    bench.input(Input::FibConnected);
    bench.pull_fib();
    both.max_paths = 1;
    bench.configure(both);
    assert_eq!(installed(&bench), 1);
    let updates = bench.pull_fib();
    assert!(
        matches!(
            updates.as_slice(),
            [FibUpdate::Group { .. }, FibUpdate::Route { .. }, FibUpdate::GroupGone(_)]
        ),
        "{updates:?}"
    );
}
