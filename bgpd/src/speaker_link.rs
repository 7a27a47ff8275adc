//! The messages between the task of a peer and the task of the speaker.
//!
//! Owner: nobody's state, only the shapes of what passes. One bounded channel carries [`ToSpeaker`] from all peer
//! tasks to the speaker: it is the back pressure of everything received, and it keeps the events of one peer in the
//! order they happened. One unbounded channel per peer carries [`ToPeer`] the other way, so that the speaker never
//! waits for a peer; it cannot grow without bound, since [`ToPeer::Data`] is only sent to a peer that has drained
//! what it got before, and the rest are commands.
//!
//! **Epochs.** Every session that reaches Established has a number of its own, larger than all before it of that
//! peer. All that belongs to a session names its epoch, both ways; the receiver drops what names another one.
//!
//! **Sending.** [`ToSpeaker::SessionUp`] means: the peer is drained. The speaker keeps one flag per peer:
//! - drained and something to send (after `SessionUp`, `Drained`, or `Output::Wake`): pull, send `Data`, clear the flag;
//! - nothing to send: keep the flag and wait for `Output::Wake`.
//!
//! The peer answers every `Data` with one `Drained` when its socket has room again.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use causeway_bgp_core::config::PeerSettings;
use causeway_bgp_core::event::{Down, PeerId, RefreshKind, SessionInfo};
use causeway_bgp_core::peer::State;
use causeway_bgp_wire::{Family, Notification, Update};
use tokio::sync::{mpsc, watch};

use crate::listen::AcceptedConnection;

/// How many messages of all peers may wait for the speaker. An `Updates` message holds at most one read's worth.
pub const TO_SPEAKER_CAPACITY: usize = 1024;

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
        updates: Vec<Box<Update>>,
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
    /// The last [`ToPeer::Data`] is on its way: there is room for more.
    Drained {
        /// Whose socket.
        peer: PeerId,
        /// On which session.
        epoch: Epoch,
    },
    /// A connection came from an address that is no peer's but lies in a range. The listener keeps the connection
    /// for a moment; starting the peer's task ([`crate::peer_task::spawn`]) gives it to that task.
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
    /// Encoded messages to send, in order; only for a drained peer.
    Data {
        /// On which session; dropped if it is not the one in force.
        epoch: Epoch,
        /// Whole messages, any number in each piece.
        data: Vec<Bytes>,
    },
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
    /// Commands and data to it.
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
