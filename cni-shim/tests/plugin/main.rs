//! The built plugin in real network namespaces, as a container runtime calls it. Needs root; nothing of it touches the
//! machine's own namespace, and the namespaces are nameless: they go with the test.

#![allow(clippy::unwrap_used, reason = "a failed step of a test is a failed test")]
#![allow(clippy::print_stdout, reason = "the figures of the speed test are for people")]

mod add;
mod check;
mod del;
mod environment;
mod faults;
mod gc;
mod node;
mod parallel;
mod speed;
mod status;
mod traffic;
