//! One TCP connection of a peer's task: what was read and not yet taken in, what is to be written. Not pure.
//!
//! An idle connection holds no buffer: reading goes through one large buffer per thread, and only the beginning of a
//! message whose end has not come is kept.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes};
use causeway_bgp_core::peer::{ConnectionId, Session};
use nix::sys::socket::{MsgFlags, recv};
use smallvec::SmallVec;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::socket::Ends;

/// One read takes at most this much.
const READ_SIZE: usize = 256 * 1024;

/// One write hands the kernel at most this many pieces.
const WRITE_PIECES: usize = 64;

/// How long a closed connection may take to deliver what was sent before.
const LINGER: Duration = Duration::from_secs(2);

thread_local! {
    static READ_BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_SIZE]);
}

/// A connection with its queue.
#[derive(Debug)]
pub struct Connection {
    pub id: ConnectionId,
    pub stream: TcpStream,
    pub ends: Ends,
    /// Received and not yet taken in: less than one message, save while the speaker is behind.
    unread: Vec<u8>,
    out: VecDeque<Piece>,
    out_len: usize,
    /// The front of `out` is partly written: nothing may come before its rest.
    torn: bool,
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

/// What reading came to.
#[derive(Debug)]
pub enum Read {
    /// So many octets.
    Some(usize),
    /// Nothing is there.
    Nothing,
    /// The peer closed, or the connection broke: why.
    Lost(String),
}

impl Connection {
    /// A connection with nothing queued.
    pub fn new(id: ConnectionId, stream: TcpStream, ends: Ends) -> Self {
        let (unread, out) = (Vec::new(), VecDeque::new());
        let (torn, stuck_since, broken) = (false, None, None);
        Connection { id, stream, ends, unread, out, out_len: 0, torn, stuck_since, broken }
    }

    /// Reads what is there, once, and gives it to the session.
    pub fn read(&mut self, now: Instant, session: &mut Session) -> Read {
        READ_BUFFER.with_borrow_mut(|buffer| {
            let kept = self.unread.len();
            if buffer.len() < kept + READ_SIZE / 2 {
                buffer.resize(kept + READ_SIZE / 2, 0);
            }
            buffer[..kept].copy_from_slice(&self.unread);
            match self.stream.try_read(&mut buffer[kept..]) {
                Ok(0) => Read::Lost(self.broken.take().unwrap_or_else(|| "closed by the peer".to_owned())),
                Ok(count) => {
                    let done = session.receive(now, self.id, &buffer[..kept + count]);
                    self.unread.clear();
                    self.unread.extend_from_slice(&buffer[done..kept + count]);
                    Read::Some(count)
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => Read::Nothing,
                Err(error) => Read::Lost(error.to_string()),
            }
        })
    }

    /// Gives the session what it left before; true where that got it any further.
    pub fn reread(&mut self, now: Instant, session: &mut Session) -> bool {
        if self.unread.is_empty() {
            return false;
        }
        let done = session.receive(now, self.id, &self.unread);
        self.unread.drain(..done.min(self.unread.len()));
        if self.unread.is_empty() {
            // A burst is over: an idle connection holds no buffer.
            self.unread = Vec::new();
        }
        done > 0
    }

    /// True where the kernel holds octets that nobody has read yet: the peer was not silent, we were late.
    pub fn has_unread(&self) -> bool {
        let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
        recv(self.stream.as_raw_fd(), &mut [0; 1], flags).is_ok_and(|count| count > 0)
    }

    /// Queues octets of the speaker.
    pub fn push(&mut self, octets: Bytes) {
        self.out_len += octets.len();
        self.out.push_back(Piece { octets, urgent: false });
    }

    /// Queues a message of the session before those of the speaker: a KEEPALIVE does not wait for a table.
    pub fn push_urgent(&mut self, octets: Bytes) {
        self.out_len += octets.len();
        let behind = self.out.iter().skip(usize::from(self.torn)).take_while(|piece| piece.urgent).count();
        self.out.insert(usize::from(self.torn) + behind, Piece { octets, urgent: true });
    }

    /// Octets that wait to be written.
    pub fn queued(&self) -> usize {
        self.out_len
    }

    /// Since when the peer has not made room for what is queued.
    pub fn stuck_since(&self) -> Option<Instant> {
        self.stuck_since
    }

    /// Writes as much as the kernel takes; the number of octets. Where writing fails, what is queued is dropped, and
    /// reading reports the loss: a NOTIFICATION may still be there to be read, and it makes all the difference.
    pub fn write(&mut self, now: Instant) -> usize {
        let mut written = 0;
        while self.out_len > 0 {
            let pieces: SmallVec<[IoSlice<'_>; WRITE_PIECES]> =
                self.out.iter().take(WRITE_PIECES).map(|piece| IoSlice::new(&piece.octets)).collect();
            let result = self.stream.try_write_vectored(&pieces);
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
                    self.broken.get_or_insert(error.to_string());
                    self.out.clear();
                    (self.out_len, self.torn) = (0, false);
                }
            }
        }
        self.stuck_since = None;
        written
    }

    fn advance(&mut self, mut count: usize) {
        self.out_len -= count;
        while count > 0 {
            let Some(front) = self.out.front_mut() else { return };
            let taken = count.min(front.octets.len());
            front.octets.advance(taken);
            count -= taken;
            self.torn = !front.octets.is_empty();
            if !self.torn {
                self.out.pop_front();
            }
        }
    }

    /// Drops what the speaker queued, but for the rest of a message that is partly out.
    pub fn drop_queued(&mut self) {
        let mut torn = self.torn;
        self.out.retain(|piece| std::mem::take(&mut torn) || piece.urgent);
        self.out_len = self.out.iter().map(|piece| piece.octets.len()).sum();
    }

    /// Closes the connection: what is queued goes out, then our end; what still comes is read and dropped, since a
    /// close with unread octets would make the kernel send a reset, which can overtake a NOTIFICATION.
    pub async fn close(mut self) {
        let farewell = async {
            for piece in &mut self.out {
                self.stream.write_all_buf(&mut piece.octets).await?;
            }
            self.stream.shutdown().await?;
            loop {
                self.stream.readable().await?;
                let gone = READ_BUFFER.with_borrow_mut(|buffer| match self.stream.try_read(buffer) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => false,
                    Ok(count) => count == 0,
                    Err(_) => true,
                });
                if gone {
                    return io::Result::Ok(());
                }
            }
        };
        // Whether the peer was still there to read it, it is closed.
        let _ = tokio::time::timeout(LINGER, farewell).await;
    }
}
