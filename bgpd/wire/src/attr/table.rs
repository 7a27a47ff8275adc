//! The attribute table: a row for each attribute this speaker acts on, saying its flags, whom it is accepted from, its
//! length, how its value is read, and what a malformed one leads to. Pure. RFC 7606 §3 and §7, RFC 4271 §6.3,
//! RFC 6793 §6, RFC 7607, RFC 8092, RFC 9012 §13.

use std::net::Ipv4Addr;

use smallvec::SmallVec;

use crate::attr::{
    Aggregator, AsPath, Community, ExtCommunity, LargeCommunity, MpReach, MpUnreach, Origin, PartialFlags,
    UnknownAttribute, code, flag, tunnel,
};
use crate::{Asn, DecodeContext, SessionKind};

/// One attribute as it stands in the message.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RawAttribute<'a> {
    pub flags: u8,
    pub code: u8,
    pub value: &'a [u8],
    /// Type, length and value, as a NOTIFICATION quotes it.
    pub whole: &'a [u8],
}

impl<'a> RawAttribute<'a> {
    /// Cuts the next attribute off the front. `None` if what is left is not a whole one (RFC 7606 §4).
    pub fn cut(rest: &mut &'a [u8]) -> Option<Self> {
        let (flags, code, header, length) = match **rest {
            [flags, code, length, ..] if flags & flag::EXTENDED_LENGTH == 0 => {
                (flags, code, 3, usize::from(length))
            }
            [flags, code, high, low, ..] => (flags, code, 4, usize::from(u16::from_be_bytes([high, low]))),
            _ => return None,
        };
        let (whole, tail) = rest.split_at_checked(header + length)?;
        *rest = tail;
        Some(RawAttribute { flags, code, value: &whole[header..], whole })
    }

    fn is_partial(&self) -> bool {
        self.flags & flag::PARTIAL != 0
    }
}

/// What the attributes of one UPDATE say, before it is judged as a whole.
#[derive(Debug, Default)]
pub(crate) struct Collected<'a> {
    pub origin: Option<Origin>,
    pub as_path: Option<AsPath>,
    /// NEXT_HOP; its meaning is judged only if there are prefixes it applies to.
    pub next_hop: Option<Ipv4Addr>,
    pub med: Option<u32>,
    pub local_pref: Option<u32>,
    pub atomic_aggregate: bool,
    pub aggregator: Option<Aggregator>,
    pub communities: Vec<Community>,
    pub ext_communities: Vec<ExtCommunity>,
    pub large_communities: Vec<LargeCommunity>,
    pub originator_id: Option<Ipv4Addr>,
    pub cluster_list: Vec<Ipv4Addr>,
    pub as4_path: Option<AsPath>,
    pub as4_aggregator: Option<Aggregator>,
    pub mp_reach: Option<MpReach<'a>>,
    pub mp_unreach: Option<MpUnreach<'a>>,
    /// MP_REACH_NLRI carried prefixes, of whatever family.
    pub mp_reach_has_nlri: bool,
    pub unknown: SmallVec<[UnknownAttribute; 1]>,
    pub partial: PartialFlags,
}

/// Whom an attribute is accepted from; from anybody else it is discarded unread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum From {
    Anybody,
    /// RFC 7606 §7.5, §7.9, §7.10; RFC 9012 §11.
    Internal,
    /// RFC 6793 §3: not from a speaker that has four-octet numbers.
    TwoOctetPeer,
}

impl From {
    pub fn admits(self, context: &DecodeContext) -> bool {
        match self {
            From::Anybody => true,
            From::Internal => context.session == SessionKind::Internal,
            From::TwoOctetPeer => !context.four_octet_as,
        }
    }
}

/// Which lengths a value may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Length {
    Exactly(usize),
    /// A non-zero multiple.
    MultipleOf(usize),
    /// An AS number of the session's width and an IPv4 address.
    Aggregator,
    /// Judged by `decode`.
    Any,
}

