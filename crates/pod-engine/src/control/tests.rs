use super::*;
use crate::feed::Feed;

fn pod() -> Key {
    ("default".into(), "web".into())
}

fn on_one_thread<T>(paused: bool, future: impl Future<Output = T>) -> T {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().start_paused(paused).build().unwrap().block_on(future)
}

/// What the engine makes of these bytes, before its client closes or (`open`) just waits.
fn request_of(bytes: Vec<u8>, open: bool) -> Result<Option<Request>, String> {
    on_one_thread(true, async move {
        let (mut client, engine) = tokio::io::duplex(1 << 16);
        let writing = tokio::spawn(async move {
            let _ = client.write_all(&bytes).await;
            if open { Some(client) } else { None }
        });
        let request = read_request(&mut BufReader::new(engine)).await;
        drop(writing.await.unwrap());
        request
    })
}

#[test]
fn a_request_is_one_line() {
    let line = b"{\"Watch\":{\"pods\":[[\"default\",\"web\"]]}}\n".to_vec();
    let request = request_of(line, true).unwrap().unwrap();
    assert!(matches!(&request, Request::Watch { pods } if *pods == [pod()]));
    assert_eq!(request.pods(), BTreeSet::from([pod()]));
}

#[test]
fn nonsense_is_answered() {
    let refusal = request_of(b"GET / HTTP/1.1\r\n".to_vec(), true).unwrap_err();
    assert!(refusal.starts_with("the request is not understood"), "{refusal}");
}

#[test]
fn a_client_that_asks_nothing_is_no_request() {
    assert!(request_of(Vec::new(), false).unwrap().is_none());
    assert!(request_of(b"{\"Watch\":".to_vec(), false).unwrap().is_none());
}

#[test]
fn a_client_that_does_not_come_to_the_end_is_told_so() {
    let refusal = request_of(b"{\"Watch\":".to_vec(), true).unwrap_err();
    assert_eq!(refusal, "the request did not come within 10 s");
}

#[test]
fn an_endless_request_is_cut_off() {
    let refusal = request_of(vec![b' '; LONGEST_REQUEST as usize + (1 << 20)], true).unwrap_err();
    assert_eq!(refusal, "the request is longer than 16 MiB");
}

/// Runs a conversation about [`pod`] while `act` has the feed and the client's end.
fn conversing<T, F: Future<Output = T>>(act: impl FnOnce(Feed, UnixStream) -> F) -> T {
    on_one_thread(false, async {
        let (client, engine) = UnixStream::pair().unwrap();
        let feed = Feed::default();
        let subscription = feed.subscribe_client(BTreeSet::from([pod()]));
        let (read, write) = engine.into_split();
        let conversation = converse(read, Pen::new(write), subscription, vec![pod()], false);
        let (acted, ()) = tokio::join!(act(feed, client), conversation);
        acted
    })
}

fn trouble(feed: &Feed, text: &str) {
    feed.send("default", "web", News::Trouble(text.into()));
}

#[test]
fn a_client_hears_until_the_pod_ends() {
    let replies = conversing(|feed, client| async move {
        trouble(&feed, "hot");
        feed.send("default", "other", News::Removed);
        feed.send("default", "web", News::Finished { phase: "Succeeded".into(), exit_code: 0 });
        trouble(&feed, "late");
        let mut replies = Replies { lines: BufReader::new(client).lines() };
        let mut heard = Vec::new();
        while let Some(reply) = replies.next().await.unwrap() {
            heard.push(reply);
        }
        heard
    });
    assert!(
        matches!(&replies[..], [Reply::News(first), Reply::News(last)]
            if matches!(first.news, News::Trouble(_)) && matches!(last.news, News::Finished { .. })),
        "{replies:?}"
    );
}

#[test]
fn a_vanished_client_ends_its_conversation() {
    // Without anything to write to it: only its end of file tells.
    conversing(|feed, client| async move {
        drop(client);
        feed
    });
}

#[test]
fn a_client_that_does_not_read_is_let_go_with_whole_lines() {
    let lines = conversing(|feed, client| async move {
        let text = "x".repeat(10_000);
        // More than the socket and the backlog hold, whoever is faster.
        for _ in 0..100 {
            for _ in 0..50 {
                trouble(&feed, &text);
            }
            tokio::task::yield_now().await;
        }
        let mut lines = Vec::new();
        let mut reader = BufReader::new(client).lines();
        while let Some(line) = reader.next_line().await.unwrap() {
            lines.push(line);
        }
        lines
    });
    let replies: Vec<Reply> = lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(replies.len() < 3000, "{}", replies.len());
    assert!(matches!(replies.last(), Some(Reply::End)));
    let [.., Reply::Refused { name, message, .. }, Reply::End] = &replies[..] else { panic!("{:?}", replies.last()) };
    assert!(name == "web" && message.contains("does not read"), "{message}");
}

#[test]
fn a_socket_may_lie_deep_and_is_roots_alone() {
    use std::os::unix::fs::PermissionsExt;
    on_one_thread(false, async {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("d".repeat(120)).join("e".repeat(120));
        std::fs::create_dir_all(&deep).unwrap();
        let socket = deep.join("engine.sock");
        assert!(!answers(&socket));
        let listener = bind(&socket).unwrap();
        assert!(answers(&socket));
        assert_eq!(std::fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(bind(&socket).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        let request = Request::Watch { pods: vec![pod()] };
        let asking = ask(&socket, &request);
        let serving = async {
            // The looks above were connections too.
            loop {
                let stream = listener.accept().await.unwrap().0;
                if let Some(request) = read_request(&mut BufReader::new(stream)).await.unwrap() {
                    break request;
                }
            }
        };
        let (replies, heard) = tokio::join!(asking, serving);
        assert!(replies.is_ok() && matches!(heard, Request::Watch { .. }));
        drop(listener);
        assert!(!answers(&socket));
        bind(&socket).expect("a dead engine's socket is replaced");
    });
}
