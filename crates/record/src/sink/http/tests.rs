use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::mpsc;
use std::thread;

use super::*;
use crate::batch::{Flags, Record, Severity};
use crate::sink::s3::Credentials;

/// Answers each connection's requests with what `answers` says, in order, and passes heads and bodies on.
fn receiver(answers: Vec<&'static str>) -> (SocketAddr, mpsc::Receiver<(String, Vec<u8>)>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, received) = mpsc::channel();
    thread::spawn(move || {
        let mut answers = answers.into_iter().peekable();
        while answers.peek().is_some() {
            let Ok((mut stream, _)) = listener.accept() else { return };
            let mut bytes = Vec::new();
            let mut chunk = [0; 4096];
            while let Ok(length @ 1..) = stream.read(&mut chunk) {
                bytes.extend_from_slice(&chunk[..length]);
                let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
                let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
                let length = head.split("content-length: ").nth(1).and_then(|rest| rest.lines().next());
                let length: usize = length.unwrap().parse().unwrap();
                if bytes.len() < end + 4 + length {
                    continue;
                }
                sender.send((head, bytes[end + 4..].to_vec())).unwrap();
                bytes.clear();
                let Some(answer) = answers.next() else { return };
                stream.write_all(answer.as_bytes()).unwrap();
                if answer.is_empty() {
                    break;
                }
            }
        }
    });
    (address, received)
}

fn sink(address: SocketAddr, change: impl FnOnce(&mut HttpOptions)) -> HttpSink {
    let mut options = HttpOptions {
        url: format!("http://{address}/in?x=1").parse().unwrap(),
        protocol: Protocol::Json(Encoding::NdJson),
        compression: Compression::None,
        headers: Vec::new(),
        authorization: Authorization::None,
        timeout: Duration::from_secs(5),
    };
    change(&mut options);
    HttpSink::new(options, None).unwrap()
}

fn batch() -> Arc<Batch> {
    let mut batch = Batch::new(Arc::default(), 0);
    batch.push(&Record { time: 0, flags: Flags(0), severity: Severity::Unknown, body: b"hello", fields: b"" });
    Arc::new(batch)
}

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

#[test]
fn requests_carry_what_was_asked_for() {
    let (address, received) = receiver(vec![OK]);
    let mut sink = sink(address, |options| {
        options.compression = Compression::Gzip;
        options.authorization = Authorization::Basic("u".to_owned(), Secret::Value("p".to_owned()));
        options.headers.push((HeaderName::from_static("x-scope-orgid"), Secret::Value("t".to_owned())));
    });
    sink.deliver(&[batch()]).unwrap();
    let (head, body) = received.recv().unwrap();
    for expected in ["post /in?x=1 http/1.1", "authorization: basic dtpw", "x-scope-orgid: t", "content-encoding: gzip"]
    {
        assert!(head.contains(expected), "{head}");
    }
    let mut text = String::new();
    flate2::read::GzDecoder::new(&body[..]).read_to_string(&mut text).unwrap();
    assert!(text.contains("\"message\":\"hello\""), "{text}");
}

#[test]
fn answers_decide_what_happens_next() {
    let busy = "HTTP/1.1 429 Too Many\r\nRetry-After: 7\r\nContent-Length: 4\r\n\r\nslow";
    let large = "HTTP/1.1 413 Large\r\nContent-Length: 0\r\n\r\n";
    let bad = "HTTP/1.1 400 Bad\r\nContent-Length: 0\r\n\r\n";
    let (address, _received) = receiver(vec![busy, large, bad, OK]);
    let mut sink = sink(address, |_| {});
    let failure = sink.deliver(&[batch()]).unwrap_err();
    let Failure::Retry(reason, Some(after)) = failure else { panic!("{failure:?}") };
    assert!(reason.ends_with("answered 429 Too Many Requests: slow"), "{reason}");
    assert_eq!(after, Duration::from_secs(7));
    assert!(matches!(sink.deliver(&[batch()]), Err(Failure::TooLarge(_))));
    assert!(matches!(sink.deliver(&[batch()]), Err(Failure::Refused(_))));
    sink.deliver(&[batch()]).unwrap();
}

