//! The network configuration: what the administrator wrote, with what the runtime put in. Pure.
//!
//! ADD and CHECK check all of it. DEL, GC and STATUS look only at what they need, so that a configuration that became
//! wrong in between keeps nothing from being cleaned up. Keys that are not ours are passed over, as plugins do.

use std::path::PathBuf;

use causeway_api::pod_store::{MAX_MTU, MIN_MTU};
use serde_json::{Map, Value};

use crate::env::{Command, is_identifier};
use crate::error::{CniError, Code};
use crate::log::Level;
use crate::version::Version;

/// The run folder where nothing else is said.
const DEFAULT_RUN_DIR: &str = "/run/causeway";
/// What IPv4 needs at least (RFC 791).
const MIN_MTU_V4: u32 = 68;
/// The longest list of valid attachments.
const MAX_ATTACHMENTS: usize = 65_536;

/// The configuration of one call.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// `cniVersion`
    pub version: Version,
    /// `name`
    pub name: String,
    /// `runDir`
    pub run_dir: PathBuf,
    /// `mtu`; `None` takes the node's.
    pub mtu: Option<u32>,
    /// `logFile`
    pub log_file: Option<PathBuf>,
    /// `logLevel`
    pub log_level: Level,
    /// `dns`, as it goes into the result; what the runtime gives for the capability `dns` goes before.
    pub dns: Map<String, Value>,
    /// `prevResult`
    pub prev_result: Option<Map<String, Value>>,
    /// `cni.dev/valid-attachments`, for GC.
    pub valid_attachments: Option<Vec<(String, String)>>,
}

impl Config {
    /// Reads and checks the configuration for an operation.
    ///
    /// # Errors
    /// [`Code::Decode`], [`Code::IncompatibleVersion`], [`Code::UnsupportedField`] or [`Code::InvalidConfig`].
    pub fn parse(input: &[u8], command: Command) -> Result<Self, CniError> {
        let fields = match serde_json::from_slice(input) {
            Ok(Value::Object(fields)) => Fields(fields),
            Ok(_) => return Err(decode("network configuration is no JSON object")),
            Err(error) => return Err(decode(format!("network configuration is no JSON: {error}"))),
        };
        let version = match fields.text("cniVersion")? {
            Some(version) => Version::parse(version)?,
            None => return Err(invalid("cniVersion is missing")),
        };
        let since = match command {
            Command::Check => Version::V0_4_0,
            Command::Gc | Command::Status => Version::V1_1_0,
            Command::Add | Command::Del | Command::Version => Version::V0_3_0,
        };
        if version < since {
            let message = format!("cniVersion {} has no {command:?}", version.as_str());
            return Err(CniError::new(Code::IncompatibleVersion, message)
                .with_details(format!("it came with {}", since.as_str())));
        }
        let name =
            fields.text("name")?.filter(|name| !name.is_empty()).ok_or_else(|| invalid("name is missing"))?;
        if !is_identifier(name) || name.len() > 1024 {
            return Err(invalid(format!("name {name:?} has invalid characters or is too long")));
        }
        let mut config = Self {
            version,
            name: name.to_owned(),
            run_dir: fields.path("runDir")?.unwrap_or_else(|| DEFAULT_RUN_DIR.into()),
            mtu: None,
            log_file: fields.path("logFile").ok().flatten(),
            log_level: Level::Info,
            dns: Map::new(),
            prev_result: None,
            valid_attachments: None,
        };
        match command {
            Command::Add | Command::Check => config.complete(&fields)?,
            Command::Gc => config.valid_attachments = fields.attachments()?,
            Command::Del | Command::Status | Command::Version => {}
        }
        if let Ok(Some(level)) = fields.text("logLevel") {
            config.log_level = Level::parse(level).unwrap_or(config.log_level);
        }
        Ok(config)
    }

