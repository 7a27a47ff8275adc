//! Next hops: how each is reached, who uses it, and which are asked for.
//!
//! Owner: the RIB. Pure. A next hop is watched from its first path to its last; its answer decides whether paths
//! through it are eligible (RFC 4271 §9.1.2) and what the IGP cost step compares. A change concerns the prefixes on
//! its lists and no others.

use std::net::IpAddr;

use causeway_bgp_wire::{Family, NextHop};
use hashbrown::HashMap;
use smallvec::SmallVec;

use super::path::NextHopId;
use super::slot_list::SlotList;
use crate::event::{NextHopState, PeerId};

/// A request to the resolver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Watch {
    Start(IpAddr),
    Stop(IpAddr),
}

/// One next hop.
pub(crate) struct Entry {
    pub(crate) address: IpAddr,
    /// `None` until the resolver answers.
    pub(crate) state: Option<NextHopState>,
    /// One of this speaker's own addresses: never to be used (RFC 4271 §5.1.3).
    pub(crate) own: bool,
    /// Which slots have a path through it, by [`Family::index`].
    pub(crate) users: [SlotList; Family::COUNT],
    /// How many paths through it which peer sent, by [`Family::index`]. Empty without a resolver, where it is of no use.
    senders: SmallVec<[(PeerId, [u32; Family::COUNT]); 2]>,
}

impl Entry {
    /// Paths of a peer through it came.
    fn sent(&mut self, peer: PeerId, family: Family, count: u32) {
        let at = self.senders.iter().position(|(id, _)| *id == peer).unwrap_or_else(|| {
            self.senders.push((peer, [0; Family::COUNT]));
            self.senders.len() - 1
        });
        self.senders[at].1[family.index()] += count;
    }

    /// A path of a peer through it went.
    fn took(&mut self, peer: PeerId, family: Family) {
        if let Some(at) = self.senders.iter().position(|(id, _)| *id == peer) {
            let counts = &mut self.senders[at].1;
            counts[family.index()] = counts[family.index()].saturating_sub(1);
            if counts.iter().all(|count| *count == 0) {
                self.senders.swap_remove(at);
            }
        }
    }

    /// The IGP cost where a path through it is eligible.
    pub(crate) fn cost(&self) -> Option<u32> {
        match &self.state {
            _ if self.own => None,
            Some(NextHopState::Connected { .. }) => Some(0),
            Some(NextHopState::Gateway { metric, .. }) => Some(*metric),
            Some(NextHopState::Unreachable) | None => None,
        }
    }

    /// Why a path through it is not eligible.
    pub(crate) fn why_not(&self) -> Option<String> {
        let address = self.address;
        match &self.state {
            _ if self.own => Some(format!("next hop {address} is this speaker's own address")),
            None => Some(format!("next hop {address} is not resolved yet")),
            Some(NextHopState::Unreachable) => Some(format!("next hop {address} is unreachable")),
            Some(NextHopState::Connected { .. } | NextHopState::Gateway { .. }) => None,
        }
    }
}

/// All next hops in use.
pub(crate) struct NextHops {
    entries: Vec<Option<Entry>>,
    free: Vec<u32>,
    index: HashMap<IpAddr, u32, foldhash::fast::RandomState>,
    /// False: no resolver, everything counts as connected.
    resolve: bool,
    unanswered: usize,
}

impl NextHops {
    pub(crate) fn new(resolve: bool) -> Self {
        NextHops { entries: Vec::new(), free: Vec::new(), index: HashMap::default(), resolve, unanswered: 0 }
    }

    /// The address to resolve: the global one, unless the peer sent nothing but a link-local one.
    pub(crate) fn address_of(next_hop: &NextHop) -> IpAddr {
        match next_hop.link_local {
            Some(link_local) if next_hop.global.is_unspecified() => link_local.into(),
            _ => next_hop.global,
        }
    }

