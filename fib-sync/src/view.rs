//! What the engine shows: rows of `show fib`, its part of `show node`, numbers for `/metrics`. Reads only.

use causeway_api::control::{Condition, FibNextHop, FibRoute, NodeInfo, Via};
use causeway_api::fib;
use causeway_kernel::Route;
use ipnetwork::IpNetwork;

use crate::delta::Standing;
use crate::desired::Verdict;
use crate::engine::{Counts, Engine, Feed, foreign, refused};
use crate::ownership::Class;

/// Routes by what became of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RouteNumbers {
    /// In the kernel as wanted.
    pub installed: u64,
    /// Not yet, or not possible now.
    pub pending: u64,
    /// Refused by the guard or the kernel, or a foreign route is in the way.
    pub failed: u64,
    /// In the kernel, wanted by nobody now, and kept for a while.
    pub kept: u64,
}

/// Everything the metrics need.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Numbers {
    /// Counts since the start.
    pub counts: Counts,
    /// Present numbers.
    pub routes: RouteNumbers,
    /// Whether bgpd is connected.
    pub bgpd: bool,
    /// The MTU pods get, in bytes.
    pub mtu: u32,
}

impl Engine {
    /// The rows of `show fib`: blocks and pods, learned routes, then what is kept; each part by prefix.
    pub fn rows(&self) -> Vec<FibRoute> {
        let mut rows: Vec<FibRoute> = Vec::new();
        for (key, local) in &self.locals {
            let (state, hops) = match &local.route {
                Some(route) => (self.standing(route), self.hops(route)),
                None => {
                    ("pending".to_owned(), vec![FibNextHop { gateway: None, device: local.device.clone() }])
                }
            };
            rows.push(FibRoute {
                prefix: key.destination,
                next_hops: hops,
                via: Some(if local.gateways().is_some() { Via::Direct } else { Via::Local }),
                mtu: None,
                reason: local.reason.clone(),
                state,
            });
        }
        let mut prefixes: Vec<&IpNetwork> = self.desired.prefixes().collect();
        prefixes.sort_unstable();
        rows.extend(prefixes.into_iter().filter_map(|prefix| self.learned_row(prefix)));
        rows.extend(self.tracker.surplus().map(|route| FibRoute {
            prefix: route.key.destination,
            next_hops: self.hops(route),
            via: None,
            mtu: None,
            reason: match self.class(route) {
                Class::Pod => "no pod has this address on record: it goes soon".to_owned(),
                Class::Block => "no longer a block of this node: it goes now".to_owned(),
                Class::Learned => {
                    "of an earlier run: kept until bgpd's snapshot or the restart time".to_owned()
                }
            },
            state: "kept".to_owned(),
        }));
        rows
    }

    fn learned_row(&self, prefix: &IpNetwork) -> Option<FibRoute> {
        let state = match self.state(prefix) {
            Some(fib::RouteState::Installed { .. }) => "installed".to_owned(),
            Some(fib::RouteState::Failed { reason }) => format!("failed: {reason}"),
            Some(fib::RouteState::Pending { .. } | fib::RouteState::Removed) | None => "pending".to_owned(),
        };
        let (via, reason) = match self.desired.verdict(prefix)? {
            Verdict::Route { via, reason } => (Some(via_of(via)), reason),
            Verdict::Unresolved(reason) | Verdict::Refused(reason) => (None, reason),
        };
        let route = self.desired.wanted(prefix, &self.config);
        let next_hops = route.map(|route| self.hops(&route)).unwrap_or_default();
        Some(FibRoute { prefix: *prefix, next_hops, via, mtu: None, reason: reason.to_owned(), state })
    }

    fn standing(&self, route: &Route) -> String {
        match self.tracker.standing(&route.key) {
            Some(Standing::Installed) => "installed".to_owned(),
            Some(Standing::Foreign(protocol)) => format!("failed: {}", foreign(protocol)),
            Some(Standing::Failed(refusal)) => format!("failed: {}", refused(&refusal)),
            Some(Standing::Pending) | None => "pending".to_owned(),
        }
    }

    fn hops(&self, route: &Route) -> Vec<FibNextHop> {
        let hops = route.next_hops.iter();
        hops.map(|hop| FibNextHop { gateway: hop.gateway, device: Some(self.interfaces.name(hop.ifindex)) })
            .collect()
    }

