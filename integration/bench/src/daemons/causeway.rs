//! Causeway: the documents of one node, two ranges of peers, nothing filtered, nothing programmed.

use std::fs;

use anyhow::{Result, ensure};

use super::{Setup, words};
use crate::addresses::{DAEMON, DAEMON_AS, EBGP_RANGE, IBGP_RANGE, PORT};

pub(super) fn prepare(setup: &Setup<'_>) -> Result<Vec<String>> {
    let api = "apiVersion: causeway.dev/v1alpha1";
    let (cluster, reflection) = match setup.reflector {
        true => (format!(", routeReflectorClusterID: {DAEMON}"), ", reflection: Client"),
        false => (String::new(), ""),
    };
    let hold = setup.hold_time.map(|seconds| format!(", holdTime: {seconds}s")).unwrap_or_default();
    let documents = format!(
        "{api}\nkind: Node\nmetadata: {{name: bench}}\n\
         spec: {{bgp: {{ipv4Address: {DAEMON}/16, routerID: {DAEMON}, asNumber: {DAEMON_AS}{cluster}}}}}\n---\n\
         {api}\nkind: BGPConfiguration\nmetadata: {{name: default}}\n\
         spec: {{nodeToNodeMeshEnabled: false{hold}}}\n---\n\
         {api}\nkind: BGPFilter\nmetadata: {{name: all}}\n\
         spec: {{importV4: [{{action: Accept}}], exportV4: [{{action: Accept}}]}}\n---\n\
         {api}\nkind: BGPPeer\nmetadata: {{name: inside}}\n\
         spec: {{peerRange: {IBGP_RANGE}, asNumber: internal, families: [ipv4], filters: [all]{reflection}}}\n---\n\
         {api}\nkind: BGPPeer\nmetadata: {{name: outside}}\n\
         spec: {{peerRange: {EBGP_RANGE}, asNumber: external, families: [ipv4], filters: [all]}}\n"
    );
    let folder = setup.folder.display();
    fs::write(setup.folder.join("fabric.yaml"), documents)?;
    let name = if setup.reflector { "causeway-route-reflector" } else { "causeway-bgpd" };
    let binary = setup.binaries.join(name);
    ensure!(binary.exists(), "{} is missing: cargo build --release --bin {name}", binary.display());
    let mut argv = vec![binary.display().to_string()];
    if !setup.reflector {
        argv.push("--no-fib".to_owned());
    }
    argv.extend(words(&format!(
        "--config {folder}/fabric.yaml --node bench --run-dir {folder}/run --listen {DAEMON}:{PORT}"
    )));
    Ok(argv)
}
