//! Documents that change under a running node, and peers that misbehave: nobody else may notice.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use causeway_api::control::SessionState;
use causeway_integration::lab::Lab;
use causeway_integration::until::until;

use crate::fabric::CONVERGENCE;
use crate::feeder::{Feeder, KEEPALIVE, UPDATE, attributes, message, update};
use crate::scene::play;

/// Resets, UPDATEs received and UPDATEs sent of the three peers that are left alone.
fn bystanders(lab: &Lab) -> Result<Vec<(String, u64, u64, u64)>> {
    let peers = lab.peers("node")?;
    Ok(peers
        .into_iter()
        .filter(|peer| peer.peer != "192.0.2.6")
        .map(|peer| (peer.peer, peer.resets, peer.updates_received, peer.updates_sent))
        .collect())
}

/// Waits until the bystanders' sessions are up and have been quiet for two seconds, and returns their counters.
fn quiet(lab: &Lab) -> Result<Vec<(String, u64, u64, u64)>> {
    let mut last = (Instant::now(), Vec::new());
    until(CONVERGENCE, || {
        lab.all_but("node", "192.0.2.6")?;
        let now = bystanders(lab)?;
        if now != last.1 {
            last = (Instant::now(), now);
        }
        ensure!(last.0.elapsed() >= Duration::from_secs(2), "the first exchange still goes on: {:?}", last.1);
        Ok(last.1.clone())
    })
}

#[test]
fn a_change_touches_only_the_peer_it_concerns() {
    play("edge", |scene| {
        let lab = &scene.lab;
        let before = quiet(lab)?;
        let feeder = Feeder::connect(lab)?;
        until(Duration::from_secs(10), || lab.all_established("node"))?;
        let generation = |lab: &Lab| -> Result<u64> {
            Ok(lab.node_info("node")?.configuration.context("no configuration in force")?.generation)
        };
        let first = generation(lab)?;

        // Another hold time for the feeder's session needs a new session, that one alone.
        let file = scene.documents().join("peer-feeder.yaml");
        let text = std::fs::read_to_string(&file)?;
        std::fs::write(
            &file,
            text.replace("sourceAddress: None", "sourceAddress: None, holdTime: 30s, keepaliveTime: 10s"),
        )?;
        until(Duration::from_secs(15), || {
            ensure!(generation(lab)? > first, "the change is not in force");
            Ok(())
        })?;
        let codes = feeder.notification(Duration::from_secs(10))?;
        ensure!(codes.0 == 6, "the session was closed with {codes:?}, not with Cease");
        let again = Feeder::connect(lab)?;
        until(Duration::from_secs(10), || lab.all_established("node"))?;
        ensure!(bystanders(lab)? == before, "the others: {before:?} became {:?}", bystanders(lab)?);

        // A bad change is refused, told, and nothing happens.
        let second = generation(lab)?;
        let good = std::fs::read_to_string(&file)?;
        std::fs::write(&file, good.replace("asNumber: 65004", "asNumber: many"))?;
        until(Duration::from_secs(15), || {
            let refused =
                lab.node_info("node")?.configuration.and_then(|configuration| configuration.refused);
            let errors = refused.context("show node tells of no refused change")?.errors.join("\n");
            ensure!(errors.contains("peer-feeder.yaml"), "the error does not name the file: {errors}");
            Ok(())
        })?;
        ensure!(generation(lab)? == second, "a refused change is in force");
        ensure!(again.is_up() && bystanders(lab)? == before, "a refused change was felt");
        std::fs::write(&file, good)?;
        until(Duration::from_secs(15), || {
            let refused =
                lab.node_info("node")?.configuration.and_then(|configuration| configuration.refused);
            ensure!(refused.is_none(), "the refused change is mended and still told: {refused:?}");
            Ok(())
        })?;
        ensure!(again.is_up(), "mending a refused change to what is in force was felt");
        Ok(())
    });
}

