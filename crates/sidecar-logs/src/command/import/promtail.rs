//! Promtail's configuration (grafana.com/docs/loki, "Configure Promtail").

use daemon::config::tree::{Data, Node};
use serde_json::{Value, json};

use super::{Notes, Outcome, Section, Spoken, condition, duration, finish, items, only_document, scalar};

pub(crate) fn promtail(text: &str) -> Outcome {
    let mut notes = Notes::default();
    let mut spoken = Spoken::default();
    if let Some(root) = only_document(text, &mut notes) {
        let mut top = Section::of("", &root, &mut notes);
        top.needless(&["server"], "health and metrics are on --admin", &mut notes);
        top.needless(&["positions"], "positions are kept in state.directory", &mut notes);
        top.needless(&["target_config", "global"], "new files are seen at once", &mut notes);
        for (index, node) in top.take("clients").map(items).unwrap_or_default().into_iter().enumerate() {
            client(index, node, &mut spoken, &mut notes);
        }
        let jobs = top.take("scrape_configs").map(items).unwrap_or_default();
        let many = jobs.len() > 1;
        for (index, node) in jobs.into_iter().enumerate() {
            job(index, node, many, &mut spoken, &mut notes);
        }
        top.finish(&mut notes);
    }
    finish(spoken, notes)
}

fn client(index: usize, node: &Node, spoken: &mut Spoken, notes: &mut Notes) {
    let mut section = Section::of(&format!("clients[{index}]"), node, notes);
    let name = section.text("name").unwrap_or_else(|| format!("loki-{}", index + 1));
    let mut loki = json!({ "url": section.text("url") });
    let mut client = json!({});
    if let Some(tenant) = section.text("tenant_id") {
        loki["tenant"] = json!(tenant);
    }
    if let Some(labels) = section.take("external_labels") {
        loki["labels"] = texts(labels);
    }
    if let Some(path) = section.text("bearer_token_file") {
        client["bearerTokenFile"] = json!(path);
    }
    if let Some(node) = section.take("basic_auth") {
        let mut basic = Section::of(&format!("{}.basic_auth", section.path), node, notes);
        client["basic"] = json!({ "user": basic.text("username"), "passwordFile": basic.text("password_file") });
        if basic.text("password").is_some() {
            notes
                .refuse(node.mark, format!("{}.password: secrets are read from files here: password_file", basic.path));
        }
        basic.finish(notes);
    }
    if let Some(node) = section.take("tls_config") {
        let mut tls = Section::of(&format!("{}.tls_config", section.path), node, notes);
        for (theirs, ours) in [("ca_file", "caFile"), ("cert_file", "certFile"), ("key_file", "keyFile")] {
            if let Some(path) = tls.text(theirs) {
                client["tls"][ours] = json!(path);
            }
        }
        if tls.is_on("insecure_skip_verify") == Some(true) {
            notes.refuse(node.mark, format!("{}.insecure_skip_verify: certificates are always checked", tls.path));
        }
        tls.finish(notes);
    }
    let mut sink = json!({ "name": name });
    if let Some(wait) = section.text("batchwait") {
        sink["batch"]["wait"] = json!(wait);
    }
    if let Some(size) = section.text("batchsize") {
        sink["batch"]["maxBytes"] = json!(size);
    }
    section.needless(&["backoff_config", "timeout"], "deliveries are tried without end", notes);
    loki["client"] = client;
    sink["to"] = json!({ "loki": loki });
    spoken.sinks.push(sink);
    section.finish(notes);
}

/// A map of texts as it stands.
fn texts(node: &Node) -> Value {
    match &node.data {
        Data::Map(members) => {
            members.iter().filter_map(|member| Some((member.name.clone(), json!(scalar(&member.node)?)))).collect()
        }
        _ => json!({}),
    }
}

fn job(index: usize, node: &Node, many: bool, spoken: &mut Spoken, notes: &mut Notes) {
    let mut section = Section::of(&format!("scrape_configs[{index}]"), node, notes);
    let job = section.text("job_name").unwrap_or_else(|| format!("job-{}", index + 1));
    let mut sources = Vec::new();
    for (position, node) in section.take("static_configs").map(items).unwrap_or_default().into_iter().enumerate() {
        let mut config = Section::of(&format!("{}.static_configs[{position}]", section.path), node, notes);
        config.needless(&["targets"], "there is only this machine", notes);
        let name = if position == 0 { job.clone() } else { format!("{job}-{}", position + 1) };
        let mut source = json!({ "name": name });
        let mut exclude = None;
        if let Some(Data::Map(labels)) = config.take("labels").map(|node| &node.data) {
            for label in labels {
                let Some(value) = scalar(&label.node) else { continue };
                match label.name.as_str() {
                    "__path__" => source["files"]["include"] = json!([value]),
                    "__path_exclude__" => exclude = Some(value.to_owned()),
                    other => source["fields"][other] = json!({ "value": value }),
                }
            }
        }
        if let Some(exclude) = exclude {
            source["files"]["exclude"] = json!([exclude]);
        }
        sources.push(source);
        config.finish(notes);
    }
    let stages = section.take("pipeline_stages").map(items).unwrap_or_default();
    for (position, node) in stages.into_iter().enumerate() {
        let path = format!("{}.pipeline_stages[{position}]", section.path);
        let Data::Map(members) = &node.data else { continue };
        for member in members {
            let mut inner = Section::of(&format!("{path}.{}", member.name), &member.node, notes);
            stage(&member.name, node, &mut inner, many, &mut sources, spoken, notes);
            inner.finish(notes);
        }
    }
    spoken.sources.extend(sources);
    section.finish(notes);
}

