//! What comes in: withdrawals, announcements, and what policy makes of them; [`super::place`] does the rest.
//!
//! RFC 4271 §9 and §9.1, RFC 4456 §8 (loops), RFC 4724 §4.2 (End-of-RIB), RFC 7313 (refresh marks). Withdrawals of an
//! UPDATE take effect before its announcements.

use std::cell::Cell;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use causeway_bgp_wire::{Cease, Family, Notification, PathAttributes, Prefix, Problem};
use smallvec::SmallVec;

use super::place::Run;
use super::timers::Timer;
use super::work::Task;
use super::{Peer, Speaker};
use crate::attrs::{AttrSet, PackedAttributes, Unpacked};
use crate::event::{LogLevel, Output, PeerId, RefreshKind};
use crate::policy::{ImportPolicy, PolicyContext};
use crate::rib::SessionKind;
use crate::rib::next_hop::NextHops;
use crate::rib::path::{Announced, Import, LOCAL, NextHopId, Path, Paths};
use crate::rib::rules::{Check, RuleNames};
use crate::rib::tables::Tabled;
use crate::updates::{Part, Prefixes, Updates};

/// Stale paths of a refresh that was begun and never ended go after this long (RFC 7313 §4).
const REFRESH_TIME: Duration = Duration::from_secs(600);

/// So many errors in UPDATEs are logged for one session.
const PROBLEMS_LOGGED: u64 = 20;

/// What all announcements of a peer have in common.
struct Sender {
    peer: PeerId,
    ebgp: bool,
    policy: Arc<ImportPolicy>,
}

/// What all prefixes of an announcement have in common.
struct Incoming<'a> {
    from: &'a Sender,
    received: Unpacked,
    /// A check that refuses the attributes whatever the prefix.
    check: Option<Check>,
    epoch: u8,
    since: u32,
    /// The next hop that the last prefix came to: mostly the next one's as well.
    next_hop: Cell<Option<(IpAddr, NextHopId)>>,
}

impl Speaker {
    pub(super) fn updates(&mut self, now: Instant, id: PeerId, updates: &Updates) {
        self.finish_work_of(id);
        let Some(peer) = self.peers.get_mut(&id) else { return };
        if peer.session.is_none() || peer.over_limit {
            return;
        }
        peer.updates_received += updates.len() as u64;
        self.updates_received += updates.len() as u64;
        let Some(from) = self.sender(id) else { return };
        let since = self.seconds(now);
        for part in updates.parts() {
            match part {
                Part::Problems(problems) => self.log_problems(id, problems),
                Part::Withdrawn(Prefixes::V4(list)) => list.iter().for_each(|key| self.withdraw(*key, id)),
                Part::Withdrawn(Prefixes::V6(list)) => list.iter().for_each(|key| self.withdraw(*key, id)),
                Part::Announced(attributes, prefixes) => {
                    let received = self.rib.interner.intern_packed(attributes);
                    match prefixes {
                        Prefixes::V4(list) => self.announce(&from, since, received, list),
                        Prefixes::V6(list) => self.announce(&from, since, received, list),
                    }
                    if self.peers.get(&id).is_none_or(|peer| peer.over_limit) {
                        return;
                    }
                }
                Part::EndOfRib(family) => {
                    self.end_of_rib(now, id, family);
                    self.finish_work_of(id);
                }
            }
        }
    }

    /// RFC 7606 §8: errors that the session survived are logged, the first ones of each session.
    fn log_problems(&mut self, id: PeerId, problems: &[Problem]) {
        for problem in problems {
            let Some(peer) = self.peers.get_mut(&id) else { return };
            peer.problems += 1;
            let text = match peer.problems {
                ..PROBLEMS_LOGGED => format!("error in an UPDATE: {problem}"),
                PROBLEMS_LOGGED => format!("error in an UPDATE: {problem}; further ones are not logged"),
                _ => return,
            };
            self.log(LogLevel::Warn, id, text);
        }
    }

    fn sender(&self, id: PeerId) -> Option<Sender> {
        let (peer, facts) = (self.peers.get(&id)?, self.rib.peers.get(&id)?);
        let ebgp = facts.kind == SessionKind::Ebgp;
        Some(Sender { peer: id, ebgp, policy: peer.settings.import.clone() })
    }