    /// The number of a next hop, with what is to be asked of the resolver if it is new. Every acquired number is
    /// either given its first user with [`NextHops::entry_mut`] or released.
    pub(crate) fn acquire(
        &mut self,
        address: IpAddr,
        own: impl FnOnce(IpAddr) -> bool,
    ) -> (NextHopId, Option<Watch>) {
        if let Some(id) = self.index.get(&address) {
            return (NextHopId(*id), None);
        }
        let state = if self.resolve {
            self.unanswered += 1;
            None
        } else {
            Some(NextHopState::Connected { device: "".into() })
        };
        let entry =
            Entry { address, state, own: own(address), users: Default::default(), senders: SmallVec::new() };
        let id = self.free.pop().unwrap_or(self.entries.len() as u32);
        match self.entries.get_mut(id as usize) {
            Some(slot) => *slot = Some(entry),
            None => self.entries.push(Some(entry)),
        }
        self.index.insert(address, id);
        (NextHopId(id), self.resolve.then_some(Watch::Start(address)))
    }

    /// Paths of a peer through it appeared at these slots.
    pub(crate) fn used(
        &mut self,
        id: NextHopId,
        family: Family,
        peer: PeerId,
        slots: &[u32],
        concerns: impl FnMut(u32) -> bool,
    ) {
        let resolve = self.resolve;
        if let Some(entry) = self.entry_mut(id) {
            entry.users[family.index()].extend(slots, concerns);
            if resolve {
                entry.sent(peer, family, slots.len() as u32);
            }
        }
    }

    /// A path of a peer through it went. What is to be asked of the resolver where it was the last one.
    pub(crate) fn left(&mut self, id: NextHopId, family: Family, peer: PeerId) -> Option<Watch> {
        let entry = self.entry_mut(id)?;
        entry.users[family.index()].removed();
        entry.took(peer, family);
        self.release(id)
    }

    /// The next hops that nothing leads to any more when the paths that this peer sent of these families are gone.
    pub(crate) fn only_from(&self, peer: PeerId, families: [bool; Family::COUNT]) -> Vec<IpAddr> {
        let lost = |counts: &[u32; Family::COUNT]| {
            counts.iter().zip(families).all(|(count, gone)| gone || *count == 0)
        };
        self.entries
            .iter()
            .flatten()
            .filter(|entry| matches!(&entry.senders[..], [(id, counts)] if *id == peer && lost(counts)))
            .map(|entry| entry.address)
            .collect()
    }

    /// Forgets a next hop that no path uses any more; does nothing while one does.
    pub(crate) fn release(&mut self, id: NextHopId) -> Option<Watch> {
        let slot = self.entries.get_mut(id.0 as usize)?;
        if slot.as_ref()?.users.iter().any(|users| users.live() > 0) {
            return None;
        }
        let entry = slot.take()?;
        self.index.remove(&entry.address);
        self.free.push(id.0);
        if entry.state.is_none() {
            self.unanswered -= 1;
        }
        self.resolve.then_some(Watch::Stop(entry.address))
    }

    pub(crate) fn get(&self, id: NextHopId) -> Option<&Entry> {
        self.entries.get(id.0 as usize)?.as_ref()
    }

    pub(crate) fn entry_mut(&mut self, id: NextHopId) -> Option<&mut Entry> {
        self.entries.get_mut(id.0 as usize)?.as_mut()
    }

    /// Takes an answer in. The number of the next hop, if it is in use and something changed.
    pub(crate) fn answer(&mut self, address: IpAddr, state: NextHopState) -> Option<NextHopId> {
        let id = NextHopId(*self.index.get(&address)?);
        let entry = self.entries.get_mut(id.0 as usize)?.as_mut()?;
        if entry.state.is_none() {
            self.unanswered -= 1;
        }
        if entry.state.as_ref() == Some(&state) {
            return None;
        }
        entry.state = Some(state);
        Some(id)
    }

