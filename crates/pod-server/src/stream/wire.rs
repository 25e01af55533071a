//! The writing half of a connection: frames from several tasks, one after the other.
//!
//! Payload waits for its turn in a short queue, which is the back-pressure; answers that must not wait behind payload
//! (pongs, stream replies) have a queue of their own and go first. So the side that reads is never stopped by the side
//! that writes.

use std::io;
use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;

/// Payload frames waiting, of at most [`CHUNK`] bytes and a header each.
const PAYLOAD: usize = 4;
/// Control frames waiting.
const CONTROL: usize = 64;
/// Most payload bytes of one frame.
pub(super) const CHUNK: usize = 16 * 1024;

/// The connection is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Gone;

#[derive(Clone)]
pub(super) struct Sender {
    control: mpsc::Sender<Bytes>,
    payload: mpsc::Sender<Bytes>,
}

pub(super) struct Queue {
    control: mpsc::Receiver<Bytes>,
    payload: mpsc::Receiver<Bytes>,
}

pub(super) fn queue() -> (Sender, Queue) {
    let (control, control_end) = mpsc::channel(CONTROL);
    let (payload, payload_end) = mpsc::channel(PAYLOAD);
    (Sender { control, payload }, Queue { control: control_end, payload: payload_end })
}

impl Sender {
    /// In order with all other payload; waits while the client does not read.
    pub(super) async fn payload(&self, frame: Bytes) -> Result<(), Gone> {
        self.payload.send(frame).await.map_err(|_| Gone)
    }

    /// Before the payload; waits only for a client that asks and never reads.
    pub(super) async fn control(&self, frame: Bytes) -> Result<(), Gone> {
        self.control.send(frame).await.map_err(|_| Gone)
    }

    /// Before the payload, or not at all if too much is waiting: for pongs, of which only the last one counts.
    pub(super) fn control_or_never(&self, frame: Bytes) {
        let _ = self.control.try_send(frame);
    }
}

impl Queue {
    /// Writes until every sender is gone and everything is flushed.
    pub(super) async fn drain(mut self, io: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
        loop {
            // Either branch is cancel-safe: a frame is taken only when it is returned.
            let frame = tokio::select! {
                biased;
                Some(frame) = self.control.recv() => frame,
                Some(frame) = self.payload.recv() => frame,
                else => break,
            };
            io.write_all(&frame).await?;
            if self.control.is_empty() && self.payload.is_empty() {
                io.flush().await?;
            }
        }
        io.flush().await
    }
}

/// How long a client may take to close after it was told everything.
const LINGER: Duration = Duration::from_secs(10);

/// Runs a connection to its end: until the client is gone, or everything is told and the client has closed as well.
/// Closing first with its bytes unread would reset the connection, which could take back what is on its way to it.
///
/// `writing` drains the queue that `telling` fills; `listening` ends when the client does.
pub(super) async fn converse(
    writing: impl Future<Output = io::Result<()>>,
    telling: impl Future<Output = Result<(), Gone>>,
    listening: impl Future<Output = ()>,
) {
    let (mut writing, mut listening) = (pin!(writing), pin!(listening));
    tokio::select! {
        _ = &mut writing => return,
        () = &mut listening => return,
        _ = telling => {}
    }
    let closing = async {
        tokio::select! {
            () = &mut listening => {}
            written = &mut writing => {
                if written.is_ok() {
                    listening.await;
                }
            }
        }
    };
    let _ = tokio::time::timeout(LINGER, closing).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn control_overtakes_payload_and_payload_waits() {
        let (sender, queue) = queue();
        for number in 0..PAYLOAD as u8 {
            sender.payload(Bytes::from(vec![number])).await.unwrap();
        }
        let full = tokio::time::timeout(std::time::Duration::from_millis(20), sender.payload(Bytes::new())).await;
        assert!(full.is_err(), "payload is not queued without bound");
        sender.control(Bytes::from_static(b"!")).await.unwrap();
        drop(sender);
        let mut written = Vec::new();
        queue.drain(&mut written).await.unwrap();
        assert_eq!(written, [b'!', 0, 1, 2, 3]);
    }
}
