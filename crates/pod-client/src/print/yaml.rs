//! YAML as kubectl's `-o yaml` writes it (go-yaml v2): sorted keys, lists not indented, texts quoted only where they would be
//! read as something else, lines broken behind column 80.

use std::cmp::Ordering;

use serde_json::Value;

/// Lines break at the first blank behind this column.
const WIDTH: usize = 80;

/// One document, with its last newline.
pub fn write(value: &Value) -> String {
    let mut writer = Writer { out: String::new(), column: 0 };
    writer.value(value, 0, Place::Top);
    writer.push("\n");
    writer.out
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Top,
    /// Behind `key:`
    Member,
    /// Behind `-`
    Item,
}

struct Writer {
    out: String,
    column: usize,
}

impl Writer {
    fn push(&mut self, text: &str) {
        self.out.push_str(text);
        self.column = match text.rfind('\n') {
            Some(at) => text[at + 1..].chars().count(),
            None => self.column + text.chars().count(),
        };
    }

    fn line(&mut self, indent: usize) {
        let blanks = " ".repeat(indent);
        self.push("\n");
        self.push(&blanks);
    }

    fn value(&mut self, value: &Value, indent: usize, place: Place) {
        match value {
            Value::Object(members) if !members.is_empty() => {
                let mut members: Vec<_> = members.iter().collect();
                members.sort_by(|(a, _), (b, _)| natural(a, b));
                for (index, (name, value)) in members.into_iter().enumerate() {
                    match (index, place) {
                        (0, Place::Top) => {}
                        (0, Place::Item) => self.push(" "),
                        _ => self.line(indent),
                    }
                    // A text with line ends, or a long one, would need `? key`; no field of an object is that.
                    self.text(name, indent, true);
                    self.push(":");
                    let inner = if value.is_array() { indent } else { indent + 2 };
                    self.value(value, inner, Place::Member);
                }
            }
            Value::Array(items) if !items.is_empty() => {
                for (index, value) in items.iter().enumerate() {
                    match (index, place) {
                        (0, Place::Top) => {}
                        (0, Place::Item) => self.push(" "),
                        _ => self.line(indent),
                    }
                    self.push("-");
                    self.value(value, indent + 2, Place::Item);
                }
            }
            scalar => {
                if place != Place::Top {
                    self.push(" ");
                }
                match scalar {
                    Value::Object(_) => self.push("{}"),
                    Value::Array(_) => self.push("[]"),
                    Value::String(text) => self.text(text, indent, false),
                    other => self.push(&other.to_string()),
                }
            }
        }
    }

    /// `indent` is where a broken line goes on.
    fn text(&mut self, text: &str, indent: usize, key: bool) {
        let shape = Shape::of(text);
        if text.contains('\n') && !key && shape.block {
            return self.literal(text, indent);
        }
        let double = is_other(text) || text.contains('\n');
        if !double && shape.plain {
            self.broken(text, indent, !key);
        } else if !double && shape.single {
            self.push("'");
            self.broken(&text.replace('\'', "''"), indent, !key);
            self.push("'");
        } else {
            self.double(text, indent, !key);
        }
    }

    fn literal(&mut self, text: &str, indent: usize) {
        let hint = if text.starts_with([' ', '\n']) { "2" } else { "" };
        let chomp = match (text.ends_with('\n'), text.ends_with("\n\n") || text == "\n") {
            (false, _) => "-",
            (true, false) => "",
            (true, true) => "+",
        };
        self.push(&format!("|{hint}{chomp}"));
        let body = text.strip_suffix('\n').unwrap_or(text);
        for line in body.split('\n') {
            match line {
                "" => self.push("\n"),
                line => {
                    self.line(indent);
                    self.push(line);
                }
            }
        }
    }

    fn broken(&mut self, text: &str, indent: usize, may_break: bool) {
        let mut blank_before = false;
        let mut characters = text.chars().enumerate().peekable();
        let last = text.chars().count().saturating_sub(1);
        while let Some((index, character)) = characters.next() {
            let next_is_blank = characters.peek().is_some_and(|(_, next)| *next == ' ');
            let inside = index > 0 && index < last;
            if character == ' ' && may_break && !blank_before && self.column > WIDTH && inside && !next_is_blank {
                self.line(indent);
            } else {
                self.push(character.encode_utf8(&mut [0; 4]));
            }
            blank_before = character == ' ';
        }
    }

