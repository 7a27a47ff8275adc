//! Documents as users write them: what is accepted, and where errors point to.

use causeway_api::document_set::{DocumentSet, Errors};
use causeway_api::source;

/// The documents of the design page, with what is refused for now left out.
const FABRIC: &str = r#"
apiVersion: causeway.dev/v1alpha1
kind: Node
metadata: {name: node-a1, labels: {rack: a}}
spec:
  bgp: {ipv4Address: 192.0.2.11/24, ipv6Address: "2001:db8:a::11/64", asNumber: 64512, routerID: 192.0.2.11, routeReflectorClusterID: 244.0.0.1}
  podCIDRs: [10.244.1.0/24, "fd00:10:244:1::/64"]
---
# only a comment
---
apiVersion: causeway.dev/v1alpha1
kind: BGPConfiguration
spec: {asNumber: 64512, nodeToNodeMeshEnabled: true, listenPort: 179, bindMode: None, holdTime: 90s, keepaliveTime: 30s, connectRetryTime: 5s,
       gracefulRestart: {enabled: true, restartTime: 120s}, maxPaths: 16, routeMetric: 1790, routeProtocol: 179, ignoredInterfaces: ["docker*"],
       nodeMeshPassword: {secretKeyRef: {name: mesh, key: password}}, logSeverity: info, mtuMode: PerRoute, clampMSS: false,
       communities: [{name: pods, value: "64512:100"}], prefixAdvertisements: [{cidr: 10.244.0.0/16, communities: [pods]}],
       serviceClusterIPs: [], serviceExternalIPs: [], serviceLoadBalancerIPs: [], serviceLoadBalancerAggregation: Enabled}
---
apiVersion: causeway.dev/v1alpha1
kind: BGPPeer
metadata: {name: tor}
spec: {nodeSelector: "rack == 'a'", peerIP: 192.0.2.1, asNumber: 64601, families: [ipv4, ipv6], password: {secretKeyRef: {name: tor, key: password}},
       holdTime: 9s, keepaliveTime: 3s, connectRetryTime: 5s, passive: false, ebgpMultihop: 1, ttlSecurity: 1, sourceAddress: UseNodeIP, nextHopMode: Auto,
       localASNumber: 64513, numAllowedLocalASNumbers: 0, reflection: Auto, maxPrefixes: {ipv4: 1000, ipv6: 1000, warnAt: 80, restartAfter: 5m},
       maxRestartTime: 120s, reachableBy: 192.0.2.254, filters: [tor-in]}
---
apiVersion: causeway.dev/v1alpha1
kind: BGPFilter
metadata: {name: tor-in}
spec: {importV4: [{cidr: 0.0.0.0/0, matchOperator: Equal, action: Accept, operations: [{setLocalPref: {value: 50}}]},
                  {cidr: 10.0.0.0/8, matchOperator: In, prefixLength: {min: 8, max: 28}, peerType: eBGP, communities: {values: ["64601:1"]}, asPathPrefix: [64601], nextHop: 192.0.2.0/24, action: Reject}],
       exportV4: [], importV6: [], exportV6: []}
---
apiVersion: causeway.dev/v1alpha1
kind: IPPool
metadata: {name: pods}
spec: {cidr: 10.244.0.0/16, ipipMode: Never, vxlanMode: Never, natOutgoing: false, disabled: false, disableBGPExport: false, blockSize: 26, nodeSelector: all(), allowedUses: [Workload, Tunnel]}
---
apiVersion: causeway.dev/v1alpha1
kind: IPPool
metadata: {name: pods6}
spec: {cidr: "fd00:10:244::/48"}
---
apiVersion: v1
kind: Secret
metadata: {name: tor, namespace: kube-system}
type: Opaque
data: {password: Zm9v}
stringData: {other: bar}
"#;

fn parse(text: &str) -> Result<DocumentSet, Errors> {
    source::parse("fabric.yaml", text)
}

/// The errors of a text, a line each.
fn errors(text: &str) -> Vec<String> {
    match parse(text) {
        Ok(_) => Vec::new(),
        Err(errors) => errors.0.iter().map(ToString::to_string).collect(),
    }
}

