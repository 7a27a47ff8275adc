//! Routes over restarts of bgpd, of fib-sync, and of both; and feeds that misbehave.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use causeway_api::fib::{Command, Decoder, Event, MAX_FRAME, Message, VERSION};
use causeway_kernel::{NextHop, Route};

use crate::scene::{Bgpd, DOCUMENTS, PATIENCE, Scene, eventually, ip, network};

fn learned(scene: &Scene, numbers: std::ops::Range<u8>) -> Vec<Route> {
    let hop = NextHop::gateway(ip("192.0.2.2"), scene.links[0]);
    numbers.map(|n| Route::unicast(network(&format!("10.{n}.0.0/16")), vec![hop])).collect()
}

fn announce(bgpd: &mut Bgpd, numbers: std::ops::Range<u8>) {
    bgpd.group(1, &["192.0.2.2"]);
    for n in numbers {
        let generation = bgpd.route(&format!("10.{n}.0.0/16"), 1);
        bgpd.installed(&format!("10.{n}.0.0/16"), generation);
    }
}

/// Asks something and waits for the answer, so that all that was said before has been done.
fn settled(bgpd: &mut Bgpd) {
    bgpd.withdraw("10.255.0.0/16");
    bgpd.wait("an answer", |event| matches!(event, Event::Status { .. }).then_some(()));
}

#[test]
fn a_new_bgpd_deletes_nothing_before_its_mark() {
    let mut scene = Scene::running();
    let mut first = Bgpd::connect(&scene);
    announce(&mut first, 0..4);
    first.end_of_snapshot();
    scene.expect(learned(&scene, 0..4));
    drop(first);

    // It comes back with an empty table.
    let mut second = Bgpd::connect(&scene);
    assert_eq!(second.kept, (true, true));
    settled(&mut second);
    assert_eq!(scene.learned(), learned(&scene, 0..4));
    // While it makes up its mind, what was there is still looked after.
    scene.kernel.delete_route(&learned(&scene, 0..1)[0].key, 179).unwrap();
    scene.expect(learned(&scene, 0..4));
    announce(&mut second, 2..6);
    assert_eq!(scene.learned(), learned(&scene, 0..6));
    second.end_of_snapshot();
    scene.expect(learned(&scene, 2..6));
}

#[test]
fn a_bgpd_that_stays_away_loses_its_routes_after_the_restart_time() {
    let mut scene = Scene::new();
    scene.write_documents(&DOCUMENTS.replace("120s", "1s"));
    scene.start();
    let mut bgpd = Bgpd::connect(&scene);
    announce(&mut bgpd, 0..4);
    bgpd.end_of_snapshot();
    drop(bgpd);
    let left = std::time::Instant::now();
    scene.expect(Vec::new());
    assert!(left.elapsed() > Duration::from_millis(900), "gone after {:?}", left.elapsed());
    assert!(scene.route("10.244.1.0/24").is_some(), "the own block stays");
    let late = Bgpd::connect(&scene);
    assert_eq!(late.kept, (false, false));
}

#[test]
fn a_killed_fib_sync_leaves_the_routes_and_its_successor_adopts_them() {
    let mut scene = Scene::running();
    let mut bgpd = Bgpd::connect(&scene);
    announce(&mut bgpd, 0..4);
    bgpd.end_of_snapshot();
    scene.kill();
    assert_eq!(scene.learned(), learned(&scene, 0..4));
    scene.start();
    assert_eq!(scene.learned(), learned(&scene, 0..4));
    assert_eq!(scene.row("10.1.0.0/16").unwrap().state, "kept");
    let mut bgpd = Bgpd::connect(&scene);
    assert!(bgpd.kept.0);
    announce(&mut bgpd, 1..5);
    assert_eq!(scene.learned(), learned(&scene, 0..5));
    assert_eq!(scene.metric("causeway_fib_netlink_changes_total"), 1.0, "only the new route was written");
    bgpd.end_of_snapshot();
    scene.expect(learned(&scene, 1..5));
    assert_eq!(scene.metric("causeway_fib_routes_healed_total"), 0.0);
}

