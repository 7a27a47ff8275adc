//! Tunnels, nexthop objects, and what a change of either costs.

use std::time::Duration;

use causeway_api::control::ConditionStatus;
use causeway_api::fib::{Command, Family, GroupMember, NextHop as BgpNextHop, RouteState, Via};
use causeway_fib_sync::config::{Config, Endpoint, MtuMode, PoolMode};
use causeway_fib_sync::decision::{TunnelMode, When};
use causeway_fib_sync::engine::{Engine, MODE_DELAY};
use causeway_fib_sync::local::Pod;
use causeway_fib_sync::probe::OtherNode;
use causeway_fib_sync::tunnel::LINGER;
use causeway_kernel::mock::{Failures, Operation};
use causeway_kernel::{Kernel, LinkChange, NextHop, Route, TunnelKind, vtep_gateway, vtep_mac};

use crate::world::{World, config, failures, ip, network, via};

/// Every other node of the fabric is behind the router of the first link; three nodes, one on the link.
fn with_mode(mode: TunnelMode) -> Config {
    let pool = |cidr: &str, name: &str| PoolMode {
        cidr: network(cidr),
        name: name.to_owned(),
        mode,
        nat_outgoing: false,
    };
    let endpoint = |address: &str, node: &str| {
        let endpoint =
            Endpoint { node: node.to_owned(), zone: None, subnet: network(&format!("{address}/24")) };
        (ip(address), endpoint)
    };
    Config {
        pools: vec![pool("10.0.0.0/8", "pods"), pool("fd00::/16", "pods6")],
        endpoints: [
            endpoint("192.0.2.2", "near"),
            endpoint("203.0.113.3", "far"),
            endpoint("203.0.113.4", "farther"),
        ]
        .into(),
        ..config()
    }
}

const CROSS: TunnelMode = TunnelMode::Vxlan(When::CrossSubnet);

/// A node whose other subnets lie behind 192.0.2.254, with a route to each of the other nodes' blocks.
fn fabric(failures: &Failures, objects: bool, mode: TunnelMode) -> World {
    let mut world = World::with(failures, objects, with_mode(mode));
    let router = Route { protocol: 4, ..via("203.0.113.0/24", &[("192.0.2.254", 2)]) };
    world.kernel.as_another(|kernel| kernel.write(&[causeway_kernel::RouteChange::Add(router)])).unwrap();
    world.connect();
    world.group(1, &["192.0.2.2"]);
    world.group(2, &["203.0.113.3"]);
    world.route("10.2.0.0/16", 1);
    for n in 0..10 {
        world.route(&format!("10.3.{n}.0/24"), 2);
    }
    world.end_of_snapshot();
    world.settle();
    world
}

fn tunnelled(world: &World, gateway: &str, mtu: u32) -> Vec<Route> {
    let index = device(world, "causeway-vxlan").unwrap();
    let hop = NextHop { onlink: true, ..NextHop::gateway(ip(gateway), index) };
    (0..10)
        .map(|n| Route { mtu: Some(mtu), ..Route::unicast(network(&format!("10.3.{n}.0/24")), vec![hop]) })
        .collect()
}

fn device(world: &World, name: &str) -> Option<u32> {
    let mut kernel = world.kernel.clone();
    kernel.failures = Failures::default();
    kernel.links().unwrap().into_iter().find(|link| link.name == name).map(|link| link.index)
}

fn replaced(world: &World) -> usize {
    let operations = world.kernel.operations.iter();
    operations.filter(|operation| matches!(operation, Operation::ReplaceNexthop(..))).count()
}

