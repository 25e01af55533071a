use std::collections::BTreeMap;
use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::process::{Command, Stdio};
use std::time::Duration;

use super::*;

fn entry<'a>(path: &'a str, data: &'a str) -> FileEntry<'a> {
    FileEntry { path, mode: 0o644, data: data.as_bytes() }
}

fn write(dir: &Path, files: &[FileEntry<'_>]) -> bool {
    write_atomic(dir, files, None).unwrap().0
}

/// What a container sees: every visible name that resolves, read through its link.
fn shown(dir: &Path) -> BTreeMap<String, String> {
    fn read(path: &Path, name: &str, into: &mut BTreeMap<String, String>) {
        let Ok(metadata) = fs::metadata(path) else { return };
        if metadata.is_dir() {
            for child in names_in(path).unwrap() {
                read(&path.join(&child), &format!("{name}/{}", child.to_str().unwrap()), into);
            }
        } else {
            into.insert(name.to_owned(), fs::read_to_string(path).unwrap());
        }
    }
    let mut into = BTreeMap::new();
    for name in names_in(dir).unwrap() {
        let text = name.to_str().unwrap().to_owned();
        if !text.starts_with("..") {
            read(&dir.join(&name), &text, &mut into);
        }
    }
    into
}

fn expected(files: &[FileEntry<'_>]) -> BTreeMap<String, String> {
    files.iter().map(|file| (file.path.to_owned(), String::from_utf8(file.data.to_vec()).unwrap())).collect()
}

/// The directory is as if nothing but the last write had ever happened.
fn assert_tidy(dir: &Path, files: &[FileEntry<'_>]) {
    assert_eq!(shown(dir), expected(files));
    let mut names: Vec<String> = names_in(dir).unwrap().iter().map(|name| name.to_str().unwrap().to_owned()).collect();
    names.retain(|name| name != "..data");
    let data = fs::read_link(dir.join("..data")).unwrap();
    names.retain(|name| Path::new(name) != data);
    let tops: BTreeSet<String> = files.iter().map(|file| file.path.split('/').next().unwrap().to_owned()).collect();
    assert_eq!(names.into_iter().collect::<BTreeSet<_>>(), tops);
}

#[test]
fn the_layout_is_the_one_reloaders_know() {
    let temp = tempfile::tempdir().unwrap();
    let files = [entry("app.yaml", "a: 1"), entry("certs/tls.crt", "C"), entry("certs/deep/er", "D")];
    assert!(write(temp.path(), &files));
    let data = fs::read_link(temp.path().join("..data")).unwrap();
    let name = data.to_str().unwrap();
    let (stamp, random) = name.strip_prefix("..").unwrap().split_once('.').unwrap();
    assert_eq!(stamp.len(), "2026_01_31_12_00_00".len());
    assert!(random.parse::<u32>().is_ok(), "{name}");
    assert_eq!(fs::read_link(temp.path().join("app.yaml")).unwrap(), Path::new("..data/app.yaml"));
    assert_eq!(fs::read_link(temp.path().join("certs")).unwrap(), Path::new("..data/certs"));
    assert_tidy(temp.path(), &files);
    for dir in ["..data", "certs", "certs/deep"] {
        assert_eq!(fs::metadata(temp.path().join(dir)).unwrap().mode() & 0o7777, 0o755, "{dir}");
    }
}

#[test]
fn no_change_writes_nothing_and_any_change_replaces_all() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path();
    assert!(write(dir, &[entry("a", "1"), entry("b", "2")]));
    let data = fs::read_link(dir.join("..data")).unwrap();
    let before = fs::metadata(dir).unwrap().mtime_nsec();
    assert!(!write(dir, &[entry("b", "2"), entry("a", "1")]));
    assert_eq!(fs::read_link(dir.join("..data")).unwrap(), data);
    assert_eq!(fs::metadata(dir).unwrap().mtime_nsec(), before);

    assert!(write(dir, &[entry("a", "x"), entry("b", "2")]), "content, same length");
    assert!(write(dir, &[entry("a", "x")]), "a name less");
    assert_tidy(dir, &[entry("a", "x")]);
    assert!(write(dir, &[entry("a/now", "a directory")]), "a file becomes a directory");
    assert_tidy(dir, &[entry("a/now", "a directory")]);
    assert!(write(dir, &[FileEntry { mode: 0o400, ..entry("a/now", "a directory") }]), "the mode");
    assert!(write(dir, &[]), "no files at all");
    assert_tidy(dir, &[]);
    assert!(!write(dir, &[]));
}

#[test]
fn an_open_file_keeps_its_content() {
    let temp = tempfile::tempdir().unwrap();
    write(temp.path(), &[entry("a", "old")]);
    let mut open = File::open(temp.path().join("a")).unwrap();
    write(temp.path(), &[entry("a", "new")]);
    assert_eq!(io::read_to_string(&mut open).unwrap(), "old");
}

#[test]
fn modes_and_owners() {
    let temp = tempfile::tempdir().unwrap();
    let key = FileEntry { path: "key", mode: 0o400, data: b"k" };
    assert!(write(temp.path(), &[key]));
    let seen = |name: &str| {
        let metadata = fs::metadata(temp.path().join(name)).unwrap();
        (metadata.mode() & 0o7777, metadata.uid(), metadata.gid())
    };
    assert_eq!(seen("key"), (0o400, 0, 0));
    let owner = Some(&FsGroup { gid: 2000, on_root_mismatch: false });
    assert!(write_atomic(temp.path(), &[key], owner).unwrap().0);
    assert_eq!(seen("key"), (0o440, 0, 2000), "a group may read, not write");
    assert_eq!(seen("..data"), (0o2755, 0, 2000));
    assert_eq!(seen("").2, 2000);
    assert!(!write_atomic(temp.path(), &[key], owner).unwrap().0);
}

#[test]
fn foreign_entries_give_way_to_names_and_stay_otherwise() {
    let temp = tempfile::tempdir().unwrap();
    fs::create_dir_all(temp.path().join("a/full")).unwrap();
    fs::write(temp.path().join("b"), "foreign").unwrap();
    symlink("/etc/hostname", temp.path().join("c")).unwrap();
    fs::write(temp.path().join("other"), "foreign").unwrap();
    let files = [entry("a", "1"), entry("b", "2"), entry("c", "3")];
    write(temp.path(), &files);
    let mut all = expected(&files);
    all.insert("other".to_owned(), "foreign".to_owned());
    assert_eq!(shown(temp.path()), all);
}

#[test]
fn paths_that_would_escape_or_collide_are_refused_before_anything_is_written() {
    let temp = tempfile::tempdir().unwrap();
    let long = "x".repeat(256);
    let longer = "y/".repeat(2100);
    let table: [(&str, &str); 13] = [
        ("", "must not be empty"),
        (".", "must not be empty"),
        ("/etc/passwd", "must be relative"),
        ("..", "must not contain '..'"),
        ("../x", "must not contain '..'"),
        ("a/../../x", "must not contain '..'"),
        ("a/..", "must not contain '..'"),
        ("..data", "must not start with '..'"),
        ("..a/b", "must not start with '..'"),
        ("./..x", "must not start with '..'"),
        ("a\0b", "must not contain a NUL byte"),
        (&long, "file names must not be longer than 255 bytes"),
        (&longer, "must not be longer than 4096 bytes"),
    ];
    for (path, problem) in table {
        let error = write_atomic(temp.path(), &[entry("fine", "1"), entry(path, "2")], None).unwrap_err();
        assert_eq!(error.to_string(), format!("invalid path {path:?}: {problem}"));
    }
    for pair in [["a", "a/b"], ["a/b", "a"], ["a", "./a"], ["a//b", "a/b"], ["a/b/c", "a"]] {
        let files = pair.map(|path| entry(path, ""));
        let error = write_atomic(temp.path(), &files, None).unwrap_err();
        assert!(matches!(error, WriteError::Path { .. }), "{pair:?}");
    }
    assert_eq!(names_in(temp.path()).unwrap().len(), 0);
    assert!(write(temp.path(), &[entry("a/..b", "hidden deeper is fine"), entry(".dot", "1"), entry("a/./c", "2")]));
}

#[test]
fn the_volume_is_made_if_need_be() {
    let temp = tempfile::tempdir().unwrap();
    let volume = temp.path().join("memory/config");
    write(&volume, &[entry("a", "1")]);
    assert_tidy(&volume, &[entry("a", "1")]);
    fs::write(temp.path().join("file"), "").unwrap();
    let error = write_atomic(&temp.path().join("file"), &[], None).unwrap_err();
    assert!(error.to_string().ends_with("/file` exists and is not a directory"), "{error}");
}

/// What a crash test moves between: names that stay, come, go, and turn from file into directory.
fn versions() -> [Vec<FileEntry<'static>>; 2] {
    [
        vec![entry("stays", "old old old"), entry("goes", "g"), entry("turns", "file"), entry("dir/x", "1")],
        vec![entry("stays", "new"), entry("comes", "c"), entry("turns/into", "dir"), entry("dir/y", "2")],
    ]
}

struct Crash;

#[test]
fn a_crash_before_any_change_of_the_disk_leaves_old_or_new() {
    let [old, new] = versions();
    let (mut saw_old, mut saw_new) = (false, false);
    for crash_at in 0.. {
        let temp = tempfile::tempdir().unwrap();
        write(temp.path(), &old);
        let mut steps = 0;
        let mut step = |_: &'static str| {
            if steps == crash_at {
                // Without the panic hook's message.
                resume_unwind(Box::new(Crash));
            }
            steps += 1;
        };
        let mut writer = Writer { dir: temp.path(), gid: Some(77), step: &mut step };
        let crashed = catch_unwind(AssertUnwindSafe(|| writer.write(&new))).is_err();
        let seen = shown(temp.path());
        saw_old |= seen == expected(&old);
        saw_new |= seen == expected(&new);
        assert!(seen == expected(&old) || seen == expected(&new), "crash at {crash_at}: {seen:?}");
        // Whatever is tried next, it clears all traces of the crash.
        let next = if crash_at % 2 == 0 { &old } else { &new };
        write(temp.path(), next);
        assert_tidy(temp.path(), next);
        if !crashed {
            assert!(crash_at > 25, "the crash points are still there: {crash_at}");
            break;
        }
    }
    assert!(saw_old && saw_new);
}

const VICTIM: &str = "POD_VOLUME_TEST_VICTIM";

/// Not a test: the process that the next test kills.
#[test]
fn victim_of_sigkill() {
    let Some(dir) = std::env::var_os(VICTIM) else { return };
    let [old, new] = versions();
    for files in [&new, &old].into_iter().cycle() {
        write(Path::new(&dir), files);
    }
}

#[test]
fn sigkill_leaves_old_or_new() {
    let [old, new] = versions();
    let temp = tempfile::tempdir().unwrap();
    write(temp.path(), &old);
    for round in 0..12 {
        let mut victim = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "atomic::tests::victim_of_sigkill"])
            .env(VICTIM, temp.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let first = fs::read_link(temp.path().join("..data")).unwrap();
        let waited = std::time::Instant::now();
        while fs::read_link(temp.path().join("..data")).is_ok_and(|link| link == first)
            && waited.elapsed() < Duration::from_secs(10)
        {
            std::thread::sleep(Duration::from_micros(300));
        }
        std::thread::sleep(Duration::from_micros(137 * round));
        victim.kill().unwrap();
        victim.wait().unwrap();
        let seen = shown(temp.path());
        assert!(seen == expected(&old) || seen == expected(&new), "{seen:?}");
    }
    write(temp.path(), &old);
    assert_tidy(temp.path(), &old);
}

