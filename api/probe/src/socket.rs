//! A UDP socket for probes: what it sends is never fragmented and may be larger than the kernel believes the path to take,
//! and it says who complained. Needs no privilege.
//!
//! The one place with `unsafe`: `IP_MTU_DISCOVER` has no safe wrapper.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::{Duration, Instant};

use nix::cmsg_space;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, sendmsg, setsockopt, sockopt,
};

use crate::message::Verdict;

/// TTL (hop limit) where nothing else is asked for.
const TTL: u8 = 64;
/// Room for the largest datagram.
const BUFFER: usize = 65536;
const ICMP_DEST_UNREACH: u8 = 3;
const ICMP_FRAG_NEEDED: u8 = 4;
const ICMP_TIME_EXCEEDED: u8 = 11;
const ICMPV6_PKT_TOOBIG: u8 = 2;
const ICMPV6_TIME_EXCEED: u8 = 3;

/// What to send.
#[derive(Debug, Clone, Copy)]
pub struct Packet<'a> {
    /// Where to.
    pub to: SocketAddr,
    /// From which address; `None`: as the kernel chooses.
    pub from: Option<IpAddr>,
    /// TTL or hop limit; 0: as usual.
    pub ttl: u8,
    /// What is in it.
    pub payload: &'a [u8],
}

/// A complaint about a packet of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mishap {
    /// What it says.
    pub verdict: Verdict,
    /// Who says it; `None`: this host.
    pub hop: Option<IpAddr>,
    /// The MTU it names, in bytes; 0: none.
    pub mtu: u32,
    /// Where the packet was to go.
    pub to: Option<SocketAddr>,
    /// What the complaint quotes of the packet's payload.
    pub quoted: Vec<u8>,
}

/// What came in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A datagram.
    Datagram {
        /// Its sender.
        from: SocketAddr,
        /// The address of ours it was sent to.
        to: Option<IpAddr>,
        /// What is in it.
        payload: Vec<u8>,
    },
    /// A complaint.
    Mishap(Mishap),
}

/// The socket; of one family.
#[derive(Debug)]
pub struct ProbeSocket {
    socket: UdpSocket,
    ipv4: bool,
    buffer: Vec<u8>,
    control: Vec<u8>,
}

impl ProbeSocket {
    /// Binds a socket in the calling thread's network namespace. One that is bound to `::` does not take IPv4.
    ///
    /// # Errors
    /// The address is taken, or not of this host.
    pub fn bind(local: SocketAddr) -> io::Result<ProbeSocket> {
        use nix::sys::socket::{AddressFamily, SockFlag, SockType, bind, socket};
        let ipv4 = local.is_ipv4();
        let family = if ipv4 { AddressFamily::Inet } else { AddressFamily::Inet6 };
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let fd = socket(family, SockType::Datagram, flags, None)?;
        if ipv4 {
            setsockopt(&fd, sockopt::Ipv4RecvErr, &true)?;
            setsockopt(&fd, sockopt::Ipv4PacketInfo, &true)?;
            never_fragment(fd.as_fd(), libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_PROBE)?;
        } else {
            setsockopt(&fd, sockopt::Ipv6V6Only, &true)?;
            setsockopt(&fd, sockopt::Ipv6RecvErr, &true)?;
            setsockopt(&fd, sockopt::Ipv6RecvPacketInfo, &true)?;
            never_fragment(
                fd.as_fd(),
                libc::IPPROTO_IPV6,
                libc::IPV6_MTU_DISCOVER,
                libc::IPV6_PMTUDISC_PROBE,
            )?;
        }
        bind(fd.as_raw_fd(), &SockaddrStorage::from(local))?;
        let control = cmsg_space!(
            libc::in6_pktinfo,
            libc::in_pktinfo,
            [u8; 64] /* sock_extended_err, its address */
        );
        Ok(ProbeSocket { socket: fd.into(), ipv4, buffer: vec![0; BUFFER], control })
    }

