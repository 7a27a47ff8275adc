//! What the engine shows: rows of `show fib`, its part of `show node`, numbers for `/metrics`. Reads only.

use std::cmp::Ordering;

use causeway_api::control::{Condition, FibNextHop, FibRoute, NodeInfo, Via};
use causeway_api::fib;
use causeway_api::resource::bgp_configuration::MtuMode;
use causeway_kernel::{NextHop, RouteKey};
use ipnetwork::IpNetwork;

use crate::decision::TunnelMode;
use crate::delta::Standing;
use crate::desired::Bar;
use crate::engine::{Counts, Engine, Feed, foreign, refused};
use crate::forms::Target;
use crate::ownership::{Class, is_pod_device};
use crate::slots::Slot;
use crate::symmetry;

/// How many pods a condition names.
const SPELT_OUT: usize = 16;

/// Which part of `show fib` a row belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Local,
    Learned,
    Kept,
}

/// The name of a row of `show fib`, in the order of the rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowName {
    part: Part,
    key: RouteKey,
}

impl Ord for RowName {
    fn cmp(&self, other: &RowName) -> Ordering {
        let order = |name: &RowName| (name.part, name.key.destination, name.key.metric, name.key.tos);
        order(self).cmp(&order(other))
    }
}

impl PartialOrd for RowName {
    fn partial_cmp(&self, other: &RowName) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

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
    /// The names of the rows of `show fib`, unsorted: costs a look at every slot and no more.
    pub fn row_names(&self) -> Vec<RowName> {
        let slots = self.tracker.slots();
        let locals = self.locals.keys().map(|key| RowName { part: Part::Local, key: *key });
        let learned =
            self.desired.learned().map(|slot| RowName { part: Part::Learned, key: slots.key(slot) });
        let kept = self.tracker.surplus().map(|slot| RowName { part: Part::Kept, key: slots.key(slot) });
        locals.chain(learned).chain(kept).collect()
    }

    /// The rows of these names; those that are gone since are left out.
    pub fn rows_of(&self, names: &[RowName]) -> Vec<FibRoute> {
        names.iter().filter_map(|name| self.row(name)).collect()
    }

    /// The rows of `show fib`: blocks and pods, learned routes, then what is kept; each part by prefix.
    pub fn rows(&self) -> Vec<FibRoute> {
        let mut names = self.row_names();
        names.sort_unstable();
        self.rows_of(&names)
    }

    fn row(&self, name: &RowName) -> Option<FibRoute> {
        let slot = self.tracker.slots().find(&name.key);
        match name.part {
            Part::Local => self.local_row(&name.key),
            Part::Learned => self.learned_row(slot.filter(|slot| self.desired.is_learned(*slot))?),
            Part::Kept => Some(self.kept_row(slot.filter(|slot| self.tracker.is_surplus(*slot))?)),
        }
    }

    fn local_row(&self, key: &RouteKey) -> Option<FibRoute> {
        let local = self.locals.get(key)?;
        let (state, hops) = match &local.route {
            Some(route) => (
                self.tracker.slots().find(key).map_or_else(pending, |slot| self.standing(slot)),
                self.hops(&route.next_hops),
            ),
            None => (pending(), vec![FibNextHop { gateway: None, device: local.device.clone() }]),
        };
        Some(FibRoute {
            prefix: key.destination,
            next_hops: hops,
            via: Some(if local.gateways().is_some() { Via::Direct } else { Via::Local }),
            mtu: None,
            reason: local.reason.clone(),
            state,
        })
    }

    fn kept_row(&self, slot: Slot) -> FibRoute {
        let form = self.tracker.forms().get(self.tracker.has(slot));
        let hops = match form.map(|form| &form.target) {
            Some(Target::Hops(hops)) => hops.as_slice(),
            Some(Target::Object(id)) => self.objects.hops(*id),
            Some(Target::Unknown(_)) | None => &[],
        };
        FibRoute {
            prefix: self.tracker.slots().prefix(slot),
            next_hops: self.hops(hops),
            via: None,
            mtu: form.and_then(|form| form.mtu),
            reason: match self.class(slot) {
                Class::Pod => "no pod has this address on record: it goes soon".to_owned(),
                Class::Block => "no longer a block of this node: it goes now".to_owned(),
                Class::Learned => {
                    "of an earlier run: kept until bgpd's snapshot or the restart time".to_owned()
                }
            },
            state: "kept".to_owned(),
        }
    }

    fn learned_row(&self, slot: Slot) -> Option<FibRoute> {
        let said = self.state(slot);
        let state = match &said {
            Some(fib::RouteState::Installed { .. }) => "installed".to_owned(),
            Some(fib::RouteState::Failed { reason }) => format!("failed: {reason}"),
            Some(fib::RouteState::Pending { .. } | fib::RouteState::Removed) | None => pending(),
        };
        let prefix = self.tracker.slots().prefix(slot);
        let way = self.desired.bundle_at(slot).map(|(_, bundle)| &bundle.way);
        let barred = self.desired.bar(slot) != Bar::Open;
        let none = FibRoute {
            prefix,
            next_hops: Vec::new(),
            via: None,
            mtu: None,
            reason: String::new(),
            state: state.clone(),
        };
        Some(match (way, said) {
            (_, Some(fib::RouteState::Failed { reason })) if barred => FibRoute { reason, ..none },
            (Some(way), _) if way.hops.is_empty() => FibRoute { reason: way.reason.clone(), ..none },
            (Some(way), _) => FibRoute {
                next_hops: self.hops(&way.hops),
                via: Some(via_of(way.via)),
                mtu: way.mtu,
                reason: way.reason.clone(),
                ..none
            },
            (None, _) => none,
        })
    }

