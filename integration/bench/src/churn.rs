//! Changes at a steady rate, and how long each takes to each client. Not pure.

use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::addresses;
use crate::latency::{FIRST_CHANGE, Latencies};
use crate::measure::Run;
use crate::measured::Outcome;
use crate::scenario::Churn;
use crate::wire::{self, Attributes};
use crate::workload::Want;

/// How long stragglers may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Feeds, lets it settle, changes one prefix after the other, and waits until all is there.
///
/// # Errors
/// Where sessions or the daemon break.
pub fn run(run: &mut Run, load: Churn) -> Result<Outcome> {
    let changes = (load.rate as f64 * load.seconds) as usize;
    run.bring_up()?;
    run.fleet.send(0, run.workload.feed(0).into())?;
    if !run.fleet.until(run.deadline, |fleet| fleet.tables.completed().is_some())? {
        return run.verdict(Some(format!("before the changes: {}", run.fleet.tables.progress())));
    }
    run.changes = (0..changes).map(|change| (0, attributes(run, change))).collect();
    let messages: Vec<Rc<[u8]>> = run
        .changes
        .iter()
        .enumerate()
        .map(|(change, (_, attributes))| {
            let network = addresses::network(change % load.prefixes);
            wire::announce(&wire::attributes(attributes), std::iter::once(network)).into()
        })
        .collect();
    let mut last = run.workload.wanted();
    for change in 0..changes {
        last[change % load.prefixes] = Want { tag: tag(change), source: 0 };
    }
    run.fleet.tables.expect(last);
    run.start_clock()?;
    let begin = Instant::now();
    let latencies = Latencies::new(load.clients, load.prefixes, changes, begin);
    run.fleet.tables.latencies = Some(latencies);
    for (change, message) in messages.into_iter().enumerate() {
        let due = begin + Duration::from_secs_f64(change as f64 / load.rate as f64);
        loop {
            let now = Instant::now();
            if now >= due {
                break;
            }
            // Epoll counts in milliseconds: the rest is waited for awake.
            let whole = Duration::from_millis((due - now).as_millis() as u64);
            run.fleet.step(whole)?;
        }
        if let Some(latencies) = &mut run.fleet.tables.latencies {
            latencies.send(Instant::now());
        }
        run.fleet.send(0, message)?;
    }
    let complete = run.fleet.until(Instant::now() + PATIENCE, |fleet| fleet.tables.completed().is_some())?;
    run.stop_clock(run.fleet.tables.completed())?;
    let summary = run.fleet.tables.latencies.take().map(|latencies| latencies.summary().into());
    run.result().latency = summary;
    let progress = run.fleet.tables.progress();
    run.verdict((!complete).then_some(progress))
}

fn tag(change: usize) -> u32 {
    FIRST_CHANGE + change as u32
}

fn attributes(run: &Run, change: usize) -> Attributes {
    let mut attributes = run.workload.attributes(0, change % run.workload.sets);
    attributes.as_path = vec![1000 + (change % 20_000) as u32, tag(change)];
    attributes
}
