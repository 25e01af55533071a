use std::{
    fs,
    os::unix::fs::{FileTypeExt, MetadataExt, symlink},
};

use proptest::prelude::*;

use super::{attributes::parse_time, *};

// === a small language for tars ===

#[derive(Clone, Debug)]
enum Make {
    Dir(&'static str, u32),
    File(&'static str, &'static str),
    Link(&'static str, &'static str),
    Sym(&'static str, &'static str),
    Char(&'static str, u32, u32),
}
use Make::*;

/// Paths are written raw: the library would refuse or clean those that matter here.
fn tar_of(entries: &[Make]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for entry in entries {
        let (path, kind, mode, data, link) = match *entry {
            Dir(path, mode) => (path, tar::EntryType::Directory, mode, "", ""),
            File(path, data) => (path, tar::EntryType::Regular, 0o644, data, ""),
            Link(path, target) => (path, tar::EntryType::Link, 0o644, "", target),
            Sym(path, target) => (path, tar::EntryType::Symlink, 0o777, "", target),
            Char(path, ..) => (path, tar::EntryType::Char, 0o600, "", ""),
        };
        let mut header = tar::Header::new_gnu();
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(1000);
        header.set_gid(1001);
        header.set_mtime(1_000_000_000);
        header.set_size(data.len() as u64);
        if let Char(_, major, minor) = *entry {
            header.set_device_major(major).unwrap();
            header.set_device_minor(minor).unwrap();
        }
        header.set_cksum();
        tar.append(&header, data.as_bytes()).unwrap();
    }
    tar.into_inner().unwrap()
}

struct Sandbox {
    directory: tempfile::TempDir,
}

impl Sandbox {
    fn new() -> Sandbox {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("root")).unwrap();
        fs::write(directory.path().join("outside"), "untouched").unwrap();
        Sandbox { directory }
    }

    fn root(&self) -> PathBuf {
        self.directory.path().join("root")
    }

    fn unpack(&self, bytes: &[u8]) -> Result<Unpacked, UnpackError> {
        self.unpack_with(bytes, Limits::default())
    }

    fn unpack_with(&self, bytes: &[u8], limits: Limits) -> Result<Unpacked, UnpackError> {
        unpack(bytes, &self.root(), limits, &Arc::new(AtomicBool::new(false)))
    }

    fn is_intact(&self) -> bool {
        let names = fs::read_dir(self.directory.path()).unwrap().count();
        names == 2 && fs::read_to_string(self.directory.path().join("outside")).unwrap() == "untouched"
    }
}

fn unpacked(entries: &[Make]) -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.unpack(&tar_of(entries)).unwrap();
    sandbox
}

fn stat(path: &Path) -> fs::Metadata {
    fs::symlink_metadata(path).unwrap()
}

fn is_opaque(path: &Path) -> bool {
    let mut value = [0; 4];
    matches!(rustix::fs::lgetxattr(path, OPAQUE_XATTR, &mut value), Ok(1)) && value[0] == b'y'
}

fn is_deleted(path: &Path) -> bool {
    stat(path).file_type().is_char_device() && stat(path).rdev() == 0
}

// === what images have ===

#[test]
fn attributes_are_kept_also_of_directories_written_into_later() {
    let sandbox = unpacked(&[
        Dir("./", 0o711),
        Dir("a/", 0o700),
        File("a/file", "text"),
        Sym("a/link", "/etc/passwd"),
        Char("a/null", 1, 3),
        Dir("t", 0o1777),
    ]);
    let root = sandbox.root();
    assert_eq!(stat(&root).mode() & 0o7777, 0o711);
    for path in ["a", "a/file", "a/link", "a/null", "t"] {
        let stat = stat(&root.join(path));
        assert_eq!((stat.uid(), stat.gid(), stat.mtime()), (1000, 1001, 1_000_000_000), "{path}");
    }
    assert_eq!(stat(&root.join("a")).mode() & 0o7777, 0o700);
    assert_eq!(stat(&root.join("t")).mode() & 0o7777, 0o1777);
    assert_eq!(stat(&root.join("a/null")).rdev(), rustix::fs::makedev(1, 3));
    assert_eq!(fs::read_link(root.join("a/link")).unwrap(), Path::new("/etc/passwd"));
}

