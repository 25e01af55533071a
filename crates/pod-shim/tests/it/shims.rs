//! The shim's own life: what it makes, what it survives, what goes with it.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use pod_container::spec::*;
use pod_shim::client::{self, Client, ConnectError, RequestError, SpawnError};
use pod_shim::protocol::{Fact, read_facts};

use crate::world::{eventually, is_alive, kill, process, sandbox, shim_binary, world};

#[tokio::test]
async fn killing_the_shim_leaves_no_process() {
    for mode in [PidMode::Container, PidMode::Pod, PidMode::Host] {
        let mut world = world!(SandboxSpec { pid: mode, ..sandbox() });
        let mut pids = Vec::new();
        for name in ["one", "two"] {
            let spec = world.spec(name, "sleep 1000 & sleep 1000 & wait");
            pids.push(world.client().start(name, 0, &spec).await.expect("start").pid);
        }
        let endless = process(&["sleep", "1000"], Capabilities::default());
        let mut exec = world.client().exec("one", 0, &endless, crate::world::null_stdio()).await.expect("exec");
        pids.push(exec.pid);
        kill(world.shim);
        if mode == PidMode::Host {
            // Only its children go with it; the rest is the engine's, by the cgroup.
            world.hierarchy.kill(&world.cgroup).expect("kill");
        }
        for pid in pids {
            eventually("the process ends", || !is_alive(pid)).await;
        }
        eventually("the cgroup is empty", || {
            world.hierarchy.processes(&world.cgroup).is_ok_and(|left| left.is_empty())
        })
        .await;
        while world.facts.recv().await.is_some() {}
        assert!(matches!(exec.wait().await, Err(RequestError::Gone)));
        assert!(matches!(world.client().shutdown().await, Err(RequestError::Gone)));
        assert!(matches!(Client::connect(&world.home()).await, Err(ConnectError::Connect { .. })));
        assert_eq!(read_facts(&world.home()).expect("facts").len(), 2);
    }
}

#[tokio::test]
async fn containers_outlive_the_engine_and_its_return_hears_everything() {
    let mut world = world!();
    let spec = world.spec("long", "while ! test -e /data/stop; do sleep 0.01; done; echo stopped; exit 6");
    let mut spec = spec;
    let volume = world.path("volume");
    std::fs::create_dir(&volume).expect("directory");
    spec.mounts = vec![Mount {
        source: MountSource::Bind(volume.clone()),
        target: "/data".into(),
        readonly: false,
        recursive_readonly: false,
        noexec: false,
        propagation: Propagation::Private,
    }];
    let started = world.client().start("long", 0, &spec).await.expect("start");
    world.client = None;
    world.facts.close();
    while world.facts.recv().await.is_some() {}
    std::fs::write(volume.join("stop"), "").expect("file");
    let home = world.home();
    eventually("the exit is on disk", || read_facts(&home).is_ok_and(|facts| facts.len() == 2)).await;
    assert!(is_alive(world.shim) && !is_alive(started.pid));

    let (client, mut facts) = Client::connect(&world.home()).await.expect("connect");
    assert!(matches!(facts.recv().await, Some(Fact::Started { pid, .. }) if pid == started.pid));
    assert!(matches!(facts.recv().await, Some(Fact::Exited { exit: Exit { code: 6, .. }, .. })));
    assert_eq!(world.log("long"), "stopped\n");
    client.shutdown().await.expect("shutdown");
    assert_eq!(facts.recv().await, None);
}

#[tokio::test]
async fn shutdown_ends_everything_and_tells_it() {
    for mode in [PidMode::Container, PidMode::Pod, PidMode::Host] {
        let mut world = world!(SandboxSpec { pid: mode, ..sandbox() });
        for name in ["one", "two"] {
            let spec = world.spec(name, "trap '' TERM; sleep 1000 & echo up; while :; do sleep 1; done");
            world.client().start(name, 0, &spec).await.expect("start");
        }
        let begin = Instant::now();
        world.client().shutdown().await.expect("shutdown");
        assert!(begin.elapsed() < Duration::from_secs(30), "{:?}", begin.elapsed());
        let mut killed = 0;
        while let Some(fact) = world.facts.recv().await {
            killed += usize::from(matches!(fact, Fact::Exited { exit: Exit { code: 137, .. }, .. }));
        }
        assert_eq!(killed, 2, "{mode:?}");
        eventually("the shim ends", || !is_alive(world.shim)).await;
        assert!(!world.home().join("shim.sock").exists() && !world.home().join("shim.pid").exists());
    }
}

