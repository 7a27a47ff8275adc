//! Every account of one way: `show fib`, `show routes`, the kernel's own lookup, the wire, and packets that arrive.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use causeway_api::control::{FibRoute, Via};
use causeway_integration::capture::{Capture, Packet};
use causeway_integration::lab::Lab;
use causeway_integration::until::until;
use serde_json::Value;

use super::expect::{Modes, Way, address_of, port_of};
use crate::fabric::CONVERGENCE;

/// A pod: its name, its node and its addresses.
pub struct Pod {
    pub name: String,
    pub node: String,
    pub addresses: Vec<IpAddr>,
}

/// One pod on every node.
pub fn pods(lab: &Lab) -> Result<Vec<Pod>> {
    let nodes = lab.causeway_nodes();
    let pod = |node: String| {
        let name = format!("pod-{}", node.trim_start_matches("node-"));
        let addresses = lab.add_pod(&node, &name)?.addresses();
        let families = (addresses.iter().any(IpAddr::is_ipv4), addresses.iter().any(IpAddr::is_ipv6));
        ensure!(families == (true, true), "{name} has {addresses:?}");
        Ok(Pod { name, node, addresses })
    };
    nodes.into_iter().map(pod).collect()
}

impl Pod {
    /// Its address of a family.
    pub fn address(&self, is_ipv4: bool) -> Result<IpAddr> {
        let found = self.addresses.iter().find(|address| address.is_ipv4() == is_ipv4);
        found.copied().with_context(|| format!("{} has no such address", self.name))
    }
}

/// Ordered pairs of different pods, with each family.
fn journeys(pods: &[Pod]) -> impl Iterator<Item = (&Pod, &Pod, bool)> {
    pods.iter()
        .flat_map(move |from| pods.iter().map(move |to| (from, to)))
        .filter(|(from, to)| from.name != to.name)
        .flat_map(|(from, to)| [(from, to, true), (from, to, false)])
}

/// Waits until every node goes the way the pools ask for to every block of the others, by every account.
pub fn settled(lab: &Lab, modes: Modes) -> Result<()> {
    let nodes = lab.causeway_nodes();
    let mut blocks = Vec::new();
    for node in &nodes {
        for block in lab.node_info(node)?.pod_cidrs {
            blocks.push((node.clone(), block));
        }
    }
    until(CONVERGENCE, || {
        for node in &nodes {
            let fib = lab.fib(node)?;
            for (owner, block) in blocks.iter().filter(|(owner, _)| owner != node) {
                let row = fib.iter().find(|row| row.prefix == *block);
                let row = row.with_context(|| format!("{node}: show fib has no {block} of {owner}"))?;
                goes(row, modes.way(block.is_ipv4(), node, owner), owner)
                    .with_context(|| format!("{node}: {row:?}"))?;
            }
            accounts_agree(lab, node, &fib)?;
        }
        Ok(())
    })
}

/// A row of `show fib` goes this way to a block of `owner`.
fn goes(row: &FibRoute, way: Way, owner: &str) -> Result<()> {
    ensure!(row.state == "installed", "it is {}", row.state);
    ensure!(row.via == Some(way.via()), "it is to go {}", way.via());
    let mtu = way.mtu(row.prefix.is_ipv4());
    ensure!(row.mtu == mtu, "its MTU is to be {mtu:?}");
    match way {
        Way::Tunnel(_) => ensure!(row.reason.contains(owner), "the reason does not name {owner}"),
        Way::Direct => ensure!(row.reason.contains("connected subnet"), "the reason names no subnet"),
        Way::Recursive => ensure!(!row.reason.is_empty(), "there is no reason"),
    }
    Ok(())
}

/// `show fib`, `show routes` and the kernel's own lookup of an address agree about every prefix of a node.
pub fn accounts_agree(lab: &Lab, node: &str, fib: &[FibRoute]) -> Result<()> {
    let routes = lab.routes(node, "best")?;
    for row in fib.iter().filter(|row| row.via != Some(Via::Local)) {
        let prefix = row.prefix;
        ensure!(!row.reason.is_empty(), "{node}: show fib has no reason for {prefix}");
        let best = routes.iter().find(|route| route.prefix == prefix);
        let best = best.with_context(|| format!("{node}: show routes has no {prefix}"))?;
        ensure!(
            best.via == row.via && best.fib == row.state,
            "{node}: {prefix} goes {:?} ({}) by show fib, {:?} ({}) by show routes",
            row.via,
            row.state,
            best.via,
            best.fib
        );
        let address = prefix.iter().nth(5).with_context(|| format!("{prefix} is small"))?;
        let found = lab.json(node, &["ip", "-j", "route", "get", &address.to_string()])?;
        agrees_with_lookup(row, &found[0])
            .with_context(|| format!("{node}: show fib: {row:?}; ip route get {address}: {found}"))?;
    }
    Ok(())
}

