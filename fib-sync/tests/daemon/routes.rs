//! Learned routes: installed, guarded, healed, moved with links, never at the cost of others' routes.

use std::time::{Duration, Instant};

use causeway_api::control::{ConditionStatus, Via as ShownVia};
use causeway_api::fib::{Command, Event, GroupMember, NextHop as BgpNextHop, NextHopState, RouteState, Via};
use causeway_api::pod_store::{self, AllocationState};
use causeway_kernel::{Family, NextHop, Route, RouteChange, RouteKey, RouteKind, netns, sysctl};
use causeway_kernel::{Kernel, route::MAIN_TABLE, route::ROUTE_PROTOCOL};
use ipnetwork::IpNetwork;
use std::net::IpAddr;
use std::os::fd::AsFd;

use crate::scene::{Bgpd, DOCUMENTS, Scene, eventually, ip, network};

fn via(prefix: &str, hops: &[(&str, u32)]) -> Route {
    let hops = hops.iter().map(|(gateway, link)| NextHop::gateway(ip(gateway), *link)).collect();
    Route::unicast(network(prefix), hops)
}

#[test]
fn routes_come_change_and_go() {
    let mut scene = Scene::running();
    let [up0, up1] = scene.links;
    let mut bgpd = Bgpd::connect(&scene);
    assert_eq!(bgpd.kept, (false, false), "nothing was there to be kept");
    bgpd.group(1, &["192.0.2.2"]);
    bgpd.group(2, &["192.0.2.2", "198.51.100.2"]);
    bgpd.group(6, &["2001:db8:a::2", "2001:db8:b::2"]);
    let first = bgpd.route("10.1.0.0/16", 1);
    let second = bgpd.route("10.2.0.0/16", 2);
    let third = bgpd.route("fd00:10:2::/48", 6);
    let direct = RouteState::Installed { via: Via::Direct };
    assert_eq!(bgpd.status("10.1.0.0/16", first, |_| true), direct);
    assert_eq!(bgpd.status("10.2.0.0/16", second, |_| true), direct);
    assert_eq!(bgpd.status("fd00:10:2::/48", third, |_| true), direct);
    let multipath = via("10.2.0.0/16", &[("192.0.2.2", up0), ("198.51.100.2", up1)]);
    let multipath6 = via("fd00:10:2::/48", &[("2001:db8:a::2", up0), ("2001:db8:b::2", up1)]);
    scene.expect(vec![via("10.1.0.0/16", &[("192.0.2.2", up0)]), multipath.clone(), multipath6.clone()]);
    let row = scene.row("10.2.0.0/16").unwrap();
    assert_eq!((row.state.as_str(), row.via, row.next_hops.len()), ("installed", Some(ShownVia::Direct), 2));
    assert_eq!(row.next_hops[0].device.as_deref(), Some("up0"));

    // One message moves all routes of a group.
    bgpd.group(1, &["198.51.100.3"]);
    scene.expect(vec![via("10.1.0.0/16", &[("198.51.100.3", up1)]), multipath, multipath6]);
    bgpd.group(6, &["2001:db8:b::2"]);
    let gone = bgpd.withdraw("10.2.0.0/16");
    assert_eq!(bgpd.status("10.2.0.0/16", gone, |_| true), RouteState::Removed);
    scene.expect(vec![
        via("10.1.0.0/16", &[("198.51.100.3", up1)]),
        via("fd00:10:2::/48", &[("2001:db8:b::2", up1)]),
    ]);
    let unknown = bgpd.withdraw("10.99.0.0/16");
    assert_eq!(bgpd.status("10.99.0.0/16", unknown, |_| true), RouteState::Removed);
    assert_eq!(scene.metric("causeway_fib_routes_healed_total"), 0.0);
    assert_eq!(scene.terminate(), Some(0));
    assert_eq!(scene.learned().len(), 2, "routes outlive a daemon that ends");
}

