//! Every row of the decision, the ways nodes come to stand to each other, and what must hold whatever the inputs.

use ipnetwork::IpNetwork;
use proptest::prelude::*;

use super::*;

const CROSS_IPIP: TunnelMode = TunnelMode::Ipip(When::CrossSubnet);
const CROSS_VXLAN: TunnelMode = TunnelMode::Vxlan(When::CrossSubnet);
const ALWAYS_IPIP: TunnelMode = TunnelMode::Ipip(When::Always);
const ALWAYS_VXLAN: TunnelMode = TunnelMode::Vxlan(When::Always);

const CONNECTED: Resolution = Resolution::Connected { ifindex: 2 };

fn behind(gateway: &str) -> Resolution {
    Resolution::Gateway { gateway: gateway.parse().unwrap(), ifindex: 2, metric: 100 }
}

fn node(address: &str, zone: Option<&str>) -> Target {
    Target {
        name: "node-b2".to_owned(),
        address: address.parse().unwrap(),
        zone: zone.map(ToOwned::to_owned),
        kind: None,
        mac: None,
        vni: None,
    }
}

fn attribute(address: &str, kind: Kind) -> Target {
    Target { name: "RFC 9012 attribute".to_owned(), kind: Some(kind), ..node(address, None) }
}

/// A decision about an IPv4 prefix of pool `pods` with the next hop 192.0.2.5.
fn about<'a>(mode: TunnelMode, resolution: &'a Resolution, endpoint: Option<&'a Target>) -> Inputs<'a> {
    Inputs {
        pool: Some("pods"),
        mode,
        family: Family::Ipv4,
        next_hop: "192.0.2.5".parse().unwrap(),
        resolution,
        device: "eth0",
        endpoint,
        outer: resolution,
        own_zone: None,
        vni: 4096,
    }
}

#[track_caller]
fn expect(inputs: &Inputs<'_>, decision: Decision, reason: &str) {
    assert_eq!(decide(inputs), Decided { decision, reason: reason.to_owned() }, "{inputs:?}");
}

#[test]
fn every_row_for_a_node() {
    use Decision::{Direct, Drop, Recursive, Tunnel};
    let (router, nowhere) = (behind("198.51.100.254"), Resolution::Unreachable);
    let other = node("192.0.2.5", None);
    let is_direct = "next hop in a connected subnet (eth0)";
    let is_behind = "192.0.2.5 lies behind 198.51.100.254 (eth0)";
    let is_lost = "next hop 192.0.2.5 unreachable: no live route to it";
    let lost_end =
        |why: &str| format!("tunnel endpoint 192.0.2.5 unreachable: no live route to it ({why} to node-b2)");
    let rows = [
        (TunnelMode::Never, &CONNECTED, Direct, is_direct.to_owned()),
        (TunnelMode::Never, &router, Recursive, is_behind.to_owned()),
        (TunnelMode::Never, &nowhere, Drop, is_lost.to_owned()),
        (CROSS_IPIP, &CONNECTED, Direct, is_direct.to_owned()),
        (
            CROSS_IPIP,
            &router,
            Tunnel(Kind::Ipip),
            "pool pods: ipipMode CrossSubnet and 192.0.2.5 is in another subnet: IP-in-IP to node-b2"
                .to_owned(),
        ),
        (
            CROSS_IPIP,
            &nowhere,
            Drop,
            lost_end("pool pods: ipipMode CrossSubnet and 192.0.2.5 is in another subnet: IP-in-IP"),
        ),
        (CROSS_VXLAN, &CONNECTED, Direct, is_direct.to_owned()),
        (
            CROSS_VXLAN,
            &router,
            Tunnel(Kind::Vxlan),
            "pool pods: vxlanMode CrossSubnet and 192.0.2.5 is in another subnet: VXLAN to node-b2"
                .to_owned(),
        ),
        (
            ALWAYS_IPIP,
            &CONNECTED,
            Tunnel(Kind::Ipip),
            "pool pods: ipipMode Always: IP-in-IP to node-b2".to_owned(),
        ),
        (
            ALWAYS_IPIP,
            &router,
            Tunnel(Kind::Ipip),
            "pool pods: ipipMode Always: IP-in-IP to node-b2".to_owned(),
        ),
        (ALWAYS_IPIP, &nowhere, Drop, lost_end("pool pods: ipipMode Always: IP-in-IP")),
        (
            ALWAYS_VXLAN,
            &CONNECTED,
            Tunnel(Kind::Vxlan),
            "pool pods: vxlanMode Always: VXLAN to node-b2".to_owned(),
        ),
    ];
    for (mode, resolution, decision, reason) in rows {
        expect(&about(mode, resolution, Some(&other)), decision, &reason);
    }
}

