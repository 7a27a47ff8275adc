//! One node: a speaker, its sessions, and the driver between them.
//!
//! Does what the daemon's tasks do, in one place and without sockets: octets that are to be sent, connections to be
//! opened and closed come out as [`Effect`]s.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use causeway_bgp_wire::{Cease, FamilySet, Notification};

use crate::config::Config;
use crate::event::{Input, Output, PeerId, PullState};
use crate::peer::{
    Addresses, Command, ConnectionId, RestartMarks, Session, SessionInput, SessionOutput, State,
};
use crate::speaker::{Cursor, Direction, Query, RouteView, Speaker, StartMode};

/// As much of what the speaker gave may be on its way to a peer.
const WINDOW: usize = 16 * 1024;

/// A peer's end of a connection.
pub type ConnectionKey = (PeerId, ConnectionId);

/// What a node wants of the network.
#[derive(Debug)]
pub enum Effect {
    /// Open a connection to this address.
    Connect { end: ConnectionKey, to: IpAddr },
    /// An accepted connection has this end.
    Adopt { end: ConnectionKey },
    /// An accepted connection is not wanted.
    Refuse { peer: PeerId },
    /// Octets; `of_speaker` of them count as on their way until they arrive.
    Send { end: ConnectionKey, octets: Vec<u8>, of_speaker: usize },
    /// Close it.
    Close { end: ConnectionKey },
}

struct PeerTask {
    session: Session,
    address: IpAddr,
    up: Option<ConnectionId>,
    awake: bool,
    in_flight: usize,
    received: BTreeMap<ConnectionId, Vec<u8>>,
}

/// A node.
pub struct Node {
    pub config: Arc<Config>,
    pub address: IpAddr,
    pub speaker: Speaker,
    peers: BTreeMap<PeerId, PeerTask>,
    marks: RestartMarks,
    rng: fastrand::Rng,
    pub effects: VecDeque<Effect>,
    /// UPDATEs taken in, and when the last of them.
    pub updates: u64,
    pub last_update: Instant,
    /// Sessions that ended.
    pub downs: u64,
    /// When the R bit is no longer said.
    restarted_until: Option<Instant>,
}

impl Node {
    pub fn start(
        now: Instant,
        config: Arc<Config>,
        address: IpAddr,
        restarting: bool,
        rng: fastrand::Rng,
    ) -> Self {
        let mut node = Node {
            config: config.clone(),
            address,
            speaker: Speaker::new(now, StartMode { restarting, fib: false }),
            peers: BTreeMap::new(),
            marks: RestartMarks {
                restarting,
                forwarding: if restarting { FamilySet::ALL } else { FamilySet::EMPTY },
            },
            rng,
            effects: VecDeque::new(),
            updates: 0,
            last_update: now,
            downs: 0,
            restarted_until: restarting.then(|| now + Duration::from_secs(120)),
        };
        node.speak(now, Input::Configure(config));
        node
    }

    pub fn configure(&mut self, now: Instant, config: Arc<Config>) {
        self.config = config.clone();
        self.speak(now, Input::Configure(config));
    }

    /// The peer at this address.
    pub fn peer_at(&self, address: IpAddr) -> Option<PeerId> {
        self.peers.iter().find(|(_, task)| task.address == address).map(|(id, _)| *id)
    }

    pub fn peer_ids(&self) -> Vec<PeerId> {
        self.peers.keys().copied().collect()
    }

    pub fn is_established(&self, peer: PeerId) -> bool {
        self.peers.get(&peer).is_some_and(|task| task.session.state() == State::Established)
    }

    pub fn next_timeout(&self) -> Option<Instant> {
        let sessions = self.peers.values().filter_map(|task| task.session.poll_timeout());
        sessions.chain(self.speaker.poll_timeout()).chain(self.restarted_until).min()
    }

