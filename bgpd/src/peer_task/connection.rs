//! One TCP connection of a peer's task: what was read and not yet taken in, and its outbox. Not pure.
//!
//! An idle connection holds no buffer: reading goes through one large buffer per thread, and only the beginning of a
//! message whose end has not come is kept.

use std::cell::Cell;
use std::io;
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use causeway_bgp_core::peer::ConnectionId;
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv};
use socket2::SockRef;
use tokio::io::Interest;
use tokio::net::TcpStream;

use super::socket::Ends;
use crate::outbox::{Outbox, Written, why_lost};
use crate::speaker_link::{PeerCounters, READ_ROOM};

/// How long a closed connection may take to deliver what was sent before.
const LINGER: Duration = Duration::from_secs(2);

thread_local! {
    static READ_BUFFER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// A connection with its queue.
#[derive(Debug)]
pub struct Connection {
    pub id: ConnectionId,
    pub ends: Ends,
    pub outbox: Arc<Outbox>,
    stream: Arc<TcpStream>,
    /// Received and not yet taken in: less than one message.
    unread: Vec<u8>,
}

/// What reading came to.
#[derive(Debug)]
pub enum Read {
    /// So many octets, new ones.
    Some(usize),
    /// Nothing is there.
    Nothing,
    /// The peer closed, or the connection broke: why.
    Lost(String),
}

/// The reading buffer of this thread, lent for one read.
#[derive(Debug)]
pub struct ReadBuffer {
    octets: Vec<u8>,
    /// So much of it was filled.
    pub filled: usize,
}

impl ReadBuffer {
    /// Takes it. Whoever asks a second time before it is given back gets a new one.
    pub fn lend() -> Self {
        ReadBuffer { octets: READ_BUFFER.take(), filled: 0 }
    }

    /// What was received and where it has not been taken in before `done`.
    pub fn rest(&self, done: usize) -> &[u8] {
        &self.octets[done.min(self.filled)..self.filled]
    }
}

impl Drop for ReadBuffer {
    fn drop(&mut self) {
        READ_BUFFER.set(std::mem::take(&mut self.octets));
    }
}

impl Connection {
    /// A connection with nothing queued.
    pub fn new(id: ConnectionId, stream: TcpStream, ends: Ends, counters: Arc<PeerCounters>) -> Self {
        let stream = Arc::new(stream);
        let outbox = Arc::new(Outbox::new(Arc::clone(&stream), counters));
        Connection { id, ends, outbox, stream, unread: Vec::new() }
    }

    /// The socket, to wait for.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Reads what is there, once, behind what was left of the last time. `ask`: also where the runtime has not heard
    /// that something is there.
    pub fn read(&mut self, buffer: &mut ReadBuffer, ask: bool) -> Read {
        let kept = self.unread.len();
        if buffer.octets.len() < kept + READ_ROOM {
            buffer.octets.resize(kept + READ_ROOM, 0);
        }
        buffer.octets[..kept].copy_from_slice(&self.unread);
        let into = &mut buffer.octets[kept..kept + READ_ROOM];
        let (socket, mut result) = (self.stream.as_raw_fd(), Err(Errno::EAGAIN));
        // What it returns is for the runtime; `result` is for us.
        let _ = self.stream.try_io(Interest::READABLE, || {
            result = recv(socket, into, MsgFlags::MSG_DONTWAIT);
            match result {
                Ok(count) if count == 0 || count == READ_ROOM => Ok(()),
                // Less than there was room for: nothing is left, and the runtime may know without asking again.
                Ok(_) => Err(io::ErrorKind::WouldBlock.into()),
                Err(error) => Err(error.into()),
            }
        });
        if ask && result == Err(Errno::EAGAIN) {
            result = recv(socket, into, MsgFlags::MSG_DONTWAIT);
        }
        match result {
            Ok(0) => {
                Read::Lost(self.outbox.take_failure().unwrap_or_else(|| "closed by the peer".to_owned()))
            }
            Ok(count) => {
                buffer.filled = kept + count;
                Read::Some(count)
            }
            Err(Errno::EAGAIN | Errno::EINTR) => Read::Nothing,
            Err(error) => Read::Lost(why_lost(&error.into())),
        }
    }

    /// Keeps the beginning of a message whose end has not come.
    pub fn keep(&mut self, rest: &[u8]) {
        if rest.is_empty() {
            // A burst is over: an idle connection holds no buffer.
            self.unread = Vec::new();
        } else {
            self.unread.clear();
            self.unread.extend_from_slice(rest);
        }
    }

    /// True where the kernel holds octets that nobody has read yet: the peer was not silent, we were late.
    pub fn has_unread(&self) -> bool {
        let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
        recv(self.stream.as_raw_fd(), &mut [0; 1], flags).is_ok_and(|count| count > 0)
    }

    /// Queues a message of the session before those of the speaker: a KEEPALIVE does not wait for a table.
    pub fn push_urgent(&self, octets: Bytes) {
        self.outbox.push_urgent(octets);
    }

    /// Writes what is queued, if the kernel takes it.
    pub fn write(&self, now: Instant) -> Option<Written> {
        (self.outbox.waiting() > 0).then(|| self.outbox.write(now))
    }

    /// Closes the connection: what the session queued goes out, then our end; what still comes is read and dropped,
    /// since a close with unread octets would make the kernel send a reset, which can overtake a NOTIFICATION.
    pub async fn close(self) {
        let farewell = async {
            while self.outbox.waiting() > 0 {
                self.stream.writable().await?;
                self.outbox.write(Instant::now());
            }
            SockRef::from(&*self.stream).shutdown(Shutdown::Write)?;
            loop {
                self.stream.readable().await?;
                let mut buffer = [0; 4096];
                match self.stream.try_read(&mut buffer) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Ok(0) | Err(_) => return io::Result::Ok(()),
                    Ok(_) => {}
                }
            }
        };
        // Whether the peer was still there to read it, it is closed.
        let _ = tokio::time::timeout(LINGER, farewell).await;
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.outbox.release();
    }
}
