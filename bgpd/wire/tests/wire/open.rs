//! The OPEN message. RFC 4271 §4.2 and §6.2, RFC 5492, RFC 6286, RFC 6793, RFC 7607, RFC 9072.

use causeway_bgp_wire::{
    AddPath, AfiSafi, Asn, Capability, ExtendedNextHop, Family, FamilySet, GracefulRestart, Message,
    Notification, Open, encode_open,
};

use crate::handmade::{OPEN, external, message};

/// Version 4, AS 64601, hold time 90, identifier 192.0.2.1.
const FIXED: [u8; 9] = [4, 0xfc, 0x59, 0, 90, 192, 0, 2, 1];

fn with_parameters(parameters: &[u8]) -> Vec<u8> {
    let mut body = FIXED.to_vec();
    body.push(parameters.len() as u8);
    body.extend_from_slice(parameters);
    message(OPEN, &body)
}

fn with_capabilities(capabilities: &[u8]) -> Vec<u8> {
    let mut parameters = vec![2, capabilities.len() as u8];
    parameters.extend_from_slice(capabilities);
    with_parameters(&parameters)
}

fn decode(octets: &[u8]) -> Result<Open, Notification> {
    match Message::decode(octets, &external()) {
        Ok(Message::Open(open)) => Ok(open),
        Ok(other) => panic!("an OPEN, not {other:?}"),
        Err(error) => Err(error.notification),
    }
}

fn changed(at: usize, octets: &[u8]) -> Vec<u8> {
    let mut open = with_parameters(&[]);
    open[19 + at..19 + at + octets.len()].copy_from_slice(octets);
    open
}

fn open_error(subcode: u8) -> Result<Open, Notification> {
    Err(Notification::new(2, subcode))
}

#[test]
fn plain_bgp4() {
    let open = decode(&with_parameters(&[])).unwrap();
    assert_eq!(
        (open.asn(), open.hold_time, open.router_id.to_string()),
        (Asn(64601), 90, "192.0.2.1".into())
    );
    assert_eq!(open.families(), FamilySet::only(Family::Ipv4Unicast));
    assert!(open.capabilities.is_empty());
}

#[test]
fn rfc4271_6_2_version_comes_with_the_one_supported() {
    for version in [0, 3, 5, 255] {
        let expected = Notification { code: 2, subcode: 1, data: vec![0, 4] };
        assert_eq!(decode(&changed(0, &[version])), Err(expected));
    }
}

#[test]
fn rfc4271_6_2_hold_time_of_one_and_two() {
    assert_eq!(decode(&changed(3, &[0, 1])), open_error(6));
    assert_eq!(decode(&changed(3, &[0, 2])), open_error(6));
    assert_eq!(decode(&changed(3, &[0, 0])).unwrap().hold_time, 0);
    assert_eq!(decode(&changed(3, &[0, 3])).unwrap().hold_time, 3);
    assert_eq!(decode(&changed(3, &[0xff, 0xff])).unwrap().hold_time, 65535);
}

#[test]
fn rfc6286_2_2_identifier_is_any_number_but_zero() {
    assert_eq!(decode(&changed(5, &[0, 0, 0, 0])), open_error(3));
    for identifier in [[0, 0, 0, 1], [224, 0, 0, 1], [255, 255, 255, 255], [127, 0, 0, 1]] {
        assert!(decode(&changed(5, &identifier)).is_ok());
    }
}

#[test]
fn rfc7607_2_as_zero_in_the_field_or_in_the_capability() {
    assert_eq!(decode(&changed(1, &[0, 0])), open_error(2));
    assert_eq!(decode(&with_capabilities(&[65, 4, 0, 0, 0, 0])), open_error(2));
}

#[test]
fn rfc4271_6_2_unsupported_optional_parameter() {
    assert_eq!(decode(&with_parameters(&[1, 2, 0, 0])), open_error(4));
    assert_eq!(decode(&with_parameters(&[99, 0])), open_error(4));
}

#[test]
fn rfc4271_6_2_malformed_optional_parameters() {
    // The parameter exceeds the field; the field exceeds the message; the message exceeds the field; half a header.
    assert_eq!(decode(&with_parameters(&[2, 5, 1, 4])), open_error(0));
    assert_eq!(decode(&changed(9, &[7])), open_error(0));
    let mut longer = FIXED.to_vec();
    longer.extend_from_slice(&[0, 2, 0]);
    assert_eq!(decode(&message(OPEN, &longer)), open_error(0));
    assert_eq!(decode(&with_parameters(&[2])), open_error(0));
}

#[test]
fn rfc5492_malformed_capabilities() {
    assert_eq!(decode(&with_capabilities(&[1, 4, 0, 1, 0])), open_error(0));
    assert_eq!(decode(&with_capabilities(&[1, 3, 0, 1, 0])), open_error(0));
    assert_eq!(decode(&with_capabilities(&[65, 2, 0, 1])), open_error(0));
    assert_eq!(decode(&with_capabilities(&[64, 1, 0])), open_error(0));
    assert_eq!(decode(&with_capabilities(&[64, 5, 0, 120, 0, 1, 1])), open_error(0));
    assert_eq!(decode(&with_capabilities(&[2])), open_error(0));
}

