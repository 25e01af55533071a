//! Enough YAML for manifests in scripts, as JSON.

use saphyr_parser::{Event, Parser, ScalarStyle};
use serde_json::{Map, Value};

pub(crate) fn parse(text: &str) -> Value {
    let mut events = Parser::new_from_str(text).map(|event| event.expect("good YAML in a script").0);
    while let Some(event) = events.next() {
        if let Event::DocumentStart(_) = event {
            let first = events.next().expect("a document has a node");
            return node(first, &mut events);
        }
    }
    Value::Null
}

fn node<'a>(event: Event<'a>, rest: &mut impl Iterator<Item = Event<'a>>) -> Value {
    match event {
        Event::Scalar(text, ScalarStyle::Plain, ..) => plain(&text),
        Event::Scalar(text, ..) => Value::String(text.into_owned()),
        Event::SequenceStart(..) => {
            let mut items = Vec::new();
            loop {
                match rest.next().expect("a sequence ends") {
                    Event::SequenceEnd => return Value::Array(items),
                    item => items.push(node(item, rest)),
                }
            }
        }
        Event::MappingStart(..) => {
            let mut map = Map::new();
            loop {
                match rest.next().expect("a mapping ends") {
                    Event::MappingEnd => return Value::Object(map),
                    Event::Scalar(key, ..) => {
                        let value = rest.next().expect("a key has a value");
                        map.insert(key.into_owned(), node(value, rest));
                    }
                    other => panic!("a key of a kind scripts do not use: {other:?}"),
                }
            }
        }
        other => panic!("YAML that scripts do not use: {other:?}"),
    }
}

fn plain(text: &str) -> Value {
    match text {
        "" | "~" | "null" => Value::Null,
        "true" => Value::Bool(true),
        "false" => Value::Bool(false),
        _ => text.parse::<i64>().map_or_else(|_| Value::String(text.to_owned()), Value::from),
    }
}
