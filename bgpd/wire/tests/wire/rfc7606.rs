//! Every rule of RFC 7606 that concerns this speaker's attributes, each test named after its section; and the rules of
//! RFC 4271 §6.3 that RFC 7606 leaves in force.

use causeway_bgp_wire::{Consequence, Notification, Origin};

use crate::handmade::*;

/// The mandatory attributes with the one of this code replaced, over 192.0.2.0/24.
fn with(code: u8, attribute: Vec<u8>) -> Vec<u8> {
    let mut attributes = mandatory();
    attributes[usize::from(code) - 1] = attribute;
    update_message(&[], &attributes, TEST_NET)
}

/// The mandatory attributes and another, over 192.0.2.0/24.
fn with_other(attribute: Vec<u8>) -> Vec<u8> {
    update_message(&[], &mandatory_and(attribute), TEST_NET)
}

fn update_error(subcode: u8, data: &[u8]) -> Notification {
    Notification { code: 3, subcode, data: data.to_vec() }
}

const NET: &[&str] = &["192.0.2.0/24"];

#[track_caller]
fn withdraws(message: &[u8]) {
    assert_withdrawn(&survives(message), NET);
}

#[test]
fn section_3_b_lengths_that_exceed_the_message() {
    for body in [[0, 5, 0, 0], [0, 0, 0, 1], [0xff, 0xff, 0, 0], [0, 0, 0xff, 0xff]] {
        assert_eq!(resets(&message(UPDATE, &body)), update_error(1, &[]));
    }
    let mut octets = update_message(&[], &mandatory(), TEST_NET);
    octets[21..23].copy_from_slice(&200u16.to_be_bytes());
    assert_eq!(resets(&octets), update_error(1, &[]));
}

#[test]
fn section_3_c_flags_that_conflict_with_the_type() {
    for flags in [0x00, 0x80, 0xc0] {
        withdraws(&with(1, attribute(flags, 1, &[0])));
        withdraws(&with(2, attribute(flags, 2, &[2, 1, 0, 0, 0xfc, 0x59])));
        withdraws(&with(3, attribute(flags, 3, &[192, 0, 2, 1])));
        withdraws(&with_other(attribute(flags, 6, &[])));
    }
    for flags in [0x00, 0x40, 0xc0] {
        withdraws(&with_other(attribute(flags, 4, &[0, 0, 0, 1])));
    }
    for flags in [0x00, 0x40, 0x80] {
        withdraws(&with_other(attribute(flags, 7, &[0, 0, 0, 1, 1, 1, 1, 1])));
        withdraws(&with_other(attribute(flags, 8, &[0, 1, 0, 1])));
        withdraws(&with_other(attribute(flags, 16, &[0; 8])));
        withdraws(&with_other(attribute(flags, 32, &[0; 12])));
    }
}

#[test]
fn section_3_c_partial_and_unused_bits_do_not_conflict() {
    for flags in [0x60, 0x41, 0x4f] {
        let update = survives(&with(1, attribute(flags, 1, &[0])));
        assert_eq!((announced(&update), update.problems.len()), (vec![NET[0].to_owned()], 0));
    }
}

#[test]
fn section_3_d_missing_mandatory_attributes() {
    for missing in 0..3 {
        let mut attributes = mandatory();
        attributes.remove(missing);
        withdraws(&update_message(&[], &attributes, TEST_NET));
    }
    withdraws(&update_message(&[], &[], TEST_NET));
}

#[test]
fn section_3_d_next_hop_is_not_mandatory_beside_mp_reach_nlri() {
    let update = survives(&update_message(&[], &[mp_reach(&NEXT_HOP6, DOC6), origin(), as_path()], &[]));
    assert_eq!(announced(&update), ["2001:db8::/32"]);
    let update = survives(&update_message(&[], &[mp_reach(&NEXT_HOP6, DOC6), as_path()], &[]));
    assert_withdrawn(&update, &["2001:db8::/32"]);
}

