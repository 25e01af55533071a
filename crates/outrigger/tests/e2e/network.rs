//! A pod's network: its own address, reachable from the host, shared inside the pod, published by `hostPort`.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use crate::world::{Port, World, eventually};

/// A server of one line, in the only language every Debian has; perl is in `perl-base`.
const SERVER: &str = r#"use IO::Socket::INET; $s = IO::Socket::INET->new(LocalPort => 8080, Listen => 5, ReuseAddr => 1) or die $!; while ($c = $s->accept) { print $c "hello\n"; close $c; }"#;

fn pod(extra_port: &str) -> String {
    format!(
        r#"
apiVersion: v1
kind: Pod
metadata: {{name: net}}
spec:
  terminationGracePeriodSeconds: 1
  initContainers:
  - name: server
    image: busybox
    restartPolicy: Always
    command: [perl, -e, '{SERVER}']
    startupProbe: {{tcpSocket: {{port: 8080}}, periodSeconds: 1, failureThreshold: 100}}
    ports: [{{containerPort: 8080{extra_port}}}]
  containers:
  - name: client
    image: busybox
    command:
    - perl
    - -e
    - 'use IO::Socket::INET; $| = 1; $c = IO::Socket::INET->new("127.0.0.1:8080") or die $!; print "loopback says ", <$c>; sleep 1000'
"#
    )
}

fn greeting(address: &str) -> Option<String> {
    let mut stream = TcpStream::connect_timeout(&address.parse().unwrap(), Duration::from_secs(60)).ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    Some(text)
}

#[test]
fn containers_share_loopback_and_the_host_reaches_the_pod_and_its_host_port() {
    let world = World::new();
    let reserved = Port::reserve();
    let port = reserved.number;
    world.detach(&pod(&format!(", hostPort: {port}")));
    eventually("the client to be greeted over loopback", || {
        world.log("net", "client", 0).contains("loopback says hello")
    });
    let ip = world.status("net").unwrap().pod_ip.unwrap();
    assert_eq!(greeting(&format!("{ip}:8080")).as_deref(), Some("hello\n"));
    assert_eq!(greeting(&format!("127.0.0.1:{port}")).as_deref(), Some("hello\n"), "the sidecar's hostPort");
    world.ok(&["down", "net", "--force"]);
    assert!(greeting(&format!("127.0.0.1:{port}")).is_none());
    world.assert_nothing_left();
}

#[test]
fn a_pod_reaches_a_server_on_the_host() {
    let world = World::new();
    let listener = TcpListener::bind("0.0.0.0:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming().take(1) {
            let _ = stream.unwrap().write_all(b"outside\n");
        }
    });
    world.detach(&format!(
        r#"
apiVersion: v1
kind: Pod
metadata: {{name: egress}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: m
    image: busybox
    env: [{{name: HOST, valueFrom: {{fieldRef: {{fieldPath: status.hostIP}}}}}}]
    command: [perl, -e, 'use IO::Socket::INET; $| = 1; $c = IO::Socket::INET->new("$ENV{{HOST}}:{port}") or die $!; print <$c>; sleep 1000']
"#
    ));
    eventually("the pod to reach the host", || world.log("egress", "m", 0).contains("outside"));
    world.ok(&["down", "egress", "--force"]);
}
