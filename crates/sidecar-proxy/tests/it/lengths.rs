//! Where an answer ends is said in every version, whichever the application has said it in.

use crate::windows::Backend;
use crate::wire::{END, HEADERS, WHOLE, block, frame};

#[test]
fn an_answer_that_is_a_head_alone_says_that_nothing_follows() {
    let backend = Backend::new();
    let world = backend.world("");
    let mut client = world.client();
    let mut app = None;
    for (method, status, lines, length) in [
        ("GET", "200", &[][..], Some("0")),
        ("GET", "404", &[("content-length", "0")], Some("0")),
        ("POST", "200", &[("grpc-status", "12")], Some("0")),
        ("GET", "204", &[], None),
        ("GET", "304", &[("content-length", "7")], Some("7")),
        ("HEAD", "200", &[], None),
        ("HEAD", "200", &[("content-length", "9")], Some("9")),
        ("GET", "200", &[], Some("0")),
    ] {
        client.send(format!("{method} / HTTP/1.1\r\nHost: h\r\n\r\n"));
        let app = app.get_or_insert_with(|| backend.accept());
        let stream = app.asked();
        let fields = [&[(":status", status)], lines].concat();
        app.send(&frame(HEADERS, WHOLE | END, stream, &block(&fields)));
        // The next answer is read where this one ends.
        let answer = client.answer_to(method);
        assert_eq!((answer.head.get(9..12), answer.field("content-length")), (Some(status), length), "{method}");
        assert_eq!(answer.head.to_ascii_lowercase().matches("content-length").count(), usize::from(length.is_some()));
        assert_eq!((answer.field("transfer-encoding"), answer.body.len()), (None, 0));
    }
}
