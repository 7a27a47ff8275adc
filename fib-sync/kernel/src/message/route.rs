//! Routes to and from bytes (`linux/rtnetlink.h`). Pure.
//!
//! By hand, because there are a million of them: writing one allocates nothing, and of a dump only what differs from
//! the routes before is parsed at all (see [`crate::dump`]).

use std::collections::HashSet;
use std::net::IpAddr;

use ipnetwork::IpNetwork;

use crate::attribute::{self, Attribute, Attributes};
use crate::route::{Family, NextHop, Route, RouteChange, RouteKey, RouteKind};

/// `RTM_NEWROUTE`.
pub(crate) const NEW: u16 = 24;
/// `RTM_DELROUTE`.
pub(crate) const DELETE: u16 = 25;
/// `RTM_GETROUTE`.
pub(crate) const GET: u16 = 26;

/// `struct rtmsg`: family, lengths of destination and source, tos, table, protocol, scope, type, flags.
pub(crate) const HEADER: usize = 12;
/// Where in it the length of the destination is.
pub(crate) const DESTINATION_LENGTH: usize = 1;

pub(crate) const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PRIORITY: u16 = 6;
const RTA_PREFSRC: u16 = 7;
const RTA_METRICS: u16 = 8;
const RTA_MULTIPATH: u16 = 9;
/// Ages and counters of the one route.
pub(crate) const RTA_CACHEINFO: u16 = 12;
pub(crate) const RTA_TABLE: u16 = 15;
const RTA_VIA: u16 = 18;
const RTA_NH_ID: u16 = 30;

const RTAX_MTU: u16 = 2;

/// `struct rtnexthop`: length, flags, weight less one, index.
const HOP_HEADER: usize = 8;

const RTNH_F_ONLINK: u8 = 4;
/// `RTM_F_CLONED`: an entry of the cache.
const CLONED: u32 = 0x200;

const SCOPE_UNIVERSE: u8 = 0;
const SCOPE_LINK: u8 = 253;
const SCOPE_HOST: u8 = 254;
const SCOPE_NOWHERE: u8 = 255;

fn type_number(kind: RouteKind) -> u8 {
    match kind {
        RouteKind::Unicast => libc::RTN_UNICAST,
        RouteKind::Local => libc::RTN_LOCAL,
        RouteKind::Blackhole => libc::RTN_BLACKHOLE,
        RouteKind::Unreachable => libc::RTN_UNREACHABLE,
        RouteKind::Prohibit => libc::RTN_PROHIBIT,
        RouteKind::Throw => libc::RTN_THROW,
        RouteKind::Other(number) => number,
    }
}

fn kind_of(number: u8) -> RouteKind {
    match number {
        libc::RTN_UNICAST => RouteKind::Unicast,
        libc::RTN_LOCAL => RouteKind::Local,
        libc::RTN_BLACKHOLE => RouteKind::Blackhole,
        libc::RTN_UNREACHABLE => RouteKind::Unreachable,
        libc::RTN_PROHIBIT => RouteKind::Prohibit,
        libc::RTN_THROW => RouteKind::Throw,
        other => RouteKind::Other(other),
    }
}

/// The nexthop objects on which there is, or was, an IPv4 route with an MTU.
///
/// Linux takes an IPv4 route without metrics for the same as any other on that object, whatever the other's MTU, and
/// gives it that MTU (`fib_find_info_nh`). Metrics that are there, but empty, make it look closer, which costs time.
pub(crate) type Metered = HashSet<u32, foldhash::fast::RandomState>;

/// Takes notice of a route for [`Metered`].
pub(crate) fn note_metrics(metered: &mut Metered, route: &Route) {
    if let (Some(_), Some(id), Family::Ipv4) = (route.mtu, route.nexthop_id, route.key.family()) {
        metered.insert(id);
    }
}

/// Appends the body of the request for a change; its message type and flags besides `NLM_F_REQUEST`.
pub(crate) fn put_change(out: &mut Vec<u8>, change: &RouteChange, metered: &mut Metered) -> (u16, u16) {
    match change {
        RouteChange::Add(route) => {
            put_route(out, route, metered);
            (NEW, (libc::NLM_F_CREATE | libc::NLM_F_EXCL) as u16)
        }
        RouteChange::Replace(route) => {
            put_route(out, route, metered);
            (NEW, (libc::NLM_F_CREATE | libc::NLM_F_REPLACE) as u16)
        }
        RouteChange::Delete { key, protocol } => {
            // Any scope and any type: the key, the metric and the protocol say enough.
            put_key(out, key, *protocol, SCOPE_NOWHERE, 0, 0);
            (DELETE, 0)
        }
    }
}

