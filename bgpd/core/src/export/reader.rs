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
    /// Reads the journal.
    Live { at: Position },
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

    /// Its place in the journal, if it has one.
    pub fn position(&self) -> Option<Position> {
        match self.phase {
            Phase::Start(_) => None,
            Phase::Walk { at, .. } | Phase::Live { at } => Some(at),
        }
    }

    /// The oldest withdrawal it may need a tombstone for.
    pub fn needs_withdrawals_since(&self) -> Option<Epoch> {
        match self.phase {
            Phase::Start(since) | Phase::Walk { since, .. } => since.withdrawn,
            Phase::Live { .. } => None,
        }
    }

    /// Falls out of the journal before a block of this epoch: to walk over what was told from then on.
    pub fn fall_out(&mut self, epoch: Epoch) {
        let since = match self.phase {
            Phase::Live { .. } => Since { announced: epoch, withdrawn: Some(epoch) },
            Phase::Walk { since, .. } | Phase::Start(since) => Since {
                announced: since.announced,
                withdrawn: Some(since.withdrawn.map_or(epoch, |known| known.min(epoch))),
            },
        };
        self.phase = Phase::Start(since);
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
