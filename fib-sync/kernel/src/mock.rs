//! A kernel in memory that keys its tables exactly as Linux does, keeps Linux's silences, and fails on demand.
//!
//! For tests of what decides over a kernel. Modelled: the route key (table, destination, tos, metric), EEXIST and
//! ESRCH, gateways that must be on a link that is up, routes that vanish without an event when a link is set down (the
//! IPv4 ones) and with it its IPv6 addresses, connected routes, carrier that leaves routes in place.

use std::collections::BTreeMap;

use ipnetwork::IpNetwork;
use nix::errno::Errno;

use crate::Kernel;
use crate::error::{Error, Refusal};
use crate::link::{Address, Link};
use crate::monitor::Hint;
use crate::route::{Family, NextHop, Route, RouteChange, RouteKey, RouteKind};

/// `RTPROT_KERNEL`.
const PROTOCOL_KERNEL: u8 = 2;

/// What is to go wrong.
#[derive(Debug, Clone, Default)]
pub struct Failures {
    /// Refuse every n-th change with this error, for the next so many times.
    pub refuse: Option<(usize, Errno, usize)>,
    /// In the next so many writes: carry out the first half and report the outcome as unknown.
    pub lose_answers: usize,
    /// Interrupt the next so many dumps.
    pub interrupt_dumps: usize,
    /// Swallow every hint.
    pub lose_hints: bool,
    /// Replace every hint by an overrun.
    pub overrun_hints: bool,
}

/// The kernel.
#[derive(Debug, Clone, Default)]
pub struct MockKernel {
    links: BTreeMap<u32, Link>,
    addresses: Vec<Address>,
    routes: BTreeMap<RouteKey, Vec<Route>>,
    hints: Vec<Hint>,
    /// What is to go wrong.
    pub failures: Failures,
    /// Changes that came in, those refused included.
    pub written: Vec<RouteChange>,
    /// How many dumps of routes were asked for.
    pub dumps: usize,
    changes: usize,
}

impl MockKernel {
    /// A kernel without links.
    pub fn new() -> MockKernel {
        MockKernel::default()
    }

    /// Adds a link, up and running, with its addresses and their connected routes.
    pub fn add_link(&mut self, index: u32, name: &str, addresses: &[IpNetwork]) {
        let link = Link {
            index,
            name: name.to_owned(),
            admin_up: true,
            running: true,
            loopback: false,
            mtu: 1500,
            mac: None,
            kind: None,
            peer: None,
        };
        self.links.insert(index, link);
        self.hint(Hint::Link);
        for address in addresses {
            self.add_address(index, *address);
        }
    }

    /// Adds an address and its connected route.
    pub fn add_address(&mut self, ifindex: u32, network: IpNetwork) {
        let address = Address { ifindex, network, peer: None, global: true, tentative: false };
        if !self.addresses.contains(&address) {
            self.addresses.push(address);
        }
        self.connect(ifindex);
        self.hint(Hint::Address);
    }

    /// Takes a link away with everything on it. Only the link's own event tells.
    pub fn remove_link(&mut self, index: u32) {
        self.links.remove(&index);
        self.addresses.retain(|address| address.ifindex != index);
        self.drop_routes(index);
        self.hint(Hint::Link);
    }

    /// Sets a link up or down.
    pub fn set_admin(&mut self, index: u32, up: bool) {
        if let Some(link) = self.links.get_mut(&index) {
            link.admin_up = up;
            link.running = up;
        }
        if up {
            self.connect(index);
        } else {
            self.drop_routes(index);
            self.addresses.retain(|address| address.ifindex != index || address.network.is_ipv4());
        }
        self.hint(Hint::Link);
    }

    /// Gives a link a carrier or takes it. Its routes stay.
    pub fn set_carrier(&mut self, index: u32, carrier: bool) {
        if let Some(link) = self.links.get_mut(&index) {
            link.running = carrier && link.admin_up;
        }
        self.hint(Hint::Link);
    }

    /// A change by somebody else.
    ///
    /// # Errors
    /// As Linux would answer.
    pub fn by_others(&mut self, change: &RouteChange) -> Result<(), Refusal> {
        let hint = match change {
            RouteChange::Add(route) | RouteChange::Replace(route) => route.clone(),
            RouteChange::Delete { key, protocol } => {
                Route { key: *key, protocol: *protocol, ..Route::unreachable(key.destination) }
            }
        };
        self.change(change)?;
        self.hint(Hint::Route(Box::new(hint)));
        Ok(())
    }

    /// The hints since the last call.
    pub fn take_hints(&mut self) -> Vec<Hint> {
        std::mem::take(&mut self.hints)
    }

