//! JSONPath as kubectl has it: text with expressions in braces, `{.items[*].metadata.name}`, `{range ...}{end}`.
//!
//! Understood are fields (`.a`, `['a']`), indexes, slices, unions of indexes, `*`, `..`, filters that compare with a literal or
//! ask for existence, and `@`. Everything else is refused when the template is read.

use serde_json::Value;

/// A template that was read.
#[derive(Debug, Clone, PartialEq)]
pub struct Template(Vec<Part>);

#[derive(Debug, Clone, PartialEq)]
enum Part {
    Text(String),
    Path(Vec<Step>),
    Range(Vec<Step>, Vec<Part>),
}

#[derive(Debug, Clone, PartialEq)]
enum Step {
    Root,
    Field(String),
    Every,
    Deep,
    Indexes(Vec<i64>),
    Slice(Option<i64>, Option<i64>, i64),
    Filter(Box<Filter>),
}

#[derive(Debug, Clone, PartialEq)]
struct Filter {
    left: Operand,
    /// Nothing: the left side must exist.
    compare: Option<(Operator, Operand)>,
}

#[derive(Debug, Clone, PartialEq)]
enum Operand {
    Path(Vec<Step>),
    Literal(Value),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    Equal,
    Unequal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct PathError(String);

fn error<T>(text: impl Into<String>) -> Result<T, PathError> {
    Err(PathError(text.into()))
}

impl Template {
    /// # Errors
    /// What the template has that is not understood.
    pub fn parse(text: &str) -> Result<Template, PathError> {
        let characters: Vec<char> = text.chars().collect();
        let mut at = 0;
        let parts = parts(&characters, &mut at, false)?;
        Ok(Template(parts))
    }

    /// Fields without braces and the dot before them are understood too, as `--for=jsonpath` has them.
    ///
    /// # Errors
    /// As [`Template::parse`].
    pub fn relaxed(text: &str) -> Result<Template, PathError> {
        let inner = text.strip_prefix('{').and_then(|text| text.strip_suffix('}')).unwrap_or(text);
        let inner = if inner.starts_with(['.', '[', '$']) { inner.to_owned() } else { format!(".{inner}") };
        Template::parse(&format!("{{{inner}}}"))
    }

    /// The template's text for a value. Fields that are not there print nothing.
    ///
    /// # Errors
    /// A step that does not fit the value: an index out of a list.
    pub fn print(&self, value: &Value) -> Result<String, PathError> {
        let mut out = String::new();
        print(&self.0, value, value, &mut out)?;
        Ok(out)
    }

    /// What the first path finds.
    ///
    /// # Errors
    /// As [`Template::print`].
    pub fn find<'a>(&self, value: &'a Value) -> Result<Vec<&'a Value>, PathError> {
        match self.0.first() {
            Some(Part::Path(steps)) => walk(steps, value, value),
            _ => Ok(Vec::new()),
        }
    }
}

// === reading ===

fn parts(text: &[char], at: &mut usize, inside_range: bool) -> Result<Vec<Part>, PathError> {
    let mut parts = Vec::new();
    let mut plain = String::new();
    while *at < text.len() {
        if text[*at] != '{' {
            plain.push(text[*at]);
            *at += 1;
            continue;
        }
        if !plain.is_empty() {
            parts.push(Part::Text(std::mem::take(&mut plain)));
        }
        let inner = braces(text, at)?;
        let inner = inner.trim();
        if inner == "end" {
            return match inside_range {
                true => Ok(parts),
                false => error("not in range, nothing to end"),
            };
        }
        if let Some(path) = inner.strip_prefix("range ") {
            let steps = steps(path.trim())?;
            parts.push(Part::Range(steps, self::parts(text, at, true)?));
        } else if inner.starts_with(['"', '\'']) {
            parts.push(Part::Text(quoted(inner)?));
        } else {
            parts.push(Part::Path(steps(inner)?));
        }
    }
    if inside_range {
        return error("unterminated range: {end} is missing");
    }
    if !plain.is_empty() {
        parts.push(Part::Text(plain));
    }
    Ok(parts)
}

