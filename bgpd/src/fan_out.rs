//! From the tables to the outboxes: who is owed something is pulled and sent to, many members in one go.
//!
//! Owner: the list of peers to be pulled, and the flushers. Not pure. The speaker calls [`State::fan_out`] when it has
//! taken in what was there; a burst therefore leaves in few large writes, a single change at once. The speaker writes to
//! the sockets itself. Where there are more threads, the writes of a large round lie on a pile that flushers take from as
//! well; each answers once for all whose sockets took everything. A flusher whose core is busy with something else
//! takes little or nothing, so that others never make a round slower.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use causeway_bgp_core::event::{PeerId, PullState};
use tokio::sync::mpsc;

use crate::outbox::{Outbox, Sent};
use crate::speaker_link::{Epoch, SpeakerLink, ToSpeaker};
use crate::speaker_task::State;

/// How many octets a peer is given at a time.
const PULL_BYTES: usize = 256 << 10;

/// A round of at least this many members is large: others get the chance to be heard before it, and it is shared.
const LARGE_ROUND: usize = 16;

/// How long the speaker may go on taking in what comes before members are sent anything, for one of them: about what
/// a write costs, so that waiting never costs more than writing twice.
const WAIT_PER_MEMBER: Duration = Duration::from_micros(3);
const WAIT_MIN: Duration = Duration::from_millis(1);
const WAIT_MAX: Duration = Duration::from_millis(20);

/// After this long a round is broken off, so that the speaker answers and hears others meanwhile.
const ROUND_MAX: Duration = Duration::from_millis(50);

/// More flushers than this bring nothing: one thread pulls for all of them.
const FLUSHERS_MAX: usize = 8;

/// How many members' writes are taken from the pile at a time.
const TAKEN: usize = 8;

/// From one round to the next the member that is served first moves on by this many places.
const STRIDE: usize = 97;

/// Where a session's data goes.
#[derive(Clone, Debug)]
pub struct Outlet {
    /// Which session.
    pub epoch: Epoch,
    /// Its socket.
    pub outbox: Arc<Outbox>,
}

/// What one member is to be sent.
#[derive(Debug)]
struct Flush {
    peer: PeerId,
    outlet: Outlet,
    data: Vec<Bytes>,
}

/// The writes of a round that nobody has taken yet.
#[derive(Debug)]
struct Pile(Mutex<Vec<Flush>>);

impl Pile {
    /// Takes a few and writes them; who took everything. `None` where nothing is left.
    fn take(&self) -> Option<Vec<(PeerId, Epoch)>> {
        let some = {
            // Taking is one call: a panic elsewhere leaves the pile whole.
            let mut rest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let left = rest.len().saturating_sub(TAKEN);
            rest.split_off(left)
        };
        let now = Instant::now();
        let write = |Flush { peer, outlet, mut data }| {
            (outlet.outbox.send(now, &mut data) == Sent::Drained).then_some((peer, outlet.epoch))
        };
        (!some.is_empty()).then(|| some.into_iter().filter_map(write).collect())
    }
}

/// Who is to be pulled, and by whom it is written.
#[derive(Debug)]
pub struct FanOut {
    /// Each peer at most once.
    woken: VecDeque<PeerId>,
    rounds: usize,
    flushers: Vec<mpsc::UnboundedSender<Arc<Pile>>>,
    /// What is pulled for one member, used again for the next.
    data: Vec<Bytes>,
}

impl FanOut {
    /// With so many flushers beside the speaker itself. Needs a tokio runtime.
    pub fn new(flushers: usize, link: &SpeakerLink) -> Self {
        let start = |_| {
            let (sender, work) = mpsc::unbounded_channel();
            tokio::spawn(flush(work, link.clone()));
            sender
        };
        FanOut {
            woken: VecDeque::new(),
            rounds: 0,
            flushers: (0..flushers.min(FLUSHERS_MAX)).map(start).collect(),
            data: Vec::new(),
        }
    }

    /// Adds a peer to the list; the caller sees to it that it is not there yet.
    pub fn push(&mut self, peer: PeerId) {
        self.woken.push_back(peer);
    }

    /// Whether anybody is to be pulled.
    pub fn is_empty(&self) -> bool {
        self.woken.is_empty()
    }

