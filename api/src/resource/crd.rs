//! CustomResourceDefinitions of our own kinds, generated from the types. Pure.
//!
//! Kubernetes wants *structural* schemas: every node typed, no references, no unions but int-or-string, no
//! `additionalProperties: false` beside `properties` (an API server prunes unknown fields by itself). Defaults are
//! left to the code, so that there is one place for them.

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::{BGPConfigurationSpec, BGPFilterSpec, BGPPeerSpec, IPPoolSpec, Kind, NodeSpec};

/// The CustomResourceDefinitions of all of our own kinds, in the order of [`Kind::ALL`].
pub fn crds() -> Vec<Value> {
    vec![
        crd::<NodeSpec>(Kind::Node, "nodes", &["cwnode"], &[("AS", "integer", ".spec.bgp.asNumber")]),
        crd::<BGPConfigurationSpec>(
            Kind::BGPConfiguration,
            "bgpconfigurations",
            &["bgpconfig"],
            &[("AS", "integer", ".spec.asNumber"), ("Mesh", "boolean", ".spec.nodeToNodeMeshEnabled")],
        ),
        crd::<BGPPeerSpec>(
            Kind::BGPPeer,
            "bgppeers",
            &["peer"],
            &[("Peer", "string", ".spec.peerIP"), ("AS", "string", ".spec.asNumber")],
        ),
        crd::<BGPFilterSpec>(Kind::BGPFilter, "bgpfilters", &["filter"], &[]),
        crd::<IPPoolSpec>(
            Kind::IPPool,
            "ippools",
            &["pool"],
            &[("CIDR", "string", ".spec.cidr"), ("Disabled", "boolean", ".spec.disabled")],
        ),
    ]
}

fn crd<S: JsonSchema>(kind: Kind, plural: &str, short: &[&str], columns: &[(&str, &str, &str)]) -> Value {
    let columns: Vec<Value> = columns
        .iter()
        .map(|(name, type_, path)| json!({"name": name, "type": type_, "jsonPath": path}))
        .chain([json!({"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"})])
        .collect();
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.causeway.dev")},
        "spec": {
            "group": "causeway.dev",
            "scope": "Cluster",
            "names": {
                "kind": kind.name(),
                "listKind": format!("{}List", kind.name()),
                "plural": plural,
                "singular": kind.name().to_lowercase(),
                "shortNames": short,
                "categories": ["causeway"],
            },
            "versions": [{
                "name": "v1alpha1",
                "served": true,
                "storage": true,
                "additionalPrinterColumns": columns,
                "schema": {"openAPIV3Schema": {
                    "type": "object",
                    "required": ["spec"],
                    "properties": {
                        "apiVersion": {"type": "string"},
                        "kind": {"type": "string"},
                        "metadata": {"type": "object"},
                        "spec": spec_schema::<S>(),
                    },
                }},
            }],
        },
    })
}

/// The structural schema of one specification.
fn spec_schema<S: JsonSchema>() -> Value {
    let settings = SchemaSettings::openapi3().with(|settings| {
        settings.inline_subschemas = true;
        settings.meta_schema = None;
        settings.transforms.clear();
    });
    let mut schema = settings.into_generator().into_root_schema_for::<S>().to_value();
    make_structural(&mut schema);
    schema
}

/// Rewrites one schema and all below it.
fn make_structural(schema: &mut Value) {
    if let Some(object) = schema.as_object_mut() {
        for unwanted in ["title", "default", "$schema"] {
            object.remove(unwanted);
        }
        drop_null(object);
        collapse_variants(object);
        narrow_numbers(object);
        if object.get("additionalProperties") == Some(&Value::Bool(false)) {
            object.remove("additionalProperties");
        }
        if let Some(text) = object.get("description").and_then(Value::as_str) {
            let text = text.replace('\n', " ");
            object.insert("description".to_owned(), text.into());
        }
        if let Some(properties) = object.get_mut("properties").and_then(Value::as_object_mut) {
            properties.values_mut().for_each(make_structural);
        }
        if let Some(items) = object.get_mut("items") {
            make_structural(items);
        }
        if let Some(values) = object.get_mut("additionalProperties") {
            make_structural(values);
        }
    }
}

