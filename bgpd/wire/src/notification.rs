//! The NOTIFICATION message: one constructor for every error this speaker reports, and a rendering for people. Pure.
//! RFC 4271 §4.5 and §6, RFC 4486 (Cease), RFC 6608 (FSM), RFC 7313, RFC 8538, RFC 9003 (shutdown message), RFC 9384.

use std::fmt;

use crate::{AfiSafi, Capability, Cursor};

/// A NOTIFICATION: ends the session it is sent or received on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Notification {
    /// The error code.
    pub code: u8,
    /// The error subcode, 0 where there is nothing more specific.
    pub subcode: u8,
    /// Data, its meaning by code and subcode.
    pub data: Vec<u8>,
}

/// Error codes (RFC 4271 §4.5, RFC 7313 §5).
pub mod code {
    /// Message Header Error.
    pub const HEADER: u8 = 1;
    /// OPEN Message Error.
    pub const OPEN: u8 = 2;
    /// UPDATE Message Error.
    pub const UPDATE: u8 = 3;
    /// Hold Timer Expired.
    pub const HOLD_TIMER: u8 = 4;
    /// Finite State Machine Error.
    pub const FSM: u8 = 5;
    /// Cease.
    pub const CEASE: u8 = 6;
    /// ROUTE-REFRESH Message Error.
    pub const ROUTE_REFRESH: u8 = 7;
}

/// Why a session is ended without an error having occurred (RFC 4486 and later).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Cease {
    /// More prefixes than the peer's limit.
    MaximumPrefixes = 1,
    /// Closed by the operator.
    AdministrativeShutdown = 2,
    /// The peer was taken out of the configuration.
    PeerDeconfigured = 3,
    /// Reset by the operator.
    AdministrativeReset = 4,
    /// Not accepted after the TCP connection came up.
    ConnectionRejected = 5,
    /// Something in the peer's configuration changed.
    OtherConfigurationChange = 6,
    /// This connection lost a collision.
    ConnectionCollisionResolution = 7,
    /// Out of memory or the like.
    OutOfResources = 8,
    /// Retain nothing (RFC 8538).
    HardReset = 9,
    /// The BFD session went down (RFC 9384).
    BfdDown = 10,
}

/// In which state a message arrived that has no place there (RFC 6608).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum FsmState {
    /// In OpenSent.
    OpenSent = 1,
    /// In OpenConfirm.
    OpenConfirm = 2,
    /// In Established.
    Established = 3,
}

/// The longest shutdown message, in octets of UTF-8 (RFC 9003 §2).
pub const SHUTDOWN_MESSAGE_MAX: usize = 255;

/// Constructors, one for each error this speaker reports.
impl Notification {
    /// A NOTIFICATION of this code and subcode, without data.
    pub const fn new(code: u8, subcode: u8) -> Self {
        Notification { code, subcode, data: Vec::new() }
    }

    fn with(code: u8, subcode: u8, data: &[u8]) -> Self {
        Notification { code, subcode, data: data.to_vec() }
    }

    /// Connection Not Synchronized: the marker is not all ones.
    pub const fn connection_not_synchronized() -> Self {
        Self::new(code::HEADER, 1)
    }

    /// Bad Message Length; carries the erroneous Length field.
    pub fn bad_message_length(length: u16) -> Self {
        Self::with(code::HEADER, 2, &length.to_be_bytes())
    }

    /// Bad Message Type; carries the erroneous Type field.
    pub fn bad_message_type(kind: u8) -> Self {
        Self::with(code::HEADER, 3, &[kind])
    }

    /// OPEN error without a more specific subcode: a malformed optional parameter.
    pub const fn open_unspecific() -> Self {
        Self::new(code::OPEN, 0)
    }

    /// Unsupported Version Number; carries the largest version this speaker supports.
    pub fn unsupported_version() -> Self {
        Self::with(code::OPEN, 1, &4u16.to_be_bytes())
    }

    /// Bad Peer AS.
    pub const fn bad_peer_as() -> Self {
        Self::new(code::OPEN, 2)
    }

    /// Bad BGP Identifier: zero, or this speaker's own inside one AS (RFC 6286).
    pub const fn bad_bgp_identifier() -> Self {
        Self::new(code::OPEN, 3)
    }

    /// Unsupported Optional Parameter.
    pub const fn unsupported_optional_parameter() -> Self {
        Self::new(code::OPEN, 4)
    }

    /// Unacceptable Hold Time.
    pub const fn unacceptable_hold_time() -> Self {
        Self::new(code::OPEN, 6)
    }

    /// Unsupported Capability (RFC 5492 §5); carries the capabilities that are missing.
    pub fn unsupported_capability(missing: &[Capability]) -> Self {
        let mut data = Vec::new();
        for capability in missing {
            capability.encode(&mut data);
        }
        Notification { code: code::OPEN, subcode: 7, data }
    }

    /// Role Mismatch (RFC 9234).
    pub const fn role_mismatch() -> Self {
        Self::new(code::OPEN, 11)
    }

