//! Opening connections to a peer, and preparing those it opened. Not pure.

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use causeway_bgp_core::config::{Password, PeerKey, SessionConfig};
use causeway_bgp_core::peer::Addresses;
use causeway_bgp_wire::Prefix;
use nix::ifaddrs::getifaddrs;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpSocket, TcpStream};

use crate::socket_options;

/// The port of BGP (RFC 4271 §8.2.1), where the peer has no other.
pub const BGP_PORT: u16 = 179;

/// Opens a TCP connection to a peer, with everything its documents ask for.
///
/// # Errors
/// What the kernel says; `NotFound` where the password is missing.
pub async fn connect(key: PeerKey, config: Arc<SessionConfig>) -> io::Result<TcpStream> {
    let remote = SocketAddr::new(key.address, key.port.unwrap_or(BGP_PORT));
    let socket = Socket::new(Domain::for_address(remote), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    match &config.password {
        Password::None => {}
        Password::Key(key) => socket_options::set_md5_key(&socket, Prefix::host(remote.ip()), Some(key))?,
        Password::Missing(why) => return Err(io::Error::new(io::ErrorKind::NotFound, why.clone())),
    }
    // The last UPDATE of a batch must not wait for an acknowledgement.
    socket.set_tcp_nodelay(true)?;
    prepare(&socket, remote.ip(), &config)?;
    if let Some(source) = config.source.filter(|source| source.is_ipv4() == remote.is_ipv4()) {
        socket.bind(&SocketAddr::new(source, 0).into())?;
    }
    TcpSocket::from_std_stream(socket.into()).connect(remote).await
}

/// Sets what every connection with the peer needs, whoever opened it, and the listening socket cannot know.
///
/// # Errors
/// What the kernel says.
pub fn prepare(socket: &impl std::os::fd::AsFd, peer: IpAddr, config: &SessionConfig) -> io::Result<()> {
    socket_options::set_distance(socket, peer, config.distance)
}

/// The ends of a connection and the link it leaves by.
#[derive(Clone, Debug)]
pub struct Ends {
    /// The ends.
    pub addresses: Addresses,
    /// The device that bears our end, and whether the peer sits on its subnet.
    pub device: Option<Arc<str>>,
}

/// Looks up the ends of a connection, and which device bears ours.
///
/// # Errors
/// The connection is gone already.
pub fn ends(stream: &TcpStream, config: &SessionConfig) -> io::Result<Ends> {
    let (local, remote) = (stream.local_addr()?.ip(), stream.peer_addr()?.ip());
    let link = link_of(local, remote);
    let on_link = link.as_ref().is_some_and(|link| link.on_subnet) || config.distance.is_single_hop();
    let link = link.filter(|_| on_link);
    let link_local = link.as_ref().and_then(|link| link.link_local);
    Ok(Ends {
        addresses: Addresses { local, remote, link_local },
        device: link.map(|link| link.device.into()),
    })
}

struct Link {
    device: String,
    link_local: Option<Ipv6Addr>,
    on_subnet: bool,
}

/// An address of this machine: device, address, netmask.
type OwnAddress = (String, IpAddr, Option<IpAddr>);

/// The addresses of this machine as listed last. Listing them asks the kernel for every device; a thousand connections
/// that come at once ask once.
static LISTING: Mutex<Option<(Instant, Arc<[OwnAddress]>)>> = Mutex::new(None);

/// How long a listing is good for.
const LISTING_AGE: Duration = Duration::from_millis(250);

/// The addresses of this machine; `fresh`: as they are now.
fn own_addresses(fresh: bool) -> Option<Arc<[OwnAddress]>> {
    let mut listing = LISTING.lock().unwrap_or_else(PoisonError::into_inner);
    if let (Some((at, all)), false) = (&*listing, fresh)
        && at.elapsed() < LISTING_AGE
    {
        return Some(Arc::clone(all));
    }
    let all: Arc<[OwnAddress]> = getifaddrs()
        .ok()?
        .filter_map(|entry| {
            let mask = entry.netmask.as_ref().and_then(ip_of);
            Some((entry.interface_name, ip_of(entry.address.as_ref()?)?, mask))
        })
        .collect();
    *listing = Some((Instant::now(), Arc::clone(&all)));
    Some(all)
}

/// The device that bears `local`, its link-local address, and whether `remote` is in the same subnet. An address that
/// came after the last listing is found in a new one.
fn link_of(local: IpAddr, remote: IpAddr) -> Option<Link> {
    find_link(&own_addresses(false)?, local, remote)
        .or_else(|| find_link(&own_addresses(true)?, local, remote))
}

fn find_link(all: &[OwnAddress], local: IpAddr, remote: IpAddr) -> Option<Link> {
    let (device, _, mask) = all.iter().find(|(_, address, _)| *address == local)?;
    let link_local = all.iter().find_map(|(name, address, _)| match address {
        IpAddr::V6(address) if name == device && address.is_unicast_link_local() => Some(*address),
        _ => None,
    });
    let on_subnet = mask.is_some_and(|mask| same_subnet(local, remote, mask));
    Some(Link { device: device.clone(), link_local, on_subnet })
}

fn ip_of(address: &nix::sys::socket::SockaddrStorage) -> Option<IpAddr> {
    let v4 = address.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
    v4.or_else(|| address.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip())))
}

fn same_subnet(a: IpAddr, b: IpAddr, mask: IpAddr) -> bool {
    match (a, b, mask) {
        (IpAddr::V4(a), IpAddr::V4(b), IpAddr::V4(mask)) => (a.to_bits() ^ b.to_bits()) & mask.to_bits() == 0,
        (IpAddr::V6(a), IpAddr::V6(b), IpAddr::V6(mask)) => (a.to_bits() ^ b.to_bits()) & mask.to_bits() == 0,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_device_bears_the_loopback_addresses() {
        let v4 = link_of("127.0.0.1".parse().unwrap(), "127.0.0.9".parse().unwrap()).unwrap();
        assert_eq!((v4.device.as_str(), v4.on_subnet), ("lo", true));
        let v4 = link_of("127.0.0.1".parse().unwrap(), "192.0.2.9".parse().unwrap()).unwrap();
        assert!(!v4.on_subnet);
        assert!(link_of("192.0.2.77".parse().unwrap(), "192.0.2.9".parse().unwrap()).is_none());
    }
}
