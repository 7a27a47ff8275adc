//! The BGP speaker daemon as a library: tasks and sockets around the protocol core.
//!
//! The map: [`run`] starts everything; [`speaker_task`] is the one writer of all tables; [`peer_task`] keeps one
//! session each; [`fan_out`] and [`outbox`] carry what is advertised to the sockets; [`listen`] hands out connections; [`fib_side`] and [`fib_client`] are the feed to fib-sync; [`lower`] turns documents
//! into the engine's configuration; [`control`] answers the local API.

pub mod control;
pub mod fan_out;
pub mod fib_client;
pub mod fib_side;
pub mod listen;
pub mod lower;
pub mod metrics;
pub mod outbox;
pub mod peer_task;
pub mod run;
#[allow(unsafe_code)] // the socket options no crate offers; a reason stands at each block
pub mod socket_options;
pub mod speaker_link;
pub mod speaker_task;
pub mod views;

pub use causeway_bgp_core as core;
