//! `PATCH` in its four kinds. What comes of a patch goes the same way as a `PUT`.

use http::{Response, StatusCode};
use hyper::body::Incoming;
use pod_api::failure::Failure;
use pod_api::validate::FieldError;
use pod_patch::{ApplyError, Conflict, PatchError};
use pod_schema::{Misfit, Type};
use serde_json::{Value, json};

use crate::body::Body;
use crate::create;
use crate::input::{self, Text, Validation, Warnings};
use crate::object;
use crate::route::{Target, api_version};
use crate::server::{Ask, Server, media_type};
use crate::write::{self, Made, Options};

const JSON_PATCH: &str = "application/json-patch+json";
const MERGE_PATCH: &str = "application/merge-patch+json";
const STRATEGIC: &str = "application/strategic-merge-patch+json";
const APPLY: &str = "application/apply-patch+yaml";
const KINDS: [&str; 4] = [JSON_PATCH, MERGE_PATCH, STRATEGIC, APPLY];

pub(crate) async fn serve(server: &Server, ask: &Ask, content: Incoming) -> Result<Response<Body>, Failure> {
    let Some(kind) = KINDS.into_iter().find(|kind| *kind == media_type(&ask.headers)) else {
        return Err(input::unsupported(&KINDS));
    };
    let options = Options::parse(&ask.query, &ask.headers, "PatchOptions", kind == APPLY)?;
    let bytes = input::read(content).await?;
    let resource = ask.target.resource;
    let ty = Type::of_kind(resource.group, resource.version, resource.kind)
        .ok_or_else(|| Failure::internal(format!("{} has no schema", resource.kind)))?;
    if kind == APPLY {
        return apply(server, ask, &options, ty, &bytes).await;
    }
    let Text { value: patch, duplicates } =
        input::json(&bytes).map_err(|error| Failure::bad_request(format!("error decoding patch: {error}")))?;
    if kind != JSON_PATCH && !patch.is_object() {
        return Err(Failure::bad_request(
            "error decoding patch: json: cannot unmarshal non-object into Go value of type map[string]interface {}",
        ));
    }
    let make = |old: &Value, warnings: &mut Warnings| {
        let mut value = old.clone();
        let outcome = match kind {
            JSON_PATCH => pod_patch::json(&mut value, &patch),
            MERGE_PATCH => pod_patch::merge(&mut value, &patch),
            _ => pod_patch::strategic(ty, &mut value, &patch),
        };
        outcome.map_err(refused)?;
        fit(ty, &mut value, &duplicates, options.validation, warnings)?;
        Ok(Made { value, tracked: false })
    };
    let mut warnings = Warnings::default();
    let written = write::change(server, &ask.target, &options, &mut warnings, make).await?;
    Ok(written.answer(server, ask, StatusCode::OK, warnings))
}

/// What a patch has made must still be of its type.
fn fit(
    ty: Type,
    value: &mut Value,
    duplicates: &[String],
    validation: Validation,
    warnings: &mut Warnings,
) -> Result<(), Failure> {
    let invalid = |value: &Value, why: &str| {
        let message = format!("Invalid value: {:?}: {why}", value.to_string());
        Failure::invalid("", "", "", &[FieldError { path: "patch".into(), message }])
    };
    if input::is_too_deep(value) {
        return Err(Failure::bad_request("the patched object is nested too deeply"));
    }
    let mut strict = duplicates.to_vec();
    for misfit in pod_schema::check(ty, value) {
        match misfit {
            Misfit::Wrong { message, .. } => return Err(invalid(value, &message)),
            Misfit::Unknown { path } => strict.push(format!("unknown field {path:?}")),
        }
    }
    match validation {
        Validation::Strict if !strict.is_empty() => {
            return Err(invalid(value, &format!("strict decoding error: {}", strict.join(", "))));
        }
        Validation::Warn => strict.into_iter().for_each(|text| warnings.add(text)),
        _ => {}
    }
    input::prune(ty, value);
    Ok(())
}

fn refused(error: PatchError) -> Failure {
    let reason = match &error {
        PatchError::Malformed(_) => "BadRequest",
        PatchError::TooLarge(_) => "RequestEntityTooLarge",
        _ => "Invalid",
    };
    Failure::new(error.code(), reason, error.to_string())
}

