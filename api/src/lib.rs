//! What the parts of Causeway say to each other and to the user.
//!
//! Documents ([`resource`]) with their selectors and their file source, the FIB feed between `causeway-bgpd` and
//! `causeway-fib-sync` ([`fib`]), and the JSON of the local API ([`control`]). Types and readers only: no daemon,
//! no async runtime, nothing of ours below it.

pub mod control;
pub mod document_set;
pub mod effective;
pub mod fib;
pub mod pod_store;
pub mod resource;
pub mod selector;
pub mod source;
