//! The built daemon: documents in, blocks in the store, answers on the socket.

#![allow(clippy::unwrap_used, reason = "a failed step of a test is a failed test")]

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use causeway_api::control::{Condition, ConditionStatus, Ipam, NodeInfo};
use causeway_api::pod_store::{ALLOCATIONS_FILE, AllocationState, Allocations, Netns, PodStore};
use causeway_ipam::{Request, Store};

fn documents(cidrs: &str) -> String {
    format!(
        r#"
apiVersion: causeway.dev/v1alpha1
kind: Node
metadata: {{name: node-a1}}
spec: {{bgp: {{ipv4Address: 192.0.2.11/24}}, podCIDRs: [{cidrs}]}}
---
apiVersion: causeway.dev/v1alpha1
kind: IPPool
metadata: {{name: v4}}
spec: {{cidr: 10.244.0.0/16}}
---
apiVersion: causeway.dev/v1alpha1
kind: IPPool
metadata: {{name: v6}}
spec: {{cidr: "fd00:10:244::/48"}}
"#
    )
}

/// A running daemon with a folder of its own.
struct Daemon {
    folder: tempfile::TempDir,
    process: Child,
}

impl Daemon {
    fn start(cidrs: &str) -> Self {
        let folder = tempfile::Builder::new().prefix("cwt-").tempdir().unwrap();
        let process = Self::spawn(&folder, cidrs);
        let daemon = Self { folder, process };
        daemon.until("it is ready", || daemon.get("/readyz").0 == 200);
        daemon
    }

    fn spawn(folder: &tempfile::TempDir, cidrs: &str) -> Child {
        std::fs::write(folder.path().join("fabric.yaml"), documents(cidrs)).unwrap();
        Command::new(env!("CARGO_BIN_EXE_causeway-ipam"))
            .args(["--node", "node-a1", "--config"])
            .arg(folder.path().join("fabric.yaml"))
            .arg("--run-dir")
            .arg(folder.path().join("run"))
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    }

    fn run_dir(&self) -> PathBuf {
        self.folder.path().join("run")
    }

    fn store(&self) -> Store {
        Store::new(&self.run_dir())
    }

    fn write(&self, text: &str) {
        std::fs::write(self.folder.path().join("fabric.yaml"), text).unwrap();
    }

