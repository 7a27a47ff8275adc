//! DEL: removes what ADD made, and succeeds when there is nothing.
//!
//! It needs neither the namespace nor `prevResult`, since the pair's name follows from container and interface, and no
//! store either. In order: the record is marked, so that nobody wants its routes any more; the pair is deleted, and
//! with it everything on it; the addresses are given back.

use causeway_ipam::Store;
use causeway_kernel::{Kernel, Netlink};

use crate::config::Config;
use crate::env::Environment;
use crate::error::CniError;
use crate::names::Names;

/// Removes the container from the network.
///
/// # Errors
/// [`CniError`] when something is left behind. The addresses stay taken while the pair may exist.
pub fn del(environment: &Environment, config: &Config) -> Result<(), CniError> {
    let store = Store::new(&config.run_dir);
    detach(&store, &mut Netlink::open()?, &environment.container, &environment.interface)
}

/// Removes one attachment.
///
/// # Errors
/// As for [`del`].
pub fn detach(store: &Store, host: &mut Netlink, container: &str, interface: &str) -> Result<(), CniError> {
    let marked = store.mark_deleting(container, interface);
    let deleted = delete_pair(host, &Names::of(container, interface).veth);
    let pair_is_gone = deleted.is_ok();
    let mut errors: Vec<CniError> = marked.err().map(CniError::from).into_iter().collect();
    errors.extend(deleted.err());
    if pair_is_gone && errors.is_empty() {
        errors.extend(store.release(container, interface).err().map(CniError::from));
    }
    CniError::all(errors).map_or(Ok(()), Err)
}

/// Deletes the pair by its host end; with one end the other goes.
fn delete_pair(host: &mut Netlink, veth: &str) -> Result<(), CniError> {
    let Some(link) = host.link_by_name(veth)? else { return Ok(()) };
    match host.delete_link(link.index) {
        Err(error) if !error.missing() => Err(error.into()),
        _ => Ok(()),
    }
}
