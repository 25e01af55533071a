//! kubectl, each time over WebSocket and over SPDY.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::world::World;

const BOTH: [bool; 2] = [false, true];

fn protocol(spdy: bool) -> &'static str {
    if spdy { "spdy/3.1" } else { "websocket" }
}

#[test]
fn exec_returns_outputs_and_code() {
    let world = World::new();
    for spdy in BOTH {
        let script = "echo out; echo err >&2; exit 3";
        let (code, out, err) = world.run(spdy, &["exec", "web", "-c", "app", "--", "sh", "-c", script]);
        assert_eq!((code, out.as_str()), (3, "out\n"), "{err}");
        assert_eq!(err, "err\ncommand terminated with exit code 3\n");
        assert_eq!(world.upgrades(), [protocol(spdy)]);
        let (code, out, err) =
            world.run(spdy, &["exec", "web", "-c", "app", "--", "printf", "%s|", "a b", "", "c&d=e+f"]);
        assert_eq!((code, out.as_str()), (0, "a b||c&d=e+f|"), "{err}");
        world.upgrades();
    }
}

/// All of a long output comes, also when the process ends at once after it.
#[test]
fn exec_loses_no_output() {
    let world = World::new();
    for spdy in BOTH {
        let (code, out, err) = world.run(spdy, &["exec", "web", "-c", "app", "--", "seq", "1000000"]);
        assert_eq!(code, 0, "{err}");
        assert_eq!(out.len(), 6_888_896);
        assert!(out.ends_with("999999\n1000000\n"));
    }
}

/// The end of the stream is not lost in the end of TLS.
#[test]
fn tls_changes_nothing() {
    let world = World::with_tls();
    let port = echo();
    for spdy in BOTH {
        let (code, out, err) = world.run(spdy, &["exec", "web", "-c", "app", "--", "sh", "-c", "seq 100000; exit 3"]);
        assert_eq!((code, out.len()), (3, 588_895), "{err}");
        let forwarding = Forwarding::to(&world, spdy, port);
        let mut connection = TcpStream::connect(("127.0.0.1", forwarding.1)).unwrap();
        connection.write_all(&[b'x'; 100_000]).unwrap();
        connection.shutdown(Shutdown::Write).unwrap();
        assert_eq!(connection.read_to_end(&mut Vec::new()).unwrap(), 100_000);
    }
}

