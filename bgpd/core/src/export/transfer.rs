//! A member moves from one group to another in a live session: it is sent the difference and no more.
//!
//! Pure. What is left of the old group's journal goes into the member's backlog, after it the difference between what
//! the two groups have told, and then the member lives on the new group's journal. A member that had not come to the end
//! of its walk knows less than the group has told: it is sent the withdrawals and walks over the new table.

use std::sync::Arc;

use causeway_bgp_wire::PrefixKey;

use super::adj_rib_out::State;
use super::block::{Block, BlockBuilder, Counts};
use super::group::Group;
use super::pending::{Pending, Told};
use super::reader::{Due, Phase};
use super::stream::{Batch, Stream};
use super::walk::Since;
use crate::event::PeerId;

/// At most this many prefixes become one block.
const BLOCK_PREFIXES: usize = 8 * 1024;
/// About how many octets a block has.
const BLOCK_BYTES: usize = 64 * 1024;

/// The difference between what two groups have told, for members that move together.
#[derive(Default)]
pub(super) struct Differences {
    last: Option<Difference>,
}

struct Difference {
    key: [(u64, u64); 2],
    everything: bool,
    blocks: Vec<Arc<Block>>,
}

impl Differences {
    /// Forgets what was kept.
    pub fn clear(&mut self) {
        self.last = None;
    }

    /// What turns the old group's table into the new one's; only the withdrawals unless `everything`.
    fn between<P: PrefixKey>(
        &mut self,
        old: &Stream<P>,
        new: &Stream<P>,
        serials: [u64; 2],
        everything: bool,
    ) -> &[Arc<Block>] {
        let key = [(serials[0], old.version), (serials[1], new.version)];
        let known = self.last.take().filter(|last| last.key == key && last.everything == everything);
        let difference =
            known.unwrap_or_else(|| Difference { key, everything, blocks: difference(old, new, everything) });
        &self.last.insert(difference).blocks
    }
}

fn difference<P: PrefixKey>(old: &Stream<P>, new: &Stream<P>, everything: bool) -> Vec<Arc<Block>> {
    // Slots below are those of `old` for withdrawals, those of `new` for announcements.
    let mut changes = Pending::new();
    // Withdrawn from a member whose own path it is in the new group.
    let mut own = Batch::default();
    for slot in 0..old.table.slots() {
        let Some(entry) = old.table.get(slot) else { continue };
        let before = old.told(entry);
        let after = told_of(new, &entry.prefix).state;
        // Of a tombstone a member that has not heard everything may still know something else.
        let known = before.state.attrs.is_some() || !everything;
        if after.attrs.is_none() && known {
            // Nor is the origin known to be without a path.
            let origin = before.state.origin.filter(|_| everything);
            changes.insert(slot, &State { attrs: None, origin }, before);
        } else if let (Some(origin), true, false) = (after.origin, known, everything) {
            own.only.push((origin, entry.prefix));
        }
    }
    for slot in (0..new.table.slots()).filter(|_| everything) {
        let Some(entry) = new.table.get(slot) else { continue };
        let after = new.told(entry).state;
        let before = told_of(old, &entry.prefix);
        if after.attrs.is_some() && !before.state.same(&after) {
            changes.insert(slot, &after, before);
        }
    }
    encode(changes, own, old, new)
}

fn told_of<P: PrefixKey>(stream: &Stream<P>, prefix: &P) -> Told {
    let entry = stream.table.find(prefix).and_then(|slot| stream.table.get(slot));
    let never = || Told { state: State { attrs: None, origin: None }, epoch: 0 };
    entry.map_or_else(never, |entry| stream.told(entry))
}

fn encode<P: PrefixKey>(
    mut changes: Pending,
    mut own: Batch<P>,
    old: &Stream<P>,
    new: &Stream<P>,
) -> Vec<Arc<Block>> {
    let (mut blocks, mut builder, mut octets) = (Vec::new(), BlockBuilder::default(), Vec::new());
    // Who moves later may be an origin, so every origin gets octets of its own.
    let everybody = |_: &PeerId| true;
    own.encode(new.context(), &mut builder, &mut octets, everybody);
    while let Some(front) = changes.front() {
        let mut batch = Batch { attrs: front.attrs.clone(), except: front.origin, ..Batch::default() };
        let of = if batch.attrs.is_some() { new } else { old };
        while batch.shared.len() < BLOCK_PREFIXES
            && let Some((slot, told)) = changes.pop(&front)
        {
            if let Some(entry) = of.table.get(slot) {
                batch.add(entry.prefix, &told.state);
            }
        }
        batch.encode(new.context(), &mut builder, &mut octets, everybody);
        if builder.len() >= BLOCK_BYTES {
            blocks.extend(builder.finish(0).map(Arc::new));
        }
    }
    blocks.extend(builder.finish(0).map(Arc::new));
    blocks
}

/// Moves a member. Returns false where it is none of the old group's.
pub(super) fn transfer<P: PrefixKey>(
    old: &mut Group<P>,
    new: &mut Group<P>,
    peer: PeerId,
    differences: &mut Differences,
) -> bool {
    let Some(reader) = old.readers.get(&peer) else { return false };
    let rest = reader.position().map(|at| old.rest_of_journal(peer, at)).unwrap_or_default();
    let phase = reader.phase;
    // What nobody there reads is not told by the journal but by walks and by the difference.
    if new.stream.journal.is_unread() {
        new.stream.absorb();
    }
    let knows_everything = matches!(phase, Phase::Live { .. });
    let knows_nothing = phase == Phase::Start(Since::NOTHING_KNOWN);
    let mut owed = rest;
    if !knows_nothing {
        let serials = [old.serial, new.serial];
        for block in differences.between(&old.stream, &new.stream, serials, knows_everything) {
            let mut out = Vec::new();
            let mut counts = block.hand_out(peer, &mut out);
            owed.extend(out.into_iter().map(|bytes| (bytes, std::mem::take::<Counts>(&mut counts))));
        }
    }
    let Some(mut reader) = old.leave(peer) else { return false };
    reader.backlog.extend(owed);
    reader.idle = false;
    reader.phase = if knows_everything {
        Phase::Live { at: new.stream.journal.join() }
    } else {
        new.begin_walk(Since::NOTHING_KNOWN)
    };
    if let Some((_, due)) = &mut reader.marker {
        *due = if knows_everything { new.due_now() } else { Due::Walking };
    }
    new.join(peer, reader);
    true
}
