//! `causeway doctor mtu` between two nodes with a router between them: what it says of paths that are fine, narrowed, or
//! swallow what is large. Needs root, ip, nft and bridge.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

mod scene;

use scene::Scene;

/// (expected, largest, fine) of a direction.
fn sizes(direction: &serde_json::Value) -> (u64, Option<u64>, bool) {
    (
        direction["expected"].as_u64().unwrap(),
        direction["largest"].as_u64(),
        direction["fine"].as_bool().unwrap(),
    )
}

fn problem(direction: &serde_json::Value) -> &str {
    direction["problem"].as_str().unwrap_or_default()
}

#[test]
fn paths_that_take_what_they_promise_are_fine() {
    let scene = Scene::new();
    let (code, rows) = scene.doctor(&["--all"]);
    assert_eq!(rows.len(), 2, "one row a family: {rows:?}");
    for (row, (family, target)) in rows.iter().zip([("ipv4", "198.51.100.12"), ("ipv6", "2001:db8:b::12")]) {
        assert_eq!((row["node"].as_str(), row["family"].as_str()), (Some("b"), Some(family)));
        assert_eq!(row["target"].as_str(), Some(target), "nothing in its block answers: {row}");
        assert_eq!(row["device"].as_str(), Some("eth0"));
        assert_eq!(sizes(&row["out"]), (1500, Some(1500), true), "{row}");
        assert_eq!(sizes(&row["back"]), (1500, Some(1500), true), "{row}");
    }
    assert_eq!(code, 0);
    let table = scene.table(&["mtu", "b"]);
    assert!(table.contains("fine") && table.contains("1500"), "{table}");
}

#[test]
fn a_router_that_says_what_it_takes_is_named_with_its_mtu() {
    let scene = Scene::new();
    scene.narrow(&["a", "b"], 1400);
    let (code, rows) = scene.doctor(&["b"]);
    for (row, [near, far]) in
        rows.iter().zip([["192.0.2.1", "198.51.100.1"], ["2001:db8:a::1", "2001:db8:b::1"]])
    {
        for (direction, hop) in [(&row["out"], near), (&row["back"], far)] {
            assert_eq!(sizes(direction), (1500, Some(1400), false), "{row}");
            assert_eq!(direction["limit"]["kind"], "icmp", "{row}");
            assert!(problem(direction).contains(&format!("{hop} says")), "{direction}");
            assert!(problem(direction).contains("1400 bytes"), "{direction}");
        }
    }
    assert_eq!((code, rows.len()), (1, 2));
}

#[test]
fn a_black_hole_is_found_with_the_last_hop_that_answers() {
    let scene = Scene::new();
    scene.narrow(&["a", "b"], 1400);
    scene.drop_too_big();
    let (code, rows) = scene.doctor(&[]);
    for (row, [near, far]) in
        rows.iter().zip([["192.0.2.1", "198.51.100.1"], ["2001:db8:a::1", "2001:db8:b::1"]])
    {
        for (direction, hop) in [(&row["out"], near), (&row["back"], far)] {
            assert_eq!(sizes(direction), (1500, Some(1400), false), "{row}");
            assert_eq!(direction["limit"]["kind"], "blackHole", "{row}");
            assert_eq!(direction["limit"]["after"].as_str(), Some(hop), "{row}");
            let words = format!("packets above 1400 bytes vanish after {hop}");
            assert!(problem(direction).contains(&words), "{direction}");
        }
    }
    assert_eq!((code, rows.len()), (1, 2));
}

#[test]
fn one_direction_alone_is_told_from_the_other() {
    let scene = Scene::new();
    scene.narrow(&["a"], 1400);
    scene.drop_too_big();
    let (code, rows) = scene.doctor(&["b"]);
    for row in &rows {
        assert_eq!(sizes(&row["out"]), (1500, Some(1500), true), "{row}");
        assert_eq!(sizes(&row["back"]), (1500, Some(1400), false), "{row}");
        assert!(problem(&row["back"]).starts_with("from b: black hole"), "{row}");
    }
    assert_eq!((code, rows.len()), (1, 2));
}

#[test]
fn a_smaller_mtu_that_the_route_promises_is_no_fault() {
    let scene = Scene::new();
    scene.narrow(&["a", "b"], 1400);
    scene.ip("a", "route add 198.51.100.12 via 192.0.2.1 mtu 1400");
    scene.ip("b", "route add 192.0.2.11 via 198.51.100.1 mtu 1400");
    let (_, rows) = scene.doctor(&["b"]);
    assert_eq!(sizes(&rows[0]["out"]), (1400, Some(1400), true));
    assert_eq!(sizes(&rows[0]["back"]), (1400, Some(1400), true));
}

#[test]
fn a_tunnel_is_probed_inside_and_its_outer_path_where_it_loses() {
    let scene = Scene::new();
    scene.tunnel();
    let (code, rows) = scene.doctor(&["b"]);
    let row = &rows[0];
    assert_eq!((row["target"].as_str(), row["device"].as_str()), (Some("10.244.2.1"), Some("vx0")), "{row}");
    assert_eq!(sizes(&row["out"]), (1450, Some(1450), true), "{row}");
    assert_eq!(sizes(&row["back"]), (1450, Some(1450), true), "{row}");
    assert_eq!(code, 0, "{rows:?}");

    // The link between the routers' ends takes 1400 now: 1350 inside.
    scene.narrow(&["a", "b"], 1400);
    scene.drop_too_big();
    let (code, rows) = scene.doctor(&["b"]);
    let row = &rows[0];
    assert_eq!(sizes(&row["out"]), (1450, Some(1350), false), "{row}");
    assert_eq!(sizes(&row["back"]), (1450, Some(1350), false), "{row}");
    assert_eq!(row["out"]["limit"]["after"].as_str(), Some("192.0.2.1"), "{row}");
    assert_eq!(row["back"]["limit"]["after"].as_str(), Some("198.51.100.1"), "{row}");
    assert_eq!(code, 1);
}

#[test]
fn a_link_whose_ends_disagree_is_a_black_hole_from_the_larger_one() {
    let scene = Scene::new();
    scene.ip("r", "link set to-b mtu 1400");
    let (code, rows) = scene.doctor(&["b"]);
    let row = &rows[0];
    assert_eq!(sizes(&row["out"]), (1500, Some(1400), false), "{row}");
    assert_eq!(row["out"]["limit"]["kind"], "icmp", "{row}");
    let (expected, largest, fine) = sizes(&row["back"]);
    assert_eq!((expected, fine), (1500, false), "{row}");
    // A veth device takes in a VLAN tag more than its MTU.
    assert!(largest.is_some_and(|largest| (1400..=1404).contains(&largest)), "{row}");
    assert_eq!(row["back"]["limit"]["kind"], "blackHole", "{row}");
    assert!(problem(&row["back"]).contains("vanish between b and 198.51.100.1,"), "{row}");
    assert_eq!(code, 1);
}

#[test]
fn a_node_that_does_not_answer_is_an_error_and_not_a_black_hole() {
    let mut scene = Scene::new();
    scene.stop("b");
    let (code, rows) = scene.doctor(&["b"]);
    assert_eq!(code, 1);
    for row in &rows {
        assert!(row["error"].as_str().unwrap().contains("no answer to small probes"), "{row}");
        assert!(row["out"].is_null() && row["back"].is_null(), "{row}");
    }
}

#[test]
fn who_is_in_no_document_is_not_answered() {
    let scene = Scene::new();
    assert!(!scene.greeted("r", "198.51.100.12"), "the router is no node");
    assert!(scene.greeted("a", "198.51.100.12"));
}
