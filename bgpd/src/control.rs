//! The local API of bgpd and of the reflector: peers, routes, node, commands (DESIGN §4).
//!
//! Every answer is made by [`Call`]s that run between two slices of the speaker's work; a listing of routes takes many
//! of them and streams, so that it neither stops the speaker nor stands in memory.

use std::convert::Infallible;
use std::time::Instant;

use axum::body::{Body, Bytes};
use axum::extract::{self, Path};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use causeway_api::control::{
    self, Condition, ConditionStatus, Done, Family, NodeInfo, Peer, PeerCommand, Route, SessionState,
    SoftReset,
};
use causeway_bgp_core::event::{Input, PeerId};
use causeway_bgp_core::speaker::{Cursor, Direction, Query};
use causeway_bgp_wire::{self as wire, Cease, Notification};
use causeway_daemon::documents::Configuration;
use causeway_daemon::http::{Api, ask, refuse};
use ipnetwork::IpNetwork;
use serde::Deserialize;
use tokio::sync::{mpsc, oneshot, watch};

use crate::lower::Lowered;
use crate::metrics::{self, Snapshot};
use crate::speaker_link::ToPeer;
use crate::speaker_task::{Call, State};
use crate::views;

/// Table entries looked at in one call.
const SLICE: usize = 2048;

/// What the handlers need.
#[derive(Clone)]
pub struct Control {
    /// To the speaker's task.
    pub calls: mpsc::Sender<Call>,
    /// The configuration in force.
    pub configuration: watch::Receiver<Configuration<Lowered>>,
}

/// The API, ready to be served.
pub fn api(control: Control) -> Api {
    let (for_metrics, for_ready) = (control.clone(), control.clone());
    Api {
        read: Router::new()
            .route("/v1/peers", get(peers))
            .route("/v1/routes", get(routes))
            .route("/v1/node", get(node))
            .with_state(control.clone()),
        write: Router::new()
            .route("/v1/peers/{peer}/reset", post(reset))
            .route("/v1/peers/{peer}/disable", post(disable))
            .route("/v1/peers/{peer}/enable", post(enable))
            .with_state(control),
        metrics: ask(move || {
            let control = for_metrics.clone();
            async move { control.metrics().await }
        }),
        ready: ask(move || {
            let control = for_ready.clone();
            async move { control.readiness().await }
        }),
    }
}

/// The speaker's task is gone: the daemon is ending.
#[derive(Debug)]
struct Ending;

impl IntoResponse for Ending {
    fn into_response(self) -> Response {
        refuse(StatusCode::SERVICE_UNAVAILABLE, "the daemon is ending")
    }
}

impl Control {
    /// Runs `f` in the speaker's task.
    async fn call<T: Send + 'static>(
        &self,
        f: impl FnOnce(&mut State) -> T + Send + 'static,
    ) -> Result<T, Ending> {
        let (tx, rx) = oneshot::channel();
        let call: Call = Box::new(move |state| {
            // Who asked may have gone meanwhile.
            let _ = tx.send(f(state));
        });
        self.calls.send(call).await.map_err(|_gone| Ending)?;
        rx.await.map_err(|_gone| Ending)
    }

    async fn metrics(&self) -> String {
        let (generation, refused) = {
            let configuration = self.configuration.borrow();
            (configuration.generation, configuration.refused.is_some())
        };
        let snapshot = self
            .call(move |state| Snapshot {
                peers: peer_rows(state),
                counters: state.speaker.counters(),
                resets: state.resets.clone(),
                fib_connected: state.fib.enabled.then_some(state.fib.connection.is_some()),
                generation,
                refused,
            })
            .await;
        snapshot.map_or_else(|Ending| String::new(), |snapshot| metrics::text(&snapshot))
    }

    /// Ready: the feed is there, and one session at least where there are peers.
    async fn readiness(&self) -> Result<(), String> {
        let check = |state: &mut State| {
            if state.fib.enabled && state.fib.connection.is_none() {
                return Err("fib-sync is not connected".to_owned());
            }
            let up = |peer: &crate::speaker_task::Peer| peer.handle.status.borrow().session.is_some();
            if !state.peers.is_empty() && !state.peers.values().any(up) {
                return Err(format!("none of {} sessions is established", state.peers.len()));
            }
            Ok(())
        };
        self.call(check).await.unwrap_or_else(|Ending| Err("the daemon is ending".to_owned()))
    }
}