#[test]
fn next_hops_that_are_no_node_are_never_tunnelled_to() {
    let (router, nowhere) = (behind("198.51.100.254"), Resolution::Unreachable);
    let unknown = "not tunnelled: 192.0.2.5 is no node and has no tunnel attribute";
    for mode in [ALWAYS_IPIP, ALWAYS_VXLAN] {
        expect(
            &about(mode, &CONNECTED, None),
            Decision::Direct,
            &format!("{unknown}; next hop in a connected subnet (eth0)"),
        );
    }
    for mode in [CROSS_IPIP, CROSS_VXLAN, ALWAYS_IPIP, ALWAYS_VXLAN] {
        expect(
            &about(mode, &router, None),
            Decision::Recursive,
            &format!("{unknown}; recursive: 192.0.2.5 lies behind 198.51.100.254 (eth0)"),
        );
        let lost = format!("{unknown}; next hop 192.0.2.5 unreachable: no live route to it");
        expect(&about(mode, &nowhere, None), Decision::Drop, &lost);
    }
    // The ToR rewrote the next hop to itself: it is on the link, and what lies behind it is its business.
    expect(&about(CROSS_VXLAN, &CONNECTED, None), Decision::Direct, "next hop in a connected subnet (eth0)");
}

#[test]
fn zones_take_the_place_of_subnets_where_both_are_known() {
    let router = behind("198.51.100.254");
    let with = |own, zone, resolution| {
        let target = node("192.0.2.5", zone);
        let inputs = Inputs { own_zone: own, ..about(CROSS_VXLAN, resolution, Some(&target)) };
        decide(&inputs)
    };
    let tunnel = Decision::Tunnel(Kind::Vxlan);
    for (own, zone, resolution, decision) in [
        (Some("a"), Some("a"), &CONNECTED, Decision::Direct),
        (Some("a"), Some("a"), &router, Decision::Recursive),
        (Some("a"), Some("b"), &CONNECTED, tunnel),
        (Some("a"), Some("b"), &router, tunnel),
        (Some("a"), None, &CONNECTED, Decision::Direct),
        (Some("a"), None, &router, tunnel),
        (None, Some("b"), &CONNECTED, Decision::Direct),
        (None, Some("b"), &router, tunnel),
    ] {
        assert_eq!(with(own, zone, resolution).decision, decision, "{own:?} {zone:?} {resolution:?}");
    }
    assert_eq!(
        with(Some("a"), Some("b"), &CONNECTED).reason,
        "pool pods: vxlanMode CrossSubnet and 192.0.2.5 is in zone b, this node in a: VXLAN to node-b2"
    );
    assert_eq!(
        with(Some("a"), Some("a"), &router).reason,
        "pool pods: vxlanMode CrossSubnet and 192.0.2.5 is in the same zone a; recursive: 192.0.2.5 lies behind \
         198.51.100.254 (eth0)"
    );
}

#[test]
fn the_kind_follows_the_families() {
    let router = behind("198.51.100.254");
    let kind = |mode, family, address: &str| {
        let target = node(address, None);
        let next_hop = target.address;
        decide(&Inputs { family, next_hop, ..about(mode, &router, Some(&target)) })
    };
    let (v4, v6) = ("192.0.2.5", "2001:db8::5");
    for (mode, family, address, expected) in [
        (ALWAYS_IPIP, Family::Ipv4, v4, Kind::Ipip),
        (ALWAYS_IPIP, Family::Ipv4, v6, Kind::Vxlan6),
        (ALWAYS_IPIP, Family::Ipv6, v6, Kind::Vxlan6),
        (ALWAYS_VXLAN, Family::Ipv4, v4, Kind::Vxlan),
        (ALWAYS_VXLAN, Family::Ipv6, v4, Kind::Vxlan),
        (ALWAYS_VXLAN, Family::Ipv4, v6, Kind::Vxlan6),
        (ALWAYS_VXLAN, Family::Ipv6, v6, Kind::Vxlan6),
    ] {
        let decided = kind(mode, family, address);
        assert_eq!(decided.decision, Decision::Tunnel(expected), "{mode} {family:?} {address}");
        assert_eq!(expected.outer(), Family::of(&address.parse().unwrap()));
    }
    let cannot = kind(CROSS_IPIP, Family::Ipv6, v4);
    assert_eq!(cannot.decision, Decision::Recursive);
    assert_eq!(
        cannot.reason,
        "not tunnelled: IP-in-IP to 192.0.2.5, an IPv4 address, cannot carry IPv6; vxlanMode can; recursive: \
         192.0.2.5 lies behind 198.51.100.254 (eth0)"
    );
    for family in [Family::Ipv4, Family::Ipv6] {
        assert_eq!(
            kind(ALWAYS_IPIP, family, v6).reason,
            "pool pods: ipipMode Always: VXLAN over IPv6 to node-b2; IPv6 endpoint, so not IP-in-IP, because Linux \
             refuses an IPv6 gateway that a route through another device leads to"
        );
        let asked_for = kind(ALWAYS_VXLAN, family, v6).reason;
        assert_eq!(asked_for, "pool pods: vxlanMode Always: VXLAN over IPv6 to node-b2");
    }
    let overheads = Kind::ALL.map(|kind| (kind.device(), kind.overhead()));
    assert_eq!(overheads, [("causeway-ipip", 20), ("causeway-vxlan", 50), ("causeway-vxlan6", 70)]);
}

