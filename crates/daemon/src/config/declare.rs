//! The declarations from which everything else about a configuration type follows.

/// A map of fields. After the type stands whether a field is `required`, `optional` (the type is an `Option`) or has a
/// `default`. With `: Default` after the name the type has the defaults as a value, too; what is required is empty there, for
/// whoever makes one by hand to fill in.
///
/// ```ignore
/// daemon::document! {
///     /// Where to follow.
///     pub struct Files {
///         /// Glob patterns.
///         include: Vec<String> = required,
///         /// How long a rotated file is still read.
///         rotate_wait: Seconds = default(Seconds::new(5)),
///     }
/// }
/// ```
#[macro_export]
macro_rules! document {
    ($(#[doc = $doc:literal])* $vis:vis struct $name:ident : Default {
        $($(#[doc = $field_doc:literal])* $field:ident : $type:ty = $presence:ident $(($default:expr))? ,)*
    }) => {
        $crate::document! {
            $(#[doc = $doc])*
            $vis struct $name {
                $($(#[doc = $field_doc])* $field : $type = $presence $(($default))? ,)*
            }
        }

        impl Default for $name {
            fn default() -> Self {
                $name { $($field: $crate::document!(@default $presence $(($default))?),)* }
            }
        }
    };
    ($(#[doc = $doc:literal])* $vis:vis struct $name:ident {
        $($(#[doc = $field_doc:literal])* $field:ident : $type:ty = $presence:ident $(($default:expr))? ,)*
    }) => {
        $(#[doc = $doc])*
        #[derive(Clone, Debug, PartialEq)]
        $vis struct $name { $($(#[doc = $field_doc])* pub $field: $type,)* }

        impl $crate::config::Document for $name {
            #[allow(unused_mut, unused_variables)]
            fn decode(node: &$crate::config::tree::Node, decoder: &mut $crate::config::Decoder) -> Option<Self> {
                let mut members = $crate::config::decode::Members::new(node, decoder)?;
                $(let $field: Option<$type> = $crate::document!(
                    @take members, decoder, node, $field, $type, $presence $(($default))?);)*
                members.finish(decoder);
                Some($name { $($field: $field?,)* })
            }
            fn schema() -> $crate::config::Schema {
                let fields = vec![$($crate::config::schema::Field {
                    name: $crate::config::schema::camel(stringify!($field)),
                    doc: $crate::config::schema::doc(&[$($field_doc),*]),
                    schema: <$type as $crate::config::Document>::schema(),
                    presence: $crate::document!(@presence $type, $presence $(($default))?),
                },)*];
                let doc = $crate::config::schema::doc(&[$($doc),*]);
                let shape = $crate::config::schema::Shape::Fields { name: stringify!($name), doc, fields, one_of: false };
                $crate::config::Schema { shape }
            }
            fn print(&self) -> $crate::config::print::Value {
                let mut members = $crate::config::print::Map::new();
                $({
                    let value = $crate::config::Document::print(&self.$field);
                    if !value.is_null() {
                        members.insert($crate::config::schema::camel(stringify!($field)), value);
                    }
                })*
                $crate::config::print::Value::Object(members)
            }
        }
    };
    (@take $members:ident, $decoder:ident, $node:ident, $field:ident, $type:ty, required) => {{
        let name = $crate::config::schema::camel(stringify!($field));
        $members.take::<$type>(&name, $decoder).unwrap_or_else(|| {
            $decoder.refuse($node.mark, format!("the field `{name}` is required"));
            None
        })
    }};
    (@take $members:ident, $decoder:ident, $node:ident, $field:ident, $type:ty, optional) => {{
        let name = $crate::config::schema::camel(stringify!($field));
        $members.take::<$type>(&name, $decoder).unwrap_or(Some(None))
    }};
    (@take $members:ident, $decoder:ident, $node:ident, $field:ident, $type:ty, default($default:expr)) => {{
        let name = $crate::config::schema::camel(stringify!($field));
        $members.take::<$type>(&name, $decoder).unwrap_or_else(|| Some($default))
    }};
    (@default default($default:expr)) => { $default };
    (@default $presence:ident) => { Default::default() };
    (@presence $type:ty, required) => { $crate::config::schema::Presence::Required };
    (@presence $type:ty, optional) => { $crate::config::schema::Presence::Optional };
    (@presence $type:ty, default($default:expr)) => {
        $crate::config::schema::Presence::Default(<$type as $crate::config::Document>::print(&$default))
    };
}

/// One of several words.
#[macro_export]
macro_rules! choice {
    ($(#[doc = $doc:literal])* $vis:vis enum $name:ident {
        $($(#[doc = $variant_doc:literal])* $variant:ident = $text:literal,)*
    }) => {
        $(#[doc = $doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        $vis enum $name { $($(#[doc = $variant_doc])* $variant,)* }

        impl $crate::config::Document for $name {
            fn decode(node: &$crate::config::tree::Node, decoder: &mut $crate::config::Decoder) -> Option<Self> {
                let text = match &node.data {
                    $crate::config::tree::Data::Scalar(text, _) => text.as_str(),
                    _ => "",
                };
                match text {
                    $($text => Some($name::$variant),)*
                    _ => {
                        let known: &[&str] = &[$($text),*];
                        decoder.refuse(node.mark, format!("must be one of {}", known.join(", ")));
                        None
                    }
                }
            }
            fn schema() -> $crate::config::Schema {
                let names = vec![$(($text, concat!($($variant_doc),*).trim()),)*];
                $crate::config::Schema { shape: $crate::config::schema::Shape::Choice(names) }
            }
            fn print(&self) -> $crate::config::print::Value {
                $crate::config::print::Value::from(match self { $($name::$variant => $text,)* })
            }
        }
    };
}

/// A map of exactly one field, whose name says which it is.
#[macro_export]
macro_rules! one_of {
    ($(#[doc = $doc:literal])* $vis:vis enum $name:ident {
        $($(#[doc = $variant_doc:literal])* $variant:ident ( $type:ty ) = $text:literal,)*
    }) => {
        $(#[doc = $doc])*
        #[derive(Clone, Debug, PartialEq)]
        $vis enum $name { $($(#[doc = $variant_doc])* $variant($type),)* }

        impl $crate::config::Document for $name {
            fn decode(node: &$crate::config::tree::Node, decoder: &mut $crate::config::Decoder) -> Option<Self> {
                let members = match &node.data {
                    $crate::config::tree::Data::Map(members) => members.as_slice(),
                    _ => &[],
                };
                let known: &[&str] = &[$($text),*];
                let [member] = members else {
                    decoder.refuse(node.mark, format!("must have exactly one of the fields {}", known.join(", ")));
                    return None;
                };
                match member.name.as_str() {
                    $($text => decoder
                        .within(concat!(".", $text), member.mark, |decoder| {
                            // `stdout:` alone is as good as `stdout: {}`.
                            let empty = $crate::config::tree::Node {
                                mark: member.mark,
                                data: $crate::config::tree::Data::Map(Vec::new()),
                            };
                            let node = if member.node.is_null() { &empty } else { &member.node };
                            <$type as $crate::config::Document>::decode(node, decoder)
                        })
                        .map($name::$variant),)*
                    other => {
                        decoder.refuse(member.mark, format!("unknown field `{other}` (known here: {})", known.join(", ")));
                        None
                    }
                }
            }
            fn schema() -> $crate::config::Schema {
                let fields = vec![$($crate::config::schema::Field {
                    name: $text.to_owned(),
                    doc: $crate::config::schema::doc(&[$($variant_doc),*]),
                    schema: <$type as $crate::config::Document>::schema(),
                    presence: $crate::config::schema::Presence::Optional,
                },)*];
                let doc = $crate::config::schema::doc(&[$($doc),*]);
                let shape = $crate::config::schema::Shape::Fields { name: stringify!($name), doc, fields, one_of: true };
                $crate::config::Schema { shape }
            }
            fn print(&self) -> $crate::config::print::Value {
                let mut members = $crate::config::print::Map::new();
                match self {
                    $($name::$variant(value) => {
                        members.insert($text.to_owned(), $crate::config::Document::print(value));
                    })*
                }
                $crate::config::print::Value::Object(members)
            }
        }
    };
}
