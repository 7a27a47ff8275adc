//! The real kernel, each test in network namespaces of its own. Needs root.

#![allow(dead_code, reason = "not every test uses all of the scene")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

mod scene;

use std::net::IpAddr;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use causeway_kernel::route::{MAIN_TABLE, ROUTE_METRIC, ROUTE_PROTOCOL};
use causeway_kernel::{
    Family, Hint, Kernel, LinkChange, Mac, Monitor, Netlink, NextHop, NexthopKind, Route, RouteChange,
    RouteKey, RouteKind, Tunnel, TunnelKind, VethPair, netns, sysctl,
};
use ipnetwork::IpNetwork;
use nix::errno::Errno;
use scene::{HOST_MAC, PEER_MAC, Pair, ip, network, pair};

fn ours(kernel: &mut Netlink, family: Family) -> Vec<Route> {
    let mut routes = kernel.routes(family, MAIN_TABLE).unwrap();
    routes.retain(|route| route.protocol == ROUTE_PROTOCOL);
    routes.sort_by_key(|route| route.key);
    routes
}

#[test]
fn a_veth_is_born_in_both_namespaces_as_asked() {
    let mut pair = pair();
    let host = pair.host.link_by_name("up0").unwrap().unwrap();
    let peer = pair.peer.link_by_name("eth0").unwrap().unwrap();
    assert_eq!((host.mac, host.mtu, host.kind.as_deref()), (Some(HOST_MAC), 1400, Some("veth")));
    assert_eq!((peer.mac, peer.mtu, peer.admin_up), (Some(PEER_MAC), 1400, true));
    assert_eq!(host.peer, Some(peer.index));
    assert!(pair.host.links().unwrap().iter().any(|link| link.name == "lo" && link.loopback));

    let again = VethPair {
        name: "up0",
        mac: HOST_MAC,
        peer_name: "eth1",
        peer_mac: PEER_MAC,
        peer_netns: Some(pair.peer_ns.as_fd()),
        mtu: 1400,
    };
    assert!(pair.host.add_veth(&again).unwrap_err().exists());
    let taken_there = VethPair { name: "up1", peer_name: "eth0", ..again };
    assert!(pair.host.add_veth(&taken_there).unwrap_err().exists());
    assert_eq!(pair.host.link_by_name("up1").unwrap(), None, "half a pair stayed behind");

    pair.host.delete_link(host.index).unwrap();
    assert_eq!(pair.peer.link_by_name("eth0").unwrap(), None);
    assert!(pair.host.delete_link(host.index).unwrap_err().missing());
    assert!(pair.host.link_by_name("a-name-of-16-byt").is_err());
}

#[test]
fn links_change_and_carrier_shows() {
    let mut pair = pair();
    assert!(pair.host.link_by_name("up0").unwrap().unwrap().up());
    pair.peer.set_link(pair.peer_ifindex, &LinkChange { up: Some(false), ..LinkChange::default() }).unwrap();
    let host = pair.host.link_by_name("up0").unwrap().unwrap();
    assert!(host.admin_up && !host.running);
    let mac = Mac([2, 0, 0, 0, 9, 9]);
    let change = LinkChange { up: Some(false), mtu: Some(1300), mac: Some(mac), name: None };
    pair.host.set_link(pair.ifindex, &change).unwrap();
    // Older kernels give no new name in the message that sets a link down.
    let change = LinkChange { name: Some("renamed".to_owned()), ..LinkChange::default() };
    pair.host.set_link(pair.ifindex, &change).unwrap();
    let host = pair.host.link_by_name("renamed").unwrap().unwrap();
    assert_eq!((host.mtu, host.mac, host.admin_up), (1300, Some(mac), false));
}

