//! Documents to what fib-sync runs on: one pure function.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use causeway_api::document_set::{DocumentSet, Errors};
use causeway_api::effective::{self, HostRoute, Role, VXLAN_PORT, VXLAN_VNI};
pub use causeway_api::resource::bgp_configuration::MtuMode;
use causeway_api::resource::bgp_filter::{Action, FilterRule, MatchOperator};
use causeway_api::resource::ip_pool::EncapMode;
use causeway_kernel::route::{ROUTE_METRIC, ROUTE_PROTOCOL};
use ipnetwork::IpNetwork;

use crate::decision::{TunnelMode, When};
use crate::probe::{OtherNode, other_nodes};

/// How long routes outlive bgpd when no document says (`gracefulRestart.restartTime`).
pub const RESTART_TIME: Duration = Duration::from_secs(120);

/// What fib-sync runs on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The node's name.
    pub node: String,
    /// The node's addresses with the lengths of their subnets, from its Node document.
    pub addresses: Vec<IpNetwork>,
    /// The node's own blocks.
    pub own_blocks: Vec<IpNetwork>,
    /// Routes to peers that are behind a gateway (`reachableBy`).
    pub host_routes: Vec<HostRoute>,
    /// What the guard may let through.
    pub allowed: Vec<Allowed>,
    /// Protocol number of learned routes.
    pub protocol: u8,
    /// Metric of learned routes.
    pub metric: u32,
    /// How long learned routes outlive the connection to bgpd.
    pub restart_time: Duration,
    /// Devices that are no underlay, with `*` and `?` as wildcards.
    pub ignored_interfaces: Vec<String>,
    /// All pools, which do not overlap, by range. A disabled one has the mode Never, and counts for NAT.
    pub pools: Vec<PoolMode>,
    /// The addresses of every other node.
    pub endpoints: BTreeMap<IpAddr, Endpoint>,
    /// This node's zone.
    pub zone: Option<String>,
    /// Where a smaller MTU of tunnels takes effect.
    pub mtu_mode: MtuMode,
    /// Whether the TCP MSS of what goes into a tunnel is clamped.
    pub clamp_mss: bool,
    /// VXLAN network identifier.
    pub vxlan_vni: u32,
    /// UDP port of VXLAN.
    pub vxlan_port: u16,
    /// The other nodes, by name: who may be probed.
    pub others: Vec<OtherNode>,
    /// Least severity to log.
    pub log_severity: String,
}

/// A pool as far as routes, tunnels and NAT go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolMode {
    /// Its range.
    pub cidr: IpNetwork,
    /// Its name.
    pub name: String,
    /// Whether packets to it go into tunnels.
    pub mode: TunnelMode,
    /// Whether packets from it to what is in no pool get the node's address.
    pub nat_outgoing: bool,
}

/// An address of another node: where a tunnel may end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// The node's name.
    pub node: String,
    /// The node's zone.
    pub zone: Option<String>,
    /// The address with the length of its subnet, as the Node document has it.
    pub subnet: IpNetwork,
}

/// One thing of the documents that lets prefixes through the guard.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Allowed {
    /// The prefix to compare with.
    pub cidr: IpNetwork,
    /// How.
    pub by: Match,
    /// Shortest prefix length.
    pub min: u8,
    /// Longest prefix length.
    pub max: u8,
}

/// How a prefix is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Match {
    /// The very prefix.
    Equal,
    /// It or one inside it.
    In,
    /// Any other.
    NotEqual,
    /// Neither it nor one inside it.
    NotIn,
}

impl Config {
    /// A configuration without any document: nothing is allowed.
    pub fn empty(node: &str) -> Config {
        Config {
            node: node.to_owned(),
            addresses: Vec::new(),
            own_blocks: Vec::new(),
            host_routes: Vec::new(),
            allowed: Vec::new(),
            protocol: ROUTE_PROTOCOL,
            metric: ROUTE_METRIC,
            restart_time: RESTART_TIME,
            ignored_interfaces: Vec::new(),
            pools: Vec::new(),
            endpoints: BTreeMap::new(),
            zone: None,
            mtu_mode: MtuMode::PerRoute,
            clamp_mss: false,
            vxlan_vni: VXLAN_VNI,
            vxlan_port: VXLAN_PORT,
            others: Vec::new(),
            log_severity: "info".to_owned(),
        }
    }

    /// The pool a prefix lies in.
    pub fn pool_of(&self, prefix: &IpNetwork) -> Option<&PoolMode> {
        self.pools.get(self.pool_index(prefix)?)
    }

