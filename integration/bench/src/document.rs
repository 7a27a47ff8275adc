//! The tables of `docs/benchmarks.md`, out of the files of runs; what is written by hand around them stays. Pure but for the files.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::daemons::Target;
use crate::measured::{Measured, Outcome};
use crate::report::{mebibytes, seconds, spread};
use crate::scenario::{self, Load, Scenario};

/// Puts the tables of these runs into the document.
///
/// # Errors
/// Where a file cannot be read or written, or the document has no place for tables.
pub fn write(files: &[std::path::PathBuf], document: &Path) -> Result<()> {
    let mut all: Vec<Measured> = Vec::new();
    for file in files {
        let text = fs::read_to_string(file).with_context(|| file.display().to_string())?;
        all.extend(serde_json::from_str::<Vec<Measured>>(&text).with_context(|| file.display().to_string())?);
    }
    put("bench", &tables(&all), document)
}

/// Puts tables into the document where it has a place of this name for them.
///
/// # Errors
/// Where the file cannot be read or written, or has no such place.
pub fn put(place: &str, tables: &str, document: &Path) -> Result<()> {
    let text = fs::read_to_string(document).with_context(|| document.display().to_string())?;
    let filled = fill(place, &text, tables).with_context(|| {
        let (begin, end) = marks(place);
        format!("{} has no place for tables: {begin} and, later, {end}", document.display())
    })?;
    fs::write(document, filled)?;
    Ok(())
}

fn marks(place: &str) -> (String, String) {
    (format!("<!-- {place}:begin -->"), format!("<!-- {place}:end -->"))
}

fn fill(place: &str, text: &str, tables: &str) -> Option<String> {
    let (begin, end) = marks(place);
    let (before, rest) = text.split_once(&begin)?;
    let (_, after) = rest.split_once(&end)?;
    Some(format!("{before}{begin}\n\n{}\n\n{end}{after}", tables.trim()))
}

/// All tables: time, then memory, then CPU, for one core and for two; then what is no matter of time.
fn tables(all: &[Measured]) -> String {
    let mut text = String::new();
    for (cores, title) in [(1, "One core"), (2, "Two cores")] {
        let runs: Vec<&Measured> = all.iter().filter(|run| run.cores == cores).collect();
        if runs.is_empty() {
            continue;
        }
        let _ = writeln!(text, "## {title}\n");
        let timed = |scenario: &Scenario| {
            matches!(scenario.load, Load::Feed(_) | Load::Reflect(_) | Load::Establish { .. } | Load::Slow(_))
        };
        let times = |own: &[&Measured]| cell(own, &|run| run.seconds, &seconds);
        matrix(&mut text, "Seconds, median (least – greatest)", &runs, timed, times, true);
        let fed = |scenario: &Scenario| matches!(scenario.load, Load::Feed(_));
        let octets =
            |own: &[&Measured]| cell(own, &Measured::octets_a_path, &|octets| format!("{octets:.0}"));
        matrix(&mut text, "Memory a path, bytes", &runs, fed, octets, false);
        let peaks =
            |own: &[&Measured]| cell(own, &|run| Some(run.peak_kib as f64), &|kib| mebibytes(kib as u64));
        matrix(&mut text, "Peak memory, MiB", &runs, timed, peaks, false);
        let cpu = |own: &[&Measured]| cell(own, &|run| Some(run.cpu), &|of| format!("{of:.2}"));
        matrix(&mut text, "CPU seconds of the daemon", &runs, timed, cpu, false);
        let churn = |scenario: &Scenario| matches!(scenario.load, Load::Churn(_));
        for (name, of) in [
            ("p50", &(|run: &Measured| run.latency.map(|of| of.p50)) as &dyn Fn(&Measured) -> Option<f64>),
            ("p99", &|run: &Measured| run.latency.map(|of| of.p99)),
            ("last receiver, p50", &|run: &Measured| run.latency.map(|of| of.last_p50)),
        ] {
            let latency = |own: &[&Measured]| cell(own, of, &|of| format!("{of:.2}"));
            matrix(&mut text, &format!("Latency of a change, ms: {name}"), &runs, churn, latency, true);
        }
        let other = |scenario: &Scenario| matches!(scenario.load, Load::Slow(_) | Load::Idle(_));
        for scenario in scenario::all().iter().filter(|scenario| other(scenario)) {
            let mut names: Vec<&String> = runs
                .iter()
                .filter(|run| run.scenario == scenario.name)
                .flat_map(|run| run.more.keys())
                .collect();
            names.sort();
            names.dedup();
            for name in names {
                let values = |own: &[&Measured]| {
                    cell(own, &|run| run.more.get(name).copied(), &|of| format!("{of:.2}"))
                };
                let only = |other: &Scenario| other.name == scenario.name;
                matrix(&mut text, &format!("{}: {name}", scenario.name), &runs, only, values, false);
            }
        }
        let random = |scenario: &Scenario| matches!(scenario.load, Load::Random(_));
        let right = |own: &[&Measured]| {
            let good = own.iter().filter(|run| run.outcome == Outcome::Complete).count();
            format!("{good} of {}", own.len())
        };
        matrix(&mut text, "Random changes: runs in which every table was right", &runs, random, right, false);
    }
    text
}

