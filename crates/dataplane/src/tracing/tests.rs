use super::*;
use crate::head::{Bounds, request};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";

fn begin(tracing: &Tracing, lines: &[String]) -> (Traced, String) {
    let text = format!("GET / HTTP/1.1\r\nHost: h\r\n{}\r\n", lines.concat());
    let mut fields = Vec::new();
    let bounds = Bounds { bytes: 65_000, fields: 100 };
    request(text.as_bytes(), &mut fields, bounds).unwrap().unwrap();
    let mut identities = Identities::default();
    let mut traced = tracing.begin(text.as_bytes(), &mut fields, &mut identities);
    let mut out = Vec::new();
    crate::forward::kept(text.as_bytes(), &fields, &mut out);
    out.extend_from_slice(b"\r\n");
    tracing.write(&mut traced, &mut out);
    traced.begin_attempt(&mut identities, &mut out);
    (traced, String::from_utf8(out).unwrap())
}

fn with(formats: &[Format]) -> Tracing {
    Tracing { formats: formats.to_vec(), sampler: Sampler { parent_based: true, ratio: 0.0 } }
}

fn w3c(lines: &[&str]) -> (Traced, String) {
    begin(&with(&[Format::W3c]), &lines.iter().map(|line| format!("{line}\r\n")).collect::<Vec<_>>())
}

fn continues(traceparent: &str) -> bool {
    let (traced, _) = w3c(&[&format!("traceparent: {traceparent}")]);
    hex::text(&traced.trace) == TRACE && hex::text(&traced.parent) == PARENT
}

#[test]
fn a_trace_goes_on() {
    let (traced, head) =
        w3c(&[&format!("traceparent: 00-{TRACE}-{PARENT}-01"), "tracestate: a=1, b=2", "TraceState: c=3"]);
    assert!(traced.sampled && traced.span != traced.parent && traced.attempt != traced.span);
    let (attempt, trace) = (hex::text(&traced.attempt), TRACE);
    assert_eq!(head, format!("Host: h\r\ntraceparent: 00-{trace}-{attempt}-01\r\ntracestate: a=1,b=2,c=3\r\n\r\n"));
    let (traced, head) = w3c(&[&format!("TraceParent: 00-{TRACE}-{PARENT}-00")]);
    assert!(!traced.sampled && head.contains(&format!("{}-00\r\n", hex::text(&traced.attempt))), "{head}");
    // Of flags that are not known none is passed on; that the identity is random is (level 2 §3.2.2.3).
    assert_eq!(w3c(&[&format!("traceparent: 00-{TRACE}-{PARENT}-ff")]).0.flags(), 3);
}

