//! Requests over one server's connections: HTTP/1.1 in TLS, kept open between the requests of a command.

use std::sync::Mutex;

use bytes::Bytes;
use http::header::{
    ACCEPT, AUTHORIZATION, CONNECTION, CONTENT_TYPE, HOST, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT,
    SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE, USER_AGENT, WARNING,
};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::config::Config;
use crate::failure::{CallError, Status};
use crate::stream::websocket;

pub const JSON: &str = "application/json";
const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";

/// Most bytes of an answer that is read as a whole.
const MOST: usize = 512 << 20;

/// One request. The path has its query.
#[derive(Debug, Clone)]
pub struct Call {
    pub method: Method,
    pub path: String,
    pub accept: &'static str,
    pub content_type: &'static str,
    pub body: Bytes,
}

impl Call {
    pub fn new(method: Method, path: impl Into<String>) -> Self {
        Self { method, path: path.into(), accept: JSON, content_type: JSON, body: Bytes::new() }
    }

    pub fn get(path: impl Into<String>) -> Self {
        Self::new(Method::GET, path)
    }

    /// Asks for the columns instead of the objects.
    #[must_use]
    pub fn table(mut self) -> Self {
        self.accept = TABLE;
        self
    }

    #[must_use]
    pub fn accept(mut self, accept: &'static str) -> Self {
        self.accept = accept;
        self
    }

    #[must_use]
    pub fn body(mut self, content_type: &'static str, value: &Value) -> Self {
        self.content_type = content_type;
        self.body = value.to_string().into();
        self
    }
}

