//! fib-sync killed at random moments while 10,000 routes come and go: in the end the kernel has what it is to have, what is not ours
//! is as it was, and nothing of ours stays behind.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use causeway_integration::lab::Lab;
use causeway_integration::until::until;
use fastrand::Rng;
use nix::sys::signal::Signal;

use crate::fabric::CONVERGENCE;
use crate::feeder::{Feeder, UPDATE, internal_attributes, message, update, withdrawal};
use crate::scene::play;

/// Routes that come and go: /30s, half of them in each of two pools.
const ROUTES: u32 = 10_000;

/// Times fib-sync is killed where `CAUSEWAY_KILLS` does not say.
const KILLS: u32 = 20;

/// How long a tunnel device may outlive the last document that asks for it.
const GONE: Duration = Duration::from_secs(90);

/// The feeder's addresses, and the link each is behind.
const NEXT_HOPS: [(Ipv4Addr, &str); 3] =
    [(Ipv4Addr::new(192, 0, 2, 6), "eth1"), (Ipv4Addr::new(192, 0, 2, 2), "eth2"), (FAR, "eth3")];

/// The next hop that is a node.
const FAR: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 4);

/// Where each route leads, by its number.
type Table = BTreeMap<u32, Ipv4Addr>;

fn prefix(number: u32) -> Ipv4Addr {
    let pool =
        if number.is_multiple_of(2) { Ipv4Addr::new(10, 244, 128, 0) } else { Ipv4Addr::new(10, 245, 0, 0) };
    Ipv4Addr::from(u32::from(pool) + number / 2 * 4)
}

/// Destination and way of a route as `ip route` has it.
fn wanted(number: u32, next_hop: Ipv4Addr) -> (String, String) {
    let link = NEXT_HOPS.iter().find(|(address, _)| *address == next_hop).map_or("", |(_, link)| link);
    let way = if number % 2 == 1 && next_hop == FAR {
        "dev causeway-vxlan".to_owned()
    } else {
        format!("via {next_hop} dev {link}")
    };
    (format!("{}/30", prefix(number)), way)
}

/// Ours in the main table but for the node's own block, as [`wanted`] has them.
fn kernel(lab: &Lab) -> Result<BTreeMap<String, String>> {
    let text = lab.text("node", &["ip", "-4", "route", "show", "proto", "179"])?;
    let mut table = BTreeMap::new();
    for line in text.lines().filter(|line| !line.starts_with("unreachable ")) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let after = |key: &str| {
            let at = words.iter().position(|word| *word == key)?;
            words.get(at + 1).copied()
        };
        let device = after("dev").with_context(|| format!("a route without a device: {line}"))?;
        let gateway = after("inet6").or(after("via")).unwrap_or("nothing");
        let way = if device == "causeway-vxlan" {
            format!("dev {device}")
        } else {
            format!("via {gateway} dev {device}")
        };
        let old = table.insert(words[0].to_owned(), way);
        ensure!(old.is_none(), "{} is there twice", words[0]);
    }
    Ok(table)
}

/// Announces and withdraws at random until it is told to stop; returns what is announced then.
fn churn(feeder: &mut Feeder, rng: &mut Rng, stop: &AtomicBool, changes: &AtomicUsize) -> Result<Table> {
    let mut table = Table::new();
    let all: Vec<u32> = (0..ROUTES).collect();
    announce(feeder, rng, &mut table, &all)?;
    while !stop.load(Ordering::Relaxed) {
        let some: Vec<u32> = (0..rng.u32(1..=150)).map(|_| rng.u32(..ROUTES)).collect();
        changes.fetch_add(some.len(), Ordering::Relaxed);
        if rng.u8(..3) == 0 {
            let prefixes: Vec<(Ipv4Addr, u8)> = some.iter().map(|number| (prefix(*number), 30)).collect();
            feeder.send(&message(UPDATE, &withdrawal(&prefixes)))?;
            table.retain(|number, _| !some.contains(number));
        } else {
            announce(feeder, rng, &mut table, &some)?;
        }
        // The rate of the churn.
        std::thread::sleep(Duration::from_millis(rng.u64(1..20)));
    }
    Ok(table)
}

fn announce(feeder: &mut Feeder, rng: &mut Rng, table: &mut Table, numbers: &[u32]) -> Result<()> {
    for chunk in numbers.chunks(150) {
        let (next_hop, _) = NEXT_HOPS[rng.usize(..NEXT_HOPS.len())];
        let prefixes: Vec<(Ipv4Addr, u8)> = chunk.iter().map(|number| (prefix(*number), 30)).collect();
        feeder.send(&message(UPDATE, &update(&internal_attributes(next_hop), &prefixes)))?;
        table.extend(chunk.iter().map(|number| (*number, next_hop)));
    }
    Ok(())
}

/// What somebody else put into the node's kernel, some of it where ours goes.
const FOREIGN: &str = "route add 10.250.0.0/16 via 192.0.2.2 proto static
route add 10.244.255.252/30 via 192.0.2.2 proto static metric 1790
nexthop add id 7 via 192.0.2.2 dev eth2 proto static
nexthop add id 8 group 7 proto static
route add 10.251.0.0/16 nhid 8 proto static
neighbor add 192.0.2.200 lladdr 02:00:00:00:00:01 dev eth2 nud permanent
link add vx9 type vxlan id 9 dstport 4790 local 192.0.2.7 nolearning
link set vx9 up
neighbor add 10.252.0.1 lladdr 02:00:00:00:00:02 dev vx9 nud permanent
route add 10.252.0.0/16 dev vx9 proto static
";

