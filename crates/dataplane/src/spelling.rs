//! How a path is spelled: what most applications take it for once they have undone its encoding, which may be more than one
//! program means by the same bytes.

use std::borrow::Cow;

use crate::hex;

/// What one look at a path says about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spelling {
    /// There is something of which dot segments, or a NUL, are made: [`has_dots()`] says whether there are any.
    pub may_have_dots: bool,
    /// [`plain_path()`] is another.
    pub odd: bool,
}

const SLASH: u8 = 1;
/// Where a slash follows a slash too.
const ODD: u8 = SLASH << 1;
const DOT: u8 = 4;

const CLASSES: [u8; 256] = {
    let mut classes = [0; 256];
    classes[b'/' as usize] = SLASH;
    classes[b'.' as usize] = DOT;
    classes[b'%' as usize] = ODD | DOT;
    classes[b';' as usize] = ODD;
    classes[b'\\' as usize] = ODD;
    classes
};

impl Spelling {
    /// Without a branch: most paths have nothing odd, and all pay for the look.
    pub fn of(path: &[u8]) -> Spelling {
        let (mut seen, mut before) = (0, 0);
        for byte in path {
            let class = CLASSES[usize::from(*byte)];
            seen |= class | (class & before & SLASH) << 1;
            before = class;
        }
        Spelling { may_have_dots: seen & DOT != 0, odd: seen & ODD != 0 }
    }
}

/// The path as most applications understand it: percent-encoding undone once, segments' parameters left out, repeated
/// slashes as one (RFC 3986 §6.2.2).
pub fn plain_path(path: &[u8]) -> Cow<'_, [u8]> {
    if !Spelling::of(path).odd {
        return Cow::Borrowed(path);
    }
    let mut plain = Vec::with_capacity(path.len());
    write_plain(path, &mut plain);
    Cow::Owned(plain)
}

/// Percent-encoding undone once; what is no encoding is as it stands.
fn undone(path: &[u8]) -> impl Iterator<Item = u8> {
    let mut rest = path;
    std::iter::from_fn(move || {
        let (first, after) = rest.split_first()?;
        let meant = if *first == b'%' { hex::pair(after) } else { None };
        rest = if meant.is_some() { &after[2..] } else { after };
        Some(meant.unwrap_or(*first))
    })
}

/// Appends what [`plain_path()`] says.
pub fn write_plain(path: &[u8], plain: &mut Vec<u8>) {
    let mut in_parameter = false;
    for byte in undone(path) {
        match byte {
            b'/' | b'\\' => {
                in_parameter = false;
                if plain.last() != Some(&b'/') {
                    plain.push(b'/');
                }
            }
            b';' => in_parameter = true,
            _ if in_parameter => {}
            byte => plain.push(byte),
        }
    }
}

/// `.` or `..` as a whole segment (RFC 3986 §3.3, §6.2.2), or a NUL; also where dots, slashes or the NUL are percent-encoded,
/// since applications undo that before they look.
pub fn has_dots(path: &[u8]) -> bool {
    // Of the segment, as long as there is nothing else in it.
    let mut dots = Some(0);
    for byte in undone(path) {
        dots = match (byte, dots) {
            (0, _) => return true,
            // Parameters of a segment are cut off by some.
            (b'/' | b'\\' | b';', Some(1 | 2)) => return true,
            (b'/' | b'\\', _) => Some(0),
            (b'.', Some(before)) => Some(before + 1),
            _ => None,
        };
    }
    matches!(dots, Some(1 | 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dot_segments() {
        for path in [
            "/..",
            "/a/../b",
            "/./",
            "/a/%2e%2E/b",
            "/.%2e",
            "/a/..;x=1/b",
            "/a\\..\\b",
            "/a/..%2Fb",
            "/a%5c.%2e",
            "/a%2f..%3b/b",
            "/a%00",
        ] {
            assert!(has_dots(path.as_bytes()) && Spelling::of(path.as_bytes()).may_have_dots, "{path}");
        }
        for path in [
            "/",
            "/a.b",
            "/.well-known/x",
            "/...",
            "/a..b/c",
            "/%2eab",
            "/a/%20/b",
            "/a;b/c",
            "/a%2fb",
            "/a;../b",
            "/a%252e%252e/",
            "/a.%",
        ] {
            assert!(!has_dots(path.as_bytes()), "{path}");
        }
    }

    #[test]
    fn plain_paths() {
        for (path, plain) in [
            ("/a/b", "/a/b"),
            ("/%41%2fb", "/A/b"),
            ("//a///b", "/a/b"),
            ("/a;x=1/b;y", "/a/b"),
            ("/a\\b", "/a/b"),
            ("/%zz%4", "/%zz%4"),
            ("/%2541", "/%41"),
        ] {
            assert_eq!(plain_path(path.as_bytes()), plain.as_bytes(), "{path}");
        }
    }

    proptest::proptest! {
        /// The short look misses nothing that the long ones find.
        #[test]
        fn one_look_is_enough(path in "/[a/.%;\\\\25efcEFC0]{0,12}") {
            let path = path.as_bytes();
            let spelling = Spelling::of(path);
            proptest::prop_assert!(spelling.may_have_dots || !has_dots(path));
            let mut plain = Vec::new();
            write_plain(path, &mut plain);
            proptest::prop_assert!(spelling.odd || plain == path);
        }
    }
}
