//! Runs the cases of a chapter, several at once, and says at the end which failed and why.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use anyhow::Result;

/// What a case does.
type Run = Box<dyn Fn(&Site) -> Result<()> + Send + Sync>;

/// A case: a name that begins with the section it holds, and what to do.
pub struct Case {
    pub name: String,
    pub run: Run,
}

/// A case out of a function or closure.
pub fn case(name: impl Into<String>, run: impl Fn(&Site) -> Result<()> + Send + Sync + 'static) -> Case {
    Case { name: name.into(), run: Box::new(run) }
}

/// Where a case takes place: a subnet of its own, in which the speaker has host number 1.
#[derive(Clone, Copy, Debug)]
pub struct Site {
    number: u16,
}

impl Site {
    /// The address of a host: 1 is the speaker.
    pub fn v4(&self, host: u8) -> Ipv4Addr {
        let [high, low] = self.number.to_be_bytes();
        Ipv4Addr::new(10, 64 + high, low, host)
    }

    /// The IPv6 address of a host.
    pub fn v6(&self, host: u8) -> Ipv6Addr {
        Ipv6Addr::new(0xfd77, self.number, 0, 0, 0, 0, 0, host.into())
    }
}

/// How many cases of a chapter run at once: they mostly wait.
const AT_ONCE: usize = 6;

/// Runs a chapter in a network namespace of its own.
pub fn run(chapter: &str, cases: Vec<Case>) {
    enter_namespace();
    let wanted = std::env::var("RFC_CASE").unwrap_or_default();
    let cases: Vec<Case> = cases.into_iter().filter(|case| case.name.contains(&wanted)).collect();
    let next = AtomicUsize::new(0);
    let failures: Mutex<Vec<String>> = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            // A thread inherits the namespace of the one that starts it.
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(case) = cases.get(at) else { return };
                    let started = Instant::now();
                    let outcome = (case.run)(&Site { number: at as u16 + 1 });
                    let took = started.elapsed().as_secs_f32();
                    if let Err(error) = outcome {
                        let line = format!("{chapter}: {} ({took:.1} s)\n      {error:#}", case.name);
                        failures.lock().unwrap().push(line);
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap();
    println!("{chapter}: {} of {} cases hold", cases.len() - failures.len(), cases.len());
    assert!(failures.is_empty(), "\n{} failed:\n  {}\n", failures.len(), failures.join("\n  "));
}

fn enter_namespace() {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("a network namespace (needs root)");
    std::fs::write("/proc/sys/net/ipv6/ip_nonlocal_bind", "1").expect("the sysctl net.ipv6.ip_nonlocal_bind");
    for arguments in [
        "link set lo up",
        "route add local 10.0.0.0/8 dev lo table local",
        "-6 route add local fd00::/8 dev lo table local",
    ] {
        let status = Command::new("ip").args(arguments.split(' ')).status().expect("ip runs");
        assert!(status.success(), "ip {arguments}");
    }
}

/// The speaker under test: `RFC_SPEAKER`, or the one built beside this test.
pub fn speaker_binary() -> PathBuf {
    if let Some(path) = std::env::var_os("RFC_SPEAKER") {
        return path.into();
    }
    let test = std::env::current_exe().expect("the test's own path");
    let folder = test.parent().and_then(|deps| deps.parent()).expect("the target folder");
    let binary = folder.join("causeway-bgpd");
    assert!(binary.exists(), "{} is missing: cargo build -p causeway-bgpd", binary.display());
    binary
}
