//! Who the peers of one node are, and each one's parameters. Pure.
//!
//! Three sources, an earlier one winning where two lead to the same address: BGPPeers that select this node, BGPPeers
//! whose `peerSelector` selects this node (the far side of the same session), the full mesh. Two documents of the
//! first kind that lead to one address contradict each other, which is an error.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use super::node::{BGP_PORT, Facts};
use super::{Distance, Password, Peer, PeerRange, PeerSettings, Role};
use crate::document_set::{Document, DocumentError, DocumentSet};
use crate::resource::BGPPeerSpec;
use crate::resource::bgp_peer::{MaxPrefixes, Reflection, SourceAddress};
use crate::resource::meta::{AddressFamily, PasswordSource};
use crate::resource::scalar::{Cidr, PeerAsn, TimeSpan};

/// Share of a prefix limit at which a warning is given, in per cent.
const DEFAULT_WARN_AT: u8 = 80;

/// What was found.
pub(super) struct Found {
    pub(super) peers: Vec<Peer>,
    pub(super) ranges: Vec<PeerRange>,
}

pub(super) fn resolve(
    documents: &DocumentSet,
    facts: &Facts<'_>,
    role: Role,
    cluster_id: Option<Ipv4Addr>,
    notes: &mut Vec<String>,
    errors: &mut Vec<DocumentError>,
) -> Found {
    let others = documents.nodes().filter(|(_, node)| node.metadata.name != facts.name());
    let others = others.map(|(_, node)| Facts::of(documents, node)).collect();
    let mut search = Search {
        documents,
        facts,
        role,
        cluster_id,
        others,
        notes,
        errors,
        peers: BTreeMap::new(),
        ranges: BTreeMap::new(),
    };
    for (document, spec) in documents.peers() {
        if search.selects_local(spec) {
            search.forward(document, spec);
        }
    }
    for (document, spec) in documents.peers() {
        search.reverse(document, spec);
    }
    if role == Role::Node && facts.in_mesh() {
        search.mesh();
    }
    let peers = search.peers.into_values().map(|(peer, _)| peer).collect();
    let ranges = search.ranges.into_values().map(|(range, _)| range).collect();
    Found { peers, ranges }
}

/// Where a peer of a search comes from.
#[derive(Clone, Copy)]
enum Origin<'a> {
    Forward(&'a Document),
    Other,
}

struct Search<'a, 'n> {
    documents: &'a DocumentSet,
    facts: &'a Facts<'a>,
    role: Role,
    cluster_id: Option<Ipv4Addr>,
    others: Vec<Facts<'a>>,
    notes: &'n mut Vec<String>,
    errors: &'n mut Vec<DocumentError>,
    /// By address and port: one address may hold several speakers.
    peers: BTreeMap<(IpAddr, u16), (Peer, Origin<'a>)>,
    ranges: BTreeMap<Cidr, (PeerRange, &'a Document)>,
}

/// What is special about one peer, beside its document.
struct Remote<'r> {
    name: String,
    address: IpAddr,
    remote_as: PeerAsn,
    /// The Node it is, if it is one.
    node: Option<&'r Facts<'r>>,
    /// This is the far side of the document's session.
    mirrored: bool,
}

impl<'a> Search<'a, '_> {
    fn selects_local(&self, spec: &BGPPeerSpec) -> bool {
        selects(spec, self.facts)
    }

    /// A BGPPeer that selects this node.
    fn forward(&mut self, document: &'a Document, spec: &'a BGPPeerSpec) {
        let name = format!("BGPPeer {}", document.name());
        if let (Some(peer), Some(remote_as)) = (spec.peer_ip, spec.as_number) {
            if self.facts.has(peer.ip) && peer.port.is_none_or(|port| port == self.facts.listen_port) {
                self.notes.push(format!("{name}: {} is this node's own address: left out", peer.ip));
                return;
            }
            let others = std::mem::take(&mut self.others);
            let node = others.iter().find(|other| other.has(peer.ip));
            let remote = Remote { name, address: peer.ip, remote_as, node, mirrored: false };
            let port = peer.port.or(node.map(|node| node.listen_port)).unwrap_or(BGP_PORT);
            let settings = self.settings(document, spec, &remote);
            self.others = others;
            self.add(Peer { address: peer.ip, port, settings }, Origin::Forward(document));
        } else if let Some(selector) = &spec.peer_selector {
            let others = std::mem::take(&mut self.others);
            for other in others.iter().filter(|other| selector.matches(&other.object.metadata.labels)) {
                self.node_peer(document, spec, other, false);
            }
            self.others = others;
        } else if let (Some(range), Some(remote_as)) = (spec.peer_range, spec.as_number) {
            let address = range.0.network();
            let remote = Remote { name, address, remote_as, node: None, mirrored: false };
            let mut settings = self.settings(document, spec, &remote);
            settings.passive = true;
            settings.source = None;
            if let Some((_, other)) = self.ranges.get(&range) {
                let other = other.title();
                self.errors.push(
                    document.error("spec.peerRange", format!("{range} is the range of {other} as well")),
                );
                return;
            }
            self.ranges.insert(range, (PeerRange { range, settings }, document));
        }
    }

