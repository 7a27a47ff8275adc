//! Documents → what this daemon runs on: one pure function, and one that reads the files for it.
//!
//! Owner of the meaning of documents for the speaker. The engine (`causeway-bgp-core`) sees only its native
//! [`Config`]. Selectors, defaults and names are resolved in `causeway_api::effective`, which `causeway check` prints;
//! what is left for here is to say the same in the engine's types.

mod filter;
mod native;

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use causeway_api::control::{Condition, NodeInfo};
use causeway_api::document_set::{DocumentSet, Errors};
use causeway_api::effective::{self, EffectiveNode, Password};
use causeway_bgp_core::config::{Config, Role};

/// What the documents of one node come down to for the speaker's daemon.
#[derive(Clone, Debug, PartialEq)]
pub struct Lowered {
    /// The engine's part.
    pub config: Arc<Config>,
    /// Port to listen on where `--listen` is not given.
    pub listen_port: u16,
    /// Addresses to listen on where `--listen` is not given (`bindMode: NodeIP`); empty: every address, both families.
    pub listen_addresses: Vec<IpAddr>,
    /// `logSeverity`.
    pub log_severity: String,
    /// Name, addresses, AS number, BGP identifier, pod CIDRs, for `show node`.
    pub node: NodeInfo,
    /// What is noteworthy about the documents: a missing password, a peer that is the node itself, unequal masks.
    pub conditions: Vec<Condition>,
}

/// Reads the documents at `path` and lowers them for `node`.
///
/// # Errors
/// One line an error, each naming file, line, column, document and field.
pub fn read(path: &Path, node: &str, role: Role) -> Result<Lowered, Vec<String>> {
    let lines = |errors: Errors| errors.0.iter().map(ToString::to_string).collect::<Vec<_>>();
    let documents = causeway_api::source::read(path).map_err(lines)?;
    lower(&documents, node, role).map_err(lines)
}

/// Lowers documents for `node`. Pure.
///
/// # Errors
/// Each names its document and place.
pub fn lower(documents: &DocumentSet, node: &str, role: Role) -> Result<Lowered, Errors> {
    let role = match role {
        Role::Node => effective::Role::Node,
        Role::Reflector => effective::Role::Reflector,
    };
    let effective = effective::resolve(documents, node, role)?;
    Ok(Lowered {
        config: Arc::new(native::config(&effective)),
        listen_port: effective.listen.port,
        listen_addresses: effective.listen.addresses.clone(),
        log_severity: effective.log_severity.as_str().to_owned(),
        node: node_info(&effective),
        conditions: conditions(&effective),
    })
}

fn node_info(effective: &EffectiveNode) -> NodeInfo {
    NodeInfo {
        name: effective.node.clone(),
        ipv4_address: effective.ipv4_address.map(|address| address.to_string()),
        ipv6_address: effective.ipv6_address.map(|address| address.to_string()),
        as_number: Some(effective.as_number),
        router_id: Some(effective.router_id.to_string()),
        chosen: effective.chosen.clone(),
        pod_cidrs: effective.blocks.iter().map(|block| block.cidr.0).collect(),
        ..NodeInfo::default()
    }
}

fn conditions(effective: &EffectiveNode) -> Vec<Condition> {
    let settings = effective.peers.iter().map(|peer| &peer.settings);
    let settings = settings.chain(effective.peer_ranges.iter().map(|range| &range.settings));
    let missing: Vec<String> = settings
        .filter_map(|settings| match &settings.password {
            Password::Missing(reason) => Some(format!("{}: {reason}", settings.name)),
            Password::None | Password::Key(_) => None,
        })
        .collect();
    let mut conditions = Vec::new();
    for (kind, reason, lines) in [
        ("PasswordsAvailable", "SecretMissing", &missing),
        ("DocumentsApplied", "PartlyLeftOut", &effective.notes),
        ("SubnetsAgree", "UnequalMasks", &effective.subnet_mismatches),
    ] {
        if !lines.is_empty() {
            conditions.push(Condition::new(kind, false, reason, lines.join("; ")));
        }
    }
    conditions
}
