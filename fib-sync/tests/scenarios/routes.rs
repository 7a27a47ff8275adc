//! Learned routes, pods, foreign routes, links, restarts.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use causeway_api::effective::HostRoute;
use causeway_api::fib::{Command, Event, Family, RouteState};
use causeway_fib_sync::config::Config;
use causeway_fib_sync::engine::Engine;
use causeway_fib_sync::local::Pod;
use causeway_kernel::mock::Failures;
use causeway_kernel::{Hint, NextHop, Refusal, Route, RouteChange, RouteKey};
use nix::errno::Errno;
use proptest::prelude::*;

use crate::world::{RESTART, World, config, failures, ip, network, under_every_failure, via};

fn announce(world: &mut World) -> Vec<Route> {
    world.group(1, &["192.0.2.2"]);
    world.group(2, &["192.0.2.2", "198.51.100.2"]);
    world.group(6, &["2001:db8:a::2"]);
    for n in 0..10 {
        world.route(&format!("10.{n}.0.0/16"), 1 + n % 2);
    }
    world.route("fd00:1::/32", 6);
    world.end_of_snapshot();
    let one = [("192.0.2.2", 2)];
    let both = [("192.0.2.2", 2), ("198.51.100.2", 3)];
    let mut routes: Vec<Route> =
        (0..10).map(|n| via(&format!("10.{n}.0.0/16"), if n % 2 == 0 { &one } else { &both })).collect();
    routes.push(via("fd00:1::/32", &[("2001:db8:a::2", 2)]));
    routes
}

#[test]
fn a_snapshot_and_changes_of_it() {
    under_every_failure(|world| {
        world.connect();
        let mut routes = announce(world);
        world.settle();
        world.expect(&routes);
        assert!(
            world.told().values().all(|state| matches!(state, RouteState::Installed { .. })),
            "{:?}",
            world.told()
        );
        world.withdraw("10.0.0.0/16");
        world.group(1, &["198.51.100.9"]);
        world.settle();
        routes.remove(0);
        for n in [2, 4, 6, 8] {
            routes[n - 1] = via(&format!("10.{n}.0.0/16"), &[("198.51.100.9", 3)]);
        }
        world.expect(&routes);
        assert_eq!(world.told()[&network("10.0.0.0/16")], RouteState::Removed);
    });
}

#[test]
fn what_others_do_to_our_routes_is_undone() {
    under_every_failure(|world| {
        world.connect();
        let routes = announce(world);
        world.settle();
        for route in &routes[..3] {
            world.kernel.by_others(&RouteChange::Delete { key: route.key, protocol: 179 }).unwrap();
        }
        world
            .kernel
            .by_others(&RouteChange::Replace(Route { mtu: Some(1300), ..routes[5].clone() }))
            .unwrap();
        let intruder = via("10.200.0.0/16", &[("192.0.2.2", 2)]);
        world.kernel.by_others(&RouteChange::Add(intruder)).unwrap();
        world.settle();
        world.expect(&routes);
    });
}

#[test]
fn links_that_fail_take_their_next_hops_along_and_bring_them_back() {
    under_every_failure(|world| {
        world.connect();
        let routes = announce(world);
        world.settle();
        let remaining: Vec<Route> = (0..10)
            .filter(|n| n % 2 == 1)
            .map(|n| via(&format!("10.{n}.0.0/16"), &[("198.51.100.2", 3)]))
            .collect();
        for admin in [true, false] {
            if admin {
                world.kernel.set_admin(2, false)
            } else {
                world.kernel.set_carrier(2, false)
            };
            world.settle();
            world.expect(&remaining);
            let state = &world.told()[&network("10.0.0.0/16")];
            assert_eq!(
                *state,
                RouteState::Pending {
                    reason: "next hop 192.0.2.2 unreachable: no live route to it".to_owned()
                }
            );
            if admin {
                world.kernel.set_admin(2, true)
            } else {
                world.kernel.set_carrier(2, true)
            };
            world.kernel.add_address(2, network("2001:db8:a::1/64"));
            world.settle();
            world.expect(&routes);
        }
        // Down and up between two looks: the routes are gone, and nothing said so.
        world.kernel.set_admin(2, false);
        world.kernel.set_admin(2, true);
        world.kernel.add_address(2, network("2001:db8:a::1/64"));
        world.settle();
        world.expect(&routes);
        world.kernel.remove_link(2);
        world.settle();
        world.expect(&remaining);
    });
}

