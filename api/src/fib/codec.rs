//! Bytes of the FIB feed. Pure.
//!
//! Integers are big-endian. An address is a family byte (4 or 6) and its 4 or 16 bytes; a prefix is a family byte, the
//! length in bits, and all bytes of the address; text is a 2-byte length and UTF-8; a list is a 2-byte count and its items;
//! what may be absent is a byte 0, or a byte 1 and the value; a tunnel is a byte 0, or its type and its fields.
//! A decoder takes nothing on trust: lengths, counts, enum values, UTF-8, host bits and trailing bytes are checked,
//! and memory is bounded by [`MAX_FRAME`].

use ipnetwork::IpNetwork;
use thiserror::Error;

use super::fields::{Reader, Writer};
use super::{Command, Event, Family, MAX_FRAME, NextHopState, RouteState};

/// Why a frame does not decode. Each of them ends the connection.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// The length in front of a frame is 0 or above [`MAX_FRAME`].
    #[error("frame of {0} bytes (allowed: 1 to {MAX_FRAME})")]
    FrameLength(usize),
    /// The body ends inside a field.
    #[error("message type {kind} ends inside its field {field}")]
    Truncated {
        /// The type byte.
        kind: u8,
        /// The field.
        field: &'static str,
    },
    /// Bytes are left after the last field.
    #[error("message type {kind} has {left} bytes too many")]
    TrailingBytes {
        /// The type byte.
        kind: u8,
        /// How many.
        left: usize,
    },
    /// No message has this type byte.
    #[error("unknown message type {0}")]
    UnknownType(u8),
    /// A field holds a value it cannot have.
    #[error("message type {kind}: bad value {value} in field {field}")]
    BadValue {
        /// The type byte.
        kind: u8,
        /// The field.
        field: &'static str,
        /// The value (or count, or length).
        value: u64,
    },
    /// Text that is not UTF-8.
    #[error("message type {kind}: field {field} is not UTF-8")]
    BadText {
        /// The type byte.
        kind: u8,
        /// The field.
        field: &'static str,
    },
    /// A prefix with bits set behind its length.
    #[error("message type {kind}: prefix {prefix} has host bits set")]
    HostBits {
        /// The type byte.
        kind: u8,
        /// The prefix as it came.
        prefix: IpNetwork,
    },
}

/// A message of one direction of the feed.
pub trait Message: Sized {
    /// Appends the frame (length and body) to `out`.
    fn encode(&self, out: &mut Vec<u8>);

    /// Decodes one frame body (without its length).
    ///
    /// # Errors
    /// Any [`DecodeError`]; the caller ends the connection.
    fn decode(body: &[u8]) -> Result<Self, DecodeError>;
}

/// Cuts a byte stream into messages. Holds at most one frame more than what it was last given.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: Vec<u8>,
    start: usize,
}

impl Decoder {
    /// An empty decoder.
    pub fn new() -> Decoder {
        Decoder::default()
    }

    /// Takes what was read from the socket. Call [`Decoder::poll`] until it returns `None` before giving it more.
    pub fn extend(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.start);
        self.start = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// The next message, or `None` when more bytes are needed.
    ///
    /// # Errors
    /// Any [`DecodeError`]; the stream is of no use after one.
    pub fn poll<M: Message>(&mut self) -> Result<Option<M>, DecodeError> {
        let rest = &self.buffer[self.start..];
        let Some((length, rest)) = rest.split_first_chunk::<4>() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes(*length) as usize;
        if length == 0 || length > MAX_FRAME {
            return Err(DecodeError::FrameLength(length));
        }
        let Some(body) = rest.get(..length) else {
            return Ok(None);
        };
        let message = M::decode(body)?;
        self.start += 4 + length;
        Ok(Some(message))
    }
}

const COMMAND_HELLO: u8 = 1;
const SNAPSHOT_BEGIN: u8 = 2;
const NEXT_HOP_REGISTER: u8 = 3;
const NEXT_HOP_UNREGISTER: u8 = 4;
const GROUP: u8 = 5;
const GROUP_DELETE: u8 = 6;
const ROUTE: u8 = 7;
const WITHDRAW: u8 = 8;
const END_OF_SNAPSHOT: u8 = 9;

const EVENT_HELLO: u8 = 65;
const NEXT_HOP_STATE: u8 = 66;
const LINK_DOWN: u8 = 67;
const LINK_UP: u8 = 68;
const STATUS: u8 = 69;
const GOODBYE: u8 = 70;

