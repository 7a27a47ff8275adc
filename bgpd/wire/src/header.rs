//! The message header: finds where one message ends in a stream of octets. Pure. RFC 4271 §4.1 and §6.1, RFC 8654.

use crate::{DecodeError, Notification};

/// Octets of the header: marker, length, type.
pub const HEADER_LEN: usize = 19;
/// The longest message without the Extended Message capability.
pub const MAX_MESSAGE_LEN: usize = 4096;
/// The longest message with the Extended Message capability (RFC 8654).
pub const MAX_EXTENDED_MESSAGE_LEN: usize = 65535;

/// The type of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum MessageType {
    /// OPEN.
    Open = 1,
    /// UPDATE.
    Update = 2,
    /// NOTIFICATION.
    Notification = 3,
    /// KEEPALIVE.
    Keepalive = 4,
    /// ROUTE-REFRESH (RFC 2918).
    RouteRefresh = 5,
}

impl MessageType {
    fn from_code(code: u8) -> Option<Self> {
        Some(match code {
            1 => MessageType::Open,
            2 => MessageType::Update,
            3 => MessageType::Notification,
            4 => MessageType::Keepalive,
            5 => MessageType::RouteRefresh,
            _ => return None,
        })
    }

    /// The shortest and the longest message of the type. ROUTE-REFRESH is left open here, since RFC 7313 §5 has an
    /// error of its own for it.
    const fn length_bounds(self, extended: bool) -> (usize, usize) {
        let max = if extended { MAX_EXTENDED_MESSAGE_LEN } else { MAX_MESSAGE_LEN };
        match self {
            // RFC 8654 §4: OPEN and KEEPALIVE never exceed 4,096 octets.
            MessageType::Open => (29, MAX_MESSAGE_LEN),
            MessageType::Update => (23, max),
            MessageType::Notification => (21, max),
            MessageType::Keepalive => (HEADER_LEN, HEADER_LEN),
            MessageType::RouteRefresh => (HEADER_LEN, max),
        }
    }
}

/// A checked header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Octets of the whole message, header included.
    pub length: usize,
    /// The type.
    pub kind: MessageType,
}

impl Header {
    /// Looks at the front of a receive buffer. `Ok(None)`: fewer than [`HEADER_LEN`] octets are there, read more.
    /// `Ok(Some(header))`: the message takes the first `header.length` octets, of which possibly not all are there yet.
    ///
    /// # Errors
    /// A bad marker, length or type ends the session (RFC 4271 §6.1); checked in this order.
    pub fn peek(buffer: &[u8], extended_message: bool) -> Result<Option<Header>, DecodeError> {
        let Some(header) = buffer.first_chunk::<HEADER_LEN>() else { return Ok(None) };
        if header[..16] != [0xff; 16] {
            return Err(DecodeError::new(
                Notification::connection_not_synchronized(),
                "header: marker is not all ones",
            ));
        }
        let length = u16::from_be_bytes([header[16], header[17]]);
        let bad_length = |of: &str| {
            DecodeError::new(
                Notification::bad_message_length(length),
                format!("header: {of} of {length} octets"),
            )
        };
        let max = if extended_message { MAX_EXTENDED_MESSAGE_LEN } else { MAX_MESSAGE_LEN };
        let octets = usize::from(length);
        if !(HEADER_LEN..=max).contains(&octets) {
            return Err(bad_length("message"));
        }
        let code = header[18];
        let kind = MessageType::from_code(code).ok_or_else(|| {
            DecodeError::new(Notification::bad_message_type(code), format!("header: message type {code}"))
        })?;
        let (shortest, longest) = kind.length_bounds(extended_message);
        if !(shortest..=longest).contains(&octets) {
            return Err(bad_length(match kind {
                MessageType::Open => "OPEN",
                MessageType::Update => "UPDATE",
                MessageType::Notification => "NOTIFICATION",
                MessageType::Keepalive => "KEEPALIVE",
                MessageType::RouteRefresh => "ROUTE-REFRESH",
            }));
        }
        Ok(Some(Header { length: octets, kind }))
    }
}

/// Appends a header whose length field is still to be set by [`finish`]; returns where the message begins.
pub(crate) fn start(out: &mut Vec<u8>, kind: MessageType) -> usize {
    let at = out.len();
    out.extend_from_slice(&[0xff; 16]);
    out.extend_from_slice(&[0, 0, kind as u8]);
    at
}

/// Sets the length field of the message that begins at `at` and ends where `out` ends.
pub(crate) fn finish(out: &mut [u8], at: usize) {
    let length = (out.len() - at) as u16;
    out[at + 16..at + 18].copy_from_slice(&length.to_be_bytes());
}
