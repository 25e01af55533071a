use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::parse::parse;

const NOON: i64 = 1_786_795_200_000_000_000;
const TIME: &str = "2026-08-15T12:00:00.000000000Z";

struct Log {
    directory: tempfile::TempDir,
    writer: Writer,
}

impl Log {
    fn new(max_size: u64, max_files: u32) -> Log {
        let directory = tempfile::tempdir().unwrap();
        let writer = Writer::open(directory.path().join("pod/app/0.log"), max_size, max_files, NOON).unwrap();
        Log { directory, writer }
    }

    fn text(&self) -> String {
        fs::read_to_string(self.writer.path()).unwrap()
    }

    /// Rotated files, oldest first, then the live one; only the messages, joined by `|`.
    fn files(&self) -> Vec<String> {
        let rotated = files::rotated(self.writer.path()).unwrap();
        let paths = rotated.into_iter().map(|file| file.path).chain([self.writer.path().to_owned()]);
        let messages = |path: PathBuf| {
            let text = fs::read(path).unwrap();
            let lines = text.split_inclusive(|byte| *byte == b'\n').map(|line| {
                String::from_utf8_lossy(parse(line.strip_suffix(b"\n").unwrap()).unwrap().content).into_owned()
            });
            lines.collect::<Vec<_>>().join("|")
        };
        paths.map(messages).collect()
    }
}

#[test]
fn entries_are_written_when_their_newline_arrives() {
    let mut log = Log::new(1 << 20, 5);
    log.writer.write(Stream::Stdout, b"one\ntw", NOON).unwrap();
    log.writer.write(Stream::Stderr, b"oops\n", NOON).unwrap();
    log.writer.write(Stream::Stdout, b"o\n\nlast", NOON).unwrap();
    let entry = |rest: &str| format!("{TIME} {rest}\n");
    let lines = ["stdout F one", "stderr F oops", "stdout F two", "stdout F "].map(entry).concat();
    assert_eq!(log.text(), lines);
    log.writer.finish(NOON).unwrap();
    assert_eq!(log.text(), lines + &entry("stdout P last"));
    log.writer.finish(NOON).unwrap();
    assert_eq!(log.text().lines().count(), 5);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(log.writer.path()), 0o640);
    assert_eq!(mode(log.directory.path().join("pod/app").as_path()), 0o755);
}

#[test]
fn long_lines_are_split_at_the_limit_and_not_before() {
    for (length, expected) in [
        (MAX_MESSAGE, vec![(false, MAX_MESSAGE)]),
        (MAX_MESSAGE + 1, vec![(true, MAX_MESSAGE), (false, 1)]),
        (3 * MAX_MESSAGE, vec![(true, MAX_MESSAGE), (true, MAX_MESSAGE), (false, MAX_MESSAGE)]),
    ] {
        let line = [vec![b'x'; length], vec![b'\n']].concat();
        for chunk in [line.len(), 1000, MAX_MESSAGE, 1] {
            let mut log = Log::new(1 << 30, 5);
            for piece in line.chunks(chunk) {
                log.writer.write(Stream::Stderr, piece, NOON).unwrap();
            }
            let text = fs::read(log.writer.path()).unwrap();
            let entries: Vec<_> = text
                .split(|byte| *byte == b'\n')
                .filter(|line| !line.is_empty())
                .map(|line| parse(line).unwrap())
                .map(|entry| (entry.partial, entry.content.len()))
                .collect();
            assert_eq!(entries, expected, "{length} in pieces of {chunk}");
        }
    }
}

#[test]
fn rotation_keeps_the_newest_files_and_whole_entries() {
    // An entry of four letters is 45 bytes, so two fit.
    let mut log = Log::new(100, 3);
    for line in ["aaaa\nbbbb\n", "cccc\n", "dddd\neeee\nffff\n", "gggg\n"] {
        log.writer.write(Stream::Stdout, line.as_bytes(), NOON).unwrap();
    }
    assert_eq!(log.files(), ["cccc|dddd", "eeee|ffff", "gggg"]);
    let names: Vec<_> = files::rotated(log.writer.path()).unwrap().iter().map(|file| file.closed).collect();
    assert_eq!(names, [NOON / NANOS + 1, NOON / NANOS + 2], "within one second, names count up");
}

#[test]
fn one_file_means_no_rotated_ones() {
    let mut log = Log::new(100, 1);
    log.writer.write(Stream::Stdout, b"aaaa\nbbbb\ncccc\n", NOON).unwrap();
    assert_eq!(log.files(), ["cccc"]);
}

