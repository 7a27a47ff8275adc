//! What both OPENs come to (RFC 4271 §6.2, RFC 5492, RFC 6286, RFC 6793).

use super::super::open::{negotiate, ours};
use super::*;
use causeway_bgp_wire::Family;

fn refused(config: &SessionConfig, received: &Open) -> Notification {
    negotiate(config, &ours(config, RestartMarks::default(), false), received).unwrap_err().notification
}

fn agreed(config: &SessionConfig, received: &Open) -> super::super::open::Negotiated {
    negotiate(config, &ours(config, RestartMarks::default(), false), received).unwrap()
}

fn from(asn: Asn, last: u8) -> Open {
    Open { router_id: Ipv4Addr::new(192, 0, 2, last), ..Open::new(asn, 90, Ipv4Addr::LOCALHOST, mp()) }
}

fn mp() -> Vec<Capability> {
    FamilySet::ALL.iter().map(|f| Capability::Multiprotocol(f.afi_safi())).collect()
}

#[test]
fn our_open_says_what_is_configured() {
    let config = SessionConfig { local_as: Asn(4_200_000_001), hold_time: seconds(9), ..config() };
    let open = ours(&config, RestartMarks { restarting: true, forwarding: FamilySet::ALL }, false);
    assert_eq!(open.my_as, 23456);
    assert_eq!(open.asn(), Asn(4_200_000_001));
    assert_eq!(open.hold_time, 9);
    assert_eq!(open.router_id, config.router_id);
    assert_eq!(open.families(), FamilySet::ALL);
    assert!(open.route_refresh() && open.enhanced_route_refresh() && open.extended_message());
    let restart = open.graceful_restart().unwrap();
    assert!(restart.restart_state);
    assert!(restart.families.iter().all(|(_, kept)| *kept));
    let without = SessionConfig { graceful_restart: None, ..config };
    assert_eq!(ours(&without, RestartMarks::default(), false).graceful_restart(), None);
}

#[test]
fn rfc4271_6_2_the_as_must_be_the_configured_one() {
    for (remote_as, good, bad) in [
        (RemoteAs::Number(PEER_AS), PEER_AS, Asn(64602)),
        (RemoteAs::Internal, OUR_AS, PEER_AS),
        (RemoteAs::External, PEER_AS, OUR_AS),
    ] {
        let config = SessionConfig { remote_as, ..config() };
        assert_eq!(agreed(&config, &from(good, 1)).remote_as, good);
        assert_eq!(refused(&config, &from(bad, 1)), Notification::bad_peer_as());
    }
}

#[test]
fn rfc6793_the_capability_counts_not_the_field() {
    let big = Asn(4_200_000_001);
    let config = SessionConfig { remote_as: RemoteAs::Number(big), ..config() };
    let negotiated = agreed(&config, &from(big, 1));
    assert_eq!(negotiated.remote_as, big);
    assert!(negotiated.four_octet_as);
    // AS_TRANS without the capability is AS 23456 and nobody else.
    let old = Open { my_as: 23456, capabilities: mp(), ..from(big, 1) };
    assert_eq!(refused(&config, &old), Notification::bad_peer_as());
    let two = Open { my_as: 64601, capabilities: mp(), ..from(PEER_AS, 1) };
    let config = SessionConfig { remote_as: RemoteAs::Number(PEER_AS), ..config };
    assert!(!agreed(&config, &two).four_octet_as);
}

#[test]
fn rfc6286_2_2_our_own_identifier_is_bad_only_inside_our_as() {
    let internal = SessionConfig { remote_as: RemoteAs::Internal, ..config() };
    assert_eq!(refused(&internal, &from(OUR_AS, 10)), Notification::bad_bgp_identifier());
    agreed(&internal, &from(OUR_AS, 11));
    agreed(&config(), &from(PEER_AS, 10));
}

