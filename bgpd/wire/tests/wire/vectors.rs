//! Messages that other implementations really sent, and what we read in them. The files in `tests/vectors/` hold, after
//! a line that names the session, each message in hex with the reading below it. `WIRE_BLESS=1` rewrites the readings.

use std::fmt::Write;
use std::path::PathBuf;

use causeway_bgp_wire::{DecodeContext, Message, PathAttributes, Update};

use crate::handmade::{external, internal};

fn files() -> Vec<PathBuf> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/vectors");
    let mut files: Vec<PathBuf> = std::fs::read_dir(&folder)
        .expect("the folder of vectors")
        .map(|entry| entry.expect("a readable folder").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "txt"))
        .collect();
    files.sort();
    assert!(files.len() >= 5, "BIRD three times, FRR, GoBGP");
    files
}

fn octets(hex: &str) -> Vec<u8> {
    let digits = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex");
    (0..hex.len()).step_by(2).map(digits).collect()
}

/// The session a file's `session:` line describes.
fn context(line: &str) -> DecodeContext {
    let mut context = if line.contains("iBGP") { internal() } else { external() };
    context.four_octet_as = !line.contains("two-octet");
    context
}

/// Every message of the files with its origin.
pub fn captured() -> Vec<(String, Vec<u8>)> {
    let mut messages = Vec::new();
    for path in files() {
        let text = std::fs::read_to_string(&path).expect("a vector file");
        let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
        messages.extend(text.lines().filter(|l| l.starts_with("ff")).map(|l| (name.clone(), octets(l))));
    }
    messages
}

fn describe_attributes(attributes: &PathAttributes) -> String {
    let mut text = format!("{} path [{}] via {}", attributes.origin, attributes.as_path, attributes.next_hop);
    let mut option = |name: &str, value: Option<String>| {
        value.into_iter().for_each(|value| write!(text, " {name} {value}").expect("a string grows"));
    };
    option("med", attributes.med.map(|v| v.to_string()));
    option("local-pref", attributes.local_pref.map(|v| v.to_string()));
    option("aggregator", attributes.aggregator.map(|a| format!("{} {}", a.asn, a.router_id)));
    fn list<T: ToString>(values: &[T]) -> Option<String> {
        let values: Vec<String> = values.iter().map(ToString::to_string).collect();
        (!values.is_empty()).then(|| values.join(","))
    }
    option("communities", list(&attributes.communities));
    option("ext", list(&attributes.ext_communities));
    option("large", list(&attributes.large_communities));
    option("atomic", attributes.atomic_aggregate.then(String::new));
    text
}

fn describe_update(update: &Update) -> String {
    let mut parts = Vec::new();
    for list in &update.withdrawn {
        parts.extend(list.iter().map(|nlri| format!("withdraw {}", nlri.prefix)));
    }
    for announcement in &update.announced {
        let prefixes: Vec<String> = announcement.nlri.iter().map(|nlri| nlri.prefix.to_string()).collect();
        parts.push(format!(
            "announce {} {}",
            prefixes.join(","),
            describe_attributes(&announcement.attributes)
        ));
    }
    parts.extend(update.end_of_rib.map(|family| format!("end of RIB {family}")));
    parts.extend(update.problems.iter().map(ToString::to_string));
    format!("UPDATE {}", parts.join("; "))
}

fn describe(octets: &[u8], context: &DecodeContext) -> String {
    match Message::decode(octets, context) {
        Ok(Message::Open(open)) => {
            let capabilities: Vec<String> = open.capabilities.iter().map(ToString::to_string).collect();
            let (asn, hold, id) = (open.asn(), open.hold_time, open.router_id);
            format!("OPEN AS {asn} hold {hold} id {id}: {}", capabilities.join(", "))
        }
        Ok(Message::Update(update)) => describe_update(&update),
        Ok(Message::Keepalive) => "KEEPALIVE".into(),
        Ok(Message::Notification(notification)) => format!("NOTIFICATION {notification}"),
        Ok(Message::RouteRefresh(refresh)) => format!("ROUTE-REFRESH {}", refresh.family),
        Err(error) => format!("ERROR {error}"),
    }
}

#[test]
fn messages_of_other_implementations_are_read_as_they_were_meant() {
    for path in files() {
        let text = std::fs::read_to_string(&path).expect("a vector file");
        let mut session = external();
        let mut read = String::new();
        for line in text.lines().filter(|line| !line.starts_with("  ")) {
            if let Some(description) = line.strip_prefix("session:") {
                session = context(description);
            }
            writeln!(read, "{line}").expect("a string grows");
            if line.starts_with("ff") {
                writeln!(read, "  {}", describe(&octets(line), &session)).expect("a string grows");
            }
        }
        if std::env::var_os("WIRE_BLESS").is_some() {
            std::fs::write(&path, &read).expect("a writable file");
            continue;
        }
        assert_eq!(text, read, "{}", path.display());
        assert!(!read.contains("ERROR") && !read.contains("withdraw:"), "{}", path.display());
    }
}
