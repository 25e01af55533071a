//! Standard input that clients type into, and clients that join a container's streams.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::time::{Duration, Instant};

use pod_container::spec::*;
use pod_shim::client::{Attach, AttachPipes, RequestError};

use crate::terminals::read_terminal;
use crate::world::{World, eventually, world};

/// A client's own ends.
struct Guest {
    stdin: Option<File>,
    stdout: File,
    stderr: File,
    attach: Attach,
}

async fn attach(world: &World, name: &str, stdin: bool) -> Guest {
    let pipe = || rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).expect("pipe");
    let (stdout, their_stdout) = pipe();
    let (stderr, their_stderr) = pipe();
    let (their_stdin, typed) = if stdin { Some(pipe()) } else { None }.unzip();
    let pipes = AttachPipes { stdin: their_stdin, stdout: Some(their_stdout), stderr: Some(their_stderr) };
    let attach = world.client().attach(name, 0, pipes).await.expect("attached");
    Guest { stdin: typed.map(File::from), stdout: stdout.into(), stderr: stderr.into(), attach }
}

/// Everything until the other end is closed; on a thread of its own, because the test's has the shim to listen to.
async fn read_all(mut file: File) -> String {
    let read = tokio::task::spawn_blocking(move || {
        let mut text = String::new();
        file.read_to_string(&mut text).map(|_| text)
    });
    tokio::time::timeout(Duration::from_secs(120), read).await.expect("an end").expect("thread").expect("text")
}

fn interactive(world: &World, name: &str, script: &str, stdin: Stdin) -> ContainerSpec {
    ContainerSpec { stdin, ..world.spec(name, script) }
}

#[tokio::test]
async fn a_container_reads_what_clients_type_and_they_see_what_it_prints() {
    let mut world = world!();
    let script = "echo before; while read line; do echo \"out $line\"; echo \"err $line\" >&2; done; exit 7";
    let spec = interactive(&world, "app", script, Stdin::Once);
    world.client().start("app", 0, &spec).await.expect("start");
    eventually("it has begun", || world.log("app") == "before\n").await;
    let watcher = attach(&world, "app", false).await;
    let mut guest = attach(&world, "app", true).await;
    let mut stdin = guest.stdin.take().expect("stdin");
    stdin.write_all(b"one\ntwo\n").expect("typed");
    drop(stdin);
    for Guest { stdout, stderr, attach, .. } in [watcher, guest] {
        // Output from before is the log's business.
        assert_eq!(read_all(stdout).await, "out one\nout two\n");
        assert_eq!(read_all(stderr).await, "err one\nerr two\n");
        assert_eq!(attach.wait().await.expect("told").map(|exit| exit.code), Some(7));
    }
    assert_eq!(world.exit_of("app").await.code, 7);
    assert!(world.log("app").starts_with("before\n") && world.log("app").contains("err two\n"));
}

#[tokio::test]
async fn an_input_that_stays_open_outlives_its_clients() {
    let mut world = world!();
    let script = "read a; echo \"$a\"; read b; echo \"$b\"";
    let spec = interactive(&world, "app", script, Stdin::Open);
    world.client().start("app", 0, &spec).await.expect("start");
    let mut first = attach(&world, "app", true).await;
    first.stdin.take().expect("stdin").write_all(b"one\n").expect("typed");
    // Who is at his end is let go, as CRI runtimes do it; the container waits for the next.
    assert_eq!(first.attach.wait().await.expect("told"), None);
    eventually("the line is read", || world.log("app") == "one\n").await;
    let mut second = attach(&world, "app", true).await;
    let mut stdin = second.stdin.take().expect("stdin");
    stdin.write_all(b"two\n").expect("typed");
    assert_eq!(read_all(second.stdout).await, "two\n");
    assert_eq!(second.attach.wait().await.expect("told").map(|exit| exit.code), Some(0));
    assert_eq!(world.exit_of("app").await.code, 0);
}

#[tokio::test]
async fn without_input_there_is_nobody_to_type_to() {
    let mut world = world!();
    let spec = interactive(
        &world,
        "app",
        "read a && echo something; trap 'echo end; exit 0' TERM; echo ready; while :; do sleep 0.01; done",
        Stdin::Null,
    );
    world.client().start("app", 0, &spec).await.expect("start");
    crate::world::eventually("the trap is set", || world.log("app").contains("ready")).await;
    let mut guest = attach(&world, "app", true).await;
    let mut stdin = guest.stdin.take().expect("stdin");
    let refused = tokio::task::spawn_blocking(move || {
        let mut tries = (0..6000).inspect(|_| std::thread::sleep(Duration::from_millis(10)));
        tries.any(|_| stdin.write_all(b"x\n").is_err())
    });
    assert!(refused.await.expect("thread"));
    world.client().signal("app", 0, 15).await.expect("signal");
    assert_eq!(read_all(guest.stdout).await, "end\n");
    assert_eq!(world.exit_of("app").await.code, 0);
    let late = world.client().attach("app", 0, AttachPipes::default()).await;
    assert!(matches!(late, Err(RequestError::Refused(reason)) if reason == "the container is not running"));
}

