//! RFC 9012: the Tunnel Encapsulation attribute and its short form, the extended community.

use causeway_bgp_wire::{Consequence, Tunnel, TunnelKind};

use crate::handmade::*;

const NET: &[&str] = &["192.0.2.0/24"];

/// VXLAN to 192.0.2.9.
const VXLAN: [u8; 16] = [0, 8, 0, 12, 6, 10, 0, 0, 0, 0, 0, 1, 192, 0, 2, 9];

fn message(more: Vec<u8>) -> Vec<u8> {
    update_message(&[], &mandatory_and(more), TEST_NET)
}

#[test]
fn section_2_inside_the_as_it_is_carried_as_it_came() {
    for flags in [0xc0, 0xe0] {
        let update = decode_update(&message(attribute(flags, 23, &VXLAN)), &internal()).unwrap();
        let carried = &update.announced[0].attributes.unknown[0];
        assert_eq!((carried.code, carried.partial, &carried.value[..]), (23, flags == 0xe0, &VXLAN[..]));
        let tunnel = Tunnel::of_attribute(&carried.value).unwrap();
        assert_eq!((tunnel.kind, tunnel.endpoint), (TunnelKind::Vxlan, Some([192, 0, 2, 9].into())));
    }
}

#[test]
fn section_13_what_is_malformed_withdraws() {
    let mut loopback = VXLAN;
    loopback[12] = 127;
    for value in [&VXLAN[..15], &loopback, &[][..]] {
        let update = decode_update(&message(attribute(0xc0, 23, value)), &internal()).unwrap();
        assert_withdrawn(&update, NET);
    }
    let update = decode_update(&message(attribute(0x80, 23, &VXLAN)), &internal()).unwrap();
    assert_withdrawn(&update, NET);
}

#[test]
fn section_13_a_tunnel_that_ends_nowhere_is_taken_out() {
    let mut nowhere = VXLAN;
    nowhere[12] = 127;
    let value = [nowhere, VXLAN].concat();
    let update = decode_update(&message(attribute(0xc0, 23, &value)), &internal()).unwrap();
    assert_eq!(update.announced[0].attributes.unknown[0].value[..], VXLAN[..]);
}

#[test]
fn section_11_it_does_not_come_in_from_another_as() {
    let update = survives(&message(attribute(0xc0, 23, &VXLAN)));
    assert!(update.announced[0].attributes.unknown.is_empty());
    assert_eq!(update.problems[0].consequence, Consequence::AttributeDiscard);
    let communities = [[3, 0x0c, 0, 0, 0, 0, 0, 8], [3, 0x0b, 0, 0, 0, 0, 0, 8]].concat();
    let update = survives(&message(attribute(0xc0, 16, &communities)));
    assert_eq!(update.announced[0].attributes.ext_communities.len(), 1);
    let update = decode_update(&message(attribute(0xc0, 16, &communities)), &internal()).unwrap();
    assert_eq!(update.announced[0].attributes.ext_communities.len(), 2);
}
