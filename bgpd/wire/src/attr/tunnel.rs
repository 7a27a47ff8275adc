//! The Tunnel Encapsulation attribute and the Encapsulation extended community. Pure. RFC 9012 §2 to §4 and §13.
//!
//! The attribute is carried as it came, but for tunnels whose egress endpoint cannot be used, which are taken out (§13).
//! Of what it offers this speaker can use VXLAN and IP-in-IP.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::attr::ExtCommunity;

const VXLAN: u16 = 8;
const IP_IN_IP: u16 = 7;

const ENCAPSULATION: u8 = 1;
const EGRESS_ENDPOINT: u8 = 6;

/// A kind of tunnel this speaker can use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TunnelKind {
    /// VXLAN (tunnel type 8).
    Vxlan,
    /// IP in IP (tunnel type 7).
    Ipip,
    /// Either of them, to the same endpoint.
    Any,
}

/// The tunnel that a path asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tunnel {
    /// Its kind.
    pub kind: TunnelKind,
    /// Where it ends; `None`: at the path's next hop.
    pub endpoint: Option<IpAddr>,
    /// VXLAN: the network identifier, where one is said.
    pub vni: Option<u32>,
    /// VXLAN: the MAC address of the endpoint, where one is said.
    pub mac: Option<[u8; 6]>,
}

impl Tunnel {
    /// What the value of a Tunnel Encapsulation attribute offers that this speaker can use: the first such tunnel, and
    /// the other kind with it where that ends at the same place.
    pub fn of_attribute(value: &[u8]) -> Option<Tunnel> {
        let mut found: Option<Tunnel> = None;
        for tlv in tlvs(value) {
            let Some(tunnel) = tlv.ok().and_then(|tlv| tlv.tunnel()) else { continue };
            match &mut found {
                None => found = Some(tunnel),
                Some(first) if first.endpoint == tunnel.endpoint && first.kind != tunnel.kind => {
                    first.kind = TunnelKind::Any;
                    first.vni = first.vni.or(tunnel.vni);
                    first.mac = first.mac.or(tunnel.mac);
                }
                Some(_) => {}
            }
        }
        found
    }

    /// What Encapsulation extended communities offer (§4.1): tunnels to the path's next hop.
    pub fn of_communities(communities: impl Iterator<Item = ExtCommunity>) -> Option<Tunnel> {
        let mut kinds = communities.filter_map(|community| match community.0 {
            [0x03, 0x0c, _, _, _, _, high, low] => kind(u16::from_be_bytes([high, low])),
            _ => None,
        });
        let first = kinds.next()?;
        let kind = if kinds.any(|other| other != first) { TunnelKind::Any } else { first };
        Some(Tunnel { kind, endpoint: None, vni: None, mac: None })
    }
}

fn kind(tunnel_type: u16) -> Option<TunnelKind> {
    match tunnel_type {
        VXLAN => Some(TunnelKind::Vxlan),
        IP_IN_IP => Some(TunnelKind::Ipip),
        _ => None,
    }
}

/// Judges the value of the attribute: the value to carry, which lacks the tunnels whose endpoint is malformed.
///
/// # Errors
/// What makes the whole attribute malformed (§13).
pub(crate) fn validate(value: &[u8]) -> Result<Box<[u8]>, &'static str> {
    let mut kept = Vec::with_capacity(value.len());
    for tlv in tlvs(value) {
        let tlv = tlv?;
        if tlv.endpoint().is_some() {
            kept.extend_from_slice(tlv.whole);
        }
    }
    if kept.is_empty() { Err("no valid tunnel") } else { Ok(kept.into()) }
}

/// A Tunnel TLV.
struct Tlv<'a> {
    tunnel_type: u16,
    value: &'a [u8],
    whole: &'a [u8],
}

/// Where a tunnel ends.
enum Endpoint {
    Address(IpAddr),
    NextHop,
    /// Of an address family that is not known: carried, not used.
    Unrecognized,
}