    /// Applies a changed set of own addresses; the next hops whose standing changed.
    pub(crate) fn set_own(&mut self, own: impl Fn(IpAddr) -> bool) -> Vec<NextHopId> {
        let mut changed = Vec::new();
        for (id, entry) in self.entries.iter_mut().enumerate() {
            if let Some(entry) = entry
                && entry.own != own(entry.address)
            {
                entry.own = !entry.own;
                changed.push(NextHopId(id as u32));
            }
        }
        changed
    }

    /// The answer about an address.
    #[cfg(test)]
    pub(crate) fn state_of(&self, address: IpAddr) -> Option<&NextHopState> {
        self.get(NextHopId(*self.index.get(&address)?))?.state.as_ref()
    }

    /// How many next hops wait for an answer.
    pub(crate) fn unanswered(&self) -> usize {
        self.unanswered
    }

    /// How many next hops are in use.
    pub(crate) fn len(&self) -> usize {
        self.index.len()
    }

    /// All addresses in use, in the order of their numbers: what a resolver that forgot is asked again.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.entries.iter().flatten().map(|entry| entry.address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn watched_from_the_first_user_to_the_last() {
        let mut next_hops = NextHops::new(true);
        let (id, watch) = next_hops.acquire(ip("192.0.2.1"), |_| false);
        assert_eq!(watch, Some(Watch::Start(ip("192.0.2.1"))));
        let (one, other) = (PeerId(1), PeerId(2));
        next_hops.used(id, Family::Ipv4Unicast, one, &[0], |_| true);
        assert_eq!(next_hops.only_from(one, [true, false]), [ip("192.0.2.1")]);
        assert!(next_hops.only_from(one, [false, true]).is_empty());
        next_hops.used(id, Family::Ipv4Unicast, other, &[1], |_| true);
        assert!(next_hops.only_from(one, [true, true]).is_empty());
        assert_eq!(next_hops.acquire(ip("192.0.2.1"), |_| false), (id, None));
        assert_eq!(next_hops.unanswered(), 1);
        assert_eq!(next_hops.get(id).unwrap().cost(), None);
        let gateway = NextHopState::Gateway { gateway: ip("198.51.100.1"), device: "eth0".into(), metric: 7 };
        assert_eq!(next_hops.answer(ip("192.0.2.1"), gateway.clone()), Some(id));
        assert_eq!(next_hops.answer(ip("192.0.2.1"), gateway), None);
        assert_eq!(next_hops.answer(ip("192.0.2.9"), NextHopState::Unreachable), None);
        assert_eq!((next_hops.get(id).unwrap().cost(), next_hops.unanswered()), (Some(7), 0));
        assert_eq!(next_hops.left(id, Family::Ipv4Unicast, other), None);
        assert_eq!(next_hops.only_from(one, [true, true]), [ip("192.0.2.1")]);
        assert_eq!(next_hops.left(id, Family::Ipv4Unicast, one), Some(Watch::Stop(ip("192.0.2.1"))));
        assert_eq!(next_hops.len(), 0);
        assert_eq!(next_hops.acquire(ip("192.0.2.2"), |_| false).0, id);
    }

    #[test]
    fn without_a_resolver_everything_is_reachable_but_oneself() {
        let mut next_hops = NextHops::new(false);
        let (a, watch) = next_hops.acquire(ip("192.0.2.1"), |_| false);
        assert_eq!((watch, next_hops.get(a).unwrap().cost()), (None, Some(0)));
        let (b, _) = next_hops.acquire(ip("192.0.2.2"), |address| address == ip("192.0.2.2"));
        assert_eq!(next_hops.get(b).unwrap().cost(), None);
        assert_eq!(next_hops.set_own(|address| address == ip("192.0.2.1")), [a, b]);
        assert_eq!(next_hops.get(b).unwrap().cost(), Some(0));
        assert!(next_hops.get(a).unwrap().why_not().unwrap().contains("own address"));
    }
}
