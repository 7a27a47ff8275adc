//! What the operator and the configuration want of a session (RFC 4486, RFC 9003).

use super::*;
use causeway_bgp_wire::Cease;

#[test]
fn stop_says_why_and_start_comes_back() {
    for state in [State::OpenSent, State::OpenConfirm, State::Established] {
        let (mut bench, id) = Bench::in_state(state);
        let text = Notification::cease_with_message(Cease::AdministrativeShutdown, "maintenance");
        bench.command(Command::Stop(text.clone()));
        assert_eq!(bench.notifications(id), [&text]);
        assert!(bench.closed(id));
        assert_eq!(bench.session.state(), State::Idle);
        assert_eq!(bench.session.poll_timeout(), None);
        assert_eq!(bench.accept(), None);
        bench.command(Command::Start);
        assert_eq!(bench.session.state(), State::Connect);
    }
}

#[test]
fn every_change_of_state_is_told_once() {
    let (mut bench, id) = Bench::in_state(State::Established);
    bench.command(Command::Stop(Notification::cease(Cease::AdministrativeShutdown)));
    let changes: Vec<(State, State)> = bench
        .log
        .iter()
        .filter_map(|l| if let Logged::State(old, new, _) = l { Some((*old, *new)) } else { None })
        .collect();
    use State::*;
    let expected = [Idle, Connect, OpenSent, OpenConfirm, Established, Idle];
    assert_eq!(changes, expected.windows(2).map(|w| (w[0], w[1])).collect::<Vec<_>>());
    assert!(bench.closed(id));
}

#[test]
fn stop_while_dialling_gives_the_attempt_up() {
    let mut bench = Bench::started(config());
    let dialing = bench.dialing.unwrap();
    bench.command(Command::Stop(Notification::cease(Cease::AdministrativeShutdown)));
    assert!(bench.closed(dialing));
    assert_eq!(bench.session.state(), State::Idle);
}

#[test]
fn reset_comes_back_by_itself() {
    let (mut bench, id) = Bench::in_state(State::Established);
    let notification = Notification::cease(Cease::AdministrativeReset);
    bench.command(Command::Reset { notification: notification.clone(), idle_for: None });
    assert_eq!(bench.notifications(id), [&notification]);
    assert_eq!(bench.downs()[0].label, "admin");
    assert!(!bench.downs()[0].retain);
    bench.take();
    bench.pass(seconds(1));
    let tried = bench.take();
    assert!(matches!(tried.as_slice(), [Logged::Dial(_), Logged::State(State::Active, State::Connect, _)]));
}

#[test]
fn after_a_reset_or_new_parameters_the_peer_may_connect_at_once() {
    let reset =
        Command::Reset { notification: Notification::cease(Cease::AdministrativeReset), idle_for: None };
    for command in [reset, Command::Configure(Arc::new(SessionConfig { passive: true, ..config() }))] {
        let (mut bench, _) = Bench::in_state(State::Established);
        bench.command(command);
        let theirs = bench.accept().expect("accepted at once");
        bench.advance_to(theirs, State::Established);
        assert_eq!(bench.session.state(), State::Established);
    }
}

#[test]
fn rfc4486_4_a_peer_over_its_limit_comes_back_when_told() {
    let over = Notification::maximum_prefixes(wire::Family::Ipv4Unicast, 1000);
    let (mut bench, id) = Bench::in_state(State::Established);
    bench.command(Command::Reset { notification: over.clone(), idle_for: Some(seconds(300)) });
    assert_eq!(bench.notifications(id), [&over]);
    assert_eq!(bench.downs()[0].label, "max-prefixes");
    assert_eq!(bench.session.state(), State::Idle);
    bench.pass(seconds(299));
    assert_eq!(bench.accept(), None, "Idle refuses");
    assert_eq!(bench.session.state(), State::Idle);
    bench.pass(seconds(2));
    assert_eq!(bench.session.state(), State::Connect);

    let (mut bench, _) = Bench::in_state(State::Established);
    bench.command(Command::Reset { notification: over, idle_for: Some(Duration::MAX) });
    bench.pass(seconds(100_000));
    assert_eq!(bench.session.state(), State::Idle, "only by hand");
    let by_hand = Notification::cease(Cease::AdministrativeReset);
    bench.command(Command::Reset { notification: by_hand, idle_for: None });
    bench.pass(seconds(1));
    assert_eq!(bench.session.state(), State::Connect);
}

#[test]
fn a_reset_does_not_wake_a_stopped_peer() {
    let mut bench = Bench::new(config());
    let notification = Notification::cease(Cease::AdministrativeReset);
    bench.command(Command::Reset { notification, idle_for: None });
    bench.pass(seconds(100));
    assert_eq!(bench.session.state(), State::Idle);
    assert_eq!(bench.dialing, None);
}

#[test]
fn new_parameters_end_the_session_and_are_used_by_the_next() {
    let (mut bench, id) = Bench::in_state(State::Established);
    let changed = SessionConfig { hold_time: seconds(9), ..config() };
    bench.command(Command::Configure(Arc::new(changed)));
    assert_eq!(bench.notifications(id), [&Notification::new(6, 6)]);
    assert_eq!(bench.downs()[0].label, "config");
    bench.pass(seconds(1));
    let id = bench.connect();
    let Message::Open(open) = bench.sent(id)[0] else { panic!("an OPEN comes first") };
    assert_eq!(open.hold_time, 9);
}

#[test]
fn a_missing_password_keeps_the_peer_idle_and_says_so() {
    let missing = Password::Missing("secret tor has no key password".to_owned());
    let mut bench = Bench::started(SessionConfig { password: missing, ..config() });
    assert_eq!(bench.session.state(), State::Idle);
    assert_eq!(bench.session.blocked(), Some("secret tor has no key password"));
    assert_eq!(bench.accept(), None);
    assert_eq!(bench.dialing, None);
    let there = SessionConfig { password: Password::Key("s".to_owned()), ..config() };
    bench.command(Command::Configure(Arc::new(there)));
    bench.pass(seconds(1));
    assert_eq!(bench.session.blocked(), None);
    assert!(bench.dialing.is_some());
}

#[test]
fn a_link_that_goes_down_ends_the_session_without_a_word_and_it_is_tried_again() {
    let (mut bench, id) = Bench::in_state(State::Established);
    bench.take();
    bench.command(Command::LinkDown("eth0".into()));
    assert!(bench.sent(id).is_empty());
    assert!(bench.closed(id));
    bench.pass(seconds(1));
    assert!(bench.dialing.is_some());
}