#[test]
fn only_what_crosses_subnets_goes_into_the_tunnel() {
    for (name, failures) in failures() {
        for objects in [true, false] {
            println!("when {name}, nexthop objects: {objects}");
            let mut world = fabric(&failures, objects, CROSS);
            let mut expected = vec![via("10.2.0.0/16", &[("192.0.2.2", 2)])];
            expected.extend(tunnelled(&world, "203.0.113.3", 1450));
            world.expect(&expected);
            let told = world.told();
            assert_eq!(told[&network("10.2.0.0/16")], RouteState::Installed { via: Via::Direct });
            assert_eq!(told[&network("10.3.0.0/24")], RouteState::Installed { via: Via::Vxlan });

            world.kernel.failures = Failures::default();
            let index = device(&world, "causeway-vxlan").unwrap();
            let links = world.kernel.links().unwrap();
            let link = links.iter().find(|link| link.index == index).unwrap();
            let local = ip("192.0.2.1");
            assert_eq!(link.tunnel, Some(TunnelKind::Vxlan { local, vni: 4096, port: 4789 }));
            assert_eq!((link.mtu, link.mac), (1450, Some(vtep_mac(local))));
            let fdb = world.kernel.fdb(index).unwrap();
            let far = ip("203.0.113.3");
            assert_eq!(
                fdb.iter().map(|entry| (entry.mac, entry.remote)).collect::<Vec<_>>(),
                [(vtep_mac(far), far)]
            );
            let neighbours = world.kernel.neighbours().unwrap();
            let ours: Vec<_> = neighbours.iter().filter(|entry| entry.ifindex == index).collect();
            assert_eq!((ours.len(), ours[0].address, ours[0].mac), (1, far, Some(vtep_mac(far))));
            let addresses = world.kernel.addresses().unwrap();
            let own: Vec<_> = addresses.iter().filter(|address| address.ifindex == index).collect();
            assert_eq!((own.len(), own[0].network), (1, network("10.244.1.1/32")));
        }
    }
}

#[test]
fn what_somebody_does_to_the_tunnel_is_undone() {
    for (name, failures) in failures() {
        println!("when {name}");
        let mut world = fabric(&failures, true, CROSS);
        let expected = world.of_protocol(179);
        let index = device(&world, "causeway-vxlan").unwrap();
        let far = ip("203.0.113.3");
        world.kernel.as_another(|kernel| {
            kernel.delete_fdb(index, vtep_mac(far), far).unwrap();
            kernel.set_fdb(index, vtep_mac(ip("192.0.2.99")), ip("192.0.2.99")).unwrap();
            kernel.delete_neighbour(index, far).unwrap();
            kernel.delete_address(index, network("10.244.1.1/32")).unwrap();
        });
        world.settle();
        world.kernel.failures = Failures::default();
        let fdb = world.kernel.fdb(index).unwrap();
        assert_eq!(fdb.len(), 1);
        assert_eq!((fdb[0].mac, fdb[0].remote), (vtep_mac(far), far));
        assert!(world.kernel.neighbours().unwrap().iter().any(|entry| entry.address == far));
        world.kernel.as_another(|kernel| kernel.delete_link(index).unwrap());
        world.settle();
        let again = device(&world, "causeway-vxlan").unwrap();
        let expected: Vec<Route> = expected
            .into_iter()
            .map(|mut route| {
                for hop in route.next_hops.iter_mut().filter(|hop| hop.ifindex == index) {
                    hop.ifindex = again;
                }
                route
            })
            .collect();
        assert_eq!(world.of_protocol(179), expected);
    }
}

#[test]
fn a_switched_mode_moves_an_object_and_not_its_routes_one_by_one() {
    let mut world = fabric(&Failures::default(), true, CROSS);
    world.kernel.operations.clear();
    world.kernel.written.clear();
    world.configure(with_mode(TunnelMode::Ipip(When::CrossSubnet)));
    world.run(MODE_DELAY / 2);
    // The device is there before anything is sent into it.
    assert!(device(&world, "causeway-ipip").is_some());
    assert_eq!(world.kernel.written, []);
    world.run(MODE_DELAY);
    assert_eq!(replaced(&world), 1, "{:?}", world.kernel.operations);
    assert_eq!(world.kernel.written.len(), 10, "the routes' MTU is another");
    let index = device(&world, "causeway-ipip").unwrap();
    for route in world.of_protocol(179).iter().filter(|route| route.key.destination.prefix() == 24) {
        if route.kind == causeway_kernel::RouteKind::Unicast {
            let hop = NextHop { onlink: true, ..NextHop::gateway(ip("203.0.113.3"), index) };
            assert_eq!((&route.next_hops[..], route.mtu), (&[hop][..], Some(1480)));
        }
    }
    // The old device stays for those who have not heard, and then goes.
    assert!(device(&world, "causeway-vxlan").is_some());
    world.run(2 * LINGER);
    assert_eq!(device(&world, "causeway-vxlan"), None);
    world.configure(with_mode(TunnelMode::Never));
    world.settle();
    let expected: Vec<Route> = std::iter::once(via("10.2.0.0/16", &[("192.0.2.2", 2)]))
        .chain((0..10).map(|n| via(&format!("10.3.{n}.0/24"), &[("192.0.2.254", 2)])))
        .collect();
    world.expect(&expected);
    world.run(2 * LINGER);
    assert_eq!(device(&world, "causeway-ipip"), None);
}