#[tokio::test]
async fn a_shared_pid_namespace_has_a_keeper_that_reaps() {
    let mut world = world!(SandboxSpec { pid: PidMode::Pod, ..sandbox() });
    let spec = world.spec("first", "sleep 1000");
    world.client().start("first", 0, &spec).await.expect("start");
    // Its orphan is adopted and reaped; its processes see the other container's, and nothing of the host through PID 1.
    let script = "ps -o args | grep -c '^sleep 1000'; sh -c 'sleep 0.01 &'
        for i in $(seq 600); do ps -o stat,args | grep -qE '^Z|[s]leep 0.01' || break; sleep 0.1; done; ps -o stat | grep -c Z
        cat /proc/1/comm; ls -A /proc/1/root/ 2>&1; test $$ != 1 && echo not init";
    let mut spec = world.spec("second", script);
    let all = pod_container::capability::ALL;
    spec.process.capabilities = Capabilities { bounding: all, permitted: all };
    let output = world.output_of("second", &spec).await;
    assert_eq!(output, "1\n0\npause\nnot init\n");
    // What the first process leaves behind ends with it.
    let spec = world.spec("leaves", "sleep 2000 & exit 0");
    assert_eq!(world.run("leaves", &spec).await.code, 0);
    assert_eq!(world.hierarchy.processes(&world.cgroup.join("leaves")).expect("processes"), [] as [u32; 0]);
}

#[tokio::test]
async fn namespaces_are_new_or_the_hosts() {
    let mut world = world!();
    let spec = world.spec("own", "hostname; ls /sys/class/net; cat /proc/sys/net/ipv4/ip_unprivileged_port_start; ip -o addr show lo | grep -c 127.0.0.1; echo $$");
    assert_eq!(world.output_of("own", &spec).await.replace("sit0\n", ""), "pod\nlo\n1024\n1\n1\n");

    let sysctls = vec![("net.ipv4.ip_unprivileged_port_start".into(), "0".into())];
    let mut tuned = world!(SandboxSpec { sysctls, ..sandbox() });
    let spec = tuned.spec("tuned", "cat /proc/sys/net/ipv4/ip_unprivileged_port_start");
    assert_eq!(tuned.output_of("tuned", &spec).await, "0\n");

    let shared = SandboxSpec { hostname: None, new_network: false, new_ipc: false, pid: PidMode::Host, ..sandbox() };
    let mut host = world!(shared);
    let spec = host.spec("host", "for n in net ipc uts pid; do readlink /proc/self/ns/$n; done");
    let output = host.output_of("host", &spec).await;
    let links =
        ["net", "ipc", "uts", "pid"].map(|name| std::fs::read_link(format!("/proc/self/ns/{name}")).expect("link"));
    let links: String = links.iter().map(|link| format!("{}\n", link.display())).collect();
    assert_eq!(output, links);
}

#[tokio::test]
async fn a_sandbox_that_cannot_be_made_leaves_nothing() {
    let world = world!();
    let home = world.path("other");
    #[rustfmt::skip]
    let cases = [
        (SandboxSpec { sysctls: vec![("net.no.such".into(), "1".into())], ..sandbox() }, "failed to set sysctl net.no.such"),
        (SandboxSpec { sysctls: vec![("../x".into(), "1".into())], ..sandbox() }, "malformed sysctl name"),
        (SandboxSpec { cgroups: vec![PathBuf::from("/no/group")], ..sandbox() }, "failed to join cgroup /no/group"),
        (SandboxSpec { user_namespace: Some(IdMaps { uids: vec![], gids: vec![] }), ..sandbox() }, "not supported"),
    ];
    for (sandbox, expected) in cases {
        match client::spawn(&shim_binary(), &home, &sandbox) {
            Err(SpawnError::Sandbox(message)) => assert!(message.contains(expected), "{message}"),
            other => panic!("{expected}: {other:?}"),
        }
        assert!(!home.join("shim.sock").exists() && !home.join("shim.pid").exists());
    }
    let missing = client::spawn(&world.path("no-binary"), &home, &sandbox());
    assert!(matches!(missing, Err(SpawnError::Run { .. })));
}

#[tokio::test]
async fn the_shim_cannot_be_written_through_a_container() {
    let world = world!();
    // A read-only mount of the binary is what it runs from.
    let exe = format!("/proc/{}/exe", world.shim);
    let target = std::fs::read_link(&exe).expect("link");
    let error = std::fs::OpenOptions::new().write(true).open(&exe).unwrap_err();
    let busy_or_read_only = [Some(libc::ETXTBSY), Some(libc::EROFS)];
    assert!(busy_or_read_only.contains(&error.raw_os_error()), "{target:?}: {error}");
}

#[tokio::test]
async fn many_clients_hear_the_same() {
    let mut world = world!();
    let (_other, mut facts) = Client::connect(&world.home()).await.expect("connect");
    for attempt in 0..20 {
        let mut spec = world.spec("many", "true");
        spec.rootfs.upper = world.path(&format!("upper-{attempt}"));
        spec.rootfs.work = world.path(&format!("work-{attempt}"));
        world.client().start("many", attempt, &spec).await.expect("start");
        world.exit_of("many").await;
    }
    let mut heard = 0;
    while heard < 40 {
        facts.recv().await.expect("a fact");
        heard += 1;
    }
    assert_eq!(read_facts(&world.home()).expect("facts").len(), 40);
}
