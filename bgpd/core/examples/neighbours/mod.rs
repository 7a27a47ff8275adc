//! A node 192.0.2.100 and its eBGP neighbours 192.0.2.N with AS number 64600 + N, for the examples that feed one.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use causeway_bgp_core::config::{
    Config, Distance, MaxPrefixes, NextHopMode, Password, PeerConfig, PeerKey, PeerSettings, RemoteAs, Role,
    SessionConfig,
};
use causeway_bgp_core::event::SessionInfo;
use causeway_bgp_core::policy::{ExportPolicy, ImportPolicy};
use causeway_bgp_wire::{Asn, FamilySet};

/// AS number of the node.
const LOCAL_AS: Asn = Asn(64512);

/// Address of a neighbour.
pub fn address(number: u8) -> IpAddr {
    Ipv4Addr::new(192, 0, 2, number).into()
}

/// A neighbour as the node's configuration has it.
fn peer(number: u8) -> PeerConfig {
    PeerConfig {
        key: PeerKey { address: address(number), port: None },
        settings: PeerSettings {
            name: format!("peer {number}"),
            session: SessionConfig {
                local_as: LOCAL_AS,
                remote_as: RemoteAs::External,
                router_id: Ipv4Addr::new(10, 0, 0, 100),
                hold_time: Duration::from_secs(90),
                keepalive_time: Duration::from_secs(30),
                connect_retry_time: Duration::from_secs(5),
                passive: false,
                families: FamilySet::ALL,
                distance: Distance::Ttl(1),
                source: None,
                password: Password::None,
                graceful_restart: None,
                reachable_by: None,
            },
            import: Arc::new(ImportPolicy::accept_all()),
            export: Arc::new(ExportPolicy::accept_all()),
            next_hop_mode: NextHopMode::Auto,
            client: false,
            allowed_local_as: 0,
            max_prefixes: MaxPrefixes::default(),
            max_restart_time: Duration::ZERO,
        },
    }
}

/// The session with a neighbour.
pub fn session(number: u8) -> SessionInfo {
    SessionInfo {
        remote_as: Asn(64600 + u32::from(number)),
        local_as: LOCAL_AS,
        router_id: Ipv4Addr::new(10, 0, 0, number),
        local_address: address(100),
        local_link_local: None,
        remote_address: address(number),
        families: FamilySet::ALL,
        four_octet_as: true,
        extended_message: false,
        route_refresh: true,
        enhanced_refresh: false,
        graceful: None,
        hold_time: Duration::from_secs(90),
        keepalive_time: Duration::from_secs(30),
        capabilities: Vec::new(),
    }
}

/// The node with neighbours 1 to `count`.
pub fn node(count: u8) -> Config {
    Config {
        node: "node".to_owned(),
        role: Role::Node,
        local_as: LOCAL_AS,
        router_id: Ipv4Addr::new(10, 0, 0, 100),
        cluster_id: None,
        address_v4: Some(Ipv4Addr::new(192, 0, 2, 100)),
        address_v6: None,
        max_paths: 16,
        graceful_restart: None,
        own: Vec::new(),
        peers: (1..=count).map(peer).collect(),
        ranges: Vec::new(),
    }
}
