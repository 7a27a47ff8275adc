//! `show routes`: what was learned, what is advertised, what won and why.

use causeway_api::control::{AsPathElement, BGPD_SOCKET, Direction, Family, Route};
use comfy_table::Cell;
use ipnetwork::IpNetwork;

use crate::client::{Client, encode};
use crate::render::{Listing, Output, Row, duration, judged, or_dash};
use crate::{Error, RoutesArgs};

/// Prints the rows asked for, sorted by prefix unless they are too many to be held.
pub fn show(client: &Client, output: &Output, args: &RoutesArgs) -> Result<(), Error> {
    let (direction, prefix) = words(&args.words)?;
    let every_path = direction.is_none() && prefix.is_some() && !args.longer;
    let mut query = Vec::new();
    if let Some(direction) = direction.or((!every_path).then_some("best")) {
        query.push(format!("direction={direction}"));
    }
    if let Some(prefix) = prefix {
        query.push(format!("prefix={}", encode(&prefix.to_string())));
    }
    if let Some(peer) = &args.peer {
        query.push(format!("peer={}", encode(peer)));
    }
    if let Some(family) = args.family {
        query.push(format!("family={}", Family::from(family)));
    }
    if args.longer {
        query.push("longer=true".to_owned());
    }
    let target = format!("/v1/routes?{}", query.join("&"));
    if let (Some(prefix), true) = (prefix, every_path) {
        let mut routes: Vec<Route> = client.get(BGPD_SOCKET, &target)?;
        Route::sort(&mut routes);
        return output.print(&routes, |_| story(prefix, &routes));
    }
    let mut listing = Listing::new(output);
    client.each(BGPD_SOCKET, &target, |route: Route| listing.add(route))?;
    listing.end("no routes\n")
}

/// Takes `[learned|advertised|best] [PREFIX]` apart.
fn words(words: &[String]) -> Result<(Option<&str>, Option<IpNetwork>), Error> {
    let (mut direction, mut prefix) = (None, None);
    for word in words {
        match word.as_str() {
            word @ ("learned" | "advertised" | "best") if direction.is_none() && prefix.is_none() => {
                direction = Some(word);
            }
            word if prefix.is_none() => {
                let network: IpNetwork = word.parse().map_err(|_| {
                    Error::Usage(format!("'{word}' is neither learned, advertised or best nor a prefix"))
                })?;
                let canonical = IpNetwork::new(network.network(), network.prefix())
                    .map_err(|error| Error::Usage(format!("'{word}': {error}")))?;
                prefix = Some(canonical);
            }
            word => return Err(Error::Usage(format!("'{word}' is one word too many"))),
        }
    }
    Ok((direction, prefix))
}

impl Row for Route {
    fn sort(rows: &mut [Route]) {
        rows.sort_by(|a, b| {
            (a.family, a.prefix, !a.best, &a.peer).cmp(&(b.family, b.prefix, !b.best, &b.peer))
        });
    }

    fn cells(output: &Output, routes: &[Route]) -> (Vec<&'static str>, Vec<Vec<Cell>>) {
        let direction = routes.first().map_or(Direction::Best, |route| route.direction);
        let peer = if direction == Direction::Advertised { "TO" } else { "FROM" };
        let mut headers = vec!["PREFIX", peer, "NEXT HOP", "AS PATH", "PREF", "MED", "AGE"];
        match direction {
            Direction::Best => headers.extend(["VIA", "FIB"]),
            Direction::Learned => headers.extend(["BEST", "ACCEPTED", "REASON"]),
            Direction::Advertised => {}
        }
        if output.is_wide() {
            headers.extend(["ORIGIN", "COMMUNITIES", "STALE"]);
            if direction != Direction::Best {
                headers.push("RULE");
            }
        }
        let rows = routes.iter().map(|route| {
            let mut row = vec![
                Cell::new(route.prefix),
                Cell::new(route.peer.as_deref().unwrap_or("local")),
                Cell::new(or_dash(route.next_hop)),
                Cell::new(as_path(&route.as_path)),
                Cell::new(or_dash(route.local_pref)),
                Cell::new(or_dash(route.med)),
                Cell::new(duration(route.age)),
            ];
            match direction {
                Direction::Best => {
                    row.push(Cell::new(or_dash(route.via)));
                    row.push(judged(&route.fib, fib_is_good(route)));
                }
                Direction::Learned => {
                    let mark = if route.best { "*" } else { "" };
                    let accepted = route.accepted.unwrap_or(true);
                    row.push(Cell::new(mark));
                    row.push(judged(if accepted { "yes" } else { "no" }, (!accepted).then_some(false)));
                    row.push(Cell::new(
                        if accepted { &route.reason } else { &route.rule }.as_deref().unwrap_or("-"),
                    ));
                }
                Direction::Advertised => {}
            }
            if output.is_wide() {
                row.push(Cell::new(origin(route)));
                row.push(Cell::new(communities(route)));
                row.push(Cell::new(if route.stale { "stale" } else { "-" }));
                if direction != Direction::Best {
                    row.push(Cell::new(or_dash(route.rule.as_ref())));
                }
            }
            row
        });
        (headers, rows.collect())
    }
}

