//! Services: a cluster address or none, over TCP and UDP. Everything else is refused, never stored as an address that goes
//! nowhere.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::view::{self, NONE, at, items, text};
use super::{Column, Part, Strategy, Surroundings};
use crate::failure::Failure;
use crate::path::Path;
use crate::problem::Findings;
use crate::validate::{self, FieldError, format};

const HEADLESS: &str = "None";
const MOST_PORT: i64 = 65535;

#[derive(Debug)]
pub(super) struct Services;

impl Strategy for Services {
    /// `SetDefaults_Service`, and the single-stack half of what the registry allocates.
    fn default(&self, object: &mut Value) {
        let spec = view::object(object, "spec");
        view::fill(spec, "sessionAffinity", "None");
        view::fill(spec, "type", "ClusterIP");
        if matches!(spec["type"].as_str(), Some("ClusterIP" | "NodePort" | "LoadBalancer")) {
            view::fill(spec, "internalTrafficPolicy", "Cluster");
        }
        for port in spec.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
            let number = port["port"].clone();
            let port = view::object(port, "");
            view::fill(port, "protocol", "TCP");
            if port.get("targetPort").is_none_or(view::is_empty) {
                port.insert("targetPort".to_owned(), number);
            }
        }
        // One address in two fields; the older one is what most people write.
        let (one, first) = (text(object, "spec.clusterIP").to_owned(), &at(object, "spec.clusterIPs")[0]);
        match (one.as_str(), first.as_str().unwrap_or_default()) {
            ("", "") => {}
            ("", first) => object["spec"]["clusterIP"] = first.into(),
            (one, "") => object["spec"]["clusterIPs"] = json!([one]),
            _ => {}
        }
    }

    fn prepare_create(&self, object: &mut Value, cx: &Surroundings<'_>) -> Result<(), Failure> {
        object["status"] = json!({"loadBalancer": {}});
        if text(object, "spec.type") != "ClusterIP" {
            return Ok(());
        }
        families(object);
        let asked = text(object, "spec.clusterIP").to_owned();
        if asked == HEADLESS || !self.validate_create(object).is_empty() {
            return Ok(());
        }
        let address = match cx.cluster_address {
            Some(take) => take(&asked),
            None => Err("this node has no cluster network; make the service headless (clusterIP: None)".to_owned()),
        };
        let address = address.map_err(|why| {
            let asked: Vec<&str> = [asked.as_str()].into_iter().filter(|text| !text.is_empty()).collect();
            let message = format!("Invalid value: {}: failed to allocate IP: {why}", json!(asked));
            let error = FieldError { path: "spec.clusterIPs".to_owned(), message };
            Failure::invalid("Service", "", text(object, "metadata.name"), &[error])
        })?;
        object["spec"]["clusterIP"] = address.as_str().into();
        object["spec"]["clusterIPs"] = json!([address]);
        Ok(())
    }

    /// `ValidateService`, and what is not done here.
    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let mut findings = Findings::default();
        validate::find_in_object_metadata(object, true, validate::NameRule::Label1035, &mut findings);
        let path = Path::of("spec");
        let spec = &object["spec"];
        let headless = text(spec, "clusterIP") == HEADLESS;
        if items(spec, "ports").is_empty() && !headless {
            findings.required(path.field("ports"), "");
        }
        ports(spec, &path.field("ports"), &mut findings);
        validate::labels(&spec["selector"], path.field("selector"), &mut findings);
        addresses(spec, &path, &mut findings);
        findings.one_of(
            path.field("internalTrafficPolicy"),
            spec["internalTrafficPolicy"].as_str(),
            &["Cluster", "Local"],
        );
        if let Some(distribution) = spec["trafficDistribution"].as_str() {
            let known = ["PreferClose", "PreferSameNode", "PreferSameZone"];
            findings.one_of(path.field("trafficDistribution"), Some(distribution), &known);
        }
        not_here(spec, &path, &mut findings);
        validate::errors(findings)
    }

    fn prepare_update(&self, new: &mut Value, old: &Value, part: Part<'_>) {
        if part != Part::Object {
            return view::put_back(new, old, "spec");
        }
        view::put_back(new, old, "status");
        if text(new, "spec.type") != "ClusterIP" {
            return;
        }
        // A body that does not name the address keeps it.
        for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
            if view::is_empty(&new["spec"][field]) {
                view::put_back(&mut new["spec"], &old["spec"], field);
            }
        }
        // Who changes the one field means the list as well (`pkg/registry/core/service` normalizeClusterIPs).
        let spec = &mut new["spec"];
        if spec["clusterIP"] != old["spec"]["clusterIP"] && spec["clusterIPs"] == old["spec"]["clusterIPs"] {
            spec["clusterIPs"] = json!([spec["clusterIP"]]);
        }
    }

    fn validate_update(&self, new: &Value, old: &Value, part: Part<'_>) -> Vec<FieldError> {
        if part != Part::Object {
            return Vec::new();
        }
        let mut findings = Findings::default();
        for field in ["clusterIPs", "ipFamilies"] {
            let (before, after) = (&at(old, "spec")[field], &at(new, "spec")[field]);
            if !view::is_empty(before) && before[0] != after[0] {
                findings.invalid(Path::of("spec").field(field).index(0), after.clone(), "may not change once set");
            }
        }
        let mut errors = validate::errors(findings);
        errors.extend(self.validate_create(new));
        errors
    }

    fn columns(&self) -> &'static [Column] {
        const {
            &[
                Column::NAME,
                Column::text("Type", "How the service can be reached."),
                Column::text("Cluster-IP", "Its address inside."),
                Column::text("External-IP", "Its addresses outside."),
                Column::text("Port(s)", "Its ports."),
                Column::AGE,
                Column::text("Selector", "Which pods stand behind it.").wide(),
            ]
        }
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let address = at(object, "spec.clusterIPs")[0].as_str().unwrap_or_else(|| text(object, "spec.clusterIP"));
        let external: Vec<&str> = items(object, "spec.externalIPs").iter().filter_map(Value::as_str).collect();
        let ports: Vec<String> = items(object, "spec.ports")
            .iter()
            .map(|port| {
                let node_port = view::integer(port, "nodePort").filter(|number| *number > 0);
                let node_port = node_port.map(|number| format!(":{number}")).unwrap_or_default();
                format!("{}{node_port}/{}", port["port"], text(port, "protocol"))
            })
            .collect();
        vec![
            view::name(object),
            text(object, "spec.type").into(),
            if address.is_empty() { NONE } else { address }.into(),
            view::or_none(&external.join(",")).into(),
            view::or_none(&ports.join(",")).into(),
            view::age(object, now),
            view::pairs(at(object, "spec.selector")).into(),
        ]
    }

    fn field(&self, object: &Value, label: &str) -> Option<String> {
        matches!(label, "spec.clusterIP" | "spec.type").then(|| text(object, label).to_owned())
    }
}

