//! Where a BGP next hop is: resolution in the main table. Pure.
//!
//! It works on a dump and not by asking the kernel (`RTM_GETROUTE`), because the kernel would answer with our own
//! learned routes, and a next hop that resolves through a route that depends on it is a loop. The default route
//! counts. A route through a link that is not up does not, whether its carrier went or its administrator set it down:
//! then the next best one counts, as if the route were gone.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

use causeway_api::fib;
use causeway_kernel::{Address, Family, Link, Route, RouteKind};
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
    /// Through a router.
    Gateway {
        /// The router.
        gateway: IpAddr,
        /// The device.
        ifindex: u32,
        /// Metric of the route.
        metric: u32,
    },
}

/// The routes of others and the state of the links, made from one dump.
#[derive(Debug, Default)]
pub struct Table {
    routes: HashMap<IpNetwork, (u32, Resolution)>,
    /// Prefix lengths that occur, by family.
    lengths: [BTreeSet<u8>; 2],
    up: BTreeSet<u32>,
    own: BTreeSet<IpAddr>,
}

impl Table {
    /// Takes the main table without our own routes.
    pub fn new<'a>(routes: impl Iterator<Item = &'a Route>, links: &[Link], addresses: &[Address]) -> Table {
        let mut table = Table {
            up: links.iter().filter(|link| link.up()).map(|link| link.index).collect(),
            own: addresses.iter().map(|address| address.network.ip()).collect(),
            ..Table::default()
        };
        for route in routes {
            let resolution = match route.kind {
                RouteKind::Unicast => {
                    let hop = route.next_hops.iter().find(|hop| table.up.contains(&hop.ifindex));
                    match hop {
                        None => continue,
                        Some(hop) => match hop.gateway {
                            None => Resolution::Connected { ifindex: hop.ifindex },
                            Some(gateway) => Resolution::Gateway {
                                gateway,
                                ifindex: hop.ifindex,
                                metric: route.key.metric,
                            },
                        },
                    }
                }
                _ => Resolution::Unreachable,
            };
            let best =
                table.routes.entry(route.key.destination).or_insert((u32::MAX, Resolution::Unreachable));
            if route.key.tos == 0 && route.key.metric < best.0 {
                *best = (route.key.metric, resolution);
            }
            table.lengths[index(route.key.family())].insert(route.key.destination.prefix());
        }
        table
    }

    /// Resolves a next hop.
    pub fn resolve(&self, next_hop: &fib::NextHop) -> Resolution {
        let address = next_hop.address;
        if self.own.contains(&address) {
            // A route to ourselves through ourselves.
            return Resolution::Unreachable;
        }
        if next_hop.scope != 0 {
            return match self.up.contains(&next_hop.scope) {
                true => Resolution::Connected { ifindex: next_hop.scope },
                false => Resolution::Unreachable,
            };
        }
        if matches!(address, IpAddr::V6(address) if address.is_unicast_link_local()) {
            // Every link has fe80::/64; without its scope the address means nothing.
            return Resolution::Unreachable;
        }
        for length in self.lengths[index(Family::of(&address))].iter().rev() {
            let Some(destination) = truncate(address, *length) else { continue };
            if let Some((_, resolution)) = self.routes.get(&destination) {
                return *resolution;
            }
        }
        Resolution::Unreachable
    }
}

fn index(family: Family) -> usize {
    match family {
        Family::Ipv4 => 0,
        Family::Ipv6 => 1,
    }
}

fn truncate(address: IpAddr, length: u8) -> Option<IpNetwork> {
    let network = IpNetwork::new(address, length).ok()?;
    IpNetwork::new(network.network(), length).ok()
}

#[cfg(test)]
mod tests {
    use causeway_kernel::{NextHop, RouteKey};

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
        let table = Table::new(routes.iter(), &links, std::slice::from_ref(&address));
        assert_eq!(resolve(&table, "192.0.2.9"), Resolution::Connected { ifindex: 1 });
        assert_eq!(resolve(&table, "192.0.2.1"), Resolution::Unreachable, "its own address");
        assert_eq!(resolve(&table, "10.1.1.1"), through("192.0.2.8", 1, 20), "the hop on the dead link");
        assert_eq!(resolve(&table, "10.9.1.1"), Resolution::Unreachable);
        assert_eq!(resolve(&table, "203.0.113.1"), through("198.51.100.254", 2, 50));
        assert_eq!(resolve(&table, "2001:db8::9"), Resolution::Connected { ifindex: 1 });
        assert_eq!(resolve(&table, "2001:db9::9"), through("fe80::1", 1, 1024));

        let links = [link(1, true), link(2, false), link(3, false)];
        let table = Table::new(routes.iter(), &links, &[]);
        assert_eq!(resolve(&table, "203.0.113.1"), through("192.0.2.254", 1, 100), "the other default route");
        let table = Table::new(routes.iter(), &[], &[]);
        assert_eq!(resolve(&table, "192.0.2.9"), Resolution::Unreachable);
        assert_eq!(resolve(&Table::default(), "192.0.2.9"), Resolution::Unreachable);
    }

    #[test]
    fn a_link_local_next_hop_is_on_the_link_it_came_with() {
        let routes = [route("fe80::/64", 256, &[NextHop::device(1)])];
        let table = Table::new(routes.iter(), &[link(1, true), link(2, false)], &[]);
        let at = |scope| fib::NextHop { address: "fe80::9".parse().unwrap(), scope };
        assert_eq!(table.resolve(&at(1)), Resolution::Connected { ifindex: 1 });
        assert_eq!(table.resolve(&at(2)), Resolution::Unreachable);
        assert_eq!(table.resolve(&at(0)), Resolution::Unreachable);
    }
}
