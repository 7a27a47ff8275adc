//! The OPEN message. Pure. RFC 4271 §4.2 and §6.2, RFC 5492, RFC 6286, RFC 6793, RFC 7607, RFC 9072.

use std::net::Ipv4Addr;

use crate::{
    AddPath, Asn, Capability, Cursor, DecodeError, ExtendedNextHop, Family, FamilySet, GracefulRestart,
    Notification,
};

/// The protocol version this speaker, and everybody, speaks.
pub const VERSION: u8 = 4;

/// Optional parameter type: capabilities (RFC 5492 §4).
const PARAMETER_CAPABILITIES: u8 = 2;
/// In the place of the first parameter type: lengths take two octets (RFC 9072 §2).
const PARAMETER_EXTENDED: u8 = 255;

/// An OPEN message.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Open {
    /// Always 4 in a decoded one.
    pub version: u8,
    /// The My Autonomous System field; AS_TRANS where the AS needs four octets. See [`Open::asn`].
    pub my_as: u16,
    /// The proposed hold time in seconds: 0 or at least 3 in a decoded one.
    pub hold_time: u16,
    /// The BGP identifier; never zero in a decoded one.
    pub router_id: Ipv4Addr,
    /// The capabilities in the order they came, exact duplicates once (RFC 5492 §4).
    pub capabilities: Vec<Capability>,
}

impl Open {
    /// An OPEN of this speaker; adds the four-octet AS capability by itself.
    pub fn new(asn: Asn, hold_time: u16, router_id: Ipv4Addr, capabilities: Vec<Capability>) -> Self {
        let mut capabilities = capabilities;
        capabilities.push(Capability::FourOctetAs(asn));
        Open { version: VERSION, my_as: asn.to_two_octet(), hold_time, router_id, capabilities }
    }

    /// The speaker's AS: that of the four-octet capability, else the field of the message.
    pub fn asn(&self) -> Asn {
        self.four_octet_as().unwrap_or(Asn(u32::from(self.my_as)))
    }

    /// The number in the four-octet AS capability.
    pub fn four_octet_as(&self) -> Option<Asn> {
        self.capabilities
            .iter()
            .find_map(|c| if let Capability::FourOctetAs(asn) = c { Some(*asn) } else { None })
    }

    /// The families of the multiprotocol capabilities; IPv4 unicast if there is no such capability at all
    /// (RFC 4760 §8: a speaker without it does plain BGP-4).
    pub fn families(&self) -> FamilySet {
        let mut any = false;
        let families = self
            .capabilities
            .iter()
            .filter_map(|c| if let Capability::Multiprotocol(family) = c { Some(family) } else { None })
            .inspect(|_| any = true)
            .filter_map(|family| family.family())
            .collect();
        if any { families } else { FamilySet::only(Family::Ipv4Unicast) }
    }

    /// Whether Route Refresh is announced.
    pub fn route_refresh(&self) -> bool {
        self.capabilities.contains(&Capability::RouteRefresh)
    }

    /// Whether Enhanced Route Refresh is announced.
    pub fn enhanced_route_refresh(&self) -> bool {
        self.capabilities.contains(&Capability::EnhancedRouteRefresh)
    }

    /// Whether Extended Message is announced.
    pub fn extended_message(&self) -> bool {
        self.capabilities.contains(&Capability::ExtendedMessage)
    }

    /// The Graceful Restart capability; the last one counts if there are several (RFC 4724 §3).
    pub fn graceful_restart(&self) -> Option<&GracefulRestart> {
        self.capabilities
            .iter()
            .rev()
            .find_map(|c| if let Capability::GracefulRestart(graceful) = c { Some(graceful) } else { None })
    }

    /// The entries of the ADD-PATH capability, later ones overriding earlier ones of the same family (RFC 7911 §4).
    pub fn add_path(&self, family: Family) -> Option<AddPath> {
        let entries = self
            .capabilities
            .iter()
            .filter_map(|c| if let Capability::AddPath(entries) = c { Some(entries) } else { None });
        entries.flatten().rfind(|entry| entry.family.family() == Some(family)).copied()
    }

    /// Whether IPv6 next hops for prefixes of `family` are announced (RFC 8950).
    pub fn ipv6_next_hop_for(&self, family: Family) -> bool {
        let wanted = ExtendedNextHop { family: family.afi_safi(), next_hop_afi: 2 };
        self.capabilities
            .iter()
            .any(|c| matches!(c, Capability::ExtendedNextHop(entries) if entries.contains(&wanted)))
    }

