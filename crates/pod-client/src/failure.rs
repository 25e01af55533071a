//! Why a request failed, and how kubectl says it.

use serde_json::Value;

/// A request that did not do what it should.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The server said no.
    #[error(transparent)]
    Refused(Box<Status>),
    /// Nobody answers there.
    #[error("the server at {server} does not answer")]
    Unreachable { server: String, source: std::io::Error },
    /// It is there, and TLS fails: another server, or another certificate than the kubeconfig's.
    #[error("the server at {server} is not the one of the kubeconfig")]
    Untrusted { server: String, source: std::io::Error },
    /// The connection broke in the middle.
    #[error("the connection to {server} broke")]
    Broken { server: String, source: Box<dyn std::error::Error + Send + Sync> },
    /// An answer that cannot be read.
    #[error("{0}")]
    Answer(String),
}

/// What the server says of a failure (`meta/v1` Status).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Status {
    /// HTTP's.
    pub code: u16,
    /// `NotFound`; may be empty.
    pub reason: String,
    pub message: String,
    /// `details` are there at all.
    pub detailed: bool,
    /// The server sent a text instead of a Status.
    pub plain: bool,
    pub kind: String,
    pub name: String,
    pub causes: Vec<Cause>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cause {
    pub reason: String,
    pub message: String,
    pub field: String,
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Status {}

impl CallError {
    pub fn status(&self) -> Option<&Status> {
        match self {
            CallError::Refused(status) => Some(status),
            _ => None,
        }
    }

    pub fn is(&self, reason: &str) -> bool {
        self.status().is_some_and(|status| status.reason == reason)
    }

    pub fn is_not_found(&self) -> bool {
        self.is("NotFound")
    }
}

impl Status {
    /// From the body of an answer that is no success.
    pub fn read(code: u16, body: &[u8]) -> Status {
        match serde_json::from_slice::<Value>(body) {
            Ok(value) if value["kind"] == "Status" => Status { code, ..Status::from(&value) },
            _ => Status {
                code,
                message: String::from_utf8_lossy(body).trim().to_owned(),
                plain: true,
                reason: match code {
                    400 => "BadRequest",
                    401 => "Unauthorized",
                    403 => "Forbidden",
                    404 => "NotFound",
                    405 => "MethodNotAllowed",
                    409 => "Conflict",
                    500 => "InternalError",
                    _ => "",
                }
                .to_owned(),
                ..Status::default()
            },
        }
    }

    /// What kubectl writes to stderr, without the last newline.
    pub fn said(&self) -> String {
        match self.reason.as_str() {
            "Invalid" => self.invalid(),
            "Unauthorized" => format!("error: You must be logged in to the server ({})", self.message),
            _ => self.line(),
        }
    }

    /// As one of several failures.
    pub fn line(&self) -> String {
        match self.reason.as_str() {
            "" => format!("Error from server: {}", self.message),
            "Unauthorized" => format!("error: You must be logged in to the server ({})", self.message),
            reason => format!("Error from server ({reason}): {}", self.message),
        }
    }

    fn invalid(&self) -> String {
        let mut text = "The request is invalid".to_owned();
        if !self.kind.is_empty() || !self.name.is_empty() {
            text = format!("The {} \"{}\" is invalid", self.kind, self.name);
        } else if !self.message.is_empty() && (!self.detailed || self.causes.is_empty()) {
            text = format!("{text}: {}", self.message);
        }
        let mut causes: Vec<String> = Vec::new();
        for cause in &self.causes {
            let line = format!("{}: {}", cause.field, cause.message);
            if !causes.contains(&line) {
                causes.push(line);
            }
        }
        match causes.as_slice() {
            [] => text,
            [one] => format!("{text}: {one}"),
            several => {
                let lines: Vec<String> = several.iter().map(|cause| format!("* {cause}")).collect();
                format!("{text}: \n{}", lines.join("\n"))
            }
        }
    }
}

impl From<&Value> for Status {
    fn from(value: &Value) -> Status {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let details = &value["details"];
        let causes = details["causes"].as_array().into_iter().flatten();
        Status {
            code: value["code"].as_u64().and_then(|code| u16::try_from(code).ok()).unwrap_or(0),
            reason: text(&value["reason"]),
            message: text(&value["message"]),
            detailed: details.is_object(),
            plain: false,
            kind: text(&details["kind"]),
            name: text(&details["name"]),
            causes: causes
                .map(|cause| Cause {
                    reason: text(&cause["reason"]),
                    message: text(&cause["message"]),
                    field: text(&cause["field"]),
                })
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn failures_read_as_kubectl_says_them() {
        let said = |value: Value| Status::from(&value).said();
        assert_eq!(
            said(json!({"kind": "Status", "reason": "NotFound", "message": "pods \"x\" not found", "code": 404})),
            "Error from server (NotFound): pods \"x\" not found"
        );
        let cause = |field: &str| json!({"field": field, "message": "Required value"});
        assert_eq!(
            said(json!({"reason": "Invalid", "details": {"kind": "Pod", "name": "x", "causes": [cause("a")]}})),
            "The Pod \"x\" is invalid: a: Required value"
        );
        let several = json!([cause("a"), cause("b"), cause("a")]);
        assert_eq!(
            said(json!({"reason": "Invalid", "details": {"kind": "Pod", "name": "x", "causes": several}})),
            "The Pod \"x\" is invalid: \n* a: Required value\n* b: Required value"
        );
        assert_eq!(said(json!({"reason": "Invalid", "message": "no"})), "The request is invalid: no");
        assert_eq!(Status::read(500, b"oops\n").said(), "Error from server (InternalError): oops");
    }
}
