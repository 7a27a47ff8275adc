//! Which peers a node has and with what, by source and by default.

use super::*;
use crate::source;

const POOLS: &str = "
apiVersion: causeway.dev/v1alpha1
kind: IPPool
metadata: {name: pods}
spec: {cidr: 10.244.0.0/16}
---
apiVersion: causeway.dev/v1alpha1
kind: IPPool
metadata: {name: pods6}
spec: {cidr: \"fd00:10:244::/48\"}
";

fn document(kind: &str, metadata: &str, spec: &str) -> String {
    format!("---\napiVersion: causeway.dev/v1alpha1\nkind: {kind}\nmetadata: {{{metadata}}}\nspec: {spec}\n")
}

/// Node `nI` with address 192.0.2.I/24, labels and extra fields of `bgp` as given.
fn node(i: u8, labels: &str, bgp: &str) -> String {
    document(
        "Node",
        &format!("name: n{i}, labels: {{{labels}}}"),
        &format!("{{bgp: {{ipv4Address: 192.0.2.{i}/24{bgp}}}, podCIDRs: [10.244.{i}.0/24]}}"),
    )
}

fn effective(text: &str, name: &str, role: Role) -> Result<EffectiveNode, String> {
    let documents =
        source::parse("f.yaml", &format!("{POOLS}{text}")).map_err(|errors| errors.to_string())?;
    resolve(&documents, name, role).map_err(|errors| errors.to_string())
}

fn resolved(text: &str, name: &str) -> EffectiveNode {
    effective(text, name, Role::Node).unwrap_or_else(|errors| panic!("{errors}"))
}

/// `name address:port AS` of each peer.
fn peers(node: &EffectiveNode) -> Vec<String> {
    let line = |peer: &Peer| {
        format!("{} {}:{} {}", peer.settings.name, peer.address, peer.port, peer.settings.remote_as)
    };
    node.peers.iter().map(line).collect()
}

#[test]
fn defaults_of_a_lone_node() {
    let node = resolved(&node(1, "", ""), "n1");
    assert_eq!((node.as_number, node.router_id), (64512, Ipv4Addr::new(192, 0, 2, 1)));
    assert_eq!((node.listen.port, node.listen.addresses.len()), (179, 0));
    assert_eq!((node.max_paths, node.routes.metric, node.routes.protocol), (16, 1790, 179));
    assert_eq!(node.graceful_restart_time, Some(TimeSpan::from_secs(120)));
    assert_eq!(node.blocks[0].pool, "pods");
    assert!(node.blocks[0].advertised && node.peers.is_empty() && node.notes.is_empty());
}

#[test]
fn mesh_is_every_node_without_cluster_id() {
    let text = format!(
        "{}{}{}{}{}",
        node(1, "", ""),
        node(2, "", ", asNumber: 65002"),
        node(3, "", ", routeReflectorClusterID: 244.0.0.1"),
        document("Node", "name: v6", "{bgp: {ipv6Address: \"2001:db8::9/64\"}}"),
        document("BGPConfiguration", "name: node.n2", "{listenPort: 1790}"),
    );
    let one = resolved(&text, "n1");
    assert_eq!(peers(&one), ["mesh n2 192.0.2.2:1790 65002"]);
    assert_eq!(one.peers[0].settings.families, [AddressFamily::Ipv4]);
    assert_eq!(one.peers[0].settings.distance, Distance::Ttl(1));
    assert!(
        one.notes[0].contains("mesh v6: the two nodes have no address of the same family"),
        "{:?}",
        one.notes
    );
    assert_eq!(resolved(&text, "n3").peers, []);
    let off =
        format!("{text}{}", document("BGPConfiguration", "name: default", "{nodeToNodeMeshEnabled: false}"));
    assert_eq!(resolved(&off, "n1").peers, []);
    // Turned off for one node alone, the others do not try to reach it.
    let off =
        format!("{text}{}", document("BGPConfiguration", "name: node.n1", "{nodeToNodeMeshEnabled: false}"));
    assert_eq!(resolved(&off, "n1").peers, []);
    assert_eq!(peers(&resolved(&off, "n2")), [""; 0]);
}

#[test]
fn sessions_of_dual_stack_nodes_run_over_ipv4_and_carry_both() {
    let dual = |i: u8| node(i, "", &format!(", ipv6Address: \"2001:db8::{i}/64\""));
    let one = resolved(&format!("{}{}{}", dual(1), dual(2), node(3, "", "")), "n1");
    assert_eq!(peers(&one), ["mesh n2 192.0.2.2:179 64512", "mesh n3 192.0.2.3:179 64512"]);
    assert_eq!(one.peers[0].settings.families, [AddressFamily::Ipv4, AddressFamily::Ipv6]);
    assert_eq!(one.peers[1].settings.families, [AddressFamily::Ipv4]);
    assert_eq!(one.peers[0].settings.distance, Distance::Ttl(255));
}

#[test]
fn peers_by_address_and_who_has_them() {
    let peer = |name: &str, who: &str| {
        document(
            "BGPPeer",
            &format!("name: {name}"),
            &format!("{{{who}peerIP: 192.0.2.254, asNumber: 64601}}"),
        )
    };
    let nodes =
        format!("{}{}", node(1, "rack: a", ", asNumber: 65001"), node(2, "rack: b", ", asNumber: 65002"));
    let mesh_off = document("BGPConfiguration", "name: default", "{nodeToNodeMeshEnabled: false}");
    for (who, n1, n2) in [
        ("", 1, 1),
        ("node: n1, ", 1, 0),
        ("nodeSelector: \"rack == 'b'\", ", 0, 1),
        ("node: elsewhere, ", 0, 0),
    ] {
        let text = format!("{nodes}{mesh_off}{}", peer("tor", who));
        assert_eq!(resolved(&text, "n1").peers.len(), n1, "{who}");
        assert_eq!(resolved(&text, "n2").peers.len(), n2, "{who}");
    }
    let text = format!("{nodes}{mesh_off}{}{}", peer("tor", ""), peer("tor2", "node: n2, "));
    assert_eq!(resolved(&text, "n1").peers.len(), 1);
    let error = effective(&text, "n2", Role::Node).unwrap_err();
    assert!(
        error.contains("BGPPeer/tor2: spec: leads node n2 to the peer 192.0.2.254, and so does BGPPeer/tor"),
        "{error}"
    );
    assert!(error.starts_with("f.yaml:"), "{error}");
}

#[test]
fn what_a_peer_gets_from_its_document_the_configuration_and_the_defaults() {
    let text = format!(
        "{}{}{}{}",
        node(1, "", ", asNumber: 65001, ipv6Address: \"2001:db8::1/64\""),
        document(
            "BGPConfiguration",
            "name: default",
            "{holdTime: 30s, keepaliveTime: 20s, connectRetryTime: 2s}"
        ),
        document(
            "BGPPeer",
            "name: a",
            "{peerIP: 192.0.2.254, asNumber: 64601, holdTime: 9s, password: {secretKeyRef: {name: s, key: k}}, \
             maxPrefixes: {ipv4: 10}, localASNumber: 65100, reachableBy: 192.0.2.253, maxRestartTime: 0s}"
        ),
        document(
            "BGPPeer",
            "name: b",
            "{peerIP: \"[2001:db8::fe]:1179\", asNumber: 65001, sourceAddress: None}"
        ),
    );
    let node = resolved(&text, "n1");
    let a = &node.peers[0].settings;
    assert_eq!((a.hold_time, a.keepalive_time), (TimeSpan::from_secs(9), TimeSpan::from_secs(3)));
    assert_eq!(a.connect_retry_time, TimeSpan::from_secs(2));
    assert_eq!(a.local_as, 65100);
    assert_eq!(a.source, node.ipv4_address.map(|address| address.ip().into()));
    assert_eq!(a.password, Password::Missing("there is no secret s".to_owned()));
    assert_eq!(a.max_prefixes.unwrap().warn_at, Some(80));
    assert_eq!(a.families, [AddressFamily::Ipv4, AddressFamily::Ipv6]);
    assert_eq!(a.max_restart_time, TimeSpan::from_secs(0));
    assert_eq!(a.graceful_restart_time, Some(TimeSpan::from_secs(120)));
    assert_eq!(node.host_routes.len(), 1);
    let b = &node.peers[1];
    assert_eq!((b.port, b.settings.source, b.settings.distance), (1179, None, Distance::Ttl(255)));
    assert_eq!(
        (b.settings.hold_time, b.settings.keepalive_time),
        (TimeSpan::from_secs(30), TimeSpan::from_secs(10))
    );
    let bad = format!(
        "{text}{}",
        document("BGPPeer", "name: c", "{peerIP: 192.0.2.7, asNumber: 1, keepaliveTime: 30s}")
    );
    let error = effective(&bad, "n1", Role::Node).unwrap_err();
    assert!(
        error.contains("BGPPeer/c: spec.keepaliveTime: 30s must be below the hold time of 30s"),
        "{error}"
    );
}

#[test]
fn the_node_itself_is_left_out_with_a_note() {
    let text =
        format!("{}{}", node(1, "", ""), document("BGPPeer", "name: p", "{peerIP: 192.0.2.1, asNumber: 1}"));
    let node = resolved(&text, "n1");
    assert_eq!(node.peers, []);
    assert_eq!(node.notes, ["BGPPeer p: 192.0.2.1 is this node's own address: left out"]);
}

#[test]
fn speakers_that_share_an_address_are_told_apart_by_port() {
    let peer = |name: &str, ip: &str| {
        document("BGPPeer", &format!("name: {name}"), &format!("{{peerIP: \"{ip}\", asNumber: 1}}"))
    };
    let text = format!("{}{}{}", node(1, "", ""), peer("p", "192.0.2.1:1001"), peer("q", "192.0.2.1:1002"));
    let one = resolved(&text, "n1");
    assert_eq!(peers(&one), ["BGPPeer p 192.0.2.1:1001 1", "BGPPeer q 192.0.2.1:1002 1"]);
    let error = effective(&format!("{text}{}", peer("r", "192.0.2.1:1002")), "n1", Role::Node).unwrap_err();
    assert!(
        error.contains("BGPPeer/r: spec: leads node n1 to the peer 192.0.2.1, and so does BGPPeer/q"),
        "{error}"
    );
}

#[test]
fn peer_selectors_work_from_both_ends() {
    let text = format!(
        "{}{}{}{}{}",
        node(1, "", ""),
        node(2, "", ""),
        node(8, "rr: 'yes'", ", routeReflectorClusterID: 244.0.0.1"),
        node(9, "rr: 'yes'", ", routeReflectorClusterID: 244.0.0.1"),
        document("BGPPeer", "name: rr", "{nodeSelector: all(), peerSelector: has(rr), passive: true}"),
    );
    let one = resolved(&text, "n1");
    assert_eq!(
        peers(&one),
        [
            "mesh n2 192.0.2.2:179 64512",
            "BGPPeer rr (node n8) 192.0.2.8:179 64512",
            "BGPPeer rr (node n9) 192.0.2.9:179 64512"
        ]
    );
    assert!(one.peers[1].settings.passive && !one.peers[1].settings.reflector_client);
    let reflector = resolved(&text, "n8");
    assert_eq!(
        peers(&reflector),
        [
            "BGPPeer rr (node n1) 192.0.2.1:179 64512",
            "BGPPeer rr (node n2) 192.0.2.2:179 64512",
            "BGPPeer rr (node n9) 192.0.2.9:179 64512"
        ]
    );
    let clients: Vec<bool> = reflector.peers.iter().map(|peer| peer.settings.reflector_client).collect();
    assert_eq!(clients, [true, true, false], "the same cluster id means no client");
    assert!(!reflector.peers[0].settings.passive, "one end must connect");
}

#[test]
fn explicit_peers_replace_mesh_ones() {
    let text = format!(
        "{}{}{}",
        node(1, "", ""),
        node(2, "", ""),
        document("BGPPeer", "name: p", "{node: n1, peerIP: 192.0.2.2, asNumber: 64512, holdTime: 6s}"),
    );
    let one = resolved(&text, "n1");
    assert_eq!(peers(&one), ["BGPPeer p 192.0.2.2:179 64512"]);
    assert_eq!(one.notes, ["mesh n2: 192.0.2.2 is already a peer by BGPPeer p: left out"]);
}

#[test]
fn ranges_are_passive_and_clients_of_a_reflector() {
    let text = format!(
        "{}{}",
        node(1, "", ", routeReflectorClusterID: 244.0.0.1"),
        document("BGPPeer", "name: r", "{peerRange: 198.51.100.0/24, asNumber: internal}")
    );
    let one = resolved(&text, "n1");
    let range = &one.peer_ranges[0].settings;
    assert!(range.passive && range.reflector_client && range.source.is_none());
    assert_eq!((range.remote_as, range.distance), (PeerAsn::Internal, Distance::Ttl(255)));
    let twice = format!(
        "{text}{}",
        document("BGPPeer", "name: s", "{peerRange: 198.51.100.0/24, asNumber: external}")
    );
    let error = effective(&twice, "n1", Role::Node).unwrap_err();
    assert!(
        error.contains("BGPPeer/s: spec.peerRange: 198.51.100.0/24 is the range of BGPPeer/r as well"),
        "{error}"
    );
}

#[test]
fn a_reflector_has_no_blocks_and_a_cluster_id_of_its_own() {
    let text = format!(
        "{}{}{}",
        node(1, "", ""),
        node(2, "", ""),
        document("BGPPeer", "name: p", "{node: n1, peerIP: 192.0.2.2, asNumber: 64512}")
    );
    let reflector = effective(&text, "n1", Role::Reflector).unwrap();
    assert_eq!(reflector.cluster_id, Some(Ipv4Addr::new(192, 0, 2, 1)));
    assert_eq!(reflector.blocks, []);
    assert_eq!(peers(&reflector), ["BGPPeer p 192.0.2.2:179 64512"]);
    assert!(reflector.peers[0].settings.reflector_client);
    assert_eq!(reflector.peers[0].settings.families, [AddressFamily::Ipv4, AddressFamily::Ipv6]);
}

#[test]
fn blocks_know_their_pool_and_communities() {
    let text = format!(
        "{}{}{}",
        document("IPPool", "name: silent", "{cidr: 10.99.0.0/16, disableBGPExport: true}"),
        document(
            "Node",
            "name: n1",
            "{bgp: {ipv4Address: 192.0.2.1/24}, podCIDRs: [10.244.1.0/24, 10.99.1.0/24]}"
        ),
        document(
            "BGPConfiguration",
            "name: default",
            "{communities: [{name: pods, value: \"64512:100\"}], prefixAdvertisements: \
             [{cidr: 10.244.0.0/16, communities: [pods, \"64512:1:1\", no-export, \"64512:100\"]}]}"
        ),
    );
    let node = resolved(&text, "n1");
    let words: Vec<String> = node.blocks[0].communities.iter().map(ToString::to_string).collect();
    assert_eq!(words, ["64512:100", "no-export", "64512:1:1"]);
    assert!(node.blocks[0].advertised);
    assert!(!node.blocks[1].advertised && node.blocks[1].communities.is_empty());
}

#[test]
fn node_overrides_replace_single_fields() {
    let text = format!(
        "{}{}{}",
        node(1, "", ""),
        document(
            "BGPConfiguration",
            "name: default",
            "{asNumber: 65000, maxPaths: 4, gracefulRestart: {restartTime: 60s}}"
        ),
        document(
            "BGPConfiguration",
            "name: node.n1",
            "{maxPaths: 2, gracefulRestart: {enabled: false}, bindMode: NodeIP}"
        ),
    );
    let node = resolved(&text, "n1");
    assert_eq!((node.as_number, node.max_paths, node.graceful_restart_time), (65000, 2, None));
    assert_eq!(node.listen.addresses, [IpAddr::from([192, 0, 2, 1])]);
}

#[test]
fn an_unknown_node_and_one_without_address() {
    let error = effective(&node(1, "", ""), "n2", Role::Node).unwrap_err();
    assert_eq!(error, "there is no Node named `n2` in the documents; there are: n1");
    let text = format!(
        "{}{}",
        document("Node", "name: bare", "{}"),
        document("BGPPeer", "name: p", "{peerIP: 192.0.2.2, asNumber: 64512, families: [ipv4, ipv6]}")
    );
    let bare = resolved(&text, "bare");
    assert_eq!(bare.peers[0].settings.families, [AddressFamily::Ipv4]);
    assert_eq!(bare.peers[0].settings.source, None);
    assert!(!bare.router_id.is_unspecified());
    assert_eq!(bare.notes.len(), 2, "{:?}", bare.notes);
}

#[test]
fn nodes_that_disagree_about_the_subnet_are_reported() {
    let text = format!(
        "{}{}",
        node(1, "", ""),
        document("Node", "name: n2", "{bgp: {ipv4Address: 192.0.2.200/32}}")
    );
    let lines = resolved(&text, "n1").subnet_mismatches;
    assert_eq!(lines, ["192.0.2.1/24 and 192.0.2.200/32 of node n2 disagree whether they share a subnet"]);
    assert_eq!(resolved(&text, "n2").subnet_mismatches.len(), 2);
}

#[test]
fn tunnels_have_their_settings_from_the_default_document() {
    let bare = resolved(&node(1, "", ""), "n1").tunnels;
    let expected = Tunnels { zone_label: None, zone: None, vxlan_vni: 4096, vxlan_port: 4789, endpoints: 0 };
    assert_eq!(bare, expected);
    let text = format!(
        "{}{}{}{}{}",
        node(1, "zone: a", ""),
        node(2, "zone: b", ", ipv6Address: \"2001:db8::2/64\""),
        node(3, "zone: \"\"", ""),
        document(
            "BGPConfiguration",
            "name: default",
            "{zoneLabel: zone, vxlanVNI: 7, vxlanPort: 8472, mtuMode: Uniform, clampMSS: true}"
        ),
        document("IPPool", "name: more", "{cidr: 10.9.0.0/16, vxlanMode: CrossSubnet, natOutgoing: true}"),
    );
    let n1 = resolved(&text, "n1");
    let expected = Tunnels {
        zone_label: Some("zone".to_owned()),
        zone: Some("a".to_owned()),
        vxlan_vni: 7,
        vxlan_port: 8472,
        endpoints: 3,
    };
    assert_eq!(n1.tunnels, expected);
    assert_eq!((n1.routes.mtu_mode, n1.routes.clamp_mss), (MtuMode::Uniform, true));
    let pool = n1.pools.iter().find(|pool| pool.name == "more").unwrap();
    assert_eq!((pool.ipip_mode, pool.vxlan_mode), (EncapMode::Never, EncapMode::CrossSubnet));
    assert!(pool.nat_outgoing);
    assert_eq!(resolved(&text, "n3").tunnels.zone, None, "an empty zone is none");
}

#[test]
fn what_is_printed_reads_like_the_documents() {
    let text =
        format!("{}{}", node(1, "", ""), document("BGPPeer", "name: p", "{peerIP: 192.0.2.2, asNumber: 1}"));
    let printed = serde_json::to_value(resolved(&text, "n1")).unwrap();
    assert_eq!(printed["gracefulRestartTime"], "120s");
    assert_eq!(printed["peers"][0]["distance"], serde_json::json!({"ttl": 1}));
    assert_eq!(printed["peers"][0]["remoteAs"], 1);
    assert_eq!(printed["blocks"][0]["cidr"], "10.244.1.0/24");
}

#[test]
fn passwords_are_not_printed() {
    let text = format!(
        "{}{}---\napiVersion: v1\nkind: Secret\nmetadata: {{name: s}}\nstringData: {{k: very-secret}}\n",
        node(1, "", ""),
        document(
            "BGPPeer",
            "name: p",
            "{peerIP: 192.0.2.2, asNumber: 1, password: {secretKeyRef: {name: s, key: k}}}"
        )
    );
    let node = resolved(&text, "n1");
    assert_eq!(node.peers[0].settings.password, Password::Key("very-secret".to_owned()));
    assert!(!format!("{node:?}{}", serde_json::to_string(&node).unwrap()).contains("very-secret"));
}
