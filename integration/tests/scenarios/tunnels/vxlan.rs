//! VXLAN between subnets, on this machine's kernel.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use causeway_api::control::Via;
use causeway_integration::capture::{Carried, Packet};
use causeway_integration::lab::Lab;
use causeway_integration::until::until;
use nix::sys::signal::Signal;

use super::check::{self, Pod, no_tunnel_on, nodes_reach_pods, pods, reach_each_other, settled};
use super::expect::{ALL, Kind, Modes, When};
use crate::fabric::{self, CONVERGENCE};
use crate::scene::play;

#[test]
fn every_mode_of_vxlan_is_seen_on_the_wire_and_in_every_account() {
    play("two-subnets", |scene| {
        let lab = &scene.lab;
        until(CONVERGENCE, || lab.causeway_nodes().iter().try_for_each(|node| lab.all_established(node)))?;
        let pods = pods(lab)?;
        for when in ALL {
            let modes = Modes::both(Kind::Vxlan, when);
            modes.ask(scene)?;
            settled(lab, modes)?;
            reach_each_other(lab, &pods, modes)?;
            nodes_reach_pods(lab, &pods, modes)?;
        }
        // The families need not agree.
        let modes = Modes { ipv4: (Kind::Vxlan, When::Always), ipv6: (Kind::Vxlan, When::CrossSubnet) };
        modes.ask(scene)?;
        settled(lab, modes)?;
        reach_each_other(lab, &pods, modes)
    });
}

/// Lets the router know where pods are.
fn teach_the_router(lab: &Lab) -> Result<()> {
    for node in lab.causeway_nodes() {
        for block in lab.node_info(&node)?.pod_cidrs {
            let gateway = super::expect::address_of(&node, block.is_ipv4())?;
            let route = ["ip", "route", "add", &block.to_string(), "via", &gateway.to_string()];
            lab.text("router", &route)?;
        }
    }
    Ok(())
}

/// Pings from the first pod to every other and back, in both families.
fn all_around(pods: &[Pod]) -> Result<Vec<(&str, IpAddr)>> {
    let (first, others) = pods.split_first().ok_or_else(|| anyhow::anyhow!("no pods"))?;
    let mut streams = Vec::new();
    for other in others {
        for is_ipv4 in [true, false] {
            streams.push((first.name.as_str(), other.address(is_ipv4)?));
            streams.push((other.name.as_str(), first.address(is_ipv4)?));
        }
    }
    Ok(streams)
}

/// Runs `story` under a hundred pings a second each way, and says how many were lost at most on one way.
pub fn lost_while(lab: &Lab, pairs: &[(&str, IpAddr)], story: impl FnOnce() -> Result<()>) -> Result<u32> {
    for (from, to) in pairs {
        until(CONVERGENCE, || lab.ping(from, *to))?;
    }
    let streams: Vec<_> = pairs.iter().map(|(from, to)| lab.ping_stream(from, *to)).collect::<Result<_>>()?;
    story()?;
    let mut most = 0;
    for stream in streams {
        let route = stream.route.clone();
        let counted = stream.stop()?;
        if counted.lost() > 0 {
            eprintln!("{route}: {} of {} lost", counted.lost(), counted.sent);
        }
        most = most.max(counted.lost());
    }
    Ok(most)
}

#[test]
fn a_change_of_mode_loses_no_packet() {
    play("two-subnets", |scene| {
        let lab = &scene.lab;
        let never = Modes::both(Kind::Vxlan, When::Never);
        never.ask(scene)?;
        teach_the_router(lab)?;
        settled(lab, never)?;
        let pods = pods(lab)?;
        let pairs = all_around(&pods)?;
        let lost = lost_while(lab, &pairs, || {
            for when in [When::Always, When::CrossSubnet, When::Never, When::CrossSubnet, When::Always] {
                let modes = Modes::both(Kind::Vxlan, when);
                let start = Instant::now();
                modes.ask(scene)?;
                settled(lab, modes)?;
                println!("{when:?} after {:?}", start.elapsed());
            }
            Ok(())
        })?;
        ensure!(lost <= 2, "{lost} pings lost on one way");
        // Nothing of a tunnel is on the wire when no pool asks for one.
        never.ask(scene)?;
        settled(lab, never)?;
        let mut wire = lab.capture("router")?;
        for (from, to) in &pairs {
            lab.ping(from, *to)?;
        }
        no_tunnel_on(&mut wire)
    });
}

