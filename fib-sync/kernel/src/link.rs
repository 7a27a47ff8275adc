//! Links, addresses and neighbours. Pure types.

use std::fmt;
use std::net::IpAddr;
use std::os::fd::BorrowedFd;

use ipnetwork::IpNetwork;

use crate::tunnel::TunnelKind;

/// An Ethernet address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Mac(pub [u8; 6]);

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// A network device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its index, unique in the namespace.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Set up by its administrator (`IFF_UP`).
    pub admin_up: bool,
    /// Able to carry packets as well: it has its carrier (`IFF_LOWER_UP`, shows a loss at once) and the kernel has
    /// put it to use (`IFF_RUNNING`, up to a second later).
    pub running: bool,
    /// The loopback device.
    pub loopback: bool,
    /// MTU in bytes.
    pub mtu: u32,
    /// Ethernet address, for devices that have one.
    pub mac: Option<Mac>,
    /// Kind of virtual device (`veth`, `bridge`, `vxlan` ...); `None` for hardware and loopback.
    pub kind: Option<String>,
    /// The other end's (or lower device's) index, in its own namespace (`IFLA_LINK`).
    pub peer: Option<u32>,
    /// What tunnel it is, if it is one made as [`Kernel::add_tunnel`](crate::Kernel::add_tunnel) makes them; `None`
    /// for one that differs in anything (a remote, learning, another time to live), whatever its kind.
    pub tunnel: Option<TunnelKind>,
}

impl Link {
    /// Up and running: routes through it work.
    pub fn up(&self) -> bool {
        self.admin_up && self.running
    }
}

/// What to change about a link; `None` leaves as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LinkChange {
    /// Up or down.
    pub up: Option<bool>,
    /// MTU in bytes.
    pub mtu: Option<u32>,
    /// Ethernet address.
    pub mac: Option<Mac>,
    /// Name; the link must be down on old kernels.
    pub name: Option<String>,
}

/// A veth pair to be made in one message, the peer being born in another namespace.
#[derive(Debug, Clone)]
pub struct VethPair<'a> {
    /// Name of the end in the socket's namespace, at most 15 bytes.
    pub name: &'a str,
    /// Its address: given in the create message, so that udev does not change it.
    pub mac: Mac,
    /// Name of the other end.
    pub peer_name: &'a str,
    /// Its address.
    pub peer_mac: Mac,
    /// The namespace of the other end; `None`: the same.
    pub peer_netns: Option<BorrowedFd<'a>>,
    /// MTU of both ends, in bytes.
    pub mtu: u32,
}

/// An address of a link.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Address {
    /// The link.
    pub ifindex: u32,
    /// The address with the length of its subnet (host bits set).
    pub network: IpNetwork,
    /// The other side's address on a point-to-point link.
    pub peer: Option<IpAddr>,
    /// Global scope, as opposed to link or host scope.
    pub global: bool,
    /// Duplicate address detection is not over (IPv6): cannot be used as a source yet.
    pub tentative: bool,
}

/// A neighbour entry.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Neighbour {
    /// The link.
    pub ifindex: u32,
    /// The address.
    pub address: IpAddr,
    /// Its Ethernet address, when known.
    pub mac: Option<Mac>,
    /// It never expires (`NUD_PERMANENT`).
    pub permanent: bool,
}
