//! The node itself: addresses, identifier, blocks, pools and what holds for all of its sessions. Pure.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use ipnetwork::IpNetwork;

use super::{
    Block, EffectiveNode, HostRoute, Listen, Pool, Role, RouteSettings, Tunnels, VXLAN_PORT, VXLAN_VNI, peers,
};
use crate::document_set::{DocumentError, DocumentSet, Errors, Place, resolve_community};
use crate::resource::bgp_configuration::{BindMode, GracefulRestart};
use crate::resource::scalar::{Cidr, TimeSpan};
use crate::resource::{BGPConfigurationSpec, NodeSpec, Object};

/// AS number where no document names one.
const DEFAULT_AS: u32 = 64512;
/// The port of RFC 4271.
pub(super) const BGP_PORT: u16 = 179;

/// What is known of one Node, its configuration applied.
pub(super) struct Facts<'a> {
    pub(super) object: &'a Object<NodeSpec>,
    pub(super) configuration: BGPConfigurationSpec,
    pub(super) as_number: u32,
    pub(super) router_id: Ipv4Addr,
    pub(super) listen_port: u16,
}

impl<'a> Facts<'a> {
    pub(super) fn of(documents: &DocumentSet, object: &'a Object<NodeSpec>) -> Self {
        let configuration = documents.configuration(&object.metadata.name);
        let bgp = &object.spec.bgp;
        let router_id = match (bgp.router_id, bgp.ipv4_address) {
            (Some(id), _) => id.0,
            (None, Some(address)) => address.0.ip(),
            (None, None) => derived_id(&object.metadata.name),
        };
        Facts {
            as_number: bgp.as_number.or(configuration.as_number).unwrap_or(DEFAULT_AS),
            router_id,
            listen_port: configuration.listen_port.unwrap_or(BGP_PORT),
            configuration,
            object,
        }
    }

    pub(super) fn name(&self) -> &'a str {
        &self.object.metadata.name
    }

    /// Its address of one family.
    pub(super) fn address(&self, ipv4: bool) -> Option<IpAddr> {
        let bgp = &self.object.spec.bgp;
        if ipv4 {
            bgp.ipv4_address.map(|address| address.0.ip().into())
        } else {
            bgp.ipv6_address.map(|address| address.0.ip().into())
        }
    }

    /// Whether `address` is one of its own.
    pub(super) fn has(&self, address: IpAddr) -> bool {
        self.address(address.is_ipv4()) == Some(address)
    }

    /// Whether `address` lies in the subnet of its own address of that family.
    pub(super) fn shares_subnet(&self, address: IpAddr) -> bool {
        let bgp = &self.object.spec.bgp;
        match address {
            IpAddr::V4(address) => bgp.ipv4_address.is_some_and(|own| own.0.contains(address)),
            IpAddr::V6(address) => bgp.ipv6_address.is_some_and(|own| own.0.contains(address)),
        }
    }

    /// Cluster id, where it reflects.
    pub(super) fn cluster_id(&self) -> Option<Ipv4Addr> {
        self.object.spec.bgp.route_reflector_cluster_id.map(|id| id.0)
    }

    /// Whether it is one of the full mesh.
    pub(super) fn in_mesh(&self) -> bool {
        self.cluster_id().is_none() && self.configuration.node_to_node_mesh_enabled.unwrap_or(true)
    }

    /// Restart time announced, unless graceful restart is off.
    pub(super) fn restart_time(&self) -> Option<TimeSpan> {
        let GracefulRestart { enabled, restart_time } =
            self.configuration.graceful_restart.unwrap_or_default();
        enabled.unwrap_or(true).then(|| restart_time.unwrap_or(TimeSpan::from_secs(120)))
    }
}

/// A BGP identifier for a node without IPv4 address: a hash (FNV-1a) of its name, never in 0/8 or above 223/8, so
/// that it looks like a host's.
fn derived_id(name: &str) -> Ipv4Addr {
    let hash =
        name.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    let [first, b, c, d] = hash.to_be_bytes();
    Ipv4Addr::new(first % 223 + 1, b, c, d)
}

