//! Graceful restart, as the helper of a restarting peer and as the restarting speaker. RFC 4724.

use std::time::Duration;

use anyhow::{Result, ensure};
use causeway_bgp_wire::{Capability, Family, GracefulRestart, Open};

use crate::octets::*;
use crate::peer::{Peer, established, open_of};
use crate::runner::{Case, Site, case};
use crate::speaker::{Config, Speaker};

const FIRST: &str = "198.51.100.0/24";
const SECOND: &str = "203.0.113.0/24";

/// The OPEN of a peer with graceful restart for IPv4.
fn open(site: &Site, restart_state: bool, restart_time: u16, forwarding: bool) -> Open {
    let mut open = open_of(site, 2, 65002);
    open.capabilities.push(Capability::GracefulRestart(GracefulRestart {
        restart_state,
        notification: false,
        restart_time,
        families: vec![(Family::Ipv4Unicast.into(), forwarding)],
    }));
    open
}

fn announce(site: &Site, prefix: &str) -> Vec<u8> {
    update(&[], &[origin(0), as_path(&[65002]), next_hop(site.v4(2))], &nlri(prefix))
}

const END_OF_RIB: &[u8] = &[0, 0, 0, 0];

/// A peer that has announced both prefixes, and a watcher that has them.
fn before(site: &Site, open: &Open) -> Result<(Speaker, Peer, Peer)> {
    let speaker = Config::new().peer(2, 65002).peer(3, 65003).start(site)?;
    let mut watcher = established(site, 3, 65003)?;
    let mut peer = Peer::connect(site, 2)?;
    peer.establish(open)?;
    peer.send(&[announce(site, FIRST), announce(site, SECOND), message(UPDATE, END_OF_RIB)].concat())?;
    watcher.route(FIRST)?;
    watcher.route(SECOND)?;
    // Its own first sending may come after them.
    watcher.until("both ends", |watcher| watcher.end_of_rib.len() == 2)?;
    Ok((speaker, peer, watcher))
}

/// Comes back, also while the speaker still holds the peer off.
fn back(site: &Site, open: &Open) -> Result<Peer> {
    let until = std::time::Instant::now() + Duration::from_secs(12);
    loop {
        let attempt = Peer::connect(site, 2).and_then(|mut peer| peer.establish(open).map(|_| peer));
        match attempt {
            Ok(peer) => return Ok(peer),
            Err(error) if std::time::Instant::now() > until => return Err(error),
            Err(_) => std::thread::sleep(Duration::from_millis(100)),
        }
    }
}

fn stay(watcher: &mut Peer, time: u64) -> Result<()> {
    watcher.listen_for(Duration::from_millis(time))?;
    ensure!(watcher.has(FIRST) && watcher.has(SECOND), "withdrawn: {:?}", watcher.routes.keys());
    Ok(())
}

