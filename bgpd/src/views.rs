//! What the speaker shows, as the JSON of the local API. Pure.

use std::net::IpAddr;
use std::time::Instant;

use causeway_api::control::{self, AsPathElement, Direction, Family, Origin, Peer, Route, SessionState, Via};
use causeway_bgp_core::config::{PeerKey, RemoteAs};
use causeway_bgp_core::event::FibStatus;
use causeway_bgp_core::peer::State;
use causeway_bgp_core::speaker::{self, PeerView, RouteView};
use causeway_bgp_wire::{self as wire, AsPath, PathAttributes, SegmentKind, Tunnel, TunnelKind};
use ipnetwork::IpNetwork;

use crate::speaker_link::PeerStatus;

/// A row of `show routes`.
pub fn route(view: &RouteView, now: Instant) -> Route {
    let attributes: &PathAttributes = &view.attrs;
    let learned = view.direction == speaker::Direction::Learned;
    let next_hop = attributes.next_hop.global;
    Route {
        prefix: network(&view.prefix),
        family: family(view.prefix.family()),
        direction: match view.direction {
            speaker::Direction::Learned => Direction::Learned,
            speaker::Direction::Advertised => Direction::Advertised,
            speaker::Direction::Best => Direction::Best,
        },
        peer: view.peer_address.map(|address| address.to_string()),
        peer_as: view.peer_as.map(|asn| asn.0),
        next_hop: (!next_hop.is_unspecified()).then_some(next_hop),
        as_path: as_path(&attributes.as_path),
        origin: match attributes.origin {
            wire::Origin::Igp => Origin::Igp,
            wire::Origin::Egp => Origin::Egp,
            wire::Origin::Incomplete => Origin::Incomplete,
        },
        local_pref: attributes.local_pref,
        med: attributes.med,
        communities: attributes.communities.iter().map(ToString::to_string).collect(),
        large_communities: attributes.large_communities.iter().map(ToString::to_string).collect(),
        originator_id: attributes.originator_id.map(|id| id.to_string()),
        cluster_list: attributes.cluster_list.iter().map(ToString::to_string).collect(),
        best: view.best,
        multipath: view.multipath,
        reason: (!view.reason.is_empty()).then(|| view.reason.clone()),
        stale: view.stale,
        age: view.since.map_or(0.0, |since| now.saturating_duration_since(since).as_secs_f64()),
        fib: match &view.fib {
            None => "not-programmed".to_owned(),
            Some(FibStatus::Installed(_)) => "installed".to_owned(),
            Some(FibStatus::Pending) => "pending".to_owned(),
            Some(FibStatus::Failed(why)) => format!("failed: {why}"),
        },
        via: view.via.map(|via| match via {
            speaker::Via::Local => Via::Local,
            speaker::Via::Direct => Via::Direct,
            speaker::Via::Recursive => Via::Recursive,
            speaker::Via::Ipip => Via::Ipip,
            speaker::Via::Vxlan => Via::Vxlan,
        }),
        weight: view.weight,
        backup: view.backup,
        tunnel: view.tunnel.map(|tunnel| tunnel_text(&tunnel, next_hop)),
        accepted: learned.then_some(view.accepted),
        rule: (!view.rule.is_empty()).then(|| view.rule.to_string()),
    }
}

/// A tunnel as it is shown.
fn tunnel_text(tunnel: &Tunnel, next_hop: IpAddr) -> String {
    let kind = match tunnel.kind {
        TunnelKind::Vxlan => "vxlan",
        TunnelKind::Ipip => "ipip",
        TunnelKind::Any => "vxlan or ipip",
    };
    let mut text = format!("{kind} to {}", tunnel.endpoint.unwrap_or(next_hop));
    if let Some(vni) = tunnel.vni {
        text += &format!(", VNI {vni}");
    }
    if let Some([a, b, c, d, e, f]) = tunnel.mac {
        text += &format!(", MAC {a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}");
    }
    text
}