pub(super) fn resolve(documents: &DocumentSet, name: &str, role: Role) -> Result<EffectiveNode, Errors> {
    let Some((_, object)) = documents.node(name) else {
        let known: Vec<&str> =
            documents.nodes().map(|(_, node)| node.metadata.name.as_str()).take(10).collect();
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        return Err(Errors(vec![DocumentError {
            place: Place::default(),
            document: String::new(),
            path: String::new(),
            message: format!("there is no Node named `{name}` in the documents; there are: {known}"),
        }]));
    };
    let facts = Facts::of(documents, object);
    let mut notes = Vec::new();
    let mut errors = Vec::new();
    let cluster_id = match role {
        Role::Reflector => Some(facts.cluster_id().unwrap_or(facts.router_id)),
        Role::Node => facts.cluster_id(),
    };
    if facts.address(true).is_none() && facts.address(false).is_none() {
        notes.push("the node has no address: sessions offer only the family they run over".to_owned());
    }
    let blocks = blocks(documents, &facts, role, &mut notes);
    let found = peers::resolve(documents, &facts, role, cluster_id, &mut notes, &mut errors);
    if !errors.is_empty() {
        return Err(Errors(errors));
    }
    let host_routes = found.peers.iter().filter_map(|peer| {
        Some(HostRoute { destination: peer.address, gateway: peer.settings.reachable_by? })
    });
    let host_routes = host_routes.collect();
    let settings = found.peers.iter().map(|peer| &peer.settings);
    let settings = settings.chain(found.ranges.iter().map(|range| &range.settings));
    let filters: BTreeMap<_, _> = settings
        .flat_map(|settings| &settings.filters)
        .filter_map(|name| Some((name.clone(), documents.filter(name)?.clone())))
        .collect();
    let configuration = &facts.configuration;
    Ok(EffectiveNode {
        node: name.to_owned(),
        role,
        as_number: facts.as_number,
        router_id: facts.router_id,
        cluster_id,
        ipv4_address: object.spec.bgp.ipv4_address.map(|address| address.0),
        ipv6_address: object.spec.bgp.ipv6_address.map(|address| address.0),
        listen: listen(&facts, &mut notes),
        graceful_restart_time: facts.restart_time(),
        max_paths: configuration.max_paths.unwrap_or(16),
        routes: RouteSettings {
            metric: configuration.route_metric.unwrap_or(1790),
            protocol: configuration.route_protocol.unwrap_or(179),
            ignored_interfaces: configuration.ignored_interfaces.clone().unwrap_or_default(),
            mtu_mode: configuration.mtu_mode.unwrap_or_default(),
            clamp_mss: configuration.clamp_mss.unwrap_or(false),
        },
        log_severity: configuration.log_severity.unwrap_or_default(),
        blocks,
        pools: documents
            .pools()
            .map(|(document, pool)| Pool {
                name: document.name().to_owned(),
                cidr: pool.cidr,
                enabled: !pool.disabled,
                advertised: !pool.disable_bgp_export,
                block_size: pool.block_size(),
                ipip_mode: pool.ipip_mode,
                vxlan_mode: pool.vxlan_mode,
                nat_outgoing: pool.nat_outgoing,
            })
            .collect(),
        tunnels: tunnels(documents, &facts),
        peers: found.peers,
        peer_ranges: found.ranges,
        host_routes,
        filters,
        chosen: chosen(&facts),
        notes,
        subnet_mismatches: subnet_mismatches(documents, &facts),
    })
}

fn tunnels(documents: &DocumentSet, facts: &Facts<'_>) -> Tunnels {
    let others = documents.nodes().filter(|(_, other)| other.metadata.name != facts.name());
    let mut tunnels = Tunnels {
        zone_label: facts.configuration.zone_label.clone(),
        zone: None,
        vxlan_vni: facts.configuration.vxlan_vni.unwrap_or(VXLAN_VNI),
        vxlan_port: facts.configuration.vxlan_port.unwrap_or(VXLAN_PORT),
        endpoints: others.map(|(_, other)| networks(other).iter().flatten().count()).sum(),
    };
    tunnels.zone = tunnels.zone_of(facts.object).map(ToOwned::to_owned);
    tunnels
}

