//! Who a container's process is and what it may do.

use pod_container::cgroup::{Devices, Limits};
use pod_container::spec::*;
use pod_container::{capability, seccomp};

use crate::world::world;

const STATUS: &str = "grep -E '^(Uid|Gid|Groups|CapInh|CapPrm|CapEff|CapBnd|CapAmb|NoNewPrivs|Seccomp):' \
                      /proc/self/status | awk '{$1=$1; print}'";

#[tokio::test]
async fn root_has_the_given_capabilities_and_no_others() {
    let mut world = world!();
    let spec = world.spec("root", &format!("exec {STATUS}"));
    let output = world.output_of("root", &spec).await;
    let expected = "Uid: 0 0 0 0\nGid: 0 0 0 0\nGroups: 0\nCapInh: 0000000000000000\nCapPrm: 00000000a80425fb\n\
                    CapEff: 00000000a80425fb\nCapBnd: 00000000a80425fb\nCapAmb: 0000000000000000\nNoNewPrivs: 0\nSeccomp: 0\n";
    assert_eq!(output, expected);

    let mut spec = world.spec("none", &format!("exec {STATUS}"));
    spec.process.capabilities = Capabilities::default();
    let output = world.output_of("none", &spec).await;
    assert!(output.contains("CapEff: 0000000000000000\nCapBnd: 0000000000000000\n"), "{output}");
}

#[tokio::test]
async fn users_are_looked_up_in_the_container() {
    let mut world = world!();
    let mut spec = world.spec("app", &format!("{STATUS}; echo $HOME; touch /tmp/x && echo to stdout > /dev/stdout"));
    spec.process.user =
        User { user: "app".into(), group: None, additional_groups: vec![3000], merge_image_groups: true };
    let started = world.client().start("app", 0, &spec).await.expect("start");
    assert_eq!(started.identity, Identity { uid: 1000, gid: 1001, groups: vec![1001, 2000, 3000] });
    assert_eq!(world.exit_of("app").await.code, 0);
    let output = world.log("app");
    let expected = "Uid: 1000 1000 1000 1000\nGid: 1001 1001 1001 1001\nGroups: 1001 2000 3000\n\
                    CapInh: 0000000000000000\nCapPrm: 0000000000000000\nCapEff: 0000000000000000\n\
                    CapBnd: 00000000a80425fb\nCapAmb: 0000000000000000\nNoNewPrivs: 0\nSeccomp: 0\n/home/app\nto stdout\n";
    assert_eq!(output, expected);
}

#[tokio::test]
async fn seccomp_holds_with_and_without_no_new_privileges() {
    let mut world = world!();
    for (name, no_new_privileges, uid) in [("plain", false, "0"), ("locked", true, "0"), ("user", true, "1000")] {
        let script = format!("{STATUS} | tail -2; mount -t tmpfs none /tmp 2>&1; ls / >/dev/null && echo works");
        let mut spec = world.spec(name, &script);
        spec.process.user.user = uid.into();
        spec.process.no_new_privileges = no_new_privileges;
        spec.process.seccomp = seccomp::runtime_default(capability::DEFAULT);
        let output = world.output_of(name, &spec).await;
        let locked = u8::from(no_new_privileges);
        let heading = format!("NoNewPrivs: {locked}\nSeccomp: 2\n");
        assert!(output.starts_with(&heading) && output.ends_with("works\n"), "{name}: {output}");
        assert!(output.contains("not permitted") || output.contains("ermission denied"), "{name}: {output}");
    }
    // It is the filter that refuses: with all capabilities and without it, the mount works.
    let mut spec = world.spec("free", "mount -t tmpfs none /tmp && echo mounted");
    spec.process.capabilities = Capabilities { bounding: capability::ALL, permitted: capability::ALL };
    assert_eq!(world.output_of("free", &spec).await, "mounted\n");
    let mut spec = world.spec("caught", "mount -t tmpfs none /tmp 2>/dev/null || echo refused");
    spec.process.capabilities = Capabilities { bounding: capability::ALL, permitted: capability::ALL };
    spec.process.seccomp = seccomp::runtime_default(capability::DEFAULT);
    assert!(world.output_of("caught", &spec).await.ends_with("refused\n"));
}

