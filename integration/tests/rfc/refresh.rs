//! Route refresh. RFC 2918, RFC 7313.

use std::time::Duration;

use anyhow::{Result, ensure};

use crate::octets::*;
use crate::peer::{Peer, established};
use crate::runner::{Case, Site, case};
use crate::speaker::{Config, Speaker};

fn settled(site: &Site) -> Result<(Speaker, Peer)> {
    let speaker = Config::new().peer(2, 65002).start(site)?;
    let mut peer = established(site, 2, 65002)?;
    peer.until("both ends", |peer| peer.end_of_rib.len() == 2)?;
    Ok((speaker, peer))
}

/// A ROUTE-REFRESH that must do nothing.
fn ignored(site: &Site, body: &[u8]) -> Result<()> {
    let (_speaker, mut peer) = settled(site)?;
    let before = peer.updates;
    peer.send(&message(ROUTE_REFRESH, body))?;
    peer.listen_for(Duration::from_millis(500))?;
    ensure!(peer.updates == before, "something was sent");
    Ok(())
}

pub fn cases() -> Vec<Case> {
    vec![
        case("RFC 2918 §4: a refresh of IPv4 sends IPv4 again, and nothing else", |site| {
            let (_speaker, mut peer) = settled(site)?;
            peer.routes.clear();
            peer.send(&message(ROUTE_REFRESH, &[0, 1, 0, 1]))?;
            peer.route("10.244.1.0/24")?;
            peer.listen_for(Duration::from_millis(300))?;
            ensure!(!peer.has("fd00:10:244:1::/64"), "IPv6 came as well");
            Ok(())
        }),
        case("RFC 2918 §4: a refresh of IPv6", |site| {
            let (_speaker, mut peer) = settled(site)?;
            peer.routes.clear();
            peer.send(&message(ROUTE_REFRESH, &[0, 2, 0, 1]))?;
            peer.route("fd00:10:244:1::/64").map(|_| ())
        }),
        case("RFC 2918 §4: a refresh includes what was learned", |site| {
            let _speaker = Config::new().peer(2, 65002).peer(3, 65003).start(site)?;
            let mut watcher = established(site, 3, 65003)?;
            let mut peer = established(site, 2, 65002)?;
            peer.send(&update(
                &[],
                &[origin(0), as_path(&[65002]), next_hop(site.v4(2))],
                &nlri("198.51.100.0/24"),
            ))?;
            watcher.route("198.51.100.0/24")?;
            watcher.routes.clear();
            watcher.send(&message(ROUTE_REFRESH, &[0, 1, 0, 1]))?;
            watcher.route("198.51.100.0/24").map(|_| ())
        }),
        case("RFC 2918 §4: a refresh of an unknown family is ignored", |site| {
            ignored(site, &[0, 25, 0, 70])
        }),
        case("RFC 7313 §5: an unknown subtype is ignored", |site| ignored(site, &[0, 1, 9, 1])),
        case("RFC 4271 §6.1: a refresh that is too short", |site| {
            let (_speaker, mut peer) = settled(site)?;
            peer.send(&message(ROUTE_REFRESH, &[0, 1, 0]))?;
            let found = peer.expect_notification(1, 2)?;
            ensure!(found.data == [0, 22], "{:?}", found.data);
            Ok(())
        }),
        case("RFC 7313 §5: a begin of refresh of a wrong length", |site| {
            let (_speaker, mut peer) = settled(site)?;
            let octets = message(ROUTE_REFRESH, &[0, 1, 1, 1, 0]);
            peer.send(&octets)?;
            let found = peer.expect_notification(7, 1)?;
            ensure!(found.data == octets, "{:?}", found.data);
            Ok(())
        }),
        case("RFC 2918 §4: ten refreshes in a row", |site| {
            let (_speaker, mut peer) = settled(site)?;
            peer.routes.clear();
            peer.send(&message(ROUTE_REFRESH, &[0, 1, 0, 1]).repeat(10))?;
            peer.route("10.244.1.0/24")?;
            peer.listen_for(Duration::from_millis(500))
        }),
    ]
}
