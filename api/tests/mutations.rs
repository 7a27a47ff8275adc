//! Documents that somebody has damaged: whatever a folder holds, reading it ends, soon, and without a panic.

use std::time::{Duration, Instant};

use causeway_api::effective::{self, Role};
use causeway_api::selector::Selector;
use causeway_api::source;
use proptest::prelude::*;
use serde_json::Value;

/// Good documents with every kind, to be damaged.
const FABRIC: &str = include_str!("fabric.yaml");

/// The time one reading may take: far more than it needs, far less than forever.
const BOUND: Duration = Duration::from_secs(5);

/// Reads and, where that succeeds, resolves for every node.
fn read(text: &str) {
    let begun = Instant::now();
    if let Ok(documents) = source::parse("damaged.yaml", text) {
        for (document, _) in documents.nodes() {
            for role in [Role::Node, Role::Reflector] {
                let _ = effective::resolve(&documents, document.name(), role)
                    .map(|node| serde_json::to_string(&node));
            }
        }
    }
    assert!(begun.elapsed() < BOUND, "{:?} for {} bytes", begun.elapsed(), text.len());
}

#[test]
fn the_undamaged_documents_are_good() {
    let documents = source::parse("fabric.yaml", FABRIC).unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(documents.documents().len(), 10);
    let node =
        effective::resolve(&documents, "node-a1", Role::Node).unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!((node.peers.len(), node.peer_ranges.len()), (2, 1));
}

