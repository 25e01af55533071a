//! Clients that are not kubectl: the official Python library, kr8s, and plain HTTP for every refusal.

use crate::node::Node;

#[test]
fn the_official_python_client() {
    let node = Node::start("1.35");
    assert!(node.python("official.py", &[]).ends_with("done\n"));
}

#[test]
fn kr8s() {
    let node = Node::start("1.35");
    assert!(node.python("tour_kr8s.py", &[]).ends_with("done\n"));
}

#[test]
fn every_refusal_is_a_status_and_strangers_see_nothing() {
    use std::os::unix::fs::PermissionsExt as _;
    let node = Node::start("1.35");
    let token = node.ok("create token default");
    node.python("errors.py", &[token.trim()]);
    let mode = std::fs::metadata(node.kubeconfig()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    // The token works as kubectl's only credential, too.
    let server = node.ok("config view --minify -o 'jsonpath={.clusters[0].cluster.server}'");
    let by_token = format!(
        "--kubeconfig /dev/null --server {server} --insecure-skip-tls-verify --token {} get pods -o name",
        token.trim()
    );
    assert_eq!(node.ok(&by_token), "pod/there\n");
    let without = format!("--kubeconfig /dev/null --server {server} --insecure-skip-tls-verify --token wrong get pods");
    assert!(node.refused(&without).contains("Unauthorized") || node.refused(&without).contains("must be logged in"));
    node.ok("delete serviceaccount default");
    eprintln!("{}", node.kubectl(&by_token).err);
}
