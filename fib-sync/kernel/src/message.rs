//! Our types to and from `netlink-packet-route`'s. Pure; the one file that crate's next release can break.
//!
//! Decoding is lenient towards what belongs to others: attributes nobody here needs are passed over, and a message
//! that does not decode is `None` and left out, so that one exotic route cannot stop the daemon.

use std::net::IpAddr;
use std::os::fd::AsRawFd;

use ipnetwork::IpNetwork;
use netlink_packet_core::{NlasIterator, Parseable};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressScope,
};
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVeth, LinkAttribute, LinkExtentMask, LinkFlags, LinkHeader, LinkInfo, LinkMessage,
};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteMetric, RouteNextHop, RouteNextHopFlags,
    RouteProtocol, RouteScope, RouteType, RouteVia,
};

use crate::attribute::Attributes;
use crate::link::{Address, Link, LinkChange, Mac, Neighbour, VethPair};
use crate::route::{Family, NextHop, Route, RouteKey, RouteKind};

pub(crate) mod nexthop;
pub(crate) mod tunnel;

const LINK_HEADER_LENGTH: usize = 16;
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINK: u16 = 5;
const IFLA_LINKINFO: u16 = 18;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;

/// The kernel's number for a family, in a message's head.
pub(crate) fn family_number(family: Family) -> u8 {
    match family {
        Family::Ipv4 => libc::AF_INET as u8,
        Family::Ipv6 => libc::AF_INET6 as u8,
    }
}

/// The family of a message's head; `None` when it is neither.
pub(crate) fn family_from(number: u8) -> Option<Family> {
    Family::ALL.into_iter().find(|family| family_number(*family) == number)
}

/// The kernel's number for a family.
pub fn family_of(family: Family) -> AddressFamily {
    match family {
        Family::Ipv4 => AddressFamily::Inet,
        Family::Ipv6 => AddressFamily::Inet6,
    }
}

fn route_type(kind: RouteKind) -> RouteType {
    match kind {
        RouteKind::Unicast => RouteType::Unicast,
        RouteKind::Local => RouteType::Local,
        RouteKind::Unreachable => RouteType::Unreachable,
        RouteKind::Blackhole => RouteType::BlackHole,
        RouteKind::Prohibit => RouteType::Prohibit,
        RouteKind::Throw => RouteType::Throw,
        RouteKind::Other(number) => RouteType::from(number),
    }
}

fn route_kind(kind: RouteType) -> RouteKind {
    match kind {
        RouteType::Unicast => RouteKind::Unicast,
        RouteType::Local => RouteKind::Local,
        RouteType::Unreachable => RouteKind::Unreachable,
        RouteType::BlackHole => RouteKind::Blackhole,
        RouteType::Prohibit => RouteKind::Prohibit,
        RouteType::Throw => RouteKind::Throw,
        other => RouteKind::Other(other.into()),
    }
}

/// The message head and attributes that name a route's key.
fn route_key_message(key: &RouteKey, protocol: u8) -> RouteMessage {
    let mut message = RouteMessage::default();
    let header = &mut message.header;
    header.address_family = family_of(key.family());
    header.destination_prefix_length = key.destination.prefix();
    header.tos = key.tos;
    header.table = u8::try_from(key.table).unwrap_or(0);
    header.protocol = RouteProtocol::from(protocol);
    message.attributes.push(RouteAttribute::Table(key.table));
    if key.destination.prefix() > 0 {
        message.attributes.push(RouteAttribute::Destination(RouteAddress::from(key.destination.network())));
    }
    message.attributes.push(RouteAttribute::Priority(key.metric));
    message
}

/// `RTM_DELROUTE` for exactly this key and protocol.
pub fn delete_route(key: &RouteKey, protocol: u8) -> RouteMessage {
    let mut message = route_key_message(key, protocol);
    // Any scope and any type: the key, the metric and the protocol say enough.
    message.header.scope = RouteScope::NoWhere;
    message.header.kind = RouteType::Unspec;
    message
}

