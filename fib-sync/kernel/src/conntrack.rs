//! Connection tracking: forgets the connections of an address that moved to another node, so that packets of a new pod
//! are not taken for those of the old one. Over `NETLINK_NETFILTER`, synchronous.
//!
//! An entry is deleted by its own tuple and id, never by a filter: kernels that do not know a filter would delete
//! everything. Filters are only used to list less.

use std::net::IpAddr;

use netlink_packet_core::NLM_F_DUMP;
use netlink_sys::protocols::NETLINK_NETFILTER;
use nix::errno::Errno;

use crate::attribute::{Attribute, Attributes, address, put, put_address, put_nested, value};
use crate::error::{Error, Refusal};
use crate::socket::NetlinkSocket;

/// `NFNL_SUBSYS_CTNETLINK`, in the upper byte of a message's type.
const SUBSYSTEM: u16 = 1 << 8;
const GET: u16 = SUBSYSTEM | 1;
const DELETE: u16 = SUBSYSTEM | 2;
/// Length of `struct nfgenmsg`.
const GENERIC_HEADER: usize = 4;

const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_ID: u16 = 12;
const CTA_ZONE: u16 = 18;
const CTA_FILTER: u16 = 25;
const CTA_TUPLE_IP: u16 = 1;
const CTA_FILTER_ORIG_FLAGS: u16 = 1;
const CTA_FILTER_REPLY_FLAGS: u16 = 2;
/// By `CTA_IP_V4_SRC` and `CTA_IP_V6_SRC`, and likewise for the destination.
const FILTER_SOURCE: u32 = 1;
const FILTER_DESTINATION: u32 = 2;

/// The most entries that are held at a time, and deleted before the rest is looked for.
const ROUND: usize = 16 * 1024;
/// The most rounds for one address: new connections may come as fast as old ones go.
const ROUNDS: usize = 64;

/// One of the four places an address can have in an entry.
#[derive(Clone, Copy)]
struct Place {
    tuple: u16,
    flag: u32,
}

const PLACES: [Place; 4] = [
    Place { tuple: CTA_TUPLE_ORIG, flag: FILTER_SOURCE },
    Place { tuple: CTA_TUPLE_ORIG, flag: FILTER_DESTINATION },
    Place { tuple: CTA_TUPLE_REPLY, flag: FILTER_SOURCE },
    Place { tuple: CTA_TUPLE_REPLY, flag: FILTER_DESTINATION },
];

impl Place {
    /// The attribute that holds an address of that family here.
    fn attribute(self, address: IpAddr) -> u16 {
        let base = if address.is_ipv4() { 0 } else { 2 };
        base + if self.flag == FILTER_SOURCE { 1 } else { 2 }
    }
}

/// The connection tracking table of one network namespace.
pub struct Conntrack {
    socket: NetlinkSocket,
    /// Whether listing by a filter works; unknown at first.
    filters: Option<bool>,
}

/// What a listing brought.
#[derive(Default)]
struct Found {
    /// What names each entry in a request.
    names: Vec<Vec<u8>>,
    /// Entries came that are none of the address: the kernel does not know filters.
    others: bool,
}

impl Conntrack {
    /// Opens a socket in the calling thread's network namespace.
    ///
    /// # Errors
    /// [`Error::Socket`].
    pub fn open() -> Result<Conntrack, Error> {
        Ok(Conntrack { socket: NetlinkSocket::open(NETLINK_NETFILTER)?, filters: None })
    }

    /// Deletes the entries in which the address is source or destination, of the original direction or of the reply.
    /// Returns how many went. A table that cannot be emptied because connections come as fast as they go is left after
    /// a million entries.
    ///
    /// # Errors
    /// [`Error::Refused`]: this kernel has no connection tracking (EINVAL, EOPNOTSUPP), or permission is lacking;
    /// [`Error::Socket`].
    pub fn delete_for(&mut self, address: IpAddr) -> Result<usize, Error> {
        let mut deleted = 0;
        for _ in 0..ROUNDS {
            let names = self.find(address)?;
            let round = self.delete(address, &names)?;
            deleted += round;
            if names.len() < ROUND || round == 0 {
                break;
            }
        }
        Ok(deleted)
    }

    fn find(&mut self, address: IpAddr) -> Result<Vec<Vec<u8>>, Error> {
        if self.filters == Some(false) {
            return Ok(self.list(address, None)??.names);
        }
        let mut all = Vec::new();
        for place in PLACES {
            match self.list(address, Some(place))? {
                Ok(found) if found.others => {
                    // The filter was not understood, so this is everything already.
                    self.filters = Some(false);
                    return Ok(found.names);
                }
                Ok(found) => all.extend(found.names),
                Err(_) if self.filters.is_none() => {
                    self.filters = Some(false);
                    return Ok(self.list(address, None)??.names);
                }
                Err(refusal) => return Err(refusal.into()),
            }
            self.filters = Some(true);
            if all.len() >= ROUND {
                break;
            }
        }
        // An address that is source of the one direction is destination of the other.
        all.sort_unstable();
        all.dedup();
        Ok(all)
    }

