//! Route reflection. RFC 4456.

use std::time::Duration;

use anyhow::{Result, ensure};

use crate::octets::*;
use crate::peer::{Peer, established};
use crate::runner::{Case, Site, case};
use crate::speaker::{AS, Config, Speaker};

const PREFIX: &str = "198.51.100.0/24";

/// A reflector with clients 2 and 3, non-clients 4 and 5, and an external peer 6.
fn reflector(site: &Site) -> Result<Speaker> {
    Config::new()
        .node("routeReflectorClusterID: 244.0.0.1")
        .peer_with(2, AS, "passive: true, reflection: Client")
        .peer_with(3, AS, "passive: true, reflection: Client")
        .peer_with(4, AS, "passive: true, reflection: NonClient")
        .peer_with(5, AS, "passive: true, reflection: NonClient")
        .peer(6, 65006)
        .start(site)
}

fn asn(host: u8) -> u32 {
    if host == 6 { 65006 } else { AS }
}

fn announce(site: &Site, host: u8, more: &[Vec<u8>]) -> Vec<u8> {
    let path = if host == 6 { as_path(&[65006]) } else { as_path(&[65010]) };
    let mut attributes = vec![origin(0), path, next_hop(site.v4(host))];
    if host != 6 {
        attributes.push(local_pref(100));
    }
    attributes.extend_from_slice(more);
    update(&[], &attributes, &nlri(PREFIX))
}

/// A route of one peer goes to another, or does not.
fn goes(name: &str, from: u8, to: u8, expected: bool) -> Case {
    case(name, move |site| {
        let _speaker = reflector(site)?;
        let mut watcher = established(site, to, asn(to))?;
        let witness_host = if from == 6 || to == 6 { 3 } else { 6 };
        let mut witness = established(site, witness_host, asn(witness_host))?;
        let mut peer = established(site, from, asn(from))?;
        peer.send(&announce(site, from, &[]))?;
        witness.route(PREFIX)?;
        if expected {
            return watcher.route(PREFIX).map(|_| ());
        }
        watcher.listen_for(Duration::from_millis(400))?;
        ensure!(!watcher.has(PREFIX), "it was reflected");
        Ok(())
    })
}

/// What client 3 gets of what client 2 says.
fn reflected(site: &Site, more: &[Vec<u8>]) -> Result<(Speaker, Peer, causeway_bgp_wire::PathAttributes)> {
    let speaker = reflector(site)?;
    let mut watcher = established(site, 3, AS)?;
    let mut peer = established(site, 2, AS)?;
    peer.send(&announce(site, 2, more))?;
    let route = watcher.route(PREFIX)?;
    // The first session must outlive the look at the route.
    Ok((speaker, peer, route))
}

pub fn cases() -> Vec<Case> {
    vec![
        goes("RFC 4456 §6: client to client", 2, 3, true),
        goes("RFC 4456 §6: client to non-client", 2, 4, true),
        goes("RFC 4456 §6: non-client to client", 4, 2, true),
        goes("RFC 4456 §6: non-client to non-client never", 4, 5, false),
        goes("RFC 4456 §6: external to client", 6, 2, true),
        goes("RFC 4456 §6: external to non-client", 6, 4, true),
        goes("RFC 4456 §6: client to external", 2, 6, true),
        goes("RFC 4456 §6: non-client to external", 4, 6, true),
        case("RFC 4456 §8: ORIGINATOR_ID is the identifier of the client", |site| {
            let (_speaker, _peer, route) = reflected(site, &[])?;
            ensure!(route.originator_id == Some(site.v4(2)), "{:?}", route.originator_id);
            Ok(())
        }),
        case("RFC 4456 §8: an ORIGINATOR_ID that is there stays", |site| {
            let (_speaker, _peer, route) = reflected(site, &[attribute(0x80, 9, &[9, 9, 9, 9])])?;
            ensure!(route.originator_id == Some([9, 9, 9, 9].into()), "{:?}", route.originator_id);
            Ok(())
        }),
        case("RFC 4456 §8: CLUSTER_LIST begins with the own cluster", |site| {
            let (_speaker, _peer, route) = reflected(site, &[])?;
            ensure!(
                route.cluster_list == [std::net::Ipv4Addr::new(244, 0, 0, 1)],
                "{:?}",
                route.cluster_list
            );
            Ok(())
        }),
        case("RFC 4456 §8: the own cluster is put before a CLUSTER_LIST that is there", |site| {
            let (_speaker, _peer, route) = reflected(site, &[attribute(0x80, 10, &[7, 7, 7, 7])])?;
            let expected = [[244, 0, 0, 1], [7, 7, 7, 7]].map(std::net::Ipv4Addr::from);
            ensure!(route.cluster_list == expected, "{:?}", route.cluster_list);
            Ok(())
        }),
        case("RFC 4456 §10: a reflected route keeps next hop, path, LOCAL_PREF and MED", |site| {
            let (_speaker, _peer, route) = reflected(site, &[med(7)])?;
            ensure!(route.next_hop.global == site.v4(2), "{}", route.next_hop);
            ensure!(route.as_path.to_string() == "65010" && route.local_pref == Some(100), "{route:?}");
            ensure!(route.med == Some(7), "{route:?}");
            Ok(())
        }),
        case("RFC 4456 §8: nothing of reflection goes to an external peer", |site| {
            let _speaker = reflector(site)?;
            let mut watcher = established(site, 6, 65006)?;
            let mut peer = established(site, 2, AS)?;
            peer.send(&announce(
                site,
                2,
                &[attribute(0x80, 9, &[9, 9, 9, 9]), attribute(0x80, 10, &[7, 7, 7, 7])],
            ))?;
            let route = watcher.route(PREFIX)?;
            ensure!(route.originator_id.is_none() && route.cluster_list.is_empty(), "{route:?}");
            ensure!(route.as_path.to_string() == "65001 65010", "{}", route.as_path);
            Ok(())
        }),
        case("RFC 4456 §8: an external route goes to a client without ORIGINATOR_ID", |site| {
            let _speaker = reflector(site)?;
            let mut watcher = established(site, 2, AS)?;
            let mut peer = established(site, 6, 65006)?;
            peer.send(&announce(site, 6, &[]))?;
            let route = watcher.route(PREFIX)?;
            ensure!(route.originator_id.is_none() && route.cluster_list.is_empty(), "{route:?}");
            Ok(())
        }),
        case("RFC 4456 §6: a withdrawal is reflected", |site| {
            let _speaker = reflector(site)?;
            let mut watcher = established(site, 3, AS)?;
            let mut peer = established(site, 2, AS)?;
            peer.send(&announce(site, 2, &[]))?;
            watcher.route(PREFIX)?;
            peer.send(&update(&nlri(PREFIX), &[], &[]))?;
            watcher.withdrawn(PREFIX)
        }),
        case(
            "DESIGN §3: reflection Auto makes internal peers of a node with a cluster its clients",
            |site| {
                let config = Config::new().node("routeReflectorClusterID: 244.0.0.1").peer(2, AS).peer(3, AS);
                let _speaker = config.start(site)?;
                let mut watcher = established(site, 3, AS)?;
                let mut peer = established(site, 2, AS)?;
                peer.send(&announce(site, 2, &[]))?;
                watcher.route(PREFIX).map(|_| ())
            },
        ),
    ]
}
