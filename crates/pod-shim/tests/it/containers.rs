//! Starting, ending, killing; logs and execs.

use std::io::Read as _;

use pod_container::cgroup::Limits;
use pod_container::spec::*;
use pod_shim::client::{ExecError, RequestError, StartError};
use pod_shim::protocol::{Fact, read_facts};

use crate::world::{null_stdio, process, world};

#[tokio::test]
async fn exit_codes_and_signals_are_told() {
    let mut world = world!();
    #[rustfmt::skip]
    let cases = [
        ("zero",   "exit 0",         0,   None),
        ("seven",  "exit 7",         7,   None),
        ("killed", "kill -9 $$; exit 3", 3,   None), // PID 1 of its namespace is immune to its own signals
        ("sub",    "sh -c 'kill -15 $$'; exit $?", 143, None),
    ];
    for (name, script, code, signal) in cases {
        let spec = world.spec(name, script);
        let exit = world.run(name, &spec).await;
        assert_eq!(exit, Exit { code, signal, oom_killed: false }, "{name}");
    }
    let spec = world.spec("sleeper", "sleep 1000");
    let started = world.client().start("sleeper", 0, &spec).await.expect("start");
    assert!(crate::world::is_alive(started.pid));
    world.client().signal("sleeper", 0, 9).await.expect("signal");
    assert_eq!(world.exit_of("sleeper").await, Exit { code: 137, signal: Some(9), oom_killed: false });
    assert!(!crate::world::is_alive(started.pid));
    let again = world.client().signal("sleeper", 0, 9).await;
    assert!(matches!(again, Err(RequestError::Refused(reason)) if reason == "the container is not running"));
}

#[tokio::test]
async fn a_handled_signal_arrives() {
    let mut world = world!();
    let spec = world.spec("polite", "trap 'echo bye; exit 5' TERM; echo ready; while :; do sleep 0.01; done");
    world.client().start("polite", 0, &spec).await.expect("start");
    crate::world::eventually("the trap is set", || world.log("polite").contains("ready")).await;
    world.client().signal("polite", 0, 15).await.expect("signal");
    assert_eq!(world.exit_of("polite").await.code, 5);
    assert_eq!(world.log("polite"), "ready\nbye\n");
}

#[tokio::test]
async fn an_attempt_starts_only_once() {
    let mut world = world!();
    let spec = world.spec("once", "exit 0");
    world.run("once", &spec).await;
    let again = world.client().start("once", 0, &spec).await;
    assert!(
        matches!(&again, Err(StartError::Request(RequestError::Refused(reason))) if reason.contains("started before")),
        "{again:?}"
    );
    let mut second = world.spec("once", "exit 1");
    second.rootfs.upper = world.path("second-upper");
    second.rootfs.work = world.path("second-work");
    world.client().start("once", 1, &second).await.expect("the next attempt starts");
    assert_eq!(world.exit_of("once").await.code, 1);
}

#[tokio::test]
async fn memory_over_the_limit_is_an_oom_kill() {
    let mut world = world!();
    let limits = Limits { memory_limit: Some(16 << 20), ..Limits::default() };
    // `tail` of one endless line keeps it all.
    let spec = world.spec_with_limits("hog", &["sh", "-c", "exec tail -c 200000000 /dev/zero"], &limits);
    let exit = world.run("hog", &spec).await;
    assert_eq!(exit, Exit { code: 137, signal: Some(9), oom_killed: true });
    assert_eq!(world.hierarchy.oom_kill_count(&world.cgroup.join("hog")).expect("count"), 1);
}

#[tokio::test]
async fn everything_printed_is_in_the_log() {
    let mut world = world!();
    let spec = world.spec("chatty", "seq 1 100000; echo done >&2");
    let output = world.output_of("chatty", &spec).await;
    // Written before the exit was told, whole and in order; only the two streams may interleave.
    let numbers: Vec<u32> = output.lines().filter_map(|line| line.parse().ok()).collect();
    assert_eq!(numbers, (1..=100_000).collect::<Vec<_>>());
    assert_eq!(output.lines().count(), 100_001);
}

