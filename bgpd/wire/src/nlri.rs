//! Lists of prefixes as RFC 4271 §4.3 writes them, with path identifiers where RFC 7911 is in use. Pure.

use crate::prefix::octets_of;
use crate::{Cursor, Ipv4Prefix, Ipv6Prefix, Nlri, PrefixKey};

/// The most octets one prefix takes: path identifier, length, 16 octets.
pub(crate) const MAX_NLRI_LEN: usize = 4 + 1 + 16;

/// Reads a list to its end.
///
/// # Errors
/// What makes the field syntactically incorrect (RFC 7606 §5.3).
pub(crate) fn decode<P: PrefixKey>(field: &[u8], add_path: bool) -> Result<Vec<Nlri<P>>, &'static str> {
    // A prefix seldom takes fewer octets than this: one allocation for nearly every list.
    let typical = if P::MAX_LEN == 32 { 4 } else { 7 };
    let mut list = Vec::with_capacity(field.len().div_ceil(typical));
    let mut cursor = Cursor::new(field);
    while !cursor.is_empty() {
        let path_id = if add_path { cursor.u32().ok_or("path identifier overruns the field")? } else { 0 };
        let len = cursor.u8().ok_or("prefix overruns the field")?;
        if len > P::MAX_LEN {
            return Err("prefix length exceeds the address family");
        }
        let prefix = cursor.take(octets_of(len)).and_then(|octets| P::from_octets(len, octets));
        list.push(Nlri { prefix: prefix.ok_or("prefix overruns the field")?, path_id });
    }
    Ok(list)
}

/// Appends one prefix.
pub(crate) fn encode<P: PrefixKey>(nlri: &Nlri<P>, add_path: bool, out: &mut Vec<u8>) {
    if add_path {
        out.extend_from_slice(&nlri.path_id.to_be_bytes());
    }
    out.push(nlri.prefix.prefix_len());
    nlri.prefix.write_octets(out);
}

/// How many octets [`encode`] appends.
pub(crate) fn encoded_len<P: PrefixKey>(nlri: &Nlri<P>, add_path: bool) -> usize {
    usize::from(add_path) * 4 + 1 + octets_of(nlri.prefix.prefix_len())
}

/// Whether packets can be routed to a prefix at all (RFC 4271 §6.3: a semantically incorrect one is ignored).
pub(crate) trait Routable {
    fn is_routable(&self) -> bool;
}

impl Routable for Ipv4Prefix {
    /// Not: multicast, loopback, and "this network" (RFC 1122 §3.2.1.3).
    fn is_routable(&self) -> bool {
        let first = self.bits() >> 24;
        !(self.prefix_len() >= 4 && (224..240).contains(&first)
            || self.prefix_len() >= 8 && (first == 127 || first == 0))
    }
}

impl Routable for Ipv6Prefix {
    /// Not: multicast, link-local, loopback, unspecified (RFC 4291 §2.4).
    fn is_routable(&self) -> bool {
        let first = self.bits() >> 112;
        !(self.prefix_len() >= 8 && first & 0xff00 == 0xff00
            || self.prefix_len() >= 10 && first & 0xffc0 == 0xfe80
            || self.prefix_len() == 128 && self.bits() <= 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc7606_5_3_syntax() {
        assert!(decode::<Ipv4Prefix>(&[33, 1, 2, 3, 4, 5], false).is_err());
        assert!(decode::<Ipv4Prefix>(&[24, 10, 1], false).is_err());
        assert!(decode::<Ipv6Prefix>(&[129], false).is_err());
        assert!(decode::<Ipv4Prefix>(&[0, 0, 1], true).is_err());
        assert_eq!(decode::<Ipv4Prefix>(&[], false).unwrap(), []);
        let list = decode::<Ipv4Prefix>(&[0, 0, 0, 7, 8, 10, 0, 0, 0, 8, 0], true).unwrap();
        assert_eq!(list[0], Nlri { prefix: "10.0.0.0/8".parse().unwrap(), path_id: 7 });
        assert_eq!(list[1], Nlri { prefix: Ipv4Prefix::DEFAULT, path_id: 8 });
    }

    #[test]
    fn rfc4271_6_3_prefixes_nobody_can_route() {
        let v4 = |text: &str| text.parse::<Ipv4Prefix>().unwrap().is_routable();
        assert!(
            v4("0.0.0.0/0") && v4("10.0.0.0/8") && v4("192.0.2.1/32") && v4("0.0.0.0/1") && v4("128.0.0.0/1")
        );
        assert!(!v4("224.0.0.0/4") && !v4("239.1.0.0/16") && !v4("127.0.0.0/8") && !v4("0.1.0.0/16"));
        let v6 = |text: &str| text.parse::<Ipv6Prefix>().unwrap().is_routable();
        assert!(v6("::/0") && v6("2001:db8::/32") && v6("fd00::/8") && v6("64:ff9b::/96"));
        assert!(!v6("ff00::/8") && !v6("ff02::1/128") && !v6("fe80::/64") && !v6("::1/128") && !v6("::/128"));
    }
}
