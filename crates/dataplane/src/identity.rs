//! Who a client has proved to be, as the application is told: `X-Forwarded-Client-Cert`, in Envoy's notation.

use std::fmt::Write as _;

use rustls::pki_types::CertificateDer;
use sha2::{Digest as _, Sha256};
use webpki::EndEntityCert;

/// The whole line, of a certificate that has been verified.
pub fn line(certificate: &[u8]) -> Box<[u8]> {
    let mut line = String::from("X-Forwarded-Client-Cert: Hash=");
    for byte in Sha256::digest(certificate) {
        let _ = write!(line, "{byte:02x}");
    }
    let der = CertificateDer::from(certificate);
    if let Ok(certificate) = EndEntityCert::try_from(&der) {
        // A name that could be read as the beginning of another element is left out.
        let plain = |name: &&str| name.bytes().all(|byte| byte.is_ascii_graphic() && !b";,=\"".contains(&byte));
        for uri in certificate.valid_uri_names().filter(plain) {
            let _ = write!(line, ";URI={uri}");
        }
        for name in certificate.valid_dns_names().filter(plain) {
            let _ = write!(line, ";DNS={name}");
        }
    }
    line.push_str("\r\n");
    line.into_bytes().into()
}
