//! What a document may contain, as data: printed as JSON Schema and as the reference page.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

#[derive(Clone, Debug)]
pub struct Schema {
    pub shape: Shape,
}

#[derive(Clone, Debug)]
pub enum Shape {
    /// A JSON type and how a person would call it.
    Scalar(&'static str, &'static str),
    Choice(Vec<(&'static str, &'static str)>),
    /// Whatever JSON can say.
    Any,
    List(Box<Schema>),
    Map(Box<Schema>),
    Fields {
        name: &'static str,
        doc: String,
        fields: Vec<Field>,
        one_of: bool,
    },
}

#[derive(Clone, Debug)]
pub struct Field {
    pub name: String,
    pub doc: String,
    pub schema: Schema,
    pub presence: Presence,
}

#[derive(Clone, Debug)]
pub enum Presence {
    Required,
    Optional,
    Default(Value),
}

impl Schema {
    pub fn text(what: &'static str) -> Schema {
        Schema { shape: Shape::Scalar("string", what) }
    }
    pub fn scalar(kind: &'static str, what: &'static str) -> Schema {
        Schema { shape: Shape::Scalar(kind, what) }
    }
    pub fn list(item: Schema) -> Schema {
        Schema { shape: Shape::List(Box::new(item)) }
    }
    pub fn map(value: Schema) -> Schema {
        Schema { shape: Shape::Map(Box::new(value)) }
    }

    /// JSON Schema (draft 2020-12).
    pub fn json(&self) -> Value {
        match &self.shape {
            Shape::Scalar(kind, _) => json!({ "type": kind }),
            Shape::Any => json!({}),
            Shape::Choice(names) => json!({ "enum": names.iter().map(|(name, _)| *name).collect::<Vec<_>>() }),
            Shape::List(item) => json!({ "type": "array", "items": item.json() }),
            Shape::Map(value) => json!({ "type": "object", "additionalProperties": value.json() }),
            Shape::Fields { doc, fields, one_of, .. } => {
                let mut properties = Map::new();
                for field in fields {
                    let mut inner = field.schema.json();
                    inner["description"] = Value::from(field.doc.as_str());
                    if let Presence::Default(value) = &field.presence {
                        inner["default"] = value.clone();
                    }
                    properties.insert(field.name.clone(), inner);
                }
                let required: Vec<&str> = fields
                    .iter()
                    .filter(|field| matches!(field.presence, Presence::Required))
                    .map(|field| field.name.as_str())
                    .collect();
                let mut schema = json!({
                    "type": "object", "description": doc, "properties": properties, "additionalProperties": false,
                });
                if !required.is_empty() {
                    schema["required"] = json!(required);
                }
                if *one_of {
                    schema["minProperties"] = json!(1);
                    schema["maxProperties"] = json!(1);
                }
                schema
            }
        }
    }

    /// How a person would call it.
    fn called(&self) -> String {
        match &self.shape {
            Shape::Scalar(_, what) => what.trim_start_matches("a ").to_owned(),
            Shape::Choice(names) => names.iter().map(|(name, _)| format!("`{name}`")).collect::<Vec<_>>().join(" or "),
            Shape::Any => "any value".to_owned(),
            Shape::List(item) => format!("list of {}", item.called()),
            Shape::Map(value) => format!("map to {}", value.called()),
            Shape::Fields { name, .. } => format!("[{name}](#{})", name.to_lowercase()),
        }
    }

    /// Tables in Markdown, this shape's first, then those it mentions, each once.
    pub fn reference(&self) -> String {
        let mut out = String::new();
        let mut seen = Vec::new();
        let mut waiting = vec![self];
        while !waiting.is_empty() {
            match &waiting.remove(0).shape {
                Shape::List(inner) | Shape::Map(inner) => waiting.insert(0, inner),
                Shape::Fields { name, doc, fields, one_of } if !seen.contains(name) => {
                    seen.push(name);
                    table(&mut out, name, doc, fields, *one_of);
                    waiting.extend(fields.iter().map(|field| &field.schema));
                }
                _ => {}
            }
        }
        out
    }
}

fn table(out: &mut String, name: &str, doc: &str, fields: &[Field], one_of: bool) {
    let exactly = if one_of { " Exactly one of:" } else { "" };
    let _ = write!(out, "\n### {name}\n\n{doc}{exactly}\n\n| field | value | default | meaning |\n|---|---|---|---|\n");
    for field in fields {
        let default = match &field.presence {
            Presence::Required => "**required**".to_owned(),
            Presence::Optional => String::new(),
            Presence::Default(Value::String(text)) => format!("`{text}`"),
            Presence::Default(value) => format!("`{value}`"),
        };
        let mut doc = field.doc.replace('|', "\\|");
        if let Shape::Choice(names) = &field.schema.shape {
            for (name, meaning) in names {
                let _ = write!(doc, " `{name}`: {meaning}");
            }
        }
        let _ = writeln!(out, "| `{}` | {} | {default} | {} |", field.name, field.schema.called(), doc.trim());
    }
}

/// `max_line_bytes` as it stands in a document: `maxLineBytes`.
pub fn camel(name: &str) -> String {
    let mut out = String::new();
    let mut raise = false;
    for c in name.trim_start_matches("r#").chars() {
        if c == '_' {
            raise = true;
        } else if std::mem::take(&mut raise) {
            out.extend(c.to_uppercase());
        } else {
            out.push(c);
        }
    }
    out
}

/// Doc comment lines as one text.
pub fn doc(lines: &[&str]) -> String {
    lines.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ").trim().to_owned()
}
