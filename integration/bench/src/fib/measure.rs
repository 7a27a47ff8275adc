//! One measurement: a node of its own, the daemons, and what came of it. Not pure.
//!
//! The process that does this does nothing else, so its memory and its namespaces are fresh.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::job::{Figures, Job, Step, Subject};
use super::node::Node;
use super::process::{Causeway, Speaker};
use super::routers::{Bird, Frr};
use super::{flap, load, lost, resync};
use crate::place;

/// How a measurement is done.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Seconds a measurement may take
    #[arg(long, default_value_t = 120)]
    pub limit: u64,

    /// Folder with causeway-fib-sync and causeway-bgpd [default: where this tool is]
    #[arg(long, value_name = "DIR", env = "CAUSEWAY_BIN_DIR")]
    pub bin_dir: Option<PathBuf>,
}

/// Where and how one is done.
pub struct Site<'a> {
    /// What.
    pub job: Job,
    /// The node.
    pub node: &'a Node,
    /// An empty folder.
    pub folder: &'a Path,
    /// Where Causeway's binaries are.
    pub binaries: &'a Path,
    /// When it must be over.
    pub deadline: Instant,
}

impl Site<'_> {
    /// The subject, where it takes routes by BGP, started.
    ///
    /// # Errors
    /// Where it does not start, or takes none.
    pub fn speaker(&self) -> Result<Box<dyn Speaker>> {
        Ok(match self.job.subject {
            Subject::Causeway => Box::new(Causeway::start(self.folder, self.binaries, true)?),
            Subject::Bird => Box::new(Bird::start(self.folder, true)?),
            Subject::Frr => Box::new(Frr::start(self.folder)?),
            Subject::Loop | Subject::LoopObject => bail!("a loop speaks no BGP"),
        })
    }
}

/// Does one measurement in this process, which must not have done one before. Why it failed is a result as well.
#[must_use]
pub fn run(job: Job, options: &Options, folder: &Path) -> Figures {
    let mut figures = Figures::new(job);
    if let Err(error) = at_node(job, options, folder, &mut figures) {
        figures.values.clear();
        figures.failed = Some(format!("{error:#}"));
    }
    figures
}

fn at_node(job: Job, options: &Options, folder: &Path, figures: &mut Figures) -> Result<()> {
    let own = std::env::current_exe()?;
    let beside = own.parent().context("a program lies in a folder")?;
    place::lift_file_limit()?;
    let node = Node::build()?;
    let site = Site {
        job,
        node: &node,
        folder,
        binaries: options.bin_dir.as_deref().unwrap_or(beside),
        deadline: Instant::now() + Duration::from_secs(options.limit),
    };
    let done = match (job.step, job.plan().routes) {
        (_, 0) => bail!("no routes, nothing to measure"),
        (Step::Load, _) => load::load(&site, figures),
        (Step::Wire, _) => load::wire(&site, figures),
        (Step::Resync, _) => resync::run(&site, figures),
        (Step::Carrier | Step::Down, _) => lost::link(&site, figures),
        (Step::Session, _) => lost::session(&site, figures),
        (Step::Flap, _) => flap::run(&site, figures),
    };
    node.demolish();
    done
}
