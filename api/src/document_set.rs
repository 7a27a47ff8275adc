//! All documents together: what one alone cannot show is judged here. Pure.
//!
//! Owner of the rule that a set is valid or refused as a whole, and of the form of its errors:
//! `FILE:LINE:COLUMN: KIND/NAME: FIELD: MESSAGE`.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::resource::bgp_configuration::{DEFAULT_NAME, NODE_PREFIX};
use crate::resource::community::Community;
use crate::resource::scalar::Cidr;
use crate::resource::{
    BGPConfigurationSpec, BGPFilterSpec, BGPPeerSpec, Finding, IPPoolSpec, Kind, NodeSpec, Object, Resource,
    Secret,
};
use crate::source::{Located, Position};

/// Where something stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// The file; `None` for documents that come from an API server.
    pub file: Option<Arc<str>>,
    /// Place within the file.
    pub position: Position,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.file {
            Some(file) if self.position.line > 0 => {
                write!(f, "{file}:{}:{}", self.position.line, self.position.column)
            }
            Some(file) => f.write_str(file),
            None => Ok(()),
        }
    }
}

/// One thing wrong with the documents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DocumentError {
    /// File, line and column.
    pub place: Place,
    /// `Kind/name`, as far as known.
    pub document: String,
    /// Path of the field, empty for the document itself.
    pub path: String,
    /// What is wrong.
    pub message: String,
}

impl fmt::Display for DocumentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = self.place.to_string();
        for part in [place.as_str(), &self.document, &self.path] {
            if !part.is_empty() {
                write!(f, "{part}: ")?;
            }
        }
        f.write_str(&self.message)
    }
}

impl std::error::Error for DocumentError {}

/// Everything wrong with a set of documents, at least one thing; a line each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Errors(pub Vec<DocumentError>);

impl fmt::Display for Errors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            error.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for Errors {}

/// A document, where it stands, and where each of its fields stands.
#[derive(Clone, Debug)]
pub struct Document {
    /// What it says.
    pub resource: Resource,
    /// Where it begins.
    pub place: Place,
    tree: Located,
}

impl Document {
    /// A document read from `tree`.
    pub fn new(resource: Resource, place: Place, tree: Located) -> Self {
        Document { resource, place, tree }
    }

    /// `Kind/name`.
    pub fn title(&self) -> String {
        format!("{}/{}", self.resource.kind(), self.resource.metadata().name)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.resource.metadata().name
    }

    /// An error about the field at `path` of this document.
    pub fn error(&self, path: &str, message: impl Into<String>) -> DocumentError {
        let position = self.tree.find(path);
        DocumentError {
            place: Place { file: self.place.file.clone(), position },
            document: self.title(),
            path: path.to_owned(),
            message: message.into(),
        }
    }
}

/// All documents of a fabric, valid as a whole.
#[derive(Clone, Debug, Default)]
pub struct DocumentSet {
    documents: Vec<Document>,
    by_name: BTreeMap<(Kind, String), usize>,
}

impl DocumentSet {
    /// Puts documents together. `errors` are those met while reading; all are reported together.
    pub fn new(documents: Vec<Document>, mut errors: Vec<DocumentError>) -> Result<Self, Errors> {
        let mut by_name = BTreeMap::new();
        for (index, document) in documents.iter().enumerate() {
            let found: Vec<Finding> = document.resource.validate();
            errors.extend(found.into_iter().map(|finding| document.error(&finding.path, finding.message)));
            let key = (document.resource.kind(), document.name().to_owned());
            match by_name.get(&key) {
                Some(&first) => errors.push(document.error(
                    "metadata.name",
                    format!("there is another {} at {}", document.title(), spot(&documents[first])),
                )),
                None => {
                    by_name.insert(key, index);
                }
            }
        }
        let set = DocumentSet { documents, by_name };
        set.check_pools(&mut errors);
        set.check_nodes(&mut errors);
        set.check_references(&mut errors);
        set.check_communities(&mut errors);
        if errors.is_empty() { Ok(set) } else { Err(Errors(errors)) }
    }

    /// The documents, in the order they were read.
    pub fn documents(&self) -> &[Document] {
        &self.documents
    }

    fn find(&self, kind: Kind, name: &str) -> Option<&Document> {
        self.by_name.get(&(kind, name.to_owned())).map(|index| &self.documents[*index])
    }