#[test]
fn section_3_d_nothing_is_mandatory_for_withdrawals() {
    let update = survives(&update_message(TEST_NET, &[], &[]));
    assert_eq!((withdrawn(&update), update.problems.len()), (vec![NET[0].to_owned()], 0));
    let update = survives(&update_message(&[], &[mp_unreach(DOC6)], &[]));
    assert_eq!((withdrawn(&update), update.problems.len()), (vec!["2001:db8::/32".to_owned()], 0));
}

#[test]
fn section_3_f_atomic_aggregate_and_aggregator_are_discarded() {
    let update = survives(&with_other(attribute(0x40, 6, &[1])));
    assert_discarded(&update, 6);
    assert!(!update.announced[0].attributes.atomic_aggregate);
    let update = survives(&with_other(attribute(0xc0, 7, &[0, 1, 1, 1, 1, 1])));
    assert_discarded(&update, 7);
    assert_eq!(update.announced[0].attributes.aggregator, None);
}

#[test]
fn section_3_g_mp_attributes_may_not_repeat() {
    let reach = mp_reach(&NEXT_HOP6, DOC6);
    let twice = [reach.clone(), reach, origin(), as_path()];
    assert_eq!(resets(&update_message(&[], &twice, &[])), update_error(1, &[]));
    let twice = [mp_unreach(DOC6), mp_unreach(DOC6)];
    assert_eq!(resets(&update_message(&[], &twice, &[])), update_error(1, &[]));
}

#[test]
fn section_3_g_of_other_attributes_the_first_counts() {
    let mut attributes = mandatory_and(attribute(0x40, 1, &[2]));
    attributes.push(attribute(0xc0, 99, &[1]));
    attributes.push(attribute(0xc0, 99, &[2]));
    let update = survives(&update_message(&[], &attributes, TEST_NET));
    assert_discarded(&update, 1);
    assert_discarded(&update, 99);
    let attributes = &update.announced[0].attributes;
    assert_eq!(attributes.origin, Origin::Igp);
    assert_eq!(attributes.unknown.len(), 1);
    assert_eq!(*attributes.unknown[0].value, [1]);
}

#[test]
fn section_3_g_a_malformed_repetition_is_discarded_as_well() {
    let update = survives(&with_other(attribute(0x40, 1, &[9, 9])));
    assert_discarded(&update, 1);
}

#[test]
fn section_3_h_the_strongest_consequence_decides() {
    let mut attributes = mandatory_and(attribute(0x40, 6, &[1]));
    attributes.push(attribute(0xc0, 8, &[1]));
    let update = survives(&update_message(&[], &attributes, TEST_NET));
    assert_withdrawn(&update, NET);
    assert!(update.problems.iter().any(|p| p.consequence == Consequence::AttributeDiscard));
    attributes.push(attribute(0x40, 200, &[1]));
    assert_eq!(resets(&update_message(&[], &attributes, TEST_NET)).subcode, 2);
}

#[test]
fn section_3_i_withdrawn_routes_are_checked_like_nlri() {
    assert_eq!(resets(&update_message(&[33, 1, 2, 3, 4, 5], &[], &[])), update_error(10, &[]));
    assert_eq!(resets(&update_message(&[24, 10], &[], &[])), update_error(10, &[]));
}

#[test]
fn section_3_j_both_kinds_of_prefixes_are_withdrawn_together() {
    let mut attributes = vec![mp_reach(&NEXT_HOP6, DOC6)];
    attributes.extend(mandatory_and(attribute(0xc0, 8, &[1])));
    let update = survives(&update_message(TEN, &attributes, TEST_NET));
    assert_withdrawn(&update, &["10.0.0.0/8", "192.0.2.0/24", "2001:db8::/32"]);
}

#[test]
fn section_4_the_last_attribute_exceeds_total_attribute_length() {
    for broken in [&[0x40u8, 5, 4, 0][..], &[0x40], &[0x40, 5], &[0xd0, 8, 0], &[0xd0, 8, 0, 4, 1]] {
        let mut attributes = mandatory();
        attributes.push(broken.to_vec());
        withdraws(&update_message(&[], &attributes, TEST_NET));
        assert_eq!(resets(&update_message(&[], &attributes, &[])), update_error(1, &[]));
    }
}

