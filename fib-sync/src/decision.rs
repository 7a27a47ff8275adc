//! Direct, tunnel, recursive or drop: the way to one BGP next hop for the prefixes of one pool, with its reason. Pure.
//!
//! Owner of the rule that both ends of a tunnel compute by themselves and must agree about. The rows, the first that
//! holds:
//!
//! | the pool's mode | the next hop | decision |
//! |---|---|---|
//! | Always | an endpoint that resolves | tunnel |
//! | CrossSubnet, both zones known | zones differ, an endpoint that resolves | tunnel |
//! | CrossSubnet, a zone unknown | in no connected subnet, an endpoint that resolves | tunnel |
//! | any of these three | an endpoint that does not resolve | drop |
//! | any | in a connected subnet | direct |
//! | any | behind a router | recursive |
//! | any | unresolved | drop |
//!
//! An endpoint is a node's address, or what a Tunnel Encapsulation attribute names (RFC 9012). What the attribute asks
//! for is used where the pool asks for a tunnel and nowhere else: the pool is the local policy of RFC 9012 section 6.

use std::fmt;
use std::net::IpAddr;

use causeway_kernel::{Family, Mac};

use crate::next_hop::Resolution;

/// Whether packets to a pool go into tunnels.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TunnelMode {
    /// They do not.
    #[default]
    Never,
    /// Into IP-in-IP between IPv4 addresses, into VXLAN between IPv6 addresses.
    Ipip(When),
    /// Into VXLAN.
    Vxlan(When),
}

/// When packets go into a tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum When {
    /// Where the next hop is in another subnet, or in another zone where both zones are known.
    CrossSubnet,
    /// Wherever the next hop is a tunnel endpoint.
    Always,
}

impl TunnelMode {
    /// When packets go into a tunnel; `None`: never.
    pub fn when(self) -> Option<When> {
        match self {
            TunnelMode::Never => None,
            TunnelMode::Ipip(when) | TunnelMode::Vxlan(when) => Some(when),
        }
    }
}

impl fmt::Display for TunnelMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TunnelMode::Never => "no tunnel mode",
            TunnelMode::Ipip(When::CrossSubnet) => "ipipMode CrossSubnet",
            TunnelMode::Ipip(When::Always) => "ipipMode Always",
            TunnelMode::Vxlan(When::CrossSubnet) => "vxlanMode CrossSubnet",
            TunnelMode::Vxlan(When::Always) => "vxlanMode Always",
        })
    }
}

/// A kind of tunnel, which is one device of the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// IPv4 in IPv4 (RFC 2003).
    Ipip,
    /// VXLAN (RFC 7348) over IPv4.
    Vxlan,
    /// VXLAN over IPv6.
    Vxlan6,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Kind; 3] = [Kind::Ipip, Kind::Vxlan, Kind::Vxlan6];

    /// The device's name.
    pub fn device(self) -> &'static str {
        match self {
            Kind::Ipip => "causeway-ipip",
            Kind::Vxlan => "causeway-vxlan",
            Kind::Vxlan6 => "causeway-vxlan6",
        }
    }

    /// What the tunnel adds to a packet, in bytes: outer IP header, and for VXLAN UDP, VXLAN and Ethernet header.
    pub fn overhead(self) -> u32 {
        match self {
            Kind::Ipip => 20,
            Kind::Vxlan => 50,
            Kind::Vxlan6 => 70,
        }
    }

    /// The family of the outer packets.
    pub fn outer(self) -> Family {
        match self {
            Kind::Ipip | Kind::Vxlan => Family::Ipv4,
            Kind::Vxlan6 => Family::Ipv6,
        }
    }

    /// Whether it has neighbours and forwarding entries with Ethernet addresses.
    pub fn is_vxlan(self) -> bool {
        matches!(self, Kind::Vxlan | Kind::Vxlan6)
    }

    /// VXLAN between addresses of that family.
    pub fn vxlan_over(outer: Family) -> Kind {
        match outer {
            Family::Ipv4 => Kind::Vxlan,
            Family::Ipv6 => Kind::Vxlan6,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Ipip => "IP-in-IP",
            Kind::Vxlan => "VXLAN",
            Kind::Vxlan6 => "VXLAN over IPv6",
        })
    }
}