#[test]
fn addresses_come_and_go() {
    let mut pair = pair();
    let mine = |pair: &mut Pair| {
        let mut all = pair.host.addresses().unwrap();
        all.retain(|address| address.ifindex == pair.ifindex && address.global);
        all
    };
    let before = mine(&mut pair);
    let networks: Vec<_> = before.iter().map(|address| address.network).collect();
    assert_eq!(networks, [network("192.0.2.1/24"), network("2001:db8::1/64")]);
    assert!(before.iter().all(|address| !address.tentative), "nodad was not taken: {before:?}");
    assert!(pair.host.add_address(pair.ifindex, network("192.0.2.1/24"), false).unwrap_err().exists());
    pair.host.delete_address(pair.ifindex, network("192.0.2.1/24")).unwrap();
    assert_eq!(mine(&mut pair).len(), 1);
    assert!(pair.host.delete_address(pair.ifindex, network("192.0.2.1/24")).unwrap_err().missing());
}

#[test]
fn what_is_written_is_what_a_dump_shows() {
    let mut pair = pair();
    let index = pair.ifindex;
    let routes = vec![
        Route::unicast(network("10.1.0.0/16"), vec![NextHop::gateway(ip("192.0.2.2"), index)]),
        Route::unicast(
            network("10.2.0.0/16"),
            vec![
                NextHop { weight: 3, ..NextHop::gateway(ip("192.0.2.3"), index) },
                NextHop::gateway(ip("192.0.2.2"), index),
            ],
        ),
        Route { mtu: Some(1280), ..Route::pod(ip("10.3.0.7"), index) },
        Route::unreachable(network("10.3.0.0/24")),
        Route { kind: RouteKind::Blackhole, ..Route::unreachable(network("10.4.0.0/24")) },
        // RFC 8950: IPv4 through an IPv6 router.
        Route::unicast(network("10.5.0.0/16"), vec![NextHop::gateway(ip("fe80::2"), index)]),
        Route::unicast(network("0.0.0.0/0"), vec![NextHop::gateway(ip("192.0.2.2"), index)]),
        Route::unicast(
            network("10.6.0.0/16"),
            vec![NextHop { onlink: true, ..NextHop::gateway(ip("198.51.100.1"), index) }],
        ),
    ];
    let mut v6 = vec![
        Route::unicast(network("fd00:1::/32"), vec![NextHop::gateway(ip("2001:db8::2"), index)]),
        Route::unicast(
            network("fd00:2::/32"),
            vec![NextHop::gateway(ip("2001:db8::2"), index), NextHop::gateway(ip("fe80::3"), index)],
        ),
        Route::pod(ip("fd00:3::7"), index),
        Route::unreachable(network("fd00:3::/64")),
        Route::unicast(network("::/0"), vec![NextHop::gateway(ip("fe80::2"), index)]),
    ];
    let changes: Vec<_> = routes.iter().chain(&v6).cloned().map(RouteChange::Add).collect();
    for (change, result) in changes.iter().zip(pair.host.write(&changes).unwrap()) {
        assert_eq!(result, Ok(()), "{change}");
    }
    let mut v4 = routes;
    v4.sort_by_key(|route| route.key);
    v6.sort_by_key(|route| route.key);
    assert_eq!(ours(&mut pair.host, Family::Ipv4), v4);
    assert_eq!(ours(&mut pair.host, Family::Ipv6), v6);

    // Deleting names key and protocol and takes every next hop.
    let changes: Vec<_> = v4
        .iter()
        .chain(&v6)
        .map(|route| RouteChange::Delete { key: route.key, protocol: ROUTE_PROTOCOL })
        .collect();
    assert!(pair.host.write(&changes).unwrap().iter().all(Result::is_ok));
    assert_eq!(ours(&mut pair.host, Family::Ipv4), []);
    assert_eq!(ours(&mut pair.host, Family::Ipv6), []);
}

