//! The life of a pod object: run, looked at, changed, deleted.

use std::time::Duration;

use serde_json::json;

use crate::world::{World, eventually, key, shell, sleeper};

#[test]
fn a_pod_runs_is_told_of_and_goes() {
    World::new().live(async |life| {
        let sidecar = json!({"name": "side", "image": "busybox", "restartPolicy": "Always",
            "command": ["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.05; done"]});
        life.create_pod("web", json!({"initContainers": [sidecar], "containers": [sleeper("app")]})).await;
        eventually("the pod to be ready", || life.is_ready("web")).await;
        let pod = life.pod("web");
        let node = life.engine.node().name.clone();
        assert_eq!(pod["spec"]["nodeName"], node.as_str());
        assert_eq!(pod["status"]["phase"], "Running");
        assert_eq!(pod["status"]["qosClass"], "BestEffort");
        assert_eq!(pod["status"]["observedGeneration"], 1);
        assert!(pod["status"]["podIP"].is_string() && pod["status"]["hostIP"].is_string());
        assert_eq!(life.condition("web", "PodScheduled")["status"], "True");
        let record = pod_engine::record::find(life.engine.roots(), "default", "web").unwrap().unwrap().record;
        assert_eq!(record.uid, pod["metadata"]["uid"].as_str().unwrap(), "the object's own uid");

        eventually("its events", || life.reasons("web").iter().filter(|reason| *reason == "Started").count() == 2)
            .await;
        let events = life.events("web");
        let scheduled = events.iter().find(|event| event["reason"] == "Scheduled").unwrap();
        assert_eq!(scheduled["message"], format!("Successfully assigned default/web to {node}"));
        assert_eq!(scheduled["reportingComponent"], "default-scheduler");
        let started = events.iter().find(|event| event["involvedObject"]["fieldPath"] == "spec.initContainers{side}");
        let started = started.unwrap();
        assert_eq!((&started["source"]["component"], &started["count"]), (&json!("kubelet"), &json!(1)));
        assert_eq!(started["involvedObject"]["uid"], pod["metadata"]["uid"]);

        life.delete_pod("web", 5).await;
        eventually("the object to go", || life.read("pods", "web").is_none()).await;
        assert!(life.reasons("web").contains(&"Killing".to_owned()));
        eventually("the engine to forget it", || !life.engine.drives("default", "web")).await;
    });
}

#[test]
fn a_forced_deletion_and_a_new_pod_of_the_name() {
    let world = World::new();
    world.live(async |life| {
        let stubborn = shell("app", "trap '' TERM; while :; do sleep 0.05; done");
        life.create_pod("web", json!({"containers": [stubborn]})).await;
        eventually("the first to run", || life.is_ready("web")).await;
        let first = life.pod("web")["metadata"]["uid"].clone();
        life.delete_pod("web", 0).await;
        life.create_pod("web", json!({"containers": [sleeper("app")]})).await;
        eventually("the second to run", || life.is_ready("web")).await;
        assert_ne!(life.pod("web")["metadata"]["uid"], first);
        life.delete_pod("web", 0).await;
        eventually("both to be gone", || world.pod_directories() == 0 && life.engine.driven().is_empty()).await;
    });
}

#[test]
fn one_that_ends_stays_with_its_log_until_it_is_deleted() {
    let world = World::new();
    world.live(async |life| {
        let spec = json!({"restartPolicy": "Never", "containers": [shell("app", "echo said; exit 3")]});
        life.create_pod("job", spec).await;
        eventually("its end", || life.phase("job") == "Failed").await;
        assert_eq!(life.log("job", "app", 0), "said\n");
        let status = life.pod("job")["status"]["containerStatuses"][0].clone();
        assert_eq!(status["state"]["terminated"]["exitCode"], 3);
        eventually("the engine to let go", || !life.engine.drives("default", "job")).await;
        // A label is no reason to run it again.
        life.change("pods", "job", |pod| pod["metadata"]["labels"] = json!({"a": "b"})).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert_eq!((life.phase("job").as_str(), world.pod_directories()), ("Failed", 1));
        life.delete_pod("job", 0).await;
        eventually("its files to go", || world.pod_directories() == 0).await;
    });
}

