//! What a pod is called and how it finds others: hostname, `/etc/hosts`, `/etc/resolv.conf`.
//!
//! Sources: KEP-1797 (`setHostnameAsFQDN`), KEP-4762 (`hostnameOverride`), "DNS for Services and Pods".

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{HostAlias, Pod, PodDNSConfigOption};
use serde::{Deserialize, Serialize};

use crate::context::DEFAULT_NAMESPACE;

/// hostname(7): 64 bytes with the final NUL that Kubernetes leaves room for.
const MAX_HOSTNAME: usize = 63;
/// The kernel takes 64 (`__NEW_UTS_LEN`).
const MAX_FQDN: usize = 64;

const MAX_NAMESERVERS: usize = 3;
const MAX_SEARCHES: usize = 32;
const MAX_SEARCH_CHARS: usize = 2048;
/// A DNS name; some C libraries abort on a longer search path.
const MAX_SEARCH_PATH: usize = 253;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    #[error("hostname for pod {pod:?} was invalid: {hostname:?}")]
    Empty { pod: String, hostname: String },
    #[error(
        "failed to construct FQDN from pod hostname and cluster domain, FQDN {fqdn} is too long ({MAX_FQDN} characters \
         is the max, {length} characters requested)"
    )]
    TooLong { fqdn: String, length: usize },
}

/// A pod's names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    /// The short name, at most 63 bytes.
    pub hostname: String,
    /// `SUBDOMAIN.NAMESPACE.svc.CLUSTERDOMAIN`, when the pod has a subdomain.
    pub domain: Option<String>,
    /// What the kernel calls the machine: the short name, or with `setHostnameAsFQDN` the full one.
    pub kernel_hostname: String,
}

impl Names {
    /// The names of a pod that does not use the host's network (such a pod shares the node's hostname).
    pub fn of(pod: &Pod, cluster_domain: &str) -> Result<Names, NameError> {
        let pod_name = pod.metadata.name.as_deref().unwrap_or_default();
        let Some(spec) = &pod.spec else {
            let hostname = truncated(pod_name, pod_name)?;
            return Ok(Names { kernel_hostname: hostname.clone(), hostname, domain: None });
        };
        let given = |name: &Option<String>| name.clone().filter(|name| !name.is_empty());
        // The override drops the subdomain and wins over everything else.
        if let Some(hostname) = given(&spec.hostname_override) {
            let hostname = truncated(pod_name, &hostname)?;
            return Ok(Names { kernel_hostname: hostname.clone(), hostname, domain: None });
        }
        let hostname =
            truncated(pod_name, spec.hostname.as_deref().filter(|name| !name.is_empty()).unwrap_or(pod_name))?;
        let namespace = pod.metadata.namespace.as_deref().unwrap_or(DEFAULT_NAMESPACE);
        let domain = given(&spec.subdomain).map(|subdomain| format!("{subdomain}.{namespace}.svc.{cluster_domain}"));
        let kernel_hostname = match &domain {
            Some(domain) if spec.set_hostname_as_fqdn == Some(true) => {
                let fqdn = format!("{hostname}.{domain}");
                if fqdn.len() > MAX_FQDN {
                    return Err(NameError::TooLong { length: fqdn.len(), fqdn });
                }
                fqdn
            }
            _ => hostname.clone(),
        };
        Ok(Names { hostname, domain, kernel_hostname })
    }
}

fn truncated(pod: &str, hostname: &str) -> Result<String, NameError> {
    let mut end = hostname.len().min(MAX_HOSTNAME);
    while !hostname.is_char_boundary(end) {
        end -= 1;
    }
    let short = if hostname.len() > MAX_HOSTNAME { hostname[..end].trim_end_matches(['-', '.']) } else { hostname };
    if short.is_empty() {
        return Err(NameError::Empty { pod: pod.to_owned(), hostname: hostname.to_owned() });
    }
    Ok(short.to_owned())
}

