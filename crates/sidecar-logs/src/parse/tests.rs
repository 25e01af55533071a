use proptest::prelude::*;

use super::*;

const NOW: i64 = 1_795_000_000_000_000_000; // 2026-11-18

fn run(parser: &Parser, line: &str) -> (String, i64, Severity, serde_json::Value) {
    let record = Record { time: NOW, flags: Flags(0), severity: Severity::Unknown, body: line.as_bytes(), fields: b"" };
    let mut out = None;
    parser.understand(record, &mut Vec::new(), |record| {
        let fields = format!("{{{}}}", String::from_utf8(record.fields.to_vec()).unwrap());
        let fields = serde_json::from_str(&fields).unwrap_or_else(|error| panic!("{error}: {fields}"));
        out = Some((String::from_utf8_lossy(record.body).into_owned(), record.time, record.severity, fields));
    });
    out.unwrap()
}

fn at(text: &str) -> i64 {
    time::parse_rfc3339(text.as_bytes()).unwrap()
}

#[test]
fn access_logs() {
    let line = r#"203.0.113.9 - frank m [10/Oct/2000:13:55:36 -0700] "GET /a?b=\"c HTTP/1.0" 200 2326 "http://e/" "Mozilla \"x\"""#;
    let (body, time, _, fields) = run(&Parser::Access, line);
    assert_eq!((body.as_str(), time), (line, at("2000-10-10T20:55:36Z")));
    assert_eq!(
        fields,
        serde_json::json!({
            "client": "203.0.113.9", "user": "frank m", "method": "GET", "path": "/a?b=\\\"c", "protocol": "HTTP/1.0",
            "referer": "http://e/", "agent": "Mozilla \\\"x\\\"", "status": 200, "bytes": 2326,
        })
    );
    let (_, _, _, fields) = run(&Parser::Access, r#"::1 - - [29/Feb/2024:00:00:00 +0000] "\x16\x03" 400 -"#);
    assert_eq!(fields, serde_json::json!({"client": "::1", "request": "\\x16\\x03", "status": 400, "bytes": 0}));
    for other in ["", "not one", "a b c [x] \"y\" 20 1", "h - - [10/Oct/2000:13:55:36 -0700] \"GET"] {
        assert_eq!(run(&Parser::Access, other), (other.to_owned(), NOW, Severity::Unknown, serde_json::json!({})));
    }
}

#[test]
fn syslog_of_both_kinds() {
    let line =
        "<165>1 2003-10-11T22:14:15.003Z host.example.com app 12 ID47 [e@1 iut=\"3\" s=\"a\\]b\"][f] \u{feff}An event";
    let (body, time, severity, fields) = run(&Parser::Syslog, line);
    assert_eq!((body.as_str(), time, severity), ("An event", at("2003-10-11T22:14:15.003Z"), Severity::Info));
    let data = serde_json::json!({"e@1": {"iut": "3", "s": "a]b"}, "f": {}});
    let expected = serde_json::json!({"facility": "local4", "host": "host.example.com", "app": "app", "pid": 12, "msgid": "ID47", "data": data});
    assert_eq!(fields, expected);
    let (body, _, severity, fields) = run(&Parser::Syslog, "<11>1 - - su - - - hello");
    assert_eq!((body.as_str(), severity, &fields["app"]), ("hello", Severity::Error, &"su".into()));

    let (body, time, severity, fields) = run(&Parser::Syslog, "<34>Oct 11 22:14:15 mymachine su[7]: 'su root' failed");
    assert_eq!((body.as_str(), time, severity), ("'su root' failed", at("2026-10-11T22:14:15Z"), Severity::Fatal));
    assert_eq!(fields, serde_json::json!({"facility": "auth", "host": "mymachine", "app": "su", "pid": 7}));
    // logger(1) to a local socket leaves the host out; a daemon's file has no priority.
    let (body, _, _, fields) = run(&Parser::Syslog, "<13>Jan  1 00:00:01 me: x");
    assert_eq!((body.as_str(), fields), ("x", serde_json::json!({"facility": "user", "app": "me"})));
    let (body, time, _, fields) = run(&Parser::Syslog, "Jan  1 00:00:01 h cron[1]: y");
    assert_eq!((body.as_str(), time, &fields["host"]), ("y", at("2027-01-01T00:00:01Z"), &"h".into()), "nearest year");
    assert_eq!(run(&Parser::Syslog, "<13>just text").0, "just text");
    assert_eq!(run(&Parser::Syslog, "<999>1 x").0, "<999>1 x");
}

#[test]
fn groups_of_a_pattern() {
    let pattern = r"^(?P<time>\S+) (?P<level>\w+) \[(?P<thread>[^]]+)\] (?P<took>\d+)ms (?P<message>.*)$";
    let parser = Parser::new(config::Parse::Regex, Some(pattern)).unwrap();
    let (body, time, severity, fields) = run(&parser, "2026-01-02T03:04:05Z WARN [main] 17ms slow");
    assert_eq!((body.as_str(), time, severity), ("slow", at("2026-01-02T03:04:05Z"), Severity::Warn));
    assert_eq!(fields, serde_json::json!({"level": "WARN", "thread": "main", "took": 17}));
    assert_eq!(run(&parser, "no match").0, "no match");
}

proptest! {
    /// Whatever comes in, the fields are JSON, and a line is never lost.
    #[test]
    fn nothing_breaks_the_parsers(line in r#"(<[0-9]{1,3}>)?(1 )?([A-Z][a-z]{2} [0-9 ]{2} [0-9:]{8} )?[ -~\u{e9}"\\\[\]=]{0,80}"#) {
        let regex = Parser::new(config::Parse::Regex, Some(r"(?P<a>\S+) (?P<b>.*)")).unwrap();
        for parser in [Parser::Access, Parser::Syslog, Parser::Logfmt, Parser::Json, regex] {
            let (body, _, _, fields) = run(&parser, &line);
            prop_assert!(line.contains(&body), "{}", body);
            prop_assert!(fields.is_object());
        }
    }

    #[test]
    fn any_bytes_are_survived(line: Vec<u8>) {
        for parser in [Parser::Access, Parser::Syslog, Parser::Logfmt, Parser::Json] {
            let record = Record { time: NOW, flags: Flags(0), severity: Severity::Unknown, body: &line, fields: b"" };
            parser.understand(record, &mut Vec::new(), |record| {
                assert!(json::members(record.fields, |_| {}));
            });
        }
    }
}