#[tokio::test]
async fn what_cannot_be_executed_is_a_start_error() {
    let mut world = world!();
    #[rustfmt::skip]
    let cases = [
        ("absent",  "foo",                   "exec: \"foo\": executable file not found in $PATH"),
        ("path",    "/no/foo",               "exec: \"/no/foo\": stat /no/foo: no such file or directory"),
        ("denied",  "/bin/not-executable",   "exec: \"/bin/not-executable\": permission denied"),
        ("folder",  "/etc",                  "exec: \"/etc\": is a directory"),
        ("lost",    "/bin/lost-interpreter", "exec /bin/lost-interpreter: no such file or directory"),
        ("format",  "/etc/passwd",           "exec: \"/etc/passwd\": permission denied"),
        ("nothing", "",                      "no command specified"),
    ];
    for (name, program, expected) in cases {
        let spec = world.spec_of(name, &[program]);
        match world.client().start(name, 0, &spec).await {
            Err(StartError::Start { container, message }) => {
                assert_eq!((container.as_str(), message.as_str()), (name, expected));
            }
            other => panic!("{name}: {other:?}"),
        }
        assert!(matches!(world.next_fact().await, Fact::StartFailed { message, .. } if message == expected));
    }
    let spec = world.spec_of("absent", &["foo"]);
    let error = world.client().start("absent", 1, &spec).await.unwrap_err();
    let expected = "failed to start container \"absent\": exec: \"foo\": executable file not found in $PATH";
    assert_eq!(error.to_string(), expected);
}

#[tokio::test]
async fn what_cannot_be_made_is_a_create_error() {
    let world = world!();
    let mut spec = world.spec_of("user", &["true"]);
    spec.process.user.user = "nobody".into();
    let error = world.client().start("user", 0, &spec).await.unwrap_err();
    let expected =
        "failed to create container \"user\": unable to find user nobody: no matching entries in passwd file";
    assert_eq!(error.to_string(), expected);

    let mut spec = world.spec_of("root", &["true"]);
    spec.rootfs.lower = vec![world.path("nowhere")];
    let error = world.client().start("root", 0, &spec).await.unwrap_err();
    assert!(matches!(error, StartError::Create { .. }), "{error:?}");

    // A making that hangs is ended: a FIFO for /etc/passwd must not be read, and one as the cgroup blocks for ever.
    let mut spec = world.spec_of("hang", &["true"]);
    let fifo = world.path("fifo");
    std::fs::create_dir(&fifo).expect("directory");
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(rustix::fs::CWD, fifo.join("tasks"), rustix::fs::FileType::Fifo, mode, 0).expect("fifo");
    spec.cgroups = vec![fifo];
    let deadline = std::time::Duration::from_millis(100);
    let error = world.client().start_within("hang", 0, &spec, deadline).await.unwrap_err();
    assert!(matches!(&error, StartError::Create { message, .. } if message.contains("timed out")), "{error:?}");
}

#[tokio::test]
async fn an_exec_has_its_own_streams_and_end() {
    let mut world = world!();
    let mut spec = world.spec("main", "sleep 1000");
    spec.process.env.push(("COLOR".into(), "green".into()));
    world.client().start("main", 0, &spec).await.expect("start");

    let script = "cat; echo err >&2; hostname; readlink /proc/1/exe; exit 42";
    let (exit, stdout, stderr) =
        exec(&world, &process(&["sh", "-c", script], spec.process.capabilities), "hello\n").await;
    assert_eq!(exit, Exit { code: 42, signal: None, oom_killed: false });
    assert_eq!(stdout, "hello\npod\n/bin/busybox\n");
    assert_eq!(stderr, "err\n");

    let missing = process(&["nope"], Capabilities::default());
    let error = world.client().exec("main", 0, &missing, null_stdio()).await.unwrap_err();
    assert!(
        matches!(&error, ExecError::Start { message, .. }
        if message == "exec: \"nope\": executable file not found in $PATH"),
        "{error:?}"
    );

    let endless = process(&["sleep", "1000"], Capabilities::default());
    let mut exec = world.client().exec("main", 0, &endless, null_stdio()).await.expect("exec");
    exec.kill().await.expect("kill");
    assert_eq!(exec.wait().await.expect("end").signal, Some(9));

    // With the container, its execs end.
    let mut exec = world.client().exec("main", 0, &endless, null_stdio()).await.expect("exec");
    world.client().signal("main", 0, 9).await.expect("signal");
    assert_eq!(exec.wait().await.expect("end").signal, Some(9));
    world.exit_of("main").await;
    let late = world.client().exec("main", 0, &endless, null_stdio()).await;
    assert!(matches!(late, Err(ExecError::Request(RequestError::Refused(_)))), "{late:?}");
}