#[test]
fn a_route_of_somebody_else_stays_whatever_happens() {
    under_every_failure(|world| {
        let foreign = Route { protocol: 12, ..via("10.0.0.0/16", &[("192.0.2.77", 2)]) };
        world.kernel.by_others(&RouteChange::Add(foreign.clone())).unwrap();
        world.connect();
        let routes = announce(world);
        world.settle();
        world.expect(&routes[1..]);
        assert_eq!(world.of_protocol(12), std::slice::from_ref(&foreign));
        let reason = "foreign route (proto bird)".to_owned();
        assert_eq!(world.told()[&network("10.0.0.0/16")], RouteState::Failed { reason });
        world.kernel.by_others(&RouteChange::Delete { key: foreign.key, protocol: 12 }).unwrap();
        world.settle();
        world.expect(&routes);
        // Somebody replaces a route of ours by one of theirs.
        world.kernel.by_others(&RouteChange::Replace(foreign.clone())).unwrap();
        world.settle();
        world.expect(&routes[1..]);
        assert_eq!(world.of_protocol(12), [foreign]);
    });
}

#[test]
fn restarts_delete_nothing_before_the_mark_or_the_time() {
    under_every_failure(|world| {
        world.connect();
        let routes = announce(world);
        world.settle();
        world.engine.disconnect(world.now);
        world.settle();
        world.expect(&routes);
        world.connect();
        world.settle();
        world.expect(&routes);
        world.group(1, &["192.0.2.2"]);
        world.route("10.0.0.0/16", 1);
        world.settle();
        world.expect(&routes);

        // fib-sync itself starts anew.
        world.engine = Engine::new(config(), world.objects, world.now);
        world.settle();
        world.expect(&routes);
        world.connect();
        world.group(1, &["192.0.2.2"]);
        world.route("10.0.0.0/16", 1);
        world.settle();
        world.expect(&routes);
        world.send(Command::EndOfSnapshot { family: Family::Ipv4 });
        world.settle();
        world.expect(&[routes[0].clone(), routes[10].clone()]);
        world.send(Command::EndOfSnapshot { family: Family::Ipv6 });
        world.settle();
        world.expect(&routes[..1]);

        world.engine.disconnect(world.now);
        world.now += RESTART;
        world.settle();
        world.expect(&[]);
    });
}

#[test]
fn pods_have_their_routes_as_long_as_they_are_on_record() {
    under_every_failure(|world| {
        let pod =
            |n: u8, device: &str| Pod { address: IpAddr::from([10, 244, 1, n]), device: device.to_owned() };
        let (one, two) = ("cw000000000001", "cw000000000002");
        // Found before the store was read: never deleted.
        world.kernel.add_link(11, one, &[]);
        let early = Route::pod(ip("10.244.1.1"), 11);
        world.kernel.by_others(&RouteChange::Add(early.clone())).unwrap();
        world.settle();
        world.expect(std::slice::from_ref(&early));
        world.set_pods(vec![pod(1, one), pod(2, two)]);
        world.settle();
        world.expect(std::slice::from_ref(&early));
        world.kernel.add_link(12, two, &[]);
        world.settle();
        let late = Route::pod(ip("10.244.1.2"), 12);
        world.expect(&[early.clone(), late.clone()]);
        // The device comes back under another index.
        world.kernel.remove_link(12);
        world.kernel.add_link(13, two, &[]);
        world.settle();
        let moved = Route::pod(ip("10.244.1.2"), 13);
        world.expect(&[early, moved.clone()]);
        world.set_pods(vec![pod(2, two)]);
        world.settle();
        world.expect(&[moved]);
    });
}

