//! What the speaker answers when asked: views of routes, peers and counters. Pure data.
//!
//! A walk runs in slices bounded by the caller, so that showing a big table never stops the speaker; rows come in
//! table order (first appearance), and whoever prints them sorts.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use causeway_bgp_wire::{Asn, Family, PathAttributes, Prefix, Tunnel};

use crate::config::{PeerKey, PeerSettings};
pub use crate::event::Via;
use crate::event::{FibStatus, PeerId, SessionInfo};

/// Which routes are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// What peers sent, refused paths included.
    Learned,
    /// What peers are sent, attributes as sent.
    Advertised,
    /// What won.
    Best,
}

/// A question about routes. Absent conditions hold for every route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// Which table.
    pub direction: Direction,
    /// From, or to, this peer only.
    pub peer: Option<PeerId>,
    /// This family only.
    pub family: Option<Family>,
    /// This prefix only.
    pub prefix: Option<Prefix>,
    /// With `prefix`: also everything inside it.
    pub longer: bool,
}

/// Where a walk stands. Starts as `Cursor::default()`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    /// Index of the family in [`Family::all`].
    pub(crate) family: usize,
    /// Number of the peer (advertised only).
    pub(crate) peer: usize,
    /// The next slot of the table, or of the peer's.
    pub(crate) position: usize,
    /// At the end.
    pub(crate) done: bool,
}

impl Cursor {
    /// Whether the walk has come to its end.
    pub fn is_done(&self) -> bool {
        self.done
    }
}

/// One row of `show routes`.
#[derive(Clone, Debug)]
pub struct RouteView {
    /// The prefix.
    pub prefix: Prefix,
    /// Which table the row is of.
    pub direction: Direction,
    /// Learned, best: from whom (`None`: local). Advertised: to whom.
    pub peer: Option<PeerId>,
    /// That peer's address.
    pub peer_address: Option<IpAddr>,
    /// That peer's AS number, of the session or, while it is down, of the last one.
    pub peer_as: Option<Asn>,
    /// Learned: as received where refused, else after import policy. Best: after import policy. Advertised: as sent.
    pub attrs: PathAttributes,
    /// Whether import let it pass.
    pub accepted: bool,
    /// What let it pass or refused it: a rule of the import policy, or a check such as `AS loop`.
    pub rule: Arc<str>,
    /// It won its prefix.
    pub best: bool,
    /// It is among the equal paths that are installed (the best one included).
    pub multipath: bool,
    /// Why it won or lost: `AS path longer (3 > 2)`.
    pub reason: String,
    /// Retained from a session that is gone (RFC 4724).
    pub stale: bool,
    /// When this path came; `None` for advertised ones.
    pub since: Option<Instant>,
    /// What the kernel holds of the prefix; `None`: not programmed.
    pub fib: Option<FibStatus>,
    /// How packets leave, as far as is known; `None` where the next hop is not reachable.
    pub via: Option<Via>,
    /// Its next hop's share of the flows, where it is installed.
    pub weight: Option<u8>,
    /// It stands in at once when the next hops that are installed are lost.
    pub backup: bool,
    /// The tunnel it asks for.
    pub tunnel: Option<Tunnel>,
}

/// One row of `show peers`, as far as the speaker knows; the session's state is the session's to tell.
#[derive(Clone, Debug)]
pub struct PeerView {
    /// The peer's number.
    pub id: PeerId,
    /// Its address.
    pub key: PeerKey,
    /// Its settings.
    pub settings: Arc<PeerSettings>,
    /// A member of a range.
    pub dynamic: bool,
    /// The Established session.
    pub session: Option<Arc<SessionInfo>>,
    /// Since when it is Established.
    pub since: Option<Instant>,
    /// Why the last session ended.
    pub last_down: Option<String>,
    /// Counts by [`Family::index`].
    pub families: [PeerFamilyView; Family::COUNT],
    /// UPDATEs taken in since the peer appeared.
    pub updates_received: u64,
    /// UPDATEs handed out since the peer appeared.
    pub updates_sent: u64,
}

/// Counts of one peer and family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PeerFamilyView {
    /// Prefixes received, refused ones included.
    pub received: u64,
    /// Of these accepted.
    pub accepted: u64,
    /// Of the received ones retained from a session that is gone.
    pub stale: u64,
    /// Prefixes it is sent.
    pub advertised: u64,
}

/// Counts of the whole speaker, for metrics.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// By [`Family::index`].
    pub families: [FamilyCounters; Family::COUNT],
    /// Distinct attribute sets held.
    pub attribute_sets: usize,
    /// Next hops in use.
    pub next_hops: usize,
    /// Decisions run since the start.
    pub decisions: u64,
    /// UPDATEs taken in since the start.
    pub updates_received: u64,
}

/// Counts of one family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FamilyCounters {
    /// Prefixes with at least one path.
    pub prefixes: u64,
    /// Paths, refused ones included.
    pub paths: u64,
    /// Prefixes with a best path.
    pub best: u64,
    /// Prefixes wanted in the kernel.
    pub fib_wanted: u64,
    /// Of these reported as installed.
    pub fib_installed: u64,
    /// Of these reported as failed.
    pub fib_failed: u64,
}
