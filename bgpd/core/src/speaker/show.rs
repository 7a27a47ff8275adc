//! Answers: routes, peers, counters.
//!
//! Reads only. A walk looks at a bounded number of table entries at a time; a prefix's fates are worked out when they
//! are asked for, by the same decision that ran when it was made.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use causeway_bgp_wire::{Family, PathAttributes, Prefix};

use super::query::{
    Counters, Cursor, Direction, FamilyCounters, PeerFamilyView, PeerView, Query, RouteView, Via,
};
use super::{Peer, Speaker};
use crate::event::{FibStatus, Member, NextHopState, PeerId};
use crate::rib::path::{LOCAL, Path, Paths};
use crate::rib::tables::{Tabled, for_family};

/// The weight of a next hop among these.
fn weight_of(members: &[Member], next_hop: Option<IpAddr>) -> Option<u8> {
    members.iter().find(|member| Some(member.next_hop) == next_hop).map(|member| member.weight)
}

impl Query {
    fn wants(&self, prefix: &Prefix) -> bool {
        match &self.prefix {
            None => true,
            Some(wanted) if self.longer => wanted.contains(prefix),
            Some(wanted) => wanted == prefix,
        }
    }

    fn wants_family(&self, family: Family) -> bool {
        self.family.is_none_or(|wanted| wanted == family)
            && self.prefix.is_none_or(|prefix| prefix.family() == family)
    }
}

impl Speaker {
    /// Every peer, in the order of their numbers.
    pub fn peers(&self) -> Vec<PeerView> {
        self.peers.iter().map(|(id, peer)| self.peer_view(*id, peer)).collect()
    }

    /// One peer.
    pub fn peer(&self, id: PeerId) -> Option<PeerView> {
        self.peers.get(&id).map(|peer| self.peer_view(id, peer))
    }

    fn peer_view(&self, id: PeerId, peer: &Peer) -> PeerView {
        let family = |family: Family| {
            let counts = &peer.families[family.index()];
            PeerFamilyView {
                received: counts.slots.live() as u64,
                accepted: u64::from(counts.accepted),
                stale: counts.stale() as u64,
                advertised: self.export.advertised_count(id, family),
            }
        };
        PeerView {
            id,
            key: peer.key,
            settings: peer.settings.clone(),
            dynamic: peer.dynamic,
            session: peer.session.clone(),
            since: peer.since,
            last_down: peer.last_down.clone(),
            families: Family::all().map(family),
            updates_received: peer.updates_received,
            updates_sent: self.export.sent(id).updates,
        }
    }

    /// The next rows of an answer: looks at no more than `limit` table entries, so fewer rows, or none, do not mean
    /// the end; [`Cursor::is_done`] does. More rows than `limit` come where prefixes have several paths.
    pub fn walk(&self, query: &Query, cursor: &mut Cursor, limit: usize) -> Vec<RouteView> {
        let mut rows = Vec::new();
        if let (Some(prefix), false) = (query.prefix, query.longer) {
            self.one_prefix(query, prefix, &mut rows);
            cursor.done = true;
            return rows;
        }
        let mut left = limit.max(1);
        while left > 0 && !cursor.done {
            let Some(family) = Family::all().get(cursor.family).copied() else {
                cursor.done = true;
                break;
            };
            let more = query.wants_family(family)
                && match query.direction {
                    Direction::Advertised => {
                        self.walk_advertised(query, family, cursor, &mut left, &mut rows)
                    }
                    Direction::Learned | Direction::Best => {
                        for_family!(family, K => self.walk_table::<K>(query, cursor, &mut left, &mut rows))
                    }
                };
            if !more {
                *cursor = Cursor { family: cursor.family + 1, ..Cursor::default() };
            }
        }
        rows
    }

