//! A user-mode Linux guest: another kernel over this machine's files, for device kinds this machine's kernel lacks.
//!
//! Owner of a guest's life. [`run`] boots Debian's `linux.uml`, [`init`] is its process 1 (`causeway-lab guest-init`): it mounts
//! what a system has, loads modules, runs one command, writes its exit code beside its output and powers off. The guest sees the
//! machine's files as they are (hostfs) and has `/run` and `/dev` of its own; its kernel has one processor and no network.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sys::reboot::{RebootMode, reboot};
use serde::{Deserialize, Serialize};

/// Set in the guest.
pub const INSIDE: &str = "CAUSEWAY_GUEST";

const KERNEL: &str = "/usr/bin/linux.uml";
const MODULES: &str = "/usr/lib/uml/modules";
const COMPLETE_STATE: &str = include_str!("../guest/xstate.c");

/// What runs in a guest, and how.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Job {
    /// Command line.
    pub command: Vec<String>,
    /// Environment of the command, besides [`INSIDE`].
    pub env: BTreeMap<String, String>,
    /// Kernel modules, in the order of loading.
    pub modules: Vec<String>,
    /// Memory, MiB.
    pub memory: u32,
    /// The guest is killed after this time.
    pub bound: Duration,
}

/// True in a guest.
#[must_use]
pub fn is_inside() -> bool {
    std::env::var_os(INSIDE).is_some()
}

/// Boots a guest with `lab_binary` as process 1, hands what the command writes to `output` as it comes, and returns the command's
/// exit code.
///
/// # Errors
/// Where the guest cannot boot or does not end in time, with the end of its console.
pub fn run(job: &Job, lab_binary: &Path, output: &mut dyn Write) -> Result<i32> {
    for (file, package) in [(KERNEL, "user-mode-linux"), (MODULES, "user-mode-linux")] {
        ensure!(
            Path::new(file).exists(),
            "{file} is missing (Debian package {package}): `make deps` installs it"
        );
    }
    let folder = Folder::new()?;
    let dir = &folder.0;
    fs::write(dir.join("job.json"), serde_json::to_vec_pretty(job)?)?;
    fs::write(dir.join("out"), b"")?;
    let preload = compile(dir)?;
    let console = fs::File::create(dir.join("console"))?;
    let mut guest = Running(
        Command::new("timeout")
            .args(["-k", "2", &job.bound.as_secs().to_string(), KERNEL])
            .arg(format!("mem={}M", job.memory))
            .args([
                "root=none",
                "rootfstype=hostfs",
                "rootflags=/",
                "rw",
                "con=null",
                "con0=null,fd:1",
                "quiet",
            ])
            .arg(format!("uml_dir={}", dir.display()))
            .arg("umid=guest")
            .arg(format!("init={}", lab_binary.display()))
            .args(["--", "guest-init"])
            .arg(dir)
            .env("LD_PRELOAD", preload)
            .stdin(Stdio::null())
            .stdout(console.try_clone()?)
            .stderr(console)
            .spawn()
            .context("starting the guest (timeout of coreutils)")?,
    );
    let mut written = fs::File::open(dir.join("out"))?;
    let status = loop {
        let ended = guest.0.try_wait()?;
        // What was written before the end is read after it was seen.
        let mut bytes = Vec::new();
        written.read_to_end(&mut bytes)?;
        output.write_all(&bytes)?;
        if let Some(status) = ended {
            break status;
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    match fs::read_to_string(dir.join("code")) {
        Ok(code) => code.trim().parse().with_context(|| format!("the guest's exit code is `{code}`")),
        Err(_) => {
            let console = fs::read(dir.join("console")).unwrap_or_default();
            let console = String::from_utf8_lossy(&console).into_owned();
            let lines: Vec<&str> = console.lines().collect();
            let end = lines[lines.len().saturating_sub(30)..].join("\n");
            let why = if status.code() == Some(124) {
                format!("was not done after {} s", job.bound.as_secs())
            } else {
                format!("ended with {status} and left no exit code")
            };
            bail!("the user-mode Linux guest {why}; the end of its console:\n{end}")
        }
    }
}

/// Builds what is preloaded into the guest's kernel.
fn compile(dir: &Path) -> Result<PathBuf> {
    let (source, library) = (dir.join("xstate.c"), dir.join("xstate.so"));
    fs::write(&source, COMPLETE_STATE)?;
    let done = Command::new("cc")
        .args(["-O2", "-Wall", "-shared", "-fPIC", "-o"])
        .args([&library, &source])
        .output()
        .context("cc (package build-essential)")?;
    ensure!(done.status.success(), "cc: {}", String::from_utf8_lossy(&done.stderr).trim());
    Ok(library)
}

/// The job's folder; it goes with the job.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name =
            format!("causeway-guest-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        // Not below /run, which the guest has of its own.
        let dir = Path::new("/var/tmp").join(name);
        fs::create_dir(&dir).with_context(|| format!("{}", dir.display()))?;
        Ok(Self(dir))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // A folder that stays is litter, not a failure.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The guest's process, killed where nobody waits for it any more.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        if let Ok(None) = self.0.try_wait() {
            // `timeout` hands SIGTERM on to the guest and all its processes.
            let _ = nix::sys::signal::kill(
                nix::unistd::Pid::from_raw(self.0.id() as i32),
                nix::sys::signal::Signal::SIGTERM,
            );
            let _ = self.0.wait();
        }
    }
}

