//! One TCP connection of a peer: its state, its timers, and what its OPENs came to. Pure data with small helpers;
//! [`super::Session`] decides. RFC 4271 §8.2.1.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use causeway_bgp_wire::{DecodeContext, FamilySet, Notification, Open, SessionKind};

use crate::config::SessionConfig;
use crate::event::SessionInfo;

use super::collision::Origin;
use super::fsm::State;
use super::io::ConnectionId;
use super::open::Negotiated;
use super::timers;

/// The ends of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// Our end.
    pub local: IpAddr,
    /// The peer's end.
    pub remote: IpAddr,
    /// Our link-local address on the interface that bears `local`, where the peer sits on that link.
    pub link_local: Option<Ipv6Addr>,
}

/// A KEEPALIVE that answers an OPEN but is kept back, since a rival connection will win the collision as soon as its
/// own OPEN comes: without it the peer cannot take this connection for Established while the rival wins.
#[derive(Clone, Copy, Debug)]
pub(super) struct Withheld {
    /// Sent then at the latest.
    pub until: Instant,
    /// The peer's KEEPALIVE has come meanwhile.
    pub keepalive_seen: bool,
}

/// A connection in OpenSent, OpenConfirm or Established.
#[derive(Debug)]
pub(super) struct Connection {
    pub id: ConnectionId,
    pub origin: Origin,
    pub state: State,
    pub addresses: Addresses,
    /// Our OPEN on it.
    pub sent: Open,
    /// Set from OpenConfirm on.
    pub negotiated: Option<Negotiated>,
    pub context: DecodeContext,
    pub hold: Option<Instant>,
    pub keepalive: Option<Instant>,
    pub withheld: Option<Withheld>,
    /// The driver has stopped reading: silence is not the peer's.
    pub paused: bool,
}

impl Connection {
    /// A connection whose OPEN is being sent.
    pub fn new(now: Instant, id: ConnectionId, origin: Origin, addresses: Addresses, sent: Open) -> Self {
        Connection {
            id,
            origin,
            state: State::OpenSent,
            addresses,
            sent,
            negotiated: None,
            context: DecodeContext::new(SessionKind::External, FamilySet::EMPTY),
            hold: Some(now + timers::OPEN_HOLD_TIME),
            keepalive: None,
            withheld: None,
            paused: false,
        }
    }

    /// Hold time as negotiated; the large value before that.
    fn hold_time(&self) -> Option<Duration> {
        match &self.negotiated {
            Some(negotiated) => negotiated.hold_time,
            None => Some(timers::OPEN_HOLD_TIME),
        }
    }

    /// HoldTimer starts anew.
    pub fn restart_hold(&mut self, now: Instant) {
        self.hold = self.hold_time().map(|hold| now + hold);
    }

    /// KeepaliveTimer starts anew; it does not run where the hold time is zero.
    pub fn restart_keepalive(&mut self, now: Instant, rng: &mut fastrand::Rng) {
        let interval = self.negotiated.as_ref().and_then(|n| n.keepalive_time);
        self.keepalive = interval.map(|interval| timers::next_keepalive(now, interval, rng));
    }

    /// When something is due on this connection.
    pub fn next_timeout(&self) -> Option<Instant> {
        let hold = self.hold.filter(|_| !self.paused);
        [hold, self.keepalive, self.withheld.map(|w| w.until)].into_iter().flatten().min()
    }

    /// What the speaker is to know of the session; `None` before the OPEN.
    pub fn info(&self, config: &SessionConfig) -> Option<Arc<SessionInfo>> {
        let negotiated = self.negotiated.as_ref()?;
        Some(Arc::new(SessionInfo {
            remote_as: negotiated.remote_as,
            local_as: config.local_as,
            router_id: negotiated.router_id,
            local_address: self.addresses.local,
            local_link_local: self.addresses.link_local,
            remote_address: self.addresses.remote,
            families: negotiated.families,
            four_octet_as: negotiated.four_octet_as,
            extended_message: negotiated.extended_message,
            route_refresh: negotiated.route_refresh,
            enhanced_refresh: negotiated.enhanced_refresh,
            graceful: negotiated.graceful.clone(),
            hold_time: negotiated.hold_time.unwrap_or_default(),
            keepalive_time: negotiated.keepalive_time.unwrap_or_default(),
            capabilities: negotiated.capabilities.clone(),
        }))
    }
}

/// Why a connection ends: for people, for the metric, and what it means for what comes after.
#[derive(Clone, Debug)]
pub(super) struct Cause {
    /// For people.
    pub reason: String,
    /// One of the labels of [`crate::event::Down`].
    pub label: &'static str,
    /// What goes with it to the peer, where the transition says so.
    pub notification: Option<Notification>,
    /// TCP was lost, nothing said.
    pub tcp_lost: bool,
    /// Somebody wanted it: no error, no back-off.
    pub wanted: bool,
}

impl Cause {
    fn new(label: &'static str, reason: impl Into<String>) -> Self {
        Cause { reason: reason.into(), label, notification: None, tcp_lost: false, wanted: false }
    }

    /// For events that end nothing.
    pub fn none() -> Self {
        Cause::new("tcp", "")
    }

    /// TCP was lost.
    pub fn tcp(reason: impl Into<String>) -> Self {
        Cause { tcp_lost: true, ..Cause::new("tcp", reason) }
    }

    /// The peer ended it.
    pub fn received(notification: &Notification) -> Self {
        Cause::new("notification-received", format!("received {notification}"))
    }

    /// We found an error.
    pub fn error(notification: Notification, reason: impl Into<String>) -> Self {
        Cause { notification: Some(notification), ..Cause::new("notification-sent", reason) }
    }

    /// A timer ran out.
    pub fn hold_timer() -> Self {
        Cause::new("hold-timer", "hold timer expired")
    }

    /// Another connection with the same peer was kept.
    pub fn collision() -> Self {
        Cause { wanted: true, ..Cause::new("collision", "lost the collision with another connection") }
    }

    /// The operator, the configuration or the system ends it.
    pub fn command(label: &'static str, notification: Notification) -> Self {
        let reason = format!("sent {notification}");
        Cause { notification: Some(notification), wanted: true, ..Cause::new(label, reason) }
    }

    /// The link is down.
    pub fn link_down(device: &str) -> Self {
        Cause::new("link-down", format!("link {device} went down"))
    }

    /// The message has no place in this state.
    pub fn unexpected(what: &str, state: State) -> Self {
        Cause::new("notification-sent", format!("unexpected {what} in {state}"))
    }
}
