//! Paths as what they mean. Pure; the registry says which resources there are.

use http::Method;
use pod_api::failure::Failure;
use pod_api::resource::{self, Resource};

use crate::query::decode;

/// What a path of the API asks for.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) resource: &'static Resource,
    /// `None`: all of them, or the resource has none.
    pub(crate) namespace: Option<String>,
    /// `None`: the collection.
    pub(crate) name: Option<String>,
    pub(crate) sub: Option<String>,
}

#[derive(Debug)]
pub(crate) enum Route {
    /// `/livez`, `/readyz`, `/healthz`, and their single checks.
    Health,
    Version,
    /// `/`
    Index,
    /// `/api`
    CoreVersions,
    /// `/apis`
    Groups,
    /// `/apis/G`
    Group(String),
    /// `/api/v1`, `/apis/G/V`: group and version.
    Resources(String, String),
    OpenApiV2,
    OpenApiIndex,
    /// `/openapi/v3/<group version path>`
    OpenApiV3(String),
    /// `pods.metrics.k8s.io` and `nodes.metrics.k8s.io`
    Metrics {
        nodes: bool,
        namespace: Option<String>,
        name: Option<String>,
    },
    /// A review: kinds that are asked and never stored; group, version and plural.
    Review(String),
    Object(Target),
    Unknown,
}

pub(crate) fn of(path: &str) -> Route {
    let segments: Vec<String> =
        path.split('/').filter(|part| !part.is_empty()).map(|part| decode(part, false)).collect();
    let parts: Vec<&str> = segments.iter().map(String::as_str).collect();
    match parts.as_slice() {
        [] => Route::Index,
        ["livez" | "readyz" | "healthz", ..] => Route::Health,
        ["version"] => Route::Version,
        ["api"] => Route::CoreVersions,
        ["apis"] => Route::Groups,
        ["openapi", "v2"] => Route::OpenApiV2,
        ["openapi", "v3"] => Route::OpenApiIndex,
        ["openapi", "v3", rest @ ..] => Route::OpenApiV3(rest.join("/")),
        ["api", version] => Route::Resources(String::new(), (*version).to_owned()),
        ["api", version, rest @ ..] => object("", version, rest),
        ["apis", group] => Route::Group((*group).to_owned()),
        ["apis", group, version] => Route::Resources((*group).to_owned(), (*version).to_owned()),
        ["apis", "metrics.k8s.io", "v1beta1", rest @ ..] => metrics(rest),
        ["apis", "authorization.k8s.io" | "authentication.k8s.io", "v1", plural]
            if resource::find(parts[1], "v1", plural).is_none() =>
        {
            Route::Review((*plural).to_owned())
        }
        ["apis", group, version, rest @ ..] => object(group, version, rest),
        _ => Route::Unknown,
    }
}

fn metrics(rest: &[&str]) -> Route {
    let owned = |text: &&str| Some((**text).to_owned());
    match rest {
        ["nodes"] => Route::Metrics { nodes: true, namespace: None, name: None },
        ["nodes", name] => Route::Metrics { nodes: true, namespace: None, name: owned(name) },
        ["pods"] => Route::Metrics { nodes: false, namespace: None, name: None },
        ["namespaces", namespace, "pods"] => Route::Metrics { nodes: false, namespace: owned(namespace), name: None },
        ["namespaces", namespace, "pods", name] => {
            Route::Metrics { nodes: false, namespace: owned(namespace), name: owned(name) }
        }
        _ => Route::Unknown,
    }
}

fn object(group: &str, version: &str, rest: &[&str]) -> Route {
    let owned = |text: &&str| Some((**text).to_owned());
    // `namespaces/x/status` is the namespace's; `namespaces/x/pods` are pods.
    let (namespace, rest) = match rest {
        ["namespaces", namespace, inner @ ..] if !matches!(inner, [] | ["status" | "finalize"]) => {
            (owned(namespace), inner)
        }
        _ => (None, rest),
    };
    let (plural, name, sub) = match rest {
        [plural] => (plural, None, None),
        [plural, name] => (plural, owned(name), None),
        [plural, name, sub] => (plural, owned(name), owned(sub)),
        // What follows `proxy` is the proxied path.
        [plural, name, "proxy", ..] => (plural, owned(name), owned(&"proxy")),
        _ => return Route::Unknown,
    };
    let Some(resource) = resource::find(group, version, plural) else { return Route::Unknown };
    let fits = match (resource.namespaced, namespace.is_some(), name.is_some()) {
        (true, true, _) => true,
        // Only whole collections are reached without a namespace.
        (true, false, named) => !named,
        (false, in_namespace, _) => !in_namespace,
    };
    if fits { Route::Object(Target { resource, namespace, name, sub }) } else { Route::Unknown }
}

/// The API's word for a method on a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verb {
    Get,
    List,
    Create,
    Update,
    Patch,
    Delete,
    DeleteCollection,
}

