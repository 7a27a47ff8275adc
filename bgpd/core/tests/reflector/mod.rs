//! A reflector whose clients 0 and 1 announce a table, and whose others are sent it; single routes of it flap.
//!
//! What `examples/flap_cost.rs` counts instructions of and `cost_of_change.rs` counts allocations of. Pure.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use causeway_bgp_core::Updates;
use causeway_bgp_core::config::{
    Config, Distance, MaxPrefixes, NextHopMode, Password, PeerConfig, PeerKey, PeerSettings, RemoteAs, Role,
    SessionConfig,
};
use causeway_bgp_core::event::{Input, Output, PeerId, PullState, SessionInfo};
use causeway_bgp_core::policy::{ExportPolicy, ImportPolicy};
use causeway_bgp_core::speaker::{Speaker, StartMode};
use causeway_bgp_wire::{
    Announcement, AsPath, Asn, Family, FamilySet, Ipv4Prefix, NlriList, Origin, PathAttributes, PrefixKey,
    Update,
};

const ASN: Asn = Asn(64512);
const V4: FamilySet = FamilySet::only(Family::Ipv4Unicast);
const SELF: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 100);
/// Clients that announce; the others are members that are sent it.
const FEEDERS: u32 = 2;

/// What a flap is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The route goes and comes back.
    Withdraw,
    /// Its MED changes and changes back.
    Attributes,
    /// The best path moves to the second feeder and back.
    Feeders,
}

fn address(client: u32) -> Ipv4Addr {
    Ipv4Addr::from(0x0a80_0000 + client)
}

fn config(clients: u32) -> Config {
    let settings = PeerSettings {
        name: "client".to_owned(),
        session: SessionConfig {
            local_as: ASN,
            remote_as: RemoteAs::Internal,
            router_id: SELF,
            hold_time: Duration::from_secs(90),
            keepalive_time: Duration::from_secs(30),
            connect_retry_time: Duration::from_secs(5),
            passive: true,
            families: V4,
            distance: Distance::Ttl(255),
            source: None,
            password: Password::None,
            graceful_restart: None,
            reachable_by: None,
        },
        import: Arc::new(ImportPolicy::accept_all()),
        export: Arc::new(ExportPolicy::accept_all()),
        next_hop_mode: NextHopMode::Auto,
        client: true,
        allowed_local_as: 0,
        max_prefixes: MaxPrefixes::default(),
        max_restart_time: Duration::ZERO,
    };
    let key = |client| PeerKey { address: address(client).into(), port: None };
    Config {
        node: "reflector".to_owned(),
        role: Role::Reflector,
        local_as: ASN,
        router_id: SELF,
        cluster_id: Some(SELF),
        address_v4: Some(SELF),
        address_v6: None,
        max_paths: 1,
        graceful_restart: None,
        own: Vec::new(),
        peers: (0..clients).map(|n| PeerConfig { key: key(n), settings: settings.clone() }).collect(),
        ranges: Vec::new(),
    }
}

fn session(client: u32) -> Arc<SessionInfo> {
    Arc::new(SessionInfo {
        remote_as: ASN,
        local_as: ASN,
        router_id: address(client),
        local_address: IpAddr::V4(SELF),
        local_link_local: None,
        remote_address: address(client).into(),
        families: V4,
        four_octet_as: true,
        extended_message: false,
        route_refresh: true,
        enhanced_refresh: false,
        graceful: None,
        hold_time: Duration::from_secs(90),
        keepalive_time: Duration::from_secs(30),
        capabilities: Vec::new(),
    })
}

fn prefix(number: u32) -> Ipv4Prefix {
    Ipv4Prefix::from_bits(0x0100_0000 + (number << 8), 24).unwrap()
}

/// What a feeder says of routes of one attribute set; the second one's paths are the longer ones.
fn announcement(feeder: u32, set: u32, med: Option<u32>, prefixes: impl Iterator<Item = u32>) -> Update {
    let path = [65000 + set % 500, 66000 + set / 500, 70000 + set % 7];
    let longer = std::iter::repeat_n(65000 + set % 500, feeder as usize);
    let attributes = PathAttributes {
        as_path: AsPath::from_sequence(longer.chain(path).map(Asn)),
        local_pref: Some(100),
        med,
        ..PathAttributes::new(Origin::Igp, IpAddr::V4(address(feeder)).into())
    };
    let nlri = prefixes.map(|number| prefix(number).into()).collect();
    let announcement = Announcement { attributes, nlri: NlriList::V4(nlri) };
    Update { announced: [announcement].into_iter().collect(), ..Update::default() }
}

fn withdrawal(number: u32) -> Update {
    let nlri = NlriList::V4([prefix(number).into()].into_iter().collect());
    Update { withdrawn: [nlri].into_iter().collect(), ..Update::default() }
}

/// The reflector, and what it has sent.
pub struct Reflector {
    pub speaker: Speaker,
    /// Octets of all messages to all clients.
    pub octets: usize,
    peers: Vec<PeerId>,
    per_set: u32,
    now: Instant,
    out: Vec<Bytes>,
}

impl Reflector {
    /// With so many clients beside the feeders, all of them up. So many routes are to share an attribute set.
    pub fn new(members: u32, per_set: u32) -> Self {
        let clients = FEEDERS + members;
        let now = Instant::now();
        let mut speaker = Speaker::new(now, StartMode { restarting: false, fib: false });
        speaker.handle(now, Input::Configure(Arc::new(config(clients))));
        let mut peers = Vec::new();
        while let Some(output) = speaker.poll_output() {
            if let Output::PeerAdded { peer, .. } = output {
                peers.push(peer);
            }
        }
        for (client, peer) in (0..).zip(&peers) {
            speaker.handle(now, Input::SessionUp { peer: *peer, session: session(client) });
        }
        let mut reflector = Reflector { speaker, octets: 0, peers, per_set, now, out: Vec::new() };
        reflector.serve();
        reflector
    }

    /// Hands out what is there to whoever is woken.
    fn serve(&mut self) {
        while let Some(output) = self.speaker.poll_output() {
            let Output::Wake(peer) = output else { continue };
            while self.speaker.pull(peer, 256 << 10, &mut self.out) == PullState::More {}
            self.octets += self.out.iter().map(Bytes::len).sum::<usize>();
            self.out.clear();
        }
    }

    fn receive(&mut self, feeder: u32, update: &Update) {
        let peer = self.peers[feeder as usize];
        self.speaker.handle(self.now, Input::Updates { peer, updates: Updates::from(update) });
    }

    /// One feeder announces a table, or where they are to compete, both.
    pub fn fill(&mut self, kind: Kind, routes: u32) {
        for feeder in 0..if kind == Kind::Feeders { 2 } else { 1 } {
            for set in 0..routes / self.per_set {
                let prefixes = set * self.per_set..(set + 1) * self.per_set;
                self.receive(feeder, &announcement(feeder, set, None, prefixes));
                if set % 100 == 99 {
                    self.serve();
                }
            }
        }
        self.serve();
    }

    /// A route changes and changes back; every client is sent the one before the other. No two rounds use the same
    /// attributes.
    pub fn flap(&mut self, kind: Kind, round: u32, number: u32) {
        let set = number / self.per_set;
        match kind {
            Kind::Withdraw | Kind::Feeders => self.receive(0, &withdrawal(number)),
            Kind::Attributes => {
                self.receive(0, &announcement(0, set, Some(round), std::iter::once(number)));
            }
        }
        self.serve();
        self.receive(0, &announcement(0, set, None, std::iter::once(number)));
        self.serve();
    }
}