/// `RTM_NEWROUTE`.
pub fn new_route(route: &Route) -> RouteMessage {
    let mut message = route_key_message(&route.key, route.protocol);
    message.header.kind = route_type(route.kind);
    let on_link = route.kind == RouteKind::Unicast && route.next_hops.iter().all(|hop| hop.gateway.is_none());
    message.header.scope = match (route.key.family(), route.kind) {
        (Family::Ipv4, RouteKind::Local) => RouteScope::Host,
        (Family::Ipv4, _) if on_link => RouteScope::Link,
        _ => RouteScope::Universe,
    };
    let attributes = &mut message.attributes;
    match &route.next_hops[..] {
        [] => {}
        [hop] => {
            attributes.extend(gateway_attribute(route.key.family(), hop.gateway));
            attributes.push(RouteAttribute::Oif(hop.ifindex));
            if hop.onlink {
                message.header.flags |= RouteFlags::Onlink;
            }
        }
        hops => attributes.push(RouteAttribute::MultiPath(
            hops.iter()
                .map(|hop| {
                    let mut next_hop = RouteNextHop::default();
                    next_hop.hops = u8::try_from(hop.weight.saturating_sub(1)).unwrap_or(u8::MAX);
                    next_hop.interface_index = hop.ifindex;
                    next_hop.attributes.extend(gateway_attribute(route.key.family(), hop.gateway));
                    if hop.onlink {
                        next_hop.flags |= RouteNextHopFlags::Onlink;
                    }
                    next_hop
                })
                .collect(),
        )),
    }
    let attributes = &mut message.attributes;
    if let Some(source) = route.preferred_source {
        attributes.push(RouteAttribute::PrefSource(RouteAddress::from(source)));
    }
    if let Some(mtu) = route.mtu {
        attributes.push(RouteAttribute::Metrics(vec![RouteMetric::Mtu(mtu)]));
    }
    if let Some(id) = route.nexthop_id {
        attributes.push(RouteAttribute::NhId(id));
    }
    message
}

fn gateway_attribute(family: Family, gateway: Option<IpAddr>) -> Option<RouteAttribute> {
    gateway.map(|gateway| {
        if Family::of(&gateway) == family {
            RouteAttribute::Gateway(RouteAddress::from(gateway))
        } else {
            RouteAttribute::Via(RouteVia::from(gateway))
        }
    })
}

/// `RTM_GETROUTE` that dumps one table of one family.
pub fn dump_routes(family: Family, table: u32) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family_of(family);
    message.header.table = u8::try_from(table).unwrap_or(0);
    message.attributes.push(RouteAttribute::Table(table));
    message
}

