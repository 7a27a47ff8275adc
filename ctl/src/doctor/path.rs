//! Probes to one address of another node and back, over the responder of its fib-sync.

use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use causeway_probe::message::headers;
use causeway_probe::{Event, HEADER, Kind, Message, Mishap, Packet, ProbeSocket, Verdict};

use super::search::{Outcome, Path};
use crate::Error;

/// How long the first answer may take.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often a message is sent before it counts as unheard.
const TRIES: usize = 3;
/// The least and the most time a probe is waited for.
const WAIT: [Duration; 2] = [Duration::from_millis(150), Duration::from_secs(1)];
/// A cookie of this age is replaced; the responder takes it for at least a minute.
const COOKIE_AGE: Duration = Duration::from_secs(30);

/// A conversation with a responder.
pub struct Session {
    socket: ProbeSocket,
    peer: SocketAddr,
    source: Option<IpAddr>,
    cookie: u64,
    proved: Instant,
    wait: Duration,
    nonce: u64,
    /// The MTU of the way back as the other node's kernel has it, once it was asked for a probe; 0: unknown.
    pub mtu_back: u32,
}

/// How long the responder took to answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Greeting {
    /// It answered.
    Answered,
    /// It did not.
    Unanswered,
}

/// What a message that came in means to who waits for it.
enum Heard {
    Message(Message),
    Mishap(Mishap),
}

impl Session {
    /// Opens a socket for probes to `peer`, from `source`.
    ///
    /// # Errors
    /// There is no such source address, or no socket.
    pub fn open(peer: SocketAddr, source: Option<IpAddr>) -> Result<Session, Error> {
        let any: IpAddr =
            if peer.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let local = SocketAddr::new(source.unwrap_or(any), 0);
        let socket = ProbeSocket::bind(local)
            .map_err(|error| Error::Refused(format!("no socket for probes at {local}: {error}")))?;
        Ok(Session {
            socket,
            peer,
            source,
            cookie: 0,
            proved: Instant::now(),
            wait: WAIT[1],
            // Whoever sits beside the path must not guess it.
            nonce: RandomState::new().hash_one(peer),
            mtu_back: 0,
        })
    }

    /// Asks for a cookie.
    ///
    /// # Errors
    /// The socket failed.
    pub fn greet(&mut self) -> Result<Greeting, Error> {
        for _ in 0..TRIES {
            let asked = Instant::now();
            let hello = self.next(Kind::Hello);
            if self.send(&hello, HEADER, 0)?.is_some() {
                continue;
            }
            while let Some(heard) = self.hear(asked + PATIENCE, hello.nonce)? {
                match heard {
                    Heard::Message(answer) if answer.kind == Kind::Cookie => {
                        self.cookie = answer.cookie;
                        self.proved = Instant::now();
                        self.wait = (4 * asked.elapsed()).clamp(WAIT[0], WAIT[1]);
                        return Ok(Greeting::Answered);
                    }
                    Heard::Mishap(mishap) if mishap.verdict == Verdict::Unreachable => break,
                    _ => {}
                }
            }
        }
        Ok(Greeting::Unanswered)
    }

    fn next(&mut self, kind: Kind) -> Message {
        self.nonce = self.nonce.wrapping_add(1).max(1);
        Message { cookie: self.cookie, ..Message::new(kind, self.nonce) }
    }

    fn send(&mut self, message: &Message, length: usize, ttl: u8) -> Result<Option<Mishap>, Error> {
        let packet = Packet { to: self.peer, from: self.source, ttl, payload: &message.encode(length) };
        match self.socket.send(&packet) {
            Ok(mishap) => Ok(mishap),
            // No way: told by the kernel, not by a hop.
            Err(_) => Ok(Some(Mishap {
                verdict: Verdict::Unreachable,
                hop: None,
                mtu: 0,
                to: None,
                quoted: Vec::new(),
            })),
        }
    }

