//! What the speaker keeps of a peer, whether its session is up or not.
//!
//! Owner: the speaker. Pure.

use std::sync::Arc;
use std::time::Instant;

use causeway_bgp_wire::Family;

use crate::config::{PeerKey, PeerSettings};
use crate::event::SessionInfo;
use crate::rib::slot_list::SlotList;

/// A peer.
pub(super) struct Peer {
    pub(super) key: PeerKey,
    pub(super) settings: Arc<PeerSettings>,
    /// A member of a range.
    pub(super) dynamic: bool,
    /// The Established session and since when it is.
    pub(super) session: Option<Arc<SessionInfo>>,
    pub(super) since: Option<Instant>,
    pub(super) last_down: Option<String>,
    /// By [`Family::index`].
    pub(super) families: [PeerFamily; Family::COUNT],
    pub(super) updates_received: u64,
    /// Errors in UPDATEs of this session.
    pub(super) problems: u64,
    /// It exceeded a limit: what this session says is no longer listened to.
    pub(super) over_limit: bool,
}

impl Peer {
    pub(super) fn new(key: PeerKey, settings: Arc<PeerSettings>, dynamic: bool) -> Self {
        Peer {
            key,
            settings,
            dynamic,
            session: None,
            since: None,
            last_down: None,
            families: Default::default(),
            updates_received: 0,
            problems: 0,
            over_limit: false,
        }
    }
}

/// One family of it.
#[derive(Default)]
pub(super) struct PeerFamily {
    /// Where its paths are, refused ones included.
    pub(super) slots: SlotList,
    /// How many of them were accepted.
    pub(super) accepted: u32,
    /// How many of them are of the present epoch.
    pub(super) fresh: u32,
    /// Paths of another epoch are stale: marking all of them is one addition.
    pub(super) epoch: u8,
    /// A refresh began and did not end yet (RFC 7313).
    pub(super) refreshing: bool,
    /// It has sent its whole table once since this speaker started.
    pub(super) settled: bool,
    /// It came near the limit in this session, and that was logged.
    pub(super) warned: bool,
}

impl PeerFamily {
    /// How many paths are stale.
    pub(super) fn stale(&self) -> usize {
        self.slots.live().saturating_sub(self.fresh as usize)
    }

    /// Makes all present paths stale. Those that are stale already must be gone, or share their fate.
    pub(super) fn new_epoch(&mut self) {
        self.epoch = self.epoch.wrapping_add(1);
        self.fresh = 0;
    }
}
