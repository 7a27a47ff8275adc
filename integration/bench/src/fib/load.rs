//! Routes into an empty kernel, by a bare loop, by fib-sync and by BIRD; and from the UPDATE to the kernel. Not pure.

use std::net::IpAddr;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;

use super::feed::{self, Feed};
use super::flap::CHECKS;
use super::job::{Figures, Subject};
use super::measure::Site;
use super::message::{self, PROTOCOL, Way};
use super::netlink::{BATCH, Netlink};
use super::peer::{self, Peer};
use super::plan::{Plan, SPEAKER};
use super::process::{Causeway, Speaker, Used};
use super::routers::Bird;
use super::watch;

const OBJECT: u32 = 1;

/// Routes into an empty kernel.
///
/// # Errors
/// Where they do not all get there.
pub fn load(site: &Site<'_>, figures: &mut Figures) -> Result<()> {
    match site.job.subject {
        Subject::Loop => bare(site, figures, false),
        Subject::LoopObject => bare(site, figures, true),
        Subject::Causeway => causeway(site, figures),
        Subject::Bird => bird(site, figures),
        Subject::Frr => bail!("zebra gets routes from no table that can be filled before"),
    }?;
    check(site)
}

/// From the first UPDATE to the last route in the kernel.
///
/// # Errors
/// Where they do not all get there.
pub fn wire(site: &Site<'_>, figures: &mut Figures) -> Result<()> {
    let speaker = site.speaker()?;
    announce(site, figures, speaker.as_ref()).map_err(|error| speaker.explain(error))?;
    check(site)
}

fn bare(site: &Site<'_>, figures: &mut Figures, by_object: bool) -> Result<()> {
    let plan = site.job.plan();
    let mut netlink = Netlink::open()?;
    let (router, link) = (plan.router(0), site.node.links[0]);
    let way = if by_object { object(&mut netlink, router, link)? } else { Way::Router(router, link) };
    let batches = batches(&plan, way);
    let cpu = own_cpu()?;
    let begin = Instant::now();
    write(&mut netlink, &batches)?;
    let seconds = begin.elapsed().as_secs_f64();
    figures.set_rates(seconds, own_cpu()? - cpu);
    Ok(())
}

/// Makes a nexthop object.
///
/// # Errors
/// Where the kernel refuses.
pub fn object(netlink: &mut Netlink, router: IpAddr, link: u32) -> Result<Way> {
    netlink.command("a nexthop object", |out, sequence| {
        message::new_object(out, sequence, OBJECT, router, link);
    })?;
    Ok(Way::Object(OBJECT))
}

/// Writes messages from [`batches`].
///
/// # Errors
/// Where the kernel refuses one.
pub fn write(netlink: &mut Netlink, batches: &[Vec<u8>]) -> Result<()> {
    let mut refused = 0;
    for batch in batches {
        refused += netlink.write(batch)?;
    }
    ensure!(refused == 0, "the kernel refused {refused} routes");
    Ok(())
}

/// Messages for all routes, in pieces that are sent at once.
#[must_use]
pub fn batches(plan: &Plan, way: Way) -> Vec<Vec<u8>> {
    let mut batches = Vec::new();
    let mut batch = Vec::with_capacity(BATCH);
    for number in 0..plan.routes {
        message::new_route(&mut batch, number as u32 + 1, &plan.prefix(number), way, PROTOCOL);
        if batch.len() > BATCH - 256 {
            batches.push(std::mem::replace(&mut batch, Vec::with_capacity(BATCH)));
        }
    }
    batches.push(batch);
    batches.retain(|batch| !batch.is_empty());
    batches
}

fn causeway(site: &Site<'_>, figures: &mut Figures) -> Result<()> {
    let plan = site.job.plan();
    let causeway = Causeway::start(site.folder, site.binaries, false)?;
    let mut feed = Feed::connect(&causeway.run_dir, site.deadline)?;
    let octets = feed.snapshot(&plan, &feed::group(1, &[plan.router(0)], &[]));
    let (before, checks) = (causeway.used()?, causeway.metric(CHECKS)?);
    let begin = Instant::now();
    feed.install(&plan, &octets, site.deadline).map_err(|error| causeway.explain(error))?;
    let seconds = begin.elapsed().as_secs_f64();
    conclude(figures, seconds, before, causeway.used()?);
    figures.set("checks meanwhile", causeway.metric(CHECKS)? - checks);
    Ok(())
}

/// The table is there by BGP before the clock starts, and so what is measured is the kernel protocol alone.
fn bird(site: &Site<'_>, figures: &mut Figures) -> Result<()> {
    let plan = site.job.plan();
    let bird = Bird::start(site.folder, false)?;
    let empty = bird.used()?;
    let mut peer = Peer::connect(site.node, 0, SPEAKER, site.deadline)?;
    peer.send(&peer::announcement(&plan, 0))?;
    bird.wait_for_routes(plan.routes, site.deadline)?;
    let watch = watch::last_route(plan, site.deadline)?;
    let before = bird.used()?;
    let begin = Instant::now();
    bird.enable_kernel()?;
    let end = joined(watch).map_err(|error| bird.explain(error))?;
    let after = bird.used()?;
    conclude(figures, (end - begin).as_secs_f64(), Used { resident: empty.resident, ..before }, after);
    Ok(())
}

fn announce(site: &Site<'_>, figures: &mut Figures, speaker: &dyn Speaker) -> Result<()> {
    let plan = site.job.plan();
    let octets = peer::announcement(&plan, 0);
    let mut peer = Peer::connect(site.node, 0, SPEAKER, site.deadline)?;
    let watch = watch::last_route(plan, site.deadline)?;
    let (before, writer) = (speaker.used()?, speaker.writer_cpu()?);
    let begin = Instant::now();
    peer.send(&octets)?;
    let end = joined(watch)?;
    figures.set("of it the writer's", speaker.writer_cpu()? - writer);
    conclude(figures, (end - begin).as_secs_f64(), before, speaker.used()?);
    Ok(())
}

fn joined(watch: std::thread::JoinHandle<Result<Instant>>) -> Result<Instant> {
    watch.join().map_err(|_| anyhow::anyhow!("watching the kernel failed"))?
}

fn conclude(figures: &mut Figures, seconds: f64, before: Used, after: Used) {
    figures.set_rates(seconds, after.cpu - before.cpu);
    figures.set("bytes a route", (after.resident - before.resident) / figures.job.routes as f64);
}

/// Every route is where it should be.
fn check(site: &Site<'_>) -> Result<()> {
    let plan = site.job.plan();
    let found = watch::over(&mut Netlink::open()?, &plan, site.node.links[0])?;
    ensure!(found == plan.routes, "{found} of {} routes are in the kernel as they should be", plan.routes);
    Ok(())
}

/// CPU seconds of this process.
///
/// # Errors
/// Where the kernel does not say.
pub fn own_cpu() -> Result<f64> {
    let usage = getrusage(UsageWho::RUSAGE_SELF).context("what this process used")?;
    Ok((usage.user_time().num_microseconds() + usage.system_time().num_microseconds()) as f64 / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fib::plan::Family;

    #[test]
    fn batches_hold_every_route_once() {
        let plan = Plan { family: Family::V4, routes: 3000 };
        let batches = batches(&plan, Way::Object(1));
        let counts: Vec<usize> = batches.iter().map(|batch| message::split(batch).count()).collect();
        assert_eq!(counts.iter().sum::<usize>(), 3000);
        assert!(batches.len() > 1 && batches.iter().all(|batch| batch.len() <= BATCH), "{counts:?}");
    }
}
