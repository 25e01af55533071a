//! Exporting metrics, log lines and spans to a collector, told by OpenTelemetry's own variables (`OTEL_*`; opentelemetry.io,
//! "OpenTelemetry Environment Variable Specification"). OTLP over HTTP with protobuf; what is asked for beyond that is
//! said and left out. Nothing is exported unless an endpoint is named.

mod encode;

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, Uri, header};
use http_body_util::Full;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::admin::Endpoints;
use crate::log::{self, Line};
use crate::metrics::Exposition;
use crate::{span, warn};

/// Where to and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Settings {
    metrics: Option<Uri>,
    logs: Option<Uri>,
    traces: Option<Uri>,
    batch: Batch,
    headers: Vec<(String, String)>,
    timeout: Duration,
    interval: Duration,
    /// Attributes of the resource.
    resource: Vec<(String, String)>,
}

/// How spans are gathered ("Batch Span Processor" in the same specification).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Batch {
    delay: Duration,
    queue: usize,
    most: usize,
}

/// Log lines are sent this often.
const LOGS: Duration = Duration::from_secs(2);
/// How often the spans' queue is looked at, at least.
const SPANS: Duration = Duration::from_millis(500);

impl Settings {
    /// From the environment; also what could not be honoured. Log lines are kept for export from now on, if there is one.
    pub(crate) fn from_environment(service: &str) -> (Option<Settings>, Vec<String>) {
        let found = Settings::read(service, |name| std::env::var(name).ok().filter(|text| !text.trim().is_empty()));
        if found.0.as_ref().is_some_and(|settings| settings.logs.is_some()) {
            log::keep_lines();
        }
        if let Some(settings) = found.0.as_ref().filter(|settings| settings.traces.is_some()) {
            span::keep_spans(settings.batch.queue);
        }
        found
    }

    fn read(service: &str, variable: impl Fn(&str) -> Option<String>) -> (Option<Settings>, Vec<String>) {
        let mut refused = Vec::new();
        if variable("OTEL_SDK_DISABLED").is_some_and(|text| text.eq_ignore_ascii_case("true")) {
            return (None, refused);
        }
        let base = variable("OTEL_EXPORTER_OTLP_ENDPOINT");
        let mut endpoint = |signal: &str, path: &str| -> Option<Uri> {
            let own = variable(&format!("OTEL_EXPORTER_OTLP_{signal}_ENDPOINT"));
            let text = own.or_else(|| base.as_ref().map(|base| format!("{}{path}", base.trim_end_matches('/'))))?;
            match variable(&format!("OTEL_{signal}_EXPORTER")).as_deref() {
                None | Some("otlp") => {}
                Some("none") => return None,
                Some(other) => {
                    refused.push(format!("OTEL_{signal}_EXPORTER={other}: only otlp and none are known"));
                    return None;
                }
            }
            let protocol = variable(&format!("OTEL_EXPORTER_OTLP_{signal}_PROTOCOL"));
            let protocol = protocol.or_else(|| variable("OTEL_EXPORTER_OTLP_PROTOCOL"));
            if let Some(other) = protocol.filter(|protocol| protocol != "http/protobuf") {
                refused.push(format!("OTEL_EXPORTER_OTLP_PROTOCOL={other}: only http/protobuf is spoken here"));
                return None;
            }
            match text.parse::<Uri>() {
                // It may be a password, so it is not shown either.
                Ok(uri) if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) => {
                    let host = uri.host().unwrap_or_default();
                    refused.push(format!("{host}: no user information; OTEL_EXPORTER_OTLP_HEADERS is for that"));
                    None
                }
                Ok(uri) if uri.scheme_str() == Some("http") && uri.host().is_some() => Some(uri),
                _ => {
                    refused
                        .push(format!("`{text}`: only http:// endpoints, such as a collector in the pod or the node"));
                    None
                }
            }
        };
        let (metrics, logs) = (endpoint("METRICS", "/v1/metrics"), endpoint("LOGS", "/v1/logs"));
        let traces = endpoint("TRACES", "/v1/traces");
        if variable("OTEL_EXPORTER_OTLP_COMPRESSION").is_some_and(|text| text != "none") {
            refused.push("OTEL_EXPORTER_OTLP_COMPRESSION: sent uncompressed".to_owned());
        }
        let millis = |name: &str, default: u64| {
            Duration::from_millis(variable(name).and_then(|text| text.trim().parse().ok()).unwrap_or(default).max(10))
        };
        let number = |name: &str, default: usize| {
            variable(name).and_then(|text| text.trim().parse().ok()).filter(|number| *number > 0).unwrap_or(default)
        };
        let queue = number("OTEL_BSP_MAX_QUEUE_SIZE", 2048);
        let batch = Batch {
            delay: millis("OTEL_BSP_SCHEDULE_DELAY", 5000),
            queue,
            most: number("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 512).min(queue),
        };
        let mut resource: BTreeMap<String, String> =
            pairs(&variable("OTEL_RESOURCE_ATTRIBUTES").unwrap_or_default()).into_iter().collect();
        let name = variable("OTEL_SERVICE_NAME").or_else(|| resource.remove("service.name"));
        resource.insert("service.name".to_owned(), name.unwrap_or_else(|| service.to_owned()));
        let settings = (metrics.is_some() || logs.is_some() || traces.is_some()).then(|| Settings {
            metrics,
            logs,
            traces,
            batch,
            headers: pairs(&variable("OTEL_EXPORTER_OTLP_HEADERS").unwrap_or_default()),
            timeout: millis("OTEL_EXPORTER_OTLP_TIMEOUT", 10_000),
            interval: millis("OTEL_METRIC_EXPORT_INTERVAL", 60_000),
            resource: resource.into_iter().collect(),
        });
        (settings, refused)
    }
}

