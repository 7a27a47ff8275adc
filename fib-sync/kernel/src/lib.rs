//! Routes, links, addresses and neighbours of one network namespace, over synchronous netlink.
//!
//! Owner of every conversion between our types and the kernel's: nothing outside this crate sees a netlink message.
//! No async runtime, so that the CNI plugin can use it as it is. fib-sync works against the [`Kernel`] trait, of
//! which there are two: [`Netlink`], the real one, and [`mock::MockKernel`], which keys its tables as Linux does and
//! fails on demand.
//!
//! | module | what |
//! |---|---|
//! | [`route`], [`nexthop`], [`link`], [`tunnel`] | our types |
//! | [`message`] | our types ↔ netlink messages |
//! | [`dump`] | routes dumped as a stream |
//! | `socket`, `attribute` | packs, acknowledgements, dumps; attributes written and read by hand |
//! | [`netlink`] | the operations, one method each |
//! | [`monitor`] | multicast events, as hints |
//! | [`conntrack`], [`ethtool`], [`lookup`] | connections of an address forgotten, offloads read, ways looked up |
//! | [`netns`] | doing things in another network namespace |
//! | [`sysctl`] | files below `/proc/sys` |
//! | [`mock`] | the kernel in memory |

mod attribute;
pub mod conntrack;
pub mod dump;
pub mod error;
pub mod ethtool;
pub mod link;
pub mod lookup;
pub mod message;
pub mod mock;
pub mod monitor;
pub mod netlink;
pub mod netns;
pub mod nexthop;
pub mod route;
mod socket;
pub mod sysctl;
pub mod tunnel;

pub use dump::Dumped;
pub use error::{Error, Refusal};
pub use link::{Address, Link, LinkChange, Mac, Neighbour, VethPair};
pub use monitor::{Hint, Monitor};
pub use netlink::Netlink;
pub use nexthop::{Nexthop, NexthopKind};
pub use route::{Family, NextHop, Route, RouteChange, RouteKey, RouteKind};
pub use tunnel::{FdbEntry, Tunnel, TunnelKind, vtep_gateway, vtep_mac};

use std::net::IpAddr;

use ipnetwork::IpNetwork;

/// The part of a kernel that fib-sync works against.
///
/// Every operation answers at once. [`Error::Refused`] means that nothing was changed; after any other error it is not
/// known what was changed, and the caller dumps.
pub trait Kernel {
    /// All routes of one table and family, including those of others; without cached and cloned ones.
    ///
    /// # Errors
    /// [`Error::Interrupted`] when the table changed under every attempt; [`Error::Overrun`]; [`Error::Socket`].
    fn routes(&mut self, family: Family, table: u32) -> Result<Vec<Route>, Error>;

    /// Begins a dump of all routes of one table and family, including those of others; an unfinished one is abandoned.
    /// Other operations may go on meanwhile. A route that is not touched between this call and the last
    /// [`Kernel::dump_next`] is shown; one that is may be shown as it was, as it is, or not at all.
    ///
    /// For IPv6 the kernel remembers only how many routes it has shown. When anything changes it begins anew and passes
    /// over that many, which takes time in proportion, shows some twice, and after deletions leaves some out: a dump
    /// during which IPv6 routes were deleted by [`Kernel::write`] ends with [`Error::Interrupted`]. So it is better not
    /// to write IPv6 routes meanwhile.
    ///
    /// # Errors
    /// [`Error::Overrun`], [`Error::Socket`].
    fn dump_start(&mut self, family: Family, table: u32) -> Result<(), Error>;

