//! `DELETE`: at once, after a grace period, or when the last finalizer is gone.

use std::collections::BTreeMap;

use http::{Response, StatusCode};
use hyper::body::Incoming;
use jiff::{SignedDuration, Timestamp};
use pod_api::failure::Failure;
use pod_api::resource::Resource;
use pod_api::validate::FieldError;
use pod_store::{Change, ModifyError, WriteError};
use serde_json::{Value, json};

use crate::body::{self, Body};
use crate::input::{self, Warnings};
use crate::list;
use crate::object;
use crate::query::Query;
use crate::route::Target;
use crate::selector::Selector;
use crate::server::{Ask, Server, key};
use crate::write::{self, Written};

/// How often a delete that names no version is tried against newer ones.
const ATTEMPTS: usize = 16;
/// These answer with the object even when it is gone, as upstream's do.
const ANSWERED_BY_OBJECT: [&str; 7] = [
    "pods",
    "podtemplates",
    "services",
    "serviceaccounts",
    "resourcequotas",
    "persistentvolumeclaims",
    "persistentvolumes",
];

/// `DeleteOptions`.
#[derive(Debug, Default, Clone)]
pub(crate) struct Options {
    pub(crate) grace: Option<i64>,
    pub(crate) uid: Option<String>,
    pub(crate) resource_version: Option<String>,
    pub(crate) dry_run: bool,
    /// What it owns is to stay.
    orphan: bool,
    /// `orphanDependents: false` of old clients, who hear 202 then.
    waits_for_dependents: bool,
}

impl Options {
    /// From the body, or without one from the query.
    ///
    /// # Errors
    /// 400 and 422 with upstream's words.
    fn parse(headers: &http::HeaderMap, bytes: &[u8], query: &Query) -> Result<Self, Failure> {
        if bytes.is_empty() {
            let mut value = json!({});
            if let Some(seconds) = query.number("gracePeriodSeconds")? {
                value["gracePeriodSeconds"] = seconds.into();
            }
            if let Some(policy) = query.text("propagationPolicy") {
                value["propagationPolicy"] = policy.into();
            }
            if let Some(orphan) = query.flag("orphanDependents")? {
                value["orphanDependents"] = orphan.into();
            }
            value["dryRun"] = query.all("dryRun").filter(|value| !value.is_empty()).collect();
            return Self::of(&value);
        }
        let mut value = input::parse(headers, bytes, "DeleteOptions")?.value;
        if value.is_null() {
            value = json!({});
        }
        // kubectl asks for a dry run in the query.
        if value.get("dryRun").is_none_or(Value::is_null) {
            value["dryRun"] = query.all("dryRun").filter(|value| !value.is_empty()).collect();
        }
        Self::of(&value)
    }

    /// # Errors
    /// 400 and 422 with upstream's words.
    pub(crate) fn of(value: &Value) -> Result<Self, Failure> {
        let kind = object::text(value, "/kind");
        if !value.is_object() || !(kind.is_empty() || kind == "DeleteOptions") {
            return Err(Failure::bad_request("decoded object cannot be converted to DeleteOptions"));
        }
        let mut errors = Vec::new();
        let mut refuse = |path: &str, message: String| errors.push(FieldError { path: path.to_owned(), message });
        let policy = object::text(value, "/propagationPolicy");
        let orphan = value.get("orphanDependents").and_then(Value::as_bool);
        if !policy.is_empty() && orphan.is_some() {
            let why = format!("Invalid value: {policy:?}: orphanDependents and deletionPropagation cannot be both set");
            refuse("propagationPolicy", why);
        }
        if !matches!(policy, "" | "Foreground" | "Background" | "Orphan") {
            let known = "\"Background\", \"Foreground\", \"Orphan\", \"nil\"";
            refuse("propagationPolicy", format!("Unsupported value: {policy:?}: supported values: {known}"));
        }
        let dry_run: Vec<&str> =
            value.get("dryRun").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
        write::check_dry_run(&dry_run, &mut refuse);
        if !errors.is_empty() {
            return Err(Failure::invalid("DeleteOptions", "meta.k8s.io", "", &errors));
        }
        let grace = match value.get("gracePeriodSeconds") {
            None | Some(Value::Null) => None,
            Some(seconds) => {
                let why = "json: cannot unmarshal into Go struct field DeleteOptions.gracePeriodSeconds of type int64";
                Some(seconds.as_i64().ok_or_else(|| Failure::bad_request(why))?)
            }
        };
        let precondition = |path: &str| Some(object::text(value, path).to_owned()).filter(|text| !text.is_empty());
        Ok(Self {
            grace,
            uid: precondition("/preconditions/uid"),
            resource_version: precondition("/preconditions/resourceVersion"),
            dry_run: !dry_run.is_empty(),
            orphan: policy == "Orphan" || orphan == Some(true),
            waits_for_dependents: orphan == Some(false),
        })
    }