#[tokio::test]
async fn an_exec_is_as_confined_as_its_container() {
    let world = world!();
    let spec = world.spec("main", "sleep 1000");
    world.client().start("main", 0, &spec).await.expect("start");
    let capabilities = Capabilities { bounding: capability::DEFAULT, permitted: capability::DEFAULT };
    // On v2 the container's group is the top of its cgroup namespace; any other would show as a path.
    let unified = world.hierarchy.version() == pod_container::cgroup::Version::V2;
    let group = if unified { "^0::/$" } else { "outrigger-test" };
    let script = format!("{STATUS}; grep -c '{group}' /proc/self/cgroup; ps | wc -l");
    let mut process = crate::world::process(&["sh", "-c", &script], capabilities);
    process.user.user = "1000".into();
    process.no_new_privileges = true;
    process.seccomp = seccomp::runtime_default(capability::DEFAULT);
    let (mut reader, stdout) = std::io::pipe().expect("pipe");
    let [stdin, _, stderr] = crate::world::null_stdio();
    let mut exec = world.client().exec("main", 0, &process, [stdin, stdout.into(), stderr]).await.expect("exec");
    assert_eq!(exec.identity, Identity { uid: 1000, gid: 1001, groups: vec![1001] });
    assert_eq!(exec.wait().await.expect("end").code, 0);
    let mut output = String::new();
    std::io::Read::read_to_string(&mut reader, &mut output).expect("read");
    assert!(
        output.contains("CapBnd: 00000000a80425fb\nCapAmb: 0000000000000000\nNoNewPrivs: 1\nSeccomp: 2"),
        "{output}"
    );
    let groups: usize = output.lines().rev().nth(1).and_then(|line| line.trim().parse().ok()).expect("a count");
    assert_eq!(groups, spec.cgroups.len(), "{output}");
}

#[tokio::test]
async fn devices_are_denied_but_for_the_standard_ones() {
    let mut world = world!();
    let limits = Limits { devices: Devices::standard(), ..Limits::default() };
    // A node may be made, but not opened: 1:1 is the physical memory, 1:8 the random source.
    let script =
        "cd /tmp; mknod mem c 1 1 && mknod rnd c 1 8; head -c 1 rnd >/dev/null && echo random; cat mem || echo denied";
    let spec = world.spec_with_limits("nodes", &["sh", "-c", script], &limits);
    assert_eq!(
        world.output_of("nodes", &spec).await.replace("cat: can't open 'mem': Operation not permitted\n", ""),
        "random\ndenied\n"
    );
}

#[tokio::test]
async fn limits_and_signals_are_fresh() {
    let mut world = world!();
    let script =
        "ulimit -n; cat /proc/self/oom_score_adj; grep -E '^Sig(Blk|Ign)' /proc/self/status; umask; ls /proc/self/fd";
    let mut spec = world.spec("fresh", script);
    const NOFILE: u32 = 7;
    spec.process.rlimits = vec![Rlimit { resource: NOFILE, soft: 333, hard: 444 }];
    spec.process.oom_score_adj = Some(555);
    let output = world.output_of("fresh", &spec).await;
    let expected = "333\n555\nSigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n0022\n0\n1\n2\n3\n";
    assert_eq!(output, expected, "descriptor 3 is ls's own");

    let spec = world.spec("inherits", "cat /proc/self/oom_score_adj");
    let own = std::fs::read_to_string("/proc/self/oom_score_adj").expect("oom_score_adj");
    assert_eq!(world.output_of("inherits", &spec).await, own);
}

#[tokio::test]
async fn the_working_directory_is_made_for_the_user() {
    let mut world = world!();
    let mut spec = world.spec("there", "pwd; stat -c %u:%g:%a .");
    spec.process.cwd = "/new/place".into();
    spec.process.user.user = "1000".into();
    spec.rootfs.readonly = true;
    assert_eq!(world.output_of("there", &spec).await, "/new/place\n1000:1001:755\n");

    let mut spec = world.spec("file", "pwd");
    spec.process.cwd = "/etc/passwd".into();
    let error = world.client().start("file", 0, &spec).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "failed to start container \"file\": failed to change to working directory \"/etc/passwd\": not a directory"
    );
}

#[tokio::test]
async fn no_descriptor_of_the_shim_leads_out() {
    // CVE-2024-21626: an image's working directory or program may go through a descriptor that is still open while the
    // container is made.
    let mut world = world!();
    for number in 0..10 {
        for (kind, path) in
            [("cwd", "/proc/self/fd/N"), ("thread", "/proc/thread-self/fd/N/.."), ("up", "/proc/self/fd/N/..")]
        {
            let name = format!("{kind}{number}");
            let path = path.replace('N', &number.to_string());
            let mut spec = world.spec_of(&name, &["true"]);
            spec.process.cwd = path.clone();
            assert!(world.client().start(&name, 0, &spec).await.is_err(), "working directory {path}");
            let mut spec = world.spec_of(&format!("p{name}"), &[&format!("{path}/../../../../../../bin/true")]);
            spec.process.cwd = "/".into();
            assert!(world.client().start(&format!("p{name}"), 0, &spec).await.is_err(), "program {path}");
        }
    }
    let spec = world.spec("main", "sleep 1000");
    world.client().start("main", 0, &spec).await.expect("start");
    for number in 0..10 {
        let mut process = crate::world::process(&["true"], Capabilities::default());
        process.cwd = format!("/proc/self/fd/{number}");
        let exec = world.client().exec("main", 0, &process, crate::world::null_stdio()).await;
        assert!(exec.is_err(), "{}", process.cwd);
    }
    // And what the program itself finds open, in a container and in an exec.
    let spec = world.spec("open", "for fd in /proc/self/fd/*; do echo ${fd##*/}; done");
    assert_eq!(world.output_of("open", &spec).await, "0\n1\n2\n3\n", "3 is the shell's own");
}