/// Rows of `show peers`, sorted by address.
fn peer_rows(state: &State) -> Vec<Peer> {
    let now = Instant::now();
    let mut rows: Vec<(wire::Prefix, Peer)> = state
        .speaker
        .peers()
        .iter()
        .filter_map(|view| {
            let peer = state.peers.get(&view.id)?;
            let status = peer.handle.status.borrow().clone();
            Some((wire::Prefix::host(view.key.address), views::peer(view, &status, peer.resets, now)))
        })
        .collect();
    rows.sort_by(|a, b| (a.0, &a.1.peer).cmp(&(b.0, &b.1.peer)));
    rows.into_iter().map(|(_, row)| row).collect()
}

async fn peers(extract::State(control): extract::State<Control>) -> Result<Json<Vec<Peer>>, Ending> {
    Ok(Json(control.call(|state| peer_rows(state)).await?))
}

/// The query of `GET /v1/routes`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RoutesQuery {
    direction: Option<control::Direction>,
    peer: Option<String>,
    family: Option<Family>,
    prefix: Option<IpNetwork>,
    #[serde(default)]
    longer: bool,
}

async fn routes(
    extract::State(control): extract::State<Control>,
    query: Result<extract::Query<RoutesQuery>, extract::rejection::QueryRejection>,
) -> Response {
    let query = match query {
        Ok(extract::Query(query)) => query,
        Err(rejection) => return refuse(StatusCode::BAD_REQUEST, rejection.body_text()),
    };
    match answer_routes(control, query).await {
        Ok(response) | Err(response) => response,
    }
}

async fn answer_routes(control: Control, query: RoutesQuery) -> Result<Response, Response> {
    let prefix = match query.prefix {
        None => None,
        Some(network) => Some(
            views::prefix(&network)
                .ok_or_else(|| refuse(StatusCode::BAD_REQUEST, format!("{network}: not a prefix")))?,
        ),
    };
    let peer = match query.peer {
        None => None,
        Some(name) => {
            let wanted = name.clone();
            let found = control.call(move |state| state.find_peer(&wanted)).await;
            let found = found.map_err(IntoResponse::into_response)?;
            Some(found.ok_or_else(|| refuse(StatusCode::NOT_FOUND, format!("no peer {name}")))?)
        }
    };
    if let (None, Some(prefix), false) = (query.direction, prefix, query.longer) {
        let rows = control
            .call(move |state| {
                let now = Instant::now();
                let views = state.speaker.explain(&prefix);
                let wanted = views.iter().filter(|view| peer.is_none() || view.peer == peer);
                wanted.map(|view| views::route(view, now)).collect::<Vec<Route>>()
            })
            .await
            .map_err(IntoResponse::into_response)?;
        return Ok(Json(rows).into_response());
    }
    let query = Query {
        direction: match query.direction.unwrap_or(control::Direction::Best) {
            control::Direction::Learned => Direction::Learned,
            control::Direction::Advertised => Direction::Advertised,
            control::Direction::Best => Direction::Best,
        },
        peer,
        family: query.family.map(|family| match family {
            Family::Ipv4 => wire::Family::Ipv4Unicast,
            Family::Ipv6 => wire::Family::Ipv6Unicast,
        }),
        prefix,
        longer: query.longer,
    };
    Ok(stream(control, query))
}

/// A JSON array of routes, one slice of the table a chunk.
fn stream(control: Control, query: Query) -> Response {
    enum Step {
        Begin,
        Rows(Cursor, bool),
        Done,
    }
    let chunks = futures_util::stream::unfold(Step::Begin, move |step| {
        let (control, query) = (control.clone(), query.clone());
        async move {
            let (mut cursor, mut first) = match step {
                Step::Begin => {
                    return Some((
                        Ok::<_, Infallible>(Bytes::from_static(b"[")),
                        Step::Rows(Cursor::default(), true),
                    ));
                }
                Step::Rows(cursor, first) => (cursor, first),
                Step::Done => return None,
            };
            let slice = control
                .call(move |state| {
                    let now = Instant::now();
                    let views = state.speaker.walk(&query, &mut cursor, SLICE);
                    let rows: Vec<Route> = views.iter().map(|view| views::route(view, now)).collect();
                    (rows, cursor)
                })
                .await;
            // The speaker is gone: an array that never closes tells the reader so.
            let Ok((rows, cursor)) = slice else { return None };
            let mut text = Vec::new();
            for row in &rows {
                if !first {
                    text.push(b',');
                }
                first = false;
                // A row is plain data; writing it into memory cannot fail.
                let _ = serde_json::to_writer(&mut text, row);
            }
            let step = if cursor.is_done() {
                text.push(b']');
                Step::Done
            } else {
                Step::Rows(cursor, first)
            };
            Some((Ok(Bytes::from(text)), step))
        }
    });
    ([(header::CONTENT_TYPE, "application/json")], Body::from_stream(chunks)).into_response()
}

