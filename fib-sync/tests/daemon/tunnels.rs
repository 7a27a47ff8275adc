//! Tunnels on the kernel there is: what it takes where the modes of pools and the addresses of nodes do not go together.

use causeway_api::control::Via as ShownVia;
use causeway_api::fib::{RouteState, Via};
use causeway_kernel::{Kernel, NextHop, Route, TunnelKind, vtep_gateway, vtep_mac};

use crate::scene::{Bgpd, DOCUMENTS, Scene, eventually, ip, network};

/// The other node is on the link, which is where Linux takes no address of it for the gateway through a tunnel device.
#[test]
fn ipip_mode_between_ipv6_addresses_is_vxlan_with_a_gateway_linux_takes() {
    let mut scene = Scene::new();
    let tunnelled =
        DOCUMENTS.replace(r#"{cidr: "fd00:10::/32"}"#, r#"{cidr: "fd00:10::/32", ipipMode: Always}"#);
    let other = r#"---
apiVersion: causeway.dev/v1alpha1
kind: Node
metadata: {name: b}
spec: {bgp: {ipv6Address: "2001:db8:a::2/64"}, podCIDRs: ["fd00:10:2::/64"]}
"#;
    scene.write_documents(&format!("{tunnelled}{other}"));
    scene.start();
    // Before any route, because the other end may send first.
    let device = eventually("the device is there", || {
        scene.kernel.links().unwrap().into_iter().find(|link| link.name == "causeway-vxlan6")
    });
    let local = ip("2001:db8:a::1");
    assert_eq!(device.tunnel, Some(TunnelKind::Vxlan { local, vni: 4096, port: 4789 }));
    assert_eq!((device.mtu, device.mac), (1380, Some(vtep_mac(local))));

    let mut bgpd = Bgpd::connect(&scene);
    bgpd.group(1, &["2001:db8:a::2"]);
    let generation = bgpd.route("fd00:10:2::/64", 1);
    let installed = bgpd.status("fd00:10:2::/64", generation, |_| true);
    assert_eq!(installed, RouteState::Installed { via: Via::Vxlan });
    let (remote, gateway) = (ip("2001:db8:a::2"), vtep_gateway(ip("2001:db8:a::2")));
    let route = scene.route("fd00:10:2::/64").unwrap();
    let hop = NextHop { onlink: true, ..NextHop::gateway(gateway, device.index) };
    assert_eq!(route, Route { mtu: Some(1380), ..Route::unicast(network("fd00:10:2::/64"), vec![hop]) });
    let fdb = scene.kernel.fdb(device.index).unwrap();
    let fdb: Vec<_> = fdb.iter().map(|entry| (entry.mac, entry.remote)).collect();
    assert_eq!(fdb, [(vtep_mac(remote), remote)]);
    let row = scene.row("fd00:10:2::/64").unwrap();
    assert_eq!(row.via, Some(ShownVia::Vxlan));
    let reason = row.reason;
    assert!(
        reason.contains("VXLAN over IPv6 to b; IPv6 endpoint, so not IP-in-IP, because Linux"),
        "{reason}"
    );
}