#[tokio::test]
async fn a_debugger_in_the_container_never_meets_a_process_with_more_than_it_has() {
    // Whoever has CAP_SYS_PTRACE sees each new process of its PID namespace from the first moment. What is born there must
    // have left the host's root, descriptors and privileges behind. The hunter looks at all processes without pause.
    let script = "echo ready; while :; do for p in /proc/[0-9]*; do
            test -e $p/root/CANARY && echo escape through $p/root
            while read -r key value; do
                case $key.$value in
                    CapEff:.0000000000000000|CapEff:.0000000000080000|CapEff:.00000000000000c0) ;;
                    CapEff:.*) echo $p has $value ;;
                esac
            done < $p/status
        done; done 2>/dev/null";
    for mode in [PidMode::Container, PidMode::Pod] {
        let mut world = world!(SandboxSpec { pid: mode, ..crate::world::sandbox() });
        let canary = tempfile::NamedTempFile::new().expect("temporary file");
        let script = script.replace("/CANARY", canary.path().to_str().expect("utf-8"));
        let mut spec = world.spec("hunter", &script);
        let ptrace = capability::mask("SYS_PTRACE").expect("known");
        spec.process.capabilities = Capabilities { bounding: ptrace, permitted: ptrace };
        world.client().start("hunter", 0, &spec).await.expect("start");
        crate::world::eventually("the hunt begins", || world.log("hunter").contains("ready")).await;
        let few = Capabilities { bounding: 0xc0, permitted: 0xc0 };
        for number in 0..25 {
            let mut exec = world
                .client()
                .exec("hunter", 0, &crate::world::process(&["true"], few), crate::world::null_stdio())
                .await
                .expect("exec");
            assert_eq!(exec.wait().await.expect("end").code, 0);
            if mode == PidMode::Pod {
                let name = format!("prey{number}");
                let mut spec = world.spec(&name, "exit 4");
                spec.process.capabilities = few;
                assert_eq!(world.run(&name, &spec).await.code, 4);
            }
        }
        assert_eq!(world.log("hunter"), "ready\n", "{mode:?}");
    }
}

#[tokio::test]
async fn an_account_called_by_a_number_is_not_that_number() {
    let mut world = world!();
    let layer = world.path("evil-layer");
    std::fs::create_dir_all(layer.join("etc")).expect("directory");
    let many: String = (0..3000).map(|number| format!("g{number}:x:{}:root\n", 100_000 + number)).collect();
    std::fs::write(layer.join("etc/passwd"), "root:x:0:0::/:\n1000:x:0:0::/:\n").expect("passwd");
    std::fs::write(layer.join("etc/group"), many).expect("group");
    let mut spec = world.spec("number", "id -u");
    spec.rootfs.lower.insert(0, layer.clone());
    spec.process.user.user = "1000".into();
    assert_eq!(world.output_of("number", &spec).await, "1000\n");

    // To setresuid the largest number is none: the process would stay root.
    let mut spec = world.spec("overflow", "id -u");
    spec.process.user.user = u32::MAX.to_string();
    let error = world.client().start("overflow", 0, &spec).await.unwrap_err();
    assert!(error.to_string().contains("uids and gids must be in range"), "{error}");

    // Three thousand memberships are all had, and the fact about them is a line that can be read.
    let mut spec = world.spec("member", "grep ^Groups /proc/self/status | wc -w");
    spec.rootfs.lower.insert(0, layer);
    spec.process.user.merge_image_groups = true;
    assert_eq!(world.output_of("member", &spec).await, "3002\n");
}

#[tokio::test]
async fn open_files_are_a_services_and_not_a_shells() {
    let mut world = world!();
    let spec = world.spec("limits", "ulimit -Sn; ulimit -Hn");
    // Raising the hard limit takes CAP_SYS_RESOURCE.
    let own = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum.unwrap_or(u64::MAX);
    let output = world.output_of("limits", &spec).await;
    let hard: u64 = output.strip_prefix("1024\n").and_then(|hard| hard.trim().parse().ok()).expect("two numbers");
    assert!(hard == 524_288 || hard == own.min(524_288), "{output}");
}