/// A row of `show peers`.
pub fn peer(view: &PeerView, status: &PeerStatus, resets: u64, now: Instant) -> Peer {
    let session = status.session.as_deref();
    let settings = &view.settings;
    let sum = |count: fn(&speaker::PeerFamilyView) -> u64| view.families.iter().map(count).sum::<u64>();
    let remote_as = session.map(|session| session.remote_as.0).or(match settings.session.remote_as {
        RemoteAs::Number(asn) => Some(asn.0),
        RemoteAs::Internal => Some(settings.session.local_as.0),
        RemoteAs::External => None,
    });
    Peer {
        peer: peer_name(&view.key),
        name: settings.name.clone(),
        remote_as,
        local_as: settings.session.local_as.0,
        state: session_state(status.state),
        disabled: status.disabled,
        uptime: session.map(|_| now.saturating_duration_since(status.since).as_secs_f64()),
        hold_time: session.map(|session| session.hold_time.as_secs_f64()),
        keepalive_time: session.map(|session| session.keepalive_time.as_secs_f64()),
        families: session
            .map_or(settings.session.families, |session| session.families)
            .iter()
            .map(family)
            .collect(),
        received: sum(|family| family.received),
        accepted: sum(|family| family.accepted),
        stale: sum(|family| family.stale),
        advertised: sum(|family| family.advertised),
        updates_received: view.updates_received,
        updates_sent: view.updates_sent,
        resets,
        last_error: status.last_error.clone().or_else(|| view.last_down.clone()),
        router_id: session.map(|session| session.router_id.to_string()),
        local_address: session.map(|session| session.local_address.to_string()),
        capabilities: session
            .map_or_else(Vec::new, |session| session.capabilities.iter().map(ToString::to_string).collect()),
    }
}

/// How a peer is named: its address, with the port where the document names one.
pub fn peer_name(key: &PeerKey) -> String {
    match (key.port, key.address) {
        (None, address) => address.to_string(),
        (Some(port), IpAddr::V4(address)) => format!("{address}:{port}"),
        (Some(port), IpAddr::V6(address)) => format!("[{address}]:{port}"),
    }
}

/// A prefix as the API writes it.
pub fn network(prefix: &wire::Prefix) -> IpNetwork {
    match IpNetwork::new(prefix.address(), prefix.prefix_len()) {
        Ok(network) => network,
        // A prefix never has more bits than its address.
        Err(_) => IpNetwork::from(prefix.address()),
    }
}

/// A prefix from the API.
pub fn prefix(network: &IpNetwork) -> Option<wire::Prefix> {
    wire::Prefix::new(network.network(), network.prefix())
}

/// A family as the API writes it.
pub fn family(family: wire::Family) -> Family {
    match family {
        wire::Family::Ipv4Unicast => Family::Ipv4,
        wire::Family::Ipv6Unicast => Family::Ipv6,
    }
}

/// A session's state as the API writes it.
pub fn session_state(state: State) -> SessionState {
    match state {
        State::Idle => SessionState::Idle,
        State::Connect => SessionState::Connect,
        State::Active => SessionState::Active,
        State::OpenSent => SessionState::OpenSent,
        State::OpenConfirm => SessionState::OpenConfirm,
        State::Established => SessionState::Established,
    }
}

fn as_path(path: &AsPath) -> Vec<AsPathElement> {
    let mut elements = Vec::new();
    for segment in path.segments() {
        let members = segment.asns().map(|asn| asn.0);
        match segment.kind {
            SegmentKind::Sequence | SegmentKind::ConfedSequence => {
                elements.extend(members.map(AsPathElement::Asn));
            }
            SegmentKind::Set | SegmentKind::ConfedSet => elements.push(AsPathElement::Set(members.collect())),
        }
    }
    elements
}

/// What a metric's label says of a family.
pub fn family_label(family: wire::Family) -> &'static str {
    match family {
        wire::Family::Ipv4Unicast => "ipv4",
        wire::Family::Ipv6Unicast => "ipv6",
    }
}

/// Every state a metric tells apart.
pub const SESSION_STATES: [(control::SessionState, &str); 6] = [
    (SessionState::Idle, "Idle"),
    (SessionState::Connect, "Connect"),
    (SessionState::Active, "Active"),
    (SessionState::OpenSent, "OpenSent"),
    (SessionState::OpenConfirm, "OpenConfirm"),
    (SessionState::Established, "Established"),
];