/// Appends header and key.
#[inline]
fn put_key(out: &mut Vec<u8>, key: &RouteKey, protocol: u8, scope: u8, kind: u8, flags: u8) {
    let table = u8::try_from(key.table).unwrap_or(libc::RT_TABLE_UNSPEC);
    let family = super::family_number(key.family());
    let length = key.destination.prefix();
    out.extend_from_slice(&[family, length, 0, key.tos, table, protocol, scope, kind]);
    out.extend_from_slice(&u32::from(flags).to_ne_bytes());
    if length > 0 {
        match key.destination {
            // A fixed length each, so that no call is made for the copy.
            IpNetwork::V4(network) => {
                attribute::put_u32(out, RTA_DST, u32::from_ne_bytes(network.network().octets()));
            }
            IpNetwork::V6(network) => attribute::put(out, RTA_DST, &network.network().octets()),
        }
    }
    if table == libc::RT_TABLE_UNSPEC {
        attribute::put_u32(out, RTA_TABLE, key.table);
    }
    attribute::put_u32(out, RTA_PRIORITY, key.metric);
}

fn put_route(out: &mut Vec<u8>, route: &Route, metered: &mut Metered) {
    let family = route.key.family();
    let unicast = route.kind == RouteKind::Unicast;
    let scope = match (family, route.kind) {
        (Family::Ipv4, RouteKind::Local) => SCOPE_HOST,
        (Family::Ipv4, RouteKind::Unicast)
            if route.nexthop_id.is_none() && route.next_hops.iter().all(|hop| hop.gateway.is_none()) =>
        {
            SCOPE_LINK
        }
        _ => SCOPE_UNIVERSE,
    };
    let flags = match &route.next_hops[..] {
        [hop] if unicast && hop.onlink => RTNH_F_ONLINK,
        _ => 0,
    };
    put_key(out, &route.key, route.protocol, scope, type_number(route.kind), flags);
    if let Some(id) = route.nexthop_id {
        // What a dump shows of the object goes without saying, and the kernel refuses to be told.
        attribute::put_u32(out, RTA_NH_ID, id);
    } else {
        match &route.next_hops[..] {
            [] => {}
            [hop] => {
                put_gateway(out, family, hop.gateway);
                attribute::put_u32(out, RTA_OIF, hop.ifindex);
            }
            hops => attribute::nest(out, RTA_MULTIPATH, |out| {
                hops.iter().for_each(|hop| put_hop(out, family, hop));
            }),
        }
    }
    if let Some(source) = route.preferred_source {
        attribute::put_address(out, RTA_PREFSRC, source);
    }
    if let Some(mtu) = route.mtu {
        attribute::nest(out, RTA_METRICS, |out| attribute::put_u32(out, RTAX_MTU, mtu));
        note_metrics(metered, route);
    } else if !metered.is_empty() && route.nexthop_id.is_some_and(|id| metered.contains(&id)) {
        attribute::put(out, RTA_METRICS, &[]);
    }
}

fn put_hop(out: &mut Vec<u8>, family: Family, hop: &NextHop) {
    let start = out.len();
    let weight = u8::try_from(hop.weight.saturating_sub(1)).unwrap_or(u8::MAX);
    out.extend_from_slice(&[0, 0, if hop.onlink { RTNH_F_ONLINK } else { 0 }, weight]);
    out.extend_from_slice(&hop.ifindex.to_ne_bytes());
    put_gateway(out, family, hop.gateway);
    let length = (out.len() - start) as u16;
    out[start..start + 2].copy_from_slice(&length.to_ne_bytes());
}

fn put_gateway(out: &mut Vec<u8>, family: Family, gateway: Option<IpAddr>) {
    match gateway {
        Some(IpAddr::V4(gateway)) => attribute::put(out, RTA_GATEWAY, &gateway.octets()),
        Some(IpAddr::V6(gateway)) if family == Family::Ipv6 => {
            attribute::put(out, RTA_GATEWAY, &gateway.octets());
        }
        Some(IpAddr::V6(gateway)) => {
            // RFC 8950: an IPv4 route through an IPv6 router. `struct rtvia`: the family, then the address.
            let mut via = [0; 18];
            via[..2].copy_from_slice(&(libc::AF_INET6 as u16).to_ne_bytes());
            via[2..].copy_from_slice(&gateway.octets());
            attribute::put(out, RTA_VIA, &via);
        }
        None => {}
    }
}

