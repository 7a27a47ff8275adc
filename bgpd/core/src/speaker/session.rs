//! Sessions that come and go, and what becomes of their paths: graceful restart as the receiving speaker.
//!
//! RFC 4724 §4.2. Paths of a session that fell without NOTIFICATION are retained as stale, for the families of the
//! peer's capability and no longer than the shorter of the peer's restart time and our own limit. When the peer is
//! back they go at once where it did not keep its forwarding state, else at End-of-RIB, and after our own limit in any
//! case. A second loss takes what was stale already.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use causeway_bgp_wire::Family;

use super::Speaker;
use super::timers::Timer;
use super::work::Task;
use crate::event::{Down, PeerId, SessionInfo};
use crate::export::ExportParams;
use crate::rib::SessionKind;
use crate::rib::path::NextHopId;
use crate::rib::tables::PeerFacts;

/// A peer without graceful restart sends no End-of-RIB that could be relied on: after this long in Established its
/// table counts as sent.
pub(super) const SETTLE_TIME: Duration = Duration::from_secs(5);

impl Speaker {
    pub(super) fn session_up(&mut self, now: Instant, id: PeerId, session: Arc<SessionInfo>) {
        if self.peers.get(&id).is_some_and(|peer| peer.session.is_some()) {
            let down =
                Down { reason: "replaced by a new session".to_owned(), label: "collision", retain: false };
            self.session_down(now, id, down);
        }
        self.finish_work_of(id);
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let client = peer.settings.client;
        peer.over_limit = false;
        peer.problems = 0;
        peer.families.iter_mut().for_each(|counts| counts.warned = false);
        peer.session = Some(session.clone());
        peer.since = Some(now);

        let kind = if session.is_ibgp() { SessionKind::Ibgp } else { SessionKind::Ebgp };
        let facts = PeerFacts {
            id,
            kind,
            client: client && kind == SessionKind::Ibgp,
            router_id: session.router_id,
            address: session.remote_address,
            remote_as: session.remote_as,
        };
        let known = self.rib.peers.get(&id).copied();
        if known.is_some_and(|known| (known.kind, known.router_id) != (kind, facts.router_id)) {
            // What was retained is another speaker's: its paths went out with that one's identifier.
            for family in Family::all() {
                let slots = self.slots_of(id, family);
                self.start(Task::Flush(id), family, slots);
            }
            self.finish_work_of(id);
        }
        self.set_facts(facts);
        for family in Family::all() {
            let kept = session.families.contains(family)
                && session
                    .graceful
                    .as_ref()
                    .is_some_and(|graceful| graceful.families.contains(&(family, true)));
            if !kept {
                self.flush_stale(id, family);
            }
        }
        if let Some(peer) = self.peers.get(&id) {
            if peer.families.iter().any(|counts| counts.stale() > 0) {
                self.timers.set(Timer::Stale(id), now + peer.settings.max_restart_time);
            }
            if session.graceful.is_none() {
                self.timers.set(Timer::Settled(id), now + SETTLE_TIME);
            }
            if let Some(config) = &self.config {
                let params = ExportParams::for_session(&session, &peer.settings, config);
                self.export.member_up(id, params);
            }
        }
        self.hold_address(session.local_address);
        if self.peers.get(&id).is_some_and(|peer| peer.dynamic) {
            self.member_came(now);
        }
        self.check_restart(now);
    }

    /// New facts about a peer: what depends on them of its retained paths is decided anew.
    pub(super) fn set_facts(&mut self, facts: PeerFacts) {
        let old = self.rib.peers.insert(facts.id, facts);
        if old.is_none_or(|old| old == facts) {
            return;
        }
        for family in Family::all() {
            let slots = self.slots_of(facts.id, family);
            if !slots.is_empty() {
                self.start(Task::Decide(Some(facts.id)), family, slots);
            }
        }
    }

    pub(super) fn session_down(&mut self, now: Instant, id: PeerId, down: Down) {
        self.finish_work_of(id);
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let Some(session) = peer.session.take() else { return };
        peer.since = None;
        peer.last_down = Some(down.reason);
        self.timers.cancel_peer(id);
        self.export.member_down(id);

        let limit = peer.settings.max_restart_time;
        let graceful = session.graceful.as_ref().filter(|_| down.retain);
        let time = graceful.map_or(Duration::ZERO, |graceful| graceful.restart_time.min(limit));
        let gone = Family::all().map(|family| {
            let in_capability =
                graceful.is_some_and(|graceful| graceful.families.iter().any(|(other, _)| *other == family));
            !in_capability || time == Duration::ZERO
        });
        self.lose_next_hops(id, gone);
        for family in Family::all() {
            let index = family.index();
            if !gone[index] {
                // RFC 4724 §4.2: consecutive restarts delete what is stale already.
                self.flush_stale(id, family);
                self.finish_work_of(id);
                if let Some(peer) = self.peers.get_mut(&id) {
                    peer.families[index].new_epoch();
                }
            } else {
                let slots = self.slots_of(id, family);
                self.start(Task::Flush(id), family, slots);
            }
            if let Some(peer) = self.peers.get_mut(&id) {
                peer.families[index].refreshing = false;
            }
        }
        let stale = |peer: &super::Peer| peer.families.iter().any(|counts| counts.stale() > 0);
        if time > Duration::ZERO && self.peers.get(&id).is_some_and(|peer| stale(peer)) {
            self.timers.set(Timer::Stale(id), now + time);
        }
        self.drop_address(session.local_address);
        self.check_restart(now);
    }

    /// Slots where the peer may have paths.
    pub(super) fn slots_of(&self, id: PeerId, family: Family) -> Vec<u32> {
        self.peers.get(&id).map_or_else(Vec::new, |peer| peer.families[family.index()].slots.ids().to_vec())
    }

    /// One more reason to count an address as this speaker's own.
    pub(super) fn hold_address(&mut self, address: IpAddr) {
        let count = self.own_addresses.entry(address).or_default();
        *count += 1;
        if *count == 1 {
            self.own_addresses_changed();
        }
    }

    pub(super) fn drop_address(&mut self, address: IpAddr) {
        let Some(count) = self.own_addresses.get_mut(&address) else { return };
        *count -= 1;
        if *count == 0 {
            self.own_addresses.remove(&address);
            self.own_addresses_changed();
        }
    }

    fn own_addresses_changed(&mut self) {
        let own = &self.own_addresses;
        for id in self.rib.next_hops.set_own(|address| own.contains_key(&address)) {
            self.next_hop_changed(id);
        }
    }

    /// Decides what uses the next hop anew, and nothing else.
    pub(super) fn next_hop_changed(&mut self, id: NextHopId) {
        let Some(entry) = self.rib.next_hops.get(id) else { return };
        if entry.cost().is_none() {
            self.fib.next_hops_lost(&[entry.address]);
        }
        for family in Family::all() {
            let Some(entry) = self.rib.next_hops.get(id) else { return };
            let slots = entry.users[family.index()].ids().to_vec();
            if !slots.is_empty() {
                self.start_next_hop(id, family, slots);
            }
        }
    }
}
