//! Communities as values and as text. Pure. RFC 1997, RFC 4360 (extended), RFC 8092 (large), RFC 9012 §4.1.

use std::fmt;
use std::str::FromStr;

/// A standard community (RFC 1997).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Community(pub u32);

impl Community {
    /// GRACEFUL_SHUTDOWN (RFC 8326).
    pub const GRACEFUL_SHUTDOWN: Community = Community(0xffff_0000);
    /// BLACKHOLE (RFC 7999).
    pub const BLACKHOLE: Community = Community(0xffff_029a);
    /// NO_EXPORT: not beyond this AS or confederation (RFC 1997).
    pub const NO_EXPORT: Community = Community(0xffff_ff01);
    /// NO_ADVERTISE: to no peer at all (RFC 1997).
    pub const NO_ADVERTISE: Community = Community(0xffff_ff02);
    /// NO_EXPORT_SUBCONFED: to no external peer, members of the confederation included (RFC 1997).
    pub const NO_EXPORT_SUBCONFED: Community = Community(0xffff_ff03);

    /// From its two halves, as `high:low` is written.
    pub const fn new(high: u16, low: u16) -> Self {
        Community((high as u32) << 16 | low as u32)
    }
}

impl fmt::Display for Community {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.0 >> 16, self.0 & 0xffff)
    }
}

/// An extended community (RFC 4360): type, subtype and value as they are on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ExtCommunity(pub [u8; 8]);

impl ExtCommunity {
    /// Whether it may cross an AS border (RFC 4360 §2: the T bit is clear).
    pub const fn is_transitive(self) -> bool {
        self.0[0] & 0x40 == 0
    }

    /// Whether it asks for a tunnel: the Encapsulation extended community (RFC 9012 §4.1).
    pub const fn is_encapsulation(self) -> bool {
        matches!(self.0, [0x03, 0x0c, ..])
    }

    /// The bandwidth in bytes a second that a link bandwidth community says (draft-ietf-idr-link-bandwidth), where it
    /// says one that flows can be shared by.
    pub fn link_bandwidth(self) -> Option<f32> {
        let [0x00 | 0x40, 0x04, _, _, value @ ..] = self.0 else { return None };
        let bandwidth = f32::from_be_bytes(value);
        (bandwidth.is_finite() && bandwidth > 0.0).then_some(bandwidth)
    }
}

impl fmt::Display for ExtCommunity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("0x")?;
        self.0.iter().try_for_each(|octet| write!(f, "{octet:02x}"))
    }
}

/// A large community (RFC 8092).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LargeCommunity {
    /// Global administrator: an AS number.
    pub global: u32,
    /// First part, defined by that AS.
    pub local1: u32,
    /// Second part, defined by that AS.
    pub local2: u32,
}

impl fmt::Display for LargeCommunity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.global, self.local1, self.local2)
    }
}

/// The text is no community of the kind asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a {kind}: {text:?}")]
pub struct ParseCommunityError {
    kind: &'static str,
    text: String,
}

fn parts<T: FromStr, const N: usize>(text: &str, kind: &'static str) -> Result<[T; N], ParseCommunityError> {
    let numbers: Option<Vec<T>> = text
        .split(':')
        // "+1" parses as a number, but is no way to write one here.
        .map(|part| part.bytes().all(|b| b.is_ascii_digit()).then(|| part.parse().ok()).flatten())
        .collect();
    numbers
        .and_then(|numbers| <[T; N]>::try_from(numbers).ok())
        .ok_or_else(|| ParseCommunityError { kind, text: text.to_owned() })
}

impl FromStr for Community {
    type Err = ParseCommunityError;

    /// Reads `64512:100`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let [high, low] = parts(text, "community")?;
        Ok(Community::new(high, low))
    }
}

impl FromStr for LargeCommunity {
    type Err = ParseCommunityError;

    /// Reads `64512:1:2`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let [global, local1, local2] = parts(text, "large community")?;
        Ok(LargeCommunity { global, local1, local2 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_both_ways() {
        assert_eq!("64512:100".parse::<Community>().unwrap(), Community(0xfc00_0064));
        assert_eq!(Community::NO_EXPORT.to_string(), "65535:65281");
        let large: LargeCommunity = "4200000000:1:2".parse().unwrap();
        assert_eq!(large, LargeCommunity { global: 4_200_000_000, local1: 1, local2: 2 });
        assert_eq!(large.to_string(), "4200000000:1:2");
        for text in ["", "1", "1:2:3", "65536:1", "1:-1", "+1:2", "a:b", ":"] {
            assert!(text.parse::<Community>().is_err(), "{text}");
        }
        assert!("1:2".parse::<LargeCommunity>().is_err());
    }

    #[test]
    fn link_bandwidth_is_a_positive_number() {
        let community = |kind, bandwidth: f32| {
            let [a, b, c, d] = bandwidth.to_be_bytes();
            ExtCommunity([kind, 4, 0xfc, 0, a, b, c, d]).link_bandwidth()
        };
        assert_eq!(community(0x40, 1.25e9), Some(1.25e9));
        assert_eq!(community(0x00, 125e6), Some(125e6));
        assert_eq!(community(0x02, 125e6), None);
        for nothing in [0.0, -1.0, f32::NAN, f32::INFINITY] {
            assert_eq!(community(0x40, nothing), None);
        }
    }

    #[test]
    fn rfc4360_2_transitive_bit() {
        assert!(ExtCommunity([0, 2, 0, 0, 0, 0, 0, 1]).is_transitive());
        assert!(!ExtCommunity([0x40, 4, 0, 0, 0, 0, 0, 1]).is_transitive());
        assert_eq!(ExtCommunity([0x40, 4, 0, 0, 0, 0, 0, 1]).to_string(), "0x4004000000000001");
    }
}
