//! A second opinion on the netlink messages: what this crate writes, the `rtnetlink` crate must read as meant, and the
//! other way round. The two share the message types, not what is put into them.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd, BorrowedFd};

use causeway_kernel::route::MAIN_TABLE;
use causeway_kernel::{
    Family, Kernel, LinkChange, Mac, Netlink, NextHop, Route, RouteKey, RouteKind, VethPair, netns,
};
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags};
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use rtnetlink::{Handle, LinkUnspec, LinkVeth, RouteMessageBuilder, RouteNextHopBuilder};

/// Runs `work` over an rtnetlink connection in the namespace.
fn with_rtnetlink<T: Send, F: Future<Output = T>>(
    netns: BorrowedFd<'_>,
    work: impl FnOnce(Handle) -> F + Send,
) -> T {
    netns::run_in(netns, || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (connection, handle, _) = rtnetlink::new_connection().unwrap();
            tokio::spawn(connection);
            work(handle).await
        })
    })
    .unwrap()
}

async fn all_routes(handle: &Handle, family: AddressFamily) -> Vec<RouteMessage> {
    let mut message = RouteMessage::default();
    message.header.address_family = family;
    let mut found = Vec::new();
    let mut stream = handle.route().get(message).execute();
    while let Some(route) = futures_util::TryStreamExt::try_next(&mut stream).await.unwrap() {
        found.push(route);
    }
    found
}

#[test]
fn rtnetlink_reads_what_is_written_here() {
    let netns = netns::create().expect("a network namespace (needs root)");
    let mut kernel = Netlink::open_in(netns.as_fd()).unwrap();
    let (mac, peer_mac) = (Mac([2, 0, 0, 0, 0, 1]), Mac([2, 0, 0, 0, 0, 2]));
    let pair = VethPair { name: "one", mac, peer_name: "two", peer_mac, peer_netns: None, mtu: 1400 };
    kernel.add_veth(&pair).unwrap();
    let index = kernel.link_by_name("one").unwrap().unwrap().index;
    kernel.set_link(index, &LinkChange { up: Some(true), ..LinkChange::default() }).unwrap();
    kernel.add_address(index, "192.0.2.1/24".parse().unwrap(), false).unwrap();
    let gateway =
        |last: u8, weight| NextHop { weight, ..NextHop::gateway(IpAddr::from([192, 0, 2, last]), index) };
    let multipath = Route::unicast("10.1.0.0/16".parse().unwrap(), vec![gateway(2, 1), gateway(3, 5)]);
    kernel.add_route(&multipath).unwrap();
    kernel.add_route(&Route::pod(IpAddr::from([10, 2, 0, 7]), index)).unwrap();
    kernel.add_route(&Route::unreachable("10.2.0.0/24".parse().unwrap())).unwrap();

    let (links, routes) = with_rtnetlink(netns.as_fd(), |handle| async move {
        let mut links = Vec::new();
        let mut stream = handle.link().get().execute();
        while let Some(link) = futures_util::TryStreamExt::try_next(&mut stream).await.unwrap() {
            links.push(link);
        }
        (links, all_routes(&handle, AddressFamily::Inet).await)
    });
    let one = links.iter().find(|link| link.header.index == index).unwrap();
    assert!(one.header.flags.contains(LinkFlags::Up));
    for attribute in [
        LinkAttribute::IfName("one".to_owned()),
        LinkAttribute::Address(mac.0.to_vec()),
        LinkAttribute::Mtu(1400),
    ] {
        assert!(one.attributes.contains(&attribute), "{attribute:?}");
    }
    let find = |address: [u8; 4], length: u8| {
        let destination = RouteAttribute::Destination(RouteAddress::Inet(Ipv4Addr::from(address)));
        let found = routes.iter().find(|route| {
            route.header.destination_prefix_length == length && route.attributes.contains(&destination)
        });
        let route = found.unwrap_or_else(|| panic!("no {address:?}/{length} in {routes:#?}"));
        assert_eq!(route.header.protocol, RouteProtocol::Other(179));
        assert!(route.attributes.contains(&RouteAttribute::Priority(1790)));
        route
    };
    let route = find([10, 1, 0, 0], 16);
    let hops = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::MultiPath(hops) => Some(hops),
        _ => None,
    });
    let weights: Vec<_> = hops.unwrap().iter().map(|hop| (hop.interface_index, hop.hops)).collect();
    assert_eq!(weights, [(index, 0), (index, 4)], "the kernel counts weights from 0");
    let pod = find([10, 2, 0, 7], 32);
    assert_eq!((pod.header.scope, pod.header.kind), (RouteScope::Link, RouteType::Unicast));
    assert_eq!(find([10, 2, 0, 0], 24).header.kind, RouteType::Unreachable);
}

