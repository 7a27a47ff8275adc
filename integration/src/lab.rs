//! A lab: built from a topology, entered, taken down.
//!
//! Owner of the processes, namespaces, names and folders of one lab. All of it is written to [`LabState`] as it comes to be, so
//! that [`Lab::down`] from any process leaves nothing behind, even after a crash half-way.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::mount::{MntFlags, umount2};
use nix::sys::signal::Signal;

use crate::image::Family;
use crate::init::InitSpec;
use crate::namespace::{Namespaces, spawn_init};
use crate::process::ProcessId;
use crate::run::{Finished, command, run, split_words};
use crate::state::{LabState, NodeState, base_dir};
use crate::topology::{NodeSpec, Topology};
use crate::until::until;
use crate::wire_up;

/// How to build a lab.
#[derive(Debug, Clone)]
pub struct Options {
    /// Folder of our binaries.
    pub bin_dir: PathBuf,
    /// The `causeway-lab` binary, which is process 1 of every node.
    pub lab_binary: PathBuf,
    /// Replaces the prefix of the topology, so that one topology can be up several times.
    pub prefix: Option<String>,
    /// The lab ends when this process does.
    pub tied: bool,
}

/// A lab that is up.
#[derive(Debug)]
pub struct Lab {
    state: Mutex<LabState>,
    options: Options,
    /// Children of this process, kept so that they are reaped.
    children: Mutex<Vec<Child>>,
    /// Held open: their end is the end of the nodes of a tied lab.
    leashes: Mutex<Vec<ChildStdin>>,
}

impl Lab {
    /// Builds the lab: nodes, links, daemons, `exec` commands. `progress` hears of each step.
    ///
    /// # Errors
    /// The first thing that failed, with the tail of the log where a daemon did; everything built so far is removed.
    pub fn up(topology: &Topology, file: &Path, options: Options, progress: &dyn Fn(&str)) -> Result<Self> {
        ensure!(nix::unistd::geteuid().is_root(), "a lab is made of network namespaces: this needs root");
        check_software(topology, &options)?;
        let prefix = options.prefix.clone().unwrap_or_else(|| topology.prefix.clone());
        let dir = LabState::dir_of(&prefix, &topology.name);
        if let Some(old) = LabState::read(&dir)? {
            let owned = old.owner.is_none_or(ProcessId::is_alive);
            let running = old.nodes.values().any(|node| node.init.is_alive());
            ensure!(
                !(owned && running),
                "lab {} is up already; `causeway-lab down` takes it down",
                topology.name
            );
            remove(&old)?;
        }
        fs::create_dir_all(&dir).with_context(|| format!("{}", dir.display()))?;
        let owner = if options.tied { Some(ProcessId::current(std::process::id() as i32)?) } else { None };
        let state = LabState {
            name: topology.name.clone(),
            prefix,
            file: std::path::absolute(file)?,
            owner,
            nodes: BTreeMap::new(),
            pods: BTreeMap::new(),
        };
        state.write()?;
        let lab =
            Self { state: Mutex::new(state), options, children: Mutex::default(), leashes: Mutex::default() };
        match lab.build(topology, progress) {
            Ok(()) => Ok(lab),
            Err(error) => {
                let left = lab
                    .down()
                    .err()
                    .map(|left| format!("; taking it down failed: {left:#}"))
                    .unwrap_or_default();
                Err(error.context(format!("lab {} did not come up{left}", topology.name)))
            }
        }
    }

    /// Opens a lab that some process built.
    ///
    /// # Errors
    /// Where it is not up.
    pub fn open(prefix: &str, name: &str, options: Options) -> Result<Self> {
        let state = LabState::read(&LabState::dir_of(prefix, name))?
            .with_context(|| format!("lab {name} is not up (`causeway-lab up` brings it up)"))?;
        Ok(Self { state: Mutex::new(state), options, children: Mutex::default(), leashes: Mutex::default() })
    }

    /// What is known of the lab now.
    #[must_use]
    pub fn state(&self) -> LabState {
        self.lock().clone()
    }

    pub(crate) fn lock(&self) -> std::sync::MutexGuard<'_, LabState> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Changes the state and writes it down.
    pub(crate) fn change(&self, change: impl FnOnce(&mut LabState)) -> Result<()> {
        let mut state = self.lock();
        change(&mut state);
        state.write()
    }

