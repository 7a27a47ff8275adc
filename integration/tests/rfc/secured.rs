//! What protects a session below BGP, and what the local API tells of it. RFC 2385, RFC 5082, RFC 9003, DESIGN §3 and §4.

use std::os::fd::AsRawFd;
use std::time::Duration;

use anyhow::{Result, ensure};
use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, SockaddrStorage, setsockopt, sockopt};

use crate::octets::*;
use crate::peer::{Peer, established, open_of};
use crate::runner::{Case, Site, case};
use crate::speaker::Config;

/// Connects from host 2 with this TTL.
fn with_ttl(site: &Site, ttl: i32) -> Result<Peer> {
    let fd = socket::socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&fd, sockopt::Ipv4Ttl, &ttl)?;
    socket::bind(fd.as_raw_fd(), &SockaddrStorage::from(std::net::SocketAddrV4::new(site.v4(2), 0)))?;
    let to = std::net::SocketAddr::from((site.v4(1), 179));
    socket::connect(fd.as_raw_fd(), &SockaddrStorage::from(to))?;
    Ok(Peer::over(fd.into()))
}

const SECRET: &str = "---\napiVersion: v1\nkind: Secret\nmetadata: {name: tor}\nstringData: {key: hunter2}\n";

pub fn cases() -> Vec<Case> {
    vec![
        case("RFC 2385: a peer with a password is not spoken to without it", |site| {
            let fields = "passive: true, password: {secretKeyRef: {name: tor, key: key}}";
            let _speaker = Config::new().peer_with(2, 65002, fields).documents(SECRET).start(site)?;
            // The kernel drops what is not signed, so that the attempt neither comes up nor is refused.
            let fd = socket::socket(
                AddressFamily::Inet,
                SockType::Stream,
                SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
                None,
            )?;
            socket::bind(fd.as_raw_fd(), &SockaddrStorage::from(std::net::SocketAddrV4::new(site.v4(2), 0)))?;
            let to = SockaddrStorage::from(std::net::SocketAddr::from((site.v4(1), 179)));
            let started = socket::connect(fd.as_raw_fd(), &to);
            ensure!(started == Err(nix::errno::Errno::EINPROGRESS), "{started:?}");
            std::thread::sleep(Duration::from_millis(1500));
            let again = socket::connect(fd.as_raw_fd(), &to);
            ensure!(again == Err(nix::errno::Errno::EALREADY), "it is up or refused: {again:?}");
            Ok(())
        }),
        case("DESIGN §3: a named secret that is missing keeps the session down and says so", |site| {
            let fields = "passive: true, password: {secretKeyRef: {name: gone, key: key}}";
            let speaker = Config::new().peer_with(2, 65002, fields).start(site);
            let Ok(speaker) = speaker else { return Ok(()) };
            ensure!(established(site, 2, 65002).is_err(), "a session without its password");
            let peers = speaker.get("/v1/peers")?;
            ensure!(peers.to_string().contains("gone") || speaker.log().contains("gone"), "{peers}");
            Ok(())
        }),
        case("DESIGN §4: show peers tells state, AS, hold time and prefixes", |site| {
            let speaker = Config::new().peer(2, 65002).start(site)?;
            let mut peer = Peer::connect(site, 2)?;
            let mut open = open_of(site, 2, 65002);
            open.hold_time = 30;
            peer.establish(&open)?;
            peer.send(&update(
                &[],
                &[origin(0), as_path(&[65002]), next_hop(site.v4(2))],
                &nlri("198.51.100.0/24"),
            ))?;
            let address = site.v4(2).to_string();
            speaker.wait("/v1/peers", "the session", move |peers| {
                let row = &peers[0];
                row["peer"] == address.as_str()
                    && row["remoteAs"] == 65002
                    && row["localAs"] == 65001
                    && row["state"] == "Established"
                    && row["holdTime"].as_f64() == Some(30.0)
                    && row["received"].to_string().contains('1')
            })?;
            Ok(())
        }),
        case("RFC 9003 §2: the operator's message of the other side is shown", |site| {
            let speaker = Config::new().peer(2, 65002).start(site)?;
            let mut peer = established(site, 2, 65002)?;
            peer.send(&message(
                NOTIFICATION,
                &[6, 2, 11, b'm', b'a', b'i', b'n', b't', b'e', b'n', b'a', b'n', b'c', b'e'],
            ))?;
            speaker.wait("/v1/peers", "the message", |peers| {
                peers[0]["lastError"].to_string().contains("maintenan")
            })?;
            Ok(())
        }),
        case(
            "RFC 7606 §6: what was treated as withdraw is logged with the attribute and the prefix",
            |site| {
                let speaker = Config::new().peer(2, 65002).peer(3, 65003).start(site)?;
                let mut watcher = established(site, 3, 65003)?;
                let mut peer = established(site, 2, 65002)?;
                let base = [as_path(&[65002]), next_hop(site.v4(2))];
                let bad = [base.as_slice(), &[origin(9)]].concat();
                let good = [base.as_slice(), &[origin(0)]].concat();
                peer.send(&update(&[], &bad, &nlri("198.51.100.0/24")))?;
                peer.send(&update(&[], &good, &nlri("203.0.113.0/24")))?;
                watcher.route("203.0.113.0/24")?;
                let log = speaker.log();
                ensure!(log.contains("ORIGIN"), "{log}");
                Ok(())
            },
        ),
        case("DESIGN §4: a learned route is shown with its attributes", |site| {
            let speaker = Config::new().peer(2, 65002).start(site)?;
            let mut peer = established(site, 2, 65002)?;
            let attributes =
                [origin(1), as_path(&[65002, 7]), next_hop(site.v4(2)), med(5), communities(&[0xfc00_0064])];
            peer.send(&update(&[], &attributes, &nlri("198.51.100.0/24")))?;
            let next_hop = site.v4(2).to_string();
            speaker.wait("/v1/routes?direction=learned", "the route", move |routes| {
                routes.as_array().into_iter().flatten().any(|route| {
                    route["prefix"] == "198.51.100.0/24"
                        && route["origin"] == "EGP"
                        && route["asPath"] == serde_json::json!([65002, 7])
                        && route["nextHop"] == next_hop.as_str()
                        && route["med"] == 5
                        && route["communities"] == serde_json::json!(["64512:100"])
                        && route["accepted"] == true
                })
            })?;
            Ok(())
        }),
        case("RFC 5082 §3: ttlSecurity takes packets of TTL 255 only", |site| {
            let _speaker = Config::new().peer_with(2, 65002, "passive: true, ttlSecurity: 1").start(site)?;
            let mut near = with_ttl(site, 255)?;
            near.establish(&open_of(site, 2, 65002))?;
            near.until("an UPDATE", |peer| peer.updates > 0)
        }),
        case("RFC 5082 §3: ttlSecurity does not answer packets that came from further away", |site| {
            let _speaker = Config::new().peer_with(2, 65002, "passive: true, ttlSecurity: 1").start(site)?;
            let Ok(mut far) = with_ttl(site, 64) else { return Ok(()) };
            // What was sent before the speaker saw the connection may have slipped in: only what comes now counts.
            far.expect_open()?;
            let mut octets = Vec::new();
            causeway_bgp_wire::encode_open(&open_of(site, 2, 65002), &mut octets);
            far.send(&octets)?;
            far.send(&keepalive())?;
            far.listen_for(Duration::from_millis(1500)).ok();
            ensure!(far.updates == 0, "it talks to a distant host");
            Ok(())
        }),
    ]
}
