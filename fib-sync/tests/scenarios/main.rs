//! The engine over the kernel in memory, under a virtual clock: every scenario under every failure.
//!
//! Whatever goes wrong on the way, once time has passed the kernel holds what is wanted, others' routes are as they
//! were, and nothing is written any more.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]
#![allow(clippy::print_stdout, reason = "what was measured, and which case it was")]

mod routes;
mod tunnels;
mod world;
