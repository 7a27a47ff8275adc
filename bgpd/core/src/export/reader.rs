//! Where a member of a group stands: what it has been sent and what it is to be sent next.
//!
//! Pure data. A member begins with a walk over the table and then lives on the journal; one that falls out of the
//! journal, being too slow, walks over what it missed.

use std::collections::VecDeque;

use bytes::Bytes;

use super::adj_rib_out::Epoch;
use super::block::Counts;
use super::journal::Position;
use super::walk::Since;

/// How much a member was sent since it came up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SentCounts {
    /// UPDATE messages, End-of-RIB included.
    pub updates: u64,
    /// Prefixes withdrawn.
    pub withdrawn: u64,
    /// Octets.
    pub bytes: u64,
}

/// What a member does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// About to walk; has no place in the journal.
    Start(Since),
    /// Walks over the table and reads the journal from `at` on afterwards.
    Walk { since: Since, mark: Epoch, slot: u32, at: Position },
    /// About to walk over the difference to the group it was in; has no place in the journal.
    Moved(Former),
    /// Walks over that difference and reads the journal from `at` on afterwards.
    Move { from: Former, mark: Epoch, slot: u32, at: Position },
    /// Reads the journal.
    Live { at: Position },
}

/// The group a member was in before, and what it knows from there. The group keeps a place for it until it has walked
/// over the difference, so that what it was told of is not forgotten there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Former {
    /// Place of the group among those of the family.
    pub group: usize,
    /// The group's serial number.
    pub serial: u64,
    /// What was told there before this epoch, the member knows. Of everything else it may know something or not.
    pub known: Epoch,
    /// Withdrawals told since, in the group it is in now, it may need.
    pub withdrawn: Option<Epoch>,
}

/// A mark that is owed after a walk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Marker {
    /// End-of-RIB (RFC 4724 §2).
    EndOfRib,
    /// End of a refresh, told with an EoRR message only to who understands it (RFC 7313).
    EndOfRefresh { enhanced: bool },
}

/// When a marker is due: after all that was in the table, pending or not, when the walk ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// The walk goes on.
    Walking,
    /// The walk ended with more pending: due when the queue has been empty more often than this.
    AfterPending(u64),
    /// At this place of the journal.
    At(Position),
}

/// A member's place and what it is owed.
#[derive(Debug)]
pub(super) struct Reader {
    pub phase: Phase,
    /// Sent before anything else, ready as it is.
    pub backlog: VecDeque<(Bytes, Counts)>,
    /// Owed after the walk.
    pub marker: Option<(Marker, Due)>,
    /// A refresh was asked for and begins when nothing else is going on: enhanced or not.
    pub refresh: Option<bool>,
    /// Has been sent everything; woken when there is more.
    pub idle: bool,
    pub sent: SentCounts,
}

impl Reader {
    /// A new member: owed the whole table and End-of-RIB.
    pub fn new() -> Self {
        Reader {
            phase: Phase::Start(Since::NOTHING_KNOWN),
            backlog: VecDeque::new(),
            marker: Some((Marker::EndOfRib, Due::Walking)),
            refresh: None,
            idle: false,
            sent: SentCounts::default(),
        }
    }

    /// What stands in a group for a member that moves to another.
    pub fn placeholder(since: Since) -> Self {
        Reader { phase: Phase::Start(since), marker: None, ..Reader::new() }
    }

    /// Its place in the journal, if it has one.
    pub fn position(&self) -> Option<Position> {
        match self.phase {
            Phase::Start(_) | Phase::Moved(_) => None,
            Phase::Walk { at, .. } | Phase::Move { at, .. } | Phase::Live { at } => Some(at),
        }
    }

    /// The group it moves from, as long as it does.
    pub fn former(&self) -> Option<Former> {
        match self.phase {
            Phase::Moved(from) | Phase::Move { from, .. } => Some(from),
            Phase::Start(_) | Phase::Walk { .. } | Phase::Live { .. } => None,
        }
    }

    /// Whether it is in the middle of a walk.
    pub fn is_walking(&self) -> bool {
        matches!(self.phase, Phase::Walk { .. } | Phase::Move { .. })
    }

    /// The oldest withdrawal it may need a tombstone for.
    pub fn needs_withdrawals_since(&self) -> Option<Epoch> {
        match self.phase {
            Phase::Start(since) | Phase::Walk { since, .. } => since.withdrawn,
            Phase::Moved(from) | Phase::Move { from, .. } => from.withdrawn,
            Phase::Live { .. } => None,
        }
    }

    /// Falls out of the journal before a block of this epoch: to walk over what was told from then on.
    pub fn fall_out(&mut self, epoch: Epoch) {
        let oldest = |known: Option<Epoch>| Some(known.map_or(epoch, |known| known.min(epoch)));
        self.phase = match self.phase {
            Phase::Live { .. } => Phase::Start(Since { announced: epoch, withdrawn: Some(epoch) }),
            Phase::Walk { since, .. } | Phase::Start(since) => {
                Phase::Start(Since { announced: since.announced, withdrawn: oldest(since.withdrawn) })
            }
            // It knows neither all of the one group's any more nor all of the other's.
            Phase::Moved(from) | Phase::Move { from, .. } => {
                Phase::Moved(Former { known: 0, withdrawn: oldest(from.withdrawn), ..from })
            }
        };
        if let Some((_, due)) = &mut self.marker {
            *due = Due::Walking;
        }
    }

    /// Counts what it was handed.
    pub fn count(&mut self, counts: Counts, bytes: usize) {
        self.sent.updates += u64::from(counts.updates);
        self.sent.withdrawn += u64::from(counts.withdrawn);
        self.sent.bytes += bytes as u64;
    }
}