    /// Lists entries of the address, at one place or at any.
    fn list(&mut self, address: IpAddr, place: Option<Place>) -> Result<Result<Found, Listing>, Error> {
        let mut body = header(address).to_vec();
        if let Some(place) = place {
            put_nested(&mut body, place.tuple, |tuple| {
                put_nested(tuple, CTA_TUPLE_IP, |ip| put_address(ip, place.attribute(address), address));
            });
            put_nested(&mut body, CTA_FILTER, |filter| {
                let (orig, reply) = match place.tuple {
                    CTA_TUPLE_ORIG => (place.flag, 0),
                    _ => (0, place.flag),
                };
                put(filter, CTA_FILTER_ORIG_FLAGS, &orig.to_ne_bytes());
                put(filter, CTA_FILTER_REPLY_FLAGS, &reply.to_ne_bytes());
            });
        }
        let mut found = Found::default();
        let end = self.socket.ask(GET, &body, NLM_F_DUMP, |payload| {
            let Some(entry) = payload.get(GENERIC_HEADER..) else { return };
            match concerns(entry, address) {
                false => found.others = true,
                true if found.names.len() < ROUND => found.names.extend(name(entry)),
                true => {}
            }
        })?;
        Ok(match end {
            Ok(()) => Ok(found),
            Err(refusal) => Err(Listing(refusal)),
        })
    }

    fn delete(&mut self, address: IpAddr, names: &[Vec<u8>]) -> Result<usize, Error> {
        let results = self.socket.batch(names.len(), |at, body| {
            body.extend_from_slice(&header(address));
            body.extend_from_slice(&names[at]);
            (DELETE, 0)
        })?;
        let mut deleted = 0;
        for result in results {
            match result {
                Ok(()) => deleted += 1,
                // It ended by itself.
                Err(refusal) if refusal.errno == Errno::ENOENT => {}
                Err(refusal) => {
                    let what = format!("delete connection of {address}");
                    return Err(Error::Refused { what, refusal });
                }
            }
        }
        Ok(deleted)
    }
}

/// A listing was refused.
struct Listing(Refusal);

impl From<Listing> for Error {
    fn from(listing: Listing) -> Error {
        Error::Refused { what: "list connections".to_owned(), refusal: listing.0 }
    }
}

/// `struct nfgenmsg`: family, version 0, no resource.
fn header(address: IpAddr) -> [u8; GENERIC_HEADER] {
    let family = if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    [family as u8, 0, 0, 0]
}

/// Whether an entry has the address at one of the four places.
fn concerns(entry: &[u8], wanted: IpAddr) -> bool {
    PLACES.iter().any(|place| {
        value(entry, place.tuple)
            .and_then(|tuple| value(tuple, CTA_TUPLE_IP))
            .and_then(|ip| value(ip, place.attribute(wanted)))
            .and_then(address)
            .is_some_and(|found| found == wanted)
    })
}

/// The attributes by which the kernel finds this entry and no other.
fn name(entry: &[u8]) -> Option<Vec<u8>> {
    let mut name = Vec::new();
    let (mut tuple, mut id) = (false, false);
    for Attribute { kind, value, .. } in Attributes(entry) {
        match kind {
            CTA_TUPLE_ORIG => {
                tuple = true;
                put_nested(&mut name, kind, |inner| inner.extend_from_slice(value));
            }
            CTA_ID | CTA_ZONE => {
                id |= kind == CTA_ID;
                put(&mut name, kind, value);
            }
            _ => {}
        }
    }
    (tuple && id).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(source: [u8; 4], destination: [u8; 4], id: Option<u32>) -> Vec<u8> {
        let mut entry = Vec::new();
        for (kind, [from, to]) in
            [(CTA_TUPLE_ORIG, [source, destination]), (CTA_TUPLE_REPLY, [destination, source])]
        {
            put_nested(&mut entry, kind, |tuple| {
                put_nested(tuple, CTA_TUPLE_IP, |ip| {
                    put(ip, 1, &from);
                    put(ip, 2, &to);
                });
            });
        }
        if let Some(id) = id {
            put(&mut entry, CTA_ID, &id.to_be_bytes());
        }
        entry
    }

    #[test]
    fn an_entry_is_found_by_either_end_and_named_by_tuple_and_id() {
        let one = entry([10, 0, 0, 1], [10, 0, 0, 2], Some(7));
        for (address, found) in
            [("10.0.0.1", true), ("10.0.0.2", true), ("10.0.0.3", false), ("fd00::1", false)]
        {
            assert_eq!(concerns(&one, address.parse().unwrap()), found, "{address}");
        }
        let named = name(&one).unwrap();
        let kinds: Vec<u16> = Attributes(&named).map(|attribute| attribute.kind).collect();
        assert_eq!(kinds, [CTA_TUPLE_ORIG, CTA_ID]);
        assert_eq!(
            name(&entry([10, 0, 0, 1], [10, 0, 0, 2], None)),
            None,
            "without its id it is not deleted"
        );
        assert_eq!(name(&[]), None);
    }
}
