//! Events into nodes: anchors, aliases, merge keys, duplicate keys and tags are dealt with here.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use saphyr_parser::{Event, ScalarStyle, Tag};
use serde_json::Value;

use super::{Data, Document, Mark, Member, Node, Unreadable, scalar};
use crate::path::Path;

/// Nesting allowed; no Kubernetes object comes near it, and recursive code elsewhere stays far from the stack's end.
const MAX_DEPTH: usize = 100;

/// Bytes that all aliases of one text may expand to together ("billion laughs" stops here).
const ALIAS_BUDGET: usize = 4 << 20;

/// Turns events into nodes. The stack holds the collections that are still open.
#[derive(Default)]
pub(super) struct Builder {
    pub(super) documents: Vec<Document>,
    stack: Vec<Open>,
    /// Finished anchored nodes and their weight.
    anchors: HashMap<usize, (Node, usize)>,
    duplicates: Vec<(Path, Mark)>,
    expanded: usize,
}

struct Open {
    mark: Mark,
    anchor: usize,
    inside: Inside,
}

enum Inside {
    Array(Vec<Node>),
    Object { members: Vec<Member>, names: HashSet<String>, key: Option<Key>, merged: Vec<Node> },
}

enum Key {
    /// The name, its place, and whether the mapping has it already.
    Name(String, Mark, bool),
    /// A plain `<<`.
    Merge,
}

impl Builder {
    pub(super) fn take(&mut self, event: Event<'_>, mark: Mark) -> Result<(), Unreadable> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let plain = style == ScalarStyle::Plain && tag.is_none();
                let value = scalar_value(&text, style, tag.as_deref(), mark)?;
                if self.awaits_key() {
                    if plain && text == "<<" {
                        self.merge_key();
                    } else {
                        self.key(key_name(value, mark)?, mark);
                    }
                    return Ok(());
                }
                self.put(Node { mark, data: Data::Scalar(value) }, anchor)
            }
            Event::Alias(anchor) => {
                let node = self.expand(anchor, mark)?;
                match node.data {
                    Data::Scalar(value) if self.awaits_key() => {
                        self.key(key_name(value, mark)?, mark);
                        Ok(())
                    }
                    _ => self.put(node, 0),
                }
            }
            Event::SequenceStart(anchor, tag) => {
                check_tag(tag, "seq", mark)?;
                self.open(Inside::Array(Vec::new()), anchor, mark)
            }
            Event::MappingStart(anchor, tag) => {
                check_tag(tag, "map", mark)?;
                let inside =
                    Inside::Object { members: Vec::new(), names: HashSet::new(), key: None, merged: Vec::new() };
                self.open(inside, anchor, mark)
            }
            Event::SequenceEnd | Event::MappingEnd => match self.stack.pop() {
                Some(open) => {
                    let (mark, anchor) = (open.mark, open.anchor);
                    let data = open.close()?;
                    self.put(Node { mark, data }, anchor)
                }
                None => Ok(()),
            },
            Event::DocumentEnd => {
                self.anchors.clear();
                Ok(())
            }
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentStart(_) => Ok(()),
        }
    }

    fn awaits_key(&self) -> bool {
        matches!(self.stack.last(), Some(Open { inside: Inside::Object { key: None, .. }, .. }))
    }

    fn open(&mut self, inside: Inside, anchor: usize, mark: Mark) -> Result<(), Unreadable> {
        if self.awaits_key() {
            return Err(Unreadable { mark, message: "a key must be a single value, not a list or a map".to_owned() });
        }
        if self.stack.len() >= MAX_DEPTH {
            return Err(too_deep(mark));
        }
        self.stack.push(Open { mark, anchor, inside });
        Ok(())
    }

    fn key(&mut self, name: String, mark: Mark) {
        let mut again = false;
        if let Some(Open { inside: Inside::Object { key, names, .. }, .. }) = self.stack.last_mut() {
            again = !names.insert(name.clone());
            *key = Some(Key::Name(name.clone(), mark, again));
        }
        if again {
            self.duplicates.push((self.path().field(name), mark));
        }
    }

    fn merge_key(&mut self) {
        if let Some(Open { inside: Inside::Object { key, .. }, .. }) = self.stack.last_mut() {
            *key = Some(Key::Merge);
        }
    }

    /// Where the innermost open collection is.
    fn path(&self) -> Path {
        let outer = self.stack.len().saturating_sub(1);
        self.stack[..outer].iter().fold(Path::root(), |path, open| match &open.inside {
            Inside::Array(items) => path.index(items.len()),
            Inside::Object { key: Some(Key::Name(name, ..)), .. } => path.field(name.clone()),
            Inside::Object { .. } => path.field("<<"),
        })
    }

    /// A finished node goes into the innermost open collection, or is a document.
    fn put(&mut self, node: Node, anchor: usize) -> Result<(), Unreadable> {
        if anchor != 0 {
            let weight = node.weight();
            self.anchors.insert(anchor, (node.clone(), weight));
        }
        match self.stack.last_mut().map(|open| &mut open.inside) {
            Some(Inside::Array(items)) => items.push(node),
            Some(Inside::Object { members, key, merged, .. }) => match key.take() {
                // Of a name written twice the first stays; the second is reported anyway.
                Some(Key::Name(_, _, true)) => {}
                Some(Key::Name(name, mark, false)) => members.push(Member { name, mark, node }),
                Some(Key::Merge) => merged.push(node),
                None => {
                    let message = "a key must be a single value, not a list or a map".to_owned();
                    return Err(Unreadable { mark: node.mark, message });
                }
            },
            None => {
                let duplicates = std::mem::take(&mut self.duplicates);
                if !node.is_null() {
                    self.documents.push(Document { root: node, duplicates });
                }
            }
        }
        Ok(())
    }

    fn expand(&mut self, anchor: usize, mark: Mark) -> Result<Node, Unreadable> {
        let Some((node, weight)) = self.anchors.get(&anchor) else {
            return Err(Unreadable { mark, message: "the alias stands inside its own anchor".to_owned() });
        };
        self.expanded = self.expanded.saturating_add(*weight);
        if self.expanded > ALIAS_BUDGET {
            let message = format!("the aliases expand to more than {} MiB", ALIAS_BUDGET >> 20);
            return Err(Unreadable { mark, message });
        }
        if self.stack.len() + node.height() > MAX_DEPTH {
            return Err(too_deep(mark));
        }
        Ok(node.clone())
    }
}

