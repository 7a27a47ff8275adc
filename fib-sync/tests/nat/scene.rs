//! A node with two pods of different pools and a host outside, each in a namespace of its own.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::process::Command;
use std::time::Duration;

use causeway_kernel::netns;

/// What may take its time.
const PATIENCE: Duration = Duration::from_secs(10);

/// Runs a program in the calling thread's namespace; panics where it fails. Its output.
pub fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap_or_else(|error| {
        panic!("{program} cannot be run: {error}");
    });
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn ip(arguments: &str) {
    run("ip", &arguments.split(' ').collect::<Vec<_>>());
}

/// A receive with a time limit is not taken up again by the kernel after a signal.
fn receive(socket: &UdpSocket, bytes: &mut [u8]) -> std::io::Result<(usize, SocketAddr)> {
    loop {
        match socket.recv_from(bytes) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            outcome => return outcome,
        }
    }
}

/// The namespaces; they go with their descriptors.
pub struct Scene {
    /// 10.244.1.2 and fd00:10::2, in a pool that is translated.
    pub pod: OwnedFd,
    /// 10.9.0.2 and fd00:9::2, in one that is not.
    pub other_pod: OwnedFd,
    /// 203.0.113.1, 2001:db8::1, and .1 towards the pods.
    pub node: OwnedFd,
    /// 203.0.113.9 and 2001:db8::9.
    pub outside: OwnedFd,
}

