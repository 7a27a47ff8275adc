//! A new configuration: the difference to the one in force, and nothing for what is the same.
//!
//! A change of session parameters resets the session, of import rules judges what was received anew, of export
//! parameters sends what is different. Peers that none of it concerns notice nothing.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use causeway_bgp_wire::{Community, Family, LargeCommunity, NextHop, Origin, PathAttributes};

use super::work::Task;
use super::{Peer, Speaker};
use crate::config::{Config, OwnPrefix, PeerKey, PeerSettings, RangeConfig};
use crate::event::{LogLevel, Output, PeerId};
use crate::export::ExportParams;
use crate::rib::path::LOCAL;
use crate::rib::rules::Check;
use crate::rib::tables::{PeerFacts, Tabled, for_family};

/// The settings of the longest range that holds the address.
fn range_of(config: &Config, address: IpAddr) -> Option<&RangeConfig> {
    config
        .ranges
        .iter()
        .filter(|range| range.range.contains_address(address))
        .max_by_key(|range| range.range.prefix_len())
}

impl Speaker {
    pub(super) fn configure(&mut self, now: Instant, new: Arc<Config>) {
        self.finish_work();
        let old = self.config.replace(new.clone());
        if old.is_none() {
            self.begin_restart(now, &new);
        }
        self.rib.max_paths = new.max_paths.max(1);
        self.full_ranges.retain(|range| new.ranges.iter().any(|other| other.range == *range));
        self.configure_peers(&new);
        self.configure_dynamic(&new);

        let identity = |config: &Config| (config.local_as, config.router_id, config.cluster_id);
        let addresses = |config: &Config| (config.address_v4, config.address_v6);
        if let Some(old) = &old {
            if identity(old) != identity(&new) {
                // The loop checks look at all three.
                let all: Vec<PeerId> = self.peers.keys().copied().collect();
                all.into_iter().for_each(|id| self.start_reimport(id));
            }
            if identity(old) != identity(&new) || addresses(old) != addresses(&new) {
                let all: Vec<PeerId> = self.peers.keys().copied().collect();
                all.into_iter().for_each(|id| self.update_export(id));
            }
        }
        if old.as_deref().map(addresses) != Some(addresses(&new)) {
            let held =
                |config: &Config| [config.address_v4.map(IpAddr::from), config.address_v6.map(IpAddr::from)];
            held(&new).into_iter().flatten().for_each(|address| self.hold_address(address));
            let old = old.as_deref().map(held).unwrap_or_default();
            old.into_iter().flatten().for_each(|address| self.drop_address(address));
        }
        self.configure_own(old.as_deref().map_or(&[], |old| &old.own), &new.own);
        if old.is_some_and(|old| old.max_paths != new.max_paths) {
            Family::all().into_iter().for_each(|family| self.start_decide_all(family));
        }
        self.check_restart(now);
    }

    fn configure_peers(&mut self, new: &Config) {
        let wanted: HashSet<PeerKey> = new.peers.iter().map(|peer| peer.key).collect();
        let present: HashMap<PeerKey, PeerId> =
            self.peers.iter().filter(|(_, peer)| !peer.dynamic).map(|(id, peer)| (peer.key, *id)).collect();
        let gone: Vec<PeerId> = self
            .peers
            .iter()
            .filter(|(_, peer)| !peer.dynamic && !wanted.contains(&peer.key))
            .map(|(id, _)| *id)
            .collect();
        gone.into_iter().for_each(|id| self.remove_peer(id));
        for peer in &new.peers {
            match present.get(&peer.key) {
                Some(id) => self.update_settings(*id, &peer.settings),
                None => {
                    self.add_peer(peer.key, peer.settings.clone(), false);
                }
            }
        }
    }

    /// Members of ranges: gone with their range, or where their address has been given a peer of its own.
    fn configure_dynamic(&mut self, new: &Config) {
        let named: HashSet<IpAddr> =
            new.peers.iter().filter(|peer| peer.key.port.is_none()).map(|peer| peer.key.address).collect();
        let dynamic: Vec<(PeerId, IpAddr)> = self
            .peers
            .iter()
            .filter(|(_, peer)| peer.dynamic)
            .map(|(id, peer)| (*id, peer.key.address))
            .collect();
        self.members.clear();
        for (_, address) in &dynamic {
            if let Some(range) = range_of(new, *address) {
                *self.members.entry(range.range).or_default() += 1;
            }
        }
        for (id, address) in dynamic {
            match range_of(new, address) {
                Some(range) if !named.contains(&address) => self.update_settings(id, &range.settings),
                _ => self.remove_peer(id),
            }
        }
    }

