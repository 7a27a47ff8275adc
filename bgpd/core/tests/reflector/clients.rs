//! A reflector and its clients, for the examples and tests that load one. Pure.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use causeway_bgp_core::config::{
    Config, Distance, MaxPrefixes, NextHopMode, Password, PeerConfig, PeerKey, PeerSettings, RemoteAs, Role,
    SessionConfig,
};
use causeway_bgp_core::event::{Input, Output, PeerId, SessionInfo};
use causeway_bgp_core::policy::{ExportPolicy, ImportPolicy};
use causeway_bgp_core::speaker::{Speaker, StartMode};
use causeway_bgp_wire::{Asn, Family, FamilySet};

const ASN: Asn = Asn(64512);
/// The families of every session.
pub const V4: FamilySet = FamilySet::only(Family::Ipv4Unicast);
const SELF: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 100);

/// A client's address.
pub fn address(client: u32) -> Ipv4Addr {
    Ipv4Addr::from(0x0a80_0000 + client)
}

fn config(clients: u32) -> Config {
    let settings = PeerSettings {
        name: "client".to_owned(),
        session: SessionConfig {
            local_as: ASN,
            remote_as: RemoteAs::Internal,
            router_id: SELF,
            hold_time: Duration::from_secs(90),
            keepalive_time: Duration::from_secs(30),
            connect_retry_time: Duration::from_secs(5),
            passive: true,
            families: V4,
            distance: Distance::Ttl(255),
            source: None,
            password: Password::None,
            graceful_restart: None,
            reachable_by: None,
        },
        import: Arc::new(ImportPolicy::accept_all()),
        export: Arc::new(ExportPolicy::accept_all()),
        next_hop_mode: NextHopMode::Auto,
        client: true,
        allowed_local_as: 0,
        max_prefixes: MaxPrefixes::default(),
        max_restart_time: Duration::ZERO,
    };
    let key = |client| PeerKey { address: address(client).into(), port: None };
    Config {
        node: "reflector".to_owned(),
        role: Role::Reflector,
        local_as: ASN,
        router_id: SELF,
        cluster_id: Some(SELF),
        address_v4: Some(SELF),
        address_v6: None,
        max_paths: 1,
        graceful_restart: None,
        own: Vec::new(),
        peers: (0..clients).map(|n| PeerConfig { key: key(n), settings: settings.clone() }).collect(),
        ranges: Vec::new(),
    }
}

/// What a client's session has come to.
pub fn session(client: u32) -> Arc<SessionInfo> {
    Arc::new(SessionInfo {
        remote_as: ASN,
        local_as: ASN,
        router_id: address(client),
        local_address: IpAddr::V4(SELF),
        local_link_local: None,
        remote_address: address(client).into(),
        families: V4,
        four_octet_as: true,
        extended_message: false,
        route_refresh: true,
        enhanced_refresh: false,
        graceful: None,
        hold_time: Duration::from_secs(90),
        keepalive_time: Duration::from_secs(30),
        capabilities: Vec::new(),
    })
}

/// A reflector with so many clients, none of them up yet.
pub fn reflector(now: Instant, clients: u32) -> (Speaker, Vec<PeerId>) {
    let mut speaker = Speaker::new(now, StartMode { restarting: false, fib: false });
    speaker.handle(now, Input::Configure(Arc::new(config(clients))));
    let mut peers = Vec::new();
    while let Some(output) = speaker.poll_output() {
        if let Output::PeerAdded { peer, .. } = output {
            peers.push(peer);
        }
    }
    (speaker, peers)
}
