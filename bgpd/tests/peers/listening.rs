//! Who is let in: peers, ranges, strangers; and both ends opening at once.

use std::net::SocketAddr;

use causeway_bgp_core::config::RangeConfig;
use causeway_bgp_core::peer::State;
use causeway_bgp_wire::{Cease, Notification};
use causeway_bgpd::listen::{ListenOn, Listener};
use causeway_bgpd::speaker_link::{ToPeer, ToSpeaker};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::rig::{End, PATIENCE, complains, handshake, mirrored, reaches, read_message, settings};

fn loopback() -> std::net::IpAddr {
    "127.0.0.1".parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_are_closed_at_once() {
    let ours = End::new(loopback());
    let mut stranger = TcpStream::connect(ours.address()).await.unwrap();
    let mut octet = [0];
    let end = timeout(PATIENCE, stranger.read(&mut octet)).await.expect("closed in time");
    assert!(matches!(end, Ok(0) | Err(_)), "not a word: {end:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_is_reset_was_closed_by_the_peer() {
    let ours = End::new(loopback());
    let mut passive = settings();
    passive.session.passive = true;
    let handle = ours.peer(SocketAddr::new(loopback(), 1), passive);
    let mut far = TcpStream::connect(ours.address()).await.unwrap();
    assert_eq!(read_message(&mut far).await.expect("an OPEN").0, 1);
    socket2::SockRef::from(&far).set_linger(Some(std::time::Duration::ZERO)).unwrap();
    drop(far);
    complains(&handle, "closed by the peer: ").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn both_ends_opening_at_once_come_to_one_session() {
    for _ in 0..10 {
        let (mut ours, mut theirs) = (End::new(loopback()), End::new(loopback()));
        let a = ours.peer(theirs.address(), settings());
        let b = theirs.peer(ours.address(), mirrored(settings()));
        let (_, session) = ours.up().await;
        assert_eq!(session.remote_as.0, 64601);
        let (_, session) = theirs.up().await;
        assert_eq!(session.remote_as.0, 64512);
        assert_eq!(a.status.borrow().state, State::Established);
        assert_eq!(b.status.borrow().state, State::Established);
        assert!(ours.events.try_recv().is_err() && theirs.events.try_recv().is_err(), "nothing fell");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_passive_ends_wait_for_each_other_and_an_active_one_finds_a_passive_one() {
    let (mut ours, mut theirs) = (End::new(loopback()), End::new(loopback()));
    let mut passive = settings();
    passive.session.passive = true;
    let waiting = ours.peer(theirs.address(), passive);
    reaches(&waiting, State::Active).await;
    theirs.peer(ours.address(), mirrored(settings()));
    ours.up().await;
    theirs.up().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_of_a_range_becomes_a_peer_and_gets_its_first_connection() {
    let mut ours = End::new(loopback());
    let mut passive = settings();
    passive.session.passive = true;
    let range = RangeConfig { range: "127.0.0.0/8".parse().unwrap(), limit: 4, settings: passive.clone() };
    ours.listener.set_ranges(&[range]);
    let mut far = TcpStream::connect(ours.address()).await.unwrap();
    let ToSpeaker::DynamicPeer { address } = ours.event().await else { panic!("the speaker is asked first") };
    assert_eq!(address, loopback());
    let handle = ours.dynamic_peer(SocketAddr::new(address, 0), passive);
    handshake(&mut far, 90).await;
    ours.up().await;
    // Deconfigured: the peer is told, and the task ends.
    handle.tell(ToPeer::Shutdown(Notification::cease(Cease::PeerDeconfigured)));
    let (kind, body) = loop {
        let message = read_message(&mut far).await.expect("a NOTIFICATION");
        if message.0 != 4 {
            break message;
        }
    };
    assert_eq!((kind, body), (3, vec![6, 3]));
    loop {
        if let ToSpeaker::PeerEnded(_) = ours.event().await {
            break;
        }
    }
}

#[tokio::test]
async fn a_peer_that_closes_and_comes_back_at_once_has_no_rival() {
    let mut ours = End::new(loopback());
    let mut passive = settings();
    passive.session.passive = true;
    ours.peer(SocketAddr::new(loopback(), 1), passive);
    let mut far = TcpStream::connect(ours.address()).await.unwrap();
    for _ in 0..20 {
        handshake(&mut far, 90).await;
        ours.up().await;
        // One thread: both events are there before the task runs again.
        far.write_all(&super::rig::empty_update()).await.unwrap();
        drop(far);
        let again = std::net::TcpStream::connect(ours.address()).unwrap();
        again.set_nonblocking(true).unwrap();
        far = TcpStream::from_std(again).unwrap();
        assert!(matches!(ours.event().await, ToSpeaker::Updates { .. }));
        assert_eq!(ours.down().await.label, "tcp", "the old connection ended by itself");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_in_use_is_named() {
    let ours = End::new(loopback());
    let on = ListenOn::Addresses(vec![ours.address()]);
    let error = Listener::start(&on, ours.link.clone()).unwrap_err();
    let text = error.to_string();
    assert!(text.contains(&ours.address().to_string()) && text.contains("another BGP speaker"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_connection_is_reported_with_its_reason() {
    let ours = End::new(loopback());
    // A port nobody listens on: one that was just given up.
    let free = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let handle = ours.peer(free, settings());
    complains(&handle, "refused").await;
    assert!(handle.status.borrow().state <= State::Active);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_notification_arrives_although_much_is_unread() {
    let mut ours = End::new(loopback());
    let mut passive = settings();
    passive.session.passive = true;
    let far_address = SocketAddr::new(loopback(), 1);
    ours.peer(far_address, passive);
    let mut far = TcpStream::connect(ours.address()).await.unwrap();
    handshake(&mut far, 90).await;
    ours.up().await;
    // A bad marker, and behind it more than anybody will read.
    let junk = vec![0; 4 << 20];
    let (mut reading, mut writing) = far.split();
    let write = async {
        // The other end may close before all of it is out.
        let _ = writing.write_all(&junk).await;
    };
    let read = async {
        let mut all = Vec::new();
        let _ = reading.read_to_end(&mut all).await;
        all
    };
    let (_, all) = timeout(PATIENCE, async { tokio::join!(write, read) }).await.expect("closed in time");
    assert!(all.ends_with(&[3, 1, 1]), "the last message is NOTIFICATION 1/1: {all:?}");
    assert_eq!(ours.down().await.label, "notification-sent");
}
