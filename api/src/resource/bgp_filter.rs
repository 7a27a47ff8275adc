//! Kind `BGPFilter`: import and export rules for each family, the first match of which decides.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::community::Community;
use super::findings::Findings;
use super::scalar::{Address, Cidr};

/// `spec` of a BGPFilter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BGPFilterSpec {
    /// Rules for IPv4 prefixes a peer sends.
    #[serde(default, rename = "importV4", skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1000))]
    pub import_v4: Vec<FilterRule>,
    /// Rules for IPv4 prefixes a peer is sent.
    #[serde(default, rename = "exportV4", skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1000))]
    pub export_v4: Vec<FilterRule>,
    /// Rules for IPv6 prefixes a peer sends.
    #[serde(default, rename = "importV6", skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1000))]
    pub import_v6: Vec<FilterRule>,
    /// Rules for IPv6 prefixes a peer is sent.
    #[serde(default, rename = "exportV6", skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1000))]
    pub export_v6: Vec<FilterRule>,
}

/// One rule: all of its conditions must hold; without any it matches everything.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FilterRule {
    /// Prefix to compare with, as `matchOperator` says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cidr: Option<Cidr>,
    /// How to compare with `cidr`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub match_operator: Option<MatchOperator>,
    /// Bounds on the prefix's length.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix_length: Option<PrefixLength>,
    /// Kind of the session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer_type: Option<PeerType>,
    /// Communities the path must carry, all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub communities: Option<CommunityMatch>,
    /// AS numbers the AS_PATH must begin with (the nearest first).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub as_path_prefix: Option<Vec<u32>>,
    /// Prefix the next hop must be inside of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_hop: Option<Cidr>,
    /// What becomes of a prefix that matches.
    pub action: Action,
    /// Changes to an accepted path, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10))]
    pub operations: Vec<Operation>,
}

/// How a prefix is compared with a rule's `cidr`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum MatchOperator {
    /// The very prefix.
    Equal,
    /// Any other prefix.
    NotEqual,
    /// The prefix or one inside it.
    In,
    /// Neither the prefix nor one inside it.
    NotIn,
}

/// Bounds on the length of a prefix, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PrefixLength {
    /// Shortest; absent: 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 128))]
    pub min: Option<u8>,
    /// Longest; absent: 32 or 128.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 128))]
    pub max: Option<u8>,
}

/// Kind of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PeerType {
    /// To another AS.
    #[serde(rename = "eBGP")]
    EBgp,
    /// Within one AS.
    #[serde(rename = "iBGP")]
    IBgp,
}

/// Communities a path must carry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CommunityMatch {
    /// All of these.
    #[schemars(length(min = 1, max = 50))]
    pub values: Vec<Community>,
}

/// What becomes of a matching prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Action {
    /// Taken, after the operations.
    Accept,
    /// Refused.
    Reject,
}

/// One change to a path: exactly one of the fields.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Operation {
    /// Adds a community.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub add_community: Option<CommunityValue>,
    /// Removes a community.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remove_community: Option<CommunityValue>,
    /// Replaces all communities, standard and large.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set_communities: Option<CommunityValues>,
    /// Puts AS numbers in front of the AS_PATH.
    #[serde(default, rename = "prependASPath", skip_serializing_if = "Option::is_none")]
    pub prepend_as_path: Option<AsPathPrefix>,
    /// Sets LOCAL_PREF.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set_local_pref: Option<NumberValue>,
    /// Sets MULTI_EXIT_DISC.
    #[serde(default, rename = "setMED", skip_serializing_if = "Option::is_none")]
    pub set_med: Option<NumberValue>,
    /// Sets the next hop.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set_next_hop: Option<AddressValue>,
}

/// One community.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CommunityValue {
    /// The community.
    pub value: Community,
}

/// Several communities.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CommunityValues {
    /// The communities; an empty list removes all.
    #[schemars(length(max = 50))]
    pub values: Vec<Community>,
}

/// AS numbers to put in front.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AsPathPrefix {
    /// The AS numbers, the first of which becomes the first of the path.
    #[schemars(length(min = 1, max = 10))]
    pub prefix: Vec<u32>,
}

/// A number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NumberValue {
    /// The number.
    pub value: u32,
}