    fn incoming<'a>(
        &self,
        from: &'a Sender,
        family: Family,
        since: u32,
        received: AttrSet,
    ) -> Option<Incoming<'a>> {
        let peer = self.peers.get(&from.peer)?;
        Some(Incoming {
            from,
            check: self.check(peer, received.packed()),
            received: Unpacked::new(received),
            epoch: peer.families[family.index()].epoch,
            since,
            next_hop: Cell::new(None),
        })
    }

    /// What refuses these attributes before any policy: loops of AS and of reflection.
    fn check(&self, peer: &Peer, attrs: PackedAttributes<'_>) -> Option<Check> {
        let config = self.config.as_ref()?;
        let session_as = peer.session.as_ref().map_or(peer.settings.session.local_as, |info| info.local_as);
        let allowed = usize::from(peer.settings.allowed_local_as);
        // Each of the numbers this speaker is known by may stand as often as allowed, and no more.
        if attrs.as_path_count(config.local_as) > allowed
            || (session_as != config.local_as && attrs.as_path_count(session_as) > allowed)
        {
            return Some(Check::AsLoop);
        }
        if attrs
            .facts
            .originator_id()
            .is_some_and(|id| id == config.router_id || id == peer.settings.session.router_id)
        {
            return Some(Check::OwnOriginatorId);
        }
        let cluster_id = config.cluster_id.unwrap_or(config.router_id);
        attrs.has_cluster(cluster_id).then_some(Check::ClusterLoop)
    }

    /// Takes in the prefixes of an announcement. Their slots are found first: look-ups that do not wait for each other
    /// wait for memory together.
    fn announce<K: Tabled>(&mut self, from: &Sender, since: u32, received: AttrSet, list: &[K]) {
        let Some(incoming) = self.incoming(from, K::FAMILY, since, received) else { return };
        let incoming = &incoming;
        let table = K::table_mut(&mut self.rib.tables);
        let find = |key: &K| (*key, table.find_or_insert_with(*key, Paths::default));
        let slots: SmallVec<[(K, u32); 32]> = list.iter().map(find).collect();
        let uniform = incoming.check.is_some() || from.policy.is_uniform(K::FAMILY);
        let Some((first, _)) = slots.first() else { return };
        if uniform {
            let path = self.judge(incoming, (*first).into());
            let slots: Run = slots.into_iter().map(|(_, slot)| slot).collect();
            self.place_all::<K>(&slots, &path);
        } else {
            for (key, slot) in slots {
                let path = self.judge(incoming, key.into());
                self.place_all::<K>(&[slot], &path);
            }
        }
        self.check_limit(from.peer, K::FAMILY);
    }

    /// What import makes of a path.
    fn judge(&mut self, incoming: &Incoming<'_>, prefix: Prefix) -> Path {
        let mut path = Announced {
            attrs: incoming.received.set().clone(),
            peer: incoming.from.peer,
            since: incoming.since,
            next_hop: NextHopId::NONE,
            rule: RuleNames::check(Check::Other),
            import: Import::Refused,
            epoch: incoming.epoch,
        };
        if let Some(check) = incoming.check {
            path.rule = RuleNames::check(check);
            return self.rib.maker.path(path);
        }
        let context = PolicyContext { ebgp: incoming.from.ebgp, own: false };
        let verdict = incoming.from.policy.evaluate(&prefix, &incoming.received, &context);
        path.rule = self.rib.rules.id(verdict.rule);
        if verdict.accept {
            path.import = Import::Accepted;
            let mut next_hop = incoming.received.set().next_hop();
            if let Some(changed) = verdict.changed {
                path.attrs = self.rib.interner.intern_changed(&changed, &path.attrs);
                next_hop = changed.next_hop;
            }
            let address = NextHops::address_of(&next_hop);
            path.next_hop = match incoming.next_hop.get() {
                Some((last, id)) if last == address => id,
                _ => self.next_hop(address),
            };
            incoming.next_hop.set(Some((address, path.next_hop)));
        }
        self.rib.maker.path(path)
    }

    pub(super) fn withdraw<K: Tabled>(&mut self, key: K, id: PeerId) {
        if let Some(slot) = K::table(&self.rib.tables).find(&key) {
            self.take_out::<K>(slot, id, |_, _| true);
        }
    }

    /// Judges the path of a peer anew from what was received.
    pub(super) fn reimport<K: Tabled>(&mut self, slot: u32, id: PeerId) {
        let Some((key, paths)) = K::table(&self.rib.tables).get(slot) else { return };
        let Some(path) = paths.of(id) else { return };
        let (received, since, epoch) = (path.attrs.received().clone(), path.since, path.epoch);
        let Some(from) = self.sender(id) else { return };
        if let Some(incoming) = self.incoming(&from, K::FAMILY, since, received) {
            let path = self.judge(&Incoming { epoch, ..incoming }, key.into());
            self.place::<K>(slot, path);
        }
    }

    /// Puts an own path into the table.
    pub(super) fn originate<K: Tabled>(&mut self, key: K, attributes: &PathAttributes, check: Check) {
        let attrs = self.rib.interner.intern(attributes);
        let slot = K::table_mut(&mut self.rib.tables).find_or_insert_with(key, Paths::default);
        let path = self.rib.maker.path(Announced {
            attrs,
            peer: LOCAL,
            since: self.seconds(self.now),
            next_hop: NextHopId::NONE,
            rule: RuleNames::check(check),
            import: Import::Accepted,
            epoch: 0,
        });
        self.place::<K>(slot, path);
    }

    /// Ends the session of a peer that sent more than it may, warns near the limit.
    pub(super) fn check_limit(&mut self, id: PeerId, family: Family) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let limits = peer.settings.max_prefixes;
        let Some(limit) = limits.limit(family) else { return };
        let counts = &mut peer.families[family.index()];
        let received = counts.slots.live() as u64;
        if received > u64::from(limit) && peer.session.is_some() && !peer.over_limit {
            peer.over_limit = true;
            self.log(LogLevel::Warn, id, format!("{received} {family} prefixes received, {limit} allowed"));
            self.outputs.push_back(Output::ResetSession {
                peer: id,
                notification: Notification::maximum_prefixes(family, limit),
                idle_for: Some(limits.restart_after.unwrap_or(Duration::MAX)),
            });
        } else if let Some(percent) = limits.warn_at {
            let near = received * 100 >= u64::from(limit) * u64::from(percent);
            if near && !counts.warned {
                counts.warned = true;
                self.log(
                    LogLevel::Warn,
                    id,
                    format!("{received} of {limit} allowed {family} prefixes received"),
                );
            }
        }
    }

    /// A member of an update group fell too far behind.
    pub(super) fn stuck(&mut self, id: PeerId) {
        self.log(LogLevel::Warn, id, "too far behind what it is owed".to_owned());
        self.outputs.push_back(Output::ResetSession {
            peer: id,
            notification: Notification::cease(Cease::OutOfResources),
            idle_for: None,
        });
    }

    /// RFC 4724 §4.2: what is still stale at End-of-RIB goes.
    fn end_of_rib(&mut self, now: Instant, id: PeerId, family: Family) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let counts = &mut peer.families[family.index()];
        counts.settled = true;
        let refreshing = std::mem::take(&mut counts.refreshing);
        if refreshing {
            // RFC 7313 §4 forbids a refresh before End-of-RIB; this one's stale paths go with the others.
            self.timers.cancel(Timer::Refresh(id, family));
        }
        self.flush_stale(id, family);
        self.check_restart(now);
    }

    /// Flushes what is left of an earlier epoch.
    pub(super) fn flush_stale(&mut self, id: PeerId, family: Family) {
        let Some(peer) = self.peers.get(&id) else { return };
        let counts = &peer.families[family.index()];
        if counts.stale() > 0 {
            let slots = counts.slots.ids().to_vec();
            if counts.fresh == 0 {
                self.lose_next_hops(id, Family::all().map(|other| other == family));
            }
            self.start(Task::FlushStale(id), family, slots);
        }
        let stale = |peer: &super::Peer| peer.families.iter().any(|counts| counts.stale() > 0);
        if !self.peers.get(&id).is_some_and(|peer| stale(peer)) {
            self.timers.cancel(Timer::Stale(id));
        }
    }

    pub(super) fn route_refresh(&mut self, now: Instant, id: PeerId, family: Family, kind: RefreshKind) {
        self.finish_work_of(id);
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let Some(session) = peer.session.as_ref().filter(|info| info.families.contains(family)) else {
            return;
        };
        let counts = &mut peer.families[family.index()];
        match kind {
            RefreshKind::Request => {
                let enhanced = session.enhanced_refresh;
                self.export.refresh(id, family, enhanced);
            }
            RefreshKind::Begin if session.enhanced_refresh => {
                counts.new_epoch();
                counts.refreshing = true;
                self.timers.set(Timer::Refresh(id, family), now + REFRESH_TIME);
            }
            RefreshKind::End if counts.refreshing => {
                counts.refreshing = false;
                self.timers.cancel(Timer::Refresh(id, family));
                self.flush_stale(id, family);
            }
            // Marks that were not agreed on, or an end without a beginning: ignored (RFC 7313 §4).
            RefreshKind::Begin | RefreshKind::End => {}
        }
    }
}
