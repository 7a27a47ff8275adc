//! `causeway-lab`: builds containerlab topologies out of network namespaces.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use causeway_integration::lab::{Lab, Options, remove};
use causeway_integration::state::LabState;
use causeway_integration::until::until;
use causeway_integration::{demo, guest, init, topology};
use clap::{Args, Parser, Subcommand};
use nix::sys::signal::{SigSet, Signal};

/// Writes a line to standard output; a reader that has seen enough (`| head`) is no error.
macro_rules! say {
    ($($part:tt)*) => {
        let _ = writeln!(std::io::stdout(), $($part)*);
    };
}

/// How long `up` waits for the fabric; it stays up in any case.
const SETTLE: Duration = Duration::from_secs(30);

/// Builds containerlab topologies out of network namespaces, with the routers of this machine in them.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "Examples:
  causeway-lab up integration/topologies/two-racks/two-racks.clab.yml
  causeway-lab exec integration/topologies/two-racks/two-racks.clab.yml tor-a -- vtysh -c 'show bgp summary'
  causeway-lab down integration/topologies/two-racks/two-racks.clab.yml"
)]
struct Cli {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Action,
}

#[derive(Debug, Args)]
struct Common {
    /// Folder of Causeway's binaries (default: that of causeway-lab itself).
    #[arg(long, global = true, value_name = "DIR", env = "CAUSEWAY_BIN_DIR")]
    bin_dir: Option<PathBuf>,
    /// Replaces the prefix of the topology, so that one topology can be up several times.
    #[arg(long, global = true, value_name = "PREFIX", env = "CAUSEWAY_LAB_PREFIX")]
    prefix: Option<String>,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Builds the lab of a topology file and leaves it up.
    Up {
        /// The topology file.
        file: PathBuf,
        /// Adds this many pods to every Causeway node, through the CNI plugin.
        #[arg(long, value_name = "N", default_value_t = 0)]
        pods: usize,
    },
    /// The tour: builds two racks, pings, captures, kills a node, takes all down again.
    Demo {
        /// The topology file of two-racks.
        file: PathBuf,
    },
    /// Takes a lab down; one that is not up, or half up, is no error.
    Down {
        /// The topology file.
        file: PathBuf,
    },
    /// Runs a command in a node or pod of a lab.
    Exec {
        /// The topology file.
        file: PathBuf,
        /// Node or pod.
        place: String,
        /// The command (default: a shell).
        #[arg(last = true)]
        command: Vec<String>,
    },
    /// Shows the nodes, daemons and pods of a lab, and how to enter them.
    Show {
        /// The topology file.
        file: PathBuf,
    },
    /// Process 1 of a node.
    #[command(hide = true)]
    Init {
        /// What to set up.
        spec: PathBuf,
    },
    /// Process 1 of a user-mode Linux guest.
    #[command(hide = true)]
    GuestInit {
        /// The job's folder.
        dir: PathBuf,
        /// What the kernel adds of its own.
        #[arg(trailing_var_arg = true)]
        _rest: Vec<String>,
    },
}

fn main() -> ExitCode {
    match act(Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("causeway-lab: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn act(cli: Cli) -> Result<ExitCode> {
    let options = |tied| -> Result<Options> {
        let lab_binary = std::env::current_exe().context("finding causeway-lab itself")?;
        let bin_dir = match &cli.common.bin_dir {
            Some(dir) => dir.clone(),
            None => lab_binary.parent().context("causeway-lab has no folder")?.to_owned(),
        };
        Ok(Options { bin_dir, lab_binary, prefix: cli.common.prefix.clone(), tied })
    };
    let open = |file: &PathBuf| -> Result<Lab> {
        let topology = topology::load(file)?;
        let prefix = cli.common.prefix.clone().unwrap_or(topology.prefix);
        Lab::open(&prefix, &topology.name, options(false)?)
    };
    match &cli.command {
        Action::Init { spec } => init::run(spec)?,
        Action::GuestInit { dir, .. } => guest::init(dir),
        Action::Up { file, pods } => {
            let topology = topology::load(file)?;
            let lab = Lab::up(&topology, file, options(false)?, &|step| {
                say!("  {step}");
            })?;
            demo::add_pods(&lab, *pods)?;
            say!("  sessions and routes");
            if let Err(error) = until(SETTLE, || lab.fabric_is_complete()) {
                say!("  up, but the fabric is not complete: {error:#}");
            }
            show(&lab, cli.common.prefix.as_deref());
        }
        Action::Demo { file } => demo::run(file, options(true)?)?,
        Action::Down { file } => {
            let topology = topology::load(file)?;
            let prefix = cli.common.prefix.as_ref().unwrap_or(&topology.prefix);
            if let Some(state) = LabState::read(&LabState::dir_of(prefix, &topology.name))? {
                remove(&state)?;
            }
        }
        Action::Exec { file, place, command } => {
            let lab = open(file)?;
            let mut words: Vec<&str> = command.iter().map(String::as_str).collect();
            if words.is_empty() {
                words.push("bash");
            }
            let mut child = lab.spawn_here(place, &words)?;
            // Ctrl-C is for the command: it ends, says its last words, and this process with it.
            let mut interrupt = SigSet::empty();
            interrupt.add(Signal::SIGINT);
            interrupt.thread_block()?;
            let status = child.wait()?;
            let code = status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1);
            return Ok(ExitCode::from(code));
        }
        Action::Show { file } => show(&open(file)?, cli.common.prefix.as_deref()),
    }
    Ok(ExitCode::SUCCESS)
}

fn show(lab: &Lab, prefix: Option<&str>) {
    let state = lab.state();
    say!("lab {} ({})", state.name, state.dir().display());
    let width = state.nodes.keys().chain(state.pods.keys()).map(String::len).max().unwrap_or(0);
    for (name, node) in &state.nodes {
        let daemons: Vec<String> = node
            .daemons
            .iter()
            .map(|daemon| {
                let mark = if daemon.process.is_alive() { "" } else { " (ended)" };
                format!("{}{mark}", daemon.name)
            })
            .collect();
        say!("  {name:width$}  {}  {}", node.image, daemons.join(" "));
    }
    for (name, pod) in &state.pods {
        let addresses: Vec<String> = pod.addresses().iter().map(ToString::to_string).collect();
        say!("  {name:width$}  pod on {}  {}", pod.node, addresses.join(" "));
    }
    let exe =
        std::env::current_exe().map_or_else(|_| "causeway-lab".to_owned(), |exe| exe.display().to_string());
    // What was given to replace the topology's prefix must be given again.
    let exe = prefix.map_or(exe.clone(), |prefix| format!("{exe} --prefix {prefix}"));
    let file = state.file.display();
    if let Some(name) = state.nodes.keys().next() {
        say!("a shell in one:  {exe} exec {file} {name}");
        say!("or a command:    {exe} exec {file} {name} -- ip route");
        say!("or by hand:      {}", lab.enter_line(name));
        say!("take it down:    {exe} down {file}");
    }
}
