//! Path attributes in as few octets as it takes: what the decision looks at as numbers, the rest as octets.
//!
//! Pure. A table holds a set of attributes for every few routes, so it is this form that is kept; [`unpack`] makes a
//! value of it where policy, rewriting or a reader wants one. The octets are of this speaker's own making, never read
//! from the network: next hop, AS_PATH as RFC 4271 §4.3 has it, then each optional attribute that is there.

use std::hash::{Hash, Hasher};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use causeway_bgp_wire::{
    Aggregator, AsPath, Asn, Community, ExtCommunity, LargeCommunity, NextHop, Origin, PartialFlags,
    PathAttributes, Segments, Tunnel, UnknownAttribute, code,
};

/// Which attributes there are, and other bits.
mod present {
    pub const MED: u16 = 1;
    pub const LOCAL_PREF: u16 = 1 << 1;
    pub const ORIGINATOR_ID: u16 = 1 << 2;
    pub const NEIGHBOUR: u16 = 1 << 3;
    pub const V6_NEXT_HOP: u16 = 1 << 4;
    pub const LINK_LOCAL: u16 = 1 << 5;
    pub const AGGREGATOR: u16 = 1 << 6;
    pub const ATOMIC_AGGREGATE: u16 = 1 << 7;
    pub const COMMUNITIES: u16 = 1 << 8;
    pub const EXT_COMMUNITIES: u16 = 1 << 9;
    pub const LARGE_COMMUNITIES: u16 = 1 << 10;
    pub const UNKNOWN: u16 = 1 << 11;
    pub const PARTIAL_AGGREGATOR: u16 = 1 << 12;
    pub const PARTIAL_COMMUNITIES: u16 = 1 << 13;
    pub const PARTIAL_EXT_COMMUNITIES: u16 = 1 << 14;
    pub const PARTIAL_LARGE_COMMUNITIES: u16 = 1 << 15;
}

/// What is worth a look into the octets, and where a set is of.
mod mark {
    /// See [`super::super::AttrSet::is_finished`].
    pub const FINISHED: u8 = 1;
    /// A link bandwidth community.
    pub const BANDWIDTH: u8 = 1 << 1;
    /// A tunnel is asked for, by an attribute or by a community.
    pub const TUNNEL: u8 = 1 << 2;
}

/// What the decision and export look at of every path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    med: u32,
    local_pref: u32,
    originator_id: u32,
    neighbour: u32,
    /// Octets of the AS_PATH: more than a message's where they came as two-octet numbers.
    as_path_octets: u32,
    /// Its length as the decision counts it.
    as_path_length: u16,
    cluster_list: u16,
    present: u16,
    origin: Origin,
    marks: u8,
}

impl Hash for Facts {
    /// All that does not follow from the octets, in few steps: this is done for every UPDATE.
    fn hash<H: Hasher>(&self, state: &mut H) {
        let pair = |high: u32, low: u32| u64::from(high) << 32 | u64::from(low);
        state.write_u64(pair(self.med, self.local_pref));
        state.write_u64(pair(self.originator_id, self.as_path_octets));
        let flags = u32::from(self.marks) << 8 | self.origin as u32;
        state.write_u64(pair(flags, u32::from(self.present) << 16 | u32::from(self.cluster_list)));
    }
}

impl Facts {
    /// Those of some attributes.
    pub fn of(attributes: &PathAttributes) -> Self {
        use present as p;
        let neighbour = attributes.as_path.neighbour_as();
        let partial = attributes.partial;
        let bits = [
            (p::MED, attributes.med.is_some()),
            (p::LOCAL_PREF, attributes.local_pref.is_some()),
            (p::ORIGINATOR_ID, attributes.originator_id.is_some()),
            (p::NEIGHBOUR, neighbour.is_some()),
            (p::V6_NEXT_HOP, attributes.next_hop.global.is_ipv6()),
            (p::LINK_LOCAL, attributes.next_hop.link_local.is_some()),
            (p::AGGREGATOR, attributes.aggregator.is_some()),
            (p::ATOMIC_AGGREGATE, attributes.atomic_aggregate),
            (p::COMMUNITIES, !attributes.communities.is_empty()),
            (p::EXT_COMMUNITIES, !attributes.ext_communities.is_empty()),
            (p::LARGE_COMMUNITIES, !attributes.large_communities.is_empty()),
            (p::UNKNOWN, !attributes.unknown.is_empty()),
            (p::PARTIAL_AGGREGATOR, partial.aggregator),
            (p::PARTIAL_COMMUNITIES, partial.communities),
            (p::PARTIAL_EXT_COMMUNITIES, partial.ext_communities),
            (p::PARTIAL_LARGE_COMMUNITIES, partial.large_communities),
        ];
        Facts {
            med: attributes.med.unwrap_or_default(),
            local_pref: attributes.local_pref.unwrap_or_default(),
            originator_id: attributes.originator_id.map_or(0, Ipv4Addr::to_bits),
            neighbour: neighbour.map_or(0, |asn| asn.0),
            as_path_octets: attributes.as_path.as_octets().len() as u32,
            as_path_length: clamp(attributes.as_path.length()),
            cluster_list: clamp(attributes.cluster_list.len()),
            present: bits.into_iter().map(|(bit, set)| bit * u16::from(set)).sum(),
            origin: attributes.origin,
            marks: marks_of(attributes),
        }
    }

