//! The rules of the house that a machine can check: who may import whom, and what licences may enter a shipped binary.

mod imports;
mod licences;

use std::process::Command;

/// Runs cargo on this workspace and returns its standard output.
fn cargo(args: &[&str]) -> String {
    let output = Command::new(env!("CARGO"))
        .args(args)
        .args(["--locked", "--manifest-path"])
        .arg(workspace_file("Cargo.toml"))
        .output()
        .expect("cargo starts");
    assert!(output.status.success(), "cargo {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("cargo writes UTF-8")
}

/// A file of the workspace's root.
fn workspace_file(name: &str) -> String {
    format!("{}/../{name}", env!("CARGO_MANIFEST_DIR"))
}
