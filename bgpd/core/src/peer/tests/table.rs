//! Every pair of state and event (RFC 4271 §8.2.2), against a table written by hand from the RFC.

use super::super::fsm::{Action, Event, Farewell, State, transition};
use super::*;

/// One row an event, one column a state: what is done, and the first letters of the state that follows.
const TABLE: [(Event, [&str; 6]); 24] = [
    // event                          Idle      Connect     Active      OpenSent     OpenConfirm  Established
    (Event::Start, ["dial C", "- C", "- A", "- OS", "- OC", "- E"]),
    (Event::StartPassive, ["wait A", "- C", "- A", "- OS", "- OC", "- E"]),
    (Event::Stop, ["- I", "end I", "end I", "given I", "given I", "given I"]),
    (Event::ConnectRetryTimerExpires, ["- I", "dial C", "dial C", "- OS", "- OC", "- E"]),
    (Event::HoldTimerExpires, ["- I", "end I", "end I", "hold I", "hold I", "hold I"]),
    (Event::KeepaliveTimerExpires, ["- I", "end I", "end I", "- OS", "alive OC", "alive E"]),
    (Event::DelayOpenTimerExpires, ["- I", "- C", "- A", "- OS", "- OC", "- E"]),
    (Event::IdleHoldTimerExpires, ["dial C", "- C", "- A", "- OS", "- OC", "- E"]),
    (Event::TcpConnectionValid, ["- I", "- C", "- A", "- OS", "- OC", "- E"]),
    (Event::TcpRequestInvalid, ["- I", "- C", "- A", "- OS", "- OC", "- E"]),
    (Event::TcpRequestAcked, ["- I", "open OS", "open OS", "- OS", "- OC", "- E"]),
    (Event::TcpConnectionConfirmed, ["- I", "open OS", "open OS", "- OS", "- OC", "- E"]),
    (Event::TcpConnectionFails, ["- I", "wait A", "wait A", "end A", "end I", "end I"]),
    (Event::BgpOpen, ["- I", "end I", "end I", "confirm OC", "fsm2 I", "fsm3 I"]),
    (Event::BgpOpenWithDelayOpenTimer, ["- I", "- C", "- A", "- OS", "- OC", "- E"]),
    (Event::BgpHeaderErr, ["- I", "end I", "end I", "given I", "given I", "given I"]),
    (Event::BgpOpenMsgErr, ["- I", "end I", "end I", "given I", "given I", "given I"]),
    (Event::OpenCollisionDump, ["- I", "end I", "end I", "collision I", "collision I", "collision I"]),
    (Event::NotifMsgVerErr, ["- I", "end I", "end I", "end I", "end I", "end I"]),
    (Event::NotifMsg, ["- I", "end I", "end I", "end I", "end I", "end I"]),
    (Event::KeepAliveMsg, ["- I", "end I", "end I", "fsm1 I", "up E", "rehold E"]),
    (Event::UpdateMsg, ["- I", "end I", "end I", "fsm1 I", "fsm2 I", "update E"]),
    (Event::UpdateMsgErr, ["- I", "end I", "end I", "fsm1 I", "fsm2 I", "given I"]),
    (Event::RouteRefreshMsg, ["- I", "end I", "end I", "fsm1 I", "fsm2 I", "refresh E"]),
];

fn action(word: &str) -> Action {
    match word {
        "-" => Action::Nothing,
        "dial" => Action::Dial,
        "wait" => Action::Wait,
        "open" => Action::SendOpen,
        "confirm" => Action::Confirm,
        "up" => Action::Establish,
        "rehold" => Action::RestartHold,
        "alive" => Action::SendKeepalive,
        "update" => Action::DeliverUpdate,
        "refresh" => Action::DeliverRefresh,
        "end" => Action::End(Farewell::Silent),
        "given" => Action::End(Farewell::Given),
        "hold" => Action::End(Farewell::HoldTimerExpired),
        "collision" => Action::End(Farewell::Collision),
        "fsm1" => Action::End(Farewell::Unexpected(wire::FsmState::OpenSent)),
        "fsm2" => Action::End(Farewell::Unexpected(wire::FsmState::OpenConfirm)),
        "fsm3" => Action::End(Farewell::Unexpected(wire::FsmState::Established)),
        other => panic!("{other}?"),
    }
}

