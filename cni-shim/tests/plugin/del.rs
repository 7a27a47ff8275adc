//! DEL: removes everything, and succeeds whatever is missing.

use causeway_ipam::Store;
use serde_json::{Value, json};

use crate::node::{Namespace, Node, VERSIONS, address_of};

#[test]
fn nothing_is_left() {
    for version in VERSIONS {
        let node = Node::dual_stack();
        let pod = Namespace::new();
        let config = node.config(version);
        let mut with_result = config.clone();
        with_result["prevResult"] = node.call("ADD", "c1", &pod.path(), "eth0", &config).ok();
        let answer = node.call("DEL", "c1", &pod.path(), "eth0", &with_result);
        answer.ok();
        assert_eq!(answer.stdout, "", "DEL prints nothing");
        assert!(pod.link("eth0").is_none());
        assert!(pod.routes().is_empty());
        node.assert_clean();
    }
}

#[test]
fn it_may_come_again_and_without_an_add() {
    let node = Node::dual_stack();
    let pod = Namespace::new();
    node.del("never-added", &pod).ok();
    node.add("c1", &pod).ok();
    for _ in 0..3 {
        node.del("c1", &pod).ok();
    }
    node.assert_clean();
}

#[test]
fn it_needs_no_namespace() {
    let node = Node::dual_stack();
    for netns in ["", "/nonexistent/netns", "/proc/self/ns/net", "/dev/null"] {
        let pod = Namespace::new();
        node.add("c1", &pod).ok();
        node.call("DEL", "c1", netns, "eth0", &node.config("1.0.0")).ok();
        assert!(pod.link("eth0").is_none(), "{netns:?}");
        node.assert_clean();
    }
    let pod = Namespace::new();
    node.add("c1", &pod).ok();
    let gone = pod.path();
    drop(pod);
    node.call("DEL", "c1", &gone, "eth0", &node.config("1.0.0")).ok();
    assert_eq!(node.records(), Vec::new());
}

#[test]
fn it_needs_no_store() {
    let node = Node::without_store();
    let pod = Namespace::new();
    node.del("c1", &pod).ok();
    let mut config = node.config("1.1.0");
    config["runDir"] = json!("/nonexistent/run");
    node.call("DEL", "c1", &pod.path(), "eth0", &config).ok();
    // The store goes away under a pod: its interface is found by name.
    node.set_blocks(&[crate::node::V4]);
    node.add("c1", &pod).ok();
    std::fs::remove_dir_all(node.run_dir.path().join("ipam")).unwrap();
    node.del("c1", &pod).ok();
    assert!(pod.link("eth0").is_none());
    node.assert_clean();
}

#[test]
fn a_pair_that_is_gone_already_does_not_matter() {
    let node = Node::dual_stack();
    let pod = Namespace::new();
    node.add("c1", &pod).ok();
    pod.shell("ip link del eth0");
    node.del("c1", &pod).ok();
    node.assert_clean();
}

#[test]
fn what_became_wrong_in_the_configuration_does_not_matter() {
    let node = Node::dual_stack();
    let pod = Namespace::new();
    node.add("c1", &pod).ok();
    let mut config = node.config("0.4.0");
    config["mtu"] = json!("wide");
    config["dns"] = json!(false);
    config["prevResult"] = Value::Null;
    config["type"] = Value::Null;
    config["name"] = json!("renamed");
    node.call("DEL", "c1", &pod.path(), "eth0", &config).ok();
    node.assert_clean();
}

#[test]
fn only_the_named_interface_goes() {
    let node = Node::dual_stack();
    let (pod, other) = (Namespace::new(), Namespace::new());
    node.add("c1", &pod).ok();
    let kept = node.add("c2", &other).ok();
    // Same container, another interface: nothing to delete, and nothing else deleted.
    node.call("DEL", "c1", &pod.path(), "eth1", &node.config("1.1.0")).ok();
    assert_eq!(node.records().len(), 2);
    // An interface of that name which is not ours stays.
    let third = Namespace::new();
    third.shell("ip link add eth0 type veth peer name other");
    node.del("c3", &third).ok();
    assert!(third.link("eth0").is_some());
    node.del("c1", &pod).ok();
    node.check("c2", &other, &kept).ok();
}

#[test]
fn it_finishes_what_an_earlier_one_began() {
    let node = Node::dual_stack();
    let pod = Namespace::new();
    let result = node.add("c1", &pod).ok();
    Store::new(node.run_dir.path()).mark_deleting("c1", "eth0").unwrap().unwrap();
    let (code, message) = node.check("c1", &pod, &result).error();
    assert_eq!(code, 103, "{message}");
    node.del("c1", &pod).ok();
    node.assert_clean();
    let again = node.add("c1", &pod).ok();
    assert_ne!(address_of(&again, 0), address_of(&result, 0), "the old one rests");
}
