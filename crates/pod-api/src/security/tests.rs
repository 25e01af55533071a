use serde_json::{Value, json};

use super::*;

fn effective(pod: Value, own: Value) -> Result<Effective, String> {
    let spec: PodSpec = serde_json::from_value(json!({
        "securityContext": pod, "containers": [{"name": "c", "securityContext": own}],
    }))
    .unwrap();
    Effective::of(&spec, &spec.containers[0]).map_err(|error| error.to_string())
}

#[test]
fn nothing_said_is_root_with_the_default_capabilities() {
    let spec: PodSpec = serde_json::from_value(json!({"containers": [{"name": "c"}]})).unwrap();
    let effective = Effective::of(&spec, &spec.containers[0]).unwrap();
    assert_eq!((effective.user, effective.group, effective.non_root), (None, None, false));
    assert_eq!((effective.bounding, effective.permitted), (0xa804_25fb, 0xa804_25fb));
    assert_eq!((effective.privileged, effective.no_new_privileges, effective.read_only_root), (false, false, false));
    assert_eq!(effective.seccomp, Seccomp::Unconfined);
    assert_eq!((effective.masked_paths.len(), effective.readonly_paths.len()), (12, 5));
}

#[test]
fn the_container_overrides_the_pod_field_by_field() {
    let pod = json!({
        "runAsUser": 1000, "runAsGroup": 2000, "runAsNonRoot": true, "fsGroup": 3000, "supplementalGroups": [4000],
        "supplementalGroupsPolicy": "Strict", "seccompProfile": {"type": "RuntimeDefault"},
    });
    let own = json!({
        "runAsUser": 5, "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true,
        "capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]},
        "seccompProfile": {"type": "Localhost", "localhostProfile": "p/x.json"},
    });
    let merged = effective(pod.clone(), own).unwrap();
    assert_eq!((merged.user, merged.group, merged.non_root), (Some(5), Some(2000), true));
    assert_eq!(merged.additional_groups(), [4000, 3000]);
    assert_eq!(merged.groups_policy, GroupsPolicy::Strict);
    assert_eq!(merged.bounding, 1 << 10);
    assert!(merged.no_new_privileges && merged.read_only_root);
    assert_eq!(merged.seccomp, Seccomp::Localhost("p/x.json".to_owned()));

    let inherited = effective(pod, json!({"runAsNonRoot": false})).unwrap();
    assert_eq!((inherited.user, inherited.non_root), (Some(1000), false));
    assert_eq!(inherited.seccomp, Seccomp::RuntimeDefault);
}

#[test]
fn privileged_lifts_every_confinement() {
    let pod = json!({"seccompProfile": {"type": "RuntimeDefault"}});
    let effective = effective(pod, json!({"privileged": true, "capabilities": {"drop": ["ALL"]}})).unwrap();
    assert_eq!(effective.bounding, 0x1ff_ffff_ffff);
    assert_eq!(effective.seccomp, Seccomp::Unconfined);
    assert!(effective.masked_paths.is_empty() && effective.readonly_paths.is_empty());
}

#[test]
fn unmasked_proc_and_unknown_words() {
    let unmasked = effective(json!({}), json!({"procMount": "Unmasked"})).unwrap();
    assert!(unmasked.masked_paths.is_empty());
    for (own, message) in [
        (json!({"procMount": "Half"}), "unknown procMount \"Half\""),
        (json!({"capabilities": {"add": ["FLY"]}}), "unknown capability \"FLY\""),
        (json!({"seccompProfile": {"type": "Odd"}}), "unknown seccomp profile type \"Odd\""),
        (
            json!({"seccompProfile": {"type": "Localhost"}}),
            "seccomp profile of type Localhost without localhostProfile",
        ),
        (
            json!({"seccompProfile": {"type": "Localhost", "localhostProfile": "../x"}}),
            "seccomp profile path \"../x\" must be relative and must not contain '..'",
        ),
    ] {
        assert_eq!(effective(json!({}), own).unwrap_err(), message);
    }
    assert_eq!(thermal_throttle_paths(2).last().unwrap(), "/sys/devices/system/cpu/cpu1/thermal_throttle");
}

#[test]
fn non_root_policy() {
    let check = |own: Value, image_user: &str| {
        check_non_root(&effective(json!({"runAsNonRoot": true}), own).unwrap(), image_user)
            .map_err(|violation| violation.to_string())
    };
    let image_root = Err("container has runAsNonRoot and image will run as root".to_owned());
    assert_eq!(check(json!({"runAsUser": 0}), "1000"), Err("container's runAsUser breaks non-root policy".to_owned()));
    assert_eq!(check(json!({"runAsUser": 7}), ""), Ok(()));
    assert_eq!(check(json!({}), ""), image_root);
    assert_eq!(check(json!({}), "0:100"), image_root);
    assert_eq!(check(json!({}), ":100"), image_root);
    assert_eq!(check(json!({}), "1000:0"), Ok(()));
    let message = "container has runAsNonRoot and image has non-numeric user (nginx), cannot verify user is non-root";
    assert_eq!(check(json!({}), "nginx:nginx"), Err(message.to_owned()));
    assert_eq!(check(json!({"runAsNonRoot": false}), ""), Ok(()));
}

#[test]
fn sysctls_and_their_refusals() {
    let spec = |value: Value| {
        let mut value = value;
        value["containers"] = json!([]);
        serde_json::from_value::<PodSpec>(value).unwrap()
    };
    let own = |name: &str| json!({"sysctls": [{"name": name, "value": "1"}]});
    let list = |value| {
        let lines = sysctls(&spec(value)).into_iter().map(|(name, value)| format!("{name}={value}"));
        lines.collect::<Vec<_>>()
    };
    let (ports, ping) = ("net.ipv4.ip_unprivileged_port_start", "net.ipv4.ping_group_range=0 2147483647");
    assert_eq!(list(json!({})), [format!("{ports}=0"), ping.to_owned()]);
    assert_eq!(list(json!({"hostUsers": false})), [format!("{ports}=0")]);
    assert_eq!(list(json!({"securityContext": own(ports)})), [ping.to_owned(), format!("{ports}=1")]);
    assert!(list(json!({"hostNetwork": true})).is_empty());
    assert_eq!(
        list(json!({"hostNetwork": true, "securityContext": own("net/ipv4/eth0.1/x")})),
        ["net.ipv4.eth0/1.x=1"]
    );

    let refusal = |value| forbidden_sysctl(&spec(value));
    assert_eq!(refusal(json!({"securityContext": own("net/ipv4/tcp_syncookies")})), None);
    assert_eq!(
        refusal(json!({"securityContext": own("kernel.shmmax")})).as_deref(),
        Some("forbidden sysctl: \"kernel.shmmax\" not allowlisted")
    );
    assert_eq!(
        refusal(json!({"hostNetwork": true, "securityContext": own("net.ipv4.tcp_syncookies")})).as_deref(),
        Some("forbidden sysctl: \"net.ipv4.tcp_syncookies\" not allowed with host net enabled")
    );
    assert_eq!(
        refusal(json!({"hostIPC": true, "securityContext": own("kernel.shm_rmid_forced")})).as_deref(),
        Some("forbidden sysctl: \"kernel.shm_rmid_forced\" not allowed with host ipc enabled")
    );
}
