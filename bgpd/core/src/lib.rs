//! The protocol core of the speaker: session machine, RIB, policy, export.
//!
//! Pure: no sockets, no clock, no async runtime, no API type (Cargo enforces it). `now` is a parameter, a timer is an
//! `Option<Instant>` handed out, input and output are enums. See `DESIGN.md` beside this crate for the map.

pub mod attrs;
pub mod config;
pub mod event;
pub mod export;
mod fib;
mod forwarding;
pub mod peer;
mod peer_map;
pub mod policy;
pub mod rib;
#[cfg(test)]
mod sim;
pub mod speaker;
mod updates;

pub use updates::Updates;