#[tokio::test]
async fn a_dropped_exec_ends() {
    let world = world!();
    let spec = world.spec("main", "sleep 1000");
    world.client().start("main", 0, &spec).await.expect("start");
    let endless = process(&["sleep", "1000"], Capabilities::default());
    let exec = world.client().exec("main", 0, &endless, null_stdio()).await.expect("exec");
    let pid = exec.pid;
    assert!(crate::world::is_alive(pid));
    drop(exec);
    crate::world::eventually("the exec ends", || !crate::world::is_alive(pid)).await;
}

#[tokio::test]
async fn a_terminal_is_one() {
    let mut world = world!();
    let mut spec = world.spec("screen", "tty; test -t 0 && test -t 1 && test -t 2 && ls -l /dev/console; exit 3");
    spec.tty = true;
    assert_eq!(world.run("screen", &spec).await.code, 3);
    let output = world.log("screen");
    assert!(output.starts_with("/dev/pts/0\n") && output.contains("/dev/console"), "{output:?}");
}

#[tokio::test]
async fn facts_are_on_disk_and_replayed() {
    let mut world = world!();
    let spec = world.spec("a", "exit 4");
    world.run("a", &spec).await;
    let on_disk = read_facts(&world.home()).expect("facts");
    assert!(matches!(&on_disk[..], [Fact::Started { .. }, Fact::Exited { exit: Exit { code: 4, .. }, .. }]));
    let (_client, mut facts) = pod_shim::client::Client::connect(&world.home()).await.expect("connect");
    assert_eq!(facts.recv().await, Some(on_disk[0].clone()));
    assert_eq!(facts.recv().await, Some(on_disk[1].clone()));
}

async fn exec(world: &crate::world::World, process: &ProcessSpec, input: &str) -> (Exit, String, String) {
    let (stdin, mut stdin_writer) = std::io::pipe().expect("pipe");
    let (mut stdout_reader, stdout) = std::io::pipe().expect("pipe");
    let (mut stderr_reader, stderr) = std::io::pipe().expect("pipe");
    let stdio = [stdin.into(), stdout.into(), stderr.into()];
    let mut exec = world.client().exec("main", 0, process, stdio).await.expect("exec");
    std::io::Write::write_all(&mut stdin_writer, input.as_bytes()).expect("write");
    drop(stdin_writer);
    let exit = exec.wait().await.expect("end");
    let mut texts = [String::new(), String::new()];
    stdout_reader.read_to_string(&mut texts[0]).expect("read");
    stderr_reader.read_to_string(&mut texts[1]).expect("read");
    let [stdout, stderr] = texts;
    (exit, stdout, stderr)
}

#[tokio::test]
async fn a_cancelled_exec_ends() {
    let world = world!();
    let spec = world.spec("main", "sleep 1000");
    world.client().start("main", 0, &spec).await.expect("start");
    let count = || world.hierarchy.processes(&world.cgroup.join("main")).expect("processes").len();
    let endless = process(&["sleep", "1000"], Capabilities::default());
    for microseconds in [0, 50, 200, 500, 1000, 3000] {
        let exec = world.client().exec("main", 0, &endless, null_stdio());
        let _ = tokio::time::timeout(std::time::Duration::from_micros(microseconds), exec).await;
    }
    crate::world::eventually("only the container is left", || count() == 1).await;
}

