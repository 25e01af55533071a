//! SPDY/3's header blocks: names and values, compressed as one zlib stream over all blocks of a direction.
//!
//! Ours say nothing: the answer to a stream has no headers. So they need no compressor and its quarter MiB, only the bytes
//! of a zlib stream that stores the same four zeros again and again.

use bytes::Bytes;
use flate2::{Decompress, FlushDecompress, Status};

/// No block is longer once it is decompressed; a stream's headers are a hundred bytes.
const MOST: usize = 64 * 1024;

/// The dictionary (SPDY/3 §2.6.10.1) is a header block's worth of usual names and values, each behind its length …
const WORDS: &str = "\
    options,head,post,put,delete,trace,accept,accept-charset,accept-encoding,accept-language,accept-ranges,age,\
    allow,authorization,cache-control,connection,content-base,content-encoding,content-language,content-length,\
    content-location,content-md5,content-range,content-type,date,etag,expect,expires,from,host,if-match,\
    if-modified-since,if-none-match,if-range,if-unmodified-since,last-modified,location,max-forwards,pragma,\
    proxy-authenticate,proxy-authorization,range,referer,retry-after,server,te,trailer,transfer-encoding,upgrade,\
    user-agent,vary,via,warning,www-authenticate,method,get,status,200 OK,version,HTTP/1.1,url,public,set-cookie,\
    keep-alive,origin";
/// … and a text of their frequent parts.
const TEXT: &str = "\
    100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505203 Non-Authoritat\
    ive Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidden404 Not Found5\
    00 Internal Server Error501 Not Implemented503 Service UnavailableJan Feb Mar Apr May Jun Jul Aug Sept Oct N\
    ov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMTchunked,text/html,image/png,image/jpg,image/gif,applic\
    ation/xml,application/xhtml+xml,text/plain,text/javascript,publicprivatemax-age=gzip,deflate,sdchcharset=utf\
    -8charset=iso-8859-1,utf-,*,enq=0.";

/// The count 0 in a stored block, then the empty block that flushes (RFC 1951 §3.2.4).
const EMPTY: &[u8] = b"\x00\x04\x00\xfb\xff\0\0\0\0\x00\0\0\xff\xff";
/// The same behind a zlib header without dictionary (RFC 1950 §2.2).
const FIRST_EMPTY: &[u8] = b"\x78\x01\x00\x04\x00\xfb\xff\0\0\0\0\x00\0\0\xff\xff";

/// Names, in lower case, and values. Several values of a name are several pairs.
pub(crate) type Headers = Vec<(String, String)>;

/// Our block without headers.
pub(super) fn empty(first: bool) -> &'static [u8] {
    if first { FIRST_EMPTY } else { EMPTY }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HeaderError {
    #[error("a header block does not decompress")]
    Compression,
    #[error("a header block is too long")]
    TooLong,
    #[error("a header block is cut short")]
    Short,
}

/// The client's direction. Every block has to pass, in order, also those of no interest.
pub(super) struct Decompressor(Decompress);

impl Decompressor {
    pub(super) fn new() -> Self {
        Self(Decompress::new(true))
    }

    pub(super) fn headers(&mut self, block: &[u8]) -> Result<Headers, HeaderError> {
        parse(&self.decompress(block)?)
    }

    fn decompress(&mut self, mut block: &[u8]) -> Result<Vec<u8>, HeaderError> {
        let mut out = Vec::with_capacity(1024);
        loop {
            let (taken, made) = (self.0.total_in(), out.len());
            let status = self.0.decompress_vec(block, &mut out, FlushDecompress::Sync);
            let progress = (self.0.total_in() - taken) as usize;
            block = &block[progress.min(block.len())..];
            match status {
                Ok(Status::StreamEnd) => return Err(HeaderError::Compression),
                // Full: there may be more, of this block or of what is kept inside.
                Ok(_) if out.len() == out.capacity() => {
                    if out.len() >= MOST {
                        return Err(HeaderError::TooLong);
                    }
                    out.reserve(out.len());
                }
                Ok(_) if block.is_empty() => return Ok(out),
                Ok(_) if progress == 0 && out.len() == made => return Err(HeaderError::Compression),
                Ok(_) => {}
                Err(error) if error.needs_dictionary().is_some() => {
                    self.0.set_dictionary(&dictionary()).map_err(|_| HeaderError::Compression)?;
                }
                Err(_) => return Err(HeaderError::Compression),
            }
        }
    }
}

fn dictionary() -> Vec<u8> {
    let mut bytes = Vec::with_capacity(1423);
    for word in WORDS.split(',') {
        bytes.extend_from_slice(&(word.len() as u32).to_be_bytes());
        bytes.extend_from_slice(word.as_bytes());
    }
    bytes.extend_from_slice(TEXT.as_bytes());
    bytes
}

