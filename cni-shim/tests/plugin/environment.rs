//! The process contract: variables, input, versions, error codes.

use serde_json::{Value, json};

use crate::node::{Namespace, Node, V4, VERSIONS};

fn call(node: &Node, variables: &[(&str, &str)], config: &Value) -> (u64, String) {
    node.call_raw(variables, config.to_string().as_bytes()).error()
}

#[test]
fn missing_variables_are_named() {
    let node = Node::dual_stack();
    let pod = Namespace::new();
    let path = pod.path();
    let all = [
        ("CNI_CONTAINERID", "c1"),
        ("CNI_NETNS", path.as_str()),
        ("CNI_IFNAME", "eth0"),
        ("CNI_PATH", "/opt/cni/bin"),
    ];
    for (command, required) in [
        ("ADD", vec!["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"]),
        ("CHECK", vec!["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"]),
        ("DEL", vec!["CNI_CONTAINERID", "CNI_IFNAME"]),
        ("GC", vec!["CNI_PATH"]),
    ] {
        for missing in required {
            for present_but_empty in [false, true] {
                let mut variables: Vec<(&str, &str)> =
                    all.iter().copied().filter(|(name, _)| *name != missing).collect();
                variables.push(("CNI_COMMAND", command));
                if present_but_empty {
                    variables.push((missing, ""));
                }
                let (code, message) = call(&node, &variables, &node.config("1.1.0"));
                assert_eq!(code, 4, "{command} without {missing}: {message}");
                assert!(message.contains(missing), "{command}: {message}");
            }
        }
    }
    let (code, message) = call(&node, &all, &node.config("1.1.0"));
    assert!(code == 4 && message.contains("CNI_COMMAND"), "{message}");
    let (code, message) = call(&node, &[("CNI_COMMAND", "UPDATE")], &node.config("1.1.0"));
    assert!(code == 4 && message.contains("CNI_COMMAND") && message.contains("UPDATE"), "{message}");
    node.assert_clean();
}

#[test]
fn wrong_variables_are_named() {
    let node = Node::dual_stack();
    let pod = Namespace::new();
    for (variable, bad) in [
        ("CNI_CONTAINERID", "-c1"),
        ("CNI_CONTAINERID", "a/b"),
        ("CNI_CONTAINERID", "a b"),
        ("CNI_IFNAME", "0123456789abcdef"),
        ("CNI_IFNAME", "a/b"),
        ("CNI_IFNAME", "a:b"),
        ("CNI_IFNAME", ".."),
        ("CNI_IFNAME", "a b"),
        ("CNI_NETNS", "/nonexistent/netns"),
        ("CNI_NETNS", "/dev/null"),
        ("CNI_NETNS", "/proc/self/ns/mnt"),
        ("CNI_NETNS", "/proc/self/ns/net"),
        ("CNI_ARGS", "FOO"),
    ] {
        let path = pod.path();
        let mut variables = vec![
            ("CNI_COMMAND", "ADD"),
            ("CNI_CONTAINERID", "c1"),
            ("CNI_NETNS", path.as_str()),
            ("CNI_IFNAME", "eth0"),
        ];
        variables.retain(|(name, _)| *name != variable);
        variables.push((variable, bad));
        let (code, message) = call(&node, &variables, &node.config("1.1.0"));
        assert_eq!(code, 4, "{variable}={bad}: {message}");
        assert!(message.contains(variable), "{variable}={bad}: {message}");
    }
    // A pipe that nobody writes into is refused, not waited for.
    let pipe = node.run_dir.path().join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    for command in ["ADD", "DEL"] {
        let answer = node.call(command, "c1", pipe.to_str().unwrap(), "eth0", &node.config("1.1.0"));
        assert_eq!(answer.status, Some(i32::from(command == "ADD")), "{answer:?}");
    }
    node.assert_clean();
}

