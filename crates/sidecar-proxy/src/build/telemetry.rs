//! The access log and tracing.

use std::path::Path;

use daemon::BuildError;
use daemon::config::Document as _;
use dataplane::log::{AccessLog, Format, Key, Writer};
use dataplane::tracing::{self, Sampler, Tracing};

use super::Kept;
use crate::config::{LogField, LogFormat, LogNames, Propagation, Spec};

/// The first digit of a class of status as `accessLog.oneIn` names it; 0: no answer was given.
pub fn status_class(name: &str) -> Option<usize> {
    ["none", "1xx", "2xx", "3xx", "4xx", "5xx"].iter().position(|known| *known == name)
}

pub(super) fn log(spec: &Spec, kept: &Kept) -> Result<Option<AccessLog>, BuildError> {
    let Some(log) = &spec.access_log else { return Ok(None) };
    let format = match log.format {
        LogFormat::Text => Format::Text,
        LogFormat::Combined => Format::Combined,
        LogFormat::Json => Format::Json { short: log.names == LogNames::Short },
    };
    let writer = match &kept.log {
        Some((path, writer)) if *path == log.path => {
            // Whoever asks for a reload may have renamed the file.
            writer.reopen();
            writer.clone()
        }
        _ => Writer::open(log.path.as_deref().map(Path::new)).map_err(|error| {
            let path = log.path.as_deref().unwrap_or("standard output");
            BuildError::new(format!("the access log {path}"), error)
        })?,
    };
    // The document's fields have the short names of the data plane's.
    let bit = |field: &LogField| {
        let name = field.print();
        Key::ALL.iter().find(|(.., short)| name.as_str() == Some(*short)).map_or(0, |(key, ..)| key.bit())
    };
    let fields = match log.fields.as_slice() {
        [] => Key::USUAL,
        fields => fields.iter().fold(0, |bits, field| bits | bit(field)),
    };
    let mut one_in = [1; 6];
    for (class, many) in &log.one_in {
        if let Some(index) = status_class(class) {
            one_in[index] = *many;
        }
    }
    Ok(Some(AccessLog { format, fields, one_in, rate: log.lines_per_second, writer }))
}

pub(super) fn tracing(spec: &Spec) -> Option<Tracing> {
    let tracing = spec.tracing.as_ref()?;
    let mut formats = Vec::new();
    for one in &tracing.propagation {
        let format = match one {
            Propagation::W3c => tracing::Format::W3c,
            Propagation::B3 => tracing::Format::B3,
            Propagation::B3Multi => tracing::Format::B3Multi,
        };
        if !formats.contains(&format) {
            formats.push(format);
        }
    }
    let sampler = match tracing.sample {
        Some(ratio) => Sampler { parent_based: tracing.parent_based, ratio },
        None => sampler_of_environment(),
    };
    Some(Tracing { formats, sampler })
}

/// `OTEL_TRACES_SAMPLER` and `OTEL_TRACES_SAMPLER_ARG`; by default everything its parent does not refuse.
fn sampler_of_environment() -> Sampler {
    let usual = Sampler { parent_based: true, ratio: 1.0 };
    let variable = |name: &str| std::env::var(name).ok().filter(|text| !text.trim().is_empty());
    let Some(name) = variable("OTEL_TRACES_SAMPLER") else { return usual };
    let argument = variable("OTEL_TRACES_SAMPLER_ARG");
    Sampler::named(name.trim(), argument.as_deref()).unwrap_or_else(|| {
        daemon::warn!("OTEL_TRACES_SAMPLER left out: not known, or its argument is no share", value = name);
        usual
    })
}
