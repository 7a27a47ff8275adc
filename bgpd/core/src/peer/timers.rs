//! The lengths of the session's timers: jitter, back-off, large values. Pure; randomness comes in as a generator.
//! RFC 4271 §10 (values and jitter), §8.1.1 (damping of oscillation), §8.2.2 (large hold time).

use std::time::{Duration, Instant};

/// HoldTimer in OpenSent: "a large value", 4 minutes suggested (RFC 4271 §8.2.2).
pub const OPEN_HOLD_TIME: Duration = Duration::from_secs(240);

/// How long the KEEPALIVE of a connection that will lose a collision is withheld at most.
pub const COLLISION_WAIT: Duration = Duration::from_secs(1);

/// A session that lived this long has not oscillated: the back-off starts anew.
pub const STABLE_AFTER: Duration = Duration::from_secs(30);

/// The first pause after an error.
const BACK_OFF_MIN: Duration = Duration::from_secs(1);

/// The pause after an error never grows beyond this.
const BACK_OFF_MAX: Duration = Duration::from_secs(60);

/// A KEEPALIVE is never sent more often than this (RFC 4271 §4.4).
const KEEPALIVE_MIN: Duration = Duration::from_secs(1);

/// Attempts to connect are never closer to each other than this, whatever is configured.
const CONNECT_RETRY_MIN: Duration = Duration::from_millis(100);

/// The next ConnectRetryTimer: as configured, with jitter.
pub fn connect_retry(configured: Duration, rng: &mut fastrand::Rng) -> Duration {
    jittered(configured, rng).max(CONNECT_RETRY_MIN)
}

/// `full` times a random factor of 0.75 to 1.0 (RFC 4271 §10).
pub fn jittered(full: Duration, rng: &mut fastrand::Rng) -> Duration {
    full.mul_f64(0.75 + 0.25 * rng.f64())
}

/// The hold time in force: the smaller of both offers (RFC 4271 §4.2); `None` where either is zero, which turns all
/// timers of the session off.
pub fn hold_time(ours: Duration, theirs: Duration) -> Option<Duration> {
    Some(ours.min(theirs)).filter(|hold| !hold.is_zero())
}

/// The keepalive interval in force: what is configured, but at most a third of the hold time and at least a second.
pub fn keepalive_time(configured: Duration, hold: Duration) -> Duration {
    configured.min(hold / 3).max(KEEPALIVE_MIN)
}

/// The next KEEPALIVE, with jitter, not sooner than a second from now.
pub fn next_keepalive(now: Instant, interval: Duration, rng: &mut fastrand::Rng) -> Instant {
    now + jittered(interval, rng).max(KEEPALIVE_MIN)
}

/// The pause after the `failures`th error in a row, before jitter: 1 s, doubling up to four times the connect retry
/// time, never beyond a minute.
pub fn back_off(failures: u32, connect_retry: Duration) -> Duration {
    let cap = (connect_retry * 4).clamp(BACK_OFF_MIN, BACK_OFF_MAX);
    BACK_OFF_MIN.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(cap)
}

/// How often the peer may connect: a bucket that fills with time.
#[derive(Clone, Debug)]
pub struct AcceptBudget {
    left: f64,
    filled: Instant,
}

impl AcceptBudget {
    const CAPACITY: f64 = 64.0;
    const PER_SECOND: f64 = 8.0;

    /// A full bucket.
    pub fn new(now: Instant) -> Self {
        AcceptBudget { left: Self::CAPACITY, filled: now }
    }

    /// Takes one connection out; false where the bucket is empty.
    pub fn take(&mut self, now: Instant) -> bool {
        let gained = now.saturating_duration_since(self.filled).as_secs_f64() * Self::PER_SECOND;
        self.left = (self.left + gained).min(Self::CAPACITY);
        self.filled = now;
        let some = self.left >= 1.0;
        if some {
            self.left -= 1.0;
        }
        some
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc4271_10_jitter_stays_between_three_quarters_and_one() {
        let mut rng = fastrand::Rng::with_seed(7);
        let full = Duration::from_secs(100);
        let all: Vec<Duration> = (0..2000).map(|_| jittered(full, &mut rng)).collect();
        assert!(all.iter().all(|d| (Duration::from_secs(75)..=full).contains(d)));
        assert!(all.iter().any(|d| *d < Duration::from_secs(77)), "the whole range is used");
        assert!(all.iter().any(|d| *d > Duration::from_secs(98)), "the whole range is used");
    }

    #[test]
    fn attempts_never_follow_each_other_without_a_pause() {
        let mut rng = fastrand::Rng::with_seed(7);
        assert_eq!(connect_retry(Duration::ZERO, &mut rng), CONNECT_RETRY_MIN);
        assert!(connect_retry(Duration::from_secs(5), &mut rng) >= Duration::from_millis(3750));
    }

    #[test]
    fn rfc4271_4_2_the_smaller_hold_time_counts_and_zero_is_none() {
        let s = Duration::from_secs;
        assert_eq!(hold_time(s(90), s(9)), Some(s(9)));
        assert_eq!(hold_time(s(9), s(90)), Some(s(9)));
        assert_eq!(hold_time(s(0), s(90)), None);
        assert_eq!(hold_time(s(90), s(0)), None);
    }

    #[test]
    fn rfc4271_4_4_keepalives_a_third_of_the_hold_time_and_never_twice_a_second() {
        let s = Duration::from_secs;
        assert_eq!(keepalive_time(s(30), s(90)), s(30));
        assert_eq!(keepalive_time(s(30), s(9)), s(3));
        assert_eq!(keepalive_time(s(1), s(90)), s(1));
        assert_eq!(keepalive_time(s(0), s(3)), s(1));
        let mut rng = fastrand::Rng::with_seed(1);
        let now = Instant::now();
        assert!((0..200).all(|_| next_keepalive(now, s(1), &mut rng) >= now + s(1)));
        assert!((0..200).all(|_| next_keepalive(now, s(30), &mut rng) <= now + s(30)));
    }

    #[test]
    fn back_off_doubles_up_to_its_cap() {
        let seconds = |retry| -> Vec<u64> {
            (0..9).map(|n| back_off(n, Duration::from_secs(retry)).as_secs()).collect()
        };
        assert_eq!(seconds(5), [1, 1, 2, 4, 8, 16, 20, 20, 20]);
        assert_eq!(seconds(120), [1, 1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(back_off(u32::MAX, Duration::from_secs(1)).as_secs(), 4);
        assert_eq!(back_off(5, Duration::ZERO).as_secs(), 1);
    }

    #[test]
    fn the_accept_budget_runs_dry_and_fills_again() {
        let now = Instant::now();
        let mut budget = AcceptBudget::new(now);
        assert!((0..64).all(|_| budget.take(now)));
        assert!(!budget.take(now));
        assert!(budget.take(now + Duration::from_millis(200)));
        assert!(!budget.take(now + Duration::from_millis(200)));
    }
}