    pub(super) fn dynamic_peer(&mut self, address: IpAddr) {
        let Some(config) = self.config.clone() else { return };
        let Some(range) = range_of(&config, address) else { return };
        if self.addresses.contains(&address) {
            return;
        }
        let members = self.members.entry(range.range).or_default();
        if *members >= range.limit {
            // Whoever knocks again and again is logged once.
            if self.full_ranges.insert(range.range) {
                let text = format!("{address} is refused: {} has its {} peers", range.range, range.limit);
                self.outputs.push_back(Output::Log { level: LogLevel::Warn, peer: None, text });
            }
            return;
        }
        *members += 1;
        self.full_ranges.remove(&range.range);
        self.add_peer(PeerKey { address, port: None }, range.settings.clone(), true);
    }

    fn add_peer(&mut self, key: PeerKey, settings: PeerSettings, dynamic: bool) {
        let id = PeerId(self.next_peer);
        self.next_peer += 1;
        let settings = Arc::new(settings);
        if key.port.is_none() {
            self.addresses.insert(key.address);
        }
        self.peers.insert(id, Box::new(Peer::new(key, settings.clone(), dynamic)));
        self.outputs.push_back(Output::PeerAdded { peer: id, key, settings, dynamic });
    }

    pub(super) fn remove_peer(&mut self, id: PeerId) {
        self.finish_work_of(id);
        let slots = Family::all().map(|family| self.slots_of(id, family));
        let Some(peer) = self.peers.remove(&id) else { return };
        if peer.key.port.is_none() {
            self.addresses.remove(&peer.key.address);
        }
        if let (true, Some(config)) = (peer.dynamic, &self.config)
            && let Some(range) = range_of(config, peer.key.address)
            && let Some(members) = self.members.get_mut(&range.range)
        {
            *members = members.saturating_sub(1);
        }
        self.timers.cancel_peer(id);
        self.export.member_down(id);
        self.lose_next_hops(id, [true; Family::COUNT]);
        self.start_flush(id, slots);
        if let Some(session) = peer.session {
            self.drop_address(session.local_address);
        }
        self.outputs.push_back(Output::PeerRemoved(id));
        self.check_restart(self.now);
    }

    fn update_settings(&mut self, id: PeerId, new: &PeerSettings) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        if *peer.settings == *new {
            return;
        }
        let new = Arc::new(new.clone());
        let old = std::mem::replace(&mut peer.settings, new.clone());
        self.outputs.push_back(Output::SettingsChanged { peer: id, settings: new.clone() });
        if old.client != new.client
            && let Some(facts) = self.rib.peers.get(&id).copied()
        {
            let client = new.client && facts.kind == crate::rib::SessionKind::Ibgp;
            self.set_facts(PeerFacts { client, ..facts });
        }
        if old.import != new.import || old.allowed_local_as != new.allowed_local_as {
            self.start_reimport(id);
        }
        if old.client != new.client || old.export != new.export || old.next_hop_mode != new.next_hop_mode {
            self.update_export(id);
        }
        if old.max_prefixes != new.max_prefixes {
            Family::all().into_iter().for_each(|family| self.check_limit(id, family));
        }
    }

    /// Judges everything a peer sent anew.
    pub(super) fn start_reimport(&mut self, id: PeerId) {
        for family in Family::all() {
            let slots = self.slots_of(id, family);
            if !slots.is_empty() {
                self.start(Task::Reimport(id), family, slots);
            }
        }
    }

    /// Tells export the present parameters of a peer.
    fn update_export(&mut self, id: PeerId) {
        if let (Some(config), Some(peer)) = (&self.config, self.peers.get(&id))
            && let Some(session) = &peer.session
        {
            let params = ExportParams::for_session(session, &peer.settings, config);
            self.export.member_changed(id, params, &self.rib);
        }
    }

    fn configure_own(&mut self, old: &[OwnPrefix], new: &[OwnPrefix]) {
        let wanted: HashSet<_> = new.iter().map(|own| own.prefix).collect();
        for own in old.iter().filter(|own| !wanted.contains(&own.prefix)) {
            for_family!(own.prefix.family(), K => {
                if let Some(key) = <K as causeway_bgp_wire::PrefixKey>::from_prefix(own.prefix) {
                    self.withdraw::<K>(key, LOCAL);
                }
            });
        }
        for own in new.iter().filter(|own| !old.contains(own)) {
            for_family!(own.prefix.family(), K => self.originate_own::<K>(own));
        }
    }

    fn originate_own<K: Tabled>(&mut self, own: &OwnPrefix) {
        let Some(key) = K::from_prefix(own.prefix) else { return };
        let next_hop: NextHop = match K::FAMILY {
            Family::Ipv4Unicast => std::net::Ipv4Addr::UNSPECIFIED.into(),
            Family::Ipv6Unicast => std::net::Ipv6Addr::UNSPECIFIED.into(),
        };
        let large =
            |parts: &[u32; 3]| LargeCommunity { global: parts[0], local1: parts[1], local2: parts[2] };
        let attributes = PathAttributes {
            communities: own.communities.iter().copied().map(Community).collect(),
            large_communities: own.large_communities.iter().map(large).collect(),
            ..PathAttributes::new(Origin::Igp, next_hop)
        };
        self.originate(key, &attributes, if own.export { Check::Own } else { Check::OwnHidden });
    }
}
