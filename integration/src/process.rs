//! Processes by id: whether one still runs, and ending it for certain.
//!
//! A process id alone may have been given to somebody else since; with the start time it means one process.

use std::io;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

/// One process of this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessId {
    /// Process id, as this machine sees it.
    pub pid: i32,
    /// Start time in clock ticks since boot (field 22 of `/proc/PID/stat`).
    pub start: u64,
}

impl ProcessId {
    /// The process that bears the id now.
    ///
    /// # Errors
    /// Where none does.
    pub fn current(pid: i32) -> io::Result<Self> {
        let (_, start) = stat(pid)?;
        Ok(Self { pid, start })
    }

    /// It still runs. A zombie does not, unless other threads of it are still on their way out: these hold its sockets.
    #[must_use]
    pub fn is_alive(self) -> bool {
        match stat(self.pid) {
            Ok((state, start)) if start == self.start => {
                !matches!(state, 'Z' | 'X') || self.has_other_threads()
            }
            _ => false,
        }
    }

    fn has_other_threads(self) -> bool {
        std::fs::read_dir(format!("/proc/{}/task", self.pid)).is_ok_and(|threads| threads.count() > 1)
    }

    /// Sends a signal; a process that is gone is no error.
    ///
    /// # Errors
    /// Where this process may not.
    pub fn signal(self, signal: Signal) -> io::Result<()> {
        if !self.is_alive() {
            return Ok(());
        }
        match kill(Pid::from_raw(self.pid), signal) {
            Ok(()) | Err(nix::Error::ESRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits until it has ended; false when the bound ran out first.
    #[must_use]
    pub fn wait_gone(self, bound: Duration) -> bool {
        let end = Instant::now() + bound;
        while self.is_alive() {
            if Instant::now() >= end {
                return false;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        true
    }
}

/// State letter and start time of a process.
fn stat(pid: i32) -> io::Result<(char, u64)> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let bad = || io::Error::new(io::ErrorKind::InvalidData, format!("/proc/{pid}/stat: {text}"));
    // The second field is the name in parentheses and may hold anything.
    let rest = text.rsplit_once(") ").map(|(_, rest)| rest).ok_or_else(bad)?;
    let fields: Vec<&str> = rest.split(' ').collect();
    let state = fields.first().and_then(|field| field.chars().next()).ok_or_else(bad)?;
    let start = fields.get(19).and_then(|field| field.parse().ok()).ok_or_else(bad)?;
    Ok((state, start))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn a_process_is_known_by_id_and_start() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let id = ProcessId::current(child.id() as i32).unwrap();
        assert!(id.is_alive());
        assert!(!ProcessId { start: id.start + 1, ..id }.is_alive());
        id.signal(Signal::SIGKILL).unwrap();
        assert!(id.wait_gone(Duration::from_secs(5)), "a killed process counts as gone before it is reaped");
        child.wait().unwrap();
        id.signal(Signal::SIGKILL).unwrap();
    }
}
