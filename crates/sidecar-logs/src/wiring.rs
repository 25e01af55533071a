//! From the checked document to parts that can run. Nothing runs here, so a reload that fails has touched nothing.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use daemon::BuildError;
use record::deliver::{DeadLetters, Pace, Status};
use record::encode::Encoding;
use record::sink::file::{FileOptions, FileSink, Stdout};
use record::sink::http::{Authorization, Compression, HeaderName, HttpOptions, HttpSink, Protocol, Secret, Uri};
use record::sink::tls::{Tls, TlsOptions};
use record::sink::{Failure, Sink};

use crate::config::{self, Body, Client, Lines, Receiver, Spec, Spooling};
use crate::enrich;
use crate::follow::Source;
use crate::frame::Framer;
use crate::glob::Selection;
use crate::multiline::Rule;
use crate::stages::Stages;

const MIB: u64 = 1 << 20;

/// One run's worth of everything.
pub(crate) struct Parts {
    pub(crate) sources: Vec<Source>,
    pub(crate) sinks: Vec<SinkParts>,
    pub(crate) limits: record::queue::Limits,
    pub(crate) directory: PathBuf,
    pub(crate) spool: Spooling,
    pub(crate) save_every: Duration,
    pub(crate) settle: Duration,
    pub(crate) reserve: Duration,
}

impl std::fmt::Debug for Parts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parts").field("directory", &self.directory).finish_non_exhaustive()
    }
}

pub(crate) struct SinkParts {
    pub(crate) name: String,
    pub(crate) sink: Box<dyn Sink>,
    pub(crate) pace: Pace,
    pub(crate) status: Arc<Status>,
    pub(crate) dead_letters: Option<DeadLetters>,
}

/// An `http` or `https` address with a host; otherwise one sentence.
pub(crate) fn url(text: &str) -> Result<Uri, String> {
    let uri: Uri = text.parse().map_err(|_| format!("`{text}` is no URL"))?;
    match (uri.scheme_str(), uri.host()) {
        (Some("http" | "https"), Some(host)) if !host.is_empty() => Ok(uri),
        _ => Err(format!("`{text}` must begin with http:// or https:// and name a host")),
    }
}

pub(crate) fn is_header(name: &str) -> bool {
    HeaderName::try_from(name).is_ok()
}

/// The base address with a receiver's own path, unless there is a path already.
fn with_path(text: &str, path: &str) -> Result<Uri, String> {
    let given = url(text)?;
    if given.path() == "/" && given.query().is_none() {
        url(&format!("{}{path}", text.trim_end_matches('/')))
    } else {
        Ok(given)
    }
}

pub(crate) fn build(spec: &Spec, memory_limit: Option<u64>) -> Result<Parts, BuildError> {
    let mut sources = Vec::new();
    for source in &spec.sources {
        let failed = |error: regex::Error| BuildError::new(format!("source `{}`", source.name), error);
        let fields = enrich::read(&[&source.fields, &spec.fields])
            .map_err(|error| BuildError::new(format!("fields of source `{}`", source.name), error))?;
        let framer = Framer {
            format: source.format,
            parse: source.parse,
            rule: source.multiline.as_ref().map(Rule::new).transpose().map_err(failed)?,
            stages: Stages::new(&spec.stages).map_err(failed)?,
            max_line: usize::try_from(source.files.max_line.0).unwrap_or(1 << 20),
        };
        sources.push(Source {
            name: source.name.clone(),
            selection: Selection { include: source.files.include.clone(), exclude: source.files.exclude.clone() },
            start_at: source.files.start_at,
            ignore_older_than: source.files.ignore_older_than.0,
            rotate_wait: source.files.rotate_wait.0,
            poll: source.files.poll.0.max(Duration::from_millis(10)),
            idle: source.multiline.as_ref().map_or(Duration::from_secs(1), |multiline| multiline.idle.0),
            framer,
            fields,
        });
    }
    let sinks = spec.sinks.iter().map(sink_parts).collect::<Result<Vec<_>, _>>()?;
    let memory = match spec.state.memory.0 {
        0 => memory_limit.map_or(4 * MIB, |limit| (limit / 4).clamp(MIB, 4 * MIB)),
        bytes => bytes,
    };
    let limits = record::queue::Limits {
        memory: usize::try_from(memory).unwrap_or(usize::MAX),
        spool: spec.state.spool_max_bytes.0,
    };
    Ok(Parts {
        sources,
        sinks,
        limits,
        directory: PathBuf::from(&spec.state.directory),
        spool: spec.state.spool,
        save_every: spec.state.save_every.0.max(Duration::from_millis(10)),
        settle: spec.drain.settle.0,
        reserve: spec.drain.reserve.0,
    })
}

