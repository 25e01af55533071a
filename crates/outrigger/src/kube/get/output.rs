//! The forms of `-o`.

use pod_client::Kind;
use pod_client::print::path::Template;
use pod_client::print::{json, yaml};
use serde_json::{Value, json};

use crate::kube::{Outcome, Trouble, text, value};

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Output {
    Table,
    Wide,
    Json,
    Yaml,
    Name,
    Path(Template),
}

impl Output {
    pub(crate) fn parse(word: Option<&str>) -> Outcome<Output> {
        let template = |text: &str| {
            Template::parse(text).map_err(|error| Trouble::Text(format!("error parsing jsonpath {text}, {error}")))
        };
        Ok(match word {
            None | Some("") => Output::Table,
            Some("wide") => Output::Wide,
            Some("json") => Output::Json,
            Some("yaml") => Output::Yaml,
            Some("name") => Output::Name,
            Some(word) => match word.split_once('=') {
                Some(("jsonpath", path)) => Output::Path(template(path)?),
                Some(("jsonpath-file", file)) => {
                    let path = std::fs::read_to_string(file)
                        .map_err(|error| Trouble::Text(format!("error reading --template {file}, {error}")))?;
                    Output::Path(template(&path)?)
                }
                _ if word == "jsonpath" => return text("template format specified but no template given"),
                _ => {
                    return text(format!(
                        "unable to match a printer suitable for the output format \"{word}\", allowed formats are: json, \
                         jsonpath, jsonpath-file, name, wide, yaml"
                    ));
                }
            },
        })
    }

    pub(crate) fn is_table(&self) -> bool {
        matches!(self, Output::Table | Output::Wide)
    }

    pub(crate) fn object(&self, kind: &Kind, object: &Value) -> Outcome<String> {
        Ok(match self {
            Output::Json => format!("{}\n", json::pretty(object)),
            Output::Yaml => yaml::write(object),
            Output::Name | Output::Table | Output::Wide => format!("{}/{}\n", kind.said(), value::name(object)),
            Output::Path(template) => {
                template.print(object).map_err(|error| Trouble::Text(format!("error executing jsonpath: {error}")))?
            }
        })
    }

    pub(crate) fn list(&self, found: &[(&Kind, Value)]) -> Outcome<String> {
        if *self == Output::Name {
            return found.iter().map(|(kind, object)| self.object(kind, object)).collect();
        }
        let items: Vec<&Value> = found.iter().map(|(_, object)| object).collect();
        let list = json!({"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": ""}, "items": items});
        self.object(&Kind::default(), &list)
    }
}

/// Who owns which field is long, and of use to few.
pub(crate) fn hide_managed_fields(object: &mut Value) {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
    }
}
