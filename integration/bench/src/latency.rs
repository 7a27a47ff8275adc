//! How long each change takes to each receiver. Pure.

use std::time::Instant;

/// The tag of the first change; above those of any workload.
pub const FIRST_CHANGE: u32 = 100_000_000;

/// Times of changes sent, and of their arrivals.
pub struct Latencies {
    /// Prefixes; change number n is of prefix n modulo this.
    prefixes: usize,
    begin: Instant,
    /// When each change was sent, microseconds since `begin`.
    sent: Vec<u32>,
    /// By receiver and prefix: the change that is expected next, as its turn (change number / prefixes).
    next: Vec<Vec<u32>>,
    /// All latencies, microseconds.
    all: Vec<u32>,
    /// By change: arrivals, and the latest of them as latency in microseconds.
    last: Vec<(u32, u32)>,
}

/// The latencies of a run, microseconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Summary {
    /// Median over all changes and receivers.
    pub p50: f64,
    /// 99th percentile.
    pub p99: f64,
    /// Median over the changes of the latency to the last receiver.
    pub last_p50: f64,
}

impl Latencies {
    /// For so many changes of so many prefixes in turn, with so many peers.
    #[must_use]
    pub fn new(peers: usize, prefixes: usize, changes: usize, begin: Instant) -> Self {
        Latencies {
            prefixes,
            begin,
            sent: Vec::with_capacity(changes),
            next: vec![vec![0; prefixes]; peers],
            all: Vec::new(),
            last: vec![(0, 0); changes],
        }
    }

    /// The next change is being sent.
    pub fn send(&mut self, now: Instant) {
        self.sent.push(self.micros(now));
    }

    fn micros(&self, now: Instant) -> u32 {
        now.saturating_duration_since(self.begin).as_micros() as u32
    }

    /// A path arrived. What it took the place of, unseen, arrived with it.
    #[inline]
    pub fn seen(&mut self, peer: usize, prefix: usize, tag: u32, now: Instant) {
        let Some(change) = tag.checked_sub(FIRST_CHANGE).map(|change| change as usize) else { return };
        if change >= self.sent.len() || change % self.prefixes != prefix {
            return;
        }
        let now = self.micros(now);
        let turn = (change / self.prefixes) as u32;
        let next = &mut self.next[peer][prefix];
        while *next <= turn {
            let of = *next as usize * self.prefixes + prefix;
            let took = now.saturating_sub(self.sent[of]);
            self.all.push(took);
            let (arrivals, latest) = &mut self.last[of];
            *arrivals += 1;
            *latest = took.max(*latest);
            *next += 1;
        }
    }

    /// What it comes to.
    #[must_use]
    pub fn summary(&self) -> Summary {
        let all: Vec<u32> = self.all.clone();
        let last: Vec<u32> =
            self.last.iter().filter(|(arrivals, _)| *arrivals > 0).map(|(_, latest)| *latest).collect();
        Summary {
            p50: percentile(all.clone(), 0.5),
            p99: percentile(all, 0.99),
            last_p50: percentile(last, 0.5),
        }
    }
}

/// The value below which this share of the values lies; 0 where there are none.
fn percentile(mut values: Vec<u32>, share: f64) -> f64 {
    if values.is_empty() {
        return 0.0;
    }
    let at = ((values.len() as f64 * share) as usize).min(values.len() - 1);
    f64::from(*values.select_nth_unstable(at).1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_change_that_was_skipped_arrives_with_its_successor() {
        let begin = Instant::now();
        let at = |micros: u64| begin + Duration::from_micros(micros);
        let mut all = Latencies::new(2, 2, 4, begin);
        for change in 0..4 {
            all.send(at(change * 100));
        }
        all.seen(0, 0, FIRST_CHANGE, at(10));
        all.seen(0, 1, FIRST_CHANGE + 1, at(120));
        all.seen(0, 0, FIRST_CHANGE + 2, at(230));
        all.seen(1, 0, FIRST_CHANGE + 2, at(240));
        assert_eq!(all.all, [10, 20, 30, 240, 40]);
        assert_eq!(all.last, [(2, 240), (1, 20), (2, 40), (0, 0)]);
        assert_eq!(all.summary(), Summary { p50: 30.0, p99: 240.0, last_p50: 40.0 });
    }

    #[test]
    fn what_is_no_change_is_left_out() {
        let mut all = Latencies::new(1, 2, 4, Instant::now());
        all.send(Instant::now());
        all.seen(0, 0, 65000, Instant::now());
        all.seen(0, 0, FIRST_CHANGE + 1, Instant::now());
        all.seen(0, 1, FIRST_CHANGE, Instant::now());
        assert!(all.all.is_empty());
    }
}
