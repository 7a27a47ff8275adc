//! Topologies: who is linked to whom, in which AS, with which prefixes and roles.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use causeway_bgp_wire::{Asn, FamilySet, Prefix};

use super::network::Network;
use crate::config::{
    Config, Distance, MaxPrefixes, NextHopMode, OwnPrefix, Password, PeerConfig, PeerKey, PeerSettings,
    RemoteAs, Role, SessionConfig,
};
use crate::policy::{
    Action, Conditions, ExportDefault, ExportPolicy, ImportPolicy, PrefixMatch, PrefixOperator, Rule,
    RuleChain,
};

/// A node to be.
#[derive(Clone, Debug)]
pub struct Plan {
    pub asn: u32,
    pub cluster: Option<u32>,
    pub own: Vec<Prefix>,
    pub allowed_local_as: u8,
    pub graceful: bool,
    /// Prefixes its export policy refuses.
    pub hidden: Vec<Prefix>,
    /// It is the next hop of whatever it sends.
    pub next_hop_self: bool,
}

/// Nodes and which of them are linked; a session runs over each link.
#[derive(Clone, Debug, Default)]
pub struct Topology {
    pub plans: Vec<Plan>,
    pub links: Vec<(usize, usize)>,
}

pub fn v4_address(node: usize) -> Ipv4Addr {
    Ipv4Addr::from(0xc0a8_0001 + node as u32)
}

fn v6_address(node: usize) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1 + node as u16)
}

/// A node's `number`th prefix, IPv6 where that is odd.
pub fn own_prefix(node: usize, number: u8) -> Prefix {
    let node = node as u16;
    let (address, len): (IpAddr, u8) = match number % 2 {
        0 => (Ipv4Addr::new(10, node as u8, number, 0).into(), 24),
        _ => (Ipv6Addr::new(0xfd00, node, number.into(), 0, 0, 0, 0, 0).into(), 64),
    };
    Prefix::new(address, len).unwrap()
}

impl Topology {
    /// Adds a node with prefixes of its own.
    pub fn add(&mut self, asn: u32, prefixes: u8) -> usize {
        let node = self.plans.len();
        let own = (0..prefixes).map(|number| own_prefix(node, number)).collect();
        self.plans.push(Plan {
            asn,
            cluster: None,
            own,
            allowed_local_as: 0,
            graceful: true,
            hidden: vec![],
            next_hop_self: false,
        });
        node
    }

    pub fn link(&mut self, a: usize, b: usize) {
        self.links.push((a, b));
    }

    /// Links all of these with each other.
    pub fn mesh_of(&mut self, nodes: &[usize]) {
        for (index, a) in nodes.iter().enumerate() {
            nodes[index + 1..].iter().for_each(|b| self.link(*a, *b));
        }
    }

    /// Nodes of one AS and one subnet, all linked.
    pub fn mesh(nodes: usize) -> Self {
        let mut topology = Topology::default();
        let all: Vec<usize> = (0..nodes).map(|_| topology.add(64512, 2)).collect();
        topology.mesh_of(&all);
        topology
    }

    /// Clients of two reflectors, in one cluster or in a cluster each.
    pub fn reflectors(clients: usize, one_cluster: bool) -> Self {
        let mut topology = Topology::default();
        let pair = [topology.add(64512, 0), topology.add(64512, 0)];
        topology.plans[0].cluster = Some(1);
        topology.plans[1].cluster = Some(if one_cluster { 1 } else { 2 });
        topology.link(0, 1);
        for _ in 0..clients {
            let client = topology.add(64512, 2);
            pair.iter().for_each(|reflector| topology.link(*reflector, client));
        }
        topology
    }

    /// Two reflectors above two each that have clients of their own: clusters in a hierarchy.
    pub fn hierarchy() -> Self {
        let mut topology = Topology::default();
        let top = [topology.add(64512, 1), topology.add(64512, 1)];
        topology.mesh_of(&top);
        for rack in 0..2 {
            let middle = [topology.add(64512, 0), topology.add(64512, 0)];
            for reflector in middle {
                topology.plans[reflector].cluster = Some(10 + rack);
                top.iter().for_each(|top| topology.link(*top, reflector));
            }
            for _ in 0..3 {
                let client = topology.add(64512, 2);
                middle.iter().for_each(|reflector| topology.link(*reflector, client));
            }
        }
        top.iter().for_each(|top| topology.plans[*top].cluster = Some(1));
        topology
    }

    /// Two racks: nodes of an AS each under a ToR of its own AS, ToRs under a spine.
    pub fn two_racks() -> Self {
        let mut topology = Topology::default();
        let spine = topology.add(64700, 1);
        for rack in 0..2 {
            let tor = topology.add(64601 + rack, 1);
            topology.link(spine, tor);
            for node in 0..2 {
                let node = topology.add(65001 + rack * 2 + node, 2);
                topology.link(tor, node);
            }
        }
        topology
    }

