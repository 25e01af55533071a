//! The outside of every document: `apiVersion`, `kind`, `metadata`, `spec`.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::decode::{Decoder, Document, Members, Problem};
use super::tree::{self, Mark, Node};

/// The API group and version of every document here.
pub const API_VERSION: &str = "outrigger.dev/v1alpha1";

crate::document! {
    /// Who the document is.
    pub struct Metadata {
        /// The name, as shown in logs.
        name: String = default("default".to_owned()),
        /// Free for the owner; not looked at.
        namespace: Option<String> = optional,
        /// Free for the owner; not looked at.
        labels: BTreeMap<String, String> = default(BTreeMap::new()),
        /// Free for the owner; not looked at.
        annotations: BTreeMap<String, String> = default(BTreeMap::new()),
    }
}

/// A document that has been read without a problem.
#[derive(Clone, Debug)]
pub struct Loaded<T> {
    pub name: String,
    pub spec: T,
}

/// Reads the one document of a text, or tells everything that is wrong with it. `check` sees what the types cannot say.
pub fn load<T: Document>(
    text: &str,
    kind: &str,
    check: impl FnOnce(&T, &mut Decoder),
) -> Result<Loaded<T>, Vec<Problem>> {
    load_with(text, kind, |_, others, decoder| others.iter().for_each(|other| refuse_kind(other, kind, decoder)), check)
}

/// As [`load`], but documents of other kinds may stand beside the one; `adopt` takes them into it.
pub fn load_with<T: Document>(
    text: &str,
    kind: &str,
    adopt: impl FnOnce(&mut Loaded<T>, &[Node], &mut Decoder),
    check: impl FnOnce(&T, &mut Decoder),
) -> Result<Loaded<T>, Vec<Problem>> {
    let at = |mark: Mark, message: String| vec![Problem { mark, path: String::new(), message }];
    let documents = tree::parse(text).map_err(|error| at(error.mark, error.message))?;
    let is_main = |document: &Node| kind_of(document).is_none_or(|found| found == kind);
    let (main, others): (Vec<Node>, Vec<Node>) = match documents.as_slice() {
        // Whatever it is, it is meant to be the one.
        [_] => (documents, Vec::new()),
        _ => documents.into_iter().partition(is_main),
    };
    let [document] = main.as_slice() else {
        let second = main.get(1).map_or(Mark { line: 1, column: 1 }, |document| document.mark);
        let message = format!("must hold exactly one document of kind {kind}, found {}", main.len());
        return Err(at(second, message));
    };
    let mut decoder = Decoder::default();
    let loaded = decode(document, kind, &mut decoder);
    match loaded {
        Some(mut loaded) if decoder.is_clean() => {
            adopt(&mut loaded, &others, &mut decoder);
            if decoder.is_clean() {
                check(&loaded.spec, &mut decoder);
            }
            if decoder.is_clean() { Ok(loaded) } else { Err(decoder.finish()) }
        }
        _ => Err(decoder.finish()),
    }
}

/// What a document says it is.
pub fn kind_of(document: &Node) -> Option<&str> {
    match &document.member("kind")?.node.data {
        tree::Data::Scalar(text, _) => Some(text),
        _ => None,
    }
}

/// Refuses a document that is not known.
pub fn refuse_kind(document: &Node, known: &str, decoder: &mut Decoder) {
    let mark = document.member("kind").map_or(document.mark, |member| member.node.mark);
    let found = kind_of(document).unwrap_or_default();
    decoder.refuse(mark, format!("documents of kind `{found}` are not understood here (known: {known})"));
}

fn decode<T: Document>(document: &Node, kind: &str, decoder: &mut Decoder) -> Option<Loaded<T>> {
    let mut members = Members::new(document, decoder)?;
    for (name, expected) in [("apiVersion", API_VERSION), ("kind", kind)] {
        match members.take::<String>(name, decoder) {
            Some(Some(found)) if found != expected => {
                let mark = document.member(name).map_or(document.mark, |member| member.node.mark);
                decoder.refuse(mark, format!("{name} must be `{expected}`, not `{found}`"));
            }
            Some(_) => {}
            None => decoder.refuse(document.mark, format!("the field `{name}` is required (`{expected}`)")),
        }
    }
    let metadata = members.take::<Metadata>("metadata", decoder);
    let spec = members.take::<T>("spec", decoder);
    members.finish(decoder);
    if spec.is_none() {
        decoder.refuse(document.mark, "the field `spec` is required");
    }
    let name = metadata.flatten().map_or_else(|| "default".to_owned(), |metadata| metadata.name);
    Some(Loaded { name, spec: spec.flatten()? })
}