#[tokio::test]
async fn many_at_once_leave_nothing_behind() {
    let mut world = world!();
    let descriptors = |pid: u32| std::fs::read_dir(format!("/proc/{pid}/fd")).expect("descriptors").count();
    // Any answer proves that this connection has been accepted.
    let _ = world.client().signal("nobody", 0, 9).await;
    let before = descriptors(world.shim);
    let names: Vec<String> = (0..24).map(|number| format!("c{number}")).collect();
    let starts = names.iter().map(|name| {
        let spec = world.spec(name, "seq 1 2000; exec true");
        let client = world.client().clone();
        let name = name.clone();
        tokio::spawn(async move { client.start(&name, 0, &spec).await.map(drop) })
    });
    let starts: Vec<_> = starts.collect();
    for start in starts {
        start.await.expect("joined").expect("start");
    }
    let mut exited = 0;
    while exited < names.len() {
        exited += usize::from(matches!(world.next_fact().await, Fact::Exited { exit: Exit { code: 0, .. }, .. }));
    }
    for name in &names {
        assert_eq!(world.log(name).lines().count(), 2000, "{name}");
    }
    assert_eq!(descriptors(world.shim), before, "open descriptors of the shim");
}

#[tokio::test]
async fn endless_output_neither_grows_the_shim_nor_delays_the_end() {
    let mut world = world!();
    let mut spec = world.spec("flood", "yes & sleep 0.2; kill -9 $!; exit 9");
    spec.log.max_size = 1 << 20;
    assert_eq!(world.run("flood", &spec).await.code, 9);
    let status = std::fs::read_to_string(format!("/proc/{}/status", world.shim)).expect("status");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmData:")).expect("VmData").trim();
    let kilobytes: u64 = peak.trim_end_matches(" kB").trim().parse().expect("a number");
    assert!(kilobytes < 2048, "{peak}");
}

#[tokio::test]
async fn a_full_disk_holds_output_back_and_loses_none() {
    let mut sandbox = crate::world::sandbox();
    let disk = tempfile::tempdir().expect("temporary directory");
    sandbox.tmpfs = vec![Tmpfs { path: disk.path().to_owned(), size: Some(256 << 10), mode: 0o755 }];
    let mut world = world!(sandbox);
    // The disk is the shim's own tmpfs; the way to it from here is through the shim's root.
    let through = std::path::PathBuf::from(format!("/proc/{}/root{}", world.shim, disk.path().display()));
    let ballast = through.join("ballast");
    std::fs::write(&ballast, vec![b'x'; 200 << 10]).expect("ballast");
    let mut spec = world.spec("writer", "seq 1 20000; echo end");
    spec.log.path = disk.path().join("0.log");
    spec.log.max_size = 10 << 20;
    world.client().start("writer", 0, &spec).await.expect("start");
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    let status = world.client().signal("writer", 0, 0).await;
    assert!(status.is_ok(), "it waits for room: {status:?}");
    // Room for all of it: 20 000 lines with their 45 bytes of time and tag.
    std::fs::remove_file(&ballast).expect("removed");
    let shim = format!("/proc/{}/ns/mnt", world.shim);
    let grown = std::process::Command::new("nsenter")
        .arg(format!("--mount={shim}"))
        .args(["mount", "-o", "remount,size=4m"])
        .arg(disk.path())
        .status();
    assert!(grown.is_ok_and(|status| status.success()), "nsenter and mount are on every Debian");
    assert_eq!(world.exit_of("writer").await.code, 0);
    let home = through.join("0.log");
    crate::world::eventually("all lines are written", || {
        std::fs::read_to_string(&home).is_ok_and(|text| text.ends_with(" end\n") && text.lines().count() == 20_001)
    })
    .await;
}
