//! Changes as they come: one JSON value per line, until the server ends the stream.

use bytes::{Buf as _, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use serde_json::Value;

use crate::client::{Call, Client};
use crate::failure::{CallError, Status};

/// A change of one object.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// `ADDED`, `MODIFIED`, `DELETED`, `BOOKMARK`.
    pub kind: String,
    pub object: Value,
}

/// A stream of them.
#[derive(Debug)]
pub struct Watch {
    body: Incoming,
    buffer: BytesMut,
    /// Up to here there is no end of a line.
    searched: usize,
    server: String,
}

impl Watch {
    /// `call`'s path must ask for a watch.
    ///
    /// # Errors
    /// No server, or a refusal.
    pub async fn open(client: &Client, call: Call) -> Result<Watch, CallError> {
        let response = client.stream(call).await?;
        let server = client.config().server.clone();
        Ok(Watch { body: response.into_body(), buffer: BytesMut::new(), searched: 0, server })
    }

    /// The next change; `None` when the server has ended the stream. Cancel-safe: what was read stays in the buffer.
    ///
    /// # Errors
    /// A broken connection, a line that is no event, or the `ERROR` event (410 `Expired`: list again).
    pub async fn next(&mut self) -> Result<Option<Event>, CallError> {
        loop {
            if let Some(offset) = self.buffer[self.searched..].iter().position(|byte| *byte == b'\n') {
                let line = self.buffer.split_to(self.searched + offset);
                self.buffer.advance(1);
                self.searched = 0;
                if line.iter().all(u8::is_ascii_whitespace) {
                    continue;
                }
                return parse(&line).map(Some);
            }
            self.searched = self.buffer.len();
            match self.body.frame().await {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
                Some(Err(error)) => {
                    return Err(CallError::Broken { server: self.server.clone(), source: Box::new(error) });
                }
                None => return Ok(None),
            }
        }
    }
}

fn parse(line: &[u8]) -> Result<Event, CallError> {
    let unreadable = || CallError::Answer("the server's watch is no stream of JSON events".to_owned());
    let mut value: Value = serde_json::from_slice(line).map_err(|_| unreadable())?;
    let object = value.get_mut("object").map(Value::take).unwrap_or_default();
    match value["type"].as_str() {
        Some("ERROR") => Err(CallError::Refused(Box::new(Status::from(&object)))),
        Some(kind) => Ok(Event { kind: kind.to_owned(), object }),
        None => Err(unreadable()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_come_as_events() {
        let event = parse(br#"{"type":"ADDED","object":{"kind":"Pod"}}"#).unwrap();
        assert_eq!((event.kind.as_str(), &event.object["kind"]), ("ADDED", &Value::from("Pod")));
        let error = parse(br#"{"type":"ERROR","object":{"reason":"Expired","code":410,"message":"too old"}}"#);
        assert!(error.unwrap_err().is("Expired"));
        assert!(parse(b"[]").is_err());
    }
}
