use proptest::prelude::*;

use super::*;
use crate::write::Writer;

const NOON: i64 = 1_786_795_200_000_000_000;
const SECOND: i64 = 1_000_000_000;

fn log(directory: &Path, attempt: u32, max_size: u64) -> Writer {
    Writer::open(files::attempt_path(directory, attempt), max_size, 100, NOON).unwrap()
}

fn messages(follower: &mut Follower) -> Vec<String> {
    let mut all = Vec::new();
    loop {
        let lines = follower.read_available().unwrap();
        if lines.is_empty() {
            return all;
        }
        all.extend(lines.into_iter().map(|line| String::from_utf8(line.content).unwrap()));
    }
}

#[test]
fn a_log_that_does_not_exist_yet_is_waited_for() {
    let directory = tempfile::tempdir().unwrap();
    let mut follower = Follower::new(directory.path().join("app"), 0, Options::default());
    assert!(messages(&mut follower).is_empty());
    let mut writer = log(&directory.path().join("app"), 0, 1 << 20);
    writer.write(Stream::Stdout, b"a\nb", NOON).unwrap();
    assert_eq!(messages(&mut follower), ["a"]);
    writer.write(Stream::Stdout, b"\n", NOON).unwrap();
    writer.write(Stream::Stderr, b"tail", NOON).unwrap();
    writer.finish(NOON).unwrap();
    assert_eq!(messages(&mut follower), ["b", "tail"]);
}

#[test]
fn tail_and_since() {
    let directory = tempfile::tempdir().unwrap();
    // Two entries of one letter fit into a file of 90 bytes.
    let mut writer = log(directory.path(), 0, 90);
    for (index, letter) in ["a", "b", "c", "d", "e"].iter().enumerate() {
        writer.write(Stream::Stdout, format!("{letter}\n").as_bytes(), NOON + index as i64 * SECOND).unwrap();
    }
    let read = |options: Options| messages(&mut Follower::new(directory.path(), 0, options)).join("");
    let all = Options { rotated: true, ..Options::default() };
    assert_eq!(read(Options::default()), "e");
    assert_eq!(read(all), "abcde");
    for (tail, expected) in [(0, ""), (1, "e"), (2, "de"), (3, "cde"), (5, "abcde"), (9, "abcde")] {
        assert_eq!(read(Options { tail: Some(tail), ..all }), expected);
    }
    assert_eq!(read(Options { tail: Some(4), ..Options::default() }), "e");
    assert_eq!(read(Options { since: Some(NOON + 3 * SECOND), ..all }), "de");
    assert_eq!(read(Options { since: Some(NOON + 3 * SECOND), tail: Some(1), ..all }), "e");

    let mut follower = Follower::new(directory.path(), 0, Options { tail: Some(0), ..Options::default() });
    assert!(messages(&mut follower).is_empty());
    writer.write(Stream::Stdout, b"f\ng\nh\n", NOON).unwrap();
    assert_eq!(messages(&mut follower), ["f", "g", "h"], "the tail is only for the beginning");
}

#[test]
fn several_rotations_between_two_looks_lose_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let mut writer = log(directory.path(), 0, 90);
    writer.write(Stream::Stdout, b"0\n", NOON).unwrap();
    let mut follower = Follower::new(directory.path(), 0, Options::default());
    assert_eq!(messages(&mut follower), ["0"]);
    let lines: Vec<_> = (1..40).map(|n| n.to_string()).collect();
    for line in &lines {
        writer.write(Stream::Stdout, format!("{line}\n").as_bytes(), NOON).unwrap();
    }
    assert_eq!(messages(&mut follower), lines);
}

#[test]
fn a_file_deleted_under_the_reader_is_still_finished() {
    let directory = tempfile::tempdir().unwrap();
    let mut writer = Writer::open(files::attempt_path(directory.path(), 0), 90, 2, NOON).unwrap();
    writer.write(Stream::Stdout, b"a\n", NOON).unwrap();
    let mut follower = Follower::new(directory.path(), 0, Options::default());
    assert_eq!(messages(&mut follower), ["a"]);
    // b joins a; c d and e f fill further files, of which only the last two stay.
    writer.write(Stream::Stdout, b"b\nc\nd\ne\nf\ng\n", NOON).unwrap();
    assert_eq!(messages(&mut follower), ["b", "e", "f", "g"]);
}

#[test]
fn later_attempts_follow_when_asked_for() {
    let directory = tempfile::tempdir().unwrap();
    let options = Options { later_attempts: true, ..Options::default() };
    let mut follower = Follower::new(directory.path(), 0, options);
    let mut alone = Follower::new(directory.path(), 0, Options::default());
    let mut first = log(directory.path(), 0, 90);
    first.write(Stream::Stdout, b"a\nb\nc\n", NOON).unwrap();
    assert_eq!(messages(&mut follower), ["c"]);
    first.write(Stream::Stdout, b"cut", NOON).unwrap();
    first.finish(NOON).unwrap();
    let mut second = log(directory.path(), 2, 90);
    second.write(Stream::Stdout, b"x\ny\nz\n", NOON).unwrap();
    assert_eq!(messages(&mut follower), ["cut", "x", "y", "z"]);
    assert_eq!(follower.attempt(), 2);
    assert_eq!(messages(&mut alone), ["c", "cut"]);
    files::remove_attempt(directory.path(), 0).unwrap();
    assert_eq!(messages(&mut Follower::new(directory.path(), 0, options)), ["x", "y", "z"]);
}

