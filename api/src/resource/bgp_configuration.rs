//! Kind `BGPConfiguration`: what holds for the whole fabric (`default`), and single fields of it for one node
//! (`node.NAME`).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::community::Community;
use super::findings::Findings;
use super::meta::{PasswordSource, is_label_key, is_name};
use super::scalar::{Cidr, TimeSpan};

/// Name of the document that holds for every node.
pub const DEFAULT_NAME: &str = "default";

/// Prefix of the names of documents that hold for one node.
pub const NODE_PREFIX: &str = "node.";

/// `spec` of a BGPConfiguration. Every field may be absent: `node.NAME` leaves it to `default`, and `default` to the
/// value named with the field.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BGPConfigurationSpec {
    /// AS number of nodes that have none of their own; 64512.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 4_294_967_295_u32))]
    pub as_number: Option<u32>,
    /// Whether all nodes but reflectors peer with each other; true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_to_node_mesh_enabled: Option<bool>,
    /// TCP port to listen on; 179.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub listen_port: Option<u16>,
    /// Which addresses to listen on; None: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bind_mode: Option<BindMode>,
    /// Hold time proposed to peers, 0s or 3s to 65535s; 90s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold_time: Option<TimeSpan>,
    /// Interval of keepalives; a third of the hold time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keepalive_time: Option<TimeSpan>,
    /// Time between attempts to connect; 5s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connect_retry_time: Option<TimeSpan>,
    /// Graceful restart (RFC 4724).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub graceful_restart: Option<GracefulRestart>,
    /// Most equal paths installed for one prefix; 16.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 128))]
    pub max_paths: Option<u16>,
    /// Metric of kernel routes; 1790.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 2_147_483_646_u32))]
    pub route_metric: Option<u32>,
    /// Protocol number of kernel routes; 179.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 5, max = 255))]
    pub route_protocol: Option<u8>,
    /// Interfaces that are no underlay, with `*` and `?` as wildcards; none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 100))]
    pub ignored_interfaces: Option<Vec<String>>,
    /// TCP MD5 password of all mesh sessions; none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_mesh_password: Option<PasswordSource>,
    /// Least severity logged; info.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_severity: Option<LogSeverity>,
    /// Where a smaller MTU of tunnels takes effect; PerRoute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu_mode: Option<MtuMode>,
    /// Whether the TCP MSS of what goes into a tunnel is clamped to its MTU; false.
    #[serde(default, rename = "clampMSS", skip_serializing_if = "Option::is_none")]
    pub clamp_mss: Option<bool>,
    /// Label of Nodes that says which zone they are in; only in `default`; none. Between two nodes that both bear it,
    /// CrossSubnet means: the zones differ.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 317))]
    pub zone_label: Option<String>,
    /// VXLAN network identifier; only in `default`; 4096.
    #[serde(default, rename = "vxlanVNI", skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 16_777_215_u32))]
    pub vxlan_vni: Option<u32>,
    /// UDP port of VXLAN; only in `default`; 4789.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub vxlan_port: Option<u16>,
    /// Names for communities; none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 500))]
    pub communities: Option<Vec<NamedCommunity>>,
    /// Communities put on own prefixes that lie inside a prefix; none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 500))]
    pub prefix_advertisements: Option<Vec<PrefixAdvertisement>>,
    /// Cluster IP ranges to advertise. Not supported yet.
    #[serde(default, rename = "serviceClusterIPs", skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 100))]
    pub service_cluster_ips: Option<Vec<ServiceRange>>,
    /// External IP ranges to advertise. Not supported yet.
    #[serde(default, rename = "serviceExternalIPs", skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 100))]
    pub service_external_ips: Option<Vec<ServiceRange>>,
    /// LoadBalancer IP ranges to advertise. Not supported yet.
    #[serde(default, rename = "serviceLoadBalancerIPs", skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 100))]
    pub service_load_balancer_ips: Option<Vec<ServiceRange>>,
    /// Whether LoadBalancer ranges are advertised as a whole; Enabled, which alone is supported yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_load_balancer_aggregation: Option<Aggregation>,
}

/// Which addresses to listen on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum BindMode {
    /// All addresses.
    #[default]
    None,
    /// Only the node's own BGP addresses.
    NodeIP,
}

/// Graceful restart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GracefulRestart {
    /// Whether the capability is sent and peers' routes are retained; true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// Restart time announced, at most 4095s; 120s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restart_time: Option<TimeSpan>,
}

/// Least severity logged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogSeverity {
    /// Everything, messages on the wire included.
    Trace,
    /// What helps to find a fault.
    Debug,
    /// What changes.
    #[default]
    Info,
    /// What should not be.
    #[serde(alias = "warn")]
    Warning,
    /// What keeps a part from its work.
    Error,
}

impl LogSeverity {
    /// The word in the document.
    pub fn as_str(self) -> &'static str {
        match self {
            LogSeverity::Trace => "trace",
            LogSeverity::Debug => "debug",
            LogSeverity::Info => "info",
            LogSeverity::Warning => "warning",
            LogSeverity::Error => "error",
        }
    }
}

