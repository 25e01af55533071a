//! What is served here, told in the forms clients ask for: aggregated, and the older lists. All of it comes from the
//! registry, the reviews and metrics.

use http::header::{ACCEPT, CACHE_CONTROL, ETAG, HeaderValue, IF_NONE_MATCH, VARY};
use http::{HeaderMap, Response, StatusCode};
use pod_api::failure::Failure;
use pod_api::resource::{self, Resource};
use ring::digest::{SHA512, digest};
use serde_json::{Value, json};

use crate::body::{self, Body, JSON};
use crate::negotiate::{self, Discovery};
use crate::route::api_version;
use crate::special::REVIEWS;

/// One served name, whatever serves it.
struct Entry {
    group: &'static str,
    version: &'static str,
    kind: &'static str,
    plural: &'static str,
    singular: &'static str,
    namespaced: bool,
    verbs: &'static [&'static str],
    /// Of a stored kind; has the rest.
    resource: Option<&'static Resource>,
}

pub(crate) const METRICS: (&str, &str) = ("metrics.k8s.io", "v1beta1");

/// Everything served, in the registry's order, then what is not stored.
fn entries() -> Vec<Entry> {
    let stored = resource::all().iter().map(|resource| Entry {
        group: resource.group,
        version: resource.version,
        kind: resource.kind,
        plural: resource.plural,
        singular: resource.singular,
        namespaced: resource.namespaced,
        verbs: resource.verbs,
        resource: Some(resource),
    });
    let reviews = REVIEWS.iter().map(|review| Entry {
        group: review.group,
        version: "v1",
        kind: review.kind,
        plural: review.plural,
        singular: review.singular,
        namespaced: false,
        verbs: &["create"],
        resource: None,
    });
    let metrics = [("NodeMetrics", "nodes", false), ("PodMetrics", "pods", true)].into_iter();
    let metrics = metrics.map(|(kind, plural, namespaced)| Entry {
        group: METRICS.0,
        version: METRICS.1,
        kind,
        plural,
        singular: "",
        namespaced,
        verbs: &["get", "list"],
        resource: None,
    });
    stored.chain(reviews).chain(metrics).collect()
}

/// Groups but the core one, each with its versions, in the order of their first entries.
fn named_groups(entries: &[Entry]) -> Vec<(&'static str, Vec<&'static str>)> {
    let mut groups: Vec<(&str, Vec<&str>)> = Vec::new();
    for entry in entries.iter().filter(|entry| !entry.group.is_empty()) {
        match groups.iter_mut().find(|(group, _)| *group == entry.group) {
            Some((_, versions)) if versions.contains(&entry.version) => {}
            Some((_, versions)) => versions.push(entry.version),
            None => groups.push((entry.group, vec![entry.version])),
        }
    }
    groups.sort_by_key(|(group, _)| *group);
    groups
}

/// `/api` and `/apis`.
pub(crate) fn groups(headers: &HeaderMap, core: bool) -> Result<Response<Body>, Failure> {
    let entries = entries();
    let groups = if core { vec![("", vec!["v1"])] } else { named_groups(&entries) };
    let wanted = negotiate::discovery(headers.get(ACCEPT))?;
    let (kind, value) = match wanted {
        Discovery::Aggregated(version) => {
            let kind = if version == "v2" {
                "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
            } else {
                "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList"
            };
            (HeaderValue::from_static(kind), aggregated(&entries, &groups, version))
        }
        Discovery::Legacy if core => {
            let addresses = json!([{"clientCIDR": "0.0.0.0/0", "serverAddress": ""}]);
            let value = json!({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": addresses});
            (JSON, value)
        }
        Discovery::Legacy => {
            let groups: Vec<Value> = groups.iter().map(|(group, versions)| group_entry(group, versions)).collect();
            (JSON, json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}))
        }
    };
    Ok(tagged(kind, value.to_string(), headers))
}

/// With an `ETag`, or 304 if the client has it.
pub(crate) fn tagged(kind: HeaderValue, text: String, headers: &HeaderMap) -> Response<Body> {
    let hash: String = digest(&SHA512, text.as_bytes()).as_ref().iter().map(|byte| format!("{byte:02X}")).collect();
    let tag = format!("\"{hash}\"");
    let known = headers.get(IF_NONE_MATCH).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let mut response = if known.split(',').any(|one| one.trim() == tag) {
        let mut response = Response::new(body::full(bytes::Bytes::new()));
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response
    } else {
        body::answer(StatusCode::OK, kind, text)
    };
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        response.headers_mut().insert(ETAG, tag);
    }
    response.headers_mut().insert(VARY, HeaderValue::from_static("Accept"));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("public"));
    response
}

