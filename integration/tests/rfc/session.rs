//! The state machine as a peer sees it, collisions, who may connect, how sessions end. RFC 4271 §6.5 to §6.8 and §8,
//! RFC 6608, RFC 4486, RFC 9003, RFC 2385.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use causeway_bgp_wire::encode_open;
use nix::sys::signal::Signal;

use crate::octets::*;
use crate::peer::{Heard, Peer, SOON, established, open_of};
use crate::runner::{Case, Site, case};
use crate::speaker::{AS, Config};

fn sent_open(site: &Site, host: u8, asn: u32) -> Vec<u8> {
    let mut octets = Vec::new();
    encode_open(&open_of(site, host, asn), &mut octets);
    octets
}

fn good_update(site: &Site) -> Vec<u8> {
    update(&[], &[origin(0), as_path(&[65002]), next_hop(site.v4(2))], &nlri("198.51.100.0/24"))
}

/// What is sent in which state, and the FSM error subcode it must lead to (RFC 6608).
fn unexpected() -> Vec<Case> {
    type Octets = fn(&Site) -> Vec<u8>;
    let messages: [(&str, Octets); 4] = [
        ("KEEPALIVE", |_| keepalive()),
        ("UPDATE", good_update),
        ("ROUTE-REFRESH", |_| message(ROUTE_REFRESH, &[0, 1, 0, 1])),
        ("OPEN", |site| sent_open(site, 2, 65002)),
    ];
    let mut cases = Vec::new();
    for (name, octets) in messages {
        if name != "OPEN" {
            cases.push(case(format!("RFC 6608 §3: {name} in OpenSent"), move |site| {
                let _speaker = Config::new().peer(2, 65002).start(site)?;
                let mut peer = Peer::connect(site, 2)?;
                peer.expect_open()?;
                peer.send(&octets(site))?;
                peer.expect_notification(5, 1).map(|_| ())
            }));
        }
        if name != "KEEPALIVE" {
            cases.push(case(format!("RFC 6608 §3: {name} in OpenConfirm"), move |site| {
                let _speaker = Config::new().peer(2, 65002).start(site)?;
                let mut peer = Peer::connect(site, 2)?;
                peer.send(&sent_open(site, 2, 65002))?;
                peer.expect_keepalive(SOON)?;
                peer.send(&octets(site))?;
                peer.expect_notification(5, 2).map(|_| ())
            }));
        }
    }
    cases.push(case("RFC 6608 §3: OPEN in Established", |site| {
        let _speaker = Config::new().peer(2, 65002).start(site)?;
        let mut peer = established(site, 2, 65002)?;
        peer.send(&sent_open(site, 2, 65002))?;
        peer.expect_notification(5, 3).map(|_| ())
    }));
    cases
}

pub fn cases() -> Vec<Case> {
    let mut cases = unexpected();
    cases.extend(connecting());
    cases.extend(collisions());
    cases.extend(endings());
    cases
}

