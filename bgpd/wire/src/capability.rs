//! Capabilities of the OPEN message. Pure. RFC 5492; the values: RFC 4760 (1), RFC 2918 (2), RFC 8950 (5), RFC 8654
//! (6), RFC 9234 (9), RFC 4724 and RFC 8538 (64), RFC 6793 (65), RFC 7911 (69), RFC 7313 (70), FQDN (73, an Internet
//! draft that FRR implements).

use std::fmt;

use crate::{AfiSafi, Asn, Cursor};

/// One capability.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Capability {
    /// Multiprotocol Extensions for one address family (1).
    Multiprotocol(AfiSafi),
    /// Route Refresh (2).
    RouteRefresh,
    /// Extended Next Hop Encoding (5): families whose next hop may be of another address family.
    ExtendedNextHop(Vec<ExtendedNextHop>),
    /// Extended Message (6): messages of up to 65,535 octets.
    ExtendedMessage,
    /// BGP Role (9), the raw value.
    Role(u8),
    /// Graceful Restart (64).
    GracefulRestart(GracefulRestart),
    /// Four-octet AS number (65): the speaker's own.
    FourOctetAs(Asn),
    /// ADD-PATH (69).
    AddPath(Vec<AddPath>),
    /// Enhanced Route Refresh (70).
    EnhancedRouteRefresh,
    /// Host and domain name (73), for people.
    Fqdn {
        /// Host name.
        host: String,
        /// Domain name; often empty.
        domain: String,
    },
    /// Any other.
    Unknown {
        /// Capability code.
        code: u8,
        /// Capability value.
        value: Vec<u8>,
    },
}

/// An entry of the Extended Next Hop Encoding capability (RFC 8950 §4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ExtendedNextHop {
    /// The family of the prefixes. Its SAFI takes two octets on the wire; only the low one is kept.
    pub family: AfiSafi,
    /// The AFI of the next hop.
    pub next_hop_afi: u16,
}

/// The Graceful Restart capability (RFC 4724 §3).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct GracefulRestart {
    /// The R bit: the speaker has restarted, do not wait for its End-of-RIB.
    pub restart_state: bool,
    /// The N bit (RFC 8538): NOTIFICATION and hold timer expiry restart gracefully as well.
    pub notification: bool,
    /// Seconds until the session is expected back after a restart: 12 bits.
    pub restart_time: u16,
    /// Per family, whether forwarding state was preserved (the F bit).
    pub families: Vec<(AfiSafi, bool)>,
}

/// An entry of the ADD-PATH capability (RFC 7911 §4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AddPath {
    /// The family.
    pub family: AfiSafi,
    /// The sender of the capability can receive several paths.
    pub receive: bool,
    /// The sender of the capability can send several paths.
    pub send: bool,
}

/// Capability codes (IANA).
pub mod code {
    /// Multiprotocol Extensions.
    pub const MULTIPROTOCOL: u8 = 1;
    /// Route Refresh.
    pub const ROUTE_REFRESH: u8 = 2;
    /// Extended Next Hop Encoding.
    pub const EXTENDED_NEXT_HOP: u8 = 5;
    /// Extended Message.
    pub const EXTENDED_MESSAGE: u8 = 6;
    /// BGP Role.
    pub const ROLE: u8 = 9;
    /// Graceful Restart.
    pub const GRACEFUL_RESTART: u8 = 64;
    /// Four-octet AS number.
    pub const FOUR_OCTET_AS: u8 = 65;
    /// ADD-PATH.
    pub const ADD_PATH: u8 = 69;
    /// Enhanced Route Refresh.
    pub const ENHANCED_ROUTE_REFRESH: u8 = 70;
    /// Host and domain name.
    pub const FQDN: u8 = 73;
}

impl Capability {
    /// The capability's code.
    pub fn code(&self) -> u8 {
        match self {
            Capability::Multiprotocol(_) => code::MULTIPROTOCOL,
            Capability::RouteRefresh => code::ROUTE_REFRESH,
            Capability::ExtendedNextHop(_) => code::EXTENDED_NEXT_HOP,
            Capability::ExtendedMessage => code::EXTENDED_MESSAGE,
            Capability::Role(_) => code::ROLE,
            Capability::GracefulRestart(_) => code::GRACEFUL_RESTART,
            Capability::FourOctetAs(_) => code::FOUR_OCTET_AS,
            Capability::AddPath(_) => code::ADD_PATH,
            Capability::EnhancedRouteRefresh => code::ENHANCED_ROUTE_REFRESH,
            Capability::Fqdn { .. } => code::FQDN,
            Capability::Unknown { code, .. } => *code,
        }
    }