#[test]
fn setuid_and_file_capabilities_survive_the_change_of_owner() {
    // VFS_CAP_REVISION_2 with cap_net_raw, effective (capabilities(7)).
    let capability = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let mut tar = tar::Builder::new(Vec::new());
    tar.append_pax_extensions([
        ("SCHILY.xattr.security.capability", &capability[..]),
        ("SCHILY.xattr.user.note", b"kept"),
        ("SCHILY.xattr.trusted.overlay.redirect", b"/etc"),
        ("SCHILY.xattr.security.selinux", b"host_t"),
        ("mtime", b"1234.5"),
        ("uid", b"70000"),
    ])
    .unwrap();
    let mut header = tar::Header::new_ustar();
    header.set_mode(0o4755);
    header.set_size(0);
    header.set_uid(1);
    header.set_gid(2);
    tar.append_data(&mut header, "ping", io::empty()).unwrap();
    let sandbox = Sandbox::new();
    sandbox.unpack(&tar.into_inner().unwrap()).unwrap();

    let path = sandbox.root().join("ping");
    assert_eq!(stat(&path).mode() & 0o7777, 0o4755);
    assert_eq!((stat(&path).uid(), stat(&path).gid()), (70000, 2));
    assert_eq!((stat(&path).mtime(), stat(&path).mtime_nsec()), (1234, 500_000_000));
    let xattr = |name: &str| {
        let mut value = [0; 64];
        rustix::fs::getxattr(&path, name, &mut value).map(|length| value[..length].to_vec()).ok()
    };
    assert_eq!(xattr("security.capability").unwrap(), capability);
    assert_eq!(xattr("user.note").unwrap(), b"kept");
    assert_eq!(xattr("trusted.overlay.redirect"), None);
    assert_ne!(xattr("security.selinux").as_deref(), Some(&b"host_t"[..]));
}

#[test]
fn whiteouts_become_what_overlayfs_understands() {
    let sandbox = unpacked(&[
        Dir("d/", 0o755),
        File("d/.wh.gone", ""),
        Dir("o/", 0o755),
        File("o/.wh..wh..opq", ""),
        File("o/own", "stays"),
        File(".wh..wh.plnk", ""),
    ]);
    let root = sandbox.root();
    assert!(is_deleted(&root.join("d/gone")));
    assert!(!root.join("d/.wh.gone").exists());
    assert!(is_opaque(&root.join("o")) && !is_opaque(&root.join("d")));
    assert!(root.join("o/own").exists());
    assert_eq!(fs::read_dir(&root).unwrap().count(), 2);
}

#[test]
fn a_whiteout_does_not_touch_its_own_layer() {
    for order in [
        [File("d/f", "new"), File("d/.wh.f", ""), Dir("x/", 0o755), File(".wh.x", "")],
        [File("d/.wh.f", ""), File("d/f", "new"), File(".wh.x", ""), Dir("x/", 0o755)],
    ] {
        let sandbox = unpacked(&order);
        let root = sandbox.root();
        assert_eq!(fs::read_to_string(root.join("d/f")).unwrap(), "new");
        assert!(stat(&root.join("x")).is_dir() && is_opaque(&root.join("x")), "nothing from below may shine through");
    }
}

#[test]
fn hard_links_share_their_file() {
    let sandbox = unpacked(&[
        File("bin/one", "text"),
        Link("bin/two", "bin/one"),
        Link("three", "/bin/one"),
        Link("three", "bin/one"),
        Link("bin/one", "bin/one"),
    ]);
    let root = sandbox.root();
    assert_eq!(stat(&root.join("bin/one")).nlink(), 3);
    assert_eq!(fs::read_to_string(root.join("three")).unwrap(), "text");
}

#[test]
fn later_entries_replace_earlier_ones() {
    let sandbox = unpacked(&[
        Dir("a/", 0o755),
        File("a/deep/file", "x"),
        File("a", "now a file"),
        File("b", "x"),
        Dir("b/", 0o750),
        Sym("c", "a"),
        Dir("c/", 0o755),
        File("f", "one"),
        File("f", "two"),
    ]);
    let root = sandbox.root();
    assert_eq!(fs::read_to_string(root.join("a")).unwrap(), "now a file");
    assert_eq!(stat(&root.join("b")).mode() & 0o7777, 0o750);
    assert!(stat(&root.join("c")).is_dir());
    assert_eq!(fs::read_to_string(root.join("f")).unwrap(), "two");
}

#[test]
fn directories_the_tar_does_not_have_are_reported() {
    let sandbox = Sandbox::new();
    let unpacked = sandbox.unpack(&tar_of(&[Dir("a/", 0o755), File("a/b/c", ""), File("x/y", "")])).unwrap();
    assert_eq!(unpacked.implicit, [Path::new(""), Path::new("a/b"), Path::new("x")]);
    assert_eq!(stat(&sandbox.root().join("a/b")).mode() & 0o7777, 0o755);
    assert_eq!(stat(&sandbox.root().join("a/b")).uid(), 0);
}

