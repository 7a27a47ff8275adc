//! All simulated peers in one thread: an epoll loop that connects, sends, receives and keeps sessions alive. Not pure.

use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use crate::addresses::Peer;
use crate::session::{Reading, Session, Stage};
use crate::tables::Tables;
use crate::wire;

/// Octets read at once.
const READ_SIZE: usize = 256 << 10;
/// Octets written to one session before the others have their turn.
const WRITE_SIZE: usize = 512 << 10;
/// Events taken at once.
const EVENTS: usize = 512;
/// Pause before a session that broke is tried again.
const RETRY: Duration = Duration::from_millis(200);
/// How often timers are looked at.
const TICK: Duration = Duration::from_millis(50);
/// Ticks between two reads of a slow reader.
const SLOW_TICKS: u64 = 2;

/// All peers, and their tables.
pub struct Fleet {
    epoll: Epoll,
    /// The peers.
    pub sessions: Vec<Session>,
    /// What they received.
    pub tables: Tables,
    /// Sessions that are established.
    pub established: usize,
    /// When the last one became so.
    pub last_established: Option<Instant>,
    /// Sessions that broke after they were asked to connect.
    pub broken: usize,
    /// Whether broken sessions are tried again.
    pub reconnect: bool,
    /// When an UPDATE arrived last.
    pub last_arrival: Instant,
    buffer: Vec<u8>,
    next_tick: Instant,
    ticks: u64,
    keepalive: Rc<[u8]>,
    /// Time between keepalives.
    pub keepalive_time: Duration,
    events: Vec<EpollEvent>,
}

impl Fleet {
    /// Peers that are not connected yet.
    ///
    /// # Errors
    /// Where the kernel gives no epoll.
    pub fn new(peers: &[Peer], tables: Tables) -> Result<Self> {
        Ok(Fleet {
            epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?,
            sessions: peers.iter().copied().map(Session::new).collect(),
            tables,
            established: 0,
            last_established: None,
            broken: 0,
            reconnect: true,
            last_arrival: Instant::now(),
            buffer: vec![0; READ_SIZE + wire::LONGEST],
            next_tick: Instant::now(),
            ticks: 0,
            keepalive: wire::keepalive().into(),
            keepalive_time: Duration::from_secs(30),
            events: vec![EpollEvent::empty(); EVENTS],
        })
    }

    /// Begins to connect one peer.
    ///
    /// # Errors
    /// Where no connection can even be begun.
    pub fn connect(&mut self, peer: usize) -> Result<()> {
        let socket = self.sessions[peer].connect()?;
        let events = EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT;
        self.epoll.add(socket, EpollEvent::new(events, peer as u64))?;
        self.sessions[peer].wants_room = true;
        Ok(())
    }

    /// Connects all peers, at most so many at once, and waits until all sessions are established.
    ///
    /// # Errors
    /// Where they are not by the deadline.
    pub fn establish(&mut self, at_once: usize, deadline: Instant) -> Result<()> {
        let mut next = 0;
        while self.established < self.sessions.len() {
            while next < self.sessions.len() && next - self.established.min(next) < at_once {
                self.connect(next)?;
                next += 1;
            }
            if Instant::now() >= deadline {
                let why = self.sessions.iter().find_map(|session| session.broken.clone()).unwrap_or_default();
                bail!("{} of {} sessions established {why}", self.established, self.sessions.len());
            }
            self.step(TICK)?;
        }
        Ok(())
    }

    /// Gives a peer whole messages to send.
    ///
    /// # Errors
    /// Where epoll fails.
    pub fn send(&mut self, peer: usize, octets: Rc<[u8]>) -> Result<()> {
        self.sessions[peer].queue(octets);
        self.write(peer)
    }

    /// Steps until the condition holds; false where the deadline came first.
    ///
    /// # Errors
    /// Where epoll fails.
    pub fn until(&mut self, deadline: Instant, mut done: impl FnMut(&Self) -> bool) -> Result<bool> {
        while !done(self) {
            let now = Instant::now();
            if now >= deadline {
                return Ok(false);
            }
            self.step(TICK.min(deadline - now))?;
        }
        Ok(true)
    }

    /// Waits for events, no longer than this, and handles them.
    ///
    /// # Errors
    /// Where epoll fails.
    pub fn step(&mut self, patience: Duration) -> Result<()> {
        let mut events = std::mem::take(&mut self.events);
        let timeout = EpollTimeout::try_from(patience).unwrap_or(EpollTimeout::ZERO);
        let count = match self.epoll.wait(&mut events, timeout) {
            Ok(count) => count,
            Err(nix::Error::EINTR) => 0,
            Err(error) => return Err(error.into()),
        };
        for event in &events[..count] {
            self.handle(event.data() as usize, event.events())?;
        }
        self.events = events;
        self.tick()
    }

    fn handle(&mut self, peer: usize, events: EpollFlags) -> Result<()> {
        let session = &mut self.sessions[peer];
        if session.stage == Stage::Connecting {
            let Some(socket) = &session.socket else { return Ok(()) };
            match socket.take_error() {
                Ok(None) if events.contains(EpollFlags::EPOLLOUT) => session.connected(),
                Ok(None) => return Ok(()),
                Ok(Some(error)) | Err(error) => return self.lose(peer, &error.to_string()),
            }
            return self.write(peer);
        }
        if events.intersects(EpollFlags::EPOLLIN | EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR) {
            self.read(peer)?;
        }
        if events.contains(EpollFlags::EPOLLOUT) {
            self.write(peer)?;
        }
        Ok(())
    }

