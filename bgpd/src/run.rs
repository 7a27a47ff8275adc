//! From arguments to a running daemon, and back down again. Used by `causeway-bgpd` and `causeway-route-reflector`.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use causeway_api::control::BGPD_SOCKET;
use causeway_bgp_core::config::{Config, Role};
use causeway_bgp_core::peer::RestartMarks;
use causeway_bgp_core::speaker::{Speaker, StartMode};
use causeway_bgp_wire::{Family, FamilySet};
use causeway_daemon::args::DaemonArgs;
use causeway_daemon::documents::{self, Configuration};
use causeway_daemon::signals::Shutdown;
use causeway_daemon::{http, log};
use clap::Parser;
use tokio::runtime::{Builder, Handle, Runtime, RuntimeFlavor};
use tokio::sync::{mpsc, watch};

use crate::control::{self, Control};
use crate::fib_client::{self, FromFib};
use crate::fib_side::FibSide;
use crate::listen::{ListenOn, Listener};
use crate::lower::{self, Lowered};
use crate::speaker_link::{ROOM, speaker_link};
use crate::speaker_task::{self, Nursery, State};

/// Name of the marker in the run folder that tells a start from a restart.
const MARKER: &str = "bgpd.running";
/// How long a start waits for fib-sync, which knows whether forwarding state was kept. Peers are not tried before.
const FIB_PATIENCE: Duration = Duration::from_secs(2);
/// Questions of the API that may wait for the speaker.
const CALLS: usize = 64;

/// Arguments of the speaker's daemons.
#[derive(Clone, Debug, clap::Args)]
pub struct SpeakerArgs {
    /// What every daemon takes
    #[command(flatten)]
    pub daemon: DaemonArgs,

    /// Listen here (repeatable) instead of on both families at the documents' listenPort
    #[arg(long, value_name = "ADDR:PORT")]
    pub listen: Vec<SocketAddr>,

    /// Program nothing: no FIB feed, and every next hop counts as reachable
    #[arg(long)]
    pub no_fib: bool,
}

/// Advertises this node's pod CIDRs over BGP, and gives what it learned to causeway-fib-sync.
#[derive(Parser)]
#[command(name = "causeway-bgpd", version)]
struct BgpdCli {
    #[command(flatten)]
    args: SpeakerArgs,
}

/// `main` of `causeway-bgpd`.
pub fn bgpd_main() -> ExitCode {
    main(BgpdCli::parse().args, Role::Node)
}

/// Runs a speaker in `role` until SIGTERM. The exit code is 0 then, 1 where it could not start.
pub fn main(args: SpeakerArgs, role: Role) -> ExitCode {
    log::init(args.daemon.log_format);
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "cannot start");
            return ExitCode::FAILURE;
        }
    };
    let outcome = runtime.block_on(run(args, role));
    // A task that hangs must not keep the daemon from ending.
    runtime.shutdown_timeout(Duration::from_millis(500));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            for line in format!("{error:#}").lines() {
                tracing::error!("{line}");
            }
            ExitCode::FAILURE
        }
    }
}

/// The main thread is the speaker's, and there is a worker thread for the peers on every other core. With one core the
/// main thread does everything: nothing passes from thread to thread.
fn runtime() -> io::Result<Runtime> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut builder = match cores {
        1 => Builder::new_current_thread(),
        _ => Builder::new_multi_thread(),
    };
    builder.worker_threads(cores.saturating_sub(1).max(1)).enable_all().build()
}

