//! The floor: a process that knows OPEN and KEEPALIVE and copies every UPDATE to whoever must have it. Not pure.
//!
//! It decides nothing and encodes nothing. What arrived is kept once; each receiver has a place in it and is sent what lies
//! behind, in large writes of shared octets.

use std::fmt;
use std::io::{self, IoSlice, Read, Write};
use std::net::SocketAddrV4;

use anyhow::Result;
use clap::ValueEnum;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use socket2::{Domain, Protocol, Socket, Type};

use crate::addresses::{DAEMON, DAEMON_AS, Kind, PORT, Peer};
use crate::wire;

/// The listening socket, in epoll's terms.
const LISTENER: u64 = u64::MAX;
/// Buffers a write gathers.
const GATHER: usize = 512;

/// Who gets what a peer sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Rule {
    /// All others.
    Others,
    /// Only peers that only look.
    Monitors,
}

/// What a relay may do wrong, to see that it is noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Fault {
    /// The first UPDATE goes to nobody.
    Drop,
    /// Peers get back what they sent.
    Back,
    /// An UPDATE announces one prefix more than was sent.
    Extra,
    /// The path of the second UPDATE is that of the first.
    WrongPath,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if *self == Rule::Others { "others" } else { "monitors" })
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Fault::Drop => "drop",
            Fault::Back => "back",
            Fault::Extra => "extra",
            Fault::WrongPath => "wrong-path",
        })
    }
}

/// Messages that arrived together.
struct Batch {
    from: usize,
    octets: Vec<u8>,
}

struct Receiver {
    socket: Socket,
    kind: Kind,
    established: bool,
    closed: bool,
    partial: Vec<u8>,
    /// Octets of the session itself, before any UPDATE.
    own: Vec<u8>,
    /// The batch it is at, and how much of it was sent.
    at: usize,
    offset: usize,
    wants_room: bool,
}

struct Relay {
    epoll: Epoll,
    rule: Rule,
    fault: Option<Fault>,
    receivers: Vec<Receiver>,
    batches: Vec<Batch>,
    buffer: Vec<u8>,
}

/// Relays until killed.
///
/// # Errors
/// Where it cannot listen.
pub fn run(rule: Rule, fault: Option<Fault>) -> Result<()> {
    let listener = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
    listener.set_nonblocking(true)?;
    listener.bind(&SocketAddrV4::new(DAEMON, PORT).into())?;
    listener.listen(4096)?;
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    epoll.add(&listener, EpollEvent::new(EpollFlags::EPOLLIN, LISTENER))?;
    let mut relay =
        Relay { epoll, rule, fault, receivers: Vec::new(), batches: Vec::new(), buffer: vec![0; 256 << 10] };
    let mut events = vec![EpollEvent::empty(); 512];
    loop {
        let count = match relay.epoll.wait(&mut events, EpollTimeout::NONE) {
            Ok(count) => count,
            Err(nix::Error::EINTR) => 0,
            Err(error) => return Err(error.into()),
        };
        let before = relay.batches.len();
        for event in &events[..count] {
            if event.data() == LISTENER {
                relay.accept(&listener)?;
                continue;
            }
            let at = event.data() as usize;
            if event.events().intersects(EpollFlags::EPOLLIN | EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR) {
                relay.read(at);
            }
            if event.events().contains(EpollFlags::EPOLLOUT) {
                relay.write(at)?;
            }
        }
        if relay.batches.len() > before {
            for at in 0..relay.receivers.len() {
                relay.write(at)?;
            }
        }
    }
}

impl Relay {
    fn accept(&mut self, listener: &Socket) -> Result<()> {
        loop {
            let (socket, address) = match listener.accept() {
                Ok(accepted) => accepted,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            socket.set_nonblocking(true)?;
            socket.set_tcp_nodelay(true)?;
            let Some(address) = address.as_socket_ipv4() else { continue };
            let at = self.receivers.len();
            self.epoll.add(&socket, EpollEvent::new(EpollFlags::EPOLLIN, at as u64))?;
            self.receivers.push(Receiver {
                socket,
                kind: Peer::kind_of(*address.ip()),
                established: false,
                closed: false,
                partial: Vec::new(),
                own: wire::open(DAEMON_AS, 180, DAEMON),
                at: 0,
                offset: 0,
                wants_room: false,
            });
            self.write(at)?;
        }
    }

    fn read(&mut self, at: usize) {
        let receiver = &mut self.receivers[at];
        let left = receiver.partial.len();
        self.buffer[..left].copy_from_slice(&receiver.partial);
        let octets = match (&receiver.socket).read(&mut self.buffer[left..]) {
            Ok(0) => return receiver.close(&self.epoll),
            Ok(octets) => octets,
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                return;
            }
            Err(_) => return receiver.close(&self.epoll),
        };
        let filled = &self.buffer[..left + octets];
        let mut batch = Vec::new();
        let mut done = 0;
        let broken = loop {
            let (kind, length) = match wire::header(&filled[done..]) {
                Ok(Some(header)) if filled.len() - done >= header.1 => header,
                Ok(_) => break false,
                Err(_) => break true,
            };
            let message = &filled[done..done + length];
            done += length;
            match kind {
                wire::UPDATE => batch.extend_from_slice(message),
                wire::OPEN => receiver.own.extend_from_slice(&wire::keepalive()),
                wire::KEEPALIVE => receiver.established = true,
                _ => break true,
            }
        };
        receiver.partial = filled[done..].to_vec();
        if broken {
            return receiver.close(&self.epoll);
        }
        if !batch.is_empty() {
            if let Some(fault) = self.fault {
                batch = spoil(fault, self.batches.is_empty(), batch);
            }
            self.batches.push(Batch { from: at, octets: batch });
        }
        // An error shows at the next read.
        let _ = self.write(at);
    }

