//! ADD: what it makes and what it answers.

use std::net::IpAddr;

use causeway_api::pod_store::{self, AllocationState};
use causeway_kernel::{NextHop, Route, sysctl};
use ipnetwork::IpNetwork;
use serde_json::{Value, json};

use crate::node::{Namespace, Node, V4, V6, VERSIONS, address_of, addresses_of};

#[test]
fn the_result_is_as_each_version_wants_it() {
    let node = Node::dual_stack();
    for version in VERSIONS {
        let pod = Namespace::new();
        let answer = node.call("ADD", version, &pod.path(), "eth0", &node.config(version));
        let result = answer.ok();
        assert_eq!(answer.stdout.trim_end().lines().count(), 1, "nothing else on standard output");
        assert_eq!(result["cniVersion"], version);
        let interfaces = result["interfaces"].as_array().unwrap();
        assert_eq!(interfaces.len(), 2);
        let (host, inside) = (&interfaces[0], &interfaces[1]);
        let veth = host["name"].as_str().unwrap();
        assert!(veth.len() == 14 && veth.starts_with("cw"), "{veth}");
        assert!(host.get("sandbox").is_none());
        assert_eq!((&inside["name"], &inside["sandbox"]), (&json!("eth0"), &json!(pod.path())));
        let macs = [node.namespace.link(veth).unwrap().mac, pod.link("eth0").unwrap().mac];
        assert_eq!(
            [&host["mac"], &inside["mac"]],
            macs.map(|mac| json!(mac.unwrap().to_string())).each_ref()
        );
        let ips = result["ips"].as_array().unwrap();
        assert_eq!(ips.len(), 2);
        for (ip, (family, bits, gateway)) in
            ips.iter().zip([("4", "/32", "169.254.1.1"), ("6", "/128", "fe80::1")])
        {
            assert!(ip["address"].as_str().unwrap().ends_with(bits), "{ip}");
            assert_eq!((&ip["gateway"], &ip["interface"]), (&json!(gateway), &json!(1)));
            let in_version = if version < "1.0.0" { json!(family) } else { Value::Null };
            assert_eq!(ip.get("version").unwrap_or(&Value::Null), &in_version, "{version}");
        }
        let routes = json!([{"dst": "0.0.0.0/0", "gw": "169.254.1.1"}, {"dst": "::/0", "gw": "fe80::1"}]);
        assert_eq!(result["routes"], routes);
        assert_eq!(result["dns"], json!({}));
        for interface in interfaces {
            let mtu = if version == "1.1.0" { json!(1500) } else { Value::Null };
            assert_eq!(interface.get("mtu").unwrap_or(&Value::Null), &mtu, "{version}");
        }
    }
    assert_eq!(node.records().len(), VERSIONS.len());
}

