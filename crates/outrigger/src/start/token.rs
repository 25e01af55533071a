//! Service accounts' tokens: JSON web tokens (RFC 7519) under a key that only this node has, so that nobody but its own API
//! needs to check them. A token ends with its time, its service account, or the object it is bound to.

use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jiff::{SignedDuration, Timestamp};
use pod_api::failure::Failure;
use pod_server::{Issued, TokenRequest, Tokens, User};
use pod_store::{Key, Store};
use ring::hmac;
use serde_json::{Value, json};

const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

/// HMAC with SHA-256 (RFC 7518 §3.2).
const HEADER: &str = r#"{"alg":"HS256","typ":"JWT"}"#;

/// The admin's token as it is; service accounts' by `secret`.
pub(super) fn tokens(admin: &str, secret: &[u8], store: Store) -> Tokens {
    let key = Arc::new(hmac::Key::new(hmac::HMAC_SHA256, secret));
    let (signing, issuing_store) = (key.clone(), store.clone());
    Tokens {
        admin: vec![admin.to_owned()],
        verify: Some(Arc::new(move |token: &str| verify(token, &key, &store, Timestamp::now()))),
        issue: Some(Arc::new(move |request: &TokenRequest| issue(request, &signing, &issuing_store, Timestamp::now()))),
    }
}

fn issue(request: &TokenRequest, key: &hmac::Key, store: &Store, now: Timestamp) -> Result<Issued, Failure> {
    let bound = bound(request, store)?;
    let expires = now.checked_add(SignedDuration::from_secs(request.expiration_seconds)).unwrap_or(Timestamp::MAX);
    let own = [ISSUER.to_owned()];
    let audiences = if request.audiences.is_empty() { own.to_vec() } else { request.audiences.clone() };
    let TokenRequest { namespace, service_account, uid, .. } = request;
    let mut about = json!({"namespace": namespace, "serviceaccount": {"name": service_account, "uid": uid}});
    if let Some((kind, name, uid)) = bound {
        about[kind] = json!({"name": name, "uid": uid});
    }
    let claims = json!({
        "aud": audiences, "exp": expires.as_second(), "iat": now.as_second(), "nbf": now.as_second(), "iss": ISSUER,
        "sub": format!("system:serviceaccount:{namespace}:{service_account}"), "kubernetes.io": about,
    });
    let text = format!("{}.{}", encode(HEADER.as_bytes()), encode(claims.to_string().as_bytes()));
    let signature = hmac::sign(key, text.as_bytes());
    Ok(Issued { token: format!("{text}.{}", encode(signature.as_ref())), expires, audiences })
}

/// Kind in lower case, name and uid of what the token is to live with.
fn bound(request: &TokenRequest, store: &Store) -> Result<Option<(&'static str, String, String)>, Failure> {
    let wish = &request.bound_object;
    if wish.is_null() {
        return Ok(None);
    }
    let text = |field: &str| wish[field].as_str().unwrap_or_default().to_owned();
    let (kind, resource) = match text("kind").as_str() {
        "Pod" => ("pod", "pods"),
        "Secret" => ("secret", "secrets"),
        other => return Err(Failure::bad_request(format!("cannot bind token to object of type {other}"))),
    };
    let (name, uid) = (text("name"), text("uid"));
    let found = store.get(&object(resource, &request.namespace, &name));
    let found = found.ok_or_else(|| Failure::not_found(resource, &name))?;
    if !uid.is_empty() && uid != found.uid {
        let why =
            format!("the UID in the bound object reference ({uid}) does not match the UID in record ({})", found.uid);
        return Err(Failure::conflict(resource, &name, &why));
    }
    Ok(Some((kind, name, found.uid.clone())))
}

fn verify(token: &str, key: &hmac::Key, store: &Store, now: Timestamp) -> Option<User> {
    let (text, signature) = token.rsplit_once('.')?;
    hmac::verify(key, text.as_bytes(), &BASE64_URL_SAFE_NO_PAD.decode(signature).ok()?).ok()?;
    let claims = BASE64_URL_SAFE_NO_PAD.decode(text.split_once('.')?.1).ok()?;
    let claims: Value = serde_json::from_slice(&claims).ok()?;
    let ours = claims["aud"].as_array()?.iter().any(|audience| audience == ISSUER);
    if !ours || claims["exp"].as_i64()? <= now.as_second() {
        return None;
    }
    let about = &claims["kubernetes.io"];
    let namespace = about["namespace"].as_str()?;
    let lives = |resource: &str, who: &Value| {
        let found = store.get(&object(resource, namespace, who["name"].as_str().unwrap_or_default()));
        found.is_some_and(|found| who["uid"] == *found.uid)
    };
    let account = &about["serviceaccount"];
    let bound = [("pods", &about["pod"]), ("secrets", &about["secret"])];
    if !lives("serviceaccounts", account) || bound.iter().any(|(resource, who)| !who.is_null() && !lives(resource, who))
    {
        return None;
    }
    let groups = ["system:serviceaccounts".to_owned(), format!("system:serviceaccounts:{namespace}")];
    Some(User {
        name: claims["sub"].as_str()?.to_owned(),
        uid: account["uid"].as_str()?.to_owned(),
        groups: groups.into_iter().chain(["system:authenticated".to_owned()]).collect(),
    })
}

fn object(resource: &str, namespace: &str, name: &str) -> Key {
    Key { resource: resource.into(), namespace: namespace.into(), name: name.into() }
}

fn encode(bytes: &[u8]) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use pod_store::{Change, Durability};

    #[test]
    fn a_token_lives_as_long_as_its_account_and_its_time() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("objects.redb")).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let account = object("serviceaccounts", "team", "robot");
        let write = |change| runtime.block_on(store.write(account.clone(), change, Durability::Lazy)).unwrap();
        write(Change::Create(json!({"metadata": {"name": "robot", "namespace": "team", "uid": "u1"}})));
        let key = hmac::Key::new(hmac::HMAC_SHA256, b"secret");
        let now: Timestamp = "2025-01-01T00:00:00Z".parse().unwrap();
        let request = TokenRequest {
            namespace: "team".into(),
            service_account: "robot".into(),
            uid: "u1".into(),
            audiences: Vec::new(),
            expiration_seconds: 600,
            bound_object: Value::Null,
        };
        let issued = issue(&request, &key, &store, now).unwrap();
        let user = verify(&issued.token, &key, &store, now).unwrap();
        assert_eq!(user.name, "system:serviceaccount:team:robot");
        assert_eq!(verify(&issued.token, &key, &store, issued.expires), None, "its time is over");
        assert_eq!(verify(&format!("{}x", issued.token), &key, &store, now), None);
        assert_eq!(verify(&issued.token, &hmac::Key::new(hmac::HMAC_SHA256, b"other"), &store, now), None);
        let elsewhere = TokenRequest { audiences: vec!["vault".into()], ..request.clone() };
        let elsewhere = issue(&elsewhere, &key, &store, now).unwrap();
        assert_eq!(verify(&elsewhere.token, &key, &store, now), None, "it is for somebody else");
        let missing = TokenRequest { bound_object: json!({"kind": "Pod", "name": "web"}), ..request };
        assert_eq!(issue(&missing, &key, &store, now).unwrap_err().code, 404);
        write(Change::Delete { expected: None, last: None });
        assert_eq!(verify(&issued.token, &key, &store, now), None, "the account is gone");
    }
}
