//! Messages: what a session sends and receives, and what the codec must know of the session. Pure. RFC 4271 §4.

use crate::header::{self, HEADER_LEN, Header, MessageType};
use crate::{Asn, FamilySet, Notification, Open, RouteRefresh, Update, validate};

/// A decoded message.
// An UPDATE is the message that matters, and lives on the stack for one hand-over: a box would cost more than it saves.
#[allow(clippy::large_enum_variant)]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// OPEN.
    Open(Open),
    /// UPDATE, its errors already dealt with by RFC 7606.
    Update(Update),
    /// NOTIFICATION.
    Notification(Notification),
    /// KEEPALIVE.
    Keepalive,
    /// ROUTE-REFRESH.
    RouteRefresh(RouteRefresh),
}

/// Whether the peer is in another AS or in this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SessionKind {
    /// eBGP.
    External,
    /// iBGP.
    Internal,
}

/// What decoding an UPDATE depends on: the outcome of the OPEN exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecodeContext {
    /// AS numbers take four octets: both sides announced the capability (RFC 6793).
    pub four_octet_as: bool,
    /// The families both sides announced; prefixes of others are ignored.
    pub families: FamilySet,
    /// eBGP or iBGP: LOCAL_PREF, ORIGINATOR_ID and CLUSTER_LIST of an external peer are discarded.
    pub session: SessionKind,
    /// Messages may exceed 4,096 octets (RFC 8654).
    pub extended_message: bool,
    /// Families whose prefixes come with a path identifier (RFC 7911: we receive, the peer sends).
    pub add_path: FamilySet,
    /// Families whose next hop may be an IPv6 one although they are not (RFC 8950).
    pub ipv6_next_hop: FamilySet,
    /// Whether confederation segments may stand in an AS_PATH: the peer is a member of our confederation (RFC 5065).
    pub confederation: bool,
    /// The AS the path of an external peer must begin with, where that is to be enforced (RFC 4271 §6.3 leaves it
    /// open; a route server does not put its AS there).
    pub first_as: Option<Asn>,
}

impl DecodeContext {
    /// A session with four-octet AS numbers and the families given, nothing else negotiated.
    pub fn new(session: SessionKind, families: FamilySet) -> Self {
        DecodeContext {
            four_octet_as: true,
            families,
            session,
            extended_message: false,
            add_path: FamilySet::EMPTY,
            ipv6_next_hop: FamilySet::EMPTY,
            confederation: false,
            first_as: None,
        }
    }
}

/// An error that ends the session: the NOTIFICATION to send, and why, for the log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason} ({notification})")]
pub struct DecodeError {
    /// What to send before the connection is closed.
    pub notification: Notification,
    /// What was wrong, in words.
    pub reason: String,
}

impl DecodeError {
    pub(crate) fn new(notification: Notification, reason: impl Into<String>) -> Self {
        DecodeError { notification, reason: reason.into() }
    }
}

impl Message {
    /// Decodes one whole message: exactly the octets that [`Header::peek`] framed.
    ///
    /// # Errors
    /// What ends the session. Lesser errors of an UPDATE are in the [`Update`] itself.
    pub fn decode(message: &[u8], context: &DecodeContext) -> Result<Message, DecodeError> {
        let header = Header::peek(message, context.extended_message)?.filter(|h| h.length == message.len());
        let Some(header) = header else {
            return Err(DecodeError::new(
                Notification::bad_message_length(message.len().min(usize::from(u16::MAX)) as u16),
                "message cut at the wrong place",
            ));
        };
        let body = &message[HEADER_LEN..];
        Ok(match header.kind {
            MessageType::Open => Message::Open(Open::decode_body(body)?),
            MessageType::Update => Message::Update(validate::update(body, context)?),
            MessageType::Notification => {
                Message::Notification(Notification::decode_body(body).ok_or_else(|| {
                    DecodeError::new(
                        Notification::bad_message_length(message.len() as u16),
                        "short NOTIFICATION",
                    )
                })?)
            }
            MessageType::Keepalive => Message::Keepalive,
            MessageType::RouteRefresh => {
                let body = <[u8; 4]>::try_from(body).map_err(|_| refresh_length_error(message))?;
                Message::RouteRefresh(RouteRefresh::decode_body(body))
            }
        })
    }
}

/// A ROUTE-REFRESH that is not of 23 octets. RFC 7313 §5 has an error of its own for the subtypes it defines; one that
/// is too short to be any is a bad length as of every other message (RFC 4271 §6.1).
fn refresh_length_error(message: &[u8]) -> DecodeError {
    let enhanced = matches!(message.get(HEADER_LEN + 2), Some(1 | 2));
    let notification = if enhanced || message.len() > HEADER_LEN + 4 {
        Notification::invalid_route_refresh_length(message)
    } else {
        Notification::bad_message_length(message.len() as u16)
    };
    DecodeError::new(notification, format!("ROUTE-REFRESH of {} octets", message.len()))
}

/// Appends an OPEN.
pub fn encode_open(open: &Open, out: &mut Vec<u8>) {
    let at = header::start(out, MessageType::Open);
    open.encode_body(out);
    header::finish(out, at);
}

/// Appends a NOTIFICATION; data that would exceed 4,096 octets is cut.
pub fn encode_notification(notification: &Notification, out: &mut Vec<u8>) {
    let at = header::start(out, MessageType::Notification);
    notification.encode_body(out);
    out.truncate(at + header::MAX_MESSAGE_LEN);
    header::finish(out, at);
}

/// Appends a KEEPALIVE.
pub fn encode_keepalive(out: &mut Vec<u8>) {
    let at = header::start(out, MessageType::Keepalive);
    header::finish(out, at);
}

/// Appends a ROUTE-REFRESH.
pub fn encode_route_refresh(refresh: &RouteRefresh, out: &mut Vec<u8>) {
    let at = header::start(out, MessageType::RouteRefresh);
    refresh.encode_body(out);
    header::finish(out, at);
}
