//! What is created and never stored as such: evictions, bindings, tokens, and reviews of what one may do.

use http::header::ACCEPT;
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use pod_api::failure::Failure;
use pod_store::{Durability, ModifyError, WriteError};
use serde_json::{Value, json};

use crate::body::{self, Body};
use crate::delete;
use crate::identity::{TokenRequest, User};
use crate::input::{self, Validation, Warnings};
use crate::list;
use crate::negotiate;
use crate::object;
use crate::route;
use crate::server::{Ask, Server, key};
use crate::write::{self, Options};

/// A kind that is only asked: created, answered, forgotten.
#[derive(Debug)]
pub(crate) struct Review {
    pub(crate) group: &'static str,
    pub(crate) kind: &'static str,
    pub(crate) plural: &'static str,
    pub(crate) singular: &'static str,
}

/// All of version `v1`.
pub(crate) static REVIEWS: &[Review] = &[
    Review {
        group: "authentication.k8s.io",
        kind: "SelfSubjectReview",
        plural: "selfsubjectreviews",
        singular: "selfsubjectreview",
    },
    Review {
        group: "authorization.k8s.io",
        kind: "SelfSubjectAccessReview",
        plural: "selfsubjectaccessreviews",
        singular: "selfsubjectaccessreview",
    },
    Review {
        group: "authorization.k8s.io",
        kind: "SelfSubjectRulesReview",
        plural: "selfsubjectrulesreviews",
        singular: "selfsubjectrulesreview",
    },
    Review {
        group: "authorization.k8s.io",
        kind: "SubjectAccessReview",
        plural: "subjectaccessreviews",
        singular: "subjectaccessreview",
    },
];

/// Whoever is known may do everything, so that a review's spec does not matter.
pub(crate) async fn review(plural: &str, user: &User, request: Request<Incoming>) -> Result<Response<Body>, Failure> {
    let review = REVIEWS.iter().find(|review| review.plural == plural).ok_or_else(Failure::unknown_path)?;
    if !request.uri().path().starts_with(&format!("/apis/{}/", review.group)) {
        return Err(Failure::unknown_path());
    }
    if request.method() != Method::POST {
        return Err(route::not_allowed());
    }
    negotiate::json(request.headers().get(ACCEPT))?;
    let (parts, content) = request.into_parts();
    let bytes = input::read(content).await?;
    let text = input::parse(&parts.headers, &bytes, review.kind)?;
    let mut value =
        input::fit_kind((review.group, "v1", review.kind), text, Validation::Warn, &mut Warnings::default())?;
    value["kind"] = review.kind.into();
    value["apiVersion"] = format!("{}/v1", review.group).into();
    value["status"] = match review.kind {
        "SelfSubjectReview" => {
            let mut info = json!({"username": user.name, "groups": user.groups});
            if !user.uid.is_empty() {
                info["uid"] = user.uid.as_str().into();
            }
            json!({"userInfo": info})
        }
        "SelfSubjectRulesReview" => json!({
            "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}],
            "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
            "incomplete": false,
        }),
        _ => json!({"allowed": true, "reason": "every authenticated user may do everything on this node"}),
    };
    Ok(body::json(StatusCode::CREATED, &value))
}

/// `POST` to a subresource.
pub(crate) async fn create(server: &Server, ask: &Ask, content: Incoming) -> Result<Response<Body>, Failure> {
    let options = Options::parse(&ask.query, &ask.headers, "CreateOptions", false)?;
    let sub = ask.target.sub.as_deref().unwrap_or_default();
    let known = ask.target.resource.subresources.iter().find(|known| known.name == sub);
    let kind = known.ok_or_else(Failure::unknown_path)?.kind;
    let bytes = input::read(content).await?;
    let text = input::parse(&ask.headers, &bytes, kind.2)?;
    let mut warnings = Warnings::default();
    let value = input::fit_kind(kind, text, options.validation, &mut warnings)?;
    let own = object::text(&value, "/metadata/name");
    if !own.is_empty() && own != ask.target.name() {
        let message = format!("name in URL does not match name in {} object: {} != {own}", kind.2, ask.target.name());
        return Err(Failure::bad_request(message));
    }
    let mut response = match sub {
        "eviction" => evict(server, ask, &options, &value).await?,
        "binding" => bind(server, ask, &options, &value).await?,
        "token" => token(server, ask, &options, value)?,
        _ => return Err(route::not_allowed()),
    };
    warnings.attach(response.headers_mut());
    Ok(response)
}

