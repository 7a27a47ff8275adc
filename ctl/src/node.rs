//! `show node`: what the three daemons know of the node, put together.

use causeway_api::control::{
    BGPD_SOCKET, Condition, ConditionStatus, FIB_SYNC_SOCKET, IPAM_SOCKET, NodeInfo,
};

use crate::Error;
use crate::client::{Client, daemon_of};
use crate::render::{Output, duration, judged, or_dash};

/// Prints the node; a daemon that cannot be reached becomes a condition, unless none can.
pub fn show(client: &Client, output: &Output) -> Result<(), Error> {
    let node = gather(client)?;
    output.print(&node, |output| text(output, &node))
}

/// What the three daemons know.
pub fn gather(client: &Client) -> Result<NodeInfo, Error> {
    let mut node = NodeInfo::default();
    let mut failures = Vec::new();
    for socket in [BGPD_SOCKET, FIB_SYNC_SOCKET, IPAM_SOCKET] {
        match client.get::<NodeInfo>(socket, "/v1/node") {
            Ok(part) => merge(&mut node, part),
            Err(error) => {
                node.conditions.push(Condition::new(
                    "DaemonReachable",
                    false,
                    "Unreachable",
                    format!("{}: {error}", daemon_of(socket)),
                ));
                failures.push(error);
            }
        }
    }
    if failures.len() == 3 {
        return Err(failures.swap_remove(0));
    }
    Ok(node)
}

/// Adds what `part` knows to `node`. What several daemons know, the first one says.
fn merge(node: &mut NodeInfo, part: NodeInfo) {
    if node.name.is_empty() {
        node.name = part.name;
    }
    node.ipv4_address = node.ipv4_address.take().or(part.ipv4_address);
    node.ipv6_address = node.ipv6_address.take().or(part.ipv6_address);
    node.as_number = node.as_number.or(part.as_number);
    node.router_id = node.router_id.take().or(part.router_id);
    node.mtu = node.mtu.or(part.mtu);
    if node.pod_cidrs.is_empty() {
        node.pod_cidrs = part.pod_cidrs;
    }
    for line in part.chosen {
        if !node.chosen.contains(&line) {
            node.chosen.push(line);
        }
    }
    for condition in part.conditions {
        if !node.conditions.contains(&condition) {
            node.conditions.push(condition);
        }
    }
    node.configuration = node.configuration.take().or(part.configuration);
}

fn text(output: &Output, node: &NodeInfo) -> String {
    let blocks: Vec<String> = node.pod_cidrs.iter().map(ToString::to_string).collect();
    let lines = [
        ("node", node.name.clone()),
        ("IPv4 address", or_dash(node.ipv4_address.as_ref())),
        ("IPv6 address", or_dash(node.ipv6_address.as_ref())),
        ("AS", or_dash(node.as_number)),
        ("router id", or_dash(node.router_id.as_ref())),
        ("pod CIDRs", blocks.join(", ")),
        ("MTU", or_dash(node.mtu)),
    ];
    let mut text: String = lines.iter().map(|(name, value)| format!("{name:<15}{value}\n")).collect();
    for (index, line) in node.chosen.iter().enumerate() {
        text += &format!("{:<15}{line}\n", if index == 0 { "chosen" } else { "" });
    }
    if let Some(configuration) = &node.configuration {
        text += &format!(
            "{:<15}generation {} from {}, in force for {}\n",
            "configuration",
            configuration.generation,
            configuration.source,
            duration(configuration.age)
        );
        if let Some(refused) = &configuration.refused {
            text +=
                &format!("{:<15}{} ago, the one above stays in force:\n", "refused", duration(refused.age));
            for error in &refused.errors {
                text += &format!("  {error}\n");
            }
        }
    }
    text.push('\n');
    text += &conditions(output, &node.conditions);
    text
}

/// A table of conditions.
pub fn conditions(output: &Output, conditions: &[Condition]) -> String {
    let rows = conditions.iter().map(|condition| {
        let good = match condition.status {
            ConditionStatus::True => Some(true),
            ConditionStatus::False => Some(false),
            ConditionStatus::Unknown => None,
        };
        vec![
            comfy_table::Cell::new(&condition.kind),
            judged(format!("{:?}", condition.status), good),
            comfy_table::Cell::new(&condition.reason),
            comfy_table::Cell::new(&condition.message),
        ]
    });
    output.table(&["CONDITION", "STATUS", "REASON", "MESSAGE"], rows.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_complete_each_other() {
        let mut node = NodeInfo { name: "a".into(), as_number: Some(64512), ..NodeInfo::default() };
        let shared = Condition::new("ConfigurationAccepted", true, "Accepted", "generation 1");
        node.conditions.push(shared.clone());
        let part = NodeInfo {
            name: "a".into(),
            as_number: Some(1),
            mtu: Some(1500),
            conditions: vec![shared, Condition::new("SysctlsSet", true, "Set", "")],
            ..NodeInfo::default()
        };
        merge(&mut node, part);
        assert_eq!((node.as_number, node.mtu, node.conditions.len()), (Some(64512), Some(1500), 2));
    }
}
