//! The same in the older form, OpenAPI 2.0: one document for all groups.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use crate::model::Model;
use crate::openapi::{closure, point, references};
use crate::paths;
use crate::resources::GROUPS;

pub(crate) fn document(model: &Model) -> Value {
    let mut paths = Map::new();
    for group in GROUPS {
        paths.extend(paths::paths(model, group));
    }
    for methods in paths.values_mut() {
        let methods = methods.as_object_mut().expect("path has methods");
        for (method, operation) in methods {
            match method.as_str() {
                "parameters" => parameters(operation),
                _ => downgrade(operation),
            }
        }
    }
    let mut paths = Value::Object(paths);
    let mut wanted = BTreeSet::new();
    references(&paths, &mut wanted);
    let mut definitions = Map::new();
    for name in closure(model, wanted) {
        let mut schema = model.schemas[&name].clone();
        match name.rsplit('.').next() {
            Some("Quantity") => schema["type"] = json!("string"),
            Some("IntOrString") => {
                schema["type"] = json!("string");
                schema["format"] = json!("int-or-string");
            }
            _ => {}
        }
        schema.as_object_mut().expect("schema is an object").remove("x-kubernetes-int-or-string");
        flatten(&mut schema);
        point(&mut schema, "#/definitions/");
        definitions.insert(name, schema);
    }
    point(&mut paths, "#/definitions/");
    json!({
        "swagger": "2.0",
        "info": {"title": "Kubernetes", "version": "v1.35.0"},
        "paths": paths,
        "definitions": definitions,
    })
}

/// Here a reference stands beside a description, and there are no defaults (upstream leaves them out too).
fn flatten(value: &mut Value) {
    match value {
        Value::Object(entries) => {
            if let Some(Value::Array(all)) = entries.get_mut("allOf") {
                let reference = all[0]["$ref"].take();
                entries.remove("allOf");
                entries.insert("$ref".into(), reference);
            }
            if entries.get("default").is_some_and(|default| !default["type"].is_string()) {
                entries.remove("default");
            }
            entries.values_mut().for_each(flatten);
        }
        Value::Array(items) => items.iter_mut().for_each(flatten),
        _ => {}
    }
}

/// `schema: {type}` becomes `type`.
fn parameters(list: &mut Value) {
    for parameter in list.as_array_mut().into_iter().flatten() {
        let parameter = parameter.as_object_mut().expect("parameter is an object");
        if let Some(Value::Object(schema)) = parameter.remove("schema") {
            parameter.extend(schema);
        }
    }
}

/// Bodies and answers with media types inside become parameters and schemas, with the media types beside.
fn downgrade(operation: &mut Value) {
    let operation = operation.as_object_mut().expect("operation is an object");
    let list = operation.entry("parameters").or_insert(json!([]));
    parameters(list);
    let body = operation.remove("requestBody");
    if let Some(body) = body {
        let content = body["content"].as_object().expect("body has content");
        let media: Vec<&String> = content.keys().collect();
        let schema = content.values().next().expect("one body at least")["schema"].clone();
        let mut parameter = json!({"name": "body", "in": "body", "schema": schema});
        if body["required"] == true {
            parameter["required"] = json!(true);
        }
        operation["parameters"].as_array_mut().expect("a list").insert(0, parameter);
        operation.insert("consumes".into(), json!(media));
    }
    operation.insert("produces".into(), json!(["application/json"]));
    operation.insert("schemes".into(), json!(["https"]));
    for answer in operation["responses"].as_object_mut().expect("responses").values_mut() {
        let answer = answer.as_object_mut().expect("answer is an object");
        if let Some(content) = answer.remove("content") {
            let first = content.as_object().and_then(|content| content.values().next());
            answer.insert("schema".into(), first.expect("one answer at least")["schema"].clone());
        }
    }
}
