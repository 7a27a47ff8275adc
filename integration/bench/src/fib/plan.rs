//! Which routes there are and where they lead. Pure.
//!
//! A node with two links, each with a router at its far end. IPv4 routes are /24s from 16.0.0.0 upwards, IPv6 routes /64s of
//! fd10::/16; the number of a route is in its prefix, so that what arrives can be counted off without a table.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use clap::ValueEnum;
use ipnetwork::{IpNetwork, Ipv4Network};
use serde::{Deserialize, Serialize};

/// Names of the node's links, and of their far ends.
pub const LINKS: [(&str, &str); 2] = [("up0", "far0"), ("up1", "far1")];
/// The node's addresses, by link, with the length of the subnet.
pub const NODE: [[&str; 2]; 2] = [["192.0.2.1/24", "fdaa:a::1/64"], ["198.51.100.1/24", "fdaa:b::1/64"]];
/// The routers' addresses, by link.
pub const ROUTERS: [[&str; 2]; 2] = [["192.0.2.2/24", "fdaa:a::2/64"], ["198.51.100.2/24", "fdaa:b::2/64"]];
/// Where the node's BGP speaker listens, its identifier.
pub const SPEAKER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// The second address of the speaker, on the second link.
pub const SPEAKER_TOO: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
/// The speaker's AS.
pub const SPEAKER_AS: u32 = 65000;
/// What the pools of the node's documents hold: all routes of a plan.
pub const POOLS: [&str; 2] = ["16.0.0.0/4", "fd10::/16"];

const V4_BASE: u32 = 0x1000_0000;
const V6_BASE: u128 = 0xfd10 << 112;

/// An address family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// A number of routes of one family; at most a million.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// Their family.
    pub family: Family,
    /// How many.
    pub routes: usize,
}

impl Plan {
    /// The `number`th prefix.
    #[must_use]
    pub fn prefix(&self, number: usize) -> IpNetwork {
        let (network, length) = match self.family {
            Family::V4 => (IpAddr::from(Ipv4Addr::from(self.network_v4(number))), 24),
            Family::V6 => (IpAddr::from(Ipv6Addr::from(V6_BASE | (number as u128) << 64)), 64),
        };
        IpNetwork::new(network, length).unwrap_or(HOST)
    }

    /// The network of the `number`th prefix as the BGP generator counts it; IPv4 only.
    #[must_use]
    pub fn network_v4(&self, number: usize) -> u32 {
        V4_BASE + ((number as u32) << 8)
    }

    /// Which number has this prefix; `None` where it is none of these.
    #[must_use]
    pub fn number(&self, prefix: &IpNetwork) -> Option<usize> {
        let number = match (prefix, self.family) {
            (IpNetwork::V4(network), Family::V4) if network.prefix() == 24 => {
                u32::from(network.ip()).checked_sub(V4_BASE)? as usize >> 8
            }
            (IpNetwork::V6(network), Family::V6) if network.prefix() == 64 => {
                usize::try_from(u128::from(network.ip()).checked_sub(V6_BASE)? >> 64).ok()?
            }
            _ => return None,
        };
        (number < self.routes).then_some(number)
    }

    /// An address inside the `number`th prefix.
    #[must_use]
    pub fn inside(&self, number: usize) -> IpAddr {
        match self.prefix(number).ip() {
            IpAddr::V4(network) => Ipv4Addr::from(u32::from(network) | 1).into(),
            IpAddr::V6(network) => Ipv6Addr::from(u128::from(network) | 1).into(),
        }
    }

    /// The router at the end of a link.
    #[must_use]
    pub fn router(&self, link: usize) -> IpAddr {
        router(self.family, link)
    }

    /// Some numbers from all over the plan, the first and the last among them.
    #[must_use]
    pub fn samples(&self) -> Vec<usize> {
        let last = self.routes.saturating_sub(1);
        let mut samples: Vec<usize> = (0..=16).map(|part| last * part / 16).collect();
        samples.dedup();
        samples
    }
}

const HOST: IpNetwork = IpNetwork::V4(match Ipv4Network::new_checked(Ipv4Addr::UNSPECIFIED, 32) {
    Some(network) => network,
    None => panic!("a host"),
});

fn router(family: Family, link: usize) -> IpAddr {
    let text = ROUTERS[link][usize::from(family == Family::V6)];
    text.parse::<IpNetwork>().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |network| network.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_has_its_number() {
        for family in [Family::V4, Family::V6] {
            let plan = Plan { family, routes: 1_000_000 };
            for number in [0, 1, 255, 256, 65_536, 999_999] {
                assert_eq!(plan.number(&plan.prefix(number)), Some(number));
                assert!(plan.prefix(number).contains(plan.inside(number)));
                let pool: IpNetwork = POOLS[usize::from(family == Family::V6)].parse().unwrap();
                assert!(pool.contains(plan.inside(number)));
            }
            assert_eq!(plan.number(&plan.prefix(1_000_000)), None);
            assert_eq!(plan.number(&"10.0.0.0/24".parse().unwrap()), None);
        }
        assert_eq!(Plan { family: Family::V4, routes: 2 }.prefix(1).to_string(), "16.0.1.0/24");
        assert_eq!(Plan { family: Family::V6, routes: 2 }.prefix(1).to_string(), "fd10:0:0:1::/64");
    }

    #[test]
    fn samples_are_the_first_the_last_and_some_between() {
        let plan = Plan { family: Family::V4, routes: 100_000 };
        let samples = plan.samples();
        assert_eq!((samples.first(), samples.last(), samples.len()), (Some(&0), Some(&99_999), 17));
        assert_eq!(Plan { routes: 1, ..plan }.samples(), [0]);
    }

    #[test]
    fn routers_are_on_the_links_subnets() {
        for (link, addresses) in NODE.iter().enumerate() {
            for (nth, family) in [Family::V4, Family::V6].into_iter().enumerate() {
                let own: IpNetwork = addresses[nth].parse().unwrap();
                assert!(own.contains(router(family, link)));
            }
        }
    }
}
