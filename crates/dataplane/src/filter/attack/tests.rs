use super::*;
use crate::filter::BODY;
use crate::filter::example::Example;

/// Requests as ordinary people and programs send them: the request line without its version, then fields after ` | `.
const ORDINARY: &str = include_str!("ordinary.txt");
/// Requests as attackers send them, the rule that must see each before it.
const ATTACKS: &str = include_str!("attacks.txt");

fn requests(text: &'static str) -> impl Iterator<Item = &'static str> {
    text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'))
}

fn example(line: &str) -> Example {
    Example::new(&line.split(" | ").collect::<Vec<_>>())
}

fn names(bits: u64) -> Vec<&'static str> {
    held(bits).map(|(_, rule)| rule.name).collect()
}

/// The rules that hold for the head.
fn found(gate: &Attacks, example: &Example) -> u64 {
    let asked = example.asked();
    gate.found(&asked, &gate.scope(&asked))
}

#[test]
fn the_set_is_well_made() {
    assert!(RULES.len() <= 64);
    let mut seen = Vec::new();
    for rule in RULES {
        assert!(!seen.contains(&rule.name), "{}", rule.name);
        seen.push(rule.name);
        assert!(["sql", "xss", "path", "command", "scanner"].contains(&rule.group()), "{}", rule.name);
        regex::bytes::RegexBuilder::new(rule.pattern).unicode(false).case_insensitive(true).build().unwrap();
    }
    // As one set it must fit as well: otherwise nothing would be looked at.
    assert_ne!(look(b"<script>", QUERY), 0);
    assert!(is_known("sql") && is_known("sql-union") && !is_known("sql-"));
}