/// An address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AddressValue {
    /// The address, of the rule's family.
    pub address: Address,
}

impl BGPFilterSpec {
    /// The four lists with their field names and whether they are IPv4.
    pub fn lists(&self) -> [(&'static str, bool, &[FilterRule]); 4] {
        [
            ("importV4", true, &self.import_v4),
            ("exportV4", true, &self.export_v4),
            ("importV6", false, &self.import_v6),
            ("exportV6", false, &self.export_v6),
        ]
    }

    /// Checks what can be checked within this one document.
    pub fn validate(&self, findings: &mut Findings) {
        for (field, ipv4, rules) in self.lists() {
            if rules.len() > 1000 {
                findings.add(format!("spec.{field}"), "more than 1000 rules");
            }
            for (index, rule) in rules.iter().enumerate() {
                rule.validate(&format!("spec.{field}[{index}]"), ipv4, findings);
            }
        }
    }
}

impl FilterRule {
    fn validate(&self, path: &str, ipv4: bool, findings: &mut Findings) {
        let family = if ipv4 { "IPv4" } else { "IPv6" };
        let longest = if ipv4 { 32 } else { 128 };
        match (self.cidr, self.match_operator) {
            (Some(_), None) => findings.add(format!("{path}.cidr"), "needs a matchOperator"),
            (None, Some(_)) => findings.add(format!("{path}.matchOperator"), "needs a cidr"),
            _ => {}
        }
        // `nextHop` may be of either family: an IPv4 prefix may have an IPv6 next hop (RFC 8950).
        if let Some(cidr) = self.cidr.filter(|cidr| cidr.is_ipv4() != ipv4) {
            findings.add(format!("{path}.cidr"), format!("{cidr} in a list of {family} rules"));
        }
        if let Some(length) = self.prefix_length {
            let (min, max) = (length.min.unwrap_or(0), length.max.unwrap_or(longest));
            for (field, value) in [("min", min), ("max", max)] {
                if value > longest {
                    findings.add(
                        format!("{path}.prefixLength.{field}"),
                        format!("{family} prefixes are at most {longest} long"),
                    );
                }
            }
            if min > max {
                findings.add(format!("{path}.prefixLength"), format!("min {min} is above max {max}"));
            }
        }
        if self.communities.as_ref().is_some_and(|communities| communities.values.is_empty()) {
            findings.add(format!("{path}.communities.values"), "must name at least one community");
        }
        if self.as_path_prefix.as_ref().is_some_and(Vec::is_empty) {
            findings.add(format!("{path}.asPathPrefix"), "must name at least one AS number");
        }
        if self.action == Action::Reject && !self.operations.is_empty() {
            findings.add(format!("{path}.operations"), "only a rule that accepts can have operations");
        }
        if self.operations.len() > 10 {
            findings.add(format!("{path}.operations"), "more than 10 operations");
        }
        for (index, operation) in self.operations.iter().enumerate() {
            operation.validate(&format!("{path}.operations[{index}]"), ipv4, findings);
        }
    }
}

impl Operation {
    fn validate(&self, path: &str, ipv4: bool, findings: &mut Findings) {
        let given = [
            self.add_community.is_some(),
            self.remove_community.is_some(),
            self.set_communities.is_some(),
            self.prepend_as_path.is_some(),
            self.set_local_pref.is_some(),
            self.set_med.is_some(),
            self.set_next_hop.is_some(),
        ];
        let given = given.iter().filter(|given| **given).count();
        if given != 1 {
            findings.add(path, format!("an operation has exactly one field, this one has {given}"));
        }
        if let Some(prepend) = &self.prepend_as_path {
            if prepend.prefix.is_empty() || prepend.prefix.len() > 10 {
                findings.add(format!("{path}.prependASPath.prefix"), "must have 1 to 10 AS numbers");
            }
            for (index, number) in prepend.prefix.iter().enumerate() {
                findings.asn(format!("{path}.prependASPath.prefix[{index}]"), *number);
            }
        }
        if let Some(set) = self.set_next_hop
            && set.address.0.is_ipv4() != ipv4
        {
            findings.add(
                format!("{path}.setNextHop.address"),
                format!("{} in a list of {} rules", set.address, if ipv4 { "IPv4" } else { "IPv6" }),
            );
        }
    }
}
