//! From the tables to the outboxes: who is owed something is pulled and sent to, many members in one go.
//!
//! Owner: the list of peers to be pulled, and the flushers. Not pure. The speaker calls [`State::fan_out`] when it has
//! taken in what was there; a burst therefore leaves in few large writes, a single change at once. The speaker writes to
//! the sockets itself. Where there are more threads, a large round is dealt out: a share for the speaker, one for each
//! flusher, which answers once for all whose sockets took everything.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use causeway_bgp_core::event::{PeerId, PullState};
use tokio::sync::mpsc;

use crate::outbox::{Outbox, Sent};
use crate::speaker_link::{Epoch, SpeakerLink, ToSpeaker};
use crate::speaker_task::State;

/// How many octets a peer is given at a time.
const PULL_BYTES: usize = 256 << 10;

/// A round of at least this many members is large: others get the chance to be heard before it, and it is dealt out.
const LARGE_ROUND: usize = 16;

/// How long the speaker may go on taking in what comes before members are sent anything, for one of them: about what
/// a write costs, so that waiting never costs more than writing twice.
const WAIT_PER_MEMBER: Duration = Duration::from_micros(3);
const WAIT_MIN: Duration = Duration::from_millis(1);
const WAIT_MAX: Duration = Duration::from_millis(20);

/// More flushers than this bring nothing: one thread pulls for all of them.
const FLUSHERS_MAX: usize = 8;

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

/// Who is to be pulled, and by whom it is written.
#[derive(Debug)]
pub struct FanOut {
    /// Each peer at most once.
    woken: VecDeque<PeerId>,
    rounds: usize,
    flushers: Vec<mpsc::UnboundedSender<Vec<Flush>>>,
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
        let now = Instant::now();
        // The speaker's own share is the last one.
        let shares = 1 + if woken.len() >= LARGE_ROUND { self.fan_out.flushers.len() } else { 0 };
        let mut hands: Vec<Vec<Flush>> = (1..shares).map(|_| Vec::new()).collect();
        // Nobody is always the last one.
        self.fan_out.rounds = self.fan_out.rounds.wrapping_add(1);
        let first = self.fan_out.rounds.wrapping_mul(STRIDE) % woken.len();
        woken.rotate_left(first);
        // What others are to write is dealt out first, so that they begin at once.
        let own = woken.len() - woken.len() / shares * (shares - 1);
        let mut data = std::mem::take(&mut self.fan_out.data);
        for (index, id) in woken.drain(own..).enumerate() {
            if let Some(outlet) = self.pull(id, &mut data) {
                let data = std::mem::take(&mut data);
                hands[index % (shares - 1)].push(Flush { peer: id, outlet, data });
            }
        }
        for (flusher, hand) in self.fan_out.flushers.iter().zip(hands) {
            // A flusher lives as long as the runtime.
            let _ = flusher.send(hand);
        }
        for id in woken.drain(..) {
            if let Some(outlet) = self.pull(id, &mut data)
                && outlet.outbox.send(now, &mut data) == Sent::Drained
            {
                self.drained(id, outlet.epoch);
            }
        }
        self.fan_out.data = data;
        if self.fan_out.woken.is_empty() {
            // Its memory is used again.
            self.fan_out.woken = woken;
        }
        self.follow();
    }

    /// Takes a peer off the list and pulls for it; where it is to be sent something, it is not drained from now on.
    fn pull(&mut self, id: PeerId, data: &mut Vec<Bytes>) -> Option<Outlet> {
        let peer = self.peers.get_mut(&id)?;
        peer.listed = false;
        let outlet = peer.outlet.as_ref().filter(|_| peer.drained)?;
        peer.owed = self.speaker.pull(id, PULL_BYTES, data) == PullState::More;
        peer.drained = data.is_empty();
        (!peer.drained).then(|| outlet.clone())
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

/// Writes what it is dealt.
async fn flush(mut work: mpsc::UnboundedReceiver<Vec<Flush>>, link: SpeakerLink) {
    while let Some(hand) = work.recv().await {
        let mut drained = Vec::with_capacity(hand.len());
        for Flush { peer, outlet, mut data } in hand {
            if outlet.outbox.send(Instant::now(), &mut data) == Sent::Drained {
                drained.push((peer, outlet.epoch));
            }
            // Sessions are to be kept alive meanwhile.
            tokio::task::coop::consume_budget().await;
        }
        if !drained.is_empty() && link.tell(ToSpeaker::Flushed(drained), None).is_err() {
            return;
        }
    }
}
