//! The links of a lab and the names of its network namespaces.

use std::fs;
use std::io::Write;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::topology::Link;

const NAMES: &str = "/run/netns";

/// Makes `/run/netns` a shared mount, as `ip netns add` does, so that names made later appear inside nodes too.
///
/// # Errors
/// Where this process may not mount.
pub fn share_names() -> Result<()> {
    let none: Option<&str> = None;
    fs::create_dir_all(NAMES).context(NAMES)?;
    let dir = fs::File::open(NAMES).context(NAMES)?;
    // Several labs may start at once; iproute2 takes the same lock.
    let _lock =
        nix::fcntl::Flock::lock(dir.as_fd().try_clone_to_owned()?, nix::fcntl::FlockArg::LockExclusive)
            .map_err(|(_, error)| error)
            .context("locking /run/netns")?;
    let share = || mount(none, NAMES, none, MsFlags::MS_SHARED | MsFlags::MS_REC, none);
    if share().is_err() {
        mount(Some(NAMES), NAMES, none, MsFlags::MS_BIND | MsFlags::MS_REC, none)
            .context("binding /run/netns")?;
        share().context("sharing /run/netns")?;
    }
    Ok(())
}

/// The file of a network namespace's name.
#[must_use]
pub fn name_file(long_name: &str) -> PathBuf {
    Path::new(NAMES).join(long_name)
}

/// Gives the network namespace of a process a name for `ip netns`.
///
/// # Errors
/// Where the name is taken or this process may not mount.
pub fn name_network(long_name: &str, pid: i32) -> Result<()> {
    let file = name_file(long_name);
    fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&file)
        .with_context(|| format!("{}", file.display()))?;
    let source = format!("/proc/{pid}/ns/net");
    let none: Option<&str> = None;
    mount(Some(source.as_str()), &file, none, MsFlags::MS_BIND, none)
        .with_context(|| format!("naming the network namespace {long_name}"))
}

/// Takes a name away; one that is not there is no error.
///
/// # Errors
/// Where this process may not unmount.
pub fn forget_name(long_name: &str) -> Result<()> {
    let file = name_file(long_name);
    // One name may have been mounted over another; EINVAL says that none is left.
    while umount2(&file, MntFlags::MNT_DETACH).is_ok() {}
    match fs::remove_file(&file) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("{}", file.display()))
        }
        _ => Ok(()),
    }
}

/// Makes all links of a topology in one go and sets both ends up. `init` tells a node's process 1.
///
/// # Errors
/// What `ip` says about the first link that could not be made.
pub fn make_links(links: &[Link], init: impl Fn(&str) -> Option<i32>) -> Result<()> {
    let mut create = String::new();
    for link in links {
        let [a, b] = &link.ends;
        let pid = |node: &str| init(node).with_context(|| format!("node {node} is not up"));
        let mac =
            |mac: &Option<String>| mac.as_ref().map(|mac| format!(" address {mac}")).unwrap_or_default();
        create += &format!(
            "link add {}{} mtu {mtu} netns {} type veth peer name {}{} mtu {mtu} netns {}\n",
            a.interface,
            mac(&a.mac),
            pid(&a.node)?,
            b.interface,
            mac(&b.mac),
            pid(&b.node)?,
            mtu = link.mtu,
        );
    }
    batch(Command::new("ip"), &create)
}

/// Runs `ip -batch -` with the given lines.
///
/// # Errors
/// What `ip` says.
pub fn batch(mut ip: Command, lines: &str) -> Result<()> {
    let mut child = ip
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("ip (package iproute2)")?;
    match child.stdin.take() {
        Some(mut stdin) => stdin.write_all(lines.as_bytes()).context("writing to ip")?,
        None => bail!("ip has no standard input"),
    }
    let output = child.wait_with_output().context("waiting for ip")?;
    ensure!(output.status.success(), "ip: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}
