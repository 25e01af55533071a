//! Hellos that a TLS client has made, cut and changed; and such as none makes.

use std::sync::Arc;

use proptest::collection::vec;
use proptest::prelude::*;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore, SupportedProtocolVersion, version};

use super::*;

/// What a client sends first; `fragment`: bytes of its records at most.
fn made(
    name: Option<&str>,
    versions: &[&'static SupportedProtocolVersion],
    fragment: Option<usize>,
    alpn: usize,
) -> Vec<u8> {
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
    let builder = builder.with_protocol_versions(versions).unwrap();
    let mut config = builder.with_root_certificates(RootCertStore::empty()).with_no_client_auth();
    config.max_fragment_size = fragment;
    config.enable_sni = name.is_some();
    config.alpn_protocols = (0..alpn).map(|number| format!("protocol-{number:03}").into_bytes()).collect();
    let server = ServerName::try_from(name.unwrap_or("none.example").to_owned()).unwrap();
    let mut client = ClientConnection::new(Arc::new(config), server).unwrap();
    let mut bytes = Vec::new();
    while client.wants_write() {
        client.write_tls(&mut bytes).unwrap();
    }
    bytes
}

fn named(name: &str) -> Result<Option<Hello>, Refused> {
    Ok(Some(Hello { name: Some(name.into()) }))
}

const NAMES: &str = "[a-zA-Z0-9]([a-zA-Z0-9-]{0,20}[a-zA-Z0-9])?(\\.[a-zA-Z]([a-zA-Z0-9-]{0,20}[a-zA-Z0-9])?){1,4}";

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_real_hello_is_read_however_it_comes(
        name in proptest::option::of(NAMES),
        which in 0..3,
        fragment in proptest::option::of(32..600_usize),
        alpn in 0..300_usize,
        more in vec(any::<u8>(), 0..100),
    ) {
        let versions: &[_] = match which {
            0 => &[&version::TLS12],
            1 => &[&version::TLS13],
            _ => &[&version::TLS13, &version::TLS12],
        };
        let mut bytes = made(name.as_deref(), versions, fragment, alpn);
        let expected = Ok(Some(Hello { name: name.map(|name| name.to_ascii_lowercase().into_bytes()) }));
        // Never early, never late.
        for length in 0..bytes.len() {
            prop_assert_eq!(read(&bytes[..length]), Ok(None), "{} of {}", length, bytes.len());
        }
        prop_assert_eq!(read(&bytes), expected.clone());
        // What stands behind it is not looked at.
        bytes.extend_from_slice(&more);
        prop_assert_eq!(read(&bytes), expected);
    }

    #[test]
    fn changes_never_make_it_panic_nor_change_its_mind(
        name in NAMES,
        fragment in proptest::option::of(32..200_usize),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut bytes = made(Some(&name), &[&version::TLS13, &version::TLS12], fragment, 3);
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        steady(&bytes)?;
    }

    #[test]
    fn noise_never_makes_it_panic(mut bytes in vec(any::<u8>(), 0..400), begins in any::<bool>()) {
        if begins {
            bytes.splice(0..0, [22, 3, 1, 0, 200, 1, 0, 0, 150, 3, 3]);
        }
        steady(&bytes)?;
    }
}

/// Byte by byte, the first that is said is said of all that is longer.
fn steady(bytes: &[u8]) -> Result<(), TestCaseError> {
    let mut said = Ok(None);
    for length in 0..=bytes.len() {
        let now = read(&bytes[..length]);
        if said == Ok(None) {
            said = now;
        } else {
            prop_assert_eq!(&now, &said, "{}", length);
        }
    }
    Ok(())
}

/// A hello with these extensions, in one record.
fn with(extensions: &[&[u8]]) -> Vec<u8> {
    let extensions = extensions.concat();
    let mut body = [&[3, 3][..], &[7; 32], &[0], &[0, 2, 0x13, 1], &[1, 0]].concat();
    body.extend_from_slice(&(extensions.len() as u16).to_be_bytes());
    body.extend_from_slice(&extensions);
    wrap(&body)
}

fn wrap(body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let mut bytes = vec![22, 3, 1];
    bytes.extend_from_slice(&((length + 4) as u16).to_be_bytes());
    bytes.extend_from_slice(&[1, 0, (length >> 8) as u8, length as u8]);
    bytes.extend_from_slice(body);
    bytes
}

