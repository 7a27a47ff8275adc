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

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use causeway_api::fib::{self, Command, NextHop};
use causeway_bgp_core::config::{Config, PeerKey, PeerSettings};
use causeway_bgp_core::event::{
    FibStatus, FibUpdate, Input, LogLevel, Member, NextHopState, Output, PeerId, PullState,
};
use causeway_bgp_core::peer::RestartMarks;
use causeway_bgp_core::speaker::Speaker;
use causeway_bgp_wire::{Cease, Family, FamilySet, Notification, TunnelKind};
use tokio::sync::{mpsc, watch};

use crate::fan_out::{FanOut, Outlet};
use crate::fib_client::{Connection, FibLink, FromFib};
use crate::listen::Listener;
use crate::metrics::ResetCounts;
use crate::peer_task::PeerTask;
use crate::speaker_link::{Epoch, Letter, PeerHandle, SpeakerLink, ToPeer, ToSpeaker};
use crate::views;

/// How many events of the feed are taken in before the next look at anything else.
const SLICE: usize = 64;
/// How many messages are taken in between two looks at the clock.
const CLOCK_EVERY: usize = 8;
/// How many FIB updates the feed is given at a time.
const PULL_FIB: usize = 1024;
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
    nursery: Nursery,
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

/// The FIB feed as the speaker sees it.
pub struct FibSide {
    /// False with `--no-fib`.
    pub enabled: bool,
    /// The connection in force.
    pub connection: Option<Connection>,
    /// Why the last one ended.
    pub last_error: Option<String>,
    link: Option<FibLink>,
    drained: bool,
    /// The speaker has FIB updates to give.
    awake: bool,
    watched: BTreeSet<IpAddr>,
    pending: VecDeque<Command>,
}

impl FibSide {
    /// The feed over `link`, or none at all.
    pub fn new(link: Option<FibLink>) -> FibSide {
        FibSide {
            enabled: link.is_some(),
            connection: None,
            last_error: None,
            link,
            drained: false,
            awake: false,
            watched: BTreeSet::new(),
            pending: VecDeque::new(),
        }
    }

    /// The next thing fib-sync says; never returns where there is no feed.
    pub async fn next(&mut self) -> Option<FromFib> {
        match &mut self.link {
            Some(link) => link.events.recv().await,
            None => std::future::pending().await,
        }
    }
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
            Output::WakeFib => self.fib.awake = true,
            Output::WatchNextHop(address) => {
                self.fib.watched.insert(address);
                self.fib.pending.push_back(Command::NextHopRegister { next_hop: NextHop::global(address) });
            }
            Output::UnwatchNextHop(address) => {
                self.fib.watched.remove(&address);
                self.fib.pending.push_back(Command::NextHopUnregister { next_hop: NextHop::global(address) });
            }
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

    /// Takes in what the feed's client says.
    pub fn from_fib(&mut self, message: FromFib) {
        match message {
            FromFib::Connected { connection, kept } => {
                tracing::info!("connected to fib-sync");
                self.nursery.marks.send_modify(|marks| marks.forwarding = kept);
                self.fib.connection = Some(connection);
                self.fib.drained = true;
                self.fib.pending = self
                    .fib
                    .watched
                    .iter()
                    .map(|address| Command::NextHopRegister { next_hop: NextHop::global(*address) })
                    .collect();
                self.handle(Input::FibConnected);
            }
            FromFib::Lost { reason } => {
                if self.fib.connection.take().is_some() {
                    tracing::warn!(%reason, "fib-sync is away; routes and next hops stay as they are");
                    self.fib.last_error = Some(reason);
                    self.nursery.marks.send_modify(|marks| marks.forwarding = FamilySet::default());
                    self.handle(Input::FibLost);
                } else if self.fib.last_error.as_ref() != Some(&reason) {
                    tracing::warn!(%reason, "no FIB feed");
                    self.fib.last_error = Some(reason);
                }
            }
            FromFib::Drained { connection } => {
                if self.fib.connection == Some(connection) {
                    self.fib.drained = true;
                    self.feed();
                }
            }
            FromFib::Event(event) => self.fib_event(event),
        }
    }

    fn fib_event(&mut self, event: fib::Event) {
        match event {
            fib::Event::NextHopState { next_hop, state } => {
                let address = next_hop.address;
                self.handle(Input::NextHop { address, state: next_hop_state(state) });
            }
            fib::Event::Status { prefix, generation, state } => {
                let status = match state {
                    fib::RouteState::Installed { .. } | fib::RouteState::Removed => FibStatus::Installed,
                    fib::RouteState::Pending { .. } => FibStatus::Pending,
                    fib::RouteState::Failed { reason } => FibStatus::Failed(reason.into()),
                };
                if let Some(prefix) = views::prefix(&prefix) {
                    self.handle(Input::FibStatus { prefix, generation, status });
                }
            }
            fib::Event::LinkDown(link) => {
                tracing::info!(device = link.device, "link down");
                let device: Arc<str> = link.device.into();
                for peer in self.peers.values() {
                    if link.subnets.iter().any(|subnet| subnet.contains(peer.key.address)) {
                        peer.handle.tell(ToPeer::LinkDown(Arc::clone(&device)));
                    }
                }
            }
            fib::Event::LinkUp(link) => tracing::info!(device = link.device, "link up"),
            // The client deals with these two.
            fib::Event::Hello { .. } | fib::Event::Goodbye { .. } => {}
        }
    }

