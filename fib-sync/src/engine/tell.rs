//! What bgpd is told: how next hops are reached and what became of its routes, each change once.

use causeway_api::fib::{self, Event, NextHopState, RouteState};
use causeway_kernel::Refusal;
use causeway_kernel::route::protocol_name;

use super::{Engine, Feed};
use crate::delta::Standing;
use crate::desired::Bar;
use crate::forms::NONE;
use crate::next_hop::Resolution;
use crate::slots::Slot;
use crate::way::Lookout;

/// The most slots looked at in one step.
const AT_ONCE: usize = 16_384;

impl Engine {
    /// How a next hop is reached, in the feed's words.
    pub(super) fn next_hop_state(&self, next_hop: &fib::NextHop) -> NextHopState {
        let device = |ifindex: u32| self.interfaces.get(ifindex).map(|link| link.name.clone());
        match self.world().resolve(next_hop) {
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

    /// Whether some change waits to be told, with or without room for it.
    pub fn untold(&self) -> bool {
        self.desired.has_dirty()
    }

    /// Tells bgpd what became of the prefixes that may have changed, as far as there is room. Those on their way to the
    /// kernel come up again when they are there, or when a dump shows them. What nothing is known of any more is free.
    pub(super) fn tell(&mut self) {
        for slot in self.tracker.take_changed() {
            self.desired.mark_dirty(slot);
        }
        let connected = matches!(self.feed, Feed::Connected(_));
        for _ in 0..AT_ONCE {
            if self.room == 0 {
                return;
            }
            let Some(slot) = self.desired.pop_dirty() else { return };
            if connected {
                self.tell_slot(slot);
            } else if self.desired.is_withdrawn(slot) {
                self.desired.heard_of_end(slot);
            }
            if self.desired.is_idle(slot) && self.tracker.free(slot) {
                self.desired.forget(slot);
            }
        }
    }

    fn tell_slot(&mut self, slot: Slot) {
        let Some(generation) = self.desired.generation(slot) else { return };
        let state = if self.desired.is_withdrawn(slot) {
            let gone = self.tracker.has(slot) == NONE || self.desired.is_local(slot);
            if !gone {
                return;
            }
            self.desired.heard_of_end(slot);
            RouteState::Removed
        } else {
            let Some(state) = self.state(slot) else { return };
            if !self.desired.tell(slot, digest(&state)) {
                return;
            }
            state
        };
        self.room = self.room.saturating_sub(1);
        let prefix = self.tracker.slots().prefix(slot);
        self.events.push(Event::Status { prefix, generation, state });
    }

    /// What became of a learned prefix; `None` while it is on its way to the kernel.
    pub(crate) fn state(&self, slot: Slot) -> Option<RouteState> {
        match self.desired.bar(slot) {
            Bar::Open => {}
            Bar::Guard => {
                let prefix = self.tracker.slots().prefix(slot);
                let reason = self.guard.check(&prefix).err().unwrap_or_default();
                return Some(RouteState::Failed { reason });
            }
            Bar::NoGroup => {
                let reason = "refused: it names a next-hop group which there is not".to_owned();
                return Some(RouteState::Failed { reason });
            }
            Bar::TooMany => {
                let reason = format!("refused: more than {} routes", crate::desired::MAX_ROUTES);
                return Some(RouteState::Failed { reason });
            }
        }
        let (_, bundle) = self.desired.bundle_at(slot)?;
        if bundle.way.impossible {
            return Some(RouteState::Failed { reason: bundle.way.reason.clone() });
        }
        if self.desired.is_local(slot) {
            return Some(RouteState::Failed {
                reason: "refused: this node has a route of its own there".to_owned(),
            });
        }
        if bundle.way.hops.is_empty() {
            return Some(RouteState::Pending { reason: bundle.way.reason.clone() });
        }
        match self.tracker.standing(slot)? {
            Standing::Installed => Some(RouteState::Installed { via: bundle.way.via }),
            Standing::Pending => {
                // The kernel refused what it leads to.
                let refusal = bundle.object.and_then(|object| self.objects.refusal(object))?;
                Some(RouteState::Failed { reason: refused(refusal) })
            }
            Standing::Foreign(protocol) => Some(RouteState::Failed { reason: foreign(protocol) }),
            Standing::Failed(refusal) => Some(RouteState::Failed { reason: refused(&refusal) }),
        }
    }
}

/// A state condensed to a number other than 0: the same state gives the same.
fn digest(state: &RouteState) -> u32 {
    let (kind, text) = match state {
        RouteState::Installed { via } => return via_number(*via),
        RouteState::Pending { reason } => (1 << 28, reason),
        RouteState::Failed { reason } => (2 << 28, reason),
        RouteState::Removed => return 3 << 28,
    };
    // FNV-1a.
    let sum =
        text.bytes().fold(0x811c_9dc5_u32, |sum, byte| (sum ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    kind | sum >> 4
}

/// A [`fib::Via`] as a small number, from 1.
fn via_number(via: fib::Via) -> u32 {
    match via {
        fib::Via::Direct => 1,
        fib::Via::Ipip => 2,
        fib::Via::Vxlan => 3,
        fib::Via::Recursive => 4,
        fib::Via::Local => 5,
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
