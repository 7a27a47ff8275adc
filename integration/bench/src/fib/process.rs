//! The daemons that are measured here: Causeway's two, and BIRD with its kernel protocol. Not pure.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::plan::{NODE, POOLS, SPEAKER, SPEAKER_AS, SPEAKER_TOO};
use crate::addresses::PORT;
use crate::daemons::Daemon;
use crate::{place, usage};

/// How long a daemon may take until it is of use.
const START: Duration = Duration::from_secs(20);
/// How long an answer of a local socket may take.
const ANSWER: Duration = Duration::from_secs(60);
/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(5);

/// What daemons together have used.
#[derive(Debug, Clone, Copy, Default)]
pub struct Used {
    /// CPU seconds.
    pub cpu: f64,
    /// Resident memory, octets.
    pub resident: f64,
}

/// `causeway-fib-sync`, with `causeway-bgpd` where routes come by BGP.
pub struct Causeway {
    /// The route programmer.
    pub fib_sync: Daemon,
    /// The speaker.
    pub bgpd: Option<Daemon>,
    /// Where their sockets are.
    pub run_dir: PathBuf,
}

impl Causeway {
    /// Starts fib-sync, and bgpd where wanted, and waits until they can be used.
    ///
    /// # Errors
    /// Where one of them does not start.
    pub fn start(folder: &Path, binaries: &Path, with_bgpd: bool) -> Result<Causeway> {
        let (config, run_dir) = (folder.join("fabric.yaml"), folder.join("run"));
        fs::create_dir_all(&run_dir)?;
        fs::write(&config, documents())?;
        let argv = |name: &str| -> Result<Vec<String>> {
            let binary = binaries.join(name);
            ensure!(binary.exists(), "{} is missing: cargo build --release --bin {name}", binary.display());
            let line = format!("--config {} --node bench --run-dir {}", config.display(), run_dir.display());
            Ok([binary.display().to_string()].into_iter().chain(line.split(' ').map(str::to_owned)).collect())
        };
        let fib_sync = Daemon::launch(&argv("causeway-fib-sync")?, folder, "fib-sync.log")?;
        let mut causeway = Causeway { fib_sync, bgpd: None, run_dir: run_dir.clone() };
        let end = Instant::now() + START;
        while !get(&causeway.run_dir, "/readyz").is_ok_and(|answer| answer.starts_with("HTTP/1.1 200")) {
            ensure!(Instant::now() < end, "fib-sync is not ready: {}", causeway.fib_sync.log_tail());
            std::thread::sleep(PAUSE);
        }
        if with_bgpd {
            let mut argv = argv("causeway-bgpd")?;
            for address in [SPEAKER, SPEAKER_TOO] {
                argv.extend(["--listen".to_owned(), format!("{address}:{PORT}")]);
            }
            let bgpd = causeway.bgpd.insert(Daemon::launch(&argv, folder, "bgpd.log")?);
            place::wait_for_listener(START).map_err(|error| error.context(bgpd.log_tail()))?;
        }
        Ok(causeway)
    }

    /// Everything the processes have used.
    ///
    /// # Errors
    /// Where one is gone.
    pub fn used(&self) -> Result<Used> {
        let mut pids = vec![self.fib_sync.pid()];
        pids.extend(self.bgpd.as_ref().map(Daemon::pid));
        used(&pids)
    }

    /// One number of fib-sync's metrics.
    ///
    /// # Errors
    /// Where it does not answer, or there is no such number.
    pub fn metric(&self, name: &str) -> Result<f64> {
        metric(&self.run_dir, name)
    }

    /// The end of what the daemons said.
    #[must_use]
    pub fn log_tail(&self) -> String {
        let bgpd = self.bgpd.as_ref().map(Daemon::log_tail).unwrap_or_default();
        format!("{} {bgpd}", self.fib_sync.log_tail())
    }
}

/// BIRD, which takes routes by BGP and puts them into the kernel.
pub struct Bird {
    /// The daemon.
    pub daemon: Daemon,
    control: PathBuf,
}

