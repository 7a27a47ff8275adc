//! `doctor`: finds out what is wrong. Without a word, the conditions of the node that do not hold; `doctor mtu` measures the
//! paths to other nodes.

mod mtu;
mod path;
mod search;

use causeway_api::control::ConditionStatus;
use clap::Subcommand;

use crate::client::Client;
use crate::render::Output;
use crate::{Error, node};

/// Shown after the help.
pub const EXAMPLES: &str = "\
Examples:
  causeway doctor                    what does not hold of this node
  causeway doctor mtu --all          the largest packet to and from every other node
  causeway doctor mtu node-b1 -o json

Exit status: 0 where all is well, 1 where something is wrong, 2 where a daemon cannot be reached.";

/// What to look into.
#[derive(Subcommand)]
pub enum DoctorCommand {
    /// The largest packet that passes to and from other nodes, and where a black hole begins. Sends probes that must not
    /// be fragmented along the path of pods' packets (UDP port 1790, answered by the other node's fib-sync)
    Mtu(mtu::MtuArgs),
}

/// Runs it.
pub fn run(client: &Client, output: &Output, command: Option<&DoctorCommand>) -> Result<(), Error> {
    match command {
        Some(DoctorCommand::Mtu(args)) => mtu::run(client, output, args),
        None => conditions(client, output),
    }
}

fn conditions(client: &Client, output: &Output) -> Result<(), Error> {
    let mut conditions = node::gather(client)?.conditions;
    conditions.retain(|condition| condition.status != ConditionStatus::True);
    output.print(&conditions, |output| match conditions.is_empty() {
        true => "every condition of this node holds\n".to_owned(),
        false => node::conditions(output, &conditions),
    })?;
    match conditions.len() {
        0 => Ok(()),
        1 => Err(Error::Refused("1 condition does not hold".to_owned())),
        count => Err(Error::Refused(format!("{count} conditions do not hold"))),
    }
}
