//! What all writes share: their options, who is noted as their manager, and the change of a stored object.

use std::sync::Arc;

use http::header::USER_AGENT;
use http::{HeaderMap, Response, StatusCode};
use pod_api::failure::Failure;
use pod_api::resource::{Part, Resource};
use pod_api::validate::FieldError;
use pod_patch::Manager;
use pod_schema::Type;
use pod_store::{Change, Durability, Object, WriteError};
use serde_json::Value;

use crate::body::{self, Body};
use crate::input::{Validation, Warnings};
use crate::object;
use crate::query::Query;
use crate::render;
use crate::route::{Target, api_version, full_name};
use crate::server::{Ask, Server, key};
use crate::table::Include;

/// How often a change that nobody locked is tried against newer versions.
const ATTEMPTS: usize = 8;
/// Of a field manager's name, in bytes.
const MANAGER_LENGTH: usize = 128;

/// `CreateOptions`, `UpdateOptions`, `PatchOptions`.
#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) dry_run: bool,
    pub(crate) validation: Validation,
    pub(crate) manager: String,
    pub(crate) force: bool,
}

impl Options {
    /// # Errors
    /// 422 with upstream's words.
    pub(crate) fn parse(query: &Query, headers: &HeaderMap, kind: &str, is_apply: bool) -> Result<Self, Failure> {
        let mut errors = Vec::new();
        let mut refuse = |path: &str, message: String| errors.push(FieldError { path: path.to_owned(), message });
        let force = query.flag("force")?;
        let named = query.text("fieldManager").unwrap_or_default();
        if is_apply && named.is_empty() {
            refuse("fieldManager", "Required value: is required for apply patch".into());
        }
        if !is_apply && kind == "PatchOptions" && force.is_some() {
            refuse("force", "Forbidden: may not be specified for non-apply patch".into());
        }
        if named.len() > MANAGER_LENGTH {
            refuse("fieldManager", format!("Too long: may not be more than {MANAGER_LENGTH} bytes"));
        }
        if named.chars().any(char::is_control) {
            let message = format!("Invalid value: {named:?}: should only contain printable characters");
            refuse("fieldManager", message);
        }
        let dry_run = query.all("dryRun").filter(|value| !value.is_empty()).collect::<Vec<_>>();
        check_dry_run(&dry_run, &mut refuse);
        let validation = match query.text("fieldValidation") {
            Some("Strict") => Validation::Strict,
            None | Some("Warn") => Validation::Warn,
            Some("Ignore") => Validation::Ignore,
            Some(other) => {
                let known = "\"Ignore\", \"Strict\", \"Warn\"";
                refuse("fieldValidation", format!("Unsupported value: {other:?}: supported values: {known}"));
                Validation::Warn
            }
        };
        let manager = if named.is_empty() { user_agent(headers) } else { named.to_owned() };
        let options = Self { dry_run: !dry_run.is_empty(), validation, manager, force: force.unwrap_or(false) };
        if errors.is_empty() { Ok(options) } else { Err(Failure::invalid(kind, "meta.k8s.io", "", &errors)) }
    }
}

/// Only everything can be left undone.
pub(crate) fn check_dry_run(values: &[&str], refuse: &mut impl FnMut(&str, String)) {
    for other in values.iter().filter(|value| **value != "All") {
        refuse("dryRun", format!("Unsupported value: {other:?}: supported values: \"All\""));
    }
}

