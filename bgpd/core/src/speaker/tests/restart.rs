//! RFC 4724 §4.1: the restarting speaker, and when the FIB's snapshot may end.

use super::*;
use crate::config::{OwnPrefix, RangeConfig};

const FIB: StartMode = StartMode { restarting: false, fib: true };
const RESTART: StartMode = StartMode { restarting: true, fib: true };

fn ends(updates: &[FibUpdate]) -> Vec<Family> {
    updates
        .iter()
        .filter_map(|update| match update {
            FibUpdate::End(family) => Some(*family),
            _ => None,
        })
        .collect()
}

fn own(mut config: Config) -> Config {
    config.own = vec![OwnPrefix {
        prefix: prefix("10.244.1.0/24"),
        communities: Vec::new(),
        large_communities: Vec::new(),
        export: true,
    }];
    config
}

#[test]
fn without_peers_nothing_waits() {
    for mode in [FIB, RESTART] {
        let mut bench = Bench::with_mode(mode, own(config([])));
        bench.input(Input::FibConnected);
        assert_eq!(
            bench.pull_fib(),
            [FibUpdate::Begin, FibUpdate::End(Family::Ipv4Unicast), FibUpdate::End(Family::Ipv6Unicast)]
        );
        assert_eq!(bench.best("10.244.1.0/24"), Some(0));
        assert_eq!(bench.speaker.poll_timeout(), None);
    }
}

#[test]
fn selection_waits_for_end_of_rib_and_the_end_mark_comes_behind_the_routes() {
    let mut bench = Bench::with_mode(RESTART, own(config([1, 2])));
    bench.input(Input::FibConnected);
    for number in [1, 2] {
        bench.up_as(
            number,
            SessionInfo { graceful: graceful(90, false, true), ..session(number, peer_as(number)) },
        );
        bench.announce(number, &["10.1.0.0/24"]);
        bench.reachable(address(number));
    }
    assert_eq!(bench.rows(Direction::Best).len(), 0);
    let path = bench.path(1, "10.1.0.0/24").unwrap();
    assert_eq!((path.best, path.reason.as_str()), (false, "selection is deferred after a restart"));
    bench.end_of_rib(1);
    assert_eq!(bench.rows(Direction::Best).len(), 0);
    assert_eq!(bench.pull_fib(), [FibUpdate::Begin]);
    bench.end_of_rib(2);
    assert_eq!(bench.rows(Direction::Best).len(), 2);
    let updates = bench.pull_fib();
    assert!(
        matches!(
            updates.as_slice(),
            [
                FibUpdate::Group { .. },
                FibUpdate::Route { .. },
                FibUpdate::End(Family::Ipv4Unicast),
                FibUpdate::End(Family::Ipv6Unicast)
            ]
        ),
        "{updates:?}"
    );
}

#[test]
fn selection_does_not_wait_for_peers_that_restart_or_know_no_graceful_restart() {
    let mut bench = Bench::with_mode(RESTART, config([1, 2, 3]));
    bench.up_as(1, SessionInfo { graceful: graceful(90, true, true), ..session(1, peer_as(1)) });
    bench.up(2);
    bench.announce(2, &["10.1.0.0/24"]);
    bench.reachable(address(2));
    assert_eq!(bench.best("10.1.0.0/24"), None, "peer 3 is still to come");
    bench.up_as(3, SessionInfo { graceful: graceful(90, false, true), ..session(3, peer_as(3)) });
    assert_eq!(bench.best("10.1.0.0/24"), None);
    bench.end_of_rib(3);
    assert_eq!(bench.best("10.1.0.0/24"), Some(2));
}

#[test]
fn the_restart_time_bounds_the_wait() {
    let mut bench = Bench::with_mode(RESTART, config([1, 2]));
    bench.input(Input::FibConnected);
    bench.up_as(1, SessionInfo { graceful: graceful(90, false, true), ..session(1, peer_as(1)) });
    bench.announce(1, &["10.1.0.0/24"]);
    bench.reachable(address(1));
    bench.end_of_rib(1);
    bench.advance(119);
    assert_eq!(bench.best("10.1.0.0/24"), None);
    assert_eq!(ends(&bench.pull_fib()), []);
    bench.advance(1);
    assert_eq!(bench.best("10.1.0.0/24"), Some(1));
    assert_eq!(ends(&bench.pull_fib()), Family::all());
}

#[test]
fn a_peer_that_is_taken_out_of_the_configuration_is_not_waited_for() {
    let mut bench = Bench::with_mode(RESTART, config([1, 2]));
    bench.up_as(1, SessionInfo { graceful: graceful(90, false, true), ..session(1, peer_as(1)) });
    bench.announce(1, &["10.1.0.0/24"]);
    bench.reachable(address(1));
    bench.end_of_rib(1);
    assert_eq!(bench.best("10.1.0.0/24"), None);
    bench.configure(config([1]));
    assert_eq!(bench.best("10.1.0.0/24"), Some(1));
}

