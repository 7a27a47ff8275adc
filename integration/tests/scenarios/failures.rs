//! What fails around a node: ToRs, links, other people's hands in the routing table.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use causeway_integration::capture::Packet;
use causeway_integration::lab::Lab;
use causeway_integration::until::until;
use nix::sys::signal::Signal;

use crate::fabric::{self, CONVERGENCE};
use crate::feeder::Feeder;
use crate::scene::{play, play_alone};

/// Across the fabric, from node-a1 in `rack-as`: one block of node-b1 per family, and the ToRs of rack a.
const ACROSS: [(&str, &str, &str); 2] = [
    ("10.244.3.0/24", "172.17.11.1", "172.17.12.1"),
    ("fd00:10:244:3::/64", "fd00:17:11::1", "fd00:17:12::1"),
];

/// Waits until node-a1's routes across the fabric go by these ToRs exactly.
fn goes_by(lab: &Lab, bound: Duration, first: bool) -> Result<Duration> {
    let start = Instant::now();
    until(bound, || {
        for (prefix, one, other) in ACROSS {
            let hops: Vec<&str> = if first { vec![one, other] } else { vec![other] };
            let wanted: Vec<IpAddr> = hops.iter().map(|hop| hop.parse()).collect::<Result<_, _>>()?;
            let route = lab.kernel_route("node-a1", prefix)?;
            ensure!(Lab::gateways(&route) == wanted, "{prefix} is to go by {wanted:?}: {route}");
        }
        Ok(())
    })?;
    Ok(start.elapsed())
}

#[test]
fn routes_move_to_the_other_tor_at_once() {
    play_alone("rack-as", |scene| {
        let lab = &scene.lab;
        fabric::converged(lab)?;
        goes_by(lab, CONVERGENCE, true)?;

        // Its link is cut: the port at the ToR goes down, the node sees the carrier go.
        lab.text("tor-a1", &["ip", "link", "set", "eth1", "down"])?;
        let cut = goes_by(lab, Duration::from_secs(1), false)?;
        lab.text("tor-a1", &["ip", "link", "set", "eth1", "up"])?;
        goes_by(lab, CONVERGENCE, true)?;

        // Its sessions are closed by NOTIFICATION.
        let shutdown = |no: &str| {
            let both = ["172.17.11.11", "fd00:17:11::11"].map(|peer| format!("{no}neighbor {peer} shutdown"));
            let argv = [
                "vtysh",
                "-c",
                "configure terminal",
                "-c",
                "router bgp 65111",
                "-c",
                &both[0],
                "-c",
                &both[1],
            ];
            lab.text("tor-a1", &argv)
        };
        shutdown("")?;
        let closed = goes_by(lab, Duration::from_secs(1), false)?;
        let last = lab.peer("node-a1", "172.17.11.1")?.last_error;
        ensure!(last.is_some(), "show peers does not say why the session ended");
        shutdown("no ")?;
        goes_by(lab, CONVERGENCE, true)?;

        // It hangs: the hold timer of 9 s runs out.
        let bgpd = lab.daemon("tor-a1", "bgpd")?.process;
        bgpd.signal(Signal::SIGSTOP)?;
        let silent = goes_by(lab, Duration::from_secs(11), false);
        bgpd.signal(Signal::SIGCONT)?;
        println!("moved after: link cut {cut:?}, NOTIFICATION {closed:?}, silence {:?}", silent?);
        goes_by(lab, CONVERGENCE, true).map(|_| ())
    });
}

#[test]
fn routes_without_another_path_leave() {
    play_alone("edge", |scene| {
        let lab = &scene.lab;
        let prefix = (Ipv4Addr::new(10, 244, 77, 0), 24);
        let is_there = |there: bool| {
            let route = lab.kernel_route("node", "10.244.77.0/24")?;
            ensure!(route.is_null() != there, "10.244.77.0/24 should be there: {there}; {route}");
            Ok(())
        };
        let mut feeder = Feeder::connect(lab)?;
        feeder.announce(&[prefix])?;
        until(Duration::from_secs(5), || is_there(true))?;
        feeder.send(&crate::feeder::message(crate::feeder::NOTIFICATION, &[6, 2]))?;
        until(Duration::from_secs(1), || is_there(false))?;
        drop(feeder);

        let mut feeder = Feeder::connect(lab)?;
        feeder.announce(&[prefix])?;
        until(Duration::from_secs(5), || is_there(true))?;
        feeder.fall_silent();
        ensure!(
            feeder.notification(Duration::from_secs(12))? == (4, 0),
            "hold timer expired is NOTIFICATION 4/0"
        );
        until(Duration::from_secs(1), || is_there(false))
    });
}

