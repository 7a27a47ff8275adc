//! How fast routes leave for fib-sync and install statuses come in.
//!
//! `cargo run --release -p causeway-bgpd --example fib_feed [ROUTES]`: one peer's table is put into the speaker, and a
//! stand-in for fib-sync, a thread of its own, takes the feed and then reports every route as installed. Prints, for
//! both ways, the seconds it took and the processor time of the speaker's thread.

#![allow(clippy::print_stdout, clippy::unwrap_used)]

use std::io::{Read, Write};
use std::net::Ipv4Addr;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::{Arc, mpsc as channel};
use std::time::{Duration, Instant};

use causeway_api::control::FIB_FEED_SOCKET;
use causeway_api::fib::{Command, Decoder, Event, Message, NextHopState, RouteState, VERSION, Via};
use causeway_bgp_core::config::Role;
use causeway_bgp_core::event::{Input, PeerId, SessionInfo};
use causeway_bgp_core::peer::RestartMarks;
use causeway_bgp_core::speaker::{Speaker, StartMode};
use causeway_bgp_wire::{
    Announcement, AsPath, Asn, FamilySet, Ipv4Prefix, NlriList, Origin, PathAttributes, PrefixKey, Update,
};
use causeway_bgpd::fib_side::FibSide;
use causeway_bgpd::listen::{ListenOn, Listener};
use causeway_bgpd::speaker_link::{ROOM, speaker_link};
use causeway_bgpd::speaker_task::{self, Call, Nursery, State};
use causeway_bgpd::{fib_client, lower};
use causeway_daemon::signals::Shutdown;
use tokio::sync::{mpsc, oneshot, watch};

const DOCUMENTS: &str = "
apiVersion: causeway.dev/v1alpha1
kind: Node
metadata: {name: node}
spec:
  bgp: {ipv4Address: 192.0.2.100/24, asNumber: 64512}
---
apiVersion: causeway.dev/v1alpha1
kind: IPPool
metadata: {name: all}
spec: {cidr: 10.0.0.0/8}
---
apiVersion: causeway.dev/v1alpha1
kind: BGPPeer
metadata: {name: tor}
spec: {peerIP: 192.0.2.1, asNumber: 64601, passive: true}
";

/// Prefixes of one UPDATE.
const PER_UPDATE: u32 = 100;

/// Processor time of this thread.
fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(stat.split_whitespace().next().unwrap().parse().unwrap())
}

fn session() -> SessionInfo {
    SessionInfo {
        remote_as: Asn(64601),
        local_as: Asn(64512),
        router_id: Ipv4Addr::new(10, 0, 0, 1),
        local_address: Ipv4Addr::new(192, 0, 2, 100).into(),
        local_link_local: None,
        remote_address: Ipv4Addr::new(192, 0, 2, 1).into(),
        families: FamilySet::ALL,
        four_octet_as: true,
        extended_message: false,
        route_refresh: true,
        enhanced_refresh: false,
        graceful: None,
        hold_time: Duration::from_secs(90),
        keepalive_time: Duration::from_secs(30),
        capabilities: Vec::new(),
    }
}

/// The peer's table.
fn fill(state: &mut State, routes: u32) {
    let peer: PeerId = *state.peers.keys().next().unwrap();
    state.speaker.handle(Instant::now(), Input::SessionUp { peer, session: Arc::new(session()) });
    for update in 0..routes / PER_UPDATE {
        let prefix = |number: u32| Ipv4Prefix::from_bits(0x0a00_0000 + (number << 4), 28).unwrap().into();
        let numbers = update * PER_UPDATE..(update + 1) * PER_UPDATE;
        let announcement = Announcement {
            attributes: PathAttributes {
                as_path: AsPath::from_sequence([Asn(64601)]),
                ..PathAttributes::new(Origin::Igp, Ipv4Addr::new(192, 0, 2, 1).into())
            },
            nlri: NlriList::V4(numbers.map(prefix).collect()),
        };
        let update = Update { announced: [announcement].into_iter().collect(), ..Update::default() };
        state.speaker.handle(Instant::now(), Input::Updates { peer, updates: (&update).into() });
    }
}

