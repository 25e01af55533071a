use serde_json::{Value, json};

use super::*;

const HOST: &str = "# comment\nsearch corp.example. lab.example\nnameserver 192.0.2.53\noptions timeout:1 rotate\n";

fn pod(name: &str, spec: Value) -> Pod {
    let mut spec = spec;
    spec["containers"] = json!([]);
    serde_json::from_value(json!({"metadata": {"name": name, "namespace": "shop"}, "spec": spec})).unwrap()
}

fn names(name: &str, spec: Value) -> (String, Option<String>, String) {
    let names = Names::of(&pod(name, spec), "cluster.local").unwrap();
    (names.hostname, names.domain, names.kernel_hostname)
}

fn plain(hostname: &str) -> (String, Option<String>, String) {
    (hostname.to_owned(), None, hostname.to_owned())
}

#[test]
fn hostnames() {
    assert_eq!(names("web-0", json!({})), plain("web-0"));
    assert_eq!(names("web-0", json!({"hostname": "h"})), plain("h"));
    assert_eq!(names("web-0", json!({"hostname": "h", "hostnameOverride": "o.x", "subdomain": "s"})), plain("o.x"));
    assert_eq!(names(&format!("{}-.b", "a".repeat(61)), json!({})), plain(&"a".repeat(61)));
    let domain = "s.shop.svc.cluster.local";
    let (hostname, found, kernel) = names("web-0", json!({"subdomain": "s"}));
    assert_eq!((hostname.as_str(), found.as_deref(), kernel.as_str()), ("web-0", Some(domain), "web-0"));
    let (_, _, kernel) = names("web-0", json!({"subdomain": "s", "setHostnameAsFQDN": true}));
    assert_eq!(kernel, format!("web-0.{domain}"));
    let long = pod(&"a".repeat(60), json!({"subdomain": "s", "setHostnameAsFQDN": true}));
    let error = Names::of(&long, "cluster.local").unwrap_err().to_string();
    assert!(error.ends_with("is too long (64 characters is the max, 85 characters requested)"), "{error}");
}

#[test]
fn hosts_files() {
    let aliases: Vec<HostAlias> = serde_json::from_value(json!([
        {"ip": "192.0.2.1", "hostnames": ["db", "db.example"]}, {"ip": "192.0.2.2", "hostnames": ["x"]},
    ]))
    .unwrap();
    let ips = ["10.0.0.2".parse().unwrap(), "fd00::2".parse().unwrap()];
    let of = |spec| Names::of(&pod("web", spec), "cluster.local").unwrap();
    let head = "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n\
                fe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n";
    let tail = "\n# Entries added by HostAliases.\n192.0.2.1\tdb\tdb.example\n192.0.2.2\tx\n";
    assert_eq!(hosts_file(&of(json!({})), &ips, &aliases), format!("{head}10.0.0.2\tweb\nfd00::2\tweb\n{tail}"));
    assert_eq!(
        hosts_file(&of(json!({"subdomain": "s"})), &ips[..1], &[]),
        format!("{head}10.0.0.2\tweb.s.shop.svc.cluster.local\tweb\n")
    );
    assert_eq!(
        host_network_hosts_file("127.0.0.1 localhost\n", &aliases),
        format!("# Kubernetes-managed hosts file (host network).\n127.0.0.1 localhost\n{tail}")
    );
}

fn conf(spec: Value, cluster: bool) -> (String, Vec<String>) {
    let cluster_dns = ClusterDns { servers: vec!["10.96.0.10".parse().unwrap()], domain: "cluster.local".to_owned() };
    let (text, notices) = resolv_conf(&pod("web", spec), "uid-1", HOST, cluster.then_some(&cluster_dns));
    (text, notices.into_iter().map(|notice| format!("{}: {}", notice.reason, notice.message)).collect())
}

#[test]
fn dns_policies() {
    let host = "search corp.example lab.example\nnameserver 192.0.2.53\noptions timeout:1 rotate\n";
    let cluster = "search shop.svc.cluster.local svc.cluster.local cluster.local corp.example lab.example\n\
                   nameserver 10.96.0.10\noptions ndots:5\n";
    let none = json!({"dnsPolicy": "None", "dnsConfig": {"nameservers": ["192.0.2.1"], "searches": ["a"]}});
    for (spec, has_cluster, expected) in [
        (json!({}), true, cluster),
        (json!({"dnsPolicy": "ClusterFirst", "hostNetwork": true}), true, host),
        (json!({"dnsPolicy": "ClusterFirstWithHostNet", "hostNetwork": true}), true, cluster),
        (json!({"dnsPolicy": "Default"}), true, host),
        (none, true, "search a\nnameserver 192.0.2.1\n"),
    ] {
        assert_eq!(conf(spec.clone(), has_cluster), (expected.to_owned(), vec![]), "{spec}");
    }
    let (text, notices) = conf(json!({"dnsPolicy": "ClusterFirst"}), false);
    assert_eq!(text, host);
    assert_eq!(
        notices,
        [
            "MissingClusterDNS: pod: \"web_shop(uid-1)\". kubelet does not have ClusterDNS IP configured and cannot create \
          Pod using \"ClusterFirst\" policy. Falling back to \"Default\" policy."
        ]
    );
}

#[test]
fn dns_config_is_merged_on_top() {
    let config = json!({
        "nameservers": ["192.0.2.53", "192.0.2.1"], "searches": ["lab.example", "new.example"],
        "options": [{"name": "timeout", "value": "3"}, {"name": "rotate"}, {"name": "edns0"}],
    });
    let (text, notices) = conf(json!({"dnsPolicy": "Default", "dnsConfig": config}), false);
    assert_eq!(
        text,
        "search corp.example lab.example new.example\nnameserver 192.0.2.53\nnameserver 192.0.2.1\n\
         options timeout:3 rotate edns0\n"
    );
    assert!(notices.is_empty());
}

#[test]
fn limits_drop_the_excess_and_say_so() {
    let searches: Vec<_> = (0..40).map(|n| format!("s{n}")).collect();
    let servers = ["192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4"];
    let spec = json!({"dnsPolicy": "None", "dnsConfig": {"nameservers": servers, "searches": searches}});
    let (text, notices) = conf(spec, false);
    assert_eq!(text.matches("nameserver").count(), 3);
    assert_eq!(text.lines().next().unwrap().split(' ').count(), 33);
    assert!(notices[0].starts_with("DNSConfigForming: Nameserver limits were exceeded"), "{notices:?}");
    assert!(notices[0].ends_with("is: 192.0.2.1 192.0.2.2 192.0.2.3"), "{notices:?}");
    assert!(notices[1].starts_with("DNSConfigForming: Search Line limits were exceeded"), "{notices:?}");

    let long: Vec<_> = (0..10).map(|n| format!("{n}{}", "a".repeat(249))).chain(["b".repeat(254)]).collect();
    let spec = json!({"dnsPolicy": "None", "dnsConfig": {"nameservers": ["192.0.2.1"], "searches": long}});
    let (text, notices) = conf(spec, false);
    let line = text.lines().next().unwrap().strip_prefix("search ").unwrap();
    assert_eq!((line.split(' ').count(), line.len()), (8, 2007));
    assert_eq!(notices.len(), 1);
}

#[test]
fn loopback_stubs_are_recognised() {
    assert!(is_loopback_only("nameserver 127.0.0.53\noptions edns0\n"));
    assert!(is_loopback_only("nameserver ::1\nnameserver 127.0.0.1\n"));
    assert!(!is_loopback_only("nameserver 127.0.0.53\nnameserver 192.0.2.1\n"));
    assert!(!is_loopback_only("search x\n"));
}
