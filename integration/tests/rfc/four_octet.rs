//! Peers with two-octet AS numbers. RFC 6793.

use anyhow::{Result, ensure};
use causeway_bgp_wire::PathAttributes;

use crate::octets::*;
use crate::peer::{Peer, established, open_of};
use crate::runner::{Case, Site, case};
use crate::speaker::Config;

const PREFIX: &str = "198.51.100.0/24";

/// A session without the four-octet AS capability.
fn old(site: &Site, host: u8, asn: u32) -> Result<Peer> {
    let mut peer = Peer::connect(site, host)?;
    let mut open = open_of(site, host, asn);
    open.capabilities.retain(|c| c.code() != 65);
    peer.establish(&open)?;
    Ok(peer)
}

/// AS_PATH of two-octet numbers.
fn path2(asns: &[u16]) -> Vec<u8> {
    let mut value = vec![2, asns.len() as u8];
    value.extend(asns.iter().flat_map(|asn| asn.to_be_bytes()));
    attribute(0x40, 2, &value)
}

/// AS4_PATH.
fn path4(asns: &[u32]) -> Vec<u8> {
    let mut value = vec![2, asns.len() as u8];
    value.extend(asns.iter().flat_map(|asn| asn.to_be_bytes()));
    attribute(0xc0, 17, &value)
}

/// What a four-octet watcher gets of a two-octet peer's announcement.
fn from_old(site: &Site, attributes: &[Vec<u8>]) -> Result<PathAttributes> {
    let _speaker = Config::new().peer(2, 65002).peer(3, 65003).start(site)?;
    let mut watcher = established(site, 3, 65003)?;
    let mut peer = old(site, 2, 65002)?;
    let all = [&[origin(0), next_hop(site.v4(2))], attributes].concat();
    peer.send(&update(&[], &all, &nlri(PREFIX)))?;
    watcher.route(PREFIX)
}

fn path_is(name: &str, attributes: Vec<Vec<u8>>, path: &'static str) -> Case {
    case(name, move |site| {
        let found = from_old(site, &attributes)?.as_path.to_string();
        ensure!(found == path, "path {found}, not {path}");
        Ok(())
    })
}

pub fn cases() -> Vec<Case> {
    vec![
        path_is("RFC 6793 §4.2.3: the path of a two-octet peer", vec![path2(&[65002, 7])], "65001 65002 7"),
        path_is(
            "RFC 6793 §4.2.3: AS4_PATH completes it",
            vec![path2(&[65002, 23456, 7]), path4(&[70000, 7])],
            "65001 65002 70000 7",
        ),
        path_is(
            "RFC 6793 §4.2.3: without AS4_PATH AS_TRANS stays",
            vec![path2(&[65002, 23456])],
            "65001 65002 23456",
        ),
        path_is(
            "RFC 6793 §4.2.3: a longer AS4_PATH is ignored",
            vec![path2(&[65002]), path4(&[1, 2, 3])],
            "65001 65002",
        ),
        path_is(
            "RFC 6793 §6: a malformed AS4_PATH is discarded",
            vec![path2(&[65002, 23456]), attribute(0xc0, 17, &[2, 9, 0, 0])],
            "65001 65002 23456",
        ),
        path_is(
            "RFC 6793 §6: an AS4_PATH of an unknown segment type is discarded",
            vec![path2(&[65002, 23456]), attribute(0xc0, 17, &[9, 1, 0, 1, 0, 0])],
            "65001 65002 23456",
        ),
        path_is(
            "RFC 6793 §4.2.3: AGGREGATOR that is not AS_TRANS voids AS4_PATH",
            vec![
                path2(&[65002, 23456]),
                attribute(0xc0, 7, &[0, 9, 10, 0, 0, 1]),
                path4(&[70000]),
                attribute(0xc0, 18, &[0, 1, 0x11, 0x70, 10, 0, 0, 2]),
            ],
            "65001 65002 23456",
        ),
        case("RFC 6793 §4.2.3: AS4_AGGREGATOR stands in for AS_TRANS", |site| {
            let attributes = from_old(
                site,
                &[
                    path2(&[65002]),
                    attribute(0xc0, 7, &[0x5b, 0xa0, 10, 0, 0, 1]),
                    attribute(0xc0, 18, &[0, 1, 0x11, 0x70, 10, 0, 0, 2]),
                ],
            )?;
            ensure!(attributes.aggregator.is_some_and(|a| a.asn.0 == 70000), "{:?}", attributes.aggregator);
            Ok(())
        }),
        case("RFC 6793 §4.2.2: a two-octet peer gets AS_TRANS and AS4_PATH", |site| {
            let _speaker = Config::new().peer(2, 65002).peer(3, 65003).start(site)?;
            let mut watcher = old(site, 3, 65003)?;
            let mut peer = established(site, 2, 65002)?;
            peer.send(&update(
                &[],
                &[origin(0), as_path(&[65002, 70000]), next_hop(site.v4(2))],
                &nlri(PREFIX),
            ))?;
            let path = watcher.route(PREFIX)?.as_path.to_string();
            ensure!(path == "65001 65002 70000", "put together: {path}");
            let narrow = [2, 3, 0xfd, 0xe9, 0xfd, 0xea, 0x5b, 0xa0];
            ensure!(watcher.raw.iter().any(|m| m.windows(8).any(|w| w == narrow)), "no AS_TRANS");
            Ok(())
        }),
        case("RFC 6793 §4.2.2: a two-octet peer gets no AS4_PATH where none is needed", |site| {
            let _speaker = Config::new().peer(3, 65003).start(site)?;
            let mut watcher = old(site, 3, 65003)?;
            watcher.route("10.244.1.0/24")?;
            ensure!(!watcher.raw.iter().any(|m| m.windows(2).any(|w| w == [0xc0, 17])), "it has");
            Ok(())
        }),
        case("RFC 6793 §4.2.2: a speaker with a four-octet AS to a two-octet peer", |site| {
            let _speaker = Config::new().node("asNumber: 4200000001").peer(3, 65003).start(site)?;
            let mut watcher = old(site, 3, 65003)?;
            let path = watcher.route("10.244.1.0/24")?.as_path.to_string();
            ensure!(path == "4200000001", "{path}");
            Ok(())
        }),
        case("RFC 6793 §4.1: a four-octet peer AS", |site| {
            let _speaker = Config::new().peer(2, 4_200_000_002).peer(3, 65003).start(site)?;
            let mut watcher = established(site, 3, 65003)?;
            let mut peer = established(site, 2, 4_200_000_002)?;
            peer.send(&update(
                &[],
                &[origin(0), as_path(&[4_200_000_002]), next_hop(site.v4(2))],
                &nlri(PREFIX),
            ))?;
            let path = watcher.route(PREFIX)?.as_path.to_string();
            ensure!(path == "65001 4200000002", "{path}");
            Ok(())
        }),
        case("RFC 6793 §3: AS4_PATH of a four-octet peer is discarded", |site| {
            let _speaker = Config::new().peer(2, 65002).peer(3, 65003).start(site)?;
            let mut watcher = established(site, 3, 65003)?;
            let mut peer = established(site, 2, 65002)?;
            peer.send(&update(
                &[],
                &[origin(0), as_path(&[65002]), next_hop(site.v4(2)), path4(&[70000])],
                &nlri(PREFIX),
            ))?;
            let route = watcher.route(PREFIX)?;
            ensure!(route.as_path.to_string() == "65001 65002" && route.unknown.is_empty(), "{route:?}");
            Ok(())
        }),
    ]
}
