//! Tests of the codec from outside: messages made by hand, by other implementations, by chance, and read back by
//! other decoders. Each test that holds an RFC's rule names it.

// A test may fail wherever it likes, also in what its `#[test]` functions share.
#![allow(clippy::unwrap_used)]

mod bgpkit;
mod generate;
mod handmade;
mod header;
mod mutation;
mod open;
mod oracle;
mod packing;
mod rfc6793;
mod rfc7606;
mod rfc9012;
mod roundtrip;
mod update;
mod vectors;
