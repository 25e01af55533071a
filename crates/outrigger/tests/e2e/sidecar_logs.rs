//! The log sidecar in a pod: built-in image, native, startup-gated, unprivileged, 16 MiB; the receiver in another pod.

use crate::world::{World, eventually, install};

const POD: &str = include_str!("../../../../examples/sidecars/logs-pod.yaml");
const RECEIVER: &str = include_str!("../../../../examples/sidecars/logs-receiver.yaml");

fn program() {
    install("sidecar-logs");
}

fn attempt_log(world: &World) -> String {
    world.log("sidecar-logs", "logs", 0)
}

#[test]
fn every_line_reaches_another_pod_and_the_receipt_balances_after_a_kill() {
    program();
    let world = World::new();
    let receiver = RECEIVER.replace(", hostPort: 18080", "");
    world.detach(&receiver);
    let address = world.status("logs-receiver").unwrap().pod_ip.unwrap();
    // More to say than one date, and no second life after the kill.
    let pod = POD
        .replace("$(HOST_IP):18080", &format!("{address}:8080"))
        .replace(
            "date >> /var/log/app.log; sleep 5;",
            "n=$((n + 1)); echo line $n of app >> /var/log/app.log; sleep 0.01;",
        )
        .replace("spec:\n", "spec:\n  restartPolicy: Never\n  terminationGracePeriodSeconds: 30\n");
    world.detach(&pod);
    let sidecar = world.container("sidecar-logs", "logs").unwrap();
    assert_eq!(sidecar.started, Some(true), "the gate was passed");
    assert!(sidecar.image_id.starts_with("builtin://logs@"), "{}", sidecar.image_id);
    eventually("lines at the receiver", || world.log("logs-receiver", "receiver", 0).contains("line 50 of app"));

    // Who it runs as, what it may do, and what it takes: the example's word for it is not enough.
    let sidecar = world.process("sidecar-logs", &["/usr/bin/outrigger-logs"]).unwrap();
    let status = std::fs::read_to_string(format!("/proc/{}/status", sidecar.as_raw_nonzero())).unwrap();
    let of = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().trim().to_owned();
    assert_eq!((of("Uid:").as_str(), of("NoNewPrivs:").as_str()), ("65532\t65532\t65532\t65532", "1"), "{status}");
    assert_eq!((of("CapEff:"), of("CapBnd:")), ("0".repeat(16), "0".repeat(16)), "{status}");
    let root = format!("/proc/{}/root/anything", sidecar.as_raw_nonzero());
    let refused = std::fs::write(root, "").unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ReadOnlyFilesystem);

    let main = world.process("sidecar-logs", &["of app"]).unwrap();
    rustix::process::kill_process(main, rustix::process::Signal::KILL).unwrap();
    world.await_phase("sidecar-logs", "Failed");
    let ended = world.container("sidecar-logs", "logs").unwrap().state.unwrap().terminated.unwrap();
    let receipt = ended.message.unwrap_or_default();
    assert_eq!(ended.exit_code, 0, "{}", attempt_log(&world));
    assert!(receipt.starts_with("receipt: 1 file(s): written ") && receipt.ends_with("; balances"), "{receipt}");
    let last = attempt_log(&world).lines().last().unwrap().to_owned();
    assert!(last.contains(&receipt), "{last}");

    // What the receipt says is what arrived: every line there is, once.
    let said = world.log("logs-receiver", "receiver", 0);
    let mut numbers: Vec<u32> = said
        .lines()
        .filter_map(|line| line.split("\"message\":\"line ").nth(1)?.split(' ').next()?.parse().ok())
        .collect();
    numbers.sort_unstable();
    assert!(numbers.len() >= 50 && numbers.iter().copied().eq(1..=numbers.len() as u32), "{numbers:?}");
    let written: usize = (1..=numbers.len()).map(|n| format!("line {n} of app\n").len()).sum();
    assert!(receipt.contains(&format!("written {written},")), "{receipt}");
    world.ok(&["down", "logs-receiver", "--force"]);
    world.ok(&["down", "sidecar-logs", "--force"]);
    world.assert_nothing_left();
}

#[test]
fn a_built_in_image_of_another_version_is_refused_and_never_asked_of_a_registry() {
    program();
    let world = World::new();
    world.detach_badly(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: old}\nspec:\n  restartPolicy: Never\n  containers:\n  - {name: logs, image: 'localhost/outrigger/logs:99', imagePullPolicy: Always}\n",
    );
    let waiting = world.container("old", "logs").unwrap().state.unwrap().waiting.unwrap();
    assert_eq!(waiting.reason.as_deref(), Some("ErrImageNeverPull"));
    assert!(waiting.message.unwrap().contains("is not this engine's version"));
    world.ok(&["down", "old", "--force"]);
    world.assert_nothing_left();
}