impl Length {
    pub fn admits(self, length: usize, context: &DecodeContext) -> bool {
        match self {
            Length::Exactly(exact) => length == exact,
            Length::MultipleOf(unit) => length != 0 && length.is_multiple_of(unit),
            Length::Aggregator => length == if context.four_octet_as { 8 } else { 6 },
            Length::Any => true,
        }
    }
}

/// What a malformed attribute leads to, from weak to strong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Malformed {
    Discard,
    Withdraw,
    Reset,
}

/// UPDATE error subcodes (RFC 4271 §4.5).
pub(crate) mod subcode {
    pub const MISSING_WELL_KNOWN: u8 = 3;
    pub const FLAGS: u8 = 4;
    pub const LENGTH: u8 = 5;
    pub const ORIGIN: u8 = 6;
    pub const NEXT_HOP: u8 = 8;
    pub const OPTIONAL: u8 = 9;
    pub const AS_PATH: u8 = 11;
}

type Decode = for<'a> fn(&mut Collected<'a>, &RawAttribute<'a>, &DecodeContext) -> Result<(), &'static str>;

/// A row of the table.
pub(crate) struct Row {
    pub code: u8,
    pub name: &'static str,
    /// The Optional and Transitive bits it must have.
    pub flags: u8,
    pub from: From,
    pub length: Length,
    /// What a wrong length or value leads to. Wrong flags lead to `max(this, Withdraw)` (RFC 7606 §3 c).
    pub malformed: Malformed,
    /// The RFC 4271 subcode of a wrong value, where the session must be reset.
    pub subcode: u8,
    pub decode: Decode,
}

const WELL_KNOWN: u8 = flag::TRANSITIVE;
const OPTIONAL: u8 = flag::OPTIONAL;
const OPTIONAL_TRANSITIVE: u8 = flag::OPTIONAL | flag::TRANSITIVE;

const fn row(
    code: u8,
    name: &'static str,
    flags: u8,
    length: Length,
    malformed: Malformed,
    subcode: u8,
    decode: Decode,
) -> Row {
    Row { code, name, flags, from: From::Anybody, length, malformed, subcode, decode }
}

