//! Why TLS with a backend failed, in words: whoever reads the log knows certificates, not this library's names for what can be
//! wrong with them.

use std::io;

use rustls::{CertificateError, Error};

/// `None`: it was something other than TLS.
pub fn reason(error: &io::Error) -> Option<String> {
    let error = error.get_ref()?.downcast_ref::<Error>()?;
    let Error::InvalidCertificate(why) = error else { return Some(error.to_string()) };
    Some(match why {
        CertificateError::UnknownIssuer => {
            "its certificate is not trusted: nobody who is trusted has signed it".to_owned()
        }
        // It has no name of its own here; what is below says it only in its text.
        CertificateError::Other(other) if other.to_string() == "CaUsedAsEndEntity" => {
            "its certificate is not trusted: it is a CA's; one that a CA has signed must be shown".to_owned()
        }
        why => format!("its certificate is not trusted: {why}"),
    })
}

/// Whether the other side speaks nothing of what it was offered (RFC 7301 §3.2).
pub fn is_no_protocol(error: &io::Error) -> bool {
    let error = error.get_ref().and_then(|error| error.downcast_ref::<Error>());
    matches!(error, Some(Error::AlertReceived(rustls::AlertDescription::NoApplicationProtocol)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_of_tls() {
        let wrapped = |error: Error| io::Error::new(io::ErrorKind::InvalidData, error);
        let expired = reason(&wrapped(Error::InvalidCertificate(CertificateError::Expired)));
        assert_eq!(expired.as_deref(), Some("its certificate is not trusted: Expired"));
        assert!(reason(&wrapped(Error::HandshakeNotComplete)).is_some());
        assert_eq!(reason(&io::ErrorKind::ConnectionReset.into()), None);
        assert_eq!(reason(&io::Error::other("something else")), None);
    }
}
