//! A kernel in memory that keys its tables exactly as Linux does, keeps Linux's silences, and fails on demand.
//!
//! For tests of what decides over a kernel. Modelled: the route key (table, destination, tos, metric), EEXIST and
//! ESRCH, gateways that must be on a link that is up, routes that vanish without an event when a link is set down (the
//! IPv4 ones) and with it its IPv6 addresses, connected routes, carrier that leaves routes in place; nexthop objects,
//! which do not survive the loss of the carrier, and the routes on which go with them, in silence; tunnel devices,
//! neighbours and FDB entries that go with their link; dumps that changes come in between.
//!
//! | module | what |
//! |---|---|
//! | `routes` | the route tables |
//! | `nexthops` | nexthop objects |
//! | `dump` | streamed dumps |
//! | `kernel` | the [`Kernel`] trait, recording and failures |

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use nix::errno::Errno;

use crate::Kernel;
use crate::error::Refusal;
use crate::link::{Address, Link, LinkChange, Mac};
use crate::monitor::Hint;
use crate::nexthop::{Nexthop, NexthopKind};
use crate::route::{NextHop, Route, RouteChange, RouteKey};
use crate::tunnel::Tunnel;

mod dump;
mod kernel;
mod nexthops;
mod routes;

/// `RTPROT_KERNEL`.
const PROTOCOL_KERNEL: u8 = 2;

/// What is to go wrong.
#[derive(Debug, Clone, Default)]
pub struct Failures {
    /// Refuse every n-th change of a route with this error, for the next so many times.
    pub refuse: Option<(usize, Errno, usize)>,
    /// In the next so many writes: carry out the first half and report the outcome as unknown.
    pub lose_answers: usize,
    /// Refuse every n-th operation on anything but routes with this error, for the next so many times.
    pub refuse_operations: Option<(usize, Errno, usize)>,
    /// The next so many operations on anything but routes: carry out every other one, report all as unknown.
    pub lose_operations: usize,
    /// Interrupt the next so many dumps.
    pub interrupt_dumps: usize,
    /// Swallow every hint.
    pub lose_hints: bool,
    /// Replace every hint by an overrun.
    pub overrun_hints: bool,
}

/// What the kernel was built without.
#[derive(Debug, Clone, Default)]
pub struct Lacks {
    /// Nexthop objects.
    pub nexthops: bool,
    /// Kinds of devices, by [`TunnelKind::name`](crate::TunnelKind::name).
    pub kinds: BTreeSet<&'static str>,
}

/// An operation on anything but routes.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is the method of that name with its arguments")]
pub enum Operation {
    AddNexthop(NexthopKind),
    ReplaceNexthop(u32, NexthopKind),
    DeleteNexthop(u32),
    SetLink(u32, LinkChange),
    DeleteLink(u32),
    AddTunnel(Tunnel),
    ChangeTunnel(u32, Tunnel),
    AddAddress(u32, IpNetwork),
    DeleteAddress(u32, IpNetwork),
    SetNeighbour(u32, IpAddr, Mac),
    DeleteNeighbour(u32, IpAddr),
    SetFdb(u32, Mac, IpAddr),
    DeleteFdb(u32, Mac, IpAddr),
}

impl Operation {
    /// What it looks like to others.
    fn hint(&self) -> Hint {
        match self {
            Operation::AddNexthop(_) | Operation::ReplaceNexthop(..) | Operation::DeleteNexthop(_) => {
                Hint::Nexthop
            }
            Operation::SetLink(..)
            | Operation::DeleteLink(_)
            | Operation::AddTunnel(_)
            | Operation::ChangeTunnel(..) => Hint::Link,
            Operation::AddAddress(..) | Operation::DeleteAddress(..) => Hint::Address,
            Operation::SetNeighbour(..)
            | Operation::DeleteNeighbour(..)
            | Operation::SetFdb(..)
            | Operation::DeleteFdb(..) => Hint::Neighbour,
        }
    }
}

fn refused<T>(errno: Errno) -> Result<T, Refusal> {
    Err(Refusal::new(errno))
}

