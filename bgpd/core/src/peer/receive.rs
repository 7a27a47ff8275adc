//! Octets to messages to events: framing, decoding with what was negotiated, and what each message means in the
//! state it comes in. Pure. RFC 4271 §6 and §8.2.2, RFC 5492 §3, RFC 2918, RFC 7313.

use std::sync::Arc;
use std::time::Instant;

use causeway_bgp_wire::{self as wire, Header, Message, MessageType, Open, RouteRefresh};

use crate::Updates;
use crate::event::RefreshKind;

use super::collision::{self, Identity, Origin};
use super::connection::{Cause, Connection, Withheld};
use super::fsm::{Event, State};
use super::io::{ConnectionId, SessionOutput};
use super::open;
use super::session::Session;
use super::timers;

/// [`Session::receive`] stops decoding when this many outputs, or UPDATEs, wait.
const OUTPUT_LIMIT: usize = 256;

impl Session {
    /// Takes in octets received on a connection and returns how many of them are done with: whole messages only, and
    /// not all of them where many outputs wait; the rest is to be given again, with what follows it. All of them
    /// where the connection is gone.
    pub fn receive(&mut self, now: Instant, connection: ConnectionId, octets: &[u8]) -> usize {
        let mut done = 0;
        while !self.is_full() {
            let Some(state) = self.find(connection) else { return octets.len() };
            let (context, rest) = (state.context, &octets[done..]);
            let header = match Header::peek(rest, context.extended_message) {
                Ok(Some(header)) if header.length <= rest.len() => header,
                Ok(_) => return done,
                Err(error) => {
                    let cause = Cause::error(error.notification, error.reason);
                    self.run(now, connection, Event::BgpHeaderErr, cause);
                    return octets.len();
                }
            };
            let message = &rest[..header.length];
            done += header.length;
            self.message(now, connection, header.kind, message);
        }
        done
    }

    fn is_full(&self) -> bool {
        let updates = match self.outputs.back() {
            Some(SessionOutput::Updates(updates)) => updates.len(),
            _ => 0,
        };
        self.outputs.len().max(updates) >= OUTPUT_LIMIT
    }

    fn message(&mut self, now: Instant, id: ConnectionId, kind: MessageType, octets: &[u8]) {
        let Some(connection) = self.find(id) else { return };
        let state = connection.state;
        // A message that has no place in this state is not looked into: its errors are not what is wrong.
        let (event, name, expected) = match kind {
            MessageType::Open => (Event::BgpOpen, "OPEN", state == State::OpenSent),
            MessageType::Update => (Event::UpdateMsg, "UPDATE", state == State::Established),
            MessageType::RouteRefresh => {
                (Event::RouteRefreshMsg, "ROUTE-REFRESH", state == State::Established)
            }
            MessageType::Keepalive => (Event::KeepAliveMsg, "KEEPALIVE", state != State::OpenSent),
            MessageType::Notification => (Event::NotifMsg, "NOTIFICATION", true),
        };
        if !expected {
            return self.run(now, id, event, Cause::unexpected(name, state));
        }
        match Message::decode(octets, &connection.context) {
            Ok(Message::Open(open)) => self.open_received(now, id, &open),
            Ok(Message::Update(update)) => {
                self.run(now, id, event, Cause::none());
                match self.outputs.back_mut() {
                    Some(SessionOutput::Updates(updates)) => updates.push(&update),
                    _ => self.outputs.push_back(SessionOutput::Updates(Updates::from(&update))),
                }
            }
            Ok(Message::RouteRefresh(refresh)) => self.refresh_received(now, id, refresh),
            Ok(Message::Keepalive) => self.keepalive_received(now, id),
            Ok(Message::Notification(notification)) => {
                let version =
                    (notification.code, notification.subcode) == (wire::notification::code::OPEN, 1);
                // RFC 5492 §3: the peer does not know optional parameters, so the next OPEN goes without.
                self.bare = state < State::Established
                    && (notification.code, notification.subcode) == (wire::notification::code::OPEN, 4);
                let event = if version { Event::NotifMsgVerErr } else { Event::NotifMsg };
                self.run(now, id, event, Cause::received(&notification));
            }
            Err(error) => {
                let event = match kind {
                    MessageType::Open => Event::BgpOpenMsgErr,
                    MessageType::Update => Event::UpdateMsgErr,
                    MessageType::Notification | MessageType::Keepalive | MessageType::RouteRefresh => {
                        Event::BgpHeaderErr
                    }
                };
                self.run(now, id, event, Cause::error(error.notification, error.reason));
            }
        }
    }

