//! What becomes of attributes on the way through. RFC 4271 §5, RFC 1997, RFC 4360, RFC 8092.

use anyhow::{Result, ensure};
use causeway_bgp_wire::PathAttributes;

use crate::octets::*;
use crate::peer::{Peer, established};
use crate::runner::{Case, Site, case};
use crate::speaker::{AS, Config};

const PREFIX: &str = "198.51.100.0/24";

/// An external peer (2) announces with these attributes added; what the external (3) and internal (4) watchers get.
fn through(
    site: &Site,
    added: &[Vec<u8>],
    check: impl Fn(&PathAttributes, &PathAttributes) -> Result<()>,
) -> Result<()> {
    let _speaker = Config::new().peer(2, 65002).peer(3, 65003).peer(4, AS).start(site)?;
    let mut external = established(site, 3, 65003)?;
    let mut internal = established(site, 4, AS)?;
    let mut peer = established(site, 2, 65002)?;
    let mut attributes = vec![origin(0), as_path(&[65002, 65010]), next_hop(site.v4(2))];
    attributes.retain(|a| !added.iter().any(|new| new[1] == a[1]));
    attributes.extend_from_slice(added);
    peer.send(&update(&[], &attributes, &nlri(PREFIX)))?;
    check(&external.route(PREFIX)?, &internal.route(PREFIX)?)
}

/// The same, where both watchers must see the same thing.
fn both(name: &str, added: Vec<Vec<u8>>, wanted: fn(&PathAttributes) -> bool) -> Case {
    case(name, move |site| {
        through(site, &added, |external, internal| {
            ensure!(wanted(external), "external: {external:?}");
            ensure!(wanted(internal), "internal: {internal:?}");
            Ok(())
        })
    })
}

/// The octets of the attribute in the last UPDATE that has it.
fn raw_attribute(peer: &Peer, head: &[u8]) -> bool {
    peer.raw.iter().any(|message| message.windows(head.len()).any(|window| window == head))
}