/// Where a tunnel to a next hop ends.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Target {
    /// The node's name, or `RFC 9012 attribute`.
    pub name: String,
    /// Destination of the outer packets.
    pub address: IpAddr,
    /// The node's zone.
    pub zone: Option<String>,
    /// The kind of tunnel the attribute asks for, whatever the family of `address`; takes the place of the pool's.
    pub kind: Option<Kind>,
    /// The Ethernet address the attribute gives for VXLAN.
    pub mac: Option<Mac>,
    /// The VXLAN network identifier the attribute gives.
    pub vni: Option<u32>,
}

/// What the decision depends on, and nothing else does it depend on.
#[derive(Debug, Clone, Copy)]
pub struct Inputs<'a> {
    /// The pool, for the reason; `None`: the prefix lies in no enabled pool.
    pub pool: Option<&'a str>,
    /// The pool's mode; Never for a prefix in none.
    pub mode: TunnelMode,
    /// The family of the prefix.
    pub family: Family,
    /// The BGP next hop.
    pub next_hop: IpAddr,
    /// How it is reached.
    pub resolution: &'a Resolution,
    /// The name of the device of `resolution`, for the reason.
    pub device: &'a str,
    /// Where a tunnel to it would end; `None`: it is no node and its path has no tunnel attribute.
    pub endpoint: Option<&'a Target>,
    /// How `endpoint.address` is reached: `resolution` where that is the next hop itself, as it is but for attributes.
    pub outer: &'a Resolution,
    /// This node's zone.
    pub own_zone: Option<&'a str>,
    /// The VXLAN network identifier of this node's device, which has one.
    pub vni: u32,
}

/// Which way packets go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Decision {
    /// Over the link, to the next hop.
    Direct,
    /// Into a tunnel, to the endpoint.
    Tunnel(Kind),
    /// To the router that leads to the next hop.
    Recursive,
    /// Nowhere.
    Drop,
}

/// A decision with its reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decided {
    /// Which way.
    pub decision: Decision,
    /// Why, for people.
    pub reason: String,
}

/// Decides.
pub fn decide(inputs: &Inputs<'_>) -> Decided {
    match wanted(inputs) {
        Ok(why) => match tunnel(inputs, &why) {
            Ok(decided) => decided,
            Err(obstacle) => without_tunnel(inputs, Some(&format!("not tunnelled: {obstacle}"))),
        },
        Err(why_not) => without_tunnel(inputs, why_not.as_deref()),
    }
}

/// Whether the pool wants a tunnel here, and the words for it: why, or why not where that needs saying.
fn wanted(inputs: &Inputs<'_>) -> Result<String, Option<String>> {
    let Inputs { mode, next_hop, .. } = inputs;
    let Some(when) = mode.when() else {
        return Err(None);
    };
    let pool = format!("pool {}: {mode}", inputs.pool.unwrap_or("?"));
    if when == When::Always {
        return Ok(pool);
    }
    let zones = inputs.own_zone.zip(inputs.endpoint.and_then(|endpoint| endpoint.zone.as_deref()));
    let connected = matches!(inputs.resolution, Resolution::Connected { .. });
    match zones {
        Some((own, other)) if own == other => {
            Err(Some(format!("{pool} and {next_hop} is in the same zone {own}")))
        }
        Some((own, other)) => Ok(format!("{pool} and {next_hop} is in zone {other}, this node in {own}")),
        None if connected => Err(None),
        None => Ok(format!("{pool} and {next_hop} is in another subnet")),
    }
}