    fn open_received(&mut self, now: Instant, id: ConnectionId, received: &Open) {
        let config = Arc::clone(&self.config);
        let Some(connection) = self.find_mut(id) else { return };
        let negotiated = match open::negotiate(&config, &connection.sent, received) {
            Ok(negotiated) => negotiated,
            Err(refusal) => {
                let cause = Cause::error(refusal.notification, refusal.reason);
                return self.run(now, id, Event::BgpOpenMsgErr, cause);
            }
        };
        let local = Identity { router_id: config.router_id, asn: config.local_as };
        let remote = Identity { router_id: negotiated.router_id, asn: negotiated.remote_as };
        connection.context = negotiated.decode_context(config.local_as);
        connection.negotiated = Some(negotiated);
        let origin = connection.origin;
        // RFC 4271 §6.8: against the connections whose OPEN has come.
        let rivals = |session: &Self, state: State| -> Vec<(ConnectionId, Origin)> {
            let others = session.connections.iter().filter(|c| c.id != id && c.state == state);
            others.map(|c| (c.id, c.origin)).collect()
        };
        let confirmed = rivals(self, State::OpenConfirm);
        let lost = !rivals(self, State::Established).is_empty()
            || confirmed.iter().any(|(_, other)| !collision::keeps_new(local, remote, origin, *other));
        if lost {
            return self.run(now, id, Event::OpenCollisionDump, Cause::collision());
        }
        let winner = collision::winner(local, remote);
        let rival_wins = origin != winner && rivals(self, State::OpenSent).iter().any(|(_, o)| *o == winner);
        if rival_wins && let Some(connection) = self.find_mut(id) {
            let until = now + timers::COLLISION_WAIT;
            connection.withheld = Some(Withheld { until, keepalive_seen: false });
        }
        self.run(now, id, Event::BgpOpen, Cause::none());
        for (other, _) in confirmed {
            self.run(now, other, Event::OpenCollisionDump, Cause::collision());
        }
    }

    fn keepalive_received(&mut self, now: Instant, id: ConnectionId) {
        match self.find_mut(id) {
            Some(Connection { withheld: Some(withheld), .. }) => withheld.keepalive_seen = true,
            _ => self.run(now, id, Event::KeepAliveMsg, Cause::none()),
        }
    }

    fn refresh_received(&mut self, now: Instant, id: ConnectionId, refresh: RouteRefresh) {
        self.run(now, id, Event::RouteRefreshMsg, Cause::none());
        let negotiated = self.find(id).and_then(|c| c.negotiated.as_ref());
        // RFC 2918 §4: a family that was not agreed on is ignored; RFC 7313 §5: so are unknown subtypes.
        let family = refresh.family.family().filter(|f| negotiated.is_some_and(|n| n.families.contains(*f)));
        let kind = match refresh.kind {
            wire::RefreshKind::Request => Some(RefreshKind::Request),
            wire::RefreshKind::BeginOfRefresh => Some(RefreshKind::Begin),
            wire::RefreshKind::EndOfRefresh => Some(RefreshKind::End),
            wire::RefreshKind::Unknown(_) => None,
        };
        if let (Some(family), Some(kind)) = (family, kind) {
            self.outputs.push_back(SessionOutput::Refresh { family, kind });
        }
    }
}