    fn build(&self, topology: &Topology, progress: &dyn Fn(&str)) -> Result<()> {
        wire_up::share_names()?;
        progress(&format!("{} nodes", topology.nodes.len()));
        for node in topology.nodes.values() {
            let family = family_of(node)?;
            let binds = self.binds_of(node, family)?;
            let init = self.start_init(&node.name, &node.sysctls, binds)?;
            let state = NodeState {
                family,
                image: node.image.clone(),
                init,
                env: node.env.clone(),
                daemons: Vec::new(),
            };
            self.change(|lab| {
                lab.nodes.insert(node.name.clone(), state);
            })?;
        }
        progress(&format!("{} links", topology.links.len()));
        let state = self.state();
        wire_up::make_links(&topology.links, |node| state.nodes.get(node).map(|node| node.init.pid))?;
        progress("daemons");
        std::thread::scope(|scope| {
            let threads: Vec<_> = topology
                .nodes
                .values()
                .map(|node| (node, scope.spawn(|| self.start_node(topology, node))))
                .collect();
            for (node, thread) in threads {
                thread
                    .join()
                    .unwrap_or_else(|_| bail!("the thread that starts it panicked"))
                    .with_context(|| format!("node {}", node.name))?;
            }
            Ok(())
        })
    }

    fn binds_of(&self, node: &NodeSpec, family: Family) -> Result<Vec<(PathBuf, PathBuf, bool)>> {
        let mut binds = Vec::new();
        for binary in family.own_binaries() {
            binds.push((self.options.bin_dir.join(binary), Path::new("/usr/local/bin").join(binary), true));
        }
        binds
            .extend(node.binds.iter().map(|bind| (bind.source.clone(), bind.target.clone(), bind.read_only)));
        for (source, _, _) in &mut binds {
            *source = source.canonicalize().with_context(|| format!("{}", source.display()))?;
        }
        Ok(binds)
    }

    /// Starts process 1 of a node or pod and names its network.
    pub(crate) fn start_init(
        &self,
        place: &str,
        sysctls: &BTreeMap<String, String>,
        binds: Vec<(PathBuf, PathBuf, bool)>,
    ) -> Result<ProcessId> {
        let state = self.state();
        let dir = state.place_dir(place);
        for part in ["run", "files", "log"] {
            fs::create_dir_all(dir.join(part)).with_context(|| format!("{}", dir.display()))?;
        }
        let spec = InitSpec {
            hostname: place.to_owned(),
            run: dir.join("run"),
            files: dir.join("files"),
            binds,
            sysctls: sysctls.clone(),
            tied: self.options.tied,
        };
        let spec_file = dir.join("init.json");
        fs::write(&spec_file, serde_json::to_vec_pretty(&spec)?)?;
        let log_file = dir.join("log/init.log");
        let log = fs::File::create(&log_file)?;
        let mut command = Command::new(&self.options.lab_binary);
        command.arg("init").arg(&spec_file).process_group(0);
        command.stdin(if self.options.tied { Stdio::piped() } else { Stdio::null() });
        command.stdout(Stdio::piped()).stderr(log);
        let mut child = spawn_init(&mut command).with_context(|| format!("starting process 1 of {place}"))?;
        let mut line = String::new();
        if let Some(stdout) = child.stdout.take() {
            BufReader::new(stdout).read_line(&mut line)?;
        }
        if line != "ready\n" {
            child.wait()?;
            bail!("{place} did not come up: {}", fs::read_to_string(&log_file)?.trim());
        }
        let init = ProcessId::current(child.id() as i32)?;
        let long_name = state.long_name(place);
        wire_up::forget_name(&long_name)?;
        wire_up::name_network(&long_name, init.pid)?;
        self.leashes.lock().unwrap_or_else(std::sync::PoisonError::into_inner).extend(child.stdin.take());
        self.keep(child);
        Ok(init)
    }

    /// Keeps a child of this process until it has ended and is reaped.
    pub(crate) fn keep(&self, child: Child) {
        self.reap();
        self.children.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(child);
    }

    /// Reaps what has ended. Process 1 of a node ends only when every process of it is reaped.
    pub(crate) fn reap(&self) {
        let mut children = self.children.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        children.retain_mut(|child| !matches!(child.try_wait(), Ok(Some(_))));
    }