#[test]
fn a_finalizer_holds_the_object_not_the_pod() {
    let world = World::new();
    world.live(async |life| {
        life.create_pod("web", json!({"containers": [sleeper("app")]})).await;
        life.change("pods", "web", |pod| pod["metadata"]["finalizers"] = json!(["example.com/hold"])).await;
        eventually("the pod to run", || life.is_ready("web")).await;
        life.delete_pod("web", 3).await;
        eventually("the pod to be down", || world.pod_directories() == 0).await;
        assert!(matches!(life.phase("web").as_str(), "Succeeded" | "Failed"), "{}", life.phase("web"));
        life.change("pods", "web", |pod| pod["metadata"]["finalizers"] = json!([])).await;
        eventually("the object to go", || life.read("pods", "web").is_none()).await;
    });
}

#[test]
fn what_is_edited_reaches_volumes_and_only_the_container_that_changed() {
    World::new().live(async |life| {
        life.create("configmaps", "settings", json!({"data": {"color": "red"}})).await;
        let mut app = shell("app", "trap 'exit 0' TERM; while :; do echo $(cat /config/color) $(cat /info/labels); sleep 0.05; done");
        app["volumeMounts"] = json!([{"name": "config", "mountPath": "/config"}, {"name": "info", "mountPath": "/info"}]);
        let info = json!({"name": "info", "downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}});
        let spec = json!({"containers": [app, sleeper("other")], "terminationGracePeriodSeconds": 2,
            "volumes": [{"name": "config", "configMap": {"name": "settings"}}, info]});
        life.create_pod("web", spec).await;
        eventually("the first content", || life.log("web", "app", 0).contains("red")).await;
        life.change("configmaps", "settings", |map| map["data"]["color"] = "blue".into()).await;
        eventually("the edit to reach the volume", || life.log("web", "app", 0).contains("blue")).await;
        life.change("pods", "web", |pod| pod["metadata"]["labels"] = json!({"tier": "front"})).await;
        eventually("the label to reach the volume", || life.log("web", "app", 0).contains("tier=\"front\"")).await;

        life.change("pods", "web", |pod| {
            pod["spec"]["containers"][1]["image"] = "busybox:2".into();
            pod["metadata"]["generation"] = 2.into();
        })
        .await;
        let restarts = |name: &str| {
            let pod = life.pod("web");
            let all = pod["status"]["containerStatuses"].as_array().cloned().unwrap_or_default();
            all.iter().find(|status| status["name"] == name).map_or(-1, |status| status["restartCount"].as_i64().unwrap())
        };
        eventually("the edited container to restart", || restarts("other") == 1).await;
        assert_eq!(restarts("app"), 0);
        eventually("the generation to be seen", || life.pod("web")["status"]["observedGeneration"] == 2).await;
        life.delete_pod("web", 0).await;
        eventually("the end", || life.engine.driven().is_empty()).await;
    });
}

#[test]
fn what_is_missing_may_come_later() {
    World::new().live(async |life| {
        let mut app = sleeper("app");
        app["envFrom"] = json!([{"secretRef": {"name": "late"}}]);
        life.create_pod("web", json!({"containers": [app]})).await;
        let reason = || life.pod("web")["status"]["containerStatuses"][0]["state"]["waiting"]["reason"].clone();
        eventually("the complaint", || reason() == "CreateContainerConfigError").await;
        life.create("secrets", "late", json!({"data": {"A": "Yg=="}})).await;
        eventually("the pod to run", || life.is_ready("web")).await;
        life.delete_pod("web", 0).await;
        eventually("the end", || life.engine.driven().is_empty()).await;
    });
}

#[test]
fn readiness_waits_for_a_clients_condition() {
    World::new().live(async |life| {
        let spec = json!({"readinessGates": [{"conditionType": "example.com/ok"}], "containers": [sleeper("app")]});
        life.create_pod("web", spec).await;
        eventually("the containers", || life.condition("web", "ContainersReady")["status"] == "True").await;
        let ready = life.condition("web", "Ready");
        assert_eq!(ready["reason"], "ReadinessGatesNotReady");
        life.change("pods", "web", |pod| {
            let condition = json!({"type": "example.com/ok", "status": "True", "reason": "Checked"});
            pod["status"]["conditions"].as_array_mut().unwrap().push(condition);
        })
        .await;
        eventually("readiness", || life.is_ready("web")).await;
        assert_eq!(life.condition("web", "example.com/ok")["reason"], "Checked", "the client's words stay");
        life.change("pods", "web", |pod| {
            let conditions = pod["status"]["conditions"].as_array_mut().unwrap();
            conditions.retain(|condition| condition["type"] != "example.com/ok");
        })
        .await;
        eventually("the condition to be missed", || !life.is_ready("web")).await;
        life.delete_pod("web", 0).await;
        eventually("the end", || life.engine.driven().is_empty()).await;
    });
}

#[test]
fn who_wants_to_be_alone_waits_for_it() {
    World::new().live(async |life| {
        life.create_pod("web", json!({"containers": [sleeper("app")]})).await;
        eventually("the first", || life.is_ready("web")).await;
        let term = json!({"labelSelector": {}, "topologyKey": "kubernetes.io/hostname"});
        let alone = json!({"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}});
        life.create_pod("alone", json!({"affinity": alone, "containers": [sleeper("app")]})).await;
        eventually("a refusal", || life.condition("alone", "PodScheduled")["reason"] == "Unschedulable").await;
        let message = life.condition("alone", "PodScheduled")["message"].to_string();
        assert!(message.contains("1 node(s) didn't match pod anti-affinity rules"), "{message}");
        life.delete_pod("web", 0).await;
        eventually("its turn", || life.is_ready("alone")).await;
        life.create_pod("late", json!({"containers": [sleeper("app")]})).await;
        eventually("a refusal", || life.condition("late", "PodScheduled")["reason"] == "Unschedulable").await;
        let message = life.condition("late", "PodScheduled")["message"].to_string();
        assert!(message.contains("1 node(s) didn't satisfy existing pods anti-affinity rules"), "{message}");
        life.delete_pod("late", 0).await;
        life.delete_pod("alone", 0).await;
        eventually("the end", || life.engine.driven().is_empty()).await;
    });
}

#[test]
fn what_may_not_run_yet_waits_and_says_why() {
    World::new().live(async |life| {
        let gated = json!({"schedulingGates": [{"name": "example.com/wait"}], "containers": [sleeper("app")]});
        life.create_pod("gated", gated).await;
        life.create_pod("choosy", json!({"nodeSelector": {"disk": "ssd"}, "containers": [sleeper("app")]})).await;
        eventually("the gate", || life.condition("gated", "PodScheduled")["reason"] == "SchedulingGated").await;
        eventually("the selector", || life.condition("choosy", "PodScheduled")["reason"] == "Unschedulable").await;
        let message = life.condition("choosy", "PodScheduled")["message"].clone();
        assert!(
            message
                .as_str()
                .unwrap()
                .starts_with("0/1 nodes are available: 1 node(s) didn't match Pod's node affinity")
        );
        eventually("the event", || life.reasons("choosy") == ["FailedScheduling"]).await;
        life.change("pods", "gated", |pod| pod["spec"]["schedulingGates"] = json!([])).await;
        let node = life.engine.node().name.clone();
        let node = pod_store::Key { namespace: String::new(), ..key("nodes", &node) };
        let object = life.store.get(&node).unwrap();
        let mut value: serde_json::Value = serde_json::from_slice(&object.json).unwrap();
        value["metadata"]["labels"]["disk"] = "ssd".into();
        let change = pod_store::Change::Replace { value, expected: None };
        life.store.write(node, change, pod_store::Durability::Synced).await.unwrap();
        eventually("both to run", || life.is_ready("gated") && life.is_ready("choosy")).await;
        for name in ["gated", "choosy"] {
            life.delete_pod(name, 0).await;
        }
        eventually("the end", || life.engine.driven().is_empty()).await;
    });
}
