//! The effective configuration in the engine's own types. Pure.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use causeway_api::effective::{self, EffectiveNode};
use causeway_api::resource::bgp_peer::NextHopMode as DocumentNextHopMode;
use causeway_api::resource::community::Community;
use causeway_api::resource::meta::AddressFamily;
use causeway_api::resource::scalar::{Cidr, PeerAsn};
use causeway_bgp_core::config::{
    Config, Distance, MaxPrefixes, NextHopMode, OwnPrefix, Password, PeerConfig, PeerKey, PeerSettings,
    RangeConfig, RemoteAs, Role, SessionConfig,
};
use causeway_bgp_core::policy::{ExportDefault, ExportPolicy, ImportPolicy, NamedRange};
use causeway_bgp_wire::{Asn, Family, FamilySet, Prefix};

use super::filter;

/// The port of RFC 4271, which a peer's key leaves out.
const BGP_PORT: u16 = 179;

/// Most peers that may be connected out of one `peerRange` at a time.
const RANGE_LIMIT: usize = 16_384;

/// The engine's configuration.
pub(super) fn config(node: &EffectiveNode) -> Config {
    let mut policies = Policies { node, made: HashMap::new() };
    Config {
        node: node.node.clone(),
        role: match node.role {
            effective::Role::Node => Role::Node,
            effective::Role::Reflector => Role::Reflector,
        },
        local_as: Asn(node.as_number),
        router_id: node.router_id,
        cluster_id: node.cluster_id,
        address_v4: node.ipv4_address.map(|address| address.ip()),
        address_v6: node.ipv6_address.map(|address| address.ip()),
        max_paths: usize::from(node.max_paths),
        graceful_restart: node.graceful_restart_time.map(|time| time.0),
        own: node.blocks.iter().filter_map(own_prefix).collect(),
        peers: node
            .peers
            .iter()
            .map(|peer| PeerConfig {
                key: PeerKey {
                    address: peer.address,
                    port: Some(peer.port).filter(|port| *port != BGP_PORT),
                },
                settings: settings(node, &peer.settings, &mut policies),
            })
            .collect(),
        ranges: node
            .peer_ranges
            .iter()
            .filter_map(|range| {
                Some(RangeConfig {
                    range: prefix(range.range)?,
                    limit: RANGE_LIMIT,
                    settings: settings(node, &range.settings, &mut policies),
                })
            })
            .collect(),
    }
}

/// A document's prefix as the engine's.
pub(super) fn prefix(cidr: Cidr) -> Option<Prefix> {
    Prefix::new(cidr.0.network(), cidr.length())
}

fn own_prefix(block: &effective::Block) -> Option<OwnPrefix> {
    let mut communities = Vec::new();
    let mut large_communities = Vec::new();
    for community in &block.communities {
        match community {
            Community::Standard(value) => communities.push(*value),
            Community::Large(value) => large_communities.push(*value),
        }
    }
    Some(OwnPrefix { prefix: prefix(block.cidr)?, communities, large_communities, export: block.advertised })
}

fn settings(
    node: &EffectiveNode,
    from: &effective::PeerSettings,
    policies: &mut Policies<'_>,
) -> PeerSettings {
    let (import, export) = policies.of(&from.filters);
    let limits = from.max_prefixes.unwrap_or_default();
    PeerSettings {
        name: from.name.clone(),
        session: session(node, from),
        import,
        export,
        next_hop_mode: match from.next_hop_mode {
            DocumentNextHopMode::Auto => NextHopMode::Auto,
            DocumentNextHopMode::Own => NextHopMode::Self_,
            DocumentNextHopMode::Keep => NextHopMode::Keep,
        },
        client: from.reflector_client,
        allowed_local_as: from.allowed_local_as,
        max_prefixes: MaxPrefixes {
            ipv4: limits.ipv4,
            ipv6: limits.ipv6,
            warn_at: limits.warn_at,
            restart_after: limits.restart_after.map(|time| time.0),
        },
        max_restart_time: from.max_restart_time.0,
    }
}

fn session(node: &EffectiveNode, from: &effective::PeerSettings) -> SessionConfig {
    let mut families = FamilySet::EMPTY;
    for family in &from.families {
        families.insert(match family {
            AddressFamily::Ipv4 => Family::Ipv4Unicast,
            AddressFamily::Ipv6 => Family::Ipv6Unicast,
        });
    }
    SessionConfig {
        local_as: Asn(from.local_as),
        remote_as: match from.remote_as {
            PeerAsn::Number(number) => RemoteAs::Number(Asn(number)),
            PeerAsn::Internal => RemoteAs::Internal,
            PeerAsn::External => RemoteAs::External,
        },
        router_id: node.router_id,
        hold_time: from.hold_time.0,
        keepalive_time: from.keepalive_time.0,
        connect_retry_time: from.connect_retry_time.0,
        passive: from.passive,
        families,
        distance: match from.distance {
            effective::Distance::Ttl(ttl) => Distance::Ttl(ttl),
            effective::Distance::TtlSecurity(hops) => Distance::Security(hops),
        },
        source: from.source,
        password: match &from.password {
            effective::Password::None => Password::None,
            effective::Password::Key(key) => Password::Key(key.clone()),
            effective::Password::Missing(reason) => Password::Missing(reason.clone()),
        },
        graceful_restart: from.graceful_restart_time.map(|time| time.0).filter(|time| *time > Duration::ZERO),
        reachable_by: from.reachable_by,
    }
}

/// The two policies of a peer.
type PolicyPair = (Arc<ImportPolicy>, Arc<ExportPolicy>);

/// Policies by the filters that make them: peers with the same filters share them, and so an update group.
struct Policies<'a> {
    node: &'a EffectiveNode,
    made: HashMap<Vec<String>, PolicyPair>,
}

impl Policies<'_> {
    fn of(&mut self, filters: &[String]) -> PolicyPair {
        if let Some(made) = self.made.get(filters) {
            return made.clone();
        }
        let pair = (Arc::new(self.import(filters)), Arc::new(self.export(filters)));
        self.made.insert(filters.to_vec(), pair.clone());
        pair
    }

    fn import(&self, filters: &[String]) -> ImportPolicy {
        let node = self.node;
        let never = node.blocks.iter().filter_map(|block| {
            let rule = format!("default: inside {}, a block of this node", block.cidr);
            Some(NamedRange { prefix: prefix(block.cidr)?, rule: rule.into() })
        });
        let inside = node.pools.iter().filter(|pool| pool.enabled).filter_map(|pool| {
            let rule = format!("default: inside IPPool {}", pool.name);
            Some(NamedRange { prefix: prefix(pool.cidr)?, rule: rule.into() })
        });
        let chain = filter::chain(node, filters, filter::Direction::Import);
        ImportPolicy::new(never.collect(), chain, inside.collect())
    }

    fn export(&self, filters: &[String]) -> ExportPolicy {
        let node = self.node;
        let default = match node.cluster_id {
            None => ExportDefault::Own,
            Some(_) => ExportDefault::AcceptedExcept(
                node.pools
                    .iter()
                    .filter(|pool| !pool.advertised)
                    .filter_map(|pool| {
                        let rule =
                            format!("default: inside IPPool {}, which has disableBGPExport", pool.name);
                        Some(NamedRange { prefix: prefix(pool.cidr)?, rule: rule.into() })
                    })
                    .collect(),
            ),
        };
        ExportPolicy::new(filter::chain(node, filters, filter::Direction::Export), default)
    }
}
