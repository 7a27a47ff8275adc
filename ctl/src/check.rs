//! `check`: validates documents and prints what they make of a node. Asks no daemon.

use std::collections::BTreeMap;
use std::path::PathBuf;

use causeway_api::document_set::Errors;
use causeway_api::effective::{self, EffectiveNode, Pool, Role};
use causeway_api::resource::ip_pool::EncapMode;
use causeway_api::source;
use clap::Args;

use crate::Error;
use crate::render::Output;

/// How many subnets that do not match are shown.
const MISMATCHES: usize = 16;

/// Arguments of `check`.
#[derive(Args)]
pub struct CheckArgs {
    /// Documents: a file or a folder of YAML files
    #[arg(short, long, value_name = "PATH")]
    file: PathBuf,
    /// Print this node's configuration; without it every node is checked and none is printed
    #[arg(long, value_name = "NAME")]
    node: Option<String>,
    /// As causeway-route-reflector would run it
    #[arg(long, requires = "node")]
    reflector: bool,
}

/// Validates, and prints the configuration of the node asked for.
pub fn run(args: &CheckArgs, output: &Output) -> Result<(), Error> {
    let refused = |errors: Errors| Error::Refused(format!("the documents are refused\n{errors}"));
    let documents = source::read(&args.file).map_err(refused)?;
    if let Some(node) = &args.node {
        let role = if args.reflector { Role::Reflector } else { Role::Node };
        let resolved = effective::resolve(&documents, node, role).map_err(refused)?;
        return output.print_structure(&resolved);
    }
    let nodes: Vec<&str> = documents.nodes().map(|(document, _)| document.name()).collect();
    let mut errors = Vec::new();
    let mut resolved: Vec<EffectiveNode> = Vec::new();
    for node in &nodes {
        match effective::resolve(&documents, node, Role::Node) {
            Ok(node) => resolved.push(node),
            Err(Errors(more)) => {
                errors.extend(more.into_iter().filter(|error| !errors.contains(error)).collect::<Vec<_>>())
            }
        }
    }
    if !errors.is_empty() {
        return Err(refused(Errors(errors)));
    }
    output.print(&resolved, |_| {
        let notes = resolved.iter().flat_map(|node| node.notes.iter().map(move |note| (&node.node, note)));
        let notes: String = notes.map(|(node, note)| format!("note: {node}: {note}\n")).collect();
        let ends = format!("{} documents are good for {} nodes\n", documents.documents().len(), nodes.len());
        tunnels(&resolved) + &notes + &mismatches(&resolved) + &ends
    })
}

/// The pools with their modes, and what the tunnels lead to.
fn tunnels(resolved: &[EffectiveNode]) -> String {
    let Some(first) = resolved.first() else { return String::new() };
    let ipv6_only =
        resolved.iter().filter(|node| node.ipv4_address.is_none() && node.ipv6_address.is_some()).count();
    let mut text: String =
        first.pools.iter().map(|pool| format!("{}\n", pool_line(pool, ipv6_only))).collect();
    if !first.pools.iter().any(|pool| pool.enabled && !words_of(pool, ipv6_only).is_empty()) {
        return text;
    }
    let addresses = resolved
        .iter()
        .map(|node| usize::from(node.ipv4_address.is_some()) + usize::from(node.ipv6_address.is_some()));
    text += &format!("tunnels: {} endpoints", addresses.sum::<usize>());
    if let Some(label) = &first.tunnels.zone_label {
        let mut zones: BTreeMap<&str, usize> = BTreeMap::new();
        for node in resolved {
            *zones.entry(node.tunnels.zone.as_deref().unwrap_or("none")).or_default() += 1;
        }
        let zones: Vec<String> = zones.iter().map(|(zone, nodes)| format!("{zone} ({nodes})")).collect();
        text += &format!(", nodes by zone ({label}): {}", zones.join(", "));
    }
    text + "\n"
}

fn pool_line(pool: &Pool, ipv6_only: usize) -> String {
    let mut words = words_of(pool, ipv6_only);
    if words.is_empty() {
        words.push("no tunnels".to_owned());
    }
    if pool.nat_outgoing {
        words.push("natOutgoing".to_owned());
    }
    if !pool.enabled {
        words = vec!["disabled".to_owned()];
    }
    format!("pool {} {}: {}", pool.name, pool.cidr, words.join(", "))
}