fn connecting() -> Vec<Case> {
    vec![
        case("RFC 4271 §8.1.1: a passive peer is not connected to", |site| {
            let listener = Peer::listen(site, 2)?;
            let _speaker =
                Config::new().peer_with(2, 65002, "passive: true, connectRetryTime: 1s").start(site)?;
            ensure!(Peer::accept(&listener, Duration::from_secs(3)).is_err(), "it connected");
            Ok(())
        }),
        case("RFC 4271 §8.2.2: an active peer is connected to, from the node's address", |site| {
            let listener = Peer::listen(site, 2)?;
            let _speaker = Config::new().peer_with(2, 65002, "connectRetryTime: 1s").start(site)?;
            let mut peer = Peer::accept(&listener, SOON)?;
            peer.establish(&open_of(site, 2, 65002))?;
            peer.until("an UPDATE", |peer| peer.updates > 0)
        }),
        case("RFC 4271 §8.2.2: a refused connection is tried again after ConnectRetryTime", |site| {
            let _speaker = Config::new().peer_with(2, 65002, "connectRetryTime: 1s").start(site)?;
            std::thread::sleep(Duration::from_millis(1500));
            let listener = Peer::listen(site, 2)?;
            Peer::accept(&listener, SOON)?.establish(&open_of(site, 2, 65002)).map(|_| ())
        }),
        case("RFC 4271 §8.2.2: an active peer may connect itself", |site| {
            let _speaker = Config::new().peer_with(2, 65002, "connectRetryTime: 60s").start(site)?;
            established(site, 2, 65002).map(|_| ())
        }),
        case("RFC 4271 §8.2.1: a host that is no peer gets no session", |site| {
            let _speaker = Config::new().peer(2, 65002).start(site)?;
            let mut stranger = Peer::connect(site, 77)?;
            stranger.send(&sent_open(site, 77, 65077))?;
            loop {
                match stranger.next(SOON)? {
                    Heard::Closed => return Ok(()),
                    Heard::Message(m) => {
                        ensure!(matches!(m, causeway_bgp_wire::Message::Notification(_)), "it said {m:?}");
                    }
                    Heard::Nothing => anyhow::bail!("the connection stays"),
                }
            }
        }),
        case(
            "RFC 4271 §8.2.2: a TCP connection that falls in OpenSent leaves the peer free to come again",
            |site| {
                let _speaker = Config::new().peer(2, 65002).start(site)?;
                Peer::connect(site, 2)?.expect_open()?;
                again(site)
            },
        ),
        case(
            "RFC 4271 §8.2.2: a TCP connection that falls in OpenConfirm leaves the peer free to come again",
            |site| {
                let _speaker = Config::new().peer(2, 65002).start(site)?;
                let mut peer = Peer::connect(site, 2)?;
                peer.send(&sent_open(site, 2, 65002))?;
                peer.expect_keepalive(SOON)?;
                drop(peer);
                again(site)
            },
        ),
        case("RFC 4271 §8.2.2: a session that fell comes up again", |site| {
            let _speaker = Config::new().peer(2, 65002).start(site)?;
            drop(established(site, 2, 65002)?);
            again(site)
        }),
        case("RFC 4271 §8.2.2: an active peer is connected to again after its session fell", |site| {
            let listener = Peer::listen(site, 2)?;
            let _speaker = Config::new().peer_with(2, 65002, "connectRetryTime: 1s").start(site)?;
            let mut peer = Peer::accept(&listener, SOON)?;
            peer.establish(&open_of(site, 2, 65002))?;
            drop(peer);
            Peer::accept(&listener, Duration::from_secs(20))?.establish(&open_of(site, 2, 65002)).map(|_| ())
        }),
        case("DESIGN §3: a range of peers", |site| {
            let fields = "peerRange: SUBNET/24, passive: true";
            let _speaker = Config::new().peer_with(2, 65002, fields).start(site)?;
            let mut first = established(site, 40, 65002)?;
            let mut second = established(site, 41, 65002)?;
            first.until("an UPDATE", |peer| peer.updates > 0)?;
            second.until("an UPDATE", |peer| peer.updates > 0)
        }),
        case("DESIGN §3: localASNumber is who the speaker is to that peer", |site| {
            let _speaker =
                Config::new().peer_with(2, 65002, "passive: true, localASNumber: 65100").start(site)?;
            let mut peer = Peer::connect(site, 2)?;
            let open = peer.establish(&open_of(site, 2, 65002))?;
            ensure!(open.asn().0 == 65100, "AS {}", open.asn());
            let route = peer.route("10.244.1.0/24")?;
            ensure!(route.as_path.first_as().is_some_and(|asn| asn.0 == 65100), "path {}", route.as_path);
            Ok(())
        }),
    ]
}

/// The peer comes again; a speaker that holds it back for a moment after an error is given that moment.
fn again(site: &Site) -> Result<()> {
    again_established(site).map(|_| ())
}

fn again_established(site: &Site) -> Result<Peer> {
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        match established(site, 2, 65002) {
            Ok(peer) => return Ok(peer),
            Err(error) if Instant::now() > until => return Err(error.context("it did not come up again")),
            Err(_) => std::thread::sleep(Duration::from_millis(200)),
        }
    }
}

