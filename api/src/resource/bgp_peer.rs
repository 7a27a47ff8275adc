//! Kind `BGPPeer`: which nodes peer with whom, and how.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::bgp_configuration::{validate_restart_time, validate_timers};
use super::findings::Findings;
use super::meta::{AddressFamily, PasswordSource};
use super::scalar::{Address, Cidr, PeerAddress, PeerAsn, TimeSpan};
use crate::selector::Selector;

/// `spec` of a BGPPeer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BGPPeerSpec {
    /// The one node that has this peer. Excludes `nodeSelector`; neither: all nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// The nodes that have this peer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_selector: Option<Selector>,
    /// Address of the peer: IP, IP:PORT or [IPV6]:PORT.
    #[serde(default, rename = "peerIP", skip_serializing_if = "Option::is_none")]
    pub peer_ip: Option<PeerAddress>,
    /// Nodes that are the peers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer_selector: Option<Selector>,
    /// Addresses from which peers may connect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer_range: Option<Cidr>,
    /// Interface at whose other end the peer is. Not supported yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
    /// AS number of the peer; for `peerRange` also `internal` or `external`. Not with `peerSelector`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub as_number: Option<PeerAsn>,
    /// Families exchanged; absent: both.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2))]
    pub families: Option<Vec<AddressFamily>>,
    /// TCP MD5 password (RFC 2385).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<PasswordSource>,
    /// Hold time proposed; absent: that of the BGPConfiguration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold_time: Option<TimeSpan>,
    /// Interval of keepalives; absent: a third of the hold time at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keepalive_time: Option<TimeSpan>,
    /// Time between attempts to connect; absent: that of the BGPConfiguration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connect_retry_time: Option<TimeSpan>,
    /// Only accept, never connect.
    #[serde(default)]
    pub passive: bool,
    /// How many hops away an eBGP peer may be; absent: 1, the same link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 255))]
    pub ebgp_multihop: Option<u8>,
    /// Accept only packets that came at most so many hops (GTSM, RFC 5082); absent: off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 255))]
    pub ttl_security: Option<u8>,
    /// Local address of the session.
    #[serde(default)]
    pub source_address: SourceAddress,
    /// Next hop of what the peer is sent.
    #[serde(default)]
    pub next_hop_mode: NextHopMode,
    /// AS number shown to this peer; absent: the node's.
    #[serde(default, rename = "localASNumber", skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 4_294_967_295_u32))]
    pub local_as_number: Option<u32>,
    /// How often our own AS number may stand in a received AS_PATH.
    #[serde(default, rename = "numAllowedLocalASNumbers")]
    #[schemars(range(min = 0, max = 255))]
    pub num_allowed_local_as_numbers: u8,
    /// Whether the peer is a client of this reflector.
    #[serde(default)]
    pub reflection: Reflection,
    /// Limits on received prefixes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_prefixes: Option<MaxPrefixes>,
    /// Restart time announced to this peer, and longest time its paths are retained; 0s: never retained.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_restart_time: Option<TimeSpan>,
    /// Gateway towards the peer, for which a host route is made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reachable_by: Option<Address>,
    /// Several paths for one prefix (RFC 7911). Not supported yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub add_path: Option<AddPath>,
    /// Names of BGPFilters, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50))]
    pub filters: Vec<String>,
    /// Bidirectional forwarding detection (RFC 5880). Not supported yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bfd: Option<Bfd>,
}

/// Local address of a session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum SourceAddress {
    /// The node's address of the peer's family.
    #[default]
    UseNodeIP,
    /// What the kernel chooses.
    None,
}

/// Next hop of what a peer is sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum NextHopMode {
    /// eBGP: this speaker. iBGP: unchanged, own prefixes excepted.
    #[default]
    Auto,
    /// This speaker.
    #[serde(rename = "Self")]
    Own,
    /// Unchanged, own prefixes excepted.
    Keep,
}

/// Whether a peer is a client of this reflector.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Reflection {
    /// iBGP peers of a node with a cluster id are its clients unless they have the same id.
    #[default]
    Auto,
    /// A client.
    Client,
    /// Not a client.
    NonClient,
}

/// Limits on received prefixes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MaxPrefixes {
    /// Most IPv4 prefixes; absent: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 4_294_967_295_u32))]
    pub ipv4: Option<u32>,
    /// Most IPv6 prefixes; absent: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 4_294_967_295_u32))]
    pub ipv6: Option<u32>,
    /// Percentage of a limit at which a warning is given; absent: 80.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub warn_at: Option<u8>,
    /// Time after which a session that broke a limit comes back; absent: only by hand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restart_after: Option<TimeSpan>,
}

/// Several paths for one prefix.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AddPath {
    /// Which paths are sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub send: Option<AddPathSend>,
    /// How many, for `Best`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 255))]
    pub best: Option<u8>,
    /// Whether several are accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receive: Option<bool>,
}

/// Which paths are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum AddPathSend {
    /// One.
    None,
    /// The best few.
    Best,
    /// All.
    All,
}

