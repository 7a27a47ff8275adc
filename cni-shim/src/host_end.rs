//! The host end of the pair: its settings, its address, the way to the pod.

use std::net::IpAddr;

use causeway_kernel::route::{MAIN_TABLE, Route, RouteChange};
use causeway_kernel::{Family, Kernel, LinkChange, Netlink, sysctl};
use ipnetwork::IpNetwork;

use crate::error::{CniError, Code};
use crate::names::Names;
use crate::result::GATEWAY_V6;

/// The settings of a host end, by family and key. Set before the interface is up, so that none of them comes late.
const SETTINGS: [(Family, &str, &str); 8] = [
    // What comes from a pod is forwarded, and nothing that comes from one configures this node.
    (Family::Ipv4, "forwarding", "1"),
    (Family::Ipv4, "accept_redirects", "0"),
    (Family::Ipv4, "send_redirects", "0"),
    // A pod can send from its own addresses alone.
    (Family::Ipv4, "rp_filter", "1"),
    (Family::Ipv6, "forwarding", "1"),
    (Family::Ipv6, "accept_ra", "0"),
    (Family::Ipv6, "accept_dad", "0"),
    // fe80::1 is the only link-local address here; none is made from the Ethernet address.
    (Family::Ipv6, "addr_gen_mode", "1"),
];

/// The address the pod's IPv6 gateway is.
fn gateway_address() -> Result<IpNetwork, CniError> {
    IpNetwork::new(GATEWAY_V6, 64).map_err(|error| CniError::new(Code::Internal, error.to_string()))
}

/// Whether the interface has IPv6: not on a node without it, nor with an MTU that is too small for it.
fn has_ipv6(interface: &str) -> bool {
    sysctl::read(&format!("net/ipv6/conf/{interface}/forwarding")).is_ok()
}

/// Makes the host end of a fresh pair what it has to be, the routes to the pod apart.
///
/// # Errors
/// What the kernel refuses.
pub fn configure(
    kernel: &mut Netlink,
    index: u32,
    names: &Names,
    addresses: &[IpAddr],
) -> Result<(), CniError> {
    let has_ipv6 = has_ipv6(&names.veth);
    for (family, key, value) in SETTINGS {
        let folder = match family {
            Family::Ipv4 => "ipv4",
            Family::Ipv6 if has_ipv6 => "ipv6",
            Family::Ipv6 => continue,
        };
        sysctl::write(&format!("net/{folder}/conf/{}/{key}", names.veth), value)?;
    }
    kernel.set_link(index, &LinkChange { up: Some(true), ..LinkChange::default() })?;
    if addresses.iter().any(IpAddr::is_ipv6) {
        kernel.add_address(index, gateway_address()?, true)?;
    }
    for address in addresses {
        kernel.set_neighbour(index, *address, names.pod_mac)?;
    }
    Ok(())
}

/// Adds the routes to the pod's addresses. fib-sync may have been quicker, or may not yet have taken away the route of
/// the pod that had the address before: a route of our protocol is replaced, anybody else's is in the way.
///
/// # Errors
/// What the kernel refuses; [`Code::InterfaceExists`] when a foreign route has the key.
pub fn add_routes(kernel: &mut Netlink, index: u32, addresses: &[IpAddr]) -> Result<(), CniError> {
    for address in addresses {
        let route = Route::pod(*address, index);
        match kernel.add_route(&route) {
            Ok(()) => {}
            Err(error) if error.exists() => replace_ours(kernel, &route)?,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn replace_ours(kernel: &mut Netlink, route: &Route) -> Result<(), CniError> {
    let present = kernel.routes(route.key.family(), MAIN_TABLE)?;
    match present.iter().find(|present| present.key == route.key) {
        Some(present) if present == route => Ok(()),
        Some(present) if present.protocol != route.protocol => Err(CniError::new(
            Code::Internal,
            format!(
                "route {}: a route of protocol {} is in the way",
                route.key.destination, present.protocol
            ),
        )),
        Some(_) => write_one(kernel, RouteChange::Replace(route.clone())),
        // It has gone since.
        None => write_one(kernel, RouteChange::Add(route.clone())),
    }
}

fn write_one(kernel: &mut Netlink, change: RouteChange) -> Result<(), CniError> {
    let what = change.to_string();
    for outcome in kernel.write(&[change])? {
        outcome.map_err(|refusal| CniError::new(Code::Internal, format!("{what}: {refusal}")))?;
    }
    Ok(())
}

/// What is wrong with the host end.
///
/// # Errors
/// When the kernel cannot be asked.
pub fn faults(
    kernel: &mut Netlink,
    names: &Names,
    mtu: Option<u32>,
    pod_index: Option<u32>,
    addresses: &[IpAddr],
) -> Result<Vec<String>, CniError> {
    let veth = &names.veth;
    let Some(link) = kernel.link_by_name(veth)? else {
        return Ok(vec![format!("host interface {veth} is missing")]);
    };
    let mut faults = Vec::new();
    if !link.admin_up {
        faults.push(format!("host interface {veth} is down"));
    }
    if link.kind.as_deref() != Some("veth") || pod_index.is_some_and(|index| link.peer != Some(index)) {
        faults.push(format!("host interface {veth} is not the other end of the pod's"));
    }
    if link.mac != Some(names.host_mac) {
        faults.push(format!("host interface {veth} has another Ethernet address than {}", names.host_mac));
    }
    if mtu.is_some_and(|mtu| mtu != link.mtu) {
        faults.push(format!("host interface {veth} has MTU {}, not {}", link.mtu, mtu.unwrap_or_default()));
    }
    if addresses.iter().any(IpAddr::is_ipv6) {
        let gateway = gateway_address()?;
        let held = kernel.addresses()?;
        if !held.iter().any(|address| address.ifindex == link.index && address.network == gateway) {
            faults.push(format!("host interface {veth} has no address {gateway}"));
        }
    }
    let neighbours = kernel.neighbours()?;
    for address in addresses {
        let entry = neighbours.iter().find(|entry| entry.ifindex == link.index && entry.address == *address);
        if !entry.is_some_and(|entry| entry.permanent && entry.mac == Some(names.pod_mac)) {
            faults.push(format!("no permanent neighbour entry for {address} on {veth}"));
        }
        let route = Route::pod(*address, link.index);
        if !kernel.routes(route.key.family(), MAIN_TABLE)?.contains(&route) {
            faults.push(format!("no route to {address} through {veth}"));
        }
    }
    Ok(faults)
}