#[test]
fn own_blocks_are_unreachable_and_the_mtu_is_the_underlays() {
    let mut scene = Scene::running();
    for block in ["10.244.1.0/24", "fd00:10:244:1::/64"] {
        let route = eventually("the block's route", || scene.route(block));
        assert_eq!(route, Route::unreachable(network(block)));
        let row = scene.row(block).unwrap();
        assert_eq!((row.via, row.state.as_str()), (Some(ShownVia::Local), "installed"));
    }
    let mtu = eventually("the MTU file", || pod_store::read_mtu(&scene.run_dir).unwrap());
    assert_eq!(mtu, 1450);
    let node = scene.show_node();
    assert_eq!((node.mtu, node.ipv4_address.as_deref()), (Some(1450), Some("192.0.2.1/24")));
    assert!(node.chosen.contains(&"mtu: up0 holds the node's address".to_owned()), "{:?}", node.chosen);

    // Other documents, other blocks, without a restart.
    scene.write_documents(&DOCUMENTS.replace("10.244.1.0/24", "10.244.7.0/24"));
    eventually("the new block's route", || scene.route("10.244.7.0/24"));
    eventually("the old block's route goes", || scene.route("10.244.1.0/24").is_none().then_some(()));
}

#[test]
fn what_the_documents_do_not_allow_is_refused() {
    let mut scene = Scene::running();
    let mut bgpd = Bgpd::connect(&scene);
    bgpd.group(1, &["192.0.2.2"]);
    for (prefix, why) in [
        ("0.0.0.0/0", "refused: no import rule accepts the default route with matchOperator Equal"),
        ("172.16.0.0/12", "refused: inside no enabled IPPool, service range or accepting import rule"),
        ("10.244.1.0/24", "refused: inside 10.244.1.0/24, a block of this node"),
        ("10.244.1.7/32", "refused: inside 10.244.1.0/24, a block of this node"),
        ("192.0.2.0/25", "refused: inside 192.0.2.0/24, connected on up0"),
        ("127.0.0.0/8", "refused: inside 127.0.0.0/8, loopback"),
    ] {
        let generation = bgpd.route(prefix, 1);
        let state = bgpd.status(prefix, generation, |_| true);
        assert_eq!(state, RouteState::Failed { reason: why.to_owned() }, "{prefix}");
        assert_eq!(
            scene.row(prefix).unwrap().state,
            if prefix == "10.244.1.0/24" { "installed".into() } else { format!("failed: {why}") }
        );
    }
    let unknown_group = bgpd.route("10.7.0.0/16", 77);
    assert!(matches!(bgpd.status("10.7.0.0/16", unknown_group, |_| true), RouteState::Failed { .. }));
    assert_eq!(scene.learned(), []);
    assert_eq!(scene.metric("causeway_fib_routes_refused_total"), 7.0);

    // A rule that allows it, and it is there.
    let rule = "---\napiVersion: causeway.dev/v1alpha1\nkind: BGPFilter\nmetadata: {name: d}\nspec: {importV4: [{cidr: 0.0.0.0/0, matchOperator: Equal, action: Accept}]}\n";
    scene.write_documents(&format!("{DOCUMENTS}{rule}"));
    let up0 = scene.links[0];
    scene.expect(vec![via("0.0.0.0/0", &[("192.0.2.2", up0)])]);
    scene.write_documents(DOCUMENTS);
    scene.expect(vec![]);
}