/// Reads `RTM_NEWROUTE` or `RTM_DELROUTE`. `None`: neither IPv4 nor IPv6, a cached entry, or undecodable.
pub fn parse_route(payload: &[u8]) -> Option<Route> {
    let message = RouteMessage::parse(payload).ok()?;
    let header = &message.header;
    let family = match header.address_family {
        AddressFamily::Inet => Family::Ipv4,
        AddressFamily::Inet6 => Family::Ipv6,
        _ => return None,
    };
    if header.flags.contains(RouteFlags::Cloned) {
        return None;
    }
    let mut destination = None;
    let mut route = Route {
        key: RouteKey {
            table: header.table.into(),
            destination: IpNetwork::new(unspecified(family), 0).ok()?,
            tos: header.tos,
            metric: 0,
        },
        protocol: header.protocol.into(),
        kind: route_kind(header.kind),
        next_hops: Vec::new(),
        preferred_source: None,
        mtu: None,
        nexthop_id: None,
    };
    let mut single =
        NextHop { gateway: None, ifindex: 0, weight: 1, onlink: header.flags.contains(RouteFlags::Onlink) };
    for attribute in message.attributes {
        match attribute {
            RouteAttribute::Table(table) => route.key.table = table,
            RouteAttribute::Destination(address) => destination = ip_of(&address),
            RouteAttribute::Priority(metric) => route.key.metric = metric,
            RouteAttribute::Gateway(address) => single.gateway = ip_of(&address),
            RouteAttribute::Via(via) => single.gateway = ip_of_via(&via),
            RouteAttribute::Oif(index) => single.ifindex = index,
            RouteAttribute::MultiPath(hops) => route.next_hops = hops.iter().map(parse_next_hop).collect(),
            RouteAttribute::PrefSource(address) => route.preferred_source = ip_of(&address),
            RouteAttribute::NhId(id) => route.nexthop_id = Some(id),
            RouteAttribute::Metrics(metrics) => {
                route.mtu = metrics.iter().find_map(|metric| match metric {
                    RouteMetric::Mtu(mtu) => Some(*mtu),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    let address = destination.unwrap_or_else(|| unspecified(family));
    route.key.destination = IpNetwork::new(address, header.destination_prefix_length).ok()?;
    if single.ifindex != 0 || single.gateway.is_some() {
        route.next_hops.push(single);
    }
    if !matches!(route.kind, RouteKind::Unicast | RouteKind::Local | RouteKind::Other(_)) {
        // IPv6 shows `dev lo` for routes that lead nowhere.
        route.next_hops.clear();
    }
    route.next_hops.sort_unstable();
    Some(route)
}

fn parse_next_hop(hop: &RouteNextHop) -> NextHop {
    let gateway = hop.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Gateway(address) => ip_of(address),
        RouteAttribute::Via(via) => ip_of_via(via),
        _ => None,
    });
    NextHop {
        gateway,
        ifindex: hop.interface_index,
        weight: u16::from(hop.hops) + 1,
        onlink: hop.flags.contains(RouteNextHopFlags::Onlink),
    }
}

fn ip_of(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some(IpAddr::V4(*address)),
        RouteAddress::Inet6(address) => Some(IpAddr::V6(*address)),
        _ => None,
    }
}

fn ip_of_via(via: &RouteVia) -> Option<IpAddr> {
    match via {
        RouteVia::Inet(address) => Some(IpAddr::V4(*address)),
        RouteVia::Inet6(address) => Some(IpAddr::V6(*address)),
        _ => None,
    }
}

fn unspecified(family: Family) -> IpAddr {
    match family {
        Family::Ipv4 => IpAddr::from([0; 4]),
        Family::Ipv6 => IpAddr::from([0; 16]),
    }
}

/// `RTM_GETLINK` for all links, without their statistics.
pub fn dump_links() -> LinkMessage {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
    message
}

/// `RTM_GETLINK` for one link.
pub fn get_link(name: &str) -> LinkMessage {
    let mut message = dump_links();
    message.attributes.push(LinkAttribute::IfName(name.to_owned()));
    message
}

/// `RTM_DELLINK`.
pub fn delete_link(index: u32) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message
}

/// `RTM_SETLINK`.
pub fn set_link(index: u32, change: &LinkChange) -> LinkMessage {
    let mut message = delete_link(index);
    if let Some(up) = change.up {
        message.header.change_mask = LinkFlags::Up;
        if up {
            message.header.flags = LinkFlags::Up;
        }
    }
    if let Some(mtu) = change.mtu {
        message.attributes.push(LinkAttribute::Mtu(mtu));
    }
    if let Some(mac) = change.mac {
        message.attributes.push(LinkAttribute::Address(mac.0.to_vec()));
    }
    if let Some(name) = &change.name {
        message.attributes.push(LinkAttribute::IfName(name.clone()));
    }
    message
}

/// `RTM_NEWLINK` for a veth pair.
pub fn new_veth(pair: &VethPair<'_>) -> LinkMessage {
    let end = |name: &str, mac: Mac| {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        message.attributes.push(LinkAttribute::Address(mac.0.to_vec()));
        message.attributes.push(LinkAttribute::Mtu(pair.mtu));
        message
    };
    let mut peer = end(pair.peer_name, pair.peer_mac);
    if let Some(netns) = pair.peer_netns {
        peer.attributes.push(LinkAttribute::NetNsFd(netns.as_raw_fd()));
    }
    let mut message = end(pair.name, pair.mac);
    message.attributes.push(LinkAttribute::LinkInfo(vec![
        LinkInfo::Kind(InfoKind::Veth),
        LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
    ]));
    message
}

/// Reads `RTM_NEWLINK` or `RTM_DELLINK`: only the attributes needed here, so that a new kernel's additions to the
/// many others cannot make a link unreadable.
pub fn parse_link(payload: &[u8]) -> Option<Link> {
    let header = LinkHeader::parse(payload).ok()?;
    let mut link = Link {
        index: header.index,
        name: String::new(),
        admin_up: header.flags.contains(LinkFlags::Up),
        running: header.flags.contains(LinkFlags::Running | LinkFlags::LowerUp),
        loopback: header.flags.contains(LinkFlags::Loopback),
        mtu: 0,
        mac: None,
        kind: None,
        peer: None,
        tunnel: None,
    };
    for attribute in NlasIterator::new(payload.get(LINK_HEADER_LENGTH..)?) {
        let attribute = attribute.ok()?;
        let value = attribute.value();
        match attribute.kind() {
            IFLA_ADDRESS => link.mac = value.try_into().ok().map(Mac),
            IFLA_IFNAME => link.name = text(value),
            IFLA_MTU => link.mtu = number(value)?,
            IFLA_LINK => link.peer = number(value),
            IFLA_LINKINFO => {
                let part = |kind| Attributes(value).find(|info| info.kind == kind);
                link.kind = part(IFLA_INFO_KIND).map(|kind| kind.text());
                if let (Some(kind), Some(data)) = (&link.kind, part(IFLA_INFO_DATA)) {
                    link.tunnel = tunnel::parse(kind, data.value);
                }
            }
            _ => {}
        }
    }
    Some(link)
}

fn number(value: &[u8]) -> Option<u32> {
    value.try_into().ok().map(u32::from_ne_bytes)
}

fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value.strip_suffix(&[0]).unwrap_or(value)).into_owned()
}

