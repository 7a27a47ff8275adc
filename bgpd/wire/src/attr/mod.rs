//! Path attributes as values. [`PathAttributes`] is what a RIB interns; `table` says how each attribute is read, and
//! what a malformed one leads to; `encode` writes them. Pure. RFC 4271 §4.3 and §5, RFC 1997, RFC 4360, RFC 4456,
//! RFC 4760, RFC 6793, RFC 8092, RFC 9012.

mod as_path;
mod community;
mod encode;
mod mp;
pub(crate) mod table;
mod tunnel;

pub use as_path::{AsPath, Segment, SegmentKind, Segments};
pub use community::{Community, ExtCommunity, LargeCommunity, ParseCommunityError};
pub(crate) use encode::{encode_attributes, write_attribute};
pub(crate) use mp::{MpReach, MpUnreach, next_hop4};
pub use tunnel::{Tunnel, TunnelKind};

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::Asn;

/// ORIGIN (RFC 4271 §5.1.1). The order is that of preference, the best first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Origin {
    /// Interior to the originating AS.
    #[default]
    Igp = 0,
    /// Learned through the EGP protocol.
    Egp = 1,
    /// Learned by other means.
    Incomplete = 2,
}

impl Origin {
    /// From the attribute's value.
    pub fn from_code(code: u8) -> Option<Self> {
        Some(match code {
            0 => Origin::Igp,
            1 => Origin::Egp,
            2 => Origin::Incomplete,
            _ => return None,
        })
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Origin::Igp => "IGP",
            Origin::Egp => "EGP",
            Origin::Incomplete => "INCOMPLETE",
        })
    }
}

/// Where to send packets: NEXT_HOP (RFC 4271 §5.1.3) or the next hop field of MP_REACH_NLRI (RFC 4760 §3,
/// RFC 2545 §3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NextHop {
    /// The next hop. Link-local only where a peer sent nothing else.
    pub global: IpAddr,
    /// The link-local address that came with, or goes with, a global IPv6 one.
    pub link_local: Option<Ipv6Addr>,
}

impl From<IpAddr> for NextHop {
    fn from(global: IpAddr) -> Self {
        NextHop { global, link_local: None }
    }
}

impl From<Ipv4Addr> for NextHop {
    fn from(address: Ipv4Addr) -> Self {
        IpAddr::from(address).into()
    }
}

impl From<Ipv6Addr> for NextHop {
    fn from(address: Ipv6Addr) -> Self {
        IpAddr::from(address).into()
    }
}

impl fmt::Display for NextHop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.global.fmt(f)?;
        self.link_local.map_or(Ok(()), |link_local| write!(f, " ({link_local})"))
    }
}

/// AGGREGATOR (RFC 4271 §5.1.7): who formed the aggregate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Aggregator {
    /// The AS that formed it.
    pub asn: Asn,
    /// The BGP identifier of the speaker that formed it.
    pub router_id: Ipv4Addr,
}

/// An optional transitive attribute this speaker does not act on: passed on as it came (RFC 4271 §5).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct UnknownAttribute {
    /// The attribute type code.
    pub code: u8,
    /// Whether it goes out with the Partial bit: always, unless this speaker knows what a well-formed one looks like.
    pub partial: bool,
    /// The value.
    pub value: Box<[u8]>,
}

/// Which optional transitive attributes some speaker on the way did not know. Once set the Partial bit must not be
/// cleared (RFC 4271 §5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct PartialFlags {
    /// On AGGREGATOR.
    pub aggregator: bool,
    /// On COMMUNITIES.
    pub communities: bool,
    /// On EXTENDED COMMUNITIES.
    pub ext_communities: bool,
    /// On LARGE_COMMUNITY.
    pub large_communities: bool,
}

