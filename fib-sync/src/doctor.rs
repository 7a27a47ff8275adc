//! Which way packets to other nodes go now, by asking the kernel: what `causeway doctor mtu` has to expect. For people; what is
//! programmed does not depend on it.

use std::collections::BTreeMap;
use std::net::IpAddr;

use causeway_api::control::{DoctorPeer, DoctorTarget, Family};
use causeway_kernel::lookup::{Lookup, Way};
use causeway_kernel::{Error, Kernel, Link, Netlink, vtep_gateway};

use crate::config::Config;
use crate::decision::Kind;
use crate::probe::OtherNode;
use crate::tunnel::address_of;

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
            let block = address_of(&node.blocks, ipv4);
            // Where this node has an address in its own block, probes come from there, as pods' packets do.
            let source = address_of(&config.own_blocks, ipv4).filter(|source| own.contains(source));
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
    let kind = match (link.kind.as_deref()?, endpoint.is_ipv4()) {
        ("ipip", _) => Kind::Ipip,
        ("vxlan", true) => Kind::Vxlan,
        ("vxlan", false) => Kind::Vxlan6,
        _ => return None,
    };
    Some((endpoint, u16::try_from(kind.overhead()).ok()?))
}

fn family(address: IpAddr) -> Family {
    if address.is_ipv4() { Family::Ipv4 } else { Family::Ipv6 }
}