#[test]
fn a_lost_next_hop_costs_one_message_whatever_hangs_on_it() {
    for backups in [false, true] {
        let mut world = World::new(&Failures::default(), true);
        world.connect();
        let member = |address: &str| GroupMember::plain(BgpNextHop::global(ip(address)));
        let (first, second) = (member("192.0.2.2"), member("198.51.100.2"));
        let (members, backups) = match backups {
            true => (vec![first], vec![second]),
            false => (vec![first, second], Vec::new()),
        };
        world.send(Command::Group { id: 1, members, backups });
        for n in 0..200 {
            world.route(&format!("10.9.{n}.0/24"), 1);
        }
        world.end_of_snapshot();
        world.settle();
        world.kernel.operations.clear();
        world.kernel.written.clear();
        // The link is there, the router is not: bgpd says so.
        world.group(1, &["198.51.100.2"]);
        world.run(Duration::from_secs(1));
        assert_eq!(world.kernel.written, []);
        assert_eq!(replaced(&world), 1, "{:?}", world.kernel.operations);
        let expected: Vec<Route> =
            (0..200).map(|n| via(&format!("10.9.{n}.0/24"), &[("198.51.100.2", 3)])).collect();
        let mut expected = expected;
        expected.sort_by_key(|route| route.key);
        world.expect(&expected);
    }
}

#[test]
fn a_backup_serves_while_no_member_resolves() {
    for (name, failures) in failures() {
        println!("when {name}");
        let mut world = World::new(&failures, true);
        world.connect();
        let member = |address: &str| GroupMember::plain(BgpNextHop::global(ip(address)));
        let (members, backups) = (vec![member("192.0.2.2")], vec![member("198.51.100.2")]);
        world.send(Command::Group { id: 1, members, backups });
        world.route("10.9.0.0/16", 1);
        world.end_of_snapshot();
        world.settle();
        // The backup is in the group with no bucket to its name.
        let mut ready = via("10.9.0.0/16", &[("192.0.2.2", 2), ("198.51.100.2", 3)]);
        ready.next_hops[0].weight = 255;
        world.expect(std::slice::from_ref(&ready));
        world.kernel.written.clear();
        world.kernel.set_carrier(2, false);
        world.expect(&[via("10.9.0.0/16", &[("198.51.100.2", 3)])]);
        world.settle();
        world.expect(&[via("10.9.0.0/16", &[("198.51.100.2", 3)])]);
        assert_eq!(world.kernel.written, [], "the kernel had the backup at hand");
        world.kernel.set_carrier(2, true);
        world.settle();
        world.expect(std::slice::from_ref(&ready));
        world.withdraw("10.9.0.0/16");
        world.send(Command::GroupDelete { id: 1 });
        world.settle();
        world.kernel.failures = Failures::default();
        let left = world.kernel.nexthops().unwrap().unwrap();
        assert_eq!(left, [], "nothing of ours is left behind");
    }
}

#[test]
fn a_kernel_without_the_device_keeps_all_other_routes() {
    let config = with_mode(TunnelMode::Ipip(When::CrossSubnet));
    let mut world = World::new(&Failures::default(), true);
    world.kernel.lacks.kinds.insert("ipip");
    world.configure(config);
    let router = Route { protocol: 4, ..via("203.0.113.0/24", &[("192.0.2.254", 2)]) };
    world.kernel.as_another(|kernel| kernel.write(&[causeway_kernel::RouteChange::Add(router)])).unwrap();
    world.connect();
    world.group(1, &["192.0.2.2"]);
    world.group(2, &["203.0.113.3"]);
    world.route("10.2.0.0/16", 1);
    world.route("10.3.0.0/16", 2);
    world.end_of_snapshot();
    world.run(2 * MODE_DELAY);
    world.expect(&[via("10.2.0.0/16", &[("192.0.2.2", 2)])]);
    let RouteState::Pending { reason } = &world.told()[&network("10.3.0.0/16")] else {
        panic!("{:?}", world.told())
    };
    assert!(reason.contains("modprobe ipip"), "{reason}");
    let node = world.engine.node();
    let condition = node.conditions.iter().find(|condition| condition.kind == "TunnelDevices").unwrap();
    assert_eq!(condition.status, ConditionStatus::False);
    assert!(condition.message.contains("modprobe ipip"), "{}", condition.message);
    // The module is loaded.
    world.kernel.lacks.kinds.clear();
    world.run(Duration::from_secs(10));
    assert_eq!(
        world.told()[&network("10.3.0.0/16")],
        RouteState::Installed { via: Via::Ipip },
        "without a restart"
    );
}

