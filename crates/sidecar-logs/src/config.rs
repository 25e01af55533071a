//! The document `LogAgent`.

use std::collections::BTreeMap;

use daemon::config::{Decoder, Seconds, Size};
use daemon::{choice, document, one_of};

document! {
    /// What is read, what happens to it, and where it goes.
    pub struct Spec {
        /// Where logs come from.
        sources: Vec<Source> = required,
        /// What happens to each record, in this order.
        stages: Vec<Stage> = default(Vec::new()),
        /// Where records go. Each sink has its own pace; a position is saved when all have acknowledged it.
        sinks: Vec<Sink> = required,
        /// Added to every record, and labels of its stream.
        fields: BTreeMap<String, Value> = default(BTreeMap::new()),
        /// Where positions, and what could not be delivered yet, are kept.
        state: State = default(State::default()),
        /// How the end is found after SIGTERM.
        drain: Drain = default(Drain::default()),
    }
}

document! {
    /// One way in.
    pub struct Source {
        /// The name, as shown in metrics.
        name: String = required,
        /// Files that are followed.
        files: Files = required,
        /// How a line is written.
        format: Format = default(Format::Plain),
        /// What the text of a line is.
        parse: Parse = default(Parse::None),
        /// Which lines belong together.
        multiline: Option<Multiline> = optional,
        /// Added to every record of this source; before the agent's own of the same name.
        fields: BTreeMap<String, Value> = default(BTreeMap::new()),
    }
}

document! {
    /// Files that are followed through rotation by rename, copy and truncate, and delete.
    pub struct Files {
        /// Patterns of absolute paths: `*`, `?`, `[a-z]`, and `**` for any directories.
        include: Vec<String> = required,
        /// Patterns of paths, or of file names if without `/`, that are left out.
        exclude: Vec<String> = default(vec!["*.gz".to_owned(), "*.zst".to_owned(), "*.tmp".to_owned()]),
        /// Where a file begins that was there before the agent's first start. Later files are read whole.
        start_at: StartAt = default(StartAt::Beginning),
        /// Files not written for this long before they were first seen are left out. 0s: none.
        ignore_older_than: Seconds = default(Seconds::new(0)),
        /// A renamed or deleted file is let go when it has not grown for this long.
        rotate_wait: Seconds = default(Seconds::new(5)),
        /// A longer line is cut into pieces, each its own record, marked `partial`. Nothing is dropped.
        max_line: Size = default(Size(256 << 10)),
        /// How often everything is looked at without an event: the fallback where inotify(7) sees nothing.
        poll: Seconds = default(Seconds::new(1)),
    }
}

choice! {
    /// The place to begin.
    pub enum StartAt {
        /// The whole file.
        Beginning = "beginning",
        /// Only what is written from now on.
        End = "end",
    }
}

choice! {
    /// How a line is written.
    pub enum Format {
        /// The line is the text.
        Plain = "plain",
        /// `TIME STREAM TAG TEXT`, as container runtimes write; partial lines are joined.
        Cri = "cri",
    }
}

choice! {
    /// What a text is.
    pub enum Parse {
        /// Just text.
        None = "none",
        /// A JSON object, kept as it is; its time and level are understood. Other lines stay text.
        Json = "json",
        /// `key=value` pairs, which become fields; the text stays.
        Logfmt = "logfmt",
    }
}

document! {
    /// Which lines belong together. Grouping depends on the text alone, and on the idle time.
    pub struct Multiline {
        /// A ready-made rule.
        preset: Option<Preset> = optional,
        /// A regular expression: a line that matches begins a record.
        start: Option<String> = optional,
        /// A regular expression: a line that matches goes on with the record before it.
        next: Option<String> = optional,
        /// A record that nothing was added to for this long is finished.
        idle: Seconds = default(Seconds::new(1)),
    }
}