/// Attribute type codes (IANA).
pub mod code {
    /// ORIGIN.
    pub const ORIGIN: u8 = 1;
    /// AS_PATH.
    pub const AS_PATH: u8 = 2;
    /// NEXT_HOP.
    pub const NEXT_HOP: u8 = 3;
    /// MULTI_EXIT_DISC.
    pub const MED: u8 = 4;
    /// LOCAL_PREF.
    pub const LOCAL_PREF: u8 = 5;
    /// ATOMIC_AGGREGATE.
    pub const ATOMIC_AGGREGATE: u8 = 6;
    /// AGGREGATOR.
    pub const AGGREGATOR: u8 = 7;
    /// COMMUNITIES.
    pub const COMMUNITIES: u8 = 8;
    /// ORIGINATOR_ID.
    pub const ORIGINATOR_ID: u8 = 9;
    /// CLUSTER_LIST.
    pub const CLUSTER_LIST: u8 = 10;
    /// MP_REACH_NLRI.
    pub const MP_REACH_NLRI: u8 = 14;
    /// MP_UNREACH_NLRI.
    pub const MP_UNREACH_NLRI: u8 = 15;
    /// EXTENDED COMMUNITIES.
    pub const EXT_COMMUNITIES: u8 = 16;
    /// AS4_PATH.
    pub const AS4_PATH: u8 = 17;
    /// AS4_AGGREGATOR.
    pub const AS4_AGGREGATOR: u8 = 18;
    /// Tunnel Encapsulation (RFC 9012).
    pub const TUNNEL_ENCAPSULATION: u8 = 23;
    /// IPv6 Address Specific Extended Community.
    pub const IPV6_EXT_COMMUNITIES: u8 = 25;
    /// LARGE_COMMUNITY.
    pub const LARGE_COMMUNITIES: u8 = 32;
}

/// The Attribute Flags octet (RFC 4271 §4.3).
pub(crate) mod flag {
    pub const OPTIONAL: u8 = 0x80;
    pub const TRANSITIVE: u8 = 0x40;
    pub const PARTIAL: u8 = 0x20;
    pub const EXTENDED_LENGTH: u8 = 0x10;
}

/// All attributes of a path but its prefixes: an owned value, cheap to compare, to be interned.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PathAttributes {
    /// ORIGIN.
    pub origin: Origin,
    /// AS_PATH, always of four-octet numbers: AS4_PATH is merged in where a two-octet peer sent it (RFC 6793).
    pub as_path: AsPath,
    /// NEXT_HOP, or that of MP_REACH_NLRI.
    pub next_hop: NextHop,
    /// MULTI_EXIT_DISC.
    pub med: Option<u32>,
    /// LOCAL_PREF; never from an external peer (RFC 7606 §7.5).
    pub local_pref: Option<u32>,
    /// ATOMIC_AGGREGATE.
    pub atomic_aggregate: bool,
    /// AGGREGATOR, merged with AS4_AGGREGATOR.
    pub aggregator: Option<Aggregator>,
    /// COMMUNITIES, in the order received.
    pub communities: Vec<Community>,
    /// EXTENDED COMMUNITIES, in the order received.
    pub ext_communities: Vec<ExtCommunity>,
    /// LARGE_COMMUNITY, without duplicates (RFC 8092 §5).
    pub large_communities: Vec<LargeCommunity>,
    /// ORIGINATOR_ID (RFC 4456); never from an external peer.
    pub originator_id: Option<Ipv4Addr>,
    /// CLUSTER_LIST (RFC 4456), the last reflector's cluster first; never from an external peer.
    pub cluster_list: Vec<Ipv4Addr>,
    /// Unknown optional transitive attributes in ascending order of their codes.
    pub unknown: Vec<UnknownAttribute>,
    /// Partial bits to keep on the known optional transitive ones.
    pub partial: PartialFlags,
}

impl PathAttributes {
    /// The attributes of a path of one's own: empty AS_PATH and nothing optional.
    pub fn new(origin: Origin, next_hop: NextHop) -> Self {
        PathAttributes {
            origin,
            as_path: AsPath::empty(),
            next_hop,
            med: None,
            local_pref: None,
            atomic_aggregate: false,
            aggregator: None,
            communities: Vec::new(),
            ext_communities: Vec::new(),
            large_communities: Vec::new(),
            originator_id: None,
            cluster_list: Vec::new(),
            unknown: Vec::new(),
            partial: PartialFlags::default(),
        }
    }
}