/// A document of one of our kinds; `spec` is the text after `spec: `, on line 4.
fn document(kind: &str, name: &str, spec: &str) -> String {
    format!("apiVersion: causeway.dev/v1alpha1\nkind: {kind}\nmetadata: {{name: {name}}}\nspec: {spec}\n")
}

#[test]
fn every_field_of_the_design_is_read() {
    let set = parse(FABRIC).unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(set.documents().len(), 7);
    let (_, node) = set.node("node-a1").unwrap();
    assert_eq!(node.spec.pod_cidrs.len(), 2);
    let (document, peer) = set.peers().next().unwrap();
    assert_eq!(document.title(), "BGPPeer/tor");
    assert_eq!(peer.max_prefixes.unwrap().warn_at, Some(80));
    assert_eq!(set.configuration("node-a1").max_paths, Some(16));
    assert_eq!(set.secret("tor").unwrap().password("password").unwrap(), "foo");
}

#[test]
fn the_same_documents_as_json() {
    let set = parse(FABRIC).unwrap();
    let values: Vec<serde_json::Value> =
        set.documents().iter().map(|document| document.resource.to_json()).collect();
    let again = source::from_json(&values).unwrap_or_else(|errors| panic!("{errors}"));
    for (a, b) in set.documents().iter().zip(again.documents()) {
        assert_eq!(a.resource, b.resource);
    }
}

#[test]
fn errors_name_file_line_column_document_and_field() {
    let text = document("BGPPeer", "tor", "\n  peerIP: 192.0.2.1\n  asNumber: 64601\n  holdTimer: 9s");
    let found = errors(&text);
    assert_eq!(found.len(), 1);
    assert!(
        found[0].starts_with("fabric.yaml:7:3: BGPPeer/tor: spec.holdTimer: unknown field `holdTimer`"),
        "{found:?}"
    );
    let text = document("BGPPeer", "tor", "\n  peerIP: 192.0.2.1.1\n  asNumber: 64601");
    assert!(
        errors(&text)[0].starts_with("fabric.yaml:5:11: BGPPeer/tor: spec.peerIP: `192.0.2.1.1` is not"),
        "{:?}",
        errors(&text)
    );
}

#[test]
fn errors_found_after_parsing_point_to_the_field_too() {
    let text = format!(
        "{}---\n{}",
        document("IPPool", "a", "{cidr: 10.0.0.0/8}"),
        document(
            "BGPPeer",
            "tor",
            "\n  peerIP: 192.0.2.1\n  asNumber: 64601\n  holdTime: 2s\n  filters:\n  - nowhere"
        )
    );
    assert_eq!(
        errors(&text),
        [
            "fabric.yaml:12:3: BGPPeer/tor: spec.holdTime: must be 0s or 3s to 65535s, not 2s",
            "fabric.yaml:14:5: BGPPeer/tor: spec.filters[0]: there is no BGPFilter `nowhere`",
        ]
    );
}

#[test]
fn broken_yaml_names_the_line() {
    let text = format!("{}---\nkind: [\n", document("IPPool", "a", "{cidr: 10.0.0.0/8}"));
    let found = errors(&text);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].starts_with("fabric.yaml:") && found[0].contains("not YAML"), "{found:?}");
    let found = errors("a: 1\na: 2\n");
    assert!(found[0].starts_with("fabric.yaml:2:1: not YAML: duplicate"), "{found:?}");
}

#[test]
fn what_is_not_supported_yet_says_so() {
    for (kind, spec, field) in [
        ("BGPPeer", "{interface: eth0, asNumber: external}", "interface"),
        (
            "BGPPeer",
            "{peerIP: 192.0.2.1, asNumber: 1, bfd: {enabled: true, minRx: 300ms, minTx: 300ms, multiplier: 3}}",
            "bfd",
        ),
        (
            "BGPPeer",
            "{peerIP: 192.0.2.1, asNumber: 1, addPath: {send: Best, best: 2, receive: true}}",
            "addPath",
        ),
        ("BGPConfiguration", "{serviceClusterIPs: [{cidr: 10.96.0.0/12}]}", "serviceClusterIPs"),
        ("BGPConfiguration", "{serviceExternalIPs: [{cidr: 10.96.0.0/12}]}", "serviceExternalIPs"),
        ("BGPConfiguration", "{serviceLoadBalancerIPs: [{cidr: 10.96.0.0/12}]}", "serviceLoadBalancerIPs"),
        ("BGPConfiguration", "{serviceLoadBalancerAggregation: Disabled}", "serviceLoadBalancerAggregation"),
    ] {
        let name = if kind == "BGPConfiguration" { "default" } else { "x" };
        let found = errors(&document(kind, name, spec));
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].ends_with(&format!("spec.{field}: not supported yet: {field}")), "{found:?}");
    }
}

