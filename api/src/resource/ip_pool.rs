//! Kind `IPPool`: a range pods get their addresses from, and what the default policy imports.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::findings::Findings;
use super::scalar::Cidr;
use crate::selector::Selector;

/// `spec` of an IPPool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct IPPoolSpec {
    /// The range.
    pub cidr: Cidr,
    /// When packets to this pool go into IP-in-IP; at most one of the two modes may be other than Never. Between
    /// IPv6 addresses of nodes it is VXLAN.
    #[serde(default)]
    pub ipip_mode: EncapMode,
    /// When packets to this pool go into VXLAN.
    #[serde(default)]
    pub vxlan_mode: EncapMode,
    /// Whether packets from this pool to what is in no pool, disabled ones included, get the node's address.
    #[serde(default)]
    pub nat_outgoing: bool,
    /// A disabled pool gives no addresses, and the default policy does not import prefixes inside it; nothing is
    /// tunnelled to it. For `natOutgoing` it stays a pool.
    #[serde(default)]
    pub disabled: bool,
    /// Blocks of this pool are never advertised.
    #[serde(default, rename = "disableBGPExport")]
    pub disable_bgp_export: bool,
    /// Length of claimed blocks; absent: 26 for IPv4, 122 for IPv6.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 20, max = 128))]
    pub block_size: Option<u8>,
    /// Which nodes may have blocks of this pool; absent: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_selector: Option<Selector>,
    /// What the addresses are for; absent: Workload and Tunnel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 3))]
    pub allowed_uses: Option<Vec<AllowedUse>>,
}

/// When packets are wrapped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum EncapMode {
    /// Never.
    #[default]
    Never,
    /// Where the next hop is in another subnet.
    CrossSubnet,
    /// Always.
    Always,
}

/// What addresses of a pool are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum AllowedUse {
    /// Pods.
    Workload,
    /// Tunnel devices.
    Tunnel,
    /// LoadBalancer services; excludes the other two.
    LoadBalancer,
}

impl IPPoolSpec {
    /// Length of claimed blocks, the default applied.
    pub fn block_size(&self) -> u8 {
        self.block_size.unwrap_or(if self.cidr.is_ipv4() { 26 } else { 122 })
    }

    /// What the addresses are for, the default applied.
    pub fn allowed_uses(&self) -> &[AllowedUse] {
        self.allowed_uses.as_deref().unwrap_or(&[AllowedUse::Workload, AllowedUse::Tunnel])
    }

    /// Checks what can be checked within this one document.
    pub fn validate(&self, findings: &mut Findings) {
        if self.ipip_mode != EncapMode::Never && self.vxlan_mode != EncapMode::Never {
            findings.add("spec.vxlanMode", "ipipMode is set as well: one of the two must be Never");
        }
        let fixed = ["169.254.0.0/16", "fe80::/10", "224.0.0.0/4", "ff00::/8", "127.0.0.0/8"];
        for reserved in fixed.iter().filter_map(|text| text.parse::<Cidr>().ok()) {
            if reserved.overlaps(self.cidr) {
                findings.add("spec.cidr", format!("{} overlaps {reserved}, which no pool may", self.cidr));
                break;
            }
        }
        if let Some(size) = self.block_size {
            let (min, max) = if self.cidr.is_ipv4() { (20, 32) } else { (116, 128) };
            if !(min..=max).contains(&size) {
                findings.add("spec.blockSize", format!("must be {min} to {max} for {}", self.cidr));
            } else if size < self.cidr.length() {
                findings.add("spec.blockSize", format!("a /{size} block does not fit into {}", self.cidr));
            }
        }
        let uses = self.allowed_uses();
        if uses.is_empty() {
            findings.add("spec.allowedUses", "must name at least one use");
        }
        if uses.iter().enumerate().any(|(index, use_)| uses[..index].contains(use_)) {
            findings.add("spec.allowedUses", "names a use twice");
        }
        if uses.contains(&AllowedUse::LoadBalancer) && uses.len() > 1 {
            findings.add("spec.allowedUses", "LoadBalancer cannot be combined with another use");
        }
        if uses.contains(&AllowedUse::LoadBalancer) {
            for (mode, field) in [(self.ipip_mode, "spec.ipipMode"), (self.vxlan_mode, "spec.vxlanMode")] {
                if mode != EncapMode::Never {
                    findings.add(field, "must be Never: nothing is tunnelled to addresses of services");
                }
            }
        }
    }
}
