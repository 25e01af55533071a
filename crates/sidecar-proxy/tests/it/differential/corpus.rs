//! What is sent: good requests, bad ones, and those that two readers could read differently.

pub(crate) enum Case {
    Http1(&'static [u8]),
    /// Fields of one stream, and its body.
    Http2(Vec<(&'static str, String)>, Option<&'static str>),
}

const HIDDEN: &str = "GET /hidden HTTP/1.1\r\nHost: a\r\n\r\n";

/// `POST / HTTP/1.1` with these field lines, then these bytes.
macro_rules! post {
    ($fields:literal, $body:literal) => {
        Case::Http1(concat!("POST / HTTP/1.1\r\nHost: a\r\n", $fields, "\r\n", $body).as_bytes())
    };
}
/// A chunked body as it is, and a hidden request after it.
macro_rules! chunked {
    ($body:literal) => {
        Case::Http1(
            concat!(
                "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
                $body,
                "GET /hidden HTTP/1.1\r\nHost: a\r\n\r\n"
            )
            .as_bytes(),
        )
    };
}
macro_rules! raw {
    ($text:literal) => {
        Case::Http1($text.as_bytes())
    };
}

fn h2(more: &[(&'static str, &str)], body: Option<&'static str>) -> Case {
    let mut fields: Vec<(&'static str, String)> = Vec::new();
    let method = if body.is_some() { "POST" } else { "GET" };
    for (name, value) in [(":method", method), (":scheme", "http"), (":path", "/"), (":authority", "a")] {
        // One that is given again replaces the good one.
        if !more.iter().any(|(other, _)| *other == name) {
            fields.push((name, value.to_owned()));
        }
    }
    let pseudo = |name: &str| name.starts_with(':');
    fields.extend(more.iter().filter(|(name, _)| pseudo(name)).map(|(name, value)| (*name, (*value).to_owned())));
    fields.extend(more.iter().filter(|(name, _)| !pseudo(name)).map(|(name, value)| (*name, (*value).to_owned())));
    Case::Http2(fields, body)
}

#[allow(clippy::too_many_lines, reason = "a list")]
pub(crate) fn cases() -> Vec<(&'static str, Case)> {
    let smuggled = format!("a\r\n\r\n{HIDDEN}");
    let lines = format!("x\r\nContent-Length: 0\r\n\r\n{HIDDEN}");
    vec![
        // Good.
        ("GET", raw!("GET / HTTP/1.1\r\nHost: a\r\n\r\n")),
        ("HEAD", raw!("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n")),
        ("a length", post!("Content-Length: 5\r\n", "hello")),
        ("chunks", post!("Transfer-Encoding: chunked\r\n", "5\r\nhello\r\n0\r\n\r\n")),
        ("chunks, capital letters", post!("TRANSFER-ENCODING: CHUNKED\r\n", "5\r\nhello\r\n0\r\n\r\n")),
        ("chunk extension", post!("Transfer-Encoding: chunked\r\n", "5;a=b\r\nhello\r\n0\r\n\r\n")),
        ("quoted chunk extension", post!("Transfer-Encoding: chunked\r\n", "5;a=\"b;c\"\r\nhello\r\n0\r\n\r\n")),
        ("zeros before a chunk's size", post!("Transfer-Encoding: chunked\r\n", "0005\r\nhello\r\n000\r\n\r\n")),
        ("trailers", post!("Transfer-Encoding: chunked\r\n", "5\r\nhello\r\n0\r\nX: y\r\n\r\n")),
        (
            "trailers that are framing",
            post!("Transfer-Encoding: chunked\r\n", "5\r\nhello\r\n0\r\nContent-Length: 50\r\n\r\n"),
        ),
        ("pipelined", raw!("GET / HTTP/1.1\r\nHost: a\r\n\r\nGET /hidden HTTP/1.1\r\nHost: a\r\n\r\n")),
        (
            "pipelined after a body",
            raw!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhelloGET /hidden HTTP/1.1\r\nHost: a\r\n\r\n"),
        ),
        ("an empty line first", raw!("\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n")),
        ("absolute form", raw!("GET http://a/x HTTP/1.1\r\nHost: a\r\n\r\n")),
        ("absolute form with another host", raw!("GET http://b/x HTTP/1.1\r\nHost: a\r\n\r\n")),
        ("absolute form without a path", raw!("GET http://a HTTP/1.1\r\nHost: a\r\n\r\n")),
        ("OPTIONS *", raw!("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n")),
        ("HTTP/1.0", raw!("GET / HTTP/1.0\r\nHost: a\r\n\r\n")),
        ("HTTP/1.0 without a host", raw!("GET / HTTP/1.0\r\n\r\n")),
        ("HTTP/1.0 with a length", raw!("POST / HTTP/1.0\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello")),
        ("a method of its own", raw!("BREW / HTTP/1.1\r\nHost: a\r\n\r\n")),
        ("100-continue", post!("Expect: 100-continue\r\nContent-Length: 5\r\n", "hello")),
        ("another expectation", post!("Expect: more\r\nContent-Length: 5\r\n", "hello")),
        (
            "an upgrade to h2c",
            raw!(
                "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n"
            ),
        ),
        (
            "an upgrade with a body",
            raw!(
                "POST / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 35\r\n\r\nGET /hidden HTTP/1.1\r\nHost: a\r\n\r\n\r\n"
            ),
        ),
        (
            "a connection option that is framing",
            raw!(
                "POST / HTTP/1.1\r\nHost: a\r\nConnection: Content-Length\r\nContent-Length: 35\r\n\r\nGET /hidden HTTP/1.1\r\nHost: a\r\n\r\n\r\n"
            ),
        ),
        (
            "a connection option that is the coding",
            raw!(
                "POST / HTTP/1.1\r\nHost: a\r\nConnection: Transfer-Encoding\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
            ),
        ),
        // Length and coding.
        ("length and coding", post!("Content-Length: 6\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\nG")),
        (
            "coding and length",
            post!(
                "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n",
                "5c\r\nGET /hidden HTTP/1.1\r\nHost: a\r\nContent-Length: 15\r\n\r\nx=1\r\n0\r\n\r\n"
            ),
        ),
        (
            "two codings",
            post!(
                "Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n",
                "0\r\n\r\nGET /hidden HTTP/1.1\r\nHost: a\r\n\r\n"
            ),
        ),
        ("chunked twice", post!("Transfer-Encoding: chunked, chunked\r\n", "0\r\n\r\n")),
        ("gzip, chunked", post!("Transfer-Encoding: gzip, chunked\r\n", "0\r\n\r\n")),
        ("chunked, identity", post!("Transfer-Encoding: chunked, identity\r\n", "0\r\n\r\n")),
        ("identity", post!("Transfer-Encoding: identity\r\nContent-Length: 5\r\n", "hello")),
        ("an unknown coding", post!("Transfer-Encoding: xchunked\r\n", "0\r\n\r\n")),
        ("an empty coding", post!("Transfer-Encoding:\r\nContent-Length: 5\r\n", "hello")),
        ("a quoted coding", post!("Transfer-Encoding: \"chunked\"\r\n", "0\r\n\r\n")),
        (
            "a blank before the coding's colon",
            post!(
                "Transfer-Encoding : chunked\r\nContent-Length: 35\r\n",
                "0\r\n\r\nGET /hidden HTTP/1.1\r\nHost: a\r\n\r\n"
            ),
        ),
        ("a tab after the coding's colon", post!("Transfer-Encoding:\tchunked\r\n", "5\r\nhello\r\n0\r\n\r\n")),
        (
            "a vertical tab in the coding",
            post!(
                "Transfer-Encoding: \x0bchunked\r\nContent-Length: 35\r\n",
                "0\r\n\r\nGET /hidden HTTP/1.1\r\nHost: a\r\n\r\n"
            ),
        ),
        (
            "a folded coding",
            post!(
                "Transfer-Encoding:\r\n chunked\r\nContent-Length: 35\r\n",
                "0\r\n\r\nGET /hidden HTTP/1.1\r\nHost: a\r\n\r\n"
            ),
        ),
        (
            "a coding folded into another field",
            post!("X: y\r\n Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", "hello"),
        ),
        ("a coding after a bare LF", post!("X: y\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n", "hello")),
        ("a coding after a bare CR", post!("X: y\rTransfer-Encoding: chunked\r\nContent-Length: 5\r\n", "hello")),
        ("a coding with an underscore", post!("Transfer_Encoding: chunked\r\nContent-Length: 5\r\n", "hello")),
        (
            "HTTP/1.0 with a coding",
            raw!("POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n"),
        ),
        ("two lengths", post!("Content-Length: 5\r\nContent-Length: 6\r\n", "helloG")),
        ("the same length twice", post!("Content-Length: 5\r\nContent-Length: 5\r\n", "hello")),
        ("a list of lengths", post!("Content-Length: 5, 5\r\n", "hello")),
        ("a signed length", post!("Content-Length: +5\r\n", "hello")),
        ("a negative length", post!("Content-Length: -5\r\n", "hello")),
        ("a hexadecimal length", post!("Content-Length: 0x5\r\n", "hello")),
        ("a length with a blank", post!("Content-Length: 5 0\r\n", "hello")),
        ("a length with zeros", post!("Content-Length: 0005\r\n", "hello")),
        ("an empty length", post!("Content-Length:\r\n", "hello")),
        ("a length beyond 64 bits", post!("Content-Length: 18446744073709551621\r\n", "hello")),
        (
            "a length of a GET",
            raw!("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 35\r\n\r\nGET /hidden HTTP/1.1\r\nHost: a\r\n\r\n\r\n"),
        ),
        (
            "chunks of a GET",
            raw!("GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
        ),
        // Chunks.
        ("bare LF after a chunk's size", chunked!("5\nhello\r\n0\r\n\r\n")),
        ("bare LF after a chunk", chunked!("5\r\nhello\n0\r\n\r\n")),
        ("bare CR after a chunk's size", chunked!("5\rhello\r\n0\r\n\r\n")),
        ("too much in a chunk", chunked!("5\r\nhelloX\r\n0\r\n\r\n")),
        ("a blank before a chunk's size", chunked!(" 5\r\nhello\r\n0\r\n\r\n")),
        ("a blank after a chunk's size", chunked!("5 \r\nhello\r\n0\r\n\r\n")),
        ("0x before a chunk's size", chunked!("0x5\r\nhello\r\n0\r\n\r\n")),
        ("a negative chunk's size", chunked!("-5\r\nhello\r\n0\r\n\r\n")),
        ("a chunk's size beyond 64 bits", chunked!("10000000000000005\r\nhello\r\n0\r\n\r\n")),
        ("bare LF in a chunk extension", chunked!("5;a\nb\r\nhello\r\n0\r\n\r\n")),
        ("bare CR in a chunk extension", chunked!("5;a\rb\r\nhello\r\n0\r\n\r\n")),
        ("an underscore in a chunk's size", chunked!("0_5\r\nhello\r\n0\r\n\r\n")),
        ("an empty chunk's size", chunked!("\r\nhello\r\n0\r\n\r\n")),
        ("a blank in a trailer's name", chunked!("5\r\nhello\r\n0\r\nX : y\r\n\r\n")),
        ("bare LF in the trailers", chunked!("5\r\nhello\r\n0\r\nX: y\nZ: w\r\n\r\n")),
        // Lines and names.
        ("bare LFs", raw!("GET / HTTP/1.1\nHost: a\n\n")),
        ("a folded line", raw!("GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n z\r\n\r\n")),
        ("a folded first line", raw!("GET / HTTP/1.1\r\n X: y\r\nHost: a\r\n\r\n")),
        ("a field without a colon", raw!("GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n")),
        ("an empty name", raw!("GET / HTTP/1.1\r\nHost: a\r\n: y\r\n\r\n")),
        ("NUL in a name", raw!("GET / HTTP/1.1\r\nHost: a\r\nX\0: y\r\n\r\n")),
        ("NUL in a value", raw!("GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n")),
        ("two blanks in the first line", raw!("GET  / HTTP/1.1\r\nHost: a\r\n\r\n")),
        ("a blank in the target", raw!("GET /a b HTTP/1.1\r\nHost: a\r\n\r\n")),
        ("a tab in the first line", raw!("GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n")),
        ("HTTP/1.2", raw!("GET / HTTP/1.2\r\nHost: a\r\n\r\n")),
        ("HTTP/0.9", raw!("GET /\r\n\r\n")),
        ("HTTP/1.1 with a tail", raw!("GET / HTTP/1.1 x\r\nHost: a\r\n\r\n")),
        ("http/1.1", raw!("GET / http/1.1\r\nHost: a\r\n\r\n")),
        ("a lower-case method", raw!("get / HTTP/1.1\r\nHost: a\r\n\r\n")),
        ("no host", raw!("GET / HTTP/1.1\r\nX: y\r\n\r\n")),
        ("an empty host", raw!("GET / HTTP/1.1\r\nHost:\r\n\r\n")),
        ("two hosts", raw!("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n")),
        ("a list of hosts", raw!("GET / HTTP/1.1\r\nHost: a, b\r\n\r\n")),
        ("a host with a path", raw!("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n")),
        ("a host with a user", raw!("GET / HTTP/1.1\r\nHost: u@a\r\n\r\n")),
        ("a fragment in the target", raw!("GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n")),
        ("CONNECT", raw!("CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n")),
        // HTTP/2 that becomes HTTP/1.1 on its way.
        ("h2", h2(&[], None)),
        ("h2 with a body", h2(&[], Some("hello"))),
        ("h2 with a length", h2(&[("content-length", "5")], Some("hello"))),
        ("h2 with too long a length", h2(&[("content-length", "50")], Some("hello"))),
        ("h2 with too short a length", h2(&[("content-length", "0")], Some("GET /hidden HTTP/1.1\r\nHost: a\r\n\r\n"))),
        ("h2 with two lengths", h2(&[("content-length", "5"), ("content-length", "0")], Some("hello"))),
        (
            "h2 with a coding",
            h2(&[("transfer-encoding", "chunked")], Some("0\r\n\r\nGET /hidden HTTP/1.1\r\nHost: a\r\n\r\n")),
        ),
        ("h2 with a connection", h2(&[("connection", "transfer-encoding")], None)),
        ("h2 with an upgrade", h2(&[("upgrade", "websocket")], None)),
        ("h2 with TE", h2(&[("te", "chunked")], None)),
        ("h2 with lines in a value", h2(&[("x", &lines)], None)),
        ("h2 with LF in a value", h2(&[("x", "y\ntransfer-encoding: chunked")], Some("hello"))),
        ("h2 with NUL in a value", h2(&[("x", "y\0z")], None)),
        ("h2 with lines in a name", h2(&[("x: y\r\ntransfer-encoding", "chunked")], Some("hello"))),
        ("h2 with a colon in a name", h2(&[("content-length:", "0")], Some("hello"))),
        ("h2 with a capital letter", h2(&[("X", "y")], None)),
        ("h2 with a blank in a name", h2(&[("x y", "z")], None)),
        (
            "h2 with lines in the path",
            h2(&[(":path", "/ HTTP/1.1\r\nHost: a\r\n\r\nGET /hidden HTTP/1.1\r\nX: y")], None),
        ),
        ("h2 with a blank in the path", h2(&[(":path", "/a HTTP/1.1")], None)),
        ("h2 with an empty path", h2(&[(":path", "")], None)),
        ("h2 with a path without a slash", h2(&[(":path", "x")], None)),
        ("h2 with an absolute path", h2(&[(":path", "http://b/hidden")], None)),
        ("h2 with two paths", h2(&[(":path", "/"), (":path", "/b")], None)),
        ("h2 with lines in the method", h2(&[(":method", "GET / HTTP/1.1\r\nX: y\r\n\r\nGET")], None)),
        ("h2 with a blank in the method", h2(&[(":method", "GET /b")], None)),
        ("h2 with lines in the authority", h2(&[(":authority", &smuggled)], None)),
        ("h2 with a blank in the authority", h2(&[(":authority", "a b")], None)),
        ("h2 with lines in the scheme", h2(&[(":scheme", "http\r\nx: y")], None)),
        ("h2 with another host", h2(&[("host", "b")], None)),
        ("h2 with an unknown pseudo field", h2(&[(":other", "x")], None)),
    ]
}