/// All rows, in ascending order of the code.
#[rustfmt::skip]
static TABLE: [Row; 18] = [
    row(code::ORIGIN, "ORIGIN", WELL_KNOWN, Length::Exactly(1), Malformed::Withdraw, subcode::ORIGIN, origin),
    row(code::AS_PATH, "AS_PATH", WELL_KNOWN, Length::Any, Malformed::Withdraw, subcode::AS_PATH, as_path),
    row(code::NEXT_HOP, "NEXT_HOP", WELL_KNOWN, Length::Exactly(4), Malformed::Withdraw, subcode::NEXT_HOP, next_hop),
    row(code::MED, "MULTI_EXIT_DISC", OPTIONAL, Length::Exactly(4), Malformed::Withdraw, subcode::OPTIONAL, med),
    Row { from: From::Internal, ..row(code::LOCAL_PREF, "LOCAL_PREF", WELL_KNOWN, Length::Exactly(4), Malformed::Withdraw, subcode::LENGTH, local_pref) },
    row(code::ATOMIC_AGGREGATE, "ATOMIC_AGGREGATE", WELL_KNOWN, Length::Exactly(0), Malformed::Discard, subcode::LENGTH, atomic_aggregate),
    row(code::AGGREGATOR, "AGGREGATOR", OPTIONAL_TRANSITIVE, Length::Aggregator, Malformed::Discard, subcode::OPTIONAL, aggregator),
    row(code::COMMUNITIES, "COMMUNITIES", OPTIONAL_TRANSITIVE, Length::MultipleOf(4), Malformed::Withdraw, subcode::OPTIONAL, communities),
    Row { from: From::Internal, ..row(code::ORIGINATOR_ID, "ORIGINATOR_ID", OPTIONAL, Length::Exactly(4), Malformed::Withdraw, subcode::OPTIONAL, originator_id) },
    Row { from: From::Internal, ..row(code::CLUSTER_LIST, "CLUSTER_LIST", OPTIONAL, Length::MultipleOf(4), Malformed::Withdraw, subcode::OPTIONAL, cluster_list) },
    row(code::MP_REACH_NLRI, "MP_REACH_NLRI", OPTIONAL, Length::Any, Malformed::Reset, subcode::OPTIONAL, mp_reach),
    row(code::MP_UNREACH_NLRI, "MP_UNREACH_NLRI", OPTIONAL, Length::Any, Malformed::Reset, subcode::OPTIONAL, mp_unreach),
    row(code::EXT_COMMUNITIES, "EXTENDED_COMMUNITIES", OPTIONAL_TRANSITIVE, Length::MultipleOf(8), Malformed::Withdraw, subcode::OPTIONAL, ext_communities),
    Row { from: From::TwoOctetPeer, ..row(code::AS4_PATH, "AS4_PATH", OPTIONAL_TRANSITIVE, Length::Any, Malformed::Discard, subcode::OPTIONAL, as4_path) },
    Row { from: From::TwoOctetPeer, ..row(code::AS4_AGGREGATOR, "AS4_AGGREGATOR", OPTIONAL_TRANSITIVE, Length::Exactly(8), Malformed::Discard, subcode::OPTIONAL, as4_aggregator) },
    Row { from: From::Internal, ..row(code::TUNNEL_ENCAPSULATION, "TUNNEL_ENCAPSULATION", OPTIONAL_TRANSITIVE, Length::Any, Malformed::Withdraw, subcode::OPTIONAL, tunnels) },
    row(code::IPV6_EXT_COMMUNITIES, "IPV6_EXTENDED_COMMUNITIES", OPTIONAL_TRANSITIVE, Length::MultipleOf(20), Malformed::Withdraw, subcode::OPTIONAL, carried),
    row(code::LARGE_COMMUNITIES, "LARGE_COMMUNITY", OPTIONAL_TRANSITIVE, Length::MultipleOf(12), Malformed::Withdraw, subcode::OPTIONAL, large_communities),
];

/// The row of a code, if this speaker acts on the attribute.
pub(crate) fn find(code: u8) -> Option<&'static Row> {
    TABLE.get(usize::from(ROW_OF[usize::from(code)]))
}

/// Where in the table the row of a code is; past its end for a code without one.
static ROW_OF: [u8; 256] = {
    let mut rows = [u8::MAX; 256];
    let mut at = 0;
    while at < TABLE.len() {
        rows[TABLE[at].code as usize] = at as u8;
        at += 1;
    }
    rows
};

fn be32(octets: &[u8]) -> Result<u32, &'static str> {
    octets.try_into().map(u32::from_be_bytes).map_err(|_| "wrong length")
}

fn words<T>(octets: &[u8], from: fn(u32) -> T) -> Vec<T> {
    octets.as_chunks::<4>().0.iter().map(|word| from(u32::from_be_bytes(*word))).collect()
}

fn origin(
    into: &mut Collected<'_>,
    attribute: &RawAttribute<'_>,
    _: &DecodeContext,
) -> Result<(), &'static str> {
    let origin = attribute.value.first().and_then(|code| Origin::from_code(*code));
    into.origin = Some(origin.ok_or("undefined value")?);
    Ok(())
}

fn as_path(
    into: &mut Collected<'_>,
    attribute: &RawAttribute<'_>,
    context: &DecodeContext,
) -> Result<(), &'static str> {
    let path = AsPath::decode(attribute.value, if context.four_octet_as { 4 } else { 2 })?;
    if path.has_confederation() && !context.confederation {
        return Err("confederation segment from a peer outside (RFC 5065)");
    }
    if context.session == SessionKind::External
        && context.first_as.is_some_and(|asn| path.first_as() != Some(asn))
    {
        return Err("does not begin with the peer's AS");
    }
    into.as_path = Some(path);
    Ok(())
}

