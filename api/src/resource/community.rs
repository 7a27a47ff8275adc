//! BGP communities as text. Pure.
//!
//! RFC 1997 (standard), RFC 8092 (large); well-known names of RFC 1997, RFC 3765, RFC 7999 and RFC 8326.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer};

use super::scalar::string_scalar;

/// A BGP community: standard (`64512:100`, or a well-known name such as `no-export`) or large (`64512:1:2`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Community {
    /// RFC 1997.
    Standard(u32),
    /// RFC 8092.
    Large([u32; 3]),
}

/// The well-known communities that have a name here (IANA registry of RFC 1997 communities).
const WELL_KNOWN: [(&str, u32); 6] = [
    ("no-export", 0xFFFF_FF01),
    ("no-advertise", 0xFFFF_FF02),
    ("no-export-subconfed", 0xFFFF_FF03),
    ("no-peer", 0xFFFF_FF04),
    ("blackhole", 0xFFFF_029A),
    ("graceful-shutdown", 0xFFFF_0000),
];

impl fmt::Display for Community {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Community::Standard(value) => match WELL_KNOWN.iter().find(|(_, known)| known == value) {
                Some((name, _)) => f.write_str(name),
                None => write!(f, "{}:{}", value >> 16, value & 0xFFFF),
            },
            Community::Large([global, one, two]) => write!(f, "{global}:{one}:{two}"),
        }
    }
}

impl FromStr for Community {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let name = text.to_ascii_lowercase().replace('_', "-");
        if let Some((_, value)) = WELL_KNOWN.iter().find(|(known, _)| *known == name) {
            return Ok(Community::Standard(*value));
        }
        let bad = || {
            format!(
                "`{text}` is not a community: write ASN:VALUE (each up to 65535), \
                 GLOBAL:LOCAL1:LOCAL2 (each up to 4294967295), or a name such as no-export"
            )
        };
        let number = |part: &str| -> Result<u32, String> {
            if part.is_empty() || !part.bytes().all(|b| b.is_ascii_digit()) {
                return Err(bad());
            }
            part.parse().map_err(|_| bad())
        };
        let parts: Vec<&str> = text.split(':').take(4).collect();
        match parts.as_slice() {
            [high, low] => {
                let (high, low) = (number(high)?, number(low)?);
                if high > 0xFFFF || low > 0xFFFF {
                    return Err(bad());
                }
                Ok(Community::Standard(high << 16 | low))
            }
            [global, one, two] => Ok(Community::Large([number(global)?, number(one)?, number(two)?])),
            _ => Err(bad()),
        }
    }
}

string_scalar!(
    Community,
    "a community such as \"64512:100\"",
    r"^([0-9]{1,10}(:[0-9]{1,10}){1,2}|[A-Za-z][A-Za-z_-]{1,30})$"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn communities() {
        let parse = |text: &str| text.parse::<Community>();
        assert_eq!(parse("64512:100").unwrap(), Community::Standard(64512 << 16 | 100));
        assert_eq!(parse("4200000000:1:2").unwrap(), Community::Large([4_200_000_000, 1, 2]));
        assert_eq!(parse("no-export").unwrap(), Community::Standard(0xFFFF_FF01));
        assert_eq!(parse("NO_ADVERTISE").unwrap(), Community::Standard(0xFFFF_FF02));
        for text in ["65536:1", "1:65536", "1", "1:2:3:4", "a:b", ":", "1:", "+1:2", "4294967296:1:1"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
