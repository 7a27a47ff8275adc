//! Timers (RFC 4271 §8.2.2 and §10): their lengths, what resets them, and that hold time zero has none.

use super::*;

fn keepalives(bench: &Bench, id: ConnectionId) -> usize {
    bench.sent(id).into_iter().filter(|m| **m == Message::Keepalive).count()
}

#[test]
fn rfc4271_8_2_2_hold_timer_of_four_minutes_in_open_sent() {
    let (mut bench, id) = Bench::in_state(State::OpenSent);
    bench.pass(seconds(239));
    assert!(!bench.closed(id));
    bench.pass(seconds(2));
    assert_eq!(bench.notifications(id), [&Notification::new(4, 0)]);
    assert!(bench.closed(id));
}

#[test]
fn rfc4271_6_5_hold_timer_expires() {
    for state in [State::OpenConfirm, State::Established] {
        let (mut bench, id) = Bench::in_state(state);
        bench.pass(seconds(89));
        assert!(!bench.closed(id), "{state}");
        bench.pass(seconds(2));
        assert_eq!(bench.notifications(id), [&Notification::new(4, 0)], "{state}");
        assert!(bench.closed(id), "{state}");
    }
}

#[test]
fn rfc4271_4_4_keepalives_and_updates_reset_the_hold_timer() {
    for octets in [keepalive_octets(), update_octets()] {
        let (mut bench, id) = Bench::in_state(State::Established);
        for _ in 0..10 {
            bench.pass(seconds(80));
            bench.receive(id, &octets);
        }
        assert!(!bench.closed(id));
        bench.pass(seconds(91));
        assert!(bench.closed(id));
    }
}

#[test]
fn rfc4271_10_keepalives_leave_with_jitter_never_later_than_a_third_of_the_hold_time() {
    let (mut bench, id) = Bench::in_state(State::Established);
    let before = keepalives(&bench, id);
    // The peer stays alive as well.
    for _ in 0..100 {
        bench.pass(seconds(36));
        bench.receive(id, &keepalive_octets());
    }
    let sent = keepalives(&bench, id) - before;
    assert!((120..=160).contains(&sent), "3600 s at 22.5 to 30 s each: {sent}");
}

#[test]
fn rfc4271_4_2_hold_time_zero_has_no_timers() {
    let mut bench = Bench::started(SessionConfig { hold_time: seconds(0), ..config() });
    let id = bench.connect();
    bench.advance_to(id, State::Established);
    assert_eq!(bench.session.poll_timeout(), None);
    let info = bench.up().unwrap();
    assert_eq!((info.hold_time, info.keepalive_time), (Duration::ZERO, Duration::ZERO));
    bench.pass(seconds(100_000));
    assert_eq!(bench.session.state(), State::Established);
    assert_eq!(keepalives(&bench, id), 1, "the one that answered the OPEN");
}

#[test]
fn silence_while_we_do_not_read_is_not_the_peers() {
    let (mut bench, id) = Bench::in_state(State::Established);
    bench.session.set_paused(bench.now, id, true);
    bench.pass(seconds(1000));
    assert!(!bench.closed(id));
    assert!(keepalives(&bench, id) > 30, "ours go out all the same");
    bench.session.set_paused(bench.now, id, false);
    bench.pass(seconds(89));
    assert!(!bench.closed(id));
    bench.pass(seconds(2));
    assert!(bench.closed(id));
}

#[test]
fn rfc4271_8_2_2_connect_retry_gives_up_an_attempt_and_tries_again() {
    let mut bench = Bench::started(config());
    let first = bench.dialing.unwrap();
    bench.pass(Duration::from_millis(3700));
    assert_eq!(bench.dialing, Some(first), "not before three quarters of 5 s");
    bench.pass(Duration::from_millis(1400));
    assert!(bench.closed(first));
    assert_ne!(bench.dialing, Some(first));
    assert_eq!(bench.session.state(), State::Connect);
}

#[test]
fn a_refused_attempt_waits_for_the_connect_retry_time_in_active() {
    let mut bench = Bench::started(config());
    let mut starts = Vec::new();
    for _ in 0..20 {
        let connection = bench.dialing.take().unwrap();
        bench.handle(SessionInput::Lost { connection, reason: "refused".to_owned() });
        assert_eq!(bench.session.state(), State::Active);
        let from = bench.now;
        let due = bench.session.poll_timeout().unwrap();
        starts.push(due - from);
        bench.pass(due - from);
        assert_eq!(bench.session.state(), State::Connect);
    }
    assert!(starts.iter().all(|t| (Duration::from_millis(3750)..=seconds(5)).contains(t)), "{starts:?}");
    starts.dedup();
    assert!(starts.len() > 10, "jitter: {starts:?}");
}

#[test]
fn errors_in_a_row_make_the_pause_grow_and_a_stable_session_ends_that() {
    let mut bench = Bench::started(config());
    let mut pauses = Vec::new();
    for round in 0..8 {
        let id = bench.connect();
        bench.advance_to(id, if round == 7 { State::Established } else { State::OpenConfirm });
        if round == 7 {
            bench.pass(seconds(31));
        }
        bench.receive(id, &notification_octets(&Notification::new(6, 4)));
        assert_eq!(bench.session.state(), State::Active);
        let pause = bench.session.poll_timeout().unwrap() - bench.now;
        pauses.push(pause.as_secs_f64());
        bench.pass(pause);
    }
    let full = [1.0, 2.0, 4.0, 8.0, 16.0, 20.0, 20.0, 1.0];
    for (pause, full) in pauses.iter().zip(full) {
        assert!((full * 0.75..=full).contains(pause), "{pauses:?}");
    }
}

#[test]
fn the_peer_may_connect_while_we_pause() {
    let (mut bench, id) = Bench::in_state(State::OpenSent);
    bench.receive(id, &notification_octets(&Notification::bad_peer_as()));
    let theirs = bench.accept().expect("accepted during the pause");
    bench.advance_to(theirs, State::Established);
    assert_eq!(bench.session.state(), State::Established);
    assert_eq!(bench.dialing, None);
}

#[test]
fn a_lost_connection_in_open_sent_leads_to_active() {
    let (mut bench, id) = Bench::in_state(State::OpenSent);
    bench.handle(SessionInput::Lost { connection: id, reason: "reset".to_owned() });
    assert_eq!(bench.session.state(), State::Active);
    let pause = bench.session.poll_timeout().unwrap() - bench.now;
    assert!((Duration::from_millis(3750)..=seconds(5)).contains(&pause));
}

#[test]
fn a_passive_peer_is_never_dialled() {
    let mut bench = Bench::started(SessionConfig { passive: true, ..config() });
    assert_eq!(bench.session.state(), State::Active);
    assert_eq!(bench.session.poll_timeout(), None);
    let id = bench.accept().unwrap();
    bench.advance_to(id, State::Established);
    bench.handle(SessionInput::Lost { connection: id, reason: "reset".to_owned() });
    bench.pass(seconds(1000));
    assert_eq!(bench.dialing, None);
    assert!(bench.accept().is_some());
}

#[test]
fn what_is_left_after_our_own_connection_failed_does_not_stop_us_from_trying() {
    let mut bench = Bench::started(config());
    let ours = bench.connect();
    bench.accept().unwrap();
    bench.handle(SessionInput::Lost { connection: ours, reason: "reset".to_owned() });
    bench.pass(seconds(6));
    assert!(bench.dialing.is_some());
}
