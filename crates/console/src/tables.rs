//! The page Tables: items of any table of the stack by query, scan and index, page by page; and the import of an
//! export.
//!
//! `item_page` shows one item and its form.

use axum::extract::{Form, Query, State};
use axum::response::{IntoResponse as _, Redirect, Response};
use http::StatusCode;
use maud::{Markup, html};
use millrace_local::import::ImportSource;
use millrace_local::template::{KeyDefinition, TableResource};
use millrace_shared::raw_item::RawItem;
use serde::Deserialize;

use crate::item_text::ItemNotation;
use crate::table_items::{self, ItemError, ItemPage, ItemSelection, SortCondition, example_key, kind_of};
use crate::{LocalContext, break_it, frame, item_page, tasks};

pub(crate) const PATH: &str = "/tables";
pub(crate) const TITLE: &str = "Tables";
/// The maximum length of an item in the list, in bytes.
const SHOWN_BYTES: usize = 600;

/// The selection in the page's address.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct TablesQuery {
    table: String,
    index: String,
    partition: String,
    condition: String,
    sort: String,
    sort_end: String,
    descending: String,
    after: String,
    view: String,
    /// The message about the last action.
    done: String,
}

impl TablesQuery {
    fn selection(&self) -> Result<ItemSelection, ItemError> {
        let condition = SortCondition::parse(&self.condition).ok_or_else(|| {
            ItemError::Invalid(format!("unknown condition {:?}: choose one of the list", self.condition))
        })?;
        Ok(ItemSelection {
            index: self.index.clone(),
            partition: self.partition.clone(),
            condition,
            sort: self.sort.clone(),
            sort_end: self.sort_end.clone(),
            descending: self.descending == "true",
            after: self.after.clone(),
        })
    }

    /// Returns the link to the page with another position.
    fn href(&self, table: &str, after: &str) -> String {
        let mut fields = vec![("table", table)];
        let own = [
            ("index", &self.index),
            ("partition", &self.partition),
            ("condition", &self.condition),
            ("sort", &self.sort),
            ("sort_end", &self.sort_end),
            ("descending", &self.descending),
            ("view", &self.view),
        ];
        fields.extend(own.into_iter().filter(|(_, value)| !value.is_empty()).map(|(name, value)| (name, &**value)));
        if !after.is_empty() {
            fields.push(("after", after));
        }
        frame::href(PATH, &fields)
    }
}

/// Returns the link to the first page of a table.
pub(crate) fn href(table: &str) -> String {
    frame::href(PATH, &[("table", table)])
}

/// Renders the page of an error, with a way back.
pub(crate) fn failed(error: &ItemError) -> Response {
    let status = match error {
        ItemError::Invalid(_) => StatusCode::BAD_REQUEST,
        ItemError::Gone(_) => StatusCode::NOT_FOUND,
        ItemError::Failed(_) => StatusCode::BAD_GATEWAY,
    };
    frame::failed(status, PATH, TITLE, &error.to_string())
}

/// Returns the role of a table in this stack, as a note next to its name.
pub(crate) fn role(context: &LocalContext, table: &str) -> Option<&'static str> {
    if context.stack.source_table().is_some_and(|source| source.name == table) {
        return Some("source");
    }
    break_it::replica_table(context).filter(|replica| replica.name == table).map(|_| "replica")
}

/// Shows the page.
pub(crate) async fn show(State(context): State<LocalContext>, Query(query): Query<TablesQuery>) -> Response {
    let client = context.stack.dynamodb();
    let names = match table_items::list_tables(&client).await {
        Ok(names) => names,
        Err(error) => return frame::failed(StatusCode::BAD_GATEWAY, "/", TITLE, &error.to_string()),
    };
    let first = || {
        let source = context.stack.source_table().map(|table| table.name.clone());
        source.filter(|name| names.contains(name)).or_else(|| names.first().cloned())
    };
    let Some(name) = Some(query.table.clone()).filter(|name| !name.is_empty()).or_else(first) else {
        let body = html! {
            p.box {
                "The stack has no table. Add one to the template, or create one with " code {
                    "aws dynamodb create-table"
                }
                "."
            }
        };
        return frame::page(PATH, TITLE, &body).into_response();
    };
    let table = match table_items::describe(&client, &name).await {
        Ok(table) => table,
        Err(error) => {
            let status =
                if matches!(error, ItemError::Gone(_)) { StatusCode::NOT_FOUND } else { StatusCode::BAD_GATEWAY };
            let body = html! {
                (choices(&context, &names, &name))
                (frame::problem(&error.to_string()))
                p { "Choose another table, or create this one again." }
            };
            return (status, frame::page(PATH, TITLE, &body)).into_response();
        }
    };
    let page = match query.selection() {
        Ok(selection) => table_items::read_page(&client, &table, &selection).await,
        Err(error) => Err(error),
    };
    let status = match &page {
        Ok(_) => StatusCode::OK,
        Err(ItemError::Invalid(_)) => StatusCode::BAD_REQUEST,
        Err(ItemError::Gone(_)) => StatusCode::NOT_FOUND,
        Err(ItemError::Failed(_)) => StatusCode::BAD_GATEWAY,
    };
    let body = html! {
        (choices(&context, &names, &name))
        @if query.done == "deleted" { p.box.good role="status" { "The item was deleted." } }
        h2 { "Find items" }
        (search(&table, &query))
        (by_key(&table))
        h2 { "Items of " (table.name) }
        @match &page {
            Err(error) => { (frame::problem(&error.to_string())) }
            Ok(page) => { (items(&table, &query, page)) }
        }
        h2 { "Add items" }
        div.cards {
            section.box aria-label="Create an item" {
                h3 { "Create an item" }
                p { "Write one item, in DynamoDB JSON or plain JSON." }
                p {
                    a href=(item_page::href(&table.name, "", ItemNotation::parse(&query.view))) {
                        "Create an item in " (table.name)
                    }
                }
            }
            (import(&context, &table))
        }
    };
    (status, frame::page(PATH, TITLE, &body)).into_response()
}

