//! An Established session: what is handed on, in which order, and how received octets are framed.

use super::*;

#[test]
fn messages_in_pieces_and_in_heaps() {
    let (mut bench, id) = Bench::in_state(State::Established);
    bench.take();
    let update = update_octets();
    for cut in 1..update.len() {
        assert_eq!(bench.session.receive(bench.now, id, &update[..cut]), 0, "half a message is left");
    }
    let heap: Vec<u8> = [update.clone(), keepalive_octets(), update.clone(), update[..7].to_vec()].concat();
    assert_eq!(bench.session.receive(bench.now, id, &heap), heap.len() - 7);
    bench.drain();
    assert_eq!(bench.take(), [Logged::Update, Logged::Update]);
}

#[test]
fn decoding_stops_when_much_waits_and_goes_on_later() {
    let (mut bench, id) = Bench::in_state(State::Established);
    bench.take();
    let heap = update_octets().repeat(1000);
    let mut done = 0;
    let mut rounds = 0;
    while done < heap.len() {
        let taken = bench.session.receive(bench.now, id, &heap[done..]);
        assert!(taken > 0);
        done += taken;
        rounds += 1;
        bench.drain();
    }
    assert_eq!(bench.take().len(), 1000);
    assert!(rounds > 2, "bounded outputs: {rounds} rounds");
}

#[test]
fn octets_of_a_connection_that_is_gone_are_nobodys() {
    let (mut bench, id) = Bench::in_state(State::Established);
    let mut bad = keepalive_octets();
    bad[0] = 0;
    let heap = [bad, update_octets()].concat();
    assert_eq!(bench.session.receive(bench.now, id, &heap), heap.len());
    bench.drain();
    bench.take();
    assert_eq!(bench.session.receive(bench.now, id, &update_octets()), update_octets().len());
    bench.drain();
    assert_eq!(bench.take(), []);
}

#[test]
fn rfc2918_refreshes_of_the_session_are_handed_on_and_others_ignored() {
    let (mut bench, id) = Bench::in_state(State::Established);
    bench.take();
    bench.receive(id, &refresh_octets());
    assert_eq!(bench.take(), [Logged::Refresh]);
    for (afi, subtype) in [(25, 0), (2, 7)] {
        let mut other = refresh_octets();
        (other[20], other[21]) = (afi, subtype);
        bench.receive(id, &other);
    }
    assert_eq!(bench.take(), [], "neither foreign families nor unknown subtypes matter");
    assert_eq!(bench.session.state(), State::Established);
}

#[test]
fn a_refresh_is_asked_for_only_where_it_is_understood() {
    let (mut bench, id) = Bench::in_state(State::Established);
    bench.take();
    bench.command(Command::RequestRefresh(wire::Family::Ipv6Unicast));
    let request = wire::RouteRefresh::request(wire::Family::Ipv6Unicast);
    assert_eq!(bench.take(), [Logged::Sent(id, Box::new(Message::RouteRefresh(request)))]);

    let mut plain = Bench::started(config());
    let id = plain.connect();
    plain.receive(id, &open_octets(&Open { capabilities: Vec::new(), ..peer_open() }));
    plain.receive(id, &keepalive_octets());
    plain.take();
    plain.command(Command::RequestRefresh(wire::Family::Ipv4Unicast));
    assert_eq!(plain.take(), []);
}

#[test]
fn an_update_that_cannot_be_framed_resets_and_what_came_before_it_counts() {
    let (mut bench, id) = Bench::in_state(State::Established);
    bench.take();
    // Withdrawn routes length past the end (RFC 4271 §6.3: Malformed Attribute List).
    let mut bad = update_octets();
    (bad[19], bad[20]) = (0xff, 0xff);
    bench.receive(id, &[update_octets(), bad].concat());
    assert_eq!(bench.log[0], Logged::Update);
    assert_eq!(bench.notifications(id), [&Notification::new(3, 1)]);
    assert!(!bench.downs()[0].retain);
}

#[test]
fn a_peer_that_does_not_read_is_given_up() {
    let (mut bench, id) = Bench::in_state(State::Established);
    bench.handle(SessionInput::SendStuck(id));
    assert!(bench.closed(id));
    assert!(!bench.downs()[0].retain);
    assert!(bench.downs()[0].reason.contains("not read"), "{}", bench.downs()[0].reason);
}