#[test]
fn ipip_mode_is_vxlan_between_ipv6_addresses() {
    let ipip = with_mode(TunnelMode::Ipip(When::CrossSubnet));
    let far = Endpoint { node: "far6".to_owned(), zone: None, subnet: network("2001:db8:c::3/64") };
    let mut endpoints = ipip.endpoints.clone();
    endpoints.insert(ip("2001:db8:c::3"), far);
    let addresses = vec![network("192.0.2.1/24"), network("2001:db8:a::1/64")];
    let config = Config { addresses, endpoints, ..ipip };
    for (name, failures) in failures() {
        for objects in [true, false] {
            println!("when {name}, nexthop objects: {objects}");
            let mut world = World::with(&failures, objects, config.clone());
            // The other end may send first: both are there before any route.
            assert!(device(&world, "causeway-ipip").is_some());
            let index = device(&world, "causeway-vxlan6").unwrap();
            let router = Route { protocol: 4, ..via("2001:db8:c::/64", &[("2001:db8:a::fe", 2)]) };
            let add = causeway_kernel::RouteChange::Add(router);
            world.kernel.as_another(|kernel| kernel.write(&[add])).unwrap();
            world.connect();
            world.group(2, &["2001:db8:c::3"]);
            world.route("fd00:3::/48", 2);
            world.route("10.3.0.0/16", 2);
            world.end_of_snapshot();
            world.settle();
            let gateway = vtep_gateway(ip("2001:db8:c::3"));
            let hop = NextHop { onlink: true, ..NextHop::gateway(gateway, index) };
            let tunnelled = |prefix| Route { mtu: Some(1430), ..Route::unicast(network(prefix), vec![hop]) };
            world.expect(&[tunnelled("10.3.0.0/16"), tunnelled("fd00:3::/48")]);
            let told = world.told();
            assert_eq!(told[&network("fd00:3::/48")], RouteState::Installed { via: Via::Vxlan });
        }
    }
}

#[test]
fn an_ipv4_pool_asks_for_a_device_over_ipv6_where_a_node_has_no_ipv4_address() {
    let node = |addresses: &[&str]| OtherNode {
        name: "b".to_owned(),
        addresses: addresses.iter().map(|address| ip(address)).collect(),
        blocks: Vec::new(),
    };
    let here = vec![network("192.0.2.1/24"), network("2001:db8:a::1/64")];
    for (mode, over_ipv4) in [
        (TunnelMode::Ipip(When::CrossSubnet), "causeway-ipip"),
        (TunnelMode::Vxlan(When::CrossSubnet), "causeway-vxlan"),
    ] {
        for (other, over_ipv6) in [
            (node(&["203.0.113.3", "2001:db8:c::3"]), false),
            (node(&["203.0.113.3"]), false),
            (node(&[]), false),
            (node(&["2001:db8:c::3"]), true),
        ] {
            let Config { mut pools, .. } = with_mode(mode);
            pools.retain(|pool| pool.cidr.is_ipv4());
            let config =
                Config { addresses: here.clone(), others: vec![other.clone()], pools, ..with_mode(mode) };
            let world = World::with(&Failures::default(), true, config);
            assert!(device(&world, over_ipv4).is_some(), "{mode} {other:?}");
            assert_eq!(device(&world, "causeway-vxlan6").is_some(), over_ipv6, "{mode} {other:?}");
        }
    }
}

#[test]
fn ipv6_pods_go_over_the_outer_family_of_their_next_hop() {
    let mut world = World::with(&Failures::default(), true, with_mode(CROSS));
    let router = Route { protocol: 4, ..via("203.0.113.0/24", &[("192.0.2.254", 2)]) };
    world.kernel.as_another(|kernel| kernel.write(&[causeway_kernel::RouteChange::Add(router)])).unwrap();
    world.connect();
    world.group(2, &["203.0.113.3"]);
    world.route("fd00:3::/48", 2);
    world.send(Command::EndOfSnapshot { family: Family::Ipv6 });
    world.run(Duration::from_secs(2));
    let index = device(&world, "causeway-vxlan").unwrap();
    let hop = NextHop { onlink: true, ..NextHop::gateway(vtep_gateway(ip("203.0.113.3")), index) };
    let route = Route { mtu: Some(1450), ..Route::unicast(network("fd00:3::/48"), vec![hop]) };
    world.expect(&[route]);
}

