//! A next hop is lost, and another path is there: how long until the last route goes the other way. Not pure.

use std::time::Instant;

use anyhow::Result;
use causeway_api::fib::{Event, NextHop, NextHopState};

use super::feed::{self, Feed};
use super::job::{Figures, Step};
use super::measure::Site;
use super::message;
use super::netlink::Netlink;
use super::peer::{self, Peer};
use super::plan::{SPEAKER, SPEAKER_TOO};
use super::process::{Causeway, Speaker, Used};
use super::watch;

/// The link of the next hop loses its carrier, or is set down. This tool is bgpd.
///
/// # Errors
/// Where not all routes are moved.
pub fn link(site: &Site<'_>, figures: &mut Figures) -> Result<()> {
    let causeway = Causeway::start(site.folder, site.binaries, false)?;
    link_of(site, figures, &causeway).map_err(|error| causeway.explain(error))
}

fn link_of(site: &Site<'_>, figures: &mut Figures, causeway: &Causeway) -> Result<()> {
    let plan = site.job.plan();
    let [first, second] = [plan.router(0), plan.router(1)];
    let mut feed = Feed::connect(&causeway.run_dir, site.deadline)?;
    let register = [first, second]
        .map(|address| causeway_api::fib::Command::NextHopRegister { next_hop: NextHop::global(address) });
    feed.send(&register, site.deadline)?;
    let octets = feed.snapshot(&plan, &feed::group(1, &[first], &[second]));
    feed.install(&plan, &octets, site.deadline)?;
    let mut netlink = Netlink::open()?;
    watch::all_over(&mut netlink, &plan, site.node.links[0], site.deadline)?;

    let before = causeway.used()?;
    let begin = lose(site)?;
    // bgpd hears of it as well, and then says so.
    let (links, deadline) = (site.node.links, site.deadline);
    let watch = std::thread::spawn(move || watch::all_over(&mut netlink, &plan, links[1], deadline));
    while !watch.is_finished() {
        let mut lost = false;
        feed.read(|event| {
            lost |= matches!(event, Event::NextHopState { next_hop, state: NextHopState::Unreachable }
                if next_hop.address == first);
        })?;
        if lost {
            feed.send(&[feed::group(1, &[second], &[])], site.deadline)?;
        }
        std::thread::sleep(std::time::Duration::from_micros(500));
    }
    let (moved, read) = watch.join().map_err(|_| anyhow::anyhow!("watching the kernel failed"))??;
    conclude(figures, begin, moved, read, before, causeway.used()?);
    Ok(())
}

/// Takes the first link away; when the kernel held it for lost.
fn lose(site: &Site<'_>) -> Result<Instant> {
    let mut listener = Netlink::listen_to_links()?;
    let (near, far) = (site.node.links[0], site.node.far_links[0]);
    let down = |netlink: &mut Netlink, link: u32| {
        netlink.command("setting a link down", |out, sequence| {
            message::set_link(out, sequence, link, false);
        })
    };
    let begin = Instant::now();
    match site.job.step {
        Step::Carrier => down(&mut site.node.far(Netlink::open)?, far)?,
        _ => {
            down(&mut Netlink::open()?, near)?;
            return Ok(begin);
        }
    }
    // The kernel may take a second to notice, and only then can anybody else.
    listener.wait_for_loss(near, site.deadline)
}

/// Two peers announce the same; the connection of the better one is closed.
///
/// # Errors
/// Where not all routes are moved.
pub fn session(site: &Site<'_>, figures: &mut Figures) -> Result<()> {
    let speaker = site.speaker()?;
    session_of(site, figures, speaker.as_ref()).map_err(|error| speaker.explain(error))
}

fn session_of(site: &Site<'_>, figures: &mut Figures, speaker: &dyn Speaker) -> Result<()> {
    let plan = site.job.plan();
    let mut second = Peer::connect(site.node, 1, SPEAKER_TOO, site.deadline)?;
    let mut first = Peer::connect(site.node, 0, SPEAKER, site.deadline)?;
    let mut netlink = Netlink::open()?;
    // So that no peer's routes wait behind the other's.
    second.send(&peer::announcement(&plan, 1))?;
    watch::all_over(&mut netlink, &plan, site.node.links[1], site.deadline)?;
    first.send(&peer::announcement(&plan, 0))?;
    watch::all_over(&mut netlink, &plan, site.node.links[0], site.deadline)?;

    let (before, writer) = (speaker.used()?, speaker.writer_cpu()?);
    let begin = Instant::now();
    first.close()?;
    let (moved, read) = watch::all_over(&mut netlink, &plan, site.node.links[1], site.deadline)?;
    figures.set("of it the writer's", speaker.writer_cpu()? - writer);
    conclude(figures, begin, moved, read, before, speaker.used()?);
    Ok(())
}

fn conclude(figures: &mut Figures, begin: Instant, moved: Instant, read: Instant, before: Used, after: Used) {
    figures.set("seconds", (moved - begin).as_secs_f64());
    figures.set("seconds until all were read back", (read - begin).as_secs_f64());
    figures.set("CPU seconds", after.cpu - before.cpu);
}
