//! The listening sockets: accepts connections and gives each to the task of the peer it comes from.
//!
//! Owner: the sockets, the MD5 keys on them, and the table from source address to peer. What comes from no configured
//! address is closed at once; what comes from a `peerRange` waits a moment for the speaker to make a peer of it.
//! Not pure. RFC 4271 §8.2.1 (accepting), RFC 2385 (keys), RFC 5082 (TTL of the answers).

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use causeway_bgp_core::config::{Password, RangeConfig, SessionConfig};
use causeway_bgp_core::event::PeerId;
use causeway_bgp_core::peer::State;
use causeway_bgp_wire::Prefix;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tracing::{debug, warn};

use crate::socket_options;
use crate::speaker_link::{PeerStatus, SpeakerLink, ToPeer, ToSpeaker};

/// A whole cluster may come back at once; the kernel caps this at `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// Connections of one peer that may wait for its task.
const WAITING_PER_PEER: usize = 8;

/// Connections from ranges that may wait for the speaker.
const WAITING_DYNAMIC: usize = 4096;

/// How long they may wait.
const DYNAMIC_PATIENCE: Duration = Duration::from_secs(10);

/// Pause after `accept` failed for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Where to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenOn {
    /// Any address of both families at this port; a machine without IPv6 gets a warning.
    Any(u16),
    /// Exactly these (`--listen`, or `bindMode: NodeIP`).
    Addresses(Vec<SocketAddr>),
}

/// An address cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {source}{}", hint(source))]
pub struct ListenError {
    /// Which address.
    pub address: SocketAddr,
    /// Why.
    pub source: io::Error,
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => " (another BGP speaker on this machine? see `ss -ltnp`)",
        io::ErrorKind::PermissionDenied => {
            " (ports below 1024 need root, CAP_NET_BIND_SERVICE or another port)"
        }
        _ => "",
    }
}

/// A connection from a peer, not yet looked at.
#[derive(Debug)]
pub struct AcceptedConnection {
    /// The connection.
    pub stream: TcpStream,
    _slot: Slot,
}

/// Counts the connections that wait for one peer's task.
#[derive(Debug)]
struct Slot(Arc<AtomicUsize>);

