//! v2 on fixture trees, because the machines that run this may have only v1; what there is for real below.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::device::{Access, Devices, Kind, Rule};
use super::*;

const HYBRID: &str = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:9 - cgroup cgroup rw,cpu,cpuacct
33 31 0:30 / /sys/fs/cgroup/mem\\040ory rw,relatime - cgroup cgroup rw,memory
34 31 0:31 / /sys/fs/cgroup/blkio rw,relatime - cgroup cgroup rw,blkio
35 31 0:32 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,name=systemd
36 31 0:33 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
90 31 0:30 /x /var/lib/copy rw,relatime - cgroup cgroup rw,memory
";

#[test]
fn layouts_are_told_apart_by_what_is_mounted() {
    let hybrid = Hierarchy::from_mountinfo(HYBRID).expect("v1");
    assert_eq!(hybrid.version(), Version::V1);
    let directories = hybrid.directories(Path::new("/outrigger/a")).expect("a path");
    let expected = ["/sys/fs/cgroup/cpu,cpuacct/outrigger/a", "/sys/fs/cgroup/mem ory/outrigger/a"];
    assert_eq!(directories, expected.map(PathBuf::from));

    let pure = "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n";
    let pure = Hierarchy::from_mountinfo(pure).expect("v2");
    assert_eq!(pure.version(), Version::V2);
    assert_eq!(pure.directories(Path::new("/a")).expect("a path"), [PathBuf::from("/sys/fs/cgroup/a")]);
    assert_eq!(Hierarchy::from_mountinfo("22 27 0:21 / /proc rw - proc proc rw\n"), None);
}

#[test]
fn paths_stay_in_their_tree() {
    let hierarchy = Hierarchy::from_mountinfo(HYBRID).expect("v1");
    for bad in ["/", "relative", "/a/../b", "/..", ""] {
        assert!(hierarchy.directories(Path::new(bad)).is_err(), "{bad}");
    }
}

/// A v2 tree of plain files: `root/outrigger/pod`, with the controllers given.
fn fixture(controllers: &str) -> (TempDir, Hierarchy) {
    let root = tempfile::tempdir().expect("temporary directory");
    let group = root.path().join("outrigger/pod");
    fs::create_dir_all(&group).expect("directories");
    for directory in [root.path(), &root.path().join("outrigger"), &group] {
        fs::write(directory.join("cgroup.controllers"), controllers).expect("file");
        fs::write(directory.join("cgroup.subtree_control"), "").expect("file");
    }
    for controller in controllers.split(' ') {
        let files: &[(&str, &str)] = match controller {
            "cpu" => &[("cpu.weight", "100"), ("cpu.max", "max 100000")],
            "memory" => &[
                ("memory.max", "max"),
                ("memory.swap.max", "max"),
                ("memory.oom.group", "0"),
                ("memory.current", "1000000"),
                ("memory.stat", "anon 5\nfile 900\ninactive_anon 7\ninactive_file 400000\n"),
                ("memory.events", "low 0\nhigh 0\nmax 3\noom 2\noom_kill 2\noom_group_kill 1\n"),
            ],
            "pids" => &[("pids.max", "max"), ("pids.current", "12")],
            _ => &[],
        };
        files.iter().for_each(|(name, text)| fs::write(group.join(name), text).expect("file"));
    }
    fs::write(group.join("cpu.stat"), "usage_usec 1234\nuser_usec 1000\n").expect("file");
    fs::write(group.join("cgroup.procs"), "").expect("file");
    let text = format!("30 23 0:26 / {} rw - cgroup2 cgroup2 rw\n", root.path().display());
    (root, Hierarchy::from_mountinfo(&text).expect("v2"))
}

fn pod() -> &'static Path {
    Path::new("/outrigger/pod")
}

#[test]
fn v2_limits_are_written_in_its_words() {
    let (root, hierarchy) = fixture("cpuset cpu memory pids");
    let limits = Limits {
        cpu_shares: Some(256),
        cpu_quota_us: Some(50_000),
        memory_limit: Some(64 << 20),
        memory_oom_group: true,
        pids_max: Some(100),
        ..Limits::default()
    };
    let created = hierarchy.create(pod(), &limits).expect("create");
    assert_eq!(created, Created { directories: vec![root.path().join("outrigger/pod")], unapplied: vec![] });
    let read = |name: &str| fs::read_to_string(root.path().join("outrigger/pod").join(name)).expect(name);
    // The fixture keeps the tail of a longer old text; the kernel takes each write as a whole.
    assert_eq!(read("cpu.weight"), "350");
    assert_eq!(read("cpu.max"), "50000 100000");
    assert_eq!(read("memory.max"), "67108864");
    assert_eq!(read("memory.swap.max"), "0ax");
    assert_eq!(read("memory.oom.group"), "1");
    assert_eq!(read("pids.max"), "100");
    let enabled = |path: &str| fs::read_to_string(root.path().join(path).join("cgroup.subtree_control")).expect("file");
    assert!(enabled("").starts_with("+pids") && enabled("outrigger").starts_with("+pids"), "the last of three writes");
    assert_eq!(enabled("outrigger/pod"), "", "the leaf keeps its controllers to itself");
}