    fn start_node(&self, topology: &Topology, node: &NodeSpec) -> Result<()> {
        let interfaces =
            topology.links.iter().flat_map(|link| &link.ends).filter(|end| end.node == node.name);
        let lines: String = interfaces.map(|end| format!("link set {} up\n", end.interface)).collect();
        let place = self.namespaces(&node.name)?;
        place.in_network(|| wire_up::batch(Command::new("ip"), &lines).map_err(std::io::Error::other))?;

        let family = family_of(node)?;
        let has_mgmtd = Path::new("/usr/lib/frr/mgmtd").exists();
        let frr_daemons = node.binds.iter().find(|bind| bind.target == Path::new("/etc/frr/daemons"));
        let frr_daemons = match frr_daemons {
            Some(bind) => fs::read_to_string(&bind.source)?,
            None if family == Family::Frr => fs::read_to_string("/etc/frr/daemons")?,
            None => String::new(),
        };
        let plan = family.plan(node, &frr_daemons, has_mgmtd);
        if plan.exec_first {
            self.exec_lines(node)?;
        }
        self.start_plan(&node.name, &plan)?;
        if !plan.exec_first {
            self.exec_lines(node)?;
        }
        Ok(())
    }

    fn exec_lines(&self, node: &NodeSpec) -> Result<()> {
        for line in &node.exec {
            let words = split_words(line)?;
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            self.text(&node.name, &words).with_context(|| format!("exec: {line}"))?;
        }
        Ok(())
    }

    /// Kills a node with everything on it, as a power cut does: its links go first, so that no socket of it says goodbye.
    ///
    /// # Errors
    /// Where there is no such node, or it does not end within 10 s.
    pub fn kill_node(&self, node: &str) -> Result<()> {
        let state = self.state();
        let init = state.nodes.get(node).with_context(|| format!("there is no node {node}"))?.init;
        let cut = "for link in /sys/class/net/*; do [ \"${link##*/}\" = lo ] || ip link set \"${link##*/}\" down; done";
        self.text(node, &["sh", "-c", cut])?;
        // The name and the pods' names hold network namespaces as processes do.
        let pods: Vec<(&String, ProcessId)> = state
            .pods
            .iter()
            .filter(|(_, pod)| pod.node == node)
            .map(|(name, pod)| (name, pod.init))
            .collect();
        for (name, init) in pods.iter().copied().chain([(&node.to_owned(), init)]) {
            init.signal(Signal::SIGKILL)?;
            wire_up::forget_name(&state.long_name(name))?;
        }
        self.change(|lab| {
            lab.pods.retain(|_, pod| pod.node != node);
        })?;
        until(Duration::from_secs(10), || {
            self.reap();
            ensure!(!init.is_alive(), "{node} does not end");
            Ok(())
        })
    }

    /// The namespaces of a node or pod.
    ///
    /// # Errors
    /// Where there is none of that name, or it ended.
    pub fn namespaces(&self, place: &str) -> Result<Namespaces> {
        let state = self.lock();
        let Some(init) = state.init_of(place) else {
            let known: Vec<&String> = state.nodes.keys().chain(state.pods.keys()).collect();
            bail!("there is no `{place}` in lab {}; there are: {known:?}", state.name);
        };
        ensure!(init.is_alive(), "{place} of lab {} has ended", state.name);
        Ok(Namespaces { init: init.pid })
    }

    /// The command that gives a shell inside a node or pod.
    #[must_use]
    pub fn enter_line(&self, place: &str) -> String {
        match self.lock().init_of(place) {
            Some(init) => format!("nsenter -t {} --net --mount --pid --uts -r -w bash", init.pid),
            None => format!("(there is no {place})"),
        }
    }

    fn env(&self, place: &str) -> BTreeMap<String, String> {
        self.lock().nodes.get(place).map(|node| node.env.clone()).unwrap_or_default()
    }

    /// Runs a command in a node or pod to its end, whatever its status.
    ///
    /// # Errors
    /// Where it cannot start or does not end.
    pub fn run(&self, place: &str, argv: &[&str], input: Option<&[u8]>) -> Result<Finished> {
        run(self.namespaces(place)?, &mut command(argv, &self.env(place)), input)
            .with_context(|| format!("in {place} ({})", self.enter_line(place)))
    }

    /// Standard output of a command that must succeed.
    ///
    /// # Errors
    /// Where it fails, with what it said.
    pub fn text(&self, place: &str, argv: &[&str]) -> Result<String> {
        let done = self.run(place, argv, None)?;
        ensure!(
            done.status.success(),
            "in {place}: `{}` ended with {}: {}{}",
            argv.join(" "),
            done.status,
            done.stdout.trim(),
            done.stderr.trim()
        );
        Ok(done.stdout)
    }

    /// Standard output of a command that must succeed and write JSON.
    ///
    /// # Errors
    /// Where it fails or writes something else.
    pub fn json(&self, place: &str, argv: &[&str]) -> Result<serde_json::Value> {
        let text = self.text(place, argv)?;
        serde_json::from_str(&text)
            .with_context(|| format!("in {place}: `{}` wrote no JSON: {text}", argv.join(" ")))
    }