    /// Malformed Attribute List.
    pub const fn malformed_attribute_list() -> Self {
        Self::new(code::UPDATE, 1)
    }

    /// Unrecognized Well-known Attribute; carries the attribute (type, length and value).
    pub fn unrecognized_well_known(attribute: &[u8]) -> Self {
        Self::with(code::UPDATE, 2, attribute)
    }

    /// Optional Attribute Error; carries the attribute (type, length and value).
    pub fn optional_attribute(attribute: &[u8]) -> Self {
        Self::with(code::UPDATE, 9, attribute)
    }

    /// Invalid Network Field.
    pub const fn invalid_network_field() -> Self {
        Self::new(code::UPDATE, 10)
    }

    /// Hold Timer Expired.
    pub const fn hold_timer_expired() -> Self {
        Self::new(code::HOLD_TIMER, 0)
    }

    /// Finite State Machine Error: a message that has no place in this state (RFC 6608).
    pub const fn unexpected_message(state: FsmState) -> Self {
        Self::new(code::FSM, state as u8)
    }

    /// Cease.
    pub const fn cease(reason: Cease) -> Self {
        Self::new(code::CEASE, reason as u8)
    }

    /// Cease / Administrative Shutdown or Reset with a message for the other side's operator (RFC 9003), cut to
    /// [`SHUTDOWN_MESSAGE_MAX`] octets at a character border.
    pub fn cease_with_message(reason: Cease, message: &str) -> Self {
        let end = (0..=message.len().min(SHUTDOWN_MESSAGE_MAX)).rfind(|end| message.is_char_boundary(*end));
        let message = &message[..end.unwrap_or(0)];
        let mut data = vec![message.len() as u8];
        data.extend_from_slice(message.as_bytes());
        Notification { code: code::CEASE, subcode: reason as u8, data }
    }

    /// Cease / Maximum Number of Prefixes Reached with the family and the limit (RFC 4486 §4).
    pub fn maximum_prefixes(family: impl Into<AfiSafi>, limit: u32) -> Self {
        let AfiSafi { afi, safi } = family.into();
        let mut data = afi.to_be_bytes().to_vec();
        data.push(safi);
        data.extend_from_slice(&limit.to_be_bytes());
        Notification { code: code::CEASE, subcode: Cease::MaximumPrefixes as u8, data }
    }

    /// ROUTE-REFRESH Message Error / Invalid Message Length (RFC 7313 §5); carries the whole message.
    pub fn invalid_route_refresh_length(message: &[u8]) -> Self {
        Self::with(code::ROUTE_REFRESH, 1, message)
    }
}

impl Notification {
    /// Reads the body (after the header). `None` if code and subcode are not there.
    pub(crate) fn decode_body(body: &[u8]) -> Option<Self> {
        let mut cursor = Cursor::new(body);
        Some(Notification { code: cursor.u8()?, subcode: cursor.u8()?, data: cursor.rest().to_vec() })
    }

