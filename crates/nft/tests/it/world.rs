//! A private network namespace per test.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
};

/// Runs the test in a thread of its own inside a fresh network namespace, which ends with it.
pub(crate) fn in_private_network(test: impl FnOnce() + Send) {
    let mut holder = hold_network();
    let namespace = std::fs::File::open(format!("/proc/{}/ns/net", holder.id())).unwrap();
    let outcome = std::thread::scope(|scope| {
        scope
            .spawn(|| {
                use std::os::fd::AsFd;
                let kind = Some(rustix::thread::LinkNameSpaceType::Network);
                rustix::thread::move_into_link_name_space(namespace.as_fd(), kind).unwrap();
                test();
            })
            .join()
    });
    drop(holder.stdin.take());
    holder.wait().unwrap();
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
}

/// A process in a new network namespace; it ends when its standard input closes, so also when the test dies.
fn hold_network() -> Child {
    let mut holder = Command::new("unshare")
        .args(["--net", "sh", "-c", "ip link set lo up; echo ready; read _"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(holder.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    holder
}

/// What a program prints; it must succeed.
pub(crate) fn run(command: &str) -> String {
    let output = Command::new("sh").args(["-c", command]).output().unwrap();
    assert!(output.status.success(), "`{command}`: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}