/// There are no disruption budgets here, so that nothing speaks against an eviction.
async fn evict(server: &Server, ask: &Ask, options: &Options, eviction: &Value) -> Result<Response<Body>, Failure> {
    let wanted = eviction.get("deleteOptions").filter(|options| !options.is_null()).cloned();
    let mut wanted = delete::Options::of(&wanted.unwrap_or_else(|| json!({})))?;
    wanted.dry_run |= options.dry_run;
    delete::delete(server, &ask.target, &wanted).await?;
    Ok(write::success(StatusCode::CREATED, Value::Null))
}

/// Says on which node a pod is.
async fn bind(server: &Server, ask: &Ask, options: &Options, binding: &Value) -> Result<Response<Body>, Failure> {
    let node = object::text(binding, "/target/name");
    if node.is_empty() {
        let error = pod_api::validate::FieldError { path: "target.name".into(), message: "Required value".into() };
        return Err(Failure::invalid("Binding", "", ask.target.name(), &[error]));
    }
    let (full, name) = (ask.target.full_name(), ask.target.name());
    let bound = |mut value: Value| {
        let refuse = |why: String| Err(Failure::conflict(&format!("{full}/binding"), name, &why));
        let uid = object::text(binding, "/metadata/uid");
        if !uid.is_empty() && uid != object::text(&value, "/metadata/uid") {
            return refuse(write::uid_mismatch(uid, object::text(&value, "/metadata/uid")));
        }
        let on = object::text(&value, "/spec/nodeName");
        if !on.is_empty() {
            return refuse(format!("pod {name} is already assigned to node {on:?}"));
        }
        if object::is_being_deleted(&value) {
            return refuse(format!("pod {name} is being deleted, cannot be assigned to a host"));
        }
        value["spec"]["nodeName"] = node.into();
        Ok(Some(value))
    };
    if options.dry_run {
        bound(object::served(ask.target.resource, &*list::stored(server, &ask.target)?))?;
        return Ok(write::success(StatusCode::CREATED, Value::Null));
    }
    let place = key(ask.target.resource.stored_as, ask.target.namespace(), name);
    match server.0.store.modify(&place, Durability::Synced, |_, value| bound(value)).await {
        Ok(_) => Ok(write::success(StatusCode::CREATED, Value::Null)),
        Err(ModifyError::Refused(failure)) => Err(failure),
        Err(ModifyError::Write(WriteError::Missing)) => Err(Failure::not_found(&full, name)),
        Err(ModifyError::Write(other)) => Err(write::refused(other)),
    }
}

/// A service account's token.
fn token(server: &Server, ask: &Ask, options: &Options, mut wanted: Value) -> Result<Response<Body>, Failure> {
    const HOUR: i64 = 3600;
    let account = list::stored(server, &ask.target)?;
    let issue = server.0.tokens.issue.as_ref().ok_or_else(Failure::unknown_path)?;
    let seconds = wanted.pointer("/spec/expirationSeconds").and_then(Value::as_i64).unwrap_or(HOUR);
    if !(600..=1 << 32).contains(&seconds) {
        let why = if seconds < 600 {
            "may not specify a duration less than 10 minutes"
        } else {
            "may not specify a duration larger than 2^32 seconds"
        };
        let message = format!("Invalid value: {seconds}: {why}");
        let error = pod_api::validate::FieldError { path: "spec.expirationSeconds".into(), message };
        return Err(Failure::invalid("TokenRequest", "authentication.k8s.io", "", &[error]));
    }
    let audiences = wanted.pointer("/spec/audiences").and_then(Value::as_array).into_iter().flatten();
    let request = TokenRequest {
        namespace: ask.target.namespace().to_owned(),
        service_account: ask.target.name().to_owned(),
        uid: account.uid.clone(),
        audiences: audiences.filter_map(Value::as_str).map(str::to_owned).collect(),
        expiration_seconds: seconds,
        bound_object: wanted.pointer("/spec/boundObjectRef").cloned().unwrap_or(Value::Null),
    };
    if !options.dry_run {
        let issued = issue(&request)?;
        wanted["spec"]["audiences"] = issued.audiences.into();
        wanted["status"] = json!({"token": issued.token, "expirationTimestamp": write::seconds(issued.expires)});
    }
    wanted["spec"]["expirationSeconds"] = seconds.into();
    object::with_metadata(&mut wanted, |metadata| {
        metadata.insert("name".into(), request.service_account.into());
        metadata.insert("namespace".into(), request.namespace.into());
        metadata.insert("creationTimestamp".into(), write::timestamp(server).into());
    });
    Ok(body::json(StatusCode::CREATED, &wanted))
}