/// `RTM_NEWADDR`, `RTM_DELADDR`.
pub fn address(ifindex: u32, network: &IpNetwork, nodad: bool) -> AddressMessage {
    let mut message = AddressMessage::default();
    let header = &mut message.header;
    header.family = if network.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    header.prefix_len = network.prefix();
    header.index = ifindex;
    if let IpAddr::V6(address) = network.ip()
        && address.is_unicast_link_local()
    {
        header.scope = AddressScope::Link;
    }
    if nodad {
        header.flags = AddressHeaderFlags::Nodad;
        message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
    }
    message.attributes.push(AddressAttribute::Local(network.ip()));
    message.attributes.push(AddressAttribute::Address(network.ip()));
    message
}

/// Reads `RTM_NEWADDR` or `RTM_DELADDR`.
pub fn parse_address(payload: &[u8]) -> Option<Address> {
    let message = AddressMessage::parse(payload).ok()?;
    let (mut local, mut remote) = (None, None);
    let mut tentative = message.header.flags.contains(AddressHeaderFlags::Tentative);
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(address) => local = Some(*address),
            AddressAttribute::Address(address) => remote = Some(*address),
            AddressAttribute::Flags(flags) => tentative |= flags.contains(AddressFlags::Tentative),
            _ => {}
        }
    }
    let own = local.or(remote)?;
    Some(Address {
        ifindex: message.header.index,
        network: IpNetwork::new(own, message.header.prefix_len).ok()?,
        peer: remote.filter(|remote| *remote != own),
        global: message.header.scope == AddressScope::Universe,
        tentative,
    })
}

/// `RTM_NEWNEIGH` (permanent), `RTM_DELNEIGH`.
pub fn neighbour(ifindex: u32, address: IpAddr, mac: Option<Mac>) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = family_of(Family::of(&address));
    message.header.ifindex = ifindex;
    message.attributes.push(NeighbourAttribute::Destination(NeighbourAddress::from(address)));
    if let Some(mac) = mac {
        message.header.state = NeighbourState::Permanent;
        message.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.0.to_vec()));
    }
    message
}

/// Reads `RTM_NEWNEIGH` or `RTM_DELNEIGH`.
pub fn parse_neighbour(payload: &[u8]) -> Option<Neighbour> {
    let message = NeighbourMessage::parse(payload).ok()?;
    let (mut address, mut mac) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(to)) => address = Some(IpAddr::V4(*to)),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(to)) => address = Some(IpAddr::V6(*to)),
            NeighbourAttribute::LinkLayerAddress(bytes) => mac = bytes.as_slice().try_into().ok().map(Mac),
            _ => {}
        }
    }
    Some(Neighbour {
        ifindex: message.header.ifindex,
        address: address?,
        mac,
        permanent: message.header.state == NeighbourState::Permanent,
    })
}