impl Message for Command {
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Command::Hello { version, restarted } => frame(out, COMMAND_HELLO, |w| {
                w.u16(*version);
                w.bool(*restarted);
            }),
            Command::SnapshotBegin => frame(out, SNAPSHOT_BEGIN, |_| {}),
            Command::NextHopRegister { next_hop } => frame(out, NEXT_HOP_REGISTER, |w| w.next_hop(next_hop)),
            Command::NextHopUnregister { next_hop } => {
                frame(out, NEXT_HOP_UNREGISTER, |w| w.next_hop(next_hop))
            }
            Command::Group { id, members, backups } => frame(out, GROUP, |w| {
                w.u32(*id);
                w.members(members);
                w.members(backups);
            }),
            Command::GroupDelete { id } => frame(out, GROUP_DELETE, |w| w.u32(*id)),
            Command::Route { prefix, group, generation } => frame(out, ROUTE, |w| {
                w.prefix(prefix);
                w.u32(*group);
                w.u64(*generation);
            }),
            Command::Withdraw { prefix, generation } => frame(out, WITHDRAW, |w| {
                w.prefix(prefix);
                w.u64(*generation);
            }),
            Command::EndOfSnapshot { family } => frame(out, END_OF_SNAPSHOT, |w| {
                w.u8(match family {
                    Family::Ipv4 => 4,
                    Family::Ipv6 => 6,
                });
            }),
        }
    }

    fn decode(body: &[u8]) -> Result<Command, DecodeError> {
        let mut r = Reader::new(body)?;
        let command = match r.kind {
            COMMAND_HELLO => Command::Hello { version: r.u16("version")?, restarted: r.bool("restarted")? },
            SNAPSHOT_BEGIN => Command::SnapshotBegin,
            NEXT_HOP_REGISTER => Command::NextHopRegister { next_hop: r.next_hop("next hop")? },
            NEXT_HOP_UNREGISTER => Command::NextHopUnregister { next_hop: r.next_hop("next hop")? },
            GROUP => Command::Group {
                id: r.u32("id")?,
                members: r.members("members", 1)?,
                backups: r.members("backups", 0)?,
            },
            GROUP_DELETE => Command::GroupDelete { id: r.u32("id")? },
            ROUTE => Command::Route {
                prefix: r.canonical_prefix("prefix")?,
                group: r.u32("group")?,
                generation: r.u64("generation")?,
            },
            WITHDRAW => {
                Command::Withdraw { prefix: r.canonical_prefix("prefix")?, generation: r.u64("generation")? }
            }
            END_OF_SNAPSHOT => Command::EndOfSnapshot {
                family: match r.u8("family")? {
                    4 => Family::Ipv4,
                    6 => Family::Ipv6,
                    other => return Err(r.bad("family", other.into())),
                },
            },
            other => return Err(DecodeError::UnknownType(other)),
        };
        r.end()?;
        Ok(command)
    }
}

impl Message for Event {
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Event::Hello { version, ipv4_kept, ipv6_kept } => frame(out, EVENT_HELLO, |w| {
                w.u16(*version);
                w.bool(*ipv4_kept);
                w.bool(*ipv6_kept);
            }),
            Event::NextHopState { next_hop, state } => frame(out, NEXT_HOP_STATE, |w| {
                w.next_hop(next_hop);
                match state {
                    NextHopState::Unreachable => w.u8(0),
                    NextHopState::Connected { device, ifindex } => {
                        w.u8(1);
                        w.text(device);
                        w.u32(*ifindex);
                    }
                    NextHopState::Gateway { gateway, device, ifindex, metric } => {
                        w.u8(2);
                        w.address(gateway);
                        w.text(device);
                        w.u32(*ifindex);
                        w.u32(*metric);
                    }
                }
            }),
            Event::LinkDown(link) => frame(out, LINK_DOWN, |w| w.link(link)),
            Event::LinkUp(link) => frame(out, LINK_UP, |w| w.link(link)),
            Event::Status { prefix, generation, state } => frame(out, STATUS, |w| {
                w.prefix(prefix);
                w.u64(*generation);
                match state {
                    RouteState::Installed { via } => {
                        w.u8(0);
                        w.via(*via);
                    }
                    RouteState::Pending { reason } => {
                        w.u8(1);
                        w.text(reason);
                    }
                    RouteState::Failed { reason } => {
                        w.u8(2);
                        w.text(reason);
                    }
                    RouteState::Removed => w.u8(3),
                }
            }),
            Event::Goodbye { reason } => frame(out, GOODBYE, |w| w.text(reason)),
        }
    }

    fn decode(body: &[u8]) -> Result<Event, DecodeError> {
        let mut r = Reader::new(body)?;
        let event = match r.kind {
            EVENT_HELLO => Event::Hello {
                version: r.u16("version")?,
                ipv4_kept: r.bool("ipv4 kept")?,
                ipv6_kept: r.bool("ipv6 kept")?,
            },
            NEXT_HOP_STATE => {
                let next_hop = r.next_hop("next hop")?;
                let state = match r.u8("state")? {
                    0 => NextHopState::Unreachable,
                    1 => NextHopState::Connected { device: r.text("device")?, ifindex: r.u32("ifindex")? },
                    2 => NextHopState::Gateway {
                        gateway: r.address("gateway")?,
                        device: r.text("device")?,
                        ifindex: r.u32("ifindex")?,
                        metric: r.u32("metric")?,
                    },
                    other => return Err(r.bad("state", other.into())),
                };
                Event::NextHopState { next_hop, state }
            }
            LINK_DOWN => Event::LinkDown(r.link()?),
            LINK_UP => Event::LinkUp(r.link()?),
            STATUS => {
                let prefix = r.canonical_prefix("prefix")?;
                let generation = r.u64("generation")?;
                let state = match r.u8("state")? {
                    0 => RouteState::Installed { via: r.via()? },
                    1 => RouteState::Pending { reason: r.text("reason")? },
                    2 => RouteState::Failed { reason: r.text("reason")? },
                    3 => RouteState::Removed,
                    other => return Err(r.bad("state", other.into())),
                };
                Event::Status { prefix, generation, state }
            }
            GOODBYE => Event::Goodbye { reason: r.text("reason")? },
            other => return Err(DecodeError::UnknownType(other)),
        };
        r.end()?;
        Ok(event)
    }
}

/// Writes the length, the type byte and what `fields` appends.
fn frame(out: &mut Vec<u8>, kind: u8, fields: impl FnOnce(&mut Writer<'_>)) {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    out.push(kind);
    fields(&mut Writer(out));
    let length = (out.len() - start - 4) as u32;
    out[start..start + 4].copy_from_slice(&length.to_be_bytes());
}
