//! What `/etc/hosts`, `/etc/hostname` and `/etc/resolv.conf` of the pod say.

use pod_api::names::{self, Names};

use crate::chain;
use crate::running::{CLUSTER_DOMAIN, Running};

#[derive(Debug)]
pub(super) struct Texts {
    pub(super) hosts: String,
    pub(super) hostname: String,
    pub(super) resolv_conf: String,
}

// === impl Texts ===

impl Texts {
    pub(super) fn of(running: &Running) -> Result<Texts, String> {
        let record = running.record();
        let names = Names::of(&record.pod, CLUSTER_DOMAIN).map_err(|e| chain(&e))?;
        let spec = record.pod.spec.as_ref();
        let aliases = spec.and_then(|spec| spec.host_aliases.as_deref()).unwrap_or_default();
        let (hosts, hostname) = if spec.is_some_and(|spec| spec.host_network == Some(true)) {
            (names::host_network_hosts_file(&read("/etc/hosts"), aliases), format!("{}\n", running.cx.node.name))
        } else {
            (names::hosts_file(&names, &running.pod_ips(), aliases), format!("{}\n", names.hostname))
        };
        let (resolv_conf, warnings) =
            names::resolv_conf(&record.pod, &record.uid, &host_resolver(), record.objects.cluster_dns.as_ref());
        // No cluster DNS is how one machine is, not something to warn about in every pod.
        for warning in warnings.iter().filter(|warning| warning.reason != "MissingClusterDNS") {
            running.note_once(warning.reason, &warning.message);
        }
        Ok(Texts { hosts, hostname, resolv_conf })
    }
}

/// The host's resolver configuration; where that is a stub on loopback, which a pod's own network cannot reach, the
/// stub's upstream servers (systemd-resolved.service(8)).
fn host_resolver() -> String {
    let own = read("/etc/resolv.conf");
    if !names::is_loopback_only(&own) {
        return own;
    }
    let upstream = read("/run/systemd/resolve/resolv.conf");
    if upstream.is_empty() { own } else { upstream }
}

/// A file the host does not have says nothing.
fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}
