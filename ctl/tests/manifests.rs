//! The manifests are well-formed Kubernetes objects that fit together, and their documents are good.
//!
//! The schema check is the strict types below: every field the manifests use, named and shaped as Kubernetes has it;
//! a field that is not here is an error, so a slip of the pen cannot pass as an unknown field that is ignored.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use causeway_api::effective::{self, Role};
use causeway_api::source;
use serde::Deserialize;
use serde_yaml::Value;

#[path = "manifests/kubernetes.rs"]
mod kubernetes;
use kubernetes::{Container, Object, PodSpec, Volume};

fn manifests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests")
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[allow(dead_code, reason = "the fields are there to be checked by deserializing")]
struct Kustomization {
    api_version: String,
    kind: String,
    namespace: String,
    resources: Vec<String>,
    #[serde(default)]
    config_map_generator: Vec<Generator>,
    generator_options: BTreeMap<String, bool>,
    #[serde(default)]
    patches: Vec<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Generator {
    name: String,
    behavior: Option<String>,
    files: Vec<String>,
}

/// A folder with a kustomization: its objects, its ConfigMaps with their keys, its patches. Bases are taken in.
#[derive(Default)]
struct Built {
    objects: Vec<Object>,
    config_maps: BTreeMap<String, BTreeSet<String>>,
    documents: Vec<PathBuf>,
}

fn build(folder: &Path, built: &mut Built) {
    let read =
        |path: &Path| fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let text = read(&folder.join("kustomization.yaml"));
    let kustomization: Kustomization = serde_yaml::from_str(&text).unwrap_or_else(|error| panic!("{error}"));
    for resource in &kustomization.resources {
        let path = folder.join(resource);
        if path.is_dir() {
            build(&path, built);
        } else {
            built.objects.extend(objects(&path));
        }
    }
    for generator in kustomization.config_map_generator {
        let merges = generator.behavior.as_deref() == Some("merge");
        assert_eq!(merges, built.config_maps.contains_key(&generator.name), "{}", folder.display());
        let keys = built.config_maps.entry(generator.name.clone()).or_default();
        for file in &generator.files {
            let path = folder.join(file);
            read(&path);
            keys.insert(path.file_name().unwrap().to_string_lossy().into_owned());
            if generator.name == "causeway-documents" {
                built.documents.push(path);
            }
        }
    }
    for patch in kustomization.patches.iter().flat_map(BTreeMap::values) {
        // A patch is a part of an object, so only what it names can be checked: that the object is there.
        let patch: Value = serde_yaml::from_str(&read(&folder.join(patch))).unwrap();
        let found = built.objects.iter().any(|object| {
            object.kind() == patch["kind"].as_str().unwrap()
                && object.name() == patch["metadata"]["name"].as_str().unwrap()
        });
        assert!(found, "{patch:?} patches nothing");
    }
}

fn objects(path: &Path) -> Vec<Object> {
    let text = fs::read_to_string(path).unwrap();
    let parse = |document| {
        let mut value = Value::deserialize(document).unwrap();
        value.apply_merge().unwrap();
        serde_yaml::from_value(value).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    };
    serde_yaml::Deserializer::from_str(&text).map(parse).collect()
}

fn built(folder: &str) -> Built {
    let mut built = Built::default();
    build(&manifests().join(folder), &mut built);
    built
}

const FOLDERS: [&str; 2] = ["base", "overlays/reflector"];

fn pods(built: &Built) -> impl Iterator<Item = &PodSpec> {
    built.objects.iter().filter_map(Object::pod)
}

#[test]
fn every_object_is_well_formed_and_its_references_are_there() {
    for folder in FOLDERS {
        let built = built(folder);
        assert!(pods(&built).count() >= 1, "{folder}");
        let accounts: Vec<&str> = built
            .objects
            .iter()
            .filter(|object| object.kind() == "ServiceAccount")
            .map(Object::name)
            .collect();
        for object in &built.objects {
            object.check();
        }
        for pod in pods(&built) {
            assert!(accounts.contains(&pod.service_account_name.as_str()), "{folder}");
            let volumes: BTreeSet<&str> = pod.volumes.iter().map(Volume::name).collect();
            let mut used = BTreeSet::new();
            for container in pod.init_containers.iter().chain(&pod.containers) {
                for mount in &container.volume_mounts {
                    assert!(volumes.contains(mount.name.as_str()), "{}: {}", container.name, mount.name);
                    used.insert(mount.name.as_str());
                }
            }
            assert_eq!(used, volumes, "volumes nobody mounts");
            for name in pod.volumes.iter().flat_map(Volume::config_maps) {
                assert!(built.config_maps.contains_key(name), "{folder}: no ConfigMap {name}");
            }
        }
    }
}

#[test]
fn daemons_have_their_own_capability_and_no_other() {
    let mut found = BTreeMap::new();
    for folder in FOLDERS {
        let built = built(folder);
        for container in pods(&built).flat_map(|pod| &pod.containers) {
            let security = &container.security_context;
            assert!(!security.privileged, "{}", container.name);
            assert!(security.read_only_root_filesystem, "{}", container.name);
            assert_eq!(security.allow_privilege_escalation, Some(false), "{}", container.name);
            let capabilities = security.capabilities.as_ref().unwrap();
            assert_eq!(capabilities.drop, ["ALL"], "{}", container.name);
            found.insert(container.name.clone(), capabilities.add.clone());
        }
        for container in pods(&built).flat_map(|pod| &pod.init_containers) {
            assert!(container.security_context.privileged, "{} sets sysctls", container.name);
        }
    }
    let found: Vec<(&str, Vec<&str>)> = found
        .iter()
        .map(|(name, added)| (name.as_str(), added.iter().map(String::as_str).collect()))
        .collect();
    assert_eq!(
        found,
        [
            ("bgpd", vec!["NET_BIND_SERVICE"]),
            ("fib-sync", vec!["NET_ADMIN"]),
            ("ipam", vec![]),
            ("route-reflector", vec![])
        ]
    );
}

/// The addresses of `--http` and of the probes are the same, each container of a pod has its own, and none is reached
/// from outside the node.
#[test]
fn probes_ask_where_the_daemon_listens() {
    for folder in FOLDERS {
        let built = built(folder);
        for pod in pods(&built) {
            let mut ports = BTreeSet::new();
            for container in &pod.containers {
                let http = container.args.iter().find_map(|arg| arg.strip_prefix("--http=127.0.0.1:"));
                let port: u16 =
                    http.unwrap_or_else(|| panic!("{} has no --http", container.name)).parse().unwrap();
                assert!(ports.insert(port), "{port} twice");
                for (probe, path) in container.probes() {
                    assert_eq!((probe.host(), probe.port(), probe.path()), ("127.0.0.1", port, path));
                }
            }
        }
    }
}

#[test]
fn the_sample_documents_are_good() {
    for (folder, role, node) in
        [("base", Role::Node, "node-a1"), ("overlays/reflector", Role::Reflector, "reflector-1")]
    {
        let built = built(folder);
        let together = tempfile::tempdir().unwrap();
        for file in &built.documents {
            fs::copy(file, together.path().join(file.file_name().unwrap())).unwrap();
        }
        let documents = source::read(together.path()).unwrap_or_else(|errors| panic!("{folder}:\n{errors}"));
        for (document, _) in documents.nodes() {
            effective::resolve(&documents, document.name(), Role::Node)
                .unwrap_or_else(|errors| panic!("{errors}"));
        }
        let resolved = effective::resolve(&documents, node, role).unwrap_or_else(|errors| panic!("{errors}"));
        assert!(!resolved.peers.is_empty(), "{folder}");
        assert_eq!(resolved.notes, [""; 0], "{folder}");
    }
}

#[test]
fn the_network_configuration_chains_what_it_should() {
    let text = fs::read_to_string(manifests().join("base/10-causeway.conflist")).unwrap();
    let list: serde_json::Value = serde_json::from_str(&text).unwrap();
    let types: Vec<&str> =
        list["plugins"].as_array().unwrap().iter().map(|plugin| plugin["type"].as_str().unwrap()).collect();
    assert_eq!(types, ["causeway-cni", "portmap", "bandwidth"]);
    let run = list["plugins"][0]["runDir"].as_str().unwrap();
    let built = built("base");
    let mounts = |container: &Container| container.volume_mounts.iter().any(|mount| mount.mount_path == run);
    assert!(pods(&built).flat_map(|pod| &pod.containers).all(mounts), "{run} is not mounted");
}