    fn standing(&self, slot: Slot) -> String {
        match self.tracker.standing(slot) {
            Some(Standing::Installed) => "installed".to_owned(),
            Some(Standing::Foreign(protocol)) => format!("failed: {}", foreign(protocol)),
            Some(Standing::Failed(refusal)) => format!("failed: {}", refused(&refusal)),
            Some(Standing::Pending) | None => pending(),
        }
    }

    fn hops(&self, hops: &[NextHop]) -> Vec<FibNextHop> {
        hops.iter()
            .map(|hop| FibNextHop { gateway: hop.gateway, device: Some(self.interfaces.name(hop.ifindex)) })
            .collect()
    }

    /// Numbers for the metrics. Costs a look at every bundle, not at every route.
    pub fn numbers(&self) -> Numbers {
        let wanted = self.desired.len() + self.locals.len();
        let installed = self.tracker.installed();
        let by_object: usize = self
            .desired
            .used()
            .filter(|bundle| {
                let object = bundle.object.filter(|object| self.objects.kernel(*object).is_none());
                bundle.way.impossible || object.is_some_and(|object| self.objects.refusal(object).is_some())
            })
            .map(|bundle| bundle.len())
            .sum();
        let failed =
            (self.desired.barred() + by_object + self.tracker.refused()).min(wanted - installed.min(wanted));
        let routes = RouteNumbers {
            installed: installed as u64,
            failed: failed as u64,
            pending: wanted.saturating_sub(installed + failed) as u64,
            kept: self.tracker.surplus_len() as u64,
        };
        let (mtu, _) = self.pod_mtu();
        Numbers { counts: self.counts, routes, bgpd: matches!(self.feed, Feed::Connected(_)), mtu }
    }

    /// The MTU pods get and how it was chosen.
    pub fn pod_mtu(&self) -> (u32, String) {
        let used = self.desired.used().flat_map(|bundle| bundle.way.devices.iter().copied()).collect();
        let (link, reason) = self.interfaces.pod_mtu(&self.config, &used);
        if self.config.mtu_mode != MtuMode::Uniform {
            return (link, reason);
        }
        let tunnels = self.tunnels.devices().map(|(kind, tunnel)| (tunnel.mtu, kind.device()));
        match tunnels.min() {
            Some((mtu, device)) if mtu < link => {
                (mtu, format!("mtu: mtuMode Uniform, and {device} carries packets of {mtu} bytes"))
            }
            _ => (link, reason),
        }
    }

    /// The indexes of the tunnel devices that are there.
    pub fn tunnel_links(&self) -> Vec<u32> {
        self.tunnels.links().collect()
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
        let mut conditions = vec![feed, kernel, routes];
        conditions.extend(self.tunnel_condition());
        conditions.extend(self.pods_condition());
        let underlay = self.interfaces.underlay(&self.config).filter(|interface| interface.link.up());
        let mut subnets: Vec<_> = underlay.flat_map(|interface| interface.subnets.iter().copied()).collect();
        // A node whose address is a loopback's is as well known by it.
        let own: Vec<_> = self.config.addresses.iter().map(IpNetwork::ip).collect();
        let loopback = self.interfaces.loopback();
        subnets.extend(loopback.filter(|subnet| own.contains(&subnet.ip())));
        conditions.extend(symmetry::condition(&self.config, Some(&subnets)));
        conditions
    }

    /// Whether the tunnel devices that pools ask for are there.
    fn tunnel_condition(&self) -> Option<Condition> {
        let asked = self.config.pools.iter().any(|pool| pool.mode != TunnelMode::Never);
        let refused: Vec<&str> = self.tunnels.refused().map(String::as_str).collect();
        if !refused.is_empty() {
            let message = refused.join("; ");
            return Some(Condition::new("TunnelDevices", false, "DeviceRefused", message));
        }
        let names: Vec<&str> = self.tunnels.devices().map(|(kind, _)| kind.device()).collect();
        asked.then(|| {
            let message = match names.is_empty() {
                true => "pools ask for tunnels this node has no address for".to_owned(),
                false => format!("{} as wanted", names.join(", ")),
            };
            Condition::new("TunnelDevices", !names.is_empty(), "Devices", message)
        })
    }

    /// Whether every pod has the MTU that new ones get; those that are older keep theirs until they are made anew.
    fn pods_condition(&self) -> Option<Condition> {
        let (mtu, _) = self.pod_mtu();
        let pods = self.pods.as_deref().filter(|pods| !pods.is_empty())?;
        let other: Vec<String> = self
            .interfaces
            .links()
            .filter(|link| is_pod_device(link) && link.mtu != mtu)
            .flat_map(|link| pods.iter().filter(|pod| pod.device == link.name).map(move |pod| (pod, link)))
            .map(|(pod, link)| format!("{} ({}) has {}", pod.address, link.name, link.mtu))
            .collect();
        Some(match other.len() {
            0 => Condition::new("PodMtu", true, "Uniform", format!("every pod has the MTU {mtu}")),
            count => Condition::new(
                "PodMtu",
                false,
                "OlderPods",
                format!(
                    "{count} pod addresses have another MTU than {mtu}, which new pods get: {}{}",
                    other[..count.min(SPELT_OUT)].join(", "),
                    if count > SPELT_OUT { ", ..." } else { "" }
                ),
            ),
        })
    }
}

fn pending() -> String {
    "pending".to_owned()
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
