//! What others are told of requests: the access log and traces.

use std::collections::BTreeMap;

use daemon::{choice, document};

document! {
    /// A line for every request, with its latency ledger.
    pub struct AccessLog {
        /// How it is written.
        format: LogFormat = default(LogFormat::Json),
        /// How JSON calls its fields.
        names: LogNames = default(LogNames::Otel),
        /// Which fields JSON has, by their short names; empty: all but `userAgent` and `referer`.
        fields: Vec<LogField> = default(Vec::new()),
        /// Of requests with this class of status (`1xx` to `5xx`, `none`) one in so many has a line; 0: none has.
        one_in: BTreeMap<String, u32> = default(BTreeMap::new()),
        /// Lines a second, of each worker; 0: any number. What is left out is counted.
        lines_per_second: u32 = default(0),
        /// A file that is appended to, and made anew when it was renamed; without, standard output.
        path: Option<String> = optional,
    }
}

choice! {
    /// How a line is written.
    pub enum LogFormat {
        /// For people.
        Text = "text",
        /// Apache's combined log format, without the ledger.
        Combined = "combined",
        /// One JSON object.
        Json = "json",
    }
}

choice! {
    /// How fields are called.
    pub enum LogNames {
        /// As OpenTelemetry's semantic conventions do.
        Otel = "otel",
        /// As in `fields`.
        Short = "short",
    }
}

choice! {
    /// A field of a line.
    pub enum LogField {
        /// When the request ended, in UTC.
        Time = "time",
        /// The client's address.
        Client = "client",
        /// The method.
        Method = "method",
        /// What the request was for.
        Host = "host",
        /// The path.
        Path = "path",
        /// The query.
        Query = "query",
        /// HTTP's version.
        Protocol = "protocol",
        /// The status; 0: no answer was given.
        Status = "status",
        /// Bytes of the request's body.
        RequestBytes = "requestBytes",
        /// Bytes of the answer's body.
        ResponseBytes = "responseBytes",
        /// `grpc-status`.
        Grpc = "grpc",
        /// The listener.
        Listener = "listener",
        /// The route.
        Route = "route",
        /// The backend.
        Backend = "backend",
        /// The endpoint of the last try.
        Endpoint = "endpoint",
        /// How many tries there were.
        Tries = "tries",
        /// Each try with its endpoint, outcome and time, if one has failed.
        Attempts = "attempts",
        /// What went wrong here.
        Error = "error",
        /// The trace and the span.
        Trace = "trace",
        /// `User-Agent`.
        UserAgent = "userAgent",
        /// `Referer`.
        Referer = "referer",
        /// Microseconds from the first byte to the last.
        Duration = "duration",
        /// The phases.
        Ledger = "ledger",
    }
}

document! {
    /// Traces: whose work a request is part of.
    pub struct Tracing {
        /// How they are written. The first that a request has counts; all are passed on.
        propagation: Vec<Propagation> = default(vec![Propagation::W3c]),
        /// The share of traces that are recorded, from 0 to 1; without, as `OTEL_TRACES_SAMPLER` says, else all.
        sample: Option<f64> = optional,
        /// Whether the decision of whoever began the trace is kept, if there was one; with `sample` only.
        parent_based: bool = default(true),
    }
}

choice! {
    /// How traces are written.
    pub enum Propagation {
        /// `traceparent` and `tracestate` (W3C Trace Context).
        W3c = "w3c",
        /// `b3`.
        B3 = "b3",
        /// `X-B3-TraceId` and its like.
        B3Multi = "b3multi",
    }
}
