//! Which kernel routes are ours, and when one that nobody asked for may go. Pure.
//!
//! Ours is what bears our protocol number in the main table, nothing else. Between "nobody wants it" and "delete it"
//! stands a reason to wait, which depends on what the route is.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use causeway_api::pod_store::VETH_PREFIX;
use causeway_kernel::route::ROUTE_PROTOCOL;
use causeway_kernel::{Link, NextHop, RouteKey, RouteKind};

/// How long a host route onto a pod's device may be there before the pod's record is (the plugin writes the record
/// first, but the news of it travels another way).
pub const POD_GRACE: Duration = Duration::from_secs(10);

/// What a route of ours is for, as far as the route itself shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// A host route onto a pod's device: gone [`POD_GRACE`] after it was first seen without a record.
    Pod,
    /// The `unreachable` route of a block: gone at once, the blocks are known from the documents.
    Block,
    /// Learned: gone when bgpd's snapshot of the family is complete, or the restart time is over.
    Learned,
}

/// The protocol numbers that are ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ownership {
    /// Numbers of learned routes: the configured one, and those configured earlier in this process.
    learned: BTreeSet<u8>,
}

impl Ownership {
    /// Learned routes bear this number.
    pub fn new(protocol: u8) -> Ownership {
        Ownership { learned: BTreeSet::from([protocol]) }
    }

    /// Learned routes bear this number from now on; those with earlier ones are still ours to remove.
    pub fn add(&mut self, protocol: u8) {
        self.learned.insert(protocol);
    }

    /// Whether a protocol number is that of learned routes and nexthop objects: ours, whatever bears it.
    pub fn is_learned(&self, protocol: u8) -> bool {
        self.learned.contains(&protocol)
    }

    /// Whether a protocol number is that of pod and block routes, which is [`ROUTE_PROTOCOL`] whatever is configured,
    /// because the plugin, which reads no documents, writes some of them. Other routes with it are somebody else's
    /// unless it is configured.
    pub fn is_plugin(protocol: u8) -> bool {
        protocol == ROUTE_PROTOCOL
    }
}

/// What a route of ours is for.
pub fn classify(
    key: &RouteKey,
    kind: RouteKind,
    hops: &[NextHop],
    is_pod_device: impl Fn(u32) -> bool,
) -> Class {
    let host = key.destination.prefix() == key.family().bits();
    match (kind, hops) {
        (RouteKind::Unreachable, _) => Class::Block,
        (RouteKind::Unicast, [hop]) if host && hop.gateway.is_none() && is_pod_device(hop.ifindex) => {
            Class::Pod
        }
        _ => Class::Learned,
    }
}

/// Whether a device is the host end of a pod's.
pub fn is_pod_device(link: &Link) -> bool {
    link.name.strip_prefix(VETH_PREFIX).is_some_and(|rest| {
        rest.len() == 12 && rest.bytes().all(|byte| byte.is_ascii_hexdigit() && !byte.is_ascii_uppercase())
    })
}

/// Whether a host route that has been there since `seen` without a record may go.
pub fn grace_over(seen: Instant, now: Instant) -> bool {
    now.duration_since(seen) >= POD_GRACE
}

#[cfg(test)]
mod tests {
    use causeway_kernel::Route;

    use super::*;

    fn link(name: &str) -> Link {
        Link {
            index: 1,
            name: name.to_owned(),
            admin_up: true,
            running: true,
            loopback: false,
            mtu: 1500,
            mac: None,
            kind: None,
            peer: None,
            tunnel: None,
        }
    }

    #[test]
    fn a_pod_device_has_our_prefix_and_twelve_digits() {
        for (name, is) in [
            ("cw0123456789ab", true),
            ("cw0123456789a", false),
            ("cw0123456789AB", false),
            ("cwlan0", false),
            ("eth0", false),
        ] {
            assert_eq!(is_pod_device(&link(name)), is, "{name}");
        }
    }

    #[test]
    fn routes_are_told_apart_by_what_they_are() {
        let pod = |index: u32| index == 7;
        let gateway = NextHop::gateway("192.0.2.1".parse().unwrap(), 7);
        let learned = Route::unicast("10.1.0.0/16".parse().unwrap(), vec![gateway]);
        let host = Route::unicast("10.1.0.1/32".parse().unwrap(), vec![gateway]);
        let of_pod = Route::pod("10.1.0.1".parse().unwrap(), 7);
        let classify = |route: &Route, pod| super::classify(&route.key, route.kind, &route.next_hops, pod);
        assert_eq!(classify(&learned, pod), Class::Learned);
        assert_eq!(classify(&host, pod), Class::Learned);
        assert_eq!(classify(&of_pod, pod), Class::Pod);
        assert_eq!(classify(&Route::pod("fd00::1".parse().unwrap(), 7), pod), Class::Pod);
        assert_eq!(classify(&Route::pod("10.1.0.1".parse().unwrap(), 8), pod), Class::Learned);
        assert_eq!(classify(&Route::unreachable("10.1.0.0/24".parse().unwrap()), pod), Class::Block);

        let mut ownership = Ownership::new(80);
        assert!(ownership.is_learned(80) && !ownership.is_learned(179));
        assert!(Ownership::is_plugin(179) && !Ownership::is_plugin(80));
        ownership.add(179);
        assert!(ownership.is_learned(80) && ownership.is_learned(179));
    }
}
