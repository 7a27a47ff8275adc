//! The speaker's task: the one writer of all tables, between the peers' tasks, the FIB feed, the documents and the API.
//!
//! Owns [`Speaker`], the handles of the peers' tasks, and the feed's queue. What it never does is wait for one of them:
//! commands go over unbounded channels whose content is bounded by the protocol (a peer, and the feed, get new data only
//! after saying that the last is on its way).
//!
//! ```text
//!  peer tasks ──ToSpeaker (bounded)──▶ ┌─────────┐ ──ToPeer──▶ peer tasks
//!  fib_client ──FromFib (bounded)────▶ │ Speaker │ ──Batch───▶ fib_client
//!  documents ──watch─────────────────▶ └─────────┘ ──data────▶ outboxes (fan_out)
//!  local API ──Call (bounded)────────────▲  answers in slices
//! ```
//!
//! It goes in rounds: everything that is queued is taken in, then everybody who is owed something is sent it. A round
//! is bounded in time, and where many would be sent to, the runtime may first read what else has arrived.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use causeway_bgp_core::config::{Config, PeerKey, PeerSettings};
use causeway_bgp_core::event::{Input, LogLevel, Output, PeerId};
use causeway_bgp_core::peer::RestartMarks;
use causeway_bgp_core::speaker::Speaker;
use causeway_bgp_wire::{Cease, Notification};
use tokio::sync::{mpsc, watch};

use crate::fan_out::{FanOut, Outlet};
use crate::fib_side::FibSide;
use crate::listen::Listener;
use crate::metrics::ResetCounts;
use crate::peer_task::PeerTask;
use crate::speaker_link::{Epoch, Letter, PeerHandle, SpeakerLink, ToPeer, ToSpeaker};
use crate::views;

/// How many batches of events of the feed are taken in before the next look at anything else.
const SLICE: usize = 4;
/// How many messages are taken in between two looks at the clock.
const CLOCK_EVERY: usize = 8;
/// How long a shutdown waits for the peers' tasks: less than the ten seconds a daemon has.
const DRAIN: Duration = Duration::from_secs(8);

/// Something the API wants to know or to do; run between two slices of work, so it must be short.
pub type Call = Box<dyn FnOnce(&mut State) + Send>;

/// Everything the speaker's task owns, as calls see it.
pub struct State {
    /// The tables.
    pub speaker: Speaker,
    /// The peers' tasks.
    pub peers: BTreeMap<PeerId, Peer>,
    /// The FIB feed.
    pub fib: FibSide,
    /// Why sessions ended, counted.
    pub resets: ResetCounts,
    pub(crate) fan_out: FanOut,
    pub(crate) nursery: Nursery,
}

/// What a new peer's task needs.
pub struct Nursery {
    /// Gives peers the connections they open, and knows the ranges.
    pub listener: Listener,
    /// What OPENs say of our own restart.
    pub marks: watch::Sender<RestartMarks>,
    /// Where the peers' events go.
    pub speaker: SpeakerLink,
}

/// A peer's task and what is on its way to it.
pub struct Peer {
    /// Its address.
    pub key: PeerKey,
    /// The task.
    pub handle: PeerHandle,
    /// Sessions that ended.
    pub resets: u64,
    /// The Established session.
    pub(crate) outlet: Option<Outlet>,
    /// The socket has room.
    pub(crate) drained: bool,
    /// The speaker has something for it.
    pub(crate) owed: bool,
    /// It is on the list of those to be pulled.
    pub(crate) listed: bool,
}

impl State {
    /// A speaker without configuration, with so many cores beside its own to share the writing of large rounds.
    pub fn new(speaker: Speaker, fib: FibSide, nursery: Nursery, helpers: usize) -> State {
        let fan_out = FanOut::new(helpers, &nursery.speaker);
        State { speaker, peers: BTreeMap::new(), fib, resets: ResetCounts::default(), fan_out, nursery }
    }

    /// Puts a configuration in force. The ranges come first: a peer may connect as soon as it can.
    fn configure(&mut self, config: Arc<Config>) {
        self.nursery.listener.set_ranges(&config.ranges);
        self.handle(Input::Configure(config));
    }

    /// The peer a user names by address (with its port where the document has one).
    pub fn find_peer(&self, name: &str) -> Option<PeerId> {
        let by_key = self.peers.iter().find(|(_, peer)| views::peer_name(&peer.key) == name);
        let by_address = || {
            let address: IpAddr = name.parse().ok()?;
            self.peers.iter().find(|(_, peer)| peer.key.address == address)
        };
        by_key.or_else(by_address).map(|(id, _)| *id)
    }

