//! Containers of a pod, with what their status says of them.

use pod_api::quantity;
use serde_json::Value;

use super::page::Page;
use crate::kube::value::{self, integer, is_true, items, text};

pub(super) fn describe(page: &mut Page, title: &str, containers: &[Value], statuses: &[Value], pod: &Value) {
    page.line(0, format!("{title}:{}", if containers.is_empty() { " <none>" } else { "" }));
    for container in containers {
        let name = text(container, "name");
        let status = statuses.iter().find(|status| text(status, "name") == name);
        basics(page, container, status);
        words(page, "Command", items(container, "command"));
        words(page, "Args", items(container, "args"));
        if let Some(status) = status {
            state(page, "State", &status["state"]);
            if status["lastState"]["terminated"].is_object() {
                state(page, "Last State", &status["lastState"]);
            }
            page.field(2, "Ready", if is_true(status, "ready") { "True" } else { "False" });
            page.field(2, "Restart Count", integer(status, "restartCount").unwrap_or(0));
        }
        resources(page, 2, &container["resources"]);
        for (title, name) in
            [("Liveness", "livenessProbe"), ("Readiness", "readinessProbe"), ("Startup", "startupProbe")]
        {
            if container[name].is_object() {
                page.field(2, title, probe(&container[name]));
            }
        }
        sources(page, items(container, "envFrom"));
        environment(page, container, pod);
        mounts(page, container);
    }
}

fn basics(page: &mut Page, container: &Value, status: Option<&Value>) {
    page.line(1, format!("{}:", text(container, "name")));
    if let Some(status) = status {
        page.field(2, "Container ID", text(status, "containerID"));
    }
    page.field(2, "Image", text(container, "image"));
    if let Some(status) = status {
        page.field(2, "Image ID", text(status, "imageID"));
    }
    for (title, field) in [("Port", "containerPort"), ("Host Port", "hostPort")] {
        let ports: Vec<String> = items(container, "ports").iter().map(|port| self::port(port, field)).collect();
        match ports.as_slice() {
            [] => page.field(2, title, "<none>"),
            [one] => page.field(2, title, one),
            several => page.field(2, &format!("{title}s"), several.join(", ")),
        }
    }
    seccomp(page, 2, 3, &container["securityContext"]["seccompProfile"]);
}

fn port(port: &Value, field: &str) -> String {
    let number = integer(port, field).unwrap_or(0);
    match text(port, "name") {
        "" => format!("{number}/{}", text(port, "protocol")),
        name => format!("{number}/{} ({name})", text(port, "protocol")),
    }
}

pub(super) fn seccomp(page: &mut Page, level: usize, inner: usize, profile: &Value) {
    if profile.is_object() {
        page.field(level, "SeccompProfile", text(profile, "type"));
        if text(profile, "type") == "Localhost" {
            page.field(inner, "LocalhostProfile", text(profile, "localhostProfile"));
        }
    }
}

fn words(page: &mut Page, title: &str, words: &[Value]) {
    if words.is_empty() {
        return;
    }
    page.line(2, format!("{title}:"));
    for word in words {
        word.as_str().unwrap_or_default().split('\n').for_each(|line| page.line(3, line));
    }
}

fn state(page: &mut Page, title: &str, state: &Value) {
    let (running, ended) = (&state["running"], &state["terminated"]);
    if running.is_object() {
        page.field(2, title, "Running");
        let time = page.time(&running["startedAt"]);
        page.field(3, "Started", time);
    } else if ended.is_object() {
        page.field(2, title, "Terminated");
        page.maybe(3, "Reason", text(ended, "reason"));
        page.maybe(3, "Message", text(ended, "message"));
        page.field(3, "Exit Code", integer(ended, "exitCode").unwrap_or(0));
        if let Some(signal @ 1..) = integer(ended, "signal") {
            page.field(3, "Signal", signal);
        }
        let (started, finished) = (page.time(&ended["startedAt"]), page.time(&ended["finishedAt"]));
        page.field(3, "Started", started);
        page.field(3, "Finished", finished);
    } else {
        page.field(2, title, "Waiting");
        page.maybe(3, "Reason", text(state, "waiting.reason"));
    }
}

pub(super) fn resources(page: &mut Page, level: usize, resources: &Value) {
    for (title, name) in [("Limits", "limits"), ("Requests", "requests")] {
        let members = value::members(resources, name);
        if !members.is_empty() {
            page.line(level, format!("{title}:"));
        }
        for (name, amount) in members {
            page.field(level + 1, name, value::scalar(amount));
        }
    }
}

fn probe(probe: &Value) -> String {
    let number = |name| integer(probe, name).unwrap_or(0);
    let attributes = format!(
        "delay={}s timeout={}s period={}s #success={} #failure={}",
        number("initialDelaySeconds"),
        number("timeoutSeconds"),
        number("periodSeconds"),
        number("successThreshold"),
        number("failureThreshold")
    );
    let (http, tcp, grpc) = (&probe["httpGet"], &probe["tcpSocket"], &probe["grpc"]);
    if probe["exec"].is_object() {
        let words: Vec<String> = items(probe, "exec.command").iter().map(value::scalar).collect();
        format!("exec [{}] {attributes}", words.join(" "))
    } else if http.is_object() {
        let (host, path) = (text(http, "host"), text(http, "path"));
        let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        let slash = if path.is_empty() || path.starts_with('/') { "" } else { "/" };
        let path = path.replace('%', "%25").replace('?', "%3F").replace('#', "%23").replace(' ', "%20");
        let scheme = text(http, "scheme").to_lowercase();
        format!("http-get {scheme}://{host}:{}{slash}{path} {attributes}", value::scalar(&http["port"]))
    } else if tcp.is_object() {
        format!("tcp-socket {}:{} {attributes}", text(tcp, "host"), value::scalar(&tcp["port"]))
    } else if grpc.is_object() {
        format!("grpc <pod>:{} {} {attributes}", value::scalar(&grpc["port"]), text(grpc, "service"))
    } else {
        format!("unknown {attributes}")
    }
}