#[test]
fn v2_statistics_are_read() {
    let (_root, hierarchy) = fixture("cpu memory pids");
    let stats = hierarchy.stats(pod()).expect("stats");
    let expected = Stats {
        cpu_usage_ns: Some(1_234_000),
        memory_usage: Some(1_000_000),
        memory_working_set: Some(600_000),
        pids: Some(12),
    };
    assert_eq!(stats, expected);
    assert_eq!(hierarchy.oom_kill_count(pod()).expect("count"), 2);
    let (_root, without) = fixture("cpuset");
    let stats = without.stats(pod()).expect("stats");
    assert_eq!(stats, Stats { cpu_usage_ns: Some(1_234_000), ..Stats::default() });
}

#[test]
fn what_v2_cannot_limit_is_told() {
    let (_root, hierarchy) = fixture("cpuset cpu");
    let limits = Limits {
        cpu_shares: Some(2),
        memory_limit: Some(1 << 20),
        memory_oom_group: true,
        pids_max: Some(5),
        ..Limits::default()
    };
    let unapplied = hierarchy.create(pod(), &limits).expect("create").unapplied;
    let told: Vec<&str> = unapplied.iter().map(|unapplied| unapplied.limit).collect();
    // In a fixture the switch itself cannot fail, so these are the files that are missing.
    assert_eq!(told, ["pids_max", "memory_limit"], "{unapplied:?}");
    // No limit asked, none missed.
    assert_eq!(hierarchy.create(pod(), &Limits::default()).expect("create").unapplied, []);
}

#[test]
fn v2_does_not_shrink_below_what_is_used() {
    let (_root, hierarchy) = fixture("memory");
    let limits = Limits { memory_limit: Some(999_999), ..Limits::default() };
    let unapplied = hierarchy.update(pod(), &limits).expect("update");
    let reason = "limit (999999) below current usage (1000000)".into();
    assert_eq!(unapplied, [Unapplied { limit: "memory_limit", reason }]);
}

#[test]
fn weights_follow_the_runtimes_curve() {
    for (shares, weight) in [(0, 1), (2, 1), (102, 17), (256, 35), (1024, 100), (262_144, 10_000), (u64::MAX, 10_000)] {
        assert_eq!(v2::weight_from_shares(shares), weight, "{shares}");
    }
}

#[test]
fn device_rules_read_as_v1_wants_them() {
    let Devices::Only(rules) = Devices::standard() else { panic!("rules") };
    let lines: Vec<String> = rules.iter().map(|rule| rule.to_v1()).collect();
    assert_eq!(lines[0], "c *:* m");
    assert_eq!(lines[1], "b *:* m");
    assert!(lines.contains(&"c 1:3 rwm".into()) && lines.contains(&"c 136:* rwm".into()), "{lines:?}");
}

/// Runs a device program as the kernel would: (type, access, major, minor) → allowed?
fn allows(rules: &[Rule], kind: u32, access: u32, major: u32, minor: u32) -> bool {
    let program = device_filter::assemble(rules);
    let context = [access << 16 | kind, major, minor];
    let mut registers = [0_u32; 7];
    let mut at = 0;
    loop {
        let instruction = program[at];
        let (to, from) = (usize::from(instruction.registers & 15), usize::from(instruction.registers >> 4));
        let immediate = instruction.immediate.cast_unsigned();
        at += 1;
        match instruction.code {
            0x61 => registers[to] = context[usize::try_from(instruction.offset).expect("offset") / 4],
            0xb4 => registers[to] = immediate,
            0xbc => registers[to] = registers[from],
            0x54 => registers[to] &= immediate,
            0x74 => registers[to] >>= immediate,
            0x56 if registers[to] != immediate => at += usize::try_from(instruction.offset).expect("forward"),
            0x56 => {}
            0x95 => return registers[0] == 1,
            code => panic!("instruction {code:#x}"),
        }
    }
}

#[test]
fn the_device_program_allows_what_its_rules_say() {
    const BLOCK: u32 = 1;
    const CHARACTER: u32 = 2;
    const MKNOD: u32 = 1;
    const READ: u32 = 2;
    const WRITE: u32 = 4;
    let Devices::Only(mut rules) = Devices::standard() else { panic!("rules") };
    let disk = Rule {
        kind: Kind::Block,
        major: Some(8),
        minor: None,
        access: Access { read: true, write: false, mknod: false },
    };
    rules.push(disk);
    for (kind, access, major, minor, expected) in [
        (CHARACTER, READ | WRITE, 1, 3, true),
        (CHARACTER, READ, 1, 1, false),
        (CHARACTER, MKNOD, 1, 1, true),
        (CHARACTER, MKNOD | READ, 1, 1, false),
        (CHARACTER, READ | WRITE, 136, 77, true),
        (BLOCK, READ, 1, 3, false),
        (BLOCK, READ, 8, 16, true),
        (BLOCK, READ | WRITE, 8, 16, false),
        (BLOCK, MKNOD, 8, 16, true),
    ] {
        assert_eq!(allows(&rules, kind, access, major, minor), expected, "{kind} {access} {major}:{minor}");
    }
    assert!(!allows(&[], CHARACTER, READ, 1, 3));
}