/// `Option<T>` is `T` that may be left out: null is no value of it.
fn drop_null(object: &mut Map<String, Value>) {
    let is_null = |schema: &Value| schema.get("type") == Some(&json!("null"));
    if let Some(Value::Array(types)) = object.get("type") {
        let rest: Vec<Value> = types.iter().filter(|name| **name != "null").cloned().collect();
        if let [only] = rest.as_slice() {
            object.insert("type".to_owned(), only.clone());
        }
    }
    if let Some(Value::Array(values)) = object.get_mut("enum") {
        values.retain(|value| !value.is_null());
    }
    if let Some(Value::Array(variants)) = object.get_mut("anyOf")
        && variants.iter().any(is_null)
    {
        variants.retain(|variant| !is_null(variant));
        if variants.len() == 1
            && let Some(Value::Object(inner)) = variants.pop()
        {
            object.remove("anyOf");
            for (key, value) in inner {
                object.entry(key).or_insert(value);
            }
        }
    }
}

/// An enum whose variants are documented comes as `oneOf` constants; it becomes a plain `enum`, the documentation of
/// the variants going into the description.
fn collapse_variants(object: &mut Map<String, Value>) {
    let Some(Value::Array(variants)) = object.get("oneOf") else { return };
    let mut values = Vec::new();
    let mut lines = Vec::new();
    for variant in variants {
        let constants: Vec<Value> = match (variant.get("const"), variant.get("enum")) {
            (Some(value), _) => vec![value.clone()],
            (None, Some(Value::Array(several))) => several.clone(),
            _ => return,
        };
        if let (Some(name), Some(text)) =
            (constants.first().and_then(Value::as_str), variant.get("description").and_then(Value::as_str))
        {
            lines.push(format!("{name}: {text}"));
        }
        values.extend(constants);
    }
    let own = object.get("description").and_then(Value::as_str).unwrap_or_default().to_owned();
    let description = std::iter::once(own).filter(|text| !text.is_empty()).chain(lines).collect::<Vec<_>>();
    object.remove("oneOf");
    object.insert("type".to_owned(), json!("string"));
    object.insert("enum".to_owned(), values.into());
    object.insert("description".to_owned(), description.join(" ").into());
}

