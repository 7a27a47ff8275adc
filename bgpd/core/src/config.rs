//! The native configuration of one speaker: what the documents of one node come down to.
//!
//! Owner: made by `bgpd/src/lower` (one pure function), read by everything in this crate. The engine never sees an
//! API type. Pure data; two configurations compare with `==`, field by field, so that a change touches only the
//! peers it concerns: [`SessionConfig`] differences reset a session, all others are applied live.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use causeway_bgp_wire::{Asn, Family, FamilySet, Prefix};

use crate::policy::{ExportPolicy, ImportPolicy};

/// Everything one speaker needs to know.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Name of the node this is the configuration of.
    pub node: String,
    /// Whether the speaker runs on a node (it originates the node's blocks) or as a pure route reflector.
    pub role: Role,
    /// The node's own AS number.
    pub local_as: Asn,
    /// BGP identifier (RFC 6286: any non-zero number).
    pub router_id: Ipv4Addr,
    /// Set where this speaker reflects (RFC 4456).
    pub cluster_id: Option<Ipv4Addr>,
    /// The node's own IPv4 address: next hop of IPv4 prefixes in sessions over IPv6.
    pub address_v4: Option<Ipv4Addr>,
    /// The node's own IPv6 address: next hop of IPv6 prefixes in sessions over IPv4.
    pub address_v6: Option<Ipv6Addr>,
    /// At most this many equal paths are installed for one prefix (at least 1).
    pub max_paths: usize,
    /// Graceful restart (RFC 4724): the restart time this speaker announces, or `None` where it is off.
    pub graceful_restart: Option<Duration>,
    /// What this speaker originates: its own blocks.
    pub own: Vec<OwnPrefix>,
    /// The configured peers, in the order of the documents; no two have the same key.
    pub peers: Vec<PeerConfig>,
    /// Ranges from which unnamed peers may connect (`peerRange`), the longest matching one wins.
    pub ranges: Vec<RangeConfig>,
}

/// What kind of speaker this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A node: originates own blocks, programs the kernel.
    Node,
    /// A pure reflector: originates nothing, exports what it accepted.
    Reflector,
}

/// A prefix this speaker originates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnPrefix {
    /// The block.
    pub prefix: Prefix,
    /// Standard communities it is announced with (`prefixAdvertisements`), sorted.
    pub communities: Vec<u32>,
    /// Large communities it is announced with, sorted.
    pub large_communities: Vec<[u32; 3]>,
    /// False where its pool has `disableBGPExport`: shown, never announced.
    pub export: bool,
}

/// What identifies a configured peer: its address and, where the document gives one, its port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerKey {
    /// Remote address.
    pub address: IpAddr,
    /// Remote port where it is not the default one.
    pub port: Option<u16>,
}

/// A configured peer.
#[derive(Clone, Debug, PartialEq)]
pub struct PeerConfig {
    /// Remote address (and port).
    pub key: PeerKey,
    /// Everything about the peer but its address.
    pub settings: PeerSettings,
}

/// A range of addresses from which peers may connect.
#[derive(Clone, Debug, PartialEq)]
pub struct RangeConfig {
    /// Source addresses that belong to it.
    pub range: Prefix,
    /// At most this many dynamic peers at one time.
    pub limit: usize,
    /// What each of them gets; `session.passive` is true.
    pub settings: PeerSettings,
}

/// Everything about a peer but its address.
#[derive(Clone, Debug, PartialEq)]
pub struct PeerSettings {
    /// Where it comes from, for people: `BGPPeer tor-a`, `mesh node-b1`.
    pub name: String,
    /// What a change of resets the session.
    pub session: SessionConfig,
    /// Rules for what it sends, the default policy included.
    pub import: Arc<ImportPolicy>,
    /// Rules for what it is sent, the default policy included.
    pub export: Arc<ExportPolicy>,
    /// Next hop of what it is sent.
    pub next_hop_mode: NextHopMode,
    /// True where the peer is a client of this reflector (RFC 4456); only for iBGP.
    pub client: bool,
    /// How many times one of our own AS numbers may stand in a received AS_PATH (allowas-in).
    pub allowed_local_as: u8,
    /// Limits on received prefixes, by family.
    pub max_prefixes: MaxPrefixes,
    /// Longest time stale paths of this peer are retained; zero turns retention off.
    pub max_restart_time: Duration,
}