    fn one_prefix(&self, query: &Query, prefix: Prefix, rows: &mut Vec<RouteView>) {
        if !query.wants_family(prefix.family()) {
            return;
        }
        if query.direction == Direction::Advertised {
            for id in self.peers.keys().filter(|id| query.peer.is_none_or(|wanted| wanted == **id)) {
                if let Some(attrs) = self.export.advertised_path(*id, &prefix, &self.rib) {
                    rows.push(self.advertised_view(*id, prefix, attrs));
                }
            }
            return;
        }
        for_family!(prefix.family(), K => {
            let table = K::table(&self.rib.tables);
            let key = <K as causeway_bgp_wire::PrefixKey>::from_prefix(prefix);
            if let Some((key, paths)) = key.and_then(|key| table.find(&key)).and_then(|slot| table.get(slot)) {
                self.rows(query, key, paths, rows);
            }
        });
    }

    /// False at the end of the family.
    fn walk_table<K: Tabled>(
        &self,
        query: &Query,
        cursor: &mut Cursor,
        left: &mut usize,
        rows: &mut Vec<RouteView>,
    ) -> bool {
        let table = K::table(&self.rib.tables);
        while *left > 0 {
            let Some(slot) = u32::try_from(cursor.position).ok().filter(|slot| *slot < table.end()) else {
                return false;
            };
            cursor.position += 1;
            *left -= 1;
            if let Some((key, paths)) = table.get(slot)
                && query.wants(&key.into())
            {
                self.rows(query, key, paths, rows);
            }
        }
        true
    }

    /// False at the end of the family.
    fn walk_advertised(
        &self,
        query: &Query,
        family: Family,
        cursor: &mut Cursor,
        left: &mut usize,
        rows: &mut Vec<RouteView>,
    ) -> bool {
        let first = PeerId(u32::try_from(cursor.peer).unwrap_or(u32::MAX));
        let wanted = |id| query.peer.is_none_or(|wanted| wanted == id);
        let Some(id) = self.peers.find_from(first, wanted) else { return false };
        if id.0 as usize != cursor.peer {
            (cursor.peer, cursor.position) = (id.0 as usize, 0);
        }
        let at = (family, cursor.position);
        let next = self.export.advertised(id, at, *left, &self.rib, &mut |prefix, attrs| {
            if query.wants(&prefix) {
                rows.push(self.advertised_view(id, prefix, attrs));
            }
        });
        match next {
            Some(position) => {
                *left = left.saturating_sub(position.saturating_sub(cursor.position).max(1));
                cursor.position = position;
            }
            None => {
                *left = left.saturating_sub(1);
                (cursor.peer, cursor.position) = (id.0 as usize + 1, 0);
            }
        }
        true
    }

    /// Every path of one prefix, the best first and the refused last, with the reason each of them won or lost.
    pub fn explain(&self, prefix: &Prefix) -> Vec<RouteView> {
        let query = Query {
            direction: Direction::Learned,
            peer: None,
            family: None,
            prefix: Some(*prefix),
            longer: false,
        };
        let mut rows = Vec::new();
        for_family!(prefix.family(), K => {
            let table = K::table(&self.rib.tables);
            let key = <K as causeway_bgp_wire::PrefixKey>::from_prefix(*prefix);
            if let Some((key, paths)) = key.and_then(|key| table.find(&key)).and_then(|slot| table.get(slot)) {
                self.rows_of(&query, key, paths, |_| true, &mut rows);
            }
        });
        rows.sort_by_key(|row: &RouteView| (!row.best, !row.multipath, !row.accepted));
        rows
    }

    fn rows<K: Tabled>(&self, query: &Query, key: K, paths: &Paths, rows: &mut Vec<RouteView>) {
        let best = paths.best_peer();
        let wanted = |path: &Path| {
            query.peer.is_none_or(|peer| peer == path.peer)
                && match query.direction {
                    Direction::Best => path.peer == best,
                    _ => path.peer != LOCAL,
                }
        };
        if paths.iter().any(wanted) {
            self.rows_of(query, key, paths, wanted, rows);
        }
    }