#[test]
fn routes_of_others_stand_in_the_way_and_stay() {
    let mut pair = pair();
    for (destination, gateway) in [("10.1.0.0/16", "192.0.2.9"), ("fd00:1::/32", "2001:db8::9")] {
        let family = Family::of(&ip(gateway));
        let mine =
            Route::unicast(network(destination), vec![NextHop::gateway(ip("192.0.2.2"), pair.ifindex)]);
        let mine = match family {
            Family::Ipv4 => mine,
            Family::Ipv6 => {
                Route::unicast(network(destination), vec![NextHop::gateway(ip("2001:db8::2"), pair.ifindex)])
            }
        };
        let hop = NextHop::gateway(ip(gateway), pair.ifindex);
        let foreign = Route { protocol: 12, ..Route::unicast(network(destination), vec![hop]) };
        pair.host.add_route(&foreign).unwrap();

        assert!(pair.host.add_route(&mine).unwrap_err().exists());
        assert!(pair.host.delete_route(&mine.key, ROUTE_PROTOCOL).unwrap_err().missing());
        let other_metric = RouteKey { metric: ROUTE_METRIC + 1, ..foreign.key };
        assert!(pair.host.delete_route(&other_metric, 12).unwrap_err().missing());
        let mut all = pair.host.routes(family, MAIN_TABLE).unwrap();
        all.retain(|route| route.key == foreign.key);
        assert_eq!(all, std::slice::from_ref(&foreign));

        pair.host.delete_route(&foreign.key, 12).unwrap();
        pair.host.add_route(&mine).unwrap();
        let moved = Route { kind: RouteKind::Unreachable, next_hops: Vec::new(), ..mine.clone() };
        pair.host.replace_route(&moved).unwrap();
        assert_eq!(ours(&mut pair.host, family), [moved]);
        pair.host.replace_route(&mine).unwrap();
        assert_eq!(ours(&mut pair.host, family), [mine]);
    }
}

#[test]
fn a_multipath_route_is_replaced_as_a_whole() {
    let mut pair = pair();
    for (destination, gateways) in [
        ("10.1.0.0/16", ["192.0.2.2", "192.0.2.3", "192.0.2.4"]),
        ("fd00:1::/32", ["2001:db8::2", "2001:db8::3", "2001:db8::4"]),
    ] {
        let family = Family::of(&ip(gateways[0]));
        let through = |gateways: &[&str]| {
            let hops = gateways.iter().map(|gateway| NextHop::gateway(ip(gateway), pair.ifindex)).collect();
            Route::unicast(network(destination), hops)
        };
        let stages =
            [&gateways[..2], &gateways[1..], &gateways[..1], &gateways[..], &gateways[2..], &gateways[..2]];
        let stages: Vec<_> = stages.into_iter().map(through).collect();
        pair.host.add_route(&stages[0]).unwrap();
        for stage in &stages[1..] {
            pair.host.replace_route(stage).unwrap();
            assert_eq!(ours(&mut pair.host, family), std::slice::from_ref(stage));
        }
    }
}

#[test]
fn every_failure_in_a_batch_finds_its_change() {
    let mut pair = pair();
    let route = |n: u32| {
        let destination = IpNetwork::new(IpAddr::from((0x0a00_0000 + (n << 8)).to_be_bytes()), 24).unwrap();
        Route::unicast(destination, vec![NextHop::gateway(ip("192.0.2.2"), pair.ifindex)])
    };
    let tenth: Vec<_> = (0..2000).step_by(10).map(|n| RouteChange::Add(route(n))).collect();
    assert!(pair.host.write(&tenth).unwrap().iter().all(Result::is_ok));
    let started = Instant::now();
    let all: Vec<_> = (0..2000).map(|n| RouteChange::Add(route(n))).collect();
    let results = pair.host.write(&all).unwrap();
    println!("2000 adds, 200 of them refused: {:?}", started.elapsed());
    for (n, result) in results.iter().enumerate() {
        match result {
            Ok(()) => assert_ne!(n % 10, 0),
            Err(refusal) => assert!(n % 10 == 0 && refusal.errno == Errno::EEXIST, "{n}: {refusal}"),
        }
    }
    assert_eq!(ours(&mut pair.host, Family::Ipv4).len(), 2000);
    assert_eq!(pair.host.write(&[]).unwrap(), []);
}