pub fn cases() -> Vec<Case> {
    vec![
        case("RFC 4724 §4.2: paths stay when the TCP connection falls", |site| {
            let (_speaker, peer, mut watcher) = before(site, &open(site, false, 60, true))?;
            drop(peer);
            stay(&mut watcher, 2000)
        }),
        case("RFC 4724 §4.2: paths go when the restart time has run out", |site| {
            let (_speaker, peer, mut watcher) = before(site, &open(site, false, 2, true))?;
            drop(peer);
            stay(&mut watcher, 800)?;
            watcher.withdrawn(FIRST)?;
            watcher.withdrawn(SECOND)
        }),
        case("RFC 4724 §4.2: what was not announced again goes at End-of-RIB", |site| {
            let (_speaker, peer, mut watcher) = before(site, &open(site, false, 60, true))?;
            drop(peer);
            let mut peer = back(site, &open(site, true, 60, true))?;
            peer.send(&announce(site, FIRST))?;
            stay(&mut watcher, 500)?;
            peer.send(&message(UPDATE, END_OF_RIB))?;
            watcher.withdrawn(SECOND)?;
            ensure!(watcher.has(FIRST), "the one announced again went too");
            Ok(())
        }),
        case("RFC 4724 §4.2: what is announced again as it was is not advertised again", |site| {
            let (_speaker, peer, mut watcher) = before(site, &open(site, false, 60, true))?;
            drop(peer);
            let mut peer = back(site, &open(site, true, 60, true))?;
            let updates = watcher.updates;
            peer.send(
                &[announce(site, FIRST), announce(site, SECOND), message(UPDATE, END_OF_RIB)].concat(),
            )?;
            stay(&mut watcher, 700)?;
            ensure!(watcher.updates == updates, "{} UPDATEs", watcher.updates - updates);
            Ok(())
        }),
        case("RFC 4724 §4.2: paths go at once if the peer comes back without the F bit", |site| {
            let (_speaker, peer, mut watcher) = before(site, &open(site, false, 60, true))?;
            drop(peer);
            let _peer = back(site, &open(site, true, 60, false))?;
            watcher.withdrawn(FIRST)?;
            watcher.withdrawn(SECOND)
        }),
        case("RFC 4724 §4.2: paths go at once if the peer comes back without the capability", |site| {
            let (_speaker, peer, mut watcher) = before(site, &open(site, false, 60, true))?;
            drop(peer);
            let _peer = back(site, &open_of(site, 2, 65002))?;
            watcher.withdrawn(FIRST)?;
            watcher.withdrawn(SECOND)
        }),
        case("RFC 4724 §4.2: without the capability paths go with the connection", |site| {
            let (_speaker, peer, mut watcher) = before(site, &open_of(site, 2, 65002))?;
            drop(peer);
            watcher.withdrawn(FIRST)?;
            watcher.withdrawn(SECOND)
        }),
        case("RFC 4724 §4: a NOTIFICATION of the peer ends it for good", |site| {
            let (_speaker, mut peer, mut watcher) = before(site, &open(site, false, 60, true))?;
            peer.send(&message(NOTIFICATION, &[6, 2]))?;
            watcher.withdrawn(FIRST)?;
            watcher.withdrawn(SECOND)
        }),
        case("RFC 4724 §4: a NOTIFICATION to the peer ends it for good", |site| {
            let (_speaker, mut peer, mut watcher) = before(site, &open(site, false, 60, true))?;
            peer.send(&message(UPDATE, &[0, 9, 0, 0]))?;
            peer.expect_error(3)?;
            watcher.withdrawn(FIRST)
        }),
        case("DESIGN §2: the hold timer running out withdraws at once", |site| {
            let mut short = open(site, false, 60, true);
            short.hold_time = 3;
            let (_speaker, peer, mut watcher) = before(site, &short)?;
            watcher.withdrawn(FIRST)?;
            drop(peer);
            Ok(())
        }),
        case("DESIGN §3: maxRestartTime 0s turns it off", |site| {
            let fields = "passive: true, maxRestartTime: 0s";
            let _speaker = Config::new().peer_with(2, 65002, fields).peer(3, 65003).start(site)?;
            let mut watcher = established(site, 3, 65003)?;
            let mut peer = Peer::connect(site, 2)?;
            peer.establish(&open(site, false, 60, true))?;
            peer.send(&announce(site, FIRST))?;
            watcher.route(FIRST)?;
            drop(peer);
            watcher.withdrawn(FIRST)
        }),
        case("RFC 4724 §4.2: a new connection of a restarting peer replaces the old one", |site| {
            let (_speaker, old, mut watcher) = before(site, &open(site, false, 60, true))?;
            let mut peer = back(site, &open(site, true, 60, true))?;
            peer.send(
                &[announce(site, FIRST), announce(site, SECOND), message(UPDATE, END_OF_RIB)].concat(),
            )?;
            stay(&mut watcher, 700)?;
            drop(old);
            Ok(())
        }),
        case("RFC 4724 §4.1: after a kill the Restart State bit is set", |site| {
            let mut speaker = Config::new().peer(2, 65002).start(site)?;
            drop(established(site, 2, 65002)?);
            speaker.kill()?;
            speaker.launch(site)?;
            let open = Peer::connect(site, 2)?.expect_open()?;
            ensure!(
                open.graceful_restart().is_some_and(|g| g.restart_state),
                "{:?}",
                open.graceful_restart()
            );
            Ok(())
        }),
        case("RFC 4724 §4.1: a restarted speaker sends End-of-RIB once its peers have", |site| {
            let mut speaker = Config::new().peer(2, 65002).start(site)?;
            let mut peer = Peer::connect(site, 2)?;
            peer.establish(&open(site, false, 60, true))?;
            peer.until("an UPDATE", |peer| peer.updates > 0)?;
            speaker.kill()?;
            speaker.launch(site)?;
            let mut peer = back(site, &open(site, false, 60, true))?;
            peer.send(&message(UPDATE, END_OF_RIB))?;
            peer.send(&update(&[], &[mp_unreach(&[])], &[]))?;
            peer.until("End-of-RIB", |peer| peer.end_of_rib.contains(Family::Ipv4Unicast))
        }),
        case("RFC 4724 §4.2: what is stale still goes when the connection falls again", |site| {
            let (_speaker, peer, mut watcher) = before(site, &open(site, false, 60, true))?;
            drop(peer);
            let mut peer = back(site, &open(site, true, 60, true))?;
            peer.send(&announce(site, FIRST))?;
            stay(&mut watcher, 400)?;
            drop(peer);
            watcher.withdrawn(SECOND)?;
            watcher.listen_for(Duration::from_millis(500))?;
            ensure!(watcher.has(FIRST), "what was announced again went too");
            Ok(())
        }),
        case("RFC 4724 §4.2: a family that is not in the capability any more goes at once", |site| {
            let (_speaker, peer, mut watcher) = before(site, &open(site, false, 60, true))?;
            drop(peer);
            let mut without = open_of(site, 2, 65002);
            without.capabilities.push(Capability::GracefulRestart(GracefulRestart {
                restart_state: true,
                notification: false,
                restart_time: 60,
                families: vec![(Family::Ipv6Unicast.into(), true)],
            }));
            let _peer = back(site, &without)?;
            watcher.withdrawn(FIRST)?;
            watcher.withdrawn(SECOND)
        }),
        case("RFC 4724 §4.2: End-of-RIB of one family leaves the stale paths of the other", |site| {
            let (_speaker, peer, mut watcher) = before(site, &open(site, false, 60, true))?;
            drop(peer);
            let mut peer = back(site, &open(site, true, 60, true))?;
            peer.send(&update(&[], &[mp_unreach(&[])], &[]))?;
            stay(&mut watcher, 700)?;
            peer.send(&message(UPDATE, END_OF_RIB))?;
            watcher.withdrawn(FIRST)
        }),
        case("RFC 4724 §4.2: a restart time of zero keeps nothing", |site| {
            let (_speaker, peer, mut watcher) = before(site, &open(site, false, 0, true))?;
            drop(peer);
            watcher.withdrawn(FIRST)
        }),
        case("RFC 4724 §4.2: a stale path loses to nobody just for being stale", |site| {
            let config = Config::new().peer(2, 65002).peer(3, 65003).peer(4, 65004);
            let _speaker = config.start(site)?;
            let mut watcher = established(site, 3, 65003)?;
            let mut other = established(site, 4, 65004)?;
            let mut peer = Peer::connect(site, 2)?;
            peer.establish(&open(site, false, 60, true))?;
            peer.send(&announce(site, FIRST))?;
            watcher.route(FIRST)?;
            let longer = [origin(0), as_path(&[65004, 7]), next_hop(site.v4(4))];
            other.send(&update(&[], &longer, &nlri(FIRST)))?;
            watcher.listen_for(Duration::from_millis(300))?;
            drop(peer);
            watcher.listen_for(Duration::from_millis(500))?;
            let path = watcher.route(FIRST)?.as_path.to_string();
            ensure!(path == "65001 65002", "{path}");
            Ok(())
        }),
        case(
            "RFC 4724 §4.1: a restarted speaker says nothing of a family before End-of-RIB of those it waits for",
            |site| {
                let mut speaker = Config::new().peer(2, 65002).start(site)?;
                let mut peer = Peer::connect(site, 2)?;
                peer.establish(&open(site, false, 60, true))?;
                peer.until("an UPDATE", |peer| peer.updates > 0)?;
                speaker.kill()?;
                speaker.launch(site)?;
                let mut peer = back(site, &open(site, false, 60, true))?;
                peer.listen_for(Duration::from_millis(800))?;
                ensure!(!peer.end_of_rib.contains(Family::Ipv4Unicast), "End-of-RIB came first");
                peer.send(&message(UPDATE, END_OF_RIB))?;
                peer.send(&update(&[], &[mp_unreach(&[])], &[]))?;
                peer.until("End-of-RIB", |peer| peer.end_of_rib.contains(Family::Ipv4Unicast))
            },
        ),
        case("RFC 4724 §4.1: a restarted speaker does not wait for a peer that restarted as well", |site| {
            let mut speaker = Config::new().peer(2, 65002).start(site)?;
            drop(established(site, 2, 65002)?);
            speaker.kill()?;
            speaker.launch(site)?;
            let mut peer = back(site, &open(site, true, 60, true))?;
            peer.until("End-of-RIB", |peer| peer.end_of_rib.contains(Family::Ipv4Unicast))
        }),
        case("RFC 4724 §4.1: a restarted speaker does not wait for a peer without the capability", |site| {
            let mut speaker = Config::new().peer(2, 65002).start(site)?;
            drop(established(site, 2, 65002)?);
            speaker.kill()?;
            speaker.launch(site)?;
            let mut peer = back(site, &open_of(site, 2, 65002))?;
            peer.until("End-of-RIB", |peer| peer.end_of_rib.contains(Family::Ipv4Unicast))
        }),
    ]
}
