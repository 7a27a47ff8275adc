//! bgpd's end of the feed of fib-sync, played by this tool. Not pure (a socket).

use std::io::{ErrorKind, Read, Write};
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use causeway_api::fib::{
    Command, Decoder, Event, Family, GroupMember, Message, NextHop, RouteState, VERSION,
};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::plan::Plan;

/// The connection.
pub struct Feed {
    stream: UnixStream,
    decoder: Decoder,
    buffer: Vec<u8>,
    generation: u64,
}

impl Feed {
    /// Connects, and begins a snapshot.
    ///
    /// # Errors
    /// Where fib-sync does not answer as it should.
    pub fn connect(run_dir: &Path, deadline: Instant) -> Result<Feed> {
        let stream = UnixStream::connect(run_dir.join("fib.sock")).context("fib.sock")?;
        stream.set_nonblocking(true)?;
        let mut feed = Feed { stream, decoder: Decoder::new(), buffer: vec![0; 1 << 18], generation: 0 };
        let hello = [Command::Hello { version: VERSION, restarted: false }, Command::SnapshotBegin];
        feed.exchange(&encode(&hello), deadline, |event| Ok(matches!(event, Event::Hello { .. })))
            .context("fib-sync's hello")?;
        Ok(feed)
    }

    /// The number that the next message about a route bears.
    pub fn next_generation(&mut self) -> u64 {
        self.generation += 1;
        self.generation
    }

    /// Sends all this while it reads what comes, until `done` says so.
    ///
    /// # Errors
    /// Where the time ran out, fib-sync hung up, or `done` fails.
    pub fn exchange(
        &mut self,
        mut octets: &[u8],
        deadline: Instant,
        mut done: impl FnMut(&Event) -> Result<bool>,
    ) -> Result<()> {
        while !octets.is_empty() {
            ensure!(Instant::now() < deadline, "fib-sync does not read");
            self.wait(PollFlags::POLLIN | PollFlags::POLLOUT, deadline)?;
            octets = &octets[self.give(octets)?..];
            if self.take(&mut done)? {
                return Ok(());
            }
        }
        ensure!(self.until(deadline, done)?, "fib-sync is not done in time");
        Ok(())
    }

