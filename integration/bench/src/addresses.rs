//! Who is who by address. Pure.
//!
//! One subnet, 10.1.0.0/16: the daemon is 10.1.0.1; iBGP peers sit in 10.1.64.0/18, eBGP peers that feed in 10.1.128.0/18, eBGP
//! peers that only look in 10.1.192.0/18. So a daemon can be told of all peers by two ranges, and the relay knows by the address
//! alone what a peer is for.

use std::net::Ipv4Addr;

/// The AS of the daemon and of its iBGP peers.
pub const DAEMON_AS: u32 = 65000;
/// Where the daemon listens, and its identifier.
pub const DAEMON: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 1);
/// The subnet all are on.
pub const SUBNET: &str = "10.1.0.0/16";
/// Range of the iBGP peers.
pub const IBGP_RANGE: &str = "10.1.64.0/18";
/// Range of all eBGP peers.
pub const EBGP_RANGE: &str = "10.1.128.0/17";
/// The port.
pub const PORT: u16 = 179;

/// What a peer is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Inside the daemon's AS.
    Ibgp,
    /// Outside, with paths of its own.
    Ebgp,
    /// Outside, and only receives.
    Monitor,
}

/// A simulated peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// What it is for.
    pub kind: Kind,
    /// Its address, which is also its identifier and next hop.
    pub address: Ipv4Addr,
    /// Its AS.
    pub asn: u32,
}

impl Peer {
    /// The `number`th peer of this kind; at most 16,000 of each.
    #[must_use]
    pub fn new(kind: Kind, number: usize) -> Self {
        let (base, asn) = match kind {
            Kind::Ibgp => (64 << 8, DAEMON_AS),
            Kind::Ebgp => (128 << 8, 70_000 + number as u32),
            Kind::Monitor => (192 << 8, 64900 + number as u32),
        };
        // Neither the first nor the last address of a /24: some software dislikes them.
        let host = base + ((number / 250) << 8 | (number % 250 + 1)) as u32;
        Peer { kind, address: Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 1, 0, 0)) + host), asn }
    }

    /// Outside the daemon's AS.
    #[must_use]
    pub fn is_external(&self) -> bool {
        self.kind != Kind::Ibgp
    }

    /// What the peer with this address is for.
    #[must_use]
    pub fn kind_of(address: Ipv4Addr) -> Kind {
        match address.octets()[2] {
            0..=127 => Kind::Ibgp,
            128..=191 => Kind::Ebgp,
            _ => Kind::Monitor,
        }
    }
}

/// First of the prefixes, all /24.
const FIRST: u32 = 0x1000_0000;

/// The network of a prefix, by its number.
#[must_use]
pub fn network(number: usize) -> u32 {
    FIRST + ((number as u32) << 8)
}

/// The number of a prefix; `None` where it is none of ours. It may be larger than any in use.
#[must_use]
#[inline]
pub fn number(network: u32, length: u8) -> Option<usize> {
    (length == 24 && network >= FIRST).then(|| ((network - FIRST) >> 8) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn peers_have_addresses_of_their_own_that_tell_their_kind() {
        let mut seen = BTreeSet::from([DAEMON]);
        for kind in [Kind::Ibgp, Kind::Ebgp, Kind::Monitor] {
            for number in 0..5000 {
                let peer = Peer::new(kind, number);
                assert!(seen.insert(peer.address), "{peer:?}");
                assert_eq!(Peer::kind_of(peer.address), kind);
            }
        }
    }

    #[test]
    fn prefixes_are_numbered() {
        for at in [0, 1, 999_999, 1_100_000] {
            assert_eq!(number(network(at), 24), Some(at));
        }
        assert_eq!(number(network(3), 25), None);
        assert_eq!(number(0x0a00_0000, 24), None);
    }
}
