//! The way of a group of next hops for the prefixes of one pool: what the kernel's next hops are, and why. Pure.
//!
//! [`decide`] says direct, tunnel, recursive or drop for one next hop; here the group is put together. Members come first;
//! where none of them leads anywhere, the backups do.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use causeway_api::fib::{self, GroupMember, TunnelEndpoint, TunnelType};
use causeway_kernel::tunnel::{vtep_gateway, vtep_mac};
use causeway_kernel::{Family, Mac, NextHop};
use ipnetwork::IpNetwork;

use crate::config::Config;
use crate::decision::{Decision, Inputs, Kind, Target, TunnelMode, decide};
use crate::next_hop::Resolution;
use crate::tunnel::Peer;

/// The largest weight of a next hop that every kernel takes in a group.
const MOST: u16 = 255;

/// The number of a [`Class`].
pub type ClassId = u16;

/// What besides its group decides about the way of a prefix: the pool it lies in, by name, and its family.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Class {
    /// The name of the pool; `None`: in no pool.
    pub pool: Option<String>,
    /// The family of its prefixes.
    pub ipv6: bool,
}

/// All classes there ever were, and those of the pools there are.
#[derive(Debug)]
pub struct Classes {
    list: Vec<Class>,
    /// The class of each pool of the configuration, in its order.
    of_pools: Vec<ClassId>,
}

impl Default for Classes {
    fn default() -> Classes {
        let none = |ipv6| Class { pool: None, ipv6 };
        Classes { list: vec![none(false), none(true)], of_pools: Vec::new() }
    }
}

impl Classes {
    /// Other pools are in force.
    pub fn configure(&mut self, config: &Config) {
        self.of_pools = config
            .pools
            .iter()
            .map(|pool| {
                let class = Class { pool: Some(pool.name.clone()), ipv6: pool.cidr.is_ipv6() };
                let known = self.list.iter().position(|other| *other == class);
                known.or_else(|| {
                    self.list.push(class);
                    Some(self.list.len() - 1)
                })
            })
            .map(|id| id.and_then(|id| ClassId::try_from(id).ok()).unwrap_or(0))
            .collect();
    }

    /// The class of a prefix.
    pub fn of(&self, prefix: &IpNetwork, config: &Config) -> ClassId {
        let none = ClassId::from(prefix.is_ipv6());
        let pool = config.pool_index(prefix).and_then(|index| self.of_pools.get(index));
        pool.copied().unwrap_or(none)
    }

    /// A class by number.
    pub fn get(&self, id: ClassId) -> &Class {
        self.list.get(usize::from(id)).unwrap_or(&self.list[0])
    }
}

/// What a group comes to in the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Way {
    /// Kernel next hops, sorted; empty when none resolves.
    pub hops: Vec<NextHop>,
    /// The next hop that takes over when the kernel loses these.
    pub standby: Option<NextHop>,
    /// How packets leave.
    pub via: fib::Via,
    /// Path MTU of routes that go into a tunnel, in bytes.
    pub mtu: Option<u32>,
    /// Why this way, or why none.
    pub reason: String,
    /// Every next hop lies in a connected subnet: other next hops may resolve through routes that go this way.
    pub direct: bool,
    /// The devices packets leave the node through, outer packets included.
    pub devices: BTreeSet<u32>,
    /// The VXLAN ends it needs.
    pub peers: BTreeSet<Peer>,
    /// The kinds of tunnel it needs.
    pub kinds: BTreeSet<Kind>,
    /// The kernel cannot do it, whatever becomes of links and routes.
    pub impossible: bool,
}

/// What the world looks like from here: resolution, tunnel devices, links.
pub trait Lookout {
    /// Resolves a next hop.
    fn resolve(&self, next_hop: &fib::NextHop) -> Resolution;
    /// The routers and devices that lead to a next hop.
    fn ways(&self, next_hop: &fib::NextHop) -> Vec<(IpAddr, u32)>;
    /// The index of a tunnel device that is there, or why it is not.
    fn tunnel(&self, kind: Kind) -> Result<u32, String>;
    /// The name and MTU of a link.
    fn link(&self, index: u32) -> Option<(&str, u32)>;
}

