//! Speakers joined by simulated links under a virtual clock.
//!
//! Whole nodes, each a [`crate::speaker::Speaker`] with a [`crate::peer::Session`] per peer, exchange octets over
//! connections that delay, stall and break. The clock jumps to the next deadline, so hours pass in no time; a bound on
//! steps and a bound on virtual time say what "goes quiet" means. What every node then holds is compared with a naive
//! computation over the same topology.

mod network;
mod node;
mod oracle;
mod tests;
mod topology;
