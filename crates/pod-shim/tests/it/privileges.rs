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
    let mut spec = world.spec("caught", "mount -t tmpfs none /tmp || echo refused");
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
    let script = format!("{STATUS}; grep -c outrigger-test /proc/self/cgroup; ps | wc -l");
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