choice! {
    /// Ready-made rules for stack traces.
    pub enum Preset {
        /// Java and other JVM languages.
        Java = "java",
        /// Go panics.
        Go = "go",
        /// Python tracebacks.
        Python = "python",
        /// Ruby backtraces.
        Ruby = "ruby",
        /// Node.js errors.
        Node = "node",
        /// .NET exceptions.
        Dotnet = "dotnet",
        /// Lines that begin with white space go on with the one before.
        Indented = "indented",
    }
}

one_of! {
    /// One step.
    pub enum Stage {
        /// Keeps what matches, drops the rest.
        Keep(Condition) = "keep",
        /// Drops what matches.
        Drop(Condition) = "drop",
        /// Replaces what must not leave the pod.
        Redact(Redact) = "redact",
        /// Keeps one record in so many.
        Sample(Sample) = "sample",
    }
}

document! {
    /// All that is given must hold.
    pub struct Condition {
        /// A regular expression that the text matches.
        matches: Option<String> = optional,
        /// A literal part of the text.
        contains: Option<String> = optional,
        /// The severity is known and at least this.
        min_severity: Option<Level> = optional,
        /// The severity is known and at most this.
        max_severity: Option<Level> = optional,
    }
}

choice! {
    /// Severities.
    pub enum Level {
        /// Finer than debug.
        Trace = "trace",
        /// For developers.
        Debug = "debug",
        /// Normal.
        Info = "info",
        /// Unexpected but coped with.
        Warn = "warn",
        /// Failed.
        Error = "error",
        /// The program ends.
        Fatal = "fatal",
    }
}

document! {
    /// Replaces what must not leave the pod.
    pub struct Redact {
        /// Ready-made patterns.
        presets: Vec<Secrets> = default(Vec::new()),
        /// Regular expressions; the whole match is replaced.
        patterns: Vec<String> = default(Vec::new()),
        /// What stands there instead.
        replacement: String = default("[redacted]".to_owned()),
    }
}

choice! {
    /// Ready-made patterns.
    pub enum Secrets {
        /// Mail addresses.
        Email = "email",
        /// Payment card numbers whose check digit is right.
        Card = "card",
        /// JSON Web Tokens, bearer tokens, cloud and forge access keys.
        Token = "token",
        /// What follows `password=`, `secret:` and the like.
        Password = "password",
    }
}

document! {
    /// Keeps one record in so many, chosen by its text: the same text is always kept or always dropped.
    pub struct Sample {
        /// One in so many.
        one_in: u32 = required,
    }
}

one_of! {
    /// Where a value comes from. No API server is asked.
    pub enum Value {
        /// Written down.
        Text(Text) = "value",
        /// An environment variable, such as one from the downward API.
        Env(Text) = "env",
        /// A file's text.
        File(Text) = "file",
        /// A downward API file of `key="value"` lines; becomes an object.
        Labels(Text) = "labelsFile",
    }
}

/// A single text where a map of fields could stand.
#[derive(Clone, Debug, PartialEq)]
pub struct Text(pub String);

impl daemon::config::Document for Text {
    fn decode(node: &daemon::config::tree::Node, decoder: &mut Decoder) -> Option<Text> {
        String::decode(node, decoder).map(Text)
    }
    fn schema() -> daemon::config::Schema {
        String::schema()
    }
    fn print(&self) -> daemon::config::print::Value {
        self.0.print()
    }
}

document! {
    /// One way out.
    pub struct Sink {
        /// The name; progress is kept under it.
        name: String = required,
        /// The receiver.
        to: Receiver = required,
        /// How much goes at once.
        batch: Batching = default(Batching::default()),
        /// The longest pause between two tries. Trying never ends.
        retry_ceiling: Seconds = default(Seconds::new(5)),
        /// A file for records that the receiver refuses for good (400, 413, 415, 422). Without it they are tried again for ever,
        /// and nothing overtakes them.
        dead_letters: Option<String> = optional,
    }
}

