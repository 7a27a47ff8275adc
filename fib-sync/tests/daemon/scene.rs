//! A node in a namespace: two underlay links into a second namespace, documents, the daemon, and a bgpd to play.

use std::io::{Read, Write};
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command as Program, Stdio};
use std::time::{Duration, Instant};

use causeway_api::control::{FibRoute, NodeInfo};
use causeway_api::fib::{
    Command, Decoder, Event, Family, GroupMember, Message, NextHop as BgpNextHop, RouteState, VERSION,
};
use causeway_api::pod_store::{Allocation, AllocationState, Allocations, Netns, PodStore, replace_file};
use causeway_kernel::route::{MAIN_TABLE, ROUTE_METRIC, ROUTE_PROTOCOL};
use causeway_kernel::{Kernel, LinkChange, Mac, Netlink, Route, VethPair, netns};
use ipnetwork::IpNetwork;

/// How long anything may take to happen.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// The node's documents; the tests change single words of them.
pub const DOCUMENTS: &str = r#"
apiVersion: causeway.dev/v1alpha1
kind: Node
metadata: {name: a}
spec:
  bgp: {ipv4Address: 192.0.2.1/24, ipv6Address: "2001:db8:a::1/64", asNumber: 64512}
  podCIDRs: [10.244.1.0/24, "fd00:10:244:1::/64"]
---
apiVersion: causeway.dev/v1alpha1
kind: BGPConfiguration
metadata: {name: default}
spec: {gracefulRestart: {restartTime: 120s}}
---
apiVersion: causeway.dev/v1alpha1
kind: IPPool
metadata: {name: v4}
spec: {cidr: 10.0.0.0/8}
---
apiVersion: causeway.dev/v1alpha1
kind: IPPool
metadata: {name: v6}
spec: {cidr: "fd00:10::/32"}
"#;

pub fn network(text: &str) -> IpNetwork {
    text.parse().unwrap()
}

pub fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Waits for a condition, asking again and again.
pub fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The node.
pub struct Scene {
    pub node: OwnedFd,
    pub kernel: Netlink,
    /// The other ends of the underlay links.
    pub far: Netlink,
    pub links: [u32; 2],
    pub far_links: [u32; 2],
    pub run_dir: PathBuf,
    pub config: PathBuf,
    pub daemon: Option<Child>,
    _folder: tempfile::TempDir,
    _far: OwnedFd,
}

impl Drop for Scene {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Scene {
    /// Links `up0` (192.0.2.1/24, 2001:db8:a::1/64) and `up1` (198.51.100.1/24, 2001:db8:b::1/64), no daemon yet.
    pub fn new() -> Scene {
        let node = netns::create().expect("a network namespace (needs root)");
        let far_ns = netns::create().unwrap();
        let mut kernel = Netlink::open_in(node.as_fd()).unwrap();
        let mut far = Netlink::open_in(far_ns.as_fd()).unwrap();
        let up = LinkChange { up: Some(true), ..LinkChange::default() };
        let mut links = [0; 2];
        let mut far_links = [0; 2];
        for (n, addresses) in
            [["192.0.2.1/24", "2001:db8:a::1/64"], ["198.51.100.1/24", "2001:db8:b::1/64"]].iter().enumerate()
        {
            let (name, far_name) = (format!("up{n}"), format!("far{n}"));
            kernel
                .add_veth(&VethPair {
                    name: &name,
                    mac: Mac([2, 0, 0, 0, 1, n as u8]),
                    peer_name: &far_name,
                    peer_mac: Mac([2, 0, 0, 0, 2, n as u8]),
                    peer_netns: Some(far_ns.as_fd()),
                    mtu: 1450,
                })
                .unwrap();
            links[n] = kernel.link_by_name(&name).unwrap().unwrap().index;
            far_links[n] = far.link_by_name(&far_name).unwrap().unwrap().index;
            kernel.set_link(links[n], &up).unwrap();
            far.set_link(far_links[n], &up).unwrap();
            for address in addresses {
                kernel.add_address(links[n], network(address), true).unwrap();
            }
        }
        // The kernel puts a new link to use up to a second after its carrier came.
        eventually("the underlay links are up", || {
            let links = kernel.links().unwrap();
            links.iter().filter(|link| link.up() && !link.loopback).nth(1).map(|_| ())
        });
        let folder = tempfile::tempdir().unwrap();
        let run_dir = folder.path().join("run");
        let config = folder.path().join("config");
        std::fs::create_dir(&run_dir).unwrap();
        std::fs::create_dir(&config).unwrap();
        let scene = Scene {
            node,
            kernel,
            far,
            links,
            far_links,
            run_dir,
            config,
            daemon: None,
            _folder: folder,
            _far: far_ns,
        };
        scene.write_documents(DOCUMENTS);
        scene
    }

    /// A node with the daemon running.
    pub fn running() -> Scene {
        let mut scene = Scene::new();
        scene.start();
        scene
    }

    pub fn write_documents(&self, text: &str) {
        std::fs::write(self.config.join("all.yaml"), text).unwrap();
    }

