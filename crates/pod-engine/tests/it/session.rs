//! exec, attach, dial and usage.

use std::fs::File;
use std::io::{Read as _, Write as _};

use pod_engine::session::{Ended, SessionError, SessionRequest};
use serde_json::json;

use crate::world::{finish, read_all, world};

fn request(command: &[&str]) -> SessionRequest {
    let command = command.iter().map(|&word| word.to_owned()).collect();
    SessionRequest { command, stdin: true, stdout: true, stderr: true, tty: false }
}

#[test]
fn a_command_runs_beside_the_container_as_the_container() {
    world(async |world| {
        world.run("app", json!({
            "hostNetwork": true,
            "initContainers": [{"name": "side", "image": "i", "restartPolicy": "Always", "command": ["sleep", "1000"]}],
            "containers": [{"name": "m", "image": "i", "command": ["sleep", "1000"], "workingDir": "/tmp",
                "env": [{"name": "A", "value": "b"}], "securityContext": {"runAsUser": 1234}}],
        }));
        world.until_running("app", "m").await;
        let script = "echo $A $(id -u) $(pwd); echo oops >&2; cat; exit 7";
        let mut session = world.engine.exec("default", "app", "m", request(&["sh", "-c", script])).await.unwrap();
        File::from(session.stdin.take().unwrap()).write_all(b"typed\n").unwrap();
        let (stdout, stderr, ended) = finish(session).await;
        assert_eq!((stdout.as_str(), stderr.as_str()), ("b 1234 /tmp\ntyped\n", "oops\n"));
        assert_eq!(ended, Ended::Exited(7));
        // A sidecar, killed by a signal.
        let session = world.engine.exec("default", "app", "side", request(&["sh", "-c", "kill -9 $$"])).await.unwrap();
        assert_eq!(finish(session).await.2, Ended::Exited(137));
        let absent = world.engine.exec("default", "app", "absent", request(&["true"])).await.unwrap_err();
        assert_eq!(absent.to_string(), "container not found (\"absent\")");
        let error = world.engine.exec("default", "app", "m", request(&["/no/such"])).await.unwrap_err();
        assert!(matches!(&error, SessionError::Failed(text) if text.contains("no such file or directory")), "{error}");
    });
}

#[test]
fn a_terminal_is_the_containers_and_has_a_size() {
    world(async |world| {
        world.run(
            "app",
            json!({"hostNetwork": true,
            "containers": [{"name": "m", "image": "i", "command": ["sleep", "1000"]}]}),
        );
        world.until_running("app", "m").await;
        let request = SessionRequest {
            tty: true,
            stderr: false,
            ..request(&["sh", "-c", "read go; tty; echo $TERM; stty size"])
        };
        let mut session = world.engine.exec("default", "app", "m", request).await.unwrap();
        session.resize.as_ref().unwrap()(132, 43);
        File::from(session.stdin.take().unwrap()).write_all(b"\n").unwrap();
        // The terminal lives as long as somebody can resize it.
        let text = read_all(session.stdout.take()).await;
        assert_eq!(text, "\r\n/dev/pts/0\r\nxterm\r\n43 132\r\n");
        assert_eq!(session.end.await, Ok(Ended::Exited(0)));
    });
}

#[test]
fn a_client_that_leaves_closes_the_commands_input_and_leaves_it_alone() {
    world(async |world| {
        world.run(
            "app",
            json!({"hostNetwork": true,
            "containers": [{"name": "m", "image": "i", "command": ["sleep", "1000"]}]}),
        );
        world.until_running("app", "m").await;
        let script = "trap '' PIPE; cat >/dev/null; touch /tmp/at-the-end; exec sleep 1001";
        let session = world.engine.exec("default", "app", "m", request(&["sh", "-c", script])).await.unwrap();
        drop(session);
        let check = [
            "sh",
            "-c",
            "for i in $(seq 500); do test -e /tmp/at-the-end && break; sleep 0.02; done; grep -l 1001 /proc/[0-9]*/cmdline",
        ];
        let session = world.engine.exec("default", "app", "m", request(&check)).await.unwrap();
        let (stdout, _, ended) = finish(session).await;
        assert!(ended == Ended::Exited(0) && stdout.contains("/proc/"), "it still runs: {ended:?} {stdout}");
    });
}

