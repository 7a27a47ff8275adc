//! The route programmer `causeway-fib-sync`: it keeps the kernel's routes equal to what bgpd, the documents and the
//! ipam store ask for, answers bgpd's questions about next hops, and guards what bgpd may ask.
//!
//! ```text
//!  fib.sock ──► server ─┐                       ┌─► guard, next_hop, decision, way (may it? where to?)
//!  documents ─► config ─┼─► sync ─► engine ─────┼─► desired ─► delta ─► batches ─► kernel
//!  ipam store ► pods ───┘  (thread)    ▲        ├─► tunnel, objects (what routes lead to)
//!                                      │        └─► ownership (what may go, and when)
//!                                      └── dumps, on hints of the kernel
//! ```
//!
//! Pure: [`config`], [`decision`], [`way`], [`guard`], [`next_hop`], [`local`], [`desired`], [`slots`], [`forms`], [`delta`],
//! [`ownership`], [`symmetry`], [`interfaces`], [`engine`], [`view`]. Over a [`causeway_kernel::Kernel`]: [`tunnel`],
//! [`objects`].
//! One thread owns the kernel ([`sync`]), one forgets connections ([`flows`]); tasks serve bgpd ([`server`]), watch pods ([`pods`]) and answer the local
//! API ([`api`]). [`nat`] keeps our nftables table, [`probe`] answers `causeway doctor mtu`,
//! [`doctor`] says what that has to expect, [`checks`] looks for what else harms routes and tunnels.

pub mod api;
pub mod checks;
pub mod config;
pub mod decision;
pub mod delta;
pub mod desired;
pub mod doctor;
pub mod engine;
pub mod flows;
pub mod forms;
pub mod guard;
pub mod interfaces;
pub mod local;
pub mod metrics;
pub mod nat;
pub mod next_hop;
pub mod objects;
pub mod ownership;
pub mod pods;
pub mod probe;
pub mod server;
pub mod slots;
pub mod symmetry;
pub mod sync;
pub mod sysctls;
pub mod tunnel;
pub mod view;
pub mod way;
