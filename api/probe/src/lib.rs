//! Probes of path MTU between nodes: what `causeway doctor mtu` and the responder in fib-sync say to each other over UDP,
//! and the socket both use.
//!
//! ```text
//!  doctor                                   responder
//!    HELLO   nonce ────────────────────────►
//!    ◄──────────────────────────── COOKIE   nonce, cookie         proves the asker's address
//!    PROBE   cookie, nonce, padding ───────►                      of the size in question, not to be fragmented
//!    ◄─────────────────────────────── GOT   nonce, size
//!    SEND    cookie, nonce, size, ttl ─────►
//!    ◄────────────────────────────── SENT   nonce, MTU of the way back as its kernel has it
//!    ◄────────────────────────────── DATA   nonce, padding        of that size, not to be fragmented
//!    ◄──────────────────────────── REPORT   nonce, what a hop said of DATA: too big, too far
//! ```
//!
//! No answer is larger than what asked for it, but DATA, which only goes to an address that sent back its cookie. Crate of
//! its own because the command line and fib-sync share it and neither may import the other. Owns nothing. [`message`] is
//! pure.

pub mod message;
pub mod socket;

pub use message::{HEADER, Kind, Message, Verdict};
pub use socket::{Event, Mishap, Packet, ProbeSocket};

/// The UDP port of the responder where nothing else is said.
pub const PORT: u16 = 1790;
