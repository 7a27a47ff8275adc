//! `causeway-fib-sync`: arguments, and the tasks put together.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use causeway_api::control::{FIB_FEED_SOCKET, FIB_SYNC_SOCKET};
use causeway_api::pod_store::PodStore;
use causeway_daemon::args::DaemonArgs;
use causeway_daemon::signals::Shutdown;
use causeway_daemon::{documents, http, log};
use causeway_fib_sync::api::{Sources, api};
use causeway_fib_sync::checks::{self, CheckState};
use causeway_fib_sync::config::{self, Config};
use causeway_fib_sync::nat::keeper::{self, NatState};
use causeway_fib_sync::pods::{self, StoreState};
use causeway_fib_sync::probe::{self, ProbeState};
use causeway_fib_sync::sync::{self, Input};
use causeway_fib_sync::{ownership, server, sysctls};
use causeway_kernel::{Kernel, Netlink};
use clap::Parser;

/// How long the kernel thread may take to end.
const END: Duration = Duration::from_secs(5);

/// The route programmer of Causeway: keeps the kernel's routes as bgpd, the documents and the pods want them.
#[derive(Parser, Debug)]
#[command(name = "causeway-fib-sync", version)]
struct Args {
    /// Set the node-wide sysctls, say what was changed, and end; needs no other option
    #[arg(long)]
    setup_node: bool,

    /// Give every route its next hops instead of nexthop objects, for kernels or monitors that cannot take them
    #[arg(long)]
    no_nexthop_objects: bool,

    /// UDP port on which the probes of `causeway doctor mtu` of other nodes are answered; 0: none
    #[arg(long, value_name = "PORT", default_value_t = causeway_probe::PORT)]
    probe_port: u16,

    #[command(flatten)]
    daemon: DaemonArgs,
}

/// The same program, run once to prepare the node.
#[derive(Parser, Debug)]
#[command(name = "causeway-fib-sync", version)]
struct SetupArgs {
    /// Set the node-wide sysctls, say what was changed, and end
    #[arg(long, required = true)]
    setup_node: bool,

    /// The daemon's options: taken, so that one command line serves both, and not used
    #[arg(long, hide = true)]
    no_nexthop_objects: bool,
    #[arg(long, hide = true)]
    probe_port: Option<u16>,
    #[arg(long, hide = true)]
    config: Option<std::path::PathBuf>,
    #[arg(long, hide = true)]
    kube: bool,
    #[arg(long, hide = true)]
    node: Option<String>,
    #[arg(long, hide = true)]
    run_dir: Option<std::path::PathBuf>,
    #[arg(long, hide = true)]
    http: Option<std::net::SocketAddr>,
    #[arg(long, hide = true)]
    log_format: Option<String>,
}

fn main() -> ExitCode {
    let outcome = if std::env::args_os().any(|argument| argument == "--setup-node") {
        SetupArgs::parse();
        setup_node()
    } else {
        run(Args::parse())
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            #[allow(clippy::print_stderr, reason = "the log may not be there yet")]
            {
                eprintln!("causeway-fib-sync: {error:#}");
            }
            ExitCode::FAILURE
        }
    }
}

#[allow(clippy::print_stdout, reason = "the report is what the command is for")]
fn setup_node() -> Result<()> {
    let links = Netlink::open()?.links()?;
    let links: Vec<String> = links
        .into_iter()
        .filter(|link| !link.loopback && !ownership::is_pod_device(link))
        .map(|link| link.name)
        .collect();
    let changed = sysctls::set(&links)?;
    for sysctls::Off { key, is, should } in &changed {
        println!("{key}: {is} -> {should}");
    }
    match changed.len() {
        0 => println!("nothing to change"),
        count => println!("{count} sysctls changed"),
    }
    Ok(())
}

fn run(args: Args) -> Result<()> {
    log::init(args.daemon.log_format);
    let path = args.daemon.prepare()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(daemon(args, path))
}

async fn daemon(args: Args, path: std::path::PathBuf) -> Result<()> {
    let Args { no_nexthop_objects, probe_port, daemon: args, .. } = args;
    let (ending, shutdown) = Shutdown::on_signals().context("signal handlers")?;
    let name = args.node.clone();
    let configuration = documents::watch(path, shutdown.clone(), move |path| {
        let documents = causeway_api::source::read(path)
            .map_err(|errors| errors.0.iter().map(ToString::to_string).collect::<Vec<_>>())?;
        config::lower(&documents, &name)
    })
    .map_err(|errors| anyhow!("documents refused:\n{}", errors.join("\n")))?;
    let first = Arc::clone(&configuration.borrow().current);
    log::set_level(&first.log_severity);

    let feed = http::bind_unix(&args.run_dir.join(FIB_FEED_SOCKET))?;
    let sync::KernelThread { handle, thread } =
        sync::start((*first).clone(), !no_nexthop_objects, args.run_dir.clone())?;
    let (store, nat, probes) = (StoreState::default(), NatState::default(), ProbeState::default());
    let checks = CheckState::default();
    let sources = Sources {
        handle: handle.clone(),
        configuration: configuration.clone(),
        store: store.clone(),
        nat: nat.clone(),
        probes: probes.clone(),
        checks: checks.clone(),
    };
    http::serve(api(sources), &args.run_dir.join(FIB_SYNC_SOCKET), args.http, shutdown.clone()).await?;
    tracing::info!(node = %args.node, run_dir = %args.run_dir.display(), "fib-sync runs");

    let (to_kernel, ended, run_dir) = (handle.clone(), shutdown.clone(), args.run_dir.clone());
    std::thread::Builder::new()
        .name("pods".to_owned())
        .spawn(move || pods::watch(&PodStore::new(&run_dir), &run_dir, &store, &to_kernel, &ended))?;
    probe::start(probe_port, configuration.clone(), probes)?;
    let checking = tokio::spawn(checks::watch(checks, shutdown.clone()));
    let translating = tokio::spawn(keeper::keep(configuration.clone(), nat, shutdown.clone()));
    let changes = tokio::spawn(follow(configuration, handle.clone(), shutdown.clone()));
    let serving = tokio::spawn(server::serve(feed, handle.clone(), shutdown.clone()));
    let thread = tokio::task::spawn_blocking(move || thread.join());
    tokio::pin!(thread);

    let panicked = tokio::select! {
        () = shutdown.ended() => false,
        _ = &mut thread => true,
    };
    ending.begin();
    if panicked {
        return Err(anyhow!("the kernel thread ended by itself"));
    }
    for task in [changes, serving, translating, checking] {
        let _ = tokio::time::timeout(END, task).await;
    }
    // Routes stay: whoever starts next adopts them.
    handle.send(Input::Stop).await;
    if tokio::time::timeout(END, thread).await.is_err() {
        tracing::warn!("the kernel thread does not end");
    }
    tracing::info!("ended; routes stay");
    Ok(())
}

/// Hands each new configuration to the kernel thread.
async fn follow(
    mut configuration: tokio::sync::watch::Receiver<documents::Configuration<Config>>,
    handle: sync::Handle,
    shutdown: Shutdown,
) {
    let mut generation = configuration.borrow_and_update().generation;
    loop {
        tokio::select! {
            () = shutdown.ended() => return,
            changed = configuration.changed() => if changed.is_err() {
                return;
            },
        }
        let (current, fresh) = {
            let now = configuration.borrow_and_update();
            (Arc::clone(&now.current), now.generation)
        };
        if fresh != generation {
            generation = fresh;
            log::set_level(&current.log_severity);
            handle.send(Input::Config(current)).await;
        }
    }
}