    pub fn handle_timeout(&mut self, now: Instant) {
        if self.restarted_until.is_some_and(|until| until <= now) {
            self.restarted_until = None;
            self.marks = RestartMarks::default();
            for task in self.peers.values_mut() {
                task.session.handle(now, SessionInput::Command(Command::Marks(self.marks)));
            }
        }
        for task in self.peers.values_mut() {
            if task.session.poll_timeout().is_some_and(|at| at <= now) {
                task.session.handle_timeout(now);
            }
        }
        if self.speaker.poll_timeout().is_some_and(|at| at <= now) {
            self.speaker.handle_timeout(now);
        }
        self.settle(now);
    }

    /// Somebody at this address connected.
    pub fn accept(&mut self, now: Instant, from: IpAddr) -> Option<PeerId> {
        let peer = self.peer_at(from)?;
        let addresses = Addresses { local: self.address, remote: from, link_local: None };
        self.session(now, peer, SessionInput::Accepted(addresses));
        Some(peer)
    }

    pub fn connected(&mut self, now: Instant, (peer, connection): ConnectionKey, to: IpAddr) {
        let addresses = Addresses { local: self.address, remote: to, link_local: None };
        self.session(now, peer, SessionInput::Connected { connection, addresses });
    }

    pub fn lost(&mut self, now: Instant, (peer, connection): ConnectionKey, reason: &str) {
        if let Some(task) = self.peers.get_mut(&peer) {
            task.received.remove(&connection);
        }
        let reason = reason.to_owned();
        self.session(now, peer, SessionInput::Lost { connection, reason });
    }

    fn session(&mut self, now: Instant, peer: PeerId, input: SessionInput) {
        if let Some(task) = self.peers.get_mut(&peer) {
            task.session.handle(now, input);
        }
        self.settle(now);
    }

    pub fn receive(&mut self, now: Instant, (peer, connection): ConnectionKey, octets: &[u8]) {
        if let Some(task) = self.peers.get_mut(&peer) {
            task.received.entry(connection).or_default().extend_from_slice(octets);
        }
        self.settle(now);
    }

    /// Octets of the speaker have arrived at the other end.
    pub fn arrived(&mut self, now: Instant, peer: PeerId, octets: usize) {
        if let Some(task) = self.peers.get_mut(&peer) {
            task.in_flight = task.in_flight.saturating_sub(octets);
        }
        self.settle(now);
    }

    pub fn speak(&mut self, now: Instant, input: Input) {
        self.speaker.handle(now, input);
        self.settle(now);
    }

    /// Carries out everything that sessions and speaker ask for.
    fn settle(&mut self, now: Instant) {
        loop {
            let mut quiet = true;
            while let Some(output) = self.speaker.poll_output() {
                self.carry_out(now, output);
                quiet = false;
            }
            for peer in self.peer_ids() {
                while let Some(output) = self.peers.get_mut(&peer).and_then(|t| t.session.poll_output()) {
                    self.follow(now, peer, output);
                    quiet = false;
                }
                quiet &= !self.read(now, peer);
                quiet &= !self.pull(peer);
            }
            if quiet {
                return;
            }
        }
    }

    /// Gives a session what it has not yet read. True if it read something.
    fn read(&mut self, now: Instant, peer: PeerId) -> bool {
        let Some(task) = self.peers.get_mut(&peer) else { return false };
        let mut progress = false;
        for (connection, octets) in &mut task.received {
            let done = task.session.receive(now, *connection, octets);
            octets.drain(..done);
            progress |= done > 0;
        }
        progress
    }

    fn pull(&mut self, peer: PeerId) -> bool {
        let Some(task) = self.peers.get_mut(&peer) else { return false };
        let Some(connection) = task.up.filter(|_| task.awake && task.in_flight < WINDOW) else {
            return false;
        };
        let mut out = Vec::new();
        let most = self.rng.usize(1..8192);
        task.awake = self.speaker.pull(peer, most, &mut out) == PullState::More;
        let octets = out.concat();
        if !octets.is_empty() {
            task.in_flight += octets.len();
            let of_speaker = octets.len();
            self.effects.push_back(Effect::Send { end: (peer, connection), octets, of_speaker });
        }
        true
    }

