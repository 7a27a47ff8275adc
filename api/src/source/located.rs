//! A parsed YAML or JSON document that remembers where each of its values stood, and a serde deserializer over it
//! whose errors name the field and the place. Pure.
//!
//! The tree is what validation errors found later are traced back to their line with.

use std::fmt;

use serde::Deserialize;
use serde::de::{self, DeserializeSeed, Deserializer, IntoDeserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;

/// A place in a file, both counted from 1; 0 where there is no file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Line.
    pub line: u64,
    /// Column, in characters.
    pub column: u64,
}

/// A value with its place.
#[derive(Clone, Debug, Default)]
pub struct Located {
    /// Where it stands.
    pub position: Position,
    /// What it is.
    pub value: Value,
}

/// What a value is.
#[derive(Clone, Debug, Default)]
pub enum Value {
    /// Nothing.
    #[default]
    Null,
    /// true or false.
    Bool(bool),
    /// A whole number that is not negative.
    Unsigned(u64),
    /// A negative whole number.
    Signed(i64),
    /// A number that is not whole.
    Float(f64),
    /// Text.
    String(String),
    /// A list.
    Seq(Vec<Located>),
    /// Pairs in the order of the file, each key with its place.
    Map(Vec<(String, Position, Located)>),
}

impl Located {
    /// The value of `key`, if this is a map that has it.
    pub fn get(&self, key: &str) -> Option<&Located> {
        match &self.value {
            Value::Map(pairs) => pairs.iter().find(|(name, _, _)| name == key).map(|(_, _, value)| value),
            _ => None,
        }
    }

    /// The text, if this is text.
    pub fn as_str(&self) -> Option<&str> {
        match &self.value {
            Value::String(text) => Some(text),
            _ => None,
        }
    }

    /// The place of the field at `path` (`spec.importV4[1].cidr`), or of the nearest thing above it that exists.
    pub fn find(&self, path: &str) -> Position {
        let mut here = self;
        let mut position = self.position;
        for step in path.split('.').flat_map(|part| part.split_inclusive('[')) {
            let step = step.trim_end_matches('[');
            let next = match &here.value {
                Value::Map(pairs) => {
                    pairs.iter().find(|(name, _, _)| name == step).map(|(_, at, value)| (*at, value))
                }
                Value::Seq(items) => {
                    let index = step.strip_suffix(']').and_then(|index| index.parse::<usize>().ok());
                    index.and_then(|index| items.get(index)).map(|item| (item.position, item))
                }
                _ => None,
            };
            let Some((at, value)) = next else { break };
            position = at;
            here = value;
        }
        position
    }
}

impl From<&serde_json::Value> for Located {
    fn from(value: &serde_json::Value) -> Self {
        let value = match value {
            serde_json::Value::Null => Value::Null,
            serde_json::Value::Bool(value) => Value::Bool(*value),
            serde_json::Value::Number(number) => match (number.as_u64(), number.as_i64()) {
                (Some(number), _) => Value::Unsigned(number),
                (None, Some(number)) => Value::Signed(number),
                (None, None) => Value::Float(number.as_f64().unwrap_or(f64::NAN)),
            },
            serde_json::Value::String(text) => Value::String(text.clone()),
            serde_json::Value::Array(items) => Value::Seq(items.iter().map(Located::from).collect()),
            serde_json::Value::Object(pairs) => Value::Map(
                pairs
                    .iter()
                    .map(|(key, value)| (key.clone(), Position::default(), Located::from(value)))
                    .collect(),
            ),
        };
        Located { position: Position::default(), value }
    }
}

impl<'de> Deserialize<'de> for Located {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Value>::deserialize(deserializer)?;
        Ok(Located { position: position_of(spanned.referenced), value: spanned.value })
    }
}

fn position_of(location: serde_saphyr::Location) -> Position {
    Position { line: location.line(), column: location.column() }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }
    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }
    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(u64::try_from(value).map_or(Value::Signed(value), Value::Unsigned))
    }
    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Unsigned(value))
    }
    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Float(value))
    }
    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }
    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }
    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        Value::deserialize(deserializer)
    }
    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        Value::deserialize(deserializer)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Value::Seq(items))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut pairs = Vec::new();
        while let Some(key) = map.next_key::<Spanned<String>>()? {
            let at = position_of(key.referenced);
            pairs.push((key.value, at, map.next_value()?));
        }
        Ok(Value::Map(pairs))
    }
}

