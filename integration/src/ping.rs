//! Pings through a lab: one reply, or a stream that counts what was lost.

use std::net::IpAddr;
use std::process::Child;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::lab::Lab;
use crate::run::{collect, wait};

/// A ping that runs until it is asked how it went.
#[derive(Debug)]
pub struct Stream {
    child: Option<Child>,
    output: Option<JoinHandle<Vec<u8>>>,
    /// From where to where, for messages.
    pub route: String,
}

/// What a stream of pings counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counted {
    /// Requests sent.
    pub sent: u32,
    /// Replies that came back.
    pub received: u32,
}

impl Counted {
    /// Requests without a reply.
    #[must_use]
    pub fn lost(self) -> u32 {
        self.sent.saturating_sub(self.received)
    }
}

impl Lab {
    /// One ping that must be answered within a second.
    ///
    /// # Errors
    /// Where it is not.
    pub fn ping(&self, from: &str, to: IpAddr) -> Result<()> {
        self.text(from, &["ping", "-n", "-c", "1", "-W", "1", &to.to_string()]).map(|_| ())
    }

    /// Pings a hundred times a second until [`Stream::stop`].
    ///
    /// # Errors
    /// Where ping cannot start.
    pub fn ping_stream(&self, from: &str, to: IpAddr) -> Result<Stream> {
        let mut child = self.spawn(from, &["ping", "-n", "-i", "0.01", &to.to_string()])?;
        let output = collect(child.stdout.take());
        Ok(Stream { child: Some(child), output: Some(output), route: format!("{from} to {to}") })
    }
}

impl Stream {
    /// Stops and counts. The last request may still be under way; it does not count as lost.
    ///
    /// # Errors
    /// Where ping ended by itself, or says something unforeseen.
    pub fn stop(mut self) -> Result<Counted> {
        let mut child = self.child.take().context("the stream was stopped before")?;
        ensure!(child.try_wait()?.is_none(), "ping {} ended by itself", self.route);
        kill(Pid::from_raw(child.id() as i32), Signal::SIGINT)?;
        wait(&mut child, Duration::from_secs(5))?;
        let output = self.output.take().and_then(|thread| thread.join().ok()).unwrap_or_default();
        let text = String::from_utf8_lossy(&output);
        let counted = parse(&text).with_context(|| format!("ping {} said: {text}", self.route))?;
        ensure!(counted.sent > 1, "ping {} sent {} requests only", self.route, counted.sent);
        Ok(counted)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Ended already is as good as killed.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Reads `412 packets transmitted, 412 received, 0% packet loss`, and leaves the last request out where it is the only one
/// without a reply: it was under way when the stream was stopped.
#[must_use]
pub fn parse(text: &str) -> Option<Counted> {
    let line = text.lines().find(|line| line.contains(" packets transmitted"))?;
    let number = |part: &str| part.split_whitespace().next()?.parse().ok();
    let mut parts = line.split(", ");
    let sent = number(parts.next()?)?;
    let received = number(parts.next()?)?;
    let last = text
        .lines()
        .rev()
        .find_map(|line| line.split("icmp_seq=").nth(1)?.split(' ').next()?.parse::<u32>().ok());
    let under_way = sent == received + 1 && last == Some(received);
    Some(Counted { sent: if under_way { received } else { sent }, received })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_line_is_read() {
        let text = "--- 10.0.0.1 ping statistics ---\n412 packets transmitted, 400 received, +3 errors, 3% packet loss, time 1ms\n";
        let counted = parse(text).unwrap();
        assert_eq!(counted, Counted { sent: 412, received: 400 });
        assert_eq!(counted.lost(), 12);
        assert_eq!(parse("nothing"), None);

        let reply = "64 bytes from 10.0.0.1: icmp_seq=3 ttl=64 time=0.1 ms\n";
        let summary = "4 packets transmitted, 3 received, 25% packet loss\n";
        let under_way = parse(&format!("{reply}{summary}")).unwrap();
        assert_eq!(under_way.lost(), 0, "the fourth had just been sent");
        let lost = parse(&format!("{}{summary}", reply.replace("=3", "=4"))).unwrap();
        assert_eq!(lost.lost(), 1, "the fourth came back, so one before it was lost");
    }
}