#[test]
fn the_pair_is_what_the_design_says() {
    let node = Node::dual_stack();
    let pod = Namespace::new();
    let result = node.add("c1", &pod).ok();
    let veth = result["interfaces"][0]["name"].as_str().unwrap();
    let (host, inside) = (node.namespace.link(veth).unwrap(), pod.link("eth0").unwrap());
    assert!(host.admin_up && inside.admin_up && host.running && inside.running);
    assert_eq!((host.peer, inside.peer), (Some(inside.index), Some(host.index)));
    assert_eq!((host.mtu, inside.mtu), (1500, 1500));
    let addresses: Vec<IpAddr> = [0, 1].map(|at| address_of(&result, at).parse().unwrap()).to_vec();
    // In the pod: the addresses, usable at once; a default route and a permanent neighbour for each family.
    for address in &addresses {
        let network = IpNetwork::from(*address);
        let held = pod.addresses().into_iter().find(|held| held.network == network).unwrap();
        assert!(held.ifindex == inside.index && !held.tentative, "{held:?}");
    }
    for (gateway, everything) in [("169.254.1.1", "0.0.0.0/0"), ("fe80::1", "::/0")] {
        let gateway: IpAddr = gateway.parse().unwrap();
        let default: IpNetwork = everything.parse().unwrap();
        let route = pod.routes().into_iter().find(|route| route.key.destination == default).unwrap();
        let hop = NextHop { onlink: true, ..NextHop::gateway(gateway, inside.index) };
        assert_eq!(route.next_hops, [hop]);
        let entry = pod.neighbours().into_iter().find(|entry| entry.address == gateway).unwrap();
        assert!(entry.permanent && entry.mac == host.mac, "{entry:?}");
    }
    // On the host: a route and a permanent neighbour for each address, fe80::1, and the settings.
    for address in &addresses {
        assert!(node.namespace.routes().contains(&Route::pod(*address, host.index)), "{address}");
        let entry = node.namespace.neighbours().into_iter().find(|entry| entry.address == *address).unwrap();
        assert!(entry.permanent && entry.ifindex == host.index && entry.mac == inside.mac, "{entry:?}");
    }
    let held: Vec<String> = node
        .namespace
        .addresses()
        .into_iter()
        .filter(|held| held.ifindex == host.index)
        .map(|held| format!("{} {}", held.network, held.tentative))
        .collect();
    assert_eq!(held, ["fe80::1/64 false"]);
    for (key, value) in [
        ("ipv4/conf/IF/forwarding", "1"),
        ("ipv4/conf/IF/rp_filter", "1"),
        ("ipv4/conf/IF/accept_redirects", "0"),
        ("ipv6/conf/IF/forwarding", "1"),
        ("ipv6/conf/IF/accept_ra", "0"),
        ("ipv6/conf/IF/accept_dad", "0"),
    ] {
        let key = format!("net/{}", key.replace("IF", veth));
        assert_eq!(node.namespace.run(|| sysctl::read(&key).unwrap()), value, "{key}");
    }
}

#[test]
fn one_family_is_enough() {
    for (block, gateway) in [(V4, "169.254.1.1"), (V6, "fe80::1")] {
        let node = Node::new(&[block]);
        let pod = Namespace::new();
        let result = node.add("c1", &pod).ok();
        assert_eq!(result["ips"].as_array().unwrap().len(), 1);
        assert_eq!(result["ips"][0]["gateway"], gateway);
        assert_eq!(result["routes"].as_array().unwrap().len(), 1);
        node.check("c1", &pod, &result).ok();
        node.del("c1", &pod).ok();
        node.assert_clean();
    }
}

#[test]
fn ipv6_works_where_the_runtime_switched_it_off() {
    let node = Node::dual_stack();
    let pod = Namespace::new();
    pod.run(|| {
        sysctl::write("net/ipv6/conf/default/disable_ipv6", "1").unwrap();
        sysctl::write("net/ipv6/conf/all/disable_ipv6", "1").unwrap();
    });
    let result = node.add("c1", &pod).ok();
    node.check("c1", &pod, &result).ok();
}

#[test]
fn the_record_says_whose_the_addresses_are() {
    let node = Node::dual_stack();
    let pod = Namespace::new();
    let path = pod.path();
    let variables = [
        ("CNI_COMMAND", "ADD"),
        ("CNI_CONTAINERID", "c1"),
        ("CNI_NETNS", path.as_str()),
        ("CNI_IFNAME", "eth0"),
        (
            "CNI_ARGS",
            "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-0;K8S_POD_INFRA_CONTAINER_ID=c1",
        ),
    ];
    // CNI_PATH is optional for ADD.
    let result = node.call_raw(&variables, node.config("1.0.0").to_string().as_bytes()).ok();
    let records = node.records();
    assert_eq!(records.len(), 1);
    let record = &records[0];
    assert_eq!((record.container.as_str(), record.interface.as_str()), ("c1", "eth0"));
    assert_eq!(record.network, "causeway");
    assert_eq!(record.veth, result["interfaces"][0]["name"].as_str().unwrap());
    assert_eq!(record.state, AllocationState::Active);
    let owner = record.pod.as_ref().unwrap();
    assert_eq!((owner.namespace.as_str(), owner.name.as_str()), ("shop", "web-0"));
    let held: Vec<String> = record.addresses.iter().map(|a| IpNetwork::from(*a).to_string()).collect();
    assert_eq!(held, addresses_of(&result));
}

