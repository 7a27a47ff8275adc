//! Reads BGP messages in hex from standard input, one a line, and prints for each a line of JSON with what bgp-rs read
//! in it: the object of an UPDATE, `{"error": ...}` for one it refuses, `{"panic": true}` for one it breaks on.
//! Four-octet AS numbers, no path identifiers.

use std::io::{BufRead, Write};
use std::net::Ipv4Addr;
use std::panic::catch_unwind;

use bgp_rs::{Capabilities, Message, NLRIEncoding, PathAttribute, Reader, Segment, Update};
use serde_json::{Value, json};

fn main() -> std::io::Result<()> {
    // A panic is an answer here; its message would only drown the others.
    std::panic::set_hook(Box::new(|_| {}));
    let mut out = std::io::stdout().lock();
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let answer = catch_unwind(|| read(&line)).unwrap_or_else(|_| json!({"panic": true}));
        writeln!(out, "{answer}")?;
    }
    Ok(())
}

fn read(hex: &str) -> Value {
    let octets: Option<Vec<u8>> =
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(hex.get(at..at + 2)?, 16).ok()).collect();
    let Some(octets) = octets else { return json!({"error": "not hex"}) };
    let capabilities = Capabilities { FOUR_OCTET_ASN_SUPPORT: true, ..Capabilities::default() };
    let mut reader = Reader { stream: octets.as_slice(), capabilities: &capabilities };
    match reader.read() {
        Ok((_, Message::Update(update))) => describe(&update),
        Ok((header, _)) => json!({"type": header.record_type}),
        Err(error) => json!({"error": error.to_string()}),
    }
}

fn prefixes(list: &[NLRIEncoding]) -> Vec<String> {
    list.iter()
        .map(|nlri| match nlri {
            NLRIEncoding::IP(prefix) => prefix.to_string(),
            other => format!("{other:?}"),
        })
        .collect()
}

fn path(segments: &[Segment]) -> String {
    let text = |asns: &[u32], separator| asns.iter().map(u32::to_string).collect::<Vec<_>>().join(separator);
    let segments = segments.iter().map(|segment| match segment {
        Segment::AS_SEQUENCE(asns) => text(asns, " "),
        Segment::AS_SET(asns) => format!("{{{}}}", text(asns, ",")),
    });
    segments.collect::<Vec<_>>().join(" ")
}

fn describe(update: &Update) -> Value {
    let mut announced = prefixes(&update.announced_routes);
    let mut withdrawn = prefixes(&update.withdrawn_routes);
    let mut object = json!({});
    for attribute in &update.attributes {
        let (name, value) = match attribute {
            PathAttribute::ORIGIN(origin) => ("origin", json!(format!("{origin}"))),
            PathAttribute::AS_PATH(as_path) => ("asPath", json!(path(&as_path.segments))),
            PathAttribute::NEXT_HOP(address) => ("nextHop", json!(address.to_string())),
            PathAttribute::MULTI_EXIT_DISC(med) => ("med", json!(med)),
            PathAttribute::LOCAL_PREF(preference) => ("localPref", json!(preference)),
            PathAttribute::ATOMIC_AGGREGATOR => ("atomicAggregate", json!(true)),
            PathAttribute::AGGREGATOR((asn, id)) => ("aggregator", json!(format!("{asn} {id}"))),
            PathAttribute::COMMUNITY(list) => ("communities", json!(list)),
            PathAttribute::ORIGINATOR_ID(id) => ("originatorId", json!(Ipv4Addr::from(*id).to_string())),
            PathAttribute::CLUSTER_LIST(list) => ("clusterList", json!(list)),
            PathAttribute::EXTENDED_COMMUNITIES(list) => ("extCommunities", json!(list)),
            PathAttribute::LARGE_COMMUNITY(list) => ("largeCommunities", json!(list)),
            PathAttribute::MP_REACH_NLRI(reach) => {
                announced.extend(prefixes(&reach.announced_routes));
                ("mpNextHop", json!(reach.next_hop))
            }
            PathAttribute::MP_UNREACH_NLRI(unreach) => {
                withdrawn.extend(prefixes(&unreach.withdrawn_routes));
                continue;
            }
            other => ("other", json!(format!("{other:?}"))),
        };
        object[name] = value;
    }
    object["announced"] = json!(announced);
    object["withdrawn"] = json!(withdrawn);
    object
}