fn collisions() -> Vec<Case> {
    /// Both sides connect; the peer's identifier is higher or lower than the speaker's.
    fn collide(site: &Site, higher: bool) -> Result<()> {
        let listener = Peer::listen(site, 2)?;
        let _speaker = Config::new().peer_with(2, 65002, "connectRetryTime: 1s").start(site)?;
        let mut theirs = Peer::accept(&listener, SOON)?;
        let mut ours = Peer::connect(site, 2)?;
        let mut open = open_of(site, 2, 65002);
        open.router_id = if higher { [250, 0, 0, 1].into() } else { [1, 0, 0, 1].into() };
        let mut octets = Vec::new();
        encode_open(&open, &mut octets);
        theirs.expect_open()?;
        ours.expect_open()?;
        theirs.send(&octets)?;
        theirs.expect_keepalive(SOON)?;
        ours.send(&octets)?;
        // RFC 4271 §6.8: the connection of the side with the higher identifier stays.
        let (mut stays, mut goes) = if higher { (ours, theirs) } else { (theirs, ours) };
        goes.expect_notification(6, 7)?;
        if higher {
            stays.expect_keepalive(SOON)?;
        }
        stays.send(&keepalive())?;
        stays.until("an UPDATE", |peer| peer.updates > 0)
    }
    /// The peer connects twice: the first has got to OpenConfirm when the OPEN comes over the second.
    fn twice(site: &Site, higher: bool) -> Result<()> {
        let _speaker = Config::new().peer(2, 65002).start(site)?;
        let mut open = open_of(site, 2, 65002);
        open.router_id = if higher { [250, 0, 0, 1].into() } else { [1, 0, 0, 1].into() };
        let mut octets = Vec::new();
        encode_open(&open, &mut octets);
        let mut first = Peer::connect(site, 2)?;
        first.send(&octets)?;
        first.expect_keepalive(SOON)?;
        let mut second = Peer::connect(site, 2)?;
        second.send(&octets)?;
        let (mut stays, mut goes) = if higher { (second, first) } else { (first, second) };
        goes.expect_notification(6, 7)?;
        if higher {
            stays.expect_keepalive(SOON)?;
        }
        stays.send(&keepalive())?;
        stays.until("an UPDATE", |peer| peer.updates > 0)
    }
    vec![
        case(
            "RFC 4271 §6.8: of two connections the one of the higher identifier stays: the peer's",
            |site| collide(site, true),
        ),
        case(
            "RFC 4271 §6.8: of two connections the one of the higher identifier stays: the speaker's",
            |site| collide(site, false),
        ),
        case(
            "RFC 4271 §6.8: two connections of a peer with the higher identifier: the new one stays",
            |site| twice(site, true),
        ),
        case(
            "RFC 4271 §6.8: two connections of a peer with the lower identifier: the old one stays",
            |site| twice(site, false),
        ),
        case("RFC 4271 §6.8: a connection without an OPEN is in nobody's way", |site| {
            let _speaker = Config::new().peer(2, 65002).start(site)?;
            let mut silent = Peer::connect(site, 2)?;
            silent.expect_open()?;
            established(site, 2, 65002)?.until("an UPDATE", |peer| peer.updates > 0)
        }),
        case("RFC 4271 §6.8: an established session survives another connection", |site| {
            let _speaker = Config::new().peer(2, 65002).start(site)?;
            let mut peer = established(site, 2, 65002)?;
            let mut second = Peer::connect(site, 2)?;
            second.send(&sent_open(site, 2, 65002))?;
            second.expect_closed()?;
            peer.send(&good_update(site))?;
            peer.listen_for(Duration::from_millis(500))
        }),
    ]
}