    /// Gives a drained feed what it is owed: next hops first, then what the speaker has.
    fn feed(&mut self) {
        let (Some(connection), Some(link), true) = (self.fib.connection, &self.fib.link, self.fib.drained)
        else {
            if self.fib.connection.is_none() {
                // All of it is said again on the next connection.
                self.fib.pending.clear();
            }
            return;
        };
        let mut commands: Vec<Command> = self.fib.pending.drain(..).collect();
        if self.fib.awake {
            let mut updates = Vec::new();
            let state = self.speaker.pull_fib(PULL_FIB, &mut updates);
            self.fib.awake = state == PullState::More;
            // Registrations follow the mark that begins a snapshot, which forgets earlier ones.
            let begins = usize::from(updates.first() == Some(&FibUpdate::Begin));
            let mut updates = updates.into_iter().map(command);
            let mut ordered: Vec<Command> = updates.by_ref().take(begins).collect();
            ordered.append(&mut commands);
            ordered.extend(updates);
            commands = ordered;
        }
        if !commands.is_empty() {
            self.fib.drained = false;
            // The client lives as long as the daemon; while it ends, nothing is owed any more.
            let _ = link.batches.send((connection, commands));
        }
    }
}

fn command(update: FibUpdate) -> Command {
    match update {
        FibUpdate::Begin => Command::SnapshotBegin,
        FibUpdate::Group { id, members, backups } => Command::Group {
            id,
            members: members.iter().map(member).collect(),
            backups: backups.iter().map(member).collect(),
        },
        FibUpdate::GroupGone(id) => Command::GroupDelete { id },
        FibUpdate::Route { prefix, group, generation } => {
            Command::Route { prefix: views::network(&prefix), group, generation }
        }
        FibUpdate::Withdraw { prefix, generation } => {
            Command::Withdraw { prefix: views::network(&prefix), generation }
        }
        FibUpdate::End(Family::Ipv4Unicast) => Command::EndOfSnapshot { family: fib::Family::Ipv4 },
        FibUpdate::End(Family::Ipv6Unicast) => Command::EndOfSnapshot { family: fib::Family::Ipv6 },
    }
}

fn member(member: &Member) -> fib::GroupMember {
    let tunnel = member.tunnel.as_deref().map(|tunnel| fib::TunnelEndpoint {
        kind: match tunnel.kind {
            TunnelKind::Any => fib::TunnelType::Any,
            TunnelKind::Vxlan => fib::TunnelType::Vxlan,
            TunnelKind::Ipip => fib::TunnelType::Ipip,
        },
        address: tunnel.endpoint.unwrap_or(member.next_hop),
        vni: tunnel.vni,
        mac: tunnel.mac,
    });
    fib::GroupMember { next_hop: NextHop::global(member.next_hop), weight: member.weight, tunnel }
}

fn next_hop_state(state: fib::NextHopState) -> NextHopState {
    match state {
        fib::NextHopState::Unreachable => NextHopState::Unreachable,
        fib::NextHopState::Connected { device, .. } => NextHopState::Connected { device: device.into() },
        fib::NextHopState::Gateway { gateway, device, metric, .. } => {
            NextHopState::Gateway { gateway, device: device.into(), metric }
        }
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
                    let Some(message) = state.fib.link.as_mut().and_then(|link| link.events.try_recv().ok()) else {
                        break;
                    };
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

#[cfg(test)]
mod tests {
    use causeway_bgp_wire::Tunnel;
    use ipnetwork::IpNetwork;

    use super::*;

    #[test]
    fn a_subnet_with_host_bits_contains_its_peers() {
        let subnet: IpNetwork = "192.0.2.11/24".parse().unwrap();
        assert!(subnet.contains("192.0.2.1".parse().unwrap()));
        assert!(!subnet.contains("192.0.3.1".parse().unwrap()));
    }

    #[test]
    fn groups_keep_weights_tunnels_and_backups() {
        let next_hop: IpAddr = "192.0.2.1".parse().unwrap();
        let tunnel = Tunnel { kind: TunnelKind::Vxlan, endpoint: None, vni: Some(7), mac: None };
        let with_tunnel = Member { next_hop, weight: 3, tunnel: Some(Box::new(tunnel)) };
        let plain = Member { next_hop, weight: 1, tunnel: None };
        let update = FibUpdate::Group { id: 7, members: vec![with_tunnel], backups: vec![plain] };
        let Command::Group { id: 7, members, backups } = command(update) else { panic!("not a group") };
        assert_eq!((members[0].weight, members[0].next_hop.scope), (3, 0));
        let endpoint = members[0].tunnel.unwrap();
        assert_eq!((endpoint.address, endpoint.vni), (next_hop, Some(7)), "it ends at the next hop");
        assert_eq!(backups, [fib::GroupMember::plain(NextHop::global(next_hop))]);
    }
}
