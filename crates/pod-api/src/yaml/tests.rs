use serde_json::{Value, json};

use super::{Mark, parse};
use crate::path::Path;

fn values(text: &str) -> Vec<Value> {
    let (documents, error) = parse(text);
    assert_eq!(error, None, "{text}");
    documents.iter().map(|document| document.root.to_value()).collect()
}

fn error(text: &str) -> String {
    let (_, error) = parse(text);
    let error = error.expect("a text that cannot be read");
    format!("{}:{}: {}", error.mark.line, error.mark.column, error.message)
}

#[test]
fn documents_are_split_and_empty_ones_skipped() {
    let text = "---\n# nothing\n---\na: 1\n---\n...\n---\n~\n---\n- x\n- 'y'\n";
    assert_eq!(values(text), [json!({"a": 1}), json!(["x", "y"])]);
    assert_eq!(values(""), Vec::<Value>::new());
    assert_eq!(values("\u{feff}a: b"), [json!({"a": "b"})]);
}

#[test]
fn quoted_and_tagged_scalars_are_what_they_say() {
    assert_eq!(
        values("a: 'yes'\nb: \"1\"\nc: !!str 0644\nd: |\n  12\ne: !!int 7\nf: !!float 7\n"),
        [json!({"a": "yes", "b": "1", "c": "0644", "d": "12\n", "e": 7, "f": 7})]
    );
    assert_eq!(error("a: !!int x"), "1:10: cannot decode `x` as a !!int");
    assert_eq!(error("a: !secret x"), "1:12: the tag `!secret` is not understood");
    assert_eq!(error("a: .inf"), "1:4: `.inf` is not a number JSON can hold");
}

#[test]
fn keys_become_text() {
    assert_eq!(values("1: a\ny: b\n0644: c\n1.5: d\n"), [json!({"1": "a", "true": "b", "420": "c", "1.5": "d"})]);
    assert_eq!(error("~: a"), "1:1: a key must not be null");
    assert_eq!(error("? [a]\n: b"), "1:3: a key must be a single value, not a list or a map");
}

#[test]
fn aliases_and_merge_keys_expand() {
    let text = "base: &b {x: 1, v: 2}\nmore: &m {v: 3, z: 4}\nall:\n  <<: [*b, *m]\n  x: 0\none:\n  <<: *m\ncopy: *b\n";
    let value = &values(text)[0];
    assert_eq!(value["all"], json!({"x": 0, "v": 2, "z": 4}));
    assert_eq!(value["one"], json!({"v": 3, "z": 4}));
    assert_eq!(value["copy"], json!({"x": 1, "v": 2}));
    assert_eq!(values("'<<': 1")[0], json!({"<<": 1}));
    assert_eq!(error("a:\n  <<: 1"), "2:7: map merge requires map or sequence of maps as the value");
}

#[test]
fn hostile_nesting_is_refused() {
    let mut laughs = String::from("a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol, lol]\n");
    for level in 1..10 {
        let before = level - 1;
        laughs.push_str(&format!("a{level}: &a{level} [{}]\n", vec![format!("*a{before}"); 10].join(", ")));
    }
    assert!(error(&laughs).ends_with("the aliases expand to more than 4 MiB"), "{}", error(&laughs));

    let mut ladder = String::from("a0: &a0 [x]\n");
    for level in 1..200 {
        ladder.push_str(&format!("a{level}: &a{level} [*a{}]\n", level - 1));
    }
    assert!(error(&ladder).ends_with("nested deeper than 100 levels"), "{}", error(&ladder));
    assert!(error(&"- ".repeat(300)).ends_with("nested deeper than 100 levels"));
    assert!(error("a: &a [*a]").ends_with("the alias stands inside its own anchor"));
}

#[test]
fn duplicate_keys_are_found_with_their_path() {
    let (documents, error) = parse("spec:\n  containers:\n  - name: a\n    image: b\n    name: c\n");
    assert_eq!(error, None);
    let (path, mark) = &documents[0].duplicates[0];
    assert_eq!(path.to_string(), "spec.containers[0].name");
    assert_eq!(*mark, Mark { line: 5, column: 5 });
}

#[test]
fn places_are_found_by_path() {
    let (documents, _) = parse("metadata:\n  name: x\nspec:\n  containers:\n  - image: b\n    ports:\n    - 80\n");
    let place = |path: Path| {
        let mark = documents[0].root.locate(&path, false);
        (mark.line, mark.column)
    };
    let container = Path::of("spec.containers").index(0);
    assert_eq!(place(Path::root()), (1, 1));
    assert_eq!(place(Path::of("metadata.name")), (2, 9), "a scalar at its own place");
    assert_eq!(place(Path::of("spec.containers")), (4, 3), "a list at its key");
    assert_eq!(place(container.clone()), (5, 5));
    assert_eq!(place(container.field("name")), (5, 5), "what is missing at its parent");
    assert_eq!(place(container.field("ports").index(0)), (7, 7));
    assert_eq!(place(container.field("ports").index(7).field("x")), (6, 5));
}

#[test]
fn json_is_read_also_where_it_is_not_yaml() {
    assert_eq!(values("{\n\t\"a\": \"\\ud83d\\ude00\\/\"\n}\n{\"b\": 1}"), [json!({"a": "😀/"}), json!({"b": 1})]);
    assert!(error("{\"a\": 1,, }").starts_with("1:9: "), "{}", error("{\"a\": 1,, }"));
}

#[test]
fn garbage_has_a_place() {
    assert_eq!(error("a: b\n\tc: d\n"), "2:1: found a tab in the indentation, which must be spaces");
    assert!(error("a: [1, 2\nb: 3\n").contains(':'), "{}", error("a: [1, 2\nb: 3\n"));
    assert!(error("a: \"open").starts_with("1:"), "{}", error("a: \"open"));
}
