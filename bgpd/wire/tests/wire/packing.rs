//! How UPDATEs are packed. RFC 4271 §4.3, RFC 7606 §5.1, RFC 8654, RFC 8950.

use causeway_bgp_wire::{
    AsPath, Asn, Community, EncodeContext, EncodeError, EncodedAttributes, Family, FamilySet, Header,
    Ipv4Prefix, Ipv6Prefix, NextHop, Nlri, Origin, PathAttributes, PrefixKey, UnknownAttribute,
    encode_withdrawals,
};

use crate::handmade::*;

fn attributes4() -> PathAttributes {
    PathAttributes::new(Origin::Igp, NextHop::from(std::net::Ipv4Addr::new(192, 0, 2, 1)))
}

fn attributes6() -> PathAttributes {
    PathAttributes::new(Origin::Igp, NextHop::from(std::net::Ipv6Addr::from(NEXT_HOP6)))
}

fn many4(count: u32) -> impl Iterator<Item = Nlri<Ipv4Prefix>> {
    (0..count).map(|i| Ipv4Prefix::from_bits(0x0a00_0000 + (i << 8), 24).unwrap().into())
}

fn many6(count: u128) -> impl Iterator<Item = Nlri<Ipv6Prefix>> {
    (0..count).map(|i| Ipv6Prefix::from_bits((0x2001_0db8u128 << 96) + (i << 64), 64).unwrap().into())
}

/// Cuts a buffer into messages.
fn messages(mut octets: &[u8], extended: bool) -> Vec<&[u8]> {
    let mut messages = Vec::new();
    while let Some(header) = Header::peek(octets, extended).unwrap() {
        let (message, rest) = octets.split_at(header.length);
        messages.push(message);
        octets = rest;
    }
    assert!(octets.is_empty());
    messages
}

#[test]
fn prefixes_are_packed_into_as_few_messages_as_possible() {
    let encoded = EncodedAttributes::new(&attributes4(), &EncodeContext::default()).unwrap();
    let mut out = Vec::new();
    let count = encoded.announce(many4(5000), &mut out);
    let messages = messages(&out, false);
    assert_eq!((count, messages.len()), (5, 5));
    assert!(messages[..4].iter().all(|m| m.len() > 4092));
    let read: Vec<String> = messages.iter().flat_map(|m| announced(&survives(m))).collect();
    assert_eq!(read, many4(5000).map(|n| n.prefix.to_string()).collect::<Vec<_>>());
}

#[test]
fn ipv6_prefixes_go_into_mp_reach_nlri_which_comes_first() {
    let encoded = EncodedAttributes::new(&attributes6(), &EncodeContext::default()).unwrap();
    let mut out = Vec::new();
    encoded.announce(many6(2000), &mut out);
    let messages = messages(&out, false);
    for message in &messages {
        assert_eq!(message[23..25], [0x90, 14], "RFC 7606 §5.1: the very first attribute");
        assert!(!message.windows(2).any(|w| w == [0x40, 3]), "no NEXT_HOP");
    }
    let read: usize = messages.iter().map(|m| survives(m).announced[0].nlri.len()).sum();
    assert_eq!(read, 2000);
}

#[test]
fn nothing_to_say_is_no_message() {
    let encoded = EncodedAttributes::<Ipv4Prefix>::new(&attributes4(), &EncodeContext::default()).unwrap();
    let mut out = Vec::new();
    assert_eq!(encoded.announce([], &mut out), 0);
    assert_eq!(encode_withdrawals::<Ipv6Prefix>([], &EncodeContext::default(), &mut out), 0);
    assert!(out.is_empty());
}

#[test]
fn withdrawals_are_packed() {
    let mut out = Vec::new();
    let context = EncodeContext::default();
    let count = encode_withdrawals(many4(3000), &context, &mut out);
    let read: Vec<String> = messages(&out, false).iter().flat_map(|m| withdrawn(&survives(m))).collect();
    assert_eq!((count, read.len()), (3, 3000));
    out.clear();
    encode_withdrawals(many6(3000), &context, &mut out);
    let read: Vec<String> = messages(&out, false).iter().flat_map(|m| withdrawn(&survives(m))).collect();
    assert_eq!(read, many6(3000).map(|n| n.prefix.to_string()).collect::<Vec<_>>());
}

#[test]
fn rfc8654_longer_messages_where_negotiated() {
    let context = EncodeContext { extended_message: true, ..EncodeContext::default() };
    let mut decode = external();
    decode.extended_message = true;
    for (out, count) in [
        {
            let mut out = Vec::new();
            let count =
                EncodedAttributes::new(&attributes4(), &context).unwrap().announce(many4(20_000), &mut out);
            (out, count)
        },
        {
            let mut out = Vec::new();
            let count =
                EncodedAttributes::new(&attributes6(), &context).unwrap().announce(many6(10_000), &mut out);
            (out, count)
        },
        {
            let mut out = Vec::new();
            let count = encode_withdrawals(many4(20_000), &context, &mut out);
            (out, count)
        },
    ] {
        let messages = messages(&out, true);
        assert_eq!((count, messages.len()), (2, 2));
        let total: usize = messages
            .iter()
            .map(|m| decode_update(m, &decode).unwrap())
            .map(|u| announced(&u).len() + withdrawn(&u).len())
            .sum();
        assert!(total == 20_000 || total == 10_000);
    }
}

