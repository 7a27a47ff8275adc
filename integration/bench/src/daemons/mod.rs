//! The daemons that are measured: how each is configured, started and ended. Not pure.
//!
//! Each runs as its package ships it, without kernel routes, with passive peers out of two ranges of addresses, and accepts and
//! passes on everything.

mod bird;
mod causeway;
mod frr;
mod gobgp;

use std::fmt;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::addresses::Peer;
use crate::place;
use crate::relay::{Fault, Rule};

/// How long a daemon may take until it listens.
const START: Duration = Duration::from_secs(20);

/// A daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Target {
    /// `causeway-bgpd`; as a reflector `causeway-route-reflector`.
    Causeway,
    /// BIRD 2.
    Bird,
    /// FRR's bgpd, alone.
    Frr,
    /// GoBGP.
    Gobgp,
    /// This tool, copying messages: the floor.
    Relay,
}

/// What a daemon is to be.
#[derive(Debug, Clone, Copy)]
pub struct Setup<'a> {
    /// Folder of its own.
    pub folder: &'a Path,
    /// Where Causeway's binaries are.
    pub binaries: &'a Path,
    /// iBGP peers are clients.
    pub reflector: bool,
    /// All peers there will be.
    pub peers: &'a [Peer],
    /// What a relay copies to whom.
    pub rule: Rule,
    /// What a relay does wrong.
    pub fault: Option<Fault>,
    /// Hold time the daemon offers where that can be said in seconds; `None`: its own default.
    pub hold_time: Option<u16>,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name().to_lowercase())
    }
}

impl Target {
    /// How it is called in tables.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Target::Causeway => "Causeway",
            Target::Bird => "BIRD",
            Target::Frr => "FRR",
            Target::Gobgp => "GoBGP",
            Target::Relay => "relay",
        }
    }

    /// Binds to no core by itself: it inherits those of this process. Waits until it listens.
    ///
    /// # Errors
    /// Where it cannot start.
    pub fn start(self, setup: &Setup<'_>) -> Result<Daemon> {
        let argv = match self {
            Target::Causeway => causeway::prepare(setup)?,
            Target::Bird => bird::prepare(setup)?,
            Target::Frr => frr::prepare(setup)?,
            Target::Gobgp => gobgp::prepare(setup)?,
            Target::Relay => relay(setup)?,
        };
        let mut daemon = Daemon::launch(&argv, setup.folder, "log")?;
        if let Err(error) = place::wait_for_listener(START) {
            let ended = daemon.child.try_wait()?.map(|status| format!(" ({status})")).unwrap_or_default();
            bail!("{}{ended}: {error}: {}", self.name(), daemon.log_tail());
        }
        Ok(daemon)
    }
}

fn relay(setup: &Setup<'_>) -> Result<Vec<String>> {
    let mut argv = vec![std::env::current_exe()?.display().to_string(), "relay".to_owned()];
    argv.extend(["--rule".to_owned(), setup.rule.to_string()]);
    if let Some(fault) = setup.fault {
        argv.extend(["--fault".to_owned(), fault.to_string()]);
    }
    Ok(argv)
}

/// A running daemon; killed when dropped.
pub struct Daemon {
    child: Child,
    log: PathBuf,
}

impl Daemon {
    /// Starts a command line in this folder, where it writes what it says to this file.
    ///
    /// # Errors
    /// Where it cannot be started.
    pub fn launch(argv: &[String], folder: &Path, log: &str) -> Result<Daemon> {
        let log = folder.join(log);
        let file = File::create(&log)?;
        // The daemon goes when this process goes, however it goes.
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--"])
            .args(argv)
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .context("setpriv")?;
        Ok(Daemon { child, log })
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The end of what it said.
    #[must_use]
    pub fn log_tail(&self) -> String {
        let text = fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text).into_owned();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(6)..].join(" | ")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A command line of words.
fn words(line: &str) -> Vec<String> {
    line.split_whitespace().map(str::to_owned).collect()
}
