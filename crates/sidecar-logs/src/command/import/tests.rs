use super::*;

#[test]
fn a_fluent_bit_file_becomes_ours() {
    let outcome = fluent_bit(
        r#"
service: {flush: 1, log_level: info}
parsers:
- {name: app, format: regex, regex: '^(?<level>\w+) (?<log>.*)$'}
pipeline:
  inputs:
  - name: tail
    path: /var/log/app/*.log, /var/log/more.log
    exclude_path: "*.gz"
    read_from_head: true
    multiline.parser: java
    parser: app
    db: /state/x.db
    mem_buf_limit: 50M
    rotate_wait: 30
    buffer_max_size: 128k
    ignore_older: 2d
  - {name: syslog, mode: tcp, port: 5140, tag: sys}
  filters:
  - {name: grep, match: '*', exclude: log healthz}
  - {name: modify, match: '*', add: [team blue, env prod], rename: a b, remove: secret}
  outputs:
  - {name: http, match: '*', host: h, port: 8080, uri: /in, format: json_lines, tls: on, tls.ca_file: /ca.pem, retry_limit: 5}
  - {name: loki, match: '*', host: loki, labels: 'job=web, env=prod', compress: gzip}
  - {name: es, match: '*', host: e, index: logs}
  - {name: forward, match: '*', host: f}
"#,
    );
    let document = outcome.document.unwrap_or_else(|| panic!("{:#?}", outcome.notes));
    for part in [
        "- /var/log/more.log",
        "maxLine: \"128Ki\"",
        "ignoreOlderThan: \"48h\"",
        "rotateWait: \"30s\"",
        "preset: java",
        "pattern: \"^(?<level>\\\\w+) (?<message>.*)$\"",
        "tcp: \"0.0.0.0:5140\"",
        "matches: healthz",
        "team: blue",
        "a: b",
        "url: \"https://h:8080/in\"",
        "caFile: /ca.pem",
        "job: web",
        "index: logs",
        "address: \"f:24224\"",
    ] {
        assert!(document.contains(part), "{part}\n{document}");
    }
    assert!(outcome.notes.iter().all(|note| note.contains("note: ")), "{:#?}", outcome.notes);
    assert!(
        outcome.notes.iter().any(|note| note.starts_with("13:5: note: pipeline.inputs[0].db: positions are")),
        "{:#?}",
        outcome.notes
    );
}

#[test]
fn what_fluent_bit_alone_can_is_refused_with_its_place() {
    let outcome = fluent_bit(
        "pipeline:\n  inputs:\n  - {name: cpu}\n  - {name: tail, path: /a, docker_mode: on}\n  filters:\n  - {name: lua, match: '*', script: x.lua}\n  outputs:\n  - {name: kafka, match: 'a.*'}\n  - {name: stdout, match: '*', http_passwd: x}\n",
    );
    assert_eq!(outcome.document, None);
    let shown = outcome.notes.join("\n");
    for part in [
        "3:5: pipeline.inputs[0]: the input `cpu` has no counterpart here",
        "4:28: pipeline.inputs[1].docker_mode: has no counterpart here",
        "6:5: pipeline.filters[0]: the filter `lua` has no counterpart here",
        "8:5: pipeline.outputs[0].match: there are no tags here; only `*` can be taken over",
        "8:5: pipeline.outputs[0]: the output `kafka` has no counterpart here",
        "9:5: pipeline.outputs[1]: secrets are read from files here",
    ] {
        assert!(shown.contains(part), "{part}\n{shown}");
    }
}

#[test]
fn a_promtail_file_becomes_ours() {
    let outcome = promtail(
        r#"
server: {http_listen_port: 9080}
positions: {filename: /tmp/positions.yaml}
clients:
- url: http://loki:3100/loki/api/v1/push
  tenant_id: t
  basic_auth: {username: u, password_file: /run/pw}
  external_labels: {cluster: edge}
  batchwait: 2s
  batchsize: 500000
scrape_configs:
- job_name: web
  static_configs:
  - targets: [localhost]
    labels: {job: web, __path__: '/var/log/web/*.log'}
  pipeline_stages:
  - multiline: {firstline: '^\d{4}', max_wait_time: 5s}
  - json: {expressions: {level: level}}
  - drop: {source: level, value: debug}
  - replace: {expression: 'id-\d+', replace: 'id-#'}
  - timestamp: {source: ts, format: RFC3339}
  - limit: {rate: 10, burst: 20, drop: true}
  - labels: {level: }
"#,
    );
    let document = outcome.document.unwrap_or_else(|| panic!("{:#?}", outcome.notes));
    for part in [
        "- \"/var/log/web/*.log\"",
        "parse: json",
        "idle: \"5s\"",
        "level: \"^debug$\"",
        "replacement: \"id-#\"",
        "field: ts",
        "per: \"2000ms\"",
        "tenant: t",
        "passwordFile: /run/pw",
        "cluster: edge",
        "maxBytes: \"500000\"",
    ] {
        assert!(document.contains(part), "{part}\n{document}");
    }
    let bad = promtail(
        "scrape_configs:\n- job_name: j\n  journal: {path: /x}\n  pipeline_stages:\n  - template: {source: a}\n",
    );
    assert_eq!(bad.document, None);
    assert!(bad.notes[0].starts_with("3:3: scrape_configs[0].journal: has no counterpart here"), "{:#?}", bad.notes);
}