    /// Whether these are attributes as sent.
    pub(super) fn is_finished(&self) -> bool {
        self.marks & mark::FINISHED != 0
    }

    /// They are attributes as sent.
    pub(super) fn set_finished(&mut self) {
        self.marks |= mark::FINISHED;
    }

    /// Those of some attributes, whose octets are appended to `out`.
    pub(crate) fn pack(attributes: &PathAttributes, out: &mut Vec<u8>) -> Self {
        pack(attributes, out)
    }

    fn has(&self, bit: u16) -> bool {
        self.present & bit != 0
    }

    /// MULTI_EXIT_DISC.
    pub fn med(&self) -> Option<u32> {
        self.has(present::MED).then_some(self.med)
    }

    /// LOCAL_PREF.
    pub fn local_pref(&self) -> Option<u32> {
        self.has(present::LOCAL_PREF).then_some(self.local_pref)
    }

    /// ORIGINATOR_ID.
    pub fn originator_id(&self) -> Option<Ipv4Addr> {
        self.has(present::ORIGINATOR_ID).then(|| Ipv4Addr::from_bits(self.originator_id))
    }

    /// The AS a MED is compared within ([`AsPath::neighbour_as`]).
    pub fn neighbour_as(&self) -> Option<Asn> {
        self.has(present::NEIGHBOUR).then_some(Asn(self.neighbour))
    }

    /// ORIGIN.
    pub fn origin(&self) -> Origin {
        self.origin
    }

    /// [`AsPath::length`].
    pub fn as_path_length(&self) -> usize {
        usize::from(self.as_path_length)
    }

    /// How many clusters the path went through.
    pub fn cluster_list_length(&self) -> usize {
        usize::from(self.cluster_list)
    }

    /// Whether a standard community is there.
    pub fn has_communities(&self) -> bool {
        self.has(present::COMMUNITIES)
    }

    /// Whether there is no word in it of how its next hop is to be used: no bandwidth, no tunnel.
    pub fn is_plain(&self) -> bool {
        self.marks & (mark::BANDWIDTH | mark::TUNNEL) == 0
    }

    /// Whether the next hop is an IPv6 one.
    pub fn has_v6_next_hop(&self) -> bool {
        self.has(present::V6_NEXT_HOP)
    }
}

fn marks_of(attributes: &PathAttributes) -> u8 {
    let communities = &attributes.ext_communities;
    let bandwidth = communities.iter().any(|community| community.link_bandwidth().is_some());
    let tunnel = communities.iter().any(|community| community.is_encapsulation())
        || attributes.unknown.iter().any(|unknown| unknown.code == code::TUNNEL_ENCAPSULATION);
    let set = |mark: u8, condition: bool| if condition { mark } else { 0 };
    set(mark::BANDWIDTH, bandwidth) | set(mark::TUNNEL, tunnel)
}

/// No attribute of a message takes more than 65,535 octets; what an operator's policy adds to one beyond that cannot be
/// sent, and is told of when it is encoded.
fn clamp(length: usize) -> u16 {
    u16::try_from(length).unwrap_or(u16::MAX)
}

/// A list with its length before it.
fn list<const N: usize>(items: impl ExactSizeIterator<Item = [u8; N]>, out: &mut Vec<u8>) {
    let count = usize::from(clamp(items.len()));
    out.extend_from_slice(&(count as u16).to_be_bytes());
    items.take(count).for_each(|item| out.extend_from_slice(&item));
}

