//! Logging: text or JSON on standard error, with a level that can change while the daemon runs.

use std::sync::OnceLock;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Registry, fmt, reload};

use crate::args::LogFormat;

static LEVEL: OnceLock<reload::Handle<LevelFilter, Registry>> = OnceLock::new();

/// Starts logging at level info. A second call changes nothing.
pub fn init(format: LogFormat) {
    let (filter, handle) = reload::Layer::new(LevelFilter::INFO);
    let registry = tracing_subscriber::registry().with(filter);
    let started = match format {
        LogFormat::Text => registry
            .with(fmt::layer().with_writer(std::io::stderr).with_target(false).with_ansi(is_terminal()))
            .try_init(),
        LogFormat::Json => {
            registry.with(fmt::layer().json().flatten_event(true).with_writer(std::io::stderr)).try_init()
        }
    };
    if started.is_ok() {
        let _ = LEVEL.set(handle);
    }
}

/// Sets the level (`logSeverity` of BGPConfiguration): `debug`, `info`, `warning` or `error`, in any case.
/// An unknown word means `info`.
pub fn set_level(severity: &str) {
    let level = match severity.to_ascii_lowercase().as_str() {
        "trace" => LevelFilter::TRACE,
        "debug" => LevelFilter::DEBUG,
        "warn" | "warning" => LevelFilter::WARN,
        "error" | "fatal" => LevelFilter::ERROR,
        "none" | "off" => LevelFilter::OFF,
        _ => LevelFilter::INFO,
    };
    if let Some(handle) = LEVEL.get() {
        let _ = handle.modify(|filter| *filter = level);
    }
}

fn is_terminal() -> bool {
    std::io::IsTerminal::is_terminal(&std::io::stderr())
}
