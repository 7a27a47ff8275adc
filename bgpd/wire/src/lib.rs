//! BGP messages to bytes and back.
//!
//! Pure: no I/O, no clock, no async runtime. Nothing received can make it panic or allocate more than a small multiple
//! of the message. The way of a message: [`Header::peek`] finds its end in a receive buffer, [`Message::decode`] turns
//! it into a value or into the NOTIFICATION that ends the session. Errors of an UPDATE that RFC 7606 lets a session
//! survive are already turned into withdrawals in [`Update`], with the reason beside them.
//!
//! The other way: [`encode_open`] and its siblings append a message to a buffer; [`EncodedAttributes`] packs prefixes that share
//! attributes into as few UPDATEs as possible.
//!
//! RFC 4271, 4456, 4760, 2545, 2918, 4360, 4486, 4724, 5492, 6286, 6608, 6793, 7313, 7606, 7607, 7911, 8092, 8654,
//! 8950, 9003, 9072.

mod asn;
pub mod attr;
pub mod capability;
mod cursor;
pub mod encode;
mod family;
mod header;
mod message;
mod nlri;
pub mod notification;
mod open;
mod prefix;
mod refresh;
mod update;
mod validate;

pub use asn::{Asn, ParseAsnError};
pub use attr::{
    Aggregator, AsPath, Community, ExtCommunity, LargeCommunity, NextHop, Origin, ParseCommunityError,
    PartialFlags, PathAttributes, SegmentKind, Segments, Tunnel, TunnelKind, UnknownAttribute, code,
};
pub use capability::{AddPath, Capability, ExtendedNextHop, GracefulRestart};
use cursor::Cursor;
pub use encode::{EncodeContext, EncodeError, EncodedAttributes, encode_end_of_rib, encode_withdrawals};
pub use family::{AfiSafi, Family, FamilySet, ParseFamilyError};
pub use header::{HEADER_LEN, Header, MAX_EXTENDED_MESSAGE_LEN, MAX_MESSAGE_LEN, MessageType};
pub use message::{
    DecodeContext, DecodeError, Message, SessionKind, encode_keepalive, encode_notification, encode_open,
    encode_route_refresh,
};
pub use notification::{Cease, FsmState, Notification};
pub use open::{Open, VERSION};
pub use prefix::{Ipv4Prefix, Ipv6Prefix, ParsePrefixError, Prefix, PrefixKey};
pub use refresh::{RefreshKind, RouteRefresh};
pub use update::{Announcement, Consequence, Nlri, NlriList, Problem, Update};
