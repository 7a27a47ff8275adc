//! The pod end of the pair: its addresses, its gateway, its way out. All of it happens in the pod's namespace.

use std::net::IpAddr;

use causeway_kernel::route::{MAIN_TABLE, NextHop, Route, RouteKey, RouteKind};
use causeway_kernel::{Family, Kernel, LinkChange, Netlink, sysctl};
use ipnetwork::IpNetwork;

use crate::attachment::PodNetns;
use crate::error::{CniError, Code};
use crate::names::Names;
use crate::result::{PrevResult, gateway};

/// Who makes routes in pods: the protocol number of administrators (`RTPROT_STATIC`).
const POD_PROTOCOL: u8 = 4;
/// The metric of a default route in the pod, by family, as the kernel has it when nothing is said.
const METRIC_V4: u32 = 0;
const METRIC_V6: u32 = 1_024;
/// Added to the interface's index, the metric of a default route where another interface has the usual one.
const METRIC_BEHIND: u32 = 2_048;

/// The default route by the family of an address.
fn default_route(address: &IpAddr, index: u32, metric: u32) -> Result<Route, CniError> {
    let everything = match address {
        IpAddr::V4(_) => IpNetwork::new(IpAddr::from([0; 4]), 0),
        IpAddr::V6(_) => IpNetwork::new(IpAddr::from([0; 16]), 0),
    };
    let destination = everything.map_err(|error| CniError::new(Code::Internal, error.to_string()))?;
    Ok(Route {
        key: RouteKey { table: MAIN_TABLE, destination, tos: 0, metric },
        protocol: POD_PROTOCOL,
        kind: RouteKind::Unicast,
        next_hops: vec![NextHop { onlink: true, ..NextHop::gateway(gateway(address), index) }],
        preferred_source: None,
        mtu: None,
        nexthop_id: None,
    })
}

fn usual_metric(address: &IpAddr) -> u32 {
    if address.is_ipv4() { METRIC_V4 } else { METRIC_V6 }
}

/// Makes the pod end of a fresh pair what it has to be. Returns the metrics of default routes that had to stand behind
/// another interface's.
///
/// # Errors
/// What the kernel refuses.
pub fn configure(
    kernel: &mut Netlink,
    netns: &PodNetns,
    interface: &str,
    names: &Names,
    addresses: &[IpAddr],
) -> Result<Vec<(IpAddr, u32)>, CniError> {
    let link = kernel
        .link_by_name(interface)?
        .ok_or_else(|| CniError::new(Code::Internal, format!("{interface} is not in the pod after all")))?;
    if addresses.iter().any(IpAddr::is_ipv6) {
        // Runtimes may have switched IPv6 off in new namespaces; nothing else has an address here that could clash.
        let settings = ["disable_ipv6", "accept_dad", "accept_ra"];
        netns.run(|| {
            settings
                .iter()
                .try_for_each(|key| sysctl::write(&format!("net/ipv6/conf/{interface}/{key}"), "0"))
        })?;
    }
    kernel.set_link(link.index, &LinkChange { up: Some(true), ..LinkChange::default() })?;
    let mut behind = Vec::new();
    for address in addresses {
        kernel.add_address(link.index, IpNetwork::from(*address), address.is_ipv6())?;
        kernel.set_neighbour(link.index, gateway(address), names.host_mac)?;
        let usual = usual_metric(address);
        match kernel.add_route(&default_route(address, link.index, usual)?) {
            Ok(()) => {}
            Err(error) if error.exists() => {
                let metric = METRIC_BEHIND + link.index;
                kernel.add_route(&default_route(address, link.index, metric)?)?;
                behind.push((*address, metric));
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(behind)
}

/// What is wrong with the pod end, and its index when it is there.
///
/// # Errors
/// When the kernel cannot be asked.
pub fn faults(
    kernel: &mut Netlink,
    interface: &str,
    names: &Names,
    mtu: Option<u32>,
    addresses: &[IpAddr],
    result: &PrevResult,
) -> Result<(Vec<String>, Option<u32>), CniError> {
    let Some(link) = kernel.link_by_name(interface)? else {
        return Ok((vec![format!("interface {interface} is missing in the container")], None));
    };
    let mut faults = Vec::new();
    if !link.admin_up {
        faults.push(format!("interface {interface} is down"));
    }
    if link.kind.as_deref() != Some("veth") {
        faults.push(format!("interface {interface} is no veth"));
    }
    if link.mac != Some(names.pod_mac) {
        faults.push(format!("interface {interface} has another Ethernet address than {}", names.pod_mac));
    }
    if mtu.is_some_and(|mtu| mtu != link.mtu) {
        faults.push(format!("interface {interface} has MTU {}, not {}", link.mtu, mtu.unwrap_or_default()));
    }
    let held = kernel.addresses()?;
    let neighbours = kernel.neighbours()?;
    for address in addresses {
        let network = IpNetwork::from(*address);
        if !held.iter().any(|held| held.ifindex == link.index && held.network == network) {
            faults.push(format!("interface {interface} has no address {network}"));
        }
        let gateway = gateway(address);
        let entry = neighbours.iter().find(|entry| entry.ifindex == link.index && entry.address == gateway);
        if !entry.is_some_and(|entry| entry.permanent && entry.mac == Some(names.host_mac)) {
            faults.push(format!("no permanent neighbour entry for the gateway {gateway} on {interface}"));
        }
    }
    for family in Family::ALL {
        let wanted: Vec<_> = result
            .routes
            .iter()
            .filter(|route| Family::of(&route.dst.ip()) == family)
            .filter(|route| addresses.iter().any(|address| route.gw == Some(gateway(address))))
            .collect();
        if wanted.is_empty() {
            continue;
        }
        let present = kernel.routes(family, MAIN_TABLE)?;
        for route in wanted {
            let leads_there = |hop: &NextHop| hop.gateway == route.gw && hop.ifindex == link.index;
            let is_there = present.iter().any(|present| {
                present.key.destination == route.dst && present.next_hops.iter().any(leads_there)
            });
            if !is_there {
                faults.push(format!("no route {} through {interface}", route.dst));
            }
        }
    }
    Ok((faults, Some(link.index)))
}
