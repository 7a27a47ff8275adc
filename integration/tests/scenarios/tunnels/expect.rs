//! What the pools ask for, and so which way packets between two nodes must go. Pure but for writing the pools' document.

use std::net::IpAddr;

use anyhow::Result;
use causeway_api::control::Via;
use causeway_integration::capture::Carried;

use crate::scene::Scene;

/// Causeway's VXLAN network identifier where no document names one.
const VNI: u32 = 4096;

/// Kind of tunnel a pool asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Ipip,
    Vxlan,
}

/// When a pool asks for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    Never,
    CrossSubnet,
    Always,
}

/// Every answer to when.
pub const ALL: [When; 3] = [When::Never, When::CrossSubnet, When::Always];

/// What the two pools ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Modes {
    pub ipv4: (Kind, When),
    pub ipv6: (Kind, When),
}

/// The way from one node to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// On the wire as it is, to the node itself.
    Direct,
    /// On the wire as it is, to the router.
    Recursive,
    /// In a tunnel.
    Tunnel(Kind),
}

impl Way {
    /// As the daemons name it.
    pub fn via(self) -> Via {
        match self {
            Way::Direct => Via::Direct,
            Way::Recursive => Via::Recursive,
            Way::Tunnel(Kind::Ipip) => Via::Ipip,
            Way::Tunnel(Kind::Vxlan) => Via::Vxlan,
        }
    }

    /// As the wire shows it.
    pub fn carried(self) -> Carried {
        match self {
            Way::Direct | Way::Recursive => Carried::Native,
            Way::Tunnel(Kind::Ipip) => Carried::InIp,
            Way::Tunnel(Kind::Vxlan) => Carried::InVxlan(VNI),
        }
    }

    /// The MTU of its routes between nodes whose addresses are of that family and whose links have 1,500 bytes; `None`: the link's.
    pub fn mtu(self, outer_is_ipv4: bool) -> Option<u32> {
        match (self, outer_is_ipv4) {
            (Way::Direct | Way::Recursive, _) => None,
            (Way::Tunnel(Kind::Ipip), _) => Some(1480),
            (Way::Tunnel(Kind::Vxlan), true) => Some(1450),
            (Way::Tunnel(Kind::Vxlan), false) => Some(1430),
        }
    }
}

impl Modes {
    /// The same for both families.
    pub fn both(kind: Kind, when: When) -> Self {
        Self { ipv4: (kind, when), ipv6: (kind, when) }
    }

    /// The way of packets of a family from one node to another.
    pub fn way(self, is_ipv4: bool, from: &str, to: &str) -> Way {
        // Between the nodes' IPv6 addresses `ipipMode` is VXLAN too.
        let (kind, when) = if is_ipv4 { self.ipv4 } else { (Kind::Vxlan, self.ipv6.1) };
        match (when, subnet(from) == subnet(to)) {
            (When::Always, _) | (When::CrossSubnet, false) => Way::Tunnel(kind),
            (When::CrossSubnet | When::Never, true) => Way::Direct,
            (When::Never, false) => Way::Recursive,
        }
    }

    /// Writes the pools' document.
    pub fn ask(self, scene: &Scene) -> Result<()> {
        let pool = |name: &str, cidr: &str, (kind, when): (Kind, When)| {
            let field = match kind {
                Kind::Ipip => "ipipMode",
                Kind::Vxlan => "vxlanMode",
            };
            format!(
                "apiVersion: causeway.dev/v1alpha1\nkind: IPPool\nmetadata: {{name: {name}}}\n\
                 spec: {{cidr: \"{cidr}\", {field}: {when:?}}}\n"
            )
        };
        let text = pool("pods-ipv4", "10.244.0.0/16", self.ipv4)
            + "---\n"
            + &pool("pods-ipv6", "fd00:10:244::/48", self.ipv6);
        Ok(std::fs::write(scene.documents().join("pools.yaml"), text)?)
    }
}

/// `a` of `node-a1`.
fn subnet(node: &str) -> Option<char> {
    node.strip_prefix("node-").and_then(|rest| rest.chars().next())
}

/// A node's own address, which is the outer address of its tunnels.
pub fn address_of(node: &str, is_ipv4: bool) -> Result<IpAddr> {
    let (subnet, number) = match node {
        "node-a1" => (1, 11),
        "node-a2" => (1, 12),
        "node-b1" => (2, 11),
        "node-b2" => (2, 12),
        _ => anyhow::bail!("{node} is no node of two-subnets"),
    };
    let text =
        if is_ipv4 { format!("172.21.{subnet}.{number}") } else { format!("fd00:21:{subnet}::{number}") };
    Ok(text.parse()?)
}

/// The router's port that a node's link ends at.
pub fn port_of(node: &str) -> Result<&'static str> {
    Ok(match node {
        "node-a1" => "eth1",
        "node-a2" => "eth2",
        "node-b1" => "eth3",
        "node-b2" => "eth4",
        _ => anyhow::bail!("{node} is no node of two-subnets"),
    })
}