#[test]
fn exec_passes_input_to_its_end() {
    let world = World::new();
    let input: Vec<u8> = (0..3_000_000u32).map(|number| (number.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    for spdy in BOTH {
        let mut child = world
            .kubectl(spdy)
            .args(["exec", "-i", "web", "-c", "app", "--", "cat"])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let sent = input.clone();
        let writing = std::thread::spawn(move || stdin.write_all(&sent).unwrap());
        let output = child.wait_with_output().unwrap();
        writing.join().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(output.stdout == input, "{} of {} bytes", output.stdout.len(), input.len());
    }
}

/// A command that does not read its input ends all the same.
#[test]
fn exec_ends_with_input_left() {
    let world = World::new();
    for spdy in BOTH {
        let mut child = world
            .kubectl(spdy)
            .args(["exec", "-i", "web", "-c", "app", "--", "sh", "-c", "sleep 1; exit 4"])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let writing = std::thread::spawn(move || {
            let _ = stdin.write_all(&vec![b'x'; 10_000_000]);
        });
        let output = child.wait_with_output().unwrap();
        writing.join().unwrap();
        assert_eq!(output.status.code(), Some(4), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn exec_has_a_terminal_that_is_resized() {
    let world = World::new();
    for spdy in BOTH {
        let kubectl = world.kubectl(spdy);
        // timeout(1) would otherwise put kubectl in the background of its terminal.
        let mut line = "stty cols 93 rows 17; exec timeout --foreground".to_owned();
        for word in kubectl.get_args() {
            line.push_str(&format!(" {}", word.to_str().unwrap()));
        }
        let typed = "sleep 1; tty; stty size; read word; echo got:$word; exit 5";
        line.push_str(&format!(" exec -it web -c app -- sh -c '{typed}'"));
        let mut script = Command::new("script");
        script.args(["--quiet", "--return", "--command", &line, "/dev/null"]);
        for (name, value) in kubectl.get_envs() {
            script.env(name, value.unwrap());
        }
        let mut child = script.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        std::thread::sleep(Duration::from_millis(1500));
        stdin.write_all(b"word\r").unwrap();
        let output = child.wait_with_output().unwrap();
        drop(stdin);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(text.contains("/dev/pts/") && text.contains("17 93") && text.contains("got:word"), "{spdy} {text:?}");
        assert_eq!(output.status.code(), Some(5), "{text:?}");
    }
}

#[test]
fn refusals_are_told_in_upstreams_words() {
    let world = World::new();
    for spdy in BOTH {
        for (container, command, expected) in [
            ("stopped", "true", "error: unable to upgrade connection: container not found (\"stopped\")"),
            ("app", "/no/such/program", "Internal error occurred: error executing command in container: No such file"),
            ("missing", "true", "container missing is not valid for pod web"),
        ] {
            let (code, _, err) = world.run(spdy, &["exec", "web", "-c", container, "--", command]);
            assert!(code == 1 && err.contains(expected), "{spdy} {code} {err}");
        }
    }
}

#[test]
fn attach_joins_and_ends_with_the_container() {
    let world = World::new();
    for spdy in BOTH {
        let mut child =
            world.kubectl(spdy).args(["attach", "-i", "web", "-c", "app"]).stdin(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(b"typed\n").unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(
            String::from_utf8_lossy(&output.stdout),
            "attached\ntyped\n",
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        assert!(output.status.success());
    }
}

#[test]
fn files_are_copied_both_ways() {
    let world = World::new();
    let (from, inside, back) = (world.file("from"), world.file("inside"), world.file("back"));
    for directory in [&from, &inside] {
        std::fs::create_dir_all(directory).unwrap();
    }
    let content: Vec<u8> = (0..2_000_000u32).map(|number| (number.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    std::fs::write(from.join("large"), &content).unwrap();
    std::fs::write(from.join("small"), "s").unwrap();
    for spdy in BOTH {
        let there = format!("web:{}", inside.display());
        let (code, _, err) = world.run(spdy, &["cp", "-c", "app", from.to_str().unwrap(), &there]);
        assert_eq!(code, 0, "{err}");
        assert!(std::fs::read(inside.join("from/large")).unwrap() == content);
        let (code, _, err) = world.run(spdy, &["cp", "-c", "app", &format!("{there}/from"), back.to_str().unwrap()]);
        assert_eq!(code, 0, "{err}");
        assert!(std::fs::read(back.join("large")).unwrap() == content);
        for directory in [inside.join("from"), back.clone()] {
            std::fs::remove_dir_all(directory).unwrap();
        }
    }
}

#[test]
fn logs_are_chosen_and_cut() {
    let world = World::new();
    let entries = |texts: &[&str]| -> String {
        texts
            .iter()
            .enumerate()
            .map(|(index, text)| format!("2026-08-15T10:00:{index:02}.000000000Z stdout F {text}\n"))
            .collect()
    };
    std::fs::write(world.log("app", 2), entries(&["one", "two", "three"])).unwrap();
    std::fs::write(world.log("app", 1), entries(&["before"])).unwrap();
    for (arguments, expected) in [
        (&["-c", "app"][..], "one\ntwo\nthree\n"),
        (&["-c", "app", "--previous"], "before\n"),
        (&["-c", "app", "--tail=1"], "three\n"),
        (&["-c", "app", "--tail=0"], ""),
        (&["-c", "app", "--limit-bytes=5"], "one\nt"),
        (&["-c", "app", "--since-time=2026-08-15T10:00:01Z"], "two\nthree\n"),
        (&["-c", "app", "--tail=1", "--timestamps"], "2026-08-15T10:00:02.000000000Z three\n"),
        (&["-c", "app", "--since=1s"], ""),
        (&["-c", "app", "--tail=1", "--prefix"], "[pod/web/app] three\n"),
    ] {
        let (code, out, err) = world.run(false, &[&["logs", "web"], arguments].concat());
        assert_eq!((code, out.as_str()), (0, expected), "{arguments:?} {err}");
    }
    for (container, expected) in [
        ("waiting", "container \"waiting\" in pod \"web\" is waiting to start: trying and failing to pull image"),
        ("stopped", "container \"stopped\" in pod \"web\" is not available"),
        ("missing", "container missing is not valid for pod web"),
    ] {
        let (code, _, err) = world.run(false, &["logs", "web", "-c", container]);
        // kubectl looks a container up by itself first.
        let missing = container == "missing" && err.contains("container missing is not valid for pod web");
        assert!(code == 1 && (missing || err.contains(expected)), "{err}");
    }
}

#[test]
fn a_followed_log_ends_with_its_attempt() {
    let world = World::new();
    let line = |text: &str| format!("2026-08-15T10:00:00.000000000Z stdout F {text}\n");
    let path = world.log("app", 2);
    std::fs::write(&path, line("one")).unwrap();
    let mut child = world.kubectl(false).args(["logs", "-f", "web", "-c", "app"]).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "one");
    let mut file = std::fs::File::options().append(true).open(&path).unwrap();
    file.write_all(line("two").as_bytes()).unwrap();
    assert_eq!(lines.next().unwrap().unwrap(), "two");
    std::fs::rename(&path, path.with_file_name("2.log.20260815-100000")).unwrap();
    std::fs::write(&path, line("rotated")).unwrap();
    assert_eq!(lines.next().unwrap().unwrap(), "rotated");
    world.change(|pod| pod.as_mut().unwrap()["status"]["containerStatuses"][0]["restartCount"] = 3.into());
    assert!(lines.next().is_none());
    assert!(child.wait().unwrap().success());
}

/// A running `kubectl port-forward`, killed when it is dropped.
struct Forwarding(Child, u16);

impl Forwarding {
    fn to(world: &World, spdy: bool, port: u16) -> Self {
        let mut child = world.kubectl(spdy).args(["port-forward", "pod/web", &format!(":{port}")]).spawn().unwrap();
        let mut line = String::new();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        output.read_line(&mut line).unwrap();
        let local = line.strip_prefix("Forwarding from 127.0.0.1:").and_then(|rest| rest.split(' ').next());
        let local = local.unwrap_or_else(|| panic!("{line}")).parse().unwrap();
        std::thread::spawn(move || drop(std::io::copy(&mut output, &mut std::io::sink())));
        Self(child, local)
    }
}

impl Drop for Forwarding {
    fn drop(&mut self) {
        // timeout(1) passes it on.
        let _ = rustix::process::kill_process(rustix::process::Pid::from_child(&self.0), rustix::process::Signal::TERM);
        let _ = self.0.wait();
    }
}

/// Answers every connection, when it has ended, with what it said.
fn echo() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let mut connection = connection.unwrap();
            std::thread::spawn(move || {
                let mut said = Vec::new();
                connection.read_to_end(&mut said).unwrap();
                connection.write_all(&said).unwrap();
            });
        }
    });
    port
}

#[test]
fn ports_are_forwarded_with_half_closes() {
    let world = World::new();
    let port = echo();
    for spdy in BOTH {
        let forwarding = Forwarding::to(&world, spdy, port);
        let local = forwarding.1;
        assert_eq!(world.upgrades(), [protocol(spdy)]);
        let clients: Vec<_> = (0..10usize)
            .map(|client| {
                std::thread::spawn(move || {
                    let mut connection = TcpStream::connect(("127.0.0.1", local)).unwrap();
                    let said: Vec<u8> = (0..300_000).map(|index| (index * (client + 3) / 7) as u8).collect();
                    let mut writing = connection.try_clone().unwrap();
                    let copy = said.clone();
                    let writer = std::thread::spawn(move || {
                        writing.write_all(&copy).unwrap();
                        writing.shutdown(Shutdown::Write).unwrap();
                    });
                    let mut heard = Vec::new();
                    connection.read_to_end(&mut heard).unwrap();
                    writer.join().unwrap();
                    assert!(heard == said, "{} of {}", heard.len(), said.len());
                })
            })
            .collect();
        clients.into_iter().for_each(|client| client.join().unwrap());
        // And again, after connections have come and gone.
        let mut connection = TcpStream::connect(("127.0.0.1", local)).unwrap();
        connection.write_all(b"again").unwrap();
        connection.shutdown(Shutdown::Write).unwrap();
        let mut heard = String::new();
        connection.read_to_string(&mut heard).unwrap();
        assert_eq!(heard, "again");
    }
}

#[test]
fn a_refused_port_is_told() {
    let world = World::new();
    // Bound and not listening: nobody else gets it meanwhile.
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    for spdy in BOTH {
        let mut forwarding = Forwarding::to(&world, spdy, closed);
        let mut connection = TcpStream::connect(("127.0.0.1", forwarding.1)).unwrap();
        assert_eq!(connection.read_to_end(&mut Vec::new()).unwrap(), 0);
        // kubectl itself gives up when it is told an error (1.32), not the server.
        let mut stderr = forwarding.0.stderr.take().unwrap();
        let mut text = String::new();
        stderr.read_to_string(&mut text).unwrap();
        let expected =
            format!("error forwarding port {closed} to pod web, uid u-1: failed to connect: Connection refused");
        assert!(text.contains(&expected), "{text}");
    }
}

#[test]
fn forwarding_ends_with_the_pod() {
    let world = World::new();
    let port = echo();
    for spdy in BOTH {
        let mut forwarding = Forwarding::to(&world, spdy, port);
        let begun = Instant::now();
        world.change(|pod| pod.as_mut().unwrap()["status"]["phase"] = "Succeeded".into());
        let mut stderr = forwarding.0.stderr.take().unwrap();
        let mut text = String::new();
        stderr.read_to_string(&mut text).unwrap();
        assert!(text.contains("lost connection to pod"), "{text}");
        assert!(begun.elapsed() < Duration::from_secs(30));
        world.change(|pod| pod.as_mut().unwrap()["status"]["phase"] = "Running".into());
    }
}