fn sources(page: &mut Page, sources: &[Value]) {
    if sources.is_empty() {
        return;
    }
    page.line(2, "Environment Variables from:");
    for source in sources {
        let (kind, of) = match source["configMapRef"].is_object() {
            true => ("ConfigMap", &source["configMapRef"]),
            false => ("Secret", &source["secretRef"]),
        };
        let prefix = match text(source, "prefix") {
            "" => String::new(),
            prefix => format!(" with prefix '{prefix}'"),
        };
        page.line(3, format!("{}\t{kind}{prefix}\tOptional: {}", text(of, "name"), is_true(of, "optional")));
    }
}

fn environment(page: &mut Page, container: &Value, pod: &Value) {
    let variables = items(container, "env");
    page.line(2, format!("Environment:{}", if variables.is_empty() { "\t<none>" } else { "" }));
    for variable in variables {
        let name = text(variable, "name");
        let from = &variable["valueFrom"];
        let (field, resource) = (&from["fieldRef"], &from["resourceFieldRef"]);
        if field.is_object() {
            let path = text(field, "fieldPath");
            let version = text(field, "apiVersion");
            page.line(3, format!("{name}:\t{} ({version}:{path})", own_field(pod, path)));
        } else if resource.is_object() {
            let path = text(resource, "resource");
            page.line(3, format!("{name}:\t{} ({path})", own_resource(container, resource)));
        } else if from["secretKeyRef"].is_object() {
            let of = &from["secretKeyRef"];
            let (key, secret, optional) = (text(of, "key"), text(of, "name"), is_true(of, "optional"));
            page.line(3, format!("{name}:\t<set to the key '{key}' in secret '{secret}'>\tOptional: {optional}"));
        } else if from["configMapKeyRef"].is_object() {
            let of = &from["configMapKeyRef"];
            let (key, map, optional) = (text(of, "key"), text(of, "name"), is_true(of, "optional"));
            page.line(3, format!("{name}:\t<set to the key '{key}' of config map '{map}'>\tOptional: {optional}"));
        } else if !from.is_object() {
            for (index, line) in text(variable, "value").split('\n').enumerate() {
                match index {
                    0 => page.line(3, format!("{name}:\t{line}")),
                    _ => page.line(3, format!("\t{line}")),
                }
            }
        }
    }
}

/// Only metadata: kubectl shows nothing else.
fn own_field<'p>(pod: &'p Value, path: &str) -> &'p str {
    match path {
        "metadata.name" | "metadata.namespace" | "metadata.uid" => text(pod, path),
        _ => {
            let member = |map: &str| {
                let key = path.strip_prefix(map)?.strip_prefix("['")?.strip_suffix("']")?;
                value::at(pod, map)[key].as_str()
            };
            member("metadata.labels").or_else(|| member("metadata.annotations")).unwrap_or_default()
        }
    }
}

/// A limit or request in units of the divisor, rounded up.
fn own_resource(container: &Value, of: &Value) -> String {
    let path = text(of, "resource");
    let amount = |text: &str| quantity::parse(text).map(|(amount, _)| amount).unwrap_or_default();
    let (which, name) = path.split_once('.').unwrap_or_default();
    let amount_of = amount(container["resources"][which][name].as_str().unwrap_or("0"));
    let divisor = amount(of["divisor"].as_str().unwrap_or("1"));
    let divisor = if divisor.is_zero() { amount("1") } else { divisor };
    let (amount, divisor) = match name {
        "cpu" => (amount_of.millis(), divisor.millis()),
        _ => (amount_of.whole(), divisor.whole()),
    };
    let number = (amount as f64 / divisor.max(1) as f64).ceil() as i64;
    match (number, path) {
        (0, "limits.cpu" | "limits.memory") => "node allocatable".to_owned(),
        _ => number.to_string(),
    }
}

fn mounts(page: &mut Page, container: &Value) {
    let mut mounts: Vec<&Value> = items(container, "volumeMounts").iter().collect();
    let none = if mounts.is_empty() { "\t<none>" } else { "" };
    page.line(2, format!("Mounts:{none}"));
    mounts.sort_by_key(|mount| text(mount, "mountPath"));
    for mount in mounts {
        let mode = if is_true(mount, "readOnly") { "ro" } else { "rw" };
        let sub = match text(mount, "subPath") {
            "" => String::new(),
            path => format!(",path={path:?}"),
        };
        page.line(3, format!("{} from {} ({mode}{sub})", text(mount, "mountPath"), text(mount, "name")));
    }
    let mut devices: Vec<&Value> = items(container, "volumeDevices").iter().collect();
    if !devices.is_empty() {
        page.line(2, format!("Devices:{none}"));
        devices.sort_by_key(|device| text(device, "devicePath"));
        for device in devices {
            page.line(3, format!("{} from {}", text(device, "devicePath"), text(device, "name")));
        }
    }
}
