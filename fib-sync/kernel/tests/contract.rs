//! The same story told to the real kernel, in a network namespace, and to the mock: both must answer alike, because
//! what decides over the kernel is tested over the mock alone. Needs root.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]
#![allow(dead_code, reason = "not every test uses all of the scene")]

mod scene;

use causeway_kernel::mock::MockKernel;
use causeway_kernel::route::{MAIN_TABLE, ROUTE_PROTOCOL};
use causeway_kernel::{
    Error, Family, Kernel, Mac, NextHop, Nexthop, NexthopKind, Route, RouteChange, RouteKey, RouteKind,
    Tunnel, TunnelKind,
};
use ipnetwork::IpNetwork;
use nix::errno::Errno;
use scene::{down, ip, network, pair, up};

/// Tells the story to both; `link` is a device that is up and has 192.0.2.1/24 and 2001:db8::1/64.
fn both(story: fn(&mut dyn Kernel, u32, &str)) {
    let mut mock = MockKernel::new();
    mock.chunk = 300;
    mock.add_link(2, "up0", &[network("192.0.2.1/24"), network("2001:db8::1/64")]);
    story(&mut mock, 2, "mock");
    let mut pair = pair();
    let ifindex = pair.ifindex;
    story(&mut pair.host, ifindex, "Linux");
}

fn errno<T: std::fmt::Debug>(result: Result<T, Error>) -> Errno {
    match result {
        Err(Error::Refused { refusal, .. }) => refusal.errno,
        other => panic!("not refused: {other:?}"),
    }
}

fn write(kernel: &mut dyn Kernel, change: RouteChange) -> Result<(), Errno> {
    kernel.write(&[change]).unwrap().remove(0).map_err(|refusal| refusal.errno)
}

fn on(destination: &str, id: u32) -> Route {
    Route { nexthop_id: Some(id), ..Route::unicast(network(destination), Vec::new()) }
}

/// Ours of both families: destination, object, and what is shown of the next hops.
fn ours(kernel: &mut dyn Kernel) -> Vec<(IpNetwork, Option<u32>, Vec<NextHop>)> {
    let mut found = Vec::new();
    for family in Family::ALL {
        found.extend(kernel.routes(family, MAIN_TABLE).unwrap());
    }
    found.retain(|route| route.protocol == ROUTE_PROTOCOL);
    let mut found: Vec<_> =
        found.into_iter().map(|route| (route.key.destination, route.nexthop_id, route.next_hops)).collect();
    found.sort();
    found
}

fn destinations(kernel: &mut dyn Kernel) -> Vec<String> {
    ours(kernel).into_iter().map(|(destination, ..)| destination.to_string()).collect()
}

fn v4(link: u32, last: u8) -> NexthopKind {
    NexthopKind::single(Family::Ipv4, NextHop::gateway([192, 0, 2, last].into(), link))
}

fn v6(link: u32, gateway: &str) -> NexthopKind {
    NexthopKind::single(Family::Ipv6, NextHop::gateway(ip(gateway), link))
}

