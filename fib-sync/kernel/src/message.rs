//! Our types to and from `netlink-packet-route`'s. Pure; the one file that crate's next release can break.
//!
//! Decoding is lenient towards what belongs to others: attributes nobody here needs are passed over, and a message
//! that does not decode is `None` and left out, so that one exotic route cannot stop the daemon.

use std::net::IpAddr;
use std::os::fd::AsRawFd;

use ipnetwork::IpNetwork;
use netlink_packet_core::Parseable;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressScope,
};
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVeth, LinkAttribute, LinkExtentMask, LinkFlags, LinkHeader, LinkInfo, LinkMessage,
};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};

use crate::attribute::{Attributes, value};
use crate::link::{Address, Link, LinkChange, Mac, Neighbour, VethPair};
use crate::route::Family;

pub(crate) mod nexthop;
pub(crate) mod route;
pub(crate) mod tunnel;

const LINK_HEADER_LENGTH: usize = 16;
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINK: u16 = 5;
const IFLA_LINKINFO: u16 = 18;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;

/// The kernel's number for a family, in a message's head.
pub(crate) fn family_number(family: Family) -> u8 {
    match family {
        Family::Ipv4 => libc::AF_INET as u8,
        Family::Ipv6 => libc::AF_INET6 as u8,
    }
}

/// The family of a message's head; `None` when it is neither.
pub(crate) fn family_from(number: u8) -> Option<Family> {
    Family::ALL.into_iter().find(|family| family_number(*family) == number)
}

/// The kernel's number for a family.
pub(crate) fn family_of(family: Family) -> AddressFamily {
    match family {
        Family::Ipv4 => AddressFamily::Inet,
        Family::Ipv6 => AddressFamily::Inet6,
    }
}

/// `RTM_GETLINK` for all links, without their statistics.
pub fn dump_links() -> LinkMessage {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
    message
}

/// `RTM_GETLINK` for one link.
pub fn get_link(name: &str) -> LinkMessage {
    let mut message = dump_links();
    message.attributes.push(LinkAttribute::IfName(name.to_owned()));
    message
}

/// `RTM_DELLINK`.
pub fn delete_link(index: u32) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message
}

/// `RTM_SETLINK`.
pub fn set_link(index: u32, change: &LinkChange) -> LinkMessage {
    let mut message = delete_link(index);
    if let Some(up) = change.up {
        message.header.change_mask = LinkFlags::Up;
        if up {
            message.header.flags = LinkFlags::Up;
        }
    }
    if let Some(mtu) = change.mtu {
        message.attributes.push(LinkAttribute::Mtu(mtu));
    }
    if let Some(mac) = change.mac {
        message.attributes.push(LinkAttribute::Address(mac.0.to_vec()));
    }
    if let Some(name) = &change.name {
        message.attributes.push(LinkAttribute::IfName(name.clone()));
    }
    message
}

/// `RTM_NEWLINK` for a veth pair.
pub fn new_veth(pair: &VethPair<'_>) -> LinkMessage {
    let end = |name: &str, mac: Mac| {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        message.attributes.push(LinkAttribute::Address(mac.0.to_vec()));
        message.attributes.push(LinkAttribute::Mtu(pair.mtu));
        message
    };
    let mut peer = end(pair.peer_name, pair.peer_mac);
    if let Some(netns) = pair.peer_netns {
        peer.attributes.push(LinkAttribute::NetNsFd(netns.as_raw_fd()));
    }
    let mut message = end(pair.name, pair.mac);
    message.attributes.push(LinkAttribute::LinkInfo(vec![
        LinkInfo::Kind(InfoKind::Veth),
        LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
    ]));
    message
}

/// Reads `RTM_NEWLINK` or `RTM_DELLINK`: only the attributes needed here, so that a new kernel's additions to the
/// many others cannot make a link unreadable.
pub fn parse_link(payload: &[u8]) -> Option<Link> {
    let header = LinkHeader::parse(payload).ok()?;
    let mut link = Link {
        index: header.index,
        name: String::new(),
        admin_up: header.flags.contains(LinkFlags::Up),
        running: header.flags.contains(LinkFlags::Running | LinkFlags::LowerUp),
        loopback: header.flags.contains(LinkFlags::Loopback),
        mtu: 0,
        mac: None,
        kind: None,
        peer: None,
        tunnel: None,
    };
    for attribute in Attributes(payload.get(LINK_HEADER_LENGTH..)?) {
        match attribute.kind {
            IFLA_ADDRESS => link.mac = attribute.value.try_into().ok().map(Mac),
            IFLA_IFNAME => link.name = attribute.text(),
            IFLA_MTU => link.mtu = attribute.number()?,
            IFLA_LINK => link.peer = attribute.number(),
            IFLA_LINKINFO => {
                let kind = Attributes(attribute.value).find(|info| info.kind == IFLA_INFO_KIND);
                link.kind = kind.map(|kind| kind.text());
                if let (Some(kind), Some(data)) = (&link.kind, value(attribute.value, IFLA_INFO_DATA)) {
                    link.tunnel = tunnel::parse(kind, data);
                }
            }
            _ => {}
        }
    }
    Some(link)
}

