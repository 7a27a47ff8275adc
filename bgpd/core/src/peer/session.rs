//! [`Session`]: carries out the transition table for one peer. Pure. RFC 4271 §8, RFC 4724 §5.
//!
//! The driver feeds [`SessionInput`]s and received octets with the current time, and drains
//! [`Session::poll_output`] after each; it calls [`Session::handle_timeout`] when [`Session::poll_timeout`] is due.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use causeway_bgp_wire::{self as wire, Cease, Notification};

use crate::config::{Password, SessionConfig};
use crate::event::Down;

use super::attempts::Attempts;
use super::collision::Origin;
use super::connection::{Addresses, Cause, Connection};
use super::fsm::{Action, Event, Farewell, State, Transition, transition};
use super::graceful::{self, RestartMarks};
use super::io::{ConnectionId, SessionInput, SessionOutput};
use super::open;
use super::timers::{self, AcceptBudget};

/// Connections the peer opened that may exist at one time.
const INCOMING_MAX: usize = 2;

/// A new connection this soon after Established is the loser of a collision, not a restarted peer (RFC 4724 §5).
const COLLISION_WINDOW: Duration = Duration::from_millis(500);

/// The session machine of one peer.
#[derive(Debug)]
pub struct Session {
    pub(super) config: Arc<SessionConfig>,
    pub(super) marks: RestartMarks,
    pub(super) rng: fastrand::Rng,
    pub(super) attempts: Attempts,
    pub(super) connections: Vec<Connection>,
    pub(super) next_id: u32,
    /// Errors in a row.
    pub(super) failures: u32,
    pub(super) established_at: Option<Instant>,
    /// The peer refused the capabilities parameter: the next OPEN goes without (RFC 5492 §3).
    pub(super) bare: bool,
    /// Stopped until `Start`.
    pub(super) stopped: bool,
    /// Idle until `Start` or a `Reset` at the usual pace: the peer broke a limit.
    pub(super) held: bool,
    pub(super) budget: AcceptBudget,
    pub(super) shown: State,
    pub(super) outputs: VecDeque<SessionOutput>,
}

impl Session {
    /// A session in Idle; [`super::Command::Start`] begins it. `seed` is for the jitter.
    pub fn new(now: Instant, config: Arc<SessionConfig>, marks: RestartMarks, seed: u64) -> Self {
        Session {
            config,
            marks,
            rng: fastrand::Rng::with_seed(seed),
            attempts: Attempts { state: State::Idle, dialing: None, connect_retry: None, idle_hold: None },
            connections: Vec::new(),
            next_id: 0,
            failures: 0,
            established_at: None,
            bare: false,
            stopped: true,
            held: false,
            budget: AcceptBudget::new(now),
            shown: State::Idle,
            outputs: VecDeque::new(),
        }
    }

    /// The state as people see it.
    pub fn state(&self) -> State {
        self.shown
    }

    /// The parameters in force.
    pub fn config(&self) -> &Arc<SessionConfig> {
        &self.config
    }

    /// Why nothing is tried although nobody stopped the session: the password it needs is not there.
    pub fn blocked(&self) -> Option<&str> {
        match &self.config.password {
            Password::Missing(why) if !self.stopped => Some(why),
            _ => None,
        }
    }

    /// What is to be done next.
    pub fn poll_output(&mut self) -> Option<SessionOutput> {
        self.outputs.pop_front()
    }

