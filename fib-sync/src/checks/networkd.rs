//! systemd-networkd deletes routes, rules and nexthop objects that it did not make whenever it configures a link anew, unless
//! it is told not to. Reads its configuration as it does itself (systemd's `networkd.conf(5)`), and what shows that it runs.

use std::collections::BTreeMap;
use std::path::Path;

use causeway_api::control::Condition;

/// Name of the condition.
const CONDITION: &str = "NetworkdLeavesRoutes";
/// What has to be off; the last one is known since version 256, older ones pass over it.
const SETTINGS: [&str; 3] =
    ["ManageForeignRoutes", "ManageForeignRoutingPolicyRules", "ManageForeignNextHops"];
/// The drop-in that turns it off.
const DROP_IN: &str = "/etc/systemd/networkd.conf.d/10-causeway.conf";
/// Where configuration lies, what counts less first.
const FOLDERS: [&str; 4] = ["usr/lib/systemd", "usr/local/lib/systemd", "run/systemd", "etc/systemd"];
/// Longest file that is read, in bytes.
const LONGEST: u64 = 1 << 20;

/// The condition, from the files below `root`.
pub fn condition(root: &Path) -> Condition {
    if !runs(root) {
        return Condition::new(CONDITION, true, "NotRunning", "systemd-networkd does not run");
    }
    let settings = settings(root);
    let on: Vec<&str> =
        SETTINGS.into_iter().filter(|key| settings.get(key).copied().unwrap_or(true)).collect();
    // A version without nexthop objects is told nothing about them.
    if on.is_empty() || on == ["ManageForeignNextHops"] && !knows_nexthops(root) {
        return Condition::new(CONDITION, true, "LeftAlone", "systemd-networkd leaves what is not its own");
    }
    let message = format!(
        "systemd-networkd runs and deletes routes that are not its own when it configures a link ({} not off): put the \
         lines `[Network]`, {} into {DROP_IN} and run `systemctl restart systemd-networkd`",
        on.join(", "),
        SETTINGS.map(|key| format!("`{key}=no`")).join(", ")
    );
    Condition::new(CONDITION, false, "ManagesForeignRoutes", message)
}

/// Whether a process of that name runs in this network namespace, or, where the host's processes cannot be seen (a
/// container), it has left state.
fn runs(root: &Path) -> bool {
    let name = |process: &Path| std::fs::read_to_string(process.join("comm")).unwrap_or_default();
    let namespace = |process: &Path| std::fs::read_link(process.join("ns/net")).ok();
    let own = namespace(&root.join("proc/self"));
    let here = |process: &Path| match (namespace(process), &own) {
        (Some(its), Some(own)) => its == *own,
        _ => true,
    };
    let mut processes = std::fs::read_dir(root.join("proc")).into_iter().flatten().flatten();
    // The kernel keeps 15 bytes of a name.
    if processes.any(|entry| name(&entry.path()).trim_end() == "systemd-network" && here(&entry.path())) {
        return true;
    }
    let sees_host = name(&root.join("proc/1")).trim_end() == "systemd";
    !sees_host && root.join("run/systemd/netif/state").exists()
}

/// Version 256 and later ship the setting's name in their commented default configuration.
fn knows_nexthops(root: &Path) -> bool {
    FOLDERS
        .iter()
        .any(|folder| read(&root.join(folder).join("networkd.conf")).contains("ManageForeignNextHops"))
}

/// The booleans of `[Network]` in force.
fn settings(root: &Path) -> BTreeMap<&'static str, bool> {
    let mut settings = BTreeMap::new();
    // One main file counts, that of the last folder which has one; drop-ins by name, over all folders.
    let main = FOLDERS.iter().rev().map(|folder| root.join(folder).join("networkd.conf"));
    let main = main.into_iter().find(|path| path.exists());
    let mut drop_ins = BTreeMap::new();
    for folder in FOLDERS {
        let entries = std::fs::read_dir(root.join(folder).join("networkd.conf.d")).into_iter().flatten();
        for path in entries.flatten().map(|entry| entry.path()) {
            if path.extension().is_some_and(|extension| extension == "conf")
                && let Some(name) = path.file_name()
            {
                drop_ins.insert(name.to_owned(), path);
            }
        }
    }
    for path in main.into_iter().chain(drop_ins.into_values()) {
        parse(&read(&path), &mut settings);
    }
    settings
}

fn read(path: &Path) -> String {
    use std::io::Read;
    let mut text = String::new();
    if let Ok(file) = std::fs::File::open(path) {
        // What cannot be read says nothing.
        let _ = file.take(LONGEST).read_to_string(&mut text);
    }
    text
}

