//! Hold and keepalive timers. RFC 4271 §4.2, §4.4, §6.5 and §10.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::octets::{self, keepalive, nlri, update};
use crate::peer::{Peer, established, open_of};
use crate::runner::{Case, Site, case};
use crate::speaker::Config;

/// A session with these hold times on both sides.
fn session(site: &Site, config: Config, hold_time: u16) -> Result<(crate::speaker::Speaker, Peer)> {
    let speaker = config.start(site)?;
    let mut peer = Peer::connect(site, 2)?;
    let mut open = open_of(site, 2, 65002);
    open.hold_time = hold_time;
    peer.establish(&open)?;
    Ok((speaker, peer))
}

fn with_hold(seconds: u16) -> Config {
    let keepalive = (seconds / 3).max(1);
    Config::new().peer_with(
        2,
        65002,
        &format!("passive: true, holdTime: {seconds}s, keepaliveTime: {keepalive}s"),
    )
}

/// The session must end with Hold Timer Expired, between these many seconds after the last message.
fn expires(site: &Site, config: Config, theirs: u16, between: std::ops::Range<f32>) -> Result<()> {
    let (_speaker, mut peer) = session(site, config, theirs)?;
    let since = Instant::now();
    let found = peer.expect_notification_within(Duration::from_secs(between.end as u64 + 3))?;
    let took = since.elapsed().as_secs_f32();
    ensure!((found.code, found.subcode) == (4, 0), "{found}");
    ensure!(between.contains(&took), "after {took:.1} s");
    Ok(())
}

pub fn cases() -> Vec<Case> {
    vec![
        case("RFC 4271 §6.5: Hold Timer Expired after the peer's hold time", |site| {
            expires(site, with_hold(90), 3, 2.5..5.0)
        }),
        case("RFC 4271 §4.2: the smaller hold time counts, here the speaker's", |site| {
            expires(site, with_hold(3), 90, 2.5..5.0)
        }),
        case("RFC 4271 §6.5: routes are withdrawn when the hold timer runs out", |site| {
            let (_speaker, mut peer) = session(site, with_hold(90).peer(3, 65003), 3)?;
            let mut watcher = established(site, 3, 65003)?;
            let attributes = [octets::origin(0), octets::as_path(&[65002]), octets::next_hop(site.v4(2))];
            peer.send(&update(&[], &attributes, &nlri("198.51.100.0/24")))?;
            watcher.route("198.51.100.0/24")?;
            watcher.withdrawn("198.51.100.0/24")?;
            peer.expect_notification(4, 0).map(|_| ())
        }),
        case("RFC 4271 §8.2.2: KEEPALIVEs keep the session", |site| {
            let (_speaker, mut peer) = session(site, with_hold(90), 3)?;
            for _ in 0..6 {
                peer.send(&keepalive())?;
                peer.listen_for(Duration::from_millis(1000))?;
            }
            Ok(())
        }),
        case("RFC 4271 §8.2.2: UPDATEs keep the session", |site| {
            let (_speaker, mut peer) = session(site, with_hold(90), 3)?;
            for _ in 0..6 {
                peer.send(&update(&nlri("198.51.100.0/24"), &[], &[]))?;
                peer.listen_for(Duration::from_millis(1000))?;
            }
            Ok(())
        }),
        case(
            "RFC 4271 §4.4: KEEPALIVEs come at a third of the hold time, not faster than one a second",
            |site| {
                let (_speaker, mut peer) = session(site, with_hold(90), 6)?;
                for _ in 0..3 {
                    peer.send(&keepalive())?;
                    peer.listen_for(Duration::from_millis(2500))?;
                }
                ensure!((3..=6).contains(&peer.keepalives), "{} in 7.5 s", peer.keepalives);
                Ok(())
            },
        ),
        case("RFC 4271 §4.4: the KEEPALIVE interval of the speaker's own hold time", |site| {
            let (_speaker, mut peer) = session(site, with_hold(9), 90)?;
            peer.keepalives = 0;
            peer.listen_for(Duration::from_millis(6700))?;
            ensure!((2..=3).contains(&peer.keepalives), "{} in 6.7 s", peer.keepalives);
            Ok(())
        }),
        case("RFC 4271 §4.4: with a hold time of zero no KEEPALIVE comes and nothing runs out", |site| {
            let (_speaker, mut peer) = session(site, with_hold(9), 0)?;
            peer.keepalives = 0;
            peer.listen_for(Duration::from_millis(10_500))?;
            ensure!(peer.keepalives == 0, "{} came", peer.keepalives);
            Ok(())
        }),
        case("RFC 4271 §8.2.2: the hold timer runs in OpenConfirm", |site| {
            let _speaker = with_hold(90).start(site)?;
            let mut peer = Peer::connect(site, 2)?;
            peer.send(&octets::open(4, 65002, 3, [192, 0, 2, 2], &[]))?;
            let found = peer.expect_notification_within(Duration::from_secs(8))?;
            ensure!((found.code, found.subcode) == (4, 0), "{found}");
            Ok(())
        }),
        case("RFC 4271 §4.2: hold time 3 with a KEEPALIVE a second", |site| {
            let (_speaker, mut peer) = session(site, with_hold(90), 3)?;
            peer.keepalives = 0;
            for _ in 0..4 {
                peer.send(&keepalive())?;
                peer.listen_for(Duration::from_millis(1000))?;
            }
            ensure!((3..=5).contains(&peer.keepalives), "{} in 4 s", peer.keepalives);
            Ok(())
        }),
    ]
}