    fn complete(&mut self, fields: &Fields) -> Result<(), CniError> {
        match fields.text("type")? {
            Some(kind) if !kind.is_empty() && !kind.contains(['/', '\\']) => {}
            Some(kind) => return Err(invalid(format!("type {kind:?} is no file name"))),
            None => return Err(invalid("type is missing")),
        }
        fields.path("logFile")?;
        if let Some(level) = fields.text("logLevel")?
            && Level::parse(level).is_none()
        {
            return Err(invalid(format!("logLevel {level:?} is none of error, warn, info, debug")));
        }
        if fields.get("ipMasq").is_some_and(|value| value != &Value::Bool(false)) {
            let value = fields.get("ipMasq").unwrap_or(&Value::Null);
            return Err(CniError::new(Code::UnsupportedField, format!("unsupported field ipMasq: {value}"))
                .with_details("pod addresses are routed as they are"));
        }
        self.mtu = fields.mtu()?;
        fields.object("capabilities")?;
        self.dns = fields.dns()?;
        self.prev_result = fields.object("prevResult")?.cloned();
        Ok(())
    }
}

/// The object with its fields, each read by what it must be. `null` is as good as absent.
struct Fields(Map<String, Value>);

impl Fields {
    fn get(&self, key: &str) -> Option<&Value> {
        self.0.get(key).filter(|value| !value.is_null())
    }

    fn text(&self, key: &str) -> Result<Option<&str>, CniError> {
        self.get(key)
            .map(|value| value.as_str().ok_or_else(|| decode(format!("{key} is no string: {value}"))))
            .transpose()
    }

    fn object(&self, key: &str) -> Result<Option<&Map<String, Value>>, CniError> {
        self.get(key)
            .map(|value| value.as_object().ok_or_else(|| decode(format!("{key} is no object: {value}"))))
            .transpose()
    }

    fn path(&self, key: &str) -> Result<Option<PathBuf>, CniError> {
        match self.text(key)? {
            None | Some("") => Ok(None),
            Some(path) if path.starts_with('/') && !path.contains('\0') => Ok(Some(path.into())),
            Some(path) => Err(invalid(format!("{key} {path:?} is no absolute path"))),
        }
    }

    /// 0 is as good as absent.
    fn mtu(&self) -> Result<Option<u32>, CniError> {
        let Some(value) = self.get("mtu") else { return Ok(None) };
        if !value.is_number() {
            return Err(decode(format!("mtu is no number: {value}")));
        }
        match value.as_u64() {
            Some(0) => Ok(None),
            Some(mtu) if (u64::from(MIN_MTU_V4)..=u64::from(MAX_MTU)).contains(&mtu) => {
                Ok(u32::try_from(mtu).ok())
            }
            _ => Err(invalid(format!("mtu {value} is not between {MIN_MTU_V4} and {MAX_MTU}"))),
        }
    }

    /// `dns`, with what `runtimeConfig.dns` says (`servers`, `searches`, `options`) instead where it says anything and
    /// the capability was declared.
    fn dns(&self) -> Result<Map<String, Value>, CniError> {
        let mut dns = Map::new();
        let configured = self.object("dns")?.into_iter().flatten();
        for (key, value) in configured.filter(|(_, value)| !value.is_null()) {
            match key.as_str() {
                "domain" if value.is_string() => {}
                "nameservers" | "search" | "options" if is_text_list(value) => {}
                "domain" | "nameservers" | "search" | "options" => {
                    return Err(decode(format!("dns.{key} has the wrong type: {value}")));
                }
                _ => continue,
            }
            dns.insert(key.clone(), value.clone());
        }
        let declared =
            self.object("capabilities")?.and_then(|all| all.get("dns")) == Some(&Value::Bool(true));
        let runtime = self.object("runtimeConfig")?.and_then(|all| all.get("dns")).and_then(Value::as_object);
        if let Some(runtime) = runtime.filter(|_| declared) {
            for (theirs, ours) in [("servers", "nameservers"), ("searches", "search"), ("options", "options")]
            {
                match runtime.get(theirs) {
                    None | Some(Value::Null) => {}
                    Some(value) if is_text_list(value) => {
                        dns.insert(ours.to_owned(), value.clone());
                    }
                    Some(value) => {
                        return Err(decode(format!(
                            "runtimeConfig.dns.{theirs} has the wrong type: {value}"
                        )));
                    }
                }
            }
        }
        Ok(dns)
    }