    /// Two racks whose nodes share an AS each, two ToRs a rack, two spines.
    pub fn rack_as() -> Self {
        let mut topology = Topology::default();
        // Of one AS, so that neither takes in what the other has of its own.
        let spines = [topology.add(64700, 0), topology.add(64700, 0)];
        for rack in 0..2 {
            let tors = [topology.add(64601 + rack * 2, 0), topology.add(64602 + rack * 2, 0)];
            spines.iter().for_each(|spine| tors.iter().for_each(|tor| topology.link(*spine, *tor)));
            for _ in 0..2 {
                let node = topology.add(65001 + rack, 2);
                topology.plans[node].allowed_local_as = 1;
                tors.iter().for_each(|tor| topology.link(*tor, node));
            }
        }
        topology
    }

    /// Two ASes meshed inside, joined at two borders.
    pub fn two_ases() -> Self {
        let mut topology = Topology::default();
        let sides = [64512, 64513].map(|asn| [(); 4].map(|()| topology.add(asn, 2)));
        sides.iter().for_each(|side| topology.mesh_of(side));
        topology.link(sides[0][0], sides[1][0]);
        topology.link(sides[0][1], sides[1][1]);
        topology
    }

    /// The reflector's client, as seen from it.
    pub fn is_client(&self, reflector: usize, other: usize) -> bool {
        let (reflector, other) = (&self.plans[reflector], &self.plans[other]);
        // One that reflects for a lower cluster is a client of one with a higher rank: cluster 1 is the highest.
        let below = other.cluster.is_none_or(|cluster| cluster >= 10 && reflector.cluster == Some(1));
        reflector.cluster.is_some() && reflector.asn == other.asn && below
    }

    /// The configuration of a node.
    pub fn config(&self, node: usize) -> Config {
        let plan = &self.plans[node];
        let restart = plan.graceful.then_some(Duration::from_secs(120));
        let neighbours = self.links.iter().filter_map(|(a, b)| match node {
            n if n == *a => Some(*b),
            n if n == *b => Some(*a),
            _ => None,
        });
        let rule = |prefix: &Prefix| Rule {
            id: format!("hides {prefix}").into(),
            conditions: Conditions {
                prefix: Some(PrefixMatch { prefix: *prefix, operator: PrefixOperator::Equal }),
                ..Conditions::default()
            },
            action: Action::Reject,
        };
        let rules: Vec<Rule> = plan.hidden.iter().map(rule).collect();
        let chain = RuleChain { v4: rules.clone(), v6: rules };
        let export = Arc::new(ExportPolicy::new(chain, ExportDefault::AcceptedExcept(vec![])));
        let peers = neighbours.map(|other| PeerConfig {
            key: PeerKey { address: v4_address(other).into(), port: None },
            settings: PeerSettings {
                name: format!("node {other}"),
                session: SessionConfig {
                    local_as: Asn(plan.asn),
                    remote_as: RemoteAs::Number(Asn(self.plans[other].asn)),
                    router_id: v4_address(node),
                    hold_time: Duration::from_secs(90),
                    keepalive_time: Duration::from_secs(30),
                    connect_retry_time: Duration::from_secs(5),
                    passive: false,
                    families: FamilySet::ALL,
                    distance: Distance::Ttl(255),
                    source: None,
                    password: Password::None,
                    graceful_restart: restart,
                    reachable_by: None,
                },
                import: Arc::new(ImportPolicy::accept_all()),
                export: export.clone(),
                next_hop_mode: if plan.next_hop_self { NextHopMode::Self_ } else { NextHopMode::Auto },
                client: self.is_client(node, other),
                allowed_local_as: plan.allowed_local_as,
                max_prefixes: MaxPrefixes::default(),
                max_restart_time: Duration::from_secs(120),
            },
        });
        Config {
            node: format!("node {node}"),
            role: Role::Node,
            local_as: Asn(plan.asn),
            router_id: v4_address(node),
            cluster_id: plan.cluster.map(Ipv4Addr::from),
            address_v4: Some(v4_address(node)),
            address_v6: Some(v6_address(node)),
            max_paths: 16,
            graceful_restart: restart,
            own: plan
                .own
                .iter()
                .map(|prefix| OwnPrefix {
                    prefix: *prefix,
                    communities: vec![],
                    large_communities: vec![],
                    export: true,
                })
                .collect(),
            peers: peers.collect(),
            ranges: vec![],
        }
    }

    /// The network, its nodes about to start.
    pub fn build(&self, seed: u64) -> Network {
        let nodes = (0..self.plans.len())
            .map(|node| (Arc::new(self.config(node)), IpAddr::from(v4_address(node))))
            .collect();
        Network::new(nodes, &self.links, seed)
    }
}
