//! One simulated peer: its connection, where it stands, and what it has still to send. Not pure (a socket).
//!
//! Nothing here blocks. RFC 4271 §8, as far as a peer needs that only connects and never misbehaves.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::rc::Rc;
use std::time::Instant;

use socket2::{Domain, Protocol, Socket, Type};

use crate::addresses::{DAEMON, PORT, Peer};
use crate::wire;

/// Hold time offered, seconds.
pub const HOLD_TIME: u16 = 180;

/// Octets that a slow reader takes at once.
const SLOW: usize = 1024;

/// Where a session stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// No connection.
    Idle,
    /// A connection is being made.
    Connecting,
    /// OPEN sent.
    OpenSent,
    /// OPEN received and KEEPALIVE sent.
    OpenConfirm,
    /// KEEPALIVE received.
    Established,
}

/// How a peer reads what it is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reading {
    /// As soon as it arrives.
    Prompt,
    /// A KiB every 100 ms.
    Slow,
    /// Not at all.
    Never,
}

/// A simulated peer's end of its session.
pub struct Session {
    /// Who this is.
    pub peer: Peer,
    /// Where it stands.
    pub stage: Stage,
    /// The connection.
    pub socket: Option<Socket>,
    /// Octets of a message that has not wholly arrived.
    pub partial: Vec<u8>,
    /// Whether epoll is asked to tell of room to write.
    pub wants_room: bool,
    /// Sent as soon as the session is established, each time.
    pub greeting: Option<Rc<[u8]>>,
    /// Why it broke last.
    pub broken: Option<String>,
    /// When something was sent last.
    pub last_sent: Instant,
    /// When to connect anew.
    pub retry_at: Option<Instant>,
    /// How it reads.
    pub reading: Reading,
    /// How often it was established.
    pub times_up: usize,
    out: VecDeque<Rc<[u8]>>,
    sent_of_first: usize,
}

impl Session {
    /// Not connected.
    #[must_use]
    pub fn new(peer: Peer) -> Self {
        Session {
            peer,
            stage: Stage::Idle,
            socket: None,
            partial: Vec::new(),
            wants_room: false,
            greeting: None,
            broken: None,
            last_sent: Instant::now(),
            retry_at: None,
            reading: Reading::Prompt,
            times_up: 0,
            out: VecDeque::new(),
            sent_of_first: 0,
        }
    }

    /// Begins to connect, from the peer's own address.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn connect(&mut self) -> io::Result<&Socket> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
        socket.set_nonblocking(true)?;
        socket.set_tcp_nodelay(true)?;
        socket.bind(&SocketAddr::from((self.peer.address, 0)).into())?;
        match socket.connect(&SocketAddrV4::new(DAEMON, PORT).into()) {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(nix::errno::Errno::EINPROGRESS as i32) => {}
            Err(error) => return Err(error),
        }
        self.stage = Stage::Connecting;
        self.retry_at = None;
        Ok(self.socket.insert(socket))
    }

    /// The connection is there: OPEN.
    pub fn connected(&mut self) {
        self.stage = Stage::OpenSent;
        let identifier: Ipv4Addr = self.peer.address;
        self.queue(wire::open(self.peer.asn, HOLD_TIME, identifier).into());
    }

    /// Gives up the connection and all that waits for it.
    pub fn close(&mut self) {
        self.stage = Stage::Idle;
        self.socket = None;
        self.partial.clear();
        self.wants_room = false;
        self.out.clear();
        self.sent_of_first = 0;
    }

    /// Appends whole messages to what is to be sent.
    pub fn queue(&mut self, octets: Rc<[u8]>) {
        if !octets.is_empty() {
            self.out.push_back(octets);
        }
    }

    /// Everything queued has been given to the kernel.
    #[must_use]
    pub fn is_flushed(&self) -> bool {
        self.out.is_empty()
    }

    /// Writes what the kernel takes, at most about this many octets.
    ///
    /// # Errors
    /// Where the connection broke.
    pub fn flush(&mut self, most: usize, now: Instant) -> io::Result<()> {
        let Some(socket) = &self.socket else { return Ok(()) };
        let mut written = 0;
        while let Some(first) = self.out.front() {
            match (&*socket).write(&first[self.sent_of_first..]) {
                Ok(octets) => {
                    written += octets;
                    self.sent_of_first += octets;
                    self.last_sent = now;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            }
            if self.sent_of_first == first.len() {
                self.out.pop_front();
                self.sent_of_first = 0;
            }
            if written >= most {
                break;
            }
        }
        Ok(())
    }

    /// Reads into the buffer behind what was left over; how many octets there are now. `None`: nothing to read.
    ///
    /// # Errors
    /// Where the connection broke or was closed.
    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        let Some(socket) = &self.socket else { return Ok(None) };
        let left = self.partial.len();
        let end = if self.reading == Reading::Slow { left + SLOW } else { buffer.len() };
        let octets = match (&*socket).read(&mut buffer[left..end]) {
            Ok(0) => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "closed by the daemon")),
            Ok(octets) => octets,
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        buffer[..left].copy_from_slice(&self.partial);
        self.partial.clear();
        Ok(Some(left + octets))
    }
}