#[test]
fn objects_are_made_shown_replaced_and_deleted() {
    both(|kernel, link, name| {
        assert_eq!(kernel.nexthops().unwrap(), Some(vec![]), "{name}");
        let two = kernel.add_nexthop(&v4(link, 2), ROUTE_PROTOCOL).unwrap();
        let three = kernel.add_nexthop(&v4(link, 3), ROUTE_PROTOCOL).unwrap();
        let six = kernel.add_nexthop(&v6(link, "fe80::2"), ROUTE_PROTOCOL).unwrap();
        let device = NexthopKind::single(Family::Ipv4, NextHop::device(link));
        let device_id = kernel.add_nexthop(&device, ROUTE_PROTOCOL).unwrap();
        let onlink = NextHop { onlink: true, ..NextHop::gateway(ip("198.51.100.1"), link) };
        let onlink = NexthopKind::single(Family::Ipv4, onlink);
        let onlink_id = kernel.add_nexthop(&onlink, ROUTE_PROTOCOL).unwrap();
        let group = NexthopKind::group(vec![(three, 255), (two, 1)], false);
        let group_id = kernel.add_nexthop(&group, ROUTE_PROTOCOL).unwrap();
        let resilient = NexthopKind::group(vec![(two, 3)], true);
        let resilient_id = kernel.add_nexthop(&resilient, 12).unwrap();
        let object = |id, kind: &NexthopKind| Nexthop { id, protocol: ROUTE_PROTOCOL, kind: kind.clone() };
        let mut expected = vec![
            object(two, &v4(link, 2)),
            object(three, &v4(link, 3)),
            object(six, &v6(link, "fe80::2")),
            object(device_id, &device),
            object(onlink_id, &onlink),
            object(group_id, &group),
            Nexthop { protocol: 12, ..object(resilient_id, &resilient) },
        ];
        let shown = |kernel: &mut dyn Kernel| {
            let mut shown = kernel.nexthops().unwrap().unwrap();
            shown.sort_by_key(|object| object.id);
            shown
        };
        expected.sort_by_key(|object| object.id);
        assert_eq!(shown(kernel), expected, "{name}");

        kernel.replace_nexthop(two, &v4(link, 9), ROUTE_PROTOCOL).unwrap();
        let members = NexthopKind::group(vec![(two, 2)], false);
        kernel.replace_nexthop(group_id, &members, ROUTE_PROTOCOL).unwrap();
        let more = NexthopKind::group(vec![(two, 1), (three, 1)], true);
        kernel.replace_nexthop(resilient_id, &more, 12).unwrap();
        for object in &mut expected {
            match object.id {
                id if id == two => object.kind = v4(link, 9),
                id if id == group_id => object.kind = members.clone(),
                id if id == resilient_id => object.kind = more.clone(),
                _ => {}
            }
        }
        assert_eq!(shown(kernel), expected, "{name}");

        kernel.delete_nexthop(two).unwrap();
        expected.retain(|object| object.id != two && object.id != group_id);
        let rest = NexthopKind::group(vec![(three, 1)], true);
        expected
            .iter_mut()
            .filter(|object| object.id == resilient_id)
            .for_each(|object| object.kind = rest.clone());
        assert_eq!(shown(kernel), expected, "{name}: an empty group goes, the other loses a member");
        assert_eq!(errno(kernel.delete_nexthop(two)), Errno::ENOENT, "{name}");
    });
}

#[test]
fn what_an_object_cannot_be_is_refused() {
    both(|kernel, link, name| {
        let two = kernel.add_nexthop(&v4(link, 2), ROUTE_PROTOCOL).unwrap();
        let other = kernel.add_nexthop(&v4(link, 3), ROUTE_PROTOCOL).unwrap();
        let plain = |members| NexthopKind::group(members, false);
        let group = kernel.add_nexthop(&plain(vec![(two, 1)]), ROUTE_PROTOCOL).unwrap();
        let resilient =
            kernel.add_nexthop(&NexthopKind::group(vec![(two, 1)], true), ROUTE_PROTOCOL).unwrap();
        let mut add = |kind: &NexthopKind| errno(kernel.add_nexthop(kind, ROUTE_PROTOCOL));
        assert_eq!(add(&plain(vec![])), Errno::EINVAL, "{name}: empty");
        assert_eq!(add(&plain(vec![(4711, 1)])), Errno::EINVAL, "{name}: no such member");
        assert_eq!(add(&plain(vec![(group, 1)])), Errno::EINVAL, "{name}: a group in a group");
        assert_eq!(add(&plain(vec![(two, 1), (two, 1)])), Errno::EINVAL, "{name}: twice");
        assert_eq!(add(&v4(4711, 2)), Errno::EINVAL, "{name}: no such link");
        let far = NexthopKind::single(Family::Ipv4, NextHop::gateway(ip("198.51.100.1"), link));
        assert_eq!(add(&far), Errno::ENETUNREACH, "{name}: a gateway not on the link");

        let mut replace = |id, kind: &NexthopKind| errno(kernel.replace_nexthop(id, kind, ROUTE_PROTOCOL));
        assert_eq!(replace(4711, &v4(link, 2)), Errno::ENOENT, "{name}");
        assert_eq!(replace(two, &plain(vec![(other, 1)])), Errno::EINVAL, "{name}: a single one by a group");
        assert_eq!(replace(group, &v4(link, 2)), Errno::EINVAL, "{name}: a group by a single one");
        let made_resilient = NexthopKind::group(vec![(two, 1)], true);
        assert_eq!(replace(group, &made_resilient), Errno::EINVAL, "{name}: a plain one by a resilient one");
        assert_eq!(replace(resilient, &plain(vec![(two, 1)])), Errno::EINVAL, "{name}: the other way round");

        kernel.set_link(link, &down()).unwrap();
        assert_eq!(errno(kernel.add_nexthop(&v4(link, 2), ROUTE_PROTOCOL)), Errno::ENETDOWN, "{name}");
    });
}