fn stage(
    name: &str,
    node: &Node,
    inner: &mut Section<'_>,
    many: bool,
    sources: &mut [Value],
    spoken: &mut Spoken,
    notes: &mut Notes,
) {
    let mut each = |name: &str, value: Value| sources.iter_mut().for_each(|source| source[name] = value.clone());
    let path = inner.path.clone();
    // Ours are for every source.
    let mut add = |stage: Value, notes: &mut Notes| {
        if many {
            notes.refuse(node.mark, format!("stages of one job among several cannot be taken over ({path})"));
        }
        spoken.stages.push(stage);
    };
    match name {
        "cri" => {
            each("format", json!("cri"));
            inner.members.clear();
        }
        "json" => {
            each("parse", json!("json"));
            inner.needless(
                &["expressions", "drop_malformed", "source"],
                "the whole object is kept, with its names",
                notes,
            );
        }
        "logfmt" => {
            each("parse", json!("logfmt"));
            inner.needless(&["mapping", "source"], "every pair becomes a field, with its name", notes);
        }
        "regex" => {
            each("parse", json!("regex"));
            each("pattern", json!(inner.text("expression").map(|text| text.replace("(?P<output>", "(?P<message>"))));
        }
        "multiline" => {
            let idle = inner.text("max_wait_time").and_then(|text| duration(&text)).unwrap_or_else(|| "3s".to_owned());
            each("multiline", json!({ "start": inner.text("firstline"), "idle": idle }));
            inner.needless(&["max_lines"], "a record is bounded by files.maxLine", notes);
        }
        "drop" => {
            let source = inner.text("source").unwrap_or_else(|| "message".to_owned());
            match (inner.text("expression"), inner.text("value")) {
                (Some(pattern), None) => add(json!({ "drop": condition(&source, &pattern) }), notes),
                (None, Some(value)) => {
                    let pattern = format!("^{}$", regex::escape(&value));
                    add(json!({ "drop": condition(&source, &pattern) }), notes);
                }
                _ => notes.refuse(node.mark, format!("{}: needs expression or value", inner.path)),
            }
            inner.needless(&["drop_counter_reason"], "see stage_dropped_records_total", notes);
        }
        "replace" => {
            let pattern = inner.text("expression").unwrap_or_default();
            if pattern.contains('(') {
                notes.refuse(
                    node.mark,
                    format!("{}: groups cannot be taken over; redact replaces whole matches", inner.path),
                );
            }
            let replacement = inner.text("replace").unwrap_or_default();
            add(json!({ "redact": { "patterns": [pattern], "replacement": replacement } }), notes);
        }
        "timestamp" => {
            let field = inner.text("source").unwrap_or_default();
            match inner.text("format").as_deref() {
                Some("RFC3339" | "RFC3339Nano" | "Unix" | "UnixMs" | "UnixUs" | "UnixNs") => {
                    add(json!({ "timestamp": { "field": field } }), notes);
                }
                other => notes.refuse(
                    node.mark,
                    format!("{}.format: `{}` must be written as in strftime(3)", inner.path, other.unwrap_or_default()),
                ),
            }
        }
        "limit" => {
            let number = |text: Option<String>| text.and_then(|text| text.parse::<f64>().ok());
            let (rate, burst) = (number(inner.text("rate")), number(inner.text("burst")));
            if inner.is_on("drop") != Some(true) {
                notes.refuse(
                    node.mark,
                    format!("{}: only with `drop: true`; reading waits for receivers anyway", inner.path),
                );
            }
            if let Some(rate) = rate.filter(|rate| *rate > 0.0) {
                let records = burst.unwrap_or(rate).max(1.0);
                let per = format!("{}ms", (records / rate * 1000.0).round() as u64);
                add(json!({ "rateLimit": { "records": records as u64, "per": per } }), notes);
            }
        }
        "static_labels" => {
            let set = texts_of(inner);
            add(json!({ "edit": { "set": set } }), notes);
        }
        "labels" | "structured_metadata" => {
            notes.note(node.mark, format!("{}: fields of records are no labels of streams here", inner.path));
            inner.members.clear();
        }
        "labeldrop" | "labelallow" | "output" | "pack" | "match" | "metrics" | "template" | "tenant" | "docker" => {
            notes.refuse(node.mark, format!("{}: has no counterpart here", inner.path));
            inner.members.clear();
        }
        _ => {
            notes.refuse(node.mark, format!("{}: is not known", inner.path));
            inner.members.clear();
        }
    }
}

fn texts_of(section: &mut Section<'_>) -> Value {
    let members = std::mem::take(&mut section.members);
    members.into_iter().filter_map(|(name, (node, _))| Some((name, json!(scalar(node)?)))).collect()
}