impl Target {
    /// # Errors
    /// 404 for a subresource that is not there, 405 for a method that it does not take.
    pub(crate) fn verb(&self, method: &Method) -> Result<Verb, Failure> {
        let named = self.name.is_some();
        let verb = match *method {
            Method::GET | Method::HEAD if named => Verb::Get,
            Method::GET | Method::HEAD => Verb::List,
            Method::POST => Verb::Create,
            Method::PUT if named => Verb::Update,
            Method::PATCH if named => Verb::Patch,
            Method::DELETE if named => Verb::Delete,
            Method::DELETE => Verb::DeleteCollection,
            _ => return Err(not_allowed()),
        };
        let word = match verb {
            Verb::Get => "get",
            Verb::List => "list",
            Verb::Create => "create",
            Verb::Update => "update",
            Verb::Patch => "patch",
            Verb::Delete => "delete",
            Verb::DeleteCollection => "deletecollection",
        };
        let verbs = match &self.sub {
            None => self.resource.verbs,
            Some(sub) if sub == "proxy" => &[],
            Some(sub) => {
                let known = self.resource.subresources.iter().find(|known| known.name == sub.as_str());
                known.ok_or_else(Failure::unknown_path)?.verbs
            }
        };
        // A named POST exists only for subresources, an unnamed one only within the namespace.
        let misplaced = verb == Verb::Create
            && self.sub.is_none()
            && (named || (self.resource.namespaced && self.namespace.is_none()));
        if misplaced || !verbs.contains(&word) { Err(not_allowed()) } else { Ok(verb) }
    }

    /// Plural with its group: what failures call it.
    pub(crate) fn full_name(&self) -> String {
        full_name(self.resource)
    }

    pub(crate) fn namespace(&self) -> &str {
        self.namespace.as_deref().unwrap_or_default()
    }

    pub(crate) fn name(&self) -> &str {
        self.name.as_deref().unwrap_or_default()
    }
}

pub(crate) fn full_name(resource: &Resource) -> String {
    if resource.group.is_empty() {
        resource.plural.to_owned()
    } else {
        format!("{}.{}", resource.plural, resource.group)
    }
}

/// `v1`, `events.k8s.io/v1`
pub(crate) fn api_version(group: &str, version: &str) -> String {
    if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") }
}

pub(crate) fn not_allowed() -> Failure {
    Failure::new(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn show(path: &str) -> String {
        match of(path) {
            Route::Object(target) => format!(
                "{} ns={} name={} sub={}",
                target.full_name(),
                target.namespace.as_deref().unwrap_or("-"),
                target.name.as_deref().unwrap_or("-"),
                target.sub.as_deref().unwrap_or("-")
            ),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn paths_are_resources_in_namespaces() {
        for (path, meaning) in [
            ("/", "Index"),
            ("/api/", "CoreVersions"),
            ("/readyz/ping", "Health"),
            ("/api/v1", "Resources(\"\", \"v1\")"),
            ("/api/v1/pods", "pods ns=- name=- sub=-"),
            ("/api/v1/namespaces/a%2Db/pods/web", "pods ns=a-b name=web sub=-"),
            ("/api/v1/namespaces/x/pods/web/log", "pods ns=x name=web sub=log"),
            ("/api/v1/namespaces/x/pods/web/proxy/a/b", "pods ns=x name=web sub=proxy"),
            ("/api/v1/namespaces/x", "namespaces ns=- name=x sub=-"),
            ("/api/v1/namespaces/x/status", "namespaces ns=- name=x sub=status"),
            ("/api/v1/pods/web", "Unknown"),
            ("/api/v1/namespaces/x/nothing", "Unknown"),
            ("/apis/nothing/v1/pods", "Unknown"),
            ("/openapi/v3/apis/apps/v1", "OpenApiV3(\"apis/apps/v1\")"),
            ("/watch/pods", "Unknown"),
        ] {
            assert_eq!(show(path), meaning, "{path}");
        }
    }

    #[test]
    fn methods_are_verbs_where_the_resource_has_them() {
        let verb = |method: Method, path: &str| match of(path) {
            Route::Object(target) => target.verb(&method).map_err(|failure| failure.code),
            _ => Err(0),
        };
        assert_eq!(verb(Method::GET, "/api/v1/pods"), Ok(Verb::List));
        assert_eq!(verb(Method::POST, "/api/v1/pods"), Err(405));
        assert_eq!(verb(Method::POST, "/api/v1/namespaces/x/pods"), Ok(Verb::Create));
        assert_eq!(verb(Method::POST, "/api/v1/namespaces/x/pods/web"), Err(405));
        assert_eq!(verb(Method::PUT, "/api/v1/namespaces/x/pods/web/status"), Ok(Verb::Update));
        assert_eq!(verb(Method::DELETE, "/api/v1/namespaces/x/pods/web/status"), Err(405));
        assert_eq!(verb(Method::GET, "/api/v1/namespaces/x/pods/web/nothing"), Err(404));
        assert_eq!(verb(Method::DELETE, "/api/v1/namespaces"), Err(405));
    }
}