/// What a document does not deserialize for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldError {
    /// Path of the field: `spec.peerIP`; empty: the document itself.
    pub path: String,
    /// Its place.
    pub position: Position,
    /// What is wrong.
    pub message: String,
    /// False until the innermost value has said where it stands.
    placed: bool,
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for FieldError {}

impl de::Error for FieldError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        FieldError {
            path: String::new(),
            position: Position::default(),
            message: message.to_string(),
            placed: false,
        }
    }
}

impl FieldError {
    /// An error about the field at `path`, which stands at `position`.
    pub fn new(path: &str, position: Position, message: String) -> Self {
        FieldError { path: path.to_owned(), position, message, placed: true }
    }

    /// Gives it the place of `position`, unless something further inside has given it one.
    fn at(mut self, position: Position) -> Self {
        if !self.placed {
            self.position = position;
            self.placed = true;
        }
        self
    }

    /// Puts `step` in front of the path.
    fn below(mut self, step: &str) -> Self {
        let dot = if self.path.is_empty() || self.path.starts_with('[') { "" } else { "." };
        self.path = format!("{step}{dot}{}", self.path);
        self
    }
}

impl<'de> IntoDeserializer<'de, FieldError> for &'de Located {
    type Deserializer = Self;
    fn into_deserializer(self) -> Self {
        self
    }
}

impl<'de> Deserializer<'de> for &'de Located {
    type Error = FieldError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FieldError> {
        match &self.value {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::Unsigned(number) => visitor.visit_u64(*number),
            Value::Signed(number) => visitor.visit_i64(*number),
            Value::Float(number) => visitor.visit_f64(*number),
            Value::String(text) => visitor.visit_borrowed_str(text),
            Value::Seq(items) => visitor.visit_seq(Items { items: items.iter(), index: 0 }),
            Value::Map(pairs) => visitor.visit_map(Pairs { pairs: pairs.iter(), current: None }),
        }
        .map_err(|error: FieldError| error.at(self.position))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FieldError> {
        match &self.value {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, FieldError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, FieldError> {
        match &self.value {
            Value::String(text) => {
                let word: de::value::StrDeserializer<'_, FieldError> = text.as_str().into_deserializer();
                word.deserialize_enum(name, variants, visitor).map_err(|error| error.at(self.position))
            }
            _ => {
                let words = variants.join(", ");
                Err(de::Error::custom(format!("expected one of {words}")))
            }
        }
        .map_err(|error: FieldError| error.at(self.position))
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FieldError> {
        visitor.visit_unit()
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq
        tuple tuple_struct map struct identifier
    }
}

struct Items<'de> {
    items: std::slice::Iter<'de, Located>,
    index: usize,
}

impl<'de> SeqAccess<'de> for Items<'de> {
    type Error = FieldError;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, FieldError> {
        let Some(item) = self.items.next() else { return Ok(None) };
        let index = self.index;
        self.index += 1;
        seed.deserialize(item).map(Some).map_err(|error| error.at(item.position).below(&format!("[{index}]")))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.items.len())
    }
}

struct Pairs<'de> {
    pairs: std::slice::Iter<'de, (String, Position, Located)>,
    current: Option<&'de (String, Position, Located)>,
}

impl<'de> MapAccess<'de> for Pairs<'de> {
    type Error = FieldError;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, FieldError> {
        self.current = self.pairs.next();
        let Some((key, at, _)) = self.current else { return Ok(None) };
        let text: de::value::BorrowedStrDeserializer<'de, FieldError> =
            de::value::BorrowedStrDeserializer::new(key);
        seed.deserialize(text).map(Some).map_err(|error| error.at(*at).below(key))
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, FieldError> {
        let Some((key, at, value)) = self.current else {
            return Err(de::Error::custom("a value without a key"));
        };
        seed.deserialize(value).map_err(|error| error.at(*at).below(key))
    }
}
