//! The speaker: the one writer of all tables.
//!
//! Owner of the RIB, of export and of the desired FIB. Pure: inputs come with the time, outputs are polled, messages
//! and FIB updates are pulled.

mod query;

use std::collections::VecDeque;
use std::time::Instant;

use bytes::Bytes;
use causeway_bgp_wire::Prefix;

use crate::event::{FibUpdate, Input, Output, PeerId, PullState};

pub use query::{
    Counters, Cursor, Direction, FamilyCounters, PeerFamilyView, PeerView, Query, RouteView, Via,
};

/// How the speaker starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StartMode {
    /// The run folder's marker says that this is a restart: route selection is deferred (RFC 4724 §4.1).
    pub restarting: bool,
    /// Whether a FIB feed is there to program and to resolve next hops. False (`--no-fib`): nothing is programmed
    /// and every next hop counts as reachable.
    pub fib: bool,
}

/// The speaker.
pub struct Speaker {
    outputs: VecDeque<Output>,
}

impl Speaker {
    /// A speaker without configuration.
    pub fn new(_now: Instant, _mode: StartMode) -> Self {
        Speaker { outputs: VecDeque::new() }
    }

    /// Takes one input in.
    pub fn handle(&mut self, _now: Instant, _input: Input) {}

    /// What is to be done next.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`Speaker::handle_timeout`] wants to be called. May lie in the past: there is work left over, which is
    /// done in slices so that inputs come in between.
    pub fn poll_timeout(&self) -> Option<Instant> {
        None
    }

    /// Does what is due, one slice of it.
    pub fn handle_timeout(&mut self, _now: Instant) {}

    /// Messages for a peer, up to about `max_bytes` of them.
    pub fn pull(&mut self, _peer: PeerId, _max_bytes: usize, _out: &mut Vec<Bytes>) -> PullState {
        PullState::Drained
    }

    /// FIB updates, up to about `max_items` of them.
    pub fn pull_fib(&mut self, _max_items: usize, _out: &mut Vec<FibUpdate>) -> PullState {
        PullState::Drained
    }

    /// Every peer, in the order of their numbers.
    pub fn peers(&self) -> Vec<PeerView> {
        Vec::new()
    }

    /// The next rows of an answer: looks at no more than `limit` table entries, so fewer rows, or none, do not mean
    /// the end; [`Cursor::is_done`] does.
    pub fn walk(&self, _query: &Query, cursor: &mut Cursor, _limit: usize) -> Vec<RouteView> {
        cursor.done = true;
        Vec::new()
    }

    /// Every path of one prefix, best first, with the reason each of them won or lost.
    pub fn explain(&self, _prefix: &Prefix) -> Vec<RouteView> {
        Vec::new()
    }

    /// Counts for metrics.
    pub fn counters(&self) -> Counters {
        Counters::default()
    }
}