fn next_hop(
    into: &mut Collected<'_>,
    attribute: &RawAttribute<'_>,
    _: &DecodeContext,
) -> Result<(), &'static str> {
    into.next_hop = Some(Ipv4Addr::from_bits(be32(attribute.value)?));
    Ok(())
}

fn med(
    into: &mut Collected<'_>,
    attribute: &RawAttribute<'_>,
    _: &DecodeContext,
) -> Result<(), &'static str> {
    into.med = Some(be32(attribute.value)?);
    Ok(())
}

fn local_pref(
    into: &mut Collected<'_>,
    attribute: &RawAttribute<'_>,
    _: &DecodeContext,
) -> Result<(), &'static str> {
    into.local_pref = Some(be32(attribute.value)?);
    Ok(())
}

fn atomic_aggregate(
    into: &mut Collected<'_>,
    _: &RawAttribute<'_>,
    _: &DecodeContext,
) -> Result<(), &'static str> {
    into.atomic_aggregate = true;
    Ok(())
}

/// An AS number of two or four octets and an address. AS 0 makes it malformed (RFC 7607 §2).
fn read_aggregator(value: &[u8]) -> Result<Aggregator, &'static str> {
    let (asn, address) = match value {
        [a, b, address @ ..] if address.len() == 4 => (u32::from(u16::from_be_bytes([*a, *b])), address),
        [a, b, c, d, address @ ..] => (u32::from_be_bytes([*a, *b, *c, *d]), address),
        _ => return Err("wrong length"),
    };
    if asn == 0 {
        return Err("AS 0");
    }
    Ok(Aggregator { asn: Asn(asn), router_id: Ipv4Addr::from_bits(be32(address)?) })
}

fn aggregator(
    into: &mut Collected<'_>,
    attribute: &RawAttribute<'_>,
    _: &DecodeContext,
) -> Result<(), &'static str> {
    into.aggregator = Some(read_aggregator(attribute.value)?);
    into.partial.aggregator = attribute.is_partial();
    Ok(())
}

fn communities(
    into: &mut Collected<'_>,
    attribute: &RawAttribute<'_>,
    _: &DecodeContext,
) -> Result<(), &'static str> {
    into.communities = words(attribute.value, Community);
    into.partial.communities = attribute.is_partial();
    Ok(())
}

fn originator_id(
    into: &mut Collected<'_>,
    attribute: &RawAttribute<'_>,
    _: &DecodeContext,
) -> Result<(), &'static str> {
    into.originator_id = Some(Ipv4Addr::from_bits(be32(attribute.value)?));
    Ok(())
}

fn cluster_list(
    into: &mut Collected<'_>,
    attribute: &RawAttribute<'_>,
    _: &DecodeContext,
) -> Result<(), &'static str> {
    into.cluster_list = words(attribute.value, Ipv4Addr::from_bits);
    Ok(())
}

fn mp_reach<'a>(
    into: &mut Collected<'a>,
    attribute: &RawAttribute<'a>,
    context: &DecodeContext,
) -> Result<(), &'static str> {
    into.mp_reach = MpReach::parse(attribute.value, context)?;
    // Of a family not negotiated nothing is known: it does reach something.
    into.mp_reach_has_nlri = into.mp_reach.is_none_or(|reach| !reach.nlri.is_empty());
    Ok(())
}

fn mp_unreach<'a>(
    into: &mut Collected<'a>,
    attribute: &RawAttribute<'a>,
    context: &DecodeContext,
) -> Result<(), &'static str> {
    into.mp_unreach = MpUnreach::parse(attribute.value, context)?;
    Ok(())
}