#[test]
fn routes_follow_their_object_and_go_with_it() {
    both(|kernel, link, name| {
        let two = kernel.add_nexthop(&v4(link, 2), ROUTE_PROTOCOL).unwrap();
        let three = kernel.add_nexthop(&v4(link, 3), ROUTE_PROTOCOL).unwrap();
        let six = kernel.add_nexthop(&v6(link, "2001:db8::2"), ROUTE_PROTOCOL).unwrap();
        let group = kernel.add_nexthop(&NexthopKind::group(vec![(two, 1)], false), ROUTE_PROTOCOL).unwrap();
        let six_group =
            kernel.add_nexthop(&NexthopKind::group(vec![(six, 1)], false), ROUTE_PROTOCOL).unwrap();
        assert_eq!(write(kernel, RouteChange::Add(on("10.1.0.0/16", 4711))), Err(Errno::EINVAL), "{name}");
        assert_eq!(write(kernel, RouteChange::Add(on("fd00:1::/32", 4711))), Err(Errno::EINVAL), "{name}");
        assert_eq!(write(kernel, RouteChange::Add(on("fd00:1::/32", two))), Err(Errno::EINVAL), "{name}");
        assert_eq!(write(kernel, RouteChange::Add(on("fd00:1::/32", group))), Err(Errno::EINVAL), "{name}");
        for (destination, id) in [
            ("10.1.0.0/16", group),
            ("10.2.0.0/16", six_group),
            ("10.3.0.0/16", three),
            ("fd00:1::/32", six_group),
        ] {
            assert_eq!(write(kernel, RouteChange::Add(on(destination, id))), Ok(()), "{name}");
        }
        let gateway = |address: &str| vec![NextHop::gateway(ip(address), link)];
        let mut expected = vec![
            (network("10.1.0.0/16"), Some(group), gateway("192.0.2.2")),
            (network("10.2.0.0/16"), Some(six_group), gateway("2001:db8::2")),
            (network("10.3.0.0/16"), Some(three), gateway("192.0.2.3")),
            (network("fd00:1::/32"), Some(six_group), gateway("2001:db8::2")),
        ];
        assert_eq!(ours(kernel), expected, "{name}");

        let members = NexthopKind::group(vec![(two, 1), (three, 4)], false);
        kernel.replace_nexthop(group, &members, ROUTE_PROTOCOL).unwrap();
        kernel.replace_nexthop(six, &v6(link, "fe80::9"), ROUTE_PROTOCOL).unwrap();
        let weighted = NextHop { weight: 4, ..NextHop::gateway(ip("192.0.2.3"), link) };
        expected[0].2 = vec![NextHop::gateway(ip("192.0.2.2"), link), weighted];
        expected[1].2 = gateway("fe80::9");
        expected[3].2 = gateway("fe80::9");
        assert_eq!(ours(kernel), expected, "{name}");

        // What a dump shows of a route can be written as it is.
        let shown = kernel.routes(Family::Ipv4, MAIN_TABLE).unwrap();
        let shown = shown.into_iter().find(|route| route.nexthop_id == Some(group)).unwrap();
        let replaced = Route { mtu: Some(1300), next_hops: Vec::new(), ..shown };
        assert_eq!(write(kernel, RouteChange::Replace(replaced)), Ok(()), "{name}");

        kernel.delete_nexthop(three).unwrap();
        assert_eq!(destinations(kernel), ["10.1.0.0/16", "10.2.0.0/16", "fd00:1::/32"], "{name}");
        kernel.delete_nexthop(two).unwrap();
        assert_eq!(destinations(kernel), ["10.2.0.0/16", "fd00:1::/32"], "{name}: the group was left empty");
        kernel.delete_nexthop(six_group).unwrap();
        assert_eq!(destinations(kernel), Vec::<String>::new(), "{name}");
        let left = kernel.nexthops().unwrap().unwrap();
        assert_eq!(left.iter().map(|object| object.id).collect::<Vec<_>>(), [six], "{name}");
    });
}

