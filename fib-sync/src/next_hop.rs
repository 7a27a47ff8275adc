//! Where a BGP next hop is: resolution in the main table. Pure.
//!
//! It works on a dump and not by asking the kernel (`RTM_GETROUTE`): a next hop that resolves through a route that
//! itself had to be resolved can be a loop, and the kernel does not know which of our routes those are. What counts:
//!
//! 1. the routes of others, the default route included;
//! 2. of ours the *direct* ones, all next hops of which lie in connected subnets: what a ToR says about the other
//!    racks' subnets leads to the nodes there. Recursive ones never count, so that a resolution is one step deep;
//! 3. after a restart of fib-sync, ours that the kernel still has and nobody has claimed yet, so that next hops stay
//!    where they were until bgpd's snapshot is complete.
//!
//! A route through a link that is not up does not count, whether its carrier went or its administrator set it down:
//! then the next best one counts, as if the route were gone.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::rc::Rc;

use causeway_api::fib;
use causeway_kernel::{Address, Family, Link, NextHop, RouteKey, RouteKind};
use ipnetwork::IpNetwork;

/// How a next hop is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Resolution {
    /// Not at all.
    Unreachable,
    /// On the link.
    Connected {
        /// The device.
        ifindex: u32,
    },
    /// Through a router; where there are several, the first.
    Gateway {
        /// The router.
        gateway: IpAddr,
        /// The device.
        ifindex: u32,
        /// Metric of the route.
        metric: u32,
    },
}

/// A route as far as resolution needs it: its metric and next hops (none: it leads nowhere).
type Entry = (u32, Rc<[NextHop]>);

/// The routes of ours that count: looked up where they are kept, not copied.
pub trait Ours {
    /// The prefix lengths that occur in a family, longest first.
    fn lengths(&self, family: Family) -> Vec<u8>;
    /// The route of ours at a prefix, if it counts: its metric and next hops.
    fn route(&self, prefix: &IpNetwork) -> Option<(u32, Vec<NextHop>)>;
}

/// The routes of others and the state of the links.
#[derive(Debug, Default)]
pub struct Table {
    others: HashMap<IpNetwork, Vec<Entry>>,
    /// Prefix lengths that occur among them, by family.
    lengths: [BTreeSet<u8>; 2],
    up: BTreeSet<u32>,
    own: BTreeSet<IpAddr>,
}

impl Table {
    /// Takes the state of the links and this node's addresses.
    pub fn set_links(&mut self, links: &[Link], addresses: &[Address]) {
        self.up = links.iter().filter(|link| link.up()).map(|link| link.index).collect();
        self.own = addresses.iter().map(|address| address.network.ip()).collect();
    }

    /// Takes the routes of others out of a newer table.
    pub fn set_others(&mut self, newer: Table) {
        self.others = newer.others;
        self.lengths = newer.lengths;
    }

    /// Adds a route of somebody else. One with a type of service is not for all packets and does not count.
    pub fn add(&mut self, key: &RouteKey, kind: RouteKind, hops: &Rc<[NextHop]>) {
        if key.tos != 0 {
            return;
        }
        self.lengths[index_of(&key.destination)].insert(key.destination.prefix());
        // One that leads nowhere on purpose has no next hops.
        let hops = if kind == RouteKind::Unicast { Rc::clone(hops) } else { Rc::from([]) };
        self.others.entry(key.destination).or_default().push((key.metric, hops));
    }

    /// The live next hops of the route for an address.
    fn look_up(&self, address: IpAddr, ours: &impl Ours) -> Option<(u32, Vec<NextHop>)> {
        let family = Family::of(&address);
        let mut lengths = self.lengths[index(family)].clone();
        lengths.extend(ours.lengths(family));
        for length in lengths.into_iter().rev() {
            let Some(destination) = truncate(address, length) else { continue };
            let others = self.others.get(&destination).map(Vec::as_slice).unwrap_or_default();
            let others = others.iter().filter_map(|(metric, hops)| self.live(*metric, hops));
            let ours = ours.route(&destination).and_then(|(metric, hops)| self.live(metric, &hops));
            if let Some(best) = others.chain(ours).min_by_key(|(metric, _)| *metric) {
                return Some(best);
            }
        }
        None
    }

    /// A route with a live next hop, or one that leads nowhere on purpose.
    fn live(&self, metric: u32, hops: &[NextHop]) -> Option<(u32, Vec<NextHop>)> {
        let live: Vec<NextHop> = hops.iter().filter(|hop| self.up.contains(&hop.ifindex)).copied().collect();
        (hops.is_empty() || !live.is_empty()).then_some((metric, live))
    }

