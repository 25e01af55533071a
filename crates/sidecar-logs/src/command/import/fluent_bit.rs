//! Fluent Bit's YAML form (docs.fluentbit.io, "YAML configuration").

use std::collections::BTreeMap;

use daemon::config::tree::Node;
use serde_json::{Value, json};

use super::{Notes, Outcome, Section, Spoken, condition, duration, finish, items, only_document, scalar, size, split};

/// What `parsers` define, by name.
type Parsers = BTreeMap<String, Vec<(String, Value)>>;

const ALWAYS: &str = "positions are always kept, in state.directory";
const BOUNDED: &str = "memory is always bounded (state.memory)";

pub(crate) fn fluent_bit(text: &str) -> Outcome {
    let mut notes = Notes::default();
    let mut spoken = Spoken::default();
    if let Some(root) = only_document(text, &mut notes) {
        let mut top = Section::of("", &root, &mut notes);
        top.needless(&["service", "env"], "not taken over; see state, drain and the flags", &mut notes);
        let mut parsers = Parsers::new();
        for node in top.take("parsers").map(items).unwrap_or_default() {
            parser(node, &mut parsers, &mut notes);
        }
        if let Some(node) = top.take("pipeline") {
            let mut pipeline = Section::of("pipeline", node, &mut notes);
            for (kind, convert) in [("inputs", input as Convert), ("filters", filter), ("outputs", output)] {
                for (index, node) in pipeline.take(kind).map(items).unwrap_or_default().into_iter().enumerate() {
                    let mut section = Section::of(&format!("pipeline.{kind}[{index}]"), node, &mut notes);
                    let name = section.text("name").unwrap_or_default();
                    convert(&name, index, node, &mut section, &mut spoken, &parsers, &mut notes);
                    section.finish(&mut notes);
                }
            }
            pipeline.finish(&mut notes);
        }
        top.finish(&mut notes);
    }
    finish(spoken, notes)
}

