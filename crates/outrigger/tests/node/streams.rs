//! Bytes in and out of running containers: logs, exec, attach, copies, ports, debugging.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use crate::node::Node;
use crate::pods::web;
use crate::with_both;

/// Its main says five lines and fails, once; then it goes on.
const CHATTY: &str = "apiVersion: v1
kind: Pod
metadata: {name: chatty, labels: {app: chatty}}
spec:
  terminationGracePeriodSeconds: 0
  initContainers:
  - {name: side, image: busybox, restartPolicy: Always, command: [sh, -c, 'echo beside; trap exit TERM; sleep 1000000 & wait']}
  containers:
  - name: main
    image: busybox
    command: [sh, -c, 'if [ -e /d/once ]; then echo again; echo more >&2; trap exit TERM; sleep 1000000 & wait; fi; touch /d/once; for i in 1 2 3 4 5; do echo line $i; done; exit 3']
    volumeMounts: [{name: d, mountPath: /d}]
  volumes: [{name: d, emptyDir: {}}]
";

const LISTENER: &str = "apiVersion: v1
kind: Pod
metadata: {name: listener}
spec:
  terminationGracePeriodSeconds: 0
  restartPolicy: Never
  containers:
  - {name: app, image: busybox, stdin: true, command: [sh, -c, 'while read line && [ \"$line\" != bye ]; do echo \"heard $line\"; done; echo silence']}
";

/// A forward to this port of the pod; the local port that kubectl took.
fn forward(node: &Node, line: &str) -> (crate::node::Going, u16) {
    let mut forward = node.spawn(line);
    let said = forward.line("Forwarding from 127.0.0.1:");
    let port = said.split(':').nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
    (forward, port)
}

fn http(port: u16, path: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(crate::world::PATIENCE)).unwrap();
    write!(stream, "GET {path} HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

with_both!(logs, exec, attach_and_run, files_are_copied, ports_are_forwarded, a_container_is_debugged);

fn logs(node: &Node) {
    node.apply(CHATTY);
    node.until("get pod chatty --no-headers", |out| {
        let row: Vec<&str> = out.split_whitespace().collect();
        row[1..4] == ["2/2", "Running", "1"]
    });
    assert_eq!(node.until("logs chatty", |out| out.contains("more")), "again\nmore\n");
    assert!(node.kubectl("logs chatty").err.contains("Defaulted container \"main\" out of: main, side (init)"));
    let before = "line 1\nline 2\nline 3\nline 4\nline 5\n";
    assert_eq!(node.ok("logs chatty --previous"), before);
    assert_eq!(node.ok("logs chatty -p --tail=2"), "line 4\nline 5\n");
    assert_eq!(node.ok("logs chatty -p --tail=0"), "");
    assert_eq!(node.ok("logs chatty -p --limit-bytes=8"), "line 1\nl");
    assert_eq!(node.ok("logs chatty --since=1h"), "again\nmore\n");
    assert_eq!(node.ok("logs chatty --since-time=2099-01-01T00:00:00Z"), "");
    let stamped = node.ok("logs chatty --timestamps");
    let (time, rest) = stamped.split_once(' ').unwrap();
    assert!(time.len() == 30 && time.ends_with('Z') && time.parse::<jiff::Timestamp>().is_ok(), "{stamped}");
    assert!(rest.starts_with("again\n"));
    node.until("logs chatty -c side", |out| out == "beside\n");
    let all = node.ok("logs chatty --all-containers --prefix");
    // In which order containers come is up to kubectl's map.
    let mut lines: Vec<&str> = all.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["[pod/chatty/main] again", "[pod/chatty/main] more", "[pod/chatty/side] beside"]);
    assert_eq!(node.ok("logs -l app=chatty --tail=1"), "more\n");
    assert_eq!(node.ok("logs pod/chatty -c side"), "beside\n");
    assert!(node.refused("logs chatty -c nobody").contains("container nobody is not valid for pod chatty"));
    let raw = "get --raw /api/v1/namespaces/default/pods/chatty/log";
    assert_eq!(node.ok(raw), "again\nmore\n");
    assert_eq!(
        node.refused(&format!("{raw}?container=nobody")),
        "Error from server (BadRequest): container nobody is not valid for pod chatty\n"
    );
    assert_eq!(
        node.refused(&format!("{raw}?container=side&previous=true")),
        "Error from server (BadRequest): previous terminated container \"side\" in pod \"chatty\" not found\n"
    );
    assert!(node.refused(&format!("{raw}?tailLines=-1")).contains("tailLines"));
    assert!(node.refused(&format!("{raw}?sinceSeconds=0")).contains("must be greater than 0"));
    assert!(
        node.refused(&format!("{raw}?sinceSeconds=1&sinceTime=2020-01-01T00:00:00Z"))
            .contains("at most one of `sinceTime` or `sinceSeconds` may be specified")
    );

    // Followed until the container ends, not the pod, and what is said meanwhile.
    node.apply(LISTENER);
    node.ok("wait --for=condition=Ready pod/listener --timeout=120s");
    let mut follow = node.spawn("logs -f listener");
    let mut attached = node.spawn("attach -i listener");
    attached.type_in("one\n");
    follow.line("heard one");
    attached.line("heard one");
    attached.type_in("two\n");
    follow.line("heard two");
    node.ok("exec listener -- sh -c 'echo into the log > /proc/1/fd/1'");
    follow.line("into the log");
    attached.type_in("bye\n");
    let (_, all) = follow.end();
    assert_eq!(all, "heard one\nheard two\ninto the log\nsilence");
    assert_eq!(attached.end().0, Some(0));
    assert_eq!(node.ok("logs listener"), all + "\n", "kept until it is deleted");
}