/// `RTM_NEWADDR`, `RTM_DELADDR`.
pub fn address(ifindex: u32, network: &IpNetwork, nodad: bool) -> AddressMessage {
    let mut message = AddressMessage::default();
    let header = &mut message.header;
    header.family = if network.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    header.prefix_len = network.prefix();
    header.index = ifindex;
    if let IpAddr::V6(address) = network.ip()
        && address.is_unicast_link_local()
    {
        header.scope = AddressScope::Link;
    }
    if nodad {
        header.flags = AddressHeaderFlags::Nodad;
        message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
    }
    message.attributes.push(AddressAttribute::Local(network.ip()));
    message.attributes.push(AddressAttribute::Address(network.ip()));
    message
}

/// Reads `RTM_NEWADDR` or `RTM_DELADDR`.
pub fn parse_address(payload: &[u8]) -> Option<Address> {
    let message = AddressMessage::parse(payload).ok()?;
    let (mut local, mut remote) = (None, None);
    let mut tentative = message.header.flags.contains(AddressHeaderFlags::Tentative);
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(address) => local = Some(*address),
            AddressAttribute::Address(address) => remote = Some(*address),
            AddressAttribute::Flags(flags) => tentative |= flags.contains(AddressFlags::Tentative),
            _ => {}
        }
    }
    let own = local.or(remote)?;
    Some(Address {
        ifindex: message.header.index,
        network: IpNetwork::new(own, message.header.prefix_len).ok()?,
        peer: remote.filter(|remote| *remote != own),
        global: message.header.scope == AddressScope::Universe,
        tentative,
    })
}

/// `RTM_NEWNEIGH` (permanent), `RTM_DELNEIGH`.
pub fn neighbour(ifindex: u32, address: IpAddr, mac: Option<Mac>) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = family_of(Family::of(&address));
    message.header.ifindex = ifindex;
    message.attributes.push(NeighbourAttribute::Destination(NeighbourAddress::from(address)));
    if let Some(mac) = mac {
        message.header.state = NeighbourState::Permanent;
        message.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.0.to_vec()));
    }
    message
}

/// Reads `RTM_NEWNEIGH` or `RTM_DELNEIGH`.
pub fn parse_neighbour(payload: &[u8]) -> Option<Neighbour> {
    let message = NeighbourMessage::parse(payload).ok()?;
    let (mut address, mut mac) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(to)) => address = Some(IpAddr::V4(*to)),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(to)) => address = Some(IpAddr::V6(*to)),
            NeighbourAttribute::LinkLayerAddress(bytes) => mac = bytes.as_slice().try_into().ok().map(Mac),
            _ => {}
        }
    }
    Some(Neighbour {
        ifindex: message.header.ifindex,
        address: address?,
        mac,
        permanent: message.header.state == NeighbourState::Permanent,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Attributes of kinds that mean something, with values of lengths that may or may not fit.
    fn attributes() -> impl Strategy<Value = Vec<u8>> {
        let attribute = (0..36_u16, prop::collection::vec(any::<u8>(), 0..24));
        prop::collection::vec(attribute, 0..8).prop_map(|attributes| {
            let mut bytes = Vec::new();
            for (kind, value) in attributes {
                crate::attribute::put(&mut bytes, kind, &value);
            }
            bytes
        })
    }

    proptest! {
        #[test]
        fn whatever_comes_is_read_without_harm(
            family in prop::sample::select(vec![2_u8, 10, 7, 0]),
            mut header in prop::collection::vec(any::<u8>(), 0..20),
            attributes in attributes(),
            cut in 0..300_usize,
        ) {
            if let Some(first) = header.first_mut() {
                *first = family;
            }
            for length in [8, 12, 16] {
                let mut payload = header.clone();
                payload.resize(length, 0);
                payload.extend_from_slice(&attributes);
                payload.truncate(cut);
                let route = route::parse(&payload);
                if let Some(route) = route {
                    prop_assert!(route.next_hops.is_sorted());
                }
                nexthop::parse(&payload);
                tunnel::parse_fdb(&payload);
                parse_link(&payload);
                parse_address(&payload);
                parse_neighbour(&payload);
            }
            for kind in ["vxlan", "ipip"] {
                tunnel::parse(kind, &attributes);
            }
        }
    }
}
