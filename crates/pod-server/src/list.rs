//! Reading what is there: one object, or all that a selector leaves, page by page and at a revision.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures_util::FutureExt;
use http::{Response, StatusCode};
use pod_api::failure::Failure;
use pod_api::validate::FieldError;
use pod_store::{Expired, Key, List, Object, Store};
use serde_json::{Value, json};

use crate::body::{self, Body};
use crate::negotiate::Wanted;
use crate::object;
use crate::query::Query;
use crate::render;
use crate::route::Target;
use crate::selector::Selector;
use crate::server::{Ask, Server, key};
use crate::table::{self, Include};

/// `GET` of one object (or of its subresource that is a view of it).
pub(crate) fn one(server: &Server, ask: &Ask) -> Result<Response<Body>, Failure> {
    let target = &ask.target;
    if let Some(asked) = revision(&ask.query)? {
        refuse_future(server, asked)?;
    }
    let include = Include::parse(&ask.query)?;
    let object = stored(server, target)?;
    Ok(render::stored(target.resource, &object, ask.wanted, server.now(), include))
}

/// # Errors
/// 404 if there is none.
pub(crate) fn stored(server: &Server, target: &Target) -> Result<Arc<Object>, Failure> {
    let found = server.0.store.get(&key(target.resource.stored_as, target.namespace(), target.name()));
    found.ok_or_else(|| Failure::not_found(&target.full_name(), target.name()))
}

/// `GET` of a collection.
pub(crate) fn many(server: &Server, ask: &Ask) -> Result<Response<Body>, Failure> {
    let (target, query) = (&ask.target, &ask.query);
    check_options(query, false)?;
    let selector = Selector::parse(target.resource, query)?;
    let include = Include::parse(query)?;
    let limit = usize::try_from(query.number("limit")?.unwrap_or(0)).unwrap_or(0);
    let from = query.text("continue").map(Continue::parse).transpose()?;

    let mut listed = match &from {
        // 0: the client went on with a token that says to take what is there now.
        Some(old_token @ Continue { revision, .. }) if *revision != 0 => {
            let listed = at(&server.0.store, target.resource.stored_as, target.namespace.as_deref(), *revision);
            let Ok(listed) = listed else { return Ok(old_token.too_old()) };
            listed
        }
        Some(_) => server.0.store.list(target.resource.stored_as, target.namespace.as_deref()),
        None => at_asked_revision(server, target, query)?,
    };
    if let Some(Continue { start, .. }) = &from {
        listed.items.retain(|object| (&object.key.namespace, &object.key.name) > (&start.0, &start.1));
    }
    if !selector.is_empty() {
        listed.items.retain(|object| selector.matches(target.resource, object));
    }
    let mut metadata = json!({"resourceVersion": listed.revision.to_string()});
    if limit > 0 && listed.items.len() > limit {
        let remaining = listed.items.len() - limit;
        listed.items.truncate(limit);
        if let Some(last) = listed.items.last() {
            metadata["continue"] = Continue::after(&last.key, listed.revision).into();
        }
        // With selectors upstream would have to look at the rest to know, and does not.
        if selector.is_empty() {
            metadata["remainingItemCount"] = remaining.into();
        }
    }
    let Wanted::Table(version) = ask.wanted else {
        return Ok(render::list(target.resource, listed.items, &metadata, ask.wanted, &ask.headers));
    };
    let now = server.now();
    let rows = listed
        .items
        .iter()
        .map(|stored| table::row(target.resource, &object::served(target.resource, stored), now, include, version));
    let table = table::whole(target.resource, version, metadata, rows.collect());
    Ok(render::document(body::JSON, table.to_string().into(), &ask.headers))
}

