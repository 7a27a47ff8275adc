//! TCP MD5 (RFC 2385) and GTSM (RFC 5082).

use causeway_bgp_core::config::{Distance, Password, PeerSettings};
use causeway_bgp_core::peer::State;

use super::rig::{End, change, complains, mirrored, reaches, settings};

fn with_password(key: &str) -> PeerSettings {
    let mut settings = settings();
    settings.session.password = Password::Key(key.to_owned());
    settings
}

/// One end listens, the other connects; both as real tasks.
async fn md5_over(address: &str) {
    let (mut ours, mut theirs) = (End::new(address.parse().unwrap()), End::new(address.parse().unwrap()));
    let mut passive = with_password("right");
    passive.session.passive = true;
    let ours_handle = ours.peer(theirs.address(), passive);
    let theirs_handle = theirs.peer(ours.address(), mirrored(with_password("wrong")));
    // The kernel drops what is signed wrong: the attempt runs into ConnectRetryTimer again and again.
    complains(&theirs_handle, "passwords differ").await;
    assert_eq!(ours_handle.status.borrow().state, State::Active);
    assert_eq!(theirs_handle.status.borrow().state, State::Connect);
    change(&theirs_handle, mirrored(with_password("right")));
    ours.up().await;
    theirs.up().await;
    // A new key on one side ends the session, and the same on the other brings it back.
    let mut passive = with_password("new");
    passive.session.passive = true;
    change(&ours_handle, passive);
    let down = ours.down().await;
    assert_eq!((down.label, down.retain), ("config", false));
    change(&theirs_handle, mirrored(with_password("new")));
    ours.up().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn md5_keys_over_ipv4() {
    md5_over("127.0.0.1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn md5_keys_over_ipv6() {
    md5_over("::1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_with_a_password_is_not_reached_without() {
    let ours = End::new("127.0.0.1".parse().unwrap());
    let theirs = End::new("127.0.0.1".parse().unwrap());
    let mut passive = with_password("right");
    passive.session.passive = true;
    ours.peer(theirs.address(), passive);
    let unsigned = std::time::Duration::from_millis(1500);
    let connect = tokio::net::TcpStream::connect(ours.address());
    assert!(tokio::time::timeout(unsigned, connect).await.is_err(), "an unsigned SYN gets no answer");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_password_keeps_the_peer_down_and_says_so() {
    let mut ours = End::new("127.0.0.1".parse().unwrap());
    let mut theirs = End::new("127.0.0.1".parse().unwrap());
    let mut missing = settings();
    missing.session.password = Password::Missing("secret \"tor\" is missing".to_owned());
    let handle = ours.peer(theirs.address(), missing);
    let other = theirs.peer(ours.address(), mirrored(settings()));
    complains(&handle, "secret \"tor\" is missing").await;
    // What the other end opens is closed at once, before or after its OPEN has come.
    complains(&other, "closed by the peer").await;
    assert_eq!(handle.status.borrow().state, State::Idle);
    change(&handle, settings());
    ours.up().await;
    theirs.up().await;
}

async fn gtsm_over(address: &str) {
    let (mut ours, theirs) = (End::new(address.parse().unwrap()), End::new(address.parse().unwrap()));
    let mut near = settings();
    near.session.distance = Distance::Security(1);
    near.session.passive = true;
    let ours_handle = ours.peer(theirs.address(), near);
    let mut far = mirrored(settings());
    far.session.distance = Distance::Ttl(254);
    let theirs_handle = theirs.peer(ours.address(), far.clone());
    // TCP comes up, but nothing that left with TTL 254 gets as far as our end.
    reaches(&theirs_handle, State::OpenSent).await;
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    assert!(ours_handle.status.borrow().state < State::Established);
    far.session.distance = Distance::Security(1);
    change(&theirs_handle, far);
    ours.up().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rfc5082_gtsm_over_ipv4() {
    gtsm_over("127.0.0.1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rfc5082_gtsm_over_ipv6() {
    gtsm_over("::1").await;
}
