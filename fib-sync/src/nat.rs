//! Translation of what pods send out of the pools (`natOutgoing`), and the MSS clamp of tunnels (`clampMSS`): what our
//! nftables table should hold, as nftables' own JSON. Pure; [`keeper`] keeps the kernel equal to it, [`nft`] runs the
//! program.
//!
//! Owner of the table `causeway` and of nothing else in nftables or iptables. It holds, for each family:
//!
//! - the sets `pools-natN` (pools whose pods are translated) and `pools-allN` (all pools);
//! - in chain `postrouting`, where NAT has its place after routing: from a pool of the first set to an address outside
//!   every pool, on any device but `lo`: masquerade, with a random port so that two connections do not meet on one;
//! - in chain `forward`: a TCP SYN into or out of one of our tunnel devices gets the largest segment that fits both
//!   ways. `rt mtu` is the smaller one of the routes to the destination and back to the source, so a SYN that comes out of a
//!   tunnel is bounded by the tunnel it came from.
//!
//! What is not translated: pod to pod, whichever pools they are in; pod to an address of its own node (that packet is
//! delivered, it never passes `postrouting`); what a node sends to itself. A pod that talks to *another* node's address
//! is translated, as Calico's `IPPoolsOnly` does: nodes are outside the pools. A service address that kube-proxy turned into a
//! pod's is a pod's by then. Only the first translation of a connection counts, so a masquerade of kube-proxy and this one
//! do not add up.

pub mod keeper;
pub mod nft;

use std::collections::BTreeSet;

use ipnetwork::IpNetwork;
use serde_json::{Value, json};

use crate::config::Config;

/// The name of our table.
pub const TABLE: &str = "causeway";
/// Our tunnel devices, as nftables' wildcard.
const TUNNELS: &str = "causeway-*";
/// nftables' `srcnat`.
const SRCNAT: i32 = 100;
/// nftables' `mangle`.
const MANGLE: i32 = -150;

/// What the documents ask for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Desired {
    /// Pools whose pods are translated.
    translated: BTreeSet<IpNetwork>,
    /// All pools.
    pools: BTreeSet<IpNetwork>,
    /// Whether TCP into tunnels gets smaller segments.
    clamp_mss: bool,
}

/// How the table is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// One table for both families.
    Inet,
    /// A table for each family: kernels before 5.2 translate addresses in no other.
    Split,
}

/// One family's words.
struct Words {
    suffix: &'static str,
    protocol: &'static str,
    kind: &'static str,
}

const IPV4: Words = Words { suffix: "4", protocol: "ip", kind: "ipv4_addr" };
const IPV6: Words = Words { suffix: "6", protocol: "ip6", kind: "ipv6_addr" };

impl Layout {
    /// The families of the tables, in nftables' words.
    pub fn families(self) -> &'static [&'static str] {
        match self {
            Layout::Inet => &["inet"],
            Layout::Split => &["ip", "ip6"],
        }
    }
}

impl Desired {
    /// What a configuration asks for.
    pub fn of(config: &Config) -> Desired {
        Desired::new(config.pools.iter().map(|pool| (pool.cidr, pool.nat_outgoing)), config.clamp_mss)
    }

    /// From the pools, each with its `natOutgoing`, and `clampMSS`.
    pub fn new(pools: impl IntoIterator<Item = (IpNetwork, bool)>, clamp_mss: bool) -> Desired {
        let mut desired = Desired { clamp_mss, ..Desired::default() };
        for (cidr, translated) in pools {
            desired.pools.insert(cidr);
            if translated {
                desired.translated.insert(cidr);
            }
        }
        desired
    }

    /// Whether no table is needed.
    pub fn is_nothing(&self) -> bool {
        self.translated.is_empty() && !self.clamp_mss
    }

    /// How many pools are translated.
    pub fn translated(&self) -> usize {
        self.translated.len()
    }

    /// Whether segments are clamped.
    pub fn clamps(&self) -> bool {
        self.clamp_mss
    }

