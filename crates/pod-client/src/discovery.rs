//! What the server serves, and what people call it: `pods`, `po`, `Pod`, `leases.coordination.k8s.io`, `all`.
//!
//! Two requests (aggregated discovery) at the beginning of a command; nothing is kept on disk, so nothing is ever stale.

use serde_json::Value;

use crate::client::{Call, Client};
use crate::failure::CallError;
use crate::query::encode;

const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";

/// A kind the server has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Kind {
    /// Empty for the core group.
    pub group: String,
    pub version: String,
    pub kind: String,
    pub plural: String,
    pub singular: String,
    pub short_names: Vec<String>,
    pub categories: Vec<String>,
    pub namespaced: bool,
    pub verbs: Vec<String>,
}

/// All of them, in the server's order: core first.
#[derive(Debug, Clone, Default)]
pub struct Discovery {
    kinds: Vec<Kind>,
}

/// Nothing here is called that; with kubectl's words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoSuchKind {
    #[error("the server doesn't have a resource type \"{0}\"")]
    Word(String),
    #[error("no matches for kind \"{kind}\" in version \"{version}\"")]
    Kind { kind: String, version: String },
}

impl Kind {
    /// `v1`, `apps/v1`.
    pub fn api_version(&self) -> String {
        match self.group.as_str() {
            "" => self.version.clone(),
            group => format!("{group}/{}", self.version),
        }
    }

    /// `pods`, `leases.coordination.k8s.io`.
    pub fn resource(&self) -> String {
        with_group(&self.plural, &self.group)
    }

    /// How kubectl names it before a `/` or a name: `pod`, `lease.coordination.k8s.io`.
    pub fn said(&self) -> String {
        with_group(&self.kind.to_lowercase(), &self.group)
    }

    /// All of them; of one namespace, if one is given and the kind has any.
    pub fn list_path(&self, namespace: Option<&str>) -> String {
        let root = match self.group.as_str() {
            "" => format!("/api/{}", self.version),
            group => format!("/apis/{group}/{}", self.version),
        };
        match namespace.filter(|_| self.namespaced) {
            Some(namespace) => format!("{root}/namespaces/{}/{}", encode(namespace), self.plural),
            None => format!("{root}/{}", self.plural),
        }
    }

    /// `namespace` is of no matter for a kind that has none.
    pub fn path(&self, namespace: &str, name: &str) -> String {
        format!("{}/{}", self.list_path(Some(namespace)), encode(name))
    }
}

fn with_group(name: &str, group: &str) -> String {
    if group.is_empty() { name.to_owned() } else { format!("{name}.{group}") }
}

impl Discovery {
    /// # Errors
    /// No server, or one that refuses.
    pub async fn fetch(client: &Client) -> Result<Discovery, CallError> {
        let mut kinds = Vec::new();
        for path in ["/api", "/apis"] {
            let value = client.json(Call::get(path).accept(AGGREGATED)).await?;
            if value["kind"] != "APIGroupDiscoveryList" {
                return Err(CallError::Answer("the server has no aggregated discovery".to_owned()));
            }
            read(&value, &mut kinds);
        }
        Ok(Discovery { kinds })
    }

    pub fn all(&self) -> &[Kind] {
        &self.kinds
    }

    /// By what a person calls it: plural, singular, short name or kind, with `.GROUP` or `.VERSION.GROUP` behind it.
    ///
    /// # Errors
    /// Nothing is called so.
    pub fn find(&self, word: &str) -> Result<&Kind, NoSuchKind> {
        let lower = word.to_lowercase();
        let (name, rest) = lower.split_once('.').unwrap_or((&lower, ""));
        let called = |kind: &&Kind| {
            [&kind.plural, &kind.singular].contains(&&name.to_owned())
                || kind.kind.to_lowercase() == name
                || kind.short_names.iter().any(|short| short == name)
        };
        let fits = |kind: &&Kind| {
            rest.is_empty()
                || kind.group == rest
                || with_group(&kind.version, &kind.group) == rest
                // `pods.v1.`: the core group is written as nothing.
                || rest.strip_suffix('.').is_some_and(|version| kind.group.is_empty() && kind.version == version)
        };
        // A plural goes before another kind's short name.
        let exact = self.kinds.iter().find(|kind| kind.plural == name && fits(kind));
        exact
            .or_else(|| self.kinds.iter().filter(called).find(fits))
            .ok_or_else(|| NoSuchKind::Word(word.split('.').next().unwrap_or(word).to_owned()))
    }