#[test]
fn section_4_prefixes_lost_in_an_overrun_cannot_be_withdrawn() {
    let mut reach = mp_reach(&NEXT_HOP6, DOC6);
    reach[2] += 1;
    assert_eq!(resets(&update_message(&[], &[origin(), as_path(), reach], &[])), update_error(1, &[]));
}

#[test]
fn section_4_a_length_of_zero_is_an_error_but_where_it_is_allowed() {
    for code in 1..=3 {
        let message = with(code, attribute(0x40, code, &[]));
        match code {
            // An empty AS_PATH is one of the peer's own AS.
            2 => assert_eq!(announced(&survives(&message)), NET),
            _ => withdraws(&message),
        }
    }
    withdraws(&with_other(attribute(0x80, 4, &[])));
    for code in [8, 16, 25, 32] {
        withdraws(&with_other(attribute(0xc0, code, &[])));
    }
    assert_discarded(&survives(&with_other(attribute(0xc0, 7, &[]))), 7);
    assert_eq!(survives(&with_other(attribute(0x40, 6, &[]))).problems, []);
}

#[test]
fn section_5_1_fields_in_any_order_and_combination() {
    let attributes = [as_path(), mp_unreach(&[0]), next_hop(), mp_reach(&NEXT_HOP6, DOC6), origin()];
    let update = survives(&update_message(TEN, &attributes, TEST_NET));
    assert_eq!(withdrawn(&update), ["10.0.0.0/8", "::/0"]);
    assert_eq!(announced(&update), ["192.0.2.0/24", "2001:db8::/32"]);
    assert_eq!(update.announced[0].attributes.next_hop.to_string(), "192.0.2.1");
    assert_eq!(update.announced[1].attributes.next_hop.to_string(), "2001:db8::1");
}

#[test]
fn section_5_2_without_reachable_prefixes_an_error_resets() {
    let bad_origin = attribute(0x40, 1, &[3]);
    assert_eq!(
        resets(&update_message(&[], std::slice::from_ref(&bad_origin), &[])),
        update_error(6, &bad_origin)
    );
    assert_eq!(
        resets(&update_message(TEN, std::slice::from_ref(&bad_origin), &[])),
        update_error(6, &bad_origin)
    );
    assert_eq!(resets(&update_message(&[], &[mp_unreach(DOC6), bad_origin.clone()], &[])).subcode, 6);
    // MP_REACH_NLRI without prefixes is no reachable prefix either.
    let empty_reach = mp_reach(&NEXT_HOP6, &[]);
    assert_eq!(resets(&update_message(&[], &[empty_reach, bad_origin], &[])).subcode, 6);
}

#[test]
fn section_5_2_attribute_discard_does_not_reset() {
    let update = survives(&update_message(TEN, &[attribute(0x40, 6, &[1])], &[]));
    assert_eq!(withdrawn(&update), ["10.0.0.0/8"]);
    assert_eq!(update.problems.len(), 1);
}

#[test]
fn section_5_2_attributes_without_prefixes_are_no_error() {
    let update = survives(&update_message(&[], &mandatory(), &[]));
    assert_eq!((update.problems.len(), update.announced.len(), update.end_of_rib), (0, 0, None));
}

#[test]
fn section_5_3_nlri_that_cannot_be_read() {
    assert_eq!(resets(&update_message(&[], &mandatory(), &[33, 1, 2, 3, 4, 5])), update_error(10, &[]));
    assert_eq!(resets(&update_message(&[], &mandatory(), &[24, 10, 1])), update_error(10, &[]));
    assert_eq!(resets(&update_message(&[], &mandatory(), &[8, 10, 255])), update_error(10, &[]));
}

