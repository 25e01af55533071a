//! What the types cannot say.

use daemon::config::Decoder;

use super::*;

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
        input(&at, source, decoder);
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
        self::stage(&format!("spec.stages[{index}]"), stage, decoder);
    }
    for (index, sink) in spec.sinks.iter().enumerate() {
        let at = format!("spec.sinks[{index}].to");
        if let Some(when) = &sink.when {
            condition(&format!("spec.sinks[{index}].when"), when, decoder);
        }
        let (kind, url, client) = match &sink.to {
            Receiver::Http(http) => ("http", &http.url, &http.client),
            Receiver::Loki(loki) => ("loki", &loki.url, &loki.client),
            Receiver::Otlp(otlp) => ("otlp", &otlp.url, &otlp.client),
            Receiver::Elasticsearch(search) => ("elasticsearch", &search.url, &search.client),
            Receiver::S3(s3) => {
                if s3.key_file.is_some() != s3.secret_file.is_some() {
                    decoder.refuse_at(&format!("{at}.s3"), "keyFile and secretFile belong together");
                }
                ("s3", &s3.url, &s3.client)
            }
            Receiver::Syslog(syslog) => {
                peer(&format!("{at}.syslog"), &syslog.address, syslog.tls.as_ref(), decoder);
                if syslog.facility > 23 {
                    decoder.refuse_at(&format!("{at}.syslog.facility"), "must be at most 23");
                }
                continue;
            }
            Receiver::Forward(forward) => {
                peer(&format!("{at}.forward"), &forward.address, forward.tls.as_ref(), decoder);
                continue;
            }
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
        certificates(&format!("{at}.{kind}.client.tls"), client.tls.as_ref(), decoder);
    }
    if !spec.state.directory.starts_with('/') {
        decoder.refuse_at("spec.state.directory", "must be an absolute path");
    }
}

fn input(at: &str, source: &Source, decoder: &mut Decoder) {
    let given = [
        source.files.is_some(),
        source.stdin.is_some(),
        source.fifo.is_some(),
        source.socket.is_some(),
        source.syslog.is_some(),
    ];
    if given.iter().filter(|given| **given).count() != 1 {
        decoder.refuse_at(at, "needs exactly one of files, stdin, fifo, socket and syslog");
    }
    if let Some(files) = &source.files {
        for (position, pattern) in files.include.iter().enumerate() {
            if !pattern.starts_with('/') {
                decoder.refuse_at(&format!("{at}.files.include[{position}]"), "must be an absolute path or pattern");
            }
        }
        if files.include.is_empty() {
            decoder.refuse_at(&format!("{at}.files.include"), "needs at least one pattern");
        }
    }
    let lines = [
        ("files", source.files.as_ref().map(|files| files.max_line)),
        ("stdin", source.stdin.as_ref().map(|stdin| stdin.max_line)),
        ("fifo", source.fifo.as_ref().map(|fifo| fifo.max_line)),
        ("socket", source.socket.as_ref().map(|socket| socket.max_line)),
        ("syslog", source.syslog.as_ref().map(|syslog| syslog.max_line)),
    ];
    for (kind, max_line) in lines {
        if max_line.is_some_and(|size| !(64..=16 << 20).contains(&size.0)) {
            decoder.refuse_at(&format!("{at}.{kind}.maxLine"), "must be between 64 and 16Mi");
        }
    }
    let path = |kind: &str, path: Option<&String>, decoder: &mut Decoder| {
        if path.is_some_and(|path| !path.starts_with('/')) {
            decoder.refuse_at(&format!("{at}.{kind}"), "must be an absolute path");
        }
    };
    path("fifo.path", source.fifo.as_ref().map(|fifo| &fifo.path), decoder);
    path("socket.path", source.socket.as_ref().map(|socket| &socket.path), decoder);
    if let Some(syslog) = &source.syslog {
        path("syslog.socket", syslog.socket.as_ref(), decoder);
        if syslog.udp.is_none() && syslog.tcp.is_none() && syslog.socket.is_none() {
            decoder.refuse_at(&format!("{at}.syslog"), "needs at least one of udp, tcp and socket");
        }
        for (kind, address) in [("udp", &syslog.udp), ("tcp", &syslog.tcp)] {
            let port =
                address.as_ref().map(|address| address.rsplit_once(':').and_then(|(_, p)| p.parse::<u16>().ok()));
            if port == Some(None) {
                decoder.refuse_at(&format!("{at}.syslog.{kind}"), "must be an address like 127.0.0.1:514 or :514");
            }
        }
    }
    match (source.parse, &source.pattern) {
        (Parse::Regex, None) => decoder.refuse_at(&format!("{at}.parse"), "`regex` needs a pattern"),
        (Parse::Regex, pattern) => regex(&format!("{at}.pattern"), pattern.as_deref(), decoder),
        (_, Some(_)) => decoder.refuse_at(&format!("{at}.pattern"), "is only for `parse: regex`"),
        _ => {}
    }
}

