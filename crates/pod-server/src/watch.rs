//! Watches: a stream of changes, one JSON object a line, written only as fast as the client reads.
//!
//! A watch holds a place in the store's history and at most one unsent piece. A client that is too slow for the history
//! gets 410 and lists again.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{FutureExt, stream};
use http::Response;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue, UPGRADE};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use pod_api::failure::Failure;
use pod_api::resource::Resource;
use pod_store::{ChangeKind, Event, Expired, Object, Watch};
use serde_json::{Value, json};
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::{Instant, Sleep};

use crate::body::Body;
use crate::list;
use crate::negotiate::Wanted;
use crate::object;
use crate::render;
use crate::selector::Selector;
use crate::server::{Ask, Server};
use crate::table::{self, Include};

/// Between bookmarks.
const BOOKMARKS: Duration = Duration::from_secs(60);
/// A watch without a timeout lasts this long and up to as long again, so that not all clients come back at once.
const SHORTEST: Duration = Duration::from_secs(1800);
/// Whoever asks for more gets this: a clock cannot be told any number.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);
/// Bytes gathered before a piece is sent.
const PIECE: usize = 16 << 10;

struct Feed {
    server: Server,
    resource: &'static Resource,
    selector: Selector,
    wanted: Wanted,
    include: Include,
    type_members: String,
    /// The objects that were there at the beginning.
    initial: std::vec::IntoIter<Arc<Object>>,
    /// Ends the initial ones with a bookmark of this revision, if that was asked for.
    initial_end: Option<u64>,
    changes: Result<Watch, Expired>,
    bookmarks: bool,
    columns_sent: bool,
    end: Instant,
    next_bookmark: Instant,
    /// At the earlier one of these two.
    timer: Pin<Box<Sleep>>,
    closing: watch::Receiver<bool>,
    ended: bool,
    _place: OwnedSemaphorePermit,
}

pub(crate) fn serve(server: &Server, ask: &Ask) -> Result<Response<Body>, Failure> {
    let (target, query) = (&ask.target, &ask.query);
    if ask.headers.contains_key(UPGRADE) {
        return Err(Failure::bad_request("a watch is not served over WebSocket here; ask for it without an upgrade"));
    }
    list::check_options(query, true)?;
    let selector = Selector::parse(target.resource, query)?;
    let include = Include::parse(query)?;
    let bookmarks = query.flag("allowWatchBookmarks")?.unwrap_or(false);
    let streaming = query.flag("sendInitialEvents")?;
    let since = list::revision(query)?;
    let timeout = match query.number("timeoutSeconds")?.map(u64::try_from) {
        Some(Ok(seconds)) if seconds > 0 => Duration::from_secs(seconds).min(LONGEST),
        _ => SHORTEST + SHORTEST * (server.0.store.revision().wrapping_mul(37) % 100) as u32 / 100,
    };
    let place = Arc::clone(&server.0.watches).try_acquire_owned().map_err(|_| Failure {
        details: json!({"retryAfterSeconds": 1}),
        ..Failure::new(429, "TooManyRequests", "too many watches are open, please try again later")
    })?;

    // All that is there comes first if the client names no revision, or asks for it.
    let from_now = streaming == Some(false) && since.is_none();
    let with_initial = streaming.unwrap_or(since.is_none());
    if let (Some(asked), true) = (since, with_initial) {
        list::refuse_future(server, asked)?;
    }
    let store = &server.0.store;
    let (resource, namespace) = (target.resource.stored_as, target.namespace.as_deref());
    let (initial, changes, revision) = if with_initial {
        let listed = store.list(resource, namespace);
        (listed.items, store.watch(resource, namespace, Some(listed.revision)), listed.revision)
    } else {
        (Vec::new(), store.watch(resource, namespace, if from_now { None } else { since }), 0)
    };
    let now = Instant::now();
    let feed = Feed {
        server: server.clone(),
        resource: target.resource,
        wanted: ask.wanted,
        include,
        type_members: render::type_members(target.resource),
        initial: initial.into_iter(),
        initial_end: (streaming == Some(true) && bookmarks).then_some(revision),
        changes,
        selector,
        bookmarks,
        columns_sent: false,
        end: now + timeout,
        next_bookmark: now + BOOKMARKS,
        timer: Box::pin(tokio::time::sleep_until(now + timeout.min(BOOKMARKS))),
        closing: server.closing(),
        ended: false,
        _place: place,
    };
    let pieces = stream::unfold(feed, |mut feed| async move {
        let piece = feed.next().await?;
        Some((Ok(Frame::data(piece)), feed))
    });
    let mut response = Response::new(StreamBody::new(pieces).boxed_unsync());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    Ok(response)
}

/// What a feed waits for.
enum Woken {
    Closing,
    Change(Result<Event, Expired>),
    Time,
}