fn endings() -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, data) in [
        ("Cease", vec![6, 2]),
        ("an unknown error", vec![99, 99, 1, 2, 3]),
        ("Cease with text", vec![6, 2, 3, b'b', b'y', b'e']),
    ] {
        cases.push(case(format!("RFC 4271 §6.5: {name} ends the session without an answer"), move |site| {
            let _speaker = Config::new().peer(2, 65002).peer(3, 65003).start(site)?;
            let mut watcher = established(site, 3, 65003)?;
            let mut peer = established(site, 2, 65002)?;
            peer.send(&good_update(site))?;
            watcher.route("198.51.100.0/24")?;
            peer.send(&message(NOTIFICATION, &data))?;
            loop {
                match peer.next(SOON)? {
                    Heard::Closed => break,
                    Heard::Message(causeway_bgp_wire::Message::Notification(n)) => {
                        anyhow::bail!("it answered {n}")
                    }
                    Heard::Message(_) => {}
                    Heard::Nothing => anyhow::bail!("the connection stays"),
                }
            }
            watcher.withdrawn("198.51.100.0/24")
        }));
    }
    cases.extend([
        case("RFC 4271 §6.7, RFC 4486 §4: SIGTERM says Cease to every peer and ends with 0", |site| {
            let mut speaker = Config::new().peer(2, 65002).peer(3, AS).start(site)?;
            let mut first = established(site, 2, 65002)?;
            let mut second = established(site, 3, AS)?;
            speaker.signal(Signal::SIGTERM)?;
            first.expect_error(6)?;
            second.expect_error(6)?;
            let status = speaker.ended()?;
            ensure!(status.success(), "{status}");
            Ok(())
        }),
        case("RFC 4486 §4: a peer taken out of the documents gets Cease / Peer De-configured", |site| {
            let speaker = Config::new().peer(2, 65002).peer(3, 65003).start(site)?;
            let mut stays = established(site, 2, 65002)?;
            let mut goes = established(site, 3, 65003)?;
            Config::new().peer(2, 65002).replace(site, &speaker)?;
            goes.expect_notification(6, 3)?;
            stays.listen_for(Duration::from_millis(500))
        }),
        case("RFC 4486 §4: a peer whose hold time changes is reset, the others are not", |site| {
            let speaker = Config::new().peer(2, 65002).peer(3, 65003).start(site)?;
            let mut stays = established(site, 2, 65002)?;
            let mut goes = established(site, 3, 65003)?;
            let changed = "passive: true, holdTime: 30s, keepaliveTime: 10s";
            Config::new().peer(2, 65002).peer_with(3, 65003, changed).replace(site, &speaker)?;
            goes.expect_notification(6, 6)?;
            stays.until("the first sending", |peer| peer.end_of_rib.len() == 2)?;
            let updates = stays.updates;
            stays.listen_for(Duration::from_millis(500))?;
            ensure!(stays.updates == updates, "the other peer was told something");
            Ok(())
        }),
        case("DESIGN §3: a changed filter takes effect without a reset", |site| {
            let speaker = Config::new().peer(2, 65002).peer(3, 65003).start(site)?;
            let mut watcher = established(site, 3, 65003)?;
            let mut peer = established(site, 2, 65002)?;
            peer.send(&good_update(site))?;
            watcher.route("198.51.100.0/24")?;
            Config::new()
                .peer_with(2, 65002, "passive: true, filters: []")
                .peer(3, 65003)
                .replace(site, &speaker)?;
            watcher.withdrawn("198.51.100.0/24")?;
            Config::new().peer(2, 65002).peer(3, 65003).replace(site, &speaker)?;
            watcher.until("it again, or a refresh asked for", |w| w.has("198.51.100.0/24"))?;
            peer.listen_for(Duration::from_millis(200))
        }),
        case("RFC 4486 §4: reset, disable and enable from the command line", |site| {
            let speaker = Config::new().peer(2, 65002).start(site)?;
            let address = site.v4(2);
            let mut peer = established(site, 2, 65002)?;
            speaker.post(&format!("/v1/peers/{address}/reset"))?;
            peer.expect_notification(6, 4)?;
            let mut peer = again_established(site)?;
            speaker.post(&format!("/v1/peers/{address}/disable"))?;
            peer.expect_notification(6, 2)?;
            ensure!(established(site, 2, 65002).is_err(), "a disabled peer got a session");
            speaker.post(&format!("/v1/peers/{address}/enable"))?;
            again_established(site).map(|_| ())
        }),
        case("DESIGN §3: a bad document changes nothing", |site| {
            let speaker = Config::new().peer(2, 65002).start(site)?;
            let mut peer = established(site, 2, 65002)?;
            Config::new().peer_with(2, 65002, "passive: true, nonsense: 1").replace(site, &speaker)?;
            peer.listen_for(Duration::from_millis(2500))
        }),
        case(
            "RFC 4486 §4: more prefixes than allowed is Cease / Maximum Number of Prefixes Reached",
            |site| {
                let fields = "passive: true, maxPrefixes: {ipv4: 3}";
                let _speaker = Config::new().peer_with(2, 65002, fields).start(site)?;
                let mut peer = established(site, 2, 65002)?;
                let attributes = [origin(0), as_path(&[65002]), next_hop(site.v4(2))];
                let prefixes: Vec<u8> = (0..4).flat_map(|i| nlri(&format!("198.51.{i}.0/24"))).collect();
                peer.send(&update(&[], &attributes, &prefixes))?;
                let found = peer.expect_notification(6, 1)?;
                ensure!(
                    found.data.is_empty() || found.data[..] == [0, 1, 1, 0, 0, 0, 3],
                    "data {:?}",
                    found.data
                );
                Ok(())
            },
        ),
        case("RFC 4486 §4: as many prefixes as allowed are fine, and withdrawn ones do not count", |site| {
            let fields = "passive: true, maxPrefixes: {ipv4: 3}";
            let _speaker = Config::new().peer_with(2, 65002, fields).start(site)?;
            let mut peer = established(site, 2, 65002)?;
            let attributes = [origin(0), as_path(&[65002]), next_hop(site.v4(2))];
            for i in 0..6 {
                let gone = if i >= 3 { nlri(&format!("198.51.{}.0/24", i - 3)) } else { vec![] };
                peer.send(&update(&gone, &attributes, &nlri(&format!("198.51.{i}.0/24"))))?;
            }
            peer.listen_for(Duration::from_millis(500))
        }),
        case("RFC 4271 §6.3: an error on one session leaves the others alone", |site| {
            let _speaker = Config::new().peer(2, 65002).peer(3, 65003).start(site)?;
            let mut bad = established(site, 2, 65002)?;
            let mut good = established(site, 3, 65003)?;
            bad.send(&message(UPDATE, &[0, 9, 0, 0]))?;
            bad.expect_notification(3, 1)?;
            good.listen_for(Duration::from_millis(500))
        }),
    ]);
    cases
}
