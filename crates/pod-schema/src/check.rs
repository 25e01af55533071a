//! Strict decoding: would the API server's decoder take this value for that type, and what would it say?
//!
//! The decoder (`sigs.k8s.io/json`, Go's `encoding/json` with exact field names) goes on after a value of a wrong type and
//! reports the first one; types with a reader of their own (quantities, times) end decoding at once, so theirs wins.
//! Unknown fields are left out and listed.

mod literal;

use serde_json::Value;

use crate::table::Tag;
use crate::{Misfit, Type};

/// As upstream: more are not told.
pub(crate) const MOST: usize = 100;

#[derive(Debug, Clone, Copy)]
enum Step<'v> {
    Key(&'v str),
    Index(usize),
}

#[derive(Debug, Default)]
struct Decoder<'v> {
    path: Vec<Step<'v>>,
    /// The object type whose field is being decoded.
    owner: Option<Type>,
    /// Names of the fields on the way, without indices and keys of maps.
    fields: Vec<&'static str>,
    unknown: Vec<Misfit>,
    wrong: Option<Misfit>,
}

/// Decoding ended.
struct Ended;

pub(crate) fn check(ty: Type, value: &Value) -> Vec<Misfit> {
    let mut decoder = Decoder::default();
    let _: Result<(), Ended> = decoder.value(ty, value);
    let mut misfits: Vec<Misfit> = decoder.wrong.into_iter().collect();
    misfits.append(&mut decoder.unknown);
    misfits
}

impl<'v> Decoder<'v> {
    fn value(&mut self, ty: Type, value: &'v Value) -> Result<(), Ended> {
        match (ty.tag(), value) {
            (_, Value::Null) | (Tag::Any, _) => Ok(()),
            (Tag::Object, Value::Object(entries)) => {
                for (key, value) in entries {
                    self.field(ty, key, value)?;
                }
                Ok(())
            }
            (Tag::Map, Value::Object(entries)) => {
                for (key, value) in entries {
                    self.path.push(Step::Key(key));
                    self.value(ty.inner(), value)?;
                    self.path.pop();
                }
                Ok(())
            }
            (Tag::List, Value::Array(items)) => {
                for (index, item) in items.iter().enumerate() {
                    self.path.push(Step::Index(index));
                    self.value(ty.inner(), item)?;
                    self.path.pop();
                }
                Ok(())
            }
            (Tag::String, Value::String(_)) | (Tag::Boolean, Value::Bool(_)) | (Tag::Number, Value::Number(_)) => {
                Ok(())
            }
            (Tag::Bytes, Value::String(text)) => {
                if let Some(at) = literal::bad_base64(text) {
                    self.wrong(format!("illegal base64 data at input byte {at}"));
                }
                Ok(())
            }
            (Tag::Int32 | Tag::Int64, Value::Number(number)) => {
                if !literal::is_integer(number, ty.tag() == Tag::Int32) {
                    self.mistyped(&format!("number {number}"), ty.go_name());
                }
                Ok(())
            }
            (Tag::IntOrString | Tag::Quantity | Tag::Time | Tag::MicroTime | Tag::Duration, value) => {
                self.own_reader(ty.tag(), value)
            }
            (_, value) => {
                self.mistyped(literal::kind(value), ty.go_name());
                Ok(())
            }
        }
    }

    fn field(&mut self, ty: Type, key: &'v str, value: &'v Value) -> Result<(), Ended> {
        let Some(field) = ty.field(key) else {
            if self.unknown.len() < MOST {
                let path = self.path_to(Some(key));
                self.unknown.push(Misfit::Unknown { path });
            }
            return Ok(());
        };
        let owner = self.owner.replace(ty);
        self.fields.push(field.name);
        self.path.push(Step::Key(key));
        self.value(field.ty, value)?;
        self.path.pop();
        self.fields.pop();
        self.owner = owner;
        Ok(())
    }

    /// Types that read their JSON themselves.
    fn own_reader(&mut self, tag: Tag, value: &Value) -> Result<(), Ended> {
        let message = match (tag, value) {
            (Tag::IntOrString, Value::String(_)) => return Ok(()),
            (Tag::IntOrString, Value::Number(number)) if literal::is_integer(number, true) => return Ok(()),
            (Tag::IntOrString, Value::Number(number)) => self.mistype(&format!("number {number}"), "int32"),
            (Tag::IntOrString, other) => self.mistype(literal::kind(other), "int32"),
            (Tag::Quantity, Value::String(text)) => match literal::bad_quantity(text) {
                Some(message) => message.into(),
                None => return Ok(()),
            },
            (Tag::Quantity, Value::Number(_)) => return Ok(()),
            (Tag::Quantity, _) => literal::QUANTITY_FORMAT.into(),
            (Tag::Time | Tag::MicroTime, Value::String(text)) => match literal::bad_time(text, tag == Tag::MicroTime) {
                Some(message) => message,
                None => return Ok(()),
            },
            (_, Value::String(_)) => return Ok(()),
            (_, other) => self.mistype(literal::kind(other), "string"),
        };
        let path = self.path_to(None);
        self.wrong = Some(Misfit::Wrong { path, message });
        Err(Ended)
    }

    fn mistyped(&mut self, found: &str, wanted: &str) {
        let message = self.mistype(found, wanted);
        self.wrong(message);
    }

    /// Go's `UnmarshalTypeError`.
    fn mistype(&self, found: &str, wanted: &str) -> String {
        match self.owner {
            None => format!("json: cannot unmarshal {found} into Go value of type {wanted}"),
            Some(owner) => {
                let name = owner.go_name();
                let name = name.rsplit_once('.').map_or(name, |(_, name)| name);
                let fields = self.fields.join(".");
                format!("json: cannot unmarshal {found} into Go struct field {name}.{fields} of type {wanted}")
            }
        }
    }

    /// The first counts.
    fn wrong(&mut self, message: String) {
        if self.wrong.is_none() {
            let path = self.path_to(None);
            self.wrong = Some(Misfit::Wrong { path, message });
        }
    }

    fn path_to(&self, last: Option<&str>) -> String {
        let mut path = String::new();
        for step in self.path.iter().copied().chain(last.map(Step::Key)) {
            match step {
                Step::Index(index) => path.push_str(&format!("[{index}]")),
                Step::Key(key) => {
                    if !path.is_empty() {
                        path.push('.');
                    }
                    path.push_str(key);
                }
            }
        }
        path
    }
}
