//! What all members of a group are told, once: table, pending queue and journal of one family.
//!
//! Owner: the group. Pure. A change of a route goes into the table at once and into the pending queue; it is *told*
//! when it is taken from there and encoded into the journal. Told entries bear the epoch in which that happened, so that
//! a walk over the table knows what a member has, or will have, from the journal:
//!
//! - [`Stream::mark`] divides time: what was told before has a lower epoch than what is told after. A member that
//!   takes a mark and joins the journal's end in one step, and then walks over what was told before the mark, misses
//!   nothing and is told nothing twice.
//! - A withdrawn entry stays in the table as a tombstone while some member may need to be told of it: one that has to
//!   read the withdrawal in the journal, or one that fell out of the journal and is owed a walk.

use std::sync::Arc;

use causeway_bgp_wire::encode::{EncodeContext, EncodedAttributes, encode_withdrawals};
use causeway_bgp_wire::{Nlri, PrefixKey};
use foldhash::fast::RandomState;
use hashbrown::HashSet;

use super::adj_rib_out::{AdjRibOut, Entry, Epoch, LAST_EPOCH, Origin, Stand, State};
use super::block::{BlockBuilder, Counts};
use super::journal::{Journal, Position};
use super::pending::{Front, NEVER_TOLD, Pending, Told};
use super::sender::Sender;
use crate::attrs::AttrSet;
use crate::event::PeerId;
use crate::rib::slots::Keys;

/// About how many octets one step encodes.
const STEP_BYTES: usize = 64 * 1024;
/// At most this many prefixes are taken out of a bucket at a time.
const STEP_PREFIXES: usize = 8 * 1024;
/// A new epoch at least every so many octets of journal, so that a member that falls out is told little twice.
const EPOCH_BYTES: usize = 256 * 1024;
/// Tombstones are looked through when there are this many, then when there are twice as many as were left.
const SWEEP_MIN: usize = 1024;

/// Table, pending queue and journal.
pub(super) struct Stream<P> {
    pub table: AdjRibOut,
    pub pending: Pending,
    pub journal: Journal,
    /// Who is a member: an origin that is none needs no octets of its own.
    pub members: HashSet<PeerId, RandomState>,
    context: EncodeContext,
    epoch: Epoch,
    /// Whether something was told in this epoch, and how many octets.
    used: bool,
    used_bytes: usize,
    /// Grows with everything that is told, be it to who walks alone.
    pub revision: u64,
    /// How often the pending queue became empty, and where the journal ended the last time.
    pub emptied: (u64, Position),
    tombstones: Vec<u32>,
    sweep_at: usize,
    /// The last sweep left some for members that fell out: another is of no use until one of them has caught up.
    blocked: bool,
    builder: BlockBuilder,
    scratch: Scratch<P>,
}

/// Buffers that are used again.
struct Scratch<P> {
    slots: Vec<u32>,
    shared: Vec<P>,
    owed: Vec<P>,
    octets: Vec<u8>,
}

impl<P: PrefixKey> Stream<P> {
    pub fn new(context: EncodeContext) -> Self {
        Stream {
            table: AdjRibOut::new(),
            pending: Pending::new(),
            journal: Journal::default(),
            members: HashSet::default(),
            context,
            epoch: 1,
            used: false,
            used_bytes: 0,
            revision: 0,
            emptied: (0, 0),
            tombstones: Vec::new(),
            sweep_at: SWEEP_MIN,
            blocked: false,
            builder: BlockBuilder::default(),
            scratch: Scratch { slots: Vec::new(), shared: Vec::new(), owed: Vec::new(), octets: Vec::new() },
        }
    }

    /// What encoding depends on.
    pub fn context(&self) -> &EncodeContext {
        &self.context
    }

    /// Begins a new epoch if need be: what is told from now on has this epoch or a later one.
    pub fn mark(&mut self) -> Epoch {
        if self.used && self.epoch < LAST_EPOCH {
            self.epoch += 1;
            (self.used, self.used_bytes) = (false, 0);
        }
        self.epoch
    }

    /// Whether epochs are used up (after two thousand million marks): nobody can join any more.
    pub fn is_worn_out(&self) -> bool {
        self.epoch == LAST_EPOCH
    }