/// Works out the way of a group for a class.
pub fn way(
    members: &[GroupMember],
    backups: &[GroupMember],
    class: &Class,
    config: &Config,
    world: &impl Lookout,
) -> Way {
    let mut first = of_members(members, class, config, world);
    if backups.is_empty() || first.impossible {
        return first;
    }
    let second = of_members(backups, class, config, world);
    if second.hops.is_empty() {
        return first;
    }
    if !first.hops.is_empty() {
        // One through another device outlives the link.
        let spare = |hop: &&NextHop| first.hops.iter().all(|other| other.ifindex != hop.ifindex);
        first.standby = second.hops.iter().find(spare).copied();
        if let Some(NextHop { gateway: Some(gateway), ifindex, .. }) = first.standby {
            let device = world.link(ifindex).map_or("?", |(name, _)| name);
            first.reason.push_str(&format!("; {gateway} ({device}) stands by"));
            first.peers.extend(second.peers);
            first.kinds.extend(second.kinds);
        }
        return first;
    }
    Way { reason: format!("backup path, because {}: {}", first.reason, second.reason), ..second }
}

/// What one member adds.
struct Added {
    via: fib::Via,
    reason: String,
}

fn of_members(members: &[GroupMember], class: &Class, config: &Config, world: &impl Lookout) -> Way {
    let mut hops: BTreeMap<(IpAddr, u32, bool), u16> = BTreeMap::new();
    let mut way = Way {
        hops: Vec::new(),
        standby: None,
        via: fib::Via::Direct,
        mtu: None,
        reason: String::new(),
        direct: true,
        devices: BTreeSet::new(),
        peers: BTreeSet::new(),
        kinds: BTreeSet::new(),
        impossible: false,
    };
    let mut chosen: Option<Added> = None;
    let mut missing: Vec<String> = Vec::new();
    for member in members {
        let mut added = Vec::new();
        match of_member(member, class, config, world, &mut added, &mut way) {
            Ok(one) => {
                way.direct &= one.via == fib::Via::Direct;
                // A tunnel says more than a router, and a router more than the link.
                if chosen.as_ref().is_none_or(|chosen| rank(one.via) > rank(chosen.via)) {
                    chosen = Some(one);
                }
            }
            Err(reason) => missing.push(reason),
        }
        for hop in added {
            // Two BGP next hops behind one router share its next hop.
            let weight = hops.entry(hop).or_insert(0);
            *weight = weight.saturating_add(u16::from(member.weight)).min(MOST);
        }
    }
    missing.sort_unstable();
    missing.dedup();
    way.hops = hops
        .into_iter()
        .map(|((gateway, ifindex, onlink), weight)| NextHop {
            gateway: Some(gateway),
            ifindex,
            weight,
            onlink,
        })
        .collect();
    way.hops.sort_unstable();
    if let [only] = &mut way.hops[..] {
        // The kernel keeps no weight for a single next hop.
        only.weight = 1;
    }
    way.direct &= missing.is_empty() && !way.hops.is_empty();
    match chosen {
        Some(Added { via, reason }) => {
            way.via = via;
            way.reason = match missing.is_empty() {
                true => reason,
                false => format!("{reason}; without {}", missing.join(", ")),
            };
        }
        None => way.reason = missing.join(", "),
    }
    if class.ipv6 && way.hops.iter().any(|hop| hop.gateway.is_some_and(|gateway| gateway.is_ipv4())) {
        way.hops.clear();
        way.direct = false;
        way.impossible = true;
        way.reason = "refused: the kernel routes no IPv6 through an IPv4 next hop".to_owned();
    }
    way
}

fn rank(via: fib::Via) -> u8 {
    match via {
        fib::Via::Local => 0,
        fib::Via::Direct => 1,
        fib::Via::Recursive => 2,
        fib::Via::Ipip | fib::Via::Vxlan => 3,
    }
}

