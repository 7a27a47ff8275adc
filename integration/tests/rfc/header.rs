//! The message header. RFC 4271 §4.1 and §6.1.

use anyhow::{Result, ensure};

use crate::octets::*;
use crate::peer::{Peer, established, open_of};
use crate::runner::{Case, Site, case};
use crate::speaker::Config;

/// A session in OpenSent (of the speaker) or in Established, to which something is sent that ends it.
fn rejected(
    site: &Site,
    in_established: bool,
    octets: &[u8],
    code: u8,
    subcode: u8,
    data: Option<&[u8]>,
) -> Result<()> {
    let _speaker = Config::new().peer(2, 65002).start(site)?;
    let mut peer = if in_established {
        established(site, 2, 65002)?
    } else {
        let mut peer = Peer::connect(site, 2)?;
        peer.expect_open()?;
        peer
    };
    peer.send(octets)?;
    let found = peer.expect_notification(code, subcode)?;
    if let Some(data) = data {
        ensure!(found.data == data, "data {:?} was due, not {:?}", data, found.data);
    }
    // The speaker is still there for others.
    Peer::connect(site, 2).map(|_| ())
}

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut add = |name: String, octets: Vec<u8>, subcode: u8, data: Option<Vec<u8>>| {
        for in_established in [false, true] {
            let (octets, data) = (octets.clone(), data.clone());
            let state = if in_established { "Established" } else { "OpenSent" };
            cases.push(case(format!("RFC 4271 §6.1: {name}, in {state}"), move |site| {
                rejected(site, in_established, &octets, 1, subcode, data.as_deref())
            }));
        }
    };
    for at in [0usize, 7, 15] {
        let mut octets = keepalive();
        octets[at] = 0;
        add(format!("marker octet {at} is not ones"), octets, 1, None);
    }
    for length in [0u16, 18, 4097, 65535] {
        let data = Some(length.to_be_bytes().to_vec());
        add(format!("Length {length}"), with_length(keepalive(), length), 2, data);
    }
    add("KEEPALIVE of 20 octets".into(), message(KEEPALIVE, &[0]), 2, Some(vec![0, 20]));
    add("OPEN of 28 octets".into(), message(OPEN, &[4, 0, 1, 0, 90, 1, 1, 1, 1]), 2, Some(vec![0, 28]));
    add("UPDATE of 22 octets".into(), message(UPDATE, &[0, 0, 0]), 2, Some(vec![0, 22]));
    add("NOTIFICATION of 20 octets".into(), message(NOTIFICATION, &[6]), 2, Some(vec![0, 20]));
    for kind in [0u8, 6, 128, 255] {
        add(format!("Type {kind}"), message(kind, &[]), 3, Some(vec![kind]));
    }
    cases.push(case("RFC 4271 §4.1: a message may come octet by octet", |site| {
        let _speaker = Config::new().peer(2, 65002).start(site)?;
        let mut peer = Peer::connect(site, 2)?;
        let mut octets = Vec::new();
        causeway_bgp_wire::encode_open(&open_of(site, 2, 65002), &mut octets);
        for octet in octets {
            peer.send(&[octet])?;
        }
        peer.agree(true)?;
        peer.until("End-of-RIB", |peer| peer.end_of_rib.len() == 2)
    }));
    cases.push(case("RFC 4271 §4.1: many messages may come in one segment", |site| {
        let _speaker = Config::new().peer(2, 65002).peer(3, 65003).start(site)?;
        let mut watcher = established(site, 3, 65003)?;
        let mut peer = established(site, 2, 65002)?;
        let mut octets = Vec::new();
        for i in 0..200u8 {
            let attributes = [origin(0), as_path(&[65002]), next_hop(site.v4(2))];
            octets.extend(update(&[], &attributes, &nlri(&format!("198.51.{i}.0/24"))));
            octets.extend(keepalive());
        }
        peer.send(&octets)?;
        watcher.until("all 200", |w| {
            w.routes.keys().filter(|p| p.to_string().starts_with("198.51.")).count() == 200
        })
    }));
    cases
}
