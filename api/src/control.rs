//! The JSON of the local API: what `causeway show …` prints and what `curl --unix-socket` gets.
//!
//! Served by every daemon on its socket in the run folder (`bgpd.sock`, `fib-sync.sock`, `ipam.sock`), read by the CLI
//! and by the lab's scenarios. Pure types. Absent values are `null`, times are numbers of seconds.
//!
//! | socket | request | answer |
//! |---|---|---|
//! | `bgpd.sock` | `GET /v1/peers` | `[Peer]` |
//! | | `GET /v1/routes?direction=learned\|advertised\|best&peer=IP&family=ipv4\|ipv6&prefix=P&longer=true` | `[Route]` |
//! | | `GET /v1/routes?prefix=P` without a direction | every path of the prefix, `[Route]` |
//! | | `POST /v1/peers/PEER/reset\|disable\|enable`, body [`PeerCommand`] or empty | [`Done`], or [`Refusal`] |
//! | `fib-sync.sock` | `GET /v1/fib` | `[FibRoute]` |
//! | | `GET /v1/doctor/peers` | `[DoctorPeer]` |
//! | `ipam.sock` | `GET /v1/ipam` | [`Ipam`] |
//! | each | `GET /v1/node` | [`NodeInfo`], its own part of it |
//! | each | `GET /healthz`, `/readyz`, `/metrics` | text |

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

/// File name of bgpd's (and the reflector's) API socket in the run folder.
pub const BGPD_SOCKET: &str = "bgpd.sock";
/// File name of fib-sync's API socket in the run folder.
pub const FIB_SYNC_SOCKET: &str = "fib-sync.sock";
/// File name of the ipam agent's API socket in the run folder.
pub const IPAM_SOCKET: &str = "ipam.sock";
/// File name of the FIB feed's socket in the run folder (binary, see [`crate::fib`]).
pub const FIB_FEED_SOCKET: &str = "fib.sock";
/// The run folder where nothing else is said.
pub const DEFAULT_RUN_DIR: &str = "/run/causeway";

/// State of a session, in the words of RFC 4271 8.2.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SessionState {
    /// Refusing connections, waiting to start.
    Idle,
    /// Waiting for a TCP connection to complete.
    Connect,
    /// Listening, waiting to try again.
    Active,
    /// OPEN sent.
    OpenSent,
    /// OPEN received, waiting for KEEPALIVE.
    OpenConfirm,
    /// Exchanging UPDATEs.
    Established,
}

impl std::fmt::Display for SessionState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            SessionState::Idle => "Idle",
            SessionState::Connect => "Connect",
            SessionState::Active => "Active",
            SessionState::OpenSent => "OpenSent",
            SessionState::OpenConfirm => "OpenConfirm",
            SessionState::Established => "Established",
        })
    }
}

/// A row of `show peers`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Peer {
    /// Remote address, with its port where the document names one.
    pub peer: String,
    /// Where the peer comes from: `BGPPeer tor-a`, `mesh node-b1`, `range BGPPeer racks`.
    pub name: String,
    /// AS number of the peer: of the session, or as configured; null where any is allowed and none connected.
    pub remote_as: Option<u32>,
    /// AS number shown to the peer.
    pub local_as: u32,
    /// State of the session.
    pub state: SessionState,
    /// True where `causeway peer disable` holds it down.
    pub disabled: bool,
    /// Seconds since the session was established.
    pub uptime: Option<f64>,
    /// Hold time in force, in seconds, as negotiated.
    pub hold_time: Option<f64>,
    /// Keepalive interval in force, in seconds.
    pub keepalive_time: Option<f64>,
    /// Families in force.
    pub families: Vec<Family>,
    /// Prefixes the peer sent.
    pub received: u64,
    /// Of these, accepted.
    pub accepted: u64,
    /// Of these, stale: kept over a restart of the peer.
    pub stale: u64,
    /// Prefixes it was sent.
    pub advertised: u64,
    /// UPDATEs received from it since start.
    pub updates_received: u64,
    /// UPDATEs sent to it since start.
    pub updates_sent: u64,
    /// Times an Established session ended.
    pub resets: u64,
    /// Why the last session or attempt ended.
    pub last_error: Option<String>,
    /// BGP identifier of the peer.
    pub router_id: Option<String>,
    /// Local address of the session.
    pub local_address: Option<String>,
    /// What the peer sent in OPEN, in words: `ipv4`, `ipv6`, `route-refresh`, `4-octet-as`, `graceful-restart 120s`.
    pub capabilities: Vec<String>,
}

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// IPv4 unicast.
    Ipv4,
    /// IPv6 unicast.
    Ipv6,
}

