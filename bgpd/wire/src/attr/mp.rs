//! MP_REACH_NLRI and MP_UNREACH_NLRI: where they end and what they point to; their prefixes are read by `validate`.
//! Pure. RFC 4760 §3 and §4, RFC 2545 §3, RFC 8950 §3, RFC 7606 §5.3 and §7.11.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::attr::NextHop;
use crate::{AfiSafi, Cursor, DecodeContext, Family};

/// A cut MP_REACH_NLRI attribute of a negotiated family.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MpReach<'a> {
    pub family: Family,
    /// `None` where the address cannot be a next hop.
    pub next_hop: Option<NextHop>,
    pub nlri: &'a [u8],
}

/// A cut MP_UNREACH_NLRI attribute of a negotiated family.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MpUnreach<'a> {
    pub family: Family,
    pub nlri: &'a [u8],
}

fn negotiated(cursor: &mut Cursor<'_>, context: &DecodeContext) -> Result<Option<Family>, &'static str> {
    let afi = cursor.u16().ok_or("too short")?;
    let safi = cursor.u8().ok_or("too short")?;
    Ok(AfiSafi { afi, safi }.family().filter(|family| context.families.contains(*family)))
}

impl<'a> MpReach<'a> {
    /// Cuts the attribute. `Ok(None)`: of a family that was not negotiated, to be ignored.
    pub fn parse(value: &'a [u8], context: &DecodeContext) -> Result<Option<Self>, &'static str> {
        if value.len() < 5 {
            return Err("too short");
        }
        let mut cursor = Cursor::new(value);
        let Some(family) = negotiated(&mut cursor, context)? else { return Ok(None) };
        let length = cursor.u8().ok_or("too short")?;
        let octets = cursor.take(usize::from(length)).ok_or("next hop overruns the attribute")?;
        let _reserved = cursor.u8().ok_or("too short")?;
        let next_hop = match octets.len() {
            4 if family == Family::Ipv4Unicast => {
                Cursor::new(octets).array().and_then(|a| next_hop4(a.into()))
            }
            16 | 32 if family == Family::Ipv6Unicast || context.ipv6_next_hop.contains(family) => {
                next_hop6(octets)
            }
            // Not negotiated (RFC 8950 §4), but plain enough to lose only these prefixes: GoBGP does it in a session
            // over IPv6, and would do it again after every reset.
            16 | 32 => None,
            _ => return Err("next hop of a wrong length"),
        };
        Ok(Some(MpReach { family, next_hop, nlri: cursor.rest() }))
    }
}

impl<'a> MpUnreach<'a> {
    /// Cuts the attribute. `Ok(None)`: of a family that was not negotiated, to be ignored.
    pub fn parse(value: &'a [u8], context: &DecodeContext) -> Result<Option<Self>, &'static str> {
        let mut cursor = Cursor::new(value);
        let family = negotiated(&mut cursor, context)?;
        Ok(family.map(|family| MpUnreach { family, nlri: cursor.rest() }))
    }
}

/// The next hop, if the address is that of a host (RFC 4271 §6.3).
pub(crate) fn next_hop4(address: Ipv4Addr) -> Option<NextHop> {
    let first = address.octets()[0];
    (first != 0 && first != 127 && first < 224).then(|| address.into())
}

/// One or two addresses. Of two the second should be link-local (RFC 2545 §3), and the first global; a speaker without
/// a global address puts `::` or its link-local address there.
fn next_hop6(octets: &[u8]) -> Option<NextHop> {
    let mut cursor = Cursor::new(octets);
    let first = Ipv6Addr::from(cursor.array::<16>()?);
    let second = cursor.array::<16>().map(Ipv6Addr::from).filter(Ipv6Addr::is_unicast_link_local);
    let usable = |a: &Ipv6Addr| !a.is_unspecified() && !a.is_loopback() && !a.is_multicast();
    match (Some(first).filter(usable), second) {
        (Some(first), link_local) if !first.is_unicast_link_local() => {
            Some(NextHop { global: first.into(), link_local })
        }
        (Some(only), None) | (None, Some(only)) => Some(IpAddr::V6(only).into()),
        (Some(_), Some(link_local)) => Some(IpAddr::V6(link_local).into()),
        (None, None) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two(first: &str, second: &str) -> Option<NextHop> {
        let mut octets = first.parse::<Ipv6Addr>().unwrap().octets().to_vec();
        octets.extend(second.parse::<Ipv6Addr>().unwrap().octets());
        next_hop6(&octets)
    }

    #[test]
    fn rfc2545_3_two_addresses() {
        let global: IpAddr = "2001:db8::1".parse().unwrap();
        let local: Ipv6Addr = "fe80::1".parse().unwrap();
        assert_eq!(two("2001:db8::1", "fe80::1"), Some(NextHop { global, link_local: Some(local) }));
        assert_eq!(two("2001:db8::1", "::"), Some(global.into()));
        assert_eq!(two("2001:db8::1", "2001:db8::2"), Some(global.into()));
        assert_eq!(two("::", "fe80::1"), Some(local.into()));
        assert_eq!(two("fe80::9", "fe80::1"), Some(local.into()));
        assert_eq!(two("fe80::9", "::"), Some("fe80::9".parse::<Ipv6Addr>().unwrap().into()));
        assert_eq!(two("::", "::"), None);
        assert_eq!(two("ff02::1", "::"), None);
    }

    #[test]
    fn rfc4271_6_3_next_hops_that_are_no_hosts() {
        for address in ["0.0.0.0", "0.1.2.3", "127.0.0.1", "224.0.0.5", "240.0.0.1", "255.255.255.255"] {
            assert_eq!(next_hop4(address.parse().unwrap()), None, "{address}");
        }
        assert!(next_hop4("192.0.2.1".parse().unwrap()).is_some());
    }
}