#[test]
fn a_changed_metric_moves_the_routes() {
    under_every_failure(|world| {
        world.connect();
        let routes = announce(world);
        world.settle();
        world.configure(Config { metric: 99, ..config() });
        world.settle();
        let moved: Vec<Route> = routes
            .iter()
            .map(|route| Route { key: RouteKey { metric: 99, ..route.key }, ..route.clone() })
            .collect();
        world.expect(&moved);
        world.configure(Config { protocol: 80, ..config() });
        world.settle();
        world.expect(&[]);
        let mut other: Vec<Route> =
            routes.iter().map(|route| Route { protocol: 80, ..route.clone() }).collect();
        assert_eq!(world.of_protocol(80), other);
        // The way to a peer behind a gateway bears the same number.
        let host = HostRoute { destination: ip("203.0.113.7"), gateway: ip("192.0.2.254") };
        world.configure(Config { protocol: 80, host_routes: vec![host], ..config() });
        world.settle();
        other.push(Route { protocol: 80, ..via("203.0.113.7/32", &[("192.0.2.254", 2)]) });
        other.sort_by_key(|route| route.key);
        assert_eq!(world.of_protocol(80), other);
        world.expect(&[]);
    });
}

#[derive(Debug, Clone)]
enum Act {
    Route(u8, u32),
    Withdraw(u8),
    Group(u32, Vec<u8>),
    Carrier(bool, bool),
    Admin(bool, bool),
    Stolen(u8),
    Foreign(u8),
    ForeignGone(u8),
    Reconnect,
}

fn act() -> impl Strategy<Value = Act> {
    let prefix = 0u8..6;
    prop_oneof![
        4 => (prefix.clone(), 1u32..4).prop_map(|(prefix, group)| Act::Route(prefix, group)),
        1 => prefix.clone().prop_map(Act::Withdraw),
        2 => (1u32..4, prop::collection::vec(0u8..4, 1..4)).prop_map(|(group, hops)| Act::Group(group, hops)),
        1 => (any::<bool>(), any::<bool>()).prop_map(|(link, up)| Act::Carrier(link, up)),
        1 => (any::<bool>(), any::<bool>()).prop_map(|(link, up)| Act::Admin(link, up)),
        1 => prefix.clone().prop_map(Act::Stolen),
        1 => prefix.clone().prop_map(Act::Foreign),
        1 => prefix.prop_map(Act::ForeignGone),
        1 => Just(Act::Reconnect),
    ]
}