    /// The objects of the table, in an order in which they can be made.
    pub fn objects(&self, layout: Layout) -> Vec<Value> {
        let mut objects = Vec::new();
        for family in layout.families() {
            objects.push(json!({"table": {"family": family, "name": TABLE}}));
            let words: &[&Words] = match *family {
                "ip" => &[&IPV4],
                "ip6" => &[&IPV6],
                _ => &[&IPV4, &IPV6],
            };
            if !self.translated.is_empty() {
                for words in words {
                    objects.push(set(family, &format!("pools-nat{}", words.suffix), words, &self.translated));
                    objects.push(set(family, &format!("pools-all{}", words.suffix), words, &self.pools));
                }
                objects.push(chain(family, "postrouting", "nat", "postrouting", SRCNAT));
                objects.extend(words.iter().map(|words| masquerade(family, words)));
            }
            if self.clamp_mss {
                objects.push(chain(family, "forward", "filter", "forward", MANGLE));
                for key in ["oifname", "iifname"] {
                    objects.push(clamp(family, key));
                }
            }
        }
        objects
    }

    /// One transaction after which the tables of this layout hold this and nothing else.
    pub fn transaction(&self, layout: Layout) -> Value {
        let mut commands = Vec::new();
        for family in layout.families() {
            // Deleting what is not there fails; adding what is there does not.
            commands.push(json!({"add": {"table": {"family": family, "name": TABLE}}}));
            commands.push(delete(family));
        }
        commands.extend(self.objects(layout).into_iter().map(|object| json!({"add": object})));
        json!({"nftables": commands})
    }
}

/// One transaction that deletes our tables of these families, which must be there.
pub fn removal(families: &[&str]) -> Value {
    let commands: Vec<Value> = families.iter().map(|family| delete(family)).collect();
    json!({"nftables": commands})
}

fn delete(family: &str) -> Value {
    json!({"delete": {"table": {"family": family, "name": TABLE}}})
}

fn set(family: &str, name: &str, words: &Words, networks: &BTreeSet<IpNetwork>) -> Value {
    let v4 = words.protocol == "ip";
    let mut elements: Vec<IpNetwork> = Vec::new();
    // Sorted, a network that lies in another follows it; nftables refuses elements that overlap.
    for network in networks.iter().filter(|network| network.is_ipv4() == v4) {
        if !elements.last().is_some_and(|wide| wide.contains(network.network())) {
            elements.push(*network);
        }
    }
    let mut set =
        json!({"family": family, "table": TABLE, "name": name, "type": words.kind, "flags": ["interval"]});
    if !elements.is_empty() {
        let prefix =
            |network: &IpNetwork| json!({"prefix": {"addr": network.network(), "len": network.prefix()}});
        set["elem"] = elements.iter().map(prefix).collect();
    }
    json!({"set": set})
}

fn chain(family: &str, name: &str, kind: &str, hook: &str, priority: i32) -> Value {
    json!({"chain": {"family": family, "table": TABLE, "name": name, "type": kind, "hook": hook,
                     "prio": priority, "policy": "accept"}})
}

fn rule(family: &str, chain: &str, comment: &str, expressions: Value) -> Value {
    json!({"rule": {"family": family, "table": TABLE, "chain": chain, "comment": comment, "expr": expressions}})
}

fn masquerade(family: &str, words: &Words) -> Value {
    let address = |field: &str| json!({"payload": {"protocol": words.protocol, "field": field}});
    rule(
        family,
        "postrouting",
        "natOutgoing",
        json!([
            {"match": {"op": "!=", "left": {"meta": {"key": "oifname"}}, "right": "lo"}},
            {"match": {"op": "==", "left": address("saddr"), "right": format!("@pools-nat{}", words.suffix)}},
            {"match": {"op": "!=", "left": address("daddr"), "right": format!("@pools-all{}", words.suffix)}},
            {"masquerade": {"flags": "fully-random"}},
        ]),
    )
}

fn clamp(family: &str, key: &str) -> Value {
    let flags = json!({"payload": {"protocol": "tcp", "field": "flags"}});
    rule(
        family,
        "forward",
        "clampMSS",
        json!([
            {"match": {"op": "==", "left": {"meta": {"key": key}}, "right": TUNNELS}},
            {"match": {"op": "==", "left": {"&": [flags, ["syn", "rst"]]}, "right": "syn"}},
            {"mangle": {"key": {"tcp option": {"name": "maxseg", "field": "size"}}, "value": {"rt": {"key": "mtu"}}}},
        ]),
    )
}

