//! Which kernel a story is told on: this machine's, or that of a user-mode Linux guest where this machine's lacks a device kind or
//! has one too many.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use causeway_integration::guest::{self, Job};

use crate::scene::Permit;

/// What every lab needs of a guest's kernel.
const MODULES: [&str; 6] = ["veth", "bridge", "ipv6", "overlay", "vxlan", "af_packet"];

/// Memory of a guest, MiB.
const MEMORY: u32 = 1024;

/// A guest that has not told its story by then never will.
const BOUND: Duration = Duration::from_secs(420);

/// Tells the story of the test `name` on a kernel with IP-in-IP.
pub fn with_ipip(name: &str, story: impl FnOnce()) {
    let modules: Vec<&str> = MODULES.into_iter().chain(["ipip"]).collect();
    tell(name, machine_has_ipip(), &modules, story);
}

/// Tells the story of the test `name` on a kernel without IP-in-IP.
pub fn without_ipip(name: &str, story: impl FnOnce()) {
    tell(name, !machine_has_ipip(), &MODULES, story);
}

fn tell(name: &str, here: bool, modules: &[&str], story: impl FnOnce()) {
    if here || guest::is_inside() {
        return story();
    }
    let _permit = Permit::take(1);
    in_a_guest(name, modules).unwrap_or_else(|error| panic!("{name} in a guest: {error:#}"));
}

/// This test binary again, in a guest, with this one test.
fn in_a_guest(name: &str, modules: &[&str]) -> Result<()> {
    let binary = std::env::current_exe().context("finding the test binary")?;
    let command = [binary.display().to_string().as_str(), name, "--exact", "--nocapture"].map(str::to_owned);
    let passed_on = ["RUST_BACKTRACE", "CAUSEWAY_BIN_DIR"];
    let env: BTreeMap<String, String> =
        passed_on.into_iter().filter_map(|key| Some((key.to_owned(), std::env::var(key).ok()?))).collect();
    let job = Job {
        command: command.to_vec(),
        env,
        modules: modules.iter().map(|module| (*module).to_owned()).collect(),
        memory: MEMORY,
        bound: BOUND,
    };
    let mut told = Told(String::new());
    let code = guest::run(&job, Path::new(env!("CARGO_BIN_EXE_causeway-lab")), &mut told)?;
    ensure!(code == 0, "the test ended with {code}");
    ensure!(told.0.contains("1 passed"), "there is no such test");
    Ok(())
}

/// What the guest says, told on as it comes and kept.
struct Told(String);

impl Write for Told {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let text = String::from_utf8_lossy(bytes);
        eprint!("{text}");
        self.0.push_str(&text);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Whether this machine's kernel can make an IP-in-IP device, asked once in a network namespace that goes with the question.
fn machine_has_ipip() -> bool {
    static ANSWER: OnceLock<bool> = OnceLock::new();
    *ANSWER.get_or_init(|| {
        let made = Command::new("unshare")
            .args(["--net", "ip", "link", "add", "probe", "type", "ipip", "local", "127.0.0.1"])
            .output();
        made.is_ok_and(|made| made.status.success())
    })
}
