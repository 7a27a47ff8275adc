//! What the kernel should have: learned routes through their groups, own blocks, local pods. Pure.
//!
//! Routes hang on groups and groups on next hops: a resolution that changes is worked out once a group, whatever hangs
//! on it. A new connection of bgpd opens a new *epoch*: entries of earlier ones stay as they are, groups and all,
//! until the end-of-snapshot mark of their family (or the restart time) takes those away that were not named again.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use causeway_api::fib::{self, Family, GroupMember, Via};
use causeway_kernel::route::MAIN_TABLE;
use causeway_kernel::{Family as KernelFamily, NextHop, Route, RouteKey};
use ipnetwork::IpNetwork;

use crate::config::Config;
use crate::guard::Guard;
use crate::next_hop::{Resolution, Table};

/// The most groups bgpd may have; a route that names one beyond is `failed`.
pub const MAX_GROUPS: usize = 65_536;
/// The most learned prefixes; further ones are `failed`.
pub const MAX_ROUTES: usize = 4_000_000;

type GroupKey = (u64, u32);

/// What a group comes to in the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Way {
    /// Kernel next hops, sorted; empty when none resolves.
    pub hops: Vec<NextHop>,
    /// How packets leave.
    pub via: Via,
    /// Why this way, or why none.
    pub reason: String,
    /// Every next hop lies in a connected subnet: other next hops may resolve through routes that go this way.
    pub direct: bool,
}

#[derive(Debug)]
struct Group {
    members: Vec<GroupMember>,
    way: Way,
    prefixes: BTreeSet<IpNetwork>,
    /// bgpd has deleted it; it goes with its last route.
    deleted: bool,
}

#[derive(Debug)]
struct Learned {
    group: GroupKey,
    generation: u64,
    refused: Option<String>,
}

