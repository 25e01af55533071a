//! How kubectl prints: columns, JSON, YAML, and the fields a JSONPath names. Pure text of values.

pub mod columns;
pub mod json;
pub mod path;
pub mod yaml;
