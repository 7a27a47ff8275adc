//! The task of one peer: its sockets, its session machine, and the way to the speaker. Not pure.
//!
//! ```text
//!  listener ── Accepted ─┐                              ┌─ Updates, SessionUp, SessionDown ─► to the speaker
//!  speaker ── commands ──┼─► session machine (core) ────┤
//!  sockets ── octets ────┘      timers, OPEN, KEEPALIVE └─ NOTIFICATION, KEEPALIVE ─► outbox ◄── data, of the speaker
//! ```
//!
//! Owner: the peer's connections. Everything that keeps the session alive happens here, so that a speaker at work on
//! a large table delays no KEEPALIVE. Who reads takes room for it first: where the speaker is behind there is none,
//! and reading stops until it is this peer's turn: the peer's own TCP is the back pressure. Its silence meanwhile is
//! not held against it. The speaker writes to the socket itself; the task takes over where the kernel takes no more.

mod connection;
mod socket;

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use causeway_bgp_core::config::{Password, PeerKey, PeerSettings};
use causeway_bgp_core::event::PeerId;
use causeway_bgp_core::peer::{
    Command, ConnectionId, RestartMarks, Session, SessionInput, SessionOutput, State,
};
use causeway_bgp_wire::{Cease, Notification};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Sleep;
use tracing::{debug, info, warn};

use crate::listen::{AcceptedConnection, Listener, PeerEntry};
use crate::speaker_link::{
    Epoch, PeerCounters, PeerHandle, PeerStatus, Room, SpeakerLink, ToPeer, ToSpeaker,
};

use connection::{Connection, Read, ReadBuffer};
use socket::Ends;

/// A peer that reads nothing for its hold time is given up, but not before this long.
const STUCK_MIN: Duration = Duration::from_secs(30);

/// A dynamic peer is forgotten this long after its session and the retention of its paths are over.
const DYNAMIC_LINGER: Duration = Duration::from_secs(60);

/// So often a connection is read before another one is taken in.
const READS_BEFORE_ACCEPT: usize = 16;

/// A list of events longer than this gives its memory back.
const EVENTS_KEPT: usize = 16;

/// How long the task waits for the last NOTIFICATIONs to be delivered when it ends.
const LAST_WORDS: Duration = Duration::from_millis(2500);

/// Everything the task of a peer begins with.
#[derive(Debug)]
pub struct PeerTask {
    /// Its number.
    pub peer: PeerId,
    /// Its address.
    pub key: PeerKey,
    /// How to talk to it.
    pub settings: Arc<PeerSettings>,
    /// A member of a range: ends by itself when it is gone.
    pub dynamic: bool,
    /// What OPENs say of our own restart.
    pub marks: watch::Receiver<RestartMarks>,
    /// Gives it the connections it opens.
    pub listener: Listener,
    /// Where its events go.
    pub speaker: SpeakerLink,
}

impl PeerTask {
    /// Starts the task, which starts the session. Needs a tokio runtime.
    pub fn spawn(self) -> PeerHandle {
        let now = Instant::now();
        let (sender, commands) = mpsc::unbounded_channel();
        let (status, status_of) = watch::channel(PeerStatus {
            state: State::Idle,
            since: now,
            disabled: false,
            epoch: Epoch::default(),
            session: None,
            last_error: None,
        });
        let counters = Arc::new(PeerCounters::default());
        let session_config = Arc::new(self.settings.session.clone());
        let session = Session::new(now, session_config, *self.marks.borrow(), fastrand::u64(..));
        let address = self.key.address;
        let entry = PeerEntry { peer: self.peer, address, sender: sender.clone(), status: status_of.clone() };
        self.listener.register(entry, &self.settings.session);
        let running = Running {
            session,
            connections: Vec::new(),
            dialing: None,
            adopting: VecDeque::new(),
            commands,
            events: Vec::new(),
            asking: None,
            epoch: Epoch::default(),
            up: None,
            status,
            counters: Arc::clone(&counters),
            closing: JoinSet::new(),
            sleep: Box::pin(tokio::time::sleep(Duration::ZERO)),
            forget_at: None,
            ended: false,
            begin: self,
        };
        tokio::spawn(running.run());
        PeerHandle { sender, status: status_of, counters }
    }
}

