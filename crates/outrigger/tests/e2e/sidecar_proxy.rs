//! The proxy sidecar in a pod: built-in image, native, startup-gated, unprivileged, 16 MiB; and clients that count every
//! request that fails while applications die, certificates, configurations and the proxy itself change, and the pod ends.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustix::process::{Pid, Signal, kill_process};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use crate::load::{Load, plain};
use crate::world::{World, eventually, install, text};

const POD: &str = include_str!("../../../../examples/sidecars/proxy-pod.yaml");
/// Of the proxy's container.
const MEMORY: u64 = 16 << 20;

struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Authority {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Authority(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn certificate(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(self.0.pem().as_bytes()).unwrap()
    }

    /// A Secret with a new certificate, as `self-signed.sh` prints one.
    fn secret(&self) -> String {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let chain = params.signed_by(&key, &self.0).unwrap().pem();
        let indented = |pem: &str| pem.lines().map(|line| format!("    {line}\n")).collect::<String>();
        format!(
            "apiVersion: v1\nkind: Secret\nmetadata: {{name: web-tls}}\ntype: kubernetes.io/tls\nstringData:\n  tls.crt: |\n{}  tls.key: |\n{}---\n",
            indented(&chain),
            indented(&key.serialize_pem())
        )
    }
}

/// The most memory the container of this process has used; `None` where the kernel does not tell.
fn most_memory(pid: Pid) -> Option<u64> {
    let membership = std::fs::read_to_string(format!("/proc/{}/cgroup", pid.as_raw_nonzero())).unwrap();
    membership.lines().find_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next()?, parts.next()?.trim_start_matches('/'));
        let (tree, file) = match controllers {
            "" => ("", "memory.peak"),
            _ if controllers.split(',').any(|one| one == "memory") => ("memory", "memory.max_usage_in_bytes"),
            _ => return None,
        };
        let path = PathBuf::from("/sys/fs/cgroup").join(tree).join(path).join(file);
        std::fs::read_to_string(path).ok()?.trim().parse().ok()
    })
}

/// What the program prints when it is called by hand.
fn proxy(arguments: &[&str]) -> String {
    let program = PathBuf::from(env!("CARGO_BIN_EXE_outrigger")).with_file_name("outrigger-proxy");
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

fn proxy_of(world: &World) -> Pid {
    world.process("web", &["outrigger-proxy", "--config"]).unwrap()
}

fn is_ready(world: &World) -> bool {
    let conditions = world.status("web").and_then(|status| status.conditions).unwrap_or_default();
    conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

fn restarts(world: &World, name: &str) -> i32 {
    world.container("web", name).unwrap().restart_count
}

#[test]
fn nothing_is_lost_whatever_changes_under_load() {
    install("sidecar-proxy");
    let world = World::new();
    let authority = Authority::new();
    let pod = POD.replace(", hostPort: 18443", "");
    world.detach(&format!("{}{pod}", authority.secret()));
    let sidecar = world.container("web", "proxy").unwrap();
    assert_eq!(sidecar.started, Some(true), "the gate was passed");
    assert!(sidecar.image_id.starts_with("builtin://proxy@"), "{}", sidecar.image_id);
    eventually("the applications", || is_ready(&world));
    let address: std::net::IpAddr = world.status("web").unwrap().pod_ip.unwrap().parse().unwrap();
    let (https, admin) = (SocketAddr::new(address, 8443), SocketAddr::new(address, 7612));
    let load = Load::start(12, https, admin, &authority.certificate());

    // Two versions, 90 to 10.
    load.go_on(3000);
    load.assert_no_failure("at the beginning");
    let answers = load.answers();
    let (stable, canary) = (answers["stable"], answers["canary"]);
    let share = canary * 1000 / (stable + canary);
    assert!((75..=125).contains(&share), "{share} of 1000 by the canary: {answers:?}");

    // An application is killed, several times.
    for round in 0..3 {
        let other = ["3001", "3002"][round % 2];
        kill_process(world.process("web", &["app.py", "stable", other]).unwrap(), Signal::KILL).unwrap();
        load.go_on(500);
        eventually("the application's return", || world.process("web", &["app.py", "stable", other]).is_some());
        // It is back when it listens: the next kill must find one that answers.
        let back = SocketAddr::new(address, other.parse().unwrap());
        eventually("the application to listen", || std::net::TcpStream::connect(back).is_ok());
        load.go_on(300);
        load.assert_no_failure("when an application was killed");
    }
    assert!(restarts(&world, "stable-1") >= 2 && restarts(&world, "stable-2") >= 1);

    // Certificates are swapped: the link `..data` of the Secret's volume.
    for round in 1..=3 {
        world.detach(&format!("{}{pod}", authority.secret()));
        eventually("the new certificate", || load.certificates() == round + 1);
        load.assert_no_failure("when the certificate was swapped");
    }

    // Another configuration: all to the canary, and back.
    for weights in [("0", "100"), ("90", "10")] {
        let changed = pod
            .replace("{name: stable, weight: 90}", &format!("{{name: stable, weight: {}}}", weights.0))
            .replace("{name: canary, weight: 10}", &format!("{{name: canary, weight: {}}}", weights.1));
        world.detach(&format!("{}{changed}", authority.secret()));
        eventually("the new weights", || {
            load.answers();
            load.go_on(200);
            load.answers().contains_key("stable") == (weights.0 != "0") || load.has_failed()
        });
        load.assert_no_failure("when the configuration was changed");
    }
    // Its limit has killed it never, nor brought it near.
    assert_eq!(restarts(&world, "proxy"), 0, "{}", world.log("web", "proxy", 0));
    let memory = most_memory(proxy_of(&world));
    assert!(memory.is_none_or(|memory| memory < MEMORY), "{memory:?}");

    // Where the time went, live, in the metrics, and in the log.
    let trace = proxy(&["trace", "--admin", &admin.to_string()]);
    assert!(trace.contains("WHERE THE TIME WENT") && trace.contains("app ") && trace.contains("route=web"), "{trace}");
    assert!(plain(admin, "/metrics").unwrap().contains("outrigger_proxy_phase_duration_seconds_count{phase=\"app\"}"));
    let log = world.log("web", "proxy", 0);
    // A connection's first request has its handshake.
    assert!(log.lines().any(|line| line.contains("app_us") && line.contains("tls_us")), "{log}");

    // The proxy's container is restarted. Its sockets are gone for a moment: connections are refused, but no request that
    // was taken fails.
    load.be_patient(true);
    let before = proxy_of(&world);
    let socket = format!("/proc/{}/root/run/outrigger/proxy.sock", before.as_raw_nonzero());
    proxy(&["drain", "--at-least", "300ms", "--socket", &socket]);
    eventually("the proxy's return", || {
        world.process("web", &["outrigger-proxy", "--config"]).is_some_and(|now| now != before)
            && plain(admin, "/readyz").is_some_and(|answer| answer.starts_with("HTTP/1.1 200"))
    });
    load.go_on(500);
    load.assert_no_failure("when the proxy was restarted");
    let last = world.log("web", "proxy", 0);
    assert!(last.contains("every connection has ended"), "{last}");
    eprintln!("{} connections were tried again while the proxy was restarted", load.refused());
    load.be_patient(false);

    // The pod is stopped.
    let down =
        world.command(&["down", "web"]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let served = load.served();
    load.end();
    let down = down.unwrap().wait_with_output().unwrap();
    assert!(down.status.success(), "{}{}", text(&down.stdout), text(&down.stderr));
    eprintln!("{served} answers before the stop; most memory {memory:?} of {MEMORY}");
    world.assert_nothing_left();
}
