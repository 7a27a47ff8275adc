//! `metadata` and the small types several kinds share. Pure.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use super::findings::Findings;

/// `metadata` of a document.
///
/// What an API server adds of its own accord is read and ignored, so that the output of `kubectl get -o yaml` can be
/// used as a file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ObjectMeta {
    /// Name of the document, unique within its kind.
    #[serde(default)]
    pub name: String,
    /// Namespace; only Secrets have one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// What selectors look at.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Free text for other programs.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    #[serde(default, skip_serializing)]
    uid: Ignored,
    #[serde(default, skip_serializing)]
    resource_version: Ignored,
    #[serde(default, skip_serializing)]
    generation: Ignored,
    #[serde(default, skip_serializing)]
    creation_timestamp: Ignored,
    #[serde(default, skip_serializing)]
    managed_fields: Ignored,
    #[serde(default, skip_serializing)]
    owner_references: Ignored,
    #[serde(default, skip_serializing)]
    finalizers: Ignored,
}

/// A field that is accepted and not kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
struct Ignored;

impl<'de> Deserialize<'de> for Ignored {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        IgnoredAny::deserialize(deserializer).map(|_| Ignored)
    }
}

impl ObjectMeta {
    /// Metadata that is a name only.
    pub fn named(name: impl Into<String>) -> Self {
        ObjectMeta { name: name.into(), ..Self::default() }
    }

    /// Checks name and label syntax.
    pub fn validate(&self, findings: &mut Findings) {
        if self.name.is_empty() {
            findings.add("metadata.name", "a name is required");
        } else if !is_name(&self.name) {
            findings.add(
                "metadata.name",
                format!(
                    "`{}` is not a name: letters, digits, `-`, `.` and `_`, beginning and ending with a letter or \
                     digit, at most 253 characters",
                    self.name
                ),
            );
        }
    }
}

/// True where `text` can be the name of a document.
pub fn is_name(text: &str) -> bool {
    let bytes = text.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else {
        return false;
    };
    bytes.len() <= 253
        && first.is_ascii_alphanumeric()
        && last.is_ascii_alphanumeric()
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'))
}

/// True where `text` can be the key of a label: a name of at most 63 characters, with a prefix before `/` or without.
pub fn is_label_key(text: &str) -> bool {
    let (prefix, name) = text.split_once('/').map_or((None, text), |(prefix, name)| (Some(prefix), name));
    prefix.is_none_or(is_name) && is_name(name) && name.len() <= 63
}

/// Where a password comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PasswordSource {
    /// A key of a core/v1 Secret.
    pub secret_key_ref: SecretKeyRef,
}

/// Names one key of one Secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SecretKeyRef {
    /// Name of the Secret.
    pub name: String,
    /// Key within it.
    pub key: String,
}

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum AddressFamily {
    /// IPv4 unicast.
    Ipv4,
    /// IPv6 unicast.
    Ipv6,
}
