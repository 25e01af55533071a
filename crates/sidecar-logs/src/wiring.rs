//! From the checked document to parts that can run. Nothing runs here, so a reload that fails has touched nothing.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use daemon::BuildError;
use record::Batch;
use record::batch::filtered;
use record::deliver::{DeadLetters, Pace, Status};
use record::encode::Encoding;
use record::sink::file::{FileOptions, FileSink, Stdout};
use record::sink::forward::{ForwardOptions, ForwardSink};
use record::sink::grpc::GrpcSink;
use record::sink::http::{Authorization, Compression, HeaderName, HttpOptions, HttpSink, Protocol, Secret, Uri};
use record::sink::s3::{Bucket, Credentials};
use record::sink::stream::Peer;
use record::sink::syslog::{SyslogOptions, SyslogSink};
use record::sink::tls::{Tls, TlsError, TlsOptions};
use record::sink::{Failure, Sink};

use crate::config::{self, Body, BulkAction, Client, Lines, OtlpProtocol, Receiver, Spec, Spooling};
use crate::enrich;
use crate::follow::Source;
use crate::follow::open::{Place, StreamKind, open};
use crate::follow::stream::Streams;
use crate::frame::Framer;
use crate::glob::Selection;
use crate::multiline::Rule;
use crate::parse::Parser;
use crate::stages::{Check, Stages, Working};

const MIB: u64 = 1 << 20;

/// One run's worth of everything.
pub(crate) struct Parts {
    pub(crate) streams: Streams,
    pub(crate) sources: Vec<Source>,
    pub(crate) stages: Stages,
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

impl Parts {
    /// Everything that is no file.
    pub(crate) fn places(&self) -> Vec<Place> {
        self.sources.iter().filter_map(|source| source.stream.as_ref()).flat_map(StreamKind::places).collect()
    }

