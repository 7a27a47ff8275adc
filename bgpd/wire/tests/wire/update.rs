//! What a well-formed UPDATE means. RFC 4271 §4.3 and §5, RFC 4724 §2, RFC 4760, RFC 2545, RFC 7911, RFC 8092, RFC 8950.

use causeway_bgp_wire::{Family, FamilySet, LargeCommunity, NextHop, Nlri, encode_end_of_rib};

use crate::handmade::*;

#[test]
fn rfc4724_2_end_of_rib() {
    let empty = update_message(&[], &[], &[]);
    assert_eq!(survives(&empty).end_of_rib, Some(Family::Ipv4Unicast));
    let empty6 = update_message(&[], &[mp_unreach(&[])], &[]);
    assert_eq!(survives(&empty6).end_of_rib, Some(Family::Ipv6Unicast));
    let empty4 = update_message(&[], &[attribute(0x80, 15, &[0, 1, 1])], &[]);
    assert_eq!(survives(&empty4).end_of_rib, Some(Family::Ipv4Unicast));
    let other = update_message(&[], &[attribute(0x80, 15, &[0, 1, 128])], &[]);
    assert_eq!(survives(&other).end_of_rib, None);
    for not in [update_message(TEN, &[], &[]), update_message(&[], &[mp_unreach(DOC6)], &[])] {
        assert_eq!(survives(&not).end_of_rib, None);
    }
    for (family, expected) in [(Family::Ipv4Unicast, empty), (Family::Ipv6Unicast, empty6)] {
        let mut encoded = Vec::new();
        encode_end_of_rib(family, &mut encoded);
        assert_eq!(encoded, expected);
    }
}

#[test]
fn rfc4760_prefixes_of_families_not_negotiated_are_ignored() {
    let mut context = external();
    context.families = FamilySet::only(Family::Ipv6Unicast);
    let mut attributes = vec![mp_reach(&NEXT_HOP6, DOC6)];
    attributes.extend(mandatory());
    let message = update_message(TEN, &attributes, TEST_NET);
    let update = decode_update(&message, &context).unwrap();
    assert_eq!((announced(&update), withdrawn(&update)), (vec!["2001:db8::/32".to_owned()], vec![]));
    context.families = FamilySet::only(Family::Ipv4Unicast);
    let update = decode_update(&message, &context).unwrap();
    assert_eq!(
        (announced(&update), withdrawn(&update)),
        (vec!["192.0.2.0/24".into()], vec!["10.0.0.0/8".into()])
    );
    // No End-of-RIB of a family not negotiated either.
    assert_eq!(
        decode_update(&update_message(&[], &[mp_unreach(&[])], &[]), &context).unwrap().end_of_rib,
        None
    );
}

#[test]
fn rfc4760_unknown_families_are_ignored() {
    let vpn = attribute(0x80, 14, &[0, 1, 128, 12, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 0, 200, 1]);
    let update = survives(&update_message(&[], &[vpn, origin(), as_path()], &[]));
    assert!(update.announced.is_empty() && update.problems.is_empty());
    let evpn = attribute(0x80, 15, &[0, 25, 70, 1, 2, 3]);
    assert!(survives(&update_message(&[], &[evpn], &[])).withdrawn.is_empty());
}

#[test]
fn rfc4760_ipv4_in_mp_reach_nlri() {
    let reach = attribute(0x80, 14, &[0, 1, 1, 4, 192, 0, 2, 9, 0, 8, 10]);
    let unreach = attribute(0x80, 15, &[0, 1, 1, 24, 192, 0, 2]);
    let update = survives(&update_message(&[], &[reach, unreach, origin(), as_path()], &[]));
    assert_eq!(
        (announced(&update), withdrawn(&update)),
        (vec!["10.0.0.0/8".into()], vec!["192.0.2.0/24".into()])
    );
    assert_eq!(update.announced[0].attributes.next_hop.to_string(), "192.0.2.9");
}

