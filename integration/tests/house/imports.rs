//! Who may import whom: `DESIGN.md` of each crate says why, this says whether, of the crates as they are shipped.

use std::collections::BTreeSet;

use super::{cargo, workspace_file};

/// A crate of ours, which of ours it may name itself, and which foreign ones must not even come by way of others.
struct Rule {
    package: &'static str,
    ours: &'static [&'static str],
    never: &'static [&'static str],
}

/// Async, sockets, system calls, Kubernetes: nothing a pure crate may reach.
const IMPURE: &[&str] = &[
    "tokio",
    "mio",
    "socket2",
    "nix",
    "rtnetlink",
    "netlink-sys",
    "axum",
    "hyper",
    "kube",
    "chrono",
    "time",
];
/// What a short-lived or library crate must not carry.
const ASYNC: &[&str] = &["tokio", "mio", "axum", "hyper", "kube"];
const KUBE: &[&str] = &["kube", "k8s-openapi"];

const RULES: &[Rule] = &[
    Rule { package: "causeway-api", ours: &[], never: ASYNC },
    Rule { package: "causeway-bgp-wire", ours: &[], never: IMPURE },
    Rule { package: "causeway-bgp-core", ours: &["causeway-bgp-wire"], never: IMPURE },
    Rule { package: "causeway-probe", ours: &[], never: ASYNC },
    Rule { package: "causeway-daemon", ours: &["causeway-api"], never: KUBE },
    Rule {
        package: "causeway-bgpd",
        ours: &["causeway-api", "causeway-bgp-core", "causeway-bgp-wire", "causeway-daemon"],
        never: &["rtnetlink", "netlink-packet-route"],
    },
    Rule {
        package: "causeway-route-reflector",
        ours: &["causeway-bgpd", "causeway-daemon"],
        never: &["rtnetlink", "netlink-packet-route"],
    },
    Rule { package: "causeway-kernel", ours: &[], never: ASYNC },
    Rule {
        package: "causeway-fib-sync",
        ours: &["causeway-api", "causeway-daemon", "causeway-kernel", "causeway-probe"],
        never: KUBE,
    },
    Rule { package: "causeway-ipam", ours: &["causeway-api"], never: ASYNC },
    Rule {
        package: "causeway-ipam-agent",
        ours: &["causeway-api", "causeway-daemon", "causeway-ipam"],
        never: &["rtnetlink", "netlink-packet-route"],
    },
    Rule {
        package: "causeway-cni",
        ours: &["causeway-api", "causeway-ipam", "causeway-kernel"],
        never: ASYNC,
    },
    Rule {
        package: "causeway",
        ours: &["causeway-api", "causeway-probe"],
        never: &["tokio", "axum", "kube"],
    },
    // The feed's messages alone: the benchmark plays bgpd to fib-sync.
    Rule { package: "causeway-bench", ours: &["causeway-api"], never: ASYNC },
];

/// Never in anything we ship.
const NEVER_SHIPPED: &[&str] =
    &["bgp-rs", "bgpkit-parser", "proptest", "causeway-integration", "causeway-bench"];

/// Package names of the crate's tree without dev-dependencies, down to `depth`.
fn tree(package: &str, depth: Option<&str>) -> BTreeSet<String> {
    let mut args = vec!["tree", "-p", package, "-e", "normal,build", "--prefix", "none", "--format", "{p}"];
    if let Some(depth) = depth {
        args.extend(["--depth", depth]);
    }
    let text = cargo(&args);
    text.lines()
        .filter_map(|line| line.split(' ').next())
        .filter(|name| *name != package)
        .map(str::to_owned)
        .collect()
}

#[test]
fn each_crate_imports_what_the_design_allows_it() {
    let mut broken = Vec::new();
    for rule in RULES {
        let ours: BTreeSet<String> =
            tree(rule.package, Some("1")).into_iter().filter(|name| name.starts_with("causeway")).collect();
        for name in ours.iter().filter(|name| !rule.ours.contains(&name.as_str())) {
            broken.push(format!("{} may not import {name}", rule.package));
        }
        let all = tree(rule.package, None);
        for name in rule.never.iter().chain(NEVER_SHIPPED).filter(|name| all.contains(**name)) {
            broken.push(format!(
                "{} must not reach {name}: cargo tree -p {} -i {name}",
                rule.package, rule.package
            ));
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn every_crate_of_the_workspace_has_its_rule() {
    let manifest = std::fs::read_to_string(workspace_file("Cargo.toml")).unwrap();
    let list = manifest.split("members = [").nth(1).and_then(|rest| rest.split(']').next()).expect("members");
    let mut packages = BTreeSet::new();
    for member in list.split('"').skip(1).step_by(2) {
        let text = std::fs::read_to_string(workspace_file(&format!("{member}/Cargo.toml"))).unwrap();
        let name = text.lines().find_map(|line| line.strip_prefix("name = ")).expect("a package has a name");
        packages.insert(name.trim_matches('"').to_owned());
    }
    packages.remove("causeway-integration");
    let ruled: BTreeSet<String> = RULES.iter().map(|rule| rule.package.to_owned()).collect();
    assert_eq!(packages, ruled, "crates of the workspace, and crates with a rule");
}
