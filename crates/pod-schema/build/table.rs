//! The type table: three arrays of fixed-size records in one blob and one string of names that they point into by offset,
//! so that the program carries no pointers that would have to be relocated. Read by `src/table.rs`; keep them in step.
//!
//! ```text
//! type   tag, kind, first u16, count u16, name          name: offset u16, length u8
//! field  name, type u16, flags, merge key name, default name
//! index  name, type u16                                 sorted by name; once for schemas, once for kinds
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

use serde_json::Value;

use crate::model::Model;

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct TypeRecord {
    tag: u8,
    kind: u8,
    first: u16,
    count: u16,
    go: String,
}

#[derive(Debug)]
struct FieldRecord {
    name: String,
    ty: u16,
    flags: u8,
    key: String,
    default: String,
}

const ANY: u8 = 0;
const STRING: u8 = 1;
const INT32: u8 = 2;
const INT64: u8 = 3;
const NUMBER: u8 = 4;
const BOOLEAN: u8 = 5;
const INT_OR_STRING: u8 = 6;
const QUANTITY: u8 = 7;
const TIME: u8 = 8;
const MICRO_TIME: u8 = 9;
const BYTES: u8 = 10;
const OBJECT: u8 = 11;
const MAP: u8 = 12;
const LIST: u8 = 13;
const DURATION: u8 = 14;

const REQUIRED: u8 = 1;
const MERGE: u8 = 2;
const RETAIN_KEYS: u8 = 4;

#[derive(Debug)]
struct Table<'m> {
    model: &'m Model,
    types: Vec<TypeRecord>,
    interned: BTreeMap<TypeRecord, u16>,
    named: BTreeMap<String, u16>,
    fields: Vec<FieldRecord>,
    key_lists: Vec<Vec<String>>,
}

pub(crate) fn write(model: &Model, out: &Path) {
    let mut table = Table {
        model,
        types: Vec::new(),
        interned: BTreeMap::new(),
        named: BTreeMap::new(),
        fields: Vec::new(),
        key_lists: Vec::new(),
    };
    // Places first: types refer to each other in circles.
    for name in model.schemas.keys() {
        let place = small(table.types.len());
        table.named.insert(name.clone(), place);
        table.types.push(TypeRecord { tag: ANY, kind: 0, first: 0, count: 0, go: String::new() });
    }
    for (name, schema) in &model.schemas {
        let record = table.named_type(name, schema);
        table.types[usize::from(table.named[name])] = record;
    }
    let strings = Strings::new(&table);
    let mut blob = Vec::new();
    for ty in &table.types {
        blob.extend([ty.tag, ty.kind]);
        blob.extend(ty.first.to_le_bytes());
        blob.extend(ty.count.to_le_bytes());
        strings.write(&mut blob, &ty.go);
    }
    let fields_at = blob.len();
    for field in &table.fields {
        strings.write(&mut blob, &field.name);
        blob.extend(field.ty.to_le_bytes());
        blob.push(field.flags);
        strings.write(&mut blob, &field.key);
        strings.write(&mut blob, &field.default);
    }
    let names_at = blob.len();
    for (name, ty) in &table.named {
        strings.write(&mut blob, name);
        blob.extend(ty.to_le_bytes());
    }
    let kinds_at = blob.len();
    for (name, ty) in table.kinds() {
        strings.write(&mut blob, &name);
        blob.extend(ty.to_le_bytes());
    }
    let mut layout = String::new();
    let lists: Vec<String> = table.key_lists.iter().map(|keys| format!("&{keys:?}")).collect();
    writeln!(layout, "const TYPES: usize = {};", table.types.len()).expect("write to a string");
    writeln!(layout, "const FIELDS_AT: usize = {fields_at};").expect("write to a string");
    writeln!(layout, "const NAMES_AT: usize = {names_at};").expect("write to a string");
    writeln!(layout, "const KINDS_AT: usize = {kinds_at};").expect("write to a string");
    writeln!(layout, "static KEY_LISTS: &[&[&str]] = &[{}];", lists.join(", ")).expect("write to a string");
    std::fs::write(out.join("layout.rs"), layout).expect("layout is written");
    std::fs::write(out.join("table.bin"), blob).expect("table is written");
    std::fs::write(out.join("names.txt"), &strings.pool).expect("names are written");
}

