//! Canonical prefixes: host bits are always zero, so that equal networks are equal values. Pure. RFC 4271 §4.3 (NLRI).
//!
//! `Ipv4Prefix` takes 8 bytes and `Ipv6Prefix` 17 with alignment 1, since a RIB holds millions of them. Code that
//! serves both families is written once over [`PrefixKey`]; [`Prefix`] is for places that mix them.

use std::fmt;
use std::hash::Hash;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use crate::Family;

/// A canonical prefix of one address family. Order is by address, then by length (shorter first), so that a prefix
/// sorts directly before what it contains.
pub trait PrefixKey:
    Copy
    + Eq
    + Ord
    + Hash
    + fmt::Debug
    + fmt::Display
    + FromStr<Err = ParsePrefixError>
    + Into<Prefix>
    + Send
    + Sync
    + 'static
{
    /// The family of the prefix.
    const FAMILY: Family;
    /// The longest length in bits: 32 or 128.
    const MAX_LEN: u8;
    /// The address type of the family.
    type Addr: Copy + Eq + Ord + Hash + fmt::Debug + fmt::Display + Into<IpAddr>;
    /// An unsigned integer of the address's width, most significant bit first.
    type Bits: Copy + Eq + Ord + Hash + fmt::Debug;

    /// The prefix of this address and length, host bits cleared; `None` if the length exceeds [`Self::MAX_LEN`].
    fn new(address: Self::Addr, len: u8) -> Option<Self>;

    /// The same from address bits.
    fn from_bits(bits: Self::Bits, len: u8) -> Option<Self>;

    /// The network address.
    fn address(&self) -> Self::Addr;

    /// The network address as an integer.
    fn bits(&self) -> Self::Bits;

    /// The length in bits.
    fn prefix_len(&self) -> u8;

    /// Whether `other` lies within this prefix (a prefix contains itself).
    fn contains(&self, other: &Self) -> bool;

    /// Whether the address lies within this prefix.
    fn contains_address(&self, address: Self::Addr) -> bool;

    /// The prefix, if `prefix` is of this family.
    fn from_prefix(prefix: Prefix) -> Option<Self>;

    /// The significant octets: `ceil(len / 8)` of them, as the NLRI encoding wants them (RFC 4271 §4.3).
    fn write_octets(&self, out: &mut Vec<u8>);

    /// From the octets of an NLRI field, whose trailing bits do not matter (RFC 4271 §4.3).
    /// `None` if `len` exceeds the family or `octets` is not exactly `ceil(len / 8)` long.
    fn from_octets(len: u8, octets: &[u8]) -> Option<Self>;
}

/// An IPv4 prefix.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ipv4Prefix {
    bits: u32,
    len: u8,
}

/// An IPv6 prefix.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ipv6Prefix {
    octets: [u8; 16],
    len: u8,
}

const fn mask4(len: u8) -> u32 {
    if len == 0 { 0 } else { u32::MAX << (32 - len) }
}

const fn mask6(len: u8) -> u128 {
    if len == 0 { 0 } else { u128::MAX << (128 - len) }
}

impl Ipv4Prefix {
    /// 0.0.0.0/0.
    pub const DEFAULT: Ipv4Prefix = Ipv4Prefix { bits: 0, len: 0 };
}

impl Ipv6Prefix {
    /// ::/0.
    pub const DEFAULT: Ipv6Prefix = Ipv6Prefix { octets: [0; 16], len: 0 };
}

impl PrefixKey for Ipv4Prefix {
    const FAMILY: Family = Family::Ipv4Unicast;
    const MAX_LEN: u8 = 32;
    type Addr = Ipv4Addr;
    type Bits = u32;

    fn new(address: Ipv4Addr, len: u8) -> Option<Self> {
        Self::from_bits(address.to_bits(), len)
    }

    fn from_bits(bits: u32, len: u8) -> Option<Self> {
        (len <= 32).then(|| Ipv4Prefix { bits: bits & mask4(len), len })
    }

    fn address(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.bits)
    }

    fn bits(&self) -> u32 {
        self.bits
    }

    fn prefix_len(&self) -> u8 {
        self.len
    }

    fn contains(&self, other: &Self) -> bool {
        self.len <= other.len && other.bits & mask4(self.len) == self.bits
    }

    fn contains_address(&self, address: Ipv4Addr) -> bool {
        address.to_bits() & mask4(self.len) == self.bits
    }

    fn from_prefix(prefix: Prefix) -> Option<Self> {
        match prefix {
            Prefix::V4(prefix) => Some(prefix),
            Prefix::V6(_) => None,
        }
    }

    fn write_octets(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.bits.to_be_bytes()[..octets_of(self.len)]);
    }

    fn from_octets(len: u8, octets: &[u8]) -> Option<Self> {
        if len > 32 || octets.len() != octets_of(len) {
            return None;
        }
        let mut bytes = [0; 4];
        bytes[..octets.len()].copy_from_slice(octets);
        Some(Ipv4Prefix { bits: u32::from_be_bytes(bytes) & mask4(len), len })
    }
}

