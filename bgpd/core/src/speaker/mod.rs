//! The speaker: the one writer of all tables.
//!
//! Owner of the RIB, of export and of the desired FIB. Pure: inputs come with the time, outputs are polled, messages
//! and FIB updates are pulled. RFC 4271 §9, RFC 4456, RFC 4724, RFC 7313.
//!
//! What happens where: `import` takes UPDATEs in; `place` has paths come and go, and decides; `session` has sessions come and go and retains paths;
//! `restart` withholds what a start must not do yet; `configure` applies differences; `work` does what grows with a
//! table in slices; `show` answers.
//!
//! How a driver runs it: after every call of [`Speaker::handle`], [`Speaker::handle_timeout`], [`Speaker::pull`] and
//! [`Speaker::pull_fib`] it drains [`Speaker::poll_output`] and looks at [`Speaker::poll_timeout`] anew.

mod configure;
mod import;
mod peer;
mod place;
mod query;
mod restart;
mod session;
mod show;
mod timers;
mod work;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use causeway_bgp_wire::{Family, Prefix};
use foldhash::fast::RandomState;
use hashbrown::{HashMap, HashSet};

use crate::config::Config;
use crate::event::{FibUpdate, Input, LogLevel, Output, PeerId, PullState};
use crate::export::Export;
use crate::fib::DesiredFib;
use crate::peer_map::PeerMap;
use crate::rib::tables::{Rib, Tabled, for_family};

use peer::Peer;
pub use query::{
    Counters, Cursor, Direction, FamilyCounters, PeerFamilyView, PeerView, Query, RouteView, Via,
};
use timers::{Timer, Timers};

/// How the speaker starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StartMode {
    /// The run folder's marker says that this is a restart: route selection is deferred (RFC 4724 §4.1).
    pub restarting: bool,
    /// Whether a FIB feed is there to program and to resolve next hops. False (`--no-fib`): nothing is programmed
    /// and every next hop counts as reachable.
    pub fib: bool,
}

/// The speaker.
pub struct Speaker {
    mode: StartMode,
    start: Instant,
    /// The time of the latest call.
    now: Instant,
    config: Option<Arc<Config>>,
    peers: PeerMap<Box<Peer>>,
    next_peer: u32,
    /// Of peers that are known by their address alone.
    addresses: HashSet<IpAddr, RandomState>,
    /// How many members each range has.
    members: HashMap<Prefix, usize, RandomState>,
    rib: Rib,
    export: Export,
    fib: DesiredFib,
    /// This speaker's addresses, each with how often it is one: in the configuration, and per session.
    own_addresses: BTreeMap<IpAddr, u32>,
    timers: Timers,
    work: VecDeque<work::Work>,
    outputs: VecDeque<Output>,
    /// Ranges that refused a peer since they last took one.
    full_ranges: BTreeSet<Prefix>,
    /// Route selection of the family waits (RFC 4724 §4.1).
    deferred: [bool; Family::COUNT],
    /// It waits no longer, but is not all done yet.
    releasing: [bool; Family::COUNT],
    /// The family's start is over: the FIB's end mark may be sent.
    settled: [bool; Family::COUNT],
    restart_deadline: Option<Instant>,
    /// After a start, members of ranges may come until then.
    members_until: Option<Instant>,
    /// Prefixes with a best path.
    best: [u64; Family::COUNT],
    /// What the FIB is still to be told when there is time.
    unrefined: place::Unrefined,
    /// What is being decided leaves the ways there are as they are: the FIB may be told in one go.
    gently: bool,
    decisions: u64,
    updates_received: u64,
}

impl Speaker {
    /// A speaker without configuration.
    pub fn new(now: Instant, mode: StartMode) -> Self {
        Speaker {
            mode,
            start: now,
            now,
            config: None,
            peers: PeerMap::new(),
            next_peer: 1,
            addresses: HashSet::default(),
            members: HashMap::default(),
            rib: Rib::new(mode.fib),
            export: Export::new(),
            fib: DesiredFib::new(),
            own_addresses: BTreeMap::new(),
            timers: Timers::default(),
            work: VecDeque::new(),
            outputs: VecDeque::new(),
            full_ranges: BTreeSet::new(),
            deferred: [false; Family::COUNT],
            releasing: [false; Family::COUNT],
            settled: [false; Family::COUNT],
            restart_deadline: None,
            members_until: None,
            best: [0; Family::COUNT],
            unrefined: place::Unrefined::default(),
            gently: false,
            decisions: 0,
            updates_received: 0,
        }
    }

