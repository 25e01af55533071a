//! Objects of manifests, in the order they stand there.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::arguments::Files;
use super::value::{self, text as text_at};
use super::{Node, Outcome, Trouble, text};
use pod_client::Kind;

/// An object of a file, or of the command line.
#[derive(Debug, Clone)]
pub(crate) struct Document {
    pub(crate) object: Value,
    /// As the file was named; `STDIN`.
    pub(crate) source: String,
}

/// A document whose kind the server has.
#[derive(Debug)]
pub(crate) struct Placed<'a> {
    pub(crate) kind: &'a Kind,
    /// Empty for kinds without.
    pub(crate) namespace: String,
    pub(crate) name: String,
    /// With its namespace filled in.
    pub(crate) object: Value,
    pub(crate) source: String,
}

/// All documents that can be read, and what keeps others from it.
pub(crate) fn read(files: &Files) -> (Vec<Document>, Vec<Trouble>) {
    let (mut documents, mut troubles) = (Vec::new(), Vec::new());
    for path in &files.filenames {
        match places(path, files.recursive) {
            Ok(places) => {
                for (place, content) in places {
                    match objects(&content) {
                        Ok(objects) => documents
                            .extend(objects.into_iter().map(|object| Document { object, source: place.clone() })),
                        Err(reason) => {
                            troubles.push(Trouble::Text(format!("error parsing {place}: {reason}")));
                        }
                    }
                }
            }
            Err(trouble) => troubles.push(trouble),
        }
    }
    (documents, troubles)
}

/// The texts a name stands for.
fn places(path: &Path, recursive: bool) -> Outcome<Vec<(String, String)>> {
    let shown = path.display().to_string();
    if path == Path::new("-") {
        let mut content = String::new();
        std::io::stdin().lock().read_to_string(&mut content)?;
        return Ok(vec![("STDIN".to_owned(), content)]);
    }
    if shown.starts_with("http://") || shown.starts_with("https://") {
        return text(format!("{shown}: addresses are not fetched; try: curl -fsS {shown} | outrigger apply -f -"));
    }
    let read = |path: &Path| {
        std::fs::read_to_string(path)
            .map(|content| (path.display().to_string(), content))
            .map_err(|error| Trouble::Text(format!("failed to read `{}`: {error}", path.display())))
    };
    if path.is_dir() {
        let mut found = Vec::new();
        collect(path, recursive, &mut found)
            .map_err(|error| Trouble::Text(format!("failed to read `{shown}`: {error}")))?;
        if found.is_empty() {
            return text(format!("error reading [{shown}]: recognized file extensions are [.json .yaml .yml]"));
        }
        return found.iter().map(|path| read(path)).collect();
    }
    if !path.exists() {
        return text(format!("the path \"{shown}\" does not exist"));
    }
    Ok(vec![read(path)?])
}

fn collect(directory: &Path, recursive: bool, found: &mut Vec<PathBuf>) -> std::io::Result<()> {
    let mut entries = std::fs::read_dir(directory)?.collect::<Result<Vec<_>, _>>()?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        if path.is_dir() {
            if recursive {
                collect(&path, recursive, found)?;
            }
        } else if path.extension().is_some_and(|extension| ["json", "yaml", "yml"].iter().any(|one| extension == *one))
        {
            found.push(path);
        }
    }
    Ok(())
}

fn objects(content: &str) -> Result<Vec<Value>, String> {
    let mut objects = Vec::new();
    for (document, duplicates) in pod_api::yaml_documents(content)? {
        if let Some((line, key)) = duplicates.first() {
            return Err(format!("line {line}: key \"{key}\" already set in map"));
        }
        flatten(document, &mut objects);
    }
    Ok(objects)
}

/// Lists are their items.
fn flatten(document: Value, objects: &mut Vec<Value>) {
    match document {
        Value::Null => {}
        Value::Object(mut members)
            if members.get("kind").and_then(Value::as_str).is_some_and(|kind| kind.ends_with("List"))
                && members.get("items").is_some_and(Value::is_array) =>
        {
            if let Some(Value::Array(items)) = members.remove("items") {
                items.into_iter().for_each(|item| flatten(item, objects));
            }
        }
        other => objects.push(other),
    }
}

impl Document {
    /// Finds the kind, and the namespace if the document names none.
    pub(crate) async fn place(self, node: &Node) -> Outcome<Placed<'_>> {
        let Document { mut object, source } = self;
        let (version, kind) = (text_at(&object, "apiVersion"), text_at(&object, "kind"));
        if kind.is_empty() {
            return text(format!("unable to decode \"{source}\": Object 'Kind' is missing in '{object}'"));
        }
        if version.is_empty() {
            return text(format!("error validating \"{source}\": error validating data: apiVersion not set"));
        }
        for field in ["name", "namespace"] {
            // `y` and `on` are no texts in YAML.
            let shape = match &object["metadata"][field] {
                Value::Null | Value::String(_) => continue,
                Value::Bool(_) => "bool",
                Value::Number(_) => "number",
                Value::Array(_) => "array",
                Value::Object(_) => "object",
            };
            return text(format!(
                "unable to decode \"{source}\": json: cannot unmarshal {shape} into Go struct field ObjectMeta.metadata.{field} \
                 of type string"
            ));
        }
        let kind = node.discovery().await?.of(version, kind).map_err(|error| {
            let name = value::name(&object);
            let place = match value::namespace(&object) {
                "" => node.namespace.as_str(),
                namespace => namespace,
            };
            Trouble::Text(format!(
                "resource mapping not found for name: \"{name}\" namespace: \"{place}\" from \"{source}\": {error}\n\
                 ensure CRDs are installed first"
            ))
        })?;
        let mut namespace = String::new();
        if kind.namespaced {
            namespace = match value::namespace(&object) {
                "" => node.namespace.clone(),
                own if node.enforced && own != node.namespace => {
                    return text(format!(
                        "the namespace from the provided object \"{own}\" does not match the namespace \"{}\". You must \
                         pass '--namespace={own}' to perform this operation.",
                        node.namespace
                    ));
                }
                own => own.to_owned(),
            };
            match object.get_mut("metadata").and_then(Value::as_object_mut) {
                Some(metadata) => drop(metadata.insert("namespace".to_owned(), namespace.clone().into())),
                None => return text(format!("error parsing {source}: metadata of {} is no mapping", kind.kind)),
            }
        }
        let name = value::name(&object).to_owned();
        Ok(Placed { kind, namespace, name, object, source })
    }
}

impl Placed<'_> {
    pub(crate) fn path(&self) -> String {
        self.kind.path(&self.namespace, &self.name)
    }

    /// `pod/web`
    pub(crate) fn said(&self) -> String {
        format!("{}/{}", self.kind.said(), self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_flattened_and_order_is_kept() {
        let text =
            "kind: A\n---\n---\nkind: List\nitems: [{kind: B}, {kind: CList, items: [{kind: D}]}]\n---\nkind: E\n";
        let kinds: Vec<_> = objects(text).expect("valid").iter().map(|object| object["kind"].clone()).collect();
        assert_eq!(kinds, ["A", "B", "D", "E"]);
        assert!(objects("a: 1\na: 2").expect_err("twice").contains("key \"a\" already set"));
    }
}
