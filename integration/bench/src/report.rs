//! Runs as text: a line each, and a table for a scenario. Pure.

use std::fmt::Write as _;

use crate::daemons::Target;
use crate::measured::{Measured, Outcome};
use crate::scenario::Scenario;

/// One run.
#[must_use]
pub fn line(of: &Measured) -> String {
    let head = format!("{:11} {:8} {} core(s) #{}", of.scenario, of.daemon.name(), of.cores, of.round + 1);
    let mut more = String::new();
    if of.broken > 0 {
        let why = of.broken_why.as_deref().unwrap_or_default();
        let _ = write!(more, ", {} sessions broke (one: {why})", of.broken);
    }
    if of.returned > 0 {
        let _ = write!(more, ", {} paths came back", of.returned);
    }
    for (name, value) in &of.more {
        let _ = write!(more, ", {name}: {value:.3}");
    }
    if of.is_disturbed() {
        let _ = write!(more, " (others used {:.2} s of CPU)", of.foreign_cpu);
    }
    match &of.outcome {
        Outcome::Complete => {
            let latency = of
                .latency
                .map(|of| format!(", p50 {:.2} p99 {:.2} last {:.2} ms", of.p50, of.p99, of.last_p50));
            let each = of.octets_a_path().map(|octets| format!(", {octets:.0} B/path")).unwrap_or_default();
            format!(
                "{head} {:>8} s, cpu {:.2} s (generator {:.2}), peak {} MiB{each}{}{more}",
                seconds(of.seconds.unwrap_or_default()),
                of.cpu,
                of.generator_cpu,
                mebibytes(of.peak_kib),
                latency.unwrap_or_default(),
            )
        }
        Outcome::Incomplete(why) => format!("{head} not complete in the time: {why}{more}"),
        Outcome::Wrong(why) => format!("{head} FAILED, wrong result: {why}{more}"),
        Outcome::Broken(why) => format!("{head} FAILED: {why}{more}"),
    }
}

/// Seconds, with as many digits as tell something.
#[must_use]
pub fn seconds(of: f64) -> String {
    match of {
        ..0.1 => format!("{of:.4}"),
        0.1..10.0 => format!("{of:.3}"),
        _ => format!("{of:.1}"),
    }
}

/// KiB as MiB.
#[must_use]
pub fn mebibytes(kib: u64) -> String {
    let mib = kib as f64 / 1024.0;
    if mib < 100.0 { format!("{mib:.1}") } else { format!("{mib:.0}") }
}

/// Median, least and greatest of some values; `None` where there are none.
#[must_use]
pub fn spread(values: impl Iterator<Item = f64>) -> Option<(f64, f64, f64)> {
    let mut all: Vec<f64> = values.collect();
    all.sort_by(f64::total_cmp);
    let (first, last) = (all.first()?, all.last()?);
    let middle = all.len() / 2;
    let median = if all.len() % 2 == 1 { all[middle] } else { f64::midpoint(all[middle - 1], all[middle]) };
    Some((median, *first, *last))
}

/// The runs of one scenario, as a table in Markdown: a row for each daemon.
#[must_use]
pub fn table(scenario: &Scenario, scale: f64, runs: &[&Measured]) -> String {
    let latency = runs.iter().any(|run| run.latency.is_some());
    let scaled = if scale == 1.0 { String::new() } else { format!(", all sizes × {scale}") };
    let mut text = format!("**{}** {}{scaled}\n\n", scenario.name, scenario.title);
    let middle =
        if latency { "p50 ms | p99 ms | last receiver p50 ms" } else { "seconds | least – greatest" };
    let rule = if latency { "---:|---:|---:" } else { "---:|:---:" };
    let _ = writeln!(
        text,
        "| daemon | {middle} | CPU s | peak MiB | B/path | complete |\n|---|{rule}|---:|---:|---:|---|"
    );
    let mut daemons: Vec<Target> = Vec::new();
    for run in runs {
        if !daemons.contains(&run.daemon) {
            daemons.push(run.daemon);
        }
    }
    for daemon in daemons {
        let own: Vec<&&Measured> = runs.iter().filter(|run| run.daemon == daemon).collect();
        let good: Vec<&&&Measured> = own.iter().filter(|run| run.outcome == Outcome::Complete).collect();
        let median = |of: &dyn Fn(&Measured) -> Option<f64>| spread(good.iter().filter_map(|run| of(run)));
        let cell = |value: Option<(f64, f64, f64)>, digits: usize| match value {
            Some((median, ..)) => format!("{median:.digits$}"),
            None => "–".to_owned(),
        };
        let middle = if latency {
            let one = |of: fn(&crate::measured::Latency) -> f64| median(&|run| run.latency.as_ref().map(of));
            [one(|of| of.p50), one(|of| of.p99), one(|of| of.last_p50)]
                .map(|value| cell(value, 2))
                .join(" | ")
        } else {
            match median(&|run| run.seconds) {
                Some((median, least, most)) => {
                    format!("{} | {} – {}", seconds(median), seconds(least), seconds(most))
                }
                None => "– | –".to_owned(),
            }
        };
        let _ = writeln!(
            text,
            "| {} | {middle} | {} | {} | {} | {} of {} |",
            daemon.name(),
            cell(median(&|run| Some(run.cpu)), 2),
            cell(median(&|run| Some(run.peak_kib as f64 / 1024.0)), 1),
            cell(median(&Measured::octets_a_path), 0),
            good.len(),
            own.len(),
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(spread([3.0, 1.0, 2.0].into_iter()), Some((2.0, 1.0, 3.0)));
        assert_eq!(spread([4.0, 1.0].into_iter()), Some((2.5, 1.0, 4.0)));
        assert_eq!(spread(std::iter::empty()), None);
    }
}
