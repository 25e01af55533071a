//! `docs/reference/pod.md`: the table of what is refused is made from [`ROWS`]. `UPDATE_EXPECT=1` rewrites it; a stale
//! one is a failure.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use pod_api::unsupported::{Place, ROWS, Row, When};

const BEGIN: &str = "<!-- refused: made from pod_api::unsupported::ROWS, do not edit -->\n";
const END: &str = "<!-- end of refused -->\n";

#[test]
fn the_table_of_what_is_refused_is_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference/pod.md");
    let page = fs::read_to_string(&path).unwrap();
    let (head, rest) = page.split_once(BEGIN).expect("the table's beginning");
    let (_, tail) = rest.split_once(END).expect("the table's end");
    let current = format!("{head}{BEGIN}{}{END}{tail}", table());
    if page == current {
        return;
    }
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        fs::write(&path, current).unwrap();
    } else {
        panic!("{} is stale; UPDATE_EXPECT=1 makes it anew", path.display());
    }
}

fn table() -> String {
    let mut text = String::from("\n| field | refused when | why, and what to do instead |\n|---|---|---|\n");
    for row in ROWS {
        writeln!(text, "| `{}` | {} | {} |", field(row), when(row.when), row.advice.replace('|', "\\|")).unwrap();
    }
    text.push('\n');
    text
}

fn field(row: &Row) -> String {
    let place = match row.place {
        Place::Pod => "spec",
        Place::Container => "spec.containers[*]",
        Place::HostPort => "spec.containers[*].ports[*]",
        Place::ImageMount => "spec.containers[*].volumeMounts[*]",
        Place::Volume => "spec.volumes[*]",
        Place::Projection => "spec.volumes[*].projected.sources[*]",
    };
    format!("{place}.{}", row.field)
}

fn when(when: When) -> String {
    match when {
        When::Set => "set".to_owned(),
        When::True => "`true`".to_owned(),
        When::False => "`false`".to_owned(),
        When::Is(text) => format!("`{text}`"),
        When::Begins(text) => format!("begins with `{text}`"),
        When::Contains(text) => format!("contains `{text}`"),
        When::Key(text) => format!("names a resource `{text}…`"),
        When::ExtendedResource => "names a resource of your own (`example.com/gpu`)".to_owned(),
    }
}
