//! CHECK: every single thing that can be missing or changed is found.

use std::net::IpAddr;

use causeway_ipam::Store;
use causeway_kernel::{Mac, Route};
use serde_json::{Value, json};

use crate::node::{Namespace, Node, address_of};

#[test]
fn right_after_add_all_is_well() {
    for version in ["0.4.0", "1.0.0", "1.1.0"] {
        let node = Node::dual_stack();
        let pod = Namespace::new();
        let result = node.call("ADD", "c1", &pod.path(), "eth0", &node.config(version)).ok();
        let answer = node.check("c1", &pod, &result);
        answer.ok();
        assert_eq!(answer.stdout, "", "CHECK prints nothing");
    }
}

#[test]
fn the_previous_result_is_needed() {
    let node = Node::dual_stack();
    let pod = Namespace::new();
    node.add("c1", &pod).ok();
    let (code, message) = node.call("CHECK", "c1", &pod.path(), "eth0", &node.config("1.0.0")).error();
    assert!(code == 7 && message.contains("prevResult"), "{code} {message}");
}

#[test]
fn a_container_that_was_never_added_is_unknown() {
    let node = Node::dual_stack();
    let (pod, other) = (Namespace::new(), Namespace::new());
    let result = node.add("c1", &pod).ok();
    assert_eq!(node.check("c2", &other, &result).error().0, 3);
    node.del("c1", &pod).ok();
    assert_eq!(node.check("c1", &pod, &result).error().0, 3);
}

/// Adds a pod, lets somebody spoil it, and returns what CHECK says.
fn spoilt(spoil: impl FnOnce(&Node, &Namespace, &mut Value, &str)) -> String {
    let node = Node::dual_stack();
    let pod = Namespace::new();
    let mut result = node.add("c1", &pod).ok();
    node.check("c1", &pod, &result).ok();
    let veth = result["interfaces"][0]["name"].as_str().unwrap().to_owned();
    spoil(&node, &pod, &mut result, &veth);
    let (code, message) = node.check("c1", &pod, &result).error();
    assert_eq!(code, 103, "{message}");
    message
}

#[test]
fn what_is_wrong_in_the_pod_is_found() {
    for (command, said) in [
        ("ip link del eth0", "interface eth0 is missing"),
        ("ip link set eth0 down", "eth0 is down"),
        ("ip link set eth0 mtu 1400", "MTU 1400"),
        ("ip addr del ADDRESS4/32 dev eth0", "has no address 10.244.1.2/32"),
        ("ip -6 addr del ADDRESS6/128 dev eth0", "has no address fd00:10:244:1::2/128"),
        ("ip route del default", "no route 0.0.0.0/0"),
        ("ip -6 route del default", "no route ::/0"),
        ("ip neigh del 169.254.1.1 dev eth0", "gateway 169.254.1.1"),
        ("ip neigh del fe80::1 dev eth0", "gateway fe80::1"),
        (
            "ip neigh replace 169.254.1.1 lladdr 02:00:00:00:00:09 dev eth0 nud permanent",
            "gateway 169.254.1.1",
        ),
        ("ip link set eth0 address 02:00:00:00:00:09", "Ethernet address"),
    ] {
        let message = spoilt(|_, pod, result, _| {
            let command = command
                .replace("ADDRESS4", &address_of(result, 0))
                .replace("ADDRESS6", &address_of(result, 1));
            pod.shell(&command);
        });
        assert!(message.contains(said), "{command}: {message}");
    }
}

#[test]
fn what_is_wrong_on_the_host_is_found() {
    for (command, said) in [
        ("ip link set VETH down", "is down"),
        ("ip link set VETH mtu 1400", "MTU 1400"),
        ("ip link set VETH address 02:00:00:00:00:09", "Ethernet address"),
        ("ip addr del fe80::1/64 dev VETH", "has no address fe80::1/64"),
        ("ip route del ADDRESS4/32", "no route to 10.244.1.2"),
        ("ip -6 route del ADDRESS6/128", "no route to fd00:10:244:1::2"),
        ("ip neigh del ADDRESS4 dev VETH", "neighbour entry for 10.244.1.2"),
        ("ip neigh del ADDRESS6 dev VETH", "neighbour entry for fd00:10:244:1::2"),
    ] {
        let message = spoilt(|node, _, result, veth| {
            let command = command
                .replace("VETH", veth)
                .replace("ADDRESS4", &address_of(result, 0))
                .replace("ADDRESS6", &address_of(result, 1));
            node.namespace.shell(&command);
        });
        assert!(message.contains(said), "{command}: {message}");
    }
}

#[test]
fn a_route_to_somewhere_else_is_no_route_to_the_pod() {
    let message = spoilt(|node, _, result, _| {
        let address: IpAddr = address_of(result, 0).parse().unwrap();
        let mut netlink = node.namespace.netlink();
        let present = node.namespace.routes().into_iter().find(|route| route.key.destination.ip() == address);
        netlink.delete_route(&present.unwrap().key, 179).unwrap();
        netlink.add_route(&Route::unreachable(address.into())).unwrap();
    });
    assert!(message.contains("no route to"), "{message}");
}

#[test]
fn a_previous_result_that_says_something_else_is_found() {
    type Edit = fn(&mut Value);
    let edits: [(&str, Edit); 7] = [
        ("sandbox", |result| result["interfaces"][1]["sandbox"] = json!("/run/netns/other")),
        ("no interface eth0", |result| result["interfaces"][1]["name"] = json!("eth7")),
        ("Ethernet address", |result| result["interfaces"][1]["mac"] = json!("02:00:00:00:00:01")),
        ("no interface cw", |result| result["interfaces"][0]["name"] = json!("cw000000000000")),
        ("10.244.1.99", |result| result["ips"][0]["address"] = json!("10.244.1.99/32")),
        ("does not exist", |result| result["ips"][0]["interface"] = json!(7)),
        ("has not address", |result| result["ips"] = json!([])),
    ];
    for (said, edit) in edits {
        let message = spoilt(|_, _, result, _| edit(result));
        assert!(message.contains(said), "{said}: {message}");
    }
}

#[test]
fn a_lost_record_is_found() {
    let node = Node::dual_stack();
    let pod = Namespace::new();
    let result = node.add("c1", &pod).ok();
    Store::new(node.run_dir.path()).release("c1", "eth0").unwrap();
    let (code, message) = node.check("c1", &pod, &result).error();
    assert!(code == 103 && message.contains("pod store"), "{code} {message}");
}

#[test]
fn what_plugins_after_in_the_chain_added_does_not_matter() {
    let node = Node::dual_stack();
    let pod = Namespace::new();
    let mut result = node.add("c1", &pod).ok();
    pod.shell("ip route add 192.0.2.0/24 via 169.254.1.1 dev eth0 onlink");
    let extra = json!({"name": "ifb0", "mac": Mac([2, 0, 0, 0, 0, 7]).to_string()});
    result["interfaces"].as_array_mut().unwrap().push(extra);
    result["routes"].as_array_mut().unwrap().push(json!({"dst": "192.0.2.0/24", "gw": "192.0.2.1"}));
    result["ips"].as_array_mut().unwrap().push(json!({"address": "192.0.2.9/24", "interface": 2}));
    node.check("c1", &pod, &result).ok();
}