/// `/etc/hosts` of a pod with its own network.
pub fn hosts_file(names: &Names, pod_ips: &[IpAddr], aliases: &[HostAlias]) -> String {
    let mut text = String::from(
        "# Kubernetes-managed hosts file.\n\
         127.0.0.1\tlocalhost\n\
         ::1\tlocalhost ip6-localhost ip6-loopback\n\
         fe00::0\tip6-localnet\n\
         fe00::0\tip6-mcastprefix\n\
         fe00::1\tip6-allnodes\n\
         fe00::2\tip6-allrouters\n",
    );
    for ip in pod_ips {
        let hostname = &names.hostname;
        match &names.domain {
            Some(domain) => text.push_str(&format!("{ip}\t{hostname}.{domain}\t{hostname}\n")),
            None => text.push_str(&format!("{ip}\t{hostname}\n")),
        }
    }
    push_aliases(&mut text, aliases);
    text
}

/// `/etc/hosts` of a pod on the host's network: the node's own, marked, plus aliases.
pub fn host_network_hosts_file(node_hosts: &str, aliases: &[HostAlias]) -> String {
    let mut text = String::from("# Kubernetes-managed hosts file (host network).\n");
    text.push_str(node_hosts);
    push_aliases(&mut text, aliases);
    text
}

fn push_aliases(text: &mut String, aliases: &[HostAlias]) {
    if aliases.is_empty() {
        return;
    }
    text.push_str("\n# Entries added by HostAliases.\n");
    for alias in aliases {
        let names = alias.hostnames.as_deref().unwrap_or_default().join("\t");
        text.push_str(&format!("{}\t{names}\n", alias.ip));
    }
}

/// A DNS server that knows the cluster's services.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterDns {
    pub servers: Vec<IpAddr>,
    /// `cluster.local`; empty for none.
    pub domain: String,
}

/// A warning event of the pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DnsNotice {
    pub reason: &'static str,
    pub message: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Resolver {
    servers: Vec<String>,
    searches: Vec<String>,
    options: Vec<String>,
}

/// The pod's `/etc/resolv.conf`. `host_resolv_conf` is what a pod with policy `Default` should see: where the node runs
/// a stub on loopback ([`is_loopback_only`]), the caller passes the stub's upstream file.
pub fn resolv_conf(
    pod: &Pod,
    uid: &str,
    host_resolv_conf: &str,
    cluster_dns: Option<&ClusterDns>,
) -> (String, Vec<DnsNotice>) {
    let mut notices = Vec::new();
    let spec = pod.spec.as_ref();
    let host = parse(host_resolv_conf);
    let host_network = spec.is_some_and(|spec| spec.host_network == Some(true));
    let mut resolver = match spec.and_then(|spec| spec.dns_policy.as_deref()).unwrap_or("ClusterFirst") {
        "None" => Resolver::default(),
        "Default" => host,
        "ClusterFirst" if host_network => host,
        // ClusterFirst, ClusterFirstWithHostNet.
        _ => match cluster_dns.filter(|cluster| !cluster.servers.is_empty()) {
            Some(cluster) => cluster_first(pod, host, cluster),
            None => {
                notices.push(missing_cluster_dns(pod, uid));
                host
            }
        },
    };
    if let Some(config) = spec.and_then(|spec| spec.dns_config.as_ref()) {
        append_unique(&mut resolver.servers, config.nameservers.iter().flatten());
        append_unique(&mut resolver.searches, config.searches.iter().flatten());
        merge_options(&mut resolver.options, config.options.as_deref().unwrap_or_default());
    }
    limit_servers(&mut resolver.servers, &mut notices);
    limit_searches(&mut resolver.searches, &mut notices);
    (print(&resolver), notices)
}

/// Whether a resolv.conf only names servers of the loopback network, which a pod with its own network cannot reach
/// (systemd-resolved's 127.0.0.53).
pub fn is_loopback_only(resolv_conf: &str) -> bool {
    let servers = parse(resolv_conf).servers;
    let loopback = |server: &String| server.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    !servers.is_empty() && servers.iter().all(loopback)
}

