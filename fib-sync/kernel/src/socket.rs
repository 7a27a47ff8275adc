//! One netlink socket: requests, dumps and packs of requests, with what comes back for each.
//!
//! The kernel answers in the order it was asked, synchronously. Every request has a sequence number of its own; in a
//! pack only the last one asks for an acknowledgement, yet each that fails reports by its number. Where answers
//! are lost ([`Error::Overrun`]) nothing is known about the pack, and the caller dumps.

use std::io;
use std::time::Duration;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_ACK_TLVS, NLM_F_DUMP_INTR, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR, NetlinkHeader,
    NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{Socket, SocketAddr};
use nix::errno::Errno;
use nix::sys::socket::{setsockopt, sockopt};

use crate::attribute::Attributes;
use crate::error::{Error, Refusal};

/// How many bytes of requests go into one send: past 64 KiB nothing is gained.
const PACK: usize = 64 * 1024;

/// How many bytes go into one send where the system lets us have only little room for answers.
const SMALL_PACK: usize = 16 * 1024;

/// Room for the answers to a pack in which every request fails.
const RECEIVE_BUFFER: usize = 4 * 1024 * 1024;

/// The kernel fills dump parts of up to 32 KiB.
const READ_BUFFER: usize = 64 * 1024;

/// The kernel answers before `send` returns; only a lost answer can take this long.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

const NLMSGERR_ATTR_MSG: u16 = 1;

/// How one exchange ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum End {
    /// Acknowledged, or all parts of the dump are there.
    Done,
    /// The dump is complete in form, but changes came in between: not to be trusted.
    Interrupted,
    /// No.
    Refused(Refusal),
}

pub(crate) struct NetlinkSocket {
    socket: Socket,
    buffer: Vec<u8>,
    /// Requests that go out together, and how many bytes of them.
    pack: Vec<u8>,
    pack_size: usize,
    sequence: u32,
}

fn failed(what: &'static str) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::Socket { what, source }
}

/// Opens a socket of one netlink protocol in the calling thread's network namespace, bound and with room to receive.
pub(crate) fn open_socket(protocol: isize) -> Result<(Socket, SocketAddr), Error> {
    let mut socket = Socket::new(protocol).map_err(failed("socket"))?;
    let address = socket.bind_auto().map_err(failed("bind"))?;
    if setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER).is_err() {
        // Without CAP_NET_ADMIN in the first user namespace the system's limit applies.
        socket.set_rx_buf_sz(RECEIVE_BUFFER as libc::c_int).map_err(failed("SO_RCVBUF"))?;
    }
    Ok((socket, address))
}

impl NetlinkSocket {
    /// Opens a socket of one netlink protocol in the calling thread's network namespace.
    pub(crate) fn open(protocol: isize) -> Result<NetlinkSocket, Error> {
        let (socket, _) = open_socket(protocol)?;
        socket.connect(&SocketAddr::new(0, 0)).map_err(failed("connect"))?;
        socket.set_cap_ack(true).map_err(failed("NETLINK_CAP_ACK"))?;
        socket.set_ext_ack(true).map_err(failed("NETLINK_EXT_ACK"))?;
        socket.set_netlink_get_strict_chk(true).map_err(failed("NETLINK_GET_STRICT_CHK"))?;
        let room = socket.get_rx_buf_sz().map_err(failed("SO_RCVBUF"))?;
        let pack_size = if room < RECEIVE_BUFFER { SMALL_PACK } else { PACK };
        let timeout = nix::sys::time::TimeVal::new(ANSWER_TIMEOUT.as_secs() as _, 0);
        setsockopt(&socket, sockopt::ReceiveTimeout, &timeout)
            .map_err(|errno| Error::Socket { what: "SO_RCVTIMEO", source: errno.into() })?;
        Ok(NetlinkSocket { socket, buffer: Vec::new(), pack: Vec::new(), pack_size, sequence: 0 })
    }

    /// This socket's port, which the kernel names as the author of the events its requests cause.
    pub(crate) fn port(&self) -> Result<u32, Error> {
        let mut address = SocketAddr::new(0, 0);
        self.socket.get_address(&mut address).map_err(failed("getsockname"))?;
        Ok(address.port_number())
    }

    fn next_sequence(&mut self) -> u32 {
        // 0 is the kernel's own, for events.
        self.sequence = self.sequence.wrapping_add(1).max(1);
        self.sequence
    }

    /// One request with `flags` besides `NLM_F_REQUEST`; `each` gets type and payload of every part of the answer.
    pub(crate) fn exchange(
        &mut self,
        message: RouteNetlinkMessage,
        flags: u16,
        each: impl FnMut(u16, &[u8]),
    ) -> Result<End, Error> {
        let sequence = self.next_sequence();
        let mut bytes = Vec::new();
        encode(&mut bytes, message, flags, sequence);
        self.converse(&bytes, sequence, each)
    }

