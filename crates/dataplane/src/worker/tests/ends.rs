//! How one side ends before the other has, and what is said of it.

use super::*;

#[test]
fn an_answer_before_the_end_of_the_request_says_that_the_connection_ends() {
    const ANSWER: &[u8] = b"HTTP/1.1 401 No\r\nContent-Length: 2\r\n\r\nno";
    for (body, closes) in [("", true), ("body", false)] {
        let mut world = World::new(&[], false);
        let mut hand = Hand::new(&world);
        let head = "PUT /0 HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n";
        hand.0.write_all(format!("{head}{body}").as_bytes()).unwrap();
        (0..4).for_each(|_| world.turn());
        let (mut app, _) = world.apps[0].accept().unwrap();
        app.write_all(ANSWER).unwrap();
        (0..4).for_each(|_| world.turn());
        let mut got = Vec::new();
        let _ = hand.0.read_to_end(&mut got);
        let text = String::from_utf8(got).unwrap();
        assert!(text.starts_with("HTTP/1.1 401 ") && text.ends_with("\r\n\r\nno"), "{text}");
        assert_eq!(text.contains("\r\nConnection: close\r\n"), closes, "{text}");
    }
}
