//! Process 1 of a node: makes the node's own view of files, then holds its namespaces and reaps.
//!
//! Runs as `causeway-lab init SPEC` in namespaces that `namespace::spawn_init` made. The node sees this machine's files through
//! an overlay (what it writes is its own and goes with it), with its own `/proc`, `/sys`, `/run`, `/tmp`. When this process ends
//! the kernel ends every other process of the node.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use serde::{Deserialize, Serialize};

/// What the init of a node has to set up.
#[derive(Debug, Serialize, Deserialize)]
pub struct InitSpec {
    /// Host name.
    pub hostname: String,
    /// Folder of this machine that becomes `/run` inside.
    pub run: PathBuf,
    /// Empty folder of this machine under which the node's own files are mounted.
    pub files: PathBuf,
    /// `(source, target, read only)`, sources absolute and without symbolic links.
    pub binds: Vec<(PathBuf, PathBuf, bool)>,
    /// Sysctls, dotted name to value.
    pub sysctls: BTreeMap<String, String>,
    /// End when standard input does, which is when the lab's owner is gone.
    pub tied: bool,
}

/// Containerlab's own defaults for the sysctls of a container.
const DEFAULT_SYSCTLS: [(&str, &str); 8] = [
    ("net.ipv4.ip_forward", "0"),
    ("net.ipv6.conf.all.disable_ipv6", "0"),
    ("net.ipv6.conf.default.disable_ipv6", "0"),
    ("net.ipv6.conf.lo.disable_ipv6", "0"),
    ("net.ipv6.conf.all.accept_dad", "0"),
    ("net.ipv6.conf.default.accept_dad", "0"),
    ("net.ipv6.conf.all.autoconf", "0"),
    ("net.ipv6.conf.default.autoconf", "0"),
];

const OLD_ROOT: &str = "/.old-root";

/// Sets the node up, says `ready` on standard output, and stays.
///
/// # Errors
/// Anything that keeps the node from coming up.
pub fn run(spec_file: &Path) -> Result<()> {
    let text = fs::read(spec_file).with_context(|| format!("{}", spec_file.display()))?;
    let spec: InitSpec = serde_json::from_slice(&text).with_context(|| format!("{}", spec_file.display()))?;
    ensure!(
        std::process::id() == 1,
        "`causeway-lab init` is started by `causeway-lab up`, in namespaces of its own"
    );

    let mut signals = SigSet::empty();
    signals.add(Signal::SIGCHLD);
    signals.add(Signal::SIGTERM);
    signals.thread_block().context("blocking signals")?;

    make_root(&spec)?;
    for (source, target, read_only) in &spec.binds {
        bind(source, target, *read_only)?;
    }
    umount2(OLD_ROOT, MntFlags::MNT_DETACH).context("leaving the old root")?;
    set_up_network(&spec)?;

    let mut out = std::io::stdout();
    out.write_all(b"ready\n").and_then(|()| out.flush()).context("reporting that the node is ready")?;
    if spec.tied {
        std::thread::spawn(|| {
            let mut byte = [0u8; 1];
            while matches!(std::io::stdin().read(&mut byte), Ok(n) if n > 0) {}
            std::process::exit(0);
        });
    }
    loop {
        if signals.wait().context("waiting for signals")? == Signal::SIGTERM {
            return Ok(());
        }
        while let Ok(status) = waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            if status == WaitStatus::StillAlive {
                break;
            }
        }
    }
}