#[test]
fn each_wrong_value_is_refused_at_its_field() {
    let peer =
        |rest: &str| document("BGPPeer", "p", &format!("{{peerIP: 192.0.2.1, asNumber: 64601, {rest}}}"));
    let filter = |rule: &str| document("BGPFilter", "f", &format!("{{importV4: [{{{rule}}}]}}"));
    let pool = |rest: &str| document("IPPool", "p", &format!("{{{rest}}}"));
    let config = |rest: &str| document("BGPConfiguration", "default", &format!("{{{rest}}}"));
    let node = |rest: &str| document("Node", "n", &format!("{{{rest}}}"));
    for (text, field) in [
        (document("BGPPeer", "p", "{asNumber: 1}"), "spec"),
        (document("BGPPeer", "p", "{peerIP: 192.0.2.1}"), "spec.asNumber"),
        (document("BGPPeer", "p", "{peerIP: 192.0.2.1, asNumber: internal}"), "spec.asNumber"),
        (document("BGPPeer", "p", "{peerIP: 192.0.2.1, asNumber: 0}"), "spec.asNumber"),
        (document("BGPPeer", "p", "{peerIP: 192.0.2.1, asNumber: 23456}"), "spec.asNumber"),
        (document("BGPPeer", "p", "{peerIP: 192.0.2.1, asNumber: 4294967296}"), "spec.asNumber"),
        (document("BGPPeer", "p", "{peerIP: 192.0.2.1, asNumber: -1}"), "spec.asNumber"),
        (document("BGPPeer", "p", "{peerIP: 192.0.2.1, asNumber: other}"), "spec.asNumber"),
        (document("BGPPeer", "p", "{peerSelector: all(), asNumber: 1}"), "spec.asNumber"),
        (document("BGPPeer", "p", "{peerRange: 0.0.0.0/0, asNumber: 1}"), "spec.peerRange"),
        (
            document("BGPPeer", "p", "{peerIP: 192.0.2.1, peerRange: 10.0.0.0/8, asNumber: 1}"),
            "spec.peerRange",
        ),
        (document("BGPPeer", "p", "{peerSelector: \"rack = 'a'\"}"), "spec.peerSelector"),
        (peer("node: a, nodeSelector: all()"), "spec.nodeSelector"),
        (peer("holdTime: 1s"), "spec.holdTime"),
        (peer("holdTime: 3500ms"), "spec.holdTime"),
        (peer("holdTime: 90"), "spec.holdTime"),
        (peer("holdTime: 65536s"), "spec.holdTime"),
        (peer("holdTime: 9s, keepaliveTime: 9s"), "spec.keepaliveTime"),
        (peer("connectRetryTime: 0s"), "spec.connectRetryTime"),
        (peer("families: []"), "spec.families"),
        (peer("families: [ipv4, ipv4]"), "spec.families"),
        (peer("families: [ipv5]"), "spec.families[0]"),
        (peer("ttlSecurity: 0"), "spec.ttlSecurity"),
        (peer("ttlSecurity: 256"), "spec.ttlSecurity"),
        (peer("ebgpMultihop: 0"), "spec.ebgpMultihop"),
        (peer("ebgpMultihop: 3, ttlSecurity: 2"), "spec.ebgpMultihop"),
        (peer("passive: \"yes\""), "spec.passive"),
        (peer("localASNumber: 0"), "spec.localASNumber"),
        (peer("maxPrefixes: {ipv4: 0}"), "spec.maxPrefixes.ipv4"),
        (peer("maxPrefixes: {warnAt: 101}"), "spec.maxPrefixes.warnAt"),
        (peer("maxPrefixes: {ipv5: 1}"), "spec.maxPrefixes.ipv5"),
        (peer("maxRestartTime: 5000s"), "spec.maxRestartTime"),
        (peer("reachableBy: \"2001:db8::1\""), "spec.reachableBy"),
        (peer("reachableBy: 192.0.2.1"), "spec.reachableBy"),
        (peer("filters: [x]"), "spec.filters[0]"),
        (peer("password: {secretKeyRef: {name: x}}"), "spec.password.secretKeyRef"),
        (filter("cidr: 10.0.0.0/8, action: Accept"), "spec.importV4[0].cidr"),
        (filter("matchOperator: In, action: Accept"), "spec.importV4[0].matchOperator"),
        (filter("cidr: \"::/0\", matchOperator: In, action: Accept"), "spec.importV4[0].cidr"),
        (filter("cidr: 10.0.0.1/8, matchOperator: In, action: Accept"), "spec.importV4[0].cidr"),
        (filter("cidr: 10.0.0.0/8, matchOperator: Within, action: Accept"), "spec.importV4[0].matchOperator"),
        (filter("cidr: 10.0.0.0/8, matchOperator: In"), "spec.importV4[0]"),
        (filter("prefixLength: {min: 24, max: 8}, action: Accept"), "spec.importV4[0].prefixLength"),
        (filter("prefixLength: {max: 33}, action: Accept"), "spec.importV4[0].prefixLength.max"),
        (filter("communities: {values: []}, action: Accept"), "spec.importV4[0].communities.values"),
        (filter("communities: {values: [\"1\"]}, action: Accept"), "spec.importV4[0].communities.values[0]"),
        (filter("asPathPrefix: [], action: Accept"), "spec.importV4[0].asPathPrefix"),
        (filter("action: Reject, operations: [{setMED: {value: 1}}]"), "spec.importV4[0].operations"),
        (filter("action: Accept, operations: [{}]"), "spec.importV4[0].operations[0]"),
        (
            filter("action: Accept, operations: [{setMED: {value: 1}, setLocalPref: {value: 1}}]"),
            "spec.importV4[0].operations[0]",
        ),
        (
            filter("action: Accept, operations: [{setNextHop: {address: \"::1\"}}]"),
            "spec.importV4[0].operations[0].setNextHop.address",
        ),
        (
            filter("action: Accept, operations: [{prependASPath: {prefix: []}}]"),
            "spec.importV4[0].operations[0].prependASPath.prefix",
        ),
        (
            filter("action: Accept, operations: [{prependASPath: {prefix: [0]}}]"),
            "spec.importV4[0].operations[0].prependASPath.prefix[0]",
        ),
        (pool("cidr: 10.0.0.0/33"), "spec.cidr"),
        (pool("disabled: true"), "spec"),
        (pool("cidr: 169.254.0.0/24"), "spec.cidr"),
        (pool("cidr: 10.0.0.0/8, blockSize: 19"), "spec.blockSize"),
        (pool("cidr: 10.0.0.0/28, blockSize: 26"), "spec.blockSize"),
        (pool("cidr: 10.0.0.0/8, allowedUses: [LoadBalancer, Tunnel]"), "spec.allowedUses"),
        (pool("cidr: 10.0.0.0/8, ipipMode: Always, vxlanMode: CrossSubnet"), "spec.vxlanMode"),
        (pool("cidr: 10.0.0.0/8, ipipMode: Sometimes"), "spec.ipipMode"),
        (pool("cidr: 10.0.0.0/8, vxlanMode: Always, allowedUses: [LoadBalancer]"), "spec.vxlanMode"),
        (config("mtuMode: Lowest"), "spec.mtuMode"),
        (config("zoneLabel: \"\""), "spec.zoneLabel"),
        (config("zoneLabel: a/b/c"), "spec.zoneLabel"),
        (config("vxlanVNI: 0"), "spec.vxlanVNI"),
        (config("vxlanVNI: 16777216"), "spec.vxlanVNI"),
        (config("vxlanPort: 0"), "spec.vxlanPort"),
        (document("BGPConfiguration", "node.a", "{zoneLabel: zone}"), "spec.zoneLabel"),
        (document("BGPConfiguration", "node.a", "{vxlanVNI: 4096}"), "spec.vxlanVNI"),
        (document("BGPConfiguration", "node.a", "{vxlanPort: 4789}"), "spec.vxlanPort"),
        (config("gracefulRestart: {restartTime: 4096s}"), "spec.gracefulRestart.restartTime"),
        (config("maxPaths: 0"), "spec.maxPaths"),
        (config("listenPort: 0"), "spec.listenPort"),
        (config("listenPort: 65536"), "spec.listenPort"),
        (config("routeProtocol: 2"), "spec.routeProtocol"),
        (config("routeMetric: 0"), "spec.routeMetric"),
        (config("logSeverity: loud"), "spec.logSeverity"),
        (config("ignoredInterfaces: [\"\"]"), "spec.ignoredInterfaces[0]"),
        (
            config("communities: [{name: a, value: \"1:1\"}, {name: a, value: \"1:2\"}]"),
            "spec.communities[1].name",
        ),
        (
            config("prefixAdvertisements: [{cidr: 10.0.0.0/8, communities: [nope]}]"),
            "spec.prefixAdvertisements[0].communities[0]",
        ),
        (document("BGPConfiguration", "other", "{}"), "metadata.name"),
        (document("BGPPeer", "\"\"", "{peerIP: 192.0.2.1, asNumber: 1}"), "metadata.name"),
        (document("BGPPeer", "a/b", "{peerIP: 192.0.2.1, asNumber: 1}"), "metadata.name"),
        (node("bgp: {ipv4Address: 192.0.2.1}"), "spec.bgp.ipv4Address"),
        (node("bgp: {asNumber: 0}"), "spec.bgp.asNumber"),
        (node("bgp: {routerID: 0.0.0.0}"), "spec.bgp.routerID"),
        (node("podCIDRs: [10.0.0.0/24]"), "spec.podCIDRs[0]"),
    ] {
        let found = errors(&text);
        assert_eq!(found.len(), 1, "{text}\n{found:?}");
        assert!(found[0].contains(&format!(": {field}: ")), "{text}\nexpected {field}: {found:?}");
        assert!(found[0].starts_with("fabric.yaml:"), "{found:?}");
    }
}

