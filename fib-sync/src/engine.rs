//! The route programmer as a state machine: what comes in is a command of bgpd, the documents, the pods or a hint
//! from the kernel; what goes out is changes to the kernel and events for bgpd. It knows no thread, socket or clock.
//!
//! Owner of the rules about time: when to dump, when to sweep, when to try again.
//!
//! * Nothing is written before a first dump, and nothing after a write whose outcome is unknown before another one.
//! * Dumps are asked for by hints and made no closer together than [`DUMP_GAP`], and every [`FULL_CHECK`] anyway.
//! * Learned routes survive bgpd: entries it does not name again are deleted at its end-of-snapshot mark, or when it
//!   has been away for the restart time.

mod dump;
mod tell;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use causeway_api::fib::{self, Command, Event, NextHopState, RouteState};
use causeway_kernel::route::MAIN_TABLE;
use causeway_kernel::{Error, Hint, Kernel, Route, RouteKey};
use ipnetwork::IpNetwork;

pub(crate) use self::tell::{foreign, refused};
use crate::config::Config;
use crate::delta::Tracker;
use crate::desired::{Desired, Local, Pod, Verdict, feed_family, learned_key, locals};
use crate::guard::{Connected, Guard};
use crate::interfaces::Interfaces;
use crate::next_hop::{Resolution, Table};
use crate::ownership::{Class, Ownership, POD_GRACE, classify, grace_over};

/// The least time between the end of one dump and the begin of the next. A dump that took longer makes it longer.
pub const DUMP_GAP: Duration = Duration::from_millis(50);
/// A dump is made at least this often.
pub const FULL_CHECK: Duration = Duration::from_secs(60);
/// How soon a dump that failed is tried again.
const DUMP_RETRY: Duration = Duration::from_millis(200);
/// How many keys one write takes on.
const BATCH: usize = 4096;
/// The most next hops bgpd may register; further ones are answered as unreachable.
pub const MAX_NEXT_HOPS: usize = 65_536;

/// Counts since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Routes that were as wanted and that somebody else deleted or changed.
    pub healed: u64,
    /// Changes written to the kernel, refused ones included.
    pub writes: u64,
    /// Batches of changes.
    pub batches: u64,
    /// Changes the kernel refused.
    pub write_refusals: u64,
    /// Batches whose outcome is unknown.
    pub batch_errors: u64,
    /// Dumps made.
    pub dumps: u64,
    /// Dumps that failed.
    pub dump_errors: u64,
    /// Routes the guard refused.
    pub refused: u64,
}

/// Where bgpd is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Feed {
    /// Connected; for each family whether its snapshot is complete.
    Connected([bool; 2]),
    /// Away since then.
    Away(Instant),
    /// Away for so long that its routes were swept.
    Swept,
}

/// The route programmer.
#[derive(Debug)]
pub struct Engine {
    pub(crate) config: Config,
    pub(crate) desired: Desired,
    pub(crate) locals: BTreeMap<RouteKey, Local>,
    pub(crate) tracker: Tracker,
    pub(crate) interfaces: Interfaces,
    pub(crate) feed: Feed,
    pub(crate) counts: Counts,
    /// Why the kernel cannot be read or written, if so.
    pub(crate) kernel_error: Option<String>,
    ownership: Ownership,
    pods: Option<Vec<Pod>>,
    table: Table,
    guard: Guard,
    connected: Connected,
    /// Whether forwarding state of a family outlived what bgpd went through (F bit).
    kept: [bool; 2],
    next_hops: BTreeMap<fib::NextHop, Option<NextHopState>>,
    withdrawn: HashMap<IpNetwork, u64>,
    told: HashMap<IpNetwork, (u64, RouteState)>,
    /// Prefixes bgpd may have to be told about.
    dirty: BTreeSet<IpNetwork>,
    events: Vec<Event>,
    /// Routes that next hops may resolve through have changed.
    stale: bool,
    /// When host routes onto pods' devices without a record were first seen.
    strays: HashMap<RouteKey, Instant>,
    /// What the kernel has is known.
    synced: bool,
    ever_synced: bool,
    dump_at: Instant,
    dumped_at: Instant,
    gap: Duration,
}