#[test]
fn deleted_changed_and_flushed_routes_are_back_within_a_second() {
    let mut scene = Scene::running();
    let up0 = scene.links[0];
    let mut bgpd = Bgpd::connect(&scene);
    bgpd.group(1, &["192.0.2.2"]);
    bgpd.group(6, &["2001:db8:a::2"]);
    let wanted: Vec<Route> = (0..50u8)
        .map(|n| via(&format!("10.{n}.0.0/16"), &[("192.0.2.2", up0)]))
        .chain((0..50u8).map(|n| via(&format!("fd00:10:{n:x}::/48"), &[("2001:db8:a::2", up0)])))
        .collect();
    for route in &wanted {
        let group = if route.key.destination.is_ipv4() { 1 } else { 6 };
        bgpd.route(&route.key.destination.to_string(), group);
    }
    bgpd.end_of_snapshot();
    scene.expect(wanted.clone());
    let healed = |scene: &Scene| scene.metric("causeway_fib_routes_healed_total");
    assert_eq!(healed(&scene), 0.0);

    let within_a_second = |scene: &mut Scene, what: &str| {
        let started = Instant::now();
        scene.expect(wanted.clone());
        let took = started.elapsed();
        println!("{what}: back after {took:?}");
        assert!(took < Duration::from_secs(1), "{what}: {took:?}");
    };
    scene.kernel.delete_route(&wanted[3].key, ROUTE_PROTOCOL).unwrap();
    within_a_second(&mut scene, "a deleted route");
    assert_eq!(healed(&scene), 1.0);
    let bent = via("10.4.0.0/16", &[("192.0.2.99", up0)]);
    scene.kernel.replace_route(&bent).unwrap();
    scene
        .kernel
        .replace_route(&Route { kind: RouteKind::Blackhole, next_hops: Vec::new(), ..wanted[60].clone() })
        .unwrap();
    within_a_second(&mut scene, "changed routes");
    assert_eq!(healed(&scene), 3.0);

    // What `ip route flush proto 179` does, blocks included.
    let mut ours = scene.routes();
    ours.retain(|route| route.protocol == ROUTE_PROTOCOL);
    assert_eq!(ours.len(), 102);
    let flush: Vec<_> =
        ours.iter().map(|route| RouteChange::Delete { key: route.key, protocol: ROUTE_PROTOCOL }).collect();
    assert!(scene.kernel.write(&flush).unwrap().iter().all(Result::is_ok));
    within_a_second(&mut scene, "a flush");
    eventually("the block is back", || scene.route("10.244.1.0/24"));
    eventually("all are counted", || (healed(&scene) == 105.0).then_some(()));
    let written = scene.metric("causeway_fib_netlink_changes_total");

    // A check that finds nothing wrong writes nothing: an event makes a dump, no more.
    let dumps = scene.metric("causeway_fib_netlink_dumps_total{outcome=\"ok\"}");
    scene.kernel.add_address(up0, network("203.0.113.1/24"), false).unwrap();
    eventually("a dump", || {
        (scene.metric("causeway_fib_netlink_dumps_total{outcome=\"ok\"}") > dumps).then_some(())
    });
    assert_eq!(scene.metric("causeway_fib_netlink_changes_total"), written);
}

#[test]
fn routes_of_others_are_never_touched() {
    let mut scene = Scene::running();
    let up0 = scene.links[0];
    let mut bgpd = Bgpd::connect(&scene);
    bgpd.group(1, &["192.0.2.2"]);
    bgpd.group(6, &["2001:db8:a::2"]);
    for (prefix, group, other) in [("10.1.0.0/16", 1, "192.0.2.9"), ("fd00:10:1::/48", 6, "2001:db8:a::9")] {
        let foreign = Route { protocol: 12, ..via(prefix, &[(other, up0)]) };
        let elsewhere = Route { key: RouteKey { metric: 20, ..foreign.key }, ..foreign.clone() };
        scene.kernel.add_route(&foreign).unwrap();
        scene.kernel.add_route(&elsewhere).unwrap();
        let generation = bgpd.route(prefix, group);
        let state = bgpd.status(prefix, generation, |_| true);
        assert_eq!(state, RouteState::Failed { reason: "foreign route (proto bird)".to_owned() });
        let shown = scene.row(prefix).unwrap().state;
        assert_eq!(shown, "failed: foreign route (proto bird)");
        bgpd.end_of_snapshot();
        let family = Family::of(&ip(other));
        let mut there = scene.kernel.routes(family, MAIN_TABLE).unwrap();
        there.retain(|route| route.key.destination == network(prefix));
        there.sort_by_key(|route| route.key.metric);
        assert_eq!(there, [elsewhere.clone(), foreign.clone()]);

        // It goes, and ours comes by itself.
        scene.kernel.delete_route(&foreign.key, 12).unwrap();
        bgpd.installed(prefix, generation);
        assert_eq!(scene.route(prefix).unwrap().protocol, ROUTE_PROTOCOL);

        // Somebody takes the key by force: it is theirs.
        scene.kernel.replace_route(&foreign).unwrap();
        bgpd.status(prefix, generation, |state| {
            *state == RouteState::Failed { reason: "foreign route (proto bird)".to_owned() }
        });
        assert_eq!(scene.route(prefix).unwrap(), foreign);
        let gone = bgpd.withdraw(prefix);
        assert_eq!(bgpd.status(prefix, gone, |_| true), RouteState::Removed);
        assert_eq!(scene.route(prefix).unwrap(), foreign);
    }
}

