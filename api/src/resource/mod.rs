//! The documents: one module a kind, with parsing, defaults and validation of its fields, and the CRD schemas.
//!
//! Owner of the model both sources (files and Kubernetes) deliver. What needs more than one document to be judged is
//! in [`crate::document_set`]. Pure.

pub mod bgp_configuration;
pub mod bgp_filter;
pub mod bgp_peer;
pub mod community;
mod crd;
pub mod findings;
pub mod ip_pool;
pub mod meta;
pub mod node;
pub mod scalar;
pub mod secret;

use serde::de::IntoDeserializer;
use serde::{Deserialize, Serialize};

pub use bgp_configuration::BGPConfigurationSpec;
pub use bgp_filter::BGPFilterSpec;
pub use bgp_peer::BGPPeerSpec;
pub use crd::crds;
pub use findings::{Finding, Findings};
pub use ip_pool::IPPoolSpec;
pub use meta::ObjectMeta;
pub use node::NodeSpec;
pub use secret::Secret;

/// `apiVersion` of our own kinds.
pub const API_VERSION: &str = "causeway.dev/v1alpha1";

/// A document of one of our own kinds: metadata and specification.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Object<S> {
    /// Always [`API_VERSION`].
    pub api_version: String,
    /// The kind.
    pub kind: String,
    /// Name and labels.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// The specification.
    pub spec: S,
}

/// The kinds of documents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A router of the fabric.
    Node,
    /// What holds for the fabric, or for one node.
    BGPConfiguration,
    /// Who peers with whom.
    BGPPeer,
    /// Rules for import and export.
    BGPFilter,
    /// A range of pod addresses.
    IPPool,
    /// core/v1, for passwords.
    Secret,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 6] =
        [Kind::Node, Kind::BGPConfiguration, Kind::BGPPeer, Kind::BGPFilter, Kind::IPPool, Kind::Secret];

    /// The word in `kind:`.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Node => "Node",
            Kind::BGPConfiguration => "BGPConfiguration",
            Kind::BGPPeer => "BGPPeer",
            Kind::BGPFilter => "BGPFilter",
            Kind::IPPool => "IPPool",
            Kind::Secret => "Secret",
        }
    }

    /// The `apiVersion` it must come with.
    pub fn api_version(self) -> &'static str {
        match self {
            Kind::Secret => "v1",
            _ => API_VERSION,
        }
    }

    /// The kind of that name.
    pub fn from_name(name: &str) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// A parsed document of any kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resource {
    /// See [`NodeSpec`].
    Node(Object<NodeSpec>),
    /// See [`BGPConfigurationSpec`].
    BGPConfiguration(Box<Object<BGPConfigurationSpec>>),
    /// See [`BGPPeerSpec`].
    BGPPeer(Box<Object<BGPPeerSpec>>),
    /// See [`BGPFilterSpec`].
    BGPFilter(Object<BGPFilterSpec>),
    /// See [`IPPoolSpec`].
    IPPool(Object<IPPoolSpec>),
    /// See [`Secret`].
    Secret(Secret),
}

impl Resource {
    /// Parses a document of the given kind. `metadata.name` of a BGPConfiguration defaults to `default`.
    pub fn parse<'de, D: IntoDeserializer<'de, E>, E: serde::de::Error>(
        kind: Kind,
        value: D,
    ) -> Result<Self, E> {
        let value = value.into_deserializer();
        Ok(match kind {
            Kind::Node => Resource::Node(Object::deserialize(value)?),
            Kind::BGPConfiguration => {
                let mut object = Object::<BGPConfigurationSpec>::deserialize(value)?;
                if object.metadata.name.is_empty() {
                    object.metadata.name = bgp_configuration::DEFAULT_NAME.to_owned();
                }
                Resource::BGPConfiguration(Box::new(object))
            }
            Kind::BGPPeer => Resource::BGPPeer(Box::new(Object::deserialize(value)?)),
            Kind::BGPFilter => Resource::BGPFilter(Object::deserialize(value)?),
            Kind::IPPool => Resource::IPPool(Object::deserialize(value)?),
            Kind::Secret => Resource::Secret(Secret::deserialize(value)?),
        })
    }

    /// Its kind.
    pub fn kind(&self) -> Kind {
        match self {
            Resource::Node(_) => Kind::Node,
            Resource::BGPConfiguration(_) => Kind::BGPConfiguration,
            Resource::BGPPeer(_) => Kind::BGPPeer,
            Resource::BGPFilter(_) => Kind::BGPFilter,
            Resource::IPPool(_) => Kind::IPPool,
            Resource::Secret(_) => Kind::Secret,
        }
    }

    /// Its metadata.
    pub fn metadata(&self) -> &ObjectMeta {
        match self {
            Resource::Node(object) => &object.metadata,
            Resource::BGPConfiguration(object) => &object.metadata,
            Resource::BGPPeer(object) => &object.metadata,
            Resource::BGPFilter(object) => &object.metadata,
            Resource::IPPool(object) => &object.metadata,
            Resource::Secret(secret) => &secret.metadata,
        }
    }

    /// The document as JSON, as an API server has it.
    pub fn to_json(&self) -> serde_json::Value {
        let json = match self {
            Resource::Node(object) => serde_json::to_value(object),
            Resource::BGPConfiguration(object) => serde_json::to_value(object),
            Resource::BGPPeer(object) => serde_json::to_value(object),
            Resource::BGPFilter(object) => serde_json::to_value(object),
            Resource::IPPool(object) => serde_json::to_value(object),
            Resource::Secret(secret) => serde_json::to_value(secret),
        };
        // Only a map whose keys are no strings could fail, and there is none.
        json.unwrap_or_default()
    }

    /// What is wrong with it, seen by itself.
    pub fn validate(&self) -> Vec<Finding> {
        let mut findings = Findings::new();
        self.metadata().validate(&mut findings);
        match self {
            Resource::Node(object) => object.spec.validate(&mut findings),
            Resource::BGPConfiguration(object) => object.spec.validate(&object.metadata.name, &mut findings),
            Resource::BGPPeer(object) => object.spec.validate(&mut findings),
            Resource::BGPFilter(object) => object.spec.validate(&mut findings),
            Resource::IPPool(object) => object.spec.validate(&mut findings),
            Resource::Secret(secret) => secret.validate(&mut findings),
        }
        findings.into_vec()
    }
}