/// What stands between a brace and its end; `at` is behind it then.
fn braces(text: &[char], at: &mut usize) -> Result<String, PathError> {
    let mut inner = String::new();
    let mut quote = None;
    *at += 1;
    while *at < text.len() {
        let character = text[*at];
        *at += 1;
        match (quote, character) {
            (None, '}') => return Ok(inner),
            (None, '"' | '\'') => quote = Some(character),
            (Some(open), _) if character == open => quote = None,
            (Some(_), '\\') if *at < text.len() => {
                inner.push(character);
                inner.push(text[*at]);
                *at += 1;
                continue;
            }
            _ => {}
        }
        inner.push(character);
    }
    error("unclosed action")
}

fn quoted(text: &str) -> Result<String, PathError> {
    let mut characters = text.chars();
    let open = characters.next().unwrap_or('"');
    let mut out = String::new();
    while let Some(character) = characters.next() {
        match character {
            '\\' => out.push(match characters.next() {
                Some('n') => '\n',
                Some('t') => '\t',
                Some('r') => '\r',
                Some(other) => other,
                None => break,
            }),
            character if character == open => {
                return if characters.next().is_none() {
                    Ok(out)
                } else {
                    error(format!("unexpected text after {text}"))
                };
            }
            character => out.push(character),
        }
    }
    error(format!("unterminated quoted string: {text}"))
}

fn steps(text: &str) -> Result<Vec<Step>, PathError> {
    let characters: Vec<char> = text.chars().collect();
    let mut steps = Vec::new();
    let mut at = 0;
    while at < characters.len() {
        match characters[at] {
            '$' if at == 0 => {
                steps.push(Step::Root);
                at += 1;
            }
            '@' if at == 0 => at += 1,
            '.' if characters.get(at + 1) == Some(&'.') => {
                steps.push(Step::Deep);
                at += 1;
                // `..name`: the second dot begins the field; `..[0]`: it does not.
                if characters.get(at + 1) == Some(&'[') {
                    at += 1;
                }
            }
            '.' => {
                at += 1;
                let name = name(&characters, &mut at);
                match name.as_str() {
                    "" if at == characters.len() || characters[at] == '[' => {}
                    "" => return error(format!("unrecognized character in path: {:?}", characters[at])),
                    "*" => steps.push(Step::Every),
                    _ => steps.push(Step::Field(name)),
                }
            }
            '[' => {
                let inner = brackets(&characters, &mut at)?;
                steps.push(bracket(inner.trim())?);
            }
            other if at == 0 && (other.is_alphabetic() || other == '_') => {
                return error(format!("unrecognized identifier {}", name(&characters, &mut at)));
            }
            other => return error(format!("unrecognized character in action: U+{:04X} '{other}'", u32::from(other))),
        }
    }
    Ok(steps)
}

fn name(characters: &[char], at: &mut usize) -> String {
    let mut name = String::new();
    while let Some(&character) = characters.get(*at) {
        match character {
            '\\' if *at + 1 < characters.len() => {
                name.push(characters[*at + 1]);
                *at += 2;
            }
            '.' | '[' | ']' | ' ' | '}' | '{' | '|' | '(' | ')' | '=' | '!' | '<' | '>' | '@' | '$' | ',' | '\''
            | '"' => break,
            character => {
                name.push(character);
                *at += 1;
            }
        }
    }
    name
}

fn brackets(characters: &[char], at: &mut usize) -> Result<String, PathError> {
    let start = *at + 1;
    let (mut depth, mut quote) = (0, None);
    while let Some(&character) = characters.get(*at) {
        *at += 1;
        match (quote, character) {
            (None, '[') => depth += 1,
            (None, ']') => {
                depth -= 1;
                if depth == 0 {
                    return Ok(characters[start..*at - 1].iter().collect());
                }
            }
            (None, '"' | '\'') => quote = Some(character),
            (Some(open), _) if open == character => quote = None,
            _ => {}
        }
    }
    error("unterminated array")
}

fn bracket(inner: &str) -> Result<Step, PathError> {
    if inner == "*" {
        return Ok(Step::Every);
    }
    if let Some(filter) = inner.strip_prefix("?(").and_then(|text| text.strip_suffix(')')) {
        return Ok(Step::Filter(Box::new(filter_of(filter.trim())?)));
    }
    if inner.starts_with(['"', '\'']) {
        return Ok(Step::Field(quoted(inner)?));
    }
    let number = |text: &str| match text.trim() {
        "" => Ok(None),
        text => text.parse::<i64>().map(Some).map_err(|_| PathError(format!("invalid array index {inner}"))),
    };
    if inner.contains(':') {
        let parts = inner.split(':').map(number).collect::<Result<Vec<_>, _>>()?;
        let step = parts.get(2).copied().flatten().unwrap_or(1);
        if parts.len() > 3 || step <= 0 {
            return error(format!("invalid array index {inner}"));
        }
        return Ok(Step::Slice(parts[0], parts[1], step));
    }
    let indexes = inner.split(',').map(number).collect::<Result<Option<Vec<_>>, _>>()?;
    indexes.map(Step::Indexes).ok_or_else(|| PathError(format!("invalid array index {inner}")))
}