#[test]
fn routes_follow_links_that_lose_carrier_or_are_set_down() {
    let mut scene = Scene::running();
    let [up0, up1] = scene.links;
    let mut bgpd = Bgpd::connect(&scene);
    bgpd.group(1, &["192.0.2.2", "198.51.100.2"]);
    bgpd.group(2, &["192.0.2.2"]);
    bgpd.group(6, &["2001:db8:a::2", "2001:db8:b::2"]);
    bgpd.route("10.1.0.0/16", 1);
    let single = bgpd.route("10.2.0.0/16", 2);
    bgpd.route("fd00:10:1::/48", 6);
    bgpd.end_of_snapshot();
    let both = vec![
        via("10.1.0.0/16", &[("192.0.2.2", up0), ("198.51.100.2", up1)]),
        via("10.2.0.0/16", &[("192.0.2.2", up0)]),
        via("fd00:10:1::/48", &[("2001:db8:a::2", up0), ("2001:db8:b::2", up1)]),
    ];
    let one =
        vec![via("10.1.0.0/16", &[("198.51.100.2", up1)]), via("fd00:10:1::/48", &[("2001:db8:b::2", up1)])];
    scene.expect(both.clone());
    bgpd.send(&[Command::NextHopRegister { next_hop: BgpNextHop::global(ip("192.0.2.2")) }]);
    let reach = |bgpd: &mut Bgpd, reachable: bool| {
        bgpd.wait("the next hop's state", |event| match event {
            Event::NextHopState { state, .. } => {
                ((*state != NextHopState::Unreachable) == reachable).then_some(())
            }
            _ => None,
        });
    };
    reach(&mut bgpd, true);
    for carrier in [true, false, true, false] {
        let started = Instant::now();
        if carrier {
            scene.set_carrier(0, false)
        } else {
            scene.set_admin(0, false)
        };
        let down = bgpd.wait("link down", |event| match event {
            Event::LinkDown(link) => Some(link.clone()),
            _ => None,
        });
        println!("carrier {carrier}: link down told after {:?}", started.elapsed());
        assert_eq!((down.device.as_str(), down.ifindex), ("up0", up0));
        assert!(down.subnets.contains(&network("192.0.2.1/24")), "{down:?}");
        reach(&mut bgpd, false);
        let state = bgpd.status("10.2.0.0/16", single, |state| matches!(state, RouteState::Pending { .. }));
        assert_eq!(
            state,
            RouteState::Pending { reason: "next hop 192.0.2.2 unreachable: no live route to it".to_owned() }
        );
        scene.expect(one.clone());

        if carrier {
            scene.set_carrier(0, true)
        } else {
            scene.set_admin(0, true)
        };
        if !carrier {
            // Setting a link down took its IPv6 addresses.
            scene.kernel.add_address(up0, network("2001:db8:a::1/64"), true).unwrap();
        }
        reach(&mut bgpd, true);
        bgpd.installed("10.2.0.0/16", single);
        scene.expect(both.clone());
    }
    // Down and up again before anybody looks: the kernel says nothing about the IPv4 routes it dropped.
    for _ in 0..5 {
        scene.set_admin(1, false);
        scene.set_admin(1, true);
        if scene.kernel.add_address(scene.links[1], network("2001:db8:b::1/64"), true).is_err() {
            println!("the address was still there");
        }
        scene.expect(both.clone());
    }
}

