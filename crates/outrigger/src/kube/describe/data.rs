//! Kinds that hold data: ConfigMaps, Secrets, ServiceAccounts, Namespaces with their quotas and limits.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pod_client::Call;
use serde_json::Value;

use super::page::Page;
use crate::kube::target::take_items;
use crate::kube::value::{self, items, members, text};
use crate::kube::{Node, Outcome};

fn bytes(value: &Value) -> Vec<u8> {
    STANDARD.decode(value.as_str().unwrap_or_default()).unwrap_or_default()
}

pub(super) fn config_map(page: &mut Page, object: &Value) {
    page.head(object);
    page.line(0, "\nData\n====");
    for (name, text) in members(object, "data") {
        page.line(0, format!("{name}:\n----\n{}\n", text.as_str().unwrap_or_default()));
    }
    page.line(0, "\nBinaryData\n====");
    for (name, data) in members(object, "binaryData") {
        page.line(0, format!("{name}: {} bytes", bytes(data).len()));
    }
    page.line(0, "");
}

pub(super) fn secret(page: &mut Page, object: &Value) {
    page.head(object);
    let kind = text(object, "type");
    page.line(0, format!("\nType:\t{kind}"));
    page.line(0, "\nData\n====");
    for (name, data) in members(object, "data") {
        let data = bytes(data);
        match name == "token" && kind == "kubernetes.io/service-account-token" {
            true => page.field(0, name, String::from_utf8_lossy(&data)),
            false => page.field(0, name, format!("{} bytes", data.len())),
        }
    }
}

pub(super) fn service_account(page: &mut Page, object: &Value) {
    page.head(object);
    let secrets = items(object, "imagePullSecrets");
    if secrets.is_empty() {
        page.line(0, "Image pull secrets:\t<none>");
    }
    for (index, secret) in secrets.iter().enumerate() {
        let title = if index == 0 { "Image pull secrets:" } else { "                   " };
        page.line(0, format!("{title}\t{}", text(secret, "name")));
    }
}

pub(super) async fn namespace(page: &mut Page, node: &Node, object: &Value) -> Outcome<()> {
    let name = value::name(object);
    page.field(0, "Name", name);
    page.labels_and_annotations(object);
    page.field(0, "Status", text(object, "status.phase"));
    let conditions = items(object, "status.conditions");
    if !conditions.is_empty() {
        page.line(0, "Conditions:");
        page.line(1, "Type\tStatus\tLastTransitionTime\tReason\tMessage");
        page.line(1, "----\t------\t------------------\t------\t-------");
        for one in conditions {
            let time = page.time(&one["lastTransitionTime"]);
            let (kind, status) = (text(one, "type"), text(one, "status"));
            page.line(1, format!("{kind}\t{status}\t{time}\t{}\t{}", text(one, "reason"), text(one, "message")));
        }
    }
    if let Some(quotas) = within(node, "resourcequotas", name).await? {
        page.line(0, "");
        self::quotas(page, quotas);
    }
    if let Some(ranges) = within(node, "limitranges", name).await? {
        page.line(0, "");
        limits(page, &ranges);
    }
    Ok(())
}

/// All objects of a kind in a namespace; nothing if the server does not have the kind.
async fn within(node: &Node, kind: &str, namespace: &str) -> Outcome<Option<Vec<Value>>> {
    let Ok(kind) = node.kind(kind).await else { return Ok(None) };
    let mut list = node.client.json(Call::get(kind.list_path(Some(namespace)))).await?;
    Ok(Some(take_items(&mut list, kind)))
}

fn scope_help(scope: &str) -> &'static str {
    match scope {
        "Terminating" => {
            "Matches all pods that have an active deadline. These pods have a limited lifespan on a node before being actively \
             terminated by the system."
        }
        "NotTerminating" => {
            "Matches all pods that do not have an active deadline. These pods usually include long running pods whose \
             container command is not expected to terminate."
        }
        "BestEffort" => {
            "Matches all pods that do not have resource requirements set. These pods have a best effort quality of service."
        }
        "NotBestEffort" => {
            "Matches all pods that have at least one resource requirement set. These pods have a burstable or guaranteed \
             quality of service."
        }
        _ => "",
    }
}

fn quotas(page: &mut Page, mut quotas: Vec<Value>) {
    if quotas.is_empty() {
        return page.line(0, "No resource quota.");
    }
    quotas.sort_by_key(|quota| value::name(quota).to_owned());
    page.line(0, "Resource Quotas");
    for quota in &quotas {
        page.field(1, "Name", value::name(quota));
        let mut scopes: Vec<&str> = items(quota, "spec.scopes").iter().filter_map(Value::as_str).collect();
        if !scopes.is_empty() {
            scopes.sort_unstable();
            page.field(1, "Scopes", scopes.join(", "));
            for help in scopes.iter().map(|scope| scope_help(scope)).filter(|help| !help.is_empty()) {
                page.line(1, format!("* {help}"));
            }
        }
        page.line(1, "Resource\tUsed\tHard");
        page.line(1, "--------\t---\t---");
        for (name, hard) in members(quota, "status.hard") {
            let used = quota["status"]["used"][name].as_str().unwrap_or("0");
            page.line(1, format!("{name}\t{used}\t{}", value::scalar(hard)));
        }
    }
}

fn limits(page: &mut Page, ranges: &[Value]) {
    if ranges.is_empty() {
        return page.line(0, "No LimitRange resource.");
    }
    page.line(0, "Resource Limits");
    page.line(0, " Type\tResource\tMin\tMax\tDefault Request\tDefault Limit\tMax Limit/Request Ratio");
    page.line(0, " ----\t--------\t---\t---\t---------------\t-------------\t-----------------------");
    const COLUMNS: [&str; 5] = ["min", "max", "defaultRequest", "default", "maxLimitRequestRatio"];
    for item in ranges.iter().flat_map(|range| items(range, "spec.limits")) {
        let mut names: Vec<&str> =
            COLUMNS.iter().flat_map(|column| members(item, column)).map(|(name, _)| name).collect();
        names.sort_unstable();
        names.dedup();
        for name in names {
            let cells: Vec<&str> = COLUMNS.iter().map(|column| item[*column][name].as_str().unwrap_or("-")).collect();
            page.line(0, format!(" {}\t{name}\t{}", text(item, "type"), cells.join("\t")));
        }
    }
}