    fn rows_of<K: Tabled>(
        &self,
        query: &Query,
        key: K,
        paths: &Paths,
        wanted: impl Fn(&Path) -> bool,
        rows: &mut Vec<RouteView>,
    ) {
        let prefix: Prefix = key.into();
        let winner = paths.best_peer();
        let paths: Vec<&Path> = paths.iter().collect();
        let deferred = self.deferred[K::FAMILY.index()];
        let fib = if self.mode.fib { self.fib.status_of(&prefix) } else { None };
        let forwarding = self.fib.forwarding_of(&prefix);
        let by_now = match fib {
            Some(FibStatus::Installed(via)) => Some(via),
            _ => None,
        };
        for (path, (multipath, reason)) in paths.iter().copied().zip(self.rib.reasons(&paths)) {
            if !wanted(path) {
                continue;
            }
            let facts = self.rib.peers.get(&path.peer);
            let best = path.peer == winner;
            let epoch = self.peers.get(&path.peer).map(|peer| peer.families[K::FAMILY.index()].epoch);
            rows.push(RouteView {
                prefix,
                direction: query.direction,
                peer: (path.peer != LOCAL).then_some(path.peer),
                peer_address: facts.map(|facts| facts.address),
                peer_as: facts.map(|facts| facts.remote_as),
                attrs: path.attrs.unpack(),
                accepted: path.import.is_accepted(),
                rule: self.rib.rules.name(path.rule),
                best,
                multipath: multipath && !deferred,
                reason: if deferred { "selection is deferred after a restart".to_owned() } else { reason },
                stale: path.peer != LOCAL && epoch.is_some_and(|epoch| epoch != path.epoch),
                since: Some(self.start + Duration::from_secs(u64::from(path.since))),
                fib: if multipath { fib.clone() } else { None },
                via: by_now.filter(|_| multipath).or_else(|| self.via(path)),
                weight: forwarding
                    .filter(|one| multipath && one.members.iter().any(|member| member.weight != 1))
                    .and_then(|one| weight_of(&one.members, self.address(path))),
                backup: !multipath
                    && forwarding.is_some_and(|one| weight_of(&one.backups, self.address(path)).is_some()),
                tunnel: path.attrs.packed().tunnel(),
            });
        }
    }

    /// The address a path's next hop is resolved by.
    fn address(&self, path: &Path) -> Option<IpAddr> {
        self.rib.next_hops.get(path.next_hop).map(|entry| entry.address)
    }

    fn via(&self, path: &Path) -> Option<Via> {
        if path.peer == LOCAL {
            return Some(Via::Local);
        }
        if !self.mode.fib {
            return None;
        }
        match self.rib.next_hops.get(path.next_hop)?.state {
            Some(NextHopState::Connected { .. }) => Some(Via::Direct),
            Some(NextHopState::Gateway { .. }) => Some(Via::Recursive),
            Some(NextHopState::Unreachable) | None => None,
        }
    }

    fn advertised_view(&self, id: PeerId, prefix: Prefix, attrs: PathAttributes) -> RouteView {
        let facts = self.rib.peers.get(&id);
        RouteView {
            prefix,
            direction: Direction::Advertised,
            peer: Some(id),
            peer_address: facts.map(|facts| facts.address),
            peer_as: facts.map(|facts| facts.remote_as),
            attrs,
            accepted: true,
            rule: Arc::from(""),
            best: true,
            multipath: false,
            reason: String::new(),
            stale: false,
            since: None,
            fib: None,
            via: None,
            weight: None,
            backup: false,
            tunnel: None,
        }
    }

    /// Counts for metrics.
    pub fn counters(&self) -> Counters {
        let family = |family: Family| {
            let fib = self.fib.counts(family);
            let paths: usize =
                self.peers.values().map(|peer| peer.families[family.index()].slots.live()).sum();
            let own = self
                .config
                .as_ref()
                .map_or(0, |config| config.own.iter().filter(|own| own.prefix.family() == family).count());
            FamilyCounters {
                prefixes: for_family!(family, K => K::table(&self.rib.tables).len()) as u64,
                paths: (paths + own) as u64,
                best: self.best[family.index()],
                fib_wanted: fib.wanted,
                fib_installed: fib.installed,
                fib_failed: fib.failed,
            }
        };
        Counters {
            families: Family::all().map(family),
            attribute_sets: self.rib.interner.len(),
            next_hops: self.rib.next_hops.len(),
            decisions: self.decisions,
            updates_received: self.updates_received,
        }
    }

    pub(super) fn seconds(&self, now: Instant) -> u32 {
        u32::try_from(now.saturating_duration_since(self.start).as_secs()).unwrap_or(u32::MAX)
    }
}