    /// The Node of that name.
    pub fn node(&self, name: &str) -> Option<(&Document, &Object<NodeSpec>)> {
        match self.find(Kind::Node, name) {
            Some(document @ Document { resource: Resource::Node(node), .. }) => Some((document, node)),
            _ => None,
        }
    }

    /// The BGPFilter of that name.
    pub fn filter(&self, name: &str) -> Option<&BGPFilterSpec> {
        match self.find(Kind::BGPFilter, name).map(|document| &document.resource) {
            Some(Resource::BGPFilter(filter)) => Some(&filter.spec),
            _ => None,
        }
    }

    /// The Secret of that name.
    pub fn secret(&self, name: &str) -> Option<&Secret> {
        match self.find(Kind::Secret, name).map(|document| &document.resource) {
            Some(Resource::Secret(secret)) => Some(secret),
            _ => None,
        }
    }

    /// What the BGPConfigurations say for one node: `default` with the fields of `node.NAME` over it.
    pub fn configuration(&self, node: &str) -> BGPConfigurationSpec {
        let spec =
            |name: &str| match self.find(Kind::BGPConfiguration, name).map(|document| &document.resource) {
                Some(Resource::BGPConfiguration(configuration)) => Some(&configuration.spec),
                _ => None,
            };
        let base = spec(DEFAULT_NAME).cloned().unwrap_or_default();
        match spec(&format!("{NODE_PREFIX}{node}")) {
            Some(own) => base.overridden_by(own),
            None => base,
        }
    }

    /// All Nodes, by name.
    pub fn nodes(&self) -> impl Iterator<Item = (&Document, &Object<NodeSpec>)> {
        self.of_kind(Kind::Node).filter_map(|document| match &document.resource {
            Resource::Node(node) => Some((document, node)),
            _ => None,
        })
    }

    /// All BGPPeers, by name.
    pub fn peers(&self) -> impl Iterator<Item = (&Document, &BGPPeerSpec)> {
        self.of_kind(Kind::BGPPeer).filter_map(|document| match &document.resource {
            Resource::BGPPeer(peer) => Some((document, &peer.spec)),
            _ => None,
        })
    }

    /// All IPPools, by name.
    pub fn pools(&self) -> impl Iterator<Item = (&Document, &IPPoolSpec)> {
        self.of_kind(Kind::IPPool).filter_map(|document| match &document.resource {
            Resource::IPPool(pool) => Some((document, &pool.spec)),
            _ => None,
        })
    }

    fn of_kind(&self, kind: Kind) -> impl Iterator<Item = &Document> {
        self.by_name
            .range((kind, String::new())..)
            .take_while(move |((k, _), _)| *k == kind)
            .map(|(_, index)| &self.documents[*index])
    }

    /// No two pools overlap.
    fn check_pools(&self, errors: &mut Vec<DocumentError>) {
        let cidrs = self.pools().map(|(document, pool)| (pool.cidr, document, "spec.cidr".to_owned()));
        report_overlaps(cidrs.collect(), errors);
    }

    /// Addresses, identifiers and blocks belong to one node each, and blocks lie in an enabled pool.
    fn check_nodes(&self, errors: &mut Vec<DocumentError>) {
        let mut blocks = Vec::new();
        let mut taken: BTreeMap<String, &Document> = BTreeMap::new();
        for (document, node) in self.nodes() {
            let bgp = &node.spec.bgp;
            let addresses = [
                ("spec.bgp.ipv4Address", bgp.ipv4_address.map(|address| address.0.ip().to_string())),
                ("spec.bgp.ipv6Address", bgp.ipv6_address.map(|address| address.0.ip().to_string())),
                ("spec.bgp.routerID", bgp.router_id.map(|id| format!("routerID {id}"))),
            ];
            for (path, key) in addresses.into_iter().filter_map(|(path, key)| Some((path, key?))) {
                match taken.get(&key) {
                    Some(other) if other.name() != document.name() => {
                        errors.push(
                            document
                                .error(path, format!("{key} belongs to {} ({})", other.title(), spot(other))),
                        );
                    }
                    _ => {
                        taken.insert(key, document);
                    }
                }
            }
            for (index, cidr) in node.spec.pod_cidrs.iter().enumerate() {
                let path = format!("spec.podCIDRs[{index}]");
                self.check_block(*cidr, node, document, &path, errors);
                blocks.push((*cidr, document, path));
            }
        }
        report_overlaps(blocks, errors);
    }