    /// The place among `pools` of the one a prefix lies in.
    pub fn pool_index(&self, prefix: &IpNetwork) -> Option<usize> {
        // Pools do not overlap, so it is the last one that begins at or before the prefix.
        let after = self.pools.partition_point(|pool| {
            (pool.cidr.is_ipv6(), pool.cidr.network()) <= (prefix.is_ipv6(), prefix.network())
        });
        let index = after.checked_sub(1)?;
        let pool = self.pools.get(index)?;
        (pool.cidr.prefix() <= prefix.prefix() && pool.cidr.contains(prefix.network())).then_some(index)
    }

    /// Whether a device is no underlay.
    pub fn ignores(&self, device: &str) -> bool {
        self.ignored_interfaces.iter().any(|pattern| wildcard(pattern.as_bytes(), device.as_bytes()))
    }
}

/// Lowers the documents for one node.
///
/// # Errors
/// One line an error, those that bgpd refuses the documents for.
pub fn lower(documents: &DocumentSet, node: &str) -> Result<Config, Vec<String>> {
    let Some((_, document)) = documents.node(node) else {
        return Err(vec![format!("there is no Node named `{node}` in the documents")]);
    };
    let lines = |errors: Errors| errors.0.iter().map(ToString::to_string).collect::<Vec<_>>();
    let effective = effective::resolve(documents, node, Role::Node).map_err(lines)?;
    let tunnels = &effective.tunnels;
    let spec = &document.spec;
    let bgp = &spec.bgp;
    let settings = documents.configuration(node);
    let mut config = Config::empty(node);
    config.addresses.extend(bgp.ipv4_address.map(|address| IpNetwork::V4(address.0)));
    config.addresses.extend(bgp.ipv6_address.map(|address| IpNetwork::V6(address.0)));
    config.own_blocks.extend(spec.pod_cidrs.iter().map(|cidr| cidr.0));
    config.pools = effective.pools.iter().map(pool_mode).collect();
    config.pools.sort_by_key(|pool| (pool.cidr.is_ipv6(), pool.cidr));
    config.zone = tunnels.zone.clone();
    config.mtu_mode = effective.routes.mtu_mode;
    config.clamp_mss = effective.routes.clamp_mss;
    (config.vxlan_vni, config.vxlan_port) = (tunnels.vxlan_vni, tunnels.vxlan_port);
    for (_, other) in documents.nodes().filter(|(document, _)| document.name() != node) {
        let bgp = &other.spec.bgp;
        let v4 = bgp.ipv4_address.map(|address| IpNetwork::V4(address.0));
        let v6 = bgp.ipv6_address.map(|address| IpNetwork::V6(address.0));
        config.endpoints.extend(v4.into_iter().chain(v6).map(|subnet| {
            let zone = tunnels.zone_of(other).map(ToOwned::to_owned);
            (subnet.ip(), Endpoint { node: other.metadata.name.clone(), zone, subnet })
        }));
    }
    config.others = other_nodes(documents, node);
    config.host_routes = effective.host_routes;
    config.protocol = settings.route_protocol.unwrap_or(ROUTE_PROTOCOL);
    config.metric = settings.route_metric.unwrap_or(ROUTE_METRIC);
    // `enabled: false` is about what is said to peers; a bgpd that comes back soon finds its routes all the same.
    if let Some(time) = settings.graceful_restart.and_then(|restart| restart.restart_time) {
        config.restart_time = time.0;
    }
    config.ignored_interfaces = settings.ignored_interfaces.unwrap_or_default();
    if let Some(severity) = settings.log_severity {
        config.log_severity = format!("{severity:?}").to_lowercase();
    }

    let pools = documents.pools().filter(|(_, pool)| !pool.disabled).map(|(_, pool)| pool.cidr.0);
    let services =
        [settings.service_cluster_ips, settings.service_external_ips, settings.service_load_balancer_ips];
    let services = services.into_iter().flatten().flatten().map(|range| range.cidr.0);
    let mut allowed: BTreeSet<Allowed> = pools
        .chain(services)
        .map(|cidr| Allowed { cidr, by: Match::In, min: 0, max: longest(&cidr) })
        .collect();
    // Any filter counts, also one no peer names now: the guard bounds what bgpd could be made to ask for, bgpd's
    // policy decides.
    for document in documents.documents() {
        let Some(filter) = documents.filter(document.name()) else { continue };
        for (rules, default) in [(&filter.import_v4, "0.0.0.0/0"), (&filter.import_v6, "::/0")] {
            allowed.extend(rules.iter().filter_map(|rule| allowed_by(rule, default.parse().ok()?)));
        }
    }
    config.allowed = allowed.into_iter().collect();
    Ok(config)
}