fn choices(context: &LocalContext, names: &[String], chosen: &str) -> Markup {
    html! {
        nav.tabs aria-label="Tables" { ul {
            @for name in names {
                li {
                    a href=(href(name)) aria-current=[(name == chosen).then_some("true")] { (name) }
                    @if let Some(role) = role(context, name) { " " span.note { (role) } }
                }
            }
        } }
    }
}

fn search(table: &TableResource, query: &TablesQuery) -> Markup {
    let keys = table_items::keys_of(table, &query.index).unwrap_or(&table.keys);
    let label = |key: &KeyDefinition| format!("{} ({})", key.name, kind_of(table, &key.name));
    html! {
        form.row method="get" action=(PATH) role="search" aria-label="Query or scan" {
            input type="hidden" name="table" value=(table.name);
            div {
                label for="index" { "Read from" }
                select #index name="index" {
                    option value="" { "the table: " (table.keys.iter().map(label).collect::<Vec<_>>().join(", ")) }
                    @for index in table_items::indexes(table) {
                        option value=(index.name) selected[index.name == query.index] {
                            "index " (index.name) ": " (index.keys.iter().map(label).collect::<Vec<_>>().join(", "))
                        }
                    }
                }
            }
            div {
                label for="partition" { "Partition key " @if let Some(key) = keys.first() { (label(key)) } }
                input #partition type="text" name="partition" value=(query.partition) aria-describedby="find-help";
            }
            div {
                label for="condition" { "Sort key " @if let Some(key) = keys.get(1) { (label(key)) } }
                select #condition name="condition" {
                    @for condition in SortCondition::ALL {
                        option value=(condition.as_str()) selected[condition.as_str() == query.condition] {
                            (condition.label())
                        }
                    }
                }
            }
            div {
                label for="sort" { "Sort key value" }
                input #sort type="text" name="sort" value=(query.sort) maxlength="2048";
            }
            div {
                label for="sort_end" { "Upper value of between" }
                input #sort_end type="text" name="sort_end" value=(query.sort_end) maxlength="2048";
            }
            div {
                label for="view" { "Show as" }
                select #view name="view" {
                    @for notation in ItemNotation::ALL {
                        option value=(notation.as_str()) selected[notation.as_str() == query.view] {
                            (notation.label())
                        }
                    }
                }
            }
            div.check {
                input #descending type="checkbox" name="descending" value="true" checked[query.descending == "true"];
                label for="descending" { "Highest sort key first" }
            }
            button type="submit" { "Find" }
            a href=(href(&table.name)) { "Show all" }
        }
        p #find-help .note { "Without a partition key, the table or the index is scanned. With one, it is queried." }
    }
}

fn by_key(table: &TableResource) -> Markup {
    html! {
        form.row method="get" action=(item_page::PATH) role="search" aria-label="By key" {
            input type="hidden" name="table" value=(table.name);
            div.wide {
                label for="key" { "Or one item by its key, in DynamoDB JSON" }
                input #key type="text" name="key" placeholder=(example_key(table)) aria-describedby="key-help" required;
            }
            button type="submit" { "Open" }
        }
        p #key-help .note { "Example: " code { (example_key(table)) } }
    }
}

