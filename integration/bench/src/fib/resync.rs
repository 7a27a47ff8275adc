//! A full check of many routes that finds nothing wrong: how long it takes beside a dump and nothing else, and how long a change
//! waits that comes meanwhile. Not pure.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use causeway_api::fib::{Command, Event, RouteState};

use super::feed::{self, Feed};
use super::flap::{CHECKS, WRITES, settle};
use super::job::Figures;
use super::measure::Site;
use super::message::{self, PROTOCOL, Way};
use super::netlink::Netlink;
use super::plan::{Family, Plan};
use super::process::{self, Causeway, Speaker};
use crate::usage;

/// Changes while a check goes on, one at a time.
const EVERY: Duration = Duration::from_millis(10);
/// How many checks there are of each kind.
const TIMES: usize = 3;
/// Routes of somebody else that are made so that fib-sync looks.
const FOREIGN: &str = "10.99.0.0/16";

/// Lets fib-sync check.
///
/// # Errors
/// Where it does not, or writes.
pub fn run(site: &Site<'_>, figures: &mut Figures) -> Result<()> {
    let causeway = Causeway::start(site.folder, site.binaries, false)?;
    checks(site, figures, &causeway).map_err(|error| causeway.explain(error))
}

fn checks(site: &Site<'_>, figures: &mut Figures, causeway: &Causeway) -> Result<()> {
    let plan = site.job.plan();
    let mut feed = Feed::connect(&causeway.run_dir, site.deadline)?;
    let octets = feed.snapshot(&plan, &feed::group(1, &[plan.router(0)], &[]));
    feed.install(&plan, &octets, site.deadline)?;
    drop(octets);
    let mut netlink = Netlink::open()?;
    let (mut dumps, mut walls, mut cpus, mut worsts) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..TIMES {
        dumps.push(raw_dump(&mut netlink, &plan)?);
    }
    let writes = causeway.metric(WRITES)?;
    for _ in 0..TIMES {
        settle(causeway, site.deadline)?;
        let cpu = usage::cpu(causeway.fib_sync.pid())?;
        let before = causeway.metric(CHECKS)?;
        let begin = disturb(site, &mut netlink, true)?;
        process::wait_beyond(&causeway.run_dir, CHECKS, before, site.deadline)?;
        walls.push(begin.elapsed().as_secs_f64());
        cpus.push(usage::cpu(causeway.fib_sync.pid())?.saturating_sub(cpu).as_secs_f64());
        settle(causeway, site.deadline)?;
        disturb(site, &mut netlink, false)?;
    }
    settle(causeway, site.deadline)?;
    let written = causeway.metric(WRITES)? - writes;
    for _ in 0..TIMES {
        worsts.push(changes(site, causeway, &mut feed, &mut netlink)?);
        disturb(site, &mut netlink, false)?;
        settle(causeway, site.deadline)?;
    }
    let middle = |mut all: Vec<f64>| {
        all.sort_by(f64::total_cmp);
        all[all.len() / 2]
    };
    let worst = worsts.iter().copied().fold(0.0, f64::max);
    let (dump, wall) = (middle(dumps), middle(walls));
    figures.set("seconds", wall);
    figures.set("CPU seconds", middle(cpus));
    figures.set("seconds of a raw dump", dump);
    figures.set("raw dumps", wall / dump);
    figures.set("writes", written);
    figures.set("worst ms of a change meanwhile", worst * 1e3);
    Ok(())
}

fn raw_dump(netlink: &mut Netlink, plan: &Plan) -> Result<f64> {
    let mut found = 0;
    let begin = Instant::now();
    netlink.dump(plan.family == Family::V6, |seen| found += usize::from(seen.protocol > 4))?;
    let seconds = begin.elapsed().as_secs_f64();
    ensure!(found >= plan.routes, "{found} of {} routes are in the kernel", plan.routes);
    Ok(seconds)
}

/// Makes a route of somebody else, or deletes it: the kernel tells fib-sync, which has to look.
fn disturb(site: &Site<'_>, netlink: &mut Netlink, there: bool) -> Result<Instant> {
    let prefix = FOREIGN.parse()?;
    let router = Plan { family: Family::V4, routes: 1 }.router(0);
    let way = Way::Router(router, site.node.links[0]);
    let begin = Instant::now();
    netlink.command("a route of somebody else", |out, sequence| match there {
        true => message::new_route(out, sequence, &prefix, way, PROTOCOL),
        false => message::delete_route(out, sequence, &prefix, PROTOCOL),
    })?;
    Ok(begin)
}

/// Changes a route every 10 ms until a check is over; the longest time until one was said to be installed.
fn changes(site: &Site<'_>, causeway: &Causeway, feed: &mut Feed, netlink: &mut Netlink) -> Result<f64> {
    let (plan, run_dir, deadline) = (site.job.plan(), causeway.run_dir.clone(), site.deadline);
    feed.send(&[feed::group(2, &[plan.router(1)], &[])], deadline)?;
    let mut worst = 0_f64;
    let before = causeway.metric(CHECKS)?;
    disturb(site, netlink, true)?;
    let asking = std::thread::spawn(move || process::wait_beyond(&run_dir, CHECKS, before, deadline));
    let (mut number, mut next) = (0, Instant::now());
    loop {
        let over = asking.is_finished();
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
        let generation = feed.next_generation();
        // Each takes another router than it had.
        let prefix = plan.prefix(number * 7919 % plan.routes);
        let command = Command::Route { prefix, group: 2, generation };
        number += 1;
        let begin = Instant::now();
        feed.exchange(&feed::encode(&[command]), deadline, |event| {
            Ok(matches!(event, Event::Status { prefix: about, generation: of, state: RouteState::Installed { .. } }
                if *about == prefix && *of == generation))
        })?;
        worst = worst.max(begin.elapsed().as_secs_f64());
        next = begin + EVERY;
        if over {
            break;
        }
    }
    asking.join().map_err(|_| anyhow::anyhow!("asking for the metrics failed"))??;
    // All back to where they were, so that the next time they change again.
    let restore: Vec<Command> = (0..number)
        .map(|number| Command::Route {
            prefix: plan.prefix(number * 7919 % plan.routes),
            group: 1,
            generation: feed.next_generation(),
        })
        .collect();
    feed.send(&restore, deadline)?;
    Ok(worst)
}
