//! Packets: pod to node, node to pod, pod to pod, in both families.

use crate::node::{Namespace, Node, address_of, ping};

#[test]
fn everybody_reaches_everybody_on_a_node() {
    let node = Node::dual_stack();
    // The node's own addresses, on an interface of its own.
    node.namespace.shell("ip link add up0 type veth peer name up1");
    node.namespace.shell("ip link set up0 up");
    node.namespace.shell("ip addr add 192.0.2.11/24 dev up0");
    node.namespace.shell("ip addr add 2001:db8::11/64 dev up0 nodad");
    let (one, two) = (Namespace::new(), Namespace::new());
    let first = node.add("c1", &one).ok();
    let second = node.add("c2", &two).ok();
    for (from, to) in [(&one, &second), (&two, &first)] {
        for family in [0, 1] {
            assert!(ping(from, &address_of(to, family), 3), "pod to pod {}", address_of(to, family));
        }
        for address in ["192.0.2.11", "2001:db8::11"] {
            assert!(ping(from, address, 3), "pod to node {address}");
        }
    }
    for result in [&first, &second] {
        for family in [0, 1] {
            let address = address_of(result, family);
            assert!(ping(&node.namespace, &address, 3), "node to pod {address}");
        }
    }
    assert!(ping(&one, "fe80::1%eth0", 1), "the IPv6 gateway is somebody");
    node.del("c2", &two).ok();
    assert!(!ping(&one, &address_of(&second, 0), 1), "nobody there any more");
    assert!(ping(&one, "192.0.2.11", 1), "the others do not notice");
}

#[test]
fn a_pod_cannot_send_from_another_pods_ipv4_address() {
    let node = Node::dual_stack();
    let (one, two) = (Namespace::new(), Namespace::new());
    node.add("c1", &one).ok();
    let second = node.add("c2", &two).ok();
    one.shell("ip addr add 203.0.113.5/32 dev eth0");
    let target = address_of(&second, 0);
    assert!(ping(&one, &target, 1));
    let forged = one.run(|| {
        std::process::Command::new("ping")
            .args(["-c", "1", "-W", "1", "-I", "203.0.113.5", &target])
            .output()
            .unwrap()
    });
    assert!(!forged.status.success());
}
