//! The local API of fib-sync: `GET /v1/fib`, `/v1/node`, readiness and metrics.

use std::convert::Infallible;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::http::{StatusCode, header};
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
use crate::view::RowName;

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
                async move { rows(handle).await }
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

/// How many rows are asked for at once: a millisecond of the kernel thread.
const SLICE: usize = 1024;

/// A JSON array of the rows of `show fib`, a slice a chunk: a million rows stand in no memory, and the kernel thread does
/// other things in between.
async fn rows(handle: Handle) -> Response {
    let Some(names) = handle.ask(Input::RowNames).await else {
        return refuse(StatusCode::SERVICE_UNAVAILABLE, "the daemon ends");
    };
    let sorted = tokio::task::spawn_blocking(move || {
        let mut names = names;
        names.sort_unstable();
        names
    });
    let names = match sorted.await {
        Ok(names) => names,
        Err(error) => return refuse(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    };
    // The names that are left, whether the array has begun, whether it has a row.
    let begin = Some((names.into_iter(), false, false));
    let chunks = futures_util::stream::unfold(begin, move |step| {
        let handle = handle.clone();
        async move {
            let (mut names, begun, mut any) = step?;
            let slice: Vec<RowName> = names.by_ref().take(SLICE).collect();
            let last = slice.len() < SLICE;
            // The daemon ends: an array that never closes tells the reader so.
            let rows = handle.ask(|answer| Input::Rows(slice, answer)).await?;
            let mut text = if begun { Vec::new() } else { b"[".to_vec() };
            for row in &rows {
                if any {
                    text.push(b',');
                }
                any = true;
                // A row is plain data; writing it into memory cannot fail.
                let _ = serde_json::to_writer(&mut text, row);
            }
            if last {
                text.push(b']');
            }
            let next = (!last).then_some((names, true, any));
            Some((Ok::<_, Infallible>(text), next))
        }
    });
    ([(header::CONTENT_TYPE, "application/json")], Body::from_stream(chunks)).into_response()
}

fn answer<T: serde::Serialize>(value: Option<T>) -> Response {
    match value {
        Some(value) => axum::Json(value).into_response(),
        None => refuse(StatusCode::SERVICE_UNAVAILABLE, "the daemon ends"),
    }
}