fn filter_of(text: &str) -> Result<Filter, PathError> {
    const OPERATORS: [(&str, Operator); 6] = [
        ("==", Operator::Equal),
        ("!=", Operator::Unequal),
        ("<=", Operator::LessOrEqual),
        (">=", Operator::GreaterOrEqual),
        ("<", Operator::Less),
        (">", Operator::Greater),
    ];
    if text.contains("&&") || text.contains("||") || text.contains("=~") {
        return error(format!("filter \"{text}\": only one comparison is supported"));
    }
    let found = OPERATORS.iter().filter_map(|(word, operator)| Some((text.find(word)?, word, operator)));
    let found = found.min_by_key(|(at, word, _)| (*at, usize::MAX - word.len()));
    match found {
        Some((at, word, operator)) => Ok(Filter {
            left: operand(text[..at].trim())?,
            compare: Some((*operator, operand(text[at + word.len()..].trim())?)),
        }),
        None => Ok(Filter { left: operand(text)?, compare: None }),
    }
}

fn operand(text: &str) -> Result<Operand, PathError> {
    if text.starts_with(['@', '$', '.']) {
        return Ok(Operand::Path(steps(text)?));
    }
    if text.starts_with(['"', '\'']) {
        return Ok(Operand::Literal(Value::String(quoted(text)?)));
    }
    serde_json::from_str(text).map(Operand::Literal).map_err(|_| PathError(format!("unrecognized identifier {text}")))
}

// === finding ===

fn walk<'a>(steps: &[Step], root: &'a Value, value: &'a Value) -> Result<Vec<&'a Value>, PathError> {
    let mut found = vec![value];
    for step in steps {
        let mut next = Vec::new();
        for value in found {
            one(step, root, value, &mut next)?;
        }
        found = next;
    }
    Ok(found)
}

fn one<'a>(step: &Step, root: &'a Value, value: &'a Value, out: &mut Vec<&'a Value>) -> Result<(), PathError> {
    match step {
        Step::Root => out.push(root),
        Step::Field(name) => out.extend(value.as_object().and_then(|members| members.get(name))),
        Step::Every => match value {
            Value::Array(items) => out.extend(items),
            Value::Object(members) => out.extend(members.values()),
            _ => {}
        },
        Step::Deep => deep(value, out),
        Step::Indexes(indexes) => {
            let Value::Array(items) = value else {
                return error(format!("{} is not array or slice", shape(value)));
            };
            for &index in indexes {
                let place = if index < 0 { index + length(items) } else { index };
                let item = usize::try_from(place).ok().and_then(|place| items.get(place));
                match item {
                    Some(item) => out.push(item),
                    None => return error(format!("array index out of bounds: index {index}, length {}", items.len())),
                }
            }
        }
        Step::Slice(from, to, step) => {
            let Value::Array(items) = value else {
                return error(format!("{} is not array or slice", shape(value)));
            };
            let place = |index: i64| if index < 0 { (index + length(items)).max(0) } else { index.min(length(items)) };
            let (from, to) = (place(from.unwrap_or(0)), place(to.unwrap_or(length(items))));
            let wanted = |index: i64| index >= from && index < to && (index - from) % step == 0;
            out.extend(items.iter().zip(0..).filter(|(_, index)| wanted(*index)).map(|(item, _)| item));
        }
        Step::Filter(filter) => {
            if let Value::Array(items) = value {
                for item in items {
                    if filter.admits(root, item)? {
                        out.push(item);
                    }
                }
            }
        }
    }
    Ok(())
}

fn length(items: &[Value]) -> i64 {
    i64::try_from(items.len()).unwrap_or(i64::MAX)
}

fn shape(value: &Value) -> &'static str {
    match value {
        Value::Object(_) => "map[string]interface {}",
        Value::Array(_) => "[]interface {}",
        Value::String(_) => "string",
        Value::Number(_) => "number",
        Value::Bool(_) => "bool",
        Value::Null => "<nil>",
    }
}