    /// `cni.dev/valid-attachments`, or `cni.dev/attachments` as 1.1.0 first had it. `None` when neither is there.
    fn attachments(&self) -> Result<Option<Vec<(String, String)>>, CniError> {
        let key = ["cni.dev/valid-attachments", "cni.dev/attachments"]
            .into_iter()
            .find(|key| self.0.contains_key(*key));
        let Some(key) = key else { return Ok(None) };
        let Some(value) = self.get(key) else { return Ok(Some(Vec::new())) };
        let list = value.as_array().ok_or_else(|| decode(format!("{key} is no list: {value}")))?;
        if list.len() > MAX_ATTACHMENTS {
            return Err(invalid(format!("{key} has more than {MAX_ATTACHMENTS} entries")));
        }
        list.iter()
            .map(|entry| {
                let text = |key: &str| entry.get(key).and_then(Value::as_str).map(str::to_owned);
                text("containerID")
                    .zip(text("ifname"))
                    .ok_or_else(|| decode(format!("{key}: {entry} has not both containerID and ifname")))
            })
            .collect::<Result<_, _>>()
            .map(Some)
    }
}

/// Whether the MTU will do for the families a pod has.
///
/// # Errors
/// [`Code::InvalidConfig`] when IPv6 needs more (RFC 8200 section 5).
pub fn check_mtu(mtu: u32, has_ipv6: bool) -> Result<(), CniError> {
    if has_ipv6 && mtu < MIN_MTU {
        return Err(invalid(format!("mtu {mtu} is less than the {MIN_MTU} that IPv6 needs")));
    }
    Ok(())
}

fn is_text_list(value: &Value) -> bool {
    value.as_array().is_some_and(|list| list.iter().all(Value::is_string))
}

fn decode(message: impl Into<String>) -> CniError {
    CniError::new(Code::Decode, message)
}

