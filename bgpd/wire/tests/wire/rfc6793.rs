//! Peers with two-octet AS numbers, both ways. RFC 6793.

use causeway_bgp_wire::{
    Aggregator, AsPath, Asn, DecodeContext, EncodeContext, EncodedAttributes, Ipv4Prefix, NextHop, Nlri,
    Origin, PathAttributes, SegmentKind, Update,
};

use crate::handmade::*;

fn old_peer() -> DecodeContext {
    DecodeContext { four_octet_as: false, ..external() }
}

/// An UPDATE of a two-octet peer with AS_PATH 100 AS_TRANS AS_TRANS 200.
fn update(more: &[Vec<u8>]) -> Update {
    let path = attribute(0x40, 2, &[2, 4, 0, 100, 0x5b, 0xa0, 0x5b, 0xa0, 0, 200]);
    let mut attributes = vec![origin(), path, next_hop()];
    attributes.extend_from_slice(more);
    decode_update(&update_message(&[], &attributes, TEST_NET), &old_peer()).unwrap()
}

fn path_of(update: &Update) -> String {
    update.announced[0].attributes.as_path.to_string()
}

/// AS4_PATH 70000 70001 200.
fn as4_path() -> Vec<u8> {
    attribute(0xc0, 17, &[2, 3, 0, 1, 0x11, 0x70, 0, 1, 0x11, 0x71, 0, 0, 0, 200])
}

fn aggregator(asn: u16) -> Vec<u8> {
    let [high, low] = asn.to_be_bytes();
    attribute(0xc0, 7, &[high, low, 10, 0, 0, 1])
}

fn as4_aggregator() -> Vec<u8> {
    attribute(0xc0, 18, &[0, 1, 0x11, 0x70, 10, 0, 0, 2])
}

#[test]
fn section_4_2_3_the_path_is_put_together() {
    assert_eq!(path_of(&update(&[])), "100 23456 23456 200");
    assert_eq!(path_of(&update(&[as4_path()])), "100 70000 70001 200");
}

#[test]
fn section_4_2_3_an_as4_path_that_is_longer_is_ignored() {
    let longer = attribute(0xc0, 17, &[2, 5, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1]);
    assert_eq!(path_of(&update(&[longer])), "100 23456 23456 200");
}

#[test]
fn section_4_2_3_aggregator() {
    let update1 = update(&[aggregator(23456), as4_path(), as4_aggregator()]);
    assert_eq!(path_of(&update1), "100 70000 70001 200");
    let expected = Aggregator { asn: Asn(70000), router_id: [10, 0, 0, 2].into() };
    assert_eq!(update1.announced[0].attributes.aggregator, Some(expected));
    // A later aggregation by a speaker without four-octet numbers: both AS4 attributes are void.
    let update2 = update(&[aggregator(300), as4_path(), as4_aggregator()]);
    assert_eq!(path_of(&update2), "100 23456 23456 200");
    assert_eq!(update2.announced[0].attributes.aggregator.unwrap().asn, Asn(300));
    let alone = update(&[as4_aggregator()]);
    assert_eq!(alone.announced[0].attributes.aggregator, None);
}

#[test]
fn section_6_malformed_as4_attributes_are_discarded() {
    for value in
        [&[][..], &[2, 2, 0, 0, 0, 1], &[9, 1, 0, 0, 0, 1], &[2, 0], &[2, 1, 0, 0, 0, 0], &[2, 1, 0, 1]]
    {
        let update = update(&[attribute(0xc0, 17, value)]);
        assert_discarded(&update, 17);
        assert_eq!(path_of(&update), "100 23456 23456 200");
    }
    let update = update(&[aggregator(23456), attribute(0xc0, 18, &[0, 0, 0, 1])]);
    assert_discarded(&update, 18);
    assert_eq!(update.announced[0].attributes.aggregator.unwrap().asn, Asn::TRANS);
}

#[test]
fn section_6_confederation_segments_are_taken_out_of_as4_path() {
    let with_confed = attribute(0xc0, 17, &[3, 1, 0, 0, 0xfd, 0xe9, 2, 2, 0, 1, 0x11, 0x71, 0, 0, 0, 200]);
    assert_eq!(path_of(&update(&[with_confed])), "100 23456 70001 200");
}

#[test]
fn section_3_as4_attributes_of_a_four_octet_peer_are_discarded() {
    let mut attributes = mandatory_and(as4_path());
    attributes.push(as4_aggregator());
    let update = survives(&update_message(&[], &attributes, TEST_NET));
    assert_eq!(path_of(&update), "64601");
    assert_discarded(&update, 17);
    assert_discarded(&update, 18);
}

fn encoded(attributes: &PathAttributes) -> Vec<u8> {
    let context = EncodeContext { four_octet_as: false, ..EncodeContext::default() };
    let mut out = Vec::new();
    let prefix: Ipv4Prefix = "192.0.2.0/24".parse().unwrap();
    EncodedAttributes::new(attributes, &context).unwrap().announce([Nlri::from(prefix)], &mut out);
    out
}

fn own() -> PathAttributes {
    PathAttributes::new(Origin::Igp, NextHop::from(std::net::Ipv4Addr::new(192, 0, 2, 1)))
}

fn holds(message: &[u8], attribute: &[u8]) -> bool {
    message.windows(attribute.len()).any(|window| window == attribute)
}

#[test]
fn section_4_2_2_sending_to_a_two_octet_peer() {
    let mut attributes = own();
    attributes.as_path = AsPath::from_sequence([Asn(64512), Asn(70000)]);
    attributes.aggregator = Some(Aggregator { asn: Asn(70000), router_id: [10, 0, 0, 2].into() });
    let message = encoded(&attributes);
    assert!(holds(&message, &attribute(0x40, 2, &[2, 2, 0xfc, 0, 0x5b, 0xa0])));
    assert!(holds(&message, &attribute(0xc0, 17, &[2, 2, 0, 0, 0xfc, 0, 0, 1, 0x11, 0x70])));
    assert!(holds(&message, &attribute(0xc0, 7, &[0x5b, 0xa0, 10, 0, 0, 2])));
    assert!(holds(&message, &as4_aggregator()));
    let update = decode_update(&message, &old_peer()).unwrap();
    assert_eq!(update.announced[0].attributes, attributes);
}

#[test]
fn section_4_2_2_nothing_is_added_where_two_octets_suffice() {
    let mut attributes = own();
    attributes.as_path = AsPath::from_sequence([Asn(64512), Asn(1)]);
    attributes.aggregator = Some(Aggregator { asn: Asn(1), router_id: [10, 0, 0, 2].into() });
    let message = encoded(&attributes);
    let update = decode_update(&message, &old_peer()).unwrap();
    assert_eq!(update.announced[0].attributes, attributes);
    assert!(!holds(&message, &[0xc0, 17]) && !holds(&message, &[0xc0, 18]));
}

#[test]
fn section_4_2_2_confederation_segments_stay_out_of_as4_path() {
    let mut attributes = own();
    attributes.as_path.push_segment(SegmentKind::ConfedSequence, &[Asn(65001)]);
    attributes.as_path.push_segment(SegmentKind::Sequence, &[Asn(70000)]);
    let message = encoded(&attributes);
    assert!(holds(&message, &attribute(0x40, 2, &[3, 1, 0xfd, 0xe9, 2, 1, 0x5b, 0xa0])));
    assert!(holds(&message, &attribute(0xc0, 17, &[2, 1, 0, 1, 0x11, 0x70])));
}
