//! The peer's own view: what FRR, BIRD, GoBGP and OpenBGPD say they got from a node and sent to it, against what the node says.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use causeway_integration::lab::Lab;
use serde_json::Value;

/// Checks that what a node says it sends to and has from a peer is what the peer says: `sent` and `received` are
/// `(prefix, next hop, AS path)` as the peer sees them.
pub fn views_agree(lab: &Lab, node: &str, peer: &str, from_node: &Triples, to_node: &Triples) -> Result<()> {
    for (direction, theirs) in [("advertised", from_node), ("learned", to_node)] {
        let rows = lab.routes(node, direction)?;
        let ours: Triples = rows
            .iter()
            .filter(|row| row.peer.as_deref() == Some(peer))
            .map(|row| {
                let path: Vec<String> = row
                    .as_path
                    .iter()
                    .map(|element| serde_json::to_string(element).unwrap_or_default())
                    .collect();
                let next_hop = row.next_hop.map(|address| address.to_string()).unwrap_or_default();
                (row.prefix.to_string(), next_hop, path.join(" "))
            })
            .collect();
        ensure!(!ours.is_empty(), "{node} has no {direction} routes of {peer}");
        let only_ours: Vec<_> = ours.difference(theirs).collect();
        let only_theirs: Vec<_> = theirs.difference(&ours).collect();
        ensure!(
            only_ours.is_empty() && only_theirs.is_empty(),
            "{node}, {direction}, {peer}: only {node} says {only_ours:?}, only the peer says {only_theirs:?}"
        );
    }
    Ok(())
}

/// `(prefix, next hop, AS path)` of a set of routes.
pub type Triples = BTreeSet<(String, String, String)>;

/// A router as its neighbour sees it.
pub struct Router<'a> {
    /// Short name in the lab.
    pub name: &'a str,
    pub asn: u32,
    /// Its addresses on the link to the neighbour.
    pub ipv4: &'a str,
    pub ipv6: &'a str,
}

/// What FRR says of a neighbour: received from it, sent to it (attributes as sent).
pub fn frr_view(lab: &Lab, router: &Router<'_>, neighbour: &str) -> Result<(Triples, Triples)> {
    let mut received = Triples::new();
    let mut sent = Triples::new();
    for family in ["ipv4", "ipv6"] {
        let show = |what: &str| -> Result<Value> {
            lab.json(
                router.name,
                &["vtysh", "-c", &format!("show bgp {family} unicast neighbors {neighbour} {what} json")],
            )
        };
        let routes = show("routes")?;
        for (prefix, paths) in routes["routes"].as_object().into_iter().flatten() {
            for path in paths.as_array().into_iter().flatten() {
                let hops = path["nexthops"].as_array().map(Vec::as_slice).unwrap_or_default();
                let global = hops.iter().find(|hop| hop["scope"] != "link-local");
                let hop = global.and_then(|hop| hop["ip"].as_str()).unwrap_or_default();
                received.insert((prefix.clone(), hop.to_owned(), text(&path["path"])));
            }
        }
        let advertised = show("advertised-routes")?;
        for (prefix, path) in advertised["advertisedRoutes"].as_object().into_iter().flatten() {
            // FRR shows the path before it prepends its own AS, and next hop self as the unspecified address.
            let (hop, own) = match family {
                "ipv4" => (text(&path["nextHop"]), router.ipv4),
                _ => (text(&path["nextHopGlobal"]), router.ipv6),
            };
            let hop = if hop == "0.0.0.0" || hop == "::" { own.to_owned() } else { hop };
            let as_path = format!("{} {}", router.asn, text(&path["path"])).trim().to_owned();
            sent.insert((prefix.clone(), hop, as_path));
        }
    }
    Ok((received, sent))
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// What BIRD says of a protocol. It shows exported routes before export, so path and next hop self are filled in here.
pub fn bird_view(lab: &Lab, router: &Router<'_>, protocol: &str) -> Result<(Triples, Triples)> {
    let show = |what: &str| -> Result<Triples> {
        Ok(bird_routes(&lab.text(router.name, &["birdc", "show", "route", what, protocol, "all"])?))
    };
    let sent = show("export")?.into_iter().map(|(prefix, _, path)| {
        let own = if prefix.contains(':') { router.ipv6 } else { router.ipv4 };
        (prefix, own.to_owned(), format!("{} {path}", router.asn).trim().to_owned())
    });
    Ok((show("protocol")?, sent.collect()))
}

fn bird_routes(text: &str) -> Triples {
    let mut routes = Triples::new();
    let mut current: Option<(String, String, String)> = None;
    for line in text.lines() {
        let first = line.split_whitespace().next().unwrap_or_default();
        if !line.starts_with(char::is_whitespace) && first.contains('/') {
            routes.extend(current.replace((first.to_owned(), String::new(), String::new())));
        } else if let Some((_, hop, path)) = &mut current {
            let line = line.trim();
            if let Some(rest) = line.strip_prefix("BGP.next_hop: ") {
                rest.split(' ').next().unwrap_or_default().clone_into(hop);
            } else if let Some(rest) = line.strip_prefix("BGP.as_path: ") {
                rest.clone_into(path);
            }
        }
    }
    routes.extend(current);
    routes
}

/// What GoBGP says of a neighbour.
pub fn gobgp_view(lab: &Lab, router: &str, neighbour: &str, family: &str) -> Result<(Triples, Triples)> {
    let show = |what: &str| -> Result<Triples> {
        let table = lab.json(router, &["gobgp", "-j", "neighbor", neighbour, what, "-a", family])?;
        ensure!(table.get("error").is_none(), "GoBGP: {table}");
        let mut routes = Triples::new();
        for (prefix, paths) in table.as_object().into_iter().flatten() {
            for path in paths.as_array().into_iter().flatten() {
                let attributes = path["attrs"].as_array().map(Vec::as_slice).unwrap_or_default();
                let of = |kinds: [i64; 2]| {
                    attributes.iter().find(|one| kinds.iter().any(|kind| one["type"] == *kind))
                };
                let hop = of([3, 14]).map(|one| text(&one["nexthop"])).unwrap_or_default();
                let segments = of([2, 2])
                    .and_then(|one| one["as_paths"].as_array())
                    .map(Vec::as_slice)
                    .unwrap_or_default();
                let numbers = segments.iter().filter_map(|segment| segment["asns"].as_array()).flatten();
                let as_path: Vec<String> = numbers.map(ToString::to_string).collect();
                routes.insert((prefix.clone(), hop, as_path.join(" ")));
            }
        }
        Ok(routes)
    };
    Ok((show("adj-in")?, show("adj-out")?))
}

/// What OpenBGPD says of a neighbour.
pub fn openbgpd_view(lab: &Lab, router: &str, neighbour: &str) -> Result<(Triples, Triples)> {
    let show = |what: &str, hop: &str| -> Result<Triples> {
        let table = lab.json(router, &["bgpctl", "-j", "show", "rib", what, "neighbor", neighbour])?;
        let rows = table["rib"].as_array().cloned().unwrap_or_default();
        Ok(rows.iter().map(|row| (text(&row["prefix"]), text(&row[hop]), text(&row["aspath"]))).collect())
    };
    Ok((show("in", "exit_nexthop")?, show("out", "true_nexthop")?))
}
