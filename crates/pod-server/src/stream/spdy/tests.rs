use proptest::prelude::*;

use super::header::tests::Compressor;
use super::*;

fn frames(bytes: &[u8], step: usize) -> Result<Vec<Frame>, SpdyError> {
    let (mut decoder, mut buffer, mut frames) = (Decoder::new(), BytesMut::new(), Vec::new());
    for part in bytes.chunks(step) {
        buffer.extend_from_slice(part);
        while let Some(frame) = decoder.decode(&mut buffer)? {
            frames.push(frame);
        }
    }
    assert!(buffer.is_empty());
    Ok(frames)
}

fn open(compressor: &mut Compressor, stream: u32, headers: &[(&str, &str)]) -> Vec<u8> {
    let headers: Vec<_> = headers.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
    control(SYN_STREAM, &[&stream.to_be_bytes(), &[0; 6], &compressor.block(&headers)]).to_vec()
}

fn data(stream: u32, bytes: &[u8], ended: bool) -> Vec<u8> {
    let (sender, _queue) = super::super::wire::queue();
    Writer::new(sender, false).data_frame(stream, bytes, ended).to_vec()
}

#[test]
fn frames_are_told_apart() {
    let mut compressor = Compressor::new();
    let mut bytes = open(&mut compressor, 1, &[("streamtype", "error")]);
    bytes.extend(open(&mut compressor, 3, &[("streamtype", "stdin")]));
    bytes.extend_from_slice(&control(PING, &[&7u32.to_be_bytes()]));
    bytes.extend_from_slice(&control(9, &[&[0; 8]]));
    bytes.extend_from_slice(&control(4, &[&[0; 4]]));
    bytes.extend_from_slice(&control(RST_STREAM, &[&3u32.to_be_bytes(), &5u32.to_be_bytes()]));
    bytes.extend_from_slice(&control(GOAWAY, &[&[0; 8]]));
    bytes.extend(data(3, b"hi", true));
    let header = |value: &str| vec![("streamtype".to_owned(), value.to_owned())];
    let expected = [
        Frame::Open { stream: 1, headers: header("error"), ended: false },
        Frame::Open { stream: 3, headers: header("stdin"), ended: false },
        Frame::Ping(7),
        Frame::Other,
        Frame::Other,
        Frame::Reset { stream: 3 },
        Frame::GoAway,
        Frame::Data { stream: 3, bytes: b"hi"[..].into(), ended: true },
    ];
    assert_eq!(frames(&bytes, usize::MAX).unwrap(), expected);
}

#[test]
fn nonsense_is_refused() {
    assert_eq!(frames(&[0x80, 2, 0, 1, 0, 0, 0, 0], 8), Err(SpdyError::Version));
    assert_eq!(frames(&[0x80, 3, 0, 1, 0, 0, 0, 4, 0, 0, 0, 0], 12), Err(SpdyError::Length(1)));
    assert_eq!(frames(&[0x80, 3, 0, 1, 0, 0xff, 0, 0], 8), Err(SpdyError::Length(1)));
    assert_eq!(frames(&[0; 8], 8), Err(SpdyError::Zero));
    // HTTP is no SPDY: it is the data of a stream that nobody has opened.
    assert!(matches!(frames(b"GET / HT", 8), Ok(frames) if frames.is_empty()));
}

proptest! {
    #[test]
    fn cuts_change_nothing(payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 1..6), step in 1usize..60) {
        let bytes: Vec<u8> = payloads.iter().flat_map(|payload| data(5, payload, true)).collect();
        let (mut seen, mut current): (Vec<Vec<u8>>, Vec<u8>) = (Vec::new(), Vec::new());
        for frame in frames(&bytes, step).unwrap() {
            let Frame::Data { stream: 5, bytes, ended } = frame else { panic!("{frame:?}") };
            current.extend_from_slice(&bytes);
            if ended {
                seen.push(std::mem::take(&mut current));
            }
        }
        prop_assert_eq!(seen, payloads);
    }

    #[test]
    fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        let (mut decoder, mut buffer) = (Decoder::new(), BytesMut::from(&bytes[..]));
        while let Ok(Some(_)) = decoder.decode(&mut buffer) {}
    }
}
