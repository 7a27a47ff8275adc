//! The result of ADD in each version's shape, and what CHECK reads out of `prevResult`. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::attachment::Attachment;
use crate::config::Config;
use crate::error::{CniError, Code};
use crate::version::Version;

/// The pod's IPv4 gateway. Nobody has the address: a permanent neighbour entry leads to the host end.
pub const GATEWAY_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(169, 254, 1, 1));
/// The pod's IPv6 gateway, an address of the host end.
pub const GATEWAY_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1));

/// The gateway of an address's family.
pub fn gateway(address: &IpAddr) -> IpAddr {
    if address.is_ipv4() { GATEWAY_V4 } else { GATEWAY_V6 }
}

/// What ADD answers: the result of the plugins before in the chain, with ours after it.
pub fn render(attachment: &Attachment<'_>, config: &Config) -> Value {
    let mut result = config.prev_result.clone().unwrap_or_default();
    result.insert("cniVersion".to_owned(), json!(config.version.as_str()));
    let before = extend(&mut result, "interfaces", interfaces(attachment, config.version));
    let pod_interface = before + 1;
    let addresses = &attachment.addresses;
    let ips = addresses.iter().map(|address| ip(address, pod_interface, config.version));
    extend(&mut result, "ips", ips.collect());
    let routes = addresses.iter().map(|address| {
        let mut route = json!({"dst": default_route(address), "gw": gateway(address)});
        if let Some(metric) = attachment.default_metric(address).filter(|_| config.version >= Version::V1_1_0)
        {
            route["priority"] = json!(metric);
        }
        route
    });
    extend(&mut result, "routes", routes.collect());
    if !config.dns.is_empty() || !result.contains_key("dns") {
        result.insert("dns".to_owned(), Value::Object(config.dns.clone()));
    }
    Value::Object(result)
}

/// The host end, then the pod end.
fn interfaces(attachment: &Attachment<'_>, version: Version) -> Vec<Value> {
    let names = &attachment.names;
    let mut interfaces = vec![
        json!({"name": names.veth, "mac": names.host_mac.to_string()}),
        json!({
            "name": attachment.interface,
            "mac": names.pod_mac.to_string(),
            "sandbox": attachment.netns_path.to_string_lossy(),
        }),
    ];
    if version >= Version::V1_1_0 {
        for interface in &mut interfaces {
            interface["mtu"] = json!(attachment.mtu);
        }
    }
    interfaces
}

fn ip(address: &IpAddr, interface: usize, version: Version) -> Value {
    let mut ip = json!({
        "address": IpNetwork::from(*address).to_string(),
        "gateway": gateway(address),
        "interface": interface,
    });
    if version < Version::V1_0_0 {
        ip["version"] = json!(if address.is_ipv4() { "4" } else { "6" });
    }
    ip
}

fn default_route(address: &IpAddr) -> &'static str {
    if address.is_ipv4() { "0.0.0.0/0" } else { "::/0" }
}

/// Appends to a list of the result and returns how long it was before.
fn extend(result: &mut Map<String, Value>, key: &str, more: Vec<Value>) -> usize {
    let mut list = match result.remove(key) {
        Some(Value::Array(list)) => list,
        _ => Vec::new(),
    };
    let before = list.len();
    list.extend(more);
    result.insert(key.to_owned(), Value::Array(list));
    before
}

/// What CHECK needs of a `prevResult`. Everything else in it is other plugins' business.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct PrevResult {
    /// `interfaces`
    pub interfaces: Vec<Interface>,
    /// `ips`
    pub ips: Vec<Ip>,
    /// `routes`
    pub routes: Vec<Route>,
}

/// An interface of a result.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its Ethernet address.
    pub mac: String,
    /// Its MTU, from 1.1.0 on.
    pub mtu: Option<u32>,
    /// The network namespace it is in; empty for the host.
    pub sandbox: String,
}

/// An address of a result.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Ip {
    /// With its prefix length.
    pub address: IpNetwork,
    /// The index of its interface.
    #[serde(default)]
    pub interface: Option<usize>,
}

/// A route of a result.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Route {
    /// Where to.
    pub dst: IpNetwork,
    /// The gateway.
    #[serde(default)]
    pub gw: Option<IpAddr>,
}

impl PrevResult {
    /// Reads the configuration's `prevResult`.
    ///
    /// # Errors
    /// [`Code::InvalidConfig`] without one, [`Code::Decode`] for one that is no result.
    pub fn of(config: &Config) -> Result<Self, CniError> {
        let Some(result) = &config.prev_result else {
            return Err(CniError::new(Code::InvalidConfig, "prevResult is missing"));
        };
        let without_nulls =
            result.iter().filter(|(_, value)| !value.is_null()).map(|(k, v)| (k.clone(), v.clone()));
        serde_json::from_value(Value::Object(without_nulls.collect()))
            .map_err(|error| CniError::new(Code::Decode, format!("prevResult is no result: {error}")))
    }
}
