use super::*;

fn ends(from: &str, to: &str) -> Ends {
    Ends { from: from.parse().unwrap(), to: to.parse().unwrap() }
}

#[test]
fn lines() {
    let good = [
        ("PROXY TCP4 192.0.2.1 198.51.100.2 5 443\r\n", Some(ends("192.0.2.1:5", "198.51.100.2:443"))),
        ("PROXY TCP6 2001:db8::1 ::1 65535 0\r\n", Some(ends("[2001:db8::1]:65535", "[::1]:0"))),
        ("PROXY UNKNOWN\r\n", None),
        ("PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\n", None),
    ];
    for (text, ends) in good {
        let whole = Announcement { size: text.len(), skip: 0, ends };
        assert_eq!(parse(format!("{text}GET /").as_bytes()), Ok(Some(whole)), "{text}");
        for cut in 0..text.len() {
            assert_eq!(parse(&text.as_bytes()[..cut]), Ok(None), "{}", &text[..cut]);
        }
    }
    for bad in [
        "PROXY TCP4 192.0.2.1 198.51.100.2 5\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.2 5 443 6\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.2 05 443\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.2 +5 443\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.2 65536 443\r\n",
        "PROXY TCP4 192.0.2.01 198.51.100.2 5 443\r\n",
        "PROXY TCP4 ::1 ::1 5 443\r\n",
        "PROXY TCP6 192.0.2.1 192.0.2.1 5 443\r\n",
        "PROXY  TCP4 192.0.2.1 198.51.100.2 5 443\r\n",
        "PROXY TCP5 192.0.2.1 198.51.100.2 5 443\r\n",
        "PROXY \r\n",
        "PROXY TCP4 192.0.2.1\n198.51.100.2 5 443\r\n",
    ] {
        assert_eq!(parse(bad.as_bytes()), Err(Refused::Line), "{bad}");
    }
    assert_eq!(parse(format!("PROXY UNKNOWN {}\r\n", "x".repeat(100)).as_bytes()), Err(Refused::Line));
    for bad in ["GET / HTTP/1.1\r\n", "proxy TCP4", "\r\nGET /", "PROXYTCP4", "\u{16}\u{3}\u{1}"] {
        assert_eq!(parse(bad.as_bytes()), Err(Refused::Absent), "{bad:?}");
    }
}

fn header(command: u8, kind: u8, rest: &[u8]) -> Vec<u8> {
    let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
    [&SIGNATURE[..], &[command, kind], &length, rest].concat()
}

#[test]
fn headers() {
    let four = [192, 0, 2, 1, 198, 51, 100, 2, 0, 5, 1, 187];
    let with_fields = [&four[..], &[4, 0, 1, 0, 0xea, 0, 2, b'h', b'i']].concat();
    let known = Some(ends("192.0.2.1:5", "198.51.100.2:443"));
    let read = |bytes: &[u8]| parse(bytes).unwrap().unwrap();
    assert_eq!(read(&header(0x21, 0x11, &four)), Announcement { size: 28, skip: 0, ends: known });
    assert_eq!(read(&header(0x21, 0x11, &with_fields)), Announcement { size: 28, skip: 9, ends: known });
    // Whoever speaks for itself may say what it likes about families.
    assert_eq!(read(&header(0x20, 0x00, &[])), Announcement { size: 16, skip: 0, ends: None });
    assert_eq!(read(&header(0x20, 0xff, &[])), Announcement { size: 16, skip: 0, ends: None });
    assert_eq!(read(&header(0x20, 0x11, &four)), Announcement { size: 16, skip: 12, ends: None });
    // Unspecified, datagrams, and sockets of the file system.
    for (kind, rest) in [(0x00, &[][..]), (0x01, &[1, 2, 3]), (0x12, &four), (0x31, &[0; 216])] {
        let whole = Announcement { size: 16, skip: rest.len(), ends: None };
        assert_eq!(read(&header(0x21, kind, rest)), whole, "{kind:x}");
    }
    assert_eq!(parse(&header(0x21, 0x31, &[0; 215])), Err(Refused::Short));
    assert_eq!(parse(&header(0x21, 0x11, &four[..11])), Err(Refused::Short));
    for (command, kind) in [(0x11, 0x11), (0x22, 0x11), (0x31, 0x11), (0x21, 0x41), (0x21, 0x13)] {
        assert_eq!(parse(&header(command, kind, &four)), Err(Refused::Unknown), "{command:x} {kind:x}");
    }
    let whole = header(0x21, 0x11, &with_fields);
    for cut in 0..28 {
        assert_eq!(parse(&whole[..cut]), Ok(None), "{cut}");
    }
}

#[test]
fn what_is_written_is_read_back() {
    let cases = [
        ("192.0.2.1:5", "198.51.100.2:443", "192.0.2.1:5", "198.51.100.2:443"),
        ("[::ffff:192.0.2.1]:5", "198.51.100.2:443", "192.0.2.1:5", "198.51.100.2:443"),
        ("[2001:db8::1]:5", "[2001:db8::2]:6", "[2001:db8::1]:5", "[2001:db8::2]:6"),
        ("192.0.2.1:5", "[2001:db8::2]:6", "[::ffff:192.0.2.1]:5", "[2001:db8::2]:6"),
    ];
    for version in [Version::One, Version::Two] {
        for (from, to, read_from, read_to) in cases {
            let mut out = Vec::new();
            write(version, Some(ends(from, to)), &mut out);
            let whole = Announcement { size: out.len(), skip: 0, ends: Some(ends(read_from, read_to)) };
            assert_eq!(parse(&out), Ok(Some(whole)), "{from} {to}");
            assert!(out.len() <= ENOUGH);
        }
        for fill in [write_local, |version, out: &mut Vec<u8>| write(version, None, out)] {
            let mut out = Vec::new();
            fill(version, &mut out);
            assert_eq!(parse(&out), Ok(Some(Announcement { size: out.len(), skip: 0, ends: None })));
        }
    }
}

proptest::proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes: Vec<u8>, signed: bool) {
        let whole = if signed { [&SIGNATURE[..], &bytes].concat() } else { [b"PROXY ", &bytes[..]].concat() };
        if let Ok(Some(announcement)) = parse(&whole) {
            assert!(announcement.size <= whole.len());
            // What follows changes nothing.
            assert_eq!(parse(&[&whole[..announcement.size], b"x"].concat()), Ok(Some(announcement)));
        }
    }
}