#[test]
fn objects_and_their_routes_go_with_the_link() {
    both(|kernel, link, name| {
        let two = kernel.add_nexthop(&v4(link, 2), ROUTE_PROTOCOL).unwrap();
        let group = kernel.add_nexthop(&NexthopKind::group(vec![(two, 1)], false), ROUTE_PROTOCOL).unwrap();
        assert_eq!(write(kernel, RouteChange::Add(on("10.1.0.0/16", group))), Ok(()));
        assert_eq!(write(kernel, RouteChange::Add(Route::unreachable(network("10.2.0.0/16")))), Ok(()));
        kernel.set_link(link, &down()).unwrap();
        kernel.set_link(link, &up()).unwrap();
        assert_eq!(kernel.nexthops().unwrap(), Some(vec![]), "{name}");
        assert_eq!(destinations(kernel), ["10.2.0.0/16"], "{name}");
    });
}

#[test]
fn every_form_of_a_route_is_replaced_by_every_other() {
    both(|kernel, link, name| {
        let four = kernel.add_nexthop(&v4(link, 2), ROUTE_PROTOCOL).unwrap();
        let six = kernel.add_nexthop(&v6(link, "2001:db8::2"), ROUTE_PROTOCOL).unwrap();
        let single_group = |id| NexthopKind::group(vec![(id, 1)], false);
        let four_group = kernel.add_nexthop(&single_group(four), ROUTE_PROTOCOL).unwrap();
        let six_group = kernel.add_nexthop(&single_group(six), ROUTE_PROTOCOL).unwrap();
        for (destination, gateways, single, group) in [
            ("10.1.0.0/16", ["192.0.2.2", "192.0.2.3"], four, four_group),
            ("fd00:1::/32", ["2001:db8::2", "2001:db8::3"], six, six_group),
        ] {
            let through = |gateways: &[&str]| {
                let hops = gateways.iter().map(|gateway| NextHop::gateway(ip(gateway), link)).collect();
                Route::unicast(network(destination), hops)
            };
            let unreachable = Route::unreachable(network(destination));
            let forms = [
                through(&gateways[..1]),
                through(&gateways),
                on(destination, single),
                on(destination, group),
                unreachable.clone(),
                Route { kind: RouteKind::Blackhole, ..unreachable },
                Route { mtu: Some(1300), ..on(destination, group) },
            ];
            let key = forms[0].key;
            for from in &forms {
                for to in &forms {
                    let story = format!("{name}: {from:?} by {to:?}");
                    assert_eq!(write(kernel, RouteChange::Add(from.clone())), Ok(()), "{story}");
                    assert_eq!(write(kernel, RouteChange::Replace(to.clone())), Ok(()), "{story}");
                    let there: Vec<_> = kernel
                        .routes(key.family(), MAIN_TABLE)
                        .unwrap()
                        .into_iter()
                        .filter(|route| route.key.destination == key.destination)
                        .map(|route| match route.nexthop_id {
                            Some(_) => Route { next_hops: Vec::new(), ..route },
                            None => route,
                        })
                        .collect();
                    assert_eq!(there, std::slice::from_ref(to), "{story}");
                    let gone = RouteChange::Delete { key, protocol: ROUTE_PROTOCOL };
                    assert_eq!(write(kernel, gone), Ok(()), "{story}");
                }
            }
        }
    });
}