fn items(table: &TableResource, query: &TablesQuery, page: &ItemPage) -> Markup {
    let notation = ItemNotation::parse(&query.view);
    let is_first = query.after.is_empty();
    let is_filtered = !query.partition.is_empty() || !query.index.is_empty();
    html! {
        @if page.items.is_empty() {
            p.box {
                @if !is_first { "There are no more items." }
                @else if is_filtered { "No item matches. " a href=(href(&table.name)) { "Show all items" } "." }
                @else {
                    "The table is empty. Create an item or import an export below, or write sample items on the "
                    "page "
                    a href="/break" {
                        "Break it"
                    }
                    "."
                }
            }
        } @else {
            p.note role="status" {
                (frame::count(page.items.len(), "item")) @if page.next.is_some() { "; there are more." } @else { "." }
                " Longer items are cut to " (SHOWN_BYTES) " bytes here."
            }
            div.scroll tabindex="0" role="region" aria-label="Items" { table {
                thead { tr {
                    @for key in &table.keys { th scope="col" { (key.name) } }
                    th scope="col" { "Item in " (notation.label()) }
                    th.number scope="col" { "Bytes" }
                } }
                tbody { @for item in &page.items { (row(table, item, notation)) } }
            } }
        }
        @if !is_first || page.next.is_some() {
            nav.pages aria-label="Pages of items" {
                @if !is_first { a href=(query.href(&table.name, "")) { "First page" } }
                @if let Some(next) = &page.next { a href=(query.href(&table.name, next)) rel="next" { "Next page" } }
            }
        }
    }
}

fn row(table: &TableResource, item: &RawItem, notation: ItemNotation) -> Markup {
    let key = table_items::key_of(table, item);
    let open = item_page::href(&table.name, &key, notation);
    let text = |key: &KeyDefinition| match item.get(&key.name) {
        Some(aws_sdk_dynamodb::types::AttributeValue::S(text) | aws_sdk_dynamodb::types::AttributeValue::N(text)) => {
            frame::cut(text, SHOWN_BYTES)
        }
        // Binary data, or a key that the index does not project.
        _ => frame::cut(&key_text(item, &key.name), SHOWN_BYTES),
    };
    html! {
        tr {
            @for (position, own) in table.keys.iter().enumerate() {
                @if position == 0 {
                    th.mono scope="row" { a href=(open) { (text(own)) } }
                } @else {
                    td.mono { (text(own)) }
                }
            }
            td.mono { (frame::cut(&notation.format_compact(item), SHOWN_BYTES)) }
            td.number { (item.size_bytes()) }
        }
    }
}

fn key_text(item: &RawItem, name: &str) -> String {
    let one = item.get(name).map(|value| RawItem::new([(name.to_owned(), value.clone())].into()));
    one.map_or_else(|| "–".to_owned(), |one| one.encode())
}

fn import(context: &LocalContext, table: &TableResource) -> Markup {
    html! {
        section.box aria-label="Import" {
            h3 { "Import an export" }
            p {
                "Writes the items of an export of DynamoDB to S3 in DynamoDB JSON, or of a file with one item on "
                "each line. Every item is a change, which is replicated."
            }
            form method="post" action=(format!("{PATH}/import")) {
                (frame::token_field(context))
                input type="hidden" name="table" value=(table.name);
                label for="path" { "File or folder on this machine" }
                input.full #path type="text" name="path" placeholder="./AWSDynamoDB/01795860257098-3f1c2a" required;
                button type="submit" { "Import into " (table.name) }
            }
        }
    }
}

/// The form of an import.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct ImportForm {
    token: Option<String>,
    table: String,
    path: String,
}

/// Starts an import.
pub(crate) async fn start_import(State(context): State<LocalContext>, Form(form): Form<ImportForm>) -> Response {
    if let Err(rejected) = context.guard.check_token(form.token.as_deref()) {
        return rejected.into_response();
    }
    let table = match table_items::describe(&context.stack.dynamodb(), &form.table).await {
        Ok(table) => table,
        Err(error) => return failed(&error),
    };
    let path = form.path.trim().to_owned();
    // Opening reads folders and the beginnings of files.
    let opened = tokio::task::spawn_blocking(move || ImportSource::open(path.as_ref())).await;
    let source = match opened {
        Ok(Ok(source)) => source,
        Ok(Err(error)) => {
            return frame::failed(StatusCode::BAD_REQUEST, &href(&table.name), TITLE, &error.to_string());
        }
        Err(panic) => return frame::failed(StatusCode::INTERNAL_SERVER_ERROR, PATH, TITLE, &panic.to_string()),
    };
    match context.runs.start_import(context.stack.clone(), source, table, &context.clock) {
        Ok(id) => Redirect::to(&tasks::href(&id)).into_response(),
        Err(reason) => frame::failed(StatusCode::CONFLICT, PATH, TITLE, &reason),
    }
}
