//! Which versions of the specification are spoken, and the answer to VERSION. Pure.

use serde_json::{Value, json};

use crate::error::{CniError, Code};

/// A version of the CNI specification. Later ones are greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// 0.3.0
    V0_3_0,
    /// 0.3.1
    V0_3_1,
    /// 0.4.0: CHECK and `prevResult` for DEL.
    V0_4_0,
    /// 1.0.0: no `version` in `ips`.
    V1_0_0,
    /// 1.1.0: GC, STATUS, `mtu` of interfaces.
    V1_1_0,
}

impl Version {
    /// All of them.
    pub const ALL: [Version; 5] =
        [Version::V0_3_0, Version::V0_3_1, Version::V0_4_0, Version::V1_0_0, Version::V1_1_0];
    /// The newest one.
    pub const NEWEST: Version = Version::V1_1_0;

    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Version::V0_3_0 => "0.3.0",
            Version::V0_3_1 => "0.3.1",
            Version::V0_4_0 => "0.4.0",
            Version::V1_0_0 => "1.0.0",
            Version::V1_1_0 => "1.1.0",
        }
    }

    /// Reads the version of a configuration.
    ///
    /// # Errors
    /// [`Code::Decode`] for what is no version at all, [`Code::IncompatibleVersion`] for one that is not spoken.
    pub fn parse(text: &str) -> Result<Version, CniError> {
        if let Some(version) = Version::ALL.into_iter().find(|version| version.as_str() == text) {
            return Ok(version);
        }
        if !is_version(text) {
            return Err(CniError::new(Code::Decode, format!("cniVersion {text:?} is no version")));
        }
        Err(CniError::new(
            Code::IncompatibleVersion,
            format!("incompatible CNI version: cniVersion {text:?}"),
        )
        .with_details(format!("supported: {}", Version::ALL.map(Version::as_str).join(", "))))
    }
}

/// Three numbers with dots between them, perhaps with more after a `-` or `+`.
fn is_version(text: &str) -> bool {
    let core = text.split(['-', '+']).next().unwrap_or_default();
    let numbers: Vec<&str> = core.split('.').collect();
    let number =
        |part: &&str| !part.is_empty() && part.len() <= 9 && part.bytes().all(|byte| byte.is_ascii_digit());
    text.len() <= 64 && (1..=3).contains(&numbers.len()) && numbers.iter().all(number)
}

/// The answer to VERSION. Its `cniVersion` is the one that was asked in, where that is one; VERSION never fails, since
/// by its answer the runtime chooses the version to ask in.
pub fn answer(input: &[u8]) -> Value {
    let asked = serde_json::from_slice::<Value>(input)
        .ok()
        .and_then(|input| input.get("cniVersion")?.as_str().map(str::to_owned))
        .filter(|version| is_version(version))
        .unwrap_or_else(|| Version::NEWEST.as_str().to_owned());
    json!({"cniVersion": asked, "supportedVersions": Version::ALL.map(Version::as_str)})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_spoken_what_is_not_and_what_is_no_version() {
        assert_eq!(Version::parse("0.4.0").unwrap(), Version::V0_4_0);
        for other in ["0.1.0", "0.2.0", "1.2.0", "2.0.0", "9.9.9", "1.1.0-rc1", "0.1", "1"] {
            assert_eq!(Version::parse(other).unwrap_err().code, Code::IncompatibleVersion, "{other}");
        }
        for broken in ["", "abc", "1.1.0.0", "1..0", "v1.0.0", " 1.0.0", "1.x.0", &"1".repeat(100)] {
            assert_eq!(Version::parse(broken).unwrap_err().code, Code::Decode, "{broken}");
        }
    }

    #[test]
    fn version_echoes_what_it_was_asked_in() {
        for (input, version) in [
            ("", "1.1.0"),
            ("{}", "1.1.0"),
            ("not json", "1.1.0"),
            (r#"{"cniVersion":"0.4.0"}"#, "0.4.0"),
            (r#"{"cniVersion":"9.9.9"}"#, "9.9.9"),
            (r#"{"cniVersion":"nonsense"}"#, "1.1.0"),
            (r#"{"cniVersion":7}"#, "1.1.0"),
        ] {
            let answer = answer(input.as_bytes());
            assert_eq!(answer["cniVersion"], version, "{input}");
            assert_eq!(answer["supportedVersions"].as_array().unwrap().len(), 5);
        }
    }
}