#[test]
fn the_kernels_words_come_along() {
    let mut pair = pair();
    let nowhere =
        Route::unicast(network("10.1.0.0/16"), vec![NextHop::gateway(ip("198.51.100.1"), pair.ifindex)]);
    let error = pair.host.add_route(&nowhere).unwrap_err();
    assert_eq!(
        error.to_string(),
        "add route 10.1.0.0/16 metric 1790: Nexthop has invalid gateway (ENETUNREACH)"
    );
}

#[test]
fn permanent_neighbours() {
    let mut pair = pair();
    for address in ["192.0.2.2", "2001:db8::2", "fe80::1"] {
        pair.host.set_neighbour(pair.ifindex, ip(address), PEER_MAC).unwrap();
        pair.host.set_neighbour(pair.ifindex, ip(address), HOST_MAC).unwrap();
        let mut found = pair.host.neighbours().unwrap();
        found.retain(|neighbour| neighbour.address == ip(address));
        let [found] = &found[..] else { panic!("{address}: {found:?}") };
        assert_eq!((found.mac, found.permanent, found.ifindex), (Some(HOST_MAC), true, pair.ifindex));
        pair.host.delete_neighbour(pair.ifindex, ip(address)).unwrap();
        assert!(pair.host.delete_neighbour(pair.ifindex, ip(address)).unwrap_err().missing());
    }
}

#[test]
fn events_come_as_hints_and_our_own_routes_do_not() {
    let mut pair = pair();
    let port = pair.host.port().unwrap();
    let mut monitor = netns::run_in(pair.host_ns.as_fd(), || Monitor::open(port)).unwrap().unwrap();
    let route = Route::unicast(network("10.1.0.0/16"), vec![NextHop::gateway(ip("192.0.2.2"), pair.ifindex)]);
    // IPv6 address set-up goes on in the background, so only routes with our protocol number count here.
    let ours = |monitor: &mut Monitor| {
        let mut hints = monitor.drain().unwrap();
        hints.retain(|hint| matches!(hint, Hint::Route(route) if route.protocol == ROUTE_PROTOCOL));
        hints
    };
    pair.host.add_route(&route).unwrap();
    assert_eq!(ours(&mut monitor), [], "our own route came back");

    let mut other = Netlink::open_in(pair.host_ns.as_fd()).unwrap();
    other.delete_route(&route.key, ROUTE_PROTOCOL).unwrap();
    assert_eq!(ours(&mut monitor), [Hint::Route(Box::new(route))]);
    other.add_address(pair.ifindex, network("203.0.113.1/24"), false).unwrap();
    assert!(monitor.drain().unwrap().contains(&Hint::Address));
    other.set_link(pair.ifindex, &LinkChange { up: Some(false), ..LinkChange::default() }).unwrap();
    assert!(monitor.drain().unwrap().contains(&Hint::Link));
}

#[test]
fn sysctls_are_those_of_the_namespace() {
    let pair = pair();
    let key = "net/ipv4/ip_forward";
    let here = sysctl::read(key).unwrap();
    let changed = netns::run_in(pair.host_ns.as_fd(), || {
        sysctl::write(key, "0").unwrap();
        (sysctl::ensure(key, "1").unwrap(), sysctl::ensure(key, "1").unwrap(), sysctl::read(key).unwrap())
    })
    .unwrap();
    assert_eq!(changed, (true, false, "1".to_owned()));
    assert_eq!(sysctl::read(key).unwrap(), here, "the test's own namespace was changed");
    assert!(sysctl::read("net/ipv4/no_such_key").unwrap_err().to_string().contains("no_such_key"));
    assert!(!netns::same(pair.host_ns.as_fd(), pair.peer_ns.as_fd()).unwrap());
}

