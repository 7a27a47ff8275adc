//! The FIB feed: what `causeway-bgpd` (client) and `causeway-fib-sync` (server) say to each other on `RUN_DIR/fib.sock`.
//!
//! Pure: bytes to messages and back, no socket, no clock. The stream is a sequence of frames, each a 4-byte big-endian
//! body length (1 to [`MAX_FRAME`]) and the body: one type byte and its fields ([`codec`] has the layout). bgpd
//! sends its `Hello` at once; fib-sync answers with its own when it has read the kernel. A frame that does not decode ends
//! the connection: both ends are shipped together, so a bad frame is a fault and never a newer dialect.
//!
//! # A connection, from bgpd's side
//!
//! 1. `Hello`, then `SnapshotBegin`: from here on fib-sync forgets what an earlier connection told it (groups, routes,
//!    registered next hops) but leaves the kernel as it is.
//! 2. `NextHopRegister`, `Group`, `Route` in any order that names a group before the route that uses it, at any time.
//!    fib-sync installs and changes routes as they come.
//! 3. `EndOfSnapshot` for each family: only now may fib-sync delete what the kernel has of ours in that family and the
//!    snapshot did not name. bgpd withholds it after its own restart until its peers sent End-of-RIB or the restart
//!    time ran out. A bgpd that dies before the mark has wiped nothing.
//! 4. Changes, for as long as the connection lasts.
//!
//! When the connection ends, fib-sync keeps every route for the restart time and sweeps what no new connection has
//! claimed by then. bgpd, while fib-sync is away, keeps the last answers about next hops.
//!
//! Order matters and is kept: a later message about the same prefix, group or next hop replaces the earlier one.

pub mod codec;
mod fields;

use std::net::IpAddr;

use ipnetwork::IpNetwork;

pub use codec::{DecodeError, Decoder, Message};

/// The version both ends must say in their `Hello`; another one ends the connection.
pub const VERSION: u16 = 2;

/// The longest frame body, in bytes. Every message that obeys the limits below fits.
pub const MAX_FRAME: usize = 32 * 1024;

/// The most next hops in one group, and as many backups (the kernel allows more; `maxPaths` does not).
pub const MAX_GROUP: usize = 256;

/// The most subnets named in one link message; further ones are left out by the encoder.
pub const MAX_SUBNETS: usize = 256;

/// The longest reason or device name, in bytes of UTF-8; the encoder cuts longer ones at a character.
pub const MAX_TEXT: usize = 512;

/// The highest VXLAN network identifier.
pub const MAX_VNI: u32 = 0xff_ffff;

/// An address family of the feed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    /// IPv4 unicast.
    Ipv4,
    /// IPv6 unicast.
    Ipv6,
}

impl Family {
    /// Both families.
    pub const ALL: [Family; 2] = [Family::Ipv4, Family::Ipv6];

    /// The family of a prefix.
    pub fn of(prefix: &IpNetwork) -> Family {
        match prefix {
            IpNetwork::V4(_) => Family::Ipv4,
            IpNetwork::V6(_) => Family::Ipv6,
        }
    }
}

/// A BGP next hop as bgpd knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NextHop {
    /// The address out of NEXT_HOP or MP_REACH_NLRI (the link-local one where that is to be used).
    pub address: IpAddr,
    /// The interface index the address belongs to: needed for an IPv6 link-local address, 0 for any other.
    pub scope: u32,
}

impl NextHop {
    /// A next hop of global scope.
    pub fn global(address: IpAddr) -> NextHop {
        NextHop { address, scope: 0 }
    }
}

/// One next hop of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupMember {
    /// Where to.
    pub next_hop: NextHop,
    /// Its share of the flows, 1 to 255 (the kernel's `rtnh_hops` + 1); 1 everywhere is plain ECMP.
    pub weight: u8,
    /// The tunnel its path asks for (RFC 9012), where one does. It says where a tunnel would end, not that there must
    /// be one: that is decided by pool and subnets.
    pub tunnel: Option<TunnelEndpoint>,
}

impl GroupMember {
    /// A member of weight 1 without a tunnel.
    pub fn plain(next_hop: NextHop) -> GroupMember {
        GroupMember { next_hop, weight: 1, tunnel: None }
    }
}

/// The kind of tunnel an advertised path asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TunnelType {
    /// Either: the path offers both with the same endpoint.
    Any,
    /// VXLAN (RFC 9012 tunnel type 8).
    Vxlan,
    /// IP in IP (RFC 9012 tunnel type 7).
    Ipip,
}

/// Where a tunnel ends, as the path says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TunnelEndpoint {
    /// The kind.
    pub kind: TunnelType,
    /// The egress endpoint: the outer destination address.
    pub address: IpAddr,
    /// VXLAN: the network identifier, at most [`MAX_VNI`], where the path says one.
    pub vni: Option<u32>,
    /// VXLAN: the MAC address of the egress endpoint, where the path says one.
    pub mac: Option<[u8; 6]>,
}