    /// Takes one input in.
    pub fn handle(&mut self, now: Instant, input: Input) {
        self.now = now;
        match input {
            Input::Configure(config) => self.configure(now, config),
            Input::DynamicPeer { address } => self.dynamic_peer(address),
            Input::DynamicPeerGone(peer) => {
                if self.peers.get(&peer).is_some_and(|peer| peer.dynamic) {
                    self.remove_peer(peer);
                }
            }
            Input::SessionUp { peer, session } => self.session_up(now, peer, session),
            Input::SessionDown { peer, down } => self.session_down(now, peer, down),
            Input::Updates { peer, updates } => self.updates(now, peer, &updates),
            Input::RouteRefresh { peer, family, kind } => self.route_refresh(now, peer, family, kind),
            Input::SoftIn(peer) => self.soft_in(peer),
            Input::SoftOut(peer) => self.soft_out(peer),
            Input::NextHop { address, state } => {
                if let Some(id) = self.rib.next_hops.answer(address, state) {
                    self.next_hop_changed(id);
                }
                self.check_restart(now);
            }
            Input::FibConnected => self.fib.connected(),
            Input::FibLost => self.fib.lost(),
            Input::FibStatus { prefix, generation, status } => self.fib.status(prefix, generation, status),
        }
        self.free_slots();
    }

    /// Judges what a peer sent anew, and asks it to send it again where it can.
    fn soft_in(&mut self, id: PeerId) {
        self.finish_work_of(id);
        self.start_reimport(id);
        let Some(session) = self.peers.get(&id).and_then(|peer| peer.session.as_ref()) else { return };
        if session.route_refresh {
            for family in session.families.iter() {
                self.outputs.push_back(Output::RequestRefresh { peer: id, family });
            }
        }
    }

    fn soft_out(&mut self, id: PeerId) {
        let Some(session) = self.peers.get(&id).and_then(|peer| peer.session.clone()) else { return };
        for family in session.families.iter() {
            self.export.refresh(id, family, session.enhanced_refresh);
        }
    }

    fn log(&mut self, level: LogLevel, peer: PeerId, text: String) {
        self.outputs.push_back(Output::Log { level, peer: Some(peer), text });
    }

    /// What is to be done next.
    pub fn poll_output(&mut self) -> Option<Output> {
        if let Some(output) = self.outputs.pop_front() {
            return Some(output);
        }
        if let Some(peer) = self.export.poll_stuck() {
            self.stuck(peer);
            return self.outputs.pop_front();
        }
        if let Some(peer) = self.export.poll_wake() {
            return Some(Output::Wake(peer));
        }
        if let Some(text) = self.export.poll_warning() {
            return Some(Output::Log { level: LogLevel::Warn, peer: None, text });
        }
        self.fib.poll_wake().then_some(Output::WakeFib)
    }

    /// When [`Speaker::handle_timeout`] wants to be called. May lie in the past: there is work left over, which is
    /// done in slices so that inputs come in between.
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.work.is_empty() { self.timers.next() } else { Some(self.now) }
    }

    /// Does what is due, one slice of it.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.now = now;
        while let Some(timer) = self.timers.pop(now) {
            match timer {
                Timer::Restart | Timer::Members => self.check_restart(now),
                Timer::Refine => self.refine_due(now),
                Timer::Stale(peer) => {
                    self.finish_work_of(peer);
                    Family::all().into_iter().for_each(|family| self.flush_stale(peer, family));
                }
                Timer::Refresh(id, family) => {
                    self.finish_work_of(id);
                    if let Some(peer) = self.peers.get_mut(&id) {
                        peer.families[family.index()].refreshing = false;
                    }
                    self.flush_stale(id, family);
                }
                Timer::Settled(id) => {
                    if let Some(peer) = self.peers.get_mut(&id) {
                        peer.families.iter_mut().for_each(|family| family.settled = true);
                    }
                    self.check_restart(now);
                }
            }
        }
        self.work_slice();
        self.free_slots();
    }

    /// Messages for a peer, up to about `max_bytes` of them.
    pub fn pull(&mut self, peer: PeerId, max_bytes: usize, out: &mut Vec<Bytes>) -> PullState {
        let state = self.export.pull(peer, max_bytes, out, &self.rib);
        self.free_slots();
        state
    }

    /// Frees the slots of prefixes that have no path any more and of which all peers have been told.
    fn free_slots(&mut self) {
        while let Some((family, slot)) = self.export.poll_released() {
            for_family!(family, K => {
                let table = K::table_mut(&mut self.rib.tables);
                if table.get(slot).is_some_and(|(_, paths)| paths.is_empty())
                    && !self.export.holds(family, slot)
                {
                    table.remove(slot);
                }
            });
        }
    }

    /// FIB updates, up to about `max_items` of them. A snapshot's beginning makes the other end forget which next
    /// hops are watched, so they are asked for again right behind it.
    pub fn pull_fib(&mut self, max_items: usize, out: &mut Vec<FibUpdate>) -> PullState {
        let from = out.len();
        let state = self.fib.pull(max_items, out);
        if out[from..].contains(&FibUpdate::Begin) {
            self.outputs.extend(self.rib.next_hops.addresses().map(Output::WatchNextHop));
        }
        state
    }
}

#[cfg(test)]
mod tests;
