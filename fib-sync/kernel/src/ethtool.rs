//! Which offload features are on, over ethtool's generic netlink. Reads only.

use std::collections::BTreeSet;

use netlink_sys::protocols::NETLINK_GENERIC;

use crate::attribute::{Attributes, put_nested, put_text, value};
use crate::error::Error;
use crate::socket::NetlinkSocket;

/// Length of `struct genlmsghdr`.
const GENERIC_HEADER: usize = 4;
const GENL_ID_CTRL: u16 = 16;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;

const ETHTOOL_MSG_FEATURES_GET: u8 = 11;
const ETHTOOL_A_FEATURES_HEADER: u16 = 1;
const ETHTOOL_A_FEATURES_ACTIVE: u16 = 4;
const ETHTOOL_A_HEADER_DEV_NAME: u16 = 2;
const ETHTOOL_A_BITSET_BITS: u16 = 3;
const ETHTOOL_A_BITSET_BIT_NAME: u16 = 2;

/// Asks about the devices of one network namespace.
pub struct Ethtool {
    socket: NetlinkSocket,
    family: u16,
}

impl Ethtool {
    /// Opens a socket in the calling thread's network namespace.
    ///
    /// # Errors
    /// [`Error::Refused`] where the kernel does not speak ethtool over netlink (before 5.6); [`Error::Socket`].
    pub fn open() -> Result<Ethtool, Error> {
        let mut socket = NetlinkSocket::open(NETLINK_GENERIC)?;
        let mut body = vec![CTRL_CMD_GETFAMILY, 1, 0, 0];
        put_text(&mut body, CTRL_ATTR_FAMILY_NAME, "ethtool");
        let mut family = None;
        let refused = socket.ask(GENL_ID_CTRL, &body, 0, |payload| {
            let id = payload.get(GENERIC_HEADER..).and_then(|rest| value(rest, CTRL_ATTR_FAMILY_ID));
            family = id.and_then(|id| id.first_chunk()).map(|id| u16::from_ne_bytes(*id));
        })?;
        refused.map_err(|refusal| Error::Refused { what: "find ethtool".to_owned(), refusal })?;
        let family = family.ok_or_else(|| Error::Malformed("ethtool has no number".to_owned()))?;
        Ok(Ethtool { socket, family })
    }

    /// The names of the features that are on, for example `tx-udp_tnl-segmentation`.
    ///
    /// # Errors
    /// [`Error::Refused`] when there is no such device; [`Error::Socket`].
    pub fn features(&mut self, device: &str) -> Result<BTreeSet<String>, Error> {
        let mut body = vec![ETHTOOL_MSG_FEATURES_GET, 1, 0, 0];
        put_nested(&mut body, ETHTOOL_A_FEATURES_HEADER, |header| {
            put_text(header, ETHTOOL_A_HEADER_DEV_NAME, device);
        });
        let mut features = BTreeSet::new();
        let refused = self.socket.ask(self.family, &body, 0, |payload| {
            let bits = payload
                .get(GENERIC_HEADER..)
                .and_then(|rest| value(rest, ETHTOOL_A_FEATURES_ACTIVE))
                .and_then(|active| value(active, ETHTOOL_A_BITSET_BITS));
            // Without a mask, what is listed is on.
            for bit in bits.into_iter().flat_map(Attributes) {
                let name = Attributes(bit.value).find(|inner| inner.kind == ETHTOOL_A_BITSET_BIT_NAME);
                features.extend(name.map(|name| name.text()));
            }
        })?;
        refused.map_err(|refusal| Error::Refused { what: format!("offloads of {device}"), refusal })?;
        Ok(features)
    }
}