    /// Gives the speaker an input, and does what it asks for.
    pub fn handle(&mut self, input: Input) {
        self.speaker.handle(Instant::now(), input);
        self.follow();
    }

    /// Does everything the speaker asks for; whom it wakes is sent to at the end of the round.
    pub(crate) fn follow(&mut self) {
        while let Some(output) = self.speaker.poll_output() {
            self.carry_out(output);
        }
        self.feed();
    }

    fn carry_out(&mut self, output: Output) {
        match output {
            Output::PeerAdded { peer, key, settings, dynamic } => self.add_peer(peer, key, settings, dynamic),
            Output::PeerRemoved(peer) => {
                self.tell_peer(peer, ToPeer::Shutdown(Notification::cease(Cease::PeerDeconfigured)));
            }
            Output::SettingsChanged { peer, settings } => self.tell_peer(peer, ToPeer::SetSettings(settings)),
            Output::ResetSession { peer, notification, idle_for } => {
                self.tell_peer(peer, ToPeer::Reset { notification, idle_for });
            }
            Output::RequestRefresh { peer, family } => self.tell_peer(peer, ToPeer::RequestRefresh(family)),
            Output::Wake(id) => {
                if let Some(peer) = self.peers.get_mut(&id) {
                    peer.owed = true;
                    self.list(id);
                }
            }
            Output::WakeFib => self.fib.wake(),
            Output::WatchNextHop(address) => self.fib.watch(address),
            Output::UnwatchNextHop(address) => self.fib.unwatch(address),
            Output::Log { level, peer, text } => {
                let peer = peer.and_then(|id| self.peers.get(&id)).map(|peer| views::peer_name(&peer.key));
                let peer = peer.unwrap_or_default();
                match level {
                    LogLevel::Debug => tracing::debug!(peer, "{text}"),
                    LogLevel::Info => tracing::info!(peer, "{text}"),
                    LogLevel::Warn => tracing::warn!(peer, "{text}"),
                }
            }
        }
    }

    fn add_peer(&mut self, peer: PeerId, key: PeerKey, settings: Arc<PeerSettings>, dynamic: bool) {
        let task = PeerTask {
            peer,
            key,
            settings,
            dynamic,
            marks: self.nursery.marks.subscribe(),
            listener: self.nursery.listener.clone(),
            speaker: self.nursery.speaker.clone(),
        };
        let handle = task.spawn();
        let (outlet, drained, owed, listed) = (None, false, false, false);
        self.peers.insert(peer, Peer { key, handle, resets: 0, outlet, drained, owed, listed });
    }

    /// Tells a peer's task something.
    pub fn tell_peer(&self, peer: PeerId, message: ToPeer) {
        if let Some(peer) = self.peers.get(&peer) {
            peer.handle.tell(message);
        }
    }

    /// Takes in what a peer's task says. What belongs to a session that is over is dropped.
    pub fn from_peer(&mut self, message: ToSpeaker) {
        match message {
            ToSpeaker::SessionUp { peer, epoch, session, outbox } => {
                let Some(state) = self.peers.get_mut(&peer) else { return };
                state.outlet = Some(Outlet { epoch, outbox });
                (state.drained, state.owed) = (true, false);
                self.handle(Input::SessionUp { peer, session });
            }
            ToSpeaker::SessionDown { peer, epoch, down } => {
                let Some(state) = self.current(peer, epoch) else { return };
                state.outlet = None;
                (state.drained, state.owed) = (false, false);
                state.resets += 1;
                self.resets.add(down.label);
                self.handle(Input::SessionDown { peer, down });
            }
            ToSpeaker::Updates { peer, epoch, updates } => {
                if self.current(peer, epoch).is_none() {
                    return;
                }
                self.handle(Input::Updates { peer, updates });
            }
            ToSpeaker::RouteRefresh { peer, epoch, family, kind } => {
                if self.current(peer, epoch).is_some() {
                    self.handle(Input::RouteRefresh { peer, family, kind });
                }
            }
            ToSpeaker::Drained { peer, epoch } => self.drained(peer, epoch),
            ToSpeaker::Flushed(all) => {
                for (peer, epoch) in all {
                    self.drained(peer, epoch);
                }
            }
            ToSpeaker::DynamicPeer { address } => self.handle(Input::DynamicPeer { address }),
            ToSpeaker::DynamicPeerGone(peer) => self.handle(Input::DynamicPeerGone(peer)),
            ToSpeaker::PeerEnded(peer) => {
                self.peers.remove(&peer);
            }
        }
    }