/// The kernel.
#[derive(Debug, Clone)]
pub struct MockKernel {
    links: BTreeMap<u32, Link>,
    addresses: Vec<Address>,
    routes: BTreeMap<RouteKey, Vec<Route>>,
    nexthops: BTreeMap<u32, Nexthop>,
    neighbours: BTreeMap<(u32, IpAddr), Mac>,
    fdb: BTreeMap<(u32, Mac), IpAddr>,
    next_nexthop: u32,
    dumping: Option<dump::Dumping>,
    as_another: bool,
    hints: Vec<Hint>,
    /// What is to go wrong.
    pub failures: Failures,
    /// What is not there.
    pub lacks: Lacks,
    /// How many routes a streamed dump shows at once.
    pub chunk: usize,
    /// Operations on anything but routes that came in, those refused included.
    pub operations: Vec<Operation>,
    /// Changes that came in, those refused included.
    pub written: Vec<RouteChange>,
    /// How many dumps of routes were asked for.
    pub dumps: usize,
    changes: usize,
}

impl Default for MockKernel {
    fn default() -> MockKernel {
        MockKernel {
            links: BTreeMap::new(),
            addresses: Vec::new(),
            routes: BTreeMap::new(),
            nexthops: BTreeMap::new(),
            neighbours: BTreeMap::new(),
            fdb: BTreeMap::new(),
            next_nexthop: 1,
            dumping: None,
            as_another: false,
            hints: Vec::new(),
            failures: Failures::default(),
            lacks: Lacks::default(),
            chunk: 3,
            operations: Vec::new(),
            written: Vec::new(),
            dumps: 0,
            changes: 0,
        }
    }
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
            tunnel: None,
        };
        self.links.insert(index, link);
        self.hint(Hint::Link);
        for address in addresses {
            self.add_address(index, *address);
        }
    }

    /// An address appears, and its connected route.
    pub fn add_address(&mut self, ifindex: u32, network: IpNetwork) {
        self.put_address(ifindex, network);
        self.hint(Hint::Address);
    }

    fn put_address(&mut self, ifindex: u32, network: IpNetwork) {
        let address = Address { ifindex, network, peer: None, global: true, tentative: false };
        if !self.addresses.contains(&address) {
            self.addresses.push(address);
        }
        self.connect(ifindex);
    }

    /// Takes a link away with everything on it. Only the link's own event tells.
    pub fn remove_link(&mut self, index: u32) {
        self.flush_nexthops(index);
        self.links.remove(&index);
        self.addresses.retain(|address| address.ifindex != index);
        self.neighbours.retain(|(ifindex, _), _| *ifindex != index);
        self.fdb.retain(|(ifindex, _), _| *ifindex != index);
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
            self.flush_nexthops(index);
            self.drop_routes(index);
            self.addresses.retain(|address| address.ifindex != index || address.network.is_ipv4());
        }
        self.hint(Hint::Link);
    }

    /// Gives a link a carrier or takes it. Its routes stay, but not its nexthop objects and the routes on these.
    pub fn set_carrier(&mut self, index: u32, carrier: bool) {
        if let Some(link) = self.links.get_mut(&index) {
            link.running = carrier && link.admin_up;
        }
        if !carrier {
            self.flush_nexthops(index);
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

    /// Anything else done by somebody else: it does not fail, is not recorded, and is told as a hint.
    pub fn as_another<T>(&mut self, operate: impl FnOnce(&mut dyn Kernel) -> T) -> T {
        self.as_another = true;
        let result = operate(self);
        self.as_another = false;
        result
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

    /// Takes away the connected route of an address that went, unless another address needs it.
    fn disconnect(&mut self, index: u32, network: IpNetwork) {
        let subnet = |network: IpNetwork| (network.network(), network.prefix());
        let needed = self
            .addresses
            .iter()
            .any(|there| there.ifindex == index && subnet(there.network) == subnet(network));
        if !needed {
            self.retain_routes(|route| {
                route.protocol != PROTOCOL_KERNEL
                    || subnet(route.key.destination) != subnet(network)
                    || route.next_hops.iter().any(|hop| hop.ifindex != index)
            });
        }
    }
}