impl Feed {
    /// The next lines; `None` at the end.
    async fn next(&mut self) -> Option<Bytes> {
        let mut out = Vec::new();
        self.append_initial(&mut out);
        while out.is_empty() {
            if self.ended {
                return None;
            }
            let changes = match &mut self.changes {
                Ok(changes) => changes,
                Err(expired) => {
                    let expired = *expired;
                    self.fail(&mut out, expired);
                    break;
                }
            };
            // All three are cancel-safe: an event is taken only by the branch that returns it.
            let woken = tokio::select! {
                biased;
                _ = self.closing.wait_for(|closing| *closing) => Woken::Closing,
                event = changes.next() => Woken::Change(event),
                () = self.timer.as_mut() => Woken::Time,
            };
            match woken {
                Woken::Closing => return None,
                Woken::Change(event) => self.take(&mut out, event),
                Woken::Time => self.tick(&mut out)?,
            }
        }
        // What has happened meanwhile goes with it.
        while out.len() < PIECE && !self.ended && self.initial.len() == 0 && self.initial_end.is_none() {
            let Ok(changes) = &mut self.changes else { break };
            let Some(event) = changes.next().now_or_never() else { break };
            self.take(&mut out, event);
        }
        Some(out.into())
    }

    fn append_initial(&mut self, out: &mut Vec<u8>) {
        while out.len() < PIECE {
            let Some(stored) = self.initial.next() else {
                if let Some(revision) = self.initial_end.take() {
                    self.bookmark(out, revision, true);
                }
                return;
            };
            if self.selector.matches(self.resource, &stored) {
                self.append(out, "ADDED", &stored);
            }
        }
    }

    fn take(&mut self, out: &mut Vec<u8>, event: Result<Event, Expired>) {
        match event {
            Ok(event) => self.append_event(out, &event),
            Err(expired) => self.fail(out, expired),
        }
    }

    /// A selector makes comings and goings of its own.
    fn append_event(&mut self, out: &mut Vec<u8>, event: &Event) {
        let matches = |stored: &Arc<Object>| self.selector.matches(self.resource, stored);
        if self.selector.is_empty() {
            let kind = match event.kind {
                ChangeKind::Added => "ADDED",
                ChangeKind::Modified => "MODIFIED",
                ChangeKind::Deleted => "DELETED",
            };
            return self.append(out, kind, &event.object);
        }
        let before = event.before.as_ref().is_some_and(matches);
        let after = event.kind != ChangeKind::Deleted && matches(&event.object);
        match (before, after, &event.before) {
            (true, true, _) => self.append(out, "MODIFIED", &event.object),
            (false, true, _) => self.append(out, "ADDED", &event.object),
            (true, false, _) if event.kind == ChangeKind::Deleted => self.append(out, "DELETED", &event.object),
            // It left the selection: the state in which it still belonged, with the revision of its leaving.
            (true, false, Some(last)) => {
                let mut value = object::served(self.resource, last);
                value["metadata"]["resourceVersion"] = event.object.revision.to_string().into();
                self.append_value(out, "DELETED", &value);
            }
            _ => {}
        }
    }

    fn append(&mut self, out: &mut Vec<u8>, kind: &str, stored: &Object) {
        if !matches!(self.wanted, Wanted::Json | Wanted::Yaml) {
            return self.append_value(out, kind, &object::served(self.resource, stored));
        }
        begin(out, kind);
        render::append(out, self.resource, stored, &self.type_members);
        out.extend_from_slice(b"}\n");
    }

    fn append_value(&mut self, out: &mut Vec<u8>, kind: &str, served: &Value) {
        let object = match self.wanted {
            Wanted::Json | Wanted::Yaml => served.to_string(),
            Wanted::Metadata(version) => object::partial(served, version).to_string(),
            Wanted::Table(version) => {
                let metadata = json!({"resourceVersion": object::text(served, "/metadata/resourceVersion")});
                let rows = vec![table::row(self.resource, served, self.server.now(), self.include, version)];
                if std::mem::replace(&mut self.columns_sent, true) {
                    table::bare(version, metadata, rows).to_string()
                } else {
                    table::whole(self.resource, version, metadata, rows).to_string()
                }
            }
        };
        begin(out, kind);
        out.extend_from_slice(object.as_bytes());
        out.extend_from_slice(b"}\n");
    }

    fn bookmark(&mut self, out: &mut Vec<u8>, revision: u64, initial_end: bool) {
        let mut value = json!({"metadata": {"resourceVersion": revision.to_string()}});
        if initial_end {
            value["metadata"]["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        object::set_type(self.resource, &mut value);
        self.append_value(out, "BOOKMARK", &value);
    }

    fn fail(&mut self, out: &mut Vec<u8>, expired: Expired) {
        begin(out, "ERROR");
        out.extend_from_slice(Failure::expired(expired.to_string()).to_json().to_string().as_bytes());
        out.extend_from_slice(b"}\n");
        self.ended = true;
    }

    /// `None` when the time is up.
    fn tick(&mut self, out: &mut Vec<u8>) -> Option<()> {
        let now = Instant::now();
        if now >= self.end {
            self.ended = true;
            return None;
        }
        if now >= self.next_bookmark {
            self.next_bookmark = now + BOOKMARKS;
            if let (true, Ok(changes)) = (self.bookmarks, &self.changes) {
                let revision = changes.revision();
                self.bookmark(out, revision, false);
            }
        }
        self.timer.as_mut().reset(self.end.min(self.next_bookmark));
        Some(())
    }
}

fn begin(out: &mut Vec<u8>, kind: &str) {
    out.extend_from_slice(br#"{"type":""#);
    out.extend_from_slice(kind.as_bytes());
    out.extend_from_slice(br#"","object":"#);
}
