//! TCP through a lab: a megabyte or more from one pod to another, counted at the far end.
//!
//! Both sockets are made in the pods' networks; the threads that use them are this process's own.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::lab::Lab;

/// How long either end waits for the other without seeing a byte: a black hole shows by this.
const SILENCE: Duration = Duration::from_secs(5);

impl Lab {
    /// Sends `bytes` from one pod to an address of another, and returns how long it took until the last one was there.
    ///
    /// # Errors
    /// Where there is no connection, or no byte moves for five seconds.
    pub fn transfer(&self, from: &str, to: &str, address: IpAddr, bytes: usize) -> Result<Duration> {
        let listener = self.namespaces(to)?.in_network(|| TcpListener::bind(SocketAddr::new(address, 0)))?;
        let target = listener.local_addr()?;
        let start = Instant::now();
        let mut sender = self
            .namespaces(from)?
            .in_network(|| TcpStream::connect_timeout(&target, SILENCE))
            .with_context(|| format!("{from} does not connect to {to} at {address}"))?;
        sender.set_write_timeout(Some(SILENCE))?;
        let (mut receiver, _) = listener.accept()?;
        receiver.set_read_timeout(Some(SILENCE))?;
        std::thread::scope(|scope| {
            let received = scope.spawn(move || count(&mut receiver));
            let sent = send(&mut sender, bytes);
            // The receiver's end of file.
            drop(sender);
            let received =
                received.join().unwrap_or((0, Err(std::io::Error::other("the receiver panicked"))));
            let route = format!("{from} to {to} at {address}");
            received.1.with_context(|| format!("{route}: stuck after {} of {bytes} bytes", received.0))?;
            sent.with_context(|| format!("{route}: sending"))?;
            ensure!(received.0 == bytes, "{route}: {} of {bytes} bytes arrived", received.0);
            Ok(start.elapsed())
        })
    }
}

fn send(stream: &mut TcpStream, bytes: usize) -> std::io::Result<()> {
    let block = [0x5au8; 1 << 14];
    let mut left = bytes;
    while left > 0 {
        let now = left.min(block.len());
        stream.write_all(&block[..now])?;
        left -= now;
    }
    Ok(())
}

/// Reads to the end; how many bytes came, and what ended it.
fn count(stream: &mut TcpStream) -> (usize, std::io::Result<()>) {
    let mut buffer = [0u8; 1 << 16];
    let mut total = 0;
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return (total, Ok(())),
            Ok(n) => total += n,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return (total, Err(error)),
        }
    }
}
