//! Whatever is sent, the speaker stays, and so do the sessions of others. RFC 4271 §6, RFC 7606 §6.

use std::time::Duration;

use anyhow::{Result, ensure};

use crate::octets::*;
use crate::peer::{Peer, established};
use crate::runner::{Case, Site, case};
use crate::speaker::Config;

/// After something was done to one peer's sessions, another's session carries routes and the process lives.
fn survives(site: &Site, attack: impl Fn(&Site) -> Result<()>) -> Result<()> {
    let config = Config::new().peer(2, 65002).peer(3, 65003).peer(4, 65004);
    let mut speaker = config.start(site)?;
    let mut good = established(site, 3, 65003)?;
    let mut watcher = established(site, 4, 65004)?;
    attack(site)?;
    good.send(&update(&[], &[origin(0), as_path(&[65003]), next_hop(site.v4(3))], &nlri("203.0.113.0/24")))?;
    watcher.route("203.0.113.0/24")?;
    ensure!(speaker.is_running(), "it is gone: {}", speaker.log());
    ensure!(!speaker.log().contains("panicked"), "it panicked: {}", speaker.log());
    Ok(())
}

/// Connects from the attacked peer, if the speaker will have it at the moment.
fn attacker(site: &Site) -> Option<Peer> {
    established(site, 2, 65002).ok()
}

pub fn cases() -> Vec<Case> {
    vec![
        case("RFC 4271 §6: random octets instead of an OPEN", |site| {
            survives(site, |site| {
                let mut random = fastrand::Rng::with_seed(1);
                for _ in 0..20 {
                    if let Ok(mut peer) = Peer::connect(site, 2) {
                        let octets: Vec<u8> = (0..random.usize(1..400)).map(|_| random.u8(..)).collect();
                        peer.send(&octets)?;
                    }
                }
                Ok(())
            })
        }),
        case("RFC 4271 §6: random bodies of every type", |site| {
            survives(site, |site| {
                let mut random = fastrand::Rng::with_seed(2);
                for _ in 0..10 {
                    let Some(mut peer) = attacker(site) else { continue };
                    let body: Vec<u8> = (0..random.usize(4..300)).map(|_| random.u8(..)).collect();
                    peer.send(&message(random.u8(1..6), &body))?;
                }
                Ok(())
            })
        }),
        case("RFC 7606: a thousand mutations of an UPDATE", |site| {
            survives(site, |site| {
                let mut random = fastrand::Rng::with_seed(3);
                let attributes = [
                    origin(0),
                    as_path(&[65002, 7]),
                    next_hop(site.v4(2)),
                    med(1),
                    communities(&[1, 2]),
                    attribute(0xc0, 7, &[0, 0, 0, 1, 1, 1, 1, 1]),
                    attribute(0xc0, 32, &[1; 24]),
                    attribute(0xc0, 99, &[1, 2, 3]),
                ];
                let good = update(&nlri("198.18.0.0/15"), &attributes, &nlri("198.51.100.0/24"));
                let mut peer = attacker(site);
                for _ in 0..1000 {
                    let mut octets = good.clone();
                    for _ in 0..random.usize(1..4) {
                        let at = random.usize(19..octets.len());
                        octets[at] = random.u8(..);
                    }
                    let Some(session) = peer.as_mut() else { break };
                    session.send(&octets)?;
                    if session.listen_for(Duration::from_millis(1)).is_err() {
                        peer = attacker(site);
                    }
                }
                Ok(())
            })
        }),
        case("RFC 4271 §8: fifty connections that say nothing", |site| {
            survives(site, |site| {
                let silent: Vec<_> = (0..50).filter_map(|_| Peer::connect(site, 2).ok()).collect();
                std::thread::sleep(Duration::from_millis(300));
                drop(silent);
                Ok(())
            })
        }),
        case("RFC 4271 §8: connections closed in the middle of a message", |site| {
            survives(site, |site| {
                let octets = update(
                    &[],
                    &[origin(0), as_path(&[65002]), next_hop(site.v4(2))],
                    &nlri("198.51.100.0/24"),
                );
                for end in [1, 16, 18, 19, 23, octets.len() - 1] {
                    if let Some(mut peer) = attacker(site) {
                        peer.send(&octets[..end])?;
                    }
                }
                Ok(())
            })
        }),
        case("RFC 4271 §8: sessions that come and go thirty times", |site| {
            survives(site, |site| {
                for _ in 0..30 {
                    drop(attacker(site));
                }
                Ok(())
            })
        }),
        case("RFC 4271 §9.2: a peer that does not read does not hold up the others", |site| {
            let _speaker = Config::new().peer(2, 65002).peer(3, 65003).peer(4, 65004).start(site)?;
            let _deaf = established(site, 3, 65003)?;
            let mut watcher = established(site, 4, 65004)?;
            let mut peer = established(site, 2, 65002)?;
            let attributes = [origin(0), as_path(&[65002]), next_hop(site.v4(2))];
            for block in 0..20u32 {
                for half in 0..2u32 {
                    let field: Vec<u8> = (0..128)
                        .flat_map(|i| nlri(&format!("100.{}.{}.0/24", 64 + block, half * 128 + i)))
                        .collect();
                    peer.send(&update(&[], &attributes, &field))?;
                }
            }
            watcher.until("all", |w| {
                w.routes.keys().filter(|p| p.to_string().starts_with("100.")).count() == 5120
            })
        }),
        case("RFC 4271 §4.3: the same prefix a hundred times in one UPDATE", |site| {
            survives(site, |site| {
                let Some(mut peer) = attacker(site) else { return Ok(()) };
                let attributes = [origin(0), as_path(&[65002]), next_hop(site.v4(2))];
                peer.send(&update(&[], &attributes, &nlri("198.51.100.0/24").repeat(100)))?;
                peer.listen_for(Duration::from_millis(200))
            })
        }),
        case("RFC 4271 §4.1: an UPDATE of exactly 4,096 octets", |site| {
            let _speaker = Config::new().peer(2, 65002).peer(3, 65003).start(site)?;
            let mut watcher = established(site, 3, 65003)?;
            let mut peer = established(site, 2, 65002)?;
            let base = [origin(0), as_path(&[65002]), next_hop(site.v4(2))];
            let room = 4096 - update(&[], &base, &[]).len();
            let mut field: Vec<u8> =
                (0..room / 4).flat_map(|i| nlri(&format!("100.{}.{}.0/24", 64 + i / 256, i % 256))).collect();
            field.resize(room, 0);
            peer.send(&update(&[], &base, &field))?;
            watcher.route("100.64.0.0/24")?;
            peer.listen_for(Duration::from_millis(200))
        }),
    ]
}