fn stage(at: &str, stage: &Stage, decoder: &mut Decoder) {
    match stage {
        Stage::Keep(when) => condition(&format!("{at}.keep"), when, decoder),
        Stage::Drop(when) => condition(&format!("{at}.drop"), when, decoder),
        Stage::Redact(redact) => {
            for (position, pattern) in redact.patterns.iter().enumerate() {
                regex(&format!("{at}.redact.patterns[{position}]"), Some(pattern), decoder);
            }
            if redact.patterns.is_empty() && redact.presets.is_empty() {
                decoder.refuse_at(&format!("{at}.redact"), "needs presets or patterns");
            }
        }
        Stage::Sample(sample) => {
            if sample.one_in == 0 {
                decoder.refuse_at(&format!("{at}.sample.oneIn"), "must be at least 1");
            }
        }
        Stage::RateLimit(limit) => {
            if limit.records == 0 {
                decoder.refuse_at(&format!("{at}.rateLimit.records"), "must be at least 1");
            }
            if limit.per.0.is_zero() {
                decoder.refuse_at(&format!("{at}.rateLimit.per"), "must be more than 0s");
            }
            optional(&format!("{at}.rateLimit.when"), limit.when.as_ref(), decoder);
        }
        Stage::Deduplicate(config) => {
            if !(1..=100_000).contains(&config.remember) {
                decoder.refuse_at(&format!("{at}.deduplicate.remember"), "must be between 1 and 100000");
            }
        }
        Stage::Timestamp(timestamp) => {
            if timestamp.format.as_ref().is_some_and(|format| !crate::stages::is_format(format)) {
                decoder.refuse_at(&format!("{at}.timestamp.format"), "is no format of strftime(3)");
            }
        }
        Stage::Edit(edit) => {
            optional(&format!("{at}.edit.when"), edit.when.as_ref(), decoder);
            let empty = edit.remove.is_empty() && edit.rename.is_empty() && edit.convert.is_empty();
            if empty && edit.set.is_empty() && edit.severity.is_none() {
                decoder.refuse_at(&format!("{at}.edit"), "changes nothing");
            }
        }
        Stage::Metric(config) => metric(&format!("{at}.metric"), config, decoder),
    }
}

fn metric(at: &str, metric: &Metric, decoder: &mut Decoder) {
    let name = |text: &str| {
        !text.starts_with(|c: char| c.is_ascii_digit())
            && !text.is_empty()
            && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    if !name(&metric.name) {
        decoder.refuse_at(&format!("{at}.name"), "must be letters, digits and underscores");
    }
    for label in metric.labels.keys().filter(|label| !name(label) || *label == "le") {
        decoder.refuse_at(&format!("{at}.labels"), format!("`{label}` is no label's name"));
    }
    let rising = metric.buckets.windows(2).all(|pair| pair[0] < pair[1]);
    match metric.kind {
        MetricKind::Histogram if metric.buckets.is_empty() || !rising => {
            decoder.refuse_at(&format!("{at}.buckets"), "a histogram needs bounds that rise");
        }
        MetricKind::Counter | MetricKind::Gauge if !metric.buckets.is_empty() => {
            decoder.refuse_at(&format!("{at}.buckets"), "is only for a histogram");
        }
        _ => {}
    }
    if metric.kind != MetricKind::Counter && metric.value.is_none() {
        decoder.refuse_at(&format!("{at}.value"), "a gauge or a histogram needs a field");
    }
    optional(&format!("{at}.when"), metric.when.as_ref(), decoder);
}

fn optional(at: &str, when: Option<&Condition>, decoder: &mut Decoder) {
    if let Some(when) = when {
        condition(at, when, decoder);
    }
}

fn condition(at: &str, condition: &Condition, decoder: &mut Decoder) {
    regex(&format!("{at}.matches"), condition.matches.as_deref(), decoder);
    for (name, pattern) in &condition.fields {
        regex(&format!("{at}.fields.{name}"), Some(pattern), decoder);
    }
    if condition.is_empty() {
        decoder.refuse_at(at, "needs at least one condition");
    }
}

fn peer(at: &str, address: &str, tls: Option<&Tls>, decoder: &mut Decoder) {
    if crate::wiring::host_and_port(address).is_none() {
        decoder.refuse_at(&format!("{at}.address"), "must be HOST:PORT");
    }
    certificates(&format!("{at}.tls"), tls, decoder);
}

fn certificates(at: &str, tls: Option<&Tls>, decoder: &mut Decoder) {
    if tls.is_some_and(|tls| tls.cert_file.is_some() != tls.key_file.is_some()) {
        decoder.refuse_at(at, "certFile and keyFile belong together");
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
