use proptest::prelude::*;

use super::*;

const BOUNDS: Bounds = Bounds { bytes: 8192, fields: 20 };

fn req(text: &[u8]) -> Result<Option<Request>, Refusal> {
    request(text, &mut Vec::new(), BOUNDS)
}

fn get(fields: &str) -> Result<Option<Request>, Refusal> {
    req(format!("GET / HTTP/1.1\r\n{fields}\r\n").as_bytes())
}

fn post(fields: &str) -> Result<Length, Refusal> {
    let head = req(format!("POST / HTTP/1.1\r\nHost: h\r\n{fields}\r\n").as_bytes())?;
    Ok(head.expect("whole").length)
}

#[test]
fn names_that_an_application_takes_for_another() {
    for (name, means) in [
        ("X-Forwarded-For", Name::XForwardedFor),
        ("x_forwarded-FOR", Name::LikeForwarded),
        ("X.Forwarded!Proto", Name::LikeForwarded),
        ("X_Forwarded_Host", Name::LikeForwarded),
        ("X_Forwarded_Client_Cert", Name::LikeOwn),
        ("Content_Length", Name::LikeOwn),
        ("Transfer_Encoding", Name::LikeOwn),
        ("Keep_Alive", Name::LikeOwn),
        ("Proxy_Connection", Name::LikeOwn),
        ("X_Forwarded_Port", Name::Other),
        ("XXForwardedXFor", Name::Other),
        ("X_Forwarded_For_", Name::Other),
    ] {
        assert_eq!(Name::of(name.as_bytes()), means, "{name}");
    }
}

#[test]
fn request_lines() {
    use Refusal::{Host, LineEnd, RequestLine, Target, Version};
    for (line, refusal) in [
        ("GET / HTTP/1.1", None),
        ("GET /a?b=c%20d HTTP/1.1", None),
        ("GET http://h/ HTTP/1.1", None),
        ("GET HTTPS://h:1?x HTTP/1.1", Some(Target)),
        ("GET http://h HTTP/1.1", None),
        ("OPTIONS * HTTP/1.1", None),
        ("CONNECT h:1 HTTP/1.1", None),
        ("M-SEARCH / HTTP/1.1", None),
        ("GET * HTTP/1.1", Some(Target)),
        ("GET h:1 HTTP/1.1", Some(Target)),
        ("GET /a#b HTTP/1.1", Some(Target)),
        ("GET /\x7f HTTP/1.1", Some(Target)),
        ("GET /\u{e4} HTTP/1.1", Some(Target)),
        ("GET http://u@h/ HTTP/1.1", Some(Host)),
        ("GET http:///a HTTP/1.1", Some(Target)),
        ("GET  / HTTP/1.1", Some(RequestLine)),
        ("GET /  HTTP/1.1", Some(RequestLine)),
        ("GET / HTTP/1.1 ", Some(LineEnd)),
        ("GET\t/ HTTP/1.1", Some(RequestLine)),
        ("GET /\tHTTP/1.1", Some(RequestLine)),
        (" GET / HTTP/1.1", Some(RequestLine)),
        ("G(T / HTTP/1.1", Some(RequestLine)),
        ("GET /", Some(RequestLine)),
        ("GET / HTTP/1.2", Some(Version)),
        ("GET / HTTP/2.0", Some(Version)),
        ("GET / HTTP/11", Some(RequestLine)),
        ("GET / http/1.1", Some(RequestLine)),
        ("GET / HTTP/1.1\n", Some(LineEnd)),
        ("GET /\rHTTP/1.1", Some(RequestLine)),
    ] {
        let text = format!("{line}\r\nHost: h\r\n\r\n");
        assert_eq!(req(text.as_bytes()).err(), refusal, "{line:?}");
    }
}

#[test]
fn fields() {
    use Refusal::{FieldName, FieldValue, LineEnd};
    for (lines, refusal) in [
        ("Host: h\r\nA: b\r\n", None),
        ("Host:h\r\nA:\r\nB:  \t \r\n", None),
        ("Host: h\r\nA: caf\u{e9}\r\n", None),
        ("Host: h\r\nA : b\r\n", Some(FieldName)),
        ("Host: h\r\n A: b\r\n", Some(FieldName)),
        ("Host: h\r\nA: b\r\n c\r\n", Some(FieldName)),
        ("Host: h\r\n: b\r\n", Some(FieldName)),
        ("Host: h\r\nA\r\n", Some(FieldName)),
        ("Host: h\r\nA b: c\r\n", Some(FieldName)),
        ("Host: h\r\nA\0: c\r\n", Some(FieldName)),
        ("Host: h\r\nA: b\0c\r\n", Some(FieldValue)),
        ("Host: h\r\nA: b\x7f\r\n", Some(FieldValue)),
        ("Host: h\nA: b\r\n", Some(FieldValue)),
        ("Host: h\r\nA: b\rC: d\r\n", Some(LineEnd)),
        ("Host: h\r\n\nA: b\r\n", Some(LineEnd)),
        ("Host: h\r\n\rA: b\r\n", Some(LineEnd)),
    ] {
        assert_eq!(get(lines).err(), refusal, "{lines:?}");
    }
    let many = "A: b\r\n".repeat(20);
    assert_eq!(get(&format!("Host: h\r\n{many}")).err(), Some(Refusal::FieldCount));
    let long = format!("Host: h\r\nA: {}\r\n", "x".repeat(9000));
    assert_eq!(get(&long).err(), Some(Refusal::HeadSize));
}