fn parse(text: &str, settings: &mut BTreeMap<&'static str, bool>) {
    let mut section = "";
    for line in text.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            section = name;
        }
        let Some((key, value)) = line.split_once('=') else { continue };
        let Some(key) = SETTINGS.into_iter().find(|known| *known == key.trim()) else { continue };
        if section != "Network" {
            continue;
        }
        match value.trim().to_ascii_lowercase().as_str() {
            "no" | "n" | "false" | "f" | "off" | "0" => settings.insert(key, false),
            "yes" | "y" | "true" | "t" | "on" | "1" => settings.insert(key, true),
            // Emptied: as if it had never been set.
            "" => settings.remove(key),
            _ => None,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL_OFF: &str =
        "[Network]\nManageForeignRoutes=no\nManageForeignRoutingPolicyRules = off\nManageForeignNextHops=0\n";

    fn judged(files: &[(&str, &str)]) -> (bool, String, String) {
        let root = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = root.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let condition = condition(root.path());
        let holds = condition.status == causeway_api::control::ConditionStatus::True;
        (holds, condition.reason, condition.message)
    }

    const RUNS: (&str, &str) = ("proc/7/comm", "systemd-network\n");

    #[test]
    fn one_that_does_not_run_is_no_trouble() {
        assert_eq!(judged(&[]).1, "NotRunning");
        assert_eq!(judged(&[("proc/7/comm", "systemd-resolve\n")]).1, "NotRunning");
        let left_behind = [("proc/1/comm", "systemd\n"), ("run/systemd/netif/state", "")];
        assert_eq!(judged(&left_behind).1, "NotRunning", "its state outlives it");
    }

    #[test]
    fn one_that_runs_has_to_be_told() {
        for running in [RUNS, ("run/systemd/netif/state", "OPER_STATE=routable")] {
            let (holds, reason, message) = judged(&[running]);
            assert_eq!((holds, reason.as_str()), (false, "ManagesForeignRoutes"));
            for word in
                ["/etc/systemd/networkd.conf.d/10-causeway.conf", "`[Network]`", "`ManageForeignRoutes=no`"]
            {
                assert!(message.contains(word), "{message}");
            }
        }
    }

    #[test]
    fn what_it_is_told_is_read_as_it_reads_it() {
        type Files<'a> = &'a [(&'a str, &'a str)];
        let cases: [(&str, Files<'_>, bool); 8] = [
            ("the main file", &[("etc/systemd/networkd.conf", ALL_OFF)], true),
            ("a drop-in", &[("etc/systemd/networkd.conf.d/x.conf", ALL_OFF)], true),
            ("not a drop-in", &[("etc/systemd/networkd.conf.d/x.txt", ALL_OFF)], false),
            (
                "another section",
                &[(
                    "etc/systemd/networkd.conf",
                    "[DHCP]\nManageForeignRoutes=no\nManageForeignRoutingPolicyRules=no\n",
                )],
                false,
            ),
            (
                "a later drop-in wins",
                &[
                    ("etc/systemd/networkd.conf.d/10.conf", ALL_OFF),
                    ("usr/lib/systemd/networkd.conf.d/20.conf", "[Network]\nManageForeignRoutes=yes\n"),
                ],
                false,
            ),
            (
                "the same name in /etc takes the place of that in /usr",
                &[
                    ("usr/lib/systemd/networkd.conf.d/20.conf", "[Network]\nManageForeignRoutes=yes\n"),
                    ("etc/systemd/networkd.conf.d/20.conf", ALL_OFF),
                ],
                true,
            ),
            (
                "emptied",
                &[("etc/systemd/networkd.conf", &[ALL_OFF, "ManageForeignRoutes=\n"].concat())],
                false,
            ),
            (
                "a version without nexthop objects",
                &[(
                    "etc/systemd/networkd.conf",
                    "[Network]\nManageForeignRoutes=no\nManageForeignRoutingPolicyRules=no\n",
                )],
                true,
            ),
        ];
        for (what, files, holds) in cases {
            assert_eq!(judged(&[&[RUNS], files].concat()).0, holds, "{what}");
        }
        let newer = "[Network]\n#ManageForeignNextHops=yes\nManageForeignRoutes=no\nManageForeignRoutingPolicyRules=no\n";
        assert!(!judged(&[RUNS, ("usr/lib/systemd/networkd.conf", newer)]).0, "nexthop objects are still on");
    }
}