    fn check(&self, target: &Target, old: &Value) -> Result<(), Failure> {
        let refuse = |why: &str| Err(Failure::conflict(&target.full_name(), target.name(), why));
        let (uid, version) = (object::text(old, "/metadata/uid"), object::text(old, "/metadata/resourceVersion"));
        match (&self.uid, &self.resource_version) {
            (Some(wanted), _) if wanted != uid => refuse(&write::uid_mismatch(wanted, uid)),
            (_, Some(wanted)) if wanted != version => refuse(&format!(
                "Precondition failed: ResourceVersion in precondition: {wanted}, ResourceVersion in object meta: {version}"
            )),
            _ => Ok(()),
        }
    }
}

/// What has come of a delete.
pub(crate) enum Deleted {
    /// It is still there, to be removed later.
    Pending(Written),
    Gone(Written),
}

pub(crate) async fn one(server: &Server, ask: &Ask, content: Incoming) -> Result<Response<Body>, Failure> {
    let bytes = input::read(content).await?;
    let options = Options::parse(&ask.headers, &bytes, &ask.query)?;
    let target = &ask.target;
    Ok(match delete(server, target, &options).await? {
        Deleted::Pending(written) => {
            let status = if options.waits_for_dependents { StatusCode::ACCEPTED } else { StatusCode::OK };
            written.answer(server, ask, status, Warnings::default())
        }
        Deleted::Gone(written) if ANSWERED_BY_OBJECT.contains(&target.resource.stored_as) => {
            written.answer(server, ask, StatusCode::OK, Warnings::default())
        }
        Deleted::Gone(written) => {
            let uid = match &written {
                Written::Stored(stored) => stored.uid.clone(),
                Written::Unstored(value) => object::text(value, "/metadata/uid").to_owned(),
            };
            let mut details = json!({"name": target.name(), "kind": target.resource.plural, "uid": uid});
            if !target.resource.group.is_empty() {
                details["group"] = target.resource.group.into();
            }
            write::success(StatusCode::OK, details)
        }
    })
}

/// Every object that the selectors leave.
pub(crate) async fn many(server: &Server, ask: &Ask, content: Incoming) -> Result<Response<Body>, Failure> {
    let bytes = input::read(content).await?;
    let options = Options::parse(&ask.headers, &bytes, &ask.query)?;
    list::check_options(&ask.query, false)?;
    let resource = ask.target.resource;
    let selector = Selector::parse(resource, &ask.query)?;
    let mut listed = server.0.store.list(resource.stored_as, ask.target.namespace.as_deref());
    listed.items.retain(|stored| selector.matches(resource, stored));
    let mut items = Vec::with_capacity(listed.items.len());
    for stored in &listed.items {
        let target = Target {
            namespace: ask.target.namespace.as_ref().map(|_| stored.key.namespace.clone()),
            name: Some(stored.key.name.clone()),
            ..ask.target.clone()
        };
        match delete(server, &target, &options).await {
            Ok(_) => items.push(object::served(resource, stored)),
            // Somebody else was faster.
            Err(failure) if failure.code == 404 => {}
            Err(failure) => return Err(failure),
        }
    }
    let value = json!({
        "kind": format!("{}List", resource.kind),
        "apiVersion": crate::route::api_version(resource.group, resource.version),
        "metadata": {"resourceVersion": listed.revision.to_string()},
        "items": items,
    });
    Ok(body::json(StatusCode::OK, &value))
}

/// # Errors
/// 404, and 409 of the preconditions.
pub(crate) async fn delete(server: &Server, target: &Target, options: &Options) -> Result<Deleted, Failure> {
    let resource = target.resource;
    let place = key(resource.stored_as, target.namespace(), target.name());
    let missing = || Failure::not_found(&target.full_name(), target.name());
    if resource.stored_as == "namespaces" && matches!(target.name(), "default" | "kube-system" | "kube-public") {
        return Err(Failure::forbidden("namespaces", target.name(), "this namespace may not be deleted"));
    }
    for _ in 0..ATTEMPTS {
        let live = server.0.store.get(&place).ok_or_else(missing)?;
        let old = object::served(resource, &live);
        options.check(target, &old)?;
        let fate = fate(resource, &old, options.grace, server.now());
        if options.dry_run {
            return Ok(match fate {
                Fate::Kept => Deleted::Pending(Written::Unstored(old)),
                Fate::Marked(new) => Deleted::Pending(Written::Unstored(new)),
                Fate::Removed => Deleted::Gone(Written::Unstored(old)),
            });
        }
        if options.orphan {
            disown(server, &live.uid).await?;
        }
        let expected = Some(live.revision);
        let removed = matches!(fate, Fate::Removed);
        let change = match fate {
            Fate::Kept => return Ok(Deleted::Pending(Written::Stored(live))),
            Fate::Marked(new) => Change::Replace { value: object::stored(resource, new), expected },
            Fate::Removed => Change::Delete { expected, last: None },
        };
        match server.0.store.write(place.clone(), change, write::durability(resource)).await {
            Ok(stored) if removed => return Ok(Deleted::Gone(Written::Stored(stored))),
            Ok(stored) => return Ok(Deleted::Pending(Written::Stored(stored))),
            Err(WriteError::Conflict(_)) => {}
            Err(WriteError::Missing) => return Err(missing()),
            Err(other) => return Err(write::refused(other)),
        }
    }
    Err(Failure::modified(&target.full_name(), target.name()))
}

