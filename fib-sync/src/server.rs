//! The server end of the FIB feed (`RUN_DIR/fib.sock`): frames to messages and back, one bgpd at a time.
//!
//! A connection counts from its `Hello` on, so that a stray client cannot end bgpd's. The latest bgpd wins: one that
//! was killed may still hold its old connection when its successor connects. A frame that does not decode ends the
//! connection with a `Goodbye` that says why; the routes stay.

use std::sync::Arc;
use std::time::Duration;

use causeway_api::fib::{Command, Decoder, Event, Message, VERSION};
use causeway_daemon::signals::Shutdown;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::sync::{FeedInput, Handle, Outbox};

/// How long a client may take to say `Hello`.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a last message may take.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(1);
/// How long reading what a replaced connection had sent may take.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// How many clients may be about to say `Hello`.
const GREETINGS: usize = 8;
/// How many bytes are read at once; what one read holds is one input of the kernel thread.
const READ: usize = 64 * 1024;
/// How many messages go into one write.
const WRITE: usize = 1024;

/// A client that said `Hello`.
struct Client {
    reader: OwnedReadHalf,
    writer: OwnedWriteHalf,
    decoder: Decoder,
}

/// Accepts bgpd's connections until the shutdown.
pub async fn serve(listener: UnixListener, handle: Handle, shutdown: Shutdown) {
    let (greeted, mut clients) = mpsc::channel(1);
    let greetings = Arc::new(Semaphore::new(GREETINGS));
    let mut active: Option<Active> = None;
    loop {
        tokio::select! {
            () = shutdown.ended() => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => greet(stream, greeted.clone(), Arc::clone(&greetings)),
                Err(error) => {
                    tracing::warn!(%error, "the FIB feed cannot accept");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
            Some(client) = clients.recv() => {
                if let Some(active) = active.take() {
                    active.end("another bgpd connected").await;
                }
                active = Some(Active::start(client, handle.clone()));
            }
        }
    }
    if let Some(active) = active.take() {
        active.end("fib-sync ends").await;
    }
}

/// Waits for a client's `Hello` beside the accept loop.
fn greet(stream: UnixStream, greeted: mpsc::Sender<Client>, greetings: Arc<Semaphore>) {
    tokio::spawn(async move {
        let Ok(_permit) = greetings.try_acquire() else {
            tracing::warn!("the FIB feed has too many clients that do not say Hello");
            return;
        };
        let (reader, writer) = stream.into_split();
        let mut client = Client { reader, writer, decoder: Decoder::new() };
        let reason = match timeout(HELLO_TIMEOUT, client.next()).await {
            Ok(Ok(Some(Command::Hello { version: VERSION, restarted }))) => {
                tracing::info!(restarted, "bgpd connected");
                // An error: the daemon ends.
                let _ = greeted.send(client).await;
                return;
            }
            Ok(Ok(Some(Command::Hello { version, .. }))) => {
                format!("version {version} of the FIB feed; this is version {VERSION}")
            }
            Ok(Ok(Some(_))) => "the first message is no Hello".to_owned(),
            Ok(Ok(None)) => return,
            Ok(Err(error)) => error,
            Err(_elapsed) => "no Hello came".to_owned(),
        };
        tracing::warn!(%reason, "a client of the FIB feed was refused");
        goodbye(&mut client.writer, reason).await;
    });
}

impl Client {
    /// The next message; `None` when the client closed.
    async fn next(&mut self) -> Result<Option<Command>, String> {
        loop {
            if let Some(command) = self.decoder.poll().map_err(|error| error.to_string())? {
                return Ok(Some(command));
            }
            let mut bytes = [0; 4096];
            match self.reader.read(&mut bytes).await {
                Ok(0) => return Ok(None),
                Ok(count) => self.decoder.extend(&bytes[..count]),
                Err(error) => return Err(error.to_string()),
            }
        }
    }
}

/// The connection in force.
struct Active {
    end: oneshot::Sender<&'static str>,
    task: JoinHandle<()>,
}

impl Active {
    fn start(client: Client, handle: Handle) -> Active {
        let (end, ended) = oneshot::channel();
        Active { end, task: tokio::spawn(run(client, handle, ended)) }
    }

    async fn end(self, reason: &'static str) {
        // The task may have ended by itself.
        let _ = self.end.send(reason);
        let _ = self.task.await;
    }
}

async fn run(client: Client, handle: Handle, mut ended: oneshot::Receiver<&'static str>) {
    let Client { reader, mut writer, decoder } = client;
    let mut reading = Reading { reader, decoder, waiting: Vec::new(), handle: handle.clone() };
    let outbox = Arc::new(Outbox::new(handle.clone()));
    if !handle.feed(FeedInput::Connected(Arc::clone(&outbox))).await {
        return;
    }
    let reason = tokio::select! {
        reason = &mut ended => {
            // What a predecessor said before it died counts, its end-of-snapshot mark above all.
            let _ = timeout(LAST_WORDS, reading.drain()).await;
            Some(reason.unwrap_or("fib-sync ends").to_owned())
        }
        reason = reading.run() => reason,
        never = write(&mut writer, &outbox) => match never {},
    };
    match reason {
        Some(reason) => {
            tracing::warn!(%reason, "the connection of bgpd ends");
            goodbye(&mut writer, reason).await;
        }
        None => tracing::warn!("bgpd closed its connection"),
    }
    handle.feed(FeedInput::Disconnected).await;
}

/// The reading half. Its futures can be dropped at any point without losing a message.
struct Reading {
    reader: OwnedReadHalf,
    decoder: Decoder,
    /// Decoded, and not handed over yet.
    waiting: Vec<Command>,
    handle: Handle,
}

impl Reading {
    /// Reads until the end; the reason to give bgpd, if it can still be given one.
    async fn run(&mut self) -> Option<String> {
        let mut bytes = vec![0; READ];
        loop {
            if let Err(reason) = self.hand_over().await {
                return Some(reason);
            }
            match self.reader.read(&mut bytes).await {
                Ok(0) | Err(_) => return None,
                Ok(count) => self.decoder.extend(&bytes[..count]),
            }
        }
    }

    /// Reads what has come in already.
    async fn drain(&mut self) {
        let mut bytes = vec![0; READ];
        while self.hand_over().await.is_ok() {
            match self.reader.try_read(&mut bytes) {
                Ok(0) | Err(_) => return,
                Ok(count) => self.decoder.extend(&bytes[..count]),
            }
        }
    }

    /// Hands over all whole messages; a frame that does not decode is an error after those before it.
    async fn hand_over(&mut self) -> Result<(), String> {
        let error = loop {
            match self.decoder.poll() {
                Ok(Some(command)) => self.waiting.push(command),
                Ok(None) => break None,
                Err(error) => break Some(error.to_string()),
            }
        };
        if !self.handle.feed_commands(&mut self.waiting).await {
            return Err("fib-sync ends".to_owned());
        }
        error.map_or(Ok(()), Err)
    }
}

/// Writes what is in the outbox. When bgpd no longer reads, what it sent before is still to be read: then this only
/// waits, and the reader finds the end.
async fn write(writer: &mut OwnedWriteHalf, outbox: &Outbox) -> std::convert::Infallible {
    let mut bytes = Vec::new();
    loop {
        bytes.clear();
        for event in outbox.take(WRITE).await {
            event.encode(&mut bytes);
        }
        if writer.write_all(&bytes).await.is_err() {
            outbox.close();
            std::future::pending::<()>().await;
        }
    }
}

async fn goodbye(writer: &mut OwnedWriteHalf, reason: String) {
    let mut bytes = Vec::new();
    Event::Goodbye { reason }.encode(&mut bytes);
    let _ = timeout(GOODBYE_TIMEOUT, writer.write_all(&bytes)).await;
}
