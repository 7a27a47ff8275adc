//! The strongly typed strings that documents are made of: durations, CIDRs, addresses, AS numbers.
//!
//! Every type here is one string (or integer) in YAML and JSON, so that the CRD schemas stay structural. Pure.

use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use ipnetwork::{IpNetwork, Ipv4Network, Ipv6Network};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer};

/// Gives a type with `Display` and `FromStr<Err = String>` the serde and schema of a string with a pattern.
macro_rules! string_scalar {
    ($type:ident, $expecting:literal, $pattern:literal) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Text;
                impl Visitor<'_> for Text {
                    type Value = $type;
                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str($expecting)
                    }
                    fn visit_str<E: de::Error>(self, text: &str) -> Result<$type, E> {
                        text.parse().map_err(E::custom)
                    }
                }
                deserializer.deserialize_str(Text)
            }
        }

        impl JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                stringify!($type).into()
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({"type": "string", "pattern": $pattern})
            }
        }
    };
}
pub(super) use string_scalar;

/// A length of time as text: `90s`, `5m`, `300ms`, `1h30m`, `1.5s`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TimeSpan(pub Duration);

impl TimeSpan {
    /// Longest length of time a document may name: 30 days.
    pub const MAX: Duration = Duration::from_secs(30 * 24 * 3600);

    /// So many whole seconds.
    pub const fn from_secs(secs: u64) -> Self {
        TimeSpan(Duration::from_secs(secs))
    }
}

impl fmt::Display for TimeSpan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (secs, millis) = (self.0.as_secs(), self.0.subsec_millis());
        let (hours, minutes, rest) = (secs / 3600, secs / 60 % 60, secs % 60);
        if hours > 0 && minutes == 0 && rest == 0 && millis == 0 {
            return write!(f, "{hours}h");
        }
        if secs >= 300 && rest == 0 && millis == 0 {
            return write!(f, "{}m", secs / 60);
        }
        match (secs, millis) {
            (_, 0) => write!(f, "{secs}s"),
            (0, _) => write!(f, "{millis}ms"),
            _ => write!(f, "{secs}.{millis:03}s"),
        }
    }
}

impl FromStr for TimeSpan {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("`{text}` is not a duration: write it like 90s, 5m, 300ms or 1h30m");
        let mut total = Duration::ZERO;
        let mut rest = text;
        if text.is_empty() || text.len() > 32 {
            return Err(bad());
        }
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(bad)?;
            let unit_end =
                rest[digits..].find(|c: char| !c.is_ascii_lowercase()).map_or(rest.len(), |n| digits + n);
            let (whole, fraction) = rest[..digits].split_once('.').unwrap_or((&rest[..digits], ""));
            if whole.is_empty() || (rest[..digits].contains('.') && fraction.is_empty()) || fraction.len() > 9
            {
                return Err(bad());
            }
            let nanos_of_unit: u64 = match &rest[digits..unit_end] {
                "ms" => 1_000_000,
                "s" => 1_000_000_000,
                "m" => 60_000_000_000,
                "h" => 3_600_000_000_000,
                _ => return Err(bad()),
            };
            let too_long = || format!("`{text}` is longer than the longest duration allowed, 720h");
            let whole: u64 = whole.parse().map_err(|_| too_long())?;
            let mut part = whole.checked_mul(nanos_of_unit).ok_or_else(too_long)?;
            let mut scale = nanos_of_unit;
            for digit in fraction.bytes() {
                if !digit.is_ascii_digit() {
                    return Err(bad());
                }
                scale /= 10;
                part = part.checked_add(u64::from(digit - b'0') * scale).ok_or_else(too_long)?;
            }
            total = total.checked_add(Duration::from_nanos(part)).ok_or_else(too_long)?;
            if total > Self::MAX {
                return Err(too_long());
            }
            rest = &rest[unit_end..];
        }
        Ok(TimeSpan(total))
    }
}

string_scalar!(TimeSpan, "a duration such as \"90s\"", r"^([0-9]+(\.[0-9]{1,9})?(ms|s|m|h))+$");

/// A prefix in CIDR notation whose host bits are zero: `10.244.0.0/16`, `fd00::/48`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cidr(pub IpNetwork);

impl Cidr {
    /// True for an IPv4 prefix.
    pub fn is_ipv4(self) -> bool {
        self.0.is_ipv4()
    }

