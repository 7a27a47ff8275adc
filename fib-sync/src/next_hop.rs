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

use causeway_api::fib;
use causeway_kernel::{Address, Family, Link, NextHop, Route, RouteKind};
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

/// A route as far as resolution needs it: its metric and live next hops (none: it leads nowhere).
type Entry = (u32, Vec<NextHop>);

/// The routes that count and the state of the links.
#[derive(Debug, Default)]
pub struct Table {
    others: HashMap<IpNetwork, Entry>,
    direct: HashMap<IpNetwork, Entry>,
    unclaimed: HashMap<IpNetwork, Entry>,
    /// Prefix lengths that occur (or did), by family.
    lengths: [BTreeSet<u8>; 2],
    up: BTreeSet<u32>,
    own: BTreeSet<IpAddr>,
}

impl Table {
    /// Takes the routes of others; keeps the direct ones of ours from the table before.
    pub fn new<'a>(
        routes: impl Iterator<Item = &'a Route>,
        links: &[Link],
        addresses: &[Address],
        before: &mut Table,
    ) -> Table {
        let mut table = Table {
            direct: std::mem::take(&mut before.direct),
            up: links.iter().filter(|link| link.up()).map(|link| link.index).collect(),
            own: addresses.iter().map(|address| address.network.ip()).collect(),
            ..Table::default()
        };
        for prefix in table.direct.keys() {
            table.lengths[index_of(prefix)].insert(prefix.prefix());
        }
        for route in routes.filter(|route| route.key.tos == 0) {
            if let Some(entry) = table.entry(route) {
                let destination = route.key.destination;
                table.lengths[index_of(&destination)].insert(destination.prefix());
                let best = table.others.entry(destination).or_insert_with(|| entry.clone());
                if entry.0 < best.0 {
                    *best = entry;
                }
            }
        }
        table
    }

    /// A unicast route with a live next hop, or one that leads nowhere on purpose.
    fn entry(&self, route: &Route) -> Option<Entry> {
        if route.kind != RouteKind::Unicast {
            return Some((route.key.metric, Vec::new()));
        }
        let live = route.next_hops.iter().filter(|hop| self.up.contains(&hop.ifindex));
        let live: Vec<NextHop> = live.copied().collect();
        (!live.is_empty()).then_some((route.key.metric, live))
    }

    /// Says where a direct route of ours goes, or that there is none (any more); either way the prefix is claimed.
    /// Whether that is news.
    pub fn set_direct(&mut self, prefix: IpNetwork, route: Option<(u32, &[NextHop])>) -> bool {
        let claimed = self.unclaimed.remove(&prefix).is_some();
        match route {
            None => self.direct.remove(&prefix).is_some() || claimed,
            Some((metric, hops)) => {
                let known = self.direct.get(&prefix);
                if known.is_some_and(|(known, through)| *known == metric && through == hops) {
                    return claimed;
                }
                self.lengths[index_of(&prefix)].insert(prefix.prefix());
                self.direct.insert(prefix, (metric, hops.to_vec()));
                true
            }
        }
    }

    /// Replaces the routes of ours nobody has claimed. Whether that is news.
    pub fn set_unclaimed<'a>(&mut self, routes: impl Iterator<Item = &'a Route>) -> bool {
        let routes: HashMap<IpNetwork, Entry> =
            routes.filter_map(|route| Some((route.key.destination, self.entry(route)?))).collect();
        for prefix in routes.keys() {
            self.lengths[index_of(prefix)].insert(prefix.prefix());
        }
        let news = routes != self.unclaimed;
        self.unclaimed = routes;
        news
    }

    /// The route for an address.
    fn look_up(&self, address: IpAddr) -> Option<&Entry> {
        for length in self.lengths[index(Family::of(&address))].iter().rev() {
            let Some(destination) = truncate(address, *length) else { continue };
            let candidates = [&self.others, &self.direct, &self.unclaimed];
            let found = candidates.into_iter().filter_map(|layer| layer.get(&destination));
            if let Some(best) = found.min_by_key(|(metric, _)| *metric) {
                return Some(best);
            }
        }
        None
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
    pub fn resolve(&self, next_hop: &fib::NextHop) -> Resolution {
        if let Some(resolution) = self.without_look_up(next_hop) {
            return resolution;
        }
        match self.look_up(next_hop.address).and_then(|(metric, hops)| Some((*metric, hops.first()?))) {
            None => Resolution::Unreachable,
            Some((_, NextHop { gateway: None, ifindex, .. })) => Resolution::Connected { ifindex: *ifindex },
            Some((metric, NextHop { gateway: Some(gateway), ifindex, .. })) => {
                Resolution::Gateway { gateway: *gateway, ifindex: *ifindex, metric }
            }
        }
    }

    /// The routers and devices that lead to a next hop, all of them.
    pub fn ways(&self, next_hop: &fib::NextHop) -> Vec<(IpAddr, u32)> {
        let address = next_hop.address;
        match self.without_look_up(next_hop) {
            Some(Resolution::Connected { ifindex }) => vec![(address, ifindex)],
            Some(_) => Vec::new(),
            None => {
                let hops = self.look_up(address).map(|(_, hops)| hops.as_slice()).unwrap_or_default();
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
    use causeway_kernel::RouteKey;

    use super::*;

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

    fn to(gateway: &str, ifindex: u32) -> NextHop {
        NextHop::gateway(gateway.parse().unwrap(), ifindex)
    }

    fn resolve(table: &Table, address: &str) -> Resolution {
        table.resolve(&fib::NextHop::global(address.parse().unwrap()))
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
        let links = [link(1, true), link(2, true), link(3, false)];
        let table = Table::new(routes.iter(), &links, std::slice::from_ref(&address), &mut Table::default());
        assert_eq!(resolve(&table, "192.0.2.9"), Resolution::Connected { ifindex: 1 });
        assert_eq!(resolve(&table, "192.0.2.1"), Resolution::Unreachable, "its own address");
        assert_eq!(resolve(&table, "10.1.1.1"), through("192.0.2.8", 1, 20), "the hop on the dead link");
        assert_eq!(resolve(&table, "10.9.1.1"), Resolution::Unreachable);
        assert_eq!(resolve(&table, "203.0.113.1"), through("198.51.100.254", 2, 50));
        assert_eq!(resolve(&table, "2001:db8::9"), Resolution::Connected { ifindex: 1 });
        assert_eq!(resolve(&table, "2001:db9::9"), through("fe80::1", 1, 1024));

        let links = [link(1, true), link(2, false), link(3, false)];
        let table = Table::new(routes.iter(), &links, &[], &mut Table::default());
        assert_eq!(resolve(&table, "203.0.113.1"), through("192.0.2.254", 1, 100), "the other default route");
        let table = Table::new(routes.iter(), &[], &[], &mut Table::default());
        assert_eq!(resolve(&table, "192.0.2.9"), Resolution::Unreachable);
        assert_eq!(resolve(&Table::default(), "192.0.2.9"), Resolution::Unreachable);
    }

    #[test]
    fn our_direct_routes_count_and_so_do_unclaimed_ones() {
        let connected =
            [route("192.0.2.0/24", 0, &[NextHop::device(1)]), route("10.1.0.0/16", 9, &[to("192.0.2.9", 1)])];
        let links = [link(1, true), link(2, false)];
        let mut table = Table::new(connected.iter(), &links, &[], &mut Table::default());
        let prefix = |text: &str| text.parse::<IpNetwork>().unwrap();
        let hops = [to("192.0.2.2", 1), to("192.0.2.3", 1)];
        assert!(table.set_direct(prefix("10.0.0.0/8"), Some((1790, &hops))));
        assert!(!table.set_direct(prefix("10.0.0.0/8"), Some((1790, &hops))));
        assert_eq!(resolve(&table, "10.2.0.1"), through("192.0.2.2", 1, 1790));
        let far = fib::NextHop::global("10.2.0.1".parse().unwrap());
        assert_eq!(table.ways(&far), [("192.0.2.2".parse().unwrap(), 1), ("192.0.2.3".parse().unwrap(), 1)]);
        // The same prefix of somebody else's has the lower metric, as it has in the kernel.
        table.set_direct(prefix("10.1.0.0/16"), Some((1790, &hops)));
        assert_eq!(resolve(&table, "10.1.0.1"), through("192.0.2.9", 1, 9));

        let mut next = Table::new(connected.iter(), &links, &[], &mut table);
        assert_eq!(resolve(&next, "10.2.0.1"), through("192.0.2.2", 1, 1790), "direct routes outlive a dump");
        assert!(next.set_direct(prefix("10.0.0.0/8"), None));
        assert_eq!(resolve(&next, "10.2.0.1"), Resolution::Unreachable);
        let left = [
            route("10.0.0.0/8", 1790, &[to("192.0.2.7", 1)]),
            route("10.2.0.0/16", 1790, &[to("192.0.2.8", 2)]),
        ];
        assert!(next.set_unclaimed(left.iter()));
        assert_eq!(resolve(&next, "10.2.0.1"), through("192.0.2.7", 1, 1790), "the other's link is down");
        assert!(next.set_direct(prefix("10.0.0.0/8"), None), "claimed, and withdrawn");
        assert_eq!(resolve(&next, "10.2.0.1"), Resolution::Unreachable);
        assert!(next.set_unclaimed(left.iter()));
        assert!(next.set_unclaimed([].iter()));
        assert!(!next.set_unclaimed([].iter()));
        assert_eq!(resolve(&next, "10.2.0.1"), Resolution::Unreachable);
    }

    #[test]
    fn a_link_local_next_hop_is_on_the_link_it_came_with() {
        let routes = [route("fe80::/64", 256, &[NextHop::device(1)])];
        let table = Table::new(routes.iter(), &[link(1, true), link(2, false)], &[], &mut Table::default());
        let at = |scope| fib::NextHop { address: "fe80::9".parse().unwrap(), scope };
        assert_eq!(table.resolve(&at(1)), Resolution::Connected { ifindex: 1 });
        assert_eq!(table.resolve(&at(2)), Resolution::Unreachable);
        assert_eq!(table.resolve(&at(0)), Resolution::Unreachable);
    }
}