impl Engine {
    /// An engine that has not seen the kernel yet.
    pub fn new(config: Config, now: Instant) -> Engine {
        let guard = Guard::new(&config, Connected::default());
        Engine {
            ownership: Ownership::new(config.protocol),
            locals: locals(&config, &[], |_| None, |_| None),
            config,
            desired: Desired::default(),
            tracker: Tracker::default(),
            interfaces: Interfaces::default(),
            feed: Feed::Away(now),
            counts: Counts::default(),
            kernel_error: None,
            pods: None,
            table: Table::default(),
            guard,
            connected: Connected::default(),
            kept: [false; 2],
            next_hops: BTreeMap::new(),
            withdrawn: HashMap::new(),
            told: HashMap::new(),
            dirty: BTreeSet::new(),
            events: Vec::new(),
            stale: false,
            strays: HashMap::new(),
            synced: false,
            ever_synced: false,
            dump_at: now,
            dumped_at: now,
            gap: DUMP_GAP,
        }
    }

    /// Whether the kernel has been read once. Commands of bgpd are not to be given before: next hops would not
    /// resolve, and routes that are there would be taken away.
    pub fn ready(&self) -> bool {
        self.ever_synced
    }

    /// Another configuration is in force.
    pub fn configure(&mut self, config: Config) {
        let moved = config.metric != self.config.metric || config.protocol != self.config.protocol;
        let old: Vec<RouteKey> = if moved {
            self.desired.prefixes().map(|prefix| self.learned_key(*prefix)).collect()
        } else {
            Vec::new()
        };
        self.ownership.add(config.protocol);
        self.config = config;
        self.guard = Guard::new(&self.config, self.connected.clone());
        for key in old.iter().filter(|key| !self.locals.contains_key(key)) {
            self.tracker.want(key, None);
        }
        let changed = if moved { self.desired.prefixes().copied().collect() } else { Vec::new() };
        let judged = self.desired.guard_all(&self.guard);
        self.apply_locals();
        self.apply(changed.into_iter().chain(judged));
        // The keys that could be in our way may be others now.
        self.synced &= !moved;
        self.dump_at = self.dump_at.min(self.dumped_at + self.gap);
    }

    /// The pods on record. Until this is called once, no route onto a pod's device is ever deleted.
    pub fn set_pods(&mut self, mut pods: Vec<Pod>) {
        pods.sort();
        if self.pods.as_ref() == Some(&pods) {
            return;
        }
        self.pods = Some(pods);
        self.apply_locals();
    }

    /// bgpd connected.
    pub fn connect(&mut self) {
        self.feed = Feed::Connected([false; 2]);
        self.next_hops.clear();
        self.withdrawn.clear();
        self.told.clear();
        self.dirty.clear();
        self.events.clear();
        self.desired.begin_snapshot();
        let [ipv4_kept, ipv6_kept] = self.kept;
        self.events.push(Event::Hello { version: fib::VERSION, ipv4_kept, ipv6_kept });
    }

    /// bgpd's connection ended.
    pub fn disconnect(&mut self, now: Instant) {
        if matches!(self.feed, Feed::Connected(_)) {
            self.feed = Feed::Away(now);
        }
        self.next_hops.clear();
        self.events.clear();
    }

    /// A message of bgpd. Its `Hello` is the server's business.
    pub fn command(&mut self, command: Command) {
        match command {
            Command::Hello { .. } => {}
            Command::SnapshotBegin => {
                self.feed = Feed::Connected([false; 2]);
                self.next_hops.clear();
                self.withdrawn.clear();
                self.told.clear();
                self.desired.begin_snapshot();
            }
            Command::NextHopRegister { next_hop } => {
                let state =
                    match self.next_hops.len() < MAX_NEXT_HOPS || self.next_hops.contains_key(&next_hop) {
                        true => self.next_hop_state(&next_hop),
                        false => NextHopState::Unreachable,
                    };
                if self.next_hops.len() < MAX_NEXT_HOPS {
                    self.next_hops.insert(next_hop, Some(state.clone()));
                }
                self.events.push(Event::NextHopState { next_hop, state });
            }
            Command::NextHopUnregister { next_hop } => {
                self.next_hops.remove(&next_hop);
            }
            Command::Group { id, members, .. } => {
                let changed = self.desired.set_group(id, members, &self.table);
                self.apply(changed);
            }
            Command::GroupDelete { id } => self.desired.delete_group(id),
            Command::Route { prefix, group, generation } => {
                self.withdrawn.remove(&prefix);
                self.desired.set_route(prefix, group, generation, &self.guard);
                self.apply([prefix]);
                if matches!(self.desired.verdict(&prefix), Some(Verdict::Refused(_))) {
                    self.counts.refused += 1;
                }
            }
            Command::Withdraw { prefix, generation } => {
                self.desired.withdraw(&prefix);
                self.withdrawn.insert(prefix, generation);
                self.apply([prefix]);
            }
            Command::EndOfSnapshot { family } => {
                let gone = self.desired.end_snapshot(family);
                self.apply(gone);
                if let Feed::Connected(complete) = &mut self.feed {
                    complete[family as usize] = true;
                }
                self.kept[family as usize] = true;
            }
        }
    }