    /// Status and body of a GET; 0 while nobody answers.
    fn get(&self, path: &str) -> (u16, String) {
        let Ok(mut socket) = UnixStream::connect(self.run_dir().join("ipam.sock")) else {
            return (0, String::new());
        };
        let mut answer = String::new();
        write!(socket, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        socket.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split_whitespace().nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    fn ipam(&self) -> Ipam {
        serde_json::from_str(&self.get("/v1/ipam").1).unwrap()
    }

    fn condition(&self, kind: &str) -> Condition {
        let node: NodeInfo = serde_json::from_str(&self.get("/v1/node").1).unwrap();
        assert_eq!(node.name, "node-a1");
        node.conditions.into_iter().find(|condition| condition.kind == kind).unwrap()
    }

    fn until(&self, what: &str, mut holds: impl FnMut() -> bool) {
        let end = Instant::now() + Duration::from_secs(40);
        while !holds() {
            assert!(Instant::now() < end, "not within 40 s: {what}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn request(container: &str) -> Request {
    Request {
        container: container.into(),
        interface: "eth0".into(),
        network: "causeway".into(),
        pod: None,
        veth: format!("cwt{container}"),
        netns: Netns { path: "/nonexistent/netns".into(), dev: 1, ino: 2 },
    }
}

fn cidrs(ipam: &Ipam) -> Vec<String> {
    ipam.blocks.iter().map(|block| block.cidr.to_string()).collect()
}

#[test]
fn documents_become_blocks_and_a_removed_block_drains() {
    let daemon = Daemon::start(r#"10.244.1.0/24, "fd00:10:244:1::/64""#);
    assert_eq!(cidrs(&daemon.ipam()), ["10.244.1.0/24", "fd00:10:244:1::/64"]);
    daemon.store().allocate(&request("a")).unwrap();
    let block = &daemon.ipam().blocks[0];
    assert_eq!((block.total, block.used, block.free, block.quarantined), (254, 1, 253, 0));
    assert_eq!(block.allocations[0].container, "a");
    assert!(daemon.get("/metrics").1.contains(r#"addresses{block="10.244.1.0/24",state="used"} 1"#));
    assert_eq!(daemon.condition("BlocksKept").status, ConditionStatus::True);
    // Another block: the old one keeps its pod and gives nothing new.
    daemon.write(&documents(r#"10.244.2.0/24, "fd00:10:244:1::/64""#));
    daemon.until("the new block is there", || cidrs(&daemon.ipam())[0] == "10.244.2.0/24");
    assert_eq!(cidrs(&daemon.ipam()), ["10.244.2.0/24", "fd00:10:244:1::/64", "10.244.1.0/24"]);
    let draining = daemon.condition("BlocksKept");
    assert_eq!(draining.status, ConditionStatus::False);
    assert!(draining.message.contains("10.244.1.0/24"), "{draining:?}");
    let next = daemon.store().allocate(&request("b")).unwrap().record;
    assert_eq!(next.addresses[0].to_string(), "10.244.2.2");
    daemon.store().release("a", "eth0").unwrap();
    daemon.until("the old block is gone", || cidrs(&daemon.ipam()).len() == 2);
    assert_eq!(daemon.condition("BlocksKept").status, ConditionStatus::True);
}

#[test]
fn a_bad_change_is_refused_and_the_blocks_stay() {
    let daemon = Daemon::start("10.244.1.0/24");
    daemon.write(&documents("10.99.1.0/24"));
    daemon.until("the refusal shows", || {
        daemon.condition("ConfigurationAccepted").status == ConditionStatus::False
    });
    assert!(daemon.condition("ConfigurationAccepted").message.contains("podCIDRs"));
    assert_eq!(cidrs(&daemon.ipam()), ["10.244.1.0/24"]);
    assert_eq!(daemon.get("/readyz").0, 200);
    daemon.write(&documents("10.244.3.0/24"));
    daemon.until("the good change is in force", || cidrs(&daemon.ipam()) == ["10.244.3.0/24"]);
}

#[test]
fn the_store_outlives_the_daemon_and_is_mended_by_it() {
    let mut daemon = Daemon::start("10.244.1.0/24");
    daemon.process.kill().unwrap();
    daemon.process.wait().unwrap();
    daemon.store().allocate(&request("a")).unwrap();
    daemon.process = Daemon::spawn(&daemon.folder, "10.244.1.0/24");
    daemon.until("it is ready again", || daemon.get("/readyz").0 == 200);
    assert_eq!(daemon.ipam().blocks[0].used, 1);
    std::fs::remove_dir_all(daemon.store().files().dir()).unwrap();
    daemon.until("the store is back", || daemon.store().files().blocks_path().exists());
    daemon.store().allocate(&request("b")).unwrap();
    std::fs::write(daemon.store().files().allocations_path(), "{").unwrap();
    daemon.until("it says that it is not ready", || daemon.get("/readyz").0 == 503);
    assert_eq!(daemon.get("/v1/ipam").0, 500);
    assert!(daemon.get("/readyz").1.contains(ALLOCATIONS_FILE));
}

#[test]
fn records_of_pods_that_are_gone_are_given_up_and_others_are_not() {
    let daemon = Daemon::start("10.244.1.0/24");
    let store = daemon.store();
    for container in ["old", "fresh", "alive", "dying"] {
        store.allocate(&request(container)).unwrap();
    }
    store.mark_deleting("dying", "eth0").unwrap();
    // Time passes for all but one; one has an interface that exists.
    let files = PodStore::new(&daemon.run_dir());
    let mut all: Allocations = files.read_allocations().unwrap();
    for record in all.allocations.iter_mut().filter(|record| record.container != "fresh") {
        record.changed -= 3_600;
        if record.container == "alive" {
            record.veth = "lo".to_owned();
        }
    }
    let text = serde_json::to_vec(&all).unwrap();
    causeway_api::pod_store::replace_file(&files.allocations_path(), &text, 0o644).unwrap();
    let left = || {
        let mut left: Vec<(String, AllocationState)> = files
            .read_allocations()
            .unwrap()
            .allocations
            .into_iter()
            .map(|record| (record.container, record.state))
            .collect();
        left.sort_by(|one, other| one.0.cmp(&other.0));
        left
    };
    let expected =
        [("alive".to_owned(), AllocationState::Active), ("fresh".to_owned(), AllocationState::Active)];
    daemon.until("the dead ones are given up", || left() == expected);
    assert_eq!(daemon.ipam().blocks[0].quarantined, 2);
    daemon.until("they are counted", || daemon.get("/metrics").1.contains("collected_total 2"));
}

#[test]
fn it_ends_on_sigterm_and_refuses_what_it_cannot_do() {
    let mut daemon = Daemon::start("10.244.1.0/24");
    let pid = nix::unistd::Pid::from_raw(i32::try_from(daemon.process.id()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    assert!(daemon.process.wait().unwrap().success());
    for arguments in [vec!["--node", "n", "--config", "/nonexistent"], vec!["--node", "n", "--kube"]] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_causeway-ipam"));
        let output = command.args(&arguments).arg("--run-dir").arg(daemon.run_dir()).output().unwrap();
        assert!(!output.status.success());
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains("/nonexistent") || said.contains("--kube"), "{arguments:?}: {said}");
    }
}
