//! Tables: what `kubectl get` prints.

use jiff::Timestamp;
use pod_api::failure::Failure;
use pod_api::resource::Resource;
use serde_json::{Value, json};

use crate::object;
use crate::query::Query;

/// What a row carries besides its cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Include {
    Metadata,
    Object,
    Nothing,
}

impl Include {
    /// # Errors
    /// 400 for another word.
    pub(crate) fn parse(query: &Query) -> Result<Self, Failure> {
        match query.text("includeObject") {
            None | Some("Metadata") => Ok(Self::Metadata),
            Some("Object") => Ok(Self::Object),
            Some("None") => Ok(Self::Nothing),
            Some(other) => Err(Failure::bad_request(format!("unrecognized includeObject value: {other:?}"))),
        }
    }
}

pub(crate) fn row(resource: &Resource, served: &Value, now: Timestamp, include: Include, version: &str) -> Value {
    let object = match include {
        Include::Metadata => object::partial(served, version),
        Include::Object => served.clone(),
        Include::Nothing => Value::Null,
    };
    let mut row = json!({"cells": resource.strategy.cells(served, now), "object": object});
    if let Some(conditions) = resource.strategy.row_conditions(served) {
        row["conditions"] = conditions;
    }
    row
}

pub(crate) fn whole(resource: &Resource, version: &str, metadata: Value, rows: Vec<Value>) -> Value {
    let mut table = bare(version, metadata, rows);
    table["columnDefinitions"] = columns(resource);
    table
}

/// As in a watch after the first event: the client knows the columns.
pub(crate) fn bare(version: &str, metadata: Value, rows: Vec<Value>) -> Value {
    json!({
        "kind": "Table", "apiVersion": format!("meta.k8s.io/{version}"), "metadata": metadata,
        "columnDefinitions": null, "rows": rows,
    })
}

fn columns(resource: &Resource) -> Value {
    let columns = resource.strategy.columns().iter().map(|column| {
        json!({
            "name": column.name, "type": column.kind, "format": column.format,
            "description": column.description, "priority": column.priority,
        })
    });
    columns.collect()
}