/// RFC 9012 section 6: a tunnel is feasible where its endpoint is reachable, it can carry the packet and no local
/// policy prevents it.
#[test]
fn rfc_9012_section_6_an_attribute_says_where_and_how_the_pool_says_whether() {
    let router = behind("198.51.100.254");
    let far = attribute("203.0.113.9", Kind::Vxlan);
    let of =
        |mode, resolution, outer, target| decide(&Inputs { outer, ..about(mode, resolution, Some(target)) });
    assert_eq!(of(TunnelMode::Never, &router, &router, &far).decision, Decision::Recursive);
    assert_eq!(of(CROSS_IPIP, &CONNECTED, &router, &far).decision, Decision::Direct);
    let decided = of(CROSS_IPIP, &router, &router, &far);
    assert_eq!(decided.decision, Decision::Tunnel(Kind::Vxlan), "the attribute's kind, not the pool's");
    assert_eq!(
        decided.reason,
        "pool pods: ipipMode CrossSubnet and 192.0.2.5 is in another subnet: VXLAN to 203.0.113.9 of the RFC 9012 \
         attribute"
    );
    let own = attribute("192.0.2.5", Kind::Ipip);
    assert_eq!(of(ALWAYS_VXLAN, &CONNECTED, &CONNECTED, &own).decision, Decision::Tunnel(Kind::Ipip));
    let six = attribute("2001:db8::9", Kind::Vxlan6);
    let decided = of(ALWAYS_IPIP, &router, &router, &six);
    assert_eq!(decided.decision, Decision::Tunnel(Kind::Vxlan6));
    assert_eq!(
        decided.reason,
        "pool pods: ipipMode Always: VXLAN over IPv6 to 2001:db8::9 of the RFC 9012 attribute",
        "it is what the attribute asks for"
    );
    // What the far end does not take is not sent to it.
    let six = attribute("2001:db8::9", Kind::Ipip);
    for mode in [ALWAYS_IPIP, ALWAYS_VXLAN] {
        let decided = of(mode, &router, &router, &six);
        assert_eq!(decided.decision, Decision::Recursive);
        assert_eq!(
            decided.reason,
            "not tunnelled: the attribute asks for IP-in-IP to 2001:db8::9, an IPv6 address, and Linux refuses an IPv6 \
             gateway that a route through another device leads to; recursive: 192.0.2.5 lies behind 198.51.100.254 \
             (eth0)"
        );
    }
    let inner = Inputs { family: Family::Ipv6, ..about(ALWAYS_VXLAN, &router, Some(&own)) };
    assert_eq!(
        decide(&inner).reason,
        "not tunnelled: the attribute asks for IP-in-IP to 192.0.2.5, an IPv4 address, which cannot carry IPv6; \
         recursive: 192.0.2.5 lies behind 198.51.100.254 (eth0)"
    );
    // Section 7.1: without a feasible tunnel the path does not resolve, though its next hop does.
    let lost = of(ALWAYS_VXLAN, &CONNECTED, &Resolution::Unreachable, &far);
    assert_eq!(lost.decision, Decision::Drop);
    assert!(lost.reason.starts_with("tunnel endpoint 203.0.113.9 unreachable"), "{}", lost.reason);
    assert_eq!(
        of(ALWAYS_VXLAN, &Resolution::Unreachable, &router, &far).decision,
        Decision::Tunnel(Kind::Vxlan)
    );
}

/// A node as its kernel sees it: subnets on its links, a default route for all else.
fn resolve(subnets: &[IpNetwork], address: IpAddr) -> Resolution {
    match subnets.iter().position(|subnet| subnet.contains(address)) {
        Some(index) => Resolution::Connected { ifindex: index as u32 + 2 },
        None => behind("198.51.100.254"),
    }
}

