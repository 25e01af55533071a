//! Kinds without a layout of their own: every field, under its name in words.

use serde_json::Value;

use super::page::Page;
use crate::kube::value;

/// Shown at the top, or of no interest.
const SKIPPED: [&str; 5] =
    [".metadata.managedFields", ".metadata.name", ".metadata.namespace", ".metadata.labels", ".metadata.annotations"];

pub(super) fn describe(page: &mut Page, object: &Value) {
    page.head(object);
    fields(page, 0, object, "");
}

fn fields(page: &mut Page, level: usize, object: &Value, path: &str) {
    let mut members: Vec<(&String, &Value)> = object.as_object().into_iter().flatten().collect();
    members.sort_by_key(|(name, _)| name.as_str());
    for (name, value) in members {
        let path = format!("{path}.{name}");
        if SKIPPED.contains(&path.as_str()) {
            continue;
        }
        match value {
            Value::Object(_) => {
                page.line(level, format!("{}:", title(name)));
                fields(page, level + 1, value, &path);
            }
            Value::Array(items) => {
                page.line(level, format!("{}:", title(name)));
                for item in items {
                    match item {
                        Value::Object(_) => fields(page, level + 1, item, &path),
                        scalar => page.line(level + 1, value::scalar(scalar)),
                    }
                }
            }
            scalar => page.field(level, &title(name), value::scalar(scalar)),
        }
    }
}

/// `creationTimestamp` is `Creation Timestamp`.
fn title(name: &str) -> String {
    if !name.chars().all(|character| character.is_alphabetic() || character == '-') {
        return name.to_owned();
    }
    let words = words(name).into_iter().map(|word| {
        let upper = word.to_uppercase();
        if ["API", "URL", "UID", "OSB", "GUID"].contains(&upper.as_str()) {
            return upper;
        }
        let mut characters = word.chars();
        let first = characters.next().map(|first| first.to_uppercase().to_string()).unwrap_or_default();
        format!("{first}{}", characters.as_str().to_lowercase())
    });
    words.collect::<Vec<_>>().join(" ")
}

/// Splits where a word begins; of several capitals the last begins the next word.
fn words(name: &str) -> Vec<String> {
    let mut runs: Vec<(u8, String)> = Vec::new();
    for character in name.chars() {
        let class = if character.is_lowercase() {
            0
        } else if character.is_uppercase() {
            1
        } else {
            2
        };
        match runs.last_mut() {
            Some((last, run)) if *last == class => run.push(character),
            _ => runs.push((class, character.to_string())),
        }
    }
    for index in 1..runs.len() {
        if runs[index - 1].0 == 1
            && runs[index].0 == 0
            && let Some(capital) = runs[index - 1].1.pop()
        {
            runs[index].1.insert(0, capital);
        }
    }
    runs.into_iter().map(|(_, run)| run).filter(|run| !run.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_words() {
        for (name, words) in [
            ("metadata", "Metadata"),
            ("creationTimestamp", "Creation Timestamp"),
            ("apiVersion", "API Version"),
            ("uid", "UID"),
            ("podIPs", "Pod I Ps"),
            ("clusterIP", "Cluster Ip"),
            ("x.y/z", "x.y/z"),
        ] {
            assert_eq!(title(name), words);
        }
    }
}