    /// Sends a packet; `Ok(Some)` where this host itself would not: its device takes no packet of that size.
    ///
    /// # Errors
    /// It cannot be sent for another reason: no route, no permission.
    pub fn send(&mut self, packet: &Packet<'_>) -> io::Result<Option<Mishap>> {
        let ttl = i32::from(if packet.ttl == 0 { TTL } else { packet.ttl });
        if self.ipv4 {
            setsockopt(&self.socket, sockopt::Ipv4Ttl, &ttl)?;
        } else {
            setsockopt(&self.socket, sockopt::Ipv6Ttl, &ttl)?;
        }
        let (v4, v6);
        let source = match packet.from {
            None => None,
            Some(IpAddr::V4(address)) => {
                let source = libc::in_addr { s_addr: u32::from_ne_bytes(address.octets()) };
                v4 = libc::in_pktinfo {
                    ipi_ifindex: 0,
                    ipi_spec_dst: source,
                    ipi_addr: libc::in_addr { s_addr: 0 },
                };
                Some(ControlMessage::Ipv4PacketInfo(&v4))
            }
            Some(IpAddr::V6(address)) => {
                let source = libc::in6_addr { s6_addr: address.octets() };
                v6 = libc::in6_pktinfo { ipi6_addr: source, ipi6_ifindex: 0 };
                Some(ControlMessage::Ipv6PacketInfo(&v6))
            }
        };
        let to = SockaddrStorage::from(packet.to);
        // A complaint about an earlier packet is reported at the next call, and clears with it.
        for _ in 0..3 {
            match sendmsg(
                self.socket.as_raw_fd(),
                &[IoSlice::new(packet.payload)],
                source.as_slice(),
                MsgFlags::empty(),
                Some(&to),
            ) {
                Ok(_) => return Ok(None),
                Err(Errno::EMSGSIZE) => {
                    // The kernel's own complaint names the MTU; others may be before it.
                    while let Some(mishap) = self.complaint()? {
                        if mishap.verdict == Verdict::TooBigHere {
                            return Ok(Some(mishap));
                        }
                    }
                }
                Err(Errno::EINTR | Errno::ECONNREFUSED | Errno::EHOSTUNREACH) if packet.ttl != 0 => {}
                Err(Errno::EINTR | Errno::ECONNREFUSED) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Err(io::Error::other("the kernel keeps reporting older failures"))
    }

    /// What has come in, complaints first, without waiting.
    ///
    /// # Errors
    /// The socket failed.
    pub fn poll(&mut self) -> io::Result<Option<Event>> {
        if let Some(mishap) = self.complaint()? {
            return Ok(Some(Event::Mishap(mishap)));
        }
        loop {
            match self.receive(MsgFlags::empty()) {
                Ok((payload, address, info)) => {
                    let Some(from) = address else { continue };
                    return Ok(Some(Event::Datagram { from, to: info.destination, payload }));
                }
                Err(Errno::EAGAIN) => return Ok(None),
                Err(Errno::EBADF | Errno::ENOTSOCK | Errno::EINVAL) => {
                    return Err(io::Error::other("the socket is of no use"));
                }
                // An ICMP error that is in the error queue as well; the call has cleared it.
                Err(_) => {
                    if let Some(mishap) = self.complaint()? {
                        return Ok(Some(Event::Mishap(mishap)));
                    }
                }
            }
        }
    }

    /// Waits for something to come in.
    ///
    /// # Errors
    /// The socket failed.
    pub fn wait(&mut self, deadline: Instant) -> io::Result<Option<Event>> {
        loop {
            if let Some(event) = self.poll()? {
                return Ok(Some(event));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            readable(&[self.as_fd()], left)?;
        }
    }

    /// The next complaint in the error queue.
    fn complaint(&mut self) -> io::Result<Option<Mishap>> {
        loop {
            match self.receive(MsgFlags::MSG_ERRQUEUE) {
                Ok((quoted, to, Info { complaint: Some((verdict, hop, mtu)), .. })) => {
                    return Ok(Some(Mishap { verdict, hop, mtu, to, quoted }));
                }
                Ok(_) | Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return Ok(None),
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    fn receive(&mut self, flags: MsgFlags) -> Result<(Vec<u8>, Option<SocketAddr>, Info), Errno> {
        let mut slices = [IoSliceMut::new(&mut self.buffer)];
        let message = recvmsg::<SockaddrStorage>(
            self.socket.as_raw_fd(),
            &mut slices,
            Some(&mut self.control),
            flags | MsgFlags::MSG_DONTWAIT,
        )?;
        let mut info = Info::default();
        for control in message.cmsgs()? {
            info.take(control);
        }
        let (length, address) = (message.bytes, message.address.as_ref().and_then(socket_address));
        Ok((self.buffer.get(..length).unwrap_or_default().to_vec(), address, info))
    }
}

impl AsFd for ProbeSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Waits until one of them has something, or the time is over.
///
/// # Errors
/// `poll` failed.
pub fn readable(fds: &[BorrowedFd<'_>], time: Duration) -> io::Result<()> {
    let mut fds: Vec<PollFd<'_>> = fds.iter().map(|fd| PollFd::new(*fd, PollFlags::POLLIN)).collect();
    // Rounded up, or the last millisecond would be a busy loop.
    let timeout = PollTimeout::try_from(time.as_millis() + 1).unwrap_or(PollTimeout::MAX);
    match poll(&mut fds, timeout) {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// What came along with a message.
#[derive(Default)]
struct Info {
    destination: Option<IpAddr>,
    complaint: Option<(Verdict, Option<IpAddr>, u32)>,
}

impl Info {
    fn take(&mut self, control: ControlMessageOwned) {
        match control {
            ControlMessageOwned::Ipv4PacketInfo(info) => {
                self.destination = Some(Ipv4Addr::from(info.ipi_addr.s_addr.to_ne_bytes()).into());
            }
            ControlMessageOwned::Ipv6PacketInfo(info) => {
                self.destination = Some(Ipv6Addr::from(info.ipi6_addr.s6_addr).into());
            }
            ControlMessageOwned::Ipv4RecvErr(error, hop) => {
                let hop = hop.map(|hop| Ipv4Addr::from(hop.sin_addr.s_addr.to_ne_bytes()).into());
                self.complaint = Some(judge(&error, hop));
            }
            ControlMessageOwned::Ipv6RecvErr(error, hop) => {
                let hop = hop.map(|hop| Ipv6Addr::from(hop.sin6_addr.s6_addr).into());
                self.complaint = Some(judge(&error, hop));
            }
            _ => {}
        }
    }
}

fn judge(error: &libc::sock_extended_err, hop: Option<IpAddr>) -> (Verdict, Option<IpAddr>, u32) {
    let verdict = match (error.ee_origin, error.ee_type, error.ee_code) {
        (libc::SO_EE_ORIGIN_LOCAL, ..) => return (Verdict::TooBigHere, None, error.ee_info),
        (libc::SO_EE_ORIGIN_ICMP, ICMP_DEST_UNREACH, ICMP_FRAG_NEEDED)
        | (libc::SO_EE_ORIGIN_ICMP6, ICMPV6_PKT_TOOBIG, _) => Verdict::TooBig,
        (libc::SO_EE_ORIGIN_ICMP, ICMP_TIME_EXCEEDED, _)
        | (libc::SO_EE_ORIGIN_ICMP6, ICMPV6_TIME_EXCEED, _) => Verdict::TimeExceeded,
        _ => Verdict::Unreachable,
    };
    let mtu = if verdict == Verdict::TooBig { error.ee_info } else { 0 };
    (verdict, hop.filter(|hop| !hop.is_unspecified()), mtu)
}

fn socket_address(address: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = address.as_sockaddr_in().map(|v4| SocketAddrV4::from(*v4).into());
    v4.or_else(|| address.as_sockaddr_in6().map(|v6| SocketAddrV6::from(*v6).into()))
}

/// Sets DF on what is sent, and lets it be larger than what the kernel has learned of the path.
#[allow(unsafe_code, reason = "no safe wrapper knows this option")]
fn never_fragment(fd: BorrowedFd<'_>, level: i32, option: i32, value: i32) -> io::Result<()> {
    let length = std::mem::size_of::<i32>() as libc::socklen_t;
    // SAFETY: the descriptor is open for as long as it is borrowed, and the pointer is to an integer of that length.
    let result =
        unsafe { libc::setsockopt(fd.as_raw_fd(), level, option, (&raw const value).cast(), length) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn datagrams_bear_both_addresses() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let mut one = ProbeSocket::bind(address.parse().unwrap()).unwrap();
            let mut other = ProbeSocket::bind(address.parse().unwrap()).unwrap();
            let to = other.socket.local_addr().unwrap();
            let packet = Packet { to, from: Some(to.ip()), ttl: 0, payload: b"x" };
            assert_eq!(one.send(&packet).unwrap(), None);
            let event = other.wait(Instant::now() + Duration::from_secs(5)).unwrap();
            let from = one.socket.local_addr().unwrap();
            let expected = Event::Datagram { from, to: Some(to.ip()), payload: b"x".to_vec() };
            assert_eq!(event, Some(expected));
        }
    }

    #[test]
    fn nobody_there_is_a_complaint() {
        let mut socket = ProbeSocket::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let gone = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let packet = Packet { to: gone, from: None, ttl: 0, payload: b"quoted" };
        assert_eq!(socket.send(&packet).unwrap(), None);
        let Some(Event::Mishap(mishap)) = socket.wait(Instant::now() + Duration::from_secs(5)).unwrap()
        else {
            panic!("no complaint")
        };
        assert_eq!((mishap.verdict, mishap.hop), (Verdict::Unreachable, Some(gone.ip())));
        assert_eq!((mishap.to, mishap.quoted.as_slice()), (Some(gone), &b"quoted"[..]));
        assert_eq!(socket.wait(Instant::now()).unwrap(), None);
    }
}