    /// Reads what comes until `done` says so, or until then; whether it did.
    ///
    /// # Errors
    /// Where fib-sync hung up, or `done` fails.
    pub fn until(&mut self, then: Instant, mut done: impl FnMut(&Event) -> Result<bool>) -> Result<bool> {
        while Instant::now() < then {
            self.wait(PollFlags::POLLIN, then)?;
            if self.take(&mut done)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Waits until the socket can be read or written, or until then.
    fn wait(&self, wanted: PollFlags, then: Instant) -> Result<()> {
        // Rounded up, so that the time is over when it is.
        let left = then.saturating_duration_since(Instant::now()).as_millis() + 1;
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        poll(&mut [PollFd::new(self.stream.as_fd(), wanted)], timeout)?;
        Ok(())
    }

    /// Reads what has come, without waiting.
    ///
    /// # Errors
    /// As [`Feed::exchange`].
    pub fn read(&mut self, mut on: impl FnMut(&Event)) -> Result<()> {
        self.take(&mut |event| {
            on(event);
            Ok(false)
        })?;
        Ok(())
    }

    /// Sends a few messages.
    ///
    /// # Errors
    /// Where fib-sync does not take them.
    pub fn send(&mut self, commands: &[Command], deadline: Instant) -> Result<()> {
        let octets = encode(commands);
        let mut sent = 0;
        while sent < octets.len() {
            ensure!(Instant::now() < deadline, "fib-sync does not read");
            self.wait(PollFlags::POLLOUT, deadline)?;
            sent += self.give(&octets[sent..])?;
        }
        Ok(())
    }

    fn give(&mut self, octets: &[u8]) -> Result<usize> {
        if octets.is_empty() {
            return Ok(0);
        }
        match (&self.stream).write(octets) {
            Ok(written) => Ok(written),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(0),
            Err(error) => Err(error).context("writing to fib-sync"),
        }
    }

    fn take(&mut self, done: &mut impl FnMut(&Event) -> Result<bool>) -> Result<bool> {
        let mut enough = false;
        loop {
            match (&self.stream).read(&mut self.buffer) {
                Ok(0) => bail!("fib-sync hung up"),
                Ok(length) => self.decoder.extend(&self.buffer[..length]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(enough),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error).context("reading from fib-sync"),
            }
            while let Some(event) = self.decoder.poll::<Event>()? {
                if let Event::Goodbye { reason } = &event {
                    bail!("fib-sync said goodbye: {reason}");
                }
                enough |= done(&event)?;
            }
            if enough {
                return Ok(true);
            }
        }
    }

    /// A group, all routes of a plan in it, and the end of the snapshot: encoded.
    pub fn snapshot(&mut self, plan: &Plan, group: &Command) -> Vec<u8> {
        let mut octets = encode(std::slice::from_ref(group));
        let id = if let Command::Group { id, .. } = group { *id } else { 0 };
        for number in 0..plan.routes {
            let generation = self.next_generation();
            Command::Route { prefix: plan.prefix(number), group: id, generation }.encode(&mut octets);
        }
        octets.extend(encode(&Family::ALL.map(|family| Command::EndOfSnapshot { family })));
        octets
    }

    /// Sends octets from [`Feed::snapshot`] and waits until every route is said to be installed.
    ///
    /// # Errors
    /// Where one is not, in time.
    pub fn install(&mut self, plan: &Plan, octets: &[u8], deadline: Instant) -> Result<()> {
        let mut installed = Installed::new(*plan);
        self.exchange(octets, deadline, |event| installed.take(event))
            .with_context(|| format!("{} of {} routes installed", installed.count, plan.routes))
    }
}

/// Which routes of a plan are installed.
struct Installed {
    plan: Plan,
    is: Vec<bool>,
    count: usize,
}

impl Installed {
    fn new(plan: Plan) -> Installed {
        Installed { plan, is: vec![false; plan.routes], count: 0 }
    }

    /// Counts; whether all are.
    fn take(&mut self, event: &Event) -> Result<bool> {
        let Event::Status { prefix, state, .. } = event else { return Ok(false) };
        let Some(number) = self.plan.number(prefix) else { return Ok(false) };
        let now = match state {
            RouteState::Installed { .. } => true,
            RouteState::Pending { .. } | RouteState::Removed => false,
            RouteState::Failed { reason } => bail!("{prefix}: {reason}"),
        };
        let was = std::mem::replace(&mut self.is[number], now);
        self.count = self.count + usize::from(now) - usize::from(was);
        Ok(self.count == self.plan.routes)
    }
}

/// A group of next hops of equal weight, and of others for when none of them is left.
#[must_use]
pub fn group(id: u32, members: &[IpAddr], backups: &[IpAddr]) -> Command {
    let of = |all: &[IpAddr]| {
        all.iter().map(|address| GroupMember::plain(NextHop::global(*address))).collect::<Vec<_>>()
    };
    Command::Group { id, members: of(members), backups: of(backups) }
}

/// Messages as octets.
#[must_use]
pub fn encode(commands: &[Command]) -> Vec<u8> {
    let mut octets = Vec::new();
    for command in commands {
        command.encode(&mut octets);
    }
    octets
}

#[cfg(test)]
mod tests {
    use causeway_api::fib::Via;

    use super::*;
    use crate::fib::plan;

    #[test]
    fn routes_count_once_and_only_while_they_are_installed() {
        let plan = Plan { family: plan::Family::V4, routes: 2 };
        let mut installed = Installed::new(plan);
        let mut told = |number: usize, state: RouteState| {
            installed.take(&Event::Status { prefix: plan.prefix(number), generation: 1, state }).unwrap()
        };
        let there = RouteState::Installed { via: Via::Direct };
        assert!(!told(0, there.clone()));
        assert!(!told(0, there.clone()), "the same again");
        assert!(!told(9, there.clone()), "none of these");
        assert!(!told(0, RouteState::Pending { reason: String::new() }));
        assert!(!told(1, there.clone()));
        assert!(told(0, there));
        let refused = RouteState::Failed { reason: "no".to_owned() };
        assert!(
            installed.take(&Event::Status { prefix: plan.prefix(0), generation: 1, state: refused }).is_err()
        );
    }
}