fn parse(block: &[u8]) -> Result<Headers, HeaderError> {
    let mut rest = Bytes::copy_from_slice(block);
    let count = number(&mut rest)?;
    let mut headers = Headers::new();
    for _ in 0..count {
        let name = text(&mut rest)?.to_lowercase();
        let value = text(&mut rest)?;
        headers.extend(value.split('\0').map(|value| (name.clone(), value.to_owned())));
    }
    Ok(headers)
}

fn number(rest: &mut Bytes) -> Result<usize, HeaderError> {
    let Some((bytes, _)) = rest.split_first_chunk::<4>() else { return Err(HeaderError::Short) };
    let number = u32::from_be_bytes(*bytes);
    let _ = rest.split_to(4);
    Ok(number as usize)
}

fn text(rest: &mut Bytes) -> Result<String, HeaderError> {
    let length = number(rest)?;
    if length > rest.len() {
        return Err(HeaderError::Short);
    }
    Ok(String::from_utf8_lossy(&rest.split_to(length)).into_owned())
}

#[cfg(test)]
pub(super) mod tests {
    use flate2::{Compress, Compression, FlushCompress};
    use proptest::prelude::*;

    use super::*;

    /// The compressor of a client, as spdystream has one.
    pub(crate) struct Compressor(Compress);

    impl Compressor {
        pub(crate) fn new() -> Self {
            let mut compress = Compress::new(Compression::best(), true);
            compress.set_dictionary(&dictionary()).unwrap();
            Self(compress)
        }

        pub(crate) fn block(&mut self, headers: &[(String, String)]) -> Vec<u8> {
            let mut plain = (headers.len() as u32).to_be_bytes().to_vec();
            for text in headers.iter().flat_map(|(name, value)| [name, value]) {
                plain.extend_from_slice(&(text.len() as u32).to_be_bytes());
                plain.extend_from_slice(text.as_bytes());
            }
            let mut out = Vec::with_capacity(plain.len() * 2 + 1024);
            self.0.compress_vec(&plain, &mut out, FlushCompress::Sync).unwrap();
            out
        }
    }

    #[test]
    fn the_dictionary_is_spdy3s() {
        let mut compress = Compress::new(Compression::best(), true);
        // The identifier that every client sends with its first block.
        assert_eq!(compress.set_dictionary(&dictionary()).unwrap(), 0xe3c6_a7c2);
    }

    /// The first two streams of `kubectl exec` (1.32, KUBECTL_REMOTE_COMMAND_WEBSOCKETS=false).
    #[test]
    fn kubectls_blocks_are_read() {
        let first = b"\x78\xf9\xe3\xc6\xa7\xc2\x62\x60\x60\x60\x04\xa7\xb3\x92\xa2\xd4\xc4\x5c\x68\x51\xc2\x9a\x0a\x0a\
            \x68\0\0\0\0\xff\xff";
        let second = b"\xc2\x2a\xc5\x56\x5c\x92\x92\x5f\x5a\x02\0\0\0\xff\xff";
        let mut decompressor = Decompressor::new();
        let header = |value: &str| Ok(vec![("streamtype".to_owned(), value.to_owned())]);
        assert_eq!(decompressor.headers(first), header("error"));
        assert_eq!(decompressor.headers(second), header("stdout"));
    }

    #[test]
    fn our_empty_blocks_are_one_stream() {
        let mut client = Decompressor::new();
        assert_eq!(client.headers(empty(true)), Ok(Vec::new()));
        assert_eq!(client.headers(empty(false)), Ok(Vec::new()));
    }

    #[test]
    fn nonsense_is_refused() {
        assert_eq!(Decompressor::new().headers(b"nonsense"), Err(HeaderError::Compression));
        assert_eq!(parse(b"\0\0\0\x01\0\0\0\x09a"), Err(HeaderError::Short));
        let bomb = vec![("a".to_owned(), "b".repeat(10 * MOST))];
        assert_eq!(Decompressor::new().headers(&Compressor::new().block(&bomb)), Err(HeaderError::TooLong));
    }

    proptest! {
        #[test]
        fn blocks_come_through_in_order(
            blocks in prop::collection::vec(prop::collection::vec(("[a-z]{1,9}", "[ -~]{0,3000}"), 0..6), 1..6),
        ) {
            let (mut compressor, mut decompressor) = (Compressor::new(), Decompressor::new());
            for headers in blocks {
                prop_assert_eq!(decompressor.headers(&compressor.block(&headers)), Ok(headers));
            }
        }
    }
}
