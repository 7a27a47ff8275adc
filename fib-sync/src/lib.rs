//! The route programmer `causeway-fib-sync`: it keeps the kernel's routes equal to what bgpd, the documents and the
//! ipam store ask for, answers bgpd's questions about next hops, and guards what bgpd may ask.
//!
//! ```text
//!  fib.sock ──► server ─┐                       ┌─► guard, next_hop (may it? where to?)
//!  documents ─► config ─┼─► sync ─► engine ─────┼─► desired ─► delta ─► batches ─► kernel
//!  ipam store ► pods ───┘  (thread)    ▲        └─► ownership (what may go, and when)
//!                                      └── dumps, on hints of the kernel
//! ```
//!
//! Pure: [`config`], [`decision`], [`guard`], [`next_hop`], [`desired`], [`delta`], [`ownership`], [`symmetry`],
//! [`interfaces`], [`engine`], [`view`].
//! One thread owns the kernel ([`sync`]); tasks serve bgpd ([`server`]), watch pods ([`pods`]) and answer the local
//! API ([`api`]).

pub mod api;
pub mod config;
pub mod decision;
pub mod delta;
pub mod desired;
pub mod engine;
pub mod guard;
pub mod interfaces;
pub mod metrics;
pub mod nat;
pub mod next_hop;
pub mod ownership;
pub mod pods;
pub mod server;
pub mod symmetry;
pub mod sync;
pub mod sysctls;
pub mod view;
