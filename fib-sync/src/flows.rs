//! Lets the kernel forget the connections of addresses that went another way: a pod's that moved or went. Packets of the
//! address's next holder would otherwise be taken for the old one's, translation and all.
//!
//! A thread of its own: a listing of connection tracking walks the whole table, however few entries are found, and the
//! kernel thread waits for nobody. What it cannot take in is dropped and said; entries time out by themselves.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

use causeway_kernel::Error;
use causeway_kernel::conntrack::Conntrack;

/// How many lists of addresses may wait.
const WAITING: usize = 256;

/// Hands addresses to the thread, which ends when this is dropped.
#[derive(Debug)]
pub struct Forgetter(SyncSender<Vec<IpAddr>>);

impl Forgetter {
    /// Starts the thread in the calling thread's network namespace.
    ///
    /// # Errors
    /// The thread cannot be made.
    pub fn start() -> io::Result<Forgetter> {
        let (sender, receiver) = sync_channel(WAITING);
        std::thread::Builder::new().name("conntrack".to_owned()).spawn(move || run(&receiver))?;
        Ok(Forgetter(sender))
    }

    /// The connections of these addresses are to be forgotten.
    pub fn forget(&self, addresses: Vec<IpAddr>) {
        if addresses.is_empty() {
            return;
        }
        if let Err(TrySendError::Full(dropped) | TrySendError::Disconnected(dropped)) =
            self.0.try_send(addresses)
        {
            tracing::warn!(
                addresses = dropped.len(),
                "too many addresses moved at once: the connections of some are left to time out"
            );
        }
    }
}

fn run(receiver: &Receiver<Vec<IpAddr>>) {
    let mut conntrack = None;
    while let Ok(first) = receiver.recv() {
        let addresses: BTreeSet<IpAddr> = first.into_iter().chain(receiver.try_iter().flatten()).collect();
        match forget(&mut conntrack, &addresses) {
            Ok(0) => {}
            Ok(forgotten) => tracing::info!(forgotten, "connections of addresses that moved are forgotten"),
            Err(error) => {
                conntrack = None;
                // A kernel without connection tracking has nothing to forget.
                tracing::debug!(%error, "connections of addresses that moved cannot be forgotten");
            }
        }
    }
}

fn forget(conntrack: &mut Option<Conntrack>, addresses: &BTreeSet<IpAddr>) -> Result<usize, Error> {
    let open = match conntrack {
        Some(open) => open,
        None => conntrack.insert(Conntrack::open()?),
    };
    let mut forgotten = 0;
    for address in addresses {
        forgotten += open.delete_for(*address)?;
    }
    Ok(forgotten)
}
