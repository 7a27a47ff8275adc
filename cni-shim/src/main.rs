//! `causeway-cni`: the CNI plugin.
//!
//! Purpose: gives a pod its interface, addresses and routes, and takes them away again, as the CNI specification 1.1.0
//! says. Owner of the pod's veth pair. Started by the container runtime for each operation; reads the environment and
//! standard input, answers on standard output, logs into `logFile`. No async runtime and no daemon needed: everything
//! it asks is the pod store (`causeway-ipam`) and the kernel (`causeway-kernel`).

mod add;
mod attachment;
mod check;
mod config;
mod del;
mod env;
mod error;
mod gc;
mod host_end;
mod log;
mod names;
mod plan;
mod pod_end;
mod result;
mod status;
mod version;

use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::process::ExitCode;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use config::Config;
use env::{Command, Environment};
use error::{CniError, Code};
use log::{Level, Log};
use version::Version;

/// The longest network configuration that is read, in bytes. With the results of a long chain in it, it has a few KiB.
const MAX_INPUT: u64 = 4 << 20;

fn main() -> ExitCode {
    std::panic::set_hook(Box::new(|panic| {
        // The runtime reads standard output: even a fault of ours is answered in its language there.
        let error = CniError::new(Code::Internal, "internal error").with_details(panic.to_string());
        report(&error, Version::NEWEST);
    }));
    // A panic has been reported by the hook, and unwinds through here into a non-zero status.
    match std::panic::catch_unwind(run) {
        Ok(status) => status,
        Err(_) => ExitCode::FAILURE,
    }
}

fn run() -> ExitCode {
    let mut version = Version::NEWEST;
    match dispatch(&mut version) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report(&error, version);
            ExitCode::FAILURE
        }
    }
}

/// Does what was asked. `answered_in` becomes the configuration's version as soon as it is known.
fn dispatch(answered_in: &mut Version) -> Result<(), CniError> {
    let environment = Environment::read()?;
    if environment.command == Command::Version {
        return print(&version::answer(&read_if_there()));
    }
    let config = Config::parse(&read_input()?, environment.command)?;
    *answered_in = config.version;
    let log = Log::open(config.log_file.as_deref(), config.log_level);
    log.line(Level::Debug, &format!("{environment} network={}", config.name));
    let outcome = match environment.command {
        Command::Add => add::add(&environment, &config),
        Command::Del => del::del(&environment, &config),
        Command::Check => check::check(&environment, &config),
        Command::Status => status::status(&config),
        Command::Gc => gc::gc(&config),
        Command::Version => Ok(()),
    };
    match &outcome {
        Ok(()) => log.line(Level::Info, &format!("{environment} network={} done", config.name)),
        Err(error) => {
            log.line(Level::Error, &format!("{environment} network={} failed: {error}", config.name))
        }
    }
    outcome
}

/// The network configuration from standard input.
fn read_input() -> Result<Vec<u8>, CniError> {
    let mut input = Vec::new();
    io::stdin().lock().take(MAX_INPUT + 1).read_to_end(&mut input).map_err(|error| {
        CniError::new(Code::Io, format!("network configuration cannot be read from standard input: {error}"))
    })?;
    if input.len() as u64 > MAX_INPUT {
        return Err(CniError::new(
            Code::Decode,
            format!("network configuration is longer than {MAX_INPUT} bytes"),
        ));
    }
    Ok(input)
}

/// Standard input for VERSION, which works without: nothing when nothing comes.
fn read_if_there() -> Vec<u8> {
    let stdin = io::stdin();
    let mut waiting = [PollFd::new(stdin.as_fd(), PollFlags::POLLIN)];
    let mut input = Vec::new();
    while input.len() < 65_536 && poll(&mut waiting, PollTimeout::from(100_u8)).is_ok_and(|ready| ready > 0) {
        let mut part = [0; 4096];
        match nix::unistd::read(&stdin, &mut part) {
            Ok(length) if length > 0 => input.extend_from_slice(&part[..length]),
            _ => break,
        }
    }
    input
}

/// Writes an answer to standard output.
///
/// # Errors
/// When the runtime does not take it.
fn print(answer: &serde_json::Value) -> Result<(), CniError> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{answer}")
        .and_then(|()| stdout.flush())
        .map_err(|error| CniError::new(Code::Io, format!("standard output: {error}")))
}

fn report(error: &CniError, version: Version) {
    if print(&error.to_json(version)).is_err() {
        // Standard output is gone; the exit status still tells.
        let _ = writeln!(io::stderr(), "causeway-cni: {error}");
    }
}
