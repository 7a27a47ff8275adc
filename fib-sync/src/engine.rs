//! The route programmer as a state machine: what comes in is a command of bgpd, the documents, the pods or a hint
//! from the kernel; what goes out is changes to the kernel and events for bgpd. It knows no thread, socket or clock.
//!
//! Owner of the rules about time: when to dump, when to sweep, when to try again.
//!
//! * Nothing is written before a first dump, and nothing after a write whose outcome is unknown before another one.
//! * Dumps are asked for by hints and made no closer together than [`DUMP_GAP`], and every [`FULL_CHECK`] anyway.
//! * Learned routes survive bgpd: entries it does not name again are deleted at its end-of-snapshot mark, or when it
//!   has been away for the restart time.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use causeway_api::fib::{self, Command, Event, Family, NextHopState, RouteState};
use causeway_kernel::route::{MAIN_TABLE, ROUTE_METRIC, protocol_name};
use causeway_kernel::{Error, Family as KernelFamily, Hint, Kernel, Refusal, Route, RouteKey};
use ipnetwork::IpNetwork;

use crate::config::Config;
use crate::delta::{Standing, Tracker};
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
            Command::Group { id, members } => {
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

    /// Reads everything anew and draws every conclusion from it.
    fn dump(&mut self, kernel: &mut impl Kernel, now: Instant) {
        let started = Instant::now();
        let read = read(kernel);
        self.dumped_at = now + started.elapsed();
        self.gap = DUMP_GAP.max(started.elapsed() * 2);
        self.dump_at = self.dumped_at + FULL_CHECK;
        let Dump { interfaces, connected, ours, foreign, mut table } = match read {
            Ok(Read { links, addresses, routes }) => {
                self.counts.dumps += 1;
                if self.kernel_error.take().is_some() {
                    tracing::info!("the kernel can be read again");
                }
                let interfaces = Interfaces::new(&links, &addresses);
                let is_pod = |index| interfaces.is_pod_device(index);
                let (ours, foreign): (Vec<Route>, Vec<Route>) =
                    routes.into_iter().partition(|route| self.ownership.is_ours(route, is_pod));
                let table = Table::new(foreign.iter(), &links, &addresses, &mut self.table);
                Dump { interfaces, connected: Connected::new(&links, &addresses), ours, foreign, table }
            }
            Err(error) => {
                self.counts.dump_errors += 1;
                self.complain(&error);
                self.dump_at = self.dumped_at + DUMP_RETRY;
                return;
            }
        };

        let links_changed = interfaces != self.interfaces;
        if matches!(self.feed, Feed::Connected(_)) {
            self.events.extend(interfaces.events(&self.interfaces));
        }
        self.interfaces = interfaces;
        let unclaimed = ours.iter().filter(|route| {
            self.tracker.wanted(&route.key).is_none()
                && self.class(route) == Class::Learned
                && self.keeps(route)
        });
        table.set_unclaimed(unclaimed);
        self.table = table;
        let mut changed = self.desired.resolve_all(&self.table);
        let moved = links_changed || !changed.is_empty();
        if connected != self.connected {
            self.connected = connected;
            self.guard = Guard::new(&self.config, self.connected.clone());
            changed.extend(self.desired.guard_all(&self.guard));
        }
        self.apply_locals();
        self.apply(changed);
        self.stale = true;
        self.resolve_again();
        self.observe(ours, &foreign);
        if moved {
            self.tracker.retry(now, true);
        }
        if !self.ever_synced {
            self.adopt();
        }
        self.synced = true;
        self.ever_synced = true;
    }

    /// Gives a dump to the tracker and counts what others undid.
    fn observe(&mut self, ours: Vec<Route>, foreign: &[Route]) {
        let in_the_way = |route: &&Route| matches!(route.key.metric, metric if metric == self.config.metric || metric == ROUTE_METRIC);
        let mut ours_by_family = [Vec::new(), Vec::new()];
        for route in ours {
            ours_by_family[feed_family(route.key.family()) as usize].push(route);
        }
        let mut lost = Vec::new();
        for family in KernelFamily::ALL {
            let ours = std::mem::take(&mut ours_by_family[feed_family(family) as usize]);
            let foreign = foreign
                .iter()
                .filter(|route| route.key.family() == family)
                .filter(in_the_way)
                .map(|route| (route.key, route.protocol));
            let observed = self.tracker.observe(family, ours.into_iter(), foreign);
            for key in observed.lost.iter().chain(&observed.changed) {
                self.dirty.insert(key.destination);
            }
            lost.extend(observed.lost);
        }
        if let Some(first) = lost.first() {
            self.counts.healed += lost.len() as u64;
            tracing::warn!(
                routes = lost.len(),
                first = %first.destination,
                "routes of ours were deleted or changed by somebody else: putting them back"
            );
        }
    }

    /// The first dump: what is there of ours is kept until bgpd's snapshot or the restart time says otherwise.
    fn adopt(&mut self) {
        for family in Family::ALL {
            let found = self.tracker.ours().filter(|route| feed_family(route.key.family()) == family).count();
            self.kept[family as usize] = found > 0;
            if found > 0 {
                tracing::info!(routes = found, family = ?family, "found routes of an earlier run: keeping them");
            }
        }
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

    fn next_hop_state(&self, next_hop: &fib::NextHop) -> NextHopState {
        let device = |ifindex: u32| self.interfaces.get(ifindex).map(|link| link.name.clone());
        match self.table.resolve(next_hop) {
            Resolution::Unreachable => NextHopState::Unreachable,
            Resolution::Connected { ifindex } => match device(ifindex) {
                Some(device) => NextHopState::Connected { device, ifindex },
                None => NextHopState::Unreachable,
            },
            Resolution::Gateway { gateway, ifindex, metric } => match device(ifindex) {
                Some(device) => NextHopState::Gateway { gateway, device, ifindex, metric },
                None => NextHopState::Unreachable,
            },
        }
    }

    fn tell_next_hops(&mut self) {
        let mut next_hops = std::mem::take(&mut self.next_hops);
        for (next_hop, told) in &mut next_hops {
            let state = self.next_hop_state(next_hop);
            if told.as_ref() != Some(&state) {
                *told = Some(state.clone());
                self.events.push(Event::NextHopState { next_hop: *next_hop, state });
            }
        }
        self.next_hops = next_hops;
    }

    /// Tells bgpd what became of the prefixes that may have changed. Those on their way to the kernel come up again
    /// when they are there, or when a dump shows them.
    fn tell(&mut self) {
        let dirty = std::mem::take(&mut self.dirty);
        if !matches!(self.feed, Feed::Connected(_)) {
            return;
        }
        for prefix in dirty {
            let told = match self.desired.generation(&prefix) {
                Some(generation) => self.state(&prefix).map(|state| (generation, state)),
                None if self.tracker.has_ours(&self.learned_key(prefix)) => None,
                None => self.withdrawn.remove(&prefix).map(|generation| (generation, RouteState::Removed)),
            };
            let Some((generation, state)) = told else { continue };
            if state == RouteState::Removed {
                self.told.remove(&prefix);
            } else if self.told.get(&prefix) == Some(&(generation, state.clone())) {
                continue;
            } else {
                self.told.insert(prefix, (generation, state.clone()));
            }
            self.events.push(Event::Status { prefix, generation, state });
        }
    }

    /// What became of a learned prefix; `None` while it is on its way to the kernel.
    pub(crate) fn state(&self, prefix: &IpNetwork) -> Option<RouteState> {
        let via = match self.desired.verdict(prefix)? {
            Verdict::Refused(reason) => return Some(RouteState::Failed { reason: reason.to_owned() }),
            Verdict::Unresolved(reason) => return Some(RouteState::Pending { reason: reason.to_owned() }),
            Verdict::Route { via, .. } => via,
        };
        let key = self.learned_key(*prefix);
        if self.locals.contains_key(&key) {
            return Some(RouteState::Failed {
                reason: "refused: this node has a route of its own there".to_owned(),
            });
        }
        match self.tracker.standing(&key)? {
            Standing::Installed => Some(RouteState::Installed { via }),
            Standing::Pending => None,
            Standing::Foreign(protocol) => Some(RouteState::Failed { reason: foreign(protocol) }),
            Standing::Failed(refusal) => Some(RouteState::Failed { reason: refused(&refusal) }),
        }
    }
}

/// The words for a route of somebody else in the way.
pub(crate) fn foreign(protocol: u8) -> String {
    format!("foreign route (proto {})", protocol_name(protocol))
}

/// The words for the kernel's "no".
pub(crate) fn refused(refusal: &Refusal) -> String {
    format!("kernel: {refusal}")
}

struct Read {
    links: Vec<causeway_kernel::Link>,
    addresses: Vec<causeway_kernel::Address>,
    routes: Vec<Route>,
}

struct Dump {
    interfaces: Interfaces,
    connected: Connected,
    ours: Vec<Route>,
    foreign: Vec<Route>,
    table: Table,
}

fn read(kernel: &mut impl Kernel) -> Result<Read, Error> {
    let links = kernel.links()?;
    let addresses = kernel.addresses()?;
    let mut routes = kernel.routes(KernelFamily::Ipv4, MAIN_TABLE)?;
    routes.extend(kernel.routes(KernelFamily::Ipv6, MAIN_TABLE)?);
    Ok(Read { links, addresses, routes })
}
