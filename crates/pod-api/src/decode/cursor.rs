//! The deserializer: one value, the way to it, and what a type may ask of it.

use std::cell::RefCell;
use std::fmt;

use serde::de::value::{BorrowedStrDeserializer, StrDeserializer};
use serde::de::{self, DeserializeSeed, IntoDeserializer, Visitor};
use serde_json::{Map, Value};

use super::{Log, Trail};
use crate::problem::{UNKNOWN_FIELD, quote};

/// Longest value text repeated in a message, in characters.
const QUOTED: usize = 40;

/// A value being decoded. `'de` is the input's life, `'t` the call's.
#[derive(Clone, Copy)]
pub(super) struct Cursor<'de, 't> {
    pub(super) value: &'de Value,
    pub(super) trail: &'t Trail<'t>,
    pub(super) log: &'t RefCell<Log>,
    /// What the structure around the value could have as members.
    pub(super) siblings: &'static [&'static str],
}

impl Cursor<'_, '_> {
    fn misfit(&self, message: String) {
        let path = self.trail.path();
        self.log.borrow_mut().misfits.add(path, message);
    }

    /// The value is not what the type expects; the caller goes on with an empty one.
    fn expected(&self, expected: &str) {
        let got = describe(self.value, self.log.borrow().reveal);
        let hint = match self.value {
            Value::Number(_) | Value::Bool(_) if expected == "string" => " (write it in quotes)",
            _ => "",
        };
        self.misfit(format!("Invalid type: expected {expected}, got {got}{hint}"));
    }

    /// A `null` that Go would read as the empty value: everywhere but inside an array, where it can only be a mistake.
    fn is_empty_null(&self) -> bool {
        self.value.is_null() && !matches!(self.trail, Trail::Item(..))
    }

    fn integer(&self, least: i128, most: i128) -> i128 {
        let number = self.value.as_i64().map(i128::from).or_else(|| self.value.as_u64().map(i128::from));
        match number {
            Some(number) if (least..=most).contains(&number) => number,
            Some(number) => {
                self.misfit(format!("Invalid value: {number}: must be between {least} and {most}, inclusive"));
                0
            }
            None => {
                if !self.is_empty_null() {
                    self.expected("integer");
                }
                0
            }
        }
    }
}

fn describe(value: &Value, reveal: bool) -> String {
    let kind = match value {
        Value::Null => return "null".to_owned(),
        Value::Array(_) => return "array".to_owned(),
        Value::Object(_) => return "object".to_owned(),
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
    };
    match value {
        _ if !reveal => kind.to_owned(),
        Value::String(text) if text.chars().count() > QUOTED => {
            format!("{kind} {}", quote(&(text.chars().take(QUOTED).collect::<String>() + "…")))
        }
        value => format!("{kind} {value}"),
    }
}

// === impl Deserializer for Cursor ===

/// `least..=most` of the integer type, then the visitor method of that type.
macro_rules! integers {
    ($($method:ident $visit:ident $type:ty),* $(,)?) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failed> {
            let number = self.integer(i128::from(<$type>::MIN), i128::from(<$type>::MAX));
            visitor.$visit(<$type>::try_from(number).unwrap_or_default())
        }
    )*};
}

impl<'de> de::Deserializer<'de> for Cursor<'de, '_> {
    type Error = Failed;