#[test]
fn a_connection_closed_while_idle_is_replaced_at_once() {
    // The second request arrives at a connection that dies without an answer.
    let (address, received) = receiver(vec![OK, "", OK]);
    let mut sink = sink(address, |_| {});
    sink.deliver(&[batch()]).unwrap();
    sink.deliver(&[batch()]).unwrap();
    assert_eq!(received.iter().take(3).count(), 3);
}

#[test]
fn nobody_there_is_a_reason_to_try_again() {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    assert!(matches!(sink(address, |_| {}).deliver(&[batch()]), Err(Failure::Retry(..))));
}

#[test]
fn items_of_a_bulk_request_are_judged_one_by_one() {
    let items = r#"{"took":1,"errors":true,"items":[{"create":{"status":201}},{"create":{"status":429,"error":{"type":"busy"}}},{"create":{"status":400,"error":{"type":"mapper_parsing_exception","reason":"no date"}}},{"create":{"status":409}},{"create":{"status":503}}]}"#;
    let answer = |body: &str| -> &'static str {
        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).leak()
    };
    let (address, received) = receiver(vec![answer(r#"{"errors":false,"items":[]}"#), answer(items), answer("<html>")]);
    let action = b"{\"create\":{\"_index\":\"logs\"}}\n".to_vec();
    let mut sink = sink(address, |options| options.protocol = Protocol::Bulk { action });
    sink.deliver(&[batch()]).unwrap();
    let (head, body) = received.recv().unwrap();
    assert!(head.contains("content-type: application/x-ndjson"), "{head}");
    let body = String::from_utf8(body).unwrap();
    assert!(body.starts_with("{\"create\":{\"_index\":\"logs\"}}\n{\"time\":") && body.ends_with("Z\"}\n"), "{body}");
    let failure = sink.deliver(&[batch()]).unwrap_err();
    let Failure::Items { again, refused, reason } = failure else { panic!("{failure:?}") };
    assert_eq!((again, refused), (vec![1, 4], vec![2]));
    assert!(reason.ends_with("answered an item with 400: mapper_parsing_exception no date"), "{reason}");
    assert!(matches!(sink.deliver(&[batch()]), Err(Failure::Retry(..))), "not a bulk answer");
}

#[test]
fn nothing_is_sent_in_the_clear_to_an_https_receiver() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let mut sink = sink(address, |options| options.url = format!("https://{address}/in").parse().unwrap());
    let failure = sink.deliver(&[batch()]).unwrap_err();
    assert!(matches!(&failure, Failure::Retry(text, _) if text.ends_with("TLS is not set up")), "{failure:?}");
    listener.set_nonblocking(true).unwrap();
    assert!(listener.accept().is_err(), "not even a connection");
}

#[test]
fn user_information_in_a_url_goes_nowhere() {
    let bad = "HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n";
    let (address, received) = receiver(vec![bad, bad]);
    let directory = tempfile::tempdir().unwrap();
    let key = directory.path().join("key");
    std::fs::write(&key, "K").unwrap();
    let bucket = Bucket {
        bucket: "b".to_owned(),
        region: "r".to_owned(),
        prefix: String::new(),
        agent: "a".to_owned(),
        suffix: ".ndjson",
        credentials: Credentials { key_file: Some(key.clone()), secret_file: Some(key.clone()), token_file: Some(key) },
    };
    // One after the other: the receiver reads from one connection at a time.
    for protocol in [Protocol::Json(Encoding::NdJson), Protocol::S3(Box::new(bucket))] {
        let mut sink = sink(address, |options| {
            options.url = format!("http://u:secret@{address}/in").parse().unwrap();
            options.protocol = protocol;
        });
        let failure = sink.deliver(&[batch()]).unwrap_err();
        let (head, _) = received.recv().unwrap();
        assert!(head.contains(&format!("host: {address}\r\n")), "{head}");
        let all = format!("{head}{failure:?}");
        assert!(!all.contains("secret"), "{all}");
    }
}
