//! The session machine of one peer. Pure: bytes, TCP events, commands and the time go in; bytes to send, connections
//! to open or close, and what the speaker is to know come out.
//!
//! Owner: of everything between a configured peer and an Established session: up to one connection of our own and two
//! of the peer's, their timers, the negotiation, which of them survives a collision, how soon to try again.
//! Never touches a route.
//!
//! - [`fsm`]: the transition table.
//! - [`session`]: [`Session`], which carries it out; `attempts` is its part without a connection, `receive` its
//!   part from octets to events, [`io`] what goes in and comes out.
//! - [`open`]: what our OPEN says, and what follows from the peer's.
//! - [`collision`]: which of two connections is kept.
//! - [`timers`]: jitter, back-off, the large values.
//! - [`graceful`]: the bits of graceful restart.
//!
//! RFC 4271 §6 and §8, RFC 4724 §5, RFC 5492, RFC 6286, RFC 6608, RFC 6793.

mod attempts;
pub mod collision;
mod connection;
pub mod fsm;
pub mod graceful;
pub mod io;
pub mod open;
mod receive;
pub mod session;
pub mod timers;

pub use connection::Addresses;
pub use fsm::State;
pub use graceful::RestartMarks;
pub use io::{Command, ConnectionId, SessionInput, SessionOutput};
pub use session::Session;

#[cfg(test)]
mod tests;