async fn node(extract::State(control): extract::State<Control>) -> Result<Json<NodeInfo>, Ending> {
    let (mut info, own_conditions, configuration, accepted) = {
        let configuration = control.configuration.borrow();
        let lowered = &configuration.current;
        (lowered.node.clone(), lowered.conditions.clone(), configuration.info(), configuration.condition())
    };
    info.configuration = Some(configuration);
    info.conditions.push(accepted);
    info.conditions.extend(own_conditions);
    info.conditions.extend(control.call(|state| conditions(state)).await?);
    Ok(Json(info))
}

fn conditions(state: &State) -> Vec<Condition> {
    let rows = peer_rows(state);
    let down: Vec<String> = rows
        .iter()
        .filter(|row| row.state != SessionState::Established)
        .map(|row| {
            let why = row.last_error.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
            format!("{} ({}) is {}{why}", row.peer, row.name, row.state)
        })
        .collect();
    let mut conditions = vec![if rows.is_empty() {
        Condition::new("SessionsEstablished", true, "NoPeers", "no peers are configured")
    } else if down.is_empty() {
        Condition::new("SessionsEstablished", true, "AllEstablished", format!("all {} sessions", rows.len()))
    } else {
        Condition::new("SessionsEstablished", false, "SessionsDown", down.join("; "))
    }];
    conditions.push(match (state.fib.enabled, state.fib.connection) {
        (false, _) => Condition {
            status: ConditionStatus::Unknown,
            ..Condition::new("FibConnected", false, "NoFib", "nothing is programmed (--no-fib)")
        },
        (true, Some(_)) => Condition::new("FibConnected", true, "Connected", "connected to fib-sync"),
        (true, None) => {
            let why =
                state.fib.last_error.clone().unwrap_or_else(|| "fib-sync has not answered yet".to_owned());
            Condition::new("FibConnected", false, "Disconnected", why)
        }
    });
    conditions
}

async fn reset(
    extract::State(control): extract::State<Control>,
    Path(name): Path<String>,
    body: Bytes,
) -> Response {
    command(control, name, &body, |state, peer, command| match command.soft {
        Some(SoftReset::In) => {
            state.handle(Input::SoftIn(peer));
            "judged anew what it sent".to_owned()
        }
        Some(SoftReset::Out) => {
            state.handle(Input::SoftOut(peer));
            "sent it everything again".to_owned()
        }
        None => {
            let text = command.message.unwrap_or_default();
            let notification = match text.as_str() {
                "" => Notification::cease(Cease::AdministrativeReset),
                text => Notification::cease_with_message(Cease::AdministrativeReset, text),
            };
            state.tell_peer(peer, ToPeer::Reset { notification, idle_for: None });
            "reset".to_owned()
        }
    })
    .await
}

async fn disable(
    extract::State(control): extract::State<Control>,
    Path(name): Path<String>,
    body: Bytes,
) -> Response {
    command(control, name, &body, |state, peer, command| {
        state.tell_peer(peer, ToPeer::Disable(command.message.unwrap_or_default()));
        "disabled".to_owned()
    })
    .await
}

async fn enable(
    extract::State(control): extract::State<Control>,
    Path(name): Path<String>,
    body: Bytes,
) -> Response {
    command(control, name, &body, |state, peer, _| {
        state.tell_peer(peer, ToPeer::Enable);
        "enabled".to_owned()
    })
    .await
}

/// Finds the peer and does something to it.
async fn command(
    control: Control,
    name: String,
    body: &[u8],
    act: impl FnOnce(&mut State, PeerId, PeerCommand) -> String + Send + 'static,
) -> Response {
    let command: PeerCommand = match body {
        [] => PeerCommand::default(),
        body => match serde_json::from_slice(body) {
            Ok(command) => command,
            Err(error) => return refuse(StatusCode::BAD_REQUEST, format!("body: {error}")),
        },
    };
    let wanted = name.clone();
    let done = control
        .call(move |state| {
            let peer = state.find_peer(&wanted)?;
            let name = state.peers.get(&peer).map(|peer| views::peer_name(&peer.key)).unwrap_or(wanted);
            Some(format!("peer {name}: {}", act(state, peer, command)))
        })
        .await;
    match done {
        Ok(Some(done)) => Json(Done { done }).into_response(),
        Ok(None) => refuse(StatusCode::NOT_FOUND, format!("no peer {name}")),
        Err(ending) => ending.into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_are_sorted_as_addresses() {
        let host = |text: &str| wire::Prefix::host(text.parse::<std::net::IpAddr>().unwrap());
        assert!(host("192.0.2.9") < host("192.0.2.10"));
        assert!(host("192.0.2.10") < host("2001:db8::1"));
    }
}
