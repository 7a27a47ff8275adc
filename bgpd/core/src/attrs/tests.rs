//! Tests of packing and interning.

use std::net::Ipv4Addr;

use causeway_bgp_wire::{
    Aggregator, AsPath, Asn, Community, ExtCommunity, LargeCommunity, Origin, PartialFlags, SegmentKind,
    UnknownAttribute,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::*;

fn attributes(med: u32) -> PathAttributes {
    PathAttributes { med: Some(med), ..PathAttributes::new(Origin::Igp, Ipv4Addr::LOCALHOST.into()) }
}

#[test]
fn equal_attributes_are_one_allocation() {
    let mut interner = Interner::new();
    let one = interner.intern(&attributes(1));
    assert_eq!(one, interner.intern(&attributes(1)));
    assert_ne!(one, interner.intern(&attributes(2)));
    assert_eq!(one.facts().med(), Some(1));
    assert_eq!(interner.len(), 2);
}

#[test]
fn what_policy_made_holds_what_was_received() {
    let mut interner = Interner::new();
    let (one, two) = (interner.intern(&attributes(1)), interner.intern(&attributes(2)));
    let of_one = interner.intern_changed(&attributes(9), &one);
    let of_two = interner.intern_changed(&attributes(9), &two);
    assert_eq!((of_one.received(), of_two.received()), (&one, &two));
    assert!(of_one != of_two && of_one.equals(&of_two));
    assert_eq!(of_one, interner.intern_changed(&attributes(9), &one));
    assert_eq!(interner.intern_changed(&attributes(1), &one), one, "nothing was changed");
    assert_eq!(one.received(), &one);
    drop((one, two, of_two));
    interner.sweep();
    assert_eq!(interner.len(), 2, "the set that is held, and what it was made of");
    drop(of_one);
    interner.sweep();
    assert!(interner.is_empty());
}

#[test]
fn sets_without_handles_are_dropped() {
    let mut interner = Interner::new();
    let kept = interner.intern(&attributes(0));
    for med in 1..100_000 {
        interner.intern(&attributes(med));
        assert!(interner.len() <= SWEEP_MIN);
    }
    interner.sweep();
    assert_eq!(interner.len(), 1);
    assert_eq!(kept, interner.intern(&attributes(0)));
}

#[test]
fn the_bound_follows_what_is_alive() {
    let mut interner = Interner::new();
    let held: Vec<AttrSet> = (0..5_000).map(|med| interner.intern(&attributes(med))).collect();
    assert_eq!(interner.len(), held.len());
    drop(held);
    for med in 10_000..20_000 {
        interner.intern(&attributes(med));
    }
    assert!(interner.len() <= 2 * SWEEP_MIN, "{}", interner.len());
}

#[test]
fn a_usual_set_takes_little() {
    let path = AsPath::from_sequence([64512, 64601, 64602].map(Asn));
    let set = AttrSet::single(&PathAttributes { as_path: path, ..attributes(1) });
    assert_eq!((size_of::<Interned>(), set.octets()), (88, 4 + 2 + 12));
    assert_eq!(size_of::<Option<AttrSet>>(), 8);
}

#[test]
fn an_as_path_longer_than_a_message_is_kept() {
    let path = AsPath::from_sequence((1..=30_000).map(Asn));
    let value = PathAttributes { as_path: path, ..attributes(1) };
    let set = AttrSet::single(&value);
    assert_eq!((set.facts().as_path_length(), set.as_path_octets().len()), (30_000, 120_236));
    assert_eq!(set.unpack(), value);
}

fn any_attributes() -> impl Strategy<Value = PathAttributes> {
    let segment = (1u8..=4, vec(1u32.., 1..5));
    let as_path = vec(segment, 0..4).prop_map(|segments| {
        let mut path = AsPath::empty();
        for (kind, asns) in segments {
            let kind = match kind {
                1 => SegmentKind::Set,
                2 => SegmentKind::Sequence,
                3 => SegmentKind::ConfedSequence,
                _ => SegmentKind::ConfedSet,
            };
            path.push_segment(kind, &asns.into_iter().map(Asn).collect::<Vec<_>>());
        }
        path
    });
    let next_hop = prop_oneof![
        any::<u32>().prop_map(|bits| Ipv4Addr::from(bits).into()),
        (any::<u128>(), option::of(any::<u128>())).prop_map(|(global, link_local)| NextHop {
            global: std::net::Ipv6Addr::from(global).into(),
            link_local: link_local.map(Into::into),
        }),
    ];
    let numbers = (option::of(any::<u32>()), option::of(any::<u32>()), option::of(any::<u32>()));
    let lists = (
        vec(any::<u32>(), 0..4),
        vec(any::<[u8; 8]>(), 0..3),
        vec(any::<[u32; 3]>(), 0..3),
        vec(any::<u32>(), 0..3),
    );
    let rest = (0u8..3, any::<[bool; 5]>(), option::of(any::<(u32, u32)>()));
    let unknown = vec((any::<u8>(), any::<bool>(), vec(any::<u8>(), 0..6)), 0..3);
    (as_path, next_hop, numbers, lists, rest, unknown).prop_map(
        |(as_path, next_hop, (med, local_pref, originator), lists, (origin, flags, aggregator), unknown)| {
            let (communities, ext_communities, large_communities, clusters) = lists;
            PathAttributes {
                origin: Origin::from_code(origin).unwrap_or_default(),
                as_path,
                next_hop,
                med,
                local_pref,
                atomic_aggregate: flags[0],
                aggregator: aggregator
                    .map(|(asn, id)| Aggregator { asn: Asn(asn), router_id: Ipv4Addr::from(id) }),
                communities: communities.into_iter().map(Community).collect(),
                ext_communities: ext_communities.into_iter().map(ExtCommunity).collect(),
                large_communities: large_communities
                    .into_iter()
                    .map(|[global, local1, local2]| LargeCommunity { global, local1, local2 })
                    .collect(),
                originator_id: originator.map(Ipv4Addr::from),
                cluster_list: clusters.into_iter().map(Ipv4Addr::from).collect(),
                unknown: unknown
                    .into_iter()
                    .map(|(code, partial, value)| UnknownAttribute { code, partial, value: value.into() })
                    .collect(),
                partial: PartialFlags {
                    aggregator: flags[1],
                    communities: flags[2],
                    ext_communities: flags[3],
                    large_communities: flags[4],
                },
            }
        },
    )
}

proptest! {
    #[test]
    fn what_is_packed_comes_out_again(attributes in any_attributes()) {
        let set = AttrSet::single(&attributes);
        let facts = set.facts();
        prop_assert_eq!(facts.as_path_length(), attributes.as_path.length());
        prop_assert_eq!(facts.neighbour_as(), attributes.as_path.neighbour_as());
        prop_assert_eq!((facts.med(), facts.local_pref()), (attributes.med, attributes.local_pref));
        prop_assert_eq!(facts.originator_id(), attributes.originator_id);
        prop_assert_eq!(facts.cluster_list_length(), attributes.cluster_list.len());
        prop_assert_eq!(facts.has_communities(), !attributes.communities.is_empty());
        prop_assert_eq!(facts.has_v6_next_hop(), attributes.next_hop.global.is_ipv6());
        prop_assert_eq!(set.next_hop(), attributes.next_hop);
        prop_assert_eq!(set.as_path_octets(), attributes.as_path.as_octets());
        prop_assert_eq!(set.unpack(), attributes);
    }

    #[test]
    fn one_handle_for_equal_ones_and_another_for_others(a in any_attributes(), b in any_attributes()) {
        let mut interner = Interner::new();
        let (one, two) = (interner.intern(&a), interner.intern(&b));
        prop_assert_eq!(one == two, a == b);
        prop_assert_eq!(one.equals(&AttrSet::single(&b)), a == b);
        prop_assert_eq!(interner.intern(&a), one);
    }
}
