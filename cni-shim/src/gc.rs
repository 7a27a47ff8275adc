//! GC: removes every attachment of this network that the runtime does not name as valid.

use std::collections::HashSet;

use causeway_ipam::Store;
use causeway_kernel::Netlink;

use crate::config::Config;
use crate::del::detach;
use crate::error::{CniError, Code};

/// Removes what is stale, as much of it as can be.
///
/// # Errors
/// [`Code::InvalidConfig`] without the list: an administrator's slip must not empty a node. Else everything that could
/// not be removed.
pub fn gc(config: &Config) -> Result<(), CniError> {
    let Some(valid) = &config.valid_attachments else {
        return Err(CniError::new(Code::InvalidConfig, "cni.dev/valid-attachments is missing"));
    };
    let valid: HashSet<(&str, &str)> =
        valid.iter().map(|(container, interface)| (container.as_str(), interface.as_str())).collect();
    let store = Store::new(&config.run_dir);
    let records =
        store.files().read_allocations().map_err(|error| CniError::new(Code::Io, error.to_string()))?;
    let mut host = Netlink::open()?;
    let errors = records
        .allocations
        .iter()
        .filter(|record| record.network == config.name)
        .filter(|record| !valid.contains(&(record.container.as_str(), record.interface.as_str())))
        .filter_map(|record| detach(&store, &mut host, &record.container, &record.interface).err())
        .collect();
    CniError::all(errors).map_or(Ok(()), Err)
}
