//! What every Causeway daemon shares.
//!
//! Command-line arguments ([`args`]), logging ([`log`]), the local HTTP API on a unix socket and `--http` ([`http`]),
//! signals ([`signals`]), and documents that are watched and read again ([`documents`]). Owns nothing of the fabric;
//! imports `causeway-api` only.

pub mod args;
pub mod documents;
pub mod http;
pub mod log;
pub mod signals;
