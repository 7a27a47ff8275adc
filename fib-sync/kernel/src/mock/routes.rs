//! The route tables of the mock.

use std::net::IpAddr;

use nix::errno::Errno;

use super::{MockKernel, refused};
use crate::error::Refusal;
use crate::nexthop::NexthopKind;
use crate::route::{Family, MAIN_TABLE, NextHop, Route, RouteChange, RouteKind};

impl MockKernel {
    pub(super) fn change(&mut self, change: &RouteChange) -> Result<(), Refusal> {
        match change {
            RouteChange::Add(route) => {
                self.check(route)?;
                if self.routes.contains_key(&route.key) {
                    return refused(Errno::EEXIST);
                }
                self.routes.insert(route.key, vec![route.clone()]);
            }
            RouteChange::Replace(route) => {
                self.check(route)?;
                let there = self.routes.entry(route.key).or_default();
                match there.first_mut() {
                    Some(first) => *first = route.clone(),
                    None => there.push(route.clone()),
                }
            }
            RouteChange::Delete { key, protocol } => {
                let there = self.routes.get_mut(key).ok_or(Refusal::new(Errno::ESRCH))?;
                let at = there.iter().position(|route| route.protocol == *protocol);
                there.remove(at.ok_or(Refusal::new(Errno::ESRCH))?);
                if there.is_empty() {
                    self.routes.remove(key);
                }
            }
        }
        Ok(())
    }

    /// What Linux asks of a route.
    fn check(&self, route: &Route) -> Result<(), Refusal> {
        if let Some(id) = route.nexthop_id {
            if route.kind != RouteKind::Unicast || !route.next_hops.is_empty() {
                return refused(Errno::EINVAL);
            }
            return self.check_use(route.key.family(), id);
        }
        if route.kind == RouteKind::Unicast && route.next_hops.is_empty() {
            return refused(Errno::EINVAL);
        }
        route.next_hops.iter().try_for_each(|hop| self.check_hop(hop))
    }

    /// What Linux asks of a next hop.
    pub(super) fn check_hop(&self, hop: &NextHop) -> Result<(), Refusal> {
        let link = self.links.get(&hop.ifindex).ok_or(Refusal::new(Errno::ENODEV))?;
        if !link.admin_up {
            return refused(Errno::ENETDOWN);
        }
        let Some(gateway) = hop.gateway else { return Ok(()) };
        if matches!(gateway, IpAddr::V6(gateway) if gateway.is_unicast_link_local()) {
            return Ok(());
        }
        if hop.onlink {
            // IPv6 takes no gateway which a route through another device leads to, on link or not.
            return match gateway.is_ipv6() && self.leads_elsewhere(gateway, hop.ifindex) {
                true => refused(Errno::EINVAL),
                false => Ok(()),
            };
        }
        let on_link = self.addresses.iter().any(|address| {
            address.ifindex == hop.ifindex
                && address.network.contains(gateway)
                && address.network.ip() != gateway
        });
        if on_link { Ok(()) } else { refused(Errno::ENETUNREACH) }
    }

    /// Whether the best route to an address, unless it is the default route, is one through another link.
    fn leads_elsewhere(&self, address: IpAddr, ifindex: u32) -> bool {
        let best = self
            .routes
            .values()
            .flatten()
            .filter(|route| route.key.table == MAIN_TABLE && route.kind == RouteKind::Unicast)
            .filter(|route| route.key.destination.prefix() > 0 && route.key.destination.contains(address))
            .max_by_key(|route| (route.key.destination.prefix(), std::cmp::Reverse(route.key.metric)));
        best.is_some_and(|route| self.hops_of(route).iter().any(|hop| hop.ifindex != ifindex))
    }

    /// The next hops of a route, those of its object where it names one.
    pub(super) fn hops_of(&self, route: &Route) -> Vec<NextHop> {
        let Some(id) = route.nexthop_id else { return route.next_hops.clone() };
        let single = |id: u32, weight: u16| match self.nexthops.get(&id).map(|object| &object.kind) {
            Some(NexthopKind::Single { hop, .. }) => Some(NextHop { weight, ..*hop }),
            _ => None,
        };
        let mut hops: Vec<NextHop> = match self.nexthops.get(&id).map(|object| &object.kind) {
            Some(NexthopKind::Group { members, .. }) => {
                members.iter().filter_map(|(id, weight)| single(*id, *weight)).collect()
            }
            _ => single(id, 1).into_iter().collect(),
        };
        hops.sort_unstable();
        hops
    }

    /// As a dump shows it (with `net.ipv4.nexthop_compat_mode` as it is by default).
    pub(super) fn shown(&self, route: &Route) -> Route {
        Route { next_hops: self.hops_of(route), ..route.clone() }
    }

    /// Drops the routes that lead only through a link.
    pub(super) fn drop_routes(&mut self, index: u32) {
        self.retain_routes(|route| {
            route.next_hops.is_empty() || route.next_hops.iter().any(|hop| hop.ifindex != index)
        });
    }

    pub(super) fn retain_routes(&mut self, keep: impl Fn(&Route) -> bool) {
        for routes in self.routes.values_mut() {
            routes.retain(&keep);
        }
        self.routes.retain(|_, routes| !routes.is_empty());
    }

    pub(super) fn routes_of(&self, family: Family, table: u32) -> impl Iterator<Item = &Route> {
        self.routes
            .values()
            .flatten()
            .filter(move |route| route.key.table == table && route.key.family() == family)
    }
}