#[test]
fn rfc5492_4_one_parameter_or_many_and_duplicates_once() {
    let together = decode(&with_capabilities(&[1, 4, 0, 1, 0, 1, 2, 0, 65, 4, 0, 1, 0, 0])).unwrap();
    let apart = [2, 6, 1, 4, 0, 1, 0, 1, 2, 2, 2, 0, 2, 6, 65, 4, 0, 1, 0, 0, 2, 2, 2, 0];
    let apart = decode(&with_parameters(&apart)).unwrap();
    assert_eq!(together, apart);
    assert_eq!(apart.capabilities.len(), 3);
    assert_eq!(apart.asn(), Asn(65536));
    assert!(apart.route_refresh());
    assert!(decode(&with_parameters(&[2, 0])).unwrap().capabilities.is_empty());
}

#[test]
fn unknown_capabilities_and_families_do_no_harm() {
    let open = decode(&with_capabilities(&[200, 3, 1, 2, 3, 1, 4, 0, 25, 0, 70, 128, 0])).unwrap();
    assert_eq!(open.capabilities[0], Capability::Unknown { code: 200, value: vec![1, 2, 3] });
    assert_eq!(open.capabilities[1], Capability::Multiprotocol(AfiSafi { afi: 25, safi: 70 }));
    // RFC 4760 §8: with a multiprotocol capability, only the families it names.
    assert!(open.families().is_empty());
}

#[test]
fn rfc4724_3_graceful_restart() {
    let open = decode(&with_capabilities(&[64, 10, 0xc0, 0x78, 0, 1, 1, 0x80, 0, 2, 1, 0])).unwrap();
    let graceful = open.graceful_restart().unwrap();
    assert!(graceful.restart_state && graceful.notification);
    assert_eq!(graceful.restart_time, 120);
    let families = [(Family::Ipv4Unicast.afi_safi(), true), (Family::Ipv6Unicast.afi_safi(), false)];
    assert_eq!(graceful.families, families);
}

#[test]
fn rfc4724_3_the_last_of_several_counts() {
    let open = decode(&with_capabilities(&[64, 2, 0, 10, 64, 2, 0, 20])).unwrap();
    assert_eq!(open.graceful_restart().unwrap().restart_time, 20);
}

#[test]
fn rfc7911_4_add_path_with_an_unknown_direction_is_ignored() {
    let open = decode(&with_capabilities(&[69, 8, 0, 1, 1, 3, 0, 2, 1, 4])).unwrap();
    let v4 = open.add_path(Family::Ipv4Unicast).unwrap();
    assert!(v4.send && v4.receive);
    let v6 = open.add_path(Family::Ipv6Unicast).unwrap();
    assert!(!v6.send && !v6.receive);
}

#[test]
fn rfc9072_2_extended_optional_parameters() {
    let mut body = FIXED.to_vec();
    // Length octet 255, type 255, two-octet length; the parameter's length takes two octets as well.
    body.extend_from_slice(&[255, 255, 0, 5, 2, 0, 2, 2, 0]);
    assert!(decode(&message(OPEN, &body)).unwrap().route_refresh());
    // RFC 9072 §2: the first length octet may be anything but zero.
    body[9] = 4;
    assert!(decode(&message(OPEN, &body)).unwrap().route_refresh());
    body[12] = 6;
    assert_eq!(decode(&message(OPEN, &body)), open_error(0));
}

fn everything() -> Vec<Capability> {
    let (v4, v6) = (Family::Ipv4Unicast.afi_safi(), Family::Ipv6Unicast.afi_safi());
    vec![
        Capability::Multiprotocol(v4),
        Capability::Multiprotocol(v6),
        Capability::RouteRefresh,
        Capability::ExtendedNextHop(vec![ExtendedNextHop { family: v4, next_hop_afi: 2 }]),
        Capability::ExtendedMessage,
        Capability::Role(3),
        Capability::GracefulRestart(GracefulRestart {
            restart_state: true,
            notification: false,
            restart_time: 4095,
            families: vec![(v4, true), (v6, false)],
        }),
        Capability::AddPath(vec![AddPath { family: v4, receive: true, send: false }]),
        Capability::EnhancedRouteRefresh,
        Capability::Fqdn { host: "node-a1".into(), domain: "example".into() },
        Capability::Unknown { code: 77, value: vec![1, 2, 3] },
    ]
}

#[test]
fn own_opens_are_read_back() {
    let open = Open::new(Asn(4_200_000_000), 90, "192.0.2.1".parse().unwrap(), everything());
    assert_eq!(open.my_as, 23456);
    let mut octets = Vec::new();
    encode_open(&open, &mut octets);
    let read = decode(&octets).unwrap();
    assert_eq!(read, open);
    assert_eq!(read.asn(), Asn(4_200_000_000));
    assert!(read.ipv6_next_hop_for(Family::Ipv4Unicast) && !read.ipv6_next_hop_for(Family::Ipv6Unicast));
    assert!(read.extended_message() && read.enhanced_route_refresh());
    assert_eq!(read.families(), FamilySet::ALL);
}

#[test]
fn rfc9072_2_many_capabilities_take_the_extended_form() {
    for count in [0, 1, 63, 64, 200] {
        let capabilities = (0..count).map(|i| Capability::Unknown { code: 200, value: vec![i, 0] }).collect();
        let open = Open { version: 4, my_as: 1, hold_time: 0, router_id: [1, 1, 1, 1].into(), capabilities };
        let mut octets = Vec::new();
        encode_open(&open, &mut octets);
        assert_eq!(decode(&octets).unwrap(), open);
    }
}

#[test]
fn rfc5492_5_unsupported_capability_names_what_is_missing() {
    let missing =
        Notification::unsupported_capability(&[Capability::Multiprotocol(Family::Ipv6Unicast.into())]);
    assert_eq!(missing, Notification { code: 2, subcode: 7, data: vec![1, 4, 0, 2, 0, 1] });
}