/// One table: a row for each scenario that is in it, a column for each daemon.
fn matrix(
    text: &mut String,
    title: &str,
    runs: &[&Measured],
    is_in: impl Fn(&Scenario) -> bool,
    value: impl Fn(&[&Measured]) -> String,
    wide: bool,
) {
    let scenarios: Vec<Scenario> = scenario::all()
        .into_iter()
        .filter(|scenario| is_in(scenario) && runs.iter().any(|run| run.scenario == scenario.name))
        .collect();
    let order = [Target::Relay, Target::Causeway, Target::Bird, Target::Frr, Target::Gobgp];
    let daemons: Vec<Target> =
        order.into_iter().filter(|daemon| runs.iter().any(|run| run.daemon == *daemon)).collect();
    if scenarios.is_empty() {
        return;
    }
    let names: Vec<&str> = daemons.iter().map(|daemon| daemon.name()).collect();
    let _ = writeln!(
        text,
        "**{title}**\n\n| scenario | {} |\n|---|{}",
        names.join(" | "),
        "---|".repeat(names.len())
    );
    for scenario in scenarios {
        let cells: Vec<String> = daemons
            .iter()
            .map(|daemon| {
                let of = |run: &&&Measured| run.scenario == scenario.name && run.daemon == *daemon;
                let own: Vec<&Measured> = runs.iter().filter(of).copied().collect();
                if own.is_empty() { String::new() } else { value(&own) }
            })
            .collect();
        let name = if wide { format!("{}: {}", scenario.name, scenario.title) } else { scenario.name };
        let _ = writeln!(text, "| {name} | {} |", cells.join(" | "));
    }
    text.push('\n');
}

/// Median and extremes of the complete runs, and how many were not.
fn cell(own: &[&Measured], of: &dyn Fn(&Measured) -> Option<f64>, show: &dyn Fn(f64) -> String) -> String {
    let good: Vec<&&Measured> = own.iter().filter(|run| run.outcome == Outcome::Complete).collect();
    let failed = match own.len() - good.len() {
        0 => String::new(),
        _ if own.iter().any(|run| matches!(run.outcome, Outcome::Wrong(_))) => {
            format!(" {} of {} right", good.len(), own.len())
        }
        _ => format!(" {} of {} complete", good.len(), own.len()),
    };
    let text = match spread(good.iter().filter_map(|run| of(run))) {
        None if failed.is_empty() => "–".to_owned(),
        None => failed,
        Some((median, least, most)) if good.len() > 1 => {
            format!("{} ({} – {}){failed}", show(median), show(least), show(most))
        }
        Some((median, ..)) => format!("{}{failed}", show(median)),
    };
    text.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(daemon: Target, seconds: Option<f64>) -> Measured {
        Measured {
            scenario: "A".to_owned(),
            daemon,
            cores: 1,
            round: 0,
            outcome: seconds.map_or(Outcome::Incomplete(String::new()), |_| Outcome::Complete),
            seconds,
            cpu: 0.5,
            generator_cpu: 0.1,
            idle_kib: 1000,
            peak_kib: 2000,
            paths: 100_000,
            repeated: 0,
            returned: 0,
            foreign_cpu: 0.0,
            broken: 0,
            broken_why: None,
            latency: None,
            more: Default::default(),
        }
    }

    #[test]
    fn what_is_around_the_tables_stays() {
        let (begin, end) = marks("bench");
        let text = format!("before {begin} old {end} after");
        assert_eq!(fill("bench", &text, "new").unwrap(), format!("before {begin}\n\nnew\n\n{end} after"));
        assert_eq!(fill("fib", &text, "new"), None);
    }

    #[test]
    fn a_table_has_a_row_for_each_scenario_and_a_column_for_each_daemon() {
        let all = [
            run(Target::Causeway, Some(0.3)),
            run(Target::Causeway, Some(0.2)),
            run(Target::Causeway, Some(0.25)),
            run(Target::Bird, Some(0.5)),
            run(Target::Frr, None),
        ];
        let text = tables(&all);
        assert!(text.contains("| scenario | Causeway | BIRD | FRR |\n|---|---|---|---|\n"), "{text}");
        let row = "10 to an attribute set → monitor | 0.250 (0.200 – 0.300) | 0.500 | 0 of 1 complete |";
        assert!(text.contains(row), "{text}");
        assert!(text.contains("**Memory a path, bytes**") && text.contains("| 10 |"), "{text}");
        assert!(!text.contains("Two cores"), "{text}");
    }
}