    fn follow(&mut self, now: Instant, peer: PeerId, output: SessionOutput) {
        let Some(task) = self.peers.get_mut(&peer) else { return };
        match output {
            SessionOutput::Connect(id) => {
                self.effects.push_back(Effect::Connect { end: (peer, id), to: task.address });
            }
            SessionOutput::Adopt(id) => self.effects.push_back(Effect::Adopt { end: (peer, id) }),
            SessionOutput::Refuse => self.effects.push_back(Effect::Refuse { peer }),
            SessionOutput::Send { connection, octets } => {
                self.effects.push_back(Effect::Send { end: (peer, connection), octets, of_speaker: 0 });
            }
            SessionOutput::Close(id) => {
                task.received.remove(&id);
                self.effects.push_back(Effect::Close { end: (peer, id) });
            }
            SessionOutput::StateChanged { .. } => {}
            SessionOutput::Up { connection, session } => {
                (task.up, task.awake, task.in_flight) = (Some(connection), false, 0);
                self.speaker.handle(now, Input::SessionUp { peer, session });
            }
            SessionOutput::Down(down) => {
                task.up = None;
                self.downs += 1;
                self.speaker.handle(now, Input::SessionDown { peer, down });
            }
            SessionOutput::Updates(updates) => {
                (self.updates, self.last_update) = (self.updates + updates.len() as u64, now);
                self.speaker.handle(now, Input::Updates { peer, updates });
            }
            SessionOutput::Refresh { family, kind } => {
                self.speaker.handle(now, Input::RouteRefresh { peer, family, kind });
            }
        }
    }

    fn carry_out(&mut self, now: Instant, output: Output) {
        let command = |command| SessionInput::Command(command);
        let mut tell = |peer: PeerId, input| {
            if let Some(task) = self.peers.get_mut(&peer) {
                task.session.handle(now, input);
            }
        };
        match output {
            Output::PeerAdded { peer, key, settings, .. } => {
                let config = Arc::new(settings.session.clone());
                let mut session = Session::new(now, config, self.marks, self.rng.u64(..));
                session.handle(now, command(Command::Start));
                let (address, received) = (key.address, BTreeMap::new());
                let task = PeerTask { session, address, up: None, awake: false, in_flight: 0, received };
                self.peers.insert(peer, task);
            }
            Output::PeerRemoved(peer) => {
                let farewell = Notification::cease(Cease::PeerDeconfigured);
                tell(peer, command(Command::Stop(farewell)));
                while let Some(output) = self.peers.get_mut(&peer).and_then(|t| t.session.poll_output()) {
                    self.follow(now, peer, output);
                }
                self.peers.remove(&peer);
            }
            Output::SettingsChanged { peer, settings } => {
                let Some(task) = self.peers.get_mut(&peer) else { return };
                if **task.session.config() != settings.session {
                    let config = Arc::new(settings.session.clone());
                    task.session.handle(now, command(Command::Configure(config)));
                }
            }
            Output::ResetSession { peer, notification, idle_for } => {
                tell(peer, command(Command::Reset { notification, idle_for }));
            }
            Output::RequestRefresh { peer, family } => tell(peer, command(Command::RequestRefresh(family))),
            Output::Wake(peer) => {
                if let Some(task) = self.peers.get_mut(&peer) {
                    task.awake = true;
                }
            }
            Output::WakeFib | Output::WatchNextHop(_) | Output::UnwatchNextHop(_) => {
                panic!("there is no FIB feed")
            }
            Output::Log { .. } => {}
        }
    }

    /// What the node would show.
    pub fn routes(&self, direction: Direction) -> Vec<RouteView> {
        let query = Query { direction, peer: None, family: None, prefix: None, longer: false };
        let (mut cursor, mut rows) = (Cursor::default(), Vec::new());
        while !cursor.is_done() {
            rows.extend(self.speaker.walk(&query, &mut cursor, 16));
        }
        rows
    }

    /// To whom a peer number belongs.
    pub fn address_of(&self, peer: PeerId) -> Option<IpAddr> {
        self.peers.get(&peer).map(|task| task.address)
    }
}