fn exec(node: &Node) {
    node.ready("web", &web("web"));
    let ended = node.kubectl("exec web -- sh -c 'echo out; echo err >&2; exit 3'");
    assert_eq!((ended.code, ended.out.as_str()), (Some(3), "out\n"));
    assert!(
        ended.err.contains("Defaulted container \"app\" out of: app, prep (init), log (init)\n")
            && ended.err.contains("err\n")
            && ended.err.ends_with("command terminated with exit code 3\n"),
        "{}",
        ended.err
    );
    assert_eq!(node.ok_with("exec -i web -c app -- cat", "typed\n"), "typed\n");
    // The end of the input is told, and much of it arrives whole and in order.
    let much: String = (0..40_000).map(|number| format!("{number}\n")).collect();
    assert_eq!(
        node.ok_with("exec -i web -c app -- sha256sum", &much),
        node.ok_with("exec -i web -c app -- sh -c 'cat | sha256sum'", &much)
    );
    assert!(node.ok_with("exec -i web -c app -- cat", &much) == much);
    assert_eq!(node.ok("exec web -c log -- sh -c 'echo in $HOSTNAME'"), "in web\n");
    assert_eq!(node.ok("exec pod/web -c app -- echo 'two  words' ''"), "two  words \n");
    assert!(node.refused("exec web -c nobody -- true").contains("container nobody is not valid for pod web"));
    let ended = node.kubectl("exec web -c prep -- true");
    assert!(ended.code == Some(1) && ended.err.contains("container not found (\"prep\")"), "{}", ended.err);
    let missing = node.kubectl("exec web -c app -- no-such-program");
    assert!(missing.code != Some(0) && missing.err.contains("no-such-program"), "{}", missing.err);
    assert!(node.refused("exec nope -- true").contains("pods \"nope\" not found"));

    // Over SPDY, as clients before 1.30.
    let mut old = node.command("exec -i web -c app -- sh -c 'cat; exit 4'");
    old.env("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", "false");
    let mut child = old
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"by SPDY\n").unwrap();
    let ended = child.wait_with_output().unwrap();
    assert_eq!(
        (ended.status.code(), String::from_utf8_lossy(&ended.stdout).as_ref()),
        (Some(4), "by SPDY\n"),
        "{ended:?}"
    );

    // A terminal: its size, both streams on it, and the exit code of a shell.
    // The size is told beside the command, and may come after its start.
    let waits = "until stty size | grep -q 77; do sleep 0.1; done; stty size; tty";
    assert!(node.typed(&format!("exec -it web -c app -- sh -c '{waits}'"), "").out.contains("33 77\r\n"));
    let shell = node.typed("exec -it web -c app -- sh", "echo sum $((20+3))\nexit 7\n");
    assert!(shell.out.contains("sum 23\r\n") && shell.code == Some(7), "{shell:?}");
    // The container ends under it: kubectl comes back.
    let mut going = node.spawn("exec web -c app -- sh -c 'echo here; sleep 1000'");
    going.line("here");
    node.ok("delete pod web --force --grace-period=0");
    assert_ne!(going.end().0, Some(0));
}

fn attach_and_run(node: &Node) {
    node.apply(LISTENER);
    node.ok("wait --for=condition=Ready pod/listener --timeout=120s");
    let mut attached = node.spawn("attach -i listener");
    attached.type_in("hello\n");
    attached.line("heard hello");
    // Whoever comes later sees only what is said from then on.
    let mut second = node.spawn("attach listener");
    // Nothing tells when it is there but what it shows.
    crate::world::eventually("its first line", || {
        attached.type_in("again\n");
        second.hears(Duration::from_millis(500))
    });
    assert!(second.seen().iter().all(|line| line == "heard again"), "{:?}", second.seen());
    drop(attached);
    assert_eq!(node.value("pod/listener", "{.status.phase}"), "Running");

    let piped = node
        .kubectl_with("run once --rm -i --image=busybox --restart=Never -- sh -c 'cat; echo done; exit 5'", "piped\n");
    assert!(piped.out.contains("piped\ndone\n") && piped.code == Some(5), "{piped:?}");
    assert!(piped.out.contains("pod \"once\" deleted"), "{piped:?}");
    let typed = node.typed("run shell -it --rm --image=busybox --restart=Never -- sh", "echo sum $((20+3))\nexit\n");
    assert!(typed.out.contains("sum 23\r\n") && typed.out.contains("pod \"shell\" deleted"), "{typed:?}");
    assert_eq!(node.ok("get pods -o name"), "pod/listener\n");
}