impl Open {
    fn close(self) -> Result<Data, Unreadable> {
        match self.inside {
            Inside::Array(items) => Ok(Data::Array(items)),
            Inside::Object { mut members, mut names, merged, .. } => {
                for source in merged {
                    for member in merge_members(source)? {
                        if names.insert(member.name.clone()) {
                            members.push(member);
                        }
                    }
                }
                Ok(Data::Object(members))
            }
        }
    }
}

/// The members that `<<: source` brings in: a map's, or those of a list of maps, the first having precedence.
fn merge_members(source: Node) -> Result<Vec<Member>, Unreadable> {
    let mark = source.mark;
    match source.data {
        Data::Object(members) => Ok(members),
        Data::Array(items) => {
            let mut all = Vec::new();
            for item in items {
                match item.data {
                    Data::Object(members) => all.extend(members),
                    _ => return Err(bad_merge(item.mark)),
                }
            }
            Ok(all)
        }
        Data::Scalar(_) => Err(bad_merge(mark)),
    }
}

fn bad_merge(mark: Mark) -> Unreadable {
    Unreadable { mark, message: "map merge requires map or sequence of maps as the value".to_owned() }
}

fn too_deep(mark: Mark) -> Unreadable {
    Unreadable { mark, message: format!("nested deeper than {MAX_DEPTH} levels") }
}

fn scalar_value(text: &str, style: ScalarStyle, tag: Option<&Tag>, mark: Mark) -> Result<Value, Unreadable> {
    let bad = |message: String| Unreadable { mark, message };
    let resolved = || scalar::resolve(text).ok_or_else(|| bad(format!("`{text}` is not a number JSON can hold")));
    let Some(tag) = tag else {
        return if style == ScalarStyle::Plain { resolved() } else { Ok(Value::from(text)) };
    };
    // `! text` (the "non-specific" tag) and `!!str` both say: a string, whatever it looks like.
    if tag.suffix.is_empty() || (tag.is_yaml_core_schema() && tag.suffix == "str") {
        return Ok(Value::from(text));
    }
    if !tag.is_yaml_core_schema() {
        return Err(bad(format!("the tag `{tag}` is not understood")));
    }
    let value = resolved()?;
    let fits = match tag.suffix.as_str() {
        "int" => value.is_i64() || value.is_u64(),
        "float" => value.is_number(),
        "bool" => value.is_boolean(),
        "null" => value.is_null(),
        suffix => return Err(bad(format!("the tag `!!{suffix}` is not understood"))),
    };
    if fits { Ok(value) } else { Err(bad(format!("cannot decode `{text}` as a !!{}", tag.suffix))) }
}

fn check_tag(tag: Option<Cow<'_, Tag>>, expected: &str, mark: Mark) -> Result<(), Unreadable> {
    match tag {
        Some(tag) if !tag.suffix.is_empty() && (!tag.is_yaml_core_schema() || tag.suffix != expected) => {
            Err(Unreadable { mark, message: format!("the tag `{tag}` is not understood") })
        }
        _ => Ok(()),
    }
}

/// JSON's keys are strings: `1:` and `true:` become the text of their value, as kubectl makes them.
fn key_name(value: Value, mark: Mark) -> Result<String, Unreadable> {
    match value {
        Value::String(name) => Ok(name),
        Value::Null => Err(Unreadable { mark, message: "a key must not be null".to_owned() }),
        other => Ok(other.to_string()),
    }
}