/// The server, seen by one command. Clones nothing: a command has one.
pub struct Client {
    config: Config,
    idle: Mutex<Vec<SendRequest<Full<Bytes>>>>,
    /// Is told each `Warning` of the server once.
    warn: Box<dyn Fn(&str)>,
    warned: Mutex<Vec<String>>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Client {
    /// `warn` is told what the server warns of.
    pub fn new(config: Config, warn: impl Fn(&str) + 'static) -> Self {
        Self { config, idle: Mutex::default(), warn: Box::new(warn), warned: Mutex::default() }
    }

    pub fn config(&self) -> &Config {
        &self.config
    }

    /// # Errors
    /// Whatever keeps the answer from being a JSON value of a success.
    pub async fn json(&self, call: Call) -> Result<Value, CallError> {
        let response = self.stream(call).await?;
        let bytes = self.collect(response).await?;
        serde_json::from_slice(&bytes)
            .map_err(|error| CallError::Answer(format!("the server's answer is no JSON: {error}")))
    }

    /// An answer of success whose body is still to come.
    ///
    /// # Errors
    /// No connection, or a refusal.
    pub async fn stream(&self, call: Call) -> Result<Response<Incoming>, CallError> {
        let mut kept = self.kept();
        let response = loop {
            let (mut sender, reused) = match kept.pop() {
                Some(sender) => (sender, true),
                None => (self.connect().await?, false),
            };
            let outcome = sender.send_request(self.request(&call)?).await;
            match outcome {
                Ok(response) => {
                    self.keep(sender);
                    break response;
                }
                // It was closed while nobody used it. Nothing was done, unless the request got through: so only what may
                // be asked twice.
                Err(error) if reused && (error.is_canceled() || call.method == Method::GET) => {}
                Err(error) => return Err(self.broken(error)),
            }
        };
        self.pass_on_warnings(&response);
        if response.status().is_success() {
            return Ok(response);
        }
        let code = response.status().as_u16();
        let body = self.collect(response).await?;
        Err(CallError::Refused(Box::new(Status::read(code, &body))))
    }

    /// A WebSocket of one of the subprotocols, and which.
    ///
    /// # Errors
    /// No connection, a refusal, or an answer that is no handshake.
    pub async fn websocket(
        &self,
        path: &str,
        protocols: &'static str,
    ) -> Result<(TokioIo<Upgraded>, String), CallError> {
        let mut sender = self.connect().await?;
        let (key, expected) = websocket::handshake();
        let mut request = self.request(&Call::get(path).accept("*/*"))?;
        let headers = request.headers_mut();
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(protocols));
        headers.insert(SEC_WEBSOCKET_KEY, header(&key)?);
        let response = sender.send_request(request).await.map_err(|error| self.broken(error))?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            let code = response.status().as_u16();
            let body = self.collect(response).await?;
            return Err(CallError::Refused(Box::new(Status::read(code, &body))));
        }
        let said = |name: HeaderName| response.headers().get(name).and_then(|value| value.to_str().ok());
        if said(SEC_WEBSOCKET_ACCEPT) != Some(&expected) {
            return Err(CallError::Answer("the server's WebSocket handshake is wrong".to_owned()));
        }
        let protocol = said(SEC_WEBSOCKET_PROTOCOL).unwrap_or_default().to_owned();
        let upgraded = hyper::upgrade::on(response).await.map_err(|error| self.broken(error))?;
        Ok((TokioIo::new(upgraded), protocol))
    }

    async fn collect(&self, response: Response<Incoming>) -> Result<Bytes, CallError> {
        let body = http_body_util::Limited::new(response.into_body(), MOST);
        let collected =
            body.collect().await.map_err(|source| CallError::Broken { server: self.config.server.clone(), source })?;
        Ok(collected.to_bytes())
    }

    /// Connections that are still open and wait for a request.
    fn kept(&self) -> Vec<SendRequest<Full<Bytes>>> {
        let mut idle = self.idle.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        idle.retain(|sender| !sender.is_closed());
        match idle.iter().position(SendRequest::is_ready) {
            Some(index) => vec![idle.swap_remove(index)],
            None => Vec::new(),
        }
    }

    fn keep(&self, sender: SendRequest<Full<Bytes>>) {
        self.idle.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(sender);
    }

    fn request(&self, call: &Call) -> Result<Request<Full<Bytes>>, CallError> {
        let mut request = Request::new(Full::new(call.body.clone()));
        *request.method_mut() = call.method.clone();
        let path = format!("{}{}", self.config.prefix, call.path);
        *request.uri_mut() = path.parse().map_err(|_| CallError::Answer(format!("`{path}` is no path of a URL")))?;
        let headers = request.headers_mut();
        let host = match self.config.host.contains(':') {
            true => format!("[{}]:{}", self.config.host, self.config.port),
            false => format!("{}:{}", self.config.host, self.config.port),
        };
        headers.insert(HOST, header(&host)?);
        headers.insert(ACCEPT, HeaderValue::from_static(call.accept));
        headers.insert(USER_AGENT, HeaderValue::from_static(concat!("outrigger/", env!("CARGO_PKG_VERSION"))));
        if !call.body.is_empty() {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(call.content_type));
        }
        if let Some(token) = &self.config.token {
            let mut value = header(&format!("Bearer {token}"))?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        Ok(request)
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, CallError> {
        let server = || self.config.server.clone();
        let address = (self.config.host.as_str(), self.config.port);
        let stream =
            TcpStream::connect(address).await.map_err(|source| CallError::Unreachable { server: server(), source })?;
        // Terminal input comes in single bytes.
        let _ = stream.set_nodelay(true);
        match &self.config.tls {
            Some((tls, name)) => {
                let connector = TlsConnector::from(tls.clone());
                let stream = connector.connect(name.clone(), stream).await.map_err(|source| match source.kind() {
                    std::io::ErrorKind::InvalidData => CallError::Untrusted { server: server(), source },
                    _ => CallError::Unreachable { server: server(), source },
                })?;
                self.handshake(TokioIo::new(stream)).await
            }
            None => self.handshake(TokioIo::new(stream)).await,
        }
    }

    async fn handshake(
        &self,
        io: impl hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
    ) -> Result<SendRequest<Full<Bytes>>, CallError> {
        let (sender, connection) = http1::handshake(io).await.map_err(|error| self.broken(error))?;
        // Ends with the last sender; what it ends with, the requests hear too.
        tokio::spawn(connection.with_upgrades());
        Ok(sender)
    }

    fn pass_on_warnings(&self, response: &Response<Incoming>) {
        for value in response.headers().get_all(WARNING) {
            let text = value.to_str().ok().and_then(warning);
            let mut warned = self.warned.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            if let Some(text) = text.filter(|text| !warned.contains(text)) {
                (self.warn)(&text);
                warned.push(text);
            }
        }
    }

    fn broken(&self, error: hyper::Error) -> CallError {
        CallError::Broken { server: self.config.server.clone(), source: Box::new(error) }
    }
}

fn header(text: &str) -> Result<HeaderValue, CallError> {
    HeaderValue::from_str(text)
        .map_err(|_| CallError::Answer(format!("`{}` is no header's value", text.escape_debug())))
}

/// `299 - "text"` (RFC 7234 §5.5).
fn warning(value: &str) -> Option<String> {
    let quoted = value.strip_prefix("299 ")?.split_once(' ')?.1.strip_prefix('"')?;
    let mut text = String::new();
    let mut characters = quoted.chars();
    while let Some(character) = characters.next() {
        match character {
            '"' => return Some(text),
            '\\' => text.extend(characters.next()),
            character => text.push(character),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_are_unquoted() {
        assert_eq!(warning(r#"299 - "unknown field \"a\"""#).as_deref(), Some("unknown field \"a\""));
        assert_eq!(warning("199 - \"x\""), None);
        assert_eq!(warning("299 - x"), None);
    }
}