    /// As [`NetlinkSocket::exchange`], for a request whose type and body are given.
    pub(crate) fn exchange_body(
        &mut self,
        kind: u16,
        body: &[u8],
        flags: u16,
        each: impl FnMut(u16, &[u8]),
    ) -> Result<End, Error> {
        let sequence = self.next_sequence();
        let mut request = Vec::with_capacity(HEADER_LENGTH + body.len());
        request.extend_from_slice(&[0; HEADER_LENGTH]);
        request.extend_from_slice(body);
        put_header(&mut request, 0, kind, flags, sequence);
        self.converse(&request, sequence, each)
    }

    /// As [`NetlinkSocket::exchange_body`], for a request whose answer is trusted as it comes: `part` gets what follows the
    /// header of each part.
    pub(crate) fn ask(
        &mut self,
        kind: u16,
        body: &[u8],
        flags: u16,
        mut part: impl FnMut(&[u8]),
    ) -> Result<Result<(), Refusal>, Error> {
        let end = self.exchange_body(kind, body, flags | NLM_F_ACK, |_, payload| part(payload))?;
        Ok(match end {
            End::Done | End::Interrupted => Ok(()),
            End::Refused(refusal) => Err(refusal),
        })
    }

    /// Sends a request for a dump that is read part by part; its sequence number.
    pub(crate) fn start(&mut self, kind: u16, body: &[u8], flags: u16) -> Result<u32, Error> {
        let sequence = self.next_sequence();
        let mut request = vec![0; HEADER_LENGTH];
        request.extend_from_slice(body);
        put_header(&mut request, 0, kind, flags, sequence);
        self.send(&request)?;
        Ok(sequence)
    }

    /// Reads one datagram of the answer to the request of that number; how it ended, if it did.
    pub(crate) fn read_part(
        &mut self,
        sequence: u32,
        interrupted: &mut bool,
        mut each: impl FnMut(u16, &[u8]),
    ) -> Result<Option<End>, Error> {
        let mut end = None;
        self.receive(|header, payload| {
            if header.sequence_number != sequence {
                return;
            }
            *interrupted |= header.flags & NLM_F_DUMP_INTR != 0;
            match header.message_type {
                NLMSG_ERROR | NLMSG_DONE => {
                    end = Some(match refusal(&header, payload) {
                        None if *interrupted => End::Interrupted,
                        None => End::Done,
                        Some(refusal) if refusal.errno == Errno::EINTR => End::Interrupted,
                        Some(refusal) => End::Refused(refusal),
                    });
                }
                kind => each(kind, payload),
            }
        })?;
        Ok(end)
    }

    fn converse(
        &mut self,
        request: &[u8],
        sequence: u32,
        mut each: impl FnMut(u16, &[u8]),
    ) -> Result<End, Error> {
        self.send(request)?;
        let mut interrupted = false;
        loop {
            if let Some(end) = self.read_part(sequence, &mut interrupted, &mut each)? {
                return Ok(end);
            }
        }
    }

    /// Sends `count` requests in packs; returns one result for each. `put` appends the body of the one with that index
    /// and says its type and flags besides `NLM_F_REQUEST`.
    pub(crate) fn batch(
        &mut self,
        count: usize,
        mut put: impl FnMut(usize, &mut Vec<u8>) -> (u16, u16),
    ) -> Result<Vec<Result<(), Refusal>>, Error> {
        let mut results = vec![Ok(()); count];
        let mut pack = std::mem::take(&mut self.pack);
        let mut done = 0;
        while done < count {
            pack.clear();
            // The numbers of one pack are in a row, and 0 is none of them.
            if u32::MAX - self.sequence < PACK as u32 {
                self.sequence = 0;
            }
            let first = self.sequence + 1;
            let mut next = done;
            let mut start = 0;
            let mut head = (0, 0);
            while pack.len() < self.pack_size && next < count {
                start = pack.len();
                pack.extend_from_slice(&[0; HEADER_LENGTH]);
                head = put(next, &mut pack);
                self.sequence += 1;
                put_header(&mut pack, start, head.0, head.1, self.sequence);
                next += 1;
            }
            put_header(&mut pack, start, head.0, head.1 | NLM_F_ACK, self.sequence);
            self.send(&pack)?;
            self.collect(first, self.sequence, &mut results[done..next])?;
            done = next;
        }
        self.pack = pack;
        Ok(results)
    }

    /// Reads the answers to the pack of sequence numbers `first` to `last`.
    fn collect(&mut self, first: u32, last: u32, results: &mut [Result<(), Refusal>]) -> Result<(), Error> {
        let mut complete = false;
        while !complete {
            self.receive(|header, payload| {
                let sequence = header.sequence_number;
                if header.message_type != NLMSG_ERROR || !(first..=last).contains(&sequence) {
                    return;
                }
                if let Some(refusal) = refusal(&header, payload)
                    && let Some(result) = results.get_mut((sequence - first) as usize)
                {
                    *result = Err(refusal);
                }
                complete |= sequence == last;
            })?;
        }
        Ok(())
    }

