//! The operations of a group, in the form of OpenAPI 3.0.

use serde_json::{Map, Value, json};

use crate::model::Model;
use crate::resources::{Group, Resource, Subresource, Verbs};

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";
const PATCHES: [&str; 4] = [
    "application/apply-patch+yaml",
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
];

/// `api/v1`, `apis/policy/v1`
pub(crate) fn root(group: &Group) -> String {
    match group.group {
        "" => format!("api/{}", group.version),
        name => format!("apis/{name}/{}", group.version),
    }
}

pub(crate) fn paths(model: &Model, group: &Group) -> Map<String, Value> {
    let mut writer = Writer { model, group, paths: Map::new() };
    let root = root(group);
    let resources = writer.operation("get", "get", "APIResources", ("", "v1", ""), &[]);
    let resources = with_answer(resources, &format!("{META}.APIResourceList"));
    writer.paths.insert(format!("/{root}/"), json!({"get": resources}));
    for resource in group.resources {
        writer.resource(&root, resource);
    }
    writer.paths
}

struct Writer<'m> {
    model: &'m Model,
    group: &'m Group,
    paths: Map<String, Value>,
}

impl Writer<'_> {
    fn resource(&mut self, root: &str, resource: &Resource) {
        let gvk = (self.group.group, self.group.version, resource.kind);
        let scope = if resource.namespaced { "Namespaced" } else { "" };
        let name = format!("{scope}{}", resource.kind);
        let prefix = if resource.namespaced { "/namespaces/{namespace}" } else { "" };
        let collection = format!("/{root}{prefix}/{}", resource.plural);
        let item = format!("{collection}/{{name}}");
        let written = matches!(resource.verbs, Verbs::All | Verbs::OneByOne);
        let stored = resource.verbs != Verbs::Ask;
        let mut methods = Map::new();
        if stored {
            methods.insert("get".into(), self.list(&name, gvk));
        }
        if resource.verbs != Verbs::Read {
            methods.insert("post".into(), self.write("post", &name, gvk));
        }
        if resource.verbs == Verbs::All {
            let operation = self.operation("deletecollection", "deletecollection", &name, gvk, DELETE_COLLECTION);
            methods.insert("delete".into(), self.delete(operation));
        }
        self.path(collection, methods, resource.namespaced, false);
        if stored {
            let mut methods = Map::new();
            methods.insert("get".into(), self.read(&name, gvk));
            if written {
                methods.insert("put".into(), self.write("put", &name, gvk));
                methods.insert("patch".into(), self.write("patch", &name, gvk));
                let operation = self.operation("delete", "delete", &name, gvk, DELETE);
                methods.insert("delete".into(), self.delete(operation));
            }
            self.path(item.clone(), methods, resource.namespaced, true);
        }
        if stored && resource.namespaced {
            let mut methods = Map::new();
            methods.insert("get".into(), self.list(&format!("{}ForAllNamespaces", resource.kind), gvk));
            self.path(format!("/{root}/{}", resource.plural), methods, false, false);
        }
        for part in resource.subresources {
            self.subresource(&item, &name, resource, part);
        }
    }

    fn subresource(&mut self, item: &str, name: &str, resource: &Resource, part: &Subresource) {
        let name = format!("{name}{}", capital(part.name));
        let own = (self.group.group, self.group.version, resource.kind);
        let mut methods = Map::new();
        for &method in part.methods {
            let operation = match (method, part.kind) {
                ("connect", _) => {
                    for method in ["get", "post"] {
                        let verb = format!("connect{}", capital(method));
                        let operation = self.operation(&verb, "connect", &name, own, STREAM);
                        methods.insert(method.into(), with_text(operation));
                    }
                    continue;
                }
                ("get", (_, _, "")) => with_text(self.operation("get", "get", &name, own, LOG)),
                ("get", kind) => self.read(&name, kind),
                (method, kind) => self.write(method, &name, kind),
            };
            methods.insert(method.into(), operation);
        }
        self.path(format!("{item}/{}", part.name), methods, resource.namespaced, true);
    }

    fn path(&mut self, path: String, mut methods: Map<String, Value>, namespaced: bool, named: bool) {
        let mut parameters = Vec::new();
        if named {
            parameters.push(in_path("name", "Name of the object."));
        }
        if namespaced {
            parameters.push(in_path("namespace", "Namespace of the object."));
        }
        parameters.push(in_query(&("pretty", "string", "If 'true', the answer is indented.")));
        methods.insert("parameters".into(), parameters.into());
        self.paths.insert(path, methods.into());
    }

    fn operation(&self, verb: &str, action: &str, name: &str, gvk: (&str, &str, &str), query: &[Query]) -> Value {
        let (group, version, kind) = gvk;
        let tag = match self.group.group {
            "" => format!("core_{}", self.group.version),
            name => format!("{}_{}", name.split('.').next().unwrap_or(name), self.group.version),
        };
        let id: String = tag.split('_').map(capital).collect();
        let verb_word = match verb {
            "get" => "read",
            "post" => "create",
            "put" => "replace",
            "deletecollection" => "deleteCollection",
            other => other,
        };
        let mut operation = json!({
            "tags": [tag],
            "operationId": format!("{verb_word}{id}{name}"),
            "responses": {"401": {"description": "Unauthorized"}},
        });
        if !query.is_empty() {
            operation["parameters"] = query.iter().map(in_query).collect();
        }
        if !kind.is_empty() {
            operation["x-kubernetes-action"] = json!(action);
            operation["x-kubernetes-group-version-kind"] = json!({"group": group, "version": version, "kind": kind});
        }
        operation
    }

    fn list(&self, name: &str, gvk: (&str, &str, &str)) -> Value {
        let operation = self.operation("list", "list", name, gvk, LIST);
        with_answer(operation, &format!("{}List", self.schema(gvk)))
    }

    fn read(&self, name: &str, gvk: (&str, &str, &str)) -> Value {
        with_answer(self.operation("get", "get", name, gvk, &[]), &self.schema(gvk))
    }

    fn write(&self, method: &str, name: &str, gvk: (&str, &str, &str)) -> Value {
        let mut query = WRITE.to_vec();
        if method == "patch" {
            query.push(FORCE);
        }
        let schema = self.schema(gvk);
        let mut operation = with_answer(self.operation(method, method, name, gvk, &query), &schema);
        let created = operation["responses"]["200"].clone();
        operation["responses"]["201"] = created;
        operation["responses"]["201"]["description"] = json!("Created");
        let body = json!({"schema": {"$ref": schema}});
        let patch = json!({"schema": {"$ref": format!("{META}.Patch")}});
        let content: Map<String, Value> = match method {
            "patch" => PATCHES.iter().map(|media| ((*media).to_owned(), patch.clone())).collect(),
            _ => [("*/*".to_owned(), body)].into_iter().collect(),
        };
        operation["requestBody"] = json!({"required": true, "content": content});
        operation
    }

    fn delete(&self, operation: Value) -> Value {
        let mut operation = with_answer(operation, &format!("{META}.Status"));
        let options = json!({"schema": {"$ref": format!("{META}.DeleteOptions")}});
        operation["requestBody"] = json!({"content": {"*/*": options}});
        operation
    }

    fn schema(&self, (group, version, kind): (&str, &str, &str)) -> String {
        let found = self
            .model
            .kinds
            .iter()
            .find(|entry| entry.group == group && entry.version == version && entry.kind == kind);
        found.unwrap_or_else(|| panic!("{group}/{version} has no {kind}")).schema.clone()
    }
}

