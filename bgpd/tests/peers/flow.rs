//! Back pressure both ways: a speaker that is behind, a peer that is slow; and sessions told apart by their epoch.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use causeway_bgpd::speaker_link::{Epoch, PeerHandle, ToPeer, ToSpeaker};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::rig::{End, empty_update, handshake, keepalive, read_message, settings};

/// A passive peer's task, and the far end of an Established session with it.
async fn established(ours: &mut End, hold_time: u16) -> (PeerHandle, TcpStream, Epoch) {
    let mut passive = settings();
    passive.session.passive = true;
    let handle = ours.peer(SocketAddr::new("127.0.0.1".parse().unwrap(), 1), passive);
    let mut far = TcpStream::connect(ours.address()).await.unwrap();
    handshake(&mut far, hold_time).await;
    let (epoch, _) = ours.up().await;
    (handle, far, epoch)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_speaker_that_is_behind_slows_the_peer_and_loses_nothing_and_no_session() {
    const UPDATES: usize = 400_000;
    let mut ours = End::with_capacity("127.0.0.1".parse().unwrap(), 4);
    let (_handle, mut far, _) = established(&mut ours, 3).await;
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
async fn data_goes_out_in_order_and_is_answered_by_drained() {
    let mut ours = End::new("127.0.0.1".parse().unwrap());
    let (handle, mut far, epoch) = established(&mut ours, 90).await;
    // What belongs to another session never leaves.
    handle.tell(ToPeer::Data { epoch: Epoch(epoch.0 + 1), data: vec![Bytes::from_static(b"old")] });
    for round in 0..3_u16 {
        let mut message = vec![0xff; 16];
        message.extend_from_slice(&[0, 25, 2]);
        message.extend_from_slice(&[0, 0, 0, 2]);
        message.extend_from_slice(&round.to_be_bytes());
        handle.tell(ToPeer::Data { epoch, data: vec![message.into(), empty_update().into()] });
        let ToSpeaker::Drained { epoch: of, .. } = ours.event().await else { panic!("Drained comes next") };
        assert_eq!(of, epoch);
        let (kind, body) = read_message(&mut far).await.unwrap();
        assert_eq!((kind, &body[4..]), (2, &round.to_be_bytes()[..]));
        assert_eq!(read_message(&mut far).await.unwrap(), (2, vec![0; 4]));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_does_not_read_is_not_drained() {
    let mut ours = End::new("127.0.0.1".parse().unwrap());
    let (handle, mut far, epoch) = established(&mut ours, 90).await;
    let much: Bytes = empty_update().repeat(2 << 20).into();
    let total = much.len();
    handle.tell(ToPeer::Data { epoch, data: vec![much] });
    let early = tokio::time::timeout(Duration::from_millis(500), ours.events.recv()).await;
    assert!(early.is_err(), "more than the socket holds: {early:?}");
    let mut read = 0;
    let mut buffer = vec![0; 1 << 20];
    while read < total {
        read += tokio::io::AsyncReadExt::read(&mut far, &mut buffer).await.unwrap();
    }
    assert!(matches!(ours.event().await, ToSpeaker::Drained { .. }));
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_of_one_peer_are_told_apart_and_come_in_order() {
    let mut ours = End::new("127.0.0.1".parse().unwrap());
    let (_handle, mut far, first) = established(&mut ours, 90).await;
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
