//! What is common to the daemons that are measured here, and Causeway's two. Not pure.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};

use super::plan::{NODE, POOLS, SPEAKER, SPEAKER_AS, SPEAKER_TOO};
use crate::addresses::PORT;
use crate::daemons::Daemon;
use crate::{place, usage};

/// How long a daemon may take until it is of use.
pub const START: Duration = Duration::from_secs(20);
/// How long an answer of a local socket may take.
const ANSWER: Duration = Duration::from_secs(60);
/// Pause between two looks.
pub const PAUSE: Duration = Duration::from_millis(5);

/// What daemons together have used.
#[derive(Debug, Clone, Copy, Default)]
pub struct Used {
    /// CPU seconds.
    pub cpu: f64,
    /// Resident memory, octets.
    pub resident: f64,
}

/// A daemon, or several, that take routes by BGP and put them into the kernel.
pub trait Speaker {
    /// Everything the processes have used.
    ///
    /// # Errors
    /// Where one is gone.
    fn used(&self) -> Result<Used>;

    /// CPU seconds of the one that writes to the kernel.
    ///
    /// # Errors
    /// Where it is gone.
    fn writer_cpu(&self) -> Result<f64>;

    /// The end of what they said.
    fn log_tail(&self) -> String;

    /// An error with what they said behind it.
    fn explain(&self, error: anyhow::Error) -> anyhow::Error {
        anyhow!("{error:#} ({})", self.log_tail().trim())
    }
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

    /// One number of fib-sync's metrics.
    ///
    /// # Errors
    /// Where it does not answer, or there is no such number.
    pub fn metric(&self, name: &str) -> Result<f64> {
        metric(&self.run_dir, name)
    }
}

impl Speaker for Causeway {
    fn used(&self) -> Result<Used> {
        let mut pids = vec![self.fib_sync.pid()];
        pids.extend(self.bgpd.as_ref().map(Daemon::pid));
        used(&pids)
    }

    fn writer_cpu(&self) -> Result<f64> {
        used(&[self.fib_sync.pid()]).map(|used| used.cpu)
    }

    fn log_tail(&self) -> String {
        let bgpd = self.bgpd.as_ref().map(Daemon::log_tail).unwrap_or_default();
        format!("{} {bgpd}", self.fib_sync.log_tail())
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

/// What these processes have used.
///
/// # Errors
/// Where one is gone.
pub fn used(pids: &[u32]) -> Result<Used> {
    let mut all = Used::default();
    for pid in pids {
        all.cpu += usage::cpu(*pid)?.as_secs_f64();
        all.resident += usage::resident(*pid)? as f64;
    }
    Ok(all)
}