    /// What members were last told of an entry.
    pub fn told(&self, entry: &Entry) -> Told {
        match entry.stand() {
            Stand::Told(epoch) => Told { state: entry.state(), epoch },
            Stand::Pending(number) => self.pending.told(number).clone(),
        }
    }

    /// Puts a route into the table that is there since before anybody was told of anything: members get it by walking.
    pub fn fill(&mut self, slot: u32, state: State) {
        if self.table.get(slot).is_none() {
            self.table.insert(slot);
            self.table.set(slot, state, Stand::Told(0));
            self.revision += 1;
        }
    }

    /// What the members are to see of a prefix from now on.
    pub fn change(&mut self, slot: u32, state: State, sender: Sender<'_>) {
        let entry = match self.table.get(slot) {
            Some(entry) => entry,
            None if state.attrs.is_none() => return,
            None => &*self.table.insert(slot),
        };
        let (before, stand) = (entry.state(), entry.stand());
        if sender.same(&before, &state) {
            return;
        }
        match stand {
            Stand::Told(epoch) => {
                // A withdrawal is not for the origin of what is withdrawn.
                let state = match state.attrs {
                    None => State { attrs: None, origin: before.origin },
                    Some(_) => state,
                };
                let number = self.pending.insert(slot, &state, Told { state: before, epoch });
                self.table.set(slot, state, Stand::Pending(number));
            }
            Stand::Pending(number) if sender.same(&self.pending.told(number).state, &state) => {
                let told = self.pending.remove(number);
                self.take_back(slot, told);
            }
            Stand::Pending(number) => {
                let state = match state.attrs {
                    None => State { attrs: None, origin: self.pending.told(number).state.origin },
                    Some(_) => state,
                };
                self.pending.push(slot, &state);
                self.table.set(slot, state, stand);
            }
        }
        if self.pending.is_empty() {
            self.emptied();
        } else if self.pending.wants_compaction() {
            let table = &self.table;
            self.pending.compact(|slot, attrs, origin| waits(table, slot, attrs, origin).is_some());
        }
    }

    /// Prefixes that members are to see from now on, all in one state. Gives back the slots where there is an entry
    /// already: they are for [`Stream::change`].
    pub fn add(&mut self, slots: &[u32], state: &State) -> Vec<u32> {
        let mut taken = Vec::new();
        self.table.insert_all(slots, state, Stand::Pending(NEVER_TOLD), |slot| taken.push(slot));
        if taken.is_empty() {
            self.pending.insert_new(slots, state);
        } else {
            let new: Vec<u32> = slots.iter().copied().filter(|slot| !taken.contains(slot)).collect();
            if !new.is_empty() {
                self.pending.insert_new(&new, state);
            }
        }
        taken
    }

    /// The prefix is as members were told after all.
    fn take_back(&mut self, slot: u32, told: Told) {
        let gone = told.state.attrs.is_none();
        self.table.set(slot, told.state, Stand::Told(told.epoch));
        match (gone, told.epoch) {
            // Nobody was ever told of it.
            (true, 0) => self.table.remove(slot),
            (true, _) => self.tombstones.push(slot),
            (false, _) => {}
        }
    }

    /// Where nobody reads the journal, what is pending need not be written: who joins gets it by walking.
    pub fn absorb(&mut self) {
        let mut slots = std::mem::take(&mut self.scratch.slots);
        while let Some(front) = self.pending.front() {
            slots.clear();
            self.pending.take(&front, usize::MAX, &mut slots);
            self.tell(&slots, &front, |_, _| {});
        }
        self.scratch.slots = slots;
        self.emptied();
    }

    /// Slots were taken out of the queue: `told` hears of each what members knew so far, but for the bygone ones.
    fn tell(&mut self, slots: &[u32], front: &Front, mut told: impl FnMut(u32, &Told)) {
        let (mut new, mut all) = (0, 0);
        for slot in slots.iter().copied() {
            let Some(number) = waits(&self.table, slot, front.attrs.as_ref(), front.origin) else { continue };
            if let Some(entry) = self.table.get_mut(slot) {
                entry.set_stand(Stand::Told(self.epoch));
            }
            all += 1;
            if number == NEVER_TOLD {
                new += 1;
                told(slot, &Told::NEVER);
            } else {
                told(slot, &self.pending.remove(number));
            }
            if front.attrs.is_none() {
                self.tombstones.push(slot);
            }
        }
        self.pending.remove_new(new);
        self.used |= all > 0;
        self.revision += u64::from(all > 0);
    }