#[test]
fn section_5_3_mp_reach_nlri_that_cannot_be_read() {
    for nlri in [&[129u8][..], &[64, 1, 2], &[32, 0x20, 1, 0xd, 0xb8, 200]] {
        let reach = mp_reach(&NEXT_HOP6, nlri);
        let message = update_message(&[], &[reach.clone(), origin(), as_path()], &[]);
        assert_eq!(resets(&message), update_error(9, &reach));
        let unreach = mp_unreach(nlri);
        assert_eq!(
            resets(&update_message(&[], std::slice::from_ref(&unreach), &[])),
            update_error(9, &unreach)
        );
    }
}

#[test]
fn section_5_3_mp_attributes_with_wrong_flags() {
    for flags in [0x00, 0x40, 0xc0] {
        let mut reach = mp_reach(&NEXT_HOP6, DOC6);
        reach[0] = flags;
        assert_eq!(
            resets(&update_message(&[], &[reach.clone(), origin(), as_path()], &[])),
            update_error(4, &reach)
        );
        let mut unreach = mp_unreach(DOC6);
        unreach[0] = flags;
        assert_eq!(
            resets(&update_message(&[], std::slice::from_ref(&unreach), &[])),
            update_error(4, &unreach)
        );
    }
}

#[test]
fn section_5_3_mp_attributes_that_are_too_short() {
    for length in 0..5 {
        let reach = attribute(0x80, 14, &[0, 2, 1, 0][..length.min(4)]);
        assert_eq!(
            resets(&update_message(&[], &[reach.clone(), origin(), as_path()], &[])),
            update_error(9, &reach)
        );
    }
    for length in 0..3 {
        let unreach = attribute(0x80, 15, &[0, 2, 1][..length]);
        assert_eq!(
            resets(&update_message(&[], std::slice::from_ref(&unreach), &[])),
            update_error(9, &unreach)
        );
    }
}

#[test]
fn section_7_1_origin() {
    withdraws(&with(1, attribute(0x40, 1, &[3])));
    withdraws(&with(1, attribute(0x40, 1, &[255])));
    withdraws(&with(1, attribute(0x40, 1, &[0, 0])));
    for (code, origin) in [(0, Origin::Igp), (1, Origin::Egp), (2, Origin::Incomplete)] {
        let update = survives(&with(1, attribute(0x40, 1, &[code])));
        assert_eq!(update.announced[0].attributes.origin, origin);
    }
}

#[test]
fn section_7_2_as_path() {
    for value in [
        &[5u8, 1, 0, 0, 0, 1][..],
        &[0, 1, 0, 0, 0, 1],
        &[2, 2, 0, 0, 0, 1],
        &[2, 1, 0, 0, 0, 1, 2],
        &[2, 0],
        &[2, 1, 0, 0, 0, 1, 1, 0],
        &[2],
    ] {
        withdraws(&with(2, attribute(0x40, 2, value)));
    }
}

#[test]
fn rfc7607_2_as_zero_in_as_path_and_aggregator() {
    withdraws(&with(2, attribute(0x40, 2, &[2, 2, 0, 0, 0, 1, 0, 0, 0, 0])));
    withdraws(&with(2, attribute(0x40, 2, &[2, 1, 0, 0, 0, 1, 1, 1, 0, 0, 0, 0])));
    assert_discarded(&survives(&with_other(attribute(0xc0, 7, &[0, 0, 0, 0, 1, 1, 1, 1]))), 7);
}

#[test]
fn rfc5065_5_confederation_segments_only_inside_one() {
    let confed = attribute(0x40, 2, &[3, 1, 0, 0, 0xfd, 0xe9, 2, 1, 0, 0, 0, 1]);
    withdraws(&with(2, confed.clone()));
    let mut context = internal();
    context.confederation = true;
    let update = decode_update(&with(2, confed), &context).unwrap();
    assert_eq!(update.announced[0].attributes.as_path.to_string(), "(65001) 1");
}

#[test]
fn section_7_2_first_as_where_it_is_enforced() {
    let mut context = external();
    context.first_as = Some(causeway_bgp_wire::Asn(64601));
    assert_eq!(announced(&decode_update(&with_other(attribute(0xc0, 8, &[0; 4])), &context).unwrap()), NET);
    let other = with(2, attribute(0x40, 2, &[2, 1, 0, 0, 0xfc, 0x5a]));
    assert_withdrawn(&decode_update(&other, &context).unwrap(), NET);
    assert_eq!(announced(&survives(&other)), NET);
}