/// The measure of false positives: none of the ordinary requests is taken for an attack, and few make a rule hold at all.
#[test]
fn ordinary_requests_are_let_go_on() {
    let gate = Attacks::new(Mode::Deny, 5, Vec::new(), BODY);
    let (mut count, mut hinted, mut wrong) = (0, Vec::new(), Vec::new());
    for line in requests(ORDINARY) {
        count += 1;
        let found = found(&gate, &example(line));
        if score(found) >= 5 {
            wrong.push((line, names(found)));
        } else if found != 0 {
            hinted.push((line, names(found)));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(count >= 120, "{count}");
    assert!(hinted.len() <= 8, "{hinted:#?}");
}

#[test]
fn attacks_are_seen_by_their_rule() {
    let gate = Attacks::new(Mode::Deny, 5, Vec::new(), BODY);
    let mut unused: Vec<&str> = RULES.iter().map(|rule| rule.name).collect();
    let mut missed = Vec::new();
    for line in requests(ATTACKS) {
        let (rule, request) = line.split_once(": ").unwrap();
        let example = example(request);
        let found = found(&gate, &example);
        unused.retain(|name| !names(found).contains(name));
        let sure = RULES.iter().any(|one| one.name == rule && one.score >= 5);
        if !names(found).contains(&rule) || sure && example.status(&gate) != 403 {
            missed.push((line, names(found)));
        }
    }
    assert!(missed.is_empty(), "{missed:#?}");
    assert!(unused.is_empty(), "no example for {unused:?}");
}

#[test]
fn modes_thresholds_and_exclusions() {
    let union = ["GET /search?q=1+union+select+2&safe=1"];
    let hint = ["GET /docs?q=../x"];
    let report = Attacks::new(Mode::Report, 5, Vec::new(), BODY);
    assert_eq!(Example::new(&union).status(&report), 0);
    let mut counted = Vec::new();
    report.count(&mut |rule, decision, count| counted.push(format!("{rule} {decision} {count}")));
    assert_eq!(counted, ["sql-union hold 1", "attack report 1"]);
    assert_eq!(Example::new(&hint).status(&Attacks::new(Mode::Deny, 5, Vec::new(), BODY)), 0);
    assert_eq!(Example::new(&hint).status(&Attacks::new(Mode::Deny, 3, Vec::new(), BODY)), 403);
    let excluding = |path: Option<&str>, rules: &[&str], parameters: &[&str]| {
        let exclusion = Exclusion {
            path: path.map(|path| Path::Prefix(path.into())),
            rules: rules.iter().map(|&rule| rule.to_owned()).collect(),
            parameters: parameters.iter().map(|name| name.as_bytes().to_vec()).collect(),
        };
        Example::new(&union).status(&Attacks::new(Mode::Deny, 5, vec![exclusion], BODY))
    };
    assert_eq!(excluding(None, &["sql-union"], &[]), 0);
    assert_eq!(excluding(None, &["sql"], &[]), 0);
    assert_eq!(excluding(None, &["xss"], &[]), 403);
    assert_eq!(excluding(None, &[], &["q"]), 0);
    assert_eq!(excluding(None, &[], &["safe"]), 403);
    assert_eq!(excluding(Some("/search"), &[], &[]), 0);
    assert_eq!(excluding(Some("/other"), &[], &[]), 403);
}

#[test]
fn bodies_are_looked_at() {
    let status = |gate: &Attacks, kind: &str, body: &'static str| {
        let field = format!("Content-Type: {kind}");
        let lines = ["POST /login", field.as_str()];
        let mut example = Example::new(if kind.is_empty() { &lines[..1] } else { &lines });
        example.body = body.as_bytes();
        example.status(gate)
    };
    let exclusion = || Exclusion { path: None, rules: Vec::new(), parameters: vec![b"code".to_vec()] };
    let gate = Attacks::new(Mode::Deny, 5, vec![exclusion()], BODY);
    let (form, json) = ("application/x-www-form-urlencoded", "application/json; charset=utf-8");
    for (kind, body) in [
        (form, "user=admin'+or+'1'%3D'1&pass=x"),
        (json, r#"{"user": "admin' or '1'='1"}"#),
        (json, r#"[{"html": ["\u003cscript\u003ealert(1)</script>"]}]"#),
        ("multipart/form-data; boundary=B", "--B\n\nContent-Disposition\n--B--\n\n1 union select 1,2"),
        (
            "multipart/form-data; boundary=B",
            "--B\r\nContent-Disposition: form-data; name=q\r\n\r\n1 union select 1,2\r\n--B--",
        ),
        ("application/xml", "<x><!ENTITY a SYSTEM 'file:///etc/passwd'>1 union select null,2</x>"),
        ("", "q=1 union select 1,2"),
    ] {
        assert_eq!(status(&gate, kind, body), 403, "{kind} {body}");
        // Only so much of it is looked at.
        assert_eq!(status(&Attacks::new(Mode::Deny, 5, Vec::new(), 3), kind, body), 0, "{kind} {body}");
    }
    for (kind, body) in [
        (form, "user=o'hara&comment=select+one+or+two%3B+then+drop+it&code=1+union+select+1,2"),
        (
            json,
            r#"{"user": "O'Hara", "n": 1, "text": "union jack; select your size (or 2 = more)", "code": "1 union select 1,2"}"#,
        ),
        (
            "multipart/form-data; boundary=B",
            "--B\r\nContent-Disposition: form-data; name=f; filename=a.sql\r\n\r\n1 union select 1,2\r\n--B--",
        ),
        ("application/octet-stream", "1 union select 1,2"),
        (json, ""),
    ] {
        assert_eq!(status(&gate, kind, body), 0, "{kind} {body}");
    }
}

#[test]
fn comments_are_spaces() {
    for (text, plain) in [
        ("a/**/b/*x*/c", "a b c"),
        ("/*/**/x", " x"),
        ("a/*b", "a/*b"),
        ("/*a*/", " "),
        ("/*a*//*", " /*"),
        ("*/a/*b*/*/", "*/a */"),
    ] {
        let mut out = b"/*kept*/".to_vec();
        decode(text.as_bytes(), false, &mut out);
        assert_eq!(String::from_utf8_lossy(&out), format!("/*kept*/{plain}"));
    }
}

/// Nothing a client can send takes long: the expressions are looked at together, in linear time.
#[test]
fn long_texts_take_no_longer_than_their_length() {
    let gate = Attacks::new(Mode::Deny, 5, Vec::new(), BODY);
    for piece in ["'or", "<a ", "../", "${", "select ", "((((", ";ls", "%2525", "/*", "a'"] {
        let line = format!("GET /?q={}", piece.replace(' ', "+").repeat(60_000 / piece.len()));
        // Of the processor alone: how busy the machine is says nothing about the expressions.
        let spent = || rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime).tv_sec;
        let began = spent();
        let _ = found(&gate, &Example::new(&[&line]));
        assert!(spent() - began < 5, "{piece}: {} seconds", spent() - began);
    }
}

proptest::proptest! {
    #[test]
    fn nothing_is_too_strange(text in "[%uU+/*'\"<>0-9a-f;|$&=.\\\\ -]{0,200}") {
        let mut out = Vec::new();
        decode(text.as_bytes(), true, &mut out);
        let _ = look(&out, QUERY);
    }
}