    /// Starts a command in a node or pod with its output piped.
    ///
    /// # Errors
    /// Where it cannot start.
    pub fn spawn(&self, place: &str, argv: &[&str]) -> Result<Child> {
        let mut command = command(argv, &self.env(place));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        self.namespaces(place)?.spawn(&mut command).with_context(|| format!("in {place}: {argv:?}"))
    }

    /// Starts a command in a node or pod with this process's own terminal.
    ///
    /// # Errors
    /// Where it cannot start.
    pub fn spawn_here(&self, place: &str, argv: &[&str]) -> Result<Child> {
        let mut command = command(argv, &self.env(place));
        if let Some(term) = std::env::var_os("TERM") {
            command.env("TERM", term);
        }
        self.namespaces(place)?.spawn(&mut command).with_context(|| format!("in {place}: {argv:?}"))
    }

    /// Takes the lab down: every process, namespace, name and folder of it.
    ///
    /// # Errors
    /// What could not be removed.
    pub fn down(&self) -> Result<()> {
        remove_while(&self.state(), &|| self.reap())
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if self.options.tied && self.lock().dir().exists() {
            // The nodes end with this process in any case; what is left then is cleared by `sweep`.
            let _ = self.down();
        }
    }
}

/// Takes down labs whose owner is gone.
///
/// # Errors
/// What could not be removed.
pub fn sweep() -> Result<()> {
    let Ok(entries) = fs::read_dir(base_dir()) else { return Ok(()) };
    for entry in entries.flatten() {
        match LabState::read(&entry.path()) {
            Ok(Some(state)) if state.owner.is_some_and(|owner| !owner.is_alive()) => remove(&state)?,
            _ => {}
        }
    }
    Ok(())
}

/// Removes whatever a lab's state names.
///
/// # Errors
/// What could not be removed; the rest is removed all the same.
pub fn remove(state: &LabState) -> Result<()> {
    remove_while(state, &|| ())
}

fn remove_while(state: &LabState, reap: &dyn Fn()) -> Result<()> {
    let mut first_error = None;
    let mut note = |result: Result<()>| {
        if let Err(error) = result {
            first_error.get_or_insert(error);
        }
    };
    let places: Vec<(&String, ProcessId)> = (state.nodes.iter().map(|(name, node)| (name, node.init)))
        .chain(state.pods.iter().map(|(name, pod)| (name, pod.init)))
        .collect();
    for (name, init) in &places {
        note(init.signal(Signal::SIGKILL).with_context(|| format!("process 1 of {name}")));
    }
    for (name, init) in &places {
        note(until(Duration::from_secs(10), || {
            reap();
            ensure!(!init.is_alive(), "process 1 of {name} (pid {}) does not end", init.pid);
            Ok(())
        }));
        note(wire_up::forget_name(&state.long_name(name)));
        // Mounts live in the node's own mount namespace; one left here by a failed start is cleared as well.
        let _ = umount2(&state.place_dir(name).join("files"), MntFlags::MNT_DETACH);
    }
    let dir = state.dir();
    if dir.exists() {
        note(fs::remove_dir_all(&dir).with_context(|| format!("{}", dir.display())));
    }
    first_error.map_or(Ok(()), Err)
}

fn family_of(node: &NodeSpec) -> Result<Family> {
    Family::of(&node.image).with_context(|| {
        format!(
            "node {}: nothing here can stand in for image `{}` (frr, bird, gobgp, openbgpd, exabgp, causeway/node, \
             causeway/route-reflector, alpine)",
            node.name, node.image
        )
    })
}

/// Says at once, and all at once, what is missing on this machine.
fn check_software(topology: &Topology, options: &Options) -> Result<()> {
    let mut missing = std::collections::BTreeSet::new();
    for node in topology.nodes.values() {
        let family = family_of(node)?;
        for (file, package) in family.debian_files() {
            if !Path::new(file).exists() {
                missing.insert(format!("{file} (Debian package {package}; `make deps` installs it)"));
            }
        }
        for binary in family.own_binaries() {
            let file = options.bin_dir.join(binary);
            if !file.exists() {
                missing.insert(format!("{} (`make build` builds it)", file.display()));
            }
        }
    }
    ensure!(missing.is_empty(), "missing: {}", missing.into_iter().collect::<Vec<_>>().join(", "));
    Ok(())
}
