//! What is advertised, to whom, and with which next hop. RFC 4271 §5.1.3 and §9.1.3, RFC 4724 §2, RFC 7606 §5.1.

use std::time::Duration;

use anyhow::{Result, ensure};

use crate::octets::*;
use crate::peer::{established, open_of};
use crate::runner::{Case, Site, case};
use crate::speaker::{AS, Config};

const PREFIX: &str = "198.51.100.0/24";
const OTHER: &str = "203.0.113.0/24";

/// A route of a peer in `from` goes to one in `to`, or does not.
fn passes(site: &Site, from: u32, to: u32, expected: bool) -> Result<()> {
    let _speaker = Config::new().peer(2, from).peer(3, to).peer(4, 65004).start(site)?;
    let mut watcher = established(site, 3, to)?;
    let mut witness = established(site, 4, 65004)?;
    let mut peer = established(site, 2, from)?;
    let path = if from == AS { as_path(&[]) } else { as_path(&[from]) };
    let mut attributes = vec![origin(0), path, next_hop(site.v4(2))];
    if from == AS {
        attributes.push(local_pref(100));
    }
    peer.send(&update(&[], &attributes, &nlri(PREFIX)))?;
    witness.route(PREFIX)?;
    if expected {
        watcher.route(PREFIX)?;
    } else {
        watcher.listen_for(Duration::from_millis(500))?;
        ensure!(!watcher.has(PREFIX), "it was advertised");
    }
    Ok(())
}

/// The next hop a watcher gets for a route of a peer, under the given fields of the watcher's document.
fn next_hop_seen(site: &Site, from: u32, to: u32, fields: &str) -> Result<std::net::IpAddr> {
    let _speaker =
        Config::new().peer(2, from).peer_with(3, to, &format!("passive: true{fields}")).start(site)?;
    let mut watcher = established(site, 3, to)?;
    let mut peer = established(site, 2, from)?;
    let path = if from == AS { as_path(&[]) } else { as_path(&[from]) };
    peer.send(&update(&[], &[origin(0), path, next_hop(site.v4(2)), local_pref(100)], &nlri(PREFIX)))?;
    Ok(watcher.route(PREFIX)?.next_hop.global)
}

