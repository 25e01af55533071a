//! What clients cannot do to the server.

use http::Method;
use serde_json::json;

use crate::world::World;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

#[test]
fn bodies_end_at_three_mebibytes() {
    let world = World::new();
    let reply = world.config_map("large", &json!({"x": "y".repeat((3 << 20) + 1)}));
    assert_eq!((reply.status.as_u16(), reply.json()["reason"].as_str()), (413, Some("RequestEntityTooLarge")));
    assert_eq!(reply.message(), "Request entity too large: limit is 3145728");
}

#[test]
fn a_panic_is_one_answer() {
    let world = World::new();
    let pod = json!({"metadata": {"name": "panics"}, "spec": {"containers": [{"name": "app", "image": "x"}]}});
    assert_eq!(world.post("/api/v1/namespaces/default/pods", &pod).status, 201);
    let reply = world.get("/apis/metrics.k8s.io/v1beta1/namespaces/default/pods/panics");
    assert_eq!((reply.status.as_u16(), reply.json()["reason"].as_str()), (500, Some("InternalError")));
    assert_eq!(world.get(MAPS).status, 200);
}

#[test]
fn hostile_texts_are_refused() {
    let world = World::new();
    let deep = "[".repeat(100_000);
    let yaml = [("content-type", "application/yaml")];
    let bomb = "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c]\n\
                e: &e [*d,*d,*d,*d,*d,*d]\nf: &f [*e,*e,*e,*e,*e,*e]\ng: &g [*f,*f,*f,*f,*f,*f]\nh: [*g,*g,*g,*g,*g,*g,*g]\n";
    for (headers, body) in
        [(&[][..], deep.as_str()), (&yaml[..], &deep), (&yaml[..], bomb), (&yaml[..], "a: b\n---\nc: d\n")]
    {
        let reply = world.call(Method::POST, MAPS, headers, body);
        assert_eq!(reply.status, 400, "{}", &body[..20]);
    }
    world.config_map("one", &json!({}));
    let grow = [("content-type", "application/json-patch+json")];
    let copies: Vec<_> = (0..40).map(|_| json!({"op": "copy", "from": "/data", "path": "/data/x"})).collect();
    let reply = world.call(Method::PATCH, &format!("{MAPS}/one"), &grow, &json!(copies).to_string());
    assert!(reply.status.is_client_error(), "{reply:?}");
    for path in ["/api/v1/namespaces/..%2f..%2f/configmaps/x", "/api/v1/namespaces/%00/pods", "/%", "//api//v1//pods"] {
        let status = world.get(path).status;
        assert!(status.is_client_error() || status.is_success(), "{path}: {status}");
    }
}

#[test]
fn many_watches_share_one_connection_at_a_time() {
    let world = World::new();
    let open = |count: usize| -> Vec<_> {
        (0..count)
            .map(|_| {
                let request = world.request(Method::GET, &format!("{MAPS}?watch=true"), &[], "");
                world.block_on(world.send(true, request))
            })
            .collect()
    };
    let held = open(100);
    assert!(held.iter().all(|response| response.status() == 200));
    assert_eq!(world.get(MAPS).status, 200);
}
