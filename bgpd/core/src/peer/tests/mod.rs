//! Tests of the session machine. [`Bench`] is one session with the test as its network and its peer.

mod collision;
mod commands;
mod established;
mod graceful;
mod negotiation;
mod pair;
mod table;
mod timing;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use causeway_bgp_wire::{
    self as wire, Asn, Capability, DecodeContext, FamilySet, Message, Notification, Open, SessionKind,
};

use crate::config::{Distance, Password, RemoteAs, SessionConfig};
use crate::event::{Down, SessionInfo};

use super::{
    Addresses, Command, ConnectionId, RestartMarks, Session, SessionInput, SessionOutput, State,
    graceful as gr,
};

const OUR_AS: Asn = Asn(64512);
const PEER_AS: Asn = Asn(64601);

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// Our side: 64512, identifier 192.0.2.10, towards 64601.
fn config() -> SessionConfig {
    SessionConfig {
        local_as: OUR_AS,
        remote_as: RemoteAs::Number(PEER_AS),
        router_id: Ipv4Addr::new(192, 0, 2, 10),
        hold_time: seconds(90),
        keepalive_time: seconds(30),
        connect_retry_time: seconds(5),
        passive: false,
        families: FamilySet::ALL,
        distance: Distance::Ttl(1),
        source: None,
        password: Password::None,
        graceful_restart: Some(seconds(120)),
        reachable_by: None,
    }
}

/// The peer's OPEN: 64601, identifier 192.0.2.1, both families, everything we do as well, and graceful restart.
fn peer_open() -> Open {
    peer_open_with(vec![gr::capability(seconds(60), FamilySet::ALL, RestartMarks::default())])
}

fn peer_open_with(extra: Vec<Capability>) -> Open {
    let families = FamilySet::ALL.iter().map(|f| Capability::Multiprotocol(f.afi_safi()));
    let mut capabilities: Vec<Capability> = families.collect();
    capabilities.extend([Capability::RouteRefresh, Capability::EnhancedRouteRefresh]);
    capabilities.extend(extra);
    Open::new(PEER_AS, 90, Ipv4Addr::new(192, 0, 2, 1), capabilities)
}

fn open_octets(open: &Open) -> Vec<u8> {
    let mut octets = Vec::new();
    wire::encode_open(open, &mut octets);
    octets
}

fn keepalive_octets() -> Vec<u8> {
    let mut octets = Vec::new();
    wire::encode_keepalive(&mut octets);
    octets
}

fn notification_octets(notification: &Notification) -> Vec<u8> {
    let mut octets = Vec::new();
    wire::encode_notification(notification, &mut octets);
    octets
}

/// An UPDATE without anything in it: End-of-RIB of IPv4.
fn update_octets() -> Vec<u8> {
    let mut octets = vec![0xff; 16];
    octets.extend_from_slice(&[0, 23, 2, 0, 0, 0, 0]);
    octets
}

fn refresh_octets() -> Vec<u8> {
    let mut octets = Vec::new();
    wire::encode_route_refresh(&wire::RouteRefresh::request(wire::Family::Ipv6Unicast), &mut octets);
    octets
}

fn addresses() -> Addresses {
    Addresses {
        local: IpAddr::from([192, 0, 2, 10]),
        remote: IpAddr::from([192, 0, 2, 1]),
        link_local: Some("fe80::1".parse().unwrap()),
    }
}

/// One session, and everything it asked for, in order and decoded.
struct Bench {
    session: Session,
    now: Instant,
    dialing: Option<ConnectionId>,
    log: Vec<Logged>,
}

/// An output, as tests look at it.
#[derive(Clone, Debug, PartialEq)]
enum Logged {
    Dial(ConnectionId),
    Adopted(ConnectionId),
    Refused,
    Sent(ConnectionId, Box<Message>),
    Closed(ConnectionId),
    State(State, State, String),
    Up(ConnectionId, Arc<SessionInfo>),
    Down(Down),
    Update,
    Refresh,
}

impl Bench {
    fn new(config: SessionConfig) -> Self {
        Self::with_marks(config, RestartMarks::default())
    }

    fn with_marks(config: SessionConfig, marks: RestartMarks) -> Self {
        let now = Instant::now();
        let session = Session::new(now, Arc::new(config), marks, 42);
        Bench { session, now, dialing: None, log: Vec::new() }
    }