#[test]
fn rfc7911_path_identifiers_are_written() {
    let context = EncodeContext { add_path: FamilySet::ALL, ..EncodeContext::default() };
    let mut decode = external();
    decode.add_path = FamilySet::ALL;
    let mut out = Vec::new();
    let prefix: Ipv4Prefix = "10.0.0.0/8".parse().unwrap();
    let nlri = [7, 8].map(|path_id| Nlri { prefix, path_id });
    EncodedAttributes::new(&attributes4(), &context).unwrap().announce(nlri, &mut out);
    let update = decode_update(&out, &decode).unwrap();
    assert_eq!(update.announced[0].nlri, causeway_bgp_wire::NlriList::V4(nlri.to_vec()));
}

#[test]
fn rfc8950_ipv6_next_hop_for_ipv4_only_where_negotiated() {
    let refused = EncodedAttributes::<Ipv4Prefix>::new(&attributes6(), &EncodeContext::default());
    assert!(matches!(refused, Err(EncodeError::NextHopFamily { family: Family::Ipv4Unicast, .. })));
    let refused = EncodedAttributes::<Ipv6Prefix>::new(&attributes4(), &EncodeContext::default());
    assert!(matches!(refused, Err(EncodeError::NextHopFamily { family: Family::Ipv6Unicast, .. })));
    let families = FamilySet::only(Family::Ipv4Unicast);
    let context = EncodeContext { ipv6_next_hop: families, ..EncodeContext::default() };
    let mut out = Vec::new();
    EncodedAttributes::new(&attributes6(), &context).unwrap().announce(many4(3), &mut out);
    let mut decode = external();
    decode.ipv6_next_hop = families;
    assert_eq!(announced(&decode_update(&out, &decode).unwrap()).len(), 3);
}

#[test]
fn attributes_that_leave_no_room_are_an_error_and_never_a_panic() {
    let mut attributes = attributes4();
    for count in [0, 900, 1010, 1020, 1100, 16_000, 40_000] {
        attributes.communities = (0..count).map(Community).collect();
        for extended_message in [false, true] {
            let context = EncodeContext { extended_message, ..EncodeContext::default() };
            let mut out = Vec::new();
            match EncodedAttributes::new(&attributes, &context) {
                Ok(encoded) => {
                    assert_eq!(encoded.announce(many4(10), &mut out), messages(&out, extended_message).len());
                }
                Err(error) => assert!(count > 1000 && matches!(error, EncodeError::TooLarge { .. })),
            }
        }
    }
}

#[test]
fn attributes_ascend_and_lengths_take_two_octets_only_where_they_must() {
    let mut attributes = attributes4();
    attributes.as_path = AsPath::from_sequence((1..=70).map(Asn));
    attributes.med = Some(1);
    attributes.local_pref = Some(2);
    attributes.atomic_aggregate = true;
    attributes.communities = vec![Community(1)];
    attributes.originator_id = Some([1, 1, 1, 1].into());
    attributes.cluster_list = vec![[2, 2, 2, 2].into()];
    attributes.unknown = [11, 20, 40, 255]
        .map(|code| UnknownAttribute { code, partial: code != 20, value: vec![0; usize::from(code)].into() })
        .to_vec();
    let mut out = Vec::new();
    EncodedAttributes::new(&attributes, &EncodeContext::default()).unwrap().announce(many4(1), &mut out);
    let mut rest = &out[23..out.len() - 4];
    let mut seen = Vec::new();
    while let [flags, code, tail @ ..] = rest {
        let extended = flags & 0x10 != 0;
        let (length, value) = if extended {
            (usize::from(u16::from_be_bytes([tail[0], tail[1]])), &tail[2..])
        } else {
            (usize::from(tail[0]), &tail[1..])
        };
        assert_eq!(extended, length > 255, "attribute {code}");
        seen.push(*code);
        rest = &value[length..];
    }
    assert_eq!(seen, [1, 2, 3, 4, 5, 6, 8, 9, 10, 11, 20, 40, 255]);
    let update = decode_update(&out, &internal()).unwrap();
    let mut expected = attributes;
    expected.unknown[1].partial = true;
    assert_eq!(
        update.announced[0].attributes, expected,
        "RFC 4271 §5: what this speaker does not know is partial"
    );
}

#[test]
fn rfc4271_5_the_partial_bit_is_never_cleared() {
    let mut attributes = mandatory();
    attributes.extend([
        attribute(0xe0, 7, &[0, 0, 0, 1, 1, 1, 1, 1]),
        attribute(0xe0, 8, &[0; 4]),
        attribute(0xe0, 16, &[0; 8]),
        attribute(0xe0, 32, &[0; 12]),
    ]);
    let message = update_message(&[], &attributes, TEN);
    let update = survives(&message);
    let mut out = Vec::new();
    let nlri: Ipv4Prefix = "10.0.0.0/8".parse().unwrap();
    let attributes = &update.announced[0].attributes;
    EncodedAttributes::new(attributes, &EncodeContext::default()).unwrap().announce([nlri.into()], &mut out);
    assert_eq!(out, message);
}
