//! Socket options that the standard library and its friends do not know: TCP MD5 keys (RFC 2385) and the smallest TTL
//! accepted (GTSM, RFC 5082). The one module of this crate with `unsafe`.
//!
//! Structures and numbers are those of `linux/tcp.h`, `linux/in.h` and `linux/in6.h`.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd};

use causeway_bgp_core::config::Distance;
use causeway_bgp_wire::Prefix;
use socket2::SockRef;

/// Longest MD5 key the kernel takes (`TCP_MD5SIG_MAXKEYLEN`).
pub const MD5_KEY_MAX: usize = 80;

/// `TCP_MD5SIG_FLAG_PREFIX`: the key is for all addresses of a prefix.
const MD5_FLAG_PREFIX: u8 = 1;

/// `struct tcp_md5sig`.
#[repr(C)]
struct TcpMd5Sig {
    address: libc::sockaddr_storage,
    flags: u8,
    prefix_len: u8,
    key_len: u16,
    interface: i32,
    key: [u8; MD5_KEY_MAX],
}

/// Sets the MD5 key for connections with the addresses of `peers`, or removes it. On a listening socket this is what
/// makes the kernel drop what comes from there unsigned.
///
/// # Errors
/// `InvalidInput` for a key that is empty or longer than [`MD5_KEY_MAX`]; else what the kernel says. Removing a key
/// that is not there is no error.
pub fn set_md5_key(socket: &impl AsFd, peers: Prefix, key: Option<&str>) -> io::Result<()> {
    let octets = key.unwrap_or_default().as_bytes();
    if octets.len() > MD5_KEY_MAX || key.is_some_and(str::is_empty) {
        let message = format!("a TCP MD5 key has 1 to {MD5_KEY_MAX} octets, this one {}", octets.len());
        return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
    }
    let mut option = TcpMd5Sig {
        address: storage(peers.address()),
        flags: MD5_FLAG_PREFIX,
        prefix_len: peers.prefix_len(),
        key_len: octets.len() as u16,
        interface: 0,
        key: [0; MD5_KEY_MAX],
    };
    option.key[..octets.len()].copy_from_slice(octets);
    match set(socket, libc::IPPROTO_TCP, libc::TCP_MD5SIG_EXT, &option) {
        Err(error) if key.is_none() && error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        result => result,
    }
}

/// Sets with what TTL packets leave, and, for GTSM, with what TTL they must arrive at least.
///
/// # Errors
/// What the kernel says.
pub fn set_distance(socket: &impl AsFd, peer: IpAddr, distance: Distance) -> io::Result<()> {
    let (ttl, least) = match distance {
        Distance::Ttl(ttl) => (ttl, 0),
        Distance::Security(hops) => (255, 255 - hops.saturating_sub(1)),
    };
    set_ttl(socket, peer, ttl)?;
    let least = libc::c_int::from(least);
    match peer {
        IpAddr::V4(_) => set(socket, libc::IPPROTO_IP, libc::IP_MINTTL, &least),
        IpAddr::V6(_) => set(socket, libc::IPPROTO_IPV6, libc::IPV6_MINHOPCOUNT, &least),
    }
}

/// Sets with what TTL packets leave.
///
/// # Errors
/// What the kernel says.
pub fn set_ttl(socket: &impl AsFd, family: IpAddr, ttl: u8) -> io::Result<()> {
    let socket = SockRef::from(socket);
    match family {
        IpAddr::V4(_) => socket.set_ttl_v4(u32::from(ttl)),
        IpAddr::V6(_) => socket.set_unicast_hops_v6(u32::from(ttl)),
    }
}

fn storage(address: IpAddr) -> libc::sockaddr_storage {
    let address = socket2::SockAddr::from(std::net::SocketAddr::new(address, 0));
    // SAFETY: the pointer and the length are those of the address that `socket2` holds, which is a valid
    // `sockaddr_in` or `sockaddr_in6`; both are shorter than `sockaddr_storage`, for which all zeroes are valid.
    unsafe {
        let mut storage: libc::sockaddr_storage = std::mem::zeroed();
        std::ptr::copy_nonoverlapping(
            address.as_ptr().cast::<u8>(),
            std::ptr::from_mut(&mut storage).cast::<u8>(),
            (address.len() as usize).min(size_of::<libc::sockaddr_storage>()),
        );
        storage
    }
}

fn set<T>(socket: &impl AsFd, level: libc::c_int, name: libc::c_int, value: &T) -> io::Result<()> {
    // SAFETY: the descriptor is open for as long as `socket` is borrowed, and `value` points to as many initialised
    // octets as the length says; the kernel copies them before the call returns.
    let result = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            level,
            name,
            std::ptr::from_ref(value).cast(),
            size_of::<T>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn layout_of_tcp_md5sig() {
        assert_eq!(size_of::<TcpMd5Sig>(), 128 + 1 + 1 + 2 + 4 + 80);
    }

    #[test]
    fn keys_are_set_and_removed_for_both_families() {
        for (bind, peers) in [("127.0.0.1:0", "127.0.0.0/8"), ("[::1]:0", "::1/128")] {
            let listener = TcpListener::bind(bind).unwrap();
            let peers: Prefix = peers.parse().unwrap();
            set_md5_key(&listener, peers, Some("secret")).unwrap();
            set_md5_key(&listener, peers, Some("another")).unwrap();
            set_md5_key(&listener, peers, None).unwrap();
            set_md5_key(&listener, peers, None).unwrap();
            // Without a key an unsigned connection passes again.
            TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        }
    }

    #[test]
    fn keys_have_1_to_80_octets() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host: Prefix = "127.0.0.1/32".parse().unwrap();
        for key in [String::new(), "x".repeat(81)] {
            let error = set_md5_key(&listener, host, Some(&key)).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        }
        set_md5_key(&listener, host, Some(&"x".repeat(80))).unwrap();
    }

    #[test]
    fn distance_sets_the_ttl() {
        for bind in ["127.0.0.1:0", "[::1]:0"] {
            let listener = TcpListener::bind(bind).unwrap();
            let local = listener.local_addr().unwrap().ip();
            let ttl = || match local {
                IpAddr::V4(_) => SockRef::from(&listener).ttl_v4().unwrap(),
                IpAddr::V6(_) => SockRef::from(&listener).unicast_hops_v6().unwrap(),
            };
            set_distance(&listener, local, Distance::Ttl(3)).unwrap();
            assert_eq!(ttl(), 3);
            set_distance(&listener, local, Distance::Security(2)).unwrap();
            assert_eq!(ttl(), 255);
        }
    }
}