impl Slot {
    fn take(waiting: &Arc<AtomicUsize>) -> Option<Self> {
        let slot = Slot(Arc::clone(waiting));
        (waiting.fetch_add(1, Ordering::Relaxed) < WAITING_PER_PEER).then_some(slot)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A peer as the listener knows it.
#[derive(Debug)]
pub struct PeerEntry {
    /// Its number.
    pub peer: PeerId,
    /// Where its connections come from.
    pub address: IpAddr,
    /// Where they go.
    pub sender: mpsc::UnboundedSender<ToPeer>,
    /// Its state: where several peers share an address, one that is down gets the connection.
    pub status: watch::Receiver<PeerStatus>,
}

#[derive(Debug)]
struct Registered {
    entry: PeerEntry,
    refused: bool,
    waiting: Arc<AtomicUsize>,
}

#[derive(Debug, Default)]
struct Table {
    peers: HashMap<IpAddr, Vec<Registered>>,
    ranges: Vec<(Prefix, Password)>,
    keys: HashMap<Prefix, String>,
    dynamic: HashMap<IpAddr, (Instant, TcpStream)>,
    /// When those of `dynamic` that waited for too long were dropped last.
    swept: Option<Instant>,
}

#[derive(Debug)]
struct Shared {
    sockets: Vec<TcpListener>,
    table: Mutex<Table>,
    speaker: SpeakerLink,
}

/// The listening sockets and the table of peers; clones share both. Listening ends with [`Listener::close`].
#[derive(Clone, Debug)]
pub struct Listener {
    shared: Arc<Shared>,
    tasks: Arc<Vec<JoinHandle<()>>>,
}

impl Listener {
    /// Opens the sockets and begins to accept. Needs a tokio runtime.
    ///
    /// # Errors
    /// The first address that cannot be listened on; of [`ListenOn::Any`] only the IPv4 one.
    pub fn start(on: &ListenOn, speaker: SpeakerLink) -> Result<Self, ListenError> {
        let open = |address: SocketAddr| bind(address).map_err(|source| ListenError { address, source });
        let sockets = match on {
            ListenOn::Addresses(addresses) => {
                addresses.iter().map(|address| open(*address)).collect::<Result<Vec<_>, _>>()?
            }
            ListenOn::Any(port) => {
                let mut sockets = vec![open((Ipv4Addr::UNSPECIFIED, *port).into())?];
                match open((Ipv6Addr::UNSPECIFIED, *port).into()) {
                    Ok(socket) => sockets.push(socket),
                    Err(error) => warn!("{error}; only IPv4 peers can connect"),
                }
                sockets
            }
        };
        let shared = Arc::new(Shared { sockets, table: Mutex::default(), speaker });
        let accepting = (0..shared.sockets.len()).map(|index| tokio::spawn(accept(shared.clone(), index)));
        let tasks = Arc::new(accepting.collect());
        Ok(Listener { shared, tasks })
    }

    /// The addresses listened on, with the ports the kernel gave where 0 was asked for.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.shared.sockets.iter().filter_map(|socket| socket.local_addr().ok()).collect()
    }

    /// Ends listening: connections are no longer accepted.
    pub fn close(&self) {
        self.tasks.iter().for_each(JoinHandle::abort);
        self.shared.table().peers.clear();
    }

    /// The ranges that unnamed peers may connect from.
    pub fn set_ranges(&self, ranges: &[RangeConfig]) {
        let mut table = self.shared.table();
        let old = std::mem::take(&mut table.ranges);
        table.ranges = ranges.iter().map(|r| (r.range, r.settings.session.password.clone())).collect();
        for (range, _) in &old {
            if !table.ranges.iter().any(|(kept, _)| kept == range) {
                self.shared.set_key(&mut table, *range, &Password::None);
            }
        }
        for (range, password) in table.ranges.clone() {
            self.shared.set_key(&mut table, range, &password);
        }
    }

    /// Gives the connections of a peer to its task from now on; of a dynamic peer also the one that made it.
    pub fn register(&self, entry: PeerEntry, session: &SessionConfig) {
        let mut table = self.shared.table();
        let address = entry.address;
        self.shared.set_key(&mut table, Prefix::host(address), &session.password);
        let refused = matches!(session.password, Password::Missing(_));
        let registered = Registered { entry, refused, waiting: Arc::default() };
        if let Some((_, stream)) = table.dynamic.remove(&address) {
            registered.give(stream);
        }
        table.peers.entry(address).or_default().push(registered);
    }

    /// The session parameters of a registered peer changed.
    pub fn update(&self, peer: PeerId, address: IpAddr, session: &SessionConfig) {
        let mut table = self.shared.table();
        self.shared.set_key(&mut table, Prefix::host(address), &session.password);
        let all = table.peers.get_mut(&address).into_iter().flatten();
        for registered in all.filter(|registered| registered.entry.peer == peer) {
            registered.refused = matches!(session.password, Password::Missing(_));
        }
    }

    /// The peer is gone.
    pub fn unregister(&self, peer: PeerId, address: IpAddr) {
        let mut table = self.shared.table();
        let Some(peers) = table.peers.get_mut(&address) else { return };
        peers.retain(|registered| registered.entry.peer != peer);
        if peers.is_empty() {
            table.peers.remove(&address);
            self.shared.set_key(&mut table, Prefix::host(address), &Password::None);
        }
    }
}

impl Registered {
    fn give(&self, stream: TcpStream) {
        let address = self.entry.address;
        if self.refused {
            return debug!(peer = %address, "connection closed: the peer's password is missing");
        }
        let Some(slot) = Slot::take(&self.waiting) else {
            return debug!(peer = %address, "connection closed: too many wait");
        };
        // A task that has ended drops the connection, which closes it.
        let _ = self.entry.sender.send(ToPeer::Accepted(AcceptedConnection { stream, _slot: slot }));
    }

