//! Kind `Secret` (core/v1): only what passwords need of it.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::findings::Findings;
use super::meta::ObjectMeta;

/// A core/v1 Secret.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Secret {
    /// Always `v1`.
    pub api_version: String,
    /// Always `Secret`.
    pub kind: String,
    /// Name; the namespace is not looked at by the file source.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// Values in base64.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub data: BTreeMap<String, String>,
    /// Values as they are; they win over `data`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub string_data: BTreeMap<String, String>,
    /// Kubernetes' type of the secret, not looked at.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub type_: Option<String>,
    /// Kubernetes' mark that the secret never changes, not looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub immutable: Option<bool>,
}

/// Longest TCP MD5 key the kernel takes (`TCP_MD5SIG_MAXKEYLEN`).
pub const MAX_PASSWORD: usize = 80;

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys: Vec<&String> = self.data.keys().chain(self.string_data.keys()).collect();
        f.debug_struct("Secret")
            .field("name", &self.metadata.name)
            .field("keys", &keys)
            .finish_non_exhaustive()
    }
}

impl Secret {
    /// The value of `key` as a password, or why there is none.
    pub fn password(&self, key: &str) -> Result<String, String> {
        let name = &self.metadata.name;
        let text = match (self.string_data.get(key), self.data.get(key)) {
            (Some(text), _) => text.clone(),
            (None, Some(encoded)) => {
                let bytes = decode_base64(encoded)
                    .ok_or_else(|| format!("secret {name}: key {key} is not base64"))?;
                String::from_utf8(bytes).map_err(|_| format!("secret {name}: key {key} is not text"))?
            }
            (None, None) => return Err(format!("secret {name} has no key {key}")),
        };
        if text.is_empty() {
            return Err(format!("secret {name}: key {key} is empty"));
        }
        if text.len() > MAX_PASSWORD {
            return Err(format!("secret {name}: key {key} is longer than {MAX_PASSWORD} bytes"));
        }
        Ok(text)
    }

    /// Checks the encoding of `data`.
    pub fn validate(&self, findings: &mut Findings) {
        for (key, value) in &self.data {
            if decode_base64(value).is_none() {
                findings.add(format!("data.{key}"), "not base64 (RFC 4648, with padding)");
            }
        }
    }
}

/// Decodes standard base64 with padding (RFC 4648 section 4); line breaks are allowed.
fn decode_base64(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut held, mut chars, mut padding) = (0_u32, 0_u32, 0_usize, 0_usize);
    for byte in text.bytes().filter(|b| !matches!(b, b'\n' | b'\r')) {
        chars += 1;
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            b'=' => {
                padding += 1;
                continue;
            }
            _ => return None,
        };
        if padding > 0 {
            return None;
        }
        bits = bits << 6 | u32::from(value);
        held += 6;
        if held >= 8 {
            held -= 8;
            out.push((bits >> held & 0xFF) as u8);
        }
    }
    (chars % 4 == 0 && padding <= 2 && padding == (4 - (chars - padding) % 4) % 4).then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_of_rfc_4648_section_10() {
        for (plain, encoded) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(decode_base64(encoded).as_deref(), Some(plain.as_bytes()), "{encoded}");
        }
        for bad in ["Zg", "Zg=", "Zg==Zg==", "Z===", "Zm9v=", "Zm 9", "===="] {
            assert_eq!(decode_base64(bad), None, "{bad}");
        }
    }

    #[test]
    fn passwords_are_found_or_refused_with_a_reason() {
        let mut secret = Secret { metadata: ObjectMeta::named("tor"), ..Secret::default() };
        assert_eq!(secret.password("password").unwrap_err(), "secret tor has no key password");
        secret.data.insert("password".into(), "Zm9v".into());
        assert_eq!(secret.password("password").unwrap(), "foo");
        secret.string_data.insert("password".into(), "bar".into());
        assert_eq!(secret.password("password").unwrap(), "bar");
        secret.string_data.insert("password".into(), "x".repeat(81));
        assert!(secret.password("password").unwrap_err().contains("longer than 80"));
        assert!(!format!("{secret:?}").contains("xxx"));
    }
}
