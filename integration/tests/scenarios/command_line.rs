//! `causeway-lab` as it is typed: up, show, exec, down, and what it says when it cannot.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Result, ensure};

fn topology() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios/topologies/peers/peers.clab.yml")
}

/// Runs `causeway-lab ARGS` under a prefix of its own.
fn lab(args: &[&str]) -> Result<Output> {
    let prefix = format!("cwt-{}-cli", std::process::id());
    let mut command = Command::new(env!("CARGO_BIN_EXE_causeway-lab"));
    Ok(command.args(["--prefix", &prefix]).args(args).output()?)
}

fn succeeds(args: &[&str]) -> Result<String> {
    let output = lab(args)?;
    ensure!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

fn fails(args: &[&str], code: i32, with: &str) -> Result<()> {
    let output = lab(args)?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.code() == Some(code), "{args:?} ended with {}: {said}", output.status);
    ensure!(said.contains(with), "{args:?} does not say `{with}`: {said}");
    Ok(())
}

#[test]
fn a_lab_is_built_shown_entered_and_taken_down() {
    let file = topology().display().to_string();
    let story = || -> Result<()> {
        fails(&["show", &file], 1, "is not up")?;
        succeeds(&["up", &file])?;
        fails(&["up", &file], 1, "is up already")?;
        let shown = succeeds(&["show", &file])?;
        ensure!(shown.contains("zebra bgpd staticd"), "{shown}");
        ensure!(succeeds(&["exec", &file, "host", "--", "hostname"])? == "host\n");
        fails(&["exec", &file, "host", "--", "sh", "-c", "exit 7"], 7, "")?;
        fails(&["exec", &file, "nobody", "--", "true"], 1, "there is no `nobody`")?;
        Ok(())
    };
    let told = story();
    let down = succeeds(&["down", &file]).and_then(|_| succeeds(&["down", &file]));
    told.unwrap();
    down.unwrap();
    fails(&["show", &file], 1, "is not up").unwrap();
}

#[test]
fn what_cannot_be_built_is_said_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("t.clab.yml");
    let name = file.display().to_string();
    let write = |image: &str, more: &str| {
        let text = format!("name: t\ntopology:\n  nodes:\n    a: {{kind: linux, image: {image}{more}}}\n");
        std::fs::write(&file, text).unwrap();
    };
    write("ceos:4.32", "");
    fails(&["up", &name], 1, "nothing here can stand in for image `ceos:4.32`").unwrap();
    write("alpine:3", ", memory: 1G");
    fails(&["up", &name], 1, "t.clab.yml:4:").unwrap();
    fails(&["up", "/nowhere.clab.yml"], 1, "/nowhere.clab.yml").unwrap();
    write("alpine:3", ", exec: [\"false\"]");
    fails(&["up", &name], 1, "exec: false").unwrap();
    fails(&["show", &name], 1, "is not up").unwrap();
}