/// Bidirectional forwarding detection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Bfd {
    /// Whether it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// Least interval of packets received.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_rx: Option<TimeSpan>,
    /// Least interval of packets sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_tx: Option<TimeSpan>,
    /// Packets that may be lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 255))]
    pub multiplier: Option<u8>,
}

impl BGPPeerSpec {
    /// Checks what can be checked within this one document.
    pub fn validate(&self, findings: &mut Findings) {
        self.validate_who(findings);
        validate_timers(self.hold_time, self.keepalive_time, self.connect_retry_time, findings);
        if let Some(families) = &self.families {
            if families.is_empty() {
                findings.add("spec.families", "must name at least one family");
            }
            if families.iter().enumerate().any(|(index, family)| families[..index].contains(family)) {
                findings.add("spec.families", "names a family twice");
            }
        }
        for (field, value) in [("ebgpMultihop", self.ebgp_multihop), ("ttlSecurity", self.ttl_security)] {
            if value == Some(0) {
                findings.add(format!("spec.{field}"), "must be 1 to 255");
            }
        }
        if self.ttl_security.is_some() && self.ebgp_multihop.is_some_and(|hops| hops > 1) {
            findings.add(
                "spec.ebgpMultihop",
                "above 1 excludes ttlSecurity, which says how many hops there may be",
            );
        }
        if let Some(number) = self.local_as_number {
            findings.asn("spec.localASNumber", number);
        }
        if let Some(limits) = &self.max_prefixes {
            limits.validate(findings);
        }
        if let Some(time) = self.max_restart_time {
            validate_restart_time("spec.maxRestartTime", time, findings);
        }
        if let Some(gateway) = self.reachable_by {
            match self.peer_ip {
                None => findings.add("spec.reachableBy", "needs a peerIP"),
                Some(peer) if peer.ip.is_ipv4() != gateway.0.is_ipv4() => {
                    findings
                        .add("spec.reachableBy", format!("{gateway} is not of the family of {}", peer.ip));
                }
                Some(peer) if peer.ip == gateway.0 => {
                    findings.add("spec.reachableBy", format!("{gateway} is the peer itself"));
                }
                Some(_) => {}
            }
        }
        for (index, name) in self.filters.iter().enumerate() {
            if self.filters[..index].contains(name) {
                findings.add(format!("spec.filters[{index}]"), format!("`{name}` is named twice"));
            }
        }
        if self.add_path.is_some() {
            findings.unsupported("spec.addPath");
        }
        if self.bfd.is_some() {
            findings.unsupported("spec.bfd");
        }
    }

    /// Checks which nodes peer with whom.
    fn validate_who(&self, findings: &mut Findings) {
        if self.node.is_some() && self.node_selector.is_some() {
            findings.add("spec.nodeSelector", "excludes node");
        }
        if self.interface.is_some() {
            findings.unsupported("spec.interface");
        }
        let kinds = [
            ("peerIP", self.peer_ip.is_some()),
            ("peerSelector", self.peer_selector.is_some()),
            ("peerRange", self.peer_range.is_some()),
            ("interface", self.interface.is_some()),
        ];
        let given: Vec<&str> = kinds.iter().filter(|(_, given)| *given).map(|(field, _)| *field).collect();
        match given.as_slice() {
            [] => findings.add("spec", "one of peerIP, peerSelector, peerRange or interface is required"),
            [_] => {}
            [first, second, ..] => findings.add(format!("spec.{second}"), format!("excludes {first}")),
        }
        match (self.as_number, self.peer_selector.is_some()) {
            (Some(_), true) => findings.add(
                "spec.asNumber",
                "excludes peerSelector: the AS number is that of the selected Node or of the BGPConfiguration",
            ),
            (None, false) if !given.is_empty() => findings.add("spec.asNumber", "is required"),
            (Some(PeerAsn::Number(number)), false) => findings.asn("spec.asNumber", number),
            (Some(word), false) if self.peer_ip.is_some() => {
                findings.add("spec.asNumber", format!("must be a number with peerIP, not `{word}`"));
            }
            _ => {}
        }
        if let Some(range) = self.peer_range.filter(|range| range.is_default()) {
            findings.add("spec.peerRange", format!("{range} would let anybody connect"));
        }
    }
}

impl MaxPrefixes {
    fn validate(&self, findings: &mut Findings) {
        for (field, value) in [("ipv4", self.ipv4), ("ipv6", self.ipv6)] {
            if value == Some(0) {
                findings.add(format!("spec.maxPrefixes.{field}"), "must be at least 1");
            }
        }
        if self.warn_at.is_some_and(|percent| !(1..=100).contains(&percent)) {
            findings.add("spec.maxPrefixes.warnAt", "must be a percentage, 1 to 100");
        }
        if self.restart_after.is_some_and(|time| time.0.as_secs() == 0) {
            findings.add("spec.maxPrefixes.restartAfter", "must be at least 1s");
        }
    }
}