#[test]
fn clients_attach_to_a_container_that_reads() {
    world(async |world| {
        world.run_detached(
            "app",
            json!({"hostNetwork": true, "restartPolicy": "Never",
            "containers": [{"name": "m", "image": "i", "stdin": true, "stdinOnce": true,
                "command": ["sh", "-c", "while read line; do echo \"got $line\"; done; echo bye >&2; exit 5"]}]}),
        );
        world.until_running("app", "m").await;
        let watcher =
            world.engine.attach("default", "app", "m", SessionRequest { stdin: false, ..request(&[]) }).await.unwrap();
        assert!(watcher.stdin.is_none() && watcher.resize.is_none());
        let mut session = world.engine.attach("default", "app", "m", request(&[])).await.unwrap();
        let mut stdin = File::from(session.stdin.take().unwrap());
        stdin.write_all(b"one\ntwo\n").unwrap();
        drop(stdin);
        for session in [session, watcher] {
            let (stdout, stderr, ended) = finish(session).await;
            assert_eq!((stdout.as_str(), stderr.as_str()), ("got one\ngot two\n", "bye\n"));
            assert_eq!(ended, Ended::Exited(5));
        }
        assert_eq!(world.log("app", "m"), "got one\ngot two\nbye\n");
        world.until("the pod has failed", |world| world.status("app").phase.as_deref() == Some("Failed")).await;
        let late = world.engine.attach("default", "app", "m", request(&[])).await;
        assert!(matches!(late, Err(SessionError::NotRunning(_))));
    });
}

#[test]
fn a_shell_on_a_terminal_is_attached_to() {
    world(async |world| {
        world.run(
            "app",
            json!({"hostNetwork": true, "restartPolicy": "Never",
            "containers": [{"name": "m", "image": "i", "stdin": true, "tty": true, "command": ["sh"]}]}),
        );
        world.until_running("app", "m").await;
        let mut session = world.engine.attach("default", "app", "m", request(&[])).await.unwrap();
        assert!(session.stderr.is_none());
        session.resize.as_ref().unwrap()(99, 33);
        let mut stdin = File::from(session.stdin.take().unwrap());
        stdin.write_all(b"stty size; exit 3\n").unwrap();
        let text = read_all(session.stdout.take()).await;
        assert!(text.contains("33 99\r\n"), "{text}");
        assert_eq!(session.end.await, Ok(Ended::Exited(3)));
        drop(stdin);
    });
}

#[test]
fn the_pods_own_loopback_is_dialled() {
    world(async |world| {
        // A listener on the pod's loopback alone, made of what every machine has.
        let script = "import socket; s = socket.create_server(('127.0.0.1', 7777)); print('ready', flush=True)\nwhile True: c, _ = s.accept(); c.sendall(b'from the pod'); c.close()";
        world.run("app", json!({"containers": [
            {"name": "m", "image": "i", "command": ["python3", "-c", script]}, {"name": "n", "image": "i", "command": ["sleep", "1000"]}]}));
        world
            .until("it listens", |world| {
                world.engine.drives("default", "app")
                    && world.status("app").phase.is_some()
                    && world.log("app", "m").contains("ready")
            })
            .await;
        let stream = world.engine.dial("default", "app", 7777).await.unwrap();
        let read = tokio::task::spawn_blocking(move || {
            let (mut stream, mut text) = (stream, String::new());
            stream.read_to_string(&mut text).unwrap();
            text
        });
        assert_eq!(read.await.unwrap(), "from the pod");
        let refused = world.engine.dial("default", "app", 7778).await.unwrap_err();
        assert!(refused.contains("localhost:7778") && refused.contains("refused"), "{refused}");
        let gone = world.engine.dial("default", "nobody", 1).await.unwrap_err();
        assert_eq!(gone, "pod default/nobody is not running");
        world.until_running("app", "n").await;
        let usage = world.engine.usage("default", "app");
        assert_eq!(usage.iter().map(|(name, ..)| name.as_str()).collect::<Vec<_>>(), ["m", "n"]);
        assert!(usage.iter().all(|(_, cpu, memory)| *cpu > 0 && *memory > 0), "{usage:?}");
    });
}
