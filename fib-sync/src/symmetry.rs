//! Whether the other node tunnels back where this one tunnels there: what no packet tells before it is lost. Pure.
//!
//! Owner of the comparison only: both ways are decided by [`decide`], this node's with the subnets its kernel has, the
//! other's with the subnet its Node document gives it, which is all that is known of it here. Zones are the same for
//! both ends (`zoneLabel` stands in one document), so what is left to disagree about is who believes to be on whose
//! link.

use std::fmt;
use std::net::IpAddr;

use causeway_api::control::Condition;
use causeway_api::effective::VXLAN_VNI;
use causeway_kernel::Family;
use ipnetwork::IpNetwork;

use crate::config::{Config, Endpoint};
use crate::decision::{Decision, Inputs, Target, TunnelMode, When, decide};
use crate::next_hop::Resolution;

/// How many differences a condition spells out.
const SPELT_OUT: usize = 8;

/// A difference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Row {
    /// One way goes through a tunnel and the other does not.
    Ways(Ways),
    /// The kernel does not have this node's address as the Node document has it, by which the other nodes go.
    OwnAddress {
        /// The address and subnet of the Node document.
        document: IpNetwork,
        /// The same address as the kernel has it; `None`: not at all.
        kernel: Option<IpNetwork>,
    },
}

/// Two ways that differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ways {
    /// The other node.
    pub node: String,
    /// The pool.
    pub pool: String,
    /// What this node decides.
    pub there: Decision,
    /// What the other node decides.
    pub back: Decision,
    /// Why they differ, for people.
    pub why: String,
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Row::Ways(Ways { node, pool, there, back, why }) => {
                write!(f, "{node}, pool {pool}: {} there, {} back: {why}", word(*there), word(*back))
            }
            Row::OwnAddress { document, kernel: None } => {
                write!(
                    f,
                    "{document} of the Node document is on no underlay link, and the other nodes go by it"
                )
            }
            Row::OwnAddress { document, kernel: Some(kernel) } => {
                write!(
                    f,
                    "{document} of the Node document is {kernel} in the kernel, and the other nodes go by the document"
                )
            }
        }
    }
}

fn word(decision: Decision) -> String {
    match decision {
        Decision::Direct => "direct".to_owned(),
        Decision::Tunnel(kind) => kind.to_string(),
        Decision::Recursive => "recursive".to_owned(),
        Decision::Drop => "dropped".to_owned(),
    }
}

/// Compares the way to every other node with its way back, for every pool whose mode depends on subnets. `kernel`:
/// addresses of this node's underlay links with the lengths of their subnets; `None`: not known yet, the Node
/// document's are taken.
pub fn compare(config: &Config, kernel: Option<&[IpNetwork]>) -> Vec<Row> {
    let mut rows = Vec::new();
    for own in &config.addresses {
        let family = Family::of(&own.ip());
        // Pools of one mode decide alike, so one of them speaks for all.
        let mut classes: Vec<(&str, TunnelMode)> = Vec::new();
        for pool in config.pools.iter().filter(|pool| Family::of(&pool.cidr.ip()) == family) {
            if pool.mode.when() == Some(When::CrossSubnet)
                && !classes.iter().any(|(_, mode)| *mode == pool.mode)
            {
                classes.push((&pool.name, pool.mode));
            }
        }
        if classes.is_empty() {
            continue;
        }
        if let Some(kernel) = kernel.filter(|kernel| !kernel.contains(own)) {
            let held = kernel.iter().find(|subnet| subnet.ip() == own.ip()).copied();
            rows.push(Row::OwnAddress { document: *own, kernel: held });
        }
        let subnets = kernel.unwrap_or(std::slice::from_ref(own));
        let others = config.endpoints.iter().filter(|(address, _)| Family::of(address) == family);
        for (address, other) in others {
            let near = subnets.iter().find(|subnet| subnet.contains(*address));
            if near.is_some() == other.subnet.contains(own.ip()) {
                continue;
            }
            let there = reached(near.is_some());
            let back = reached(near.is_none());
            rows.extend(classes.iter().filter_map(|(pool, mode)| {
                let there = way(*mode, *address, &there, &other.node, [&config.zone, &other.zone]);
                let back = way(*mode, own.ip(), &back, &config.node, [&other.zone, &config.zone]);
                let tunnelled = |decision| matches!(decision, Decision::Tunnel(_));
                (tunnelled(there) != tunnelled(back)).then(|| {
                    let (node, pool) = (other.node.clone(), (*pool).to_owned());
                    Row::Ways(Ways { node, pool, there, back, why: why(own, near, other) })
                })
            }));
        }
    }
    rows
}