proptest! {
    /// After any history the kernel holds what the last snapshot and the links amount to.
    #[test]
    fn any_history_ends_in_the_right_routes(acts in prop::collection::vec(act(), 0..25), settle in any::<u32>(), which in 0usize..10, objects in any::<bool>()) {
        let mut world = World::new(&failures()[which].1, objects);
        let hops = ["192.0.2.2", "192.0.2.3", "198.51.100.2", "203.0.113.9"];
        let mut groups: BTreeMap<u32, Vec<u8>> = BTreeMap::new();
        let mut wanted: BTreeMap<u8, u32> = BTreeMap::new();
        let mut foreign: BTreeMap<u8, Route> = BTreeMap::new();
        let mut up = [true; 2];
        let prefix = |n: u8| format!("10.{n}.0.0/16");
        world.connect();
        world.end_of_snapshot();
        for (n, act) in acts.into_iter().enumerate() {
            match act {
                Act::Group(group, members) => {
                    let names: Vec<&str> = members.iter().map(|hop| hops[usize::from(*hop)]).collect();
                    world.group(group, &names);
                    groups.insert(group, members);
                }
                Act::Route(n, group) => {
                    if groups.contains_key(&group) {
                        world.route(&prefix(n), group);
                        wanted.insert(n, group);
                    }
                }
                Act::Withdraw(n) => {
                    world.withdraw(&prefix(n));
                    wanted.remove(&n);
                }
                Act::Carrier(link, on) => {
                    let index = usize::from(link);
                    world.kernel.set_admin(2 + u32::from(link), true);
                    world.kernel.set_carrier(2 + u32::from(link), on);
                    up[index] = on;
                }
                Act::Admin(link, on) => {
                    world.kernel.set_admin(2 + u32::from(link), on);
                    up[usize::from(link)] = on;
                }
                Act::Stolen(n) => {
                    let key = RouteKey::ours(network(&prefix(n)));
                    let gone = world.kernel.by_others(&RouteChange::Delete { key, protocol: 179 });
                    let absent = Err(Refusal::new(Errno::ESRCH));
                    prop_assert!(gone == Ok(()) || gone == absent);
                }
                Act::Foreign(n) => {
                    let route = Route { protocol: 12, ..Route::unreachable(network(&prefix(n))) };
                    if world.kernel.by_others(&RouteChange::Add(route.clone())).is_ok() {
                        foreign.insert(n, route);
                    }
                }
                Act::ForeignGone(n) => {
                    if let Some(route) = foreign.remove(&n) {
                        world.kernel.by_others(&RouteChange::Delete { key: route.key, protocol: 12 }).unwrap();
                    }
                }
                Act::Reconnect => {
                    world.engine.disconnect(world.now);
                    world.connect();
                    for (group, members) in groups.clone() {
                        let names: Vec<&str> = members.iter().map(|hop| hops[usize::from(*hop)]).collect();
                        world.group(group, &names);
                    }
                    for (n, group) in wanted.clone() {
                        world.route(&prefix(n), group);
                    }
                    world.end_of_snapshot();
                }
            }
            if settle & (1 << (n % 32)) != 0 {
                world.settle();
            }
        }
        world.settle();
        let mut expected = Vec::new();
        for (n, group) in &wanted {
            let mut through: BTreeMap<(IpAddr, u32), u16> = BTreeMap::new();
            for hop in &groups[group] {
                let link = u32::from(*hop == 2);
                if *hop < 3 && up[link as usize] {
                    *through.entry((ip(hops[usize::from(*hop)]), 2 + link)).or_default() += 1;
                }
            }
            let single = through.len() == 1;
            let mut hops: Vec<NextHop> = through
                .into_iter()
                .map(|((gateway, index), weight)| NextHop {
                    weight: if single { 1 } else { weight },
                    ..NextHop::gateway(gateway, index)
                })
                .collect();
            hops.sort();
            if !hops.is_empty() && !foreign.contains_key(n) {
                expected.push(Route::unicast(network(&prefix(*n)), hops));
            }
        }
        world.expect(&expected);
        prop_assert_eq!(world.of_protocol(12), foreign.into_values().collect::<Vec<_>>());
    }
}

#[test]
fn next_hops_behind_a_learned_subnet_follow_it_and_outlive_a_restart() {
    under_every_failure(|world| {
        world.connect();
        world.group(1, &["192.0.2.2"]);
        world.group(2, &["10.7.0.9"]);
        world.route("10.100.0.0/16", 2);
        world.end_of_snapshot();
        world.settle();
        world.expect(&[]);
        world.route("10.7.0.0/24", 1);
        world.settle();
        let subnet = via("10.7.0.0/24", &[("192.0.2.2", 2)]);
        let behind = via("10.100.0.0/16", &[("192.0.2.2", 2)]);
        world.expect(&[subnet.clone(), behind.clone()]);
        world.group(1, &["198.51.100.2"]);
        world.settle();
        let moved =
            [via("10.7.0.0/24", &[("198.51.100.2", 3)]), via("10.100.0.0/16", &[("198.51.100.2", 3)])];
        world.expect(&moved);

        // fib-sync starts anew, and bgpd names what lies behind first: it must not fall into a hole.
        world.engine = Engine::new(config(), world.objects, world.now);
        world.settle();
        world.kernel.written.clear();
        world.connect();
        world.group(2, &["10.7.0.9"]);
        world.route("10.100.0.0/16", 2);
        world.settle();
        world.expect(&moved);
        world.group(1, &["198.51.100.2"]);
        world.route("10.7.0.0/24", 1);
        world.end_of_snapshot();
        world.settle();
        world.expect(&moved);
        assert_eq!(world.kernel.written, [], "nothing had to be written");
        world.withdraw("10.7.0.0/24");
        world.settle();
        world.expect(&[]);
    });
}

