//! The whole way, from many sockets through the real speaker to all the others: complete, in order, nothing extra,
//! with clients that come and go, and one that does not read; by one thread and by several.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use causeway_bgp_core::config::Role;
use causeway_bgp_core::peer::RestartMarks;
use causeway_bgp_core::speaker::{Speaker, StartMode};
use causeway_bgp_wire::{Asn, Capability, Family, Open};
use causeway_bgpd::fib_side::FibSide;
use causeway_bgpd::listen::{ListenOn, Listener};
use causeway_bgpd::lower;
use causeway_bgpd::speaker_link::{ROOM, speaker_link};
use causeway_bgpd::speaker_task::{self, Nursery, State};
use causeway_daemon::signals::Shutdown;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use super::rig::{PATIENCE, keepalive, read_message};

const CLIENTS: u8 = 48;

const DOCUMENTS: &str = "
apiVersion: causeway.dev/v1alpha1
kind: Node
metadata: {name: rr}
spec:
  bgp: {ipv4Address: 127.0.0.1/8, routerID: 192.0.2.250, routeReflectorClusterID: 192.0.2.250}
---
apiVersion: causeway.dev/v1alpha1
kind: IPPool
metadata: {name: all}
spec: {cidr: 10.0.0.0/8}
---
apiVersion: causeway.dev/v1alpha1
kind: BGPPeer
metadata: {name: clients}
spec: {peerRange: 127.2.0.0/16, asNumber: internal, passive: true, reflection: Client, maxPrefixes: {ipv4: 8}}
";

/// A client: announces 10.0.<number>.0/24 with a MED, and keeps what it is told of the others.
pub struct Client {
    pub number: u8,
    pub stream: TcpStream,
    /// Third octet of the prefix → MED.
    pub table: BTreeMap<u8, u32>,
}

impl Client {
    /// Brings a session up.
    pub async fn connect(number: u8, to: SocketAddr, receive_buffer: Option<u32>) -> Client {
        Client::try_connect(number, to, receive_buffer).await.expect("an OPEN and a KEEPALIVE")
    }

    /// The same, but for one that is refused.
    pub async fn try_connect(number: u8, to: SocketAddr, receive_buffer: Option<u32>) -> Option<Client> {
        let socket = TcpSocket::new_v4().unwrap();
        if let Some(size) = receive_buffer {
            socket.set_recv_buffer_size(size).unwrap();
        }
        socket.set_reuseaddr(true).unwrap();
        socket.bind(SocketAddr::new(Ipv4Addr::new(127, 2, 0, number).into(), 0)).unwrap();
        let mut stream = socket.connect(to).await.unwrap();
        let families = vec![Capability::Multiprotocol(Family::Ipv4Unicast.afi_safi())];
        let open = Open::new(Asn(64512), 0, Ipv4Addr::new(192, 0, 2, number), families);
        let mut octets = Vec::new();
        causeway_bgp_wire::encode_open(&open, &mut octets);
        stream.write_all(&[octets, keepalive()].concat()).await.ok()?;
        let answers = [read_message(&mut stream).await?.0, read_message(&mut stream).await?.0];
        (answers == [1, 4]).then(|| Client { number, stream, table: BTreeMap::new() })
    }

    /// Announces its prefix.
    pub async fn announce(&mut self, med: u32) {
        self.announce_all(med, [self.number]).await;
    }

    /// Announces prefixes by their third octets.
    pub async fn announce_all(&mut self, med: u32, prefixes: impl IntoIterator<Item = u8>) {
        let nlri: Vec<u8> = prefixes.into_iter().flat_map(|number| [24, 10, 0, number]).collect();
        let mut octets = vec![0xff; 16];
        octets.extend_from_slice(&[0, 51 + nlri.len() as u8, 2, 0, 0, 0, 28]);
        octets.extend_from_slice(&[0x40, 1, 1, 0, 0x40, 2, 0, 0x40, 3, 4, 192, 0, 2, self.number]);
        octets.extend_from_slice(&[0x80, 4, 4]);
        octets.extend_from_slice(&med.to_be_bytes());
        octets.extend_from_slice(&[0x40, 5, 4, 0, 0, 0, 100]);
        octets.extend_from_slice(&nlri);
        self.stream.write_all(&octets).await.unwrap();
    }

