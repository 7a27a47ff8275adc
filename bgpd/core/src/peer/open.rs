//! What our OPEN says, and what follows from the peer's. Pure. RFC 4271 §4.2 and §6.2, RFC 5492, RFC 6286, RFC 6793.
//!
//! What is wrong with an OPEN by itself (version, hold time of 1 or 2 s, identifier 0, AS 0, malformed parameters) the
//! codec has refused already; here is what takes both ends to judge.

use std::net::Ipv4Addr;
use std::time::Duration;

use causeway_bgp_wire::{
    Asn, Capability, DecodeContext, FamilySet, Notification, Open, SessionKind, VERSION,
};

use crate::config::{RemoteAs, SessionConfig};
use crate::event::PeerRestart;

use super::graceful::{self, RestartMarks};
use super::timers;

/// Our OPEN. `bare` leaves all capabilities out, for a peer that refused the optional parameter (RFC 5492 §3).
pub fn ours(config: &SessionConfig, marks: RestartMarks, bare: bool) -> Open {
    let hold_time = config.hold_time.as_secs().min(u64::from(u16::MAX)) as u16;
    if bare {
        let my_as = config.local_as.to_two_octet();
        let (router_id, capabilities) = (config.router_id, Vec::new());
        return Open { version: VERSION, my_as, hold_time, router_id, capabilities };
    }
    let families = config.families.iter().map(|family| Capability::Multiprotocol(family.afi_safi()));
    let mut capabilities: Vec<Capability> = families.collect();
    capabilities.extend([
        Capability::RouteRefresh,
        Capability::EnhancedRouteRefresh,
        Capability::ExtendedMessage,
    ]);
    if let Some(restart_time) = config.graceful_restart {
        capabilities.push(graceful::capability(restart_time, config.families, marks));
    }
    Open::new(config.local_as, hold_time, config.router_id, capabilities)
}

/// What both OPENs come to.
#[derive(Clone, Debug, PartialEq)]
pub struct Negotiated {
    /// The peer's AS number.
    pub remote_as: Asn,
    /// The peer's BGP identifier.
    pub router_id: Ipv4Addr,
    /// Families of both ends.
    pub families: FamilySet,
    /// Four-octet AS numbers.
    pub four_octet_as: bool,
    /// Messages up to 65,535 octets.
    pub extended_message: bool,
    /// The peer understands ROUTE-REFRESH.
    pub route_refresh: bool,
    /// Both understand enhanced route refresh.
    pub enhanced_refresh: bool,
    /// The peer's restart capability, where ours was sent.
    pub graceful: Option<PeerRestart>,
    /// Hold time in force; `None`: no timers.
    pub hold_time: Option<Duration>,
    /// Keepalive interval in force; `None`: no timers.
    pub keepalive_time: Option<Duration>,
    /// What the peer announced.
    pub capabilities: Vec<Capability>,
}

impl Negotiated {
    /// How the rest of the session is to be decoded.
    pub fn decode_context(&self, local_as: Asn) -> DecodeContext {
        let kind = if self.remote_as == local_as { SessionKind::Internal } else { SessionKind::External };
        DecodeContext {
            four_octet_as: self.four_octet_as,
            extended_message: self.extended_message,
            ..DecodeContext::new(kind, self.families)
        }
    }
}

/// Why an OPEN is refused: what the peer is told, and why in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The NOTIFICATION.
    pub notification: Notification,
    /// For the log.
    pub reason: String,
}

/// Judges the peer's OPEN against ours.
///
/// # Errors
/// The NOTIFICATION that refuses it (RFC 4271 §6.2).
pub fn negotiate(config: &SessionConfig, sent: &Open, received: &Open) -> Result<Negotiated, Refusal> {
    let refuse = |notification, reason| Err(Refusal { notification, reason });
    let remote_as = received.asn();
    let (wanted, fits) = match config.remote_as {
        RemoteAs::Number(asn) => (asn.to_string(), remote_as == asn),
        RemoteAs::Internal => (config.local_as.to_string(), remote_as == config.local_as),
        RemoteAs::External => (format!("any but {}", config.local_as), remote_as != config.local_as),
    };
    if !fits {
        return refuse(
            Notification::bad_peer_as(),
            format!("the peer's AS is {remote_as}, configured is {wanted}"),
        );
    }
    // RFC 6286 §2.2: only inside one AS must identifiers differ.
    if remote_as == config.local_as && received.router_id == config.router_id {
        return refuse(
            Notification::bad_bgp_identifier(),
            format!("the peer's BGP identifier {} is our own", received.router_id),
        );
    }
    let offered = sent.families();
    let families = offered.intersection(received.families());
    if families.is_empty() {
        let missing: Vec<Capability> =
            offered.iter().map(|family| Capability::Multiprotocol(family.afi_safi())).collect();
        return refuse(
            Notification::unsupported_capability(&missing),
            format!("no family in common: we offer {offered}, the peer {}", received.families()),
        );
    }
    let hold_time = timers::hold_time(
        Duration::from_secs(u64::from(sent.hold_time)),
        Duration::from_secs(u64::from(received.hold_time)),
    );
    let graceful = sent.graceful_restart().and_then(|_| graceful::peer_restart(received, families));
    Ok(Negotiated {
        remote_as,
        router_id: received.router_id,
        families,
        four_octet_as: sent.four_octet_as().is_some() && received.four_octet_as().is_some(),
        extended_message: sent.extended_message() && received.extended_message(),
        route_refresh: received.route_refresh(),
        enhanced_refresh: sent.enhanced_route_refresh() && received.enhanced_route_refresh(),
        graceful,
        hold_time,
        keepalive_time: hold_time.map(|hold| timers::keepalive_time(config.keepalive_time, hold)),
        capabilities: received.capabilities.clone(),
    })
}