type Dial = Pin<Box<dyn Future<Output = io::Result<TcpStream>> + Send>>;
type AskForRoom = Pin<Box<dyn Future<Output = Option<Room>> + Send>>;

struct Running {
    begin: PeerTask,
    session: Session,
    connections: Vec<Connection>,
    dialing: Option<(ConnectionId, Dial)>,
    /// Accepted connections the session has not yet answered for.
    adopting: VecDeque<(AcceptedConnection, Ends)>,
    commands: mpsc::UnboundedReceiver<ToPeer>,
    /// What the speaker is to be told, in order.
    events: Vec<ToSpeaker>,
    /// A connection has something to be read, and there is no room for it yet; nothing is read meanwhile.
    asking: Option<(ConnectionId, AskForRoom)>,
    epoch: Epoch,
    up: Option<ConnectionId>,
    status: watch::Sender<PeerStatus>,
    counters: Arc<PeerCounters>,
    /// Closed connections that still deliver their last message.
    closing: JoinSet<()>,
    sleep: Pin<Box<Sleep>>,
    /// When a dynamic peer without a session is to be forgotten.
    forget_at: Option<Instant>,
    ended: bool,
}

/// What wakes the task.
enum Wake {
    Command(Option<ToPeer>),
    Dialed(ConnectionId, io::Result<TcpStream>),
    Readable(ConnectionId, Room),
    /// There is something to be read, but no room.
    Behind,
    Writable,
    Timer,
}

impl Running {
    async fn run(mut self) {
        let now = Instant::now();
        if self.begin.dynamic {
            self.forget_at = Some(now + self.linger());
        }
        self.session.handle(now, SessionInput::Command(Command::Start));
        self.settle();
        while !self.ended {
            let wake = poll_fn(|cx| self.poll_wake(cx)).await;
            self.wake(wake);
            self.settle();
        }
        self.begin.listener.unregister(self.begin.peer, self.begin.key.address);
        let last_words = async { while self.closing.join_next().await.is_some() {} };
        // The peer may be unreachable; then its NOTIFICATION is lost, as it may be.
        let _ = tokio::time::timeout(LAST_WORDS, last_words).await;
        self.events.push(ToSpeaker::PeerEnded(self.begin.peer));
        self.tell_speaker(None);
    }