#[test]
fn dates() {
    for (seconds, text) in [
        (0, "..1970_01_01_00_00_00."),
        (951_782_399, "..2000_02_28_23_59_59."),
        (951_868_799, "..2000_02_29_23_59_59."),
        (951_868_800, "..2000_03_01_00_00_00."),
        (1_767_225_599, "..2025_12_31_23_59_59."),
        (1_767_225_600, "..2026_01_01_00_00_00."),
        (4_107_542_400, "..2100_03_01_00_00_00."),
    ] {
        let name = timestamped(UNIX_EPOCH + Duration::from_secs(seconds)).into_string().unwrap();
        assert!(name.starts_with(text), "{name} {text}");
    }
}

/// Kills its process also when the test fails.
struct Killed(std::process::Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn volumes_in_anothers_mount_namespace_are_reached_through_proc() {
    let temp = tempfile::tempdir().unwrap();
    let mount = temp.path().join("memory");
    fs::create_dir(&mount).unwrap();
    let script = r#"mount -t tmpfs -o mode=0777 volumes "$0" && echo mounted && exec sleep 60"#;
    let shim = Command::new("unshare")
        .args(["--mount", "sh", "-c", script])
        .arg(&mount)
        .stdout(Stdio::piped())
        .spawn()
        .map(Killed);
    let mut shim = shim.unwrap();
    let mut line = [0; 7];
    io::Read::read_exact(shim.0.stdout.as_mut().unwrap(), &mut line).unwrap();
    let inside = Path::new("/proc").join(shim.0.id().to_string()).join("root").join(mount.strip_prefix("/").unwrap());
    let group = Some(&FsGroup { gid: 2000, on_root_mismatch: false });
    let [old, new] = versions();
    for files in [&old, &new] {
        assert!(write_atomic(&inside.join("config"), files, group).unwrap().0);
        assert_tidy(&inside.join("config"), files);
    }
    ensure_empty_dir(&inside, group).unwrap();
    fs::write(inside.join("data"), vec![1; 1 << 20]).unwrap();
    assert!(crate::usage(&inside).unwrap() >= 1 << 20);
    assert_eq!(fs::metadata(&inside).unwrap().mode() & 0o7777, 0o2777);
    remove_tree(&inside.join("config")).unwrap();
    assert_eq!(names_in(&inside).unwrap(), BTreeSet::from(["data".into()]));
    assert_eq!(names_in(&mount).unwrap().len(), 0, "nothing of it is to be seen outside");
}