#[test]
fn documents_together() {
    let pool = document("IPPool", "a", "{cidr: 10.0.0.0/8}");
    let other = document("IPPool", "b", "{cidr: 10.1.0.0/16}");
    assert_eq!(
        errors(&format!("{pool}---\n{other}")),
        [
            "fabric.yaml:9:8: IPPool/b: spec.cidr: 10.1.0.0/16 overlaps 10.0.0.0/8 of IPPool/a (fabric.yaml:1:1)"
        ]
    );
    let found = errors(&format!("{pool}---\n{pool}"));
    assert!(found[0].contains("there is another IPPool/a at fabric.yaml:1:1"), "{found:?}");
    let one = document("Node", "n1", "{bgp: {ipv4Address: 192.0.2.1/24}, podCIDRs: [10.1.0.0/24]}");
    let two = document("Node", "n2", "{bgp: {ipv4Address: 192.0.2.1/24}, podCIDRs: [10.1.0.0/25]}");
    let found = errors(&format!("{pool}---\n{one}---\n{two}"));
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[0].contains("spec.bgp.ipv4Address: 192.0.2.1 belongs to Node/n1"), "{found:?}");
    assert!(found[1].contains("spec.podCIDRs[0]: 10.1.0.0/25 overlaps 10.1.0.0/24 of Node/n1"), "{found:?}");
    let disabled = document("IPPool", "a", "{cidr: 10.0.0.0/8, disabled: true}");
    assert!(errors(&format!("{disabled}---\n{one}"))[0].contains("outside every enabled IPPool"));
    let elsewhere = document("IPPool", "a", "{cidr: 10.0.0.0/8, nodeSelector: has(spare)}");
    assert!(errors(&format!("{elsewhere}---\n{one}"))[0].contains("nodeSelector does not select"));
}