    /// Opens what is not in `present`: whatever refuses does so before anything was given up.
    pub(crate) fn open_streams(&mut self, present: &[Place]) -> Result<(), BuildError> {
        for source in &self.sources {
            for place in source.stream.iter().flat_map(StreamKind::places).filter(|place| !present.contains(place)) {
                let opened = open(&place, &source.name).map_err(|error| BuildError::new("the sources", error))?;
                self.streams.opened.push((place, opened));
            }
        }
        Ok(())
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
    // It may be a password, so it is not shown either.
    if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return Err("must name no user: that is what client.basic is for".to_owned());
    }
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
    let sources = spec.sources.iter().map(|source| self::source(spec, source)).collect::<Result<Vec<_>, _>>()?;
    let stages = Stages::new(&spec.stages).map_err(|error| BuildError::new("the stages", error))?;
    let sinks = spec.sinks.iter().map(sink_parts).collect::<Result<Vec<_>, _>>()?;
    let memory = match spec.state.memory.0 {
        0 => memory_limit.map_or(4 * MIB, |limit| (limit / 4).clamp(MIB, 4 * MIB)),
        bytes => bytes,
    };
    let limits = record::queue::Limits {
        memory: usize::try_from(memory).unwrap_or(usize::MAX),
        spool: spec.state.spool_max_bytes.0,
    };
    // What cannot be read again is stored before it goes anywhere.
    let volatile = sources.iter().any(|source| source.stream.is_some());
    let spool = if volatile && spec.state.spool == Spooling::Overflow { Spooling::Always } else { spec.state.spool };
    Ok(Parts {
        streams: Streams::default(),
        sources,
        stages,
        sinks,
        limits,
        directory: PathBuf::from(&spec.state.directory),
        spool,
        save_every: spec.state.save_every.0.max(Duration::from_millis(10)),
        settle: spec.drain.settle.0,
        reserve: spec.drain.reserve.0,
    })
}

fn source(spec: &Spec, source: &config::Source) -> Result<Source, BuildError> {
    let failed = |error: regex::Error| BuildError::new(format!("source `{}`", source.name), error);
    let fields = enrich::read(&[&source.fields, &spec.fields])
        .map_err(|error| BuildError::new(format!("fields of source `{}`", source.name), error))?;
    let files = source.files.as_ref();
    let framer = framer(source).map_err(failed)?;
    Ok(Source {
        name: source.name.clone(),
        selection: Selection {
            include: files.map(|files| files.include.clone()).unwrap_or_default(),
            exclude: files.map(|files| files.exclude.clone()).unwrap_or_default(),
        },
        start_at: files.map_or(config::StartAt::Beginning, |files| files.start_at),
        ignore_older_than: files.map_or(Duration::ZERO, |files| files.ignore_older_than.0),
        rotate_wait: files.map_or(Duration::ZERO, |files| files.rotate_wait.0),
        poll: files.map_or(Duration::from_secs(1), |files| files.poll.0.max(Duration::from_millis(10))),
        idle: source.multiline.as_ref().map_or(Duration::from_secs(1), |multiline| multiline.idle.0),
        framer,
        encoding: source.encoding,
        stream: stream(source),
        fields,
    })
}

/// The directories that such an agent writes in.
pub(crate) fn writes(spec: &Spec) -> Vec<PathBuf> {
    let mut writes = vec![PathBuf::from(&spec.state.directory)];
    let mut beside = |path: &String| writes.extend(Path::new(path).parent().map(PathBuf::from));
    for source in &spec.sources {
        source.fifo.iter().for_each(|fifo| beside(&fifo.path));
        source.socket.iter().for_each(|socket| beside(&socket.path));
        source.syslog.iter().flat_map(|syslog| &syslog.socket).for_each(&mut beside);
    }
    for sink in &spec.sinks {
        if let Receiver::File(file) = &sink.to {
            beside(&file.path);
        }
        sink.dead_letters.iter().for_each(&mut beside);
    }
    writes
}

/// How the source is read.
pub(crate) fn framer(source: &config::Source) -> Result<Framer, regex::Error> {
    let lengths = [
        source.files.as_ref().map(|files| files.max_line),
        source.stdin.as_ref().map(|stdin| stdin.max_line),
        source.fifo.as_ref().map(|fifo| fifo.max_line),
        source.socket.as_ref().map(|socket| socket.max_line),
        source.syslog.as_ref().map(|syslog| syslog.max_line),
    ];
    let max_line = lengths.into_iter().flatten().next().map_or(256 << 10, |size| size.0);
    let parse = match source.parse {
        config::Parse::None if source.syslog.is_some() => config::Parse::Syslog,
        parse => parse,
    };
    Ok(Framer {
        format: source.format,
        parser: Parser::new(parse, source.pattern.as_deref())?,
        rule: source.multiline.as_ref().map(Rule::new).transpose()?,
        max_line: usize::try_from(max_line).unwrap_or(1 << 20),
        scratch: Default::default(),
    })
}

fn stream(source: &config::Source) -> Option<StreamKind> {
    if source.stdin.is_some() {
        return Some(StreamKind::Stdin);
    }
    if let Some(fifo) = &source.fifo {
        return Some(StreamKind::Fifo(PathBuf::from(&fifo.path)));
    }
    if let Some(socket) = &source.socket {
        let (path, connections) = (PathBuf::from(&socket.path), socket.connections as usize);
        return Some(StreamKind::Socket { path, connections });
    }
    source.syslog.as_ref().map(|syslog| StreamKind::Syslog {
        udp: syslog.udp.clone(),
        tcp: syslog.tcp.clone(),
        socket: syslog.socket.as_ref().map(PathBuf::from),
        connections: syslog.connections as usize,
    })
}

/// Shows a sink only what is meant for it.
struct Filtered {
    check: Check,
    sink: Box<dyn Sink>,
}

impl Sink for Filtered {
    fn deliver(&mut self, batches: &[Arc<Batch>]) -> Result<(), Failure> {
        // For items that are told by their number.
        let mut numbers = Vec::new();
        let mut all = 0;
        let left = filtered(batches, |number, record| {
            all = number + 1;
            let wanted = self.check.holds(&Working::of(record));
            if wanted {
                numbers.push(number);
            }
            wanted
        });
        if left.is_empty() {
            return Ok(());
        }
        let original = |found: Vec<usize>| found.into_iter().filter_map(|at| numbers.get(at).copied()).collect();
        self.sink.deliver(&left).map_err(|failure| match failure {
            Failure::Items { again, refused, reason } => {
                Failure::Items { again: original(again), refused: original(refused), reason }
            }
            // The others were not refused: they are no concern of this sink.
            Failure::Refused(reason) if left.len() < batches.len() || numbers.len() < all => {
                Failure::Items { again: Vec::new(), refused: numbers.clone(), reason }
            }
            other => other,
        })
    }
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
        Receiver::Otlp(otlp) if otlp.protocol == OtlpProtocol::Grpc => {
            let attributes = otlp.resource.clone().into_iter().collect();
            let (options, tls) =
                http_options(&part(), url(&otlp.url), Protocol::Otlp { attributes: Vec::new() }, &otlp.client, None)?;
            Box::new(GrpcSink::new(options, attributes, tls).map_err(|error| BuildError::new(part(), error))?)
        }
        Receiver::Elasticsearch(search) => {
            let mut target = serde_json::json!({ "_index": search.index });
            if let Some(pipeline) = &search.pipeline {
                target["pipeline"] = serde_json::Value::from(pipeline.as_str());
            }
            let name = if search.action == BulkAction::Create { "create" } else { "index" };
            let mut action = serde_json::json!({ name: target }).to_string().into_bytes();
            action.push(b'\n');
            http_sink(part(), with_path(&search.url, "/_bulk"), Protocol::Bulk { action }, &search.client, None)?
        }
        Receiver::S3(s3) => {
            let path = |text: &Option<String>| text.as_ref().map(PathBuf::from);
            let bucket = Bucket {
                bucket: s3.bucket.clone(),
                region: s3.region.clone(),
                prefix: s3.prefix.clone(),
                agent: s3.agent.clone().unwrap_or_else(host_name),
                suffix: match s3.client.compression {
                    config::Compression::None => ".ndjson",
                    config::Compression::Gzip => ".ndjson.gz",
                    config::Compression::Zstd => ".ndjson.zst",
                },
                credentials: Credentials {
                    key_file: path(&s3.key_file),
                    secret_file: path(&s3.secret_file),
                    token_file: path(&s3.token_file),
                },
            };
            http_sink(part(), url(&s3.url), Protocol::S3(Box::new(bucket)), &s3.client, None)?
        }
        Receiver::Syslog(syslog) => {
            let options = SyslogOptions {
                peer: peer(&syslog.address, syslog.timeout.0),
                facility: u8::try_from(syslog.facility).unwrap_or(16),
                host: syslog.host.clone().unwrap_or_else(host_name),
                app: syslog.app.clone(),
            };
            Box::new(SyslogSink::new(options, optional_tls(&part(), syslog.tls.as_ref())?))
        }
        Receiver::Forward(forward) => {
            let options = ForwardOptions { peer: peer(&forward.address, forward.timeout.0), tag: forward.tag.clone() };
            Box::new(ForwardSink::new(options, optional_tls(&part(), forward.tls.as_ref())?))
        }
        Receiver::Otlp(otlp) => {
            let protocol = Protocol::Otlp { attributes: otlp.resource.clone().into_iter().collect() };
            http_sink(part(), with_path(&otlp.url, "/v1/logs"), protocol, &otlp.client, None)?
        }
    };
    let sink = match &config.when {
        Some(when) => {
            let check = Check::new(when).map_err(|error| BuildError::new(part(), error))?;
            Box::new(Filtered { check, sink })
        }
        None => sink,
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

/// The name in messages and objects.
fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// `HOST:PORT`, with brackets around an IPv6 address.
pub(crate) fn host_and_port(address: &str) -> Option<(&str, u16)> {
    let (host, port) = address.rsplit_once(':')?;
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    (!host.is_empty()).then_some((host, port.parse().ok()?))
}

/// The address was checked.
fn peer(address: &str, timeout: Duration) -> Peer {
    let (host, port) = host_and_port(address).unwrap_or((address, 0));
    Peer { host: host.to_owned(), port, timeout }
}

fn tls(given: Option<&config::Tls>) -> Result<Tls, TlsError> {
    let path = |text: &Option<String>| text.as_ref().map(PathBuf::from);
    Tls::new(TlsOptions {
        ca_file: given.and_then(|tls| path(&tls.ca_file)),
        client: given.and_then(|tls| Some((path(&tls.cert_file)?, path(&tls.key_file)?))),
    })
}

fn optional_tls(part: &str, given: Option<&config::Tls>) -> Result<Option<Tls>, BuildError> {
    given.map(|given| tls(Some(given))).transpose().map_err(|error| BuildError::new(part, error))
}

fn http_sink(
    part: String,
    url: Result<Uri, String>,
    protocol: Protocol,
    client: &Client,
    extra: Option<(&str, &String)>,
) -> Result<Box<dyn Sink>, BuildError> {
    let (options, tls) = http_options(&part, url, protocol, client, extra)?;
    Ok(Box::new(HttpSink::new(options, tls).map_err(|error| BuildError::new(part, error))?))
}

fn http_options(
    part: &str,
    url: Result<Uri, String>,
    protocol: Protocol,
    client: &Client,
    extra: Option<(&str, &String)>,
) -> Result<(HttpOptions, Option<Tls>), BuildError> {
    let failed = |error: Box<dyn std::error::Error + Send + Sync>| BuildError::new(part, error);
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
    let tls = (url.scheme_str() == Some("https")).then(|| tls(client.tls.as_ref())).transpose();
    let tls = tls.map_err(|error| failed(error.into()))?;
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
    Ok((options, tls))
}

/// Records refused for good, as JSON lines; the reason is in the log.
fn dead_letters(path: PathBuf) -> DeadLetters {
    let options = FileOptions { path, encoding: Encoding::NdJson, max_bytes: 64 * MIB, keep: 1, sync: true };
    let mut file = FileSink::new(options);
    Box::new(move |batches, _reason| {
        file.deliver(batches).map_err(|failure| match failure {
            Failure::Retry(text, _) | Failure::Refused(text) | Failure::TooLarge(text) => std::io::Error::other(text),
            Failure::Items { reason, .. } => std::io::Error::other(reason),
        })
    })
}
