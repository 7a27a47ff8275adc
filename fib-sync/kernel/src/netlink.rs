//! The real kernel: one method an operation, synchronous, in the network namespace the socket was opened in.

use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use ipnetwork::IpNetwork;
use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_ECHO, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::AddressMessage;
use netlink_packet_route::neighbour::NeighbourMessage;
use netlink_sys::protocols::NETLINK_ROUTE;
use nix::errno::Errno;

use crate::Kernel;
use crate::dump::{Dumped, Dumps};
use crate::error::{Error, Refusal};
use crate::link::{Address, Link, LinkChange, Mac, Neighbour, VethPair};
use crate::message::route::Metered;
use crate::message::{self, nexthop, route, tunnel as tunnels};
use crate::netns;
use crate::nexthop::{Nexthop, NexthopKind};
use crate::route::{Family, Route, RouteChange, RouteKey};
use crate::socket::{End, NetlinkSocket};
use crate::tunnel::{FdbEntry, Tunnel, TunnelKind};

/// How often an interrupted dump is repeated before [`Error::Interrupted`].
pub const DUMP_ATTEMPTS: usize = 20;

/// The longest device name, in bytes (`IFNAMSIZ` - 1).
pub const NAME_LENGTH: usize = 15;

const RTM_NEWLINK: u16 = 16;
const RTM_NEWADDR: u16 = 20;
const RTM_NEWNEIGH: u16 = 28;

/// A netlink socket in one network namespace. It stays in that namespace wherever the thread goes afterwards.
pub struct Netlink {
    socket: NetlinkSocket,
    /// Where the socket is, for further ones.
    netns: OwnedFd,
    dumps: Option<Dumps>,
    metered: Metered,
}

impl Netlink {
    /// Opens a socket in the calling thread's network namespace.
    ///
    /// # Errors
    /// [`Error::Socket`].
    pub fn open() -> Result<Netlink, Error> {
        Ok(Netlink {
            socket: NetlinkSocket::open(NETLINK_ROUTE)?,
            netns: netns::current()?,
            dumps: None,
            metered: Metered::default(),
        })
    }

    /// Opens a socket in another network namespace. The calling thread does not leave its own.
    ///
    /// # Errors
    /// [`Error::Namespace`] when it cannot be entered, [`Error::Socket`].
    pub fn open_in(netns: BorrowedFd<'_>) -> Result<Netlink, Error> {
        netns::run_in(netns, Netlink::open)?
    }

    /// The socket's port: events caused through it bear this number.
    ///
    /// # Errors
    /// [`Error::Socket`].
    pub fn port(&self) -> Result<u32, Error> {
        self.socket.port()
    }

    /// Makes a veth pair, the peer directly in its own namespace, both ends down, with both Ethernet addresses and
    /// the MTU set from the start.
    ///
    /// # Errors
    /// [`Error::Refused`]; EEXIST when a name is taken in either namespace.
    pub fn add_veth(&mut self, pair: &VethPair<'_>) -> Result<(), Error> {
        check_name(pair.name)?;
        check_name(pair.peer_name)?;
        let request = RouteNetlinkMessage::NewLink(message::new_veth(pair));
        self.request(request, NLM_F_CREATE | NLM_F_EXCL, || format!("create veth {}", pair.name))
    }

    /// The link of that name, or `None`.
    ///
    /// # Errors
    /// [`Error::Refused`], [`Error::Invalid`] for a name no link can have.
    pub fn link_by_name(&mut self, name: &str) -> Result<Option<Link>, Error> {
        check_name(name)?;
        let mut found = None;
        let request = RouteNetlinkMessage::GetLink(message::get_link(name));
        let end = self.socket.exchange(request, NLM_F_ACK, |kind, payload| {
            if kind == RTM_NEWLINK {
                found = message::parse_link(payload);
            }
        })?;
        match end {
            End::Refused(refusal) if refusal.errno == Errno::ENODEV => Ok(None),
            End::Refused(refusal) => Err(Error::Refused { what: format!("get link {name}"), refusal }),
            End::Done | End::Interrupted if found.is_none() => {
                Err(Error::Malformed(format!("the answer about link {name}")))
            }
            End::Done | End::Interrupted => Ok(found),
        }
    }

