//! What goes into the speaker and what comes out of it.
//!
//! Pure data. The driver (`bgpd/src/speaker_task`, or [`crate::sim`] in tests) feeds [`Input`]s with the current
//! time, drains [`Output`]s, pulls messages for peers whose sockets have drained and FIB updates for the feed.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use causeway_bgp_wire::{Asn, Capability, Family, FamilySet, Notification, Prefix, Tunnel};

use crate::Updates;
use crate::config::{Config, PeerKey, PeerSettings};

/// A peer's number in this speaker, given out when the peer appears, not used again while the speaker lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerId(pub u32);

/// What the speaker is told.
#[derive(Debug)]
pub enum Input {
    /// A new configuration is in force. Touches only the peers it concerns.
    Configure(Arc<Config>),
    /// A connection came from an address that is no configured peer's but lies in a range; the speaker answers with
    /// [`Output::PeerAdded`] unless the range is full or there is none.
    DynamicPeer {
        /// Source address of the connection.
        address: IpAddr,
    },
    /// A dynamic peer's session has been gone for long enough: forget it.
    DynamicPeerGone(PeerId),
    /// A session reached Established.
    SessionUp {
        /// Whose.
        peer: PeerId,
        /// What was negotiated.
        session: Arc<SessionInfo>,
    },
    /// An Established session ended.
    SessionDown {
        /// Whose.
        peer: PeerId,
        /// Why, and whether RFC 4724 allows retention.
        down: Down,
    },
    /// UPDATEs that were decoded and validated (RFC 7606).
    Updates {
        /// From whom.
        peer: PeerId,
        /// What they say.
        updates: Updates,
    },
    /// A ROUTE-REFRESH (RFC 2918, 7313).
    RouteRefresh {
        /// From whom.
        peer: PeerId,
        /// For which family.
        family: Family,
        /// Request, or a mark of enhanced refresh.
        kind: RefreshKind,
    },
    /// `peer reset --soft in`: ask for the routes again and judge them anew.
    SoftIn(PeerId),
    /// `peer reset --soft out`: send everything again.
    SoftOut(PeerId),
    /// What fib-sync says of a registered next hop.
    NextHop {
        /// The next hop.
        address: IpAddr,
        /// Its resolution.
        state: NextHopState,
    },
    /// The FIB feed connected; a snapshot is due.
    FibConnected,
    /// The FIB feed is gone; the last next-hop answers stay in force.
    FibLost,
    /// Install status of a prefix, for the generation it was sent with; older generations are ignored.
    FibStatus {
        /// Which prefix.
        prefix: Prefix,
        /// As in [`FibUpdate::Route`].
        generation: u64,
        /// What became of it.
        status: FibStatus,
    },
}

/// What the driver is to do.
#[derive(Debug)]
pub enum Output {
    /// A new peer: start a session for it.
    PeerAdded {
        /// Its number.
        peer: PeerId,
        /// Its address.
        key: PeerKey,
        /// How to talk to it.
        settings: Arc<PeerSettings>,
        /// True for a member of a range.
        dynamic: bool,
    },
    /// The peer is gone from the configuration: end its session (Cease, Peer De-configured) and forget it.
    PeerRemoved(PeerId),
    /// The peer's settings changed. Its task applies them; where `settings.session` differs from what it has, with a
    /// reset (Cease, Other Configuration Change).
    SettingsChanged {
        /// Whose.
        peer: PeerId,
        /// The new settings.
        settings: Arc<PeerSettings>,
    },
    /// End the session with this NOTIFICATION; come back after `idle_for` (`None`: at the usual pace,
    /// `Some(Duration::MAX)`: only by hand).
    ResetSession {
        /// Whose.
        peer: PeerId,
        /// What the peer is told.
        notification: Notification,
        /// How long to stay Idle.
        idle_for: Option<Duration>,
    },
    /// Send a ROUTE-REFRESH request for this family.
    RequestRefresh {
        /// To whom.
        peer: PeerId,
        /// For which family.
        family: Family,
    },
    /// The peer has something to send: pull when its socket has room.
    Wake(PeerId),
    /// The FIB feed has something to send: pull when its socket has room.
    WakeFib,
    /// Ask fib-sync to resolve and watch this next hop.
    WatchNextHop(IpAddr),
    /// Nothing uses this next hop any more.
    UnwatchNextHop(IpAddr),
    /// Something worth a line in the log: level, peer, text.
    Log {
        /// How loud.
        level: LogLevel,
        /// Whom it is about.
        peer: Option<PeerId>,
        /// What happened.
        text: String,
    },
}

/// Whether a pull emptied what there was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PullState {
    /// Nothing is left; a wake comes when there is.
    Drained,
    /// There is more: pull again when there is room. No wake comes.
    More,
}

/// How loud a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    /// For the curious.
    Debug,
    /// Worth knowing.
    Info,
    /// Worth looking at.
    Warn,
}

