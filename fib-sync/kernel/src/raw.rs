//! Netlink besides rtnetlink: messages made and read by hand, for the few requests that [`crate::conntrack`] and
//! [`crate::ethtool`] need.

use std::time::Duration;

use netlink_packet_core::{NLM_F_ACK, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR};
use netlink_sys::{Socket, SocketAddr};
use nix::errno::Errno;
use nix::sys::socket::{setsockopt, sockopt};

use crate::error::{Error, Refusal};
use crate::socket::{read_datagram, split};

/// The kernel answers at once; only a lost answer can take this long.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
const HEADER_LENGTH: usize = 16;
/// Bits of an attribute's type that are not its number.
const NESTED: u16 = 0x8000;
const TYPE_MASK: u16 = 0x3fff;

/// A socket of one netlink protocol in the network namespace it was opened in.
pub(crate) struct RawSocket {
    socket: Socket,
    buffer: Vec<u8>,
    sequence: u32,
}

/// A message to be sent: its type, flags besides `NLM_F_REQUEST`, and what follows the header.
pub(crate) struct Request {
    pub(crate) kind: u16,
    pub(crate) flags: u16,
    pub(crate) body: Vec<u8>,
}

fn failed(what: &'static str) -> impl FnOnce(std::io::Error) -> Error {
    move |source| Error::Socket { what, source }
}

impl RawSocket {
    pub(crate) fn open(protocol: isize) -> Result<RawSocket, Error> {
        let mut socket = Socket::new(protocol).map_err(failed("socket"))?;
        socket.bind_auto().map_err(failed("bind"))?;
        socket.connect(&SocketAddr::new(0, 0)).map_err(failed("connect"))?;
        let timeout = nix::sys::time::TimeVal::new(ANSWER_TIMEOUT.as_secs() as _, 0);
        setsockopt(&socket, sockopt::ReceiveTimeout, &timeout)
            .map_err(|errno| Error::Socket { what: "SO_RCVTIMEO", source: errno.into() })?;
        Ok(RawSocket { socket, buffer: Vec::new(), sequence: 0 })
    }

    /// Sends requests in one piece and reads until each has its end: an acknowledgement, an error, or the last part of
    /// a dump. `part` gets what follows the header of every other message. One result for each request.
    pub(crate) fn exchange(
        &mut self,
        requests: &[Request],
        mut part: impl FnMut(&[u8]),
    ) -> Result<Vec<Result<(), Refusal>>, Error> {
        let first = self.sequence.wrapping_add(1).max(1);
        let mut bytes = Vec::new();
        for (n, request) in requests.iter().enumerate() {
            encode(&mut bytes, request, first.wrapping_add(n as u32));
        }
        self.sequence = first.wrapping_add(requests.len() as u32);
        self.socket.send(&bytes, 0).map_err(failed("send"))?;
        let mut results: Vec<Option<Result<(), Refusal>>> = vec![None; requests.len()];
        let mut left = requests.len();
        while left > 0 {
            read_datagram(&self.socket, &mut self.buffer)?;
            split(&self.buffer, |header, payload| {
                let at = header.sequence_number.wrapping_sub(first) as usize;
                let Some(result) = results.get_mut(at) else { return };
                match header.message_type {
                    NLMSG_ERROR | NLMSG_DONE if result.is_none() => {
                        left -= 1;
                        let code = payload.first_chunk::<4>().map_or(0, |code| i32::from_ne_bytes(*code));
                        *result = Some(match code {
                            0 => Ok(()),
                            code => Err(Refusal::new(Errno::from_raw(code.saturating_neg()))),
                        });
                    }
                    NLMSG_ERROR | NLMSG_DONE => {}
                    _ => part(payload),
                }
            })?;
        }
        Ok(results.into_iter().map(|result| result.unwrap_or(Ok(()))).collect())
    }

    /// One request, which is refused or done.
    pub(crate) fn request(
        &mut self,
        request: Request,
        part: impl FnMut(&[u8]),
    ) -> Result<Result<(), Refusal>, Error> {
        let mut results = self.exchange(&[request], part)?;
        Ok(results.pop().unwrap_or(Ok(())))
    }
}

fn encode(out: &mut Vec<u8>, request: &Request, sequence: u32) {
    let length = (HEADER_LENGTH + request.body.len()) as u32;
    out.extend_from_slice(&length.to_ne_bytes());
    out.extend_from_slice(&request.kind.to_ne_bytes());
    out.extend_from_slice(&(request.flags | NLM_F_REQUEST | NLM_F_ACK).to_ne_bytes());
    out.extend_from_slice(&sequence.to_ne_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&request.body);
    out.resize(out.len().next_multiple_of(4), 0);
}

/// Appends an attribute.
pub(crate) fn put(out: &mut Vec<u8>, kind: u16, value: &[u8]) {
    out.extend_from_slice(&(value.len() as u16 + 4).to_ne_bytes());
    out.extend_from_slice(&kind.to_ne_bytes());
    out.extend_from_slice(value);
    out.resize(out.len().next_multiple_of(4), 0);
}

/// Appends an attribute that holds others.
pub(crate) fn put_nested(out: &mut Vec<u8>, kind: u16, fill: impl FnOnce(&mut Vec<u8>)) {
    let mut inner = Vec::new();
    fill(&mut inner);
    put(out, kind | NESTED, &inner);
}

/// The attributes in `bytes`: number and value. Ends where one does not fit.
pub(crate) fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(*rest.first_chunk::<2>()?));
        let kind = u16::from_ne_bytes([*rest.get(2)?, *rest.get(3)?]);
        let value = rest.get(4..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind & TYPE_MASK, value))
    })
}

/// The value of the first attribute of that number.
pub(crate) fn attribute(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(found, _)| *found == kind).map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_written_and_read() {
        let mut bytes = Vec::new();
        put(&mut bytes, 1, b"abc");
        put_nested(&mut bytes, 2, |inner| put(inner, 7, b"x"));
        let all: Vec<(u16, Vec<u8>)> =
            attributes(&bytes).map(|(kind, value)| (kind, value.to_vec())).collect();
        assert_eq!(all[0], (1, b"abc".to_vec()));
        assert_eq!((all.len(), all[1].0), (2, 2));
        assert_eq!(attribute(&all[1].1, 7), Some(&b"x"[..]));
        assert_eq!(attribute(&bytes, 9), None);
    }

    #[test]
    fn what_does_not_fit_ends_the_reading() {
        for length in [0u16, 3, 9] {
            let mut bytes = length.to_ne_bytes().to_vec();
            bytes.extend([1, 0, 5, 5, 5, 5]);
            assert_eq!(attributes(&bytes).count(), 0, "length {length}");
        }
        assert_eq!(attributes(&[4, 0, 1]).count(), 0);
    }
}