    /// When [`Session::handle_timeout`] is due; `None`: never.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let attempts = [self.attempts.connect_retry, self.attempts.idle_hold];
        let connections = self.connections.iter().filter_map(Connection::next_timeout);
        attempts.into_iter().flatten().chain(connections).min()
    }

    /// Takes in what happened.
    pub fn handle(&mut self, now: Instant, input: SessionInput) {
        match input {
            SessionInput::Connected { connection, addresses } => self.connected(now, connection, addresses),
            SessionInput::Lost { connection, reason } => self.lost(now, connection, reason),
            SessionInput::Accepted(addresses) => self.accepted(now, addresses),
            SessionInput::SendStuck(connection) => {
                let reason = "the peer has not read for the hold time".to_owned();
                let cause = Cause { reason, ..Cause::hold_timer() };
                self.run(now, connection, Event::HoldTimerExpires, cause);
            }
            SessionInput::Command(command) => self.command(now, command),
        }
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        let due = |timer: Option<Instant>| timer.is_some_and(|at| at <= now);
        if due(self.attempts.idle_hold) {
            self.attempts.idle_hold = None;
            self.begin(now, Event::IdleHoldTimerExpires);
        }
        if due(self.attempts.connect_retry) {
            self.attempts.connect_retry = None;
            self.attempt(now, Event::ConnectRetryTimerExpires, "trying again");
        }
        let ids: Vec<ConnectionId> = self.connections.iter().map(|c| c.id).collect();
        for id in ids {
            let timers = |session: &Self| {
                let connection = session.find(id)?;
                let hold = due(connection.hold) && !connection.paused;
                Some((hold, due(connection.keepalive), due(connection.withheld.map(|w| w.until))))
            };
            if timers(self).is_some_and(|(hold, _, _)| hold) {
                self.run(now, id, Event::HoldTimerExpires, Cause::hold_timer());
            }
            if timers(self).is_some_and(|(_, keepalive, _)| keepalive) {
                self.run(now, id, Event::KeepaliveTimerExpires, Cause::none());
            }
            if timers(self).is_some_and(|(_, _, withheld)| withheld) {
                self.release(now, id);
            }
        }
    }

    /// The driver stops or resumes reading a connection because the speaker is behind. The peer's silence meanwhile
    /// is ours, so HoldTimer does not run.
    pub fn set_paused(&mut self, now: Instant, connection: ConnectionId, paused: bool) {
        if let Some(connection) = self.find_mut(connection) {
            if connection.paused && !paused {
                connection.restart_hold(now);
            }
            connection.paused = paused;
        }
    }

    fn connected(&mut self, now: Instant, id: ConnectionId, addresses: Addresses) {
        if self.attempts.dialing != Some(id) {
            return self.outputs.push_back(SessionOutput::Close(id));
        }
        self.attempts.dialing = None;
        self.attempts.connect_retry = None;
        self.attempts.state = State::Active;
        self.add(now, id, Origin::Outgoing, addresses, "connected");
    }

    fn accepted(&mut self, now: Instant, addresses: Addresses) {
        if self.attempts.state == State::Idle || !self.budget.take(now) {
            return self.outputs.push_back(SessionOutput::Refuse);
        }
        let established = self.connections.iter().find(|c| c.state == State::Established);
        if let Some(old) = established
            && graceful::retains(old.negotiated.as_ref().and_then(|n| n.graceful.as_ref()))
            && self.established_at.is_some_and(|at| now.saturating_duration_since(at) >= COLLISION_WINDOW)
        {
            // RFC 4724 §5: the peer has restarted, and the old connection is dead without having said so.
            let id = old.id;
            self.run(now, id, Event::TcpConnectionFails, Cause::tcp("the peer opened a new connection"));
        }
        let mut incoming = self.connections.iter().filter(|c| c.origin == Origin::Incoming);
        if incoming.clone().count() >= INCOMING_MAX {
            // The oldest one that has said nothing makes room: the peer may have forgotten it.
            let silent = incoming.find(|c| c.state == State::OpenSent).map(|c| c.id);
            match silent {
                Some(id) => self.run(now, id, Event::OpenCollisionDump, Cause::collision()),
                None => return self.outputs.push_back(SessionOutput::Refuse),
            }
        }
        let id = self.new_id();
        self.outputs.push_back(SessionOutput::Adopt(id));
        self.add(now, id, Origin::Incoming, addresses, "the peer connected");
    }

    fn add(&mut self, now: Instant, id: ConnectionId, origin: Origin, addresses: Addresses, why: &str) {
        let sent = open::ours(&self.config, self.marks, self.bare);
        let mut octets = Vec::new();
        wire::encode_open(&sent, &mut octets);
        self.connections.push(Connection::new(now, id, origin, addresses, sent));
        self.outputs.push_back(SessionOutput::Send { connection: id, octets });
        self.show(why);
    }

    fn lost(&mut self, now: Instant, id: ConnectionId, reason: String) {
        if self.attempts.dialing == Some(id) {
            self.attempts.dialing = None;
            self.attempt(now, Event::TcpConnectionFails, &reason);
        } else {
            self.run(now, id, Event::TcpConnectionFails, Cause::tcp(reason));
        }
    }

    /// Runs the table for a connection; nothing where it is gone.
    pub(super) fn run(&mut self, now: Instant, id: ConnectionId, event: Event, cause: Cause) {
        let Some(index) = self.connections.iter().position(|c| c.id == id) else { return };
        let connection = &mut self.connections[index];
        let Transition { action, next } = transition(connection.state, event);
        match action {
            Action::Confirm => {
                connection.state = next;
                connection.restart_hold(now);
                self.stop_attempts();
                if self.connections[index].withheld.is_none() {
                    self.send_keepalive(now, index);
                }
                self.show("the peer's OPEN is accepted");
            }
            Action::Establish => {
                connection.state = next;
                self.established(now, index);
            }
            Action::RestartHold | Action::DeliverUpdate => connection.restart_hold(now),
            Action::SendKeepalive => self.send_keepalive(now, index),
            Action::End(farewell) => self.end(now, index, next, farewell, cause),
            // Nothing, DeliverRefresh; the others are those of the attempts.
            _ => {}
        }
    }

    fn send_keepalive(&mut self, now: Instant, index: usize) {
        let connection = &mut self.connections[index];
        connection.restart_keepalive(now, &mut self.rng);
        let mut octets = Vec::new();
        wire::encode_keepalive(&mut octets);
        self.outputs.push_back(SessionOutput::Send { connection: connection.id, octets });
    }

    fn established(&mut self, now: Instant, index: usize) {
        let connection = &mut self.connections[index];
        connection.restart_hold(now);
        let id = connection.id;
        let info = connection.info(&self.config);
        self.established_at = Some(now);
        self.show("OPENs and KEEPALIVEs exchanged");
        if let Some(session) = info {
            self.outputs.push_back(SessionOutput::Up { connection: id, session });
        }
        let others: Vec<ConnectionId> = self.connections.iter().map(|c| c.id).filter(|o| *o != id).collect();
        for other in others {
            self.run(now, other, Event::OpenCollisionDump, Cause::collision());
        }
    }

    /// Sends the KEEPALIVE that was kept back.
    fn release(&mut self, now: Instant, id: ConnectionId) {
        let Some(index) = self.connections.iter().position(|c| c.id == id) else { return };
        let Some(withheld) = self.connections[index].withheld.take() else { return };
        self.send_keepalive(now, index);
        if withheld.keepalive_seen {
            self.run(now, id, Event::KeepAliveMsg, Cause::none());
        }
    }

    fn end(&mut self, now: Instant, index: usize, next: State, farewell: Farewell, cause: Cause) {
        let ended = self.connections.remove(index);
        let notification = match farewell {
            Farewell::Silent => None,
            Farewell::Given => cause.notification.clone(),
            Farewell::HoldTimerExpired => Some(Notification::hold_timer_expired()),
            Farewell::Unexpected(state) => Some(Notification::unexpected_message(state)),
            Farewell::Collision => Some(Notification::cease(Cease::ConnectionCollisionResolution)),
        };
        if let Some(notification) = &notification {
            let mut octets = Vec::new();
            wire::encode_notification(notification, &mut octets);
            self.outputs.push_back(SessionOutput::Send { connection: ended.id, octets });
        }
        self.outputs.push_back(SessionOutput::Close(ended.id));
        if ended.state == State::Established {
            let lived = self.established_at.take().map(|at| now.saturating_duration_since(at));
            if lived.is_some_and(|lived| lived >= timers::STABLE_AFTER) {
                self.failures = 0;
            }
            let graceful = ended.negotiated.as_ref().and_then(|n| n.graceful.as_ref());
            self.outputs.push_back(SessionOutput::Down(Down {
                reason: cause.reason.clone(),
                label: cause.label,
                retain: cause.tcp_lost && graceful::retains(graceful),
            }));
        }
        self.release_unrivalled(now);
        if self.attempts.state != State::Idle && self.attempts.dialing.is_none() {
            if self.connections.is_empty() {
                self.start_over(now, next, &cause);
            } else if self.connections.iter().all(|c| c.state == State::OpenSent) {
                // What is left may be dead without knowing it.
                self.wait(now, None);
            }
        }
        self.show(&cause.reason);
    }

    /// A connection whose rival is gone need not wait for it.
    fn release_unrivalled(&mut self, now: Instant) {
        if self.connections.iter().any(|c| c.state == State::OpenSent) {
            return;
        }
        let withheld: Vec<ConnectionId> =
            self.connections.iter().filter(|c| c.withheld.is_some()).map(|c| c.id).collect();
        for id in withheld {
            self.release(now, id);
        }
    }

    pub(super) fn show(&mut self, reason: &str) {
        let furthest = self.connections.iter().map(|c| c.state).max();
        self.change(furthest.unwrap_or(self.attempts.state), reason);
    }

    pub(super) fn change(&mut self, new: State, reason: &str) {
        if new != self.shown {
            let old = std::mem::replace(&mut self.shown, new);
            self.outputs.push_back(SessionOutput::StateChanged { old, new, reason: reason.to_owned() });
        }
    }

    pub(super) fn new_id(&mut self) -> ConnectionId {
        self.next_id += 1;
        ConnectionId(self.next_id)
    }

    pub(super) fn find(&self, id: ConnectionId) -> Option<&Connection> {
        self.connections.iter().find(|c| c.id == id)
    }

    pub(super) fn find_mut(&mut self, id: ConnectionId) -> Option<&mut Connection> {
        self.connections.iter_mut().find(|c| c.id == id)
    }
}