    /// A BGPPeer whose `peerSelector` selects this node: the nodes it is for are our peers, unless they are already.
    fn reverse(&mut self, document: &'a Document, spec: &'a BGPPeerSpec) {
        let Some(selector) = &spec.peer_selector else { return };
        if !selector.matches(&self.facts.object.metadata.labels) {
            return;
        }
        let others = std::mem::take(&mut self.others);
        for other in others.iter().filter(|other| selects(spec, other)) {
            self.node_peer(document, spec, other, true);
        }
        self.others = others;
    }

    /// A session with another Node for a BGPPeer with `peerSelector`.
    fn node_peer(
        &mut self,
        document: &'a Document,
        spec: &'a BGPPeerSpec,
        other: &Facts<'_>,
        mirrored: bool,
    ) {
        let name = format!("BGPPeer {} (node {})", document.name(), other.name());
        let Some(address) = self.common_address(other) else {
            self.notes.push(format!("{name}: the two nodes have no address of the same family: left out"));
            return;
        };
        let remote_as = match spec.local_as_number.filter(|_| mirrored) {
            Some(shown) => shown,
            None => other.as_number,
        };
        let remote =
            Remote { name, address, remote_as: PeerAsn::Number(remote_as), node: Some(other), mirrored };
        let settings = self.settings(document, spec, &remote);
        let origin = if mirrored { Origin::Other } else { Origin::Forward(document) };
        self.add(Peer { address, port: other.listen_port, settings }, origin);
    }

    /// The full mesh.
    fn mesh(&mut self) {
        let others = std::mem::take(&mut self.others);
        for other in others.iter().filter(|other| other.in_mesh()) {
            let name = format!("mesh {}", other.name());
            let Some(address) = self.common_address(other) else {
                self.notes
                    .push(format!("{name}: the two nodes have no address of the same family: left out"));
                continue;
            };
            let remote_as = PeerAsn::Number(other.as_number);
            let remote = Remote { name, address, remote_as, node: Some(other), mirrored: false };
            let spec = BGPPeerSpec {
                password: self.facts.configuration.node_mesh_password.clone(),
                ..BGPPeerSpec::default()
            };
            let settings = self.common_settings(&spec, &remote);
            self.add(Peer { address, port: other.listen_port, settings }, Origin::Other);
        }
        self.others = others;
    }

    /// The address a session with another Node runs to: IPv4 if both have it, else IPv6.
    fn common_address(&self, other: &Facts<'_>) -> Option<IpAddr> {
        [true, false].into_iter().find_map(|ipv4| self.facts.address(ipv4).and(other.address(ipv4)))
    }

    fn add(&mut self, peer: Peer, origin: Origin<'a>) {
        let address = peer.address;
        let mut same_address = self.peers.range((address, 0)..=(address, u16::MAX)).map(|(_, found)| found);
        match origin {
            Origin::Forward(document) => match self.peers.get(&(address, peer.port)) {
                Some((_, Origin::Forward(other))) => {
                    let (node, other) = (self.facts.name(), other.title());
                    self.errors.push(document.error(
                        "spec",
                        format!("leads node {node} to the peer {address}, and so does {other}"),
                    ));
                    return;
                }
                Some((_, Origin::Other)) | None => {}
            },
            Origin::Other => {
                if let Some((first, _)) = same_address.next() {
                    if peer.settings.name.starts_with("mesh ") {
                        let (name, by) = (&peer.settings.name, &first.settings.name);
                        self.notes.push(format!("{name}: {address} is already a peer by {by}: left out"));
                    }
                    return;
                }
            }
        }
        self.peers.insert((address, peer.port), (peer, origin));
    }

    fn settings(&mut self, document: &Document, spec: &BGPPeerSpec, remote: &Remote<'_>) -> PeerSettings {
        let settings = self.common_settings(spec, remote);
        if let Some(keepalive) = spec.keepalive_time
            && !settings.hold_time.0.is_zero()
            && keepalive.0 >= settings.hold_time.0
        {
            let hold = settings.hold_time;
            self.errors.push(
                document.error(
                    "spec.keepaliveTime",
                    format!("{keepalive} must be below the hold time of {hold}"),
                ),
            );
        }
        settings
    }

