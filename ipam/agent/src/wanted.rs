//! What the documents want of this daemon: the node's blocks. Reads files, decides nothing.

use std::path::Path;

use causeway_api::resource::bgp_configuration::LogSeverity;
use causeway_api::source;
use ipnetwork::IpNetwork;

/// The part of the documents that concerns pod addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The node's blocks, in the order of its document.
    pub blocks: Vec<IpNetwork>,
    /// How much is logged.
    pub log_severity: LogSeverity,
}

/// Reads and checks all documents and picks this node's blocks.
///
/// # Errors
/// A line for each thing that is wrong, with file, line, column, document and field.
pub fn read(path: &Path, node: &str) -> Result<Wanted, Vec<String>> {
    let documents =
        source::read(path).map_err(|errors| errors.0.iter().map(ToString::to_string).collect::<Vec<_>>())?;
    let Some((_, document)) = documents.node(node) else {
        return Err(vec![format!("{}: no Node document is named {node}", path.display())]);
    };
    Ok(Wanted {
        blocks: document.spec.pod_cidrs.iter().map(|cidr| cidr.0).collect(),
        log_severity: documents.configuration(node).log_severity.unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCUMENTS: &str = r#"
apiVersion: causeway.dev/v1alpha1
kind: Node
metadata: {name: node-a1}
spec:
  bgp: {ipv4Address: 192.0.2.11/24}
  podCIDRs: [10.244.1.0/24, "fd00:10:244:1::/64"]
---
apiVersion: causeway.dev/v1alpha1
kind: IPPool
metadata: {name: v4}
spec: {cidr: 10.244.0.0/16}
---
apiVersion: causeway.dev/v1alpha1
kind: IPPool
metadata: {name: v6}
spec: {cidr: "fd00:10:244::/48"}
---
apiVersion: causeway.dev/v1alpha1
kind: BGPConfiguration
metadata: {name: default}
spec: {logSeverity: debug}
"#;

    #[test]
    fn the_nodes_blocks_are_picked() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("fabric.yaml"), DOCUMENTS).unwrap();
        let wanted = read(folder.path(), "node-a1").unwrap();
        let blocks: Vec<String> = wanted.blocks.iter().map(ToString::to_string).collect();
        assert_eq!(blocks, ["10.244.1.0/24", "fd00:10:244:1::/64"]);
        assert_eq!(wanted.log_severity, LogSeverity::Debug);
        let errors = read(folder.path(), "node-z9").unwrap_err();
        assert!(errors[0].contains("node-z9"), "{errors:?}");
    }

    #[test]
    fn a_bad_document_is_an_error_that_says_where() {
        let folder = tempfile::tempdir().unwrap();
        let bad = DOCUMENTS.replace("10.244.1.0/24", "10.99.1.0/24");
        std::fs::write(folder.path().join("fabric.yaml"), bad).unwrap();
        let errors = read(folder.path(), "node-a1").unwrap_err();
        assert!(errors[0].contains("fabric.yaml:7") && errors[0].contains("podCIDRs"), "{errors:?}");
    }
}
