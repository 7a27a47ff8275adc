//! RFC 4724 §4.2: the receiving speaker.

use super::*;

fn graceful_session(number: u8, seconds: u64) -> SessionInfo {
    SessionInfo { graceful: graceful(seconds, false, false), ..session(number, peer_as(number)) }
}

/// Two paths of one peer, whose session with a restart time of 90 s then falls.
fn retained() -> Bench {
    let mut bench = Bench::new(config([1]));
    bench.up_as(1, graceful_session(1, 90));
    bench.announce(1, &["10.1.0.0/24", "10.1.1.0/24"]);
    bench.announce(1, &["2001:db8:1::/64"]);
    bench.down(1, true);
    bench
}

fn back(bench: &mut Bench, restart: Option<PeerRestart>) {
    bench.up_as(1, SessionInfo { graceful: restart, ..session(1, peer_as(1)) });
}

#[test]
fn paths_are_retained_as_stale_until_the_shorter_of_both_times() {
    let mut bench = retained();
    let path = bench.path(1, "10.1.0.0/24").unwrap();
    assert!(path.stale && path.best && path.accepted);
    assert_eq!(path.peer_as, Some(peer_as(1)));
    assert_eq!(bench.peer(1).families[0].stale, 2);
    // Our limit is 60 s, the peer's time 90 s.
    bench.advance(59);
    assert_eq!(bench.rows(Direction::Best).len(), 3);
    bench.advance(1);
    assert_eq!(bench.rows(Direction::Learned).len(), 0);

    let mut bench = Bench::new(config([1]));
    bench.up_as(1, graceful_session(1, 10));
    bench.announce(1, &["10.1.0.0/24"]);
    bench.down(1, true);
    bench.advance(10);
    assert_eq!(bench.rows(Direction::Learned).len(), 0);
}

#[test]
fn without_permission_capability_or_time_paths_go_at_once() {
    // A NOTIFICATION, an expired hold timer or a dead link: `retain` is false.
    let mut bench = Bench::new(config([1]));
    bench.up_as(1, graceful_session(1, 90));
    bench.announce(1, &["10.1.0.0/24"]);
    bench.down(1, false);
    assert_eq!(bench.rows(Direction::Learned).len(), 0);

    let mut bench = Bench::new(config([1]));
    bench.up(1);
    bench.announce(1, &["10.1.0.0/24"]);
    bench.down(1, true);
    assert_eq!(bench.rows(Direction::Learned).len(), 0);

    let mut bench = Bench::new(config([1]));
    bench.up_as(1, graceful_session(1, 0));
    bench.announce(1, &["10.1.0.0/24"]);
    bench.down(1, true);
    assert_eq!(bench.rows(Direction::Learned).len(), 0);

    let mut off = config([1]);
    off.peers[0].settings.max_restart_time = Duration::ZERO;
    let mut bench = Bench::new(off);
    bench.up_as(1, graceful_session(1, 90));
    bench.announce(1, &["10.1.0.0/24"]);
    bench.down(1, true);
    assert_eq!(bench.rows(Direction::Learned).len(), 0);
}

#[test]
fn only_families_of_the_capability_are_retained() {
    let mut bench = Bench::new(config([1]));
    let only =
        PeerRestart { families: vec![(Family::Ipv6Unicast, true)], ..graceful(90, false, true).unwrap() };
    bench.up_as(1, SessionInfo { graceful: Some(only), ..session(1, peer_as(1)) });
    bench.announce(1, &["10.1.0.0/24"]);
    bench.announce(1, &["2001:db8:1::/64"]);
    bench.down(1, true);
    let rows = bench.rows(Direction::Learned);
    assert_eq!(rows.iter().map(|row| row.prefix).collect::<Vec<_>>(), [prefix("2001:db8:1::/64")]);
}

#[test]
fn fresh_paths_replace_stale_ones_and_end_of_rib_takes_the_rest() {
    let mut bench = retained();
    bench.advance(30);
    back(&mut bench, graceful(90, true, true));
    assert_eq!(bench.peer(1).families[0].stale, 2);
    bench.announce(1, &["10.1.0.0/24"]);
    assert!(!bench.path(1, "10.1.0.0/24").unwrap().stale);
    assert!(bench.path(1, "10.1.1.0/24").unwrap().stale);
    bench.update(1, Update { end_of_rib: Some(Family::Ipv4Unicast), ..Update::default() });
    assert_eq!(bench.best("10.1.0.0/24"), Some(1));
    assert_eq!(bench.best("10.1.1.0/24"), None);
    assert_eq!(bench.best("2001:db8:1::/64"), Some(1));
    bench.update(1, Update { end_of_rib: Some(Family::Ipv6Unicast), ..Update::default() });
    assert_eq!(bench.best("2001:db8:1::/64"), None);
    // Nothing is left to run out.
    bench.advance(3600);
    assert_eq!(bench.best("10.1.0.0/24"), Some(1));
}