fn sink_parts(config: &config::Sink) -> Result<SinkParts, BuildError> {
    let part = || format!("sink `{}`", config.name);
    let sink: Box<dyn Sink> = match &config.to {
        Receiver::Stdout(stdout) => Box::new(Stdout::new(encoding(stdout.encoding))),
        Receiver::File(file) => Box::new(FileSink::new(FileOptions {
            path: PathBuf::from(&file.path),
            encoding: encoding(file.encoding),
            max_bytes: file.max_bytes.0,
            keep: file.keep,
            sync: file.sync,
        })),
        Receiver::Http(http) => {
            let encoding = match http.encoding {
                Body::NdJson => Encoding::NdJson,
                Body::Json => Encoding::JsonArray,
                Body::Text => Encoding::Text,
            };
            http_sink(part(), url(&http.url), Protocol::Json(encoding), &http.client, None)?
        }
        Receiver::Loki(loki) => {
            let protocol = Protocol::Loki { labels: loki.labels.clone().into_iter().collect() };
            let tenant = loki.tenant.as_ref().map(|tenant| ("x-scope-orgid", tenant));
            http_sink(part(), with_path(&loki.url, "/loki/api/v1/push"), protocol, &loki.client, tenant)?
        }
        Receiver::Otlp(otlp) => {
            let protocol = Protocol::Otlp { attributes: otlp.resource.clone().into_iter().collect() };
            http_sink(part(), with_path(&otlp.url, "/v1/logs"), protocol, &otlp.client, None)?
        }
    };
    let pace = Pace {
        bytes: usize::try_from(config.batch.max_bytes.0).unwrap_or(1 << 20).max(1),
        linger: config.batch.wait.0,
        retry_ceiling: config.retry_ceiling.0.max(Duration::from_millis(10)),
    };
    let dead_letters = config.dead_letters.as_ref().map(|path| dead_letters(PathBuf::from(path)));
    Ok(SinkParts { name: config.name.clone(), sink, pace, status: Arc::default(), dead_letters })
}

const fn encoding(lines: Lines) -> Encoding {
    match lines {
        Lines::Text => Encoding::Text,
        Lines::Json => Encoding::NdJson,
    }
}

fn http_sink(
    part: String,
    url: Result<Uri, String>,
    protocol: Protocol,
    client: &Client,
    extra: Option<(&str, &String)>,
) -> Result<Box<dyn Sink>, BuildError> {
    let failed = |error: Box<dyn std::error::Error + Send + Sync>| BuildError::new(part.clone(), error);
    let url = url.map_err(|message| failed(message.into()))?;
    let values = client.headers.iter().map(|(name, value)| (name.as_str(), Secret::Value(value.clone())));
    let files = client.header_files.iter().map(|(name, path)| (name.as_str(), Secret::File(PathBuf::from(path))));
    let extra = extra.into_iter().map(|(name, value)| (name, Secret::Value(value.clone())));
    let headers = values.chain(files).chain(extra).map(|(name, value)| Ok((HeaderName::try_from(name)?, value)));
    let headers: Result<Vec<_>, Box<dyn std::error::Error + Send + Sync>> = headers.collect();
    let authorization = match (&client.basic, &client.bearer_token_file) {
        (Some(basic), _) => Authorization::Basic(basic.user.clone(), Secret::File(PathBuf::from(&basic.password_file))),
        (None, Some(path)) => Authorization::Bearer(Secret::File(PathBuf::from(path))),
        (None, None) => Authorization::None,
    };
    let tls = if url.scheme_str() == Some("https") {
        let given = client.tls.as_ref();
        let path = |text: &Option<String>| text.as_ref().map(PathBuf::from);
        let options = TlsOptions {
            ca_file: given.and_then(|tls| path(&tls.ca_file)),
            client: given.and_then(|tls| Some((path(&tls.cert_file)?, path(&tls.key_file)?))),
        };
        Some(Tls::new(options).map_err(|error| failed(error.into()))?)
    } else {
        None
    };
    let options = HttpOptions {
        url,
        protocol,
        compression: match client.compression {
            config::Compression::None => Compression::None,
            config::Compression::Gzip => Compression::Gzip,
            config::Compression::Zstd => Compression::Zstd,
        },
        headers: headers.map_err(failed)?,
        authorization,
        timeout: client.timeout.0,
    };
    Ok(Box::new(HttpSink::new(options, tls).map_err(|error| failed(error.into()))?))
}

/// Records refused for good, as JSON lines; the reason is in the log.
fn dead_letters(path: PathBuf) -> DeadLetters {
    let options = FileOptions { path, encoding: Encoding::NdJson, max_bytes: 64 * MIB, keep: 1, sync: true };
    let mut file = FileSink::new(options);
    Box::new(move |batches, _reason| {
        file.deliver(batches).map_err(|failure| match failure {
            Failure::Retry(text, _) | Failure::Refused(text) | Failure::TooLarge(text) => std::io::Error::other(text),
        })
    })
}
