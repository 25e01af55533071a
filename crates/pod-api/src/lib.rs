//! Kubernetes objects as text: load, default, validate, resolve; the only crate that knows Kubernetes JSON.
