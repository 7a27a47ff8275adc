//! Tests of the speaker: what goes in, what is asked of the driver, what the tables then say.

mod configure;
mod forwarding;
mod graceful;
mod import;
mod next_hops;
mod properties;
mod restart;
mod show;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use causeway_bgp_wire::{
    Announcement, AsPath, Asn, FamilySet, Ipv4Prefix, Ipv6Prefix, NlriList, Origin, PathAttributes, Update,
};

use super::*;
use crate::config::{
    Distance, MaxPrefixes, NextHopMode, Password, PeerConfig, PeerKey, PeerSettings, RemoteAs, Role,
    SessionConfig,
};
use crate::event::{Down, Member, NextHopState, PeerRestart, SessionInfo};
use crate::policy::{ExportPolicy, ImportPolicy};

const NODE_AS: Asn = Asn(64512);

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn prefix(text: &str) -> Prefix {
    text.parse().unwrap()
}

/// Address of peer `number`.
fn address(number: u8) -> IpAddr {
    Ipv4Addr::new(192, 0, 2, number).into()
}

/// A next hop of a group without anything special.
fn plain(number: u8) -> Member {
    Member { next_hop: address(number), weight: 1, tunnel: None }
}

fn peer_as(number: u8) -> Asn {
    Asn(64600 + u32::from(number))
}

