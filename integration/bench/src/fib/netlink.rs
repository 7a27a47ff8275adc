//! Netlink as the floor needs it: routes, nexthop objects and links in raw messages, dumps and look-ups. Not pure (a socket).
//!
//! Written for this tool alone and sharing nothing with fib-sync, so that a mistake there cannot hide here, and with nothing
//! between the loop and the kernel that could make the floor too slow. `linux/netlink.h`, `linux/rtnetlink.h`, `linux/nexthop.h`.

use std::net::IpAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use ipnetwork::IpNetwork;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send, setsockopt,
    socket, sockopt,
};

use super::message::{self, Attributes, FLAG_ACK, Message, ROUTE_HEADER};

/// Buffers of the socket, octets.
const BUFFER: usize = 8 << 20;
/// Octets of messages that are sent at once.
pub const BATCH: usize = 64 << 10;
/// The group that tells of links.
const LINK_GROUP: u32 = 1;

/// A route as a dump shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// Who made it.
    pub protocol: u8,
    /// Its destination; `None` for the default route.
    pub destination: Option<IpNetwork>,
    /// The link it leads over, of several that with most weight; 0 where it has none.
    pub link: u32,
}

/// A netlink socket.
pub struct Netlink {
    socket: OwnedFd,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Netlink {
    /// A socket in the network namespace this thread is in.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn open() -> Result<Netlink> {
        Netlink::open_with(0)
    }