#[test]
fn long_names_and_symlinked_parents_work() {
    let long = format!("{}/{}", "d".repeat(120), "f".repeat(200));
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o644);
    header.set_size(4);
    tar.append_data(&mut header, &long, &b"text"[..]).unwrap();
    let sandbox = Sandbox::new();
    sandbox.unpack(&tar.into_inner().unwrap()).unwrap();
    assert_eq!(fs::read_to_string(sandbox.root().join(long)).unwrap(), "text");

    let sandbox = unpacked(&[Dir("usr/lib/", 0o755), Sym("lib", "usr/lib"), File("lib/x.so", "elf")]);
    assert!(sandbox.root().join("usr/lib/x.so").exists());
}

// === what attackers have ===

#[test]
fn paths_that_climb_are_refused() {
    for entries in [
        vec![File("../outside", "bad")],
        vec![File("a/../../outside", "bad")],
        vec![Dir("..", 0o777)],
        vec![File("a", "x"), Link("b", "../outside")],
        vec![File(".wh...", "")],
        vec![File(".wh..", "")],
        vec![File(".wh.", "")],
        vec![File("a/.wh...", "")],
    ] {
        let sandbox = Sandbox::new();
        let error = sandbox.unpack(&tar_of(&entries)).unwrap_err();
        assert!(matches!(error, UnpackError::Escape { .. }), "{entries:?}: {error:?}");
        assert!(sandbox.is_intact(), "{entries:?}");
    }
}

#[test]
fn symlinks_never_lead_out() {
    for target in ["..", "../..", "/", "/proc/self/cwd", "../outside"] {
        let climbing: Vec<Vec<Make>> = vec![
            vec![Sym("x", "TARGET"), File("x/outside", "bad")],
            vec![Sym("x", "TARGET"), Sym("y", "x"), File("y/outside", "bad")],
            vec![Sym("x", "TARGET"), File("x", "replaces the link")],
            vec![Sym("x", "TARGET"), Dir("x/", 0o777), File("x/outside", "bad")],
            vec![Sym("x", "TARGET"), File("x/.wh.outside", "")],
            vec![Sym("x", "TARGET"), File("x/.wh..wh..opq", "")],
            vec![Sym("x", "TARGET"), Link("copy", "x/outside")],
            vec![Sym("x", "TARGET"), Dir("x/d/", 0o777)],
        ];
        for mut entries in climbing {
            entries[0] = Sym("x", target);
            let sandbox = Sandbox::new();
            // Some are legal and land inside, some are refused; none may be seen outside.
            let _ = sandbox.unpack(&tar_of(&entries));
            assert!(sandbox.is_intact(), "{entries:?}");
        }
    }
    assert!(!Path::new("/outside").exists());
}

#[test]
fn absolute_paths_are_taken_as_relative_to_the_root() {
    let sandbox = unpacked(&[File("/etc/outrigger-test", "inside")]);
    assert!(sandbox.root().join("etc/outrigger-test").exists());
    assert!(!Path::new("/etc/outrigger-test").exists());
}

#[test]
fn a_symlink_that_was_there_before_is_not_written_through() {
    // Not from the tar: as if another process had planted it.
    let sandbox = Sandbox::new();
    symlink("../outside", sandbox.root().join("file")).unwrap();
    sandbox.unpack(&tar_of(&[File("file", "new")])).unwrap();
    assert!(sandbox.is_intact());
    assert_eq!(fs::read_to_string(sandbox.root().join("file")).unwrap(), "new");
}

#[test]
fn raw_whiteout_devices_and_missing_link_targets_are_refused() {
    let sandbox = Sandbox::new();
    let error = sandbox.unpack(&tar_of(&[Char("gone", 0, 0)])).unwrap_err().to_string();
    assert!(error.contains("`gone`") && error.contains("0:0"), "{error}");
    for entries in
        [vec![Link("a", "nowhere")], vec![File(".wh.w", ""), Link("a", "w")], vec![File("d/f", ""), Link("d", "d/f")]]
    {
        let error = Sandbox::new().unpack(&tar_of(&entries)).unwrap_err();
        assert!(matches!(error, UnpackError::LinkTarget { .. }), "{entries:?}: {error:?}");
    }
}

#[test]
fn bombs_are_defused() {
    let zeros = "0".repeat(100_000);
    let zeros: &'static str = Box::leak(zeros.into_boxed_str());
    let bytes = tar_of(&[File("big", zeros)]);
    let error = Sandbox::new().unpack_with(&bytes, Limits { bytes: 50_000, entries: 10 }).unwrap_err();
    assert!(matches!(error, UnpackError::TooLarge(50_000)), "{error:?}");

    let many: Vec<Make> = std::iter::repeat_n(Dir("d/", 0o755), 12).collect();
    let error = Sandbox::new().unpack_with(&tar_of(&many), Limits { bytes: 1 << 20, entries: 10 }).unwrap_err();
    assert!(matches!(error, UnpackError::TooMany(10)), "{error:?}");

    // A header that announces a name of gigabytes, which the library would read into memory.
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::GNULongName);
    header.set_size(1 << 40);
    header.set_cksum();
    let bomb = (&header.as_bytes()[..]).chain(io::repeat(b'n'));
    let sandbox = Sandbox::new();
    let error = unpack(bomb, &sandbox.root(), Limits::default(), &Arc::new(AtomicBool::new(false))).unwrap_err();
    assert!(format!("{error:?}").contains("Headers"), "{error:?}");
}

