//! Containerlab topology files (`*.clab.yml`), read as containerlab reads them.
//!
//! Pure but for reading the one file. What this runner cannot honour is refused with file, line, column and field, never passed
//! over: a topology that comes up here comes up in containerlab too. Source: <https://containerlab.dev/manual/topo-def-file/>.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

/// The MTU containerlab gives to a veth link that names none.
pub const DEFAULT_LINK_MTU: u32 = 9500;

/// Why a topology file was refused.
#[derive(Debug, thiserror::Error)]
pub enum TopologyError {
    /// The file could not be read.
    #[error("{file}: {source}")]
    Read {
        /// The file asked for.
        file: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is not a topology this runner understands.
    #[error("{file}:{line}:{column}: {message}")]
    Parse {
        /// The file asked for.
        file: PathBuf,
        /// Line, from 1.
        line: u64,
        /// Column, from 1.
        column: u64,
        /// What is wrong there.
        message: String,
    },
    /// The file parses, but one of its fields makes no sense or cannot be honoured.
    #[error("{file}:{line}: {field}: {message}")]
    Field {
        /// The file asked for.
        file: PathBuf,
        /// Line, from 1, of the field's last word as it first stands in the file.
        line: u64,
        /// The field, as a path.
        field: String,
        /// What is wrong with it.
        message: String,
    },
}

/// A topology, its defaults resolved into every node.
#[derive(Debug, Clone)]
pub struct Topology {
    /// Name of the lab.
    pub name: String,
    /// What stands before the lab's name in a node's long name; containerlab's default is `clab`.
    pub prefix: String,
    /// Folder of the file; relative sources of binds start here.
    pub dir: PathBuf,
    /// The nodes, by short name.
    pub nodes: BTreeMap<String, NodeSpec>,
    /// The links.
    pub links: Vec<Link>,
}

/// One node, defaults applied.
#[derive(Debug, Clone, Default)]
pub struct NodeSpec {
    /// Short name, which is its host name as well.
    pub name: String,
    /// Container image; its name decides which daemons run.
    pub image: String,
    /// Files and folders seen inside.
    pub binds: Vec<Bind>,
    /// Commands run once inside when the node is wired.
    pub exec: Vec<String>,
    /// Environment of every process inside.
    pub env: BTreeMap<String, String>,
    /// Sysctls, dotted name to value.
    pub sysctls: BTreeMap<String, String>,
    /// The command that replaces the image's own.
    pub cmd: Option<String>,
}

/// A bind mount `source:target[:ro]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bind {
    /// Path on this machine, absolute.
    pub source: PathBuf,
    /// Path inside the node, absolute.
    pub target: PathBuf,
    /// Mounted read-only.
    pub read_only: bool,
}

/// A veth pair between two nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// The two ends.
    pub ends: [LinkEnd; 2],
    /// MTU of both ends, bytes.
    pub mtu: u32,
}