/// What a node with these subnets decides about a node at `address`.
fn between(subnets: &[&str], address: &str, mode: TunnelMode) -> Decision {
    let subnets: Vec<IpNetwork> = subnets.iter().map(|subnet| subnet.parse().unwrap()).collect();
    let target = node(address, None);
    let resolution = resolve(&subnets, target.address);
    let inputs = Inputs {
        next_hop: target.address,
        family: Family::of(&target.address),
        ..about(mode, &resolution, Some(&target))
    };
    decide(&inputs).decision
}

#[test]
fn several_subnets_unequal_masks_and_host_addresses() {
    use Decision::{Direct, Tunnel};
    let tunnel = Tunnel(Kind::Vxlan);
    let decide = |subnets: &[&str], address| between(subnets, address, CROSS_VXLAN);
    // Two links: what is in either subnet is near.
    let two = ["192.0.2.11/24", "203.0.113.11/25"];
    assert_eq!(decide(&two, "192.0.2.200"), Direct);
    assert_eq!(decide(&two, "203.0.113.100"), Direct);
    assert_eq!(decide(&two, "203.0.113.200"), tunnel);
    // One believes to share a subnet, the other does not: each decides for itself, `symmetry` reports it.
    assert_eq!(decide(&["192.0.2.11/24"], "192.0.2.200"), Direct);
    assert_eq!(decide(&["192.0.2.200/25"], "192.0.2.11"), tunnel);
    // A host address has no neighbours.
    assert_eq!(decide(&["192.0.2.11/32"], "192.0.2.12"), tunnel);
    assert_eq!(decide(&["2001:db8::11/128"], "2001:db8::12"), Tunnel(Kind::Vxlan6));
    assert_eq!(decide(&["2001:db8::11/64"], "2001:db8::12"), Direct);
    assert_eq!(between(&["2001:db8:0:1::11/64"], "2001:db8::12", CROSS_IPIP), Tunnel(Kind::Vxlan6));
    // A point-to-point link is a subnet of two.
    assert_eq!(decide(&["192.0.2.0/31"], "192.0.2.1"), Direct);
}

fn any_mode() -> impl Strategy<Value = TunnelMode> {
    prop::sample::select(vec![TunnelMode::Never, CROSS_IPIP, CROSS_VXLAN, ALWAYS_IPIP, ALWAYS_VXLAN])
}

fn any_resolution() -> impl Strategy<Value = Resolution> {
    prop::sample::select(vec![
        CONNECTED,
        behind("198.51.100.254"),
        Resolution::Gateway { gateway: "fe80::1".parse().unwrap(), ifindex: 3, metric: 0 },
        Resolution::Unreachable,
    ])
}

fn any_address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![any::<[u8; 4]>().prop_map(IpAddr::from), any::<[u8; 16]>().prop_map(IpAddr::from)]
}

fn any_zone() -> impl Strategy<Value = Option<String>> {
    prop::option::of(prop::sample::select(vec!["a".to_owned(), "b".to_owned()]))
}

fn any_family() -> impl Strategy<Value = Family> {
    prop::sample::select(vec![Family::Ipv4, Family::Ipv6])
}

fn any_target() -> impl Strategy<Value = Option<Target>> {
    let kind = prop::option::of(prop::sample::select(Kind::ALL.to_vec()));
    let target = (any_address(), any_zone(), kind).prop_map(|(address, zone, kind)| Target {
        name: "other".to_owned(),
        address,
        zone,
        kind,
        mac: None,
        vni: None,
    });
    prop::option::of(target)
}