fn fib_is_good(route: &Route) -> Option<bool> {
    match route.fib.as_str() {
        "installed" => Some(true),
        "not-programmed" => None,
        _ => Some(false),
    }
}

/// Every path of one prefix: which won, why each other lost, what the kernel holds.
fn story(prefix: IpNetwork, routes: &[Route]) -> String {
    let Some(best) = routes.iter().find(|route| route.best).or(routes.first()) else {
        return format!("{prefix}: no path\n");
    };
    let mut text = format!("{prefix}: {} path{}\n", routes.len(), if routes.len() == 1 { "" } else { "s" });
    text += &format!("  kernel: {}", best.fib);
    if let Some(via) = best.via {
        text += &format!(", {via}");
    }
    text.push('\n');
    for route in routes {
        let mark = match (route.best, route.multipath) {
            (true, _) => "* best",
            (false, true) => "= equal",
            (false, false) if route.backup => "+ backup",
            (false, false) if route.accepted == Some(false) => "x refused",
            (false, false) => "  lost",
        };
        let from = match (&route.peer, route.peer_as) {
            (None, _) => "this node's own".to_owned(),
            (Some(peer), Some(asn)) => format!("from {peer} (AS {asn})"),
            (Some(peer), None) => format!("from {peer}"),
        };
        text += &format!("\n  {mark:<10} {from}, {} ago", duration(route.age));
        if route.stale {
            text += ", stale";
        }
        let mut line = |name: &str, value: String| {
            if !value.is_empty() {
                text += &format!("\n             {name:<12} {value}");
            }
        };
        line("why", route.reason.clone().unwrap_or_default());
        line("rule", route.rule.clone().unwrap_or_default());
        line("next hop", route.next_hop.map(|hop| hop.to_string()).unwrap_or_default());
        line("weight", route.weight.map(|weight| weight.to_string()).unwrap_or_default());
        line("tunnel", route.tunnel.clone().unwrap_or_default());
        line("AS path", as_path(&route.as_path));
        line("origin", origin(route));
        line("local pref", route.local_pref.map(|pref| pref.to_string()).unwrap_or_default());
        line("MED", route.med.map(|med| med.to_string()).unwrap_or_default());
        line("communities", communities(route));
        line("originator", route.originator_id.clone().unwrap_or_default());
        line("clusters", route.cluster_list.join(" "));
        text.push('\n');
    }
    text
}

fn origin(route: &Route) -> String {
    format!("{:?}", route.origin).to_uppercase()
}

fn communities(route: &Route) -> String {
    let all: Vec<&str> =
        route.communities.iter().chain(&route.large_communities).map(String::as_str).collect();
    all.join(" ")
}

fn as_path(elements: &[AsPathElement]) -> String {
    let words: Vec<String> = elements
        .iter()
        .map(|element| match element {
            AsPathElement::Asn(asn) => asn.to_string(),
            AsPathElement::Set(set) => {
                let members: Vec<String> = set.iter().map(u32::to_string).collect();
                format!("{{{}}}", members.join(","))
            }
        })
        .collect();
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(text: &str) -> Result<(Option<String>, Option<String>), String> {
        let list: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
        words(&list)
            .map(|(direction, prefix)| (direction.map(str::to_owned), prefix.map(|p| p.to_string())))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn words_are_a_direction_and_a_prefix() {
        assert_eq!(taken("").unwrap(), (None, None));
        assert_eq!(taken("learned").unwrap(), (Some("learned".into()), None));
        assert_eq!(taken("10.244.2.7/24").unwrap(), (None, Some("10.244.2.0/24".into())));
        assert_eq!(
            taken("advertised fd00::/64").unwrap(),
            (Some("advertised".into()), Some("fd00::/64".into()))
        );
        assert!(taken("lerned").unwrap_err().contains("'lerned' is neither"));
        assert!(taken("10.0.0.0/8 learned").is_err());
    }

    #[test]
    fn a_set_is_braced() {
        assert_eq!(as_path(&[AsPathElement::Asn(1), AsPathElement::Set(vec![2, 3])]), "1 {2,3}");
    }
}