#[test]
fn the_mtu_is_the_configurations_then_the_nodes() {
    let node = Node::dual_stack();
    pod_store::write_mtu(node.run_dir.path(), 1450).unwrap();
    let pod = Namespace::new();
    assert_eq!(node.add("c1", &pod).ok()["interfaces"][1]["mtu"], 1450);
    assert_eq!(pod.link("eth0").unwrap().mtu, 1450);
    let pod = Namespace::new();
    let mut config = node.config("1.1.0");
    config["mtu"] = json!(9000);
    let result = node.call("ADD", "c2", &pod.path(), "eth0", &config).ok();
    assert_eq!(
        (&result["interfaces"][0]["mtu"], &result["interfaces"][1]["mtu"]),
        (&json!(9000), &json!(9000))
    );
    assert_eq!(pod.link("eth0").unwrap().mtu, 9000);
    config["mtu"] = json!(1279);
    let answer = node.call("ADD", "c3", &Namespace::new().path(), "eth0", &config);
    assert_eq!(answer.error().0, 7, "IPv6 needs 1280");
    assert_eq!(node.records().len(), 2);
    let v4 = Node::new(&[V4]);
    let mut config = v4.config("1.1.0");
    config["mtu"] = json!(576);
    let pod = Namespace::new();
    v4.call("ADD", "c1", &pod.path(), "eth0", &config).ok();
    assert_eq!(pod.link("eth0").unwrap().mtu, 576);
}

#[test]
fn dns_goes_into_the_result() {
    let node = Node::dual_stack();
    let mut config = node.config("0.4.0");
    let dns = json!({"nameservers": ["10.96.0.10"], "domain": "cluster.local", "search": ["a.b"], "options": ["ndots:5"]});
    config["dns"] = dns.clone();
    let result = node.call("ADD", "c1", &Namespace::new().path(), "eth0", &config).ok();
    assert_eq!(result["dns"], dns);
}

#[test]
fn the_result_of_the_plugins_before_is_kept_and_ours_put_after_it() {
    let node = Node::dual_stack();
    let pod = Namespace::new();
    let before = json!({
        "cniVersion": "1.0.0",
        "interfaces": [{"name": "dummy0", "mac": "02:00:00:00:00:01", "sandbox": pod.path(), "pciID": "x"}],
        "ips": [{"address": "192.0.2.7/24", "interface": 0}],
        "routes": [{"dst": "198.51.100.0/24"}],
        "dns": {"nameservers": ["192.0.2.1"]},
    });
    let mut config = node.config("1.0.0");
    config["prevResult"] = before.clone();
    let result = node.call("ADD", "c1", &pod.path(), "eth0", &config).ok();
    assert_eq!(result["interfaces"][0], before["interfaces"][0]);
    assert_eq!(result["interfaces"][2]["name"], "eth0");
    assert_eq!(result["ips"][0], before["ips"][0]);
    assert_eq!((&result["ips"][1]["interface"], &result["ips"][2]["interface"]), (&json!(2), &json!(2)));
    assert_eq!(result["routes"].as_array().unwrap().len(), 3);
    assert_eq!(result["dns"], before["dns"]);
    node.check("c1", &pod, &result).ok();
}

#[test]
fn adding_twice_is_an_error_and_harms_nothing() {
    let node = Node::dual_stack();
    let pod = Namespace::new();
    let result = node.add("c1", &pod).ok();
    let before = node.records();
    let (code, message) = node.add("c1", &pod).error();
    assert!(code >= 100 && message.contains("eth0"), "{code} {message}");
    assert_eq!(node.records(), before, "no second address");
    node.check("c1", &pod, &result).ok();
    // The same container and interface in another namespace: the first one stays as well.
    let other = Namespace::new();
    let (code, _) = node.add("c1", &other).error();
    assert!(code >= 100);
    assert!(other.link("eth0").is_none());
    assert_eq!(node.records().len(), 1);
    assert_eq!(node.records()[0].addresses, before[0].addresses);
    node.check("c1", &pod, &result).ok();
}

