//! Dumps: everything is read anew, and every conclusion drawn from it.
//!
//! First what is small and decides much (links, addresses, nexthop objects, tunnels), which is acted upon at once: a link that
//! went down moves its routes before a million of them are looked at. Then the routes, a few datagrams a step.

use std::collections::HashMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use causeway_api::fib::Family;
use causeway_kernel::route::{MAIN_TABLE, ROUTE_METRIC};
use causeway_kernel::{Dumped, Error, Family as KernelFamily, Hint, Kernel, NextHop, Route, RouteKey};

use super::{DUMP_GAP, Engine, FULL_CHECK, FULL_CHECK_SHARE, Feed, LONGEST_CHECK};
use crate::desired::feed_family;
use crate::forms::{Form, FormId};
use crate::guard::{Connected, Guard};
use crate::interfaces::Interfaces;
use crate::next_hop::Table;
use crate::ownership::{Class, Ownership, classify};

/// How soon a dump that failed is tried again.
const DUMP_RETRY: Duration = Duration::from_millis(200);
/// How many datagrams are read before other things get their turn: a few milliseconds' worth.
const SLICE: usize = 24;

/// How often IPv6 routes are read again because they were changed meanwhile. What several dumps in a row do not show is
/// not there, whatever happens around it.
const REPEATS: u8 = 3;

/// What a route form of the dump in progress is to us.
#[derive(Debug, Clone)]
enum Known {
    /// A route of ours.
    Ours(FormId),
    /// Somebody else's, with its next hops.
    Others(Rc<[NextHop]>),
    /// With the plugin's protocol number, which is ours for pods and blocks alone: to be seen for each route.
    Depends(FormId, Rc<[NextHop]>),
}

/// A dump in progress.
#[derive(Debug)]
pub(super) struct Progress {
    family: KernelFamily,
    /// By the kernel's number of the form.
    forms: Vec<Option<Known>>,
    others: Table,
    started: Instant,
    /// Work done in this dump, without what came between.
    spent: Duration,
    /// All routes were read.
    read: bool,
    /// Somebody changed IPv6 routes while they were read. The kernel remembers how many it has shown, so that it leaves
    /// others out when one of those is deleted: what is missing is not missing for sure.
    disturbed: bool,
    /// How often the IPv6 routes were read again for that.
    repeats: u8,
    links_changed: bool,
}

impl Progress {
    /// Somebody changed something.
    pub(super) fn disturb(&mut self, hint: &Hint) {
        let concerned = match hint {
            Hint::Route(route) => route.key.family() == KernelFamily::Ipv6,
            Hint::Link | Hint::Address | Hint::Nexthop | Hint::Overrun => true,
            Hint::Neighbour => false,
        };
        self.disturbed |= concerned && self.is_ipv6();
    }

    /// Whether it is at the IPv6 routes.
    pub(super) fn is_ipv6(&self) -> bool {
        self.family == KernelFamily::Ipv6
    }
}

impl Engine {
    /// Reads what is small, acts on it, and begins with the routes.
    pub(super) fn begin_dump(&mut self, kernel: &mut impl Kernel, now: Instant) {
        let started = Instant::now();
        // Hints from here on ask for another one.
        self.hinted = false;
        self.dumped_at = now;
        let begun = self.look(kernel, now).and_then(|changed| {
            kernel.dump_start(KernelFamily::Ipv4, MAIN_TABLE)?;
            Ok(changed)
        });
        match begun {
            Ok(links_changed) => {
                self.tracker.dump_begin();
                self.dump = Some(Progress {
                    family: KernelFamily::Ipv4,
                    forms: Vec::new(),
                    others: Table::default(),
                    started,
                    spent: started.elapsed(),
                    read: false,
                    disturbed: false,
                    repeats: 0,
                    links_changed,
                });
            }
            Err(error) => self.dump_failed(&error, now),
        }
    }

    /// Looks at what is small, between dumps.
    pub(super) fn look_now(&mut self, kernel: &mut impl Kernel, now: Instant) {
        if let Err(error) = self.look(kernel, now) {
            self.abandon_dump();
            self.dump_failed(&error, now);
        }
    }