/// Appends the octets; what is a number of the decision comes back.
fn pack(attributes: &PathAttributes, out: &mut Vec<u8>) -> Facts {
    let facts = Facts::of(attributes);
    match attributes.next_hop.global {
        IpAddr::V4(address) => out.extend_from_slice(&address.octets()),
        IpAddr::V6(address) => out.extend_from_slice(&address.octets()),
    }
    if let Some(address) = attributes.next_hop.link_local {
        out.extend_from_slice(&address.octets());
    }
    out.extend_from_slice(attributes.as_path.as_octets());
    let clusters = attributes.cluster_list.iter().take(usize::from(facts.cluster_list));
    clusters.for_each(|cluster| out.extend_from_slice(&cluster.octets()));
    if let Some(Aggregator { asn, router_id }) = attributes.aggregator {
        out.extend_from_slice(&asn.0.to_be_bytes());
        out.extend_from_slice(&router_id.octets());
    }
    if !attributes.communities.is_empty() {
        list(attributes.communities.iter().map(|community| community.0.to_be_bytes()), out);
    }
    if !attributes.ext_communities.is_empty() {
        list(attributes.ext_communities.iter().map(|community| community.0), out);
    }
    if !attributes.large_communities.is_empty() {
        let octets = |community: &LargeCommunity| {
            let mut octets = [0; 12];
            octets[..4].copy_from_slice(&community.global.to_be_bytes());
            octets[4..8].copy_from_slice(&community.local1.to_be_bytes());
            octets[8..].copy_from_slice(&community.local2.to_be_bytes());
            octets
        };
        list(attributes.large_communities.iter().map(octets), out);
    }
    for unknown in &attributes.unknown {
        let length = clamp(unknown.value.len());
        out.extend_from_slice(&[unknown.code, u8::from(unknown.partial)]);
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(&unknown.value[..usize::from(length)]);
    }
    facts
}

/// Takes octets off the front.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// Zeroes where the octets ended, which [`pack`] does not let happen.
    fn array<const N: usize>(&mut self) -> [u8; N] {
        self.take(N).try_into().unwrap_or([0; N])
    }

    fn u16(&mut self) -> u16 {
        u16::from_be_bytes(self.array())
    }

    fn u32(&mut self) -> u32 {
        u32::from_be_bytes(self.array())
    }

    fn list<const N: usize, T>(&mut self, item: impl FnMut([u8; N]) -> T) -> Vec<T> {
        let count = usize::from(self.u16());
        self.take(count * N).as_chunks::<N>().0.iter().copied().map(item).collect()
    }

    fn next_hop(&mut self, facts: &Facts) -> NextHop {
        let global = match facts.has(present::V6_NEXT_HOP) {
            true => IpAddr::from(self.array::<16>()),
            false => IpAddr::from(self.array::<4>()),
        };
        let link_local = facts.has(present::LINK_LOCAL).then(|| Ipv6Addr::from(self.array::<16>()));
        NextHop { global, link_local }
    }
}

/// Attributes in their packed form, wherever they are kept.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PackedAttributes<'a> {
    pub facts: &'a Facts,
    pub octets: &'a [u8],
}

impl<'a> PackedAttributes<'a> {
    /// The next hop alone.
    pub fn next_hop(self) -> NextHop {
        Reader(self.octets).next_hop(self.facts)
    }