/// A real v2 tree, with or without controllers of use.
fn real_v2() -> Option<PathBuf> {
    let found = rustix::process::geteuid().is_root().then(|| fs::read_to_string("/proc/self/mountinfo").ok())??;
    let root = mountinfo::parse(&found).v2;
    if root.is_none() {
        eprintln!("skipped: no cgroup v2 tree");
    }
    root
}

#[test]
fn the_kernel_takes_the_device_program() {
    let Some(root) = real_v2() else { return };
    let group = root.join(format!("outrigger-test-device-{}", std::process::id()));
    fs::create_dir(&group).expect("group");
    let Devices::Only(rules) = Devices::standard() else { panic!("rules") };
    let outcome = (|| {
        device_filter::replace(&group, &rules)?;
        device_filter::replace(&group, &rules)?;
        let directory = fs::File::open(&group)?;
        let attached = crate::sys::bpf::attached_cgroup_device(&directory.into())?.len();
        device_filter::detach_all(&group)?;
        let directory = fs::File::open(&group)?;
        io::Result::Ok((attached, crate::sys::bpf::attached_cgroup_device(&directory.into())?.len()))
    })();
    fs::remove_dir(&group).expect("removed");
    match outcome {
        Ok(counts) => assert_eq!(counts, (1, 0)),
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => eprintln!("skipped: no device programs here"),
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn a_v2_group_is_killed_and_removed() {
    let Some(root) = real_v2() else { return };
    let text = format!("30 23 0:26 / {} rw - cgroup2 cgroup2 rw\n", root.display());
    let hierarchy = Hierarchy::from_mountinfo(&text).expect("v2");
    kill_and_remove(&hierarchy, "v2");
}

#[test]
fn a_real_group_is_limited_counted_killed_and_removed() {
    if !rustix::process::geteuid().is_root() {
        return eprintln!("skipped: needs root");
    }
    let hierarchy = Hierarchy::detect().expect("cgroups");
    let path = PathBuf::from(format!("/outrigger-test-limits-{}/inner", std::process::id()));
    let limits = Limits {
        cpu_shares: Some(512),
        cpu_quota_us: Some(50_000),
        memory_limit: Some(64 << 20),
        pids_max: Some(50),
        devices: Devices::standard(),
        ..Limits::default()
    };
    let outcome = hierarchy.create(&path, &limits).and_then(|created| {
        assert_eq!(created.unapplied, []);
        let larger = Limits { memory_limit: Some(128 << 20), cpu_quota_us: Some(150_000), ..limits.clone() };
        assert_eq!(hierarchy.update(&path, &larger)?, []);
        assert_eq!(hierarchy.update(&path, &limits)?, []);
        assert_eq!(hierarchy.update(&path, &Limits::default())?, []);
        let stats = hierarchy.stats(&path)?;
        assert_eq!(stats.pids, Some(0));
        assert!(stats.cpu_usage_ns.is_some() && stats.memory_working_set <= stats.memory_usage);
        hierarchy.oom_kill_count(&path)
    });
    hierarchy.remove(path.parent().expect("parent")).expect("removed");
    assert_eq!(outcome.expect("real files"), 0);
    kill_and_remove(&hierarchy, "real");
}

fn kill_and_remove(hierarchy: &Hierarchy, name: &str) {
    let path = PathBuf::from(format!("/outrigger-test-kill-{name}-{}", std::process::id()));
    let created = hierarchy.create(&path.join("child"), &Limits::default()).expect("create");
    let mut children: Vec<_> =
        (0..5).map(|_| std::process::Command::new("sleep").arg("1000").spawn().expect("sleep")).collect();
    for child in &children {
        for directory in &created.directories {
            fs::write(directory.join("cgroup.procs"), child.id().to_string()).expect("join");
        }
    }
    let before = hierarchy.processes(&path).expect("processes").len();
    let killed = hierarchy.kill(&path);
    for child in &mut children {
        let _ = child.kill();
        let _ = child.wait();
    }
    let after = hierarchy.processes(&path).expect("processes").len();
    hierarchy.remove(&path).expect("removed");
    killed.expect("killed");
    assert_eq!((before, after), (5, 0));
    assert!(created.directories.iter().all(|directory| !directory.exists()));
    // Both are fine with what is gone.
    hierarchy.kill(&path).expect("nothing to kill");
    hierarchy.remove(&path).expect("nothing to remove");
}

#[test]
fn device_rules_that_do_not_hold_are_no_group() {
    let (_root, hierarchy) = fixture("cpu memory pids");
    // No kernel attaches a program to a plain directory.
    let limits = Limits { devices: Devices::standard(), ..Limits::default() };
    let outcome = hierarchy.create(pod(), &limits);
    assert!(matches!(outcome, Err(CgroupError::Devices { .. })), "{outcome:?}");
}
