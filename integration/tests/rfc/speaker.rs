//! The speaker under test: its documents, its process, its local API.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::runner::{Site, speaker_binary};

/// The AS of the speaker.
pub const AS: u32 = 65001;

/// What a speaker is started with.
pub struct Config {
    peers: Vec<(u8, u32, String)>,
    node: String,
    global: String,
    documents: String,
}

impl Config {
    /// A speaker without peers, in AS 65001, with the block 10.244.1.0/24 and fd00:10:244:1::/64.
    pub fn new() -> Self {
        Config { peers: Vec::new(), node: String::new(), global: String::new(), documents: String::new() }
    }

    /// A passive peer at a host of the subnet.
    pub fn peer(self, host: u8, asn: u32) -> Self {
        self.peer_with(host, asn, "passive: true")
    }

    /// A peer with more fields, as YAML flow: `holdTime: 9s, passive: true`.
    pub fn peer_with(mut self, host: u8, asn: u32, fields: &str) -> Self {
        self.peers.push((host, asn, fields.to_owned()));
        self
    }

    /// More fields of the node's `bgp`.
    pub fn node(mut self, fields: &str) -> Self {
        self.node = fields.to_owned();
        self
    }

    /// More fields of BGPConfiguration.
    pub fn global(mut self, fields: &str) -> Self {
        self.global = fields.to_owned();
        self
    }

    /// More documents, each with its `---`.
    pub fn documents(mut self, documents: &str) -> Self {
        self.documents = documents.to_owned();
        self
    }

    fn render(&self, site: &Site) -> String {
        let comma = |fields: &str| if fields.is_empty() { String::new() } else { format!(", {fields}") };
        let (v4, v6) = (site.v4(1), site.v6(1));
        let api = "apiVersion: causeway.dev/v1alpha1";
        let asn = if self.node.contains("asNumber") { String::new() } else { format!(", asNumber: {AS}") };
        let mut text = format!(
            "{api}\nkind: Node\nmetadata: {{name: dut}}\nspec: {{bgp: {{ipv4Address: {v4}/24, ipv6Address: \"{v6}/64\", \
             routerID: {v4}{asn}{}}}, podCIDRs: [10.244.1.0/24, \"fd00:10:244:1::/64\"]}}\n---\n\
             {api}\nkind: BGPConfiguration\nmetadata: {{name: default}}\nspec: {{nodeToNodeMeshEnabled: false{}}}\n---\n\
             {api}\nkind: IPPool\nmetadata: {{name: v4}}\nspec: {{cidr: 10.244.0.0/16}}\n---\n\
             {api}\nkind: IPPool\nmetadata: {{name: v6}}\nspec: {{cidr: \"fd00:10:244::/48\"}}\n---\n\
             {api}\nkind: BGPFilter\nmetadata: {{name: all}}\nspec: {{importV4: [{{action: Accept}}], \
             exportV4: [{{action: Accept}}], importV6: [{{action: Accept}}], exportV6: [{{action: Accept}}]}}\n",
            comma(&self.node),
            comma(&self.global),
        );
        for (host, asn, fields) in &self.peers {
            let filters = if fields.contains("filters") { "" } else { ", filters: [all]" };
            let families = if fields.contains("families") { "" } else { ", families: [ipv4, ipv6]" };
            let address = match fields.contains("peerRange") || fields.contains("peerIP") {
                true => String::new(),
                false => format!("peerIP: {}, ", site.v4(*host)),
            };
            writeln!(
                text,
                "---\n{api}\nkind: BGPPeer\nmetadata: {{name: p{host}}}\n\
                 spec: {{{address}asNumber: {asn}{families}{filters}{}}}",
                comma(&fields.replace("SUBNET", &site.v4(0).to_string())),
            )
            .expect("a string grows");
        }
        text.push_str(&self.documents);
        text
    }

    /// Starts the speaker and waits until it listens and knows its peers.
    pub fn start(&self, site: &Site) -> Result<Speaker> {
        let folder = tempfile::Builder::new().prefix("cw-rfc-").tempdir()?;
        std::fs::write(folder.path().join("fabric.yaml"), self.render(site))?;
        let mut speaker = Speaker { folder, process: None };
        speaker.launch(site)?;
        Ok(speaker)
    }