    /// Writes the body (after the header).
    pub(crate) fn encode_body(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&[self.code, self.subcode]);
        out.extend_from_slice(&self.data);
    }

    /// The operator's message of an Administrative Shutdown or Reset (RFC 9003), if there is one and it is valid.
    pub fn shutdown_message(&self) -> Option<&str> {
        let administrative = matches!(self.subcode, 2 | 4);
        match (self.code, self.data.as_slice()) {
            (code::CEASE, [length, text @ ..]) if administrative && *length > 0 => {
                std::str::from_utf8(text.get(..usize::from(*length))?).ok()
            }
            _ => None,
        }
    }

    /// What the code means.
    pub fn code_name(&self) -> Option<&'static str> {
        Some(match self.code {
            code::HEADER => "Message Header Error",
            code::OPEN => "OPEN Message Error",
            code::UPDATE => "UPDATE Message Error",
            code::HOLD_TIMER => "Hold Timer Expired",
            code::FSM => "Finite State Machine Error",
            code::CEASE => "Cease",
            code::ROUTE_REFRESH => "ROUTE-REFRESH Message Error",
            _ => return None,
        })
    }

    /// What the subcode means under its code; `None` for 0 and for unknown ones.
    pub fn subcode_name(&self) -> Option<&'static str> {
        Some(match (self.code, self.subcode) {
            (code::HEADER, 1) => "Connection Not Synchronized",
            (code::HEADER, 2) => "Bad Message Length",
            (code::HEADER, 3) => "Bad Message Type",
            (code::OPEN, 1) => "Unsupported Version Number",
            (code::OPEN, 2) => "Bad Peer AS",
            (code::OPEN, 3) => "Bad BGP Identifier",
            (code::OPEN, 4) => "Unsupported Optional Parameter",
            (code::OPEN, 5) => "Authentication Failure",
            (code::OPEN, 6) => "Unacceptable Hold Time",
            (code::OPEN, 7) => "Unsupported Capability",
            (code::OPEN, 11) => "Role Mismatch",
            (code::UPDATE, 1) => "Malformed Attribute List",
            (code::UPDATE, 2) => "Unrecognized Well-known Attribute",
            (code::UPDATE, 3) => "Missing Well-known Attribute",
            (code::UPDATE, 4) => "Attribute Flags Error",
            (code::UPDATE, 5) => "Attribute Length Error",
            (code::UPDATE, 6) => "Invalid ORIGIN Attribute",
            (code::UPDATE, 8) => "Invalid NEXT_HOP Attribute",
            (code::UPDATE, 9) => "Optional Attribute Error",
            (code::UPDATE, 10) => "Invalid Network Field",
            (code::UPDATE, 11) => "Malformed AS_PATH",
            (code::FSM, 1) => "Unexpected Message in OpenSent",
            (code::FSM, 2) => "Unexpected Message in OpenConfirm",
            (code::FSM, 3) => "Unexpected Message in Established",
            (code::CEASE, 1) => "Maximum Number of Prefixes Reached",
            (code::CEASE, 2) => "Administrative Shutdown",
            (code::CEASE, 3) => "Peer De-configured",
            (code::CEASE, 4) => "Administrative Reset",
            (code::CEASE, 5) => "Connection Rejected",
            (code::CEASE, 6) => "Other Configuration Change",
            (code::CEASE, 7) => "Connection Collision Resolution",
            (code::CEASE, 8) => "Out of Resources",
            (code::CEASE, 9) => "Hard Reset",
            (code::CEASE, 10) => "BFD Down",
            (code::ROUTE_REFRESH, 1) => "Invalid Message Length",
            _ => return None,
        })
    }

    /// What the data says, where that helps a reader.
    fn detail(&self) -> Option<String> {
        if let Some(message) = self.shutdown_message() {
            return Some(message.escape_debug().to_string());
        }
        match (self.code, self.subcode, self.data.as_slice()) {
            (code::HEADER, 2, [a, b]) => Some(format!("length {}", u16::from_be_bytes([*a, *b]))),
            (code::HEADER, 3, [kind]) => Some(format!("type {kind}")),
            (code::OPEN, 1, [a, b]) => Some(format!("supports version {}", u16::from_be_bytes([*a, *b]))),
            (code::CEASE, 1, [a, b, safi, l @ ..]) if l.len() == 4 => {
                let family = AfiSafi { afi: u16::from_be_bytes([*a, *b]), safi: *safi };
                Some(format!("{family} limit {}", u32::from_be_bytes([l[0], l[1], l[2], l[3]])))
            }
            (code::UPDATE, 2..=9, [_, kind, ..]) => Some(format!("attribute type {kind}")),
            _ => None,
        }
    }
}

impl fmt::Display for Notification {
    /// `Cease/Administrative Shutdown: maintenance`; numbers where a name is not known.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.code_name() {
            Some(name) => f.write_str(name)?,
            None => write!(f, "error code {}", self.code)?,
        }
        match self.subcode_name() {
            Some(name) => write!(f, "/{name}")?,
            None if self.subcode == 0 => {}
            None => write!(f, "/subcode {}", self.subcode)?,
        }
        self.detail().map_or(Ok(()), |detail| write!(f, ": {detail}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Family;

    #[test]
    fn rendering() {
        let shutdown = Notification::cease_with_message(Cease::AdministrativeShutdown, "maintenance");
        assert_eq!(shutdown.to_string(), "Cease/Administrative Shutdown: maintenance");
        assert_eq!(Notification::hold_timer_expired().to_string(), "Hold Timer Expired");
        assert_eq!(
            Notification::bad_message_length(5).to_string(),
            "Message Header Error/Bad Message Length: length 5"
        );
        assert_eq!(
            Notification::maximum_prefixes(Family::Ipv4Unicast, 100).to_string(),
            "Cease/Maximum Number of Prefixes Reached: ipv4 limit 100"
        );
        assert_eq!(Notification::new(99, 7).to_string(), "error code 99/subcode 7");
    }

    #[test]
    fn rfc9003_2_message_is_cut_at_a_character_and_read_back() {
        let text = "ü".repeat(200);
        let cease = Notification::cease_with_message(Cease::AdministrativeReset, &text);
        assert_eq!(cease.data[0], 254);
        assert_eq!(cease.shutdown_message().unwrap(), "ü".repeat(127));
    }

    #[test]
    fn rfc9003_invalid_messages_are_not_shown() {
        let cease = |data: &[u8]| Notification { code: 6, subcode: 2, data: data.to_vec() };
        assert_eq!(cease(&[]).shutdown_message(), None);
        assert_eq!(cease(&[0]).shutdown_message(), None);
        assert_eq!(cease(&[5, b'a']).shutdown_message(), None);
        assert_eq!(cease(&[1, 0xff]).shutdown_message(), None);
        assert_eq!(Notification { code: 6, subcode: 3, data: vec![1, b'a'] }.shutdown_message(), None);
    }

    #[test]
    fn control_characters_of_a_peer_do_not_reach_the_log() {
        let cease = Notification::cease_with_message(Cease::AdministrativeShutdown, "a\n\u{1b}[31mb");
        assert!(!cease.to_string().contains(['\n', '\u{1b}']));
    }
}