#[test]
fn kinds_and_versions_are_checked() {
    let found = errors("apiVersion: causeway.dev/v1alpha1\nkind: Pod\nmetadata: {name: x}\n");
    assert!(found[0].starts_with("fabric.yaml:2:1: Pod/x: kind: unknown kind `Pod`"), "{found:?}");
    let found = errors("apiVersion: v1\nkind: IPPool\nmetadata: {name: x}\nspec: {cidr: 10.0.0.0/8}\n");
    assert!(found[0].contains("apiVersion: must be `causeway.dev/v1alpha1` for IPPool"), "{found:?}");
    assert!(errors("kind: IPPool\n")[0].contains("`apiVersion` is missing"));
    assert!(errors("- a\n")[0].contains("a document must be a map"));
    assert!(errors("just text\n")[0].contains("a document must be a map"));
    assert_eq!(errors(""), [""; 0]);
    let list = "apiVersion: v1\nkind: List\nitems:\n- apiVersion: causeway.dev/v1alpha1\n  kind: IPPool\n  metadata: {name: x}\n  spec: {cidr: 10.0.0.0/9, nope: 1}\n";
    assert!(
        errors(list)[0].starts_with("fabric.yaml:7:28: IPPool/x: spec.nope: unknown field"),
        "{:?}",
        errors(list)
    );
}

