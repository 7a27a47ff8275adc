//! Starting: what waits for the peers, and for how long.
//!
//! RFC 4724 §4.1. After a restart, route selection of a family is deferred until every peer that will say End-of-RIB
//! has said it: configured peers but not those whose session has no graceful restart or that restarted themselves.
//! After any start, the FIB's end mark of a family, which lets the route programmer delete, is withheld until every
//! configured peer has sent its table: End-of-RIB, or [`super::session::SETTLE_TIME`] in Established for a peer without
//! graceful restart. Both also wait until each next hop in use has been answered for, or what is decided too early
//! would be deleted. Where there are ranges, nobody knows who is to come: both wait for [`RANGE_TIME`], and on while
//! members keep coming, then for the members that came. The restart time bounds it all; without configured peers and
//! ranges nothing waits.

use std::time::{Duration, Instant};

use causeway_bgp_wire::Family;

use super::timers::Timer;
use super::{Peer, Speaker};
use crate::config::{Config, Password};

/// How long the FIB's end mark waits where graceful restart is off.
const DEFAULT_RESTART_TIME: Duration = Duration::from_secs(120);

/// How long members of ranges have to come back: a few of the usual connect-retry times.
const RANGE_TIME: Duration = Duration::from_secs(15);

/// How long after the last of them no further one is expected.
const RANGE_QUIET: Duration = Duration::from_secs(5);

/// Whether the peer is one that a start waits for: a configured one, or a member of a range that has come.
fn is_expected(peer: &Peer, family: Family) -> bool {
    (!peer.dynamic || peer.session.is_some())
        && peer.settings.session.families.contains(family)
        && !matches!(peer.settings.session.password, Password::Missing(_))
        && peer.session.as_ref().is_none_or(|session| session.families.contains(family))
}

/// Whether route selection need not wait for the peer (RFC 4724 §4.1).
fn selection_ready(peer: &Peer, family: Family) -> bool {
    !is_expected(peer, family)
        || peer.settings.session.graceful_restart.is_none()
        || peer.families[family.index()].settled
        || peer
            .session
            .as_ref()
            .is_some_and(|session| session.graceful.as_ref().is_none_or(|graceful| graceful.restarting))
}

/// Whether the FIB's end mark need not wait for the peer.
fn fib_ready(peer: &Peer, family: Family) -> bool {
    !is_expected(peer, family) || peer.families[family.index()].settled
}

impl Speaker {
    /// The first configuration is there: the wait begins.
    pub(super) fn begin_restart(&mut self, now: Instant, config: &Config) {
        let time = config.graceful_restart.unwrap_or(DEFAULT_RESTART_TIME);
        self.restart_deadline = Some(now + time);
        self.timers.set(Timer::Restart, now + time);
        self.expect_members(now + RANGE_TIME);
        if self.mode.restarting && config.graceful_restart.is_some() {
            self.deferred = [true; Family::COUNT];
            self.export.hold();
        }
    }

    /// Members of ranges may come until then.
    fn expect_members(&mut self, until: Instant) {
        let ranges = self.config.as_ref().is_some_and(|config| !config.ranges.is_empty());
        if ranges && self.restart_deadline.is_some() && self.members_until.is_none_or(|at| at < until) {
            self.members_until = Some(until);
            self.timers.set(Timer::Members, until);
        }
    }

    /// A member of a range has come: others may be close behind.
    pub(super) fn member_came(&mut self, now: Instant) {
        self.expect_members(now + RANGE_QUIET);
    }

    /// Ends what need wait no longer.
    pub(super) fn check_restart(&mut self, now: Instant) {
        let Some(deadline) = self.restart_deadline else { return };
        let expired = now >= deadline;
        if !expired && self.members_until.is_some_and(|until| now < until) {
            return;
        }
        for family in Family::all() {
            let index = family.index();
            if self.settled[index] {
                continue;
            }
            let answered = self.rib.next_hops.unanswered() == 0;
            let all = |ready: fn(&Peer, Family) -> bool| self.peers.values().all(|peer| ready(peer, family));
            if self.deferred[index] {
                if expired || (answered && all(selection_ready)) {
                    self.deferred[index] = false;
                    self.releasing[index] = true;
                    self.start_release(family);
                }
            } else if !self.releasing[index] && (expired || (answered && all(fib_ready))) {
                self.settled[index] = true;
                self.fib.allow_end(family);
            }
        }
        if self.settled.iter().all(|settled| *settled) {
            self.restart_deadline = None;
            self.timers.cancel(Timer::Restart);
            self.timers.cancel(Timer::Members);
        }
    }

    /// The deferred selection of a family has been made up for.
    pub(super) fn released(&mut self, family: Family) {
        self.releasing[family.index()] = false;
        self.export.release(family);
        self.check_restart(self.now);
    }
}