#[test]
fn what_rtnetlink_writes_is_read_here() {
    let netns = netns::create().expect("a network namespace (needs root)");
    let index = with_rtnetlink(netns.as_fd(), |handle| async move {
        handle.link().add(LinkVeth::new("one", "two").build()).execute().await.unwrap();
        let mut stream = handle.link().get().match_name("one".to_owned()).execute();
        let link = futures_util::TryStreamExt::try_next(&mut stream).await.unwrap().unwrap();
        let index = link.header.index;
        handle.link().set(LinkUnspec::new_with_index(index).mtu(1300).up().build()).execute().await.unwrap();
        handle.address().add(index, IpAddr::from([192, 0, 2, 1]), 24).execute().await.unwrap();
        let hop = |last: u8, weight: u8| {
            RouteNextHopBuilder::new_ipv4()
                .interface(index)
                .via(IpAddr::from([192, 0, 2, last]))
                .unwrap()
                .weight(weight)
                .build()
        };
        let route = RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(Ipv4Addr::new(10, 1, 0, 0), 16)
            .protocol(RouteProtocol::Bird)
            .priority(32)
            .multipath(vec![hop(2, 0), hop(3, 4)])
            .build();
        handle.route().add(route).execute().await.unwrap();
        let blackhole = RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(Ipv4Addr::new(10, 2, 0, 0), 16)
            .protocol(RouteProtocol::Static)
            .kind(RouteType::BlackHole)
            .build();
        handle.route().add(blackhole).execute().await.unwrap();
        index
    });
    let mut kernel = Netlink::open_in(netns.as_fd()).unwrap();
    let link = kernel.link_by_name("one").unwrap().unwrap();
    assert_eq!(
        (link.index, link.mtu, link.admin_up, link.kind.as_deref()),
        (index, 1300, true, Some("veth"))
    );
    let addresses = kernel.addresses().unwrap();
    assert!(
        addresses
            .iter()
            .any(|address| address.ifindex == index && address.network.to_string() == "192.0.2.1/24")
    );
    let routes = kernel.routes(Family::Ipv4, MAIN_TABLE).unwrap();
    let find = |destination: &str| {
        routes.iter().find(|route| route.key.destination.to_string() == destination).unwrap()
    };
    let gateway =
        |last: u8, weight| NextHop { weight, ..NextHop::gateway(IpAddr::from([192, 0, 2, last]), index) };
    let multipath = find("10.1.0.0/16");
    assert_eq!(multipath.next_hops, [gateway(2, 1), gateway(3, 5)]);
    assert_eq!((multipath.protocol, multipath.key.metric), (12, 32));
    assert_eq!(
        *find("10.2.0.0/16"),
        Route {
            key: RouteKey { metric: 0, ..RouteKey::ours("10.2.0.0/16".parse().unwrap()) },
            protocol: 4,
            kind: RouteKind::Blackhole,
            ..Route::unreachable("10.2.0.0/16".parse().unwrap())
        }
    );
    assert_eq!(find("192.0.2.0/24").next_hops, [NextHop::device(index)]);
}
