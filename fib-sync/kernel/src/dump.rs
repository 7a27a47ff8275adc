//! A dump of routes as a stream: what comes out of it, without a `Route` made for each.

use ipnetwork::IpNetwork;

use crate::route::Route;

/// One route of a dump.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dumped<'a> {
    /// Where it leads.
    pub destination: IpNetwork,
    /// The number of its form, that is of everything but the destination: counted from 0 in each dump, in the order
    /// in which the forms are first seen. Two numbers may stand for equal forms.
    pub form: u32,
    /// The first route seen with that form; only its destination is another.
    pub route: &'a Route,
}