/// The whole document, defaults filled in.
pub fn print<T: Document>(loaded: &Loaded<T>, kind: &str) -> Value {
    json!({
        "apiVersion": API_VERSION, "kind": kind, "metadata": { "name": loaded.name }, "spec": loaded.spec.print(),
    })
}

/// The whole document's JSON Schema.
pub fn schema<T: Document>(kind: &str) -> Value {
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "required": ["apiVersion", "kind", "spec"],
        "additionalProperties": false,
        "properties": {
            "apiVersion": { "const": API_VERSION },
            "kind": { "const": kind },
            "metadata": Metadata::schema().json(),
            "spec": T::schema().json(),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Seconds, Size};

    crate::choice! {
        /// A colour.
        enum Colour {
            /// Like blood.
            Red = "red",
            /// Like the sea.
            Blue = "blue",
        }
    }
    crate::document! {
        /// A boat.
        struct Boat {
            /// How long.
            length: Size = required,
            /// How fast it stops.
            stop_after: Seconds = default(Seconds::new(5)),
            /// Painted.
            colour: Colour = default(Colour::Blue),
            /// Who rows.
            crew: Vec<String> = default(Vec::new()),
        }
    }
    crate::one_of! {
        /// What moves.
        enum Vehicle {
            /// On water.
            Boat(Boat) = "boat",
        }
    }

    fn problems(text: &str) -> Vec<String> {
        let load = load::<Vehicle>(text, "Fleet", |_, _| {});
        let shown = |p: &Problem| format!("{}:{}: {p}", p.mark.line, p.mark.column);
        load.err().unwrap_or_default().iter().map(shown).collect()
    }

    #[test]
    fn every_problem_at_once_with_its_place() {
        let text = "apiVersion: outrigger.dev/v1\nkind: Fleet\nspec:\n  boat:\n    lenght: 5\n    colour: green\n    crew: [yes, 1.5, ok]\n    stopAfter: 5\nmore: 1\n";
        assert_eq!(
            problems(text),
            [
                "1:13: apiVersion must be `outrigger.dev/v1alpha1`, not `outrigger.dev/v1`",
                "5:5: spec.boat: the field `length` is required",
                "5:5: spec.boat: unknown field `lenght` (did you mean `length`?)",
                "6:13: spec.boat.colour: must be one of red, blue",
                "7:12: spec.boat.crew[0]: must be text: write \"yes\" in quotes",
                "7:17: spec.boat.crew[1]: must be text: write \"1.5\" in quotes",
                "8:16: spec.boat.stopAfter: must be a duration like 500ms, 5s or 1m30s, not `5`",
                "9:1: unknown field `more` (known here: apiVersion, kind, metadata, spec)",
            ]
        );
        assert_eq!(problems("a: 1\n---\nb: 2\n"), ["3:1: must hold exactly one document of kind Fleet, found 2"]);
        assert_eq!(problems(""), ["1:1: must hold exactly one document of kind Fleet, found 0"]);
    }

    #[test]
    fn what_is_printed_loads_again() {
        let text =
            "apiVersion: outrigger.dev/v1alpha1\nkind: Fleet\nspec: {boat: {length: 64Ki, crew: [\"007\", Ann]}}\n";
        let loaded = load::<Vehicle>(text, "Fleet", |_, _| {}).unwrap();
        let printed = crate::config::print::yaml(&print(&loaded, "Fleet"));
        assert!(printed.contains("stopAfter: 5s") || printed.contains("stopAfter: \"5s\""), "{printed}");
        let again = load::<Vehicle>(&printed, "Fleet", |_, _| {}).unwrap();
        assert_eq!(loaded.spec, again.spec);
        assert_eq!(schema::<Vehicle>("Fleet")["properties"]["spec"]["maxProperties"], 1);
        assert!(Vehicle::schema().reference().contains("| `length` |"));
    }
}