    /// Encodes a step's worth of what is pending into the journal. `walking`: some member is in the middle of a walk
    /// and relies on finding in the journal whatever is told from its mark on.
    pub fn write(&mut self, walking: bool, keys: &Keys<P>, sender: Sender<'_>) {
        while self.builder.len() < STEP_BYTES
            && let Some(front) = self.pending.front()
        {
            let mut batch = Batch {
                attrs: front.attrs.clone(),
                except: front.origin,
                repeat: walking,
                ..Batch::default()
            };
            (batch.shared, batch.owed) =
                (std::mem::take(&mut self.scratch.shared), std::mem::take(&mut self.scratch.owed));
            let room = (STEP_BYTES.saturating_sub(self.builder.len()) / 4).clamp(64, STEP_PREFIXES);
            let mut slots = std::mem::take(&mut self.scratch.slots);
            slots.clear();
            self.pending.take(&front, room, &mut slots);
            self.tell(&slots, &front, |slot, told| {
                let same = |before: &_, now: &_| {
                    sender.same_attributes((before, told.state.origin), (now, front.origin))
                };
                batch.add(keys.key(slot), &told.state, same);
            });
            self.scratch.slots = slots;
            let is_member = |peer: &PeerId| self.members.contains(peer);
            batch.encode(&self.context, sender, &mut self.builder, &mut self.scratch.octets, is_member);
            batch.shared.clear();
            batch.owed.clear();
            (self.scratch.shared, self.scratch.owed) = (batch.shared, batch.owed);
        }
        if let Some(block) = self.builder.finish(self.epoch) {
            self.used_bytes += block.len();
            self.journal.push(Arc::new(block));
        }
        if self.used_bytes >= EPOCH_BYTES {
            self.mark();
        }
        if self.pending.is_empty() {
            self.emptied();
        }
    }

    fn emptied(&mut self) {
        self.emptied = (self.emptied.0 + 1, self.journal.end());
        self.pending.reset();
    }

    /// How many tombstones there are.
    pub fn tombstones(&self) -> usize {
        self.tombstones.len()
    }

    /// Whether it is time for [`Stream::sweep`].
    pub fn wants_sweep(&self) -> bool {
        let all_read = self.journal.len() == 0 && !self.blocked;
        !self.tombstones.is_empty() && (all_read || self.tombstones.len() >= self.sweep_at)
    }

    /// A member that needed tombstones may need them no more.
    pub fn unblock(&mut self) {
        self.blocked = false;
    }

    /// Frees tombstones that nobody needs: what was told before `needed`, the oldest withdrawal owed to a member that
    /// fell out, and before the oldest block of the journal.
    pub fn sweep(&mut self, needed: Option<Epoch>) {
        let in_journal = self.journal.front().map(|block| block.epoch);
        let keep_from = needed.into_iter().chain(in_journal).min().unwrap_or(Epoch::MAX);
        let table = &mut self.table;
        self.tombstones.retain(|slot| {
            let Some(entry) = table.get(*slot) else { return false };
            match (entry.attrs(), entry.stand()) {
                (None, Stand::Told(epoch)) if epoch < keep_from => {
                    table.remove(*slot);
                    false
                }
                // Advertised again; what is pending comes back here when it is told or taken back.
                (Some(_), _) | (_, Stand::Pending(_)) => false,
                (None, Stand::Told(_)) => true,
            }
        });
        self.sweep_at = SWEEP_MIN.max(2 * self.tombstones.len());
        self.blocked = needed.is_some();
    }
}

/// The number of what members know of a slot, if it waits with these attributes and origin.
fn waits(table: &AdjRibOut, slot: u32, attrs: Option<&AttrSet>, origin: Origin) -> Option<u32> {
    let entry = table.get(slot)?;
    match entry.stand() {
        Stand::Pending(number) if entry.attrs() == attrs && entry.origin() == origin => Some(number),
        Stand::Pending(_) | Stand::Told(_) => None,
    }
}

