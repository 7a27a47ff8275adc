//! The FIB feed's client: a connection to `causeway-fib-sync` that comes back by itself.
//!
//! Owns the connection, nothing else. Batches of commands come from the speaker, which sends one only after the last
//! is on its way (`FromFib::Drained`), so the queue holds one batch. Reading and writing are two futures: fib-sync may
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
/// Events that may wait for the speaker.
const EVENTS: usize = 1024;

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
    },
    /// fib-sync said something.
    Event(Event),
}

/// A batch of commands and the connection it is for.
pub type Batch = (Connection, Vec<Command>);

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
        let (mut reading, mut writing) = stream.into_split();
        let mut hello = Vec::new();
        Command::Hello { version: VERSION, restarted: self.restarted }.encode(&mut hello);
        writing.write_all(&hello).await?;
        let mut decoder = Decoder::new();
        let first = tokio::time::timeout(HELLO_LIMIT, next_event(&mut reading, &mut decoder))
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
            ended = read(&mut reading, &mut decoder, events) => ended,
            ended = write(&mut writing, &mut self.batches, events, connection) => ended,
        }
    }
}

/// Passes events to the speaker until the connection or the speaker ends.
async fn read(
    reading: &mut OwnedReadHalf,
    decoder: &mut Decoder,
    events: &mpsc::Sender<FromFib>,
) -> Result<(), FeedError> {
    loop {
        match next_event(reading, decoder).await? {
            Event::Goodbye { reason } => return Err(FeedError::Goodbye(reason)),
            event => {
                if events.send(FromFib::Event(event)).await.is_err() {
                    return Ok(());
                }
            }
        }
    }
}

/// Writes batches of this connection until it or the speaker ends; batches of older connections are dropped.
async fn write(
    writing: &mut OwnedWriteHalf,
    batches: &mut mpsc::UnboundedReceiver<Batch>,
    events: &mpsc::Sender<FromFib>,
    connection: Connection,
) -> Result<(), FeedError> {
    let mut bytes = Vec::new();
    while let Some((of, commands)) = batches.recv().await {
        if of != connection {
            continue;
        }
        bytes.clear();
        for command in &commands {
            command.encode(&mut bytes);
        }
        writing.write_all(&bytes).await?;
        if events.send(FromFib::Drained { connection }).await.is_err() {
            return Ok(());
        }
    }
    Ok(())
}

async fn next_event(reading: &mut OwnedReadHalf, decoder: &mut Decoder) -> Result<Event, FeedError> {
    let mut buffer = [0; 16 << 10];
    loop {
        if let Some(event) = decoder.poll()? {
            return Ok(event);
        }
        let length = reading.read(&mut buffer).await?;
        if length == 0 {
            return Err(FeedError::Closed);
        }
        decoder.extend(&buffer[..length]);
    }
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
