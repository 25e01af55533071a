//! The proxy sidecar and this node's API: a service's pods found by its EndpointSlices, as a service account may read them.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Command;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use crate::node::{Going, Node};
use crate::services::{SHOP, server};
use crate::with_both;
use crate::world::{PATIENCE, eventually, install};

/// The answers' bodies, asked often; nothing else than 200 may come.
fn answers(address: &str) -> BTreeSet<String> {
    let ask = |_| {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        answer.rsplit("\r\n\r\n").next().unwrap().trim().to_owned()
    };
    (0..8).map(ask).collect()
}

with_both!(the_proxy_finds_a_services_pods);

fn the_proxy_finds_a_services_pods(node: &Node) {
    install("sidecar-proxy");
    node.apply(SHOP);
    node.apply(&[server("one"), server("two")].join("\n---\n"));
    node.ok("wait --for=condition=Ready pod --all --timeout=120s");

    let token = node.write("token", node.ok("create token default").trim());
    let authority = node.value_of_config("{.clusters[0].cluster.certificate-authority-data}");
    let authority = String::from_utf8(BASE64_STANDARD.decode(authority).unwrap()).unwrap();
    let authority = node.write("authority.pem", &authority);
    let api = node.value_of_config("{.clusters[0].cluster.server}");
    let document = node.write(
        "proxy.yaml",
        &format!(
            "apiVersion: outrigger.dev/v1alpha1
kind: Proxy
metadata: {{name: shop}}
spec:
  listeners: [{{name: web, address: '127.0.0.1:0'}}]
  routes: [{{name: all, backends: [{{name: shop}}]}}]
  backends:
  - name: shop
    discover: [{{kubernetes: {{service: shop, namespace: default, port: http, api: '{api}', tokenFile: '{token}', caFile: '{authority}'}}}}]
"
        ),
    );
    let program = PathBuf::from(env!("CARGO_BIN_EXE_outrigger")).with_file_name("outrigger-proxy");
    let mut command = Command::new(program);
    command.args(["--config", &document, "--admin", "off", "--log-format", "json", "--socket"]);
    command.arg(node.world.path("proxy.sock"));
    let (proxy, ()) = Going::start(command, "outrigger-proxy", |_| ());
    let mut address = String::new();
    eventually("the proxy to listen", || {
        let said = proxy.errors();
        let listening = said.lines().find(|line| line.contains("\"listening\""));
        let at = listening.and_then(|line| line.split("\"at\":\"").nth(1)?.split('"').next());
        address = at.unwrap_or_default().to_owned();
        !address.is_empty()
    });

    let both = BTreeSet::from(["prepared by one", "prepared by two"].map(str::to_owned));
    eventually("both pods", || answers(&address) == both);
    // One that is not ready gets nothing new; when it is again, it does; one that is deleted is gone.
    node.ok("exec one -c app -- touch /www/closed");
    let only = |name: &str| BTreeSet::from([format!("prepared by {name}")]);
    eventually("it to leave", || answers(&address) == only("two"));
    node.ok("exec one -c app -- rm /www/closed");
    eventually("it to come back", || answers(&address) == both);
    node.ok("delete pod two");
    eventually("the deleted one to leave", || answers(&address) == only("one"));
}