    /// A socket that is told of changes of links.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn listen_to_links() -> Result<Netlink> {
        Netlink::open_with(LINK_GROUP)
    }

    fn open_with(groups: u32) -> Result<Netlink> {
        let socket =
            socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkRoute)
                .context("a netlink socket")?;
        setsockopt(&socket, sockopt::SndBufForce, &BUFFER).context("the send buffer")?;
        setsockopt(&socket, sockopt::RcvBufForce, &BUFFER).context("the receive buffer")?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, groups)).context("binding a netlink socket")?;
        Ok(Netlink { socket, sequence: 0, buffer: vec![0; 1 << 18] })
    }

    /// Hands messages that ask for no answer to the kernel, which does them before this returns, and counts those refused.
    ///
    /// # Errors
    /// Where the socket fails.
    pub fn write(&mut self, messages: &[u8]) -> Result<usize> {
        send(self.socket.as_raw_fd(), messages, MsgFlags::empty()).context("writing to the kernel")?;
        let mut refused = 0;
        loop {
            match recv(self.socket.as_raw_fd(), &mut self.buffer, MsgFlags::MSG_DONTWAIT) {
                Ok(length) => refused += message::split(&self.buffer[..length]).count(),
                Err(Errno::EAGAIN) => return Ok(refused),
                Err(errno) => return Err(errno).context("reading what the kernel refused"),
            }
        }
    }

    /// Does one thing and waits until it is done.
    ///
    /// # Errors
    /// Where the kernel refuses it.
    pub fn command(&mut self, what: &str, build: impl FnOnce(&mut Vec<u8>, u32)) -> Result<()> {
        self.sequence += 1;
        let mut octets = Vec::new();
        build(&mut octets, self.sequence);
        message::add_flags(&mut octets, FLAG_ACK);
        send(self.socket.as_raw_fd(), &octets, MsgFlags::empty()).with_context(|| what.to_owned())?;
        loop {
            let length = recv(self.socket.as_raw_fd(), &mut self.buffer, MsgFlags::empty())
                .with_context(|| what.to_owned())?;
            for answer in message::split(&self.buffer[..length]) {
                if let (Some(code), true) = (answer.error(), answer.sequence == self.sequence) {
                    ensure!(code == 0, "{what}: {}", Errno::from_raw(-code));
                    return Ok(());
                }
            }
        }
    }

    /// Reads all routes of the main table.
    ///
    /// # Errors
    /// Where the kernel refuses, or the socket fails.
    pub fn dump(&mut self, v6: bool, mut on: impl FnMut(Seen)) -> Result<()> {
        self.sequence += 1;
        let mut octets = Vec::new();
        message::dump_routes(&mut octets, self.sequence, v6);
        send(self.socket.as_raw_fd(), &octets, MsgFlags::empty()).context("asking for all routes")?;
        loop {
            let length = recv(self.socket.as_raw_fd(), &mut self.buffer, MsgFlags::empty())
                .context("reading routes")?;
            for answer in message::split(&self.buffer[..length]) {
                if answer.is_done() {
                    return Ok(());
                }
                if let Some(code) = answer.error() {
                    bail!("reading routes: {}", Errno::from_raw(-code));
                }
                if let Some(seen) = seen(&answer) {
                    on(seen);
                }
            }
        }
    }

    /// The link an address is reached over; `None` where there is no route.
    ///
    /// # Errors
    /// Where the socket fails.
    pub fn link_to(&mut self, address: IpAddr) -> Result<Option<u32>> {
        self.sequence += 1;
        let mut octets = Vec::new();
        message::look_up(&mut octets, self.sequence, address);
        send(self.socket.as_raw_fd(), &octets, MsgFlags::empty()).context("looking a route up")?;
        loop {
            let length = recv(self.socket.as_raw_fd(), &mut self.buffer, MsgFlags::empty())
                .context("looking a route up")?;
            for answer in message::split(&self.buffer[..length]) {
                if answer.sequence != self.sequence {
                    continue;
                }
                if answer.error().is_some() {
                    return Ok(None);
                }
                if let Some(seen) = route(&answer) {
                    return Ok((seen.link != 0).then_some(seen.link));
                }
            }
        }
    }

    /// Waits until the kernel tells that a link no longer carries; when that was. For a socket from [`Netlink::listen_to_links`].
    ///
    /// # Errors
    /// Where it does not tell in time.
    pub fn wait_for_loss(&mut self, link: u32, deadline: Instant) -> Result<Instant> {
        loop {
            let left = deadline.saturating_duration_since(Instant::now()).as_millis();
            ensure!(left > 0, "the kernel did not tell that the link is down");
            let fd = std::os::fd::AsFd::as_fd(&self.socket);
            let timeout = PollTimeout::try_from(left.min(60_000)).unwrap_or(PollTimeout::MAX);
            poll(&mut [PollFd::new(fd, PollFlags::POLLIN)], timeout)?;
            let length = match recv(self.socket.as_raw_fd(), &mut self.buffer, MsgFlags::MSG_DONTWAIT) {
                Ok(length) => length,
                Err(Errno::EAGAIN) => continue,
                Err(errno) => return Err(errno).context("listening for links"),
            };
            let now = Instant::now();
            let mut told = message::split(&self.buffer[..length]).filter_map(|answer| answer.link());
            if told.any(|(index, running)| index == link && !running) {
                return Ok(now);
            }
        }
    }
}

/// What a message of a dump says, where it is a route of the main table.
fn seen(answer: &Message<'_>) -> Option<Seen> {
    (*answer.body.get(4)? == message::MAIN_TABLE).then(|| route(answer)).flatten()
}

fn route(answer: &Message<'_>) -> Option<Seen> {
    if answer.kind != message::NEW_ROUTE {
        return None;
    }
    let [family, length, _, _, _, protocol, ..] = *answer.body.get(..ROUTE_HEADER)? else { return None };
    let mut seen = Seen { protocol, destination: None, link: 0 };
    for (kind, value) in Attributes(answer.body.get(ROUTE_HEADER..)?) {
        match kind {
            message::ROUTE_DESTINATION => {
                let address: IpAddr = match family {
                    message::INET => <[u8; 4]>::try_from(value).ok()?.into(),
                    _ => <[u8; 16]>::try_from(value).ok()?.into(),
                };
                seen.destination = IpNetwork::new(address, length).ok();
            }
            message::ROUTE_LINK => seen.link = u32::from_ne_bytes(value.try_into().ok()?),
            message::ROUTE_HOPS => seen.link = message::heaviest_link(value).unwrap_or(0),
            _ => {}
        }
    }
    Some(seen)
}