fn deep<'a>(value: &'a Value, out: &mut Vec<&'a Value>) {
    out.push(value);
    match value {
        Value::Array(items) => items.iter().for_each(|item| deep(item, out)),
        Value::Object(members) => members.values().for_each(|member| deep(member, out)),
        _ => {}
    }
}

impl Filter {
    fn admits(&self, root: &Value, item: &Value) -> Result<bool, PathError> {
        let left = self.left.values(root, item)?;
        let Some((operator, right)) = &self.compare else { return Ok(!left.is_empty()) };
        let right = right.values(root, item)?;
        let (Some(left), Some(right)) = (left.first(), right.first()) else { return Ok(false) };
        let order = match (left, right) {
            (Value::Number(left), Value::Number(right)) => left.as_f64().partial_cmp(&right.as_f64()),
            (Value::String(left), Value::String(right)) => Some(left.cmp(right)),
            (left, right) => {
                return Ok(match operator {
                    Operator::Equal => left == right,
                    Operator::Unequal => left != right,
                    _ => false,
                });
            }
        };
        let Some(order) = order else { return Ok(false) };
        Ok(match operator {
            Operator::Equal => order.is_eq(),
            Operator::Unequal => order.is_ne(),
            Operator::Less => order.is_lt(),
            Operator::LessOrEqual => order.is_le(),
            Operator::Greater => order.is_gt(),
            Operator::GreaterOrEqual => order.is_ge(),
        })
    }
}

impl Operand {
    fn values<'a>(&'a self, root: &'a Value, item: &'a Value) -> Result<Vec<&'a Value>, PathError> {
        match self {
            Operand::Literal(value) => Ok(vec![value]),
            Operand::Path(steps) => walk(steps, root, item),
        }
    }
}

fn print(parts: &[Part], root: &Value, value: &Value, out: &mut String) -> Result<(), PathError> {
    for part in parts {
        match part {
            Part::Text(text) => out.push_str(text),
            Part::Path(steps) => {
                let found = walk(steps, root, value)?;
                let texts: Vec<String> = found.into_iter().map(text).collect();
                out.push_str(&texts.join(" "));
            }
            Part::Range(steps, inner) => {
                for item in walk(steps, root, value)? {
                    print(inner, root, item, out)?;
                }
            }
        }
    }
    Ok(())
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => super::json::compact(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn object() -> Value {
        json!({"items": [
            {"name": "a", "n": 1, "labels": {"x.y/z": "1"}, "ready": true, "ips": []},
            {"name": "b", "n": 2, "labels": {}, "ready": false, "ips": ["1", "2", "3"]},
        ]})
    }

    #[test]
    fn paths_find_what_kubectls_find() {
        for (template, expected) in [
            ("{.items[*].name}", "a b"),
            ("{.items[0].name} and {.items[-1].name}", "a and b"),
            ("{range .items[*]}{.name}{\"\\t\"}{.n}{\"\\n\"}{end}", "a\t1\nb\t2\n"),
            ("{.items[?(@.name==\"b\")].n}", "2"),
            ("{.items[?(@.n>1)].name}", "b"),
            ("{.items[?(@.ready==true)].name}", "a"),
            ("{.items[?(@.labels['x.y/z'])].name}", "a"),
            ("{.items[0].labels.x\\.y/z}", "1"),
            ("{.items[0].labels['x\\.y/z']}", "1"),
            ("{..name}", "a b"),
            ("{.items[1].ips[0:2]}", "1 2"),
            ("{.items[1].ips[0,2]}", "1 3"),
            ("{.items[1].ips}", "[\"1\",\"2\",\"3\"]"),
            ("{.nothing.there}", ""),
            ("{$.items[0].n}", "1"),
            ("plain", "plain"),
        ] {
            assert_eq!(
                Template::parse(template).and_then(|t| t.print(&object())).as_deref(),
                Ok(expected),
                "{template}"
            );
        }
        assert_eq!(Template::relaxed("items[0].name").and_then(|t| t.print(&object())).as_deref(), Ok("a"));
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for template in ["{.a", "{end}", "{range .a}", "{.a[x]}", "{foo}", "{.a[?(@.b==1 && @.c)]}", "{\"a}", "{.a[}"] {
            assert!(Template::parse(template).is_err(), "{template}");
        }
        assert!(Template::parse("{.items[5]}").and_then(|t| t.print(&object())).is_err());
    }
}
