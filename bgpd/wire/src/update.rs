//! The UPDATE message as the RIB takes it: per family what is announced and what is withdrawn, errors already turned
//! into withdrawals by RFC 7606. Pure. RFC 4271 §4.3, RFC 4724 §2 (End-of-RIB), RFC 4760, RFC 7606, RFC 7911.

use std::fmt;

use smallvec::SmallVec;

use crate::attr::PathAttributes;
use crate::{Cursor, Family, Ipv4Prefix, Ipv6Prefix, Prefix, PrefixKey};

/// One prefix with the path identifier it came with (RFC 7911), 0 where ADD-PATH is not in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Nlri<P> {
    /// The prefix.
    pub prefix: P,
    /// The path identifier: distinguishes paths of one peer to one prefix.
    pub path_id: u32,
}

impl<P> From<P> for Nlri<P> {
    fn from(prefix: P) -> Self {
        Nlri { prefix, path_id: 0 }
    }
}

/// Prefixes of one family in the order of the message; possibly with repetitions, as the peer sent them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NlriList {
    /// IPv4 unicast.
    V4(Vec<Nlri<Ipv4Prefix>>),
    /// IPv6 unicast.
    V6(Vec<Nlri<Ipv6Prefix>>),
}

impl NlriList {
    /// The family.
    pub fn family(&self) -> Family {
        match self {
            NlriList::V4(_) => Family::Ipv4Unicast,
            NlriList::V6(_) => Family::Ipv6Unicast,
        }
    }

    /// How many prefixes there are.
    pub fn len(&self) -> usize {
        match self {
            NlriList::V4(list) => list.len(),
            NlriList::V6(list) => list.len(),
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The prefixes as values of mixed family.
    pub fn iter(&self) -> impl Iterator<Item = Nlri<Prefix>> + '_ {
        let (v4, v6) = match self {
            NlriList::V4(list) => (list.as_slice(), [].as_slice()),
            NlriList::V6(list) => ([].as_slice(), list.as_slice()),
        };
        fn mixed<P: PrefixKey>(nlri: &Nlri<P>) -> Nlri<Prefix> {
            Nlri { prefix: nlri.prefix.into(), path_id: nlri.path_id }
        }
        v4.iter().map(mixed).chain(v6.iter().map(mixed))
    }
}

/// Prefixes announced with one set of attributes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announcement {
    /// The attributes, the next hop of this family among them.
    pub attributes: PathAttributes,
    /// What is announced; never empty.
    pub nlri: NlriList,
}

/// What became of an error in an UPDATE that did not end the session (RFC 7606 §2), from weak to strong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Consequence {
    /// The attribute was taken out, the rest of the UPDATE stands.
    AttributeDiscard,
    /// One announced prefix cannot be routed and was left out (RFC 4271 §6.3).
    PrefixIgnored,
    /// Everything the UPDATE announced is withdrawn instead.
    TreatAsWithdraw,
}

impl fmt::Display for Consequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Consequence::AttributeDiscard => "attribute discarded",
            Consequence::PrefixIgnored => "prefix ignored",
            Consequence::TreatAsWithdraw => "treated as withdraw",
        })
    }
}

/// An error in an UPDATE that did not end the session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// What became of it.
    pub consequence: Consequence,
    /// The attribute type code it is about, if it is about one.
    pub attribute: Option<u8>,
    /// What was wrong, in words, for the log and for `show`.
    pub reason: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.reason, self.consequence)
    }
}

/// A decoded UPDATE. Withdrawals take effect before announcements (RFC 4271 §4.3: a prefix in both is announced).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Update {
    /// What is withdrawn, at most two lists of one family each (body and MP_UNREACH_NLRI; more when the update is
    /// treated as withdraw: then what it announced is here).
    pub withdrawn: SmallVec<[NlriList; 1]>,
    /// What is announced: the body's IPv4 prefixes, those of MP_REACH_NLRI, or both.
    pub announced: SmallVec<[Announcement; 1]>,
    /// The message is the End-of-RIB marker of this family (RFC 4724 §2).
    pub end_of_rib: Option<Family>,
    /// Errors that did not end the session.
    pub problems: Vec<Problem>,
}

impl Update {
    /// Why what was announced is withdrawn instead, if it is.
    pub fn treated_as_withdraw(&self) -> Option<&Problem> {
        self.problems.iter().find(|problem| problem.consequence == Consequence::TreatAsWithdraw)
    }
}

/// An UPDATE cut into its three fields: the first of the two steps of decoding, which looks at lengths only.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RawUpdate<'a> {
    /// Withdrawn Routes.
    pub withdrawn: &'a [u8],
    /// Path Attributes.
    pub attributes: &'a [u8],
    /// Network Layer Reachability Information.
    pub nlri: &'a [u8],
}

impl<'a> RawUpdate<'a> {
    /// Cuts the body (after the header). `None` if its lengths exceed the message (RFC 7606 §3 b).
    pub fn parse(body: &'a [u8]) -> Option<Self> {
        let mut cursor = Cursor::new(body);
        let length = cursor.u16()?;
        let withdrawn = cursor.take(usize::from(length))?;
        let length = cursor.u16()?;
        let attributes = cursor.take(usize::from(length))?;
        Some(RawUpdate { withdrawn, attributes, nlri: cursor.rest() })
    }
}
