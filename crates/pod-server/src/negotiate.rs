//! `Accept`: which form of an answer a client wants, out of those there are.

use http::HeaderValue;
use pod_api::failure::Failure;

/// A form of objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    Json,
    /// JSON, which is YAML, called so.
    Yaml,
    /// Rows for a human; the version is `v1` or `v1beta1`.
    Table(&'static str),
    /// `PartialObjectMetadata` and its list.
    Metadata(&'static str),
}

/// A form of discovery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Discovery {
    Legacy,
    /// `v2` or `v2beta1`
    Aggregated(&'static str),
}

/// # Errors
/// 406 when there is nothing the client would take.
pub(crate) fn objects(accept: Option<&HeaderValue>, stream: bool) -> Result<Wanted, Failure> {
    pick(accept, |clause| {
        let yaml = clause.media == "application/yaml" && !stream;
        if !yaml && !clause.takes_json() {
            return None;
        }
        match (clause.parameter("as"), clause.parameter("g")) {
            (None, None) => Some(if yaml { Wanted::Yaml } else { Wanted::Json }),
            (Some("Table"), Some("meta.k8s.io")) => clause.version(&["v1", "v1beta1"]).map(Wanted::Table),
            (Some("PartialObjectMetadata" | "PartialObjectMetadataList"), Some("meta.k8s.io")) => {
                clause.version(&["v1", "v1beta1"]).map(Wanted::Metadata)
            }
            _ => None,
        }
    })
    .unwrap_or(Ok(Wanted::Json))
}

/// # Errors
/// 406 when there is nothing the client would take.
pub(crate) fn discovery(accept: Option<&HeaderValue>) -> Result<Discovery, Failure> {
    pick(accept, |clause| match (clause.takes_json(), clause.parameter("as"), clause.parameter("g")) {
        (true, None, None) => Some(Discovery::Legacy),
        (true, Some("APIGroupDiscoveryList"), Some("apidiscovery.k8s.io")) => {
            clause.version(&["v2", "v2beta1"]).map(Discovery::Aggregated)
        }
        _ => None,
    })
    .unwrap_or(Ok(Discovery::Legacy))
}

/// Only JSON: documents and reviews.
///
/// # Errors
/// 406 when the client would not take it.
pub(crate) fn json(accept: Option<&HeaderValue>) -> Result<(), Failure> {
    pick(accept, |clause| clause.takes_json().then_some(())).unwrap_or(Ok(()))
}

struct Clause<'a> {
    media: &'a str,
    parameters: Vec<(&'a str, &'a str)>,
}

impl<'a> Clause<'a> {
    fn parse(text: &'a str) -> Self {
        let mut parts = text.split(';').map(str::trim);
        let media = parts.next().unwrap_or_default();
        let parameters = parts.filter_map(|part| part.split_once('='));
        Self { media, parameters: parameters.map(|(name, value)| (name.trim(), value.trim())).collect() }
    }

    fn parameter(&self, name: &str) -> Option<&'a str> {
        self.parameters.iter().find(|(known, _)| *known == name).map(|(_, value)| *value)
    }

    fn takes_json(&self) -> bool {
        matches!(self.media, "application/json" | "application/*" | "*/*")
    }

    fn version(&self, known: &[&'static str]) -> Option<&'static str> {
        known.iter().find(|version| self.parameter("v") == Some(version)).copied()
    }

    /// In thousandths.
    fn weight(&self) -> u32 {
        let weight = self.parameter("q").and_then(|q| q.parse::<f32>().ok()).unwrap_or(1.0);
        (weight.clamp(0.0, 1.0) * 1000.0) as u32
    }
}

/// The first form found in the client's order; `None` if the client does not say anything.
fn pick<T>(accept: Option<&HeaderValue>, form: impl Fn(&Clause<'_>) -> Option<T>) -> Option<Result<T, Failure>> {
    let text = accept?.to_str().ok().filter(|text| !text.trim().is_empty())?;
    let mut clauses: Vec<Clause<'_>> = text.split(',').map(Clause::parse).collect();
    clauses.retain(|clause| clause.weight() > 0);
    clauses.sort_by_key(|clause| std::cmp::Reverse(clause.weight()));
    let refused = || {
        let message = "only the following media types are accepted: application/json, application/yaml";
        Failure::new(406, "NotAcceptable", message)
    };
    Some(clauses.iter().find_map(form).ok_or_else(refused))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(accept: &str) -> Result<Wanted, u16> {
        objects(Some(&HeaderValue::from_str(accept).unwrap()), false).map_err(|failure| failure.code)
    }

    #[test]
    fn the_first_form_that_there_is() {
        let table = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
        assert_eq!(wanted(table), Ok(Wanted::Table("v1")));
        assert_eq!(wanted("application/json;as=Table;v=v9;g=meta.k8s.io, application/json"), Ok(Wanted::Json));
        assert_eq!(wanted("application/vnd.kubernetes.protobuf,application/json"), Ok(Wanted::Json));
        assert_eq!(wanted("application/vnd.kubernetes.protobuf"), Err(406));
        assert_eq!(wanted("application/json;as=Nothing;v=v1;g=meta.k8s.io"), Err(406));
        assert_eq!(wanted("application/json;q=0.1,application/yaml"), Ok(Wanted::Yaml));
        assert_eq!(wanted("*/*"), Ok(Wanted::Json));
        assert_eq!(wanted(""), Ok(Wanted::Json));
        let metadata = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
        assert_eq!(wanted(metadata), Ok(Wanted::Metadata("v1")));
    }

    #[test]
    fn aggregated_discovery_is_asked_for_by_parameters() {
        let accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";
        assert_eq!(discovery(Some(&HeaderValue::from_static(accept))), Ok(Discovery::Aggregated("v2")));
        assert_eq!(discovery(None), Ok(Discovery::Legacy));
    }
}
