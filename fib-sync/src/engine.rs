//! The route programmer as a state machine: what comes in is a command of bgpd, the documents, the pods or a hint
//! from the kernel; what goes out is changes to the kernel and events for bgpd. It knows no thread, socket or clock.
//!
//! Owner of the rules about time and order: when to dump, when to sweep, when to try again; tunnel devices before nexthop
//! objects before routes, and away in the opposite order.
//!
//! * Nothing is written before a first dump, and nothing after a write whose outcome is unknown before another one.
//! * Dumps are asked for by hints and made no closer together than [`DUMP_GAP`], and every [`FULL_CHECK`] anyway. Links,
//!   addresses, objects and tunnels are read and acted upon at once; the routes a slice at a time, while commands are
//!   served and changes written.
//! * Learned routes survive bgpd: entries it does not name again are deleted at its end-of-snapshot mark, or when it
//!   has been away for the restart time.

mod dump;
mod modes;
mod routes;
mod tell;
mod write;

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use causeway_api::fib::{self, Command, Event, NextHopState};
use causeway_kernel::route::MAIN_TABLE;
use causeway_kernel::{Error, Hint, Kernel, RouteKey};
use ipnetwork::IpNetwork;

pub(crate) use self::tell::{foreign, refused};
use crate::config::Config;
use crate::delta::Tracker;
use crate::desired::{Bar, Desired};
use crate::guard::{Connected, Guard};
use crate::interfaces::Interfaces;
use crate::local::{Local, Pod, learned_key, locals};
use crate::next_hop::Table;
use crate::objects::Objects;
use crate::ownership::{Ownership, POD_GRACE};
use crate::slots::Slot;
use crate::tunnel::Tunnels;
use crate::way::Classes;

/// The least time between the end of one dump and the begin of the next. A dump that took longer makes it longer.
pub const DUMP_GAP: Duration = Duration::from_millis(50);
/// The least time between two looks at links, addresses, objects and tunnels.
const LOOK_GAP: Duration = Duration::from_millis(10);
/// A dump is made at least this often, unless it takes so long that it would be a load of its own.
pub const FULL_CHECK: Duration = Duration::from_secs(60);
/// A dump nobody asked for takes at most this part of the time, ...
const FULL_CHECK_SHARE: u32 = 500;
/// ... and is made at least this often whatever it takes.
pub const LONGEST_CHECK: Duration = Duration::from_secs(600);
/// The most next hops bgpd may register; further ones are answered as unreachable.
pub const MAX_NEXT_HOPS: usize = 65_536;
/// How long routes wait before they go into another kind of tunnel, so that every node has the device by then.
pub const MODE_DELAY: Duration = Duration::from_secs(5);

/// Counts since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Routes that were as wanted and that somebody else deleted or changed.
    pub healed: u64,
    /// Changes of routes written to the kernel, refused ones included.
    pub writes: u64,
    /// Changes of nexthop objects and tunnels written, refused ones included.
    pub other_writes: u64,
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
    /// How long the last complete dump took, with what was served meanwhile, in microseconds.
    pub dump_micros: u64,
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
    /// What is in force; the pools' modes may lag behind the documents for [`MODE_DELAY`].
    pub(crate) config: Config,
    pub(crate) desired: Desired,
    pub(crate) locals: BTreeMap<RouteKey, Local>,
    pub(crate) tracker: Tracker,
    pub(crate) objects: Objects,
    pub(crate) tunnels: Tunnels,
    pub(crate) interfaces: Interfaces,
    pub(crate) feed: Feed,
    pub(crate) counts: Counts,
    /// Why the kernel cannot be read or written, if so.
    pub(crate) kernel_error: Option<String>,
    pub(crate) pods: Option<Vec<Pod>>,
    classes: Classes,
    /// The configuration whose pools' modes are about to be in force, and when.
    coming: Option<(Instant, Config)>,
    ownership: Ownership,
    table: Table,
    pub(crate) guard: Guard,
    pub(crate) connected: Connected,
    /// Whether forwarding state of a family outlived what bgpd went through (F bit).
    kept: [bool; 2],
    next_hops: BTreeMap<fib::NextHop, Option<NextHopState>>,
    events: Vec<Event>,
    /// How many messages about routes may be given out.
    room: usize,
    /// Local pods' and learned host addresses that went another way: their connections are to be forgotten.
    moved: Vec<IpAddr>,
    /// Routes that next hops may resolve through have changed.
    stale: bool,
    /// What tunnels need may have changed.
    stale_tunnels: bool,
    /// Nexthop objects the kernel refused are to be tried again at once.
    retry_objects: bool,
    /// When host routes onto pods' devices without a record were first seen.
    strays: HashMap<Slot, Instant>,
    /// What the kernel has is known.
    synced: bool,
    ever_synced: bool,
    dump: Option<dump::Progress>,
    /// Since the present dump began, or the last one, something was hinted at.
    hinted: bool,
    /// When to look at links, addresses, objects and tunnels, if asked for.
    look_at: Option<Instant>,
    looked_at: Instant,
    dump_at: Instant,
    dumped_at: Instant,
    gap: Duration,
    /// The time, as far as told.
    clock: Instant,
}