impl Table<'_> {
    fn named_type(&mut self, name: &str, schema: &Value) -> TypeRecord {
        let go = go_name(name);
        let scalar = |tag| TypeRecord { tag, kind: 0, first: 0, count: 0, go: go.clone() };
        match go.as_str() {
            "resource.Quantity" => return scalar(QUANTITY),
            "intstr.IntOrString" => return scalar(INT_OR_STRING),
            "v1.Time" => return scalar(TIME),
            "v1.MicroTime" => return scalar(MICRO_TIME),
            "v1.Duration" => return scalar(DURATION),
            _ => {}
        }
        let Some(properties) = schema["properties"].as_object() else { return scalar(ANY) };
        let required: BTreeSet<&str> =
            schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let records: Vec<FieldRecord> = properties
            .iter()
            .map(|(field, property)| {
                let strategy = property["x-kubernetes-patch-strategy"].as_str().unwrap_or_default();
                let mut flags = if required.contains(field.as_str()) { REQUIRED } else { 0 };
                for word in strategy.split(',') {
                    flags |= match word {
                        "merge" => MERGE,
                        "retainKeys" => RETAIN_KEYS,
                        _ => 0,
                    };
                }
                let go = self.model.go.get(&(name.to_owned(), field.clone())).map(String::as_str);
                FieldRecord {
                    name: field.clone(),
                    ty: self.place(property, go),
                    flags,
                    key: property["x-kubernetes-patch-merge-key"].as_str().unwrap_or_default().into(),
                    default: match &property["default"] {
                        Value::String(text) if !text.is_empty() => format!("{text:?}"),
                        _ => String::new(),
                    },
                }
            })
            .collect();
        let record = TypeRecord {
            tag: OBJECT,
            kind: u8::from(schema["x-kubernetes-map-type"] == "atomic"),
            first: small(self.fields.len()),
            count: small(records.len()),
            go,
        };
        self.fields.extend(records);
        record
    }

    /// The place of the type of a property, of items or of values; `go`: its name in Go if that is not seen here.
    fn place(&mut self, schema: &Value, go: Option<&str>) -> u16 {
        let map_type = schema["x-kubernetes-map-type"].as_str();
        if let Some(reference) = schema["allOf"][0]["$ref"].as_str() {
            let place = self.named[reference];
            let Some(map_type) = map_type else { return place };
            // The field knows better than its type.
            let referred = self.model.schemas[reference].clone();
            let mut record = self.named_type(reference, &referred);
            record.kind = u8::from(map_type == "atomic");
            return self.intern(record);
        }
        let go_or = |other: &str| go.unwrap_or(other).to_owned();
        let inner = |prefix: &str| go.and_then(|go| go.strip_prefix(prefix));
        let record = match (schema["type"].as_str(), schema["format"].as_str()) {
            (Some("string"), Some("byte")) => {
                TypeRecord { tag: BYTES, kind: 0, first: 0, count: 0, go: go_or("[]uint8") }
            }
            (Some("string"), _) => TypeRecord { tag: STRING, kind: 0, first: 0, count: 0, go: go_or("string") },
            (Some("integer"), Some("int32")) => {
                TypeRecord { tag: INT32, kind: 0, first: 0, count: 0, go: go_or("int32") }
            }
            (Some("integer"), _) => TypeRecord { tag: INT64, kind: 0, first: 0, count: 0, go: go_or("int64") },
            (Some("number"), _) => TypeRecord { tag: NUMBER, kind: 0, first: 0, count: 0, go: go_or("float64") },
            (Some("boolean"), _) => TypeRecord { tag: BOOLEAN, kind: 0, first: 0, count: 0, go: go_or("bool") },
            (Some("array"), _) => {
                let item = self.place(&schema["items"], inner("[]"));
                let name = format!("[]{}", self.go_of(item, &schema["items"]));
                TypeRecord { tag: LIST, kind: self.list_kind(schema), first: item, count: 0, go: go_or(&name) }
            }
            (Some("object"), _) if schema["additionalProperties"].is_object() => {
                let value = self.place(&schema["additionalProperties"], inner("map[string]"));
                let name = format!("map[string]{}", self.go_of(value, &schema["additionalProperties"]));
                let kind = u8::from(map_type == Some("atomic"));
                TypeRecord { tag: MAP, kind, first: value, count: 0, go: go_or(&name) }
            }
            _ => TypeRecord { tag: ANY, kind: 0, first: 0, count: 0, go: go_or("interface {}") },
        };
        self.intern(record)
    }

    /// The Go name of a type whose record may not be written yet.
    fn go_of(&self, place: u16, schema: &Value) -> String {
        match schema["allOf"][0]["$ref"].as_str() {
            Some(reference) => go_name(reference),
            None => self.types[usize::from(place)].go.clone(),
        }
    }

    fn list_kind(&mut self, schema: &Value) -> u8 {
        match schema["x-kubernetes-list-type"].as_str() {
            Some("set") => 1,
            Some("map") => {
                let keys: Vec<String> = schema["x-kubernetes-list-map-keys"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .filter_map(|key| key.as_str().map(str::to_owned))
                    .collect();
                let place = self.key_lists.iter().position(|known| *known == keys).unwrap_or_else(|| {
                    self.key_lists.push(keys);
                    self.key_lists.len() - 1
                });
                u8::try_from(place + 2).expect("few lists of keys")
            }
            _ => 0,
        }
    }

    fn intern(&mut self, record: TypeRecord) -> u16 {
        let next = small(self.types.len());
        let place = *self.interned.entry(record.clone()).or_insert(next);
        if place == next {
            self.types.push(record);
        }
        place
    }

    fn kinds(&self) -> BTreeMap<String, u16> {
        let key = |kind: &crate::kinds::Kind| format!("{}/{}/{}", kind.group, kind.version, kind.kind);
        self.model.kinds.iter().map(|kind| (key(kind), self.named[&kind.schema])).collect()
    }
}