    fn double(&mut self, text: &str, indent: usize, may_break: bool) {
        self.push("\"");
        let mut blank_before = false;
        let last = text.chars().count().saturating_sub(1);
        let mut characters = text.chars().enumerate().peekable();
        while let Some((index, character)) = characters.next() {
            let mut blank = false;
            match character {
                '"' => self.push("\\\""),
                '\\' => self.push("\\\\"),
                '\0' => self.push("\\0"),
                '\u{7}' => self.push("\\a"),
                '\u{8}' => self.push("\\b"),
                '\t' => self.push("\\t"),
                '\n' => self.push("\\n"),
                '\u{b}' => self.push("\\v"),
                '\u{c}' => self.push("\\f"),
                '\r' => self.push("\\r"),
                '\u{1b}' => self.push("\\e"),
                '\u{85}' => self.push("\\N"),
                '\u{2028}' => self.push("\\L"),
                '\u{2029}' => self.push("\\P"),
                ' ' => {
                    let next_is_blank = characters.peek().is_some_and(|(_, next)| *next == ' ');
                    if may_break && !blank_before && self.column > WIDTH && index > 0 && index < last {
                        self.line(indent);
                        if next_is_blank {
                            self.push("\\");
                        }
                    } else {
                        self.push(" ");
                    }
                    blank = true;
                }
                character if is_printable(character) => self.push(character.encode_utf8(&mut [0; 4])),
                character => {
                    let code = u32::from(character);
                    match code {
                        ..=0xff => self.push(&format!("\\x{code:02X}")),
                        0x100..=0xffff => self.push(&format!("\\u{code:04X}")),
                        _ => self.push(&format!("\\U{code:08X}")),
                    }
                }
            }
            blank_before = blank;
        }
        self.push("\"");
    }
}

fn is_printable(character: char) -> bool {
    matches!(character, '\n' | ' '..='~' | '\u{a0}'..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..='\u{10ffff}')
        && character != '\u{feff}'
}

/// The ways a text may be written in.
struct Shape {
    plain: bool,
    single: bool,
    block: bool,
}

impl Shape {
    fn of(text: &str) -> Shape {
        let characters: Vec<char> = text.chars().collect();
        let blank_after = |index: usize| characters.get(index + 1).is_none_or(|next| matches!(next, ' ' | '\t' | '\n'));
        let mut indicator = text.starts_with("---") || text.starts_with("...");
        let (mut special, mut blank_then_break, mut break_then_blank) = (false, false, false);
        for (index, &character) in characters.iter().enumerate() {
            indicator |= match character {
                '#' | ',' | '[' | ']' | '{' | '}' | '&' | '*' | '!' | '|' | '>' | '\'' | '"' | '%' | '@' | '`'
                    if index == 0 =>
                {
                    true
                }
                '?' | '-' if index == 0 => blank_after(0),
                ':' => blank_after(index),
                '#' => matches!(characters[index - 1], ' ' | '\t' | '\n'),
                _ => false,
            };
            special |= !is_printable(character);
            let next = characters.get(index + 1);
            blank_then_break |= character == ' ' && next == Some(&'\n');
            break_then_blank |= character == '\n' && next == Some(&' ');
        }
        let blank_at_end = text.ends_with(' ');
        let edges = blank_at_end || text.starts_with([' ', '\n']) || text.ends_with('\n');
        let breaks = text.contains('\n');
        Shape {
            plain: !(indicator || special || edges || breaks || text.is_empty()),
            single: !(special || blank_then_break || break_then_blank),
            block: !(special || blank_then_break || blank_at_end),
        }
    }
}

