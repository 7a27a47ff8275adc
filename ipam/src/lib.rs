//! Pod addresses: which are taken, which are free, and who may have the next one.
//!
//! Purpose: the library that `causeway-ipam` and `causeway-cni` share. Owner of every file in `RUN_DIR/ipam/`, whose
//! formats are [`causeway_api::pod_store`]. No async runtime, so that a plugin that links it starts in a blink.
//! [`allocator`], [`block`], [`quarantine`] and [`report`] are pure; [`store`] does the files; [`gc`] decides which
//! records are dead.
//!
//! The invariants are in `ipam/DESIGN.md`.

pub mod allocator;
pub mod block;
pub mod gc;
pub mod quarantine;
pub mod report;
pub mod store;

pub use allocator::{AllocateError, Allocated, Request};
pub use store::{Now, Store, StoreError};
