//! Which objects the words of the command line mean: `pods`, `pods a b`, `pod/a service/b`, `pods,services`, `all`, and manifests.

use pod_client::query::Query;
use pod_client::{Call, CallError, Kind};
use serde_json::Value;

use super::arguments::{Files, Selectors};
use super::document::{self, Placed};
use super::{Node, Outcome, Trouble, text, value};

/// What was asked for.
pub(crate) enum Asked<'a> {
    /// Objects by name, in the order of the words.
    Named(Vec<Named<'a>>),
    /// All objects of kinds, as far as selectors admit them.
    Every(Vec<&'a Kind>),
}

#[derive(Debug, Clone)]
pub(crate) struct Named<'a> {
    pub(crate) kind: &'a Kind,
    pub(crate) namespace: String,
    pub(crate) name: String,
    /// The file that names it; empty for the command line.
    pub(crate) source: String,
}

impl Named<'_> {
    pub(crate) fn path(&self) -> String {
        self.kind.path(&self.namespace, &self.name)
    }

    /// `pods/web`, as kubectl names what it waits for.
    pub(crate) fn object_name(&self) -> String {
        format!("{}/{}", self.kind.resource(), self.name)
    }
}

impl<'a> From<&Placed<'a>> for Named<'a> {
    fn from(placed: &Placed<'a>) -> Self {
        Named {
            kind: placed.kind,
            namespace: placed.namespace.clone(),
            name: placed.name.clone(),
            source: placed.source.clone(),
        }
    }
}

/// The limits of a search.
#[derive(Debug, Clone, Default)]
pub(crate) struct Scope {
    pub(crate) selectors: Selectors,
    pub(crate) all_namespaces: bool,
    /// Kinds without names mean all of them.
    pub(crate) every: bool,
}

impl Scope {
    /// The namespace to list.
    pub(crate) fn namespace<'n>(&self, node: &'n Node) -> Option<&'n str> {
        (!self.all_namespaces).then_some(node.namespace.as_str())
    }

    /// A refusal of a list, with what was listed: kubectl names both.
    pub(crate) fn refused(&self, kind: &Kind, error: CallError) -> Trouble {
        let CallError::Refused(mut status) = error else { return error.into() };
        if matches!(status.reason.as_str(), "BadRequest" | "NotFound") {
            let resource = format!("{}/{}, Resource={}", kind.group, kind.version, kind.plural);
            let (labels, fields) = (&self.selectors.selector, &self.selectors.field_selector);
            status.message = match (labels, fields) {
                (None, None) => format!("Unable to list \"{resource}\": {}", status.message),
                (labels, fields) => format!(
                    "Unable to find \"{resource}\" that match label selector \"{}\", field selector \"{}\": {}",
                    labels.as_deref().unwrap_or_default(),
                    fields.as_deref().unwrap_or_default(),
                    status.message
                ),
            };
        }
        CallError::Refused(status).into()
    }

    /// The path that lists a kind, with the selectors.
    pub(crate) fn query(&self, node: &Node, kind: &Kind) -> Query {
        Query::new(kind.list_path(self.namespace(node)))
            .maybe("labelSelector", self.selectors.selector.as_deref().unwrap_or_default())
            .maybe("fieldSelector", self.selectors.field_selector.as_deref().unwrap_or_default())
    }
}

/// Reads the words. Manifests go before words; both together are a mistake.
pub(crate) async fn asked<'a>(node: &'a Node, words: &[String], files: &Files, scope: &Scope) -> Outcome<Asked<'a>> {
    let selecting = scope.selectors.selector.is_some() || scope.selectors.field_selector.is_some();
    if !files.filenames.is_empty() {
        if !words.is_empty() {
            return text(
                "when paths, URLs, or stdin is provided as input, you may not specify resource arguments as well",
            );
        }
        if selecting {
            return text("name cannot be provided when a selector is specified");
        }
        return Ok(Asked::Named(of_files(node, files).await?));
    }
    if words.iter().any(|word| word.contains('/')) {
        let named = pairs(node, words).await?;
        return named_only(named, scope, selecting);
    }
    let Some((first, names)) = words.split_first() else {
        return text(
            "You must provide one or more resources by argument or filename.\nExample resource specifications include:\n   \
             '-f rsrc.yaml'\n   '--filename=rsrc.json'\n   '<resource> <name>'\n   '<resource>'",
        );
    };
    let kinds = kinds(node, first).await?;
    if names.is_empty() {
        if !scope.every && !selecting {
            return text("resource(s) were provided, but no name was specified");
        }
        return Ok(Asked::Every(kinds));
    }
    if scope.every && scope.all_namespaces {
        return text("a resource cannot be retrieved by name across all namespaces");
    }
    let named = kinds.into_iter().flat_map(|kind| {
        let namespace = if kind.namespaced { node.namespace.clone() } else { String::new() };
        names.iter().map(move |name| Named {
            kind,
            namespace: namespace.clone(),
            name: name.clone(),
            source: String::new(),
        })
    });
    named_only(named.collect(), scope, selecting)
}