    fn write(&mut self, at: usize) -> Result<()> {
        let (rule, back) = (self.rule, self.fault == Some(Fault::Back));
        let (receiver, batches) = (&mut self.receivers[at], &self.batches);
        if receiver.closed {
            return Ok(());
        }
        let wants = |kind: Kind, batch: &Batch| {
            (batch.from != at || back) && (rule == Rule::Others || kind == Kind::Monitor)
        };
        loop {
            if !receiver.own.is_empty() {
                match (&receiver.socket).write(&receiver.own) {
                    Ok(octets) => drop(receiver.own.drain(..octets)),
                    Err(_) => break,
                }
                continue;
            }
            if !receiver.established {
                break;
            }
            let kind = receiver.kind;
            while receiver.offset == 0 && batches.get(receiver.at).is_some_and(|batch| !wants(kind, batch)) {
                receiver.at += 1;
            }
            let due = batches[receiver.at..].iter().filter(|batch| wants(kind, batch)).take(GATHER);
            let mut slices: Vec<IoSlice<'_>> = due.map(|batch| IoSlice::new(&batch.octets)).collect();
            let Some(first) = slices.first_mut() else { break };
            first.advance(receiver.offset);
            match (&receiver.socket).write_vectored(&slices) {
                Ok(octets) => receiver.advance(octets, batches, wants),
                Err(_) => break,
            }
        }
        let wants_room = receiver.established && receiver.at < batches.len();
        if wants_room != receiver.wants_room {
            receiver.wants_room = wants_room;
            let mut flags = EpollFlags::EPOLLIN;
            flags.set(EpollFlags::EPOLLOUT, wants_room);
            self.epoll.modify(&receiver.socket, &mut EpollEvent::new(flags, at as u64))?;
        }
        Ok(())
    }
}

impl Receiver {
    fn advance(&mut self, mut octets: usize, batches: &[Batch], wants: impl Fn(Kind, &Batch) -> bool) {
        while let Some(batch) = batches.get(self.at) {
            if wants(self.kind, batch) {
                let left = batch.octets.len() - self.offset;
                if octets < left {
                    self.offset += octets;
                    return;
                }
                octets -= left;
            }
            self.at += 1;
            self.offset = 0;
            if octets == 0 {
                return;
            }
        }
    }

    fn close(&mut self, epoll: &Epoll) {
        if !self.closed {
            self.closed = true;
            let _ = epoll.delete(&self.socket);
            let _ = self.socket.shutdown(std::net::Shutdown::Both);
        }
    }
}

/// The messages of a batch as a relay with this fault sends them on.
fn spoil(fault: Fault, first: bool, batch: Vec<u8>) -> Vec<u8> {
    let Ok(Some((_, length))) = wire::header(&batch) else { return batch };
    let Ok(update) = wire::parts(&batch[wire::HEADER..length]) else { return batch };
    match fault {
        Fault::Drop if first => batch[length..].to_vec(),
        Fault::Extra if first => {
            let mut more = wire::announce(update.attributes, std::iter::once(0x0b00_0000));
            more.extend_from_slice(&batch);
            more
        }
        Fault::WrongPath => {
            let Ok(Some((_, next))) = wire::header(&batch[length..]) else { return batch };
            let Ok(second) = wire::parts(&batch[length + wire::HEADER..length + next]) else { return batch };
            let networks =
                wire::Prefixes(second.announced).filter_map(|prefix| prefix.ok().map(|(network, _)| network));
            let wrong = wire::announce(update.attributes, networks);
            [&batch[..length], &wrong, &batch[length + next..]].concat()
        }
        _ => batch,
    }
}
