//! How fast routes are written and dumped: adds, replacements, a streamed dump and deletions in a network namespace of
//! its own, by nexthop object and with inline next hops, CPU time and wall time of each. Needs root.
//!
//! `cargo run --release -p causeway-kernel --example routes -- 1000000`

#![allow(clippy::unwrap_used, reason = "a measurement that cannot go on says so by panicking")]
#![allow(clippy::print_stdout, reason = "what it is for")]

use std::net::IpAddr;
use std::os::fd::AsFd;
use std::time::Instant;

use causeway_kernel::route::{MAIN_TABLE, ROUTE_PROTOCOL};
use causeway_kernel::{
    Family, Kernel, LinkChange, Mac, Netlink, NextHop, NexthopKind, Route, RouteChange, VethPair, netns,
};
use ipnetwork::IpNetwork;
use nix::sys::resource::{UsageWho, getrusage};

/// How many changes are written at once.
const CHUNK: usize = 4096;

fn cpu() -> f64 {
    let usage = getrusage(UsageWho::RUSAGE_SELF).unwrap();
    let seconds = |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    seconds(usage.user_time()) + seconds(usage.system_time())
}

fn measure(what: &str, count: usize, work: impl FnOnce()) {
    let (wall, before) = (Instant::now(), cpu());
    work();
    let (wall, cpu) = (wall.elapsed().as_secs_f64(), cpu() - before);
    let rate = |seconds: f64| count as f64 / seconds / 1000.0;
    println!("{what:<28} {:>7.0} k/s wall  {:>7.0} k/s CPU  {cpu:.3} s CPU", rate(wall), rate(cpu));
}

fn main() {
    let count: usize = std::env::args().nth(1).map_or(100_000, |count| count.parse().unwrap());
    let netns = netns::create().unwrap();
    let mut kernel = Netlink::open_in(netns.as_fd()).unwrap();
    let (mac, peer_mac) = (Mac([2, 0, 0, 0, 0, 1]), Mac([2, 0, 0, 0, 0, 2]));
    let pair = VethPair { name: "one", mac, peer_name: "two", peer_mac, peer_netns: None, mtu: 1500 };
    kernel.add_veth(&pair).unwrap();
    for name in ["one", "two"] {
        let index = kernel.link_by_name(name).unwrap().unwrap().index;
        kernel.set_link(index, &LinkChange { up: Some(true), ..LinkChange::default() }).unwrap();
    }
    let index = kernel.link_by_name("one").unwrap().unwrap().index;
    kernel.add_address(index, "192.0.2.1/24".parse().unwrap(), false).unwrap();
    let hop = NextHop::gateway(IpAddr::from([192, 0, 2, 2]), index);
    let single = NexthopKind::single(Family::Ipv4, hop);
    let single = kernel.add_nexthop(&single, ROUTE_PROTOCOL).unwrap();
    let group = kernel.add_nexthop(&NexthopKind::group(vec![(single, 1)], false), ROUTE_PROTOCOL).unwrap();

    let destination =
        |n: usize| IpNetwork::new(IpAddr::from((0x1000_0000 + ((n as u32) << 8)).to_be_bytes()), 24).unwrap();
    let forms = [
        ("single object", Route { nexthop_id: Some(single), ..Route::unicast(destination(0), Vec::new()) }),
        ("group object", Route { nexthop_id: Some(group), ..Route::unicast(destination(0), Vec::new()) }),
        ("inline", Route::unicast(destination(0), vec![hop])),
    ];
    for (name, form) in forms {
        let route = |n: usize| {
            let mut route = form.clone();
            route.key.destination = destination(n);
            route
        };
        let all = |change: &dyn Fn(Route) -> RouteChange| {
            let changes: Vec<_> = (0..count).map(|n| change(route(n))).collect();
            changes
        };
        let mut write = |what: &str, changes: Vec<RouteChange>| {
            measure(&format!("{what}, {name}"), count, || {
                for part in changes.chunks(CHUNK) {
                    assert!(kernel.write(part).unwrap().iter().all(Result::is_ok));
                }
            });
        };
        write("add", all(&RouteChange::Add));
        write("replace", all(&RouteChange::Replace));
        let mut shown = 0;
        measure(&format!("dump, {name}"), count, || {
            kernel.dump_start(Family::Ipv4, MAIN_TABLE).unwrap();
            while kernel
                .dump_next(&mut |dumped| shown += usize::from(dumped.route.protocol == ROUTE_PROTOCOL))
                .unwrap()
            {}
        });
        assert_eq!(shown, count);
        let mut write = |what: &str, changes: Vec<RouteChange>| {
            measure(&format!("{what}, {name}"), count, || {
                for part in changes.chunks(CHUNK) {
                    assert!(kernel.write(part).unwrap().iter().all(Result::is_ok));
                }
            });
        };
        write("delete", all(&|route| RouteChange::Delete { key: route.key, protocol: route.protocol }));
    }
}
