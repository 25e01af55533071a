//! Who a client must have proved to be, by the names in its certificate.

use super::{Asked, Flow, Gate, NotesSlot, Response};
use crate::count::Tally;
use crate::exchange::Failure;

/// What a name must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Name {
    /// A URI, such as a SPIFFE ID.
    Uri(Vec<u8>),
    /// A URI that begins with this and goes on with a further path segment, or is this.
    UriBelow(Vec<u8>),
    /// A DNS name.
    Dns(Vec<u8>),
    /// The SHA-256 of the certificate, in lower-case hexadecimal.
    Hash(Vec<u8>),
}

/// The names of a line as [`crate::identity::line`] writes it: `Hash=…`, `URI=…`, `DNS=…`.
pub fn names(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    let start = memchr::memchr(b' ', line).map_or(line.len(), |colon| colon + 1);
    line[start..].trim_ascii_end().split(|byte| *byte == b';').filter(|name| !name.is_empty())
}

impl Name {
    fn holds(&self, name: &[u8]) -> bool {
        match self {
            Name::Uri(uri) => name.strip_prefix(b"URI=").is_some_and(|name| name == uri),
            Name::UriBelow(start) => name.strip_prefix(b"URI=").is_some_and(|name| {
                let rest = name.strip_prefix(start.strip_suffix(b"/").unwrap_or(start));
                rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'/')))
            }),
            Name::Dns(dns) => name.strip_prefix(b"DNS=").is_some_and(|name| name.eq_ignore_ascii_case(dns)),
            Name::Hash(hash) => name.strip_prefix(b"Hash=").is_some_and(|name| name == hash),
        }
    }
}

/// Who is let in; whoever is not gets 403.
#[derive(Debug, Default)]
pub struct Identities {
    /// One of these.
    pub names: Vec<Name>,
    /// Any SPIFFE ID of one of these (SPIFFE ID §2.1), lower case.
    pub domains: Vec<Vec<u8>>,
    pub refused: Tally,
}

impl Identities {
    pub fn allows(&self, line: &[u8]) -> bool {
        names(line).any(|name| {
            self.names.iter().any(|wanted| wanted.holds(name))
                || trust_domain(name).is_some_and(|domain| self.domains.iter().any(|other| other == domain))
        })
    }
}

fn trust_domain(name: &[u8]) -> Option<&[u8]> {
    let rest = name.strip_prefix(b"URI=spiffe://")?;
    let end = memchr::memchr(b'/', rest)?;
    Some(&rest[..end])
}

impl Gate for Identities {
    fn ask(&self, asked: &Asked<'_>, _: &mut NotesSlot) -> Flow {
        if self.allows(asked.identity) {
            return Flow::Continue;
        }
        self.refused.add();
        let text =
            if asked.identity.is_empty() { "a client certificate is needed" } else { "this client is not let in" };
        Flow::Respond(Response::refuse(403, Failure::Denied, text))
    }

    fn count(&self, tell: &mut dyn FnMut(&str, &str, u64)) {
        tell("identities", "deny", self.refused.value());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filter::example::Example;

    #[test]
    fn names_of_certificates() {
        let gate = Identities {
            names: vec![
                Name::Uri(b"spiffe://prod.example/ns/web/sa/front".to_vec()),
                Name::UriBelow(b"spiffe://prod.example/ns/batch".to_vec()),
                Name::UriBelow(b"spiffe://prod.example/ns/jobs/".to_vec()),
                Name::Dns(b"admin.example".to_vec()),
                Name::Hash(b"00ff".to_vec()),
            ],
            domains: vec![b"partner.example".to_vec()],
            refused: Tally::default(),
        };
        for (line, allowed) in [
            ("", false),
            ("X-Forwarded-Client-Cert: Hash=1\r\n", false),
            ("X-Forwarded-Client-Cert: Hash=00ff\r\n", true),
            ("X-Forwarded-Client-Cert: Hash=1;URI=spiffe://prod.example/ns/web/sa/front\r\n", true),
            ("X-Forwarded-Client-Cert: Hash=1;URI=spiffe://prod.example/ns/web/sa/front2\r\n", false),
            ("X-Forwarded-Client-Cert: Hash=1;URI=spiffe://prod.example/ns/batch/sa/x\r\n", true),
            ("X-Forwarded-Client-Cert: Hash=1;URI=spiffe://prod.example/ns/batch\r\n", true),
            ("X-Forwarded-Client-Cert: Hash=1;URI=spiffe://prod.example/ns/batches/x\r\n", false),
            ("X-Forwarded-Client-Cert: Hash=1;URI=spiffe://prod.example/ns/jobs/x\r\n", true),
            ("X-Forwarded-Client-Cert: Hash=1;URI=spiffe://prod.example/ns/jobs\r\n", true),
            ("X-Forwarded-Client-Cert: Hash=1;URI=spiffe://prod.example/ns/jobsx\r\n", false),
            ("X-Forwarded-Client-Cert: Hash=1;DNS=x.example;DNS=Admin.Example\r\n", true),
            ("X-Forwarded-Client-Cert: Hash=1;URI=spiffe://partner.example/any\r\n", true),
            ("X-Forwarded-Client-Cert: Hash=1;URI=spiffe://partner.example.evil/any\r\n", false),
            ("X-Forwarded-Client-Cert: Hash=1;URI=https://partner.example/any\r\n", false),
        ] {
            let mut example = Example::new(&["GET /"]);
            example.identity = line;
            assert_eq!(example.status(&gate), if allowed { 0 } else { 403 }, "{line}");
        }
    }
}