    /// Hands out the next part of the dump, some hundred routes at most; whether there is more to come.
    ///
    /// # Errors
    /// As for [`Kernel::routes`]; the dump is over then, and nothing may be concluded from what it did not show.
    fn dump_next(&mut self, each: &mut dyn FnMut(Dumped<'_>)) -> Result<bool, Error>;

    /// Carries out the changes in order and returns one result for each. A refused change does not keep the later
    /// ones from being tried.
    ///
    /// # Errors
    /// When the outcome of any change is unknown ([`Error::Overrun`], [`Error::Socket`]): the caller must dump.
    fn write(&mut self, changes: &[RouteChange]) -> Result<Vec<Result<(), Refusal>>, Error>;

    /// All nexthop objects, including those of others; `None` where the kernel has no such thing (before Linux 5.3).
    ///
    /// # Errors
    /// As for [`Kernel::routes`].
    fn nexthops(&mut self) -> Result<Option<Vec<Nexthop>>, Error>;

    /// Makes a nexthop object and returns its number, which the kernel chooses.
    ///
    /// # Errors
    /// [`Error::Refused`]; EINVAL for a member that is not there or itself a group, ENETDOWN for a link that is down.
    fn add_nexthop(&mut self, kind: &NexthopKind, protocol: u8) -> Result<u32, Error>;

    /// Changes an object, and with it at once every route and group on it.
    ///
    /// # Errors
    /// [`Error::Refused`]; [`Error::missing`] when it is not there, EINVAL when a single one would become a group, a
    /// group a single one, or a group resilient.
    fn replace_nexthop(&mut self, id: u32, kind: &NexthopKind, protocol: u8) -> Result<(), Error>;

    /// Deletes an object. **The kernel deletes every route on it as well**, takes it out of every group, and deletes
    /// groups that are empty then, with their routes.
    ///
    /// # Errors
    /// [`Error::Refused`]; [`Error::missing`] when it is not there.
    fn delete_nexthop(&mut self, id: u32) -> Result<(), Error>;

    /// All links.
    ///
    /// # Errors
    /// As for [`Kernel::routes`].
    fn links(&mut self) -> Result<Vec<Link>, Error>;

    /// Changes up or down, MTU, Ethernet address or name.
    ///
    /// # Errors
    /// [`Error::Refused`].
    fn set_link(&mut self, ifindex: u32, change: &LinkChange) -> Result<(), Error>;

    /// Deletes a link (with a veth, both ends), and with it all that is on it.
    ///
    /// # Errors
    /// [`Error::Refused`]; [`Error::missing`] when it is not there.
    fn delete_link(&mut self, ifindex: u32) -> Result<(), Error>;

    /// Makes a tunnel device, set up; its index.
    ///
    /// # Errors
    /// [`Error::Refused`]; EOPNOTSUPP when the kernel lacks the kind ([`Refusal::unsupported`]), EEXIST when the name
    /// is taken or the kind has a device with the same properties.
    fn add_tunnel(&mut self, tunnel: &Tunnel) -> Result<u32, Error>;

    /// Makes a tunnel device what it should be, and sets it up, without deleting it. Of VXLAN the identifier, the port
    /// and the outer family cannot be changed.
    ///
    /// # Errors
    /// [`Error::Refused`] with EOPNOTSUPP when the kernel cannot change that in place: the caller deletes and adds.
    /// Parts may have been changed.
    fn change_tunnel(&mut self, ifindex: u32, tunnel: &Tunnel) -> Result<(), Error>;

    /// All addresses of both families.
    ///
    /// # Errors
    /// As for [`Kernel::routes`].
    fn addresses(&mut self) -> Result<Vec<Address>, Error>;

    /// Adds an address. `nodad`: without duplicate address detection, usable at once (IPv6).
    ///
    /// # Errors
    /// [`Error::Refused`]; EEXIST when the link has it already.
    fn add_address(&mut self, ifindex: u32, network: IpNetwork, nodad: bool) -> Result<(), Error>;

    /// Removes an address.
    ///
    /// # Errors
    /// [`Error::Refused`]; [`Error::missing`] when the link does not have it.
    fn delete_address(&mut self, ifindex: u32, network: IpNetwork) -> Result<(), Error>;

    /// All neighbour entries.
    ///
    /// # Errors
    /// As for [`Kernel::routes`].
    fn neighbours(&mut self) -> Result<Vec<Neighbour>, Error>;

    /// Adds or replaces a permanent neighbour entry.
    ///
    /// # Errors
    /// [`Error::Refused`].
    fn set_neighbour(&mut self, ifindex: u32, address: IpAddr, mac: Mac) -> Result<(), Error>;

    /// Deletes a neighbour entry.
    ///
    /// # Errors
    /// [`Error::Refused`]; [`Error::missing`] when there is none.
    fn delete_neighbour(&mut self, ifindex: u32, address: IpAddr) -> Result<(), Error>;

    /// The FDB entries of a VXLAN device.
    ///
    /// # Errors
    /// As for [`Kernel::routes`].
    fn fdb(&mut self, ifindex: u32) -> Result<Vec<FdbEntry>, Error>;

    /// Adds or replaces a permanent FDB entry of a VXLAN device.
    ///
    /// # Errors
    /// [`Error::Refused`].
    fn set_fdb(&mut self, ifindex: u32, mac: Mac, remote: IpAddr) -> Result<(), Error>;

    /// Deletes an FDB entry of a VXLAN device. An entry for that address with another remote stays, in silence.
    ///
    /// # Errors
    /// [`Error::Refused`]; [`Error::missing`] when there is none for that address.
    fn delete_fdb(&mut self, ifindex: u32, mac: Mac, remote: IpAddr) -> Result<(), Error>;
}