document! {
    /// How much goes at once.
    pub struct Batching {
        /// Bytes of records in one request, about.
        max_bytes: Size = default(Size(1 << 20)),
        /// How long a request that is not full waits for more.
        wait: Seconds = default(Seconds::millis(100)),
    }
}

impl Default for Batching {
    fn default() -> Batching {
        Batching { max_bytes: Size(1 << 20), wait: Seconds::millis(100) }
    }
}

one_of! {
    /// A receiver.
    pub enum Receiver {
        /// Standard output.
        Stdout(Stdout) = "stdout",
        /// A file.
        File(File) = "file",
        /// HTTP(S) with JSON.
        Http(Http) = "http",
        /// Grafana Loki.
        Loki(Loki) = "loki",
        /// OpenTelemetry, OTLP over HTTP with protobuf.
        Otlp(Otlp) = "otlp",
    }
}

choice! {
    /// How records are written.
    pub enum Lines {
        /// The line as it was.
        Text = "text",
        /// One JSON object per line.
        Json = "json",
    }
}

document! {
    /// Standard output, for the node's agent.
    pub struct Stdout {
        /// How records are written.
        encoding: Lines = default(Lines::Text),
    }
}

document! {
    /// A file.
    pub struct File {
        /// Its path.
        path: String = required,
        /// How records are written.
        encoding: Lines = default(Lines::Text),
        /// Rotated when larger; 0: never.
        max_bytes: Size = default(Size(0)),
        /// Rotated files kept.
        keep: u32 = default(3),
        /// Synced to the disk before a position is saved. Without, a power cut can lose the last seconds.
        sync: bool = default(false),
    }
}

choice! {
    /// How a body is written.
    pub enum Body {
        /// One JSON object per line (`application/x-ndjson`).
        NdJson = "ndjson",
        /// One JSON array.
        Json = "json",
        /// The lines as they were.
        Text = "text",
    }
}

document! {
    /// HTTP(S) with JSON.
    pub struct Http {
        /// Where to POST.
        url: String = required,
        /// How the body is written.
        encoding: Body = default(Body::NdJson),
        /// The connection.
        client: Client = default(Client::default()),
    }
}

document! {
    /// Grafana Loki.
    pub struct Loki {
        /// Its base address; `/loki/api/v1/push` is added if there is no path.
        url: String = required,
        /// Labels of every stream, besides the fields.
        labels: BTreeMap<String, String> = default(BTreeMap::new()),
        /// The tenant (`X-Scope-OrgID`).
        tenant: Option<String> = optional,
        /// The connection.
        client: Client = default(Client::default()),
    }
}

document! {
    /// OpenTelemetry, OTLP over HTTP with protobuf.
    pub struct Otlp {
        /// The collector's base address; `/v1/logs` is added if there is no path.
        url: String = required,
        /// Attributes of every resource, besides the fields.
        resource: BTreeMap<String, String> = default(BTreeMap::new()),
        /// The connection.
        client: Client = default(Client::default()),
    }
}

choice! {
    /// How bodies are made smaller.
    pub enum Compression {
        /// Not at all.
        None = "none",
        /// gzip, fastest.
        Gzip = "gzip",
        /// Zstandard, fastest; needs about 1 MiB of memory more.
        Zstd = "zstd",
    }
}

document! {
    /// The connection to a receiver.
    pub struct Client {
        /// How bodies are made smaller.
        compression: Compression = default(Compression::None),
        /// More headers.
        headers: BTreeMap<String, String> = default(BTreeMap::new()),
        /// More headers whose values are in files, read for every request.
        header_files: BTreeMap<String, String> = default(BTreeMap::new()),
        /// A file with a bearer token, read for every request.
        bearer_token_file: Option<String> = optional,
        /// User and password.
        basic: Option<Basic> = optional,
        /// For connecting, and again for the answer.
        timeout: Seconds = default(Seconds::new(10)),
        /// Certificates.
        tls: Option<Tls> = optional,
    }
}

