//! A daemon with nothing to do: what it uses all the same. Not pure.

use std::time::{Duration, Instant};

use anyhow::Result;

use crate::measure::Run;
use crate::measured::Outcome;
use crate::scenario::Idle;
use crate::usage;

/// Time to take in what was fed.
const DIGEST: Duration = Duration::from_secs(5);

/// Feeds, waits, and watches.
///
/// # Errors
/// Where sessions or the daemon break.
pub fn run(run: &mut Run, load: Idle) -> Result<Outcome> {
    run.bring_up()?;
    for feeder in 0..run.workload.feeders {
        run.fleet.send(feeder, run.workload.feed(feeder).into())?;
    }
    run.fleet.until(Instant::now() + DIGEST, |_| false)?;
    let pid = run.daemon.pid();
    run.start_clock()?;
    let before = usage::fine_cpu(pid)?;
    let end = run.begin + Duration::from_secs_f64(load.seconds);
    run.fleet.until(end, |_| false)?;
    let used = usage::fine_cpu(pid)?.saturating_sub(before).as_secs_f64();
    run.stop_clock(Some(end))?;
    let resident = usage::of(pid)?.resident as f64 / 1024.0;
    let more = &mut run.result().more;
    more.insert("CPU %".to_owned(), used / load.seconds * 100.0);
    more.insert("resident MiB".to_owned(), resident);
    if run.fleet.broken > 0 {
        return Ok(Outcome::Wrong("a session broke".to_owned()));
    }
    // Nobody is to receive anything.
    run.verdict(None)
}
