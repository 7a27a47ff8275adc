//! One run: a fresh daemon in a fresh namespace, the load, and what came of it. Not pure.
//!
//! The process that does this does nothing else, so its memory and its namespace are fresh as well.

use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::daemons::{Daemon, Setup, Target};
use crate::fleet::Fleet;
use crate::latency::FIRST_CHANGE;
use crate::measured::{Measured, Outcome};
use crate::place;
use crate::relay::Fault;
use crate::scenario::{Load, Reflect, Scenario};
use crate::tables::{Judgement, Tables};
use crate::usage::{self, Usage};
use crate::wire::Attributes;
use crate::workload::Workload;
use crate::{churn, idle, random, slow};

/// Sessions that come up at once where that is not what is measured: fewer than any daemon's listen backlog.
const GENTLE: usize = 4;
/// How long everything must stay as it is after it was complete.
const QUIET: Duration = Duration::from_millis(500);
/// How long a quiet machine is waited for.
const PATIENCE: Duration = Duration::from_secs(60);
/// Time a daemon has for itself after its start.
const START_UP: Duration = Duration::from_secs(1);

/// How a run is to be done.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Factor on the scenario's size
    #[arg(long, default_value_t = 1.0)]
    pub scale: f64,

    /// Cores the daemon may use: 1 (core 0), or 2 (cores 0 and 1); the generator is always on core 1
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=2))]
    pub cores: u8,

    /// Seconds a run may take
    #[arg(long, default_value_t = 120)]
    pub limit: u64,

    /// Seconds between the last session up and the first announcement, where that is no part of the scenario [default: 12 for
    /// FRR, which holds new members of an update group back for up to 10, else 1]
    #[arg(long)]
    pub settle: Option<u64>,

    /// Wait, up to a minute before each run, until the machine does nothing else
    #[arg(long)]
    pub patient: bool,

    /// Where chance begins, in scenarios that have it
    #[arg(long, default_value_t = 1)]
    pub seed: u64,

    /// Folder with causeway-bgpd and causeway-route-reflector [default: where this tool is]
    #[arg(long, value_name = "DIR", env = "CAUSEWAY_BIN_DIR")]
    pub bin_dir: Option<PathBuf>,

    /// What a relay does wrong
    #[arg(long, hide = true)]
    pub fault: Option<Fault>,
}

/// A run under way.
pub struct Run {
    /// The peers.
    pub fleet: Fleet,
    /// What they are there for.
    pub workload: Workload,
    /// The daemon.
    pub daemon: Daemon,
    /// When it must be over.
    pub deadline: Instant,
    /// Source and attributes of each change; change n has the tag `FIRST_CHANGE` + n.
    pub changes: Vec<(usize, Attributes)>,
    settle: Duration,
    limit: Duration,
    verbatim: bool,
    before: (Usage, Usage, Duration),
    /// When the clock was started.
    pub begin: Instant,
    result: Measured,
}