#[test]
fn rfc2545_3_link_local_beside_global() {
    let mut both = NEXT_HOP6.to_vec();
    both.extend_from_slice(&"fe80::1".parse::<std::net::Ipv6Addr>().unwrap().octets());
    let update = survives(&update_message(&[], &[mp_reach(&both, DOC6), origin(), as_path()], &[]));
    let expected =
        NextHop { global: "2001:db8::1".parse().unwrap(), link_local: Some("fe80::1".parse().unwrap()) };
    assert_eq!(update.announced[0].attributes.next_hop, expected);
}

#[test]
fn rfc8950_4_ipv6_next_hop_for_ipv4_only_where_negotiated() {
    let mut value = vec![0, 1, 1, 16];
    value.extend_from_slice(&NEXT_HOP6);
    value.extend_from_slice(&[0, 8, 10]);
    let message = update_message(&[], &[attribute(0x80, 14, &value), origin(), as_path()], &[]);
    let update = survives(&message);
    assert!(announced(&update).is_empty(), "withdrawn, and the session goes on: GoBGP sends this over IPv6");
    let mut context = external();
    context.ipv6_next_hop = FamilySet::only(Family::Ipv4Unicast);
    let update = decode_update(&message, &context).unwrap();
    assert_eq!(announced(&update), ["10.0.0.0/8"]);
    assert_eq!(update.announced[0].attributes.next_hop.to_string(), "2001:db8::1");
}

#[test]
fn rfc7911_3_path_identifiers() {
    let mut context = external();
    context.add_path = FamilySet::only(Family::Ipv4Unicast);
    let message = update_message(&[0, 0, 0, 1, 8, 10], &mandatory(), &[0, 0, 0, 2, 24, 192, 0, 2]);
    let update = decode_update(&message, &context).unwrap();
    let announced: Vec<_> = update.announced[0].nlri.iter().collect();
    assert_eq!(announced, [Nlri { prefix: "192.0.2.0/24".parse().unwrap(), path_id: 2 }]);
    assert_eq!(update.withdrawn[0].iter().next().unwrap().path_id, 1);
}

#[test]
fn rfc4271_5_unknown_optional_attributes() {
    let mut attributes = mandatory();
    attributes.extend([
        attribute(0xc0, 200, &[2]),
        attribute(0x80, 100, &[1]),
        attribute(0xe0, 35, &[0, 0, 0, 1]),
    ]);
    let update = survives(&update_message(&[], &attributes, TEST_NET));
    let unknown = &update.announced[0].attributes.unknown;
    // The non-transitive one is gone; the others go on as partial, in order.
    assert_eq!(unknown.iter().map(|u| (u.code, u.partial)).collect::<Vec<_>>(), [(35, true), (200, true)]);
    assert!(update.problems.is_empty());
}

#[test]
fn rfc8092_5_repeated_large_communities_are_one() {
    let one = [0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3];
    let two = [0, 0, 0, 9, 0, 0, 0, 2, 0, 0, 0, 3];
    let value = [two, one, two].concat();
    let update = survives(&update_message(&[], &mandatory_and(attribute(0xc0, 32, &value)), TEST_NET));
    let large = |global| LargeCommunity { global, local1: 2, local2: 3 };
    assert_eq!(update.announced[0].attributes.large_communities, [large(9), large(1)]);
}

#[test]
fn rfc4271_6_3_prefixes_nobody_can_route_are_ignored_alone() {
    let update = survives(&update_message(&[], &mandatory(), &[4, 224, 8, 10, 8, 127]));
    assert_eq!(announced(&update), ["10.0.0.0/8"]);
    assert_eq!(update.problems.len(), 2);
    let update = survives(&update_message(&[], &mandatory(), &[4, 224]));
    assert!(update.announced.is_empty() && update.treated_as_withdraw().is_none());
}

#[test]
fn rfc4271_4_3_trailing_bits_of_a_prefix_do_not_matter() {
    let update = survives(&update_message(&[], &mandatory(), &[9, 10, 255]));
    assert_eq!(announced(&update), ["10.128.0.0/9"]);
}

#[test]
fn extended_length_of_a_short_attribute_is_fine() {
    let origin = attribute(0x50, 1, &[2]);
    let update = survives(&update_message(&[], &[origin, as_path(), next_hop()], TEST_NET));
    assert_eq!(announced(&update), ["192.0.2.0/24"]);
}