/// The body of a request for all routes of one table and family.
pub(crate) fn dump(family: Family, table: u32) -> Vec<u8> {
    let mut body = vec![0; HEADER];
    body[0] = super::family_number(family);
    body[4] = u8::try_from(table).unwrap_or(libc::RT_TABLE_UNSPEC);
    attribute::put_u32(&mut body, RTA_TABLE, table);
    body
}

/// Whether the head is that of an entry of the cache.
#[inline]
pub(crate) fn cloned(header: &[u8; HEADER]) -> bool {
    u32::from_ne_bytes([header[8], header[9], header[10], header[11]]) & CLONED != 0
}

/// The destination of a route of that family, given what its `RTA_DST` holds.
#[inline]
pub(crate) fn destination(family: Family, address: Option<&[u8]>, length: u8) -> Option<IpNetwork> {
    match family {
        Family::Ipv4 => {
            let octets: [u8; 4] = address.map_or(Some([0; 4]), |bytes| bytes.try_into().ok())?;
            ipnetwork::Ipv4Network::new(octets.into(), length).ok().map(IpNetwork::V4)
        }
        Family::Ipv6 => {
            let octets: [u8; 16] = address.map_or(Some([0; 16]), |bytes| bytes.try_into().ok())?;
            ipnetwork::Ipv6Network::new(octets.into(), length).ok().map(IpNetwork::V6)
        }
    }
}

/// Reads `RTM_NEWROUTE` or `RTM_DELROUTE`. `None`: neither IPv4 nor IPv6, a cached entry, or undecodable.
pub(crate) fn parse(payload: &[u8]) -> Option<Route> {
    let (header, attributes) = payload.split_first_chunk::<HEADER>()?;
    let [number, length, _, tos, table, protocol, _, kind, flags, ..] = *header;
    let family = super::family_from(number)?;
    if cloned(header) {
        return None;
    }
    let mut to = None;
    let mut route = Route {
        key: RouteKey { table: table.into(), destination: destination(family, None, 0)?, tos, metric: 0 },
        protocol,
        kind: kind_of(kind),
        next_hops: Vec::new(),
        preferred_source: None,
        mtu: None,
        nexthop_id: None,
    };
    let mut single = NextHop { gateway: None, ifindex: 0, weight: 1, onlink: flags & RTNH_F_ONLINK != 0 };
    for attribute in Attributes(attributes) {
        match attribute.kind {
            RTA_TABLE => route.key.table = attribute.number()?,
            RTA_DST => to = Some(attribute.value),
            RTA_PRIORITY => route.key.metric = attribute.number()?,
            RTA_GATEWAY | RTA_VIA => single.gateway = parse_gateway(&attribute),
            RTA_OIF => single.ifindex = attribute.number()?,
            RTA_MULTIPATH => route.next_hops = parse_hops(attribute.value),
            RTA_PREFSRC => route.preferred_source = attribute.address(),
            RTA_NH_ID => route.nexthop_id = attribute.number(),
            RTA_METRICS => {
                let mut metrics = Attributes(attribute.value);
                route.mtu = metrics.find(|metric| metric.kind == RTAX_MTU).and_then(|mtu| mtu.number());
            }
            _ => {}
        }
    }
    route.key.destination = destination(family, to, length)?;
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

fn parse_gateway(attribute: &Attribute<'_>) -> Option<IpAddr> {
    match attribute.kind {
        RTA_GATEWAY => attribute.address(),
        RTA_VIA => attribute.value.get(2..).and_then(attribute::address),
        _ => None,
    }
}

fn parse_hops(mut bytes: &[u8]) -> Vec<NextHop> {
    let mut hops = Vec::new();
    while let Some(&[a, b, flags, weight, c, d, e, f]) = bytes.first_chunk::<HOP_HEADER>() {
        let length = usize::from(u16::from_ne_bytes([a, b]));
        let Some(attributes) = bytes.get(HOP_HEADER..length) else { break };
        hops.push(NextHop {
            gateway: Attributes(attributes).find_map(|attribute| parse_gateway(&attribute)),
            ifindex: u32::from_ne_bytes([c, d, e, f]),
            weight: u16::from(weight) + 1,
            onlink: flags & RTNH_F_ONLINK != 0,
        });
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    hops
}