/// The modes of a pool that are other than Never. `ipv6_only`: how many nodes have IPv6 addresses only, to which there is
/// no IP-in-IP.
fn words_of(pool: &Pool, ipv6_only: usize) -> Vec<String> {
    let not_ipip = match (pool.cidr.0.is_ipv6(), ipv6_only) {
        (true, _) => " (VXLAN between IPv6 addresses)".to_owned(),
        (false, 0) => String::new(),
        (false, nodes) => format!(" (VXLAN to nodes without an IPv4 address: {nodes})"),
    };
    let modes = [("ipipMode", pool.ipip_mode, not_ipip), ("vxlanMode", pool.vxlan_mode, String::new())];
    let modes = modes.into_iter().filter(|(_, mode, _)| *mode != EncapMode::Never);
    modes.map(|(field, mode, but)| format!("{field} {mode:?}{but}")).collect()
}

/// Nodes that do not agree on who is in whose subnet, which is where one end tunnels and the other does not.
fn mismatches(resolved: &[EffectiveNode]) -> String {
    let all = resolved.iter().flat_map(|node| node.subnet_mismatches.iter().map(move |line| (node, line)));
    let lines: Vec<String> = all.map(|(node, line)| format!("note: {}: {line}\n", node.node)).collect();
    let mut text: String = lines.iter().take(MISMATCHES).map(String::as_str).collect();
    if lines.len() > MISMATCHES {
        text += &format!("note: and {} more such\n", lines.len() - MISMATCHES);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(text: &str) -> Vec<EffectiveNode> {
        let documents = source::parse("test.yaml", text).unwrap();
        let nodes = documents.nodes().map(|(document, _)| document.name());
        nodes.map(|node| effective::resolve(&documents, node, Role::Node).unwrap()).collect()
    }

    fn document(kind: &str, metadata: &str, spec: &str) -> String {
        format!(
            "---\napiVersion: causeway.dev/v1alpha1\nkind: {kind}\nmetadata: {{{metadata}}}\nspec: {{{spec}}}\n"
        )
    }

    #[test]
    fn pools_show_what_they_ask_for() {
        let node = document("Node", "name: a", "bgp: {ipv4Address: 192.0.2.1/24}");
        let pool = |name: &str, spec: &str| document("IPPool", &format!("name: {name}"), spec);
        let native = pool("a", "cidr: 10.1.0.0/16, natOutgoing: true");
        let off = pool("b", "cidr: 10.2.0.0/16, vxlanMode: Always, disabled: true");
        let text = format!("{node}{native}{off}");
        assert_eq!(
            tunnels(&resolved(&text)),
            "pool a 10.1.0.0/16: no tunnels, natOutgoing\npool b 10.2.0.0/16: disabled\n"
        );
        let text = format!(
            "{text}{}{}{}{}{}{}",
            pool("c", "cidr: \"fd00:1::/48\", ipipMode: CrossSubnet, natOutgoing: true"),
            pool("d", "cidr: 10.3.0.0/16, ipipMode: Always"),
            pool("e", "cidr: \"fd00:2::/48\", vxlanMode: Always"),
            document("Node", "name: b, labels: {zone: x}", "bgp: {ipv4Address: 198.51.100.1/24}"),
            document("Node", "name: c, labels: {zone: x}", "bgp: {ipv6Address: \"2001:db8::1/64\"}"),
            document("BGPConfiguration", "name: default", "zoneLabel: zone")
        );
        let shown = tunnels(&resolved(&text));
        assert!(
            shown.contains(
                "pool c fd00:1::/48: ipipMode CrossSubnet (VXLAN between IPv6 addresses), natOutgoing\n"
            ),
            "{shown}"
        );
        assert!(
            shown.contains(
                "pool d 10.3.0.0/16: ipipMode Always (VXLAN to nodes without an IPv4 address: 1)\n"
            ),
            "{shown}"
        );
        assert!(shown.contains("pool e fd00:2::/48: vxlanMode Always\n"), "{shown}");
        assert!(shown.ends_with("tunnels: 3 endpoints, nodes by zone (zone): none (1), x (2)\n"), "{shown}");
        assert_eq!(tunnels(&[]), "");
    }

    #[test]
    fn nodes_that_disagree_are_noted_up_to_a_bound() {
        let nodes: String = (1..=30)
            .map(|host| {
                let length = if host == 1 { 24 } else { 32 };
                let spec = format!("bgp: {{ipv4Address: 192.0.2.{host}/{length}}}");
                document("Node", &format!("name: n{host}"), &spec)
            })
            .collect();
        let notes = mismatches(&resolved(&nodes));
        assert!(
            notes.starts_with("note: n1: 192.0.2.1/24 and 192.0.2.10/32 of node n10 disagree"),
            "{notes}"
        );
        assert_eq!(notes.lines().count(), MISMATCHES + 1);
        assert!(notes.ends_with("more such\n"), "{notes}");
    }
}