type Convert = fn(&str, usize, &Node, &mut Section<'_>, &mut Spoken, &Parsers, &mut Notes);

/// The source's members that a parser stands for.
fn ready_made(name: &str) -> Option<Vec<(String, Value)>> {
    let parse = |word: &str| Some(vec![("parse".to_owned(), json!(word))]);
    match name {
        "json" => parse("json"),
        "logfmt" => parse("logfmt"),
        "apache" | "apache2" | "nginx" => parse("access"),
        "syslog-rfc5424" | "syslog-rfc3164" | "syslog-rfc3164-local" => parse("syslog"),
        "cri" => Some(vec![("format".to_owned(), json!("cri"))]),
        _ => None,
    }
}

fn parser(node: &Node, parsers: &mut Parsers, notes: &mut Notes) {
    let mut section = Section::of("parsers", node, notes);
    let name = section.text("name").unwrap_or_default();
    let format = section.text("format").unwrap_or_default();
    section.needless(
        &["time_key", "time_format", "time_keep"],
        "add a `timestamp` stage if the time is not RFC 3339",
        notes,
    );
    let made = match format.as_str() {
        "json" | "logfmt" => Some(vec![("parse".to_owned(), json!(format))]),
        "regex" => section.text("regex").map(|regex| {
            // The text is called `log` there.
            let pattern = regex.replace("(?<log>", "(?<message>");
            vec![("parse".to_owned(), json!("regex")), ("pattern".to_owned(), json!(pattern))]
        }),
        _ => None,
    };
    match made {
        Some(made) => {
            parsers.insert(name, made);
        }
        None => notes.refuse(node.mark, format!("parsers: the format `{format}` has no counterpart here")),
    }
    section.finish(notes);
}

fn input(
    name: &str,
    index: usize,
    node: &Node,
    section: &mut Section<'_>,
    spoken: &mut Spoken,
    parsers: &Parsers,
    notes: &mut Notes,
) {
    let mut source = json!({ "name": section.text("alias").unwrap_or_else(|| format!("{name}-{}", index + 1)) });
    section.needless(&["tag", "tag_regex"], "there are no tags; sinks choose by `when`", notes);
    section.needless(&["mem_buf_limit", "storage.type", "storage.pause_on_chunks_overlimit"], BOUNDED, notes);
    match name {
        "tail" => {
            let mut files = json!({ "include": split(&section.text("path").unwrap_or_default()) });
            if let Some(exclude) = section.text("exclude_path") {
                files["exclude"] = json!(split(&exclude));
            }
            // There a file is read from its end unless told otherwise.
            if section.is_on("read_from_head") != Some(true) {
                files["startAt"] = json!("end");
            }
            for (theirs, ours) in [("ignore_older", "ignoreOlderThan"), ("rotate_wait", "rotateWait")] {
                if let Some(text) = section.text(theirs) {
                    match duration(&text) {
                        Some(time) => files[ours] = json!(time),
                        None => notes.refuse(node.mark, format!("{}.{theirs}: `{text}` is no duration", section.path)),
                    }
                }
            }
            if let Some(text) = section.text("buffer_max_size") {
                match size(&text) {
                    Some(size) => files["maxLine"] = json!(size),
                    None => notes.refuse(node.mark, format!("{}.buffer_max_size: `{text}` is no size", section.path)),
                }
            }
            source["files"] = files;
            section.needless(&["db", "db.sync", "db.locking", "db.journal_mode", "db.compare_filename"], ALWAYS, notes);
            section.needless(&["skip_long_lines"], "long lines are cut into pieces, nothing is skipped", notes);
            section.needless(
                &["refresh_interval", "watcher_interval", "inotify_watcher"],
                "new files are seen at once",
                notes,
            );
            section.needless(&["buffer_chunk_size", "static_batch_size"], BOUNDED, notes);
            if section.text("key").is_some_and(|key| key != "log" && key != "message") {
                notes.note(node.mark, format!("{}.key: the text is always called `message`", section.path));
            }
            if let Some(key) = section.text("path_key") {
                notes.note(node.mark, format!("{}.path_key: the path is called `file`, not `{key}`", section.path));
            }
        }
        "stdin" => source["stdin"] = json!({}),
        "syslog" => {
            let listen = section.text("listen").unwrap_or_else(|| "0.0.0.0".to_owned());
            let address = format!("{listen}:{}", section.text("port").unwrap_or_else(|| "5140".to_owned()));
            source["syslog"] = match section.text("mode").as_deref() {
                Some("udp") => json!({ "udp": address }),
                Some("tcp") => json!({ "tcp": address }),
                None | Some("unix_udp") => json!({ "socket": section.text("path") }),
                Some(other) => {
                    notes.refuse(node.mark, format!("{}.mode: `{other}` has no counterpart here", section.path));
                    json!({ "udp": address })
                }
            };
        }
        other => {
            notes.refuse(node.mark, format!("{}: the input `{other}` has no counterpart here", section.path));
            section.members.clear();
        }
    }
    let parser = section.take("parser").and_then(scalar);
    if let Some(parser) = parser {
        match parsers.get(parser).cloned().or_else(|| ready_made(parser)) {
            Some(members) => members.into_iter().for_each(|(name, value)| source[name] = value),
            None => notes.refuse(node.mark, format!("{}.parser: `{parser}` is not defined in this file", section.path)),
        }
    }
    for parser in section.text("multiline.parser").map(|text| split(&text)).unwrap_or_default() {
        match parser.as_str() {
            "cri" => source["format"] = json!("cri"),
            "java" | "go" | "python" | "ruby" => source["multiline"] = json!({ "preset": parser }),
            other => {
                notes
                    .refuse(node.mark, format!("{}.multiline.parser: `{other}` has no counterpart here", section.path));
            }
        }
    }
    spoken.sources.push(source);
}

fn filter(
    name: &str,
    _: usize,
    node: &Node,
    section: &mut Section<'_>,
    spoken: &mut Spoken,
    _: &Parsers,
    notes: &mut Notes,
) {
    everything(section, node, notes);
    let all: Vec<(String, &Node)> = std::mem::take(&mut section.repeated);
    let pairs = |wanted: &[&str]| -> Vec<(String, String, String)> {
        let of = all.iter().filter(|(name, _)| wanted.contains(&name.as_str()));
        let texts =
            of.flat_map(|(name, node)| items(node).into_iter().filter_map(scalar).map(move |text| (name, text)));
        let split = |text: &str| text.split_once(' ').map(|(a, b)| (a.to_owned(), b.trim().to_owned()));
        texts
            .map(|(name, text)| {
                let (a, b) = split(text).unwrap_or((text.to_owned(), String::new()));
                (name.clone(), a, b)
            })
            .collect()
    };
    match name {
        "grep" => {
            for (word, key, pattern) in pairs(&["regex", "exclude"]) {
                let stage = if word == "regex" { "keep" } else { "drop" };
                spoken.stages.push(json!({ stage: condition(&key, &pattern) }));
            }
            section.take("regex");
            section.take("exclude");
        }
        "modify" | "record_modifier" => {
            let mut edit = json!({});
            for (word, key, value) in pairs(&["add", "set", "record", "remove", "remove_key", "rename"]) {
                match word.as_str() {
                    "remove" | "remove_key" => {
                        let mut removed = edit["remove"].as_array().cloned().unwrap_or_default();
                        removed.push(json!(key));
                        edit["remove"] = json!(removed);
                    }
                    "rename" => edit["rename"][key] = json!(value),
                    _ => edit["set"][key] = json!(value),
                }
            }
            for word in ["add", "set", "record", "remove", "remove_key", "rename"] {
                section.take(word);
            }
            spoken.stages.push(json!({ "edit": edit }));
        }
        "throttle" => {
            let rate: Option<f64> = section.text("rate").and_then(|rate| rate.parse().ok());
            let window: f64 = section.text("window").and_then(|window| window.parse().ok()).unwrap_or(5.0);
            let interval = section.text("interval").unwrap_or_else(|| "1s".to_owned());
            let seconds = daemon::config::Seconds::parse(&interval).map(|time| time.0.as_secs_f64() * window);
            section.needless(&["print_status"], "see /metrics", notes);
            match (rate, seconds) {
                (Some(rate), Some(seconds)) => {
                    let records = (rate * window).round().max(1.0) as u64;
                    let per = format!("{}ms", (seconds * 1000.0).round() as u64);
                    spoken.stages.push(json!({ "rateLimit": { "records": records, "per": per } }));
                }
                _ => notes.refuse(node.mark, format!("{}: rate and interval cannot be read", section.path)),
            }
        }
        "kubernetes" => {
            notes.refuse(
                node.mark,
                format!("{}: no API is asked here; use `fields` from the downward API", section.path),
            );
            section.members.clear();
        }
        other => {
            notes.refuse(node.mark, format!("{}: the filter `{other}` has no counterpart here", section.path));
            section.members.clear();
        }
    }
}

/// There are no tags here: what chooses by them must choose everything.
fn everything(section: &mut Section<'_>, node: &Node, notes: &mut Notes) {
    if section.text("match_regex").is_some() || section.text("match").is_some_and(|pattern| pattern != "*") {
        notes.refuse(node.mark, format!("{}.match: there are no tags here; only `*` can be taken over", section.path));
    }
    section.text("alias");
}

fn output(
    name: &str,
    index: usize,
    node: &Node,
    section: &mut Section<'_>,
    spoken: &mut Spoken,
    _: &Parsers,
    notes: &mut Notes,
) {
    let alias = section.text("alias").unwrap_or_else(|| format!("{name}-{}", index + 1));
    everything(section, node, notes);
    section.needless(&["retry_limit"], "deliveries are tried without end", notes);
    section.needless(&["workers", "storage.total_limit_size", "net.keepalive"], "not needed here", notes);
    let tls = section.is_on("tls").unwrap_or(false);
    if section.is_on("tls.verify") == Some(false) {
        notes.refuse(
            node.mark,
            format!("{}.tls.verify: certificates are always checked; give tls.ca_file", section.path),
        );
    }
    let mut certificates = json!({});
    for (theirs, ours) in [("tls.ca_file", "caFile"), ("tls.crt_file", "certFile"), ("tls.key_file", "keyFile")] {
        if let Some(path) = section.text(theirs) {
            certificates[ours] = json!(path);
        }
    }
    let host = section.text("host").unwrap_or_else(|| "127.0.0.1".to_owned());
    let port = section.text("port");
    let at = |default: &str| format!("{host}:{}", port.as_deref().unwrap_or(default));
    let scheme = if tls { "https" } else { "http" };
    let mut client = json!({});
    if certificates.as_object().is_some_and(|members| !members.is_empty()) {
        client["tls"] = certificates.clone();
    }
    if section.text("compress").is_some_and(|kind| kind == "gzip") {
        client["compression"] = json!("gzip");
    }
    let user = section.text("http_user").or_else(|| section.text("http_passwd"));
    if user.is_some() || section.text("bearer_token").is_some() {
        let text = "secrets are read from files here: client.basic.passwordFile or client.bearerTokenFile";
        notes.refuse(node.mark, format!("{}: {text}", section.path));
    }
    let to = match name {
        "stdout" => {
            section.needless(&["format", "json_date_key", "json_date_format"], "written as JSON lines", notes);
            json!({ "stdout": { "encoding": "json" } })
        }
        "file" => {
            let directory = section.text("path").unwrap_or_else(|| ".".to_owned());
            let file = section.text("file").unwrap_or_else(|| "out.log".to_owned());
            section.needless(&["format", "mkdir"], "written as JSON lines", notes);
            json!({ "file": { "path": format!("{directory}/{file}"), "encoding": "json" } })
        }
        "http" => {
            let uri = section.text("uri").unwrap_or_else(|| "/".to_owned());
            let encoding = match section.text("format").as_deref() {
                Some("json_lines" | "json_stream") => "ndjson",
                Some("json") => "json",
                other => {
                    let shown = other.unwrap_or("msgpack, the default");
                    notes.refuse(node.mark, format!("{}.format: {shown} has no counterpart here", section.path));
                    "json"
                }
            };
            section.needless(&["json_date_key", "json_date_format"], "the time is called `time`, RFC 3339", notes);
            json!({ "http": { "url": format!("{scheme}://{}{uri}", at("80")), "encoding": encoding, "client": client } })
        }
        "loki" => {
            let mut loki = json!({ "url": format!("{scheme}://{}", at("3100")), "client": client });
            for pair in section.text("labels").map(|labels| split(&labels)).unwrap_or_default() {
                match pair.split_once('=').filter(|(_, value)| !value.starts_with('$')) {
                    Some((key, value)) => loki["labels"][key.trim()] = json!(value.trim()),
                    None => notes.refuse(node.mark, format!("{}.labels: `{pair}` is not fixed", section.path)),
                }
            }
            if let Some(tenant) = section.text("tenant_id") {
                loki["tenant"] = json!(tenant);
            }
            section.needless(&["line_format", "auto_kubernetes_labels"], "the line is the text", notes);
            json!({ "loki": loki })
        }
        "es" | "opensearch" => {
            let index = section.text("index").unwrap_or_else(|| "fluent-bit".to_owned());
            section.needless(&["suppress_type_name", "trace_error", "replace_dots", "type"], "not needed here", notes);
            json!({ "elasticsearch": { "url": format!("{scheme}://{}", at("9200")), "index": index, "client": client } })
        }
        "opentelemetry" => {
            let uri = section.text("logs_uri").unwrap_or_else(|| "/v1/logs".to_owned());
            json!({ "otlp": { "url": format!("{scheme}://{}{uri}", at("80")), "client": client } })
        }
        "forward" => {
            let mut forward = json!({ "address": at("24224") });
            if tls {
                forward["tls"] = certificates;
            }
            section.needless(&["require_ack_response", "send_options"], "always acknowledged", notes);
            json!({ "forward": forward })
        }
        "syslog" => {
            let mode = section.text("mode").unwrap_or_else(|| "udp".to_owned());
            let mut syslog = json!({ "address": at("514") });
            match mode.as_str() {
                "tcp" => {}
                "tls" => syslog["tls"] = certificates,
                other => {
                    notes.refuse(node.mark, format!("{}.mode: `{other}` can lose lines; use tcp or tls", section.path))
                }
            }
            section.needless(&["syslog_format", "syslog_message_key"], "RFC 5424 with the text", notes);
            json!({ "syslog": syslog })
        }
        other => {
            notes.refuse(node.mark, format!("{}: the output `{other}` has no counterpart here", section.path));
            section.members.clear();
            Value::Null
        }
    };
    spoken.sinks.push(json!({ "name": alias, "to": to }));
}
