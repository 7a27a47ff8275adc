//! Nexthop objects: a way, or a group of ways, that routes name by number. Pure types.
//!
//! What changes about an object changes all routes on it with one message. Linux keeps two kinds apart for good: an
//! object that was made as a single one can only be replaced by a single one, a group only by a group.

use crate::route::{Family, NextHop};

/// What a nexthop object is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum NexthopKind {
    /// One way.
    Single {
        /// The family of the routes that may use it. An object whose gateway is IPv6 is an IPv6 one for the kernel,
        /// and IPv4 routes may use it too.
        family: Family,
        /// The way. Its weight is 1: weights belong to groups.
        hop: NextHop,
    },
    /// Several, each an object of its own.
    Group {
        /// Identifier and weight (1 to 255) of each, sorted.
        members: Vec<(u32, u16)>,
        /// Flows stay where they are when a member goes or comes (a table of buckets instead of a hash threshold).
        /// Fixed when the group is made.
        resilient: bool,
    },
    /// Anything else: a blackhole, one for a bridge's FDB, one with an encapsulation.
    Other,
}

impl NexthopKind {
    /// One way of its own family: that of the gateway, else `family`.
    pub fn single(family: Family, hop: NextHop) -> NexthopKind {
        let family = hop.gateway.as_ref().map_or(family, Family::of);
        NexthopKind::Single { family, hop: NextHop { weight: 1, ..hop } }
    }

    /// A group.
    pub fn group(members: Vec<(u32, u16)>, resilient: bool) -> NexthopKind {
        NexthopKind::Group { members, resilient }
    }
}

/// A nexthop object.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Nexthop {
    /// Its number, unique in the namespace.
    pub id: u32,
    /// Who made it (`RTPROT_*`).
    pub protocol: u8,
    /// What it is.
    pub kind: NexthopKind,
}