/// One end of a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkEnd {
    /// Short name of the node.
    pub node: String,
    /// Interface name inside it.
    pub interface: String,
    /// MAC address, where the file gives one.
    pub mac: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFile {
    name: String,
    prefix: Option<String>,
    topology: RawTopology,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawTopology {
    #[serde(default)]
    defaults: RawNode,
    #[serde(default)]
    kinds: BTreeMap<String, RawNode>,
    #[serde(default)]
    groups: BTreeMap<String, RawNode>,
    nodes: BTreeMap<String, Option<RawNode>>,
    #[serde(default)]
    links: Vec<RawLink>,
}

#[derive(Debug, Default, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RawNode {
    kind: Option<String>,
    group: Option<String>,
    image: Option<String>,
    #[serde(default)]
    binds: Vec<String>,
    #[serde(default)]
    exec: Vec<String>,
    #[serde(default)]
    env: BTreeMap<String, Scalar>,
    #[serde(default)]
    sysctls: BTreeMap<String, Scalar>,
    #[serde(default)]
    labels: BTreeMap<String, Scalar>,
    cmd: Option<String>,
    network_mode: Option<String>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
enum Scalar {
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
}

impl std::fmt::Display for Scalar {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Bool(value) => write!(f, "{value}"),
            Self::Int(value) => write!(f, "{value}"),
            Self::Float(value) => write!(f, "{value}"),
            Self::Text(value) => f.write_str(value),
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawLink {
    #[serde(rename = "type")]
    kind: Option<String>,
    endpoints: Vec<RawEndpoint>,
    mtu: Option<u32>,
    #[serde(default)]
    labels: BTreeMap<String, Scalar>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum RawEndpoint {
    Short(String),
    Long(RawLongEndpoint),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawLongEndpoint {
    node: String,
    interface: String,
    mac: Option<String>,
}

/// Reads and checks a topology file.
///
/// # Errors
/// [`TopologyError`], with the place in the file.
pub fn load(path: &Path) -> Result<Topology, TopologyError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| TopologyError::Read { file: path.to_owned(), source })?;
    let full =
        std::path::absolute(path).map_err(|source| TopologyError::Read { file: path.to_owned(), source })?;
    let dir = full.parent().map_or_else(|| PathBuf::from("/"), Path::to_owned);
    parse(path, &text, &dir)
}

/// Parses the text of a topology file; `dir` is where relative binds start.
///
/// # Errors
/// [`TopologyError::Parse`] and [`TopologyError::Field`].
pub fn parse(file: &Path, text: &str, dir: &Path) -> Result<Topology, TopologyError> {
    let raw: RawFile = serde_saphyr::from_str(text).map_err(|error| {
        let (line, column) = error.location().map_or((1, 1), |at| (at.line(), at.column()));
        TopologyError::Parse {
            file: file.to_owned(),
            line,
            column,
            message: explain(&error.without_snippet().to_string()),
        }
    })?;
    let checker = Checker { file, text };
    checker.name("name", &raw.name)?;

    let mut nodes = BTreeMap::new();
    for (name, node) in &raw.topology.nodes {
        checker.name(&format!("topology.nodes.{name}"), name)?;
        let node = node.clone().unwrap_or_default();
        nodes.insert(name.clone(), checker.node(name, &node, &raw.topology, dir)?);
    }
    let mut links = Vec::new();
    for (index, link) in raw.topology.links.iter().enumerate() {
        links.push(checker.link(index, link, &nodes, &links)?);
    }
    let prefix = raw.prefix.unwrap_or_else(|| "clab".to_owned());
    Ok(Topology { name: raw.name, prefix, dir: dir.to_owned(), nodes, links })
}

/// Says of a refused field that containerlab knows whether it is one, so that nobody looks for a spelling mistake.
fn explain(message: &str) -> String {
    const KNOWN: [&str; 31] = [
        "mgmt",
        "settings",
        "debug",
        "ports",
        "startup-config",
        "startup-delay",
        "mgmt-ipv4",
        "mgmt-ipv6",
        "entrypoint",
        "user",
        "license",
        "type",
        "publish",
        "extras",
        "config",
        "cpu",
        "cpu-set",
        "memory",
        "dns",
        "certificate",
        "healthcheck",
        "stages",
        "aliases",
        "runtime",
        "env-files",
        "devices",
        "cap-add",
        "restart-policy",
        "shm-size",
        "vars",
        "auto-remove",
    ];
    let known = KNOWN.iter().find(|field| message.contains(&format!("unknown field `{field}`")));
    match known {
        Some(field) => {
            format!("`{field}`: containerlab has this field, this runner cannot honour it ({message})")
        }
        None => message.to_owned(),
    }
}

struct Checker<'a> {
    file: &'a Path,
    text: &'a str,
}

impl Checker<'_> {
    /// An error at the first line that holds `needle`.
    fn error(&self, field: &str, needle: &str, message: impl Into<String>) -> TopologyError {
        let line = self.text.lines().position(|line| line.contains(needle)).map_or(1, |at| at as u64 + 1);
        TopologyError::Field {
            file: self.file.to_owned(),
            line,
            field: field.to_owned(),
            message: message.into(),
        }
    }

    fn name(&self, field: &str, name: &str) -> Result<(), TopologyError> {
        let fits = !name.is_empty()
            && name.len() <= 40
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_' || c == '.')
            && name.starts_with(|c: char| c.is_ascii_alphanumeric());
        if fits {
            return Ok(());
        }
        Err(self.error(
            field,
            name,
            format!("`{name}` is no name: letters, digits, '-', '_' and '.', at most 40"),
        ))
    }

    fn node(
        &self,
        name: &str,
        own: &RawNode,
        all: &RawTopology,
        dir: &Path,
    ) -> Result<NodeSpec, TopologyError> {
        let field = |what: &str| format!("topology.nodes.{name}.{what}");
        let group_name = own.group.clone().or_else(|| all.defaults.group.clone());
        let group = match &group_name {
            Some(wanted) => Some(all.groups.get(wanted).ok_or_else(|| {
                self.error(
                    &field("group"),
                    wanted,
                    format!("there is no group `{wanted}` in topology.groups"),
                )
            })?),
            None => None,
        };
        let kind = own
            .kind
            .clone()
            .or_else(|| group.and_then(|group| group.kind.clone()))
            .or_else(|| all.defaults.kind.clone())
            .ok_or_else(|| self.error(&field("kind"), name, "missing, and topology.defaults names none"))?;
        if kind != "linux" {
            return Err(self.error(
                &field("kind"),
                &kind,
                format!("`{kind}` cannot be built here: only `linux` can"),
            ));
        }

        // Containerlab's order, weakest first: defaults, kind, group, node. Lists add up, maps and scalars are overridden.
        let layers = [Some(&all.defaults), all.kinds.get(&kind), group, Some(own)];
        let mut spec = NodeSpec { name: name.to_owned(), ..NodeSpec::default() };
        let mut binds: Vec<&str> = Vec::new();
        let mut network_mode = None;
        for layer in layers.into_iter().flatten() {
            if let Some(image) = &layer.image {
                spec.image.clone_from(image);
            }
            if let Some(cmd) = &layer.cmd {
                spec.cmd = Some(cmd.replace("__clabNodeName__", name));
            }
            network_mode = layer.network_mode.as_deref().or(network_mode);
            binds.extend(layer.binds.iter().map(String::as_str));
            spec.exec.extend(layer.exec.iter().map(|line| line.replace("__clabNodeName__", name)));
            for (key, value) in &layer.env {
                spec.env.insert(key.clone(), value.to_string().replace("__clabNodeName__", name));
            }
            for (key, value) in &layer.sysctls {
                spec.sysctls.insert(key.clone(), value.to_string());
            }
            // Labels are for the reader of `docker ps`; there is nothing here to stick them on.
            let _ = &layer.labels;
        }
        if spec.image.is_empty() {
            return Err(self.error(&field("image"), name, "missing, and neither kind nor defaults name one"));
        }
        if let Some(mode) = network_mode.filter(|mode| *mode != "none") {
            let message = format!("`{mode}` cannot be honoured: nodes have their links only, as with `none`");
            return Err(self.error(&field("network-mode"), "network-mode", message));
        }
        for key in spec.sysctls.keys() {
            if !key.starts_with("net.") || key.contains("..") || key.contains('/') {
                return Err(self.error(
                    &field("sysctls"),
                    key,
                    format!("`{key}` is no sysctl of a network namespace"),
                ));
            }
        }
        for text in binds {
            spec.binds.push(self.bind(name, text, dir)?);
        }
        Ok(spec)
    }

    fn bind(&self, node: &str, text: &str, dir: &Path) -> Result<Bind, TopologyError> {
        let field = format!("topology.nodes.{node}.binds");
        let resolved = text.replace("__clabNodeName__", node);
        if resolved.contains("${") || resolved.contains("__clab") {
            return Err(self.error(
                &field,
                text,
                format!("`{text}`: only __clabNodeName__ is replaced here"),
            ));
        }
        let parts: Vec<&str> = resolved.split(':').collect();
        let (source, target, mode) = match parts.as_slice() {
            [source, target] => (*source, *target, "rw"),
            [source, target, mode] => (*source, *target, *mode),
            _ => return Err(self.error(&field, text, format!("`{text}` is not SOURCE:TARGET[:ro]"))),
        };
        if !target.starts_with('/') || target.split('/').any(|part| part == "..") {
            return Err(self.error(&field, text, format!("`{target}` is no absolute path")));
        }
        if mode != "ro" && mode != "rw" {
            return Err(self.error(&field, text, format!("mode `{mode}` is neither ro nor rw")));
        }
        let source = dir.join(source);
        if !source.exists() {
            return Err(self.error(&field, text, format!("{} does not exist", source.display())));
        }
        Ok(Bind { source, target: PathBuf::from(target), read_only: mode == "ro" })
    }

    fn link(
        &self,
        index: usize,
        raw: &RawLink,
        nodes: &BTreeMap<String, NodeSpec>,
        before: &[Link],
    ) -> Result<Link, TopologyError> {
        let field = format!("topology.links[{index}]");
        if let Some(kind) = raw.kind.as_deref().filter(|kind| *kind != "veth") {
            return Err(self.error(
                &field,
                kind,
                format!("type `{kind}` cannot be built here: only veth can"),
            ));
        }
        let _ = &raw.labels;
        let mut ends = Vec::new();
        for endpoint in &raw.endpoints {
            ends.push(match endpoint {
                RawEndpoint::Short(text) => {
                    let (node, interface) = text
                        .split_once(':')
                        .ok_or_else(|| self.error(&field, text, format!("`{text}` is not NODE:INTERFACE")))?;
                    LinkEnd { node: node.to_owned(), interface: interface.to_owned(), mac: None }
                }
                RawEndpoint::Long(long) => LinkEnd {
                    node: long.node.clone(),
                    interface: long.interface.clone(),
                    mac: long.mac.clone(),
                },
            });
        }
        let ends: [LinkEnd; 2] =
            ends.try_into().map_err(|_| self.error(&field, "endpoints", "a link has two endpoints"))?;
        for end in &ends {
            let place = format!("{}:{}", end.node, end.interface);
            if !nodes.contains_key(&end.node) {
                let message =
                    format!("`{place}` names no node of this topology (host and bridge links are not built)");
                return Err(self.error(&field, &end.node, message));
            }
            if end.interface.is_empty() || end.interface.len() > 15 || end.interface.contains(['/', ' ']) {
                return Err(self.error(&field, &place, format!("`{}` is no interface name", end.interface)));
            }
            let mut others = before.iter().flat_map(|link| &link.ends);
            if others.any(|other| other.node == end.node && other.interface == end.interface) {
                return Err(self.error(&field, &place, format!("{place} has a link already")));
            }
        }
        Ok(Link { ends, mtu: raw.mtu.unwrap_or(DEFAULT_LINK_MTU) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_text(text: &str) -> Result<Topology, TopologyError> {
        parse(Path::new("t.clab.yml"), text, Path::new("/"))
    }

    const SMALL: &str = r#"
name: small
topology:
  defaults: {kind: linux, network-mode: none, sysctls: {net.ipv4.ip_forward: 1}}
  kinds:
    linux: {image: alpine:3}
  nodes:
    a: {exec: ["ip addr add 192.0.2.1/24 dev eth1"], env: {NAME: __clabNodeName__}}
    b:
  links:
    - endpoints: ["a:eth1", "b:eth1"]
      mtu: 1500
    - type: veth
      endpoints:
        - {node: a, interface: eth2, mac: "02:00:00:00:00:01"}
        - {node: b, interface: eth2}
"#;

    #[test]
    fn defaults_kinds_and_nodes_are_merged_and_both_link_forms_are_read() {
        let topology = parse_text(SMALL).unwrap();
        let a = &topology.nodes["a"];
        assert_eq!(a.image, "alpine:3");
        assert_eq!(a.env["NAME"], "a");
        assert_eq!(a.sysctls["net.ipv4.ip_forward"], "1");
        assert_eq!(topology.nodes["b"].image, "alpine:3");
        assert_eq!(topology.links[0].mtu, 1500);
        assert_eq!(topology.links[1].mtu, DEFAULT_LINK_MTU);
        assert_eq!(topology.links[1].ends[0].mac.as_deref(), Some("02:00:00:00:00:01"));
        assert_eq!(topology.prefix, "clab");
    }

    #[test]
    fn a_field_that_cannot_be_honoured_is_refused_with_its_place() {
        let text = SMALL.replace("    b:\n", "    b: {ports: [\"80:80\"]}\n");
        let error = parse_text(&text).unwrap_err().to_string();
        assert!(error.starts_with("t.clab.yml:9:"), "{error}");
        assert!(error.contains("`ports`: containerlab has this field"), "{error}");
    }

    #[test]
    fn what_makes_no_sense_names_its_field_and_line() {
        let cases = [
            ("kind: linux", "kind: nokia_srlinux", "topology.nodes.a.kind"),
            ("image: alpine:3", "binds: []", "topology.nodes.a.image"),
            ("b:eth1", "c:eth1", "topology.links[0]"),
            ("\"b:eth1\"", "\"b:eth1\", \"a:eth3\"", "topology.links[0]"),
            ("interface: eth2}", "interface: eth1}", "topology.links[1]"),
            ("type: veth", "type: vxlan", "topology.links[1]"),
            ("net.ipv4", "kernel", "topology.nodes.a.sysctls"),
            ("network-mode: none", "network-mode: host", "topology.nodes.a.network-mode"),
            ("a: {", "a: {binds: [\"x/y:/z\"], ", "topology.nodes.a.binds"),
            ("a: {", "a: {binds: [\"etc:etc\"], ", "topology.nodes.a.binds"),
            ("a: {", "a: {group: leaf, ", "topology.nodes.a.group"),
        ];
        for (from, to, field) in cases {
            let error = parse_text(&SMALL.replace(from, to)).unwrap_err();
            let text = error.to_string();
            assert!(text.contains(field), "{from} -> {to}: {text}");
            assert!(matches!(error, TopologyError::Field { line, .. } if line > 1), "{text}");
        }
    }

    #[test]
    fn binds_start_at_the_file() {
        let text = SMALL.replace("a: {", "a: {binds: [\"etc:/data:ro\"], ");
        let topology = parse_text(&text).unwrap();
        let bind = &topology.nodes["a"].binds[0];
        assert_eq!(bind.source, PathBuf::from("/etc"));
        assert!(bind.read_only);
    }
}
