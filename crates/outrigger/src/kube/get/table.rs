//! The server's tables as text: which columns, and what kubectl adds to them.

use std::collections::HashMap;

use pod_client::Kind;
use pod_client::print::columns::Columns;
use serde_json::Value;

use crate::kube::value::{self, items, text};
use crate::kube::{Outcome, Trouble};

#[derive(Debug, Clone, Default)]
pub(crate) struct Look {
    /// Also columns of lower priority.
    pub(crate) wide: bool,
    pub(crate) headers: bool,
    /// The namespace as the first column.
    pub(crate) namespaces: bool,
    /// The kind before the name.
    pub(crate) kinds: bool,
    pub(crate) labels: bool,
    pub(crate) label_columns: Vec<String>,
}

/// Tables of several kinds, one below the other; those of one kind in one.
pub(crate) struct Tables {
    look: Look,
    groups: Vec<(Kind, String)>,
}

impl Tables {
    pub(crate) fn new(look: Look) -> Self {
        Self { look, groups: Vec::new() }
    }

    pub(crate) fn add(&mut self, kind: &Kind, table: &Value) -> Outcome<()> {
        let mut printer = Printer::new(self.look.clone(), kind);
        match self.groups.last_mut().filter(|(last, _)| last == kind) {
            // One head for all.
            Some((_, text)) if !text.is_empty() => {
                printer.columns(table);
                printer.headed = true;
                text.push_str(&printer.rows(table)?);
            }
            Some((_, text)) => text.push_str(&printer.rows(table)?),
            None => self.groups.push((kind.clone(), printer.rows(table)?)),
        }
        Ok(())
    }

    pub(crate) fn print(&self, out: &mut String) {
        for (_, text) in self.groups.iter().filter(|(_, text)| !text.is_empty()) {
            if !out.is_empty() && self.look.headers {
                out.push('\n');
            }
            out.push_str(&Columns::table().render(text));
        }
    }
}

/// Rows with tabs between cells, of one kind.
pub(crate) struct Printer {
    look: Look,
    prefix: String,
    definitions: Vec<Value>,
    headed: bool,
}

impl Printer {
    pub(crate) fn new(look: Look, kind: &Kind) -> Self {
        let prefix = if look.kinds { format!("{}/", kind.said()) } else { String::new() };
        // Kinds without namespaces have no such column.
        let look = Look { namespaces: look.namespaces && kind.namespaced, ..look };
        Self { look, prefix, definitions: Vec::new(), headed: false }
    }

    /// In a watch only the first table has them.
    fn columns(&mut self, table: &Value) {
        let definitions = items(table, "columnDefinitions");
        if !definitions.is_empty() {
            self.definitions = definitions.to_vec();
        }
    }

    pub(crate) fn rows(&mut self, table: &Value) -> Outcome<String> {
        if table["kind"] != "Table" {
            return Err(Trouble::Text("the server's answer is no table".to_owned()));
        }
        self.columns(table);
        let rows = items(table, "rows");
        let mut out = String::new();
        if rows.is_empty() {
            return Ok(out);
        }
        if self.look.headers && !self.headed {
            self.headed = true;
            out.push_str(&self.header());
        }
        for row in rows {
            out.push_str(&self.row(row));
        }
        Ok(out)
    }

    fn shown(&self) -> impl Iterator<Item = (usize, &Value)> {
        let wide = self.look.wide;
        self.definitions
            .iter()
            .enumerate()
            .filter(move |(_, column)| wide || column["priority"].as_i64().unwrap_or(0) == 0)
    }

    fn header(&self) -> String {
        let mut cells: Vec<String> = Vec::new();
        cells.extend(self.look.namespaces.then(|| "NAMESPACE".to_owned()));
        cells.extend(self.shown().map(|(_, column)| text(column, "name").to_uppercase()));
        cells.extend(label_headers(&self.look.label_columns));
        cells.extend(self.look.labels.then(|| "LABELS".to_owned()));
        format!("{}\n", cells.join("\t"))
    }

    fn row(&self, row: &Value) -> String {
        let object = &row["object"];
        let mut cells: Vec<String> = Vec::new();
        cells.extend(self.look.namespaces.then(|| value::namespace(object).to_owned()));
        for (place, (index, _)) in self.shown().enumerate() {
            let cell = cell(&row["cells"][index]);
            cells.push(if place == 0 { format!("{}{cell}", self.prefix) } else { cell });
        }
        let labels: HashMap<&str, &Value> = value::members(object, "metadata.labels").into_iter().collect();
        for name in &self.look.label_columns {
            cells.push(labels.get(name.as_str()).and_then(|value| value.as_str()).unwrap_or("<none>").to_owned());
        }
        if self.look.labels {
            let pairs = value::members(object, "metadata.labels");
            let pairs: Vec<String> =
                pairs.into_iter().map(|(name, value)| format!("{name}={}", value::scalar(value))).collect();
            cells.push(if pairs.is_empty() { "<none>".to_owned() } else { pairs.join(",") });
        }
        format!("{}\n", cells.join("\t"))
    }
}

/// The last part of a label's name.
fn label_headers(labels: &[String]) -> Vec<String> {
    labels.iter().map(|label| label.rsplit('/').next().unwrap_or(label).to_uppercase()).collect()
}

/// A cell is one line; more of it is shown as `...`. Control characters would move the cursor.
fn cell(value: &Value) -> String {
    let text = match value {
        Value::Null => return String::new(),
        other => value::scalar(other),
    };
    let shown = text.find(['\n', '\r', '\u{c}']).map_or(text.clone(), |at| format!("{}...", &text[..at]));
    shown.replace('\u{1b}', "^[").replace('\t', " ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pods() -> Kind {
        Kind { kind: "Pod".into(), plural: "pods".into(), namespaced: true, ..Kind::default() }
    }

    fn table() -> Value {
        json!({"kind": "Table",
        "columnDefinitions": [{"name": "Name", "priority": 0}, {"name": "Ready", "priority": 0}, {"name": "IP", "priority": 1}],
        "rows": [
            {"cells": ["web", "1/1", "10.0.0.1"], "object": {"metadata": {"namespace": "a", "labels": {"x/app": "web", "b": "1"}}}},
            {"cells": ["long-name", "0/1", null], "object": {"metadata": {"namespace": "b"}}},
        ]})
    }

    fn print(look: Look) -> String {
        let mut tables = Tables::new(look);
        tables.add(&pods(), &table()).expect("a table");
        let mut out = String::new();
        tables.print(&mut out);
        out
    }

    #[test]
    fn columns_are_kubectls() {
        let look = Look { headers: true, ..Look::default() };
        assert_eq!(print(look.clone()), "NAME        READY\nweb         1/1\nlong-name   0/1\n");
        let wide = Look { wide: true, namespaces: true, ..look.clone() };
        assert_eq!(
            print(wide),
            "NAMESPACE   NAME        READY   IP\na           web         1/1     10.0.0.1\nb           long-name   0/1     \n"
        );
        let labels = Look { labels: true, label_columns: vec!["x/app".into()], kinds: true, ..look };
        assert_eq!(
            print(labels),
            "NAME            READY   APP      LABELS\npod/web         1/1     web      b=1,x/app=web\n\
             pod/long-name   0/1     <none>   <none>\n"
        );
    }

    #[test]
    fn a_cell_is_one_line() {
        assert_eq!(cell(&json!("a\nb")), "a...");
        assert_eq!(cell(&json!(3)), "3");
    }
}
