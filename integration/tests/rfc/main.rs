//! What the RFCs ask of a BGP speaker, asked of the running `causeway-bgpd` from outside: a table of cases, each named by
//! the section it holds, each with a speaker of its own and peers that say exactly what the case wants said.
//!
//! Every chapter runs in a network namespace of its own, where all of 10.0.0.0/8 and fd00::/8 is local. `RFC_CASE=text`
//! runs only the cases whose name holds the text. Needs root, and `causeway-bgpd` built beside the test.

// A test may fail wherever it likes, also in what its `#[test]` functions share.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod advertise;
mod attributes;
mod best_path;
mod four_octet;
mod graceful;
mod header;
mod ipv6;
mod loops;
mod octets;
mod open;
mod peer;
mod policy;
mod reflection;
mod refresh;
mod robust;
mod runner;
mod secured;
mod session;
mod speaker;
mod timers;
mod update_errors;

macro_rules! chapters {
    ($($name:ident),* $(,)?) => {
        $(#[test]
        fn $name() {
            runner::run(stringify!($name), $crate::$name::cases());
        })*
    };
}

mod chapters {
    use crate::*;

    chapters! {
        advertise, attributes, best_path, four_octet, graceful, header, ipv6, loops, open, policy, reflection, refresh, robust,
        secured, session, timers, update_errors,
    }
}
