//! Where records go.

use std::collections::BTreeMap;

use daemon::config::{Seconds, Size};
use daemon::{choice, document, one_of};

use super::Condition;

document! {
    /// One way out.
    pub struct Sink {
        /// The name; progress is kept under it.
        name: String = required,
        /// The receiver.
        to: Receiver = required,
        /// Takes only records for which this holds (routing); without it, all.
        when: Option<Condition> = optional,
        /// How much goes at once.
        batch: Batching = default(Batching::default()),
        /// The longest pause between two tries. Trying never ends.
        retry_ceiling: Seconds = default(Seconds::new(1)),
        /// A file for records that the receiver refuses for good (400, 413, 415, 422, or one item of a bulk request). Without it they are tried again for ever,
        /// and nothing overtakes them.
        dead_letters: Option<String> = optional,
    }
}

document! {
    /// How much goes at once.
    pub struct Batching : Default {
        /// Bytes of records in one request, about.
        max_bytes: Size = default(Size(1 << 20)),
        /// How long a request that is not full waits for more.
        wait: Seconds = default(Seconds::millis(100)),
    }
}

one_of! {
    /// A receiver.
    pub enum Receiver {
        /// Standard output.
        Stdout(Stdout) = "stdout",
        /// A file.
        File(File) = "file",
        /// HTTP(S) with JSON.
        Http(Http) = "http",
        /// Grafana Loki.
        Loki(Loki) = "loki",
        /// OpenTelemetry, OTLP over HTTP or gRPC with protobuf.
        Otlp(Otlp) = "otlp",
        /// Elasticsearch or OpenSearch, their bulk API.
        Elasticsearch(Elasticsearch) = "elasticsearch",
        /// Objects in an S3-compatible store.
        S3(S3) = "s3",
        /// Syslog, RFC 5424 over TCP or TLS. It has no acknowledgement: what the receiver's machine took and its program did
        /// not read is lost.
        Syslog(Syslog) = "syslog",
        /// Fluent forward, acknowledged (Fluentd, Fluent Bit).
        Forward(Forward) = "forward",
    }
}

choice! {
    /// How records are written.
    pub enum Lines {
        /// The line as it was.
        Text = "text",
        /// One JSON object per line.
        Json = "json",
    }
}

document! {
    /// Standard output, for the node's agent.
    pub struct Stdout {
        /// How records are written.
        encoding: Lines = default(Lines::Text),
    }
}

document! {
    /// A file.
    pub struct File {
        /// Its path.
        path: String = required,
        /// How records are written.
        encoding: Lines = default(Lines::Text),
        /// Rotated when larger; 0: never.
        max_bytes: Size = default(Size(0)),
        /// Rotated files kept.
        keep: u32 = default(3),
        /// Synced to the disk before a position is saved. Without, a power cut can lose the last seconds.
        sync: bool = default(false),
    }
}

choice! {
    /// How a body is written.
    pub enum Body {
        /// One JSON object per line (`application/x-ndjson`).
        NdJson = "ndjson",
        /// One JSON array.
        Json = "json",
        /// The lines as they were.
        Text = "text",
    }
}

document! {
    /// HTTP(S) with JSON.
    pub struct Http {
        /// Where to POST.
        url: String = required,
        /// How the body is written.
        encoding: Body = default(Body::NdJson),
        /// The connection.
        client: Client = default(Client::default()),
    }
}

document! {
    /// Grafana Loki.
    pub struct Loki {
        /// Its base address; `/loki/api/v1/push` is added if there is no path.
        url: String = required,
        /// Labels of every stream, besides the fields.
        labels: BTreeMap<String, String> = default(BTreeMap::new()),
        /// The tenant (`X-Scope-OrgID`).
        tenant: Option<String> = optional,
        /// The connection.
        client: Client = default(Client::default()),
    }
}

document! {
    /// OpenTelemetry, OTLP over HTTP or gRPC with protobuf.
    pub struct Otlp {
        /// The collector's base address; over HTTP `/v1/logs` is added if there is no path.
        url: String = required,
        /// How it is spoken to. Over gRPC nothing is compressed.
        protocol: OtlpProtocol = default(OtlpProtocol::Http),
        /// Attributes of every resource, besides the fields.
        resource: BTreeMap<String, String> = default(BTreeMap::new()),
        /// The connection.
        client: Client = default(Client::default()),
    }
}