/// Process 1 of a guest: never returns, for the kernel ends with it.
pub fn init(dir: &Path) -> ! {
    let code = match inside(dir) {
        Ok(code) => code,
        Err(error) => {
            if let Ok(mut out) = fs::OpenOptions::new().append(true).open(dir.join("out")) {
                // Whoever started the guest sees the code in any case.
                let _ = writeln!(out, "guest: {error:#}");
            }
            125
        }
    };
    let written = fs::write(dir.join("code.new"), code.to_string())
        .and_then(|()| fs::rename(dir.join("code.new"), dir.join("code")));
    if let Err(error) = written {
        eprintln!("guest: writing the exit code: {error}");
    }
    nix::unistd::sync();
    loop {
        // It does not return where it works.
        let _ = reboot(RebootMode::RB_POWER_OFF);
        std::thread::sleep(Duration::from_secs(1));
    }
}

fn inside(dir: &Path) -> Result<i32> {
    ensure!(std::process::id() == 1, "`causeway-lab guest-init` is process 1 of a user-mode Linux guest");
    let job: Job = serde_json::from_slice(&fs::read(dir.join("job.json")).context("job.json")?)?;
    for (kind, target) in [
        ("proc", "/proc"),
        ("sysfs", "/sys"),
        ("tmpfs", "/run"),
        ("tmpfs", "/run/tmp"),
        ("devtmpfs", "/dev"),
        ("devpts", "/dev/pts"),
        ("tmpfs", "/dev/shm"),
    ] {
        fs::create_dir_all(target).with_context(|| target.to_owned())?;
        match mount(Some("guest"), target, Some(kind), MsFlags::empty(), None::<&str>) {
            // The kernel mounts its /dev by itself.
            Ok(()) | Err(Errno::EBUSY) => {}
            Err(error) => return Err(error).with_context(|| format!("mounting {target}")),
        }
    }
    fs::create_dir_all("/run/modules/lib")?;
    symlink(MODULES, "/run/modules/lib/modules").context("/run/modules")?;
    let path = [("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")];
    for module in &job.modules {
        let done = Command::new("modprobe")
            .args(["-d", "/run/modules", module])
            .envs(path)
            .output()
            .context("modprobe (package kmod)")?;
        let said = String::from_utf8_lossy(&done.stderr);
        ensure!(done.status.success(), "modprobe {module}: {}", said.trim());
    }
    let done = Command::new("ip").args(["link", "set", "lo", "up"]).envs(path).status().context("ip")?;
    ensure!(done.success(), "`ip link set lo up` failed");

    let out = fs::OpenOptions::new().append(true).open(dir.join("out"))?;
    let (program, args) = job.command.split_first().context("no command")?;
    let status = Command::new(program)
        .args(args)
        .env_clear()
        .envs(path)
        .envs(&job.env)
        .envs([(INSIDE, "1"), ("TMPDIR", "/run/tmp")])
        .stdin(Stdio::null())
        .stdout(out.try_clone()?)
        .stderr(out)
        .status()
        .with_context(|| program.clone())?;
    Ok(status.code().unwrap_or(124))
}
