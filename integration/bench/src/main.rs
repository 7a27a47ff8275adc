//! `causeway-bench`: a load generator, and benchmarks of Causeway beside other speakers.

mod addresses;
mod churn;
mod daemons;
mod document;
mod fib;
mod fleet;
mod idle;
mod interned;
mod latency;
mod measure;
mod measured;
mod place;
mod random;
mod relay;
mod report;
mod rounds;
mod scenario;
mod session;
mod slow;
mod tables;
mod usage;
mod wire;
mod workload;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};

/// Feeds BGP speakers, checks what comes out of them, and says how long it took.
#[derive(Parser)]
#[command(name = "causeway-bench", version)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Run scenarios with some daemons in turn, and print tables
    Run(rounds::Wanted),
    /// Routes into the kernel: fib-sync beside a bare loop, BIRD and FRR
    Fib(fib::Wanted),
    /// One measurement of `fib`, its figures as JSON
    #[command(hide = true)]
    FibMeasure(fib::One),
    /// List the scenarios
    List,
    /// Put the tables of runs into a document, between <!-- bench:begin --> and <!-- bench:end -->
    Document {
        /// Files of runs, from `run --json`
        #[arg(long, value_name = "FILE")]
        json: Vec<PathBuf>,
        /// The document
        document: PathBuf,
    },
    /// One run, its result as JSON
    #[command(hide = true)]
    Measure {
        /// The scenario
        #[arg(long)]
        name: String,
        /// The daemon
        #[arg(long, value_enum)]
        daemon: daemons::Target,
        /// An empty folder
        #[arg(long)]
        folder: PathBuf,
        /// How it is done
        #[command(flatten)]
        options: measure::Options,
    },
    /// Be the floor
    #[command(hide = true)]
    Relay {
        /// Who gets what
        #[arg(long, value_enum)]
        rule: relay::Rule,
        /// What to do wrong
        #[arg(long, value_enum)]
        fault: Option<relay::Fault>,
    },
}

fn main() -> ExitCode {
    match run(Cli::parse().verb) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("causeway-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(verb: Verb) -> Result<bool> {
    match verb {
        Verb::Run(wanted) => rounds::run(&wanted),
        Verb::Fib(wanted) => fib::run(&wanted).map(|()| true),
        Verb::FibMeasure(one) => fib::measure(&one).map(|()| true),
        Verb::List => {
            let mut out = std::io::stdout();
            for scenario in scenario::all() {
                writeln!(out, "{:12} {}", scenario.name, scenario.title)?;
            }
            Ok(true)
        }
        Verb::Measure { name, daemon, folder, options } => {
            let scenario = scenario::by_names(std::slice::from_ref(&name))?;
            let scenario = scenario.first().context("a scenario")?;
            let measured = measure::run(scenario, daemon, &options, &folder)?;
            writeln!(std::io::stdout(), "{}", serde_json::to_string(&measured)?)?;
            Ok(true)
        }
        Verb::Document { json, document } => document::write(&json, &document).map(|()| true),
        Verb::Relay { rule, fault } => relay::run(rule, fault).map(|()| true),
    }
}