/// `key=value,key=value`, values percent-encoded (W3C Baggage).
fn pairs(text: &str) -> Vec<(String, String)> {
    let pair = |part: &str| {
        let (key, value) = part.split_once('=')?;
        Some((decoded(key.trim()), decoded(value.trim())))
    };
    text.split(',').filter_map(pair).collect()
}

fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((byte, tail)) = rest.split_first() {
        let code = tail.get(..2).and_then(|code| u8::from_str_radix(std::str::from_utf8(code).ok()?, 16).ok());
        match code.filter(|_| *byte == b'%') {
            Some(code) => {
                bytes.push(code);
                rest = &tail[2..];
            }
            None => {
                bytes.push(*byte);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

pub(crate) struct Exporter {
    settings: Settings,
    program: &'static str,
    endpoints: Rc<Endpoints>,
    started: SystemTime,
}

impl Exporter {
    pub(crate) fn new(settings: Settings, program: &'static str, endpoints: Rc<Endpoints>) -> Exporter {
        Exporter { settings, program, endpoints, started: SystemTime::now() }
    }

    /// Exports for ever.
    pub(crate) async fn run(&self) {
        let mut metrics = tokio::time::interval(self.settings.interval);
        let mut logs = tokio::time::interval(LOGS);
        // Looked at more often than sent: a full batch does not wait for the delay.
        let mut spans = tokio::time::interval(self.settings.batch.delay.min(SPANS));
        let mut sent_spans = tokio::time::Instant::now();
        let mut failing = [false; 3];
        // The first tick is at once; there is nothing to say yet.
        metrics.tick().await;
        logs.tick().await;
        loop {
            // Cancelling is safe: a tick that was not taken comes again.
            let (index, sent) = tokio::select! {
                _ = metrics.tick() => (0, self.send_metrics().await),
                _ = logs.tick() => (1, self.send_logs(log::kept_lines()).await),
                _ = spans.tick(), if self.settings.traces.is_some() => {
                    if span::waiting() < self.settings.batch.most && sent_spans.elapsed() < self.settings.batch.delay {
                        continue;
                    }
                    sent_spans = tokio::time::Instant::now();
                    (2, self.send_spans().await)
                }
            };
            let what = ["metrics", "log lines", "spans"][index];
            match sent {
                Ok(()) => failing[index] = false,
                // Once, not every time.
                Err(reason) if !std::mem::replace(&mut failing[index], true) => {
                    warn!("not exported; trying again with the next", what = what, reason = reason);
                }
                Err(_) => {}
            }
        }
    }

    /// The last words; there is nobody left to tell if it fails.
    pub(crate) async fn finish(&self) {
        let _ = self.send_metrics().await;
        let _ = self.send_logs(log::kept_lines()).await;
        let _ = self.send_spans().await;
    }

    /// All that wait, batch by batch. A batch that is not taken is given up: the next ones are as important.
    async fn send_spans(&self) -> Result<(), String> {
        let Some(url) = &self.settings.traces else { return Ok(()) };
        loop {
            let spans = span::take(self.settings.batch.most);
            if spans.is_empty() {
                return Ok(());
            }
            let sent = self.post(url, encode::spans(&spans, &self.settings.resource, self.program)).await;
            span::count(spans.len(), sent.is_ok());
            sent?;
        }
    }

    async fn send_metrics(&self) -> Result<(), String> {
        let Some(url) = &self.settings.metrics else { return Ok(()) };
        let mut out = Exposition::collecting(self.endpoints.prefix);
        (self.endpoints.metrics)(&mut out);
        let families = out.into_collected();
        let body = encode::metrics(&families, &self.settings.resource, self.program, self.started, SystemTime::now());
        self.post(url, body).await
    }

    async fn send_logs(&self, lines: Vec<Line>) -> Result<(), String> {
        let Some(url) = self.settings.logs.as_ref().filter(|_| !lines.is_empty()) else { return Ok(()) };
        self.post(url, encode::logs(&lines, &self.settings.resource, self.program)).await
    }

    async fn post(&self, url: &Uri, body: Vec<u8>) -> Result<(), String> {
        let exchange = async {
            let host = url.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
            let stream = TcpStream::connect((host, url.port_u16().unwrap_or(80))).await.map_err(|e| e.to_string())?;
            let (mut sender, driver) =
                hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| e.to_string())?;
            tokio::task::spawn_local(async move {
                // Its error is the same one the sender sees.
                let _ = driver.await;
            });
            let mut request = Request::new(Full::new(Bytes::from(body)));
            *request.method_mut() = http::Method::POST;
            let path = url.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
            *request.uri_mut() = path.parse().map_err(|_| "the path is unusable".to_owned())?;
            let headers = request.headers_mut();
            let value = |text: &str| HeaderValue::from_str(text).map_err(|_| "a header cannot be sent".to_owned());
            headers.insert(header::HOST, value(url.authority().map_or("", |authority| authority.as_str()))?);
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
            for (name, text) in &self.settings.headers {
                let name = HeaderName::try_from(name.as_str()).map_err(|_| format!("`{name}` is no header name"))?;
                headers.insert(name, value(text)?);
            }
            let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
            if response.status().is_success() { Ok(()) } else { Err(format!("answered {}", response.status())) }
        };
        match tokio::time::timeout(self.settings.timeout, exchange).await {
            Ok(outcome) => outcome.map_err(|reason| format!("{url}: {reason}")),
            Err(_) => Err(format!("{url}: no answer within {:?}", self.settings.timeout)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> (Option<Settings>, Vec<String>) {
        let map: BTreeMap<&str, &str> = variables.iter().copied().collect();
        Settings::read("outrigger-x", |name| map.get(name).map(|text| (*text).to_owned()))
    }

    #[test]
    fn the_variables_decide() {
        assert_eq!(read(&[]), (None, Vec::new()));
        let (settings, refused) = read(&[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318/"),
            ("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", "http://d/l"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "a=b%20c, X-Key = v"),
            ("OTEL_METRIC_EXPORT_INTERVAL", "500"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "100"),
            ("OTEL_RESOURCE_ATTRIBUTES", "service.name=web,k8s.pod.name=p"),
        ]);
        let settings = settings.unwrap();
        assert_eq!(settings.metrics.unwrap().to_string(), "http://c:4318/v1/metrics");
        assert_eq!(settings.logs.unwrap().to_string(), "http://d/l");
        assert_eq!(settings.traces.unwrap().to_string(), "http://c:4318/v1/traces");
        assert_eq!(settings.batch, Batch { delay: Duration::from_secs(5), queue: 100, most: 100 });
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        assert_eq!(settings.headers, [pair("a", "b c"), pair("X-Key", "v")]);
        assert_eq!((settings.interval, settings.timeout), (Duration::from_millis(500), Duration::from_secs(10)));
        assert_eq!(settings.resource, [pair("k8s.pod.name", "p"), pair("service.name", "web")]);
        assert!(refused.is_empty());

        let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318");
        assert_eq!(read(&[endpoint, ("OTEL_SDK_DISABLED", "true")]).0, None);
        let none = ["METRICS", "LOGS", "TRACES"].map(|signal| (format!("OTEL_{signal}_EXPORTER"), "none"));
        let none: Vec<_> =
            none.iter().map(|(name, value)| (name.as_str(), *value)).chain(std::iter::once(endpoint)).collect();
        assert_eq!(read(&none), (None, Vec::new()));
        let (settings, refused) = read(&[endpoint, ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")]);
        assert_eq!((settings, refused.len()), (None, 3));
        let (settings, refused) = read(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "https://c")]);
        assert_eq!((settings, refused.len()), (None, 3));
        let (settings, refused) = read(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://u:secret@c:4318")]);
        assert_eq!((settings, refused.len(), refused.concat().contains("secret")), (None, 3, false));
        let named = read(&[endpoint, ("OTEL_SERVICE_NAME", "s")]).0.unwrap();
        assert_eq!(named.resource, [pair("service.name", "s")]);
    }
}
