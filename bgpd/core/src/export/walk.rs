//! Walks over a group's table, slice by slice: the initial table of a member, a refresh, or what a member that fell
//! out of the journal is owed.
//!
//! Owner: the group. Pure. Members that walk from the same mark share the encoded slices.

use std::collections::VecDeque;
use std::sync::Arc;

use causeway_bgp_wire::PrefixKey;
use foldhash::fast::RandomState;
use hashbrown::HashMap;

use super::adj_rib_out::{Epoch, Origin};
use super::block::{Block, BlockBuilder};
use super::reader::Former;
use super::sender::Sender;
use super::stream::{Batch, Stream};
use super::transfer::{Side, difference};
use crate::attrs::AttrSet;
use crate::rib::slots::Keys;

/// How many slices are kept for members that come to the same place.
const KEPT_SLICES: usize = 8;

/// What the walking member does not know yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Since {
    /// Announcements told in this epoch or later; 0: all of them.
    pub announced: Epoch,
    /// Withdrawals told in this epoch or later; `None`: it needs none, having been told nothing or all of them.
    pub withdrawn: Option<Epoch>,
}

impl Since {
    /// It knows nothing.
    pub const NOTHING_KNOWN: Since = Since { announced: 0, withdrawn: None };
}

/// Which slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// What the member does not know.
    pub since: Since,
    /// The group it moves from.
    pub from: Option<Former>,
    /// What that group had told by now, where the member may know any of it, be it more than one that came before it.
    pub told: Option<u64>,
    /// What is told from this epoch on it reads in the journal.
    pub mark: Epoch,
    /// First slot of the slice.
    pub slot: u32,
}

/// A slice of a walk.
struct Slice {
    place: Place,
    next: Option<u32>,
    block: Option<Arc<Block>>,
}

/// The slices made last.
pub(super) struct Slices {
    /// Table slots looked at for one slice.
    slots: u32,
    kept: VecDeque<Slice>,
    builder: BlockBuilder,
}

impl Slices {
    pub fn new(slots: u32) -> Self {
        Slices { slots, kept: VecDeque::new(), builder: BlockBuilder::default() }
    }

    /// Where the slice that begins at this slot ends.
    pub fn end_of(&self, slot: u32) -> u32 {
        slot.saturating_add(self.slots)
    }

    /// `old` is what the member moves from. The slice at this place, and the slot the next begins at: `None` where this one was the last, since it came to
    /// `end`. That may be the end of the table as it was when the slice was made, since what comes after was told after
    /// the mark.
    pub fn slice<P: PrefixKey>(
        &mut self,
        stream: &Stream<P>,
        place: Place,
        end: u32,
        keys: &Keys<P>,
        sender: Sender<'_>,
        old: Option<Side<'_, P>>,
    ) -> (Option<Arc<Block>>, Option<u32>) {
        if let Some(slice) = self.kept.iter().find(|slice| slice.place == place) {
            return (slice.block.clone(), slice.next);
        }
        let next = self.end_of(place.slot);
        let mut octets = Vec::new();
        let batches = match (place.from, old) {
            (Some(from), Some(old)) => {
                let slots = place.slot..next.min(stream.table.end().max(old.stream.table.end()));
                difference(from, old, Side { stream, sender }, slots, place.mark, keys)
            }
            _ => batches(stream, place, next.min(stream.table.end()), keys),
        };
        for mut batch in batches {
            // Slices are kept for members still to come, so every origin gets octets of its own.
            batch.encode(stream.context(), sender, &mut self.builder, &mut octets, |_| true);
        }
        let block = self.builder.finish(place.mark).map(Arc::new);
        let next = (next < end).then_some(next);
        if self.kept.len() == KEPT_SLICES {
            self.kept.pop_front();
        }
        self.kept.push_back(Slice { place, next, block: block.clone() });
        (block, next)
    }

    /// Nobody walks any more.
    pub fn clear(&mut self) {
        self.kept = VecDeque::new();
    }
}

/// What a member is told of the slots from the place on up to `end`: withdrawals first, then by attributes and origin
/// in the order of the table.
fn batches<P: PrefixKey>(stream: &Stream<P>, place: Place, end: u32, keys: &Keys<P>) -> Vec<Batch<P>> {
    let mut withdrawn: Vec<Batch<P>> = vec![Batch::default()];
    let mut announced: Vec<Batch<P>> = Vec::new();
    let mut by_key: HashMap<(Option<AttrSet>, Origin), usize, RandomState> = HashMap::default();
    for (slot, entry) in (place.slot..end).filter_map(|slot| Some((slot, stream.table.get(slot)?))) {
        let told = stream.told(entry);
        let origin = told.state.origin;
        let missed = place.since.withdrawn.is_some_and(|since| told.epoch >= since);
        // The origin of a path, or of the last one, may have had another's before and missed that it went: what was
        // told since leaves the origin out, in the journal too.
        if let (Some(origin), true) = (origin, missed) {
            withdrawn[0].only.push((origin, keys.key(slot)));
        }
        if told.epoch >= place.mark {
            continue;
        }
        let queue = match &told.state.attrs {
            Some(_) if told.epoch >= place.since.announced => &mut announced,
            None if missed => &mut withdrawn,
            _ => continue,
        };
        let index = by_key.entry((told.state.attrs.clone(), origin)).or_insert_with(|| {
            queue.push(Batch { attrs: told.state.attrs.clone(), except: origin, ..Batch::default() });
            queue.len() - 1
        });
        queue[*index].shared.push(keys.key(slot));
    }
    withdrawn.append(&mut announced);
    withdrawn
}
