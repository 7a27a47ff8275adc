//! The nftables table against the real kernel, with real packets: each test in network namespaces of its own. Needs root,
//! nft, iptables-nft and iptables-legacy.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

mod scene;

use causeway_fib_sync::nat::keeper::{Keeper, Outcome};
use causeway_fib_sync::nat::nft::{Nft, NftError};
use causeway_fib_sync::nat::{Desired, Layout};

use scene::Scene;

const POOLS: [(&str, bool); 4] =
    [("10.244.0.0/16", true), ("10.9.0.0/24", false), ("fd00:10::/48", true), ("fd00:9::/64", false)];

fn desired(pools: &[(&str, bool)], clamp: bool) -> Desired {
    Desired::new(pools.iter().map(|(cidr, nat)| (cidr.parse().unwrap(), *nat)), clamp)
}

/// Which address the receiver sees, by who sends to whom.
fn seen(scene: &Scene) -> Vec<(&'static str, String)> {
    let pod_pod = |from, to| scene.datagram(&scene.pod, from, &scene.other_pod, to);
    let pod_out = |from, to| scene.datagram(&scene.pod, from, &scene.outside, to);
    let pod_node = |from, to| scene.datagram(&scene.pod, from, &scene.node, to);
    let other_out = |from, to| scene.datagram(&scene.other_pod, from, &scene.outside, to);
    vec![
        ("pod to outside", pod_out("10.244.1.2", "203.0.113.9")),
        ("pod to outside, IPv6", pod_out("fd00:10::2", "2001:db8::9")),
        ("pod to a pod of another pool", pod_pod("10.244.1.2", "10.9.0.2")),
        ("pod to a pod of another pool, IPv6", pod_pod("fd00:10::2", "fd00:9::2")),
        ("pod to its node", pod_node("10.244.1.2", "203.0.113.1")),
        ("pod to its node, IPv6", pod_node("fd00:10::2", "2001:db8::1")),
        ("pod of a pool that is not translated to outside", other_out("10.9.0.2", "203.0.113.9")),
    ]
}

fn expected(translated: bool) -> Vec<(&'static str, String)> {
    let (v4, v6) = if translated { ("203.0.113.1", "2001:db8::1") } else { ("10.244.1.2", "fd00:10::2") };
    [
        ("pod to outside", v4),
        ("pod to outside, IPv6", v6),
        ("pod to a pod of another pool", "10.244.1.2"),
        ("pod to a pod of another pool, IPv6", "fd00:10::2"),
        ("pod to its node", "10.244.1.2"),
        ("pod to its node, IPv6", "fd00:10::2"),
        ("pod of a pool that is not translated to outside", "10.9.0.2"),
    ]
    .map(|(what, address)| (what, address.to_owned()))
    .into()
}

#[test]
fn pods_are_translated_only_where_they_leave_the_pools() {
    let scene = Scene::new();
    let mut keeper = Keeper::new(Nft::default());
    assert_eq!(seen(&scene), expected(false));
    let wanted = desired(&POOLS, true);
    scene.at_node(|| {
        assert_eq!(keeper.reconcile(&wanted).unwrap(), Outcome::Written);
        assert_eq!(keeper.reconcile(&wanted).unwrap(), Outcome::Right);
        // One that starts anew finds it as it should be.
        assert_eq!(Keeper::new(Nft::default()).reconcile(&wanted).unwrap(), Outcome::Right);
    });
    assert_eq!(seen(&scene), expected(true));
    scene.at_node(|| {
        assert_eq!(keeper.reconcile(&desired(&[], false)).unwrap(), Outcome::Removed);
        assert_eq!(keeper.reconcile(&desired(&[], false)).unwrap(), Outcome::Nothing);
    });
    scene.flush_connections();
    assert_eq!(seen(&scene), expected(false));
}

#[test]
fn the_table_is_put_right_and_changed_with_the_pools() {
    let scene = Scene::new();
    scene.at_node(|| {
        let mut keeper = Keeper::new(Nft::default());
        let wanted = desired(&POOLS, false);
        assert_eq!(keeper.reconcile(&wanted).unwrap(), Outcome::Written);
        let listed = scene::run("nft", &["list", "table", "inet", "causeway"]);
        for meddling in [
            &["delete", "table", "inet", "causeway"][..],
            &["flush", "chain", "inet", "causeway", "postrouting"],
            &["add", "element", "inet", "causeway", "pools-all4", "{ 198.51.100.0/24 }"],
            &["insert", "rule", "inet", "causeway", "postrouting", "counter", "accept"],
        ] {
            scene::run("nft", meddling);
            assert_eq!(keeper.reconcile(&wanted).unwrap(), Outcome::Written, "{meddling:?}");
            assert_eq!(scene::run("nft", &["list", "table", "inet", "causeway"]), listed, "{meddling:?}");
            assert_eq!(keeper.reconcile(&wanted).unwrap(), Outcome::Right, "{meddling:?}");
        }
        let fewer = desired(&POOLS[..2], false);
        assert_eq!(keeper.reconcile(&fewer).unwrap(), Outcome::Written);
        assert_eq!(keeper.reconcile(&wanted).unwrap(), Outcome::Written);
        // A table of ours that an earlier run left behind goes at the start.
        assert_eq!(Keeper::new(Nft::default()).reconcile(&desired(&[], false)).unwrap(), Outcome::Removed);
        assert_eq!(scene::run("nft", &["list", "tables"]), "");
    });
}