#[test]
fn leftovers_of_an_earlier_run_go_after_the_restart_time() {
    let mut scene = Scene::new();
    scene.write_documents(&DOCUMENTS.replace("120s", "1s"));
    for route in learned(&scene, 0..3) {
        scene.kernel.add_route(&route).unwrap();
    }
    scene.start();
    scene.expect(Vec::new());
}

#[test]
fn kills_at_random_moments_never_leave_a_wrong_route() {
    let mut scene = Scene::new();
    let everything = learned(&scene, 0..200);
    for round in 0..12 {
        scene.spawn();
        let pause = Duration::from_micros(fastrand::u64(0..60_000));
        if round % 3 != 0
            && let Ok(mut stream) = {
                eventually("fib.sock answers", || UnixStream::connect(scene.run_dir.join("fib.sock")).ok());
                UnixStream::connect(scene.run_dir.join("fib.sock"))
            }
        {
            let mut bytes = Vec::new();
            Command::Hello { version: VERSION, restarted: true }.encode(&mut bytes);
            Command::SnapshotBegin.encode(&mut bytes);
            let next_hop = causeway_api::fib::NextHop::global(ip("192.0.2.2"));
            let members = vec![causeway_api::fib::GroupMember::plain(next_hop)];
            Command::Group { id: 1, members, backups: Vec::new() }.encode(&mut bytes);
            for (n, route) in everything.iter().enumerate() {
                let prefix = route.key.destination;
                Command::Route { prefix, group: 1, generation: n as u64 }.encode(&mut bytes);
            }
            stream.write_all(&bytes).unwrap();
            std::thread::sleep(pause);
        }
        let before = scene.learned();
        scene.kill();
        let after = scene.learned();
        assert!(after.iter().all(|route| everything.contains(route)), "round {round}: {after:?}");
        assert!(before.iter().all(|route| after.contains(route)), "round {round}: routes were lost");
    }
    scene.start();
    let mut bgpd = Bgpd::connect(&scene);
    announce(&mut bgpd, 0..200);
    bgpd.end_of_snapshot();
    scene.expect(everything);
}

#[test]
fn the_latest_bgpd_wins() {
    let mut scene = Scene::running();
    let mut first = Bgpd::connect(&scene);
    announce(&mut first, 0..2);
    let mut second = Bgpd::connect(&scene);
    assert_eq!(first.goodbye(), "another bgpd connected");
    assert_eq!(first.try_next(), None);
    announce(&mut second, 0..1);
    second.end_of_snapshot();
    scene.expect(learned(&scene, 0..1));
}

#[test]
fn feeds_that_misbehave_are_shown_the_door_and_change_nothing() {
    let mut scene = Scene::running();
    let mut bgpd = Bgpd::connect(&scene);
    announce(&mut bgpd, 0..2);
    bgpd.end_of_snapshot();
    let said = |bytes: &[u8]| {
        let mut stream = UnixStream::connect(scene.run_dir.join("fib.sock")).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(bytes).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        let mut decoder = Decoder::new();
        decoder.extend(&answer);
        match decoder.poll::<Event>().unwrap() {
            Some(Event::Goodbye { reason }) => reason,
            other => panic!("{other:?}"),
        }
    };
    let encoded = |command: &Command| {
        let mut bytes = Vec::new();
        command.encode(&mut bytes);
        bytes
    };
    assert_eq!(said(&[0xff; 64]), format!("frame of 4294967295 bytes (allowed: 1 to {MAX_FRAME})"));
    assert_eq!(said(&encoded(&Command::SnapshotBegin)), "the first message is no Hello");
    assert_eq!(
        said(&encoded(&Command::Hello { version: 99, restarted: false })),
        "version 99 of the FIB feed; this is version 2"
    );
    // bgpd itself goes mad: it is closed, and its routes stay.
    bgpd.send_bytes(&[0, 0, 0, 1, 200]);
    assert_eq!(bgpd.goodbye(), "unknown message type 200");
    assert_eq!(bgpd.try_next(), None);
    assert_eq!(scene.learned(), learned(&scene, 0..2));
    let bgpd = Bgpd::connect(&scene);
    assert_eq!(bgpd.kept, (true, true));
}