    fn send(&self, bytes: &[u8]) -> Result<(), Error> {
        loop {
            match self.socket.send(bytes, 0) {
                Ok(sent) if sent == bytes.len() => return Ok(()),
                Ok(_) => return Err(failed("send")(io::ErrorKind::WriteZero.into())),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => return Err(Error::Overrun),
                Err(error) => return Err(failed("send")(error)),
            }
        }
    }

    /// Reads one datagram and hands out its messages.
    fn receive(&mut self, each: impl FnMut(Header, &[u8])) -> Result<(), Error> {
        read_datagram(&self.socket, &mut self.buffer)?;
        split(&self.buffer, each)
    }
}

/// Reads one datagram into `buffer`. A full receive buffer is [`Error::Overrun`].
pub(crate) fn read_datagram(socket: &Socket, buffer: &mut Vec<u8>) -> Result<(), Error> {
    buffer.clear();
    buffer.reserve(READ_BUFFER);
    loop {
        return match socket.recv(buffer, libc::MSG_TRUNC) {
            Ok(length) if length > buffer.len() => {
                Err(Error::Malformed(format!("{length} bytes in one datagram")))
            }
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => Err(Error::Overrun),
            Err(error) => Err(failed("recv")(error)),
        };
    }
}

/// Hands out the messages of one datagram.
#[inline]
pub(crate) fn split(datagram: &[u8], mut each: impl FnMut(Header, &[u8])) -> Result<(), Error> {
    let mut rest = datagram;
    while let Some((header, _)) = rest.split_first_chunk::<HEADER_LENGTH>() {
        let [a, b, c, d, e, f, g, h, i, j, k, l, ..] = *header;
        let length = u32::from_ne_bytes([a, b, c, d]) as usize;
        let Some(payload) = rest.get(HEADER_LENGTH..length) else { break };
        let header = Header {
            message_type: u16::from_ne_bytes([e, f]),
            flags: u16::from_ne_bytes([g, h]),
            sequence_number: u32::from_ne_bytes([i, j, k, l]),
        };
        each(header, payload);
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    if rest.is_empty() { Ok(()) } else { Err(Error::Malformed(format!("{} bytes left over", rest.len()))) }
}

/// The head of a message (`struct nlmsghdr`).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Header {
    pub(crate) message_type: u16,
    pub(crate) flags: u16,
    pub(crate) sequence_number: u32,
}

const HEADER_LENGTH: usize = 16;

/// Fills in the head of the message that begins at `start` and ends where `out` ends.
#[inline]
fn put_header(out: &mut [u8], start: usize, kind: u16, flags: u16, sequence: u32) {
    let mut header = [0; HEADER_LENGTH];
    header[..4].copy_from_slice(&((out.len() - start) as u32).to_ne_bytes());
    header[4..6].copy_from_slice(&kind.to_ne_bytes());
    header[6..8].copy_from_slice(&(flags | NLM_F_REQUEST).to_ne_bytes());
    header[8..12].copy_from_slice(&sequence.to_ne_bytes());
    out[start..start + HEADER_LENGTH].copy_from_slice(&header);
}

fn encode(out: &mut Vec<u8>, message: RouteNetlinkMessage, flags: u16, sequence: u32) {
    let mut header = NetlinkHeader::default();
    header.flags = flags | NLM_F_REQUEST;
    header.sequence_number = sequence;
    let mut message = NetlinkMessage::new(header, NetlinkPayload::from(message));
    message.finalize();
    let start = out.len();
    // Messages of a pack start at multiples of four bytes.
    out.resize((start + message.buffer_len()).next_multiple_of(4), 0);
    message.serialize(&mut out[start..]);
}

/// What an error or end-of-dump message says: `None` is success.
fn refusal(header: &Header, payload: &[u8]) -> Option<Refusal> {
    let code = payload.first_chunk::<4>().map_or(0, |code| i32::from_ne_bytes(*code));
    if code == 0 {
        return None;
    }
    let errno = Errno::from_raw(code.saturating_neg());
    if header.flags & NLM_F_ACK_TLVS == 0 {
        return Some(Refusal::new(errno));
    }
    // The attributes follow the error number, and in an error the request's header too (NETLINK_CAP_ACK cuts the rest).
    let skip = if header.message_type == NLMSG_ERROR { 4 + HEADER_LENGTH } else { 4 };
    let message = Attributes(payload.get(skip..).unwrap_or_default())
        .find(|attribute| attribute.kind == NLMSGERR_ATTR_MSG)
        .map(|attribute| attribute.text());
    Some(Refusal { errno, message })
}