/// Where a node is: on the link, or behind some router. That the underlay leads to it is taken for granted.
fn reached(connected: bool) -> Resolution {
    match connected {
        true => Resolution::Connected { ifindex: 0 },
        false => Resolution::Gateway { gateway: IpAddr::from([0, 0, 0, 0]), ifindex: 0, metric: 0 },
    }
}

/// What a node in the first zone decides about a node in the second.
fn way(
    mode: TunnelMode,
    address: IpAddr,
    resolution: &Resolution,
    node: &str,
    [own, other]: [&Option<String>; 2],
) -> Decision {
    let target =
        Target { name: node.to_owned(), address, zone: other.clone(), kind: None, mac: None, vni: None };
    let inputs = Inputs {
        pool: None,
        mode,
        family: Family::of(&address),
        next_hop: address,
        resolution,
        device: "",
        endpoint: Some(&target),
        outer: resolution,
        own_zone: own.as_deref(),
        // No attribute asks for one.
        vni: VXLAN_VNI,
    };
    decide(&inputs).decision
}

/// Why the two do not believe the same of each other.
fn why(own: &IpNetwork, near: Option<&IpNetwork>, other: &Endpoint) -> String {
    let host = |network: &IpNetwork| network.prefix() == Family::of(&network.ip()).bits();
    let theirs = other.subnet;
    match near {
        Some(subnet) if host(&theirs) => {
            format!("{theirs} has no subnet, and {subnet} of this node holds it")
        }
        Some(subnet) if subnet.ip() != own.ip() => {
            format!(
                "this node's {subnet} holds {theirs}, but its Node document's {own} is not in that subnet"
            )
        }
        Some(subnet) => {
            format!("{subnet} of this node holds {theirs}, but not the other way round: unequal masks")
        }
        None if host(own) => format!("{own} of this node has no subnet, and {theirs} holds it"),
        None => format!("{theirs} holds {own} of this node, but not the other way round: unequal masks"),
    }
}