    /// What kind of next hop it is where no look-up is needed.
    fn without_look_up(&self, next_hop: &fib::NextHop) -> Option<Resolution> {
        let address = next_hop.address;
        if self.own.contains(&address) {
            // A route to ourselves through ourselves.
            return Some(Resolution::Unreachable);
        }
        if next_hop.scope != 0 {
            return Some(match self.up.contains(&next_hop.scope) {
                true => Resolution::Connected { ifindex: next_hop.scope },
                false => Resolution::Unreachable,
            });
        }
        // Every link has fe80::/64; without its scope the address means nothing.
        matches!(address, IpAddr::V6(address) if address.is_unicast_link_local())
            .then_some(Resolution::Unreachable)
    }

    /// Resolves a next hop.
    pub fn resolve(&self, next_hop: &fib::NextHop, ours: &impl Ours) -> Resolution {
        if let Some(resolution) = self.without_look_up(next_hop) {
            return resolution;
        }
        let found = self.look_up(next_hop.address, ours);
        match found.and_then(|(metric, hops)| Some((metric, *hops.first()?))) {
            None => Resolution::Unreachable,
            Some((_, NextHop { gateway: None, ifindex, .. })) => Resolution::Connected { ifindex },
            Some((metric, NextHop { gateway: Some(gateway), ifindex, .. })) => {
                Resolution::Gateway { gateway, ifindex, metric }
            }
        }
    }

    /// The routers and devices that lead to a next hop, all of them.
    pub fn ways(&self, next_hop: &fib::NextHop, ours: &impl Ours) -> Vec<(IpAddr, u32)> {
        let address = next_hop.address;
        match self.without_look_up(next_hop) {
            Some(Resolution::Connected { ifindex }) => vec![(address, ifindex)],
            Some(_) => Vec::new(),
            None => {
                let hops = self.look_up(address, ours).map(|(_, hops)| hops).unwrap_or_default();
                hops.iter().map(|hop| (hop.gateway.unwrap_or(address), hop.ifindex)).collect()
            }
        }
    }
}

fn index(family: Family) -> usize {
    match family {
        Family::Ipv4 => 0,
        Family::Ipv6 => 1,
    }
}

fn index_of(prefix: &IpNetwork) -> usize {
    index(Family::of(&prefix.ip()))
}

