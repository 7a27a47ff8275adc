//! Every shipped topology comes up, routes, and forgets what leaves.

use std::net::IpAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use causeway_api::control::SessionState;
use causeway_integration::lab::Lab;
use causeway_integration::until::until;

use crate::fabric::{
    CONVERGENCE, a_dead_node_is_forgotten, all_pods_reach_each_other, kernels_are_complete, works,
};
use crate::peer_views::{Router, bird_view, frr_view, views_agree};
use crate::scene::play;

#[test]
fn two_racks() {
    play("two-racks", |scene| {
        let lab = &scene.lab;
        works(lab)?;
        let tor_a = Router { name: "tor-a", asn: 65101, ipv4: "172.16.1.0", ipv6: "fd00:16:1::" };
        let tor_b = Router { name: "tor-b", asn: 65102, ipv4: "172.16.2.2", ipv6: "fd00:16:2::2" };
        for (node, address, tor) in [("node-a1", "172.16.1.1", tor_a), ("node-b2", "172.16.2.3", tor_b)] {
            until(Duration::from_secs(10), || {
                let (received, sent) = frr_view(lab, &tor, address)?;
                views_agree(lab, node, tor.ipv4, &received, &sent)
            })?;
        }
        // The link dies with the node, so the ToR withdraws at once and nobody waits for a hold timer.
        let took = a_dead_node_is_forgotten(lab, "node-b2", Duration::from_secs(5))?;
        println!("node-b2 was forgotten within {took:?}");
        Ok(())
    });
}

#[test]
fn rack_as() {
    play("rack-as", |scene| {
        let lab = &scene.lab;
        works(lab)?;
        // Two next hops each, across the fabric and inside the rack, where paths hold the node's own AS once.
        let expected: [(&str, &[&str]); 4] = [
            ("10.244.3.0/24", &["172.17.11.1", "172.17.12.1"]),
            ("10.244.2.0/24", &["172.17.11.12", "172.17.12.12"]),
            ("fd00:10:244:3::/64", &["fd00:17:11::1", "fd00:17:12::1"]),
            ("fd00:10:244:2::/64", &["fd00:17:11::12", "fd00:17:12::12"]),
        ];
        until(Duration::from_secs(20), || {
            for (prefix, hops) in expected {
                let route = lab.kernel_route("node-a1", prefix)?;
                let wanted: Vec<IpAddr> = hops.iter().map(|hop| hop.parse()).collect::<Result<_, _>>()?;
                ensure!(Lab::gateways(&route) == wanted, "{prefix} is to go by {wanted:?}: {route}");
            }
            Ok(())
        })?;
        let rows = lab.routes("node-a1", "learned")?;
        let inside = rows.iter().find(|row| row.prefix.to_string() == "10.244.2.0/24" && row.multipath);
        ensure!(
            inside.is_some_and(|row| row.accepted == Some(true)),
            "the rack's own AS is not allowed in: {rows:?}"
        );
        // The node's ports at its ToRs go down with it, the subnets stay: this takes a hold time.
        let took = a_dead_node_is_forgotten(lab, "node-b2", Duration::from_secs(20))?;
        println!("node-b2 was forgotten within {took:?}");
        Ok(())
    });
}

#[test]
fn mesh() {
    play("mesh", |scene| {
        let lab = &scene.lab;
        works(lab)?;
        let route = lab.kernel_route("node-1", "10.244.3.0/24")?;
        ensure!(Lab::gateways(&route) == ["172.18.0.13".parse::<IpAddr>()?], "not direct: {route}");
        let route = lab.kernel_route("node-1", "fd00:10:244:3::/64")?;
        ensure!(Lab::gateways(&route) == ["fd00:18::13".parse::<IpAddr>()?], "not direct: {route}");
        a_dead_node_is_forgotten(lab, "node-4", Duration::from_secs(20)).map(|_| ())
    });
}

#[test]
fn reflector() {
    play("reflector", |scene| {
        let lab = &scene.lab;
        works(lab)?;
        // Reflected: the next hop is the node itself, and the path says who brought it and through which cluster.
        let route = lab.kernel_route("node-1", "10.244.6.0/24")?;
        ensure!(Lab::gateways(&route) == ["172.20.0.16".parse::<IpAddr>()?], "not direct: {route}");
        let rows = lab.routes("node-1", "learned")?;
        let reflected: Vec<_> = rows.iter().filter(|row| row.prefix.to_string() == "10.244.6.0/24").collect();
        ensure!(!reflected.is_empty(), "node-1 has not learned 10.244.6.0/24: {rows:?}");
        for row in reflected {
            ensure!(row.originator_id.as_deref() == Some("172.20.0.16"), "ORIGINATOR_ID: {row:?}");
            ensure!(row.cluster_list == ["244.0.0.1"], "CLUSTER_LIST: {row:?}");
        }
        // A reflector is a peer, not a path: with one of them gone nothing changes for packets.
        lab.kill_node("rr-1")?;
        until(Duration::from_secs(20), || {
            let rows = lab.routes("node-1", "learned")?;
            ensure!(!rows.iter().any(|row| row.peer.as_deref() == Some("172.20.0.1")), "rr-1's paths stay");
            Ok(())
        })?;
        let pods: Vec<_> =
            lab.state().pods.iter().map(|(name, pod)| (name.clone(), pod.addresses())).collect();
        all_pods_reach_each_other(lab, &pods)?;
        a_dead_node_is_forgotten(lab, "node-6", Duration::from_secs(20)).map(|_| ())
    });
}

