//! The message header. RFC 4271 §6.1, RFC 8654, RFC 7313 §5.

use causeway_bgp_wire::{Header, Message, MessageType, Notification};

use crate::handmade::*;

fn error(message: &[u8]) -> Notification {
    Header::peek(message, false).expect_err("a bad header").notification
}

fn with_length(kind: u8, length: u16) -> Vec<u8> {
    let mut octets = message(kind, &[]);
    octets[16..18].copy_from_slice(&length.to_be_bytes());
    octets
}

#[test]
fn a_buffer_without_a_whole_header_wants_more() {
    let keepalive = message(KEEPALIVE, &[]);
    for end in 0..19 {
        assert_eq!(Header::peek(&keepalive[..end], false).unwrap(), None);
    }
    let header = Header::peek(&keepalive, false).unwrap().unwrap();
    assert_eq!((header.length, header.kind), (19, MessageType::Keepalive));
}

#[test]
fn rfc4271_6_1_marker() {
    for at in 0..16 {
        let mut octets = message(KEEPALIVE, &[]);
        octets[at] = 0xfe;
        assert_eq!(error(&octets), Notification { code: 1, subcode: 1, data: vec![] });
    }
}

#[test]
fn rfc4271_6_1_length_of_any_message() {
    for length in [0u16, 18, 4097, 65535] {
        let expected = Notification { code: 1, subcode: 2, data: length.to_be_bytes().to_vec() };
        assert_eq!(error(&with_length(UPDATE, length)), expected);
    }
}

#[test]
fn rfc4271_6_1_shortest_of_each_type() {
    for (kind, bad, good) in [(OPEN, 28, 29), (UPDATE, 22, 23), (NOTIFICATION, 20, 21), (KEEPALIVE, 20, 19)] {
        let expected = Notification { code: 1, subcode: 2, data: vec![0, bad] };
        assert_eq!(error(&with_length(kind, bad.into())), expected, "type {kind}");
        assert!(Header::peek(&with_length(kind, good), false).is_ok(), "type {kind}");
    }
}

#[test]
fn rfc4271_6_1_type() {
    for kind in [0, 6, 255] {
        assert_eq!(error(&message(kind, &[])), Notification { code: 1, subcode: 3, data: vec![kind] });
    }
}

#[test]
fn rfc8654_4_extended_messages_only_where_negotiated_and_never_open_or_keepalive() {
    assert!(Header::peek(&with_length(UPDATE, 65535), true).is_ok());
    assert!(Header::peek(&with_length(NOTIFICATION, 65535), true).is_ok());
    assert!(Header::peek(&with_length(OPEN, 4097), true).is_err());
    assert!(Header::peek(&with_length(KEEPALIVE, 4097), true).is_err());
}

#[test]
fn rfc7313_5_route_refresh_of_a_wrong_length() {
    let error = |body: &[u8]| {
        Message::decode(&message(ROUTE_REFRESH, body), &external()).expect_err("a length").notification
    };
    for body in [&[0, 1, 1][..], &[0, 1, 2], &[0, 1, 1, 1, 0], &[0, 1, 0, 1, 0]] {
        assert_eq!(error(body), Notification { code: 7, subcode: 1, data: message(ROUTE_REFRESH, body) });
    }
    for body in [&[][..], &[0, 1], &[0, 1, 0]] {
        assert_eq!(error(body), Notification { code: 1, subcode: 2, data: vec![0, 19 + body.len() as u8] });
    }
}

#[test]
fn rfc2918_and_rfc7313_route_refresh_kinds() {
    use causeway_bgp_wire::{Family, RefreshKind, RouteRefresh, encode_route_refresh};
    let kinds = [
        RefreshKind::Request,
        RefreshKind::BeginOfRefresh,
        RefreshKind::EndOfRefresh,
        RefreshKind::Unknown(9),
    ];
    for (subtype, kind) in [0, 1, 2, 9].into_iter().zip(kinds) {
        let octets = message(ROUTE_REFRESH, &[0, 2, subtype, 1]);
        let refresh = RouteRefresh { family: Family::Ipv6Unicast.afi_safi(), kind };
        assert_eq!(Message::decode(&octets, &external()).unwrap(), Message::RouteRefresh(refresh));
        let mut encoded = Vec::new();
        encode_route_refresh(&refresh, &mut encoded);
        assert_eq!(encoded, octets);
    }
    let unknown = message(ROUTE_REFRESH, &[0, 25, 0, 70]);
    let Message::RouteRefresh(refresh) = Message::decode(&unknown, &external()).unwrap() else {
        panic!("no refresh")
    };
    assert_eq!(refresh.family.family(), None);
}

#[test]
fn a_message_cut_at_the_wrong_place_is_an_error() {
    let mut octets = message(KEEPALIVE, &[]);
    octets.push(0);
    assert!(Message::decode(&octets, &external()).is_err());
    assert!(Message::decode(&octets[..18], &external()).is_err());
}

#[test]
fn notification_and_keepalive() {
    let cease = message(NOTIFICATION, &[6, 4, 3, b'b', b'y', b'e']);
    let Message::Notification(notification) = Message::decode(&cease, &external()).unwrap() else {
        panic!("no notification")
    };
    assert_eq!(notification.to_string(), "Cease/Administrative Reset: bye");
    let mut encoded = Vec::new();
    causeway_bgp_wire::encode_notification(&notification, &mut encoded);
    causeway_bgp_wire::encode_keepalive(&mut encoded);
    assert_eq!(encoded, [cease, message(KEEPALIVE, &[])].concat());
}

#[test]
fn a_notification_is_cut_to_the_longest_message() {
    let huge = Notification { code: 3, subcode: 9, data: vec![7; 70_000] };
    let mut encoded = Vec::new();
    causeway_bgp_wire::encode_notification(&huge, &mut encoded);
    assert_eq!(encoded.len(), 4096);
    assert!(Message::decode(&encoded, &external()).is_ok());
}
