//! Makes the type tables and the OpenAPI documents from the schemas that the Kubernetes types carry.
//!
//! `kinds` collects the schemas, `model` brings them to the form that the API server publishes and adds the facts they
//! lack, `table` and `openapi` write them down. The same input gives the same bytes: there is no clock in it.

#[path = "build/gnostic.rs"]
mod gnostic;
#[path = "build/kinds.rs"]
mod kinds;
#[path = "build/model.rs"]
mod model;
#[path = "build/openapi.rs"]
mod openapi;
#[path = "build/paths.rs"]
mod paths;
#[path = "build/resources.rs"]
mod resources;
#[path = "build/swagger.rs"]
mod swagger;
#[path = "build/table.rs"]
mod table;

use std::path::PathBuf;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=build");
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let model = model::Model::new(kinds::collect(), include_str!("build/facts.txt"));
    table::write(&model, &out);
    openapi::write(&model, &out);
}