#[test]
fn a_peer_that_lost_its_forwarding_state_loses_its_stale_paths_at_once() {
    for restart in [graceful(90, true, false), None] {
        let mut bench = retained();
        back(&mut bench, restart);
        assert_eq!(bench.rows(Direction::Learned).len(), 0);
    }
    let mut bench = retained();
    let only =
        PeerRestart { families: vec![(Family::Ipv4Unicast, true)], ..graceful(90, true, true).unwrap() };
    back(&mut bench, Some(only));
    assert_eq!(bench.rows(Direction::Learned).len(), 2);
}

#[test]
fn a_family_that_is_no_longer_negotiated_loses_its_stale_paths() {
    let mut bench = retained();
    bench.up_as(
        1,
        SessionInfo {
            families: FamilySet::only(Family::Ipv4Unicast),
            graceful: graceful(90, true, true),
            ..session(1, peer_as(1))
        },
    );
    assert_eq!(bench.rows(Direction::Learned).len(), 2);
}

#[test]
fn a_peer_that_never_says_end_of_rib_does_not_keep_stale_paths_for_ever() {
    let mut bench = retained();
    bench.advance(50);
    back(&mut bench, graceful(90, true, true));
    bench.announce(1, &["10.1.0.0/24"]);
    bench.advance(59);
    assert_eq!(bench.rows(Direction::Best).len(), 3);
    bench.advance(1);
    assert_eq!(bench.rows(Direction::Best).len(), 1);
}

#[test]
fn a_second_loss_deletes_what_was_stale_already() {
    let mut bench = retained();
    back(&mut bench, graceful(90, true, true));
    bench.announce(1, &["10.1.0.0/24"]);
    bench.down(1, true);
    let rows = bench.rows(Direction::Learned);
    assert_eq!(
        rows.iter().map(|row| (row.prefix, row.stale)).collect::<Vec<_>>(),
        [(prefix("10.1.0.0/24"), true)]
    );
}

#[test]
fn a_second_loss_with_notification_takes_all() {
    let mut bench = retained();
    back(&mut bench, graceful(90, true, true));
    bench.announce(1, &["10.1.0.0/24"]);
    bench.down(1, false);
    assert_eq!(bench.rows(Direction::Learned).len(), 0);
}

#[test]
fn a_stale_path_is_as_good_as_any_other() {
    let mut bench = Bench::new(config([1, 2]));
    bench.up_as(1, graceful_session(1, 90));
    bench.up(2);
    bench.announce(1, &["10.1.0.0/24"]);
    bench.announce(2, &["10.1.0.0/24"]);
    bench.down(1, true);
    assert_eq!(bench.best("10.1.0.0/24"), Some(1));
    bench.withdraw(2, &["10.1.0.0/24"]);
    bench.advance(60);
    assert_eq!(bench.best("10.1.0.0/24"), None);
}

#[test]
fn the_peer_may_come_back_with_another_identifier() {
    let mut bench = Bench::new(config([1, 2]));
    bench.up_as(1, graceful_session(1, 90));
    bench.up(2);
    bench.announce(1, &["10.1.0.0/24"]);
    bench.announce(2, &["10.1.0.0/24"]);
    bench.down(1, true);
    let changed = SessionInfo {
        router_id: Ipv4Addr::new(10, 9, 9, 9),
        graceful: graceful(90, true, true),
        ..session(1, peer_as(1))
    };
    bench.up_as(1, changed);
    assert_eq!(bench.best("10.1.0.0/24"), Some(2), "the stale path is decided by what is known now");
}

#[test]
fn a_session_that_replaces_another_without_a_word_starts_from_nothing() {
    let mut bench = Bench::new(config([1]));
    bench.up_as(1, graceful_session(1, 90));
    bench.announce(1, &["10.1.0.0/24"]);
    bench.up_as(1, graceful_session(1, 90));
    assert_eq!(bench.rows(Direction::Learned).len(), 0);
}