/// The program's name, for who does not name a manager.
fn user_agent(headers: &HeaderMap) -> String {
    let agent = headers.get(USER_AGENT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let name: String = agent.split('/').next().unwrap_or_default().chars().filter(|char| !char.is_control()).collect();
    let name: String = name.chars().take(MANAGER_LENGTH).collect();
    if name.is_empty() { "unknown".to_owned() } else { name }
}

/// The entry of `managedFields` that a write is noted in.
pub(crate) fn manager(server: &Server, target: &Target, options: &Options) -> Manager {
    Manager {
        name: options.manager.clone(),
        api_version: api_version(target.resource.group, target.resource.version),
        subresource: target.sub.clone().unwrap_or_default(),
        time: timestamp(server),
    }
}

/// Now, in whole seconds: a Kubernetes `Time`.
pub(crate) fn timestamp(server: &Server) -> String {
    seconds(server.now())
}

/// RFC 3339 in whole seconds.
pub(crate) fn seconds(time: jiff::Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Statuses and the like are worked out again after a crash; all else is not answered before it is durable.
pub(crate) fn durability(resource: &Resource) -> Durability {
    match resource.stored_as {
        "events" | "leases.coordination.k8s.io" => Durability::Lazy,
        _ => Durability::Synced,
    }
}

/// What a write has come to: an object that is stored, or would be.
#[derive(Debug)]
pub(crate) enum Written {
    Stored(Arc<Object>),
    Unstored(Value),
}

impl Written {
    pub(crate) fn answer(self, server: &Server, ask: &Ask, status: StatusCode, warnings: Warnings) -> Response<Body> {
        let (resource, now) = (ask.target.resource, server.now());
        let mut response = match self {
            Written::Stored(stored) => render::stored(resource, &stored, ask.wanted, now, Include::Metadata),
            Written::Unstored(value) => render::one(resource, &value, ask.wanted, status, now, Include::Metadata),
        };
        *response.status_mut() = status;
        warnings.attach(response.headers_mut());
        response
    }
}

/// A write that the store did not make.
pub(crate) fn refused(error: WriteError) -> Failure {
    if let WriteError::TooLarge(_) = error {
        return Failure::new(413, "RequestEntityTooLarge", format!("the object cannot be stored: {error}"));
    }
    // One sentence with its causes: the client is the only one who is told.
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    Failure::internal(text)
}

/// Changes a stored object: `make` says what becomes of the version it is shown, and is asked again when somebody else
/// was faster.
///
/// # Errors
/// 404, 409 for a stale resourceVersion or another uid, 422 and 403 as the kind has it, and whatever `make` says.
pub(crate) async fn change(
    server: &Server,
    target: &Target,
    options: &Options,
    warnings: &mut Warnings,
    mut make: impl FnMut(&Value, &mut Warnings) -> Result<Made, Failure>,
) -> Result<Written, Failure> {
    let resource = target.resource;
    let place = key(resource.stored_as, target.namespace(), target.name());
    let missing = || Failure::not_found(&target.full_name(), target.name());
    let _turn = turn(server, target).await;
    for _ in 0..ATTEMPTS {
        let live = server.0.store.get(&place).ok_or_else(missing)?;
        let old = object::served(resource, &live);
        let mut fresh = Warnings::default();
        let made = make(&old, &mut fresh)?;
        *warnings = fresh;
        let new = admit(server, target, options, &old, made)?;
        if options.dry_run {
            return Ok(Written::Unstored(new));
        }
        if new == old || only_times_differ(&new, &old) {
            return Ok(Written::Stored(live));
        }
        let strategy = resource.strategy;
        let finished = object::is_being_deleted(&new) && strategy.is_removable(&new) && !strategy.is_removable(&old);
        let value = object::stored(resource, new);
        let expected = Some(live.revision);
        let change =
            if finished { Change::Delete { expected, last: Some(value) } } else { Change::Replace { value, expected } };
        match server.0.store.write(place.clone(), change, durability(resource)).await {
            Ok(stored) => return Ok(Written::Stored(stored)),
            Err(WriteError::Conflict(_)) => {}
            Err(WriteError::Missing) => return Err(missing()),
            Err(other) => return Err(refused(other)),
        }
    }
    Err(Failure::modified(&target.full_name(), target.name()))
}

/// Waits for the write's turn, where writes depend on one another.
pub(crate) async fn turn<'a>(server: &'a Server, target: &Target) -> Option<tokio::sync::MutexGuard<'a, ()>> {
    let namespace = target.namespace.as_deref()?;
    let stored_as = target.resource.stored_as;
    let limited = || !server.0.store.list("resourcequotas", Some(namespace)).items.is_empty();
    let alone = stored_as == "services" || (stored_as != "events" && limited());
    if alone { Some(server.0.turn.lock().await) } else { None }
}

/// Whether nothing differs but when managers are said to have written. Who writes what is there already has written nothing
/// (`ignoreManagedFieldsTimestampsTransformer`): applying twice must wake nobody.
fn only_times_differ(new: &Value, old: &Value) -> bool {
    let without = |value: &Value, timeless: bool| {
        let mut value = value.clone();
        object::with_metadata(&mut value, |metadata| {
            if !timeless {
                metadata.remove("managedFields");
            }
            let entries = metadata.get_mut("managedFields").and_then(Value::as_array_mut).into_iter().flatten();
            let mut managers: Vec<Value> = entries
                .map(|entry| {
                    entry.as_object_mut().map(|entry| entry.remove("time"));
                    std::mem::take(entry)
                })
                .collect();
            // They are kept in the order of their times.
            managers.sort_by_cached_key(Value::to_string);
            metadata.insert("managedFields".into(), managers.into());
        });
        value
    };
    without(new, false) == without(old, false) && without(new, true) == without(old, true)
}

/// A new version, and whether who owns its fields is in it already (server-side apply).
#[derive(Debug)]
pub(crate) struct Made {
    pub(crate) value: Value,
    pub(crate) tracked: bool,
}

/// Everything between a wish and a write.
fn admit(server: &Server, target: &Target, options: &Options, old: &Value, made: Made) -> Result<Value, Failure> {
    let resource = target.resource;
    let strategy = resource.strategy;
    let Made { value: mut new, tracked } = made;
    check_identity(target, &mut new)?;
    check_preconditions(target, &new, old)?;
    keep_system_fields(&mut new, old);
    object::set_type(resource, &mut new);
    let part = match target.sub.as_deref() {
        None => Part::Object,
        Some(sub) => Part::Sub(sub),
    };
    strategy.default(&mut new);
    strategy.prepare_update(&mut new, old, part);
    if strategy.has_generation() && part != Part::Sub("status") && spec_differs(&new, old) {
        let generation = old.pointer("/metadata/generation").and_then(Value::as_i64).unwrap_or(0) + 1;
        object::with_metadata(&mut new, |metadata| metadata.insert("generation".into(), generation.into()));
    }
    let mut errors = strategy.validate_update(&new, old, part);
    errors.extend(new_finalizers(&new, old));
    if !errors.is_empty() {
        return Err(Failure::invalid(resource.kind, resource.group, target.name(), &errors));
    }
    server.among(options.dry_run, |around| strategy.admit(&new, Some(old), part, around))?;
    if !tracked && let Some(ty) = Type::of_kind(resource.group, resource.version, resource.kind) {
        pod_patch::track(ty, Some(old), &mut new, &manager(server, target, options));
    }
    Ok(new)
}