/// Everything in the node's kernel that is not ours.
fn foreign(lab: &Lab) -> Result<Vec<String>> {
    let mut all = Vec::new();
    let questions: [&[&str]; 6] = [
        &["ip", "-4", "route", "show", "table", "all"],
        &["ip", "-6", "route", "show", "table", "all"],
        &["ip", "nexthop", "show"],
        &["ip", "neighbor", "show", "nud", "permanent"],
        &["bridge", "fdb", "show"],
        &["ip", "rule", "show"],
    ];
    for argv in questions {
        let text = lab.text("node", argv)?;
        let ours = |line: &&str| line.contains("proto 179") || line.contains("causeway-");
        all.extend(text.lines().filter(|line| !ours(line)).map(|line| line.trim().to_owned()));
    }
    all.sort();
    Ok(all)
}

/// Lines about ours in the kernel but the node's own block.
fn left_behind(lab: &Lab) -> Result<Vec<String>> {
    let mut left = Vec::new();
    let questions: [&[&str]; 5] = [
        &["ip", "-4", "route", "show", "table", "all"],
        &["ip", "nexthop", "show"],
        &["ip", "neighbor", "show", "nud", "permanent"],
        &["bridge", "fdb", "show"],
        &["ip", "-o", "link", "show"],
    ];
    for argv in questions {
        let text = lab.text("node", argv)?;
        let ours = |line: &&str| line.contains("proto 179") || line.contains("causeway-");
        let own = |line: &&str| line.starts_with("unreachable 10.244.1.0/24");
        left.extend(text.lines().filter(ours).filter(|line| !own(line)).map(str::to_owned));
    }
    Ok(left)
}

#[test]
fn killed_at_random_moments_it_leaves_what_is_wanted_and_nothing_else() {
    play("churn", |scene| {
        let lab = &scene.lab;
        let kills = match std::env::var("CAUSEWAY_KILLS") {
            Ok(text) => text.parse().context("CAUSEWAY_KILLS")?,
            Err(_) => KILLS,
        };
        let seed = fastrand::u64(..);
        println!("seed {seed}, {kills} kills");
        let mut rng = Rng::with_seed(seed);
        let done = lab.run("node", &["ip", "-batch", "-"], Some(FOREIGN.as_bytes()))?;
        ensure!(done.status.success(), "{}", done.stderr);
        until(CONVERGENCE, || {
            let links = lab.text("node", &["ip", "-o", "link", "show", "causeway-vxlan"])?;
            ensure!(!links.is_empty(), "no tunnel device");
            Ok(())
        })?;
        let before = foreign(lab)?;

        let mut feeder = Feeder::connect_as(lab, 64512)?;
        let (stop, changes) = (AtomicBool::new(false), AtomicUsize::new(0));
        let table = std::thread::scope(|scope| {
            let mut churning = rng.fork();
            let (feeder, stop, changes) = (&mut feeder, &stop, &changes);
            let churner = scope.spawn(move || churn(feeder, &mut churning, stop, changes));
            let killed = (0..kills).try_for_each(|_| {
                // The moment is what is random here: nothing is waited for.
                let longest = if rng.bool() { 600 } else { 60 };
                std::thread::sleep(Duration::from_millis(rng.u64(..longest)));
                lab.stop("node", "fib-sync", Signal::SIGKILL)?;
                lab.start("node", "fib-sync")
            });
            stop.store(true, Ordering::Relaxed);
            let table = churner.join().unwrap_or_else(|_| anyhow::bail!("the churn panicked"));
            killed?;
            table
        })?;
        let start = Instant::now();
        let wanted: BTreeMap<String, String> =
            table.iter().map(|(number, next_hop)| wanted(*number, *next_hop)).collect();
        until(CONVERGENCE, || {
            let kernel = kernel(lab)?;
            let wrong: Vec<_> = wanted.iter().filter(|(to, way)| kernel.get(*to) != Some(way)).collect();
            let extra: Vec<_> = kernel.iter().filter(|(to, _)| !wanted.contains_key(*to)).collect();
            ensure!(
                wrong.is_empty() && extra.is_empty(),
                "of {} routes {} are wrong or missing ({:?}; the kernel has {:?}), {} are too many ({:?})",
                wanted.len(),
                wrong.len(),
                wrong.first(),
                wrong.first().map(|(to, _)| kernel.get(*to)),
                extra.len(),
                extra.first()
            );
            Ok(())
        })?;
        println!(
            "{} changes; {} routes right {:?} after the last start",
            changes.load(Ordering::Relaxed),
            wanted.len(),
            start.elapsed()
        );
        ensure!(feeder.is_up(), "the session fell");
        let after = foreign(lab)?;
        ensure!(after == before, "what is not ours was {before:?} and is {after:?}");

        // The peer goes, and with the document the last tunnel: nothing is left but the block.
        drop(feeder);
        std::fs::remove_file(scene.documents().join("far.yaml"))?;
        until(GONE, || {
            let left = left_behind(lab)?;
            ensure!(left.is_empty(), "{} are left: {:?}", left.len(), left.first());
            Ok(())
        })?;
        let after = foreign(lab)?;
        ensure!(after == before, "what is not ours was {before:?} and is {after:?}");
        Ok(())
    });
}