impl std::fmt::Display for Family {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Family::Ipv4 => "ipv4",
            Family::Ipv6 => "ipv6",
        })
    }
}

/// Which table a route row is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// Adj-RIB-In: what peers sent, refused paths included.
    Learned,
    /// Adj-RIB-Out: what peers are sent, attributes as sent.
    Advertised,
    /// Loc-RIB: what won, own prefixes included.
    Best,
}

/// ORIGIN of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Origin {
    /// Interior.
    Igp,
    /// Learned by EGP.
    Egp,
    /// By other means.
    Incomplete,
}

/// An element of an AS_PATH: a number, or a set as an array.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum AsPathElement {
    /// One AS of a sequence.
    Asn(u32),
    /// An AS_SET.
    Set(Vec<u32>),
}

/// Which way packets of a route go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Via {
    /// To a next hop on a connected subnet.
    Direct,
    /// Through the IP-in-IP device.
    Ipip,
    /// Through the VXLAN device.
    Vxlan,
    /// Through a gateway that leads to the next hop.
    Recursive,
    /// This node's own: a block, a pod.
    Local,
}

impl std::fmt::Display for Via {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Via::Direct => "direct",
            Via::Ipip => "ipip",
            Via::Vxlan => "vxlan",
            Via::Recursive => "recursive",
            Via::Local => "local",
        })
    }
}

/// A row of `show routes`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Route {
    /// The prefix.
    pub prefix: IpNetwork,
    /// Its family.
    pub family: Family,
    /// Which table the row is from.
    pub direction: Direction,
    /// The peer it was learned from or is sent to; null: own.
    pub peer: Option<String>,
    /// AS number of that peer.
    pub peer_as: Option<u32>,
    /// BGP next hop.
    pub next_hop: Option<IpAddr>,
    /// AS_PATH.
    pub as_path: Vec<AsPathElement>,
    /// ORIGIN.
    pub origin: Origin,
    /// LOCAL_PREF, where the path has one.
    pub local_pref: Option<u32>,
    /// MULTI_EXIT_DISC, where the path has one.
    pub med: Option<u32>,
    /// Communities, `64512:100`.
    pub communities: Vec<String>,
    /// Large communities, `64512:1:2`.
    pub large_communities: Vec<String>,
    /// ORIGINATOR_ID of a reflected path.
    pub originator_id: Option<String>,
    /// CLUSTER_LIST of a reflected path.
    pub cluster_list: Vec<String>,
    /// True for the path that won.
    pub best: bool,
    /// True for every path that is installed: the best one and its equals.
    pub multipath: bool,
    /// Why it won, lost or was refused.
    pub reason: Option<String>,
    /// Kept over a restart of the peer.
    pub stale: bool,
    /// Seconds since the path came or last changed.
    pub age: f64,
    /// `installed`, `pending`, `failed: …` or `not-programmed`.
    pub fib: String,
    /// Which way packets go; null where nothing is programmed.
    pub via: Option<Via>,
    /// Its next hop's share of the flows, where it is installed beside others that have another share.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<u8>,
    /// True for a path that stands in at once when what is installed is lost.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub backup: bool,
    /// The tunnel it asks for (RFC 9012): `vxlan to 192.0.2.1, VNI 4096`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tunnel: Option<String>,
    /// Learned rows: whether import policy accepted it.
    pub accepted: Option<bool>,
    /// Learned rows: what accepted or refused it; advertised rows: what let it out.
    pub rule: Option<String>,
}

/// A next hop of a kernel route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FibNextHop {
    /// Gateway; null for a route on the device itself.
    pub gateway: Option<IpAddr>,
    /// Device name; null where none applies (unreachable).
    pub device: Option<String>,
}

/// A row of `show fib`: desired against installed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FibRoute {
    /// Destination.
    pub prefix: IpNetwork,
    /// Next hops wanted.
    pub next_hops: Vec<FibNextHop>,
    /// Which way packets go.
    pub via: Option<Via>,
    /// MTU on the route, where it is not the link's.
    pub mtu: Option<u32>,
    /// Why this way.
    pub reason: String,
    /// `installed`, `pending`, `failed: …`.
    pub state: String,
}

/// Another node, as `doctor` probes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DoctorPeer {
    /// Its name.
    pub node: String,
    /// Where it can be probed: in its blocks first, then at its own addresses.
    pub targets: Vec<DoctorTarget>,
}

