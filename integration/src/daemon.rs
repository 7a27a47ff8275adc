//! Daemons of a node: started by plan, stopped by signal, started again, and what they logged.

use std::fs;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;

use crate::image::{DaemonPlan, Plan};
use crate::lab::Lab;
use crate::process::ProcessId;
use crate::run::command;
use crate::state::DaemonState;
use crate::until::until;

/// How long a daemon may take until its socket answers.
const START_BOUND: Duration = Duration::from_secs(20);

impl Lab {
    pub(crate) fn start_plan(&self, node: &str, plan: &Plan) -> Result<()> {
        let run_all = |commands: &[Vec<String>]| -> Result<()> {
            for argv in commands {
                let argv: Vec<&str> = argv.iter().map(String::as_str).collect();
                self.text(node, &argv)?;
            }
            Ok(())
        };
        run_all(&plan.prepare)?;
        for daemon in &plan.daemons {
            self.start_daemon(node, daemon)?;
        }
        run_all(&plan.finish)
    }

    fn start_daemon(&self, node: &str, plan: &DaemonPlan) -> Result<()> {
        let state = self.state();
        let node_state = state.nodes.get(node).with_context(|| format!("there is no node {node}"))?;
        let log_file = self.log_file(node, &plan.name);
        let log = fs::OpenOptions::new().create(true).append(true).open(&log_file)?;
        let argv: Vec<&str> = plan.argv.iter().map(String::as_str).collect();
        let mut command = command(&argv, &node_state.env);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).process_group(0);
        let child = self
            .namespaces(node)?
            .spawn(&mut command)
            .with_context(|| format!("starting {}", plan.argv[0]))?;
        let process = ProcessId::current(child.id() as i32)?;
        self.keep(child);
        let daemon = DaemonState {
            name: plan.name.clone(),
            argv: plan.argv.clone(),
            ready_socket: plan.ready_socket.clone(),
            process,
        };
        self.change(|lab| {
            if let Some(node) = lab.nodes.get_mut(node) {
                node.daemons.retain(|old| old.name != daemon.name);
                node.daemons.push(daemon);
            }
        })?;
        let Some(socket) = &plan.ready_socket else { return Ok(()) };
        let socket = state.place_dir(node).join(socket.strip_prefix("/").unwrap_or(socket));
        let ready = until(START_BOUND, || {
            ensure!(process.is_alive(), "it ended");
            UnixStream::connect(&socket).with_context(|| format!("{}", socket.display()))
        });
        ready.map(|_| ()).with_context(|| {
            format!(
                "{} is not up; the end of {}:\n{}",
                plan.name,
                log_file.display(),
                self.log_tail(node, &plan.name, 15)
            )
        })
    }

    /// Starts a daemon again that was killed.
    ///
    /// # Errors
    /// Where it does not come up.
    pub fn start(&self, node: &str, daemon: &str) -> Result<()> {
        let known = self.daemon(node, daemon)?;
        ensure!(!known.process.is_alive(), "{daemon} of {node} runs already");
        let plan = DaemonPlan { name: known.name, argv: known.argv, ready_socket: known.ready_socket };
        self.start_daemon(node, &plan)
    }

    /// Sends a signal to a daemon and waits until it has ended.
    ///
    /// # Errors
    /// Where there is no such daemon, or it does not end within 15 s.
    pub fn stop(&self, node: &str, daemon: &str, signal: Signal) -> Result<()> {
        let process = self.daemon(node, daemon)?.process;
        process.signal(signal)?;
        ensure!(process.wait_gone(Duration::from_secs(15)), "{daemon} of {node} did not end on {signal}");
        self.reap();
        Ok(())
    }

    /// What is known of a daemon.
    ///
    /// # Errors
    /// Where there is no such daemon.
    pub fn daemon(&self, node: &str, daemon: &str) -> Result<DaemonState> {
        let state = self.lock();
        let node_state = state.nodes.get(node).with_context(|| format!("there is no node {node}"))?;
        node_state
            .daemons
            .iter()
            .find(|known| known.name == daemon)
            .cloned()
            .with_context(|| format!("node {node} has no daemon {daemon}"))
    }

    /// The log file of a daemon.
    #[must_use]
    pub fn log_file(&self, node: &str, daemon: &str) -> PathBuf {
        self.lock().place_dir(node).join(format!("log/{daemon}.log"))
    }

    /// The last lines of a daemon's log.
    #[must_use]
    pub fn log_tail(&self, node: &str, daemon: &str, lines: usize) -> String {
        let text = fs::read(self.log_file(node, daemon)).unwrap_or_default();
        let text = String::from_utf8_lossy(&text).into_owned();
        let all: Vec<&str> = text.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }
}
