//! The node's links as fib-sync sees them: which came up or went down, and which MTU pods get. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use causeway_api::fib;
use causeway_api::pod_store::{MAX_MTU, MIN_MTU};
use causeway_kernel::{Address, Link};
use ipnetwork::IpNetwork;

use crate::config::Config;
use crate::decision::Kind;
use crate::ownership::is_pod_device;

/// The MTU where nothing says which link counts.
const ETHERNET: u32 = 1500;

/// One link with its subnets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// The link.
    pub link: Link,
    /// Its addresses with the lengths of their subnets, sorted.
    pub subnets: Vec<IpNetwork>,
}

/// All links by index.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Interfaces(BTreeMap<u32, Interface>);

impl Interfaces {
    /// Puts the addresses to their links.
    pub fn new(links: &[Link], addresses: &[Address]) -> Interfaces {
        let mut interfaces: BTreeMap<u32, Interface> = links
            .iter()
            .map(|link| (link.index, Interface { link: link.clone(), subnets: Vec::new() }))
            .collect();
        for address in addresses {
            if let Some(interface) = interfaces.get_mut(&address.ifindex) {
                interface.subnets.push(address.network);
            }
        }
        for interface in interfaces.values_mut() {
            interface.subnets.sort_unstable();
        }
        Interfaces(interfaces)
    }

    /// The link of an index.
    pub fn get(&self, index: u32) -> Option<&Link> {
        self.0.get(&index).map(|interface| &interface.link)
    }

    /// All links.
    pub fn links(&self) -> impl Iterator<Item = &Link> {
        self.0.values().map(|interface| &interface.link)
    }

    /// The name of a link, or its index where it is gone.
    pub fn name(&self, index: u32) -> String {
        self.get(index).map_or_else(|| format!("#{index}"), |link| link.name.clone())
    }

    /// The index of a link by name.
    pub fn index(&self, name: &str) -> Option<u32> {
        self.links().find(|link| link.name == name).map(|link| link.index)
    }

    /// Whether the index is the host end of a pod's.
    pub fn is_pod_device(&self, index: u32) -> bool {
        self.get(index).is_some_and(is_pod_device)
    }

    /// Underlay links: not loopback, not a pod's, not ignored.
    pub fn underlay<'a>(&'a self, config: &'a Config) -> impl Iterator<Item = &'a Interface> {
        self.0.values().filter(|interface| {
            let link = &interface.link;
            counts(link) && !config.ignores(&link.name)
        })
    }

    /// The addresses of the loopback device, with their lengths.
    pub fn loopback(&self) -> impl Iterator<Item = IpNetwork> {
        let loopbacks = self.0.values().filter(|interface| interface.link.loopback);
        loopbacks.flat_map(|interface| interface.subnets.iter().copied())
    }

    /// The MTU of the underlay link that holds an address; without one, the least of those that are up.
    pub fn mtu_of(&self, own: IpAddr, config: &Config) -> Option<u32> {
        let holder = self.underlay(config).find(|interface| interface.subnets.iter().any(|s| s.ip() == own));
        let others =
            self.underlay(config).filter(|interface| interface.link.up() && !interface.subnets.is_empty());
        holder
            .map(|interface| interface.link.mtu)
            .or_else(|| others.map(|interface| interface.link.mtu).min())
    }

    /// What bgpd has to know of the way from `before` to here, downs first. Loopback and pods' devices do not count.
    pub fn events(&self, before: &Interfaces) -> Vec<fib::Event> {
        let counts = |interface: &&Interface| counts(&interface.link);
        let mut events = Vec::new();
        for old in before.0.values().filter(counts).filter(|old| old.link.up()) {
            let still = self.0.get(&old.link.index).filter(|now| now.link.up());
            let left = still.map(subnets).unwrap_or_default();
            let lost: Vec<IpNetwork> =
                old.subnets.iter().filter(|subnet| !left.contains(&network(subnet))).copied().collect();
            if !lost.is_empty() {
                events.push(fib::Event::LinkDown(event(&old.link, lost)));
            }
        }
        for new in self.0.values().filter(counts).filter(|new| new.link.up()) {
            let had =
                before.0.get(&new.link.index).filter(|old| old.link.up()).map(subnets).unwrap_or_default();
            if subnets(new).difference(&had).next().is_some() {
                events.push(fib::Event::LinkUp(event(&new.link, new.subnets.clone())));
            }
        }
        events
    }

    /// The MTU for pods and how it was chosen. `used` are the devices learned routes use.
    pub fn pod_mtu(&self, config: &Config, used: &BTreeSet<u32>) -> (u32, String) {
        let used: Vec<&Link> = used.iter().filter_map(|index| self.get(*index)).collect();
        let holders: Vec<&Link> = self
            .underlay(config)
            .filter(|interface| {
                interface
                    .subnets
                    .iter()
                    .any(|subnet| config.addresses.iter().any(|own| own.ip() == subnet.ip()))
            })
            .map(|interface| &interface.link)
            .collect();
        let others: Vec<&Link> = self
            .underlay(config)
            .filter(|interface| interface.link.up() && !interface.subnets.is_empty())
            .map(|interface| &interface.link)
            .collect();
        let choice = smallest(used)
            .map(|link| (link, "carries learned routes"))
            .or_else(|| smallest(holders).map(|link| (link, "holds the node's address")))
            .or_else(|| smallest(others).map(|link| (link, "has the smallest MTU of the links that are up")));
        match choice {
            Some((link, why)) => (link.mtu.clamp(MIN_MTU, MAX_MTU), format!("mtu: {} {why}", link.name)),
            None => (ETHERNET, "mtu: no underlay link is up".to_owned()),
        }
    }
}

