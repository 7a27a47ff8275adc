//! Failures in the middle: whatever ADD had done is undone, and whatever a killed one left is cleaned up.

use std::io::Write;
use std::time::Duration;

use causeway_kernel::{Route, RouteKind};
use ipnetwork::IpNetwork;
use serde_json::json;

use crate::node::{Namespace, Node, V4, V6, address_of};

#[test]
fn without_a_store_or_blocks_the_runtime_is_told_to_try_later() {
    let node = Node::without_store();
    let pod = Namespace::new();
    assert_eq!(node.add("c1", &pod).error().0, 11);
    node.store().create().unwrap();
    assert_eq!(node.add("c1", &pod).error().0, 11);
    node.set_blocks(&[]);
    assert_eq!(node.add("c1", &pod).error().0, 11);
    assert!(pod.link("eth0").is_none());
    node.assert_clean();
    node.set_blocks(&[V4, V6]);
    node.add("c1", &pod).ok();
}

#[test]
fn a_store_that_somebody_holds_is_waited_for_and_then_given_up() {
    let node = Node::dual_stack();
    let pod = Namespace::new();
    let lock = std::fs::File::options().write(true).open(node.store().files().lock_path()).unwrap();
    lock.lock().unwrap();
    let started = std::time::Instant::now();
    assert_eq!(node.add("c1", &pod).error().0, 11);
    let waited = started.elapsed();
    assert!((Duration::from_secs(10)..Duration::from_secs(20)).contains(&waited), "{waited:?}");
    assert!(pod.link("eth0").is_none());
    drop(lock);
    node.add("c1", &pod).ok();
}

#[test]
fn a_broken_store_is_an_error_that_names_the_file() {
    let node = Node::dual_stack();
    let pod = Namespace::new();
    std::fs::write(node.run_dir.path().join("ipam/allocations.json"), "garbage").unwrap();
    let (code, message) = node.add("c1", &pod).error();
    assert!(code == 5 && message.contains("allocations.json"), "{code} {message}");
    assert!(pod.link("eth0").is_none());
    assert_eq!(node.veths(), Vec::<String>::new());
}

#[test]
fn a_host_interface_of_that_name_is_in_the_way() {
    let node = Node::dual_stack();
    let pod = Namespace::new();
    let veth = node.add("c1", &pod).ok()["interfaces"][0]["name"].as_str().unwrap().to_owned();
    node.del("c1", &pod).ok();
    node.namespace.shell(&format!("ip link add {veth} type bridge"));
    let (code, message) = node.add("c1", &pod).error();
    assert!(code >= 100 && message.contains(&veth), "{code} {message}");
    assert!(pod.link("eth0").is_none());
    assert_eq!(node.records(), Vec::new());
    assert_eq!(node.namespace.link(&veth).unwrap().kind.as_deref(), Some("bridge"));
}

#[test]
fn a_foreign_route_in_the_way_undoes_everything() {
    for address in ["10.244.1.2", "fd00:10:244:1::2"] {
        let node = Node::dual_stack();
        let pod = Namespace::new();
        let foreign = Route {
            protocol: 99,
            kind: RouteKind::Blackhole,
            ..Route::unreachable(IpNetwork::from(address.parse::<std::net::IpAddr>().unwrap()))
        };
        node.namespace.netlink().add_route(&foreign).unwrap();
        let (_, message) = node.add("c1", &pod).error();
        assert!(message.contains(address) && message.contains("99"), "{message}");
        assert!(pod.link("eth0").is_none());
        node.assert_clean();
        let kept = node.namespace.routes();
        assert!(kept.iter().any(|route| route.protocol == 99), "{kept:?}");
    }
}

#[test]
fn a_route_of_ours_that_was_left_behind_is_replaced() {
    let node = Node::dual_stack();
    let pod = Namespace::new();
    for address in ["10.244.1.2", "fd00:10:244:1::2"] {
        let left = Route::unreachable(IpNetwork::from(address.parse::<std::net::IpAddr>().unwrap()));
        node.namespace.netlink().add_route(&left).unwrap();
    }
    let result = node.add("c1", &pod).ok();
    assert_eq!(address_of(&result, 0), "10.244.1.2");
    node.check("c1", &pod, &result).ok();
}

#[test]
fn an_answer_that_nobody_takes_undoes_everything() {
    let node = Node::dual_stack();
    let pod = Namespace::new();
    let path = pod.path();
    let mut child = node.start(&[
        ("CNI_COMMAND", "ADD"),
        ("CNI_CONTAINERID", "c1"),
        ("CNI_NETNS", path.as_str()),
        ("CNI_IFNAME", "eth0"),
    ]);
    drop(child.stdout.take());
    child.stdin.take().unwrap().write_all(node.config("1.1.0").to_string().as_bytes()).unwrap();
    assert!(!child.wait().unwrap().success());
    assert!(pod.link("eth0").is_none());
    node.assert_clean();
}

#[test]
fn an_add_that_was_killed_anywhere_leaves_nothing_that_del_does_not_remove() {
    let node = Node::dual_stack();
    let mut stages = std::collections::HashMap::<&str, u32>::new();
    // From before the first step to after the last one, in steps of a fraction of it.
    for turn in 0..120_u64 {
        let pod = Namespace::new();
        let path = pod.path();
        let container = format!("c{turn}");
        let mut child = node.start(&[
            ("CNI_COMMAND", "ADD"),
            ("CNI_CONTAINERID", container.as_str()),
            ("CNI_NETNS", path.as_str()),
            ("CNI_IFNAME", "eth0"),
        ]);
        child.stdin.take().unwrap().write_all(node.config("1.1.0").to_string().as_bytes()).unwrap();
        std::thread::sleep(Duration::from_micros(turn * 50));
        child.kill().unwrap();
        child.wait().unwrap();
        let stage = match (node.records().is_empty(), node.veths().is_empty()) {
            (true, true) => "nothing",
            (false, true) => "record",
            (false, false) => "pair",
            (true, false) => panic!("an interface without a record"),
        };
        *stages.entry(stage).or_default() += 1;
        // A runtime cleans up after an ADD that failed; a hasty one just adds again.
        if turn % 2 == 0 || stage == "pair" {
            node.del(&container, &pod).ok();
            assert!(pod.link("eth0").is_none());
            node.assert_clean();
        }
        let result = node.add(&container, &pod).ok();
        node.check(&container, &pod, &result).ok();
        assert_eq!(node.records().len(), 1);
        node.del(&container, &pod).ok();
        node.assert_clean();
    }
    assert!(stages.contains_key("nothing") && stages.contains_key("pair"), "{stages:?}");
}

#[test]
fn an_attachment_whose_pair_is_gone_may_be_added_again() {
    let node = Node::dual_stack();
    let pod = Namespace::new();
    let before = node.add("c1", &pod).ok();
    pod.shell("ip link del eth0");
    let after = node.add("c1", &pod).ok();
    assert_eq!(before["ips"], after["ips"], "the addresses are still its own");
    node.check("c1", &pod, &after).ok();
    assert_eq!(json!(node.records().len()), 1);
}
