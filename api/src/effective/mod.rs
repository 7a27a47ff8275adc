//! What the documents come down to for one node: every default applied, every selector answered, every name resolved.
//!
//! `causeway check` prints it, `bgpd` lowers it to the speaker's own configuration nearly field by field. One pure
//! function, [`resolve`]; whatever it refuses it traces back to the document and its line.

mod node;
mod peers;

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use ipnetwork::{Ipv4Network, Ipv6Network};
use serde::{Serialize, Serializer};

use crate::document_set::{DocumentSet, Errors};
use crate::resource::bgp_configuration::{LogSeverity, MtuMode};
use crate::resource::bgp_peer::NextHopMode;
use crate::resource::community::Community;
use crate::resource::ip_pool::EncapMode;
use crate::resource::meta::AddressFamily;
use crate::resource::scalar::{Cidr, PeerAsn, TimeSpan};
use crate::resource::{BGPFilterSpec, NodeSpec, Object, bgp_peer};

/// VXLAN network identifier where no document names one.
pub const VXLAN_VNI: u32 = 4096;
/// UDP port of VXLAN where no document names one (RFC 7348 section 5).
pub const VXLAN_PORT: u16 = 4789;

/// Which daemon asks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub enum Role {
    /// A node of the fabric.
    #[default]
    Node,
    /// A pure route reflector: no blocks of its own, no kernel.
    Reflector,
}

/// Everything the documents say about one node.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EffectiveNode {
    /// Its name.
    pub node: String,
    /// In which role.
    pub role: Role,
    /// Its AS number.
    pub as_number: u32,
    /// Its BGP identifier.
    #[serde(rename = "routerID")]
    pub router_id: Ipv4Addr,
    /// Set where it reflects.
    #[serde(rename = "routeReflectorClusterID", skip_serializing_if = "Option::is_none")]
    pub cluster_id: Option<Ipv4Addr>,
    /// Its IPv4 address with the length of the subnet.
    pub ipv4_address: Option<Ipv4Network>,
    /// Its IPv6 address with the length of the subnet.
    pub ipv6_address: Option<Ipv6Network>,
    /// Where the speaker listens.
    pub listen: Listen,
    /// Restart time announced (RFC 4724); `None`: graceful restart is off.
    pub graceful_restart_time: Option<TimeSpan>,
    /// Most equal paths for one prefix.
    pub max_paths: u16,
    /// How kernel routes are made.
    pub routes: RouteSettings,
    /// Least severity logged.
    pub log_severity: LogSeverity,
    /// Its own blocks.
    pub blocks: Vec<Block>,
    /// The pools; the default policy imports what lies inside the enabled ones.
    pub pools: Vec<Pool>,
    /// What its tunnels have in common.
    pub tunnels: Tunnels,
    /// Its peers.
    pub peers: Vec<Peer>,
    /// Ranges from which peers may connect.
    pub peer_ranges: Vec<PeerRange>,
    /// Host routes to peers that are behind a gateway (`reachableBy`).
    pub host_routes: Vec<HostRoute>,
    /// The filters its peers name.
    pub filters: BTreeMap<String, BGPFilterSpec>,
    /// How addresses, AS number and identifier were chosen, a line each.
    pub chosen: Vec<String>,
    /// What was left out, and why.
    pub notes: Vec<String>,
    /// Nodes whose idea of the subnet differs from this one's.
    pub subnet_mismatches: Vec<String>,
}

/// Where the speaker listens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Listen {
    /// TCP port.
    pub port: u16,
    /// Addresses; none: all.
    pub addresses: Vec<IpAddr>,
}

/// How kernel routes are made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RouteSettings {
    /// Their metric.
    pub metric: u32,
    /// Their protocol number.
    pub protocol: u8,
    /// Interfaces that are no underlay.
    pub ignored_interfaces: Vec<String>,
    /// Where a smaller MTU of tunnels takes effect.
    pub mtu_mode: MtuMode,
    /// Whether the TCP MSS of what goes into a tunnel is clamped.
    #[serde(rename = "clampMSS")]
    pub clamp_mss: bool,
}

/// What the tunnels of a node have in common.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Tunnels {
    /// The label of Nodes that names their zone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zone_label: Option<String>,
    /// The zone of this node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// VXLAN network identifier.
    #[serde(rename = "vxlanVNI")]
    pub vxlan_vni: u32,
    /// UDP port of VXLAN.
    pub vxlan_port: u16,
    /// How many addresses of other nodes a tunnel can lead to.
    pub endpoints: usize,
}

