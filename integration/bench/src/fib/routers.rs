//! Other routers that put routes into the kernel: BIRD with its kernel protocol, FRR's bgpd with zebra. Not pure.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::unistd::{User, chown};

use super::plan::{SPEAKER, SPEAKER_AS};
use super::process::{PAUSE, START, Speaker, Used, used};
use crate::daemons::Daemon;
use crate::place;

/// The peers, by link.
const PEERS: [&str; 2] = ["192.0.2.2", "198.51.100.2"];

/// BIRD, which takes routes by BGP and puts them into the kernel.
pub struct Bird {
    daemon: Daemon,
    control: PathBuf,
}

impl Bird {
    /// Starts it; with the kernel protocol off where routes are to be gathered first.
    ///
    /// # Errors
    /// Where it does not start.
    pub fn start(folder: &Path, kernel: bool) -> Result<Bird> {
        let config = folder.join("bird.conf");
        let off = if kernel { "" } else { "disabled yes; " };
        let peers: String = PEERS
            .iter()
            .enumerate()
            .map(|(link, peer)| {
                format!(
                    "protocol bgp peer{link} {{ local as {SPEAKER_AS}; neighbor {peer} external; passive; \
                     ipv4 {{ import all; export none; }}; }}\n"
                )
            })
            .collect();
        let text = format!(
            "log stderr {{ warning, error, auth, fatal, bug }};\nrouter id {SPEAKER};\n\
             protocol device {{ }}\nprotocol direct {{ ipv4; }}\n\
             protocol kernel k4 {{ {off}ipv4 {{ export where source = RTS_BGP; }}; }}\n{peers}"
        );
        fs::write(&config, text)?;
        let control = folder.join("bird.ctl");
        let line = format!("/usr/sbin/bird -f -c {} -s {}", config.display(), control.display());
        let mut argv: Vec<String> = line.split(' ').map(str::to_owned).collect();
        argv.extend(["-P".to_owned(), folder.join("bird.pid").display().to_string()]);
        let daemon = Daemon::launch(&argv, folder, "bird.log")?;
        place::wait_for_listener(START).map_err(|error| error.context(daemon.log_tail()))?;
        let bird = Bird { daemon, control };
        let end = Instant::now() + START;
        while bird.ask("show status").is_err() {
            ensure!(Instant::now() < end, "BIRD does not answer: {}", bird.daemon.log_tail());
            std::thread::sleep(PAUSE);
        }
        Ok(bird)
    }

    /// Turns the kernel protocol on.
    ///
    /// # Errors
    /// Where BIRD does not answer.
    pub fn enable_kernel(&self) -> Result<()> {
        self.ask("enable k4").map(drop)
    }

    /// Waits until this many routes came by BGP.
    ///
    /// # Errors
    /// Where they do not come in time.
    pub fn wait_for_routes(&self, routes: usize, deadline: Instant) -> Result<()> {
        loop {
            let text = self.ask("show route count protocol peer0")?;
            let number =
                text.lines().find_map(|line| line.split_once(" of ")?.0.trim().parse::<usize>().ok());
            if number.is_some_and(|number| number >= routes) {
                return Ok(());
            }
            if Instant::now() >= deadline {
                bail!("BIRD has not all routes: {}", text.trim());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn ask(&self, what: &str) -> Result<String> {
        let output = Command::new("birdc")
            .arg("-s")
            .arg(&self.control)
            .args(what.split(' '))
            .output()
            .context("birdc")?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(output.status.success(), "birdc {what}: {text}");
        Ok(text)
    }
}

impl Speaker for Bird {
    fn used(&self) -> Result<Used> {
        used(&[self.daemon.pid()])
    }

    fn writer_cpu(&self) -> Result<f64> {
        self.used().map(|used| used.cpu)
    }

    fn log_tail(&self) -> String {
        self.daemon.log_tail()
    }
}

/// FRR's bgpd, which hands its routes to zebra, which writes them.
pub struct Frr {
    zebra: Daemon,
    bgpd: Daemon,
}

impl Frr {
    /// Starts both.
    ///
    /// # Errors
    /// Where one does not start.
    pub fn start(folder: &Path) -> Result<Frr> {
        let head = "frr defaults traditional\nhostname bench\nlog stdout warnings\n";
        fs::write(folder.join("zebra.conf"), head)?;
        let peers: String = PEERS
            .iter()
            .map(|peer| format!(" neighbor {peer} remote-as external\n neighbor {peer} passive\n"))
            .collect();
        let text = format!(
            "{head}router bgp {SPEAKER_AS}\n bgp router-id {SPEAKER}\n no bgp ebgp-requires-policy\n{peers}"
        );
        fs::write(folder.join("bgpd.conf"), text)?;
        let launch = |name: &str, more: &str| {
            let folder_name = folder.display();
            let line = format!(
                "/usr/lib/frr/{name} -f {folder_name}/{name}.conf -i {folder_name}/{name}.pid \
                 -z {folder_name}/zserv.api --vty_socket {folder_name} -P 0 {more}"
            );
            let argv: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
            Daemon::launch(&argv, folder, &format!("{name}.log"))
        };
        // zebra insists on being its package's user.
        let user = User::from_name("frr")?.context("FRR's user")?;
        chown(folder, Some(user.uid), Some(user.gid))?;
        let zebra = launch("zebra", "")?;
        let end = Instant::now() + START;
        while !folder.join("zserv.api").exists() {
            ensure!(Instant::now() < end, "zebra is not there: {}", zebra.log_tail());
            std::thread::sleep(PAUSE);
        }
        let bgpd = launch("bgpd", "-S")?;
        place::wait_for_listener(START).map_err(|error| error.context(bgpd.log_tail()))?;
        Ok(Frr { zebra, bgpd })
    }
}

impl Speaker for Frr {
    fn used(&self) -> Result<Used> {
        used(&[self.zebra.pid(), self.bgpd.pid()])
    }

    fn writer_cpu(&self) -> Result<f64> {
        used(&[self.zebra.pid()]).map(|used| used.cpu)
    }

    fn log_tail(&self) -> String {
        format!("{} {}", self.zebra.log_tail(), self.bgpd.log_tail())
    }
}