    fn common_settings(&mut self, spec: &BGPPeerSpec, remote: &Remote<'_>) -> PeerSettings {
        let configuration = &self.facts.configuration;
        let local_as = match spec.local_as_number.filter(|_| !remote.mirrored) {
            Some(shown) => shown,
            None => self.facts.as_number,
        };
        let internal = match remote.remote_as {
            PeerAsn::Number(number) => number == local_as,
            PeerAsn::Internal => true,
            PeerAsn::External => false,
        };
        let hold_time = spec.hold_time.or(configuration.hold_time).unwrap_or(TimeSpan::from_secs(90));
        let third = TimeSpan(hold_time.0 / 3);
        let keepalive_time = match (spec.keepalive_time, configuration.keepalive_time) {
            _ if hold_time.0.is_zero() => hold_time,
            (Some(own), _) => own,
            (None, Some(common)) => common.min(third),
            (None, None) => third,
        };
        let restart_time = self.facts.restart_time();
        let max_restart_time = match (restart_time, spec.max_restart_time) {
            (None, _) => TimeSpan::from_secs(0),
            (Some(common), own) => own.unwrap_or(common),
        };
        PeerSettings {
            name: remote.name.clone(),
            remote_as: remote.remote_as,
            local_as,
            families: self.families(spec, remote, internal),
            source: self.source(spec, remote),
            passive: spec.passive && !remote.mirrored,
            distance: self.distance(spec, remote, internal),
            hold_time,
            keepalive_time,
            connect_retry_time: spec
                .connect_retry_time
                .or(configuration.connect_retry_time)
                .unwrap_or(TimeSpan::from_secs(5)),
            password: password(self.documents, spec.password.as_ref()),
            graceful_restart_time: restart_time
                .map(|common| spec.max_restart_time.filter(|own| !own.0.is_zero()).unwrap_or(common)),
            max_restart_time,
            next_hop_mode: spec.next_hop_mode,
            reflector_client: internal && self.is_client(spec.reflection, remote),
            allowed_local_as: spec.num_allowed_local_as_numbers,
            max_prefixes: spec
                .max_prefixes
                .map(|limits| MaxPrefixes { warn_at: limits.warn_at.or(Some(DEFAULT_WARN_AT)), ..limits }),
            reachable_by: spec.reachable_by.map(|gateway| gateway.0),
            filters: spec.filters.clone(),
        }
    }

    /// The families offered: those asked for, less those this speaker could give no next hop of. A pure reflector
    /// passes next hops on inside the AS, so it needs none of its own there.
    fn families(&mut self, spec: &BGPPeerSpec, remote: &Remote<'_>, internal: bool) -> Vec<AddressFamily> {
        let both = [AddressFamily::Ipv4, AddressFamily::Ipv6];
        let asked = spec.families.as_deref().unwrap_or(&both);
        let passes_on = self.role == Role::Reflector && internal;
        let mut offered = Vec::new();
        for family in both.into_iter().filter(|family| asked.contains(family)) {
            let ipv4 = family == AddressFamily::Ipv4;
            let of_session = remote.address.is_ipv4() == ipv4;
            let here = of_session || passes_on || self.facts.address(ipv4).is_some();
            let there =
                of_session || passes_on || remote.node.is_none_or(|node| node.address(ipv4).is_some());
            if here && there {
                offered.push(family);
            } else if spec.families.is_some() {
                let who = if here { "the peer" } else { "this node" };
                let version = if ipv4 { "IPv4" } else { "IPv6" };
                self.notes
                    .push(format!("{}: {version} is not offered: {who} has no such address", remote.name));
            }
        }
        offered
    }

    fn source(&mut self, spec: &BGPPeerSpec, remote: &Remote<'_>) -> Option<IpAddr> {
        match spec.source_address {
            SourceAddress::None => None,
            SourceAddress::UseNodeIP => self.facts.address(remote.address.is_ipv4()),
        }
    }

    /// Peers inside the AS may be anywhere; an external one is on the link, unless it is another Node in another
    /// subnet, which nobody would write a number of hops for.
    fn distance(&self, spec: &BGPPeerSpec, remote: &Remote<'_>, internal: bool) -> Distance {
        match (spec.ttl_security, spec.ebgp_multihop) {
            (Some(hops), _) => Distance::TtlSecurity(hops),
            (None, _) if internal => Distance::Ttl(255),
            (None, Some(hops)) => Distance::Ttl(hops),
            (None, None) if remote.node.is_some() && !self.facts.shares_subnet(remote.address) => {
                Distance::Ttl(255)
            }
            (None, None) => Distance::Ttl(1),
        }
    }

    fn is_client(&self, reflection: Reflection, remote: &Remote<'_>) -> bool {
        let Some(own) = self.cluster_id else { return false };
        match reflection {
            Reflection::Client => true,
            Reflection::NonClient => false,
            Reflection::Auto => remote.node.and_then(Facts::cluster_id) != Some(own),
        }
    }
}

/// Whether a BGPPeer is for this node.
fn selects(spec: &BGPPeerSpec, facts: &Facts<'_>) -> bool {
    match (&spec.node, &spec.node_selector) {
        (Some(node), _) => node == facts.name(),
        (None, Some(selector)) => selector.matches(&facts.object.metadata.labels),
        (None, None) => true,
    }
}

fn password(documents: &DocumentSet, source: Option<&PasswordSource>) -> Password {
    let Some(source) = source else { return Password::None };
    let wanted = &source.secret_key_ref;
    match documents.secret(&wanted.name) {
        None => Password::Missing(format!("there is no secret {}", wanted.name)),
        Some(secret) => match secret.password(&wanted.key) {
            Ok(key) => Password::Key(key),
            Err(reason) => Password::Missing(reason),
        },
    }
}
