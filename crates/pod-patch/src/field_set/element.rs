//! One step of a path: a field, a list item by its keys, a member of a set, or an index.

use std::cmp::Ordering;
use std::fmt;

use serde_json::{Map, Number, Value};

use crate::wording;

/// A step. The order (fields, keys, values, indexes) is the one `fieldsV1` and conflicts are written in.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Element {
    Field(String),
    /// The item of a list whose fields have these values; sorted by name.
    Key(Vec<(String, Leaf)>),
    /// The member of a set.
    Value(Leaf),
    Index(i64),
}

/// A value that names an item. Lists and objects never do in what we write; they are kept if another client's entry has them.
#[derive(Debug, Clone)]
pub(crate) struct Leaf(pub(crate) Value);

impl Element {
    pub(crate) fn field(name: &str) -> Element {
        Element::Field(name.to_owned())
    }

    /// From `f:name`, `k:{"name":"web"}`, `v:"x"`, `i:0`. `Ok(None)`: a kind of step that is not known, to be skipped.
    pub(crate) fn parse(text: &str) -> Result<Option<Element>, String> {
        let Some((kind, rest)) = text.split_once(':').filter(|(kind, _)| kind.len() == 1) else {
            return Err(format!("missing colon: {text}"));
        };
        let json = || serde_json::from_str::<Value>(rest).map_err(|error| format!("{text}: {error}"));
        Ok(Some(match kind {
            "f" => Element::field(rest),
            "v" => Element::Value(Leaf(json()?)),
            "i" => Element::Index(rest.parse().map_err(|error| format!("{text}: {error}"))?),
            "k" => match json()? {
                Value::Object(keys) => Element::keys(keys.into_iter().collect()),
                _ => return Err(format!("{text}: expected an object")),
            },
            _ => return Ok(None),
        }))
    }

    pub(crate) fn keys(keys: Vec<(String, Value)>) -> Element {
        let mut keys: Vec<_> = keys.into_iter().map(|(name, value)| (name, Leaf(value))).collect();
        keys.sort_by(|left, right| left.0.cmp(&right.0));
        Element::Key(keys)
    }

    /// The reverse of [`Element::parse`].
    pub(crate) fn encoded(&self) -> String {
        match self {
            Element::Field(name) => format!("f:{name}"),
            Element::Key(keys) => {
                let keys: Map<String, Value> =
                    keys.iter().map(|(name, value)| (name.clone(), value.0.clone())).collect();
                format!("k:{}", Value::Object(keys))
            }
            Element::Value(value) => format!("v:{}", value.0),
            Element::Index(index) => format!("i:{index}"),
        }
    }
}

/// As people read it in a conflict: `.name`, `[name="web"]`, `[="x"]`, `[0]`.
impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Element::Field(name) => write!(f, ".{name}"),
            Element::Key(keys) => {
                f.write_str("[")?;
                for (index, (name, value)) in keys.iter().enumerate() {
                    let comma = if index > 0 { "," } else { "" };
                    write!(f, "{comma}{name}={value}")?;
                }
                f.write_str("]")
            }
            Element::Value(value) => write!(f, "[={value}]"),
            Element::Index(index) => write!(f, "[{index}]"),
        }
    }
}

impl fmt::Display for Leaf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Value::String(text) => f.write_str(&wording::quoted(text)),
            other => write!(f, "{other}"),
        }
    }
}

impl Leaf {
    /// Values of different kinds keep this order.
    fn kind(&self) -> u8 {
        match self.0 {
            Value::Number(_) => 0,
            Value::String(_) => 1,
            Value::Bool(_) => 2,
            Value::Array(_) => 3,
            Value::Object(_) => 4,
            Value::Null => 5,
        }
    }
}

impl Ord for Leaf {
    fn cmp(&self, other: &Leaf) -> Ordering {
        match (&self.0, &other.0) {
            (Value::Number(left), Value::Number(right)) => compare_numbers(left, right),
            (Value::String(left), Value::String(right)) => left.cmp(right),
            (Value::Bool(left), Value::Bool(right)) => left.cmp(right),
            (Value::Array(_), Value::Array(_)) | (Value::Object(_), Value::Object(_)) => {
                self.0.to_string().cmp(&other.0.to_string())
            }
            _ => self.kind().cmp(&other.kind()),
        }
    }
}

/// By value, so that `80` and `80.0` are one port; integers that a float cannot hold still differ.
fn compare_numbers(left: &Number, right: &Number) -> Ordering {
    let whole = |number: &Number| {
        number.as_i64().map(i128::from).or_else(|| number.as_u64().map(i128::from)).or_else(|| {
            // Exact: an integer below 2^53 is one in a float too.
            #[allow(clippy::cast_possible_truncation)]
            number.as_f64().filter(|float| float.fract() == 0.0 && float.abs() < 9.0e15).map(|float| float as i128)
        })
    };
    match (whole(left), whole(right)) {
        (Some(left), Some(right)) => left.cmp(&right),
        (left_whole, right_whole) => {
            let (left, right) = (left.as_f64().unwrap_or(0.0), right.as_f64().unwrap_or(0.0));
            left.total_cmp(&right).then_with(|| left_whole.is_none().cmp(&right_whole.is_none()))
        }
    }
}

impl PartialOrd for Leaf {
    fn partial_cmp(&self, other: &Leaf) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Leaf {
    fn eq(&self, other: &Leaf) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Leaf {}