/// The one family there is. What asks for two is left for validation to refuse.
fn families(object: &mut Value) {
    let spec = view::object(object, "spec");
    view::fill(spec, "ipFamilyPolicy", "SingleStack");
    if spec.get("ipFamilies").is_none_or(view::is_empty) {
        spec.insert("ipFamilies".to_owned(), json!(["IPv4"]));
    }
}

fn ports(spec: &Value, path: &Path, findings: &mut Findings) {
    let ports = items(spec, "ports");
    let (mut names, mut numbers) = (Vec::new(), Vec::new());
    for (index, port) in ports.iter().enumerate() {
        let path = path.index(index);
        let name = text(port, "name");
        if name.is_empty() {
            if ports.len() > 1 {
                findings.required(path.field("name"), "");
            }
        } else {
            findings.each_invalid(&path.field("name"), name, format::dns_label(name));
            if names.contains(&name) {
                findings.duplicate(path.field("name"), name);
            }
            names.push(name);
        }
        let number = view::integer(port, "port").unwrap_or(0);
        if let Some(complaint) = format::port_number(number) {
            findings.invalid(path.field("port"), number, &complaint);
        }
        findings.one_of(path.field("protocol"), port["protocol"].as_str(), &["TCP", "UDP"]);
        match &port["targetPort"] {
            Value::String(name) => findings.each_invalid(&path.field("targetPort"), name, format::port_name(name)),
            target => {
                let number = target.as_i64().unwrap_or(0);
                if !(1..=MOST_PORT).contains(&number) {
                    findings.invalid(path.field("targetPort"), number, &format::inclusive_range(1, MOST_PORT));
                }
            }
        }
        if let Some(protocol) = port["appProtocol"].as_str() {
            validate::qualified_name(protocol, path.field("appProtocol"), findings);
        }
        if view::integer(port, "nodePort").unwrap_or(0) != 0 {
            findings.forbidden(path.field("nodePort"), "may not be used when `type` is 'ClusterIP'");
        }
        let key = (number, text(port, "protocol"));
        if numbers.contains(&key) {
            let value = json!({"port": number, "protocol": key.1});
            findings.add(path, format!("Duplicate value: {value}"));
        }
        numbers.push(key);
    }
}