#[test]
fn rfc5492_5_no_family_in_common_names_what_is_missing() {
    let config = SessionConfig { families: FamilySet::only(Family::Ipv6Unicast), ..config() };
    // Without any multiprotocol capability a peer does IPv4 (RFC 4760 §8).
    let plain = Open::new(PEER_AS, 90, Ipv4Addr::new(192, 0, 2, 1), Vec::new());
    let missing = Capability::Multiprotocol(Family::Ipv6Unicast.afi_safi());
    assert_eq!(refused(&config, &plain), Notification::unsupported_capability(&[missing]));
    let both = SessionConfig { families: FamilySet::ALL, ..config };
    assert_eq!(agreed(&both, &plain).families, FamilySet::only(Family::Ipv4Unicast));
}

#[test]
fn rfc4271_4_2_hold_time_and_keepalives() {
    let hold = |ours: u64, theirs: u16| {
        let config = SessionConfig { hold_time: seconds(ours), ..config() };
        let negotiated = agreed(&config, &Open { hold_time: theirs, ..from(PEER_AS, 1) });
        (negotiated.hold_time, negotiated.keepalive_time)
    };
    assert_eq!(hold(90, 180), (Some(seconds(90)), Some(seconds(30))));
    assert_eq!(hold(90, 9), (Some(seconds(9)), Some(seconds(3))));
    assert_eq!(hold(90, 0), (None, None));
    assert_eq!(hold(0, 90), (None, None));
}

#[test]
fn what_only_one_end_announces_is_not_in_force() {
    let bare = agreed(&config(), &from(PEER_AS, 1));
    assert!(!bare.route_refresh && !bare.enhanced_refresh && !bare.extended_message);
    assert_eq!(bare.graceful, None);
    let full = agreed(&config(), &peer_open());
    assert!(full.route_refresh && full.enhanced_refresh && !full.extended_message);
    assert_eq!(full.graceful.unwrap().restart_time, seconds(60));
    let without = SessionConfig { graceful_restart: None, ..config() };
    assert_eq!(agreed(&without, &peer_open()).graceful, None);
}

#[test]
fn a_refused_open_ends_the_connection_with_its_notification() {
    let (mut bench, id) = Bench::in_state(State::OpenSent);
    bench.receive(id, &open_octets(&from(Asn(64999), 1)));
    assert_eq!(bench.notifications(id), [&Notification::bad_peer_as()]);
    assert!(bench.closed(id));
    let reason =
        |l: &Logged| matches!(l, Logged::State(State::OpenSent, State::Idle, why) if why.contains("64999"));
    assert!(bench.log.iter().any(reason), "the log names the AS: {:?}", bench.log);
}

#[test]
fn rfc5492_3_a_peer_without_optional_parameters_gets_an_open_without() {
    let (mut bench, id) = Bench::in_state(State::OpenSent);
    bench.receive(id, &notification_octets(&Notification::unsupported_optional_parameter()));
    bench.take();
    bench.pass(seconds(2));
    let id = bench.connect();
    let Message::Open(open) = bench.sent(id)[0] else { panic!("an OPEN comes first") };
    assert!(open.capabilities.is_empty());
    // It does plain BGP-4 then.
    bench.receive(id, &open_octets(&Open { capabilities: Vec::new(), ..from(PEER_AS, 1) }));
    bench.receive(id, &keepalive_octets());
    let info = bench.up().unwrap();
    assert_eq!(info.families, FamilySet::only(Family::Ipv4Unicast));
    assert!(!info.four_octet_as);
}

#[test]
fn the_session_says_what_was_negotiated() {
    let (bench, _) = Bench::in_state(State::Established);
    let info = bench.up().unwrap();
    assert_eq!((info.remote_as, info.local_as), (PEER_AS, OUR_AS));
    assert!(!info.is_ibgp());
    assert_eq!(info.router_id, Ipv4Addr::new(192, 0, 2, 1));
    assert_eq!(info.local_address, addresses().local);
    assert_eq!(info.local_link_local, addresses().link_local);
    assert_eq!(info.families, FamilySet::ALL);
    assert_eq!((info.hold_time, info.keepalive_time), (seconds(90), seconds(30)));
    assert_eq!(info.capabilities, peer_open().capabilities);
}
