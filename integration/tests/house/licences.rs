//! Licences and origins of every crate in the lock file, by the lists of `deny.toml`.
//!
//! `cargo deny check` reads the same file and checks advisories as well; `make test` runs it where it is installed. This test
//! needs nothing but cargo, so the licence rule holds everywhere.

use serde_json::Value;

use super::{cargo, workspace_file};

/// The strings of the list `key = [...]` in `deny.toml`.
fn list(key: &str) -> Vec<String> {
    let text = std::fs::read_to_string(workspace_file("deny.toml")).expect("deny.toml");
    let start = format!("\n{key} = [");
    let list = text.split(&start).nth(1).and_then(|rest| rest.split(']').next());
    let list = list.unwrap_or_else(|| panic!("deny.toml has no list `{key}`"));
    list.split('"').skip(1).step_by(2).map(str::to_owned).collect()
}

/// Whether an SPDX expression can be satisfied from the allowed licences.
fn allowed(expression: &str, list: &[String]) -> bool {
    // The old way of writing OR.
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut at = 0;
    let good = either(&words, &mut at, list);
    assert_eq!(at, words.len(), "not understood: {expression}");
    good
}

fn either(words: &[&str], at: &mut usize, list: &[String]) -> bool {
    let mut good = both(words, at, list);
    while words.get(*at) == Some(&"OR") {
        *at += 1;
        good |= both(words, at, list);
    }
    good
}

fn both(words: &[&str], at: &mut usize, list: &[String]) -> bool {
    let mut good = one(words, at, list);
    while words.get(*at) == Some(&"AND") {
        *at += 1;
        good &= one(words, at, list);
    }
    good
}

fn one(words: &[&str], at: &mut usize, list: &[String]) -> bool {
    let Some(word) = words.get(*at) else { return false };
    *at += 1;
    if *word == "(" {
        let good = either(words, at, list);
        *at += 1;
        return good;
    }
    let mut name = (*word).to_owned();
    if words.get(*at) == Some(&"WITH") {
        name = format!("{name} WITH {}", words.get(*at + 1).unwrap_or(&"?"));
        *at += 2;
    }
    list.contains(&name)
}

#[test]
fn expressions_are_understood() {
    let list: Vec<String> = ["MIT", "Zlib"].map(str::to_owned).to_vec();
    for (expression, good) in [
        ("MIT", true),
        ("GPL-3.0", false),
        ("GPL-3.0 OR MIT", true),
        ("GPL-3.0/MIT", true),
        ("GPL-3.0 AND MIT", false),
        ("(GPL-3.0 OR MIT) AND Zlib", true),
        ("(GPL-3.0 OR MIT) AND ISC", false),
        ("Apache-2.0 WITH LLVM-exception OR MIT", true),
        ("MIT WITH LLVM-exception", false),
    ] {
        assert_eq!(allowed(expression, &list), good, "{expression}");
    }
}

#[test]
fn every_dependency_has_an_allowed_licence_and_comes_from_the_registry() {
    let metadata: Value = serde_json::from_str(&cargo(&["metadata", "--format-version", "1"])).unwrap();
    let licences = list("allow");
    let registries = list("allow-registry");
    let mut broken = Vec::new();
    let packages = metadata["packages"].as_array().unwrap();
    assert!(packages.len() > 50, "only {} packages", packages.len());
    for package in packages {
        let name = format!("{} {}", package["name"], package["version"]);
        match package["license"].as_str() {
            Some(licence) if allowed(licence, &licences) => {}
            other => broken.push(format!("{name}: licence {other:?}")),
        }
        let Some(source) = package["source"].as_str() else { continue };
        if !registries.iter().any(|registry| source == format!("registry+{registry}")) {
            broken.push(format!("{name}: comes from {source}"));
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}