fn addresses(spec: &Value, path: &Path, findings: &mut Findings) {
    let (one, all) = (text(spec, "clusterIP"), items(spec, "clusterIPs"));
    let path_all = path.field("clusterIPs");
    for (index, address) in all.iter().enumerate() {
        let address = address.as_str().unwrap_or_default();
        let path = path_all.index(index);
        match address.parse::<std::net::IpAddr>() {
            _ if address == HEADLESS && index == 0 => {}
            Ok(std::net::IpAddr::V4(_)) if index == 0 => {}
            Ok(_) => {
                findings.invalid(
                    path,
                    address,
                    "this cluster is not configured for dual-stack services: one IPv4 address",
                );
            }
            Err(_) => findings.invalid(path, address, format::ip_address(address).unwrap_or_default()),
        }
    }
    if all.first().is_some_and(|first| first.as_str() != Some(one)) {
        findings.invalid(path_all, all, "first value must match `clusterIP`");
    }
    for (index, family) in items(spec, "ipFamilies").iter().enumerate() {
        if family != "IPv4" {
            findings.invalid(path.field("ipFamilies").index(index), family.clone(), "not configured on this cluster");
        }
    }
    match text(spec, "ipFamilyPolicy") {
        "" | "SingleStack" | "PreferDualStack" => {}
        "RequireDualStack" => {
            let detail = "this cluster is not configured for dual-stack services";
            findings.invalid(path.field("ipFamilyPolicy"), "RequireDualStack", detail);
        }
        other => {
            let known = ["PreferDualStack", "RequireDualStack", "SingleStack"];
            findings.not_supported(path.field("ipFamilyPolicy"), other, &known);
        }
    }
}

/// Fields that would promise what nothing here does.
fn not_here(spec: &Value, path: &Path, findings: &mut Findings) {
    let kind = text(spec, "type");
    if kind != "ClusterIP" {
        let advice = match kind {
            "NodePort" | "LoadBalancer" => "; reach it from outside with `kubectl port-forward` or a pod's hostPort",
            "ExternalName" => "; use the other name directly",
            _ => "",
        };
        let value = crate::problem::quote(kind);
        findings
            .add(path.field("type"), format!("Unsupported value: {value}: supported values: \"ClusterIP\"{advice}"));
    }
    if text(spec, "sessionAffinity") != "None" {
        findings.not_supported(path.field("sessionAffinity"), text(spec, "sessionAffinity"), &["None"]);
    } else if !view::is_empty(&spec["sessionAffinityConfig"]) {
        let detail = "must not be set when session affinity is None";
        findings.forbidden(path.field("sessionAffinityConfig"), detail);
    }
    let refused = [
        ("externalIPs", "addresses outside are not routed here; use a pod's hostPort"),
        ("externalName", "may only be set for ExternalName services"),
        ("loadBalancerIP", "there are no load balancers here"),
        ("loadBalancerClass", "may only be used when `type` is 'LoadBalancer'"),
        ("loadBalancerSourceRanges", "may only be used when `type` is 'LoadBalancer'"),
        ("allocateLoadBalancerNodePorts", "may only be used when `type` is 'LoadBalancer'"),
        ("externalTrafficPolicy", "may only be set for externally-accessible services"),
        ("healthCheckNodePort", "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'"),
    ];
    for (field, detail) in refused.into_iter().filter(|(field, _)| !view::is_empty(&spec[*field])) {
        findings.forbidden(path.field(field), detail);
    }
}