    /// Length of the prefix in bits.
    pub fn length(self) -> u8 {
        self.0.prefix()
    }

    /// True for `0.0.0.0/0` and `::/0`.
    pub fn is_default(self) -> bool {
        self.0.prefix() == 0
    }

    /// True where every address of `other` is an address of this prefix.
    pub fn covers(self, other: Cidr) -> bool {
        match (self.0, other.0) {
            (IpNetwork::V4(a), IpNetwork::V4(b)) => a.prefix() <= b.prefix() && a.contains(b.network()),
            (IpNetwork::V6(a), IpNetwork::V6(b)) => a.prefix() <= b.prefix() && a.contains(b.network()),
            _ => false,
        }
    }

    /// True where the two have an address in common.
    pub fn overlaps(self, other: Cidr) -> bool {
        self.covers(other) || other.covers(self)
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Parses `address/length`, the length being required.
fn parse_network(text: &str) -> Result<IpNetwork, String> {
    if !text.contains('/') {
        return Err(format!("`{text}` is not a prefix: write it as ADDRESS/LENGTH"));
    }
    let (address, length) = text.split_once('/').unwrap_or((text, ""));
    if length.is_empty() || length.len() > 3 || !length.bytes().all(|b| b.is_ascii_digit()) {
        return Err(format!("`{text}` is not a prefix: the length after the slash must be a number"));
    }
    let address: IpAddr =
        address.parse().map_err(|_| format!("`{text}` is not a prefix: `{address}` is no IP address"))?;
    let max = if address.is_ipv4() { 32 } else { 128 };
    let length: u8 = length
        .parse()
        .ok()
        .filter(|length| *length <= max)
        .ok_or_else(|| format!("`{text}` is not a prefix: the length may be at most {max}"))?;
    IpNetwork::new(address, length).map_err(|error| format!("`{text}` is not a prefix: {error}"))
}

impl FromStr for Cidr {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let network = parse_network(text)?;
        if network.network() != network.ip() {
            return Err(format!(
                "`{text}` has host bits set: did you mean {}/{}?",
                network.network(),
                network.prefix()
            ));
        }
        Ok(Cidr(network))
    }
}

string_scalar!(Cidr, "a prefix such as \"10.244.0.0/16\"", r"^[0-9a-fA-F:.]+/[0-9]{1,3}$");

/// An IPv4 address of a node with the length of its subnet: `192.0.2.11/24`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct InterfaceV4(pub Ipv4Network);

impl fmt::Display for InterfaceV4 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for InterfaceV4 {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let IpNetwork::V4(network) = parse_network(text)? else {
            return Err(format!("`{text}` is not an IPv4 address with its prefix length"));
        };
        let ip = network.ip();
        if ip.is_unspecified() || ip.is_multicast() || ip.is_broadcast() {
            return Err(format!("`{text}` cannot be the address of a node"));
        }
        if network.prefix() < 31 && (ip == network.network() || ip == network.broadcast()) {
            return Err(format!("`{text}` is the network or broadcast address of its subnet, not a host's"));
        }
        Ok(InterfaceV4(network))
    }
}

string_scalar!(InterfaceV4, "an address such as \"192.0.2.11/24\"", r"^[0-9.]+/[0-9]{1,2}$");

/// An IPv6 address of a node with the length of its subnet: `2001:db8:a::11/64`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct InterfaceV6(pub Ipv6Network);

impl fmt::Display for InterfaceV6 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for InterfaceV6 {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let IpNetwork::V6(network) = parse_network(text)? else {
            return Err(format!("`{text}` is not an IPv6 address with its prefix length"));
        };
        let ip = network.ip();
        if ip.is_unspecified() || ip.is_multicast() || ip.is_unicast_link_local() {
            return Err(format!("`{text}` cannot be the address of a node"));
        }
        Ok(InterfaceV6(network))
    }
}

string_scalar!(InterfaceV6, "an address such as \"2001:db8::11/64\"", r"^[0-9a-fA-F:.]+/[0-9]{1,3}$");

/// An IP address without prefix length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address(pub IpAddr);

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.parse().map(Address).map_err(|_| format!("`{text}` is not an IP address"))
    }
}

string_scalar!(Address, "an IP address", r"^[0-9a-fA-F:.]+$");

