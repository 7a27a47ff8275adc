//! Loops: the own AS in a path, the own identifier and cluster in a reflected one. RFC 4271 §9.1.2, RFC 4456 §8.

use std::time::Duration;

use anyhow::{Result, ensure};

use crate::octets::*;
use crate::peer::{Peer, established};
use crate::runner::{Case, Site, case};
use crate::speaker::{AS, Config};

const PREFIX: &str = "198.51.100.0/24";
const MARKER: &str = "203.0.113.0/24";

/// Whether a path of peer 2 is used: told by whether it is advertised to an external third.
fn used(
    site: &Site,
    asn: u32,
    fields: &str,
    node: &str,
    attributes: &[Vec<u8>],
    expected: bool,
) -> Result<()> {
    let config = Config::new().node(node).peer_with(2, asn, &format!("passive: true{fields}")).peer(3, 65003);
    let _speaker = config.start(site)?;
    let mut watcher = established(site, 3, 65003)?;
    let mut peer: Peer = established(site, 2, asn)?;
    let base = [origin(0), next_hop(site.v4(2))];
    let path = if asn == AS { as_path(&[]) } else { as_path(&[asn]) };
    let marker = [base.as_slice(), &[path]].concat();
    // A path that is refused takes away the one before it.
    peer.send(&update(&[], &marker, &nlri(PREFIX)))?;
    watcher.route(PREFIX)?;
    peer.send(&update(&[], &[base.as_slice(), attributes].concat(), &nlri(PREFIX)))?;
    peer.send(&update(&[], &marker, &nlri(MARKER)))?;
    watcher.route(MARKER)?;
    if expected {
        watcher.listen_for(Duration::from_millis(300))?;
        ensure!(watcher.has(PREFIX), "it was refused");
        Ok(())
    } else {
        watcher.withdrawn(PREFIX)
    }
}

pub fn cases() -> Vec<Case> {
    let set = |asns: &[u32]| {
        let mut value = vec![2, 1, 0, 0, 0xfd, 0xea, 1, asns.len() as u8];
        value.extend(asns.iter().flat_map(|asn| asn.to_be_bytes()));
        attribute(0x40, 2, &value)
    };
    let in_set = set(&[7, AS]);
    let originator = |site: &Site| attribute(0x80, 9, &site.v4(1).octets());
    vec![
        case("RFC 4271 §9.1.2: the own AS in the path of an external peer", |site| {
            used(site, 65002, "", "", &[as_path(&[65002, AS, 7])], false)
        }),
        case("RFC 4271 §9.1.2: the own AS at the end of the path", |site| {
            used(site, 65002, "", "", &[as_path(&[65002, AS])], false)
        }),
        case("RFC 4271 §9.1.2: the own AS in a set", move |site| {
            used(site, 65002, "", "", std::slice::from_ref(&in_set), false)
        }),
        case("RFC 4271 §9.1.2: another AS twice is no loop", |site| {
            used(site, 65002, "", "", &[as_path(&[65002, 65002, 65002])], true)
        }),
        case("DESIGN §3: numAllowedLocalASNumbers 1 takes the own AS once", |site| {
            used(site, 65002, ", numAllowedLocalASNumbers: 1", "", &[as_path(&[65002, AS])], true)
        }),
        case("DESIGN §3: numAllowedLocalASNumbers 1 does not take the own AS twice", |site| {
            used(site, 65002, ", numAllowedLocalASNumbers: 1", "", &[as_path(&[65002, AS, AS])], false)
        }),
        case("RFC 4271 §9.1.2: the own AS in the path of an internal peer", |site| {
            used(site, AS, "", "", &[as_path(&[65010, AS]), local_pref(100)], false)
        }),
        case("RFC 4456 §8: the own identifier as ORIGINATOR_ID", move |site| {
            used(site, AS, "", "", &[as_path(&[]), local_pref(100), originator(site)], false)
        }),
        case("RFC 4456 §8: another ORIGINATOR_ID", |site| {
            used(site, AS, "", "", &[as_path(&[]), local_pref(100), attribute(0x80, 9, &[9, 9, 9, 9])], true)
        }),
        case("RFC 4456 §8: the own cluster in CLUSTER_LIST", |site| {
            let list = attribute(0x80, 10, &[7, 7, 7, 7, 244, 0, 0, 1]);
            used(
                site,
                AS,
                "",
                "routeReflectorClusterID: 244.0.0.1",
                &[as_path(&[]), local_pref(100), list],
                false,
            )
        }),
        case("RFC 4456 §8: another cluster in CLUSTER_LIST", |site| {
            let list = attribute(0x80, 10, &[7, 7, 7, 7]);
            used(
                site,
                AS,
                "",
                "routeReflectorClusterID: 244.0.0.1",
                &[as_path(&[]), local_pref(100), list],
                true,
            )
        }),
        case(
            "RFC 4271 §9.1.2: a looped path is kept out of the Loc-RIB but does not end the session",
            |site| used(site, 65002, "", "", &[as_path(&[65002, AS, AS, AS])], false),
        ),
    ]
}