    /// Adds a route; never replaces, never appends.
    ///
    /// # Errors
    /// [`Error::Refused`]; EEXIST when the key is taken, by anybody.
    pub fn add_route(&mut self, route: &Route) -> Result<(), Error> {
        self.change_route(&RouteChange::Add(route.clone()))
    }

    /// Adds a route or replaces what has its key, whoever's that is: for namespaces that are wholly ours.
    ///
    /// # Errors
    /// [`Error::Refused`].
    pub fn replace_route(&mut self, route: &Route) -> Result<(), Error> {
        self.change_route(&RouteChange::Replace(route.clone()))
    }

    /// Deletes the route of that key and protocol.
    ///
    /// # Errors
    /// [`Error::Refused`]; [`Error::missing`] when there is none.
    pub fn delete_route(&mut self, key: &RouteKey, protocol: u8) -> Result<(), Error> {
        self.change_route(&RouteChange::Delete { key: *key, protocol })
    }

    fn change_route(&mut self, change: &RouteChange) -> Result<(), Error> {
        let mut body = Vec::new();
        let (kind, flags) = route::put_change(&mut body, change, &mut self.metered);
        self.request_body(kind, &body, flags, || change.to_string())
    }

    fn request_body(
        &mut self,
        kind: u16,
        body: &[u8],
        flags: u16,
        what: impl FnOnce() -> String,
    ) -> Result<(), Error> {
        match self.socket.exchange_body(kind, body, flags | NLM_F_ACK, |_, _| {})? {
            End::Done | End::Interrupted => Ok(()),
            End::Refused(refusal) => Err(Error::Refused { what: what(), refusal }),
        }
    }

    /// Dumps until nothing changed in between; [`Error::Refused`] with what the kernel says.
    fn dump_body<T>(
        &mut self,
        what: &'static str,
        kind: u16,
        body: &[u8],
        mut parse: impl FnMut(&[u8]) -> Option<T>,
    ) -> Result<Vec<T>, Error> {
        for _ in 0..DUMP_ATTEMPTS {
            let mut found = Vec::new();
            let end = self.socket.exchange_body(kind, body, NLM_F_DUMP, |_, payload| {
                found.extend(parse(payload));
            })?;
            match end {
                End::Done => return Ok(found),
                End::Interrupted => {}
                End::Refused(refusal) => {
                    return Err(Error::Refused { what: format!("dump {what}"), refusal });
                }
            }
        }
        Err(Error::Interrupted(what))
    }

    fn request(
        &mut self,
        request: RouteNetlinkMessage,
        flags: u16,
        what: impl FnOnce() -> String,
    ) -> Result<(), Error> {
        match self.socket.exchange(request, flags | NLM_F_ACK, |_, _| {})? {
            End::Done | End::Interrupted => Ok(()),
            End::Refused(refusal) => Err(Error::Refused { what: what(), refusal }),
        }
    }

    fn dump<T>(
        &mut self,
        what: &'static str,
        request: impl Fn() -> (RouteNetlinkMessage, u16, fn(&[u8]) -> Option<T>),
    ) -> Result<Vec<T>, Error> {
        for _ in 0..DUMP_ATTEMPTS {
            let (message, expected, parse) = request();
            let mut found = Vec::new();
            let end = self.socket.exchange(message, NLM_F_DUMP, |kind, payload| {
                if kind == expected {
                    found.extend(parse(payload));
                }
            })?;
            match end {
                End::Done => return Ok(found),
                End::Interrupted => {}
                End::Refused(refusal) if refusal.nothing_to_dump() => return Ok(Vec::new()),
                End::Refused(refusal) => {
                    return Err(Error::Refused { what: format!("dump {what}"), refusal });
                }
            }
        }
        Err(Error::Interrupted(what))
    }
}

impl Kernel for Netlink {
    fn routes(&mut self, family: Family, table: u32) -> Result<Vec<Route>, Error> {
        let found = self.dump_body("routes", route::GET, &route::dump(family, table), route::parse);
        let mut routes = match found {
            Err(Error::Refused { refusal, .. }) if refusal.nothing_to_dump() => Vec::new(),
            found => found?,
        };
        // A kernel that cannot filter sends more.
        routes.retain(|route| route.key.table == table && route.key.family() == family);
        routes.iter().for_each(|route| route::note_metrics(&mut self.metered, route));
        Ok(routes)
    }

