//! YAML as a tree in which every value knows its place. What a plain scalar means is left to the type that reads it:
//! a text field given `yes` is then a problem with a place, not a surprise.
//!
//! Input is not trusted: depth, and what aliases may expand to, are bounded.

use std::collections::HashMap;

use saphyr_parser::{Event, Parser, ScalarStyle};

/// Nesting allowed; no document of ours comes near it.
const MAX_DEPTH: usize = 64;
/// Nodes that all aliases of one text may add together ("billion laughs" stops here).
const MAX_ALIASED: usize = 10_000;

/// A place in the text; both count from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark {
    pub line: usize,
    pub column: usize,
}

#[derive(Clone, Debug)]
pub struct Node {
    pub mark: Mark,
    pub data: Data,
}

#[derive(Clone, Debug)]
pub enum Data {
    /// The text, and whether it stood there without quotes and without `|` or `>`.
    Scalar(String, bool),
    List(Vec<Node>),
    Map(Vec<Member>),
}

#[derive(Clone, Debug)]
pub struct Member {
    pub name: String,
    pub mark: Mark,
    pub node: Node,
}

/// Why a text is no tree at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    pub mark: Mark,
    pub message: String,
}

impl Node {
    /// Nothing was written here, or `~`, or `null`.
    pub fn is_null(&self) -> bool {
        matches!(&self.data, Data::Scalar(text, true) if matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL"))
    }

    pub fn member(&self, name: &str) -> Option<&Member> {
        match &self.data {
            Data::Map(members) => members.iter().find(|member| member.name == name),
            _ => None,
        }
    }

    fn count(&self) -> usize {
        1 + match &self.data {
            Data::Scalar(..) => 0,
            Data::List(items) => items.iter().map(Node::count).sum(),
            Data::Map(members) => members.iter().map(|member| member.node.count()).sum(),
        }
    }
}

/// The documents of a text that are not empty.
pub fn parse(text: &str) -> Result<Vec<Node>, Unreadable> {
    let mut builder = Builder::default();
    for event in Parser::new_from_str(text.strip_prefix('\u{feff}').unwrap_or(text)) {
        match event {
            Ok((event, span)) => {
                let mark = Mark { line: span.start.line().max(1), column: span.start.col() + 1 };
                builder.take(event, mark)?;
            }
            Err(error) => {
                let mark = Mark { line: error.marker().line().max(1), column: error.marker().col() + 1 };
                return Err(Unreadable { mark, message: error.info().to_owned() });
            }
        }
    }
    Ok(builder.documents)
}

#[derive(Default)]
struct Builder {
    documents: Vec<Node>,
    stack: Vec<Open>,
    anchors: HashMap<usize, Node>,
    aliased: usize,
}

struct Open {
    mark: Mark,
    anchor: usize,
    inside: Inside,
}

enum Inside {
    List(Vec<Node>),
    Map(Vec<Member>, Option<(String, Mark)>),
}

impl Builder {
    fn take(&mut self, event: Event<'_>, mark: Mark) -> Result<(), Unreadable> {
        let refuse = |message: &str| Err(Unreadable { mark, message: message.to_owned() });
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                if tag.is_some() {
                    return refuse("tags are not understood here");
                }
                if let Some(Open { inside: Inside::Map(members, key @ None), .. }) = self.stack.last_mut() {
                    if members.iter().any(|member| member.name == text.as_ref()) {
                        return Err(Unreadable { mark, message: format!("the key `{text}` stands here twice") });
                    }
                    *key = Some((text.into_owned(), mark));
                    return Ok(());
                }
                let plain = style == ScalarStyle::Plain;
                self.put(Node { mark, data: Data::Scalar(text.into_owned(), plain) }, anchor, mark)
            }
            Event::Alias(anchor) => {
                let Some(node) = self.anchors.get(&anchor).cloned() else {
                    return refuse("the alias stands inside its own anchor");
                };
                self.aliased += node.count();
                if self.aliased > MAX_ALIASED {
                    return refuse("the aliases expand to too much");
                }
                self.put(node, 0, mark)
            }
            Event::SequenceStart(anchor, _) => self.open(Inside::List(Vec::new()), anchor, mark),
            Event::MappingStart(anchor, _) => self.open(Inside::Map(Vec::new(), None), anchor, mark),
            Event::SequenceEnd | Event::MappingEnd => {
                let Some(open) = self.stack.pop() else { return Ok(()) };
                let data = match open.inside {
                    Inside::List(items) => Data::List(items),
                    Inside::Map(members, _) => Data::Map(members),
                };
                self.put(Node { mark: open.mark, data }, open.anchor, mark)
            }
            Event::DocumentEnd => {
                self.anchors.clear();
                Ok(())
            }
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentStart(_) => Ok(()),
        }
    }

    fn open(&mut self, inside: Inside, anchor: usize, mark: Mark) -> Result<(), Unreadable> {
        if matches!(self.stack.last(), Some(Open { inside: Inside::Map(_, None), .. })) {
            return Err(Unreadable { mark, message: "a key must be a single value".to_owned() });
        }
        if self.stack.len() >= MAX_DEPTH {
            return Err(Unreadable { mark, message: format!("nested deeper than {MAX_DEPTH} levels") });
        }
        self.stack.push(Open { mark, anchor, inside });
        Ok(())
    }

    fn put(&mut self, node: Node, anchor: usize, mark: Mark) -> Result<(), Unreadable> {
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        match self.stack.last_mut().map(|open| &mut open.inside) {
            Some(Inside::List(items)) => items.push(node),
            Some(Inside::Map(members, key)) => match key.take() {
                Some((name, mark)) => members.push(Member { name, mark, node }),
                None => return Err(Unreadable { mark, message: "a key must be a single value".to_owned() }),
            },
            None if !node.is_null() => self.documents.push(node),
            None => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_know_their_places() {
        let documents = parse("a: 1\nb:\n  - x\n  - c: \"y\"\n").unwrap();
        let list = &documents[0].member("b").unwrap().node;
        let Data::List(items) = &list.data else { panic!("no list") };
        assert_eq!(items[0].mark, Mark { line: 3, column: 5 });
        assert_eq!(items[1].member("c").unwrap().node.mark, Mark { line: 4, column: 8 });
        assert_eq!(items[1].member("c").unwrap().mark, Mark { line: 4, column: 5 });
    }

    #[test]
    fn what_is_no_tree() {
        for (text, message) in [
            ("a: 1\na: 2\n", "the key `a` stands here twice"),
            ("a: !!str 1\n", "tags are not understood here"),
            ("? [a]\n: b\n", "a key must be a single value"),
            ("&a [*a]", "the alias stands inside its own anchor"),
        ] {
            assert_eq!(parse(text).unwrap_err().message, message, "{text}");
        }
        assert!(parse(&"[".repeat(200)).is_err());
        let laughs = "a: &a [x,x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a,*a]\n\
                      c: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: [*d,*d]\n";
        assert_eq!(parse(laughs).unwrap_err().message, "the aliases expand to too much");
    }

    proptest::proptest! {
        #[test]
        fn no_text_is_too_strange(text in "[ \\-:{}\\[\\]a&*?|>\n\"'#!,0]{0,80}") {
            let _ = parse(&text);
        }
    }
}