#[test]
fn a_node_that_moves_to_the_other_subnet_is_followed() {
    play("two-subnets", |scene| {
        let lab = &scene.lab;
        let modes = Modes::both(Kind::Vxlan, When::CrossSubnet);
        settled(lab, modes)?;
        let pods = pods(lab)?;
        let of =
            |name: &str| pods.iter().find(|pod| pod.node == name).ok_or_else(|| anyhow::anyhow!("{name}"));
        let (a1, a2, b1) = (of("node-a1")?, of("node-a2")?, of("node-b1")?);
        let mut moved = Vec::new();
        for (from, to) in [(a1, a2), (b1, a2)] {
            for is_ipv4 in [true, false] {
                let to = to.address(is_ipv4)?;
                until(CONVERGENCE, || lab.ping(&from.name, to))?;
                moved.push(lab.ping_stream(&from.name, to)?);
            }
        }
        let bystanders = [(a1.name.as_str(), b1.address(true)?), (b1.name.as_str(), a1.address(false)?)];
        let lost = lost_while(lab, &bystanders, || {
            let start = Instant::now();
            let change = "link set eth1 down\naddress flush dev eth1\nlink set eth1 up\n\
                          address add 172.21.2.13/24 dev eth1\naddress add fd00:21:2::13/64 dev eth1\n\
                          route add default via 172.21.2.1\nroute add default via fd00:21:2::1\n";
            lab.text("router", &["ip", "link", "set", "eth2", "master", "br-b"])?;
            let done = lab.run("node-a2", &["ip", "-batch", "-"], Some(change.as_bytes()))?;
            ensure!(done.status.success(), "{}", done.stderr);
            let file = scene.documents().join("node-a2.yaml");
            let text = std::fs::read_to_string(&file)?;
            std::fs::write(
                &file,
                text.replace("172.21.1.12", "172.21.2.13").replace("21:1::12", "21:2::13"),
            )?;
            for (from, via) in [("node-a1", "vxlan"), ("node-b1", "direct")] {
                until(CONVERGENCE, || {
                    let fib = lab.fib(from)?;
                    let rows: Vec<_> = fib
                        .iter()
                        .filter(|row| {
                            ["10.244.12.0/24", "fd00:10:244:12::/64"]
                                .contains(&row.prefix.to_string().as_str())
                        })
                        .collect();
                    ensure!(rows.len() == 2, "{from} has {rows:?}");
                    for row in &rows {
                        let goes = row.via.map(|via| via.to_string()).unwrap_or_default();
                        ensure!(goes == via && row.state == "installed", "{from}: {row:?}");
                    }
                    check::accounts_agree(lab, from, &fib)
                })?;
            }
            for (from, to) in [(a1, a2), (b1, a2)] {
                for is_ipv4 in [true, false] {
                    until(CONVERGENCE, || lab.ping(&from.name, to.address(is_ipv4)?))?;
                }
            }
            println!("node-a2 answers from its new subnet after {:?}", start.elapsed());
            Ok(())
        })?;
        ensure!(lost == 0, "{lost} pings lost between nodes that did not move");
        for stream in moved {
            let route = stream.route.clone();
            let counted = stream.stop()?;
            println!("{route}: {} of {} lost while it moved", counted.lost(), counted.sent);
            ensure!(counted.lost() < 1500, "{route}: {} of {} lost", counted.lost(), counted.sent);
        }
        Ok(())
    });
}

#[test]
fn what_hands_take_from_a_tunnel_comes_back() {
    play("two-subnets", |scene| {
        let lab = &scene.lab;
        let modes = Modes::both(Kind::Vxlan, When::CrossSubnet);
        settled(lab, modes)?;
        let pods = pods(lab)?;
        let of = |node: &str| pods.iter().find(|pod| pod.node == node).with_context(|| node.to_owned());
        let (from, to) = (of("node-a1")?, of("node-b1")?);
        let fdb = lab.json("node-a1", &["bridge", "-j", "fdb", "show", "dev", "causeway-vxlan"])?;
        let mac = fdb[0]["mac"].as_str().context("no FDB entry")?.to_owned();
        let deeds: [&[&str]; 8] = [
            &["ip", "neighbor", "flush", "dev", "causeway-vxlan", "nud", "permanent"],
            &["ip", "-6", "neighbor", "flush", "dev", "causeway-vxlan6", "nud", "permanent"],
            &["bridge", "fdb", "del", &mac, "dev", "causeway-vxlan"],
            &["ip", "address", "flush", "dev", "causeway-vxlan"],
            &["ip", "link", "set", "causeway-vxlan", "mtu", "1300"],
            &["ip", "link", "set", "causeway-vxlan", "down"],
            &["ip", "link", "delete", "causeway-vxlan"],
            &["ip", "link", "delete", "causeway-vxlan6"],
        ];
        for deed in deeds {
            lab.text("node-a1", deed)?;
            let start = Instant::now();
            let deed = deed.join(" ");
            for is_ipv4 in [true, false] {
                let (there, back) = (to.address(is_ipv4)?, from.address(is_ipv4)?);
                until(Duration::from_secs(10), || lab.ping(&from.name, there)).context(deed.clone())?;
                until(Duration::from_secs(10), || lab.ping(&to.name, back)).context(deed.clone())?;
            }
            println!("{deed}: pings again after {:?}", start.elapsed());
            settled(lab, modes).context(deed.clone())?;
            nodes_reach_pods(lab, &pods, modes).context(deed)?;
        }
        Ok(())
    });
}

