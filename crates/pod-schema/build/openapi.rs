//! The OpenAPI documents: one of version 3.0 per group, all groups together in version 2.0, each compressed with gzip.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha512};

use crate::model::Model;
use crate::resources::{GROUPS, Group};
use crate::{gnostic, paths, swagger};

pub(crate) fn write(model: &Model, out: &Path) {
    let mut index = Map::new();
    let (mut documents, mut hashes) = (String::new(), String::new());
    for group in GROUPS {
        let root = paths::root(group);
        let text = serde_json::to_vec(&document(model, group)).expect("a value is JSON");
        let hash = hash(&text);
        let file = format!("openapi-{}.json.gz", root.replace('/', "-"));
        std::fs::write(out.join(&file), gzip(&text)).expect("document is written");
        index.insert(root.clone(), json!({"serverRelativeURL": format!("/openapi/v3/{root}?hash={hash}")}));
        let bytes = format!("include_bytes!(concat!(env!(\"OUT_DIR\"), \"/{file}\"))");
        writeln!(documents, "        {root:?} => Some({bytes}),").expect("write to a string");
        writeln!(hashes, "        {root:?} => Some({hash:?}),").expect("write to a string");
    }
    let swagger = swagger::document(model);
    let text = serde_json::to_vec(&swagger).expect("a value is JSON");
    std::fs::write(out.join("swagger.json.gz"), gzip(&text)).expect("document is written");
    std::fs::write(out.join("swagger.pb.gz"), gzip(&gnostic::encode(&swagger))).expect("document is written");
    let index = serde_json::to_string(&json!({"paths": index})).expect("a value is JSON");
    let code = format!(
        "const INDEX: &str = {index:?};\n\
         const V2_HASH: &str = {:?};\n\
         fn document(group_version: &str) -> Option<&'static [u8]> {{\n    match group_version {{\n{documents}        _ => None,\n    }}\n}}\n\
         fn hash(group_version: &str) -> Option<&'static str> {{\n    match group_version {{\n{hashes}        _ => None,\n    }}\n}}\n",
        hash(&text)
    );
    std::fs::write(out.join("openapi.rs"), code).expect("code is written");
}

fn document(model: &Model, group: &Group) -> Value {
    let mut paths = Value::Object(paths::paths(model, group));
    let mut wanted = BTreeSet::new();
    references(&paths, &mut wanted);
    for kind in group.kinds {
        let entry = model
            .kinds
            .iter()
            .find(|entry| (entry.group, entry.version, entry.kind.as_str()) == (group.group, group.version, *kind));
        wanted.insert(entry.expect("kind exists").schema.clone());
    }
    let mut schemas = Map::new();
    for name in closure(model, wanted) {
        let mut schema = model.schemas[&name].clone();
        match name.rsplit('.').next() {
            Some("Quantity") => schema["oneOf"] = json!([{"type": "string"}, {"type": "number"}]),
            Some("IntOrString") => {
                schema["format"] = json!("int-or-string");
                schema["oneOf"] = json!([{"type": "integer"}, {"type": "string"}]);
            }
            _ => {}
        }
        schema.as_object_mut().expect("schema is an object").remove("x-kubernetes-int-or-string");
        point(&mut schema, "#/components/schemas/");
        schemas.insert(name, schema);
    }
    point(&mut paths, "#/components/schemas/");
    json!({
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": "v1.35.0"},
        "paths": paths,
        "components": {"schemas": schemas},
    })
}

/// These schemas and all that they refer to.
pub(crate) fn closure(model: &Model, mut wanted: BTreeSet<String>) -> BTreeSet<String> {
    let mut reached = BTreeSet::new();
    while let Some(name) = wanted.pop_first() {
        if reached.insert(name.clone()) {
            references(&model.schemas[&name], &mut wanted);
            wanted.retain(|name| !reached.contains(name));
        }
    }
    reached
}

pub(crate) fn references(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(entries) => {
            if let Some(Value::String(name)) = entries.get("$ref") {
                found.insert(name.clone());
            }
            entries.values().for_each(|value| references(value, found));
        }
        Value::Array(items) => items.iter().for_each(|value| references(value, found)),
        _ => {}
    }
}

/// Bare names become references into the document; an `allOf` that stands alone is the reference itself.
pub(crate) fn point(value: &mut Value, prefix: &str) {
    match value {
        Value::Object(entries) => {
            if entries.len() == 1
                && let Some(Value::Array(all)) = entries.get_mut("allOf")
            {
                *value = all[0].take();
                return point(value, prefix);
            }
            if let Some(Value::String(name)) = entries.get_mut("$ref") {
                name.insert_str(0, prefix);
            }
            entries.values_mut().for_each(|value| point(value, prefix));
        }
        Value::Array(items) => items.iter_mut().for_each(|value| point(value, prefix)),
        _ => {}
    }
}

fn hash(text: &[u8]) -> String {
    let mut hash = String::new();
    for byte in Sha512::digest(text) {
        write!(hash, "{byte:02X}").expect("write to a string");
    }
    hash
}

/// Without name or time: the same text gives the same bytes.
pub(crate) fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::GzBuilder::new().mtime(0).write(Vec::new(), flate2::Compression::best());
    encoder.write_all(text).expect("write to memory");
    encoder.finish().expect("write to memory")
}