impl Engine {
    /// An engine that has not seen the kernel yet. `objects`: false where nexthop objects are not to be used.
    pub fn new(config: Config, objects: bool, now: Instant) -> Engine {
        let guard = Guard::new(&config, Connected::default());
        let mut classes = Classes::default();
        classes.configure(&config);
        Engine {
            ownership: Ownership::new(config.protocol),
            config,
            classes,
            coming: None,
            desired: Desired::default(),
            locals: BTreeMap::new(),
            tracker: Tracker::default(),
            objects: Objects::new(objects),
            tunnels: Tunnels::default(),
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
            events: Vec::new(),
            room: usize::MAX,
            moved: Vec::new(),
            stale: false,
            stale_tunnels: true,
            retry_objects: false,
            strays: HashMap::new(),
            synced: false,
            ever_synced: false,
            dump: None,
            hinted: false,
            look_at: None,
            looked_at: now,
            dump_at: now,
            dumped_at: now,
            gap: DUMP_GAP,
            clock: now,
        }
    }

    /// Whether the kernel has been read once. Commands of bgpd are not to be given before: next hops would not
    /// resolve, and routes that are there would be taken away.
    pub fn ready(&self) -> bool {
        self.ever_synced
    }

    /// What time it is: to be told before anything else is.
    pub fn tick(&mut self, now: Instant) {
        self.clock = now;
    }

    /// How many messages about routes the next step may give out.
    pub fn set_room(&mut self, room: usize) {
        self.room = room;
    }

    /// The pods on record. Until this is called once, no route onto a pod's device is ever deleted.
    pub fn set_pods(&mut self, mut pods: Vec<Pod>) {
        pods.sort();
        if self.pods.as_ref() == Some(&pods) {
            return;
        }
        let first = self.pods.is_none();
        self.pods = Some(pods);
        if self.ever_synced {
            self.apply_locals();
            if first {
                self.sweep_all();
            }
        }
    }

    /// bgpd connected.
    pub fn connect(&mut self) {
        self.begin_connection();
        self.events.clear();
        let [ipv4_kept, ipv6_kept] = self.kept;
        self.events.push(Event::Hello { version: fib::VERSION, ipv4_kept, ipv6_kept });
    }

