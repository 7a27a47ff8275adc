//! A peer that says what it is told to, and remembers what it is told.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use causeway_bgp_wire::{
    Asn, Capability, DecodeContext, Family, FamilySet, Header, Message, Notification, Open, PathAttributes,
    Prefix, SessionKind, encode_open,
};
use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, SockaddrStorage};

use crate::octets;
use crate::runner::Site;

/// How long anything may take that should happen at once.
pub const SOON: Duration = Duration::from_secs(8);

/// What a peer hears.
// One at a time, handed over once: a box would only be in the way.
#[allow(clippy::large_enum_variant)]
#[derive(Debug)]
pub enum Heard {
    Message(Message),
    Closed,
    Nothing,
}

/// One connection to the speaker, with what was learned over it.
pub struct Peer {
    stream: TcpStream,
    buffer: Vec<u8>,
    context: DecodeContext,
    /// The paths the speaker advertises at present.
    pub routes: BTreeMap<Prefix, PathAttributes>,
    /// Families whose End-of-RIB has come.
    pub end_of_rib: FamilySet,
    /// How many UPDATEs with prefixes have come.
    pub updates: usize,
    /// How many KEEPALIVEs have come.
    pub keepalives: usize,
    /// The messages of the last `next`, octet by octet.
    pub raw: Vec<Vec<u8>>,
}

impl Peer {
    /// Connects from a host of the subnet.
    pub fn connect(site: &Site, host: u8) -> Result<Self> {
        Self::connect_between(site.v4(host).into(), site.v4(1).into())
    }

    /// Connects over IPv6.
    pub fn connect6(site: &Site, host: u8) -> Result<Self> {
        Self::connect_between(site.v6(host).into(), site.v6(1).into())
    }

    fn connect_between(from: IpAddr, to: IpAddr) -> Result<Self> {
        let family = if from.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        let fd: OwnedFd = socket::socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
        let raw = std::os::fd::AsRawFd::as_raw_fd(&fd);
        socket::bind(raw, &SockaddrStorage::from(SocketAddr::new(from, 0)))?;
        socket::connect(raw, &SockaddrStorage::from(SocketAddr::new(to, 179)))
            .with_context(|| format!("connecting from {from} to {to}"))?;
        Ok(Self::over(TcpStream::from(fd)))
    }

