//! The tool itself, at a small size: that Causeway passes, and that what is wrong is noticed. Needs root and, for the first,
//! Causeway's binaries beside this tool's or in `CAUSEWAY_BIN_DIR`.

use std::process::Command;

use serde_json::Value;

/// Runs the tool; whether it was content, and what it wrote.
fn run(arguments: &str) -> (bool, Vec<Value>) {
    let folder = tempfile::tempdir().expect("a folder");
    let json = folder.path().join("runs.json");
    let output = Command::new(env!("CARGO_BIN_EXE_causeway-bench"))
        .args(["run", "--runs", "1", "--settle", "0"])
        .args(arguments.split(' '))
        .arg("--json")
        .arg(&json)
        .output()
        .expect("the tool runs");
    let text = std::fs::read_to_string(&json).unwrap_or_default();
    let runs = serde_json::from_str(&text)
        .unwrap_or_else(|_| panic!("no result: {}", String::from_utf8_lossy(&output.stderr)));
    (output.status.success(), runs)
}

/// The relay with this fault in this scenario: what is said about it.
fn verdict_on(fault: &str, scenario: &str) -> String {
    let (good, runs) =
        run(&format!("--scenario {scenario} --daemons relay --scale 0.002 --limit 2 --fault {fault}"));
    assert!(!good && runs.len() == 1, "{runs:?}");
    let outcome = &runs[0]["outcome"];
    assert_eq!(outcome["end"], "wrong", "{outcome}");
    outcome["why"].as_str().expect("a reason").to_owned()
}

#[test]
fn causeway_and_the_relay_pass() {
    let (good, runs) =
        run("--scenario A,B,C',E,S1000,random --daemons causeway,relay --scale 0.01 --limit 60");
    let seen: Vec<(&str, &str)> =
        runs.iter().map(|run| (run["scenario"].as_str().unwrap(), run["daemon"].as_str().unwrap())).collect();
    assert_eq!(seen.len(), 13, "two daemons each, but random, which is no task for a relay: {seen:?}");
    let bad: Vec<&Value> = runs.iter().filter(|run| run["outcome"]["end"] != "complete").collect();
    assert!(good && bad.is_empty(), "{bad:?}");
    assert!(runs.iter().all(|run| run["seconds"].as_f64().is_some_and(|seconds| seconds > 0.0)), "{runs:?}");
}

#[test]
fn a_prefix_that_is_missing_is_noticed() {
    let why = verdict_on("drop", "E-warm");
    assert!(why.contains("misses"), "{why}");
    let why = verdict_on("drop", "B");
    assert!(why.contains("incomplete"), "{why}");
}

#[test]
fn a_prefix_that_nobody_sent_is_noticed() {
    let why = verdict_on("extra", "A");
    assert!(why.contains("which nobody sent"), "{why}");
}

#[test]
fn a_path_that_comes_back_is_noticed() {
    let why = verdict_on("back", "E-warm");
    assert!(why.contains("got back what it sent itself"), "{why}");
}

#[test]
fn a_wrong_path_is_noticed() {
    let why = verdict_on("wrong-path", "A");
    assert!(why.contains("instead of"), "{why}");
}

/// One measurement of routes into the kernel: its figures.
fn into_the_kernel(step: &str, subject: &str) -> Value {
    let folder = tempfile::tempdir().expect("a folder");
    let output = Command::new(env!("CARGO_BIN_EXE_causeway-bench"))
        .args(["fib-measure", "--step", step, "--subject", subject])
        .args("--family v4 --routes 2000 --seconds 1 --limit 60 --folder".split(' '))
        .arg(folder.path())
        .output()
        .expect("the tool runs");
    let figures: Value = serde_json::from_slice(&output.stdout).expect("figures");
    assert_eq!(figures["failed"], Value::Null, "{step} with {subject}");
    figures["values"].clone()
}

#[test]
fn routes_into_the_kernel_are_measured() {
    for subject in ["loop", "loop-object", "causeway", "bird"] {
        let values = into_the_kernel("load", subject);
        assert!(values["routes a second"].as_f64().is_some_and(|rate| rate > 0.0), "{subject}: {values}");
    }
    for step in ["wire", "carrier", "down", "session"] {
        let values = into_the_kernel(step, "causeway");
        assert!(values["seconds"].as_f64().is_some_and(|seconds| seconds > 0.0), "{step}: {values}");
    }
}

#[test]
fn a_full_check_that_finds_nothing_writes_nothing() {
    let values = into_the_kernel("resync", "causeway");
    assert_eq!(values["writes"].as_f64(), Some(0.0), "{values}");
    assert!(values["worst ms of a change meanwhile"].as_f64().is_some_and(|worst| worst > 0.0), "{values}");
}

#[test]
fn each_flap_is_answered() {
    let values = into_the_kernel("flap", "causeway");
    assert!(values["CPU microseconds a flap"].as_f64().is_some_and(|cost| cost > 0.0), "{values}");
    assert!(values["answers a flap"].as_f64().is_some_and(|answers| answers > 0.0), "{values}");
}