#[test]
fn the_mtu_follows_the_link_the_outer_packets_use() {
    for (name, failures) in failures() {
        println!("when {name}");
        let mut world = fabric(&failures, true, CROSS);
        let direct = via("10.2.0.0/16", &[("192.0.2.2", 2)]);
        for (link, inner) in [(9000, 8950), (1400, 1350), (1500, 1450)] {
            let change = LinkChange { mtu: Some(link), ..LinkChange::default() };
            world.kernel.as_another(|kernel| kernel.set_link(2, &change)).unwrap();
            world.settle();
            let mut expected = vec![direct.clone()];
            expected.extend(tunnelled(&world, "203.0.113.3", inner));
            world.expect(&expected);
            world.kernel.failures = Failures::default();
            let links = world.kernel.links().unwrap();
            let device = links.iter().find(|link| link.name == "causeway-vxlan").unwrap();
            assert_eq!(device.mtu, inner, "the device as well");
            assert_eq!(world.engine.pod_mtu().0, link, "pods have the link's MTU, not the tunnel's");
            world.configure(Config { mtu_mode: MtuMode::Uniform, ..with_mode(CROSS) });
            assert_eq!(world.engine.pod_mtu().0, inner, "unless all are to have the least");
            world.configure(with_mode(CROSS));
        }
    }
}

#[test]
fn pods_that_have_an_older_mtu_are_listed() {
    let mut world = fabric(&Failures::default(), true, CROSS);
    world.kernel.add_link(11, "cw000000000001", &[]);
    world.set_pods(vec![Pod { address: ip("10.244.1.7"), device: "cw000000000001".to_owned() }]);
    world.settle();
    let condition = |world: &World| {
        let conditions = world.engine.node().conditions;
        conditions.into_iter().find(|condition| condition.kind == "PodMtu").unwrap()
    };
    assert_eq!(condition(&world).status, ConditionStatus::True);
    let change = LinkChange { mtu: Some(9000), ..LinkChange::default() };
    world.kernel.as_another(|kernel| kernel.set_link(2, &change)).unwrap();
    world.settle();
    let found = condition(&world);
    assert_eq!(found.status, ConditionStatus::False);
    assert!(found.message.contains("10.244.1.7 (cw000000000001) has 1500"), "{}", found.message);
}

#[test]
fn what_kept_routes_need_of_a_tunnel_is_kept_with_them() {
    for (name, failures) in failures() {
        println!("when {name}");
        let mut world = fabric(&failures, true, CROSS);
        let routes = world.of_protocol(179);
        let index = device(&world, "causeway-vxlan").unwrap();
        // fib-sync starts anew, and bgpd is not back yet.
        world.engine = Engine::new(with_mode(CROSS), true, world.now);
        world.settle();
        assert_eq!(world.of_protocol(179), routes);
        world.kernel.failures = Failures::default();
        assert_eq!(world.kernel.fdb(index).unwrap().len(), 1, "packets still find the other end");
        assert_eq!(world.kernel.neighbours().unwrap().len(), 1);
        world.connect();
        world.end_of_snapshot();
        world.settle();
        world.expect(&[]);
        world.kernel.failures = Failures::default();
        assert_eq!(world.kernel.fdb(index).unwrap(), [], "nothing leads there any more");
        assert_eq!(world.kernel.neighbours().unwrap(), []);
    }
}

#[test]
fn a_device_nobody_asks_for_goes_when_nothing_leads_through_it_and_is_waited_for_in_peace() {
    let mut world = fabric(&Failures::default(), true, CROSS);
    let index = device(&world, "causeway-vxlan").unwrap();
    // fib-sync starts anew without the pools' mode, and bgpd is away: the routes into the tunnel are kept.
    world.engine = Engine::new(with_mode(TunnelMode::Never), true, world.now);
    world.run(3 * LINGER);
    assert_eq!(device(&world, "causeway-vxlan"), Some(index), "kept routes lead through it");
    world.connect();
    world.end_of_snapshot();
    world.run(2 * LINGER);
    assert_eq!(device(&world, "causeway-vxlan"), None);

    // Somebody deletes one that only waits for its end.
    world.configure(with_mode(CROSS));
    world.run(2 * MODE_DELAY);
    world.configure(with_mode(TunnelMode::Never));
    world.run(LINGER / 2);
    let index = device(&world, "causeway-vxlan").unwrap();
    world.kernel.as_another(|kernel| kernel.delete_link(index).unwrap());
    world.run(3 * LINGER);
    assert_eq!(device(&world, "causeway-vxlan"), None);
}