/// What bgpd says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// The first message.
    Hello {
        /// [`VERSION`].
        version: u16,
        /// bgpd found its restart marker: it was here before and expects its routes to be kept.
        restarted: bool,
    },
    /// Forget every group, route and registered next hop of earlier connections; the kernel stays as it is.
    SnapshotBegin,
    /// Tell me now, and whenever it changes, how this next hop is reached. Answered by [`Event::NextHopState`].
    /// Registering twice is no error and is answered again.
    NextHopRegister {
        /// The next hop.
        next_hop: NextHop,
    },
    /// No more news of this next hop, please.
    NextHopUnregister {
        /// The next hop.
        next_hop: NextHop,
    },
    /// Create or replace a group. All routes that name it follow at once, so "this next hop is dead" is one message.
    /// Members need not be registered: fib-sync resolves them by itself, and leaves out those that do not resolve.
    Group {
        /// bgpd's own name for it.
        id: u32,
        /// 1 to [`MAX_GROUP`] next hops. They may be of another family than the routes (RFC 8950).
        members: Vec<GroupMember>,
        /// Up to [`MAX_GROUP`] next hops that are used at once, before bgpd has said anything, when no member resolves.
        backups: Vec<GroupMember>,
    },
    /// The group is no longer used. A group that routes still name is deleted when the last of them goes.
    GroupDelete {
        /// The group.
        id: u32,
    },
    /// Create or replace the route of a prefix.
    Route {
        /// The prefix, without host bits.
        prefix: IpNetwork,
        /// A group named before; an unknown one makes the route `failed`.
        group: u32,
        /// Comes back in [`Event::Status`], so that bgpd can tell an answer to this message from one to an older one.
        generation: u64,
    },
    /// Remove the route of a prefix; unknown prefixes are no error.
    Withdraw {
        /// The prefix, without host bits.
        prefix: IpNetwork,
        /// As for `Route`.
        generation: u64,
    },
    /// The snapshot of this family is complete: what it did not name may be deleted now.
    EndOfSnapshot {
        /// The family.
        family: Family,
    },
}

/// How a next hop is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NextHopState {
    /// Not at all: no route, a route of type unreachable, or one through a link that is down.
    Unreachable,
    /// It is in a connected subnet.
    Connected {
        /// The device's name.
        device: String,
        /// The device's index.
        ifindex: u32,
    },
    /// Through a router, by a route that is not one of ours.
    Gateway {
        /// The router on the link.
        gateway: IpAddr,
        /// The device's name.
        device: String,
        /// The device's index.
        ifindex: u32,
        /// The metric of that route: the IGP cost of decision step e. Lower is nearer.
        metric: u32,
    },
}

/// How packets to a prefix leave this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Via {
    /// Next hop in a connected subnet.
    Direct,
    /// IP-in-IP tunnel.
    Ipip,
    /// VXLAN tunnel.
    Vxlan,
    /// Through the router that leads to the next hop.
    Recursive,
    /// The prefix is this node's own.
    Local,
}

/// What became of a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RouteState {
    /// The kernel has it as wanted.
    Installed {
        /// How packets leave.
        via: Via,
    },
    /// Not in the kernel (or not as wanted) yet, or not possible now but tried again by itself.
    Pending {
        /// Why, for people; for example `next hop unreachable`.
        reason: String,
    },
    /// Not in the kernel: refused by the guard, or by the kernel. Tried again when the cause goes.
    Failed {
        /// Why, for people; for example `refused: in connected subnet 192.0.2.0/24`, `foreign route (proto bird)`.
        reason: String,
    },
    /// The answer to `Withdraw`: the kernel has no route of ours for it any more.
    Removed,
}

/// A link that went down or came up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// The device's name.
    pub device: String,
    /// The device's index.
    pub ifindex: u32,
    /// The connected subnets on it (for `LinkDown`: those that were on it), each with this node's own address in it
    /// (host bits set): a single-hop session whose peer lies in one of them runs over this link.
    pub subnets: Vec<IpNetwork>,
}

/// What fib-sync says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The first message.
    Hello {
        /// [`VERSION`].
        version: u16,
        /// Whether forwarding state for IPv4 was kept over the time bgpd was away (the F bit of RFC 4724 section 3).
        ipv4_kept: bool,
        /// The same for IPv6.
        ipv6_kept: bool,
    },
    /// The answer to `NextHopRegister`, and every change of it.
    NextHopState {
        /// The next hop.
        next_hop: NextHop,
        /// How it is reached.
        state: NextHopState,
    },
    /// A link lost its carrier, was set down, or went away, or it lost the subnets that are named. Comes before the
    /// [`Event::NextHopState`] changes that follow from it.
    LinkDown(Link),
    /// A link with at least one address came up, or got a further subnet; all of its subnets are named.
    LinkUp(Link),
    /// What became of the `Route` or `Withdraw` of that generation; sent again on every change.
    Status {
        /// The prefix.
        prefix: IpNetwork,
        /// The generation of the last message about it. Answers to older ones may be left out.
        generation: u64,
        /// What became of it.
        state: RouteState,
    },
    /// The connection is about to be closed by fib-sync.
    Goodbye {
        /// Why, for people: another version, another bgpd that connected, a frame that did not decode, shutdown.
        reason: String,
    },
}

#[cfg(test)]
mod tests;
