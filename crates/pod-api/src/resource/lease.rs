//! Leases.

use jiff::Timestamp;
use serde_json::Value;

use super::view::{self, integer, text};
use super::{Column, Strategy};
use crate::path::Path;
use crate::problem::Findings;
use crate::validate::{self, FieldError};

#[derive(Debug)]
pub(super) struct Leases;

impl Strategy for Leases {
    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let mut findings = Findings::default();
        validate::find_in_object_metadata(object, true, validate::NameRule::Subdomain, &mut findings);
        if let Some(seconds) = integer(object, "spec.leaseDurationSeconds").filter(|seconds| *seconds <= 0) {
            findings.invalid(Path::of("spec.leaseDurationSeconds"), seconds, "must be greater than 0");
        }
        if let Some(count) = integer(object, "spec.leaseTransitions").filter(|count| *count < 0) {
            findings.invalid(Path::of("spec.leaseTransitions"), count, "must be greater than or equal to 0");
        }
        validate::errors(findings)
    }

    fn columns(&self) -> &'static [Column] {
        const { &[Column::NAME, Column::text("Holder", "Who holds the lease."), Column::AGE] }
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        vec![view::name(object), text(object, "spec.holderIdentity").into(), view::age(object, now)]
    }
}