async fn run(args: SpeakerArgs, role: Role) -> anyhow::Result<()> {
    let path = args.daemon.prepare()?;
    let (_handle, shutdown) = Shutdown::on_signals().context("signals")?;
    let node = args.daemon.node.clone();
    let configuration = documents::watch(path, shutdown.clone(), move |path| lower::read(path, &node, role))
        .map_err(|errors| anyhow::anyhow!(errors.join("\n")))?;
    let (config, first) = follow(configuration.clone());
    log::set_level(&first.log_severity);

    let marker = Marker::set(&args.daemon.run_dir).context("restart marker")?;
    let mut fib = if args.no_fib {
        FibSide::new(None)
    } else {
        FibSide::new(Some(fib_client::spawn(&args.daemon.run_dir, marker.restarted, shutdown.clone())))
    };
    let early = early_news(&mut fib).await;
    let forwarding = match &early {
        _ if args.no_fib => Family::all().into_iter().collect(),
        Some(FromFib::Connected { kept, .. }) => *kept,
        _ => FamilySet::default(),
    };
    // A restart that kept no route is a start: there is nothing that peers should spare, and nothing to defer for.
    let restarting = marker.restarted && !forwarding.is_empty();
    let (marks, _) = watch::channel(RestartMarks { restarting, forwarding });

    let (to_speaker, from_peers) = speaker_link(ROOM);
    let listener = Listener::start(&listen_on(&args.listen, &first), to_speaker.clone())?;
    for address in listener.addresses() {
        tracing::info!(%address, "listening");
    }
    let (calls, call_rx) = mpsc::channel(CALLS);
    let api = control::api(Control { calls, configuration });
    http::serve(api, &args.daemon.run_dir.join(BGPD_SOCKET), args.daemon.http, shutdown.clone()).await?;

    // One worker is left to read; the others help to write.
    let helpers = match Handle::current().runtime_flavor() {
        RuntimeFlavor::CurrentThread => 0,
        _ => Handle::current().metrics().num_workers().saturating_sub(1),
    };
    let mode = StartMode { restarting, fib: !args.no_fib };
    let nursery = Nursery { listener, marks, speaker: to_speaker };
    let mut state = State::new(Speaker::new(Instant::now(), mode), fib, nursery, helpers);
    if let Some(news) = early {
        state.from_fib(news);
    }
    speaker_task::run(state, config, from_peers, call_rx, shutdown).await;
    marker.clear();
    tracing::info!("ended");
    Ok(())
}

/// The first thing the feed says, if it says something soon.
async fn early_news(fib: &mut FibSide) -> Option<FromFib> {
    if !fib.enabled {
        return None;
    }
    tokio::time::timeout(FIB_PATIENCE, fib.next()).await.ok().flatten()
}

fn listen_on(arguments: &[SocketAddr], lowered: &Lowered) -> ListenOn {
    if !arguments.is_empty() {
        return ListenOn::Addresses(arguments.to_vec());
    }
    match lowered.listen_addresses.as_slice() {
        [] => ListenOn::Any(lowered.listen_port),
        addresses => {
            let port = lowered.listen_port;
            ListenOn::Addresses(addresses.iter().map(|address| SocketAddr::new(*address, port)).collect())
        }
    }
}

/// The engine's part of the configuration as a channel of its own, and the first of all.
fn follow(
    mut configuration: watch::Receiver<Configuration<Lowered>>,
) -> (watch::Receiver<Arc<Config>>, Arc<Lowered>) {
    let first = Arc::clone(&configuration.borrow_and_update().current);
    let (tx, rx) = watch::channel(Arc::clone(&first.config));
    let (port, addresses) = (first.listen_port, first.listen_addresses.clone());
    tokio::spawn(async move {
        while configuration.changed().await.is_ok() {
            let lowered = Arc::clone(&configuration.borrow_and_update().current);
            log::set_level(&lowered.log_severity);
            if (lowered.listen_port, &lowered.listen_addresses) != (port, &addresses) {
                tracing::warn!("listenPort and bindMode are read at the start only: restart to apply them");
            }
            tx.send_if_modified(|config| {
                let changed = *config != lowered.config;
                *config = Arc::clone(&lowered.config);
                changed
            });
        }
    });
    (rx, first)
}

/// A file that is there while the daemon runs, and after an end that nobody announced.
struct Marker {
    path: PathBuf,
    /// It was there already: the last run ended without a word.
    restarted: bool,
}

impl Marker {
    fn set(run_dir: &Path) -> io::Result<Marker> {
        let path = run_dir.join(MARKER);
        let restarted = path.exists();
        std::fs::write(&path, [])?;
        Ok(Marker { path, restarted })
    }

    fn clear(&self) {
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::warn!(%error, path = %self.path.display(), "the restart marker stays behind");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_marker_tells_a_start_from_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!Marker::set(dir.path()).unwrap().restarted);
        let again = Marker::set(dir.path()).unwrap();
        assert!(again.restarted);
        again.clear();
        assert!(!Marker::set(dir.path()).unwrap().restarted);
    }
}
