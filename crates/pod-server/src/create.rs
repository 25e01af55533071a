//! `POST`: an object that was not there.

use http::{Response, StatusCode};
use hyper::body::Incoming;
use pod_api::failure::Failure;
use pod_api::resource::Part;
use pod_schema::Type;
use pod_store::{Change, Guard, WriteError};
use serde_json::{Value, json};

use crate::body::Body;
use crate::input::{self, Warnings};
use crate::object;
use crate::route::Target;
use crate::server::{Ask, Server, key};
use crate::write::{self, Made, Options, Written};

/// Random letters behind `generateName`, of an alphabet that spells no words.
const SUFFIX: usize = 5;
const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
/// How often another generated name is tried.
const ATTEMPTS: usize = 8;
/// A generated name is cut to leave room for the suffix within a DNS label.
const PREFIX_LENGTH: usize = 63 - SUFFIX;

pub(crate) async fn serve(server: &Server, ask: &Ask, content: Incoming) -> Result<Response<Body>, Failure> {
    let options = Options::parse(&ask.query, &ask.headers, "CreateOptions", false)?;
    let bytes = input::read(content).await?;
    let text = input::parse(&ask.headers, &bytes, ask.target.resource.kind)?;
    let mut warnings = Warnings::default();
    let value = input::fit(ask.target.resource, text, options.validation, &mut warnings)?;
    let written = create(server, &ask.target, &options, Made { value, tracked: false }).await?;
    Ok(written.answer(server, ask, StatusCode::CREATED, warnings))
}

/// Creates an object in the namespace of the target.
///
/// # Errors
/// 404 and 403 of the namespace, 409 if it is there, 422 and 403 as the kind has it.
pub(crate) async fn create(
    server: &Server,
    target: &Target,
    options: &Options,
    made: Made,
) -> Result<Written, Failure> {
    let Made { value: mut wanted, tracked } = made;
    write::check_namespace(target, &mut wanted)?;
    if !object::text(&wanted, "/metadata/resourceVersion").is_empty() {
        return Err(Failure::new(500, "", "resourceVersion should not be set on objects to be created"));
    }
    let prefix = object::text(&wanted, "/metadata/generateName").to_owned();
    let generated = object::text(&wanted, "/metadata/name").is_empty() && !prefix.is_empty();
    let resource = target.resource;
    let _turn = write::turn(server, target).await;
    let mut attempt = 0;
    loop {
        attempt += 1;
        let mut value = wanted.clone();
        if generated {
            let name = generate(&prefix)?;
            object::with_metadata(&mut value, |metadata| metadata.insert("name".into(), name.into()));
        }
        let (value, guard) = admit(server, target, options, Made { value, tracked })?;
        let name = object::text(&value, "/metadata/name").to_owned();
        let place = key(resource.stored_as, target.namespace(), &name);
        let exists = if options.dry_run {
            if server.0.store.get(&place).is_none() {
                return Ok(Written::Unstored(value));
            }
            true
        } else {
            let change = Change::Create(object::stored(resource, value));
            let (store, durability) = (&server.0.store, write::durability(resource));
            let written = match guard {
                Some(guard) => store.write_while(guard, place, change, durability).await,
                None => store.write(place, change, durability).await,
            };
            match written {
                Ok(stored) => return Ok(Written::Stored(stored)),
                Err(WriteError::Exists(_)) => true,
                // Somebody changed the namespace; it is looked at again.
                Err(WriteError::Outdated) if attempt < ATTEMPTS => false,
                Err(other) => return Err(write::refused(other)),
            }
        };
        if exists && !(generated && attempt < ATTEMPTS) {
            return Err(Failure::already_exists(&target.full_name(), &name));
        }
    }
}

