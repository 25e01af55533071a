//! Discovery, health and the OpenAPI documents on the wire.

use http::{Method, StatusCode};

use crate::world::World;

const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,\
                          application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json";

#[test]
fn aggregated_discovery_says_its_form_and_is_cached() {
    let world = World::new();
    for path in ["/api", "/apis"] {
        let reply = world.call(Method::GET, path, &[("accept", AGGREGATED)], "");
        assert_eq!(
            reply.headers["content-type"],
            "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
        );
        assert_eq!(reply.headers["vary"], "Accept");
        assert_eq!(reply.json()["apiVersion"], "apidiscovery.k8s.io/v2");
        let tag = reply.headers["etag"].to_str().unwrap();
        assert_eq!(tag.len(), 130);
        let again = world.call(Method::GET, path, &[("accept", AGGREGATED), ("if-none-match", tag)], "");
        assert_eq!((again.status, again.bytes.len()), (StatusCode::NOT_MODIFIED, 0));
    }
    let core = world.call(Method::GET, "/api", &[("accept", AGGREGATED)], "").json();
    let resources = core["items"][0]["versions"][0]["resources"].as_array().unwrap();
    let pods = resources.iter().find(|resource| resource["resource"] == "pods").unwrap();
    assert_eq!((&pods["scope"], &pods["singularResource"]), (&"Namespaced".into(), &"pod".into()));
    let subresources: Vec<&str> =
        pods["subresources"].as_array().unwrap().iter().filter_map(|sub| sub["subresource"].as_str()).collect();
    for sub in
        ["attach", "binding", "ephemeralcontainers", "eviction", "exec", "log", "portforward", "resize", "status"]
    {
        assert!(subresources.contains(&sub), "{sub} is not in {subresources:?}");
    }
}

#[test]
fn legacy_discovery_and_documents() {
    let world = World::new();
    assert_eq!(world.get("/api").json()["versions"][0], "v1");
    let groups = world.get("/apis").json();
    let names: Vec<&str> =
        groups["groups"].as_array().unwrap().iter().filter_map(|group| group["name"].as_str()).collect();
    for name in ["authorization.k8s.io", "events.k8s.io", "metrics.k8s.io"] {
        assert!(names.contains(&name), "{names:?}");
    }
    assert_eq!(world.get("/apis/events.k8s.io").json()["preferredVersion"]["groupVersion"], "events.k8s.io/v1");
    let list = world.get("/api/v1").json();
    let names: Vec<&str> =
        list["resources"].as_array().unwrap().iter().filter_map(|one| one["name"].as_str()).collect();
    assert!(names.contains(&"pods") && names.contains(&"pods/log") && names.contains(&"configmaps"), "{names:?}");
    assert!(world.get("/").json()["paths"].as_array().unwrap().contains(&"/apis/metrics.k8s.io/v1beta1".into()));
    assert_eq!(world.get("/version").json()["gitVersion"], "v1.35.0");
    let index = world.get("/openapi/v3").json();
    let address = index["paths"]["api/v1"]["serverRelativeURL"].as_str().unwrap().to_owned();
    let document = world.get(&address);
    assert!(document.json()["components"]["schemas"]["io.k8s.api.core.v1.Pod"].is_object());
    let packed = world.call(Method::GET, &address, &[("accept-encoding", "gzip")], "");
    assert_eq!(packed.headers["content-encoding"], "gzip");
    assert!(packed.bytes.len() * 3 < document.bytes.len());
    let stale = world.get("/openapi/v3/api/v1?hash=stale");
    assert_eq!((stale.status, stale.headers["location"].to_str().unwrap()), (StatusCode::MOVED_PERMANENTLY, &*address));
    assert_eq!(world.get("/openapi/v3/apis/nothing/v1").status, 404);
    let protobuf = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
    let second = world.call(Method::GET, "/openapi/v2", &[("accept", protobuf)], "");
    // Go's clients cannot read an answer that is called what they ask for: `@` has no place in a media type.
    let answered = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
    assert_eq!((second.status, second.headers["content-type"].to_str().unwrap()), (StatusCode::OK, answered));
}

#[test]
fn only_health_and_version_are_for_everybody() {
    let world = World::new();
    let nobody = [("authorization", "Bearer wrong")];
    for path in ["/livez", "/readyz", "/healthz", "/readyz?verbose", "/version"] {
        assert_eq!(world.call(Method::GET, path, &nobody, "").status, 200, "{path}");
    }
    assert!(String::from_utf8_lossy(&world.get("/readyz?verbose").bytes).contains("readyz check passed"));
    for path in ["/", "/api", "/apis", "/openapi/v3", "/api/v1/pods", "/nothing", "/apis/metrics.k8s.io/v1beta1/pods"] {
        let reply = world.call(Method::GET, path, &nobody, "");
        assert_eq!((reply.status.as_u16(), reply.message()), (401, "Unauthorized".to_owned()), "{path}");
        assert_eq!(reply.json()["reason"], "Unauthorized");
    }
}