/// Does one run in this process, which must not have done one before.
///
/// # Errors
/// Where it cannot even begin.
pub fn run(
    scenario: &Scenario,
    target: Target,
    options: &Options,
    folder: &std::path::Path,
) -> Result<Measured> {
    let load = scenario.load.scaled(options.scale);
    let workload = load.workload();
    place::enter_namespace()?;
    place::lift_file_limit()?;
    if options.patient {
        place::wait_for_quiet(PATIENCE)?;
    }
    place::pin(if options.cores > 1 { &[0, 1] } else { &[0] })?;
    let own = std::env::current_exe()?;
    let beside = own.parent().context("a program lies in a folder")?;
    let setup = Setup {
        folder,
        binaries: options.bin_dir.as_deref().unwrap_or(beside),
        reflector: load.reflector(),
        peers: &workload.peers,
        rule: load.rule(),
        fault: options.fault,
        hold_time: load.hold_time(),
    };
    let daemon = target.start(&setup)?;
    place::pin(&[1])?;
    std::thread::sleep(START_UP);
    let shared = matches!(load, Load::Feed(feed) if feed.shared);
    let judgement = match target == Target::Relay && shared {
        true => Judgement::Announcements,
        false => Judgement::Tables,
    };
    let receives: Vec<bool> = (0..workload.peers.len()).map(|peer| workload.receives(peer)).collect();
    let mut tables = Tables::new(judgement, receives.into_iter(), workload.wanted());
    // Asked of Causeway; what the peers do is theirs, where a real peer would not mind.
    tables.strict = matches!(target, Target::Causeway | Target::Relay);
    let settle = options.settle.unwrap_or(if target == Target::Frr { 12 } else { 1 });
    let mut run = Run {
        fleet: Fleet::new(&workload.peers, tables)?,
        deadline: Instant::now() + Duration::from_secs(options.limit),
        changes: Vec::new(),
        settle: Duration::from_secs(settle),
        limit: Duration::from_secs(options.limit),
        verbatim: target == Target::Relay,
        before: Default::default(),
        begin: Instant::now(),
        result: Measured {
            scenario: scenario.name.clone(),
            daemon: target,
            cores: options.cores.into(),
            round: 0,
            outcome: Outcome::Broken(String::new()),
            seconds: None,
            cpu: 0.0,
            generator_cpu: 0.0,
            idle_kib: 0,
            peak_kib: 0,
            paths: workload.paths(),
            repeated: 0,
            returned: 0,
            foreign_cpu: 0.0,
            broken: 0,
            broken_why: None,
            latency: None,
            more: Default::default(),
        },
        daemon,
        workload,
    };
    let outcome = match load {
        Load::Feed(_) => run.warm(),
        Load::Reflect(Reflect { cold: false, .. }) => run.warm(),
        Load::Reflect(Reflect { cold: true, .. }) => run.cold(),
        Load::Establish { .. } => run.establish(),
        Load::Churn(load) => churn::run(&mut run, load),
        Load::Slow(load) => slow::run(&mut run, load),
        Load::Idle(load) => idle::run(&mut run, load),
        Load::Random(load) => random::run(&mut run, load, options.seed),
    };
    run.result.outcome = outcome.unwrap_or_else(|error| {
        let log = run.daemon.log_tail();
        Outcome::Broken(format!("{error:#} {log}").trim().to_owned())
    });
    Ok(run.result)
}

impl Run {
    /// Brings all sessions up gently, and lets the daemon rest.
    ///
    /// # Errors
    /// Where they do not come up in time.
    pub fn bring_up(&mut self) -> Result<()> {
        // What is measured has the time limit; coming up has one of its own.
        let patience = Duration::from_secs(120);
        self.fleet.establish(GENTLE, Instant::now() + patience)?;
        let rested = Instant::now() + self.settle;
        self.fleet.until(rested, |_| false)?;
        self.fleet.reconnect = false;
        self.deadline += rested.saturating_duration_since(self.begin);
        Ok(())
    }

    /// From now on it counts.
    ///
    /// # Errors
    /// Where the daemon is gone.
    pub fn start_clock(&mut self) -> Result<()> {
        self.before = (usage::of(self.daemon.pid())?, usage::of(std::process::id())?, usage::machine_busy()?);
        self.result.idle_kib = self.before.0.resident;
        self.begin = Instant::now();
        Ok(())
    }

    /// What was used since the clock was started, and how long that was.
    ///
    /// # Errors
    /// Where the daemon is gone.
    pub fn stop_clock(&mut self, end: Option<Instant>) -> Result<()> {
        let own = usage::of(std::process::id())?;
        let daemon = usage::of(self.daemon.pid())?;
        let busy = (usage::machine_busy()? - self.before.2).as_secs_f64();
        self.result.cpu = (daemon.cpu - self.before.0.cpu).as_secs_f64();
        self.result.generator_cpu = (own.cpu - self.before.1.cpu).as_secs_f64();
        self.result.foreign_cpu = (busy - self.result.cpu - self.result.generator_cpu).max(0.0);
        self.result.returned = self.fleet.tables.arrived.returned;
        self.result.peak_kib = daemon.peak;
        self.result.seconds = end.map(|end| (end - self.begin).as_secs_f64());
        self.result.repeated = self.fleet.tables.arrived.repeated;
        self.result.broken = self.fleet.broken;
        self.result.broken_why = self.fleet.sessions.iter().find_map(|session| session.broken.clone());
        Ok(())
    }

