//! Which way a packet of this host goes now, as `ip route get` says. For people and probes: what fib-sync programs does
//! not depend on it.

use std::net::IpAddr;

use netlink_sys::protocols::NETLINK_ROUTE;

use crate::attribute::{Attributes, address, put_address};
use crate::error::Error;
use crate::socket::NetlinkSocket;

const RTM_GETROUTE: u16 = 26;
/// Length of `struct rtmsg`.
const ROUTE_HEADER: usize = 12;
/// Asks for the route as it was programmed, not for what came of it.
const RTM_F_FIB_MATCH: u32 = 0x2000;
const RTA_DST: u16 = 1;
const RTA_SRC: u16 = 2;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PREFSRC: u16 = 7;
const RTA_METRICS: u16 = 8;
const RTA_VIA: u16 = 18;
const RTAX_MTU: u16 = 2;

/// The way to an address.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Way {
    /// The device.
    pub ifindex: Option<u32>,
    /// The gateway; `None`: the address is on the link.
    pub gateway: Option<IpAddr>,
    /// The source address the kernel would choose.
    pub source: Option<IpAddr>,
    /// The MTU that was programmed with the route, in bytes.
    pub mtu: Option<u32>,
}

/// Asks a network namespace for ways.
pub struct Lookup {
    socket: NetlinkSocket,
}

impl Lookup {
    /// Opens a socket in the calling thread's network namespace.
    ///
    /// # Errors
    /// [`Error::Socket`].
    pub fn open() -> Result<Lookup, Error> {
        Ok(Lookup { socket: NetlinkSocket::open(NETLINK_ROUTE)? })
    }

    /// The way to an address, for packets from `source`.
    ///
    /// # Errors
    /// [`Error::Refused`] where there is none; [`Error::Socket`].
    pub fn way(&mut self, to: IpAddr, source: Option<IpAddr>) -> Result<Way, Error> {
        let mut way = self.ask(to, source, 0)?;
        // What the kernel has learned of the path is in the first answer, not in the second. Older kernels give the first
        // one twice.
        way.mtu = self.ask(to, source, RTM_F_FIB_MATCH).ok().and_then(|route| route.mtu);
        Ok(way)
    }

    fn ask(&mut self, to: IpAddr, source: Option<IpAddr>, flags: u32) -> Result<Way, Error> {
        let family = if to.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
        let length = |address: IpAddr| if address.is_ipv4() { 32 } else { 128 };
        let mut body = vec![family as u8, length(to), source.map_or(0, length), 0, 0, 0, 0, 0];
        body.extend_from_slice(&flags.to_ne_bytes());
        put_address(&mut body, RTA_DST, to);
        if let Some(source) = source {
            put_address(&mut body, RTA_SRC, source);
        }
        let mut way = Way::default();
        let refused = self.socket.ask(RTM_GETROUTE, &body, 0, |payload| {
            way = parse(payload.get(ROUTE_HEADER..).unwrap_or_default());
        })?;
        refused.map_err(|refusal| Error::Refused { what: format!("way to {to}"), refusal })?;
        Ok(way)
    }
}

fn parse(route: &[u8]) -> Way {
    let mut way = Way::default();
    for attribute in Attributes(route) {
        match attribute.kind {
            RTA_OIF => way.ifindex = attribute.number(),
            RTA_GATEWAY => way.gateway = attribute.address(),
            // Two bytes of family come first.
            RTA_VIA => way.gateway = attribute.value.get(2..).and_then(address),
            RTA_PREFSRC => way.source = attribute.address(),
            RTA_METRICS => {
                let mtu = Attributes(attribute.value).find(|metric| metric.kind == RTAX_MTU);
                way.mtu = mtu.and_then(|mtu| mtu.number());
            }
            _ => {}
        }
    }
    way
}