#[test]
fn section_7_3_next_hop() {
    withdraws(&with(3, attribute(0x40, 3, &[192, 0, 2])));
    withdraws(&with(3, attribute(0x40, 3, &[192, 0, 2, 1, 1])));
    withdraws(&with(3, attribute(0x40, 3, &NEXT_HOP6)));
}

#[test]
fn rfc4271_6_3_a_next_hop_that_is_no_host() {
    for address in [[0, 0, 0, 0], [127, 0, 0, 1], [224, 0, 0, 1], [240, 0, 0, 1], [255, 255, 255, 255]] {
        withdraws(&with(3, attribute(0x40, 3, &address)));
    }
    let update = survives(&update_message(&[], &[mp_reach(&[0; 16], DOC6), origin(), as_path()], &[]));
    assert_withdrawn(&update, &["2001:db8::/32"]);
}

#[test]
fn rfc4760_3_next_hop_without_prefixes_in_the_body_is_ignored() {
    let zero = attribute(0x40, 3, &[0, 0, 0, 0]);
    let attributes = [mp_reach(&NEXT_HOP6, DOC6), origin(), as_path(), zero];
    assert_eq!(announced(&survives(&update_message(&[], &attributes, &[]))), ["2001:db8::/32"]);
}

#[test]
fn section_7_4_multi_exit_disc() {
    withdraws(&with_other(attribute(0x80, 4, &[0, 0, 1])));
    withdraws(&with_other(attribute(0x80, 4, &[0, 0, 0, 0, 1])));
    let update = survives(&with_other(attribute(0x80, 4, &[0, 0, 0, 7])));
    assert_eq!(update.announced[0].attributes.med, Some(7));
}

#[test]
fn section_7_5_local_pref() {
    // Of an external peer it is not even looked at.
    for value in [&[0u8, 0, 0, 9][..], &[0, 0]] {
        let update = survives(&with_other(attribute(0x40, 5, value)));
        assert_discarded(&update, 5);
        assert_eq!(update.announced[0].attributes.local_pref, None);
    }
    let update = decode_update(&with_other(attribute(0x40, 5, &[0, 0, 0, 9])), &internal()).unwrap();
    assert_eq!(update.announced[0].attributes.local_pref, Some(9));
    let update = decode_update(&with_other(attribute(0x40, 5, &[0, 0, 9])), &internal()).unwrap();
    assert_withdrawn(&update, NET);
}

#[test]
fn section_7_6_atomic_aggregate() {
    assert!(survives(&with_other(attribute(0x40, 6, &[]))).announced[0].attributes.atomic_aggregate);
    assert_discarded(&survives(&with_other(attribute(0x40, 6, &[0]))), 6);
}

#[test]
fn section_7_7_aggregator_has_the_width_of_the_session() {
    let wide = with_other(attribute(0xc0, 7, &[0, 1, 0, 0, 10, 0, 0, 1]));
    let aggregator = survives(&wide).announced[0].attributes.aggregator.unwrap();
    assert_eq!((aggregator.asn.0, aggregator.router_id.to_string()), (65536, "10.0.0.1".into()));
    let mut context = external();
    context.four_octet_as = false;
    let path = attribute(0x40, 2, &[2, 1, 0xfc, 0x59]);
    let narrow = |value| update_message(&[], &[origin(), path.clone(), next_hop(), value], TEST_NET);
    let update = decode_update(&narrow(attribute(0xc0, 7, &[0, 7, 10, 0, 0, 1])), &context).unwrap();
    assert_eq!(update.announced[0].attributes.aggregator.unwrap().asn.0, 7);
    let update = decode_update(&narrow(attribute(0xc0, 7, &[0, 0, 0, 7, 10, 0, 0, 1])), &context).unwrap();
    assert_discarded(&update, 7);
}

