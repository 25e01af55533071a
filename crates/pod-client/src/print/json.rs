//! JSON as Go writes it: sorted keys, and `<`, `>`, `&` escaped.

use serde_json::Value;

/// With four blanks for each level, as `-o json`.
pub fn pretty(value: &Value) -> String {
    let mut out = String::new();
    write(value, Some(0), &mut out);
    out
}

/// On one line, as in the last-applied annotation.
pub fn compact(value: &Value) -> String {
    let mut out = String::new();
    write(value, None, &mut out);
    out
}

fn write(value: &Value, level: Option<usize>, out: &mut String) {
    let inner = level.map(|level| level + 1);
    match value {
        Value::Object(members) if !members.is_empty() => {
            let mut members: Vec<_> = members.iter().collect();
            members.sort_by_key(|(name, _)| name.as_str());
            for (index, (name, value)) in members.into_iter().enumerate() {
                out.push_str(if index == 0 { "{" } else { "," });
                break_line(inner, out);
                string(name, out);
                out.push_str(if level.is_some() { ": " } else { ":" });
                write(value, inner, out);
            }
            break_line(level, out);
            out.push('}');
        }
        Value::Array(items) if !items.is_empty() => {
            for (index, value) in items.iter().enumerate() {
                out.push_str(if index == 0 { "[" } else { "," });
                break_line(inner, out);
                write(value, inner, out);
            }
            break_line(level, out);
            out.push(']');
        }
        Value::String(text) => string(text, out),
        other => out.push_str(&other.to_string()),
    }
}

fn break_line(level: Option<usize>, out: &mut String) {
    if let Some(level) = level {
        out.push('\n');
        out.extend(std::iter::repeat_n(' ', level * 4));
    }
}

fn string(text: &str, out: &mut String) {
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' | '\0'..='\u{1f}' => {
                out.push_str(&format!("\\u{:04x}", u32::from(character)));
            }
            character => out.push(character),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn go_writes_it_so() {
        let value = json!({"b": [1, {"c": "<&>\u{1}"}], "a": {}, "d": []});
        let expected = "{\n    \"a\": {},\n    \"b\": [\n        1,\n        {\n            \
                        \"c\": \"\\u003c\\u0026\\u003e\\u0001\"\n        }\n    ],\n    \"d\": []\n}";
        assert_eq!(pretty(&value), expected);
        assert_eq!(compact(&json!({"b": [1, 2], "a": null})), r#"{"a":null,"b":[1,2]}"#);
    }
}