    /// Sessions first, then everything at once.
    fn warm(&mut self) -> Result<Outcome> {
        let feeds: Vec<Rc<[u8]>> =
            (0..self.workload.feeders).map(|feeder| self.workload.feed(feeder).into()).collect();
        self.expect_of_relay();
        self.bring_up()?;
        self.start_clock()?;
        for (feeder, feed) in feeds.into_iter().enumerate() {
            self.fleet.send(feeder, feed)?;
        }
        self.conclude()
    }

    /// Everybody connects at once and announces as the session comes up.
    fn cold(&mut self) -> Result<Outcome> {
        for feeder in 0..self.workload.feeders {
            self.fleet.sessions[feeder].greeting = Some(self.workload.feed(feeder).into());
        }
        self.start_clock()?;
        for peer in 0..self.fleet.sessions.len() {
            self.fleet.connect(peer)?;
        }
        self.conclude()
    }

    /// Waits until all is as it must be, stops the clock, and looks at everything once more.
    fn conclude(&mut self) -> Result<Outcome> {
        let complete = self.fleet.until(self.deadline, |fleet| fleet.tables.completed().is_some())?;
        self.stop_clock(self.fleet.tables.completed().filter(|_| complete))?;
        if !complete {
            return self.verdict(Some(self.fleet.tables.progress()));
        }
        self.verdict(None)
    }

    /// What it comes to; `incomplete` tells how far it is where the time ran out.
    ///
    /// # Errors
    /// Where epoll fails.
    pub fn verdict(&mut self, incomplete: Option<String>) -> Result<Outcome> {
        if incomplete.is_none() {
            let end = Instant::now() + QUIET;
            self.fleet.until(end, |_| false)?;
            self.result.peak_kib = usage::of(self.daemon.pid())?.peak;
        }
        let (workload, changes) = (&self.workload, &self.changes);
        let sent = |tag: u32| match tag.checked_sub(FIRST_CHANGE) {
            Some(change) => changes.get(change as usize).cloned(),
            None => workload.of_tag(tag).map(|(feeder, set)| (feeder, workload.attributes(feeder, set))),
        };
        let found = self.fleet.tables.verify(&workload.peers, sent, self.verbatim);
        if let Some(progress) = incomplete {
            let why = format!("{progress}; {}", found.err().unwrap_or_default());
            // Who has been silent for long is done, and that is what it came to.
            let done = self.fleet.established == self.fleet.sessions.len()
                && self.fleet.last_arrival.elapsed() >= self.limit / 4;
            return Ok(if done { Outcome::Wrong(why) } else { Outcome::Incomplete(why) });
        }
        Ok(match found {
            Ok(()) if self.fleet.tables.completed().is_none() => {
                Outcome::Wrong(format!("complete, and then not any more: {}", self.fleet.tables.progress()))
            }
            Ok(()) => Outcome::Complete,
            Err(why) => Outcome::Wrong(why),
        })
    }

    /// A relay sends each path of a shared prefix.
    fn expect_of_relay(&mut self) {
        let workload = &self.workload;
        let each = workload.sets * workload.per_set + usize::from(workload.sentinel);
        self.fleet
            .tables
            .expect_announcements(|peer| each * (workload.feeders - usize::from(peer < workload.feeders)));
    }

    /// All sessions at once; nothing is announced.
    fn establish(&mut self) -> Result<Outcome> {
        self.start_clock()?;
        let sessions = self.fleet.sessions.len();
        let up = self.fleet.establish(sessions, self.deadline);
        self.stop_clock(self.fleet.last_established.filter(|_| up.is_ok()))?;
        self.verdict(up.err().map(|error| error.to_string()))
    }

    /// The record, to add to it.
    pub fn result(&mut self) -> &mut Measured {
        &mut self.result
    }
}