    /// Waits for something about the message with that number.
    fn hear(&mut self, deadline: Instant, nonce: u64) -> Result<Option<Heard>, Error> {
        let failed = |error: std::io::Error| Error::Refused(format!("socket for probes: {error}"));
        while let Some(event) = self.socket.wait(deadline).map_err(failed)? {
            match event {
                Event::Datagram { from, payload, .. } if from == self.peer => {
                    if let Some(message) = Message::decode(&payload)
                        && (message.nonce == nonce || (message.nonce == 0 && message.kind == Kind::Report))
                    {
                        return Ok(Some(Heard::Message(message)));
                    }
                }
                Event::Mishap(mishap) => {
                    // A hop may quote too little of the packet to tell which it was.
                    let quoted = Message::decode(&mishap.quoted).map(|message| message.nonce);
                    let same = quoted == Some(nonce) || (quoted.is_none() && mishap.to == Some(self.peer));
                    if same {
                        return Ok(Some(Heard::Mishap(mishap)));
                    }
                }
                Event::Datagram { .. } => {}
            }
        }
        Ok(None)
    }

    fn fresh(&mut self) -> Result<(), Error> {
        if self.proved.elapsed() > COOKIE_AGE && self.greet()? == Greeting::Unanswered {
            return Err(Error::Refused(format!("{} stopped answering", self.peer)));
        }
        Ok(())
    }

    /// Whether so small a message as any still goes through: else silence says nothing about sizes.
    fn alive(&mut self) -> Result<(), Error> {
        match self.greet()? {
            Greeting::Answered => Ok(()),
            Greeting::Unanswered => Err(Error::Refused(format!("{} stopped answering", self.peer))),
        }
    }
}

fn outcome(verdict: Verdict, hop: Option<IpAddr>, mtu: u32) -> Outcome {
    match verdict {
        Verdict::TooBigHere => Outcome::TooBigHere(mtu),
        Verdict::TooBig => Outcome::TooBig(hop, mtu),
        Verdict::TimeExceeded => Outcome::Expired(hop),
        Verdict::Unreachable | Verdict::None => Outcome::Unreachable(hop),
    }
}

/// Probes to the other node.
pub struct Out<'a>(pub &'a mut Session);

impl Path for Out<'_> {
    fn probe(&mut self, size: u16, ttl: u8) -> Result<Outcome, Error> {
        let Out(session) = self;
        session.fresh()?;
        let length = usize::from(size.saturating_sub(headers(session.peer.ip())));
        for _ in 0..TRIES {
            let probe = session.next(Kind::Probe);
            if let Some(mishap) = session.send(&probe, length, ttl)? {
                return Ok(outcome(mishap.verdict, mishap.hop, mishap.mtu));
            }
            match session.hear(Instant::now() + session.wait, probe.nonce)? {
                Some(Heard::Message(_got)) => return Ok(Outcome::Arrived),
                Some(Heard::Mishap(mishap)) => return Ok(outcome(mishap.verdict, mishap.hop, mishap.mtu)),
                None => {}
            }
        }
        session.alive()?;
        Ok(Outcome::Silent)
    }
}

/// Probes that the other node sends back.
pub struct Back<'a>(pub &'a mut Session);

impl Path for Back<'_> {
    fn probe(&mut self, size: u16, ttl: u8) -> Result<Outcome, Error> {
        let Back(session) = self;
        session.fresh()?;
        for _ in 0..TRIES {
            let ask = Message { size, ttl, ..session.next(Kind::Send) };
            session.send(&ask, HEADER, 0)?;
            let deadline = Instant::now() + session.wait;
            while let Some(heard) = session.hear(deadline, ask.nonce)? {
                let Heard::Message(message) = heard else { continue };
                match message.kind {
                    Kind::Data => return Ok(Outcome::Arrived),
                    Kind::Report => return Ok(outcome(message.verdict, message.hop, message.mtu)),
                    Kind::Sent => session.mtu_back = message.mtu,
                    _ => {}
                }
            }
        }
        session.alive()?;
        Ok(Outcome::Silent)
    }
}
