//! A dump of routes as a stream, on a socket of its own, so that routes are written between its parts.
//!
//! A full table has a million routes and a few forms: a *form* is a route without its destination. Every message of a
//! dump is compared with the forms seen so far as bytes; only one that is new is parsed, and nothing is allocated for
//! the others. Owner of the forms of a dump; does I/O through [`crate::socket`].

use std::collections::HashMap;
use std::os::fd::BorrowedFd;

use foldhash::fast::RandomState;
use ipnetwork::IpNetwork;
use netlink_packet_core::NLM_F_DUMP;
use netlink_sys::protocols::NETLINK_ROUTE;
use nix::errno::Errno;

use crate::attribute::Attributes;
use crate::error::Error;
use crate::message::route::{self as message, Metered};
use crate::netns;
use crate::route::{Family, Route, RouteChange};
use crate::socket::{End, NetlinkSocket};

/// One route of a dump.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dumped<'a> {
    /// Where it leads.
    pub destination: IpNetwork,
    /// The number of its form, that is of everything but the destination: counted from 0 in each dump, in the order
    /// in which the forms are first seen, perhaps with gaps. Two numbers may stand for equal forms.
    pub form: u32,
    /// The first route seen with that form; only its destination is another.
    pub route: &'a Route,
}

/// The dumps of one namespace, one at a time.
pub(crate) struct Dumps {
    socket: NetlinkSocket,
    /// The request's sequence number; `None` between dumps.
    running: Option<u32>,
    interrupted: bool,
    forms: Forms,
}

impl Dumps {
    pub(crate) fn open(netns: BorrowedFd<'_>) -> Result<Dumps, Error> {
        let socket = netns::run_in(netns, || NetlinkSocket::open(NETLINK_ROUTE))??;
        let forms = Forms::new(Family::Ipv4, 0);
        Ok(Dumps { socket, running: None, interrupted: false, forms })
    }

    /// Whether a dump is unfinished. Another can only begin on a new socket.
    pub(crate) fn running(&self) -> bool {
        self.running.is_some()
    }

    pub(crate) fn start(&mut self, family: Family, table: u32) -> Result<(), Error> {
        self.forms = Forms::new(family, table);
        self.interrupted = false;
        self.running = Some(self.socket.start(message::GET, &message::dump(family, table), NLM_F_DUMP)?);
        Ok(())
    }

    /// Takes notice of changes that are made while a dump runs: after a deletion the kernel leaves IPv6 routes out.
    pub(crate) fn note_changes(&mut self, changes: &[RouteChange]) {
        if self.running() && self.forms.family == Family::Ipv6 && !self.interrupted {
            self.interrupted = changes.iter().any(
                |change| matches!(change, RouteChange::Delete { key, .. } if key.family() == Family::Ipv6),
            );
        }
    }

    /// Reads one part of the dump; whether there is more.
    pub(crate) fn next(
        &mut self,
        metered: &mut Metered,
        each: &mut dyn FnMut(Dumped<'_>),
    ) -> Result<bool, Error> {
        let Some(sequence) = self.running else { return Ok(false) };
        let Dumps { forms, interrupted, .. } = self;
        let known = forms.routes.len();
        let end = self.socket.read_part(sequence, interrupted, |kind, payload| {
            if kind == message::NEW {
                forms.take(payload, each);
            }
        })?;
        forms.routes[known..].iter().flatten().for_each(|route| message::note_metrics(metered, route));
        let Some(end) = end else { return Ok(true) };
        self.running = None;
        match end {
            End::Done => Ok(false),
            End::Interrupted => Err(Error::Interrupted("routes")),
            End::Refused(refusal) if refusal.nothing_to_dump() => Ok(false),
            End::Refused(refusal) => Err(Error::Refused { what: "dump routes".to_owned(), refusal }),
        }
    }
}

impl crate::error::Refusal {
    /// A table that never had a route does not exist; IPv6 may be switched off.
    pub(crate) fn nothing_to_dump(&self) -> bool {
        matches!(self.errno, Errno::ENOENT | Errno::EOPNOTSUPP | Errno::EAFNOSUPPORT)
    }
}

/// The forms of one dump.
struct Forms {
    family: Family,
    table: u32,
    /// By number; `None` for those that are not to be shown: of other tables, undecodable.
    routes: Vec<Option<Route>>,
    numbers: HashMap<Box<[u8]>, u32, RandomState>,
    /// The bytes of the last form, and its number.
    last: (Vec<u8>, u32),
    /// The bytes of the form at hand.
    bytes: Vec<u8>,
}

impl Forms {
    fn new(family: Family, table: u32) -> Forms {
        Forms {
            family,
            table,
            routes: Vec::new(),
            numbers: HashMap::default(),
            last: (Vec::new(), 0),
            bytes: Vec::new(),
        }
    }

    /// Hands out the route of one message.
    #[inline]
    fn take(&mut self, payload: &[u8], each: &mut dyn FnMut(Dumped<'_>)) {
        let Some((header, attributes)) = payload.split_first_chunk::<{ message::HEADER }>() else { return };
        if message::cloned(header) {
            return;
        }
        let mut form = *header;
        let length = std::mem::take(&mut form[message::DESTINATION_LENGTH]);
        let mut address = None;
        self.bytes.clear();
        self.bytes.extend_from_slice(&form);
        let mut run = 0;
        let mut at = 0;
        for attribute in Attributes(attributes) {
            let end = at + attribute.whole;
            if matches!(attribute.kind, message::RTA_DST | message::RTA_CACHEINFO) {
                if attribute.kind == message::RTA_DST {
                    address = Some(attribute.value);
                }
                self.bytes.extend_from_slice(&attributes[run..at]);
                run = end;
            }
            at = end;
        }
        self.bytes.extend_from_slice(&attributes[run..at]);
        let number = if self.bytes == self.last.0 { self.last.1 } else { self.number(payload) };
        if let Some(Some(route)) = self.routes.get(number as usize)
            && let Some(destination) = message::destination(self.family, address, length)
        {
            each(Dumped { destination, form: number, route });
        }
    }

    /// The number of the form at hand, which is not the last one's.
    fn number(&mut self, payload: &[u8]) -> u32 {
        let number = match self.numbers.get(&self.bytes[..]) {
            Some(number) => *number,
            None => {
                let number = self.routes.len() as u32;
                let wanted =
                    |route: &Route| route.key.table == self.table && route.key.family() == self.family;
                self.routes.push(message::parse(payload).filter(wanted));
                self.numbers.insert(self.bytes.as_slice().into(), number);
                number
            }
        };
        std::mem::swap(&mut self.last.0, &mut self.bytes);
        self.last.1 = number;
        number
    }
}