/// Parameters of the session itself.
#[derive(Clone, Debug, PartialEq)]
pub struct SessionConfig {
    /// The AS number shown to this peer (`localASNumber`, or the node's own).
    pub local_as: Asn,
    /// The AS number the peer must have.
    pub remote_as: RemoteAs,
    /// BGP identifier sent in OPEN.
    pub router_id: Ipv4Addr,
    /// Hold time proposed; zero (no keepalives) or at least 3 s.
    pub hold_time: Duration,
    /// Keepalive interval asked for; never above a third of the negotiated hold time.
    pub keepalive_time: Duration,
    /// ConnectRetryTimer (RFC 4271 8.2.1.3), before jitter.
    pub connect_retry_time: Duration,
    /// True: never connect, only accept.
    pub passive: bool,
    /// Families offered.
    pub families: FamilySet,
    /// How far away the peer may be.
    pub distance: Distance,
    /// Local address to connect from and to be reached at; `None` lets the kernel choose.
    pub source: Option<IpAddr>,
    /// TCP MD5 (RFC 2385).
    pub password: Password,
    /// Restart time announced (RFC 4724), or `None`: capability not sent.
    pub graceful_restart: Option<Duration>,
    /// Gateway towards the peer (`reachableBy`); installed as a host route by fib-sync.
    pub reachable_by: Option<IpAddr>,
}

/// The AS number a peer must have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RemoteAs {
    /// This one.
    Number(Asn),
    /// Ours.
    Internal,
    /// Any but ours.
    External,
}

/// How many hops away the peer may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Distance {
    /// Packets leave with this TTL. 1 for an eBGP peer on the link, 255 for iBGP.
    Ttl(u8),
    /// GTSM (RFC 5082): packets leave with 255 and must arrive with at least 255 − hops + 1.
    Security(u8),
}

impl Distance {
    /// True where the peer must sit on a directly connected subnet.
    pub fn is_single_hop(self) -> bool {
        matches!(self, Distance::Ttl(1) | Distance::Security(1))
    }
}

/// The session's TCP MD5 key.
#[derive(Clone, PartialEq, Eq)]
pub enum Password {
    /// None asked for.
    None,
    /// This key.
    Key(String),
    /// One is asked for and is not there: the session stays down and says this.
    Missing(String),
}

impl std::fmt::Debug for Password {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Password::None => f.write_str("None"),
            Password::Key(_) => f.write_str("Key(…)"),
            Password::Missing(why) => write!(f, "Missing({why})"),
        }
    }
}

/// What next hop a peer is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NextHopMode {
    /// eBGP: this speaker; iBGP: this speaker for own prefixes, else unchanged; reflected: unchanged.
    Auto,
    /// Always this speaker.
    Self_,
    /// Never changed (own prefixes excepted).
    Keep,
}

/// Limits on what a peer may send.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MaxPrefixes {
    /// IPv4 limit.
    pub ipv4: Option<u32>,
    /// IPv6 limit.
    pub ipv6: Option<u32>,
    /// Percentage at which a warning is given.
    pub warn_at: Option<u8>,
    /// The session comes back after this long; `None`: only by hand.
    pub restart_after: Option<Duration>,
}

impl MaxPrefixes {
    /// The limit of one family.
    pub fn limit(&self, family: Family) -> Option<u32> {
        match family {
            Family::Ipv4Unicast => self.ipv4,
            Family::Ipv6Unicast => self.ipv6,
        }
    }
}
