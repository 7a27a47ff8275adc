//! Topologies go quiet and hold what the naive computation says, from the start and after anything that may happen.

use std::time::{Duration, Instant};

use super::network::Network;
use super::node::Node;
use super::oracle::{self, Route, Tables};
use super::topology::{Topology, own_prefix};
use crate::event::Input;
use crate::speaker::Direction;

/// After this much virtual time without disturbance nothing but keepalives may be on the wires: hold time, restart
/// times and the longest back-off lie within.
const SETTLE: Duration = Duration::from_secs(900);
/// The UPDATEs of a settling network must have ended this long before.
const QUIET: Duration = Duration::from_secs(100);

fn held(network: &Network) -> Tables {
    let count = network.nodes.len();
    let table = |node: &Node| {
        let row = |row: crate::speaker::RouteView| {
            let from = row.peer.and_then(|peer| node.address_of(peer));
            let next_hop = from.and_then(|_| oracle::node_of(row.attrs.next_hop.global, count));
            let route = Route {
                as_path: row.attrs.as_path.asns().map(|asn| asn.0).collect(),
                next_hop,
                originator: row.attrs.originator_id,
                clusters: row.attrs.cluster_list.iter().map(|id| id.to_bits()).collect(),
                from: from.and_then(|address| oracle::node_of(address, count)),
            };
            assert!(!row.stale, "{} is stale", row.prefix);
            (row.prefix, route)
        };
        node.routes(Direction::Best).into_iter().map(row).collect()
    };
    network.nodes.iter().map(|node| node.as_ref().map(table).unwrap_or_default()).collect()
}

/// What a node says it sends a peer is what that peer says it has received.
fn check_both_ends(network: &Network) {
    for (index, node) in network.nodes.iter().enumerate() {
        let Some(node) = node else { continue };
        let advertised = node.routes(Direction::Advertised);
        for peer in node.peer_ids() {
            let other = node.address_of(peer).and_then(|address| network.node_at(address)).unwrap();
            let Some(receiver) = &network.nodes[other] else { continue };
            let from = receiver.peer_at(network.address(index)).unwrap();
            let sent = advertised.iter().filter(|row| row.peer == Some(peer)).map(|row| row.prefix);
            let (mut sent, learned): (Vec<_>, Vec<_>) = (sent.collect(), receiver.routes(Direction::Learned));
            let learned = learned.iter().filter(|row| row.peer == Some(from)).map(|row| row.prefix);
            let mut learned: Vec<_> = learned.collect();
            sent.sort_unstable();
            learned.sort_unstable();
            assert_eq!(sent, learned, "node {index} to node {other}");
        }
    }
}

fn check(topology: &Topology, network: &mut Network, since: Instant) {
    let last = network.last_update().unwrap_or(since);
    let quiet = network.now.duration_since(last);
    assert!(quiet >= QUIET, "the last UPDATE came {quiet:?} ago");
    let alive: Vec<bool> = network.nodes.iter().map(Option::is_some).collect();
    let up: Vec<(usize, usize)> =
        network.links.iter().filter(|link| link.up).map(|link| (link.ends[0], link.ends[1])).collect();
    for (a, b) in up.iter().filter(|(a, b)| alive[*a] && alive[*b]) {
        let established = |node: usize, other: usize| {
            let node = network.nodes[node].as_ref().unwrap();
            node.peer_at(network.address(other)).is_some_and(|peer| node.is_established(peer))
        };
        assert!(established(*a, *b) && established(*b, *a), "session between {a} and {b}");
    }
    let expected = oracle::tables(topology, &up, &alive);
    let held = held(network);
    for (node, (held, expected)) in held.iter().zip(&expected).enumerate() {
        assert_eq!(held, expected, "table of node {node}");
    }
    check_both_ends(network);
    // Filters and next hops changed at will may well make black holes.
    let plain = topology.plans.iter().all(|plan| plan.hidden.is_empty() && !plan.next_hop_self);
    if plain && up.len() == topology.links.len() && alive.iter().all(|alive| *alive) {
        oracle::check_forwarding(topology, &held);
    }
}

fn settle(topology: &Topology, network: &mut Network) {
    let since = network.now;
    network.run_for(SETTLE);
    check(topology, network, since);
}

fn converges(topology: &Topology) {
    for seed in 0..3 {
        let mut network = topology.build(seed);
        settle(topology, &mut network);
        let all: usize = topology.plans.iter().map(|plan| plan.own.len()).sum();
        let complete = held(&network).iter().all(|table| table.len() == all);
        assert!(complete, "everything is reachable from everywhere");
    }
}

