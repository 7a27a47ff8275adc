//! One block: which of its addresses pods may have, and the step between address and offset.
//!
//! Pure. The network address of a block is not handed out, and the address after it is kept for the node's own tunnel
//! device; a block of one or two addresses is handed out whole. The last address is one like any other: pods are
//! /32 and /128 routes, there is no broadcast domain that could claim it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;

/// Addresses past this many from the start of a block are never handed out, so that no state grows with an IPv6 /64.
pub const WINDOW: u64 = 65_536;

/// The first offset that pods may have in a block of more than two addresses; 0 is the network address, 1 the tunnel's.
pub const FIRST_OFFSET: u64 = 2;

/// An address family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// The family of an address.
    pub fn of(address: &IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    /// The family of a prefix.
    pub fn of_network(network: &IpNetwork) -> Self {
        if network.is_ipv4() { Self::V4 } else { Self::V6 }
    }
}

impl std::fmt::Display for Family {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

/// The offsets of a block that pods may have: `start..end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usable {
    /// The first one.
    pub start: u64,
    /// One past the last one.
    pub end: u64,
}

impl Usable {
    /// How many.
    pub fn len(&self) -> u64 {
        self.end - self.start
    }

    /// Never for a block.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Which offsets of the block pods may have.
pub fn usable(block: &IpNetwork) -> Usable {
    let host_bits = match block {
        IpNetwork::V4(v4) => 32 - u32::from(v4.prefix()),
        IpNetwork::V6(v6) => 128 - u32::from(v6.prefix()),
    };
    let size = 1_u64.checked_shl(host_bits).filter(|size| *size <= WINDOW).unwrap_or(WINDOW);
    let start = if size <= 2 { 0 } else { FIRST_OFFSET };
    Usable { start, end: size }
}

/// The address kept for the node's own tunnel device; none in a block of one or two addresses.
pub fn tunnel_address(block: &IpNetwork) -> Option<IpAddr> {
    (usable(block).start == FIRST_OFFSET).then(|| address_at(block, FIRST_OFFSET - 1))
}

/// Whether the block keeps the address for itself: its network address and its tunnel address.
pub fn is_reserved(block: &IpNetwork, address: &IpAddr) -> bool {
    usable(block).start == FIRST_OFFSET
        && (0..FIRST_OFFSET).any(|offset| address_at(block, offset) == *address)
}

/// The address at an offset. The offset must lie within the block.
pub fn address_at(block: &IpNetwork, offset: u64) -> IpAddr {
    match block.network() {
        IpAddr::V4(base) => {
            let low = u32::try_from(offset).unwrap_or(u32::MAX);
            IpAddr::V4(Ipv4Addr::from(u32::from(base).wrapping_add(low)))
        }
        IpAddr::V6(base) => IpAddr::V6(Ipv6Addr::from(u128::from(base).wrapping_add(u128::from(offset)))),
    }
}

/// The offset of an address pods may have; `None` when it is outside the block or not for pods.
pub fn offset_of(block: &IpNetwork, address: &IpAddr) -> Option<u64> {
    let offset = match (block.network(), address) {
        (IpAddr::V4(base), IpAddr::V4(address)) => {
            u64::from(u32::from(*address).checked_sub(u32::from(base))?)
        }
        (IpAddr::V6(base), IpAddr::V6(address)) => {
            u64::try_from(u128::from(*address).checked_sub(u128::from(base))?).ok()?
        }
        _ => return None,
    };
    let usable = usable(block);
    (usable.start..usable.end).contains(&offset).then_some(offset)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> IpNetwork {
        text.parse().unwrap()
    }

    #[test]
    fn sizes() {
        for (block, start, end) in [
            ("10.0.0.0/32", 0, 1),
            ("10.0.0.0/31", 0, 2),
            ("10.0.0.0/30", 2, 4),
            ("10.244.1.0/24", 2, 256),
            ("10.0.0.0/8", 2, 65_536),
            ("0.0.0.0/0", 2, 65_536),
            ("fd00::5/128", 0, 1),
            ("fd00::/112", 2, 65_536),
            ("fd00::/64", 2, 65_536),
            ("::/0", 2, 65_536),
        ] {
            assert_eq!(usable(&net(block)), Usable { start, end }, "{block}");
        }
    }

    #[test]
    fn the_network_and_the_tunnel_address_are_not_for_pods() {
        let block = net("10.244.1.0/24");
        assert_eq!(tunnel_address(&block), Some("10.244.1.1".parse().unwrap()));
        assert_eq!(tunnel_address(&net("10.0.0.0/31")), None);
        assert_eq!(offset_of(&block, &"10.244.1.0".parse().unwrap()), None);
        assert_eq!(offset_of(&block, &"10.244.1.1".parse().unwrap()), None);
        assert_eq!(offset_of(&block, &"10.244.1.255".parse().unwrap()), Some(255));
        assert_eq!(offset_of(&block, &"10.244.2.0".parse().unwrap()), None);
        assert_eq!(offset_of(&block, &"10.244.0.255".parse().unwrap()), None);
        assert_eq!(offset_of(&block, &"fd00::2".parse().unwrap()), None);
        assert_eq!(offset_of(&net("fd00::/64"), &"fd00::1:0:0".parse().unwrap()), None);
    }

    #[test]
    fn offsets_and_addresses_are_inverse() {
        for block in ["10.244.1.0/26", "255.255.255.0/24", "fd00:10:244:1::/64", "ffff:ffff::/16"] {
            let block = net(block);
            let usable = usable(&block);
            for offset in [usable.start, usable.start + 1, usable.end - 1] {
                assert_eq!(offset_of(&block, &address_at(&block, offset)), Some(offset), "{block} {offset}");
            }
        }
    }
}
