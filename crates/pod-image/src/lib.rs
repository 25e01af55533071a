//! OCI images: references, registry, store, layers, import, pack.