#[test]
fn pools_inside_pools_are_no_trouble() {
    let scene = Scene::new();
    scene.at_node(|| {
        let wanted =
            desired(&[("10.0.0.0/8", true), ("10.244.0.0/16", true), ("10.245.0.1/32", true)], false);
        let mut keeper = Keeper::new(Nft::default());
        assert_eq!(keeper.reconcile(&wanted).unwrap(), Outcome::Written);
        assert_eq!(keeper.reconcile(&wanted).unwrap(), Outcome::Right);
    });
}

#[test]
fn a_table_a_family_does_the_same() {
    let scene = Scene::new();
    let wanted = desired(&POOLS, true);
    scene.at_node(|| Nft::default().apply(&wanted.transaction(Layout::Split)).unwrap());
    assert_eq!(seen(&scene), expected(true));
    scene.at_node(|| {
        // Where one table for both families can be had, it takes their place.
        assert_eq!(Keeper::new(Nft::default()).reconcile(&wanted).unwrap(), Outcome::Written);
        assert_eq!(scene::run("nft", &["list", "tables"]).trim(), "table inet causeway");
    });
}

#[test]
fn without_nft_nothing_is_changed_and_the_error_says_so() {
    let mut keeper = Keeper::new(Nft::new("/nowhere/nft", std::time::Duration::from_secs(1)));
    let error = keeper.reconcile(&desired(&POOLS, false)).unwrap_err();
    assert!(matches!(error, NftError::Missing { .. }), "{error}");
}

/// kube-proxy in its three ways beside us: its service still leads to its pod, its rules and their counters are its own.
#[test]
fn kube_proxy_beside_us_is_left_alone() {
    for tool in ["iptables-nft", "iptables-legacy", "nft"] {
        let scene = Scene::new();
        scene.kube_proxy(tool);
        let rules = scene.foreign_rules(tool, false);
        let mut keeper = Keeper::new(Nft::default());
        let wanted = desired(&POOLS, true);
        let counters = scene.foreign_rules(tool, true);
        scene.at_node(|| assert_eq!(keeper.reconcile(&wanted).unwrap(), Outcome::Written));
        assert_eq!(
            scene.foreign_rules(tool, true),
            counters,
            "{tool}: writing our table touched its counters"
        );

        assert_eq!(seen(&scene), expected(true), "{tool}");
        // The pod asks the service; kube-proxy leads it to the other pod, untranslated.
        assert_eq!(scene.service(&scene.pod, "10.244.1.2"), "10.244.1.2", "{tool}");
        // From outside kube-proxy marks and masquerades; that is its own rule at work.
        assert_eq!(scene.service(&scene.outside, "203.0.113.9"), "10.9.0.1", "{tool}");

        scene.at_node(|| {
            assert_eq!(keeper.reconcile(&wanted).unwrap(), Outcome::Right, "{tool}");
            assert_eq!(keeper.reconcile(&desired(&[], false)).unwrap(), Outcome::Removed, "{tool}");
        });
        assert_eq!(scene.foreign_rules(tool, false), rules, "{tool}: its rules are not what they were");
    }
}

/// A SYN into the tunnel and one out of it are bounded by the tunnel's MTU, 1450 here; others are not touched.
#[test]
fn segments_are_clamped_in_both_directions_of_a_tunnel() {
    let scene = Scene::new();
    scene.add_tunnel(1450);
    assert_eq!(scene.segment_sizes(), [1460, 1460, 1460], "nothing is clamped yet");
    let mut keeper = Keeper::new(Nft::default());
    scene.at_node(|| assert_eq!(keeper.reconcile(&desired(&POOLS, true)).unwrap(), Outcome::Written));
    assert_eq!(scene.segment_sizes(), [1410, 1410, 1460]);
}

/// The daemon does all of it by the documents, and leaves the table when it ends, as it leaves routes.
#[test]
fn the_daemon_follows_the_documents() {
    let scene = Scene::new();
    let mut daemon = scene.daemon();
    let documents = |translated: bool| {
        format!(
            "apiVersion: causeway.dev/v1alpha1\nkind: Node\nmetadata: {{name: a}}\n\
             spec: {{bgp: {{ipv4Address: 203.0.113.1/24}}, podCIDRs: [10.244.1.0/24]}}\n---\n\
             apiVersion: causeway.dev/v1alpha1\nkind: IPPool\nmetadata: {{name: pods}}\n\
             spec: {{cidr: 10.244.0.0/16, natOutgoing: {translated}}}\n"
        )
    };
    daemon.write(&documents(true));
    daemon.start(&scene);
    daemon.wait_for_condition("Programmed");
    assert_eq!(scene.datagram(&scene.pod, "10.244.1.2", &scene.outside, "203.0.113.9"), "203.0.113.1");
    daemon.write(&documents(false));
    daemon.wait_for_condition("NotNeeded");
    assert_eq!(scene.at_node(|| scene::run("nft", &["list", "tables"])), "");
    daemon.write(&documents(true));
    daemon.wait_for_condition("Programmed");
    daemon.terminate();
    let tables = scene.at_node(|| scene::run("nft", &["list", "tables"]));
    assert_eq!(tables.trim(), "table inet causeway", "the daemon ended; what it made stays");
}