#[test]
fn no_packet_is_lost_in_tunnels_when_the_daemons_crash_and_come_back() {
    play("two-subnets", |scene| {
        let lab = &scene.lab;
        let modes = Modes::both(Kind::Vxlan, When::CrossSubnet);
        settled(lab, modes)?;
        let pods = pods(lab)?;
        let pairs = all_around(&pods)?;
        let lost = lost_while(lab, &pairs, || {
            for daemons in [&["fib-sync"][..], &["bgpd"], &["fib-sync", "bgpd"]] {
                fabric::crash_and_restart(lab, "node-a1", daemons)?;
                until(CONVERGENCE, || lab.all_established("node-a1"))?;
                settled(lab, modes)?;
            }
            // A fib-sync that comes back while bgpd is away keeps what it finds, and what that needs.
            lab.stop("node-a1", "bgpd", Signal::SIGKILL)?;
            fabric::crash_and_restart(lab, "node-a1", &["fib-sync"])?;
            until(CONVERGENCE, || lab.fib("node-a1"))?;
            let (from, to) = pairs[0];
            lab.text(from, &["ping", "-n", "-q", "-c", "100", "-i", "0.01", &to.to_string()])?;
            lab.start("node-a1", "bgpd")?;
            until(CONVERGENCE, || lab.all_established("node-a1"))?;
            settled(lab, modes)
        })?;
        ensure!(lost == 0, "{lost} pings lost on one way");
        Ok(())
    });
}

#[test]
fn zones_decide_where_both_nodes_have_one() {
    play("two-subnets", |scene| {
        let lab = &scene.lab;
        let label = |node: &str, zone: &str| -> Result<()> {
            let file = scene.documents().join(format!("{node}.yaml"));
            let text = std::fs::read_to_string(&file)?;
            let named = format!("{{name: {node}}}");
            let labelled = format!("{{name: {node}, labels: {{zone: {zone}}}}}");
            Ok(std::fs::write(&file, text.replace(&named, &labelled))?)
        };
        label("node-a1", "east")?;
        label("node-a2", "west")?;
        label("node-b1", "east")?;
        let file = scene.documents().join("fabric.yaml");
        let text = std::fs::read_to_string(&file)?;
        std::fs::write(&file, text + "  zoneLabel: zone\n")?;
        until(CONVERGENCE, || {
            let fib = lab.fib("node-a1")?;
            for (prefix, via) in [
                ("10.244.12.0/24", Via::Vxlan),
                ("10.244.21.0/24", Via::Recursive),
                ("10.244.22.0/24", Via::Vxlan),
                ("fd00:10:244:12::/64", Via::Vxlan),
                ("fd00:10:244:21::/64", Via::Recursive),
            ] {
                let row = fib.iter().find(|row| row.prefix.to_string() == prefix);
                let row = row.with_context(|| format!("show fib has no {prefix}"))?;
                ensure!(row.via == Some(via) && row.state == "installed", "{prefix} is to go {via}: {row:?}");
            }
            check::accounts_agree(lab, "node-a1", &fib)
        })?;
        let pods = pods(lab)?;
        let of = |node: &str| pods.iter().find(|pod| pod.node == node).with_context(|| node.to_owned());
        for is_ipv4 in [true, false] {
            let (from, to) = (of("node-a1")?, of("node-a2")?.address(is_ipv4)?);
            let mut wire = lab.capture("router")?;
            until(CONVERGENCE, || lab.ping(&from.name, to))?;
            let packets = wire.packets()?;
            let asked: Vec<_> = packets.iter().filter(|packet| packet.headers.inner.1 == to).collect();
            let in_tunnel = |packet: &&Packet| matches!(packet.headers.carried, Carried::InVxlan(_));
            ensure!(!asked.is_empty() && asked.iter().all(in_tunnel), "native across zones: {asked:?}");
        }
        Ok(())
    });
}
