//! How long either side of an HTTP/2 exchange may be silent, and how long it may last.

use crate::harness::{Does, Upstream, World, simple_spec};
use crate::windows::Backend;
use crate::wire::{Came, DATA, END, HEADERS, WHOLE, Wire, frame, get, request};

const CALL: [(&str, &str); 2] = [("te", "trailers"), ("content-type", "application/grpc+proto")];

/// A call whose only message is empty, and whole.
fn call(stream: u32) -> Vec<u8> {
    let head = frame(HEADERS, WHOLE, stream, &request("POST", "/s/Watch", &CALL));
    [head, frame(DATA, END, stream, &[0; 5])].concat()
}

#[test]
fn a_body_comes_in_time_whatever_its_trailers() {
    let upstream = Upstream::start(|_| panic!("no request is ever whole"));
    let world = World::with(&format!("timeouts: {{body: 1s}}\n{}", simple_spec(&[upstream.address], "")));
    let mut client = Wire::connect(world.address(), &[]);
    client.send(&frame(HEADERS, WHOLE, 1, &request("POST", "/", &[("te", "trailers")])));
    client.until("a refusal", |came| came.status() == Some(408));
}

#[test]
fn a_request_has_its_time_however_far_its_answer_is() {
    let begun = "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nx";
    let upstream = Upstream::start(move |_| Does::Says(begun.to_owned()));
    let spec =
        simple_spec(&[upstream.address], "").replace("- name: all\n", "- name: all\n  timeouts: {request: 1s}\n");
    let world = World::with(&format!("timeouts: {{body: 10m}}\n{spec}"));
    let mut client = Wire::connect(world.address(), &[]);
    client.send(&get(1));
    client.until("an answer", |came| came.status() == Some(200));
    client.until("its end", |came| matches!(came, Came::Reset(1, _)));
}

#[test]
fn a_call_may_be_silent_and_others_may_not() {
    let backend = Backend::new();
    let world = backend.world("timeouts: {body: 1s}\n");
    let mut client = Wire::connect(world.address(), &[]);
    client.send(&call(1));
    let mut side = backend.accept();
    let watch = side.asked();
    side.answer(watch, &[("content-type", "application/grpc")]);
    for stream in [3, 5, 7] {
        client.send(&get(stream));
        let other = side.asked();
        side.answer(other, &[]);
        client.until("the end of others", |came| {
            assert!(!matches!(came, Came::Reset(1, _)), "the call is cut");
            matches!(came, Came::Reset(id, _) if *id == stream)
        });
    }
    side.data(watch, 6, false);
    client.until("a message", |came| *came == Came::Data(1, vec![b'x'; 6], false));
}

#[test]
fn a_call_is_not_silent_for_ever() {
    let backend = Backend::new();
    let world = backend.world("timeouts: {body: 10m, tunnel: 1s}\n");
    let mut client = Wire::connect(world.address(), &[]);
    client.send(&call(1));
    let mut side = backend.accept();
    let watch = side.asked();
    side.answer(watch, &[]);
    client.until("its end", |came| matches!(came, Came::Reset(1, _)));
    // One that has not said all it wants to say.
    client.send(&frame(HEADERS, WHOLE, 3, &request("POST", "/s/Chat", &CALL)));
    client.until("a refusal", |came| came.status() == Some(408));
}
