//! Back pressure both ways: a speaker that is behind, a peer that is slow; and sessions told apart by their epoch.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use causeway_bgpd::outbox::{Outbox, Sent};
use causeway_bgpd::speaker_link::{Epoch, PeerHandle, ROOM, ToSpeaker};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use super::rig::{
    End, PATIENCE, empty_update, handshake, keepalive, numbered_update, read_message, settings,
};

/// A passive peer's task, and the far end of an Established session with it.
async fn established(ours: &mut End, hold_time: u16) -> (PeerHandle, TcpStream, Epoch, Arc<Outbox>) {
    established_from(ours, Ipv4Addr::LOCALHOST, hold_time).await
}

/// The same, with the far end at this address of loopback.
async fn established_from(
    ours: &mut End,
    address: Ipv4Addr,
    hold_time: u16,
) -> (PeerHandle, TcpStream, Epoch, Arc<Outbox>) {
    let mut passive = settings();
    passive.session.passive = true;
    let handle = ours.peer(SocketAddr::new(address.into(), 1), passive);
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::new(address.into(), 0)).unwrap();
    let mut far = socket.connect(ours.address()).await.unwrap();
    handshake(&mut far, hold_time).await;
    let (epoch, _, outbox) = ours.up_with_outbox().await;
    (handle, far, epoch, outbox)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_speaker_that_is_behind_slows_the_peer_and_loses_nothing_and_no_session() {
    const UPDATES: usize = 400_000;
    let mut ours = End::new("127.0.0.1".parse().unwrap());
    let (_handle, mut far, _, _) = established(&mut ours, 3).await;
    let (mut reading, mut writing) = far.split();
    let begun = Instant::now();
    let write = async {
        for _ in 0..UPDATES / 1000 {
            writing.write_all(&empty_update().repeat(1000)).await.unwrap();
        }
        // Keepalives go on, for as long as the other side needs.
        loop {
            writing.write_all(&keepalive()).await.unwrap();
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    };
    let read = async {
        let mut keepalives: Vec<Instant> = Vec::new();
        loop {
            let mut octets = [0; 19];
            tokio::io::AsyncReadExt::read_exact(&mut reading, &mut octets).await.unwrap();
            assert_eq!(octets[18], 4, "nothing but keepalives");
            let now = Instant::now();
            let last = keepalives.last().copied().unwrap_or(begun);
            assert!(now - last < Duration::from_secs(2), "a keepalive a second, come what may");
            keepalives.push(now);
        }
    };
    let speak = async {
        // Busy for longer than the hold time.
        tokio::time::sleep(Duration::from_secs(5)).await;
        let mut count = 0;
        while count < UPDATES {
            match ours.event().await {
                ToSpeaker::Updates { updates, .. } => count += updates.len(),
                ToSpeaker::SessionDown { down, .. } => panic!("the session fell: {down:?}"),
                _ => {}
            }
        }
        assert_eq!(count, UPDATES);
    };
    tokio::select! {
        () = write => {}
        () = read => {}
        () = speak => {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_under_way_to_a_speaker_that_has_stopped_is_bounded_for_all_peers_together() {
    const PEERS: u8 = 8;
    let mut ours = End::new("127.0.0.1".parse().unwrap());
    let (mut far_ends, mut writers) = (Vec::new(), Vec::new());
    for number in 1..=PEERS {
        let (_, far, _, _) = established_from(&mut ours, Ipv4Addr::new(127, 0, 0, number), 0).await;
        far_ends.push(far);
    }
    for far in far_ends {
        writers.push(tokio::spawn(async move {
            let (mut far, octets) = (far, empty_update().repeat(1000));
            // More than the sockets hold, so that the end is not reached before the speaker listens.
            for _ in 0..2000 {
                far.write_all(&octets).await.unwrap();
            }
            far
        }));
    }
    let waiting = |ours: &End| ours.events.len();
    // Nothing is taken in: the queue grows to its bound and stays there.
    let (mut last, mut quiet) = (0, Instant::now());
    let begun = Instant::now();
    while quiet.elapsed() < Duration::from_millis(500) {
        tokio::time::sleep(Duration::from_millis(10)).await;
        if waiting(&ours) != last {
            (last, quiet) = (waiting(&ours), Instant::now());
        }
        assert!(begun.elapsed() < PATIENCE, "it never comes to rest");
    }
    let mut octets = 0;
    for _ in 0..last {
        if let ToSpeaker::Updates { updates, .. } = ours.events.try_recv().unwrap().message {
            octets += updates.len() * empty_update().len();
        }
    }
    assert!(octets > ROOM / 4, "it was full: {octets}");
    assert!(octets <= ROOM + usize::from(PEERS) * 4096, "what a read left over may come on top: {octets}");
    writers.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_with_a_large_table_does_not_hold_up_a_small_one() {
    let mut ours = End::new("127.0.0.1".parse().unwrap());
    let (_, mut large, _, _) = established_from(&mut ours, Ipv4Addr::new(127, 0, 0, 1), 0).await;
    let flood = tokio::spawn(async move {
        let octets = empty_update().repeat(1000);
        while large.write_all(&octets).await.is_ok() {}
    });
    let (_, mut small, _, _) = established_from(&mut ours, Ipv4Addr::new(127, 0, 0, 2), 0).await;
    // The rig gives both the same number; only the small one asks for anything.
    small.write_all(&[empty_update(), super::rig::route_refresh()].concat()).await.unwrap();
    let mut octets = 0;
    loop {
        match ours.event().await {
            ToSpeaker::Updates { updates, .. } => octets += updates.len() * empty_update().len(),
            ToSpeaker::RouteRefresh { .. } => break,
            other => panic!("{other:?}"),
        }
        assert!(octets < 16 * ROOM, "the small peer is never heard");
    }
    flood.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn data_goes_out_in_order() {
    let mut ours = End::new("127.0.0.1".parse().unwrap());
    let (_handle, mut far, _, outbox) = established(&mut ours, 90).await;
    for round in 0..3 {
        let mut data: Vec<Bytes> = vec![numbered_update(round).into(), empty_update().into()];
        assert_eq!(outbox.send(Instant::now(), &mut data), Sent::Drained);
        assert!(data.is_empty());
        let (kind, body) = read_message(&mut far).await.unwrap();
        assert_eq!((kind, &body[4..]), (2, &round.to_be_bytes()[..]));
        assert_eq!(read_message(&mut far).await.unwrap(), (2, vec![0; 4]));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_belongs_to_a_session_that_is_over_never_leaves() {
    let mut ours = End::new("127.0.0.1".parse().unwrap());
    let (_handle, far, _, old) = established(&mut ours, 90).await;
    drop(far);
    ours.down().await;
    let mut far = TcpStream::connect(ours.address()).await.unwrap();
    handshake(&mut far, 90).await;
    let (_, _, new) = ours.up_with_outbox().await;
    let send =
        |outbox: &Outbox, number| outbox.send(Instant::now(), &mut vec![numbered_update(number).into()]);
    assert_eq!(send(&old, 1), Sent::Closed);
    assert_eq!(send(&new, 2), Sent::Drained);
    let (_, body) = read_message(&mut far).await.unwrap();
    assert_eq!(&body[4..], &2_u32.to_be_bytes()[..]);
}

/// More than sockets hold.
const MUCH: usize = 2 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_does_not_read_is_not_drained() {
    let mut ours = End::new("127.0.0.1".parse().unwrap());
    let (_handle, mut far, _, outbox) = established(&mut ours, 90).await;
    let much: Bytes = empty_update().repeat(MUCH).into();
    let total = much.len();
    assert_eq!(outbox.send(Instant::now(), &mut vec![much]), Sent::Waiting);
    let early = tokio::time::timeout(Duration::from_millis(500), ours.events.recv()).await;
    assert!(early.is_err(), "more than the socket holds: {early:?}");
    let mut read = 0;
    let mut buffer = vec![0; 1 << 20];
    while read < total {
        read += far.read(&mut buffer).await.unwrap();
    }
    assert!(matches!(ours.event().await, ToSpeaker::Drained { .. }));
    assert_eq!(outbox.send(Instant::now(), &mut vec![empty_update().into()]), Sent::Drained);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_keepalive_passes_a_table_that_waits_but_never_tears_a_message() {
    let mut ours = End::new("127.0.0.1".parse().unwrap());
    // Made before there is a hold time to be kept.
    let mut data: Vec<Bytes> = (0..MUCH as u32).map(|n| numbered_update(n).into()).collect();
    let (_handle, mut far, _, outbox) = established(&mut ours, 9).await;
    assert_eq!(outbox.send(Instant::now(), &mut data), Sent::Waiting);
    // The far end stays alive without reading until a KEEPALIVE of ours must be due, and also while it reads: that may
    // take longer than the hold time.
    for _ in 0..8 {
        tokio::time::sleep(Duration::from_millis(500)).await;
        far.write_all(&keepalive()).await.unwrap();
    }
    let (mut next, mut keepalives, mut octets) = (0_u32, 0, Vec::new());
    let (far, mut alive) = far.into_split();
    let mut reader = tokio::io::BufReader::with_capacity(1 << 20, far);
    let (mut passed_at, mut said) = (None, Instant::now());
    while next < MUCH as u32 {
        if said.elapsed() > Duration::from_millis(500) {
            alive.write_all(&keepalive()).await.unwrap();
            said = Instant::now();
        }
        octets.resize(19, 0);
        reader.read_exact(&mut octets).await.unwrap();
        assert_eq!(octets[..16], [0xff; 16], "a message begins here");
        let length = usize::from(u16::from_be_bytes([octets[16], octets[17]]));
        let kind = octets[18];
        octets.resize(length, 0);
        reader.read_exact(&mut octets[19..]).await.unwrap();
        if kind == 4 {
            keepalives += 1;
            passed_at = passed_at.or(Some(next));
        } else {
            assert_eq!(kind, 2, "the session stays up");
            assert_eq!(octets[23..], next.to_be_bytes(), "in order and whole");
            next += 1;
        }
    }
    assert!(keepalives > 0);
    assert!(
        passed_at.unwrap() < MUCH as u32 / 2 + MUCH as u32 / 4,
        "the KEEPALIVE did not wait for the table"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_never_reads_is_given_up_and_the_others_notice_nothing() {
    let mut ours = End::new("127.0.0.1".parse().unwrap());
    let (_, mut stuck, _, stuck_outbox) = established_from(&mut ours, Ipv4Addr::new(127, 0, 0, 1), 3).await;
    let (_, well, _, outbox) = established_from(&mut ours, Ipv4Addr::new(127, 0, 0, 2), 0).await;
    let much: Bytes = empty_update().repeat(MUCH).into();
    assert_eq!(stuck_outbox.send(Instant::now(), &mut vec![much]), Sent::Waiting);
    let begun = Instant::now();
    let alive = async {
        // It goes on talking, so that its silence is not what ends it.
        while stuck.write_all(&keepalive()).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    };
    let mut well = well;
    let others = async {
        for number in 0.. {
            assert_eq!(outbox.send(Instant::now(), &mut vec![numbered_update(number).into()]), Sent::Drained);
            let (_, body) = read_message(&mut well).await.unwrap();
            assert_eq!(&body[4..], &number.to_be_bytes()[..]);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let given_up = async {
        loop {
            let letter = ours.events.recv().await.unwrap();
            if let ToSpeaker::SessionDown { down, .. } = letter.message {
                return down;
            }
        }
    };
    let down = tokio::select! {
        () = async { alive.await; std::future::pending().await } => unreachable!("pends"),
        () = others => unreachable!("does not end"),
        down = tokio::time::timeout(Duration::from_secs(60), given_up) => down.expect("in time"),
    };
    assert!(down.reason.contains("has not read"), "{down:?}");
    assert!(begun.elapsed() >= Duration::from_secs(29), "not sooner than after half a minute");
    assert_eq!(stuck_outbox.send(Instant::now(), &mut vec![empty_update().into()]), Sent::Closed);
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_of_one_peer_are_told_apart_and_come_in_order() {
    let mut ours = End::new("127.0.0.1".parse().unwrap());
    let (_handle, mut far, first, _) = established(&mut ours, 90).await;
    far.write_all(&empty_update().repeat(10)).await.unwrap();
    drop(far);
    let mut updates = 0;
    let down = loop {
        match ours.event().await {
            ToSpeaker::Updates { epoch, updates: some, .. } => {
                assert_eq!(epoch, first);
                updates += some.len();
            }
            ToSpeaker::SessionDown { epoch, down, .. } => {
                assert_eq!(epoch, first);
                break down;
            }
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(updates, 10, "all that came before the end");
    assert_eq!(down.label, "tcp");
    let mut far = TcpStream::connect(ours.address()).await.unwrap();
    handshake(&mut far, 90).await;
    let (second, _) = ours.up().await;
    assert!(second > first);
}
