//! Pods of a lab, added and removed through the real CNI plugin as a container runtime would.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::lab::Lab;
use crate::run::{command, run};
use crate::state::PodState;
use crate::wire_up;

impl Lab {
    /// Adds a pod to a node: a network namespace of its own, then CNI ADD.
    ///
    /// # Errors
    /// What the plugin says.
    pub fn add_pod(&self, node: &str, pod: &str) -> Result<PodState> {
        ensure!(self.state().init_of(pod).is_none(), "there is a `{pod}` already");
        let init = self.start_init(pod, &BTreeMap::new(), Vec::new())?;
        let container = format!("{}-{}", self.state().long_name(pod), init.start);
        let state = PodState { node: node.to_owned(), init, container, result: Value::Null };
        self.change(|lab| {
            lab.pods.insert(pod.to_owned(), state.clone());
        })?;
        let result = self.cni("ADD", pod, &state)?;
        let state = PodState { result, ..state };
        self.change(|lab| {
            lab.pods.insert(pod.to_owned(), state.clone());
        })?;
        Ok(state)
    }

    /// Removes a pod: CNI DEL, then its namespaces.
    ///
    /// # Errors
    /// What the plugin says.
    pub fn remove_pod(&self, pod: &str) -> Result<()> {
        let state = self.state().pods.get(pod).cloned().with_context(|| format!("there is no pod {pod}"))?;
        self.cni("DEL", pod, &state)?;
        state.init.signal(Signal::SIGKILL)?;
        wire_up::forget_name(&self.state().long_name(pod))?;
        self.change(|lab| {
            lab.pods.remove(pod);
        })
    }

    /// Calls the plugin on the pod's node; the answer is what it wrote, or null.
    fn cni(&self, verb: &str, pod: &str, state: &PodState) -> Result<Value> {
        let env: BTreeMap<String, String> = [
            ("CNI_COMMAND", verb.to_owned()),
            ("CNI_CONTAINERID", state.container.clone()),
            ("CNI_NETNS", wire_up::name_file(&self.state().long_name(pod)).display().to_string()),
            ("CNI_IFNAME", "eth0".to_owned()),
            ("CNI_PATH", "/usr/local/bin".to_owned()),
            ("CNI_ARGS", format!("IgnoreUnknown=1;K8S_POD_NAMESPACE=lab;K8S_POD_NAME={pod}")),
        ]
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value))
        .collect();
        let config = json!({
            "cniVersion": "1.1.0", "name": "causeway", "type": "causeway-cni", "runDir": "/run/causeway",
        });
        let mut plugin = command(&["causeway-cni"], &env);
        let done = run(self.namespaces(&state.node)?, &mut plugin, Some(config.to_string().as_bytes()))?;
        ensure!(
            done.status.success(),
            "CNI {verb} of {pod} on {} ended with {}: {}{}",
            state.node,
            done.status,
            done.stdout.trim(),
            done.stderr.trim()
        );
        if done.stdout.trim().is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_str(&done.stdout)
            .with_context(|| format!("CNI {verb} of {pod} wrote no JSON: {}", done.stdout))
    }
}
