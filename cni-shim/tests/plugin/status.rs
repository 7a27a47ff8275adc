//! STATUS: ready exactly when an ADD would be served.

use crate::node::{Answer, Namespace, Node, V4, V6};

fn status(node: &Node) -> Answer {
    node.call_raw(&[("CNI_COMMAND", "STATUS")], node.config("1.1.0").to_string().as_bytes())
}

#[test]
fn ready_with_blocks_that_have_room() {
    let node = Node::without_store();
    assert_eq!(status(&node).error().0, 50);
    node.store().create().unwrap();
    assert_eq!(status(&node).error().0, 50);
    node.set_blocks(&[]);
    assert_eq!(status(&node).error().0, 50);
    node.set_blocks(&[V4, V6]);
    let answer = status(&node);
    answer.ok();
    assert_eq!(answer.stdout, "", "STATUS prints nothing");
}

#[test]
fn not_ready_when_a_family_is_full() {
    let node = Node::new(&["10.244.1.0/31", V6]);
    let pods = [Namespace::new(), Namespace::new()];
    for (at, pod) in pods.iter().enumerate() {
        status(&node).ok();
        node.add(&format!("c{at}"), pod).ok();
    }
    let (code, message) = status(&node).error();
    assert!(code == 50 && message.contains("IPv4"), "{code} {message}");
    node.del("c0", &pods[0]).ok();
    status(&node).ok();
}

#[test]
fn a_store_that_cannot_be_read_limits_the_pods_that_are_there() {
    let node = Node::dual_stack();
    std::fs::write(node.run_dir.path().join("ipam/allocations.json"), "{").unwrap();
    let (code, message) = status(&node).error();
    assert!(code == 51 && message.contains("allocations.json"), "{code} {message}");
}