#[test]
fn what_waits_for_an_answer_about_its_next_hop_is_waited_for() {
    let mut bench = Bench::with_mode(RESTART, config([1]));
    bench.input(Input::FibConnected);
    bench.up_as(1, SessionInfo { graceful: graceful(90, false, true), ..session(1, peer_as(1)) });
    bench.announce(1, &["10.1.0.0/24"]);
    bench.end_of_rib(1);
    assert_eq!(ends(&bench.pull_fib()), []);
    bench.reachable(address(1));
    let updates = bench.pull_fib();
    assert_eq!(ends(&updates), Family::all());
    assert!(updates.iter().any(|update| matches!(update, FibUpdate::Route { .. })));
}

#[test]
fn a_first_start_selects_at_once_but_withholds_the_end_mark() {
    let mut bench = Bench::with_mode(FIB, config([1, 2]));
    bench.input(Input::FibConnected);
    bench.up_as(1, SessionInfo { graceful: graceful(90, false, true), ..session(1, peer_as(1)) });
    bench.announce(1, &["10.1.0.0/24"]);
    bench.reachable(address(1));
    assert_eq!(bench.best("10.1.0.0/24"), Some(1));
    bench.end_of_rib(1);
    assert_eq!(ends(&bench.pull_fib()), [], "peer 2 is still to come");
    // Without graceful restart there is no End-of-RIB to rely on.
    bench.up(2);
    bench.advance(4);
    assert_eq!(ends(&bench.pull_fib()), []);
    bench.advance(1);
    assert_eq!(ends(&bench.pull_fib()), Family::all());
    // A later connection of the feed gets its end marks at once.
    bench.input(Input::FibLost);
    bench.input(Input::FibConnected);
    assert_eq!(ends(&bench.pull_fib()), Family::all());
}

/// A reflector whose clients come from a range: after a crash it must not tell the first one that it has nothing.
#[test]
fn members_of_ranges_have_time_to_come_back() {
    let mut reflector = config([]);
    reflector.ranges = vec![RangeConfig { range: prefix("192.0.2.0/24"), limit: 10, settings: settings(0) }];
    let mut bench = Bench::with_mode(StartMode { restarting: true, fib: false }, own(reflector));
    let restarting =
        |number| SessionInfo { graceful: graceful(90, false, true), ..session(number, peer_as(number)) };
    for number in [1, 2] {
        bench.advance(6);
        bench.input(Input::DynamicPeer { address: address(number) });
        bench.up_as(number, restarting(number));
        bench.announce(number, &[&format!("10.{number}.0.0/24")]);
    }
    bench.end_of_rib(1);
    // 15 s are over, but a member came 5 s ago, and its table is not whole.
    bench.advance(4);
    assert_eq!(bench.rows(Direction::Best).len(), 0);
    bench.advance(1);
    assert_eq!(bench.rows(Direction::Best).len(), 0);
    bench.end_of_rib(2);
    assert_eq!(bench.rows(Direction::Best).len(), 3);
    // Whoever comes later is not waited for.
    bench.input(Input::DynamicPeer { address: address(3) });
    bench.up_as(3, restarting(3));
    bench.announce(3, &["10.3.0.0/24"]);
    assert_eq!(bench.best("10.3.0.0/24"), Some(3));
}

#[test]
fn a_family_that_no_peer_has_does_not_wait() {
    let mut only = config([1]);
    only.peers[0].settings.session.families = FamilySet::only(Family::Ipv4Unicast);
    let mut bench = Bench::with_mode(FIB, only);
    bench.input(Input::FibConnected);
    assert_eq!(ends(&bench.pull_fib()), [Family::Ipv6Unicast]);
}

#[test]
fn a_peer_without_its_password_is_not_waited_for() {
    let mut missing = config([1]);
    missing.peers[0].settings.session.password = Password::Missing("Secret tor is missing".to_owned());
    let mut bench = Bench::with_mode(RESTART, own(missing));
    bench.input(Input::FibConnected);
    assert_eq!(ends(&bench.pull_fib()), Family::all());
}

#[test]
fn with_graceful_restart_off_selection_is_not_deferred() {
    let mut off = own(config([1]));
    off.graceful_restart = None;
    off.peers[0].settings.session.graceful_restart = None;
    let mut bench = Bench::with_mode(RESTART, off);
    assert_eq!(bench.best("10.244.1.0/24"), Some(0));
    bench.input(Input::FibConnected);
    assert_eq!(ends(&bench.pull_fib()), []);
    bench.advance(120);
    assert_eq!(ends(&bench.pull_fib()), Family::all());
}

#[test]
fn a_withdrawal_while_selection_is_deferred_leaves_nothing_behind() {
    let mut bench = Bench::with_mode(RESTART, config([1]));
    bench.up_as(1, SessionInfo { graceful: graceful(90, false, true), ..session(1, peer_as(1)) });
    bench.announce(1, &["10.1.0.0/24"]);
    bench.withdraw(1, &["10.1.0.0/24"]);
    assert_eq!(bench.speaker.counters().families[0].prefixes, 0);
    bench.end_of_rib(1);
    assert_eq!(bench.rows(Direction::Best).len(), 0);
}