    fn read(&mut self, peer: usize) -> Result<()> {
        let mut buffer = std::mem::take(&mut self.buffer);
        let outcome = self.sessions[peer].read(&mut buffer);
        let outcome = match outcome {
            Ok(None) => Ok(()),
            Ok(Some(filled)) => self.messages(peer, &buffer[..filled]),
            Err(error) => Err(error.to_string()),
        };
        self.buffer = buffer;
        match outcome {
            Ok(()) => Ok(()),
            Err(why) => self.lose(peer, &why),
        }
    }

    fn messages(&mut self, peer: usize, octets: &[u8]) -> Result<(), String> {
        let now = Instant::now();
        let mut at = 0;
        while let Some((kind, length)) = wire::header(&octets[at..]).map_err(|error| error.0)? {
            if octets.len() - at < length {
                break;
            }
            let body = &octets[at + wire::HEADER..at + length];
            at += length;
            if kind == wire::UPDATE {
                self.last_arrival = now;
                self.tables.update(peer, body, now).map_err(|error| error.0)?;
            } else {
                self.control(peer, kind, body, now)?;
            }
        }
        self.sessions[peer].partial.extend_from_slice(&octets[at..]);
        Ok(())
    }

    /// A message other than UPDATE.
    fn control(&mut self, peer: usize, kind: u8, body: &[u8], now: Instant) -> Result<(), String> {
        let session = &mut self.sessions[peer];
        match (kind, session.stage) {
            (wire::OPEN, Stage::OpenSent) => {
                session.stage = Stage::OpenConfirm;
                session.queue(self.keepalive.clone());
                self.write(peer).map_err(|error| error.to_string())
            }
            (wire::KEEPALIVE, Stage::OpenConfirm) => {
                session.stage = Stage::Established;
                session.times_up += 1;
                self.established += 1;
                self.last_established = Some(now);
                if let Some(greeting) = session.greeting.clone() {
                    session.queue(greeting);
                    return self.write(peer).map_err(|error| error.to_string());
                }
                Ok(())
            }
            (wire::NOTIFICATION, _) => Err(format!("NOTIFICATION {:?}", &body[..body.len().min(2)])),
            // Route refresh or a further KEEPALIVE.
            _ => Ok(()),
        }
    }

    fn write(&mut self, peer: usize) -> Result<()> {
        let session = &mut self.sessions[peer];
        if session.stage == Stage::Connecting {
            return Ok(());
        }
        if let Err(error) = session.flush(WRITE_SIZE, Instant::now()) {
            return self.lose(peer, &error.to_string());
        }
        let wants_room = !session.is_flushed();
        if wants_room != session.wants_room
            && let Some(socket) = &session.socket
        {
            session.wants_room = wants_room;
            self.epoll.modify(socket, &mut EpollEvent::new(interest(session), peer as u64))?;
        }
        Ok(())
    }

    /// From now on a peer reads like this.
    ///
    /// # Errors
    /// Where epoll fails.
    pub fn set_reading(&mut self, peer: usize, reading: Reading) -> Result<()> {
        let session = &mut self.sessions[peer];
        session.reading = reading;
        if let Some(socket) = &session.socket {
            self.epoll.modify(socket, &mut EpollEvent::new(interest(session), peer as u64))?;
        }
        Ok(())
    }

    /// A session broke.
    fn lose(&mut self, peer: usize, why: &str) -> Result<()> {
        let session = &mut self.sessions[peer];
        session.broken = Some(format!("{}: {why}", session.peer.address));
        self.broken += 1;
        if self.reconnect {
            session.retry_at = Some(Instant::now() + RETRY);
        }
        self.disconnect(peer)
    }

    /// Closes a session without a word.
    ///
    /// # Errors
    /// Where epoll fails.
    pub fn disconnect(&mut self, peer: usize) -> Result<()> {
        let session = &mut self.sessions[peer];
        if session.stage == Stage::Established {
            self.established -= 1;
        }
        if let Some(socket) = &session.socket {
            self.epoll.delete(socket)?;
        }
        session.close();
        self.tables.clear(peer);
        Ok(())
    }

    /// Keepalives and new attempts that are due.
    fn tick(&mut self) -> Result<()> {
        let now = Instant::now();
        if now < self.next_tick {
            return Ok(());
        }
        self.next_tick = now + TICK;
        self.ticks += 1;
        for peer in 0..self.sessions.len() {
            if self.sessions[peer].reading == Reading::Slow && self.ticks.is_multiple_of(SLOW_TICKS) {
                self.read(peer)?;
            }
            let session = &mut self.sessions[peer];
            if session.stage == Stage::Established && now - session.last_sent >= self.keepalive_time {
                session.queue(self.keepalive.clone());
                self.write(peer)?;
            } else if session.retry_at.is_some_and(|at| at <= now) {
                session.retry_at = None;
                match self.connect(peer) {
                    Ok(()) => {}
                    Err(error) if error.downcast_ref::<io::Error>().is_some() => {
                        self.lose(peer, &error.to_string())?
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }
}

/// What epoll is to tell of.
fn interest(session: &Session) -> EpollFlags {
    let mut flags = EpollFlags::empty();
    flags.set(EpollFlags::EPOLLIN, session.reading == Reading::Prompt);
    flags.set(EpollFlags::EPOLLOUT, session.wants_room);
    flags
}