    /// Numbers for the metrics. Costs a look at every route.
    pub fn numbers(&self) -> Numbers {
        let mut routes = RouteNumbers::default();
        for local in self.locals.values() {
            match local.route.as_ref().and_then(|route| self.tracker.standing(&route.key)) {
                Some(Standing::Installed) => routes.installed += 1,
                Some(Standing::Foreign(_) | Standing::Failed(_)) => routes.failed += 1,
                Some(Standing::Pending) | None => routes.pending += 1,
            }
        }
        for prefix in self.desired.prefixes() {
            match self.state(prefix) {
                Some(fib::RouteState::Installed { .. }) => routes.installed += 1,
                Some(fib::RouteState::Failed { .. }) => routes.failed += 1,
                Some(fib::RouteState::Pending { .. } | fib::RouteState::Removed) | None => {
                    routes.pending += 1
                }
            }
        }
        routes.kept = self.tracker.surplus().count() as u64;
        let (mtu, _) = self.pod_mtu();
        Numbers { counts: self.counts, routes, bgpd: matches!(self.feed, Feed::Connected(_)), mtu }
    }

    /// The MTU pods get and how it was chosen.
    pub fn pod_mtu(&self) -> (u32, String) {
        self.interfaces.pod_mtu(&self.config, &self.desired.devices())
    }

    /// The names of the underlay links.
    pub fn underlay(&self) -> Vec<String> {
        self.interfaces.underlay(&self.config).map(|interface| interface.link.name.clone()).collect()
    }

    /// This daemon's part of `show node`. Its own conditions only: feed, kernel, routes.
    pub fn node(&self) -> NodeInfo {
        let (mtu, mtu_reason) = self.pod_mtu();
        let address = |v4: bool| {
            let own = self.config.addresses.iter().find(|address| address.is_ipv4() == v4);
            own.map(ToString::to_string)
        };
        let mut chosen = vec![mtu_reason];
        for own in &self.config.addresses {
            let holder = self
                .interfaces
                .underlay(&self.config)
                .find(|interface| interface.subnets.iter().any(|subnet| subnet.ip() == own.ip()));
            chosen.push(match holder {
                Some(interface) => format!("address: {own} is on {}", interface.link.name),
                None => format!("address: {own} is on no underlay link"),
            });
        }
        NodeInfo {
            name: self.config.node.clone(),
            ipv4_address: address(true),
            ipv6_address: address(false),
            mtu: Some(mtu),
            chosen,
            pod_cidrs: self.config.own_blocks.clone(),
            conditions: self.conditions(),
            ..NodeInfo::default()
        }
    }

    fn conditions(&self) -> Vec<Condition> {
        let feed = match self.feed {
            Feed::Connected([true, true]) => {
                Condition::new("BgpdConnected", true, "Connected", "bgpd is connected")
            }
            Feed::Connected(_) => Condition::new(
                "BgpdConnected",
                true,
                "SnapshotIncomplete",
                "bgpd is connected and has not finished its snapshot: routes of an earlier run are kept",
            ),
            Feed::Away(_) => Condition::new(
                "BgpdConnected",
                false,
                "Away",
                format!("bgpd is away: its routes are kept for {} s", self.config.restart_time.as_secs()),
            ),
            Feed::Swept => Condition::new(
                "BgpdConnected",
                false,
                "Swept",
                "bgpd has been away for longer than the restart time: its routes are deleted",
            ),
        };
        let kernel = match &self.kernel_error {
            None => Condition::new("KernelReachable", true, "Reachable", "netlink works"),
            Some(error) => Condition::new("KernelReachable", false, "NetlinkFailed", error.clone()),
        };
        let failed = self.numbers().routes.failed;
        let routes = match failed {
            0 => Condition::new("RoutesInstalled", true, "Installed", "no route failed"),
            _ => Condition::new(
                "RoutesInstalled",
                false,
                "RoutesFailed",
                format!("{failed} routes failed: `causeway show fib` says why"),
            ),
        };
        vec![feed, kernel, routes]
    }
}

fn via_of(via: fib::Via) -> Via {
    match via {
        fib::Via::Direct => Via::Direct,
        fib::Via::Ipip => Via::Ipip,
        fib::Via::Vxlan => Via::Vxlan,
        fib::Via::Recursive => Via::Recursive,
        fib::Via::Local => Via::Local,
    }
}