#[test]
fn section_7_8_communities() {
    for value in [&[0u8, 1, 0][..], &[0, 1, 0, 1, 0]] {
        withdraws(&with_other(attribute(0xc0, 8, value)));
    }
    let update = survives(&with_other(attribute(0xc0, 8, &[0xfc, 0, 0, 100, 0xff, 0xff, 0xff, 1])));
    let communities = &update.announced[0].attributes.communities;
    assert_eq!(communities.iter().map(|c| c.to_string()).collect::<Vec<_>>(), ["64512:100", "65535:65281"]);
}

#[test]
fn section_7_9_originator_id() {
    for value in [&[1u8, 1, 1, 1][..], &[1]] {
        let update = survives(&with_other(attribute(0x80, 9, value)));
        assert_discarded(&update, 9);
        assert_eq!(update.announced[0].attributes.originator_id, None);
    }
    let update = decode_update(&with_other(attribute(0x80, 9, &[1, 1, 1, 1])), &internal()).unwrap();
    assert_eq!(update.announced[0].attributes.originator_id, Some([1, 1, 1, 1].into()));
    let update = decode_update(&with_other(attribute(0x80, 9, &[1, 1, 1])), &internal()).unwrap();
    assert_withdrawn(&update, NET);
}

#[test]
fn section_7_10_cluster_list() {
    for value in [&[1u8, 1, 1, 1][..], &[]] {
        let update = survives(&with_other(attribute(0x80, 10, value)));
        assert_discarded(&update, 10);
        assert!(update.announced[0].attributes.cluster_list.is_empty());
    }
    let update =
        decode_update(&with_other(attribute(0x80, 10, &[1, 1, 1, 1, 2, 2, 2, 2])), &internal()).unwrap();
    assert_eq!(
        update.announced[0].attributes.cluster_list,
        [[1, 1, 1, 1], [2, 2, 2, 2]].map(std::net::Ipv4Addr::from)
    );
    for value in [&[][..], &[1u8, 1, 1]] {
        let update = decode_update(&with_other(attribute(0x80, 10, value)), &internal()).unwrap();
        assert_withdrawn(&update, NET);
    }
}

#[test]
fn section_7_11_mp_reach_nlri_with_a_next_hop_of_a_wrong_length() {
    for length in [0usize, 1, 4, 15, 17, 24, 33, 48] {
        let reach = mp_reach(&vec![1; length], DOC6);
        let message = update_message(&[], &[reach.clone(), origin(), as_path()], &[]);
        assert_eq!(resets(&message), update_error(9, &reach), "{length}");
    }
    let mut overrun = mp_reach(&NEXT_HOP6, &[]);
    overrun[6] = 200;
    assert_eq!(resets(&update_message(&[], &[overrun, origin(), as_path()], &[])).subcode, 9);
}

#[test]
fn section_7_14_extended_communities() {
    withdraws(&with_other(attribute(0xc0, 16, &[0; 7])));
    withdraws(&with_other(attribute(0xc0, 16, &[0; 12])));
    // An unknown type is no error.
    let update = survives(&with_other(attribute(0xc0, 16, &[0x3f, 9, 1, 2, 3, 4, 5, 6])));
    assert_eq!(update.announced[0].attributes.ext_communities.len(), 1);
}

#[test]
fn section_7_15_ipv6_extended_communities() {
    withdraws(&with_other(attribute(0xc0, 25, &[0; 19])));
    let update = survives(&with_other(attribute(0xc0, 25, &[0; 20])));
    assert_eq!(update.announced[0].attributes.unknown[0].code, 25);
}

#[test]
fn rfc8092_6_large_communities() {
    withdraws(&with_other(attribute(0xc0, 32, &[0; 11])));
    withdraws(&with_other(attribute(0xc0, 32, &[0; 13])));
}

#[test]
fn rfc4271_6_3_an_unknown_well_known_attribute_resets() {
    let unknown = attribute(0x40, 99, &[1, 2]);
    assert_eq!(resets(&with_other(unknown.clone())), update_error(2, &unknown));
    let unknown = attribute(0x00, 0, &[]);
    assert_eq!(resets(&with_other(unknown.clone())), update_error(2, &unknown));
}
