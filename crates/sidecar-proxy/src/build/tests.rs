use dataplane::tracing::Format;

use super::*;

fn spec(endpoint: &str, more: &str) -> Spec {
    let text = format!(
        "apiVersion: outrigger.dev/v1alpha1
kind: Proxy
spec:
  listeners: [{{name: a, address: '127.0.0.1:0'}}]
  routes: [{{name: r, backends: [{{name: b}}]}}]
  backends: [{{name: b, endpoints: ['{endpoint}']}}]
{more}"
    );
    daemon::config::load::<Spec>(&text, "Proxy", config::check).unwrap().spec
}

#[test]
fn a_document_that_is_refused_late_changes_no_backend() {
    let mut kept = Kept::new(None, u64::MAX, Vec::new());
    let plan = build(&spec("127.0.0.1:1", ""), 1, &mut kept).unwrap();
    let asked = || plan.backends[0].common.endpoints().iter().map(|one| one.name.clone()).collect::<Vec<_>>();
    assert_eq!(asked(), ["127.0.0.1:1"]);
    build(&spec("127.0.0.1:2", "  accessLog: {path: /proc/none/log}\n"), 1, &mut kept).unwrap_err();
    assert_eq!(asked(), ["127.0.0.1:1"]);
    let next = build(&spec("127.0.0.1:2", ""), 1, &mut kept).unwrap();
    assert!(Arc::ptr_eq(&next.backends[0].common, &plan.backends[0].common));
    assert_eq!(asked(), ["127.0.0.1:2"]);
}

#[test]
fn each_format_of_traces_is_written_once() {
    let spec = spec("127.0.0.1:1", "  tracing: {propagation: [w3c, b3, w3c]}\n");
    assert_eq!(telemetry::tracing(&spec).unwrap().formats, [Format::W3c, Format::B3]);
}