#[test]
fn an_ipv6_gateway_another_link_leads_to_is_refused_onlink() {
    both(|kernel, link, name| {
        let tunnel = Tunnel {
            name: "vx".to_owned(),
            kind: TunnelKind::Vxlan { local: ip("2001:db8::1"), vni: 4096, port: 4789 },
            mtu: 1300,
            mac: Some(Mac([2, 0, 0, 0, 0, 9])),
        };
        let device = kernel.add_tunnel(&tunnel).unwrap();
        let onlink = |gateway: &str| NextHop { onlink: true, ..NextHop::gateway(ip(gateway), device) };
        let six = |gateway: &str| Route::unicast(network("fd00:1::/32"), vec![onlink(gateway)]);
        assert_eq!(
            write(kernel, RouteChange::Add(six("2001:db8::5"))),
            Err(Errno::EINVAL),
            "{name}: connected"
        );
        assert_eq!(write(kernel, RouteChange::Add(six("2001:db8:5::5"))), Ok(()), "{name}: not covered");
        let default = Route::unicast(network("::/0"), vec![NextHop::gateway(ip("2001:db8::2"), link)]);
        assert_eq!(write(kernel, RouteChange::Add(default)), Ok(()));
        assert_eq!(
            write(kernel, RouteChange::Replace(six("2001:db8:6::5"))),
            Ok(()),
            "{name}: default route"
        );
        let way = Route::unicast(network("2001:db8:7::/48"), vec![NextHop::gateway(ip("2001:db8::2"), link)]);
        assert_eq!(write(kernel, RouteChange::Add(way)), Ok(()));
        assert_eq!(write(kernel, RouteChange::Replace(six("2001:db8:7::5"))), Err(Errno::EINVAL), "{name}");
        let object = NexthopKind::single(Family::Ipv6, onlink("2001:db8:7::5"));
        assert_eq!(errno(kernel.add_nexthop(&object, ROUTE_PROTOCOL)), Errno::EINVAL, "{name}");

        // The link-local address of the other side's device does instead, for both families.
        let gateway = causeway_kernel::vtep_gateway(ip("2001:db8:7::5"));
        let object = NexthopKind::single(Family::Ipv6, NextHop::gateway(gateway, device));
        let object = kernel.add_nexthop(&object, ROUTE_PROTOCOL).unwrap();
        assert_eq!(write(kernel, RouteChange::Replace(on("fd00:1::/32", object))), Ok(()), "{name}");
        assert_eq!(write(kernel, RouteChange::Add(on("10.1.0.0/16", object))), Ok(()), "{name}");
        // IPv4 asks nothing of an on-link gateway.
        let four = Route::unicast(network("10.2.0.0/16"), vec![onlink("192.0.2.5")]);
        assert_eq!(write(kernel, RouteChange::Add(four)), Ok(()), "{name}");
    });
}

#[test]
fn a_vxlan_device_is_made_seen_and_changed_in_place() {
    both(|kernel, link, name| {
        for (local, other) in [("192.0.2.1", "192.0.2.77"), ("2001:db8::1", "2001:db8::77")] {
            let kind = |local: &str, vni| TunnelKind::Vxlan { local: ip(local), vni, port: 4789 };
            let mac = causeway_kernel::vtep_mac(ip(local));
            let vxlan = Tunnel { name: "vx".to_owned(), kind: kind(local, 4096), mtu: 1330, mac: Some(mac) };
            let index = kernel.add_tunnel(&vxlan).unwrap();
            let seen = |kernel: &mut dyn Kernel| {
                kernel.links().unwrap().into_iter().find(|link| link.index == index).unwrap()
            };
            let made = seen(kernel);
            assert_eq!((made.tunnel, made.mtu, made.mac), (Some(vxlan.kind), 1330, Some(mac)), "{name}");
            assert_eq!((made.kind.as_deref(), made.up()), (Some("vxlan"), true), "{name}");
            assert_eq!(errno(kernel.add_tunnel(&vxlan)), Errno::EEXIST, "{name}: the name");
            let twin = Tunnel { name: "twin".to_owned(), ..vxlan.clone() };
            assert_eq!(errno(kernel.add_tunnel(&twin)), Errno::EEXIST, "{name}: the identifier");

            kernel.set_link(index, &down()).unwrap();
            let new_mac = Mac([2, 0, 0, 0, 0, 77]);
            let changed = Tunnel { kind: kind(other, 4096), mtu: 1280, mac: Some(new_mac), ..vxlan.clone() };
            kernel.change_tunnel(index, &changed).unwrap();
            let made = seen(kernel);
            let state = (made.tunnel, made.mtu, made.mac, made.up());
            assert_eq!(state, (Some(changed.kind), 1280, Some(new_mac), true), "{name}");
            let another = Tunnel { kind: kind(other, 4097), ..changed };
            assert_eq!(errno(kernel.change_tunnel(index, &another)), Errno::EOPNOTSUPP, "{name}");

            kernel.delete_link(index).unwrap();
            assert_eq!(errno(kernel.delete_link(index)), Errno::ENODEV, "{name}");
        }
        assert_eq!(
            errno(kernel.change_tunnel(
                4711,
                &Tunnel {
                    name: "vx".to_owned(),
                    kind: TunnelKind::Vxlan { local: ip("192.0.2.1"), vni: 1, port: 4789 },
                    mtu: 1400,
                    mac: None,
                }
            )),
            Errno::ENODEV,
            "{name}"
        );
        assert!(kernel.links().unwrap().iter().any(|seen| seen.index == link));
    });
}