/// A disabled pool is tunnelled to by nobody: what an import filter lets through there goes its native way.
fn pool_mode(pool: &effective::Pool) -> PoolMode {
    let when = |mode| match mode {
        EncapMode::Never => None,
        EncapMode::CrossSubnet => Some(When::CrossSubnet),
        EncapMode::Always => Some(When::Always),
    };
    let mode = match (when(pool.ipip_mode), when(pool.vxlan_mode)) {
        (Some(when), _) if pool.enabled => TunnelMode::Ipip(when),
        (None, Some(when)) if pool.enabled => TunnelMode::Vxlan(when),
        _ => TunnelMode::Never,
    };
    PoolMode { cidr: pool.cidr.0, name: pool.name.clone(), mode, nat_outgoing: pool.nat_outgoing }
}

/// The prefix part of an import rule. Its other conditions look at what only bgpd sees.
fn allowed_by(rule: &FilterRule, default: IpNetwork) -> Option<Allowed> {
    if rule.action != Action::Accept {
        return None;
    }
    let cidr = rule.cidr.map_or(default, |cidr| cidr.0);
    let by = match rule.match_operator {
        Some(MatchOperator::Equal) => Match::Equal,
        Some(MatchOperator::NotEqual) => Match::NotEqual,
        Some(MatchOperator::NotIn) => Match::NotIn,
        Some(MatchOperator::In) | None => Match::In,
    };
    let bounds = rule.prefix_length;
    let min = bounds.and_then(|bounds| bounds.min).unwrap_or(0);
    let max = bounds.and_then(|bounds| bounds.max).unwrap_or_else(|| longest(&cidr));
    Some(Allowed { cidr, by, min, max })
}

fn longest(network: &IpNetwork) -> u8 {
    if network.is_ipv4() { 32 } else { 128 }
}