/// How the node's own numbers were chosen, for `show node`.
fn chosen(facts: &Facts<'_>) -> Vec<String> {
    let bgp = &facts.object.spec.bgp;
    let as_number = match (bgp.as_number, facts.configuration.as_number) {
        (Some(_), _) => "the Node document",
        (None, Some(_)) => "the BGPConfiguration",
        (None, None) => "the default, no document names one",
    };
    let router_id = match (bgp.router_id, bgp.ipv4_address) {
        (Some(_), _) => "the Node document",
        (None, Some(_)) => "the node's IPv4 address",
        (None, None) => "derived from the node's name, since it has no IPv4 address",
    };
    let mut lines = vec![format!("asNumber: {as_number}"), format!("routerID: {router_id}")];
    for (field, given) in
        [("ipv4Address", bgp.ipv4_address.is_some()), ("ipv6Address", bgp.ipv6_address.is_some())]
    {
        if given {
            lines.push(format!("{field}: the Node document"));
        }
    }
    lines
}

/// Nodes that one of the two believes to be on its link and the other does not, and own addresses without a subnet.
fn subnet_mismatches(documents: &DocumentSet, facts: &Facts<'_>) -> Vec<String> {
    let mut lines = Vec::new();
    let own = networks(facts.object);
    for (network, name) in own.iter().zip(["ipv4Address", "ipv6Address"]) {
        let Some(network) = network else { continue };
        if network.prefix() == if network.is_ipv4() { 32 } else { 128 } {
            lines.push(format!(
                "{name} {network} has no subnet: every other node counts as being in another one"
            ));
        }
    }
    for (_, other) in documents.nodes().filter(|(_, other)| other.metadata.name != facts.name()) {
        for (mine, theirs) in
            own.iter().zip(networks(other)).filter_map(|(mine, theirs)| Some(((*mine)?, theirs?)))
        {
            if mine.contains(theirs.ip()) != theirs.contains(mine.ip()) {
                let name = &other.metadata.name;
                lines
                    .push(format!("{mine} and {theirs} of node {name} disagree whether they share a subnet"));
            }
        }
        if lines.len() >= 16 {
            break;
        }
    }
    lines
}

fn networks(node: &Object<NodeSpec>) -> [Option<IpNetwork>; 2] {
    let bgp = &node.spec.bgp;
    [bgp.ipv4_address.map(|address| address.0.into()), bgp.ipv6_address.map(|address| address.0.into())]
}

fn listen(facts: &Facts<'_>, notes: &mut Vec<String>) -> Listen {
    let mut addresses = Vec::new();
    if facts.configuration.bind_mode == Some(BindMode::NodeIP) {
        addresses.extend(facts.address(true));
        addresses.extend(facts.address(false));
        if addresses.is_empty() {
            notes.push(
                "bindMode NodeIP: the node has no address, so all addresses are listened on".to_owned(),
            );
        }
    }
    Listen { port: facts.listen_port, addresses }
}

fn blocks(documents: &DocumentSet, facts: &Facts<'_>, role: Role, notes: &mut Vec<String>) -> Vec<Block> {
    let cidrs = &facts.object.spec.pod_cidrs;
    if role == Role::Reflector {
        if !cidrs.is_empty() {
            notes.push("podCIDRs are not looked at: a reflector has no blocks".to_owned());
        }
        return Vec::new();
    }
    let block = |cidr: &Cidr| {
        // The set was validated: every block has its pool.
        let (document, pool) = documents.pools().find(|(_, pool)| pool.cidr.covers(*cidr))?;
        let advertisements = facts.configuration.prefix_advertisements.iter().flatten();
        let mut communities: Vec<_> = advertisements
            .filter(|advertisement| advertisement.cidr.covers(*cidr))
            .flat_map(|advertisement| &advertisement.communities)
            .filter_map(|word| resolve_community(&facts.configuration, word).ok())
            .collect();
        communities.sort();
        communities.dedup();
        Some(Block {
            cidr: *cidr,
            pool: document.name().to_owned(),
            advertised: !pool.disable_bgp_export,
            communities,
        })
    };
    cidrs.iter().filter_map(block).collect()
}