#[test]
fn broken_archives_and_cancelled_work_end_with_an_error() {
    let mut bytes = tar_of(&[File("a", "some text")]);
    bytes.truncate(515);
    assert!(Sandbox::new().unpack(&bytes).is_err());
    assert!(matches!(Sandbox::new().unpack(&[1; 1024]).unwrap_err(), UnpackError::Archive { .. }));

    let sandbox = Sandbox::new();
    let cancelled = Arc::new(AtomicBool::new(true));
    let error = unpack(&tar_of(&[])[..], &sandbox.root(), Limits::default(), &cancelled).unwrap_err();
    assert!(matches!(error, UnpackError::Cancelled));
}

#[test]
fn pax_sparse_files_are_refused_rather_than_unpacked_wrong() {
    let mut tar = tar::Builder::new(Vec::new());
    tar.append_pax_extensions([("GNU.sparse.major", &b"1"[..])]).unwrap();
    let mut header = tar::Header::new_ustar();
    header.set_size(0);
    header.set_mode(0o644);
    tar.append_data(&mut header, "sparse", io::empty()).unwrap();
    let error = Sandbox::new().unpack(&tar.into_inner().unwrap()).unwrap_err();
    assert!(error.to_string().contains("sparse"), "{error}");
}

#[test]
fn times_before_1970_and_with_fractions_are_read() {
    let time = |text: &str| parse_time(text.as_bytes()).map(|time| (time.tv_sec, time.tv_nsec));
    assert_eq!(time("12"), Some((12, 0)));
    assert_eq!(time("12.000000001"), Some((12, 1)));
    assert_eq!(time("12.1234567899"), Some((12, 123_456_789)));
    assert_eq!(time("-1.25"), Some((-2, 750_000_000)));
    assert_eq!(time("x"), None);
    assert_eq!(time("1.x"), None);
}

// === whatever else ===

/// Every archive in `corpus/tar` unpacks or is refused; none panics or is seen outside.
#[test]
fn the_corpus_stays_inside() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus/tar");
    let mut count = 0;
    for entry in fs::read_dir(corpus).unwrap() {
        let sandbox = Sandbox::new();
        let _ = sandbox.unpack(&fs::read(entry.unwrap().path()).unwrap());
        assert!(sandbox.is_intact());
        count += 1;
    }
    assert!(count >= 5);
}

fn name() -> impl Strategy<Value = &'static str> {
    proptest::sample::select(vec![
        "a",
        "a/",
        "a/b",
        "a/b/c",
        "../outside",
        "/a",
        "./",
        ".",
        "..",
        "",
        "a/..",
        "b",
        "b/a",
        ".wh.a",
        "a/.wh.b",
        "a/.wh..wh..opq",
        ".wh...",
        "outside",
        "c/outside",
        "c",
    ])
}

fn make() -> impl Strategy<Value = Make> {
    let target = proptest::sample::select(vec!["..", "/", "a", "../outside", "c", "b/../..", "."]);
    prop_oneof![
        name().prop_map(|name| Dir(name, 0o755)),
        name().prop_map(|name| File(name, "text")),
        (name(), target).prop_map(|(name, target)| Sym(name, target)),
        (name(), name()).prop_map(|(name, target)| Link(name, target)),
        (name(), 0u32..3, 0u32..3).prop_map(|(name, major, minor)| Char(name, major, minor)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn no_sequence_of_entries_leads_out(entries in proptest::collection::vec(make(), 1..8)) {
        let sandbox = Sandbox::new();
        let _ = sandbox.unpack(&tar_of(&entries));
        prop_assert!(sandbox.is_intact());
    }

    #[test]
    fn damaged_tars_do_not_panic(at in 0usize..2048, byte in any::<u8>(), cut in 0usize..3072) {
        let mut bytes = tar_of(&[Dir("d/", 0o755), File("d/f", "text"), Sym("s", "d"), Link("l", "d/f")]);
        if let Some(target) = bytes.get_mut(at) { *target = byte; }
        // With the right sum, so that the damage is looked at.
        for header in bytes.chunks_exact_mut(512).filter(|block| block[257..262] == *b"ustar") {
            let sum: u32 = header.iter().enumerate().map(|(i, b)| if (148..156).contains(&i) { 32 } else { u32::from(*b) }).sum();
            header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
        bytes.truncate(cut);
        let sandbox = Sandbox::new();
        let _ = sandbox.unpack(&bytes);
        prop_assert!(sandbox.is_intact());
    }
}