#[test]
fn a_split_line_stays_in_one_file() {
    let mut log = Log::new(20_000, 5);
    log.writer.write(Stream::Stdout, &[b'x'; MAX_MESSAGE + 10], NOON).unwrap();
    log.writer.write(Stream::Stderr, &[[b'y'; 5000].as_slice(), b"\n"].concat(), NOON).unwrap();
    assert_eq!(log.files().len(), 1, "stdout's line is not over");
    log.writer.write(Stream::Stdout, b"\nnext\n", NOON).unwrap();
    assert_eq!(log.files().len(), 2);
    assert_eq!(log.files()[1], "next");
    // A line without end is cut at twice the size.
    for _ in 0..10 {
        log.writer.write(Stream::Stdout, &[b'z'; MAX_MESSAGE], NOON).unwrap();
    }
    assert!(log.files().len() > 3, "{}", log.files().len());
}

#[test]
fn reopening_continues_and_closes_a_torn_entry() {
    let log = Log::new(1 << 20, 5);
    let path = log.writer.path().to_owned();
    fs::write(&path, format!("{TIME} stdout F whole\n{TIME} stdout F to")).unwrap();
    let mut writer = Writer::open(&path, 1 << 20, 5, NOON).unwrap();
    writer.write(Stream::Stdout, b"new\n", NOON).unwrap();
    assert_eq!(log.files(), ["whole|to|new"]);
    drop(Writer::open(&path, 10, 5, NOON).unwrap());
    assert_eq!(log.files(), ["whole|to|new", ""], "too large already: rotated at once");
}

#[test]
fn an_emptied_file_is_not_rotated() {
    let mut log = Log::new(100, 5);
    log.writer.write(Stream::Stdout, b"aaaa\nbbbb\n", NOON).unwrap();
    fs::write(log.writer.path(), "").unwrap();
    log.writer.write(Stream::Stdout, b"cccc\n", NOON).unwrap();
    assert_eq!(log.files(), ["cccc"]);
}

#[test]
fn a_removed_file_is_made_anew_at_the_next_rotation() {
    let mut log = Log::new(100, 5);
    log.writer.write(Stream::Stdout, b"aaaa\nbbbb\n", NOON).unwrap();
    fs::remove_file(log.writer.path()).unwrap();
    log.writer.write(Stream::Stdout, b"cccc\n", NOON).unwrap();
    assert_eq!(log.files(), ["cccc"]);
}

/// A tmpfs that is mounted nowhere: it is reached through its descriptor and gone with it. `None` without the right
/// to mount.
fn small_disk(options: &[(&str, &str)]) -> Option<(rustix::fd::OwnedFd, PathBuf)> {
    use rustix::mount::{
        FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_string, fsmount, fsopen,
    };
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC).ok()?;
    for (key, value) in options {
        fsconfig_set_string(&context, *key, *value).ok()?;
    }
    fsconfig_create(&context).ok()?;
    let mount = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty()).ok()?;
    let path = format!("/proc/self/fd/{}", rustix::fd::AsRawFd::as_raw_fd(&mount));
    Some((mount, path.into()))
}

#[test]
fn what_a_full_disk_refuses_is_kept_and_written_later() {
    let Some((_disk, root)) = small_disk(&[("size", "64k")]) else { return };
    let mut writer = Writer::open(root.join("0.log"), 1 << 20, 5, NOON).unwrap();
    let ballast = root.join("ballast");
    fs::write(&ballast, [0; 20 << 10]).unwrap();

    let lines: Vec<String> = (0..600).map(|n| format!("{n:0>100}\n")).collect();
    let mut failures = 0;
    for line in &lines {
        failures += usize::from(writer.write(Stream::Stdout, line.as_bytes(), NOON).is_err());
        // Nobody ever sees a torn entry.
        assert!(fs::read(writer.path()).unwrap().ends_with(b"\n"));
    }
    assert!(failures > 0 && writer.backlog() > 0);
    assert_eq!(writer.retry().unwrap_err().kind(), io::ErrorKind::StorageFull);

    // 600 entries are 84 KiB, so a larger disk is needed: the old lines move away.
    let before = fs::read_to_string(writer.path()).unwrap();
    fs::remove_file(&ballast).unwrap();
    fs::write(writer.path(), "").unwrap();
    writer.retry().unwrap();
    writer.write(Stream::Stdout, b"after\n", NOON).unwrap();
    assert_eq!(writer.backlog(), 0);
    let all = before + &fs::read_to_string(writer.path()).unwrap();
    let read: Vec<_> = all.lines().map(|line| line.rsplit(' ').next().unwrap()).collect();
    let expected: Vec<_> = lines.iter().map(|line| line.trim_end()).chain(["after"]).collect();
    assert_eq!(read, expected);
}

#[test]
fn a_disk_too_full_for_another_file_goes_on_with_the_old_one() {
    // The root directory and one file.
    let Some((_disk, root)) = small_disk(&[("nr_inodes", "2")]) else { return };
    let mut writer = Writer::open(root.join("0.log"), 100, 5, NOON).unwrap();
    writer.write(Stream::Stdout, b"aaaa\nbbbb\ncccc\n", NOON).unwrap();
    assert_eq!(fs::read_dir(&root).unwrap().count(), 1);
    assert_eq!(fs::read_to_string(writer.path()).unwrap().lines().count(), 3);
}