#[test]
fn a_node_becomes_the_reflector() {
    play("reflector", |scene| {
        let lab = &scene.lab;
        works(lab)?;
        let file = scene.documents().join("nodes.yaml");
        let text = std::fs::read_to_string(&file)?;
        let changed = text
            .replace("metadata: {name: node-1}", "metadata: {name: node-1, labels: {reflector: \"\"}}")
            .replace("fd00:20::11/64\"", "fd00:20::11/64\", routeReflectorClusterID: 244.0.0.9");
        ensure!(changed != text, "nodes.yaml has changed its form");
        std::fs::write(&file, changed)?;
        let others: Vec<String> = lab.causeway_nodes().into_iter().filter(|node| node != "node-1").collect();
        until(CONVERGENCE, || {
            for node in &others {
                let peer = lab.peer(node, "172.20.0.11")?;
                ensure!(peer.state == SessionState::Established, "{node}: {peer:?}");
            }
            Ok(())
        })?;
        for reflector in ["rr-1", "rr-2"] {
            lab.kill_node(reflector)?;
        }
        until(CONVERGENCE, || {
            for node in &others {
                let rows = lab.routes(node, "learned")?;
                let old = rows.iter().find(|row| row.peer.as_deref() != Some("172.20.0.11"));
                ensure!(old.is_none(), "{node} still has a path of a reflector that is gone: {old:?}");
            }
            Ok(())
        })?;
        kernels_are_complete(lab)?;
        let pods: Vec<_> =
            lab.state().pods.iter().map(|(name, pod)| (name.clone(), pod.addresses())).collect();
        all_pods_reach_each_other(lab, &pods)
    });
}

#[test]
fn mixed() {
    play("mixed", |scene| {
        let lab = &scene.lab;
        works(lab)?;
        // The route server leaves itself out of path and next hop.
        let rows = lab.routes("node-a1", "learned")?;
        let across = rows.iter().find(|row| row.prefix.to_string() == "10.244.3.0/24");
        let path = across.map(|row| serde_json::to_string(&row.as_path)).transpose()?;
        ensure!(path.as_deref() == Some("[65101,65102,65121]"), "the path to 10.244.3.0/24 is {path:?}");

        // The ToRs' own views, and the route server's.
        let tor_a = Router { name: "tor-a", asn: 65101, ipv4: "172.19.1.0", ipv6: "fd00:19:1::" };
        let tor_b = Router { name: "tor-b", asn: 65102, ipv4: "172.19.2.0", ipv6: "fd00:19:2::" };
        until(Duration::from_secs(10), || {
            let (received, sent) = frr_view(lab, &tor_a, "172.19.1.1")?;
            views_agree(lab, "node-a1", tor_a.ipv4, &received, &sent)?;
            let (received, sent) = bird_view(lab, &tor_b, "node_b1")?;
            views_agree(lab, "node-b1", tor_b.ipv4, &received, &sent)
        })?;
        let server = lab.text("route-server", &["gobgp", "neighbor", "172.19.0.1", "adj-in"])?;
        ensure!(server.contains("10.244.1.0/24"), "GoBGP has no 10.244.1.0/24 from tor-a: {server}");

        a_dead_node_is_forgotten(lab, "node-b2", Duration::from_secs(20)).map(|_| ())
    });
}

/// What `causeway check` says of each node of each topology: nothing to complain about.
#[test]
fn the_documents_of_every_topology_are_good() {
    let topologies = Path::new(env!("CARGO_MANIFEST_DIR")).join("topologies");
    let mut checked = 0;
    for entry in std::fs::read_dir(&topologies).unwrap() {
        let folder = entry.unwrap().path();
        if !folder.is_dir() {
            continue;
        }
        let name = folder.file_name().unwrap().to_string_lossy().into_owned();
        let topology =
            causeway_integration::topology::load(&folder.join(format!("{name}.clab.yml"))).unwrap();
        for node in topology.nodes.values().filter(|node| node.image.starts_with("causeway/")) {
            let output = Command::new(crate::scene::bin_dir().join("causeway"))
                .arg("check")
                .arg("-f")
                .arg(folder.join("documents"))
                .args(["--node", &node.name])
                .output()
                .expect("causeway (`make build` builds it)");
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{name}, {}: {said}", node.name);
            checked += 1;
        }
    }
    assert!(checked >= 20, "{checked} nodes only");
}
