//! The messages between the task of a peer and the task of the speaker, and the room they take.
//!
//! Owner: nobody's state, only the shapes of what passes, and the bound on what is under way. One channel carries
//! [`ToSpeaker`] from all peer tasks to the speaker and keeps the events of one peer in the order they happened. It
//! does not count messages: whoever reads from a socket first takes [`Room`] for as many octets as it may read, and
//! the room is free again when the speaker has taken in what came of them. So what lies between the sockets and the
//! tables is bounded by [`ROOM`], however many peers there are, and is shared out first come, first served: a peer
//! with a large table holds a small one up by no more than that. Everything else that passes is bounded by the
//! protocol (one `Drained` for one `send`, one `SessionDown` for one `SessionUp`).
//!
//! One unbounded channel per peer carries [`ToPeer`] the other way, commands only, so that the speaker never waits for
//! a peer. What is advertised goes through the session's [`Outbox`].
//!
//! **Epochs.** Every session that reaches Established has a number of its own, larger than all before it of that
//! peer. What the peer's task says of a session names its epoch; the speaker drops what names another one. Data has
//! the outbox of its own connection, which is closed when the session ends.
//!
//! **Sending.** [`ToSpeaker::SessionUp`] means: the peer is drained. The speaker pulls for a drained peer that is owed
//! something and sends. [`Sent::Drained`](crate::outbox::Sent): it may go on; `Waiting`: it goes on when the peer's
//! task says [`ToSpeaker::Drained`], exactly once.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use causeway_bgp_core::Updates;
use causeway_bgp_core::config::PeerSettings;
use causeway_bgp_core::event::{Down, PeerId, RefreshKind, SessionInfo};
use causeway_bgp_core::peer::State;
use causeway_bgp_wire::{Family, Notification};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};

use crate::listen::AcceptedConnection;
use crate::outbox::Outbox;

/// Octets received that may be under way from the sockets to the speaker. Decoded they take some times as much.
pub const ROOM: usize = 128 * 1024;

/// One read takes at most this many octets.
pub const READ_ROOM: usize = 16 * 1024;

/// What a message counts at least, for its own size.
const MESSAGE_ROOM: usize = 256;

/// Room for what comes of one read. Free again when dropped.
#[derive(Debug)]
pub struct Room(OwnedSemaphorePermit);

impl Room {
    /// Gives back all but what so many octets need.
    pub fn shrink(&mut self, octets: usize) {
        let spare = self.0.num_permits().saturating_sub(octets.max(MESSAGE_ROOM));
        drop(self.0.split(spare));
    }
}

/// A message on its way to the speaker, with the room it takes.
#[derive(Debug)]
pub struct Letter {
    /// What it says.
    pub message: ToSpeaker,
    /// Free when the speaker has taken the message in.
    pub room: Option<Room>,
}

/// The way to the speaker; clones are the same way.
#[derive(Clone, Debug)]
pub struct SpeakerLink {
    sender: mpsc::UnboundedSender<Letter>,
    room: Arc<Semaphore>,
}

/// The speaker is gone: the daemon is ending.
#[derive(Debug, thiserror::Error)]
#[error("the speaker has ended")]
pub struct SpeakerGone;

/// A way to the speaker with this much room (at least [`READ_ROOM`]), and its end.
pub fn speaker_link(room: usize) -> (SpeakerLink, mpsc::UnboundedReceiver<Letter>) {
    let (sender, receiver) = mpsc::unbounded_channel();
    (SpeakerLink { sender, room: Arc::new(Semaphore::new(room.max(READ_ROOM))) }, receiver)
}

impl SpeakerLink {
    /// Tells the speaker something. `room` is that of the read it comes from, if it comes from one.
    ///
    /// # Errors
    /// The speaker is gone.
    pub fn tell(&self, message: ToSpeaker, room: Option<Room>) -> Result<(), SpeakerGone> {
        self.sender.send(Letter { message, room }).map_err(|_gone| SpeakerGone)
    }

    /// Room for a read, where there is some and nobody waits for it.
    pub fn try_room(&self) -> Option<Room> {
        Arc::clone(&self.room).try_acquire_many_owned(READ_ROOM as u32).ok().map(Room)
    }

    /// Room for a read, when it is this caller's turn. `None` never comes while the link lives.
    pub fn room(&self) -> impl Future<Output = Option<Room>> + Send + use<> {
        let room = Arc::clone(&self.room);
        async move { room.acquire_many_owned(READ_ROOM as u32).await.ok().map(Room) }
    }
}

/// Number of an Established session of one peer; grows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub u64);