fn cluster_first(pod: &Pod, host: Resolver, cluster: &ClusterDns) -> Resolver {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or(DEFAULT_NAMESPACE);
    let mut searches = Vec::new();
    if !cluster.domain.is_empty() {
        let domain = &cluster.domain;
        searches.extend([format!("{namespace}.svc.{domain}"), format!("svc.{domain}"), domain.clone()]);
    }
    append_unique(&mut searches, host.searches.iter());
    Resolver {
        servers: cluster.servers.iter().map(IpAddr::to_string).collect(),
        searches,
        options: vec!["ndots:5".to_owned()],
    }
}

fn missing_cluster_dns(pod: &Pod, uid: &str) -> DnsNotice {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let namespace = pod.metadata.namespace.as_deref().unwrap_or(DEFAULT_NAMESPACE);
    let message = format!(
        "pod: \"{name}_{namespace}({uid})\". kubelet does not have ClusterDNS IP configured and cannot create Pod using \
         \"ClusterFirst\" policy. Falling back to \"Default\" policy."
    );
    DnsNotice { reason: "MissingClusterDNS", message }
}

/// resolv.conf(5): servers add up, the last `search` and the last `options` line win.
fn parse(text: &str) -> Resolver {
    let mut resolver = Resolver::default();
    for line in text.lines().filter(|line| !line.trim_start().starts_with(['#', ';'])) {
        let mut fields = line.split_whitespace().map(str::to_owned);
        match fields.next().as_deref() {
            Some("nameserver") => resolver.servers.extend(fields.next()),
            Some("search") => resolver.searches = fields.map(without_final_dot).collect(),
            Some("options") => resolver.options = fields.collect(),
            _ => {}
        }
    }
    resolver
}

/// `example.com.` and `example.com` are the same search path and count once; the root stays.
fn without_final_dot(path: String) -> String {
    match path.strip_suffix('.') {
        Some(stem) if !stem.is_empty() => stem.to_owned(),
        _ => path,
    }
}

fn append_unique<'a>(list: &mut Vec<String>, additions: impl Iterator<Item = &'a String>) {
    list.extend(additions.cloned());
    let mut seen = std::collections::HashSet::new();
    list.retain(|entry| seen.insert(entry.clone()));
}

fn merge_options(options: &mut Vec<String>, additions: &[PodDNSConfigOption]) {
    for addition in additions {
        let name = addition.name.as_deref().unwrap_or_default();
        let text = match addition.value.as_deref() {
            Some(value) if !value.is_empty() => format!("{name}:{value}"),
            _ => name.to_owned(),
        };
        match options.iter_mut().find(|option| option.split(':').next() == Some(name)) {
            Some(option) => *option = text,
            None => options.push(text),
        }
    }
}

fn limit_servers(servers: &mut Vec<String>, notices: &mut Vec<DnsNotice>) {
    if servers.len() > MAX_NAMESERVERS {
        servers.truncate(MAX_NAMESERVERS);
        let message = format!(
            "Nameserver limits were exceeded, some nameservers have been omitted, the applied nameserver line is: {}",
            servers.join(" ")
        );
        notices.push(DnsNotice { reason: "DNSConfigForming", message });
    }
}

fn limit_searches(searches: &mut Vec<String>, notices: &mut Vec<DnsNotice>) {
    let before = searches.len();
    searches.truncate(MAX_SEARCHES);
    searches.retain(|path| path.len() <= MAX_SEARCH_PATH);
    let mut length = 0;
    let fitting = searches.iter().take_while(|path| {
        length += path.len() + usize::from(length > 0);
        length <= MAX_SEARCH_CHARS
    });
    searches.truncate(fitting.count());
    if searches.len() < before {
        let message = format!(
            "Search Line limits were exceeded, some search paths have been omitted, the applied search line is: {}",
            searches.join(" ")
        );
        notices.push(DnsNotice { reason: "DNSConfigForming", message });
    }
}

fn print(resolver: &Resolver) -> String {
    let mut text = String::new();
    if !resolver.searches.is_empty() {
        text.push_str(&format!("search {}\n", resolver.searches.join(" ")));
    }
    for server in &resolver.servers {
        text.push_str(&format!("nameserver {server}\n"));
    }
    if !resolver.options.is_empty() {
        text.push_str(&format!("options {}\n", resolver.options.join(" ")));
    }
    text
}

#[cfg(test)]
mod tests;
