//! Runs the program `nft`, as a child with bounded time and output. Takes and gives nftables' JSON.

use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde_json::Value;

use super::TABLE;

/// How long one run may take before it is killed.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often a run is looked at.
const LOOK: Duration = Duration::from_millis(2);
/// The most output that is read; ours is a few kilobytes.
const OUTPUT: u64 = 8 << 20;
/// The most of an error message that is kept, in bytes.
const MESSAGE: usize = 500;

/// Why the table cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum NftError {
    /// There is no such program.
    #[error("`{}` cannot be run: {source} (Debian: package nftables)", .program.display())]
    Missing {
        /// What was looked for.
        program: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// It said no.
    #[error("{what}: {message}")]
    Refused {
        /// What was asked for.
        what: &'static str,
        /// What it said.
        message: String,
    },
    /// It did not end.
    #[error("{what}: killed after {} s", .after.as_secs_f64())]
    Slow {
        /// What was asked for.
        what: &'static str,
        /// How long it was waited for.
        after: Duration,
    },
    /// Its answer is not understood.
    #[error("{what}: the answer is not understood: {message}")]
    Malformed {
        /// What was asked for.
        what: &'static str,
        /// Why.
        message: String,
    },
}

/// The program.
#[derive(Debug, Clone)]
pub struct Nft {
    program: PathBuf,
    patience: Duration,
}

impl Default for Nft {
    fn default() -> Nft {
        Nft { program: PathBuf::from("nft"), patience: PATIENCE }
    }
}

impl Nft {
    /// Another program in its place.
    pub fn new(program: impl Into<PathBuf>, patience: Duration) -> Nft {
        Nft { program: program.into(), patience }
    }

    /// The families in which a table of our name exists.
    ///
    /// # Errors
    /// Any [`NftError`].
    pub fn families(&self) -> Result<Vec<String>, NftError> {
        let tables = self.json("list tables", &["list", "tables"])?;
        let ours =
            tables.iter().filter_map(|object| object.get("table")).filter(|table| table["name"] == TABLE);
        Ok(ours.filter_map(|table| Some(table["family"].as_str()?.to_owned())).collect())
    }

    /// The objects of our table of one family.
    ///
    /// # Errors
    /// Any [`NftError`]; [`NftError::Refused`] where there is no such table.
    pub fn table(&self, family: &str) -> Result<Vec<Value>, NftError> {
        self.json("list table", &["list", "table", family, TABLE])
    }

    /// Carries out a transaction, wholly or not at all.
    ///
    /// # Errors
    /// Any [`NftError`].
    pub fn apply(&self, transaction: &Value) -> Result<(), NftError> {
        self.run("write table", &["-f", "-"], transaction.to_string().into_bytes()).map(|_| ())
    }

    fn json(&self, what: &'static str, arguments: &[&str]) -> Result<Vec<Value>, NftError> {
        let output = self.run(what, arguments, Vec::new())?;
        let malformed = |message: String| NftError::Malformed { what, message };
        let mut answer: Value =
            serde_json::from_slice(&output).map_err(|error| malformed(error.to_string()))?;
        match answer.get_mut("nftables").map(Value::take) {
            Some(Value::Array(objects)) => Ok(objects),
            _ => Err(malformed("there is no list `nftables`".to_owned())),
        }
    }