/// The collection as the request's resourceVersion wants it.
fn at_asked_revision(server: &Server, target: &Target, query: &Query) -> Result<List, Failure> {
    let store = &server.0.store;
    let (resource, namespace) = (target.resource.stored_as, target.namespace.as_deref());
    let asked = revision(query)?;
    if let Some(asked) = asked {
        refuse_future(server, asked)?;
    }
    match (asked, query.text("resourceVersionMatch")) {
        (Some(exact), Some("Exact")) => at(store, resource, namespace, exact)
            .map_err(|_| Failure::expired("The resourceVersion for the provided list is too old.")),
        _ => Ok(store.list(resource, namespace)),
    }
}

/// The collection as it was: today's, with every change since taken back.
fn at(store: &Store, resource: &str, namespace: Option<&str>, revision: u64) -> Result<List, Expired> {
    let now = store.list(resource, namespace);
    if now.revision <= revision {
        return Ok(now);
    }
    let mut changes = store.watch(resource, namespace, Some(revision))?;
    // What each changed object was before its first change; `None`: it was not there.
    let mut before: BTreeMap<(String, String), Option<Arc<Object>>> = BTreeMap::new();
    while changes.revision() < now.revision {
        // All of it has happened, so nothing is waited for; tokio's budget must not say otherwise.
        let Some(event) = tokio::task::unconstrained(changes.next()).now_or_never() else { break };
        let event = event?;
        if event.object.revision > now.revision {
            break;
        }
        let Key { namespace, name, .. } = event.object.key.clone();
        before.entry((namespace, name)).or_insert(event.before);
    }
    let unchanged = now
        .items
        .into_iter()
        .filter(|object| !before.contains_key(&(object.key.namespace.clone(), object.key.name.clone())));
    let mut items: Vec<Arc<Object>> = unchanged.collect();
    items.extend(before.into_values().flatten());
    items.sort_by(|a, b| a.key.cmp(&b.key));
    Ok(List { revision, items })
}

/// `resourceVersion`; `None` for none and for `0`, which is any.
///
/// # Errors
/// 400 for what is no number.
pub(crate) fn revision(query: &Query) -> Result<Option<u64>, Failure> {
    match query.text("resourceVersion") {
        None | Some("0") => Ok(None),
        Some(text) => text.parse().map(Some).map_err(|_| {
            let message =
                format!("invalid resource version {text:?}: strconv.ParseUint: parsing {text:?}: invalid syntax");
            Failure::bad_request(message)
        }),
    }
}

/// # Errors
/// 504, as upstream's after having waited: this store has no replicas that could catch up.
pub(crate) fn refuse_future(server: &Server, asked: u64) -> Result<(), Failure> {
    let current = server.0.store.revision();
    if asked <= current {
        return Ok(());
    }
    let message = format!("Too large resource version: {asked}, current: {current}");
    Err(Failure {
        details: json!({
            "causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}],
            "retryAfterSeconds": 1,
        }),
        ..Failure::new(504, "Timeout", format!("Timeout: {message}"))
    })
}

/// What the API server checks of the options of a list or a watch.
///
/// # Errors
/// 422 with upstream's words.
pub(crate) fn check_options(query: &Query, watch: bool) -> Result<(), Failure> {
    let mut errors = Vec::new();
    let mut refuse = |path: &str, message: String| errors.push(FieldError { path: path.into(), message });
    let matching = query.text("resourceVersionMatch");
    let initial = query.flag("sendInitialEvents")?.is_some();
    let unsupported = |known: &str, value: &str| format!("Unsupported value: {value:?}: supported values: {known}");
    let path = "resourceVersionMatch";
    if watch {
        if initial && matching != Some("NotOlderThan") {
            refuse(path, "Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan".into());
        }
        if let Some(matching) = matching {
            if !initial {
                let why = "Forbidden: resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided";
                refuse(path, why.into());
            }
            if matching != "NotOlderThan" {
                refuse(path, unsupported("\"NotOlderThan\"", matching));
            }
        }
    } else {
        if let Some(matching) = matching {
            if query.text("resourceVersion").is_none() {
                let why = "Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided";
                refuse(path, why.into());
            }
            if !matches!(matching, "Exact" | "NotOlderThan") {
                refuse(path, unsupported("\"Exact\", \"NotOlderThan\", \"\"", matching));
            }
            if matching == "Exact" && query.text("resourceVersion") == Some("0") {
                let why = "Forbidden: resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"";
                refuse(path, why.into());
            }
        }
        if initial {
            refuse("sendInitialEvents", "Forbidden: sendInitialEvents is forbidden for list".into());
        }
    }
    if matching.is_some() && query.text("continue").is_some() {
        refuse(path, "Forbidden: resourceVersionMatch is forbidden when continue is provided".into());
    }
    if errors.is_empty() { Ok(()) } else { Err(Failure::invalid("ListOptions", "meta.k8s.io", "", &errors)) }
}