/// The condition `TunnelsSymmetric`; `None` where no tunnel depends on subnets.
pub fn condition(config: &Config, kernel: Option<&[IpNetwork]>) -> Option<Condition> {
    if !config.pools.iter().any(|pool| pool.mode.when() == Some(When::CrossSubnet)) {
        return None;
    }
    let rows = compare(config, kernel);
    if rows.is_empty() {
        return Some(Condition::new(
            "TunnelsSymmetric",
            true,
            "SameBothWays",
            "every node decides about the way back as this one about the way there",
        ));
    }
    let mut lines: Vec<String> = rows.iter().take(SPELT_OUT).map(ToString::to_string).collect();
    if rows.len() > SPELT_OUT {
        lines.push(format!("and {} more", rows.len() - SPELT_OUT));
    }
    Some(Condition::new("TunnelsSymmetric", false, "OneSided", lines.join("; ")))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::config::PoolMode;

    const CROSS: TunnelMode = TunnelMode::Vxlan(When::CrossSubnet);

    fn network(text: &str) -> IpNetwork {
        text.parse().unwrap()
    }

    /// Node `a` with that address, others `b`, `c`, ... with theirs, and a pool of the mode for each family.
    fn fabric(own: &[&str], others: &[(&str, Option<&str>)], mode: TunnelMode) -> Config {
        let pool = |name: &str, cidr| PoolMode {
            cidr: network(cidr),
            name: name.to_owned(),
            mode,
            nat_outgoing: false,
        };
        let endpoints = others.iter().zip("bcdefghijklmnop".chars()).map(|((subnet, zone), name)| {
            let (node, zone) = (name.to_string(), zone.map(ToOwned::to_owned));
            (network(subnet).ip(), Endpoint { node, zone, subnet: network(subnet) })
        });
        Config {
            addresses: own.iter().map(|own| network(own)).collect(),
            endpoints: BTreeMap::from_iter(endpoints),
            pools: vec![pool("pods", "10.244.0.0/16"), pool("pods6", "fd00:10:244::/48")],
            ..Config::empty("a")
        }
    }

    fn lines(config: &Config, kernel: Option<&[&str]>) -> Vec<String> {
        let kernel: Option<Vec<IpNetwork>> =
            kernel.map(|kernel| kernel.iter().map(|subnet| network(subnet)).collect());
        compare(config, kernel.as_deref()).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn equal_masks_agree() {
        let others = [("192.0.2.12/24", None), ("198.51.100.13/24", None), ("2001:db8::12/64", None)];
        let config = fabric(&["192.0.2.11/24", "2001:db8::11/64"], &others, CROSS);
        assert_eq!(lines(&config, None), [""; 0]);
        assert_eq!(lines(&config, Some(&["192.0.2.11/24", "2001:db8::11/64", "203.0.113.1/24"])), [""; 0]);
        let condition = condition(&config, None).unwrap();
        assert_eq!(condition.reason, "SameBothWays");
    }

    #[test]
    fn unequal_masks_and_host_addresses_are_named() {
        let others = [("192.0.2.12/32", None), ("192.0.2.200/25", None), ("192.0.2.13/24", None)];
        let config = fabric(&["192.0.2.11/24"], &others, CROSS);
        assert_eq!(
            lines(&config, None),
            [
                "b, pool pods: direct there, VXLAN back: 192.0.2.12/32 has no subnet, and 192.0.2.11/24 of this node \
                 holds it",
                "c, pool pods: direct there, VXLAN back: 192.0.2.11/24 of this node holds 192.0.2.200/25, but not \
                 the other way round: unequal masks",
            ]
        );
        let config = fabric(&["192.0.2.11/32"], &others, CROSS);
        assert_eq!(
            lines(&config, None),
            [
                "d, pool pods: VXLAN there, direct back: 192.0.2.11/32 of this node has no subnet, and 192.0.2.13/24 \
                 holds it"
            ]
        );
        let config = fabric(&["192.0.2.200/25"], &[("192.0.2.11/24", None)], CROSS);
        assert_eq!(
            lines(&config, None),
            [
                "b, pool pods: VXLAN there, direct back: 192.0.2.11/24 holds 192.0.2.200/25 of this node, but not \
                 the other way round: unequal masks"
            ]
        );
        let six =
            fabric(&["2001:db8::11/64"], &[("2001:db8::12/128", None)], TunnelMode::Ipip(When::CrossSubnet));
        assert_eq!(
            lines(&six, None),
            [
                "b, pool pods6: direct there, VXLAN over IPv6 back: 2001:db8::12/128 has no subnet, and 2001:db8::11/64 \
                 of this node holds it"
            ]
        );
    }

    #[test]
    fn only_modes_that_look_at_subnets_can_disagree_about_them() {
        for mode in [TunnelMode::Never, TunnelMode::Ipip(When::Always), TunnelMode::Vxlan(When::Always)] {
            let config = fabric(&["192.0.2.11/24"], &[("192.0.2.12/32", None)], mode);
            assert_eq!(lines(&config, Some(&[])), [""; 0], "{mode}");
            assert_eq!(condition(&config, None), None, "{mode}");
        }
        // Where both zones are known it is they that count.
        for (zone, expected) in [(Some("one"), 0), (Some("two"), 0), (None, 1)] {
            let mut config = fabric(&["192.0.2.11/24"], &[("192.0.2.12/32", zone)], CROSS);
            config.zone = Some("one".to_owned());
            assert_eq!(lines(&config, None).len(), expected, "{zone:?}");
        }
    }

    #[test]
    fn what_the_kernel_has_is_compared_with_the_document() {
        let config = fabric(&["192.0.2.11/24"], &[("192.0.2.12/24", None)], CROSS);
        assert_eq!(
            lines(&config, Some(&["192.0.2.11/32"])),
            [
                "192.0.2.11/24 of the Node document is 192.0.2.11/32 in the kernel, and the other nodes go by the \
                 document",
                "b, pool pods: VXLAN there, direct back: 192.0.2.12/24 holds 192.0.2.11/24 of this node, but not the \
                 other way round: unequal masks",
            ]
        );
        assert_eq!(
            lines(&config, Some(&["192.0.2.99/24"])),
            ["192.0.2.11/24 of the Node document is on no underlay link, and the other nodes go by it"]
        );
        // A second leg in the other's subnet, of which the other knows nothing.
        let config = fabric(&["192.0.2.11/24"], &[("198.51.100.13/24", None)], CROSS);
        assert_eq!(
            lines(&config, Some(&["192.0.2.11/24", "198.51.100.11/24"])),
            [
                "b, pool pods: direct there, VXLAN back: this node's 198.51.100.11/24 holds 198.51.100.13/24, but its \
                 Node document's 192.0.2.11/24 is not in that subnet"
            ]
        );
    }

    #[test]
    fn a_condition_names_the_first_few() {
        let others: Vec<(String, Option<&str>)> =
            (12..24).map(|host| (format!("192.0.2.{host}/32"), None)).collect();
        let others: Vec<(&str, Option<&str>)> =
            others.iter().map(|(subnet, zone)| (subnet.as_str(), *zone)).collect();
        let condition = condition(&fabric(&["192.0.2.11/24"], &others, CROSS), None).unwrap();
        assert_eq!((condition.kind.as_str(), condition.reason.as_str()), ("TunnelsSymmetric", "OneSided"));
        assert!(condition.message.starts_with("b, pool pods: direct there, VXLAN back: "));
        assert!(condition.message.ends_with("; and 4 more"), "{}", condition.message);
    }
}
