//! The local API: HTTP with JSON on a unix socket, and the read-only half of it on `--http`.
//!
//! A daemon gives two routers: what only reads, and what changes something. The unix socket (mode 0600, so its owner's)
//! serves both, `--http` only the first. Connections are bounded; a request body is bounded by axum's 2 MB.

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::serve::Listener;
use causeway_api::control::Refusal;
use prometheus_client::registry::Registry;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::signals::Shutdown;

/// At most this many connections at a time on each listener; further ones wait in the backlog.
const CONNECTIONS: usize = 128;
/// A connection on which nothing moves for this long is closed.
const IDLE: Duration = Duration::from_secs(60);

/// What a daemon serves.
pub struct Api {
    /// Requests that only read.
    pub read: Router,
    /// Requests that change something: only on the unix socket.
    pub write: Router,
    /// Text of `/metrics`.
    pub metrics: Ask<String>,
    /// `/readyz`: `Ok` where the daemon does its work, else why not.
    pub ready: Ask<Result<(), String>>,
}

/// Asks the daemon something, each time anew.
pub type Ask<T> = Arc<dyn Fn() -> Pin<Box<dyn Future<Output = T> + Send>> + Send + Sync>;

/// An [`Ask`] from a function that returns a future: `ask(move || { let x = x.clone(); async move { … } })`.
pub fn ask<T, F: Future<Output = T> + Send + 'static>(
    function: impl Fn() -> F + Send + Sync + 'static,
) -> Ask<T> {
    Arc::new(move || Box::pin(function()))
}

/// The API cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The socket is in use by a living process.
    #[error("{0}: another daemon is serving this socket")]
    InUse(PathBuf),
    /// The socket cannot be made.
    #[error("{path}: {error}")]
    Unix {
        /// Which socket.
        path: PathBuf,
        /// What the kernel said.
        error: io::Error,
    },
    /// The address of `--http` cannot be bound.
    #[error("--http {address}: {error}")]
    Tcp {
        /// Which address.
        address: SocketAddr,
        /// What the kernel said.
        error: io::Error,
    },
}

