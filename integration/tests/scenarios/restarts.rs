//! Crashes: the kernel's routes stay, the fabric carries packets all the while, and what is stale in the end goes.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use causeway_integration::lab::Lab;
use causeway_integration::until::until;
use nix::sys::signal::Signal;

use crate::fabric::{self, CONVERGENCE};
use crate::peer_views::{Router, frr_view};
use crate::scene::play;

/// Pods on `node-a1` and `node-b1`, each with the other's address, per family.
fn streams(lab: &Lab) -> Result<Vec<(&'static str, IpAddr)>> {
    let here = lab.add_pod("node-a1", "here")?.addresses();
    let there = lab.add_pod("node-b1", "there")?.addresses();
    let pairs: Vec<(&str, IpAddr)> =
        there.into_iter().map(|to| ("here", to)).chain(here.into_iter().map(|to| ("there", to))).collect();
    for (from, to) in &pairs {
        until(CONVERGENCE, || lab.ping(from, *to))?;
    }
    Ok(pairs)
}

/// The stage of every crash: two racks, converged, with pings running both ways in both families.
fn no_ping_lost_while(daemons: &'static [&'static str]) {
    play("two-racks", |scene| {
        let lab = &scene.lab;
        fabric::converged(lab)?;
        let pairs = streams(lab)?;
        let tor = Router { name: "tor-a", asn: 65101, ipv4: "172.16.1.0", ipv6: "fd00:16:1::" };
        fabric::no_ping_is_lost(lab, &pairs, || {
            fabric::crash_and_restart(lab, "node-a1", daemons)?;
            until(CONVERGENCE, || lab.all_established("node-a1"))?;
            // The end of the restart: nothing is stale on either side, and every route is confirmed.
            until(CONVERGENCE, || {
                let rows = lab.routes("node-a1", "best")?;
                let remote: Vec<_> = rows.iter().filter(|row| row.peer.is_some()).collect();
                ensure!(remote.len() == 6, "three nodes with two blocks each, not {}", remote.len());
                for row in remote {
                    ensure!(
                        !row.stale && row.fib == "installed",
                        "{} is {} (stale: {})",
                        row.prefix,
                        row.fib,
                        row.stale
                    );
                }
                let (received, _) = frr_view(lab, &tor, "172.16.1.1")?;
                ensure!(received.len() == 2, "the ToR has {received:?} of node-a1");
                Ok(())
            })
        })?;
        fabric::converged(lab)
    });
}

#[test]
fn no_ping_is_lost_when_bgpd_crashes_and_comes_back() {
    no_ping_lost_while(&["bgpd"]);
}

#[test]
fn no_ping_is_lost_when_fib_sync_crashes_and_comes_back() {
    no_ping_lost_while(&["fib-sync"]);
}

#[test]
fn no_ping_is_lost_when_both_crash_and_come_back() {
    no_ping_lost_while(&["bgpd", "fib-sync"]);
}

#[test]
fn a_bgpd_that_starts_with_an_empty_table_wipes_nothing() {
    play("two-racks", |scene| {
        let lab = &scene.lab;
        fabric::converged(lab)?;
        let pairs = streams(lab)?;
        let before = prefixes(lab)?;
        fabric::no_ping_is_lost(lab, &pairs, || {
            lab.stop("node-a1", "bgpd", Signal::SIGKILL)?;
            // Its peer is not to be had: nothing reaches port 179 from now on.
            let rules = "add table inet t; add chain inet t i { type filter hook input priority 0; }; \
                         add rule inet t i tcp sport 179 drop; add rule inet t i tcp dport 179 drop";
            lab.text("node-a1", &["nft", rules])?;
            lab.start("node-a1", "bgpd")?;
            until(CONVERGENCE, || {
                let fed = lab.fib("node-a1").context("fib-sync answers")?;
                ensure!(!fed.is_empty(), "fib-sync forgot what it had");
                let peers = lab.peers("node-a1")?;
                ensure!(!peers.is_empty(), "bgpd has no peers yet");
                Ok(())
            })?;
            // Three seconds of pings across the fabric, with a table that stays empty.
            for _ in 0..3 {
                let (from, to) = pairs[0];
                lab.text(from, &["ping", "-n", "-q", "-c", "100", "-i", "0.01", &to.to_string()])?;
                let now = prefixes(lab)?;
                ensure!(now == before, "the kernel had {before:?} and has {now:?}");
            }
            lab.text("node-a1", &["nft", "delete table inet t"])?;
            until(CONVERGENCE, || lab.all_established("node-a1"))
        })?;
        until(Duration::from_secs(10), || {
            let now = prefixes(lab)?;
            ensure!(now == before, "the kernel had {before:?} and has {now:?}");
            Ok(())
        })
    });
}

/// Destinations of our routes in node-a1's kernel, sorted.
fn prefixes(lab: &Lab) -> Result<Vec<String>> {
    let mut found: Vec<String> = lab
        .kernel_routes("node-a1")?
        .iter()
        .filter_map(|route| route["dst"].as_str().map(str::to_owned))
        .collect();
    found.sort();
    Ok(found)
}
