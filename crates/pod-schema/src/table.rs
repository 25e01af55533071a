//! Reads the type table that the build script made (`build/table.rs` describes the records).

use crate::{Field, ListKind, PatchRule, Scalar, Shape, Type};

include!(concat!(env!("OUT_DIR"), "/layout.rs"));

static TABLE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/table.bin"));
static NAMES: &str = include_str!(concat!(env!("OUT_DIR"), "/names.txt"));

const TYPE: usize = 9;
const FIELD: usize = 12;
const INDEX: usize = 5;

/// How a value of a type is read; finer than [`Scalar`], as the decoder's errors are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tag {
    Any,
    String,
    Int32,
    Int64,
    Number,
    Boolean,
    IntOrString,
    Quantity,
    Time,
    MicroTime,
    Bytes,
    Object,
    Map,
    List,
    Duration,
}

const TAGS: [Tag; 15] = [
    Tag::Any,
    Tag::String,
    Tag::Int32,
    Tag::Int64,
    Tag::Number,
    Tag::Boolean,
    Tag::IntOrString,
    Tag::Quantity,
    Tag::Time,
    Tag::MicroTime,
    Tag::Bytes,
    Tag::Object,
    Tag::Map,
    Tag::List,
    Tag::Duration,
];

fn number(at: usize) -> u16 {
    u16::from_le_bytes([TABLE[at], TABLE[at + 1]])
}

fn name(at: usize) -> &'static str {
    let start = usize::from(number(at));
    &NAMES[start..start + usize::from(TABLE[at + 2])]
}

/// Binary search in records of `size` bytes that begin with a name.
fn find(wanted: &str, at: usize, count: usize, size: usize) -> Option<usize> {
    let (mut low, mut high) = (0, count);
    while low < high {
        let middle = usize::midpoint(low, high);
        let record = at + middle * size;
        match name(record).cmp(wanted) {
            std::cmp::Ordering::Equal => return Some(record),
            std::cmp::Ordering::Less => low = middle + 1,
            std::cmp::Ordering::Greater => high = middle,
        }
    }
    None
}

fn field_at(at: usize) -> Field {
    let flags = TABLE[at + 5];
    let key = name(at + 6);
    Field {
        name: name(at),
        ty: Type(number(at + 3)),
        required: flags & 1 != 0,
        patch: PatchRule {
            merge: flags & 2 != 0,
            retain_keys: flags & 4 != 0,
            merge_key: (!key.is_empty()).then_some(key),
        },
    }
}

pub(crate) fn named(wanted: &str) -> Option<Type> {
    find(wanted, NAMES_AT, (KINDS_AT - NAMES_AT) / INDEX, INDEX).map(|at| Type(number(at + 3)))
}

/// `wanted`: `apps/v1/Deployment`, `/v1/Pod`.
pub(crate) fn of_kind(wanted: &str) -> Option<Type> {
    find(wanted, KINDS_AT, (TABLE.len() - KINDS_AT) / INDEX, INDEX).map(|at| Type(number(at + 3)))
}

/// Every kind as `group/version/kind`.
pub(crate) fn kinds() -> impl Iterator<Item = &'static str> {
    (KINDS_AT..TABLE.len()).step_by(INDEX).map(name)
}

/// The names of all schemas, sorted.
#[cfg(test)]
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    (NAMES_AT..KINDS_AT).step_by(INDEX).map(name)
}

#[cfg(test)]
pub(crate) fn size() -> usize {
    TABLE.len() + NAMES.len()
}

impl Type {
    fn at(self) -> usize {
        debug_assert!(usize::from(self.0) < TYPES, "types come only from the table");
        usize::from(self.0) * TYPE
    }

    pub(crate) fn tag(self) -> Tag {
        TAGS[usize::from(TABLE[self.at()])]
    }

    /// `v1.Pod`, `[]v1.Container`, `int32`
    pub(crate) fn go_name(self) -> &'static str {
        name(self.at() + 6)
    }

    /// Item of a list, value of a map.
    pub(crate) fn inner(self) -> Type {
        Type(number(self.at() + 2))
    }

    /// Where the fields are, and how many.
    fn span(self) -> (usize, usize) {
        if self.tag() != Tag::Object {
            return (FIELDS_AT, 0);
        }
        (FIELDS_AT + usize::from(number(self.at() + 2)) * FIELD, usize::from(number(self.at() + 4)))
    }

    pub(crate) fn read_shape(self) -> Shape {
        let kind = TABLE[self.at() + 1];
        match self.tag() {
            Tag::Any => Shape::Any,
            Tag::String | Tag::Duration => Shape::Scalar(Scalar::String),
            Tag::Int32 | Tag::Int64 => Shape::Scalar(Scalar::Integer),
            Tag::Number => Shape::Scalar(Scalar::Number),
            Tag::Boolean => Shape::Scalar(Scalar::Boolean),
            Tag::IntOrString => Shape::Scalar(Scalar::IntOrString),
            Tag::Quantity => Shape::Scalar(Scalar::Quantity),
            Tag::Time | Tag::MicroTime => Shape::Scalar(Scalar::Time),
            Tag::Bytes => Shape::Scalar(Scalar::Bytes),
            Tag::Object => Shape::Object { atomic: kind == 1 },
            Tag::Map => Shape::Map { value: self.inner(), atomic: kind == 1 },
            Tag::List => Shape::List {
                item: self.inner(),
                kind: match kind {
                    0 => ListKind::Atomic,
                    1 => ListKind::Set,
                    more => ListKind::Map(KEY_LISTS[usize::from(more) - 2]),
                },
            },
        }
    }

    pub(crate) fn find_field(self, wanted: &str) -> Option<Field> {
        let (at, count) = self.span();
        find(wanted, at, count, FIELD).map(field_at)
    }

    pub(crate) fn all_fields(self) -> impl Iterator<Item = Field> {
        let (at, count) = self.span();
        (0..count).map(move |place| field_at(at + place * FIELD))
    }

    pub(crate) fn find_default(self, wanted: &str) -> Option<&'static str> {
        let (at, count) = self.span();
        let text = name(find(wanted, at, count, FIELD)? + 9);
        (!text.is_empty()).then_some(text)
    }
}
