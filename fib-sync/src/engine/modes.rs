//! Another configuration, and what tunnels it takes.
//!
//! A pool whose routes go into another kind of tunnel than before keeps its old way for [`MODE_DELAY`], while the new device
//! is there already: nodes read the documents one after the other, and what arrives through a tunnel nobody has made
//! yet is lost.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Instant;

use causeway_kernel::Tunnel;
use causeway_kernel::tunnel::{TunnelKind, vtep_mac};
use ipnetwork::IpNetwork;

use super::{Engine, MODE_DELAY};
use crate::config::{Config, PoolMode};
use crate::decision::{Kind, TunnelMode};
use crate::guard::Guard;
use crate::local::learned_key;
use crate::probe::OtherNode;
use crate::slots::Slot;
use crate::tunnel::{Wanted, address_of};
use crate::way::inner_mtu;

/// The MTU of a link where nothing says which one counts.
const ETHERNET: u32 = 1500;

impl Engine {
    /// Another configuration is in force.
    pub fn configure(&mut self, config: Config) {
        let mut at_once = config.clone();
        let mut later = false;
        for pool in &mut at_once.pools {
            let before = self.config.pools.iter().find(|before| before.name == pool.name);
            if let Some(before) = before
                && before.mode != pool.mode
                && pool.mode != TunnelMode::Never
                && self.ever_synced
            {
                pool.mode = before.mode;
                later = true;
            }
        }
        self.coming = later.then_some((self.clock + MODE_DELAY, config));
        self.put_in_force(at_once);
    }

    /// Lets the pools' new modes be in force when their time has come.
    pub(super) fn switch_modes(&mut self, now: Instant) {
        if let Some((_, config)) = self.coming.take_if(|(at, _)| *at <= now) {
            tracing::info!("pools' tunnel modes are in force now");
            self.put_in_force(config);
        }
    }

    fn put_in_force(&mut self, config: Config) {
        let before = std::mem::replace(&mut self.config, config);
        let learned: Vec<Slot> = self.desired.learned().collect();
        self.ownership.add(self.config.protocol);
        self.guard = Guard::new(&self.config, self.connected.clone());
        let rekeyed = before.metric != self.config.metric;
        let renumbered = before.protocol != self.config.protocol;
        if before.pools.iter().map(range).ne(self.config.pools.iter().map(range)) {
            self.classes.configure(&self.config);
            for slot in &learned {
                self.reclass(*slot);
            }
        }
        if rekeyed {
            for slot in &learned {
                let key = learned_key(self.tracker.slots().prefix(*slot), &self.config);
                if let Some(new) = self.tracker.slot(&key) {
                    self.desired.rekey(*slot, new);
                    self.refresh(*slot);
                }
            }
        }
        if renumbered {
            for id in self.desired.bundle_ids() {
                self.release_form(id);
            }
        }
        if rekeyed || renumbered {
            let learned: Vec<Slot> = self.desired.learned().collect();
            for slot in learned {
                self.refresh(slot);
            }
            // The keys that could be in our way, and the routes that are ours, may be others now.
            self.abandon_dump();
            self.synced = false;
        }
        self.stale = true;
        self.stale_tunnels = true;
        if self.ever_synced {
            self.guard_all();
            self.apply_locals();
            self.sweep_all();
        }
        self.dump_soon();
    }

    fn reclass(&mut self, slot: Slot) {
        let class = self.classes.of(&self.tracker.slots().prefix(slot), &self.config);
        let Some((id, bundle)) = self.desired.bundle_at(slot) else { return };
        if bundle.class == class {
            return;
        }
        if self.desired.reclass(slot, class).is_none() {
            let (members, backups) = self.desired.members_of(id);
            let way = crate::way::way(members, backups, self.classes.get(class), &self.config, &self.world());
            self.desired.split(slot, class, way);
        }
        self.refresh(slot);
    }

    /// What tunnel devices there should be, with what on them.
    pub(super) fn tunnels_wanted(&self) -> Wanted {
        let mut peers = BTreeSet::new();
        let mut mtus: BTreeMap<Kind, u32> = BTreeMap::new();
        for way in self.desired.used().map(|bundle| &bundle.way) {
            peers.extend(way.peers.iter().copied());
            for kind in &way.kinds {
                let mtu = mtus.entry(*kind).or_insert(0);
                *mtu = (*mtu).max(way.mtu.unwrap_or(0));
            }
        }
        let coming = self.coming.iter().flat_map(|(_, config)| &config.pools);
        for kind in self.config.pools.iter().chain(coming).flat_map(|pool| self.kinds_of(pool)) {
            mtus.entry(kind).or_insert(0);
        }
        let devices = mtus.into_iter().filter_map(|(kind, mtu)| Some((kind, self.tunnel(kind, mtu)?)));
        let own = [true, false].into_iter().filter_map(|ipv4| address_of(&self.config.own_blocks, ipv4));
        let addresses = own.map(IpNetwork::from).collect();
        Wanted { devices: devices.collect(), addresses, peers }
    }

    /// The kinds of device a pool asks for, on a node with these addresses: between addresses of the pool's family where
    /// it has such, and for IPv4 pools between IPv6 addresses as well where another node has no others.
    fn kinds_of(&self, pool: &PoolMode) -> impl Iterator<Item = Kind> {
        let has = |ipv4: bool| self.config.addresses.iter().any(|address| address.is_ipv4() == ipv4);
        let ipv6_only =
            |node: &OtherNode| !node.addresses.is_empty() && node.addresses.iter().all(IpAddr::is_ipv6);
        let ipv4 = (pool.cidr.is_ipv4() || !has(false)) && has(true);
        let ipv6 = has(false) && (!ipv4 || self.config.others.iter().any(ipv6_only));
        let over_ipv4 = match pool.mode {
            TunnelMode::Never => None,
            TunnelMode::Vxlan(_) => Some(Kind::Vxlan),
            TunnelMode::Ipip(_) => pool.cidr.is_ipv4().then_some(Kind::Ipip),
        };
        let over_ipv6 = pool.mode.when().map(|_| Kind::Vxlan6);
        [over_ipv4.filter(|_| ipv4), over_ipv6.filter(|_| ipv6)].into_iter().flatten()
    }

    /// The device of a kind; `None`: this node has no address for its outer packets.
    fn tunnel(&self, kind: Kind, mtu: u32) -> Option<Tunnel> {
        let ipv4 = kind.outer() == causeway_kernel::Family::Ipv4;
        let own = self.config.addresses.iter().find(|address| address.is_ipv4() == ipv4);
        let local = own?.ip();
        let (vni, port) = (self.config.vxlan_vni, self.config.vxlan_port);
        let kind_of = match (kind, local) {
            (Kind::Vxlan | Kind::Vxlan6, local) => TunnelKind::Vxlan { local, vni, port },
            (Kind::Ipip, IpAddr::V4(local)) => TunnelKind::Ipip { local },
            (Kind::Ipip, IpAddr::V6(_)) => return None,
        };
        let mtu = match mtu {
            0 => inner_mtu(self.interfaces.mtu_of(local, &self.config).unwrap_or(ETHERNET), kind),
            mtu => mtu,
        };
        Some(Tunnel {
            name: kind.device().to_owned(),
            kind: kind_of,
            mtu,
            mac: kind.is_vxlan().then(|| vtep_mac(local)),
        })
    }
}

fn range(pool: &PoolMode) -> (IpNetwork, &str) {
    (pool.cidr, &pool.name)
}