#[test]
fn bgpd_is_told_no_more_than_it_has_room_for_and_all_in_the_end() {
    let mut world = World::new(&Failures::default(), true);
    world.connect();
    world.group(1, &["192.0.2.2"]);
    for n in 0..100 {
        world.route(&format!("10.9.{n}.0/24"), 1);
    }
    world.end_of_snapshot();
    let mut told = 0;
    for round in 0..20 {
        world.engine.set_room(7);
        world.engine.step(&mut world.kernel, world.now);
        let events = world.engine.take_events();
        let statuses = events.iter().filter(|event| matches!(event, Event::Status { .. })).count();
        assert!(statuses <= 7, "{statuses} in round {round}");
        told += statuses;
        assert!(told == 100 || world.engine.untold(), "{told} told, and no word of the rest");
    }
    assert_eq!(told, 100);
    assert!(!world.engine.untold());
}

#[test]
fn an_ipv6_dump_that_others_disturb_is_not_believed_at_once() {
    let mut world = World::new(&Failures::default(), true);
    let foreign = |n: u16| {
        let route = via(&format!("fd00:{n:x}::/32"), &[("2001:db8:a::9", 2)]);
        Route { protocol: 4, key: RouteKey { metric: 1024, ..route.key }, ..route }
    };
    let others: Vec<RouteChange> = (0..40).map(|n| RouteChange::Add(foreign(n))).collect();
    world.kernel.as_another(|kernel| kernel.write(&others)).unwrap();
    world.connect();
    world.group(6, &["2001:db8:a::2"]);
    for n in 0..40 {
        world.route(&format!("fd00:{:x}::/32", 0x100 + n), 6);
    }
    world.end_of_snapshot();
    world.settle();
    let routes = world.of_protocol(179);
    world.kernel.written.clear();
    // While the routes are read, one that was shown goes: the kernel leaves another one out.
    for n in 0..40 {
        world.kernel.take_hints();
        world.engine.hint(&Hint::Overrun);
        let before = world.kernel.dumps;
        world.now += Duration::from_secs(1);
        while world.kernel.dumps < before + 2 {
            world.engine.step(&mut world.kernel, world.now);
        }
        let gone = foreign(n);
        let change = RouteChange::Delete { key: gone.key, protocol: 4 };
        world.kernel.by_others(&change).unwrap();
        world.run(Duration::from_secs(1));
    }
    assert_eq!(world.of_protocol(179), routes);
    assert_eq!(world.kernel.written, [], "no route of ours was thought to be lost");
}

#[test]
fn a_route_of_no_group_does_not_outlive_its_connection() {
    let mut world = World::new(&Failures::default(), true);
    world.connect();
    world.route("10.9.0.0/16", 7);
    world.settle();
    let state = &world.told()[&network("10.9.0.0/16")];
    assert!(matches!(state, RouteState::Failed { .. }), "{state:?}");
    assert_eq!(world.engine.numbers().routes.failed, 1);
    world.engine.disconnect(world.now);
    world.connect();
    world.end_of_snapshot();
    world.settle();
    assert!(world.engine.rows().iter().all(|row| row.prefix != network("10.9.0.0/16")));
    assert_eq!(world.engine.numbers().routes.failed, 0);
}