/// Where a smaller MTU of tunnels takes effect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum MtuMode {
    /// On the routes into tunnels alone: pods have the MTU of the link.
    #[default]
    PerRoute,
    /// On every pod: the least of all ways.
    Uniform,
}

/// A name for a community.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NamedCommunity {
    /// The name, for `prefixAdvertisements`.
    pub name: String,
    /// The community.
    pub value: Community,
}

/// Communities put on own prefixes inside `cidr`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PrefixAdvertisement {
    /// Own prefixes that are this one or lie inside it.
    pub cidr: Cidr,
    /// Communities, or names of such.
    #[schemars(length(max = 50))]
    pub communities: Vec<String>,
}

/// A range of service addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ServiceRange {
    /// The range.
    pub cidr: Cidr,
}

/// Whether ranges are advertised as a whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Aggregation {
    /// As a whole.
    #[default]
    Enabled,
    /// Address by address.
    Disabled,
}

impl BGPConfigurationSpec {
    /// This specification with the fields that `over` has put in place of its own.
    pub fn overridden_by(&self, over: &Self) -> Self {
        let (a, b) = (self.clone(), over.clone());
        let graceful_restart = match (a.graceful_restart, b.graceful_restart) {
            (Some(base), Some(top)) => Some(GracefulRestart {
                enabled: top.enabled.or(base.enabled),
                restart_time: top.restart_time.or(base.restart_time),
            }),
            (base, top) => top.or(base),
        };
        BGPConfigurationSpec {
            as_number: b.as_number.or(a.as_number),
            node_to_node_mesh_enabled: b.node_to_node_mesh_enabled.or(a.node_to_node_mesh_enabled),
            listen_port: b.listen_port.or(a.listen_port),
            bind_mode: b.bind_mode.or(a.bind_mode),
            hold_time: b.hold_time.or(a.hold_time),
            keepalive_time: b.keepalive_time.or(a.keepalive_time),
            connect_retry_time: b.connect_retry_time.or(a.connect_retry_time),
            graceful_restart,
            max_paths: b.max_paths.or(a.max_paths),
            route_metric: b.route_metric.or(a.route_metric),
            route_protocol: b.route_protocol.or(a.route_protocol),
            ignored_interfaces: b.ignored_interfaces.or(a.ignored_interfaces),
            node_mesh_password: b.node_mesh_password.or(a.node_mesh_password),
            log_severity: b.log_severity.or(a.log_severity),
            mtu_mode: b.mtu_mode.or(a.mtu_mode),
            clamp_mss: b.clamp_mss.or(a.clamp_mss),
            zone_label: b.zone_label.or(a.zone_label),
            vxlan_vni: b.vxlan_vni.or(a.vxlan_vni),
            vxlan_port: b.vxlan_port.or(a.vxlan_port),
            communities: b.communities.or(a.communities),
            prefix_advertisements: b.prefix_advertisements.or(a.prefix_advertisements),
            service_cluster_ips: b.service_cluster_ips.or(a.service_cluster_ips),
            service_external_ips: b.service_external_ips.or(a.service_external_ips),
            service_load_balancer_ips: b.service_load_balancer_ips.or(a.service_load_balancer_ips),
            service_load_balancer_aggregation: b
                .service_load_balancer_aggregation
                .or(a.service_load_balancer_aggregation),
        }
    }

    /// Checks what can be checked within this one document, whose name is `name`.
    pub fn validate(&self, name: &str, findings: &mut Findings) {
        if name != DEFAULT_NAME && !name.strip_prefix(NODE_PREFIX).is_some_and(is_name) {
            findings.add(
                "metadata.name",
                format!("must be `{DEFAULT_NAME}` or `{NODE_PREFIX}NAME`, not `{name}`"),
            );
        }
        if let Some(number) = self.as_number {
            findings.asn("spec.asNumber", number);
        }
        if self.listen_port == Some(0) {
            findings.add("spec.listenPort", "must be 1 to 65535");
        }
        validate_timers(self.hold_time, self.keepalive_time, self.connect_retry_time, findings);
        if let Some(time) = self.graceful_restart.and_then(|restart| restart.restart_time) {
            validate_restart_time("spec.gracefulRestart.restartTime", time, findings);
        }
        if self.max_paths.is_some_and(|paths| !(1..=128).contains(&paths)) {
            findings.add("spec.maxPaths", "must be 1 to 128");
        }
        if self.route_metric.is_some_and(|metric| metric == 0 || metric > 2_147_483_646) {
            findings.add("spec.routeMetric", "must be 1 to 2147483646");
        }
        if self.route_protocol.is_some_and(|protocol| protocol < 5) {
            findings.add("spec.routeProtocol", "must be 5 to 255: the kernel keeps those below for itself");
        }
        for (index, pattern) in self.ignored_interfaces.iter().flatten().enumerate() {
            let path = format!("spec.ignoredInterfaces[{index}]");
            if pattern.is_empty() || pattern.len() > 15 {
                findings.add(path, "must be 1 to 15 characters, as names of interfaces are");
            } else if pattern.bytes().any(|b| b == b'/' || b.is_ascii_whitespace()) {
                findings.add(path, format!("`{pattern}` cannot match the name of an interface"));
            }
        }
        self.validate_communities(findings);
        self.validate_tunnels(name, findings);
        self.validate_unsupported(findings);
    }

