//! Where a run takes place: a network namespace of its own, the cores of this machine, and what the kernel allows. Not pure.
//!
//! The namespace belongs to the process that runs one measurement and to the daemon it starts; it ends with them.

use std::fs;
use std::net::Ipv4Addr;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sched::{CloneFlags, CpuSet, sched_setaffinity, unshare};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::Pid;

use crate::addresses::{DAEMON, PORT, SUBNET};
use crate::usage;

/// Name of the daemon's interface.
pub const INTERFACE: &str = "lan0";

/// Enters a fresh network namespace in which the daemon's subnet is on an interface and every address of it is local.
///
/// # Errors
/// Where this process may not (it needs root), or `ip` fails.
pub fn enter_namespace() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNET).context("a network namespace (needs root)")?;
    let length = SUBNET.split('/').nth(1).unwrap_or("16");
    for arguments in [
        "link set lo up".to_owned(),
        format!("link add {INTERFACE} type veth peer name lan1"),
        format!("address add {DAEMON}/{length} dev {INTERFACE}"),
        format!("link set {INTERFACE} up"),
        "link set lan1 up".to_owned(),
        format!("route add local {SUBNET} dev lo table local"),
    ] {
        let status = Command::new("ip").args(arguments.split(' ')).status().context("ip")?;
        ensure!(status.success(), "ip {arguments}");
    }
    Ok(())
}

/// Waits until somebody in this namespace listens at the port of BGP.
///
/// # Errors
/// Where nobody does within the time.
pub fn wait_for_listener(patience: Duration) -> Result<()> {
    let end = Instant::now() + patience;
    while !is_listened_at() {
        if Instant::now() >= end {
            bail!("nobody listens at port {PORT}");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

fn is_listened_at() -> bool {
    let local = format!(":{PORT:04X}");
    ["tcp", "tcp6"].iter().any(|table| {
        let text = fs::read_to_string(format!("/proc/thread-self/net/{table}")).unwrap_or_default();
        text.lines().any(|line| {
            let mut fields = line.split_whitespace().skip(1);
            fields.next().is_some_and(|address| address.ends_with(&local)) && fields.nth(1) == Some("0A")
        })
    })
}

/// The daemon still has its end of the session with this peer. Its kernel may keep a closed one for a while.
#[must_use]
pub fn has_session(peer: Ipv4Addr) -> bool {
    let text = fs::read_to_string("/proc/thread-self/net/tcp").unwrap_or_default();
    let local = format!("{:08X}:{PORT:04X}", u32::from_ne_bytes(DAEMON.octets()));
    let remote = format!("{:08X}:", u32::from_ne_bytes(peer.octets()));
    text.lines().any(|line| {
        let mut fields = line.split_whitespace().skip(1);
        fields.next() == Some(&local)
            && fields.next().is_some_and(|address| address.starts_with(&remote))
            && fields.next() == Some("01")
    })
}

/// Waits until the machine does nothing else, as far as it ever does.
///
/// # Errors
/// Where `/proc/stat` cannot be read.
pub fn wait_for_quiet(patience: Duration) -> Result<()> {
    let end = Instant::now() + patience;
    let look = Duration::from_millis(300);
    while Instant::now() < end {
        let before = usage::machine_busy()?;
        std::thread::sleep(look);
        if usage::machine_busy()? - before < look / 10 {
            break;
        }
    }
    Ok(())
}

/// Binds this process, and what it starts from now on, to these cores; those this machine lacks are left out.
///
/// # Errors
/// Where none of them is there.
pub fn pin(cores: &[usize]) -> Result<()> {
    let mut set = CpuSet::new();
    let there = std::thread::available_parallelism().map_or(1, usize::from);
    for core in cores.iter().filter(|core| **core < there.max(2)) {
        set.set(*core)?;
    }
    sched_setaffinity(Pid::from_raw(0), &set).with_context(|| format!("binding to the cores {cores:?}"))
}

/// Lifts the limit on open files as far as it goes, for this process and what it starts.
///
/// # Errors
/// Where the kernel refuses.
pub fn lift_file_limit() -> Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).context("limit of open files")
}