/// The cases of the standard's own test suite (`test_traceparent_*`), by what is sent.
#[test]
fn malformed_parents_begin_a_trace() {
    for good in [
        format!("00-{TRACE}-{PARENT}-01"),
        format!("01-{TRACE}-{PARENT}-01"),
        format!("cc-{TRACE}-{PARENT}-01"),
        format!("cc-{TRACE}-{PARENT}-01-what-the-future-will-be-like"),
        format!(" \t00-{TRACE}-{PARENT}-01 \t"),
    ] {
        assert!(continues(&good), "{good}");
    }
    for bad in [
        String::new(),
        format!("00-{TRACE}-{PARENT}-01-what-the-future-will-be-like"),
        format!("00-{TRACE}-{PARENT}-01."),
        format!("cc-{TRACE}-{PARENT}-01.what-the-future-will-not-be-like"),
        format!("ff-{TRACE}-{PARENT}-01"),
        format!(".0-{TRACE}-{PARENT}-01"),
        format!("0.-{TRACE}-{PARENT}-01"),
        format!("000-{TRACE}-{PARENT}-01"),
        format!("0000-{TRACE}-{PARENT}-01"),
        format!("0-{TRACE}-{PARENT}-01"),
        format!("0G-{TRACE}-{PARENT}-01"),
        format!("00-{}-{PARENT}-01", "0".repeat(32)),
        format!("00-.{}-{PARENT}-01", &TRACE[1..]),
        format!("00-{}-{PARENT}-01", TRACE.to_uppercase()),
        format!("00-{TRACE}00-{PARENT}-01"),
        format!("00-{}-{PARENT}-01", &TRACE[2..]),
        format!("00-{TRACE}-{}-01", "0".repeat(16)),
        format!("00-{TRACE}-.{}-01", &PARENT[1..]),
        format!("00-{TRACE}-{PARENT}00-01"),
        format!("00-{TRACE}-{}-01", &PARENT[2..]),
        format!("00-{TRACE}-{}-01", PARENT.to_uppercase()),
        format!("00-{TRACE}-{PARENT}-.0"),
        format!("00-{TRACE}-{PARENT}-0."),
        format!("00-{TRACE}-{PARENT}-001"),
        format!("00-{TRACE}-{PARENT}-1"),
        format!("00-{TRACE}-{PARENT}"),
        format!("00-{TRACE}"),
        format!("00-{TRACE}-{PARENT}-01,00-{TRACE}-{PARENT}-01"),
    ] {
        assert!(!continues(&bad), "{bad}");
    }
    // Two of them are none, even the same twice.
    let line = format!("traceparent: 00-{TRACE}-{PARENT}-01");
    let (traced, head) = w3c(&[&line, &line]);
    assert!(traced.parent == [0; 8] && head.matches("traceparent").count() == 1);
}

#[test]
fn states() {
    let state = |lines: &[&str]| {
        let parent = format!("traceparent: 00-{TRACE}-{PARENT}-01");
        let lines: Vec<&str> = std::iter::once(parent.as_str()).chain(lines.iter().copied()).collect();
        String::from_utf8(w3c(&lines).0.state).unwrap()
    };
    let many: Vec<String> = (0..32).map(|n| format!("k{n}=1")).collect();
    let key = "z".repeat(256);
    for good in [
        "foo=1,bar=2".to_owned(),
        "foo=1".to_owned(),
        "f_-*/o=x y".to_owned(),
        "0t@system=1".to_owned(),
        format!("{key}=1"),
        "foo@=1".to_owned(),
        "foo@@bar@baz=1".to_owned(),
        "0foo=1".to_owned(),
        format!("foo={}", "v".repeat(256)),
        // Twice the same key is kept as it is.
        "foo=1,foo=1".to_owned(),
        many.join(","),
    ] {
        assert_eq!(state(&[&format!("tracestate: {good}")]), good);
    }
    for (sent, expected) in
        [("foo=1 \t , \t bar=2, \t baz=3", "foo=1,bar=2,baz=3"), (" foo=1 ", "foo=1"), ("foo=1,", "foo=1"), ("", "")]
    {
        assert_eq!(state(&[&format!("tracestate: {sent}")]), expected);
    }
    assert_eq!(state(&["tracestate: foo=1,bar=2", "tracestate:", "tracestate: rojo=1"]), "foo=1,bar=2,rojo=1");
    let too_many = format!("{},more=1", many.join(","));
    for bad in [
        "foo",
        "foo=",
        "=1",
        "foo =1",
        "FOO=1",
        "foo.bar=1",
        "@foo=1",
        "foo=1=2",
        "foo=bar=baz",
        "foo=\u{e9}",
        &format!("z{key}=1"),
        &format!("foo={}", "v".repeat(257)),
        &too_many,
    ] {
        assert_eq!(state(&[&format!("tracestate: {bad}")]), "", "{bad}");
    }
    // Without a parent it means nothing, and is not passed on.
    let (traced, head) = w3c(&["tracestate: foo=1"]);
    assert!(traced.state.is_empty() && !head.contains("tracestate"));
}