/// Prefixes that go into messages together.
#[derive(Clone, Debug)]
pub(super) struct Batch<P> {
    /// Announced with these; `None`: withdrawn.
    pub attrs: Option<AttrSet>,
    /// Who is not told: the origin.
    pub except: Option<PeerId>,
    /// For everybody else.
    pub shared: Vec<P>,
    /// Withdrawn from the origin, which had it from somebody else before.
    pub owed: Vec<P>,
    /// Where only the origin changed, tell everybody all the same.
    pub repeat: bool,
    /// For these members alone; where announced, the former origins: all others had the same attributes already.
    pub only: Vec<(PeerId, P)>,
}

impl<P> Default for Batch<P> {
    fn default() -> Self {
        Batch {
            attrs: None,
            except: None,
            shared: Vec::new(),
            owed: Vec::new(),
            repeat: false,
            only: Vec::new(),
        }
    }
}

impl<P: PrefixKey> Batch<P> {
    /// Adds a prefix of which members were last told `told`. `same`: whether those attributes and these are the same to
    /// them.
    pub fn add(&mut self, prefix: P, told: &State, same: impl FnOnce(&AttrSet, &AttrSet) -> bool) {
        if let (Some(attrs), Some(before)) = (&self.attrs, &told.attrs) {
            if self.except.is_some_and(|member| told.reached(member)) {
                self.owed.push(prefix);
            }
            if !self.repeat && same(before, attrs) {
                self.only.extend(told.origin.map(|origin| (origin, prefix)));
                return;
            }
        }
        self.shared.push(prefix);
    }

    /// Writes the messages. Octets of its own are made for an origin only if `is_member` says so.
    pub fn encode(
        &mut self,
        context: &EncodeContext,
        sender: Sender<'_>,
        builder: &mut BlockBuilder,
        octets: &mut Vec<u8>,
        is_member: impl Fn(&PeerId) -> bool,
    ) {
        let needed = !(self.shared.is_empty() && self.only.is_empty());
        // What cannot be sent was found out when the outcome for the group was decided; what is from a source that
        // is forgotten is about to be withdrawn.
        let encoded = self.attrs.as_ref().filter(|_| needed).map(|attrs| {
            let sent = sender.sent(attrs, self.except)?;
            EncodedAttributes::<P>::new(&sent, context).ok()
        });
        let withdrawn = self.attrs.is_none();
        let write = |prefixes: &[P], out: &mut Vec<u8>| match &encoded {
            _ if prefixes.is_empty() => Counts::default(),
            _ if withdrawn => withdraw(prefixes, context, out),
            Some(Some(encoded)) => {
                let nlri = prefixes.iter().map(|prefix| Nlri::from(*prefix));
                Counts { updates: encoded.announce(nlri, out) as u32, withdrawn: 0 }
            }
            Some(None) | None => Counts::default(),
        };
        octets.clear();
        let except = self.except.filter(&is_member);
        let owed = if except.is_some() { withdraw(&self.owed, context, octets) } else { Counts::default() };
        builder.append(except, (octets, owed), |out| write(&self.shared, out));
        self.only.sort_by_key(|(member, _)| *member);
        for run in self.only.chunk_by(|(one, _), (other, _)| one == other) {
            let member = run[0].0;
            if is_member(&member) {
                octets.clear();
                let prefixes: Vec<P> = run.iter().map(|(_, prefix)| *prefix).collect();
                let counts = write(&prefixes, octets);
                builder.append(Some(member), (octets, counts), |_| Counts::default());
            }
        }
    }
}

fn withdraw<P: PrefixKey>(prefixes: &[P], context: &EncodeContext, out: &mut Vec<u8>) -> Counts {
    if prefixes.is_empty() {
        return Counts::default();
    }
    let nlri = prefixes.iter().map(|prefix| Nlri::from(*prefix));
    Counts { updates: encode_withdrawals(nlri, context, out) as u32, withdrawn: prefixes.len() as u32 }
}