/// Objects in a form in which two listings of the same table are equal: without handles, sets sorted and their
/// elements written in one way. The order of rules in a chain stays.
pub fn normal_form(objects: impl IntoIterator<Item = Value>) -> Vec<Value> {
    let mut objects: Vec<Value> = objects.into_iter().filter_map(normal_object).collect();
    objects.sort_by_cached_key(|object| match object.get("rule") {
        Some(rule) => (1, format!("{} {}", rule["family"], rule["chain"])),
        None => (0, object.to_string()),
    });
    objects
}

fn normal_object(object: Value) -> Option<Value> {
    let Value::Object(mut object) = object else { return None };
    object.remove("metainfo");
    for body in object.values_mut().filter_map(Value::as_object_mut) {
        body.remove("handle");
        if let Some(Value::Array(elements)) = body.get_mut("elem") {
            let mut plain: Vec<Value> = elements.drain(..).map(normal_element).collect();
            plain.sort_by_cached_key(Value::to_string);
            *elements = plain;
        }
    }
    (!object.is_empty()).then_some(Value::Object(object))
}

/// A single address is listed without its length.
fn normal_element(element: Value) -> Value {
    let full = |addr: &Value, len: u64| Value::String(format!("{}/{len}", addr.as_str().unwrap_or_default()));
    match &element {
        Value::String(address) => full(&element, if address.contains(':') { 128 } else { 32 }),
        Value::Object(object) => match object.get("prefix") {
            Some(prefix) => full(&prefix["addr"], prefix["len"].as_u64().unwrap_or_default()),
            None => element,
        },
        _ => element,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn networks(pools: &[(&str, bool)]) -> Vec<(IpNetwork, bool)> {
        pools.iter().map(|(cidr, nat)| (cidr.parse().unwrap(), *nat)).collect()
    }

    fn desired() -> Desired {
        let pools = [
            ("10.244.0.0/16", true),
            ("10.9.0.1/32", false),
            ("10.244.7.0/24", true),
            ("fd00:10::/48", true),
        ];
        Desired::new(networks(&pools), true)
    }

    /// Golden: what is given to nftables is a file that can be read and loaded by hand (`nft -j -f`).
    #[test]
    fn documents_become_nftables_json() {
        for (name, layout, golden) in [
            ("inet", Layout::Inet, include_str!("nat/golden/inet.json")),
            ("split", Layout::Split, include_str!("nat/golden/split.json")),
        ] {
            let golden: Value = serde_json::from_str(golden).unwrap();
            let is = desired().transaction(layout);
            assert_eq!(is, golden, "{name}:\n{}", serde_json::to_string_pretty(&is).unwrap());
        }
    }

    #[test]
    fn nothing_is_asked_for_without_a_pool_that_translates() {
        assert!(Desired::new(networks(&[("10.244.0.0/16", false)]), false).is_nothing());
        assert!(!Desired::new([], true).is_nothing());
        let only_clamp = Desired::new(networks(&[("10.244.0.0/16", false)]), true).objects(Layout::Inet);
        assert!(only_clamp.iter().all(|object| object.get("set").is_none()));
        let only_nat = Desired::new(networks(&[("10.244.0.0/16", true)]), false).objects(Layout::Inet);
        assert!(only_nat.iter().all(|object| object["chain"]["name"] != "forward"));
    }

    #[test]
    fn a_listing_equals_what_was_asked_for_whatever_its_order_and_handles() {
        let listed = |elements: Value| {
            vec![
                json!({"metainfo": {"version": "1.0.6"}}),
                json!({"rule": {"chain": "a", "family": "ip", "handle": 4, "expr": [1]}}),
                json!({"rule": {"chain": "a", "family": "ip", "handle": 3, "expr": [0]}}),
                json!({"set": {"name": "s", "handle": 2, "elem": elements}}),
            ]
        };
        let one = normal_form(listed(json!(["10.9.0.1", {"prefix": {"addr": "10.0.0.0", "len": 8}}])));
        let prefix = json!({"prefix": {"addr": "10.9.0.1", "len": 32}});
        let other = normal_form(listed(json!([{"prefix": {"addr": "10.0.0.0", "len": 8}}, prefix])));
        assert_eq!(one, other);
        let mut swapped = listed(json!(["10.9.0.1", {"prefix": {"addr": "10.0.0.0", "len": 8}}]));
        swapped.swap(1, 2);
        assert_ne!(normal_form(swapped), other, "the order of rules counts");
        let more = normal_form(listed(json!(["10.9.0.1", "10.9.0.2"])));
        assert_ne!(more, other);
    }
}
