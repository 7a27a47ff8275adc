//! What runs in a node: from the name of its container image to the daemons of this machine that stand in for it.
//!
//! Pure. The last part of an image's name decides: `quay.io/frrouting/frr:8.4.2` runs the FRR of the Debian package, and so on for
//! BIRD, GoBGP, OpenBGPD and ExaBGP; `causeway/node` and `causeway/route-reflector` run our binaries; `alpine`, `debian`, `busybox`
//! and the like are plain hosts.

use std::path::PathBuf;

use crate::topology::NodeSpec;

/// The kinds of node this runner can stand in for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Family {
    /// FRR: zebra, staticd and what `/etc/frr/daemons` names.
    Frr,
    /// BIRD with `/etc/bird/bird.conf`.
    Bird,
    /// GoBGP with `/etc/gobgp/gobgpd.yml`.
    Gobgp,
    /// OpenBGPD with `/etc/bgpd/bgpd.conf`.
    Openbgpd,
    /// ExaBGP with `/etc/exabgp/exabgp.conf`.
    Exabgp,
    /// A Causeway node: causeway-ipam, causeway-fib-sync, causeway-bgpd with `/etc/causeway`.
    CausewayNode,
    /// causeway-route-reflector with `/etc/causeway`.
    CausewayReflector,
    /// No daemon.
    Host,
}

/// One process of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DaemonPlan {
    /// Short name: the log file and `causeway-lab` commands use it.
    pub name: String,
    /// Command line.
    pub argv: Vec<String>,
    /// Socket inside the node that shows that the daemon listens, if it makes one.
    pub ready_socket: Option<PathBuf>,
}

/// How to bring a node's software up.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// The topology's `exec` lines run before the daemons (else after them).
    pub exec_first: bool,
    /// Commands before the daemons, each of which must succeed.
    pub prepare: Vec<Vec<String>>,
    /// The daemons, in order.
    pub daemons: Vec<DaemonPlan>,
    /// Commands once all ready sockets are there, each of which must succeed.
    pub finish: Vec<Vec<String>>,
}

impl Family {
    /// The family of an image; `None` where nothing here can stand in for it.
    #[must_use]
    pub fn of(image: &str) -> Option<Self> {
        let path = image.split('@').next().unwrap_or(image);
        let last = path.rsplit('/').next().unwrap_or(path);
        let name = last.split(':').next().unwrap_or(last);
        if path.split('/').rev().nth(1) == Some("causeway") {
            return match name {
                "node" => Some(Self::CausewayNode),
                "route-reflector" => Some(Self::CausewayReflector),
                _ => None,
            };
        }
        match name {
            "frr" => Some(Self::Frr),
            "bird" | "bird2" => Some(Self::Bird),
            "gobgp" | "gobgpd" => Some(Self::Gobgp),
            "openbgpd" => Some(Self::Openbgpd),
            "exabgp" => Some(Self::Exabgp),
            "alpine" | "debian" | "ubuntu" | "busybox" | "linux" | "network-multitool" | "netshoot" => {
                Some(Self::Host)
            }
            _ => None,
        }
    }

    /// Binaries of ours a node of this family needs.
    #[must_use]
    pub fn own_binaries(self) -> &'static [&'static str] {
        match self {
            Self::CausewayNode => &[
                "causeway-bgpd",
                "causeway-fib-sync",
                "causeway-ipam",
                "causeway-cni",
                "causeway",
                "causeway-lab",
            ],
            Self::CausewayReflector => &["causeway-route-reflector", "causeway"],
            _ => &[],
        }
    }

    /// Files of Debian packages a node of this family needs, with the package.
    #[must_use]
    pub fn debian_files(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Frr => &[("/usr/lib/frr/bgpd", "frr"), ("/usr/bin/vtysh", "frr")],
            Self::Bird => &[("/usr/sbin/bird", "bird2")],
            Self::Gobgp => &[("/usr/bin/gobgpd", "gobgpd"), ("/usr/bin/gobgp", "gobgpd")],
            Self::Openbgpd => &[("/usr/sbin/bgpctl", "openbgpd")],
            Self::Exabgp => &[("/usr/sbin/exabgp", "exabgp")],
            Self::CausewayNode | Self::CausewayReflector | Self::Host => &[],
        }
    }

    /// The plan for a node of this family. `frr_daemons` is the text of its `/etc/frr/daemons`, `frr_has_mgmtd` whether the
    /// installed FRR has that daemon (since 9.0).
    #[must_use]
    pub fn plan(self, node: &NodeSpec, frr_daemons: &str, frr_has_mgmtd: bool) -> Plan {
        let mut plan = match self {
            Self::Frr => frr(frr_daemons, frr_has_mgmtd),
            Self::Bird => Plan {
                prepare: vec![words("mkdir -p /run/bird")],
                daemons: vec![daemon("bird", "bird -f -c /etc/bird/bird.conf", Some("/run/bird/bird.ctl"))],
                ..Plan::default()
            },
            Self::Gobgp => Plan {
                daemons: vec![daemon("gobgpd", "gobgpd -t yaml -f /etc/gobgp/gobgpd.yml", None)],
                ..Plan::default()
            },
            Self::Openbgpd => Plan {
                prepare: vec![words("mkdir -p /run/openbgpd")],
                daemons: vec![daemon("openbgpd", "/usr/sbin/bgpd -d -f /etc/bgpd/bgpd.conf", None)],
                ..Plan::default()
            },
            Self::Exabgp => Plan {
                daemons: vec![daemon("exabgp", "exabgp /etc/exabgp/exabgp.conf", None)],
                ..Plan::default()
            },
            Self::CausewayNode => causeway_node(&node.name),
            Self::CausewayReflector => Plan {
                exec_first: true,
                prepare: vec![words("mkdir -p /run/causeway")],
                daemons: vec![causeway_daemon("route-reflector", &node.name, "bgpd.sock")],
                ..Plan::default()
            },
            Self::Host => Plan::default(),
        };
        if let Some(cmd) = &node.cmd {
            let name =
                cmd.split_whitespace().next().and_then(|word| word.rsplit('/').next()).unwrap_or("cmd");
            plan.daemons = vec![daemon(name, cmd, None)];
            plan.finish = Vec::new();
        }
        plan
    }
}