    /// The kernel says that something changed.
    pub fn hint(&mut self, hint: &Hint) {
        if let Hint::Route(route) = hint
            && route.key.table != MAIN_TABLE
        {
            return;
        }
        self.dump_at = self.dump_at.min(self.dumped_at + self.gap);
    }

    /// When [`Engine::step`] has something to do next, whatever comes in.
    pub fn deadline(&self) -> Option<Instant> {
        let restart = match self.feed {
            Feed::Away(since) => since.checked_add(self.config.restart_time),
            _ => None,
        };
        let stray = self.strays.values().min().map(|seen| *seen + POD_GRACE);
        [Some(self.dump_at), restart, stray, self.tracker.next_retry()].into_iter().flatten().min()
    }

    /// Does what is due: a dump, deletions whose time has come, one batch of writes. Returns whether more writes wait.
    pub fn step(&mut self, kernel: &mut impl Kernel, now: Instant) -> bool {
        if self.dump_at <= now {
            self.dump(kernel, now);
        }
        if let Feed::Away(since) = self.feed
            && now.saturating_duration_since(since) >= self.config.restart_time
            && self.ever_synced
        {
            self.give_up();
        }
        if self.synced {
            self.tracker.retry(now, false);
            self.sweep(now);
            self.resolve_again();
            self.write(kernel, now);
        }
        self.tell();
        self.synced && self.tracker.pending() > 0
    }

    /// The sockets are gone: nothing is known until new ones are there.
    pub fn kernel_failed(&mut self, error: &Error, now: Instant) {
        self.complain(error);
        self.synced = false;
        self.dump_at = now;
    }

    /// What bgpd is to be told, in order.
    pub fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    /// bgpd has been away for too long.
    fn give_up(&mut self) {
        let gone = self.desired.clear();
        if !gone.is_empty() {
            tracing::warn!(
                routes = gone.len(),
                seconds = self.config.restart_time.as_secs(),
                "bgpd is away for longer than the restart time: deleting its routes"
            );
        }
        self.apply(gone);
        self.feed = Feed::Swept;
        self.kept = [false; 2];
    }

    /// Recomputes blocks and pods and gives the differences to the tracker.
    fn apply_locals(&mut self) {
        let pods = self.pods.as_deref().unwrap_or_default();
        let link = |gateway| match self.table.resolve(&fib::NextHop::global(gateway)) {
            Resolution::Connected { ifindex } => Some(ifindex),
            Resolution::Gateway { .. } | Resolution::Unreachable => None,
        };
        let fresh = locals(&self.config, pods, |name| self.interfaces.index(name), link);
        if fresh == self.locals && self.ever_synced {
            return;
        }
        let old = std::mem::replace(&mut self.locals, fresh);
        for (key, local) in old.iter().filter(|(key, _)| !self.locals.contains_key(key)) {
            self.tracker.want(key, None);
            if local.gateways().is_some() {
                self.stale |= self.table.set_direct(key.destination, None);
            }
        }
        for (key, local) in &self.locals {
            if let Some(hops) = local.gateways() {
                self.stale |= self.table.set_direct(key.destination, Some((key.metric, hops)));
            }
            match &local.route {
                Some(route) => self.tracker.want(key, Some(route.clone())),
                None => self.tracker.disclaim(key),
            }
        }
        // A learned prefix that a local one hid, or hides now.
        let shared = old.keys().chain(self.locals.keys()).map(|key| key.destination);
        let shared: Vec<IpNetwork> = shared.filter(|prefix| self.desired.contains(prefix)).collect();
        self.apply(shared);
    }