impl Tlv<'_> {
    fn sub_tlvs(&self) -> impl Iterator<Item = (u8, &[u8])> {
        let mut rest = self.value;
        std::iter::from_fn(move || cut_sub_tlv(&mut rest))
    }

    /// The one egress endpoint; `None` where there is none, a malformed one, or more than one.
    fn endpoint(&self) -> Option<Endpoint> {
        let mut all = self.sub_tlvs().filter(|(code, _)| *code == EGRESS_ENDPOINT);
        let (_, value) = all.next()?;
        if all.next().is_some() {
            return None;
        }
        let (_reserved, rest) = value.split_first_chunk::<4>()?;
        let (family, address) = rest.split_first_chunk::<2>()?;
        let address = match u16::from_be_bytes(*family) {
            0 if address.is_empty() => return Some(Endpoint::NextHop),
            1 => IpAddr::from(Ipv4Addr::from(<[u8; 4]>::try_from(address).ok()?)),
            2 => IpAddr::from(Ipv6Addr::from(<[u8; 16]>::try_from(address).ok()?)),
            0 => return None,
            _ => return Some(Endpoint::Unrecognized),
        };
        is_host(address).then_some(Endpoint::Address(address))
    }

    fn tunnel(&self) -> Option<Tunnel> {
        let kind = kind(self.tunnel_type)?;
        let endpoint = match self.endpoint()? {
            Endpoint::Address(address) => Some(address),
            Endpoint::NextHop => None,
            Endpoint::Unrecognized => return None,
        };
        let mut tunnel = Tunnel { kind, endpoint, vni: None, mac: None };
        let mut encapsulation = self.sub_tlvs().filter(|(code, _)| *code == ENCAPSULATION);
        if kind == TunnelKind::Vxlan
            && let Some((_, [flags, v0, v1, v2, m0, m1, m2, m3, m4, m5, _, _])) = encapsulation.next()
        {
            tunnel.vni = (flags & 0x80 != 0).then(|| u32::from_be_bytes([0, *v0, *v1, *v2]));
            tunnel.mac = (flags & 0x40 != 0).then_some([*m0, *m1, *m2, *m3, *m4, *m5]);
        }
        Some(tunnel)
    }
}

/// Whether packets can be sent to the address (§3.1).
fn is_host(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let first = v4.octets()[0];
            first != 0 && !v4.is_loopback() && !v4.is_link_local() && first < 224
        }
        IpAddr::V6(v6) => {
            !v6.is_unspecified()
                && !v6.is_loopback()
                && !v6.is_multicast()
                && !v6.is_unicast_link_local()
                && v6.to_ipv4_mapped().is_none()
        }
    }
}

/// Cuts the value into Tunnel TLVs; ends behind the first error.
fn tlvs(value: &[u8]) -> impl Iterator<Item = Result<Tlv<'_>, &'static str>> {
    let mut rest = value;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let tlv = cut_tlv(&mut rest);
        if tlv.is_err() {
            rest = &[];
        }
        Some(tlv)
    })
}

fn cut_tlv<'a>(rest: &mut &'a [u8]) -> Result<Tlv<'a>, &'static str> {
    const CUT_SHORT: &str = "a tunnel ends too early";
    let Some((&[t0, t1, l0, l1], _)) = rest.split_first_chunk::<4>() else { return Err(CUT_SHORT) };
    let length = usize::from(u16::from_be_bytes([l0, l1]));
    let (whole, tail) = rest.split_at_checked(4 + length).ok_or(CUT_SHORT)?;
    *rest = tail;
    let tlv = Tlv { tunnel_type: u16::from_be_bytes([t0, t1]), value: &whole[4..], whole };
    let mut inner = tlv.value;
    while !inner.is_empty() {
        cut_sub_tlv(&mut inner).ok_or("a tunnel does not end with its last part")?;
    }
    Ok(tlv)
}