    fn begin_connection(&mut self) {
        self.feed = Feed::Connected([false; 2]);
        self.next_hops.clear();
        self.desired.forget_told();
        self.desired.begin_snapshot();
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
            Command::SnapshotBegin => self.begin_connection(),
            Command::NextHopRegister { next_hop } => {
                let room = self.next_hops.len() < MAX_NEXT_HOPS;
                let state = match room || self.next_hops.contains_key(&next_hop) {
                    true => self.next_hop_state(&next_hop),
                    false => NextHopState::Unreachable,
                };
                if room {
                    self.next_hops.insert(next_hop, Some(state.clone()));
                }
                self.events.push(Event::NextHopState { next_hop, state });
            }
            Command::NextHopUnregister { next_hop } => {
                self.next_hops.remove(&next_hop);
            }
            Command::Group { id, members, backups } => {
                let bundles = self.desired.set_group(id, members, backups);
                let changed = self.resolve(bundles);
                self.follow(changed);
            }
            Command::GroupDelete { id } => {
                self.desired.delete_group(id);
                self.give_back();
            }
            Command::Route { prefix, group, generation } => self.set_route(prefix, group, generation),
            Command::Withdraw { prefix, generation } => {
                let key = learned_key(prefix, &self.config);
                let Some(slot) = self.tracker.slot(&key) else { return };
                self.desired.withdraw(slot, generation);
                self.give_back();
                self.refresh(slot);
            }
            Command::EndOfSnapshot { family } => {
                let slots = self.tracker.slots();
                let gone = self.desired.end_snapshot(family, |slot| slots.family(slot));
                self.give_back();
                for slot in gone {
                    self.refresh(slot);
                }
                if let Feed::Connected(complete) = &mut self.feed {
                    complete[family as usize] = true;
                }
                self.kept[family as usize] = true;
                self.sweep_all();
            }
        }
    }

    fn set_route(&mut self, prefix: IpNetwork, group: u32, generation: u64) {
        let key = learned_key(prefix, &self.config);
        let Some(slot) = self.tracker.slot(&key) else { return };
        let bundle = self.bundle_for(slot, &prefix, group);
        // What was there before the table was full stays.
        let late = !self.desired.is_learned(slot) || self.desired.bar(slot) == Bar::TooMany;
        self.desired.set_route(slot, bundle, generation);
        self.give_back();
        if late && self.desired.len() > crate::desired::MAX_ROUTES {
            self.desired.set_bar(slot, Bar::TooMany);
        } else if bundle.is_some() && self.guard.check(&prefix).is_err() {
            self.desired.set_bar(slot, Bar::Guard);
        }
        if self.desired.bar(slot) != Bar::Open {
            self.counts.refused += 1;
        }
        self.refresh(slot);
    }

    /// The kernel says that something changed.
    pub fn hint(&mut self, hint: &Hint) {
        if let Hint::Route(route) = hint
            && route.key.table != MAIN_TABLE
        {
            return;
        }
        if let Some(dump) = &mut self.dump {
            dump.disturb(hint);
        }
        if !matches!(hint, Hint::Route(_)) {
            self.look_soon();
        }
        self.dump_soon();
    }

    /// Has everything read anew, though not too often.
    fn dump_soon(&mut self) {
        self.hinted = true;
        if self.dump.is_none() {
            self.dump_at = self.dump_at.min(self.dumped_at + self.gap);
        }
    }

    fn look_soon(&mut self) {
        let at = self.looked_at + LOOK_GAP;
        self.look_at = Some(self.look_at.map_or(at, |before| before.min(at)));
    }

    /// When [`Engine::step`] has something to do next, whatever comes in.
    pub fn deadline(&self) -> Option<Instant> {
        let restart = match self.feed {
            Feed::Away(since) if self.ever_synced => since.checked_add(self.config.restart_time),
            _ => None,
        };
        let stray = self.strays.values().min().map(|seen| *seen + POD_GRACE);
        let coming = self.coming.as_ref().map(|(at, _)| *at);
        let look = self.look_at.filter(|_| self.ever_synced);
        let write = match self.synced {
            true => [stray, self.tracker.next_retry(), self.objects.next_retry(), self.tunnels.deadline()],
            false => [None; 4],
        };
        [Some(self.dump_at), restart, coming, look].into_iter().chain(write).flatten().min()
    }

    /// Does what is due: a slice of a dump, deletions whose time has come, one batch of writes. Returns whether more
    /// waits to be done at once.
    pub fn step(&mut self, kernel: &mut impl Kernel, now: Instant) -> bool {
        self.clock = now;
        if self.dump.is_none() && self.dump_at <= now {
            self.begin_dump(kernel, now);
        } else if self.ever_synced && self.look_at.is_some_and(|at| at <= now) {
            self.look_now(kernel, now);
        }
        if self.dump.is_some() {
            self.continue_dump(kernel, now);
        }
        if let Feed::Away(since) = self.feed
            && now.saturating_duration_since(since) >= self.config.restart_time
            && self.ever_synced
        {
            self.give_up();
        }
        self.switch_modes(now);
        if self.synced {
            self.tracker.retry(now, false);
            self.sweep(now);
            self.write(kernel, now);
        }
        self.tell();
        self.dump.is_some() || self.synced && self.tracker.pending() > 0 || self.room > 0 && self.untold()
    }

    /// The sockets are gone: nothing is known until new ones are there.
    pub fn kernel_failed(&mut self, error: &Error, now: Instant) {
        self.complain(error);
        self.abandon_dump();
        self.synced = false;
        self.dump_at = now;
    }

    /// What bgpd is to be told, in order.
    pub fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    /// Addresses whose way changed since the last call: what the kernel remembers of their connections is out of date.
    pub fn take_moved(&mut self) -> Vec<IpAddr> {
        std::mem::take(&mut self.moved)
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
        self.give_back();
        for slot in gone {
            self.refresh(slot);
        }
        self.feed = Feed::Swept;
        self.kept = [false; 2];
        self.sweep_all();
    }

    /// Recomputes blocks and pods and gives the differences to the tracker.
    fn apply_locals(&mut self) {
        let pods = self.pods.as_deref().unwrap_or_default();
        let link = |gateway| self.connected_link(gateway);
        let fresh = locals(&self.config, pods, |name| self.interfaces.index(name), link);
        if fresh == self.locals && self.ever_synced {
            return;
        }
        let old = std::mem::replace(&mut self.locals, fresh);
        let gone: Vec<RouteKey> = old.keys().filter(|key| !self.locals.contains_key(key)).copied().collect();
        for key in gone {
            let Some(slot) = self.tracker.slot(&key) else { continue };
            self.stale |= old[&key].gateways().is_some();
            self.desired.set_local(slot, false);
            self.tracker.want(slot, crate::forms::NONE);
            // A learned prefix the local one hid.
            self.refresh(slot);
        }
        for (key, local) in self.locals.clone() {
            let Some(slot) = self.tracker.slot(&key) else { continue };
            self.stale |= old.get(&key) != Some(&local)
                && (local.gateways().is_some() || old.get(&key).is_some_and(|old| old.gateways().is_some()));
            self.desired.set_local(slot, true);
            match &local.route {
                Some(route) => {
                    let form = self.hold_form(crate::forms::Form::of(route, |_| None));
                    self.tracker.want(slot, form);
                    self.tracker.forms_mut().release(form);
                }
                None => self.tracker.disclaim(slot),
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
