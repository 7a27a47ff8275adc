//! Of Kubernetes' objects the fields our manifests use, strictly: names and shapes as in its API reference.

#![allow(dead_code, reason = "the fields are there to be checked by deserializing")]

use std::collections::BTreeMap;

use serde::Deserialize;

/// An object of one of the kinds we use.
#[derive(Deserialize)]
#[serde(tag = "kind")]
pub enum Object {
    Namespace(Plain),
    ServiceAccount(ServiceAccount),
    DaemonSet(Workload<DaemonSetStrategy>),
    Deployment(Workload<DeploymentStrategy>),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Plain {
    api_version: String,
    metadata: Metadata,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ServiceAccount {
    api_version: String,
    metadata: Metadata,
    automount_service_account_token: bool,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Metadata {
    #[serde(default)]
    name: String,
    #[serde(default)]
    labels: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Workload<S> {
    api_version: String,
    metadata: Metadata,
    spec: WorkloadSpec<S>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WorkloadSpec<S> {
    replicas: Option<u32>,
    selector: Selector,
    #[serde(alias = "updateStrategy")]
    strategy: Strategy<S>,
    template: Template,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Selector {
    match_labels: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Strategy<S> {
    #[serde(rename = "type")]
    kind: StrategyKind,
    rolling_update: S,
}

#[derive(Deserialize)]
pub enum StrategyKind {
    RollingUpdate,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DaemonSetStrategy {
    max_unavailable: u32,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DeploymentStrategy {
    max_unavailable: u32,
    max_surge: u32,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Template {
    metadata: Metadata,
    spec: PodSpec,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PodSpec {
    pub service_account_name: String,
    automount_service_account_token: bool,
    host_network: bool,
    dns_policy: DnsPolicy,
    priority_class_name: String,
    termination_grace_period_seconds: u32,
    node_selector: BTreeMap<String, String>,
    affinity: Option<Affinity>,
    tolerations: Vec<Toleration>,
    security_context: PodSecurity,
    #[serde(default)]
    pub init_containers: Vec<Container>,
    pub containers: Vec<Container>,
    pub volumes: Vec<Volume>,
}

#[derive(Deserialize)]
pub enum DnsPolicy {
    Default,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Affinity {
    pod_anti_affinity: PodAntiAffinity,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PodAntiAffinity {
    required_during_scheduling_ignored_during_execution: Vec<PodAffinityTerm>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PodAffinityTerm {
    topology_key: String,
    label_selector: Selector,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Toleration {
    operator: TolerationOperator,
}

#[derive(Deserialize)]
pub enum TolerationOperator {
    Exists,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PodSecurity {
    run_as_non_root: Option<bool>,
    run_as_user: Option<u32>,
    run_as_group: Option<u32>,
    seccomp_profile: SeccompProfile,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SeccompProfile {
    #[serde(rename = "type")]
    kind: SeccompKind,
}

#[derive(Deserialize)]
pub enum SeccompKind {
    RuntimeDefault,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Container {
    pub name: String,
    image: String,
    command: Vec<String>,
    #[serde(default)]
    pub args: Vec<String>,
    #[serde(default)]
    env: Vec<EnvVar>,
    #[serde(default)]
    ports: Vec<ContainerPort>,
    pub security_context: Security,
    startup_probe: Option<Probe>,
    liveness_probe: Option<Probe>,
    readiness_probe: Option<Probe>,
    resources: BTreeMap<String, BTreeMap<String, String>>,
    pub volume_mounts: Vec<VolumeMount>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EnvVar {
    name: String,
    value_from: ValueFrom,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ValueFrom {
    field_ref: FieldRef,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FieldRef {
    field_path: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ContainerPort {
    name: String,
    container_port: u16,
    host_port: u16,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Security {
    run_as_user: Option<u32>,
    #[serde(default)]
    pub privileged: bool,
    pub allow_privilege_escalation: Option<bool>,
    #[serde(default)]
    pub read_only_root_filesystem: bool,
    pub capabilities: Option<Capabilities>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Capabilities {
    #[serde(default)]
    pub add: Vec<String>,
    pub drop: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Probe {
    http_get: HttpGet,
    period_seconds: u32,
    failure_threshold: Option<u32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpGet {
    host: String,
    port: u16,
    path: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct VolumeMount {
    pub name: String,
    pub mount_path: String,
    #[serde(default)]
    read_only: bool,
    mount_propagation: Option<Propagation>,
}

#[derive(Deserialize)]
pub enum Propagation {
    HostToContainer,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Volume {
    name: String,
    config_map: Option<Reference>,
    projected: Option<Projected>,
    host_path: Option<HostPath>,
    empty_dir: Option<EmptyDir>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Projected {
    sources: Vec<Source>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Source {
    config_map: Option<Reference>,
    secret: Option<Reference>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reference {
    name: String,
    #[serde(default)]
    optional: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostPath {
    path: String,
    #[serde(rename = "type")]
    kind: HostPathKind,
}

#[derive(Deserialize)]
pub enum HostPathKind {
    DirectoryOrCreate,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EmptyDir {
    medium: String,
    size_limit: String,
}

impl Object {
    pub fn kind(&self) -> &'static str {
        match self {
            Object::Namespace(_) => "Namespace",
            Object::ServiceAccount(_) => "ServiceAccount",
            Object::DaemonSet(_) => "DaemonSet",
            Object::Deployment(_) => "Deployment",
        }
    }

    fn parts(&self) -> (&'static str, &str, &Metadata) {
        match self {
            Object::Namespace(object) => ("v1", &object.api_version, &object.metadata),
            Object::ServiceAccount(object) => ("v1", &object.api_version, &object.metadata),
            Object::DaemonSet(object) => ("apps/v1", &object.api_version, &object.metadata),
            Object::Deployment(object) => ("apps/v1", &object.api_version, &object.metadata),
        }
    }

    pub fn name(&self) -> &str {
        &self.parts().2.name
    }

    pub fn pod(&self) -> Option<&PodSpec> {
        self.template().map(|(_, template)| &template.spec)
    }

    fn template(&self) -> Option<(&Selector, &Template)> {
        match self {
            Object::DaemonSet(object) => Some((&object.spec.selector, &object.spec.template)),
            Object::Deployment(object) => Some((&object.spec.selector, &object.spec.template)),
            Object::Namespace(_) | Object::ServiceAccount(_) => None,
        }
    }

    /// Checks what the shape alone does not show.
    pub fn check(&self) {
        let (expected, api_version, _) = self.parts();
        assert_eq!(api_version, expected, "{}", self.name());
        assert!(!self.name().is_empty());
        let Some((selector, template)) = self.template() else { return };
        for (key, value) in &selector.match_labels {
            assert_eq!(template.metadata.labels.get(key), Some(value), "{}: {key}", self.name());
        }
        for volume in &template.spec.volumes {
            let kinds = [
                volume.config_map.is_some(),
                volume.projected.is_some(),
                volume.host_path.is_some(),
                volume.empty_dir.is_some(),
            ];
            assert_eq!(kinds.iter().filter(|given| **given).count(), 1, "volume {}", volume.name);
        }
    }
}

impl Volume {
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The ConfigMaps it is made of.
    pub fn config_maps(&self) -> impl Iterator<Item = &str> {
        let projected = self.projected.iter().flat_map(|projected| &projected.sources);
        let projected = projected.filter_map(|source| source.config_map.as_ref());
        self.config_map.iter().chain(projected).map(|reference| reference.name.as_str())
    }
}

impl Container {
    /// The probes, with the path each should ask.
    pub fn probes(&self) -> [(&Probe, &'static str); 3] {
        let probes = [
            (&self.startup_probe, "/healthz"),
            (&self.liveness_probe, "/healthz"),
            (&self.readiness_probe, "/readyz"),
        ];
        probes.map(|(probe, path)| match probe {
            Some(probe) => (probe, path),
            None => panic!("{} lacks a probe of {path}", self.name),
        })
    }
}

impl Probe {
    pub fn host(&self) -> &str {
        &self.http_get.host
    }

    pub fn port(&self) -> u16 {
        self.http_get.port
    }

    pub fn path(&self) -> &str {
        &self.http_get.path
    }
}