fn agrees_with_lookup(row: &FibRoute, found: &Value) -> Result<()> {
    let device = found["dev"].as_str();
    let gateway = Lab::gateways(found).first().copied();
    let is_it = row.next_hops.iter().any(|hop| hop.device.as_deref() == device && hop.gateway == gateway);
    ensure!(is_it, "they name other next hops");
    let tunnel = device.is_some_and(|device| device.starts_with("causeway-"));
    ensure!(tunnel == matches!(row.via, Some(Via::Ipip | Via::Vxlan)), "they differ about the tunnel");
    let metrics = &found["metrics"][0];
    // What has an expiry was learned from ICMP, and is no part of the route.
    let learned = found.to_string().contains("expires");
    let mtu = metrics["mtu"].as_u64();
    ensure!(learned || mtu == row.mtu.map(u64::from), "they name other MTUs");
    Ok(())
}

/// Pods reach each other where the pools' modes let them, and the wire shows what they are carried in, node to node.
pub fn reach_each_other(lab: &Lab, pods: &[Pod], modes: Modes) -> Result<()> {
    let mut wire = lab.capture("router")?;
    for (from, to, is_ipv4) in journeys(pods) {
        let address = to.address(is_ipv4)?;
        let route = || format!("{} to {} at {address}", from.name, to.name);
        if modes.way(is_ipv4, &from.node, &to.node) != Way::Recursive {
            until(Duration::from_secs(5), || lab.ping(&from.name, address)).with_context(route)?;
        } else if from.name < to.name {
            // Half of the pairs will do where each costs a second: the router must not know where the pod is.
            ensure!(lab.ping(&from.name, address).is_err(), "{} got through", route());
        }
    }
    let packets = wire.packets()?;
    for (from, to, is_ipv4) in journeys(pods) {
        let way = modes.way(is_ipv4, &from.node, &to.node);
        seen(&packets, from, to, is_ipv4, way).with_context(|| {
            format!("{} to {}, IPv4: {is_ipv4}, on the router's ports", from.name, to.name)
        })?;
    }
    Ok(())
}

/// What the router's ports saw of one journey.
fn seen(packets: &[Packet], from: &Pod, to: &Pod, is_ipv4: bool, way: Way) -> Result<()> {
    let pods = (from.address(is_ipv4)?, to.address(is_ipv4)?);
    let of_it: Vec<&Packet> = packets.iter().filter(|packet| packet.headers.inner == pods).collect();
    let nodes = match way {
        Way::Tunnel(_) => (address_of(&from.node, is_ipv4)?, address_of(&to.node, is_ipv4)?),
        Way::Direct | Way::Recursive => pods,
    };
    for packet in &of_it {
        let headers = packet.headers;
        ensure!(
            headers.carried == way.carried() && headers.outer == nodes,
            "it is to be {:?} from {} to {}: {packet:?}",
            way.carried(),
            nodes.0,
            nodes.1
        );
    }
    let (first, last) = (port_of(&from.node)?, port_of(&to.node)?);
    let left = of_it.iter().any(|packet| packet.interface == first && !packet.outgoing);
    let arrived = of_it.iter().any(|packet| packet.interface == last && packet.outgoing);
    match way {
        Way::Recursive => ensure!(!arrived, "it came to {last}"),
        Way::Direct | Way::Tunnel(_) => {
            ensure!(left && arrived, "seen at {first}: {left}, at {last}: {arrived}");
        }
    }
    Ok(())
}

/// A node's own programs reach pods on other nodes, and get their answers.
pub fn nodes_reach_pods(lab: &Lab, pods: &[Pod], modes: Modes) -> Result<()> {
    for (from, to, is_ipv4) in journeys(pods) {
        if modes.way(is_ipv4, &from.node, &to.node) == Way::Recursive {
            continue;
        }
        let address = to.address(is_ipv4)?;
        until(Duration::from_secs(5), || lab.ping(&from.node, address))
            .with_context(|| format!("{} to {} at {address}", from.node, to.name))?;
    }
    Ok(())
}

/// Nothing of a tunnel was on the wire.
pub fn no_tunnel_on(wire: &mut Capture) -> Result<()> {
    use causeway_integration::capture::Carried;
    match wire.packets()?.iter().find(|packet| packet.headers.carried != Carried::Native) {
        Some(packet) => bail!("a tunnel's packet: {packet:?}"),
        None => Ok(()),
    }
}

/// Two megabytes of full-size TCP segments from pod to pod, along every way there is.
pub fn large_transfers_complete(lab: &Lab, pods: &[Pod], modes: Modes) -> Result<Duration> {
    const BYTES: usize = 2 << 20;
    let mut longest = Duration::ZERO;
    for pod in pods {
        let mtu = lab.text(&pod.name, &["cat", "/sys/class/net/eth0/mtu"])?;
        ensure!(mtu.trim() == "1500", "{} has an MTU of {mtu}", pod.name);
    }
    for (from, to, is_ipv4) in journeys(pods) {
        if modes.way(is_ipv4, &from.node, &to.node) != Way::Recursive {
            let took = lab.transfer(&from.name, &to.name, to.address(is_ipv4)?, BYTES)?;
            longest = longest.max(took);
        }
    }
    Ok(longest)
}