choice! {
    /// OTLP's transports.
    pub enum OtlpProtocol {
        /// POST requests, port 4318 by custom.
        Http = "http/protobuf",
        /// HTTP/2, port 4317 by custom.
        Grpc = "grpc",
    }
}

document! {
    /// Elasticsearch or OpenSearch. Each record's outcome counts: what is refused for good goes to `deadLetters`, the rest is
    /// tried again.
    pub struct Elasticsearch {
        /// The base address; `/_bulk` is added if there is no path.
        url: String = required,
        /// The index or data stream.
        index: String = required,
        /// How documents are written.
        action: BulkAction = default(BulkAction::Create),
        /// An ingest pipeline.
        pipeline: Option<String> = optional,
        /// The connection.
        client: Client = default(Client::default()),
    }
}

choice! {
    /// How documents are written.
    pub enum BulkAction {
        /// New ones only; what a data stream wants.
        Create = "create",
        /// For an index.
        Index = "index",
    }
}

document! {
    /// Objects of NDJSON in an S3-compatible store, one for each request: raise `batch.maxBytes` and `batch.wait`. Named
    /// `PREFIX/YYYY/MM/DD/AGENT-ORIGIN-START-ORIGIN-END.ndjson`, so that the same content has the same name.
    pub struct S3 {
        /// The store's address; the bucket becomes part of the path.
        url: String = required,
        /// The bucket.
        bucket: String = required,
        /// The region that requests are signed for.
        region: String = default("us-east-1".to_owned()),
        /// In front of every name.
        prefix: String = default("logs".to_owned()),
        /// Makes the names of several agents different; the host's name without.
        agent: Option<String> = optional,
        /// A file with the access key; `AWS_ACCESS_KEY_ID` without.
        key_file: Option<String> = optional,
        /// A file with the secret key; `AWS_SECRET_ACCESS_KEY` without.
        secret_file: Option<String> = optional,
        /// A file with a session token; `AWS_SESSION_TOKEN` without.
        token_file: Option<String> = optional,
        /// The connection.
        client: Client = default(Client::default()),
    }
}

document! {
    /// Syslog out.
    pub struct Syslog {
        /// `HOST:PORT`.
        address: String = required,
        /// The facility's number.
        facility: u16 = default(16),
        /// The host in each message; this one's name without.
        host: Option<String> = optional,
        /// The program in each message.
        app: String = default("outrigger".to_owned()),
        /// For connecting, and for each write.
        timeout: Seconds = default(Seconds::new(10)),
        /// TLS (RFC 5425) if it is there.
        tls: Option<Tls> = optional,
    }
}

document! {
    /// Fluent forward out.
    pub struct Forward {
        /// `HOST:PORT`.
        address: String = required,
        /// The tag of every record.
        tag: String = default("outrigger".to_owned()),
        /// For connecting, for each write, and for the acknowledgement.
        timeout: Seconds = default(Seconds::new(30)),
        /// TLS if it is there.
        tls: Option<Tls> = optional,
    }
}

choice! {
    /// How bodies are made smaller.
    pub enum Compression {
        /// Not at all.
        None = "none",
        /// gzip, fastest.
        Gzip = "gzip",
        /// Zstandard, fastest; needs about 1 MiB of memory more.
        Zstd = "zstd",
    }
}

document! {
    /// The connection to a receiver.
    pub struct Client : Default {
        /// How bodies are made smaller.
        compression: Compression = default(Compression::None),
        /// More headers.
        headers: BTreeMap<String, String> = default(BTreeMap::new()),
        /// More headers whose values are in files, read for every request.
        header_files: BTreeMap<String, String> = default(BTreeMap::new()),
        /// A file with a bearer token, read for every request.
        bearer_token_file: Option<String> = optional,
        /// User and password.
        basic: Option<Basic> = optional,
        /// For connecting, and again for the answer.
        timeout: Seconds = default(Seconds::new(10)),
        /// Certificates.
        tls: Option<Tls> = optional,
    }
}

document! {
    /// User and password.
    pub struct Basic {
        /// The user.
        user: String = required,
        /// A file with the password.
        password_file: String = required,
    }
}

document! {
    /// Certificates; read again for a new connection when the files have changed.
    pub struct Tls {
        /// PEM certificates to trust instead of the machine's.
        ca_file: Option<String> = optional,
        /// A PEM chain to present.
        cert_file: Option<String> = optional,
        /// Its PEM key.
        key_file: Option<String> = optional,
    }
}
