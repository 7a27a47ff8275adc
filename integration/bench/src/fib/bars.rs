//! Measurements as text: a line each, tables, and what is to be reached beside what was. Pure.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::job::{Figures, Job, Step, Subject};
use super::plan::Family;
use crate::report::spread;

/// Names of the figures in the order of the tables; their units are in them.
const COLUMNS: &[&str] = &[
    "seconds",
    "seconds until all were read back",
    "CPU seconds",
    "of it the writer's",
    "routes a second",
    "routes a CPU second",
    "bytes a route",
    "seconds of a raw dump",
    "raw dumps",
    "writes",
    "worst ms of a change meanwhile",
    "flaps a second",
    "CPU microseconds a flap",
    "writes a flap",
    "answers a flap",
    "checks meanwhile",
];

/// What is to be reached.
struct Bar {
    what: String,
    found: Option<f64>,
    /// The least and the most it may be.
    from: f64,
    to: f64,
    unit: &'static str,
}

/// One measurement.
#[must_use]
pub fn line(of: &Figures) -> String {
    let head = format!("{:24} {} #{}", of.job.subject.name(), of.job.title(), of.round + 1);
    match &of.failed {
        Some(why) => format!("{head}: FAILED: {why}"),
        None => {
            let known = COLUMNS.iter().filter_map(|name| Some((*name, *of.values.get(*name)?)));
            let values: Vec<String> =
                known.map(|(name, value)| format!("{name} {}", number(value))).collect();
            format!("{head}: {}", values.join(", "))
        }
    }
}

/// Tables of everything, and the bars.
#[must_use]
pub fn report(all: &[Figures]) -> String {
    let mut text = String::new();
    let mut jobs: Vec<Job> = Vec::new();
    for figures in all {
        if !jobs.contains(&figures.job) {
            jobs.push(figures.job);
        }
    }
    let mut titles: Vec<String> = Vec::new();
    for job in &jobs {
        if !titles.contains(&job.title()) {
            titles.push(job.title());
        }
    }
    for title in &titles {
        let own: Vec<Job> = jobs.iter().copied().filter(|job| job.title() == *title).collect();
        table(&mut text, title, &own, all);
    }
    bars(&mut text, &jobs, all);
    text
}

fn table(text: &mut String, title: &str, jobs: &[Job], all: &[Figures]) {
    let is_there = |name: &&&str| {
        all.iter().any(|figures| jobs.contains(&figures.job) && figures.values.contains_key(**name))
    };
    let columns: Vec<&str> = COLUMNS.iter().filter(is_there).copied().collect();
    let _ = writeln!(text, "**{title}**\n\n| | {} |", columns.join(" | "));
    let _ = writeln!(text, "|---|{}", "---:|".repeat(columns.len()));
    for job in jobs {
        let cells: Vec<String> = columns.iter().map(|name| cell(all, job, name)).collect();
        let failed = all.iter().filter(|figures| figures.job == *job && figures.failed.is_some()).count();
        let failed = if failed > 0 { format!(" ({failed} failed)") } else { String::new() };
        let _ = writeln!(text, "| {}{failed} | {} |", job.subject.name(), cells.join(" | "));
    }
    text.push('\n');
}

fn cell(all: &[Figures], job: &Job, name: &str) -> String {
    match found(all, job, name) {
        None => "–".to_owned(),
        Some((median, least, most)) if least < most => {
            format!("{} ({} – {})", number(median), number(least), number(most))
        }
        Some((median, ..)) => number(median),
    }
}

/// Median and extremes of a figure.
fn found(all: &[Figures], job: &Job, name: &str) -> Option<(f64, f64, f64)> {
    spread(
        all.iter()
            .filter(|figures| figures.job == *job)
            .filter_map(|figures| figures.values.get(name))
            .copied(),
    )
}

/// With as many digits as tell something.
fn number(of: f64) -> String {
    match of.abs() {
        0.0 => "0".to_owned(),
        ..0.1 => format!("{of:.4}"),
        ..10.0 => format!("{of:.3}"),
        ..1000.0 => format!("{of:.1}"),
        _ => super::job::grouped(of.round() as usize),
    }
}

fn bars(text: &mut String, jobs: &[Job], all: &[Figures]) {
    let mut bars = Vec::new();
    for job in jobs.iter().filter(|job| job.subject == Subject::Causeway) {
        bars_of(&mut bars, job, all);
    }
    let flaps: BTreeSet<Job> = jobs
        .iter()
        .copied()
        .filter(|job| job.step == Step::Flap && job.subject == Subject::Causeway)
        .collect();
    if let (Some(few), Some(many)) = (flaps.first(), flaps.last())
        && few.routes < many.routes
    {
        let cost = |job| found(all, job, "CPU microseconds a flap").map(|(median, ..)| median);
        let what = format!("{}: cost beside that among {}", many.title(), super::job::grouped(few.routes));
        bars.push(Bar { what, found: ratio(cost(many), cost(few)), from: 0.8, to: 1.2, unit: "×" });
    }
    let _ = writeln!(text, "| to reach | found | bar | |\n|---|---:|---:|---|");
    for Bar { what, found, from, to, unit } in bars {
        let bar = match (from.is_finite(), to.is_finite()) {
            (true, true) => format!("{from} – {to} {unit}"),
            (true, false) => format!("≥ {from} {unit}"),
            (false, true) => format!("≤ {to} {unit}"),
            (false, false) => "none".to_owned(),
        };
        let (found, verdict) = match found {
            None => ("–".to_owned(), "not measured"),
            Some(found) if bar == "none" => (number(found), "for comparison"),
            Some(found) if (from..=to).contains(&found) => (number(found), "reached"),
            Some(found) => (number(found), "NOT reached"),
        };
        let _ = writeln!(text, "| {what} | {found} {unit} | {bar} | {verdict} |");
    }
}