/// An address to probe, and the way there as the kernel has it now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DoctorTarget {
    /// The address.
    pub address: IpAddr,
    /// Its family.
    pub family: Family,
    /// In a block of the node, so that the way is that of pods' packets; else the node's own address.
    pub block: bool,
    /// From which address.
    pub source: Option<IpAddr>,
    /// Gateway; null where the address is on the link.
    pub gateway: Option<IpAddr>,
    /// Device; null where there is no way.
    pub device: Option<String>,
    /// The largest packet this way should take: the route's MTU, or the device's.
    pub mtu: Option<u32>,
    /// Where the device is a tunnel: the address of the node that the tunnel ends at.
    pub endpoint: Option<IpAddr>,
    /// Where the device is a tunnel: how many bytes it puts in front of a packet.
    pub overhead: Option<u16>,
    /// Why there is no way.
    pub error: Option<String>,
}

/// The answer of `show ipam`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ipam {
    /// The node's blocks.
    pub blocks: Vec<IpamBlock>,
}

/// One block of addresses.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IpamBlock {
    /// The block.
    pub cidr: IpNetwork,
    /// Addresses that can be given out (an IPv6 block's are capped at 2⁶³−1).
    pub total: u64,
    /// Given out.
    pub used: u64,
    /// Free now.
    pub free: u64,
    /// Released a short while ago.
    pub quarantined: u64,
    /// Who has which.
    pub allocations: Vec<IpamAllocation>,
}

/// One address given out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IpamAllocation {
    /// The address.
    pub address: IpAddr,
    /// Container id.
    pub container: String,
    /// Interface inside the pod.
    pub interface: String,
    /// `namespace/name` of the pod, where the runtime told.
    pub pod: Option<String>,
    /// Host end of the veth pair.
    pub veth: Option<String>,
    /// `active`, `deleting` or `quarantined`.
    pub state: String,
}

/// Status of a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ConditionStatus {
    /// It holds.
    True,
    /// It does not hold.
    False,
    /// Cannot be told.
    Unknown,
}

/// Something that holds or does not hold of the node, in the manner of Kubernetes conditions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// CamelCase name: `ConfigurationAccepted`, `SysctlsSet`, `FibConnected`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Whether it holds.
    pub status: ConditionStatus,
    /// One CamelCase word.
    pub reason: String,
    /// For people; names the file, field, peer, device or prefix.
    pub message: String,
}

impl Condition {
    /// A condition from its parts.
    pub fn new(kind: &str, holds: bool, reason: &str, message: impl Into<String>) -> Condition {
        Condition {
            kind: kind.to_owned(),
            status: if holds { ConditionStatus::True } else { ConditionStatus::False },
            reason: reason.to_owned(),
            message: message.into(),
        }
    }
}

/// The answer of `GET /v1/node`: each daemon gives what it knows, the CLI merges the three.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeInfo {
    /// Name of the node.
    pub name: String,
    /// Address and mask on the underlay.
    pub ipv4_address: Option<String>,
    /// Address and mask on the underlay.
    pub ipv6_address: Option<String>,
    /// AS number.
    pub as_number: Option<u32>,
    /// BGP identifier.
    #[serde(rename = "routerID")]
    pub router_id: Option<String>,
    /// MTU pods get, taken from the interface the routes use.
    pub mtu: Option<u32>,
    /// How each of the above was chosen: `mtu: eth0 carries the default route`.
    pub chosen: Vec<String>,
    /// Own blocks.
    #[serde(rename = "podCIDRs")]
    pub pod_cidrs: Vec<IpNetwork>,
    /// What holds and what does not.
    pub conditions: Vec<Condition>,
    /// The configuration in force.
    pub configuration: Option<ConfigurationInfo>,
}

/// The configuration in force and the last refused one.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConfigurationInfo {
    /// Where documents are read from.
    pub source: String,
    /// Counts the configurations that came into force since start, from 1.
    pub generation: u64,
    /// Seconds since it came into force.
    pub age: f64,
    /// The last change that was refused and is not mended yet.
    pub refused: Option<RefusedConfiguration>,
}

/// A change of documents that was refused.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RefusedConfiguration {
    /// Seconds since it was refused.
    pub age: f64,
    /// Each names file, line, column, document and field.
    pub errors: Vec<String>,
}

/// Body of `POST /v1/peers/PEER/reset` and `…/disable`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct PeerCommand {
    /// Route refresh instead of a session reset.
    pub soft: Option<SoftReset>,
    /// Told to the peer (RFC 9003), at most 255 octets.
    pub message: Option<String>,
}

/// Which way a soft reset goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SoftReset {
    /// Judge what the peer sent anew, and ask for it again.
    In,
    /// Send the peer everything again.
    Out,
}

/// Success of a command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// What was done.
    pub done: String,
}

/// A daemon's no.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// Why.
    pub error: String,
}
