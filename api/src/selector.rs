//! Calico's selector expressions over labels: `rack == 'a' && !has(spare)`.
//!
//! Grammar: `||` binds weakest, then `&&`, then `!`; parentheses group. Terms: `key == 'value'`, `key != 'value'`
//! (true as well where the key is absent), `key in {'a', 'b'}`, `key not in {…}` (likewise), `key contains 'x'`,
//! `key starts with 'x'`, `key ends with 'x'`, `has(key)`, `!has(key)`, `all()`, `global()`. An empty expression is
//! `all()`. Strings are in single or double quotes. Pure; length and depth are bounded.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer};

/// Longest expression, in bytes.
const MAX_LENGTH: usize = 8192;
/// Deepest nesting of parentheses and negations.
const MAX_DEPTH: usize = 32;

/// A parsed selector. Two compare equal where they are written alike.
#[derive(Clone, Debug)]
pub struct Selector {
    text: String,
    expression: Expression,
}

/// Why a text is not a selector.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("selector `{}`: {message} at column {column}", shorten(.text))]
pub struct SelectorError {
    /// The text.
    pub text: String,
    /// Column within the text, from 1, in characters.
    pub column: usize,
    /// What is wrong there.
    pub message: String,
}

fn shorten(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(80) {
        Some((end, _)) => format!("{}…", &text[..end]).into(),
        None => text.into(),
    }
}

#[derive(Clone, Debug)]
enum Expression {
    All,
    Not(Box<Expression>),
    And(Vec<Expression>),
    Or(Vec<Expression>),
    Has(String),
    Compare(String, Comparison, String),
    OneOf { key: String, values: Vec<String>, negated: bool },
}

#[derive(Clone, Copy, Debug)]
enum Comparison {
    Equal,
    NotEqual,
    Contains,
    StartsWith,
    EndsWith,
}

impl Selector {
    /// The selector that selects everything.
    pub fn all() -> Self {
        Selector { text: "all()".to_owned(), expression: Expression::All }
    }

    /// The expression as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// True where the labels satisfy the expression.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.expression.matches(labels)
    }
}

impl Expression {
    fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        match self {
            Expression::All => true,
            Expression::Not(inner) => !inner.matches(labels),
            Expression::And(terms) => terms.iter().all(|term| term.matches(labels)),
            Expression::Or(terms) => terms.iter().any(|term| term.matches(labels)),
            Expression::Has(key) => labels.contains_key(key),
            Expression::Compare(key, comparison, value) => match (labels.get(key), comparison) {
                (None, Comparison::NotEqual) => true,
                (None, _) => false,
                (Some(label), Comparison::Equal) => label == value,
                (Some(label), Comparison::NotEqual) => label != value,
                (Some(label), Comparison::Contains) => label.contains(value.as_str()),
                (Some(label), Comparison::StartsWith) => label.starts_with(value.as_str()),
                (Some(label), Comparison::EndsWith) => label.ends_with(value.as_str()),
            },
            Expression::OneOf { key, values, negated } => {
                labels.get(key).is_some_and(|label| values.contains(label)) != *negated
            }
        }
    }
}

impl PartialEq for Selector {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Selector {}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for Selector {
    type Err = SelectorError;

    fn from_str(text: &str) -> Result<Self, SelectorError> {
        let mut parser = Parser { text, at: 0, depth: 0 };
        if text.len() > MAX_LENGTH {
            return Err(parser.error(format!("longer than {MAX_LENGTH} bytes")));
        }
        parser.skip_space();
        if parser.rest().is_empty() {
            return Ok(Selector { text: text.to_owned(), expression: Expression::All });
        }
        let expression = parser.any_of()?;
        if !parser.rest().is_empty() {
            return Err(parser.error("expected `&&`, `||` or the end"));
        }
        Ok(Selector { text: text.to_owned(), expression })
    }
}

/// Recursive descent over the text; `at` is a byte offset on a character boundary.
struct Parser<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
}

