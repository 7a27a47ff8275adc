//! `causeway-route-reflector`: the speaker in the reflector role.
//!
//! The same speaker as `causeway-bgpd`, without kernel and without blocks of its own: it accepts what its clients send,
//! reflects it (RFC 4456), and counts every next hop as reachable, since no packet goes through it.

use std::process::ExitCode;

use causeway_bgpd::core::config::Role;
use causeway_bgpd::run::{self, SpeakerArgs};
use clap::Parser;

/// Reflects routes between its clients.
#[derive(Parser)]
#[command(name = "causeway-route-reflector", version)]
struct Cli {
    #[command(flatten)]
    args: SpeakerArgs,
}

fn main() -> ExitCode {
    let mut args = Cli::parse().args;
    args.no_fib = true;
    run::main(args, Role::Reflector)
}