proptest! {
    #[test]
    fn what_holds_whatever_the_inputs(
        (mode, family, next_hop) in (any_mode(), any_family(), any_address()),
        (resolution, outer) in (any_resolution(), any_resolution()),
        (endpoint, own_zone) in (any_target(), any_zone()),
    ) {
        let inputs = Inputs {
            pool: Some("pods"), mode, family, next_hop, resolution: &resolution, device: "eth0",
            endpoint: endpoint.as_ref(), outer: &outer, own_zone: own_zone.as_deref(),
            vni: 4096,
        };
        let Decided { decision, reason } = decide(&inputs);
        prop_assert!(!reason.is_empty() && reason.len() < 400, "{reason}");
        let tunnelled = matches!(decision, Decision::Tunnel(_));
        let carried = endpoint.as_ref().is_some_and(|endpoint| {
            match (endpoint.kind, mode) {
                (Some(Kind::Ipip), _) => family == Family::Ipv4 && endpoint.address.is_ipv4(),
                (None, TunnelMode::Ipip(_)) => family == Family::Ipv4 || endpoint.address.is_ipv6(),
                _ => true,
            }
        });
        match mode {
            TunnelMode::Never => prop_assert!(!tunnelled),
            TunnelMode::Ipip(When::Always) | TunnelMode::Vxlan(When::Always) => {
                prop_assert_eq!(tunnelled, carried && outer != Resolution::Unreachable);
            }
            TunnelMode::Ipip(When::CrossSubnet) | TunnelMode::Vxlan(When::CrossSubnet) => {
                let zones = own_zone.as_ref().zip(endpoint.as_ref().and_then(|target| target.zone.as_ref()));
                let crosses = match zones {
                    Some((own, other)) => own != other,
                    None => !matches!(resolution, Resolution::Connected { .. }),
                };
                prop_assert_eq!(tunnelled, crosses && carried && outer != Resolution::Unreachable);
            }
        }
        if let (Decision::Tunnel(kind), Some(endpoint)) = (decision, &endpoint) {
            prop_assert_eq!(kind.outer(), Family::of(&endpoint.address));
        }
        // Where nothing leads to the next hop, only a tunnel to an endpoint elsewhere can.
        if resolution == Resolution::Unreachable && outer == Resolution::Unreachable {
            prop_assert_eq!(decision, Decision::Drop);
        }
        if matches!(decision, Decision::Direct) {
            let connected = matches!(resolution, Resolution::Connected { .. });
            prop_assert!(connected);
        }
        // Names are for people: they change no decision.
        let renamed = Inputs { pool: None, device: "bond0", ..inputs };
        prop_assert_eq!(decide(&renamed).decision, decision);
    }

    /// Which of several links or groups is looked at first changes nothing: with the same connected subnets in any
    /// order the same is decided.
    #[test]
    fn the_order_of_subnets_changes_nothing(
        subnets in prop::collection::vec((any::<[u8; 4]>(), 8_u8..=32), 1..5),
        (address, mode) in (any::<[u8; 4]>(), any_mode()),
        turn in 0_usize..5,
    ) {
        let subnets: Vec<String> = subnets
            .iter()
            .map(|(address, length)| format!("{}/{length}", std::net::Ipv4Addr::from(*address)))
            .collect();
        let mut subnets: Vec<&str> = subnets.iter().map(String::as_str).collect();
        let address = IpAddr::from(address).to_string();
        let decision = between(&subnets, &address, mode);
        let turn = turn % subnets.len();
        subnets.rotate_left(turn);
        prop_assert_eq!(between(&subnets, &address, mode), decision);
    }

    /// Two nodes with masks of the same length and the same zones decide alike about each other.
    #[test]
    fn both_ends_of_equal_masks_decide_alike(
        (here, there) in (any::<[u8; 4]>(), any::<[u8; 4]>()),
        length in 0_u8..=32,
        (own, other) in (any_zone(), any_zone()),
        mode in any_mode(),
    ) {
        let subnet = |address: [u8; 4]| IpNetwork::new(IpAddr::from(address), length).unwrap();
        let way = |from: [u8; 4], to: [u8; 4], own: &Option<String>, other: &Option<String>| {
            let target = Target { zone: other.clone(), ..node(&IpAddr::from(to).to_string(), None) };
            let resolution = resolve(&[subnet(from)], target.address);
            decide(&Inputs {
                next_hop: target.address,
                own_zone: own.as_deref(),
                vni: 4096,
                ..about(mode, &resolution, Some(&target))
            }).decision
        };
        prop_assert_eq!(way(here, there, &own, &other), way(there, here, &other, &own));
    }
}

#[test]
fn an_attribute_with_another_network_identifier_is_not_followed() {
    let away = Resolution::Gateway { gateway: "192.0.2.254".parse().unwrap(), ifindex: 2, metric: 0 };
    for (vni, decision) in [
        (None, Decision::Tunnel(Kind::Vxlan)),
        (Some(4096), Decision::Tunnel(Kind::Vxlan)),
        (Some(7), Decision::Recursive),
    ] {
        let target = Target { vni, ..attribute("192.0.2.5", Kind::Vxlan) };
        let decided = decide(&about(CROSS_VXLAN, &away, Some(&target)));
        assert_eq!(decided.decision, decision, "{vni:?}: {}", decided.reason);
        let named = decided.reason.contains("the attribute asks for VNI 7, and this node's is 4096");
        assert_eq!(named, vni == Some(7), "{}", decided.reason);
    }
}