/// Adds the kernel's next hops for one member, or says why there is none.
fn of_member(
    member: &GroupMember,
    class: &Class,
    config: &Config,
    world: &impl Lookout,
    hops: &mut Vec<(IpAddr, u32, bool)>,
    way: &mut Way,
) -> Result<Added, String> {
    let next_hop = &member.next_hop;
    let resolution = world.resolve(next_hop);
    let pool = class.pool.as_deref().and_then(|name| config.pools.iter().find(|pool| pool.name == name));
    let family = if class.ipv6 { Family::Ipv6 } else { Family::Ipv4 };
    let endpoint = target(member, config);
    let outer = match &endpoint {
        Some(endpoint) if endpoint.address != next_hop.address => {
            world.resolve(&fib::NextHop::global(endpoint.address))
        }
        _ => resolution,
    };
    let device = match resolution {
        Resolution::Connected { ifindex } | Resolution::Gateway { ifindex, .. } => world.link(ifindex),
        Resolution::Unreachable => None,
    };
    let decided = decide(&Inputs {
        pool: class.pool.as_deref(),
        mode: pool.map_or(TunnelMode::Never, |pool| pool.mode),
        family,
        next_hop: next_hop.address,
        resolution: &resolution,
        device: device.map_or("?", |(name, _)| name),
        endpoint: endpoint.as_ref(),
        outer: &outer,
        own_zone: config.zone.as_deref(),
        vni: config.vxlan_vni,
    });
    let via = match decided.decision {
        Decision::Drop => return Err(decided.reason),
        Decision::Direct | Decision::Recursive => {
            let through = world.ways(next_hop);
            way.devices.extend(through.iter().map(|(_, ifindex)| *ifindex));
            hops.extend(through.into_iter().map(|(gateway, ifindex)| (gateway, ifindex, false)));
            if decided.decision == Decision::Direct { fib::Via::Direct } else { fib::Via::Recursive }
        }
        Decision::Tunnel(kind) => {
            way.kinds.insert(kind);
            let Some(endpoint) = &endpoint else { return Err(decided.reason) };
            let index = world.tunnel(kind).map_err(|obstacle| format!("{}: {obstacle}", decided.reason))?;
            let outer: Vec<u32> = world
                .ways(&fib::NextHop::global(endpoint.address))
                .into_iter()
                .map(|(_, ifindex)| ifindex)
                .collect();
            let mtu = outer.iter().filter_map(|index| world.link(*index)).map(|(_, mtu)| mtu).min();
            let mtu = mtu.map(|mtu| inner_mtu(mtu, kind));
            way.mtu = [way.mtu, mtu].into_iter().flatten().min();
            way.devices.extend(outer);
            let gateway = gateway(kind, endpoint.address, family);
            if kind.is_vxlan() {
                let mac = endpoint.mac.unwrap_or_else(|| vtep_mac(endpoint.address));
                way.peers.insert(Peer { kind, gateway, mac, remote: endpoint.address });
            }
            hops.push((gateway, index, true));
            if kind.is_vxlan() { fib::Via::Vxlan } else { fib::Via::Ipip }
        }
    };
    Ok(Added { via, reason: decided.reason })
}

/// What fits into a tunnel over a link; never less than IPv6 needs.
pub fn inner_mtu(link: u32, kind: Kind) -> u32 {
    link.saturating_sub(kind.overhead()).max(1280)
}

/// What routes name as the gateway for the other end of a tunnel.
fn gateway(kind: Kind, endpoint: IpAddr, inner: Family) -> IpAddr {
    match kind {
        // The gateway is the outer destination.
        Kind::Ipip => endpoint,
        Kind::Vxlan if inner == Family::Ipv4 => endpoint,
        Kind::Vxlan | Kind::Vxlan6 => vtep_gateway(endpoint),
    }
}

/// Where a tunnel to a member would end.
fn target(member: &GroupMember, config: &Config) -> Option<Target> {
    if let Some(TunnelEndpoint { kind, address, vni, mac }) = &member.tunnel {
        let kind = match kind {
            TunnelType::Vxlan => Some(Kind::vxlan_over(Family::of(address))),
            TunnelType::Ipip => Some(Kind::Ipip),
            TunnelType::Any => None,
        };
        return Some(Target {
            name: "RFC 9012 attribute".to_owned(),
            address: *address,
            zone: config.endpoints.get(address).and_then(|endpoint| endpoint.zone.clone()),
            kind,
            mac: mac.map(Mac),
            vni: *vni,
        });
    }
    let address = member.next_hop.address;
    let endpoint = config.endpoints.get(&address)?;
    Some(Target {
        name: endpoint.node.clone(),
        address,
        zone: endpoint.zone.clone(),
        kind: None,
        mac: None,
        vni: None,
    })
}
