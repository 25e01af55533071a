//! The schemas as the API server publishes them: upstream's names, `required` lists and extensions.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::kinds::{Collected, Kind};

#[derive(Debug)]
pub(crate) struct Model {
    pub(crate) kinds: Vec<Kind>,
    /// By upstream's name; references are bare names (`$ref: io.k8s.api.core.v1.Pod`), a field with a reference has it
    /// in `allOf`.
    pub(crate) schemas: BTreeMap<String, Value>,
    /// (schema, field) → how Go calls its type, where that is not seen from the schema.
    pub(crate) go: BTreeMap<(String, String), String>,
}

impl Model {
    pub(crate) fn new(collected: Collected, facts: &str) -> Model {
        let mut model = Model { kinds: collected.kinds, schemas: BTreeMap::new(), go: BTreeMap::new() };
        for (name, schema) in collected.schemas {
            model.schemas.insert(name, normalise(schema));
        }
        model.annotate(facts);
        let kinds = model.kinds.clone();
        for kind in &kinds {
            let entry = json!({"group": kind.group, "version": kind.version, "kind": kind.kind});
            let schema = model.schemas.get_mut(&kind.schema).unwrap_or_else(|| panic!("{} has no schema", kind.schema));
            schema["x-kubernetes-group-version-kind"] = json!([entry]);
        }
        model
    }

    /// Reads `facts.txt`. A fact about a field that is not there is a mistake; one about a type that we do not have is
    /// not: the file covers whole API groups.
    fn annotate(&mut self, facts: &str) {
        let mut current: Option<String> = None;
        for line in facts.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let mut words = line.split_whitespace();
            let first = words.next().expect("line is not empty");
            if !line.starts_with(' ') {
                let name = schema_name(first, words.next().expect("type after group"));
                current = self.schemas.contains_key(&name).then_some(name);
                if let Some(name) = &current {
                    words.for_each(|word| annotate_type(self.schema(name), word));
                }
                continue;
            }
            let Some(name) = current.clone() else { continue };
            let field = &mut self.schema(&name)["properties"][first];
            assert!(field.is_object(), "facts.txt: {name} has no field {first}");
            for word in words {
                match word.split_once('=') {
                    Some(("patch", strategy)) => {
                        field["x-kubernetes-patch-strategy"] = json!(strategy.replace('+', ","));
                    }
                    Some(("key", key)) => field["x-kubernetes-patch-merge-key"] = json!(key),
                    Some(("map", keys)) => {
                        field["x-kubernetes-list-type"] = json!("map");
                        field["x-kubernetes-list-map-keys"] = json!(keys.split(',').collect::<Vec<_>>());
                    }
                    Some(("default", value)) => {
                        field["default"] = serde_json::from_str(value).expect("default is JSON");
                    }
                    None if word == "set" => field["x-kubernetes-list-type"] = json!("set"),
                    None if word == "atomic" || word == "granular" => field["x-kubernetes-map-type"] = json!(word),
                    Some(("go", _)) => {}
                    _ => panic!("facts.txt: what is {word} of {name}.{first}?"),
                }
            }
            for go in line.split_whitespace().filter_map(|word| word.strip_prefix("go=")) {
                self.go.insert((name.clone(), first.into()), go.into());
            }
        }
    }

    fn schema(&mut self, name: &str) -> &mut Value {
        self.schemas.get_mut(name).expect("schema exists")
    }
}

fn annotate_type(schema: &mut Value, word: &str) {
    match word.split_once('=') {
        None => schema["x-kubernetes-map-type"] = json!(word),
        Some(("optional", field)) => {
            let Some(Value::Array(required)) = schema.get_mut("required") else { panic!("{field} is not required") };
            required.retain(|name| name != field);
            if required.is_empty() {
                schema.as_object_mut().expect("schema is an object").remove("required");
            }
            schema["properties"][field]["default"] = json!("");
        }
        Some(("required", field)) => {
            let object = schema.as_object_mut().expect("schema is an object");
            let required = object.entry("required").or_insert(json!([])).as_array_mut().expect("a list");
            required.push(json!(field));
        }
        Some(_) => panic!("facts.txt: what is {word}?"),
    }
}

/// `("core/v1", "Pod")` → `io.k8s.api.core.v1.Pod`
fn schema_name(group_version: &str, kind: &str) -> String {
    let dotted = group_version.replace('/', ".");
    match group_version {
        "meta/v1" => format!("io.k8s.apimachinery.pkg.apis.{dotted}.{kind}"),
        _ => format!("io.k8s.api.{dotted}.{kind}"),
    }
}

/// One schema from the crate's form to upstream's.
fn normalise(mut schema: Value) -> Value {
    let object = schema.as_object_mut().expect("schema is an object");
    object.remove("$schema");
    // The crate's types insist on metadata, upstream's do not.
    if let Some(Value::Array(required)) = object.get_mut("required") {
        required.retain(|field| field != "metadata");
        if required.is_empty() {
            object.remove("required");
        }
    }
    if let Some(Value::Object(properties)) = object.get_mut("properties") {
        let list = properties.contains_key("items") && properties.contains_key("metadata");
        for (name, property) in properties.iter_mut() {
            normalise_property(name, property, list);
        }
    }
    schema
}

/// `list`: of a `PodList` and the like, whose `items` upstream says nothing about.
fn normalise_property(name: &str, property: &mut Value, list: bool) {
    let object = property.as_object_mut().expect("property is an object");
    dereference(object);
    if object.get("type") == Some(&json!("array")) && !(list && name == "items") {
        object.entry("x-kubernetes-list-type").or_insert(json!("atomic"));
    }
    for key in ["items", "additionalProperties"] {
        let mut inner = object.get_mut(key);
        while let Some(Value::Object(value)) = inner {
            dereference(value);
            inner = value.get_mut("items");
        }
    }
    if name == "metadata" && object.contains_key("allOf") {
        object.insert("default".into(), json!({}));
    }
}

/// `$ref` with siblings becomes `allOf` with one reference, which is how OpenAPI 3.0 allows them.
fn dereference(object: &mut Map<String, Value>) {
    let Some(Value::String(reference)) = object.remove("$ref") else { return };
    let name = reference.strip_prefix("#/$defs/").expect("reference into the definitions");
    object.insert("allOf".into(), json!([{"$ref": name}]));
}
