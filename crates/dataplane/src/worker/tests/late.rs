//! A request's time is over while it waits for something else than a socket, and its client takes no payload: the exchange
//! is answered but not over. What it has waited for must not happen any more.

use super::*;
use crate::backend::Limits;
use crate::retry::Retry;

const REQUEST_TIMEOUT: u64 = 10 * SECOND;

/// SETTINGS_INITIAL_WINDOW_SIZE of a client: how much payload of each stream it takes.
fn set_window(client: &mut Client, size: u32) {
    let out = &mut client.h2.as_mut().unwrap().out;
    frame::begin(6, frame::SETTINGS, 0, 0, out);
    out.extend_from_slice(&[0, 4]);
    out.extend_from_slice(&size.to_be_bytes());
}

/// A client of HTTP/2 that takes no payload, with as many requests.
fn ask(world: &mut World, requests: u32) -> Client {
    let mut client = Client::new(&world.directory.join("in"), 0, &[], true);
    set_window(&mut client, 0);
    let session = client.h2.as_mut().unwrap();
    for number in 0..requests {
        session.request(number, b"GET /0/x HTTP/1.1\r\nHost: h\r\n\r\n", false, true);
    }
    client.write(usize::MAX);
    world.turns();
    client
}

/// Lets the time of all requests pass, then takes their answers.
fn answers(world: &mut World, client: &mut Client) -> Vec<(u16, bool)> {
    world.wait(REQUEST_TIMEOUT + SECOND);
    while client.read(65_536) {}
    set_window(client, 65_535);
    client.write(usize::MAX);
    world.turns();
    while client.read(65_536) {}
    client.answers().into_values().map(|came| (came.status, came.whole)).collect()
}

#[test]
fn a_try_that_is_due_then_is_not_made() {
    let statuses = Retry::bit(503);
    // Practically never before the request's time is over.
    let retry = Retry { times: 2, statuses, backoff: u64::MAX / 4, backoff_most: u64::MAX / 4, ..Retry::default() };
    let change = |route: &mut Route| (route.retry, route.request_timeout) = (retry, REQUEST_TIMEOUT);
    let mut world = World::with(&[], &Layout { change: &change, ..Layout::simple(false) });
    let mut client = ask(&mut world, 1);
    let (mut app, _) = world.apps[0].accept().unwrap();
    app.write_all(b"HTTP/1.1 503 X\r\nContent-Length: 0\r\n\r\n").unwrap();
    world.turns();
    assert_eq!(answers(&mut world, &mut client), [(504, true)]);
    let mut asked = Vec::new();
    app.set_nonblocking(true).unwrap();
    let _ = app.read_to_end(&mut asked);
    assert_eq!(asked.windows(4).filter(|four| four == b"GET ").count(), 1);
    assert!(world.apps[0].accept().is_err());
}

#[test]
fn who_waits_for_room_then_does_not_get_it() {
    let limits = Limits { endpoint_requests: 1, pending: 5, pending_timeout: 1000 * SECOND, ..Limits::default() };
    let settings = backend::Settings { limits, ..backend::Settings::default() };
    let change = |route: &mut Route| route.request_timeout = REQUEST_TIMEOUT;
    let mut world = World::with(&[], &Layout { settings, change: &change, ..Layout::simple(false) });
    let mut client = ask(&mut world, 2);
    let _app = world.apps[0].accept().unwrap();
    assert_eq!(answers(&mut world, &mut client), [(504, true), (504, true)]);
    assert!(world.apps[0].accept().is_err());
}