    /// Brings the tracker, and what next hops may resolve through, up to date about some learned prefixes.
    fn apply(&mut self, prefixes: impl IntoIterator<Item = IpNetwork>) {
        for prefix in prefixes {
            self.dirty.insert(prefix);
            let key = self.learned_key(prefix);
            if self.locals.contains_key(&key) {
                continue;
            }
            let direct = self.desired.direct(&prefix).map(|hops| (self.config.metric, hops));
            self.stale |= self.table.set_direct(prefix, direct);
            let route = self.desired.wanted(&prefix, &self.config);
            self.tracker.want(&key, route);
        }
    }

    /// Resolves anew what may resolve through a route that changed. One round is enough: what changes by it is
    /// recursive, and nothing resolves through that.
    fn resolve_again(&mut self) {
        if std::mem::take(&mut self.stale) {
            let changed = self.desired.resolve_all(&self.table);
            self.apply(changed);
            self.tell_next_hops();
            self.stale = false;
        }
    }

    fn learned_key(&self, prefix: IpNetwork) -> RouteKey {
        learned_key(prefix, &self.config)
    }

    /// Whether a learned route nobody wants stays for now.
    fn keeps(&self, route: &Route) -> bool {
        match self.feed {
            Feed::Connected(complete) => !complete[feed_family(route.key.family()) as usize],
            Feed::Away(_) => true,
            Feed::Swept => false,
        }
    }

    /// Condemns those routes of ours nobody wants whose time has come.
    fn sweep(&mut self, now: Instant) {
        let surplus = self.tracker.surplus().count();
        let mut strays = HashMap::new();
        for route in self.tracker.surplus() {
            if self.class(route) == Class::Pod && self.pods.is_some() && !self.locals.contains_key(&route.key)
            {
                strays.insert(route.key, self.strays.get(&route.key).copied().unwrap_or(now));
            }
        }
        let condemned: Vec<RouteKey> = self
            .tracker
            .surplus()
            .filter(|route| match self.class(route) {
                Class::Pod => strays.get(&route.key).is_some_and(|seen| grace_over(*seen, now)),
                Class::Block => true,
                Class::Learned => !self.keeps(route),
            })
            .map(|route| route.key)
            .collect();
        self.tracker.condemn(&condemned);
        if surplus != self.tracker.surplus().count() {
            let left = self.tracker.surplus().filter(|route| self.class(route) == Class::Learned);
            let left: Vec<Route> = left.cloned().collect();
            self.stale |= self.table.set_unclaimed(left.iter());
        }
        strays.retain(|_, seen| !grace_over(*seen, now));
        self.strays = strays;
    }

    pub(crate) fn class(&self, route: &Route) -> Class {
        classify(route, |index| self.interfaces.is_pod_device(index))
    }

    fn write(&mut self, kernel: &mut impl Kernel, now: Instant) {
        let changes = self.tracker.changes(BATCH);
        if changes.is_empty() {
            return;
        }
        self.counts.batches += 1;
        self.counts.writes += changes.len() as u64;
        match kernel.write(&changes) {
            Ok(results) => {
                for (change, result) in changes.iter().zip(&results) {
                    self.dirty.insert(change.key().destination);
                    let unclear = self.tracker.applied(change, result, now);
                    if let Err(refusal) = result
                        && !(refusal.missing()
                            && matches!(change, causeway_kernel::RouteChange::Delete { .. }))
                    {
                        self.counts.write_refusals += 1;
                        tracing::debug!(%change, %refusal, "the kernel refused");
                    }
                    if unclear {
                        self.dump_at = self.dump_at.min(self.dumped_at + self.gap);
                    }
                }
            }
            Err(error) => {
                self.counts.batch_errors += 1;
                self.complain(&error);
                self.synced = false;
                self.dump_at = now;
            }
        }
    }

    fn complain(&mut self, error: &Error) {
        let text = error.to_string();
        if self.kernel_error.as_ref() != Some(&text) {
            tracing::warn!(error = %text, "the kernel cannot be read or written for sure: reading it again");
        }
        self.kernel_error = Some(text);
    }
}