    /// Reads the value of the capability `code`. `None` if its length or content is wrong for that code; the name
    /// for people (FQDN) and codes this speaker does not know are never wrong.
    pub(crate) fn decode(code: u8, value: &[u8]) -> Option<Self> {
        let mut cursor = Cursor::new(value);
        let capability = match code {
            code::MULTIPROTOCOL => {
                let afi = cursor.u16()?;
                let _reserved = cursor.u8()?;
                Capability::Multiprotocol(AfiSafi { afi, safi: cursor.u8()? })
            }
            code::ROUTE_REFRESH => Capability::RouteRefresh,
            code::EXTENDED_NEXT_HOP => Capability::ExtendedNextHop(until_empty(&mut cursor, |cursor| {
                let [a, b, _, safi, c, d] = cursor.array()?;
                let family = AfiSafi { afi: u16::from_be_bytes([a, b]), safi };
                Some(ExtendedNextHop { family, next_hop_afi: u16::from_be_bytes([c, d]) })
            })?),
            code::EXTENDED_MESSAGE => Capability::ExtendedMessage,
            code::ROLE => Capability::Role(cursor.u8()?),
            code::GRACEFUL_RESTART => {
                let flags_and_time = cursor.u16()?;
                let families = until_empty(&mut cursor, |cursor| {
                    let [a, b, safi, flags] = cursor.array()?;
                    Some((AfiSafi { afi: u16::from_be_bytes([a, b]), safi }, flags & 0x80 != 0))
                })?;
                Capability::GracefulRestart(GracefulRestart {
                    restart_state: flags_and_time & 0x8000 != 0,
                    notification: flags_and_time & 0x4000 != 0,
                    restart_time: flags_and_time & 0x0fff,
                    families,
                })
            }
            code::FOUR_OCTET_AS => Capability::FourOctetAs(Asn(cursor.u32()?)),
            code::ADD_PATH => Capability::AddPath(until_empty(&mut cursor, |cursor| {
                let [a, b, safi, direction] = cursor.array()?;
                let family = AfiSafi { afi: u16::from_be_bytes([a, b]), safi };
                // A direction outside 1..=3 makes the entry one to ignore (RFC 7911 §4).
                let known = (1..=3).contains(&direction);
                Some(AddPath {
                    family,
                    receive: known && direction & 1 != 0,
                    send: known && direction & 2 != 0,
                })
            })?),
            code::ENHANCED_ROUTE_REFRESH => Capability::EnhancedRouteRefresh,
            code::FQDN => return Some(decode_fqdn(value)),
            _ => return Some(Capability::Unknown { code, value: value.to_vec() }),
        };
        cursor.is_empty().then_some(capability)
    }

    /// Appends code, length and value. Lists that exceed the 255 octets of a capability are cut at an entry.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&[self.code(), 0]);
        let start = out.len();
        match self {
            Capability::Multiprotocol(AfiSafi { afi, safi }) => {
                out.extend_from_slice(&afi.to_be_bytes());
                out.extend_from_slice(&[0, *safi]);
            }
            Capability::RouteRefresh | Capability::ExtendedMessage | Capability::EnhancedRouteRefresh => {}
            Capability::ExtendedNextHop(entries) => {
                for ExtendedNextHop { family, next_hop_afi } in entries.iter().take(255 / 6) {
                    out.extend_from_slice(&family.afi.to_be_bytes());
                    out.extend_from_slice(&[0, family.safi]);
                    out.extend_from_slice(&next_hop_afi.to_be_bytes());
                }
            }
            Capability::Role(role) => out.push(*role),
            Capability::GracefulRestart(graceful) => {
                let flags = u16::from(graceful.restart_state) << 15 | u16::from(graceful.notification) << 14;
                out.extend_from_slice(&(flags | graceful.restart_time.min(0x0fff)).to_be_bytes());
                for (family, forwarding) in graceful.families.iter().take(253 / 4) {
                    out.extend_from_slice(&family.afi.to_be_bytes());
                    out.extend_from_slice(&[family.safi, u8::from(*forwarding) << 7]);
                }
            }
            Capability::FourOctetAs(asn) => out.extend_from_slice(&asn.0.to_be_bytes()),
            Capability::AddPath(entries) => {
                for AddPath { family, receive, send } in entries.iter().take(255 / 4) {
                    out.extend_from_slice(&family.afi.to_be_bytes());
                    out.extend_from_slice(&[family.safi, u8::from(*receive) | u8::from(*send) << 1]);
                }
            }
            Capability::Fqdn { host, domain } => {
                for name in [host, domain] {
                    let name = &name.as_bytes()[..name.len().min(126)];
                    out.push(name.len() as u8);
                    out.extend_from_slice(name);
                }
            }
            Capability::Unknown { value, .. } => out.extend_from_slice(&value[..value.len().min(255)]),
        }
        out[start - 1] = (out.len() - start) as u8;
    }
}

fn until_empty<'a, T>(
    cursor: &mut Cursor<'a>,
    mut entry: impl FnMut(&mut Cursor<'a>) -> Option<T>,
) -> Option<Vec<T>> {
    let mut entries = Vec::new();
    while !cursor.is_empty() {
        entries.push(entry(cursor)?);
    }
    Some(entries)
}

fn decode_fqdn(value: &[u8]) -> Capability {
    let mut cursor = Cursor::new(value);
    let mut name = || {
        let octets = cursor.u8().and_then(|len| cursor.take(usize::from(len))).unwrap_or_default();
        String::from_utf8_lossy(octets).into_owned()
    };
    Capability::Fqdn { host: name(), domain: name() }
}

impl fmt::Display for Capability {
    /// A short name for logs and `show peers`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Capability::Multiprotocol(family) => write!(f, "multiprotocol {family}"),
            Capability::RouteRefresh => f.write_str("route-refresh"),
            Capability::ExtendedNextHop(_) => f.write_str("extended-next-hop"),
            Capability::ExtendedMessage => f.write_str("extended-message"),
            Capability::Role(role) => write!(f, "role {role}"),
            Capability::GracefulRestart(graceful) => write!(f, "graceful-restart {}s", graceful.restart_time),
            Capability::FourOctetAs(asn) => write!(f, "four-octet-as {asn}"),
            Capability::AddPath(_) => f.write_str("add-path"),
            Capability::EnhancedRouteRefresh => f.write_str("enhanced-route-refresh"),
            Capability::Fqdn { host, .. } => write!(f, "fqdn {}", host.escape_debug()),
            Capability::Unknown { code, .. } => write!(f, "code {code}"),
        }
    }
}
