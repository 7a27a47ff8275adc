//! A member moves from one group to another in a live session: it is sent the difference and no more.
//!
//! Pure. What is left of the old group's journal goes into the member's backlog. Then it walks, slice by slice, over
//! both tables, and is sent what the two groups have told differently; what the new group tells meanwhile it reads in
//! the journal afterwards, as after any walk. A placeholder stays in the old group, which goes on without the member: what is
//! told there from then on the member does not know, and what was withdrawn there it must still be told of. So slots and
//! tombstones stay until it has come to the end. A member that had not come to the end of its walk knows less than the
//! old group has told: it is sent all of the new table, and withdrawals of what is not in it.

use std::ops::Range;

use causeway_bgp_wire::PrefixKey;
use foldhash::fast::RandomState;
use hashbrown::HashMap;

use super::adj_rib_out::{Epoch, Origin};
use super::group::Group;
use super::pending::Told;
use super::reader::{Due, Former, Phase};
use super::sender::Sender;
use super::stream::{Batch, Stream};
use super::walk::Since;
use crate::attrs::AttrSet;
use crate::event::PeerId;
use crate::rib::slots::Keys;

/// One of two groups.
pub(super) struct Side<'a, P> {
    pub stream: &'a Stream<P>,
    pub sender: Sender<'a>,
}

impl<P: PrefixKey> Side<'_, P> {
    fn told(&self, slot: u32) -> Option<Told> {
        self.stream.table.get(slot).map(|entry| self.stream.told(entry))
    }
}

/// What a moving member knows of a prefix.
enum Known {
    Nothing,
    /// What was told, unless it is from the member itself.
    Exactly(Told),
    /// It may know something.
    Perhaps,
}

impl Known {
    fn of(from: Former, old: Option<Told>, new: Option<&Told>) -> Known {
        let withdrawn_since = |told: &&Told| from.withdrawn.is_some_and(|since| told.epoch >= since);
        match old {
            Some(told) if told.epoch >= from.known => Known::Perhaps,
            _ if new.filter(withdrawn_since).is_some() => Known::Perhaps,
            Some(told) if told.state.attrs.is_some() => Known::Exactly(told),
            Some(_) | None => Known::Nothing,
        }
    }
}

type Pair = (AttrSet, Origin, AttrSet, Origin);

/// What a member that comes from the one group is told of these slots so that it knows what the other has told before
/// `mark`: withdrawals first, then by attributes and origin in the order of the table.
pub(super) fn difference<P: PrefixKey>(
    from: Former,
    old: Side<'_, P>,
    new: Side<'_, P>,
    slots: Range<u32>,
    mark: Epoch,
    keys: &Keys<P>,
) -> Vec<Batch<P>> {
    let mut compared: HashMap<Pair, bool, RandomState> = HashMap::default();
    let mut withdrawn = Batches::default();
    let mut announced = Batches::default();
    // Withdrawn from a member whose own path it is now.
    let mut own = Batch::default();
    for slot in slots {
        let (before, after) = (old.told(slot), new.told(slot));
        let known = Known::of(from, before, after.as_ref());
        let origin = after.as_ref().and_then(|told| told.state.origin);
        let later = after.as_ref().is_some_and(|told| told.epoch >= mark);
        let attrs = after.and_then(|told| told.state.attrs).filter(|_| !later);
        match (known, attrs) {
            (Known::Nothing, None) => {}
            // The journal tells it, but not to the origin.
            (_, None) if later => own.only.extend(origin.map(|origin| (origin, keys.key(slot)))),
            (Known::Exactly(told), None) => {
                withdrawn.of(None, told.state.origin).shared.push(keys.key(slot));
            }
            (Known::Perhaps, None) => withdrawn.of(None, None).shared.push(keys.key(slot)),
            (Known::Nothing, Some(attrs)) => announced.of(Some(attrs), origin).shared.push(keys.key(slot)),
            (Known::Perhaps, Some(attrs)) => {
                own.only.extend(origin.map(|origin| (origin, keys.key(slot))));
                announced.of(Some(attrs), origin).shared.push(keys.key(slot));
            }
            (Known::Exactly(told), Some(attrs)) => {
                let Some(before) = told.state.attrs.clone() else { continue };
                let pair = (before, told.state.origin, attrs.clone(), origin);
                let same = *compared.entry(pair).or_insert_with_key(|(before, was, after, is)| {
                    let sent = old.sender.sent(before, *was);
                    sent.is_some() && sent == new.sender.sent(after, *is)
                });
                if !(same && told.state.origin == origin) {
                    announced.of(Some(attrs), origin).add(keys.key(slot), &told.state, |_, _| same);
                }
            }
        }
    }
    std::iter::once(own).chain(withdrawn.batches).chain(announced.batches).collect()
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
    fn of(&mut self, attrs: Option<AttrSet>, origin: Origin) -> &mut Batch<P> {
        let batches = &mut self.batches;
        let index = *self.by_key.entry((attrs.clone(), origin)).or_insert_with(|| {
            batches.push(Batch { attrs, except: origin, ..Batch::default() });
            batches.len() - 1
        });
        &mut batches[index]
    }
}

/// Moves a member, which moves from no other group, out of the group at a place of the family's.
pub(super) fn transfer<P: PrefixKey>(old: (usize, &mut Group<P>), new: &mut Group<P>, peer: PeerId) {
    let (group, old) = old;
    let Some(reader) = old.readers.get(&peer) else { return };
    let rest = reader.position().map(|at| old.rest_of_journal(peer, at)).unwrap_or_default();
    let phase = reader.phase;
    let needed = reader.needs_withdrawals_since();
    let told_from_now_on = old.stream.mark();
    let withdrawn = Some(needed.map_or(told_from_now_on, |needed| needed.min(told_from_now_on)));
    let Some(mut reader) = old.leave_behind(peer, Since { announced: told_from_now_on, withdrawn }) else {
        return;
    };
    reader.backlog.extend(rest);
    reader.idle = false;
    if let Some((_, due)) = &mut reader.marker {
        *due = Due::Walking;
    }
    reader.phase = match phase {
        Phase::Start(Since::NOTHING_KNOWN) => phase,
        _ => {
            let known = if matches!(phase, Phase::Live { .. }) { told_from_now_on } else { 0 };
            new.begin_move(Former { group, serial: old.serial, known, withdrawn: None })
        }
    };
    new.join(peer, reader);
}
