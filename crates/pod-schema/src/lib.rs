//! What Kubernetes kinds are made of: which fields there are, how lists merge; and the OpenAPI documents that say so.
//!
//! The tables are made at build time from the schemas that the Kubernetes types carry, and from our own list of merge keys.

#![forbid(unsafe_code)]

mod check;
mod duplicate;
mod openapi;
mod table;
#[cfg(test)]
mod tests;

pub use openapi::{
    OPENAPI_V2_PROTOBUF_ACCEPT, OPENAPI_V2_PROTOBUF_TYPE, openapi_v2, openapi_v2_hash, openapi_v2_protobuf, openapi_v3,
    openapi_v3_hash, openapi_v3_index,
};

/// A type, by its place in the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Type(u16);

/// What a value of a type looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// Any JSON (`fieldsV1`, `RawExtension`).
    Any,
    Scalar(Scalar),
    /// Fields by name ([`Type::field`]). `atomic`: owned and replaced as a whole (`x-kubernetes-map-type: atomic`).
    Object {
        atomic: bool,
    },
    /// Free keys.
    Map {
        value: Type,
        atomic: bool,
    },
    List {
        item: Type,
        kind: ListKind,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scalar {
    String,
    Integer,
    Number,
    Boolean,
    IntOrString,
    Quantity,
    /// RFC 3339.
    Time,
    /// Base64.
    Bytes,
}

/// Server-side apply's view of a list (`x-kubernetes-list-type`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListKind {
    Atomic,
    Set,
    /// Items by these fields (`x-kubernetes-list-map-keys`).
    Map(&'static [&'static str]),
}

#[derive(Debug, Clone, Copy)]
pub struct Field {
    pub name: &'static str,
    pub ty: Type,
    pub required: bool,
    pub patch: PatchRule,
}

/// Strategic merge patch's view of a field (`x-kubernetes-patch-strategy`, `x-kubernetes-patch-merge-key`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PatchRule {
    /// `merge`: lists merge (by `merge_key`, or as a set of scalars) instead of being replaced.
    pub merge: bool,
    pub merge_key: Option<&'static str>,
    /// `retainKeys`
    pub retain_keys: bool,
}

impl Type {
    /// The type of a kind: `("", "v1", "Pod")`. Lists are kinds too: `("", "v1", "PodList")`.
    pub fn of_kind(group: &str, version: &str, kind: &str) -> Option<Type> {
        table::of_kind(&format!("{group}/{version}/{kind}"))
    }

    /// By the name of the schema: `io.k8s.api.core.v1.Pod`.
    pub fn named(name: &str) -> Option<Type> {
        table::named(name)
    }

    pub fn shape(self) -> Shape {
        self.read_shape()
    }

    /// A field of an object type; no other type has fields.
    pub fn field(self, name: &str) -> Option<Field> {
        self.find_field(name)
    }

    /// The fields of an object type, by name.
    pub fn fields(self) -> impl Iterator<Item = Field> {
        self.all_fields()
    }

    /// Default of the value of a list-map key that is left out (`protocol` of a port: `"TCP"`), as JSON text.
    /// `self` is the type of the items.
    pub fn key_default(self, field: &str) -> Option<&'static str> {
        self.find_default(field)
    }
}

/// One misfit of a value with its type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Misfit {
    /// `spec.containers[0].foo`: left out, or refused by a strict request. Shown as `unknown field "spec.containers[0].foo"`.
    Unknown { path: String },
    /// Decoding cannot go on with it: always an error, whatever `fieldValidation` says. `message` is the decoder's
    /// (`json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32`); the API server
    /// puts `Pod in version "v1" cannot be handled as a Pod: ` before it.
    Wrong { path: String, message: String },
}

impl std::fmt::Display for Misfit {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Misfit::Unknown { path } => write!(formatter, "unknown field {path:?}"),
            Misfit::Wrong { message, .. } => formatter.write_str(message),
        }
    }
}

/// Checks a whole object against its type. At most one [`Misfit::Wrong`], and it comes first: with it, the unknown fields
/// are not reported upstream. At most 100 unknown fields, as upstream. `null` fits everything.
pub fn check(ty: Type, value: &serde_json::Value) -> Vec<Misfit> {
    check::check(ty, value)
}

/// Paths of the fields that a JSON text has more than once (`spec.x`, each once, at most 100), in the order of the text;
/// the server shows them as `duplicate field "spec.x"`.
pub fn duplicates(text: &[u8]) -> Vec<String> {
    duplicate::duplicates(text)
}

/// Every kind in the tables, as `group/version/Kind` (`/v1/Pod`), sorted.
pub fn kinds() -> impl Iterator<Item = &'static str> {
    table::kinds()
}
