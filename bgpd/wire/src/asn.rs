//! Autonomous system numbers. Pure. RFC 6793 (four octets), RFC 5396 (text), RFC 7607 (zero).

use std::fmt;
use std::str::FromStr;

/// A four-octet autonomous system number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Asn(pub u32);

impl Asn {
    /// AS_TRANS (RFC 6793 §9): stands for a number that two octets cannot hold.
    pub const TRANS: Asn = Asn(23456);

    /// Whether two octets hold this number.
    pub const fn is_two_octet(self) -> bool {
        self.0 <= 0xffff
    }

    /// The number as a two-octet peer sees it: itself, or AS_TRANS.
    pub const fn to_two_octet(self) -> u16 {
        if self.is_two_octet() { self.0 as u16 } else { Asn::TRANS.0 as u16 }
    }

    /// Whether the number is reserved for private use (RFC 6996).
    pub const fn is_private(self) -> bool {
        matches!(self.0, 64512..=65534 | 4_200_000_000..=4_294_967_294)
    }
}

impl From<u32> for Asn {
    fn from(number: u32) -> Self {
        Asn(number)
    }
}

impl fmt::Display for Asn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The text is no AS number.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an AS number: {0:?}")]
pub struct ParseAsnError(String);

impl FromStr for Asn {
    type Err = ParseAsnError;

    /// Reads `4259840010` (asplain) and `65000.10` (asdot).
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || ParseAsnError(text.to_owned());
        match text.split_once('.') {
            None => text.parse().map(Asn).map_err(|_| error()),
            Some((high, low)) => {
                let high: u16 = high.parse().map_err(|_| error())?;
                let low: u16 = low.parse().map_err(|_| error())?;
                Ok(Asn(u32::from(high) << 16 | u32::from(low)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc5396_both_notations() {
        assert_eq!("65000.10".parse::<Asn>().unwrap(), Asn(65000 << 16 | 10));
        assert_eq!("4200000000".parse::<Asn>().unwrap(), Asn(4_200_000_000));
        assert!("65536.1".parse::<Asn>().is_err());
        assert!("".parse::<Asn>().is_err());
        assert!("4294967296".parse::<Asn>().is_err());
    }

    #[test]
    fn rfc6793_two_octet_mapping() {
        assert_eq!(Asn(65535).to_two_octet(), 65535);
        assert_eq!(Asn(65536).to_two_octet(), 23456);
    }
}
