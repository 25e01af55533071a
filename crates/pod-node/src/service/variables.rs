//! Services as environment variables, in the two old forms: `NAME_SERVICE_HOST` and Docker's links. Pure.
//!
//! Source: `pkg/kubelet/envvars/envvars.go` (`FromServices`).

use serde_json::Value;

use super::view::cluster_address;
use crate::object::{items, text};

/// Of the services of one namespace that have an address, by name.
pub(crate) fn of_services<'a>(services: impl Iterator<Item = &'a Value>) -> Vec<(String, String)> {
    let mut variables = Vec::new();
    for service in services {
        let (Some(address), Some(first)) = (cluster_address(service), items(service, "/spec/ports").first()) else {
            continue;
        };
        let name = variable(text(service, "/metadata/name"));
        let mut set = |name: String, value: String| variables.push((name, value));
        set(format!("{name}_SERVICE_HOST"), address.to_string());
        set(format!("{name}_SERVICE_PORT"), first["port"].to_string());
        for port in items(service, "/spec/ports") {
            if let Some(label) = port["name"].as_str().filter(|label| !label.is_empty()) {
                set(format!("{name}_SERVICE_PORT_{}", variable(label)), port["port"].to_string());
            }
        }
        for (index, port) in items(service, "/spec/ports").iter().enumerate() {
            let protocol = port["protocol"].as_str().unwrap_or("TCP");
            let (number, lower) = (&port["port"], protocol.to_lowercase());
            let url = format!("{lower}://{address}:{number}");
            if index == 0 {
                set(format!("{name}_PORT"), url.clone());
            }
            let prefix = format!("{name}_PORT_{number}_{protocol}");
            set(prefix.clone(), url);
            set(format!("{prefix}_PROTO"), lower);
            set(format!("{prefix}_PORT"), number.to_string());
            set(format!("{prefix}_ADDR"), address.to_string());
        }
    }
    variables
}

fn variable(name: &str) -> String {
    name.to_uppercase().replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn both_forms_for_every_port() {
        let service = json!({
            "metadata": {"name": "my-db"},
            "spec": {"clusterIP": "10.96.0.7", "ports": [
                {"name": "sql", "port": 5432, "protocol": "TCP"}, {"name": "stats", "port": 53, "protocol": "UDP"},
            ]},
        });
        let headless = json!({"metadata": {"name": "h"}, "spec": {"clusterIP": "None", "ports": [{"port": 1}]}});
        let text: Vec<String> = of_services([&service, &headless].into_iter())
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        assert_eq!(
            text.join("\n"),
            "\
MY_DB_SERVICE_HOST=10.96.0.7
MY_DB_SERVICE_PORT=5432
MY_DB_SERVICE_PORT_SQL=5432
MY_DB_SERVICE_PORT_STATS=53
MY_DB_PORT=tcp://10.96.0.7:5432
MY_DB_PORT_5432_TCP=tcp://10.96.0.7:5432
MY_DB_PORT_5432_TCP_PROTO=tcp
MY_DB_PORT_5432_TCP_PORT=5432
MY_DB_PORT_5432_TCP_ADDR=10.96.0.7
MY_DB_PORT_53_UDP=udp://10.96.0.7:53
MY_DB_PORT_53_UDP_PROTO=udp
MY_DB_PORT_53_UDP_PORT=53
MY_DB_PORT_53_UDP_ADDR=10.96.0.7"
        );
    }
}