    /// Another resource that has the same short name, which [`Discovery::find`] does not mean.
    pub fn also_short(&self, word: &str) -> Option<&Kind> {
        let word = word.to_lowercase();
        let found = self.find(&word).ok()?;
        let short = |kind: &&Kind| kind.short_names.contains(&word);
        self.kinds.iter().filter(short).find(|kind| short(&found) && kind.resource() != found.resource())
    }

    /// By what an object says it is.
    ///
    /// # Errors
    /// The server has no such kind.
    pub fn of(&self, api_version: &str, kind: &str) -> Result<&Kind, NoSuchKind> {
        self.kinds
            .iter()
            .find(|known| known.kind == kind && known.api_version() == api_version)
            .ok_or_else(|| NoSuchKind::Kind { kind: kind.to_owned(), version: api_version.to_owned() })
    }

    /// The kinds of a category (`all`); none if there is no such category.
    pub fn category(&self, name: &str) -> Vec<&Kind> {
        self.kinds.iter().filter(|kind| kind.categories.iter().any(|category| category == name)).collect()
    }
}

fn read(list: &Value, kinds: &mut Vec<Kind>) {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let texts = |value: &Value| value.as_array().into_iter().flatten().map(text).collect::<Vec<_>>();
    for group in list["items"].as_array().into_iter().flatten() {
        // The first version is the preferred one; others of the same resource are reached by their full name.
        for version in group["versions"].as_array().into_iter().flatten() {
            for resource in version["resources"].as_array().into_iter().flatten() {
                let response = &resource["responseKind"];
                kinds.push(Kind {
                    group: text(&group["metadata"]["name"]),
                    version: text(&version["version"]),
                    kind: text(&response["kind"]),
                    plural: text(&resource["resource"]),
                    singular: text(&resource["singularResource"]),
                    short_names: texts(&resource["shortNames"]),
                    categories: texts(&resource["categories"]),
                    namespaced: resource["scope"] == "Namespaced",
                    verbs: texts(&resource["verbs"]),
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn discovery() -> Discovery {
        let resource = |plural: &str, kind: &str, short: &str, categories: Value| {
            json!({"resource": plural, "singularResource": kind.to_lowercase(), "scope": "Namespaced",
                   "responseKind": {"kind": kind}, "shortNames": [short], "categories": categories})
        };
        let mut kinds = Vec::new();
        let core = [resource("pods", "Pod", "po", json!(["all"])), resource("events", "Event", "ev", Value::Null)];
        read(
            &json!({"items": [{"metadata": {"name": ""}, "versions": [{"version": "v1", "resources": core}]}]}),
            &mut kinds,
        );
        let events = [resource("events", "Event", "ev", Value::Null)];
        let metrics = [resource("pods", "PodMetrics", "", Value::Null)];
        read(
            &json!({"items": [
                {"metadata": {"name": "events.k8s.io"}, "versions": [{"version": "v1", "resources": events}]},
                {"metadata": {"name": "metrics.k8s.io"}, "versions": [{"version": "v1beta1", "resources": metrics}]},
            ]}),
            &mut kinds,
        );
        Discovery { kinds }
    }

    #[test]
    fn names_of_all_kinds_are_understood() {
        let discovery = discovery();
        for word in ["pods", "pod", "po", "Pod", "PODS", "pods.v1.", "pods.v1"] {
            assert_eq!(discovery.find(word).unwrap().kind, "Pod", "{word}");
        }
        assert_eq!(discovery.find("ev").unwrap().group, "");
        assert_eq!(discovery.find("events.events.k8s.io").unwrap().said(), "event.events.k8s.io");
        assert_eq!(discovery.find("events.v1.events.k8s.io").unwrap().group, "events.k8s.io");
        assert_eq!(discovery.find("pods.metrics.k8s.io").unwrap().kind, "PodMetrics");
        let unknown = discovery.find("foos").unwrap_err().to_string();
        assert_eq!(unknown, "the server doesn't have a resource type \"foos\"");
        assert_eq!(discovery.category("all").len(), 1);
        assert!(discovery.of("v2", "Pod").is_err());
    }

    #[test]
    fn paths_have_the_namespace_where_there_is_one() {
        let discovery = discovery();
        let pod = discovery.find("po").unwrap();
        assert_eq!(pod.path("a b", "web"), "/api/v1/namespaces/a%20b/pods/web");
        assert_eq!(pod.list_path(None), "/api/v1/pods");
        let event = discovery.find("events.events.k8s.io").unwrap();
        assert_eq!(event.list_path(Some("x")), "/apis/events.k8s.io/v1/namespaces/x/events");
    }
}
