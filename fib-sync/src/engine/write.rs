//! What is written and in which order, and which routes nobody wants may go.

use std::time::Instant;

use causeway_kernel::{Error, Family, Kernel, RouteChange};

use super::{Engine, Feed};
use crate::desired::feed_family;
use crate::forms::Target;
use crate::ownership::{Class, classify, grace_over};
use crate::slots::Slot;

/// How many keys one write takes on.
const BATCH: usize = 4096;
/// The most addresses whose connections wait to be forgotten.
const MAX_MOVED: usize = 4096;
/// How often tunnels and resolution follow each other in one step: a device made lets ways resolve, which need peers.
const ROUNDS: usize = 3;

impl Engine {
    /// Writes what is due: tunnels, then nexthop objects, then a batch of routes; and takes away what is left over.
    pub(super) fn write(&mut self, kernel: &mut impl Kernel, now: Instant) {
        let refused = self.objects.counts().refusals;
        let result = self.write_all(kernel, now);
        self.counts.other_writes = self.objects.counts().writes + self.tunnels.writes();
        self.counts.write_refusals += self.objects.counts().refusals - refused;
        if let Err(error) = result {
            self.counts.batch_errors += 1;
            self.complain(&error);
            self.abandon_dump();
            self.synced = false;
            self.dump_at = now;
        }
    }

    fn write_all(&mut self, kernel: &mut impl Kernel, now: Instant) -> Result<(), Error> {
        for _ in 0..ROUNDS {
            if std::mem::take(&mut self.stale_tunnels) {
                let wanted = self.tunnels_wanted();
                self.tunnels.want(wanted);
            }
            if self.tunnels.make(kernel, now)? {
                self.stale = true;
                self.look_soon();
            }
            if !self.stale {
                break;
            }
            self.resolve_all();
        }
        let all = std::mem::take(&mut self.retry_objects);
        let mut written = self.objects.write(kernel, self.config.protocol, now, all)?;
        if written.relayout {
            self.relayout();
            written = self.objects.write(kernel, self.config.protocol, now, true)?;
        }
        if written.made {
            self.tracker.wake();
        }
        self.write_routes(kernel, now)?;
        if self.tracker.pending() == 0 && self.dump.is_none() {
            let forms = self.tracker.forms();
            self.objects.clean(kernel, |object| forms.on_object(object))?;
            let objects = &self.objects;
            let in_use = |index| objects.uses(index) || forms.use_device(index);
            // What kept routes need is kept with them.
            let kept = Family::ALL.iter().any(|family| self.keeps_family(*family));
            if self.tunnels.clean(kernel, now, kept, in_use)? {
                self.look_soon();
            }
        }
        Ok(())
    }

    fn write_routes(&mut self, kernel: &mut impl Kernel, now: Instant) -> Result<(), Error> {
        let objects = &self.objects;
        // An IPv6 dump leaves other routes out when one is deleted meanwhile.
        let hold = self.dump.as_ref().is_some_and(|dump| dump.is_ipv6());
        let batch = self.tracker.changes(BATCH, hold, |object| objects.kernel(object));
        if batch.changes.is_empty() {
            return Ok(());
        }
        self.counts.batches += 1;
        self.counts.writes += batch.changes.len() as u64;
        let results = match kernel.write(&batch.changes) {
            Ok(results) => results,
            Err(error) => {
                self.tracker.unknown(&batch);
                return Err(error);
            }
        };
        for ((change, about), result) in batch.changes.iter().zip(batch.about).zip(&results) {
            let unclear = self.tracker.applied(about, change, result, now);
            match result {
                Ok(()) => self.note_moved(change),
                Err(refusal) if refusal.missing() && matches!(change, RouteChange::Delete { .. }) => {}
                Err(refusal) => {
                    self.counts.write_refusals += 1;
                    tracing::debug!(%change, %refusal, "the kernel refused");
                }
            }
            if unclear {
                self.dump_soon();
            }
        }
        Ok(())
    }

    /// A host route that goes another way or away leaves connections behind that the kernel would send the old way.
    fn note_moved(&mut self, change: &RouteChange) {
        let key = change.key();
        let host = key.destination.prefix() == key.family().bits();
        if host && !matches!(change, RouteChange::Add(_)) && self.moved.len() < MAX_MOVED {
            self.moved.push(key.destination.ip());
        }
    }

    /// What a route of ours in the kernel is for.
    pub(crate) fn class(&self, slot: Slot) -> Class {
        let Some(form) = self.tracker.forms().get(self.tracker.has(slot)) else { return Class::Learned };
        let hops = match &form.target {
            Target::Hops(hops) => hops.as_slice(),
            Target::Object(_) | Target::Unknown(_) => &[],
        };
        let key = self.tracker.slots().key(slot);
        classify(&key, form.kind, hops, |index| self.interfaces.is_pod_device(index))
    }

    /// Whether a learned route nobody wants stays for now.
    pub(super) fn keeps(&self, slot: Slot) -> bool {
        self.keeps_family(self.tracker.slots().family(slot))
    }

    /// Whether learned routes of a family that nobody wants stay for now.
    fn keeps_family(&self, family: Family) -> bool {
        match self.feed {
            Feed::Connected(complete) => !complete[feed_family(family) as usize],
            Feed::Away(_) => true,
            Feed::Swept => false,
        }
    }

    /// Condemns those routes of ours nobody wants whose time has come; looks at those that are new, and at strays.
    pub(super) fn sweep(&mut self, now: Instant) {
        for slot in self.tracker.take_fresh_surplus() {
            self.judge_surplus(slot, now);
        }
        let over: Vec<Slot> =
            self.strays.iter().filter(|(_, seen)| grace_over(**seen, now)).map(|(slot, _)| *slot).collect();
        for slot in over {
            self.strays.remove(&slot);
            if self.tracker.is_surplus(slot) && self.class(slot) == Class::Pod {
                self.tracker.condemn(slot);
            }
        }
        let tracker = &self.tracker;
        self.strays.retain(|slot, _| tracker.is_surplus(*slot));
    }

    fn judge_surplus(&mut self, slot: Slot, now: Instant) {
        if !self.tracker.is_surplus(slot) {
            return;
        }
        let condemned = match self.class(slot) {
            Class::Pod => {
                // Before the store was read once, none is touched.
                if self.pods.is_some() {
                    self.strays.entry(slot).or_insert(now);
                }
                false
            }
            Class::Block => true,
            Class::Learned => !self.keeps(slot),
        };
        if condemned {
            self.tracker.condemn(slot);
            // Next hops may have resolved through it.
            self.stale = true;
        }
    }

    /// Something changed for every route nobody wants: each is looked at again.
    pub(super) fn sweep_all(&mut self) {
        let surplus: Vec<Slot> = self.tracker.surplus().collect();
        for slot in surplus {
            self.judge_surplus(slot, self.clock);
        }
    }
}