#[test]
fn neighbours_are_told_of_where_they_are_watched_and_objects_everywhere() {
    let mut pair = pair();
    let port = pair.host.port().unwrap();
    let mut monitor = netns::run_in(pair.host_ns.as_fd(), || Monitor::open(port)).unwrap().unwrap();
    let mut other = Netlink::open_in(pair.host_ns.as_fd()).unwrap();
    let vxlan = Tunnel {
        name: "vx".to_owned(),
        kind: TunnelKind::Vxlan { local: ip("192.0.2.1"), vni: 4096, port: 4789 },
        mtu: 1350,
        mac: Some(HOST_MAC),
    };
    let device = other.add_tunnel(&vxlan).unwrap();
    let of = |monitor: &mut Monitor, kind: &Hint| {
        monitor.drain().unwrap().iter().filter(|hint| *hint == kind).count()
    };
    of(&mut monitor, &Hint::Link);
    other.set_neighbour(device, ip("192.0.2.9"), PEER_MAC).unwrap();
    assert_eq!(of(&mut monitor, &Hint::Neighbour), 0, "no link is watched yet");

    monitor.watch_neighbours(&[4711, device]).unwrap();
    other.set_neighbour(pair.ifindex, ip("192.0.2.9"), PEER_MAC).unwrap();
    assert_eq!(of(&mut monitor, &Hint::Neighbour), 0, "another link's");
    other.set_neighbour(device, ip("fe80::9"), PEER_MAC).unwrap();
    assert_eq!(of(&mut monitor, &Hint::Neighbour), 1);
    other.delete_neighbour(device, ip("fe80::9")).unwrap();
    assert_eq!(of(&mut monitor, &Hint::Neighbour), 1);
    other.set_fdb(device, PEER_MAC, ip("198.51.100.1")).unwrap();
    assert_eq!(of(&mut monitor, &Hint::Neighbour), 1);
    pair.host.set_neighbour(device, ip("192.0.2.9"), HOST_MAC).unwrap();
    assert_eq!(of(&mut monitor, &Hint::Neighbour), 0, "our own");
    pair.host.delete_fdb(device, PEER_MAC, ip("198.51.100.1")).unwrap();
    assert_eq!(of(&mut monitor, &Hint::Neighbour), 1, "the kernel does not say whose it was");

    let hop = NexthopKind::single(Family::Ipv4, NextHop::gateway(ip("192.0.2.2"), pair.ifindex));
    let id = other.add_nexthop(&hop, ROUTE_PROTOCOL).unwrap();
    assert_eq!(of(&mut monitor, &Hint::Nexthop), 1);
    pair.host.delete_nexthop(id).unwrap();
    assert_eq!(of(&mut monitor, &Hint::Nexthop), 0, "our own");
}

