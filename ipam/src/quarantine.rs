//! How long an address rests after a pod gave it back, and what is remembered of it after that.
//!
//! Pure. A released address rests for [`REST`] so that nobody who still talks to the old pod reaches the new one.
//! While anything else in any block of its family is free it is left alone; a pod that could not start at all would be
//! worse, so the one that rested longest is taken when nothing else is left. What was released is remembered past its
//! rest, which makes reuse first in, first out; the memory is bounded by [`HISTORY`].

use std::net::IpAddr;
use std::time::Duration;

use causeway_api::pod_store::Released;

/// How long an address rests after its release.
pub const REST: Duration = Duration::from_secs(30);

/// How many releases are remembered once their rest is over.
pub const HISTORY: usize = 256;

/// Whether an address still rests. `now` and `at` are milliseconds of the boot-time clock; an `at` in the future comes
/// from before a reboot, and with the reboot every pod went.
pub fn rests(released: &Released, now: u64, rest: Duration) -> bool {
    released.at <= now && u128::from(now - released.at) < rest.as_millis()
}

/// Remembers a release as the newest one.
pub fn remember(history: &mut Vec<Released>, address: IpAddr, now: u64) {
    history.retain(|released| released.address != address);
    history.push(Released { address, at: now });
}

/// Forgets releases whose rest is over, the oldest first, until [`HISTORY`] of those are left.
pub fn forget(history: &mut Vec<Released>, now: u64, rest: Duration) {
    let over = history.iter().filter(|released| !rests(released, now, rest)).count();
    let mut surplus = over.saturating_sub(HISTORY);
    history.retain(|released| {
        let drop = surplus > 0 && !rests(released, now, rest);
        surplus -= usize::from(drop);
        !drop
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn released(last: u8, at: u64) -> Released {
        Released { address: IpAddr::from([10, 0, 0, last]), at }
    }

    #[test]
    fn an_address_rests_until_its_time_is_over() {
        assert!(rests(&released(1, 1_000), 1_000, REST));
        assert!(rests(&released(1, 1_000), 30_999, REST));
        assert!(!rests(&released(1, 1_000), 31_000, REST));
    }

    #[test]
    fn a_release_from_before_a_reboot_does_not_rest() {
        assert!(!rests(&released(1, 1_000_000), 500, REST));
    }

    #[test]
    fn the_history_is_bounded_but_keeps_what_rests() {
        let mut history = Vec::new();
        for n in 0..400_u32 {
            remember(&mut history, IpAddr::from([10, 0, (n >> 8) as u8, n as u8]), u64::from(n));
        }
        forget(&mut history, 399, REST);
        assert_eq!(history.len(), 400, "all of them rest");
        forget(&mut history, 1_000_000, REST);
        assert_eq!(history.len(), HISTORY);
        assert_eq!(history[0].at, 400 - HISTORY as u64, "the oldest went");
    }

    #[test]
    fn an_address_is_remembered_once() {
        let mut history = vec![released(1, 5), released(2, 6)];
        remember(&mut history, IpAddr::from([10, 0, 0, 1]), 9);
        assert_eq!(history, vec![released(2, 6), released(1, 9)]);
    }
}
