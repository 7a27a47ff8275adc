//! The local API of fib-sync: `GET /v1/fib`, `/v1/node`, readiness and metrics.

use std::sync::Arc;

use axum::Router;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use causeway_daemon::documents::Configuration;
use causeway_daemon::http::{Api, ask, refuse};
use tokio::sync::watch;

use crate::checks::CheckState;
use crate::config::Config;
use crate::doctor;
use crate::metrics;
use crate::nat::keeper::NatState;
use crate::pods::StoreState;
use crate::probe::ProbeState;
use crate::sync::{Handle, Input};
use crate::sysctls;

/// What the answers are made from.
#[derive(Clone)]
pub struct Sources {
    /// The kernel thread.
    pub handle: Handle,
    /// The configuration in force.
    pub configuration: watch::Receiver<Configuration<Config>>,
    /// How reading the ipam store goes.
    pub store: StoreState,
    /// How keeping the nftables table goes.
    pub nat: NatState,
    /// How answering probes goes.
    pub probes: ProbeState,
    /// What of the node harms routes and tunnels.
    pub checks: CheckState,
}

/// The API over its sources.
pub fn api(sources: Sources) -> Api {
    let (fib, node, numbers, ready) =
        (sources.handle.clone(), sources.clone(), sources.handle.clone(), sources.handle);
    let configuration = sources.configuration;
    let read = Router::new()
        .route(
            "/v1/fib",
            get(move || {
                let handle = fib.clone();
                async move { answer(handle.ask(Input::Rows).await) }
            }),
        )
        .route(
            "/v1/node",
            get(move || {
                let sources = node.clone();
                async move { answer(sources.node().await) }
            }),
        )
        .route(
            "/v1/doctor/peers",
            get(move || {
                let config = Arc::clone(&configuration.borrow().current);
                async move {
                    match tokio::task::spawn_blocking(move || doctor::peers(&config)).await {
                        Ok(Ok(peers)) => axum::Json(peers).into_response(),
                        Ok(Err(error)) => refuse(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
                        Err(error) => refuse(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
                    }
                }
            }),
        );
    Api {
        read,
        write: Router::new(),
        metrics: ask(move || {
            let handle = numbers.clone();
            async move { metrics::render(&handle.ask(Input::Numbers).await.unwrap_or_default()) }
        }),
        ready: ask(move || {
            let handle = ready.clone();
            async move { handle.ask(Input::Ready).await.unwrap_or_else(|| Err("the daemon ends".to_owned())) }
        }),
    }
}

impl Sources {
    async fn node(&self) -> Option<causeway_api::control::NodeInfo> {
        let links = self.handle.ask(Input::Underlay).await?;
        let mut node = self.handle.ask(Input::Node).await?;
        node.conditions.push(sysctls::condition(&links));
        node.conditions.push(self.store.condition());
        node.conditions.push(self.nat.condition());
        node.conditions.push(self.probes.condition());
        node.conditions.extend(self.checks.conditions());
        let configuration = self.configuration.borrow();
        node.conditions.push(configuration.condition());
        node.configuration = Some(configuration.info());
        Some(node)
    }
}

fn answer<T: serde::Serialize>(value: Option<T>) -> Response {
    match value {
        Some(value) => axum::Json(value).into_response(),
        None => refuse(StatusCode::SERVICE_UNAVAILABLE, "the daemon ends"),
    }
}