/// Everything between a wish and a new object; it may be stored as long as the guard holds.
fn admit(server: &Server, target: &Target, options: &Options, made: Made) -> Result<(Value, Option<Guard>), Failure> {
    let resource = target.resource;
    let strategy = resource.strategy;
    let Made { mut value, tracked } = made;
    let now = write::timestamp(server);
    let uid = uuid()?;
    object::set_type(resource, &mut value);
    object::with_metadata(&mut value, |metadata| {
        for name in ["resourceVersion", "deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "generation"] {
            metadata.remove(name);
        }
        metadata.insert("uid".into(), uid.into());
        metadata.insert("creationTimestamp".into(), now.into());
        if strategy.has_generation() {
            metadata.insert("generation".into(), 1.into());
        }
    });
    let name = object::text(&value, "/metadata/name").to_owned();
    let guard = check_namespace(server, target, &name)?;
    strategy.default(&mut value);
    server.among(options.dry_run, |around| strategy.prepare_create(&mut value, around))?;
    let errors = strategy.validate_create(&value);
    if !errors.is_empty() {
        return Err(Failure::invalid(resource.kind, resource.group, &name, &errors));
    }
    server.among(options.dry_run, |around| strategy.admit(&value, None, Part::Object, around))?;
    if !tracked && let Some(ty) = Type::of_kind(resource.group, resource.version, resource.kind) {
        pod_patch::track(ty, None, &mut value, &write::manager(server, target, options));
    }
    Ok((value, guard))
}

/// A namespace must be there and stay: also until the write is made, or its emptying would miss what is on its way.
fn check_namespace(server: &Server, target: &Target, name: &str) -> Result<Option<Guard>, Failure> {
    let Some(namespace) = target.namespace.as_deref() else { return Ok(None) };
    let place = key("namespaces", "", namespace);
    let found = server.0.store.get(&place).ok_or_else(|| Failure::not_found("namespaces", namespace))?;
    if !object::is_being_deleted(&found.value()) {
        return Ok(Some(Guard { key: place, revision: found.revision }));
    }
    let why = format!("unable to create new content in namespace {namespace} because it is being terminated");
    let mut failure = Failure::forbidden(&target.full_name(), name, &why);
    failure.details["causes"] = json!([{
        "reason": "NamespaceTerminating",
        "message": format!("namespace {namespace} is being terminated"),
        "field": "metadata.namespace",
    }]);
    Err(failure)
}

fn generate(prefix: &str) -> Result<String, Failure> {
    let mut kept = prefix;
    while kept.len() > PREFIX_LENGTH {
        let mut chars = kept.chars();
        chars.next_back();
        kept = chars.as_str();
    }
    let letters = random::<SUFFIX>()?.map(|byte| char::from(ALPHABET[usize::from(byte) % ALPHABET.len()]));
    Ok(kept.chars().chain(letters).collect())
}

/// A version 4 UUID (RFC 9562 §5.4).
fn uuid() -> Result<String, Failure> {
    let mut bytes = random::<16>()?;
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let mut text = String::with_capacity(36);
    for (at, byte) in bytes.iter().enumerate() {
        if matches!(at, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        text.push_str(&format!("{byte:02x}"));
    }
    Ok(text)
}

fn random<const N: usize>() -> Result<[u8; N], Failure> {
    let mut bytes = [0; N];
    let filled = rustix::rand::getrandom(&mut bytes[..], rustix::rand::GetRandomFlags::empty());
    match filled {
        Ok(count) if count == N => Ok(bytes),
        Ok(_) => Err(Failure::internal("the kernel gave too little randomness")),
        Err(error) => Err(Failure::internal(format!("the kernel gave no randomness: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_uids_are_made_in_the_usual_form() {
        let name = generate("web-").unwrap();
        assert!(name.starts_with("web-") && name.len() == 9, "{name}");
        assert_eq!(generate(&"x".repeat(200)).unwrap().len(), 63);
        let uid = uuid().unwrap();
        assert_eq!((uid.len(), &uid[14..15]), (36, "4"), "{uid}");
        assert_ne!(uid, uuid().unwrap());
    }
}