#[test]
fn carrier_loss_takes_objects_and_their_routes_in_silence() {
    let mut pair = pair();
    let port = pair.host.port().unwrap();
    let hop = NexthopKind::single(Family::Ipv4, NextHop::gateway(ip("192.0.2.2"), pair.ifindex));
    let single = pair.host.add_nexthop(&hop, ROUTE_PROTOCOL).unwrap();
    let group = pair.host.add_nexthop(&NexthopKind::group(vec![(single, 1)], false), ROUTE_PROTOCOL).unwrap();
    let on = Route { nexthop_id: Some(group), ..Route::unicast(network("10.1.0.0/16"), Vec::new()) };
    let inline =
        Route::unicast(network("10.2.0.0/16"), vec![NextHop::gateway(ip("192.0.2.2"), pair.ifindex)]);
    pair.host.add_route(&on).unwrap();
    pair.host.add_route(&inline).unwrap();
    let mut monitor = netns::run_in(pair.host_ns.as_fd(), || Monitor::open(port)).unwrap().unwrap();
    pair.peer.set_link(pair.peer_ifindex, &LinkChange { up: Some(false), ..LinkChange::default() }).unwrap();
    // The kernel gets to it a moment later, by a second at most.
    let deadline = Instant::now() + Duration::from_secs(5);
    while pair.host.nexthops().unwrap() != Some(vec![]) {
        assert!(Instant::now() < deadline, "the object outlived the carrier");
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(ours(&mut pair.host, Family::Ipv4), [inline], "inline next hops stay");
    let hints = monitor.drain().unwrap();
    assert!(hints.contains(&Hint::Link), "{hints:?}");
    assert!(!hints.contains(&Hint::Nexthop), "{hints:?}");
}

#[test]
fn a_route_without_mtu_does_not_take_over_that_of_another_on_its_object() {
    let mut pair = pair();
    let hop = NexthopKind::single(Family::Ipv4, NextHop::gateway(ip("192.0.2.2"), pair.ifindex));
    let id = pair.host.add_nexthop(&hop, ROUTE_PROTOCOL).unwrap();
    let on = |destination: &str, mtu| Route {
        mtu,
        nexthop_id: Some(id),
        ..Route::unicast(network(destination), Vec::new())
    };
    pair.host.add_route(&on("10.1.0.0/16", Some(1300))).unwrap();
    pair.host.add_route(&on("10.2.0.0/16", None)).unwrap();
    pair.host.add_route(&on("10.3.0.0/16", Some(1300))).unwrap();
    pair.host.replace_route(&on("10.3.0.0/16", None)).unwrap();
    // A socket that wrote none of them learns it from a dump.
    let mut other = Netlink::open_in(pair.host_ns.as_fd()).unwrap();
    other.dump_start(Family::Ipv4, MAIN_TABLE).unwrap();
    while other.dump_next(&mut |_| {}).unwrap() {}
    other.add_route(&on("10.4.0.0/16", None)).unwrap();
    let mtus: Vec<_> = ours(&mut pair.host, Family::Ipv4).iter().map(|route| route.mtu).collect();
    assert_eq!(mtus, [Some(1300), None, None, None]);
}

/// A kind of device that kernels may lack. Where this one does, the refusal must be the one that is said to name it.
#[test]
fn an_ip_tunnel_is_made_seen_and_changed_or_said_to_be_lacking() {
    let mut pair = pair();
    let kind = |last: u8| TunnelKind::Ipip { local: [192, 0, 2, last].into() };
    let tunnel = Tunnel { name: "tun".to_owned(), kind: kind(1), mtu: 1360, mac: None };
    let index = match pair.host.add_tunnel(&tunnel) {
        Ok(index) => index,
        Err(error) => {
            assert!(error.unsupported(), "{error}");
            assert!(error.to_string().starts_with("create ipip tun: "), "{error}");
            return;
        }
    };
    let made = pair.host.link_by_name("tun").unwrap().unwrap();
    assert_eq!((made.tunnel, made.mtu, made.admin_up), (Some(kind(1)), 1360, true));
    assert_eq!(made.kind.as_deref(), Some("ipip"));
    let twin = Tunnel { name: "twin".to_owned(), ..tunnel.clone() };
    assert!(pair.host.add_tunnel(&twin).unwrap_err().exists());
    let changed = Tunnel { kind: kind(7), mtu: 1280, ..tunnel };
    pair.host.change_tunnel(index, &changed).unwrap();
    let made = pair.host.link_by_name("tun").unwrap().unwrap();
    assert_eq!((made.index, made.tunnel, made.mtu), (index, Some(kind(7)), 1280));
    let hop = NextHop { onlink: true, ..NextHop::gateway(ip("198.51.100.5"), index) };
    let id = pair.host.add_nexthop(&NexthopKind::single(Family::Ipv4, hop), ROUTE_PROTOCOL).unwrap();
    let route = Route { nexthop_id: Some(id), ..Route::unicast(network("10.1.0.0/16"), Vec::new()) };
    pair.host.add_route(&route).unwrap();
    pair.host.delete_link(index).unwrap();
    assert_eq!(ours(&mut pair.host, Family::Ipv4), [], "the route went with its device");
}