/// The tunnel that is wanted for the reason `why`, or what stands in its way.
fn tunnel(inputs: &Inputs<'_>, why: &str) -> Result<Decided, String> {
    let next_hop = inputs.next_hop;
    let Some(endpoint) = inputs.endpoint else {
        return Err(format!("{next_hop} is no node and has no tunnel attribute"));
    };
    let (kind, why_not_ipip) = kind(inputs, endpoint)?;
    let to = match endpoint.address == next_hop {
        true => endpoint.name.clone(),
        false => format!("{} of the {}", endpoint.address, endpoint.name),
    };
    if *inputs.outer == Resolution::Unreachable {
        let reason = format!(
            "tunnel endpoint {} unreachable: no live route to it ({why}: {kind} to {to})",
            endpoint.address
        );
        return Ok(Decided { decision: Decision::Drop, reason });
    }
    let because = match why_not_ipip {
        Some(because) => format!("; IPv6 endpoint, so not IP-in-IP, because {because}"),
        None => String::new(),
    };
    Ok(Decided { decision: Decision::Tunnel(kind), reason: format!("{why}: {kind} to {to}{because}") })
}

/// Why there is no IP-in-IP between IPv6 addresses: such a device takes the outer destination from the route's gateway.
const NO_IPIP_OVER_IPV6: &str = "Linux refuses an IPv6 gateway that a route through another device leads to";

/// The kind of tunnel, with the reason where the pool says IP-in-IP and it is another; or why there is none.
fn kind(inputs: &Inputs<'_>, endpoint: &Target) -> Result<(Kind, Option<&'static str>), String> {
    let to = endpoint.address;
    let outer = Family::of(&to);
    let by_pool = endpoint.kind.is_none();
    let ipip = match endpoint.kind {
        Some(kind) => !kind.is_vxlan(),
        None => matches!(inputs.mode, TunnelMode::Ipip(_)),
    };
    if let Some(vni) = endpoint.vni.filter(|vni| !ipip && *vni != inputs.vni) {
        return Err(format!("the attribute asks for VNI {vni}, and this node's is {}", inputs.vni));
    }
    match (inputs.family, outer) {
        _ if !ipip => Ok((Kind::vxlan_over(outer), None)),
        (Family::Ipv4, Family::Ipv4) => Ok((Kind::Ipip, None)),
        (_, Family::Ipv6) if by_pool => Ok((Kind::Vxlan6, Some(NO_IPIP_OVER_IPV6))),
        // What the far end takes is what the attribute says, so nothing takes its place.
        (_, Family::Ipv6) => {
            Err(format!("the attribute asks for IP-in-IP to {to}, an IPv6 address, and {NO_IPIP_OVER_IPV6}"))
        }
        (Family::Ipv6, Family::Ipv4) if by_pool => {
            Err(format!("IP-in-IP to {to}, an IPv4 address, cannot carry IPv6; vxlanMode can"))
        }
        (Family::Ipv6, Family::Ipv4) => {
            Err(format!("the attribute asks for IP-in-IP to {to}, an IPv4 address, which cannot carry IPv6"))
        }
    }
}

/// The way without a tunnel. `because`: why there is none, where that needs saying.
fn without_tunnel(inputs: &Inputs<'_>, because: Option<&str>) -> Decided {
    let Inputs { next_hop, device, .. } = inputs;
    let (decision, way) = match inputs.resolution {
        Resolution::Connected { .. } => {
            (Decision::Direct, format!("next hop in a connected subnet ({device})"))
        }
        Resolution::Gateway { gateway, .. } => {
            (Decision::Recursive, format!("{next_hop} lies behind {gateway} ({device})"))
        }
        Resolution::Unreachable => {
            (Decision::Drop, format!("next hop {next_hop} unreachable: no live route to it"))
        }
    };
    let reason = match (because, decision) {
        (None, _) => way,
        (Some(because), Decision::Recursive) => format!("{because}; recursive: {way}"),
        (Some(because), _) => format!("{because}; {way}"),
    };
    Decided { decision, reason }
}

#[cfg(test)]
mod tests;