/// Where the next page begins.
#[derive(Debug, PartialEq, Eq)]
struct Continue {
    revision: u64,
    /// Namespace and name of the last one sent.
    start: (String, String),
}

impl Continue {
    fn after(last: &Key, revision: u64) -> String {
        let token = json!({"v": "meta.k8s.io/v1", "rv": revision, "start": [last.namespace, last.name]});
        URL_SAFE_NO_PAD.encode(token.to_string())
    }

    fn parse(text: &str) -> Result<Self, Failure> {
        let bytes = URL_SAFE_NO_PAD.decode(text.trim_end_matches('='));
        let token: Option<Value> = bytes.ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let field = |token: &Value, at: usize| Some(token["start"].get(at)?.as_str()?.to_owned());
        token
            .and_then(|token| {
                let start = (field(&token, 0)?, field(&token, 1)?);
                Some(Self { revision: token["rv"].as_u64()?, start })
            })
            .ok_or_else(|| Failure::bad_request("continue key is not valid: the token cannot be read"))
    }

    /// The history does not reach back to the first page. The client may go on with what is there now.
    fn too_old(&self) -> Response<Body> {
        let last = key("", &self.start.0, &self.start.1);
        let message = "The provided continue parameter is too old to display a consistent list result. You can start a \
                       new list without the continue parameter, or use the continue token in this response to retrieve \
                       the remainder of the results. Continuing with the provided token results in an inconsistent \
                       list - objects that were created, modified, or deleted between the time the first chunk was \
                       returned and now may show up in the list.";
        let mut status = Failure::expired(message).to_json();
        status["metadata"]["continue"] = Self::after(&last, 0).into();
        body::json(StatusCode::GONE, &status)
    }
}

/// A list of values that are not stored.
pub(crate) fn of_values(api_version: &str, kind: &str, items: Vec<Value>) -> Response<Body> {
    body::json(StatusCode::OK, &json!({"kind": kind, "apiVersion": api_version, "metadata": {}, "items": items}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn continue_tokens_come_back() {
        let token = Continue::after(&key("pods", "a", "b/c"), 7);
        assert_eq!(Continue::parse(&token).unwrap(), Continue { revision: 7, start: ("a".into(), "b/c".into()) });
        for broken in ["", "!", "bm8"] {
            assert_eq!(Continue::parse(broken).unwrap_err().code, 400);
        }
    }

    #[test]
    fn options_that_do_not_go_together_are_refused() {
        let check = |query: &str, watch| check_options(&Query::parse(query), watch).map_err(|failure| failure.code);
        let streaming = "sendInitialEvents=true&resourceVersionMatch=NotOlderThan";
        assert_eq!(check(streaming, true), Ok(()));
        assert_eq!(check(streaming, false), Err(422));
        assert_eq!(check("sendInitialEvents=true", true), Err(422));
        assert_eq!(check("resourceVersionMatch=Exact&resourceVersion=0", false), Err(422));
        assert_eq!(check("resourceVersionMatch=Exact&resourceVersion=5", false), Ok(()));
        assert_eq!(check("resourceVersionMatch=Exact", false), Err(422));
    }
}
