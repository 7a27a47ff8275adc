//! IPv6 unicast, over sessions of either family. RFC 4760, RFC 2545.

use std::time::Duration;

use anyhow::{Result, ensure};

use crate::octets::*;
use crate::peer::{Peer, established, open_of};
use crate::runner::{Case, Site, case};
use crate::speaker::{AS, Config};

const PREFIX: &str = "2001:db8:5::/48";

fn announce(site: &Site, path: &[u32]) -> Vec<u8> {
    update(&[], &[mp_reach(&site.v6(2).octets(), &nlri(PREFIX)), origin(0), as_path(path)], &[])
}

/// Sends one UPDATE of an external peer; the watcher must get the prefix.
fn reaches(site: &Site, octets: &[u8]) -> Result<causeway_bgp_wire::PathAttributes> {
    let _speaker = Config::new().peer(2, 65002).peer(3, 65003).start(site)?;
    let mut watcher = established(site, 3, 65003)?;
    let mut peer = established(site, 2, 65002)?;
    peer.send(octets)?;
    watcher.route(PREFIX)
}

pub fn cases() -> Vec<Case> {
    vec![
        case("RFC 4760 §3: IPv6 prefixes pass", |site| {
            let route = reaches(site, &announce(site, &[65002]))?;
            ensure!(route.as_path.to_string() == "65001 65002", "{}", route.as_path);
            Ok(())
        }),
        case("RFC 4760 §4: IPv6 prefixes are withdrawn", |site| {
            let _speaker = Config::new().peer(2, 65002).peer(3, 65003).start(site)?;
            let mut watcher = established(site, 3, 65003)?;
            let mut peer = established(site, 2, 65002)?;
            peer.send(&announce(site, &[65002]))?;
            watcher.route(PREFIX)?;
            peer.send(&update(&[], &[mp_unreach(&nlri(PREFIX))], &[]))?;
            watcher.withdrawn(PREFIX)
        }),
        case(
            "RFC 2545 §3: own IPv6 blocks have the node's IPv6 address as next hop, over an IPv4 session",
            |site| {
                let _speaker = Config::new().peer(2, 65002).start(site)?;
                let route = established(site, 2, 65002)?.route("fd00:10:244:1::/64")?;
                ensure!(route.next_hop.global == site.v6(1), "{}", route.next_hop);
                Ok(())
            },
        ),
        case("RFC 2545 §3: the next hop of an external route stays towards an internal peer", |site| {
            let _speaker = Config::new().peer(2, 65002).peer(3, AS).start(site)?;
            let mut watcher = established(site, 3, AS)?;
            let mut peer = established(site, 2, 65002)?;
            peer.send(&announce(site, &[65002]))?;
            let route = watcher.route(PREFIX)?;
            ensure!(route.next_hop.global == site.v6(2), "{}", route.next_hop);
            ensure!(route.local_pref == Some(100), "{route:?}");
            Ok(())
        }),
        case("RFC 2545 §3: a global and a link-local next hop", |site| {
            let mut both = site.v6(2).octets().to_vec();
            both.extend("fe80::2".parse::<std::net::Ipv6Addr>()?.octets());
            reaches(site, &update(&[], &[mp_reach(&both, &nlri(PREFIX)), origin(0), as_path(&[65002])], &[]))
                .map(|_| ())
        }),
        case("RFC 4760 §3: MP_REACH_NLRI may stand last", |site| {
            let octets = update(
                &[],
                &[origin(0), as_path(&[65002]), mp_reach(&site.v6(2).octets(), &nlri(PREFIX))],
                &[],
            );
            reaches(site, &octets).map(|_| ())
        }),
        case("RFC 4760 §3: a NEXT_HOP beside MP_REACH_NLRI is ignored", |site| {
            let attributes = [
                mp_reach(&site.v6(2).octets(), &nlri(PREFIX)),
                origin(0),
                as_path(&[65002]),
                attribute(0x40, 3, &[0; 4]),
            ];
            reaches(site, &update(&[], &attributes, &[])).map(|_| ())
        }),
        case("RFC 4760 §3: IPv4 in the body and IPv6 in MP_REACH_NLRI of one UPDATE", |site| {
            let _speaker = Config::new().peer(2, 65002).peer(3, 65003).start(site)?;
            let mut watcher = established(site, 3, 65003)?;
            let mut peer = established(site, 2, 65002)?;
            let attributes = [
                mp_reach(&site.v6(2).octets(), &nlri(PREFIX)),
                origin(0),
                as_path(&[65002]),
                next_hop(site.v4(2)),
            ];
            peer.send(&update(&[], &attributes, &nlri("198.51.100.0/24")))?;
            watcher.route(PREFIX)?;
            watcher.route("198.51.100.0/24").map(|_| ())
        }),
        case("RFC 4760 §3: IPv4 in MP_REACH_NLRI", |site| {
            let _speaker = Config::new().peer(2, 65002).peer(3, 65003).start(site)?;
            let mut watcher = established(site, 3, 65003)?;
            let mut peer = established(site, 2, 65002)?;
            let mut value = vec![0, 1, 1, 4];
            value.extend(site.v4(2).octets());
            value.push(0);
            value.extend(nlri("198.51.100.0/24"));
            peer.send(&update(&[], &[attribute(0x80, 14, &value), origin(0), as_path(&[65002])], &[]))?;
            watcher.route("198.51.100.0/24").map(|_| ())
        }),
        case("RFC 4760 §6: prefixes of a family nobody negotiated are ignored", |site| {
            let _speaker = Config::new().peer(2, 65002).peer(3, 65003).start(site)?;
            let mut watcher = established(site, 3, 65003)?;
            let mut peer = established(site, 2, 65002)?;
            let vpn =
                attribute(0x80, 14, &[0, 1, 128, 12, 0, 0, 0, 0, 0, 0, 0, 0, 10, 0, 0, 1, 0, 88, 1, 2, 3]);
            peer.send(&update(&[], &[vpn, origin(0), as_path(&[65002])], &[]))?;
            peer.send(&update(&[], &[attribute(0x80, 15, &[0, 25, 70, 1, 2, 3])], &[]))?;
            peer.send(&announce(site, &[65002]))?;
            watcher.route(PREFIX).map(|_| ())
        }),
        case("RFC 4760 §8: IPv6 of a peer with IPv4 alone is ignored", |site| {
            let _speaker = Config::new().peer(2, 65002).peer(3, 65003).start(site)?;
            let mut watcher = established(site, 3, 65003)?;
            let mut peer = Peer::connect(site, 2)?;
            let mut open = open_of(site, 2, 65002);
            open.capabilities.remove(1);
            peer.establish(&open)?;
            peer.send(&announce(site, &[65002]))?;
            peer.send(&update(
                &[],
                &[origin(0), as_path(&[65002]), next_hop(site.v4(2))],
                &nlri("198.51.100.0/24"),
            ))?;
            watcher.route("198.51.100.0/24")?;
            watcher.listen_for(Duration::from_millis(200))?;
            ensure!(!watcher.has(PREFIX), "it was taken");
            Ok(())
        }),
        case("RFC 4760 §8: a session of IPv6 alone", |site| {
            let _speaker =
                Config::new().peer_with(2, 65002, "passive: true, families: [ipv6]").start(site)?;
            let mut peer = established(site, 2, 65002)?;
            peer.route("fd00:10:244:1::/64")?;
            peer.listen_for(Duration::from_millis(300))?;
            ensure!(!peer.has("10.244.1.0/24"), "IPv4 was sent");
            Ok(())
        }),
        case("RFC 4760: a session over IPv6, both families", |site| {
            let fields = format!("peerIP: \"{}\", passive: true", site.v6(2));
            let _speaker = Config::new().peer_with(2, 65002, &fields).start(site)?;
            let mut peer = Peer::connect6(site, 2)?;
            peer.establish(&open_of(site, 2, 65002))?;
            let v6 = peer.route("fd00:10:244:1::/64")?;
            let v4 = peer.route("10.244.1.0/24")?;
            ensure!(
                v6.next_hop.global == site.v6(1) && v4.next_hop.global == site.v4(1),
                "{} {}",
                v6.next_hop,
                v4.next_hop
            );
            Ok(())
        }),
        case("RFC 4291 §2.4: prefixes nobody can route are ignored alone", |site| {
            let _speaker = Config::new().peer(2, 65002).peer(3, 65003).start(site)?;
            let mut watcher = established(site, 3, 65003)?;
            let mut peer = established(site, 2, 65002)?;
            let field = [nlri("ff02::/16"), nlri("fe80::/64"), nlri(PREFIX)].concat();
            peer.send(&update(
                &[],
                &[mp_reach(&site.v6(2).octets(), &field), origin(0), as_path(&[65002])],
                &[],
            ))?;
            watcher.route(PREFIX)?;
            watcher.listen_for(Duration::from_millis(200))?;
            ensure!(!watcher.has("ff02::/16") && !watcher.has("fe80::/64"), "{:?}", watcher.routes);
            Ok(())
        }),
        case("RFC 4271 §4.3: the default routes of both families", |site| {
            let _speaker = Config::new().peer(2, 65002).peer(3, 65003).start(site)?;
            let mut watcher = established(site, 3, 65003)?;
            let mut peer = established(site, 2, 65002)?;
            peer.send(&update(&[], &[origin(0), as_path(&[65002]), next_hop(site.v4(2))], &[0]))?;
            peer.send(&update(
                &[],
                &[mp_reach(&site.v6(2).octets(), &[0]), origin(0), as_path(&[65002])],
                &[],
            ))?;
            watcher.route("0.0.0.0/0")?;
            watcher.route("::/0").map(|_| ())
        }),
    ]
}
