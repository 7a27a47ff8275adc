//! Graceful restart in the session machine (RFC 4724): what may be retained, and a peer that comes back before the
//! old connection is known to be dead.

use super::*;

fn loses(mut bench: Bench, end: impl FnOnce(&mut Bench)) -> Down {
    end(&mut bench);
    let downs = bench.downs();
    assert_eq!(downs.len(), 1, "{:?}", bench.log);
    downs[0].clone()
}

fn reset(id: ConnectionId) -> impl FnOnce(&mut Bench) {
    move |bench| bench.handle(SessionInput::Lost { connection: id, reason: "reset".to_owned() })
}

#[test]
fn rfc4724_4_2_only_the_loss_of_tcp_retains() {
    let (bench, id) = Bench::in_state(State::Established);
    let down = loses(bench, reset(id));
    assert_eq!((down.retain, down.label), (true, "tcp"));

    let (bench, id) = Bench::in_state(State::Established);
    let shutdown = Notification::new(6, 2);
    let down = loses(bench, |b| b.receive(id, &notification_octets(&shutdown)));
    assert_eq!((down.retain, down.label), (false, "notification-received"));
    assert!(down.reason.contains("Administrative Shutdown"), "{}", down.reason);

    let (bench, _) = Bench::in_state(State::Established);
    let down = loses(bench, |b| b.pass(seconds(91)));
    assert_eq!((down.retain, down.label), (false, "hold-timer"));

    let (bench, id) = Bench::in_state(State::Established);
    let down = loses(bench, |b| b.receive(id, &open_octets(&peer_open())));
    assert_eq!((down.retain, down.label), (false, "notification-sent"));

    let (bench, _) = Bench::in_state(State::Established);
    let down = loses(bench, |b| b.command(Command::LinkDown("eth0".into())));
    assert_eq!((down.retain, down.label), (false, "link-down"));
    assert!(down.reason.contains("eth0"), "{}", down.reason);
}

#[test]
fn rfc4724_4_2_nothing_is_retained_unless_both_ends_sent_the_capability() {
    let established = |config: SessionConfig, open: Open| {
        let mut bench = Bench::started(config);
        let id = bench.connect();
        bench.receive(id, &open_octets(&open));
        bench.receive(id, &keepalive_octets());
        (bench, id)
    };
    let (bench, id) = established(SessionConfig { graceful_restart: None, ..config() }, peer_open());
    assert!(!loses(bench, reset(id)).retain);
    let (bench, id) = established(config(), peer_open_with(Vec::new()));
    assert!(!loses(bench, reset(id)).retain);
    let empty = gr::capability(seconds(60), FamilySet::EMPTY, RestartMarks::default());
    let (bench, id) = established(config(), peer_open_with(vec![empty]));
    assert!(!loses(bench, reset(id)).retain);
}

#[test]
fn rfc4724_5_a_new_connection_means_the_peer_has_restarted() {
    let (mut bench, old) = Bench::in_state(State::Established);
    bench.pass(seconds(10));
    bench.take();
    let new = bench.accept().unwrap();
    assert!(bench.closed(old));
    assert!(bench.sent(old).is_empty(), "the old connection is closed without a word");
    let downs = bench.downs();
    assert_eq!(downs.len(), 1);
    assert!(downs[0].retain);
    bench.advance_to(new, State::Established);
    assert_eq!(bench.session.state(), State::Established);
    assert!(bench.up().is_some());
}

#[test]
fn right_after_established_a_new_connection_is_the_rest_of_a_collision() {
    let (mut bench, old) = Bench::in_state(State::Established);
    let new = bench.accept().unwrap();
    assert!(!bench.closed(old));
    bench.receive(new, &open_octets(&peer_open()));
    assert_eq!(bench.notifications(new), [&Notification::new(6, 7)]);
    assert_eq!(bench.session.state(), State::Established);
}

#[test]
fn rfc4724_3_each_open_carries_the_marks_of_its_time() {
    let restarting = |bench: &Bench, id| {
        let Message::Open(open) = bench.sent(id)[0] else { panic!("an OPEN comes first") };
        let restart = open.graceful_restart().unwrap();
        (restart.restart_state, restart.families.iter().all(|(_, kept)| *kept))
    };
    let mut bench =
        Bench::with_marks(config(), RestartMarks { restarting: true, forwarding: FamilySet::ALL });
    bench.command(Command::Start);
    let first = bench.connect();
    assert_eq!(restarting(&bench, first), (true, true));
    bench.command(Command::Marks(RestartMarks::default()));
    bench.handle(SessionInput::Lost { connection: first, reason: "reset".to_owned() });
    bench.pass(seconds(5));
    let second = bench.connect();
    assert_eq!(restarting(&bench, second), (false, false));
}
