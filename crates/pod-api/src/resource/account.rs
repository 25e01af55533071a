//! ServiceAccounts.

use jiff::Timestamp;
use serde_json::Value;

use super::{Strategy, view};
use crate::problem::Findings;
use crate::validate::{self, FieldError};

#[derive(Debug)]
pub(super) struct ServiceAccounts;

impl Strategy for ServiceAccounts {
    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let mut findings = Findings::default();
        validate::find_in_object_metadata(object, true, validate::NameRule::Subdomain, &mut findings);
        validate::errors(findings)
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        vec![view::name(object), view::age(object, now)]
    }
}