fn invalid(message: impl Into<String>) -> CniError {
    CniError::new(Code::InvalidConfig, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn base() -> Value {
        json!({"cniVersion": "1.1.0", "name": "causeway", "type": "causeway-cni"})
    }

    fn with(key: &str, value: Value) -> Value {
        let mut config = base();
        config[key] = value;
        config
    }

    fn parse(config: &Value, command: Command) -> Result<Config, CniError> {
        Config::parse(config.to_string().as_bytes(), command)
    }

    #[test]
    fn the_least_configuration_has_the_defaults() {
        let config = parse(&base(), Command::Add).unwrap();
        assert_eq!(config.run_dir, PathBuf::from("/run/causeway"));
        assert_eq!((config.mtu, config.log_level, config.log_file), (None, Level::Info, None));
        assert!(config.dns.is_empty() && config.prev_result.is_none());
    }

    #[test]
    fn wrong_fields_are_refused_by_add_with_their_code_and_name() {
        for (key, value, code) in [
            ("cniVersion", json!(null), Code::InvalidConfig),
            ("cniVersion", json!(1), Code::Decode),
            ("cniVersion", json!("x"), Code::Decode),
            ("cniVersion", json!("0.2.0"), Code::IncompatibleVersion),
            ("name", json!(""), Code::InvalidConfig),
            ("name", json!(["a"]), Code::Decode),
            ("name", json!("a/b"), Code::InvalidConfig),
            ("type", json!(null), Code::InvalidConfig),
            ("type", json!("a/b"), Code::InvalidConfig),
            ("runDir", json!(7), Code::Decode),
            ("runDir", json!("relative"), Code::InvalidConfig),
            ("mtu", json!("1500"), Code::Decode),
            ("mtu", json!(-1), Code::InvalidConfig),
            ("mtu", json!(67), Code::InvalidConfig),
            ("mtu", json!(1500.5), Code::InvalidConfig),
            ("mtu", json!(65_536), Code::InvalidConfig),
            ("logLevel", json!("loud"), Code::InvalidConfig),
            ("ipMasq", json!(true), Code::UnsupportedField),
            ("dns", json!({"nameservers": "10.0.0.1"}), Code::Decode),
            ("dns", json!([]), Code::Decode),
            ("prevResult", json!("x"), Code::Decode),
            ("capabilities", json!(["dns"]), Code::Decode),
        ] {
            let error = parse(&with(key, value.clone()), Command::Add).unwrap_err();
            assert_eq!(error.code, code, "{key} {value}: {error}");
            assert!(error.message.contains(key), "{key} {value}: {error}");
        }
        let masquerade = parse(&with("ipMasq", json!(true)), Command::Add).unwrap_err();
        assert!(masquerade.message.contains("true"), "the value is named as well");
    }

    #[test]
    fn del_minds_only_what_it_needs() {
        let mut config = with("mtu", json!("nonsense"));
        config["logLevel"] = json!("loud");
        config["ipMasq"] = json!(true);
        config["dns"] = json!(3);
        config["prevResult"] = json!("x");
        config["type"] = json!(null);
        assert!(parse(&config, Command::Add).is_err());
        assert!(parse(&config, Command::Del).is_ok());
    }

    #[test]
    fn what_is_not_json_does_not_decode() {
        for input in ["", "{", "[]", "\"x\"", "nul", "{\"cniVersion\":}"] {
            for command in [Command::Add, Command::Del, Command::Check, Command::Gc, Command::Status] {
                let error = Config::parse(input.as_bytes(), command).unwrap_err();
                assert_eq!(error.code, Code::Decode, "{input:?}");
            }
        }
    }

    #[test]
    fn operations_came_with_versions() {
        for (version, command, ok) in [
            ("0.3.0", Command::Add, true),
            ("0.3.1", Command::Check, false),
            ("0.4.0", Command::Check, true),
            ("1.0.0", Command::Gc, false),
            ("1.0.0", Command::Status, false),
            ("1.1.0", Command::Gc, true),
            ("1.1.0", Command::Status, true),
        ] {
            let outcome = parse(&with("cniVersion", json!(version)), command);
            assert_eq!(outcome.is_ok(), ok, "{version} {command:?}");
            if let Err(error) = outcome {
                assert_eq!(error.code, Code::IncompatibleVersion);
            }
        }
    }

    #[test]
    fn dns_of_the_runtime_goes_before_where_the_capability_was_declared() {
        let mut config = with("dns", json!({"nameservers": ["10.0.0.1"], "domain": "a.b"}));
        config["runtimeConfig"] = json!({"dns": {"servers": ["10.0.0.2"], "searches": ["c"]}});
        let dns = parse(&config, Command::Add).unwrap().dns;
        assert_eq!(Value::Object(dns), json!({"nameservers": ["10.0.0.1"], "domain": "a.b"}));
        config["capabilities"] = json!({"dns": true});
        let dns = parse(&config, Command::Add).unwrap().dns;
        assert_eq!(
            Value::Object(dns),
            json!({"nameservers": ["10.0.0.2"], "domain": "a.b", "search": ["c"]})
        );
    }

    #[test]
    fn attachments_by_both_names() {
        let list = json!([{"containerID": "a", "ifname": "eth0", "netns": "x"}]);
        for key in ["cni.dev/valid-attachments", "cni.dev/attachments"] {
            let config = parse(&with(key, list.clone()), Command::Gc).unwrap();
            assert_eq!(config.valid_attachments, Some(vec![("a".into(), "eth0".into())]));
        }
        let none = with("cni.dev/valid-attachments", json!(null));
        assert_eq!(parse(&none, Command::Gc).unwrap().valid_attachments, Some(Vec::new()));
        assert_eq!(parse(&base(), Command::Gc).unwrap().valid_attachments, None);
        let broken = with("cni.dev/valid-attachments", json!([{"containerID": "a"}]));
        assert_eq!(parse(&broken, Command::Gc).unwrap_err().code, Code::Decode);
    }

    #[test]
    fn ipv6_needs_its_mtu() {
        assert!(check_mtu(576, false).is_ok());
        assert_eq!(check_mtu(1279, true).unwrap_err().code, Code::InvalidConfig);
        assert!(check_mtu(1280, true).is_ok());
    }
}
