//! One end of a session: a listener, a peer's task, and the channel of the speaker, which is the test.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use causeway_bgp_core::config::{
    Distance, MaxPrefixes, NextHopMode, Password, PeerKey, PeerSettings, RemoteAs, SessionConfig,
};
use causeway_bgp_core::event::{Down, PeerId, SessionInfo};
use causeway_bgp_core::peer::{RestartMarks, State};
use causeway_bgp_core::policy::{ExportPolicy, ImportPolicy};
use causeway_bgp_wire::{Asn, FamilySet, Open};
use causeway_bgpd::listen::{ListenOn, Listener};
use causeway_bgpd::outbox::Outbox;
use causeway_bgpd::peer_task::PeerTask;
use causeway_bgpd::speaker_link::{
    Epoch, Letter, PeerHandle, ROOM, SpeakerLink, ToPeer, ToSpeaker, speaker_link,
};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

/// Longer than anything here takes; a test that waits for it has failed.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Settings of a peer in AS 64601, seen from AS 64512: no password, retries every second.
pub fn settings() -> PeerSettings {
    PeerSettings {
        name: "test".to_owned(),
        session: SessionConfig {
            local_as: Asn(64512),
            remote_as: RemoteAs::Number(Asn(64601)),
            router_id: Ipv4Addr::new(192, 0, 2, 1),
            hold_time: Duration::from_secs(90),
            keepalive_time: Duration::from_secs(30),
            connect_retry_time: Duration::from_secs(1),
            passive: false,
            families: FamilySet::ALL,
            distance: Distance::Ttl(255),
            source: None,
            password: Password::None,
            graceful_restart: Some(Duration::from_secs(60)),
            reachable_by: None,
        },
        import: Arc::new(ImportPolicy::accept_all()),
        export: Arc::new(ExportPolicy::accept_all()),
        next_hop_mode: NextHopMode::Auto,
        client: false,
        allowed_local_as: 0,
        max_prefixes: MaxPrefixes::default(),
        max_restart_time: Duration::from_secs(60),
    }
}

/// The settings of the other end: AS and identifier swapped.
pub fn mirrored(mut settings: PeerSettings) -> PeerSettings {
    settings.session.local_as = Asn(64601);
    settings.session.remote_as = RemoteAs::Number(Asn(64512));
    settings.session.router_id = Ipv4Addr::new(192, 0, 2, 2);
    settings
}

/// One end.
pub struct End {
    pub listener: Listener,
    pub events: mpsc::UnboundedReceiver<Letter>,
    pub link: SpeakerLink,
    _marks: watch::Sender<RestartMarks>,
    marks_of: watch::Receiver<RestartMarks>,
}

impl End {
    /// Listening on a free port of this address.
    pub fn new(address: IpAddr) -> Self {
        let (link, events) = speaker_link(ROOM);
        let (marks, marks_of) = watch::channel(RestartMarks::default());
        let on = ListenOn::Addresses(vec![SocketAddr::new(address, 0)]);
        let listener = Listener::start(&on, link.clone()).unwrap();
        End { listener, events, link, _marks: marks, marks_of }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.listener.addresses()[0]
    }

    /// Starts the task of the peer at this address.
    pub fn peer(&self, at: SocketAddr, settings: PeerSettings) -> PeerHandle {
        self.task(at, settings, false)
    }

    /// The same, for a peer of a range.
    pub fn dynamic_peer(&self, at: SocketAddr, settings: PeerSettings) -> PeerHandle {
        self.task(at, settings, true)
    }

    fn task(&self, at: SocketAddr, settings: PeerSettings, dynamic: bool) -> PeerHandle {
        PeerTask {
            peer: PeerId(1),
            key: PeerKey { address: at.ip(), port: Some(at.port()) },
            settings: Arc::new(settings),
            dynamic,
            marks: self.marks_of.clone(),
            listener: self.listener.clone(),
            speaker: self.link.clone(),
        }
        .spawn()
    }

    /// The next event of the task; the room it took is free again.
    pub async fn event(&mut self) -> ToSpeaker {
        let letter = timeout(PATIENCE, self.events.recv()).await.expect("an event in time");
        letter.expect("the channel is open").message
    }