#[tokio::test]
async fn a_client_that_does_not_read_neither_blocks_the_container_nor_costs_a_line() {
    let mut world = world!();
    let script = "read go; seq 1 200000; echo done >&2";
    let spec = interactive(&world, "app", script, Stdin::Open);
    world.client().start("app", 0, &spec).await.expect("start");
    let sleeper = attach(&world, "app", false).await;
    let mut reader = attach(&world, "app", true).await;
    let begin = Instant::now();
    let mut stdin = reader.stdin.take().expect("stdin");
    stdin.write_all(b"\n").expect("typed");
    let all = read_all(reader.stdout).await;
    assert_eq!(all.lines().count(), 200_000);
    assert_eq!(world.exit_of("app").await.code, 0);
    assert!(begin.elapsed() < Duration::from_secs(90), "{:?}", begin.elapsed());
    assert_eq!(world.log("app").lines().count(), 200_001);
    // It was let go while the container lived.
    assert_eq!(sleeper.attach.wait().await.expect("told"), None);
    assert_eq!(reader.attach.wait().await.expect("told").map(|exit| exit.code), Some(0));
}

#[tokio::test]
async fn a_client_that_reads_slowly_gets_everything() {
    let mut world = world!();
    let spec = interactive(&world, "app", "read go; seq 1 60000", Stdin::Open);
    world.client().start("app", 0, &spec).await.expect("start");
    let mut guest = attach(&world, "app", true).await;
    let mut stdin = guest.stdin.take().expect("stdin");
    stdin.write_all(b"\n").expect("typed");
    let mut stdout = guest.stdout;
    let read = tokio::task::spawn_blocking(move || {
        let mut text = Vec::new();
        let mut buffer = [0; 8192];
        loop {
            match stdout.read(&mut buffer).expect("read") {
                0 => return text,
                count => text.extend_from_slice(&buffer[..count]),
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    });
    let text = String::from_utf8(read.await.expect("thread")).expect("text");
    assert!(text.ends_with("\n60000\n") && text.lines().count() == 60_000);
    assert_eq!(guest.attach.wait().await.expect("told").map(|exit| exit.code), Some(0));
    assert_eq!(world.exit_of("app").await.code, 0);
}

#[tokio::test]
async fn a_client_that_leaves_is_forgotten_and_closes_an_input_for_one() {
    let mut world = world!();
    let spec = interactive(&world, "app", "cat; echo end of input", Stdin::Once);
    world.client().start("app", 0, &spec).await.expect("start");
    let guest = attach(&world, "app", true).await;
    let Guest { stdin, stdout, stderr, attach } = guest;
    drop((stdin, stdout, stderr));
    let ended = tokio::time::timeout(Duration::from_secs(120), attach.wait()).await.expect("told");
    assert!(matches!(ended, Ok(None | Some(Exit { code: 0, .. }))), "{ended:?}");
    assert_eq!(world.exit_of("app").await.code, 0);
    assert_eq!(world.log("app"), "end of input\n");
}

#[tokio::test]
async fn a_terminal_is_typed_into_and_resized() {
    let mut world = world!();
    let script = "trap 'echo resized' WINCH; tty; while ! read a; do :; done; echo got $a; exit 4";
    let spec = ContainerSpec { tty: true, ..interactive(&world, "app", script, Stdin::Open) };
    world.client().start("app", 0, &spec).await.expect("start");
    eventually("it has begun", || world.log("app").contains("/dev/")).await;
    let mut guest = attach(&world, "app", true).await;
    world.client().resize("app", 0, 100, 30);
    let stdout = std::os::fd::OwnedFd::from(guest.stdout);
    read_terminal(&stdout, "resized");
    let mut stdin = guest.stdin.take().expect("stdin");
    stdin.write_all(b"x\n").expect("typed");
    read_terminal(&stdout, "got x");
    assert_eq!(guest.attach.wait().await.expect("told").map(|exit| exit.code), Some(4));
    assert_eq!(world.exit_of("app").await.code, 4);
}

#[tokio::test]
async fn the_end_of_the_pod_ends_an_attach() {
    let mut world = world!();
    let spec = world.spec("app", "exec sleep 1000");
    world.client().start("app", 0, &spec).await.expect("start");
    let guest = attach(&world, "app", false).await;
    world.client().shutdown().await.expect("shutdown");
    assert_eq!(guest.attach.wait().await.expect("told").map(|exit| exit.code), Some(137));
    assert_eq!(read_all(guest.stdout).await, "");
    assert_eq!(world.exit_of("app").await.code, 137);
}
