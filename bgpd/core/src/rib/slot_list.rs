//! Which slots of a table something concerns: the paths of a peer, the users of a next hop.
//!
//! Owner: the peer or next hop. Pure. Entries are added when a path appears and dropped lazily: the list may name a
//! slot twice, or one that no longer concerns it, so whoever goes through it looks. It is compacted when the dead
//! outnumber the live, which costs a constant per change.

/// Lists shorter than this are left alone.
const SLACK: usize = 64;

/// The list.
#[derive(Default)]
pub(crate) struct SlotList {
    ids: Vec<u32>,
    live: usize,
}

impl SlotList {
    /// A path appeared at this slot. `concerns` tells whether a slot still does; it is asked when it is time to
    /// compact.
    pub(crate) fn add(&mut self, id: u32, concerns: impl FnMut(u32) -> bool) {
        if self.ids.len() >= 2 * self.live + SLACK {
            self.compact(concerns);
        }
        self.ids.push(id);
        self.live += 1;
    }

    /// Paths appeared at these slots.
    pub(crate) fn extend(&mut self, ids: &[u32], concerns: impl FnMut(u32) -> bool) {
        if self.ids.len() >= 2 * self.live + SLACK {
            self.compact(concerns);
        }
        self.ids.extend_from_slice(ids);
        self.live += ids.len();
    }

    /// A path went away from one of the slots.
    pub(crate) fn removed(&mut self) {
        self.live = self.live.saturating_sub(1);
        if self.live == 0 {
            self.ids = Vec::new();
        }
    }

    fn compact(&mut self, mut concerns: impl FnMut(u32) -> bool) {
        self.ids.sort_unstable();
        self.ids.dedup();
        self.ids.retain(|id| concerns(*id));
        self.ids.shrink_to(2 * self.live + SLACK);
    }

    /// How many slots it concerns.
    pub(crate) fn live(&self) -> usize {
        self.live
    }

    /// The slots, possibly with repetitions and bygone ones.
    pub(crate) fn ids(&self) -> &[u32] {
        &self.ids
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn churn_does_not_grow_the_list() {
        let mut list = SlotList::default();
        let mut concerned = BTreeSet::new();
        for id in 0..100 {
            list.add(id, |id| concerned.contains(&id));
            concerned.insert(id);
        }
        for round in 0..10_000 {
            let id = round % 100;
            concerned.remove(&id);
            list.removed();
            list.add(id, |id| concerned.contains(&id));
            concerned.insert(id);
            assert!(list.ids().len() <= 2 * 100 + SLACK + 1);
        }
        let named: BTreeSet<u32> = list.ids().iter().copied().collect();
        assert!(concerned.is_subset(&named));
        for _ in 0..100 {
            list.removed();
        }
        assert!(list.ids().is_empty());
    }
}
