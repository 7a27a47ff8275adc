//! Routes, links, addresses and neighbours of one network namespace, over synchronous netlink.
//!
//! Owner of every conversion between our types and the kernel's: nothing outside this crate sees a netlink message.
//! No async runtime, so that the CNI plugin can use it as it is. fib-sync works against the [`Kernel`] trait, of
//! which there are two: [`Netlink`], the real one, and [`mock::MockKernel`], which keys its tables as Linux does and
//! fails on demand.
//!
//! | module | what |
//! |---|---|
//! | [`route`], [`link`] | our types |
//! | [`message`] | our types ↔ `netlink-packet-route` |
//! | `socket` | packs, acknowledgements, dumps |
//! | [`netlink`] | the operations, one method each |
//! | [`monitor`] | multicast events, as hints |
//! | [`netns`] | doing things in another network namespace |
//! | [`sysctl`] | files below `/proc/sys` |
//! | [`mock`] | the kernel in memory |

pub mod error;
pub mod link;
pub mod message;
pub mod mock;
pub mod monitor;
pub mod netlink;
pub mod netns;
pub mod route;
mod socket;
pub mod sysctl;

pub use error::{Error, Refusal};
pub use link::{Address, Link, LinkChange, Mac, Neighbour, VethPair};
pub use monitor::{Hint, Monitor};
pub use netlink::Netlink;
pub use route::{Family, NextHop, Route, RouteChange, RouteKey, RouteKind};

/// The part of a kernel that fib-sync works against.
pub trait Kernel {
    /// All routes of one table and family, including those of others; without cached and cloned ones.
    ///
    /// # Errors
    /// [`Error::Interrupted`] when the table changed under every attempt; [`Error::Overrun`]; [`Error::Socket`].
    fn routes(&mut self, family: Family, table: u32) -> Result<Vec<Route>, Error>;

    /// All links.
    ///
    /// # Errors
    /// As for [`Kernel::routes`].
    fn links(&mut self) -> Result<Vec<Link>, Error>;

    /// All addresses of both families.
    ///
    /// # Errors
    /// As for [`Kernel::routes`].
    fn addresses(&mut self) -> Result<Vec<Address>, Error>;

    /// Carries out the changes in order and returns one result for each. A refused change does not keep the later
    /// ones from being tried.
    ///
    /// # Errors
    /// When the outcome of any change is unknown ([`Error::Overrun`], [`Error::Socket`]): the caller must dump.
    fn write(&mut self, changes: &[RouteChange]) -> Result<Vec<Result<(), Refusal>>, Error>;
}