    /// The session that comes up next.
    pub async fn up(&mut self) -> (Epoch, Arc<SessionInfo>) {
        let (epoch, session, _) = self.up_with_outbox().await;
        (epoch, session)
    }

    /// The same, with the way to send on it.
    pub async fn up_with_outbox(&mut self) -> (Epoch, Arc<SessionInfo>, Arc<Outbox>) {
        loop {
            if let ToSpeaker::SessionUp { epoch, session, outbox, .. } = self.event().await {
                return (epoch, session, outbox);
            }
        }
    }

    /// How the session ends.
    pub async fn down(&mut self) -> Down {
        loop {
            if let ToSpeaker::SessionDown { down, .. } = self.event().await {
                return down;
            }
        }
    }
}

/// Waits until the peer has got as far as this state.
pub async fn reaches(handle: &PeerHandle, state: State) {
    let mut status = handle.status.clone();
    let reached = status.wait_for(|status| status.state >= state);
    timeout(PATIENCE, reached).await.unwrap_or_else(|_| panic!("never {state}")).unwrap();
}

/// Waits until the last error says this.
pub async fn complains(handle: &PeerHandle, of: &str) {
    let mut status = handle.status.clone();
    let said = status.wait_for(|status| status.last_error.as_deref().is_some_and(|e| e.contains(of)));
    timeout(PATIENCE, said).await.unwrap_or_else(|_| panic!("never complains of {of}")).unwrap();
}

/// Changes the settings of a running peer.
pub fn change(handle: &PeerHandle, settings: PeerSettings) {
    handle.tell(ToPeer::SetSettings(Arc::new(settings)));
}

/// Reads one message: its type and body.
pub async fn read_message(stream: &mut TcpStream) -> Option<(u8, Vec<u8>)> {
    let mut header = [0; 19];
    timeout(PATIENCE, stream.read_exact(&mut header)).await.expect("a message in time").ok()?;
    let length = usize::from(u16::from_be_bytes([header[16], header[17]]));
    let mut body = vec![0; length - 19];
    timeout(PATIENCE, stream.read_exact(&mut body)).await.expect("a message in time").ok()?;
    Some((header[18], body))
}

/// The OPEN of the far end, with this hold time.
pub fn far_open(hold_time: u16) -> Vec<u8> {
    let families = FamilySet::ALL.iter().map(|f| causeway_bgp_wire::Capability::Multiprotocol(f.afi_safi()));
    let open = Open::new(Asn(64601), hold_time, Ipv4Addr::new(192, 0, 2, 2), families.collect());
    let mut octets = Vec::new();
    causeway_bgp_wire::encode_open(&open, &mut octets);
    octets
}

/// A KEEPALIVE.
pub fn keepalive() -> Vec<u8> {
    let mut octets = Vec::new();
    causeway_bgp_wire::encode_keepalive(&mut octets);
    octets
}

/// A ROUTE-REFRESH for IPv4 unicast.
pub fn route_refresh() -> Vec<u8> {
    let mut octets = vec![0xff; 16];
    octets.extend_from_slice(&[0, 23, 5, 0, 1, 0, 1]);
    octets
}

/// An UPDATE that bears this number where the withdrawn routes and the attributes are; only its length is right.
pub fn numbered_update(number: u32) -> Vec<u8> {
    let mut octets = vec![0xff; 16];
    octets.extend_from_slice(&[0, 27, 2, 0, 0, 0, 0]);
    octets.extend_from_slice(&number.to_be_bytes());
    octets
}

/// An UPDATE without anything in it.
pub fn empty_update() -> Vec<u8> {
    let mut octets = vec![0xff; 16];
    octets.extend_from_slice(&[0, 23, 2, 0, 0, 0, 0]);
    octets
}

/// Answers the OPEN on a fresh connection and brings the session up from the far end.
pub async fn handshake(stream: &mut TcpStream, hold_time: u16) {
    use tokio::io::AsyncWriteExt;
    assert_eq!(read_message(stream).await.expect("an OPEN").0, 1);
    stream.write_all(&[far_open(hold_time), keepalive()].concat()).await.unwrap();
    assert_eq!(read_message(stream).await.expect("a KEEPALIVE").0, 4);
}