#[test]
fn hosts() {
    assert_eq!(get("A: b\r\n").err(), Some(Refusal::Host));
    assert_eq!(get("Host: a\r\nHost: a\r\n").err(), Some(Refusal::Host));
    assert_eq!(get("Host: a/b\r\n").err(), Some(Refusal::Host));
    assert_eq!(get("Host: a b\r\n").err(), Some(Refusal::Host));
    assert_eq!(get("Host: a@b\r\n").err(), Some(Refusal::Host));
    for host in ["[::1", "[]", "[::1]x", "[::1]:[", "[a]b:1", "a]", "a:]"] {
        assert_eq!(get(&format!("Host: {host}\r\n")).err(), Some(Refusal::Host), "{host}");
    }
    for host in [
        "",
        "a",
        "a.:80",
        "A_b",
        "a:",
        "a:65535",
        "[::1]",
        "[fe80::1%25eth0]:8080",
        "[v1.x]",
        "1.2.3.4:5",
        "127.0.0.1:1,127.0.0.1:2",
    ] {
        assert!(get(&format!("Host: {host}\r\n")).is_ok(), "{host}");
    }
    assert!(req(b"GET / HTTP/1.0\r\n\r\n").is_ok());
    // It is not looked at where the target has an authority, but passed on to those who may.
    assert_eq!(req(b"GET http://real/ HTTP/1.1\r\nHost: a@b\r\n\r\n"), Err(Refusal::Host));
    let text = b"GET http://real:8/x?y HTTP/1.1\r\nHost: other\r\n\r\n";
    let head = req(text).unwrap().unwrap();
    assert_eq!((head.host.of(text), head.path.of(text)), (&b"real:8"[..], &b"/x?y"[..]));
}