/// How things stand with a prefix bgpd asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict<'a> {
    /// A route.
    Route {
        /// How packets leave.
        via: Via,
        /// Why this way.
        reason: &'a str,
    },
    /// Nothing for now: no next hop resolves.
    Unresolved(&'a str),
    /// Nothing: the guard refused it, or the request makes no sense.
    Refused(&'a str),
}

/// Why an IPv6 route over an IPv4 next hop is not made.
const IPV6_OVER_IPV4: &str = "refused: the kernel routes no IPv6 through an IPv4 next hop";

/// The learned part of the desired set.
#[derive(Debug, Default)]
pub struct Desired {
    epoch: u64,
    groups: HashMap<GroupKey, Group>,
    learned: HashMap<IpNetwork, Learned>,
}

impl Desired {
    /// bgpd begins a snapshot.
    pub fn begin_snapshot(&mut self) {
        self.epoch += 1;
        self.groups.retain(|_, group| !group.prefixes.is_empty());
    }

    /// Creates or replaces a group. Returns the prefixes whose route follows.
    pub fn set_group(&mut self, id: u32, members: Vec<GroupMember>, table: &Table) -> Vec<IpNetwork> {
        let way = resolve(&members, table);
        let full = self.groups.len() >= MAX_GROUPS;
        match self.groups.get_mut(&(self.epoch, id)) {
            Some(group) => {
                group.members = members;
                group.deleted = false;
                if group.way == way {
                    return Vec::new();
                }
                group.way = way;
                group.prefixes.iter().copied().collect()
            }
            None if full => Vec::new(),
            None => {
                let group = Group { members, way, prefixes: BTreeSet::new(), deleted: false };
                self.groups.insert((self.epoch, id), group);
                Vec::new()
            }
        }
    }

    /// Deletes a group, or marks it for deletion with its last route.
    pub fn delete_group(&mut self, id: u32) {
        let key = (self.epoch, id);
        if let Some(group) = self.groups.get_mut(&key) {
            group.deleted = true;
        }
        self.drop_unused(key);
    }

    /// Creates or replaces a learned route.
    pub fn set_route(&mut self, prefix: IpNetwork, group: u32, generation: u64, guard: &Guard) {
        let key = (self.epoch, group);
        let mut refused = guard.check(&prefix).err();
        if self.learned.len() >= MAX_ROUTES && !self.learned.contains_key(&prefix) {
            refused = Some(format!("refused: more than {MAX_ROUTES} routes"));
        }
        match self.groups.get_mut(&key) {
            Some(group) => {
                group.prefixes.insert(prefix);
            }
            None => refused = Some(format!("refused: it names next-hop group {group}, which there is not")),
        }
        if let Some(old) = self.learned.insert(prefix, Learned { group: key, generation, refused })
            && old.group != key
        {
            self.leave(old.group, &prefix);
        }
    }

    /// Removes a learned route; whether there was one.
    pub fn withdraw(&mut self, prefix: &IpNetwork) -> bool {
        match self.learned.remove(prefix) {
            Some(learned) => {
                self.leave(learned.group, prefix);
                true
            }
            None => false,
        }
    }

    fn leave(&mut self, key: GroupKey, prefix: &IpNetwork) {
        if let Some(group) = self.groups.get_mut(&key) {
            group.prefixes.remove(prefix);
        }
        self.drop_unused(key);
    }

    fn drop_unused(&mut self, key: GroupKey) {
        let of_the_past = key.0 != self.epoch;
        if self
            .groups
            .get(&key)
            .is_some_and(|group| group.prefixes.is_empty() && (group.deleted || of_the_past))
        {
            self.groups.remove(&key);
        }
    }

    /// Removes the routes of a family that the present epoch did not name; returns them.
    pub fn end_snapshot(&mut self, family: Family) -> Vec<IpNetwork> {
        let epoch = self.epoch;
        self.remove_where(|prefix, learned| Family::of(prefix) == family && learned.group.0 != epoch)
    }

    /// Removes every learned route and group; returns the routes.
    pub fn clear(&mut self) -> Vec<IpNetwork> {
        let gone = self.remove_where(|_, _| true);
        self.groups.clear();
        gone
    }

    fn remove_where(&mut self, gone: impl Fn(&IpNetwork, &Learned) -> bool) -> Vec<IpNetwork> {
        let gone: Vec<IpNetwork> = self
            .learned
            .iter()
            .filter(|(prefix, learned)| gone(prefix, learned))
            .map(|(prefix, _)| *prefix)
            .collect();
        for prefix in &gone {
            self.withdraw(prefix);
        }
        gone
    }

    /// Resolves every group anew; returns the prefixes whose route follows.
    pub fn resolve_all(&mut self, table: &Table) -> Vec<IpNetwork> {
        let mut changed = Vec::new();
        for group in self.groups.values_mut() {
            let way = resolve(&group.members, table);
            if way != group.way {
                group.way = way;
                changed.extend(group.prefixes.iter().copied());
            }
        }
        changed
    }

    /// Asks a changed guard about every route; returns the prefixes for which the answer is another.
    pub fn guard_all(&mut self, guard: &Guard) -> Vec<IpNetwork> {
        let mut changed = Vec::new();
        for (prefix, learned) in &mut self.learned {
            if !self.groups.contains_key(&learned.group) {
                continue;
            }
            let refused = guard.check(prefix).err();
            if refused != learned.refused {
                learned.refused = refused;
                changed.push(*prefix);
            }
        }
        changed
    }

    /// All learned prefixes.
    pub fn prefixes(&self) -> impl Iterator<Item = &IpNetwork> {
        self.learned.keys()
    }

    /// Whether a prefix is learned.
    pub fn contains(&self, prefix: &IpNetwork) -> bool {
        self.learned.contains_key(prefix)
    }

    /// How many learned prefixes there are.
    pub fn len(&self) -> usize {
        self.learned.len()
    }

    /// Whether there is no learned prefix.
    pub fn is_empty(&self) -> bool {
        self.learned.is_empty()
    }

    /// The generation of a learned prefix, if it was named on the present connection.
    pub fn generation(&self, prefix: &IpNetwork) -> Option<u64> {
        self.learned
            .get(prefix)
            .filter(|learned| learned.group.0 == self.epoch)
            .map(|learned| learned.generation)
    }

    /// The devices that routes use now.
    pub fn devices(&self) -> BTreeSet<u32> {
        let used = self.groups.values().filter(|group| !group.prefixes.is_empty());
        used.flat_map(|group| &group.way.hops).map(|hop| hop.ifindex).collect()
    }

    /// How things stand with a learned prefix; `None` for one that is not learned.
    pub fn verdict(&self, prefix: &IpNetwork) -> Option<Verdict<'_>> {
        let learned = self.learned.get(prefix)?;
        if let Some(refused) = &learned.refused {
            return Some(Verdict::Refused(refused));
        }
        let Way { hops, via, reason, .. } = &self.groups.get(&learned.group)?.way;
        if hops.is_empty() {
            return Some(Verdict::Unresolved(reason));
        }
        if prefix.is_ipv6() && hops.iter().any(|hop| hop.gateway.is_some_and(|gateway| gateway.is_ipv4())) {
            return Some(Verdict::Refused(IPV6_OVER_IPV4));
        }
        Some(Verdict::Route { via: *via, reason })
    }

    /// The route that should be at a learned prefix, if any.
    pub fn wanted(&self, prefix: &IpNetwork, config: &Config) -> Option<Route> {
        let Verdict::Route { .. } = self.verdict(prefix)? else { return None };
        let group = self.groups.get(&self.learned.get(prefix)?.group)?;
        Some(Route {
            key: learned_key(*prefix, config),
            protocol: config.protocol,
            ..Route::unicast(*prefix, group.way.hops.clone())
        })
    }
}

impl Desired {
    /// Where a learned prefix goes, if through connected next hops alone.
    pub fn direct(&self, prefix: &IpNetwork) -> Option<&[NextHop]> {
        let Verdict::Route { .. } = self.verdict(prefix)? else { return None };
        let way = &self.groups.get(&self.learned.get(prefix)?.group)?.way;
        way.direct.then_some(&way.hops[..])
    }
}

