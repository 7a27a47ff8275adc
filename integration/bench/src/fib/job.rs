//! What is measured, with whom, and what one measurement gives. Pure.

use std::collections::BTreeMap;
use std::fmt;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use super::plan::{Family, Plan};

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// Routes into an empty kernel.
    Load,
    /// From the UPDATE to the kernel.
    Wire,
    /// A full check that finds nothing wrong.
    Resync,
    /// The link to the next hop loses its carrier.
    Carrier,
    /// The link to the next hop is set down.
    Down,
    /// The session with the next hop ends.
    Session,
    /// One route comes and goes.
    Flap,
}

/// With whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Subject {
    /// A bare loop in this tool: routes with a gateway, 64 KiB at once. The floor.
    Loop,
    /// The same with routes that name a nexthop object.
    LoopObject,
    /// Causeway: fib-sync, with bgpd where routes come by BGP.
    Causeway,
    /// BIRD.
    Bird,
    /// FRR: bgpd and zebra.
    Frr,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.to_possible_value().as_ref().map_or("", |value| value.get_name()))
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.to_possible_value().as_ref().map_or("", |value| value.get_name()))
    }
}

impl Subject {
    /// How it is called in tables.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Subject::Loop => "bare loop",
            Subject::LoopObject => "bare loop, by nexthop id",
            Subject::Causeway => "Causeway",
            Subject::Bird => "BIRD",
            Subject::Frr => "FRR",
        }
    }
}

/// One thing to measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, clap::Args)]
pub struct Job {
    /// What
    #[arg(long, value_enum)]
    pub step: Step,
    /// With whom
    #[arg(long, value_enum)]
    pub subject: Subject,
    /// Family of the routes
    #[arg(long, value_enum)]
    pub family: Family,
    /// How many routes
    #[arg(long)]
    pub routes: usize,
    /// How long it goes on, where that is to be said, seconds
    #[arg(long, default_value_t = 0)]
    pub seconds: u64,
}

impl Job {
    /// Its routes.
    #[must_use]
    pub fn plan(&self) -> Plan {
        Plan { family: self.family, routes: self.routes }
    }

    /// What it is, for people.
    #[must_use]
    pub fn title(&self) -> String {
        let family = if self.family == Family::V6 { "IPv6" } else { "IPv4" };
        let routes = grouped(self.routes);
        match self.step {
            Step::Load => format!("{routes} {family} routes into an empty kernel"),
            Step::Wire => format!("{routes} routes, from the UPDATE to the kernel"),
            Step::Resync => format!("full check of {routes} routes, nothing wrong"),
            Step::Carrier => format!("next hop of {routes} routes lost: its link loses its carrier"),
            Step::Down => format!("next hop of {routes} routes lost: its link is set down"),
            Step::Session => format!("next hop of {routes} routes lost: its session ends"),
            Step::Flap => format!("one route flaps 1,000 times a second among {routes}"),
        }
    }
}

/// What one measurement gave: numbers by name, the unit in the name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    /// What was measured.
    pub job: Job,
    /// Which round.
    pub round: usize,
    /// The numbers.
    pub values: BTreeMap<String, f64>,
    /// Why there are none.
    pub failed: Option<String>,
}

impl Figures {
    /// None yet.
    #[must_use]
    pub fn new(job: Job) -> Figures {
        Figures { job, round: 0, values: BTreeMap::new(), failed: None }
    }

    /// Adds one.
    pub fn set(&mut self, name: &str, value: f64) {
        self.values.insert(name.to_owned(), value);
    }

    /// Adds how long something took and what it cost, and the rates that follow.
    pub fn set_rates(&mut self, seconds: f64, cpu: f64) {
        self.set("seconds", seconds);
        self.set("CPU seconds", cpu);
        self.set("routes a second", self.job.routes as f64 / seconds.max(1e-9));
        self.set("routes a CPU second", self.job.routes as f64 / cpu.max(1e-9));
    }
}

/// A number with its thousands apart.
#[must_use]
pub fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// What is to be measured, in the order of the rounds: what is compared follows one another.
#[must_use]
pub fn all(quick: bool, flap_seconds: u64) -> Vec<Job> {
    use Subject::{Bird, Causeway, Frr, Loop, LoopObject};
    let (small, large) = if quick { (50_000, 200_000) } else { (100_000, 1_000_000) };
    let job = |step, subject, routes| Job { step, subject, family: Family::V4, routes, seconds: 0 };
    let mut jobs = Vec::new();
    for routes in [small, large] {
        jobs.extend([Loop, LoopObject, Causeway, Bird].map(|subject| job(Step::Load, subject, routes)));
    }
    let v6 = [Loop, LoopObject, Causeway].map(|subject| job(Step::Load, subject, small));
    jobs.extend(v6.map(|job| Job { family: Family::V6, ..job }));
    jobs.extend([Causeway, Bird, Frr].map(|subject| job(Step::Wire, subject, small)));
    jobs.push(job(Step::Resync, Causeway, large));
    jobs.extend([Step::Carrier, Step::Down].map(|step| job(step, Causeway, small)));
    jobs.extend([Causeway, Bird, Frr].map(|subject| job(Step::Session, subject, small)));
    for subject in [LoopObject, Causeway] {
        let flap = |routes| Job { seconds: flap_seconds, ..job(Step::Flap, subject, routes) };
        jobs.extend([1000, large].map(flap));
    }
    jobs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_apart() {
        assert_eq!([0, 999, 1000, 1_000_000].map(grouped), ["0", "999", "1,000", "1,000,000"]);
    }

    #[test]
    fn what_is_compared_is_of_one_size() {
        for quick in [false, true] {
            let jobs = all(quick, 20);
            for job in jobs.iter().filter(|job| job.step == Step::Load) {
                let floor = Job { subject: Subject::Loop, ..*job };
                assert!(jobs.contains(&floor), "{job:?}");
            }
            assert_eq!(jobs.iter().filter(|job| job.step == Step::Flap).count(), 4);
        }
        assert!(all(false, 20)[0].title().contains("100,000 IPv4"), "{}", all(false, 20)[0].title());
    }
}
