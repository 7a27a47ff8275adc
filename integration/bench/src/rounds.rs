//! Runs, one process each, interleaved: every daemon once, then every daemon once more. Not pure.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use crate::daemons::Target;
use crate::measure::Options;
use crate::measured::{Measured, Outcome};
use crate::report;
use crate::scenario::{self, Scenario};

/// What to run.
#[derive(Debug, Clone, clap::Args)]
pub struct Wanted {
    /// Scenarios, by name; `E` is E-warm and E-cold, `all` is all
    #[arg(long, value_delimiter = ',', default_value = "all")]
    pub scenario: Vec<String>,

    /// Daemons, in the order in which they take turns
    #[arg(long, value_enum, value_delimiter = ',', default_value = "causeway,bird,relay")]
    pub daemons: Vec<Target>,

    /// Rounds
    #[arg(long, default_value_t = 3)]
    pub runs: usize,

    /// Daemons that take part in the first round only: those that would take hours
    #[arg(long, value_enum, value_delimiter = ',')]
    pub once: Vec<Target>,

    /// Write every run here, as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,

    /// How each run is done
    #[command(flatten)]
    pub options: Options,
}

/// Runs everything and prints it; true where all of Causeway's runs ended well.
///
/// # Errors
/// Where a process cannot be started, or the file cannot be written.
pub fn run(wanted: &Wanted) -> Result<bool> {
    let scenarios = scenario::by_names(&wanted.scenario)?;
    let mut all: Vec<Measured> = Vec::new();
    let mut out = std::io::stdout();
    for scenario in &scenarios {
        for round in 0..wanted.runs {
            for daemon in &wanted.daemons {
                let over = round > 0 && wanted.once.contains(daemon);
                if over || !scenario.load.suits(*daemon) {
                    continue;
                }
                let mut measured = one(scenario, *daemon, round, wanted)?;
                measured.round = round;
                eprintln!("{}", report::line(&measured));
                all.push(measured);
                if let Some(file) = &wanted.json {
                    std::fs::write(file, serde_json::to_string_pretty(&all)?)?;
                }
            }
        }
        let of: Vec<&Measured> = all.iter().filter(|measured| measured.scenario == scenario.name).collect();
        writeln!(out, "{}", report::table(scenario, wanted.options.scale, &of))?;
    }
    let wrong: Vec<String> = all.iter().filter(|measured| fails(measured)).map(report::line).collect();
    if !wrong.is_empty() {
        writeln!(out, "FAILED runs:\n{}", wrong.join("\n"))?;
    }
    Ok(wrong.is_empty())
}

/// A run of ours that did not end well. How a peer fares is a figure, whatever it is.
fn fails(of: &Measured) -> bool {
    of.outcome != Outcome::Complete && matches!(of.daemon, Target::Causeway | Target::Relay)
}

/// One run in a process of its own.
fn one(scenario: &Scenario, daemon: Target, round: usize, wanted: &Wanted) -> Result<Measured> {
    let folder = tempfile::Builder::new().prefix("causeway-bench-").tempdir()?;
    let options = &wanted.options;
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["measure", "--name", &scenario.name, "--daemon", &daemon.to_string()]);
    command.args(["--scale", &options.scale.to_string(), "--cores", &options.cores.to_string()]);
    command.args(["--limit", &options.limit.to_string()]).arg("--folder").arg(folder.path());
    command.args(["--seed", &(options.seed + round as u64).to_string()]);
    if options.patient {
        command.arg("--patient");
    }
    if let Some(settle) = options.settle {
        command.args(["--settle", &settle.to_string()]);
    }
    if let Some(binaries) = &options.bin_dir {
        command.arg("--bin-dir").arg(std::path::absolute(binaries)?);
    }
    if let Some(fault) = options.fault {
        command.args(["--fault", &fault.to_string()]);
    }
    let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(&text).with_context(|| format!("{} {daemon}: no result: {text}", scenario.name))
}
