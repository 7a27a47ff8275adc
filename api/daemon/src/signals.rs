//! SIGTERM and SIGINT end the daemon, SIGHUP reads documents again.

use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// Longest time a daemon may take from SIGTERM to its end (DESIGN §4).
pub const DRAIN_LIMIT: Duration = Duration::from_secs(10);

/// Tells every task that the daemon is to end. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Shutdown {
    ending: watch::Receiver<bool>,
}

/// Ends the daemon from inside.
#[derive(Clone, Debug)]
pub struct ShutdownHandle(std::sync::Arc<watch::Sender<bool>>);

impl ShutdownHandle {
    /// Begins the shutdown; further calls change nothing.
    pub fn begin(&self) {
        self.0.send_replace(true);
    }
}

impl Shutdown {
    /// A shutdown nobody's signal begins; for tests and for parts of a daemon.
    pub fn manual() -> (ShutdownHandle, Shutdown) {
        let (tx, ending) = watch::channel(false);
        (ShutdownHandle(std::sync::Arc::new(tx)), Shutdown { ending })
    }

    /// A shutdown that SIGTERM and SIGINT begin.
    ///
    /// # Errors
    /// The handlers cannot be installed.
    pub fn on_signals() -> std::io::Result<(ShutdownHandle, Shutdown)> {
        let mut term = signal(SignalKind::terminate())?;
        let mut int = signal(SignalKind::interrupt())?;
        let (handle, shutdown) = Shutdown::manual();
        let on_signal = handle.clone();
        tokio::spawn(async move {
            let name = tokio::select! {
                _ = term.recv() => "SIGTERM",
                _ = int.recv() => "SIGINT",
            };
            tracing::info!(signal = name, "ending");
            on_signal.begin();
        });
        Ok((handle, shutdown))
    }

    /// True once the shutdown began.
    pub fn is_ending(&self) -> bool {
        *self.ending.borrow()
    }

    /// Returns when the shutdown begins.
    pub async fn ended(&self) {
        let mut ending = self.ending.clone();
        // An error means that every handle is gone, which ends the daemon just the same.
        let _ = ending.wait_for(|&ending| ending).await;
    }
}
