//! Which way packets to other nodes go now, by asking the kernel: what `causeway doctor mtu` has to expect. For people; what is
//! programmed does not depend on it.

use std::collections::BTreeMap;
use std::net::IpAddr;

use causeway_api::control::{DoctorPeer, DoctorTarget, Family};
use causeway_kernel::lookup::{Lookup, Way};
use causeway_kernel::{Error, Kernel, Link, Netlink, vtep_gateway};
use ipnetwork::IpNetwork;

use crate::config::Config;
use crate::probe::OtherNode;

/// The MTU of the way to an address, in bytes; 0 where it is not known.
pub fn mtu(to: IpAddr, source: Option<IpAddr>) -> u32 {
    let look = || -> Result<u32, Error> {
        let way = Lookup::open()?.way(to, source)?;
        let links = Netlink::open()?.links()?;
        let link = links.iter().find(|link| Some(link.index) == way.ifindex);
        Ok(expected(&way, link).unwrap_or_default())
    };
    look().unwrap_or_default()
}

/// What fits through the device, or less where the route says so.
fn expected(way: &Way, link: Option<&Link>) -> Option<u32> {
    let device = link.map(|link| link.mtu);
    way.mtu.filter(|mtu| *mtu > 0).into_iter().chain(device).min()
}

/// The other nodes and where to probe each: in a block of the node, where its pods are and its tunnel device has an
/// address, and at the node's own address.
///
/// # Errors
/// The kernel cannot be asked.
pub fn peers(config: &Config) -> Result<Vec<DoctorPeer>, Error> {
    let mut kernel = Netlink::open()?;
    let links: BTreeMap<u32, Link> = kernel.links()?.into_iter().map(|link| (link.index, link)).collect();
    let own: Vec<IpAddr> = kernel.addresses()?.iter().map(|address| address.network.ip()).collect();
    let mut lookup = Lookup::open()?;
    let mut target = |node: &OtherNode, address: IpAddr, block: bool, source: Option<IpAddr>| {
        let way = lookup.way(address, source);
        let link = way.as_ref().ok().and_then(|way| way.ifindex).and_then(|index| links.get(&index));
        let gateway = way.as_ref().ok().and_then(|way| way.gateway);
        let tunnel = link.zip(gateway).and_then(|(link, gateway)| tunnel(link, gateway, &node.addresses));
        DoctorTarget {
            address,
            family: family(address),
            block,
            source: source.or(way.as_ref().ok().and_then(|way| way.source)),
            gateway,
            device: link.map(|link| link.name.clone()),
            mtu: way.as_ref().ok().and_then(|way| expected(way, link)),
            endpoint: tunnel.map(|(endpoint, _)| endpoint),
            overhead: tunnel.map(|(_, overhead)| overhead),
            error: way.as_ref().err().map(ToString::to_string),
        }
    };
    let mut peer = |node: &OtherNode| {
        let mut targets = Vec::new();
        for ipv4 in [true, false] {
            let block = first_block(&node.blocks, ipv4).and_then(tunnel_address);
            // Where this node has an address in its own block, probes come from there, as pods' packets do.
            let source = first_block(&config.own_blocks, ipv4).and_then(tunnel_address);
            let source = source.filter(|source| own.contains(source));
            targets.extend(block.map(|address| target(node, address, true, source)));
            let addresses = node.addresses.iter().filter(|address| address.is_ipv4() == ipv4);
            targets.extend(addresses.map(|address| target(node, *address, false, None)));
        }
        DoctorPeer { node: node.name.clone(), targets }
    };
    Ok(config.others.iter().map(&mut peer).collect())
}

/// Where a tunnel ends whose routes have this gateway, and what its device puts in front of a packet, in bytes.
fn tunnel(link: &Link, gateway: IpAddr, addresses: &[IpAddr]) -> Option<(IpAddr, u16)> {
    let ends = |address: &&IpAddr| **address == gateway || vtep_gateway(**address) == gateway;
    let endpoint = *addresses.iter().find(ends)?;
    let overhead = match (link.kind.as_deref()?, endpoint.is_ipv4()) {
        ("ipip", _) => 20,
        ("vxlan", true) => 50,
        ("vxlan", false) => 70,
        _ => return None,
    };
    Some((endpoint, overhead))
}

fn family(address: IpAddr) -> Family {
    if address.is_ipv4() { Family::Ipv4 } else { Family::Ipv6 }
}

fn first_block(blocks: &[IpNetwork], ipv4: bool) -> Option<IpNetwork> {
    blocks.iter().find(|block| block.is_ipv4() == ipv4).copied()
}

/// The address of a block that the tunnel device holds: the second one.
fn tunnel_address(block: IpNetwork) -> Option<IpAddr> {
    let address = match block.network() {
        IpAddr::V4(first) => IpAddr::V4(u32::from(first).checked_add(1)?.into()),
        IpAddr::V6(first) => IpAddr::V6(u128::from(first).checked_add(1)?.into()),
    };
    block.contains(address).then_some(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_address_of_a_block_is_the_tunnels() {
        for (block, address) in
            [("10.244.2.0/24", Some("10.244.2.1")), ("fd00::/64", Some("fd00::1")), ("10.0.0.7/32", None)]
        {
            let found = tunnel_address(block.parse().unwrap());
            assert_eq!(found, address.map(|address| address.parse().unwrap()), "{block}");
        }
    }
}
