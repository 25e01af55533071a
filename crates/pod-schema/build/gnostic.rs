//! The 2.0 document as protobuf (`openapi.v2.Document` of gnostic-models), which is what `kubectl` asks for: field numbers
//! are those of its `OpenAPIv2.proto`. Only what our document has is written; anything else stops the build.

use serde_json::{Map, Value};

#[derive(Debug, Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut number: usize) {
        while number >= 0x80 {
            self.0.push((number & 0x7f) as u8 | 0x80);
            number >>= 7;
        }
        self.0.push(number as u8);
    }

    fn bytes(&mut self, field: usize, bytes: &[u8]) {
        self.varint(field << 3 | 2);
        self.varint(bytes.len());
        self.0.extend(bytes);
    }

    fn text(&mut self, field: usize, text: &Value) {
        self.bytes(field, text.as_str().expect("a string").as_bytes());
    }

    fn texts(&mut self, field: usize, list: &Value) {
        list.as_array().expect("a list").iter().for_each(|text| self.text(field, text));
    }

    fn flag(&mut self, field: usize, flag: &Value) {
        self.varint(field << 3);
        self.varint(usize::from(flag == true));
    }

    fn message(&mut self, field: usize, message: &Message) {
        self.bytes(field, &message.0);
    }

    /// `NamedSchema` and its kin: the name, and the value unless there is none to write.
    fn named(&mut self, field: usize, name: &str, value: &Message) {
        let mut named = Message::default();
        named.bytes(1, name.as_bytes());
        named.message(2, value);
        self.message(field, &named);
    }

    /// An extension: its value as YAML, which JSON is.
    fn extension(&mut self, field: usize, name: &str, value: &Value) {
        self.named(field, name, &any(value));
    }
}

fn any(value: &Value) -> Message {
    let mut any = Message::default();
    any.bytes(2, value.to_string().as_bytes());
    any
}

fn wrapped(field: usize, inner: &Message) -> Message {
    let mut outer = Message::default();
    outer.message(field, inner);
    outer
}

fn object(value: &Value) -> &Map<String, Value> {
    value.as_object().expect("an object")
}

pub(crate) fn encode(document: &Value) -> Vec<u8> {
    let mut message = Message::default();
    message.text(1, &document["swagger"]);
    let mut info = Message::default();
    info.text(1, &document["info"]["title"]);
    info.text(2, &document["info"]["version"]);
    message.message(2, &info);
    let mut paths = Message::default();
    for (path, methods) in object(&document["paths"]) {
        paths.named(2, path, &path_item(methods));
    }
    message.message(8, &paths);
    let mut definitions = Message::default();
    for (name, definition) in object(&document["definitions"]) {
        definitions.named(1, name, &schema(definition));
    }
    message.message(9, &definitions);
    message.0
}

fn path_item(methods: &Value) -> Message {
    let mut item = Message::default();
    for (method, value) in object(methods) {
        match method.as_str() {
            "get" => item.message(2, &operation(value)),
            "put" => item.message(3, &operation(value)),
            "post" => item.message(4, &operation(value)),
            "delete" => item.message(5, &operation(value)),
            "patch" => item.message(8, &operation(value)),
            "parameters" => parameters(&mut item, 9, value),
            other => panic!("a path has {other}"),
        }
    }
    item
}

fn operation(value: &Value) -> Message {
    let mut message = Message::default();
    for (key, value) in object(value) {
        match key.as_str() {
            "tags" => message.texts(1, value),
            "operationId" => message.text(5, value),
            "produces" => message.texts(6, value),
            "consumes" => message.texts(7, value),
            "parameters" => parameters(&mut message, 8, value),
            "responses" => {
                let mut responses = Message::default();
                for (code, answer) in object(value) {
                    let mut response = Message::default();
                    response.text(1, &answer["description"]);
                    if answer["schema"].is_object() {
                        response.message(2, &wrapped(1, &schema(&answer["schema"])));
                    }
                    responses.named(1, code, &wrapped(1, &response));
                }
                message.message(9, &responses);
            }
            "schemes" => message.texts(10, value),
            name if name.starts_with("x-") => message.extension(13, name, value),
            other => panic!("an operation has {other}"),
        }
    }
    message
}

fn parameters(message: &mut Message, field: usize, list: &Value) {
    for parameter in list.as_array().expect("a list") {
        let mut inner = Message::default();
        let place = parameter["in"].as_str().expect("a parameter is somewhere");
        let parameter_of_any_kind = match place {
            "body" => {
                inner.text(2, &parameter["name"]);
                inner.text(3, &parameter["in"]);
                inner.flag(4, &parameter["required"]);
                inner.message(5, &schema(&parameter["schema"]));
                wrapped(1, &inner)
            }
            "query" | "path" => {
                // The two differ in one number: a query parameter may be empty, a path parameter not.
                let after = usize::from(place == "query");
                inner.flag(1, &parameter["required"]);
                inner.text(2, &parameter["in"]);
                inner.text(3, &parameter["description"]);
                inner.text(4, &parameter["name"]);
                inner.text(5 + after, &parameter["type"]);
                inner.flag(19 + after, &parameter["uniqueItems"]);
                wrapped(2, &wrapped(if place == "query" { 3 } else { 4 }, &inner))
            }
            other => panic!("a parameter is in {other}"),
        };
        message.message(field, &wrapped(1, &parameter_of_any_kind));
    }
}

fn schema(value: &Value) -> Message {
    let mut message = Message::default();
    for (key, value) in object(value) {
        match key.as_str() {
            "$ref" => message.text(1, value),
            "format" => message.text(2, value),
            "description" => message.text(4, value),
            "default" => message.message(5, &any(value)),
            "required" => message.texts(19, value),
            "additionalProperties" => message.message(21, &wrapped(1, &schema(value))),
            "type" => {
                let mut kind = Message::default();
                kind.text(1, value);
                message.message(22, &kind);
            }
            "items" => message.message(23, &wrapped(1, &schema(value))),
            "properties" => {
                let mut properties = Message::default();
                for (name, property) in object(value) {
                    properties.named(1, name, &schema(property));
                }
                message.message(25, &properties);
            }
            name if name.starts_with("x-") => message.extension(31, name, value),
            other => panic!("a schema has {other}"),
        }
    }
    message
}
