//! Clients that do what nobody should: none of it is to be noticed by the others, whose sessions last and whose tables
//! are right. The real speaker runs; who does not read is looked at in `reflection` and `flow`.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use super::reflection::{Client, with_speaker};
use super::rig::{PATIENCE, keepalive, read_message};

/// Clients that keep to the rules.
struct Others {
    clients: Vec<Client>,
    med: u32,
}

impl Others {
    async fn new(address: SocketAddr) -> Others {
        let mut clients = Vec::new();
        for number in 1..=4 {
            clients.push(Client::connect(number, address, None).await);
        }
        Others { clients, med: 0 }
    }

    /// All of them announce something new and are told of each other, and beside that of `more` and nothing else.
    async fn are_well(&mut self, more: &[(u8, u32)]) {
        self.med += 1;
        for client in &mut self.clients {
            client.announce(self.med).await;
        }
        let all: BTreeMap<u8, u32> =
            self.clients.iter().map(|client| (client.number, self.med)).chain(more.iter().copied()).collect();
        for client in &mut self.clients {
            let mut wanted = all.clone();
            wanted.remove(&client.number);
            client.reaches(&wanted).await;
        }
    }
}

/// A connection from a client's address.
async fn dial(number: u8, to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind(SocketAddr::new(Ipv4Addr::new(127, 2, 0, number).into(), 0)).unwrap();
    socket.connect(to).await.unwrap()
}

/// Reads to the end, which must come.
async fn is_closed(stream: &mut TcpStream, why: &str) {
    let ended = timeout(PATIENCE, stream.read_to_end(&mut Vec::new())).await;
    // A reset is an end as well.
    assert!(ended.is_ok(), "{why} does not end the connection");
}

#[tokio::test]
async fn a_client_that_comes_and_goes_a_thousand_times() {
    with_speaker(0, async |address| {
        let mut others = Others::new(address).await;
        // After some errors in a row a peer is kept waiting (RFC 4271 §8.1.1), so most of these are refused at once.
        let coming_and_going = async {
            let mut sessions = 0;
            for round in 0..1_000 {
                if let Some(mut client) = Client::try_connect(9, address, None).await {
                    client.announce(round).await;
                    sessions += 1;
                }
            }
            sessions
        };
        let sessions = timeout(PATIENCE, coming_and_going).await.expect("all are answered");
        assert!(sessions >= 1);
        others.are_well(&[]).await;
        // Another one, of another address, comes up as ever.
        let mut client = Client::connect(10, address, None).await;
        client.announce(5).await;
        others.are_well(&[(10, 5)]).await;
    })
    .await;
}

#[tokio::test]
async fn garbage() {
    with_speaker(0, async |address| {
        let mut others = Others::new(address).await;
        others.are_well(&[]).await;
        let header = |length: u16, kind: u8| {
            let mut octets = vec![0xff; 16];
            octets.extend_from_slice(&length.to_be_bytes());
            octets.push(kind);
            octets
        };
        let mut random = 1_u32;
        let noise: Vec<u8> = std::iter::repeat_with(|| {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (random >> 24) as u8
        })
        .take(100_000)
        .collect();
        let cases: [(&str, Vec<u8>); 6] = [
            ("another protocol", b"GET / HTTP/1.1\r\nHost: rr\r\n\r\n".to_vec()),
            ("noise", noise.clone()),
            ("a length that cannot be", header(18, 4)),
            ("a message that is too long", header(u16::MAX, 2)),
            ("a type there is not", header(19, 99)),
            ("a body of noise", [header(4096, 2), noise[..4077].to_vec()].concat()),
        ];
        for (number, (what, octets)) in (10..).zip(&cases) {
            // In place of an OPEN, and in a session.
            let mut stream = dial(number, address).await;
            // The connection may be ended before all is written.
            let _ = stream.write_all(octets).await;
            is_closed(&mut stream, what).await;
            let mut client = Client::connect(number + 20, address, None).await;
            client.announce(7).await;
            let _ = client.stream.write_all(&[keepalive(), octets.clone()].concat()).await;
            is_closed(&mut client.stream, what).await;
            others.are_well(&[]).await;
        }
    })
    .await;
}

#[tokio::test]
async fn more_prefixes_than_a_member_of_the_range_may_have() {
    with_speaker(0, async |address| {
        let mut others = Others::new(address).await;
        let mut modest = Client::connect(8, address, None).await;
        modest.announce_all(1, 200..208).await;
        let at_the_limit: Vec<(u8, u32)> = (200..208).map(|number| (number, 1)).collect();
        others.are_well(&at_the_limit).await;
        let mut greedy = Client::connect(9, address, None).await;
        greedy.announce_all(1, 210..219).await;
        let notification = async {
            loop {
                if let Some((3, body)) = read_message(&mut greedy.stream).await {
                    return body;
                }
            }
        };
        let body = timeout(PATIENCE, notification).await.expect("a NOTIFICATION");
        assert_eq!(body[..2], [6, 1], "RFC 4486: Cease, Maximum Number of Prefixes Reached");
        // What it announced within its limit went with it; the other's limit is its own.
        others.are_well(&at_the_limit).await;
    })
    .await;
}