/// Takes an owner out of all objects that name it, so that they do not go with it. Upstream leaves this to the garbage
/// collector, behind a finalizer; here it has been done when the delete is answered.
async fn disown(server: &Server, uid: &str) -> Result<(), Failure> {
    let store = &server.0.store;
    // Some are served twice and stored once.
    let kinds: BTreeMap<&str, &Resource> =
        pod_api::resource::all().iter().map(|resource| (resource.stored_as, resource)).collect();
    for resource in kinds.into_values() {
        for object in store.list(resource.stored_as, None).items.iter().filter(|object| mentions(&object.json, uid)) {
            let without = |_: &pod_store::Object, mut value: Value| {
                let owners = value.pointer_mut("/metadata/ownerReferences").and_then(Value::as_array_mut);
                let Some(owners) = owners else { return Ok(None) };
                let before = owners.len();
                owners.retain(|owner| owner["uid"] != uid);
                Ok::<_, Failure>((owners.len() < before).then_some(value))
            };
            match store.modify(&object.key, write::durability(resource), without).await {
                Ok(_) | Err(ModifyError::Write(WriteError::Missing)) => {}
                Err(ModifyError::Refused(failure)) => return Err(failure),
                Err(ModifyError::Write(error)) => return Err(write::refused(error)),
            }
        }
    }
    Ok(())
}

/// A look at the bytes, so that most objects need not be read.
fn mentions(json: &[u8], uid: &str) -> bool {
    !uid.is_empty() && json.windows(uid.len()).any(|bytes| bytes == uid.as_bytes())
}

/// What a delete makes of an object.
enum Fate {
    /// It is being deleted already, and no sooner now.
    Kept,
    /// It stays with a deletionTimestamp until its node or its finalizers let it go.
    Marked(Value),
    Removed,
}

fn fate(resource: &Resource, old: &Value, asked: Option<i64>, now: Timestamp) -> Fate {
    let period = old.pointer("/metadata/deletionGracePeriodSeconds").and_then(Value::as_i64);
    match (object::is_being_deleted(old), resource.strategy.graceful_deletion(old, asked)) {
        (true, Some(seconds)) => match period {
            // Only a shorter period may be asked for.
            Some(period) if asked.is_some() && seconds < period => shortened(old, period, seconds),
            _ => Fate::Kept,
        },
        (false, Some(seconds)) => marked(resource, old, seconds, now),
        (false, None) if object::finalizers(old).is_empty() => Fate::Removed,
        (false, None) => marked(resource, old, 0, now),
        (true, None) if resource.strategy.is_removable(old) || object::finalizers(old).is_empty() => Fate::Removed,
        (true, None) => match period {
            Some(period) if period > 0 => shortened(old, period, 0),
            _ => Fate::Kept,
        },
    }
}

fn marked(resource: &Resource, old: &Value, seconds: i64, now: Timestamp) -> Fate {
    let mut new = old.clone();
    let until = now.checked_add(SignedDuration::from_secs(seconds)).unwrap_or(Timestamp::MAX);
    object::with_metadata(&mut new, |metadata| {
        metadata.insert("deletionTimestamp".into(), write::seconds(until).into());
        metadata.insert("deletionGracePeriodSeconds".into(), seconds.into());
        let generation = metadata.get("generation").and_then(Value::as_i64).filter(|generation| *generation > 0);
        if let Some(generation) = generation {
            metadata.insert("generation".into(), (generation + 1).into());
        }
    });
    resource.strategy.prepare_deletion(&mut new);
    Fate::Marked(new)
}

/// The time was given by the longer period; it moves by the difference.
fn shortened(old: &Value, period: i64, seconds: i64) -> Fate {
    let mut new = old.clone();
    let until = object::text(old, "/metadata/deletionTimestamp").parse::<Timestamp>().ok();
    let until = until.and_then(|until| until.checked_sub(SignedDuration::from_secs(period - seconds)).ok());
    object::with_metadata(&mut new, |metadata| {
        if let Some(until) = until {
            metadata.insert("deletionTimestamp".into(), write::seconds(until).into());
        }
        metadata.insert("deletionGracePeriodSeconds".into(), seconds.into());
    });
    Fate::Marked(new)
}