    /// Links, addresses, objects, tunnels. Whether links or addresses changed.
    fn look(&mut self, kernel: &mut impl Kernel, now: Instant) -> Result<bool, Error> {
        (self.look_at, self.looked_at) = (None, now);
        let links = kernel.links()?;
        let addresses = kernel.addresses()?;
        let nexthops = kernel.nexthops()?;
        self.tunnels.look(kernel, &links, &addresses)?;
        let ownership = &self.ownership;
        if self.objects.observe(nexthops, |protocol| ownership.is_learned(protocol)) {
            tracing::warn!("this kernel has no nexthop objects: routes bear their next hops themselves");
        }
        let interfaces = Interfaces::new(&links, &addresses);
        let changed = interfaces != self.interfaces;
        if matches!(self.feed, Feed::Connected(_)) {
            self.events.extend(interfaces.events(&self.interfaces));
        }
        self.interfaces = interfaces;
        self.table.set_links(&links, &addresses);
        let connected = Connected::new(&links, &addresses, |index| self.tunnels.is_ours(index));
        if connected != self.connected {
            self.connected = connected;
            self.guard = Guard::new(&self.config, self.connected.clone());
            if self.ever_synced {
                self.guard_all();
            }
        }
        self.stale_tunnels |= changed;
        if changed && self.ever_synced {
            self.resolve_all();
            self.retry_objects = true;
        }
        if let Some(dump) = &mut self.dump {
            dump.links_changed |= changed;
        }
        Ok(changed)
    }

    /// Reads a slice of the routes.
    pub(super) fn continue_dump(&mut self, kernel: &mut impl Kernel, now: Instant) {
        let started = Instant::now();
        for _ in 0..SLICE {
            let Some(mut dump) = self.dump.take() else { return };
            if dump.read {
                // Hints of what happened meanwhile have come in since.
                if !dump.disturbed || dump.repeats == REPEATS {
                    dump.spent += started.elapsed();
                    self.end_dump(dump, now);
                    return;
                }
                dump.repeats += 1;
                self.dump_family(kernel, dump, KernelFamily::Ipv6, now);
                continue;
            }
            match kernel.dump_next(&mut |dumped| self.take_in(&mut dump, &dumped)) {
                Ok(true) => self.dump = Some(dump),
                Ok(false) if dump.family == KernelFamily::Ipv4 => {
                    self.dump_family(kernel, dump, KernelFamily::Ipv6, now);
                }
                Ok(false) => {
                    dump.read = true;
                    dump.spent += started.elapsed();
                    self.dump = Some(dump);
                    return;
                }
                Err(error) => {
                    self.release_forms(&mut dump);
                    self.tracker.dump_abandon();
                    self.dump_failed(&error, now);
                }
            }
        }
        if let Some(dump) = &mut self.dump {
            dump.spent += started.elapsed();
        }
    }

    /// Begins with the routes of a family.
    fn dump_family(
        &mut self,
        kernel: &mut impl Kernel,
        mut dump: Progress,
        family: KernelFamily,
        now: Instant,
    ) {
        self.release_forms(&mut dump);
        (dump.family, dump.read, dump.disturbed) = (family, false, false);
        match kernel.dump_start(family, MAIN_TABLE) {
            Ok(()) => self.dump = Some(dump),
            Err(error) => {
                self.tracker.dump_abandon();
                self.dump_failed(&error, now);
            }
        }
    }

    /// Ends a dump that is of no use any more.
    pub(super) fn abandon_dump(&mut self) {
        if let Some(mut dump) = self.dump.take() {
            self.release_forms(&mut dump);
            self.tracker.dump_abandon();
        }
    }

    fn release_forms(&mut self, dump: &mut Progress) {
        for known in dump.forms.drain(..).flatten() {
            if let Known::Ours(form) | Known::Depends(form, _) = known {
                self.tracker.forms_mut().release(form);
            }
        }
    }