#[test]
fn neighbours_and_fdb_entries_come_and_go_with_the_device() {
    both(|kernel, link, name| {
        let (one, two) = (Mac([2, 0, 0, 0, 1, 1]), Mac([2, 0, 0, 0, 1, 2]));
        for (local, remote, other) in
            [("192.0.2.1", "198.51.100.1", "198.51.100.2"), ("2001:db8::1", "2001:db8:5::1", "2001:db8:5::2")]
        {
            let vxlan = Tunnel {
                name: "vx".to_owned(),
                kind: TunnelKind::Vxlan { local: ip(local), vni: 4096, port: 4789 },
                mtu: 1330,
                mac: Some(Mac([2, 0, 0, 0, 0, 9])),
            };
            let index = kernel.add_tunnel(&vxlan).unwrap();
            let fdb = |kernel: &mut dyn Kernel| {
                let entries = kernel.fdb(index).unwrap();
                assert!(entries.iter().all(|entry| entry.ifindex == index && entry.permanent), "{name}");
                let mut entries: Vec<_> = entries.iter().map(|entry| (entry.mac, entry.remote)).collect();
                entries.sort();
                entries
            };
            assert_eq!(fdb(kernel), [], "{name}");
            kernel.set_fdb(index, one, ip(remote)).unwrap();
            kernel.set_fdb(index, two, ip(remote)).unwrap();
            kernel.set_fdb(index, one, ip(other)).unwrap();
            kernel.set_fdb(index, one, ip(other)).unwrap();
            assert_eq!(fdb(kernel), [(one, ip(other)), (two, ip(remote))], "{name}: one remote each");
            kernel.delete_fdb(index, one, ip(remote)).unwrap();
            assert_eq!(
                fdb(kernel).len(),
                2,
                "{name}: another remote's entry stays, and the kernel says nothing"
            );
            kernel.delete_fdb(index, one, ip(other)).unwrap();
            assert_eq!(errno(kernel.delete_fdb(index, one, ip(other))), Errno::ENOENT, "{name}");
            assert_eq!(fdb(kernel), [(two, ip(remote))], "{name}");
            assert_eq!(errno(kernel.set_fdb(4711, one, ip(remote))), Errno::ENODEV, "{name}");

            kernel.set_neighbour(index, ip("fe80::5"), one).unwrap();
            kernel.set_neighbour(index, ip("192.0.2.5"), one).unwrap();
            kernel.set_neighbour(index, ip("192.0.2.5"), two).unwrap();
            let neighbours = |kernel: &mut dyn Kernel| {
                let all = kernel.neighbours().unwrap().into_iter();
                let mut mine: Vec<_> = all
                    .filter(|entry| {
                        entry.ifindex == index && entry.permanent && entry.address != ip("ff02::16")
                    })
                    .filter(|entry| [Some(one), Some(two)].contains(&entry.mac))
                    .map(|entry| (entry.address, entry.mac))
                    .collect();
                mine.sort();
                mine
            };
            assert_eq!(
                neighbours(kernel),
                [(ip("192.0.2.5"), Some(two)), (ip("fe80::5"), Some(one))],
                "{name}"
            );
            kernel.add_address(index, network("10.9.0.1/32"), true).unwrap();
            assert_eq!(
                errno(kernel.add_address(index, network("10.9.0.1/32"), true)),
                Errno::EEXIST,
                "{name}"
            );

            kernel.delete_link(index).unwrap();
            assert_eq!(neighbours(kernel), [], "{name}");
            assert!(!kernel.addresses().unwrap().iter().any(|address| address.ifindex == index), "{name}");
        }
        kernel.set_fdb(link, one, ip("192.0.2.9")).unwrap();
        assert_eq!(kernel.fdb(link).unwrap(), [], "{name}: a veth has none");
    });
}