#[test]
fn next_hops_are_answered_and_watched() {
    let mut scene = Scene::running();
    let [up0, up1] = scene.links;
    let default = Route { protocol: 4, ..via("0.0.0.0/0", &[("198.51.100.254", up1)]) };
    let default = Route { key: RouteKey { metric: 7, ..default.key }, ..default };
    let mut bgpd = Bgpd::connect(&scene);
    let answer = |bgpd: &mut Bgpd, address: &str, scope: u32| {
        let asked = BgpNextHop { address: ip(address), scope };
        bgpd.send(&[Command::NextHopRegister { next_hop: asked }]);
        bgpd.wait(address, |event| match event {
            Event::NextHopState { next_hop, state } if *next_hop == asked => Some(state.clone()),
            _ => None,
        })
    };
    let connected = NextHopState::Connected { device: "up0".to_owned(), ifindex: up0 };
    assert_eq!(answer(&mut bgpd, "192.0.2.2", 0), connected);
    assert_eq!(answer(&mut bgpd, "2001:db8:a::2", 0), connected);
    assert_eq!(answer(&mut bgpd, "fe80::2", up0), connected);
    assert_eq!(answer(&mut bgpd, "fe80::2", 0), NextHopState::Unreachable);
    assert_eq!(answer(&mut bgpd, "192.0.2.1", 0), NextHopState::Unreachable, "this node itself");
    assert_eq!(answer(&mut bgpd, "203.0.113.7", 0), NextHopState::Unreachable);
    scene.kernel.add_route(&default).unwrap();
    let gateway = NextHopState::Gateway {
        gateway: ip("198.51.100.254"),
        device: "up1".to_owned(),
        ifindex: up1,
        metric: 7,
    };
    bgpd.wait("the default route counts", |event| match event {
        Event::NextHopState { next_hop, state }
            if next_hop.address == ip("203.0.113.7") && *state == gateway =>
        {
            Some(())
        }
        _ => None,
    });
    // A direct route of ours carries next hops behind it, a recursive one does not.
    bgpd.group(1, &["192.0.2.2"]);
    bgpd.group(2, &["10.9.9.9"]);
    bgpd.group(4, &["10.8.8.8"]);
    let behind = bgpd.route("10.8.0.0/16", 2);
    assert_eq!(bgpd.status("10.8.0.0/16", behind, |_| true), RouteState::Installed { via: Via::Recursive });
    assert_eq!(scene.route("10.8.0.0/16"), Some(via("10.8.0.0/16", &[("198.51.100.254", up1)])));
    let cover = bgpd.route("10.9.0.0/16", 1);
    bgpd.installed("10.9.0.0/16", cover);
    let through_cover = NextHopState::Gateway {
        gateway: ip("192.0.2.2"),
        device: "up0".to_owned(),
        ifindex: up0,
        metric: 1790,
    };
    assert_eq!(answer(&mut bgpd, "10.9.9.9", 0), through_cover);
    eventually("the route follows its next hop", || {
        (scene.route("10.8.0.0/16") == Some(via("10.8.0.0/16", &[("192.0.2.2", up0)]))).then_some(())
    });
    let far = bgpd.route("10.6.0.0/16", 4);
    bgpd.installed("10.6.0.0/16", far);
    assert_eq!(scene.route("10.6.0.0/16"), Some(via("10.6.0.0/16", &[("198.51.100.254", up1)])));
    bgpd.withdraw("10.9.0.0/16");
    bgpd.wait("the default route counts again", |event| match event {
        Event::NextHopState { next_hop, state }
            if next_hop.address == ip("10.9.9.9") && *state == gateway =>
        {
            Some(())
        }
        _ => None,
    });
    eventually("the route follows its next hop back", || {
        (scene.route("10.8.0.0/16") == Some(via("10.8.0.0/16", &[("198.51.100.254", up1)]))).then_some(())
    });
    // An IPv6 route over a link-local next hop, and an IPv4 one over it too (RFC 8950).
    let member = GroupMember::plain(BgpNextHop { address: ip("fe80::9"), scope: up1 });
    bgpd.send(&[Command::Group { id: 3, members: vec![member], backups: Vec::new() }]);
    let v6 = bgpd.route("fd00:10:9::/48", 3);
    bgpd.installed("fd00:10:9::/48", v6);
    assert_eq!(scene.route("fd00:10:9::/48"), Some(via("fd00:10:9::/48", &[("fe80::9", up1)])));
    let v4 = bgpd.route("10.7.0.0/16", 3);
    bgpd.installed("10.7.0.0/16", v4);
    assert_eq!(scene.route("10.7.0.0/16"), Some(via("10.7.0.0/16", &[("fe80::9", up1)])));
}