pub fn cases() -> Vec<Case> {
    vec![
        case("RFC 4271 §9.1.3: own blocks go to an external peer", |site| {
            let _speaker = Config::new().peer(2, 65002).start(site)?;
            let route = established(site, 2, 65002)?.route("10.244.1.0/24")?;
            ensure!(route.as_path.to_string() == "65001", "path {}", route.as_path);
            ensure!(route.next_hop.global == site.v4(1), "next hop {}", route.next_hop);
            ensure!(route.local_pref.is_none(), "{:?}", route.local_pref);
            Ok(())
        }),
        case(
            "RFC 4271 §9.1.3: own blocks go to an internal peer with an empty path and LOCAL_PREF",
            |site| {
                let _speaker = Config::new().peer(2, AS).start(site)?;
                let route = established(site, 2, AS)?.route("10.244.1.0/24")?;
                ensure!(route.as_path.is_empty() && route.local_pref == Some(100), "{route:?}");
                ensure!(route.next_hop.global == site.v4(1), "next hop {}", route.next_hop);
                Ok(())
            },
        ),
        case("DESIGN §3: by default only own blocks go out", |site| {
            let _speaker = Config::new()
                .peer(2, 65002)
                .peer_with(3, 65003, "passive: true, filters: []")
                .peer(4, 65004)
                .start(site)?;
            let mut watcher = established(site, 3, 65003)?;
            let mut witness = established(site, 4, 65004)?;
            let mut peer = established(site, 2, 65002)?;
            peer.send(&update(&[], &[origin(0), as_path(&[65002]), next_hop(site.v4(2))], &nlri(PREFIX)))?;
            witness.route(PREFIX)?;
            watcher.route("10.244.1.0/24")?;
            watcher.listen_for(Duration::from_millis(400))?;
            ensure!(!watcher.has(PREFIX), "it was advertised");
            Ok(())
        }),
        case("DESIGN §3: by default only prefixes inside the pools come in", |site| {
            let _speaker =
                Config::new().peer_with(2, 65002, "passive: true, filters: []").peer(3, 65003).start(site)?;
            let mut watcher = established(site, 3, 65003)?;
            let mut peer = established(site, 2, 65002)?;
            let attributes = [origin(0), as_path(&[65002]), next_hop(site.v4(2))];
            peer.send(&update(
                &[],
                &attributes,
                &[nlri(PREFIX), nlri("10.244.7.0/24"), nlri("10.244.1.0/24")].concat(),
            ))?;
            watcher.route("10.244.7.0/24")?;
            watcher.listen_for(Duration::from_millis(300))?;
            ensure!(!watcher.has(PREFIX), "a prefix outside every pool came in");
            let own = watcher.route("10.244.1.0/24")?;
            ensure!(own.as_path.to_string() == "65001", "the own block came in: {}", own.as_path);
            Ok(())
        }),
        case("RFC 4271 §9.1.3: external to external", |site| passes(site, 65002, 65003, true)),
        case("RFC 4271 §9.1.3: external to internal", |site| passes(site, 65002, AS, true)),
        case("RFC 4271 §9.1.3: internal to external", |site| passes(site, AS, 65003, true)),
        case("RFC 4271 §9.1.3: internal to internal never", |site| passes(site, AS, AS, false)),
        case("RFC 4271 §9.1.3: a route does not go back to the peer it came from", |site| {
            let _speaker = Config::new().peer(2, 65002).peer(3, 65003).start(site)?;
            let mut watcher = established(site, 3, 65003)?;
            let mut peer = established(site, 2, 65002)?;
            peer.send(&update(&[], &[origin(0), as_path(&[65002]), next_hop(site.v4(2))], &nlri(PREFIX)))?;
            watcher.route(PREFIX)?;
            peer.listen_for(Duration::from_millis(400))?;
            ensure!(!peer.has(PREFIX), "it came back");
            Ok(())
        }),
        case("RFC 4271 §5.1.3: towards an internal peer the next hop of an external route stays", |site| {
            let seen = next_hop_seen(site, 65002, AS, "")?;
            ensure!(seen == site.v4(2), "{seen}");
            Ok(())
        }),
        case("RFC 4271 §5.1.3: nextHopMode Self towards an internal peer", |site| {
            let seen = next_hop_seen(site, 65002, AS, ", nextHopMode: Self")?;
            ensure!(seen == site.v4(1), "{seen}");
            Ok(())
        }),
        case("RFC 4271 §5.1.3: nextHopMode Keep towards an external peer", |site| {
            let seen = next_hop_seen(site, 65002, 65003, ", nextHopMode: Keep")?;
            ensure!(seen == site.v4(2), "{seen}");
            Ok(())
        }),
        case("RFC 4271 §5.1.3: towards an external peer the next hop is of the subnet they share", |site| {
            let seen = next_hop_seen(site, 65002, 65003, "")?;
            ensure!(seen == site.v4(1) || seen == site.v4(2), "{seen}");
            Ok(())
        }),
        case("RFC 4271 §5.1.3: the receiver's own address is never its next hop", |site| {
            let _speaker = Config::new().peer(2, 65002).peer(3, 65003).start(site)?;
            let mut watcher = established(site, 3, 65003)?;
            let mut peer = established(site, 2, 65002)?;
            peer.send(&update(&[], &[origin(0), as_path(&[65002]), next_hop(site.v4(3))], &nlri(PREFIX)))?;
            peer.send(&update(&[], &[origin(0), as_path(&[65002]), next_hop(site.v4(2))], &nlri(OTHER)))?;
            watcher.route(OTHER)?;
            watcher.listen_for(Duration::from_millis(300))?;
            let prefix = PREFIX.parse().unwrap();
            ensure!(watcher.routes.get(&prefix).is_none_or(|a| a.next_hop.global != site.v4(3)), "it was");
            Ok(())
        }),
        case("RFC 4271 §9.2: a better path replaces, its withdrawal brings the other back", |site| {
            let _speaker = Config::new().peer(2, 65002).peer(3, 65003).peer(4, 65004).start(site)?;
            let mut watcher = established(site, 4, 65004)?;
            let (mut long, mut short) = (established(site, 2, 65002)?, established(site, 3, 65003)?);
            long.send(&update(
                &[],
                &[origin(0), as_path(&[65002, 65010]), next_hop(site.v4(2))],
                &nlri(PREFIX),
            ))?;
            watcher.route(PREFIX)?;
            short.send(&update(&[], &[origin(0), as_path(&[65003]), next_hop(site.v4(3))], &nlri(PREFIX)))?;
            let is = |path: &'static str| {
                move |w: &crate::peer::Peer| {
                    w.routes.get(&PREFIX.parse().unwrap()).is_some_and(|a| a.as_path.to_string() == path)
                }
            };
            watcher.until("the shorter", is("65001 65003"))?;
            short.send(&update(&nlri(PREFIX), &[], &[]))?;
            watcher.until("the longer again", is("65001 65002 65010"))?;
            drop(long);
            watcher.withdrawn(PREFIX)
        }),
        case("RFC 4271 §4.3: an announcement replaces the one before it", |site| {
            let _speaker = Config::new().peer(2, 65002).peer(3, 65003).start(site)?;
            let mut watcher = established(site, 3, 65003)?;
            let mut peer = established(site, 2, 65002)?;
            for origin_code in [0u8, 2] {
                peer.send(&update(
                    &[],
                    &[origin(origin_code), as_path(&[65002]), next_hop(site.v4(2))],
                    &nlri(PREFIX),
                ))?;
                watcher.until("it", move |w| {
                    w.routes.get(&PREFIX.parse().unwrap()).is_some_and(|a| a.origin as u8 == origin_code)
                })?;
            }
            Ok(())
        }),
        case("RFC 4271 §4.3: a prefix withdrawn and announced in one UPDATE is announced", |site| {
            let _speaker = Config::new().peer(2, 65002).peer(3, 65003).start(site)?;
            let mut watcher = established(site, 3, 65003)?;
            let mut peer = established(site, 2, 65002)?;
            let attributes = [origin(0), as_path(&[65002]), next_hop(site.v4(2))];
            peer.send(&update(&nlri(PREFIX), &attributes, &nlri(PREFIX)))?;
            watcher.route(PREFIX).map(|_| ())
        }),
        case("RFC 4271 §4.3: withdrawing what was never announced does no harm", |site| {
            let _speaker = Config::new().peer(2, 65002).peer(3, 65003).start(site)?;
            let mut watcher = established(site, 3, 65003)?;
            let mut peer = established(site, 2, 65002)?;
            peer.send(&update(&nlri(OTHER), &[], &[]))?;
            peer.send(&update(&[], &[origin(0), as_path(&[65002]), next_hop(site.v4(2))], &nlri(PREFIX)))?;
            watcher.route(PREFIX).map(|_| ())
        }),
        case("RFC 4271 §9.2: an equal announcement is not advertised again", |site| {
            let _speaker = Config::new().peer(2, 65002).peer(3, 65003).start(site)?;
            let mut watcher = established(site, 3, 65003)?;
            watcher.until("both ends", |watcher| watcher.end_of_rib.len() == 2)?;
            let mut peer = established(site, 2, 65002)?;
            let octets = update(&[], &[origin(0), as_path(&[65002]), next_hop(site.v4(2))], &nlri(PREFIX));
            peer.send(&octets)?;
            watcher.route(PREFIX)?;
            let before = watcher.updates;
            peer.send(&octets)?;
            watcher.listen_for(Duration::from_millis(500))?;
            ensure!(watcher.updates == before, "{} UPDATEs more", watcher.updates - before);
            Ok(())
        }),
        case("RFC 4724 §2: End-of-RIB comes for each family after the first sending", |site| {
            let _speaker = Config::new().peer(2, 65002).start(site)?;
            let mut peer = established(site, 2, 65002)?;
            peer.until("both", |peer| peer.end_of_rib.len() == 2)?;
            ensure!(peer.has("10.244.1.0/24") && peer.has("fd00:10:244:1::/64"), "before the routes");
            Ok(())
        }),
        case("RFC 4760 §8: a family the peer has not is not sent", |site| {
            let _speaker = Config::new().peer(2, 65002).start(site)?;
            let mut peer = crate::peer::Peer::connect(site, 2)?;
            let mut open = open_of(site, 2, 65002);
            open.capabilities.retain(|c| c.code() != 1);
            peer.establish(&open)?;
            peer.route("10.244.1.0/24")?;
            peer.listen_for(Duration::from_millis(300))?;
            ensure!(!peer.has("fd00:10:244:1::/64"), "IPv6 was sent");
            Ok(())
        }),
        case(
            "RFC 7606 §5.1: MP_REACH_NLRI is the first attribute, and one kind of prefixes to a message",
            |site| {
                let _speaker = Config::new().peer(2, 65002).start(site)?;
                let mut peer = established(site, 2, 65002)?;
                peer.route("fd00:10:244:1::/64")?;
                peer.until("both ends", |peer| peer.end_of_rib.len() == 2)?;
                let updates = peer.raw.iter().filter(|m| m[18] == UPDATE && m.len() > 30);
                for octets in updates {
                    let mp = octets.windows(4).any(|w| w == [0x80, 14, w[2], 0] || w == [0x90, 14, 0, w[3]]);
                    ensure!(!mp || octets[24] == 14, "MP_REACH_NLRI is not first: {octets:02x?}");
                }
                Ok(())
            },
        ),
        case("RFC 4271 §4.3: a thousand prefixes pass in messages of at most 4,096 octets", |site| {
            let _speaker = Config::new().peer(2, 65002).peer(3, 65003).start(site)?;
            let mut watcher = established(site, 3, 65003)?;
            let mut peer = established(site, 2, 65002)?;
            let attributes = [origin(0), as_path(&[65002]), next_hop(site.v4(2))];
            for chunk in 0..10u32 {
                let field: Vec<u8> =
                    (0..100).flat_map(|i| nlri(&format!("172.{}.{}.0/24", 16 + chunk, i))).collect();
                peer.send(&update(&[], &attributes, &field))?;
            }
            let count =
                |w: &crate::peer::Peer| w.routes.keys().filter(|p| p.to_string().starts_with("172.")).count();
            watcher.until("all", move |w| count(w) == 1000)?;
            ensure!(watcher.raw.iter().all(|m| m.len() <= 4096), "a longer one");
            drop(peer);
            watcher.until("none", move |w| count(w) == 0)
        }),
    ]
}