impl Bird {
    /// Starts it; with the kernel protocol off where routes are to be gathered first.
    ///
    /// # Errors
    /// Where it does not start.
    pub fn start(folder: &Path, kernel: bool) -> Result<Bird> {
        let config = folder.join("bird.conf");
        let off = if kernel { "" } else { "disabled yes; " };
        let peers: String = ["192.0.2.2", "198.51.100.2"]
            .iter()
            .enumerate()
            .map(|(link, peer)| {
                format!(
                    "protocol bgp peer{link} {{ local as {SPEAKER_AS}; neighbor {peer} external; passive; \
                     ipv4 {{ import all; export none; }}; }}\n"
                )
            })
            .collect();
        let text = format!(
            "log stderr {{ warning, error, auth, fatal, bug }};\nrouter id {SPEAKER};\n\
             protocol device {{ }}\nprotocol direct {{ ipv4; }}\n\
             protocol kernel k4 {{ {off}ipv4 {{ export where source = RTS_BGP; }}; }}\n{peers}"
        );
        fs::write(&config, text)?;
        let control = folder.join("bird.ctl");
        let line = format!("/usr/sbin/bird -f -c {} -s {}", config.display(), control.display());
        let mut argv: Vec<String> = line.split(' ').map(str::to_owned).collect();
        argv.extend(["-P".to_owned(), folder.join("bird.pid").display().to_string()]);
        let daemon = Daemon::launch(&argv, folder, "bird.log")?;
        place::wait_for_listener(START).map_err(|error| error.context(daemon.log_tail()))?;
        let bird = Bird { daemon, control };
        let end = Instant::now() + START;
        while bird.ask("show status").is_err() {
            ensure!(Instant::now() < end, "BIRD does not answer: {}", bird.daemon.log_tail());
            std::thread::sleep(PAUSE);
        }
        Ok(bird)
    }

    /// What it has used.
    ///
    /// # Errors
    /// Where it is gone.
    pub fn used(&self) -> Result<Used> {
        used(&[self.daemon.pid()])
    }

    /// Turns the kernel protocol on.
    ///
    /// # Errors
    /// Where BIRD does not answer.
    pub fn enable_kernel(&self) -> Result<()> {
        self.ask("enable k4").map(drop)
    }

    /// Waits until this many routes came by BGP.
    ///
    /// # Errors
    /// Where they do not come in time.
    pub fn wait_for_routes(&self, routes: usize, deadline: Instant) -> Result<()> {
        loop {
            let text = self.ask("show route count protocol peer0")?;
            let number =
                text.lines().find_map(|line| line.split_once(" of ")?.0.trim().parse::<usize>().ok());
            if number.is_some_and(|number| number >= routes) {
                return Ok(());
            }
            if Instant::now() >= deadline {
                bail!("BIRD has not all routes: {}", text.trim());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn ask(&self, what: &str) -> Result<String> {
        let output = Command::new("birdc")
            .arg("-s")
            .arg(&self.control)
            .args(what.split(' '))
            .output()
            .context("birdc")?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(output.status.success(), "birdc {what}: {text}");
        Ok(text)
    }
}

/// Waits until a number of fib-sync's metrics is beyond what it was.
///
/// # Errors
/// Where it is not, in time.
pub fn wait_beyond(run_dir: &Path, name: &str, before: f64, deadline: Instant) -> Result<()> {
    while metric(run_dir, name)? <= before {
        ensure!(Instant::now() < deadline, "{name} of fib-sync stays {before}");
        std::thread::sleep(PAUSE);
    }
    Ok(())
}

fn metric(run_dir: &Path, name: &str) -> Result<f64> {
    let text = get(run_dir, "/metrics")?;
    text.lines()
        .find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
        .with_context(|| format!("no {name} among the metrics of fib-sync"))
}

/// The answer of fib-sync's local API, head and body.
fn get(run_dir: &Path, path: &str) -> Result<String> {
    let mut stream = UnixStream::connect(run_dir.join("fib-sync.sock"))?;
    stream.set_read_timeout(Some(ANSWER))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// The documents of the node: pools that hold all routes, and its two peers.
fn documents() -> String {
    let api = "apiVersion: causeway.dev/v1alpha1";
    let [v4, v6] = NODE[0];
    let mut text = format!(
        "{api}\nkind: Node\nmetadata: {{name: bench}}\n\
         spec: {{bgp: {{ipv4Address: {v4}, ipv6Address: \"{v6}\", routerID: {SPEAKER}, asNumber: {SPEAKER_AS}}}}}\n---\n\
         {api}\nkind: BGPConfiguration\nmetadata: {{name: default}}\n\
         spec: {{nodeToNodeMeshEnabled: false}}\n---\n\
         {api}\nkind: BGPFilter\nmetadata: {{name: all}}\n\
         spec: {{importV4: [{{action: Accept}}], exportV4: [{{action: Reject}}]}}\n"
    );
    for (number, pool) in POOLS.iter().enumerate() {
        text += &format!(
            "---\n{api}\nkind: IPPool\nmetadata: {{name: pool{number}}}\nspec: {{cidr: \"{pool}\"}}\n"
        );
    }
    for (number, peer) in ["192.0.2.0/24", "198.51.100.0/24"].iter().enumerate() {
        text += &format!(
            "---\n{api}\nkind: BGPPeer\nmetadata: {{name: peer{number}}}\n\
             spec: {{peerRange: {peer}, asNumber: external, families: [ipv4], filters: [all]}}\n"
        );
    }
    text
}

fn used(pids: &[u32]) -> Result<Used> {
    let mut all = Used::default();
    for pid in pids {
        all.cpu += usage::fine_cpu(*pid)?.as_secs_f64();
        all.resident += usage::resident(*pid)? as f64;
    }
    Ok(all)
}