/// One next hop of a group.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Member {
    /// Its address.
    pub next_hop: IpAddr,
    /// Its share of the flows, 1 to 255; 1 where nothing else is asked for.
    pub weight: u8,
    /// The tunnel its path asks for.
    pub tunnel: Option<Box<Tunnel>>,
}

/// One item of the FIB feed. Groups are sent before the routes that name them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FibUpdate {
    /// A snapshot begins; it replaces everything said before it.
    Begin,
    /// Next hops of a group; sent again when they change.
    Group {
        /// Number of the group.
        id: u32,
        /// Its next hops, sorted by address.
        members: Vec<Member>,
        /// What stands in when none of them is left, sorted by address.
        backups: Vec<Member>,
    },
    /// No route names this group any more.
    GroupGone(u32),
    /// A prefix is wanted through a group.
    Route {
        /// Which prefix.
        prefix: Prefix,
        /// Through which group.
        group: u32,
        /// Comes back with the install status.
        generation: u64,
    },
    /// A prefix is no longer wanted.
    Withdraw {
        /// Which prefix.
        prefix: Prefix,
        /// Comes back with the status.
        generation: u64,
    },
    /// The snapshot of this family is complete: what was not named may be deleted.
    End(Family),
}

/// What the kernel holds of a prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FibStatus {
    /// As wanted; packets leave this way.
    Installed(Via),
    /// On its way, or waiting for a next hop.
    Pending,
    /// Refused, with the reason.
    Failed(Arc<str>),
}

/// How packets of a route leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// The prefix is this node's own.
    Local,
    /// The next hop is on a connected subnet.
    Direct,
    /// The next hop is behind a gateway.
    Recursive,
    /// Through an IP-in-IP tunnel.
    Ipip,
    /// Through a VXLAN tunnel.
    Vxlan,
}

/// How a next hop is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NextHopState {
    /// No route to it: paths through it are not eligible.
    Unreachable,
    /// On a connected subnet.
    Connected {
        /// Device name.
        device: Arc<str>,
    },
    /// Behind a gateway.
    Gateway {
        /// The gateway.
        gateway: IpAddr,
        /// Device name.
        device: Arc<str>,
        /// Metric of the route: the IGP cost of the decision.
        metric: u32,
    },
}

/// What an Established session is.
#[derive(Clone, Debug, PartialEq)]
pub struct SessionInfo {
    /// Peer's AS number (RFC 6793: the 4-octet one).
    pub remote_as: Asn,
    /// Our AS number in this session.
    pub local_as: Asn,
    /// Peer's BGP identifier.
    pub router_id: Ipv4Addr,
    /// Address of our end of the connection: next hop of its family.
    pub local_address: IpAddr,
    /// Our link-local address on the peer's link, for IPv6 next hops (RFC 2545), where the session is single-hop.
    pub local_link_local: Option<std::net::Ipv6Addr>,
    /// Address of the peer's end.
    pub remote_address: IpAddr,
    /// Families both ends offered.
    pub families: FamilySet,
    /// Both ends sent capability 65: AS numbers take 4 octets.
    pub four_octet_as: bool,
    /// Both ends sent capability 6: messages up to 65,535 octets.
    pub extended_message: bool,
    /// The peer understands ROUTE-REFRESH.
    pub route_refresh: bool,
    /// Both ends understand enhanced refresh (RFC 7313).
    pub enhanced_refresh: bool,
    /// The peer's graceful restart capability, where we sent ours too.
    pub graceful: Option<PeerRestart>,
    /// Hold time in force.
    pub hold_time: Duration,
    /// Keepalive interval in force.
    pub keepalive_time: Duration,
    /// What the peer sent in OPEN, for `show peers`.
    pub capabilities: Vec<Capability>,
}

impl SessionInfo {
    /// True where both ends are in the same AS.
    pub fn is_ibgp(&self) -> bool {
        self.remote_as == self.local_as
    }
}

/// What the peer said of graceful restart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerRestart {
    /// R bit: the peer has just restarted.
    pub restarting: bool,
    /// How long it may take to come back.
    pub restart_time: Duration,
    /// Families in its capability, with the F bit: forwarding state was kept.
    pub families: Vec<(Family, bool)>,
}

/// Why a session ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Down {
    /// For people: `hold timer expired`, `received Cease/Administrative Shutdown`.
    pub reason: String,
    /// The label of the metric, from a short closed list: `hold-timer`, `notification-received`, `notification-sent`,
    /// `tcp`, `link-down`, `admin`, `config`, `collision`, `max-prefixes`.
    pub label: &'static str,
    /// TCP was lost without NOTIFICATION, so paths may be retained (RFC 4724).
    pub retain: bool,
}

/// Kind of a ROUTE-REFRESH.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefreshKind {
    /// Send everything again.
    Request,
    /// Beginning of a refresh (BoRR).
    Begin,
    /// End of a refresh (EoRR).
    End,
}