    /// The octets of the AS_PATH alone.
    pub fn as_path(self) -> &'a [u8] {
        let mut reader = Reader(self.octets);
        reader.next_hop(self.facts);
        reader.take(self.facts.as_path_octets as usize)
    }

    /// How often a number is in the AS_PATH.
    pub fn as_path_count(self, asn: Asn) -> usize {
        let segments = Segments::of(self.as_path());
        segments.flat_map(|segment| segment.asns()).filter(|other| *other == asn).count()
    }

    /// Whether the path went through this cluster.
    pub fn has_cluster(self, cluster: Ipv4Addr) -> bool {
        if self.facts.cluster_list == 0 {
            return false;
        }
        let mut reader = Reader(self.octets);
        reader.next_hop(self.facts);
        reader.take(self.facts.as_path_octets as usize);
        let clusters = reader.take(usize::from(self.facts.cluster_list) * 4).as_chunks::<4>().0;
        clusters.contains(&cluster.octets())
    }

    /// The bandwidth the path is said to have, in bytes a second.
    pub fn bandwidth(self) -> Option<f32> {
        if self.facts.marks & mark::BANDWIDTH == 0 {
            return None;
        }
        self.ext_communities().0.iter().find_map(|community| ExtCommunity(*community).link_bandwidth())
    }

    /// The tunnel the path asks for.
    pub fn tunnel(self) -> Option<Tunnel> {
        if self.facts.marks & mark::TUNNEL == 0 {
            return None;
        }
        let (communities, mut rest) = self.ext_communities();
        if self.facts.has(present::LARGE_COMMUNITIES) {
            let count = usize::from(rest.u16());
            rest.take(count * 12);
        }
        while self.facts.has(present::UNKNOWN) && !rest.0.is_empty() {
            let [code, _] = rest.array();
            let length = usize::from(rest.u16());
            let value = rest.take(length);
            if code == code::TUNNEL_ENCAPSULATION {
                return Tunnel::of_attribute(value);
            }
        }
        Tunnel::of_communities(communities.iter().copied().map(ExtCommunity))
    }

    /// The extended communities and what comes behind them.
    fn ext_communities(self) -> (&'a [[u8; 8]], Reader<'a>) {
        let mut reader = Reader(self.octets);
        reader.next_hop(self.facts);
        reader.take(self.facts.as_path_octets as usize + usize::from(self.facts.cluster_list) * 4);
        if self.facts.has(present::AGGREGATOR) {
            reader.take(8);
        }
        let mut list = |bit: u16, unit: usize| {
            let count = if self.facts.has(bit) { usize::from(reader.u16()) } else { 0 };
            reader.take(count * unit)
        };
        list(present::COMMUNITIES, 4);
        let communities = list(present::EXT_COMMUNITIES, 8);
        (communities.as_chunks::<8>().0, reader)
    }

    /// The value that was packed.
    pub fn unpack(self) -> PathAttributes {
        unpack(self.facts, self.octets)
    }
}

/// The value that was packed.
fn unpack(facts: &Facts, octets: &[u8]) -> PathAttributes {
    use present as p;
    let mut reader = Reader(octets);
    let next_hop = reader.next_hop(facts);
    let as_path = AsPath::from_octets(reader.take(facts.as_path_octets as usize)).unwrap_or_default();
    let clusters = reader.take(usize::from(facts.cluster_list) * 4).as_chunks::<4>().0;
    let cluster_list = clusters.iter().copied().map(Ipv4Addr::from).collect();
    let aggregator = facts
        .has(p::AGGREGATOR)
        .then(|| Aggregator { asn: Asn(reader.u32()), router_id: Ipv4Addr::from(reader.array()) });
    let communities = match facts.has(p::COMMUNITIES) {
        true => reader.list(|octets| Community(u32::from_be_bytes(octets))),
        false => Vec::new(),
    };
    let ext_communities = match facts.has(p::EXT_COMMUNITIES) {
        true => reader.list(ExtCommunity),
        false => Vec::new(),
    };
    let large_communities = match facts.has(p::LARGE_COMMUNITIES) {
        true => reader.list(|octets: [u8; 12]| {
            let mut parts = Reader(&octets);
            LargeCommunity { global: parts.u32(), local1: parts.u32(), local2: parts.u32() }
        }),
        false => Vec::new(),
    };
    let mut unknown = Vec::new();
    while facts.has(p::UNKNOWN) && !reader.0.is_empty() {
        let [code, partial] = reader.array();
        let length = usize::from(reader.u16());
        unknown.push(UnknownAttribute { code, partial: partial != 0, value: reader.take(length).into() });
    }
    PathAttributes {
        origin: facts.origin,
        as_path,
        next_hop,
        med: facts.med(),
        local_pref: facts.local_pref(),
        atomic_aggregate: facts.has(p::ATOMIC_AGGREGATE),
        aggregator,
        communities,
        ext_communities,
        large_communities,
        originator_id: facts.originator_id(),
        cluster_list,
        unknown,
        partial: PartialFlags {
            aggregator: facts.has(p::PARTIAL_AGGREGATOR),
            communities: facts.has(p::PARTIAL_COMMUNITIES),
            ext_communities: facts.has(p::PARTIAL_EXT_COMMUNITIES),
            large_communities: facts.has(p::PARTIAL_LARGE_COMMUNITIES),
        },
    }
}