    /// Reads until the table is this one.
    pub async fn reaches(&mut self, wanted: &BTreeMap<u8, u32>) {
        let read = async {
            while self.table != *wanted {
                let (kind, body) = read_message(&mut self.stream).await.expect("the session lasts");
                if kind == 2 {
                    self.update(&body);
                }
            }
        };
        let done = timeout(PATIENCE, read).await;
        assert!(done.is_ok(), "client {}: {:?}, wanted {wanted:?}", self.number, self.table);
    }

    fn update(&mut self, body: &[u8]) {
        let length = |at: usize| usize::from(u16::from_be_bytes([body[at], body[at + 1]]));
        let (withdrawn, attributes) = body[2..].split_at(length(0));
        let (attributes, reachable) = attributes[2..].split_at(length(2 + length(0)));
        for prefix in withdrawn.chunks(4) {
            self.table.remove(&prefix[3]);
        }
        let med = attributes.windows(3).position(|head| head == [0x80, 4, 4]);
        for prefix in reachable.chunks(4) {
            let at = med.expect("a MED") + 3;
            let med = u32::from_be_bytes(attributes[at..at + 4].try_into().unwrap());
            assert_ne!(prefix[3], self.number, "a path is not sent back to where it came from");
            let old = self.table.insert(prefix[3], med);
            assert!(old.is_none_or(|old| old <= med), "what is older never comes later");
        }
    }
}

/// Runs the speaker until `story` is over.
pub async fn with_speaker(helpers: usize, story: impl AsyncFnOnce(SocketAddr)) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rr.yaml");
    std::fs::write(&path, DOCUMENTS).unwrap();
    let lowered = lower::read(&path, "rr", Role::Reflector).unwrap();
    let (link, from_peers) = speaker_link(ROOM);
    let on = ListenOn::Addresses(vec!["127.0.0.1:0".parse().unwrap()]);
    let listener = Listener::start(&on, link.clone()).unwrap();
    let address = listener.addresses()[0];
    let (marks, _) = watch::channel(RestartMarks::default());
    let nursery = Nursery { listener, marks, speaker: link };
    let mode = StartMode { restarting: false, fib: false };
    let state = State::new(Speaker::new(Instant::now(), mode), FibSide::new(None), nursery, helpers);
    let (_config, configured) = watch::channel(Arc::clone(&lowered.config));
    let (_calls, calls) = mpsc::channel(1);
    let (end, shutdown) = Shutdown::manual();
    let told = async {
        story(address).await;
        end.begin();
    };
    tokio::join!(speaker_task::run(state, configured, from_peers, calls, shutdown), told);
}

async fn clients_come_announce_change_and_go(address: SocketAddr) {
    let (mut clients, mut all) = (Vec::new(), BTreeMap::new());
    let others = |all: &BTreeMap<u8, u32>, number: u8| {
        all.iter().filter(|(of, _)| **of != number).map(|(of, med)| (*of, *med)).collect::<BTreeMap<_, _>>()
    };
    // Cold: each announces as it comes up.
    for number in 1..=CLIENTS {
        let mut client = Client::connect(number, address, None).await;
        client.announce(0).await;
        all.insert(number, 0);
        clients.push(client);
    }
    for client in &mut clients {
        client.reaches(&others(&all, client.number)).await;
    }
    // One that never reads is nobody's concern.
    let mut mute = Client::connect(CLIENTS + 1, address, Some(1)).await;
    mute.announce(0).await;
    all.insert(mute.number, 0);
    // Warm: all of them at once, again and again, faster than they read.
    for med in 1..=100 {
        for client in &mut clients {
            client.announce(med).await;
            all.insert(client.number, med);
        }
    }
    for client in &mut clients {
        client.reaches(&others(&all, client.number)).await;
    }
    // Some go, and what they said goes with them; some of these come back with something else.
    for gone in clients.drain(..8) {
        all.remove(&gone.number);
    }
    for number in 1..=4 {
        let mut client = Client::connect(number, address, None).await;
        client.announce(1000).await;
        all.insert(number, 1000);
        clients.push(client);
    }
    for client in &mut clients {
        client.reaches(&others(&all, client.number)).await;
    }
}

#[tokio::test]
async fn all_are_told_everything_by_one_thread() {
    with_speaker(0, clients_come_announce_change_and_go).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_are_told_everything_by_several_threads() {
    with_speaker(2, clients_come_announce_change_and_go).await;
}