#[test]
fn flushed_routes_are_back_within_a_second() {
    play_alone("two-racks", |scene| {
        let lab = &scene.lab;
        fabric::converged(lab)?;
        let all = |wanted: usize| {
            let count = lab.kernel_routes("node-a1")?.len();
            ensure!(count == wanted, "{count} routes of ours, not {wanted}");
            Ok(())
        };
        // Four nodes, two blocks each, its own unreachable.
        until(CONVERGENCE, || all(8))?;
        // One by one: `ip route flush` names a route's object and its gateway at once, which the kernel takes for a mistake.
        for family in ["-4", "-6"] {
            let listed = lab.text("node-a1", &["ip", family, "route", "show", "proto", "179"])?;
            let destination = |line: &str| {
                let mut words = line.split_whitespace().skip_while(|word| *word == "unreachable");
                words.next().map(|word| format!("route del {word} proto 179\n"))
            };
            let deletions: String = listed
                .lines()
                .filter(|line| !line.starts_with(char::is_whitespace))
                .filter_map(destination)
                .collect();
            let done = lab.run("node-a1", &["ip", family, "-batch", "-"], Some(deletions.as_bytes()))?;
            ensure!(done.status.success(), "{}", done.stderr);
            until(Duration::from_secs(1), || all(8))?;
        }
        // What routes lead through goes, and they with it.
        lab.text("node-a1", &["ip", "nexthop", "flush", "proto", "179"])?;
        until(Duration::from_secs(1), || all(8))
    });
}

#[test]
fn a_foreign_route_is_never_touched() {
    play("edge", |scene| {
        let lab = &scene.lab;
        until(CONVERGENCE, || lab.all_but("node", "192.0.2.6"))?;
        let foreign = ["10.244.88.0/24", "via", "192.0.2.2", "proto", "static", "metric", "1790"];
        let ip = |verb: &str| {
            let argv: Vec<&str> = ["ip", "route", verb].into_iter().chain(foreign).collect();
            lab.text("node", &argv)
        };
        ip("add")?;
        let mut feeder = Feeder::connect(lab)?;
        feeder.announce(&[(Ipv4Addr::new(10, 244, 88, 0), 24)])?;
        until(Duration::from_secs(10), || {
            let rows = lab.routes("node", "best")?;
            let row = rows.iter().find(|row| row.prefix.to_string() == "10.244.88.0/24");
            let fib = row.map(|row| row.fib.as_str()).unwrap_or("not there");
            ensure!(fib.starts_with("failed: foreign route"), "10.244.88.0/24 is {fib}");
            Ok(())
        })?;
        let routes = lab.json("node", &["ip", "-j", "route", "show", "exact", "10.244.88.0/24"])?;
        ensure!(routes.as_array().map(Vec::len) == Some(1), "merged into or doubled: {routes}");
        ensure!(
            routes[0]["protocol"] == "static" && routes[0]["gateway"] == "192.0.2.2",
            "changed: {routes}"
        );
        ip("del")?;
        until(Duration::from_secs(10), || {
            let route = lab.kernel_route("node", "10.244.88.0/24")?;
            ensure!(route["gateway"] == "192.0.2.6", "ours has not taken the free place: {route}");
            Ok(())
        })
    });
}

#[test]
fn a_thousand_prefixes_are_in_the_kernel_within_a_second_and_gone_within_a_second() {
    play_alone("edge", |scene| {
        let lab = &scene.lab;
        let prefixes: Vec<(Ipv4Addr, u8)> = (0..1000u32)
            .map(|n| (Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 244, 128, 0)) + n * 16), 28))
            .collect();
        let mut feeder = Feeder::connect(lab)?;
        let count = || -> Result<usize> {
            let routes = lab.kernel_routes("node")?;
            Ok(routes.iter().filter(|route| route["gateway"] == "192.0.2.6").count())
        };
        let start = Instant::now();
        feeder.announce(&prefixes)?;
        until(Duration::from_secs(1), || {
            let have = count()?;
            ensure!(have == 1000, "{have} of 1000 are in the kernel");
            Ok(())
        })?;
        let came = start.elapsed();
        let start = Instant::now();
        drop(feeder);
        until(Duration::from_secs(1), || {
            let left = count()?;
            ensure!(left == 0, "{left} of 1000 are left in the kernel");
            Ok(())
        })?;
        println!("1,000 prefixes: in the kernel after {came:?}, gone after {:?}", start.elapsed());
        Ok(())
    });
}

/// Packets from a pod of node-a1 to one address.
struct Flow {
    from: String,
    source: IpAddr,
    to: IpAddr,
}

