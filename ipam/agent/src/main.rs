//! `causeway-ipam`: the daemon that keeps a node's blocks of pod addresses in the store.
//!
//! Purpose: writes the blocks of the Node document into `RUN_DIR/ipam/`, gives up the records of pods that are gone
//! without a DEL, and answers `show ipam`, `/readyz` and `/metrics`. Pods need it only once: what it wrote stays when
//! it is gone. It needs uid 0 for its files, and no capability.

mod answers;
mod keeper;
mod metrics;
mod wanted;

use std::process::ExitCode;
use std::sync::Arc;

use axum::Router;
use axum::routing::get;
use causeway_api::control::IPAM_SOCKET;
use causeway_daemon::args::DaemonArgs;
use causeway_daemon::http::{Api, ask, serve};
use causeway_daemon::signals::Shutdown;
use causeway_daemon::{documents, log};
use causeway_ipam::Store;
use clap::Parser;

use keeper::Keeper;

/// Keeps this node's blocks of pod addresses, for the CNI plugin to give out
#[derive(Debug, Parser)]
#[command(name = "causeway-ipam", version)]
struct Arguments {
    #[command(flatten)]
    daemon: DaemonArgs,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    log::init(arguments.daemon.log_format);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let outcome = match runtime {
        Ok(runtime) => runtime.block_on(run(arguments.daemon)),
        Err(error) => Err(error.into()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: DaemonArgs) -> anyhow::Result<()> {
    let path = arguments.prepare()?;
    let (_handle, shutdown) = Shutdown::on_signals()?;
    let node = arguments.node.clone();
    let configuration = documents::watch(path, shutdown.clone(), move |path| wanted::read(path, &node))
        .map_err(|errors| anyhow::anyhow!("{}", errors.join("\n")))?;
    let keeper = Arc::new(Keeper::new(Store::new(&arguments.run_dir), arguments.node.clone(), configuration));
    serve(api(&keeper), &arguments.run_dir.join(IPAM_SOCKET), arguments.http, shutdown.clone()).await?;
    keeper.run(shutdown).await;
    tracing::info!("ended");
    Ok(())
}

/// What the daemon answers.
fn api(keeper: &Arc<Keeper>) -> Api {
    let (ipam, node, metrics, ready) =
        (Arc::clone(keeper), Arc::clone(keeper), Arc::clone(keeper), Arc::clone(keeper));
    let read = Router::new()
        .route("/v1/ipam", get(move || answers::ipam(Arc::clone(&ipam))))
        .route("/v1/node", get(move || answers::node(Arc::clone(&node))));
    Api {
        read,
        write: Router::new(),
        metrics: ask(move || {
            let keeper = Arc::clone(&metrics);
            async move { metrics::text(&keeper) }
        }),
        ready: ask(move || {
            let keeper = Arc::clone(&ready);
            async move { keeper.ready() }
        }),
    }
}
