//! The arguments every daemon takes (DESIGN §4).

use std::net::SocketAddr;
use std::path::PathBuf;

use causeway_api::control::DEFAULT_RUN_DIR;
use clap::{Args, ValueEnum};

/// Arguments common to all daemons.
#[derive(Args, Clone, Debug)]
pub struct DaemonArgs {
    /// Documents: a file or a folder of YAML files; watched, and read again when they change
    #[arg(long, value_name = "PATH", required_unless_present = "kube", conflicts_with = "kube")]
    pub config: Option<PathBuf>,

    /// Read the documents from the Kubernetes API server (not supported yet)
    #[arg(long)]
    pub kube: bool,

    /// Name of this node: picks its own Node document
    #[arg(long, value_name = "NAME", env = "CAUSEWAY_NODE")]
    pub node: String,

    /// Run folder: sockets, markers, pod store; several nodes can share a machine with one each
    #[arg(long, value_name = "DIR", default_value = DEFAULT_RUN_DIR)]
    pub run_dir: PathBuf,

    /// Serve /metrics, /healthz, /readyz and the read-only API here as well
    #[arg(long, value_name = "ADDR:PORT")]
    pub http: Option<SocketAddr>,

    /// Format of the log on standard error
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// The arguments ask for what cannot be done.
#[derive(Debug, thiserror::Error)]
pub enum ArgsError {
    /// `--kube` comes later.
    #[error("not supported yet: --kube")]
    Kube,
    /// The run folder cannot be made.
    #[error("--run-dir {path}: {error}")]
    RunDir {
        /// Which folder.
        path: PathBuf,
        /// What the kernel said.
        error: std::io::Error,
    },
}

impl DaemonArgs {
    /// Refuses what is not supported, makes the run folder, and returns the path of the documents.
    ///
    /// # Errors
    /// `--kube` was given, or the run folder cannot be made.
    pub fn prepare(&self) -> Result<PathBuf, ArgsError> {
        let Some(config) = self.config.clone().filter(|_| !self.kube) else {
            return Err(ArgsError::Kube);
        };
        std::fs::create_dir_all(&self.run_dir)
            .map_err(|error| ArgsError::RunDir { path: self.run_dir.clone(), error })?;
        Ok(config)
    }
}