impl<'a> Parser<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn error(&self, message: impl Into<String>) -> SelectorError {
        SelectorError {
            text: self.text.to_owned(),
            column: self.text[..self.at].chars().count() + 1,
            message: message.into(),
        }
    }

    fn skip_space(&mut self) {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start().len();
    }

    /// Takes `token` if it stands here, and the space behind it.
    fn take(&mut self, token: &str) -> bool {
        let here = self.rest().starts_with(token);
        if here {
            self.at += token.len();
            self.skip_space();
        }
        here
    }

    fn expect(&mut self, token: &str) -> Result<(), SelectorError> {
        if self.take(token) { Ok(()) } else { Err(self.error(format!("expected `{token}`"))) }
    }

    /// Takes `word` if it stands here as a whole word.
    fn take_word(&mut self, word: &str) -> bool {
        let whole = self.rest().strip_prefix(word).is_some_and(|after| !after.starts_with(is_key_char));
        whole && self.take(word)
    }

    fn any_of(&mut self) -> Result<Expression, SelectorError> {
        let first = self.all_of()?;
        let mut terms = vec![first];
        while self.take("||") {
            terms.push(self.all_of()?);
        }
        Ok(if terms.len() == 1 { terms.remove(0) } else { Expression::Or(terms) })
    }

    fn all_of(&mut self) -> Result<Expression, SelectorError> {
        let first = self.negation()?;
        let mut terms = vec![first];
        while self.take("&&") {
            terms.push(self.negation()?);
        }
        Ok(if terms.len() == 1 { terms.remove(0) } else { Expression::And(terms) })
    }

    fn negation(&mut self) -> Result<Expression, SelectorError> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(self.error(format!("nested deeper than {MAX_DEPTH}")));
        }
        let expression = if self.take("!") {
            Expression::Not(Box::new(self.negation()?))
        } else if self.take("(") {
            let inner = self.any_of()?;
            self.expect(")")?;
            inner
        } else {
            self.term()?
        };
        self.depth -= 1;
        Ok(expression)
    }

    fn term(&mut self) -> Result<Expression, SelectorError> {
        let key = self.key()?;
        if self.rest().starts_with('(') {
            return self.call(key);
        }
        let compare = if self.take("==") {
            Comparison::Equal
        } else if self.take("!=") {
            Comparison::NotEqual
        } else if self.take_word("contains") {
            Comparison::Contains
        } else if self.take_word("starts") {
            self.expect("with")?;
            Comparison::StartsWith
        } else if self.take_word("ends") {
            self.expect("with")?;
            Comparison::EndsWith
        } else if self.take_word("not") {
            self.expect("in")?;
            return Ok(Expression::OneOf { key, values: self.set()?, negated: true });
        } else if self.take_word("in") {
            return Ok(Expression::OneOf { key, values: self.set()?, negated: false });
        } else {
            return Err(
                self.error("expected `==`, `!=`, `in`, `not in`, `contains`, `starts with` or `ends with`")
            );
        };
        Ok(Expression::Compare(key, compare, self.string()?))
    }

    fn call(&mut self, name: String) -> Result<Expression, SelectorError> {
        let open = self.at;
        self.expect("(")?;
        let expression = match name.as_str() {
            "all" | "global" => Expression::All,
            "has" => Expression::Has(self.key()?),
            _ => {
                self.at = open;
                return Err(self.error(format!("unknown function `{name}`")));
            }
        };
        self.expect(")")?;
        Ok(expression)
    }

    fn key(&mut self) -> Result<String, SelectorError> {
        let rest = self.rest();
        let length = rest.find(|c| !is_key_char(c)).unwrap_or(rest.len());
        if length == 0 {
            return Err(self.error("expected a label, has(label) or all()"));
        }
        self.at += length;
        self.skip_space();
        Ok(rest[..length].to_owned())
    }

    fn string(&mut self) -> Result<String, SelectorError> {
        let rest = self.rest();
        let Some(quote @ ('\'' | '"')) = rest.chars().next() else {
            return Err(self.error("expected a quoted string"));
        };
        let Some(length) = rest[1..].find(quote) else {
            return Err(self.error("the string is not closed"));
        };
        self.at += length + 2;
        self.skip_space();
        Ok(rest[1..=length].to_owned())
    }

    fn set(&mut self) -> Result<Vec<String>, SelectorError> {
        self.expect("{")?;
        let mut values = Vec::new();
        while !self.take("}") {
            values.push(self.string()?);
            if !self.take(",") {
                self.expect("}")?;
                break;
            }
        }
        Ok(values)
    }
}

