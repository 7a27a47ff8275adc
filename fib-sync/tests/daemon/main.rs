//! The built `causeway-fib-sync` against the real kernel: each test in network namespaces of its own, with the test
//! in the role of bgpd. Needs root.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]
#![allow(clippy::print_stdout, reason = "what was measured, and which case it was")]

mod restart;
mod routes;
mod scene;
mod tunnels;