    pub(crate) fn drained(&mut self, id: PeerId, epoch: Epoch) {
        if let Some(peer) = self.current(id, epoch) {
            peer.drained = true;
            self.list(id);
        }
    }

    fn current(&mut self, peer: PeerId, epoch: Epoch) -> Option<&mut Peer> {
        let session = |state: &&mut Peer| state.outlet.as_ref().is_some_and(|outlet| outlet.epoch == epoch);
        self.peers.get_mut(&peer).filter(session)
    }

    /// Takes in everything that is queued, within bounds, and then sends what is owed. True where there is more to do.
    async fn round(&mut self, from_peers: &mut mpsc::UnboundedReceiver<Letter>) -> bool {
        let begun = Instant::now();
        'listen: loop {
            let mut count = 0;
            while let Ok(letter) = from_peers.try_recv() {
                self.from_peer(letter.message);
                count += 1;
                if count % CLOCK_EVERY == 0 && begun.elapsed() >= self.fan_out.patience() {
                    break 'listen;
                }
            }
            if !self.fan_out.is_large() || begun.elapsed() >= self.fan_out.patience() {
                break;
            }
            // Whoever is ready to run does, and what has arrived is read; no time passes where there is nothing.
            tokio::task::yield_now().await;
            if from_peers.is_empty() {
                break;
            }
        }
        self.fan_out();
        !from_peers.is_empty() || !self.fan_out.is_empty()
    }
}

/// Runs the speaker until `shutdown`, then lets every peer go with Cease, Administrative Shutdown.
pub async fn run(
    mut state: State,
    mut config: watch::Receiver<Arc<Config>>,
    mut from_peers: mpsc::UnboundedReceiver<Letter>,
    mut calls: mpsc::Receiver<Call>,
    shutdown: causeway_daemon::signals::Shutdown,
) {
    let first = Arc::clone(&config.borrow_and_update());
    // The R bit says that a restart is not over yet; by then it is, one way or the other.
    let restart_over = Instant::now() + first.graceful_restart.unwrap_or_default();
    let mut restart_over = Some(restart_over).filter(|_| state.nursery.marks.borrow().restarting);
    state.configure(first);
    let restart_sleep = sleep_until(restart_over);
    tokio::pin!(restart_sleep);
    let mut sleep = std::pin::pin!(tokio::time::sleep(Duration::ZERO));
    loop {
        if state.round(&mut from_peers).await {
            // Others first; nothing is waited for.
            tokio::task::yield_now().await;
        }
        let due = state.speaker.poll_timeout();
        if let Some(due) = due.map(tokio::time::Instant::from_std)
            && sleep.deadline() != due
        {
            sleep.as_mut().reset(due);
        }
        tokio::select! {
            () = shutdown.ended() => break,
            Ok(()) = config.changed() => {
                let new = Arc::clone(&config.borrow_and_update());
                state.configure(new);
            }
            Some(call) = calls.recv() => {
                call(&mut state);
                state.follow();
            }
            Some(message) = state.fib.next() => {
                state.from_fib(message);
                for _ in 0..SLICE {
                    let Some(message) = state.fib.try_next() else { break };
                    state.from_fib(message);
                }
            }
            Some(letter) = from_peers.recv() => state.from_peer(letter.message),
            () = &mut restart_sleep, if restart_over.is_some() => {
                restart_over = None;
                state.nursery.marks.send_modify(|marks| marks.restarting = false);
            }
            () = &mut sleep, if due.is_some() => {
                state.speaker.handle_timeout(Instant::now());
                state.follow();
            }
            () = std::future::ready(()), if !state.fan_out.is_empty() => {}
        }
    }
    state.nursery.listener.close();
    drain(state, from_peers).await;
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}

/// Tells every peer that the node goes away and waits until they have been told.
async fn drain(mut state: State, mut from_peers: mpsc::UnboundedReceiver<Letter>) {
    for peer in state.peers.values() {
        let farewell = Notification::cease(Cease::AdministrativeShutdown);
        peer.handle.tell(ToPeer::Shutdown(farewell));
    }
    let all_gone = async {
        while !state.peers.is_empty() {
            match from_peers.recv().await {
                Some(Letter { message: ToSpeaker::PeerEnded(peer), .. }) => {
                    state.peers.remove(&peer);
                }
                Some(_) => {}
                None => return,
            }
        }
    };
    if tokio::time::timeout(DRAIN, all_gone).await.is_err() {
        tracing::warn!(peers = state.peers.len(), "some peers could not be told that the node goes away");
    }
}
