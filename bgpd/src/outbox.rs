//! What is to be written on one connection, shared by whoever writes.
//!
//! Owner: the octets that wait for the socket, and which message is partly out. The speaker (or its flusher) hands data
//! over with [`Outbox::send`], which writes it to the socket at once; the peer's task puts the session's own messages
//! before it and takes over where the kernel takes no more. Not pure.
//!
//! An outbox belongs to one connection: what was meant for a session that is over meets a closed outbox. A KEEPALIVE
//! never waits for a table, and nothing ever comes between the two halves of a message.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Instant;

use bytes::{Buf, Bytes};
use futures_util::task::AtomicWaker;
use smallvec::SmallVec;
use socket2::SockRef;
use tokio::net::TcpStream;

use crate::speaker_link::PeerCounters;

/// The speaker may send more when less than this waits to be written.
const LOW_WATER: usize = 64 * 1024;

/// One write hands the kernel at most this many pieces.
const WRITE_PIECES: usize = 64;

/// A queue that held more pieces than this gives its memory back when it is empty.
const KEPT_CAPACITY: usize = 16;

/// What became of data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// The kernel has all of it: there is room for more.
    Drained,
    /// Some of it waits for the peer to read; its task says `Drained` when there is room again.
    Waiting,
    /// The connection is closed: the data is dropped, and nothing will be said of it.
    Closed,
}

/// What writing came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// The speaker waits for room, and now there is some.
    pub drained: bool,
}

/// The queue of one connection.
#[derive(Debug)]
pub struct Outbox {
    queue: Mutex<Queue>,
    /// Octets in the queue.
    waiting: AtomicUsize,
    /// The peer's task, for when somebody else's write left something.
    task: AtomicWaker,
    counters: Arc<PeerCounters>,
}

#[derive(Debug)]
struct Queue {
    /// Gone when the connection is.
    stream: Option<Arc<TcpStream>>,
    pieces: VecDeque<Piece>,
    /// Octets in `pieces`.
    octets: usize,
    /// The front of `pieces` is partly written: nothing may come before its rest.
    torn: bool,
    /// The speaker's data is no longer wanted.
    closed: bool,
    /// The speaker has sent data and has not been told that it is on its way.
    owes_drained: bool,
    /// Since when the kernel has taken nothing although there is something.
    stuck_since: Option<Instant>,
    /// Why writing failed.
    broken: Option<String>,
}

/// Whole messages to be written.
#[derive(Debug)]
struct Piece {
    octets: Bytes,
    /// Of the session, not of the speaker.
    urgent: bool,
}

impl Outbox {
    /// The outbox of a fresh connection.
    pub fn new(stream: Arc<TcpStream>, counters: Arc<PeerCounters>) -> Self {
        let queue = Queue {
            stream: Some(stream),
            pieces: VecDeque::new(),
            octets: 0,
            torn: false,
            closed: false,
            owes_drained: false,
            stuck_since: None,
            broken: None,
        };
        Outbox { queue: Mutex::new(queue), waiting: AtomicUsize::new(0), task: AtomicWaker::new(), counters }
    }

    /// Sends messages of the speaker and leaves `data` empty. Whole messages, any number in each piece. The speaker
    /// sends no more until it has been told that these are on their way.
    pub fn send(&self, now: Instant, data: &mut Vec<Bytes>) -> Sent {
        let mut queue = self.queue();
        if queue.closed {
            data.clear();
            return Sent::Closed;
        }
        for octets in data.drain(..) {
            queue.push(Piece { octets, urgent: false });
        }
        self.write_queue(now, &mut queue);
        if queue.octets == 0 {
            return Sent::Drained;
        }
        queue.owes_drained = true;
        drop(queue);
        // The task has to wait for the socket from now on.
        self.task.wake();
        Sent::Waiting
    }

    /// Queues a message of the session before those of the speaker.
    pub fn push_urgent(&self, octets: Bytes) {
        let mut queue = self.queue();
        let first = usize::from(queue.torn);
        let behind = queue.pieces.iter().skip(first).take_while(|piece| piece.urgent).count();
        queue.octets += octets.len();
        queue.pieces.insert(first + behind, Piece { octets, urgent: true });
        self.waiting.store(queue.octets, Ordering::Release);
    }