fn truncate(address: IpAddr, length: u8) -> Option<IpNetwork> {
    let network = IpNetwork::new(address, length).ok()?;
    IpNetwork::new(network.network(), length).ok()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use causeway_kernel::Route;

    use super::*;

    #[derive(Default)]
    struct Mine(BTreeMap<IpNetwork, (u32, Vec<NextHop>)>);

    impl Ours for Mine {
        fn lengths(&self, family: Family) -> Vec<u8> {
            self.0.keys().filter(|key| Family::of(&key.ip()) == family).map(IpNetwork::prefix).collect()
        }

        fn route(&self, prefix: &IpNetwork) -> Option<(u32, Vec<NextHop>)> {
            self.0.get(prefix).cloned()
        }
    }

    fn link(index: u32, up: bool) -> Link {
        Link {
            index,
            name: format!("eth{index}"),
            admin_up: true,
            running: up,
            loopback: false,
            mtu: 1500,
            mac: None,
            kind: None,
            peer: None,
            tunnel: None,
        }
    }

    fn route(destination: &str, metric: u32, hops: &[NextHop]) -> Route {
        let route = Route::unicast(destination.parse().unwrap(), hops.to_vec());
        Route { key: RouteKey { metric, ..route.key }, protocol: 2, ..route }
    }

    fn table(routes: &[Route], links: &[Link], addresses: &[Address]) -> Table {
        let mut newer = Table::default();
        for route in routes {
            newer.add(&route.key, route.kind, &Rc::from(route.next_hops.as_slice()));
        }
        let mut table = Table::default();
        table.set_links(links, addresses);
        table.set_others(newer);
        table
    }

    fn to(gateway: &str, ifindex: u32) -> NextHop {
        NextHop::gateway(gateway.parse().unwrap(), ifindex)
    }

    fn resolve(table: &Table, mine: &Mine, address: &str) -> Resolution {
        table.resolve(&fib::NextHop::global(address.parse().unwrap()), mine)
    }

    fn through(gateway: &str, ifindex: u32, metric: u32) -> Resolution {
        Resolution::Gateway { gateway: gateway.parse().unwrap(), ifindex, metric }
    }

    #[test]
    fn the_longest_live_route_of_least_metric_wins() {
        let routes = [
            route("0.0.0.0/0", 100, &[to("192.0.2.254", 1)]),
            route("0.0.0.0/0", 50, &[to("198.51.100.254", 2)]),
            route("192.0.2.0/24", 0, &[NextHop::device(1)]),
            route("10.0.0.0/8", 20, &[to("192.0.2.7", 3), to("192.0.2.8", 1)]),
            Route { kind: RouteKind::Unreachable, ..route("10.9.0.0/16", 5, &[]) },
            route("2001:db8::/64", 256, &[NextHop::device(1)]),
            route("::/0", 1024, &[to("fe80::1", 1)]),
        ];
        let address = Address {
            ifindex: 1,
            network: "192.0.2.1/24".parse().unwrap(),
            peer: None,
            global: true,
            tentative: false,
        };
        let none = Mine::default();
        let links = [link(1, true), link(2, true), link(3, false)];
        let mut there = table(&routes, &links, std::slice::from_ref(&address));
        assert_eq!(resolve(&there, &none, "192.0.2.9"), Resolution::Connected { ifindex: 1 });
        assert_eq!(resolve(&there, &none, "192.0.2.1"), Resolution::Unreachable, "its own address");
        assert_eq!(
            resolve(&there, &none, "10.1.1.1"),
            through("192.0.2.8", 1, 20),
            "the hop on the dead link"
        );
        assert_eq!(resolve(&there, &none, "10.9.1.1"), Resolution::Unreachable);
        assert_eq!(resolve(&there, &none, "203.0.113.1"), through("198.51.100.254", 2, 50));
        assert_eq!(resolve(&there, &none, "2001:db8::9"), Resolution::Connected { ifindex: 1 });
        assert_eq!(resolve(&there, &none, "2001:db9::9"), through("fe80::1", 1, 1024));

        // Links go before a dump shows which routes went with them.
        there.set_links(&[link(1, true), link(2, false), link(3, false)], &[]);
        assert_eq!(
            resolve(&there, &none, "203.0.113.1"),
            through("192.0.2.254", 1, 100),
            "the other default route"
        );
        there.set_links(&[], &[]);
        assert_eq!(resolve(&there, &none, "192.0.2.9"), Resolution::Unreachable);
        assert_eq!(resolve(&Table::default(), &none, "192.0.2.9"), Resolution::Unreachable);
    }

    #[test]
    fn routes_of_ours_count_as_others_do() {
        let connected =
            [route("192.0.2.0/24", 0, &[NextHop::device(1)]), route("10.1.0.0/16", 9, &[to("192.0.2.9", 1)])];
        let table = table(&connected, &[link(1, true), link(2, false)], &[]);
        let prefix = |text: &str| text.parse::<IpNetwork>().unwrap();
        let hops = vec![to("192.0.2.2", 1), to("192.0.2.3", 1)];
        let mut mine = Mine(BTreeMap::from([(prefix("10.0.0.0/8"), (1790, hops.clone()))]));
        assert_eq!(resolve(&table, &mine, "10.2.0.1"), through("192.0.2.2", 1, 1790));
        let far = fib::NextHop::global("10.2.0.1".parse().unwrap());
        assert_eq!(
            table.ways(&far, &mine),
            [("192.0.2.2".parse().unwrap(), 1), ("192.0.2.3".parse().unwrap(), 1)]
        );
        // The same prefix of somebody else's has the lower metric, as it has in the kernel.
        mine.0.insert(prefix("10.1.0.0/16"), (1790, hops));
        assert_eq!(resolve(&table, &mine, "10.1.0.1"), through("192.0.2.9", 1, 9));
        mine.0.insert(prefix("10.2.0.0/16"), (1790, vec![to("192.0.2.8", 2)]));
        assert_eq!(resolve(&table, &mine, "10.2.0.1"), through("192.0.2.2", 1, 1790), "that link is down");
    }

    #[test]
    fn a_link_local_next_hop_is_on_the_link_it_came_with() {
        let routes = [route("fe80::/64", 256, &[NextHop::device(1)])];
        let table = table(&routes, &[link(1, true), link(2, false)], &[]);
        let none = Mine::default();
        let at = |scope| fib::NextHop { address: "fe80::9".parse().unwrap(), scope };
        assert_eq!(table.resolve(&at(1), &none), Resolution::Connected { ifindex: 1 });
        assert_eq!(table.resolve(&at(2), &none), Resolution::Unreachable);
        assert_eq!(table.resolve(&at(0), &none), Resolution::Unreachable);
    }
}
