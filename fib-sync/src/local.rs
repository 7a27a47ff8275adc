//! The routes of the node's own: its blocks, its pods, the ways to peers behind a gateway. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;

use causeway_kernel::route::MAIN_TABLE;
use causeway_kernel::{NextHop, Route, RouteKey};
use ipnetwork::IpNetwork;

use crate::config::Config;

/// A route of the node's own: a block, a pod, or the way to a peer behind a gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Local {
    /// The route; `None` while it cannot be made.
    pub route: Option<Route>,
    /// Why it is there, or why it is not yet.
    pub reason: String,
    /// The device it is waiting for or uses.
    pub device: Option<String>,
}

/// A local pod's address and its device.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pod {
    /// The address.
    pub address: IpAddr,
    /// The host end of its veth pair.
    pub device: String,
}

impl Local {
    /// Where it goes, if through a gateway: what next hops may resolve through.
    pub fn gateways(&self) -> Option<&[NextHop]> {
        let hops = &self.route.as_ref()?.next_hops;
        hops.iter().any(|hop| hop.gateway.is_some()).then_some(hops)
    }
}

/// The local part of the desired set. `device` finds the index of a device that is there, `link` that of the one a
/// connected address is on.
pub fn locals(
    config: &Config,
    pods: &[Pod],
    device: impl Fn(&str) -> Option<u32>,
    link: impl Fn(IpAddr) -> Option<u32>,
) -> BTreeMap<RouteKey, Local> {
    let mut locals = BTreeMap::new();
    for block in &config.own_blocks {
        let route = Route::unreachable(*block);
        let reason = "a block of this node: its unused addresses lead nowhere".to_owned();
        locals.insert(route.key, Local { route: Some(route), reason, device: None });
    }
    for host in &config.host_routes {
        let destination = IpNetwork::from(host.destination);
        let hop = link(host.gateway).map(|ifindex| NextHop {
            gateway: Some(host.gateway),
            ifindex,
            weight: 1,
            onlink: false,
        });
        let reason = match hop {
            Some(_) => "a BGP peer that is reachable by this gateway".to_owned(),
            None => format!("reachableBy {}: not in a connected subnet", host.gateway),
        };
        // Only fib-sync writes these, so they bear the configured number and metric, as learned routes do.
        let key = learned_key(destination, config);
        let route =
            hop.map(|hop| Route { key, protocol: config.protocol, ..Route::unicast(destination, vec![hop]) });
        locals.insert(key, Local { route, reason, device: None });
    }
    for pod in pods {
        let index = device(&pod.device);
        let reason = match index {
            Some(_) => "a local pod".to_owned(),
            None => format!("waiting for device {} of a local pod", pod.device),
        };
        let key = RouteKey::ours(IpNetwork::from(pod.address));
        let route = index.map(|index| Route::pod(pod.address, index));
        locals.insert(key, Local { route, reason, device: Some(pod.device.clone()) });
    }
    locals
}

/// The kernel's key of a learned route.
pub fn learned_key(prefix: IpNetwork, config: &Config) -> RouteKey {
    RouteKey { table: MAIN_TABLE, destination: prefix, tos: 0, metric: config.metric }
}
