//! bgpkit-parser, an independent decoder, reads what our encoder writes and finds the same.

use std::net::{IpAddr, Ipv4Addr};

use bgpkit_parser::models::{AsPathSegment, AsnLength, BgpMessage, ElemType, MetaCommunity, NextHopAddress};
use bgpkit_parser::parser::bgp::parse_bgp_message;
use bgpkit_parser::{BgpElem, Elementor};
use causeway_bgp_wire::{
    EncodeContext, EncodedAttributes, Header, Nlri, PathAttributes, PrefixKey, SegmentKind,
    encode_withdrawals,
};
use proptest::prelude::*;

use crate::generate::{attributes4, attributes6, nlri4, nlri6};

/// Every element of a buffer of UPDATEs, as bgpkit sees them.
fn elements(mut octets: &[u8]) -> Vec<BgpElem> {
    let mut elements = Vec::new();
    while let Some(header) = Header::peek(octets, false).unwrap() {
        let mut message = octets[..header.length].to_vec().into();
        let parsed = parse_bgp_message(&mut message, false, &AsnLength::Bits32).expect("bgpkit reads it");
        let BgpMessage::Update(update) = parsed else { panic!("an UPDATE") };
        let peer = IpAddr::V4(Ipv4Addr::LOCALHOST);
        elements.extend(Elementor::bgp_update_to_elems(update, 0.0, &peer, &1.into()));
        octets = &octets[header.length..];
    }
    elements
}

/// The path as bgpkit gives it, in our notation.
fn path_text(path: &bgpkit_parser::models::AsPath) -> String {
    let segments = path.segments.iter().map(|segment| {
        let (open, asns, separator, close) = match segment {
            AsPathSegment::AsSequence(asns) => ("", asns, " ", ""),
            AsPathSegment::AsSet(asns) => ("{", asns, ",", "}"),
            AsPathSegment::ConfedSequence(asns) => ("(", asns, " ", ")"),
            AsPathSegment::ConfedSet(asns) => ("[", asns, ",", "]"),
        };
        let asns: Vec<String> = asns.iter().map(|asn| asn.to_u32().to_string()).collect();
        format!("{open}{}{close}", asns.join(separator))
    });
    segments.collect::<Vec<_>>().join(" ")
}

fn same<P: PrefixKey>(attributes: &PathAttributes, nlri: &[Nlri<P>]) {
    let Ok(encoded) = EncodedAttributes::new(attributes, &EncodeContext::default()) else { return };
    let mut out = Vec::new();
    encoded.announce(nlri.iter().copied(), &mut out);
    let elements = elements(&out);
    assert_eq!(elements.len(), nlri.len());
    for (element, nlri) in elements.iter().zip(nlri) {
        assert_eq!(element.elem_type, ElemType::ANNOUNCE);
        assert_eq!(element.prefix.prefix.to_string(), nlri.prefix.to_string());
        assert_eq!(element.next_hop, Some(attributes.next_hop.global));
        assert_eq!(element.as_path.as_ref().map(path_text), Some(attributes.as_path.to_string()));
        assert_eq!(element.origin.map(|o| o as u8), Some(attributes.origin as u8));
        // It does not tell an absent number from zero.
        assert_eq!(element.med.unwrap_or(0), attributes.med.unwrap_or(0));
        assert_eq!(element.local_pref.unwrap_or(0), attributes.local_pref.unwrap_or(0));
        assert_eq!(element.atomic, attributes.atomic_aggregate);
        assert_eq!(element.aggr_asn.map(|asn| asn.to_u32()), attributes.aggregator.map(|a| a.asn.0));
        assert_eq!(element.aggr_ip, attributes.aggregator.map(|a| a.router_id));
        let communities = element.communities.iter().flatten();
        let (mut plain, mut large, mut extended) = (0, 0, 0);
        for community in communities {
            match community {
                MetaCommunity::Plain(_) => plain += 1,
                MetaCommunity::Large(community) => {
                    let expected = &attributes.large_communities[large];
                    let found = (community.global_admin, community.local_data);
                    assert_eq!(found, (expected.global, [expected.local1, expected.local2]));
                    large += 1;
                }
                MetaCommunity::Extended(_) | MetaCommunity::Ipv6Extended(_) => extended += 1,
            }
        }
        let expected = [
            attributes.communities.len(),
            attributes.large_communities.len(),
            attributes.ext_communities.len(),
        ];
        assert_eq!([plain, large, extended], expected);
    }
}

/// Without default routes: bgpkit takes a list that begins with an octet of zero for one with path identifiers.
fn without_default<P: PrefixKey>(mut nlri: Vec<Nlri<P>>) -> Vec<Nlri<P>> {
    nlri.retain(|nlri| nlri.prefix.prefix_len() != 0);
    nlri
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(150) })]

    #[test]
    fn ipv4(attributes in attributes4(), nlri in nlri4(1..50)) {
        same(&attributes, &without_default(nlri));
    }

    #[test]
    fn ipv6(attributes in attributes6(), nlri in nlri6(1..50)) {
        same(&attributes, &without_default(nlri));
    }

    #[test]
    fn withdrawn(v4 in nlri4(1..50), v6 in nlri6(1..50)) {
        let (v4, v6) = (without_default(v4), without_default(v6));
        let mut out = Vec::new();
        let context = EncodeContext::default();
        encode_withdrawals(v4.iter().copied(), &context, &mut out);
        encode_withdrawals(v6.iter().copied(), &context, &mut out);
        let read = elements(&out);
        prop_assert!(read.iter().all(|element| element.elem_type == ElemType::WITHDRAW));
        let expected = v4.iter().map(|n| n.prefix.to_string()).chain(v6.iter().map(|n| n.prefix.to_string()));
        prop_assert_eq!(
            read.iter().map(|element| element.prefix.prefix.to_string()).collect::<Vec<_>>(),
            expected.collect::<Vec<_>>()
        );
    }
}

#[test]
fn link_local_next_hops_are_seen() {
    let mut attributes = PathAttributes::new(
        causeway_bgp_wire::Origin::Igp,
        causeway_bgp_wire::NextHop {
            global: "2001:db8::1".parse().unwrap(),
            link_local: Some("fe80::1".parse().unwrap()),
        },
    );
    attributes.as_path.push_segment(SegmentKind::Sequence, &[causeway_bgp_wire::Asn(1)]);
    let mut out = Vec::new();
    let prefix: causeway_bgp_wire::Ipv6Prefix = "2001:db8:1::/48".parse().unwrap();
    EncodedAttributes::new(&attributes, &EncodeContext::default())
        .unwrap()
        .announce([prefix.into()], &mut out);
    let parsed = parse_bgp_message(&mut out.into(), false, &AsnLength::Bits32).unwrap();
    let BgpMessage::Update(update) = parsed else { panic!("an UPDATE") };
    let reach = update.attributes.get_reachable_nlri().unwrap();
    let expected = NextHopAddress::Ipv6LinkLocal("2001:db8::1".parse().unwrap(), "fe80::1".parse().unwrap());
    assert_eq!(reach.next_hop, Some(expected));
}
