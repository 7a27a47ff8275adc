//! A scenario's stage: a copy of a topology folder, built under a prefix of its own.
//!
//! Our binaries are those beside the tests' own `causeway-lab` (`cargo build --workspace` puts them there), or those of
//! `CAUSEWAY_BIN_DIR`.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Condvar, Mutex, Once, PoisonError};

use anyhow::{Context, Result, ensure};
use causeway_integration::lab::{Lab, Options, sweep};
use causeway_integration::topology;

/// Labs that may be up at once: each is a dozen daemons.
const AT_ONCE: u32 = 3;

static RUNNING: (Mutex<u32>, Condvar) = (Mutex::new(0), Condvar::new());

/// The right to have labs up, given back when dropped.
pub struct Permit(u32);

impl Permit {
    /// Waits until this many more labs may be up.
    pub fn take(share: u32) -> Self {
        let (count, freed) = &RUNNING;
        let mut running = count.lock().unwrap_or_else(PoisonError::into_inner);
        while *running + share > AT_ONCE {
            running = freed.wait(running).unwrap_or_else(PoisonError::into_inner);
        }
        *running += share;
        Self(share)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let (count, freed) = &RUNNING;
        *count.lock().unwrap_or_else(PoisonError::into_inner) -= self.0;
        freed.notify_all();
    }
}

/// A lab with the folder it was built from, which a scenario may change.
pub struct Scene {
    /// The lab.
    pub lab: Lab,
    folder: tempfile::TempDir,
}

impl Scene {
    /// The folder of documents every node reads.
    pub fn documents(&self) -> PathBuf {
        self.folder.path().join("documents")
    }
}

/// Folder of our binaries.
pub fn bin_dir() -> PathBuf {
    let beside = Path::new(env!("CARGO_BIN_EXE_causeway-lab")).parent().map(Path::to_owned);
    std::env::var_os("CAUSEWAY_BIN_DIR").map(PathBuf::from).or(beside).unwrap_or_default()
}

/// Folder of a topology: a shipped one, or one of the tests' own.
fn folder_of(name: &str) -> PathBuf {
    let crate_dir = Path::new(env!("CARGO_MANIFEST_DIR"));
    let shipped = crate_dir.join("topologies").join(name);
    if shipped.exists() { shipped } else { crate_dir.join("tests/scenarios/topologies").join(name) }
}

/// Builds the topology, runs the story, takes the lab down; a failure is told with logs.
pub fn play(name: &str, story: impl FnOnce(&Scene) -> Result<()>) {
    play_with_share(name, 1, story);
}

/// As [`play`] with no other lab beside it, for stories that measure time.
pub fn play_alone(name: &str, story: impl FnOnce(&Scene) -> Result<()>) {
    play_with_share(name, AT_ONCE, story);
}

fn play_with_share(name: &str, share: u32, story: impl FnOnce(&Scene) -> Result<()>) {
    static SWEEP: Once = Once::new();
    SWEEP.call_once(|| {
        if let Err(error) = sweep() {
            eprintln!("clearing labs of runs that are over: {error:#}");
        }
    });
    let _permit = Permit::take(share);
    let keep = std::env::var_os("CAUSEWAY_LAB_KEEP").is_some();
    let scene = build(name, keep).unwrap_or_else(|error| panic!("{error:#}"));
    let told = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| story(&scene)));
    let failure = match told {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(format!("{error:#}")),
        Err(_) => Some("an assertion failed, see above".to_owned()),
    };
    if let Some(failure) = failure {
        tell_logs(&scene);
        if keep {
            for place in scene.lab.state().nodes.keys() {
                eprintln!("{place}: {}", scene.lab.enter_line(place));
            }
            eprintln!("files: {}", scene.folder.keep().display());
        } else {
            eprintln!(
                "CAUSEWAY_LAB_KEEP=1 keeps the lab of a failing scenario up and prints how to enter it"
            );
        }
        panic!("{failure}");
    }
    scene.lab.down().unwrap_or_else(|error| panic!("taking the lab down: {error:#}"));
}

fn build(name: &str, keep: bool) -> Result<Scene> {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    ensure!(
        nix::unistd::geteuid().is_root(),
        "scenarios are made of network namespaces: run the tests as root"
    );
    let folder = tempfile::Builder::new().prefix("cwt-").tempdir()?;
    copy(&folder_of(name), folder.path()).with_context(|| format!("copying topology {name}"))?;
    let file = folder.path().join(format!("{name}.clab.yml"));
    let topology = topology::load(&file)?;
    let lab_binary = PathBuf::from(env!("CARGO_BIN_EXE_causeway-lab"));
    let options = Options {
        bin_dir: bin_dir(),
        lab_binary,
        prefix: Some(format!("cwt-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed))),
        tied: !keep,
    };
    let lab = Lab::up(&topology, &file, options, &|_| ())?;
    Ok(Scene { lab, folder })
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    for entry in std::fs::read_dir(from).with_context(|| format!("{}", from.display()))? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            std::fs::create_dir(&target)?;
            copy(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), &target)?;
        }
    }
    Ok(())
}

fn tell_logs(scene: &Scene) {
    let state = scene.lab.state();
    for (node, node_state) in &state.nodes {
        for daemon in &node_state.daemons {
            let ended = if daemon.process.is_alive() { "" } else { ", ended" };
            eprintln!("---- {node}: {}{ended}\n{}", daemon.name, scene.lab.log_tail(node, &daemon.name, 12));
        }
    }
}