impl Flow {
    fn is_in(&self, packet: &Packet) -> bool {
        packet.headers.inner == (self.source, self.to)
    }
}

/// A new pod on node-a1, and flows from it to all of these.
fn flows_of(lab: &Lab, pod: &str, there: &[IpAddr]) -> Result<Vec<Flow>> {
    let sources = lab.add_pod("node-a1", pod)?.addresses();
    let flow = |to: &IpAddr| {
        let source = sources.iter().find(|source| source.is_ipv4() == to.is_ipv4())?;
        Some(Flow { from: pod.to_owned(), source: *source, to: *to })
    };
    Ok(there.iter().filter_map(flow).collect())
}

/// Waits until packets of these flows leave node-a1 over exactly these links.
fn flows_go_over(lab: &Lab, flows: &[Flow], links: &[&str]) -> Result<()> {
    let links: BTreeSet<String> = links.iter().map(|link| (*link).to_owned()).collect();
    until(CONVERGENCE, || {
        let mut wire = lab.capture("node-a1")?;
        for flow in flows {
            lab.ping(&flow.from, flow.to)?;
        }
        let out = |packet: &Packet| {
            let by_link = packet.outgoing && packet.interface.starts_with("eth");
            by_link && flows.iter().any(|flow| flow.is_in(packet))
        };
        let now: BTreeSet<String> =
            wire.packets()?.into_iter().filter(out).map(|packet| packet.interface).collect();
        ensure!(now == links, "flows go over {now:?}, not {links:?}");
        Ok(())
    })
}

#[test]
fn flows_leave_a_dead_tor_and_come_back_to_it() {
    play_alone("rack-as", |scene| {
        let lab = &scene.lab;
        fabric::converged(lab)?;
        goes_by(lab, CONVERGENCE, true)?;
        let mut there = Vec::new();
        for name in ["there-1", "there-2", "there-3", "there-4"] {
            there.extend(lab.add_pod("node-b1", name)?.addresses());
        }
        let mut flows = flows_of(lab, "here-1", &there)?;
        flows.extend(flows_of(lab, "here-2", &there)?);
        flows_go_over(lab, &flows, &["eth1", "eth2"])?;

        // Only the way there is judged: for the answers the rack's ToR has to find out, and its bridge keeps it from noticing.
        let mut arriving = lab.capture("node-b1")?;
        let streams: Vec<_> =
            flows.iter().map(|flow| lab.ping_stream(&flow.from, flow.to)).collect::<Result<_>>()?;
        lab.text("tor-a1", &["ip", "link", "set", "eth1", "down"])?;
        let cut = goes_by(lab, Duration::from_secs(1), false)?;
        let mut leaving = lab.capture("node-a1")?;
        let mut over_the_other = vec![0; flows.len()];
        until(Duration::from_secs(10), || {
            for packet in leaving.packets()?.iter().filter(|packet| packet.outgoing) {
                ensure!(packet.interface != "eth1", "a packet leaves over the dead link: {packet:?}");
                let flow = flows.iter().position(|flow| flow.is_in(packet) && packet.interface == "eth2");
                flow.into_iter().for_each(|flow| over_the_other[flow] += 1);
            }
            ensure!(over_the_other.iter().all(|count| *count >= 50), "packets of flows: {over_the_other:?}");
            Ok(())
        })?;
        let sent = streams.into_iter().map(|stream| Ok(stream.stop()?.sent)).collect::<Result<Vec<_>>>()?;
        let arrived = arriving.packets()?;
        let came_in = |packet: &&Packet| !packet.outgoing && packet.interface.starts_with("eth");
        let mut most = 0;
        for (flow, sent) in flows.iter().zip(&sent) {
            let arrived = arrived.iter().filter(came_in).filter(|packet| flow.is_in(packet)).count();
            let lost = (*sent as usize).saturating_sub(arrived);
            ensure!(lost <= 20, "{lost} of {sent} packets from {} to {} were lost", flow.from, flow.to);
            most = most.max(lost);
        }

        lab.text("tor-a1", &["ip", "link", "set", "eth1", "up"])?;
        let back = goes_by(lab, CONVERGENCE, true)?;
        // Where the kernel's hashing is resilient, flows under way stay where they are: new ones take both.
        let mut new = flows_of(lab, "here-3", &there)?;
        new.extend(flows_of(lab, "here-4", &there)?);
        flows_go_over(lab, &new, &["eth1", "eth2"])?;
        println!(
            "moved after {cut:?}, at most {most} of a flow's packets lost; back {back:?} after the carrier"
        );
        Ok(())
    });
}
