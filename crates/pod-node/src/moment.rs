//! Times as Kubernetes writes them.

use jiff::Timestamp;

/// `metav1.Time`: whole seconds.
pub(crate) fn seconds(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// `metav1.MicroTime`.
pub(crate) fn micros(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms() {
        let at: Timestamp = "2025-01-02T03:04:05.678901234Z".parse().unwrap();
        assert_eq!(
            (seconds(at).as_str(), micros(at).as_str()),
            ("2025-01-02T03:04:05Z", "2025-01-02T03:04:05.678901Z")
        );
    }
}
