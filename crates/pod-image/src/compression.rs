//! Compressed streams, told apart by their first bytes: media types and file names are wrong often enough.

use std::io::{self, BufRead, BufReader, Read};

use flate2::bufread::MultiGzDecoder;
use serde::{Deserialize, Serialize};

const GZIP: &[u8] = &[0x1f, 0x8b];
const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];
/// zstd's skippable frames, 0x184D2A50 to 0x184D2A5F little-endian, may come first (zstd:chunked, pzstd).
const ZSTD_SKIPPABLE: &[u8] = &[0x2a, 0x4d, 0x18];
const XZ: &[u8] = &[0xfd, b'7', b'z', b'X', b'Z', 0];
const BZIP2: &[u8] = b"BZh";
/// The longest magic above.
const PEEK: u64 = 6;

/// How a layer that we write is compressed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Compression {
    /// Quickest, for images that stay on this machine.
    None,
    /// What every runtime and registry reads.
    #[default]
    Gzip,
    /// Smaller and quicker; containerd 1.5, Docker 23 and newer read it.
    Zstd,
}

/// Reads `reader` decompressed if it is gzip or zstd (also of several members or frames), else as it is.
///
/// # Errors
/// [`io::ErrorKind::Unsupported`] for xz and bzip2, which OCI does not know.
pub(crate) fn decompress<'a>(mut reader: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let mut start = Vec::new();
    reader.by_ref().take(PEEK).read_to_end(&mut start)?;
    let kind = detect(&start)?;
    let whole: Box<dyn BufRead + 'a> =
        Box::new(BufReader::with_capacity(64 << 10, io::Cursor::new(start).chain(reader)));
    Ok(match kind {
        Compression::None => Box::new(whole),
        Compression::Gzip => Box::new(MultiGzDecoder::new(whole)),
        Compression::Zstd => Box::new(zstd::stream::read::Decoder::with_buffer(whole)?),
    })
}

/// What a stream that begins with `start` is.
pub(crate) fn detect(start: &[u8]) -> io::Result<Compression> {
    let refuse = |name| Err(io::Error::new(io::ErrorKind::Unsupported, format!("{name} compression is not supported")));
    if start.starts_with(GZIP) {
        Ok(Compression::Gzip)
    } else if start.starts_with(ZSTD)
        || (start.len() >= 4 && start[0] & 0xf0 == 0x50 && start[1..].starts_with(ZSTD_SKIPPABLE))
    {
        Ok(Compression::Zstd)
    } else if start.starts_with(XZ) {
        refuse("xz")
    } else if start.starts_with(BZIP2) {
        refuse("bzip2")
    } else {
        Ok(Compression::None)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn read(bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut text = Vec::new();
        decompress(bytes)?.read_to_end(&mut text)?;
        Ok(text)
    }

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn every_kind_is_read() {
        assert_eq!(read(b"").unwrap(), b"");
        assert_eq!(read(b"x").unwrap(), b"x");
        assert_eq!(read(b"plain text").unwrap(), b"plain text");
        assert_eq!(read(&[gzip(b"two "), gzip(b"members")].concat()).unwrap(), b"two members");
        let frame = |text: &[u8]| zstd::encode_all(text, 1).unwrap();
        assert_eq!(read(&[frame(b"two "), frame(b"frames")].concat()).unwrap(), b"two frames");
        let skippable = [&[0x50, 0x2a, 0x4d, 0x18, 2, 0, 0, 0, 1, 1][..], &frame(b"after")].concat();
        assert_eq!(read(&skippable).unwrap(), b"after");
    }

    #[test]
    fn damage_and_strangers_are_errors() {
        let mut cut = gzip(b"some text that is cut off");
        cut.truncate(cut.len() - 6);
        assert!(read(&cut).is_err());
        assert!(read(b"\xfd7zXZ\0more").unwrap_err().to_string().contains("xz"));
        assert!(read(b"BZh91AY").unwrap_err().to_string().contains("bzip2"));
    }
}