fn words(line: &str) -> Vec<String> {
    line.split_whitespace().map(str::to_owned).collect()
}

fn daemon(name: &str, line: &str, socket: Option<&str>) -> DaemonPlan {
    DaemonPlan { name: name.to_owned(), argv: words(line), ready_socket: socket.map(PathBuf::from) }
}

fn causeway_daemon(name: &str, node: &str, socket: &str) -> DaemonPlan {
    let line = format!("causeway-{name} --config /etc/causeway --node {node} --run-dir /run/causeway");
    daemon(name, &line, Some(&format!("/run/causeway/{socket}")))
}

fn causeway_node(node: &str) -> Plan {
    Plan {
        // A node has its addresses before its daemons.
        exec_first: true,
        prepare: vec![words("mkdir -p /run/causeway"), words("causeway-fib-sync --setup-node")],
        daemons: vec![
            causeway_daemon("ipam", node, "ipam.sock"),
            causeway_daemon("fib-sync", node, "fib-sync.sock"),
            causeway_daemon("bgpd", node, "bgpd.sock"),
        ],
        finish: Vec::new(),
    }
}

/// FRR's own start script in short: zebra first, staticd always, then the daemons set to `yes`, then the integrated configuration.
fn frr(daemons: &str, has_mgmtd: bool) -> Plan {
    const OPTIONAL: [&str; 4] = ["bgpd", "bfdd", "ospfd", "isisd"];
    let wanted = |name: &str| daemons.lines().any(|line| line.trim() == format!("{name}=yes"));
    let mut names = vec!["zebra"];
    if has_mgmtd {
        names.push("mgmtd");
    }
    names.extend(OPTIONAL.into_iter().filter(|name| wanted(name)));
    names.push("staticd");
    Plan {
        exec_first: false,
        prepare: vec![words("install -d -o frr -g frr -m 755 /run/frr /var/tmp/frr")],
        daemons: names
            .into_iter()
            .map(|name| {
                let line = format!("/usr/lib/frr/{name} -A 127.0.0.1 --log stdout --log-level info");
                daemon(name, &line, Some(&format!("/run/frr/{name}.vty")))
            })
            .collect(),
        finish: vec![words("vtysh -b")],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_name_decides_the_family() {
        let cases = [
            ("quay.io/frrouting/frr:8.4.2", Some(Family::Frr)),
            ("frrouting/frr", Some(Family::Frr)),
            ("pierky/bird:2.0.12", Some(Family::Bird)),
            ("ghcr.io/akpw/gobgp@sha256:00", Some(Family::Gobgp)),
            ("openbgpd/openbgpd:8.8", Some(Family::Openbgpd)),
            ("pierky/exabgp:4.2.21", Some(Family::Exabgp)),
            ("localhost:5000/causeway/node:dev", Some(Family::CausewayNode)),
            ("causeway/route-reflector", Some(Family::CausewayReflector)),
            ("causeway/unheard-of", None),
            ("alpine:3", Some(Family::Host)),
            ("ceos:4.32", None),
        ];
        for (image, family) in cases {
            assert_eq!(Family::of(image), family, "{image}");
        }
    }

    #[test]
    fn frr_runs_what_its_daemons_file_names() {
        let plan = Family::Frr.plan(&NodeSpec::default(), "bgpd=yes\nbfdd=no\n", false);
        let names: Vec<&str> = plan.daemons.iter().map(|daemon| daemon.name.as_str()).collect();
        assert_eq!(names, ["zebra", "bgpd", "staticd"]);
        assert_eq!(plan.finish, [["vtysh", "-b"]]);
        let newer = Family::Frr.plan(&NodeSpec::default(), "bgpd=yes\nbfdd=yes\n", true);
        let names: Vec<&str> = newer.daemons.iter().map(|daemon| daemon.name.as_str()).collect();
        assert_eq!(names, ["zebra", "mgmtd", "bgpd", "bfdd", "staticd"]);
    }

    #[test]
    fn cmd_replaces_the_daemons_of_the_image() {
        let node = NodeSpec { cmd: Some("gobgpd -t toml -f /x".to_owned()), ..NodeSpec::default() };
        let plan = Family::Gobgp.plan(&node, "", false);
        assert_eq!(plan.daemons[0].argv, ["gobgpd", "-t", "toml", "-f", "/x"]);
        assert_eq!(plan.daemons[0].name, "gobgpd");
    }
}