/// In fib-sync's place: says when it has so many routes, and reports them as installed when it is told to.
fn stand_in(listener: UnixListener, routes: usize, all: channel::Sender<()>, report: channel::Receiver<()>) {
    let (mut stream, _) = listener.accept().unwrap();
    let say = |stream: &mut UnixStream, events: &[Event]| {
        let mut bytes = Vec::new();
        events.iter().for_each(|event| event.encode(&mut bytes));
        stream.write_all(&bytes).unwrap();
    };
    say(&mut stream, &[Event::Hello { version: VERSION, ipv4_kept: false, ipv6_kept: false }]);
    let (mut decoder, mut buffer) = (Decoder::new(), vec![0; 256 << 10]);
    let mut statuses = Vec::new();
    while statuses.len() < routes {
        let length = stream.read(&mut buffer).unwrap();
        decoder.extend(&buffer[..length]);
        while let Some(command) = decoder.poll().unwrap() {
            match command {
                Command::Route { prefix, generation, .. } => {
                    let state = RouteState::Installed { via: Via::Direct };
                    statuses.push(Event::Status { prefix, generation, state });
                }
                Command::NextHopRegister { next_hop } => {
                    let state = NextHopState::Connected { device: "eth0".to_owned(), ifindex: 2 };
                    say(&mut stream, &[Event::NextHopState { next_hop, state }]);
                }
                _ => {}
            }
        }
    }
    all.send(()).unwrap();
    report.recv().unwrap();
    statuses.chunks(1024).for_each(|some| say(&mut stream, some));
    // Until the other end goes.
    let _ = stream.read(&mut buffer);
}

/// Asks the speaker's thread.
async fn ask<T: Send + 'static>(
    calls: &mpsc::Sender<Call>,
    question: impl FnOnce(&mut State) -> T + Send + 'static,
) -> T {
    let (answer, answered) = oneshot::channel();
    let call: Call = Box::new(move |state| {
        let _ = answer.send(question(state));
    });
    assert!(calls.send(call).await.is_ok());
    answered.await.unwrap()
}

fn print(what: &str, routes: u32, time: Duration, cpu: Duration) {
    let rate = |time: Duration| f64::from(routes) / time.as_secs_f64() / 1e6;
    println!(
        "{what:<16} {:>6.3} s ({:>4.2} M/s), of the speaker's thread {:>6.3} s ({:>4.2} M/s)",
        time.as_secs_f64(),
        rate(time),
        cpu.as_secs_f64(),
        rate(cpu)
    );
}

async fn run(folder: PathBuf, routes: u32) {
    let path = folder.join("node.yaml");
    std::fs::write(&path, DOCUMENTS).unwrap();
    let lowered = lower::read(&path, "node", Role::Node).unwrap();
    let listener = UnixListener::bind(folder.join(FIB_FEED_SOCKET)).unwrap();
    let (all, has_all) = channel::channel();
    let (report, told) = channel::channel();
    std::thread::spawn(move || stand_in(listener, routes as usize, all, told));

    let (handle, shutdown) = Shutdown::manual();
    let (link, from_peers) = speaker_link(ROOM);
    let on = ListenOn::Addresses(vec!["127.0.0.1:0".parse().unwrap()]);
    let listener = Listener::start(&on, link.clone()).unwrap();
    let (marks, _) = watch::channel(RestartMarks::default());
    let nursery = Nursery { listener, marks, speaker: link };
    let speaker = Speaker::new(Instant::now(), StartMode { restarting: false, fib: true });
    let fib = FibSide::new(Some(fib_client::spawn(&folder, false, shutdown.clone())));
    let state = State::new(speaker, fib, nursery, 0);
    let (_config, config) = watch::channel(lowered.config);
    let (calls, call_rx) = mpsc::channel(1);
    let run = speaker_task::run(state, config, from_peers, call_rx, shutdown);
    let story = async {
        let (started, before) = ask(&calls, move |state| {
            fill(state, routes);
            (Instant::now(), cpu())
        })
        .await;
        tokio::task::spawn_blocking(move || has_all.recv().unwrap()).await.unwrap();
        let time = started.elapsed();
        print("routes out", routes, time, ask(&calls, |_| cpu()).await - before);

        let (started, before) = (Instant::now(), ask(&calls, |_| cpu()).await);
        report.send(()).unwrap();
        let installed = |state: &mut State| {
            state.speaker.counters().families.iter().map(|f| f.fib_installed).sum::<u64>()
        };
        while ask(&calls, installed).await < u64::from(routes) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let time = started.elapsed();
        print("statuses in", routes, time, ask(&calls, |_| cpu()).await - before);
        handle.begin();
    };
    tokio::join!(run, story);
}

fn main() {
    let routes: u32 = std::env::args().nth(1).map_or(1_000_000, |text| text.parse().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(run(folder.path().to_owned(), routes));
}