#[test]
fn what_is_no_entry_is_skipped_and_counted() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("0.log");
    let entry = "2026-08-15T12:00:00Z stdout F";
    fs::write(&path, format!("noise\n{entry} a\n\n{}\n{entry} b\n{entry} to", "x".repeat(3 << 20))).unwrap();
    let mut follower = Follower::new(directory.path(), 0, Options { later_attempts: true, ..Options::default() });
    assert_eq!(messages(&mut follower), ["a", "b"]);
    assert!(follower.skipped() >= 3, "{}", follower.skipped());
    // When the writer has moved on, the torn end is all there will ever be.
    fs::write(directory.path().join("1.log"), format!("{entry} next\n")).unwrap();
    assert_eq!(messages(&mut follower), ["to", "next"]);
}

#[test]
fn an_emptied_file_is_read_from_its_beginning() {
    let directory = tempfile::tempdir().unwrap();
    let mut writer = log(directory.path(), 0, 1 << 20);
    let mut follower = Follower::new(directory.path(), 0, Options::default());
    writer.write(Stream::Stdout, b"a\nb\n", NOON).unwrap();
    assert_eq!(messages(&mut follower), ["a", "b"]);
    fs::write(writer.path(), "").unwrap();
    writer.write(Stream::Stdout, b"c\n", NOON).unwrap();
    assert_eq!(messages(&mut follower), ["c"]);
}

#[test]
fn text_for_people() {
    let line = |content: &str, partial| Line {
        attempt: 0,
        time: NOON,
        stream: Stream::Stdout,
        partial,
        content: content.as_bytes().to_vec(),
    };
    let (mut out, mut mid_line) = (Vec::new(), false);
    for line in [line("a", true), line("b", false), line("c", true)] {
        line.append_to(&mut out, true, &mut mid_line);
    }
    let time = "2026-08-15T12:00:00.000000000Z";
    assert_eq!(String::from_utf8(out).unwrap(), format!("{time} ab\n{time} c"));
}

/// A container's output: which stream, what bytes.
fn output() -> impl Strategy<Value = Vec<(bool, Vec<u8>)>> {
    let piece = prop_oneof![
        4 => proptest::collection::vec(prop_oneof![3 => any::<u8>(), 1 => Just(b'\n')], 0..40),
        2 => "[a-z \n]{0,80}".prop_map(String::into_bytes),
        1 => (16_000usize..40_000).prop_map(|length| vec![b'x'; length]),
        1 => Just(b"\n".to_vec()),
    ];
    proptest::collection::vec((any::<bool>(), piece), 0..60)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Whatever a container writes, in whatever pieces, is read back byte for byte and stream by stream, with the file
    /// rotating below and the reader looking at any moments.
    #[test]
    fn bytes_written_are_bytes_read(output in output(), max_size in 1u64..60_000, looks in any::<u64>()) {
        let directory = tempfile::tempdir().unwrap();
        // Nothing may be deleted before it is read, or there would be something to miss.
        let mut writer = Writer::open(files::attempt_path(directory.path(), 0), max_size, 100_000, NOON).unwrap();
        let mut early = Follower::new(directory.path(), 0, Options::default());
        let (mut written, mut seen) = ([Vec::new(), Vec::new()], [Vec::new(), Vec::new()]);
        let append = |lines: Vec<Line>, to: &mut [Vec<u8>; 2]| {
            for line in lines {
                to[line.stream as usize].extend_from_slice(&line.content);
                to[line.stream as usize].extend((!line.partial).then_some(b'\n'));
            }
        };
        early.read_available().unwrap();
        for (index, (error, bytes)) in output.iter().enumerate() {
            let stream = if *error { Stream::Stderr } else { Stream::Stdout };
            writer.write(stream, bytes, NOON + index as i64 * SECOND / 3).unwrap();
            written[stream as usize].extend_from_slice(bytes);
            if looks >> (index % 64) & 1 == 1 {
                append(early.read_available().unwrap(), &mut seen);
            }
        }
        writer.finish(NOON).unwrap();
        let mut late = Follower::new(directory.path(), 0, Options { rotated: true, ..Options::default() });
        for (follower, mut seen) in [(&mut early, seen), (&mut late, Default::default())] {
            loop {
                let lines = follower.read_available().unwrap();
                if lines.is_empty() {
                    break;
                }
                append(lines, &mut seen);
            }
            prop_assert_eq!(follower.skipped(), 0);
            prop_assert!(seen == written, "{:?} bytes written, {:?} read", written.each_ref().map(Vec::len), seen.each_ref().map(Vec::len));
        }
    }
}

/// A writer and a reader at full speed in two threads, the reader without any word from the writer.
#[test]
fn a_racing_reader_sees_every_line_once_and_in_order() {
    const LINES: u64 = 30_000;
    let directory = tempfile::tempdir().unwrap();
    let path = files::attempt_path(directory.path(), 0);
    let mut writer = Writer::open(&path, 20_000, 100_000, NOON).unwrap();
    let mut follower = Follower::new(directory.path(), 0, Options::default());
    // The reader must have the first file open before the writer races ahead, or it would begin with a later one.
    writer.write(Stream::Stdout, b"0\n", NOON).unwrap();
    let mut next = follower.read_available().unwrap().len() as u64;
    assert_eq!(next, 1);
    std::thread::scope(|scope| {
        scope.spawn(move || {
            for line in 1..LINES {
                writer.write(Stream::Stdout, format!("{line}\n").as_bytes(), NOON + line as i64).unwrap();
            }
        });
        while next < LINES {
            let lines = follower.read_available().unwrap();
            if lines.is_empty() {
                std::thread::yield_now();
            }
            for line in lines {
                assert_eq!(String::from_utf8(line.content).unwrap(), next.to_string());
                next += 1;
            }
        }
    });
}