/// What peer tasks and the listener tell the speaker.
#[derive(Debug)]
pub enum ToSpeaker {
    /// A session reached Established. The peer is drained.
    SessionUp {
        /// Whose.
        peer: PeerId,
        /// Which session.
        epoch: Epoch,
        /// What was negotiated.
        session: Arc<SessionInfo>,
        /// Where to send.
        outbox: Arc<Outbox>,
    },
    /// An Established session ended; comes after everything received on it.
    SessionDown {
        /// Whose.
        peer: PeerId,
        /// Which session.
        epoch: Epoch,
        /// Why.
        down: Down,
    },
    /// UPDATEs, in the order they came; never empty.
    Updates {
        /// From whom.
        peer: PeerId,
        /// On which session.
        epoch: Epoch,
        /// Decoded and validated.
        updates: Updates,
    },
    /// A ROUTE-REFRESH.
    RouteRefresh {
        /// From whom.
        peer: PeerId,
        /// On which session.
        epoch: Epoch,
        /// For which family.
        family: Family,
        /// Request, or a mark of enhanced refresh.
        kind: RefreshKind,
    },
    /// What was sent last is on its way: there is room for more.
    Drained {
        /// Whose socket.
        peer: PeerId,
        /// On which session.
        epoch: Epoch,
    },
    /// The same of many peers at once. Comes from a flusher.
    Flushed(Vec<(PeerId, Epoch)>),
    /// A connection came from an address that is no peer's but lies in a range. The listener keeps the connection
    /// for a moment; starting the peer's task ([`crate::peer_task::PeerTask::spawn`]) gives it to that task.
    DynamicPeer {
        /// Its source address.
        address: IpAddr,
    },
    /// A dynamic peer has been without a session for long enough to be forgotten.
    DynamicPeerGone(PeerId),
    /// The task of a peer has ended after [`ToPeer::Shutdown`]; nothing more comes from it.
    PeerEnded(PeerId),
}

/// What the speaker, and the listener, tell the task of a peer.
#[derive(Debug)]
pub enum ToPeer {
    /// New settings. A changed `session` resets the session (Cease, Other Configuration Change).
    SetSettings(Arc<PeerSettings>),
    /// Send a ROUTE-REFRESH request.
    RequestRefresh(Family),
    /// End the session with this NOTIFICATION and come back after `idle_for`: `None` at the usual pace,
    /// `Some(Duration::MAX)` only by hand (`peer enable` or `peer reset`).
    Reset {
        /// What the peer is told.
        notification: Notification,
        /// How long to stay Idle.
        idle_for: Option<Duration>,
    },
    /// `peer disable`: Cease, Administrative Shutdown, with this text for the other side's operator (RFC 9003).
    Disable(String),
    /// `peer enable`.
    Enable,
    /// A link went down: a session that runs over it on a single hop ends at once, without retention.
    LinkDown(Arc<str>),
    /// End for good with this NOTIFICATION (Administrative Shutdown, Peer De-configured); the task ends, answering
    /// with [`ToSpeaker::PeerEnded`].
    Shutdown(Notification),
    /// The peer connected. Comes from the listener.
    Accepted(AcceptedConnection),
}

/// The speaker's end of a peer's task.
#[derive(Clone, Debug)]
pub struct PeerHandle {
    /// Commands to it.
    pub sender: mpsc::UnboundedSender<ToPeer>,
    /// Its state, for `show peers`.
    pub status: watch::Receiver<PeerStatus>,
    /// What it has counted.
    pub counters: Arc<PeerCounters>,
}

impl PeerHandle {
    /// Tells the task something; a task that has ended hears nothing, which is no error.
    pub fn tell(&self, message: ToPeer) {
        let _ = self.sender.send(message);
    }
}

/// State of a peer, as `show peers` has it.
#[derive(Clone, Debug)]
pub struct PeerStatus {
    /// State of the session machine.
    pub state: State,
    /// When this state was entered; uptime counts from here when Established.
    pub since: Instant,
    /// True after `peer disable`.
    pub disabled: bool,
    /// Number of the session in force, or of the last one.
    pub epoch: Epoch,
    /// What was negotiated, while Established.
    pub session: Option<Arc<SessionInfo>>,
    /// Why the last connection ended, or why none is tried (a missing password).
    pub last_error: Option<String>,
}

/// Counters of a peer since its task began. Relaxed: each is right, together they are no snapshot.
#[derive(Debug, Default)]
pub struct PeerCounters {
    /// Messages received.
    pub messages_received: AtomicU64,
    /// Of those, UPDATEs.
    pub updates_received: AtomicU64,
    /// Octets received.
    pub octets_received: AtomicU64,
    /// Octets sent.
    pub octets_sent: AtomicU64,
    /// Sessions that reached Established.
    pub sessions: AtomicU64,
}

impl PeerCounters {
    /// Adds to one of the counters.
    pub(crate) fn add(counter: &AtomicU64, amount: u64) {
        counter.fetch_add(amount, Ordering::Relaxed);
    }
}