impl Default for Client {
    fn default() -> Client {
        Client {
            compression: Compression::None,
            headers: BTreeMap::new(),
            header_files: BTreeMap::new(),
            bearer_token_file: None,
            basic: None,
            timeout: Seconds::new(10),
            tls: None,
        }
    }
}

document! {
    /// User and password.
    pub struct Basic {
        /// The user.
        user: String = required,
        /// A file with the password.
        password_file: String = required,
    }
}

document! {
    /// Certificates; read again for a new connection when the files have changed.
    pub struct Tls {
        /// PEM certificates to trust instead of the machine's.
        ca_file: Option<String> = optional,
        /// A PEM chain to present.
        cert_file: Option<String> = optional,
        /// Its PEM key.
        key_file: Option<String> = optional,
    }
}

document! {
    /// Where positions, and what could not be delivered yet, are kept.
    pub struct State {
        /// A directory that survives a restart of the container: put it on a volume.
        directory: String = default("/var/lib/outrigger/logs".to_owned()),
        /// Whether there is a spool.
        spool: Spooling = default(Spooling::Overflow),
        /// The spool never holds more; then reading waits.
        spool_max_bytes: Size = default(Size(512 << 20)),
        /// Bytes in memory before the spool is used; 0: a quarter of the memory limit, from 1Mi to 4Mi.
        memory: Size = default(Size(0)),
        /// How often positions are saved.
        save_every: Seconds = default(Seconds::new(1)),
    }
}

choice! {
    /// Whether there is a spool.
    pub enum Spooling {
        /// No: reading waits for the receivers.
        Off = "off",
        /// When memory is full, a source is about to vanish, or the drain ends before the delivery.
        Overflow = "overflow",
        /// Every record, before it is delivered.
        Always = "always",
    }
}

impl Default for State {
    fn default() -> State {
        State {
            directory: "/var/lib/outrigger/logs".to_owned(),
            spool: Spooling::Overflow,
            spool_max_bytes: Size(512 << 20),
            memory: Size(0),
            save_every: Seconds::new(1),
        }
    }
}

document! {
    /// How the end is found after SIGTERM.
    pub struct Drain {
        /// Files that have not grown for this long are at their end.
        settle: Seconds = default(Seconds::millis(250)),
        /// Kept back from the deadline, to put on the spool what could not be delivered.
        reserve: Seconds = default(Seconds::new(1)),
    }
}

impl Default for Drain {
    fn default() -> Drain {
        Drain { settle: Seconds::millis(250), reserve: Seconds::new(1) }
    }
}

