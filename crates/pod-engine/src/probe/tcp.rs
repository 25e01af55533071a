//! `tcpSocket`: whoever accepts the connection is well.

use pod_plan::ProbeOutcome;
use tokio::time::Instant;

use super::dial::dial;

pub(super) async fn probe(host: &str, port: u16, deadline: Instant) -> ProbeOutcome {
    match dial(host, port, Some(deadline)).await {
        Ok(_) => ProbeOutcome::Success,
        Err(error) => ProbeOutcome::Failure(error.into_text()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::net::{TcpListener, TcpSocket};

    use super::*;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    #[tokio::test]
    async fn accepted_or_refused() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        assert_eq!(probe("127.0.0.1", port, soon()).await, ProbeOutcome::Success);
        assert_eq!(probe("localhost", port, soon()).await, ProbeOutcome::Success);
        drop(listener);
        let refused = format!("dial tcp 127.0.0.1:{port}: connect: connection refused");
        assert_eq!(probe("127.0.0.1", port, soon()).await, ProbeOutcome::Failure(refused));
        let refused = format!("dial tcp [::1]:{port}: connect: connection refused");
        assert_eq!(probe("::1", port, soon()).await, ProbeOutcome::Failure(refused));
    }

    #[tokio::test]
    async fn no_answer_in_time() {
        // A full backlog drops further connection attempts silently.
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(0).unwrap();
        let address = listener.local_addr().unwrap();
        let mut held = Vec::new();
        while let Ok(Ok(stream)) =
            tokio::time::timeout(Duration::from_millis(500), tokio::net::TcpStream::connect(address)).await
        {
            held.push(stream);
        }
        let text = format!("dial tcp {address}: i/o timeout");
        let deadline = Instant::now() + Duration::from_millis(50);
        assert_eq!(probe("127.0.0.1", address.port(), deadline).await, ProbeOutcome::Failure(text));
    }

    #[tokio::test]
    async fn a_name_nobody_has() {
        let text = "dial tcp: lookup no..such..host: no such host".to_owned();
        let deadline = Instant::now() + Duration::from_secs(20);
        assert_eq!(probe("no..such..host", 80, deadline).await, ProbeOutcome::Failure(text));
    }
}