/// All names in one string, each once, as part of another where it is one.
#[derive(Debug)]
struct Strings {
    pool: String,
    places: BTreeMap<String, u16>,
}

impl Strings {
    fn new(table: &Table<'_>) -> Strings {
        let mut all: BTreeSet<String> = table.types.iter().map(|ty| ty.go.clone()).collect();
        for field in &table.fields {
            all.extend([field.name.clone(), field.key.clone(), field.default.clone()]);
        }
        all.extend(table.named.keys().cloned());
        all.extend(table.kinds().into_keys());
        let mut sorted: Vec<&String> = all.iter().collect();
        sorted.sort_by_key(|name| (std::cmp::Reverse(name.len()), name.as_str()));
        let mut pool = String::new();
        let mut places = BTreeMap::new();
        for name in sorted {
            let place = pool.find(name.as_str()).unwrap_or_else(|| {
                pool.push_str(name);
                pool.len() - name.len()
            });
            places.insert(name.clone(), small(place));
        }
        Strings { pool, places }
    }

    fn write(&self, blob: &mut Vec<u8>, name: &str) {
        blob.extend(self.places[name].to_le_bytes());
        blob.push(u8::try_from(name.len()).expect("names are short"));
    }
}

/// `io.k8s.api.core.v1.Pod` → `v1.Pod`
fn go_name(schema: &str) -> String {
    let mut parts = schema.rsplit('.');
    let (name, package) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    format!("{package}.{name}")
}

fn small(number: usize) -> u16 {
    u16::try_from(number).expect("the table is small")
}
