//! Documents → native configuration, against files that were read by a person.
//!
//! Each `golden/NAME.yaml` says in its first comments for which node and role it is lowered; `NAME.config` beside it
//! is the result. `CAUSEWAY_BLESS=1 cargo test -p causeway-bgpd --test golden` writes the results anew: read the diff.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fs;
use std::path::{Path, PathBuf};

use causeway_bgp_core::config::Role;
use causeway_bgpd::lower;

fn cases() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut cases: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .collect();
    cases.sort();
    cases
}

/// The value of a `# key: value` line at the head of the file.
fn header<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix("# ")?.strip_prefix(key)?.strip_prefix(": "))
}

#[test]
fn documents_lower_to_the_golden_configuration() {
    let bless = std::env::var_os("CAUSEWAY_BLESS").is_some();
    let cases = cases();
    assert!(cases.len() >= 3, "golden documents are missing");
    for case in cases {
        let text = fs::read_to_string(&case).unwrap();
        let node = header(&text, "node").unwrap_or_else(|| panic!("{}: no `# node:` line", case.display()));
        let role = match header(&text, "role") {
            Some("reflector") => Role::Reflector,
            _ => Role::Node,
        };
        let lowered = lower::read(&case, node, role).unwrap_or_else(|errors| panic!("{}", errors.join("\n")));
        let result = format!(
            "{:#?}\n\n{:#?}\n\nlisten on port {} of {:?}\n",
            lowered.config, lowered.conditions, lowered.listen_port, lowered.listen_addresses
        );
        assert!(!result.contains("hunter2"), "a password is printed");
        let golden = case.with_extension("config");
        if bless {
            fs::write(&golden, &result).unwrap();
        }
        let expected = fs::read_to_string(&golden).unwrap_or_default();
        for (number, (found, wanted)) in result.lines().zip(expected.lines()).enumerate() {
            assert_eq!(found, wanted, "{}:{}", golden.display(), number + 1);
        }
        assert_eq!(result.lines().count(), expected.lines().count(), "{}", golden.display());
    }
}

#[test]
fn lowering_is_deterministic_and_shares_policies() {
    for case in cases() {
        let text = fs::read_to_string(&case).unwrap();
        let node = header(&text, "node").unwrap();
        let one = lower::read(&case, node, Role::Node).unwrap();
        assert_eq!(one, lower::read(&case, node, Role::Node).unwrap(), "{}", case.display());
        for (a, b) in one.config.peers.iter().zip(one.config.peers.iter().skip(1)) {
            let same = std::sync::Arc::ptr_eq(&a.settings.export, &b.settings.export);
            assert_eq!(same, a.settings.export == b.settings.export, "{}", case.display());
        }
    }
}

#[test]
fn errors_are_lines_with_their_place() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("bad.yaml");
    fs::write(
        &file,
        "apiVersion: causeway.dev/v1alpha1\nkind: IPPool\nmetadata: {name: a}\nspec:\n  cidr: 10.0.0.0\n",
    )
    .unwrap();
    let errors = lower::read(&file, "n", Role::Node).unwrap_err();
    assert_eq!(errors.len(), 1);
    assert!(errors[0].contains("bad.yaml:5:9: IPPool/a: spec.cidr: "), "{errors:?}");
    fs::write(&file, "").unwrap();
    let errors = lower::read(&file, "n", Role::Node).unwrap_err();
    assert_eq!(errors, ["there is no Node named `n` in the documents; there are: none"]);
}
