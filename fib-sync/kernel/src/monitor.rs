//! The kernel's multicast events, as hints.
//!
//! What changed is not told on purpose: the kernel leaves out some changes (routes that go with a link set down) and
//! drops events when a listener is slow, so a hint only says which dump to make.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use netlink_sys::Socket;
use socket2::{SockFilter, SockRef};

use crate::error::Error;
use crate::message;
use crate::route::Route;
use crate::socket::{open_socket, read_datagram, split};

const RTNLGRP_LINK: u32 = 1;
const RTNLGRP_IPV4_IFADDR: u32 = 5;
const RTNLGRP_IPV4_ROUTE: u32 = 7;
const RTNLGRP_IPV6_IFADDR: u32 = 9;
const RTNLGRP_IPV6_ROUTE: u32 = 11;

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;

/// Where a message has its author's port (`nlmsg_pid`).
const PORT_OFFSET: u32 = 12;

/// The most datagrams taken in one [`Monitor::drain`]; the rest stay for the next.
const DRAIN: usize = 1024;

/// What to look at again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hint {
    /// A link appeared, changed or went.
    Link,
    /// An address appeared or went.
    Address,
    /// A route appeared or went, and not through the socket that was named to [`Monitor::open`].
    Route(Box<Route>),
    /// A nexthop object appeared, changed or went.
    Nexthop,
    /// A permanent neighbour entry or an FDB entry of a VXLAN device appeared, changed or went.
    Neighbour,
    /// Events were lost: anything may have changed.
    Overrun,
}

/// A listener for changes in the namespace it was opened in.
pub struct Monitor {
    socket: Socket,
    buffer: Vec<u8>,
}

impl Monitor {
    /// Listens for changes of links, addresses and routes in the calling thread's namespace; those caused by the
    /// socket with port `ignore` ([`crate::Netlink::port`]) are left out, by a filter in the kernel: a listener that
    /// has to read them halves the rate of writing and overruns.
    ///
    /// # Errors
    /// [`Error::Socket`].
    pub fn open(ignore: u32) -> Result<Monitor, Error> {
        let (socket, _) = open_socket()?;
        for group in
            [RTNLGRP_LINK, RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV4_ROUTE, RTNLGRP_IPV6_IFADDR, RTNLGRP_IPV6_ROUTE]
        {
            socket
                .add_membership(group)
                .map_err(|source| Error::Socket { what: "NETLINK_ADD_MEMBERSHIP", source })?;
        }
        let filter = |code: u32, jt, jf, k| SockFilter::new(code as u16, jt, jf, k);
        SockRef::from(&socket)
            .attach_filter(&[
                // The author's port, which BPF reads as big-endian.
                filter(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, PORT_OFFSET),
                filter(
                    libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K,
                    0,
                    1,
                    u32::from_be_bytes(ignore.to_ne_bytes()),
                ),
                filter(libc::BPF_RET | libc::BPF_K, 0, 0, 0),
                filter(libc::BPF_RET | libc::BPF_K, 0, 0, u32::MAX),
            ])
            .map_err(|source| Error::Socket { what: "SO_ATTACH_FILTER", source })?;
        socket.set_non_blocking(true).map_err(|source| Error::Socket { what: "FIONBIO", source })?;
        Ok(Monitor { socket, buffer: Vec::new() })
    }

    /// What has come in, without waiting. Wait with `poll` on [`AsFd::as_fd`].
    ///
    /// # Errors
    /// [`Error::Socket`].
    pub fn drain(&mut self) -> Result<Vec<Hint>, Error> {
        let mut hints = Vec::new();
        for _ in 0..DRAIN {
            match read_datagram(&self.socket, &mut self.buffer) {
                Ok(()) => {}
                Err(Error::Overrun) | Err(Error::Malformed(_)) => {
                    hints.push(Hint::Overrun);
                    continue;
                }
                Err(Error::Socket { source, .. }) if source.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
            let whole = split(&self.buffer, |header, payload| match header.message_type {
                RTM_NEWLINK | RTM_DELLINK => hints.push(Hint::Link),
                RTM_NEWADDR | RTM_DELADDR => hints.push(Hint::Address),
                RTM_NEWROUTE | RTM_DELROUTE => {
                    hints.extend(message::route::parse(payload).map(Box::new).map(Hint::Route));
                }
                _ => {}
            });
            if whole.is_err() {
                hints.push(Hint::Overrun);
            }
        }
        hints.dedup();
        Ok(hints)
    }
}

impl AsFd for Monitor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
