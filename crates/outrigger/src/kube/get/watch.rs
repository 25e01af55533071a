//! `get -w`: what there is, then every change, in columns that never get narrower.

use pod_client::Call;
use pod_client::print::columns::Columns;
use pod_client::watch::Watch;

use super::output::{self, Output};
use super::table::{Look, Printer};
use super::{one_kind, pages};
use crate::kube::arguments::Get;
use crate::kube::target::{Asked, Scope};
use crate::kube::{Node, Outcome, value};
use crate::{exit, stdout};

pub(super) async fn watch(
    node: &Node,
    arguments: &Get,
    asked: Asked<'_>,
    scope: &Scope,
    output: &Output,
    look: Look,
) -> Outcome<u8> {
    let (kind, one) = one_kind(asked)?;
    let mut printer = Printer::new(look, kind);
    let mut columns = Columns::table();
    let mut show = |event: &mut serde_json::Value| -> Outcome<()> {
        let text = match output.is_table() {
            true => columns.render(&printer.rows(event)?),
            false => {
                if !arguments.show_managed_fields {
                    output::hide_managed_fields(event);
                }
                output.object(kind, event)?
            }
        };
        // A reader who has seen enough ends the watch.
        stdout::write(text)?;
        Ok(())
    };
    let call = |path: String| if output.is_table() { Call::get(path).table() } else { Call::get(path) };

    // What there is.
    let version;
    match &one {
        Some(named) => {
            let mut object = match node.client.json(call(named.path())).await {
                Err(error) if arguments.ignore_not_found && error.is_not_found() => return Ok(exit::OK),
                other => other?,
            };
            version = value::text(&object, "metadata.resourceVersion").to_owned();
            if !arguments.watch_only {
                show(&mut object)?;
            }
        }
        None if output.is_table() => {
            let tables = pages(node, kind, scope).await?;
            version = tables
                .last()
                .map(|table| value::text(table, "metadata.resourceVersion").to_owned())
                .unwrap_or_default();
            for mut table in tables {
                if !arguments.watch_only {
                    show(&mut table)?;
                }
            }
        }
        None => {
            let path = scope.query(node, kind).with("limit", "500").into_string();
            let mut list = node.client.json(Call::get(path)).await?;
            version = value::text(&list, "metadata.resourceVersion").to_owned();
            for mut object in crate::kube::target::take_items(&mut list, kind) {
                if !arguments.watch_only {
                    show(&mut object)?;
                }
            }
        }
    }

    // What changes. The object's own version, where one is watched: nothing is missed and nothing comes twice.
    let mut query = scope.query(node, kind).with("watch", "true").with("resourceVersion", &version);
    if let Some(named) = &one {
        query = query.with("fieldSelector", &format!("metadata.name={}", named.name));
    }
    let mut watch = Watch::open(&node.client, call(query.into_string())).await?;
    while let Some(mut event) = watch.next().await? {
        if event.kind != "BOOKMARK" {
            show(&mut event.object)?;
        }
    }
    Ok(exit::OK)
}