/// Settings of eBGP peer `number`.
fn settings(number: u8) -> PeerSettings {
    PeerSettings {
        name: format!("peer {number}"),
        session: SessionConfig {
            local_as: NODE_AS,
            remote_as: RemoteAs::Number(peer_as(number)),
            router_id: Ipv4Addr::new(10, 0, 0, 100),
            hold_time: Duration::from_secs(90),
            keepalive_time: Duration::from_secs(30),
            connect_retry_time: Duration::from_secs(5),
            passive: false,
            families: FamilySet::ALL,
            distance: Distance::Ttl(1),
            source: None,
            password: Password::None,
            graceful_restart: Some(Duration::from_secs(120)),
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

fn peer_config(number: u8) -> PeerConfig {
    PeerConfig { key: PeerKey { address: address(number), port: None }, settings: settings(number) }
}

fn config(peers: impl IntoIterator<Item = u8>) -> Config {
    Config {
        node: "node-a1".to_owned(),
        role: Role::Node,
        local_as: NODE_AS,
        router_id: Ipv4Addr::new(10, 0, 0, 100),
        cluster_id: None,
        address_v4: Some(Ipv4Addr::new(192, 0, 2, 100)),
        address_v6: Some("2001:db8::100".parse().unwrap()),
        max_paths: 4,
        graceful_restart: Some(Duration::from_secs(120)),
        own: Vec::new(),
        peers: peers.into_iter().map(peer_config).collect(),
        ranges: Vec::new(),
    }
}

fn session(number: u8, remote_as: Asn) -> SessionInfo {
    SessionInfo {
        remote_as,
        local_as: NODE_AS,
        router_id: Ipv4Addr::new(10, 0, 0, number),
        local_address: ip("192.0.2.100"),
        local_link_local: None,
        remote_address: address(number),
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

/// A graceful restart capability of both families.
fn graceful(seconds: u64, restarting: bool, forwarding: bool) -> Option<PeerRestart> {
    Some(PeerRestart {
        restarting,
        restart_time: Duration::from_secs(seconds),
        families: Family::all().map(|family| (family, forwarding)).to_vec(),
    })
}

/// Attributes peer `number` would send: its AS, itself as the next hop.
fn attributes(number: u8) -> PathAttributes {
    PathAttributes {
        as_path: AsPath::from_sequence([peer_as(number)]),
        ..PathAttributes::new(Origin::Igp, address(number).into())
    }
}

fn nlri(prefixes: &[Prefix]) -> NlriList {
    match prefixes[0] {
        Prefix::V4(_) => NlriList::V4(
            prefixes
                .iter()
                .map(|p| <Ipv4Prefix as causeway_bgp_wire::PrefixKey>::from_prefix(*p).unwrap().into())
                .collect(),
        ),
        Prefix::V6(_) => NlriList::V6(
            prefixes
                .iter()
                .map(|p| <Ipv6Prefix as causeway_bgp_wire::PrefixKey>::from_prefix(*p).unwrap().into())
                .collect(),
        ),
    }
}

/// A speaker with its driver: time stands still unless it is moved.
struct Bench {
    speaker: Speaker,
    now: Instant,
    /// What the speaker asked for since it was last looked at.
    outputs: Vec<Output>,
    ids: BTreeMap<IpAddr, PeerId>,
}

impl Bench {
    /// A speaker without FIB: every next hop is reachable.
    fn new(config: Config) -> Self {
        Bench::with_mode(StartMode { restarting: false, fib: false }, config)
    }

    fn with_mode(mode: StartMode, config: Config) -> Self {
        let now = Instant::now();
        let mut bench =
            Bench { speaker: Speaker::new(now, mode), now, outputs: Vec::new(), ids: BTreeMap::new() };
        bench.configure(config);
        bench
    }

    fn input(&mut self, input: Input) {
        self.speaker.handle(self.now, input);
        self.settle();
    }

    /// Does what is due and takes the outputs.
    fn settle(&mut self) {
        for _ in 0..10_000 {
            while let Some(output) = self.speaker.poll_output() {
                if let Output::PeerAdded { peer, key, .. } = &output {
                    self.ids.insert(key.address, *peer);
                }
                self.outputs.push(output);
            }
            match self.speaker.poll_timeout() {
                Some(at) if at <= self.now => self.speaker.handle_timeout(self.now),
                _ => return,
            }
        }
        panic!("the speaker does not come to rest");
    }

    fn advance(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
        self.settle();
    }

    fn configure(&mut self, config: Config) {
        self.input(Input::Configure(Arc::new(config)));
    }

    fn id(&self, number: u8) -> PeerId {
        self.ids[&address(number)]
    }

    fn up(&mut self, number: u8) {
        self.up_as(number, session(number, peer_as(number)));
    }

    fn up_as(&mut self, number: u8, session: SessionInfo) {
        self.input(Input::SessionUp { peer: self.id(number), session: Arc::new(session) });
    }

    fn down(&mut self, number: u8, retain: bool) {
        let down = Down { reason: "connection lost".to_owned(), label: "tcp", retain };
        self.input(Input::SessionDown { peer: self.id(number), down });
    }

    fn update(&mut self, number: u8, update: Update) {
        self.input(Input::Updates { peer: self.id(number), updates: (&update).into() });
    }

    fn announce_as(&mut self, number: u8, prefixes: &[&str], attributes: PathAttributes) {
        let prefixes: Vec<Prefix> = prefixes.iter().map(|text| prefix(text)).collect();
        let announcement = Announcement { attributes, nlri: nlri(&prefixes) };
        self.update(number, Update { announced: [announcement].into_iter().collect(), ..Update::default() });
    }

    fn announce(&mut self, number: u8, prefixes: &[&str]) {
        self.announce_as(number, prefixes, attributes(number));
    }

    fn withdraw(&mut self, number: u8, prefixes: &[&str]) {
        let prefixes: Vec<Prefix> = prefixes.iter().map(|text| prefix(text)).collect();
        self.update(
            number,
            Update { withdrawn: [nlri(&prefixes)].into_iter().collect(), ..Update::default() },
        );
    }

    fn end_of_rib(&mut self, number: u8) {
        for family in Family::all() {
            self.update(number, Update { end_of_rib: Some(family), ..Update::default() });
        }
    }

    fn rows(&self, direction: Direction) -> Vec<RouteView> {
        let query = Query { direction, peer: None, family: None, prefix: None, longer: false };
        self.walk(&query, 3)
    }

    fn walk(&self, query: &Query, limit: usize) -> Vec<RouteView> {
        let (mut cursor, mut rows) = (Cursor::default(), Vec::new());
        while !cursor.is_done() {
            rows.extend(self.speaker.walk(query, &mut cursor, limit));
        }
        rows
    }

    /// The peer whose path is best.
    fn best(&self, text: &str) -> Option<u8> {
        let query = Query {
            direction: Direction::Best,
            peer: None,
            family: None,
            prefix: Some(prefix(text)),
            longer: false,
        };
        let rows = self.walk(&query, 1);
        assert!(rows.len() <= 1);
        rows.first().map(|row| number(row.peer_address))
    }

    /// The path of one peer.
    fn path(&self, number: u8, text: &str) -> Option<RouteView> {
        let id = self.id(number);
        self.speaker.explain(&prefix(text)).into_iter().find(|row| row.peer == Some(id))
    }

    fn peer(&self, number: u8) -> PeerView {
        self.speaker.peer(self.id(number)).unwrap()
    }

    fn reachable(&mut self, address: IpAddr) {
        self.input(Input::NextHop { address, state: NextHopState::Connected { device: "eth0".into() } });
    }

    fn pull_fib(&mut self) -> Vec<FibUpdate> {
        let mut out = Vec::new();
        while self.speaker.pull_fib(2, &mut out) == PullState::More {}
        self.settle();
        out
    }
}

/// The number in a peer's address; 0 for this speaker.
fn number(address: Option<IpAddr>) -> u8 {
    match address {
        Some(IpAddr::V4(address)) => address.octets()[3],
        _ => 0,
    }
}