    fn dump_failed(&mut self, error: &Error, now: Instant) {
        self.counts.dump_errors += 1;
        self.complain(error);
        self.dumped_at = now;
        self.dump_at = now + DUMP_RETRY;
    }

    /// Takes in one route.
    fn take_in(&mut self, dump: &mut Progress, dumped: &Dumped<'_>) {
        let index = dumped.form as usize;
        if dump.forms.len() <= index {
            dump.forms.resize(index + 1, None);
        }
        if dump.forms[index].is_none() {
            dump.forms[index] = Some(self.judge_form(dumped.route));
        }
        let key = RouteKey { destination: dumped.destination, ..dumped.route.key };
        let hops = match &dump.forms[index] {
            Some(Known::Ours(form)) => {
                if let Some(slot) = self.tracker.slot(&key) {
                    self.tracker.observe(slot, *form);
                }
                return;
            }
            Some(Known::Depends(form, hops)) => {
                let is_pod = |index| self.interfaces.is_pod_device(index);
                if classify(&key, dumped.route.kind, &dumped.route.next_hops, is_pod) != Class::Learned {
                    if let Some(slot) = self.tracker.slot(&key) {
                        self.tracker.observe(slot, *form);
                    }
                    return;
                }
                hops
            }
            Some(Known::Others(hops)) => hops,
            None => return,
        };
        dump.others.add(&key, dumped.route.kind, hops);
        // One that could be in our way.
        if key.tos == 0
            && (key.metric == self.config.metric || key.metric == ROUTE_METRIC)
            && let Some(slot) = self.tracker.slot(&key)
        {
            self.tracker.observe_foreign(slot, dumped.route.protocol);
        }
    }

    fn judge_form(&mut self, route: &Route) -> Known {
        let hops = || Rc::from(route.next_hops.as_slice());
        let learned = self.ownership.is_learned(route.protocol);
        if !learned && !Ownership::is_plugin(route.protocol) {
            return Known::Others(hops());
        }
        let form = self.hold_form(Form::of(route, |id| self.objects.of_kernel(id)));
        if learned { Known::Ours(form) } else { Known::Depends(form, hops()) }
    }

    /// Draws the conclusions from a complete dump.
    fn end_dump(&mut self, mut dump: Progress, now: Instant) {
        self.release_forms(&mut dump);
        let Progress { others, started, spent, links_changed, .. } = dump;
        self.counts.dumps += 1;
        self.counts.dump_micros = started.elapsed().as_micros() as u64;
        self.dumped_at = now;
        self.gap = DUMP_GAP.max(spent * 2);
        let next = (spent * FULL_CHECK_SHARE).clamp(FULL_CHECK, LONGEST_CHECK);
        self.dump_at = now + if self.hinted { self.gap } else { next };
        if self.kernel_error.take().is_some() {
            tracing::info!("the kernel can be read again");
        }
        self.table.set_others(others);
        let observed = self.tracker.dump_end();
        if observed.lost > 0 {
            self.counts.healed += observed.lost;
            let first = observed.first.map(|slot| self.tracker.slots().prefix(slot).to_string());
            tracing::warn!(
                routes = observed.lost,
                first = first.unwrap_or_default(),
                "routes of ours were deleted or changed by somebody else: putting them back"
            );
        }
        let changed = self.resolve_all();
        if links_changed || changed {
            self.tracker.retry(now, true);
            self.retry_objects = true;
        }
        if !self.ever_synced {
            self.adopt();
        }
        self.synced = true;
    }

    /// The first dump: what is there of ours is kept until bgpd's snapshot or the restart time says otherwise.
    fn adopt(&mut self) {
        self.ever_synced = true;
        self.locals.clear();
        self.apply_locals();
        let mut found: HashMap<Family, usize> = HashMap::new();
        let surplus: Vec<_> = self.tracker.surplus().collect();
        for slot in surplus {
            *found.entry(feed_family(self.tracker.slots().family(slot))).or_insert(0) += 1;
        }
        for (family, routes) in found {
            self.kept[family as usize] = true;
            tracing::info!(routes, ?family, "found routes of an earlier run: keeping them");
        }
        self.sweep_all();
    }
}