    /// Octets that wait to be written.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Acquire)
    }

    /// Has `waker` woken when somebody else's write leaves something waiting.
    pub fn wake_when_waiting(&self, waker: &Waker) {
        self.task.register(waker);
    }

    /// Since when the peer has not made room for what is queued.
    pub fn stuck_since(&self) -> Option<Instant> {
        if self.waiting() == 0 { None } else { self.queue().stuck_since }
    }

    /// Writes as much as the kernel takes. Where writing fails, what is queued is dropped, and reading reports the
    /// loss: a NOTIFICATION may still be there to be read, and it makes all the difference.
    pub fn write(&self, now: Instant) -> Written {
        let mut queue = self.queue();
        self.write_queue(now, &mut queue);
        let drained = queue.owes_drained && queue.octets < LOW_WATER;
        if drained {
            queue.owes_drained = false;
        }
        Written { drained }
    }

    /// Why writing failed, told once.
    pub fn take_failure(&self) -> Option<String> {
        self.queue().broken.take()
    }

    /// The session is over: drops what the speaker queued, but for the rest of a message that is partly out, and
    /// takes no more of it.
    pub fn close(&self) {
        let mut queue = self.queue();
        (queue.closed, queue.owes_drained) = (true, false);
        let mut torn = queue.torn;
        queue.pieces.retain(|piece| std::mem::take(&mut torn) || piece.urgent);
        queue.octets = queue.pieces.iter().map(|piece| piece.octets.len()).sum();
        self.waiting.store(queue.octets, Ordering::Release);
    }

    /// The connection is gone: nothing is kept, not even the socket, however long somebody holds the outbox.
    pub fn release(&self) {
        let mut queue = self.queue();
        (queue.closed, queue.stream) = (true, None);
        queue.clear();
        self.waiting.store(0, Ordering::Release);
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        // Nothing that holds the lock panics half-way through a change.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_queue(&self, now: Instant, queue: &mut Queue) {
        if queue.octets > 0 {
            let written = queue.write(now);
            PeerCounters::add(&self.counters.octets_sent, written as u64);
        }
        self.waiting.store(queue.octets, Ordering::Release);
    }
}

impl Queue {
    fn push(&mut self, piece: Piece) {
        self.octets += piece.octets.len();
        self.pieces.push_back(piece);
    }

    fn clear(&mut self) {
        self.pieces = VecDeque::new();
        (self.octets, self.torn, self.owes_drained) = (0, false, false);
    }

    /// Writes until nothing is left or the kernel takes no more; the number of octets.
    fn write(&mut self, now: Instant) -> usize {
        let Some(stream) = self.stream.clone() else { return 0 };
        let mut written = 0;
        while self.octets > 0 {
            let pieces: SmallVec<[IoSlice<'_>; WRITE_PIECES]> =
                self.pieces.iter().take(WRITE_PIECES).map(|piece| IoSlice::new(&piece.octets)).collect();
            let result = write_now(&stream, &pieces);
            drop(pieces);
            match result {
                Ok(count) => {
                    self.advance(count);
                    written += count;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if written > 0 || self.stuck_since.is_none() {
                        self.stuck_since = Some(now);
                    }
                    return written;
                }
                Err(error) => {
                    self.broken.get_or_insert_with(|| why_lost(&error));
                    self.closed = true;
                    self.clear();
                }
            }
        }
        self.stuck_since = None;
        if self.pieces.capacity() > KEPT_CAPACITY {
            self.pieces = VecDeque::new();
        }
        written
    }

    fn advance(&mut self, mut count: usize) {
        self.octets -= count;
        while count > 0 {
            let Some(front) = self.pieces.front_mut() else { return };
            let taken = count.min(front.octets.len());
            front.octets.advance(taken);
            count -= taken;
            self.torn = !front.octets.is_empty();
            if !self.torn {
                self.pieces.pop_front();
            }
        }
    }
}

/// Why a connection is lost, in words. A peer that closes it before it has read all that it was sent resets it, which is
/// a matter of who was first, and no other reason.
pub(crate) fn why_lost(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => format!("closed by the peer: {error}"),
        _ => error.to_string(),
    }
}

/// Writes once. A socket the runtime has not heard of yet is most often writable, so the kernel is asked first; only
/// where it refuses does the runtime's way take over, which knows what to wait for.
fn write_now(stream: &TcpStream, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
    loop {
        match SockRef::from(stream).send_vectored_with_flags(pieces, libc::MSG_NOSIGNAL) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return stream.try_write_vectored(pieces);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}