impl Scene {
    pub fn new() -> Scene {
        let namespace = || netns::create().expect("a network namespace (needs root)");
        let scene =
            Scene { pod: namespace(), other_pod: namespace(), node: namespace(), outside: namespace() };
        scene.at_node(|| {
            ip("link set lo up");
            std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
            std::fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "1").unwrap();
        });
        for (far, name, v4, v6) in [
            (&scene.pod, "pod", "10.244.1", "fd00:10::"),
            (&scene.other_pod, "other", "10.9.0", "fd00:9::"),
            (&scene.outside, "out", "203.0.113", "2001:db8::"),
        ] {
            scene.connect(far, name, v4, v6);
        }
        scene
    }

    /// A veth pair between the node (.1) and another namespace (.2; outside .9), which has its default route there.
    fn connect(&self, far: &OwnedFd, name: &str, v4: &str, v6: &str) {
        let host = if name == "out" { "9" } else { "2" };
        self.at_node(|| ip(&format!("link add {name} type veth peer name eth0")));
        self.move_link("eth0", far);
        self.at_node(|| {
            ip(&format!("addr add {v4}.1/24 dev {name}"));
            ip(&format!("addr add {v6}1/64 dev {name} nodad"));
            ip(&format!("link set {name} up"));
        });
        self.at(far, || {
            ip("link set lo up");
            ip(&format!("addr add {v4}.{host}/24 dev eth0"));
            ip(&format!("addr add {v6}{host}/64 dev eth0 nodad"));
            ip("link set eth0 up");
            ip(&format!("route add default via {v4}.1"));
            ip(&format!("-6 route add default via {v6}1"));
        });
    }

    /// Moves a link of the node into another namespace, which has no name: by the thread of one who is in it.
    fn move_link(&self, link: &str, to: &OwnedFd) {
        let (ready, entered) = std::sync::mpsc::channel();
        let (done, moved) = std::sync::mpsc::channel::<()>();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                netns::run_in(to.as_fd(), move || {
                    ready.send(nix::unistd::gettid()).unwrap();
                    // Ends when the other side does, whatever becomes of it.
                    let _ = moved.recv();
                })
            });
            let thread = entered.recv().unwrap();
            self.at_node(|| ip(&format!("link set {link} netns {thread}")));
            drop(done);
        });
    }

    pub fn at<T: Send>(&self, namespace: &OwnedFd, work: impl FnOnce() -> T + Send) -> T {
        netns::run_in(namespace.as_fd(), work).unwrap()
    }

    pub fn at_node<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.at(&self.node, work)
    }

    fn socket(&self, namespace: &OwnedFd, address: &str) -> UdpSocket {
        let address = SocketAddr::new(address.parse().unwrap(), 0);
        let socket = self.at(namespace, || UdpSocket::bind(address).unwrap());
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket
    }

    /// Sends a datagram and an answer to it; returns which address the receiver saw.
    pub fn datagram(&self, from: &OwnedFd, source: &str, to: &OwnedFd, destination: &str) -> String {
        let receiver = self.socket(to, destination);
        let sender = self.socket(from, source);
        let there = receiver.local_addr().unwrap();
        self.exchange(&sender, there, &receiver).to_string()
    }

    fn exchange(&self, sender: &UdpSocket, there: SocketAddr, receiver: &UdpSocket) -> IpAddr {
        let mut bytes = [0; 16];
        sender.send_to(b"there", there).unwrap();
        let (count, seen) = receive(receiver, &mut bytes).expect("the datagram arrives");
        assert_eq!(&bytes[..count], b"there");
        receiver.send_to(b"back", seen).unwrap();
        let (count, _) = receive(sender, &mut bytes).expect("the answer arrives");
        assert_eq!(&bytes[..count], b"back");
        seen.ip()
    }

    /// Forgets connections, so that the next datagram is a new one whatever its ports.
    pub fn flush_connections(&self) {
        for namespace in [&self.pod, &self.node] {
            self.at(namespace, || {
                let mut conntrack = causeway_kernel::conntrack::Conntrack::open().unwrap();
                for address in ["10.244.1.2", "fd00:10::2"] {
                    conntrack.delete_for(address.parse().unwrap()).unwrap();
                }
            });
        }
    }

    /// The chains of kube-proxy for one service, 10.96.0.10:80 in front of 10.9.0.2:8080, and its masquerade by mark.
    pub fn kube_proxy(&self, tool: &str) {
        let service = "-d 10.96.0.10/32 -p udp -m udp --dport 80";
        let endpoint = "-p udp -m udp -j DNAT --to-destination 10.9.0.2:8080";
        let iptables = [
            "-N KUBE-SERVICES",
            "-N KUBE-POSTROUTING",
            "-N KUBE-MARK-MASQ",
            "-N KUBE-SVC-X",
            "-N KUBE-SEP-X",
            "-A PREROUTING -j KUBE-SERVICES",
            "-A OUTPUT -j KUBE-SERVICES",
            "-A POSTROUTING -j KUBE-POSTROUTING",
            "-A KUBE-MARK-MASQ -j MARK --or-mark 0x4000",
            "-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN",
            "-A KUBE-POSTROUTING -j MARK --xor-mark 0x4000",
            "-A KUBE-POSTROUTING -j MASQUERADE --random-fully",
            &format!("-A KUBE-SERVICES {service} -j KUBE-SVC-X"),
            &format!("-A KUBE-SVC-X ! -s 10.0.0.0/8 {service} -j KUBE-MARK-MASQ"),
            "-A KUBE-SVC-X -j KUBE-SEP-X",
            &format!("-A KUBE-SEP-X {endpoint}"),
        ];
        let nftables = "
            table ip kube-proxy {
              chain mark-it { meta mark set meta mark | 0x4000; }
              chain service {
                ip saddr != 10.0.0.0/8 jump mark-it
                meta l4proto udp counter dnat to 10.9.0.2:8080
              }
              chain services { ip daddr 10.96.0.10 udp dport 80 counter goto service; }
              chain prerouting { type nat hook prerouting priority dstnat; jump services; }
              chain output { type nat hook output priority -100; jump services; }
              chain masquerading {
                meta mark & 0x4000 == 0 return
                meta mark set meta mark ^ 0x4000
                counter masquerade fully-random
              }
              chain postrouting { type nat hook postrouting priority srcnat; jump masquerading; }
            }";
        self.at_node(|| match tool {
            "nft" => {
                let folder = tempfile::tempdir().unwrap();
                let path = folder.path().join("kube-proxy.nft");
                std::fs::write(&path, nftables).unwrap();
                run("nft", &["-f", path.to_str().unwrap()]);
            }
            _ => iptables.iter().for_each(|rule| {
                let words = ["-w", "-t", "nat"].into_iter().chain(rule.split(' '));
                run(tool, &words.collect::<Vec<_>>());
            }),
        });
    }

    /// The rules of kube-proxy as its tool lists them.
    pub fn foreign_rules(&self, tool: &str, counters: bool) -> String {
        let text = self.at_node(|| match tool {
            "nft" => run("nft", &["list", "table", "ip", "kube-proxy"]),
            _ => run(&format!("{tool}-save"), if counters { &["-c", "-t", "nat"] } else { &["-t", "nat"] }),
        });
        let without = |line: &str| {
            // The counters of nft, and those of chains in iptables, which are listed always.
            let mut words: Vec<&str> = line.split(' ').collect();
            if !counters && let Some(at) = words.iter().position(|word| word.trim() == "counter") {
                words.drain(at..(at + 5).min(words.len()));
            }
            if !counters && line.starts_with(':') {
                words.truncate(2);
            }
            words.join(" ")
        };
        text.lines().filter(|line| !line.starts_with('#')).map(|line| without(line) + "\n").collect()
    }

    /// Asks the service from a namespace; returns which address its pod saw.
    pub fn service(&self, from: &OwnedFd, source: &str) -> String {
        let receiver = self.at(&self.other_pod, || UdpSocket::bind("10.9.0.2:8080").unwrap());
        receiver.set_read_timeout(Some(PATIENCE)).unwrap();
        let sender = self.socket(from, source);
        self.exchange(&sender, "10.96.0.10:80".parse().unwrap(), &receiver).to_string()
    }

    /// Puts a VXLAN device of ours between the node and the namespace outside, with 10.244.2.0/24 behind it there.
    pub fn add_tunnel(&self, mtu: u32) {
        for (namespace, own, other, n) in [(&self.node, "1", "9", 1), (&self.outside, "9", "1", 2)] {
            self.at(namespace, || {
                ip(&format!(
                    "link add causeway-vxlan mtu {mtu} type vxlan id 4096 dstport 4789 nolearning \
                     local 203.0.113.{own} remote 203.0.113.{other}"
                ));
                ip(&format!("addr add 10.244.{n}.1/32 dev causeway-vxlan"));
                ip("link set causeway-vxlan up");
            });
        }
        self.at_node(|| ip("route add 10.244.2.0/24 via 10.244.2.1 dev causeway-vxlan onlink"));
        self.at(&self.outside, || {
            // The pod there would be on a device of 1500 bytes.
            ip("route add 10.244.1.0/24 via 10.244.1.1 dev causeway-vxlan onlink src 10.244.2.1 advmss 1460");
        });
    }

    /// The segment sizes that arrive: from the pod into the tunnel, out of the tunnel at the pod, and without a tunnel.
    pub fn segment_sizes(&self) -> [u32; 3] {
        [
            self.segment_size(&self.pod, &self.outside, "10.244.2.1"),
            self.segment_size(&self.outside, &self.pod, "10.244.1.2"),
            self.segment_size(&self.pod, &self.outside, "203.0.113.9"),
        ]
    }

    /// The segment size a SYN bears where it arrives, as nftables there sees it.
    fn segment_size(&self, from: &OwnedFd, to: &OwnedFd, destination: &str) -> u32 {
        const WATCH: &str = "
            table inet watch {
              set sizes { typeof tcp option maxseg size; flags dynamic; size 16; }
              chain input {
                type filter hook input priority 0;
                tcp flags syn / syn,ack update @sizes { tcp option maxseg size }
              }
            }";
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("watch.nft");
        std::fs::write(&path, WATCH).unwrap();
        let listener = self.at(to, || {
            run("nft", &["-f", path.to_str().unwrap()]);
            std::net::TcpListener::bind((destination, 0)).unwrap()
        });
        let there = listener.local_addr().unwrap();
        self.at(from, || std::net::TcpStream::connect_timeout(&there, PATIENCE)).unwrap();
        let listed = self.at(to, || {
            let listed = run("nft", &["-j", "list", "set", "inet", "watch", "sizes"]);
            run("nft", &["delete", "table", "inet", "watch"]);
            listed
        });
        let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
        let elements = listed["nftables"][1]["set"]["elem"].as_array().unwrap();
        assert_eq!(elements.len(), 1, "one SYN, one size: {listed}");
        elements[0].as_u64().unwrap() as u32
    }
}

