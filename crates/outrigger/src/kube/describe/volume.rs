//! Volumes of a pod. Sources that only clusters have are shown by their kind and fields.

use serde_json::Value;

use super::page::Page;
use crate::kube::value::{self, integer, is_true, items, text};

pub(super) fn describe(page: &mut Page, volumes: &[Value]) {
    if volumes.is_empty() {
        return page.field(0, "Volumes", "<none>");
    }
    page.line(0, "Volumes:");
    for volume in volumes {
        page.line(1, format!("{}:", text(volume, "name")));
        let source =
            volume.as_object().into_iter().flatten().find(|(name, value)| *name != "name" && value.is_object());
        match source {
            Some((kind, source)) => self::source(page, kind, source),
            None => page.line(1, "<unknown>"),
        }
    }
}

fn source(page: &mut Page, kind: &str, source: &Value) {
    let optional = is_true(source, "optional");
    match kind {
        "hostPath" => {
            page.field(2, "Type", "HostPath (bare host directory volume)");
            page.field(2, "Path", text(source, "path"));
            page.field(2, "HostPathType", source["type"].as_str().unwrap_or("<none>"));
        }
        "emptyDir" => {
            page.field(2, "Type", "EmptyDir (a temporary directory that shares a pod's lifetime)");
            page.field(2, "Medium", text(source, "medium"));
            page.field(2, "SizeLimit", source["sizeLimit"].as_str().filter(|limit| *limit != "0").unwrap_or("<unset>"));
        }
        "secret" => {
            page.field(2, "Type", "Secret (a volume populated by a Secret)");
            page.field(2, "SecretName", text(source, "secretName"));
            page.field(2, "Optional", optional);
        }
        "configMap" => {
            page.field(2, "Type", "ConfigMap (a volume populated by a ConfigMap)");
            page.field(2, "Name", text(source, "name"));
            page.field(2, "Optional", optional);
        }
        "projected" => projected(page, items(source, "sources")),
        "persistentVolumeClaim" => {
            page.field(
                2,
                "Type",
                "PersistentVolumeClaim (a reference to a PersistentVolumeClaim in the same namespace)",
            );
            page.field(2, "ClaimName", text(source, "claimName"));
            page.field(2, "ReadOnly", is_true(source, "readOnly"));
        }
        "downwardAPI" => {
            page.field(2, "Type", "DownwardAPI (a volume populated by information about the pod)");
            page.line(2, "Items:");
            for item in items(source, "items") {
                for path in [text(item, "fieldRef.fieldPath"), text(item, "resourceFieldRef.resource")] {
                    if !path.is_empty() {
                        page.line(3, format!("{path} -> {}", text(item, "path")));
                    }
                }
            }
        }
        "image" => {
            page.field(2, "Type", "Image (a container image or OCI artifact)");
            page.field(2, "Reference", text(source, "reference"));
            page.field(2, "PullPolicy", text(source, "pullPolicy"));
        }
        other => {
            page.field(2, "Type", other);
            for (name, value) in members(source) {
                page.field(2, name, value::scalar(value));
            }
        }
    }
}

fn members(source: &Value) -> Vec<(&str, &Value)> {
    source.as_object().into_iter().flatten().map(|(name, value)| (name.as_str(), value)).collect()
}

fn projected(page: &mut Page, sources: &[Value]) {
    page.field(2, "Type", "Projected (a volume that contains injected data from multiple sources)");
    for source in sources {
        let (secret, map) = (&source["secret"], &source["configMap"]);
        if secret.is_object() {
            page.field(2, "SecretName", text(secret, "name"));
            page.field(2, "Optional", is_true(secret, "optional"));
        } else if source["downwardAPI"].is_object() {
            page.field(2, "DownwardAPI", true);
        } else if map.is_object() {
            page.field(2, "ConfigMapName", text(map, "name"));
            page.field(2, "Optional", is_true(map, "optional"));
        } else if source["serviceAccountToken"].is_object() {
            let seconds = integer(source, "serviceAccountToken.expirationSeconds").unwrap_or(0);
            page.field(2, "TokenExpirationSeconds", seconds);
        }
    }
}