/// What the types cannot say.
pub fn check(spec: &Spec, decoder: &mut Decoder) {
    if spec.sources.is_empty() {
        decoder.refuse_at("spec.sources", "needs at least one source");
    }
    if spec.sinks.is_empty() {
        decoder.refuse_at("spec.sinks", "needs at least one sink");
    }
    let sources = spec.sources.iter().map(|source| source.name.as_str());
    names("spec.sources", sources, decoder);
    names("spec.sinks", spec.sinks.iter().map(|sink| sink.name.as_str()), decoder);
    for (index, source) in spec.sources.iter().enumerate() {
        let at = format!("spec.sources[{index}]");
        for (position, pattern) in source.files.include.iter().enumerate() {
            if !pattern.starts_with('/') {
                decoder.refuse_at(&format!("{at}.files.include[{position}]"), "must be an absolute path or pattern");
            }
        }
        if source.files.include.is_empty() {
            decoder.refuse_at(&format!("{at}.files.include"), "needs at least one pattern");
        }
        if !(64..=16 << 20).contains(&source.files.max_line.0) {
            decoder.refuse_at(&format!("{at}.files.maxLine"), "must be between 64 and 16Mi");
        }
        if let Some(multiline) = &source.multiline {
            let at = format!("{at}.multiline");
            let given = [multiline.preset.is_some(), multiline.start.is_some(), multiline.next.is_some()];
            if given.iter().filter(|given| **given).count() != 1 {
                decoder.refuse_at(&at, "needs exactly one of preset, start and next");
            }
            regex(&format!("{at}.start"), multiline.start.as_deref(), decoder);
            regex(&format!("{at}.next"), multiline.next.as_deref(), decoder);
        }
    }
    for (index, stage) in spec.stages.iter().enumerate() {
        let at = format!("spec.stages[{index}]");
        match stage {
            Stage::Keep(condition) | Stage::Drop(condition) => {
                let name = if matches!(stage, Stage::Keep(_)) { "keep" } else { "drop" };
                regex(&format!("{at}.{name}.matches"), condition.matches.as_deref(), decoder);
                let empty = condition.matches.is_none()
                    && condition.contains.is_none()
                    && condition.min_severity.is_none()
                    && condition.max_severity.is_none();
                if empty {
                    decoder.refuse_at(&format!("{at}.{name}"), "needs at least one condition");
                }
            }
            Stage::Redact(redact) => {
                for (position, pattern) in redact.patterns.iter().enumerate() {
                    regex(&format!("{at}.redact.patterns[{position}]"), Some(pattern), decoder);
                }
                if redact.patterns.is_empty() && redact.presets.is_empty() {
                    decoder.refuse_at(&format!("{at}.redact"), "needs presets or patterns");
                }
            }
            Stage::Sample(sample) if sample.one_in == 0 => {
                decoder.refuse_at(&format!("{at}.sample.oneIn"), "must be at least 1");
            }
            Stage::Sample(_) => {}
        }
    }
    for (index, sink) in spec.sinks.iter().enumerate() {
        let at = format!("spec.sinks[{index}].to");
        let (kind, url, client) = match &sink.to {
            Receiver::Http(http) => ("http", &http.url, &http.client),
            Receiver::Loki(loki) => ("loki", &loki.url, &loki.client),
            Receiver::Otlp(otlp) => ("otlp", &otlp.url, &otlp.client),
            Receiver::Stdout(_) | Receiver::File(_) => continue,
        };
        if let Err(message) = crate::wiring::url(url) {
            decoder.refuse_at(&format!("{at}.{kind}.url"), message);
        }
        for (field, headers) in [("headers", &client.headers), ("headerFiles", &client.header_files)] {
            for name in headers.keys().filter(|name| !crate::wiring::is_header(name)) {
                decoder.refuse_at(&format!("{at}.{kind}.client.{field}"), format!("`{name}` is no header name"));
            }
        }
        if client.basic.is_some() && client.bearer_token_file.is_some() {
            decoder.refuse_at(&format!("{at}.{kind}.client"), "basic and bearerTokenFile exclude each other");
        }
        if client.tls.as_ref().is_some_and(|tls| tls.cert_file.is_some() != tls.key_file.is_some()) {
            decoder.refuse_at(&format!("{at}.{kind}.client.tls"), "certFile and keyFile belong together");
        }
    }
    if !spec.state.directory.starts_with('/') {
        decoder.refuse_at("spec.state.directory", "must be an absolute path");
    }
}

fn names<'a>(at: &str, names: impl Iterator<Item = &'a str>, decoder: &mut Decoder) {
    let mut seen = Vec::new();
    for (index, name) in names.enumerate() {
        if seen.contains(&name) {
            decoder.refuse_at(&format!("{at}[{index}].name"), format!("the name `{name}` is taken already"));
        }
        seen.push(name);
    }
}

fn regex(at: &str, pattern: Option<&str>, decoder: &mut Decoder) {
    if let Some(Err(error)) = pattern.map(regex::bytes::Regex::new) {
        let message = error.to_string();
        let last = message.lines().last().unwrap_or("not a regular expression");
        decoder.refuse_at(at, format!("not a regular expression: {}", last.trim_start_matches("error: ")));
    }
}