    /// Reads the body (after the header).
    pub(crate) fn decode_body(body: &[u8]) -> Result<Self, DecodeError> {
        let mut cursor = Cursor::new(body);
        let short = || DecodeError::new(Notification::open_unspecific(), "OPEN: truncated");
        let version = cursor.u8().ok_or_else(short)?;
        if version != VERSION {
            return Err(DecodeError::new(
                Notification::unsupported_version(),
                format!("OPEN: version {version} is not supported"),
            ));
        }
        let my_as = cursor.u16().ok_or_else(short)?;
        let hold_time = cursor.u16().ok_or_else(short)?;
        let router_id = Ipv4Addr::from(cursor.array::<4>().ok_or_else(short)?);
        if my_as == 0 {
            return Err(DecodeError::new(Notification::bad_peer_as(), "OPEN: AS 0"));
        }
        if hold_time == 1 || hold_time == 2 {
            return Err(DecodeError::new(
                Notification::unacceptable_hold_time(),
                format!("OPEN: hold time of {hold_time} s"),
            ));
        }
        if router_id.is_unspecified() {
            return Err(DecodeError::new(Notification::bad_bgp_identifier(), "OPEN: BGP identifier 0.0.0.0"));
        }
        let capabilities = decode_parameters(&mut cursor)?;
        let open = Open { version, my_as, hold_time, router_id, capabilities };
        if open.four_octet_as() == Some(Asn(0)) {
            return Err(DecodeError::new(
                Notification::bad_peer_as(),
                "OPEN: AS 0 in the four-octet AS capability",
            ));
        }
        Ok(open)
    }

    /// Writes the body (after the header). Parameters longer than 255 octets take the form of RFC 9072.
    pub(crate) fn encode_body(&self, out: &mut Vec<u8>) {
        out.push(self.version);
        out.extend_from_slice(&self.my_as.to_be_bytes());
        out.extend_from_slice(&self.hold_time.to_be_bytes());
        out.extend_from_slice(&self.router_id.octets());
        let mut capabilities = Vec::new();
        for capability in &self.capabilities {
            capability.encode(&mut capabilities);
        }
        match u8::try_from(capabilities.len()) {
            Ok(0) => out.push(0),
            Ok(length) if length <= 253 => {
                out.extend_from_slice(&[length + 2, PARAMETER_CAPABILITIES, length]);
            }
            _ => {
                let length = capabilities.len() as u16;
                out.extend_from_slice(&[255, PARAMETER_EXTENDED]);
                out.extend_from_slice(&(length + 3).to_be_bytes());
                out.push(PARAMETER_CAPABILITIES);
                out.extend_from_slice(&length.to_be_bytes());
            }
        }
        out.extend_from_slice(&capabilities);
    }
}

fn decode_parameters(cursor: &mut Cursor<'_>) -> Result<Vec<Capability>, DecodeError> {
    let malformed =
        |what: &'static str| DecodeError::new(Notification::open_unspecific(), format!("OPEN: {what}"));
    let overrun = || malformed("optional parameters and message length disagree");
    let mut length = usize::from(cursor.u8().ok_or_else(overrun)?);
    let extended = length != 0 && cursor.rest().first() == Some(&PARAMETER_EXTENDED);
    if extended {
        cursor.u8();
        length = usize::from(cursor.u16().ok_or_else(overrun)?);
    }
    if cursor.rest().len() != length {
        return Err(overrun());
    }
    let mut capabilities = Vec::new();
    while let Some(kind) = cursor.u8() {
        let truncated = || malformed("truncated optional parameter");
        let length = if extended { cursor.u16().map(usize::from) } else { cursor.u8().map(usize::from) };
        let value = cursor.take(length.ok_or_else(truncated)?).ok_or_else(truncated)?;
        if kind != PARAMETER_CAPABILITIES {
            return Err(DecodeError::new(
                Notification::unsupported_optional_parameter(),
                format!("OPEN: optional parameter of type {kind}"),
            ));
        }
        decode_capabilities(value, &mut capabilities)?;
    }
    Ok(capabilities)
}

fn decode_capabilities(octets: &[u8], out: &mut Vec<Capability>) -> Result<(), DecodeError> {
    let mut cursor = Cursor::new(octets);
    while let Some(code) = cursor.u8() {
        let value = cursor.u8().and_then(|length| cursor.take(usize::from(length)));
        let capability = value.and_then(|value| Capability::decode(code, value)).ok_or_else(|| {
            DecodeError::new(Notification::open_unspecific(), format!("OPEN: malformed capability {code}"))
        })?;
        if !out.contains(&capability) {
            out.push(capability);
        }
    }
    Ok(())
}