    fn is_established(&self) -> bool {
        self.entry.status.borrow().state == State::Established
    }
}

impl Shared {
    fn table(&self) -> MutexGuard<'_, Table> {
        // The table is never left half-changed by a panic: each change is one call.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_key(&self, table: &mut Table, peers: Prefix, password: &Password) {
        let wanted = match password {
            Password::Key(key) => Some(key),
            Password::None | Password::Missing(_) => None,
        };
        if table.keys.get(&peers) == wanted {
            return;
        }
        let same_family = |socket: &&TcpListener| {
            socket.local_addr().is_ok_and(|a| a.is_ipv4() == peers.address().is_ipv4())
        };
        for socket in self.sockets.iter().filter(same_family) {
            let key = wanted.map(String::as_str);
            if let Err(error) = socket_options::set_md5_key(socket, peers, key) {
                warn!(%peers, "cannot set the TCP MD5 key on the listening socket: {error}");
            }
        }
        match wanted {
            Some(key) => table.keys.insert(peers, key.clone()),
            None => table.keys.remove(&peers),
        };
    }

    /// Gives a connection to its peer; true where the speaker is to be asked to make a peer of its source.
    fn dispatch(&self, stream: TcpStream, source: IpAddr) -> bool {
        let mut table = self.table();
        if let Some(peers) = table.peers.get(&source) {
            let down = peers.iter().find(|registered| !registered.is_established());
            if let Some(registered) = down.or(peers.first()) {
                registered.give(stream);
            }
            return false;
        }
        let range = table.ranges.iter().filter(|(range, _)| range.contains_address(source));
        match range.max_by_key(|(range, _)| range.prefix_len()) {
            None => debug!(%source, "connection closed: not a peer's address"),
            Some((_, Password::Missing(why))) => debug!(%source, "connection closed: {why}"),
            Some(_) => {
                let now = Instant::now();
                if table.swept.is_none_or(|at| now.duration_since(at) >= DYNAMIC_PATIENCE / 4) {
                    table.swept = Some(now);
                    table.dynamic.retain(|_, (since, _)| now.duration_since(*since) < DYNAMIC_PATIENCE);
                }
                if table.dynamic.len() < WAITING_DYNAMIC {
                    return table.dynamic.insert(source, (now, stream)).is_none();
                }
                debug!(%source, "connection closed: too many wait to become peers");
            }
        }
        false
    }
}

async fn accept(shared: Arc<Shared>, index: usize) {
    let socket = &shared.sockets[index];
    loop {
        match socket.accept().await {
            Ok((stream, source)) => {
                let address = source.ip();
                if !shared.dispatch(stream, address) {
                    continue;
                }
                // A speaker that is behind slows down accepting; the backlog holds the rest.
                let mut room = match shared.speaker.try_room() {
                    Some(room) => Some(room),
                    None => shared.speaker.room().await,
                };
                room.iter_mut().for_each(|room| room.shrink(0));
                if shared.speaker.tell(ToSpeaker::DynamicPeer { address }, room).is_err() {
                    return;
                }
            }
            Err(error) => {
                warn!("accepting a connection failed: {error}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    // What is accepted inherits it: the last UPDATE of a batch must not wait for an acknowledgement.
    socket.set_tcp_nodelay(true)?;
    // The answer to a SYN leaves before it is known whose it is, and a peer with GTSM takes nothing below 255.
    socket_options::set_ttl(&socket, address.ip(), 255)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn accepted_connections_send_without_delay() {
        let listening = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let far = TcpStream::connect(listening.local_addr().unwrap());
        let (far, accepted) = tokio::join!(far, listening.accept());
        far.unwrap();
        assert!(accepted.unwrap().0.nodelay().unwrap());
    }
}
