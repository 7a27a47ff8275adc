//! A BGP peer that announces a table and then only stays: a thread for what the speaker says. Not pure (a socket).

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use socket2::{Domain, Protocol, Socket, Type};

use super::node::Node;
use super::plan::{Family, Plan};
use crate::addresses::PORT;
use crate::session::HOLD_TIME;
use crate::wire::{self, Attributes};

/// Prefixes that have their attributes in common.
const PER_SET: usize = 10;
/// The AS of the first peer.
const FIRST_AS: u32 = 70_000;
/// How long connecting may take.
const CONNECT: Duration = Duration::from_secs(5);
/// How long the speaker may take nothing.
const STUCK: Duration = Duration::from_secs(60);

/// The peer.
pub struct Peer {
    stream: TcpStream,
}

impl Peer {
    /// Connects from the router at the end of a link, and waits until the session is established.
    ///
    /// # Errors
    /// Where the speaker refuses.
    pub fn connect(node: &Node, link: usize, speaker: Ipv4Addr, deadline: Instant) -> Result<Peer> {
        let own = Plan { family: Family::V4, routes: 1 }.router(link);
        let IpAddr::V4(identifier) = own else { bail!("a router of IPv4") };
        // A speaker that has just started may not have its configuration in force yet.
        let mut stream = loop {
            let tried = node
                .far(|| connect(own, speaker))
                .and_then(|stream| establish(stream, link, identifier, deadline));
            match tried {
                Ok(stream) => break stream,
                Err(error) if Instant::now() >= deadline => return Err(error),
                Err(_) => std::thread::sleep(Duration::from_millis(100)),
            }
        };
        let mut reader = stream.try_clone()?;
        std::thread::spawn(move || {
            let mut buffer = vec![0; 1 << 16];
            while matches!(reader.read(&mut buffer), Ok(1..)) {}
        });
        stream.write_all(&wire::keepalive())?;
        Ok(Peer { stream })
    }

    /// Sends octets, all of them.
    ///
    /// # Errors
    /// Where the connection broke.
    pub fn send(&mut self, octets: &[u8]) -> Result<()> {
        self.stream.write_all(octets).context("the BGP session broke")
    }

    /// Closes the connection, without a word.
    ///
    /// # Errors
    /// Where it is closed already.
    pub fn close(self) -> Result<()> {
        self.stream.shutdown(Shutdown::Both).context("the BGP session broke before")
    }
}

fn connect(own: IpAddr, speaker: Ipv4Addr) -> Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_tcp_nodelay(true)?;
    socket.bind(&SocketAddr::from((own, 0)).into())?;
    socket.connect_timeout(&SocketAddr::from((speaker, PORT)).into(), CONNECT).context("connecting")?;
    Ok(socket.into())
}

/// OPEN and KEEPALIVE both ways.
fn establish(
    mut stream: TcpStream,
    link: usize,
    identifier: Ipv4Addr,
    deadline: Instant,
) -> Result<TcpStream> {
    stream.set_read_timeout(Some(CONNECT))?;
    stream.write_all(&wire::open(FIRST_AS + link as u32, HOLD_TIME, identifier))?;
    let mut octets = Vec::new();
    loop {
        ensure!(Instant::now() < deadline, "the speaker does not establish the session");
        let kind = match wire::header(&octets).map_err(|error| anyhow::anyhow!(error.0))? {
            Some((kind, length)) if octets.len() >= length => {
                octets.drain(..length);
                kind
            }
            _ => {
                let mut buffer = [0; 4096];
                let length = stream.read(&mut buffer).context("waiting for the speaker")?;
                ensure!(length > 0, "the speaker closed the connection");
                octets.extend_from_slice(&buffer[..length]);
                continue;
            }
        };
        match kind {
            wire::OPEN => stream.write_all(&wire::keepalive())?,
            wire::KEEPALIVE => {
                stream.set_read_timeout(None)?;
                stream.set_write_timeout(Some(STUCK))?;
                return Ok(stream);
            }
            wire::NOTIFICATION => bail!("the speaker sent a NOTIFICATION"),
            _ => {}
        }
    }
}

/// UPDATEs that announce a plan by way of the router of a link: the path of the second is longer. IPv4 only.
#[must_use]
pub fn announcement(plan: &Plan, link: usize) -> Vec<u8> {
    let IpAddr::V4(next_hop) = plan.router(link) else { return Vec::new() };
    let mut octets = Vec::new();
    for set in 0..plan.routes.div_ceil(PER_SET) {
        let mut as_path = vec![FIRST_AS + link as u32; 1 + link];
        as_path.push(100_000 + set as u32);
        let attributes = Attributes {
            origin: 0,
            as_path,
            next_hop,
            med: None,
            local_pref: None,
            originator: None,
            clusters: Vec::new(),
            others: Vec::new(),
        };
        let last = plan.routes.min((set + 1) * PER_SET);
        let prefixes = (set * PER_SET..last).map(|number| plan.network_v4(number));
        octets.extend(wire::announce(&wire::attributes(&attributes), prefixes));
    }
    octets
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_is_announced_whole() {
        let plan = Plan { family: Family::V4, routes: 25 };
        let octets = announcement(&plan, 1);
        let (mut rest, mut found) = (&octets[..], Vec::new());
        while let Some((kind, length)) = wire::header(rest).unwrap() {
            assert_eq!(kind, wire::UPDATE);
            let parts = wire::parts(&rest[wire::HEADER..length]).unwrap();
            let attributes = wire::decode_attributes(parts.attributes).unwrap();
            assert_eq!(attributes.as_path.len(), 3);
            assert_eq!(IpAddr::from(attributes.next_hop), plan.router(1));
            found.extend(wire::Prefixes(parts.announced).map(|prefix| prefix.unwrap().0));
            rest = &rest[length..];
        }
        assert_eq!(found, (0..25).map(|number| plan.network_v4(number)).collect::<Vec<_>>());
    }
}
