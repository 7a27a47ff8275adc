//! What goes into a session and what comes out of it. Pure data.

use std::sync::Arc;
use std::time::Duration;

use causeway_bgp_wire::{Family, Notification};

use crate::Updates;

use crate::config::SessionConfig;
use crate::event::{Down, RefreshKind, SessionInfo};

use super::connection::Addresses;
use super::fsm::State;
use super::graceful::RestartMarks;

/// Number of a connection of one peer; not used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u32);

/// What a session is told, received octets ([`super::Session::receive`]) excepted.
#[derive(Clone, Debug)]
pub enum SessionInput {
    /// The attempt asked for by [`SessionOutput::Connect`] succeeded.
    Connected {
        /// Which.
        connection: ConnectionId,
        /// Its ends.
        addresses: Addresses,
    },
    /// An attempt failed, or a connection was lost: closed by the peer, reset, timed out.
    Lost {
        /// Which.
        connection: ConnectionId,
        /// For people.
        reason: String,
    },
    /// The peer connected; answered by [`SessionOutput::Adopt`] or [`SessionOutput::Refuse`], in order.
    Accepted(Addresses),
    /// The peer has not read what it was sent for as long as the hold time.
    SendStuck(ConnectionId),
    /// A command.
    Command(Command),
}

/// What the operator, the configuration or the speaker wants.
#[derive(Clone, Debug)]
pub enum Command {
    /// Begin, or begin again after `Stop`.
    Start,
    /// End and stay Idle.
    Stop(Notification),
    /// End and come back after `idle_for`; `None`: at the usual pace, `Some(Duration::MAX)`: only on `Start`.
    Reset {
        /// What the peer is told.
        notification: Notification,
        /// How long to stay Idle.
        idle_for: Option<Duration>,
    },
    /// New parameters: end with Cease, Other Configuration Change, and begin anew with them.
    Configure(Arc<SessionConfig>),
    /// What the next OPEN says of our own restart.
    Marks(RestartMarks),
    /// The link this peer is reached over went down.
    LinkDown(Arc<str>),
    /// Ask for the family again.
    RequestRefresh(Family),
}

/// What a session asks for.
#[derive(Debug)]
pub enum SessionOutput {
    /// Open a TCP connection to the peer.
    Connect(ConnectionId),
    /// The accepted connection bears this number from now on.
    Adopt(ConnectionId),
    /// The accepted connection is to be closed.
    Refuse,
    /// Send these octets.
    Send {
        /// On which connection.
        connection: ConnectionId,
        /// Whole messages.
        octets: Vec<u8>,
    },
    /// Close the connection, or give the attempt up, when what is sent is out.
    Close(ConnectionId),
    /// The state as people see it: the most advanced one of all connections.
    StateChanged {
        /// Before.
        old: State,
        /// Now.
        new: State,
        /// Why.
        reason: String,
    },
    /// The session is Established.
    Up {
        /// On which connection.
        connection: ConnectionId,
        /// What was negotiated.
        session: Arc<SessionInfo>,
    },
    /// The Established session ended.
    Down(Down),
    /// UPDATEs in the order they came.
    Updates(Updates),
    /// A ROUTE-REFRESH for a family of the session.
    Refresh {
        /// Which family.
        family: Family,
        /// What it says.
        kind: RefreshKind,
    },
}
