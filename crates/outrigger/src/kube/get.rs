//! `outrigger get`: the server's columns, or the objects themselves.

mod output;
mod table;
mod watch;

use pod_client::{Call, Kind};
use serde_json::Value;

use self::output::Output;
use self::table::{Look, Tables};
use super::arguments::Get;
use super::target::{self, Asked, Named, Scope};
use super::{Node, Outcome, Trouble, text};
use crate::cli::Global;
use crate::{exit, stdout};

pub(super) use output::{Output as Form, hide_managed_fields};

pub(crate) fn run(global: &Global, arguments: &Get) -> anyhow::Result<u8> {
    let node = Node::connect(global, &arguments.server)?;
    super::run(async { get(&node, arguments).await })
}

async fn get(node: &Node, arguments: &Get) -> Result<u8, Vec<Trouble>> {
    let one = |trouble| vec![trouble];
    let output = Output::parse(arguments.output.as_deref()).map_err(one)?;
    if arguments.show_labels && !output.is_table() {
        let name = arguments.output.as_deref().unwrap_or_default();
        return Err(one(Trouble::Text(format!("--show-labels option cannot be used with {name} printer"))));
    }
    let scope = Scope { selectors: arguments.selectors.clone(), all_namespaces: arguments.all_namespaces, every: true };
    let asked = target::asked(node, &arguments.words, &arguments.files, &scope).await.map_err(one)?;
    let look = Look {
        wide: output == Output::Wide,
        headers: !arguments.no_headers,
        namespaces: arguments.all_namespaces,
        kinds: arguments.show_kind,
        labels: arguments.show_labels,
        label_columns: arguments.label_columns.clone(),
    };
    if arguments.watch || arguments.watch_only {
        return watch::watch(node, arguments, asked, &scope, &output, look).await.map_err(one);
    }
    match output.is_table() {
        true => tables(node, arguments, asked, &scope, look).await,
        false => objects(node, arguments, asked, &scope, &output).await,
    }
}

async fn tables(
    node: &Node,
    arguments: &Get,
    asked: Asked<'_>,
    scope: &Scope,
    mut look: Look,
) -> Result<u8, Vec<Trouble>> {
    let mut troubles = Vec::new();
    let mut found: Vec<(&Kind, Value)> = Vec::new();
    let mut namespaced = !arguments.all_namespaces;
    match asked {
        Asked::Named(named) => {
            for one in named {
                match node.client.json(Call::get(one.path()).table()).await {
                    Ok(table) => found.push((one.kind, table)),
                    Err(error) if arguments.ignore_not_found && error.is_not_found() => {}
                    Err(error) => troubles.push(error.into()),
                }
            }
        }
        Asked::Every(kinds) => {
            for kind in kinds {
                match pages(node, kind, scope).await {
                    Ok(tables) => found.extend(tables.into_iter().map(|table| (kind, table))),
                    Err(trouble) => troubles.push(trouble),
                }
            }
        }
    }
    namespaced &= found.iter().all(|(kind, _)| kind.namespaced);
    look.kinds |= found.iter().any(|(kind, _)| *kind != found[0].0);
    let mut tables = Tables::new(look);
    let mut printed = String::new();
    for (kind, table) in &found {
        tables.add(kind, table).map_err(|trouble| vec![trouble])?;
    }
    tables.print(&mut printed);
    stdout::print(&printed).map_err(|error| vec![error.into()])?;
    if !troubles.is_empty() {
        return Err(troubles);
    }
    if printed.is_empty() && !arguments.ignore_not_found {
        match namespaced {
            true => eprintln!("No resources found in {} namespace.", node.namespace),
            false => eprintln!("No resources found"),
        }
    }
    Ok(exit::OK)
}

async fn pages(node: &Node, kind: &Kind, scope: &Scope) -> Outcome<Vec<Value>> {
    let mut tables = Vec::new();
    let mut more = String::new();
    loop {
        let path = scope.query(node, kind).with("limit", "500").maybe("continue", &more).into_string();
        let table = node.client.json(Call::get(path).table()).await.map_err(|error| scope.refused(kind, error))?;
        more = super::value::text(&table, "metadata.continue").to_owned();
        tables.push(table);
        if more.is_empty() {
            return Ok(tables);
        }
    }
}

async fn objects(
    node: &Node,
    arguments: &Get,
    asked: Asked<'_>,
    scope: &Scope,
    output: &Output,
) -> Result<u8, Vec<Trouble>> {
    let single = matches!(&asked, Asked::Named(named) if named.len() == 1);
    let mut troubles = Vec::new();
    let mut found = target::objects(node, asked, scope, &mut troubles).await;
    if arguments.ignore_not_found {
        troubles.retain(|trouble| !trouble.is_not_found());
    }
    if single && !troubles.is_empty() {
        return Err(troubles);
    }
    if single && found.is_empty() {
        return Ok(exit::OK);
    }
    if !arguments.show_managed_fields {
        found.iter_mut().for_each(|(_, object)| output::hide_managed_fields(object));
    }
    let printed = match single {
        true => found.first().map(|(kind, object)| output.object(kind, object)).unwrap_or_else(|| Ok(String::new())),
        false => output.list(&found),
    };
    let printed = printed.map_err(|trouble| vec![trouble])?;
    stdout::print(printed).map_err(|error| vec![error.into()])?;
    if troubles.is_empty() { Ok(exit::OK) } else { Err(troubles) }
}

/// A watch is of one kind, or of one object of it.
fn one_kind(asked: Asked<'_>) -> Outcome<(&Kind, Option<Named<'_>>)> {
    match asked {
        Asked::Every(kinds) if kinds.len() == 1 => Ok((kinds[0], None)),
        Asked::Named(mut named) if named.len() == 1 => {
            let one = named.remove(0);
            Ok((one.kind, Some(one)))
        }
        _ => text("you may only specify a single resource type"),
    }
}
