//! [`Session`]: carries out the transition table for one peer. Pure. RFC 4271 §8, RFC 4724 §5.
//!
//! The driver feeds [`SessionInput`]s and received octets with the current time, and drains
//! [`Session::poll_output`] after each; it calls [`Session::handle_timeout`] when [`Session::poll_timeout`] is due.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use causeway_bgp_wire::{
    self as wire, Cease, Family, Header, Message, MessageType, Notification, Open, RouteRefresh, Update,
};

use crate::config::{Password, SessionConfig};
use crate::event::{Down, RefreshKind, SessionInfo};

use super::collision::{self, Identity, Origin};
use super::connection::{Cause, Connection, Withheld};
use super::fsm::{Action, Event, Farewell, State, Transition, transition};
use super::graceful::{self, RestartMarks};
use super::open;
use super::timers::{self, AcceptBudget};

pub use super::connection::Addresses;

/// Connections the peer opened that may exist at one time.
const INCOMING_MAX: usize = 2;

/// A new connection this soon after Established is the loser of a collision, not a restarted peer (RFC 4724 §5).
const COLLISION_WINDOW: Duration = Duration::from_millis(500);

/// [`Session::receive`] stops decoding when this many outputs wait.
const OUTPUT_LIMIT: usize = 256;

/// Number of a connection of one peer; not used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u32);

/// What a session is told, received octets ([`Session::receive`]) excepted.
#[derive(Clone, Debug)]
pub enum SessionInput {
    /// The attempt asked for by [`SessionOutput::Connect`] succeeded.
    Connected {
        /// Which.
        connection: ConnectionId,
        /// Its ends.
        addresses: Addresses,
    },
    /// An attempt failed, or a connection was lost: closed by the peer, reset, timed out.
    Lost {
        /// Which.
        connection: ConnectionId,
        /// For people.
        reason: String,
    },
    /// The peer connected; answered by [`SessionOutput::Adopt`] or [`SessionOutput::Refuse`], in order.
    Accepted(Addresses),
    /// The peer has not read what it was sent for as long as the hold time.
    SendStuck(ConnectionId),
    /// A command.
    Command(Command),
}

/// What the operator, the configuration or the speaker wants.
#[derive(Clone, Debug)]
pub enum Command {
    /// Begin, or begin again after `Stop`.
    Start,
    /// End and stay Idle.
    Stop(Notification),
    /// End and come back after `idle_for`; `None`: at the usual pace, `Some(Duration::MAX)`: only on `Start`.
    Reset {
        /// What the peer is told.
        notification: Notification,
        /// How long to stay Idle.
        idle_for: Option<Duration>,
    },
    /// New parameters: end with Cease, Other Configuration Change, and begin anew with them.
    Configure(Arc<SessionConfig>),
    /// What the next OPEN says of our own restart.
    Marks(RestartMarks),
    /// The link this peer is reached over went down.
    LinkDown(Arc<str>),
    /// Ask for the family again.
    RequestRefresh(Family),
}

/// What a session asks for.
#[derive(Debug)]
pub enum SessionOutput {
    /// Open a TCP connection to the peer.
    Connect(ConnectionId),
    /// The accepted connection bears this number from now on.
    Adopt(ConnectionId),
    /// The accepted connection is to be closed.
    Refuse,
    /// Send these octets.
    Send {
        /// On which connection.
        connection: ConnectionId,
        /// Whole messages.
        octets: Vec<u8>,
    },
    /// Close the connection, or give the attempt up, when what is sent is out.
    Close(ConnectionId),
    /// The state as people see it: the most advanced one of all connections.
    StateChanged {
        /// Before.
        old: State,
        /// Now.
        new: State,
        /// Why.
        reason: String,
    },
    /// The session is Established.
    Up {
        /// On which connection.
        connection: ConnectionId,
        /// What was negotiated.
        session: Arc<SessionInfo>,
    },
    /// The Established session ended.
    Down(Down),
    /// An UPDATE.
    Update(Box<Update>),
    /// A ROUTE-REFRESH for a family of the session.
    Refresh {
        /// Which family.
        family: Family,
        /// What it says.
        kind: RefreshKind,
    },
}

