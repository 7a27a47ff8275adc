//! Commands inside nodes and pods: run with a bound, output kept.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::namespace::Namespaces;

/// How long [`run`] lets a command take.
pub const COMMAND_BOUND: Duration = Duration::from_secs(60);

/// What a command left behind.
#[derive(Debug)]
pub struct Finished {
    /// How it ended.
    pub status: ExitStatus,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

/// A command with the environment of a node: nothing of the caller's own.
#[must_use]
pub fn command(argv: &[&str], env: &BTreeMap<String, String>) -> Command {
    let (program, args) = argv.split_first().map_or(("true", &[][..]), |(first, rest)| (*first, rest));
    let mut command = Command::new(program);
    command.args(args).env_clear().envs([
        ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
        ("HOME", "/root"),
        ("LANG", "C.UTF-8"),
    ]);
    command.envs(env).current_dir("/");
    command
}

/// Runs a prepared command inside to its end.
///
/// # Errors
/// Where it cannot start, or takes longer than [`COMMAND_BOUND`] (it is killed then).
pub fn run(place: Namespaces, command: &mut Command, input: Option<&[u8]>) -> Result<Finished> {
    let shown = format!("{command:?}");
    command.stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() });
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = place.spawn(command).with_context(|| format!("starting {shown}"))?;
    if let (Some(bytes), Some(mut stdin)) = (input, child.stdin.take()) {
        // A command that ends without reading its input says why by itself.
        let _ = stdin.write_all(bytes);
    }
    let stdout = collect(child.stdout.take());
    let stderr = collect(child.stderr.take());
    let status = wait(&mut child, COMMAND_BOUND).with_context(|| format!("running {shown}"))?;
    let text = |thread: std::thread::JoinHandle<Vec<u8>>| {
        String::from_utf8_lossy(&thread.join().unwrap_or_default()).into_owned()
    };
    Ok(Finished { status, stdout: text(stdout), stderr: text(stderr) })
}

/// Waits for a child, and kills it when the bound runs out.
///
/// # Errors
/// When the bound ran out.
pub fn wait(child: &mut Child, bound: Duration) -> Result<ExitStatus> {
    let end = Instant::now() + bound;
    let mut pause = Duration::from_millis(1);
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if Instant::now() >= end {
            child.kill()?;
            child.wait()?;
            bail!("no end after {} s, killed", bound.as_secs());
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}

/// Reads a pipe to its end on a thread, so that the writer never blocks.
pub fn collect<R: Read + Send + 'static>(source: Option<R>) -> std::thread::JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut source) = source {
            // What was read before an error is still worth showing.
            let _ = source.read_to_end(&mut bytes);
        }
        bytes
    })
}

/// Splits a line into words as containerlab does with `exec` and `cmd`: quotes and backslashes, no other shell.
///
/// # Errors
/// Where a quote is not closed.
pub fn split_words(line: &str) -> Result<Vec<String>> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut inside = false;
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match c {
            '\'' | '"' => {
                inside = true;
                loop {
                    match chars.next() {
                        Some(next) if next == c => break,
                        Some('\\') if c == '"' => word.extend(chars.next()),
                        Some(next) => word.push(next),
                        None => bail!("no closing {c} in: {line}"),
                    }
                }
            }
            '\\' => {
                inside = true;
                word.extend(chars.next());
            }
            c if c.is_whitespace() => {
                if inside || !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                inside = false;
            }
            c => word.push(c),
        }
    }
    if inside || !word.is_empty() {
        words.push(word);
    }
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_split_as_a_shell_would() {
        let line = r#"sh -c 'ip a; echo "x y"' plain "two \"words\"" a\ b """#;
        let expected = ["sh", "-c", "ip a; echo \"x y\"", "plain", "two \"words\"", "a b", ""];
        assert_eq!(split_words(line).unwrap(), expected);
        assert!(split_words("echo 'open").is_err());
    }
}