fn aggregated(entries: &[Entry], groups: &[(&str, Vec<&str>)], form: &str) -> Value {
    let items = groups.iter().map(|(group, versions)| {
        let versions = versions.iter().map(|version| {
            let mut here: Vec<&Entry> =
                entries.iter().filter(|entry| (entry.group, entry.version) == (*group, *version)).collect();
            here.sort_by_key(|entry| entry.plural);
            let resources: Vec<Value> = here.into_iter().map(discovered).collect();
            json!({"version": version, "resources": resources, "freshness": "Current"})
        });
        let metadata = if group.is_empty() { json!({}) } else { json!({"name": group}) };
        json!({"metadata": metadata, "versions": versions.collect::<Vec<_>>()})
    });
    json!({
        "kind": "APIGroupDiscoveryList", "apiVersion": format!("apidiscovery.k8s.io/{form}"), "metadata": {},
        "items": items.collect::<Vec<_>>(),
    })
}

fn discovered(entry: &Entry) -> Value {
    let kind = |(group, version, kind): (&str, &str, &str)| json!({"group": group, "version": version, "kind": kind});
    let mut value = json!({
        "resource": entry.plural, "responseKind": kind((entry.group, entry.version, entry.kind)),
        "scope": if entry.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": entry.singular, "verbs": entry.verbs,
    });
    let Some(resource) = entry.resource else { return value };
    if !resource.short_names.is_empty() {
        value["shortNames"] = json!(resource.short_names);
    }
    if !resource.categories.is_empty() {
        value["categories"] = json!(resource.categories);
    }
    if !resource.subresources.is_empty() {
        let subresources = resource.subresources.iter();
        let subresources = subresources
            .map(|sub| json!({"subresource": sub.name, "responseKind": kind(sub.kind), "verbs": sub.verbs}));
        value["subresources"] = subresources.collect();
    }
    value
}

fn group_entry(group: &str, versions: &[&str]) -> Value {
    let entry = |version: &&str| json!({"groupVersion": api_version(group, version), "version": version});
    json!({
        "name": group, "versions": versions.iter().map(entry).collect::<Vec<_>>(),
        "preferredVersion": versions.first().map(entry),
    })
}

/// `/apis/GROUP`
pub(crate) fn group(name: &str) -> Result<Response<Body>, Failure> {
    let groups = named_groups(&entries());
    let found = groups.iter().find(|(group, _)| *group == name);
    let (group, versions) = found.ok_or_else(Failure::unknown_path)?;
    let mut value = group_entry(group, versions);
    value["kind"] = "APIGroup".into();
    value["apiVersion"] = "v1".into();
    Ok(body::json(StatusCode::OK, &value))
}

/// `/api/v1`, `/apis/GROUP/VERSION`
pub(crate) fn resources(group: &str, version: &str) -> Result<Response<Body>, Failure> {
    let mut entries = entries();
    entries.retain(|entry| (entry.group, entry.version) == (group, version));
    if entries.is_empty() {
        return Err(Failure::unknown_path());
    }
    entries.sort_by_key(|entry| entry.plural);
    let mut resources = Vec::new();
    for entry in &entries {
        let mut value = json!({
            "name": entry.plural, "singularName": entry.singular, "namespaced": entry.namespaced,
            "kind": entry.kind, "verbs": entry.verbs,
        });
        let Some(resource) = entry.resource else {
            resources.push(value);
            continue;
        };
        if !resource.short_names.is_empty() {
            value["shortNames"] = json!(resource.short_names);
        }
        if !resource.categories.is_empty() {
            value["categories"] = json!(resource.categories);
        }
        resources.push(value);
        for sub in resource.subresources {
            let mut value = json!({
                "name": format!("{}/{}", entry.plural, sub.name), "singularName": "", "namespaced": entry.namespaced,
                "kind": sub.kind.2, "verbs": sub.verbs,
            });
            if (sub.kind.0, sub.kind.1) != (group, version) {
                value["group"] = sub.kind.0.into();
                value["version"] = sub.kind.1.into();
            }
            resources.push(value);
        }
    }
    let value = json!({
        "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": api_version(group, version), "resources": resources,
    });
    Ok(body::json(StatusCode::OK, &value))
}

/// `/`
pub(crate) fn index() -> Response<Body> {
    let mut paths = vec!["/api".to_owned(), "/api/v1".to_owned(), "/apis".to_owned()];
    for (group, versions) in named_groups(&entries()) {
        paths.push(format!("/apis/{group}"));
        paths.extend(versions.iter().map(|version| format!("/apis/{group}/{version}")));
    }
    paths.extend(["/healthz", "/livez", "/openapi/v2", "/openapi/v3", "/readyz", "/version"].map(str::to_owned));
    body::json(StatusCode::OK, &json!({"paths": paths}))
}
