//! One route comes and goes a thousand times a second among few and among many: what that costs. Not pure.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use causeway_api::fib::{Command, Event, RouteState};
use ipnetwork::IpNetwork;

use super::feed::{self, Feed};
use super::job::{Figures, Subject};
use super::load;
use super::measure::Site;
use super::message::{self, PROTOCOL};
use super::netlink::Netlink;
use super::plan::Plan;
use super::process::{Causeway, Speaker};
use crate::{place, usage};

/// Half a flap: the route goes, or comes.
const CHANGE: Duration = Duration::from_micros(500);
/// How long an answer is waited for beyond that: a change that overtakes another costs nothing, and how many do is chance.
const LATE: Duration = Duration::from_millis(5);
/// How long fib-sync has for itself before.
const SETTLE: Duration = Duration::from_secs(2);
/// How long the last change may take.
const LAST: Duration = Duration::from_secs(10);

/// Lets one route flap, and asks what fib-sync used for it.
///
/// # Errors
/// Where fib-sync does not follow.
pub fn run(site: &Site<'_>, figures: &mut Figures) -> Result<()> {
    if site.job.subject == Subject::LoopObject {
        return bare(site, figures);
    }
    // On one core: what it takes to wake a thread on another one is more than the rest, and differs from one second to the next.
    place::pin(&[0])?;
    let causeway = Causeway::start(site.folder, site.binaries, false)?;
    place::pin(&[1])?;
    flaps(site, figures, &causeway).map_err(|error| causeway.explain(error))
}

/// The same in a loop that only writes: what the kernel takes, which is more among many routes.
fn bare(site: &Site<'_>, figures: &mut Figures) -> Result<()> {
    let plan = site.job.plan();
    let mut netlink = Netlink::open()?;
    let way = load::object(&mut netlink, plan.router(0), site.node.links[0])?;
    load::write(&mut netlink, &load::batches(&plan, way))?;
    let prefix = beyond(&plan);
    let (mut there, mut gone) = (Vec::new(), Vec::new());
    message::new_route(&mut there, 1, &prefix, way, PROTOCOL);
    message::delete_route(&mut gone, 2, &prefix, PROTOCOL);
    let mut flaps = 0;
    let cpu = load::own_cpu()?;
    let begin = Instant::now();
    let end = begin + Duration::from_secs(site.job.seconds.max(1));
    let mut next = begin;
    while next < end {
        for message in [&there, &gone] {
            std::thread::sleep(next.saturating_duration_since(Instant::now()));
            next += CHANGE;
            load::write(&mut netlink, std::slice::from_ref(message))?;
        }
        flaps += 1;
    }
    figures.set("flaps a second", f64::from(flaps) / begin.elapsed().as_secs_f64());
    figures.set("CPU microseconds a flap", (load::own_cpu()? - cpu) * 1e6 / f64::from(flaps));
    figures.set("writes a flap", 2.0);
    Ok(())
}

/// A prefix beyond the plan, so that the others stay.
fn beyond(plan: &Plan) -> IpNetwork {
    Plan { routes: plan.routes + 1, ..*plan }.prefix(plan.routes)
}

fn flaps(site: &Site<'_>, figures: &mut Figures, causeway: &Causeway) -> Result<()> {
    let plan = site.job.plan();
    let mut feed = Feed::connect(&causeway.run_dir, site.deadline)?;
    let octets = feed.snapshot(&plan, &feed::group(1, &[plan.router(0)], &[]));
    feed.install(&plan, &octets, site.deadline)?;
    drop(octets);
    settle(causeway, site.deadline)?;

    let prefix = beyond(&plan);
    let (mut changes, mut last) = (0_u64, 0);
    let mut answers = Answers { prefix, told: 0, newest: 0 };
    let mut is_there = false;
    let (writes, checks) = (causeway.metric(WRITES)?, causeway.metric(CHECKS)?);
    let cpu = usage::cpu(causeway.fib_sync.pid())?;
    let begin = Instant::now();
    let end = begin + Duration::from_secs(site.job.seconds.max(1));
    let mut next = begin;
    while next < end {
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
        last = feed.next_generation();
        let command = match is_there {
            true => Command::Withdraw { prefix, generation: last },
            false => Command::Route { prefix, group: 1, generation: last },
        };
        is_there = !is_there;
        feed.send(&[command], site.deadline)?;
        changes += 1;
        next = (next + CHANGE).max(Instant::now());
        feed.until(next + LATE, |event| Ok(answers.take(event) >= last))?;
    }
    let took = begin.elapsed();
    if answers.newest < last {
        let deadline = site.deadline.min(Instant::now() + LAST);
        feed.exchange(&[], deadline, |event| Ok(answers.take(event) >= last)).context("the last change")?;
    }
    let cpu = usage::cpu(causeway.fib_sync.pid())?.saturating_sub(cpu);
    let flaps = changes as f64 / 2.0;
    ensure!(flaps > 0.0, "no flap");
    figures.set("flaps a second", flaps / took.as_secs_f64());
    figures.set("CPU microseconds a flap", cpu.as_secs_f64() * 1e6 / flaps);
    figures.set("writes a flap", (causeway.metric(WRITES)? - writes) / flaps);
    figures.set("answers a flap", answers.told as f64 / flaps);
    figures.set("checks meanwhile", causeway.metric(CHECKS)? - checks);
    Ok(())
}

/// What was said of the route that flaps.
struct Answers {
    prefix: IpNetwork,
    told: u64,
    /// The newest change that is known to be done.
    newest: u64,
}

impl Answers {
    /// Counts; the newest change that is done.
    fn take(&mut self, event: &Event) -> u64 {
        if let Event::Status { prefix, generation, state } = event
            && *prefix == self.prefix
        {
            self.told += 1;
            if matches!(state, RouteState::Installed { .. } | RouteState::Removed) {
                self.newest = self.newest.max(*generation);
            }
        }
        self.newest
    }
}

/// Changes of routes that fib-sync wrote to the kernel.
pub const WRITES: &str = "causeway_fib_netlink_changes_total";
/// Full checks that fib-sync has done.
pub const CHECKS: &str = "causeway_fib_netlink_dumps_total{outcome=\"ok\"}";

/// Waits until fib-sync uses no CPU time to speak of.
///
/// # Errors
/// Where it is never at rest.
pub fn settle(causeway: &Causeway, deadline: Instant) -> Result<()> {
    let step = SETTLE / 10;
    let mut quiet = 0;
    let mut cpu = usage::cpu(causeway.fib_sync.pid())?;
    while quiet < 10 {
        ensure!(Instant::now() < deadline, "fib-sync is never at rest");
        std::thread::sleep(step);
        let now = usage::cpu(causeway.fib_sync.pid())?;
        quiet = if now.saturating_sub(cpu) < step / 50 { quiet + 1 } else { 0 };
        cpu = now;
    }
    Ok(())
}
