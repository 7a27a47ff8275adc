//! What is on the wire: packets as the interfaces of a node see them, with what tunnels they are in.
//!
//! [`Capture`] is a packet socket in a node's network, open from the moment it is made; [`parse`] is pure. Knows IP-in-IP
//! (RFC 2003, RFC 2473) and VXLAN (RFC 7348) in either family, no fragments and no IPv6 extension headers.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, OwnedFd};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, LinkAddr, SockFlag, SockProtocol, SockType, recvfrom, setsockopt, socket, sockopt,
};

use crate::lab::Lab;

/// Packets the socket may hold, in bytes.
const ROOM: usize = 64 << 20;

/// UDP port of VXLAN.
const VXLAN_PORT: u16 = 4789;

/// How a packet is carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Carried {
    /// As it is.
    Native,
    /// Inside IPv4 or IPv6.
    InIp,
    /// Inside VXLAN with this network identifier.
    InVxlan(u32),
}

/// A packet on the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    /// Name of the interface it was seen at.
    pub interface: String,
    /// Seen on its way out.
    pub outgoing: bool,
    /// What its headers say.
    pub headers: Headers,
}

/// The addresses of a packet, and what it is carried in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Headers {
    /// How it is carried.
    pub carried: Carried,
    /// Source and destination of the outermost header.
    pub outer: (IpAddr, IpAddr),
    /// Source and destination of the innermost header; those of the outermost for a native packet.
    pub inner: (IpAddr, IpAddr),
    /// Protocol inside the innermost header.
    pub protocol: u8,
    /// Length of the outermost packet by its header, bytes.
    pub length: usize,
}

/// A packet socket in a node's network, on all its interfaces.
#[derive(Debug)]
pub struct Capture {
    socket: OwnedFd,
    /// Names by index.
    interfaces: Vec<(usize, String)>,
}

impl Lab {
    /// Starts to capture in a node or pod.
    ///
    /// # Errors
    /// Where there is no such place.
    pub fn capture(&self, place: &str) -> Result<Capture> {
        let namespaces = self.namespaces(place)?;
        let listed = self.json(place, &["ip", "-j", "link", "show"])?;
        let interfaces = listed.as_array().map(Vec::as_slice).unwrap_or_default();
        let interfaces = interfaces
            .iter()
            .filter_map(|link| {
                let index = usize::try_from(link["ifindex"].as_u64()?).ok()?;
                Some((index, link["ifname"].as_str()?.to_owned()))
            })
            .collect();
        let socket = namespaces
            .in_network(|| {
                let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
                // Without link header, which differs between devices.
                let socket = socket(AddressFamily::Packet, SockType::Datagram, flags, SockProtocol::EthAll)?;
                setsockopt(&socket, sockopt::RcvBufForce, &ROOM)?;
                Ok(socket)
            })
            .with_context(|| format!("capturing in {place}"))?;
        Ok(Capture { socket, interfaces })
    }
}

impl Capture {
    /// All IP packets seen since the last call, or since the start.
    ///
    /// # Errors
    /// Where the socket fails.
    pub fn packets(&mut self) -> Result<Vec<Packet>> {
        let mut packets = Vec::new();
        let mut bytes = vec![0u8; 1 << 17];
        loop {
            let (length, from) = match self.receive(&mut bytes) {
                Ok(received) => received,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(packets),
                Err(error) => return Err(error).context("capturing"),
            };
            let name = self.interfaces.iter().find(|(index, _)| *index == from.ifindex());
            let headers = bytes.get(..length).and_then(parse);
            if let (Some((_, name)), Some(headers)) = (name, headers) {
                // PACKET_OUTGOING is 4.
                packets.push(Packet { interface: name.clone(), outgoing: from.pkttype() == 4, headers });
            }
        }
    }