impl Tunnels {
    /// The zone of a node, where there is a `zoneLabel` and it bears it; an empty one counts as none.
    pub fn zone_of<'a>(&self, node: &'a Object<NodeSpec>) -> Option<&'a str> {
        let zone = node.metadata.labels.get(self.zone_label.as_deref()?)?;
        (!zone.is_empty()).then_some(zone.as_str())
    }
}

/// An own block.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Block {
    /// The prefix.
    pub cidr: Cidr,
    /// The pool it lies in.
    pub pool: String,
    /// False where the pool has `disableBGPExport`.
    pub advertised: bool,
    /// Communities it is advertised with, sorted.
    pub communities: Vec<Community>,
}

/// A pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Pool {
    /// Its name.
    pub name: String,
    /// Its range.
    pub cidr: Cidr,
    /// Whether it is enabled.
    pub enabled: bool,
    /// Whether its blocks may be advertised.
    pub advertised: bool,
    /// Length of claimed blocks.
    pub block_size: u8,
    /// When packets to it go into IP-in-IP.
    pub ipip_mode: EncapMode,
    /// When packets to it go into VXLAN.
    pub vxlan_mode: EncapMode,
    /// Whether packets from it to what is in no pool get the node's address.
    pub nat_outgoing: bool,
}

/// A peer.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Peer {
    /// Its address.
    pub address: IpAddr,
    /// Its TCP port.
    pub port: u16,
    /// Everything else.
    #[serde(flatten)]
    pub settings: PeerSettings,
}

/// A range of addresses from which peers may connect.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PeerRange {
    /// The range.
    pub range: Cidr,
    /// What each of them gets.
    #[serde(flatten)]
    pub settings: PeerSettings,
}

/// Everything about a peer but its address.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PeerSettings {
    /// Where it comes from: `BGPPeer tor-a`, `mesh node-b1`.
    pub name: String,
    /// AS number it must have.
    pub remote_as: PeerAsn,
    /// AS number shown to it.
    pub local_as: u32,
    /// Families offered.
    pub families: Vec<AddressFamily>,
    /// Local address; `None`: what the kernel chooses.
    pub source: Option<IpAddr>,
    /// Only accept, never connect.
    pub passive: bool,
    /// How far away it may be.
    pub distance: Distance,
    /// Hold time proposed.
    pub hold_time: TimeSpan,
    /// Interval of keepalives.
    pub keepalive_time: TimeSpan,
    /// Time between attempts to connect.
    pub connect_retry_time: TimeSpan,
    /// TCP MD5 password.
    pub password: Password,
    /// Restart time announced to it; `None`: graceful restart is off.
    pub graceful_restart_time: Option<TimeSpan>,
    /// Longest time its paths are retained.
    pub max_restart_time: TimeSpan,
    /// Next hop of what it is sent.
    pub next_hop_mode: NextHopMode,
    /// Whether it is a client of this reflector.
    pub reflector_client: bool,
    /// How often our AS number may stand in a received AS_PATH.
    #[serde(rename = "numAllowedLocalASNumbers")]
    pub allowed_local_as: u8,
    /// Limits on received prefixes, the default of `warnAt` applied.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_prefixes: Option<bgp_peer::MaxPrefixes>,
    /// Gateway towards it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reachable_by: Option<IpAddr>,
    /// Names of filters, in order.
    pub filters: Vec<String>,
}

/// How far away a peer may be; printed as a map of one entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Distance {
    /// Packets leave with this TTL.
    Ttl(u8),
    /// GTSM (RFC 5082): at most so many hops.
    TtlSecurity(u8),
}

impl Serialize for Distance {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Distance::Ttl(ttl) => serializer.collect_map([("ttl", ttl)]),
            Distance::TtlSecurity(hops) => serializer.collect_map([("ttlSecurity", hops)]),
        }
    }
}

/// A TCP MD5 password; printed without its text.
#[derive(Clone, PartialEq, Eq)]
pub enum Password {
    /// None asked for.
    None,
    /// This one.
    Key(String),
    /// One is asked for and is not there: the session stays down, with this reason.
    Missing(String),
}

impl fmt::Display for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Password::None => f.write_str("none"),
            Password::Key(_) => f.write_str("set"),
            Password::Missing(reason) => write!(f, "missing: {reason}"),
        }
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Password {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A host route to a peer behind a gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HostRoute {
    /// The peer.
    pub destination: IpAddr,
    /// The gateway.
    pub gateway: IpAddr,
}

/// Resolves the documents for one node.
///
/// # Errors
/// There is no Node of that name, or documents that are valid by themselves contradict each other for this node. Each
/// error names its document and place.
pub fn resolve(documents: &DocumentSet, node: &str, role: Role) -> Result<EffectiveNode, Errors> {
    node::resolve(documents, node, role)
}

#[cfg(test)]
mod tests;