/// Kubernetes knows the number formats int32 and int64; ours are unsigned, so they become bounds.
fn narrow_numbers(object: &mut Map<String, Value>) {
    let bounds = match object.get("format").and_then(Value::as_str) {
        Some("uint8") => (u64::from(u8::MAX), "int32"),
        Some("uint16") => (u64::from(u16::MAX), "int32"),
        Some("uint32") => (u64::from(u32::MAX), "int64"),
        _ => return,
    };
    object.insert("format".to_owned(), bounds.1.into());
    object.entry("minimum").or_insert_with(|| 0.into());
    object.entry("maximum").or_insert_with(|| bounds.0.into());
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every rule of structural schemas that our generator could break.
    fn check(path: &str, schema: &Value) {
        let object = schema.as_object().unwrap_or_else(|| panic!("{path} is no object: {schema}"));
        let allowed = [
            "type",
            "description",
            "properties",
            "required",
            "items",
            "enum",
            "format",
            "pattern",
            "minimum",
            "maximum",
            "minLength",
            "maxLength",
            "minItems",
            "maxItems",
            "x-kubernetes-int-or-string",
            "anyOf",
            "additionalProperties",
        ];
        for key in object.keys() {
            assert!(allowed.contains(&key.as_str()), "{path} has {key}: {schema}");
        }
        if object.get("x-kubernetes-int-or-string") == Some(&json!(true)) {
            assert_eq!(object["anyOf"], json!([{"type": "integer"}, {"type": "string"}]), "{path}");
            assert!(!object.contains_key("type"), "{path}");
            return;
        }
        assert!(!object.contains_key("anyOf"), "{path} is a union: {schema}");
        let type_ = object
            .get("type")
            .and_then(Value::as_str)
            .unwrap_or_else(|| panic!("{path} is untyped: {schema}"));
        assert!(["object", "array", "string", "integer", "boolean"].contains(&type_), "{path}: {type_}");
        if type_ == "array" {
            check(&format!("{path}[]"), &object["items"]);
        }
        if let Some(properties) = object.get("properties") {
            assert!(!object.contains_key("additionalProperties"), "{path}");
            for (name, property) in properties.as_object().unwrap() {
                check(&format!("{path}.{name}"), property);
            }
        }
        if let Some(format) = object.get("format").and_then(Value::as_str) {
            assert!(["int32", "int64"].contains(&format), "{path}: {format}");
        }
    }

    #[test]
    fn schemas_are_structural() {
        let all = crds();
        assert_eq!(all.len(), 5);
        for crd in &all {
            let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
            check(crd["spec"]["names"]["kind"].as_str().unwrap(), schema);
        }
    }

    #[test]
    fn field_names_are_those_of_the_documents() {
        let all = crds();
        let names = |index: usize, pointer: &str| -> Vec<String> {
            let spec = &all[index]["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
            spec.pointer(pointer).unwrap().as_object().unwrap().keys().cloned().collect()
        };
        assert_eq!(names(0, "/properties"), ["bgp", "podCIDRs"]);
        assert_eq!(
            names(0, "/properties/bgp/properties"),
            ["asNumber", "ipv4Address", "ipv6Address", "routeReflectorClusterID", "routerID"]
        );
        assert_eq!(
            names(1, "/properties"),
            [
                "asNumber",
                "bindMode",
                "clampMSS",
                "communities",
                "connectRetryTime",
                "gracefulRestart",
                "holdTime",
                "ignoredInterfaces",
                "keepaliveTime",
                "listenPort",
                "logSeverity",
                "maxPaths",
                "mtuMode",
                "nodeMeshPassword",
                "nodeToNodeMeshEnabled",
                "prefixAdvertisements",
                "routeMetric",
                "routeProtocol",
                "serviceClusterIPs",
                "serviceExternalIPs",
                "serviceLoadBalancerAggregation",
                "serviceLoadBalancerIPs",
                "vxlanPort",
                "vxlanVNI",
                "zoneLabel"
            ]
        );
        assert_eq!(
            names(2, "/properties"),
            [
                "addPath",
                "asNumber",
                "bfd",
                "connectRetryTime",
                "ebgpMultihop",
                "families",
                "filters",
                "holdTime",
                "interface",
                "keepaliveTime",
                "localASNumber",
                "maxPrefixes",
                "maxRestartTime",
                "nextHopMode",
                "node",
                "nodeSelector",
                "numAllowedLocalASNumbers",
                "passive",
                "password",
                "peerIP",
                "peerRange",
                "peerSelector",
                "reachableBy",
                "reflection",
                "sourceAddress",
                "ttlSecurity"
            ]
        );
        assert_eq!(
            names(3, "/properties/importV4/items/properties"),
            [
                "action",
                "asPathPrefix",
                "cidr",
                "communities",
                "matchOperator",
                "nextHop",
                "operations",
                "peerType",
                "prefixLength"
            ]
        );
        assert_eq!(
            names(3, "/properties/importV4/items/properties/operations/items/properties"),
            [
                "addCommunity",
                "prependASPath",
                "removeCommunity",
                "setCommunities",
                "setLocalPref",
                "setMED",
                "setNextHop"
            ]
        );
        assert_eq!(
            names(4, "/properties"),
            [
                "allowedUses",
                "blockSize",
                "cidr",
                "disableBGPExport",
                "disabled",
                "ipipMode",
                "natOutgoing",
                "nodeSelector",
                "vxlanMode"
            ]
        );
    }
}
