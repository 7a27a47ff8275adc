//! The tables: per family one, prefix → its paths from all peers (Adj-RIB-In) and which of them won (Loc-RIB).
//!
//! Owner: the speaker, the only writer. Pure. RFC 4271 §3.2 and §9.1, RFC 4456, RFC 4724, RFC 7313. What others read
//! of it is [`BestPath`] through [`LocRib`].

pub(crate) mod decision;
pub(crate) mod next_hop;
pub(crate) mod path;
pub(crate) mod rules;
pub(crate) mod slot_list;
pub(crate) mod slots;
pub(crate) mod tables;

use std::net::Ipv4Addr;
use std::ops::Range;

use causeway_bgp_wire::{Family, Ipv4Prefix, Ipv6Prefix, Prefix};

use crate::attrs::AttrSet;
use crate::event::PeerId;
use slots::Keys;

/// On which side of the AS border a session's peer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SessionKind {
    /// In another AS.
    Ebgp,
    /// In the same AS.
    Ibgp,
}

/// Where a path came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// This speaker originates the prefix.
    Local {
        /// Whether peers are told of it (false: `disableBGPExport`).
        export: bool,
    },
    /// A peer sent it.
    Peer {
        /// Which.
        id: PeerId,
        /// Over what kind of session.
        kind: SessionKind,
        /// The peer is a client of this reflector (RFC 4456).
        client: bool,
        /// The peer's BGP identifier.
        router_id: Ipv4Addr,
    },
}

/// The path that won a prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BestPath {
    /// Its attributes after import policy. A local path has an unspecified next hop.
    pub attrs: AttrSet,
    /// Where it came from.
    pub source: Source,
}

/// The Loc-RIB as its readers see it: prefixes have numbers, their slots, by which other tables are kept beside it.
pub(crate) trait LocRib {
    /// Every prefix of the family that has a best path, of these slots, in their order (that of first appearance).
    fn best_between(&self, family: Family, slots: Range<u32>, f: &mut dyn FnMut(u32, Prefix, &BestPath));

    /// Which IPv4 prefix has which slot.
    fn v4(&self) -> &Keys<Ipv4Prefix>;

    /// Which IPv6 prefix has which slot.
    fn v6(&self) -> &Keys<Ipv6Prefix>;
}