    fn started(config: SessionConfig) -> Self {
        let mut bench = Bench::new(config);
        bench.command(Command::Start);
        bench
    }

    /// With our own connection in this state; the connection.
    fn in_state(state: State) -> (Self, ConnectionId) {
        let mut bench = Bench::started(config());
        let id = bench.connect();
        bench.advance_to(id, state);
        assert_eq!(bench.session.state(), state);
        (bench, id)
    }

    fn advance_to(&mut self, id: ConnectionId, state: State) {
        if state >= State::OpenConfirm {
            self.receive(id, &open_octets(&peer_open()));
        }
        if state >= State::Established {
            self.receive(id, &keepalive_octets());
        }
    }

    fn drain(&mut self) {
        while let Some(output) = self.session.poll_output() {
            let logged = match output {
                SessionOutput::Connect(id) => {
                    self.dialing = Some(id);
                    Logged::Dial(id)
                }
                SessionOutput::Adopt(id) => Logged::Adopted(id),
                SessionOutput::Refuse => Logged::Refused,
                SessionOutput::Send { connection, octets } => {
                    let context = DecodeContext::new(SessionKind::External, FamilySet::ALL);
                    Logged::Sent(connection, Box::new(Message::decode(&octets, &context).unwrap()))
                }
                SessionOutput::Close(id) => Logged::Closed(id),
                SessionOutput::StateChanged { old, new, reason } => Logged::State(old, new, reason),
                SessionOutput::Up { connection, session } => Logged::Up(connection, session),
                SessionOutput::Down(down) => Logged::Down(down),
                SessionOutput::Updates(updates) => {
                    self.log.extend((1..updates.len()).map(|_| Logged::Update));
                    Logged::Update
                }
                SessionOutput::Refresh { .. } => Logged::Refresh,
            };
            self.log.push(logged);
        }
    }

    fn handle(&mut self, input: SessionInput) {
        self.session.handle(self.now, input);
        self.drain();
    }

    fn command(&mut self, command: Command) {
        self.handle(SessionInput::Command(command));
    }

    fn receive(&mut self, id: ConnectionId, octets: &[u8]) {
        assert_eq!(self.session.receive(self.now, id, octets), octets.len());
        self.drain();
    }

    /// The attempt that is going on succeeds.
    fn connect(&mut self) -> ConnectionId {
        let connection = self.dialing.take().expect("a connection is being opened");
        self.handle(SessionInput::Connected { connection, addresses: addresses() });
        connection
    }

    /// The peer connects; `None` where it is refused.
    fn accept(&mut self) -> Option<ConnectionId> {
        let before = self.log.len();
        self.handle(SessionInput::Accepted(addresses()));
        self.log[before..].iter().find_map(|l| if let Logged::Adopted(id) = l { Some(*id) } else { None })
    }

    /// Lets time pass, doing what is due when it is due.
    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(due) = self.session.poll_timeout().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            self.session.handle_timeout(self.now);
            self.drain();
        }
        self.now = end;
    }

    /// What was logged since the last call.
    fn take(&mut self) -> Vec<Logged> {
        std::mem::take(&mut self.log)
    }

    fn sent(&self, id: ConnectionId) -> Vec<&Message> {
        let mut sent = Vec::new();
        for logged in &self.log {
            if let Logged::Sent(to, message) = logged
                && *to == id
            {
                sent.push(&**message);
            }
        }
        sent
    }

    fn notifications(&self, id: ConnectionId) -> Vec<&Notification> {
        let sent = self.sent(id).into_iter();
        sent.filter_map(|m| if let Message::Notification(n) = m { Some(n) } else { None }).collect()
    }

    fn closed(&self, id: ConnectionId) -> bool {
        self.log.contains(&Logged::Closed(id))
    }

    fn downs(&self) -> Vec<&Down> {
        self.log.iter().filter_map(|l| if let Logged::Down(down) = l { Some(down) } else { None }).collect()
    }

    fn up(&self) -> Option<&Arc<SessionInfo>> {
        self.log.iter().find_map(|l| if let Logged::Up(_, info) = l { Some(info) } else { None })
    }
}