fn name(names: &[(u8, &str)]) -> Vec<u8> {
    let list = names
        .iter()
        .flat_map(|(kind, name)| [&[*kind][..], &(name.len() as u16).to_be_bytes(), name.as_bytes()].concat());
    let list: Vec<u8> = list.collect();
    let list = [&(list.len() as u16).to_be_bytes()[..], &list].concat();
    [&[0, 0][..], &(list.len() as u16).to_be_bytes(), &list].concat()
}

#[test]
fn names_are_read_strictly() {
    const OTHER: &[u8] = &[0, 23, 0, 0];
    for (extensions, expected) in [
        (vec![OTHER.to_vec(), name(&[(0, "A.Example")])], named("a.example")),
        (vec![name(&[(0, "a.example.")]), OTHER.to_vec()], named("a.example")),
        (vec![name(&[(9, "else"), (0, "a.example")])], named("a.example")),
        (vec![name(&[(0, "a_b.c-d")])], named("a_b.c-d")),
        (vec![OTHER.to_vec()], Ok(Some(Hello { name: None }))),
        (vec![name(&[(9, "else")])], Ok(Some(Hello { name: None }))),
        // Two names, wherever they are, are none.
        (vec![name(&[(0, "a.example"), (0, "b.example")])], Err(Refused::Malformed)),
        (vec![name(&[(0, "a.example")]), name(&[(0, "a.example")])], Err(Refused::Malformed)),
        (vec![name(&[(9, "else")]), name(&[(0, "a.example")])], Err(Refused::Malformed)),
        (vec![name(&[])], Err(Refused::Malformed)),
        (vec![vec![0, 0, 0, 0]], Err(Refused::Malformed)),
        (vec![name(&[(0, "")])], Err(Refused::Malformed)),
        (vec![name(&[(0, ".")])], Err(Refused::Malformed)),
        (vec![name(&[(0, "a\0.example")])], Err(Refused::Malformed)),
        (vec![name(&[(0, "::1")])], Err(Refused::Malformed)),
        (vec![name(&[(0, &"a".repeat(256))])], Err(Refused::Malformed)),
        (vec![vec![0, 0, 0, 9, 0]], Err(Refused::Malformed)),
    ] {
        let bytes = with(&extensions.iter().map(Vec::as_slice).collect::<Vec<_>>());
        assert_eq!(read(&bytes), expected, "{extensions:?}");
    }
    // Without extensions, as TLS 1.2 allows (RFC 5246 §7.4.1.2).
    let bare = [&[3, 3][..], &[7; 32], &[0], &[0, 2, 0, 0x2f], &[1, 0]].concat();
    assert_eq!(read(&wrap(&bare)), Ok(Some(Hello { name: None })));
    // Nothing may follow them.
    assert_eq!(read(&wrap(&[&bare[..], &[0, 0, 1]].concat())), Err(Refused::Malformed));
}

#[test]
fn what_can_become_no_hello_is_refused_at_once() {
    for (bytes, expected) in [
        (&b"GET / HTTP/1.1\r\n"[..], Refused::NotTls),
        (b"\x80\x2e\x01\x03\x01", Refused::NotTls),
        (&[22, 2], Refused::NotTls),
        // An alert, a ServerHello.
        (&[21, 3, 3, 0, 2, 1, 0], Refused::NotTls),
        (&[22, 3, 3, 0, 4, 2], Refused::NotTls),
        // Records of nothing, and of too much (RFC 8446 §5.1).
        (&[22, 3, 1, 0, 0], Refused::Malformed),
        (&[22, 3, 1, 0x40, 1], Refused::Malformed),
        // Something else in the middle of it.
        (&[22, 3, 1, 0, 2, 1, 0, 23], Refused::Malformed),
        (&[22, 3, 1, 0, 4, 1, 0, 0x40, 0], Refused::TooLong),
    ] {
        assert_eq!(read(bytes), Err(expected), "{bytes:?}");
    }
    // Records of one byte each make the longest hello longer than it may be.
    let mut bytes = with(&[&[&[0, 21, 0x0f, 0xf0][..], &[0; 0xff0]].concat()]);
    let body = bytes.split_off(RECORD_HEADER);
    let cut: Vec<u8> = body.iter().flat_map(|byte| [22, 3, 1, 0, 1, *byte]).collect();
    assert_eq!(read(&cut[..LONGEST - 1]), Ok(None));
    assert_eq!(read(&cut[..LONGEST]), Err(Refused::TooLong));
    assert_eq!(read(&cut), Err(Refused::TooLong));
}
