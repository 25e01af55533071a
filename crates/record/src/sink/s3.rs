//! Objects in an S3-compatible store: one PUT for each request, signed with AWS Signature Version 4 (docs.aws.amazon.com,
//! "Signature Version 4 signing process"). An object's name follows from what it holds, so that a repeated delivery of the
//! same request replaces the object instead of adding one.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use http::Uri;
use ring::{digest, hmac};

use super::Failure;
use super::http::Secret;
use crate::batch::Batch;

/// Where objects go, and who may put them there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bucket {
    pub bucket: String,
    pub region: String,
    /// In front of every name.
    pub prefix: String,
    /// Makes names of several agents different.
    pub agent: String,
    /// `.ndjson`, `.ndjson.gz` …
    pub suffix: &'static str,
    pub credentials: Credentials,
}

/// Files are read for every request because they may rotate; without any, `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`
/// and `AWS_SESSION_TOKEN` count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    pub key_file: Option<PathBuf>,
    pub secret_file: Option<PathBuf>,
    pub token_file: Option<PathBuf>,
}

/// A request's path, and the headers that sign it.
pub(super) struct Signed {
    pub(super) path: String,
    pub(super) headers: Vec<(&'static str, String)>,
}

/// What is read of them.
struct Keys {
    key: String,
    secret: String,
    token: Option<String>,
}

impl Credentials {
    fn read(&self) -> Result<Keys, Failure> {
        let of = |file: &Option<PathBuf>, variable: &str| match file {
            Some(path) => Secret::File(path.clone()).read().map(Some),
            None => Ok(std::env::var(variable).ok().filter(|text| !text.is_empty())),
        };
        let missing = |name: &str| Failure::Retry(format!("no credentials: {name} is not set"), None);
        let key = of(&self.key_file, "AWS_ACCESS_KEY_ID")?.ok_or_else(|| missing("AWS_ACCESS_KEY_ID"))?;
        let secret = of(&self.secret_file, "AWS_SECRET_ACCESS_KEY")?.ok_or_else(|| missing("AWS_SECRET_ACCESS_KEY"))?;
        Ok(Keys { key, secret, token: of(&self.token_file, "AWS_SESSION_TOKEN")? })
    }
}

impl Bucket {
    /// `PREFIX/2026/08/15/AGENT-ORIGIN-START-END.SUFFIX`, after the first record's day.
    pub(super) fn name(&self, batches: &[Arc<Batch>]) -> String {
        let first = batches.iter().flat_map(|batch| batch.records().next()).next();
        let time = jiff::Timestamp::from_nanosecond(first.map_or(0, |record| i128::from(record.time.max(0))));
        let day = time.unwrap_or(jiff::Timestamp::MAX).strftime("%Y/%m/%d");
        let (head, last) = (&batches[0], &batches[batches.len() - 1]);
        let mut prefix = self.prefix.trim_matches('/').to_owned();
        if !prefix.is_empty() {
            prefix.push('/');
        }
        format!(
            "{prefix}{day}/{}-{:08}-{:012}-{:08}-{:012}{}",
            self.agent, head.origin.id, head.start, last.origin.id, last.end, self.suffix
        )
    }

    pub(super) fn sign(&self, url: &Uri, name: &str, body: &[u8], now: SystemTime) -> Result<Signed, Failure> {
        let keys = self.credentials.read()?;
        let time = jiff::Timestamp::try_from(now).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
        let (stamp, day) = (time.strftime("%Y%m%dT%H%M%SZ").to_string(), time.strftime("%Y%m%d").to_string());
        let base = url.path().trim_end_matches('/');
        let path = format!("{base}/{}/{}", encoded(&self.bucket), encoded(name));
        let authority = url.authority().map_or("", |authority| authority.as_str());
        let hash = hex(digest::digest(&digest::SHA256, body).as_ref());
        let mut headers =
            vec![("host", authority.to_owned()), ("x-amz-content-sha256", hash.clone()), ("x-amz-date", stamp.clone())];
        headers.extend(keys.token.map(|token| ("x-amz-security-token", token)));
        let names = headers.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(";");
        let canonical: String = headers.iter().map(|(name, value)| format!("{name}:{value}\n")).collect();
        let request = format!("PUT\n{path}\n\n{canonical}\n{names}\n{hash}");
        let scope = format!("{day}/{}/s3/aws4_request", self.region);
        let request = hex(digest::digest(&digest::SHA256, request.as_bytes()).as_ref());
        let text = format!("AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{request}");
        let signature = hex(&keyed(&signing_key(&keys.secret, &day, &self.region, "s3"), &text));
        let credential = format!("{}/{scope}", keys.key);
        let value = format!("AWS4-HMAC-SHA256 Credential={credential}, SignedHeaders={names}, Signature={signature}");
        headers.push(("authorization", value));
        Ok(Signed { path, headers })
    }
}

/// A key for one day, region and service ("Deriving the signing key").
fn signing_key(secret: &str, day: &str, region: &str, service: &str) -> Vec<u8> {
    let first = format!("AWS4{secret}").into_bytes();
    [day, region, service, "aws4_request"].iter().fold(first, |key, part| keyed(&key, part))
}

fn keyed(key: &[u8], text: &str) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes()).as_ref().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// RFC 3986's unreserved characters and the slash stay.
fn encoded(text: &str) -> String {
    let keep = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte);
    text.bytes().map(|b| if keep(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// The key of AWS' documentation, for another service.
    #[test]
    fn the_signing_key_is_derived_as_documented() {
        let secret = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
        let key = signing_key(secret, "20150830", "us-east-1", "iam");
        assert_eq!(hex(&key), "c4afb1cc5771d871763a393e44b703571b55cc28424d1a5e86da6ed3c154a4b9");
    }

    /// "Example: PUT Object" of the S3 API reference has other headers; this one is checked against botocore in benches.
    #[test]
    fn names_and_paths() {
        let directory = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = directory.path().join(name);
            std::fs::write(&path, text).unwrap();
            Some(path)
        };
        let bucket = Bucket {
            bucket: "b".to_owned(),
            region: "eu-1".to_owned(),
            prefix: "/logs/web/".to_owned(),
            agent: "pod".to_owned(),
            suffix: ".ndjson.gz",
            credentials: Credentials {
                key_file: file("k", "AK\n"),
                secret_file: file("s", "SK\n"),
                token_file: file("t", "T"),
            },
        };
        let mut batch = Batch::new(Arc::default(), 7);
        batch.push(&crate::Record {
            time: 1_786_788_000_123_456_789,
            flags: Default::default(),
            severity: Default::default(),
            body: b"x",
            fields: b"",
        });
        let name = bucket.name(&[Arc::new(batch)]);
        assert_eq!(name, "logs/web/2026/08/15/pod-00000000-000000000007-00000000-000000000007.ndjson.gz");
        let url: Uri = "http://s3.local:9000/base/".parse().unwrap();
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_786_788_000);
        let Signed { path, headers } = bucket.sign(&url, "a b/\u{e9}", b"x", now).unwrap();
        assert_eq!(path, "/base/b/a%20b/%C3%A9");
        assert_eq!(headers[0], ("host", "s3.local:9000".to_owned()));
        let authorization = &headers[4].1;
        assert!(authorization.contains("Credential=AK/20260815/eu-1/s3/aws4_request"), "{authorization}");
        assert!(authorization.contains("SignedHeaders=host;x-amz-content-sha256;x-amz-date;x-amz-security-token"));
    }
}
