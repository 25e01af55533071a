//! Streams in and out of a pod: logs, exec, attach, port-forward.
//!
//! ```text
//! serve ─▶ container and options (refusals are ordinary answers, made before anything is upgraded)
//!   log ─────────────▶ a body read from the log files, or the same in WebSocket messages
//!   exec, attach ────▶ upgrade ─▶ remote:  WebSocket channels or SPDY streams ⇄ the session's descriptors
//!   portforward ─────▶ upgrade ─▶ forward: SPDY (bare or inside WebSocket) or WebSocket channels ⇄ connections
//! ```
//! Memory is bounded everywhere: what one side does not take is not read from the other. Who goes away ends the session,
//! which is dropped as a whole.

use std::sync::Arc;

use http::{Request, Response};
use hyper::body::Incoming;
use pod_api::failure::Failure;
use serde_json::Value;
use tokio::sync::watch;

use crate::body::{self, Body};
use crate::machine::{ContainerRef, Machine};
use crate::query::Query;
use crate::server::{self, Server};

mod channel;
mod container;
mod descriptor;
mod forward;
mod log;
mod remote;
mod spdy;
mod upgrade;
mod websocket;
mod wire;

#[cfg(test)]
mod tests;

/// The pod as it is stored now; `None` once it is gone. Asked a few times a second while something follows the pod.
type CurrentPod = Arc<dyn Fn() -> Option<Arc<pod_store::Object>> + Send + Sync>;

/// What a stream needs besides its request.
#[derive(Clone)]
struct Context {
    machine: Arc<dyn Machine>,
    current: CurrentPod,
    /// True once the server ends; streams end with it.
    closing: watch::Receiver<bool>,
}

/// Serves `pods/NAME/<which>` of the stored `pod`; `which` is `log`, `exec`, `attach` or `portforward`.
///
/// The connection must have been served with upgrades enabled, over HTTP/1.1.
pub(crate) async fn serve(server: &Server, pod: Value, which: &str, request: Request<Incoming>) -> Response<Body> {
    let name = |field: &str| pod["metadata"][field].as_str().unwrap_or_default();
    let (store, key) = (server.store().clone(), server::key("pods", name("namespace"), name("name")));
    let cx = Context {
        machine: server.machine().clone(),
        current: Arc::new(move || store.get(&key)),
        closing: server.closing(),
    };
    answer(cx, &pod, which, request).await
}

async fn answer(cx: Context, pod: &Value, which: &str, request: Request<Incoming>) -> Response<Body> {
    let query = Query::parse(request.uri().query().unwrap_or_default());
    let served = match which {
        "log" => log::serve(cx, pod, &query, request).await,
        "exec" => remote::serve(cx, pod, remote::Action::Exec, &query, request).await,
        "attach" => remote::serve(cx, pod, remote::Action::Attach, &query, request).await,
        "portforward" => forward::serve(cx, pod, &query, request),
        _ => Err(Refusal::Failure(Failure::unknown_path())),
    };
    served.unwrap_or_else(|refusal| match refusal {
        Refusal::Failure(failure) => body::refuse(&failure),
        Refusal::Plain(response) => *response,
    })
}

impl Context {
    /// Runs a stream beside the connection that began it, until it or the server ends.
    fn spawn(&self, stream: impl Future<Output = ()> + Send + 'static) {
        let mut closing = self.closing.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = stream => {}
                _ = closing.wait_for(|closing| *closing) => {}
            }
        });
    }
}

/// An answer instead of a stream.
enum Refusal {
    Failure(Failure),
    /// Upstream's kubelet answers some things in plain text; kubectl prints it behind `unable to upgrade connection: `.
    Plain(Box<Response<Body>>),
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        Refusal::Failure(failure)
    }
}

impl Refusal {
    fn text(status: http::StatusCode, text: impl Into<String>) -> Self {
        let kind = http::HeaderValue::from_static("text/plain; charset=utf-8");
        Refusal::Plain(Box::new(body::answer(status, kind, text.into())))
    }
}

/// A boolean parameter as upstream converts it: absent, `false` and `0` are false, everything else is true.
fn flag(query: &Query, name: &str) -> bool {
    query.all(name).next().is_some_and(|value| value != "0" && !value.eq_ignore_ascii_case("false"))
}

/// Streams go to the node; a pod that has none yet cannot have any.
fn require_node(pod: &Value) -> Result<(), Failure> {
    if pod["spec"]["nodeName"].as_str().unwrap_or_default().is_empty() {
        let name = container::name_of(pod);
        return Err(Failure::bad_request(format!("pod {name} does not have a host assigned")));
    }
    Ok(())
}

fn target(pod: &Value, container: &str) -> ContainerRef {
    let text = |field: &str| pod["metadata"][field].as_str().unwrap_or_default().to_owned();
    ContainerRef { namespace: text("namespace"), pod: text("name"), uid: text("uid"), container: container.to_owned() }
}
