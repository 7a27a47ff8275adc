//! A node and its pods: namespaces, a pod store, and calls of the plugin in between.

use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::process::{Child, Command, Stdio};

use causeway_api::pod_store::{Allocation, PodStore};
use causeway_ipam::Store;
use causeway_kernel::{Address, Kernel, Link, Neighbour, Netlink, Route, netns, sysctl};
use serde_json::{Value, json};

pub const V4: &str = "10.244.1.0/24";
pub const V6: &str = "fd00:10:244:1::/64";
pub const VERSIONS: [&str; 5] = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];

/// A network namespace that goes with its value.
pub struct Namespace {
    fd: OwnedFd,
}

impl Namespace {
    pub fn new() -> Self {
        Self { fd: netns::create().expect("network namespaces can be made (root is needed)") }
    }

    /// A path that leads to it for any process, as long as it lives.
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.fd.as_raw_fd())
    }

    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        netns::run_in(self.fd.as_fd(), work).unwrap()
    }

    pub fn netlink(&self) -> Netlink {
        Netlink::open_in(self.fd.as_fd()).unwrap()
    }

    pub fn link(&self, name: &str) -> Option<Link> {
        self.netlink().link_by_name(name).unwrap()
    }

    pub fn addresses(&self) -> Vec<Address> {
        self.netlink().addresses().unwrap()
    }

    pub fn neighbours(&self) -> Vec<Neighbour> {
        self.netlink().neighbours().unwrap()
    }

    pub fn routes(&self) -> Vec<Route> {
        let mut netlink = self.netlink();
        causeway_kernel::Family::ALL
            .into_iter()
            .flat_map(|family| netlink.routes(family, causeway_kernel::route::MAIN_TABLE).unwrap())
            .collect()
    }

    /// Runs a command in it and returns its output; it must succeed.
    pub fn shell(&self, command: &str) -> String {
        let words: Vec<&str> = command.split_whitespace().collect();
        let output = self.run(|| Command::new(words[0]).args(&words[1..]).output().expect(words[0]));
        assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

/// What the plugin answered.
#[derive(Debug)]
pub struct Answer {
    pub status: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Answer {
    /// The result of a call that must have succeeded; null where nothing was printed.
    pub fn ok(&self) -> Value {
        assert_eq!((self.status, self.stderr.as_str()), (Some(0), ""), "{self:?}");
        if self.stdout.is_empty() {
            return Value::Null;
        }
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The code of a call that must have failed with an error as the specification has them.
    pub fn error(&self) -> (u64, String) {
        assert_eq!(self.status, Some(1), "{self:?}");
        let error: Value =
            serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"));
        assert!(error["cniVersion"].is_string() && error["details"].is_string(), "{error}");
        let message = error["msg"].as_str().unwrap();
        assert!(!message.is_empty(), "{error}");
        (error["code"].as_u64().unwrap(), format!("{message} {}", error["details"].as_str().unwrap()))
    }
}

/// A node with a pod store.
pub struct Node {
    pub namespace: Namespace,
    pub run_dir: tempfile::TempDir,
}

impl Node {
    pub fn new(blocks: &[&str]) -> Self {
        let node = Self::without_store();
        node.set_blocks(blocks);
        node
    }

    pub fn dual_stack() -> Self {
        Self::new(&[V4, V6])
    }

    pub fn without_store() -> Self {
        let namespace = Namespace::new();
        namespace.run(|| {
            sysctl::write("net/ipv4/ip_forward", "1").unwrap();
            sysctl::write("net/ipv6/conf/all/forwarding", "1").unwrap();
        });
        let mut netlink = namespace.netlink();
        let lo = netlink.link_by_name("lo").unwrap().unwrap().index;
        netlink.set_link(lo, &causeway_kernel::LinkChange { up: Some(true), ..Default::default() }).unwrap();
        // /run is where run folders are, and in memory.
        let run_dir = tempfile::Builder::new().prefix("cwt-").tempdir_in("/dev/shm").unwrap();
        Self { namespace, run_dir }
    }

    pub fn store(&self) -> Store {
        Store::new(self.run_dir.path())
    }

    pub fn set_blocks(&self, blocks: &[&str]) {
        let blocks: Vec<_> = blocks.iter().map(|block| block.parse().unwrap()).collect();
        self.store().set_blocks("node-a1", &blocks).unwrap();
    }

    pub fn records(&self) -> Vec<Allocation> {
        PodStore::new(self.run_dir.path()).read().unwrap().allocations.allocations
    }

    pub fn config(&self, version: &str) -> Value {
        json!({
            "cniVersion": version,
            "name": "causeway",
            "type": "causeway-cni",
            "runDir": self.run_dir.path(),
        })
    }

    /// Starts the plugin with exactly these variables; its input is still to be written.
    pub fn start(&self, variables: &[(&str, &str)]) -> Child {
        self.namespace.run(|| {
            Command::new(env!("CARGO_BIN_EXE_causeway-cni"))
                .env_clear()
                .envs(variables.iter().copied())
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap()
        })
    }

    pub fn call_raw(&self, variables: &[(&str, &str)], input: &[u8]) -> Answer {
        let mut child = self.start(variables);
        // A plugin that refuses its variables need not read its input.
        let _ = child.stdin.take().unwrap().write_all(input);
        let output = child.wait_with_output().unwrap();
        Answer {
            status: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    pub fn call(
        &self,
        command: &str,
        container: &str,
        netns: &str,
        interface: &str,
        config: &Value,
    ) -> Answer {
        let variables = [
            ("CNI_COMMAND", command),
            ("CNI_CONTAINERID", container),
            ("CNI_NETNS", netns),
            ("CNI_IFNAME", interface),
            ("CNI_PATH", "/opt/cni/bin"),
        ];
        self.call_raw(&variables, config.to_string().as_bytes())
    }

    pub fn add(&self, container: &str, pod: &Namespace) -> Answer {
        self.call("ADD", container, &pod.path(), "eth0", &self.config("1.1.0"))
    }

    pub fn del(&self, container: &str, pod: &Namespace) -> Answer {
        self.call("DEL", container, &pod.path(), "eth0", &self.config("1.1.0"))
    }

    pub fn check(&self, container: &str, pod: &Namespace, result: &Value) -> Answer {
        let mut config = self.config(result["cniVersion"].as_str().unwrap());
        config["prevResult"] = result.clone();
        self.call("CHECK", container, &pod.path(), "eth0", &config)
    }

    /// Host ends that are there.
    pub fn veths(&self) -> Vec<String> {
        let links = self.namespace.netlink().links().unwrap();
        links.into_iter().map(|link| link.name).filter(|name| name.starts_with("cw")).collect()
    }

    /// That nothing of any pod is left: interfaces, routes, records.
    pub fn assert_clean(&self) {
        assert_eq!(self.veths(), Vec::<String>::new());
        assert_eq!(self.records(), Vec::new());
        let ours: Vec<Route> =
            self.namespace.routes().into_iter().filter(|route| route.protocol == 179).collect();
        assert_eq!(ours, Vec::new());
    }
}

/// The addresses of a result, in order, with their prefix lengths.
pub fn addresses_of(result: &Value) -> Vec<String> {
    let ips = result["ips"].as_array().unwrap();
    ips.iter().map(|ip| ip["address"].as_str().unwrap().to_owned()).collect()
}

/// An address of a result without its prefix length.
pub fn address_of(result: &Value, at: usize) -> String {
    addresses_of(result)[at].split('/').next().unwrap().to_owned()
}

/// Whether a ping from the namespace is answered, `count` times out of `count`.
pub fn ping(from: &Namespace, to: &str, count: u32) -> bool {
    let count = count.to_string();
    let arguments = ["-c", &count, "-i", "0.05", "-W", "2", "-q", to];
    from.run(|| {
        Command::new("ping")
            .args(arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .expect("ping (iputils-ping)")
            .success()
    })
}