#[test]
fn a_dump_goes_on_while_routes_are_written() {
    both(|kernel, link, name| {
        let hop = |destination: IpNetwork, last: u8| {
            let gateway = if destination.is_ipv4() { ip("192.0.2.2") } else { ip("2001:db8::2") };
            Route {
                mtu: Some(1000 + u32::from(last)),
                ..Route::unicast(destination, vec![NextHop::gateway(gateway, link)])
            }
        };
        for family in Family::ALL {
            let destination = |n: u32| match family {
                Family::Ipv4 => IpNetwork::new((0x0a00_0000 + (n << 8)).to_be_bytes().into(), 24).unwrap(),
                Family::Ipv6 => {
                    let [a, b, c, d] = n.to_be_bytes();
                    IpNetwork::new([0xfd, 0, a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0].into(), 64).unwrap()
                }
            };
            let changes: Vec<_> =
                (0..4000).map(|n| RouteChange::Add(hop(destination(n), (n % 3) as u8))).collect();
            assert!(kernel.write(&changes).unwrap().iter().all(Result::is_ok), "{name}");

            let mut next = 4000;
            // An unfinished dump is abandoned; the next one is whole.
            kernel.dump_start(family, MAIN_TABLE).unwrap();
            assert!(kernel.dump_next(&mut |_| {}).unwrap(), "{name}: 4000 routes are more than one part");
            kernel.dump_start(family, MAIN_TABLE).unwrap();
            let mut shown = Vec::new();
            let mut parts = 0;
            loop {
                let more = kernel.dump_next(&mut |dumped| {
                    let key = RouteKey { destination: dumped.destination, ..dumped.route.key };
                    shown.push((dumped.form, Route { key, ..dumped.route.clone() }));
                });
                parts += 1;
                if !more.unwrap() {
                    break;
                }
            }
            assert!(parts > 1, "{name}");
            assert!(!kernel.dump_next(&mut |_| panic!("{name}: after the end")).unwrap());
            let all = kernel.routes(family, MAIN_TABLE).unwrap();
            let mut listed: Vec<_> = shown.iter().map(|(_, route)| route.clone()).collect();
            listed.sort_by_key(|route| (route.key, route.protocol));
            let mut expected = all.clone();
            expected.sort_by_key(|route| (route.key, route.protocol));
            assert_eq!(listed, expected, "{name}");
            let mut forms: Vec<_> = shown
                .iter()
                .filter(|(_, route)| route.protocol == ROUTE_PROTOCOL)
                .map(|(form, route)| (*form, route.mtu))
                .collect();
            forms.sort();
            forms.dedup();
            assert_eq!(forms.len(), 3, "{name}: three forms of ours: {forms:?}");

            // Routes written meanwhile: those not touched are shown, or it is said that they are not.
            for deleting in [false, true] {
                kernel.dump_start(family, MAIN_TABLE).unwrap();
                let mut seen = std::collections::BTreeMap::new();
                let first = next;
                let end = loop {
                    let more = kernel.dump_next(&mut |dumped| {
                        *seen.entry(dumped.destination).or_insert(0) += 1;
                    });
                    match more {
                        Ok(true) => {}
                        end => break end,
                    }
                    let key = hop(destination(next - 4000), 1).key;
                    let change = match deleting {
                        true => RouteChange::Delete { key, protocol: ROUTE_PROTOCOL },
                        false => RouteChange::Replace(hop(destination(next - 4000), 7)),
                    };
                    let changes = [RouteChange::Add(hop(destination(next), 1)), change];
                    assert!(kernel.write(&changes).unwrap().iter().all(Result::is_ok), "{name}");
                    next += 1;
                };
                if deleting && family == Family::Ipv6 {
                    assert!(matches!(end, Err(Error::Interrupted(_))), "{name}: {end:?}");
                } else {
                    assert!(matches!(end, Ok(false)), "{name}: {end:?}");
                    let missing = (next - 4000..first).map(destination).find(|to| !seen.contains_key(to));
                    assert_eq!(missing, None, "{name}");
                    let twice = seen.values().any(|times| *times > 1);
                    assert!(!twice || family == Family::Ipv6, "{name}");
                }
            }
            let rest: Vec<_> = (next - 4000..next)
                .map(|n| RouteChange::Delete { key: hop(destination(n), 1).key, protocol: ROUTE_PROTOCOL })
                .collect();
            kernel.write(&rest).unwrap();
        }
    });
}
