//! Connection tracking, ethtool and looking up ways against the real kernel, each test in a network namespace of its own. Needs root, ip and
//! nft.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::process::Command;

use causeway_kernel::conntrack::Conntrack;
use causeway_kernel::ethtool::Ethtool;
use causeway_kernel::lookup::{Lookup, Way};
use causeway_kernel::netns;

fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A namespace with addresses on its loopback in which connections are tracked.
fn tracked(addresses: &[&str], work: impl FnOnce() + Send) {
    let namespace = netns::create().expect("a network namespace (needs root)");
    netns::run_in(namespace.as_fd(), || {
        run("ip", &["link", "set", "lo", "up"]);
        for address in addresses {
            // An IPv6 address is no one's yet while others might have it.
            let dad: &[&str] = if address.contains(':') { &["nodad"] } else { &[] };
            run("ip", &[&["addr", "add", address, "dev", "lo"], dad].concat());
        }
        run(
            "nft",
            &["add table inet t; add chain inet t o { type filter hook output priority 0; }; \
                      add rule inet t o ct state new counter accept"],
        );
        work();
    })
    .unwrap();
}

/// Opens `count` tracked connections from one address to another; they live on for 30 s without the sockets.
fn connect(from: &str, to: &str, count: usize) {
    let receiver = UdpSocket::bind(SocketAddr::new(to.parse().unwrap(), 0)).unwrap();
    let there = receiver.local_addr().unwrap();
    // Held until the end, so that none gets the port of another.
    let mut senders = Vec::new();
    for _ in 0..count {
        let sender = UdpSocket::bind(SocketAddr::new(from.parse().unwrap(), 0)).unwrap();
        sender.send_to(b"x", there).unwrap();
        receiver.recv_from(&mut [0; 8]).unwrap();
        senders.push(sender);
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn connections_of_one_address_go_and_others_stay() {
    tracked(&["10.0.0.1/32", "10.0.0.2/32", "10.0.0.3/32", "fd00::1/128", "fd00::2/128"], || {
        connect("10.0.0.1", "10.0.0.2", 100);
        connect("10.0.0.3", "10.0.0.1", 50);
        connect("10.0.0.2", "10.0.0.3", 30);
        connect("fd00::1", "fd00::2", 20);
        let mut conntrack = Conntrack::open().unwrap();
        assert_eq!(conntrack.delete_for(ip("10.0.0.9")).unwrap(), 0);
        assert_eq!(conntrack.delete_for(ip("10.0.0.1")).unwrap(), 150);
        assert_eq!(conntrack.delete_for(ip("10.0.0.1")).unwrap(), 0);
        assert_eq!(conntrack.delete_for(ip("10.0.0.2")).unwrap(), 30, "those of others were kept");
        assert_eq!(conntrack.delete_for(ip("fd00::2")).unwrap(), 20);
    });
}

#[test]
fn a_translated_connection_is_found_by_the_address_in_its_reply() {
    tracked(&["10.0.0.1/32", "10.0.0.2/32"], || {
        run(
            "nft",
            &["add chain inet t p { type nat hook output priority -100; }; \
                      add rule inet t p ip daddr 10.96.0.1 dnat to 10.0.0.2"],
        );
        run("ip", &["route", "add", "10.96.0.1", "dev", "lo"]);
        let receiver = UdpSocket::bind("10.0.0.2:5000").unwrap();
        let sender = UdpSocket::bind("10.0.0.1:0").unwrap();
        sender.send_to(b"x", "10.96.0.1:5000").unwrap();
        receiver.recv_from(&mut [0; 8]).unwrap();
        let mut conntrack = Conntrack::open().unwrap();
        assert_eq!(conntrack.delete_for(ip("10.0.0.2")).unwrap(), 1, "the backend is only in the reply");
        sender.send_to(b"x", "10.96.0.1:5000").unwrap();
        receiver.recv_from(&mut [0; 8]).unwrap();
        assert_eq!(conntrack.delete_for(ip("10.96.0.1")).unwrap(), 1, "the service is only in the original");
    });
}

#[test]
fn thousands_of_connections_are_deleted_in_one_go() {
    tracked(&["10.0.0.1/32", "10.0.0.2/32", "10.0.0.3/32"], || {
        connect("10.0.0.1", "10.0.0.2", 5000);
        connect("10.0.0.3", "10.0.0.2", 500);
        let mut conntrack = Conntrack::open().unwrap();
        assert_eq!(conntrack.delete_for(ip("10.0.0.1")).unwrap(), 5000);
        assert_eq!(conntrack.delete_for(ip("10.0.0.2")).unwrap(), 500);
    });
}

#[test]
fn offloads_are_listed_by_name() {
    let namespace = netns::create().expect("a network namespace (needs root)");
    netns::run_in(namespace.as_fd(), || {
        run("ip", &["link", "add", "causeway-vxlan", "type", "vxlan", "id", "1", "dstport", "4789"]);
        let mut ethtool = Ethtool::open().unwrap();
        let features = ethtool.features("causeway-vxlan").unwrap();
        assert!(features.contains("tx-checksum-ip-generic"), "{features:?}");
        assert!(ethtool.features("nowhere").unwrap_err().missing());
    })
    .unwrap();
}

#[test]
fn a_way_has_its_device_gateway_source_and_mtu() {
    let namespace = netns::create().expect("a network namespace (needs root)");
    netns::run_in(namespace.as_fd(), || {
        for words in [
            "link add up0 type veth peer name far0",
            "addr add 192.0.2.1/24 dev up0",
            "addr add 192.0.2.7/24 dev up0",
            "addr add 2001:db8::1/64 dev up0 nodad",
            "link set far0 up",
            "link set up0 up",
            "route add 10.0.0.0/8 via 192.0.2.254 mtu 1400",
            "route add fd00::/8 via 2001:db8::fe",
            "route add unreachable 10.1.0.0/16",
        ] {
            run("ip", &words.split(' ').collect::<Vec<_>>());
        }
        let mut lookup = Lookup::open().unwrap();
        let way = lookup.way(ip("10.0.0.1"), None).unwrap();
        let index = way.ifindex.unwrap();
        let expected = Way {
            ifindex: Some(index),
            gateway: Some(ip("192.0.2.254")),
            source: Some(ip("192.0.2.1")),
            mtu: Some(1400),
        };
        assert_eq!(way, expected);
        let direct = lookup.way(ip("192.0.2.9"), Some(ip("192.0.2.7"))).unwrap();
        assert_eq!((direct.ifindex, direct.gateway, direct.mtu), (Some(index), None, None));
        let way = lookup.way(ip("fd00::1"), None).unwrap();
        assert_eq!((way.ifindex, way.gateway), (Some(index), Some(ip("2001:db8::fe"))));
        assert!(lookup.way(ip("10.1.0.1"), None).unwrap_err().refusal().is_some());
    })
    .unwrap();
}
