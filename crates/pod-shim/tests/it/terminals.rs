//! Execs with a terminal of the container's own.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use crate::world::{process, world};

/// What a terminal's master reads until nobody has the other side open, or `until` has been read.
pub(crate) fn read_terminal(master: &OwnedFd, until: &str) -> String {
    let deadline = Instant::now() + Duration::from_secs(120);
    let mut text = String::new();
    let mut buffer = [0; 4096];
    while Instant::now() < deadline {
        let mut fds = [rustix::event::PollFd::new(master, rustix::event::PollFlags::IN)];
        let patience = rustix::event::Timespec { tv_sec: 1, tv_nsec: 0 };
        if rustix::event::poll(&mut fds, Some(&patience)) == Ok(0) {
            continue;
        }
        match rustix::io::read(master, &mut buffer) {
            Ok(count) if count > 0 => text.push_str(&String::from_utf8_lossy(&buffer[..count])),
            _ => return text,
        }
        if !until.is_empty() && text.contains(until) {
            return text;
        }
    }
    panic!("no {until:?} within two minutes, only {text:?}");
}

#[tokio::test]
async fn an_exec_has_a_terminal_of_the_container() {
    let world = world!();
    let spec = world.spec("app", "exec sleep 1000");
    world.client().start("app", 0, &spec).await.expect("start");
    let shell =
        process(&["sh", "-c", "tty; test -t 2 && echo errors too; read a; echo got $a; exit 3"], Default::default());
    let (mut exec, master) = world.client().exec_in_terminal("app", 0, &shell).await.expect("exec");
    assert_eq!(read_terminal(&master, "too\r\n"), "/dev/pts/0\r\nerrors too\r\n");
    rustix::io::write(&master, b"x\n").expect("written");
    assert_eq!(read_terminal(&master, ""), "x\r\ngot x\r\n");
    assert_eq!(exec.wait().await.expect("end").code, 3);
}

#[tokio::test]
async fn a_size_is_told_and_a_closed_terminal_hangs_up() {
    let world = world!();
    let spec = world.spec("app", "exec sleep 1000");
    world.client().start("app", 0, &spec).await.expect("start");
    let script = "trap 'echo resized' WINCH; echo ready; while :; do sleep 0.01; done";
    let shell = process(&["sh", "-c", script], Default::default());
    let (mut exec, master) = world.client().exec_in_terminal("app", 0, &shell).await.expect("exec");
    read_terminal(&master, "ready");
    let size = rustix::termios::Winsize { ws_col: 132, ws_row: 43, ws_xpixel: 0, ws_ypixel: 0 };
    rustix::termios::tcsetwinsize(&master, size).expect("resize");
    read_terminal(&master, "resized");
    drop(master);
    let exit = tokio::time::timeout(Duration::from_secs(120), exec.wait()).await.expect("hung up on").expect("end");
    assert_eq!(exit.signal, Some(1));
}

#[tokio::test]
async fn a_missing_program_is_told_also_with_a_terminal() {
    let world = world!();
    let spec = world.spec("app", "exec sleep 1000");
    world.client().start("app", 0, &spec).await.expect("start");
    let nothing = process(&["foo"], Default::default());
    let error = world.client().exec_in_terminal("app", 0, &nothing).await.unwrap_err();
    let expected = "failed to exec in container \"app\": exec: \"foo\": executable file not found in $PATH";
    assert_eq!(error.to_string(), expected);
}
