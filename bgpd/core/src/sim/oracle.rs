//! What every node must hold, computed naively: rounds in which each node looks at what all its neighbours would send
//! it, until nothing changes any more. Shares no code with export, RIB or decision.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use causeway_bgp_wire::Prefix;

use super::topology::{Topology, v4_address};

/// A path as a node shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Route {
    pub as_path: Vec<u32>,
    /// The node whose address the next hop is; `None`: this node's own prefix.
    pub next_hop: Option<usize>,
    pub originator: Option<Ipv4Addr>,
    pub clusters: Vec<u32>,
    /// From which node.
    pub from: Option<usize>,
}

/// A path as a node holds it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Path {
    route: Route,
    ebgp: bool,
    client: bool,
}

/// What each node shows.
pub type Tables = Vec<BTreeMap<Prefix, Route>>;

/// What `sender` sends `receiver` of a path it holds, as the receiver takes it in.
fn transfer(
    topology: &Topology,
    prefix: &Prefix,
    path: &Path,
    sender: usize,
    receiver: usize,
) -> Option<Path> {
    let (from, to) = (&topology.plans[sender], &topology.plans[receiver]);
    let held = &path.route;
    if held.from == Some(receiver) || from.hidden.contains(prefix) {
        return None;
    }
    let mut sent = Route { from: Some(sender), ..held.clone() };
    let ebgp = from.asn != to.asn;
    if ebgp {
        sent.as_path.insert(0, from.asn);
        sent.next_hop = Some(sender);
        (sent.originator, sent.clusters) = (None, vec![]);
    } else {
        sent.next_hop = sent.next_hop.filter(|_| !from.next_hop_self).or(Some(sender));
        if held.from.is_some() && !path.ebgp {
            let cluster = from.cluster.filter(|_| path.client || topology.is_client(sender, receiver))?;
            sent.originator = sent.originator.or(held.from.map(v4_address));
            sent.clusters.insert(0, cluster);
        }
    }
    let loops = sent.as_path.iter().filter(|asn| **asn == to.asn).count();
    let refused = loops > usize::from(to.allowed_local_as)
        || sent.originator == Some(v4_address(receiver))
        || to.cluster.is_some_and(|cluster| sent.clusters.contains(&cluster))
        || sent.next_hop == Some(receiver);
    (!refused).then(|| Path { route: sent, ebgp, client: topology.is_client(receiver, sender) })
}

fn preference(path: &Path) -> impl Ord + use<> {
    let route = &path.route;
    let from = route.from.map(v4_address);
    let identifier = route.originator.or(from);
    (from.is_some(), route.as_path.len(), !path.ebgp, identifier, route.clusters.len(), from)
}

/// What the nodes that are alive hold over the links given.
pub fn tables(topology: &Topology, links: &[(usize, usize)], alive: &[bool]) -> Tables {
    type Held = Vec<BTreeMap<Prefix, Path>>;
    let count = topology.plans.len();
    let own = |node: usize| {
        let own = topology.plans[node].own.iter().filter(|_| alive[node]);
        own.map(|prefix| (*prefix, Path::default())).collect()
    };
    let mut held: Held = vec![BTreeMap::new(); count];
    for _ in 0..200 {
        let mut next: Held = (0..count).map(own).collect();
        let directed = links.iter().flat_map(|(a, b)| [(*a, *b), (*b, *a)]);
        for (sender, receiver) in directed.filter(|(a, b)| alive[*a] && alive[*b]) {
            for (prefix, path) in &held[sender] {
                let Some(path) = transfer(topology, prefix, path, sender, receiver) else { continue };
                let best = next[receiver].get(prefix);
                if best.is_none_or(|best| preference(&path) < preference(best)) {
                    next[receiver].insert(*prefix, path);
                }
            }
        }
        if next == held {
            let routes = |table: BTreeMap<Prefix, Path>| table.into_iter().map(|(p, path)| (p, path.route));
            return held.into_iter().map(|table| routes(table).collect()).collect();
        }
        held = next;
    }
    panic!("the naive computation does not come to rest");
}

/// Follows next hops from everywhere to every prefix: each walk must end at the node whose prefix it is.
pub fn check_forwarding(topology: &Topology, tables: &Tables) {
    for (start, table) in tables.iter().enumerate() {
        for (prefix, route) in table {
            let (mut at, mut hop, mut length) = (start, route.next_hop, 0);
            while let Some(next) = hop {
                length += 1;
                assert!(length <= tables.len(), "{prefix} loops on the way from node {start}");
                at = next;
                hop = tables[at].get(prefix).expect("the next hop knows the way").next_hop;
            }
            assert!(topology.plans[at].own.contains(prefix), "{prefix} from node {start} ends at {at}");
        }
    }
}

/// The address as a node's number.
pub fn node_of(address: IpAddr, count: usize) -> Option<usize> {
    match address {
        IpAddr::V4(v4) => (0..count).find(|node| v4_address(*node) == v4),
        IpAddr::V6(v6) => (0..count).find(|node| usize::from(v6.segments()[7]) == node + 1),
    }
}
