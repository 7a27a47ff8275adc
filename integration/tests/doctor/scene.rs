//! Nodes a and b with fib-sync running, and router r between them, each in a namespace of its own.

use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// What may take its time.
const PATIENCE: Duration = Duration::from_secs(20);

const DOCUMENTS: &str = r#"
apiVersion: causeway.dev/v1alpha1
kind: Node
metadata: {name: a}
spec:
  bgp: {ipv4Address: 192.0.2.11/24, ipv6Address: "2001:db8:a::11/64", asNumber: 64512}
  podCIDRs: [10.244.1.0/24]
---
apiVersion: causeway.dev/v1alpha1
kind: Node
metadata: {name: b}
spec:
  bgp: {ipv4Address: 198.51.100.12/24, ipv6Address: "2001:db8:b::12/64", asNumber: 64512}
  podCIDRs: [10.244.2.0/24]
---
apiVersion: causeway.dev/v1alpha1
kind: IPPool
metadata: {name: pods}
spec: {cidr: 10.244.0.0/16}
"#;

fn succeed(command: &mut Command) -> Output {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

fn bin(name: &str) -> PathBuf {
    let beside = Path::new(env!("CARGO_BIN_EXE_causeway-lab")).parent().map(Path::to_owned);
    let folder = std::env::var_os("CAUSEWAY_BIN_DIR").map(PathBuf::from).or(beside).unwrap_or_default();
    let path = folder.join(name);
    assert!(path.exists(), "{} is not there: `make build` makes it", path.display());
    path
}

/// The namespaces and daemons.
pub struct Scene {
    prefix: String,
    daemons: Vec<(String, Child)>,
    folder: tempfile::TempDir,
}

impl Drop for Scene {
    fn drop(&mut self) {
        for (_, daemon) in &mut self.daemons {
            // It may have ended already.
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
        for name in ["a", "b", "r"] {
            let _ = Command::new("ip").args(["netns", "del", &self.namespace(name)]).output();
        }
    }
}

impl Scene {
    pub fn new() -> Scene {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let prefix = format!("cwd-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let mut scene = Scene { prefix, daemons: Vec::new(), folder: tempfile::tempdir().unwrap() };
        for name in ["a", "b", "r"] {
            succeed(Command::new("ip").args(["netns", "add", &scene.namespace(name)]));
            scene.ip(name, "link set lo up");
        }
        for key in ["net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"] {
            scene.run("r", "sysctl", &["-q", "-w", &format!("{key}=1")]);
        }
        for (node, v4, v6, host) in
            [("a", "192.0.2", "2001:db8:a::", "11"), ("b", "198.51.100", "2001:db8:b::", "12")]
        {
            let far = scene.namespace("r");
            scene.ip(node, &format!("link add eth0 type veth peer name to-{node} netns {far}"));
            scene.ip(node, &format!("addr add {v4}.{host}/24 dev eth0"));
            scene.ip(node, &format!("addr add {v6}{host}/64 dev eth0 nodad"));
            scene.ip(node, "link set eth0 up");
            scene.ip("r", &format!("addr add {v4}.1/24 dev to-{node}"));
            scene.ip("r", &format!("addr add {v6}1/64 dev to-{node} nodad"));
            scene.ip("r", &format!("link set to-{node} up"));
            scene.ip(node, &format!("route add default via {v4}.1"));
            scene.ip(node, &format!("-6 route add default via {v6}1"));
        }
        std::fs::write(scene.folder.path().join("all.yaml"), DOCUMENTS).unwrap();
        for node in ["a", "b"] {
            scene.start(node);
        }
        let ready = |node: &str| {
            let mut command = Command::new(bin("causeway"));
            command.arg("--run-dir").arg(scene.run_dir(node)).args(["show", "node", "-o", "json"]);
            let shown = String::from_utf8_lossy(&command.output().unwrap().stdout).into_owned();
            let shown: serde_json::Value = serde_json::from_str(&shown).unwrap_or_default();
            let conditions = shown["conditions"].as_array().cloned().unwrap_or_default();
            conditions
                .iter()
                .any(|condition| condition["type"] == "ProbesAnswered" && condition["reason"] == "Answering")
        };
        until("probes are answered", || ready("a") && ready("b"));
        // Links are put to use up to a second after their carrier came, and neighbours have to be found.
        until("the nodes reach each other", || {
            ["198.51.100.12", "2001:db8:b::12"].iter().all(|address| scene.greeted("a", address))
        });
        scene
    }

    fn namespace(&self, name: &str) -> String {
        format!("{}-{name}", self.prefix)
    }

    fn run_dir(&self, node: &str) -> PathBuf {
        self.folder.path().join("run").join(node)
    }

    fn start(&mut self, node: &str) {
        let run_dir = self.run_dir(node);
        std::fs::create_dir_all(&run_dir).unwrap();
        let log = std::fs::File::create(run_dir.join("log")).unwrap();
        let child = self
            .command(node, bin("causeway-fib-sync"))
            .args(["--node", node, "--config"])
            .arg(self.folder.path().join("all.yaml"))
            .arg("--run-dir")
            .arg(&run_dir)
            .stderr(log)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        self.daemons.push((node.to_owned(), child));
    }

    /// Kills a node's daemon.
    pub fn stop(&mut self, node: &str) {
        for (_, daemon) in self.daemons.iter_mut().filter(|(name, _)| name == node) {
            daemon.kill().unwrap();
            daemon.wait().unwrap();
        }
    }

    /// A command in a namespace. `ip netns exec` becomes what it runs, so that it can be killed.
    fn command(&self, namespace: &str, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace(namespace)]).arg(program);
        command
    }

    fn run(&self, namespace: &str, program: &str, arguments: &[&str]) {
        succeed(self.command(namespace, program).args(arguments));
    }

    /// `ip WORDS` in a namespace.
    pub fn ip(&self, namespace: &str, words: &str) {
        let mut command = Command::new("ip");
        succeed(command.args(["-n", &self.namespace(namespace)]).args(words.split(' ')));
    }

    /// The router passes on no more than this towards these nodes, and says so.
    pub fn narrow(&self, towards: &[&str], mtu: u32) {
        for node in towards {
            let (v4, v6) = if *node == "a" {
                ("192.0.2.11", "2001:db8:a::11")
            } else {
                ("198.51.100.12", "2001:db8:b::12")
            };
            self.ip("r", &format!("route add {v4} dev to-{node} mtu lock {mtu}"));
            self.ip("r", &format!("-6 route add {v6} dev to-{node} mtu lock {mtu}"));
        }
    }

    /// The router's ICMP about packets that are too big is lost.
    pub fn drop_too_big(&self) {
        let rules = "add table inet f; add chain inet f o { type filter hook output priority 0; }; \
                     add rule inet f o icmp type destination-unreachable icmp code frag-needed drop; \
                     add rule inet f o icmpv6 type packet-too-big drop";
        self.run("r", "nft", &[rules]);
    }

    /// A VXLAN device `vx0` between the nodes, with the other's block behind it.
    pub fn tunnel(&self) {
        let ends = [("a", "192.0.2.11", 1), ("b", "198.51.100.12", 2)];
        for (node, own, n) in ends {
            let (_, other, m) = ends[2 - n];
            self.ip(
                node,
                &format!(
                    "link add vx0 mtu 1450 address 02:00:00:00:00:0{n} type vxlan id 4096 dstport 4789 \
                     local {own} nolearning df set"
                ),
            );
            self.ip(node, &format!("addr add 10.244.{n}.1/32 dev vx0"));
            self.ip(node, "link set vx0 up");
            self.ip(node, &format!("neigh add {other} lladdr 02:00:00:00:00:0{m} dev vx0 nud permanent"));
            let mac = format!("02:00:00:00:00:0{m}");
            self.run(node, "bridge", &["fdb", "append", &mac, "dev", "vx0", "dst", other]);
            self.ip(node, &format!("route add 10.244.{m}.0/24 via {other} dev vx0 onlink src 10.244.{n}.1"));
        }
        until("the tunnel is up", || self.greeted("a", "10.244.2.1"));
    }

    /// Whether a responder answers a greeting from a namespace.
    pub fn greeted(&self, from: &str, address: &str) -> bool {
        let path = format!("/run/netns/{}", self.namespace(from));
        let address = address.to_owned();
        let greet = move || {
            let namespace = std::fs::File::open(path).unwrap();
            nix::sched::setns(namespace, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            let any = if address.contains(':') { "[::]:0" } else { "0.0.0.0:0" };
            let socket = UdpSocket::bind(any).unwrap();
            socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
            // HELLO: magic, kind 0, and a number.
            let mut hello = [0; 48];
            hello[..4].copy_from_slice(b"CWP1");
            hello[15] = 9;
            let sent = socket.send_to(&hello, (address.as_str(), 1790)).is_ok();
            let mut answer = [0; 100];
            sent && socket.recv(&mut answer).is_ok_and(|length| length == 48 && answer[4] == 1)
        };
        std::thread::spawn(greet).join().unwrap()
    }

    fn causeway(&self, arguments: &[&str]) -> Output {
        let mut command = self.command("a", bin("causeway"));
        command.arg("--run-dir").arg(self.run_dir("a")).arg("doctor").args(arguments);
        command.output().unwrap()
    }

    /// `causeway doctor mtu … -o json` on node a: its exit status and rows.
    pub fn doctor(&self, arguments: &[&str]) -> (i32, Vec<serde_json::Value>) {
        let output = self.causeway(&[&["mtu", "-o", "json"], arguments].concat());
        let rows = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
            panic!("{error}: {}", String::from_utf8_lossy(&output.stderr));
        });
        (output.status.code().unwrap(), rows)
    }

    /// What people see.
    pub fn table(&self, arguments: &[&str]) -> String {
        String::from_utf8(self.causeway(arguments).stdout).unwrap()
    }
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