/// `*` and `?`, as in a shell. Linear in the product of the lengths, which are those of device names.
fn wildcard(pattern: &[u8], text: &[u8]) -> bool {
    match (pattern.split_first(), text.split_first()) {
        (None, None) => true,
        (Some((b'*', rest)), _) => (0..=text.len()).any(|skip| wildcard(rest, &text[skip..])),
        (Some((b'?', pattern)), Some((_, text))) => wildcard(pattern, text),
        (Some((one, pattern)), Some((other, text))) => one == other && wildcard(pattern, text),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCUMENTS: &str = r#"
apiVersion: causeway.dev/v1alpha1
kind: Node
metadata: {name: a, labels: {zone: one}}
spec:
  bgp: {ipv4Address: 192.0.2.11/24, ipv6Address: "2001:db8::11/64"}
  podCIDRs: [10.244.1.0/24]
---
apiVersion: causeway.dev/v1alpha1
kind: Node
metadata: {name: b, labels: {zone: two}}
spec: {bgp: {ipv4Address: 192.0.2.12/24, ipv6Address: "2001:db8::12/64", asNumber: 64513}}
---
apiVersion: causeway.dev/v1alpha1
kind: Node
metadata: {name: c}
spec: {bgp: {ipv4Address: 198.51.100.13/24}}
---
apiVersion: causeway.dev/v1alpha1
kind: BGPConfiguration
metadata: {name: default}
spec: {gracefulRestart: {restartTime: 30s}, routeMetric: 1800, ignoredInterfaces: ["docker*"],
       zoneLabel: zone, vxlanVNI: 7, vxlanPort: 8472, mtuMode: Uniform, clampMSS: true}
---
apiVersion: causeway.dev/v1alpha1
kind: BGPConfiguration
metadata: {name: node.a}
spec: {routeProtocol: 80}
---
apiVersion: causeway.dev/v1alpha1
kind: BGPPeer
metadata: {name: far}
spec: {peerIP: 203.0.113.7, asNumber: 64601, ebgpMultihop: 3, reachableBy: 192.0.2.254}
---
apiVersion: causeway.dev/v1alpha1
kind: IPPool
metadata: {name: pods}
spec: {cidr: 10.244.0.0/16, ipipMode: CrossSubnet, natOutgoing: true}
---
apiVersion: causeway.dev/v1alpha1
kind: IPPool
metadata: {name: pods6}
spec: {cidr: "fd00:10:244::/48", vxlanMode: Always}
---
apiVersion: causeway.dev/v1alpha1
kind: IPPool
metadata: {name: gone}
spec: {cidr: 10.99.0.0/16, disabled: true, vxlanMode: Always, natOutgoing: true}
---
apiVersion: causeway.dev/v1alpha1
kind: BGPFilter
metadata: {name: in}
spec:
  importV4: [{cidr: 0.0.0.0/0, matchOperator: Equal, action: Accept},
             {cidr: 10.0.0.0/8, matchOperator: In, prefixLength: {min: 8, max: 24}, action: Accept},
             {cidr: 172.16.0.0/12, matchOperator: In, action: Reject}]
  importV6: [{action: Accept}]
  exportV4: [{cidr: 203.0.113.0/24, matchOperator: Equal, action: Accept}]
"#;

    #[test]
    fn documents_become_a_configuration() {
        let documents = causeway_api::source::parse("test.yaml", DOCUMENTS).unwrap();
        let config = lower(&documents, "a").unwrap();
        let network = |text: &str| text.parse::<IpNetwork>().unwrap();
        let allowed = |cidr, by, min, max| Allowed { cidr: network(cidr), by, min, max };
        let endpoint = |subnet: &str, node: &str, zone: Option<&str>| {
            let (subnet, zone) = (network(subnet), zone.map(ToOwned::to_owned));
            (subnet.ip(), Endpoint { node: node.to_owned(), zone, subnet })
        };
        let pool = |name: &str, cidr, mode, nat_outgoing| PoolMode {
            cidr: network(cidr),
            name: name.to_owned(),
            mode,
            nat_outgoing,
        };
        let other = |name: &str, addresses: &[&str]| OtherNode {
            name: name.to_owned(),
            addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
            blocks: Vec::new(),
        };
        assert_eq!(
            config,
            Config {
                node: "a".to_owned(),
                addresses: vec![network("192.0.2.11/24"), network("2001:db8::11/64")],
                own_blocks: vec![network("10.244.1.0/24")],
                host_routes: vec![HostRoute {
                    destination: network("203.0.113.7/32").ip(),
                    gateway: network("192.0.2.254/32").ip(),
                }],
                allowed: vec![
                    allowed("0.0.0.0/0", Match::Equal, 0, 32),
                    allowed("10.0.0.0/8", Match::In, 8, 24),
                    allowed("10.244.0.0/16", Match::In, 0, 32),
                    allowed("::/0", Match::In, 0, 128),
                    allowed("fd00:10:244::/48", Match::In, 0, 128),
                ],
                protocol: 80,
                metric: 1800,
                restart_time: Duration::from_secs(30),
                ignored_interfaces: vec!["docker*".to_owned()],
                pools: vec![
                    pool("gone", "10.99.0.0/16", TunnelMode::Never, true),
                    pool("pods", "10.244.0.0/16", TunnelMode::Ipip(When::CrossSubnet), true),
                    pool("pods6", "fd00:10:244::/48", TunnelMode::Vxlan(When::Always), false),
                ],
                endpoints: BTreeMap::from([
                    endpoint("192.0.2.12/24", "b", Some("two")),
                    endpoint("2001:db8::12/64", "b", Some("two")),
                    endpoint("198.51.100.13/24", "c", None),
                ]),
                zone: Some("one".to_owned()),
                mtu_mode: MtuMode::Uniform,
                clamp_mss: true,
                vxlan_vni: 7,
                vxlan_port: 8472,
                others: vec![other("b", &["192.0.2.12", "2001:db8::12"]), other("c", &["198.51.100.13"])],
                log_severity: "info".to_owned(),
            }
        );
        let errors = lower(&documents, "d").unwrap_err();
        assert_eq!(errors, ["there is no Node named `d` in the documents"]);
    }

    #[test]
    fn a_prefix_lies_in_one_pool_or_in_none() {
        let documents = causeway_api::source::parse("test.yaml", DOCUMENTS).unwrap();
        let config = lower(&documents, "a").unwrap();
        for (prefix, pool) in [
            ("10.244.0.0/16", Some("pods")),
            ("10.244.255.255/32", Some("pods")),
            ("10.99.1.0/24", Some("gone")),
            ("10.244.0.0/15", None),
            ("10.245.0.0/24", None),
            ("10.98.255.0/24", None),
            ("0.0.0.0/0", None),
            ("fd00:10:244:1::/64", Some("pods6")),
            ("fd00:10:245::/64", None),
            ("::/0", None),
        ] {
            let found = config.pool_of(&prefix.parse().unwrap());
            assert_eq!(found.map(|found| found.name.as_str()), pool, "{prefix}");
        }
        assert_eq!(Config::empty("a").pool_of(&"10.244.0.0/16".parse().unwrap()), None);
    }

    #[test]
    fn devices_are_ignored_by_wildcard() {
        let config =
            Config { ignored_interfaces: vec!["docker*".into(), "tun?".into()], ..Config::empty("a") };
        for (device, ignored) in
            [("docker0", true), ("docker", true), ("tun1", true), ("tun10", false), ("eth0", false)]
        {
            assert_eq!(config.ignores(device), ignored, "{device}");
        }
    }
}