    fn dump_start(&mut self, family: Family, table: u32) -> Result<(), Error> {
        let mut dumps = match self.dumps.take() {
            Some(dumps) if !dumps.running() => dumps,
            _ => Dumps::open(self.netns.as_fd())?,
        };
        dumps.start(family, table)?;
        self.dumps = Some(dumps);
        Ok(())
    }

    fn dump_next(&mut self, each: &mut dyn FnMut(Dumped<'_>)) -> Result<bool, Error> {
        self.dumps.as_mut().map_or(Ok(false), |dumps| dumps.next(&mut self.metered, each))
    }

    fn write(&mut self, changes: &[RouteChange]) -> Result<Vec<Result<(), Refusal>>, Error> {
        let Netlink { socket, metered, dumps, .. } = self;
        if let Some(dumps) = dumps {
            dumps.note_changes(changes);
        }
        socket.batch(changes.len(), |index, out| route::put_change(out, &changes[index], metered))
    }

    fn nexthops(&mut self) -> Result<Option<Vec<Nexthop>>, Error> {
        let found = self.dump_body("nexthop objects", nexthop::GET, &nexthop::dump(), nexthop::parse);
        match found {
            Ok(found) => Ok(Some(found)),
            Err(error) if error.unsupported() => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn add_nexthop(&mut self, kind: &NexthopKind, protocol: u8) -> Result<u32, Error> {
        let what = || format!("add nexthop {kind:?}");
        let Some(body) = nexthop::new(None, kind, protocol) else { return Err(Error::Invalid(what())) };
        let mut made = None;
        let flags = NLM_F_CREATE | NLM_F_EXCL | NLM_F_ECHO | NLM_F_ACK;
        let end = self.socket.exchange_body(nexthop::NEW, &body, flags, |kind, payload| {
            if kind == nexthop::NEW {
                made = nexthop::parse(payload);
            }
        })?;
        match (end, made) {
            (End::Refused(refusal), _) => Err(Error::Refused { what: what(), refusal }),
            (_, Some(made)) => Ok(made.id),
            (_, None) => Err(Error::Malformed("the answer about a new nexthop object".to_owned())),
        }
    }

    fn replace_nexthop(&mut self, id: u32, kind: &NexthopKind, protocol: u8) -> Result<(), Error> {
        let what = || format!("replace nexthop {id} by {kind:?}");
        let Some(body) = nexthop::new(Some(id), kind, protocol) else { return Err(Error::Invalid(what())) };
        self.request_body(nexthop::NEW, &body, NLM_F_REPLACE, what)
    }

    fn delete_nexthop(&mut self, id: u32) -> Result<(), Error> {
        self.request_body(nexthop::DELETE, &nexthop::delete(id), 0, || format!("delete nexthop {id}"))?;
        // No route is on it any more.
        self.metered.remove(&id);
        Ok(())
    }

    fn links(&mut self) -> Result<Vec<Link>, Error> {
        self.dump("links", || {
            (RouteNetlinkMessage::GetLink(message::dump_links()), RTM_NEWLINK, message::parse_link)
        })
    }

    fn set_link(&mut self, ifindex: u32, change: &LinkChange) -> Result<(), Error> {
        if let Some(name) = &change.name {
            check_name(name)?;
        }
        let request = RouteNetlinkMessage::SetLink(message::set_link(ifindex, change));
        self.request(request, 0, || format!("change link {ifindex}: {change:?}"))
    }

    fn delete_link(&mut self, ifindex: u32) -> Result<(), Error> {
        let request = RouteNetlinkMessage::DelLink(message::delete_link(ifindex));
        self.request(request, 0, || format!("delete link {ifindex}"))
    }

    fn add_tunnel(&mut self, tunnel: &Tunnel) -> Result<u32, Error> {
        check_name(&tunnel.name)?;
        self.request_body(tunnels::NEW_LINK, &tunnels::new(tunnel), NLM_F_CREATE | NLM_F_EXCL, || {
            format!("create {} {}", tunnel.kind.name(), tunnel.name)
        })?;
        let made = self.link_by_name(&tunnel.name)?;
        made.map(|link| link.index)
            .ok_or_else(|| Error::Malformed(format!("no link {} after all", tunnel.name)))
    }

    fn change_tunnel(&mut self, ifindex: u32, tunnel: &Tunnel) -> Result<(), Error> {
        let what = || format!("change {} {}", tunnel.kind.name(), tunnel.name);
        self.request_body(tunnels::NEW_LINK, &tunnels::change(ifindex, tunnel.kind), 0, what)?;
        let mac = tunnel.mac.filter(|_| matches!(tunnel.kind, TunnelKind::Vxlan { .. }));
        let change = LinkChange { up: Some(true), mtu: Some(tunnel.mtu), mac, name: None };
        self.set_link(ifindex, &change)?;
        // What the request cannot say (a remote, flags of the device) may still be otherwise.
        match self.link_by_name(&tunnel.name)? {
            Some(link) if link.index == ifindex && link.tunnel == Some(tunnel.kind) => Ok(()),
            _ => Err(Error::Refused { what: what(), refusal: Refusal::new(Errno::EOPNOTSUPP) }),
        }
    }

    fn addresses(&mut self) -> Result<Vec<Address>, Error> {
        self.dump("addresses", || {
            let request = RouteNetlinkMessage::GetAddress(AddressMessage::default());
            (request, RTM_NEWADDR, message::parse_address)
        })
    }

    fn add_address(&mut self, ifindex: u32, network: IpNetwork, nodad: bool) -> Result<(), Error> {
        let request = RouteNetlinkMessage::NewAddress(message::address(ifindex, &network, nodad));
        self.request(request, NLM_F_CREATE | NLM_F_EXCL, || {
            format!("add address {network} to link {ifindex}")
        })
    }

    fn delete_address(&mut self, ifindex: u32, network: IpNetwork) -> Result<(), Error> {
        let request = RouteNetlinkMessage::DelAddress(message::address(ifindex, &network, false));
        self.request(request, 0, || format!("delete address {network} of link {ifindex}"))
    }

    fn neighbours(&mut self) -> Result<Vec<Neighbour>, Error> {
        self.dump("neighbours", || {
            let request = RouteNetlinkMessage::GetNeighbour(NeighbourMessage::default());
            (request, RTM_NEWNEIGH, message::parse_neighbour)
        })
    }

    fn set_neighbour(&mut self, ifindex: u32, address: IpAddr, mac: Mac) -> Result<(), Error> {
        let request = RouteNetlinkMessage::NewNeighbour(message::neighbour(ifindex, address, Some(mac)));
        self.request(request, NLM_F_CREATE | NLM_F_REPLACE, || {
            format!("set neighbour {address} of link {ifindex} to {mac}")
        })
    }

    fn delete_neighbour(&mut self, ifindex: u32, address: IpAddr) -> Result<(), Error> {
        let request = RouteNetlinkMessage::DelNeighbour(message::neighbour(ifindex, address, None));
        self.request(request, 0, || format!("delete neighbour {address} of link {ifindex}"))
    }

    fn fdb(&mut self, ifindex: u32) -> Result<Vec<FdbEntry>, Error> {
        let body = tunnels::dump_fdb(ifindex);
        let mut found = self.dump_body("FDB entries", tunnels::GET_NEIGHBOUR, &body, tunnels::parse_fdb)?;
        found.retain(|entry| entry.ifindex == ifindex);
        Ok(found)
    }

    fn set_fdb(&mut self, ifindex: u32, mac: Mac, remote: IpAddr) -> Result<(), Error> {
        let body = tunnels::fdb(ifindex, mac, remote);
        self.request_body(tunnels::NEW_NEIGHBOUR, &body, NLM_F_CREATE | NLM_F_REPLACE, || {
            format!("set FDB entry {mac} of link {ifindex} to {remote}")
        })
    }

    fn delete_fdb(&mut self, ifindex: u32, mac: Mac, remote: IpAddr) -> Result<(), Error> {
        let body = tunnels::fdb(ifindex, mac, remote);
        self.request_body(tunnels::DELETE_NEIGHBOUR, &body, 0, || {
            format!("delete FDB entry {mac} to {remote} of link {ifindex}")
        })
    }
}

fn check_name(name: &str) -> Result<(), Error> {
    let bad = name.is_empty()
        || name.len() > NAME_LENGTH
        || name == "."
        || name == ".."
        || name.bytes().any(|byte| byte == b'/' || byte == b':' || byte == 0 || byte.is_ascii_whitespace());
    if bad { Err(Error::Invalid(format!("{name:?} is no device name"))) } else { Ok(()) }
}
