//! What is kept of a lab on disk, so that any process can look into it, and take it down after a crash.
//!
//! `/run/causeway-lab/PREFIX-LAB/lab.json`, replaced by rename; beside it a folder a node with its logs and its `/run`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::image::Family;
use crate::process::ProcessId;

/// A lab as it was built.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LabState {
    /// Name of the topology.
    pub name: String,
    /// What stands before the name.
    pub prefix: String,
    /// The topology file.
    pub file: PathBuf,
    /// The process whose end is the lab's end; none for a lab that stays.
    pub owner: Option<ProcessId>,
    /// Nodes by short name.
    pub nodes: BTreeMap<String, NodeState>,
    /// Pods by name.
    pub pods: BTreeMap<String, PodState>,
}

/// A node as it was built.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NodeState {
    /// What it runs.
    pub family: Family,
    /// Image, as the file names it.
    pub image: String,
    /// Process 1.
    pub init: ProcessId,
    /// Environment of its processes.
    pub env: BTreeMap<String, String>,
    /// Its daemons by name, in the order of their start.
    pub daemons: Vec<DaemonState>,
}

/// A daemon of a node.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DaemonState {
    /// Short name.
    pub name: String,
    /// Command line.
    pub argv: Vec<String>,
    /// The socket that shows that it listens, as the node names it.
    pub ready_socket: Option<PathBuf>,
    /// The process started last.
    pub process: ProcessId,
}

/// A pod made through the CNI plugin.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PodState {
    /// Node it lives on.
    pub node: String,
    /// Process 1.
    pub init: ProcessId,
    /// Container id given to the plugin.
    pub container: String,
    /// The plugin's result.
    pub result: serde_json::Value,
}

impl PodState {
    /// The pod's addresses, without prefix length.
    #[must_use]
    pub fn addresses(&self) -> Vec<std::net::IpAddr> {
        let ips = self.result["ips"].as_array().map(Vec::as_slice).unwrap_or_default();
        ips.iter()
            .filter_map(|ip| ip["address"].as_str())
            .filter_map(|address| address.split('/').next().and_then(|address| address.parse().ok()))
            .collect()
    }
}

/// The folder under which every lab of this machine keeps its state.
#[must_use]
pub fn base_dir() -> PathBuf {
    std::env::var_os("CAUSEWAY_LAB_DIR").map_or_else(|| PathBuf::from("/run/causeway-lab"), PathBuf::from)
}

impl LabState {
    /// Folder of a lab.
    #[must_use]
    pub fn dir_of(prefix: &str, name: &str) -> PathBuf {
        base_dir().join(if prefix.is_empty() { name.to_owned() } else { format!("{prefix}-{name}") })
    }

    /// Folder of this lab.
    #[must_use]
    pub fn dir(&self) -> PathBuf {
        Self::dir_of(&self.prefix, &self.name)
    }

    /// Folder of a node or pod of this lab.
    #[must_use]
    pub fn place_dir(&self, place: &str) -> PathBuf {
        self.dir().join(place)
    }

    /// The long name of a node or pod, which is its network namespace's name too: `clab-LAB-NODE`.
    #[must_use]
    pub fn long_name(&self, place: &str) -> String {
        if self.prefix.is_empty() {
            place.to_owned()
        } else {
            format!("{}-{}-{place}", self.prefix, self.name)
        }
    }

    /// Reads a lab's state; `None` where there is no such lab.
    ///
    /// # Errors
    /// Where the state is there but cannot be read.
    pub fn read(dir: &Path) -> Result<Option<Self>> {
        let file = dir.join("lab.json");
        let text = match std::fs::read(&file) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("{}", file.display())),
        };
        serde_json::from_slice(&text).map(Some).with_context(|| format!("{}", file.display()))
    }

    /// Writes the state.
    ///
    /// # Errors
    /// Where the folder cannot be written.
    pub fn write(&self) -> Result<()> {
        let dir = self.dir();
        ensure!(dir.is_dir(), "{} is gone", dir.display());
        let new = dir.join("lab.json.new");
        std::fs::write(&new, serde_json::to_vec_pretty(self)?)
            .with_context(|| format!("{}", new.display()))?;
        std::fs::rename(&new, dir.join("lab.json")).with_context(|| format!("{}", dir.display()))
    }

    /// Process 1 of a node or pod.
    #[must_use]
    pub fn init_of(&self, place: &str) -> Option<ProcessId> {
        let node = self.nodes.get(place).map(|node| node.init);
        node.or_else(|| self.pods.get(place).map(|pod| pod.init))
    }
}