    fn receive(&self, bytes: &mut [u8]) -> io::Result<(usize, LinkAddr)> {
        loop {
            match recvfrom::<LinkAddr>(self.socket.as_raw_fd(), bytes) {
                Ok((length, Some(from))) => return Ok((length, from)),
                Ok((_, None)) => return Err(io::Error::other("a packet without a sender")),
                // A device that goes away says so once to every packet socket.
                Err(Errno::EINTR | Errno::ENETDOWN) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Reads an IP packet's headers, and those of what it carries; `None` for anything else.
#[must_use]
pub fn parse(bytes: &[u8]) -> Option<Headers> {
    let outer = ip(bytes)?;
    let native = Headers {
        carried: Carried::Native,
        outer: outer.addresses,
        inner: outer.addresses,
        protocol: outer.protocol,
        length: outer.length,
    };
    let carried = match outer.protocol {
        4 | 41 => Some((Carried::InIp, outer.payload)),
        17 => vxlan(outer.payload),
        _ => None,
    };
    let Some((carried, payload)) = carried else { return Some(native) };
    // Neighbour discovery inside a tunnel and the like is not what anybody looks for: it is left as the outer packet.
    let Some(inner) = ip(payload) else { return Some(native) };
    Some(Headers { carried, inner: inner.addresses, protocol: inner.protocol, ..native })
}

struct Ip<'a> {
    addresses: (IpAddr, IpAddr),
    protocol: u8,
    length: usize,
    payload: &'a [u8],
}

fn ip(bytes: &[u8]) -> Option<Ip<'_>> {
    match bytes.first()? >> 4 {
        4 => {
            let header = usize::from(bytes[0] & 15) * 4;
            let address = |at: usize| -> Option<IpAddr> {
                let octets: [u8; 4] = bytes.get(at..at + 4)?.try_into().ok()?;
                Some(Ipv4Addr::from(octets).into())
            };
            Some(Ip {
                addresses: (address(12)?, address(16)?),
                protocol: *bytes.get(9)?,
                length: usize::from(u16::from_be_bytes([*bytes.get(2)?, *bytes.get(3)?])),
                payload: bytes.get(header..)?,
            })
        }
        6 => {
            let address = |at: usize| -> Option<IpAddr> {
                let octets: [u8; 16] = bytes.get(at..at + 16)?.try_into().ok()?;
                Some(Ipv6Addr::from(octets).into())
            };
            Some(Ip {
                addresses: (address(8)?, address(24)?),
                protocol: *bytes.get(6)?,
                length: usize::from(u16::from_be_bytes([*bytes.get(4)?, *bytes.get(5)?])) + 40,
                payload: bytes.get(40..)?,
            })
        }
        _ => None,
    }
}

/// The IP packet in a VXLAN packet, from the UDP header on.
fn vxlan(udp: &[u8]) -> Option<(Carried, &[u8])> {
    let port = u16::from_be_bytes([*udp.get(2)?, *udp.get(3)?]);
    let vni = u32::from_be_bytes([0, *udp.get(12)?, *udp.get(13)?, *udp.get(14)?]);
    // 8 of UDP, 8 of VXLAN, 14 of Ethernet.
    (port == VXLAN_PORT).then_some(())?;
    Some((Carried::InVxlan(vni), udp.get(30..)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ipv4(protocol: u8, from: [u8; 4], to: [u8; 4], payload: &[u8]) -> Vec<u8> {
        let length = (20 + payload.len()) as u16;
        let mut bytes = vec![0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, protocol, 0, 0];
        bytes[2..4].copy_from_slice(&length.to_be_bytes());
        bytes.extend(from.into_iter().chain(to).chain(payload.iter().copied()));
        bytes
    }

    fn ipv6(protocol: u8, from: Ipv6Addr, to: Ipv6Addr, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0x60, 0, 0, 0, 0, 0, protocol, 64];
        bytes[4..6].copy_from_slice(&(payload.len() as u16).to_be_bytes());
        bytes.extend(from.octets().into_iter().chain(to.octets()).chain(payload.iter().copied()));
        bytes
    }

    fn in_vxlan(vni: u8, inner: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0x80, 0, 0x12, 0xb5, 0, 0, 0, 0];
        bytes.extend([8, 0, 0, 0, 0, 0, vni, 0]);
        bytes.extend([0; 14]);
        bytes.extend(inner);
        bytes
    }

    #[test]
    fn what_carries_a_packet_is_seen() {
        let pods: (IpAddr, IpAddr) = ("10.244.1.1".parse().unwrap(), "10.244.2.1".parse().unwrap());
        let nodes: (IpAddr, IpAddr) = ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
        let inner = ipv4(1, [10, 244, 1, 1], [10, 244, 2, 1], b"ping");
        let native = parse(&inner).unwrap();
        assert_eq!((native.carried, native.outer, native.inner), (Carried::Native, pods, pods));
        assert_eq!((native.protocol, native.length), (1, 24));

        let tunnel = parse(&ipv4(4, [192, 0, 2, 1], [192, 0, 2, 2], &inner)).unwrap();
        assert_eq!((tunnel.carried, tunnel.outer, tunnel.inner), (Carried::InIp, nodes, pods));
        assert_eq!((tunnel.protocol, tunnel.length), (1, 44));

        let tunnel = parse(&ipv4(17, [192, 0, 2, 1], [192, 0, 2, 2], &in_vxlan(7, &inner))).unwrap();
        assert_eq!((tunnel.carried, tunnel.outer, tunnel.inner), (Carried::InVxlan(7), nodes, pods));
    }

    #[test]
    fn either_family_is_seen_in_either() {
        let (a, b): (Ipv6Addr, Ipv6Addr) = ("fd00::1".parse().unwrap(), "fd00::2".parse().unwrap());
        let (c, d): (Ipv6Addr, Ipv6Addr) = ("2001:db8::1".parse().unwrap(), "2001:db8::2".parse().unwrap());
        let inner = ipv6(58, a, b, b"ping");
        for outer in [ipv6(41, c, d, &inner), ipv6(17, c, d, &in_vxlan(9, &inner))] {
            let headers = parse(&outer).unwrap();
            assert_ne!(headers.carried, Carried::Native);
            assert_eq!((headers.outer, headers.inner), ((c.into(), d.into()), (a.into(), b.into())));
            assert_eq!((headers.protocol, headers.length), (58, outer.len()));
        }
        let ipv4_inside = parse(&ipv6(4, c, d, &ipv4(1, [10, 0, 0, 1], [10, 0, 0, 2], b""))).unwrap();
        assert_eq!(ipv4_inside.inner.1, "10.0.0.2".parse::<IpAddr>().unwrap());
    }

    #[test]
    fn other_traffic_and_cut_packets_are_no_tunnels() {
        let dns = ipv4(17, [10, 0, 0, 1], [10, 0, 0, 2], &[0, 53, 0, 53, 0, 8, 0, 0]);
        assert_eq!(parse(&dns).unwrap().carried, Carried::Native);
        let whole = ipv4(17, [10, 0, 0, 1], [10, 0, 0, 2], &in_vxlan(1, &ipv4(1, [1; 4], [2; 4], b"")));
        for length in 0..whole.len() {
            assert!(
                parse(&whole[..length]).is_none_or(|headers| headers.carried == Carried::Native),
                "{length}"
            );
        }
        assert_eq!(parse(&[0x12, 0, 0]), None);
    }
}