/// One way to damage a text.
#[derive(Clone, Debug)]
enum Damage {
    Remove(usize, usize),
    Insert(usize, &'static str),
    Repeat(usize, usize, usize),
    Cut(usize),
}

fn damage() -> impl Strategy<Value = Damage> {
    let at = 0..FABRIC.len();
    let pieces = prop::sample::select(vec![
        "\n",
        " ",
        "  ",
        "\t",
        "-",
        "- ",
        ": ",
        "{",
        "}",
        "[",
        "]",
        "&a ",
        "*a",
        "<<: *a\n",
        "!!str ",
        "!x ",
        "|\n",
        ">\n",
        "'",
        "\"",
        "\\",
        "#",
        "---\n",
        "...\n",
        "%YAML 9.9\n",
        "? ",
        "@",
        "`",
        "0x",
        "1e999",
        ".inf",
        "-1",
        "null",
        "~",
        "99999999999999999999",
        "\u{0}",
        "\u{feff}",
        "\u{2028}",
        "é",
        "()",
        "!!",
        "&&",
        "||",
        "{}",
        "::",
        "/",
    ]);
    prop_oneof![
        (at.clone(), 1..40_usize).prop_map(|(at, length)| Damage::Remove(at, length)),
        (at.clone(), pieces).prop_map(|(at, piece)| Damage::Insert(at, piece)),
        (at.clone(), 1..80_usize, 1..20_usize)
            .prop_map(|(at, length, times)| Damage::Repeat(at, length, times)),
        at.prop_map(Damage::Cut),
    ]
}

fn apply(text: &mut Vec<char>, damage: &Damage) {
    let clamp = |at: usize, text: &Vec<char>| at.min(text.len());
    match damage {
        Damage::Remove(at, length) => {
            let (from, to) = (clamp(*at, text), clamp(at + length, text));
            text.drain(from..to);
        }
        Damage::Insert(at, piece) => {
            let at = clamp(*at, text);
            text.splice(at..at, piece.chars());
        }
        Damage::Repeat(at, length, times) => {
            let (from, to) = (clamp(*at, text), clamp(at + length, text));
            let piece: Vec<char> = text[from..to].to_vec();
            let copies: Vec<char> = std::iter::repeat_n(piece, *times).flatten().collect();
            text.splice(to..to, copies);
        }
        Damage::Cut(at) => text.truncate(*at),
    }
}

/// All places of a JSON value, as pointers.
fn places(value: &Value, here: &str, found: &mut Vec<String>) {
    found.push(here.to_owned());
    match value {
        Value::Array(items) => {
            items
                .iter()
                .enumerate()
                .for_each(|(index, item)| places(item, &format!("{here}/{index}"), found));
        }
        Value::Object(pairs) => {
            pairs.iter().for_each(|(key, item)| places(item, &format!("{here}/{key}"), found));
        }
        _ => {}
    }
}

fn odd_values() -> impl Strategy<Value = Value> {
    prop::sample::select(vec![
        Value::Null,
        true.into(),
        0.into(),
        (-1).into(),
        u64::MAX.into(),
        1.5.into(),
        "".into(),
        "0.0.0.0/0".into(),
        "::/0".into(),
        "10.0.0.0/33".into(),
        "720h".into(),
        "999999999999h".into(),
        "1:2:3:4".into(),
        "((((".into(),
        "internal".into(),
        "node.".into(),
        Value::Array(vec![]),
        Value::Array(vec![Value::Null; 3]),
        serde_json::json!({}),
        serde_json::json!({"value": 1}),
        "x".repeat(100_000).into(),
    ])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn damaged_text_is_read_or_refused(damages in prop::collection::vec(damage(), 1..6)) {
        let mut text: Vec<char> = FABRIC.chars().collect();
        damages.iter().for_each(|damage| apply(&mut text, damage));
        read(&text.into_iter().collect::<String>());
    }

    #[test]
    fn random_text_is_read_or_refused(text in "[ \\n\\t:{}\\[\\]&*#'\"a-z0-9!|>%@-]{0,400}") {
        read(&text);
    }

    /// Any value anywhere: an error then names the document it is in.
    #[test]
    fn odd_values_are_read_or_refused(document in 0..10_usize, place in any::<prop::sample::Index>(), odd in odd_values()) {
        let documents = documents_as_json();
        let mut values = documents.clone();
        let mut all = Vec::new();
        places(&values[document], "", &mut all);
        let pointer = place.get(&all).clone();
        if let Some(value) = values[document].pointer_mut(&pointer) {
            *value = odd;
        }
        if let Err(errors) = source::from_json(&values) {
            for error in &errors.0 {
                let whole = pointer.is_empty() || pointer == "/kind" || pointer.starts_with("/metadata");
                prop_assert!(whole || !error.document.is_empty(), "{pointer}: {error}");
                prop_assert!(error.to_string().len() < 400_000);
            }
        }
    }

    #[test]
    fn selectors_parse_or_refuse(text in "[a-z0-9!&|()=' \"{},é]{0,60}") {
        if let Ok(selector) = text.parse::<Selector>() {
            let again: Selector = selector.as_str().parse().unwrap();
            prop_assert_eq!(again.matches(&Default::default()), selector.matches(&Default::default()));
        }
    }
}

fn documents_as_json() -> Vec<Value> {
    let documents = source::parse("fabric.yaml", FABRIC).unwrap_or_else(|errors| panic!("{errors}"));
    documents.documents().iter().map(|document| document.resource.to_json()).collect()
}

/// Sizes at which something quadratic would show.
#[test]
fn many_documents_are_read_in_reasonable_time() {
    let mut text = String::new();
    for a in 0..64 {
        text += &format!(
            "---\napiVersion: causeway.dev/v1alpha1\nkind: IPPool\nmetadata: {{name: p{a}}}\nspec: {{cidr: 10.{a}.0.0/16}}\n"
        );
        for b in 0..64 {
            text += &format!(
                "---\napiVersion: causeway.dev/v1alpha1\nkind: Node\nmetadata: {{name: n{a}-{b}}}\nspec: {{bgp: {{ipv4Address: 192.168.{a}.{}/16}}, podCIDRs: [10.{a}.{b}.0/24]}}\n",
                b + 1
            );
        }
    }
    let begun = Instant::now();
    let documents = source::parse("many.yaml", &text).unwrap_or_else(|errors| panic!("{errors}"));
    let node = effective::resolve(&documents, "n3-5", Role::Node).unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(node.peers.len(), 64 * 64 - 1);
    assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
}
