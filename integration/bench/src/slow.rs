//! One client that reads slowly and one that stops reading: what they cost the others, and what becomes of them. Not pure.

use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::addresses;
use crate::latency::FIRST_CHANGE;
use crate::measure::Run;
use crate::measured::Outcome;
use crate::place;
use crate::scenario::Slow;
use crate::session::Reading;
use crate::wire::{self, Attributes};
use crate::workload::Want;

/// Length of the paths: much to send with little to decide.
const PATH: usize = 100;
/// How long the client that stopped reading is watched.
const WATCH: Duration = Duration::from_secs(100);
/// Time between changes while it is watched.
const PAUSE: Duration = Duration::from_secs(1);
/// Time in which a session with the hold time of this scenario needs a keepalive.
const KEEPALIVE: Duration = Duration::from_secs(5);

/// Rounds with all reading, rounds with the two that do not, changes until the stuck one is dropped, and then the slow one reads on.
///
/// # Errors
/// Where sessions or the daemon break.
pub fn run(run: &mut Run, load: Slow) -> Result<Outcome> {
    let (slow, stuck) = (load.clients - 2, load.clients - 1);
    run.fleet.keepalive_time = KEEPALIVE;
    run.bring_up()?;
    // The first round is the first announcement of all, and not counted.
    let mut round = 0;
    let mut next = |run: &mut Run| {
        round += 1;
        one_round(run, load, round)
    };
    if !next(run)? {
        return incomplete(run, "at first");
    }
    let begin = Instant::now();
    for _ in 0..load.rounds {
        if !next(run)? {
            return incomplete(run, "with all reading");
        }
    }
    let without = begin.elapsed().as_secs_f64();
    for (peer, reading) in [(slow, Reading::Slow), (stuck, Reading::Never)] {
        run.fleet.set_reading(peer, reading)?;
        run.fleet.tables.ignore(peer, true);
    }
    run.start_clock()?;
    for _ in 0..load.rounds {
        if !next(run)? {
            return incomplete(run, "with two that do not read");
        }
    }
    run.stop_clock(run.fleet.tables.completed())?;
    let begin = run.begin;
    let address = run.workload.peers[stuck].address;
    let mut dropped = None;
    while dropped.is_none() && begin.elapsed() < WATCH {
        if !next(run)? {
            return incomplete(run, "while the stuck client is watched");
        }
        run.fleet.until(Instant::now() + PAUSE, |_| false)?;
        dropped = (!place::has_session(address)).then(|| begin.elapsed().as_secs_f64());
    }
    run.fleet.reconnect = true;
    run.fleet.set_reading(slow, Reading::Prompt)?;
    run.fleet.tables.ignore(slow, false);
    let patience = Instant::now() + Duration::from_secs(30);
    let caught_up = run.fleet.until(patience, |fleet| fleet.tables.completed().is_some())?;
    let result = run.result();
    result.more.insert("all reading, s".to_owned(), without);
    if let Some(seconds) = dropped {
        result.more.insert("stuck client dropped after, s".to_owned(), seconds);
    }
    let progress = format!("the slow client never caught up: {}", run.fleet.tables.progress());
    run.verdict((!caught_up).then_some(progress))
}

fn incomplete(run: &mut Run, when: &str) -> Result<Outcome> {
    run.stop_clock(None)?;
    let progress = format!("{when}: {}", run.fleet.tables.progress());
    run.verdict(Some(progress))
}

/// Changes every prefix and waits until all that count have it; false where they have not by the deadline.
fn one_round(run: &mut Run, load: Slow, round: usize) -> Result<bool> {
    let first = run.changes.len();
    let mut octets = Vec::new();
    let mut wanted = Vec::with_capacity(load.prefixes);
    for prefix in 0..load.prefixes {
        let tag = FIRST_CHANGE + (first + prefix) as u32;
        let mut as_path = vec![1000 + round as u32; PATH];
        as_path.push(tag);
        let attributes = Attributes { as_path, ..run.workload.attributes(0, prefix) };
        let network = addresses::network(prefix);
        octets.extend_from_slice(&wire::announce(&wire::attributes(&attributes), std::iter::once(network)));
        wanted.push(Want { tag, source: 0 });
        run.changes.push((0, attributes));
    }
    run.fleet.tables.expect(wanted);
    run.fleet.send(0, Rc::from(octets))?;
    let deadline = Instant::now() + Duration::from_secs(60);
    run.fleet.until(deadline, |fleet| fleet.tables.completed().is_some())
}