    /// Writes this configuration over that of a running speaker.
    pub fn replace(&self, site: &Site, speaker: &Speaker) -> Result<()> {
        let folder = speaker.folder.path();
        std::fs::write(folder.join(".next"), self.render(site))?;
        std::fs::rename(folder.join(".next"), folder.join("fabric.yaml"))?;
        Ok(())
    }
}

/// A running `causeway-bgpd`; stopped when dropped.
pub struct Speaker {
    folder: tempfile::TempDir,
    process: Option<Child>,
}

impl Speaker {
    /// Starts the process; after `kill` once more with the same run folder.
    pub fn launch(&mut self, site: &Site) -> Result<()> {
        let run = self.folder.path().join("run");
        std::fs::create_dir_all(&run)?;
        let log =
            std::fs::OpenOptions::new().create(true).append(true).open(self.folder.path().join("log"))?;
        let _ = std::fs::remove_file(run.join("bgpd.sock"));
        let child = Command::new(speaker_binary())
            .arg("--config")
            .arg(self.folder.path().join("fabric.yaml"))
            .args(["--node", "dut", "--no-fib", "--run-dir"])
            .arg(&run)
            .args(["--listen", &format!("{}:179", site.v4(1)), "--listen", &format!("[{}]:179", site.v6(1))])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        self.process = Some(child);
        let bound = Instant::now() + Duration::from_secs(20);
        while !self.is_ready() {
            if let Some(status) = self.process.as_mut().and_then(|child| child.try_wait().transpose()) {
                bail!("the speaker ended ({status:?}): {}", self.log());
            }
            ensure!(Instant::now() < bound, "the speaker is not ready: {}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    fn is_ready(&self) -> bool {
        self.get("/v1/peers").is_ok_and(|peers| peers.is_array())
    }

    /// A document of the local API.
    pub fn get(&self, path: &str) -> Result<Value> {
        let mut stream = UnixStream::connect(self.folder.path().join("run/bgpd.sock"))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        write!(stream, "GET {path} HTTP/1.0\r\nHost: bgpd\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (_, body) = answer.split_once("\r\n\r\n").context("an HTTP answer")?;
        serde_json::from_str(body).with_context(|| format!("JSON from {path}: {body}"))
    }

    /// Asks for something to be done.
    pub fn post(&self, path: &str) -> Result<()> {
        let mut stream = UnixStream::connect(self.folder.path().join("run/bgpd.sock"))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        write!(stream, "POST {path} HTTP/1.0\r\nHost: bgpd\r\nContent-Length: 0\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        ensure!(answer.split(' ').nth(1).is_some_and(|status| status.starts_with('2')), "{path}: {answer}");
        Ok(())
    }

    /// Waits until the document satisfies the condition.
    pub fn wait(&self, path: &str, what: &str, condition: impl Fn(&Value) -> bool) -> Result<Value> {
        let bound = Instant::now() + Duration::from_secs(8);
        loop {
            let document = self.get(path)?;
            if condition(&document) {
                return Ok(document);
            }
            ensure!(Instant::now() < bound, "{path} never showed {what}: {document}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The end of the log, for messages.
    pub fn log(&self) -> String {
        let text = std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(8)..].join(" | ")
    }

    /// Sends a signal: `TERM`, `KILL`, `HUP`.
    pub fn signal(&self, signal: nix::sys::signal::Signal) -> Result<()> {
        let child = self.process.as_ref().context("a running speaker")?;
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(child.id() as i32), signal)?;
        Ok(())
    }

    /// Kills it without a word, and waits until it is gone.
    pub fn kill(&mut self) -> Result<()> {
        if let Some(mut child) = self.process.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// Waits until it has ended by itself; the exit status.
    pub fn ended(&mut self) -> Result<std::process::ExitStatus> {
        let bound = Instant::now() + Duration::from_secs(11);
        let child = self.process.as_mut().context("a running speaker")?;
        loop {
            if let Some(status) = child.try_wait()? {
                return Ok(status);
            }
            ensure!(Instant::now() < bound, "it has not ended");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Whether the process is still there.
    pub fn is_running(&mut self) -> bool {
        self.process.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }
}

impl Drop for Speaker {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}