    /// All routes of a protocol number, by key.
    pub fn of_protocol(&self, protocol: u8) -> Vec<Route> {
        self.routes.values().flatten().filter(|route| route.protocol == protocol).cloned().collect()
    }

    fn hint(&mut self, hint: Hint) {
        if self.failures.lose_hints {
            return;
        }
        self.hints.push(if self.failures.overrun_hints { Hint::Overrun } else { hint });
    }

    /// Restores the connected routes of a link.
    fn connect(&mut self, index: u32) {
        for address in self.addresses.iter().filter(|address| address.ifindex == index) {
            let Ok(subnet) = IpNetwork::new(address.network.network(), address.network.prefix()) else {
                continue;
            };
            let metric = if subnet.is_ipv4() { 0 } else { 256 };
            let route = Route::unicast(subnet, vec![NextHop::device(index)]);
            let route = Route { key: RouteKey { metric, ..route.key }, protocol: PROTOCOL_KERNEL, ..route };
            self.routes.entry(route.key).or_insert_with(|| vec![route]);
        }
    }

    /// Drops the routes that lead only through a link.
    fn drop_routes(&mut self, index: u32) {
        for routes in self.routes.values_mut() {
            routes.retain(|route| {
                route.next_hops.is_empty() || route.next_hops.iter().any(|hop| hop.ifindex != index)
            });
        }
        self.routes.retain(|_, routes| !routes.is_empty());
    }

    fn change(&mut self, change: &RouteChange) -> Result<(), Refusal> {
        match change {
            RouteChange::Add(route) => {
                self.check(route)?;
                if self.routes.contains_key(&route.key) {
                    return Err(Refusal::new(Errno::EEXIST));
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

    /// What Linux asks of next hops.
    fn check(&self, route: &Route) -> Result<(), Refusal> {
        if route.kind == RouteKind::Unicast && route.next_hops.is_empty() {
            return Err(Refusal::new(Errno::EINVAL));
        }
        for hop in &route.next_hops {
            let link = self.links.get(&hop.ifindex).ok_or(Refusal::new(Errno::ENODEV))?;
            if !link.admin_up {
                return Err(Refusal::new(Errno::ENETDOWN));
            }
            let Some(gateway) = hop.gateway else { continue };
            let on_link = self.addresses.iter().any(|address| {
                address.ifindex == hop.ifindex
                    && address.network.contains(gateway)
                    && address.network.ip() != gateway
            });
            let link_local =
                matches!(gateway, std::net::IpAddr::V6(gateway) if gateway.is_unicast_link_local());
            if !on_link && !link_local && !hop.onlink {
                return Err(Refusal::new(Errno::ENETUNREACH));
            }
        }
        Ok(())
    }

    fn dump<T>(&mut self, what: &'static str, found: T) -> Result<T, Error> {
        if self.failures.interrupt_dumps > 0 {
            self.failures.interrupt_dumps -= 1;
            return Err(Error::Interrupted(what));
        }
        Ok(found)
    }
}

impl Kernel for MockKernel {
    fn routes(&mut self, family: Family, table: u32) -> Result<Vec<Route>, Error> {
        self.dumps += 1;
        let wanted = |route: &&Route| route.key.table == table && route.key.family() == family;
        let found = self.routes.values().flatten().filter(wanted).cloned().collect();
        self.dump("routes", found)
    }

    fn links(&mut self) -> Result<Vec<Link>, Error> {
        let found = self.links.values().cloned().collect();
        self.dump("links", found)
    }

    fn addresses(&mut self) -> Result<Vec<Address>, Error> {
        let found = self.addresses.clone();
        self.dump("addresses", found)
    }

    fn write(&mut self, changes: &[RouteChange]) -> Result<Vec<Result<(), Refusal>>, Error> {
        let lost = self.failures.lose_answers > 0;
        self.failures.lose_answers -= usize::from(lost);
        let count = if lost { changes.len() / 2 } else { changes.len() };
        let mut results = Vec::with_capacity(count);
        for change in &changes[..count] {
            self.written.push(change.clone());
            self.changes += 1;
            let refused = match &mut self.failures.refuse {
                Some((nth, errno, times)) if *times > 0 && self.changes.is_multiple_of(*nth) => {
                    *times -= 1;
                    Some(Refusal::new(*errno))
                }
                _ => None,
            };
            results.push(match refused {
                Some(refusal) => Err(refusal),
                None => self.change(change),
            });
        }
        if lost { Err(Error::Overrun) } else { Ok(results) }
    }
}
