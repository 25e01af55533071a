//! The command line, the examples, and the reference page, which is generated.

use std::path::Path;
use std::process::{Command, Output};

fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_outrigger-logs")).args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

#[test]
fn the_examples_are_good_and_pass_their_own_tests() {
    for name in ["logs", "logs-elasticsearch", "logs-otlp", "logs-files"] {
        let example = root().join(format!("examples/sidecars/{name}.yaml"));
        for arguments in [&["--check", "--config"][..], &["test", "--config"]] {
            let output = run(&[arguments, &[example.to_str().unwrap()]].concat());
            assert!(output.status.success(), "{name}: {}{}", text(&output.stdout), text(&output.stderr));
        }
    }
}

#[test]
fn another_agents_configuration_is_taken_over_or_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("fluent-bit.yaml");
    let good = "pipeline:\n  inputs: [{name: tail, path: /l/*.log, read_from_head: true}]\n  outputs: [{name: stdout, match: '*'}]\n";
    std::fs::write(&path, good).unwrap();
    let from = |path: &Path| run(&["import", "--from", "fluent-bit", path.to_str().unwrap()]);
    let document = text(&from(&path).stdout);
    let ours = directory.path().join("ours.yaml");
    std::fs::write(&ours, &document).unwrap();
    assert!(run(&["--check", "--config", ours.to_str().unwrap()]).status.success(), "{document}");
    std::fs::write(&path, good.replace("stdout", "kafka")).unwrap();
    let refused = from(&path);
    assert_eq!((refused.status.code(), refused.stdout.len()), (Some(3), 0));
    assert!(text(&refused.stderr).contains("fluent-bit.yaml:3:"), "{}", text(&refused.stderr));
    assert_eq!(run(&["import", path.to_str().unwrap()]).status.code(), Some(2));
}

#[test]
fn the_reference_is_up_to_date() {
    let path = root().join("docs/reference/logs.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let (head, _) = page.split_once("<!-- generated -->\n").unwrap();
    let fresh = format!("{head}<!-- generated -->\n{}", text(&run(&["--print-reference"]).stdout));
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::write(&path, &fresh).unwrap();
        return;
    }
    assert!(page == fresh, "docs/reference/logs.md is stale; run with UPDATE_EXPECT=1");
}

#[test]
fn every_problem_is_reported_at_its_place() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("bad.yaml");
    let bad = "apiVersion: outrigger.dev/v1alpha1
kind: LogAgent
spec:
  sources:
  - name: a
    files: {include: [logs/*.log], maxLine: 5}
    multiline: {preset: java, start: '('}
  - name: a
    files: {include: [/x]}
    format: xml
  sinks:
  - name: out
    to: {htpp: {url: 'http://u:p@x'}}
  - name: loki
    to: {loki: {url: 'ftp://x'}}
  state: {directory: yes}
";
    std::fs::write(&path, bad).unwrap();
    let shown = |output: Output| {
        assert_eq!(output.status.code(), Some(3));
        text(&output.stderr).replace(path.to_str().unwrap(), "F")
    };
    assert_eq!(
        shown(run(&["--check", "--config", path.to_str().unwrap()])),
        "F:10:13: spec.sources[1].format: must be one of plain, cri
F:13:10: spec.sinks[0].to: unknown field `htpp` (known here: stdout, file, http, loki, otlp, elasticsearch, s3, syslog, forward)
F:16:22: spec.state.directory: must be text: write \"yes\" in quotes
3 problem(s)
"
    );
    // What only the whole can tell comes when the parts are right.
    let better = bad.replace("xml", "cri").replace("htpp", "http").replace("yes", "state");
    std::fs::write(&path, better).unwrap();
    assert_eq!(
        shown(run(&["--check", "--config", path.to_str().unwrap()])),
        "F:6:23: spec.sources[0].files.include[0]: must be an absolute path or pattern
F:6:45: spec.sources[0].files.maxLine: must be between 64 and 16Mi
F:7:5: spec.sources[0].multiline: needs exactly one of preset, start and next
F:7:38: spec.sources[0].multiline.start: not a regular expression: unclosed group
F:8:11: spec.sources[1].name: the name `a` is taken already
F:13:22: spec.sinks[0].to.http.url: must name no user: that is what client.basic is for
F:15:22: spec.sinks[1].to.loki.url: `ftp://x` must begin with http:// or https:// and name a host
F:16:22: spec.state.directory: must be an absolute path
8 problem(s)
"
    );
}

#[test]
fn flags_stand_for_a_document() {
    let printed =
        run(&["--print-config", "--file", "/l/*.log", "--format", "json", "--to", "http://h:1/", "--to", "/o"]);
    let document = text(&printed.stdout);
    for part in
        ["kind: LogAgent", "- \"/l/*.log\"", "parse: json", "url: \"http://h:1/\"", "path: /o", "spool: overflow"]
    {
        assert!(document.contains(part), "{part}\n{document}");
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("printed.yaml");
    std::fs::write(&path, &document).unwrap();
    let again = run(&["--print-config", "--config", path.to_str().unwrap()]);
    assert_eq!(text(&again.stdout), document, "{}", text(&again.stderr));
    assert_eq!(run(&["--bogus"]).status.code(), Some(2));
    assert!(text(&run(&["--help"]).stdout).contains("--drain-timeout TIME"));
    for name in ["test", "tap", "import"] {
        assert!(text(&run(&[name, "--help"]).stdout).starts_with(&format!("Usage: outrigger-logs {name} ")));
    }
    assert!(text(&run(&["import"]).stderr).contains("usage: outrigger-logs import --from"));
    assert!(text(&run(&["--print-defaults"]).stdout).contains("maxLine: \"256Ki\""));
    let schema: serde_json::Value = serde_json::from_slice(&run(&["--print-schema"]).stdout).unwrap();
    assert_eq!(schema["properties"]["spec"]["required"], serde_json::json!(["sources", "sinks"]));
}
