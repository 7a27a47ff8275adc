//! What one run gave: the record that goes from the process that measured to the one that reports. Pure.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::daemons::Target;
use crate::latency::Summary;

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "end", content = "why")]
pub enum Outcome {
    /// Everybody had exactly what they must have.
    Complete,
    /// Not within the time limit.
    Incomplete(String),
    /// Something came out that is wrong.
    Wrong(String),
    /// It could not be measured.
    Broken(String),
}

/// What one run gave.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// The scenario's name.
    pub scenario: String,
    /// The daemon.
    pub daemon: Target,
    /// Cores the daemon had.
    pub cores: usize,
    /// Which round.
    pub round: usize,
    /// How it ended.
    pub outcome: Outcome,
    /// From the first octet sent (cold: from the first connection attempted) until the last receiver was complete.
    pub seconds: Option<f64>,
    /// CPU seconds of the daemon in that time, in steps of 0.01.
    pub cpu: f64,
    /// CPU seconds of the generator in that time.
    pub generator_cpu: f64,
    /// Resident memory of the daemon before, KiB.
    pub idle_kib: u64,
    /// Its peak, KiB.
    pub peak_kib: u64,
    /// Paths it was given.
    pub paths: usize,
    /// Announcements of what a receiver had already.
    pub repeated: u64,
    /// Paths that came back to the peer they are from.
    pub returned: u64,
    /// CPU seconds that others used in that time: a figure taken in bad company.
    pub foreign_cpu: f64,
    /// Sessions that broke and were made anew.
    pub broken: usize,
    /// Why one of them did.
    pub broken_why: Option<String>,
    /// Latencies, where these are what is measured.
    pub latency: Option<Latency>,
    /// What else was measured, with its unit in the name.
    pub more: BTreeMap<String, f64>,
}

/// Latencies, milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// Median over all changes and receivers.
    pub p50: f64,
    /// 99th percentile.
    pub p99: f64,
    /// Median over the changes of the latency to the last receiver.
    pub last_p50: f64,
}

impl From<Summary> for Latency {
    fn from(micros: Summary) -> Self {
        Latency { p50: micros.p50 / 1e3, p99: micros.p99 / 1e3, last_p50: micros.last_p50 / 1e3 }
    }
}

impl Measured {
    /// Others used more than a tenth of the time.
    #[must_use]
    pub fn is_disturbed(&self) -> bool {
        self.seconds.is_some_and(|seconds| self.foreign_cpu > 0.05 + seconds / 10.0)
    }

    /// Memory that the paths took, octets each; `None` where there are too few to tell.
    #[must_use]
    pub fn octets_a_path(&self) -> Option<f64> {
        (self.paths >= 50_000)
            .then(|| self.peak_kib.saturating_sub(self.idle_kib) as f64 * 1024.0 / self.paths as f64)
    }
}