    fn poll_wake(&mut self, cx: &mut Context<'_>) -> Poll<Wake> {
        if let Poll::Ready(command) = self.commands.poll_recv(cx) {
            return Poll::Ready(Wake::Command(command));
        }
        if let Some((id, asking)) = &mut self.asking
            && let Poll::Ready(room) = asking.as_mut().poll(cx)
        {
            let id = *id;
            self.asking = None;
            if let Some(room) = room {
                return Poll::Ready(Wake::Readable(id, room));
            }
        }
        for connection in &self.connections {
            connection.outbox.wake_when_waiting(cx.waker());
            if connection.outbox.waiting() > 0 && connection.stream().poll_write_ready(cx).is_ready() {
                return Poll::Ready(Wake::Writable);
            }
            if self.asking.is_none() && connection.stream().poll_read_ready(cx).is_ready() {
                let Some(room) = self.begin.speaker.try_room() else {
                    self.asking = Some((connection.id, Box::pin(self.begin.speaker.room())));
                    return Poll::Ready(Wake::Behind);
                };
                return Poll::Ready(Wake::Readable(connection.id, room));
            }
        }
        if let Some((id, dial)) = &mut self.dialing
            && let Poll::Ready(result) = dial.as_mut().poll(cx)
        {
            let id = *id;
            self.dialing = None;
            return Poll::Ready(Wake::Dialed(id, result));
        }
        while let Poll::Ready(Some(_)) = self.closing.poll_join_next(cx) {}
        if let Some(due) = self.next_timeout() {
            let due = tokio::time::Instant::from_std(due);
            // A timer that moves away with every message is not moved each time: it fires early and is set again.
            if self.sleep.is_elapsed() || due < self.sleep.deadline() {
                self.sleep.as_mut().reset(due);
            }
            if self.sleep.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Wake::Timer);
            }
        }
        Poll::Pending
    }

    fn next_timeout(&self) -> Option<Instant> {
        let stuck = self.connections.iter().filter_map(|c| self.stuck_deadline(c));
        [self.session.poll_timeout(), self.forget_at].into_iter().flatten().chain(stuck).min()
    }

    /// When a peer that does not read is given up (RFC 9687 in spirit).
    fn stuck_deadline(&self, connection: &Connection) -> Option<Instant> {
        let stuck_since = connection.outbox.stuck_since()?;
        let status = self.status.borrow();
        let session = status.session.as_ref().filter(|_| self.up == Some(connection.id))?;
        let hold = Some(session.hold_time).filter(|hold| !hold.is_zero())?;
        Some(stuck_since + hold.max(STUCK_MIN))
    }

    fn wake(&mut self, wake: Wake) {
        let now = Instant::now();
        match wake {
            Wake::Command(Some(command)) => self.command(now, command),
            // The speaker is gone.
            Wake::Command(None) => {
                self.command(now, ToPeer::Shutdown(Notification::cease(Cease::AdministrativeShutdown)));
            }
            Wake::Dialed(connection, Ok(stream)) => {
                let ends = socket::ends(&stream, self.session.config());
                self.refresh_marks(now);
                match ends {
                    Ok(ends) => {
                        let addresses = ends.addresses;
                        let counters = Arc::clone(&self.counters);
                        self.connections.push(Connection::new(connection, stream, ends, counters));
                        self.session.handle(now, SessionInput::Connected { connection, addresses });
                    }
                    Err(error) => self.lost(now, connection, error.to_string()),
                }
            }
            Wake::Dialed(connection, Err(error)) => {
                let reason = format!("cannot connect: {error}");
                self.lost(now, connection, reason);
            }
            Wake::Readable(id, room) => {
                self.read(now, id, room, false);
            }
            // Writing is part of settling, and so is telling the session that nothing is read.
            Wake::Writable | Wake::Behind | Wake::Timer => {}
        }
    }

    /// Reads once, takes all of it in, and tells the speaker; false where nothing was there.
    fn read(&mut self, now: Instant, id: ConnectionId, mut room: Room, ask: bool) -> bool {
        let Some(connection) = self.connections.iter_mut().find(|c| c.id == id) else { return false };
        let mut buffer = ReadBuffer::lend();
        match connection.read(&mut buffer, ask) {
            Read::Some(count) => {
                PeerCounters::add(&self.counters.octets_received, count as u64);
                room.shrink(count);
                let mut done = 0;
                loop {
                    let taken = self.session.receive(now, id, buffer.rest(done));
                    done += taken;
                    self.carry_out(now);
                    if taken == 0 || done >= buffer.filled {
                        break;
                    }
                }
                if let Some(connection) = self.connections.iter_mut().find(|c| c.id == id) {
                    connection.keep(buffer.rest(done));
                }
                self.tell_speaker(Some(room));
                true
            }
            Read::Nothing => false,
            Read::Lost(reason) => {
                self.lost(now, id, reason);
                false
            }
        }
    }

    /// Hears what the connections there are have to say, within bounds: a peer that comes anew has most often closed
    /// the old one, and is not to lose a collision with it.
    fn hear_out(&mut self, now: Instant) {
        let ids: Vec<ConnectionId> = self.connections.iter().map(|c| c.id).collect();
        for id in ids {
            for _ in 0..READS_BEFORE_ACCEPT {
                let Some(room) = self.begin.speaker.try_room() else { return };
                if !self.read(now, id, room, true) {
                    break;
                }
            }
        }
    }

    fn lost(&mut self, now: Instant, connection: ConnectionId, reason: String) {
        // What it can still say is nothing: the session's Close finds it gone.
        self.connections.retain(|c| c.id != connection);
        self.session.handle(now, SessionInput::Lost { connection, reason });
    }

    fn command(&mut self, now: Instant, command: ToPeer) {
        let mut session = |command| self.session.handle(now, SessionInput::Command(command));
        match command {
            ToPeer::SetSettings(settings) => {
                if settings.session != self.begin.settings.session {
                    let (peer, address) = (self.begin.peer, self.begin.key.address);
                    self.begin.listener.update(peer, address, &settings.session);
                    session(Command::Configure(Arc::new(settings.session.clone())));
                    self.status.send_modify(|status| status.last_error = None);
                }
                self.begin.settings = settings;
            }
            ToPeer::RequestRefresh(family) => session(Command::RequestRefresh(family)),
            ToPeer::Reset { notification, idle_for } => session(Command::Reset { notification, idle_for }),
            ToPeer::Disable(text) => {
                let shutdown = Cease::AdministrativeShutdown;
                session(Command::Stop(Notification::cease_with_message(shutdown, &text)));
                self.status.send_modify(|status| status.disabled = true);
            }
            ToPeer::Enable => {
                session(Command::Start);
                self.status.send_modify(|status| status.disabled = false);
            }
            ToPeer::LinkDown(device) => {
                if self.connections.iter().any(|c| c.ends.device.as_ref() == Some(&device)) {
                    session(Command::LinkDown(device));
                }
            }
            ToPeer::Shutdown(notification) => {
                session(Command::Stop(notification));
                self.ended = true;
            }
            ToPeer::Accepted(accepted) => self.accepted(now, accepted),
        }
    }

    fn accepted(&mut self, now: Instant, accepted: AcceptedConnection) {
        self.hear_out(now);
        let config = Arc::clone(self.session.config());
        let prepared = socket::prepare(&accepted.stream, self.begin.key.address, &config)
            .and_then(|()| socket::ends(&accepted.stream, &config));
        match prepared {
            Ok(ends) => {
                let addresses = ends.addresses;
                self.adopting.push_back((accepted, ends));
                self.refresh_marks(now);
                self.session.handle(now, SessionInput::Accepted(addresses));
            }
            Err(error) => debug!(peer = %self.begin.key.address, "accepted connection lost: {error}"),
        }
    }

    fn refresh_marks(&mut self, now: Instant) {
        let marks = *self.begin.marks.borrow();
        self.session.handle(now, SessionInput::Command(Command::Marks(marks)));
    }

    /// Carries out everything that is due, until nothing is left to do but wait.
    fn settle(&mut self) {
        let now = Instant::now();
        self.timeouts(now);
        self.carry_out(now);
        let behind = self.asking.is_some();
        for connection in &self.connections {
            self.session.set_paused(now, connection.id, behind);
        }
        self.write(now);
        self.tell_speaker(None);
        if let Some(why) = self.session.blocked()
            && self.status.borrow().last_error.as_deref() != Some(why)
        {
            warn!(peer = %self.begin.key.address, name = self.begin.settings.name, "stays down: {why}");
            self.status.send_modify(|status| status.last_error = Some(why.to_owned()));
        }
    }

    fn timeouts(&mut self, now: Instant) {
        let due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        if due(self.session.poll_timeout()) {
            for connection in &self.connections {
                if connection.has_unread() {
                    // We were late, not the peer: HoldTimer starts anew.
                    self.session.set_paused(now, connection.id, true);
                    self.session.set_paused(now, connection.id, false);
                }
            }
            self.session.handle_timeout(now);
        }
        let stuck = self.connections.iter().find(|c| due(self.stuck_deadline(c))).map(|c| c.id);
        if let Some(id) = stuck {
            self.session.handle(now, SessionInput::SendStuck(id));
        }
        if due(self.forget_at) {
            self.forget_at = None;
            self.events.push(ToSpeaker::DynamicPeerGone(self.begin.peer));
        }
    }

    fn write(&mut self, now: Instant) {
        for connection in &self.connections {
            if connection.write(now).is_some_and(|written| written.drained) && self.up == Some(connection.id)
            {
                self.events.push(ToSpeaker::Drained { peer: self.begin.peer, epoch: self.epoch });
            }
        }
    }

    /// Tells the speaker what there is to tell; the last message bears the room of the read it comes from.
    fn tell_speaker(&mut self, mut room: Option<Room>) {
        let count = self.events.len();
        for (index, event) in self.events.drain(..).enumerate() {
            let room = if index + 1 == count { room.take() } else { None };
            if self.begin.speaker.tell(event, room).is_err() {
                self.ended = true;
            }
        }
        if self.events.capacity() > EVENTS_KEPT {
            self.events = Vec::new();
        }
    }

    fn carry_out(&mut self, now: Instant) {
        let peer = self.begin.peer;
        let mut given_up = false;
        while let Some(output) = self.session.poll_output() {
            let unanswered = std::mem::take(&mut given_up);
            match output {
                SessionOutput::Connect(id) => {
                    if unanswered {
                        self.no_answer();
                    }
                    let config = Arc::clone(self.session.config());
                    self.dialing = Some((id, Box::pin(socket::connect(self.begin.key, config))));
                }
                SessionOutput::Adopt(id) => {
                    if let Some((accepted, ends)) = self.adopting.pop_front() {
                        let counters = Arc::clone(&self.counters);
                        self.connections.push(Connection::new(id, accepted.stream, ends, counters));
                    }
                }
                SessionOutput::Refuse => drop(self.adopting.pop_front()),
                SessionOutput::Send { connection, octets } => {
                    if let Some(connection) = self.connections.iter_mut().find(|c| c.id == connection) {
                        connection.push_urgent(octets.into());
                    }
                }
                SessionOutput::Close(id) => given_up = self.close(now, id),
                SessionOutput::StateChanged { old, new, reason } => {
                    self.state_changed(now, old, new, &reason)
                }
                SessionOutput::Up { connection, session } => {
                    self.epoch.0 += 1;
                    let found = self.connections.iter().find(|c| c.id == connection);
                    let Some(outbox) = found.map(|c| Arc::clone(&c.outbox)) else { continue };
                    (self.up, self.forget_at) = (Some(connection), None);
                    PeerCounters::add(&self.counters.sessions, 1);
                    let epoch = self.epoch;
                    self.status.send_modify(|status| {
                        status.epoch = epoch;
                        status.session = Some(Arc::clone(&session));
                    });
                    self.events.push(ToSpeaker::SessionUp { peer, epoch, session, outbox });
                }
                SessionOutput::Down(down) => {
                    self.up = None;
                    self.forget_at = self.begin.dynamic.then(|| now + self.linger());
                    self.status.send_modify(|status| status.session = None);
                    self.events.push(ToSpeaker::SessionDown { peer, epoch: self.epoch, down });
                }
                SessionOutput::Updates(updates) => {
                    PeerCounters::add(&self.counters.updates_received, updates.len() as u64);
                    self.events.push(ToSpeaker::Updates { peer, epoch: self.epoch, updates });
                }
                SessionOutput::Refresh { family, kind } => {
                    let epoch = self.epoch;
                    self.events.push(ToSpeaker::RouteRefresh { peer, epoch, family, kind });
                }
            }
        }
    }

    /// Closes a connection, or gives an attempt up; true for an attempt.
    fn close(&mut self, now: Instant, id: ConnectionId) -> bool {
        if self.dialing.as_ref().is_some_and(|(dialing, _)| *dialing == id) {
            self.dialing = None;
            return true;
        }
        if let Some(index) = self.connections.iter().position(|c| c.id == id) {
            let connection = self.connections.remove(index);
            connection.outbox.close();
            // Most often all of it goes out right here.
            connection.write(now);
            self.closing.spawn(connection.close());
        }
        false
    }

    /// An attempt was given up for the next one: nobody answers, which is also what a wrong password looks like.
    fn no_answer(&self) {
        let hint = match self.begin.settings.session.password {
            Password::None => "",
            Password::Key(_) | Password::Missing(_) => " (or the passwords differ)",
        };
        let reason = format!("cannot connect: no answer{hint}");
        let known = self.status.borrow().last_error.as_deref() == Some(reason.as_str());
        if !known {
            info!(peer = %self.begin.key.address, name = self.begin.settings.name, "{reason}");
            self.status.send_modify(|status| status.last_error = Some(reason));
        }
    }

    fn state_changed(&mut self, now: Instant, old: State, new: State, reason: &str) {
        let (peer, name) = (self.begin.key.address, &self.begin.settings.name);
        // Attempts come and go; people want to hear of sessions, of stops, and of an error they do not know yet.
        let known = self.status.borrow().last_error.as_deref() == Some(reason);
        let news = (old, new) == (State::Connect, State::Active) && !known;
        let fell = new < old && old >= State::OpenSent;
        // Members of a range come by the thousand: that they are there is for `show peers`.
        let up = new == State::Established && !self.begin.dynamic;
        if news || fell || up || new == State::Idle {
            info!(%peer, name, %old, %new, reason, "session state");
        } else {
            debug!(%peer, name, %old, %new, reason, "session state");
        }
        let failed =
            old >= State::OpenSent && new < State::OpenSent || (old, new) == (State::Connect, State::Active);
        self.status.send_modify(|status| {
            status.state = new;
            status.since = now;
            if failed {
                status.last_error = Some(reason.to_owned());
            }
        });
    }

    fn linger(&self) -> Duration {
        self.begin.settings.max_restart_time + DYNAMIC_LINGER
    }
}
