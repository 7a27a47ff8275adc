//! bgp-rs as a second opinion (docs/decisions/0001-own-codec-bgp-rs-as-oracle.md): its reading of our encoder's messages
//! against what was encoded, for the part of BGP it reads rightly. It runs in a process of its own, built on demand.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use causeway_bgp_wire::{
    AsPath, Asn, EncodeContext, EncodedAttributes, Nlri, Origin, PathAttributes, PrefixKey,
    encode_withdrawals,
};
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};

use crate::generate::{attributes4, attributes6, nlri4, nlri6};

const SAMPLES: usize = 400;

/// Builds and runs the oracle over messages in hex.
fn readings(messages: &[Vec<u8>]) -> Vec<Value> {
    let manifest =
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../integration/oracle-bgp-rs/Cargo.toml");
    let target = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("oracle-bgp-rs");
    let built = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--locked", "--manifest-path"])
        .arg(&manifest)
        .arg("--target-dir")
        .arg(&target)
        .status()
        .expect("cargo runs");
    assert!(built.success(), "the oracle builds: {}", manifest.display());
    let mut oracle = Command::new(target.join("debug/oracle-bgp-rs"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the oracle runs");
    let mut input = oracle.stdin.take().expect("its input");
    let lines: String = messages
        .iter()
        .map(|message| message.iter().map(|octet| format!("{octet:02x}")).collect::<String>() + "\n")
        .collect();
    let writer = std::thread::spawn(move || input.write_all(lines.as_bytes()));
    let output = oracle.wait_with_output().expect("its output");
    writer.join().expect("the writer").expect("all is written");
    let readings: Vec<Value> = String::from_utf8(output.stdout)
        .expect("text")
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert_eq!(readings.len(), messages.len());
    readings
}

/// The path with numbers whose octets are all above 3: bgp-rs guesses their width from the first octets it finds, and
/// takes one of them for a segment type otherwise.
fn unambiguous(path: &AsPath) -> AsPath {
    let mut clear = AsPath::empty();
    for segment in path.segments() {
        let asns: Vec<Asn> = segment.asns().map(|asn| Asn(asn.0 | 0x0404_0404)).collect();
        clear.push_segment(segment.kind, &asns);
    }
    clear
}

/// What bgp-rs should read; `message` has the attributes and all the prefixes.
fn expected<P: PrefixKey>(attributes: &PathAttributes, nlri: &[Nlri<P>]) -> Value {
    let announced: Vec<String> = nlri.iter().map(|nlri| nlri.prefix.to_string()).collect();
    let mut object =
        json!({"announced": announced, "withdrawn": [], "asPath": attributes.as_path.to_string()});
    object["origin"] = json!(match attributes.origin {
        Origin::Igp => "IGP",
        Origin::Egp => "EGP",
        Origin::Incomplete => "Incomplete",
    });
    match attributes.next_hop.global {
        std::net::IpAddr::V4(address) => object["nextHop"] = json!(address.to_string()),
        std::net::IpAddr::V6(address) => {
            let mut octets = address.octets().to_vec();
            octets.extend(attributes.next_hop.link_local.iter().flat_map(|address| address.octets()));
            object["mpNextHop"] = json!(octets);
        }
    }
    let mut set = |name: &str, present: bool, value: Value| {
        if present {
            object[name] = value;
        }
    };
    set("med", attributes.med.is_some(), json!(attributes.med));
    set("localPref", attributes.local_pref.is_some(), json!(attributes.local_pref));
    set("atomicAggregate", attributes.atomic_aggregate, json!(true));
    let communities: Vec<u32> = attributes.communities.iter().map(|c| c.0).collect();
    set("communities", !communities.is_empty(), json!(communities));
    let originator = attributes.originator_id.map(|id| id.to_string());
    set("originatorId", originator.is_some(), json!(originator));
    let clusters: Vec<u32> = attributes.cluster_list.iter().map(|id| id.to_bits()).collect();
    set("clusterList", !clusters.is_empty(), json!(clusters));
    let extended: Vec<u64> = attributes.ext_communities.iter().map(|c| u64::from_be_bytes(c.0)).collect();
    set("extCommunities", !extended.is_empty(), json!(extended));
    let large: Vec<_> = attributes.large_communities.iter().map(|c| (c.global, c.local1, c.local2)).collect();
    set("largeCommunities", !large.is_empty(), json!(large));
    if let Some(aggregator) = attributes.aggregator {
        object["aggregator"] = json!(format!("{} {}", aggregator.asn, aggregator.router_id));
    }
    object
}

/// Adds messages and what is to be read in them.
fn sample<P: PrefixKey>(
    attributes: impl Strategy<Value = PathAttributes>,
    nlri: impl Strategy<Value = Vec<Nlri<P>>>,
    cases: &mut Vec<(Vec<u8>, Value)>,
) {
    let mut runner = TestRunner::deterministic();
    let strategy = (attributes, nlri);
    for _ in 0..SAMPLES {
        let (mut attributes, mut nlri) = strategy.new_tree(&mut runner).expect("a sample").current();
        attributes.as_path = unambiguous(&attributes.as_path);
        attributes.unknown.clear();
        // It guesses path identifiers where a prefix has no octets.
        nlri.retain(|nlri| nlri.prefix.prefix_len() >= 8);
        if nlri.is_empty() {
            continue;
        }
        if let Ok(encoded) = EncodedAttributes::new(&attributes, &EncodeContext::default()) {
            let mut message = Vec::new();
            if encoded.announce(nlri.iter().copied(), &mut message) == 1 {
                cases.push((message, expected(&attributes, &nlri)));
            }
        }
        let mut message = Vec::new();
        encode_withdrawals(nlri.iter().copied(), &EncodeContext::default(), &mut message);
        let withdrawn: Vec<String> = nlri.iter().map(|nlri| nlri.prefix.to_string()).collect();
        cases.push((message, json!({"announced": [], "withdrawn": withdrawn})));
    }
}

#[test]
fn bgp_rs_reads_what_we_encoded() {
    let mut cases = Vec::new();
    sample(attributes4(), nlri4(1..30), &mut cases);
    sample(attributes6(), nlri6(1..30), &mut cases);
    assert!(cases.len() > SAMPLES * 2);
    let (messages, expected): (Vec<_>, Vec<_>) = cases.into_iter().unzip();
    for (reading, expected) in readings(&messages).into_iter().zip(expected) {
        assert_eq!(reading, expected);
    }
}

#[test]
fn bgp_rs_breaks_on_what_our_decoder_refuses() {
    // A next hop of 255 octets: the reason why bgp-rs is asked in a process of its own.
    let mut value = vec![0, 2, 1, 255];
    value.resize(4 + 255 + 1, 0);
    let attribute = crate::handmade::attribute(0x90, 14, &value);
    let message = crate::handmade::update_message(&[], &[attribute], &[]);
    assert_eq!(readings(std::slice::from_ref(&message)), [json!({"panic": true})]);
    assert_eq!(crate::handmade::resets(&message).subcode, 9);
}