fn ratio(one: Option<f64>, other: Option<f64>) -> Option<f64> {
    Some(one? / other?)
}

/// The bars of one measurement of Causeway.
fn bars_of(bars: &mut Vec<Bar>, job: &Job, all: &[Figures]) {
    let title = job.title();
    let of =
        |subject: Subject, name: &str| found(all, &Job { subject, ..*job }, name).map(|(median, ..)| median);
    let own = |name: &str| of(Subject::Causeway, name);
    let mut least = |what: &str, found, from, unit| {
        bars.push(Bar { what: format!("{title}: {what}"), found, from, to: f64::INFINITY, unit });
    };
    match job.step {
        Step::Load => {
            let rate = "routes a second";
            let beside = |floor| ratio(own(rate), of(floor, rate));
            least("rate beside the bare loop", beside(Subject::Loop), 0.85, "×");
            let any = f64::NEG_INFINITY;
            least("rate beside the bare loop by nexthop id", beside(Subject::LoopObject), any, "×");
            if job.family == Family::V4 {
                let rate = "routes a CPU second";
                let found = ratio(own(rate), of(Subject::Bird, rate));
                least("routes a CPU second beside BIRD", found, 2.0, "×");
            }
        }
        Step::Wire => least(
            "BIRD's time beside Causeway's",
            ratio(of(Subject::Bird, "seconds"), own("seconds")),
            1.0,
            "×",
        ),
        Step::Resync | Step::Carrier | Step::Down | Step::Session | Step::Flap => {}
    }
    let mut most = |what: &str, found, to, unit| {
        let what = if what.is_empty() { title.clone() } else { format!("{title}: {what}") };
        bars.push(Bar { what, found, from: f64::NEG_INFINITY, to, unit });
    };
    match job.step {
        // Of a few routes much is what every process has.
        Step::Load if job.routes >= 200_000 => most("memory", own("bytes a route"), 120.0, "bytes a route"),
        Step::Resync => {
            most("time beside a raw dump", own("raw dumps"), 2.0, "×");
            most("writes", own("writes"), 0.0, "");
            most("a change meanwhile", own("worst ms of a change meanwhile"), 50.0, "ms");
        }
        Step::Carrier | Step::Down | Step::Session => {
            most("", own("seconds").map(|seconds| seconds * 1e3), 100.0, "ms");
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loads(rates: &[(Subject, f64)]) -> Vec<Figures> {
        rates
            .iter()
            .map(|(subject, rate)| {
                let job = Job {
                    step: Step::Load,
                    subject: *subject,
                    family: Family::V4,
                    routes: 100_000,
                    seconds: 0,
                };
                let mut figures = Figures::new(job);
                figures.set_rates(100_000.0 / rate, 0.5);
                figures
            })
            .collect()
    }

    #[test]
    fn a_bar_is_a_ratio_of_medians() {
        let mut all = loads(&[
            (Subject::Loop, 200_000.0),
            (Subject::Causeway, 100_000.0),
            (Subject::Causeway, 180_000.0),
            (Subject::Causeway, 900_000.0),
        ]);
        let text = report(&all);
        assert!(text.contains("rate beside the bare loop | 0.900 × | ≥ 0.85 × | reached |"), "{text}");
        assert!(text.contains("by nexthop id | – × | none | not measured |"), "{text}");
        assert!(text.contains("| Causeway | 0.556 (0.111 – 1.000) |"), "{text}");
        for figures in &mut all {
            figures.job.routes = 1_000_000;
        }
        all[2].set("bytes a route", 121.0);
        assert!(report(&all).contains("| 121.0 bytes a route | ≤ 120 bytes a route | NOT reached |"));
    }

    #[test]
    fn what_failed_is_said() {
        let mut all = loads(&[(Subject::Causeway, 1000.0)]);
        all[0].values.clear();
        all[0].failed = Some("no route".to_owned());
        assert!(line(&all[0]).ends_with("FAILED: no route"));
        assert!(report(&all).contains("| Causeway (1 failed) |"));
    }

    #[test]
    fn a_flap_may_cost_a_fifth_more_or_less() {
        let mut all = loads(&[(Subject::Causeway, 1.0), (Subject::Causeway, 1.0)]);
        for (figures, (routes, cost)) in all.iter_mut().zip([(1000, 10.0), (1_000_000, 11.9)]) {
            figures.job = Job { step: Step::Flap, routes, ..figures.job };
            figures.set("CPU microseconds a flap", cost);
        }
        let text = report(&all);
        assert!(text.contains("beside that among 1,000 | 1.190 × | 0.8 – 1.2 × | reached |"), "{text}");
    }
}
