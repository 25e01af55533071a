//! Who a container is and what it may: read from inside, from `/proc/1/status` and by trying.

use crate::world::{World, text};

/// Runs one container to its end and returns what it printed.
fn inside(world: &World, name: &str, pod: &str, container: &str, script: &str) -> String {
    let manifest = format!(
        r#"
apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec:
  restartPolicy: Never
{pod}
  containers:
  - name: m
    image: busybox
    command: [sh, -c, '{script}']
{container}
"#
    );
    let path = world.manifest(&format!("{name}.yaml"), &manifest);
    let output = world.run(&["run", "--offline", path.to_str().unwrap()]);
    text(&output.stdout)
}

#[test]
fn the_default_container_has_containerds_capabilities_and_hidden_paths() {
    let world = World::new();
    let said = inside(
        &world,
        "plain",
        "",
        "",
        "grep -E \"CapBnd|CapEff|NoNewPrivs|Seccomp:\" /proc/1/status; id -u; head -c1 /proc/kcore | wc -c; echo 1 > /proc/sys/kernel/panic || echo refused; ls /proc | grep -c ^[0-9]",
    );
    assert!(said.contains("CapBnd:\t00000000a80425fb"), "{said}");
    assert!(said.contains("CapEff:\t00000000a80425fb"), "{said}");
    assert!(said.contains("NoNewPrivs:\t0") && said.contains("Seccomp:\t0"), "{said}");
    assert!(said.contains("refused"), "{said}");
    world.assert_nothing_left();
}

#[test]
fn users_groups_and_the_locked_down_context_take_effect() {
    let world = World::new();
    let said = inside(
        &world,
        "locked",
        "  securityContext: {runAsUser: 1234, runAsGroup: 2345, fsGroup: 3456, supplementalGroups: [4567]}\n  volumes: [{name: v, emptyDir: {}}]",
        r#"    volumeMounts: [{name: v, mountPath: /v}]
    securityContext:
      allowPrivilegeEscalation: false
      readOnlyRootFilesystem: true
      capabilities: {drop: [ALL]}
      seccompProfile: {type: RuntimeDefault}"#,
        "id -u; id -g; id -G; grep -E \"CapBnd|NoNewPrivs|Seccomp:\" /proc/1/status; touch /x 2>/dev/null || echo read-only; touch /v/file && stat -c %g /v/file; unshare -U true 2>/dev/null || echo no-unshare",
    );
    for expected in [
        "1234",
        "2345",
        "2345 3456 4567",
        "CapBnd:\t0000000000000000",
        "NoNewPrivs:\t1",
        "Seccomp:\t2",
        "read-only",
        "no-unshare",
    ] {
        assert!(said.contains(expected), "`{expected}` in {said}");
    }
    assert!(
        said.lines().any(|line| line.trim_end().ends_with("3456") && !line.contains("2345")),
        "fsGroup owns: {said}"
    );
}

#[test]
fn a_root_image_is_refused_where_root_is_not_wanted() {
    let world = World::new();
    let output = world.detach_badly(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: rootless}\nspec:\n  securityContext: {runAsNonRoot: true}\n  containers:\n  - {name: m, image: busybox, command: [sh]}\n",
    );
    assert!(!output.status.success());
    let waiting = world.container("rootless", "m").unwrap().state.unwrap().waiting.unwrap();
    assert_eq!(waiting.reason.as_deref(), Some("CreateContainerConfigError"));
    assert!(waiting.message.unwrap().contains("container has runAsNonRoot and image will run as root"));
    world.ok(&["down", "rootless", "--force"]);
    world.assert_nothing_left();
}

#[test]
fn a_missing_command_is_a_start_error() {
    let world = World::new();
    world.detach_badly(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: missing}\nspec:\n  restartPolicy: Never\n  containers:\n  - {name: m, image: busybox, command: [no-such-program]}\n",
    );
    world.await_phase("missing", "Failed");
    let state = world.container("missing", "m").unwrap().state.unwrap().terminated.unwrap();
    assert_eq!((state.exit_code, state.reason.as_deref()), (128, Some("StartError")));
    assert!(state.message.unwrap().contains("executable file not found in $PATH"));
    world.ok(&["down", "missing"]);
}

#[test]
fn processes_can_be_shared_and_the_hostname_is_the_pods() {
    let world = World::new();
    let said = inside(
        &world,
        "shared",
        "  shareProcessNamespace: true\n  hostAliases: [{ip: 10.1.2.3, hostnames: [far]}]",
        "",
        "hostname; tr \"\\\\0\" \" \" < /proc/1/cmdline; grep -c far /etc/hosts",
    );
    assert!(said.contains("shared") && said.contains("outrigger-shim"), "{said}");
}