/// Who waits for an object's end must have said so before it was asked for (`ValidateNoNewFinalizers`).
fn new_finalizers(new: &Value, old: &Value) -> Option<FieldError> {
    if !object::is_being_deleted(old) {
        return None;
    }
    let known = object::finalizers(old);
    let mut added: Vec<&str> =
        object::finalizers(new).iter().filter(|one| !known.contains(one)).filter_map(Value::as_str).collect();
    added.sort_unstable();
    added.dedup();
    if added.is_empty() {
        return None;
    }
    let added: Vec<String> = added.iter().map(|name| format!("{name:?}")).collect();
    let message = format!(
        "Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
        added.join(", ")
    );
    Some(FieldError { path: "metadata.finalizers".into(), message })
}

/// Name and namespace must be those of the path.
fn check_identity(target: &Target, new: &mut Value) -> Result<(), Failure> {
    if !new.is_object() {
        return Err(Failure::bad_request("the object provided is unrecognized: it is not an object"));
    }
    check_namespace(target, new)?;
    let (name, path) = (object::text(new, "/metadata/name"), target.name());
    if name != path {
        if name.is_empty() {
            let message =
                format!("the name of the object ({path} based on URL) was undeterminable: name must be provided");
            return Err(Failure::bad_request(message));
        }
        let message = format!("the name of the object ({name}) does not match the name on the URL ({path})");
        return Err(Failure::bad_request(message));
    }
    Ok(())
}

/// Fills the namespace in, or refuses another one.
///
/// # Errors
/// 400 for another one.
pub(crate) fn check_namespace(target: &Target, new: &mut Value) -> Result<(), Failure> {
    let own = object::text(new, "/metadata/namespace").to_owned();
    let path = target.namespace().to_owned();
    if !own.is_empty() && !path.is_empty() && own != path {
        let message = "the namespace of the provided object does not match the namespace sent on the request";
        return Err(Failure::bad_request(message));
    }
    object::with_metadata(new, |metadata| {
        if path.is_empty() {
            metadata.remove("namespace");
        } else {
            metadata.insert("namespace".into(), path.into());
        }
    });
    Ok(())
}

fn check_preconditions(target: &Target, new: &Value, old: &Value) -> Result<(), Failure> {
    let differs = |path: &str| {
        let (wanted, actual) = (object::text(new, path), object::text(old, path));
        (!wanted.is_empty() && wanted != actual).then(|| (wanted.to_owned(), actual.to_owned()))
    };
    let resource = full_name(target.resource);
    if let Some((wanted, actual)) = differs("/metadata/uid") {
        return Err(Failure::conflict(&resource, target.name(), &uid_mismatch(&wanted, &actual)));
    }
    if differs("/metadata/resourceVersion").is_some() {
        return Err(Failure::modified(&resource, target.name()));
    }
    Ok(())
}

pub(crate) fn uid_mismatch(wanted: &str, actual: &str) -> String {
    format!("Precondition failed: UID in precondition: {wanted}, UID in object meta: {actual}")
}

/// A writer cannot change what the server keeps.
fn keep_system_fields(new: &mut Value, old: &Value) {
    object::with_metadata(new, |metadata| {
        metadata.remove("selfLink");
        for name in [
            "uid",
            "resourceVersion",
            "creationTimestamp",
            "generation",
            "deletionTimestamp",
            "deletionGracePeriodSeconds",
        ] {
            match old.pointer("/metadata").and_then(|metadata| metadata.get(name)) {
                Some(value) => metadata.insert(name.into(), value.clone()),
                None => metadata.remove(name),
            };
        }
    });
}

/// What a generation counts: everything but metadata and status.
fn spec_differs(new: &Value, old: &Value) -> bool {
    let spec = |value: &Value| {
        let members = value.as_object().into_iter().flatten();
        let counted =
            members.filter(|(name, _)| !matches!(name.as_str(), "metadata" | "status" | "kind" | "apiVersion"));
        counted.map(|(name, value)| (name.clone(), value.clone())).collect::<Vec<_>>()
    };
    spec(new) != spec(old)
}

/// `Status` of a success that has no object.
pub(crate) fn success(status: StatusCode, details: Value) -> Response<Body> {
    let mut value = serde_json::json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"});
    if status != StatusCode::OK {
        value["code"] = status.as_u16().into();
    }
    if !details.is_null() {
        value["details"] = details;
    }
    body::json(status, &value)
}