#[test]
fn a_removed_peer_goes_and_a_new_block_is_advertised() {
    play("edge", |scene| {
        let lab = &scene.lab;
        until(CONVERGENCE, || lab.all_but("node", "192.0.2.6"))?;
        let node = scene.documents().join("node.yaml");
        let text = std::fs::read_to_string(&node)?;
        std::fs::write(&node, text.replace("podCIDRs: [", "podCIDRs: [10.244.2.0/24, "))?;
        until(Duration::from_secs(15), || {
            let routes = lab.text("frr", &["ip", "route", "show", "10.244.2.0/24"])?;
            ensure!(routes.contains("192.0.2.1"), "FRR's kernel has no new block: {routes}");
            Ok(())
        })?;
        std::fs::remove_file(scene.documents().join("peer-exabgp.yaml"))?;
        until(Duration::from_secs(15), || {
            let peers: Vec<String> = lab.peers("node")?.into_iter().map(|peer| peer.peer).collect();
            ensure!(!peers.contains(&"192.0.2.4".to_owned()), "the removed peer is still there: {peers:?}");
            let route = lab.kernel_route("node", "10.244.22.0/24")?;
            ensure!(route.is_null(), "the removed peer's route is still there: {route}");
            Ok(())
        })
    });
}

#[test]
fn a_peer_is_disabled_and_enabled_by_hand() {
    play("edge", |scene| {
        let lab = &scene.lab;
        let before = quiet(lab)?;
        let route_is_there = |there: bool| {
            let route = lab.kernel_route("node", "10.244.20.0/24")?;
            ensure!(route.is_null() != there, "10.244.20.0/24 should be there: {there}; {route}");
            Ok(())
        };
        lab.text("node", &["causeway", "peer", "disable", "192.0.2.0"])?;
        until(Duration::from_secs(2), || route_is_there(false))?;
        let peer = lab.peer("node", "192.0.2.0")?;
        ensure!(peer.disabled && peer.state == SessionState::Idle, "{peer:?}");
        lab.text("node", &["causeway", "peer", "enable", "192.0.2.0"])?;
        until(CONVERGENCE, || route_is_there(true))?;
        let resets = |rows: Vec<(String, u64, u64, u64)>| -> Vec<(String, u64)> {
            rows.into_iter().filter(|row| row.0 != "192.0.2.0").map(|row| (row.0, row.1)).collect()
        };
        ensure!(resets(bystanders(lab)?) == resets(before), "another session fell");
        Ok(())
    });
}

#[test]
fn malformed_input_disturbs_nobody_else() {
    play("edge", |scene| {
        let lab = &scene.lab;
        let before = quiet(lab)?;
        let prefix = [(Ipv4Addr::new(10, 244, 66, 0), 24)];
        let has_route = |there: bool| {
            let route = lab.kernel_route("node", "10.244.66.0/24")?;
            ensure!(route.is_null() != there, "10.244.66.0/24 should be there: {there}; {route}");
            Ok(())
        };

        // RFC 7606 7.1: a bad ORIGIN is treated as withdrawal, and the session goes on.
        let mut feeder = Feeder::connect(lab)?;
        feeder.announce(&prefix)?;
        until(Duration::from_secs(5), || has_route(true))?;
        let mut bad_origin = attributes(&[65004]);
        bad_origin[3] = 9;
        feeder.send(&message(UPDATE, &update(&bad_origin, &prefix)))?;
        until(Duration::from_secs(5), || has_route(false))?;
        feeder.announce(&prefix)?;
        until(Duration::from_secs(5), || has_route(true))?;
        ensure!(feeder.is_up(), "a bad ORIGIN ended the session");
        drop(feeder);

        // RFC 4271 6.1 and 6.3: what cannot be delimited ends the session with the right codes.
        let mut bad_marker = message(KEEPALIVE, &[]);
        bad_marker[3] = 0;
        let mut short = message(KEEPALIVE, &[]);
        short[17] = 18;
        let mut overlong = update(&attributes(&[65004]), &prefix);
        overlong[2] = 0xff;
        for (octets, codes) in [
            (bad_marker, (1, 1)),
            (short, (1, 2)),
            (message(9, &[]), (1, 3)),
            (message(UPDATE, &overlong), (3, 1)),
        ] {
            let mut feeder = Feeder::connect(lab)?;
            feeder.send(&octets)?;
            let got = feeder.notification(Duration::from_secs(5))?;
            ensure!(got == codes, "expected NOTIFICATION {codes:?}, got {got:?}");
        }
        let after: Vec<_> = bystanders(lab)?
            .into_iter()
            .map(|(peer, resets, received, _)| (peer, resets, received))
            .collect();
        let before: Vec<_> =
            before.into_iter().map(|(peer, resets, received, _)| (peer, resets, received)).collect();
        ensure!(after == before, "the others: {before:?} became {after:?}");
        Ok(())
    });
}
