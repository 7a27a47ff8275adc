//! What every fabric must do: sessions up, routes in every kernel, pods that reach each other, withdrawals that arrive.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use causeway_integration::lab::Lab;
use causeway_integration::until::until;
use nix::sys::signal::Signal;

/// How long a fabric may take from the start of its daemons until it is quiet: connect-retry times of all makes included.
pub const CONVERGENCE: Duration = Duration::from_secs(40);

/// Prefixes of a node's own blocks.
pub fn own_blocks(lab: &Lab, node: &str) -> Result<Vec<String>> {
    let blocks = lab.node_info(node)?.pod_cidrs;
    ensure!(!blocks.is_empty(), "{node} has no podCIDRs");
    Ok(blocks.iter().map(ToString::to_string).collect())
}

/// Waits until all sessions are up and every kernel has a route of ours to every block of the others.
pub fn converged(lab: &Lab) -> Result<()> {
    let nodes = lab.causeway_nodes();
    until(CONVERGENCE, || nodes.iter().try_for_each(|node| lab.all_established(node)))?;
    kernels_are_complete(lab)
}

/// Waits until every kernel has a route of ours to every block of the others.
pub fn kernels_are_complete(lab: &Lab) -> Result<()> {
    let nodes = lab.causeway_nodes();
    let blocks: Vec<(String, Vec<String>)> =
        nodes.iter().map(|node| Ok((node.clone(), own_blocks(lab, node)?))).collect::<Result<_>>()?;
    until(CONVERGENCE, || nodes.iter().try_for_each(|node| kernel_is_complete(lab, node, &blocks)))
}

fn kernel_is_complete(lab: &Lab, node: &str, blocks: &[(String, Vec<String>)]) -> Result<()> {
    let routes = lab.kernel_routes(node)?;
    for (owner, prefixes) in blocks {
        for prefix in prefixes {
            let route = routes.iter().find(|route| route["dst"] == prefix.as_str());
            let route = route.with_context(|| format!("{node} has no route to {prefix} of {owner}"))?;
            if owner == node {
                ensure!(route["type"] == "unreachable", "{node}: own block {prefix} is {route}");
            } else {
                ensure!(
                    !Lab::gateways(route).is_empty(),
                    "{node}: {prefix} of {owner} leads nowhere: {route}"
                );
                ensure!(route["metric"] == 1790, "{node}: {prefix} has no metric 1790: {route}");
            }
        }
    }
    Ok(())
}

/// Adds a pod to every node, and returns each with its addresses.
pub fn a_pod_on_every_node(lab: &Lab) -> Result<Vec<(String, Vec<IpAddr>)>> {
    let mut pods = Vec::new();
    for node in lab.causeway_nodes() {
        let name = format!("pod-{node}");
        let addresses = lab.add_pod(&node, &name)?.addresses();
        ensure!(addresses.iter().any(IpAddr::is_ipv4), "{name} has no IPv4 address: {addresses:?}");
        ensure!(addresses.iter().any(IpAddr::is_ipv6), "{name} has no IPv6 address: {addresses:?}");
        pods.push((name, addresses));
    }
    Ok(pods)
}

/// Pings every pod from every other, both families; the first ping of a pair may have to wait for neighbour resolution.
pub fn all_pods_reach_each_other(lab: &Lab, pods: &[(String, Vec<IpAddr>)]) -> Result<()> {
    std::thread::scope(|scope| {
        let threads: Vec<_> = pods
            .iter()
            .map(|(from, _)| {
                scope.spawn(move || {
                    for (to, addresses) in pods.iter().filter(|(to, _)| to != from) {
                        for address in addresses {
                            until(Duration::from_secs(5), || lab.ping(from, *address))
                                .with_context(|| format!("{from} does not reach {to} at {address}"))?;
                        }
                    }
                    Ok(())
                })
            })
            .collect();
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().unwrap_or_else(|_| anyhow::bail!("a pinger panicked")))
    })
}

/// Kills a node with everything on it and waits until no other kernel has a route to its blocks; returns how long that took.
pub fn a_dead_node_is_forgotten(lab: &Lab, node: &str, bound: Duration) -> Result<Duration> {
    let blocks = own_blocks(lab, node)?;
    let others: Vec<String> = lab.causeway_nodes().into_iter().filter(|other| other != node).collect();
    let start = Instant::now();
    lab.kill_node(node)?;
    until(bound, || {
        for other in &others {
            let routes = lab.kernel_routes(other)?;
            let left = routes.iter().find(|route| blocks.iter().any(|block| route["dst"] == block.as_str()));
            ensure!(left.is_none(), "{other} still has {left:?}");
        }
        Ok(())
    })?;
    Ok(start.elapsed())
}

/// The story of every topology.
pub fn works(lab: &Lab) -> Result<()> {
    converged(lab)?;
    let pods = a_pod_on_every_node(lab)?;
    all_pods_reach_each_other(lab, &pods)
}

/// Pings between two pods keep running while `story` happens, and none may be lost.
pub fn no_ping_is_lost(
    lab: &Lab,
    pairs: &[(&str, IpAddr)],
    story: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let streams: Vec<_> = pairs.iter().map(|(from, to)| lab.ping_stream(from, *to)).collect::<Result<_>>()?;
    story()?;
    for stream in streams {
        let route = stream.route.clone();
        let counted = stream.stop()?;
        ensure!(counted.lost() == 0, "{route}: {} of {} pings lost", counted.lost(), counted.sent);
    }
    Ok(())
}

/// Kills a daemon as a crash does, and starts it again.
pub fn crash_and_restart(lab: &Lab, node: &str, daemons: &[&str]) -> Result<()> {
    for daemon in daemons {
        lab.stop(node, daemon, Signal::SIGKILL)?;
    }
    for daemon in daemons {
        lab.start(node, daemon)?;
    }
    Ok(())
}