/// Cuts a sub-TLV off the front; its length takes two octets where its code is 128 or higher.
fn cut_sub_tlv<'a>(rest: &mut &'a [u8]) -> Option<(u8, &'a [u8])> {
    let (code, header, length) = match **rest {
        [code, length, ..] if code < 128 => (code, 2, usize::from(length)),
        [code, high, low, ..] if code >= 128 => (code, 3, usize::from(u16::from_be_bytes([high, low]))),
        _ => return None,
    };
    let (whole, tail) = rest.split_at_checked(header + length)?;
    *rest = tail;
    Some((code, &whole[header..]))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sub_tlv(code: u8, value: &[u8]) -> Vec<u8> {
        [&[code, value.len() as u8], value].concat()
    }

    fn tlv(tunnel_type: u16, parts: &[Vec<u8>]) -> Vec<u8> {
        let value = parts.concat();
        [&tunnel_type.to_be_bytes()[..], &(value.len() as u16).to_be_bytes(), &value].concat()
    }

    fn endpoint(last: u8) -> Vec<u8> {
        sub_tlv(6, &[0, 0, 0, 0, 0, 1, 192, 0, 2, last])
    }

    const NEXT_HOP: [u8; 8] = [6, 6, 0, 0, 0, 0, 0, 0];

    #[test]
    fn rfc9012_3_2_1_vxlan_says_identifier_and_mac_where_the_flags_do() {
        let both = sub_tlv(1, &[0xc0, 0, 0x10, 1, 2, 0, 0, 0, 0, 9, 0, 0]);
        let tunnel = Tunnel::of_attribute(&tlv(8, &[endpoint(1), both.clone()])).unwrap();
        let address = Some("192.0.2.1".parse().unwrap());
        let full = Tunnel {
            kind: TunnelKind::Vxlan,
            endpoint: address,
            vni: Some(4097),
            mac: Some([2, 0, 0, 0, 0, 9]),
        };
        assert_eq!(tunnel, full);
        let neither = sub_tlv(1, &[0, 0, 0x10, 1, 2, 0, 0, 0, 0, 9, 0, 0]);
        // Only the first occurrence counts (section 13), and IP-in-IP has no identifier.
        let tunnel = Tunnel::of_attribute(&tlv(8, &[neither, endpoint(1), both.clone()])).unwrap();
        assert_eq!((tunnel.vni, tunnel.mac), (None, None));
        let tunnel = Tunnel::of_attribute(&tlv(7, &[endpoint(1), both])).unwrap();
        assert_eq!((tunnel.kind, tunnel.vni), (TunnelKind::Ipip, None));
    }

    #[test]
    fn both_kinds_to_one_endpoint_are_any_and_others_are_passed_over() {
        let value = [tlv(2, &[endpoint(9)]), tlv(8, &[endpoint(1)]), tlv(7, &[endpoint(1)])].concat();
        assert_eq!(Tunnel::of_attribute(&value).unwrap().kind, TunnelKind::Any);
        let value = [tlv(7, &[endpoint(1)]), tlv(8, &[endpoint(2)])].concat();
        let tunnel = Tunnel::of_attribute(&value).unwrap();
        assert_eq!((tunnel.kind, tunnel.endpoint), (TunnelKind::Ipip, Some("192.0.2.1".parse().unwrap())));
        assert_eq!(Tunnel::of_attribute(&tlv(7, &[NEXT_HOP.to_vec()])).unwrap().endpoint, None);
        assert_eq!(Tunnel::of_attribute(&tlv(2, &[endpoint(1)])), None);
    }

    #[test]
    fn rfc9012_13_what_is_malformed_and_what_is_taken_out() {
        let good = tlv(8, &[endpoint(1), sub_tlv(2, &[8, 0]), vec![200, 0, 1, 7]]);
        assert_eq!(validate(&good).unwrap()[..], good[..]);
        // Tunnel types and address families that are not known stay in.
        let unknown = [tlv(99, &[endpoint(1)]), tlv(8, &[sub_tlv(6, &[0, 0, 0, 0, 0, 25, 1, 2])])].concat();
        assert_eq!(validate(&unknown).unwrap()[..], unknown[..]);
        let no_endpoint = tlv(8, &[sub_tlv(2, &[8, 0])]);
        let two = tlv(8, &[endpoint(1), endpoint(2)]);
        let short = tlv(8, &[sub_tlv(6, &[0, 0, 0, 0, 0, 1, 192, 0, 2])]);
        let loopback = tlv(8, &[sub_tlv(6, &[0, 0, 0, 0, 0, 1, 127, 0, 0, 1])]);
        for bad in [&no_endpoint, &two, &short, &loopback] {
            assert!(validate(bad).is_err());
            assert_eq!(validate(&[bad.as_slice(), &good].concat()).unwrap()[..], good[..]);
        }
        assert!(validate(&[]).is_err());
        assert!(validate(&good[..good.len() - 1]).is_err());
        assert!(validate(&[good.as_slice(), &[0, 8]].concat()).is_err());
        assert!(validate(&tlv(8, &[endpoint(1), vec![2, 9, 0]])).is_err());
    }

    #[test]
    fn rfc9012_4_1_the_community_is_a_tunnel_to_the_next_hop() {
        let community = |low| ExtCommunity([3, 0x0c, 0, 0, 0, 0, 0, low]);
        let of = |list: &[ExtCommunity]| Tunnel::of_communities(list.iter().copied());
        let vxlan = Tunnel { kind: TunnelKind::Vxlan, endpoint: None, vni: None, mac: None };
        assert_eq!(of(&[ExtCommunity([3, 0x0b, 0, 0, 0, 0, 0, 8]), community(8)]), Some(vxlan));
        assert_eq!(of(&[community(7), community(8)]).unwrap().kind, TunnelKind::Any);
        assert_eq!(of(&[community(2)]), None);
    }

    proptest! {
        #[test]
        fn noise_is_no_panic_and_what_is_carried_is_valid(value in proptest::collection::vec(0u8..10, 0..60)) {
            let tunnel = Tunnel::of_attribute(&value);
            if let Ok(kept) = validate(&value) {
                prop_assert_eq!(validate(&kept), Ok(kept.clone()));
                prop_assert_eq!(Tunnel::of_attribute(&kept), tunnel);
            }
        }
    }
}