fn named_only<'a>(named: Vec<Named<'a>>, scope: &Scope, selecting: bool) -> Outcome<Asked<'a>> {
    if selecting {
        return text("name cannot be provided when a selector is specified");
    }
    if scope.all_namespaces {
        return text("a resource cannot be retrieved by name across all namespaces");
    }
    Ok(Asked::Named(named))
}

async fn of_files<'a>(node: &'a Node, files: &Files) -> Outcome<Vec<Named<'a>>> {
    let (documents, troubles) = document::read(files);
    if let Some(trouble) = troubles.into_iter().next() {
        return Err(trouble);
    }
    let mut named = Vec::new();
    for document in documents {
        named.push(Named::from(&document.place(node).await?));
    }
    Ok(named)
}

async fn pairs<'a>(node: &'a Node, words: &[String]) -> Outcome<Vec<Named<'a>>> {
    let mut named = Vec::new();
    for word in words {
        let parts: Vec<&str> = word.split('/').collect();
        match parts.as_slice() {
            [kind, name] if !kind.is_empty() && !name.is_empty() => {
                let kind = node.kind(kind).await?;
                let namespace = if kind.namespaced { node.namespace.clone() } else { String::new() };
                named.push(Named { kind, namespace, name: (*name).to_owned(), source: String::new() });
            }
            [_] => {
                return text(
                    "there is no need to specify a resource type as a separate argument when passing arguments in \
                     resource/name form (e.g. 'outrigger get resource/<resource_name>' instead of 'outrigger get resource \
                     resource/<resource_name>'",
                );
            }
            [_, _] => return text("arguments in resource/name form must have a single resource and name"),
            _ => return text("arguments in resource/name form may not have more than one slash"),
        }
    }
    Ok(named)
}

/// `pods,services`, `all`.
async fn kinds<'a>(node: &'a Node, word: &str) -> Outcome<Vec<&'a Kind>> {
    let discovery = node.discovery().await?;
    let mut kinds: Vec<&Kind> = Vec::new();
    for word in word.split(',').filter(|word| !word.is_empty()) {
        let category = discovery.category(word);
        match category.is_empty() {
            true => {
                if let Some(other) = discovery.also_short(word) {
                    let other = other.resource();
                    eprintln!("Warning: short name \"{word}\" could also match lower priority resource {other}");
                }
                kinds.push(discovery.find(word)?);
            }
            false => kinds.extend(category),
        }
    }
    let mut seen: Vec<&Kind> = Vec::new();
    for kind in kinds {
        if !seen.contains(&kind) {
            seen.push(kind);
        }
    }
    Ok(seen)
}

/// All objects of a kind within the scope, each with its kind and version.
pub(crate) async fn list(node: &Node, kind: &Kind, scope: &Scope) -> Outcome<Vec<Value>> {
    let path = scope.query(node, kind).with("limit", "500").into_string();
    let mut list = node.client.json(Call::get(&path)).await.map_err(|error| scope.refused(kind, error))?;
    let mut objects = take_items(&mut list, kind);
    while let Some(more) = value::at(&list, "metadata.continue").as_str().filter(|more| !more.is_empty()) {
        let path = scope.query(node, kind).with("limit", "500").with("continue", more).into_string();
        list = node.client.json(Call::get(path)).await?;
        objects.extend(take_items(&mut list, kind));
    }
    Ok(objects)
}

/// Items of lists carry no kind of their own.
pub(crate) fn take_items(list: &mut Value, kind: &Kind) -> Vec<Value> {
    let Some(Value::Array(mut items)) = list.get_mut("items").map(Value::take) else { return Vec::new() };
    for item in items.iter_mut().filter_map(Value::as_object_mut) {
        item.insert("apiVersion".to_owned(), kind.api_version().into());
        item.insert("kind".to_owned(), kind.kind.clone().into());
    }
    items
}

/// Every asked object, one after the other; those that are missing are troubles, unless they may be.
pub(crate) async fn objects<'a>(
    node: &'a Node,
    asked: Asked<'a>,
    scope: &Scope,
    troubles: &mut Vec<Trouble>,
) -> Vec<(&'a Kind, Value)> {
    let mut found = Vec::new();
    match asked {
        Asked::Named(named) => {
            for one in named {
                match node.client.json(Call::get(one.path())).await {
                    Ok(object) => found.push((one.kind, object)),
                    Err(error) => troubles.push(error.into()),
                }
            }
        }
        Asked::Every(kinds) => {
            for kind in kinds {
                match list(node, kind, scope).await {
                    Ok(objects) => found.extend(objects.into_iter().map(|object| (kind, object))),
                    Err(trouble) => troubles.push(trouble),
                }
            }
        }
    }
    found
}
