//! Malformed UPDATEs, seen from a second peer: treated as withdraw, an attribute discarded, or the session reset.
//! RFC 7606, RFC 4271 §6.3, RFC 7607, RFC 8092, RFC 5065.

use anyhow::{Result, ensure};
use causeway_bgp_wire::PathAttributes;

use crate::octets::*;
use crate::peer::{Peer, established};
use crate::runner::{Case, Site, case};
use crate::speaker::{AS, Config};

/// The prefix that is announced well first, and then in the malformed UPDATE.
const PREFIX: &str = "198.51.100.0/24";
/// Announced after it: once this is out, the malformed UPDATE has been dealt with.
const MARKER: &str = "203.0.113.0/24";

/// Who sends the UPDATE.
#[derive(Clone, Copy, PartialEq)]
enum Sender {
    External,
    Internal,
}

/// What must come of it.
#[derive(Clone)]
enum Outcome {
    /// The prefix is withdrawn, the session stays.
    Withdrawn,
    /// The prefix is advertised with what the check wants, the session stays.
    Accepted(fn(&PathAttributes) -> bool),
    /// A NOTIFICATION of UPDATE Message Error with this subcode.
    Reset(u8),
    /// A NOTIFICATION of UPDATE Message Error.
    ResetAnyhow,
}

fn path_of(from: Sender) -> Vec<u8> {
    if from == Sender::External { as_path(&[65002]) } else { as_path(&[]) }
}

/// The attributes of a good announcement.
fn good(site: &Site, from: Sender) -> Vec<Vec<u8>> {
    let mut attributes = vec![origin(0), path_of(from), next_hop(site.v4(2))];
    if from == Sender::Internal {
        attributes.push(local_pref(100));
    }
    attributes
}

fn check(site: &Site, from: Sender, octets: &[u8], outcome: &Outcome) -> Result<()> {
    let asn = if from == Sender::External { 65002 } else { AS };
    let _speaker = Config::new().peer(2, asn).peer(3, 65003).start(site)?;
    let mut watcher = established(site, 3, 65003)?;
    let mut peer = established(site, 2, asn)?;
    peer.send(&update(&[], &good(site, from), &nlri(PREFIX)))?;
    watcher.route(PREFIX)?;
    peer.send(octets)?;
    match outcome {
        Outcome::Reset(_) | Outcome::ResetAnyhow => {
            let found = peer.expect_error(3)?;
            if let Outcome::Reset(subcode) = outcome {
                ensure!(found.subcode == *subcode, "subcode {subcode} was due, not {found}");
            }
            watcher.withdrawn(PREFIX)
        }
        Outcome::Withdrawn => {
            watcher.withdrawn(PREFIX)?;
            passes(site, from, &mut peer, &mut watcher)?;
            ensure!(!watcher.has(PREFIX), "it came back");
            Ok(())
        }
        Outcome::Accepted(wanted) => {
            passes(site, from, &mut peer, &mut watcher)?;
            watcher.until("what was sent", |w| w.routes.get(&PREFIX.parse().unwrap()).is_some_and(wanted))
        }
    }
}

/// The session still carries routes.
fn passes(site: &Site, from: Sender, peer: &mut Peer, watcher: &mut Peer) -> Result<()> {
    peer.send(&update(&[], &good(site, from), &nlri(MARKER)))?;
    watcher.route(MARKER)?;
    Ok(())
}

type Make = Box<dyn Fn(&Site) -> Vec<u8> + Send + Sync>;

/// The good attributes with this one in the place of the one of the same code, or added.
fn with(from: Sender, changed: Vec<u8>) -> Make {
    Box::new(move |site| {
        let mut attributes = good(site, from);
        match attributes.iter_mut().find(|a| a[1] == changed[1]) {
            Some(place) => *place = changed.clone(),
            None => attributes.push(changed.clone()),
        }
        update(&[], &attributes, &nlri(PREFIX))
    })
}