    fn run(&self, what: &'static str, arguments: &[&str], input: Vec<u8>) -> Result<Vec<u8>, NftError> {
        let deadline = Instant::now() + self.patience;
        let mut child = Command::new(&self.program)
            .arg("-j")
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .map_err(|source| NftError::Missing { program: self.program.clone(), source })?;
        if let Some(mut stdin) = child.stdin.take() {
            // A child that does not read must not stop us; a broken pipe shows in its exit status.
            std::thread::spawn(move || stdin.write_all(&input));
        }
        let output = child.stdout.take().map(drain);
        let errors = child.stderr.take().map(drain);
        let status = loop {
            match child.try_wait() {
                Ok(Some(status)) => break status,
                Ok(None) if Instant::now() < deadline => std::thread::sleep(LOOK),
                Ok(None) => {
                    end(&mut child);
                    return Err(NftError::Slow { what, after: self.patience });
                }
                Err(error) => {
                    end(&mut child);
                    return Err(NftError::Refused { what, message: error.to_string() });
                }
            }
        };
        // Something it left behind may hold the pipes open.
        let take = |pipe: Option<mpsc::Receiver<Vec<u8>>>| {
            let left = deadline.saturating_duration_since(Instant::now());
            pipe.and_then(|pipe| pipe.recv_timeout(left).ok()).unwrap_or_default()
        };
        let (output, errors) = (take(output), take(errors));
        if !status.success() {
            let mut message = String::from_utf8_lossy(&errors[..errors.len().min(MESSAGE)]).trim().to_owned();
            if message.is_empty() {
                message = status.to_string();
            }
            return Err(NftError::Refused { what, message });
        }
        Ok(output)
    }
}

/// Reads a pipe to its end, on a thread of its own.
fn drain(pipe: impl Read + Send + 'static) -> mpsc::Receiver<Vec<u8>> {
    let (done, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let mut pipe = pipe;
        // What was read so far counts; the rest is read and thrown away, or the child would wait.
        let _ = pipe.by_ref().take(OUTPUT).read_to_end(&mut bytes);
        let _ = std::io::copy(&mut pipe, &mut std::io::sink());
        let _ = done.send(bytes);
    });
    receiver
}

/// Kills the child and what it started.
fn end(child: &mut Child) {
    if let Ok(pid) = i32::try_from(child.id()) {
        let _ = killpg(Pid::from_raw(pid), Signal::SIGKILL);
    }
    let _ = child.wait();
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// A program in nft's place. The folder must live as long as it is used.
    fn script(text: &str) -> (tempfile::TempDir, Nft) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("nft");
        std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        (folder, Nft::new(path, Duration::from_millis(500)))
    }

    #[test]
    fn a_missing_program_is_named() {
        let error = Nft::new("/nowhere/nft", PATIENCE).families().unwrap_err();
        assert!(matches!(error, NftError::Missing { .. }));
        assert!(error.to_string().contains("/nowhere/nft"), "{error}");
    }

    #[test]
    fn one_that_hangs_is_killed_with_what_it_started() {
        let (folder, nft) = script("echo $$ > \"${0%/*}/pid\"\nsleep 600");
        let before = Instant::now();
        assert!(matches!(nft.families(), Err(NftError::Slow { .. })));
        assert!(before.elapsed() < Duration::from_secs(5));
        let pid: i32 = std::fs::read_to_string(folder.path().join("pid")).unwrap().trim().parse().unwrap();
        let group = Pid::from_raw(-pid);
        let deadline = Instant::now() + Duration::from_secs(5);
        while nix::sys::signal::kill(group, None).is_ok() {
            assert!(Instant::now() < deadline, "something of it is left");
            std::thread::sleep(LOOK);
        }
    }

    #[test]
    fn what_it_says_is_passed_on() {
        let (_folder, nft) = script("echo 'no such thing' >&2; exit 1");
        assert_eq!(nft.families().unwrap_err().to_string(), "list tables: no such thing");
        let (_folder, nft) = script("exit 3");
        assert_eq!(nft.families().unwrap_err().to_string(), "list tables: exit status: 3");
        for answer in ["", "[]", "{}", "{\"nftables\": 1}"] {
            let (_folder, nft) = script(&format!("echo '{answer}'"));
            assert!(matches!(nft.families(), Err(NftError::Malformed { .. })), "{answer}");
        }
        let (_folder, nft) = script("yes x | head -c 20000000");
        assert!(matches!(nft.families(), Err(NftError::Malformed { .. } | NftError::Slow { .. })));
    }
}