/// A four-octet identifier written as an IPv4 address: router id, cluster id. Never 0.0.0.0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identifier(pub Ipv4Addr);

impl fmt::Display for Identifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Identifier {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let id: Ipv4Addr = text
            .parse()
            .map_err(|_| format!("`{text}` is not an identifier: write four octets, such as 192.0.2.11"))?;
        if id.is_unspecified() {
            return Err("the identifier 0.0.0.0 is not allowed".to_owned());
        }
        Ok(Identifier(id))
    }
}

string_scalar!(Identifier, "an identifier such as \"192.0.2.11\"", r"^[0-9]{1,3}(\.[0-9]{1,3}){3}$");

/// The remote end of a session: `192.0.2.1`, `192.0.2.1:1790`, `2001:db8::1`, `[2001:db8::1]:1790`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerAddress {
    /// Address of the peer.
    pub ip: IpAddr,
    /// Its TCP port where it is written.
    pub port: Option<u16>,
}

impl fmt::Display for PeerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Some(port) => SocketAddr::new(self.ip, port).fmt(f),
            None => self.ip.fmt(f),
        }
    }
}

impl FromStr for PeerAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("`{text}` is not a peer address: write IP, IP:PORT or [IPV6]:PORT");
        let peer = if let Ok(ip) = text.parse::<IpAddr>() {
            PeerAddress { ip, port: None }
        } else if let Some(ip) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            PeerAddress { ip: IpAddr::V6(ip.parse::<Ipv6Addr>().map_err(|_| bad())?), port: None }
        } else {
            let socket: SocketAddr = text.parse().map_err(|_| bad())?;
            if socket.port() == 0 {
                return Err(format!("`{text}`: port 0 is not allowed"));
            }
            if matches!(socket, SocketAddr::V6(v6) if v6.scope_id() != 0) {
                return Err(format!("`{text}`: a zone index is not allowed"));
            }
            PeerAddress { ip: socket.ip(), port: Some(socket.port()) }
        };
        let usable = match peer.ip {
            IpAddr::V4(ip) => !ip.is_unspecified() && !ip.is_multicast() && !ip.is_broadcast(),
            IpAddr::V6(ip) => {
                !ip.is_unspecified()
                    && !ip.is_multicast()
                    && !ip.is_unicast_link_local()
                    && ip.to_ipv4_mapped().is_none()
            }
        };
        if !usable {
            return Err(format!("`{text}` cannot be the address of a peer"));
        }
        Ok(peer)
    }
}

string_scalar!(
    PeerAddress,
    "a peer address such as \"192.0.2.1\" or \"[2001:db8::1]:1790\"",
    r"^[0-9a-fA-F:.\[\]]{2,64}$"
);

/// The AS number a peer must have: a number, or `internal` / `external` for ranges and interfaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PeerAsn {
    /// This number.
    Number(u32),
    /// Our own AS.
    Internal,
    /// Any AS but our own.
    External,
}

impl fmt::Display for PeerAsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PeerAsn::Number(number) => number.fmt(f),
            PeerAsn::Internal => f.write_str("internal"),
            PeerAsn::External => f.write_str("external"),
        }
    }
}

impl Serialize for PeerAsn {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            PeerAsn::Number(number) => serializer.serialize_u32(*number),
            other => serializer.collect_str(other),
        }
    }
}

impl<'de> Deserialize<'de> for PeerAsn {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NumberOrWord;
        impl Visitor<'_> for NumberOrWord {
            type Value = PeerAsn;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an AS number (1 to 4294967295), `internal` or `external`")
            }
            fn visit_u64<E: de::Error>(self, number: u64) -> Result<PeerAsn, E> {
                let unexpected = || E::invalid_value(de::Unexpected::Unsigned(number), &self);
                u32::try_from(number).map(PeerAsn::Number).map_err(|_| unexpected())
            }
            fn visit_i64<E: de::Error>(self, number: i64) -> Result<PeerAsn, E> {
                let unexpected = || E::invalid_value(de::Unexpected::Signed(number), &self);
                u32::try_from(number).map(PeerAsn::Number).map_err(|_| unexpected())
            }
            fn visit_str<E: de::Error>(self, word: &str) -> Result<PeerAsn, E> {
                match word {
                    "internal" => Ok(PeerAsn::Internal),
                    "external" => Ok(PeerAsn::External),
                    _ => word
                        .parse()
                        .map(PeerAsn::Number)
                        .map_err(|_| E::invalid_value(de::Unexpected::Str(word), &self)),
                }
            }
        }
        deserializer.deserialize_any(NumberOrWord)
    }
}

