//! What is to go wrong in the mock does go wrong, and as often as asked.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

use causeway_kernel::mock::{Failures, MockKernel, Operation};
use causeway_kernel::route::MAIN_TABLE;
use causeway_kernel::{
    Error, Family, Hint, Kernel, NextHop, NexthopKind, Route, RouteChange, Tunnel, TunnelKind,
};
use ipnetwork::IpNetwork;
use nix::errno::Errno;

fn kernel() -> MockKernel {
    let mut kernel = MockKernel::new();
    kernel.add_link(2, "up0", &["192.0.2.1/24".parse().unwrap()]);
    kernel.take_hints();
    kernel
}

fn way(last: u8) -> NexthopKind {
    NexthopKind::single(Family::Ipv4, NextHop::gateway([192, 0, 2, last].into(), 2))
}

fn vxlan() -> Tunnel {
    let kind = TunnelKind::Vxlan { local: [192, 0, 2, 1].into(), vni: 1, port: 4789 };
    Tunnel { name: "vx".to_owned(), kind, mtu: 1450, mac: None }
}

#[test]
fn every_nth_operation_is_refused_and_recorded() {
    let mut kernel = kernel();
    kernel.failures = Failures { refuse_operations: Some((2, Errno::ENOMEM, 2)), ..Failures::default() };
    let refused: Vec<bool> = (2..8).map(|last| kernel.add_nexthop(&way(last), 179).is_err()).collect();
    assert_eq!(refused, [false, true, false, true, false, false]);
    assert_eq!(kernel.operations.len(), 6);
    assert_eq!(kernel.operations[0], Operation::AddNexthop(way(2)));
    assert_eq!(kernel.nexthops().unwrap().unwrap().len(), 4);
    assert_eq!(kernel.take_hints(), [], "our own doings come back as no hint");
}

#[test]
fn of_operations_with_lost_answers_every_other_is_carried_out() {
    let mut kernel = kernel();
    kernel.failures = Failures { lose_operations: 4, ..Failures::default() };
    for last in 2..6 {
        assert!(matches!(kernel.add_nexthop(&way(last), 179), Err(Error::Overrun)));
    }
    assert_eq!(kernel.nexthops().unwrap().unwrap().len(), 2);
    kernel.add_nexthop(&way(9), 179).unwrap();
}

#[test]
fn what_the_kernel_lacks_it_says() {
    let mut kernel = kernel();
    kernel.lacks.nexthops = true;
    kernel.lacks.kinds.insert("vxlan");
    assert_eq!(kernel.nexthops().unwrap(), None);
    assert!(kernel.add_nexthop(&way(2), 179).unwrap_err().unsupported());
    assert!(kernel.add_tunnel(&vxlan()).unwrap_err().unsupported());
    kernel.lacks.kinds.clear();
    kernel.add_tunnel(&vxlan()).unwrap();
}

#[test]
fn others_do_not_fail_and_are_told_of() {
    let mut kernel = kernel();
    kernel.failures = Failures { refuse_operations: Some((1, Errno::EPERM, 9)), ..Failures::default() };
    let id = kernel.as_another(|kernel| kernel.add_nexthop(&way(2), 12)).unwrap();
    kernel.as_another(|kernel| kernel.delete_nexthop(id)).unwrap();
    assert_eq!(kernel.take_hints(), [Hint::Nexthop, Hint::Nexthop]);
    assert_eq!(kernel.operations, []);
    assert!(kernel.delete_nexthop(id).is_err_and(|error| error.refusal().unwrap().errno == Errno::EPERM));
}

#[test]
fn a_dump_comes_in_parts_and_changes_come_in_between() {
    let mut kernel = kernel();
    let route = |n: u8| Route::unreachable(IpNetwork::new([10, n, 0, 0].into(), 16).unwrap());
    let add: Vec<_> = (1..8).map(|n| RouteChange::Add(route(n))).collect();
    kernel.write(&add).unwrap();
    kernel.dump_start(Family::Ipv4, MAIN_TABLE).unwrap();
    let mut seen = Vec::new();
    let mut part = |kernel: &mut MockKernel| {
        let mut shown = 0;
        let more = kernel.dump_next(&mut |dumped| {
            shown += 1;
            seen.push(dumped.destination);
        });
        (shown, more.unwrap())
    };
    assert_eq!(part(&mut kernel), (3, true));
    let behind = RouteChange::Delete { key: route(7).key, protocol: 179 };
    kernel.write(&[RouteChange::Add(route(0)), behind]).unwrap();
    assert_eq!(part(&mut kernel), (3, true));
    // The connected route is the last.
    assert_eq!(part(&mut kernel), (1, false));
    let destinations: Vec<_> = (1..7).map(|n| route(n).key.destination).collect();
    assert_eq!(seen[..6], destinations);

    kernel.failures.interrupt_dumps = 1;
    kernel.dump_start(Family::Ipv4, MAIN_TABLE).unwrap();
    let end = loop {
        match kernel.dump_next(&mut |_| {}) {
            Ok(true) => {}
            end => break end,
        }
    };
    assert!(matches!(end, Err(Error::Interrupted(_))), "{end:?}");
}