pub fn cases() -> Vec<Case> {
    let mut cases = vec![
        both("RFC 4271 §5.1.1: ORIGIN EGP goes on", vec![origin(1)], |a| a.origin as u8 == 1),
        both("RFC 4271 §5.1.1: ORIGIN INCOMPLETE goes on", vec![origin(2)], |a| a.origin as u8 == 2),
        both("RFC 4271 §5.1.6: ATOMIC_AGGREGATE goes on", vec![attribute(0x40, 6, &[])], |a| {
            a.atomic_aggregate
        }),
        both(
            "RFC 4271 §5.1.7: AGGREGATOR goes on",
            vec![attribute(0xc0, 7, &[0, 1, 0, 0, 10, 0, 0, 9])],
            |a| a.aggregator.is_some_and(|g| g.asn.0 == 65536 && g.router_id.octets() == [10, 0, 0, 9]),
        ),
        both("RFC 1997: communities go on", vec![communities(&[0xfc00_0064, 0xfc00_0065])], |a| {
            let mut values: Vec<u32> = a.communities.iter().map(|c| c.0).collect();
            values.sort_unstable();
            values == [0xfc00_0064, 0xfc00_0065]
        }),
        both(
            "RFC 4360 §6: transitive extended communities go on",
            vec![attribute(0xc0, 16, &[0, 2, 0xfc, 0, 0, 0, 0, 7])],
            |a| a.ext_communities.iter().map(|c| c.0).eq([[0, 2, 0xfc, 0, 0, 0, 0, 7]]),
        ),
        both(
            "RFC 8092 §3: large communities go on",
            vec![attribute(0xc0, 32, &[0, 0, 0xfc, 0, 0, 0, 0, 1, 0, 0, 0, 2])],
            |a| a.large_communities.iter().map(ToString::to_string).eq(["64512:1:2"]),
        ),
        both(
            "RFC 8092 §5: repeated large communities go on once",
            vec![attribute(0xc0, 32, &[[0, 0, 0, 9, 0, 0, 0, 1, 0, 0, 0, 2]; 2].concat())],
            |a| a.large_communities.len() == 1,
        ),
        both(
            "RFC 4271 §5: an unknown optional transitive attribute goes on",
            vec![attribute(0xc0, 99, &[1, 2, 3])],
            |a| a.unknown.len() == 1 && a.unknown[0].code == 99 && *a.unknown[0].value == [1, 2, 3],
        ),
        both(
            "RFC 4271 §5: an unknown optional non-transitive attribute does not",
            vec![attribute(0x80, 99, &[1, 2, 3])],
            |a| a.unknown.is_empty(),
        ),
        both(
            "RFC 4271 §4.3: an attribute of more than 255 octets",
            vec![attribute(0xd0, 8, &[7; 400])],
            |a| !a.communities.is_empty(),
        ),
        case("RFC 4271 §5: the Partial bit is set on an unknown attribute that goes on", |site| {
            let _speaker = Config::new().peer(2, 65002).peer(3, 65003).start(site)?;
            let mut watcher = established(site, 3, 65003)?;
            let mut peer = established(site, 2, 65002)?;
            let attributes =
                [origin(0), as_path(&[65002]), next_hop(site.v4(2)), attribute(0xc0, 99, &[1, 2, 3])];
            peer.send(&update(&[], &attributes, &nlri(PREFIX)))?;
            watcher.route(PREFIX)?;
            ensure!(raw_attribute(&watcher, &[0xe0, 99, 3, 1, 2, 3]), "not with flags 0xe0");
            Ok(())
        }),
        case("RFC 4271 §5: a Partial bit that is set stays set", |site| {
            let _speaker = Config::new().peer(2, 65002).peer(3, 65003).start(site)?;
            let mut watcher = established(site, 3, 65003)?;
            let mut peer = established(site, 2, 65002)?;
            let attributes =
                [origin(0), as_path(&[65002]), next_hop(site.v4(2)), attribute(0xe0, 8, &[0xfc, 0, 0, 1])];
            peer.send(&update(&[], &attributes, &nlri(PREFIX)))?;
            watcher.route(PREFIX)?;
            ensure!(raw_attribute(&watcher, &[0xe0, 8, 4, 0xfc, 0, 0, 1]), "cleared");
            Ok(())
        }),
        case("RFC 4271 §5.1.4: MED of another AS goes to internal peers and not beyond", |site| {
            through(site, &[med(77)], |external, internal| {
                ensure!(external.med.is_none(), "external: {:?}", external.med);
                ensure!(internal.med == Some(77), "internal: {:?}", internal.med);
                Ok(())
            })
        }),
        case("RFC 4271 §5.1.5: LOCAL_PREF goes to internal peers only, 100 by default", |site| {
            through(site, &[], |external, internal| {
                ensure!(external.local_pref.is_none() && internal.local_pref == Some(100), "{internal:?}");
                Ok(())
            })
        }),
        case("RFC 4271 §5.1.2: the own AS is put before the path towards external peers only", |site| {
            through(site, &[], |external, internal| {
                ensure!(
                    external.as_path.to_string() == "65001 65002 65010",
                    "external: {}",
                    external.as_path
                );
                ensure!(internal.as_path.to_string() == "65002 65010", "internal: {}", internal.as_path);
                Ok(())
            })
        }),
        case("RFC 4271 §5.1.2: a path that begins with a set gets a sequence before it", |site| {
            let path = attribute(0x40, 2, &[1, 2, 0, 0, 0xfd, 0xf2, 0, 0, 0xfd, 0xf3]);
            through(site, &[path], |external, internal| {
                ensure!(external.as_path.segments().count() == 2, "external: {}", external.as_path);
                ensure!(
                    external.as_path.first_as().is_some_and(|a| a.0 == AS),
                    "external: {}",
                    external.as_path
                );
                ensure!(internal.as_path.segments().count() == 1, "internal: {}", internal.as_path);
                Ok(())
            })
        }),
        case("RFC 4271 §5.1.2: a segment of 255 numbers gets another before it", |site| {
            let mut value = vec![2, 255];
            value.extend((0..255u32).flat_map(|i| (70_000 + i).to_be_bytes()));
            through(site, &[attribute(0x50, 2, &value)], |external, _| {
                ensure!(external.as_path.length() == 256, "{}", external.as_path.length());
                Ok(())
            })
        }),
    ];
    for (name, community) in [("NO_EXPORT", 0xffff_ff01u32), ("NO_EXPORT_SUBCONFED", 0xffff_ff03)] {
        cases.push(case(format!("RFC 1997: {name} goes to internal peers only"), move |site| {
            hidden(site, community, true)
        }));
    }
    cases.push(case("RFC 1997: NO_ADVERTISE goes to nobody", |site| hidden(site, 0xffff_ff02, false)));
    cases
}

/// A route with the community is not advertised to an external peer, and to an internal one only if `to_internal`.
fn hidden(site: &Site, community: u32, to_internal: bool) -> Result<()> {
    let _speaker = Config::new().peer(2, 65002).peer(3, 65003).peer(4, AS).start(site)?;
    let mut external = established(site, 3, 65003)?;
    let mut internal = established(site, 4, AS)?;
    let mut peer = established(site, 2, 65002)?;
    let base = [origin(0), as_path(&[65002]), next_hop(site.v4(2))];
    let marked = [base.as_slice(), &[communities(&[community])]].concat();
    peer.send(&update(&[], &marked, &nlri(PREFIX)))?;
    peer.send(&update(&[], &base, &nlri("203.0.113.0/24")))?;
    external.route("203.0.113.0/24")?;
    internal.route("203.0.113.0/24")?;
    if to_internal {
        internal.route(PREFIX)?;
    }
    internal.listen_for(std::time::Duration::from_millis(300))?;
    external.listen_for(std::time::Duration::from_millis(300))?;
    ensure!(!external.has(PREFIX), "it went to the external peer");
    ensure!(internal.has(PREFIX) == to_internal, "internal: {}", internal.has(PREFIX));
    Ok(())
}
