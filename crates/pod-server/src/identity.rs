//! Who asks: a client certificate that rustls has verified, or a bearer token.
//!
//! There is no authorization: whoever is known may do everything. Nobody else gets further than the health checks.

use std::sync::Arc;

use http::HeaderMap;
use http::header::AUTHORIZATION;
use jiff::Timestamp;
use pod_api::failure::Failure;

/// An authenticated caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    pub name: String,
    pub uid: String,
    pub groups: Vec<String>,
}

/// A service account's wish for a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenRequest {
    pub namespace: String,
    pub service_account: String,
    /// Of the ServiceAccount.
    pub uid: String,
    /// Empty: the server's own.
    pub audiences: Vec<String>,
    pub expiration_seconds: i64,
    /// `spec.boundObjectRef` as it came; `null` for none.
    pub bound_object: serde_json::Value,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issued {
    pub token: String,
    pub expires: Timestamp,
    /// Those in the token.
    pub audiences: Vec<String>,
}

type Verify = Arc<dyn Fn(&str) -> Option<User> + Send + Sync>;
type Issue = Arc<dyn Fn(&TokenRequest) -> Result<Issued, Failure> + Send + Sync>;

/// What bearer tokens are worth.
#[derive(Clone, Default)]
pub struct Tokens {
    /// Each as good as the admin's certificate.
    pub admin: Vec<String>,
    /// Service accounts' tokens.
    pub verify: Option<Verify>,
    /// Makes a service account's token; without it `serviceaccounts/token` answers 404.
    pub issue: Option<Issue>,
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokens").field("admin", &self.admin.len()).finish_non_exhaustive()
    }
}

/// The caller, if it is anybody. A certificate outranks a token, as upstream asks certificates first.
pub(crate) fn of(headers: &HeaderMap, certificate: Option<&User>, tokens: &Tokens) -> Option<User> {
    if let Some(user) = certificate {
        return Some(user.clone());
    }
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    let token = token.trim();
    if !scheme.eq_ignore_ascii_case("bearer") || token.is_empty() {
        return None;
    }
    // Every one is compared, so that time does not tell which one was nearly right.
    if tokens.admin.iter().fold(false, |found, admin| equal(admin.as_bytes(), token.as_bytes()) | found) {
        return Some(admin());
    }
    tokens.verify.as_ref()?(token)
}

fn admin() -> User {
    User { name: "outrigger-admin".to_owned(), uid: String::new(), groups: groups(["system:masters"]) }
}

fn groups<'a>(own: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    own.into_iter().chain(["system:authenticated"]).map(str::to_owned).collect()
}

/// In a time that depends on the lengths only.
fn equal(left: &[u8], right: &[u8]) -> bool {
    let difference = left.iter().zip(right).fold(left.len() ^ right.len(), |all, (a, b)| all | usize::from(a ^ b));
    std::hint::black_box(difference) == 0
}

/// The user of a verified certificate: the subject's CN, its O as groups. Anything unreadable is an anonymous admin: the
/// signature has been checked already.
pub(crate) fn of_certificate(der: &[u8]) -> User {
    let mut names = Vec::new();
    let mut organizations = Vec::new();
    for (attribute, value) in subject(der).unwrap_or_default() {
        match attribute {
            COMMON_NAME => names.push(value),
            ORGANIZATION => organizations.push(value),
            _ => {}
        }
    }
    let name = names.into_iter().next().unwrap_or_else(|| "certificate".to_owned());
    User { name, uid: String::new(), groups: groups(organizations.iter().map(String::as_str)) }
}

/// 2.5.4.3 and 2.5.4.10 (X.520).
const COMMON_NAME: &[u8] = &[0x55, 4, 3];
const ORGANIZATION: &[u8] = &[0x55, 4, 10];

/// The subject's attributes of an X.509 certificate (RFC 5280 §4.1).
fn subject(der: &[u8]) -> Option<Vec<(&[u8], String)>> {
    let (_, certificate, _) = element(der)?;
    let (_, mut rest, _) = element(certificate)?;
    // version [0], serialNumber, signature, issuer, validity come before it; the version may be left out.
    let explicit_version = rest.first() == Some(&0xa0);
    for _ in 0..if explicit_version { 5 } else { 4 } {
        rest = element(rest)?.2;
    }
    let (_, mut sets, _) = element(rest)?;
    let mut found = Vec::new();
    while !sets.is_empty() {
        let (_, mut set, more) = element(sets)?;
        sets = more;
        while !set.is_empty() {
            let (_, pair, more) = element(set)?;
            set = more;
            let (_, attribute, value) = element(pair)?;
            let (_, text, _) = element(value)?;
            found.push((attribute, String::from_utf8_lossy(text).into_owned()));
        }
    }
    Some(found)
}

/// Tag, content and what follows of the first DER element.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = der.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = if first < 0x80 {
        (usize::from(first), rest)
    } else {
        let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f).min(8))?;
        (bytes.iter().try_fold(0usize, |all, byte| all.checked_mul(256)?.checked_add(usize::from(*byte)))?, rest)
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn tokens_count_when_they_are_equal() {
        let tokens = Tokens { admin: vec!["secret".into(), "other".into()], ..Tokens::default() };
        let ask = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(AUTHORIZATION, HeaderValue::from_str(value).unwrap());
            of(&headers, None, &tokens).is_some()
        };
        assert!(ask("Bearer secret") && ask("bearer other"));
        for wrong in ["Bearer secre", "Bearer secret2", "Basic secret", "Bearer ", "secret"] {
            assert!(!ask(wrong), "{wrong}");
        }
        assert!(of(&HeaderMap::new(), None, &tokens).is_none());
    }

    #[test]
    fn the_subject_of_a_certificate_is_the_user() {
        let mut wanted = rcgen::CertificateParams::new(Vec::new()).unwrap();
        wanted.distinguished_name = rcgen::DistinguishedName::new();
        wanted.distinguished_name.push(rcgen::DnType::OrganizationName, "system:masters");
        wanted.distinguished_name.push(rcgen::DnType::CommonName, "kubernetes-admin");
        let key = rcgen::KeyPair::generate().unwrap();
        let user = of_certificate(wanted.self_signed(&key).unwrap().der());
        assert_eq!(user.name, "kubernetes-admin");
        assert_eq!(user.groups, ["system:masters", "system:authenticated"]);
        assert_eq!(of_certificate(b"\x30\x84\xff\xff\xff\xff").name, "certificate");
    }
}