    /// Whether so many are to be pulled that it pays to hear first what else there is.
    pub fn is_large(&self) -> bool {
        self.woken.len() >= LARGE_ROUND
    }

    /// How long those on the list may be kept waiting for the sake of taking in more.
    pub fn patience(&self) -> Duration {
        (WAIT_PER_MEMBER * self.woken.len() as u32).clamp(WAIT_MIN, WAIT_MAX)
    }
}

impl State {
    /// Gives every peer on the list that has room what it is owed, one helping each.
    pub fn fan_out(&mut self) {
        let mut woken = std::mem::take(&mut self.fan_out.woken);
        if woken.is_empty() {
            return;
        }
        // Nobody is always the last one.
        self.fan_out.rounds = self.fan_out.rounds.wrapping_add(1);
        let first = self.fan_out.rounds.wrapping_mul(STRIDE) % woken.len();
        woken.rotate_left(first);
        if woken.len() >= LARGE_ROUND && !self.fan_out.flushers.is_empty() {
            self.share(&mut woken);
        } else {
            self.write(&mut woken);
        }
        // Who had no turn comes before who was woken meanwhile; the memory is used again.
        woken.append(&mut self.fan_out.woken);
        self.fan_out.woken = woken;
        self.follow();
    }

    /// Pulls for and writes to one after the other.
    fn write(&mut self, woken: &mut VecDeque<PeerId>) {
        let now = Instant::now();
        let mut data = std::mem::take(&mut self.fan_out.data);
        while now.elapsed() < ROUND_MAX
            && let Some(id) = woken.pop_front()
        {
            if let Some(outlet) = self.pull(id, &mut data)
                && outlet.outbox.send(now, &mut data) == Sent::Drained
            {
                self.drained(id, outlet.epoch);
            }
        }
        self.fan_out.data = data;
    }

    /// Pulls for all, and writes together with the flushers.
    fn share(&mut self, woken: &mut VecDeque<PeerId>) {
        let begun = Instant::now();
        let mut writes = Vec::with_capacity(woken.len());
        while begun.elapsed() < ROUND_MAX
            && let Some(peer) = woken.pop_front()
        {
            let mut data = Vec::new();
            if let Some(outlet) = self.pull(peer, &mut data) {
                writes.push(Flush { peer, outlet, data });
            }
        }
        // The pile is taken from the end.
        writes.reverse();
        let pile = Arc::new(Pile(Mutex::new(writes)));
        for flusher in &self.fan_out.flushers {
            // A flusher lives as long as the runtime.
            let _ = flusher.send(Arc::clone(&pile));
        }
        while let Some(drained) = pile.take() {
            for (peer, epoch) in drained {
                self.drained(peer, epoch);
            }
        }
    }

    /// Takes a peer off the list and pulls for it; where it is to be sent something, it is not drained from now on.
    fn pull(&mut self, id: PeerId, data: &mut Vec<Bytes>) -> Option<Outlet> {
        let peer = self.peers.get_mut(&id)?;
        peer.listed = false;
        let outlet = peer.outlet.as_ref().filter(|_| peer.drained)?;
        peer.owed = self.speaker.pull(id, PULL_BYTES, data) == PullState::More;
        peer.drained = data.is_empty();
        let outlet = (!peer.drained).then(|| outlet.clone());
        // A slice of work that found nothing to say: the next one in the next round.
        self.list(id);
        outlet
    }

    /// Puts a peer on the list that is owed something and has room, unless it is there.
    pub(crate) fn list(&mut self, id: PeerId) {
        if let Some(peer) = self.peers.get_mut(&id)
            && peer.drained
            && peer.owed
            && !std::mem::replace(&mut peer.listed, true)
        {
            self.fan_out.push(id);
        }
    }
}

/// Helps with the piles of writes.
async fn flush(mut work: mpsc::UnboundedReceiver<Arc<Pile>>, link: SpeakerLink) {
    while let Some(pile) = work.recv().await {
        let mut all = Vec::new();
        while let Some(mut drained) = pile.take() {
            all.append(&mut drained);
            // Sessions are to be kept alive meanwhile.
            tokio::task::coop::consume_budget().await;
        }
        if !all.is_empty() && link.tell(ToSpeaker::Flushed(all), None).is_err() {
            return;
        }
    }
}