/// One thing that happens; some of them only while others have not.
fn disturb(topology: &mut Topology, network: &mut Network) {
    let nodes = topology.plans.len();
    let (node, link) = (network.rng.usize(0..nodes), network.rng.usize(0..topology.links.len()));
    match network.rng.u32(0..10) {
        0 => network.set_link(link, false),
        1 | 2 => network.set_link(link, true),
        3 => {
            // One prefix more or less.
            let prefix = own_prefix(node, network.rng.u8(10..14));
            let own = &mut topology.plans[node].own;
            match own.iter().position(|other| *other == prefix) {
                Some(index) => drop(own.remove(index)),
                None => own.push(prefix),
            }
            network.configure(node, topology.config(node));
        }
        // Live changes of policy and next hops.
        7 => {
            let prefix = own_prefix(network.rng.usize(0..nodes), network.rng.u8(0..2));
            let hidden = &mut topology.plans[node].hidden;
            match hidden.iter().position(|other| *other == prefix) {
                Some(index) => drop(hidden.remove(index)),
                None => hidden.push(prefix),
            }
            network.configure(node, topology.config(node));
        }
        8 => {
            topology.plans[node].next_hop_self ^= true;
            network.configure(node, topology.config(node));
        }
        4 if network.nodes[node].is_some() => {
            let restarting = network.rng.bool();
            let away = Duration::from_millis(network.rng.u64(10..150_000));
            network.kill(node);
            network.start_after(node, away, restarting);
        }
        5 | 6 => {
            let peers = network.nodes[node].as_ref().map(Node::peer_ids).unwrap_or_default();
            if let Some(peer) = network.rng.choice(peers) {
                let soft_in = network.rng.bool();
                network.speak(node, if soft_in { Input::SoftIn(peer) } else { Input::SoftOut(peer) });
            }
        }
        _ => {}
    }
    let pause = network.rng.u64(0..40_000);
    network.run_for(Duration::from_millis(pause));
}

fn survives(mut topology: Topology, seed: u64) {
    let mut network = topology.build(seed);
    for round in 0..4 {
        for _ in 0..network.rng.usize(1..12) {
            disturb(&mut topology, &mut network);
        }
        // Some links stay down for a round.
        for link in 0..topology.links.len() {
            if round % 2 == 1 || network.rng.bool() {
                network.set_link(link, true);
            }
        }
        network.run_for(Duration::from_secs(200));
        settle(&topology, &mut network);
    }
}

#[test]
fn a_full_mesh() {
    converges(&Topology::mesh(6));
}

#[test]
fn a_pair_of_reflectors_in_one_cluster() {
    converges(&Topology::reflectors(6, true));
}

#[test]
fn a_pair_of_reflectors_with_a_cluster_each() {
    converges(&Topology::reflectors(6, false));
}

#[test]
fn reflectors_in_a_hierarchy() {
    converges(&Topology::hierarchy());
}

#[test]
fn two_racks_of_an_as_a_node() {
    converges(&Topology::two_racks());
}

#[test]
fn racks_whose_nodes_share_an_as() {
    converges(&Topology::rack_as());
}

#[test]
fn two_ases_joined_at_two_borders() {
    converges(&Topology::two_ases());
}

/// How many random histories each topology lives through; `CAUSEWAY_SIM_SEEDS` asks for more.
fn seeds() -> std::ops::Range<u64> {
    let asked = std::env::var("CAUSEWAY_SIM_SEEDS").ok();
    0..asked.map_or(3, |seeds| seeds.parse().expect("CAUSEWAY_SIM_SEEDS is a number"))
}

#[test]
fn a_mesh_survives() {
    seeds().for_each(|seed| survives(Topology::mesh(5), seed));
}

#[test]
fn reflectors_survive() {
    seeds().for_each(|seed| survives(Topology::reflectors(4, seed % 2 == 0), seed));
}

#[test]
fn a_hierarchy_of_reflectors_survives() {
    seeds().for_each(|seed| survives(Topology::hierarchy(), seed));
}

#[test]
fn two_racks_survive() {
    seeds().for_each(|seed| survives(Topology::two_racks(), seed));
}

#[test]
fn racks_of_one_as_survive() {
    seeds().for_each(|seed| survives(Topology::rack_as(), seed));
}

#[test]
fn two_ases_survive() {
    seeds().for_each(|seed| survives(Topology::two_ases(), seed));
}

#[test]
fn one_flap_in_a_settled_network_costs_each_node_little() {
    let mut topology = Topology::reflectors(10, true);
    let mut network = topology.build(1);
    settle(&topology, &mut network);
    let before = network.updates();
    topology.plans[5].own.push(own_prefix(5, 12));
    network.configure(5, topology.config(5));
    settle(&topology, &mut network);
    // The client tells two reflectors; they tell nine other clients and each other.
    assert_eq!(network.updates() - before, 2 + 2 * 9 + 2);
}

#[test]
fn rfc4724_a_restart_within_its_time_withdraws_nothing_anywhere() {
    let topology = Topology::two_racks();
    let mut network = topology.build(3);
    settle(&topology, &mut network);
    let tor = 1;
    network.kill(tor);
    network.start_after(tor, Duration::from_secs(20), true);
    let all: usize = topology.plans.iter().map(|plan| plan.own.len()).sum();
    for _ in 0..600 {
        network.run_for(Duration::from_millis(200));
        for (index, node) in network.nodes.iter().enumerate() {
            if let (Some(node), true) = (node, index != tor) {
                assert_eq!(node.routes(Direction::Best).len(), all, "node {index}");
            }
        }
    }
    settle(&topology, &mut network);
}
