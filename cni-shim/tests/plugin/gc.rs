//! GC: what the runtime does not name as valid goes, in this network alone.

use serde_json::{Value, json};

use crate::node::{Namespace, Node};

fn gc(node: &Node, network: &str, valid: Value) -> crate::node::Answer {
    let mut config = node.config("1.1.0");
    config["name"] = json!(network);
    config["cni.dev/valid-attachments"] = valid;
    let variables = [("CNI_COMMAND", "GC"), ("CNI_PATH", "/opt/cni/bin")];
    node.call_raw(&variables, config.to_string().as_bytes())
}

#[test]
fn stale_attachments_go_and_valid_ones_stay() {
    let node = Node::dual_stack();
    let pods: Vec<Namespace> = (0..4).map(|_| Namespace::new()).collect();
    let results: Vec<Value> = (0..3).map(|at| node.add(&format!("c{at}"), &pods[at]).ok()).collect();
    let mut other = node.config("1.1.0");
    other["name"] = json!("another-network");
    node.call("ADD", "c3", &pods[3].path(), "eth0", &other).ok();
    let valid = json!([
        {"containerID": "c1", "ifname": "eth0"},
        {"containerID": "c2", "ifname": "eth9"},
        {"containerID": "unheard-of", "ifname": "eth0"},
    ]);
    for _ in 0..2 {
        let answer = gc(&node, "causeway", valid.clone());
        answer.ok();
        assert_eq!(answer.stdout, "", "GC prints nothing");
        let mut left: Vec<String> = node.records().into_iter().map(|record| record.container).collect();
        left.sort();
        assert_eq!(left, ["c1", "c3"]);
        assert_eq!(node.veths().len(), 2);
        node.check("c1", &pods[1], &results[1]).ok();
    }
    assert!(pods[0].link("eth0").is_none() && pods[2].link("eth0").is_none());
    gc(&node, "causeway", json!([])).ok();
    gc(&node, "another-network", json!([])).ok();
    node.assert_clean();
}

#[test]
fn the_list_is_needed() {
    let node = Node::dual_stack();
    let pod = Namespace::new();
    node.add("c1", &pod).ok();
    let variables = [("CNI_COMMAND", "GC"), ("CNI_PATH", "/opt/cni/bin")];
    let (code, message) = node.call_raw(&variables, node.config("1.1.0").to_string().as_bytes()).error();
    assert!(code == 7 && message.contains("valid-attachments"), "{code} {message}");
    assert_eq!(gc(&node, "causeway", json!("all")).error().0, 6);
    assert_eq!(gc(&node, "causeway", json!([{"containerID": "c1"}])).error().0, 6);
    assert_eq!(node.records().len(), 1);
}

#[test]
fn records_of_pods_that_are_gone_go() {
    let node = Node::dual_stack();
    let pod = Namespace::new();
    node.add("c1", &pod).ok();
    drop(pod);
    gc(&node, "causeway", json!([])).ok();
    assert_eq!(node.records(), Vec::new());
}

#[test]
fn without_a_store_there_is_nothing_to_do() {
    let node = Node::without_store();
    gc(&node, "causeway", json!([])).ok();
}