/// The built daemon in the node's namespace.
pub struct Daemon {
    folder: tempfile::TempDir,
    child: Option<std::process::Child>,
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Scene {
    /// Not started yet, without documents.
    pub fn daemon(&self) -> Daemon {
        let folder = tempfile::tempdir().unwrap();
        for name in ["config", "run"] {
            std::fs::create_dir(folder.path().join(name)).unwrap();
        }
        Daemon { folder, child: None }
    }
}

impl Daemon {
    /// Replaces the documents.
    pub fn write(&self, documents: &str) {
        std::fs::write(self.folder.path().join("config/all.yaml"), documents).unwrap();
    }

    pub fn start(&mut self, scene: &Scene) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_causeway-fib-sync"));
        command.args(["--node", "a", "--config"]).arg(self.folder.path().join("config"));
        command.arg("--run-dir").arg(self.folder.path().join("run"));
        self.child = Some(scene.at_node(|| command.spawn()).unwrap());
    }

    /// Waits until `NatProgrammed` has this reason.
    pub fn wait_for_condition(&self, reason: &str) {
        let deadline = std::time::Instant::now() + 2 * PATIENCE;
        loop {
            let node = self.node().unwrap_or_default();
            let conditions = node["conditions"].as_array().cloned().unwrap_or_default();
            let found = conditions.iter().find(|condition| condition["type"] == "NatProgrammed").cloned();
            if found.as_ref().is_some_and(|condition| condition["reason"] == reason) {
                return;
            }
            assert!(std::time::Instant::now() < deadline, "not {reason}: {found:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// `GET /v1/node`; `None` while nobody answers.
    fn node(&self) -> Option<serde_json::Value> {
        use std::io::{Read, Write};
        let socket = self.folder.path().join("run/fib-sync.sock");
        let mut stream = std::os::unix::net::UnixStream::connect(socket).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        write!(stream, "GET /v1/node HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        serde_json::from_str(answer.split_once("\r\n\r\n")?.1).ok()
    }

    /// SIGTERM, and waits for the end.
    pub fn terminate(&mut self) {
        let mut child = self.child.take().unwrap();
        let pid = nix::unistd::Pid::from_raw(child.id() as i32);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
        assert!(child.wait().unwrap().success());
    }
}
