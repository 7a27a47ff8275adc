//! `causeway`: asks the daemons of a node what they know, and tells them the few things that can be told.
//!
//! Owns nothing. Talks HTTP with JSON to the sockets in the run folder; `check` and `crds` need no daemon at all.
//! Exit status: 0; 1 where a daemon answers no or documents are bad; 2 where a daemon cannot be reached or the words
//! are off.

mod check;
mod client;
mod doctor;
mod fib;
mod ipam;
mod node;
mod peers;
mod render;
mod routes;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use causeway_api::control::{DEFAULT_RUN_DIR, Family};
use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};

use crate::client::Client;
use crate::render::{Format, Output};

const EXAMPLES: &str = "\
Examples:
  causeway show peers                         every session of this node
  causeway show routes                        what won, own prefixes included
  causeway show routes 10.244.2.0/24          every path, which won, why each other lost
  causeway show routes learned --peer 192.0.2.1 -o json
  causeway show fib                           desired against installed, and why this way
  causeway doctor mtu --all                   the largest packet to and from every node
  causeway check -f documents/ --node node-a1 what these documents would make of the node
  causeway --run-dir /run/node-b show node    another node on the same machine";

/// Asks a Causeway node what it advertised, learned and programmed, and why.
#[derive(Parser)]
#[command(name = "causeway", version, after_help = EXAMPLES)]
struct Cli {
    /// Run folder of the node that is asked
    #[arg(long, global = true, value_name = "DIR", default_value = DEFAULT_RUN_DIR, env = "CAUSEWAY_RUN_DIR")]
    run_dir: PathBuf,

    /// How to print: a table for people, JSON or YAML for programs
    #[arg(short, long, global = true, value_enum, default_value_t = Format::Table)]
    output: Format,

    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Show what the node knows
    #[command(subcommand)]
    Show(Show),
    /// Validate documents, and print a node's configuration (dry run; no daemon is asked)
    #[command(
        after_help = "Examples:\n  causeway check -f documents/\n  causeway check -f documents/ --node node-a1"
    )]
    Check(check::CheckArgs),
    /// Find out what is wrong: without a word, what does not hold of the node; `mtu` measures the paths to other nodes
    #[command(after_help = doctor::EXAMPLES)]
    Doctor {
        #[command(subcommand)]
        command: Option<doctor::DoctorCommand>,
    },
    /// Reset, disable or enable a peer
    #[command(subcommand)]
    Peer(PeerCommand),
    /// Print the CustomResourceDefinitions of the documents
    Crds,
    /// Print a completion script
    #[command(after_help = "Example:\n  causeway completions bash > /etc/bash_completion.d/causeway")]
    Completions {
        /// For which shell
        shell: clap_complete::Shell,
    },
}

#[derive(Subcommand)]
enum Show {
    /// State, AS, uptime, timers as negotiated, prefixes, last error
    #[command(after_help = "Examples:\n  causeway show peers\n  causeway show peers 192.0.2.1")]
    Peers {
        /// Only this one, in full
        peer: Option<String>,
    },
    /// What was learned, what is advertised, what won; refused paths included, with the rule that refused them.
    /// Sorted by prefix; more than 4,096 rows are printed as they come
    #[command(after_help = "Examples:\n  causeway show routes\n  causeway show routes 10.244.2.0/24\n  \
        causeway show routes learned --peer 192.0.2.1\n  causeway show routes advertised --family ipv6 -o json\n  \
        causeway show routes 10.244.0.0/16 --longer")]
    Routes(RoutesArgs),
    /// Desired routes against the kernel: device, next hops, direct or tunnel and why
    Fib {
        /// Only this destination
        prefix: Option<ipnetwork::IpNetwork>,
    },
    /// Blocks of pod addresses: used, free, quarantined
    Ipam {
        /// List every address with its pod
        #[arg(long)]
        blocks: bool,
    },
    /// Addresses, MTU, conditions, the configuration in force and the last refused one
    Node,
}

/// Arguments of `show routes`.
#[derive(Args)]
pub struct RoutesArgs {
    /// learned, advertised or best, then a prefix; without a word: best
    #[arg(value_name = "learned|advertised|best] [PREFIX", num_args = 0..=2)]
    words: Vec<String>,
    /// Only from or to this peer
    #[arg(long, value_name = "IP")]
    peer: Option<String>,
    /// Only this family
    #[arg(long, value_enum)]
    family: Option<FamilyArg>,
    /// The prefix and everything inside it
    #[arg(long)]
    longer: bool,
}

/// A family as a word.
#[derive(Clone, Copy, ValueEnum)]
enum FamilyArg {
    /// IPv4 unicast
    Ipv4,
    /// IPv6 unicast
    Ipv6,
}

impl From<FamilyArg> for Family {
    fn from(family: FamilyArg) -> Family {
        match family {
            FamilyArg::Ipv4 => Family::Ipv4,
            FamilyArg::Ipv6 => Family::Ipv6,
        }
    }
}

#[derive(Subcommand)]
enum PeerCommand {
    /// End the session and start it anew; with --soft only the routes, without touching the session
    #[command(
        after_help = "Examples:\n  causeway peer reset 192.0.2.1\n  causeway peer reset 192.0.2.1 --soft in"
    )]
    Reset {
        /// Address of the peer
        peer: String,
        /// Judge what the peer sent anew (in), or send it everything again (out)
        #[arg(long, value_enum)]
        soft: Option<Soft>,
        /// Told to the peer (RFC 9003)
        #[arg(long)]
        message: Option<String>,
    },
    /// Hold the session down until `enable`, or until the daemon starts again
    Disable {
        /// Address of the peer
        peer: String,
        /// Told to the peer (RFC 9003)
        #[arg(long)]
        message: Option<String>,
    },
    /// Let a disabled peer come up again
    Enable {
        /// Address of the peer
        peer: String,
    },
}

#[derive(Clone, Copy, ValueEnum)]
enum Soft {
    /// What the peer sent
    In,
    /// What it is sent
    Out,
}

/// Why a command failed; decides the exit status.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A daemon answered no.
    #[error("{0}")]
    Refused(String),
    /// A daemon cannot be reached, or does not answer as it should.
    #[error("{0}")]
    Unreachable(String),
    /// The words are off.
    #[error("{0}")]
    Usage(String),
    /// Standard output is gone.
    #[error("cannot write: {0}")]
    Output(#[from] std::io::Error),
}

impl Error {
    fn exit_code(&self) -> u8 {
        match self {
            Error::Refused(_) => 1,
            Error::Unreachable(_) | Error::Usage(_) | Error::Output(_) => 2,
        }
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let output = Output::new(cli.output);
    match run(&cli, &output) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Error::Output(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "causeway: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}

fn run(cli: &Cli, output: &Output) -> Result<(), Error> {
    let client = Client::new(&cli.run_dir);
    match &cli.command {
        Command::Show(Show::Peers { peer }) => peers::show(&client, output, peer.as_deref()),
        Command::Show(Show::Routes(args)) => routes::show(&client, output, args),
        Command::Show(Show::Fib { prefix }) => fib::show(&client, output, *prefix),
        Command::Show(Show::Ipam { blocks }) => ipam::show(&client, output, *blocks),
        Command::Show(Show::Node) => node::show(&client, output),
        Command::Doctor { command } => doctor::run(&client, output, command.as_ref()),
        Command::Check(args) => check::run(args, output),
        Command::Peer(command) => peers::command(&client, output, command),
        Command::Crds => output.yaml_documents(&causeway_api::resource::crds()),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Cli::command(), "causeway", &mut script);
            Ok(std::io::stdout().write_all(&script)?)
        }
    }
}
