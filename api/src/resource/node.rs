//! Kind `Node`: one router of the fabric, with its addresses, its AS and its own blocks.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::findings::Findings;
use super::scalar::{Cidr, Identifier, InterfaceV4, InterfaceV6};

/// `spec` of a Node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NodeSpec {
    /// How the node takes part in BGP.
    #[serde(default)]
    pub bgp: NodeBgp,
    /// The node's own blocks: each is one prefix, advertised as it is.
    #[serde(default, rename = "podCIDRs")]
    #[schemars(length(max = 64))]
    pub pod_cidrs: Vec<Cidr>,
}

/// BGP facts of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NodeBgp {
    /// The node's IPv4 address with the length of its subnet.
    #[serde(default, rename = "ipv4Address", skip_serializing_if = "Option::is_none")]
    pub ipv4_address: Option<InterfaceV4>,
    /// The node's IPv6 address with the length of its subnet.
    #[serde(default, rename = "ipv6Address", skip_serializing_if = "Option::is_none")]
    pub ipv6_address: Option<InterfaceV6>,
    /// The node's AS number; absent: that of the BGPConfiguration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 4_294_967_295_u32))]
    pub as_number: Option<u32>,
    /// BGP identifier; absent: the IPv4 address, and without one a number derived from the node's name.
    #[serde(default, rename = "routerID", skip_serializing_if = "Option::is_none")]
    pub router_id: Option<Identifier>,
    /// Makes the node a route reflector (RFC 4456) and takes it out of the mesh.
    #[serde(default, rename = "routeReflectorClusterID", skip_serializing_if = "Option::is_none")]
    pub route_reflector_cluster_id: Option<Identifier>,
}

impl NodeSpec {
    /// Checks what can be checked within this one document.
    pub fn validate(&self, findings: &mut Findings) {
        if let Some(number) = self.bgp.as_number {
            findings.asn("spec.bgp.asNumber", number);
        }
        for (index, cidr) in self.pod_cidrs.iter().enumerate() {
            let path = format!("spec.podCIDRs[{index}]");
            if cidr.is_default() {
                findings.add(&path, format!("{cidr} cannot be a block of a node"));
            }
            if let Some(other) = self.pod_cidrs[..index].iter().find(|other| other.overlaps(*cidr)) {
                findings.add(&path, format!("{cidr} overlaps {other}, which this node has as well"));
            }
        }
    }
}
