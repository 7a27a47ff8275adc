//! Attributes and prefixes by chance, for property tests.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use causeway_bgp_wire::attr::PartialFlags;
use causeway_bgp_wire::{
    Aggregator, AsPath, Asn, Community, ExtCommunity, Ipv4Prefix, Ipv6Prefix, LargeCommunity, NextHop, Nlri,
    Origin, PathAttributes, PrefixKey, SegmentKind, UnknownAttribute,
};
use proptest::collection::vec;
use proptest::prelude::*;

pub fn asn() -> impl Strategy<Value = Asn> {
    prop_oneof![1u32..65536, 65536u32..=u32::MAX].prop_map(Asn)
}

/// Paths of sequences and sets, none of a confederation; neighbouring sequences do not occur, as nobody sends them.
pub fn as_path() -> impl Strategy<Value = AsPath> {
    let set = prop_oneof![Just(None), vec(asn(), 1..5).prop_map(Some)];
    (vec(asn(), 0..9), set, any::<bool>()).prop_map(|(sequence, set, set_first)| {
        let mut path = AsPath::empty();
        let set = set.unwrap_or_default();
        let segments = [(SegmentKind::Sequence, sequence), (SegmentKind::Set, set)];
        let order = if set_first { [1, 0] } else { [0, 1] };
        for at in order {
            path.push_segment(segments[at].0, &segments[at].1);
        }
        path
    })
}

fn host4() -> impl Strategy<Value = Ipv4Addr> {
    (1u8..=223, any::<[u8; 3]>())
        .prop_filter("no loopback", |(first, _)| *first != 127)
        .prop_map(|(first, [b, c, d])| Ipv4Addr::new(first, b, c, d))
}

fn next_hop6() -> impl Strategy<Value = NextHop> {
    (any::<u64>(), prop::option::of(any::<u64>())).prop_map(|(low, local)| NextHop {
        global: IpAddr::V6(Ipv6Addr::from_bits(0x2001_0db8 << 96 | u128::from(low))),
        link_local: local.map(|local| Ipv6Addr::from_bits(0xfe80 << 112 | u128::from(local))),
    })
}

fn unknown() -> impl Strategy<Value = Vec<UnknownAttribute>> {
    let code = prop_oneof![Just(11u8), Just(24), 40u8..=255];
    prop::collection::btree_map(code, vec(any::<u8>(), 0..300), 0..3).prop_map(|map| {
        map.into_iter()
            .map(|(code, value)| UnknownAttribute { code, partial: true, value: value.into() })
            .collect()
    })
}

fn attributes(next_hop: impl Strategy<Value = NextHop>) -> impl Strategy<Value = PathAttributes> {
    let numbers = (0u8..3, prop::option::of(any::<u32>()), prop::option::of(any::<u32>()), any::<bool>());
    let communities = (
        vec(any::<u32>(), 0..80),
        vec(any::<[u8; 8]>(), 0..40),
        prop::collection::btree_set(any::<(u32, u32, u32)>(), 0..30),
    );
    let reflection = (prop::option::of(any::<u32>()), vec(any::<u32>(), 0..4));
    let aggregator = prop::option::of((asn(), any::<u32>()));
    (as_path(), next_hop, numbers, communities, reflection, aggregator, unknown(), any::<[bool; 4]>())
        .prop_map(
            |(
                as_path,
                next_hop,
                (origin, med, local_pref, atomic),
                communities,
                reflection,
                aggregator,
                unknown,
                p,
            )| {
                PathAttributes {
                    origin: Origin::from_code(origin).unwrap(),
                    as_path,
                    next_hop,
                    med,
                    local_pref,
                    atomic_aggregate: atomic,
                    aggregator: aggregator.map(|(asn, id)| Aggregator { asn, router_id: id.into() }),
                    partial: PartialFlags {
                        aggregator: p[0] && aggregator.is_some(),
                        communities: p[1] && !communities.0.is_empty(),
                        ext_communities: p[2] && !communities.1.is_empty(),
                        large_communities: p[3] && !communities.2.is_empty(),
                    },
                    communities: communities.0.into_iter().map(Community).collect(),
                    ext_communities: communities.1.into_iter().map(ExtCommunity).collect(),
                    large_communities: communities
                        .2
                        .into_iter()
                        .map(|(global, local1, local2)| LargeCommunity { global, local1, local2 })
                        .collect(),
                    originator_id: reflection.0.map(Into::into),
                    cluster_list: reflection.1.into_iter().map(Into::into).collect(),
                    unknown,
                }
            },
        )
}

pub fn attributes4() -> impl Strategy<Value = PathAttributes> {
    attributes(host4().prop_map(NextHop::from))
}

pub fn attributes6() -> impl Strategy<Value = PathAttributes> {
    attributes(next_hop6())
}

/// IPv4 prefixes that can be routed.
pub fn nlri4(count: std::ops::Range<usize>) -> impl Strategy<Value = Vec<Nlri<Ipv4Prefix>>> {
    let prefix = (host4(), 8u8..=32).prop_map(|(address, len)| Ipv4Prefix::new(address, len).unwrap().into());
    vec(prop_oneof![20 => prefix, 1 => Just(Nlri::from(Ipv4Prefix::DEFAULT))], count)
}

/// IPv6 prefixes that can be routed.
pub fn nlri6(count: std::ops::Range<usize>) -> impl Strategy<Value = Vec<Nlri<Ipv6Prefix>>> {
    let prefix = (any::<u128>(), 4u8..=128)
        .prop_map(|(bits, len)| Ipv6Prefix::from_bits(bits >> 4 | 0x2 << 124, len).unwrap().into());
    vec(prop_oneof![20 => prefix, 1 => Just(Nlri::from(Ipv6Prefix::DEFAULT))], count)
}