#[test]
fn a_thousand_prefixes_are_there_within_a_second_and_gone_within_another() {
    let mut scene = Scene::running();
    let mut bgpd = Bgpd::connect(&scene);
    bgpd.group(1, &["192.0.2.2"]);
    bgpd.end_of_snapshot();
    let prefix = |n: u32| IpNetwork::new(IpAddr::from((0x0a80_0000 + (n << 8)).to_be_bytes()), 24).unwrap();
    for count in [1_000u32, 5_000] {
        let routes: Vec<Command> = (0..count)
            .map(|n| Command::Route { prefix: prefix(n), group: 1, generation: u64::from(n) })
            .collect();
        let started = Instant::now();
        bgpd.send(&routes);
        let mut left = count;
        bgpd.wait("all are installed", |event| {
            left -= u32::from(matches!(event, Event::Status { state: RouteState::Installed { .. }, .. }));
            (left == 0).then_some(())
        });
        let installed = started.elapsed();
        assert_eq!(scene.learned().len(), count as usize);
        let gone: Vec<Command> =
            (0..count).map(|n| Command::Withdraw { prefix: prefix(n), generation: u64::from(n) }).collect();
        let started = Instant::now();
        bgpd.send(&gone);
        let mut left = count;
        bgpd.wait("all are gone", |event| {
            left -= u32::from(matches!(event, Event::Status { state: RouteState::Removed, .. }));
            (left == 0).then_some(())
        });
        let removed = started.elapsed();
        println!("{count} prefixes: installed after {installed:?}, gone after {removed:?}");
        if count == 1_000 {
            assert!(installed < Duration::from_secs(1) && removed < Duration::from_secs(1));
        }
        assert_eq!(scene.learned(), []);
    }
}

#[test]
fn pods_on_record_have_routes_and_strays_a_grace() {
    let mut scene = Scene::running();
    let stray = scene.add_pod_device("cw000000000099");
    scene.kernel.add_route(&Route::pod(ip("10.244.1.99"), stray)).unwrap();
    let seen = Instant::now();
    scene.write_pods(&[("cw000000000001", &["10.244.1.5", "fd00:10:244:1::5"], AllocationState::Active)]);
    let row = eventually("the pod is waited for", || scene.row("10.244.1.5/32"));
    assert_eq!(row.reason, "waiting for device cw000000000001 of a local pod");
    assert_eq!(row.state, "pending");
    let device = scene.add_pod_device("cw000000000001");
    let stray_route = Route::pod(ip("10.244.1.99"), stray);
    let routes = [Route::pod(ip("10.244.1.5"), device), Route::pod(ip("fd00:10:244:1::5"), device)];
    scene.expect(vec![routes[0].clone(), stray_route.clone(), routes[1].clone()]);

    // A record that is being deleted wants no route any more, while the device is still there.
    scene.write_pods(&[("cw000000000001", &["10.244.1.5", "fd00:10:244:1::5"], AllocationState::Deleting)]);
    scene.expect(vec![stray_route.clone()]);
    scene.write_pods(&[("cw000000000001", &["10.244.1.5", "fd00:10:244:1::5"], AllocationState::Active)]);
    scene.expect(vec![routes[0].clone(), stray_route, routes[1].clone()]);
    scene.kernel.delete_route(&routes[0].key, ROUTE_PROTOCOL).unwrap();

    // The stray goes when its time is over, not before; a store that cannot be read changes nothing.
    let deadline = Instant::now() + Duration::from_secs(15);
    while scene.route("10.244.1.99/32").is_some() {
        assert!(Instant::now() < deadline, "the stray is still there");
        std::thread::sleep(Duration::from_millis(20));
    }
    let waited = seen.elapsed();
    assert!(waited >= Duration::from_secs(9), "the stray went after {waited:?}");
    scene.expect(routes.to_vec());
    let store = pod_store::PodStore::new(&scene.run_dir);
    std::fs::write(store.allocations_path(), "{").unwrap();
    pod_store::replace_file(&store.allocations_path(), b"{", 0o600).unwrap();
    eventually("the condition shows it", || {
        let conditions = scene.show_node().conditions;
        let store = conditions.into_iter().find(|condition| condition.kind == "PodStoreReadable").unwrap();
        (store.status == ConditionStatus::False).then_some(())
    });
    scene.expect(routes.to_vec());
}