/// The good attributes and this one, even if it repeats one.
fn and(added: Vec<u8>) -> Make {
    Box::new(move |site| {
        let mut attributes = good(site, Sender::External);
        attributes.push(added.clone());
        update(&[], &attributes, &nlri(PREFIX))
    })
}

fn without(code: u8) -> Make {
    Box::new(move |site| {
        let attributes: Vec<_> = good(site, Sender::External).into_iter().filter(|a| a[1] != code).collect();
        update(&[], &attributes, &nlri(PREFIX))
    })
}

fn raw(octets: Vec<u8>) -> Make {
    Box::new(move |_| octets.clone())
}

fn present(_: &PathAttributes) -> bool {
    true
}

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut add = |name: &str, from: Sender, make: Make, outcome: Outcome| {
        cases.push(case(name, move |site| check(site, from, &make(site), &outcome)));
    };
    use Outcome::{Accepted, Reset, ResetAnyhow, Withdrawn};
    use Sender::{External, Internal};

    for (name, flags) in [("none", 0x00u8), ("optional", 0x80), ("optional transitive", 0xc0)] {
        for (attribute_name, code, value) in [
            ("ORIGIN", 1u8, &[0u8][..]),
            ("AS_PATH", 2, &[2, 1, 0, 0, 0xfd, 0xea]),
            ("NEXT_HOP", 3, &[10, 9, 9, 9]),
        ] {
            let name = format!("RFC 7606 §3 c: {attribute_name} with the flags {name}");
            add(&name, External, with(External, attribute(flags, code, value)), Withdrawn);
        }
    }
    for flags in [0x40u8, 0xc0] {
        let name = format!("RFC 7606 §3 c: MULTI_EXIT_DISC with flags {flags:#x}");
        add(&name, External, with(External, attribute(flags, 4, &[0, 0, 0, 1])), Withdrawn);
    }
    for flags in [0x40u8, 0x80] {
        for (name, code, length) in [
            ("COMMUNITIES", 8u8, 4usize),
            ("EXTENDED COMMUNITIES", 16, 8),
            ("LARGE_COMMUNITY", 32, 12),
            ("AGGREGATOR", 7, 8),
        ] {
            let name = format!("RFC 7606 §3 c: {name} with flags {flags:#x}");
            add(&name, External, with(External, attribute(flags, code, &vec![1; length])), Withdrawn);
        }
    }
    add(
        "RFC 7606 §3 c: LOCAL_PREF with wrong flags inside the AS",
        Internal,
        with(Internal, attribute(0x80, 5, &[0, 0, 0, 1])),
        Withdrawn,
    );
    add(
        "RFC 4271 §4.3: unused flag bits are ignored",
        External,
        with(External, attribute(0x4f, 1, &[1])),
        Accepted(|a| a.origin as u8 == 1),
    );
    for (name, code) in [("ORIGIN", 1), ("AS_PATH", 2), ("NEXT_HOP", 3)] {
        add(&format!("RFC 7606 §3 d: {name} is missing"), External, without(code), Withdrawn);
    }
    add("RFC 7606 §3 d: no attribute at all", External, raw(update(&[], &[], &nlri(PREFIX))), Withdrawn);
    add(
        "RFC 7606 §3 g: ORIGIN twice: the first counts",
        External,
        and(origin(2)),
        Accepted(|a| a.origin as u8 == 0),
    );
    add("RFC 7606 §3 g: NEXT_HOP twice", External, and(attribute(0x40, 3, &[1, 2, 3])), Accepted(present));
    add(
        "RFC 7606 §3 g: an unknown attribute twice",
        External,
        Box::new(|site| {
            let mut attributes = good(site, External);
            attributes.extend([attribute(0xc0, 99, &[1]), attribute(0xc0, 99, &[2])]);
            update(&[], &attributes, &nlri(PREFIX))
        }),
        Accepted(|a| a.unknown.len() == 1 && *a.unknown[0].value == [1]),
    );
    add(
        "RFC 7606 §3 g: MP_REACH_NLRI twice",
        External,
        Box::new(|site| {
            let reach = mp_reach(&site.v6(2).octets(), &nlri("2001:db8::/32"));
            update(&[], &[reach.clone(), reach, origin(0), as_path(&[65002])], &[])
        }),
        Reset(1),
    );
    add(
        "RFC 7606 §3 g: MP_UNREACH_NLRI twice",
        External,
        raw(update(&[], &[mp_unreach(&nlri("2001:db8::/32")), mp_unreach(&nlri("2001:db8::/32"))], &[])),
        Reset(1),
    );
    add(
        "RFC 7606 §3 h: discard and withdraw: withdraw",
        External,
        Box::new(|site| {
            let mut attributes = good(site, External);
            attributes.extend([attribute(0x40, 6, &[1]), attribute(0xc0, 8, &[1])]);
            update(&[], &attributes, &nlri(PREFIX))
        }),
        Withdrawn,
    );

    for (name, broken) in [
        ("an attribute longer than the field", vec![0x80u8, 4, 9, 0, 0]),
        ("one octet left over", vec![0xc0]),
        ("two octets left over", vec![0xc0, 8]),
        ("half an extended length", vec![0xd0, 8, 0]),
    ] {
        add(&format!("RFC 7606 §4: {name}"), External, and(broken), Withdrawn);
    }
    add(
        "RFC 7606 §3 b: Withdrawn Routes Length exceeds the message",
        External,
        raw(message(UPDATE, &[0, 9, 0, 0])),
        Reset(1),
    );
    add(
        "RFC 7606 §3 b: Total Attribute Length exceeds the message",
        External,
        raw(message(UPDATE, &[0, 0, 0, 9])),
        Reset(1),
    );
    add(
        "RFC 7606 §5.2: an error and no reachable prefix",
        External,
        raw(update(&[], &[attribute(0x40, 1, &[9])], &[])),
        ResetAnyhow,
    );
    add(
        "RFC 7606 §5.2: an error beside withdrawn prefixes alone",
        External,
        raw(update(&nlri(MARKER), &[attribute(0x40, 1, &[9])], &[])),
        ResetAnyhow,
    );
    add(
        "RFC 7606 §5.3: a prefix longer than 32 bits",
        External,
        Box::new(|site| update(&[], &good(site, External), &[33, 1, 2, 3, 4, 5])),
        Reset(10),
    );
    add(
        "RFC 7606 §5.3: a prefix cut short",
        External,
        Box::new(|site| update(&[], &good(site, External), &[24, 198, 51])),
        Reset(10),
    );
    add(
        "RFC 7606 §3 i: a withdrawn prefix longer than 32 bits",
        External,
        raw(update(&[33, 1, 2, 3, 4, 5], &[], &[])),
        Reset(10),
    );
    add(
        "RFC 7606 §3 i: a withdrawn prefix cut short",
        External,
        raw(update(&[24, 198, 51], &[], &[])),
        Reset(10),
    );
    for (name, nlri) in [("longer than 128 bits", vec![129u8; 20]), ("cut short", vec![64, 0x20, 1])] {
        let reach_nlri = nlri.clone();
        add(
            &format!("RFC 7606 §5.3: an IPv6 prefix {name}"),
            External,
            Box::new(move |site| {
                update(&[], &[mp_reach(&site.v6(2).octets(), &reach_nlri), origin(0), as_path(&[65002])], &[])
            }),
            ResetAnyhow,
        );
        add(
            &format!("RFC 7606 §5.3: a withdrawn IPv6 prefix {name}"),
            External,
            raw(update(&[], &[mp_unreach(&nlri)], &[])),
            ResetAnyhow,
        );
    }
    for length in [0usize, 4, 15, 17, 24, 48] {
        add(
            &format!("RFC 7606 §7.11: an IPv6 next hop of {length} octets"),
            External,
            Box::new(move |_| {
                update(
                    &[],
                    &[mp_reach(&vec![1; length], &nlri("2001:db8::/32")), origin(0), as_path(&[65002])],
                    &[],
                )
            }),
            ResetAnyhow,
        );
    }
    add(
        "RFC 7606 §5.3: MP_REACH_NLRI of 4 octets",
        External,
        raw(update(&[], &[attribute(0x80, 14, &[0, 2, 1, 0]), origin(0), as_path(&[65002])], &[])),
        ResetAnyhow,
    );
    add(
        "RFC 7606 §5.3: MP_UNREACH_NLRI of 2 octets",
        External,
        raw(update(&[], &[attribute(0x80, 15, &[0, 2])], &[])),
        ResetAnyhow,
    );
    add(
        "RFC 7606 §5.3: MP_UNREACH_NLRI with wrong flags",
        External,
        raw(update(&[], &[attribute(0x40, 15, &[0, 2, 1])], &[])),
        ResetAnyhow,
    );

    add("RFC 7606 §7.1: ORIGIN 3", External, with(External, attribute(0x40, 1, &[3])), Withdrawn);
    add("RFC 7606 §7.1: ORIGIN 255", External, with(External, attribute(0x40, 1, &[255])), Withdrawn);
    add(
        "RFC 7606 §7.1: ORIGIN of 2 octets",
        External,
        with(External, attribute(0x40, 1, &[0, 0])),
        Withdrawn,
    );
    add("RFC 7606 §7.1: ORIGIN of no octet", External, with(External, attribute(0x40, 1, &[])), Withdrawn);
    for (name, value) in [
        ("an unknown segment type", vec![5u8, 1, 0, 0, 0xfd, 0xea]),
        ("segment type 0", vec![0, 1, 0, 0, 0xfd, 0xea]),
        ("a segment longer than the attribute", vec![2, 3, 0, 0, 0xfd, 0xea]),
        ("a single octet after the last segment", vec![2, 1, 0, 0, 0xfd, 0xea, 2]),
        ("a segment without numbers", vec![2, 0]),
        ("a second segment without numbers", vec![2, 1, 0, 0, 0xfd, 0xea, 1, 0]),
        ("a confederation segment from outside (RFC 5065 §5)", vec![3, 1, 0, 0, 0xfd, 0xea]),
        ("AS 0 (RFC 7607)", vec![2, 2, 0, 0, 0xfd, 0xea, 0, 0, 0, 0]),
    ] {
        add(
            &format!("RFC 7606 §7.2: AS_PATH with {name}"),
            External,
            with(External, attribute(0x40, 2, &value)),
            Withdrawn,
        );
    }
    add(
        "RFC 7606 §7.3: NEXT_HOP of 3 octets",
        External,
        with(External, attribute(0x40, 3, &[10, 0, 0])),
        Withdrawn,
    );
    add(
        "RFC 7606 §7.3: NEXT_HOP of 16 octets",
        External,
        with(External, attribute(0x40, 3, &[10; 16])),
        Withdrawn,
    );
    for address in [[0u8, 0, 0, 0], [127, 0, 0, 1], [224, 0, 0, 1], [255, 255, 255, 255]] {
        add(
            &format!("RFC 4271 §6.3: NEXT_HOP {address:?} is no host"),
            External,
            with(External, attribute(0x40, 3, &address)),
            Withdrawn,
        );
    }
    add(
        "RFC 4271 §6.3: NEXT_HOP is the speaker itself",
        External,
        Box::new(|site| update(&[], &[origin(0), as_path(&[65002]), next_hop(site.v4(1))], &nlri(PREFIX))),
        Withdrawn,
    );
    for length in [0usize, 3, 5] {
        add(
            &format!("RFC 7606 §7.4: MULTI_EXIT_DISC of {length} octets"),
            External,
            with(External, attribute(0x80, 4, &vec![0; length])),
            Withdrawn,
        );
    }
    add(
        "RFC 7606 §7.5: LOCAL_PREF of an external peer is discarded",
        External,
        with(External, local_pref(900)),
        Accepted(|a| a.local_pref.is_none()),
    );
    add(
        "RFC 7606 §7.5: malformed LOCAL_PREF of an external peer is discarded",
        External,
        with(External, attribute(0x40, 5, &[1])),
        Accepted(present),
    );
    for length in [0usize, 3, 5] {
        add(
            &format!("RFC 7606 §7.5: LOCAL_PREF of {length} octets inside the AS"),
            Internal,
            with(Internal, attribute(0x40, 5, &vec![0; length])),
            Withdrawn,
        );
    }
    add(
        "RFC 7606 §7.6: ATOMIC_AGGREGATE of one octet is discarded",
        External,
        with(External, attribute(0x40, 6, &[1])),
        Accepted(|a| !a.atomic_aggregate),
    );
    for length in [0usize, 6, 7, 9] {
        add(
            &format!("RFC 7606 §7.7: AGGREGATOR of {length} octets is discarded"),
            External,
            with(External, attribute(0xc0, 7, &vec![1; length])),
            Accepted(|a| a.aggregator.is_none()),
        );
    }
    add(
        "RFC 7607 §2: AGGREGATOR of AS 0 is discarded",
        External,
        with(External, attribute(0xc0, 7, &[0, 0, 0, 0, 1, 1, 1, 1])),
        Accepted(|a| a.aggregator.is_none()),
    );
    for length in [0usize, 1, 3, 6] {
        add(
            &format!("RFC 7606 §7.8: COMMUNITIES of {length} octets"),
            External,
            with(External, attribute(0xc0, 8, &vec![1; length])),
            Withdrawn,
        );
    }
    add(
        "RFC 7606 §7.9: ORIGINATOR_ID of an external peer is discarded",
        External,
        with(External, attribute(0x80, 9, &[1, 1, 1, 1])),
        Accepted(|a| a.originator_id.is_none()),
    );
    add(
        "RFC 7606 §7.9: malformed ORIGINATOR_ID of an external peer is discarded",
        External,
        with(External, attribute(0x80, 9, &[1])),
        Accepted(present),
    );
    add(
        "RFC 7606 §7.9: ORIGINATOR_ID of 3 octets inside the AS",
        Internal,
        with(Internal, attribute(0x80, 9, &[1, 1, 1])),
        Withdrawn,
    );
    add(
        "RFC 7606 §7.10: CLUSTER_LIST of an external peer is discarded",
        External,
        with(External, attribute(0x80, 10, &[1, 1, 1, 1])),
        Accepted(|a| a.cluster_list.is_empty()),
    );
    for length in [0usize, 3, 6] {
        add(
            &format!("RFC 7606 §7.10: CLUSTER_LIST of {length} octets inside the AS"),
            Internal,
            with(Internal, attribute(0x80, 10, &vec![1; length])),
            Withdrawn,
        );
    }
    for length in [0usize, 7, 12] {
        add(
            &format!("RFC 7606 §7.14: EXTENDED COMMUNITIES of {length} octets"),
            External,
            with(External, attribute(0xc0, 16, &vec![1; length])),
            Withdrawn,
        );
    }
    add(
        "RFC 7606 §7.14: an unknown extended community is no error",
        External,
        with(External, attribute(0xc0, 16, &[0x3f, 9, 1, 2, 3, 4, 5, 6])),
        Accepted(|a| a.ext_communities.len() == 1),
    );
    for length in [0usize, 11, 13] {
        add(
            &format!("RFC 8092 §6: LARGE_COMMUNITY of {length} octets"),
            External,
            with(External, attribute(0xc0, 32, &vec![1; length])),
            Withdrawn,
        );
    }
    for code in [0u8, 99, 200] {
        add(
            &format!("RFC 4271 §6.3: attribute {code} claims to be well-known"),
            External,
            and(attribute(0x40, code, &[1])),
            Reset(2),
        );
    }
    cases
}