fn is_key_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '/' | '-')
}

impl Serialize for Selector {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for Selector {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Selector;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a selector such as \"rack == 'a'\"")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Selector, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Text)
    }
}

impl JsonSchema for Selector {
    fn schema_name() -> Cow<'static, str> {
        "Selector".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "maxLength": MAX_LENGTH})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn every_operator_both_ways() {
        let node = labels(&[("rack", "a"), ("role", "tor-client"), ("kubernetes.io/os", "linux")]);
        for (text, expected) in [
            ("", true),
            ("all()", true),
            ("global()", true),
            ("rack == 'a'", true),
            ("rack==\"b\"", false),
            ("rack != 'b'", true),
            ("rack != 'a'", false),
            ("absent != 'a'", true),
            ("absent == ''", false),
            ("rack in {'a', 'b'}", true),
            ("rack in {'c'}", false),
            ("rack in {}", false),
            ("rack not in {'a'}", false),
            ("rack not in {'b',}", true),
            ("absent not in {'b'}", true),
            ("absent in {'b'}", false),
            ("has(rack)", true),
            ("has( absent )", false),
            ("!has(absent)", true),
            ("! has(rack)", false),
            ("role contains 'client'", true),
            ("role contains 'spine'", false),
            ("role starts with 'tor'", true),
            ("role starts with 'client'", false),
            ("role ends with \"client\"", true),
            ("role ends with 'tor'", false),
            ("kubernetes.io/os == 'linux'", true),
            ("rack == 'b' || rack == 'a' && has(role)", true),
            ("(rack == 'b' || rack == 'a') && !has(role)", false),
            ("!(rack == 'b')", true),
            ("!!has(rack)", true),
            ("contains == 'x' || in != 'x'", true),
        ] {
            let selector: Selector = text.parse().unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(selector.matches(&node), expected, "{text}");
        }
    }

    #[test]
    fn errors_name_the_column() {
        for (text, column) in [
            ("rack = 'a'", 6),
            ("rack == a", 9),
            ("rack == 'a", 9),
            ("rack == 'a' &&", 15),
            ("rack == 'a' rack", 13),
            ("(rack == 'a'", 13),
            ("any()", 4),
            ("all(", 5),
            ("has()", 5),
            ("rack in 'a'", 9),
            ("rack in {'a' 'b'}", 14),
            ("rack not 'a'", 10),
            ("&& rack", 1),
            ("'é' == rack", 1),
            ("has(é)", 5),
        ] {
            let error = text.parse::<Selector>().unwrap_err();
            assert_eq!(error.column, column, "{error}");
        }
    }

    #[test]
    fn depth_and_length_are_bounded() {
        let deep = format!("{}has(a){}", "(".repeat(100_000), ")".repeat(100_000));
        assert!(deep.parse::<Selector>().is_err());
        assert!("!".repeat(5000).parse::<Selector>().is_err());
        let wide = vec!["has(a)"; 800].join("||");
        assert!(wide.parse::<Selector>().is_ok());
        let nested = format!("{}has(a){}", "(".repeat(20), ")".repeat(20));
        assert!(nested.parse::<Selector>().is_ok());
    }
}
