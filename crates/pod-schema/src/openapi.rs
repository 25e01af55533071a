//! The OpenAPI documents, made and compressed at build time.

include!(concat!(env!("OUT_DIR"), "/openapi.rs"));

/// Answer to `GET /openapi/v3`, as JSON: for each group-version the address of its document with its hash.
pub fn openapi_v3_index() -> &'static str {
    INDEX
}

/// The document of a group-version (`api/v1`, `apis/policy/v1`): JSON, compressed with gzip. `None`: not served.
pub fn openapi_v3(group_version: &str) -> Option<&'static [u8]> {
    document(group_version)
}

/// The hash that the index gives for it, and its ETag; a request with another `?hash=` is sent on (301) to this one.
pub fn openapi_v3_hash(group_version: &str) -> Option<&'static str> {
    hash(group_version)
}

/// Answer to `GET /openapi/v2` as JSON (Swagger 2.0), compressed with gzip.
pub fn openapi_v2() -> &'static [u8] {
    include_bytes!(concat!(env!("OUT_DIR"), "/swagger.json.gz"))
}

/// What `kubectl` asks [`openapi_v2_protobuf`] by (`Accept`).
pub const OPENAPI_V2_PROTOBUF_ACCEPT: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";

/// What the answer must be called: Go's MIME parser refuses the `@` that Go's clients ask with, so that upstream answers
/// with a dot in its place.
pub const OPENAPI_V2_PROTOBUF_TYPE: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

/// The same as protobuf (gnostic's `openapi.v2.Document`), compressed with gzip. Asked for as
/// [`OPENAPI_V2_PROTOBUF_ACCEPT`], answered as [`OPENAPI_V2_PROTOBUF_TYPE`].
pub fn openapi_v2_protobuf() -> &'static [u8] {
    include_bytes!(concat!(env!("OUT_DIR"), "/swagger.pb.gz"))
}

/// ETag of both forms of it.
pub fn openapi_v2_hash() -> &'static str {
    V2_HASH
}