#[test]
fn input_that_does_not_decode() {
    let node = Node::dual_stack();
    let pod = Namespace::new();
    let path = pod.path();
    for command in ["ADD", "DEL", "CHECK", "GC", "STATUS"] {
        let variables = [
            ("CNI_COMMAND", command),
            ("CNI_CONTAINERID", "c1"),
            ("CNI_NETNS", path.as_str()),
            ("CNI_IFNAME", "eth0"),
            ("CNI_PATH", "/opt/cni/bin"),
        ];
        for input in
            ["", "{", "[]", "null", "{\"cniVersion\": \"1.1.0\", \"name\": 5}", "{\"cniVersion\":1.1}"]
        {
            let (code, message) = node.call_raw(&variables, input.as_bytes()).error();
            assert_eq!(code, 6, "{command} {input:?}: {message}");
        }
        let (code, _) = node.call_raw(&variables, "[".repeat(5 << 20).as_bytes()).error();
        assert_eq!(code, 6, "{command}: more than anybody has to say");
        let deep = format!("{{\"cniVersion\":\"1.1.0\",\"x\":{}", "[".repeat(100_000));
        let (code, _) = node.call_raw(&variables, deep.as_bytes()).error();
        assert_eq!(code, 6, "{command}");
    }
    node.assert_clean();
}

#[test]
fn configurations_that_are_wrong() {
    let node = Node::dual_stack();
    let pod = Namespace::new();
    for (key, value, expected) in [
        ("cniVersion", json!("0.2.0"), 1),
        ("cniVersion", json!("9.9.9"), 1),
        ("cniVersion", json!("nonsense"), 6),
        ("cniVersion", Value::Null, 7),
        ("name", Value::Null, 7),
        ("name", json!("a/b"), 7),
        ("mtu", json!(-5), 7),
        ("mtu", json!(100_000), 7),
        ("mtu", json!("1500"), 6),
        ("ipMasq", json!(true), 2),
    ] {
        let mut config = node.config("1.1.0");
        config[key] = value.clone();
        let (code, message) = node.call("ADD", "c1", &pod.path(), "eth0", &config).error();
        assert_eq!(code, expected, "{key} {value}: {message}");
        assert!(message.contains(key), "{key} {value}: {message}");
    }
    // Keys that belong to others or to later versions are passed over.
    let mut config = node.config("1.1.0");
    for (key, value) in
        [("args", json!({"cni": {}})), ("somebodyElses", json!(1)), ("cniVersions", json!(["1.0.0"]))]
    {
        config[key] = value;
    }
    node.call("ADD", "c1", &pod.path(), "eth0", &config).ok();
    node.del("c1", &pod).ok();
    node.assert_clean();
}

#[test]
fn errors_are_in_the_version_that_was_asked_in() {
    let node = Node::without_store();
    for version in VERSIONS {
        let answer = node.call("ADD", "c1", &Namespace::new().path(), "eth0", &node.config(version));
        let error: Value = serde_json::from_str(&answer.stdout).unwrap();
        assert_eq!(error["cniVersion"], version);
    }
}

#[test]
fn version_answers_with_or_without_input() {
    let node = Node::without_store();
    let version = |input: &[u8]| node.call_raw(&[("CNI_COMMAND", "VERSION")], input).ok();
    let answer = version(b"");
    assert_eq!(answer, json!({"cniVersion": "1.1.0", "supportedVersions": VERSIONS}));
    for asked in VERSIONS {
        assert_eq!(version(json!({"cniVersion": asked}).to_string().as_bytes())["cniVersion"], asked);
    }
    assert_eq!(version(b"not json")["supportedVersions"], json!(VERSIONS));
    // Nobody writes and nobody closes: the answer comes all the same.
    let mut child = node.start(&[("CNI_COMMAND", "VERSION")]);
    let stdin = child.stdin.take();
    let output = child.wait_with_output().unwrap();
    drop(stdin);
    assert!(output.status.success());
}

#[test]
fn operations_that_a_version_does_not_have() {
    let node = Node::new(&[V4]);
    let pod = Namespace::new();
    for (command, version, known) in [
        ("CHECK", "0.3.0", false),
        ("CHECK", "0.3.1", false),
        ("GC", "0.4.0", false),
        ("GC", "1.0.0", false),
        ("STATUS", "1.0.0", false),
        ("STATUS", "1.1.0", true),
    ] {
        let answer = node.call(command, "c1", &pod.path(), "eth0", &node.config(version));
        if known {
            answer.ok();
        } else {
            let (code, message) = answer.error();
            assert_eq!(code, 1, "{command} {version}: {message}");
        }
    }
}
