//! `check`: validates documents and prints what they make of a node. Asks no daemon.

use std::path::PathBuf;

use causeway_api::document_set::Errors;
use causeway_api::effective::{self, EffectiveNode, Role};
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
    /// Print this node's configuration; without it every node is checked and none is printed
    #[arg(long, value_name = "NAME")]
    node: Option<String>,
    /// As causeway-route-reflector would run it
    #[arg(long, requires = "node")]
    reflector: bool,
}

/// Validates, and prints the configuration of the node asked for.
pub fn run(args: &CheckArgs, output: &Output) -> Result<(), Error> {
    let refused = |errors: Errors| Error::Refused(format!("the documents are refused\n{errors}"));
    let documents = source::read(&args.file).map_err(refused)?;
    if let Some(node) = &args.node {
        let role = if args.reflector { Role::Reflector } else { Role::Node };
        let resolved = effective::resolve(&documents, node, role).map_err(refused)?;
        return output.print_structure(&resolved);
    }
    let nodes: Vec<&str> = documents.nodes().map(|(document, _)| document.name()).collect();
    let mut errors = Vec::new();
    let mut resolved: Vec<EffectiveNode> = Vec::new();
    for node in &nodes {
        match effective::resolve(&documents, node, Role::Node) {
            Ok(node) => resolved.push(node),
            Err(Errors(more)) => {
                errors.extend(more.into_iter().filter(|error| !errors.contains(error)).collect::<Vec<_>>())
            }
        }
    }
    if !errors.is_empty() {
        return Err(refused(Errors(errors)));
    }
    output.print(&resolved, |_| {
        let notes = resolved.iter().flat_map(|node| node.notes.iter().map(move |note| (&node.node, note)));
        let mut text: String = notes.map(|(node, note)| format!("note: {node}: {note}\n")).collect();
        text += &format!("{} documents are good for {} nodes\n", documents.documents().len(), nodes.len());
        text
    })
}