impl JsonSchema for PeerAsn {
    fn schema_name() -> Cow<'static, str> {
        "PeerAsn".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "x-kubernetes-int-or-string": true,
            "anyOf": [{"type": "integer"}, {"type": "string"}],
            "pattern": "^([0-9]{1,10}|internal|external)$",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_parse_and_render() {
        for (text, millis, back) in [
            ("90s", 90_000, "90s"),
            ("5m", 300_000, "5m"),
            ("300ms", 300, "300ms"),
            ("1h30m", 5_400_000, "90m"),
            ("1.5s", 1_500, "1.500s"),
            ("0s", 0, "0s"),
            ("2h", 7_200_000, "2h"),
        ] {
            let span: TimeSpan = text.parse().unwrap();
            assert_eq!(span.0, Duration::from_millis(millis), "{text}");
            assert_eq!(span.to_string(), back);
            assert_eq!(back.parse::<TimeSpan>().unwrap(), span);
        }
        for text in
            ["", "90", "s", "-1s", "1d", "1.s", ".5s", "9999999999999999999h", "721h", "1s ", "1..5s", "1é"]
        {
            assert!(text.parse::<TimeSpan>().is_err(), "{text}");
        }
    }

    #[test]
    fn cidrs_must_be_masked_and_have_a_length() {
        assert!("10.244.0.0/16".parse::<Cidr>().is_ok());
        assert!("fd00::/48".parse::<Cidr>().is_ok());
        let error = "10.244.1.0/16".parse::<Cidr>().unwrap_err();
        assert!(error.contains("did you mean 10.244.0.0/16"), "{error}");
        for text in
            ["10.0.0.0", "10.0.0.0/33", "::/129", "10.0.0.0/+8", "x/8", "10.0.0.0/", "10.0.0.0/255.0.0.0"]
        {
            assert!(text.parse::<Cidr>().is_err(), "{text}");
        }
    }

    #[test]
    fn covering_and_overlap() {
        let cidr = |text: &str| text.parse::<Cidr>().unwrap();
        assert!(cidr("10.0.0.0/8").covers(cidr("10.1.0.0/16")));
        assert!(!cidr("10.1.0.0/16").covers(cidr("10.0.0.0/8")));
        assert!(cidr("10.1.0.0/16").overlaps(cidr("10.0.0.0/8")));
        assert!(!cidr("10.1.0.0/16").overlaps(cidr("10.2.0.0/16")));
        assert!(!cidr("0.0.0.0/0").covers(cidr("::/0")));
    }

    #[test]
    fn peer_addresses() {
        let peer = |text: &str| text.parse::<PeerAddress>();
        assert_eq!(peer("192.0.2.1").unwrap().port, None);
        assert_eq!(peer("192.0.2.1:1790").unwrap().port, Some(1790));
        assert_eq!(peer("2001:db8::1").unwrap().port, None);
        assert_eq!(peer("[2001:db8::1]").unwrap().port, None);
        assert_eq!(peer("[2001:db8::1]:1790").unwrap().to_string(), "[2001:db8::1]:1790");
        for text in [
            "0.0.0.0",
            "192.0.2.1:0",
            "224.0.0.1",
            "fe80::1",
            "[fe80::1%3]:179",
            "::",
            "x",
            "192.0.2.1:70000",
        ] {
            assert!(peer(text).is_err(), "{text}");
        }
    }

    #[test]
    fn node_addresses() {
        assert!("192.0.2.11/24".parse::<InterfaceV4>().is_ok());
        assert!("192.0.2.11/32".parse::<InterfaceV4>().is_ok());
        assert!("192.0.2.0/31".parse::<InterfaceV4>().is_ok());
        for text in ["192.0.2.0/24", "192.0.2.255/24", "0.0.0.0/0", "192.0.2.1", "2001:db8::1/64"] {
            assert!(text.parse::<InterfaceV4>().is_err(), "{text}");
        }
        assert!("2001:db8::11/64".parse::<InterfaceV6>().is_ok());
        assert!("fe80::1/64".parse::<InterfaceV6>().is_err());
    }
}