#[test]
fn folders_are_read_in_order_through_links_and_not_deeper() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    std::fs::create_dir(at("..data")).unwrap();
    std::fs::write(at("..data/b.yml"), document("IPPool", "b", "{cidr: 10.2.0.0/16}")).unwrap();
    std::os::unix::fs::symlink("..data/b.yml", at("b.yml")).unwrap();
    std::fs::write(at("a.yaml"), document("IPPool", "a", "{cidr: 10.1.0.0/16}")).unwrap();
    std::fs::write(
        at("c.json"),
        r#"{"apiVersion": "causeway.dev/v1alpha1", "kind": "IPPool", "metadata": {"name": "c"}, "spec": {"cidr": "10.3.0.0/16"}}"#,
    )
    .unwrap();
    std::fs::write(at("ignored.txt"), "][").unwrap();
    std::fs::create_dir(at("deeper.yaml")).unwrap();
    let set = source::read(folder.path()).unwrap_or_else(|errors| panic!("{errors}"));
    let names: Vec<&str> = set.documents().iter().map(|document| document.name()).collect();
    assert_eq!(names, ["a", "b", "c"]);
    let one = source::read(&at("a.yaml")).unwrap();
    assert_eq!(one.documents().len(), 1);
    let missing = source::read(&at("nowhere")).unwrap_err();
    assert!(missing.to_string().contains("nowhere: cannot be read"), "{missing}");
    std::fs::write(at("binary.yaml"), [0xFF, 0xFE, 0x00]).unwrap();
    let errors = source::read(folder.path()).unwrap_err();
    assert!(errors.to_string().contains("binary.yaml: cannot be read"), "{errors}");
}

#[test]
fn aliases_cannot_blow_up() {
    let mut text = String::from("a: &a [x, x, x, x, x, x, x, x, x]\n");
    for (before, this) in "abcdefghijk".chars().zip("bcdefghijkl".chars()) {
        text.push_str(&format!("{this}: &{this} [{}]\n", vec![format!("*{before}"); 9].join(", ")));
    }
    assert!(errors(&text)[0].contains("not YAML"));
    let deep = "[".repeat(100_000);
    assert!(errors(&deep)[0].contains("not YAML"));
    // The daemons read in threads of 2 MiB, and half of that must do.
    let small = std::thread::Builder::new().stack_size(1024 * 1024);
    let reader = small.spawn(|| {
        for depth in 1..100 {
            for (open, close) in [("[", "]"), ("{a: ", "}"), ("- ", "")] {
                errors(&format!("{}1{}", open.repeat(depth), close.repeat(depth)));
            }
        }
    });
    reader.unwrap().join().unwrap();
}