    fn check_block(
        &self,
        block: Cidr,
        node: &Object<NodeSpec>,
        document: &Document,
        path: &str,
        errors: &mut Vec<DocumentError>,
    ) {
        let Some((pool_document, pool)) = self.pools().find(|(_, pool)| pool.cidr.covers(block)) else {
            errors.push(document.error(path, format!("{block} lies outside every IPPool")));
            return;
        };
        let pool_name = pool_document.name();
        if pool.disabled {
            errors.push(
                document.error(
                    path,
                    format!("{block} lies outside every enabled IPPool: {pool_name} is disabled"),
                ),
            );
        } else if pool.node_selector.as_ref().is_some_and(|selector| !selector.matches(&node.metadata.labels))
        {
            errors.push(document.error(
                path,
                format!("{block} lies in IPPool {pool_name}, whose nodeSelector does not select this node"),
            ));
        } else if !pool.allowed_uses().contains(&crate::resource::ip_pool::AllowedUse::Workload) {
            errors.push(
                document
                    .error(path, format!("{block} lies in IPPool {pool_name}, which is not for workloads")),
            );
        }
    }

    /// Filters that peers name exist.
    fn check_references(&self, errors: &mut Vec<DocumentError>) {
        for (document, peer) in self.peers() {
            for (index, name) in peer.filters.iter().enumerate() {
                if self.filter(name).is_none() {
                    errors.push(
                        document.error(
                            &format!("spec.filters[{index}]"),
                            format!("there is no BGPFilter `{name}`"),
                        ),
                    );
                }
            }
        }
    }

    /// Communities that `prefixAdvertisements` name are defined, in the document itself or in `default`.
    fn check_communities(&self, errors: &mut Vec<DocumentError>) {
        for document in self.of_kind(Kind::BGPConfiguration) {
            let Resource::BGPConfiguration(configuration) = &document.resource else { continue };
            let node = document.name().strip_prefix(NODE_PREFIX).unwrap_or_default();
            let effective = self.configuration(node);
            for (i, advertisement) in configuration.spec.prefix_advertisements.iter().flatten().enumerate() {
                for (j, word) in advertisement.communities.iter().enumerate() {
                    if let Err(reason) = resolve_community(&effective, word) {
                        errors.push(
                            document
                                .error(&format!("spec.prefixAdvertisements[{i}].communities[{j}]"), reason),
                        );
                    }
                }
            }
        }
    }
}

/// The community that `word` means: a name of `communities`, or a community as it is.
pub(crate) fn resolve_community(
    configuration: &BGPConfigurationSpec,
    word: &str,
) -> Result<Community, String> {
    let named = configuration.communities.as_deref().unwrap_or_default();
    match named.iter().find(|community| community.name == word) {
        Some(community) => Ok(community.value),
        None if word.contains(':') => word.parse(),
        None => word
            .parse()
            .map_err(|_| format!("`{word}` is neither the name of one of `communities` nor a community")),
    }
}

/// Where a document begins, for use within a message.
fn spot(document: &Document) -> String {
    let place = document.place.to_string();
    if place.is_empty() { "the API server".to_owned() } else { place }
}

/// Reports every prefix that overlaps one of another document. Sorted, a prefix can only overlap the one before it
/// that reaches furthest, which is the last one that was not itself covered.
fn report_overlaps(mut cidrs: Vec<(Cidr, &Document, String)>, errors: &mut Vec<DocumentError>) {
    cidrs.sort_by_key(|(cidr, _, _)| (cidr.is_ipv4(), cidr.0.network(), cidr.length()));
    let mut widest: Option<(Cidr, &Document)> = None;
    for (cidr, document, path) in cidrs {
        match widest {
            Some((wide, owner)) if wide.overlaps(cidr) => {
                if owner.name() != document.name() {
                    errors.push(document.error(
                        &path,
                        format!("{cidr} overlaps {wide} of {} ({})", owner.title(), spot(owner)),
                    ));
                }
            }
            _ => widest = Some((cidr, document)),
        }
    }
}
