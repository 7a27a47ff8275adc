//! Netlink besides rtnetlink: messages made and read by hand, for the few requests that [`crate::conntrack`] and
//! [`crate::ethtool`] need.

use std::time::Duration;

use netlink_packet_core::{NLM_F_ACK, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR};
use netlink_sys::{Socket, SocketAddr};
use nix::errno::Errno;
use nix::sys::socket::{setsockopt, sockopt};

use crate::attribute::{Attributes, nest};
use crate::error::{Error, Refusal};
use crate::socket::{read_datagram, split};

/// The kernel answers at once; only a lost answer can take this long.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
const HEADER_LENGTH: usize = 16;
/// `NLA_F_NESTED`.
const NESTED: u16 = 0x8000;

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

/// Appends an attribute that holds others, and says so: outside of rtnetlink the kernel insists on it.
pub(crate) fn put_nested(out: &mut Vec<u8>, kind: u16, fill: impl FnOnce(&mut Vec<u8>)) {
    nest(out, kind | NESTED, fill);
}

/// The value of the first attribute of that number.
pub(crate) fn value(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    Attributes(bytes).find(|attribute| attribute.kind == kind).map(|attribute| attribute.value)
}