/// Whether a plain text would be read as something that is no text.
fn is_other(text: &str) -> bool {
    const WORDS: [&str; 31] = [
        "", "~", "null", "Null", "NULL", "y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON", "n",
        "N", "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF", "<<", ".nan", ".NaN", ".NAN",
    ];
    if WORDS.contains(&text) {
        return true;
    }
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    matches!(unsigned, ".inf" | ".Inf" | ".INF") || is_number(unsigned) || is_base_60(unsigned) || is_time(text)
}

fn is_number(unsigned: &str) -> bool {
    let plain = unsigned.replace('_', "");
    let digits = |text: &str, radix: u32| !text.is_empty() && text.chars().all(|digit| digit.is_digit(radix));
    let prefixed = |prefixes: [&str; 2], radix| {
        prefixes.iter().any(|prefix| plain.strip_prefix(prefix).is_some_and(|rest| digits(rest, radix)))
    };
    if !unsigned.starts_with(|first: char| first.is_ascii_digit() || first == '.') {
        return false;
    }
    if prefixed(["0x", "0X"], 16) || prefixed(["0b", "0B"], 2) || prefixed(["0o", "0O"], 8) {
        return true;
    }
    let (mantissa, exponent) = match plain.find(['e', 'E']) {
        Some(at) => (&plain[..at], Some(&plain[at + 1..])),
        None => (plain.as_str(), None),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let number = match whole.is_empty() {
        true => digits(fraction, 10),
        false => digits(whole, 10) && (fraction.is_empty() || digits(fraction, 10)),
    };
    let exponent = exponent.map(|text| text.strip_prefix(['+', '-']).unwrap_or(text));
    number && exponent.is_none_or(|text| digits(text, 10))
}

/// YAML 1.1's `1:30:00`, which old readers take for a number.
fn is_base_60(unsigned: &str) -> bool {
    let mut parts = unsigned.split(':');
    let first = parts.next().unwrap_or_default();
    if !first.starts_with(|digit: char| digit.is_ascii_digit())
        || !first.chars().all(|digit| digit.is_ascii_digit() || digit == '_')
    {
        return false;
    }
    let rest: Vec<&str> = parts.collect();
    let fits = |(index, part): (usize, &&str)| {
        let whole = match part.split_once('.') {
            Some((whole, fraction)) if index + 1 == rest.len() => {
                if !fraction.chars().all(|digit| digit.is_ascii_digit() || digit == '_') {
                    return false;
                }
                whole
            }
            _ => part,
        };
        matches!(whole.as_bytes(), [b'0'..=b'9'] | [b'0'..=b'5', b'0'..=b'9'])
    };
    !rest.is_empty() && rest.iter().enumerate().all(fits)
}

/// `2001-12-14`, alone or with a time of day: a time, for go-yaml.
fn is_time(text: &str) -> bool {
    let (date, time) = match text.find(['T', 't', ' ']) {
        Some(at) => (&text[..at], Some(&text[at + 1..])),
        None => (text, None),
    };
    let digits =
        |text: &str, most: usize| (1..=most).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    let mut parts = date.split('-');
    let (Some(year), Some(month), Some(day), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
        return false;
    };
    if year.len() != 4 || !digits(year, 4) || !digits(month, 2) || !digits(day, 2) {
        return false;
    }
    let Some(time) = time else { return true };
    let clock: String =
        time.chars().take_while(|character| character.is_ascii_digit() || matches!(character, ':' | '.')).collect();
    let zone = time[clock.len()..].trim_start();
    let zone_fits = matches!(zone, "" | "Z")
        || zone.strip_prefix(['+', '-']).is_some_and(|zone| zone.split(':').all(|part| digits(part, 2)));
    let clock = clock.split_once('.').map_or(clock.as_str(), |(clock, _)| clock);
    clock.split(':').count() == 3 && clock.split(':').all(|part| digits(part, 2)) && zone_fits
}

/// The order of keys: letters after everything else, numbers by their value.
fn natural(a: &str, b: &str) -> Ordering {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut digits = false;
    for index in 0..a.len().min(b.len()) {
        let (x, y) = (a[index], b[index]);
        if x == y {
            digits = x.is_numeric();
            continue;
        }
        return match (x.is_alphabetic(), y.is_alphabetic()) {
            (true, true) => x.cmp(&y),
            (true, false) => {
                if digits {
                    Ordering::Less
                } else {
                    Ordering::Greater
                }
            }
            (false, true) => {
                if digits {
                    Ordering::Greater
                } else {
                    Ordering::Less
                }
            }
            (false, false) => numbers(&a, &b, index),
        };
    }
    a.len().cmp(&b.len())
}

fn numbers(a: &[char], b: &[char], index: usize) -> Ordering {
    let number = |text: &[char]| {
        let digits: String = text[index..].iter().take_while(|digit| digit.is_ascii_digit()).collect();
        // Behind digits that are the same a 0 counts for more than nothing.
        let lead = text[..index].iter().rev().take_while(|digit| digit.is_ascii_digit()).any(|digit| *digit != '0');
        let lead = lead && (a[index] == '0' || b[index] == '0');
        let value = format!("{}{digits}", if lead { "1" } else { "" }).parse::<u128>().unwrap_or(0);
        (value, digits.len())
    };
    number(a).cmp(&number(b)).then(a[index].cmp(&b[index]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn documents_read_as_kubectls() {
        let value = json!({
            "kind": "Pod", "spec": {"containers": [{"name": "a", "args": ["x", "y: z", "-"], "env": []}], "x": {}},
            "nested": [[1, 2], {"b": null, "a": true}],
        });
        let expected = "\
kind: Pod
nested:
- - 1
  - 2
- a: true
  b: null
spec:
  containers:
  - args:
    - x
    - 'y: z'
    - '-'
    env: []
    name: a
  x: {}
";
        assert_eq!(write(&value), expected);
    }

    #[test]
    fn texts_are_quoted_where_they_must_be() {
        for (text, expected) in [
            ("plain text", "plain text"),
            ("", "\"\""),
            ("true", "\"true\""),
            ("y", "\"y\""),
            ("12", "\"12\""),
            ("1.5e3", "\"1.5e3\""),
            ("0x1f", "\"0x1f\""),
            ("1:30", "\"1:30\""),
            ("127.0.0.1", "127.0.0.1"),
            ("2026-01-01T00:00:00Z", "\"2026-01-01T00:00:00Z\""),
            ("2026-01-01", "\"2026-01-01\""),
            ("64Mi", "64Mi"),
            ("a: b", "'a: b'"),
            ("it's: b", "'it''s: b'"),
            ("*x", "'*x'"),
            ("a #b", "'a #b'"),
            ("a#b", "a#b"),
            (" a", "' a'"),
            ("a\tb", "\"a\\tb\""),
            ("{a}", "'{a}'"),
            ("a,b [c]", "a,b [c]"),
            ("ü", "ü"),
            ("\u{7f}", "\"\\x7F\""),
        ] {
            assert_eq!(write(&json!(text)), format!("{expected}\n"), "{text:?}");
        }
    }

    #[test]
    fn lines_are_kept_or_broken() {
        assert_eq!(write(&json!({"a": "x\ny\n"})), "a: |\n  x\n  y\n");
        assert_eq!(write(&json!({"a": "x\n\ny"})), "a: |-\n  x\n\n  y\n");
        assert_eq!(write(&json!({"a": "x\n\n"})), "a: |+\n  x\n\n");
        assert_eq!(write(&json!({"a": "  x\ny"})), "a: |2-\n    x\n  y\n");
        assert_eq!(write(&json!({"a": "x \ny"})), "a: \"x \\ny\"\n");
        let long = ["word"; 30].join(" ");
        let written = write(&json!({"message": long}));
        let lines: Vec<&str> = written.lines().collect();
        assert_eq!(lines.len(), 2, "{written}");
        assert!(lines[1].starts_with("  word"));
    }

    #[test]
    fn keys_are_in_natural_order() {
        let mut keys = vec!["b", "a10", "a9", "a", "A", ".x", "a.b", "ab"];
        keys.sort_by(|a, b| natural(a, b));
        assert_eq!(keys, [".x", "A", "a", "a.b", "a9", "a10", "ab", "b"]);
    }
}
