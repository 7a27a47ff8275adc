//! A member moves from one group to another in a live session: it is sent the difference and no more.
//!
//! Pure. What is left of the old group's journal goes into the member's backlog, after it the difference between what
//! the two groups have told, and then the member lives on the new group's journal. A member that had not come to the end
//! of its walk knows less than the group has told: it is sent the withdrawals and walks over the new table.

use std::sync::Arc;

use causeway_bgp_wire::PrefixKey;
use foldhash::fast::RandomState;
use hashbrown::HashMap;

use super::adj_rib_out::Origin;
use super::block::{Block, BlockBuilder, Counts};
use super::group::Group;
use super::pending::Told;
use super::reader::{Due, Phase};
use super::sender::{Sender, Sources};
use super::stream::{Batch, Stream};
use super::walk::Since;
use crate::attrs::AttrSet;
use crate::event::PeerId;
use crate::rib::slots::Keys;

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
        old: &Group<P>,
        new: &Group<P>,
        everything: bool,
        keys: &Keys<P>,
        sources: &Sources,
    ) -> &[Arc<Block>] {
        let key = [(old.serial, old.stream.version), (new.serial, new.stream.version)];
        let known = self.last.take().filter(|last| last.key == key && last.everything == everything);
        let difference = known.unwrap_or_else(|| {
            let sides = Sides {
                old: Side { stream: &old.stream, sender: Sender { key: &old.key, sources } },
                new: Side { stream: &new.stream, sender: Sender { key: &new.key, sources } },
                compared: HashMap::default(),
            };
            Difference { key, everything, blocks: sides.difference(everything, keys) }
        });
        &self.last.insert(difference).blocks
    }
}

/// One of the two groups.
struct Side<'a, P> {
    stream: &'a Stream<P>,
    sender: Sender<'a>,
}

impl<P: PrefixKey> Side<'_, P> {
    fn told(&self, slot: u32) -> Told {
        self.stream.table.get(slot).map_or(Told::NEVER, |entry| self.stream.told(entry))
    }
}

type Pair = (AttrSet, Origin, AttrSet, Origin);

/// The two groups, and which attributes of theirs come to the same.
struct Sides<'a, P> {
    old: Side<'a, P>,
    new: Side<'a, P>,
    compared: HashMap<Pair, bool, RandomState>,
}

impl<P: PrefixKey> Sides<'_, P> {
    fn difference(mut self, everything: bool, keys: &Keys<P>) -> Vec<Arc<Block>> {
        let mut withdrawn = Batches::default();
        let mut announced = Batches::default();
        // Withdrawn from a member whose own path it is in the new group.
        let mut own = Batch::default();
        for slot in self.old.stream.table.slots() {
            let before = self.old.told(slot).state;
            let after = self.new.told(slot).state;
            // Of a tombstone a member that has not heard everything may still know something else.
            let known = before.attrs.is_some() || !everything;
            if after.attrs.is_none() && known {
                // Nor is the origin known to be without a path.
                let origin = before.origin.filter(|_| everything);
                withdrawn.of(None, origin).add(keys.key(slot), &before, |_, _| false);
            } else if let (Some(origin), true, false) = (after.origin, known, everything) {
                own.only.push((origin, keys.key(slot)));
            }
        }
        for slot in self.new.stream.table.slots().filter(|_| everything) {
            let (before, after) = (self.old.told(slot).state, self.new.told(slot).state);
            let Some(attrs) = &after.attrs else { continue };
            let same = before
                .attrs
                .as_ref()
                .is_some_and(|known| self.same_attributes((known, before.origin), (attrs, after.origin)));
            if !(same && before.origin == after.origin) {
                announced.of(after.attrs, after.origin).add(keys.key(slot), &before, |_, _| same);
            }
        }
        let (mut blocks, mut builder, mut octets) = (Vec::new(), BlockBuilder::default(), Vec::new());
        let withdrawn = std::iter::once(own).chain(withdrawn.batches).map(|batch| (batch, self.old.sender));
        let announced = announced.batches.into_iter().map(|batch| (batch, self.new.sender));
        for (mut batch, sender) in withdrawn.chain(announced) {
            // Who moves later may be an origin, so every origin gets octets of its own.
            batch.encode(self.new.stream.context(), sender, &mut builder, &mut octets, |_| true);
            if builder.len() >= BLOCK_BYTES {
                blocks.extend(builder.finish(0).map(Arc::new));
            }
        }
        blocks.extend(builder.finish(0).map(Arc::new));
        blocks
    }

    /// Whether attributes of the old group look to its members as those of the new one do to its own.
    fn same_attributes(&mut self, before: (&AttrSet, Origin), after: (&AttrSet, Origin)) -> bool {
        let (old, new) = (self.old.sender, self.new.sender);
        let pair = (before.0.clone(), before.1, after.0.clone(), after.1);
        *self.compared.entry(pair).or_insert_with(|| {
            let sent = old.sent(before.0, before.1);
            sent.is_some() && sent == new.sent(after.0, after.1)
        })
    }
}

/// Batches by attributes and origin, in the order they came into being.
struct Batches<P> {
    batches: Vec<Batch<P>>,
    by_key: HashMap<(Option<AttrSet>, Origin), usize, RandomState>,
}

impl<P> Default for Batches<P> {
    fn default() -> Self {
        Batches { batches: Vec::new(), by_key: HashMap::default() }
    }
}

impl<P: PrefixKey> Batches<P> {
    /// A batch of these that is not full.
    fn of(&mut self, attrs: Option<AttrSet>, origin: Origin) -> &mut Batch<P> {
        let index = self.by_key.entry((attrs.clone(), origin)).or_insert(usize::MAX);
        if self.batches.get(*index).is_none_or(|batch| batch.shared.len() >= BLOCK_PREFIXES) {
            *index = self.batches.len();
            self.batches.push(Batch { attrs, except: origin, ..Batch::default() });
        }
        &mut self.batches[*index]
    }
}

/// Moves a member. Returns false where it is none of the old group's.
pub(super) fn transfer<P: PrefixKey>(
    old: &mut Group<P>,
    new: &mut Group<P>,
    peer: PeerId,
    differences: &mut Differences,
    keys: &Keys<P>,
    sources: &Sources,
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
        for block in differences.between(old, new, knows_everything, keys, sources) {
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
