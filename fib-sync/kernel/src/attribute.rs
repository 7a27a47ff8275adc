//! Netlink attributes (`struct nlattr`) written and read by hand. Pure.
//!
//! For messages that `netlink-packet-route` does not know, and for those of which there are a million.

use std::net::IpAddr;

/// The type without its flags for nested attributes and byte order.
const TYPE_MASK: u16 = 0x3fff;
/// `NLA_F_NESTED`.
const NESTED: u16 = 0x8000;

const HEADER: usize = 4;

/// Appends one attribute.
#[inline]
pub(crate) fn put(out: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = (HEADER + value.len()) as u16;
    out.extend_from_slice(&length.to_ne_bytes());
    out.extend_from_slice(&kind.to_ne_bytes());
    out.extend_from_slice(value);
    let padding = value.len().wrapping_neg() % 4;
    out.extend_from_slice(&[0; 3][..padding]);
}

/// Appends an attribute of four bytes.
#[inline]
pub(crate) fn put_u32(out: &mut Vec<u8>, kind: u16, value: u32) {
    let mut bytes = [0; HEADER + 4];
    bytes[..2].copy_from_slice(&8_u16.to_ne_bytes());
    bytes[2..4].copy_from_slice(&kind.to_ne_bytes());
    bytes[4..].copy_from_slice(&value.to_ne_bytes());
    out.extend_from_slice(&bytes);
}

/// Appends a string, ended by a zero byte.
pub(crate) fn put_text(out: &mut Vec<u8>, kind: u16, value: &str) {
    let mut bytes = Vec::with_capacity(value.len() + 1);
    bytes.extend_from_slice(value.as_bytes());
    bytes.push(0);
    put(out, kind, &bytes);
}

/// Appends an IPv4 or IPv6 address.
pub(crate) fn put_address(out: &mut Vec<u8>, kind: u16, address: IpAddr) {
    match address {
        IpAddr::V4(address) => put(out, kind, &address.octets()),
        IpAddr::V6(address) => put(out, kind, &address.octets()),
    }
}

/// Appends an attribute that holds those which `fill` appends.
pub(crate) fn nest(out: &mut Vec<u8>, kind: u16, fill: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    put(out, kind, &[]);
    fill(out);
    let length = (out.len() - start) as u16;
    out[start..start + 2].copy_from_slice(&length.to_ne_bytes());
}

/// As [`nest`], and says that it holds others: outside of links, addresses and routes the kernel insists on it.
pub(crate) fn put_nested(out: &mut Vec<u8>, kind: u16, fill: impl FnOnce(&mut Vec<u8>)) {
    nest(out, kind | NESTED, fill);
}

/// An attribute that was read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attribute<'a> {
    /// Its type without flags.
    pub(crate) kind: u16,
    /// Its value without padding.
    pub(crate) value: &'a [u8],
    /// The length of all of it, with header and padding.
    pub(crate) whole: usize,
}

impl Attribute<'_> {
    /// A number of one, two or four bytes in the host's order.
    pub(crate) fn number(&self) -> Option<u32> {
        match *self.value {
            [a] => Some(a.into()),
            [a, b] => Some(u16::from_ne_bytes([a, b]).into()),
            [a, b, c, d] => Some(u32::from_ne_bytes([a, b, c, d])),
            _ => None,
        }
    }

    /// An IPv4 or IPv6 address, by its length.
    pub(crate) fn address(&self) -> Option<IpAddr> {
        address(self.value)
    }

    /// A string.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(self.value.strip_suffix(&[0]).unwrap_or(self.value)).into_owned()
    }
}

/// An IPv4 or IPv6 address, by its length.
pub(crate) fn address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(Into::into),
        16 => <[u8; 16]>::try_from(bytes).ok().map(Into::into),
        _ => None,
    }
}

/// Reads attributes one by one; ends at the first that is not whole.
#[derive(Debug, Clone)]
pub(crate) struct Attributes<'a>(pub(crate) &'a [u8]);

impl<'a> Iterator for Attributes<'a> {
    type Item = Attribute<'a>;

    #[inline]
    fn next(&mut self) -> Option<Attribute<'a>> {
        let [a, b, c, d, ..] = *self.0 else { return None };
        let length = usize::from(u16::from_ne_bytes([a, b]));
        let value = self.0.get(HEADER..length)?;
        // The last one may come without its padding.
        let whole = length.next_multiple_of(4).min(self.0.len());
        self.0 = &self.0[whole..];
        Some(Attribute { kind: u16::from_ne_bytes([c, d]) & TYPE_MASK, value, whole })
    }
}

/// The value of the first attribute of that number.
pub(crate) fn value(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    Attributes(bytes).find(|attribute| attribute.kind == kind).map(|attribute| attribute.value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_is_read() {
        let mut bytes = Vec::new();
        put(&mut bytes, 1, &[7]);
        put_u32(&mut bytes, 2, 0x0102_0304);
        nest(&mut bytes, 3, |bytes| {
            put_text(bytes, 4, "up0");
            put_address(bytes, 5, IpAddr::from([10, 0, 0, 1]));
        });
        put_nested(&mut bytes, 6, |bytes| put_address(bytes, 7, IpAddr::from([1; 16])));
        assert_eq!(bytes.len() % 4, 0);
        let read: Vec<_> = Attributes(&bytes).collect();
        assert_eq!(read.iter().map(|attribute| attribute.kind).collect::<Vec<_>>(), [1, 2, 3, 6]);
        assert_eq!((read[0].number(), read[1].number()), (Some(7), Some(0x0102_0304)));
        let inside: Vec<_> = Attributes(read[2].value).collect();
        assert_eq!(inside[0].text(), "up0");
        assert_eq!(inside[1].address(), Some([10, 0, 0, 1].into()));
        assert_eq!(value(read[3].value, 7), Some(&[1; 16][..]));
        assert_eq!(value(read[3].value, 6), None);
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_read_to_an_end(bytes: Vec<u8>) {
            let read: usize = Attributes(&bytes).map(|attribute| attribute.whole).sum();
            proptest::prop_assert!(read <= bytes.len());
        }
    }
}