/// Tunnels that are not this AS's own business stay outside (RFC 9012 §11).
fn ext_communities(
    into: &mut Collected<'_>,
    attribute: &RawAttribute<'_>,
    context: &DecodeContext,
) -> Result<(), &'static str> {
    let internal = context.session == SessionKind::Internal;
    let communities = attribute.value.as_chunks::<8>().0.iter().copied().map(ExtCommunity);
    into.ext_communities =
        communities.filter(|community| internal || !community.is_encapsulation()).collect();
    into.partial.ext_communities = attribute.is_partial();
    Ok(())
}

/// Confederation segments have no place in it and are taken out (RFC 6793 §6).
fn as4_path(
    into: &mut Collected<'_>,
    attribute: &RawAttribute<'_>,
    _: &DecodeContext,
) -> Result<(), &'static str> {
    let path = AsPath::decode(attribute.value, 4)?;
    if path.is_empty() {
        return Err("empty");
    }
    into.as4_path = Some(path.without_confederation());
    Ok(())
}

fn as4_aggregator(
    into: &mut Collected<'_>,
    attribute: &RawAttribute<'_>,
    _: &DecodeContext,
) -> Result<(), &'static str> {
    into.as4_aggregator = Some(read_aggregator(attribute.value)?);
    Ok(())
}

/// Passed on as it came, but for tunnels that end nowhere.
fn tunnels(
    into: &mut Collected<'_>,
    attribute: &RawAttribute<'_>,
    _: &DecodeContext,
) -> Result<(), &'static str> {
    let (partial, value) = (attribute.is_partial(), tunnel::validate(attribute.value)?);
    into.unknown.push(UnknownAttribute { code: attribute.code, partial, value });
    Ok(())
}

/// Checked, but passed on as it came.
fn carried(
    into: &mut Collected<'_>,
    attribute: &RawAttribute<'_>,
    _: &DecodeContext,
) -> Result<(), &'static str> {
    let partial = attribute.is_partial();
    into.unknown.push(UnknownAttribute { code: attribute.code, partial, value: attribute.value.into() });
    Ok(())
}

/// Repeated values are one value (RFC 8092 §5).
fn large_communities(
    into: &mut Collected<'_>,
    attribute: &RawAttribute<'_>,
    _: &DecodeContext,
) -> Result<(), &'static str> {
    let mut list: Vec<LargeCommunity> = Vec::with_capacity(attribute.value.len() / 12);
    let mut sorted: Vec<LargeCommunity> = Vec::new();
    for words in attribute.value.as_chunks::<12>().0 {
        let [global, local1, local2] =
            [0, 4, 8].map(|i| u32::from_be_bytes([words[i], words[i + 1], words[i + 2], words[i + 3]]));
        let community = LargeCommunity { global, local1, local2 };
        if let Err(at) = sorted.binary_search(&community) {
            sorted.insert(at, community);
            list.push(community);
        }
    }
    into.large_communities = list;
    into.partial.large_communities = attribute.is_partial();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_complete_for_rfc7606_section_7() {
        assert!(TABLE.is_sorted_by_key(|row| row.code));
        for code in [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 14, 15, 16, 25] {
            assert_eq!(find(code).unwrap().code, code);
        }
        assert!(find(11).is_none());
    }

    #[test]
    fn rfc7606_4_cutting() {
        let cut = |octets: &[u8]| {
            let mut rest = octets;
            RawAttribute::cut(&mut rest).map(|a| (a.code, a.value.to_vec(), rest.len()))
        };
        assert_eq!(cut(&[0x40, 1, 1, 0, 9]), Some((1, vec![0], 1)));
        assert_eq!(cut(&[0x50, 1, 0, 1, 7]), Some((1, vec![7], 0)));
        assert_eq!(cut(&[0x40, 1]), None);
        assert_eq!(cut(&[0x50, 1, 0]), None);
        assert_eq!(cut(&[0x40, 1, 2, 0]), None);
    }
}
