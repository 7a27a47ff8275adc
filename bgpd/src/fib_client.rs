//! The FIB feed's client: a connection to `causeway-fib-sync` that comes back by itself.
//!
//! Owns the connection, nothing else. Batches of encoded commands come from the speaker, which sends one only after the
//! last is on its way (`FromFib::Drained`), so the queue holds one batch. Events go to it as many at a time as were read. Reading and writing are two futures: fib-sync may
//! write while it is not reading, and neither end may wait for the other.

use std::path::{Path, PathBuf};
use std::time::Duration;

use causeway_api::control::FIB_FEED_SOCKET;
use causeway_api::fib::{Command, Decoder, Event, Message, VERSION};
use causeway_bgp_wire::{Family, FamilySet};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;

use causeway_daemon::signals::Shutdown;

/// How often a connection is tried.
const RETRY: Duration = Duration::from_millis(200);
/// fib-sync sends its Hello at once; one that does not within this long is not it.
const HELLO_LIMIT: Duration = Duration::from_secs(5);
/// What may wait for the speaker; each holds no more events than fit what is read at a time.
const EVENTS: usize = 16;
/// As much as is read at a time.
const READ: usize = 64 << 10;

/// Number of a connection; grows.
pub type Connection = u64;

/// What the client tells the speaker.
#[derive(Debug)]
pub enum FromFib {
    /// Connected; the feed is drained. What is sent must name this connection.
    Connected {
        /// Which connection.
        connection: Connection,
        /// Families whose forwarding state was kept while bgpd was away (the F bits of RFC 4724).
        kept: FamilySet,
    },
    /// The connection ended.
    Lost {
        /// For people.
        reason: String,
    },
    /// The last batch is on its way.
    Drained {
        /// On which connection.
        connection: Connection,
        /// The batch's memory, to be used again.
        buffer: Vec<u8>,
    },
    /// fib-sync said something, in this order.
    Events(Vec<Event>),
}

/// A batch of encoded commands and the connection it is for.
pub type Batch = (Connection, Vec<u8>);

/// The speaker's end of the feed.
pub struct FibLink {
    /// What fib-sync says.
    pub events: mpsc::Receiver<FromFib>,
    /// Batches; one at a time, see [`FromFib::Drained`].
    pub batches: mpsc::UnboundedSender<Batch>,
}

/// Starts the client. `restarted`: the run folder's marker says that bgpd was here before.
pub fn spawn(run_dir: &Path, restarted: bool, shutdown: Shutdown) -> FibLink {
    let (event_tx, events) = mpsc::channel(EVENTS);
    let (batches, batch_rx) = mpsc::unbounded_channel();
    let client = Client {
        socket: run_dir.join(FIB_FEED_SOCKET),
        restarted,
        connection: 0,
        events: event_tx,
        batches: batch_rx,
    };
    tokio::spawn(async move {
        tokio::select! {
            () = client.run() => {}
            () = shutdown.ended() => {}
        }
    });
    FibLink { events, batches }
}

struct Client {
    socket: PathBuf,
    restarted: bool,
    connection: Connection,
    events: mpsc::Sender<FromFib>,
    batches: mpsc::UnboundedReceiver<Batch>,
}

impl Client {
    async fn run(mut self) {
        loop {
            let Ok(stream) = UnixStream::connect(&self.socket).await else {
                tokio::time::sleep(RETRY).await;
                continue;
            };
            self.connection += 1;
            let reason = match self.serve(stream).await {
                Ok(()) => return,
                Err(error) => error.to_string(),
            };
            if self.events.send(FromFib::Lost { reason }).await.is_err() {
                return;
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    /// One connection, to its end. `Ok` means that the speaker is gone.
    async fn serve(&mut self, stream: UnixStream) -> Result<(), FeedError> {
        let (reading, mut writing) = stream.into_split();
        let mut hello = Vec::new();
        Command::Hello { version: VERSION, restarted: self.restarted }.encode(&mut hello);
        writing.write_all(&hello).await?;
        let mut incoming = Incoming { reading, decoder: Decoder::new(), buffer: vec![0; READ] };
        let first = tokio::time::timeout(HELLO_LIMIT, incoming.next())
            .await
            .map_err(|_elapsed| FeedError::NoHello)??;
        let kept = match first {
            Event::Hello { version: VERSION, ipv4_kept, ipv6_kept } => {
                let flags = [(Family::Ipv4Unicast, ipv4_kept), (Family::Ipv6Unicast, ipv6_kept)];
                flags.into_iter().filter(|(_, kept)| *kept).map(|(family, _)| family).collect()
            }
            Event::Hello { version, .. } => return Err(FeedError::Version(version)),
            _ => return Err(FeedError::NoHello),
        };
        let connection = self.connection;
        if self.events.send(FromFib::Connected { connection, kept }).await.is_err() {
            return Ok(());
        }
        let events = &self.events;
        tokio::select! {
            ended = read(&mut incoming, events) => ended,
            ended = write(&mut writing, &mut self.batches, events, connection) => ended,
        }
    }
}

/// What fib-sync writes, cut into events.
struct Incoming {
    reading: OwnedReadHalf,
    decoder: Decoder,
    buffer: Vec<u8>,
}

impl Incoming {
    /// Reads once.
    async fn fill(&mut self) -> Result<(), FeedError> {
        let length = self.reading.read(&mut self.buffer).await?;
        if length == 0 {
            return Err(FeedError::Closed);
        }
        self.decoder.extend(&self.buffer[..length]);
        Ok(())
    }

    async fn next(&mut self) -> Result<Event, FeedError> {
        loop {
            if let Some(event) = self.decoder.poll()? {
                return Ok(event);
            }
            self.fill().await?;
        }
    }
}

/// Passes events to the speaker until the connection or the speaker ends.
async fn read(incoming: &mut Incoming, passed_on: &mpsc::Sender<FromFib>) -> Result<(), FeedError> {
    loop {
        let mut events = Vec::new();
        let ended = loop {
            match incoming.decoder.poll() {
                Ok(Some(Event::Goodbye { reason })) => break Some(FeedError::Goodbye(reason)),
                Ok(Some(event)) => events.push(event),
                Ok(None) => break None,
                Err(error) => break Some(error.into()),
            }
        };
        if !events.is_empty() && passed_on.send(FromFib::Events(events)).await.is_err() {
            return Ok(());
        }
        if let Some(error) = ended {
            return Err(error);
        }
        incoming.fill().await?;
    }
}

/// Writes batches of this connection until it or the speaker ends; batches of older connections are dropped.
async fn write(
    writing: &mut OwnedWriteHalf,
    batches: &mut mpsc::UnboundedReceiver<Batch>,
    events: &mpsc::Sender<FromFib>,
    connection: Connection,
) -> Result<(), FeedError> {
    while let Some((of, buffer)) = batches.recv().await {
        // A batch of an older connection is of no use, but its memory is.
        if of == connection {
            writing.write_all(&buffer).await?;
        }
        if events.send(FromFib::Drained { connection: of, buffer }).await.is_err() {
            return Ok(());
        }
    }
    Ok(())
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
enum FeedError {
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("fib-sync closed the feed")]
    Closed,
    #[error("fib-sync closed the feed: {0}")]
    Goodbye(String),
    #[error("fib-sync sent a frame that does not decode: {0}")]
    Decode(#[from] causeway_api::fib::DecodeError),
    #[error("fib-sync speaks version {0} of the feed, this bgpd {VERSION}")]
    Version(u16),
    #[error("fib-sync did not send its Hello")]
    NoHello,
}
