//! The kernel's multicast events, as hints.
//!
//! What changed is not told on purpose: the kernel leaves out some changes (routes that go with a link set down) and
//! drops events when a listener is slow, so a hint only says which dump to make.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use netlink_sys::Socket;
use netlink_sys::protocols::NETLINK_ROUTE;
use socket2::{SockFilter, SockRef};

use crate::error::Error;
use crate::message;
use crate::route::Route;
use crate::socket::{open_socket, read_datagram, split};

const RTNLGRP_LINK: u32 = 1;
const RTNLGRP_NEIGH: u32 = 3;
const RTNLGRP_IPV4_IFADDR: u32 = 5;
const RTNLGRP_IPV4_ROUTE: u32 = 7;
const RTNLGRP_IPV6_IFADDR: u32 = 9;
const RTNLGRP_IPV6_ROUTE: u32 = 11;
const RTNLGRP_NEXTHOP: u32 = 32;

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const RTM_NEWNEIGH: u16 = 28;
const RTM_DELNEIGH: u16 = 29;
const RTM_NEWNEXTHOP: u16 = 104;
const RTM_DELNEXTHOP: u16 = 105;

/// Where a message has its type (`nlmsg_type`).
const TYPE_OFFSET: u32 = 4;
/// Where a message has its author's port (`nlmsg_pid`).
const PORT_OFFSET: u32 = 12;
/// Where one about a neighbour has the link (`ndm_ifindex`).
const NEIGHBOUR_LINK_OFFSET: u32 = 20;

/// The most links whose neighbours are watched.
const WATCHED: usize = 16;

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
    /// A neighbour or FDB entry of a link given to [`Monitor::watch_neighbours`] appeared, changed or went. The kernel
    /// does not say who wrote an FDB entry or deleted a neighbour, so what was done here comes back.
    Neighbour,
    /// Events were lost: anything may have changed.
    Overrun,
}

/// A listener for changes in the namespace it was opened in.
pub struct Monitor {
    socket: Socket,
    buffer: Vec<u8>,
    ignore: u32,
}

impl Monitor {
    /// Listens for changes of links, addresses, routes and nexthop objects in the calling thread's namespace; those
    /// caused by the socket with port `ignore` ([`crate::Netlink::port`]) are left out, by a filter in the kernel: a
    /// listener that has to read them halves the rate of writing and overruns. Changes of neighbours come once
    /// [`Monitor::watch_neighbours`] has said of which links.
    ///
    /// # Errors
    /// [`Error::Socket`].
    pub fn open(ignore: u32) -> Result<Monitor, Error> {
        let (socket, _) = open_socket(NETLINK_ROUTE)?;
        for group in [
            RTNLGRP_LINK,
            RTNLGRP_NEIGH,
            RTNLGRP_IPV4_IFADDR,
            RTNLGRP_IPV4_ROUTE,
            RTNLGRP_IPV6_IFADDR,
            RTNLGRP_IPV6_ROUTE,
            RTNLGRP_NEXTHOP,
        ] {
            match socket.add_membership(group) {
                // A kernel without nexthop objects.
                Err(_) if group == RTNLGRP_NEXTHOP => {}
                result => {
                    result.map_err(|source| Error::Socket { what: "NETLINK_ADD_MEMBERSHIP", source })?
                }
            }
        }
        socket.set_non_blocking(true).map_err(|source| Error::Socket { what: "FIONBIO", source })?;
        let mut monitor = Monitor { socket, buffer: Vec::new(), ignore };
        monitor.watch_neighbours(&[])?;
        Ok(monitor)
    }

    /// Says which links' neighbours and FDB entries are to be told of, of 16 at most, instead of those before. The
    /// others come and go with the traffic, and would be many.
    ///
    /// # Errors
    /// [`Error::Socket`].
    pub fn watch_neighbours(&mut self, links: &[u32]) -> Result<(), Error> {
        let links = &links[..links.len().min(WATCHED)];
        let filter = |code: u32, jt: usize, jf: usize, k| SockFilter::new(code as u16, jt as u8, jf as u8, k);
        let load = |size, offset| filter(libc::BPF_LD | size | libc::BPF_ABS, 0, 0, offset);
        // BPF reads as big-endian what the kernel wrote in its own order.
        let word = |number: u32| u32::from_be_bytes(number.to_ne_bytes());
        let half = |number: u16| u16::from_be_bytes(number.to_ne_bytes()).into();
        let equal = |number, jt, jf| filter(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, jt, jf, number);
        let end = |length| filter(libc::BPF_RET | libc::BPF_K, 0, 0, length);
        let count = links.len();
        let mut program = vec![
            load(libc::BPF_W, PORT_OFFSET),
            equal(word(self.ignore), 4 + count, 0),
            load(libc::BPF_H, TYPE_OFFSET),
            equal(half(RTM_NEWNEIGH), 1, 0),
            equal(half(RTM_DELNEIGH), 0, 2 + count),
            load(libc::BPF_W, NEIGHBOUR_LINK_OFFSET),
        ];
        program.extend(links.iter().enumerate().map(|(at, link)| equal(word(*link), count - at, 0)));
        program.extend([end(0), end(u32::MAX)]);
        SockRef::from(&self.socket)
            .attach_filter(&program)
            .map_err(|source| Error::Socket { what: "SO_ATTACH_FILTER", source })
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
                RTM_NEWNEIGH | RTM_DELNEIGH => hints.push(Hint::Neighbour),
                RTM_NEWNEXTHOP | RTM_DELNEXTHOP => hints.push(Hint::Nexthop),
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
