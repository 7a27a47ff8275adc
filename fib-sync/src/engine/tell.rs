//! What bgpd is told: how next hops are reached and what became of its routes, each change once.

use causeway_api::fib::{self, Event, NextHopState, RouteState};
use causeway_kernel::Refusal;
use causeway_kernel::route::protocol_name;
use ipnetwork::IpNetwork;

use super::{Engine, Feed};
use crate::delta::Standing;
use crate::desired::Verdict;
use crate::next_hop::Resolution;

impl Engine {
    /// How a next hop is reached, in the feed's words.
    pub(super) fn next_hop_state(&self, next_hop: &fib::NextHop) -> NextHopState {
        let device = |ifindex: u32| self.interfaces.get(ifindex).map(|link| link.name.clone());
        match self.table.resolve(next_hop) {
            Resolution::Unreachable => NextHopState::Unreachable,
            Resolution::Connected { ifindex } => match device(ifindex) {
                Some(device) => NextHopState::Connected { device, ifindex },
                None => NextHopState::Unreachable,
            },
            Resolution::Gateway { gateway, ifindex, metric } => match device(ifindex) {
                Some(device) => NextHopState::Gateway { gateway, device, ifindex, metric },
                None => NextHopState::Unreachable,
            },
        }
    }

    /// Tells bgpd of those registered next hops that are reached in another way now.
    pub(super) fn tell_next_hops(&mut self) {
        let mut next_hops = std::mem::take(&mut self.next_hops);
        for (next_hop, told) in &mut next_hops {
            let state = self.next_hop_state(next_hop);
            if told.as_ref() != Some(&state) {
                *told = Some(state.clone());
                self.events.push(Event::NextHopState { next_hop: *next_hop, state });
            }
        }
        self.next_hops = next_hops;
    }

    /// Tells bgpd what became of the prefixes that may have changed. Those on their way to the kernel come up again
    /// when they are there, or when a dump shows them.
    pub(super) fn tell(&mut self) {
        let dirty = std::mem::take(&mut self.dirty);
        if !matches!(self.feed, Feed::Connected(_)) {
            return;
        }
        for prefix in dirty {
            let told = match self.desired.generation(&prefix) {
                Some(generation) => self.state(&prefix).map(|state| (generation, state)),
                None if self.tracker.has_ours(&self.learned_key(prefix)) => None,
                None => self.withdrawn.remove(&prefix).map(|generation| (generation, RouteState::Removed)),
            };
            let Some((generation, state)) = told else { continue };
            if state == RouteState::Removed {
                self.told.remove(&prefix);
            } else if self.told.get(&prefix) == Some(&(generation, state.clone())) {
                continue;
            } else {
                self.told.insert(prefix, (generation, state.clone()));
            }
            self.events.push(Event::Status { prefix, generation, state });
        }
    }

    /// What became of a learned prefix; `None` while it is on its way to the kernel.
    pub(crate) fn state(&self, prefix: &IpNetwork) -> Option<RouteState> {
        let via = match self.desired.verdict(prefix)? {
            Verdict::Refused(reason) => return Some(RouteState::Failed { reason: reason.to_owned() }),
            Verdict::Unresolved(reason) => return Some(RouteState::Pending { reason: reason.to_owned() }),
            Verdict::Route { via, .. } => via,
        };
        let key = self.learned_key(*prefix);
        if self.locals.contains_key(&key) {
            return Some(RouteState::Failed {
                reason: "refused: this node has a route of its own there".to_owned(),
            });
        }
        match self.tracker.standing(&key)? {
            Standing::Installed => Some(RouteState::Installed { via }),
            Standing::Pending => None,
            Standing::Foreign(protocol) => Some(RouteState::Failed { reason: foreign(protocol) }),
            Standing::Failed(refusal) => Some(RouteState::Failed { reason: refused(&refusal) }),
        }
    }
}

/// The words for a route of somebody else in the way.
pub(crate) fn foreign(protocol: u8) -> String {
    format!("foreign route (proto {})", protocol_name(protocol))
}

/// The words for the kernel's "no".
pub(crate) fn refused(refusal: &Refusal) -> String {
    format!("kernel: {refusal}")
}