#[test]
fn setup_node_sets_what_the_daemon_misses() {
    let scene = Scene::running();
    let sysctls = |scene: &Scene| {
        let conditions = scene.show_node().conditions;
        conditions.into_iter().find(|condition| condition.kind == "SysctlsSet").unwrap()
    };
    netns::run_in(scene.node.as_fd(), || {
        sysctl::write("net/ipv4/ip_forward", "0").unwrap();
        sysctl::write("net/ipv4/conf/up0/rp_filter", "1").unwrap();
        sysctl::write("net/ipv6/conf/up0/accept_ra", "1").unwrap();
    })
    .unwrap();
    let off = sysctls(&scene);
    assert_eq!(off.status, ConditionStatus::False);
    assert!(off.message.contains("net/ipv4/ip_forward is 0, should be 1"), "{}", off.message);

    let run = || {
        let mut program = std::process::Command::new(env!("CARGO_BIN_EXE_causeway-fib-sync"));
        program.arg("--setup-node");
        netns::run_in(scene.node.as_fd(), || program.output()).unwrap().unwrap()
    };
    let output = run();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{output:?}");
    for line in [
        "net/ipv4/ip_forward: 0 -> 1",
        "net/ipv4/conf/up0/rp_filter: 1 -> 2",
        "net/ipv6/conf/up0/accept_ra: 1 -> 2",
        "net/ipv6/conf/all/forwarding: 0 -> 1",
        "net/ipv4/fib_multipath_hash_policy: 0 -> 1",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
    assert_eq!(sysctls(&scene).status, ConditionStatus::True);
    let again = run();
    assert_eq!(String::from_utf8_lossy(&again.stdout), "nothing to change\n");
}

#[test]
fn a_peer_behind_a_gateway_gets_its_route_and_next_hops_resolve_through_it() {
    let mut scene = Scene::running();
    let [up0, _] = scene.links;
    let mut bgpd = Bgpd::connect(&scene);
    let peer = "apiVersion: causeway.dev/v1alpha1\nkind: BGPPeer\nmetadata: {name: far}\n\
                spec: {peerIP: 203.0.113.7, asNumber: 64601, ebgpMultihop: 3, reachableBy: 192.0.2.254}\n";
    scene.write_documents(&format!("{DOCUMENTS}\n---\n{peer}"));
    let route = eventually("the host route", || scene.route("203.0.113.7/32"));
    assert_eq!(route, via("203.0.113.7/32", &[("192.0.2.254", up0)]));
    let row = scene.row("203.0.113.7/32").unwrap();
    assert_eq!((row.via, row.state.as_str()), (Some(ShownVia::Direct), "installed"));
    // What the peer announces with itself as the next hop goes the same way.
    bgpd.group(1, &["203.0.113.7"]);
    let generation = bgpd.route("10.1.0.0/16", 1);
    let status =
        bgpd.status("10.1.0.0/16", generation, |state| matches!(state, RouteState::Installed { .. }));
    assert_eq!(status, RouteState::Installed { via: Via::Recursive });
    let learned = eventually("the learned route", || scene.route("10.1.0.0/16"));
    assert_eq!(learned, via("10.1.0.0/16", &[("192.0.2.254", up0)]));
    // The document goes, and the route with it.
    scene.write_documents(DOCUMENTS);
    eventually("the host route goes", || scene.route("203.0.113.7/32").is_none().then_some(()));
}

#[test]
fn a_backup_stands_by_without_a_bucket_and_takes_over_when_the_link_goes() {
    let mut scene = Scene::running();
    let [up0, up1] = scene.links;
    let mut bgpd = Bgpd::connect(&scene);
    let member = |address: &str| GroupMember::plain(BgpNextHop::global(ip(address)));
    let (members, backups) = (vec![member("192.0.2.2")], vec![member("198.51.100.2")]);
    bgpd.send(&[Command::Group { id: 1, members, backups }]);
    let last = (0..100u8).map(|n| bgpd.route(&format!("10.1.{n}.0/24"), 1)).last().unwrap();
    bgpd.installed("10.1.99.0/24", last);
    bgpd.end_of_snapshot();
    let weighted = |n: u8| {
        let mut route = via(&format!("10.1.{n}.0/24"), &[("192.0.2.2", up0), ("198.51.100.2", up1)]);
        route.next_hops[0].weight = 255;
        route
    };
    scene.expect((0..100).map(weighted).collect());
    let buckets = || {
        let mut program = std::process::Command::new("ip");
        program.args(["nexthop", "bucket", "list"]);
        let output = netns::run_in(scene.node.as_fd(), || program.output()).unwrap().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let word_after = |line: &str, word: &str| {
        let mut words = line.split_whitespace().skip_while(|found| *found != word);
        words.nth(1).map(str::to_owned)
    };
    // What each of 128 buckets leads to: one nexthop, not two.
    let lead_to: std::collections::BTreeSet<String> =
        buckets().lines().filter_map(|line| word_after(line, "nhid")).collect();
    assert_eq!(buckets().lines().count(), 128);
    assert_eq!(lead_to.len(), 1, "the standby has a bucket: {lead_to:?}");

    let written = scene.metric("causeway_fib_netlink_changes_total");
    scene.set_carrier(0, false);
    scene.expect((0..100).map(|n| via(&format!("10.1.{n}.0/24"), &[("198.51.100.2", up1)])).collect());
    assert_eq!(scene.metric("causeway_fib_netlink_changes_total"), written, "no route was written");
    assert_eq!(scene.row("10.1.7.0/24").unwrap().next_hops[0].gateway, Some(ip("198.51.100.2")));
    scene.set_carrier(0, true);
    scene.expect((0..100).map(weighted).collect());
}

#[test]
fn connections_of_a_pod_that_goes_are_forgotten_and_no_others() {
    let mut scene = Scene::running();
    let in_node = |program: &str, words: &str| {
        let mut command = std::process::Command::new(program);
        command.args(words.split(' '));
        let output = netns::run_in(scene.node.as_fd(), || command.output()).unwrap().unwrap();
        assert!(output.status.success(), "{program} {words}: {output:?}");
    };
    in_node("nft", "add table inet track");
    in_node("nft", "add chain inet track out { type filter hook output priority 0; }");
    in_node("nft", "add rule inet track out ct state new accept");
    let both = [
        ("cw000000000001", &["10.244.1.5"][..], AllocationState::Active),
        ("cw000000000002", &["10.244.1.6"][..], AllocationState::Active),
    ];
    let devices = [scene.add_pod_device("cw000000000001"), scene.add_pod_device("cw000000000002")];
    scene.write_pods(&both);
    scene.expect(vec![Route::pod(ip("10.244.1.5"), devices[0]), Route::pod(ip("10.244.1.6"), devices[1])]);
    let count = |scene: &Scene| -> usize {
        let read = || sysctl::read("net/netfilter/nf_conntrack_count");
        netns::run_in(scene.node.as_fd(), read).unwrap().unwrap().parse().unwrap()
    };
    let before = count(&scene);
    netns::run_in(scene.node.as_fd(), || {
        for (pod, ports) in [("10.244.1.5", 30), ("10.244.1.6", 20)] {
            for port in 0..ports {
                let socket = std::net::UdpSocket::bind("192.0.2.1:0").unwrap();
                socket.send_to(b"hello", (pod, 5000 + port)).unwrap();
            }
        }
    })
    .unwrap();
    assert_eq!(count(&scene), before + 50);
    scene.write_pods(&both[1..]);
    scene.expect(vec![Route::pod(ip("10.244.1.6"), devices[1])]);
    eventually("the connections are forgotten", || (count(&scene) == before + 20).then_some(()));
}