#[test]
fn b3_both_ways() {
    let read = |formats: &[Format], lines: &[&str]| {
        begin(&with(formats), &lines.iter().map(|line| format!("{line}\r\n")).collect::<Vec<_>>())
    };
    let (traced, head) = read(&[Format::B3], &[&format!("b3: {TRACE}-{PARENT}-1-{PARENT}")]);
    assert!(traced.sampled && hex::text(&traced.parent) == PARENT);
    let (attempt, span) = (hex::text(&traced.attempt), hex::text(&traced.span));
    assert_eq!(head, format!("Host: h\r\nb3: {TRACE}-{attempt}-1-{span}\r\n\r\n"));
    let (traced, _) = read(&[Format::B3], &[&format!("b3: {}-{PARENT}-d", &TRACE[16..])]);
    assert_eq!((hex::text(&traced.trace), traced.debug), (format!("{}{}", "0".repeat(16), &TRACE[16..]), true));
    let (traced, head) = read(&[Format::B3], &["b3: 1"]);
    assert!(traced.sampled && traced.parent == [0; 8] && head.contains("-1-"));
    for bad in [TRACE.to_owned(), format!("{TRACE}-{PARENT}-2"), format!("{TRACE}-{PARENT}-1-x"), "x".to_owned()] {
        assert_eq!(read(&[Format::B3], &[&format!("b3: {bad}")]).0.parent, [0; 8], "{bad}");
    }
    let lines = [&format!("X-B3-TraceId: {TRACE}")[..], &format!("x-b3-spanid: {PARENT}"), "X-B3-Sampled: 1"];
    let (traced, head) = read(&[Format::B3Multi, Format::W3c], &lines);
    assert!(traced.sampled && hex::text(&traced.parent) == PARENT);
    let (attempt, span) = (hex::text(&traced.attempt), hex::text(&traced.span));
    assert_eq!(
        head,
        format!(
            "Host: h\r\nX-B3-TraceId: {TRACE}\r\nX-B3-SpanId: {attempt}\r\nX-B3-ParentSpanId: {span}\r\nX-B3-Sampled: 1\r\ntraceparent: 00-{TRACE}-{attempt}-01\r\n\r\n"
        )
    );
    let (traced, head) = read(&[Format::B3Multi], &["X-B3-Flags: 1"]);
    assert!(traced.debug && traced.sampled && head.contains("X-B3-Flags: 1\r\n") && !head.contains("Sampled"));
    assert!(!read(&[Format::B3Multi], &["X-B3-Sampled: 0"]).0.sampled);
    // What is not asked for is left alone.
    assert!(read(&[Format::W3c], &["b3: 1"]).1.contains("b3: 1\r\n"));
    // The first format that has identities counts.
    let both = [&format!("traceparent: 00-{TRACE}-{PARENT}-01")[..], "X-B3-Sampled: 0"];
    assert_eq!(hex::text(&read(&[Format::B3Multi, Format::W3c], &both).0.trace), TRACE);
}

#[test]
fn samplers() {
    let named = Sampler::named;
    assert_eq!(named("always_on", None), Some(Sampler { parent_based: false, ratio: 1.0 }));
    assert_eq!(named("parentbased_traceidratio", Some("0.25")), Some(Sampler { parent_based: true, ratio: 0.25 }));
    assert_eq!((named("traceidratio", Some("2")), named("jaeger_remote", None)), (None, None));
    let share = |ratio: f64| {
        let tracing = Tracing { formats: vec![Format::W3c], sampler: Sampler { parent_based: true, ratio } };
        (0..2000).filter(|_| begin(&tracing, &[]).0.sampled).count()
    };
    assert_eq!((share(0.0), share(1.0)), (0, 2000));
    assert!((300..700).contains(&share(0.25)));
    // Not parent-based: whatever the parent says.
    let tracing = Tracing { formats: vec![Format::W3c], sampler: Sampler { parent_based: false, ratio: 1.0 } };
    assert!(begin(&tracing, &[format!("traceparent: 00-{TRACE}-{PARENT}-00\r\n")]).0.sampled);
}