/// The attempts to get a connection: Idle, Connect or Active.
#[derive(Debug)]
struct Attempts {
    state: State,
    dialing: Option<ConnectionId>,
    connect_retry: Option<Instant>,
    idle_hold: Option<Instant>,
}

/// The session machine of one peer.
#[derive(Debug)]
pub struct Session {
    config: Arc<SessionConfig>,
    marks: RestartMarks,
    rng: fastrand::Rng,
    attempts: Attempts,
    connections: Vec<Connection>,
    next_id: u32,
    /// Errors in a row.
    failures: u32,
    established_at: Option<Instant>,
    /// The peer refused the capabilities parameter: the next OPEN goes without (RFC 5492 §3).
    bare: bool,
    /// Stopped until `Start`.
    stopped: bool,
    /// Idle until `Start` or a `Reset` at the usual pace: the peer broke a limit.
    held: bool,
    budget: AcceptBudget,
    shown: State,
    outputs: VecDeque<SessionOutput>,
}

impl Session {
    /// A session in Idle; [`Command::Start`] begins it. `seed` is for the jitter.
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

    /// Takes in octets received on a connection and returns how many of them are done with: whole messages only, and
    /// not all of them where many outputs wait; the rest is to be given again, with what follows it. All of them
    /// where the connection is gone.
    pub fn receive(&mut self, now: Instant, connection: ConnectionId, octets: &[u8]) -> usize {
        let mut done = 0;
        while self.outputs.len() < OUTPUT_LIMIT {
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

    /// True where [`Session::receive`] has reason to be called again with what it left.
    pub fn wants_more(&self) -> bool {
        self.outputs.len() < OUTPUT_LIMIT
    }

    /// The longest message the peer may send on the connection.
    pub fn message_limit(&self, connection: ConnectionId) -> usize {
        match self.find(connection) {
            Some(c) if c.context.extended_message => wire::MAX_EXTENDED_MESSAGE_LEN,
            _ => wire::MAX_MESSAGE_LEN,
        }
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
                self.outputs.push_back(SessionOutput::Update(Box::new(update)));
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

    fn command(&mut self, now: Instant, command: Command) {
        match command {
            Command::Start => {
                (self.stopped, self.held, self.failures) = (false, false, 0);
                self.attempts.idle_hold = None;
                self.begin(now, Event::Start);
            }
            Command::Stop(notification) => {
                self.stopped = true;
                self.stop(now, Cause::command("admin", notification));
                self.attempts.idle_hold = None;
            }
            Command::Reset { notification, idle_for } => self.reset(now, notification, idle_for),
            Command::Configure(config) => {
                let notification = Notification::cease(Cease::OtherConfigurationChange);
                let resume = self.attempts.idle_hold;
                self.stop(now, Cause::command("config", notification));
                self.config = config;
                (self.bare, self.failures) = (false, 0);
                self.attempts.idle_hold = resume.or_else(|| Some(now + self.pause()));
            }
            Command::Marks(marks) => self.marks = marks,
            Command::LinkDown(device) => {
                let ids: Vec<ConnectionId> = self.connections.iter().map(|c| c.id).collect();
                for id in ids {
                    self.run(now, id, Event::TcpConnectionFails, Cause::link_down(&device));
                }
            }
            Command::RequestRefresh(family) => self.request_refresh(family),
        }
    }

    fn reset(&mut self, now: Instant, notification: Notification, idle_for: Option<Duration>) {
        let maximum_prefixes = Notification::cease(Cease::MaximumPrefixes);
        let label = if notification.code != maximum_prefixes.code {
            "notification-sent"
        } else if notification.subcode == maximum_prefixes.subcode {
            "max-prefixes"
        } else {
            "admin"
        };
        self.stop(now, Cause::command(label, notification));
        let pause = idle_for.unwrap_or_else(|| timers::jittered(self.pause(), &mut self.rng));
        self.attempts.idle_hold = now.checked_add(pause);
        self.held = self.attempts.idle_hold.is_none();
    }

    fn request_refresh(&mut self, family: Family) {
        let agreed = |c: &&Connection| {
            let negotiated = c.negotiated.as_ref();
            c.state == State::Established
                && negotiated.is_some_and(|n| n.route_refresh && n.families.contains(family))
        };
        if let Some(connection) = self.connections.iter().find(agreed).map(|c| c.id) {
            let mut octets = Vec::new();
            wire::encode_route_refresh(&RouteRefresh::request(family), &mut octets);
            self.outputs.push_back(SessionOutput::Send { connection, octets });
        }
    }

    /// Leaves Idle, unless something keeps the peer there.
    fn begin(&mut self, now: Instant, event: Event) {
        if self.stopped || self.held || self.blocked().is_some() || self.attempts.state != State::Idle {
            return;
        }
        let event = if self.config.passive { Event::StartPassive } else { event };
        self.attempt(now, event, "started");
    }

    /// Ends everything and goes to Idle.
    fn stop(&mut self, now: Instant, cause: Cause) {
        let ids: Vec<ConnectionId> = self.connections.iter().map(|c| c.id).collect();
        self.attempt(now, Event::Stop, &cause.reason);
        for id in ids {
            self.run(now, id, Event::Stop, cause.clone());
        }
    }

    /// Runs the table for the attempts to get a connection.
    fn attempt(&mut self, now: Instant, event: Event, why: &str) {
        let Transition { action, next } = transition(self.attempts.state, event);
        self.attempts.state = next;
        match action {
            Action::Dial => {
                self.give_up_dialing();
                let id = self.new_id();
                self.attempts.dialing = Some(id);
                self.attempts.connect_retry = Some(now + self.retry_time());
                self.outputs.push_back(SessionOutput::Connect(id));
            }
            Action::Wait => self.wait(now, None),
            Action::End(_) => {
                self.give_up_dialing();
                self.attempts.connect_retry = None;
            }
            _ => {}
        }
        self.show(why);
    }

    /// In Active: try again after `pause`, or after the connect retry time; a passive peer only waits.
    fn wait(&mut self, now: Instant, pause: Option<Duration>) {
        let pause = match pause {
            Some(pause) => timers::jittered(pause, &mut self.rng),
            None => self.retry_time(),
        };
        self.attempts.connect_retry = (!self.config.passive).then(|| now + pause);
    }

    fn retry_time(&mut self) -> Duration {
        timers::jittered(self.config.connect_retry_time, &mut self.rng)
    }

    fn pause(&self) -> Duration {
        timers::back_off(self.failures, self.config.connect_retry_time)
    }

    fn give_up_dialing(&mut self) {
        if let Some(id) = self.attempts.dialing.take() {
            self.outputs.push_back(SessionOutput::Close(id));
        }
    }

    /// Runs the table for a connection; nothing where it is gone.
    fn run(&mut self, now: Instant, id: ConnectionId, event: Event, cause: Cause) {
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

    /// Nothing is dialled any more: a connection has got as far as OpenConfirm.
    fn stop_attempts(&mut self) {
        self.give_up_dialing();
        self.attempts.connect_retry = None;
        self.attempts.state = State::Active;
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

    /// The last connection is gone: through Idle back to Active, where the peer may connect at once and we try again
    /// after a pause that grows with the errors in a row (RFC 4271 §8.1.1, DampPeerOscillations).
    fn start_over(&mut self, now: Instant, next: State, cause: &Cause) {
        if next == State::Active {
            // OpenSent and TCP lost: no error of the protocol.
            return self.wait(now, None);
        }
        self.change(State::Idle, &cause.reason);
        if !cause.wanted {
            self.failures = self.failures.saturating_add(1);
        }
        let pause = self.pause();
        self.wait(now, Some(pause));
        self.show("started again");
    }

    fn show(&mut self, reason: &str) {
        let furthest = self.connections.iter().map(|c| c.state).max();
        self.change(furthest.unwrap_or(self.attempts.state), reason);
    }

    fn change(&mut self, new: State, reason: &str) {
        if new != self.shown {
            let old = std::mem::replace(&mut self.shown, new);
            self.outputs.push_back(SessionOutput::StateChanged { old, new, reason: reason.to_owned() });
        }
    }

    fn new_id(&mut self) -> ConnectionId {
        self.next_id += 1;
        ConnectionId(self.next_id)
    }

    fn find(&self, id: ConnectionId) -> Option<&Connection> {
        self.connections.iter().find(|c| c.id == id)
    }

    fn find_mut(&mut self, id: ConnectionId) -> Option<&mut Connection> {
        self.connections.iter_mut().find(|c| c.id == id)
    }
}
