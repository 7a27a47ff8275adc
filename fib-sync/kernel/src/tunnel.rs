//! Tunnel devices, and what a VXLAN device needs to know about the other nodes. Pure types.
//!
//! One device serves all nodes: it has no remote of its own, and where a packet goes is said by the route (IP-in-IP:
//! the gateway is the outer destination) or by the neighbour and FDB entries of the route's gateway (VXLAN, RFC 7348
//! without its multicast and without learning). Common to all kinds: time to live 64, the type of service taken over
//! from the inner packet, and no fragments of outer packets (DF set over IPv4), so that a packet too long is answered
//! with the MTU and not cut to pieces.
//!
//! There is no IP-in-IPv6 (`ip6tnl`): Linux refuses an IPv6 gateway that a route through another device leads to, so one
//! device for all nodes would only do where nothing but the default route leads to them.

use std::net::{IpAddr, Ipv4Addr};

use crate::link::{Link, Mac};

/// The kind of a tunnel device with everything that makes two of a kind differ but name, MTU and Ethernet address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TunnelKind {
    /// VXLAN (`vxlan`). Over IPv4 with UDP checksums, which cost nothing (the inner checksum is made use of); over
    /// IPv6 with them as well (RFC 8200 section 8.1), while packets without one (RFC 6935) are taken.
    Vxlan {
        /// Outer source address; its family is the outer family.
        local: IpAddr,
        /// VXLAN network identifier, 24 bits.
        vni: u32,
        /// UDP port.
        port: u16,
    },
    /// IPv4 in IPv4 (`ipip`, RFC 2003).
    Ipip {
        /// Outer source address.
        local: Ipv4Addr,
    },
}

impl TunnelKind {
    /// The kernel's name of the kind (`IFLA_INFO_KIND`).
    pub fn name(&self) -> &'static str {
        match self {
            TunnelKind::Vxlan { .. } => "vxlan",
            TunnelKind::Ipip { .. } => "ipip",
        }
    }

    /// The outer source address.
    pub fn local(&self) -> IpAddr {
        match *self {
            TunnelKind::Vxlan { local, .. } => local,
            TunnelKind::Ipip { local } => IpAddr::V4(local),
        }
    }
}

/// A tunnel device as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tunnel {
    /// Name, at most 15 bytes.
    pub name: String,
    /// Kind.
    pub kind: TunnelKind,
    /// MTU in bytes.
    pub mtu: u32,
    /// Ethernet address; VXLAN only.
    pub mac: Option<Mac>,
}

impl Tunnel {
    /// The link such a device is, up.
    pub fn link(&self, index: u32) -> Link {
        Link {
            index,
            name: self.name.clone(),
            admin_up: true,
            running: true,
            loopback: false,
            mtu: self.mtu,
            mac: self.mac,
            kind: Some(self.kind.name().to_owned()),
            peer: None,
            tunnel: Some(self.kind),
        }
    }
}

/// An FDB entry of a VXLAN device: frames for that Ethernet address go to that node.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FdbEntry {
    /// The device.
    pub ifindex: u32,
    /// The inner destination.
    pub mac: Mac,
    /// The outer destination.
    pub remote: IpAddr,
    /// It never expires.
    pub permanent: bool,
}

/// The Ethernet address of the VXLAN device of the node with that address: locally administered, unicast, the same on
/// every node. Never the same for two IPv4 addresses; for two IPv6 addresses with a chance of 2^-40.
pub fn vtep_mac(address: IpAddr) -> Mac {
    match address {
        IpAddr::V4(address) => {
            let [a, b, c, d] = address.octets();
            Mac([0x02, 0xc4, a, b, c, d])
        }
        IpAddr::V6(address) => {
            // FNV-1a, and a last mixing step: of the sum's bits the high ones are the good ones.
            let sum = address.octets().iter().fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| {
                (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
            });
            let sum = (sum ^ (sum >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
            let [a, b, c, d, e, ..] = sum.to_be_bytes();
            Mac([0x06, a, b, c, d, e])
        }
    }
}

/// The gateway of routes through the VXLAN device to the node with that address: the link-local address that belongs
/// to [`vtep_mac`] (RFC 4291 appendix A). It takes the node's own address's place because Linux refuses an IPv6
/// gateway, `onlink` or not, which a route through another device leads to; it serves IPv4 routes (RFC 8950) as well.
pub fn vtep_gateway(address: IpAddr) -> IpAddr {
    let [a, b, c, d, e, f] = vtep_mac(address).0;
    let mut octets = [0; 16];
    octets[..2].copy_from_slice(&[0xfe, 0x80]);
    octets[8..].copy_from_slice(&[a ^ 0x02, b, c, 0xff, 0xfe, d, e, f]);
    IpAddr::from(octets)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_node_gets_an_address_of_its_own() {
        let v4 = (0..=u16::MAX).map(|n| IpAddr::from([10, 0, (n >> 8) as u8, n as u8]));
        let v6 = (0..=u16::MAX).map(|n| IpAddr::from([0x2001, 0xdb8, 0, n, 0, 0, 0, 1]));
        let neighbours = (0..=u16::MAX).map(|n| IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 1, n]));
        let mut seen = HashSet::new();
        for address in v4.chain(v6).chain(neighbours) {
            let mac = vtep_mac(address);
            assert_eq!(mac.0[0] & 0x03, 0x02, "{mac} is not locally administered and unicast");
            seen.insert(mac);
        }
        assert_eq!(seen.len(), 3 * 65536);
    }

    #[test]
    fn the_numbers_are_part_of_the_protocol_between_nodes() {
        assert_eq!(vtep_mac(IpAddr::from([192, 0, 2, 7])).to_string(), "02:c4:c0:00:02:07");
        let gateway = vtep_gateway(IpAddr::from([192, 0, 2, 7]));
        assert_eq!(gateway.to_string(), "fe80::c4:c0ff:fe00:207");
    }
}
