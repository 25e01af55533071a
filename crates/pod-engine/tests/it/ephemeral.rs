//! Containers added to a live pod.

use pod_engine::session::{Ended, SessionRequest};
use serde_json::{Value, json};

use crate::world::{finish, world};

fn spec(ephemerals: Value) -> Value {
    json!({"hostNetwork": true, "ephemeralContainers": ephemerals,
        "containers": [{"name": "m", "image": "i", "command": ["sleep", "1000"]}]})
}

#[test]
fn a_debugger_joins_a_live_pod_once() {
    world(async |world| {
        world.run("app", spec(json!([])));
        world.until_running("app", "m").await;
        let command = json!(["sh", "-c", "tr '\\0' ' ' </proc/1/cmdline; echo; exec sleep 1002"]);
        let debug = json!({"name": "debug", "image": "i", "targetContainerName": "m", "command": command});
        let brief = json!({"name": "brief", "image": "i", "command": ["sh", "-c", "exit 3"]});
        world.run("app", spec(json!([debug, brief])));
        world.until_running("app", "debug").await;
        world.until("the target is seen", |world| world.log("app", "debug").contains("sleep 1000")).await;
        let request = SessionRequest { command: vec!["true".into()], stdout: true, ..SessionRequest::default() };
        let session = world.engine.exec("default", "app", "debug", request).await.unwrap();
        assert_eq!(finish(session).await.2, Ended::Exited(0));
        let ended =
            |world: &crate::world::World| world.container("app", "brief").state.and_then(|state| state.terminated);
        world.until("the other one has ended", |world| ended(world).is_some()).await;
        assert_eq!(ended(&world).unwrap().exit_code, 3);
        let status = world.status("app");
        assert_eq!(status.phase.as_deref(), Some("Running"));
        assert_eq!((world.container("app", "brief").restart_count, world.container("app", "m").restart_count), (0, 0));
        assert_eq!(status.ephemeral_container_statuses.unwrap().len(), 2);
        assert!(world.container("app", "m").ready);
    });
}
