//! Routes as Linux keeps them. Pure types.

use std::fmt;
use std::net::IpAddr;

use ipnetwork::IpNetwork;

/// The main table (`RT_TABLE_MAIN`).
pub const MAIN_TABLE: u32 = 254;

/// The protocol number of Causeway's routes (`rtm_protocol`), unless `routeProtocol` says otherwise.
pub const ROUTE_PROTOCOL: u8 = 179;

/// The metric of Causeway's routes (`RTA_PRIORITY`), unless `routeMetric` says otherwise. It is part of the kernel's
/// key, so that our routes share none with anybody else's.
pub const ROUTE_METRIC: u32 = 1790;

/// An address family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
}

impl Family {
    /// Both.
    pub const ALL: [Family; 2] = [Family::Ipv4, Family::Ipv6];

    /// The family of an address.
    pub fn of(address: &IpAddr) -> Family {
        if address.is_ipv4() { Family::Ipv4 } else { Family::Ipv6 }
    }

    /// The length of a host prefix: 32 or 128.
    pub fn bits(self) -> u8 {
        match self {
            Family::Ipv4 => 32,
            Family::Ipv6 => 128,
        }
    }
}

/// What makes a route one and the same for the kernel (`fib_find_alias`, `fib6_add_rt2node`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RouteKey {
    /// Routing table.
    pub table: u32,
    /// Destination without host bits.
    pub destination: IpNetwork,
    /// Type of service (IPv4 only; 0 otherwise).
    pub tos: u8,
    /// Metric. Where IPv6 is given 0, the kernel makes it 1024.
    pub metric: u32,
}

impl RouteKey {
    /// A key in the main table with Causeway's default metric.
    pub fn ours(destination: IpNetwork) -> RouteKey {
        RouteKey { table: MAIN_TABLE, destination, tos: 0, metric: ROUTE_METRIC }
    }

    /// The family of the destination.
    pub fn family(&self) -> Family {
        match self.destination {
            IpNetwork::V4(_) => Family::Ipv4,
            IpNetwork::V6(_) => Family::Ipv6,
        }
    }
}

/// One way a unicast route goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NextHop {
    /// The router; `None`: the destination is on the link. It may be of another family (`RTA_VIA`, RFC 8950).
    pub gateway: Option<IpAddr>,
    /// The device.
    pub ifindex: u32,
    /// Share of the flows, from 1 (`rtnh_hops` + 1).
    pub weight: u16,
    /// Take the gateway as on-link even if no connected subnet has it.
    pub onlink: bool,
}

impl NextHop {
    /// Through a router.
    pub fn gateway(gateway: IpAddr, ifindex: u32) -> NextHop {
        NextHop { gateway: Some(gateway), ifindex, weight: 1, onlink: false }
    }

    /// Straight onto a link.
    pub fn device(ifindex: u32) -> NextHop {
        NextHop { gateway: None, ifindex, weight: 1, onlink: false }
    }
}

/// The type of a route (`RTN_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RouteKind {
    /// A gateway or device.
    Unicast,
    /// An address of this node.
    Local,
    /// Drop and say host unreachable.
    Unreachable,
    /// Drop in silence.
    Blackhole,
    /// Drop and say prohibited.
    Prohibit,
    /// Go on with the next table.
    Throw,
    /// Any other, by number.
    Other(u8),
}

/// A route.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Route {
    /// The key.
    pub key: RouteKey,
    /// Who made it (`RTPROT_*`).
    pub protocol: u8,
    /// Its type.
    pub kind: RouteKind,
    /// Where it goes, sorted; empty unless unicast (or local).
    pub next_hops: Vec<NextHop>,
    /// Source address for packets of the node itself.
    pub preferred_source: Option<IpAddr>,
    /// Path MTU of the route.
    pub mtu: Option<u32>,
    /// The nexthop object it uses (`RTA_NH_ID`).
    pub nexthop_id: Option<u32>,
}

impl Route {
    /// A unicast route of ours with the default protocol and metric.
    pub fn unicast(destination: IpNetwork, mut next_hops: Vec<NextHop>) -> Route {
        next_hops.sort_unstable();
        Route {
            key: RouteKey::ours(destination),
            protocol: ROUTE_PROTOCOL,
            kind: RouteKind::Unicast,
            next_hops,
            preferred_source: None,
            mtu: None,
            nexthop_id: None,
        }
    }

    /// The route to a local pod: its address as /32 or /128 onto its host-side device. The CNI plugin and fib-sync
    /// both make it with this function, so that neither sees the other's as wrong.
    pub fn pod(address: IpAddr, ifindex: u32) -> Route {
        Route::unicast(IpNetwork::from(address), vec![NextHop::device(ifindex)])
    }

    /// The `unreachable` route for a block of this node, so that unused addresses do not loop.
    pub fn unreachable(destination: IpNetwork) -> Route {
        Route { kind: RouteKind::Unreachable, ..Route::unicast(destination, Vec::new()) }
    }
}

/// One change to the routes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RouteChange {
    /// Add; refused with EEXIST when the key is taken by anybody (`NLM_F_CREATE | NLM_F_EXCL`, never `APPEND`).
    Add(Route),
    /// Replace what has that key. Only for keys whose last dump shows a route of ours.
    Replace(Route),
    /// Delete the route of that key and protocol; refused with ESRCH when there is none.
    Delete {
        /// The key.
        key: RouteKey,
        /// The protocol; a route of another protocol with that key stays.
        protocol: u8,
    },
}

impl RouteChange {
    /// The key it is about.
    pub fn key(&self) -> &RouteKey {
        match self {
            RouteChange::Add(route) | RouteChange::Replace(route) => &route.key,
            RouteChange::Delete { key, .. } => key,
        }
    }
}

impl fmt::Display for RouteChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match self {
            RouteChange::Add(_) => "add",
            RouteChange::Replace(_) => "replace",
            RouteChange::Delete { .. } => "delete",
        };
        write!(f, "{word} route {} metric {}", self.key().destination, self.key().metric)
    }
}

/// The name `ip route` shows for a protocol number (iproute2's `rt_protos`), or the number.
pub fn protocol_name(protocol: u8) -> String {
    let name = match protocol {
        0 => "unspec",
        1 => "redirect",
        2 => "kernel",
        3 => "boot",
        4 => "static",
        8 => "gated",
        9 => "ra",
        10 => "mrt",
        11 => "zebra",
        12 => "bird",
        16 => "dhcp",
        18 => "keepalived",
        42 => "babel",
        186 => "bgp",
        187 => "isis",
        188 => "ospf",
        189 => "rip",
        192 => "eigrp",
        other => return other.to_string(),
    };
    name.to_owned()
}