/// Binds the unix socket and, where given, the TCP address, and serves `api` on them until `shutdown`.
///
/// # Errors
/// A listener cannot be bound. Nothing is served then.
pub async fn serve(
    api: Api,
    socket: &Path,
    http: Option<SocketAddr>,
    shutdown: Shutdown,
) -> Result<(), ServeError> {
    let unix = bind_unix(socket)?;
    let tcp = match http {
        None => None,
        Some(address) => {
            Some(TcpListener::bind(address).await.map_err(|error| ServeError::Tcp { address, error })?)
        }
    };
    let Api { read, write, metrics, ready } = api;
    let read = read
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(move || async move { readiness(ready().await) }))
        .route(
            "/metrics",
            get(move || async move {
                (
                    [(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")],
                    metrics().await,
                )
            }),
        )
        .fallback(|| async { refuse(StatusCode::NOT_FOUND, "no such resource") });
    if let Some(tcp) = tcp {
        spawn(Bounded::new(tcp), read.clone(), shutdown.clone());
    }
    spawn(Bounded::new(unix), read.merge(write), shutdown);
    Ok(())
}

fn spawn<L: Listener>(listener: L, router: Router, shutdown: Shutdown)
where
    L::Addr: std::fmt::Debug,
{
    tokio::spawn(async move {
        let served =
            axum::serve(listener, router).with_graceful_shutdown(async move { shutdown.ended().await }).await;
        if let Err(error) = served {
            tracing::error!(%error, "local API ended");
        }
    });
}

/// Binds a unix socket at `path` with mode 0600, in place of one that a dead process left behind.
///
/// # Errors
/// A living process serves it, or the kernel refuses.
pub fn bind_unix(path: &Path) -> Result<UnixListener, ServeError> {
    let fail = |error| ServeError::Unix { path: path.to_owned(), error };
    match std::os::unix::net::UnixStream::connect(path) {
        Ok(_) => return Err(ServeError::InUse(path.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(_) => std::fs::remove_file(path).map_err(fail)?,
    }
    let listener = UnixListener::bind(path).map_err(fail)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(fail)?;
    Ok(listener)
}

/// A refusal as JSON, with the status code.
pub fn refuse(status: StatusCode, error: impl Into<String>) -> Response {
    (status, axum::Json(Refusal { error: error.into() })).into_response()
}

/// The text of `/metrics` for a registry.
pub fn encode_metrics(registry: &Registry) -> String {
    let mut text = String::new();
    // Writing into a String cannot fail.
    let _ = prometheus_client::encoding::text::encode(&mut text, registry);
    text
}

fn readiness(ready: Result<(), String>) -> Response {
    match ready {
        Ok(()) => "ready\n".into_response(),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {why}\n")).into_response(),
    }
}

/// A listener that holds at most [`CONNECTIONS`] connections, each closed when idle.
struct Bounded<L> {
    inner: L,
    permits: Arc<Semaphore>,
}

impl<L> Bounded<L> {
    fn new(inner: L) -> Self {
        Bounded { inner, permits: Arc::new(Semaphore::new(CONNECTIONS)) }
    }
}

impl<L: Listener> Listener for Bounded<L> {
    type Io = Guarded<L::Io>;
    type Addr = L::Addr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        // The semaphore is never closed; without a permit the connection is merely not counted.
        let permit = Arc::clone(&self.permits).acquire_owned().await.ok();
        let (io, addr) = self.inner.accept().await;
        (Guarded { io, idle: Box::pin(tokio::time::sleep(IDLE)), _permit: permit }, addr)
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.inner.local_addr()
    }
}

/// A connection that counts against the bound and ends when nothing moves.
struct Guarded<I> {
    io: I,
    idle: Pin<Box<tokio::time::Sleep>>,
    _permit: Option<OwnedSemaphorePermit>,
}

impl<I> Guarded<I> {
    /// Passes `progress` on; a pending one for too long is an error, a ready one restarts the idle timer.
    fn watch<T>(&mut self, cx: &mut Context<'_>, progress: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if progress.is_ready() {
            self.idle.as_mut().reset(tokio::time::Instant::now() + IDLE);
            return progress;
        }
        match self.idle.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Guarded<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let progress = Pin::new(&mut self.io).poll_read(cx, buf);
        self.watch(cx, progress)
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Guarded<I> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let progress = Pin::new(&mut self.io).poll_write(cx, buf);
        self.watch(cx, progress)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let progress = Pin::new(&mut self.io).poll_flush(cx);
        self.watch(cx, progress)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    fn api() -> Api {
        Api {
            read: Router::new().route("/v1/node", get(|| async { "node" })),
            write: Router::new().route("/v1/change", axum::routing::post(|| async { "changed" })),
            metrics: super::ask(|| async { "# EOF\n".to_owned() }),
            ready: super::ask(|| async { Err("no route yet".to_owned()) }),
        }
    }

    async fn ask(mut io: impl AsyncRead + AsyncWrite + Unpin, request: &str) -> String {
        let request = format!("{request} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        io.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        io.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn the_socket_serves_both_halves_and_tcp_only_the_reading_one() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("x.sock");
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let (_handle, shutdown) = Shutdown::manual();
        serve(api(), &socket, Some(free), shutdown.clone()).await.unwrap();
        let unix = || tokio::net::UnixStream::connect(&socket);
        let tcp = || tokio::net::TcpStream::connect(free);
        assert!(ask(unix().await.unwrap(), "GET /v1/node").await.starts_with("HTTP/1.1 200"));
        assert!(ask(unix().await.unwrap(), "POST /v1/change").await.ends_with("changed"));
        assert!(ask(tcp().await.unwrap(), "POST /v1/change").await.starts_with("HTTP/1.1 404"));
        assert!(ask(tcp().await.unwrap(), "GET /metrics").await.ends_with("# EOF\n"));
        let ready = ask(tcp().await.unwrap(), "GET /readyz").await;
        assert!(ready.starts_with("HTTP/1.1 503") && ready.ends_with("not ready: no route yet\n"));
        assert!(matches!(serve(api(), &socket, None, shutdown).await, Err(ServeError::InUse(_))));
    }

    #[tokio::test]
    async fn a_socket_left_behind_is_taken_over() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("x.sock");
        drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
        assert!(bind_unix(&socket).is_ok());
    }
}