/// Server-side apply: changes what is there, or makes it.
async fn apply(
    server: &Server,
    ask: &Ask,
    options: &Options,
    ty: Type,
    bytes: &[u8],
) -> Result<Response<Body>, Failure> {
    let target = &ask.target;
    let mut decoding = Warnings::default();
    let wanted = wanted(target, options, ty, bytes, &mut decoding)?;
    let manager = write::manager(server, target, options);
    let whole = target.sub.is_none();
    let missing = || list_missing(target);
    // Between looking and creating somebody else may be faster; then it is a change after all.
    for _ in 0..2 {
        let place = crate::server::key(target.resource.stored_as, target.namespace(), target.name());
        if server.0.store.get(&place).is_some() {
            let make = |old: &Value, _: &mut Warnings| {
                let value = pod_patch::apply(ty, Some(old), &wanted, &manager, options.force).map_err(contested)?;
                Ok(Made { value, tracked: true })
            };
            let mut warnings = Warnings::default();
            let written = write::change(server, target, options, &mut warnings, make).await?;
            return Ok(written.answer(server, ask, StatusCode::OK, decoding));
        }
        if !whole {
            return Err(missing());
        }
        let uid = object::text(&wanted, "/metadata/uid");
        if !uid.is_empty() {
            let why =
                format!("uid mismatch: the provided object specified uid {uid}, and no existing object was found");
            return Err(Failure::conflict(&target.full_name(), target.name(), &why));
        }
        let value = pod_patch::apply(ty, None, &wanted, &manager, options.force).map_err(contested)?;
        match create::create(server, target, options, Made { value, tracked: true }).await {
            Err(failure) if failure.reason == "AlreadyExists" => {}
            outcome => return Ok(outcome?.answer(server, ask, StatusCode::CREATED, decoding)),
        }
    }
    Err(Failure::modified(&target.full_name(), target.name()))
}

fn list_missing(target: &Target) -> Failure {
    Failure::not_found(&target.full_name(), target.name())
}

/// What an applier sends: checked, because what it names is owned afterwards.
fn wanted(
    target: &Target,
    options: &Options,
    ty: Type,
    bytes: &[u8],
    warnings: &mut Warnings,
) -> Result<Value, Failure> {
    let resource = target.resource;
    let malformed = |why: String| Failure::bad_request(format!("error decoding patch: {why}"));
    let text = if bytes.trim_ascii_start().first() == Some(&b'{') { input::json(bytes) } else { input::yaml(bytes) };
    let Text { mut value, duplicates } = text.map_err(malformed)?;
    if !value.is_object() {
        return Err(malformed("the patch is not an object".into()));
    }
    let expected = api_version(resource.group, resource.version);
    let (kind, version) = (object::text(&value, "/kind"), object::text(&value, "/apiVersion"));
    if kind.is_empty() || version.is_empty() {
        let what = if kind.is_empty() { "Kind" } else { "apiVersion" };
        return Err(Failure::bad_request(format!("invalid object type: Object '{what}' is missing in the patch")));
    }
    if kind != resource.kind || version != expected {
        let message =
            format!("invalid object type: {version}, Kind={kind}, expected {expected}, Kind={}", resource.kind);
        return Err(Failure::bad_request(message));
    }
    if value.pointer("/metadata/managedFields").is_some_and(|fields| !fields.is_null() && fields != &json!([])) {
        return Err(Failure::bad_request("metadata.managedFields must be nil"));
    }
    write::check_namespace(target, &mut value)?;
    // The name may be left out; it is in the path.
    let name = target.name().to_owned();
    object::with_metadata(&mut value, |metadata| metadata.entry("name").or_insert(name.into()).is_null());
    if let Some(misfit) = pod_schema::check(ty, &value).into_iter().next() {
        let why = match misfit {
            Misfit::Unknown { path } => format!(".{path}: field not declared in schema"),
            Misfit::Wrong { message, .. } => message,
        };
        let (namespace, name) = (target.namespace(), target.name());
        let group = if resource.group.is_empty() { "/v1".to_owned() } else { expected };
        let message =
            format!("failed to create typed patch object ({namespace}/{name}; {group}, Kind={}): {why}", resource.kind);
        return Err(Failure::new(500, "", message));
    }
    match options.validation {
        Validation::Strict if !duplicates.is_empty() => {
            let text = duplicates.join(", ");
            return Err(Failure::bad_request(format!("error strict decoding patch: {text}")));
        }
        Validation::Warn => duplicates.iter().for_each(|text| input::warn_lines(warnings, text)),
        _ => {}
    }
    Ok(value)
}

fn contested(error: ApplyError) -> Failure {
    match error {
        ApplyError::Patch(error) => refused(error),
        ApplyError::Conflicts(conflicts) => conflict(&conflicts),
    }
}

/// 409 that tells who owns what.
fn conflict(conflicts: &[Conflict]) -> Failure {
    let causes = pod_patch::conflict_causes(conflicts).into_iter();
    let causes =
        causes.map(|(message, field)| json!({"reason": "FieldManagerConflict", "message": message, "field": field}));
    let details = json!({"causes": causes.collect::<Vec<_>>()});
    Failure { details, ..Failure::new(409, "Conflict", pod_patch::conflict_message(conflicts)) }
}