impl PrefixKey for Ipv6Prefix {
    const FAMILY: Family = Family::Ipv6Unicast;
    const MAX_LEN: u8 = 128;
    type Addr = Ipv6Addr;
    type Bits = u128;

    fn new(address: Ipv6Addr, len: u8) -> Option<Self> {
        Self::from_bits(address.to_bits(), len)
    }

    fn from_bits(bits: u128, len: u8) -> Option<Self> {
        (len <= 128).then(|| Ipv6Prefix { octets: (bits & mask6(len)).to_be_bytes(), len })
    }

    fn address(&self) -> Ipv6Addr {
        Ipv6Addr::from(self.octets)
    }

    fn bits(&self) -> u128 {
        u128::from_be_bytes(self.octets)
    }

    fn prefix_len(&self) -> u8 {
        self.len
    }

    fn contains(&self, other: &Self) -> bool {
        self.len <= other.len && other.bits() & mask6(self.len) == self.bits()
    }

    fn contains_address(&self, address: Ipv6Addr) -> bool {
        address.to_bits() & mask6(self.len) == self.bits()
    }

    fn from_prefix(prefix: Prefix) -> Option<Self> {
        match prefix {
            Prefix::V6(prefix) => Some(prefix),
            Prefix::V4(_) => None,
        }
    }

    fn write_octets(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.octets[..octets_of(self.len)]);
    }

    fn from_octets(len: u8, octets: &[u8]) -> Option<Self> {
        if len > 128 || octets.len() != octets_of(len) {
            return None;
        }
        let mut bytes = [0; 16];
        bytes[..octets.len()].copy_from_slice(octets);
        Self::from_bits(u128::from_be_bytes(bytes), len)
    }
}

/// How many octets a prefix of `len` bits takes on the wire, after its length octet.
pub(crate) const fn octets_of(len: u8) -> usize {
    (len as usize).div_ceil(8)
}

/// A prefix of either family; IPv4 sorts before IPv6.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Prefix {
    /// An IPv4 prefix.
    V4(Ipv4Prefix),
    /// An IPv6 prefix.
    V6(Ipv6Prefix),
}

impl Prefix {
    /// The prefix of this address and length, host bits cleared; `None` if the length exceeds the family.
    pub fn new(address: IpAddr, len: u8) -> Option<Self> {
        match address {
            IpAddr::V4(address) => Ipv4Prefix::new(address, len).map(Prefix::V4),
            IpAddr::V6(address) => Ipv6Prefix::new(address, len).map(Prefix::V6),
        }
    }

    /// The prefix of exactly this address: /32 or /128.
    pub fn host(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => Prefix::V4(Ipv4Prefix { bits: address.to_bits(), len: 32 }),
            IpAddr::V6(address) => Prefix::V6(Ipv6Prefix { octets: address.octets(), len: 128 }),
        }
    }

    /// The family.
    pub fn family(&self) -> Family {
        match self {
            Prefix::V4(_) => Family::Ipv4Unicast,
            Prefix::V6(_) => Family::Ipv6Unicast,
        }
    }

    /// The network address.
    pub fn address(&self) -> IpAddr {
        match self {
            Prefix::V4(prefix) => prefix.address().into(),
            Prefix::V6(prefix) => prefix.address().into(),
        }
    }

    /// The length in bits.
    pub fn prefix_len(&self) -> u8 {
        match self {
            Prefix::V4(prefix) => prefix.len,
            Prefix::V6(prefix) => prefix.len,
        }
    }

    /// Whether `other` lies within this prefix; never across families.
    pub fn contains(&self, other: &Prefix) -> bool {
        match (self, other) {
            (Prefix::V4(a), Prefix::V4(b)) => a.contains(b),
            (Prefix::V6(a), Prefix::V6(b)) => a.contains(b),
            _ => false,
        }
    }

    /// Whether the address lies within this prefix; never across families.
    pub fn contains_address(&self, address: IpAddr) -> bool {
        match (self, address) {
            (Prefix::V4(prefix), IpAddr::V4(address)) => prefix.contains_address(address),
            (Prefix::V6(prefix), IpAddr::V6(address)) => prefix.contains_address(address),
            _ => false,
        }
    }
}

impl From<Ipv4Prefix> for Prefix {
    fn from(prefix: Ipv4Prefix) -> Self {
        Prefix::V4(prefix)
    }
}

impl From<Ipv6Prefix> for Prefix {
    fn from(prefix: Ipv6Prefix) -> Self {
        Prefix::V6(prefix)
    }
}

impl fmt::Display for Ipv4Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address(), self.len)
    }
}

impl fmt::Display for Ipv6Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address(), self.len)
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Prefix::V4(prefix) => prefix.fmt(f),
            Prefix::V6(prefix) => prefix.fmt(f),
        }
    }
}