#[test]
fn how_long_a_body_is() {
    use Refusal::{Coding, Framing};
    for (fields, expected) in [
        ("", Ok(Length::None)),
        ("Content-Length: 0\r\n", Ok(Length::None)),
        ("content-length:  12 \r\n", Ok(Length::Bytes(12))),
        ("Transfer-Encoding: Chunked\r\n", Ok(Length::Chunked)),
        ("Content-Length: 1\r\nTransfer-Encoding: chunked\r\n", Err(Framing)),
        ("Transfer-Encoding: chunked\r\nContent-Length: 1\r\n", Err(Framing)),
        ("Content-Length: 1\r\nContent-Length: 1\r\n", Err(Framing)),
        ("Content-Length: 1, 1\r\n", Err(Framing)),
        ("Content-Length: +1\r\n", Err(Framing)),
        ("Content-Length: -1\r\n", Err(Framing)),
        ("Content-Length: 0x1\r\n", Err(Framing)),
        ("Content-Length: 1 1\r\n", Err(Framing)),
        ("Content-Length: \r\n", Err(Framing)),
        ("Content-Length: 9999999999999999999\r\n", Err(Framing)),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", Err(Framing)),
        ("Transfer-Encoding: gzip, chunked\r\n", Err(Coding)),
        ("Transfer-Encoding: identity\r\n", Err(Coding)),
        ("Transfer-Encoding: xchunked\r\n", Err(Coding)),
        ("Transfer-Encoding: chunked;q=1\r\n", Err(Coding)),
        ("Transfer-Encoding:\r\n", Err(Coding)),
        ("Transfer-Encoding: \x0bchunked\r\n", Err(Refusal::FieldValue)),
        ("Transfer-Encoding : chunked\r\n", Err(Refusal::FieldName)),
        ("Expect: 200-maybe\r\n", Err(Refusal::Expectation)),
    ] {
        assert_eq!(post(fields), expected, "{fields:?}");
    }
    let old = req(b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n");
    assert_eq!(old.err(), Some(Framing));
}

#[test]
fn whether_the_connection_goes_on() {
    for (version, fields, keep) in [
        ("1.1", "", true),
        ("1.1", "Connection: close\r\n", false),
        ("1.1", "Connection: x, CLOSE\r\n", false),
        ("1.0", "", false),
        ("1.0", "Connection: keep-alive\r\n", true),
        ("1.0", "Connection: keep-alive\r\nConnection: close\r\n", false),
    ] {
        let text = format!("GET / HTTP/{version}\r\nHost: h\r\n{fields}\r\n");
        let head = req(text.as_bytes()).unwrap().unwrap();
        assert_eq!(head.persistence.keep, keep, "{version} {fields:?}");
    }
    // Nobody who speaks HTTP/1.0 can go over to anything else (RFC 9110 §7.8).
    for (version, upgrade) in [("1.1", true), ("1.0", false)] {
        let text = format!("GET / HTTP/{version}\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
        assert_eq!(req(text.as_bytes()).unwrap().unwrap().persistence.upgrade, upgrade);
    }
}

#[test]
fn responses() {
    let read = |text: &str, to_head| response(text.as_bytes(), &mut Vec::new(), BOUNDS, to_head);
    for (text, to_head, length, keep) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", false, Length::Bytes(5), true),
        ("HTTP/1.1 200\r\nContent-Length: 5\r\n\r\n", true, Length::None, true),
        ("HTTP/1.1 200 \r\n\r\n", false, Length::Close, false),
        ("HTTP/1.1 204 No\r\n\r\n", false, Length::None, true),
        ("HTTP/1.1 304 Not\r\nContent-Length: 5\r\n\r\n", false, Length::None, true),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", false, Length::Chunked, true),
        ("HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\n", false, Length::Bytes(1), false),
        ("HTTP/1.1 100 Continue\r\n\r\n", false, Length::None, true),
    ] {
        let head = read(text, to_head).unwrap().unwrap();
        assert_eq!((head.length, head.persistence.keep), (length, keep), "{text:?}");
    }
    let head = read("HTTP/1.1 200 OK\r\nKeep-Alive: max=3, timeout=5\r\n\r\n", false).unwrap().unwrap();
    assert_eq!(head.idle, Some(5));
    for (text, refusal) in [
        ("HTTP/1.1 20 OK\r\n\r\n", Refusal::StatusLine),
        ("HTTP/1.1 2000\r\n\r\n", Refusal::StatusLine),
        ("HTTP/1.1 099 X\r\n\r\n", Refusal::StatusLine),
        ("HTTP/2.0 200 OK\r\n\r\n", Refusal::Version),
        ("ICY 200 OK\r\n\r\n", Refusal::StatusLine),
        ("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", Refusal::Framing),
        ("HTTP/1.1 200 O\nK\r\n\r\n", Refusal::StatusLine),
        ("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", Refusal::Framing),
        ("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", Refusal::Framing),
        ("HTTP/1.1 200 OK\r\nA: b\nC: d\r\n\r\n", Refusal::FieldValue),
    ] {
        assert_eq!(read(text, false).err(), Some(refusal), "{text:?}");
    }
}

proptest! {
    /// Whatever comes, it is read, refused or waited for, the same at once as piece by piece.
    #[test]
    fn pieces_make_no_difference(text in "(GET|POST) /[a-z]{0,3} HTTP/1\\.[01]\r\n(Host: h\r\n)?([A-Za-z: \t\r\n]{0,6}(: |:)[a-z,0-9 ]{0,8}\r\n){0,3}\r\n") {
        let whole = req(text.as_bytes());
        let mut found = None;
        for end in 1..=text.len() {
            match req(&text.as_bytes()[..end]) {
                Ok(None) => {}
                other => {
                    found = Some(other);
                    break;
                }
            }
        }
        prop_assert_eq!(found.unwrap_or(Ok(None)), whole);
    }

    #[test]
    fn nothing_makes_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), head in any::<bool>()) {
        let _ = req(&bytes);
        let _ = response(&bytes, &mut Vec::new(), BOUNDS, head);
        let mut text = b"HTTP/1.1 200 OK\r\n".to_vec();
        text.extend_from_slice(&bytes);
        let _ = response(&text, &mut Vec::new(), BOUNDS, head);
    }

    /// A head that is taken can be written and is read again as the same.
    #[test]
    fn no_line_hides_another(name in "[A-Za-z-]{1,8}", value in "[ -~\t\u{80}-\u{ff}]{0,20}") {
        let text = format!("GET / HTTP/1.1\r\nHost: h\r\n{name}: {value}\r\n\r\n");
        let mut fields = Vec::new();
        if let Ok(Some(_)) = request(text.as_bytes(), &mut fields, BOUNDS) {
            prop_assert_eq!(fields.len(), 2);
            prop_assert_eq!(fields[1].value.of(text.as_bytes()), value.trim_matches([' ', '\t']).as_bytes());
        }
    }
}
