//! `causeway-bench fib`: routes into the kernel, beside a bare loop, BIRD and FRR.
//!
//! Owner of the rounds: one process for each measurement, all subjects in turn, as many rounds as wanted. Not pure.

mod bars;
mod feed;
mod flap;
mod job;
mod load;
mod lost;
mod measure;
mod message;
mod netlink;
mod node;
mod peer;
mod plan;
mod process;
mod resync;
mod routers;
mod watch;

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use clap::ValueEnum;

use self::job::{Figures, Job, Step, Subject};
use self::measure::Options;
use crate::document;

/// What to measure.
#[derive(Debug, Clone, clap::Args)]
pub struct Wanted {
    /// One round with fewer routes, in a minute
    #[arg(long)]
    pub quick: bool,

    /// Rounds [default: 3, with --quick 1]
    #[arg(long)]
    pub runs: Option<usize>,

    /// Measure only this [default: everything]
    #[arg(long, value_enum, value_delimiter = ',')]
    pub only: Vec<Step>,

    /// With these only [default: all]
    #[arg(long, value_enum, value_delimiter = ',')]
    pub subjects: Vec<Subject>,

    /// Seconds a route flaps in each round [default: 20, with --quick 3]
    #[arg(long)]
    pub flap_seconds: Option<u64>,

    /// Write every measurement here, as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,

    /// Print the tables of measurements in this file instead of measuring
    #[arg(long, value_name = "FILE", conflicts_with = "json")]
    pub from: Option<PathBuf>,

    /// Put the tables into this document as well, between <!-- fib:begin --> and <!-- fib:end -->
    #[arg(long, value_name = "FILE")]
    pub document: Option<PathBuf>,

    /// How each measurement is done
    #[command(flatten)]
    pub options: Options,
}

/// One measurement, its figures as JSON.
#[derive(Debug, Clone, clap::Args)]
pub struct One {
    /// What
    #[command(flatten)]
    pub job: Job,
    /// An empty folder
    #[arg(long)]
    pub folder: PathBuf,
    /// How it is done
    #[command(flatten)]
    pub options: Options,
}

/// Measures everything and prints it. It is no failure where a bar is not reached.
///
/// # Errors
/// Where a process cannot be started, or a file cannot be read or written.
pub fn run(wanted: &Wanted) -> Result<()> {
    let all = match &wanted.from {
        Some(file) => {
            let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
            serde_json::from_str(&text).with_context(|| file.display().to_string())?
        }
        None => rounds(wanted)?,
    };
    let text = bars::report(&all);
    write!(std::io::stdout(), "{text}")?;
    match &wanted.document {
        Some(document) => document::put("fib", &text, document),
        None => Ok(()),
    }
}

fn rounds(wanted: &Wanted) -> Result<Vec<Figures>> {
    let rounds = wanted.runs.unwrap_or(if wanted.quick { 1 } else { 3 });
    let mut jobs = job::all(wanted.quick, wanted.flap_seconds.unwrap_or(if wanted.quick { 3 } else { 20 }));
    jobs.retain(|job| wanted.only.is_empty() || wanted.only.contains(&job.step));
    jobs.retain(|job| wanted.subjects.is_empty() || wanted.subjects.contains(&job.subject));
    let mut all = Vec::new();
    // What is compared stands together, round after round, so that what disturbs the machine disturbs all of it.
    for same in jobs.chunk_by(|one, other| {
        one.step == other.step
            && one.family == other.family
            && (one.routes == other.routes || one.step == Step::Flap)
    }) {
        for round in 0..rounds {
            for job in same {
                let mut figures = one(*job, &wanted.options)?;
                figures.round = round;
                eprintln!("{}", bars::line(&figures));
                all.push(figures);
                if let Some(file) = &wanted.json {
                    std::fs::write(file, serde_json::to_string_pretty(&all)?)?;
                }
            }
        }
    }
    Ok(all)
}

/// Does one measurement in this process and prints it as JSON.
///
/// # Errors
/// Where it cannot be printed.
pub fn measure(one: &One) -> Result<()> {
    let figures = measure::run(one.job, &one.options, &one.folder);
    writeln!(std::io::stdout(), "{}", serde_json::to_string(&figures)?)?;
    Ok(())
}

fn one(job: Job, options: &Options) -> Result<Figures> {
    let folder = tempfile::Builder::new().prefix("causeway-bench-").tempdir()?;
    let name = |value: Option<clap::builder::PossibleValue>| {
        value.map(|value| value.get_name().to_owned()).unwrap_or_default()
    };
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["fib-measure", "--step", &job.step.to_string(), "--subject", &job.subject.to_string()]);
    command.args(["--family", &name(job.family.to_possible_value())]);
    command.args(["--routes", &job.routes.to_string(), "--seconds", &job.seconds.to_string()]);
    command.args(["--limit", &options.limit.to_string()]).arg("--folder").arg(folder.path());
    if let Some(binaries) = &options.bin_dir {
        command.arg("--bin-dir").arg(std::path::absolute(binaries)?);
    }
    let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(&text).with_context(|| format!("{}: no result: {text}", job.title()))
}
