//! Collisions seen from one end (RFC 4271 §6.8), and connections that come while the session is Established.

use super::*;

fn cease_collision() -> Notification {
    Notification::new(6, 7)
}

fn with_identifier(last: u8) -> SessionConfig {
    SessionConfig { router_id: Ipv4Addr::new(192, 0, 2, last), ..config() }
}

/// Our connection is in OpenConfirm, then the peer's brings an OPEN (the peer's identifier ends in 1).
#[test]
fn rfc4271_6_8_the_connection_of_the_higher_identifier_stays() {
    // The peer's is higher only than 0.x; compare both ways with ours at 192.0.2.10 and at 1.1.1.1.
    for (identifier, ours_stays) in [(Ipv4Addr::new(192, 0, 2, 10), true), (Ipv4Addr::new(1, 1, 1, 1), false)]
    {
        let mut bench = Bench::started(SessionConfig { router_id: identifier, ..config() });
        let ours = bench.connect();
        bench.receive(ours, &open_octets(&peer_open()));
        let theirs = bench.accept().unwrap();
        bench.receive(theirs, &open_octets(&peer_open()));
        let (kept, dropped) = if ours_stays { (ours, theirs) } else { (theirs, ours) };
        assert_eq!(bench.notifications(dropped), [&cease_collision()]);
        assert!(bench.closed(dropped));
        assert!(!bench.closed(kept));
        bench.receive(kept, &keepalive_octets());
        assert_eq!(bench.session.state(), State::Established);
    }
}

#[test]
fn an_attempt_under_way_is_given_up_when_the_peers_open_comes() {
    let mut bench = Bench::started(config());
    let dialing = bench.dialing.unwrap();
    let theirs = bench.accept().unwrap();
    assert!(!bench.closed(dialing), "a silent connection stops nothing");
    bench.receive(theirs, &open_octets(&peer_open()));
    assert!(bench.closed(dialing));
    // Its success comes too late and is closed again.
    bench.handle(SessionInput::Connected { connection: dialing, addresses: addresses() });
    assert_eq!(bench.log.iter().filter(|l| **l == Logged::Closed(dialing)).count(), 2);
    bench.receive(theirs, &keepalive_octets());
    assert_eq!(bench.session.state(), State::Established);
}

#[test]
fn the_keepalive_of_the_loser_is_withheld_until_the_winner_speaks() {
    // Ours wins, and waits for its OPEN, while the peer's has got its own.
    let mut bench = Bench::started(config());
    let ours = bench.connect();
    let theirs = bench.accept().unwrap();
    bench.receive(theirs, &open_octets(&peer_open()));
    bench.receive(theirs, &keepalive_octets());
    assert_eq!(bench.sent(theirs).len(), 1, "our OPEN and no KEEPALIVE: {:?}", bench.sent(theirs));
    assert_eq!(bench.session.state(), State::OpenConfirm);
    bench.receive(ours, &open_octets(&peer_open()));
    assert_eq!(bench.notifications(theirs), [&cease_collision()]);
    bench.receive(ours, &keepalive_octets());
    assert_eq!(bench.session.state(), State::Established);
}

#[test]
fn the_keepalive_of_the_loser_goes_out_when_the_winner_is_gone_or_silent() {
    let losing = || {
        let mut bench = Bench::started(config());
        let ours = bench.connect();
        let theirs = bench.accept().unwrap();
        bench.receive(theirs, &open_octets(&peer_open()));
        bench.receive(theirs, &keepalive_octets());
        (bench, ours, theirs)
    };
    let (mut gone, ours, theirs) = losing();
    gone.handle(SessionInput::Lost { connection: ours, reason: "reset".to_owned() });
    assert_eq!(gone.session.state(), State::Established);
    assert_eq!(gone.sent(theirs).last(), Some(&&Message::Keepalive));

    let (mut silent, ours, _) = losing();
    silent.pass(Duration::from_millis(1100));
    assert_eq!(silent.session.state(), State::Established);
    assert_eq!(silent.notifications(ours), [&cease_collision()]);
}

#[test]
fn rfc4271_6_8_a_second_connection_of_the_peer_is_judged_by_its_open() {
    for (identifier, newer_stays) in [(10, false), (0, true)] {
        let mut bench = Bench::started(SessionConfig { passive: true, ..with_identifier(identifier) });
        let first = bench.accept().unwrap();
        bench.receive(first, &open_octets(&peer_open()));
        let second = bench.accept().unwrap();
        bench.receive(second, &open_octets(&peer_open()));
        let (kept, dropped) = if newer_stays { (second, first) } else { (first, second) };
        assert_eq!(bench.notifications(dropped), [&cease_collision()]);
        bench.receive(kept, &keepalive_octets());
        assert_eq!(bench.session.state(), State::Established);
    }
}

#[test]
fn connections_that_say_nothing_do_not_keep_the_peer_out() {
    let mut bench = Bench::started(SessionConfig { passive: true, ..config() });
    let oldest = bench.accept().unwrap();
    bench.accept().unwrap();
    let newest = bench.accept().unwrap();
    assert!(bench.closed(oldest), "the oldest makes room");
    bench.advance_to(newest, State::Established);
    assert_eq!(bench.session.state(), State::Established);
}

#[test]
fn a_peer_that_connects_without_end_is_refused() {
    let mut bench = Bench::started(SessionConfig { passive: true, ..config() });
    let taken = (0..200).filter(|_| bench.accept().is_some()).count();
    assert_eq!(taken, 64);
    bench.pass(seconds(1));
    assert!(bench.accept().is_some());
}

#[test]
fn rfc4271_8_2_2_established_a_new_connection_is_tracked_until_its_open_and_then_closed() {
    let config = SessionConfig { graceful_restart: None, ..config() };
    let mut bench = Bench::started(config);
    let old = bench.connect();
    bench.advance_to(old, State::Established);
    bench.pass(seconds(10));
    let new = bench.accept().unwrap();
    assert!(!bench.closed(new));
    bench.receive(new, &open_octets(&peer_open()));
    assert_eq!(bench.notifications(new), [&cease_collision()]);
    assert!(!bench.closed(old));
    assert!(bench.downs().is_empty());
    assert_eq!(bench.session.state(), State::Established);
}

#[test]
fn idle_refuses_connections() {
    let mut bench = Bench::new(config());
    assert_eq!(bench.accept(), None);
    assert_eq!(bench.take(), [Logged::Refused]);
}
