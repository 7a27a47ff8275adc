//! STATUS: whether an ADD could be served now.

use causeway_ipam::{Now, Store, report};

use crate::config::Config;
use crate::error::{CniError, Code};

/// Looks whether the store is there, has blocks and has an address left in every family.
///
/// # Errors
/// [`Code::Unavailable`] when no ADD can be served; [`Code::UnavailableLimited`] when the store cannot be read, because
/// then the routes of the pods that are there are not looked after either.
pub fn status(config: &Config) -> Result<(), CniError> {
    let store = Store::new(&config.run_dir);
    let snapshot =
        store.files().read().map_err(|error| CniError::new(Code::UnavailableLimited, error.to_string()))?;
    let unavailable = |reason: String| Err(CniError::new(Code::Unavailable, reason));
    if snapshot.blocks.is_none() || !store.files().lock_path().exists() {
        return unavailable(format!(
            "{}: no blocks of pod addresses yet (causeway-ipam writes them)",
            store.files().dir().display()
        ));
    }
    let room = report::room(&snapshot, Now::read().boot_millis, store.rest());
    if room.is_empty() {
        return unavailable("this node has no block of pod addresses".to_owned());
    }
    match room.iter().find(|(_, has_room)| !has_room) {
        Some((family, _)) => unavailable(format!("no free {family} address on this node")),
        None => Ok(()),
    }
}