impl fmt::Debug for Ipv4Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Debug for Ipv6Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Debug for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is no prefix.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParsePrefixError {
    /// Not `ADDRESS/LENGTH` of the family asked for.
    #[error("not a prefix: {0:?}")]
    Malformed(String),
    /// Bits are set beyond the length, so that it is an address with a mask rather than a network.
    #[error("{text:?} has host bits set; the network is {network}")]
    HostBits {
        /// What was given.
        text: String,
        /// The network it lies in.
        network: Prefix,
    },
}

impl FromStr for Prefix {
    type Err = ParsePrefixError;

    /// Reads `10.0.0.0/8` or `2001:db8::/32`; host bits must be zero.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let (address, len) = text.split_once('/')?;
            let address: IpAddr = address.parse().ok()?;
            Some((address, Prefix::new(address, len.parse().ok()?)?))
        };
        match parse() {
            None => Err(ParsePrefixError::Malformed(text.to_owned())),
            Some((address, prefix)) if address == prefix.address() => Ok(prefix),
            Some((_, network)) => Err(ParsePrefixError::HostBits { text: text.to_owned(), network }),
        }
    }
}

fn parse_as<P: PrefixKey>(text: &str) -> Result<P, ParsePrefixError> {
    P::from_prefix(text.parse()?).ok_or_else(|| ParsePrefixError::Malformed(text.to_owned()))
}

impl FromStr for Ipv4Prefix {
    type Err = ParsePrefixError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse_as(text)
    }
}

impl FromStr for Ipv6Prefix {
    type Err = ParsePrefixError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse_as(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_stay_small() {
        assert_eq!(size_of::<Ipv4Prefix>(), 8);
        assert_eq!((size_of::<Ipv6Prefix>(), align_of::<Ipv6Prefix>()), (17, 1));
    }

    #[test]
    fn host_bits_are_cleared() {
        let prefix = Ipv4Prefix::new(Ipv4Addr::new(10, 1, 2, 3), 8).unwrap();
        assert_eq!(prefix.to_string(), "10.0.0.0/8");
        assert_eq!(Ipv4Prefix::new(Ipv4Addr::UNSPECIFIED, 33), None);
        let prefix = Ipv6Prefix::new("2001:db8:ffff::1".parse().unwrap(), 33).unwrap();
        assert_eq!(prefix.to_string(), "2001:db8:8000::/33");
        assert_eq!(Ipv6Prefix::new(Ipv6Addr::UNSPECIFIED, 129), None);
    }

    #[test]
    fn text_both_ways() {
        for text in ["0.0.0.0/0", "10.244.1.0/24", "192.0.2.1/32", "::/0", "2001:db8::/32", "::1/128"] {
            assert_eq!(text.parse::<Prefix>().unwrap().to_string(), text);
        }
        for text in ["10.0.0.0", "10.0.0.0/33", "10.0.0.0/-1", "::/129", "x/8", "10.0.0.0/8/8"] {
            assert!(matches!(text.parse::<Prefix>(), Err(ParsePrefixError::Malformed(_))), "{text}");
        }
        assert!(matches!("10.0.0.1/8".parse::<Prefix>(), Err(ParsePrefixError::HostBits { .. })));
        assert!("::/0".parse::<Ipv4Prefix>().is_err());
    }

    #[test]
    fn containment() {
        let p = |text: &str| text.parse::<Prefix>().unwrap();
        assert!(p("10.0.0.0/8").contains(&p("10.1.0.0/16")));
        assert!(p("10.0.0.0/8").contains(&p("10.0.0.0/8")));
        assert!(!p("10.1.0.0/16").contains(&p("10.0.0.0/8")));
        assert!(!p("0.0.0.0/0").contains(&p("::/0")));
        assert!(p("::/0").contains_address("2001:db8::1".parse().unwrap()));
        assert!(!p("2001:db8::/48").contains_address("2001:db8:1::".parse().unwrap()));
    }

    #[test]
    fn rfc4271_4_3_trailing_bits_do_not_matter() {
        assert_eq!(Ipv4Prefix::from_octets(9, &[10, 255]).unwrap().to_string(), "10.128.0.0/9");
        assert_eq!(Ipv4Prefix::from_octets(9, &[10]), None);
        assert_eq!(Ipv4Prefix::from_octets(8, &[10, 0]), None);
        assert_eq!(Ipv4Prefix::from_octets(0, &[]), Some(Ipv4Prefix::DEFAULT));
        let mut out = Vec::new();
        "2001:db8::/33".parse::<Ipv6Prefix>().unwrap().write_octets(&mut out);
        assert_eq!(out, [0x20, 0x01, 0x0d, 0xb8, 0]);
        assert_eq!(Ipv6Prefix::from_octets(33, &out).unwrap().to_string(), "2001:db8::/33");
    }
}