#[test]
fn an_interface_of_somebody_else_is_left_alone() {
    let node = Node::dual_stack();
    let pod = Namespace::new();
    pod.shell("ip link add eth0 type veth peer name other");
    let theirs = pod.link("eth0").unwrap();
    let (code, message) = node.add("c1", &pod).error();
    assert!(code >= 100 && message.contains("eth0"), "{code} {message}");
    assert_eq!(pod.link("eth0").unwrap(), theirs);
    node.assert_clean();
}

#[test]
fn one_container_may_have_several_interfaces() {
    let node = Node::dual_stack();
    let pod = Namespace::new();
    let first = node.add("c1", &pod).ok();
    let second = node.call("ADD", "c1", &pod.path(), "net1", &node.config("1.1.0")).ok();
    assert_ne!(addresses_of(&first), addresses_of(&second));
    assert!(second["routes"][0]["priority"].as_u64().unwrap() > 0, "its default route stands behind eth0's");
    node.check("c1", &pod, &first).ok();
    let mut config = node.config("1.1.0");
    config["prevResult"] = second;
    node.call("CHECK", "c1", &pod.path(), "net1", &config).ok();
    node.call("DEL", "c1", &pod.path(), "net1", &node.config("1.1.0")).ok();
    assert!(pod.link("net1").is_none());
    node.check("c1", &pod, &first).ok();
    node.del("c1", &pod).ok();
    node.assert_clean();
}

#[test]
fn a_full_block_says_so_and_gives_again_what_comes_back() {
    let node = Node::new(&["10.244.1.0/29"]);
    let pods: Vec<Namespace> = (0..7).map(|_| Namespace::new()).collect();
    let mut given = Vec::new();
    for (at, pod) in pods.iter().take(6).enumerate() {
        given.extend(addresses_of(&node.add(&format!("c{at}"), pod).ok()));
    }
    assert_eq!(given[0], "10.244.1.2/32", "neither the network address nor the tunnel's");
    assert_eq!(given[5], "10.244.1.7/32");
    let (code, message) = node.add("c6", &pods[6]).error();
    assert_eq!(code, 101);
    assert!(message.contains("10.244.1.0/29"), "{message}");
    assert!(pods[6].link("eth0").is_none());
    assert_eq!(node.records().len(), 6);
    node.del("c3", &pods[3]).ok();
    assert_eq!(addresses_of(&node.add("c6", &pods[6]).ok()), [given[3].clone()]);
}

#[test]
fn addresses_are_not_given_again_at_once() {
    let node = Node::dual_stack();
    let mut seen = std::collections::HashSet::new();
    for turn in 0..5 {
        let pod = Namespace::new();
        let result = node.add(&format!("c{turn}"), &pod).ok();
        assert!(seen.insert(address_of(&result, 0)), "{result}");
        node.del(&format!("c{turn}"), &pod).ok();
    }
}

#[test]
fn the_log_has_a_line_for_each_operation() {
    let node = Node::dual_stack();
    let pod = Namespace::new();
    let log = node.run_dir.path().join("cni.log");
    let mut config = node.config("1.1.0");
    config["logFile"] = json!(log);
    node.call("ADD", "c1", &pod.path(), "eth0", &config).ok();
    node.call("ADD", "c1", &pod.path(), "eth0", &config).error();
    node.call("DEL", "c1", &pod.path(), "eth0", &config).ok();
    let text = std::fs::read_to_string(&log).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 3, "{text}");
    assert!(lines[0].contains("ADD container=c1") && lines[1].contains("failed"), "{text}");
    config["logFile"] = json!("/nonexistent/folder/log");
    let answer = node.call("ADD", "c2", &Namespace::new().path(), "eth0", &config);
    assert_eq!(answer.status, Some(0), "a pod does not fail for its log");
    assert!(answer.stderr.contains("/nonexistent/folder/log"), "{answer:?}");
}