    /// Starts the daemon in the node's namespace and waits until it is ready.
    pub fn start(&mut self) {
        self.spawn();
        eventually("the daemon is ready", || {
            self.get("/readyz").filter(|answer| answer.starts_with("HTTP/1.0 200"))
        });
    }

    pub fn spawn(&mut self) {
        assert!(self.daemon.is_none(), "the daemon runs already");
        let mut program = Program::new(env!("CARGO_BIN_EXE_causeway-fib-sync"));
        program
            .args(["--node", "a", "--config"])
            .arg(&self.config)
            .arg("--run-dir")
            .arg(&self.run_dir)
            .stdin(Stdio::null());
        let child = netns::run_in(self.node.as_fd(), || program.spawn()).unwrap();
        self.daemon = Some(child.expect("the daemon starts"));
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.daemon.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// SIGTERM, and the exit code.
    pub fn terminate(&mut self) -> Option<i32> {
        let mut child = self.daemon.take().expect("the daemon runs");
        let pid = nix::unistd::Pid::from_raw(child.id() as i32);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
        let status = eventually("the daemon ends", || child.try_wait().unwrap());
        status.code()
    }

    /// The answer of the local API, head and body; `None` while nobody answers.
    pub fn get(&self, path: &str) -> Option<String> {
        let mut stream = UnixStream::connect(self.run_dir.join("fib-sync.sock")).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        write!(stream, "GET {path} HTTP/1.0\r\nHost: x\r\nConnection: close\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        Some(answer)
    }

    fn json<T: serde::de::DeserializeOwned>(&self, path: &str) -> T {
        let answer = self.get(path).expect("the API answers");
        let (_, body) = answer.split_once("\r\n\r\n").expect("an HTTP answer");
        serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {body}"))
    }

    pub fn show_fib(&self) -> Vec<FibRoute> {
        self.json("/v1/fib")
    }

    pub fn show_node(&self) -> NodeInfo {
        self.json("/v1/node")
    }

    /// The row of a prefix.
    pub fn row(&self, prefix: &str) -> Option<FibRoute> {
        self.show_fib().into_iter().find(|row| row.prefix == network(prefix))
    }

    /// One number of `/metrics`.
    pub fn metric(&self, name: &str) -> f64 {
        let text = self.get("/metrics").expect("the API answers");
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .unwrap_or_else(|| panic!("no {name} in {text}"));
        line.trim().parse().unwrap()
    }

    /// The kernel's main table, by destination.
    pub fn routes(&mut self) -> Vec<Route> {
        let mut routes = Vec::new();
        for family in causeway_kernel::Family::ALL {
            routes.extend(self.kernel.routes(family, MAIN_TABLE).unwrap());
        }
        routes.sort_by_key(|route| route.key);
        routes
    }

    /// Those of ours, without the blocks of the node, with the next hops they come to, by object or by themselves.
    pub fn learned(&mut self) -> Vec<Route> {
        let mut routes = self.routes();
        routes.retain(|route| {
            route.protocol == ROUTE_PROTOCOL
                && route.key.metric == ROUTE_METRIC
                && route.kind == causeway_kernel::RouteKind::Unicast
        });
        for route in &mut routes {
            route.nexthop_id = None;
        }
        routes
    }

    /// The route of ours for one prefix.
    pub fn route(&mut self, prefix: &str) -> Option<Route> {
        let key = causeway_kernel::RouteKey::ours(network(prefix));
        let route = self.routes().into_iter().find(|route| route.key == key)?;
        Some(Route { nexthop_id: None, ..route })
    }

    /// Waits until the kernel has exactly these learned routes.
    pub fn expect(&mut self, mut routes: Vec<Route>) {
        routes.sort_by_key(|route| route.key);
        let mut last = Vec::new();
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            last = self.learned();
            if last == routes {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!("expected {routes:#?}\nfound {last:#?}");
    }

    /// Sets an underlay link up or down, on this node's side.
    pub fn set_admin(&mut self, link: usize, up: bool) {
        self.kernel
            .set_link(self.links[link], &LinkChange { up: Some(up), ..LinkChange::default() })
            .unwrap();
    }

    /// Gives an underlay link a carrier or takes it, by its far end.
    pub fn set_carrier(&mut self, link: usize, up: bool) {
        self.far
            .set_link(self.far_links[link], &LinkChange { up: Some(up), ..LinkChange::default() })
            .unwrap();
    }

    /// Writes the ipam store as the plugin would.
    pub fn write_pods(&self, pods: &[(&str, &[&str], AllocationState)]) {
        let allocations = pods
            .iter()
            .map(|(veth, addresses, state)| Allocation {
                container: format!("container-of-{veth}"),
                interface: "eth0".into(),
                addresses: addresses.iter().map(|address| ip(address)).collect(),
                network: "causeway".into(),
                pod: None,
                veth: (*veth).to_owned(),
                netns: Netns { path: "/run/netns/x".into(), dev: 4, ino: 1 },
                state: *state,
                created: 1,
                changed: 1,
            })
            .collect();
        let store = PodStore::new(&self.run_dir);
        std::fs::create_dir_all(store.dir()).unwrap();
        let text = serde_json::to_vec(&Allocations { allocations, ..Allocations::default() }).unwrap();
        replace_file(&store.allocations_path(), &text, 0o600).unwrap();
    }

    /// Makes the host end of a pod's veth pair, up.
    pub fn add_pod_device(&mut self, name: &str) -> u32 {
        let peer = format!("p{}", &name[name.len() - 12..]);
        self.kernel
            .add_veth(&VethPair {
                name,
                mac: Mac([2, 0, 0, 0, 3, 1]),
                peer_name: &peer,
                peer_mac: Mac([2, 0, 0, 0, 3, 2]),
                peer_netns: None,
                mtu: 1450,
            })
            .unwrap();
        let up = LinkChange { up: Some(true), ..LinkChange::default() };
        for name in [peer.as_str(), name] {
            let index = self.kernel.link_by_name(name).unwrap().unwrap().index;
            self.kernel.set_link(index, &up).unwrap();
        }
        self.kernel.link_by_name(name).unwrap().unwrap().index
    }
}

/// The test in the role of bgpd.
pub struct Bgpd {
    stream: UnixStream,
    decoder: Decoder,
    /// What fib-sync said at once.
    pub kept: (bool, bool),
    generation: u64,
}

impl Bgpd {
    /// Connects, says hello and begins a snapshot.
    pub fn connect(scene: &Scene) -> Bgpd {
        let stream =
            eventually("fib.sock answers", || UnixStream::connect(scene.run_dir.join("fib.sock")).ok());
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut bgpd = Bgpd { stream, decoder: Decoder::new(), kept: (false, false), generation: 0 };
        bgpd.send(&[Command::Hello { version: VERSION, restarted: false }, Command::SnapshotBegin]);
        let Event::Hello { version: VERSION, ipv4_kept, ipv6_kept } = bgpd.next() else { panic!("no hello") };
        bgpd.kept = (ipv4_kept, ipv6_kept);
        bgpd
    }

    pub fn send(&mut self, commands: &[Command]) {
        let mut bytes = Vec::new();
        for command in commands {
            command.encode(&mut bytes);
        }
        self.stream.write_all(&bytes).unwrap();
    }

    pub fn send_bytes(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// The next message; panics when none comes in time.
    pub fn next(&mut self) -> Event {
        self.try_next().expect("fib-sync closed the connection")
    }

    /// The next message, `None` at the end of the connection.
    pub fn try_next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.decoder.poll().unwrap() {
                return Some(event);
            }
            let mut bytes = [0; 65536];
            match self.stream.read(&mut bytes).expect("fib-sync says something in time") {
                0 => return None,
                count => self.decoder.extend(&bytes[..count]),
            }
        }
    }

    /// Reads on until a message fits.
    pub fn wait<T>(&mut self, what: &str, mut fits: impl FnMut(&Event) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        let mut seen = Vec::new();
        while Instant::now() < deadline {
            let event = self.next();
            if let Some(found) = fits(&event) {
                return found;
            }
            seen.push(event);
        }
        panic!("not said: {what}; but {seen:#?}");
    }

    /// Why fib-sync closes the connection.
    pub fn goodbye(&mut self) -> String {
        self.wait("goodbye", |event| match event {
            Event::Goodbye { reason } => Some(reason.clone()),
            _ => None,
        })
    }

    /// A group of next hops of equal weight.
    pub fn group(&mut self, id: u32, next_hops: &[&str]) {
        let members =
            next_hops.iter().map(|next_hop| GroupMember::plain(BgpNextHop::global(ip(next_hop)))).collect();
        self.send(&[Command::Group { id, members, backups: Vec::new() }]);
    }

    /// A route; returns its generation.
    pub fn route(&mut self, prefix: &str, group: u32) -> u64 {
        self.generation += 1;
        self.send(&[Command::Route { prefix: network(prefix), group, generation: self.generation }]);
        self.generation
    }

    pub fn withdraw(&mut self, prefix: &str) -> u64 {
        self.generation += 1;
        self.send(&[Command::Withdraw { prefix: network(prefix), generation: self.generation }]);
        self.generation
    }

    pub fn end_of_snapshot(&mut self) {
        self.send(&Family::ALL.map(|family| Command::EndOfSnapshot { family }));
    }

    /// Waits for what became of a prefix in that generation, until it is what `fits` says.
    pub fn status(
        &mut self,
        prefix: &str,
        generation: u64,
        fits: impl Fn(&RouteState) -> bool,
    ) -> RouteState {
        self.wait(&format!("status of {prefix} generation {generation}"), |event| match event {
            Event::Status { prefix: about, generation: of, state }
                if *about == network(prefix) && *of == generation && fits(state) =>
            {
                Some(state.clone())
            }
            _ => None,
        })
    }

    pub fn installed(&mut self, prefix: &str, generation: u64) {
        self.status(prefix, generation, |state| matches!(state, RouteState::Installed { .. }));
    }
}
