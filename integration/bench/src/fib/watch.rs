//! Watching the kernel's table fill, without a listener, which would halve the rate. Not pure.
//!
//! A sentinel, the route that is sent last, is looked up every millisecond; when it is there the kernel's own count of its table
//! tells whether it really was the last, and is asked again until all are there where it was not.

use std::fs;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::netlink::Netlink;
use super::plan::{Family, Plan};

/// Pause between two look-ups.
const LOOK: Duration = Duration::from_millis(1);
/// Pause between two counts, at least.
const COUNT: Duration = Duration::from_millis(10);

/// How many routes this thread's network namespace has, of all tables.
///
/// # Errors
/// Where the kernel does not say.
pub fn count(family: Family) -> Result<usize> {
    let file = match family {
        Family::V4 => "fib_triestat",
        Family::V6 => "rt6_stats",
    };
    let text = fs::read_to_string(format!("/proc/thread-self/net/{file}")).context(file)?;
    match family {
        Family::V4 => prefixes(&text),
        Family::V6 => entries(&text),
    }
    .with_context(|| format!("{file} as it has always been"))
}

/// The prefixes of the largest trie: those of the tables are one as long as there are no rules.
fn prefixes(text: &str) -> Option<usize> {
    let counts = text.lines().filter_map(|line| line.trim().strip_prefix("Prefixes:"));
    counts.filter_map(|count| count.trim().parse().ok()).max()
}

/// The fourth number, all of them hexadecimal.
fn entries(text: &str) -> Option<usize> {
    usize::from_str_radix(text.split_whitespace().nth(3)?, 16).ok()
}

/// Watches from a thread of its own; what it gives is when the last route was there.
///
/// # Errors
/// Where a socket cannot be opened.
pub fn last_route(plan: Plan, deadline: Instant) -> Result<JoinHandle<Result<Instant>>> {
    let before = count(plan.family)?;
    let mut netlink = Netlink::open()?;
    let sentinel = plan.inside(plan.routes - 1);
    Ok(std::thread::spawn(move || {
        while netlink.link_to(sentinel)?.is_none() {
            if Instant::now() >= deadline {
                let there = count(plan.family)?.saturating_sub(before);
                bail!("{there} of {} routes in the kernel", plan.routes);
            }
            std::thread::sleep(LOOK);
        }
        let mut seen = Instant::now();
        loop {
            let asked = Instant::now();
            let there = count(plan.family)?.saturating_sub(before);
            if there >= plan.routes {
                return Ok(seen);
            }
            ensure!(asked < deadline, "{there} of {} routes in the kernel", plan.routes);
            // What counting costs is not to slow down what is counted.
            std::thread::sleep(COUNT.max(asked.elapsed() * 3));
            seen = Instant::now();
        }
    }))
}

/// How many routes of a plan lead over this link, as the kernel shows them.
///
/// # Errors
/// Where the kernel does not answer.
pub fn over(netlink: &mut Netlink, plan: &Plan, link: u32) -> Result<usize> {
    let mut found = 0;
    netlink.dump(plan.family == Family::V6, |seen| {
        let own = seen.destination.is_some_and(|prefix| plan.number(&prefix).is_some());
        found += usize::from(own && seen.link == link);
    })?;
    Ok(found)
}

/// Waits until all routes of a plan lead over this link: when samples did that are looked up every millisecond, and when all
/// had been read after that and did.
///
/// # Errors
/// Where they do not in time.
pub fn all_over(
    netlink: &mut Netlink,
    plan: &Plan,
    link: u32,
    deadline: Instant,
) -> Result<(Instant, Instant)> {
    let samples = plan.samples();
    loop {
        let mut right = true;
        for number in &samples {
            right &= netlink.link_to(plan.inside(*number))? == Some(link);
        }
        let seen = Instant::now();
        if right {
            let found = over(netlink, plan, link)?;
            if found == plan.routes {
                return Ok((seen, Instant::now()));
            }
        }
        if seen >= deadline {
            let found = over(netlink, plan, link)?;
            bail!("{found} of {} routes lead where they should", plan.routes);
        }
        std::thread::sleep(LOOK);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_counts_are_read() {
        let text = "Basic info:\nMain:\n\tLeaves: 3\n\tPrefixes:       5\nLocal:\n\tPrefixes:       2\n";
        assert_eq!(prefixes(text), Some(5));
        assert_eq!(entries("0001 0002 0003 000a 0005 0006 0007\n"), Some(10));
        assert_eq!((prefixes("nothing"), entries("zz")), (None, None));
    }

    #[test]
    fn this_machine_counts() {
        for family in [Family::V4, Family::V6] {
            assert!(count(family).is_ok());
        }
    }
}