fn state(word: &str) -> State {
    match word {
        "I" => State::Idle,
        "C" => State::Connect,
        "A" => State::Active,
        "OS" => State::OpenSent,
        "OC" => State::OpenConfirm,
        "E" => State::Established,
        other => panic!("{other}?"),
    }
}

#[test]
fn rfc4271_8_2_2_every_state_and_event() {
    let rows: Vec<Event> = TABLE.iter().map(|(event, _)| *event).collect();
    assert_eq!(rows, Event::ALL, "a row an event");
    for (event, cells) in TABLE {
        for (from, cell) in State::ALL.into_iter().zip(cells) {
            let (what, next) = cell.split_once(' ').unwrap();
            let found = transition(from, event);
            assert_eq!((found.action, found.next), (action(what), state(next)), "{event:?} in {from}");
        }
    }
}

/// The same through the whole machine: what really happens to a connection in each of its states.
#[test]
fn rfc6608_a_message_out_of_place_is_an_fsm_error_with_the_subcode_of_the_state() {
    let messages: [(&str, Vec<u8>); 4] = [
        ("OPEN", open_octets(&peer_open())),
        ("UPDATE", update_octets()),
        ("KEEPALIVE", keepalive_octets()),
        ("ROUTE-REFRESH", refresh_octets()),
    ];
    let in_place = |name: &str, state: State| match state {
        State::OpenSent => name == "OPEN",
        State::OpenConfirm => name == "KEEPALIVE",
        _ => name != "OPEN",
    };
    for (subcode, state) in [(1, State::OpenSent), (2, State::OpenConfirm), (3, State::Established)] {
        for (name, octets) in &messages {
            let (mut bench, id) = Bench::in_state(state);
            bench.take();
            bench.receive(id, octets);
            if in_place(name, state) {
                assert!(!bench.closed(id), "{name} in {state}");
            } else {
                assert_eq!(bench.notifications(id), [&Notification::new(5, subcode)], "{name} in {state}");
                assert!(bench.closed(id), "{name} in {state}");
                assert_eq!(bench.downs().len(), usize::from(state == State::Established));
            }
        }
    }
}

#[test]
fn rfc4271_6_8_errors_of_a_message_out_of_place_are_not_looked_for() {
    // An UPDATE whose attribute length runs past its end, in OpenSent: the state is what is wrong.
    let mut octets = vec![0xff; 16];
    octets.extend_from_slice(&[0, 23, 2, 0, 0, 0xff, 0xff]);
    let (mut bench, id) = Bench::in_state(State::OpenSent);
    bench.receive(id, &octets);
    assert_eq!(bench.notifications(id), [&Notification::new(5, 1)]);
}

#[test]
fn rfc4271_6_4_a_notification_is_never_answered() {
    for state in [State::OpenSent, State::OpenConfirm, State::Established] {
        for notification in
            [Notification::unsupported_version(), Notification::new(6, 2), Notification::new(99, 99)]
        {
            let (mut bench, id) = Bench::in_state(state);
            bench.take();
            bench.receive(id, &notification_octets(&notification));
            assert_eq!(bench.notifications(id), Vec::<&Notification>::new());
            assert!(bench.closed(id));
            assert_eq!(bench.session.state(), State::Active, "tries again later");
        }
    }
}

#[test]
fn rfc4271_6_1_header_errors_are_reported_in_every_state() {
    let mut marker = keepalive_octets();
    marker[3] = 0;
    let mut kind = keepalive_octets();
    kind[18] = 9;
    let mut length = keepalive_octets();
    length[17] = 18;
    for state in [State::OpenSent, State::OpenConfirm, State::Established] {
        for (octets, notification) in [
            (&marker, Notification::new(1, 1)),
            (&length, Notification::bad_message_length(18)),
            (&kind, Notification::bad_message_type(9)),
        ] {
            let (mut bench, id) = Bench::in_state(state);
            bench.take();
            bench.receive(id, octets);
            assert_eq!(bench.notifications(id), [&notification], "in {state}");
            assert!(bench.closed(id));
        }
    }
}
