//! Nexthop objects to and from bytes (`linux/nexthop.h`). Pure.

use crate::attribute::{self, Attributes};
use crate::nexthop::{Nexthop, NexthopKind};
use crate::route::{Family, NextHop};

/// `RTM_NEWNEXTHOP`.
pub(crate) const NEW: u16 = 104;
/// `RTM_DELNEXTHOP`.
pub(crate) const DELETE: u16 = 105;
/// `RTM_GETNEXTHOP`.
pub(crate) const GET: u16 = 106;

/// `struct nhmsg`: family, scope, protocol, padding, flags.
const HEADER: usize = 8;

const NHA_ID: u16 = 1;
const NHA_GROUP: u16 = 2;
const NHA_GROUP_TYPE: u16 = 3;
const NHA_BLACKHOLE: u16 = 4;
const NHA_OIF: u16 = 5;
const NHA_GATEWAY: u16 = 6;
const NHA_ENCAP_TYPE: u16 = 7;
const NHA_FDB: u16 = 11;

const NHA_RES_GROUP: u16 = 12;
const NHA_RES_GROUP_BUCKETS: u16 = 1;

const GROUP_TYPE_RESILIENT: u16 = 1;
/// Buckets of a resilient group: enough for shares of a hundredth, few enough for a thousand groups.
const BUCKETS: u16 = 128;
const RTNH_F_ONLINK: u32 = 4;

fn header(family: u8, protocol: u8, flags: u32) -> Vec<u8> {
    let mut body = Vec::with_capacity(64);
    body.extend_from_slice(&[family, 0, protocol, 0]);
    body.extend_from_slice(&flags.to_ne_bytes());
    body
}

/// The body of a dump request.
pub(crate) fn dump() -> Vec<u8> {
    header(0, 0, 0)
}

/// The body that deletes an object.
pub(crate) fn delete(id: u32) -> Vec<u8> {
    let mut body = header(0, 0, 0);
    attribute::put_u32(&mut body, NHA_ID, id);
    body
}

/// The body that makes an object (`id` `None`: the kernel chooses) or replaces one. `None` for
/// [`NexthopKind::Other`], which nobody here makes.
pub(crate) fn new(id: Option<u32>, kind: &NexthopKind, protocol: u8) -> Option<Vec<u8>> {
    let mut body = match kind {
        NexthopKind::Single { family, hop } => {
            let family = hop.gateway.as_ref().map_or(*family, Family::of);
            header(super::family_number(family), protocol, if hop.onlink { RTNH_F_ONLINK } else { 0 })
        }
        NexthopKind::Group { .. } => header(0, protocol, 0),
        NexthopKind::Other => return None,
    };
    if let Some(id) = id {
        attribute::put_u32(&mut body, NHA_ID, id);
    }
    match kind {
        NexthopKind::Single { hop, .. } => {
            if let Some(gateway) = hop.gateway {
                attribute::put_address(&mut body, NHA_GATEWAY, gateway);
            }
            attribute::put_u32(&mut body, NHA_OIF, hop.ifindex);
        }
        NexthopKind::Group { members, resilient } => {
            let mut group = Vec::with_capacity(8 * members.len());
            for (id, weight) in members {
                group.extend_from_slice(&id.to_ne_bytes());
                // `struct nexthop_grp`: the weight less one (254 at most before Linux 6.13), then three bytes of zeros.
                let weight = weight.saturating_sub(1).min(254) as u8;
                group.extend_from_slice(&[weight, 0, 0, 0]);
            }
            attribute::put(&mut body, NHA_GROUP, &group);
            if *resilient {
                attribute::put(&mut body, NHA_GROUP_TYPE, &GROUP_TYPE_RESILIENT.to_ne_bytes());
                attribute::put_nested(&mut body, NHA_RES_GROUP, |group| {
                    attribute::put(group, NHA_RES_GROUP_BUCKETS, &BUCKETS.to_ne_bytes());
                });
            }
        }
        NexthopKind::Other => {}
    }
    Some(body)
}

/// Reads `RTM_NEWNEXTHOP` or `RTM_DELNEXTHOP`.
pub(crate) fn parse(payload: &[u8]) -> Option<Nexthop> {
    let (header, attributes) = payload.split_at_checked(HEADER)?;
    let family = super::family_from(header[0]);
    let flags = u32::from_ne_bytes([header[4], header[5], header[6], header[7]]);
    let mut id = None;
    let mut hop = NextHop { gateway: None, ifindex: 0, weight: 1, onlink: flags & RTNH_F_ONLINK != 0 };
    let (mut members, mut resilient, mut other) = (None, false, false);
    for attribute in Attributes(attributes) {
        match attribute.kind {
            NHA_ID => id = attribute.number(),
            NHA_GROUP => members = Some(parse_members(attribute.value)),
            NHA_GROUP_TYPE => resilient = attribute.number() == Some(GROUP_TYPE_RESILIENT.into()),
            NHA_OIF => hop.ifindex = attribute.number()?,
            NHA_GATEWAY => hop.gateway = attribute.address(),
            NHA_BLACKHOLE | NHA_ENCAP_TYPE | NHA_FDB => other = true,
            _ => {}
        }
    }
    let kind = match (other, members, family) {
        (true, ..) | (false, None, None) => NexthopKind::Other,
        (false, Some(members), _) => NexthopKind::group(members, resilient),
        (false, None, Some(family)) => NexthopKind::Single { family, hop },
    };
    Some(Nexthop { id: id?, protocol: header[2], kind })
}

fn parse_members(bytes: &[u8]) -> Vec<(u32, u16)> {
    let member = |entry: &[u8; 8]| {
        let [a, b, c, d, weight, high, ..] = *entry;
        let weight = u16::from_le_bytes([weight, high]).saturating_add(1);
        (u32::from_ne_bytes([a, b, c, d]), weight)
    };
    bytes.as_chunks().0.iter().map(member).collect()
}
