//! Our three entries in a kubeconfig, and nothing else of it.
//!
//! People's files have comments, orders and styles of their own, and other programs' entries. So the text is edited, not
//! printed anew: our list items are put in, replaced or taken out as lines. Before and after, the whole text is read as
//! YAML; an edit whose result does not mean exactly what was intended is refused, and the file stays as it is.

use serde_json::{Value, json};

/// What goes into the file. The name is cluster's, user's and context's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) name: String,
    /// `https://127.0.0.1:6550`
    pub(crate) server: String,
    /// Base64 of the PEM, as the format wants it.
    pub(crate) authority: String,
    pub(crate) certificate: String,
    pub(crate) key: String,
}

/// Why a text is not edited.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum EditError {
    #[error("it is no readable YAML (half written?): {0}")]
    Unreadable(String),
    #[error("it is no kubeconfig: {0}")]
    Foreign(&'static str),
    #[error("it is written in a way that cannot be edited safely (`{0}`)")]
    Style(&'static str),
}

const LISTS: [&str; 3] = ["clusters", "contexts", "users"];

/// The text with our entries; `select` makes ours the current context.
pub(crate) fn with(text: &str, entry: &Entry, select: bool) -> Result<String, EditError> {
    let before = read(text)?;
    let wanted = expected(before.clone(), &entry.name, Some(entry), select.then_some(entry.name.as_str()));
    if is_json(text) || before == json!({}) {
        return Ok(rendered(text, &before, &wanted));
    }
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    for list in LISTS {
        put(&mut lines, &before, list, &entry.name, Some(&item(list, entry)))?;
    }
    if select {
        select_context(&mut lines, &entry.name);
    }
    checked(lines, &wanted)
}

/// The text without the entries of that name. A current context of that name is no longer current.
pub(crate) fn without(text: &str, name: &str) -> Result<String, EditError> {
    let before = read(text)?;
    let current = (before["current-context"] == name).then_some("");
    let wanted = expected(before.clone(), name, None, current);
    if wanted == before {
        return Ok(text.to_owned());
    }
    if is_json(text) {
        return Ok(rendered(text, &before, &wanted));
    }
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    for list in LISTS {
        put(&mut lines, &before, list, name, None)?;
    }
    if current.is_some() {
        select_context(&mut lines, "");
    }
    checked(lines, &wanted)
}

/// The context that is current, if any.
pub(crate) fn current(text: &str) -> Option<String> {
    let current = read(text).ok()?["current-context"].as_str().unwrap_or_default().to_owned();
    Some(current).filter(|current| !current.is_empty())
}

// --- what the text means ---

fn read(text: &str) -> Result<Value, EditError> {
    let (value, _) = pod_api::yaml_to_json(text).map_err(EditError::Unreadable)?;
    match value {
        Value::Null => Ok(json!({})),
        Value::Object(_) => {
            let kind = &value["kind"];
            if !kind.is_null() && kind != "Config" {
                return Err(EditError::Foreign("its kind is not Config"));
            }
            let lists = LISTS.iter().all(|list| value[list].is_null() || value[list].is_array());
            if lists { Ok(value) } else { Err(EditError::Foreign("its clusters, contexts or users are no lists")) }
        }
        _ => Err(EditError::Foreign("it is no mapping")),
    }
}

fn is_json(text: &str) -> bool {
    text.trim_start().starts_with('{')
}

fn entry_value(list: &str, entry: &Entry) -> Value {
    match list {
        "clusters" => json!({"name": entry.name,
            "cluster": {"certificate-authority-data": entry.authority, "server": entry.server}}),
        "contexts" => json!({"name": entry.name, "context": {"cluster": entry.name, "user": entry.name}}),
        _ => json!({"name": entry.name,
            "user": {"client-certificate-data": entry.certificate, "client-key-data": entry.key}}),
    }
}

fn expected(mut value: Value, name: &str, entry: Option<&Entry>, current: Option<&str>) -> Value {
    for list in LISTS {
        let mut items = value[list].as_array().cloned().unwrap_or_default();
        let place = items.iter().position(|item| item["name"] == name);
        match (place, entry) {
            (Some(place), Some(entry)) => items[place] = entry_value(list, entry),
            (None, Some(entry)) => items.push(entry_value(list, entry)),
            (Some(place), None) => drop(items.remove(place)),
            (None, None) => continue,
        }
        value[list] = items.into();
    }
    if let Some(current) = current {
        value["current-context"] = current.into();
    }
    value
}

/// A file that is JSON stays JSON; an empty one becomes what kubectl writes.
fn rendered(text: &str, before: &Value, wanted: &Value) -> String {
    if is_json(text) && *before != json!({}) {
        return format!("{wanted:#}\n");
    }
    let mut out = String::from("apiVersion: v1\n");
    for list in LISTS {
        let items = wanted[list].as_array().map(Vec::as_slice).unwrap_or_default();
        out.push_str(&format!("{list}:\n"));
        for item in items {
            out.push_str(&block(item, "").join("\n"));
            out.push('\n');
        }
    }
    let current = wanted["current-context"].as_str().unwrap_or_default();
    out.push_str(&format!("current-context: {}\nkind: Config\npreferences: {{}}\n", scalar(current)));
    out
}

fn checked(lines: Vec<String>, wanted: &Value) -> Result<String, EditError> {
    let text = lines.join("\n") + "\n";
    let got = read(&text).map_err(|_| EditError::Style("its layout"))?;
    let mut got = got;
    for list in LISTS {
        // A list without items may have become one that is not there.
        if wanted[list].as_array().is_some_and(Vec::is_empty) && got[list].is_null() {
            got[list] = json!([]);
        }
    }
    if got == *wanted { Ok(text) } else { Err(EditError::Style("its layout")) }
}

// --- lines ---

fn item(list: &str, entry: &Entry) -> Value {
    entry_value(list, entry)
}

/// One list item as lines, in kubectl's order: the mapping's name sorts where it sorts.
fn block(item: &Value, indent: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let mut lead = format!("{indent}- ");
    for (key, value) in item.as_object().into_iter().flatten() {
        match value.as_object() {
            Some(inner) => {
                lines.push(format!("{lead}{key}:"));
                lines.extend(
                    inner.iter().map(|(key, value)| {
                        format!("{indent}    {key}: {}", scalar(value.as_str().unwrap_or_default()))
                    }),
                );
            }
            None => lines.push(format!("{lead}{key}: {}", scalar(value.as_str().unwrap_or_default()))),
        }
        lead = format!("{indent}  ");
    }
    lines
}

/// What we write is base64, addresses and names; all but the empty text are plain scalars.
fn scalar(text: &str) -> String {
    if text.is_empty() { "\"\"".into() } else { text.into() }
}

/// Puts, replaces or removes our item of a list.
fn put(
    lines: &mut Vec<String>,
    before: &Value,
    list: &'static str,
    name: &str,
    new: Option<&Value>,
) -> Result<(), EditError> {
    let items = before[list].as_array().map(Vec::as_slice).unwrap_or_default();
    let place = items.iter().position(|item| item["name"] == name);
    let Some(head) = lines.iter().position(|line| is_key(line, list)) else {
        if let Some(new) = new {
            let end = end_of_document(lines);
            lines.splice(end..end, std::iter::once(format!("{list}:")).chain(block(new, "")));
        }
        return Ok(());
    };
    if items.is_empty() {
        // `clusters: []`, `clusters: null`, or nothing at all.
        if let Some(new) = new {
            lines.splice(head..=head, std::iter::once(format!("{list}:")).chain(block(new, "")));
        }
        return Ok(());
    }
    let (starts, end, indent) = item_lines(lines, head);
    if starts.len() != items.len() {
        return Err(EditError::Style(list));
    }
    let range = match place {
        Some(place) => starts[place]..starts.get(place + 1).copied().unwrap_or(end),
        None => end..end,
    };
    if place.is_some() && new.is_none() && items.len() == 1 {
        lines.splice(range, []);
        lines[head] = format!("{list}: []");
        return Ok(());
    }
    lines.splice(range, new.map(|new| block(new, &indent)).unwrap_or_default());
    Ok(())
}

/// Where the items of the block list below `head` start, where the last one ends, and how they are indented.
fn item_lines(lines: &[String], head: usize) -> (Vec<usize>, usize, String) {
    let mut starts = Vec::new();
    let mut end = head + 1;
    let mut indent = None;
    for (number, line) in lines.iter().enumerate().skip(head + 1) {
        let content = line.trim_start();
        if content.is_empty() || content.starts_with('#') {
            continue;
        }
        let depth = line.len() - content.len();
        let dash = content == "-" || content.starts_with("- ");
        let own = *indent.get_or_insert(depth);
        if depth < own || (depth == own && !dash) {
            break;
        }
        if depth == own {
            starts.push(number);
        }
        end = number + 1;
    }
    (starts, end, " ".repeat(indent.unwrap_or(0)))
}

fn is_key(line: &str, key: &str) -> bool {
    let quoted = [key.to_owned(), format!("\"{key}\""), format!("'{key}'")];
    quoted.iter().any(|key| line.strip_prefix(key.as_str()).is_some_and(|rest| rest.trim_start().starts_with(':')))
}

fn select_context(lines: &mut Vec<String>, name: &str) {
    let line = format!("current-context: {}", scalar(name));
    match lines.iter().position(|line| is_key(line, "current-context")) {
        Some(place) => lines[place] = line,
        None => {
            let end = end_of_document(lines);
            lines.insert(end, line);
        }
    }
}

/// Before a `...` that ends it.
fn end_of_document(lines: &[String]) -> usize {
    lines.iter().rposition(|line| line.trim_end() == "...").unwrap_or(lines.len())
}

#[cfg(test)]
mod tests;