    /// What both ends of a tunnel must have alike stands in one place only.
    fn validate_tunnels(&self, name: &str, findings: &mut Findings) {
        if self.zone_label.as_deref().is_some_and(|label| !is_label_key(label)) {
            findings
                .add("spec.zoneLabel", "is not the key of a label: `zone` or `topology.kubernetes.io/zone`");
        }
        if self.vxlan_vni.is_some_and(|vni| !(1..=16_777_215).contains(&vni)) {
            findings.add("spec.vxlanVNI", "must be 1 to 16777215");
        }
        if self.vxlan_port == Some(0) {
            findings.add("spec.vxlanPort", "must be 1 to 65535");
        }
        let fields = [
            ("spec.zoneLabel", self.zone_label.is_some()),
            ("spec.vxlanVNI", self.vxlan_vni.is_some()),
            ("spec.vxlanPort", self.vxlan_port.is_some()),
        ];
        for (field, _) in fields.into_iter().filter(|(_, set)| *set && name != DEFAULT_NAME) {
            findings.add(
                field,
                format!("belongs into `{DEFAULT_NAME}`: both ends of a tunnel must have the same"),
            );
        }
    }

    fn validate_communities(&self, findings: &mut Findings) {
        let named = self.communities.as_deref().unwrap_or_default();
        for (index, community) in named.iter().enumerate() {
            let path = format!("spec.communities[{index}].name");
            if !is_name(&community.name) {
                findings.add(&path, format!("`{}` is not a name", community.name));
            } else if community.name.parse::<Community>().is_ok() {
                findings.add(&path, format!("`{}` already means a community", community.name));
            }
            if named[..index].iter().any(|other| other.name == community.name) {
                findings.add(&path, format!("`{}` is defined twice", community.name));
            }
        }
        for (index, advertisement) in self.prefix_advertisements.iter().flatten().enumerate() {
            if advertisement.communities.len() > 50 {
                findings.add(
                    format!("spec.prefixAdvertisements[{index}].communities"),
                    "more than 50 communities",
                );
            }
        }
    }

    fn validate_unsupported(&self, findings: &mut Findings) {
        for (field, ranges) in [
            ("serviceClusterIPs", &self.service_cluster_ips),
            ("serviceExternalIPs", &self.service_external_ips),
            ("serviceLoadBalancerIPs", &self.service_load_balancer_ips),
        ] {
            if ranges.as_ref().is_some_and(|ranges| !ranges.is_empty()) {
                findings.unsupported(format!("spec.{field}"));
            }
        }
        if self.service_load_balancer_aggregation == Some(Aggregation::Disabled) {
            findings.unsupported("spec.serviceLoadBalancerAggregation");
        }
    }
}

/// Checks the three timers of a session (RFC 4271 sections 4.2 and 10).
pub(super) fn validate_timers(
    hold: Option<TimeSpan>,
    keepalive: Option<TimeSpan>,
    connect_retry: Option<TimeSpan>,
    findings: &mut Findings,
) {
    if let Some(hold) = hold {
        if hold.0.subsec_nanos() != 0 {
            findings.add("spec.holdTime", "must be whole seconds");
        } else if !matches!(hold.0.as_secs(), 0 | 3..=65535) {
            findings.add("spec.holdTime", format!("must be 0s or 3s to 65535s, not {hold}"));
        }
    }
    if let Some(keepalive) = keepalive {
        if keepalive.0.is_zero() && hold.is_none_or(|hold| !hold.0.is_zero()) {
            findings.add("spec.keepaliveTime", "must be above 0s unless holdTime is 0s");
        }
        if let Some(hold) = hold
            && !hold.0.is_zero()
            && keepalive.0 >= hold.0
        {
            findings.add("spec.keepaliveTime", format!("{keepalive} must be below the hold time of {hold}"));
        }
    }
    if let Some(retry) = connect_retry
        && !(100..=3_600_000).contains(&retry.0.as_millis())
    {
        findings.add("spec.connectRetryTime", format!("must be 100ms to 1h, not {retry}"));
    }
}

/// Checks a restart time: 12 bits of seconds (RFC 4724 section 3).
pub(super) fn validate_restart_time(path: &str, time: TimeSpan, findings: &mut Findings) {
    if time.0.subsec_nanos() != 0 || time.0.as_secs() > 4095 {
        findings.add(path, format!("must be whole seconds, at most 4095s, not {time}"));
    }
}