/// The kernel's key of a learned route.
pub fn learned_key(prefix: IpNetwork, config: &Config) -> RouteKey {
    RouteKey { table: MAIN_TABLE, destination: prefix, tos: 0, metric: config.metric }
}

/// Works out what a group comes to.
fn resolve(members: &[GroupMember], table: &Table) -> Way {
    let mut hops: BTreeMap<(IpAddr, u32), u16> = BTreeMap::new();
    let mut through = None;
    let mut missing = Vec::new();
    for member in members {
        let next_hop = &member.next_hop;
        match table.resolve(next_hop) {
            Resolution::Unreachable => missing.push(next_hop.address.to_string()),
            Resolution::Connected { .. } => {}
            Resolution::Gateway { gateway, .. } => {
                through.get_or_insert((next_hop.address, gateway));
            }
        }
        for way in table.ways(next_hop) {
            // Two BGP next hops behind one router share its next hop.
            let weight = hops.entry(way).or_insert(0);
            *weight = weight.saturating_add(u16::from(member.weight)).min(256);
        }
    }
    missing.sort_unstable();
    let mut hops: Vec<NextHop> = hops
        .into_iter()
        .map(|((gateway, ifindex), weight)| NextHop {
            gateway: Some(gateway),
            ifindex,
            weight,
            onlink: false,
        })
        .collect();
    if let [only] = &mut hops[..] {
        // The kernel keeps no weight for a single next hop.
        only.weight = 1;
    }
    hops.sort_unstable();
    let lost =
        if missing.is_empty() { String::new() } else { format!("; {} unreachable", missing.join(", ")) };
    let (via, reason) = match (&hops[..], through) {
        ([], _) => (Via::Direct, format!("next hop unreachable: {}", missing.join(", "))),
        (_, None) => (Via::Direct, format!("next hop in a connected subnet{lost}")),
        (_, Some((address, gateway))) => {
            (Via::Recursive, format!("next hop {address} lies behind {gateway}{lost}"))
        }
    };
    let direct = through.is_none() && missing.is_empty() && !hops.is_empty();
    Way { hops, via, reason, direct }
}

/// A route of the node's own: a block, a pod, or the way to a peer behind a gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Local {
    /// The route; `None` while it cannot be made.
    pub route: Option<Route>,
    /// Why it is there, or why it is not yet.
    pub reason: String,
    /// The device it is waiting for or uses.
    pub device: Option<String>,
}

/// A local pod's address and its device.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pod {
    /// The address.
    pub address: IpAddr,
    /// The host end of its veth pair.
    pub device: String,
}

impl Local {
    /// Where it goes, if through a gateway: what next hops may resolve through.
    pub fn gateways(&self) -> Option<&[NextHop]> {
        let hops = &self.route.as_ref()?.next_hops;
        hops.iter().any(|hop| hop.gateway.is_some()).then_some(hops)
    }
}

/// The local part of the desired set. `device` finds the index of a device that is there, `link` that of the one a
/// connected address is on.
pub fn locals(
    config: &Config,
    pods: &[Pod],
    device: impl Fn(&str) -> Option<u32>,
    link: impl Fn(IpAddr) -> Option<u32>,
) -> BTreeMap<RouteKey, Local> {
    let mut locals = BTreeMap::new();
    for block in &config.own_blocks {
        let route = Route::unreachable(*block);
        let reason = "a block of this node: its unused addresses lead nowhere".to_owned();
        locals.insert(route.key, Local { route: Some(route), reason, device: None });
    }
    for host in &config.host_routes {
        let destination = IpNetwork::from(host.destination);
        let hop = link(host.gateway).map(|ifindex| NextHop {
            gateway: Some(host.gateway),
            ifindex,
            weight: 1,
            onlink: false,
        });
        let reason = match hop {
            Some(_) => "a BGP peer that is reachable by this gateway".to_owned(),
            None => format!("reachableBy {}: not in a connected subnet", host.gateway),
        };
        // Only fib-sync writes these, so they bear the configured number and metric, as learned routes do.
        let key = learned_key(destination, config);
        let route =
            hop.map(|hop| Route { key, protocol: config.protocol, ..Route::unicast(destination, vec![hop]) });
        locals.insert(key, Local { route, reason, device: None });
    }
    for pod in pods {
        let index = device(&pod.device);
        let reason = match index {
            Some(_) => "a local pod".to_owned(),
            None => format!("waiting for device {} of a local pod", pod.device),
        };
        let key = RouteKey::ours(IpNetwork::from(pod.address));
        let route = index.map(|index| Route::pod(pod.address, index));
        locals.insert(key, Local { route, reason, device: Some(pod.device.clone()) });
    }
    locals
}

/// The kernel crate's word for a family.
pub fn kernel_family(family: Family) -> KernelFamily {
    match family {
        Family::Ipv4 => KernelFamily::Ipv4,
        Family::Ipv6 => KernelFamily::Ipv6,
    }
}

/// The feed's word for a family.
pub fn feed_family(family: KernelFamily) -> fib::Family {
    match family {
        KernelFamily::Ipv4 => Family::Ipv4,
        KernelFamily::Ipv6 => Family::Ipv6,
    }
}
