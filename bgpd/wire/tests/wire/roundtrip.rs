//! What is encoded is decoded again, whatever it is and however the session was negotiated.

use causeway_bgp_wire::{
    Capability, DecodeContext, EncodeContext, EncodedAttributes, Header, Message, Nlri, NlriList, Open,
    PathAttributes, PrefixKey, encode_open, encode_withdrawals,
};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::generate::{attributes4, attributes6, nlri4, nlri6};
use crate::handmade::{decode_update, internal};

fn contexts(four_octet_as: bool, extended_message: bool) -> (EncodeContext, DecodeContext) {
    let encode = EncodeContext { four_octet_as, extended_message, ..EncodeContext::default() };
    (encode, DecodeContext { four_octet_as, extended_message, ..internal() })
}

/// Encodes, cuts into messages, decodes, and asserts that all prefixes come back in order with the same attributes.
fn announce<P: PrefixKey>(
    attributes: &PathAttributes,
    nlri: &[Nlri<P>],
    (encode, decode): (EncodeContext, DecodeContext),
    collect: impl Fn(&NlriList) -> Vec<Nlri<P>>,
) {
    let Ok(encoded) = EncodedAttributes::new(attributes, &encode) else {
        assert!(!encode.extended_message, "such attributes fit into an extended message");
        return;
    };
    let mut out = Vec::new();
    let messages = encoded.announce(nlri.iter().copied(), &mut out);
    let mut rest = out.as_slice();
    let mut read = Vec::new();
    for _ in 0..messages {
        let header = Header::peek(rest, decode.extended_message).unwrap().unwrap();
        let update = decode_update(&rest[..header.length], &decode).unwrap();
        assert_eq!(
            (update.announced.len(), update.withdrawn.len(), update.problems.as_slice()),
            (1, 0, [].as_slice())
        );
        assert_eq!(&update.announced[0].attributes, attributes);
        read.extend(collect(&update.announced[0].nlri));
        rest = &rest[header.length..];
    }
    assert!(rest.is_empty());
    assert_eq!(read, nlri);
}

fn v4(list: &NlriList) -> Vec<Nlri<causeway_bgp_wire::Ipv4Prefix>> {
    let NlriList::V4(list) = list else { panic!("IPv4") };
    list.clone()
}

fn v6(list: &NlriList) -> Vec<Nlri<causeway_bgp_wire::Ipv6Prefix>> {
    let NlriList::V6(list) = list else { panic!("IPv6") };
    list.clone()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) })]

    #[test]
    fn ipv4_announcements(attributes in attributes4(), nlri in nlri4(1..1500), extended: bool) {
        announce(&attributes, &nlri, contexts(true, extended), v4);
    }

    #[test]
    fn ipv6_announcements(attributes in attributes6(), nlri in nlri6(1..600), extended: bool) {
        announce(&attributes, &nlri, contexts(true, extended), v6);
    }

    #[test]
    fn announcements_to_a_two_octet_peer(mut attributes in attributes4(), nlri in nlri4(1..20)) {
        // AS_TRANS as a number of its own cannot be told from a stand-in (RFC 6793 §4.2.3).
        prop_assume!(!attributes.as_path.contains(causeway_bgp_wire::Asn::TRANS));
        attributes.aggregator = attributes.aggregator.filter(|a| a.asn != causeway_bgp_wire::Asn::TRANS);
        attributes.partial.aggregator &= attributes.aggregator.is_some();
        announce(&attributes, &nlri, contexts(false, true), v4);
    }

    #[test]
    fn withdrawals(nlri in nlri6(1..2000)) {
        let (encode, decode) = contexts(true, false);
        let mut out = Vec::new();
        encode_withdrawals(nlri.iter().copied(), &encode, &mut out);
        let mut rest = out.as_slice();
        let mut read = Vec::new();
        while let Some(header) = Header::peek(rest, false).unwrap() {
            let update = decode_update(&rest[..header.length], &decode).unwrap();
            read.extend(v6(&update.withdrawn[0]));
            rest = &rest[header.length..];
        }
        prop_assert_eq!(read, nlri);
    }

    #[test]
    fn opens(
        asn in 1u32..,
        hold_time in prop_oneof![Just(0u16), 3u16..],
        router_id in 1u32..,
        unknown in prop::collection::btree_map(128u8..=255, vec(any::<u8>(), 0..40), 0..12),
    ) {
        let capabilities = unknown.into_iter().map(|(code, value)| Capability::Unknown { code, value }).collect();
        let open = Open::new(causeway_bgp_wire::Asn(asn), hold_time, router_id.into(), capabilities);
        let mut out = Vec::new();
        encode_open(&open, &mut out);
        prop_assert_eq!(Message::decode(&out, &internal()).unwrap(), Message::Open(open));
    }

    #[test]
    fn text_of_prefixes(v4 in nlri4(1..20), v6 in nlri6(1..20)) {
        for nlri in v4 {
            prop_assert_eq!(nlri.prefix.to_string().parse(), Ok(nlri.prefix));
        }
        for nlri in v6 {
            prop_assert_eq!(nlri.prefix.to_string().parse(), Ok(nlri.prefix));
        }
    }
}
