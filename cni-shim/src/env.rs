//! The operation's parameters: the `CNI_*` variables, checked before anything is done.

use std::fmt;
use std::path::PathBuf;

use causeway_api::pod_store::PodName;

use crate::error::{CniError, Code};

/// The longest container id that is taken. Runtimes use 64 hexadecimal digits.
const MAX_CONTAINER_ID: usize = 1024;
/// The longest `CNI_ARGS`.
const MAX_ARGS: usize = 16_384;
/// The longest interface name the kernel takes.
const MAX_INTERFACE_NAME: usize = 15;

/// What the runtime asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// Add the container to the network.
    Add,
    /// Remove it, or what is left of it.
    Del,
    /// See whether it is as ADD left it.
    Check,
    /// See whether an ADD could be served.
    Status,
    /// Remove what belongs to no container any more.
    Gc,
    /// Which versions are spoken.
    Version,
}

impl Command {
    fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "ADD" => Self::Add,
            "DEL" => Self::Del,
            "CHECK" => Self::Check,
            "STATUS" => Self::Status,
            "GC" => Self::Gc,
            "VERSION" => Self::Version,
            _ => return None,
        })
    }

    /// Which variables must be there.
    fn required(self) -> &'static [&'static str] {
        match self {
            Self::Add | Self::Check => &["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"],
            Self::Del => &["CNI_CONTAINERID", "CNI_IFNAME"],
            Self::Gc => &["CNI_PATH"],
            Self::Status | Self::Version => &[],
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Add => "ADD",
            Self::Del => "DEL",
            Self::Check => "CHECK",
            Self::Status => "STATUS",
            Self::Gc => "GC",
            Self::Version => "VERSION",
        }
    }
}

/// The parameters. Those that the operation does not have are empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Environment {
    /// `CNI_COMMAND`
    pub command: Command,
    /// `CNI_CONTAINERID`
    pub container: String,
    /// `CNI_NETNS`
    pub netns: PathBuf,
    /// `CNI_IFNAME`
    pub interface: String,
    /// The pod, where `CNI_ARGS` names it.
    pub pod: Option<PodName>,
}

impl Environment {
    /// Reads and checks this process's variables.
    ///
    /// # Errors
    /// [`Code::InvalidEnvironment`]; the message names every variable that is missing, or the one that is wrong.
    pub fn read() -> Result<Self, CniError> {
        Self::parse(|name| std::env::var_os(name).map(|value| value.to_string_lossy().into_owned()))
    }

    fn parse(get: impl Fn(&str) -> Option<String>) -> Result<Self, CniError> {
        let get = |name: &str| get(name).filter(|value| !value.is_empty());
        let Some(command) = get("CNI_COMMAND") else {
            return Err(invalid("required environment variable CNI_COMMAND is missing"));
        };
        let Some(command) = Command::parse(&command) else {
            return Err(invalid(format!("CNI_COMMAND: unknown operation {command:?}")));
        };
        let missing: Vec<&str> =
            command.required().iter().copied().filter(|name| get(name).is_none()).collect();
        if !missing.is_empty() {
            return Err(invalid(format!(
                "required environment variables [{}] are missing",
                missing.join(", ")
            )));
        }
        if matches!(command, Command::Status | Command::Gc | Command::Version) {
            return Ok(Self {
                command,
                container: String::new(),
                netns: PathBuf::new(),
                interface: String::new(),
                pod: None,
            });
        }
        let container = get("CNI_CONTAINERID").unwrap_or_default();
        check_container_id(&container)?;
        let interface = get("CNI_IFNAME").unwrap_or_default();
        check_interface_name(&interface)?;
        // What DEL needs of CNI_ARGS is nothing, so nothing in them may keep it from cleaning up.
        let pod = match command {
            Command::Del => None,
            _ => pod_of(&get("CNI_ARGS").unwrap_or_default())?,
        };
        Ok(Self { command, container, netns: get("CNI_NETNS").unwrap_or_default().into(), interface, pod })
    }
}

impl fmt::Display for Environment {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.command.as_str())?;
        if !self.container.is_empty() {
            write!(formatter, " container={} interface={}", self.container, self.interface)?;
        }
        if !self.netns.as_os_str().is_empty() {
            write!(formatter, " netns={}", self.netns.display())?;
        }
        if let Some(pod) = &self.pod {
            write!(formatter, " pod={}/{}", pod.namespace, pod.name)?;
        }
        Ok(())
    }
}

/// Alphanumeric first, then also `_`, `.` and `-`.
pub fn is_identifier(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphanumeric())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
}

fn check_container_id(id: &str) -> Result<(), CniError> {
    if id.len() > MAX_CONTAINER_ID {
        return Err(invalid(format!("CNI_CONTAINERID is longer than {MAX_CONTAINER_ID} bytes")));
    }
    if !is_identifier(id) {
        return Err(invalid(format!("CNI_CONTAINERID {id:?} has invalid characters")));
    }
    Ok(())
}