    integers! {
        deserialize_i8 visit_i8 i8, deserialize_i16 visit_i16 i16, deserialize_i32 visit_i32 i32,
        deserialize_i64 visit_i64 i64, deserialize_u8 visit_u8 u8, deserialize_u16 visit_u16 u16,
        deserialize_u32 visit_u32 u32, deserialize_u64 visit_u64 u64,
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failed> {
        match self.value {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::String(text) => visitor.visit_borrowed_str(text),
            Value::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
                (Some(number), ..) => visitor.visit_i64(number),
                (_, Some(number), _) => visitor.visit_u64(number),
                (.., number) => visitor.visit_f64(number.unwrap_or_default()),
            },
            Value::Array(_) => self.deserialize_seq(visitor),
            Value::Object(_) => self.deserialize_map(visitor),
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failed> {
        match self.value {
            Value::Bool(value) => visitor.visit_bool(*value),
            _ => {
                if !self.is_empty_null() {
                    self.expected("boolean");
                }
                visitor.visit_bool(false)
            }
        }
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failed> {
        if !self.value.is_number() && !self.is_empty_null() {
            self.expected("number");
        }
        visitor.visit_f64(self.value.as_f64().unwrap_or_default())
    }

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failed> {
        self.deserialize_f64(visitor)
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failed> {
        match self.value {
            Value::String(text) => visitor.visit_borrowed_str(text),
            _ => {
                if !self.is_empty_null() {
                    self.expected("string");
                }
                visitor.visit_borrowed_str("")
            }
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failed> {
        self.deserialize_str(visitor)
    }

    fn deserialize_char<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failed> {
        self.deserialize_str(visitor)
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failed> {
        self.deserialize_str(visitor)
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failed> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failed> {
        if self.value.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failed> {
        visitor.visit_unit()
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Failed> {
        visitor.visit_unit()
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value, Failed> {
        let scalar = self.value.is_string() || self.value.is_number();
        if name == "Quantity" && !scalar {
            if !self.is_empty_null() {
                self.expected("quantity");
            }
            return visitor.visit_newtype_struct(StrDeserializer::new("0"));
        }
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failed> {
        let items = match self.value {
            Value::Array(items) => items.as_slice(),
            _ => {
                if !self.is_empty_null() {
                    self.expected("array");
                }
                &[]
            }
        };
        visitor.visit_seq(Items { items: items.iter().enumerate(), of: self })
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Failed> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: usize,
        visitor: V,
    ) -> Result<V::Value, Failed> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failed> {
        self.deserialize_struct("", &[], visitor)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Failed> {
        let members = self.value.as_object().map(Map::iter);
        if members.is_none() && !self.is_empty_null() {
            self.expected("object");
        }
        visitor.visit_map(Members { members, value: None, of: self, fields })
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Failed> {
        visitor.visit_enum(self.value.as_str().unwrap_or_default().into_deserializer())
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failed> {
        self.deserialize_str(visitor)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failed> {
        if !self.value.is_null() {
            self.misfit(match self.closest_sibling() {
                Some(sibling) => format!("{UNKNOWN_FIELD}, did you mean {}?", quote(sibling)),
                None => UNKNOWN_FIELD.to_owned(),
            });
        }
        visitor.visit_unit()
    }
}

struct Items<'de, 't> {
    items: std::iter::Enumerate<std::slice::Iter<'de, Value>>,
    of: Cursor<'de, 't>,
}

impl<'de> de::SeqAccess<'de> for Items<'de, '_> {
    type Error = Failed;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Failed> {
        for (index, value) in self.items.by_ref() {
            let trail = Trail::Item(self.of.trail, index);
            if !self.of.is_refused(&trail) {
                return self.of.inside(seed, value, &trail, &[]).map(Some);
            }
        }
        Ok(None)
    }
}

struct Members<'de, 't> {
    /// `None`: what should be an object is not.
    members: Option<serde_json::map::Iter<'de>>,
    value: Option<(&'de str, &'de Value)>,
    of: Cursor<'de, 't>,
    fields: &'static [&'static str],
}

impl<'de> de::MapAccess<'de> for Members<'de, '_> {
    type Error = Failed;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Failed> {
        for (name, value) in self.members.iter_mut().flatten() {
            if !self.of.is_refused(&Trail::Member(self.of.trail, name)) {
                self.value = Some((name, value));
                return seed.deserialize(BorrowedStrDeserializer::new(name)).map(Some);
            }
        }
        Ok(None)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Failed> {
        let Some((name, value)) = self.value.take() else {
            return Err(de::Error::custom("value asked for before its key"));
        };
        self.of.inside(seed, value, &Trail::Member(self.of.trail, name), self.fields)
    }
}

impl<'de> Cursor<'de, '_> {
    /// The field that was probably meant by an unknown one.
    fn closest_sibling(&self) -> Option<&'static str> {
        let Trail::Member(_, name) = self.trail else { return None };
        let allowed = if name.len() < 4 { 1 } else { 2 };
        let distance = |field: &str| edits(&name.to_ascii_lowercase(), &field.to_ascii_lowercase());
        let closest = self.siblings.iter().min_by_key(|field| distance(field))?;
        (distance(closest) <= allowed).then_some(*closest)
    }

    fn is_refused(&self, trail: &Trail<'_>) -> bool {
        let log = self.log.borrow();
        !log.refused.is_empty() && {
            let path = trail.path();
            log.refused.iter().any(|(refused, _)| *refused == path)
        }
    }

    /// Decodes a value inside this one. A value its type refuses outright is remembered with its place, and the round fails.
    fn inside<T: DeserializeSeed<'de>>(
        &self,
        seed: T,
        value: &'de Value,
        trail: &Trail<'_>,
        siblings: &'static [&'static str],
    ) -> Result<T::Value, Failed> {
        let cursor = Cursor { value, trail, log: self.log, siblings };
        seed.deserialize(cursor).map_err(|mut failed| {
            if !failed.placed {
                let mut log = self.log.borrow_mut();
                let got = describe(value, log.reveal);
                let message = std::mem::take(&mut failed.message);
                log.refused.push((trail.path(), format!("Invalid value: {got}: {message}")));
                failed.placed = true;
            }
            failed
        })
    }
}

/// Levenshtein distance in bytes; field names are short and ASCII.
fn edits(from: &str, to: &str) -> usize {
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (at, a) in from.bytes().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], at + 1);
        for (column, b) in to.bytes().enumerate() {
            let substituted = diagonal + usize::from(a != b);
            diagonal = row[column + 1];
            row[column + 1] = substituted.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[to.len()]
}

/// A type refused its value.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) message: String,
    /// Already in the log, with its place.
    pub(super) placed: bool,
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failed {}

impl de::Error for Failed {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Failed { message: message.to_string(), placed: false }
    }
}