/// Mounts the node's files and makes them the root; the old root stays at [`OLD_ROOT`] for the binds.
fn make_root(spec: &InitSpec) -> Result<()> {
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_SLAVE, none).context("making mounts private")?;
    let files = &spec.files;
    mount(Some("causeway-lab"), files, Some("tmpfs"), MsFlags::empty(), Some("mode=755"))
        .with_context(|| format!("tmpfs on {}", files.display()))?;
    for part in ["upper", "work", "root"] {
        fs::create_dir(files.join(part)).with_context(|| format!("{}", files.display()))?;
    }
    let options = format!("lowerdir=/,upperdir={0}/upper,workdir={0}/work", files.display());
    let root = files.join("root");
    mount(Some("overlay"), &root, Some("overlay"), MsFlags::empty(), Some(options.as_str()))
        .context("overlay over this machine's files (the kernel needs overlayfs)")?;

    mount(Some("proc"), &root.join("proc"), Some("proc"), MsFlags::empty(), none)
        .context("mounting /proc")?;
    mount(Some("sysfs"), &root.join("sys"), Some("sysfs"), MsFlags::empty(), none)
        .context("mounting /sys")?;
    mount(Some("/dev"), &root.join("dev"), none, MsFlags::MS_BIND | MsFlags::MS_REC, none)
        .context("binding /dev")?;
    mount(Some(&spec.run), &root.join("run"), none, MsFlags::MS_BIND, none).context("binding /run")?;
    // Pods come later as names in /run/netns; the slave mount shows them inside as they appear.
    let names = root.join("run/netns");
    fs::create_dir_all(&names).context("/run/netns")?;
    mount(Some("/run/netns"), &names, none, MsFlags::MS_BIND | MsFlags::MS_REC, none)
        .context("binding /run/netns")?;
    for (dir, mode) in [("tmp", "mode=1777"), ("var/tmp", "mode=1777")] {
        mount(Some("causeway-lab"), &root.join(dir), Some("tmpfs"), MsFlags::empty(), Some(mode))
            .with_context(|| format!("tmpfs on /{dir}"))?;
    }
    let old_root = root.join(OLD_ROOT.trim_start_matches('/'));
    fs::create_dir(&old_root).context("making room for the old root")?;
    nix::unistd::pivot_root(&root, &old_root).context("pivot_root")?;
    std::env::set_current_dir("/").context("entering the new root")?;
    Ok(())
}

fn bind(source: &Path, target: &Path, read_only: bool) -> Result<()> {
    let none: Option<&str> = None;
    let what = || format!("bind of {} to {}", source.display(), target.display());
    let from = Path::new(OLD_ROOT).join(source.strip_prefix("/").unwrap_or(source));
    let metadata = fs::metadata(&from).with_context(what)?;
    if metadata.is_dir() {
        fs::create_dir_all(target).with_context(what)?;
    } else if !target.exists() {
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent).with_context(what)?;
        }
        fs::write(target, b"").with_context(what)?;
        fs::set_permissions(target, fs::Permissions::from_mode(0o644)).with_context(what)?;
    }
    mount(Some(&from), target, none, MsFlags::MS_BIND | MsFlags::MS_REC, none).with_context(what)?;
    if read_only {
        let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
        mount(none, target, none, flags, none).with_context(what)?;
    }
    Ok(())
}

fn set_up_network(spec: &InitSpec) -> Result<()> {
    fs::write("/proc/sys/kernel/hostname", &spec.hostname).context("host name")?;
    fs::write("/etc/hostname", format!("{}\n", spec.hostname)).context("/etc/hostname")?;
    fs::write("/etc/hosts", format!("127.0.0.1 localhost\n::1 localhost\n127.0.1.1 {}\n", spec.hostname))
        .context("/etc/hosts")?;
    let up =
        Command::new("ip").args(["link", "set", "lo", "up"]).status().context("ip (package iproute2)")?;
    ensure!(up.success(), "`ip link set lo up` failed");
    let defaults = DEFAULT_SYSCTLS.iter().map(|(key, value)| (*key, *value));
    let own = spec.sysctls.iter().map(|(key, value)| (key.as_str(), value.as_str()));
    for (key, value) in defaults.chain(own) {
        let path = Path::new("/proc/sys").join(key.replace('.', "/"));
        fs::write(&path, value).with_context(|| format!("sysctl {key}={value}"))?;
    }
    Ok(())
}