fn check_interface_name(name: &str) -> Result<(), CniError> {
    let wrong = if name.len() > MAX_INTERFACE_NAME {
        "is longer than 15 bytes"
    } else if name == "." || name == ".." {
        "is not a name"
    } else if name.chars().any(|c| c == '/' || c == ':' || c.is_whitespace() || c.is_control()) {
        "has a slash, a colon, a blank or a control character in it"
    } else if ["lo", "all", "default"].contains(&name) {
        "is a name that means something else to the kernel"
    } else {
        return Ok(());
    };
    Err(invalid(format!("CNI_IFNAME {name:?} {wrong}")))
}

/// The pod out of `K8S_POD_NAMESPACE` and `K8S_POD_NAME`. Keys that mean nothing here are passed over.
fn pod_of(args: &str) -> Result<Option<PodName>, CniError> {
    if args.len() > MAX_ARGS {
        return Err(invalid(format!("CNI_ARGS is longer than {MAX_ARGS} bytes")));
    }
    let (mut namespace, mut name) = (None, None);
    for pair in args.split(';').filter(|pair| !pair.is_empty()) {
        match pair.split_once('=') {
            None | Some(("", _)) => {
                return Err(invalid(format!("CNI_ARGS: {pair:?} is not KEY=VALUE")));
            }
            Some(("K8S_POD_NAMESPACE", value)) => namespace = Some(value),
            Some(("K8S_POD_NAME", value)) => name = Some(value),
            Some(_) => {}
        }
    }
    Ok(namespace
        .zip(name)
        .map(|(namespace, name)| PodName { namespace: namespace.to_owned(), name: name.to_owned() }))
}

fn invalid(message: impl Into<String>) -> CniError {
    CniError::new(Code::InvalidEnvironment, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(variables: &[(&str, &str)]) -> Result<Environment, CniError> {
        Environment::parse(|name| {
            variables.iter().rev().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        })
    }

    const ADD: [(&str, &str); 4] = [
        ("CNI_COMMAND", "ADD"),
        ("CNI_CONTAINERID", "c1"),
        ("CNI_NETNS", "/run/netns/c1"),
        ("CNI_IFNAME", "eth0"),
    ];

    fn add_with(key: &'static str, value: &'static str) -> Result<Environment, CniError> {
        parse(&[&ADD[..], &[(key, value)]].concat())
    }

    #[test]
    fn every_missing_variable_is_named() {
        for (command, names) in [
            ("ADD", vec!["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"]),
            ("CHECK", vec!["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"]),
            ("DEL", vec!["CNI_CONTAINERID", "CNI_IFNAME"]),
            ("GC", vec!["CNI_PATH"]),
        ] {
            let error = parse(&[("CNI_COMMAND", command)]).unwrap_err();
            assert_eq!(error.code, Code::InvalidEnvironment);
            for name in names {
                assert!(error.message.contains(name), "{command}: {error}");
            }
        }
        assert!(parse(&[]).unwrap_err().message.contains("CNI_COMMAND"));
        assert!(parse(&[("CNI_COMMAND", "add")]).unwrap_err().message.contains("CNI_COMMAND"));
        assert!(parse(&[("CNI_COMMAND", "STATUS")]).is_ok());
        let without_netns = [("CNI_COMMAND", "DEL"), ADD[1], ADD[3]];
        assert!(parse(&without_netns).is_ok(), "DEL works without CNI_NETNS");
    }

    #[test]
    fn names_are_checked() {
        for bad in ["-x", ".x", "_x", "a b", "a/b", "é", "a\nb"] {
            let error = add_with("CNI_CONTAINERID", bad).unwrap_err();
            assert!(error.message.contains("CNI_CONTAINERID"), "{bad:?}: {error}");
        }
        for bad in [".", "..", "a/b", "a:b", "a b", "a\tb", "0123456789abcdef", "lo"] {
            let error = add_with("CNI_IFNAME", bad).unwrap_err();
            assert!(error.message.contains("CNI_IFNAME"), "{bad:?}: {error}");
        }
        for good in ["eth0", "net1.5", "0123456789abcde", "eth0@x"] {
            assert!(add_with("CNI_IFNAME", good).is_ok(), "{good}");
        }
    }

    #[test]
    fn the_pod_is_found_among_the_args() {
        let args = "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web-0;K8S_POD_UID=7;A=b=c;";
        let pod = add_with("CNI_ARGS", args).unwrap().pod.unwrap();
        assert_eq!((pod.namespace.as_str(), pod.name.as_str()), ("default", "web-0"));
        assert_eq!(add_with("CNI_ARGS", "FOO=BAR;ABC=123").unwrap().pod, None);
        for bad in ["FOO", "FOO=1;BAR", "=x"] {
            assert!(add_with("CNI_ARGS", bad).unwrap_err().message.contains("CNI_ARGS"), "{bad}");
        }
        let del = [("CNI_COMMAND", "DEL"), ADD[1], ADD[3], ("CNI_ARGS", "FOO")];
        assert!(parse(&del).is_ok(), "DEL cleans up whatever CNI_ARGS say");
    }
}