fn files_are_copied(node: &Node) {
    node.ready("web", &web("web"));
    let bytes: Vec<u8> = (0..300_000u32).map(|number| (number * 7 % 251) as u8).collect();
    std::fs::create_dir_all(node.world.path("there/deep")).unwrap();
    std::fs::write(node.world.path("there/deep/big"), &bytes).unwrap();
    std::fs::write(node.world.path("there/small"), "small\n").unwrap();
    node.ok("cp there web:/www/copy -c app");
    assert_eq!(node.ok("exec web -c app -- cat /www/copy/small"), "small\n");
    node.ok("cp web:/www/copy back -c app");
    assert!(std::fs::read(node.world.path("back/deep/big")).unwrap() == bytes);
    node.ok("cp there/small web:/tmp/renamed -c log");
    node.ok("cp default/web:/tmp/renamed again -c log");
    assert_eq!(std::fs::read_to_string(node.world.path("again")).unwrap(), "small\n");
    // Whether kubectl says so is a race of its two halves.
    node.kubectl("cp web:/no/such/file missing -c app");
    assert!(!node.world.path("missing").exists());
}

fn ports_are_forwarded(node: &Node) {
    node.ready("web", &web("web"));
    for tunnel in ["", "false"] {
        let mut command = node.command("port-forward pod/web :8080 :9");
        if !tunnel.is_empty() {
            command.env("KUBECTL_PORT_FORWARD_WEBSOCKETS", tunnel);
        }
        let (mut going, port) = crate::node::Going::start(command, "port-forward", |going| {
            let said = going.line("Forwarding from 127.0.0.1:");
            said.split(':').nth(1).unwrap().split(' ').next().unwrap().parse::<u16>().unwrap()
        });
        for _ in 0..5 {
            assert!(http(port, "/").ends_with("\r\n\r\nprepared by web\n"));
        }
        assert!(http(port, "/nothing").starts_with("HTTP/1.1 404"));
        // Several at once, and one that says nothing for a while.
        let silent = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let clients: Vec<_> = (0..8).map(|_| std::thread::spawn(move || http(port, "/"))).collect();
        assert!(clients.into_iter().all(|client| client.join().unwrap().ends_with("prepared by web\n")));
        drop(silent);
        // Nobody listens there: said, and this connection ends.
        let closed = going.line("-> 9").split(':').nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
        let mut refused = TcpStream::connect(("127.0.0.1", closed)).unwrap();
        refused.set_read_timeout(Some(crate::world::PATIENCE)).unwrap();
        assert_eq!(refused.read(&mut [0; 10]).unwrap_or(0), 0);
        crate::world::eventually("the refusal to be told", || {
            let errors = going.errors();
            errors.contains("9") && errors.contains("refused")
        });
    }
    // The pod goes under it.
    let (mut going, port) = forward(node, "port-forward pod/web :8080");
    assert!(http(port, "/").ends_with("prepared by web\n"));
    node.ok("delete pod web");
    crate::world::eventually("the forward to end", || {
        drop(TcpStream::connect(("127.0.0.1", port)));
        going.ended()
    });
    assert!(node.refused("port-forward pod/nope :80").contains("pods \"nope\" not found"));
}

fn a_container_is_debugged(node: &Node) {
    node.ready("web", &web("web"));
    node.ok("debug web --profile=general --image=busybox --target=app -c look -- sh -c 'echo looking; grep -l httpd /proc/*/cmdline; echo looked'");
    let said = node.until("logs web -c look", |out| out.contains("looked"));
    assert!(said.starts_with("looking\n") && said.contains("/proc/1/cmdline"), "the target's processes: {said}");
    assert_eq!(node.value("pod/web", "{.spec.ephemeralContainers[*].name}"), "look");
    node.until("get pod web -o 'jsonpath={.status.ephemeralContainerStatuses[0].state.terminated.reason}'", |out| {
        out == "Completed"
    });
    assert!(node.ok("describe pod web").contains("Ephemeral Containers:\n  look:\n"));
    let typed = node.typed(
        "debug web -it --profile=general --image=busybox --target=app -c shell -- sh",
        "echo sum $((20+3))\nexit\n",
    );
    assert!(typed.out.contains("sum 23\r\n"), "{typed:?}");
    assert_eq!(
        node.value("pod/web", "{.status.containerStatuses[0].restartCount} {.spec.ephemeralContainers[*].name}"),
        "0 look shell"
    );
    let again = node.refused(r#"patch pod web --subresource=ephemeralcontainers -p '{"spec":{"ephemeralContainers":[{"name":"look","image":"alpine"}]}}'"#);
    assert!(again.contains("spec.ephemeralContainers[0]") || again.contains("may not be changed"), "{again}");
    assert!(node.ok("get pod web --no-headers").contains("2/2"));
}
