//! Two network namespaces with a veth pair between them, for the tests against the real kernel. Needs root.

use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};

use causeway_kernel::{Kernel, LinkChange, Mac, Netlink, VethPair, netns};
use ipnetwork::IpNetwork;

pub const HOST_MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);
pub const PEER_MAC: Mac = Mac([2, 0, 0, 0, 0, 2]);

pub fn network(text: &str) -> IpNetwork {
    text.parse().unwrap()
}

pub fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub fn up() -> LinkChange {
    LinkChange { up: Some(true), ..LinkChange::default() }
}

pub fn down() -> LinkChange {
    LinkChange { up: Some(false), ..LinkChange::default() }
}

/// Two namespaces with a veth pair, both ends up, 192.0.2.1/24 and 2001:db8::1/64 on the first.
pub struct Pair {
    pub host: Netlink,
    pub peer: Netlink,
    pub host_ns: OwnedFd,
    pub peer_ns: OwnedFd,
    pub ifindex: u32,
    pub peer_ifindex: u32,
}

pub fn pair() -> Pair {
    let host_ns = netns::create().expect("a network namespace (needs root)");
    let peer_ns = netns::create().unwrap();
    let mut host = Netlink::open_in(host_ns.as_fd()).unwrap();
    let mut peer = Netlink::open_in(peer_ns.as_fd()).unwrap();
    host.add_veth(&VethPair {
        name: "up0",
        mac: HOST_MAC,
        peer_name: "eth0",
        peer_mac: PEER_MAC,
        peer_netns: Some(peer_ns.as_fd()),
        mtu: 1400,
    })
    .unwrap();
    let ifindex = host.link_by_name("up0").unwrap().unwrap().index;
    let peer_ifindex = peer.link_by_name("eth0").unwrap().unwrap().index;
    host.set_link(ifindex, &up()).unwrap();
    peer.set_link(peer_ifindex, &up()).unwrap();
    host.add_address(ifindex, network("192.0.2.1/24"), false).unwrap();
    host.add_address(ifindex, network("2001:db8::1/64"), true).unwrap();
    Pair { host, peer, host_ns, peer_ns, ifindex, peer_ifindex }
}