    /// Waits for the speaker to connect to a host of the subnet.
    pub fn accept(listener: &TcpListener, bound: Duration) -> Result<Self> {
        listener.set_nonblocking(true)?;
        let until = Instant::now() + bound;
        loop {
            match listener.accept() {
                Ok((stream, _)) => {
                    stream.set_nonblocking(false)?;
                    return Ok(Self::over(stream));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
            ensure!(Instant::now() < until, "the speaker did not connect within {bound:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// A listener at a host of the subnet.
    pub fn listen(site: &Site, host: u8) -> Result<TcpListener> {
        Ok(TcpListener::bind((site.v4(host), 179))?)
    }

    /// Over a connection made otherwise.
    pub fn over(stream: TcpStream) -> Self {
        stream.set_nodelay(true).expect("a TCP socket");
        Peer {
            stream,
            buffer: Vec::new(),
            // From the inside, so that nothing it sends is discarded before the case has seen it.
            context: DecodeContext {
                confederation: true,
                ..DecodeContext::new(SessionKind::Internal, FamilySet::ALL)
            },
            routes: BTreeMap::new(),
            end_of_rib: FamilySet::EMPTY,
            updates: 0,
            keepalives: 0,
            raw: Vec::new(),
        }
    }

    /// Sends octets. A speaker that has closed already is no error here: what it said is still to be read.
    pub fn send(&mut self, octets: &[u8]) -> Result<()> {
        match self.stream.write_all(octets) {
            Err(error) if matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => {
                Ok(())
            }
            other => Ok(other?),
        }
    }

    /// The next message, the end of the connection, or nothing within the bound.
    pub fn next(&mut self, bound: Duration) -> Result<Heard> {
        let until = Instant::now() + bound;
        loop {
            if let Some(header) =
                Header::peek(&self.buffer, true).map_err(|e| anyhow!("what it sent: {e}"))?
                && self.buffer.len() >= header.length
            {
                let octets: Vec<u8> = self.buffer.drain(..header.length).collect();
                let message =
                    Message::decode(&octets, &self.context).map_err(|e| anyhow!("what it sent: {e}"))?;
                self.raw.push(octets);
                self.remember(&message);
                return Ok(Heard::Message(message));
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(Heard::Nothing);
            }
            self.stream.set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
            let mut chunk = [0; 16384];
            match self.stream.read(&mut chunk) {
                Ok(0) => return Ok(Heard::Closed),
                Ok(count) => self.buffer.extend_from_slice(&chunk[..count]),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return Ok(Heard::Closed),
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn remember(&mut self, message: &Message) {
        match message {
            Message::Keepalive => self.keepalives += 1,
            Message::Update(update) => {
                self.end_of_rib = update.end_of_rib.into_iter().chain(self.end_of_rib.iter()).collect();
                self.updates += usize::from(!update.withdrawn.is_empty() || !update.announced.is_empty());
                for nlri in update.withdrawn.iter().flat_map(|list| list.iter()) {
                    self.routes.remove(&nlri.prefix);
                }
                for announcement in &update.announced {
                    for nlri in announcement.nlri.iter() {
                        self.routes.insert(nlri.prefix, announcement.attributes.clone());
                    }
                }
            }
            _ => {}
        }
    }

    /// Waits for a message of a kind, passing over others but a NOTIFICATION.
    fn expect<T>(&mut self, what: &str, bound: Duration, pick: impl Fn(Message) -> Option<T>) -> Result<T> {
        let until = Instant::now() + bound;
        loop {
            match self.next(until.saturating_duration_since(Instant::now()))? {
                Heard::Message(message) => {
                    let notification = matches!(message, Message::Notification(_));
                    let text = format!("{message:?}");
                    match pick(message) {
                        Some(found) => return Ok(found),
                        None if notification => bail!("{what} was due, and this came: {text}"),
                        None => {}
                    }
                }
                Heard::Closed => bail!("{what} was due, and the connection was closed"),
                Heard::Nothing => bail!("{what} did not come within {bound:?}"),
            }
        }
    }

    /// The speaker's OPEN.
    pub fn expect_open(&mut self) -> Result<Open> {
        self.expect("an OPEN", SOON, |m| if let Message::Open(open) = m { Some(open) } else { None })
    }

    /// A KEEPALIVE.
    pub fn expect_keepalive(&mut self, bound: Duration) -> Result<()> {
        self.expect("a KEEPALIVE", bound, |m| matches!(m, Message::Keepalive).then_some(()))
    }

    /// A NOTIFICATION, and then the end of the connection.
    pub fn expect_notification_within(&mut self, bound: Duration) -> Result<Notification> {
        let found = self.expect("a NOTIFICATION", bound, |m| {
            if let Message::Notification(notification) = m { Some(notification) } else { None }
        })?;
        self.expect_closed()?;
        Ok(found)
    }

    /// A NOTIFICATION of this code and subcode, and then the end of the connection.
    pub fn expect_notification(&mut self, code: u8, subcode: u8) -> Result<Notification> {
        let found = self.expect_notification_within(SOON)?;
        ensure!(
            (found.code, found.subcode) == (code, subcode),
            "NOTIFICATION {code}/{subcode} was due, not {found}"
        );
        Ok(found)
    }

    /// A NOTIFICATION of this code, whatever the subcode.
    pub fn expect_error(&mut self, code: u8) -> Result<Notification> {
        let found = self.expect_notification_within(SOON)?;
        ensure!(found.code == code, "a NOTIFICATION of code {code} was due, not {found}");
        Ok(found)
    }

    /// The end of the connection, whatever is said before.
    pub fn expect_closed(&mut self) -> Result<()> {
        let until = Instant::now() + SOON;
        loop {
            match self.next(until.saturating_duration_since(Instant::now()))? {
                Heard::Closed => return Ok(()),
                Heard::Nothing => bail!("the connection was not closed"),
                Heard::Message(_) => {}
            }
        }
    }

    /// Listens for a while; the connection must stay.
    pub fn listen_for(&mut self, time: Duration) -> Result<()> {
        let until = Instant::now() + time;
        loop {
            match self.next(until.saturating_duration_since(Instant::now()))? {
                Heard::Nothing => return Ok(()),
                Heard::Closed => bail!("the connection was closed"),
                Heard::Message(Message::Notification(n)) => bail!("the session was ended: {n}"),
                Heard::Message(_) => {}
            }
        }
    }

    /// Waits until what has been learned satisfies the condition.
    pub fn until(&mut self, what: &str, condition: impl Fn(&Peer) -> bool) -> Result<()> {
        let until = Instant::now() + SOON;
        while !condition(self) {
            match self.next(until.saturating_duration_since(Instant::now()))? {
                Heard::Nothing => bail!("never: {what}; advertised: {:?}", self.routes),
                Heard::Closed => bail!("closed before: {what}"),
                Heard::Message(Message::Notification(n)) => bail!("{n} before: {what}"),
                Heard::Message(_) => {}
            }
        }
        Ok(())
    }

    /// Waits until the prefix is advertised; its attributes.
    pub fn route(&mut self, prefix: &str) -> Result<PathAttributes> {
        let key: Prefix = prefix.parse()?;
        self.until(&format!("{prefix} advertised"), |peer| peer.routes.contains_key(&key))?;
        Ok(self.routes[&key].clone())
    }

    /// Waits until the prefix is not advertised any more.
    pub fn withdrawn(&mut self, prefix: &str) -> Result<()> {
        let key: Prefix = prefix.parse()?;
        self.until(&format!("{prefix} withdrawn"), |peer| !peer.routes.contains_key(&key))
    }

    /// Whether the prefix is advertised at present.
    pub fn has(&self, prefix: &str) -> bool {
        self.routes.contains_key(&prefix.parse().expect("a prefix"))
    }

    /// OPEN, KEEPALIVE, Established; the speaker's OPEN.
    pub fn establish(&mut self, open: &Open) -> Result<Open> {
        let mut octets = Vec::new();
        encode_open(open, &mut octets);
        self.send(&octets)?;
        self.agree(open.four_octet_as().is_some())
    }

    /// Goes on after an OPEN was sent.
    pub fn agree(&mut self, four_octet_as: bool) -> Result<Open> {
        self.context.four_octet_as = four_octet_as;
        let theirs = self.expect_open()?;
        self.expect_keepalive(SOON)?;
        self.send(&octets::keepalive())?;
        Ok(theirs)
    }
}

/// The OPEN of a peer: both families, route refresh, four-octet AS, hold time 90 s.
pub fn open_of(site: &Site, host: u8, asn: u32) -> Open {
    let capabilities = vec![
        Capability::Multiprotocol(Family::Ipv4Unicast.into()),
        Capability::Multiprotocol(Family::Ipv6Unicast.into()),
        Capability::RouteRefresh,
    ];
    Open::new(Asn(asn), 90, site.v4(host), capabilities)
}

/// Connects and establishes a session with the usual OPEN.
pub fn established(site: &Site, host: u8, asn: u32) -> Result<Peer> {
    let mut peer = Peer::connect(site, host)?;
    peer.establish(&open_of(site, host, asn))?;
    Ok(peer)
}
