//! Writes the attributes of a path. Pure. RFC 4271 §4.3 and §5, RFC 6793 §4.2.2, RFC 7606 §5.1.

use std::net::IpAddr;

use crate::Asn;
use crate::attr::{Aggregator, PathAttributes, code, flag};

const WELL_KNOWN: u8 = flag::TRANSITIVE;
const OPTIONAL: u8 = flag::OPTIONAL;
const OPTIONAL_TRANSITIVE: u8 = flag::OPTIONAL | flag::TRANSITIVE;

/// Appends one attribute; its length takes two octets only if it must. False if even those do not suffice.
#[must_use]
pub(crate) fn write_attribute(
    flags: u8,
    code: u8,
    out: &mut Vec<u8>,
    value: impl FnOnce(&mut Vec<u8>),
) -> bool {
    let at = out.len();
    out.extend_from_slice(&[flags, code, 0]);
    value(out);
    let length = out.len() - at - 3;
    if let Ok(length) = u8::try_from(length) {
        out[at + 2] = length;
        return true;
    }
    let Ok(length) = u16::try_from(length) else { return false };
    let [high, low] = length.to_be_bytes();
    out[at] |= flag::EXTENDED_LENGTH;
    out[at + 2] = high;
    out.insert(at + 3, low);
    true
}

/// Appends every attribute but MP_REACH_NLRI in ascending order of their codes; NEXT_HOP only if `next_hop_in_body`.
/// False if one of them is too long to be written at all.
#[must_use]
pub(crate) fn encode_attributes(
    attributes: &PathAttributes,
    four_octet_as: bool,
    next_hop_in_body: bool,
    out: &mut Vec<u8>,
) -> bool {
    let mut unknown = attributes.unknown.iter().peekable();
    let mut fits = true;
    // Writes the attribute `code`, the unknown ones with lower codes before it.
    let mut write = |flags: u8, code: u8, value: &dyn Fn(&mut Vec<u8>)| {
        while let Some(next) = unknown.next_if(|next| next.code < code) {
            let flags = OPTIONAL_TRANSITIVE | partial(next.partial);
            fits &= write_attribute(flags, next.code, out, |out| out.extend_from_slice(&next.value));
        }
        fits &= write_attribute(flags, code, out, |out| value(out));
    };
    write(WELL_KNOWN, code::ORIGIN, &|out| out.push(attributes.origin as u8));
    write(WELL_KNOWN, code::AS_PATH, &|out| match four_octet_as {
        true => attributes.as_path.encode_four_octet(out),
        false => attributes.as_path.encode_two_octet(out),
    });
    if let (IpAddr::V4(next_hop), true) = (attributes.next_hop.global, next_hop_in_body) {
        write(WELL_KNOWN, code::NEXT_HOP, &|out| out.extend_from_slice(&next_hop.octets()));
    }
    if let Some(med) = attributes.med {
        write(OPTIONAL, code::MED, &|out| out.extend_from_slice(&med.to_be_bytes()));
    }
    if let Some(local_pref) = attributes.local_pref {
        write(WELL_KNOWN, code::LOCAL_PREF, &|out| out.extend_from_slice(&local_pref.to_be_bytes()));
    }
    if attributes.atomic_aggregate {
        write(WELL_KNOWN, code::ATOMIC_AGGREGATE, &|_| {});
    }
    if let Some(aggregator) = attributes.aggregator {
        let flags = OPTIONAL_TRANSITIVE | partial(attributes.partial.aggregator);
        write(flags, code::AGGREGATOR, &|out| encode_aggregator(aggregator, four_octet_as, out));
    }
    if !attributes.communities.is_empty() {
        let flags = OPTIONAL_TRANSITIVE | partial(attributes.partial.communities);
        write(flags, code::COMMUNITIES, &|out| {
            out.extend(attributes.communities.iter().flat_map(|community| community.0.to_be_bytes()));
        });
    }
    if let Some(originator_id) = attributes.originator_id {
        write(OPTIONAL, code::ORIGINATOR_ID, &|out| out.extend_from_slice(&originator_id.octets()));
    }
    if !attributes.cluster_list.is_empty() {
        write(OPTIONAL, code::CLUSTER_LIST, &|out| {
            out.extend(attributes.cluster_list.iter().flat_map(|id| id.octets()));
        });
    }
    if !attributes.ext_communities.is_empty() {
        let flags = OPTIONAL_TRANSITIVE | partial(attributes.partial.ext_communities);
        write(flags, code::EXT_COMMUNITIES, &|out| {
            out.extend(attributes.ext_communities.iter().flat_map(|community| community.0));
        });
    }
    if !four_octet_as && attributes.as_path.needs_four_octets() {
        write(OPTIONAL_TRANSITIVE, code::AS4_PATH, &|out| {
            attributes.as_path.without_confederation().encode_four_octet(out);
        });
    }
    if let Some(aggregator) = attributes.aggregator.filter(|a| !four_octet_as && !a.asn.is_two_octet()) {
        write(OPTIONAL_TRANSITIVE, code::AS4_AGGREGATOR, &|out| encode_aggregator(aggregator, true, out));
    }
    if !attributes.large_communities.is_empty() {
        let flags = OPTIONAL_TRANSITIVE | partial(attributes.partial.large_communities);
        write(flags, code::LARGE_COMMUNITIES, &|out| {
            for community in &attributes.large_communities {
                for part in [community.global, community.local1, community.local2] {
                    out.extend_from_slice(&part.to_be_bytes());
                }
            }
        });
    }
    for last in unknown {
        let flags = OPTIONAL_TRANSITIVE | partial(last.partial);
        fits &= write_attribute(flags, last.code, out, |out| out.extend_from_slice(&last.value));
    }
    fits
}

const fn partial(set: bool) -> u8 {
    if set { flag::PARTIAL } else { 0 }
}

fn encode_aggregator(aggregator: Aggregator, four_octet_as: bool, out: &mut Vec<u8>) {
    let Aggregator { asn: asn @ Asn(number), router_id } = aggregator;
    match four_octet_as {
        true => out.extend_from_slice(&number.to_be_bytes()),
        false => out.extend_from_slice(&asn.to_two_octet().to_be_bytes()),
    }
    out.extend_from_slice(&router_id.octets());
}