fn with_answer(mut operation: Value, schema: &str) -> Value {
    let content = json!({"application/json": {"schema": {"$ref": schema}}});
    operation["responses"]["200"] = json!({"description": "OK", "content": content});
    operation
}

fn with_text(mut operation: Value) -> Value {
    let content = json!({"*/*": {"schema": {"type": "string"}}});
    operation["responses"]["200"] = json!({"description": "OK", "content": content});
    operation
}

pub(crate) fn capital(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

/// Name, type, description.
type Query = (&'static str, &'static str, &'static str);

fn in_query(&(name, kind, description): &Query) -> Value {
    json!({"name": name, "in": "query", "description": description, "schema": {"type": kind, "uniqueItems": true}})
}

fn in_path(name: &str, description: &str) -> Value {
    let schema = json!({"type": "string", "uniqueItems": true});
    json!({"name": name, "in": "path", "required": true, "description": description, "schema": schema})
}

const DRY_RUN: Query = ("dryRun", "string", "'All': go through everything but store nothing.");
const FORCE: Query = ("force", "boolean", "Server-side apply only: take over fields that others own.");
const WRITE: [Query; 3] = [
    DRY_RUN,
    ("fieldManager", "string", "Name of who makes the change, for the ownership of fields. At most 128 characters."),
    (
        "fieldValidation",
        "string",
        "What to do about unknown and duplicate fields: 'Ignore' them, 'Warn' (the default) or refuse them ('Strict').",
    ),
];
const CHOICE: [Query; 2] = [
    ("fieldSelector", "string", "Only objects whose fields have these values."),
    ("labelSelector", "string", "Only objects whose labels fit."),
];
const DELETE: &[Query] = &[
    DRY_RUN,
    ("gracePeriodSeconds", "integer", "Seconds until the object goes; 0 is at once."),
    ("orphanDependents", "boolean", "Deprecated: see propagationPolicy."),
    ("propagationPolicy", "string", "What becomes of dependents: 'Orphan', 'Background' or 'Foreground'."),
];
const DELETE_COLLECTION: &[Query] = &[CHOICE[0], CHOICE[1], DELETE[0], DELETE[1], DELETE[2], DELETE[3]];
const LIST: &[Query] = &[
    ("allowWatchBookmarks", "boolean", "Send bookmarks in a watch."),
    ("continue", "string", "Go on where an earlier list with a limit ended."),
    CHOICE[0],
    CHOICE[1],
    ("limit", "integer", "At most so many objects."),
    ("resourceVersion", "string", "Not older than this version."),
    ("resourceVersionMatch", "string", "How resourceVersion is meant for a list: 'Exact' or 'NotOlderThan'."),
    ("sendInitialEvents", "boolean", "A watch starts with the objects that exist."),
    ("timeoutSeconds", "integer", "End a watch after so many seconds."),
    ("watch", "boolean", "Stay and send changes."),
];
const LOG: &[Query] = &[
    ("container", "string", "Of this container; may be left out if the pod has one."),
    ("follow", "boolean", "Stay and send what is written."),
    ("limitBytes", "integer", "At most so many bytes."),
    ("previous", "boolean", "Of the container's previous run."),
    ("sinceSeconds", "integer", "Lines of the last seconds."),
    ("stream", "string", "'All' (default), 'Stdout' or 'Stderr'."),
    ("tailLines", "integer", "The last lines only."),
    ("timestamps", "boolean", "Each line begins with its time."),
];
const STREAM: &[Query] = &[
    ("command", "string", "A word of the command to run (exec); may be repeated."),
    ("container", "string", "In this container; may be left out if the pod has one."),
    ("ports", "integer", "Ports to forward (portforward)."),
    ("stderr", "boolean", "Send standard error."),
    ("stdin", "boolean", "Send standard input."),
    ("stdout", "boolean", "Send standard output."),
    ("tty", "boolean", "On a terminal."),
];
