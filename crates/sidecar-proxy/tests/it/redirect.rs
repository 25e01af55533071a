//! The pod's traffic through the proxy without anybody knowing: in two network namespaces that a cable connects.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsFd as _;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;

use crate::config::problems;
use crate::harness::{Client, Upstream, World, eventually, ok};

/// A process in a network namespace of its own; both end with its standard input.
pub(crate) struct Network {
    holder: Child,
}

impl Network {
    pub(crate) fn new() -> Network {
        let mut holder = Command::new("unshare")
            .args(["--net", "sh", "-c", "ip link set lo up; echo ready; read _"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(holder.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        Network { holder }
    }

    /// The calling thread and all it starts are in it from now on.
    pub(crate) fn enter(&self) {
        let namespace = File::open(format!("/proc/{}/ns/net", self.holder.id())).unwrap();
        let kind = Some(rustix::thread::LinkNameSpaceType::Network);
        rustix::thread::move_into_link_name_space(namespace.as_fd(), kind).unwrap();
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        drop(self.holder.stdin.take());
        let _ = self.holder.wait();
    }
}

fn run(line: &str) -> String {
    let output = Command::new("sh").args(["-c", line]).output().unwrap();
    assert!(output.status.success(), "`{line}`: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn redirect(flags: &str) {
    run(&format!("{} redirect {flags}", env!("CARGO_BIN_EXE_outrigger-proxy")));
}

/// Runs `other` in a network of its own and then `pod`, with what the first returned, in the pod's.
fn in_two_networks<T: Send>(other: impl FnOnce() -> T + Send, pod: impl FnOnce(T) + Send) {
    let (here, there) = (Network::new(), Network::new());
    std::thread::scope(|scope| {
        let laid = scope.spawn(|| {
            here.enter();
            run(&format!(
                "ip link add pod type veth peer name other netns {} && ip addr add 10.9.9.1/24 dev pod \
                 && ip addr add fd00:9::1/64 dev pod nodad && ip link set pod up",
                there.holder.id()
            ));
        });
        laid.join().unwrap();
        let up = scope.spawn(|| {
            there.enter();
            run(
                "ip addr add 10.9.9.9/24 dev other && ip addr add fd00:9::9/64 dev other nodad && ip link set other up",
            );
            other()
        });
        let up = up.join().unwrap();
        let here = &here;
        scope.spawn(move || {
            here.enter();
            pod(up);
        });
    });
}

/// What takes redirected connections of IPv4, and these listeners besides.
fn spec(more: &str) -> String {
    format!(
        "listeners:
- {{name: in, address: \"0.0.0.0:15006\", transparent: true}}
- {{name: out, address: \"0.0.0.0:15001\", transparent: true, tcp: original}}
{more}routes:
- {{name: all, backends: [{{name: original}}]}}
backends:
- {{name: original, endpoints: [], originalDestination: true}}
"
    )
}

#[test]
fn connections_go_through_the_proxy_and_arrive_where_they_were_meant_to() {
    in_two_networks(
        || {
            let listener = TcpListener::bind("10.9.9.9:8080").unwrap();
            let (wish, wishes) = mpsc::channel::<SocketAddr>();
            let (answer, answers) = mpsc::channel();
            std::thread::spawn(move || {
                for address in wishes {
                    let mut client = Client::connect(address);
                    client.send(format!("GET / HTTP/1.1\r\nHost: {address}\r\n\r\n"));
                    let _ = answer.send(client.answer().body);
                }
            });
            (Upstream::on(listener, |_| ok("outside")), wish, answers)
        },
        |(_outside, wish, answers)| {
            let mut world = World::new();
            world.user = Some(1337);
            world.start(&spec(""));
            let flags = "--inbound-port 15006 --outbound-port 15001 --exclude-uid 1337 --exclude-inbound 22 --exclude-network 10.200.0.0/16";
            redirect(flags);
            let rules = run("nft list ruleset");
            // Again: the same rules, not twice as many.
            redirect(flags);
            assert_eq!(run("nft list ruleset"), rules);
            assert_eq!(rules.matches("redirect to").count(), 2, "{rules}");

            // Out: this user is not the proxy.
            let there: SocketAddr = "10.9.9.9:8080".parse().unwrap();
            let before = world.metric("outrigger_proxy_connections_total");
            assert_eq!(Client::connect(there).get("/").body, "outside");
            assert_eq!(world.metric("outrigger_proxy_connections_total"), before + 1);

            // In: somebody from outside wants the application, which knows nothing.
            let application = Upstream::on(TcpListener::bind("10.9.9.1:9000").unwrap(), |seen| {
                ok(seen.field("x-forwarded-for").unwrap())
            });
            wish.send("10.9.9.1:9000".parse().unwrap()).unwrap();
            assert_eq!(answers.recv().unwrap(), "10.9.9.9");
            assert_eq!(application.count(), 1);
            assert_eq!(application.last().field("host"), Some("10.9.9.1:9000"));

            // Whoever connects to the listener itself wanted to go nowhere.
            for port in [15001, 15006] {
                let mut direct = Client::connect(SocketAddr::from(([127, 0, 0, 1], port)));
                direct.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
                assert!(direct.is_closed());
            }

            // What the proxy sends comes back to it: it is cut at once, not sent round for ever.
            redirect("--outbound-port 15001 --exclude-uid 4242");
            let refused = world.metric("outrigger_proxy_connections_refused_total");
            let mut looping = Client::connect(there);
            looping.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
            assert!(looping.is_closed());
            eventually("the refusal", || world.metric("outrigger_proxy_connections_refused_total") == refused + 1);

            for _ in 0..2 {
                redirect("--remove");
                assert_eq!(run("nft list ruleset"), "");
            }
            let before = world.metric("outrigger_proxy_connections_total");
            assert_eq!(Client::connect(there).get("/").body, "outside");
            assert_eq!(world.metric("outrigger_proxy_connections_total"), before);
        },
    );
}

/// The same ports for the other family.
const SIX: &str = "- {name: in6, address: \"[::]:15006\", transparent: true}
- {name: out6, address: \"[::]:15001\", transparent: true, tcp: original}
";

#[test]
fn both_families_go_through_the_proxy() {
    in_two_networks(
        || {
            let outside = ["10.9.9.9:8080", "[fd00:9::9]:8080"].map(|at| {
                eventually("the address", || TcpListener::bind(at).is_ok());
                Upstream::on(TcpListener::bind(at).unwrap(), |_| ok("outside"))
            });
            let (wish, wishes) = mpsc::channel::<SocketAddr>();
            let (answer, answers) = mpsc::channel();
            std::thread::spawn(move || {
                for address in wishes {
                    let mut client = Client::connect(address);
                    client.send(format!("GET / HTTP/1.1\r\nHost: {address}\r\n\r\n"));
                    let _ = answer.send(client.answer().body);
                }
            });
            (outside, wish, answers)
        },
        |(_outside, wish, answers)| {
            let mut world = World::new();
            world.user = Some(1337);
            world.start(&spec(SIX));
            redirect("--inbound-port 15006 --outbound-port 15001 --exclude-uid 1337 --exclude-network fd00:77::/32");
            let connections = || world.metric("outrigger_proxy_connections_total");
            for there in ["10.9.9.9:8080", "[fd00:9::9]:8080"] {
                let before = connections();
                assert_eq!(Client::connect(there.parse().unwrap()).get("/").body, "outside");
                assert_eq!(connections(), before + 1, "{there}");
            }
            for (here, from) in [("10.9.9.1:9000", "10.9.9.9"), ("[fd00:9::1]:9000", "fd00:9::9")] {
                let application =
                    Upstream::on(TcpListener::bind(here).unwrap(), |seen| ok(seen.field("x-forwarded-for").unwrap()));
                let before = connections();
                wish.send(here.parse().unwrap()).unwrap();
                assert_eq!(answers.recv().unwrap(), from);
                assert_eq!((application.count(), connections()), (1, before + 1), "{here}");
                assert_eq!(application.last().field("host"), Some(here));
            }
            for here in ["127.0.0.1:15001", "[::1]:15006"] {
                let mut direct = Client::connect(here.parse().unwrap());
                direct.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
                assert!(direct.is_closed(), "{here}");
            }
            // What the proxy sends comes back to it, and is cut.
            redirect("--outbound-port 15001 --exclude-uid 4242");
            let refused = world.metric("outrigger_proxy_connections_refused_total");
            let mut looping = Client::connect("[fd00:9::9]:8080".parse().unwrap());
            looping.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
            assert!(looping.is_closed());
            eventually("the refusal", || world.metric("outrigger_proxy_connections_refused_total") == refused + 1);
        },
    );
}

#[test]
fn what_cannot_work_is_refused() {
    let wrong = "listeners:
- {name: a, address: ':1', transparent: true, proxyProtocol: true, tcp: original}
- {name: b, address: ':2', tcp: original}
backends:
- {name: original, endpoints: ['h:1'], originalDestination: true, http2: true, discover: [{srv: a}]}
";
    assert_eq!(
        problems(wrong),
        [
            "5:24: spec.listeners[0].address: must be of one family: `0.0.0.0:PORT` or `[::]:PORT`",
            "5:64: spec.listeners[0].proxyProtocol: excludes transparent: clients connect directly",
            "6:35: spec.listeners[1].tcp: goes to original destinations, so the listener must be transparent",
            "8:22: spec.backends[0].endpoints: must be [] with originalDestination",
            "8:76: spec.backends[0].http2: is not supported with originalDestination",
            "8:82: spec.backends[0].discover: must be [] with originalDestination",
        ]
    );
}