/// Neither loopback, nor a pod's, nor a tunnel of ours.
fn counts(link: &Link) -> bool {
    !link.loopback && !is_pod_device(link) && !Kind::ALL.iter().any(|kind| kind.device() == link.name)
}

fn smallest(links: Vec<&Link>) -> Option<&Link> {
    links.into_iter().min_by_key(|link| (link.mtu, link.index))
}

/// The subnets of an interface without this node's host bits.
fn subnets(interface: &Interface) -> BTreeSet<IpNetwork> {
    interface.subnets.iter().map(network).collect()
}

fn network(subnet: &IpNetwork) -> IpNetwork {
    IpNetwork::new(subnet.network(), subnet.prefix()).unwrap_or(*subnet)
}

fn event(link: &Link, subnets: Vec<IpNetwork>) -> fib::Link {
    fib::Link { device: link.name.clone(), ifindex: link.index, subnets }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(index: u32, name: &str, up: bool, mtu: u32) -> Link {
        Link {
            index,
            name: name.to_owned(),
            admin_up: true,
            running: up,
            loopback: name == "lo",
            mtu,
            mac: None,
            kind: None,
            peer: None,
            tunnel: None,
        }
    }

    fn address(ifindex: u32, network: &str) -> Address {
        Address { ifindex, network: network.parse().unwrap(), peer: None, global: true, tentative: false }
    }

    fn down(device: &str, ifindex: u32, subnets: &[&str]) -> fib::Event {
        let subnets = subnets.iter().map(|subnet| subnet.parse().unwrap()).collect();
        fib::Event::LinkDown(fib::Link { device: device.to_owned(), ifindex, subnets })
    }

    fn up(device: &str, ifindex: u32, subnets: &[&str]) -> fib::Event {
        let fib::Event::LinkDown(link) = down(device, ifindex, subnets) else { unreachable!() };
        fib::Event::LinkUp(link)
    }

    #[test]
    fn links_that_go_and_come_are_told_with_their_subnets() {
        let addresses = [address(2, "192.0.2.1/24"), address(2, "2001:db8::1/64"), address(7, "fe80::1/64")];
        let with = |links: &[Link], addresses: &[Address]| Interfaces::new(links, addresses);
        let eth0 = link(2, "eth0", true, 1500);
        let eth0_down = link(2, "eth0", false, 1500);
        let pod = link(7, "cw0123456789ab", true, 1500);
        let all = with(&[link(1, "lo", true, 65536), eth0.clone(), pod.clone()], &addresses);
        assert_eq!(all.events(&Interfaces::default()), [up("eth0", 2, &["192.0.2.1/24", "2001:db8::1/64"])]);
        assert_eq!(all.events(&all), []);
        let carrier_lost = with(std::slice::from_ref(&eth0_down), &addresses);
        assert_eq!(carrier_lost.events(&all), [down("eth0", 2, &["192.0.2.1/24", "2001:db8::1/64"])]);
        assert_eq!(all.events(&carrier_lost), [up("eth0", 2, &["192.0.2.1/24", "2001:db8::1/64"])]);
        let gone = with(&[], &[]);
        assert_eq!(gone.events(&all), [down("eth0", 2, &["192.0.2.1/24", "2001:db8::1/64"])]);
        let one_subnet = with(std::slice::from_ref(&eth0), &addresses[..1]);
        assert_eq!(one_subnet.events(&all), [down("eth0", 2, &["2001:db8::1/64"])]);
        let renumbered =
            with(std::slice::from_ref(&eth0), &[address(2, "192.0.2.9/24"), address(2, "2001:db8::1/64")]);
        assert_eq!(renumbered.events(&all), [], "the subnet is still there");
    }

    #[test]
    fn pods_get_the_mtu_of_the_links_that_routes_use() {
        let config = Config {
            addresses: vec!["192.0.2.1/24".parse().unwrap()],
            ignored_interfaces: vec!["docker*".to_owned()],
            ..Config::empty("a")
        };
        let links = [
            link(1, "lo", true, 65536),
            link(2, "eth0", true, 9000),
            link(3, "eth1", true, 1500),
            link(4, "docker0", true, 1200),
            link(5, "eth2", true, 1000),
        ];
        let addresses =
            [address(2, "192.0.2.1/24"), address(3, "198.51.100.1/24"), address(4, "172.17.0.1/16")];
        let all = Interfaces::new(&links, &addresses);
        let mtu = |config: &Config, used: &[u32]| all.pod_mtu(config, &used.iter().copied().collect());
        assert_eq!(mtu(&config, &[2, 3]), (1500, "mtu: eth1 carries learned routes".to_owned()));
        assert_eq!(mtu(&config, &[]), (9000, "mtu: eth0 holds the node's address".to_owned()));
        let nowhere = Config { addresses: Vec::new(), ..config.clone() };
        assert_eq!(
            mtu(&nowhere, &[]),
            (1500, "mtu: eth1 has the smallest MTU of the links that are up".to_owned())
        );
        assert_eq!(
            mtu(&config, &[5]),
            (1280, "mtu: eth2 carries learned routes".to_owned()),
            "IPv6 needs 1280"
        );
        let none = Interfaces::default().pod_mtu(&config, &BTreeSet::new());
        assert_eq!(none, (1500, "mtu: no underlay link is up".to_owned()));
    }
}
